"""Pixels to grey images, and grey images to the two statistics of the first example."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from neuroigc._files import reading
from neuroigc._validation import InputError
from neuroigc.datasets import _paths
from neuroigc.datasets._hdf5 import check_storage, read_part
from neuroigc.datasets._paths import StrPath
from neuroigc.datasets.arrays import whole_numbers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["image_statistics", "load_nsd_images", "prepare_image"]

# Rec. 601 luma of display values.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Below, the window mixes neighbours; above, anti-aliasing and compression shape the spectrum.
LOWEST_CYCLES = 3
HIGHEST_NYQUIST = 0.8
BATCH = 64
_checked: dict[str, tuple[str, int, int]] = {}


def prepare_image(
    pixels: npt.NDArray[np.uint8], *, size: int | None = None, gray: bool = True
) -> npt.NDArray[np.float32]:
    """Turn display pixels into numbers between 0 and 1.

    Parameters
    ----------
    pixels : array of shape (height, width, 3), uint8
        RGB display values.
    size : int, optional
        Edge of the result in pixels: each becomes the average of the area it covers. By default
        the image keeps its size.
    gray : bool
        Rec. 601 luma, 0.299 R + 0.587 G + 0.114 B, of the display values.

    Returns
    -------
    array of shape (size, size), float32, or (3, size, size) if not ``gray``
    """
    scaled = np.asarray(pixels, dtype=np.float32) / 255
    planes = (scaled @ LUMA)[None] if gray else scaled.transpose(2, 0, 1)
    if size is not None:
        if not 0 < size <= min(planes.shape[1:]):
            raise InputError("size", expected=f"1 to {min(planes.shape[1:])} pixels", got=f"{size}")
        rows, columns = (_area_weights(n, size) for n in planes.shape[1:])
        planes = rows @ planes @ columns.T
    # Rounding may leave white a hair above 1.
    planes = np.clip(planes, 0, 1)
    return planes[0] if gray else planes


def load_nsd_images(
    root: StrPath, image_ids: npt.ArrayLike, *, size: int | None = None, gray: bool = True
) -> npt.NDArray[np.float32]:
    """Load stimuli of the Natural Scenes Dataset, one at a time.

    Parameters
    ----------
    root : path
        Folder with ``nsddata_stimuli``.
    image_ids : array of shape (n_images,), int
        0-based numbers of the images, in any order.
    size, gray
        As in :func:`prepare_image`.

    Returns
    -------
    array of shape (n_images, size, size), float32, 0 to 1
        Or (n_images, 3, size, size) if not ``gray``. Row 0 is the top of an image.

    Raises
    ------
    InputError
        If the file is missing, damaged or without pixels, or has no image of a number asked for.
    """
    import h5py

    path = _paths.stimuli_path(root)
    if not path.is_file():
        raise InputError("root", expected=f"a folder with {path}", got="no such file")
    with (
        reading(path, "a whole HDF5 file", fix="Obtain it again."),
        h5py.File(path, "r") as file,
    ):
        return _read_bricks(path, file.get("imgBrick"), image_ids, size=size, gray=gray)


def _check_once(bricks: Any, modified: int) -> None:
    """Check where the pixels lie, once for each file: there are 73,000 images to look up."""
    key = (bricks.file.filename, modified, bricks.file.id.get_filesize())
    if _checked.get("stimuli") != key:
        check_storage(bricks)
        _checked["stimuli"] = key


def _read_bricks(
    path: Path, bricks: Any, image_ids: npt.ArrayLike, *, size: int | None, gray: bool
) -> npt.NDArray[np.float32]:
    shape, dtype = getattr(bricks, "shape", None), getattr(bricks, "dtype", None)
    if shape is None or len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise InputError(
            str(path),
            expected="imgBrick, uint8 of shape (n_images, height, width, 3)",
            got="none" if shape is None else f"{dtype} of shape {shape}",
        )
    _check_once(bricks, path.stat().st_mtime_ns)
    expected = f"0-based numbers of the {len(bricks)} images in {path}"
    ids = whole_numbers("image_ids", image_ids, expected)
    if not len(ids) or ids.min() < 0 or ids.max() >= len(bricks):
        raise InputError(
            "image_ids",
            expected=expected,
            got=f"{ids.size} numbers from {ids.min(initial=0)} to {ids.max(initial=0)}",
        )
    images: npt.NDArray[np.float32] | None = None
    # In the order of the file, which is how it reads fast.
    for row in np.argsort(ids, kind="stable"):
        image = prepare_image(read_part(bricks, ids[row]), size=size, gray=gray)
        if images is None:
            images = np.empty((len(ids), *image.shape), dtype=np.float32)
        images[row] = image
    return images


def image_statistics(
    images: npt.NDArray[np.floating], *, extent_deg: float | None = None
) -> pd.DataFrame:
    """Compute the luminance contrast and the 1/f slope of grey images.

    Parameters
    ----------
    images : array of shape (n_images, height, width)
        Grey levels, 0 to 1.
    extent_deg : float, optional
        Visual angle of the shorter side in degrees. Only for the unit in which the fitted range
        is stated; no statistic depends on it.

    Returns
    -------
    DataFrame with one row per image
        ``luminance_contrast``: standard deviation of the grey levels (ddof = 0), 0 to 0.5.
        ``one_over_f_slope``: slope of log10 amplitude against log10 spatial frequency, about -1
        for natural images; NaN for an image without contrast. The amplitude spectrum, of the
        image less its mean under a Hann window, is averaged over orientations in rings one
        cycle per image wide; the line is fitted by least squares to the rings from 3 cycles per
        image to 0.8 of the Nyquist frequency. ``attrs["fitted_range"]`` and
        ``attrs["fitted_range_units"]`` state that range.

    Notes
    -----
    The amplitude spectra of natural images fall as 1/f: Field 1987, J Opt Soc Am A 4:2379.
    """
    import pandas as pd

    images = np.asanyarray(images)
    if images.ndim != 3 or not len(images):
        raise InputError(
            "images", expected="shape (n_images, height, width)", got=f"{images.shape}"
        )
    rings, frequencies = _rings(*images.shape[1:])
    if len(frequencies) < 3:
        raise InputError(
            "images", expected="images of at least 12 pixels a side", got=f"{images.shape[1:]}"
        )
    contrasts, slopes = np.empty(len(images)), np.empty(len(images))
    for start in range(0, len(images), BATCH):
        batch = np.asarray(images[start : start + BATCH], dtype=np.float64)
        if not (batch.min() >= 0 and batch.max() <= 1):
            raise InputError(
                "images",
                expected="grey levels from 0 to 1",
                got=f"values from {batch.min():g} to {batch.max():g}",
            )
        contrasts[start : start + BATCH] = batch.std(axis=(1, 2))
        slopes[start : start + BATCH] = _slopes(batch, rings, frequencies)
    table = pd.DataFrame({"luminance_contrast": contrasts, "one_over_f_slope": slopes})
    unit = "cycles per image" if extent_deg is None else "cycles per degree"
    fitted = frequencies[[0, -1]] / (1 if extent_deg is None else extent_deg)
    table.attrs.update(fitted_range=tuple(fitted.tolist()), fitted_range_units=unit)
    return table


@lru_cache(maxsize=8)
def _area_weights(n: int, size: int) -> npt.NDArray[np.float32]:
    """Return (size, n): the share of each of n old pixels in each new one, along one axis.

    Image libraries sample the area at the centres of old pixels, which is uneven where the
    new size does not divide the old.
    """
    edges = np.arange(size + 1)[:, None] * n / size
    old = np.arange(n)
    overlap = np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old)
    return (np.clip(overlap, 0, None) * size / n).astype(np.float32)


def _rings(height: int, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the ring of each coefficient, -1 outside the range, and each ring's frequency."""
    side = min(height, width)
    frequency = side * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    ring = np.rint(frequency).astype(np.int64) - LOWEST_CYCLES
    n_rings = max(0, int(HIGHEST_NYQUIST * side / 2) - LOWEST_CYCLES + 1)
    ring[(ring < 0) | (ring >= n_rings)] = -1
    return ring, np.arange(n_rings, dtype=np.float64) + LOWEST_CYCLES


def _slopes(
    images: npt.NDArray[np.float64],
    ring: npt.NDArray[np.int64],
    frequencies: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    height, width = images.shape[1:]
    window = _hann(height)[:, None] * _hann(width)
    means = (images * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    amplitude = np.abs(np.fft.rfft2((images - means) * window))
    # Half of the spectrum is kept: inner columns stand for two coefficients.
    weight = np.full(ring.shape, 2.0)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1
    used = ring >= 0
    total = np.bincount(ring[used], weight[used])
    spectrum = np.stack([np.bincount(ring[used], (weight * a)[used]) for a in amplitude]) / total
    x = np.log10(frequencies)
    x -= x.mean()
    flat = np.ptp(images, axis=(1, 2)) == 0
    spectrum[flat] = 1
    slopes = np.log10(spectrum) @ x / (x @ x)
    slopes[flat] = np.nan
    return slopes


def _hann(n: int) -> npt.NDArray[np.float64]:
    """Hann window centred on the image, so that mirrored images are treated alike."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
