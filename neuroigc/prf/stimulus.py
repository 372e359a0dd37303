"""What images offer to receptive fields, place by place."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from neuroigc._validation import InputError
from neuroigc.prf.phantoms import local_contrasts

__all__ = ["stimulus_power"]


def stimulus_power(images: ArrayLike | Tensor, *, shape: tuple[int, int]) -> np.ndarray:
    """Return the variance over images of the local contrast at every place of a map.

    IGC weighs a pixel by the receptive field *and* by what images do there: of a unit that pools
    contrast C with a Gaussian G, the map is about ``G(p) var(C(p))``. Images of scenes vary more
    in the middle, and those at hand here and there more than others, which draws centres inwards
    and about. Maps divided by this power are free of it (``fit_prf(..., power=)``).

    Parameters
    ----------
    images : (n_images, height, width) array, memory map or tensor
        Grey levels, 0..1 or uint8, of the images whose maps are meant.
    shape : (int, int)
        Rows and columns of the maps, which divide those of the images.

    Returns
    -------
    (rows, columns) array
        Of mean 1.

    Raises
    ------
    InputError
        If images are no stack of grey pictures, maps do not divide them, or a place never varies.

    Notes
    -----
    Contrast is the root of the local variance in a Gaussian window of 1.5 pixels.
    """
    images = images if isinstance(images, Tensor) else np.asanyarray(images)
    if images.ndim != 3 or len(images) < 2:
        raise InputError(
            "images",
            expected="at least two grey images (n_images, height, width)",
            got=f"shape {tuple(images.shape)}",
        )
    height, width = images.shape[1:]
    rows, columns = shape
    if rows < 1 or columns < 1 or height % rows or width % columns:
        raise InputError(
            "shape",
            expected=f"rows and columns that divide {height} x {width} pixels",
            got=f"{shape}",
        )
    total, squares = np.zeros((2, height * width))
    for _, contrast in local_contrasts(images):
        total += contrast.sum(0)
        squares += (contrast**2).sum(0)
    variance = squares / len(images) - (total / len(images)) ** 2
    variance = variance.reshape(rows, height // rows, columns, width // columns).mean((1, 3))
    if not variance.min() > 1e-12 * variance.max():
        raise InputError(
            "images",
            expected="contrast that varies from image to image at every place",
            got=f"{int((variance <= 1e-12 * variance.max()).sum())} places where it does not",
            fix="Cut off what all images share, as a frame around them.",
        )
    return variance / variance.mean()
