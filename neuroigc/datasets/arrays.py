"""Anyone's arrays, checked and put together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._array_files import read_npz
from neuroigc._validation import InputError, check_same_length
from neuroigc.datasets._paths import HEMISPHERES, SURFACE_VERTICES

__all__ = ["ArrayData", "load_arrays", "whole_numbers"]

GROUP_PREFIX = "groups/"


@dataclass(frozen=True)
class ArrayData:
    """Anyone's samples: responses, targets and what belongs to them.

    Parameters
    ----------
    responses : array of shape (n_samples, ...)
        Inputs of a model that decodes, outputs of one that encodes.
    targets : array of shape (n_samples,) or (n_samples, n_targets)
        What goes with them.
    conditions : array of shape (n_samples,), int, or None
        As the number of the subject.
    groups : dict of str to indices or boolean mask over the flattened responses, or None
        Named parts of the input; they may overlap.
    image_ids : array of shape (n_samples,), int, or None
        What each sample is a response to.
    is_test : array of shape (n_samples,), bool, or None
        Samples kept for testing.
    vertices : dict of "left" and "right" to array of int, or None
        Where the columns of responses lie on a surface, those of the left hemisphere first.
    space : str
        Name of that surface, as "fsaverage5".
    target_names : tuple of str, or None
        One for each target.
    title, units, licence : str
        What the data are, in which units responses come, and what may be done with them.
    images : array of shape (n_samples, height, width[, 3]), or None
        What was shown on each sample, grey or RGB: uint8, or numbers from 0 to 1.
    """

    responses: np.ndarray
    targets: np.ndarray
    conditions: npt.NDArray[np.int64] | None = None
    groups: dict[str, np.ndarray] | None = None
    image_ids: npt.NDArray[np.int64] | None = None
    is_test: npt.NDArray[np.bool_] | None = None
    vertices: dict[str, npt.NDArray[np.int64]] | None = None
    space: str = ""
    target_names: tuple[str, ...] | None = None
    title: str = ""
    units: str = ""
    licence: str = ""
    images: np.ndarray | None = None


def load_arrays(
    responses: npt.ArrayLike | str | os.PathLike[str],
    targets: npt.ArrayLike | None = None,
    *,
    conditions: npt.ArrayLike | None = None,
    groups: Mapping[str, npt.ArrayLike] | None = None,
    image_ids: npt.ArrayLike | None = None,
    is_test: npt.ArrayLike | None = None,
    vertices: Mapping[str, npt.ArrayLike] | None = None,
    space: str = "",
    target_names: Sequence[str] | None = None,
    title: str = "",
    units: str = "",
    licence: str = "",
    images: npt.ArrayLike | None = None,
) -> ArrayData:
    """Check arrays of any origin and put them together.

    Parameters
    ----------
    responses : array of shape (n_samples, ...) or path
        Responses; or a folder with a ``dataset.toml``, as :mod:`neuroigc.datasets.array_folder`
        describes it and :func:`neuroigc.datasets.save_arrays` writes it; or a ``.npz`` file with
        "responses", "targets" and optionally "conditions", "image_ids", "is_test", "images" and
        "groups/<name>". Memory maps stay on disk.
    targets, conditions, groups, image_ids, is_test, vertices, space, target_names, title, units, \
licence, images
        As in :class:`ArrayData`.

    Returns
    -------
    ArrayData

    Raises
    ------
    InputError
        If a file is damaged, arrays are empty or hold anything but numbers, lengths differ, a
        number is not finite, a target is constant, a group points outside the responses, vertices
        are not those of the columns, or an image is both among the training and the test samples.
    """
    if isinstance(responses, (str, os.PathLike)):
        path = Path(responses)
        if path.is_dir() or path.suffix == ".toml":
            from neuroigc.datasets.array_folder import DATASET_FILE, read_folder

            return load_arrays(**read_folder(path / DATASET_FILE if path.is_dir() else path))
        arrays = read_npz(path)
        groups = {
            name.removeprefix(GROUP_PREFIX): arrays.pop(name)
            for name in list(arrays)
            if name.startswith(GROUP_PREFIX)
        }
        known = {"responses", "targets", "conditions", "image_ids", "is_test", "images"}
        if not {"responses", "targets"} <= arrays.keys() <= known:
            raise InputError(
                str(responses),
                expected=f"responses, targets and at most {sorted(known)} and groups/<name>",
                got=f"{sorted(arrays)}",
            )
        return load_arrays(**arrays, groups=groups or None)
    if targets is None:
        raise InputError("targets", expected="an array", got="None")
    responses, targets = _as_numbers("responses", responses), _as_numbers("targets", targets)
    if targets.dtype == bool:
        targets = targets.astype(np.float64)
    if responses.ndim < 2 or targets.ndim not in (1, 2):
        raise InputError(
            "responses and targets",
            expected="shapes (n_samples, n_features, ...) and (n_samples[, n_targets])",
            got=f"{responses.shape} and {targets.shape}",
        )
    for name, array in (("responses", responses), ("targets", targets)):
        if array.size == 0:
            raise InputError(
                name, expected="at least one sample and one column", got=f"shape {array.shape}"
            )
    conditions = _optional_rows("conditions", conditions, np.int64)
    image_ids = _optional_rows("image_ids", image_ids, np.int64)
    is_test = _optional_rows("is_test", is_test, np.bool_)
    images = None if images is None else _check_images(images)
    check_same_length(
        responses=responses,
        targets=targets,
        conditions=conditions,
        image_ids=image_ids,
        is_test=is_test,
        images=images,
    )
    _check_finite("responses", responses)
    _check_finite("targets", targets)
    _check_varies(targets)
    if image_ids is not None and is_test is not None:
        both = np.intersect1d(image_ids[is_test], image_ids[~is_test])
        if len(both):
            raise InputError(
                "is_test",
                expected="each image either for training or for testing",
                got=f"{len(both)} images in both, as {both[0]}",
                fix="Split by image, not by trial.",
            )
    n_features = int(np.prod(responses.shape[1:]))
    checked = {
        name: _check_group(name, group, n_features) for name, group in (groups or {}).items()
    }
    names = None if target_names is None else tuple(target_names)
    n_targets = targets.shape[1] if targets.ndim == 2 else 1
    if names is not None and (len(names) != n_targets or len(set(names)) < n_targets):
        raise InputError(
            "target_names", expected=f"{n_targets} names, each once", got=f"{list(names)}"
        )
    return ArrayData(
        responses,
        targets,
        conditions,
        checked or None,
        image_ids,
        is_test,
        None if vertices is None else _check_vertices(vertices, space, responses.shape[1:]),
        space,
        names,
        title,
        units,
        licence,
        images,
    )


def whole_numbers(
    name: str, values: npt.ArrayLike, expected: str = "whole numbers in one row"
) -> npt.NDArray[np.int64]:
    """Return one-dimensional ``values`` as integers, unless one is not a whole number."""
    array = _as_array(name, values)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not _unchanged_as(array, np.int64):
        got = f"{array.dtype} of shape {array.shape}" if array.size else "none"
        raise InputError(name, expected=expected, got=got if array.ndim else repr(values))
    return array.astype(np.int64)


def _as_array(name: str, values: npt.ArrayLike) -> np.ndarray:
    try:
        return np.asanyarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(name, expected="an array of numbers", got=f"{error}") from error


def _as_numbers(name: str, values: npt.ArrayLike) -> np.ndarray:
    array = _as_array(name, values)
    if array.dtype.kind not in "biuf":
        raise InputError(
            name,
            expected="an array of real numbers",
            got=f"dtype {array.dtype} of shape {array.shape}",
            fix="Code names and categories as numbers.",
        )
    return array


def _unchanged_as(array: np.ndarray, dtype: type[np.generic]) -> bool:
    with np.errstate(invalid="ignore"):
        return bool(np.array_equal(array, array.astype(dtype)))


def _optional_rows(
    name: str, values: npt.ArrayLike | None, dtype: type[np.generic]
) -> np.ndarray | None:
    if values is None:
        return None
    array = np.asarray(_as_array(name, values))
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not _unchanged_as(array, dtype):
        raise InputError(
            name,
            expected=f"one {np.dtype(dtype).name} per sample",
            got=f"{array.dtype} of shape {array.shape}",
        )
    return array.astype(dtype)


def _check_images(values: npt.ArrayLike) -> np.ndarray:
    images = _as_numbers("images", values)
    is_picture = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if not is_picture or not images.size or images.dtype not in (np.uint8, np.float32, np.float64):
        raise InputError(
            "images",
            expected="shape (n_samples, height, width[, 3]), uint8 or floating point",
            got=f"{images.dtype} of shape {images.shape}",
        )
    for block in _blocks(images) if images.dtype != np.uint8 else ():
        if not (block.min() >= 0 and block.max() <= 1):
            raise InputError(
                "images",
                expected="numbers from 0 to 1",
                got=f"{block.min():g} to {block.max():g}",
                fix="Divide by the largest that can be.",
            )
    return images


def _blocks(array: np.ndarray, block_bytes: int = 2**26) -> Iterator[np.ndarray]:
    rows = max(1, block_bytes // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _check_finite(name: str, array: np.ndarray) -> None:
    invalid = sum(int((~np.isfinite(block)).sum()) for block in _blocks(array))
    if invalid:
        raise InputError(
            name,
            expected="finite numbers",
            got=f"{invalid} that are not",
            fix="Leave those columns or samples out; zeros in their place would be made-up data.",
        )


def _check_varies(targets: np.ndarray) -> None:
    constant = np.flatnonzero(np.ptp(targets.reshape(len(targets), -1), axis=0) == 0)
    if len(constant):
        raise InputError(
            "targets",
            expected="targets that vary over samples",
            got=f"a constant in column {constant[0]}",
            fix="No correlation with a constant is defined.",
        )


def _check_vertices(
    vertices: Mapping[str, npt.ArrayLike], space: str, shape: tuple[int, ...]
) -> dict[str, npt.NDArray[np.int64]]:
    if set(vertices) != set(HEMISPHERES) or not space:
        raise InputError(
            "vertices",
            expected="those of 'left' and 'right', and the space that they are of",
            got=f"{sorted(vertices)} and {space!r}",
        )
    checked = {}
    for side in HEMISPHERES:
        argument = f"vertices[{side!r}]"
        numbers = checked[side] = (
            whole_numbers(argument, vertices[side])
            if np.size(vertices[side])
            else np.empty(0, np.int64)
        )
        n_vertices = SURFACE_VERTICES.get(space, numbers.max(initial=0) + 1)
        inside = numbers.min(initial=0) >= 0 and numbers.max(initial=0) < n_vertices
        if not inside or len(np.unique(numbers)) < len(numbers):
            raise InputError(
                argument,
                expected=f"vertices of {space}, each once",
                got=f"{len(numbers)} numbers from {numbers.min()} to {numbers.max()}",
            )
    n_columns = sum(map(len, checked.values()))
    if shape != (n_columns,):
        raise InputError(
            "vertices",
            expected="one for each column of responses",
            got=f"{n_columns} vertices for columns of shape {shape}",
        )
    return checked


def _check_group(name: str, group: npt.ArrayLike, n_features: int) -> np.ndarray:
    array = np.asarray(_as_array(f"groups[{name!r}]", group))
    if array.dtype == bool:
        good = array.size == n_features
    else:
        array = array.ravel()
        whole = np.issubdtype(array.dtype, np.integer)
        good = whole and array.size > 0 and array.min() >= 0 and array.max() < n_features
    if not good:
        raise InputError(
            f"groups[{name!r}]",
            expected=f"indices below {n_features} or a boolean mask of that size",
            got=f"{array.dtype} of shape {array.shape}",
        )
    return array
