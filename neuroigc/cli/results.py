"""Attributions → the tables, maps and numbers that a study is read by."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import version

import numpy as np
import pandas as pd

import neuroigc
from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc.cli.columns import write_described_table
from neuroigc.cli.encoders import fit_fields, ridge_correlation
from neuroigc.cli.folder import SIMULATE, STAGES
from neuroigc.cli.sources import open_source
from neuroigc.cli.statistics import area_tests, group_table, light_counts, map_p_values
from neuroigc.cli.study_data import (
    HEMISPHERES,
    common_vertices,
    encoding_samples,
    load_features,
    read_table,
)
from neuroigc.datasets import SubjectData

__all__ = ["area_groups", "load_references", "write_prfs", "write_rois", "write_summary"]


# Whose versions are kept with the numbers that they made.
_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "matplotlib")
_SCORES = ("r", "completeness_gap", "numerical_error", "n_gradients")
_FIELD = ("x_deg", "y_deg", "size_deg")
_FITTED = ("roi", "status", "encoder_r", *_FIELD, *_SCORES[1:3])
# Share of variance that the reference fit explains.
_LEAST_REFERENCE_R2 = 0.1


def area_groups(folder, subject, vertices):
    """Return the columns of each area, hemisphere by hemisphere, and of what lies in none."""
    atlas = open_source(folder.config).atlas(subject, folder.config.rois)
    return atlas.groups(vertices, by_hemisphere=True, elsewhere=True)


def write_rois(folder, *, progress=False) -> None:
    """Write roi.tsv, group.tsv, decoding.tsv, and the maps of integrated gradient correlation.

    Where vertices are tested, also maps of their p-values.
    """
    from neuroigc.attribution import IGCResult
    from neuroigc.surface import SurfaceMap, aggregate_rois

    config = folder.config
    _write_description(folder)
    if not config.decoding:
        return
    source = open_source(config)
    vertices = common_vertices(folder)
    features = list(config.decoding.features)
    areas, scores = [], []
    for subject in config.data.subjects:
        result = IGCResult.load(folder.attribution(subject, "decoding"))
        table = aggregate_rois(
            result.attributions,
            source.atlas(subject, config.rois),
            vertices,
            subject=subject,
            outputs=features,
            standard_errors=dict(
                zip(result.settings["groups"], result.group_standard_errors.T, strict=True)
            ),
        )
        keys = ["hemisphere", "roi", "output"]
        areas.append(table.merge(area_tests(result, features), on=keys, how="left"))
        known = read_table(folder, "train", folder.scores(subject), ("output", "r"))
        tested = map_p_values(
            result, config.decoding.map_tests, vertices, config.data.space, progress=progress
        )
        for k, feature in enumerate(features):
            scores.append(
                {
                    "subject": subject,
                    "output": feature,
                    "r": result.correlation[k],
                    "n_test": result.n_samples,
                    "completeness_gap": result.completeness_gap[k],
                    "numerical_error": result.numerical_error[k],
                    "n_gradients": result.n_gradients,
                    **known.iloc[k].drop(["output", "r"]),
                }
            )
            for stat, (values, name, metadata) in _maps_of(result, k, tested, feature).items():
                SurfaceMap.from_columns(
                    values,
                    vertices,
                    space=config.data.space,
                    name=name,
                    units="",
                    metadata=metadata,
                ).to_gifti(folder.path / f"sub-{subject}", subject=subject, desc=feature, stat=stat)
    rois = pd.concat(areas)
    write_described_table(folder.path / "roi.tsv", rois)
    if len(config.data.subjects) > 1:
        write_described_table(folder.path / "group.tsv", group_table(rois))
    write_described_table(folder.path / "decoding.tsv", pd.DataFrame(scores))


def _maps_of(result, k, tested, feature) -> dict[str, tuple]:
    """Return values, name and metadata of the maps of one feature, by what they show."""
    values, errors = result.attributions[k], result.standard_errors[k]
    # A vertex without variation has neither a value nor an error.
    z = np.divide(values, errors, out=np.zeros_like(errors), where=errors > 0)
    name = f"ntegrated gradient correlation of {feature}"
    own = {"Correlation": float(result.correlation[k])}
    null = {
        "Permutations": result.settings["n_permutations"],
        "Family": "all vertices of both hemispheres",
    }
    maps = {"igc": (values, f"I{name}", own), "z": (z, f"I{name} over its standard error", own)}
    p_maps = {f"p-{test}": (p[k], f"p of the i{name}, {test}", null) for test, p in tested.items()}
    return maps | p_maps


def _write_description(folder):
    from neuroigc.surface.bids import write_dataset_description

    write_dataset_description(folder.path, name=folder.config.title)


def write_prfs(folder) -> None:
    """Write prf.tsv and the maps of angle, eccentricity, size and r2."""
    from neuroigc.attribution import IGCResult
    from neuroigc.stats import correlation_ceiling, normalised_correlation
    from neuroigc.surface import SurfaceMap

    config = folder.config
    tables, phantoms = [], []
    for subject in config.encoding.subjects if config.encoding else ():
        result = IGCResult.load(folder.attribution(subject, "encoding"))
        samples = encoding_samples(folder, subject, held_out=True)
        fitted = fit_fields(folder, subject, samples, result)
        if fitted.phantoms is not None:
            numbered = fitted.phantoms.reset_index(names="phantom")
            numbered.insert(0, "subject", subject)
            phantoms.append(numbered)
        table = fitted.fields.to_frame()
        table.insert(0, "subject", subject)
        table.insert(
            1, "hemisphere", np.repeat(HEMISPHERES, [len(samples.vertices[s]) for s in HEMISPHERES])
        )
        table.insert(2, "vertex", np.concatenate([samples.vertices[s] for s in HEMISPHERES]))
        table.insert(3, "roi", samples.roi)
        table["encoder_r"] = fitted.encoder_r
        if config.encoding.ridge:
            table["ridge_r"] = ridge_correlation(folder, subject, samples)
        table["completeness_gap"] = result.completeness_gap
        table["numerical_error"] = result.numerical_error
        if samples.noise_ceiling is not None:
            table["noise_ceiling_r"] = correlation_ceiling(samples.noise_ceiling)
            table["normalised_r"] = normalised_correlation(fitted.encoder_r, samples.noise_ceiling)
        if config.data.truth:
            table = table.join(_truth(folder, subject, samples.vertices))
        elif config.encoding.references:
            table = table.join(load_references(config, subject, samples.vertices))
        tables.append(table)
        for stat, column, units in (
            ("angle", "angle_deg", "degrees, counter-clockwise from the right horizontal"),
            ("eccen", "eccentricity_deg", "degrees of visual angle"),
            ("size", "size_deg", "degrees of visual angle"),
            ("r2", "r2", ""),
        ):
            SurfaceMap.from_columns(
                table[column].to_numpy(np.float32),
                samples.vertices,
                space=config.data.space,
                name=f"Population receptive field, {column}",
                units=units,
            ).to_gifti(folder.path / f"sub-{subject}", subject=subject, desc="prf", stat=stat)
    for name, parts in (("phantoms.tsv", phantoms), ("prf.tsv", tables)):
        if parts:
            write_described_table(folder.path / name, pd.concat(parts))


def _truth(folder, subject, vertices):
    from neuroigc.datasets.simulation import load_truth

    truth = load_truth(folder.config.data.root, int(subject))
    return pd.DataFrame(
        {
            f"true_{name}": np.concatenate(
                [truth[side][name][vertices[side]] for side in HEMISPHERES]
            )
            for name in _FIELD
        }
    )


def load_references(config, subject, vertices=None):
    """Return the reference fields of a subject's vertices, or None where none are given."""
    from neuroigc.prf import load_reference_prfs

    part = config.encoding
    if not part.references:
        return None
    path = part.references.replace("{subject}", f"subj{subject}")
    known = load_reference_prfs(path, kind=part.reference_kind, vertices=vertices)
    # Noise has receptive fields, too; an atlas says nothing about it.
    noise = known["r2"] < _LEAST_REFERENCE_R2
    return pd.DataFrame(
        {f"reference_{name}": np.where(noise, np.nan, known[name]) for name in _FIELD}
    )


def reliable(table: pd.DataFrame, areas) -> np.ndarray:
    """Tell which pRFs to summarise: in the areas, fitted, and with a good enough encoder."""
    from neuroigc.stats import reaches_ceiling

    keep = table["roi"].isin(areas) & (table["status"] == "ok")
    if "noise_ceiling_r" in table:
        # A receptive field is only as good as its encoder.
        keep &= reaches_ceiling(table["encoder_r"], table["noise_ceiling_r"] ** 2)
    return keep.to_numpy()


def write_summary(folder) -> None:
    """Write summary.json: the study in a few numbers."""
    config = folder.config
    features = load_features(folder)
    records = [record for stage in (SIMULATE, *STAGES) if (record := folder.record(stage))]
    summary = {
        "version": neuroigc.__version__,
        "versions": {"Python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        "seconds": round(sum(record.get("seconds", 0) for record in records), 1),
        "peak_rss_mb": round(max(record.get("peak_rss_mb", 0) for record in records)),
        "seed": config.seed,
        "study": {
            "title": config.title,
            "subjects": list(config.data.subjects),
            "simulated": config.data.truth,
            "space": config.data.space,
            "n_images": len(features),
            "n_held_out_images": int(features["held_out"].sum()),
            "n_dropped_vertices": {s: _n_dropped(folder, s) for s in config.data.subjects},
        },
    }
    if config.decoding:
        scores = read_table(folder, "roi", folder.path / "decoding.tsv", ("output", *_SCORES))
        summary["decoding"] = {
            feature: {
                "r": float(own["r"].mean()),
                # The worst subject's, so that nothing hides in a mean.
                "completeness_gap": float(own["completeness_gap"].abs().max()),
                "numerical_error": float(own["numerical_error"].max()),
                "n_gradients": float(own["n_gradients"].mean()),
                **({"ridge_r": float(own["ridge_r"].mean())} if "ridge_r" in own else {}),
            }
            for feature, own in scores.groupby("output", sort=False)
        }
        summary["study"]["n_vertices"] = sum(map(len, common_vertices(folder).values()))
        if config.decoding.sanity:
            checks = read_table(folder, "roi", folder.path / "sanity.tsv", ("check", "light"))
            summary["sanity"] = light_counts(checks)
    if config.encoding:
        table = read_table(folder, "prf", folder.path / "prf.tsv", _FITTED)
        summary |= _encoding_summary(table, config.encoding)
    with atomic_path(folder.path / "summary.json") as temporary:
        temporary.write_text(json.dumps(_without_nan(summary), indent=2) + "\n", encoding="utf-8")


def _without_nan(value):
    """Return ``value`` with null for what is not finite, which JSON cannot say otherwise."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _n_dropped(folder, subject):
    return int(sum(SubjectData.load(folder.prepared(subject)).n_dropped.values()))


def _encoding_summary(table, part):
    from neuroigc.prf import compare_prfs

    areas = part.rois
    inside = table[table["roi"].isin(areas)]
    summary = {"encoding": {"median_r": float(inside["encoder_r"].median())}}
    if "ridge_r" in inside:
        summary["encoding"]["median_ridge_r"] = float(inside["ridge_r"].median())
    summary["encoding"]["numerical_error"] = float(inside["numerical_error"].median())
    summary["encoding"]["completeness_gap"] = float(inside["completeness_gap"].abs().median())
    if "noise_ceiling_r" in table:
        summary["encoding"]["median_noise_ceiling_r"] = float(inside["noise_ceiling_r"].median())
        # Not of the ratio of the medians, nor clipped; where there is no ceiling there is none.
        summary["encoding"]["median_normalised_r"] = float(inside["normalised_r"].median())
    kept = table[reliable(table, areas)]
    summary["prf"] = {"n_vertices": len(kept)}
    for known in ("true", "reference"):
        if f"{known}_x_deg" in table:
            others = kept[[f"{known}_{name}" for name in _FIELD]].set_axis(_FIELD, axis=1)
            # Fewer than three vertices to compare leave nothing to say.
            with suppress(InputError):
                summary["prf"] |= compare_prfs(kept, others, within_deg=part.within_deg)
    if {"x_low", "true_x_deg"} <= set(table) and len(kept):
        for name in ("x", "y", "size"):
            true = kept[f"true_{name}_deg"]
            share = true.between(kept[f"{name}_low"], kept[f"{name}_high"]).mean()
            summary["prf"][f"coverage_{name}"] = float(share)
    return summary
