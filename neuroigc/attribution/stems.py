"""Affine first parts of a model: run once per sample, transposed once per sum of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DenseStem", "IdentityStem", "ModuleStem", "Stem", "has_hooks", "runs_as"]

_TRANSPOSED: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv_transpose1d,
    nn.Conv2d: F.conv_transpose2d,
    nn.Conv3d: F.conv_transpose3d,
}

# Columns of a matrix that are multiplied at once.
TILE = 2048


class IdentityStem:
    """No stem: the body takes the input itself, flattened."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = self.hidden_shape = input_shape
        self.n_inputs = self.n_hidden = torch.Size(input_shape).numel()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (n, n_inputs) to (n, n_hidden)."""
        return inputs

    def pull(self, gradients: Tensor) -> Tensor:
        """Map gradients (..., n_hidden) to gradients (..., n_inputs) of the input."""
        return gradients

    def attribute(
        self, gradients: Tensor, inputs: Tensor, membership: Tensor, beside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sums over groups of rows of inputs times gradients at the input.

        Parameters
        ----------
        gradients : Tensor of shape (n, n_outputs, n_hidden)
        inputs : Tensor of shape (n, n_inputs)
        membership : Tensor of shape (n_groups, n)
            1 where a row belongs to a group, else 0.
        beside : Tensor of shape (m, n_outputs, n_hidden)
            Gradients that are only to be pulled back; so, a wide matrix is read once.

        Returns
        -------
        sums : Tensor of shape (n_groups, n_outputs, n_inputs)
        pulled : Tensor of shape (m, n_outputs, n_inputs)
        """
        products = self.pull(gradients) * inputs[:, None]
        sums = (membership @ products.flatten(1)).reshape(-1, *products.shape[1:])
        return sums, self.pull(beside)

    def pull_to(self, components: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the map of gradients (..., n_hidden) to those of some input components alone."""
        return lambda gradients: self.pull(gradients)[..., components]

    def push_from(self, components: Tensor, inputs: Tensor) -> Tensor:
        """Return what some input components alone, of (n, n_inputs), add to (n, n_hidden)."""
        alone = torch.zeros_like(inputs)
        alone[:, components] = inputs[:, components]
        with torch.no_grad():
            return self(alone) - self(torch.zeros_like(inputs[:1]))


class DenseStem(IdentityStem):
    """A stem that is one matrix: inputs (n, n_inputs) to ``inputs @ weight.T + bias``."""

    def __init__(self, input_shape: tuple[int, ...], weight: Tensor, bias: Tensor) -> None:
        super().__init__(input_shape)
        self.weight, self.bias = weight, bias
        self.n_hidden = len(weight)
        self.hidden_shape = (self.n_hidden,)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Apply the matrix."""
        return torch.addmm(self.bias, inputs, self.weight.T)

    def pull(self, gradients: Tensor) -> Tensor:
        """Multiply by the transposed matrix."""
        return gradients @ self.weight

    def attribute(
        self, gradients: Tensor, inputs: Tensor, membership: Tensor, beside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Multiply tile by tile, so that no product leaves the cache before it is summed."""
        n, n_outputs, _ = gradients.shape
        flat, n_groups = torch.cat([gradients, beside]).flatten(0, 1), len(membership)
        sums = inputs.new_empty(n_groups, n_outputs, self.n_inputs)
        others = inputs.new_empty(len(beside), n_outputs, self.n_inputs)
        buffer = inputs.new_empty(len(flat) * min(TILE, self.n_inputs))
        for start in range(0, self.n_inputs, TILE):
            tile = slice(start, min(start + TILE, self.n_inputs))
            width = tile.stop - start
            pulled = buffer[: len(flat) * width].view(len(flat), width)
            torch.mm(flat, self.weight[:, tile], out=pulled)
            whole = pulled.view(-1, n_outputs, width)
            others[:, :, tile] = whole[n:]
            products = whole[:n].mul_(inputs[:, None, tile])
            summed = membership @ products.view(n, -1)
            sums[:, :, tile] = summed.view(n_groups, n_outputs, width)
        return sums, others

    def pull_to(self, components: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the multiplication by some columns of the matrix."""
        columns = self.weight[:, components]
        return lambda gradients: gradients @ columns

    def push_from(self, components: Tensor, inputs: Tensor) -> Tensor:
        """Multiply by some columns of the matrix."""
        return inputs[:, components] @ self.weight[:, components].T


class ModuleStem(IdentityStem):
    """Any affine module, for example a convolution.

    Parameters
    ----------
    input_shape : tuple of int
        Of the model's input.
    module : torch.nn.Module
    example : Tensor of shape (n, ...)
        An input in the shape that the module takes; may be another arrangement of the same
        numbers as ``input_shape``.
    """

    def __init__(self, input_shape: tuple[int, ...], module: nn.Module, example: Tensor) -> None:
        super().__init__(input_shape)
        self.module = module
        self.taken_shape = tuple(example.shape[1:])
        self.hidden_shape = self.given_shape = tuple(module(example).shape[1:])
        self.n_hidden = torch.Size(self.hidden_shape).numel()
        self.is_convolution = self._transposes()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Run the module."""
        hidden: Tensor = self.module(inputs.reshape(-1, *self.taken_shape))
        return hidden.flatten(1)

    def pull(self, gradients: Tensor) -> Tensor:
        """Run the module backwards."""
        flat = gradients.reshape(-1, *self.given_shape)
        pulled = self._transposed(flat) if self.is_convolution else self._differentiated(flat)
        return pulled.reshape(*gradients.shape[:-1], self.n_inputs)

    def _differentiated(self, flat: Tensor) -> Tensor:
        with torch.enable_grad():
            # The derivative of an affine map does not depend on where it is taken.
            anywhere = flat.new_zeros(len(flat), *self.taken_shape).requires_grad_(True)
            (pulled,) = torch.autograd.grad(self.module(anywhere), anywhere, flat)
        return pulled

    def _transposes(self) -> bool:
        """Tell whether the derivative is a transposed convolution, by trying.

        Convolutions with a forward of their own, which only arranges what comes, gain so as well.
        """
        layer: Any = self.module
        known = isinstance(layer, tuple(_TRANSPOSED)) and not has_hooks(self.module)
        if not known or len(self.given_shape) != layer.weight.ndim - 1:
            return False
        # Two linear maps that agree on one random vector are the same.
        numbers = torch.Generator().manual_seed(0)
        flat = torch.randn(2, *self.given_shape, generator=numbers).to(layer.weight)
        expected = self._differentiated(flat)
        try:
            pulled = self._transposed(flat).reshape(expected.shape)
        except RuntimeError:
            return False
        bound = torch.finfo(flat.dtype).eps ** 0.75
        return bool((pulled - expected).abs().max() <= bound * expected.abs().max())

    def _transposed(self, flat: Tensor) -> Tensor:
        """Apply the transposed convolution, which spares running the convolution forward."""
        layer: Any = self.module
        kernels, strides, paddings, dilations = _geometry(layer)
        shape = self.taken_shape[-len(kernels) :]
        continued = layer.padding_mode != "zeros" and any(paddings)
        # Where edges are continued by other than zeros, what falls beyond them counts as well.
        padded = [n + 2 * p for n, p in zip(shape, paddings, strict=True)] if continued else shape
        inner = [0] * len(paddings) if continued else list(paddings)
        weight = layer.weight.detach()
        if flat.ndim == 4 and set(strides) == {1} == set(dilations) and layer.groups == 1:
            # As a convolution 3 to 5 times as fast as autograd on CPUs, with few channels.
            flipped = weight.transpose(0, 1).flip(2, 3)
            margins = [k - 1 - p for k, p in zip(kernels, inner, strict=True)]
            if min(margins) >= 0:
                pulled = F.conv2d(flat, flipped, padding=margins)
                return self._folded(pulled, paddings) if continued else pulled
        sizes = zip(padded, flat.shape[2:], kernels, strides, inner, dilations, strict=True)
        # What the stride left over at the far border, and no output has seen.
        extra = [
            n - ((m - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for n, m, kernel, stride, padding, dilation in sizes
        ]
        if flat.ndim == 4:
            # On CPUs 1.2 to 4 times as fast as autograd; channels first were slower than that
            # with large strides.
            flat = flat.contiguous(memory_format=torch.channels_last)
            weight = weight.contiguous(memory_format=torch.channels_last)
        transpose = next(f for kind, f in _TRANSPOSED.items() if isinstance(layer, kind))
        pulled = transpose(flat, weight, None, strides, inner, extra, layer.groups, dilations)
        return self._folded(pulled, paddings) if continued else pulled

    def _folded(self, pulled: Tensor, paddings: tuple[int, ...]) -> Tensor:
        """Add what falls beyond the edges to the pixels that continue them."""
        layer: Any = self.module
        shape = [n - 2 * p for n, p in zip(pulled.shape[2:], paddings, strict=True)]
        margins = [p for padding in reversed(paddings) for p in (padding, padding)]
        with torch.enable_grad():
            anywhere = pulled.new_zeros(*pulled.shape[:2], *shape).requires_grad_(True)
            continued = F.pad(anywhere, margins, mode=layer.padding_mode)
            (folded,) = torch.autograd.grad(continued, anywhere, pulled)
        return folded


Stem = IdentityStem


def has_hooks(module: nn.Module) -> bool:
    """Tell whether someone has attached to a module what its class does not know of."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(vars(module).get(name) for name in hooks)


def runs_as(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Tell whether a module computes what one of these classes does, by the class's own code."""
    if has_hooks(module):
        return False
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def _geometry(layer: Any) -> tuple[tuple[int, ...], ...]:
    """Return kernel size, stride, padding and dilation, each by dimension."""
    padding = layer.padding
    if isinstance(padding, str):
        # Of even kernels, the two sides of "same" differ; what is tried here then fails.
        same = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        padding = tuple(same) if padding == "same" else (0,) * len(layer.kernel_size)
    return layer.kernel_size, layer.stride, padding, layer.dilation
