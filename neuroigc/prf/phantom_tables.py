"""Phantoms as a table: what they are, what was estimated, and back to what they teach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroigc._validation import InputError
from neuroigc.prf.calibration import Calibration, learn_calibration
from neuroigc.prf.gaussian import as_extent
from neuroigc.prf.phantoms import Phantoms
from neuroigc.prf.result import ClassicalPRFResult, PRFResult

if TYPE_CHECKING:
    import pandas

__all__ = ["phantom_table", "read_phantom_table"]

_TRUE = ("x_deg", "y_deg", "size_deg", "exponent")
_FITTED = ("x_deg", "y_deg", "size_deg", "amplitude", "offset", "r2", "status")
_ERRORS = ("x_error_deg", "y_error_deg", "size_error_deg")


def phantom_table(calibration: Calibration) -> pandas.DataFrame:
    """Return all that a calibration was learned from, one row per phantom.

    Returns
    -------
    DataFrame
        ``true_x_deg, true_y_deg, true_size_deg, true_exponent`` and ``ncsnr``; ``quality``, what
        tells good from bad maps; and the estimates before calibration, ``x_deg, y_deg, size_deg,
        amplitude, offset, r2, status``, where known with ``exponent`` and the standard errors
        ``x_error_deg, y_error_deg, size_error_deg``.
    """
    import pandas as pd

    truth, estimates = calibration.phantoms, calibration.estimates
    columns = {f"true_{name}": getattr(truth, name) for name in _TRUE}
    columns |= {"ncsnr": truth.ncsnr, "quality": calibration.quality}
    for name in (*_FITTED, "exponent", *_ERRORS):
        values = getattr(estimates, name, None)
        if values is not None:
            columns[name] = values
    return pd.DataFrame(columns)


def read_phantom_table(
    table: pandas.DataFrame, *, extent_deg: float | tuple[float, float]
) -> Calibration:
    """Learn once more from a table of :func:`phantom_table`, with default options.

    Parameters
    ----------
    table : DataFrame
        With the columns of :func:`phantom_table`.
    extent_deg : float or (float, float)
        Width and height of the images.

    Returns
    -------
    Calibration
        The phantoms' responses are not in the table, and empty.

    Raises
    ------
    InputError
        If a column is missing, or as :func:`learn_calibration`.
    """
    needed = [*(f"true_{name}" for name in _TRUE), "ncsnr", "quality", *_FITTED]
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(
            "table", expected=f"columns {', '.join(needed)}", got=f"no {', '.join(missing)}"
        )
    truth = {name: table[f"true_{name}"].to_numpy(float) for name in _TRUE}
    phantoms = Phantoms(
        responses=np.empty((0, len(table)), np.float32),
        ncsnr=table["ncsnr"].to_numpy(float),
        **truth,
    )
    known = [*_FITTED, *(name for name in ("exponent", *_ERRORS) if name in table)]
    columns = {name: table[name].to_numpy() for name in known}
    kind = ClassicalPRFResult if "exponent" in table else PRFResult
    estimates = kind(**columns, extent_deg=as_extent(extent_deg))
    return learn_calibration(estimates, phantoms, quality=table["quality"].to_numpy(float))
