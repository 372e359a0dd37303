"""Lines through estimates of known quantities, and errors of the estimates most alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

__all__ = [
    "Line",
    "Surface",
    "count_as_neighbours",
    "errors_of_neighbours",
    "ranks",
    "robust_line",
    "robust_surface",
    "weighted_quantile",
]

_ONE_SIGMA = 0.6827


class Line(NamedTuple):
    """``estimate = intercept + slope * truth``."""

    intercept: float
    slope: float

    def invert(self, estimate: np.ndarray) -> np.ndarray:
        """Return the truth that an estimate stands for."""
        return (estimate - self.intercept) / self.slope


class Surface(NamedTuple):
    """Log sizes from estimated widths and exponents: a polynomial of the second order.

    Attributes
    ----------
    coefficients : (6,) array
        Of 1, w, w^2, e, e^2 and w e, with w the log width and e the exponent.
    low, high : (2,) array
        Of width and exponent, the range that it was learned on; beyond it nothing changes.
    """

    coefficients: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def at(self, log_width: np.ndarray, exponent: np.ndarray) -> np.ndarray:
        """Return log sizes."""
        both = np.stack([log_width, exponent])
        inside = np.clip(both, self.low[:, None], self.high[:, None])
        # Along the width it goes on as the size does.
        beyond = both[0] - inside[0]
        found: np.ndarray = _second_order(*inside) @ self.coefficients + beyond
        return found


def robust_line(truth: np.ndarray, estimate: np.ndarray, errors: np.ndarray | None = None) -> Line:
    """Return the robust line of estimates on the truth.

    Estimates of small standard errors count for more, up to about the median error: models are
    wrong by more than noise.
    """
    design = np.stack([np.ones_like(truth), truth], axis=1)
    if errors is not None:
        scale = np.hypot(errors, np.median(errors))
        design, estimate = design / scale[:, None], estimate / scale
    return Line(*_robust(design, estimate).tolist())


def robust_surface(log_width: np.ndarray, exponent: np.ndarray, log_size: np.ndarray) -> Surface:
    """Return the robust surface of true log sizes over what was estimated."""
    both = np.stack([log_width, exponent])
    low, high = np.quantile(both, [0.01, 0.99], axis=1)
    inside = np.clip(both, low[:, None], high[:, None])
    return Surface(_robust(_second_order(*inside), log_size), low, high)


def _second_order(w: np.ndarray, e: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(w), w, w * w, e, e * e, w * e], axis=1)


def _robust(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return coefficients of a robust regression (Tukey's biweight)."""
    weights = np.ones(len(values))
    # Huber's weights lead from least squares to where Tukey's, which forget outliers, can start.
    for step in range(60):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0]
        residual = np.abs(values - design @ found)
        scale = 1.4826 * np.median(residual)
        if scale <= 1e-12 * np.abs(values).max():
            break
        if step < 20:
            weights = 1 / np.maximum(residual / (1.345 * scale), 1)
        else:
            weights = np.maximum(1 - (residual / (4.685 * scale)) ** 2, 0) ** 2
    return found


def ranks(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the share of sorted phantoms below each value, whatever its unit, row by row."""
    shares = [np.searchsorted(k, v, side="left") for v, k in zip(values, known, strict=True)]
    return np.stack(shares) / known.shape[1]


def nearest_blocks(
    places: np.ndarray, known: np.ndarray, k: int, *, own: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some places (n,) at a time with which of ``known`` are the k nearest, (n, k).

    With ``own`` the places are those of the phantoms, and none is its own neighbour.
    """
    k = min(k, known.shape[1] - own)
    n_per_block = max(1, 2**21 // known.shape[1])
    for start in range(0, places.shape[1], n_per_block):
        block = np.arange(start, min(start + n_per_block, places.shape[1]))
        squared = sum((p[block, None] - q) ** 2 for p, q in zip(places, known, strict=True))
        if own:
            squared[np.arange(len(block)), block] = np.inf
        yield block, np.argpartition(squared, k - 1, axis=1)[:, :k]


def errors_of_neighbours(
    places: np.ndarray, known: np.ndarray, off: np.ndarray, k: int, *, own: bool
) -> np.ndarray:
    """Return one standard deviation of errors ``off`` (3, m) among the k nearest of ``known``."""
    found = np.empty((3, places.shape[1]))
    for block, nearest in nearest_blocks(places, known, k, own=own):
        found[:, block] = np.quantile(off[:, nearest], _ONE_SIGMA, axis=2)
    return found


def count_as_neighbours(places: np.ndarray, known: np.ndarray, k: int) -> np.ndarray:
    """Return of how many places each of ``known`` is among the k nearest, (m,)."""
    counts = np.zeros(known.shape[1])
    for _, nearest in nearest_blocks(places, known, k, own=False):
        counts += np.bincount(nearest.ravel(), minlength=len(counts))
    return counts


def weighted_quantile(values: np.ndarray, level: float, weights: np.ndarray) -> np.ndarray:
    """Return for each row of ``values`` (any, m) the least that so many of the weights reach.

    One more value of mean weight is counted, above all others: a new one may be anything
    (Tibshirani, Barber, Candes & Ramdas 2019, equation 7).
    """
    effective = weights.sum() ** 2 / (weights**2).sum()
    wanted = min(level * (1 + 1 / effective), 1.0)
    order = np.argsort(values, axis=1)
    reached = np.cumsum(weights[order], axis=1) / weights.sum()
    # Rounding must not make the last one unreachable.
    rank = np.minimum((reached < wanted - 1e-12).sum(1), values.shape[1] - 1)
    place = np.take_along_axis(order, rank[:, None], axis=1)
    return np.take_along_axis(values, place, axis=1)[:, 0]
