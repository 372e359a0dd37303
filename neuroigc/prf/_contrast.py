"""Local contrast of natural images, the stimulus that classical models pool."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count

__all__ = ["contrast_energy", "display_values"]

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601
_DISPLAY_GAMMA = 2.0
_SURROUND = 127 / 255
_N_PIXELS_PER_BATCH = 2**21


def contrast_energy(
    images: ArrayLike | Tensor,
    *,
    n_tiles: int = 51,
    surround_tiles: float = 0.5,
    tile_pixels: int = 16,
    pool: int = 1,
    progress: bool = False,
) -> np.ndarray:
    """Return how much luminance varies within each tile of images.

    Images become grey and are resized (bicubic), display values are squared to luminance, and the
    image is embedded in a grey surround, as on the screen. The contrast of a tile is twice the
    standard deviation of its pixels, so that black beside white gives 1; it is cut off there.

    Parameters
    ----------
    images : (n_images, height, width) or (n_images, height, width, 3) array or memory map
        Display values, uint8 or 0..1; row 0 at the top.
    n_tiles : int
        Tiles along each side of the embedded image, which is square.
    surround_tiles : float
        Width of the grey surround at each side, in tiles; it shifts tiles against the image.
    tile_pixels : int
        Pixels along the side of a tile; the image is resized to
        ``(n_tiles - 2 * surround_tiles) * tile_pixels``.
    pool : int
        Average the contrast of ``pool x pool`` tiles.
    progress : bool
        Show a progress bar.

    Returns
    -------
    (n_images, n_tiles / pool, n_tiles / pool) array of float32
        0 to 1. It is larger than the images: a fit's ``extent_deg`` is that of the images times
        ``n_tiles / (n_tiles - 2 * surround_tiles)``.

    Raises
    ------
    InputError
        If the images have another shape or values outside 0..1, or tiles and pixels do not come
        out even.

    Notes
    -----
    With the defaults (an image of 800 pixels, within 816 pixels of grey 127, in tiles of 16) this
    is the contrast grid for pRFs from natural scenes of the Natural Scenes Dataset (Allen et al.
    2022, Nat Neurosci 25:116). The standard deviation has ``n - 1`` in its denominator.
    """
    n_tiles = check_count("n_tiles", n_tiles, least=3)
    tile_pixels = check_count("tile_pixels", tile_pixels, least=2)
    pool = check_count("pool", pool)
    if n_tiles % pool:
        raise InputError("pool", expected=f"a divisor of n_tiles ({n_tiles})", got=str(pool))
    border = surround_tiles * tile_pixels
    if not 0 <= border < n_tiles * tile_pixels / 2 or border != int(border):
        raise InputError(
            "surround_tiles",
            expected="a width of whole pixels that leaves room for the image",
            got=f"{surround_tiles} tiles of {tile_pixels} pixels",
        )
    images = images if isinstance(images, Tensor) else np.asanyarray(images)
    shape = tuple(images.shape)
    if len(shape) not in (3, 4) or shape[3:] not in ((), (3,)) or 0 in shape:
        raise InputError(
            "images",
            expected="an array (n_images, height, width) or (n_images, height, width, 3)",
            got=f"shape {shape}",
        )
    side, border = n_tiles * tile_pixels, int(border)
    batch = max(1, _N_PIXELS_PER_BATCH // side**2)
    contrast = np.empty((shape[0], n_tiles // pool, n_tiles // pool), dtype=np.float32)
    starts = range(0, shape[0], batch)
    for start in track(starts, show=progress, label="Contrast of images"):
        grey = display_values(images[start : start + batch])
        inside = side - 2 * border
        if grey.shape[1:] != (inside, inside):
            grey = torch.nn.functional.interpolate(
                grey[:, None], size=(inside, inside), mode="bicubic", antialias=True
            )[:, 0].clamp(0, 1)
        screen = grey.new_full((len(grey), side, side), _SURROUND**_DISPLAY_GAMMA)
        screen[:, border : side - border, border : side - border] = grey.pow(_DISPLAY_GAMMA)
        tiles = screen.view(-1, n_tiles, tile_pixels, n_tiles, tile_pixels)
        # In two steps, along rows first: several times faster than one over both axes.
        tiles -= tiles.sum(4, keepdim=True).sum(2, keepdim=True) / tile_pixels**2
        variance = tiles.square_().sum(4).sum(2) / (tile_pixels**2 - 1)
        pooled = torch.nn.functional.avg_pool2d((2 * variance.sqrt()).clamp(0, 1)[:, None], pool)
        contrast[start : start + batch] = pooled[:, 0].numpy()
    return contrast


def display_values(images: np.ndarray | Tensor) -> Tensor:
    """Return a batch of images in grey, 0..1 (float32)."""
    values = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    scale = 255 if values.dtype == np.uint8 else 1
    grey = torch.from_numpy(values.astype(np.float32) / np.float32(scale))
    if not (grey.min() >= 0 and grey.max() <= 1):
        raise InputError(
            "images",
            expected="uint8, or numbers from 0 to 1",
            got=f"{values.dtype} from {values.min():g} to {values.max():g}",
        )
    return grey @ torch.tensor(_LUMA) if grey.ndim == 4 else grey
