"""The few numbers of ``summary.json`` that a reader looks for first, and what they mean."""

from __future__ import annotations

from neuroigc.reporting.numbers import feature_name, format_number, format_small, is_known
from neuroigc.reporting.study import Study

__all__ = ["feature_table", "measure_rows"]

_FEATURES = (
    (
        "r",
        "r",
        "correlation of decoded and true values on held-out images, mean over subjects",
        format_number,
    ),
    (
        "ridge_r",
        "Ridge r",
        "of ridge regression, fitted to each subject alone",
        format_number,
    ),
    (
        "completeness_gap",
        "Completeness gap",
        "sum of all IGC values minus r, the largest of any subject; 0 is exact",
        format_small,
    ),
    (
        "numerical_error",
        "Numerical error",
        "relative error of the map from finitely many gradients, the largest of any subject",
        format_small,
    ),
    (
        "n_gradients",
        "Gradients",
        "work done per sample; more of it would lower the numerical error only",
        lambda value: format_number(value, 0 if is_known(value) and value == int(value) else 1),
    ),
)
_MEASURES = (
    # part of summary.json, key, name, decimals, meaning
    ("encoding", "median_r", "Encoder, median r", 2,
     "correlation of predicted and measured responses to held-out images, in the areas mapped"),
    ("encoding", "median_ridge_r", "Ridge regression, median r", 2,
     "of a linear model of the images' local contrast, at the same vertices"),
    ("encoding", "median_noise_ceiling_r", "Noise ceiling, median r", 2,
     "highest correlation that the noise in the responses allows"),
    ("encoding", "numerical_error", "Numerical error", 3,
     "relative error of the median vertex's map from finitely many gradients"),
    ("encoding", "completeness_gap", "Completeness gap", 3,
     "distance of the map's sum from r, in the median vertex"),
    ("prf", "n_vertices", "Receptive fields", 0,
     "vertices with a good fit, whose encoder reaches half its noise ceiling; those below"),
    ("prf", "median_centre_error_deg", "Centre error, median (°)", 2,
     "distance of the estimated centre from the {} one"),
    ("prf", "median_angle_error_deg", "Polar angle error, median (°)", 1,
     "of vertices whose {} field lies more than 0.5° from the centre of gaze"),
    ("prf", "r_eccentricity", "Eccentricity, r", 3, "correlation with the {} eccentricity"),
    ("prf", "slope_eccentricity", "Eccentricity, slope", 2,
     "of the line of estimated against {} eccentricity; 1 where they agree"),
    ("prf", "r_angle", "Polar angle, circular r", 3,
     "correlation with the {} angle, of the kind made for directions"),
    ("prf", "r_size", "Size, r", 3, "correlation with the {} size"),
    ("prf", "slope_size", "Size, slope", 2, "of the line of estimated against {} size"),
    ("prf", "size_ratio", "Size ratio", 2,
     "estimated over {} size, median; 1 where they agree"),
    ("prf", "coverage_x", "Intervals that hold, x", 2,
     "share of 95 % intervals that contain the {} x"),
    ("prf", "coverage_y", "Intervals that hold, y", 2, "the same for y"),
    ("prf", "coverage_size", "Intervals that hold, size", 2, "the same for size"),
)  # fmt: skip


def feature_table(study: Study) -> tuple[list[dict], list[dict]]:
    """Return columns (name, meaning) and rows (name, texts), one for each decoded feature.

    What no feature has a number for is left out.
    """
    decoded = study.summary.get("decoding", {})
    known = [
        one for one in _FEATURES if any(is_known(part.get(one[0])) for part in decoded.values())
    ]
    columns = [{"name": name, "meaning": meaning} for _, name, meaning, _ in known]
    rows = [
        {"name": feature_name(name), "texts": [write(part.get(key)) for key, _, _, write in known]}
        for name, part in decoded.items()
    ]
    return columns, rows


def measure_rows(study: Study) -> list[dict]:
    """Return what is known of encoders and receptive fields: name, text and meaning."""
    against = "true" if study.simulated else "reference"
    return [
        {
            "name": name,
            "text": format_number(study.summary[part][key], digits),
            "meaning": meaning.format(against),
        }
        for part, key, name, digits, meaning in _MEASURES
        if is_known(study.summary.get(part, {}).get(key))
    ]
