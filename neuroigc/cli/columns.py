"""What the columns of a study's tables are: their sidecars, as BIDS wants them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neuroigc.cli.study_data import write_table
from neuroigc.surface.bids import write_json

__all__ = ["COLUMNS", "write_described_table"]

_DEG = "degrees of visual angle"
_INTERVAL = "end of the 95 % interval"

# Of all tables: description and, where there are any, units.
COLUMNS: dict[str, tuple[str, str]] = {
    "subject": ("Label of the subject, as in sub-<label>", ""),
    "hemisphere": ("left, right, or both, summed", ""),
    "atlas": ("Atlas that the area is from", ""),
    "roi": ("Name of the area; elsewhere: the vertices in none", ""),
    "output": ("Image feature that the network decodes", ""),
    "igc": ("Integrated gradient correlation, summed over the area", "correlation"),
    "standard_error": ("Of igc, for other images of the same kind", "correlation"),
    "n_vertices": ("Vertices of the area that were measured", ""),
    "low": (f"Lower {_INTERVAL}; in sanity.tsv of what chance alone gives", ""),
    "high": (f"Upper {_INTERVAL}; in sanity.tsv of what chance alone gives", ""),
    "p": ("Two-sided p-value of this area alone", ""),
    "p_fwe": ("p-value, family-wise over all areas", ""),
    "p_fdr": ("p-value, adjusted for the false discovery rate over all areas", ""),
    "mean": ("Mean over subjects", "correlation"),
    "sd": ("Standard deviation between subjects (n - 1)", "correlation"),
    "n_subjects": ("Subjects with a value", ""),
    "t": ("Mean over its standard error between subjects", ""),
    "n_significant": ("Subjects in whom p is 0.05 or less", ""),
    "p_replication": ("Binomial p-value of so many of them by chance", ""),
    "prevalence_low": ("Least share of the population, with 95 % confidence", ""),
    "r": ("Correlation of decoded and true values, held-out images", ""),
    "r2": ("In decoding.tsv the variance explained, held-out images; else that of a map by its fit",
           ""),
    "n_test": ("Held-out images", ""),
    "completeness_gap": ("Sum of the attributions less the correlation", "correlation"),
    "numerical_error": ("Relative error of the map from finitely many gradients", ""),
    "n_gradients": ("Gradients per image", ""),
    "ridge_r": ("As r, of ridge regression", ""),
    "ridge_r2": ("As r2, of ridge regression", ""),
    "check": ("Sanity check", ""),
    "value": ("What the check found", ""),
    "limit": ("Beyond which the light changes", ""),
    "light": ("green, amber or red", ""),
    "meaning": ("What the light says", ""),
    "vertex": ("Index into the surface, from 0", ""),
    "x_deg": ("Centre of the receptive field, to the right", _DEG),
    "y_deg": ("Centre of the receptive field, upwards", _DEG),
    "eccentricity_deg": ("Distance of the centre from the centre of gaze", _DEG),
    "angle_deg": ("Direction of the centre: 0 right, 90 up, counter-clockwise", "degrees"),
    "size_deg": ("Standard deviation of the receptive field", _DEG),
    "amplitude": ("Height of the Gaussian", ""),
    "offset": ("Level that the Gaussian stands on", ""),
    "status": ("How the fit ended; ok: well", ""),
    "x_low": (f"Lower {_INTERVAL} of x_deg", _DEG),
    "x_high": (f"Upper {_INTERVAL} of x_deg", _DEG),
    "y_low": (f"Lower {_INTERVAL} of y_deg", _DEG),
    "y_high": (f"Upper {_INTERVAL} of y_deg", _DEG),
    "size_low": (f"Lower {_INTERVAL} of size_deg", _DEG),
    "size_high": (f"Upper {_INTERVAL} of size_deg", _DEG),
    "exponent": ("Of the compressive spatial summation", ""),
    "encoder_r": ("Correlation of predicted and measured responses, held-out images", ""),
    "noise_ceiling_r": ("Highest correlation that the noise allows", ""),
    "normalised_r": ("encoder_r over noise_ceiling_r", ""),
    "true_x_deg": ("x_deg as simulated", _DEG),
    "true_y_deg": ("y_deg as simulated", _DEG),
    "true_size_deg": ("size_deg as simulated", _DEG),
    "true_exponent": ("exponent as simulated", ""),
    "reference_x_deg": ("x_deg of the reference maps", _DEG),
    "reference_y_deg": ("y_deg of the reference maps", _DEG),
    "reference_size_deg": ("size_deg of the reference maps", _DEG),
    "x_error_deg": ("x_deg less true_x_deg, after calibration", _DEG),
    "y_error_deg": ("y_deg less true_y_deg, after calibration", _DEG),
    "size_error_deg": ("size_deg less true_size_deg, after calibration", _DEG),
    "phantom": ("Number of the phantom, from 0", ""),
    "ncsnr": ("Signal-to-noise ratio of single trials, in standard deviations", ""),
    "quality": ("Signal-to-noise ratio as it was measured", ""),
}  # fmt: skip
COLUMNS |= {
    f"{name}_{end}": (f"{side} {_INTERVAL} of {name}", "")
    for name in ("r", "r2", "ridge_r", "ridge_r2")
    for end, side in (("low", "Lower"), ("high", "Upper"))
}


def write_described_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table and, beside it, the JSON file that says what its columns are."""
    write_table(path, table)
    told = {}
    for name in table.columns.intersection(list(COLUMNS), sort=False):
        description, units = COLUMNS[name]
        told[name] = {"Description": description} | ({"Units": units} if units else {})
    write_json(path.with_suffix(".json"), told)
