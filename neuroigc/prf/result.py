"""What a fit of receptive fields returns, and its file."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc.prf.retinotopy import to_polar

if TYPE_CHECKING:
    import pandas

__all__ = ["STATUSES", "PRFResult"]

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

    def __len__(self) -> int:
        return len(self.x_deg)

    def __getitem__(self, vertices) -> PRFResult:
        """Return the fits of some vertices (an index array, a boolean mask or a slice)."""
        return replace(self, **{name: getattr(self, name)[vertices] for name in _COLUMNS})

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
        arrays = {name: getattr(self, name) for name in _COLUMNS}
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
                    expected="a file written by PRFResult.save",
                    got=f"one without {', '.join(missing)}",
                )
            arrays = {name: file[name] for name in _COLUMNS}
            extent, calibration = file["extent_deg"].tolist(), file["calibration"].tolist()
        known = not np.isnan(calibration[0])
        return cls(
            **arrays, extent_deg=tuple(extent), calibration=tuple(calibration) if known else None
        )


_COLUMNS = ("x_deg", "y_deg", "size_deg", "amplitude", "offset", "r2", "status")
