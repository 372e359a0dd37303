"""Maxima of windows along a line: their mean derivatives, against many points on it."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc.attribution.maxima import pools_maxima, with_mean_slopes

POOLS = [
    (nn.MaxPool1d(3, 2, 1), (4, 5, 11)),
    (nn.MaxPool2d(2), (2, 8, 6)),
    (nn.MaxPool2d(3, 2, 1), (3, 2, 9, 8)),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 8, 10)),
    (nn.MaxPool2d((2, 3), (1, 2), (1, 0), dilation=(2, 1)), (2, 3, 9, 10)),
    (nn.MaxPool3d(2, ceil_mode=True), (2, 2, 5, 4, 3)),
]


def slopes(pool, here, there, weights):
    leaf = here.clone().requires_grad_(True)
    output = with_mean_slopes(pool, leaf, there, pool(here))
    assert torch.equal(output, pool(here))
    return torch.autograd.grad((output * weights).sum(), leaf)[0]


@pytest.mark.parametrize(("pool", "shape"), POOLS, ids=str)
def test_slopes_are_means_of_gradients_and_complete(rng, pool, shape):
    here, there = (torch.from_numpy(rng.standard_normal(shape)) for _ in range(2))
    weights = torch.from_numpy(rng.standard_normal(pool(here).shape))
    found = slopes(pool, here, there, weights)
    change = (weights * (pool(here) - pool(there))).sum()
    np.testing.assert_allclose((found * (here - there)).sum(), change, atol=1e-12)
    n_points, mean = 800, torch.zeros_like(here)
    for share in (np.arange(n_points) + 0.5) / n_points:
        point = torch.lerp(here, there, share).requires_grad_(True)
        mean += torch.autograd.grad((pool(point) * weights).sum(), point)[0] / n_points
    np.testing.assert_allclose(found, mean, atol=5 / n_points)


@pytest.mark.parametrize(("pool", "shape"), POOLS, ids=str)
def test_slopes_of_one_point_are_its_gradient(rng, pool, shape):
    here = torch.from_numpy(rng.standard_normal(shape))
    weights = torch.from_numpy(rng.standard_normal(pool(here).shape))
    leaf = here.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad((pool(leaf) * weights).sum(), leaf)
    np.testing.assert_allclose(slopes(pool, here, here, weights), expected, atol=1e-15)


def test_equal_members_share_nothing_twice():
    """Two of three are equal all along: half of the line is theirs, not twice a half."""
    low, high = torch.tensor([[[0.0, 0.0, 1.0]]]), torch.tensor([[[1.0, 1.0, 0.0]]])
    found = slopes(nn.MaxPool1d(3), low, high, torch.ones(1, 1, 1))
    np.testing.assert_array_equal(found, [[[0.5, 0, 0.5]]])
    # Dark images are equal everywhere.
    dark = torch.zeros(1, 1, 6, 6)
    found = slopes(nn.MaxPool2d(3), dark, dark + 1, torch.ones(1, 1, 2, 2))
    assert found.sum() == 4


def test_what_returns_more_is_left_alone():
    assert pools_maxima(nn.MaxPool2d(2))
    assert not pools_maxima(nn.MaxPool2d(2, return_indices=True))
    assert not pools_maxima(nn.AvgPool2d(2))
