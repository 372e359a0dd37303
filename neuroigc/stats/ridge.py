"""What a linear model does: the baseline that a network should be set beside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count, check_same_length
from neuroigc.stats._krylov import krylov_paths
from neuroigc.stats.scores import Scores, correlation_scores

__all__ = ["RidgeBaseline", "group_folds", "ridge_baseline"]

# Penalties, in units of the mean variance of the features over samples.
DEFAULT_PENALTIES = np.logspace(-4, 4, 17)
_COLUMNS = 4096
# More samples have their kernel in single precision, summed in double; up to so many targets (of
# all folds) are then worth a space each.
LARGEST_EXACT, MOST_TARGETS = 2500, 96


@dataclass(frozen=True)
class RidgeBaseline:
    """Ridge regression, as it predicts what it has not seen.

    Attributes
    ----------
    predictions : array of shape (n_test, n_outputs)
    scores : Scores
        Of the predictions.
    penalty : array of shape (n_outputs,)
        Chosen for each output by cross-validation. In units of ``weights``: the squared norm of
        an output's weights is added to the squared error times this.
    validation_r2 : array of shape (n_penalties, n_outputs)
        Of all folds together.
    """

    predictions: np.ndarray
    scores: Scores
    penalty: np.ndarray
    validation_r2: np.ndarray


def group_folds(groups: ArrayLike, n_folds: int, *, seed: int = 0) -> np.ndarray:
    """Return the fold of each sample; a group's samples are all in one.

    Parameters
    ----------
    groups : array of shape (n_samples,)
        Labels such as image ids: repeats of an image that were learned from tell of the others.
    n_folds : int
    seed : int

    Raises
    ------
    InputError
        If there are fewer groups than folds.
    """
    labels, number = np.unique(np.asarray(groups), return_inverse=True)
    n_folds = check_count("n_folds", n_folds, 2)
    if len(labels) < n_folds:
        raise InputError(
            "n_folds", expected=f"at most the {len(labels)} groups there are", got=str(n_folds)
        )
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return (shuffled % n_folds)[number]


def ridge_baseline(
    train_inputs: ArrayLike,
    train_targets: ArrayLike,
    test_inputs: ArrayLike,
    test_targets: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    test_clusters: ArrayLike | None = None,
    penalties: ArrayLike = DEFAULT_PENALTIES,
    n_folds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> RidgeBaseline:
    """Fit ridge regression with a penalty for each output, and score it on held-out samples.

    Offsets are not penalised. With more features than samples the work is done on the products
    of samples (the kernel), else on those of features: one eigendecomposition for each fold
    serves all penalties and outputs. Of more than 2,500 samples and few outputs, as much of the
    kernel is taken as the targets reach (Lanczos 1950): residuals are below 1e-5 of the targets.

    Parameters
    ----------
    train_inputs, test_inputs : arrays of shape (n_train, n_features), (n_test, n_features)
    train_targets, test_targets : arrays of shape (n_train, n_outputs), (n_test, n_outputs)
        Or (n_train,), (n_test,).
    groups : array of shape (n_train,), optional
        Labels of samples that belong in one fold, as of `group_folds`; each its own by default.
    test_clusters : array of shape (n_test,), optional
        Labels of test samples that are not independent, for the scores' intervals.
    penalties : array
        To choose from, in units of the features' mean variance times the samples.
    n_folds, seed : int
        Of the cross-validation within the training samples.
    progress : bool
        Show a progress bar over folds.

    Raises
    ------
    InputError
        If shapes do not fit, values are not finite, or inputs do not vary.
    """
    x, test_x = np.asarray(train_inputs), np.asarray(test_inputs)
    n = check_same_length(train_inputs=x, train_targets=train_targets, groups=groups)
    n_test = check_same_length(test_inputs=test_x, test_targets=test_targets)
    for name, size in (("train_inputs", n), ("test_inputs", n_test)):
        if not size:
            raise InputError(name, expected="at least one sample", got="none")
    y = np.asarray(train_targets, dtype=float).reshape(n, -1)
    test_y = np.asarray(test_targets, dtype=float).reshape(n_test, -1)
    if x.ndim != 2 or x.shape[1:] != test_x.shape[1:] or y.shape[1] != test_y.shape[1]:
        raise InputError(
            "inputs and targets",
            expected="equally many features, and outputs, to train and to test",
            got=f"inputs {x.shape} and {test_x.shape}, targets {y.shape} and {test_y.shape}",
        )
    relative = np.asarray(penalties, dtype=float).reshape(-1)
    if relative.size == 0 or not ((relative > 0) & np.isfinite(relative)).all():
        raise InputError(
            "penalties", expected="finite numbers above 0", got=f"{relative.tolist()}"[:80]
        )
    fold_of = group_folds(np.arange(n) if groups is None else groups, n_folds, seed=seed)
    products = _Products(x, test_x)
    unit = products.total_variance()
    if not (np.isfinite(unit) and unit > 0 and np.isfinite(y).all()):
        raise InputError(
            "train_inputs and train_targets",
            expected="finite numbers, and inputs that vary",
            got="others",
        )
    absolute = relative * unit
    errors = np.zeros((len(absolute), y.shape[1]))
    folds = range(n_folds)
    splits = [(np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in folds]
    splits.append((np.arange(n), n + np.arange(n_test)))
    paths = products.paths(splits, y, absolute.min())
    for _, held_out in track(splits[:-1], show=progress, label="ridge"):
        path = next(paths)
        for k, penalty in enumerate(absolute):
            errors[k] += ((path.predict(penalty) - y[held_out]) ** 2).sum(0)
    best, path = errors.argmin(0), next(paths)
    predictions = np.empty_like(test_y)
    for k in np.unique(best):
        predictions[:, best == k] = path.predict(absolute[k])[:, best == k]
    scores = correlation_scores(predictions, test_y, clusters=test_clusters)
    variance = ((y - y.mean(0)) ** 2).sum(0)
    explained = 1 - np.divide(
        errors, variance, out=np.full_like(errors, np.nan), where=variance > 0
    )
    return RidgeBaseline(predictions, scores, absolute[best], explained)


@dataclass(frozen=True)
class _Path:
    """Predictions at any penalty: ``loadings / (eigenvalues + penalty) @ coefficients``."""

    eigenvalues: np.ndarray
    loadings: np.ndarray
    coefficients: np.ndarray
    offset: np.ndarray

    def predict(self, penalty: float) -> np.ndarray:
        return self.loadings / (self.eigenvalues + penalty) @ self.coefficients + self.offset


class _Products:
    """Products of training samples, then test samples, with what fewer of both there are."""

    def __init__(self, x, test_x):
        self.n_train = len(x)
        self.is_kernel = x.shape[1] > self.n_train
        # Near the origin products keep their digits; offsets proper are those of each fold.
        centre = x.mean(0, dtype=float)
        if self.is_kernel:
            self.both = self._kernel(x, test_x, centre)
        else:
            self.both = np.concatenate([x - centre, test_x - centre])

    @staticmethod
    def _kernel(x, test_x, centre):
        """Return products (n_train + n_test, n_train), some features at a time."""
        kernel = np.zeros((len(x) + len(test_x), len(x)))
        if len(x) > LARGEST_EXACT:
            centre = centre.astype(np.result_type(x, test_x, np.float32))
        for start in range(0, len(centre), _COLUMNS):
            part = slice(start, start + _COLUMNS)
            own = x[:, part] - centre[part]
            kernel[: len(x)] += own @ own.T
            kernel[len(x) :] += (test_x[:, part] - centre[part]) @ own.T
        return kernel

    def total_variance(self):
        """Return the mean eigenvalue of the products of training samples."""
        n = self.n_train
        if self.is_kernel:
            return np.trace(self.both[:n]) / n
        return (self.both[:n] ** 2).sum() / max(self.both.shape[1], 1)

    def paths(self, splits, y, smallest_penalty):
        """Yield the path of ridge regression of each split, from some rows to others."""
        reached = None
        n_targets = len(splits) * y.shape[1]
        if self.is_kernel and self.n_train > LARGEST_EXACT and n_targets <= MOST_TARGETS:
            reached = krylov_paths(self.both, splits, y, smallest_penalty)
        if reached is not None:
            yield from reached
            return
        for train, test in splits:
            yield self._path(train, test, y[train])

    def _path(self, train, test, y):
        offset = y.mean(0)
        if self.is_kernel:
            kernel, across = self.both[np.ix_(train, train)], self.both[np.ix_(test, train)]
            column, whole = kernel.mean(0), kernel.mean()
            across = across - across.mean(1, keepdims=True) - column + whole
            kernel = kernel - column - column[:, None] + whole
            eigenvalues, vectors = linalg.eigh(kernel, overwrite_a=True, check_finite=False)
            coefficients = vectors.T @ (y - offset)
        else:
            x = self.both[train]
            mean = x.mean(0)
            x, across = x - mean, self.both[test] - mean
            eigenvalues, vectors = linalg.eigh(x.T @ x, overwrite_a=True, check_finite=False)
            coefficients = vectors.T @ (x.T @ (y - offset))
        return _Path(np.maximum(eigenvalues, 0), across @ vectors, coefficients, offset)
