"""What the first stage leaves besides responses: the encoders' images, and a line to read."""

from __future__ import annotations

import numpy as np

from neuroigc.datasets import SubjectData
from neuroigc.datasets.image_cache import cache_images

__all__ = ["describe_subject", "image_owners", "write_images"]

TIMES = {1: "once", 2: "twice", 3: "three times"}


def image_owners(folder, subjects) -> dict[int, str]:
    """Return for each image one of the subjects that saw it."""
    owners: dict[int, str] = {}
    for subject in subjects:
        image_ids = SubjectData.load(folder.prepared(subject)).image_ids
        owners.update(dict.fromkeys(image_ids.tolist(), subject))
    return owners


def write_images(folder, source, *, progress: bool = False) -> None:
    """Cache the images that subjects with an encoder saw, at its size, once for all of them."""
    config = folder.config
    owners, size = image_owners(folder, config.encoding.subjects), config.encoding.image_size

    def read(image_ids):
        images = np.empty((len(image_ids), size, size), dtype=np.float32)
        subjects = np.array([owners[number] for number in image_ids.tolist()])
        for subject in np.unique(subjects):
            rows = subjects == subject
            images[rows] = source.images(str(subject), image_ids[rows], size=size)
        return images

    settings = {"size": size, "gray": True}
    cache_images(folder.images, list(owners), read, settings=settings, progress=progress)


def describe_subject(data: SubjectData) -> str:
    """Say in one line what was prepared of a subject, and what was left out."""
    parts = [f"{len(data.image_ids):,} images"]
    if data.n_repeats is not None:
        numbers, counts = np.unique(data.n_repeats, return_counts=True)
        shown = (
            f"{count:,} {TIMES.get(int(n), f'{n} times')}"
            for n, count in zip(numbers[::-1], counts[::-1], strict=True)
        )
        parts[0] += f" (shown {', '.join(shown)})"
    parts[0] += f", {int(data.is_test.sum()):,} of them for testing"
    parts.append(
        f"{data.responses.shape[1]:,} vertices kept, {sum(data.n_dropped.values()):,} dropped"
    )
    provenance = data.provenance or {}
    if invalid := provenance.get("n_invalid_vertices_by_session"):
        listed = ", ".join(f"{sum(n.values()):,} in session {s}" for s, n in invalid.items())
        parts[1] += f" (invalid: {listed})"
    if data.noise_ceiling is None:
        parts.append("noise ceiling unknown")
    else:
        percent = 100 * float(np.nanmedian(data.noise_ceiling))
        parts.append(f"median noise ceiling {percent:.1f} % (from {provenance['ncsnr_from']})")
    return f"sub-{data.subject}: {'; '.join(parts)}"
