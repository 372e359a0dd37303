"""Which figures a study gets, drawn from its files, and what their captions say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuroigc._validation import InputError
from neuroigc.reporting import plots
from neuroigc.reporting.numbers import RoiTable, feature_name, format_number, join_words
from neuroigc.reporting.study import Study, compact

__all__ = ["Drawn", "Figure", "draw_decoding", "draw_encoding"]

_N_EXAMPLES = 12


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes
    ----------
    path : Path
        The saved file, ``.png`` or ``.svg``.
    title : str
        What it shows, in a few words.
    caption : str
        What is shown, in which units, and how to read it.
    alt : str
        The same for those who do not see it.
    width : {"narrow", "text", "wide"}
        Room that it needs to be legible.
    """

    path: Path
    title: str
    caption: str
    alt: str
    width: str = "text"


@dataclass
class Drawn:
    """Figures of one section: shared ones, those by subject, and what is missing and why."""

    shared: list[Figure] = field(default_factory=list)
    by_subject: dict[str, list[Figure]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def draw_decoding(study: Study, tables: list[RoiTable]) -> Drawn:
    """Draw the IGC maps of every subject, the first in full, and the bars of the regions."""
    folder, drawn = plots.FigureFolder(study.folder), Drawn()
    features = list(study.summary.get("decoding", {})) or [table.output for table in tables]
    maps = _load_maps(study, features, "igc")
    limits = {feature: _limit(maps, feature) for feature in features}
    subjects = list(dict.fromkeys(subject for subject, _ in maps))
    for subject in subjects:
        own = {feature: maps[subject, feature] for feature in features if (subject, feature) in maps}
        atlas = _load_labels(study, subject)
        draw = _overviews if subject == subjects[0] else _strip
        drawn.by_subject[subject] = draw(folder, subject, own, atlas, limits)
    if not maps:
        drawn.notes.append("Maps are left out: the study folder holds no surface maps of IGC.")
    if tables:
        drawn.shared.append(_bars(study, folder, features))
    else:
        drawn.notes.append("Regions are left out: there is no roi.tsv.")
    return drawn


def draw_encoding(study: Study) -> Drawn:
    """Draw encoder accuracy, example maps, retinotopy and the comparison with the truth."""
    table = study.tables["prf.tsv"]
    folder, drawn = plots.FigureFolder(study.folder), Drawn()
    areas = study.areas
    inside = table[table["roi"].isin(areas)]
    fitted = inside[inside["status"] == "ok"]
    if {"encoder_r", "noise_ceiling_r"} <= set(inside):
        drawn.shared.append(_ceiling(folder, inside, areas))
    else:
        drawn.notes.append("No noise ceilings are known for this study, so none are shown.")
    subjects = list(dict.fromkeys(table["subject"]))
    for subject in subjects:
        own = [
            *_gallery(study, folder, table, subject, drawn.notes),
            *_retinotopy(study, folder, subject, drawn.notes),
        ]
        if subject == subjects[0]:
            drawn.shared += own
        else:
            drawn.by_subject[subject] = own
    drawn.shared.append(_size_eccentricity(folder, fitted, areas))
    if {"true_x_deg", "true_y_deg", "true_size_deg"} <= set(fitted):
        drawn.shared.append(_truth(folder, fitted, areas, "true" if study.simulated else "reference"))
    else:
        drawn.notes.append("Neither truth nor reference maps are known to compare with.")
    return drawn


def _load_maps(study, descriptions, stat):
    """Return the surface maps that exist, by subject and description."""
    from neuroigc.surface import SurfaceMap

    found = {}
    for subject in study.subjects:
        for description in descriptions:
            paths = study.maps.get((compact(subject), compact(description), stat))
            if paths:
                found[subject, description] = SurfaceMap.load(paths)
    return found


def _load_labels(study, subject):
    from neuroigc.surface import combine, load_atlas

    paths = study.labels.get(compact(subject))
    if not paths:
        return None
    atlases = [load_atlas(pair) for pair in paths]
    return atlases[0] if len(atlases) == 1 else combine(atlases)


def _limit(maps, feature):
    """Return the end of the colour scale that all subjects share."""
    own = [surface_map for (_, name), surface_map in maps.items() if name == feature]
    values = np.concatenate([part for one in own for part in one.data.values()] or [np.zeros(0)])
    values = np.abs(values[np.isfinite(values)])
    return float(np.percentile(values, 99)) or 1.0 if values.size else 1.0


_READ_MAP = (
    "Red: the vertex adds to the correlation; blue: it takes away from it; white is zero; grey: "
    "not measured, dark in the folds. Unit: correlation per vertex; all values of the map sum "
    "to r. "
)


def _overviews(folder, subject, own, atlas, limits):
    from neuroigc.surface.plotting import plot_surface_overview

    figures = []
    for feature, surface_map in own.items():
        path = folder.draw(
            folder.file(f"sub-{subject}", feature, "igc", suffix=".png"),
            plot_surface_overview,
            surface_map,
            outlines=atlas,
            vmax=limits[feature],
            label="IGC per vertex",
        )
        name = feature_name(feature)
        lines = "" if atlas is None else " Lines: borders of the regions, named on the flat maps."
        figures.append(
            Figure(
                path,
                f"Where {name} is read from, subject {subject}",
                "IGC on the inflated cortex (from inside, behind and below) and on the flattened "
                f"occipital cortex. {_READ_MAP}The scale ends at the 99th percentile and is the "
                f"same for all subjects.{lines}",
                f"Eight views of the cortex of subject {subject}, coloured by IGC of {name}; the "
                "table of regions below gives the sums.",
                "wide",
            )
        )
    return figures


def _strip(folder, subject, own, atlas, limits):
    path = folder.draw(
        folder.file(f"sub-{subject}", "igc", suffix=".png"), _plot_strip, own, atlas, limits
    )
    names = join_words([feature_name(feature) for feature in own])
    return [
        Figure(
            path,
            f"IGC of {names}, subject {subject}",
            "Flattened occipital cortex, seen from outside, left and right hemisphere. "
            f"{_READ_MAP}Scales are those of the first subject's figures.",
            f"Flat maps of IGC of {names} in subject {subject}.",
            "wide",
        )
    ]


def _plot_strip(own, atlas, limits):
    """Draw the flat maps of one subject, two features to a row."""
    from matplotlib.figure import Figure as Canvas

    from neuroigc.surface.plotting import plot_surface_map

    n_rows = -(-len(own) // 2)
    canvas = Canvas(figsize=(7.2, 2.2 * n_rows), layout="constrained")
    axes = canvas.subplots(n_rows, 4, squeeze=False).ravel()
    for ax in axes[2 * len(own) :]:
        ax.set_axis_off()
    for index, (feature, surface_map) in enumerate(own.items()):
        for hemisphere, ax in zip(("left", "right"), axes[2 * index : 2 * index + 2], strict=True):
            plot_surface_map(
                surface_map,
                hemisphere=hemisphere,
                mesh="flat",
                outlines=atlas,
                vmax=limits[feature],
                colorbar=hemisphere == "right",
                label="IGC per vertex",
                title=f"{feature_name(feature)}, {hemisphere}",
                ax=ax,
            )
    return canvas


def _bars(study, folder, features):
    from neuroigc.surface.plotting import plot_roi_bars

    n = len(study.subjects)
    raise NotImplementedError


def _gallery(study, folder, table, subject, notes):
    return []


def _retinotopy(study, folder, subject, notes):
    return []


def _size_eccentricity(folder, fitted, areas):
    raise NotImplementedError


def _ceiling(folder, prf, areas):
    path = folder.draw(
        folder.file("encoder", "noise-ceiling", suffix=".svg"), plots.plot_ceiling, prf, areas
    )
    share = format_number(100 * plots.reliable(prf).mean(), 0)
    return Figure(
        path,
        "Encoder accuracy against the noise ceiling",
        f"Each point is a vertex of {join_words(areas)}: the correlation of predicted and measured "
        "responses to held-out images, against the highest that noise in the responses allows. "
        "Points on the solid line leave nothing to explain; those above the dashed line reach half "
        f"their ceiling ({share} % of the vertices, drawn strongly here and below).",
        f"Scatter of encoder correlation against noise ceiling for {len(prf)} vertices; "
        f"{share} per cent lie above half the ceiling.",
        "narrow",
    )


def _truth(folder, fitted, areas, name):
    path = folder.draw(
        folder.file("prf", f"against-{name}", suffix=".svg"),
        plots.plot_truth, fitted, areas, name=name,
    )  # fmt: skip
    return Figure(
        path,
        f"Estimated against {name} receptive fields",
        f"Eccentricity, polar angle and size read off the IGC maps, against the {name} values, in "
        f"degrees; {len(fitted)} vertices. Points on the line agree. Angles are shown on the same "
        f"turn as the {name} ones. Pale points are vertices whose encoder stays below half its "
        "noise ceiling.",
        f"Three scatter plots of estimated against {name} eccentricity, polar angle and size.",
        "wide",
    )
