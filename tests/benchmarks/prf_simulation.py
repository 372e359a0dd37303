"""One invented subject of NSD's real size, for the benchmarks of receptive fields.

The same cortex, images and noise as `neuroigc.datasets.make_study`, without files in between:
thousands of distinct images with one to three repeats each, single trials standardised session
by session and averaged over repeats.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from neuroigc.datasets.stimuli import prepare_image
from neuroigc.datasets.synthetic_betas import HEMISPHERES, Subject
from neuroigc.datasets.synthetic_images import make_scene
from neuroigc.datasets.synthetic_responses import EXTENT_DEG, SeeingCortex, local_contrast
from neuroigc.datasets.synthetic_retinotopy import area_names, make_visual_cortex

__all__ = ["EXTENT_DEG", "Simulation", "load_simulation"]

SCENE_SIZE, TRIALS_PER_SESSION = 96, 750


@dataclass(frozen=True)
class Simulation:
    """Images, trial-averaged responses of V1 to hV4, and what they were made from.

    Attributes
    ----------
    images : array of shape (n_images, size, size)
        Grey levels, 0..1.
    responses : array of shape (n_images, n_vertices)
    n_repeats : array of shape (n_images,)
    ncsnr : array of shape (n_vertices,)
        Signal SD over noise SD of single trials.
    x_deg, y_deg, size_deg, exponent, coverage : array of shape (n_vertices,)
        True receptive fields, and the share of each that lies on the images.
    area : array of shape (n_vertices,) of str
    """

    images: np.ndarray
    responses: np.ndarray
    n_repeats: np.ndarray
    ncsnr: np.ndarray
    x_deg: np.ndarray
    y_deg: np.ndarray
    size_deg: np.ndarray
    exponent: np.ndarray
    coverage: np.ndarray
    area: np.ndarray

    @property
    def truth(self) -> dict[str, np.ndarray]:
        """Return centre and size, as `neuroigc.prf.compare_prfs` takes them."""
        return {name: getattr(self, name) for name in ("x_deg", "y_deg", "size_deg")}

    def first(self, n_images: int) -> Simulation:
        """Return the same vertices with fewer images."""
        by_image = {"images", "responses", "n_repeats"}
        kept = {
            field.name: getattr(self, field.name)[
                slice(n_images if field.name in by_image else None)
            ]
            for field in fields(self)
        }
        return Simulation(**kept)


def load_simulation(
    folder: Path | None, *, n_images: int = 9_000, size: int = 48, number: int = 1, seed: int = 0
) -> Simulation:
    """Make the data of one subject, or read them where they were made before."""
    path = None if folder is None else folder / f"subject{number}_{n_images}_{size}_{seed}.npz"
    if path is not None and path.exists():
        with np.load(path) as file:
            return Simulation(**{field.name: file[field.name] for field in fields(Simulation)})
    simulation = _make(n_images, size, number, seed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{f.name: getattr(simulation, f.name) for f in fields(Simulation)})
    return simulation


def _make(n_images: int, size: int, number: int, seed: int) -> Simulation:
    rng = np.random.default_rng([seed, number])
    cortex = make_visual_cortex(rng)
    observer = SeeingCortex.of(cortex, image_size=SCENE_SIZE)
    with ProcessPoolExecutor() as pool:
        blocks = np.array_split(np.arange(n_images), -(-n_images // 100))
        parts = list(pool.map(partial(_see, seed, size, observer), blocks))
    images, signals = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    subject = Subject.make(number, cortex, observer, signals, rng)
    n_repeats = rng.permutation(np.arange(n_images) % 3 + 1)
    rows = rng.permutation(np.repeat(np.arange(n_images), n_repeats))
    responses = np.zeros((n_images, len(subject.vertices)), np.float32)
    for session in np.array_split(rows, -(-len(rows) // TRIALS_PER_SESSION)):
        measured = subject.measure(session, rng)
        betas = np.concatenate([measured[h] for h in HEMISPHERES])[subject.vertices].T
        np.add.at(responses, session, (betas - betas.mean(0)) / betas.std(0))
    responses /= n_repeats[:, None].astype(np.float32)

    def gather(values: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([values[h][observer.vertices[h]] for h in HEMISPHERES])

    area = area_names(gather(cortex.labels["prf-visualrois"]))
    x, y = gather(cortex.x_deg), gather(cortex.y_deg)
    # Within the field: centres on the image.
    with np.errstate(invalid="ignore"):
        kept = (area != "") & (np.abs(x) < EXTENT_DEG / 2) & (np.abs(y) < EXTENT_DEG / 2)
    return Simulation(
        images,
        responses[:, kept],
        n_repeats,
        subject.ncsnr[subject.vertices][kept],
        x[kept],
        y[kept],
        gather(cortex.size_deg)[kept],
        gather(cortex.exponent)[kept],
        observer.coverage[kept],
        area[kept].astype(str),
    )


def _see(
    seed: int, size: int, observer: SeeingCortex, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return some images as an encoder takes them, and all vertices' responses to them."""
    scenes = [make_scene(seed, int(number), size=SCENE_SIZE) for number in numbers]
    pixels = np.stack([scene.pixels for scene in scenes])
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / np.float32(255)
    categories = np.stack([scene.categories for scene in scenes])
    small = np.stack([prepare_image(image, size=size) for image in pixels])
    return small, observer.respond(local_contrast(grey), categories)
