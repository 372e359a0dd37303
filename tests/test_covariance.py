"""Sums by groups of samples: values and standard errors by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc.attribution import (
    ZeroBaseline,
    blur_correlation,
    layer_correlation,
    shapley_correlation,
)
from neuroigc.attribution.covariance import GroupedCovariance, draw_sample_groups


@pytest.fixture
def problem(rng):
    f, y = rng.standard_normal((2, 30, 2))
    z, c = ((a - a.mean(0)) / a.std(0) for a in (f, y))
    return SimpleNamespace(
        n_samples=30,
        keys=rng.integers(0, 2**60, 30).astype(np.uint64),
        targets=torch.from_numpy(c),
        influence=torch.from_numpy((z**2 + c**2) / 2 - 1),
        scale=torch.tensor([2.0, 0.5], dtype=torch.float64),
        strata=np.zeros(30, np.int64),
    )


def test_groups_are_a_partition_that_follows_the_samples(problem, rng):
    groups = draw_sample_groups(problem, 3, most=7)
    assert sorted(np.concatenate(groups)) == list(range(30))
    assert {len(group) for group in groups} == {4, 5}
    order = rng.permutation(30)
    moved = SimpleNamespace(n_samples=30, keys=problem.keys[order])
    again = draw_sample_groups(moved, 3, most=7)
    for group, other in zip(groups, again, strict=True):
        np.testing.assert_array_equal(group, order[other])
    assert len(draw_sample_groups(problem, 0)) == 30


@pytest.mark.parametrize("paired", [False, True])
def test_values_and_errors_are_those_of_influences(problem, rng, paired):
    groups = draw_sample_groups(problem, 0, most=6)
    covariance = GroupedCovariance(problem, groups, paired=paired)
    # Of pairs these are sums over partners already, else attributions to be weighted.
    own, c = torch.from_numpy(rng.standard_normal((30, 2, 4))), problem.targets[:, :, None]
    products = own if paired else c * own
    for g, group in enumerate(groups):
        covariance.add(g, products[torch.from_numpy(group)].sum(0))
    mean = None if paired else own.mean(0, keepdim=True)
    values, errors = covariance.finish(mean)
    scale = problem.scale[:, None]
    expected = products.mean(0) / (2 if paired else 1)
    torch.testing.assert_close(values, expected / scale)
    degree = 2 if paired else 1
    influence = products - expected * (problem.influence + degree)[:, :, None]
    if not paired:
        influence = influence - c * own.mean(0)
    torch.testing.assert_close(influence.mean(0), torch.zeros_like(expected))
    by_group = torch.stack([influence[torch.from_numpy(group)].sum(0) for group in groups])
    spread = ((by_group**2).sum(0) * 6 / 5).sqrt() / 30
    torch.testing.assert_close(errors, spread / scale)


def draw(rng, *, offset):
    """Return a model, inputs and targets of three conditions that differ by an offset."""
    condition = np.repeat([0, 1, 2], [40, 30, 50])
    x = rng.standard_normal((120, 4, 4)) + rng.standard_normal((120, 1, 1))
    y = x.mean((1, 2)) + 0.5 * rng.standard_normal(120)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Linear(3, 1)).double()

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x, condition):
            return self.model(x) + offset * condition[:, None]

    return Shifted(), x, y, condition


@pytest.mark.parametrize(
    "errors_of",
    [
        pytest.param(
            lambda model, x, y, c: [
                (found := blur_correlation(model, x, y, conditions=c, n_points=2)).standard_errors,
                found.scale_standard_errors,
                found.remainder_errors,
            ],
            id="blur",
        ),
        pytest.param(
            lambda model, x, y, c: [
                (
                    found := layer_correlation(
                        model,
                        x,
                        y,
                        layer="model.1",
                        baseline=ZeroBaseline(),
                        conditions=c,
                        regions={"left": np.arange(8)},
                        n_steps=1,
                    )
                ).standard_errors,
                found.region_attribution_errors,
                found.group_standard_errors,
            ],
            id="layer",
        ),
        pytest.param(
            lambda model, x, y, c: [
                shapley_correlation(
                    model,
                    x,
                    y,
                    baseline=ZeroBaseline(),
                    conditions=c,
                    groups={"left": np.arange(8)},
                    n_rounds=2,
                ).standard_errors
            ],
            id="shapley",
        ),
    ],
)
def test_what_conditions_have_in_common_is_no_doubt(rng, errors_of):
    """Covariances are taken within conditions, so that no offset of one moves them."""
    plain, x, y, condition = draw(rng, offset=0.0)
    expected = errors_of(plain, x, y, condition)
    assert all((part > 0).all() for part in expected)
    # Of the inputs, and of the predictions themselves.
    moved = x + 50 * condition[:, None, None]
    shifted, *_ = draw(rng, offset=100.0)
    shifted.model = plain.model
    found = errors_of(shifted, moved, y, condition)
    # Groups of samples are drawn by what these consist of, and are others now.
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.4)
