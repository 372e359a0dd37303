"""p-values: of permutations, of families of tests, and by the largest value of a map."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_choice

__all__ = [
    "adjust_p_values",
    "max_statistic_p_values",
    "p_values_among_largest",
    "permutation_p_values",
]

# Values that come to the same may differ by rounding.
_ROUNDING = 1e-6
_TAILS = ("two", "upper")


def permutation_p_values(null: ArrayLike, *, tail: str = "two") -> np.ndarray:
    """Return p-values of each value by itself.

    ``p = #{null >= observed} / n``, the data as they are counting as one of n permutations, so
    that p is never 0 (Phipson & Smyth 2010).

    Parameters
    ----------
    null : array of shape (n_permutations + 1, ...)
        Statistics of permuted data, the first of the data as they are.
    tail : {"two", "upper"}
        Whether large negative values count, too.

    Returns
    -------
    array of shape (...)
    """
    sizes = _sizes(null, tail)
    return np.mean(sizes >= sizes[0] - _ROUNDING * np.abs(sizes[0]), axis=0)


def max_statistic_p_values(null: ArrayLike, *, tail: str = "two") -> np.ndarray:
    """Return family-wise p-values: of a value so large anywhere (Nichols & Holmes 2002).

    Parameters
    ----------
    null : array of shape (n_permutations + 1, ...)
        Statistics of permuted data, the first of the data as they are. They should be of equal
        spread: divide values by their standard errors, or by their deviation over permutations.
    tail : {"two", "upper"}

    Returns
    -------
    array of shape (...)
    """
    sizes = _sizes(null, tail)
    return p_values_among_largest(sizes[0], sizes.reshape(len(sizes), -1).max(1))


def p_values_among_largest(sizes: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return p-values of sizes, given the largest of each permutation, the data's included."""
    wanted = sizes - _ROUNDING * np.abs(sizes)
    return (len(largest) - np.searchsorted(np.sort(largest), wanted)) / len(largest)


def _sizes(null, tail):
    check_choice("tail", tail, _TAILS)
    null = np.asarray(null)
    if null.ndim < 2 or len(null) < 2 or null.size == 0 or not np.isfinite(null).all():
        raise InputError(
            "null",
            expected="finite statistics (n_permutations + 1, n_values), at least one permuted",
            got=f"shape {null.shape}" if null.ndim < 2 or len(null) < 2 else "NaN or infinity",
        )
    return np.abs(null) if tail == "two" else null


def adjust_p_values(
    p_values: ArrayLike, *, method: str = "bh", axis: int | None = None
) -> np.ndarray:
    """Adjust p-values for how many of them there are.

    Parameters
    ----------
    p_values : array of any shape
        NaN, where nothing was tested, is no member of the family and stays NaN.
    method : {"bh", "by", "holm"}
        Rate of false discoveries, for independent or positively dependent tests (Benjamini &
        Hochberg 1995) or whatever the dependence (Benjamini & Yekutieli 2001); or the chance of
        any false discovery, whatever the dependence (Holm 1979).
    axis : int, optional
        Along which a family runs; all values are one by default.

    Returns
    -------
    array of the same shape

    Raises
    ------
    InputError
        If a value is no probability.
    """
    check_choice("method", method, ("bh", "by", "holm"))
    p = np.asarray(p_values, dtype=float)
    if ((p < 0) | (p > 1)).any():
        raise InputError(
            "p_values", expected="values from 0 to 1", got=f"{np.nanmin(p):g} to {np.nanmax(p):g}"
        )
    if axis is None:
        return _adjust(p.ravel(), method).reshape(p.shape)
    return np.apply_along_axis(_adjust, axis, p, method)


def _adjust(p, method):
    adjusted, known = np.full_like(p, np.nan), ~np.isnan(p)
    tested = p[known]
    if tested.size and method == "holm":
        order = np.argsort(tested)
        stepped = np.maximum.accumulate(tested[order] * np.arange(tested.size, 0, -1))
        adjusted[np.flatnonzero(known)[order]] = np.minimum(stepped, 1)
    elif tested.size:
        # The package is slow to start; few calls need it.
        from scipy.stats import false_discovery_control

        adjusted[known] = false_discovery_control(tested, method=method)
    return adjusted
