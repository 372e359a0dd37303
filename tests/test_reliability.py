"""Reliability against closed forms and simulations."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.stats import map_reliability, spearman_brown, split_half_reliability


def test_spearman_brown_by_hand():
    np.testing.assert_allclose(spearman_brown([0.5, 0, 1, -0.5]), [2 / 3, 0, 1, -2 / 3])
    np.testing.assert_allclose(spearman_brown(0.2, 4), 0.5)
    np.testing.assert_allclose(spearman_brown(spearman_brown(0.3, 5), 1 / 5), 0.3)
    with pytest.raises(InputError, match="factor: expected a number above 0"):
        spearman_brown(0.3, 0)


def test_maps_of_seeds_are_compared_in_pairs(rng):
    maps = rng.standard_normal((3, 2, 50))
    found = map_reliability(maps)
    for v in range(2):
        r = np.corrcoef(maps[:, v])
        np.testing.assert_allclose(found.each[:, v], [r[0, 1], r[0, 2], r[1, 2]])
        np.testing.assert_allclose(found.single[v], (r[0, 1] + r[0, 2] + r[1, 2]) / 3)
    np.testing.assert_allclose(found.whole, spearman_brown(found.single, 3))
    maps[1, 0] = 2
    assert np.isnan(map_reliability(maps).single).tolist() == [True, False]


def test_reliability_of_the_mean_is_foretold(rng):
    signal = rng.standard_normal((1, 1, 5000))
    maps = signal + rng.standard_normal((8, 1, 5000))
    found = map_reliability(maps[:4])
    assert found.single[0] == pytest.approx(0.5, abs=0.03)
    r = np.corrcoef(maps[:4, 0].mean(0), maps[4:, 0].mean(0))[0, 1]
    assert found.whole[0] == pytest.approx(r, abs=0.03)


def test_halves_tell_of_the_whole(rng):
    # Of n samples of noise s around a signal of variance 1: 1 / (1 + s^2 / n).
    n, noise = 50, 10.0
    signal = rng.standard_normal(4000)
    values = signal + noise * rng.standard_normal((n, 2, 4000))
    found = split_half_reliability(values, n_splits=20, seed=1)
    assert found.each.shape == (20, 2)
    np.testing.assert_allclose(found.single, 1 / (1 + noise**2 / (n / 2)), atol=0.03)
    np.testing.assert_allclose(found.whole, 1 / (1 + noise**2 / n), atol=0.03)
    chance = split_half_reliability(values - values.mean(0), n_splits=10)
    assert np.all(chance.single < -0.9)  # Two halves of nothing are opposites.


def test_halves_of_four_samples_by_hand():
    values = np.arange(12.0).reshape(4, 1, 3) ** 2
    found = split_half_reliability(values, n_splits=40)
    expected = {
        round(np.corrcoef(values[list(a), 0].mean(0), values[list(b), 0].mean(0))[0, 1], 9)
        for a, b in (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
    }
    assert {round(float(r), 9) for r in found.each[:, 0]} == expected


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"maps: expected two or more finite maps.*got shape \(1,"):
        map_reliability(np.zeros((1, 2, 3)))
    with pytest.raises(InputError, match=r"contributions: expected.*got \(3, 2, 2\)"):
        split_half_reliability(np.zeros((3, 2, 2)))
    with pytest.raises(InputError, match=r"contributions: expected.*got NaN or infinity"):
        split_half_reliability(np.full((5, 2, 2), np.nan))


def test_maps_of_one_value_are_not_alike(rng):
    # The mean of equal values differs from them by rounding.
    flat = np.full((3, 1, 20), 0.1) * [[[1]], [[3]], [[7]]]
    assert np.isnan(map_reliability(flat).single).all()
    assert np.isnan(map_reliability(np.concatenate([flat, rng.random((1, 1, 20))])).each).all()
