"""What a fit of receptive fields returns, and its file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

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
    calibration : (float, float), optional
        Slope and intercept that turned map sizes into ``size_deg``; None for map sizes.
    """

    x_deg: np.ndarray
    y_deg: np.ndarray
    size_deg: np.ndarray
    amplitude: np.ndarray
    offset: np.ndarray
    r2: np.ndarray
    status: np.ndarray
    extent_deg: tuple[float, float]
    calibration: tuple[float, float] | None = None

    _columns: ClassVar[tuple[str, ...]] = (
        "x_deg",
        "y_deg",
        "size_deg",
        "amplitude",
        "offset",
        "r2",
        "status",
    )

    def __len__(self) -> int:
        return len(self.x_deg)

    def __getitem__(self, vertices) -> PRFResult:
        """Return the fits of some vertices (an index array, a boolean mask or a slice)."""
        return replace(self, **{name: getattr(self, name)[vertices] for name in self._columns})

    @property
    def eccentricity_deg(self) -> np.ndarray:
        """Distance of the centre from fixation."""
        return to_polar(self.x_deg, self.y_deg)[0]

    @property
    def angle_deg(self) -> np.ndarray:
        """Polar angle of the centre: 0 right, 90 up, counter-clockwise, 0-360."""
        return to_polar(self.x_deg, self.y_deg)[1]

    def calibrated(self, slope: float, intercept: float = 0.0) -> PRFResult:
        """Return a copy with ``size_deg = slope * map size + intercept``.

        Map sizes are biased (see :func:`fit_prf`). Slope and intercept come from maps of units
        whose receptive fields are known, made from the same images; negative results are NaN.

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
        return replace(self, size_deg=size, calibration=(float(slope), float(intercept)))

    def to_frame(self) -> pandas.DataFrame:
        """Return the table that ``prf.tsv`` is made of, one row per vertex."""
        import pandas as pd

        names = ["x_deg", "y_deg", "eccentricity_deg", "angle_deg", "size_deg", "r2", "status"]
        return pd.DataFrame({name: getattr(self, name) for name in names})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to an ``.npz`` file (plain arrays, nothing pickled)."""
        path = Path(path)
        calibration = (np.nan, np.nan) if self.calibration is None else self.calibration
        arrays = {name: getattr(self, name) for name in self._columns}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays, extent_deg=self.extent_deg, calibration=calibration)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PRFResult:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file holds something else.
        """
        with np.load(path) as file:
            missing = sorted({field.name for field in fields(cls)} - set(file.files))
            if missing:
                raise InputError(
                    str(path),
                    expected=f"a file written by {cls.__name__}.save",
                    got=f"one without {', '.join(missing)}",
                )
            arrays = {name: file[name] for name in cls._columns}
            extent, calibration = file["extent_deg"].tolist(), file["calibration"].tolist()
        known = not np.isnan(calibration[0])
        return cls(
            **arrays, extent_deg=tuple(extent), calibration=tuple(calibration) if known else None
        )


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
