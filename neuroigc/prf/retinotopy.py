"""Angles of the visual field: conventions, circular statistics."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_choice

__all__ = [
    "ANGLE_CONVENTIONS",
    "circular_correlation",
    "circular_difference",
    "circular_mean",
    "convert_angle",
    "to_cartesian",
    "to_polar",
]

ANGLE_CONVENTIONS = ("nsd", "benson", "hcp")


def to_polar(x_deg: ArrayLike, y_deg: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return eccentricity and polar angle of points in the visual field.

    Parameters
    ----------
    x_deg, y_deg : array
        Degrees of visual angle, x to the right, y upwards.

    Returns
    -------
    eccentricity_deg : array
        Distance from fixation.
    angle_deg : array
        0 right, 90 up, counter-clockwise, in [0, 360); NaN at fixation, where there is none.
    """
    x_deg, y_deg = np.asarray(x_deg, dtype=float), np.asarray(y_deg, dtype=float)
    eccentricity = np.hypot(x_deg, y_deg)
    angle = _wrap(np.degrees(np.arctan2(y_deg, x_deg)))
    return eccentricity, np.where(eccentricity == 0, np.nan, angle)


def to_cartesian(
    eccentricity_deg: ArrayLike, angle_deg: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return x (to the right) and y (upwards) of points given by eccentricity and NSD angle.

    At an eccentricity of 0 the angle does not matter and may be NaN.
    """
    eccentricity = np.asarray(eccentricity_deg, dtype=float)
    radians = np.radians(np.where(eccentricity == 0, 0.0, angle_deg))
    return eccentricity * np.cos(radians), eccentricity * np.sin(radians)


def convert_angle(angle_deg: ArrayLike, *, source: str, target: str, hemisphere: str) -> np.ndarray:
    """Convert polar angles of one hemisphere's vertices between conventions.

    ============ ===============================================================================
    ``"nsd"``    0 right, 90 up, counter-clockwise, [0, 360). Also analyzePRF, the HCP 7T release
                 and this package.
    ``"benson"`` Angle from the upper vertical meridian (0) to the lower (180) through the
                 contralateral horizontal meridian (90), both hemispheres; ipsilateral angles
                 are negative, (-180, 180]. Benson atlases, neuropythy.
    ``"hcp"``    As "nsd" in the right hemisphere, shifted by 180 degrees in the left, so that no
                 hemisphere's map wraps around; [0, 360). deepRetinotopy, trained on HCP maps.
    ============ ===============================================================================

    Parameters
    ----------
    angle_deg : array
        Polar angles in the ``source`` convention; NaN stays NaN.
    source, target : {"nsd", "benson", "hcp"}
        Conventions to convert from and to.
    hemisphere : {"left", "right"}
        Where the vertices are; the left hemisphere sees the right visual field.

    Returns
    -------
    array
        Angles in the ``target`` convention.

    Raises
    ------
    InputError
        If a convention or hemisphere is unknown.
    """
    check_choice("source", source, ANGLE_CONVENTIONS)
    check_choice("target", target, ANGLE_CONVENTIONS)
    check_choice("hemisphere", hemisphere, ("left", "right"))
    angle = np.asarray(angle_deg, dtype=float)
    is_left = hemisphere == "left"
    if source == "benson":
        angle = 90 - angle if is_left else 90 + angle
    elif source == "hcp" and is_left:
        angle = angle - 180
    if target == "benson":
        return circular_difference(90, angle) if is_left else circular_difference(angle, 90)
    if target == "hcp" and is_left:
        angle = angle + 180
    return _wrap(angle)


def circular_difference(a_deg: ArrayLike, b_deg: ArrayLike) -> np.ndarray:
    """Return ``a - b`` the short way round, in (-180, 180]."""
    return 180 - _wrap(180 - (np.asarray(a_deg, dtype=float) - np.asarray(b_deg, dtype=float)))


def circular_mean(angle_deg: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Return the direction of the sum of unit vectors, in [0, 360).

    NaN if there is no direction: no angles, or vectors that cancel.
    """
    vectors = np.exp(1j * np.radians(np.asarray(angle_deg, dtype=float)))
    weights = np.ones(vectors.shape) if weights is None else np.asarray(weights, dtype=float)
    total = complex((weights * vectors).sum())
    if abs(total) <= 1e-12 * np.abs(weights).sum():
        return math.nan
    return float(_wrap(np.degrees(np.angle(total))))


def circular_correlation(a_deg: ArrayLike, b_deg: ArrayLike, *, references: str = "means") -> float:
    """Return the circular correlation of Jammalamadaka & SenGupta (2001, section 8.2).

    ``sum(sin(a - A) sin(b - B)) / sqrt(sum(sin(a - A)^2) sum(sin(b - B)^2))``

    Parameters
    ----------
    a_deg, b_deg : (n,) array
        Paired angles in degrees.
    references : {"means", "paired"}
        The reference directions A and B. "means" are the circular means, the usual definition.
        Where angles gather on opposite sides, as those of both hemispheres do, the means are
        nearly undefined, and the value drops at random even for maps that agree. For that case
        the authors take the reference directions that the pairs define: A - B is the mean of
        a - b, and A + B that of a + b ("paired").

    Returns
    -------
    float
        Between -1 and 1; NaN where either has no spread.

    Raises
    ------
    InputError
        If the arrays do not pair up, or hold fewer than two angles or NaN.
    """
    check_choice("references", references, ("means", "paired"))
    a, b = (np.radians(np.asarray(angles, dtype=float)) for angles in (a_deg, b_deg))
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise InputError(
            "a_deg and b_deg",
            expected="two lists of paired angles, at least two pairs",
            got=f"shapes {a.shape} and {b.shape}",
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(
            "a_deg and b_deg", expected="angles", got="NaN or infinity", fix="Leave those out."
        )
    if references == "means":
        reference_a, reference_b = _direction(a), _direction(b)
    else:
        difference, total = _direction(a - b), _direction(a + b)
        reference_a, reference_b = (total + difference) / 2, (total - difference) / 2
    sine_a, sine_b = np.sin(a - reference_a), np.sin(b - reference_b)
    norm = np.sqrt((sine_a**2).sum() * (sine_b**2).sum())
    return float((sine_a * sine_b).sum() / norm) if norm > 0 else math.nan


def _wrap(angle_deg: ArrayLike) -> np.ndarray:
    """Bring angles to [0, 360)."""
    wrapped = np.mod(angle_deg, 360.0)
    # The modulo of a tiny negative angle rounds to 360 itself.
    return np.where(wrapped == 360.0, 0.0, wrapped)


def _direction(radians: np.ndarray) -> float:
    return float(np.angle(np.exp(1j * radians).sum()))
