"""Contrasts of groups against leaving samples out, literally, and maps of permuted targets."""

import numpy as np
import pytest
from attribution_models import keys_of, make_targets, mlp
from scipy import stats
from test_intervals import FEW, GROUPS, example, quadratic

from neuroigc._validation import InputError
from neuroigc.attribution import (
    IGCResult,
    PairedBaseline,
    contrast_groups,
    group_difference,
    integrated_gradient_correlation,
    output_difference,
)
from neuroigc.attribution.permutations import draw_permutations


def literal_contrasts(literal, weights, strata):
    """Return values, errors and degrees of freedom, each sample left out and all computed anew."""
    weigh = weights.reshape(len(weights), -1)
    n = literal.n
    left_out = [weigh @ literal(np.delete(np.arange(n), i)).ravel() for i in range(n)]
    variance = spread = 0.0
    for s in np.unique(strata):
        own = np.array(left_out)[strata == s]
        m = len(own)
        squares = (m - 1) / m * (own - own.mean(0)) ** 2
        variance, spread = variance + squares.sum(0), spread + m * squares.var(0)
    free = np.minimum(2 * variance**2 / spread, n - len(np.unique(strata)))
    return weigh @ literal().ravel(), np.sqrt(variance), free


@pytest.mark.parametrize("within", [False, True])
def test_contrasts_are_the_jackknife_of_differences(rng, within):
    strata = np.repeat([0, 1, 2], [11, 14, 15]) if within else np.zeros(40, int)
    options = {"baseline": PairedBaseline(within=strata)} if within else {}
    result, literal = example(rng, strata=strata, **options)
    weights = np.concatenate(
        [group_difference(result, "pair", "one"), output_difference(result, 1, 0)]
    )
    found = contrast_groups(result, weights, level=0.9)
    values, errors, free = literal_contrasts(literal, weights, strata)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    np.testing.assert_allclose(found.standard_errors, errors, rtol=1e-4)
    np.testing.assert_allclose(found.degrees_of_freedom, free, rtol=1e-3)
    t = stats.t(free)
    reach = t.ppf(0.95) * errors
    np.testing.assert_allclose(np.diff(found.intervals)[:, 0], 2 * reach, rtol=1e-3)
    np.testing.assert_allclose(found.p_values, 2 * t.sf(abs(values) / errors), rtol=1e-2)
    # Were the two independent, errors would be others.
    apart = np.hypot(*result.group_standard_errors[:, :2].T)
    assert np.all(np.abs(found.standard_errors[:2] / apart - 1) > 0.02)


def test_a_single_group_has_its_own_interval(rng):
    result, _ = example(rng)
    found = contrast_groups(result, np.eye(6).reshape(6, 2, 3))
    np.testing.assert_allclose(found.values, result.group_values.ravel())
    intervals = result.group_intervals().reshape(-1, 2)
    np.testing.assert_allclose(found.intervals, intervals, rtol=1e-9)


def test_groups_are_added_up_and_nothing_is_certain_of_nothing(rng):
    result, _ = example(rng)
    weights = group_difference(result, "all", ["pair", "one"])
    assert weights[1].tolist() == [[0, 0, 0], [-1, -1, 1]]
    assert output_difference(result, 1, 0)[2].tolist() == [[0, 0, -1], [0, 0, 1]]
    nothing = contrast_groups(result, group_difference(result, "all", "all"))
    assert np.all(nothing.values == 0)
    assert np.all(nothing.p_values == 1)


def test_contrasts_that_cannot_be(rng):
    result, _ = example(rng)
    with pytest.raises(InputError, match=r"weights: expected shape \(n_contrasts, 2, 3\)"):
        contrast_groups(result, np.ones((2, 3)))
    with pytest.raises(InputError, match="second: expected one of 'pair', 'one', 'all'; got 'V1'"):
        group_difference(result, "one", "V1")
    with pytest.raises(InputError, match="first: expected one of 0, 1; got 2"):
        output_difference(result, 2, 0)
    x = rng.standard_normal((30, 4))
    model = quadratic(5)
    many = integrated_gradient_correlation(
        model, x, make_targets(model, x, rng), groups=GROUPS, **FEW
    )
    with pytest.raises(InputError, match="got that of groups of samples alone"):
        contrast_groups(many, np.zeros((1, 5, 3)))
    bare = integrated_gradient_correlation(quadratic(), x, x[:, :2], **FEW)
    with pytest.raises(InputError, match="influence of each sample on them; got neither"):
        contrast_groups(bare, np.zeros((1, 2, 0)))


@pytest.mark.parametrize("n_outputs", [2, 5])
def test_maps_of_permuted_targets_are_kept(rng, n_outputs, tmp_path):
    n, model = 24, quadratic(n_outputs)
    x = rng.standard_normal((n, 4))
    y = make_targets(model, x, rng, noise=4.0)
    result = integrated_gradient_correlation(
        model, x, y, n_permutations=7, keep_null=True, seed=4, **FEW
    )
    given = draw_permutations(np.zeros(n, int), keys_of(x, y), 7, 4)
    maps = [integrated_gradient_correlation(model, x, y[g], **FEW).attributions for g in given]
    np.testing.assert_allclose(result.null_maps, np.swapaxes(maps, 0, 1), atol=1e-6)
    result.save(tmp_path / "map")
    kept = IGCResult.load(tmp_path / "map.npz").null_maps
    np.testing.assert_array_equal(kept, result.null_maps)


def test_maps_of_permuted_targets_have_the_shape_of_the_input_and_are_left_out_if_not_asked_for(
    rng,
):
    model, x = mlp(12, 1).double(), rng.standard_normal((20, 12))
    y = make_targets(model, x, rng)
    assert integrated_gradient_correlation(model, x, y, n_permutations=3, **FEW).null_maps is None
    kept = integrated_gradient_correlation(model, x, y, n_permutations=3, keep_null=True, **FEW)
    assert kept.null_maps.shape == (1, 4, 12)
    assert integrated_gradient_correlation(model, x, y, keep_null=True, **FEW).null_maps is None
