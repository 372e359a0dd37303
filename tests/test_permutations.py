"""p-values against permuting the targets, literally, and under the null they are for."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, drawn, keys_of, make_targets, mlp, predict, shake
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradient_correlation,
)
from neuroigc.attribution.permutations import (
    component_p_values,
    draw_permutations,
    group_p_values,
)
from neuroigc.attribution.reference import reference_igc_of_pairs

FEW = dict(max_gradients=9, tolerance=1e-9)
GROUPS = {"two": [0, 3], "one": [2], "overlapping": [1, 2, 3]}
P_VALUES = ("p_values", "group_p_values", "group_p_values_fwe")


class Square(nn.Module):
    def forward(self, x):
        return x**2


def quadratic(n_outputs):
    layers = [nn.Linear(4, 3), Square(), nn.Linear(3, n_outputs)]
    return shake(nn.Sequential(*layers)).double()


def literal_p_values(maps):
    """Return p-values of maps (n_permutations + 1, n_outputs, n_values), the first the real one."""
    single, family = np.zeros(maps.shape[1:]), np.zeros(maps.shape[1:])
    for v in range(maps.shape[1]):
        own = np.abs(maps[:, v])
        single[v] = [np.mean(column >= column[0] - 1e-9) for column in own.T]
        relative = own / np.sqrt((own**2).mean(0))
        family[v] = [np.mean(relative.max(1) >= value - 1e-6) for value in relative[0]]
    return single, family


def sums(maps):
    return np.stack([maps[..., members].sum(-1) for members in GROUPS.values()], -1)


@pytest.mark.parametrize("n_outputs", [2, 5])
@pytest.mark.parametrize("within", [False, True])
def test_p_values_are_those_of_maps_of_permuted_targets(rng, n_outputs, within):
    # Of a quadratic model all pairs give the same map, whichever targets decide on the pairs.
    n, model = 24, quadratic(n_outputs)
    x = rng.standard_normal((n, 4))
    y = make_targets(model, x, rng, noise=4.0)
    strata = np.arange(n) % 2 if within else np.zeros(n, int)
    options = dict(baseline=PairedBaseline(within=strata if within else None), groups=GROUPS, **FEW)
    result = integrated_gradient_correlation(model, x, y, n_permutations=39, seed=4, **options)
    regime = "LatentEngine" if n_outputs == 5 else "CotangentEngine"
    assert result.settings["regime"] == regime
    given = draw_permutations(strata, keys_of(x, y), 39, 4)
    for s in range(2):
        y[strata == s] -= y[strata == s].mean(0) if (strata == s).any() else 0
    maps = np.array(
        [integrated_gradient_correlation(model, x, y[g], **options).attributions for g in given]
    )
    np.testing.assert_allclose(maps[0], result.attributions, atol=1e-12)
    np.testing.assert_allclose(result.p_values, literal_p_values(maps)[1], atol=1e-12)
    single, family = literal_p_values(sums(maps))
    np.testing.assert_allclose(result.group_p_values, single, atol=1e-12)
    np.testing.assert_allclose(result.group_p_values_fwe, family, atol=1e-12)


@pytest.mark.parametrize("n_outputs", [2, 4])
def test_p_values_of_curved_paths_come_from_the_same_pairs_and_points(rng, n_outputs):
    n, model = 12, mlp(4, n_outputs, width=3).double()
    x = rng.standard_normal((n, 4))
    y = make_targets(model, x, rng, noise=3.0)
    result = integrated_gradient_correlation(
        model, x, y, groups=GROUPS, n_permutations=11, seed=3, **FEW
    )
    keys = keys_of(x, y)
    given = draw_permutations(np.zeros(n, int), keys, 11, 3)
    same = drawn(keys, seed=3)
    maps = np.array([reference_igc_of_pairs(model, x, y[g], **same) for g in given])
    np.testing.assert_allclose(maps[0], result.attributions, atol=1e-12)
    single, family = literal_p_values(sums(maps))
    np.testing.assert_allclose(result.group_p_values, single, atol=1e-12)
    np.testing.assert_allclose(result.group_p_values_fwe, family, atol=1e-12)
    if result.settings["regime"] == "LatentEngine":
        np.testing.assert_allclose(result.p_values, literal_p_values(maps)[1], atol=1e-12)


def test_permutations_stay_within_strata_and_go_with_the_samples(rng):
    strata = rng.permutation(np.arange(30) % 3)
    keys = rng.integers(0, 2**63, 30).astype(np.uint64)
    given = draw_permutations(strata, keys, 50, 7)
    np.testing.assert_array_equal(given[0], np.arange(30))
    assert all(np.array_equal(np.sort(row), np.arange(30)) for row in given)
    assert np.all(strata[given] == strata)
    assert len(np.unique(given, axis=0)) == 51
    order = rng.permutation(30)
    other = draw_permutations(strata[order], keys[order], 50, 7)
    np.testing.assert_array_equal(order[other], given[:, order])
    assert np.any(draw_permutations(strata, keys, 50, 8) != given)


def test_permutations_are_uniform(rng):
    keys = rng.integers(0, 2**63, 4).astype(np.uint64)
    given = draw_permutations(np.zeros(4, int), keys, 4800, 0)[1:]
    counts = np.unique(given, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 60


@pytest.mark.parametrize(
    "baseline", [PairedBaseline(), ZeroBaseline(), MeanBaseline(), SampledBaseline(5)]
)
@pytest.mark.parametrize("n_outputs", [2, 6])
def test_samples_in_another_order_have_the_same_p_values(rng, baseline, n_outputs):
    model, x = mlp(4, n_outputs, width=5).double(), rng.standard_normal((40, 4))
    y = make_targets(model, x, rng, noise=4.0)
    order = rng.permutation(40)
    options = dict(baseline=baseline, groups=GROUPS, n_permutations=49, **FEW)
    one = integrated_gradient_correlation(model, x, y, **options)
    other = integrated_gradient_correlation(model, x[order], y[order], **options)
    for name in P_VALUES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("n_outputs", [2, 9])
def test_dead_inputs_have_p_1_and_others_at_best_one_of_all(rng, n_outputs):
    model, x = mlp(6, n_outputs, width=5).double(), rng.standard_normal((80, 6))
    with torch.no_grad():
        model[0].weight[:, 4] = 0
    groups = {"dead": [4], "none": [], "all": np.ones(6, bool)}
    result = integrated_gradient_correlation(
        model, x, predict(model, x), groups=groups, n_permutations=24, **FEW
    )
    assert np.all(result.p_values[:, 4] == 1)
    assert np.all(result.group_p_values[:, :2] == 1)
    assert np.all(result.group_p_values_fwe[:, :2] == 1)
    smallest = 1 / 25
    assert np.all(result.group_p_values[:, 2] == smallest)
    assert np.all(result.group_p_values_fwe[:, 2] == smallest)
    assert result.p_values.min() == smallest
    for name in P_VALUES:
        values = getattr(result, name)
        assert np.all((values >= smallest) & (values <= 1))
        np.testing.assert_allclose(values * 25, np.round(values * 25), atol=1e-9)


def test_family_wise_p_values_are_no_smaller_than_single_ones(rng):
    null = rng.standard_normal((3, 200, 10))
    found = group_p_values(null)
    # Relative to their standard deviations single values rank as they are.
    assert np.all(found["group_p_values_fwe"] >= found["group_p_values"])
    np.testing.assert_array_equal(component_p_values(null), found["group_p_values_fwe"])


def test_scale_of_a_component_does_not_matter(rng):
    null = rng.standard_normal((2, 100, 5))
    scaled = null * np.array([1, 1e-6, 1e3, 1, 7])
    np.testing.assert_array_equal(component_p_values(null), component_p_values(scaled))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_permutations_that_change_nothing_count_as_large(rng, dtype):
    # Two thirds of the permutations give the very map, but for rounding.
    null = np.repeat(rng.standard_normal((1, 1, 4)), 30, 1).astype(dtype)
    null *= 1 + np.finfo(dtype).eps * rng.integers(-3, 4, (1, 30, 4)).astype(dtype)
    null[:, 20:] *= 0.5
    found = group_p_values(null)
    np.testing.assert_allclose(found["group_p_values"], 2 / 3)
    np.testing.assert_allclose(found["group_p_values_fwe"], 2 / 3)


@pytest.mark.parametrize("kind", ["few", "many", "conditions"])
def test_p_values_are_uniform_where_there_is_nothing(rng, kind):
    # One output (of many): data sets are independent, outputs of one are not.
    model = shake(Conditioned(4)) if kind == "conditions" else mlp(4, 7 if kind == "many" else 2)
    model, found = model.double(), {name: [] for name in P_VALUES}
    n_sets = 80
    for seed in range(n_sets):
        x, options = rng.standard_normal((24, 4)), {}
        if kind == "conditions":
            options["conditions"] = np.arange(24) % 3
        f = predict(model, x, *options.values())
        y = rng.exponential(1, f.shape)
        result = integrated_gradient_correlation(
            model, x, y, groups=GROUPS, n_permutations=19, seed=seed, max_gradients=4,
            tolerance=1e-9, **options,
        )  # fmt: skip
        found["p_values"].append(result.p_values[0].min())
        found["group_p_values"].append(result.group_p_values[0, 0])
        found["group_p_values_fwe"].append(result.group_p_values_fwe[0].min())
    for values in found.values():
        ranks = np.sort(values)
        expected = np.arange(1, n_sets + 1) / n_sets
        # Kolmogorov's distance, beyond the steps of 1 / 20.
        assert np.abs(ranks - expected).max() < 0.05 + 1.63 / np.sqrt(n_sets)


def test_an_effect_is_found_where_it_is(rng):
    model = nn.Linear(6, 1).double()
    with torch.no_grad():
        model.weight.fill_(1.0)
    x = rng.standard_normal((150, 6))
    y = x[:, 2] + rng.standard_normal(150)
    result = integrated_gradient_correlation(
        model, x, y, groups={"with": [1, 2], "without": [0, 5]}, n_permutations=199, **FEW
    )
    assert result.p_values[0, 2] == 1 / 200
    assert np.all(np.delete(result.p_values[0], 2) > 0.05)
    assert result.group_p_values_fwe[0, 0] == 1 / 200
    assert result.group_p_values[0, 1] > 0.05


def test_without_permutations_or_groups_there_are_no_p_values(rng):
    x = rng.standard_normal((20, 4))
    model = quadratic(2)
    bare = integrated_gradient_correlation(model, x, x[:, :2], **FEW)
    assert all(getattr(bare, name) is None for name in P_VALUES)
    result = integrated_gradient_correlation(model, x, x[:, :2], n_permutations=9, **FEW)
    assert result.p_values.shape == result.attributions.shape
    assert result.group_p_values is None
    assert result.group_p_values_fwe is None
    # Other pairs are taken, which are exact for a quadratic model all the same.
    np.testing.assert_allclose(result.attributions, bare.attributions, atol=1e-12)


def test_permutations_that_cannot_be(rng):
    x = rng.standard_normal((20, 4))
    for number in (-1, 2.5, True):
        with pytest.raises(InputError, match="n_permutations: expected 0 or more, a whole number"):
            integrated_gradient_correlation(quadratic(2), x, x[:, :2], n_permutations=number, **FEW)
    message = "n_permutations: expected maps that take half of the memory of 0.001 GiB; got 9999"
    with pytest.raises(InputError, match=message):
        integrated_gradient_correlation(
            quadratic(2), x, x[:, :2], n_permutations=99999, memory=0.001, **FEW
        )
