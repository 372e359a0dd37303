"""Gradients along the scale space of samples, integrated band by band of scales.

Of smooth models at Gauss-Legendre nodes, of models with kinks by the slopes between equal steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from neuroigc.attribution.factorisation import Factors
from neuroigc.attribution.gradients import gradients
from neuroigc.attribution.samples import Samples
from neuroigc.attribution.scale_space import ScaleSpace, check_scales
from neuroigc.attribution.secants import has_kinks, secant_gradients

__all__ = ["Bands"]


class Bands:
    """Gradients along the scale space of samples, summed by bands of scales.

    Parameters
    ----------
    model : torch.nn.Module
    factors : Factors
        Of it, for the chosen outputs.
    samples : Samples
    n_outputs : int
    scales : sequence of float or None
    n_points : int
        Nodes in each band, or steps.
    n_dims : int
    """

    def __init__(
        self,
        model: nn.Module,
        factors: Factors,
        samples: Samples,
        n_outputs: int,
        scales: Sequence[float] | None,
        n_points: int,
        n_dims: int,
    ) -> None:
        self.model, self.factors = model, factors
        self.has_kinks = has_kinks(model)
        self.space = ScaleSpace(samples.shape, n_dims, samples.rows(slice(0, 1)))
        self.scales = check_scales(scales, self.space.sides)
        nodes, weights = np.polynomial.legendre.leggauss(n_points)
        widths = np.diff(self.scales)[:, None]
        self.nodes = self.scales[:-1, None] + widths * (nodes + 1) / 2
        self.weights = widths * weights / 2
        self.edges = self.scales[:-1, None] + widths * np.arange(n_points + 1) / n_points
        # The gradients of latents serve all outputs, if there are fewer of them.
        head = factors.head
        self.head = None if head is None or head[0].shape[1] >= n_outputs else head[0]
        self.n_values = n_outputs if self.head is None else self.head.shape[1]
        self.n_rows = 1

    def samples_at_once(self, batch_size: int, n_maps: int) -> int:
        """Return how many samples' bands are taken at once, of which ``n_maps`` maps are held."""
        self.n_rows = batch_size
        held = self.n_values * (2 * len(self.scales) - 1)
        return max(1, min(batch_size, n_maps // held))

    def predictions(self, x: Tensor, conditions: Tensor | None) -> Tensor:
        """Return outputs of flat samples at all scales, (n, n_outputs, n_scales + 1)."""
        spectrum, factors = self.space.spectrum(x), self.factors
        with torch.no_grad():
            at = [
                factors.outputs(factors.stem(self.space.blurred(spectrum, scale)), conditions)
                for scale in self.scales
            ]
        return torch.stack(at, 2).double()

    def maps(
        self, x: Tensor, conditions: Tensor | None, reduce: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return what ``reduce`` makes of the bands' maps, (n, n_values, n_scales, n_columns).

        Of outputs, or of latents if these are fewer.
        """
        spectrum = self.space.spectrum(x)
        bands = range(len(self.scales) - 1)
        return torch.stack([self._band(spectrum, conditions, k, reduce) for k in bands], 2)

    def _band(
        self,
        spectrum: Tensor,
        conditions: Tensor | None,
        band: int,
        reduce: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Integrate over one band."""
        n, factors = len(spectrum), self.factors
        function = factors.latents if self.head is not None else factors.outputs
        total: Tensor | None = None
        # A step has two ends.
        step = max(1, self.n_rows // (n * (1 + self.has_kinks)))
        for first in range(0, self.nodes.shape[1], step):
            *ends, losses = self._points(spectrum, band, slice(first, first + step))
            n_points = len(losses) // n
            beside = None
            if conditions is not None:
                beside = conditions.repeat(n_points, *(1,) * (conditions.ndim - 1))
            with torch.no_grad():
                hidden = [factors.stem(points) for points in ends]

            def attribute(slope: Tensor, losses: Tensor = losses) -> Tensor:
                attributed = reduce(factors.stem.pull(slope) * losses)
                return attributed.reshape(-1, n, attributed.shape[-1]).sum(0)

            def values(hidden: Tensor, beside: Tensor | None = beside) -> Tensor:
                return function(hidden, beside)

            if self.has_kinks:
                found = secant_gradients(self.model, values, hidden[0], hidden[1], attribute)
            else:
                found = gradients(values, hidden[0], attribute)
            total = found if total is None else total + found
        if total is None:
            raise RuntimeError("a band has no nodes")
        return total

    def _points(self, spectrum: Tensor, band: int, some: slice) -> list[Tensor]:
        """Return where to differentiate, and what is lost there.

        These are nodes of a quadrature, or the sharper and the more blurred ends of steps.
        """
        space = self.space
        if self.has_kinks:
            edges = self.edges[band, some.start : some.stop + 1]
            blurred = [space.blurred(spectrum, edge) for edge in edges]
            sharper, duller = torch.cat(blurred[:-1]), torch.cat(blurred[1:])
            return [sharper, duller, sharper - duller]
        nodes, weights = self.nodes[band, some], self.weights[band, some]
        points = torch.cat([space.blurred(spectrum, node) for node in nodes])
        losses = [w * space.loss(spectrum, node) for node, w in zip(nodes, weights, strict=True)]
        return [points, torch.cat(losses)]

    def as_outputs(self, values: Tensor) -> Tensor:
        """Turn (n_values, any) of latents into those of outputs."""
        return values if self.head is None else self.head @ values

    def weighted_sum(self, weights: Tensor, values: Tensor) -> Tensor:
        """Sum (n, n_values, any) over samples, weighted for each output, (n_outputs, any)."""
        if self.head is None:
            return torch.einsum("nv,nvm->vm", weights, values)
        both = weights.T[:, :, None] * self.head[:, None]
        return both.flatten(1) @ values.flatten(0, 1)
