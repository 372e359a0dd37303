"""Affine ends of modules with a forward of their own."""

import copy
import warnings

import module_zoo as zoo
import numpy as np
import pytest
import torch
from attribution_models import drawn, keys_of, make_targets, shake
from test_factorisation import layers_of
from test_igc import ENOUGH
from torch import nn
from torch.nn import functional as F

from neuroigc.attribution import factorisation, integrated_gradient_correlation
from neuroigc.attribution.factorisation import DenseStem, IdentityStem, ModuleStem, factorise
from neuroigc.attribution.reference import reference_igc_of_pairs

CONDITIONS = torch.tensor([0, 1, 2, 0, 1])
# Module, input shape, kind and hidden shape of the stem, shape of the head's weight.
ZOO = [
    (zoo.ResidualMLP, (6,), DenseStem, (5,), (3, 5)),
    (zoo.ResidualCNN, (2, 8, 8), ModuleStem, (4, 4, 4), (3, 4)),
    (zoo.Functional, (6,), DenseStem, (4,), (2, 4)),
    (zoo.ConditionsBehind, (6,), DenseStem, (4,), (2, 4)),
    (zoo.TwoBranches, (6,), DenseStem, (4,), (3, 4)),
    (zoo.SharedLayer, (5,), DenseStem, (5,), (2, 5)),
    (zoo.TiedEnds, (6,), DenseStem, (3,), (6, 3)),
    (zoo.InPlace, (6,), DenseStem, (4,), (2, 4)),
    (zoo.Branching, (6,), DenseStem, (4,), (2, 4)),
    (zoo.Untraceable, (6,), IdentityStem, (6,), None),
    (zoo.Views, (6, 6), ModuleStem, (2, 4, 4), (3, 32)),
    (zoo.Attention, (5, 3), ModuleStem, (5, 4), (2, 4)),
    (zoo.Patches, (1, 8, 8), ModuleStem, (4, 4), (2, 4)),
    (zoo.Recurrent, (7, 3), ModuleStem, (7, 2), (2, 4)),
    (zoo.Clamped, (6,), IdentityStem, (6,), (2, 4)),
    (zoo.SingleOutput, (6,), DenseStem, (4,), (1, 4)),
    (zoo.WritesOnItself, (6,), DenseStem, (4,), (2, 4)),
    (zoo.LowRank, (6,), DenseStem, (2,), (9, 3)),
]


def numbers(*shape, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def gradient(function, x, weights):
    leaf = x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad((function(leaf.clone()) * weights).sum(), leaf)
    return found


def check(model, shape, conditions=None, n=5):
    """Return the factors, having seen that values and gradients are the model's, at any size."""
    model = model.eval()
    factors = factorise(model, numbers(n, *shape), conditions)
    for m, scale in ((n, 1), (1, 1), (11, 5)):
        x = scale * numbers(m, *shape, seed=2)
        beside = () if conditions is None else (conditions[torch.arange(m) % n],)
        whole = model(x, *beside).reshape(m, -1)
        hidden = factors.stem(x.flatten(1))
        torch.testing.assert_close(factors.outputs(hidden, *beside), whole, rtol=0, atol=1e-11)
        weights = numbers(*whole.shape, seed=3)
        plain = gradient(lambda x, b=beside: model(x, *b).reshape(len(x), -1), x, weights)
        behind = gradient(lambda h, b=beside: factors.outputs(h, *b), hidden.detach(), weights)
        pulled = factors.stem.pull(behind).detach()
        torch.testing.assert_close(pulled, plain.flatten(1), rtol=1e-10, atol=1e-10)
        chosen = torch.tensor([0, factors.stem.n_inputs - 1])
        torch.testing.assert_close(factors.stem.pull_to(chosen)(behind), pulled[:, chosen])
        alone = torch.zeros_like(x.flatten(1))
        alone[:, chosen] = x.flatten(1)[:, chosen]
        torch.testing.assert_close(
            factors.stem.push_from(chosen, x.flatten(1)),
            factors.stem(alone) - factors.stem(torch.zeros_like(alone)),
        )
    return factors


def snapshot(model):
    """Return all that could be changed: weights, flags, hooks, attributes."""
    attributes = {
        name: {key: (id(value), copy.copy(value)) for key, value in vars(module).items()}
        for name, module in model.named_modules()
        if "Writes" not in type(module).__name__
    }
    weights = {
        name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()
    }
    grads = [(p.requires_grad, p.grad) for p in model.parameters()]
    return str(attributes), str(weights), str(grads), str([m.training for m in model.modules()])


@pytest.mark.parametrize(
    ("kind", "shape", "stem", "hidden_shape", "head"), ZOO, ids=lambda v: getattr(v, "__name__", "")
)
def test_zoo(kind, shape, stem, hidden_shape, head, capsys):
    model = shake(kind()).double()
    before, state = snapshot(model), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factors = check(model, shape, CONDITIONS if kind is zoo.ConditionsBehind else None)
    assert type(factors.stem) is stem
    assert factors.stem.hidden_shape == hidden_shape
    assert (None if factors.head is None else tuple(factors.head[0].shape)) == head
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [row[0] for row in ZOO])
def test_zoo_in_single_precision_is_split_alike(kind):
    row = next(row for row in ZOO if row[0] is kind)
    model, x = shake(kind()), numbers(5, *row[1], dtype=torch.float32)
    conditions = CONDITIONS if kind is zoo.ConditionsBehind else None
    factors = factorise(model, x, conditions)
    assert (type(factors.stem), factors.stem.hidden_shape) == (row[2], row[3])
    assert (factors.head is None) == (row[4] is None)


def test_conditions_that_enter_first_leave_the_stem_in_the_body():
    factors = check(shake(zoo.ConditionsBefore()).double(), (6,), CONDITIONS)
    assert type(factors.stem) is IdentityStem
    assert factors.head[0].shape == (2, 4)


def test_conditions_left_out_are_none():
    factors = check(shake(zoo.ConditionsBehind()).double(), (6,))
    assert type(factors.stem) is DenseStem


def test_weights_are_shared_not_copied():
    model = shake(zoo.ConditionsBehind()).double()
    factors = factorise(model, numbers(5, 6), CONDITIONS)
    assert factors.stem.weight.data_ptr() == model.first.weight.data_ptr()
    assert factors.head[0].data_ptr() == model.last.weight.data_ptr()
    assert {id(p) for p in factors.body.parameters()} <= {id(p) for p in model.parameters()}
    model = shake(zoo.Attention()).double()
    factors = factorise(model, numbers(5, 5, 3))
    assert {id(p) for p in factors.body.parameters()} <= {id(p) for p in model.parameters()}


def test_modules_of_the_body_are_the_models_own():
    # So that hooks which are registered on the model later are called.
    model = shake(nn.Sequential(nn.Linear(6, 4), nn.Mish(), nn.Linear(4, 2))).double()
    factors = factorise(model, numbers(5, 6))
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    factors.outputs(factors.stem(numbers(5, 6)))
    assert calls == [1]


def test_model_does_not_keep_stand_ins():
    model = shake(zoo.WritesOnItself()).double()
    factorise(model, numbers(5, 6))
    assert type(model.hidden) is torch.Tensor
    assert all(type(seen) is torch.Tensor for seen in model.seen)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_modules_with_hooks_keep_them(place):
    model = shake(zoo.Branching()).double()
    getattr(model, place).register_forward_hook(lambda _module, _inputs, output: output.sin())
    factors = check(model, (6,))
    assert type(factors.stem) is (IdentityStem if place == "first" else DenseStem)
    assert (factors.head is None) == (place == "last")


def test_hook_on_the_whole_model_is_kept():
    model = shake(zoo.ResidualMLP()).double()
    model.register_forward_pre_hook(lambda _module, inputs: (inputs[0] ** 3,))
    assert type(check(model, (6,)).stem) is IdentityStem


def test_hook_on_gradients_is_kept():
    model = shake(zoo.Branching()).double()
    model.first.register_full_backward_hook(lambda _module, into, _out: (into[0].clamp(min=0),))
    assert type(check(model, (6,)).stem) is IdentityStem


def test_method_put_in_place_of_forward_is_kept():
    model = shake(zoo.Branching()).double()
    model.first.forward = lambda x: F.linear(x, model.first.weight).abs()
    assert type(check(model, (6,)).stem) is IdentityStem


def test_subclass_with_its_own_forward_is_followed():
    class Squashed(nn.Linear):
        def forward(self, x):
            return super().forward(x.abs())

    class Stretched(nn.Linear):
        def forward(self, x):
            return super().forward(3 * x)

    factors = check(shake(nn.Sequential(Squashed(6, 4), Stretched(4, 2))).double(), (6,))
    assert type(factors.stem) is IdentityStem
    assert factors.head[0].shape == (2, 4)


def test_parametrised_layer_is_peeled():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Tanh())
    factors = check(shake(model).double(), (6,))
    assert type(factors.stem) is DenseStem


def test_declared_stem_affine_near_the_data_alone_is_refused():
    class Declared(nn.Module):
        def __init__(self, low):
            super().__init__()
            self.stem = nn.Sequential(nn.Linear(6, 4), nn.Threshold(low, low))
            self.body, self.head = nn.Tanh(), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.body(self.stem(x)))

    for low in (-20.0, -1e3, -1e5):
        factors = check(shake(Declared(low)).double(), (6,))
        assert layers_of(factors.body) == ["Threshold", "Tanh"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_left_whole(dtype):
    model, x = shake(zoo.ResidualMLP()).to(dtype), numbers(5, 6, dtype=dtype)
    factors = factorise(model, x)
    assert (type(factors.stem), factors.body, factors.head) == (IdentityStem, model, None)


def test_model_in_training_mode_is_left_whole():
    for part in (0, 1):
        model = shake(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh())).double()
        model[part].train()
        before = snapshot(model)
        assert factorise(model, numbers(5, 6)).body is model
        assert snapshot(model) == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_is_trusted_that_is_not_finite(bad):
    model = shake(zoo.ResidualMLP()).double()
    with torch.no_grad():
        model.last.bias[0] = bad
    assert factorise(model, numbers(5, 6)).body is model


def test_a_batch_size_is_never_recorded():
    class Recorded(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = torch.tanh(self.first(x)) * 6 / (len(x) + 1 if type(x) is torch.Tensor else 6)
            return self.last(h)

    # Stand-ins are told another number than tensors: only a run at another size can tell.
    model = shake(Recorded()).double()
    assert factorise(model, numbers(5, 6)).body is model


FOLDED = [
    (nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), (2, 9)),
    (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(4), (2, 7, 8)),
    (nn.Conv2d(2, 4, 3, padding="same", padding_mode="reflect"), nn.BatchNorm2d(4), (2, 7, 8)),
    (nn.Conv3d(1, 2, 3, dilation=2, bias=False), nn.BatchNorm3d(2, affine=False), (1, 6, 7, 5)),
    (nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2), (4, 6, 6)),
    (nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (2, 6, 6)),
]


@pytest.mark.parametrize(("first", "second", "shape"), FOLDED)
def test_batch_norm_is_folded_into_one_convolution(first, second, shape):
    first, second = copy.deepcopy((first, second))
    factors = check(shake(nn.Sequential(first, second, nn.Mish(), nn.Flatten())).double(), shape)
    assert isinstance(factors.stem.module, nn.modules.conv._ConvNd)
    assert layers_of(factors.body) == ["Mish", "Flatten"]


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Flatten(), nn.BatchNorm1d(18), nn.Linear(18, 4)],
        [nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(18, 4), nn.Dropout(), nn.BatchNorm1d(4)],
        [nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(21, 4)],
        [nn.AvgPool1d(2), nn.Flatten(), nn.Linear(8, 4)],
    ],
)
def test_what_ends_in_a_linear_layer_is_one_matrix(layers):
    factors = check(shake(nn.Sequential(*layers, nn.Tanh())).double(), (2, 9))
    assert type(factors.stem) is DenseStem
    assert factors.stem.weight.shape == (4, 18)


def test_norm_before_a_convolution_that_continues_by_zeros_is_not_folded():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten())
    factors = check(shake(model).double(), (2, 5, 5))
    assert not isinstance(factors.stem.module, nn.Conv2d)
    assert factors.stem.hidden_shape == (3, 5, 5)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_transposed_convolution_is_the_derivative(stride, dilation, padding):
    options = dict(stride=stride, dilation=dilation, padding=padding)
    for n_axes, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1):
        layer = shake(kind(2, 4, 3, groups=2, **options)).double()
        shape = (2, *(8, 9, 7)[:n_axes])
        stem = ModuleStem(shape, layer, numbers(1, *shape))
        assert stem.is_convolution
        g = numbers(3, 2, stem.n_hidden)
        fast, stem.is_convolution = stem.pull(g), False
        torch.testing.assert_close(fast, stem.pull(g))


@pytest.mark.parametrize("broken", ["_is_affine", "_agree"])
def test_each_half_of_the_check_is_needed(broken, monkeypatch):
    """What is refused above for one reason passes if that reason is not looked at."""

    class Lying(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Linear(6, 4), nn.Threshold(-20, -20))
            self.body, self.head = nn.Tanh(), nn.Linear(4, 2)

        def forward(self, x):
            h = self.body(self.stem(x))
            return self.head(h) if broken == "_is_affine" else self.head(h).sin()

    model = shake(Lying()).double()
    if broken == "_agree":
        model.stem = model.stem[0]
    honest = factorise(model, numbers(5, 6))
    monkeypatch.setattr(factorisation, broken, lambda *_: True)
    fooled = factorise(model, numbers(5, 6))
    assert fooled.body is model.body
    assert honest.body is not model.body


class Wide(nn.Module):
    """More outputs than latents."""

    def __init__(self, kind):
        super().__init__()
        self.inner, self.last = kind(), nn.Linear(3, 12)

    def forward(self, x):
        return self.last(self.inner(x))


@pytest.mark.parametrize(
    ("kind", "shape", "regime"),
    [
        (zoo.ResidualCNN, (2, 8, 8), "CotangentEngine"),
        (lambda: Wide(zoo.ResidualCNN), (2, 8, 8), "LatentEngine"),
        (zoo.TwoBranches, (6,), "CotangentEngine"),
        (lambda: Wide(zoo.Views), (6, 6), "LatentEngine"),
        (zoo.LowRank, (6,), "LatentEngine"),
        (zoo.Recurrent, (7, 3), "CotangentEngine"),
    ],
)
def test_attribution_of_split_modules_equals_the_reference(rng, kind, shape, regime):
    model, x = shake(kind()).double(), rng.standard_normal((14, *shape))
    y = make_targets(model, x, rng)
    result = integrated_gradient_correlation(model, x, y, **ENOUGH)
    assert result.settings["regime"] == regime
    thinned = y if regime == "CotangentEngine" else None
    sample = drawn(keys_of(x, y), n_rounds=(result.settings["n_rounds"],), y=thinned)
    expected = reference_igc_of_pairs(model, x, y, **sample)
    np.testing.assert_allclose(result.attributions, expected, atol=1e-11)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", ["zeros", "replicate", "reflect", "circular"])
def test_transposed_convolution_continues_edges_as_the_layer_does(mode, stride):
    class Unsqueezed(nn.Conv2d):
        def forward(self, inputs):
            return super().forward(inputs.unsqueeze(1))

    torch.manual_seed(0)
    layer = Unsqueezed(1, 3, 5, stride=stride, padding=2, padding_mode=mode).double()
    layer.requires_grad_(False)
    stem = ModuleStem((9, 11), layer, torch.randn(2, 9, 11).double())
    g = torch.randn(4, 2, stem.n_hidden).double()
    assert stem.is_convolution
    fast, stem.is_convolution = stem.pull(g), False
    torch.testing.assert_close(fast, stem.pull(g))


def test_a_convolution_that_computes_something_else_is_differentiated():
    class Turned(nn.Conv2d):
        def forward(self, inputs):
            return super().forward(inputs).flip(-1)

    torch.manual_seed(0)
    layer = Turned(1, 3, 3).double().requires_grad_(False)
    stem = ModuleStem((1, 6, 7), layer, torch.randn(2, 1, 6, 7).double())
    assert not stem.is_convolution
