"""A study folder as `neuroigc run` leaves it, made up without running anything."""

import json
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

FEATURES = ("luminance_contrast", "one_over_f_slope")
AREAS = ("V1", "V2", "V3", "hV4")
_IGC = {
    "luminance_contrast": {"V1": 0.42, "V2": -0.05, "V3": -0.04, "hV4": 0.03, "bodies": 0.06},
    "one_over_f_slope": {"V1": 0.16, "V2": 0.09, "V3": 0.08, "hV4": 0.09, "bodies": 0.05},
}
_SIZE = {"V1": (0.17, 0.3), "V2": (0.17, 0.5), "V3": (0.26, 0.6), "hV4": (0.53, 0.7)}
EXTENT = 8.4


@contextmanager
def quick_maps():
    """Put white plates in the place of the figures that take seconds to draw."""
    from matplotlib.figure import Figure

    def plate(*_arguments, **_options):
        return Figure(figsize=(7.2, 3.9))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuroigc.surface.plotting.plot_surface_overview", plate)
        patch.setattr("neuroigc.reporting.plots.plot_flat_pairs", plate)
        patch.setattr("neuroigc.reporting.plots.plot_inflated_pair", plate)
        patch.setattr("neuroigc.reporting.plots.plot_gallery", plate)
        patch.setattr("neuroigc.reporting.retinotopy.plot_retinotopy", plate)
        patch.setattr("neuroigc.prf.plot_calibration", plate)
        yield


@contextmanager
def coarse_maps():
    """Draw all that is drawn, with the cortex in fewer pixels."""
    from functools import partial

    from neuroigc.surface import plotting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "render", partial(plotting.render, n_pixels=120))
        plotting._scene.cache_clear()
        yield
    # What is drawn later is drawn finely.
    plotting._scene.cache_clear()


def make_report_study(
    folder,
    *,
    subjects=("01", "02"),
    features=FEATURES,
    encoded=("01",),
    seed=0,
    known="true",
    calibrated=True,
    tested=True,
):
    """Write a study folder and return its path.

    ``known`` says what receptive fields are compared with: "true", "reference" or None; without
    ``calibrated`` encoders are those of few latents; without ``tested`` there are no intervals,
    tests, scores of ridge regression or sanity checks.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    areas, vertices = _areas()
    summary = {
        "version": "0.1.0",
        "versions": {"Python": "3.11.7", "torch": "2.13.0"},
        "seconds": 312.4,
        "peak_rss_mb": 2310.5,
        "seed": 7,
        "study": {
            "title": "A made-up study",
            "subjects": list(subjects),
            "simulated": known == "true",
            "space": "fsaverage5",
            "n_images": 9600,
            "n_held_out_images": 1240,
            "n_dropped_vertices": dict.fromkeys(subjects, 0),
        },
    }
    if features:
        summary["decoding"] = _write_decoding(folder, subjects, features, areas, vertices, rng)
        if tested:
            _write_tests(folder, subjects, features)
            for part in summary["decoding"].values():
                part["ridge_r"] = part["r"] - 0.04
    if encoded:
        summary |= _write_encoding(folder, encoded, areas, rng, known=known, calibrated=calibrated)
    for subject in subjects:
        _write_labels(folder, subject, areas)
    _write_settings(folder, subjects, features, encoded)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def _areas():
    """Return bands of occipital cortex as areas, and the vertices of a mask around them."""
    from neuroigc.surface.spaces import load_mesh

    areas, vertices = {}, {}
    for hemisphere in ("left", "right"):
        points, _ = load_mesh("fsaverage5", "sphere", hemisphere)
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        pole = np.array([0.35 if hemisphere == "left" else -0.35, -0.93, -0.1])
        distance = np.degrees(np.arccos(np.clip(points @ pole / np.linalg.norm(pole), -1, 1)))
        labels = np.digitize(distance, [12, 18, 24, 30]) + 1
        labels[distance >= 30] = 0
        body = np.array([-0.7 if hemisphere == "left" else 0.7, -0.7, 0.1])
        labels[points @ body / np.linalg.norm(body) > np.cos(np.radians(9))] = 5
        areas[hemisphere] = labels.astype(np.int32)
        vertices[hemisphere] = np.flatnonzero((distance < 45) | (labels > 0))
    return areas, vertices


def _names(areas, vertices):
    table = np.array(["elsewhere", *AREAS, "bodies"])
    return {side: table[areas[side][vertices[side]]] for side in areas}


def _write_decoding(folder, subjects, features, areas, vertices, rng):
    from neuroigc.surface import SurfaceMap

    names = _names(areas, vertices)
    rows, scores = [], []
    for subject in subjects:
        for feature in features:
            planned = _IGC.get(feature, _IGC["luminance_contrast"])
            total = 0.0
            columns = []
            for side in ("left", "right"):
                values = rng.normal(0, 1e-4, len(vertices[side]))
                for area in [*AREAS, "bodies", "elsewhere"]:
                    inside = names[side] == area
                    share = planned.get(area, 0.02) / 2 * rng.normal(1, 0.1)
                    values[inside] += share / inside.sum()
                    rows.append(
                        (subject, side, "combined" if area == "elsewhere" else "visual", area,
                         feature, values[inside].sum(), 0.01, inside.sum())
                    )  # fmt: skip
                total += values.sum()
                columns.append(values)
            scores.append((subject, feature, total, 240))
            surface_map = SurfaceMap.from_columns(
                np.concatenate(columns),
                vertices,
                space="fsaverage5",
                name=f"IGC of {feature}",
                units="correlation per vertex",
            )
            z = {side: part / 1e-4 for side, part in surface_map.data.items()}
            for stat, one in (("igc", surface_map), ("z", SurfaceMap(z, name="z"))):
                one.to_gifti(folder / f"sub-{subject}", subject=subject, desc=feature, stat=stat)
    columns = ["subject", "hemisphere", "atlas", "roi", "output"]
    columns += ["igc", "standard_error", "n_vertices"]
    _write_table(folder / "roi.tsv", pd.DataFrame(rows, columns=columns))
    _write_table(
        folder / "decoding.tsv", pd.DataFrame(scores, columns=["subject", "output", "r", "n_test"])
    )
    _write_model(folder, "decoder", {"hidden": [128] * 5, "activation": "mish", "dropout": 0.3})
    (folder / "attributions").mkdir(exist_ok=True)
    for subject in subjects:
        settings = {"tolerance": 0.05, "max_gradients": None, "baseline": "PairedBaseline"}
        settings["n_permutations"] = 199
        np.savez(
            folder / "attributions" / f"sub-{subject}_decoding.npz",
            attributions=np.zeros((len(features), 3), np.float32),
            n_samples=240 + 2 * int(subject),
            n_gradients=9 + 4 * int(subject),
            numerical_error=np.linspace(0.02, 0.034, len(features)),
            settings=json.dumps(settings),
        )
    return {
        feature: {
            "r": float(np.mean([score[2] for score in scores if score[1] == feature])),
            "completeness_gap": 1.3e-5,
            "numerical_error": 0.041,
            "n_gradients": 17,
        }
        for feature in features
    }


def _write_tests(folder, subjects, features):
    """Add intervals and p-values to what is there, and write group.tsv and sanity.tsv."""
    from neuroigc.cli.statistics import group_table

    read = {"sep": "\t", "dtype": {"subject": str}}
    rois = pd.read_csv(folder / "roi.tsv", **read)
    reach = 1.96 * rois["standard_error"]
    p = np.clip(np.exp(-(np.abs(rois["igc"]) / 0.02)), 0.005, 1)
    rois = rois.assign(low=rois["igc"] - reach, high=rois["igc"] + reach, p=p)
    rois = rois.assign(p_fwe=np.minimum(5 * p, 1), p_fdr=np.minimum(2 * p, 1))
    _write_table(folder / "roi.tsv", rois)
    if len(subjects) > 1:
        _write_table(folder / "group.tsv", group_table(rois))
    scores = pd.read_csv(folder / "decoding.tsv", **read)
    scores["ridge_r"] = scores["r"] - 0.04
    for name in ("r", "ridge_r"):
        scores[f"{name}_low"], scores[f"{name}_high"] = scores[name] - 0.05, scores[name] + 0.05
    _write_table(folder / "decoding.tsv", scores)
    checks = [
        (subject, feature, check, value, value - 0.1, value + 0.1, 0.2, light, meaning)
        for subject in subjects
        for feature in features
        for check, value, light, meaning in (
            ("random_weights", 0.03, "green", "maps of random weights are unlike"),
            ("planted_feature", 0.31, "amber", "what was planted is found, not all of it"),
            ("shuffled_labels", np.nan, "red", "could not be told"),
        )
    ]
    names = ["subject", "output", "check", "value", "low", "high", "limit", "light", "meaning"]
    _write_table(folder / "sanity.tsv", pd.DataFrame(checks, columns=names))


def _write_encoding(folder, encoded, areas, rng, *, known, calibrated):
    from neuroigc.surface import SurfaceMap

    (folder / "attributions").mkdir(exist_ok=True)
    tables = []
    for subject in encoded:
        parts = []
        for side in ("left", "right"):
            chosen = np.flatnonzero((areas[side] > 0) & (areas[side] < 5))
            parts.append(_receptive_fields(subject, side, chosen, areas[side][chosen], rng))
        table = pd.concat(parts, ignore_index=True)
        _write_maps(folder, subject, table, rng, windows=calibrated)
        stats = {"angle": "angle_deg", "eccen": "eccentricity_deg", "size": "size_deg", "r2": "r2"}
        for stat, column in stats.items():
            data = {}
            for side in ("left", "right"):
                rows = table[table["hemisphere"] == side]
                data[side] = np.full(10242, np.nan, np.float32)
                data[side][rows["vertex"]] = rows[column]
            units = "" if stat == "r2" else "deg"
            SurfaceMap(data, name=f"pRF {stat}", units=units).to_gifti(
                folder / f"sub-{subject}", subject=subject, desc="prf", stat=stat
            )
        name = f"encoder_sub-{subject}"
        if calibrated:
            _write_model(folder, name, {"channels": [16, 12]}, kind="FieldEncoder")
        else:
            _write_model(folder, name, {"channels": [16] * 5, "n_latents": 64})
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    true = [name for name in table if name.startswith("true_")]
    if known is None:
        table = table.drop(columns=true)
    elif known != "true":
        table = table.rename(columns={name: name.replace("true", known) for name in true})
    if calibrated:
        for name in ("x", "y", "size"):
            table[f"{name}_low"] = table[f"{name}_deg"] - 0.2
            table[f"{name}_high"] = table[f"{name}_deg"] + 0.2
        phantoms = pd.concat([_phantoms(subject, rng) for subject in encoded])
        _write_table(folder / "phantoms.tsv", phantoms)
    _write_table(folder / "prf.tsv", table)
    return {
        "encoding": {
            "median_r": float(table["encoder_r"].median()),
            "median_ridge_r": float(table["ridge_r"].median()),
            "median_noise_ceiling_r": float(table["noise_ceiling_r"].median()),
        },
        "prf": {
            "n_vertices": len(table),
            "median_centre_error_deg": 0.14,
            "r_eccentricity": 0.981,
            "r_angle": 0.992,
            "r_size": 0.74,
            "size_ratio": 1.28,
        },
    }


def _phantoms(subject, rng, n=120):
    """Return phantoms whose widths and exponents are estimated with errors that grow with noise."""
    from neuroigc.prf import Phantoms, PRFResult, learn_calibration, phantom_table

    ncsnr, exponent = rng.uniform(0.2, 0.9, n), rng.uniform(0.25, 1, n)
    x, y = rng.uniform(-4.2, 4.2, (2, n))
    size = np.exp(rng.uniform(np.log(0.3), np.log(2.5), n))
    off = rng.normal(0, 0.04, (3, n)) / ncsnr
    phantoms = Phantoms(np.empty((0, n), np.float32), x, y, size, exponent, ncsnr)
    estimates = PRFResult(
        x + off[0], y + off[1], 1.2 * size * np.sqrt(exponent) * np.exp(off[2]), np.ones(n),
        np.zeros(n), np.full(n, 0.9), np.full(n, "ok"), (EXTENT, EXTENT),
    ).with_exponent(exponent)  # fmt: skip
    table = phantom_table(learn_calibration(estimates, phantoms, quality=ncsnr))
    table = table.reset_index(names="phantom")
    table.insert(0, "subject", subject)
    return table


def _receptive_fields(subject, side, vertices, labels, rng):
    n = len(vertices)
    roi = np.array([AREAS[label - 1] for label in labels])
    eccentricity = 3.9 * np.sqrt(rng.random(n)) + 0.1
    angle = np.radians(rng.uniform(-85, 85, n) + (0 if side == "left" else 180))
    slope, intercept = np.array([_SIZE[area] for area in roi]).T
    size = slope * eccentricity + intercept
    x, y = eccentricity * np.cos(angle), eccentricity * np.sin(angle)
    ceiling = np.clip(rng.normal(0.6, 0.12, n), 0.1, 0.95)
    reached = ceiling * np.clip(rng.normal(0.75, 0.2, n), -0.1, 1.0)
    found_x, found_y = x + rng.normal(0, 0.12, n), y + rng.normal(0, 0.12, n)
    return pd.DataFrame(
        {
            "subject": subject,
            "hemisphere": side,
            "vertex": vertices,
            "roi": roi,
            "x_deg": found_x,
            "y_deg": found_y,
            "eccentricity_deg": np.hypot(found_x, found_y),
            "angle_deg": np.degrees(np.arctan2(found_y, found_x)) % 360,
            "size_deg": 1.25 * size * rng.normal(1, 0.08, n),
            "r2": np.clip(rng.normal(0.7, 0.12, n), 0, 1),
            "status": np.where(rng.random(n) < 0.95, "ok", "at_bound"),
            "encoder_r": reached,
            "ridge_r": 0.8 * reached,
            "noise_ceiling_r": ceiling,
            "true_x_deg": x,
            "true_y_deg": y,
            "true_size_deg": size,
        }
    )


def _write_maps(folder, subject, table, rng, *, windows, n=24):
    step = (np.arange(n) + 0.5) / n * EXTENT - EXTENT / 2
    x = table["x_deg"].to_numpy()[:, None, None]
    y = table["y_deg"].to_numpy()[:, None, None]
    size = table["size_deg"].to_numpy()[:, None, None]
    squares = (step[None, None, :] - x) ** 2 + (-step[None, :, None] - y) ** 2
    maps = np.exp(-squares / (2 * size**2)) * 0.01
    maps = maps + rng.normal(0, 0.001, maps.shape)
    settings = {"tolerance": 0.05, "max_gradients": 8, "baseline": "PairedBaseline"}
    if windows:
        settings = {"regime": "windows", "baseline": "PairedBaseline"}
    np.savez(
        folder / "attributions" / f"sub-{subject}_encoding.npz",
        attributions=maps.astype(np.float32),
        correlation=table["encoder_r"].to_numpy(),
        n_samples=4000 if windows else 240,
        n_gradients=64 if windows else 5,
        numerical_error=np.linspace(0.1, 0.3, len(table)),
        settings=json.dumps(settings),
    )


def _write_model(folder, name, parameters, *, kind=None):
    import hashlib

    (folder / "models").mkdir(exist_ok=True)
    weights = f"weights of {name}".encode()
    (folder / "models" / f"{name}.safetensors").write_bytes(weights)
    description = {
        "class": kind,
        "weights": {"sha256": hashlib.sha256(weights).hexdigest()},
        "parameters": {"learning_rate": 1e-3, "batch_size": 128, **parameters},
        "fitted": {"history_": {"train_loss": [1.0] * 23}},
    }
    (folder / "models" / f"{name}.json").write_text(json.dumps(description), encoding="utf-8")


def _write_labels(folder, subject, areas):
    from neuroigc.surface.files import write_label_gifti

    (folder / "labels").mkdir(exist_ok=True)
    table = dict(enumerate((*AREAS, "bodies"), start=1))
    for side, letter in (("left", "L"), ("right", "R")):
        name = f"sub-{subject}_hemi-{letter}_space-fsaverage_den-10k_desc-visual_dseg.label.gii"
        write_label_gifti(folder / "labels" / name, areas[side], table, side, name="visual")


def _write_settings(folder, subjects, features, encoded):
    quoted = [json.dumps(list(part)) for part in (subjects, features, encoded)]
    text = f"""title = "A made-up study"
seed = 7
[data]
root = "../../somebody/private/data"
layout = "nsd"
space = "fsaverage5"
subjects = {quoted[0]}
mask = "../../somebody/private/nsdgeneral"
extent_deg = {EXTENT}
test_fraction = 0.1
truth = "truth"
"""
    if features:
        text += f"[decoding]\nfeatures = {quoted[1]}\ntolerance = 0.05\n"
    if encoded:
        text += f"[encoding]\nsubjects = {quoted[2]}\nimage_size = 48\npool = 2\n"
    (folder / "study.toml").write_text(text, encoding="utf-8")


def _write_table(path, table):
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
