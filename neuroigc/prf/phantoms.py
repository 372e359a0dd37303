"""Phantom vertices: responses to the user's own images, of receptive fields that are known.

Trained and attributed together with the real vertices, they tell what the whole way from images
to receptive fields does to centres and sizes, and how well it does at each noise ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count
from neuroigc.prf._contrast import display_values
from neuroigc.prf.gaussian import as_extent, pixel_centres

__all__ = ["Phantoms", "local_contrasts", "make_phantoms"]

# Standard deviation of the window in which contrast is measured; fine enough for any size.
_WINDOW_PIXELS = 1.5
# Contrast below this is rounding: images hold steps of 1/255.
_LEAST_CONTRAST = 1e-6
_N_PIXELS_PER_BATCH = 2**20
_N_VALUES_PER_BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class Phantoms:
    """Responses of units whose receptive fields are known.

    Attributes
    ----------
    responses : (n_images, n_phantoms) array of float32
        Averages over the repeats of each image; mean 0 and variance 1 over images.
    x_deg, y_deg : (n_phantoms,) array
        Centre, in degrees of visual angle; x to the right, y upwards.
    size_deg : (n_phantoms,) array
        ``sigma / sqrt(exponent)``, with sigma the standard deviation of the pooling Gaussian.
    exponent : (n_phantoms,) array
        Of the compressive nonlinearity.
    ncsnr : (n_phantoms,) array
        Standard deviation of the signal over that of the noise of single trials.
    """

    responses: np.ndarray
    x_deg: np.ndarray
    y_deg: np.ndarray
    size_deg: np.ndarray
    exponent: np.ndarray
    ncsnr: np.ndarray

    def __len__(self) -> int:
        return len(self.x_deg)

    def __getitem__(self, phantoms) -> Phantoms:
        """Return some phantoms (an index array, a boolean mask or a slice)."""
        return Phantoms(**{f.name: getattr(self, f.name)[..., phantoms] for f in fields(self)})


def make_phantoms(
    images: ArrayLike | Tensor,
    *,
    extent_deg: float | tuple[float, float],
    n_repeats: ArrayLike,
    ncsnr: ArrayLike,
    n_phantoms: int = 500,
    sizes_deg: tuple[float, float] = (0.3, 2.5),
    exponents: tuple[float, float] = (0.25, 1.0),
    normalisation: tuple[float, float] = (0.0, 0.9),
    margin_deg: float = 0.0,
    seed: int = 0,
    progress: bool = False,
) -> Phantoms:
    """Make the responses of units with known receptive fields to given images.

    A unit pools the local contrast of an image with a Gaussian, divides by a power of the mean
    contrast of the scene, and compresses the result; noise is added at the level of real
    vertices:

        signal = (sum_xy G(x, y) C(x, y) / mean(C)^p)^exponent .

    C is the root of the local variance, in a Gaussian window of 1.5 pixels; G sums to one over
    the plane, and what of it lies beside the image sees nothing.

    Parameters
    ----------
    images : (n_images, height, width) array, memory map or tensor
        Grey levels, 0..1 or uint8, row 0 at the top; those that the encoder is trained on, at
        the same resolution or a higher one.
    extent_deg : float or (float, float)
        Width and height of the images in degrees of visual angle; one number for a square.
    n_repeats : int or (n_images,) array
        Trials averaged for each image.
    ncsnr : float or array
        Signal-to-noise ratios of single trials (:func:`neuroigc.stats.ncsnr_from_trials`) of the
        real vertices, however many. Each phantom draws one, times the share of its field that
        lies on the image. Those that are zero or not finite are not drawn.
    n_phantoms : int
        Number of units.
    sizes_deg : (float, float)
        Smallest and largest size; sizes are uniform on the logarithmic scale.
    exponents : (float, float)
        Smallest and largest exponent; uniform.
    normalisation : (float, float)
        Smallest and largest power p of the scene's contrast; uniform. 0 is none.
    margin_deg : float
        How far outside the images centres may lie; positions are uniform.
    seed : int
        Equal seeds make equal phantoms, whatever the memory at hand.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Phantoms
        Responses in the order of the images, and the truth.

    Raises
    ------
    InputError
        If images are no stack of grey pictures in 0..1 that differ in contrast, repeats or noise
        ceilings do not fit them, or a range is none.

    Notes
    -----
    Compressive spatial summation: Kay, Winawer, Mezer & Wandell 2013, J Neurophysiol 110:481.

    Maps follow ``sigma = size * sqrt(exponent)`` and the normalisation, not the size alone: maps
    of equal size are narrower where the exponent is low or the normalisation strong. Where an
    area's are known, make phantoms like it; with wide ranges they stand for the average.

    Memory beyond the responses does not grow with the number of images.
    """
    images = images if isinstance(images, Tensor) else np.asanyarray(images)
    if images.ndim != 3 or len(images) < 2 or min(images.shape[1:]) < 3:
        raise InputError(
            "images",
            expected="grey images (n_images, height, width), at least two of 3 x 3 pixels",
            got=f"shape {tuple(images.shape)}",
        )
    n_images, height, width = images.shape
    extent = as_extent(extent_deg)
    repeats = _check_repeats(n_repeats, n_images)
    ratios = _check_ratios(ncsnr)
    n_phantoms = check_count("n_phantoms", n_phantoms)
    if not 0 <= margin_deg < math.inf:
        raise InputError("margin_deg", expected="zero or a positive number", got=repr(margin_deg))
    smallest, largest = _check_range("sizes_deg", sizes_deg, positive=True)
    exponents = _check_range("exponents", exponents, positive=True)
    normalisation = _check_range("normalisation", normalisation)

    rng = np.random.default_rng(seed)
    reach_x, reach_y = extent[0] / 2 + margin_deg, extent[1] / 2 + margin_deg
    x, y = rng.uniform(-reach_x, reach_x, n_phantoms), rng.uniform(-reach_y, reach_y, n_phantoms)
    size = np.exp(rng.uniform(math.log(smallest), math.log(largest), n_phantoms))
    exponent = rng.uniform(*exponents, n_phantoms)
    power = rng.uniform(*normalisation, n_phantoms)
    ratio = rng.choice(ratios, n_phantoms)

    sigma = size * np.sqrt(exponent)
    along_x, along_y = _gaussians(x, y, sigma, pixel_centres(height, width, extent), extent)
    ratio = ratio * np.minimum(along_x.sum(0) * along_y.sum(0), 1)
    responses = np.empty((n_images, n_phantoms), dtype=np.float32)
    # All phantoms at once are too much where images are large, or many.
    n_per_block = max(1, _N_VALUES_PER_BLOCK // max(height * width, n_images))
    blocks = [slice(i, i + n_per_block) for i in range(0, n_phantoms, n_per_block)]
    for block in track(blocks, show=progress, label="Phantoms"):
        weights = (along_y[:, None, block] * along_x[:, block]).reshape(height * width, -1)
        signal = np.empty((n_images, weights.shape[1]))
        for rows, contrast in local_contrasts(images):
            scene = contrast.mean(1)[:, None]
            # A blank image drives nothing, whatever it is divided by.
            pooled = contrast @ weights / np.where(scene > 0, scene, 1) ** power[block]
            signal[rows] = pooled ** exponent[block]
        # Beyond rounding.
        if not (np.ptp(signal, axis=0) > 1e-9 * signal.max(0)).any():
            raise InputError(
                "images",
                expected="images that differ in local contrast",
                got="responses that are the same for all images",
                fix="Blank or identical images cannot show where a receptive field lies.",
            )
        signal = _standardised(signal)
        # Row after row, so that noise does not depend on the blocks.
        noise = rng.standard_normal(signal.T.shape).T / np.sqrt(repeats)[:, None]
        responses[:, block] = _standardised(ratio[block] * signal + noise)
    return Phantoms(responses, x, y, size, exponent, ratio)


def _gaussians(x, y, sigma, centres, extent) -> tuple[np.ndarray, np.ndarray]:
    """Return Gaussians along columns (width, n) and rows (height, n); each sums to one."""
    found = []
    for axis, centre, side in zip(centres, (x, y), extent, strict=True):
        pixel = side / len(axis)
        density = np.exp(-0.5 * ((axis[:, None] - centre) / sigma) ** 2)
        found.append(density * pixel / (math.sqrt(2 * math.pi) * sigma))
    return found[0], found[1]


def local_contrasts(images: np.ndarray | Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield some rows at a time with their local contrast, (n, height * width)."""
    n_images, height, width = images.shape
    by_rows, by_columns = _blur(height), _blur(width)
    n_per_batch = max(1, _N_PIXELS_PER_BATCH // (height * width))
    for start in range(0, n_images, n_per_batch):
        rows = slice(start, start + n_per_batch)
        grey = display_values(images[rows]).numpy().astype(np.float64)
        # Nearer to zero less is lost to rounding; variance does not see it.
        grey -= grey.mean((1, 2), keepdims=True)
        mean, square = (by_rows @ values @ by_columns.T for values in (grey, grey**2))
        contrast = np.sqrt(np.maximum(square - mean**2, 0)).reshape(len(grey), -1)
        contrast[contrast < _LEAST_CONTRAST] = 0
        yield rows, contrast


def _blur(n_pixels: int) -> np.ndarray:
    """Return a Gaussian blur as a matrix (n_pixels, n_pixels); pixels beyond repeat the edge."""
    reach = math.ceil(4 * _WINDOW_PIXELS)
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (steps / _WINDOW_PIXELS) ** 2)
    matrix = np.zeros((n_pixels, n_pixels))
    places = np.clip(np.arange(n_pixels)[:, None] + steps, 0, n_pixels - 1)
    np.add.at(matrix, (np.arange(n_pixels)[:, None], places), kernel / kernel.sum())
    return matrix


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and variance 1; those of fields that see no image stay 0."""
    values = values - values.mean(0)
    spread = values.std(0)
    return values / np.where(spread > 0, spread, 1)


def _check_repeats(n_repeats: ArrayLike, n_images: int) -> np.ndarray:
    """Return the repeats of every image."""
    repeats = np.asarray(n_repeats, dtype=float)
    if repeats.shape not in ((), (n_images,)) or not (repeats >= 1).all():
        raise InputError(
            "n_repeats",
            expected=f"at least one trial per image, one number or {n_images}",
            got=f"shape {repeats.shape} from {np.min(repeats, initial=np.inf):g}",
        )
    return np.broadcast_to(repeats, (n_images,))


def _check_ratios(ncsnr: ArrayLike) -> np.ndarray:
    """Return the usable ratios as a list."""
    ratios = np.ravel(np.asarray(ncsnr, dtype=float))
    usable = ratios[np.isfinite(ratios) & (ratios > 0)]
    if (ratios < 0).any() or not len(usable):
        raise InputError(
            "ncsnr",
            expected="signal-to-noise ratios of vertices, some of them above 0",
            got=f"{len(ratios)} numbers, {(ratios < 0).sum()} of them negative",
        )
    return usable


def _check_range(name: str, limits: tuple[float, float], *, positive: bool = False):
    """Return (low, high)."""
    try:
        low, high = (float(limit) for limit in limits)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (0 <= low <= high < math.inf) or (positive and low == 0):
        least = "above 0" if positive else "from 0 on"
        raise InputError(
            name, expected=f"two numbers {least}, the smaller one first", got=repr(limits)
        )
    return low, high
