"""Attribution of models that need care: handled, or refused in one sentence."""

import numpy as np
import pytest
import torch
from attribution_models import mlp, shake
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from neuroigc._validation import InputError
from neuroigc.attribution import (
    MeanBaseline,
    expected_gradients,
    gradient_times_input,
    integrated_gradient_correlation,
    integrated_gradients,
)
from neuroigc.attribution import gradients as gradients_module
from neuroigc.attribution.gradients import borrow
from neuroigc.attribution.samples import run_model

CPU = torch.device("cpu")


class Wrapped(nn.Module):
    """Some layers, and a forward() that uses them."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = forward

    def forward(self, x):
        return self.function(x, *self.layers)


def layers():
    return shake(nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 2)])).double()


def wrapped(function):
    return Wrapped(function, *layers())


def sequential(*between):
    first, second = layers()
    return nn.Sequential(first, *between, second)


def add_in_place(x, first, second):
    x += 1
    return second(torch.tanh(first(x)))


def relu_on_a_view(x, first, second):
    hidden = first(x)
    functional.relu_(hidden[:, :3])
    return second(hidden)


def plain_on_a_view(x, first, second):
    hidden = first(x)
    return second(torch.cat([torch.relu(hidden[:, :3]), hidden[:, 3:]], 1))


def in_the_middle(x, first, second):
    return second(torch.tanh(first(x)))


def checkpointed(x, first, second):
    hidden = checkpoint(lambda z: torch.tanh(first(z)), x, use_reentrant=False)
    return second(hidden)


def hooked():
    model = wrapped(in_the_middle)
    model.layers[0].register_forward_hook(lambda *call: call[-1] * 2)
    return model


# Each beside a model of the same function that needs no care.
HANDLED = {
    "in place first": (
        lambda: nn.Sequential(nn.ReLU(inplace=True), *sequential()),
        lambda: nn.Sequential(nn.ReLU(), *sequential()),
    ),
    "in place behind flatten": (
        lambda: nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), *sequential()),
        lambda: nn.Sequential(nn.ReLU(), *sequential()),
    ),
    "in place in the middle": (
        lambda: sequential(nn.ReLU(inplace=True)),
        lambda: sequential(nn.ReLU()),
    ),
    "in place on a view": (lambda: wrapped(relu_on_a_view), lambda: wrapped(plain_on_a_view)),
    "input added to": (
        lambda: wrapped(add_in_place),
        lambda: wrapped(lambda x, first, second: second(torch.tanh(first(x + 1)))),
    ),
    "checkpoint": (lambda: wrapped(checkpointed), lambda: sequential(nn.Tanh())),
    "hook": (
        hooked,
        lambda: wrapped(lambda x, first, second: second(torch.tanh(2 * first(x)))),
    ),
    "scripted": (
        lambda: torch.jit.script(sequential(nn.Tanh())),
        lambda: sequential(nn.Tanh()),
    ),
    "scripted part": (
        lambda: nn.Sequential(torch.jit.script(sequential(nn.Tanh())), nn.Identity()),
        lambda: sequential(nn.Tanh()),
    ),
    "traced": (
        lambda: torch.jit.trace(sequential(nn.Tanh()), torch.zeros(4, 6).double()),
        lambda: sequential(nn.Tanh()),
    ),
    "compiled": (
        lambda: torch.compile(sequential(nn.Tanh()), backend="eager"),
        lambda: sequential(nn.Tanh()),
    ),
    "data parallel": (
        lambda: nn.DataParallel(sequential(nn.Tanh())),
        lambda: sequential(nn.Tanh()),
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("name", HANDLED)
def test_handled_models_have_the_maps_of_plain_ones(rng, name):
    odd, plain = (make() for make in HANDLED[name])
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 2))
    before = x.copy()
    for attribute in (integrated_gradients, gradient_times_input, expected_gradients):
        got, expected = (
            attribute(model, x, baseline=MeanBaseline()).attributions for model in (odd, plain)
        )
        np.testing.assert_allclose(got, expected, atol=1e-9)
    # Where nothing can be peeled other points are taken: all pairs come to the same.
    got, expected = (
        integrated_gradient_correlation(model, x, y, max_gradients=200).attributions
        for model in (odd, plain)
    )
    np.testing.assert_allclose(got, expected, atol=0.15 * np.abs(expected).max())
    np.testing.assert_array_equal(x, before)


def spectral():
    first, second = layers()
    normed = parametrizations.spectral_norm(first)
    return nn.Sequential(normed, nn.Tanh(), parametrizations.weight_norm(second))


def attending():
    layer = nn.TransformerEncoderLayer(3, 1, 8, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (2, 3)), layer, nn.Flatten(), nn.Linear(6, 2)).double()


def recurrent(kind):
    layer = kind(3, 4, batch_first=True)
    return Wrapped(lambda x, r, out: out(r(x.reshape(-1, 2, 3))[0][:, -1]), layer, nn.Linear(4, 2))


COMPLETE = {
    "parametrised": spectral,
    "attention": attending,
    "RNN": lambda: recurrent(nn.RNN),
    "LSTM": lambda: recurrent(nn.LSTM),
    "GRU": lambda: recurrent(nn.GRU),
    "dropout modules": lambda: sequential(nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.5)).train(),
    "bfloat16": lambda: mlp().bfloat16(),
    "float16": lambda: mlp().half(),
    "autocast": lambda: Wrapped(in_autocast, nn.Linear(6, 64), nn.Linear(64, 2)),
}


def in_autocast(x, first, second):
    with torch.autocast("cpu", torch.bfloat16):
        return second(torch.tanh(first(x))).float()


@pytest.mark.parametrize("name", COMPLETE)
def test_models_without_a_plain_twin_are_complete(rng, name):
    torch.manual_seed(0)
    model = COMPLETE[name]()
    kinds = [parameter.dtype for parameter in model.parameters()]
    result = integrated_gradients(
        model, rng.standard_normal((7, 6)), baseline=MeanBaseline(), n_steps=30
    )
    # Low precision, and a path with kinks.
    bound = 2e-2 if name in {"autocast", "attention"} else 1e-4
    assert np.abs(result.completeness_gap).max() < bound
    assert [parameter.dtype for parameter in model.parameters()] == kinds


def state_that_changes(x, first, second):
    first.calls = getattr(first, "calls", 0) + 1
    return second(first(x)) * first.calls


def out_of_graph(x, first, second):
    with torch.no_grad():
        hidden = first(x)
    return second(hidden)


SAME = "model: expected the same outputs for the same inputs; got other"
ALONE = "model: expected outputs of each sample that depend on that sample alone; got "
BACKWARD = r"model: expected a forward\(\) through which torch can differentiate, .* got Runtime"
NO_GRADIENT = "model: expected outputs that torch can differentiate .* got outputs without a grad"
ROWS = r"model: expected outputs of shape \(n,\) or \(n, n_outputs\); got "

REFUSED = {
    "functional dropout": (
        lambda: wrapped(lambda x, a, b: b(functional.dropout(a(x), training=True))),
        SAME,
    ),
    "noise": (lambda: wrapped(lambda x, a, b: b(a(x + 0.1 * torch.randn_like(x)))), SAME),
    "state": (lambda: wrapped(state_that_changes), SAME),
    "norm without statistics": (
        lambda: sequential(nn.BatchNorm1d(5, track_running_stats=False)).double(),
        ALONE + "outputs of a sample that change",
    ),
    "mean over rows": (lambda: wrapped(lambda x, a, b: b(a(x - x.mean(0)))), ALONE),
    "norm over rows": (
        lambda: wrapped(lambda x, a, b: b(functional.layer_norm(a(x).T, x.shape[:1]).T)),
        ALONE,
    ),
    "number of rows": (lambda: wrapped(lambda x, a, b: b(a(x)) / len(x)), ALONE + "other outputs"),
    "squeeze": (lambda: wrapped(lambda x, a, b: b(a(x)).squeeze()), ALONE + "outputs of shape"),
    "fixed batch": (lambda: wrapped(lambda x, a, b: b(a(x.view(4, 6)))), ALONE + "no outputs for"),
    "tuple": (lambda: wrapped(lambda x, a, b: (b(a(x)), x)), ROWS + "tuple"),
    "dict": (lambda: wrapped(lambda x, a, b: {"logits": b(a(x))}), ROWS + "dict"),
    "detach": (lambda: wrapped(lambda x, a, b: b(a(x.detach()))), NO_GRADIENT),
    "no_grad": (lambda: wrapped(out_of_graph), NO_GRADIENT),
    "weights that torch does not know": (
        lambda: Wrapped(lambda x: x.detach() @ torch.ones(6, 2, requires_grad=True).double()),
        NO_GRADIENT,
    ),
    "integers": (
        lambda: nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(18, 2)),
        r"inputs: expected samples that the model can take; got .* RuntimeError: .*indices",
    ),
    "rounded": (lambda: wrapped(lambda x, a, b: b(a(x.long().double()))), NO_GRADIENT),
    "overwritten": (lambda: sequential(nn.Sigmoid(), nn.ReLU(inplace=True)), BACKWARD),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(5), nn.Linear(5, 2)),
        r"model: expected weights that are initialised; got a lazy LazyLinear without any \(0\)",
    ),
    "exported": (
        lambda: torch.export.export(sequential(nn.Tanh()), (torch.zeros(4, 6).double(),)).module(),
        r"model: expected a module that can be put in evaluation mode; got GraphModule",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_models_are_told_why(rng, name):
    # Of few units, dropout now and then drops the same twice.
    torch.manual_seed(0)
    make, message = REFUSED[name]
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 2))
    with pytest.raises(InputError, match=message):
        integrated_gradient_correlation(make(), x, y)
    with pytest.raises(InputError, match=message):
        integrated_gradients(make(), x, baseline=MeanBaseline())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpoints_are_refused_with_the_way_out(rng):
    def forward(x, first, second):
        return second(checkpoint(lambda z: torch.tanh(first(z)), x, use_reentrant=True))

    with pytest.raises(InputError, match=rf"{BACKWARD}.*use_reentrant=True"):
        gradient_times_input(wrapped(forward), rng.standard_normal((4, 6)))


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("name", ["mean over rows", "functional dropout", "norm over rows"])
def test_few_rows_are_enough_to_tell(rng, name, n):
    torch.manual_seed(0)
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        gradient_times_input(make(), rng.standard_normal((n, 6)))


def test_the_trial_costs_a_few_passes_of_four_rows(rng):
    rows = []

    def forward(x, first, second):
        rows.append(len(x))
        return second(torch.tanh(first(x)))

    run_model(wrapped(forward).requires_grad_(False), torch.from_numpy(rng.random((4, 6))), None)
    assert sum(rows) <= 20


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_cudnn_is_off_for_recurrent_models_and_restored(kind, enabled):
    model = recurrent(kind)
    with torch.backends.cudnn.flags(enabled=enabled):
        with borrow(model, CPU):
            assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.enabled == enabled
        with pytest.raises(ZeroDivisionError), borrow(model, CPU):
            raise ZeroDivisionError
        assert torch.backends.cudnn.enabled == enabled
        with borrow(nn.Linear(1, 1), CPU):
            assert torch.backends.cudnn.enabled == enabled


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("make", [lambda: recurrent(nn.LSTM), lambda: nn.LSTM(3, 4)])
def test_recurrent_layers_are_known_when_scripted_or_wrapped(make):
    model = make()
    scripted = torch.jit.script(model) if isinstance(model, nn.LSTM) else nn.DataParallel(model)
    with borrow(scripted, CPU):
        assert not torch.backends.cudnn.enabled


def test_a_model_is_as_it_was_after_eval_failed(rng):
    model = nn.Sequential(nn.Dropout(), REFUSED["exported"][0]())
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(InputError, match="model: expected a module that can be put in evaluation"):
        gradient_times_input(model, rng.standard_normal((4, 6)))
    assert model[0].training
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted


def test_hooks_on_activations_count_where_slopes_are_remembered(rng):
    x = torch.from_numpy(rng.standard_normal((5, 6)))
    model = sequential(nn.Mish())
    model[1].register_forward_hook(lambda *call: call[-1] * 3)
    plain = gradients_module.gradients(model, x, lambda slope: slope)
    with gradients_module.remembered_slopes(model):
        remembered = gradients_module.gradients(model, x, lambda slope: slope)
    torch.testing.assert_close(remembered, plain)


def test_activations_in_place_behind_remembered_slopes(rng):
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 9))

    def attribute(*last):
        model = [nn.Linear(6, 5), nn.Mish(), nn.Linear(5, 4), nn.BatchNorm1d(4), *last]
        model = shake(nn.Sequential(*model, nn.Linear(4, 9))).double()
        result = integrated_gradient_correlation(model, x, y, max_gradients=9)
        assert result.settings["regime"] == "LatentEngine"
        return result.attributions

    np.testing.assert_array_equal(attribute(nn.ReLU(inplace=True)), attribute(nn.ReLU()))


def test_a_model_that_cannot_be_copied_is_to_be_moved():
    class Fixed(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("only leaves can be copied.")

    message = (
        r"model: expected a module on meta, or one .*RuntimeError: only leaves can be copied\."
    )
    with pytest.raises(InputError, match=message), borrow(Fixed(2, 2), torch.device("meta")):
        pass
