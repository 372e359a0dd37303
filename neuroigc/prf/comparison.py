"""Receptive fields against others of the same vertices: the numbers that readers ask for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError
from neuroigc.prf._fields import read_fields, vertex_mask
from neuroigc.prf.retinotopy import circular_correlation, circular_difference, to_polar

__all__ = ["compare_prfs"]

# Nearer to fixation a small shift of the centre turns the angle by any amount.
_LEAST_ECCENTRICITY_DEG = 0.5


def compare_prfs(
    estimate: object,
    reference: object,
    *,
    where: ArrayLike | None = None,
    within_deg: float | None = None,
) -> dict[str, float | int]:
    """Say in a few numbers how well estimated receptive fields agree with others.

    Parameters
    ----------
    estimate, reference : PRFResult, DataFrame or dict of arrays
        ``x_deg``, ``y_deg`` and ``size_deg`` of the same vertices in the same order.
    where : (n_vertices,) array of bool, optional
        The vertices to compare, say those whose encoder is good enough. Default: all.
    within_deg : float, optional
        Leave out vertices whose reference lies farther than this from fixation: the radius of
        the stimulated field, 4.2 for NSD. Beyond it either side is an extrapolation. The
        estimate does not select, so that a wrong one cannot remove itself.

    Returns
    -------
    dict
        ``n_vertices`` compared; ``n_not_finite``, those that were left out
        because estimate or reference is not finite.

        ``median_centre_error_deg``, distance of the centres, and ``median_angle_error_deg``, of
        vertices whose reference is more than 0.5 deg from fixation.

        ``r_eccentricity`` and ``r_size`` (Pearson); ``r_angle`` (:func:`circular_correlation`
        with paired references, as both hemispheres may be there).

        ``slope_eccentricity`` and ``slope_size``, of the least-squares line of the estimate
        against the reference, 1 where they agree; noise of the reference lowers it.
        ``bias_eccentricity_deg`` and ``bias_size_deg``, medians of estimate minus reference;
        ``size_ratio``, the median of estimated over reference size.

        Numbers that the vertices do not define, such as r of equal sizes, are NaN.

    Raises
    ------
    InputError
        If the vertices do not correspond, or fewer than three can be compared.
    """
    ours, theirs = read_fields(estimate, "estimate"), read_fields(reference, "reference")
    if ours.shape != theirs.shape:
        raise InputError(
            "estimate and reference",
            expected="the same vertices",
            got=f"{ours.shape[1]} and {theirs.shape[1]}",
        )
    where = vertex_mask(where, ours.shape[1])
    if within_deg is not None:
        where = where & _not_beyond(theirs, within_deg)
    finite = np.isfinite(ours).all(0) & np.isfinite(theirs).all(0)
    used = where & finite
    if used.sum() < 3:
        raise InputError(
            "estimate, reference and where",
            expected="at least three vertices with finite fits in both",
            got=f"{used.sum()} of {where.sum()}",
        )
    (x, y, size), (x_ref, y_ref, size_ref) = ours[:, used], theirs[:, used]
    eccentricity, angle = to_polar(x, y)
    eccentricity_ref, angle_ref = to_polar(x_ref, y_ref)
    # At fixation itself there is no angle.
    has_angle = np.isfinite(angle) & np.isfinite(angle_ref)
    far = has_angle & (eccentricity_ref > _LEAST_ECCENTRICITY_DEG)
    turned = np.abs(circular_difference(angle[far], angle_ref[far]))
    return {
        "n_vertices": int(used.sum()),
        "n_not_finite": int((where & ~finite).sum()),
        "median_centre_error_deg": float(np.median(np.hypot(x - x_ref, y - y_ref))),
        "median_angle_error_deg": float(np.median(turned)) if far.any() else math.nan,
        "r_eccentricity": _pearson(eccentricity, eccentricity_ref),
        "slope_eccentricity": _slope(eccentricity, eccentricity_ref),
        "bias_eccentricity_deg": float(np.median(eccentricity - eccentricity_ref)),
        "r_angle": (
            circular_correlation(angle[has_angle], angle_ref[has_angle], references="paired")
            if has_angle.sum() > 1
            else math.nan
        ),
        "r_size": _pearson(size, size_ref),
        "slope_size": _slope(size, size_ref),
        "bias_size_deg": float(np.median(size - size_ref)),
        "size_ratio": float(np.median(size / size_ref)),
    }


def _not_beyond(theirs: np.ndarray, within_deg: float) -> np.ndarray:
    """Return which references are not farther out; those without a centre stay, to be counted."""
    if not within_deg > 0:
        raise InputError("within_deg", expected="a positive number of degrees", got=f"{within_deg}")
    eccentricity = np.hypot(*theirs[:2])
    return ~(eccentricity > within_deg)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else math.nan


def _slope(estimate: np.ndarray, reference: np.ndarray) -> float:
    spread = reference - reference.mean()
    squares = (spread**2).sum()
    return float((spread * estimate).sum() / squares) if squares > 0 else math.nan
