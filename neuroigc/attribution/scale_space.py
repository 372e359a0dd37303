"""Images and signals from sharp to blurred, and what is lost on the way.

Blurring is diffusion on the grid of pixels, with edges that nothing passes: the discrete scale
space of Lindeberg (1990), whose kernels are never negative, create no new extrema, and follow one
another exactly (a blur of variance s and one of t are one of s + t). In the cosine basis each
component decays by itself, so that blurred images and their derivatives by the scale are exact
at every scale, however small the differences between neighbouring pixels have become.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._validation import InputError, check_choice, check_count

__all__ = ["ScaleSpace", "band_frequencies", "check_scales"]


class ScaleSpace:
    """The scale space of signals or images of one shape.

    Parameters
    ----------
    shape : tuple of int
        Of one sample; the last ``n_dims`` dimensions are blurred, others are channels.
    n_dims : {1, 2}
        1 for signals, 2 for images.
    like : Tensor
        Of the dtype and on the device to work in.

    Raises
    ------
    InputError
        If samples of this shape are no images, or no signals.
    """

    def __init__(self, shape: tuple[int, ...], n_dims: int, like: Tensor) -> None:
        check_choice("n_dims", n_dims, (1, 2))
        n_dims = check_count("n_dims", n_dims)
        if len(shape) < n_dims or min(shape[-n_dims:]) < 2:
            kind = "images, (..., rows, columns)" if n_dims == 2 else "signals, (..., n_points)"
            raise InputError(
                "inputs",
                expected=f"samples that are {kind}, of two or more points a side",
                got=f"samples of shape {shape}",
                fix="Of signals, pass n_dims=1." if n_dims == 2 else "",
            )
        self.shape, self.sides = tuple(shape), tuple(shape[-n_dims:])
        self._like = like
        bases, decays = zip(*map(_cosines, self.sides), strict=True)
        self._bases = [torch.from_numpy(basis).to(like) for basis in bases]
        self._decay = np.add.outer(*decays) if n_dims == 2 else decays[0]

    def spectrum(self, samples: Tensor) -> Tensor:
        """Return cosine components (n, *shape) of flat samples (n, n_inputs)."""
        return self._turn(samples.reshape(-1, *self.shape), forwards=True)

    def blurred(self, spectrum: Tensor, scale: float) -> Tensor:
        """Return flat samples (n, n_inputs), blurred by kernels of standard deviation ``scale``.

        Of components as `spectrum` returns them; the scale is in pixels and may be infinite.
        """
        return self._filtered(spectrum, self._remaining(scale))

    def loss(self, spectrum: Tensor, scale: float) -> Tensor:
        """Return minus the derivative of blurred samples (n, n_inputs) by the scale."""
        return self._filtered(spectrum, scale * self._decay * self._remaining(scale))

    def _remaining(self, scale: float) -> NDArray[np.float64]:
        # An infinite scale leaves the mean alone.
        exponent = np.multiply(
            self._decay, scale**2 / 2, where=self._decay > 0, out=0 * self._decay
        )
        remaining: NDArray[np.float64] = np.exp(-exponent)
        return remaining

    def _filtered(self, spectrum: Tensor, factors: NDArray[np.float64]) -> Tensor:
        return self._turn(spectrum * torch.from_numpy(factors).to(self._like), forwards=False)

    def _turn(self, values: Tensor, *, forwards: bool) -> Tensor:
        bases = [basis if forwards else basis.T for basis in self._bases]
        turned = values @ bases[-1]
        if len(bases) == 2:
            turned = bases[0].T @ turned
        return turned if forwards else turned.flatten(1)


def _cosines(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvectors (n, n_components) and minus eigenvalues of diffusion on a line."""
    component, place = np.arange(n), np.arange(n)[:, None]
    basis = np.cos(np.pi * component * (place + 0.5) / n)
    basis /= np.linalg.norm(basis, axis=0)
    return basis, 2 - 2 * np.cos(np.pi * component / n)


def check_scales(scales: Sequence[float] | None, sides: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the scales between bands, in pixels; octaves up to the longer side by default.

    Raises
    ------
    InputError
        If they are not two or more growing numbers that begin with zero.
    """
    if scales is None:
        octaves = 2.0 ** np.arange(-1, int(np.ceil(np.log2(max(sides)))))
        return np.concatenate([[0.0], octaves, [float(max(sides))]])
    try:
        edges = np.asarray(scales, np.float64)
    except (TypeError, ValueError):
        edges = np.empty(0)
    growing = edges.ndim == 1 and len(edges) > 1 and bool(np.all(np.diff(edges) > 0))
    if not (growing and edges[0] == 0 and np.isfinite(edges[-1])):
        raise InputError(
            "scales",
            expected="two or more finite numbers of pixels that grow from 0, the sharp image",
            got=repr(scales),
        )
    return edges


def band_frequencies(scales: Any) -> NDArray[np.float64]:
    """Return the spatial frequency that each band between two scales holds most of.

    What is lost between two scales is what one blur leaves and the other takes; along an axis of
    the grid this is largest at one frequency.

    Parameters
    ----------
    scales : array of shape (n_scales + 1,)
        Standard deviations in pixels, from 0 on.

    Returns
    -------
    array of shape (n_scales,)
        In cycles per pixel, 0.5 at most.
    """
    edges = np.asarray(scales, np.float64)
    low, high = edges[:-1] ** 2, edges[1:] ** 2
    with np.errstate(divide="ignore"):
        decay = 2 * np.log(high / low) / (high - low)
    frequencies: NDArray[np.float64] = np.arccos(1 - np.minimum(decay, 4) / 2) / (2 * np.pi)
    return frequencies
