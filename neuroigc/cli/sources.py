"""The releases a study can start from, behind one interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from neuroigc._validation import InputError
from neuroigc.cli.arrays_source import ArraysSource
from neuroigc.cli.config import RoiConfig, StudyConfig
from neuroigc.datasets import image_statistics
from neuroigc.datasets._paths import is_inside

__all__ = ["AlgonautsSource", "NsdSource", "label_path", "merge_areas", "open_source"]

# Full-size images of one block are in memory while their features are computed.
IMAGE_BLOCK = 256


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
    sources = {"nsd": NsdSource, "algonauts": AlgonautsSource, "arrays": ArraysSource}
    return sources[config.data.layout](config)


class _ImageSource:
    """What releases with images have in common: features are their statistics."""

    def features(self, subject: str, image_ids: np.ndarray) -> pd.DataFrame:
        """Return the statistics of some images that a subject saw."""
        blocks = []
        for start in range(0, len(image_ids), IMAGE_BLOCK):
            block = image_ids[start : start + IMAGE_BLOCK]
            statistics = image_statistics(
                self.images(subject, block), extent_deg=self.data.extent_deg
            )
            blocks.append(statistics.set_index(pd.Index(block, name="image_id")))
        return pd.concat(blocks)


class NsdSource(_ImageSource):
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
        return merge_areas([self._load_atlas(subject, name) for name in rois.atlases], rois)

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
            return label_path(self.root, name, owner)
        return self.root / "nsddata" / "freesurfer" / owner / "label" / f"{{hemi}}.{name}.mgz"


class AlgonautsSource(_ImageSource):
    """The layout of the Algonauts 2023 challenge."""

    def __init__(self, config: StudyConfig) -> None:
        self.data = config.data
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
        return merge_areas(atlases, rois)


def label_path(root: Path, name: str, owner: str) -> Path:
    """Return the path below the root of files of labels, with {hemi} where it stood."""
    name = name.replace("{subject}", owner)
    if not is_inside(name.replace("{hemi}", "lh")):
        raise InputError(
            "[data] mask or [rois] atlases",
            expected=f"a path that stays inside {root}",
            got=repr(name),
            fix="Copy the files there.",
        )
    return root / name


def merge_areas(atlases, rois):
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
