import numpy as np
import pytest
import torch
from attribution_models import Conditioned, cnn, mlp, shake
from torch import nn

from neuroigc.attribution.factorisation import (
    DenseStem,
    IdentityStem,
    ModuleStem,
    factorise,
)
from neuroigc.models.networks import CategoricalNetwork, DecoderNetwork, EncoderNetwork


def check(model, shape, conditions=None, n=5):
    """Return the factors, having seen that they are the model and that its stem transposes."""
    model = model.double().eval()
    x = torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    factors = factorise(model, x, conditions)
    stem = factors.stem
    whole = model(x) if conditions is None else model(x, conditions)
    torch.testing.assert_close(
        factors.outputs(stem(x.flatten(1)), conditions), whole.reshape(n, -1)
    )
    # <W x, g> = <x, W^T g>, for differences of x, where biases drop out.
    g = torch.randn(2, n, stem.n_hidden, dtype=torch.float64)
    moved = stem(x.flatten(1)) - stem(x.flatten(1).roll(1, 0))
    there = (moved * g).sum(-1)
    back = ((x - x.roll(1, 0)).flatten(1) * stem.pull(g)).sum(-1)
    torch.testing.assert_close(there, back)
    chosen = torch.tensor([0, stem.n_inputs - 1])
    torch.testing.assert_close(stem.pull_to(chosen)(g), stem.pull(g)[..., chosen])
    return factors


def layers_of(body):
    """Return the names of the modules that a body found in a graph calls, in order."""
    calls = [node.target for node in body.graph.nodes if node.op == "call_module"]
    return [type(body.get_submodule(name)).__name__ for name in calls]


def test_sequential_mlp_is_peeled_at_both_ends_and_batch_norm_folded():
    factors = check(mlp(6, 2, width=16), (6,))
    assert isinstance(factors.stem, DenseStem)
    assert factors.stem.n_hidden == 16
    assert factors.head[0].shape == (2, 16)
    # Linear, norm, Mish, dropout, linear, Mish, linear: three layers are left.
    assert layers_of(factors.body) == ["Mish", "Dropout", "Linear", "Mish"]


def test_linear_layers_in_a_row_are_one_matrix():
    model = shake(
        nn.Sequential(
            nn.Sequential(nn.Flatten(), nn.Linear(6, 9)),
            nn.Linear(9, 4),
            nn.Tanh(),
            nn.Sequential(nn.Linear(4, 7), nn.Identity(), nn.Linear(7, 3)),
        )
    )
    factors = check(model, (2, 3))
    assert factors.stem.weight.shape == (4, 6)
    assert factors.head[0].shape == (3, 4)


def test_convolutional_stem_takes_its_batch_norm_along():
    factors = check(cnn(), (1, 8, 8))
    assert isinstance(factors.stem, ModuleStem)
    assert factors.stem.hidden_shape == (3, 8, 8)
    assert factors.head[0].shape == (3, 5)


def test_affine_model_is_all_stem():
    factors = check(nn.Linear(4, 3), (4,))
    assert isinstance(factors.stem, DenseStem)
    assert factors.head is None


@pytest.mark.parametrize("n_conditions", [0, 3])
def test_networks_of_the_package_declare_their_parts(n_conditions):
    conditions = torch.tensor([0, 1, 2, 0, 1]) if n_conditions else None
    decoder = DecoderNetwork(7, 2, hidden=(8,) * 5, n_conditions=n_conditions)
    factors = check(shake(decoder), (7,), conditions)
    assert isinstance(factors.stem, DenseStem)
    assert factors.head[0].shape == (2, 8)
    encoder = EncoderNetwork(8, 9, channels=(2, 2, 3, 3, 3), n_latents=4, n_conditions=n_conditions)
    factors = check(shake(encoder), (8, 8), conditions)
    assert isinstance(factors.stem, ModuleStem)
    assert factors.head[0].shape == (9, 4)


def test_network_of_probabilities_has_no_head():
    factors = check(shake(CategoricalNetwork((8, 8), 3)), (8, 8))
    assert isinstance(factors.stem, ModuleStem)
    assert factors.head is None


def test_any_module_keeps_its_ends():
    factors = check(shake(Conditioned()), (5,), torch.tensor([0, 1, 2, 0, 1]))
    assert type(factors.stem) is IdentityStem
    assert factors.head is None


def test_false_declarations_are_not_trusted():
    class Lying(nn.Module):
        def __init__(self, stem):
            super().__init__()
            self.stem, self.body, self.head = stem, nn.Tanh(), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.body(self.stem(x))) + x[:, :2]

    assert type(check(shake(Lying(nn.Linear(3, 4))), (3,)).stem) is IdentityStem

    class Bent(Lying):
        def forward(self, x):
            return self.head(self.body(self.stem(x)))

    # The part of the declared stem that is affine is found all the same.
    bent = check(shake(Bent(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))), (3,))
    assert layers_of(bent.body) == ["ReLU", "Tanh"]


def test_subclass_of_sequential_with_its_own_forward_is_not_walked():
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    model = shake(nn.Sequential(Residual(nn.Linear(3, 3), nn.Tanh()), nn.Linear(3, 2)))
    factors = check(model, (3,))
    assert type(factors.stem) is IdentityStem
    assert factors.head[0].shape == (2, 3)


def test_outputs_can_be_selected():
    x = torch.randn(4, 6, dtype=torch.float64)
    chosen = torch.tensor([1])
    for model in (mlp().double(), shake(nn.Sequential(nn.Linear(6, 3), nn.Softmax(1))).double()):
        factors = factorise(model, x).select(chosen)
        torch.testing.assert_close(factors.outputs(factors.stem(x)), model(x)[:, chosen])


def test_stem_left_in_the_body():
    x = torch.randn(4, 6, dtype=torch.float64)
    model = mlp().double()
    factors = factorise(model, x).without_stem()
    assert type(factors.stem) is IdentityStem
    torch.testing.assert_close(factors.outputs(factors.stem(x)), model(x))
    assert np.prod(factors.stem.hidden_shape) == 6
