"""The releases a study can start from, behind one interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuroigc._validation import InputError
from neuroigc.cli.config import RoiConfig, StudyConfig

__all__ = ["AlgonautsSource", "NsdSource", "open_source"]


def open_source(config: StudyConfig):
    """Return the source that ``config.data.layout`` names."""
    root = Path(config.data.root)
    if not root.is_dir():
        raise InputError(
            "[data] root",
            expected="a folder",
            got=f"{root}, which is not there",
            fix="`neuroigc verify DATASET ROOT` says what should lie in it.",
        )
    return {"nsd": NsdSource, "algonauts": AlgonautsSource}[config.data.layout](config)


class NsdSource:
    """The NSD release layout, real or simulated."""

    def __init__(self, config: StudyConfig) -> None:
        self.data = config.data
        self.root = Path(config.data.root)
        self._mask = None

    def load(self, subject: str, *, progress: bool = False):
        """Return `SubjectData` of one subject inside the mask."""
        from neuroigc.datasets import load_nsd

        sessions = self.data.sessions
        return load_nsd(
            self.root,
            subject,
            space=self.data.space,
            beta_version=self.data.beta_version,
            sessions=None if sessions is None else range(1, sessions + 1),
            mask=self.mask(),
            progress=progress,
        )

    def images(
        self,
        subject: str,  # noqa: ARG002 - all subjects' images are in one file
        image_ids: np.ndarray,
        *,
        size: int | None = None,
    ) -> np.ndarray:
        """Return grey images (n_images, size, size) in 0-1."""
        from neuroigc.datasets import load_nsd_images

        return load_nsd_images(self.root, image_ids, size=size)

    def mask(self):
        """Return the vertices to use, a dict of hemisphere to bool array, or None for all."""
        from neuroigc.surface.files import hemisphere_paths, read_labels

        if self.data.mask == "all":
            return None
        if self._mask is None:
            path = self._label_path(self.data.space, self.data.mask or "nsdgeneral")
            self._mask = {
                side: read_labels(file)[0] > 0 for side, file in hemisphere_paths(path).items()
            }
        return self._mask

    def atlas(self, subject: str, rois: RoiConfig):
        """Return the subject's areas, several atlases combined into one."""
        return _merge([self._load_atlas(subject, name) for name in rois.atlases], rois)

    def _load_atlas(self, subject, name):
        """Load a subject's own labels if they lie on the betas' surface, else the group's."""
        from neuroigc.surface import get_space, load_atlas
        from neuroigc.surface.files import read_labels

        own = self._label_path(f"subj{subject}", name)
        group = self._label_path(self.data.space, name)
        first = Path(str(own).replace("{hemi}", "lh"))
        if not first.exists():
            return load_atlas(group)
        n_labels, n_vertices = len(read_labels(first)[0]), get_space(self.data.space).n_vertices
        if n_labels == n_vertices:
            return load_atlas(own)
        if Path(str(group).replace("{hemi}", "lh")).exists():
            return load_atlas(group)
        raise InputError(
            f"[rois] atlases {name!r}",
            expected=f"labels on {self.data.space}, {n_vertices} a hemisphere",
            got=f"{n_labels} in {first}, on the subject's own surface",
            fix="Resample them, and give the path of the result with {hemi} and {subject} in it.",
        )

    def _label_path(self, owner, name):
        if "{hemi}" in name:
            return self.root / name.replace("{subject}", owner)
        return self.root / "nsddata" / "freesurfer" / owner / "label" / f"{{hemi}}.{name}.mgz"


class AlgonautsSource:
    """The layout of the Algonauts 2023 challenge."""

    def __init__(self, config: StudyConfig) -> None:
        self.root = Path(config.data.root)

    def load(self, subject: str, *, progress: bool = False):  # noqa: ARG002 - it is quick
        """Return `SubjectData` of one subject's challenge vertices."""
        from neuroigc.datasets import load_algonauts

        return load_algonauts(self.root, subject)

    def images(self, subject: str, image_ids: np.ndarray, *, size: int | None = None) -> np.ndarray:
        """Return grey images (n_images, size, size) in 0-1 that the subject saw."""
        from neuroigc.datasets import load_algonauts_images

        images, _ = load_algonauts_images(self.root, subject, image_ids=image_ids, size=size)
        return images

    def atlas(self, subject: str, rois: RoiConfig):
        """Return the subject's areas, several classes of masks combined into one."""
        from neuroigc.datasets import load_algonauts_rois
        from neuroigc.surface.atlas import Atlas

        atlases = []
        for name in rois.atlases:
            labels, table = load_algonauts_rois(self.root, subject, name)
            atlases.append(Atlas(name, labels, table))
        return _merge(atlases, rois)


def _merge(atlases, rois):
    """Combine atlases, after each merge was done in the one atlas that has its parts."""
    from neuroigc.surface.atlas import combine

    for area, parts in rois.merge.items():
        homes = [i for i, atlas in enumerate(atlases) if set(parts) <= set(atlas.names)]
        if not homes:
            choices = "; ".join(f"{atlas.name}: {', '.join(atlas.names)}" for atlas in atlases)
            raise InputError(
                f"[rois.merge] {area}",
                expected=f"areas of one atlas ({choices})",
                got=", ".join(parts),
            )
        atlases[homes[0]] = atlases[homes[0]].merge({area: parts})
    return combine(atlases) if len(atlases) > 1 else atlases[0]
