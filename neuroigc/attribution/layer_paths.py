"""Integrated gradients of hidden units along paths between inputs, or between activities."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from neuroigc._validation import InputError
from neuroigc.attribution.factorisation import Factors
from neuroigc.attribution.watching import WatchedLayer

__all__ = ["LayerPaths", "refuse_passed_by", "refuse_regions", "region_steps"]


def region_steps(factors: Factors, regions: list[Tensor], inputs: Tensor) -> Tensor:
    """Return what regions of the input alone add to the stem's output.

    Parameters
    ----------
    factors : Factors
    regions : list of Tensor
        Indices of input components.
    inputs : Tensor of shape (n, n_inputs)

    Returns
    -------
    Tensor of shape (n, n_regions, n_hidden)
    """
    steps = [factors.stem.push_from(region, inputs) for region in regions]
    return torch.stack(steps, 1) if steps else inputs.new_empty(len(inputs), 0, 0)


class LayerPaths:
    """Quadrature of the units' gradients along straight paths.

    Along the path between two *inputs*, a unit is given its gradient times what it changes itself
    (conductance), or what it changes because of one region of the input; along the path between
    two *activities*, its gradient times their difference.

    Parameters
    ----------
    factors : Factors
        Of the model with the layer watched.
    layer : WatchedLayer
    n_outputs : int
    between_inputs : bool
        Which of the two paths.
    n_steps : int
        Gauss-Legendre nodes.
    by_channel : bool
        Sum units over all dimensions but the first.
    """

    def __init__(
        self,
        factors: Factors,
        layer: WatchedLayer,
        n_outputs: int,
        *,
        between_inputs: bool,
        n_steps: int,
        by_channel: bool,
    ) -> None:
        self.factors, self.layer = factors, layer
        self.between_inputs, self.by_channel = between_inputs, by_channel
        self.shape = layer.shape[:1] if by_channel else layer.shape
        self.n_units = torch.Size(self.shape).numel()
        # The gradients of latents serve all outputs, if there are fewer of them.
        head = factors.head
        self.head = None if head is None or head[0].shape[1] >= n_outputs else head[0]
        self.n_values = n_outputs if self.head is None else self.head.shape[1]
        nodes, weights = np.polynomial.legendre.leggauss(n_steps)
        self.nodes: list[float] = ((nodes + 1) / 2).tolist()
        self.weights: list[float] = (weights / 2).tolist()

    def integrate(
        self, starts: Tensor, ends: Tensor, regions: Tensor, conditions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Integrate along paths.

        Parameters
        ----------
        starts, ends : Tensor of shape (n, n_hidden)
            At the stem's output.
        regions : Tensor of shape (n, n_regions, n_hidden)
            What each region of the input adds to the difference of ends and starts.
        conditions : Tensor of shape (n, ...) or None

        Returns
        -------
        units : Tensor of shape (n, n_values, 1 + n_regions, n_units)
            Attributions, all input together first, then by region.
        through : Tensor of shape (n, n_values, 1 + n_regions)
            What the region adds to outputs (or latents) through this layer or past it. Empty for
            paths between activities.
        """
        if not self.between_inputs:
            return self._between_activities(starts, ends, conditions), starts.new_empty(0)
        steps = torch.cat(
            [(ends - starts)[:, None], regions.reshape(len(ends), -1, ends.shape[1])], 1
        )
        units = ends.new_zeros(len(ends), self.n_values, steps.shape[1], self.n_units)
        through = ends.new_zeros(units.shape[:3])
        for t, weight in zip(self.nodes, self.weights, strict=True):
            leaf = torch.lerp(starts, ends, t).requires_grad_(True)
            values, activity = self._values(leaf, conditions)
            changes = self._changes(activity, leaf, steps)
            for k in range(self.n_values):
                slope, at_leaf = torch.autograd.grad(
                    values[:, k].sum(),
                    (activity, leaf),
                    retain_graph=k < self.n_values - 1,
                    allow_unused=True,
                    materialize_grads=True,
                )
                products = self._units(slope[:, None] * changes)
                units[:, k].add_(products, alpha=weight)
                through[:, k].add_(torch.einsum("nh,nrh->nr", at_leaf, steps), alpha=weight)
        return units, through

    def _between_activities(
        self, starts: Tensor, ends: Tensor, conditions: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            low, high = (self._values(h, conditions)[1].flatten(1) for h in (starts, ends))
        total = high.new_zeros(len(high), self.n_values, high.shape[1])
        for t, weight in zip(self.nodes, self.weights, strict=True):
            leaf = torch.lerp(low, high, t).requires_grad_(True)
            values, _ = self._values(ends, conditions, leaf)
            for k in range(self.n_values):
                more = k < self.n_values - 1
                (slope,) = torch.autograd.grad(
                    values[:, k].sum(),
                    leaf,
                    retain_graph=more,
                    allow_unused=True,
                    materialize_grads=True,
                )
                total[:, k].add_(slope, alpha=weight)
        products = total * (high - low)[:, None]
        return self._units(products.reshape(*products.shape[:2], *self.layer.shape))[:, :, None]

    def _values(
        self, hidden: Tensor, conditions: Tensor | None, replacement: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return outputs (or latents) and the layer's activity."""
        factors = self.factors
        function = factors.outputs if self.head is None else factors.latents
        run = self._run(function, hidden, conditions)
        # Of attention, only the plain formula can be differentiated twice.
        plain = sdpa_kernel(SDPBackend.MATH) if self.between_inputs else nullcontext()
        with torch.set_grad_enabled(hidden.requires_grad or replacement is not None), plain:
            values, activity = self.layer.run(run, replacement)
        if activity is None:
            raise RuntimeError(f"{self.layer.name} is no part of the body")
        return values, activity

    @staticmethod
    def _run(
        function: Callable[[Tensor, Tensor | None], Tensor],
        hidden: Tensor,
        conditions: Tensor | None,
    ) -> Callable[[], Tensor]:
        return lambda: function(hidden, conditions)

    def _changes(self, activity: Tensor, leaf: Tensor, steps: Tensor) -> Tensor:
        """Return the derivative of the activity along each step, (n, n_steps, *shape)."""
        # The transposed derivative is linear in what it is given, so that its own derivative by
        # that is the derivative wanted, for all steps from one graph.
        anything = torch.zeros_like(activity, requires_grad=True)
        pulled = torch.zeros_like(leaf)
        if activity.requires_grad:
            (pulled,) = torch.autograd.grad(
                activity,
                leaf,
                anything,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        if not pulled.requires_grad:
            raise InputError(
                "layer",
                expected="a module whose activity depends on the inputs",
                got=f"{self.layer.name}, which does not",
            )
        rows = [
            torch.autograd.grad(pulled, anything, step, retain_graph=True)[0]
            for step in steps.unbind(1)
        ]
        return torch.stack(rows, 1)

    def _units(self, products: Tensor) -> Tensor:
        """Turn (n, any, *shape) into (n, any, n_units)."""
        flat = products.flatten(3) if products.ndim > 3 else products[..., None]
        return flat.sum(3) if self.by_channel else products.flatten(2)

    def passes_by(self, hidden: Tensor, conditions: Tensor | None) -> bool:
        """Tell whether outputs depend on the input by other ways than this layer."""
        leaf = hidden.detach().requires_grad_(True)
        with torch.no_grad():
            activity = self._values(hidden, conditions)[1]
        values, _ = self._values(leaf, conditions, activity)
        if not values.requires_grad:
            return False
        (slope,) = torch.autograd.grad(
            values.sum(), leaf, allow_unused=True, materialize_grads=True
        )
        return bool(slope.any())

    def as_output(self, output: int, values: Tensor) -> Tensor:
        """Return one output's part of (n, n_values, ...), which may be latents'."""
        if self.head is None:
            return values[:, output]
        return torch.einsum("k,nk...->n...", self.head[output], values)


def refuse_regions(regions: Any, path: str) -> None:
    """Raise where regions of the input are wanted of paths that do not begin there."""
    if regions is not None and path == "activities":
        raise InputError(
            "regions",
            expected="none with path='activities', whose ends are not inputs",
            got=f"{type(regions).__name__}",
            fix="Take path='inputs'.",
        )


def refuse_passed_by(paths: LayerPaths, hidden: Tensor, conditions: Tensor | None) -> None:
    """Raise where activities alone do not tell the outputs."""
    if paths.passes_by(hidden, conditions):
        raise InputError(
            "layer",
            expected="a module that all of the input goes through, with path='activities'",
            got=f"{paths.layer.name}, which connections pass by",
            fix="Take path='inputs', which reports what passes by as remainder; or a module "
            "behind the connection.",
        )
