"""Sensitivity-n: exact for linear models, of single samples and of data sets."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import MeanBaseline, integrated_gradients, sensitivity_n

D = 12


@pytest.fixture
def linear(rng):
    model = nn.Linear(D, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(rng.standard_normal((2, D))))
    return model


def test_integrated_gradients_of_a_linear_model_are_exact(linear, rng):
    x = rng.standard_normal((5, D))
    maps = integrated_gradients(linear, x, baseline=MeanBaseline()).attributions[:, 1]
    found = sensitivity_n(linear, x, maps, output=1, n_sets=20)
    assert found.shape == (5, 7)  # 1, 2, 3, 4, 6, 8, 11
    np.testing.assert_allclose(found, 1)
    gradient = np.broadcast_to(linear.weight.detach().numpy()[1], x.shape)
    assert np.abs(sensitivity_n(linear, x, gradient, output=1, n_sets=20).mean()) < 0.4


@pytest.mark.parametrize("groups", [None, {"a": [0, 1], "b": [2, 3, 4], "c": [5, 6], "d": [7]}])
def test_igc_of_a_linear_model_is_exact(linear, rng, groups):
    x = rng.standard_normal((40, D)) @ rng.standard_normal((D, D))
    y = x[:, 3] + rng.standard_normal(40)
    w = linear.weight.detach().numpy()[0]
    values = w * ((y - y.mean()) @ (x - x.mean(0)))
    found = sensitivity_n(linear, x, values, targets=y, groups=groups, n_sets=20, sizes=[1, 2, 3])
    np.testing.assert_allclose(found, 1)
    np.testing.assert_allclose(
        sensitivity_n(linear, x, -values, targets=y, groups=groups, n_sets=20, sizes=[2]), -1
    )


def test_sets_of_everything_do_not_vary(linear, rng):
    x = rng.standard_normal((4, D))
    found = sensitivity_n(linear, x, np.ones(D), sizes=[D], n_sets=3)
    assert np.isnan(found).all()


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1.7])
def test_sums_that_differ_by_rounding_do_not_vary(rng, value):
    # The order in which places are summed depends on which they are.
    model, x = nn.Linear(50, 1).double(), rng.standard_normal((40, 50))
    found = sensitivity_n(model, x, np.full(50, value), targets=x[:, 0])
    assert np.isnan(found).all()
    assert np.isfinite(sensitivity_n(model, x, value + 1e-6 * x[0], targets=x[:, 0])).all()


def test_costs_that_differ_by_rounding_do_not_vary(rng):
    class Shares(nn.Module):
        def forward(self, x):
            return torch.softmax(x, 1).sum(1, keepdim=True)

    x = rng.standard_normal((40, 6)).astype(np.float32)
    assert np.isnan(sensitivity_n(Shares(), x, x, sizes=[1, 3])).all()


def test_sets_depend_on_the_seed_alone(linear, rng):
    x, maps = rng.standard_normal((9, D)), rng.standard_normal(D)
    first = sensitivity_n(linear, x, maps, n_sets=5)
    again = sensitivity_n(linear, x[::-1].copy(), maps, n_sets=5, batch_size=2)
    np.testing.assert_allclose(again[::-1], first, atol=1e-12)
    assert np.abs(sensitivity_n(linear, x, maps, n_sets=5, seed=1) - first).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(sizes=[]), "sizes: expected numbers from 1 to 12"),
        (dict(sizes=[13]), "sizes: expected numbers from 1 to 12, the elements; got"),
        (dict(sizes=[0]), "sizes: expected 1 or more"),
        (dict(sizes=0), "sizes: expected 1 or more"),
        (dict(n_sets=2), "n_sets: expected 3 or more"),
    ],
)
def test_bad_input_is_named(linear, rng, options, message):
    with pytest.raises(InputError, match=message):
        sensitivity_n(linear, rng.standard_normal((4, D)), np.ones(D), **options)
