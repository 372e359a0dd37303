"""Whether a map lies where it is known to belong, and maps agree with each other.

Compares maps with a truth (a simulation's weights, a receptive field, an area) or with one
another; no model is asked, so see first that a map is faithful
(`neuroigc.attribution.faithfulness`). Sources: Schulz et al. 2020 (share of the largest values
inside a mask), Zhang et al. 2018 (pointing game), Zhang et al. 2021 (effective heat ratio).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import rankdata

from neuroigc._validation import InputError
from neuroigc.attribution.columns import check_groups
from neuroigc.attribution.samples import numbers

__all__ = ["localisation", "map_agreement", "region_correlation"]

# Of the largest values, below this share they are none of what a heat ratio counts.
_FAINT = 0.1
_QUANTILES = np.linspace(0, 1, 11)


def localisation(values: Any, mask: Any) -> dict[str, float]:
    """Measure how well a map points at a mask.

    Parameters
    ----------
    values : array
        Positive values count; negative ones are taken as zero.
    mask : boolean array of the same shape

    Returns
    -------
    dict
        ``inside``: share of the n largest values inside the mask, n being its size, whose
        expectation for a random map is the mask's share of the map; ``pointing``: 1 if the
        largest value is inside; ``iou``: intersection over union of the mask and the n largest
        values; ``heat_ratio``: how much of the map's height, relative to its largest value, lies
        inside, averaged over thresholds: a map that is strong inside and weak outside has more of
        it than one that only has its largest values there.

    Raises
    ------
    InputError
        If the mask is none, or is empty, or everything.
    """
    heat, inside = _checked(values, mask)
    n = int(inside.sum())
    largest = np.zeros(len(heat), bool)
    largest[np.argsort(-heat, kind="stable")[:n]] = True
    both = (largest & inside).sum()
    return {
        "inside": float(both / n),
        "pointing": float(inside[heat.argmax()]),
        "iou": float(both / (largest | inside).sum()),
        "heat_ratio": _heat_ratio(np.clip(heat, 0, None), inside),
    }


def _checked(values: Any, mask: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    array, inside = numbers(values, "values").astype(np.float64), np.asarray(mask)
    is_mask = inside.dtype == bool
    if not is_mask or inside.shape != array.shape or inside.all() or not inside.any():
        raise InputError(
            "mask",
            expected=f"a boolean array of shape {array.shape}, with places inside and outside",
            got=f"{inside.dtype} of shape {inside.shape}"
            + (f", {inside.sum()} inside" if is_mask else ""),
        )
    if not np.isfinite(array).all():
        raise InputError("values", expected="finite numbers", got="NaN or infinite ones")
    return array.reshape(-1), inside.reshape(-1)


def _heat_ratio(heat: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Return the mean over thresholds of the height inside, over the number above."""
    if not heat.max() > 0:
        return 0.0
    heat = np.where(heat < _FAINT * heat.max(), 0, heat) / heat.max()
    ratios = []
    for threshold in np.quantile(heat[heat > 0], _QUANTILES):
        above = heat >= min(threshold, 0.99)
        ratios.append(heat[above & inside].sum() / above.sum())
    return float(trapezoid(ratios, _QUANTILES))


def region_correlation(
    values: Any, regions: Mapping[str, Any], scores: Mapping[str, float]
) -> float:
    """Correlate a map's means over regions with what is known of each.

    Regions are the units, whatever their size; a random map gives correlations of about one over
    the square root of their number.

    Parameters
    ----------
    values : array
    regions : dict of str to indices or boolean mask
        Over the flattened map, three or more.
    scores : dict of str to float
        Known value of each region.

    Returns
    -------
    float
        Pearson correlation; NaN if one side does not vary.

    Raises
    ------
    InputError
        If regions are none of the map, or have no scores.
    """
    array = np.asarray(values, np.float64)
    members = check_groups(regions, array.shape, argument="regions")
    wanted = [name for name, index in members.items() if name in scores and len(index)]
    if len(wanted) < 3:
        raise InputError(
            "scores",
            expected="scores of three or more of the regions",
            got=f"{len(wanted)} that are known of both",
        )
    means = np.array([array.reshape(-1)[members[name]].mean() for name in wanted])
    known = np.array([scores[name] for name in wanted], np.float64)
    return float(_pearson(means, known))


def map_agreement(
    maps: Mapping[str, Any], *, share: float = 0.05
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare maps of several methods with each other.

    Parameters
    ----------
    maps : dict of str to array
        All of one shape.
    share : float
        Of the components, those of the largest values that are compared as sets.

    Returns
    -------
    rank_correlations, overlaps : arrays of shape (n_maps, n_maps)
        Spearman correlations, and Jaccard indices of the sets of largest values.

    Raises
    ------
    InputError
        If maps differ in shape or are not finite, or the share is none.
    """
    if not isinstance(maps, Mapping):
        raise InputError("maps", expected="a dict of names to maps", got=type(maps).__name__)
    arrays = {name: numbers(values, "maps").astype(np.float64) for name, values in maps.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1:
        raise InputError("maps", expected="maps of one shape", got=f"shapes {sorted(shapes)}")
    if not 0 < share <= 1:
        raise InputError("share", expected="a number above 0, 1 at most", got=repr(share))
    flat = np.stack([array.reshape(-1) for array in arrays.values()])
    if not np.isfinite(flat).all():
        raise InputError("maps", expected="finite numbers", got="NaN or infinite ones")
    ranks = rankdata(flat, axis=1)
    n = max(1, round(share * flat.shape[1]))
    top = np.zeros(flat.shape, bool)
    np.put_along_axis(top, np.argsort(-flat, axis=1, kind="stable")[:, :n], True, 1)
    correlations = np.array([[_pearson(a, b) for b in ranks] for a in ranks])
    overlaps = np.array([[(a & b).sum() / (a | b).sum() for b in top] for a in top])
    return correlations, overlaps


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")
