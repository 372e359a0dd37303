"""The ridge baseline against scikit-learn, in both of its forms."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neuroigc._validation import InputError
from neuroigc.stats import correlation_scores, group_folds, ridge_baseline


def draw(rng, n_train=60, n_test=30, n_features=10, n_outputs=3, noise=1.0):
    x = rng.standard_normal((n_train + n_test, n_features)) + 2
    weights = rng.standard_normal((n_features, n_outputs)) / np.sqrt(n_features)
    y = x @ weights + 5 + noise * rng.standard_normal((len(x), n_outputs))
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


@pytest.mark.parametrize("n_features", [10, 200])
def test_predictions_and_penalties_are_those_of_scikit_learn(rng, n_features):
    x, y, test_x, test_y = draw(rng, n_features=n_features)
    groups = np.arange(60) // 2
    penalties = np.logspace(-2, 3, 6)
    found = ridge_baseline(
        x, y, test_x, test_y, groups=groups, penalties=penalties, n_folds=4, seed=3
    )
    unit = ((x - x.mean(0)) ** 2).sum() / min(60, n_features)
    fold_of = group_folds(groups, 4, seed=3)
    errors = np.zeros((6, 3))
    for k, penalty in enumerate(penalties * unit):
        for fold in range(4):
            model = Ridge(penalty).fit(x[fold_of != fold], y[fold_of != fold])
            own = fold_of == fold
            errors[k] += ((model.predict(x[own]) - y[own]) ** 2).sum(0)
    best = errors.argmin(0)
    np.testing.assert_allclose(found.penalty, (penalties * unit)[best])
    np.testing.assert_allclose(found.validation_r2, 1 - errors / ((y - y.mean(0)) ** 2).sum(0))
    expected = [
        Ridge(penalty).fit(x, y[:, v]).predict(test_x) for v, penalty in enumerate(found.penalty)
    ]
    np.testing.assert_allclose(found.predictions, np.transpose(expected), rtol=1e-8)
    np.testing.assert_allclose(found.scores.r, correlation_scores(found.predictions, test_y).r)


def test_both_forms_agree_and_features_may_be_chunked(rng, monkeypatch):
    from neuroigc.stats import ridge

    x, y, test_x, test_y = draw(rng, n_features=59)
    plain = ridge_baseline(x, y, test_x, test_y)
    # Features of nothing but zeros, so that there are more of them than samples.
    monkeypatch.setattr(ridge, "_COLUMNS", 7)
    wide = [np.pad(a, [(0, 0), (0, 40)]) for a in (x, test_x)]
    # In units of their mean over as many eigenvalues as there may be.
    kernel = ridge_baseline(
        wide[0], y, wide[1], test_y, penalties=ridge.DEFAULT_PENALTIES * 60 / 59
    )
    np.testing.assert_allclose(kernel.penalty, plain.penalty)
    np.testing.assert_allclose(kernel.predictions, plain.predictions, rtol=1e-7)


@pytest.mark.parametrize("n_features", [10, 200])
def test_order_of_features_offset_and_scale_do_not_matter(rng, n_features):
    x, y, test_x, test_y = draw(rng, n_features=n_features)
    order = rng.permutation(n_features)
    found = ridge_baseline(x, y, test_x, test_y)
    moved = ridge_baseline(
        50 * x[:, order] + 3, 2 * y - 1, 50 * test_x[:, order] + 3, 2 * test_y - 1
    )
    np.testing.assert_allclose(moved.predictions, 2 * found.predictions - 1, rtol=1e-6)
    np.testing.assert_allclose(moved.scores.r_interval, found.scores.r_interval, rtol=1e-6)


def test_a_linear_relation_is_found_and_none_is_not(rng):
    x, y, test_x, test_y = draw(rng, n_train=200, noise=0.1)
    y[:, 2], test_y[:, 2] = rng.standard_normal(200), rng.standard_normal(30)
    found = ridge_baseline(x, y, test_x, test_y[:, :])
    assert np.all(found.scores.r[:2] > 0.98)
    assert abs(found.scores.r[2]) < 0.5
    assert found.penalty[2] > 100 * found.penalty[0]
    assert np.all(found.validation_r2.max(0)[:2] > 0.98)


def test_folds_keep_groups_together_and_are_of_equal_size():
    groups = np.repeat(np.arange(20), 3)[np.random.default_rng(0).permutation(60)]
    folds = group_folds(groups, 5, seed=1)
    assert all(len(set(folds[groups == g])) == 1 for g in range(20))
    assert np.bincount(folds).tolist() == [12] * 5
    assert np.any(folds != group_folds(groups, 5, seed=2))
    with pytest.raises(InputError, match="n_folds: expected at most the 3 groups there are; got 5"):
        group_folds([0, 1, 2, 2], 5)


def test_repeats_of_an_image_do_not_leak(rng):
    # Noise of the responses is that of the image: only a repeat can be predicted.
    x = np.repeat(rng.standard_normal((40, 300)), 3, 0)
    y = np.repeat(rng.standard_normal((40, 1)), 3, 0)
    images = np.repeat(np.arange(40), 3)
    leaky = ridge_baseline(x, y, x, y)
    honest = ridge_baseline(x, y, x, y, groups=images)
    assert leaky.validation_r2.max() > 0.9
    assert honest.validation_r2.max() < 0.2


def test_bad_input_is_named(rng):
    x, y, test_x, test_y = draw(rng)
    with pytest.raises(InputError, match="equally many features, and outputs"):
        ridge_baseline(x, y, test_x[:, :4], test_y)
    with pytest.raises(InputError, match="penalties: expected finite numbers above 0"):
        ridge_baseline(x, y, test_x, test_y, penalties=[0.0, 1.0])
    with pytest.raises(InputError, match="penalties: expected finite numbers above 0"):
        ridge_baseline(x, y, test_x, test_y, penalties=[1.0, np.inf])
    with pytest.raises(InputError, match="train_inputs: expected at least one sample"):
        ridge_baseline(x[:0], y[:0], test_x, test_y)
    with pytest.raises(InputError, match="test_inputs: expected at least one sample"):
        ridge_baseline(x, y, test_x[:0], test_y[:0])
    with pytest.raises(InputError, match="finite numbers, and inputs that vary"):
        ridge_baseline(np.ones_like(x), y, test_x, test_y)
    with pytest.raises(InputError, match="train_inputs and train_targets"):
        ridge_baseline(x, np.where(y == y[0], np.nan, y), test_x, test_y)
    with pytest.raises(InputError, match="the same number of samples"):
        ridge_baseline(x, y[:-1], test_x, test_y)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_targets_reach_of_the_kernel_is_enough(rng, monkeypatch, dtype):
    from neuroigc.stats import ridge

    x, y, test_x, test_y = draw(rng, n_train=120, n_features=300, n_outputs=2)
    # A few strong directions, as of brains, and an offset.
    x, test_x = (
        (a + 30 * a[:, :3] @ np.ones((3, 300)) / 3 + 100).astype(dtype) for a in (x, test_x)
    )
    groups = np.arange(120) // 3
    exact = ridge_baseline(x, y, test_x, test_y, groups=groups)
    monkeypatch.setattr(ridge, "LARGEST_EXACT", 0)
    monkeypatch.setattr(ridge.linalg, "eigh", None)
    found = ridge_baseline(x, y, test_x, test_y, groups=groups)
    np.testing.assert_allclose(found.penalty, exact.penalty, rtol=1e-5)
    np.testing.assert_allclose(found.predictions, exact.predictions, atol=1e-3)
    np.testing.assert_allclose(found.validation_r2, exact.validation_r2, atol=1e-3)


def test_a_kernel_that_is_reached_too_slowly_is_decomposed(rng, monkeypatch):
    from neuroigc.stats import _krylov, ridge

    data = draw(rng, n_train=80, n_features=200)
    exact = ridge_baseline(*data)
    monkeypatch.setattr(ridge, "LARGEST_EXACT", 0)
    monkeypatch.setattr(_krylov, "MOST_STEPS", 3)
    np.testing.assert_allclose(ridge_baseline(*data).predictions, exact.predictions, rtol=1e-9)


def test_steps_stop_where_the_residual_is_small(rng):
    from neuroigc.stats._krylov import TOLERANCE, krylov_paths

    x = rng.standard_normal((200, 500))
    kernel, rows = x @ x.T, np.arange(200)
    y = np.stack([rng.standard_normal(200), np.full(200, 3.0)], 1)
    centred = kernel - kernel.mean(0) - kernel.mean(0)[:, None] + kernel.mean()
    steps = []
    for penalty in (1000.0, 1.0):
        (path,) = krylov_paths(kernel, [(rows, rows)], y, penalty)
        z = y[:, 0] - y[:, 0].mean()
        exact = centred @ np.linalg.solve(centred + penalty * np.eye(200), z)
        error = path.predict(penalty)[:, 0] - y[:, 0].mean() - exact
        # The kernel over itself plus a penalty makes no residual larger.
        assert np.linalg.norm(error) <= TOLERANCE * np.linalg.norm(z)
        np.testing.assert_allclose(path.predict(penalty)[:, 1], 3.0)
        steps.append(len(path.eigenvalues[0]))
    assert steps[0] < steps[1] < 200
