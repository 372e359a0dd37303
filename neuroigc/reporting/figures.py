"""What figures are, and those of decoding: drawn from the study's files, with their captions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuroigc.reporting import area_plots, plots
from neuroigc.reporting.numbers import (
    RoiTable,
    feature_name,
    group_intervals,
    join_words,
)
from neuroigc.reporting.study import EARLY_AREAS, Study, compact

__all__ = ["Drawn", "Figure", "color_limit", "draw_decoding", "load_labels", "load_maps"]

_REGIONS_IN_TEXT = 8
_NAMES_ON_OVERVIEW = 8
# More colours side by side are hard to tell apart.
_FEATURES_A_FIGURE = 4
_PANELS_A_FIGURE = 2


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
    maps, evidence = (load_maps(study, features, stat) for stat in ("igc", "z"))
    limits = {feature: color_limit(maps, feature) for feature in features}
    subjects = list(dict.fromkeys(subject for subject, _ in maps))
    for subject in subjects:
        own = {
            feature: maps[subject, feature] for feature in features if (subject, feature) in maps
        }
        atlas = load_labels(study, subject)
        if subject == subjects[0]:
            names = _names_on_overviews(atlas)
            drawn.by_subject[subject] = _overviews(
                folder, subject, own, evidence, atlas, limits, names
            )
            if atlas is not None and names is not True:
                drawn.shared.append(_regions(folder, subject, next(iter(own.values())), atlas))
        else:
            drawn.by_subject[subject] = _strip(folder, subject, own, evidence, atlas, limits)
    if not maps:
        drawn.notes.append("Maps are left out: the study folder holds no surface maps of IGC.")
    if tables:
        drawn.shared += _bars(study, folder, tables)
        drawn.shared += _intervals(study, folder)
    else:
        drawn.notes.append("Regions are left out: there is no roi.tsv.")
    drawn.shared += _against_ridge(study, folder)
    return drawn


def load_maps(study: Study, descriptions: list[str], stat: str) -> dict:
    """Return the surface maps that exist, by subject and description."""
    from neuroigc.surface import SurfaceMap

    found = {}
    for subject in study.subjects:
        for description in descriptions:
            paths = study.maps.get((compact(subject), compact(description), stat))
            if paths:
                found[subject, description] = SurfaceMap.load(paths)
    return found


def load_labels(study: Study, subject: str):
    """Return a subject's regions as one atlas, None if there are none."""
    from neuroigc.surface import combine, load_atlas

    paths = study.labels.get(compact(subject))
    if not paths:
        return None
    atlases = []
    for pair in paths:
        atlas = load_atlas(pair)
        names = {key: plots.escape_math(name) for key, name in atlas.table.items()}
        atlases.append(dataclasses.replace(atlas, table=names))
    return atlases[0] if len(atlases) == 1 else combine(atlases)


def color_limit(maps: dict, feature: str) -> float:
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


_READ_FADING = (
    "Colours fade into the grey where a value is small against its standard error, and are full "
    "from two of these. "
)


def _names_on_overviews(atlas):
    """Return True for all names, or those for which there is room on a small map."""
    if atlas is None or len(atlas.names) <= _NAMES_ON_OVERVIEW:
        return True
    return [name for name in EARLY_AREAS if name in atlas.names]


def _overviews(folder, subject, own, evidence, atlas, limits, names):
    from neuroigc.surface.plotting import plot_surface_overview

    figures = []
    for feature, surface_map in own.items():
        path = folder.draw(
            folder.file(f"sub-{subject}", feature, "igc", suffix=".png"),
            plot_surface_overview,
            surface_map,
            outlines=atlas,
            outline_names=names,
            vmax=limits[feature],
            evidence=evidence.get((subject, feature)),
            label="IGC per vertex",
        )
        name = feature_name(feature)
        fade = _READ_FADING if (subject, feature) in evidence else ""
        lines = "" if atlas is None else " Lines: borders of the regions, named on the flat maps"
        lines += "" if atlas is None or names is True else " where there is room"
        figures.append(
            Figure(
                path,
                f"Where {name} is read from, subject {subject}",
                "IGC on the inflated cortex (from inside, behind and below) and on the flattened "
                f"occipital cortex. {_READ_MAP}{fade}The scale ends at the 99th percentile and is "
                f"the same for all subjects.{lines}{'.' if lines else ''}",
                f"Eight views of the cortex of subject {subject}, coloured by IGC of {name}; the "
                "table of regions below gives the sums.",
                "wide",
            )
        )
    return figures


def _regions(folder, subject, surface_map, atlas):
    path = folder.file(f"sub-{subject}", "regions", suffix=".png")
    return Figure(
        folder.draw(path, plots.plot_regions, surface_map, atlas),
        f"The regions of subject {subject}",
        "Borders and names of the regions on the flattened occipital cortex, seen from outside. "
        "White: vertices that were measured; grey: cortex outside of the mask, dark in the folds.",
        f"Flat maps with the outlines of {len(atlas.names)} regions.",
        "wide",
    )


def _strip(folder, subject, own, evidence, atlas, limits):
    panels = [
        (
            f"{plots.escape_math(feature_name(feature))}, IGC per vertex",
            surface_map,
            {
                "cmap": "RdBu_r",
                "vmin": -limits[feature],
                "vmax": limits[feature],
                "evidence": evidence.get((subject, feature)),
            },
        )
        for feature, surface_map in own.items()
    ]
    path = folder.file(f"sub-{subject}", "igc", suffix=".png")
    names = join_words([feature_name(feature) for feature in own])
    fade = _READ_FADING if any((subject, feature) in evidence for feature in own) else ""
    return [
        Figure(
            folder.draw(path, plots.plot_flat_pairs, panels, atlas),
            f"IGC of {names}, subject {subject}",
            "Flattened occipital cortex, seen from outside, left and right hemisphere. "
            f"{_READ_MAP}{fade}Scales are those of the first subject's figures.",
            f"Flat maps of IGC of {names} in subject {subject}.",
            "wide",
        )
    ]


def _bars(study, folder, tables):
    from neuroigc.surface.roi_plots import plot_roi_bars

    table = study.tables["roi.tsv"]
    there = table.groupby("roi")["n_vertices"].transform("sum") > 0
    table = table[there].assign(
        output=table["output"].map(feature_name).map(plots.escape_math),
        roi=table["roi"].map(plots.escape_math),
    )
    names = list(dict.fromkeys(table["output"]))
    n = max(len(one.subjects) for one in tables)
    spread = (
        "error bars are one standard deviation between subjects, dots the single subjects"
        if n > 1
        else "there is one subject, so nothing can be said about the spread between subjects"
    )
    figures = []
    for start in range(0, len(names), _FEATURES_A_FIGURE):
        shown = names[start : start + _FEATURES_A_FIGURE]
        path = folder.draw(
            folder.file("regions", *shown, suffix=".svg"),
            lambda shown: plot_roi_bars(table, outputs=shown).figure,
            shown,
        )
        figures.append(
            Figure(
                path,
                f"What each region contributes to {join_words(shown)}",
                "IGC summed over the vertices of each region, both hemispheres, in units of "
                "correlation: the sum over a partition of the cortex is r. Bars are means; "
                f"{spread}. A bar below zero takes away from the correlation. “Elsewhere” are the "
                "vertices in none of the regions.",
                "Bars of IGC by region; the tables below give the same numbers.",
                "wide" if table["roi"].nunique() > _REGIONS_IN_TEXT else "text",
            )
        )
    return figures


def _intervals(study, folder):
    """Draw the areas of the first subject, and of the group, with intervals and stars."""
    figures, rois = [], study.tables["roi.tsv"]
    if {"low", "high"} <= set(rois):
        subject = rois["subject"].iloc[0]
        stars = (
            "Stars: p of 0.05 or less, family-wise over all areas of both hemispheres, of targets "
            "permuted over images. "
            if "p_fwe" in rois
            else ""
        )
        figures += _interval_figures(
            folder, rois[rois["subject"] == subject], f"sub-{subject}", "IGC, 95 % interval",
            f"What each region contributes, subject {subject}",
            "IGC summed over each region and hemisphere, with 95 % intervals: the jackknife over "
            f"held-out images, with the model as it is. {stars}",
        )  # fmt: skip
    if "group.tsv" in study.tables:
        group = group_intervals(study.tables["group.tsv"])
        n = int(group["n_subjects"].max())
        figures += _interval_figures(
            folder, group[group["hemisphere"] == "both"], "group", "mean IGC, 95 % interval",
            f"What each region contributes in {n} subjects",
            "Means over subjects of IGC summed over each region, both hemispheres, with Student's "
            "95 % intervals between subjects. Stars: p of 0.05 or less, family-wise over all "
            "areas, of subjects' signs flipped. ",
        )  # fmt: skip
    return figures


def _interval_figures(folder, table, who, label, title, caption):
    # Of an output without an estimate there is nothing to draw.
    table = table[table["igc"].notna()]
    # Areas of one name are told apart by their atlases, as in the tables.
    doubled = table.groupby(["hemisphere", "output", "roi"])["atlas"].transform("nunique") > 1
    names = table["roi"].where(~doubled, table["roi"] + " (" + table["atlas"] + ")")
    table = table.assign(
        output=table["output"].map(feature_name).map(plots.escape_math),
        roi=names.map(plots.escape_math),
    )
    names, figures = list(dict.fromkeys(table["output"])), []
    for start in range(0, len(names), _PANELS_A_FIGURE):
        shown = names[start : start + _PANELS_A_FIGURE]
        own = [table[table["output"] == name] for name in shown]
        figures.append(
            Figure(
                folder.draw(
                    folder.file(who, "intervals", *shown, suffix=".svg"),
                    area_plots.plot_intervals, own, shown, label=label,
                ),
                f"{title}: {join_words(shown)}",
                f"{caption}The tables below give the numbers.",
                f"Intervals of IGC by region for {join_words(shown)}; tables below give the same "
                "numbers.",
                "text" if len(shown) > 1 else "narrow",
            )
        )  # fmt: skip
    return figures


def _against_ridge(study, folder):
    table = study.tables.get("decoding.tsv")
    if table is None or "ridge_r" not in table or table["ridge_r"].isna().all():
        return []
    table = table.assign(output=table["output"].map(feature_name).map(plots.escape_math))
    outputs = list(dict.fromkeys(table["output"]))
    better = (table["r"] > table["ridge_r"]).sum()
    return [
        Figure(
            folder.draw(
                folder.file("network-against-ridge", suffix=".svg"),
                area_plots.plot_against_ridge, table, outputs,
            ),
            "The network against ridge regression",
            "Correlation of decoded and true features on the same held-out images, a point for "
            "each subject, with 95 % intervals of the jackknife. Above the line the network is "
            f"better: {better} of {len(table)}. Ridge regression was fitted to each subject alone, "
            "the network to all of them.",
            f"Scatter of correlations; {better} of {len(table)} points lie above the diagonal.",
            "narrow",
        )
    ]  # fmt: skip
