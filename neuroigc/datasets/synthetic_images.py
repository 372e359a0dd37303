"""Invented scenes with the statistics of photographs, one function of (seed, number).

Leaves that hide one another (edges at all scales; Lee, Mumford & Huang 2001), 1/f noise whose
contrast varies from place to place, and now and then an object of one of four categories. Every
image has an amplitude spectrum of its own steepness and a contrast of its own, drawn independently:
two features that a decoder can be asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["CATEGORIES", "Scene", "make_noise", "make_scene"]

CATEGORIES = ("bodies", "faces", "places", "words")
SLOPE_MEAN, SLOPE_SD = -1.05, 0.25  # log amplitude against log spatial frequency
CONTRAST_RANGE = (0.07, 0.25)  # SD of grey levels
CATEGORY_PROBABILITY = 0.3
N_LEAVES, N_CORNERS = 180, 14
IMAGE_STREAM = 1  # sets the random numbers of images apart from those of subjects and sessions

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """One image and what is in it.

    Attributes
    ----------
    pixels : array of shape (size, size, 3), uint8
        Display values.
    categories : array of shape (4,), float32
        For each of ``CATEGORIES`` the side of the object relative to the image, 0 where there is
        none.
    """

    pixels: npt.NDArray[np.uint8]
    categories: FloatArray


def make_scene(seed: int, number: int, *, size: int) -> Scene:
    """Invent image ``number`` of the collection ``seed``.

    Parameters
    ----------
    seed, number : int
        Together decide everything in the image; nothing else does.
    size : int
        Side of the image in pixels.
    """
    rng = np.random.default_rng([seed, number, IMAGE_STREAM])
    slope = SLOPE_MEAN + SLOPE_SD * rng.standard_normal()
    contrast = rng.uniform(*CONTRAST_RANGE)
    luminance = 0.47 + 0.03 * rng.standard_normal()
    picture, categories = _paint(rng, 2 * size)
    painted = np.asarray(picture.resize((size, size), Image.Resampling.BOX), dtype=np.float32)

    texture = make_noise(rng, size, -1.0) * np.exp(0.8 * make_noise(rng, size, -2.0))
    grey = _standardised(painted[..., 0]) + 0.5 * texture
    grey = _with_slope(_standardised(grey), slope)
    # Contrast varies from place to place, as between sky and foliage.
    grey = _standardised(grey * np.exp(0.6 * make_noise(rng, size, -1.5)))
    # Bend the tails so that few pixels leave the range of the display.
    grey = luminance + contrast * _standardised(2.5 * np.tanh(grey / 2.5))

    # Colour that leaves Rec. 601 luma as it is.
    red, blue = np.moveaxis(painted[..., 1:] / 255 - 0.5, -1, 0) * rng.uniform(0.05, 0.35)
    green = -(0.299 * red + 0.114 * blue) / 0.587
    rgb = grey[..., None] + np.stack([red, green, blue], axis=-1)
    pixels = np.clip(np.rint(255 * rgb), 0, 255).astype(np.uint8)
    return Scene(pixels, categories)


def _paint(rng: np.random.Generator, side: int) -> tuple[Image.Image, FloatArray]:
    """Paint leaves and objects; the channels are grey level, red shift and blue shift."""
    picture = Image.new("RGB", (side, side), (128, 128, 128))
    draw = ImageDraw.Draw(picture)
    # Density r^-3 of sizes makes scenes that look alike at every scale.
    small, large = 0.03, 0.4
    radius = (rng.uniform(large**-2, small**-2, N_LEAVES)) ** -0.5
    radius[: N_LEAVES // 6] = rng.uniform(0.1, large, N_LEAVES // 6)  # a background without holes
    centre = rng.uniform(-0.1, 1.1, (N_LEAVES, 1, 2))
    shape = np.stack([np.ones(N_LEAVES), rng.uniform(0.35, 1, N_LEAVES)], axis=-1)[:, None]
    turn = rng.uniform(0, np.pi, N_LEAVES)
    around = np.linspace(0, 2 * np.pi, N_CORNERS, endpoint=False)
    outline = np.stack([np.cos(around), np.sin(around)], axis=-1) * shape
    boxes = rng.random(N_LEAVES) < 0.3
    outline[boxes] = np.clip(1.6 * outline[boxes], -shape[boxes], shape[boxes])
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    corners = (centre + radius[:, None, None] * outline @ rotation) * side
    levels = np.clip(128 + 45 * rng.standard_normal((N_LEAVES, 3)), 0, 255).astype(int).tolist()
    for polygon, level in zip(corners.reshape(N_LEAVES, -1).tolist(), levels, strict=True):
        draw.polygon(polygon, fill=tuple(level))

    categories = np.zeros(len(CATEGORIES), dtype=np.float32)
    for i, stamp in enumerate(_STAMPS):
        present, extent = rng.random() < CATEGORY_PROBABILITY, rng.uniform(0.25, 0.55)
        corner, sign = rng.uniform(0, 1 - extent, 2), rng.choice([-1, 1])
        tints = 128 + 25 * rng.standard_normal(2)
        if present:
            categories[i] = extent
            stamp(_Pen(draw, corner * side, extent * side, sign, tints), rng)
    return picture, categories


class _Pen:
    """Draws in the unit square of one object (y down), light on dark or dark on light."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        corner: npt.NDArray[np.float64],
        extent: float,
        sign: int,
        tints: npt.NDArray[np.float64],
    ) -> None:
        self.draw, self.corner, self.extent, self.sign = draw, corner, extent, sign
        self.tints = tuple(int(t) for t in tints)

    def _place(self, points: npt.ArrayLike) -> list[float]:
        return (self.corner + np.reshape(points, (-1, 2)) * self.extent).ravel().tolist()

    def _fill(self, level: float) -> tuple[int, ...]:
        return (int(np.clip(128 + 127 * self.sign * level, 0, 255)), *self.tints)

    def ellipse(self, x: float, y: float, rx: float, ry: float, level: float) -> None:
        self.draw.ellipse(self._place([x - rx, y - ry, x + rx, y + ry]), fill=self._fill(level))

    def polygon(self, points: npt.ArrayLike, level: float) -> None:
        self.draw.polygon(self._place(points), fill=self._fill(level))

    def line(self, points: npt.ArrayLike, width: float, level: float) -> None:
        width = max(1, round(width * self.extent))
        self.draw.line(self._place(points), fill=self._fill(level), width=width, joint="curve")


def _body(pen: _Pen, rng: np.random.Generator) -> None:
    left, right, stride, step = rng.uniform(0.1, 0.5, 4)
    pen.polygon([0.38, 0.22, 0.62, 0.22, 0.58, 0.58, 0.42, 0.58], 0.7)
    pen.line([0.38, 0.26, 0.2, 0.26 + left * 0.5, 0.1, 0.3 + left], 0.07, 0.8)
    pen.line([0.62, 0.26, 0.8, 0.26 + right * 0.5, 0.9, 0.3 + right], 0.07, 0.8)
    pen.line([0.45, 0.55, 0.42 - 0.3 * stride, 0.78, 0.4 - 0.5 * stride, 0.98], 0.1, 0.55)
    pen.line([0.55, 0.55, 0.58 + 0.3 * step, 0.78, 0.6 + 0.5 * step, 0.98], 0.1, 0.55)
    pen.ellipse(0.5, 0.1, 0.085, 0.1, 0.9)


def _face(pen: _Pen, rng: np.random.Generator) -> None:
    gaze, smile = rng.uniform(-0.03, 0.03), rng.uniform(0.02, 0.07)
    pen.ellipse(0.5, 0.5, 0.38, 0.5, 0.6)
    for x in (0.34, 0.66):
        pen.ellipse(x, 0.42, 0.1, 0.055, 0.95)
        pen.ellipse(x + gaze, 0.42, 0.045, 0.05, -0.8)
        pen.line([x - 0.1, 0.32, x + 0.1, 0.32], 0.035, -0.4)
    pen.line([0.5, 0.45, 0.46, 0.62, 0.54, 0.62], 0.03, 0.1)
    pen.ellipse(0.5, 0.77, 0.16, smile, -0.6)


def _place(pen: _Pen, rng: np.random.Generator) -> None:
    floors, bays = rng.integers(2, 4), rng.integers(3, 6)
    pen.polygon([0.08, 0.32, 0.92, 0.32, 0.92, 0.95, 0.08, 0.95], 0.65)
    pen.polygon([0.0, 0.34, 0.5, 0.02, 1.0, 0.34], -0.5)
    for row in range(floors):
        for column in range(bays):
            x = 0.08 + 0.84 * (column + 0.5) / bays
            y = 0.32 + 0.63 * (row + 0.5) / floors
            w, h = 0.25 / bays, 0.2 / floors
            pen.polygon([x - w, y - h, x + w, y - h, x + w, y + h, x - w, y + h], -0.65)
    pen.polygon([0.0, 0.95, 1.0, 0.95, 1.0, 1.0, 0.0, 1.0], 0.2)


# Strokes on a grid two wide and four high; enough of an alphabet to look like print.
_LETTERS = (
    ((0, 4, 1, 0, 2, 4), (0.5, 2.4, 1.5, 2.4)),
    ((2, 0, 0, 0, 0, 4, 2, 4), (0, 2, 1.5, 2)),
    ((0, 0, 0, 4), (2, 0, 2, 4), (0, 2, 2, 2)),
    ((0, 0, 0, 4, 2, 4),),
    ((0, 4, 0, 0, 2, 4, 2, 0),),
    ((0, 0, 2, 0, 2, 4, 0, 4, 0, 0),),
    ((0, 0, 2, 0), (1, 0, 1, 4)),
    ((0, 0, 1, 4, 2, 0),),
    ((2, 0, 0, 0, 0, 2, 2, 2, 2, 4, 0, 4),),
)


def _word(pen: _Pen, rng: np.random.Generator) -> None:
    n_letters = int(rng.integers(4, 7))
    pen.polygon([0, 0.3, 1, 0.3, 1, 0.7, 0, 0.7], 0.7)
    for position, letter in enumerate(rng.integers(len(_LETTERS), size=n_letters)):
        for stroke in _LETTERS[letter]:
            points = np.reshape(stroke, (-1, 2)) * [0.3 / n_letters, 0.065]
            start = np.array([(position + 0.25) / n_letters, 0.37])
            pen.line(points + start, 0.14 / n_letters, -0.8)


_STAMPS = (_body, _face, _place, _word)  # in the order of CATEGORIES


@lru_cache(maxsize=4)
def _frequency(size: int) -> FloatArray:
    """Return spatial frequency, cycles per image, of the half spectrum; 1 in place of 0."""
    fy, fx = np.fft.fftfreq(size, 1 / size), np.fft.rfftfreq(size, 1 / size)
    frequency = np.hypot(fy[:, None], fx)
    frequency[0, 0] = 1
    return frequency.astype(np.float32)


def make_noise(rng: np.random.Generator, size: int, slope: float) -> FloatArray:
    """Return standardised noise (size, size) with an amplitude spectrum f^slope."""
    from scipy import fft

    white = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    return _standardised(fft.irfft2(white * _frequency(size) ** slope, s=(size, size)))


def _with_slope(image: FloatArray, slope: float) -> FloatArray:
    """Tilt the amplitude spectrum so that log amplitude falls with log frequency by ``slope``."""
    from scipy import fft

    spectrum, frequency = fft.rfft2(image), _frequency(len(image))
    rings = np.rint(frequency).astype(int).ravel()
    used = np.arange(2, len(image) // 3)
    total = np.bincount(rings, np.abs(spectrum).ravel())[used]
    present = np.polyfit(np.log(used), np.log(total / np.bincount(rings)[used]), 1)[0]
    return fft.irfft2(spectrum * frequency ** np.float32(slope - present), s=image.shape)


def _standardised(image: FloatArray) -> FloatArray:
    return (image - image.mean()) / image.std()
