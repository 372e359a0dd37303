"""Ridge regression on many samples: the part of a kernel that the targets can reach.

An eigendecomposition of n samples takes n^3 operations, for every fold. For few targets that is
too much: a Krylov space (Lanczos 1950), spanned by the kernel's powers on each target, serves
all penalties, all folds and targets share each product with the kernel, and what is left out is
known: the residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

__all__ = ["KrylovPath", "krylov_paths"]

# Residual over the norm of the targets, at the smallest penalty; most steps that may be tried.
TOLERANCE, MOST_STEPS = 1e-5, 400
# Between looks at the residual.
_STRIDE = 10
_ROUNDING = 1e-12


@dataclass(frozen=True)
class KrylovPath:
    """Predictions at any penalty, of each output by a space of its own.

    Attributes
    ----------
    eigenvalues, loadings, coefficients : lists of arrays (k,), (n_test, k), (k,)
        One for each output.
    offset : array of shape (n_outputs,)
    """

    eigenvalues: list[np.ndarray]
    loadings: list[np.ndarray]
    coefficients: list[np.ndarray]
    offset: np.ndarray

    def predict(self, penalty: float) -> np.ndarray:
        """Return predictions (n_test, n_outputs)."""
        parts = zip(self.eigenvalues, self.loadings, self.coefficients, strict=True)
        return np.stack([own @ (b / (e + penalty)) for e, own, b in parts], 1) + self.offset


def krylov_paths(
    kernel: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    targets: np.ndarray,
    smallest_penalty: float,
) -> list[KrylovPath] | None:
    """Return a path for each split, or None if the space would have to be too large.

    Parameters
    ----------
    kernel : array of shape (n_rows, n_samples)
        Products of samples, the first ``n_samples`` rows, and of others, with the samples.
    splits : sequence of (rows to learn from, rows to predict)
        The former among the samples.
    targets : array of shape (n_samples, n_outputs)
    smallest_penalty : float
        At which residuals are the largest.
    """
    columns = [
        _Column(kernel.shape, train, test, targets[:, v])
        for train, test in splits
        for v in range(targets.shape[1])
    ]
    for step in range(MOST_STEPS):
        active = [column for column in columns if not column.is_done]
        if not active:
            break
        products = kernel @ np.stack([column.newest for column in active], 1)
        for column, product in zip(active, products.T, strict=True):
            column.extend(product)
            if step % _STRIDE == _STRIDE - 1:
                column.check(smallest_penalty)
    if not all(column.is_done for column in columns):
        return None
    n_outputs, paths = targets.shape[1], []
    for k in range(0, len(columns), n_outputs):
        own = columns[k : k + n_outputs]
        parts = zip(*(column.spectrum() for column in own), strict=True)
        paths.append(KrylovPath(*map(list, parts), np.array([column.offset for column in own])))
    return paths


class _Column:
    """The Krylov space of one target and split."""

    def __init__(self, shape, train, test, target):
        self.train, self.test = train, test
        self.offset = target[train].mean()
        start = np.zeros(shape[1])
        start[train] = target[train] - self.offset
        self.size = np.linalg.norm(start)
        self.basis = np.zeros((1, shape[1]))
        self.basis[0] = start / self.size if self.size else start
        self.diagonal, self.below, self.loadings = [], [], []
        self.is_done = not self.size

    @property
    def newest(self):
        return self.basis[len(self.diagonal)]

    def extend(self, product):
        """Take the kernel's product with the newest vector into the space."""
        k, mean = len(self.diagonal), product[self.train].mean()
        self.loadings.append(product[self.test] - mean)
        rest = np.zeros(self.basis.shape[1])
        rest[self.train] = product[self.train] - mean
        self.diagonal.append(rest @ self.basis[k])
        own = self.basis[: k + 1]
        for _ in range(2):  # twice is enough: vectors stay orthogonal to rounding
            rest -= (own @ rest) @ own
        size = np.linalg.norm(rest)
        self.below.append(size)
        if size <= _ROUNDING * self.diagonal[0]:
            self.is_done = True  # the space is closed: the answer is exact
            return
        if k + 1 == len(self.basis):
            self.basis = np.concatenate([self.basis, np.zeros_like(self.basis)])
        self.basis[k + 1] = rest / size

    def check(self, penalty):
        """Stop where the residual is small at this penalty, and so at all larger ones."""
        if not self.is_done:
            eigenvalues, vectors = self._eigen()
            last = vectors[-1] @ (vectors[0] / (eigenvalues + penalty))
            self.is_done = bool(self.below[-1] * abs(last) <= TOLERANCE)

    def _eigen(self):
        return linalg.eigh_tridiagonal(self.diagonal, self.below[: len(self.diagonal) - 1])

    def spectrum(self):
        """Return eigenvalues, loadings of the rows to predict, and the target's coefficients."""
        if not self.diagonal:
            return np.zeros(1), np.zeros((len(self.test), 1)), np.zeros(1)
        eigenvalues, vectors = self._eigen()
        loadings = np.stack(self.loadings, 1) @ vectors
        return np.maximum(eigenvalues, 0), loadings, self.size * vectors[0]
