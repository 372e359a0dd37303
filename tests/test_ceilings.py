"""Noise ceilings against numbers worked out by hand and against simulated responses."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.stats import (
    correlation_ceiling,
    ncsnr_from_trials,
    noise_ceiling,
    reaches_ceiling,
)


def test_ceilings_by_hand():
    # .45^2 = .2025: .2025 / 1.2025, and with three trials .2025 / (.2025 + 1/3).
    np.testing.assert_allclose(noise_ceiling([0.45]), 0.2025 / 1.2025)
    assert noise_ceiling([0.45])[0] == pytest.approx(0.168, abs=5e-4)
    assert noise_ceiling([0.45], n_repeats=3)[0] == pytest.approx(0.378, abs=5e-4)
    # 2 images x 3 trials, 1 x 2, 1 x 1: mean(1/n) = (2/3 + 1/2 + 1) / 4.
    mixed = noise_ceiling([0.45], n_repeats=[3, 3, 2, 1])[0]
    assert mixed == pytest.approx(0.2025 / (0.2025 + (2 / 3 + 1 / 2 + 1) / 4))


def test_extreme_and_missing_ratios():
    np.testing.assert_array_equal(noise_ceiling([0.0, np.inf, np.nan]), [0.0, 1.0, np.nan])


def test_ratio_of_trials_by_hand():
    # Variances over trials 1 and 0 give v^2 = .5: sqrt(.5 / .5) = 1.
    trials = np.array([[[-1.0], [0.0], [1.0]], [[0.3], [0.3], [0.3]]])
    np.testing.assert_allclose(ncsnr_from_trials(trials), [1.0])
    # More noise than variance: no signal, not a negative one.
    np.testing.assert_array_equal(ncsnr_from_trials(3 * trials), [0.0])
    assert np.isnan(ncsnr_from_trials(np.full((2, 3, 1), np.nan)))[0]
    assert np.isinf(ncsnr_from_trials(np.zeros((2, 3, 1))))[0]


def test_ratio_and_ceiling_recover_a_simulation(rng):
    ncsnr = np.array([0.2, 0.45, 0.9, 2.0])
    signal_sd = ncsnr / np.sqrt(1 + ncsnr**2)
    signal = signal_sd * rng.standard_normal((20000, 1, 4))
    noise = np.sqrt(1 - signal_sd**2) * rng.standard_normal((20000, 3, 4))
    trials = signal + noise
    np.testing.assert_allclose(ncsnr_from_trials(trials), ncsnr, atol=0.03)
    averages = trials.mean(axis=1)
    r = [np.corrcoef(averages[:, v], signal[:, 0, v])[0, 1] for v in range(4)]
    np.testing.assert_allclose(r, correlation_ceiling(noise_ceiling(ncsnr, n_repeats=3)), atol=0.02)


def test_half_the_ceiling():
    ceiling = np.array([0.36, 0.36, 0.0, np.nan, 0.36])
    correlation = np.array([0.31, 0.29, 0.5, 0.5, np.nan])
    np.testing.assert_array_equal(
        reaches_ceiling(correlation, ceiling), [True, False, False, False, False]
    )
    np.testing.assert_array_equal(reaches_ceiling([0.29], [0.36], fraction=0.4), [True])


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"n_vertices\) with two trials or more; got shape \(5, 1"):
        ncsnr_from_trials(np.zeros((5, 1, 3)))
    with pytest.raises(InputError, match=r"ncsnr: expected ratios of 0 or more; got -0\.1"):
        noise_ceiling([0.3, -0.1])
    with pytest.raises(InputError, match="n_repeats: expected at least one trial per image"):
        noise_ceiling([0.3], n_repeats=[3, 0])
    with pytest.raises(InputError, match=r"got values from 10 to 36\.2.*Divide percent by 100"):
        correlation_ceiling([10.0, 36.2])
    with pytest.raises(InputError, match="one value per vertex in both"):
        reaches_ceiling([0.1, 0.2], [0.3])
