"""Averages of receptive fields."""

from dataclasses import replace

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.prf import average_prfs, fit_prf, pixel_centres


@pytest.fixture
def estimates(rng):
    x, y = pixel_centres(16, 16, 8.0)
    maps = np.exp(-((x - 0.5) ** 2 + (y[:, None] + 1) ** 2) / 2)
    noisy = maps + 0.1 * rng.standard_normal((3, 4, 16, 16))
    errors = np.full((4, 16, 16), 0.1)
    return [fit_prf(m, extent_deg=8.0, standard_errors=errors) for m in noisy]


def test_averages_and_keeps_errors_and_the_worst_status(estimates):
    bad = replace(estimates[1], status=np.array(["ok", "at_bound", "ok", "flat"]))
    found = average_prfs([estimates[0], bad, estimates[2]])
    for name in ("x_deg", "y_deg", "r2"):
        mean = sum(getattr(e, name) for e in estimates) / 3
        np.testing.assert_allclose(getattr(found, name), mean)
    sizes = [e.size_deg for e in estimates]
    np.testing.assert_allclose(found.size_deg, np.prod(sizes, 0) ** (1 / 3))
    assert found.status.tolist() == ["ok", "at_bound", "ok", "flat"]
    smallest, largest = (f([e.x_error_deg for e in estimates], 0) for f in (np.min, np.max))
    assert ((smallest <= found.x_error_deg) & (found.x_error_deg <= largest)).all()
    assert np.abs(found.x_deg - 0.5).mean() < np.mean([np.abs(e.x_deg - 0.5) for e in estimates])


def test_exponents_are_averaged_too(estimates):
    pair = [estimates[0].with_exponent(np.full(4, e)) for e in (0.4, 0.6)]
    np.testing.assert_allclose(average_prfs(pair).exponent, 0.5)
    np.testing.assert_array_equal(average_prfs(pair[:1]).size_deg, pair[0].size_deg)


@pytest.mark.parametrize("case", ["none", "length", "kind", "extent"])
def test_bad_input(estimates, case):
    bad = {
        "none": [],
        "length": [estimates[0], estimates[1][:2]],
        "kind": [estimates[0], estimates[1].with_exponent(np.ones(4))],
        "extent": [estimates[0], replace(estimates[1], extent_deg=(4.0, 4.0))],
    }
    with pytest.raises(InputError, match="estimates"):
        average_prfs(bad[case])
