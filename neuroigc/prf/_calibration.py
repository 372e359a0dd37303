"""What phantoms teach: lines to invert, and factors on errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_count
from neuroigc.prf._lines import (
    Line,
    Surface,
    count_as_neighbours,
    errors_of_neighbours,
    ranks,
    robust_line,
    robust_surface,
    weighted_quantile,
)
from neuroigc.prf._phantom_errors import binned_errors, errors_of
from neuroigc.prf.phantoms import Phantoms
from neuroigc.prf.result import ClassicalPRFResult, PRFResult

if TYPE_CHECKING:
    import pandas

__all__ = ["Calibration", "as_quality", "check_raw", "learn", "width_and_exponent"]

_LEVEL = 0.95
_LEAST_WHOLE = 15
# Of the phantoms' median error, what centres have to be moved by to be moved at all.
_LEAST_MOVED = 0.5
# Of the phantoms, those that stand for a vertex: a quantile takes more of them than an error.
_ALIKE_SHARE = 0.25
_NAMES = ("x", "y", "size")
_LEAST_EXPONENT = 0.1


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
        the phantoms. Narrower intervals, of a lower level, mostly cover more than they should:
        a few fits are far off.
    error_source : {"reported", "neighbours"}
        What the factors belong to: standard errors of the fits, or errors of the phantoms that are
        most alike.
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
    exponent : Line or None
        Of the exponent, where fields have one (:class:`ClassicalPRFResult`).
    surface : Surface or None
        There, the size from width and exponent together, in place of ``size``.
    """

    x: Line
    y: Line
    size: Line
    error_scale: np.ndarray
    error_source: str
    estimates: PRFResult
    phantoms: Phantoms
    quality: np.ndarray
    used: np.ndarray
    n_neighbours: int
    exponent: Line | None = None
    surface: Surface | None = None

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
            If the fields are calibrated already, are of pictures of another extent, lack the
            standard errors, exponents or quality that the phantoms had, or have exponents that
            the phantoms lacked.
        """
        check_raw("fields", fields)
        if self.exponent is None and isinstance(fields, ClassicalPRFResult):
            raise InputError(
                "fields",
                expected="sizes of maps alone, as the phantoms' are",
                got="sizes for which exponents are known",
                fix="Give the phantoms' fields exponents, too: PRFResult.with_exponent.",
            )
        if not np.allclose(fields.extent_deg, self.estimates.extent_deg):
            raise InputError(
                "fields and phantom_fields",
                expected="maps of the same extent",
                got=f"{fields.extent_deg} and {self.estimates.extent_deg} deg",
            )
        quality = as_quality("quality", quality, fields)
        centre_and_size = self._undistorted(fields)
        errors = self._errors(fields, centre_and_size, quality) * self.error_scale[:, None]
        x, y, log_size = centre_and_size
        size = np.exp(log_size)
        further = {}
        if self.exponent is not None:
            exponent = self.exponent.invert(width_and_exponent(fields)[1])
            further["exponent"] = np.maximum(exponent, _LEAST_EXPONENT)
        return replace(
            fields,
            **further,
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
        if self.exponent is not None:
            found["exponent_intercept"], found["exponent_slope"] = self.exponent
        return found

    def to_dict(self) -> dict[str, float | int | str]:
        """Return coefficients, errors of the phantoms and held-out coverage, for a report."""
        off = self.errors()
        held_out = self.coverage((_LEVEL,)).iloc[0]
        return {
            **self.coefficients,
            "n_phantoms": len(self.phantoms),
            "n_phantoms_used": int(self.used.sum()),
            "error_source": self.error_source,
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
        found = self._undistorted(self.estimates[self.used])
        return errors_of(found, self.phantoms[self.used])

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
        return binned_errors(self.errors(), self.phantoms[self.used], check_count("n_bins", n_bins))

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
            Columns ``level, x, y, size``: shares of the phantoms that were used; NaN where a
            part of them teaches nothing.
        """
        import pandas as pd

        estimates, truth = self.estimates[self.used], self.phantoms[self.used]
        quality = self.quality[self.used]
        fold = np.arange(len(truth)) % check_count("n_folds", n_folds, least=2)
        hits = np.full((len(levels), 3, len(truth)), np.nan)
        for test in (fold == number for number in np.unique(fold)):
            options = {"n_neighbours": self.n_neighbours, "source": self.error_source}
            try:
                learned = learn(estimates[~test], truth[~test], quality[~test], **options)
            except InputError:
                # What all phantoms just so teach, fewer may not: then coverage is unknown.
                continue
            found = learned.apply(estimates[test], quality=quality[test])
            for i, level in enumerate(levels):
                for j, (name, (low, high)) in enumerate(found.intervals(level).items()):
                    true = getattr(truth, name)[test]
                    hits[i, j, test] = (low <= true) & (true <= high)
        return pd.DataFrame(hits.mean(2), columns=list(_NAMES)).assign(level=levels)[
            ["level", *_NAMES]
        ]

    def for_vertices(self, fields: PRFResult, *, quality: ArrayLike | None = None) -> Calibration:
        """Return the same calibration with intervals for vertices like these.

        Phantoms count as often as they are among those most alike a vertex: intervals then cover
        95 % of such vertices, where phantoms cover a wider range (weighted conformal prediction;
        Tibshirani, Barber, Candes & Ramdas 2019).

        Parameters
        ----------
        fields, quality
            As for :meth:`apply`.
        """
        quality = as_quality("quality", quality, fields)
        kept = (fields.status == "ok") & np.isfinite(quality)
        if not kept.any():
            return self
        fields, quality = fields[kept], quality[kept]
        places, known = self._places(fields, self._undistorted(fields), quality)
        n_alike = max(self.n_neighbours, round(_ALIKE_SHARE * known.shape[1]))
        counts = count_as_neighbours(places, known, n_alike)
        return replace(self, error_scale=self.scale_of_errors(counts))

    def scale_of_errors(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return factors that make intervals cover the phantoms, (3,), weighted if so wanted."""
        estimates, truth = self.estimates[self.used], self.phantoms[self.used]
        found = self._undistorted(estimates)
        off = np.abs(found - [truth.x_deg, truth.y_deg, np.log(truth.size_deg)])
        expected = self._errors(estimates, found, self.quality[self.used], own=True)
        # Where neighbours make no error at all there is none to scale.
        ratio = np.divide(off, expected, out=np.zeros_like(off), where=expected > 0)
        weights = np.ones(ratio.shape[1]) if weights is None else weights
        quantile = weighted_quantile(ratio, _LEVEL, weights)
        return quantile / NormalDist().inv_cdf((1 + _LEVEL) / 2)

    def width(self) -> float:
        """Return the median standard error of the phantoms' centres."""
        estimates = self.estimates[self.used]
        found = self._undistorted(estimates)
        errors = self._errors(estimates, found, self.quality[self.used], own=True)
        return float(np.median(errors[:2] * self.error_scale[:2, None]))

    def _undistorted(self, fields: PRFResult) -> np.ndarray:
        """Return x, y and log size as they would be without distortion, (3, n)."""
        if self.surface is None:
            log_size = self.size.invert(np.log(fields.size_deg))
        else:
            log_size = self.surface.at(*width_and_exponent(fields))
        return np.stack([self.x.invert(fields.x_deg), self.y.invert(fields.y_deg), log_size])

    def _places(
        self, fields: PRFResult, centre_and_size: np.ndarray, quality: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where vertices and phantoms stand, as shares of the phantoms, (3 or 4, n) each.

        By what makes them alike: size, eccentricity, quality, and the exponent if there is one.
        """
        phantoms = self.estimates[self.used]
        both = [
            (fields, centre_and_size, quality),
            (phantoms, self._undistorted(phantoms), self.quality[self.used]),
        ]
        values = []
        for own, (x, y, log_size), own_quality in both:
            rows = [log_size, np.hypot(x, y), own_quality]
            rows += [own.exponent] if self.exponent is not None else []
            values.append(np.stack(rows))
        known = np.sort(values[1], axis=1)
        return ranks(values[0], known), ranks(values[1], known)

    def _errors(
        self,
        fields: PRFResult,
        centre_and_size: np.ndarray,
        quality: np.ndarray,
        *,
        own: bool = False,
    ) -> np.ndarray:
        """Return errors of x, y, log size before they are scaled, (3, n)."""
        if self.error_source == "reported":
            if not fields.has_errors:
                raise InputError(
                    "fields",
                    expected="standard errors, as the phantoms' fields have",
                    got="none",
                    fix="Give fit_prf standard_errors, or learn with errors='neighbours'.",
                )
            slopes = np.abs([self.x.slope, self.y.slope, self.size.slope])
            of_log = fields.size_error_deg / fields.size_deg
            errors = np.stack([fields.x_error_deg, fields.y_error_deg, of_log]) / slopes[:, None]
        else:
            truth = self.phantoms[self.used]
            reference = self._undistorted(self.estimates[self.used])
            off = np.abs(reference - [truth.x_deg, truth.y_deg, np.log(truth.size_deg)])
            places, known = self._places(fields, centre_and_size, quality)
            errors = errors_of_neighbours(places, known, off, self.n_neighbours, own=own)
            errors = np.where(np.isfinite(quality), errors, np.nan)
        return np.where(fields.status == "ok", errors, np.nan)


def learn(
    estimates: PRFResult,
    phantoms: Phantoms,
    quality: np.ndarray,
    *,
    n_neighbours: int,
    source: str,
    least: int = 2,
    least_slope: float = 0.0,
) -> Calibration:
    """Return what usable phantoms teach, at least so many, with lines that are steeper."""
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
    whole = whole if whole.sum() >= _LEAST_WHOLE else used
    of_x, of_y = errors[:2, whole] if estimates.has_errors else (None, None)
    lines = {
        "x": _line_of_centres(x[whole], estimates.x_deg[whole], of_x),
        "y": _line_of_centres(y[whole], estimates.y_deg[whole], of_y),
        "size": robust_line(np.log(size[used]), np.log(estimates.size_deg[used])),
    }
    exponent = surface = None
    if isinstance(estimates, ClassicalPRFResult):
        # Width and exponent are distorted each in its own way, which no line through what they
        # make together undoes.
        exponent = robust_line(phantoms.exponent[used], estimates.exponent[used])
        surface = robust_surface(*width_and_exponent(estimates[used]), np.log(size[used]))
    for name, line in lines.items():
        if not line.slope > least_slope:
            raise InputError(
                "phantom_fields",
                expected=f"estimates of {name} that follow the truth",
                got=f"a slope of {line.slope:.2g}",
                fix="Is their order that of phantoms, and can the encoder predict them?",
            )
    calibration = Calibration(
        **lines,
        error_scale=np.ones(3),
        error_source=source,
        estimates=estimates,
        phantoms=phantoms,
        quality=quality,
        used=used,
        n_neighbours=n_neighbours,
        exponent=exponent,
        surface=surface,
    )
    return replace(calibration, error_scale=calibration.scale_of_errors())


def _line_of_centres(truth: np.ndarray, estimate: np.ndarray, errors: np.ndarray | None) -> Line:
    """Return the line, or none to speak of where it would move centres by little.

    Phantoms are not quite like vertices: what is small beside their errors need not hold for
    these, and would only be added to their own.
    """
    line = robust_line(truth, estimate, errors)
    moved = np.abs(line.invert(estimate) - estimate)
    little = np.median(moved) < _LEAST_MOVED * np.median(np.abs(estimate - truth))
    return Line(0.0, 1.0) if little else line


def width_and_exponent(fields: PRFResult) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithm of the width of what pools, and the exponent."""
    if not isinstance(fields, ClassicalPRFResult):
        raise InputError(
            "fields",
            expected="fields with exponents, as the phantoms' have",
            got=type(fields).__name__,
            fix="See PRFResult.with_exponent.",
        )
    return np.log(fields.size_deg) + np.log(fields.exponent) / 2, fields.exponent


def check_raw(argument: str, fields: PRFResult) -> None:
    """Raise if fields are calibrated already."""
    if fields.calibration is not None:
        raise InputError(
            argument,
            expected="fields of maps",
            got=f"fields calibrated with {fields.calibration}",
            fix="Calibrate the result of fit_prf once.",
        )


def as_quality(argument: str, quality: ArrayLike | None, fields: PRFResult) -> np.ndarray:
    """Return one number per vertex, the fits' r2 for None."""
    quality = np.asarray(fields.r2 if quality is None else quality, dtype=float)
    if quality.shape != (len(fields),):
        raise InputError(
            argument,
            expected=f"one number for each of {len(fields)} fields",
            got=f"shape {quality.shape}",
        )
    return quality
