"""From subjects to a group: summary, sign flips, replication and prevalence.

IGC is signed, unlike accuracies or other information-like measures, so that its mean over
subjects may well be 0, and flipping the signs of subjects is a null (see Allefeld, Görgen &
Haynes 2016 for why that is not so of accuracies).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrc, betaincinv

from neuroigc._validation import InputError, check_count
from neuroigc.stats.inference import p_values_among_largest

__all__ = [
    "GroupTest",
    "Replication",
    "replication",
    "sign_flip_maps",
    "sign_flip_test",
]

# Up to as many subjects all patterns of signs are tried.
MOST_EXACT = 12
_NUMBERS = 2**22
_ROUNDING = 1e-9


@dataclass(frozen=True)
class GroupTest:
    """Values of a group of subjects.

    Attributes
    ----------
    mean, sd : arrays of shape (...)
        Over subjects; ``sd`` is that between subjects (n - 1), the paper's error bars.
    n_subjects : int array of shape (...)
        With a value.
    t : array of shape (...)
        Mean over its standard error.
    p_values : array of shape (...)
        Two-sided, of the signs of all subjects flipped. With n subjects no p is below 2 / 2**n.
    p_values_fwe : array of shape (...)
        Family-wise: of so large a t anywhere.
    n_flips : int
        Patterns of signs that were tried, the one of the data included.
    """

    mean: np.ndarray
    sd: np.ndarray
    n_subjects: np.ndarray
    t: np.ndarray
    p_values: np.ndarray
    p_values_fwe: np.ndarray
    n_flips: int


@dataclass(frozen=True)
class Replication:
    """In how many subjects an effect was found, and what that says of the population.

    Attributes
    ----------
    n_significant, n_subjects : int arrays of shape (...)
    p_values : array of shape (...)
        Binomial: of so many or more, were there no effect in anyone.
    prevalence_low : array of shape (...)
        Least share of the population that has the effect, at the confidence wanted.
    prevalence_low_all : array of shape (...)
        The same from the largest p-value of all subjects (Allefeld, Görgen & Haynes 2016): more
        where all have the effect, 0 where one does not.
    """

    n_significant: np.ndarray
    n_subjects: np.ndarray
    p_values: np.ndarray
    prevalence_low: np.ndarray
    prevalence_low_all: np.ndarray


def sign_flip_test(values: ArrayLike, *, n_flips: int = 9999, seed: int = 0) -> GroupTest:
    """Test whether the mean over subjects is 0, by flipping subjects' signs.

    Exact for values whose distribution is symmetric about 0 under the null, however few subjects
    there are: up to 12 all patterns of signs are tried, of more a random choice.

    Parameters
    ----------
    values : array of shape (n_subjects, ...)
        NaN where a subject has no such area; others of the subject count nevertheless.
    n_flips : int
        Random patterns, where there are more than 12 subjects.
    seed : int

    Raises
    ------
    InputError
        If there are fewer than two subjects, or values are infinite.
    """
    values = _check_subjects(values)
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat)
    n, filled = known.sum(0), np.where(known, flat, 0)
    signs = _signs(len(flat), n_flips, seed)
    larger, largest = np.zeros(flat.shape[1], dtype=np.int64), np.zeros(len(signs))
    step = max(1, _NUMBERS // len(signs))
    for start in range(0, flat.shape[1], step):
        part = slice(start, start + step)
        sizes = np.abs(_t_values(signs, filled[:, part], n[part]))
        larger[part] = (sizes >= sizes[0] - _ROUNDING * (1 + sizes[0])).sum(0)
        # A single value has no error, so that its t would surpass all others' whatever its sign.
        largest = np.maximum(largest, sizes[:, n[part] > 1].max(1, initial=0))
    t = _t_values(signs[:1], filled, n)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = filled.sum(0) / n
        sd = np.sqrt((np.where(known, flat - mean, 0) ** 2).sum(0) / (n - 1))
    untested = n < 2
    p, p_fwe = larger / len(signs), p_values_among_largest(np.abs(t), largest)
    for array in (t, p, p_fwe, sd):
        array[untested] = np.nan
    shape = values.shape[1:]
    arrays = (array.reshape(shape) for array in (mean, sd, n, t, p, p_fwe))
    return GroupTest(*arrays, len(signs))


def sign_flip_maps(values: ArrayLike, *, n_flips: int = 999, seed: int = 0) -> np.ndarray:
    """Return maps of t for flipped signs of subjects, for `cluster_test`.

    Parameters
    ----------
    values : array of shape (n_subjects, n_vertices)
        Maps of all subjects on one surface, without NaN.
    n_flips : int
        Random patterns where there are more than 12 subjects; of fewer all are taken.
    seed : int

    Returns
    -------
    array of shape (n_flips + 1, n_vertices), float32
        The first of the signs as they are.
    """
    values = _check_subjects(values)
    if values.ndim != 2:
        raise InputError(
            "values", expected="maps (n_subjects, n_vertices)", got=f"shape {values.shape}"
        )
    if np.isnan(values).any():
        raise InputError(
            "values",
            expected="a value of every subject at every vertex",
            got=f"NaN at {int(np.isnan(values).any(0).sum())} vertices",
            fix="Choose the vertices that all subjects have, here and for mesh_edges.",
        )
    signs = _signs(len(values), n_flips, seed)
    n, maps = np.full(values.shape[1], len(values)), np.empty((len(signs), values.shape[1]), "f4")
    step = max(1, _NUMBERS // max(values.shape[1], 1))
    for start in range(0, len(signs), step):
        part = slice(start, start + step)
        maps[part] = _t_values(signs[part], values, n)
    return maps


def flipped_means(values: ArrayLike, *, n_flips: int = 9999, seed: int = 0) -> np.ndarray:
    """Return what `sign_flip_test` compares a mean with: means (n_patterns, ...) of flipped signs.

    Parameters
    ----------
    values : array of shape (n_subjects, ...)
        Without NaN.
    n_flips, seed : int
        As of `sign_flip_test`.
    """
    values = _check_subjects(values)
    signs = _signs(len(values), n_flips, seed)
    return np.tensordot(signs, values, 1) / len(values)


def _check_subjects(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim < 1 or len(values) < 2 or np.isinf(values).any():
        raise InputError(
            "values",
            expected="finite values of two subjects or more, (n_subjects, ...)",
            got="infinite ones" if np.isinf(values).any() else f"shape {values.shape}",
        )
    return values


def _signs(n_subjects: int, n_flips: int, seed: int) -> np.ndarray:
    """Return patterns of signs (n_patterns, n_subjects), the first of them all 1."""
    if n_subjects <= MOST_EXACT:
        bits = np.arange(2**n_subjects)[:, None] >> np.arange(n_subjects) & 1
        return 1.0 - 2.0 * bits
    n_flips = check_count("n_flips", n_flips)
    drawn = np.random.default_rng(seed).integers(0, 2, (n_flips + 1, n_subjects))
    drawn[0] = 0
    return 1.0 - 2.0 * drawn


def _t_values(signs: Any, values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return t (n_patterns, n_values) of signed values, 0 where nothing is known."""
    squares = (values**2).sum(0)
    sums = signs @ values
    # Squares do not change with signs, so sums tell all; equal values have no error but rounding.
    rest = np.maximum(n * squares - sums**2, _ROUNDING * n * squares)
    scale = np.sqrt(rest / np.maximum(n - 1, 1))
    return np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0)


def replication(
    p_values: ArrayLike, *, alpha: float = 0.05, confidence: float = 0.95
) -> Replication:
    """Count the subjects in whom a test is significant, and bound the share of all who would be.

    Each subject is an experiment of its own, and the group their replications. Were a share g of
    the population to have the effect, and tests to find it always, a test would be significant
    with probability g + (1 - g) alpha; tests that miss some make for less, so that the bound of
    Clopper & Pearson (1934) for that probability gives one for g.

    Parameters
    ----------
    p_values : array of shape (n_subjects, ...)
        NaN where a subject was not tested.
    alpha : float
        At which each test is significant.
    confidence : float
        Of the bounds.

    Raises
    ------
    InputError
        If values are no probabilities.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim < 1 or not len(p) or ((p < 0) | (p > 1)).any():
        raise InputError(
            "p_values",
            expected="values from 0 to 1, (n_subjects, ...)",
            got="others" if p.ndim else "a single value",
        )
    for name, value in (("alpha", alpha), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(name, expected="a number between 0 and 1", got=repr(value))
    n = (~np.isnan(p)).sum(0)
    k = (p <= alpha).sum(0)
    binomial = np.where(k > 0, bdtrc(np.maximum(k - 1.0, 0), n, alpha), 1.0)
    least = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, 1 - confidence), 0)
    prevalence = np.maximum((least - alpha) / (1 - alpha), 0)
    # Were g of the population to have it, the largest of n p-values would be below x with
    # probability (g + (1 - g) x) ** n at most.
    largest = np.where(np.isnan(p), 0, p).max(0)
    root = (1 - confidence) ** (1 / np.maximum(n, 1))
    together = np.divide(
        root - largest, 1 - largest, out=np.zeros(np.shape(root)), where=largest < 1
    )
    together = np.where(n > 0, np.maximum(together, 0), np.nan)
    tested = np.where(n > 0, 1.0, np.nan)
    return Replication(k, n, binomial * tested, prevalence * tested, together)
