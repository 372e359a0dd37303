"""Calibration with phantoms: receptive fields in true degrees, with intervals that hold.

Phantoms went the same way as the real vertices, from responses to fitted maps, and their truth is
known. Their estimates show how sizes and centres are distorted, and how far off they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_count
from neuroigc.prf._lines import Line, errors_of_neighbours, ranks, robust_line
from neuroigc.prf.phantoms import Phantoms
from neuroigc.prf.result import PRFResult
from neuroigc.prf.retinotopy import circular_difference

if TYPE_CHECKING:
    import pandas

__all__ = ["Calibration", "Line", "calibrate_prfs", "learn_calibration"]

LEVEL = 0.95
_LEAST_PHANTOMS = 30
# Nearer to fixation a small shift of the centre turns the angle by any amount.
_LEAST_ECCENTRICITY_DEG = 0.5
_NAMES = ("x", "y", "size")


@dataclass(frozen=True, eq=False)
class Calibration:
    """What phantoms say about estimated receptive fields.

    Attributes
    ----------
    x, y : Line
        Of the centre, in degrees.
    size : Line
        Of the natural logarithm of the size in degrees.
    error_scale : (3,) array
        Factors on standard errors of x, y and log size that make 95 % intervals cover 95 % of
        the phantoms.
    has_reported_errors : bool
        Whether the factors are those of reported standard errors; if not, of the errors of the
        phantoms that are most alike.
    estimates : PRFResult
        Fields of the phantoms as they were estimated, not calibrated.
    phantoms : Phantoms
        Their truth, in the same order.
    quality : (n_phantoms,) array
        What tells good from bad maps.
    used : (n_phantoms,) array of bool
        Phantoms that were learned from: status "ok", true centre on the image.
    n_neighbours : int
        Phantoms that count as most alike.
    """

    x: Line
    y: Line
    size: Line
    error_scale: np.ndarray
    has_reported_errors: bool
    estimates: PRFResult
    phantoms: Phantoms
    quality: np.ndarray
    used: np.ndarray
    n_neighbours: int

    def apply(self, fields: PRFResult, *, quality: ArrayLike | None = None) -> PRFResult:
        """Return calibrated fields with calibrated standard errors.

        Parameters
        ----------
        fields : PRFResult
            Estimated as the phantoms were.
        quality : (n_vertices,) array, optional
            The quantity that the calibration was learned with. Default: the fits' ``r2``.

        Returns
        -------
        PRFResult
            With ``calibration`` set to :attr:`coefficients`; errors are NaN where ``status`` is
            not "ok".

        Raises
        ------
        InputError
            If the fields are calibrated already, are of pictures of another extent, or lack the
            standard errors or quality that the phantoms had.
        """
        _check_raw("fields", fields)
        if not np.allclose(fields.extent_deg, self.estimates.extent_deg):
            raise InputError(
                "fields and phantom_fields",
                expected="maps of the same extent",
                got=f"{fields.extent_deg} and {self.estimates.extent_deg} deg",
            )
        quality = _as_quality("quality", quality, fields)
        centre_and_size = self._undistorted(fields)
        errors = self._errors(fields, centre_and_size, quality) * self.error_scale[:, None]
        x, y, log_size = centre_and_size
        size = np.exp(log_size)
        return replace(
            fields,
            x_deg=x,
            y_deg=y,
            size_deg=size,
            x_error_deg=errors[0],
            y_error_deg=errors[1],
            size_error_deg=errors[2] * size,
            calibration=self.coefficients,
        )

    @property
    def coefficients(self) -> dict[str, float]:
        """Everything that :meth:`apply` does to centres and sizes, as numbers with names."""
        found = {}
        for name, scale in zip(_NAMES, self.error_scale.tolist(), strict=True):
            line = getattr(self, name)
            found[f"{name}_intercept"], found[f"{name}_slope"] = line
            found[f"{name}_error_scale"] = scale
        return found

    def to_dict(self) -> dict[str, float | int | bool]:
        """Return coefficients, errors of the phantoms and held-out coverage, for a report."""
        off = self.errors()
        held_out = self.coverage((LEVEL,)).iloc[0]
        return {
            **self.coefficients,
            "n_phantoms": len(self.phantoms),
            "n_phantoms_used": int(self.used.sum()),
            "has_reported_errors": self.has_reported_errors,
            **{f"median_{name}": float(off[name].median()) for name in off},
            **{f"coverage_{name}": float(held_out[name]) for name in _NAMES},
        }

    def errors(self) -> pandas.DataFrame:
        """Return how far off every phantom that was used is after calibration.

        Returns
        -------
        DataFrame
            One row per phantom: ``centre_error_deg``, ``angle_error_deg`` (NaN within 0.5 deg of
            fixation) and ``size_error_deg``, all of them absolute.
        """
        import pandas as pd

        x, y, log_size = self._undistorted(self.estimates[self.used])
        truth = self.phantoms[self.used]
        angle, true_angle = (
            np.degrees(np.arctan2(*values)) for values in ((y, x), (truth.y_deg, truth.x_deg))
        )
        turned = np.abs(circular_difference(angle, true_angle))
        far = np.hypot(truth.x_deg, truth.y_deg) > _LEAST_ECCENTRICITY_DEG
        return pd.DataFrame(
            {
                "centre_error_deg": np.hypot(x - truth.x_deg, y - truth.y_deg),
                "angle_error_deg": np.where(far, turned, np.nan),
                "size_error_deg": np.abs(np.exp(log_size) - truth.size_deg),
            }
        )

    def expected_errors(self, *, n_bins: int = 4) -> pandas.DataFrame:
        """Return what errors to expect at each noise ceiling and eccentricity.

        Parameters
        ----------
        n_bins : int
            Bins that hold equally many phantoms each.

        Returns
        -------
        DataFrame
            One row per bin: ``by`` ("ncsnr" or "eccentricity_deg", the true one), ``low`` and
            ``high`` ends, ``n_phantoms``, and medians of :meth:`errors`:
            ``median_centre_error_deg``, ``median_angle_error_deg``, ``median_size_error_deg``.
        """
        import pandas as pd

        n_bins = check_count("n_bins", n_bins)
        errors, truth = self.errors(), self.phantoms[self.used]
        eccentricity = np.hypot(truth.x_deg, truth.y_deg)
        rows = []
        for by, values in (("ncsnr", truth.ncsnr), ("eccentricity_deg", eccentricity)):
            for members in np.array_split(np.argsort(values, kind="stable"), n_bins):
                if not len(members):
                    continue
                row = {"by": by, "low": values[members[0]], "high": values[members[-1]]}
                medians = errors.iloc[members].median().add_prefix("median_")
                rows.append(row | {"n_phantoms": len(members)} | medians.to_dict())
        return pd.DataFrame(rows)

    def coverage(
        self, levels: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95), *, n_folds: int = 5
    ) -> pandas.DataFrame:
        """Return how often intervals contain the truth of phantoms they were not learned from.

        Parameters
        ----------
        levels : tuple of float
            Nominal shares.
        n_folds : int
            Parts; each is calibrated with what the others teach.

        Returns
        -------
        DataFrame
            Columns ``level, x, y, size``: shares of the phantoms that were used.
        """
        import pandas as pd

        estimates, truth = self.estimates[self.used], self.phantoms[self.used]
        quality = self.quality[self.used]
        fold = np.arange(len(truth)) % check_count("n_folds", n_folds, least=2)
        hits = np.full((len(levels), 3, len(truth)), np.nan)
        for test in (fold == number for number in np.unique(fold)):
            learned = _learn(estimates[~test], truth[~test], quality[~test], self.n_neighbours)
            found = learned.apply(estimates[test], quality=quality[test])
            for i, level in enumerate(levels):
                for j, (name, (low, high)) in enumerate(found.intervals(level).items()):
                    true = getattr(truth, name)[test]
                    hits[i, j, test] = (low <= true) & (true <= high)
        return pd.DataFrame(hits.mean(2), columns=list(_NAMES)).assign(level=levels)[
            ["level", *_NAMES]
        ]

    def _undistorted(self, fields: PRFResult) -> np.ndarray:
        """Return x, y and log size as they would be without distortion, (3, n)."""
        return np.stack(
            [
                self.x.invert(fields.x_deg),
                self.y.invert(fields.y_deg),
                self.size.invert(np.log(fields.size_deg)),
            ]
        )

    def _errors(
        self,
        fields: PRFResult,
        centre_and_size: np.ndarray,
        quality: np.ndarray,
        *,
        own: bool = False,
    ) -> np.ndarray:
        """Return errors of x, y, log size before they are scaled, (3, n)."""
        if self.has_reported_errors:
            if not fields.has_errors:
                raise InputError(
                    "fields",
                    expected="standard errors, as the phantoms' fields have",
                    got="none",
                    fix="Give fit_prf standard_errors for both or for neither.",
                )
            slopes = np.abs([self.x.slope, self.y.slope, self.size.slope])
            of_log = fields.size_error_deg / fields.size_deg
            errors = np.stack([fields.x_error_deg, fields.y_error_deg, of_log]) / slopes[:, None]
        else:
            reference = self._undistorted(self.estimates[self.used])
            truth = self.phantoms[self.used]
            off = np.abs(reference - [truth.x_deg, truth.y_deg, np.log(truth.size_deg)])
            known = _alike(reference, self.quality[self.used])
            sorted_known = np.sort(known, axis=1)
            places, own_places = (
                ranks(values, sorted_known) for values in (_alike(centre_and_size, quality), known)
            )
            errors = errors_of_neighbours(places, own_places, off, self.n_neighbours, own=own)
            errors = np.where(np.isfinite(quality), errors, np.nan)
        return np.where(fields.status == "ok", errors, np.nan)


def calibrate_prfs(
    fields: PRFResult,
    phantom_fields: PRFResult,
    phantoms: Phantoms,
    *,
    quality: ArrayLike | None = None,
    phantom_quality: ArrayLike | None = None,
    n_neighbours: int = 50,
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
    calibration = learn_calibration(
        phantom_fields, phantoms, quality=phantom_quality, n_neighbours=n_neighbours
    )
    return calibration.apply(fields, quality=quality), calibration


def learn_calibration(
    phantom_fields: PRFResult,
    phantoms: Phantoms,
    *,
    quality: ArrayLike | None = None,
    n_neighbours: int = 50,
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
    truth on estimates would shrink sizes towards those of the phantoms. Lines of x and y are
    those of phantoms at least one size away from the edges, where fields are not cut.

    Errors are scaled by a quantile of the phantoms' own (conformal prediction; Vovk, Gammerman &
    Shafer 2005; Papadopoulos, Gammerman & Vovk 2008): intervals cover 95 % of vertices that are
    drawn like the phantoms, whatever the distribution of errors. Real vertices are drawn
    differently: they cover as well as phantoms stand for them.
    """
    _check_raw("phantom_fields", phantom_fields)
    n_phantoms = len(phantoms)
    if len(phantom_fields) != n_phantoms:
        raise InputError(
            "phantom_fields and phantoms",
            expected="the same phantoms",
            got=f"{len(phantom_fields)} and {n_phantoms}",
        )
    quality = _as_quality("phantom_quality", quality, phantom_fields)
    return _learn(
        phantom_fields,
        phantoms,
        quality,
        check_count("n_neighbours", n_neighbours, least=5),
        least=_LEAST_PHANTOMS,
    )


def _learn(
    estimates: PRFResult, phantoms: Phantoms, quality: np.ndarray, n_neighbours: int, least: int = 2
) -> Calibration:
    half_width, half_height = (side / 2 for side in estimates.extent_deg)
    x, y, size = phantoms.x_deg, phantoms.y_deg, phantoms.size_deg
    used = (estimates.status == "ok") & (np.abs(x) <= half_width) & (np.abs(y) <= half_height)
    used &= np.isfinite([estimates.x_deg, estimates.y_deg, estimates.size_deg, quality]).all(0)
    if estimates.has_errors:
        errors = np.stack([getattr(estimates, f"{name}_error_deg") for name in _NAMES])
        used &= (np.isfinite(errors) & (errors > 0)).all(0)
    if used.sum() < least:
        raise InputError(
            "phantom_fields",
            expected=f"at least {least} phantoms with status 'ok' and their centre on the image",
            got=f"{used.sum()} of {len(used)}",
            fix="Make more phantoms, or look why their maps show no fields.",
        )
    whole = used & (np.abs(x) + size <= half_width) & (np.abs(y) + size <= half_height)
    whole = whole if whole.sum() >= least else used
    calibration = Calibration(
        x=robust_line("centres", x[whole], estimates.x_deg[whole]),
        y=robust_line("centres", y[whole], estimates.y_deg[whole]),
        size=robust_line("sizes", np.log(size[used]), np.log(estimates.size_deg[used])),
        error_scale=np.ones(3),
        has_reported_errors=estimates.has_errors,
        estimates=estimates,
        phantoms=phantoms,
        quality=quality,
        used=used,
        n_neighbours=n_neighbours,
    )
    found = calibration._undistorted(estimates[used])
    off = np.abs(found - [x[used], y[used], np.log(size[used])])
    expected = calibration._errors(estimates[used], found, quality[used], own=True)
    # Where neighbours make no error at all there is none to scale.
    ratio = np.divide(off, expected, out=np.zeros_like(off), where=expected > 0)
    n = ratio.shape[1]
    rank = min(math.ceil(LEVEL * (n + 1)), n) - 1
    scale = np.sort(ratio, axis=1)[:, rank] / NormalDist().inv_cdf((1 + LEVEL) / 2)
    return replace(calibration, error_scale=scale)


def _alike(centre_and_size: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Return what makes vertices alike, (3, n): size, eccentricity, quality."""
    x, y, log_size = centre_and_size
    return np.stack([log_size, np.hypot(x, y), quality])


def _check_raw(argument: str, fields: PRFResult) -> None:
    if fields.calibration is not None:
        raise InputError(
            argument,
            expected="fields of maps",
            got=f"fields calibrated with {fields.calibration}",
            fix="Calibrate the result of fit_prf once.",
        )


def _as_quality(argument: str, quality: ArrayLike | None, fields: PRFResult) -> np.ndarray:
    quality = np.asarray(fields.r2 if quality is None else quality, dtype=float)
    if quality.shape != (len(fields),):
        raise InputError(
            argument,
            expected=f"one number for each of {len(fields)} fields",
            got=f"shape {quality.shape}",
        )
    return quality
