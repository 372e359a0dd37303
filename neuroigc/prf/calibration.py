"""Calibration with phantoms: receptive fields in true degrees, with intervals that hold.

Phantoms went the same way as the real vertices, from responses to fitted maps, and their truth is
known. Their estimates show how sizes and centres are distorted, and how far off they are.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_choice, check_count
from neuroigc.prf._calibration import Calibration, as_quality, check_raw, learn
from neuroigc.prf.phantoms import Phantoms
from neuroigc.prf.result import PRFResult

__all__ = ["Calibration", "calibrate_prfs", "learn_calibration"]

_LEAST_PHANTOMS = 30
# Estimates that hardly follow the truth cannot be told apart, and nothing would bring them back.
_LEAST_SLOPE = 0.1
_SOURCES = ("auto", "reported", "neighbours")


def calibrate_prfs(
    fields: PRFResult,
    phantom_fields: PRFResult,
    phantoms: Phantoms,
    *,
    quality: ArrayLike | None = None,
    phantom_quality: ArrayLike | None = None,
    n_neighbours: int = 25,
    errors: str = "auto",
) -> tuple[PRFResult, Calibration]:
    """Calibrate receptive fields with those of phantoms that went the same way.

    Parameters
    ----------
    fields : PRFResult
        Of the real vertices, from :func:`fit_prf`.
    phantom_fields : PRFResult
        Of the phantoms, from maps of the same encoder.
    phantoms : Phantoms
        Their truth, from :func:`make_phantoms`.
    quality, phantom_quality : (n_vertices,) and (n_phantoms,) arrays, optional
        The same quantity for both, say the accuracy of the encoder or ``ncsnr``: it tells which
        phantoms are most alike where there are no standard errors. Default: the fits' ``r2``.
    n_neighbours : int
        How many phantoms count as most alike.
    errors : {"auto", "reported", "neighbours"}
        Errors to scale: standard errors of the fits, which know each map but not what is wrong
        with a Gaussian, or those of the phantoms most alike in size, eccentricity, quality
        and, if there is one, exponent.
        "auto" takes what gives narrower intervals of the phantoms' centres, as both cover.

    Returns
    -------
    calibrated : PRFResult
        Centres and sizes in true degrees, with standard errors.
    calibration : Calibration
        What was learned, to be reported and plotted (:func:`plot_calibration`).

    Raises
    ------
    InputError
        As :func:`learn_calibration` and :meth:`Calibration.apply`; or if quality is given for one
        of the two only.
    """
    if (quality is None) != (phantom_quality is None):
        raise InputError(
            "quality and phantom_quality",
            expected="the same quantity for vertices and phantoms, or neither",
            got="one of them",
        )
    check_choice("errors", errors, _SOURCES)
    # What real vertices lack cannot be scaled.
    if errors == "auto" and not fields.has_errors:
        errors = "neighbours"
    calibration = learn_calibration(
        phantom_fields,
        phantoms,
        quality=phantom_quality,
        n_neighbours=n_neighbours,
        errors=errors,
    )
    calibration = calibration.for_vertices(fields, quality=quality)
    return calibration.apply(fields, quality=quality), calibration


def learn_calibration(
    phantom_fields: PRFResult,
    phantoms: Phantoms,
    *,
    quality: ArrayLike | None = None,
    n_neighbours: int = 25,
    errors: str = "auto",
) -> Calibration:
    """Learn from phantoms how estimates follow the truth, and how far off they are.

    Parameters
    ----------
    phantom_fields : PRFResult
        Estimated fields of the phantoms, with or without standard errors.
    phantoms : Phantoms
        Their truth, in the same order.
    quality : (n_phantoms,) array, optional
        What tells good from bad maps. Default: the fits' ``r2``.
    n_neighbours : int
        How many phantoms count as most alike.
    errors : {"auto", "reported", "neighbours"}
        Errors to scale: standard errors of the fits, which know each map but not what is wrong
        with a Gaussian, or those of the phantoms most alike in size, eccentricity, quality
        and, if there is one, exponent.
        "auto" takes what gives narrower intervals of the phantoms' centres, as both cover.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        If the two do not correspond, fewer than 30 phantoms are usable (status "ok", true centre
        on the image), or estimates do not follow the truth.

    Notes
    -----
    Estimates are regressed on the truth (Tukey's biweight) and the line is inverted, as in the
    calibration of an instrument: the slope of calibrated sizes on true ones is 1. Regressing the
    truth on estimates would shrink sizes towards those of the phantoms. Only where fields have
    exponents (:meth:`PRFResult.with_exponent`), width and exponent are brought together by a
    regression of the true size on both: their errors are small and would be magnified. Lines of
    x and y are those of phantoms at least one size away from the edges, where fields are not cut;
    one that would move centres by less than half of the phantoms' median error is left out.

    Errors are scaled by a quantile of the phantoms' own (conformal prediction; Vovk, Gammerman &
    Shafer 2005; Papadopoulos, Gammerman & Vovk 2008): intervals cover 95 % of vertices that are
    drawn like the phantoms, whatever the distribution of errors. Real vertices are drawn
    differently, which :func:`calibrate_prfs` allows for (:meth:`Calibration.for_vertices`) as far
    as size, eccentricity, quality and exponent go. That is little risk for centres.
    Calibrated sizes depend on the exponents and the normalisation of the phantoms, the more so
    the less map sizes follow true ones (a slope far below 1): then compare them between vertices
    of one area rather than between areas.
    """
    check_raw("phantom_fields", phantom_fields)
    n_phantoms = len(phantoms)
    if len(phantom_fields) != n_phantoms:
        raise InputError(
            "phantom_fields and phantoms",
            expected="the same phantoms",
            got=f"{len(phantom_fields)} and {n_phantoms}",
        )
    check_choice("errors", errors, _SOURCES)
    if errors == "reported" and not phantom_fields.has_errors:
        raise InputError(
            "phantom_fields",
            expected="standard errors of centre and size",
            got="none",
            fix="Give fit_prf the standard_errors of the maps, or use errors='neighbours'.",
        )
    quality = as_quality("phantom_quality", quality, phantom_fields)
    n_neighbours = check_count("n_neighbours", n_neighbours, least=5)
    sources = _SOURCES[1:] if errors == "auto" else (errors,)
    if not phantom_fields.has_errors:
        sources = ("neighbours",)
    options = {
        "n_neighbours": n_neighbours,
        "least": _LEAST_PHANTOMS,
        "least_slope": _LEAST_SLOPE,
    }
    learned = [
        learn(phantom_fields, phantoms, quality, source=source, **options) for source in sources
    ]
    return min(learned, key=Calibration.width)
