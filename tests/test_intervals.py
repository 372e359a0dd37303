"""Intervals of groups against leaving samples out and drawing them again, literally."""

import json

import numpy as np
import pytest
import torch
from attribution_models import make_targets, mlp, predict, shake
from scipy import stats
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    IGCResult,
    PairedBaseline,
    ZeroBaseline,
    integrated_gradient_correlation,
)
from neuroigc.attribution.intervals import (
    GroupData,
    bootstrap_intervals,
    jackknife,
    leave_one_out,
    symmetric_intervals,
    weighted_values,
)

GROUPS = {"pair": [0, 2], "one": [3], "all": [0, 1, 2, 3]}
FEW = dict(max_gradients=9, tolerance=1e-9)


class Square(nn.Module):
    def forward(self, x):
        return x**2


def quadratic(n_outputs=2):
    """Return a model for which the middle of a path is the whole path."""
    layers = [nn.Linear(4, 3), Square(), nn.Linear(3, n_outputs)]
    return shake(nn.Sequential(*layers)).double()


class Literal:
    """IGC of groups recomputed over all pairs of some of the samples."""

    def __init__(self, model, x, y, strata=None, zero=False):
        self.f, self.y = predict(model, x), y
        self.n = len(x)
        self.strata = np.zeros(self.n, int) if strata is None else strata
        others = np.zeros((1, 4)) if zero else x
        middles = torch.from_numpy((x[:, None] + others) / 2).requires_grad_()
        out, self.ig = model(middles), []
        for v in range(y.shape[1]):
            (slopes,) = torch.autograd.grad(out[..., v].sum(), middles, retain_graph=True)
            maps = (x[:, None] - others) * slopes.numpy()
            if zero:
                maps = maps - maps.swapaxes(0, 1)
            self.ig.append(np.stack([maps[..., g].sum(-1) for g in GROUPS.values()], -1))

    def __call__(self, index=None, y=None):
        index = np.arange(self.n) if index is None else index
        y = self.y[index] if y is None else y
        labels, values = self.strata[index], []
        for v, ig in enumerate(self.ig):
            covariance, deviations = 0.0, [0.0, 0.0]
            for stratum in np.unique(labels):
                at = np.flatnonzero(labels == stratum)
                own = y[at, v, None] - y[at, v]
                kernel = own[..., None] * ig[np.ix_(index[at], index[at])]
                covariance = covariance + kernel.mean((0, 1)) / 2 * len(at)
                for k, values_of in enumerate((self.f[index], y)):
                    deviations[k] += len(at) * values_of[at, v].var()
            values.append(covariance / np.sqrt(deviations[0] * deviations[1]))
        return np.stack(values)


def data_of(result):
    names = "group_values", "group_influences", "group_attributions", "scores", "strata"
    return GroupData(*(getattr(result, name) for name in names))


def example(rng, n=40, strata=None, **options):
    model = quadratic()
    x = rng.standard_normal((n, 4)) @ rng.standard_normal((4, 4)) + 0.5
    y = make_targets(model, x, rng)
    literal = Literal(model, x, y, strata, zero=isinstance(options.get("baseline"), ZeroBaseline))
    result = integrated_gradient_correlation(model, x, y, groups=GROUPS, **FEW, **options)
    np.testing.assert_allclose(result.group_values, literal(), atol=1e-12)
    return result, literal


@pytest.mark.parametrize("options", [{}, {"baseline": ZeroBaseline()}])
def test_jackknife_leaves_each_sample_out(rng, options):
    result, literal = example(rng, **options)
    expected = [literal(np.delete(np.arange(40), i)) for i in range(40)]
    np.testing.assert_allclose(leave_one_out(data_of(result)), expected, atol=1e-7)
    errors, squares = np.sqrt(39 * np.var(expected, 0)), (expected - np.mean(expected, 0)) ** 2
    free = np.minimum(2 * 40 / (np.mean(squares**2, 0) / np.mean(squares, 0) ** 2 - 1), 39)
    assert np.any(free < 25)
    found = jackknife(data_of(result))
    np.testing.assert_allclose(found[0], errors, rtol=1e-5)
    np.testing.assert_allclose(found[1], free, rtol=1e-4)
    intervals = result.group_intervals(0.9)
    assert intervals.shape == (2, 3, 2)
    reach = stats.t(free).ppf(0.95) * errors
    np.testing.assert_allclose(intervals[..., 1] - result.group_values, reach, rtol=1e-5)
    np.testing.assert_allclose(result.group_values - intervals[..., 0], reach, rtol=1e-5)


def test_jackknife_within_strata(rng):
    strata = np.repeat([0, 1, 2, 3], [7, 9, 10, 14])
    labels = np.array(["b", "a", "d", "c"])[strata]
    result, literal = example(rng, strata=strata, baseline=PairedBaseline(within=labels))
    left_out = np.array([literal(np.delete(np.arange(40), i)) for i in range(40)])
    variance = spread = 0.0
    for s in range(4):
        own = left_out[strata == s]
        m = len(own)
        variance = variance + (m - 1) * own.var(0)
        spread = spread + m * ((m - 1) / m * (own - own.mean(0)) ** 2).var(0)
    free = np.minimum(2 * variance**2 / spread, 36)
    found = jackknife(data_of(result))
    np.testing.assert_allclose(leave_one_out(data_of(result)), left_out, atol=1e-7)
    np.testing.assert_allclose(found[0], np.sqrt(variance), rtol=1e-5)
    np.testing.assert_allclose(found[1], free, rtol=1e-4)


def flat_data(influences):
    """Return groups whose values are plain means, of value 0."""
    n = len(influences)
    scores = np.ones((2, n, 1)) * np.where(np.arange(n) % 2, 1, -1)[:, None]
    influences = influences[:, None]
    values, nothing = np.zeros((1, influences.shape[2])), np.zeros_like(influences)
    return GroupData(values, influences, nothing, scores, np.zeros(n, int))


def test_errors_of_normal_samples_are_known_by_all_of_them_and_of_others_by_few(rng):
    n = 20_000
    normal = rng.standard_normal(n)
    drawn = [normal, normal * rng.standard_normal(n), np.sign(normal), (np.arange(n) < 20) * 1.0]
    influences = np.stack(drawn, 1)
    influences -= influences.mean(0)
    errors, n_free = jackknife(flat_data(influences))
    np.testing.assert_allclose(errors[0], influences.std(0) / np.sqrt(n), rtol=1e-3)
    # 2 n / (kurtosis - 1), of kurtosis 3, 9, 1 and 1 / share.
    np.testing.assert_allclose(n_free[0], [n, n / 4, n - 1, 2 * 20], rtol=0.08)


def test_bootstrap_of_given_baselines_is_exact(rng):
    result, literal = example(rng, baseline=ZeroBaseline())
    weights = rng.multinomial(40, np.full(40, 1 / 40), 20).astype(float)
    expected = [literal(np.repeat(np.arange(40), own.astype(int))) for own in weights]
    np.testing.assert_allclose(weighted_values(data_of(result), weights), expected, atol=1e-6)


@pytest.mark.parametrize("within", [False, True])
def test_bootstrap_draws_samples_again(rng, within):
    strata = np.arange(60) % 2 if within else np.zeros(60, int)
    options = {"baseline": PairedBaseline(within=strata)} if within else {}
    result, literal = example(rng, n=60, strata=strata, **options)
    weights, expected = np.zeros((300, 60)), []
    for own in weights:
        for s in np.unique(strata):
            at = np.flatnonzero(strata == s)
            own[at] = rng.multinomial(len(at), np.full(len(at), 1 / len(at)))
        expected.append(literal(np.repeat(np.arange(60), own.astype(int))))
    found = weighted_values(data_of(result), weights)
    expected = np.array(expected)
    spread = expected.std(0)
    assert np.all(np.abs((found - expected).mean(0)) < 0.08 * spread)
    assert np.all((found - expected).std(0) < 0.35 * spread)
    np.testing.assert_allclose(found.std(0), spread, rtol=0.06)
    # Of all inputs together nothing is left out, and of given baselines neither.
    np.testing.assert_allclose(found[..., 2], expected[..., 2], atol=1e-6)


def test_weights_of_one_change_nothing(rng):
    result, _ = example(rng)
    same = weighted_values(data_of(result), np.ones((1, 40)))[0]
    np.testing.assert_allclose(same, result.group_values, atol=1e-8)


def test_bootstrap_of_all_inputs_is_that_of_the_correlation(rng):
    result, literal = example(rng, n=80)
    found = result.group_intervals(0.9, method="bootstrap", n_resamples=4000)[:, 2]
    n_free = jackknife(data_of(result))[1]
    for v in range(2):
        f, y = literal.f[:, v], literal.y[:, v]
        value = np.corrcoef(f, y)[0, 1]
        again = rng.integers(0, 80, (4000, 80))
        drawn = [np.corrcoef(f[index], y[index])[0, 1] for index in again]
        student = stats.t(n_free[v, 2]).ppf(0.95) * np.sqrt(80 / 79)
        reach = np.quantile(np.abs(np.array(drawn) - value), 2 * stats.norm.cdf(student) - 1)
        np.testing.assert_allclose(found[v].mean(), value, atol=1e-6)
        np.testing.assert_allclose(found[v, 1] - found[v, 0], 2 * reach, rtol=0.06)


def test_bootstrap_is_seeded_and_follows_the_level(rng):
    result, _ = example(rng)
    one, again, other = (
        result.group_intervals(method="bootstrap", n_resamples=300, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    wide = result.group_intervals(0.99, method="bootstrap", n_resamples=300)
    assert np.all(wide[..., 0] < one[..., 0])
    assert np.all(wide[..., 1] > one[..., 1])


def test_a_group_of_nothing_has_an_interval_of_nothing(rng):
    x = rng.standard_normal((30, 4))
    model = quadratic()
    y = make_targets(model, x, rng)
    result = integrated_gradient_correlation(model, x, y, groups={"none": [], "a": [0]}, **FEW)
    for method in ("jackknife", "bootstrap"):
        intervals = result.group_intervals(method=method, n_resamples=200)
        np.testing.assert_array_equal(intervals[:, 0], 0)
        assert np.all(intervals[:, 1, 1] > intervals[:, 1, 0])


def test_samples_in_another_order_have_the_same_intervals(rng):
    x = rng.standard_normal((40, 6))
    model = mlp().double()
    y = make_targets(model, x, rng)
    order = rng.permutation(40)
    one, other = (
        integrated_gradient_correlation(model, a, b, groups={"g": [0, 1, 4]}, **FEW)
        for a, b in ((x, y), (x[order], y[order]))
    )
    np.testing.assert_allclose(one.group_influences[order], other.group_influences, atol=1e-5)
    np.testing.assert_allclose(one.group_intervals(), other.group_intervals(), atol=1e-6)


def test_intervals_cover(rng):
    # Of a linear model of independent inputs, whose population values are known.
    model = nn.Linear(3, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 0.5]]))
    noise = 2.0
    total = 1 + 4 + 0.25
    truth = np.array([1 + 0.25, 4.0, total]) / np.sqrt(total * (total + noise**2))
    groups, hits = {"a": [0, 2], "b": [1], "all": [0, 1, 2]}, {"jackknife": [], "bootstrap": []}
    for _ in range(150):
        x = rng.standard_normal((60, 3))
        y = predict(model, x)[:, 0] + noise * rng.standard_normal(60)
        result = integrated_gradient_correlation(model, x, y, groups=groups, **FEW)
        for method, found in hits.items():
            ends = result.group_intervals(method=method, n_resamples=400)[0]
            found.append((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    for found in hits.values():
        assert np.all(np.mean(found, 0) > 0.88)
        assert np.mean(found) < 0.985


@pytest.mark.parametrize("within", [False, True])
def test_many_outputs_have_degrees_of_freedom_from_groups_of_samples(rng, within):
    # So few samples stand each for itself, and of few outputs each sample's influence is known.
    model, x, strata = quadratic(20), rng.standard_normal((32, 4)), np.arange(32) % 2 * within
    y = make_targets(model, x, rng)
    options = dict(groups=GROUPS, baseline=PairedBaseline(within=strata), **FEW)
    result = integrated_gradient_correlation(model, x, y, **options)
    assert result.settings["regime"] == "LatentEngine"
    few = integrated_gradient_correlation(model, x, y, outputs=[0, 7], **options)
    lever = (few.scores**2).mean(0) - 1
    squares = 0.0
    for s in np.unique(strata):
        at = strata == s
        h = lever[at] - lever[at].mean(0)
        own = few.group_influences[at] - few.group_values * h[..., None]
        squares = squares + np.stack([(own**2).sum(0), (own**4).sum(0)])
    expected = 2 * squares[0] ** 2 / (squares[1] - squares[0] ** 2 / 32)
    assert np.all((expected > 1) & (expected < 30))
    n_free = result.group_degrees_of_freedom
    np.testing.assert_allclose(n_free[[0, 7]], expected, rtol=1e-4)
    intervals = symmetric_intervals(result.group_values, result.group_standard_errors, n_free, 0.95)
    np.testing.assert_array_equal(result.group_intervals(), intervals)
    with pytest.raises(InputError, match="method: expected jackknife where there are many outputs"):
        result.group_intervals(method="bootstrap")


def test_what_cannot_be_asked_for(rng):
    result, _ = example(rng)
    for level in (0, 1, 95, "0.9", float("nan")):
        with pytest.raises(InputError, match="level: expected a number between 0 and 1; got"):
            result.group_intervals(level)
    with pytest.raises(InputError, match=r"method: expected one of .*; got 'percentile'"):
        result.group_intervals(method="percentile")
    with pytest.raises(InputError, match="n_resamples: expected 100 or more, a whole number"):
        result.group_intervals(method="bootstrap", n_resamples=10)
    with pytest.raises(InputError, match="seed: expected 0 or more, a whole number"):
        result.group_intervals(method="bootstrap", seed=-1)
    x = rng.standard_normal((20, 4))
    bare = integrated_gradient_correlation(quadratic(), x, x[:, :2], **FEW)
    with pytest.raises(InputError, match="groups: expected a result with groups; got none"):
        bare.group_intervals()


def test_all_fields_are_saved_and_loaded(rng, tmp_path):
    result, _ = example(rng, n_permutations=9)
    result.save(tmp_path / "map")
    loaded = IGCResult.load(tmp_path / "map.npz")
    names = ["p_values", "group_p_values", "group_p_values_fwe", "group_influences"]
    for name in [*names, "group_attributions", "scores", "strata"]:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(result, name))
        assert getattr(loaded, name).dtype == getattr(result, name).dtype
    assert loaded.settings == json.loads(json.dumps(result.settings))
    for method in ("jackknife", "bootstrap"):
        np.testing.assert_array_equal(
            loaded.group_intervals(method=method), result.group_intervals(method=method)
        )
    assert loaded.to_frame().equals(result.to_frame())


def test_the_table_has_intervals_and_p_values_where_there_are_any(rng):
    result, _ = example(rng, n_permutations=9)
    plain = ["output", "group", "igc", "standard_error", "correlation", "completeness_gap"]
    plain.append("numerical_error")
    frame = result.to_frame()
    assert list(frame) == [*plain, "low", "high", "p", "p_fwe", "p_fdr"]
    ends = result.group_intervals().reshape(-1, 2)
    np.testing.assert_array_equal(frame[["low", "high"]], ends)
    np.testing.assert_array_equal(frame["p"], result.group_p_values.ravel())
    np.testing.assert_array_equal(frame["p_fwe"], result.group_p_values_fwe.ravel())
    x = rng.standard_normal((20, 4))
    y = make_targets(quadratic(), x, rng)
    untested = integrated_gradient_correlation(quadratic(), x, y, groups=GROUPS, **FEW)
    assert list(untested.to_frame()) == [*plain, "low", "high"]
    assert list(integrated_gradient_correlation(quadratic(), x, y, **FEW).to_frame()) == plain


# Trees of groups.


def test_branches_of_a_tree_add_up_to_their_stem(rng):
    x = rng.standard_normal((30, 8))
    model = mlp(8).double()
    y = make_targets(model, x, rng)
    groups = {
        "visual": {"V1": [0, 1], "ventral": {"FFA": [2], "PPA": np.arange(8) == 5}, "V3": [7]},
        "other": [0, 3],
    }
    result = integrated_gradient_correlation(model, x, y, groups=groups, **FEW)
    names = result.settings["groups"]
    stems = {
        "visual": ["visual/V1", "visual/ventral", "visual/V3"],
        "visual/ventral": ["visual/ventral/FFA", "visual/ventral/PPA"],
    }
    assert set(names) == {"visual", *stems["visual"], *stems["visual/ventral"], "other"}
    assert names.index("visual") < names.index("visual/ventral") < names.index("visual/ventral/FFA")
    for stem, branches in stems.items():
        together = sum(result.group_values[:, names.index(name)] for name in branches)
        np.testing.assert_allclose(result.group_values[:, names.index(stem)], together, atol=1e-12)
        influences = sum(result.group_influences[..., names.index(name)] for name in branches)
        own = result.group_influences[..., names.index(stem)]
        np.testing.assert_allclose(own, influences, atol=1e-5)
    members = result.attributions[:, [0, 1, 2, 5, 7]].sum(1)
    np.testing.assert_allclose(result.group_values[:, names.index("visual")], members, atol=1e-12)


def test_branches_that_overlap_are_refused(rng):
    x = rng.standard_normal((20, 4))
    groups = {"visual": {"V1": [0, 1], "V2": {"dorsal": [1], "ventral": [2]}}}
    with pytest.raises(InputError, match=r"groups\['visual'\]: expected branches .* not overlap"):
        integrated_gradient_correlation(quadratic(), x, x[:, :2], groups=groups, **FEW)
    groups = {"visual": {"V1": [0, 4]}}
    with pytest.raises(InputError, match=r"groups\['visual/V1'\]: expected indices from 0 to 3"):
        integrated_gradient_correlation(quadratic(), x, x[:, :2], groups=groups, **FEW)


def test_two_groups_of_one_name_are_refused(rng):
    x = rng.standard_normal((20, 4))
    groups = {"visual": {"V1": [0]}, "visual/V1": [2]}
    with pytest.raises(InputError, match=r"groups\['visual/V1'\]: expected names, .* come once"):
        integrated_gradient_correlation(quadratic(), x, x[:, :2], groups=groups, **FEW)


def test_intervals_of_few_skewed_samples_are_finite(rng):
    values, n = np.array([[0.3]]), 12
    influences = rng.exponential(1, (n, 1, 1)) ** 3
    influences -= influences.mean(0)
    scores = rng.standard_normal((2, n, 1))
    scores -= scores.mean(1, keepdims=True)
    scores /= scores.std(1, keepdims=True)
    data = GroupData(values, influences, 0 * influences, scores, np.zeros(n, int))
    ends = bootstrap_intervals(data, level=0.999, n_resamples=150, seed=0)
    assert ends.shape == (1, 1, 2)
    assert np.all(np.isfinite(ends))
    assert ends[0, 0, 0] < ends[0, 0, 1]
