"""A study that starts from anyone's arrays: a folder with a dataset.toml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from neuroigc._validation import InputError
from neuroigc.cli.config import RoiConfig, StudyConfig

__all__ = ["ArraysSource"]


class ArraysSource:
    """Responses and targets as `neuroigc.datasets.load_arrays` reads them.

    Every row is a sample of its own, numbered from 0: what elsewhere is the number of an image.
    Held-out rows of one subject, image and targets count as one sample, numbered as the first of
    them, with their mean response: errors and tests take samples for independent.
    The subject of a row is its condition. Regions are files with {hemi} below the root, or, by
    the name "groups", those of the data set itself.
    """

    def __init__(self, config: StudyConfig) -> None:
        from neuroigc.datasets import load_arrays

        self.root, self.dtype = Path(config.data.root), config.data.dtype
        self.data = load_arrays(self.root)
        if self.data.vertices is None or self.data.responses.ndim != 2:
            raise InputError(
                f"{self.root / 'dataset.toml'}",
                expected="the vertices of the responses' columns, and their space",
                got="none",
                fix="Without a surface, call neuroigc.attribution from Python.",
            )
        shape = None if self.data.images is None else self.data.images.shape[1:3]
        if config.encoding and (shape is None or shape[0] != shape[1]):
            raise InputError(
                "[encoding]",
                expected="square images in dataset.toml, one for each sample",
                got="none" if shape is None else f"{shape[0]} x {shape[1]} pixels",
            )
        subjects, conditions = config.data.subjects, self.data.conditions
        if conditions is None and len(subjects) > 1:
            raise InputError(
                "[data] subjects",
                expected="one, where the data set has no conditions",
                got=", ".join(subjects),
            )
        self.rows = {
            subject: np.arange(len(self.data.responses))
            if conditions is None
            else np.flatnonzero(conditions == int(subject))
            for subject in subjects
        }
        self._check_splits(config)

    def check(self, subject: str) -> None:
        """Do nothing: all was checked as the data set was opened."""

    def prepare(self, subject: str, folder: Path, *, keep: bool, progress: bool = False):  # noqa: ARG002
        """Return `SubjectData` of the subject's samples, prepared in a folder."""
        from neuroigc.datasets import SubjectData

        if not (keep and (folder / "subject.json").exists()):
            self._load(subject).save(folder, dtype=self.dtype)
        return SubjectData.load(folder)

    def _load(self, subject):
        """Return `SubjectData` of the samples whose condition is the subject's number."""
        from neuroigc.datasets import SubjectData
        from neuroigc.surface.spaces import HEMISPHERES, get_space

        rows, n = self.rows[subject], get_space(self.data.space).n_vertices
        if not len(rows):
            raise InputError(
                "[data] subjects",
                expected=f"numbers among {np.unique(self.data.conditions).tolist()}",
                got=repr(subject),
                fix="The subject of a sample is its condition.",
            )
        n_left = len(self.data.vertices["left"])
        starts = {"left": 0, "right": n_left}
        columns, vertices, n_dropped = [], {}, {}
        responses = self.data.responses[rows].astype(np.float32)
        of_one = self._independent(rows)
        n_repeats = np.bincount(of_one)
        if len(n_repeats) < len(rows):
            order = np.argsort(of_one, kind="stable")
            starts_of = np.cumsum(n_repeats) - n_repeats
            sums = np.add.reduceat(responses[order], starts_of, axis=0, dtype=np.float64)
            responses = (sums / n_repeats[:, None]).astype(np.float32)
            rows = rows[order[starts_of]]
        varies = np.ptp(responses, axis=0) > 0
        for side in HEMISPHERES:
            order = np.argsort(self.data.vertices[side])
            kept = order[varies[order + starts[side]]]
            columns.append(kept + starts[side])
            vertices[side] = self.data.vertices[side][kept]
            n_dropped[side] = len(order) - len(kept)
        is_test = self.data.is_test
        return SubjectData(
            subject=subject,
            responses=responses[:, np.concatenate(columns)],
            image_ids=rows,
            n_repeats=n_repeats if len(rows) < len(of_one) else None,
            is_test=np.zeros(len(rows), bool) if is_test is None else is_test[rows],
            vertices=vertices,
            space=self.data.space,
            n_surface_vertices=dict.fromkeys(HEMISPHERES, n),
            n_dropped=n_dropped,
        )

    def _independent(self, rows):
        """Return numbers, from 0 in the order of the rows, of which sample each is part."""
        ids, is_test = self.data.image_ids, self.data.is_test
        if ids is None or is_test is None:
            return np.arange(len(rows))
        targets = self.data.targets.reshape(len(self.data.targets), -1)[rows]
        known = np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)
        alone = np.where(is_test[rows], -1, np.arange(len(rows)))
        keys = np.stack([ids[rows], known, alone], axis=1)
        _, first, own = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[own.reshape(-1)]

    def features(self, subject: str, image_ids: np.ndarray) -> pd.DataFrame:  # noqa: ARG002
        """Return the targets of some samples."""
        targets = self.data.targets.reshape(len(self.data.targets), -1)
        names = self.data.target_names or [f"target_{k}" for k in range(1, targets.shape[1] + 1)]
        index = pd.Index(image_ids, name="image_id")
        return pd.DataFrame(targets[image_ids], index=index, columns=list(names))

    def shown(self, image_ids: np.ndarray) -> np.ndarray:
        """Return numbers of what was shown on samples, the same where that was the same."""
        ids = self.data.image_ids
        return image_ids if ids is None else ids[image_ids]

    def images(
        self,
        subject: str,  # noqa: ARG002 - a sample has the same number for all
        image_ids: np.ndarray,
        *,
        size: int | None = None,
    ) -> np.ndarray:
        """Return grey images (n_images, size, size) in 0-1 of some samples."""
        from neuroigc.datasets.stimuli import prepare_image

        grey = []
        for pixels in self.data.images[image_ids]:
            levels = pixels if pixels.dtype == np.uint8 else 255 * pixels
            rgb = levels if levels.ndim == 3 else np.stack([levels] * 3, axis=-1)
            grey.append(prepare_image(rgb, size=size))
        return np.stack(grey)

    def atlas(self, subject: str, rois: RoiConfig):
        """Return the areas, several atlases combined into one."""
        from neuroigc.cli.sources import label_path, merge_areas
        from neuroigc.surface import load_atlas

        atlases = []
        for name in rois.atlases:
            if name == "groups":
                atlases += self._groups()
            elif "{hemi}" in name:
                atlases.append(load_atlas(label_path(self.root, name, f"subj{subject}")))
            else:
                raise InputError(
                    "[rois] atlases",
                    expected='"groups", or files below the root with {hemi} in their names',
                    got=repr(name),
                )
        return merge_areas(atlases, rois)

    def _groups(self):
        """Return one atlas for each group, for groups may overlap."""
        from neuroigc.surface import Atlas, get_space

        if not self.data.groups:
            raise InputError("[rois] atlases", expected="groups in dataset.toml", got="none")
        n_left = len(self.data.vertices["left"])
        atlases = []
        for name, group in self.data.groups.items():
            member = np.zeros(self.data.responses.shape[1], bool)
            member[group.ravel() if group.dtype == bool else group] = True
            labels = {}
            for side, part in (("left", slice(n_left)), ("right", slice(n_left, None))):
                labels[side] = np.zeros(get_space(self.data.space).n_vertices, np.int32)
                labels[side][self.data.vertices[side]] = member[part]
            atlases.append(Atlas(name, labels, {1: name}))
        return atlases

    def _check_splits(self, config):
        """Refuse to choose test samples of images that also come among the others."""
        ids = self.data.image_ids
        if ids is None or len(np.unique(ids)) == len(ids):
            return
        if self.data.is_test is None or config.data.test_fraction > 0:
            raise InputError(
                "[data] test_fraction",
                expected="0, and is_test in dataset.toml, where images come more than once",
                got=f"{config.data.test_fraction}",
                fix="Samples of one image must all be for training or all for testing.",
            )
