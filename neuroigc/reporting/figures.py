"""Which figures a study gets, drawn from its files, and what their captions say."""

from __future__ import annotations

import dataclasses
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuroigc._validation import InputError
from neuroigc.reporting import plots
from neuroigc.reporting.numbers import (
    RoiTable,
    feature_name,
    format_number,
    is_known,
    join_words,
)
from neuroigc.reporting.study import Study, compact

__all__ = ["Drawn", "Figure", "draw_decoding", "draw_encoding"]

_AREAS_IN_GALLERY = 4
_REGIONS_IN_TEXT = 8
# More colours side by side are hard to tell apart.
_FEATURES_A_FIGURE = 4


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
        own = {
            feature: maps[subject, feature] for feature in features if (subject, feature) in maps
        }
        atlas = _load_labels(study, subject)
        draw = _overviews if subject == subjects[0] else _strip
        drawn.by_subject[subject] = draw(folder, subject, own, atlas, limits)
    if not maps:
        drawn.notes.append("Maps are left out: the study folder holds no surface maps of IGC.")
    if tables:
        drawn.shared = _bars(study, folder, tables)
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
        drawn.shared.append(
            _truth(folder, fitted, areas, "true" if study.simulated else "reference")
        )
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
    atlases = []
    for pair in paths:
        atlas = load_atlas(pair)
        names = {key: plots.escape_math(name) for key, name in atlas.table.items()}
        atlases.append(dataclasses.replace(atlas, table=names))
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
    panels = [
        (
            f"{plots.escape_math(feature_name(feature))}, IGC per vertex",
            surface_map,
            {"cmap": "RdBu_r", "vmin": -limits[feature], "vmax": limits[feature]},
        )
        for feature, surface_map in own.items()
    ]
    path = folder.file(f"sub-{subject}", "igc", suffix=".png")
    names = join_words([feature_name(feature) for feature in own])
    return [
        Figure(
            folder.draw(path, plots.plot_flat_pairs, panels, atlas),
            f"IGC of {names}, subject {subject}",
            "Flattened occipital cortex, seen from outside, left and right hemisphere. "
            f"{_READ_MAP}Scales are those of the first subject's figures.",
            f"Flat maps of IGC of {names} in subject {subject}.",
            "wide",
        )
    ]


def _bars(study, folder, tables):
    from neuroigc.surface.roi_plots import plot_roi_bars

    table = study.tables["roi.tsv"]
    table = table.assign(
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


def _gallery(study, folder, table, subject, notes):
    """Show the IGC maps of a few vertices: by area, near the centre and further out."""
    path = study.attributions.get((compact(subject), "encoding"))
    extent = study.settings.get("data", {}).get("extent_deg")
    if path is None or not is_known(extent):
        what = "its IGC maps" if path is None else "the size of the images in degrees"
        notes.append(f"Example maps of subject {subject} are left out: {what} cannot be found.")
        return []
    own = table[table["subject"] == subject].reset_index(drop=True)
    rows, n_columns = _choose_examples(own, study.areas)
    if not rows:
        notes.append(f"Example maps of subject {subject} are left out: no fit ended well.")
        return []
    maps = _load_encoding_maps(path, len(own))[rows]
    chosen = own.iloc[rows]
    known = {"true_x_deg", "true_y_deg", "true_size_deg"} <= set(own)
    reference = None
    if known:
        reference = {name: chosen[f"true_{name}"] for name in ("x_deg", "y_deg", "size_deg")}
    titles = [
        plots.escape_math(row.roi)
        + (f", r = {format_number(row.encoder_r)}" if "encoder_r" in own else "")
        for row in chosen.itertuples()
    ]
    what = "true" if study.simulated else "reference"
    dotted = f"; the dotted one is the {what} field" if known else ""
    return [
        Figure(
            folder.draw(
                folder.file(f"sub-{subject}", "prf-gallery", suffix=".svg"),
                plots.plot_gallery, maps, chosen, reference, titles,
                extent_deg=extent, n_columns=n_columns,
            ),
            f"Receptive fields seen by IGC, subject {subject}",
            f"IGC maps of {len(rows)} vertices over the image ({extent:g}° wide): how much each "
            "place of the image contributes to the correlation r of predicted and measured "
            "response, red adding, blue taking away. In each area one vertex near the centre of "
            "gaze (above) and one further out (below), chosen by eccentricity among the better "
            f"fits. The solid circle has the radius of one standard deviation of the fit{dotted}.",
            f"{len(rows)} small maps of the visual field, each with a red spot circled by the fit.",
            "wide",
        )
    ]  # fmt: skip


def _choose_examples(own, areas):
    """Return row numbers, inner vertices of all areas first, and the number of areas shown."""
    usable = own[(own["status"] == "ok") & plots.reliable(own)]
    inner, outer = [], []
    for area in areas[:_AREAS_IN_GALLERY]:
        rows = usable[usable["roi"] == area]
        rows = rows[rows["r2"] >= rows["r2"].median()]
        if len(rows):
            for quantile, chosen in ((0.25, inner), (0.75, outer)):
                distance = (
                    rows["eccentricity_deg"] - rows["eccentricity_deg"].quantile(quantile)
                ).abs()
                chosen.append(distance.idxmin())
    return inner + outer, len(inner)


def _load_encoding_maps(path, n_rows):
    try:
        with np.load(path, allow_pickle=False) as file:
            maps = file["attributions"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            path.name, expected="a saved attribution (.npz)", got=str(error)
        ) from error
    if maps.ndim != 3 or len(maps) != n_rows:
        raise InputError(
            path.name,
            expected=f"one map for each of the subject's {n_rows} rows in prf.tsv",
            got=f"shape {maps.shape}",
            fix="Run the stage prf again.",
        )
    return maps


def _retinotopy(study, folder, subject, notes):
    from neuroigc.prf.plotting import angle_colormap

    extent = study.settings.get("data", {}).get("extent_deg")
    looks = {
        "angle": ("polar angle", {"cmap": angle_colormap(), "vmin": 0, "vmax": 360, "period": 360}),
        # Beyond the edge of the images no receptive field can be seen.
        "eccen": (
            "eccentricity (°)",
            {"cmap": "viridis", "vmin": 0, "vmax": extent / 2 if is_known(extent) else None},
        ),
        "size": ("size (°)", {"cmap": "viridis", "vmin": 0, "vmax": None}),
        "r2": ("fit of the Gaussian (r²)", {"cmap": "viridis", "vmin": 0, "vmax": 1}),
    }
    panels = []
    for stat, (label, look) in looks.items():
        surface_map = _load_maps(study, ["prf"], stat).get((subject, "prf"))
        if surface_map is not None:
            vmax = look["vmax"] or _limit({(subject, "prf"): surface_map}, "prf")
            panels.append((label, surface_map, look | {"vmax": vmax}))
    if not panels:
        notes.append(
            f"Maps of receptive fields are left out for subject {subject}: none are there."
        )
        return []
    path = folder.file(f"sub-{subject}", "retinotopy", suffix=".png")
    return [
        Figure(
            folder.draw(path, plots.plot_flat_pairs, panels, _load_labels(study, subject)),
            f"Retinotopy from natural images, subject {subject}",
            "Polar angle, eccentricity and size of the receptive fields on the flattened occipital "
            "cortex, in degrees of visual angle, and how well a Gaussian fits the IGC map. Angles "
            "count counter-clockwise from the right horizontal meridian: 90° is up. Along the "
            "visual cortex the angle turns back at the borders of V1, V2 and V3, and eccentricity "
            "grows away from the occipital pole. Lines: borders of the regions.",
            f"Flat maps of polar angle, eccentricity, size and fit in subject {subject}.",
            "wide",
        )
    ]


def _size_eccentricity(folder, fitted, areas):
    ordered = fitted.assign(order=fitted["roi"].map(areas.index)).sort_values(
        "order", kind="stable"
    )
    return Figure(
        folder.draw(folder.file("prf", "size", suffix=".svg"), plots.plot_sizes, ordered),
        "Size against eccentricity",
        "Each point is a vertex whose fit ended well: standard deviation of its receptive field "
        "against its distance from the centre of gaze, in degrees, with a straight line for each "
        "area. Fields grow with eccentricity and from V1 upwards.",
        f"Scatter of size against eccentricity for {len(fitted)} vertices, by area.",
        "narrow",
    )


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
        f"degrees; {format_number(len(fitted), 0)} vertices. Points on the line agree. Angles are "
        f"shown on the same turn as the {name} ones. Pale points are vertices whose encoder stays "
        "below half its noise ceiling.",
        f"Three scatter plots of estimated against {name} eccentricity, polar angle and size.",
        "wide",
    )
