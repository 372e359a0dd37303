"""Remove and retrain: what is needed, with copies of what is removed and without."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.attribution import remove_and_retrain

D = 10


def least_squares(inputs, targets, seed):
    flat = np.c_[inputs.reshape(len(inputs), -1), np.ones(len(inputs))]
    weights = np.linalg.lstsq(flat, targets, rcond=None)[0]
    return lambda new: np.c_[new.reshape(len(new), -1), np.ones(len(new))] @ weights


@pytest.fixture
def data(rng):
    x = rng.standard_normal((400, D))
    return x, x[:, 0] + 0.05 * rng.standard_normal(400)


ORACLE = np.eye(D)[0]


def scores(x, y, values, **options):
    return remove_and_retrain(
        least_squares, x[:200], y[:200], values, held_out=(x[200:], y[200:]), **options
    )


def test_what_is_needed_is_missed(data):
    found = scores(*data, ORACLE, shares=[0, 0.1, 0.5])
    assert found.shape == (3, 1)
    assert found[0] > 0.99
    assert np.abs(found[1:]).max() < 0.2
    others = scores(*data, -ORACLE, shares=[0.9])
    assert others[0] > 0.99


def test_copies_stand_in_for_each_other(data, rng):
    x, y = data
    x = np.c_[x[:, :9], x[:, [0]]]
    assert scores(x, y, ORACLE, shares=[0.1])[0] > 0.99
    assert np.abs(scores(x, y, ORACLE + np.eye(D)[9], shares=[0.2])).max() < 0.2


def test_keeping_is_removing_the_others(data):
    assert scores(*data, ORACLE, shares=[0.1], keep=True)[0] > 0.99
    values = np.arange(D)[::-1]
    np.testing.assert_allclose(
        scores(*data, values, shares=[0.3], keep=True), scores(*data, -values, shares=[0.7])
    )


def test_regions_are_removed_whole(data):
    groups = {"signal": [0, 5], "noise": [1, 2, 3, 4], "more": [6, 7, 8, 9]}
    found = scores(*data, ORACLE, shares=[1 / 3], groups=groups)
    assert np.abs(found).max() < 0.2
    assert scores(*data, -ORACLE, shares=[2 / 3], groups=groups)[0] > 0.99


def test_repeats_get_their_seeds_and_inputs_stay(data):
    x, y = data
    before, seeds = x.copy(), []

    def fit(inputs, targets, seed):
        seeds.append(seed)
        assert targets.shape == (200,)
        return least_squares(inputs, targets, seed)

    found = remove_and_retrain(
        fit, x[:200], y[:200], ORACLE, held_out=(x[200:], y[200:]),
        shares=[0, 1], n_repeats=2, seed=5,
    )  # fmt: skip
    assert seeds == [5, 6, 5, 6]
    np.testing.assert_array_equal(found[1], 0)  # predictions that do not vary
    np.testing.assert_array_equal(x, before)


def test_several_targets_and_dimensions(rng):
    x = rng.standard_normal((300, 2, 5))
    y = x[:, 0, :2]
    values = np.zeros((2, 5))
    values[0, 0] = 1
    found = remove_and_retrain(
        least_squares, x[:200], y[:200], values, held_out=(x[200:], y[200:]), shares=[0, 0.1]
    )
    np.testing.assert_allclose(found[:, 0], [1, 0.5], atol=0.12)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (
            lambda x: x[:, 0] * np.nan,
            "fit: expected functions that predict finite",
        ),
        # As many numbers as there should be, one target after the other.
        (lambda x: x[:, :2].T, r"fit: expected functions that predict shape \(400, 2\)"),
        (lambda x: x[:5, :2], r"fit: expected functions that predict shape \(400, 2\)"),
    ],
)
def test_predictions_that_tell_nothing_are_refused(data, predict, message):
    x, y = data
    y = y if "finite" in message else x[:, :2]
    with pytest.raises(InputError, match=message):
        remove_and_retrain(lambda *_: predict, x, y, ORACLE, held_out=(x, y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(shares=[1.5]), "shares: expected numbers from 0 to 1"),
        (dict(shares=[]), "shares: expected numbers from 0 to 1"),
        (dict(n_repeats=0), "n_repeats: expected 1 or more"),
        (dict(values=np.zeros(3)), "values: expected shape"),
        (dict(groups={}), "groups: expected a group of one or more components; got none"),
        (dict(held_out=None), "held_out: expected two arrays"),
        (dict(held_out=(np.zeros((5, 3)), np.zeros(5))), "held_out: expected inputs of shape"),
        (dict(targets=np.zeros(3)), "expected the same number of samples"),
    ],
)
def test_bad_input_is_named(data, options, message):
    x, y = data
    arguments = dict(inputs=x, targets=y, values=ORACLE, held_out=(x, y)) | options
    with pytest.raises(InputError, match=message):
        remove_and_retrain(
            least_squares,
            arguments.pop("inputs"),
            arguments.pop("targets"),
            arguments.pop("values"),
            **arguments,
        )
