"""The figures of encoding and receptive fields, with their captions."""

from __future__ import annotations

import dataclasses
import zipfile

import numpy as np

from neuroigc._validation import InputError
from neuroigc.reporting import plots
from neuroigc.reporting.figures import Drawn, Figure, color_limit, load_labels, load_maps
from neuroigc.reporting.numbers import format_number, is_known, join_words
from neuroigc.reporting.study import Study, compact

__all__ = ["draw_encoding"]

_AREAS_IN_GALLERY = 4
# Below this the map of a vertex does not look like a receptive field.
_WORST_FIT = 0.3


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
            *_retinotopy(study, folder, table, subject, drawn.notes),
        ]
        if subject == subjects[0]:
            drawn.shared += own
        else:
            drawn.by_subject[subject] = own
    drawn.shared += _coverage(study, folder, fitted, areas, drawn.notes)
    drawn.shared.append(_size_eccentricity(folder, fitted, areas))
    if {"true_x_deg", "true_y_deg", "true_size_deg"} <= set(fitted):
        drawn.shared.append(
            _truth(folder, fitted, areas, "true" if study.simulated else "reference")
        )
    else:
        drawn.notes.append("Neither truth nor reference maps are known to compare with.")
    return drawn


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


def _retinotopy(study, folder, table, subject, notes):
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
        surface_map = load_maps(study, ["prf"], stat).get((subject, "prf"))
        if surface_map is not None:
            if stat != "r2":
                surface_map = _keep_well_fitted(surface_map, table[table["subject"] == subject])
            vmax = look["vmax"] or color_limit({(subject, "prf"): surface_map}, "prf")
            panels.append((label, surface_map, look | {"vmax": vmax}))
    if not panels:
        notes.append(
            f"Maps of receptive fields are left out for subject {subject}: none are there."
        )
        return []
    path = folder.file(f"sub-{subject}", "retinotopy", suffix=".png")
    return [
        Figure(
            folder.draw(path, plots.plot_flat_pairs, panels, load_labels(study, subject)),
            f"Retinotopy from natural images, subject {subject}",
            "Polar angle, eccentricity and size of the receptive fields on the flattened occipital "
            "cortex, in degrees of visual angle, and how well a Gaussian fits the IGC map. Angles "
            "count counter-clockwise from the right horizontal meridian. Shown are vertices whose "
            f"fit ended well, explains at least {_WORST_FIT:g} of the map's variance and whose "
            "encoder reaches half its noise ceiling; the map of the fit shows all. Where cortex is "
            "retinotopic the angle turns back at the borders of V1, V2 and V3, and eccentricity "
            "grows away from the occipital pole. Lines: borders of the regions.",
            f"Flat maps of polar angle, eccentricity, size and fit in subject {subject}.",
            "wide",
        )
    ]


def _keep_well_fitted(surface_map, own):
    """Return the map without the vertices whose receptive field is not to be believed."""
    good = own[(own["status"] == "ok") & (own["r2"] >= _WORST_FIT) & plots.reliable(own)]
    data = {}
    for hemisphere, values in surface_map.data.items():
        vertices = good.loc[good["hemisphere"] == hemisphere, "vertex"].to_numpy(int)
        data[hemisphere] = np.full_like(values, np.nan)
        data[hemisphere][vertices] = values[vertices]
    return dataclasses.replace(surface_map, data=data)


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


def _size_eccentricity(folder, fitted, areas):
    ordered = fitted.assign(order=fitted["roi"].map(areas.index)).sort_values(
        "order", kind="stable"
    )
    return Figure(
        folder.draw(folder.file("prf", "size", suffix=".svg"), plots.plot_sizes, ordered),
        "Size against eccentricity",
        "Each point is a vertex whose fit ended well: standard deviation of its receptive field "
        "against its distance from the centre of gaze, in degrees, with a straight line for each "
        "area, through the medians of bins of eccentricity. Dashed: lines of the areas that "
        "Wandell and Winawer (Trends in Cognitive Sciences 19:349, 2015) give. Sizes are those of "
        "the maps, not calibrated: they grow with eccentricity, as those of receptive fields do, "
        "but are comparable neither between areas nor with the dashed lines before calibration. "
        "A table below gives the lines with intervals.",
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
