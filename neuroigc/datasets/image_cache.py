"""Images of a study at the size that networks see, made once and mapped from disk."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuroigc import __version__
from neuroigc._files import make_output_folder, writing_alone
from neuroigc._progress import track
from neuroigc._validation import InputError
from neuroigc.datasets import _paths, store
from neuroigc.datasets._paths import StrPath
from neuroigc.datasets._sessions import file_identity
from neuroigc.datasets._work import begin_work, check_settings, end_work, is_begun
from neuroigc.datasets.arrays import whole_numbers
from neuroigc.datasets.stimuli import load_nsd_images

__all__ = ["cache_images", "load_image_cache", "prepare_nsd_images"]

KIND, PART = "images", "images.part"
BLOCK_IMAGES = 64

Images = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def prepare_nsd_images(
    root: StrPath,
    folder: StrPath,
    image_ids: npt.ArrayLike,
    *,
    size: int | None = None,
    gray: bool = True,
    progress: bool = False,
) -> tuple[Images, Ids]:
    """Prepare stimuli of the Natural Scenes Dataset on disk, a block of images at a time.

    Parameters
    ----------
    root, size, gray
        As in :func:`neuroigc.datasets.load_nsd_images`.
    folder : path
        Made if need be; :func:`load_image_cache` reads it.
    image_ids : array of int
        0-based numbers of the images, in any order.
    progress : bool
        Show a progress bar.

    Returns
    -------
    images : memory map of shape (n_images, size, size), float32, 0 to 1
        Or (n_images, 3, size, size) if not ``gray``.
    image_ids : array of shape (n_images,)
        Their numbers, ascending, each once.

    Raises
    ------
    InputError
        As :func:`neuroigc.datasets.load_nsd_images`; also if the folder holds other images.
    """
    path = _paths.stimuli_path(root)
    settings = {"size": None if size is None else int(size), "gray": bool(gray)}
    if path.is_file():
        settings["file"] = file_identity(path, root)
    read = partial(load_nsd_images, root, size=size, gray=gray)
    return cache_images(folder, image_ids, read, settings=settings, progress=progress)


def cache_images(
    folder: StrPath,
    image_ids: npt.ArrayLike,
    read: Callable[[Ids], Images],
    *,
    settings: dict[str, Any],
    progress: bool = False,
) -> tuple[Images, Ids]:
    """Keep images of any origin on disk; what was cut short goes on with the same call.

    Parameters
    ----------
    folder, image_ids, progress
        As in :func:`prepare_nsd_images`.
    read : callable
        Turns numbers of images into images, float32.
    settings : dict
        What ``read`` depends on, as JSON has it.

    Returns
    -------
    images, image_ids
        As :func:`prepare_nsd_images`.
    """
    ids = np.unique(whole_numbers("image_ids", image_ids))
    numbers = hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    settings = {"neuroigc": __version__, "sha256_of_image_ids": numbers, **settings}
    folder = make_output_folder(folder, "folder")
    if (cached := _finished(folder, settings)) is not None and not is_begun(folder):
        return cached
    with writing_alone(folder):
        if cached is None:
            # What cannot be read at all should not claim the folder. The last has the highest
            # number.
            shape = read(ids[[0, -1]] if len(ids) else ids)[0].shape
            work = begin_work(folder, settings)
            store.reopen_store(folder, KIND)
            _append_images(work / PART, ids, shape, read, progress)
            store.write_array(folder / "image_ids.npy", ids)
            (work / PART).replace(folder / "images.npy")
            store.close_store(folder, KIND, ["images", "image_ids"], {"settings": settings})
            cached = load_image_cache(folder)
        end_work(folder)
    return cached


def load_image_cache(folder: StrPath) -> tuple[Images, Ids]:
    """Load images that were prepared, as a memory map, and their numbers.

    Raises
    ------
    InputError
        If the folder is not whole, or an array in it is not what its description says.
    """
    required = {"images", "image_ids"}
    arrays, _ = store.read_store(
        Path(folder), KIND, mapped="images", required=required, optional=set()
    )
    return arrays["images"], arrays["image_ids"]


def _finished(folder: Path, settings: dict[str, Any]) -> tuple[Images, Ids] | None:
    """Return what was prepared before; None if it is not whole, and has to be made again."""
    try:
        cached, said = load_image_cache(folder), store.read_description(folder, KIND)
    except InputError:
        return None
    check_settings(folder, said.get("settings"), settings)
    return cached


def _append_images(
    path: Path,
    ids: Ids,
    shape: tuple[int, ...],
    read: Callable[[Ids], Images],
    progress: bool,
) -> None:
    """Append images to a ``.npy`` file whose length says how many there are already."""
    header = io.BytesIO()
    array = {"descr": "<f4", "fortran_order": False, "shape": (len(ids), *shape)}
    np.lib.format.write_array_header_1_0(header, array)
    start, image_bytes = len(header.getvalue()), 4 * math.prod(shape)
    with path.open("ab") as file:
        n_done = max(0, file.tell() - start) // image_bytes
        file.truncate(start + n_done * image_bytes if n_done else 0)
        if not n_done:
            file.write(header.getvalue())
        blocks = range(n_done, len(ids), BLOCK_IMAGES)
        for begin in track(blocks, show=progress, label="images"):
            images = read(ids[begin : begin + BLOCK_IMAGES])
            file.write(np.ascontiguousarray(images, "<f4").data)
