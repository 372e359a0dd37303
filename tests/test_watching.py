"""Layers are found, watched, and left as they were."""

import numpy as np
import pytest
import torch
from attribution_models import cnn, mlp, shake
from module_zoo import Attention, InPlace, Recurrent, SharedLayer
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution.factorisation import factorise
from neuroigc.attribution.watching import layer_name, watch, watched_factors


def test_layers_are_found_by_name_and_by_module():
    model = cnn()
    assert layer_name(model, "4") == layer_name(model, model[4]) == "4"
    assert layer_name(nn.DataParallel(model), model[4]) == "4"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("9", "layer: expected a module of the model, or its name; got '9'. Its modules are 0, 1"),
        ("", "layer: expected a module of the model, or its name; got ''"),
        (nn.Mish(), "got a Mish. Its modules are"),
        (3, "layer: expected a module of the model, or its name; got a int"),
    ],
)
def test_what_is_no_layer_is_refused(layer, message):
    with pytest.raises(InputError, match=message):
        layer_name(cnn(), layer)


@pytest.mark.parametrize("name", ["0", "2", "4", "6"])
def test_activity_is_what_the_layer_gives_in_the_body_too(rng, name):
    model, x = mlp(n_inputs=30).double(), torch.from_numpy(rng.standard_normal((5, 30)))
    expected = model[: int(name) + 1](x)
    with watch(model, name) as layer:
        factors = factorise(model, x)
        factors = watched_factors(model, layer, factors, x, None, np.arange(2))
        hidden = factors.stem(x)
        _, activity = layer.run(lambda: factors.latents(hidden))
        torch.testing.assert_close(activity, expected)
        assert layer.shape == expected.shape[1:]
        torch.testing.assert_close(factors.outputs(hidden), model(x))
        zeros = torch.zeros_like(activity).flatten(1)
        replaced, _ = layer.run(lambda: factors.outputs(hidden), zeros)
    torch.testing.assert_close(replaced, model[int(name) + 1 :](torch.zeros_like(expected)))
    assert not model[int(name)]._forward_hooks


def test_the_first_layers_stay_peeled_off_before_a_later_one(rng):
    model, x = mlp(n_inputs=30).double(), torch.from_numpy(rng.standard_normal((5, 30)))
    with watch(model, "2"):
        assert factorise(model, x).stem.n_hidden == 16


def test_work_in_place_behind_the_layer_does_not_change_what_was_seen(rng):
    model, x = shake(InPlace()), torch.from_numpy(rng.standard_normal((5, 6)).astype("f4"))
    with watch(model, "first") as layer:
        _, activity = layer.run(lambda: model(x))
    assert (activity < 0).any()


@pytest.mark.parametrize(
    ("model", "shape", "name", "message"),
    [
        (SharedLayer, (5,), "shared", "runs once; got shared, which is run 2 times. Give each use"),
        (Attention, (5, 3), "layer.dropout.x", "expected a module of a model that is no Torch"),
        (Attention, (5, 3), "attention.out_proj", "which is run 0 times. Choose one that forward"),
        (Recurrent, (5, 3), "lstm", "returns one tensor, .*; got lstm, which returns tuple"),
    ],
)
def test_layers_that_cannot_be_watched_are_named(model, shape, name, message):
    model, x = shake(model()), torch.zeros(3, *shape)
    with pytest.raises(InputError, match=message), watch(model, name) as layer:
        layer.check(lambda: model(x), 3)


def test_a_layer_without_rows_is_named():
    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.weight = nn.Mish(), nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return x * self.inner(self.weight)

    model = Weights()
    with (
        pytest.raises(InputError, match=r"got inner, which returns shape \(4,\) for 3 samples"),
        watch(model, "inner") as layer,
    ):
        layer.check(lambda: model(torch.zeros(3, 4)), 3)
