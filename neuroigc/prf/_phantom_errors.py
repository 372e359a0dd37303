"""How far off estimates of phantoms are, in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroigc.prf.phantoms import Phantoms
from neuroigc.prf.retinotopy import circular_difference

if TYPE_CHECKING:
    import pandas

__all__ = ["binned_errors", "errors_of"]

# Nearer to fixation a small shift of the centre turns the angle by any amount.
_LEAST_ECCENTRICITY_DEG = 0.5


def errors_of(found: np.ndarray, truth: Phantoms) -> pandas.DataFrame:
    """Return absolute errors of x, y and log size, (3, n), of phantoms: one row for each."""
    import pandas as pd

    x, y, log_size = found
    angle, true_angle = (
        np.degrees(np.arctan2(*values)) for values in ((y, x), (truth.y_deg, truth.x_deg))
    )
    far = np.hypot(truth.x_deg, truth.y_deg) > _LEAST_ECCENTRICITY_DEG
    turned = np.abs(circular_difference(angle, true_angle))
    return pd.DataFrame(
        {
            "centre_error_deg": np.hypot(x - truth.x_deg, y - truth.y_deg),
            "angle_error_deg": np.where(far, turned, np.nan),
            "size_error_deg": np.abs(np.exp(log_size) - truth.size_deg),
        }
    )


def binned_errors(errors: pandas.DataFrame, truth: Phantoms, n_bins: int) -> pandas.DataFrame:
    """Return medians of errors in bins of noise ceiling and of eccentricity, one row per bin."""
    import pandas as pd

    eccentricity = np.hypot(truth.x_deg, truth.y_deg)
    rows = []
    for by, values in (("ncsnr", truth.ncsnr), ("eccentricity_deg", eccentricity)):
        for members in np.array_split(np.argsort(values, kind="stable"), n_bins):
            if not len(members):
                continue
            row = {"by": by, "low": values[members[0]], "high": values[members[-1]]}
            row["n_phantoms"] = len(members)
            rows.append(row | errors.iloc[members].median().add_prefix("median_").to_dict())
    return pd.DataFrame(rows)
