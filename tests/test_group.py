"""Group statistics against enumeration, closed forms and simulations."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from neuroigc._validation import InputError
from neuroigc.stats import replication, sign_flip_maps, sign_flip_test


def literal(values):
    """Return t, p and family-wise p of all patterns of signs, one after the other."""
    t = []
    for signs in product((1, -1), repeat=len(values)):
        flipped = np.array(signs)[:, None] * values
        with np.errstate(invalid="ignore"):
            t.append(stats.ttest_1samp(flipped, 0, nan_policy="omit").statistic)
    sizes = np.abs(np.ma.filled(t, np.nan).astype(float))
    p = np.mean(sizes >= sizes[0] - 1e-9, axis=0)
    largest = sizes.max(1)
    return t[0], p, np.array([np.mean(largest >= size - 1e-9) for size in sizes[0]])


@pytest.mark.parametrize("with_gaps", [False, True])
def test_all_patterns_of_signs_are_tried(rng, with_gaps):
    values = rng.standard_normal((6, 5)) + np.array([2, 0, -1, 0.3, 0])
    if with_gaps:
        values[[0, 3], 1] = values[5, 4] = np.nan
    found = sign_flip_test(values)
    t, p, family = literal(values)
    np.testing.assert_allclose(found.t, t)
    np.testing.assert_allclose(found.p_values, p)
    np.testing.assert_allclose(found.p_values_fwe, family)
    np.testing.assert_allclose(found.mean, np.nanmean(values, 0))
    np.testing.assert_allclose(found.sd, np.nanstd(values, 0, ddof=1))
    assert found.n_subjects.tolist() == [6, 4, 6, 6, 5] if with_gaps else [6] * 5
    assert found.n_flips == 64
    shaped = sign_flip_test(values.reshape(6, 5, 1))
    np.testing.assert_array_equal(shaped.p_values[:, 0], found.p_values)


def test_no_p_is_below_what_signs_allow(rng):
    found = sign_flip_test(1 + 0.01 * rng.standard_normal((8, 3)))
    assert np.all(found.p_values == 2 / 256)
    equal = sign_flip_test(np.full((8, 2), 0.3))
    assert np.all(equal.p_values == 2 / 256)
    assert np.all(np.isfinite(equal.t))
    assert np.all(sign_flip_test(np.zeros((5, 1))).p_values == 1)


def test_ties_that_rounding_upsets_are_ties(rng):
    whole = rng.integers(-5, 6, (8, 300)).astype(float)
    found, tenths = sign_flip_test(whole), sign_flip_test(whole * 0.1)
    np.testing.assert_array_equal(tenths.p_values, found.p_values)


def test_scale_sign_and_order_do_not_matter(rng):
    values = rng.standard_normal((7, 4)) + 0.5
    found, scaled = sign_flip_test(values), sign_flip_test(values[::-1] * [1, 9, -1e-3, 1e6])
    np.testing.assert_array_equal(found.p_values, scaled.p_values)
    np.testing.assert_array_equal(found.p_values_fwe, scaled.p_values_fwe)


def test_values_at_once_do_not_matter(rng, monkeypatch):
    from neuroigc.stats import group

    values = rng.standard_normal((6, 50))
    found, maps = sign_flip_test(values), sign_flip_maps(values)
    monkeypatch.setattr(group, "_NUMBERS", 200)
    np.testing.assert_array_equal(sign_flip_test(values).p_values_fwe, found.p_values_fwe)
    np.testing.assert_array_equal(sign_flip_maps(values), maps)


def test_random_signs_of_many_subjects_agree_with_students_t(rng):
    values = rng.standard_normal((30, 40)) + 0.3
    found = sign_flip_test(values, n_flips=4999, seed=3)
    assert found.n_flips == 5000
    expected = stats.ttest_1samp(values, 0).pvalue
    np.testing.assert_allclose(found.p_values, expected, atol=0.03)
    again = sign_flip_test(values, n_flips=4999, seed=3)
    np.testing.assert_array_equal(again.p_values, found.p_values)
    assert np.any(sign_flip_test(values, n_flips=4999, seed=4).p_values != found.p_values)


def test_tests_reject_exactly_as_often_as_they_say(rng):
    # Symmetric, but far from normal, and of as many scales as subjects.
    values = rng.standard_cauchy((8, 2000)) * np.arange(1, 9)[:, None]
    p = sign_flip_test(values).p_values
    for alpha in (2 / 256, 12 / 256, 0.5):
        share = np.mean(p <= alpha)
        assert abs(share - alpha) < 3 * np.sqrt(alpha * (1 - alpha) / 2000)


def test_maps_of_flipped_signs_hold_the_tests(rng):
    values = rng.standard_normal((5, 12))
    maps = sign_flip_maps(values)
    assert maps.shape == (32, 12)
    found = sign_flip_test(values)
    np.testing.assert_allclose(maps[0], found.t, rtol=1e-6)
    share = (np.abs(maps) >= np.abs(maps[0]) * (1 - 1e-6)).mean(0)
    np.testing.assert_allclose(share, found.p_values)


def test_subjects_without_an_area_leave_it_untested():
    values = np.array([[1.0, np.nan, np.nan], [2.0, np.nan, 3.0]])
    found = sign_flip_test(values)
    assert found.n_subjects.tolist() == [2, 0, 1]
    for name in ("t", "p_values", "p_values_fwe", "sd"):
        assert np.isnan(getattr(found, name)).tolist() == [False, True, True]
    assert found.mean[2] == 3


@pytest.mark.parametrize("n_subjects", [5, 14])
def test_an_area_of_one_subject_does_not_count_in_the_family(rng, n_subjects):
    values = rng.normal(1, 0.3, (n_subjects, 4))
    alone = np.where(np.arange(n_subjects) == 2, 0.1, np.nan)[:, None]
    found = sign_flip_test(np.hstack([values, alone]))
    expected = sign_flip_test(values)
    np.testing.assert_array_equal(found.p_values_fwe[:4], expected.p_values_fwe)
    assert found.p_values_fwe[:4].max() < 0.2
    assert np.isnan(found.p_values_fwe[4])


def test_replications_are_binomial():
    p = np.array([[0.01, 0.2, 0.5], [0.05, 0.6, np.nan], [0.001, 0.01, np.nan], [0.04, 0.3, 0.9]])
    found = replication(p)
    assert found.n_significant.tolist() == [4, 1, 0]
    assert found.n_subjects.tolist() == [4, 4, 2]
    np.testing.assert_allclose(found.p_values, [0.05**4, 1 - 0.95**4, 1])
    low = [stats.binomtest(k, n).proportion_ci(0.9).low for k, n in ((4, 4), (1, 4), (0, 2))]
    np.testing.assert_allclose(
        found.prevalence_low, np.maximum((np.array(low) - 0.05) / 0.95, 0), atol=1e-12
    )
    root = 0.05 ** (1 / 4)
    np.testing.assert_allclose(found.prevalence_low_all, [(root - 0.05) / 0.95, 0, 0])
    nobody = replication(np.full((3, 1), np.nan))
    assert np.isnan(nobody.p_values[0])
    assert np.isnan(nobody.prevalence_low_all[0])


@pytest.mark.parametrize("prevalence", [0.0, 0.4, 0.8])
def test_bounds_of_prevalence_hold(rng, prevalence):
    n_sets = 4000
    p = rng.uniform(size=(8, n_sets))
    p[rng.uniform(size=p.shape) < prevalence] *= 1e-4
    found = replication(p)
    # Where there is no effect no bound can be broken by 0.
    for low in (found.prevalence_low, found.prevalence_low_all):
        assert np.mean(low > prevalence) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_sets)
    if prevalence == 0.8:
        assert np.median(found.prevalence_low) > 0.4


def test_bad_input_is_named():
    with pytest.raises(InputError, match="values: expected finite values of two subjects or more"):
        sign_flip_test(np.zeros((1, 4)))
    with pytest.raises(InputError, match="got infinite ones"):
        sign_flip_test([[np.inf], [1.0]])
    with pytest.raises(InputError, match="got NaN at 1 vertices"):
        sign_flip_maps([[np.nan, 1], [1.0, 2]])
    for shape in ((4,), (4, 2, 3)):
        with pytest.raises(InputError, match=r"values: expected maps \(n_subjects, n_vertices\)"):
            sign_flip_maps(np.ones(shape))
    with pytest.raises(InputError, match="n_flips: expected 1 or more"):
        sign_flip_test(np.zeros((13, 1)), n_flips=0)
    with pytest.raises(InputError, match="p_values: expected values from 0 to 1"):
        replication([[1.2]])
    with pytest.raises(InputError, match="alpha: expected a number between 0 and 1"):
        replication([[0.2]], alpha=5)
