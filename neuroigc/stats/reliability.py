"""How far maps come out alike: from halves of the samples, and from networks of other seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_count

__all__ = [
    "Reliability",
    "map_reliability",
    "spearman_brown",
    "split_half_reliability",
]


@dataclass(frozen=True)
class Reliability:
    """How reliable maps are.

    Attributes
    ----------
    single : array of shape (n_outputs,)
        Mean correlation of two maps: of half of the samples, or of one seed each.
    whole : array of shape (n_outputs,)
        Expected correlation of the map of all samples, or of the mean over seeds, with another
        such one (Spearman-Brown).
    each : array of shape (n_pairs, n_outputs)
        Of every split, or pair of seeds.
    """

    single: np.ndarray
    whole: np.ndarray
    each: np.ndarray


def spearman_brown(correlation: ArrayLike, factor: float = 2) -> np.ndarray:
    """Return the reliability of ``factor`` times as much data (Spearman 1910, Brown 1910).

    ``factor r / (1 + (factor - 1) r)``. Negative correlations, which are chance, stay negative.

    Raises
    ------
    InputError
        If the factor is not above 0.
    """
    if not factor > 0:
        raise InputError("factor", expected="a number above 0", got=repr(factor))
    r = np.asarray(correlation, dtype=float)
    # Odd in r, so that chance has mean 0.
    return factor * r / (1 + (factor - 1) * np.abs(r))


def map_reliability(maps: ArrayLike) -> Reliability:
    """Correlate maps of several seeds, or of several independent parts of the data, in pairs.

    Parameters
    ----------
    maps : array of shape (n_maps, n_outputs, n_vertices)
        Of networks trained from other seeds, say.

    Returns
    -------
    Reliability
        ``whole`` is that of the mean over maps. Of two halves of the data this is the
        split-half reliability of all of it.

    Raises
    ------
    InputError
        If there are fewer than two maps, or values are not finite.
    """
    maps = np.asarray(maps, dtype=float)
    if maps.ndim != 3 or len(maps) < 2 or not np.isfinite(maps).all():
        raise InputError(
            "maps",
            expected="two or more finite maps, (n_maps, n_outputs, n_vertices)",
            got=f"shape {maps.shape}" if maps.ndim != 3 or len(maps) < 2 else "NaN or infinity",
        )
    first, second = np.triu_indices(len(maps), 1)
    z = _standardised(maps)
    each = np.stack([(z[i] * z[j]).sum(-1) for i, j in zip(first, second, strict=True)])
    single = each.mean(0)
    return Reliability(single, spearman_brown(single, len(maps)), each)


def split_half_reliability(
    contributions: ArrayLike, *, n_splits: int = 100, seed: int = 0
) -> Reliability:
    """Split samples into halves at random, and correlate the two maps, over and over.

    Parameters
    ----------
    contributions : array of shape (n_samples, n_outputs, n_columns)
        What each sample adds to the mean. For groups of an `IGCResult`, ``group_values +
        group_influences``: of first order, so that no model need be run again.
    n_splits, seed : int

    Returns
    -------
    Reliability

    Raises
    ------
    InputError
        If there are fewer than four samples, or values are not finite.
    """
    values = np.asarray(contributions)
    if values.ndim != 3 or len(values) < 4 or not np.isfinite(values).all():
        raise InputError(
            "contributions",
            expected="finite values of four samples or more, (n_samples, n_outputs, n_columns)",
            got="NaN or infinity" if values.ndim == 3 and len(values) > 3 else f"{values.shape}",
        )
    n_splits, rng, n = check_count("n_splits", n_splits), np.random.default_rng(seed), len(values)
    total, each = values.sum(0, dtype=float), []
    for _ in range(n_splits):
        half = values[rng.permutation(n)[: n // 2]].sum(0, dtype=float)
        pair = _standardised(np.stack([half / (n // 2), (total - half) / (n - n // 2)]))
        each.append((pair[0] * pair[1]).sum(-1))
    single = np.mean(each, 0)
    return Reliability(single, spearman_brown(single), np.array(each))


def correlate_maps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return correlations over the last axis; NaN where a map does not vary."""
    r: np.ndarray = (_standardised(first) * _standardised(second)).sum(-1)
    return r


def _standardised(maps: np.ndarray) -> np.ndarray:
    """Return maps of mean 0 and length 1; NaN where a map does not vary."""
    centred = maps - maps.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: np.ndarray = centred / np.linalg.norm(centred, axis=-1, keepdims=True)
    # The mean of equal values may differ from them by rounding.
    varies: np.ndarray = (maps != maps[..., :1]).any(-1, keepdims=True)
    return np.where(varies, scaled, np.nan)
