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
    """Return the errors to expect at each noise ceiling, as texts, a row for each range.

    Keys: subject, ceiling (r of single trials), n, centre, angle (degrees), size (per cent).
    """
    return [
        {
            "subject": subject,
            "ceiling": f"{format_number(row['low'])} to {format_number(row['high'])}",
            "n": row["n"],
            "centre": format_number(row["centre"]),
            "angle": format_number(row["angle"], 1),
            "size": format_number(row["size"], 0),
        }
        for subject, calibration in calibrations.items()
        for row in _by_ceiling(calibration)
    ]


def _by_ceiling(calibration):
    """Return medians of the phantoms' errors in ranges of their noise ceiling, in r."""
    from neuroigc.stats import correlation_ceiling, noise_ceiling

    truth = calibration.phantoms[calibration.used]
    errors = calibration.errors()
    relative = 100 * errors["size_error_deg"].to_numpy() / truth.size_deg
    ceiling = correlation_ceiling(noise_ceiling(truth.ncsnr))
    for members in np.array_split(np.argsort(ceiling, kind="stable"), 4):
        own = errors.iloc[members]
        yield {
            "low": float(ceiling[members].min()),
            "high": float(ceiling[members].max()),
            "n": len(members),
            "centre": float(own["centre_error_deg"].median()),
            "angle": float(own["angle_error_deg"].median()),
            "size": float(np.median(relative[members])),
        }


def error_sentence(calibrations: dict[str, Calibration]) -> str | None:
    """Say how far off the phantoms are where responses are noisy, and where they are not."""
    if not calibrations:
        return None
    # The first subject stands for all, as in the figures.
    rows = list(_by_ceiling(next(iter(calibrations.values()))))
    worst, best = rows[0], rows[-1]
    return (
        "Phantoms, whose receptive fields are known and which were trained beside the vertices, "
        f"show what to expect: centres are {format_number(worst['centre'])}° off and sizes "
        f"{format_number(worst['size'], 0)} % where the noise ceiling of single trials is below "
        f"r = {format_number(worst['high'])}, and {format_number(best['centre'])}° and "
        f"{format_number(best['size'], 0)} % where it is above r = {format_number(best['low'])} "
        "(medians)."
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
