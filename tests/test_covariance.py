"""Sums by groups of samples: values and standard errors by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

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
    mean = None if paired else own.mean(0)
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
