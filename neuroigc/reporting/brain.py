"""The brain that can be turned: meshes and maps packed for the page's own script to draw."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroigc.reporting import plots
from neuroigc.reporting.figures import Figure, color_limit, load_labels, load_maps
from neuroigc.reporting.numbers import feature_name, format_number
from neuroigc.reporting.retinotopy import OCTAVES
from neuroigc.reporting.study import Study

__all__ = ["BrainView", "make_brain_view"]

_SPACE = "fsaverage5"
_MESH = "inflated"
# About 60 kB each on the page.
_MOST_MAPS = 24
_GAP_MM = 8.0
_HUNDREDTHS = 100
# Lines run so far above the surface that it does not hide them.
_LIFT_MM = 0.7
_FULL = 32000
_PRF_LABELS = {
    "angle": "pRF polar angle (°)",
    "eccen": "pRF eccentricity (°)",
    "size": "pRF size (°, 1 SD)",
}


@dataclass(frozen=True)
class BrainView:
    """The maps to choose from, packed, and the picture that stands there before.

    Attributes
    ----------
    data : str
        JSON: meshes, sulci, colours, maps and borders, numbers in base64.
    names : list of str
        Of the maps.
    left_out : int
        Maps for which there was no room.
    picture : Figure
        The first map, for those without script or WebGL, and on paper.
    """

    data: str
    names: list[str]
    left_out: int
    picture: Figure


def make_brain_view(study: Study) -> BrainView | None:
    """Pack the study's surface maps, nested to fsaverage5; None where there are none."""
    entries = _decoding_maps(study) + _prf_maps(study)
    if not entries:
        return None
    shown = entries[:_MOST_MAPS]
    borders: list[dict] = []
    numbers: dict[str, int | None] = {}
    maps = []
    for entry in shown:
        subject = entry["subject"]
        if subject not in numbers:
            atlas = load_labels(study, subject)
            numbers[subject] = None if atlas is None else len(borders)
            borders += [] if atlas is None else [_pack_borders(atlas.nested(_SPACE))]
        maps.append(_pack_map(entry) | {"borders": numbers[subject]})
    colors = {entry["cmap"]: _pack_colors(entry["cmap"]) for entry in shown}
    data = {"unit": 1 / _HUNDREDTHS, "full": _FULL, **_pack_meshes()}
    data |= {"maps": maps, "borders": borders, "colors": colors}
    return BrainView(
        json.dumps(data),
        [entry["name"] for entry in shown],
        len(entries) - len(shown),
        _draw_picture(study, shown[0]),
    )


def _decoding_maps(study):
    table = study.tables.get("roi.tsv")
    features = list(study.summary.get("decoding", {}))
    features = features or ([] if table is None else list(dict.fromkeys(table["output"])))
    maps = load_maps(study, features, "igc")
    limits = {feature: color_limit(maps, feature) for feature in features}
    return [
        {
            "name": f"IGC of {feature_name(feature)}, subject {subject}",
            "label": "IGC per vertex",
            "subject": subject,
            "map": surface_map,
            "cmap": "RdBu_r",
            "low": -limits[feature],
            "high": limits[feature],
            "ticks": [f"−{limits[feature]:.2g}", "0", f"{limits[feature]:.2g}"],
        }
        for (subject, feature), surface_map in maps.items()
    ]


def _prf_maps(study):
    extent = study.settings.get("data", {}).get("extent_deg")
    entries = []
    for stat, label in _PRF_LABELS.items():
        for (subject, _), surface_map in load_maps(study, ["prf"], stat).items():
            entry = {
                "name": f"{label.split(' (')[0]}, subject {subject}",
                "label": label,
                "subject": subject,
                "map": surface_map,
            }
            if stat == "angle":
                ticks = ["right", "up", "left", "down", "right"]
                look = {"cmap": "angle", "low": 0.0, "high": 360.0, "ticks": ticks, "cyclic": True}
            else:
                values = np.concatenate(list(surface_map.data.values()))
                is_log = stat == "eccen"
                limit = extent / 2 if is_log and extent else float(np.nanpercentile(values, 99))
                # Eccentricity by its logarithm, over as many octaves as on the flat maps.
                low = limit / 2**OCTAVES if is_log else 0.0
                middle = limit / 2 ** (OCTAVES / 2) if is_log else limit / 2
                ticks = [format_number(tick, 1 + is_log) for tick in (low, middle, limit)]
                look = {"cmap": "viridis", "low": low, "high": limit, "ticks": ticks, "log": is_log}
            entries.append(entry | look)
    return entries


def _encode(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _pack_meshes() -> dict[str, Any]:
    from neuroigc.surface.spaces import load_background

    packed: dict[str, Any] = {"points": {}, "faces": {}, "sulci": {}}
    for side in ("left", "right"):
        points, faces = _mesh(side)
        sulci = np.clip(load_background(_SPACE, side), -1, 1)
        packed["points"][side] = _encode(np.round(points * _HUNDREDTHS), "<i2")
        packed["faces"][side] = _encode(faces, "<u2")
        packed["sulci"][side] = _encode(np.round(127.5 * (1 + sulci)), "u1")
    return packed


def _mesh(side):
    """Return one hemisphere, moved away from the other by half the gap between them."""
    from neuroigc.surface import load_mesh

    points, faces = load_mesh(_SPACE, _MESH, side)
    inner = points[:, 0].max() + _GAP_MM / 2 if side == "left" else points[:, 0].min() - _GAP_MM / 2
    return points - [inner, 0, 0], faces


def _pack_map(entry):
    low, high, values = entry["low"], entry["high"], {}
    if entry.get("log"):
        low, high = np.log2([low, high])
    for side, part in entry["map"].nested(_SPACE).data.items():
        if entry.get("log"):
            part = np.log2(np.maximum(part, 1e-6))
        share = np.clip((part - low) / (high - low), 0, 1)
        values[side] = _encode(np.where(np.isnan(share), -1, np.round(share * _FULL)), "<i2")
    told = {key: entry[key] for key in ("name", "label", "ticks")}
    return told | {
        "values": values, "colors": entry["cmap"], "cyclic": entry.get("cyclic", False),
    }  # fmt: skip


def _pack_borders(atlas):
    """Return the borders of an atlas as pairs of points."""
    from neuroigc.surface.outlines import boundary_lines
    from neuroigc.surface.rendering import normals

    packed = {}
    for side in ("left", "right"):
        points, faces = _mesh(side)
        lifted = points + _LIFT_MM * normals(points, faces)
        pairs = [
            np.stack([line[:-1], line[1:]], axis=1)
            for layer in atlas.layers
            for line in boundary_lines(layer.labels[side], lifted, faces)
        ]
        joined = np.concatenate([np.empty((0, 2, 3)), *pairs])
        packed[side] = _encode(np.round(joined * _HUNDREDTHS), "<i2")
    return packed


def _pack_colors(name):
    from matplotlib import colormaps

    from neuroigc.prf import angle_colormap

    colors = angle_colormap() if name == "angle" else colormaps[name]
    return _encode(np.round(255 * colors(np.linspace(0, 1, 256))[:, :3]), "u1")


def _draw_picture(study, entry):
    from neuroigc.prf import angle_colormap

    folder = plots.FigureFolder(study.folder)
    look = {"vmin": entry["low"], "vmax": entry["high"], "cmap": entry["cmap"]}
    if entry.get("cyclic"):
        look |= {"cmap": angle_colormap(), "period": 360}
    path = folder.draw(
        folder.file("brain", suffix=".png"), plots.plot_inflated_pair, entry["map"],
        load_labels(study, entry["subject"]), label=entry["label"], **look,
    )  # fmt: skip
    return Figure(
        path,
        "The brain, to be turned",
        f"Inflated cortex (fsaverage5) of both hemispheres, seen from behind and inside: "
        f"{entry['name']}. Grey: not measured, dark in the folds. Black lines: "
        "borders of the regions. Where scripts may run, the button starts a brain that turns, with "
        "all maps to choose from, in the colours of the figures below; those of receptive fields "
        "show all vertices, well fitted or not.",
        f"Both inflated hemispheres, coloured by {entry['name']}.",
        "wide",
    )
