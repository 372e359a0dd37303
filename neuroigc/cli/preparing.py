"""What the first stage leaves besides responses: the encoders' images, and a line to read."""

from __future__ import annotations

import numpy as np

from neuroigc.datasets import SubjectData
from neuroigc.datasets.image_cache import cache_images
from neuroigc.datasets.preparation import count_kept

__all__ = ["Before", "describe_subject", "image_owners", "write_images"]

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
    parts.append(_describe_ceiling(data.noise_ceiling, provenance.get("ncsnr_from")))
    return f"sub-{data.subject}: {'; '.join(parts)}"


def _describe_ceiling(ceiling, origin) -> str:
    if ceiling is None:
        return "noise ceiling unknown (no image has three trials, and the release has no ncsnr)"
    share = 100 * float(np.mean(ceiling > 0))
    text = f"median noise ceiling {100 * float(np.nanmedian(ceiling)):.1f} % (from {origin}"
    if share > 50:
        return f"{text})"
    if share == 0:
        return f"{text}; no vertex answers to an image's trials more alike than to others')"
    return f"{text}; only {share:.1f} % of the vertices have one above zero)"


class Before:
    """What there was of a subject before it was prepared, to say what was done again."""

    def __init__(self, folder) -> None:
        self._path = folder / "subject.json"
        self._changed, self._n_sessions = _changed(self._path), count_kept(folder)

    def describe(self) -> str:
        """Say what was kept and what not; nothing of a subject that was new."""
        if self._changed is not None and self._changed == _changed(self._path):
            return "kept as it was"
        if self._n_sessions:
            return f"{self._n_sessions} sessions kept, the rest read"
        return "" if self._changed is None else "made again"


def _changed(path):
    return path.stat().st_mtime_ns if path.exists() else None
