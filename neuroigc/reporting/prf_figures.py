"""The figures of encoding and receptive fields, with their captions."""

from __future__ import annotations

import numpy as np

from neuroigc._validation import InputError
from neuroigc.reporting import plots, retinotopy
from neuroigc.reporting.figures import Drawn, Figure, load_labels
from neuroigc.reporting.numbers import format_number, is_known, join_words
from neuroigc.reporting.phantoms import draw_calibration, load_calibrations
from neuroigc.reporting.study import Study, compact, read_attribution

__all__ = ["draw_encoding"]

_AREAS_IN_GALLERY = 4
# Below this the map of a vertex does not look like a receptive field.
_WORST_FIT = 0.3
_FIELD = ("x_deg", "y_deg", "size_deg")
_VIEWS = {"flat": "flattened", "inflated": "inflated"}
# Every second one is drawn of each subject.
_MAPS = (
    ("angle", "flat"),
    ("angle", "inflated"),
    ("eccentricity", "flat"),
    ("eccentricity", "inflated"),
    ("size", "flat"),
)
_QUANTITIES = {
    "angle": (
        "Polar angle",
        "Direction of the receptive fields from the centre of gaze, in the colours of the wheel. "
        "Where cortex is retinotopic it turns back at the borders of V1, V2 and V3.",
    ),
    "eccentricity": (
        "Eccentricity",
        "Distance of the receptive fields from the centre of gaze, in degrees of visual angle, on "
        "a logarithmic scale. It grows away from the occipital pole.",
    ),
    "size": (
        "Size",
        "One standard deviation of the receptive fields, in degrees of visual angle. It grows with "
        "eccentricity, and from V1 to later areas.",
    ),
}


def draw_encoding(study: Study) -> Drawn:
    """Draw encoder accuracy, example maps, retinotopy, phantoms and the comparison with truth."""
    table = study.tables["prf.tsv"]
    folder, drawn = plots.FigureFolder(study.folder), Drawn()
    areas = study.areas
    inside = table[table["roi"].isin(areas)]
    fitted = inside[inside["status"] == "ok"]
    if {"encoder_r", "noise_ceiling_r"} <= set(inside):
        drawn.shared.append(_ceiling(folder, inside, areas))
    else:
        drawn.notes.append("No noise ceilings are known for this study, so none are shown.")
    calibrations = load_calibrations(study)
    if not calibrations:
        drawn.notes.append(
            "What phantoms teach is left out: the size of the images in degrees is not known."
            if "phantoms.tsv" in study.tables
            else "Receptive fields are those of the maps: no phantoms calibrated them."
        )
    subjects = list(dict.fromkeys(table["subject"]))
    for subject in subjects:
        own = [
            *_gallery(study, folder, table, subject, drawn.notes),
            *_retinotopy(study, folder, table, subject, drawn.notes),
        ]
        if subject in calibrations:
            own.append(draw_calibration(folder, subject, calibrations[subject]))
        if subject == subjects[0]:
            drawn.shared += own
        else:
            drawn.by_subject[subject] = own
    drawn.shared += _coverage(study, folder, fitted, areas, drawn.notes)
    drawn.shared.append(_size_eccentricity(study, folder, fitted, areas))
    known = _known(fitted)
    if known:
        within = study.settings.get("encoding", {}).get("within_deg")
        drawn.shared.append(_truth(folder, fitted, areas, known, within))
    else:
        drawn.notes.append("Neither truth nor reference maps are known to compare with.")
    return drawn


def _known(table):
    """Return what the fields are compared with: "true", "reference" or None."""
    for name in ("true", "reference"):
        if {f"{name}_{column}" for column in _FIELD} <= set(table):
            return name
    return None


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
    known, reference = _known(own), None
    if known:
        reference = {name: chosen[f"{known}_{name}"] for name in _FIELD}
    titles = [
        plots.escape_math(row.roi)
        + (f", r = {format_number(row.encoder_r)}" if "encoder_r" in own else "")
        for row in chosen.itertuples()
    ]
    dotted = f"; the dotted one is the {known} field" if known else ""
    sums, radius = "the correlation r of predicted and measured response", "of the fit"
    if study.has_windows:
        sums = "the prediction, whose correlation with itself is 1, the sum of a map"
    if "phantoms.tsv" in study.tables:
        radius = "of the receptive field, calibrated"
    return [
        Figure(
            folder.draw(
                folder.file(f"sub-{subject}", "prf-gallery", suffix=".svg"),
                plots.plot_gallery, maps, chosen, reference, titles,
                extent_deg=extent, n_columns=n_columns,
            ),
            f"Receptive fields seen by IGC, subject {subject}",
            f"IGC maps of {len(rows)} vertices over the image ({extent:g}° wide): how much each "
            f"place of the image contributes to {sums}; red adding, blue taking away. In each "
            "area one vertex near the centre of gaze (above) and one further out (below), chosen "
            "by eccentricity among the better fits. The solid circle has the radius of one "
            f"standard deviation {radius}{dotted}.",
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
    maps = read_attribution(path, ["attributions"])["attributions"]
    if maps.ndim != 3 or len(maps) != n_rows:
        raise InputError(
            path.name,
            expected=f"one map for each of the subject's {n_rows} rows in prf.tsv",
            got=f"shape {maps.shape}",
            fix="Run the stage prf again.",
        )
    return maps


def _retinotopy(study, folder, table, subject, notes):
    """Show angle and eccentricity on the flat cortex; of the first subject, all there is."""
    own = table[table["subject"] == subject]
    space = study.summary.get("study", {}).get("space")
    good = ((own["status"] == "ok") & (own["r2"] >= _WORST_FIT)).to_numpy() & plots.reliable(own)
    if space is None or not good.any():
        what = "no fit is good" if space else "the surface is not known"
        notes.append(f"Maps of receptive fields are left out for subject {subject}: {what}.")
        return []
    extent = study.settings.get("data", {}).get("extent_deg")
    atlas = load_labels(study, subject)
    options = {
        "vertices": {
            side: own.loc[own["hemisphere"] == side, "vertex"].to_numpy(int)
            for side in ("left", "right")
        },
        "space": space,
        "outlines": atlas,
        "outline_names": [] if atlas is None else [n for n in study.areas if n in atlas.names],
        "where": good,
    }
    shown = _MAPS if subject == table["subject"].iloc[0] else _MAPS[::2]
    figures = []
    for quantity, view in shown:
        # Beyond the edge of the images no receptive field can be seen.
        limit = extent / 2 if quantity == "eccentricity" and is_known(extent) else None
        path = folder.file(f"sub-{subject}", quantity, view, suffix=".png")
        title, reading = _QUANTITIES[quantity]
        figures.append(
            Figure(
                folder.draw(
                    path, retinotopy.plot_retinotopy, own,
                    quantity=quantity, view=view, vmax=limit, **options,
                ),
                f"{title} on the {_VIEWS[view]} cortex, subject {subject}",
                f"{reading} Shown are vertices whose fit ended well and explains at least "
                f"{_WORST_FIT:g} of the map's variance, and whose encoder reaches half its noise "
                "ceiling. Lines: borders of the regions.",
                f"{title} of receptive fields on the {_VIEWS[view]} cortex of both hemispheres of "
                f"subject {subject}.",
                "wide",
            )
        )  # fmt: skip
    return figures


def _coverage(study, folder, fitted, areas, notes):
    extent = study.settings.get("data", {}).get("extent_deg")
    chosen = fitted[plots.reliable(fitted)]
    if not is_known(extent) or not len(chosen):
        what = "the size of the images in degrees is not known" if len(chosen) else "no fit is good"
        notes.append(f"The coverage of the visual field is left out: {what}.")
        return []
    return [
        Figure(
            folder.draw(
                folder.file("prf", "coverage", suffix=".svg"),
                plots.plot_coverage, chosen, areas, extent_deg=extent,
            ),
            "Coverage of the visual field",
            f"The images ({extent:g}° wide) as each area sees them, both hemispheres and all "
            "subjects together: at every place the highest of the vertices' receptive fields, "
            "drawn as Gaussians of height 1. Dots: their centres; solid line: half height; dashed "
            "circle: the largest that fits into the images. Vertices whose fit ended well and "
            "whose encoder reaches half its noise ceiling. Holes may be parts of an area that the "
            "mask leaves out.",
            f"Maps of the visual field, one for each of {join_words(areas)}: bright where a "
            "vertex has its receptive field.",
            "wide",
        )
    ]  # fmt: skip


def _size_eccentricity(study, folder, fitted, areas):
    literature, source = study.known_sizes
    sizes = (
        "Sizes are calibrated with phantoms. "
        if "phantoms.tsv" in study.tables
        else "Sizes are those of the maps, not calibrated: they grow with eccentricity, as those "
        "of receptive fields do, but are comparable neither between areas nor with the dashed "
        "lines before calibration. "
    )
    ordered = fitted.assign(order=fitted["roi"].map(areas.index)).sort_values(
        "order", kind="stable"
    )
    return Figure(
        folder.draw(
            folder.file("prf", "size", suffix=".svg"),
            plots.plot_sizes, ordered, literature=literature,
        ),
        "Size against eccentricity",
        "Each point is a vertex whose fit ended well: standard deviation of its receptive field "
        "against its distance from the centre of gaze, in degrees, with a straight line for each "
        "area, through the medians of bins of eccentricity. Dotted: lines of the areas that "
        f"{source} give. {sizes}"
        "A table below gives the lines with intervals.",
        f"Scatter of size against eccentricity for {len(fitted)} vertices, by area.",
        "narrow",
    )  # fmt: skip


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


def _truth(folder, fitted, areas, name, within):
    limit = ""
    if is_known(within):
        beyond = np.hypot(fitted[f"{name}_x_deg"], fitted[f"{name}_y_deg"]) > within
        fitted = fitted[~beyond]
        limit = f", whose {name} centre is within {within:g}° of the centre of gaze"
    fitted = fitted[fitted[[f"{name}_{column}" for column in _FIELD]].notna().all(axis=1)]
    path = folder.draw(
        folder.file("prf", f"against-{name}", suffix=".svg"),
        plots.plot_truth, fitted, areas, name=name,
    )  # fmt: skip
    return Figure(
        path,
        f"Estimated against {name} receptive fields",
        f"Eccentricity, polar angle and size read off the IGC maps, against the {name} values, in "
        f"degrees; {format_number(len(fitted), 0)} vertices{limit}. Points on the line agree. "
        f"Angles are shown on the same turn as the {name} ones. Pale points are vertices whose "
        "encoder stays below half its noise ceiling.",
        f"Three scatter plots of estimated against {name} eccentricity, polar angle and size.",
        "wide",
    )
