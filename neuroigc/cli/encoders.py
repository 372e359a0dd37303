"""The encoding part of a study: images → windows → maps → receptive fields in true degrees.

Phantoms, whose fields are known, are trained, mapped and fitted beside the vertices. With
``model = "latents"`` there are none, and fields stay those of the maps.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc.cli.study_data import encoding_images, encoding_samples

__all__ = [
    "Fitted",
    "fit_fields",
    "has_windows",
    "map_fields",
    "ridge_correlation",
    "save_maps",
    "train_encoder",
]

# As many as a subject of NSD saw; maps of more would hardly be better.
MOST_MAPPED = 10_000
# Tiles along a side of the contrast maps that ridge regression predicts responses from, at most,
# and pixels along a tile's, at least.
RIDGE_TILES, TILE_PIXELS = 16, 3
# Signal-to-noise ratios of the phantoms where a release does not tell the vertices': vertices
# are then likened to phantoms that are predicted as well.
USUAL_NCSNR = np.geomspace(0.15, 1.5, 64)


class Fitted(NamedTuple):
    """Receptive fields of a subject's vertices, the encoder's accuracy, and the phantoms."""

    fields: object
    encoder_r: np.ndarray
    phantoms: pd.DataFrame | None


def has_windows(config) -> bool:
    """Tell whether each vertex of the encoders has a window of its own."""
    return config.encoding.model == "fields"


def train_encoder(folder, subject: str, encoder) -> None:
    """Fit an encoder to a subject's vertices, and to phantoms where it can map these.

    Its windows, for maps alone, are then fitted to the held-out images as well, on which the
    encoder that is kept beside it shows how well it predicts.
    """
    samples = encoding_samples(folder, subject, held_out=False)
    if has_windows(folder.config):
        phantoms = _make_phantoms(folder, subject, samples)
        encoder.fit(*_with_phantoms(samples, phantoms), sample_weight=samples.n_repeats)
        held_out = encoding_samples(folder, subject, held_out=True)
        parts = [_with_phantoms(part, phantoms) for part in (samples, held_out)]
        images, responses = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        known = samples.n_repeats is not None
        repeats = np.concatenate([samples.n_repeats, held_out.n_repeats]) if known else None
        refined = copy.deepcopy(encoder).refine(images, responses, sample_weight=repeats)
        refined.save(folder.model(_refined(subject)))
    else:
        encoder.fit(samples.images, samples.responses)
    encoder.save(folder.model(_name(subject)))


def _name(subject):
    return f"encoder_sub-{subject}"


def _refined(subject):
    return f"encoder_sub-{subject}_refined"


def _with_phantoms(samples, phantoms):
    """Return images, and the responses of vertices and phantoms to them."""
    return samples.images, np.concatenate(
        [samples.responses, phantoms.responses[samples.rows]], axis=1
    )


def _make_phantoms(folder, subject, samples):
    """Make phantoms for all images that a subject saw, and keep them beside the models."""
    from neuroigc.datasets import SubjectData
    from neuroigc.prf import make_phantoms

    config = folder.config
    repeats = SubjectData.load(folder.prepared(subject)).n_repeats
    phantoms = make_phantoms(
        encoding_images(folder, subject),
        extent_deg=config.data.extent_deg,
        n_repeats=1 if repeats is None else repeats,
        ncsnr=USUAL_NCSNR if samples.ncsnr is None else samples.ncsnr,
        n_phantoms=config.encoding.n_phantoms,
        seed=config.seed,
    )
    with atomic_path(folder.phantoms(subject)) as temporary, temporary.open("wb") as file:
        np.savez(file, **{f.name: getattr(phantoms, f.name) for f in fields(phantoms)})
    return phantoms


def _load_phantoms(folder, subject):
    from neuroigc.prf import Phantoms

    path = folder.phantoms(subject)
    with folder.reading("train", path), np.load(path) as file:
        return Phantoms(**{f.name: file[f.name] for f in fields(Phantoms)})


def _mapped_images(folder, subject):
    """Return the images that maps are made of: all, or so many of them by lot.

    Maps are of predictions, not of responses, so that images that were learned from serve, too.
    """
    images = encoding_images(folder, subject)
    if len(images) <= MOST_MAPPED:
        return images
    chosen = np.random.default_rng(folder.config.seed).permutation(len(images))[:MOST_MAPPED]
    return images[np.sort(chosen)]


def map_fields(folder, subject: str, *, progress: bool):
    """Return the maps of a subject's vertices, then of the phantoms."""
    from neuroigc.attribution import window_correlation
    from neuroigc.models import FieldEncoder

    config = folder.config
    return window_correlation(
        FieldEncoder.load(folder.model(_refined(subject))).module_,
        _mapped_images(folder, subject),
        device=config.device,
        seed=config.seed,
        progress=progress,
    )


def save_maps(folder, subject: str, result) -> None:
    """Write maps of vertices and phantoms as two files; that of the vertices says all is done."""
    n_vertices = len(result.attributions) - len(_load_phantoms(folder, subject))
    by_output = [f.name for f in fields(result) if np.ndim(getattr(result, f.name))]
    for kind, rows in (
        ("phantoms", slice(n_vertices, None)),
        ("encoding", slice(0, n_vertices)),
    ):
        part = replace(result, **{name: getattr(result, name)[rows] for name in by_output})
        part.save(folder.attribution(subject, kind))


def fit_fields(folder, subject: str, samples, maps) -> Fitted:
    """Fit Gaussians to the maps of a subject's vertices, and calibrate them with the phantoms.

    ``samples`` are the held-out ones, ``maps`` the saved attributions of the vertices.
    """
    from neuroigc.prf import fit_prf

    if has_windows(folder.config):
        return _fit_windows(folder, subject, samples, maps)
    fitted = fit_prf(maps.attributions, extent_deg=folder.config.data.extent_deg)
    return Fitted(fitted, maps.correlation, None)


def ridge_correlation(folder, subject: str, samples) -> np.ndarray:
    """Return what ridge regression on the images' local contrast reaches, (n_vertices,).

    Of pixels themselves, vertices that respond to contrast know nothing.
    """
    from neuroigc.prf import contrast_energy
    from neuroigc.stats import ridge_baseline

    train = encoding_samples(folder, subject, held_out=False)
    side = train.images.shape[1]
    n_tiles = max(1, min(RIDGE_TILES, side // TILE_PIXELS))
    tiles = {"n_tiles": n_tiles, "surround_tiles": 0, "tile_pixels": max(side // n_tiles, 2)}
    inputs, shown = (
        contrast_energy(part.images, **tiles).reshape(len(part.images), -1)
        for part in (train, samples)
    )
    seed = folder.config.seed
    baseline = ridge_baseline(
        inputs, train.responses, shown, samples.responses, groups=train.shown, seed=seed
    )
    return baseline.scores.r


def _fit_windows(folder, subject, samples, maps):
    from neuroigc.attribution import IGCResult
    from neuroigc.models import FieldEncoder
    from neuroigc.prf import calibrate_prfs, fit_prf, phantom_table, stimulus_power

    extent, phantoms = folder.config.data.extent_deg, _load_phantoms(folder, subject)
    encoder, refined = (
        FieldEncoder.load(folder.model(name)) for name in (_name(subject), _refined(subject))
    )
    exponent = refined.receptive_fields(extent)["exponent"]
    power = stimulus_power(_mapped_images(folder, subject), shape=maps.attributions.shape[1:])
    n = len(maps.attributions)
    both = [
        fit_prf(
            part.attributions,
            extent_deg=extent,
            power=power,
            standard_errors=part.standard_errors,
        ).with_exponent(own)
        for part, own in (
            (maps, exponent[:n]),
            (IGCResult.load(folder.attribution(subject, "phantoms")), exponent[n:]),
        )
    ]
    r = encoder.correlation(*_with_phantoms(samples, phantoms))
    try:
        calibrated, calibration = calibrate_prfs(
            *both, phantoms, quality=r[:n], phantom_quality=r[n:]
        )
    except InputError as error:
        print(
            f"neuroigc: sub-{subject}: receptive fields are not calibrated, and have no "
            f"intervals: {error}",
            file=sys.stderr,
        )
        # Errors of fits to maps, which nothing has scaled, would promise too much.
        names = ("x_error_deg", "y_error_deg", "size_error_deg")
        return Fitted(replace(both[0], **dict.fromkeys(names)), r[:n], None)
    return Fitted(calibrated, r[:n], phantom_table(calibration))
