"""What phantoms say about a study's receptive fields: a figure, a table and a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroigc.reporting.figures import Figure
from neuroigc.reporting.numbers import format_number, is_known, join_words
from neuroigc.reporting.study import Study

if TYPE_CHECKING:
    from neuroigc.prf import Calibration

__all__ = ["draw_calibration", "error_rows", "error_sentence", "load_calibrations"]


def load_calibrations(study: Study) -> dict[str, Calibration]:
    """Return what the phantoms of each subject teach; nothing where there were none."""
    from neuroigc.prf import read_phantom_table

    table = study.tables.get("phantoms.tsv")
    extent = study.settings.get("data", {}).get("extent_deg")
    if table is None or not is_known(extent):
        return {}
    return {
        str(subject): read_phantom_table(own, extent_deg=extent)
        for subject, own in table.groupby("subject", sort=False)
    }


def error_rows(calibrations: dict[str, Calibration]) -> list[dict]:
    """Return the errors to expect, as texts, a row for each range of noise and of eccentricity.

    Keys: part (which range), subject, n, centre, angle, size (medians, in degrees).
    """
    rows = []
    for subject, calibration in calibrations.items():
        for row in calibration.expected_errors().to_dict("records"):
            ends = _ends(row)
            part = f"noise ceiling r {ends[0]} to {ends[1]}"
            if row["by"] != "ncsnr":
                part = f"eccentricity {ends[0]}° to {ends[1]}°"
            rows.append(
                {
                    "part": part,
                    "subject": subject,
                    "n": row["n_phantoms"],
                    "centre": format_number(row["median_centre_error_deg"]),
                    "angle": format_number(row["median_angle_error_deg"], 1),
                    "size": format_number(row["median_size_error_deg"]),
                }
            )
    return rows


def _ends(row):
    """Return the ends of a range as texts: noise ceilings as correlations of single trials."""
    from neuroigc.stats import correlation_ceiling, noise_ceiling

    ends = np.array([row["low"], row["high"]])
    if row["by"] == "ncsnr":
        ends = correlation_ceiling(noise_ceiling(ends))
    return [format_number(float(end)) for end in ends]


def error_sentence(calibrations: dict[str, Calibration]) -> str | None:
    """Say how far off the phantoms are where responses are noisy, and where they are not."""
    if not calibrations:
        return None
    # The first subject stands for all, as in the figures.
    rows = next(iter(calibrations.values())).expected_errors().to_dict("records")
    by_noise = [row for row in rows if row["by"] == "ncsnr"]
    worst, best = by_noise[0], by_noise[-1]
    centres, sizes = (
        [format_number(row[f"median_{what}_error_deg"]) for row in (worst, best)]
        for what in ("centre", "size")
    )
    return (
        "Phantoms, whose receptive fields are known and which were trained beside the vertices, "
        f"show what to expect: centres are {centres[0]}° off and sizes {sizes[0]}° where the noise "
        f"ceiling of single trials is below r = {_ends(worst)[1]}, and {centres[1]}° and "
        f"{sizes[1]}° where it is above r = {_ends(best)[0]} (medians)."
    )


def draw_calibration(folder, subject: str, calibration: Calibration) -> Figure:
    """Draw what is inverted, what comes out, errors against noise, and coverage."""
    from neuroigc.prf import plot_calibration

    told = calibration.to_dict()
    shares = [format_number(100 * told[f"coverage_{name}"], 0) for name in ("x", "y", "size")]
    held = f"those of 95 % contain x, y and size of {join_words(shares)} %."
    inverted = (
        "Top left: width of the maps against true size, in colours of the exponent; size is read "
        "off both, along the curves."
        if calibration.surface is not None
        else "Top left: size of the maps against true size; the line is inverted."
    )
    return Figure(
        folder.draw(
            folder.file(f"sub-{subject}", "calibration", suffix=".svg"),
            plot_calibration, calibration,
        ),
        f"Calibration with phantoms, subject {subject}",
        f"{told['n_phantoms_used']} of {told['n_phantoms']} phantoms: vertices with known "
        "receptive fields and the noise of real ones, computed from the same images, trained, "
        f"mapped and fitted beside them. {inverted} Top right: sizes after calibration. Bottom "
        "left: distance of estimated from true centres against the signal-to-noise ratio of single "
        "trials. Bottom right: how often intervals contain the truth of phantoms that they were "
        f"not learned from; {held}",
        "Four scatter and line plots of phantoms: width against true size, calibrated against "
        "true size, error against noise ceiling, and coverage of intervals.",
        "wide",
    )  # fmt: skip
