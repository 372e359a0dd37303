"""Z-scores from rows that come a few at a time, against numpy in double precision."""

import numpy as np
import pytest

from neuroigc.datasets._moments import Moments


def zscores(rows, n_filled=()):
    """Return z-scores of rows that are filled in parts."""
    z = np.full_like(rows, 7)
    moments = Moments(z)
    for n in (*n_filled, len(rows)):
        z[:n] = rows[:n]
        moments.add(n)
    moments.standardise()
    return z


def expected(rows):
    rows = rows.astype(np.float64)
    return (rows - rows.mean(0)) / rows.std(0)


@pytest.mark.parametrize("mean", [0, 3, -1000])
@pytest.mark.parametrize("scale", [1e-3, 1, 70])
def test_it_is_the_zscore_of_double_precision(rng, mean, scale):
    rows = (mean + scale * rng.normal(size=(750, 40))).astype(np.float32)
    z = zscores(rows)
    np.testing.assert_allclose(z, expected(rows), rtol=1e-6, atol=1e-6)
    assert z.dtype == np.float32


@pytest.mark.parametrize("where", [0, 1, 2, 5, 400, 749])
@pytest.mark.parametrize("far", [10, 1e6, -1e9])
def test_one_trial_that_stands_far_out(rng, where, far):
    rows = rng.normal(size=(750, 300)).astype(np.float32)
    rows[where] = far
    np.testing.assert_allclose(zscores(rows), expected(rows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("where", [0, 1, 400])
def test_one_trial_that_differs_from_all_others(rng, where):
    rows = np.full((750, 300), 0.1, np.float32)
    rows[where] = rng.normal(size=300)
    np.testing.assert_allclose(zscores(rows), expected(rows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_rows", [2, 3, 4, 7])
def test_few_rows(rng, n_rows):
    rows = rng.normal(size=(n_rows, 50)).astype(np.float32)
    np.testing.assert_allclose(zscores(rows), expected(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_bits_that_are_no_number_are_left_out_silently(rng):
    bits = np.full((30, 2), 0x7FA00001, np.uint32)  # NaN that signals
    bits[0, 1] = 0x3F800000
    assert np.isnan(zscores(bits.view(np.float32))).all()


@pytest.mark.parametrize("n_filled", [[1, 2], [6, 12, 18], [7, 50, 99], range(1, 100), [0]])
def test_how_rows_come_changes_nothing(rng, n_filled):
    rows = (5 + rng.normal(size=(100, 7))).astype(np.float32)
    np.testing.assert_array_equal(zscores(rows, n_filled), zscores(rows))


@pytest.mark.parametrize("columns", [[3], [6, 2], slice(1, 6), slice(0, 1)])
def test_columns_do_not_depend_on_their_neighbours(rng, columns):
    rows = (5 + rng.normal(size=(100, 40))).astype(np.float32)
    np.testing.assert_array_equal(zscores(rows[:, columns]), zscores(rows)[:, columns])


def test_constants_and_what_is_not_finite_become_nothing(rng):
    rows = rng.normal(size=(30, 6)).astype(np.float32)
    rows[:, 0], rows[:, 1] = 0.1, 7e20
    rows[4, 2], rows[0, 3], rows[29, 4] = np.nan, np.inf, -np.inf
    z = zscores(rows)
    assert np.isnan(z[:, :5]).all()
    np.testing.assert_allclose(z[:, 5], expected(rows[:, 5:])[:, 0], rtol=1e-6, atol=1e-6)


def test_no_columns_at_all():
    rows = np.empty((4, 0), np.float32)
    assert zscores(rows).shape == (4, 0)
