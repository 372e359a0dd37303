"""Scores against scikit-learn, leaving out by hand, and coverage in simulations."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from neuroigc._validation import InputError
from neuroigc.stats import (
    correlation_interval,
    correlation_scores,
    normalised_correlation,
    scores,
)


def draw(rng, n=60, n_outputs=3):
    signal = rng.standard_normal((n, n_outputs))
    return 3 + 0.5 * signal, 2.5 + signal + rng.standard_normal((n, n_outputs))


def test_scores_are_pearsons_r_and_the_share_of_variance(rng):
    f, y = draw(rng)
    found = correlation_scores(f, y)
    r = [np.corrcoef(f[:, v], y[:, v])[0, 1] for v in range(3)]
    np.testing.assert_allclose(found.r, r)
    np.testing.assert_allclose(found.r2, r2_score(y, f, multioutput="raw_values"))
    assert found.n_clusters == 60
    single = correlation_scores(f[:, 1], y[:, 1])
    np.testing.assert_allclose(single.r, r[1])
    np.testing.assert_allclose(single.r_interval[0], found.r_interval[1])


@pytest.mark.parametrize("n_repeats", [1, 3])
def test_intervals_are_those_of_leaving_out_clusters(rng, n_repeats):
    f, y = draw(rng)
    labels = rng.permutation(np.arange(60) // n_repeats)
    found = correlation_scores(f, y, clusters=labels, level=0.9)
    n = 60 // n_repeats
    assert found.n_clusters == n
    for v in range(3):
        z, log = np.empty(n), np.empty(n)
        for k in range(n):
            own = labels != k
            z[k] = np.arctanh(np.corrcoef(f[own, v], y[own, v])[0, 1])
            log[k] = np.log(1 - r2_score(y[own, v], f[own, v]))
        for name, left_out in (("r", z), ("r2", log)):
            squares = (n - 1) / n * (left_out - left_out.mean()) ** 2
            free = np.clip(2 * squares.sum() ** 2 / (n * squares.var()), 1, n - 1)
            reach = stats.t(free).ppf(0.95) * np.sqrt(squares.sum())
            if name == "r":
                ends = np.tanh(np.arctanh(found.r[v]) + reach * np.array([-1, 1]))
            else:
                ends = 1 - (1 - found.r2[v]) * np.exp(reach * np.array([1, -1]))
            np.testing.assert_allclose(getattr(found, f"{name}_interval")[v], ends, rtol=1e-6)


def test_order_offsets_and_number_at_once_do_not_matter(rng, monkeypatch):
    f, y = draw(rng)
    order = rng.permutation(60)
    labels = np.arange(60) // 2
    found = correlation_scores(f, y, clusters=labels)
    other = correlation_scores(f[order] + 1e4, y[order] + 1e4, clusters=labels[order] + 7)
    monkeypatch.setattr(scores, "_NUMBERS", 60)
    pieces = correlation_scores(f, y, clusters=labels)
    for name in ("r", "r_interval", "r2", "r2_interval"):
        np.testing.assert_allclose(getattr(other, name), getattr(found, name), rtol=1e-6)
        np.testing.assert_allclose(getattr(pieces, name), getattr(found, name))


def test_a_repeated_sample_counts_once_in_a_cluster(rng):
    f, y = draw(rng)
    twice = correlation_scores(np.tile(f, (2, 1)), np.tile(y, (2, 1)), clusters=[*range(60)] * 2)
    np.testing.assert_allclose(twice.r_interval, correlation_scores(f, y).r_interval)


@pytest.mark.parametrize("heavy", [False, True])
def test_intervals_cover_where_fishers_does_and_where_it_does_not(rng, heavy):
    hits, fisher, n_sets, n = 0, 0, 400, 80
    scale = np.sqrt(stats.invgamma(3, scale=2).rvs((n, n_sets), random_state=1)) if heavy else 1
    f = rng.standard_normal((n, n_sets))
    # Both share their scale: r stays as it is, and its spread grows.
    y = scale * (0.6 * f + 0.8 * rng.standard_normal((n, n_sets)))
    f = scale * f
    found = correlation_scores(f, y)
    hits = ((found.r_interval[:, 0] <= 0.6) & (found.r_interval[:, 1] >= 0.6)).mean()
    ends = correlation_interval(found.r, n)
    fisher = ((ends[:, 0] <= 0.6) & (ends[:, 1] >= 0.6)).mean()
    assert 0.91 < hits < 0.98
    assert fisher < 0.88 if heavy else 0.92 < fisher < 0.98
    truth = 1 - 0.64  # Of predictions 0.6 f.
    shrunk = correlation_scores(0.6 * f, y).r2_interval
    assert 0.9 < ((shrunk[:, 0] <= truth) & (shrunk[:, 1] >= truth)).mean() < 0.98


def test_fishers_interval_by_hand():
    low, high = correlation_interval(0.5, 28)
    np.testing.assert_allclose(
        [low, high], np.tanh(np.arctanh(0.5) + np.array([-1, 1]) * 0.39199280)
    )
    np.testing.assert_allclose(correlation_interval([1.0, np.nan], 10)[0], 1, atol=1e-9)
    assert np.isnan(correlation_interval([1.0, np.nan], 10)[1]).all()


def test_constant_outputs_are_unknown(rng):
    f, y = draw(rng)
    f[:, 0], y[:, 1] = 0.1, 0.3
    found = correlation_scores(f, y)
    assert np.isnan(found.r).tolist() == [True, True, False]
    assert np.isnan(found.r_interval[:2]).all()


def test_correlations_and_maps_are_shares_of_the_ceiling(rng):
    ceiling = np.array([0.36, 0.04, np.nan, 0.25])
    shares = normalised_correlation([0.3, 0.1, 0.3, 0.6], ceiling)
    np.testing.assert_allclose(shares, [0.5, np.nan, np.nan, 1.2])
    assert normalised_correlation([-0.3], [0.36])[0] == -0.5
    np.testing.assert_allclose(normalised_correlation([0.1], [0.04], floor=0.01), 0.5)
    maps = rng.standard_normal((4, 5, 2))
    whole = normalised_correlation(maps.sum((1, 2)), ceiling)
    np.testing.assert_allclose(normalised_correlation(maps, ceiling).sum((1, 2)), whole)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float16])
def test_small_types_of_numbers_do_not_overflow(rng, dtype):
    scale = 1 if dtype is bool else 100
    f, y = (scale * rng.random((2, 50, 2)) + 0.5).astype(dtype)
    f[:3], y[:3] = (False, True) if dtype is bool else (250, 1)
    f, y = (f, y) if dtype is not np.float16 else (8 * f, 8 * y)
    y[::2] = y[::2] // 2 if dtype is not bool else ~y[::2]
    f[1::4] = f[1::4] // 2 if dtype is not bool else ~f[1::4]
    found = correlation_scores(f, y)
    expected = correlation_scores(f.astype(float), y.astype(float))
    np.testing.assert_array_equal(found.r, expected.r)
    np.testing.assert_array_equal(found.r2, expected.r2)
    np.testing.assert_array_equal(found.r2_interval, expected.r2_interval)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"of one shape; got shapes \(4, 2\) and \(4, 1\)"):
        correlation_scores(np.zeros((4, 2)), np.zeros((4, 1)))
    with pytest.raises(InputError, match="targets: expected finite numbers"):
        correlation_scores(np.zeros(4), np.full(4, np.nan))
    with pytest.raises(InputError, match="clusters: expected at least four independent"):
        correlation_scores(np.arange(6.0), np.arange(6.0), clusters=[0, 0, 1, 1, 2, 2])
    with pytest.raises(InputError, match=r"clusters: expected one label .* shape \(6, 1\)"):
        correlation_scores(np.arange(6.0), np.arange(6.0), clusters=np.arange(6)[:, None])
    with pytest.raises(InputError, match="at least one output; got shape"):
        correlation_scores(np.zeros((6, 0)), np.zeros((6, 0)))
    for level in (0, 1.5):
        with pytest.raises(InputError, match="level: expected a number between 0 and 1"):
            correlation_scores(np.arange(6.0), np.arange(6.0), level=level)
        with pytest.raises(InputError, match="level: expected a number between 0 and 1"):
            correlation_interval(0.1, 30, level=level)
    with pytest.raises(InputError, match="n_samples: expected more than 3; got 3"):
        correlation_interval(0.1, 3)
    with pytest.raises(InputError, match=r"correlation: expected values from -1 to 1; got 1\.2"):
        correlation_interval([0.1, -1.2], 30)
    with pytest.raises(InputError, match="one ceiling for each output"):
        normalised_correlation([0.1, 0.2], [0.3])
    with pytest.raises(InputError, match="floor: expected a share of variance"):
        normalised_correlation([0.1], [0.3], floor=0)
