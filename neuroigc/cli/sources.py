"""The releases a study can start from, behind one interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from neuroigc._validation import InputError, check_choice
from neuroigc.cli.arrays_source import ArraysSource
from neuroigc.cli.config import RoiConfig, StudyConfig
from neuroigc.datasets import image_statistics
from neuroigc.datasets._paths import NATIVE, is_inside

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

    def shown(self, image_ids: np.ndarray) -> np.ndarray:
        """Return numbers of what was shown, which the images' own are."""
        return image_ids

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
        _check_template(self.data.space)

    def check(self, subject: str):
        """Return the plan of one subject inside the mask, every file of which was checked."""
        from neuroigc.datasets.preparation import open_nsd

        sessions, test_images = self.data.sessions, self.data.test_images
        return open_nsd(
            self.root,
            subject,
            space=self.data.space,
            beta_version=self.data.beta_version,
            sessions=range(1, sessions + 1) if isinstance(sessions, int) else sessions,
            mask=self.mask(),
            test_images=test_images if isinstance(test_images, str) else list(test_images),
        )

    def prepare(
        self,
        subject: str,
        folder: Path,
        *,
        keep: bool,  # noqa: ARG002 - what lies in the folder says itself what it was made from
        progress: bool = False,
    ):
        """Return `SubjectData` of one subject, prepared in a folder."""
        from neuroigc.datasets.preparation import prepare_opened

        plan = self.check(subject)
        return prepare_opened(plan, folder, dtype=self.data.dtype, progress=progress)

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
        from neuroigc.surface import nest
        from neuroigc.surface.files import hemisphere_paths, read_labels

        if self.data.mask == "all":
            return None
        if self._mask is None:
            space, path = self._group_labels(self.data.mask or "nsdgeneral")
            labels = {side: read_labels(file)[0] for side, file in hemisphere_paths(path).items()}
            if space != self.data.space:
                labels = {side: nest(v, space, self.data.space) for side, v in labels.items()}
            self._mask = {side: values > 0 for side, values in labels.items()}
        return self._mask

    def atlas(self, subject: str, rois: RoiConfig):
        """Return the subject's areas, several atlases combined into one."""
        return merge_areas([self._load_atlas(subject, name) for name in rois.atlases], rois)

    def _load_atlas(self, subject, name):
        """Load a subject's own labels if they lie on the betas' surface, else the group's."""
        from neuroigc.surface import get_space, load_atlas
        from neuroigc.surface.files import read_labels

        own = self._label_path(f"subj{subject}", name)
        group_space, group = self._group_labels(name)
        n_vertices = get_space(self.data.space).n_vertices
        if not _first(own).exists():
            return _nested(load_atlas(group), group_space, self.data.space)
        n_labels = len(read_labels(_first(own))[0])
        if n_labels == n_vertices:
            return load_atlas(own)
        if _first(group).exists():
            return _nested(load_atlas(group), group_space, self.data.space)
        raise InputError(
            f"[rois] atlases {name!r}",
            expected=f"labels on {self.data.space}, {n_vertices} a hemisphere",
            got=f"{n_labels} in {_first(own)}, on the subject's own surface",
            fix="Resample them, and give the path of the result with {hemi} and {subject} in it.",
        )

    def _group_labels(self, name):
        """Return the space and the path of a template's labels; fsaverage's nest."""
        path, finest = self._label_path(self.data.space, name), "fsaverage"
        if not _first(path).exists() and self.data.space.startswith(finest):
            finer = self._label_path(finest, name)
            if _first(finer).exists():
                return finest, finer
        return self.data.space, path

    def _label_path(self, owner, name):
        if "{hemi}" in name:
            return label_path(self.root, name, owner)
        return self.root / "nsddata" / "freesurfer" / owner / "label" / f"{{hemi}}.{name}.mgz"


class AlgonautsSource(_ImageSource):
    """The layout of the Algonauts 2023 challenge."""

    def __init__(self, config: StudyConfig) -> None:
        self.data = config.data
        self.root = Path(config.data.root)
        self.dtype = config.data.dtype

    def check(self, subject: str) -> None:
        """Do nothing: files are checked as they are read, which is quick."""

    def prepare(self, subject: str, folder: Path, *, keep: bool, progress: bool = False):  # noqa: ARG002
        """Return `SubjectData` of one subject's challenge vertices, prepared in a folder."""
        from neuroigc.datasets import SubjectData, load_algonauts

        if not (keep and (folder / "subject.json").exists()):
            load_algonauts(self.root, subject).save(folder, dtype=self.dtype)
        return SubjectData.load(folder)

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


def _check_template(space):
    """Raise unless atlases and maps can be had in a space, before its betas are read."""
    from neuroigc.surface import SPACES

    if space == NATIVE:
        raise InputError(
            "[data] space",
            expected=f"one of {', '.join(SPACES)}, on which areas, maps and tables lie",
            got=f"{space}, of which each subject has another",
            fix="No stage of this command goes that way; the release has the same betas on "
            "fsaverage. From Python, prepare_nsd, NeuralDecoder and "
            "integrated_gradient_correlation do, one subject at a time.",
        )
    check_choice("[data] space", space, SPACES)


def _first(path):
    """Return the file of the left hemisphere."""
    return Path(str(path).replace("{hemi}", "lh"))


def _nested(atlas, space, to):
    return atlas if space == to else atlas.nested(to)


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
