"""p-values against counting, scipy and simulations."""

import numpy as np
import pytest
from scipy import stats

from neuroigc._validation import InputError
from neuroigc.stats import adjust_p_values, max_statistic_p_values, permutation_p_values


def test_p_values_by_hand():
    null = np.array([[2.0, -3.0, 0.1], [1, 3, 0], [-2, 1, -4], [0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(permutation_p_values(null), [2 / 4, 2 / 4, 3 / 4])
    np.testing.assert_array_equal(permutation_p_values(null, tail="upper"), [1 / 4, 1, 2 / 4])
    # Largest of each: 3, 3, 4, 0.5.
    np.testing.assert_array_equal(max_statistic_p_values(null), [3 / 4, 3 / 4, 1])
    assert permutation_p_values(null[:, :, None]).shape == (3, 1)
    assert max_statistic_p_values(null[:, :, None]).shape == (3, 1)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_that_are_equal_but_for_rounding_count(rng, dtype):
    null = np.full((10, 4), -1.7, dtype) * (1 + np.finfo(dtype).eps * rng.integers(-3, 4, (10, 4)))
    assert np.all(permutation_p_values(null.astype(dtype)) == 1)
    assert np.all(max_statistic_p_values(null.astype(dtype)) == 1)
    assert np.all(permutation_p_values(null, tail="upper") == 1)


def test_the_whole_family_is_controlled(rng):
    found = [
        max_statistic_p_values(rng.standard_normal((20, 15))).min() <= 0.05 for _ in range(1000)
    ]
    single = [permutation_p_values(rng.standard_normal((20, 15))).min() <= 0.05 for _ in range(200)]
    assert 0.03 < np.mean(found) < 0.07
    assert np.mean(single) > 0.3


@pytest.mark.parametrize("method", ["bh", "by"])
def test_false_discoveries_are_scipys_for_what_was_tested(rng, method):
    p = rng.uniform(size=(3, 8)) ** 2
    p[1, 4] = np.nan
    known = ~np.isnan(p)
    together = adjust_p_values(p, method=method)
    np.testing.assert_array_equal(
        together[known], stats.false_discovery_control(p[known], method=method)
    )
    assert np.isnan(together[1, 4])
    rows = adjust_p_values(p, method=method, axis=1)
    np.testing.assert_array_equal(rows[0], stats.false_discovery_control(p[0], method=method))
    assert np.isnan(adjust_p_values([np.nan])).all()


def test_holms_steps_by_hand():
    adjusted = adjust_p_values([0.04, 0.01, np.nan, 0.03, 0.9], method="holm")
    np.testing.assert_allclose(adjusted, [0.09, 0.04, np.nan, 0.09, 0.9])
    np.testing.assert_allclose(adjust_p_values([0.6, 0.7], method="holm"), [1, 1])


def test_bad_input_is_named(rng):
    with pytest.raises(
        InputError, match=r"p_values: expected values from 0 to 1; got 0\.1 to 1\.5"
    ):
        adjust_p_values([0.1, 1.5, np.nan])
    with pytest.raises(InputError, match="method: expected one of 'bh', 'by', 'holm'"):
        adjust_p_values([0.1], method="bonferroni")
    with pytest.raises(InputError, match=r"at least one permuted; got shape \(1, 3\)"):
        permutation_p_values(np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"null: expected finite statistics.*got NaN or infinity"):
        max_statistic_p_values(np.full((2, 3), np.nan))
    with pytest.raises(InputError, match="tail: expected one of 'two', 'upper'"):
        permutation_p_values(np.zeros((2, 3)), tail="lower")
