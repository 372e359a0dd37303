"""Layers drawn anew: which, how, and that nothing else changes."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc._validation import InputError
from neuroigc.models import DecoderNetwork, NeuralDecoder, list_layers, randomise_layers
from neuroigc.models.scaling import measure_scaling


def plain():
    return nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.Mish(), nn.Linear(3, 2)
    )


def test_layers_are_listed_with_the_norms_behind_them():
    assert list_layers(plain()) == [["0", "1"], ["3"], ["5"]]
    network = DecoderNetwork(6, 2, hidden=(4, 3), n_conditions=2)
    names = [layer[0] for layer in list_layers(network)]
    assert names[0] == "stem"
    assert names[-1] == "head"
    assert {name for name, _ in network.named_parameters()} == {
        f"{name}.{own}"
        for layer in list_layers(network)
        for name in layer
        for own, _ in network.get_submodule(name).named_parameters()
    }


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_the_last_layers_change_and_no_other(n_layers):
    network = plain()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = randomise_layers(network, n_layers, seed=1)
    layers = list_layers(network)
    changed = {name for layer in layers[len(layers) - n_layers :] for name in layer}
    for name, value in drawn.named_parameters():
        assert (name.split(".")[0] in changed) != bool((value == before[name]).all()), name
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])
    assert drawn.training == network.training


def test_the_seed_decides_and_the_callers_generator_stays():
    network = plain()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (randomise_layers(network, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_what_a_drawn_network_is_given_has_the_scale_that_it_was_made_for(rng):
    x = 1e4 + 300 * rng.standard_normal((80, 6)) * np.arange(1, 7)
    decoder = NeuralDecoder(hidden=(8, 8), max_epochs=1).fit(x, x[:, :1])
    scaling = measure_scaling(x, argument="x")
    drawn = randomise_layers(decoder.module_, seed=3, input_scaling=scaling)
    hidden = drawn.stem(torch.from_numpy(x).float())
    bare = randomise_layers(decoder.module_, seed=3)
    standard = (x - x.mean(0)) / x.std(0)
    expected = bare.stem(torch.from_numpy(standard).float())
    torch.testing.assert_close(hidden, expected, atol=2e-3, rtol=1e-3)
    assert hidden.abs().max() < 4
    # Of a part, the stem is still the trained one, with its own scaling.
    part = randomise_layers(decoder.module_, 1, input_scaling=scaling)
    assert torch.equal(part.stem.weight, decoder.module_.stem.weight)


def test_no_seed_gives_back_the_weights_that_training_began_with(rng):
    x = rng.standard_normal((100, 40))
    options = {"hidden": (32, 32), "max_epochs": 2, "seed": 3}
    trained = NeuralDecoder(**options).fit(x, x[:, :1]).module_.stem.weight
    began = NeuralDecoder(**options, learning_rate=1e-12).fit(x, x[:, :1]).module_
    drawn = randomise_layers(began, seed=3).stem.weight

    def alike(weight):
        return np.corrcoef(trained.detach().ravel(), weight.detach().ravel())[0, 1]

    assert alike(began.stem.weight) > 0.9
    assert abs(alike(drawn)) < 0.15


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (plain(), {"n_layers": 4}, "n_layers: expected at most the 3 there are; got 4"),
        (plain(), {"n_layers": -1}, "n_layers: expected a whole number, 0 or more"),
        (
            nn.Sequential(nn.Linear(2, 2), Own()),
            {},
            r"network: expected modules that can draw .* got Own \(1\), which cannot",
        ),
        (
            plain(),
            {"input_scaling": (0.0, 1.0)},
            "input_scaling: expected a network with a stem; got Sequential",
        ),
    ],
)
def test_what_cannot_be_is_refused(network, options, message):
    with pytest.raises(InputError, match=message):
        randomise_layers(network, **options)
