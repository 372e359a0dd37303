"""Images whose targets are known to depend on some places, and on how much they do.

Four functions of images with the amplitude spectrum of photographs, after the simulations of the
later edition of the IGC paper: a method of attribution is as good as its map resembles the truth.
Not loaded before it is used, because the functions are torch modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from neuroigc._validation import check_choice, check_count
from neuroigc.datasets.synthetic_images import make_noise

__all__ = ["KINDS", "GeneratingFunction", "LocalisedStatistics", "make_localised_statistics"]

KINDS = ("weighted sum", "maximum", "similarity", "category")
LEAST_SIZE = 24
SLOPE = -1.0  # log amplitude against log spatial frequency
# Probability with which the last pair of "similarity" does not count.
IGNORED = 0.5
# Of the softmax of "category", in units of mean squared differences.
TEMPERATURE = 0.15
IMAGE_STREAM, TARGET_STREAM = 5, 6  # of random numbers, beside those of invented studies

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


class GeneratingFunction(nn.Module):
    """Weighted sums of pixels, and what is made of them.

    Parameters
    ----------
    kind : {"weighted sum", "maximum", "similarity", "category"}
    weights : array of shape (n_terms, n_sums, size, size)
        Of the pixels, in the sums that make a term. Terms of "similarity" and "category" are
        minus the mean square of their sums, which are differences of two pixels; the others have
        one sum each.
    """

    def __init__(self, kind: str, weights: npt.NDArray[np.floating]) -> None:
        super().__init__()
        check_choice("kind", kind, KINDS)
        self.kind, self.n_terms = kind, len(weights)
        rows = torch.from_numpy(weights.reshape(-1, weights.shape[2] * weights.shape[3])).float()
        self.pixels = nn.Flatten()
        self.sums = nn.Linear(rows.shape[1], len(rows), bias=False)
        self.sums.weight = nn.Parameter(rows, requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, size, size) to (n, n_outputs)."""
        sums: Tensor = self.sums(self.pixels(images))
        if self.kind == "weighted sum":
            return sums
        if self.kind == "maximum":
            return sums.amax(1, keepdim=True)
        similarity = -sums.unflatten(1, (self.n_terms, -1)).square().mean(2)
        if self.kind == "similarity":
            return similarity.mean(1, keepdim=True)
        return torch.softmax(similarity / TEMPERATURE, 1)


@dataclass(frozen=True)
class LocalisedStatistics:
    """Images, targets, and the truth.

    Attributes
    ----------
    images : array of shape (n_images, size, size), float32
        Cut out of 1/f noise, of mean 0 and standard deviation 1 over all images.
    targets : array of shape (n_images, n_outputs), float32
    function : GeneratingFunction
        What images are mapped to the targets by, but for what is left to chance.
    truth : array of shape (size, size), float32
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

    - "weighted sum": the mean of a disc less the mean of the ring around it. The truth is the
      size of the weights.
    - "maximum": the largest of the means of three discs that overlap in the middle. The truth is
      the share of the discs that a pixel belongs to, which is how often it counts.
    - "similarity": how little two discs on the left differ, pixel by pixel, from two on the right,
      as minus the mean squared difference. In half of the images, chosen at random, the lower
      pair does not count for the target, which the function of the image cannot know. The truth
      is 1 and 0.5.
    - "category": which of three permutations of its parts makes the panel on the right most
      similar to that on the left, one-hot; the function gives probabilities. A fourth part, which
      no permutation moves, is compared as well, and says nothing about the category. The truth is
      1 in the parts that are moved.

    Parameters
    ----------
    kind : {"weighted sum", "maximum", "similarity", "category"}
    n_images : int
        Images of the same seed begin with those of a smaller number.
    size : int
        Side of the images in pixels, at least 24.
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
    rng = np.random.default_rng([seed, IMAGE_STREAM])
    # What is cut out of a larger image has no edges that continue each other.
    images = np.stack(
        [make_noise(rng, 2 * size, SLOPE)[:size, :size] for _ in range(n_images)]
    ).astype(np.float32)
    weights, truth, regions = _LAYOUTS[kind](size)
    function = GeneratingFunction(kind, weights).eval()
    chance = np.random.default_rng([seed, TARGET_STREAM]).random(n_images)
    with torch.no_grad():
        x = torch.from_numpy(images)
        targets = function(x).numpy()
        if kind == "similarity":
            ignored = GeneratingFunction(kind, weights[:-1])(x).numpy() * (1 - 1 / len(weights))
            targets = np.where(chance[:, None] < IGNORED, ignored, targets)
    if kind == "category":
        targets = np.eye(len(weights), dtype=np.float32)[targets.argmax(1)]
    return LocalisedStatistics(images, targets, function, truth, regions)


Layout = tuple[npt.NDArray[np.float64], FloatArray, dict[str, BoolArray]]


def _disc(size: int, row: float, column: float, radius: float) -> BoolArray:
    """Return a disc, its centre and radius relative to the size of the image."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    inside: BoolArray = np.hypot(y - row, x - column) <= radius
    return inside


def _mean(mask: BoolArray) -> npt.NDArray[np.float64]:
    """Return the weights of the mean of some pixels."""
    weights: npt.NDArray[np.float64] = mask / mask.sum()
    return weights


def _lay_out_weighted_sum(size: int) -> Layout:
    centre = _disc(size, 0.5, 0.5, 0.16)
    surround = _disc(size, 0.5, 0.5, 0.3) & ~centre
    weights = _mean(centre) - _mean(surround)
    truth = (np.abs(weights) / weights.max()).astype(np.float32)
    return weights[None, None], truth, {"centre": centre, "surround": surround}


def _lay_out_maximum(size: int) -> Layout:
    angles = np.deg2rad([90, 210, 330])
    places = 0.5 + 0.112 * np.stack([-np.sin(angles), np.cos(angles)], 1)
    discs = np.stack([_disc(size, row, column, 0.156) for row, column in places])
    times = discs.sum(0)
    regions = {f"disc {k + 1} alone": disc & (times == 1) for k, disc in enumerate(discs)}
    regions |= {"two discs": times == 2, "all discs": times == 3}
    weights = np.stack([_mean(disc) for disc in discs])
    return weights[:, None], (times / 3).astype(np.float32), regions


def _lay_out_similarity(size: int) -> Layout:
    pairs = []
    for row in (0.25, 0.75):
        left = _disc(size, row, 0.25, 0.125)
        # The same pixels, half an image further to the right.
        pairs.append((left, np.roll(left, size // 2, axis=1)))
    weights = np.stack([_differences(left, right) for left, right in pairs])
    regions = {
        name: left | right
        for name, (left, right) in zip(("counts", "at chance"), pairs, strict=True)
    }
    truth = regions["counts"] + (1 - IGNORED) * regions["at chance"]
    return weights, truth.astype(np.float32), regions


def _lay_out_category(size: int) -> Layout:
    side = size // 5
    top, panels = size // 2 - side, (size // 4 - side, 3 * size // 4 - side)
    parts = np.zeros((2, 4, size, size), bool)
    for panel, left in enumerate(panels):
        for part, (row, column) in enumerate(np.ndindex(2, 2)):
            rows, columns = top + row * side, left + column * side
            parts[panel, part, rows : rows + side, columns : columns + side] = True
    # The last part stays where it is.
    permutations = ((0, 1, 2, 3), (1, 2, 0, 3), (2, 0, 1, 3))
    weights = np.stack(
        [
            np.concatenate([_differences(parts[0, a], parts[1, b]) for a, b in enumerate(order)])
            for order in permutations
        ]
    )
    regions = {"moved": parts[:, :3].any((0, 1)), "fixed": parts[:, 3].any(0)}
    return weights, regions["moved"].astype(np.float32), regions


def _differences(first: BoolArray, second: BoolArray) -> npt.NDArray[np.float64]:
    """Return the weights (n_pixels, size, size) of the differences of pixels, one by one."""
    weights = np.zeros((first.sum(), *first.shape))
    numbers = np.arange(len(weights))
    weights[(numbers, *np.nonzero(first))] = 1
    weights[(numbers, *np.nonzero(second))] = -1
    return weights


_LAYOUTS = dict(
    zip(
        KINDS,
        (_lay_out_weighted_sum, _lay_out_maximum, _lay_out_similarity, _lay_out_category),
        strict=True,
    )
)
