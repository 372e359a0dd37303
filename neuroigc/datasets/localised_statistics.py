"""Images whose targets are known to depend on some places, and on how much they do.

Four functions of images with the amplitude spectrum of photographs: a method of attribution is as
good as its map resembles the truth. Statistics, places, sizes and spectrum are those of the
simulations by which the later edition of the IGC paper compares methods.
Not loaded before it is used, because the functions are torch modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from neuroigc._validation import InputError, check_choice, check_count

__all__ = ["KINDS", "GeneratingFunction", "LocalisedStatistics", "make_localised_statistics"]

KINDS = ("weighted sum", "maximum", "similarity", "category")
LEAST_SIZE = 24
SLOPE = -1.2  # log amplitude against log spatial frequency
# Cycles per image whose amplitude the mean of an image has.
LOWEST_FREQUENCY = 0.5
# Probability with which the right pair of "similarity" does not count.
IGNORED = 0.5
TEMPERATURE = 0.01  # of the softmax of "category"
LEAST_SQUARE = 1e-12  # of a place; what is black all over resembles nothing
IMAGE_STREAM, TARGET_STREAM = 5, 6  # of random numbers, beside those of invented studies

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


class GeneratingFunction(nn.Module):
    """Weighted sums of pixels, and what is made of them.

    Parameters
    ----------
    kind : {"weighted sum", "maximum", "similarity", "category"}
    weights : array of shape (n_places, n_sums, size, size)
        Of the pixels, in the sums that tell of a place: one each for a weighted sum and for a
        maximum, the pixels themselves for a similarity (cosine) of places. "similarity" compares
        the first half of the places with the second, "category" the first place with each other.

    Raises
    ------
    InputError
        If the kind is unknown, or the weights are not in four dimensions or of an odd number of
        places to compare.
    """

    def __init__(self, kind: str, weights: npt.NDArray[np.floating]) -> None:
        super().__init__()
        check_choice("kind", kind, KINDS)
        if weights.ndim != 4 or (kind == "similarity" and len(weights) % 2):
            raise InputError(
                "weights",
                expected="(n_places, n_sums, size, size), for similarities an even n_places",
                got=f"shape {weights.shape}",
            )
        self.kind, self.n_places = kind, len(weights)
        rows = torch.from_numpy(weights.reshape(-1, weights.shape[2] * weights.shape[3])).float()
        self.pixels = nn.Flatten()
        self.sums = nn.Linear(rows.shape[1], len(rows), bias=False)
        self.sums.weight = nn.Parameter(rows, requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, size, size) to (n, n_outputs)."""
        terms = self.terms(images)
        if self.kind == "weighted sum":
            return terms
        if self.kind == "category":
            return torch.softmax(terms / TEMPERATURE, 1)
        return terms.amax(1, keepdim=True)

    def terms(self, images: Tensor) -> Tensor:
        """Map images (n, size, size) to what is compared: sums or similarities, (n, n_terms)."""
        sums: Tensor = self.sums(self.pixels(images))
        if self.kind in ("weighted sum", "maximum"):
            return sums
        places = sums.unflatten(1, (self.n_places, -1))
        lengths = places.square().sum(2).clamp_min(LEAST_SQUARE).sqrt()
        some = self.n_places // 2 if self.kind == "similarity" else 1
        products = (places[:, :some] * places[:, some:]).sum(2)
        return products / (lengths[:, :some] * lengths[:, some:])


@dataclass(frozen=True)
class LocalisedStatistics:
    """Images, targets, and the truth.

    Attributes
    ----------
    images : array of shape (n_images, size, size), float32
        Noise, of mean 0 and standard deviation 1 over all images.
    targets : array of shape (n_images, n_outputs), float32
    function : GeneratingFunction
        What images are mapped to the targets by, but for what is left to chance.
    truth : array of shape (n_outputs, size, size), float32
        How much the targets depend on each pixel, relative to the pixel that they depend on most.
    regions : dict of str to boolean array of shape (size, size)
        Places that do not overlap; all other pixels have no influence.
    """

    images: FloatArray
    targets: FloatArray
    function: GeneratingFunction
    truth: FloatArray
    regions: dict[str, BoolArray] = field(repr=False)


def make_localised_statistics(
    kind: str, n_images: int, *, size: int = 32, seed: int = 0
) -> LocalisedStatistics:
    """Invent images with targets that depend on some places only.

    - "weighted sum": a wide Gaussian less half a narrow one, so that the centre counts against
      the surround. The truth is the size of the weights.
    - "maximum": the largest of the means of three discs that overlap in the middle. The truth is
      the share of the discs that a pixel belongs to, which is how often it counts.
    - "similarity": how similar (cosine) two discs above are to those below them, the larger of
      the two similarities. In half of the images, chosen at random, the pair on the right does
      not count for the target, which the function of the image cannot know. The truth is 1 and
      0.5: of the images in which the function takes the right pair, the target does in half.
    - "category": which of four discs in the corners is most similar to that in the middle,
      one-hot; the function gives probabilities. For the targets the squares in the middle of the
      corners' discs change places, at random in each image: the function, which cannot know,
      takes each square for its own disc's. The truth is 1 for what surrounds the squares in the
      middle and in the corner of the category, 0.33 in the three others (four equal probabilities
      fall by a third of what one of them rises by), and 0 in squares, which speak for their corner
      in a quarter of the images, and a third as much against it in the others. Still squares go
      with the target, because they resemble what surrounds them.

    Parameters
    ----------
    kind : {"weighted sum", "maximum", "similarity", "category"}
    n_images : int
        Images of the same seed begin with those of a smaller number.
    size : int
        Side of the images in pixels, at least 24; the simulations of the paper have 64. The
        functions of similarities grow with its fourth power: to 36 MB at 64, 0.6 GB at 128.
    seed : int

    Returns
    -------
    LocalisedStatistics

    Raises
    ------
    InputError
        If the kind is unknown, or there are too few images or pixels.
    """
    check_choice("kind", kind, KINDS)
    n_images, seed = check_count("n_images", n_images), check_count("seed", seed, 0)
    size = check_count("size", size, LEAST_SIZE)
    images = _make_images(np.random.default_rng([seed, IMAGE_STREAM]), n_images, size)
    weights, truth, regions = _LAYOUTS[kind](size)
    function = GeneratingFunction(kind, weights).eval()
    rng = np.random.default_rng([seed, TARGET_STREAM])
    with torch.no_grad():
        if kind == "category":
            most_similar = function(torch.from_numpy(_exchange_squares(images, rng))).argmax(1)
            targets = np.eye(len(truth), dtype=np.float32)[most_similar.numpy()]
        elif kind == "similarity":
            terms = function.terms(torch.from_numpy(images)).numpy()
            terms[rng.random(n_images) < IGNORED, 1] = 0
            targets = terms.max(1, keepdims=True)
        else:
            targets = function(torch.from_numpy(images)).numpy()
    return LocalisedStatistics(images, targets, function, truth, regions)


def _make_images(rng: np.random.Generator, n_images: int, size: int) -> FloatArray:
    """Return Gaussian noise (n_images, size, size) whose amplitude falls with frequency."""
    from scipy import fft

    along = np.fft.fftfreq(size, 1 / size)
    frequency = np.hypot(along[:, None], along)
    frequency[0, 0] = LOWEST_FREQUENCY
    amplitudes = frequency**SLOPE
    amplitudes = (amplitudes / np.sqrt(np.mean(amplitudes**2))).astype(np.float32)
    images = np.empty((n_images, size, size), np.float32)
    for image in images:
        white = rng.standard_normal((size, size), dtype=np.float32)
        image[:] = fft.ifft2(fft.fft2(white) * amplitudes).real
    return images


def _exchange_squares(images: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return images whose squares in the corners are in another order, at random in each."""
    squares = [_square(images.shape[1], place) for place in CORNERS]
    held = np.stack([images[:, square] for square in squares], 1)
    order = rng.random((len(images), len(squares))).argsort(1)
    held = np.take_along_axis(held, order[:, :, None], 1)
    exchanged = images.copy()
    for k, square in enumerate(squares):
        exchanged[:, square] = held[:, k]
    return exchanged


# Where things are, as (downwards, to the right) of the middle of the image, and how large they are,
# relative to its side.
Place = tuple[float, float]
MIDDLE: Place = (0, 0)
WIDE, NARROW, NARROW_WEIGHT = 0.18, 0.1, 0.5  # standard deviations of Gaussians
THREE: tuple[Place, ...] = ((-0.13, 0), (0.140625, -0.15625), (0.140625, 0.15625))
FOUR: tuple[Place, ...] = tuple((y, x) for y in (-0.21875, 0.21875) for x in (-0.25, 0.25))
CORNERS: tuple[Place, ...] = tuple((y, x) for y in (-0.28125, 0.28125) for x in (-0.28125, 0.28125))
THREE_RADIUS, FOUR_RADIUS, CORNER_RADIUS, SQUARE_SIDE = 0.269, 0.1995, 0.1847, 0.125

Layout = tuple[npt.NDArray[np.floating], FloatArray, dict[str, BoolArray]]


def _axes(size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return y, x


def _move(mask: BoolArray, place: Place) -> BoolArray:
    """Move by whole pixels, so that each pixel of a place has its like in another."""
    steps = [round(distance * len(mask)) for distance in place]
    return np.roll(mask, steps, (0, 1))


def _disc(size: int, radius: float, place: Place = MIDDLE) -> BoolArray:
    y, x = _axes(size)
    inside: BoolArray = np.hypot(y - place[0], x - place[1]) < radius
    return inside


def _square(size: int, place: Place) -> BoolArray:
    return _move(np.abs(_axes(size)).max(0) <= SQUARE_SIDE / 2, place)


def _gaussian(size: int, spread: float) -> npt.NDArray[np.float64]:
    """Return a Gaussian in the middle whose sum over an endless plane is 1."""
    density: npt.NDArray[np.float64] = np.exp(-0.5 * (np.hypot(*_axes(size)) / spread) ** 2)
    return density / (2 * np.pi * (spread * size) ** 2)


def _lay_out_weighted_sum(size: int) -> Layout:
    weights = _gaussian(size, WIDE) - NARROW_WEIGHT * _gaussian(size, NARROW)
    truth = (np.abs(weights) / np.abs(weights).max()).astype(np.float32)
    return weights[None, None], truth[None], {"centre": weights < 0, "surround": weights >= 0}


def _lay_out_maximum(size: int) -> Layout:
    discs = np.stack([_disc(size, THREE_RADIUS, place) for place in THREE])
    times = discs.sum(0)
    regions = {f"disc {k + 1} alone": disc & (times == 1) for k, disc in enumerate(discs)}
    regions |= {"two discs": times == 2, "all discs": times == 3}
    weights = discs / discs.sum((1, 2), keepdims=True)
    return weights[:, None], (times / 3).astype(np.float32)[None], regions


def _lay_out_similarity(size: int) -> Layout:
    upper_left, upper_right, lower_left, lower_right = (
        _move(_disc(size, FOUR_RADIUS), place) for place in FOUR
    )
    weights = _pixels(upper_left, upper_right, lower_left, lower_right)
    regions = {"counts": upper_left | lower_left, "at chance": upper_right | lower_right}
    truth = regions["counts"] + (1 - IGNORED) * regions["at chance"]
    return weights, truth.astype(np.float32)[None], regions


def _lay_out_category(size: int) -> Layout:
    places = (MIDDLE, *CORNERS)
    discs = [_move(_disc(size, CORNER_RADIUS), place) for place in places]
    squares = [_square(size, place) for place in places]
    middle, *corners = (disc & ~square for disc, square in zip(discs, squares, strict=True))
    other = 1 / (len(corners) - 1)
    truth = np.stack(
        [middle + (1 - other) * corner + other * np.any(corners, 0) for corner in corners]
    )
    regions = {"middle": middle} | {f"corner {k + 1}": corner for k, corner in enumerate(corners)}
    regions["squares"] = np.any(squares, 0)
    return _pixels(*discs), truth.astype(np.float32), regions


def _pixels(*places: BoolArray) -> FloatArray:
    """Return the weights (n_places, n_pixels, size, size) of the pixels of places, one by one."""
    weights = np.zeros((len(places), places[0].sum(), *places[0].shape), np.float32)
    for own, place in zip(weights, places, strict=True):
        own[(np.arange(len(own)), *np.nonzero(place))] = 1
    return weights


_LAYOUTS = dict(
    zip(
        KINDS,
        (_lay_out_weighted_sum, _lay_out_maximum, _lay_out_similarity, _lay_out_category),
        strict=True,
    )
)
