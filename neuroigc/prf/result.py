"""What a fit of receptive fields returns, and its file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from neuroigc._array_files import read_npz
from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc.prf.retinotopy import to_polar

if TYPE_CHECKING:
    import pandas

__all__ = ["STATUSES", "ClassicalPRFResult", "PRFResult"]

STATUSES = ("ok", "at_bound", "not_converged", "flat", "not_finite")


@dataclass(frozen=True, eq=False)
class PRFResult:
    """Receptive fields of n_vertices vertices, in degrees of visual angle.

    Parameters
    ----------
    x_deg, y_deg : (n_vertices,) array
        Centre; x to the right, y upwards, the fixation point at 0, 0.
    size_deg : (n_vertices,) array
        Standard deviation of the Gaussian: of the map, unless ``calibration`` is set.
    amplitude, offset : (n_vertices,) array
        In the unit of the maps.
    r2 : (n_vertices,) array
        Share of the map's variance over pixels that the Gaussian explains, 0-1.
    status : (n_vertices,) array of str
        One of "ok", "at_bound", "not_converged", "flat", "not_finite"; the last two have NaN in
        every other array.
    extent_deg : (float, float)
        Width and height of the pictures that were fitted.
    calibration : dict of str to float, optional
        Coefficients that turned fields of maps into these: ``slope`` and ``intercept`` of
        :meth:`calibrated`, or those of a :class:`Calibration`; None for fields of maps.
    x_error_deg, y_error_deg, size_error_deg : (n_vertices,) array, optional
        Standard errors, NaN where they are not known; None if they are known nowhere.
    """

    x_deg: np.ndarray
    y_deg: np.ndarray
    size_deg: np.ndarray
    amplitude: np.ndarray
    offset: np.ndarray
    r2: np.ndarray
    status: np.ndarray
    extent_deg: tuple[float, float]
    calibration: dict[str, float] | None = None
    x_error_deg: np.ndarray | None = None
    y_error_deg: np.ndarray | None = None
    size_error_deg: np.ndarray | None = None

    _columns: ClassVar[tuple[str, ...]] = (
        "x_deg",
        "y_deg",
        "size_deg",
        "amplitude",
        "offset",
        "r2",
        "status",
    )
    _errors: ClassVar[tuple[str, ...]] = ("x_error_deg", "y_error_deg", "size_error_deg")

    def __len__(self) -> int:
        return len(self.x_deg)

    def __getitem__(self, vertices) -> PRFResult:
        """Return the fits of some vertices (an index array, a boolean mask or a slice)."""
        return replace(self, **{n: values[vertices] for n, values in self._arrays().items()})

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return everything that has one entry per vertex, errors where they are known."""
        arrays = {name: getattr(self, name) for name in (*self._columns, *self._errors)}
        return {name: values for name, values in arrays.items() if values is not None}

    @property
    def eccentricity_deg(self) -> np.ndarray:
        """Distance of the centre from fixation."""
        return to_polar(self.x_deg, self.y_deg)[0]

    @property
    def angle_deg(self) -> np.ndarray:
        """Polar angle of the centre: 0 right, 90 up, counter-clockwise, 0-360."""
        return to_polar(self.x_deg, self.y_deg)[1]

    def intervals(self, level: float = 0.95) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return confidence intervals of centre and size from the standard errors.

        Normal intervals; that of the size is symmetric on the logarithmic scale, so that it never
        reaches zero.

        Parameters
        ----------
        level : float
            Share of intervals that should contain the truth, between 0 and 1.

        Returns
        -------
        dict of str to (low, high)
            For ``x_deg``, ``y_deg`` and ``size_deg``, two (n_vertices,) arrays each, in degrees;
            NaN where estimate or error is.

        Raises
        ------
        InputError
            If no standard errors are known, or the level is no share.
        """
        if not 0 < level < 1:
            raise InputError("level", expected="a number between 0 and 1", got=repr(level))
        if not self.has_errors:
            raise InputError(
                "fields",
                expected="standard errors of centre and size",
                got="none",
                fix="Give fit_prf the standard_errors of the maps, or calibrate with phantoms.",
            )
        # Python's own normal distribution: scipy.stats is slow to import.
        z = NormalDist().inv_cdf((1 + level) / 2)
        found = {}
        for name in ("x_deg", "y_deg"):
            value, error = getattr(self, name), getattr(self, name.replace("_deg", "_error_deg"))
            found[name] = value - z * error, value + z * error
        # Of a size that is not determined at all, the interval is everything.
        with np.errstate(over="ignore"):
            factor = np.exp(z * self.size_error_deg / self.size_deg)
        found["size_deg"] = self.size_deg / factor, self.size_deg * factor
        return found

    @property
    def has_errors(self) -> bool:
        """Whether standard errors of centre and size are known."""
        return all(getattr(self, name) is not None for name in self._errors)

    def with_exponent(self, exponent: np.ndarray) -> ClassicalPRFResult:
        """Return a copy whose sizes are those of fields that compress what they pool.

        A map is as wide as the Gaussian that pools, whatever its sum is raised to; the response
        to a small spot is wider by ``1 / sqrt(exponent)``, which is the size that models of
        compressive spatial summation report (Kay et al. 2013).

        Parameters
        ----------
        exponent : (n_vertices,) array
            For example those of :meth:`neuroigc.models.FieldEncoder.receptive_fields`.

        Raises
        ------
        InputError
            If there is not one number above 0 for each vertex.
        """
        exponent = np.asarray(exponent, dtype=float)
        if exponent.shape != (len(self),) or not (exponent > 0).all():
            raise InputError(
                "exponent",
                expected=f"a number above 0 for each of {len(self)} vertices",
                got=f"shape {exponent.shape}"
                + (f", from {exponent.min()}" if exponent.size else ""),
            )
        arrays = {f.name: getattr(self, f.name) for f in fields(PRFResult)}
        root = np.sqrt(exponent)
        arrays["size_deg"] = self.size_deg / root
        if self.size_error_deg is not None:
            arrays["size_error_deg"] = self.size_error_deg / root
        return ClassicalPRFResult(**arrays, exponent=exponent)

    def calibrated(self, slope: float, intercept: float = 0.0) -> PRFResult:
        """Return a copy with ``size_deg = slope * map size + intercept``.

        Map sizes are biased (see :func:`fit_prf`). Slope and intercept come from maps of units
        whose receptive fields are known, made from the same images; negative results are NaN.
        Errors of the size grow with the slope; :func:`calibrate_prfs` calibrates them, too.

        Raises
        ------
        InputError
            If the slope is not positive, or the sizes are calibrated already.
        """
        if not (np.isfinite(slope) and slope > 0 and np.isfinite(intercept)):
            raise InputError(
                "slope and intercept",
                expected="a positive slope and a finite intercept",
                got=f"{slope!r} and {intercept!r}",
            )
        if self.calibration is not None:
            raise InputError(
                "sizes",
                expected="sizes of maps",
                got=f"sizes calibrated with {self.calibration}",
                fix="Calibrate the result of fit_prf once.",
            )
        size = slope * self.size_deg + intercept
        size = np.where(size > 0, size, np.nan)
        error = None
        if self.size_error_deg is not None:
            error = np.where(np.isnan(size), np.nan, slope * self.size_error_deg)
        calibration = {"slope": float(slope), "intercept": float(intercept)}
        return replace(self, size_deg=size, size_error_deg=error, calibration=calibration)

    def to_frame(self) -> pandas.DataFrame:
        """Return the table that ``prf.tsv`` is made of, one row per vertex.

        With standard errors it ends with the 95 % intervals, ``x_low, x_high, y_low, y_high,
        size_low, size_high``, in degrees.
        """
        import pandas as pd

        names = ["x_deg", "y_deg", "eccentricity_deg", "angle_deg", "size_deg", "r2", "status"]
        columns = {name: getattr(self, name) for name in names}
        if self.has_errors:
            for name, (low, high) in self.intervals().items():
                short = name.removesuffix("_deg")
                columns |= {f"{short}_low": low, f"{short}_high": high}
        return pd.DataFrame(columns)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to an ``.npz`` file (plain arrays, nothing pickled)."""
        path = Path(path)
        arrays = self._arrays() | {"extent_deg": self.extent_deg}
        # Without a calibration there are two NaN and no names.
        known = self.calibration or {}
        arrays["calibration"] = np.array([*known.values()] or (np.nan, np.nan), dtype=float)
        arrays["calibration_names"] = np.array([*known], dtype=str)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PRFResult:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file holds something else.
        """
        file = read_npz(path)
        expected = {field.name for field in fields(cls)} - set(cls._errors)
        missing = sorted(expected - file.keys())
        if missing:
            raise InputError(
                str(path),
                expected=f"a file written by {cls.__name__}.save",
                got=f"one without {', '.join(missing)}",
            )
        arrays = {n: file[n] for n in (*cls._columns, *cls._errors) if n in file}
        extent, coefficients = file["extent_deg"].tolist(), file["calibration"].tolist()
        # Files from before calibrations had names hold slope and intercept.
        names = ["slope", "intercept"]
        if "calibration_names" in file and len(file["calibration_names"]):
            names = file["calibration_names"].tolist()
        known = not np.isnan(coefficients[0])
        calibration = dict(zip(names, coefficients, strict=True)) if known else None
        return cls(**arrays, extent_deg=tuple(extent), calibration=calibration)


@dataclass(frozen=True, eq=False)
class ClassicalPRFResult(PRFResult):
    """Receptive fields fitted to responses themselves, ``offset + gain * (sum S G)^exponent``.

    Parameters
    ----------
    size_deg : (n_vertices,) array
        ``sigma / sqrt(exponent)`` with sigma the standard deviation of the Gaussian G: the
        standard deviation of the response to a small spot (Kay et al. 2013).
    amplitude : (n_vertices,) array
        The gain, for a Gaussian that sums to one over the plane; in the unit of the responses,
        as the offset, which is zero where none was fitted.
    r2 : (n_vertices,) array
        Share of what is explained of the responses' variance (of their sum of squares where no
        offset was fitted), after drift and with the weights of the fit, 0-1.
    exponent : (n_vertices,) array
        Of the compressive nonlinearity.

    Notes
    -----
    The other parameters are those of :class:`PRFResult`.
    """

    exponent: np.ndarray = field(kw_only=True)

    _columns: ClassVar[tuple[str, ...]] = (*PRFResult._columns, "exponent")

    def to_frame(self) -> pandas.DataFrame:
        """Return the table of :meth:`PRFResult.to_frame` with the exponent as a last column."""
        return super().to_frame().assign(exponent=self.exponent)
