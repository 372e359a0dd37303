"""Taking groups away: against correlations by hand, and against orders that are right or wrong."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.stats import removal_test, replace_groups

GROUPS = {"strong": [0, 1], "weak": [2], "none": [3, 4], "against": [5]}
WEIGHTS = np.array([1.0, 1.0, 0.5, 0.0, 0.0, -0.6])


@pytest.fixture
def linear(rng):
    x = rng.standard_normal((400, 6))
    y = x @ np.array([1.0, 0.8, 0.5, 0, 0, 0.4]) + 0.5 * rng.standard_normal(400)
    return x, y[:, None]


def predict(x):
    return (x @ WEIGHTS)[:, None]


def igc(x, y):
    """Return values of groups by the closed form of linear models."""
    f = x @ WEIGHTS
    each = WEIGHTS * ((x - x.mean(0)) * (y - y.mean(0))).mean(0) / (f.std() * y.std())
    return np.array([[each[members].sum() for members in GROUPS.values()]])


def test_curves_are_correlations_by_hand(linear):
    x, y = linear
    values = igc(x, y)
    assert values[0].argsort()[::-1].tolist() == [0, 1, 2, 3]
    kept = replace_groups(predict, x, GROUPS)
    found = removal_test(kept, values, y, n_orders=5)
    expected = []
    for n_gone in range(4):
        gone = [column for members in list(GROUPS.values())[:n_gone] for column in members]
        left = WEIGHTS.copy()
        left[gone] = 0  # the mean stands in: a constant
        expected.append(np.corrcoef(x @ left, y[:, 0])[0, 1])
    np.testing.assert_allclose(found.deletion[0], [*expected, 0], atol=1e-12)
    whole = np.corrcoef(x @ WEIGHTS, y[:, 0])[0, 1]
    np.testing.assert_allclose(found.random[:, 0, 0], whole)
    np.testing.assert_allclose(found.random[:, 0, -1], 0, atol=1e-12)
    first_two = np.corrcoef(x[:, :3] @ WEIGHTS[:3], y[:, 0])[0, 1]
    np.testing.assert_allclose(found.insertion[0, [0, 2, 4]], [0, first_two, whole], atol=1e-12)
    np.testing.assert_allclose(found.deletion_mean, found.deletion.mean(1))


@pytest.mark.parametrize("replacement", ["mean", "samples"])
def test_the_right_order_is_faster_than_random_and_the_wrong_one_is_not(linear, replacement):
    x, y = linear
    # 24 orders there are; with all of them best and worst are p of few percent and of 1.
    kept = replace_groups(predict, x, GROUPS, replacement=replacement)
    right = removal_test(kept, igc(x, y), y, n_orders=199)
    assert right.p_deletion[0] < 0.15
    assert right.p_insertion[0] < 0.15
    assert right.deletion_mean < right.random_mean.mean() < right.insertion_mean
    wrong = removal_test(kept, -igc(x, y), y, n_orders=199)
    assert wrong.p_deletion[0] > 0.85
    assert wrong.p_insertion[0] > 0.85
    # Read backwards, a wrong deletion is a right insertion.
    np.testing.assert_allclose(wrong.deletion[0, ::-1], right.insertion[0])


def test_orders_of_outputs_are_their_own(linear):
    x, y = linear
    both = removal_test(
        lambda kept: np.repeat(replace_groups(predict, x, GROUPS)(kept), 2, 1),
        np.concatenate([igc(x, y), -igc(x, y)]),
        np.repeat(y, 2, 1),
        n_orders=3,
    )
    single = removal_test(replace_groups(predict, x, GROUPS), igc(x, y), y, n_orders=3)
    np.testing.assert_allclose(both.deletion[0], single.deletion[0])
    np.testing.assert_allclose(both.deletion[1, ::-1], single.insertion[0])
    np.testing.assert_allclose(both.random[:, 1], single.random[:, 0])


def test_other_samples_stand_in_within_conditions_and_stay_whole(rng):
    conditions = np.repeat([3, 7], [5, 8])
    x = rng.standard_normal((13, 4)) + 100 * (conditions == 7)[:, None]
    groups = {"a": [0, 2], "b": np.array([False, True, False, False])}
    seen = []
    kept = replace_groups(
        lambda x: seen.append(x) or x, x, groups, replacement="samples", conditions=conditions
    )
    kept(np.array([False, True]))
    np.testing.assert_array_equal(seen[0][:, [1, 3]], x[:, [1, 3]])
    for row, given in enumerate(seen[0]):
        (donor,) = np.flatnonzero((x[:, [0, 2]] == given[[0, 2]]).all(1))
        assert donor != row
        assert conditions[donor] == conditions[row]
    kept(np.array([True, False]))
    donors = [np.flatnonzero(x[:, 1] == given[1])[0] for given in seen[1]]
    np.testing.assert_array_equal(seen[0][:, 0], x[donors, 0])
    mean = replace_groups(lambda x: x, x, groups, conditions=conditions)(np.array([False, True]))
    np.testing.assert_allclose(mean[conditions == 7, 0], x[conditions == 7, 0].mean())


def test_correlations_are_those_within_conditions(linear):
    x, y = linear
    conditions = np.arange(len(x)) % 2
    shifted = y + 50 * conditions[:, None]
    kept = replace_groups(predict, x, GROUPS, conditions=conditions)
    plain = removal_test(kept, igc(x, y), y, conditions=conditions, n_orders=2)
    moved = removal_test(kept, igc(x, y), shifted, conditions=conditions, n_orders=2)
    np.testing.assert_allclose(plain.deletion, moved.deletion, atol=1e-12)


def test_means_of_whole_numbers_are_fractions():
    x = np.array([[0, 5], [1, 5], [0, 6], [1, 6]])
    kept = replace_groups(lambda values: values, x, {"first": [0], "second": [1]})
    np.testing.assert_array_equal(kept(np.array([False, True])), np.c_[np.full(4, 0.5), x[:, 1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, _: replace_groups(predict, x, {}), "groups: expected at least one"),
        (
            lambda x, _: replace_groups(predict, x, GROUPS, replacement="zero"),
            "replacement: expected one of 'mean', 'samples'",
        ),
        (
            lambda x, _: replace_groups(predict, x, GROUPS, conditions=np.arange(len(x))),
            "conditions: expected two samples or more of each; got one of 0",
        ),
        (
            lambda _, y: removal_test(predict, np.ones((1, 1)), y),
            r"values and targets: expected .* of two groups or more",
        ),
        (
            lambda _, y: removal_test(predict, np.ones((2, 3)), y),
            r"got shapes \(2, 3\) and \(400, 1\)",
        ),
        (
            lambda _, y: removal_test(predict, [[1, np.nan, 2]], y),
            "values: expected finite numbers",
        ),
        (
            lambda _, y: removal_test(predict, np.ones((1, 3)), y * np.nan),
            "targets: expected finite numbers",
        ),
        (lambda _, y: replace_groups(predict, y[:, 0], GROUPS), r"inputs: expected \(n_samples"),
        (
            lambda x, _: replace_groups(predict, x, {"V1": [0, 999]}),
            r"groups\['V1'\]: expected indices from 0 to .*got 0 to 999",
        ),
        (
            lambda x, _: replace_groups(predict, x, {"V1": np.ones(2, bool)}),
            r"groups\['V1'\]: .*got bool of shape \(2,\)",
        ),
        (lambda x, _: replace_groups(predict, x, {"V1": [0.5]}), r"got float64 of shape \(1,\)"),
    ],
)
def test_what_cannot_be_is_refused(linear, call, message):
    with pytest.raises(InputError, match=message):
        call(*linear)
