"""Peel the affine ends off a model: f = head ∘ body ∘ stem, and only the body needs derivatives.

The path from baseline to sample is straight, and stays straight behind an affine stem; the
stem is therefore run once per sample and its transpose applied once to sums of gradients. The
gradients of the latents before an affine head serve all outputs. Both are exact identities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["DenseStem", "Factors", "IdentityStem", "ModuleStem", "Stem", "factorise"]

Body = Callable[..., Tensor]

# Layers that are affine in evaluation mode, or do nothing there.
_PASSIVE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AFFINE = (nn.Linear, nn.Flatten, nn.Unflatten, *_CONVOLUTIONS, *_NORMS, *_PASSIVE)


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

    def pull_to(self, components: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the multiplication by some columns of the matrix."""
        columns = self.weight[:, components]
        return lambda gradients: gradients @ columns

    def push_from(self, components: Tensor, inputs: Tensor) -> Tensor:
        """Multiply by some columns of the matrix."""
        return inputs[:, components] @ self.weight[:, components].T


class ModuleStem(IdentityStem):
    """Any affine module, for example a convolution; transposed by automatic differentiation."""

    def __init__(self, input_shape: tuple[int, ...], module: nn.Module, example: Tensor) -> None:
        super().__init__(input_shape)
        self.module = module
        self.hidden_shape = tuple(module(example).shape[1:])
        self.n_hidden = torch.Size(self.hidden_shape).numel()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Run the module."""
        hidden: Tensor = self.module(inputs.reshape(-1, *self.input_shape))
        return hidden.flatten(1)

    def pull(self, gradients: Tensor) -> Tensor:
        """Run the module backwards."""
        flat = gradients.reshape(-1, *self.hidden_shape)
        with torch.enable_grad():
            # The derivative of an affine map does not depend on where it is taken.
            anywhere = flat.new_zeros(len(flat), *self.input_shape).requires_grad_(True)
            (pulled,) = torch.autograd.grad(self.module(anywhere), anywhere, flat)
        return pulled.reshape(*gradients.shape[:-1], self.n_inputs)


Stem = IdentityStem


@dataclass
class Factors:
    """A model in three parts.

    Attributes
    ----------
    stem : IdentityStem, DenseStem or ModuleStem
        Affine; flat inputs to flat hidden activity.
    body : callable
        Hidden activity of the stem's ``hidden_shape`` (and conditions) to (n, n_latents).
    head : (weight, bias) or None
        Latents to outputs, ``latents @ weight.T + bias``; None where the latents are the outputs.
    """

    stem: Stem
    body: Body
    head: tuple[Tensor, Tensor] | None

    def latents(self, hidden: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Run the body on flat hidden activity."""
        # A body that begins in place must write neither on a leaf nor on the caller's data.
        shaped = hidden.clone().reshape(-1, *self.stem.hidden_shape)
        values = self.body(shaped) if conditions is None else self.body(shaped, conditions)
        return values.unsqueeze(1) if values.ndim == 1 else values

    def outputs(self, hidden: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Run body and head on flat hidden activity."""
        latents = self.latents(hidden, conditions)
        return latents if self.head is None else latents @ self.head[0].T + self.head[1]

    def select(self, outputs: Tensor) -> Factors:
        """Return the factors of some outputs alone."""
        if self.head is not None:
            weight, bias = self.head
            return Factors(self.stem, self.body, (weight[outputs], bias[outputs]))
        whole = self

        def body(hidden: Tensor, conditions: Tensor | None = None) -> Tensor:
            return whole.latents(hidden, conditions)[:, outputs]

        return Factors(self.stem, body, None)

    def without_stem(self) -> Factors:
        """Return factors that leave the stem in the body."""
        whole = self

        def body(inputs: Tensor, conditions: Tensor | None = None) -> Tensor:
            return whole.latents(whole.stem(inputs.flatten(1)), conditions)

        return Factors(IdentityStem(self.stem.input_shape), body, self.head)


def factorise(model: nn.Module, example: Tensor, conditions: Tensor | None = None) -> Factors:
    """Split a model into affine stem, nonlinear body and affine head.

    Parts are taken from the model's own ``stem``, ``body`` and ``head`` attributes, or found by
    walking over sequential parts. They are trusted only if they give the model's outputs, and
    if the ends prove affine, on the example; otherwise the ends are left in the body.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    example : Tensor of shape (n, *input_shape)
        Two samples or more.
    conditions : Tensor of shape (n,), optional
        Fed to the body (or the whole model) beside the hidden activity.

    Returns
    -------
    Factors
    """
    with torch.no_grad():
        for candidate in (_declared, _walked):
            factors = candidate(model, example)
            if factors is not None and _holds(factors, model, example, conditions):
                return factors
    return Factors(IdentityStem(tuple(example.shape[1:])), model, None)


def _declared(model: nn.Module, example: Tensor) -> Factors | None:
    """Return the parts a model declares, or None."""
    stem, body, head = (getattr(model, name, None) for name in ("stem", "body", "head"))
    if not (isinstance(stem, nn.Module) and callable(body) and isinstance(head, nn.Module)):
        return None
    matrix = _as_matrix([head])
    if matrix is None and not isinstance(head, _PASSIVE):
        inner = body

        def body(hidden: Tensor, *conditions: Tensor) -> Tensor:
            values: Tensor = head(inner(hidden, *conditions))
            return values

    return Factors(_as_stem([stem], example), body, matrix)


def _walked(model: nn.Module, example: Tensor) -> Factors | None:
    """Return the parts of a model made of sequential modules, or None."""
    layers = _unroll(model)
    n_stem = _affine_prefix(layers)
    if n_stem == len(layers):
        # An affine model is all stem; the body has nothing to do.
        return Factors(_as_stem(layers, example), nn.Flatten(), None)
    rest = layers[n_stem:]
    n_head = 0
    while n_head < len(rest) and isinstance(rest[-1 - n_head], (nn.Linear, *_PASSIVE)):
        n_head += 1
    head = _as_matrix(rest[len(rest) - n_head :])
    body = nn.Sequential(*(rest if head is None else rest[: len(rest) - n_head]))
    return Factors(_as_stem(layers[:n_stem], example), body, head)


def _unroll(module: nn.Module) -> list[nn.Module]:
    """Return the layers of nested nn.Sequential modules, in order."""
    if type(module).forward is not nn.Sequential.forward:
        return [module]
    return [layer for child in module.children() for layer in _unroll(child)]


def _affine_prefix(layers: list[nn.Module]) -> int:
    """Count the leading layers that are together affine."""
    n = 0
    while n < len(layers) and isinstance(layers[n], _AFFINE):
        n += 1
    return n


def _as_stem(layers: list[nn.Module], example: Tensor) -> Stem:
    """Return affine layers as a stem, in matrix form where they are matrices."""
    shape = tuple(example.shape[1:])
    matrix = _as_matrix([layer for layer in layers if not isinstance(layer, nn.Flatten)])
    if matrix is not None and matrix[0].shape[1] == torch.Size(shape).numel():
        return DenseStem(shape, *matrix)
    if all(isinstance(layer, _PASSIVE) for layer in layers):
        return IdentityStem(shape)
    return ModuleStem(shape, layers[0] if len(layers) == 1 else nn.Sequential(*layers), example[:1])


def _as_matrix(layers: list[nn.Module]) -> tuple[Tensor, Tensor] | None:
    """Return (weight, bias) of linear layers and batch norms folded together, if they are that."""
    matrix: tuple[Tensor, Tensor] | None = None
    for layer in layers:
        if isinstance(layer, _PASSIVE):
            continue
        if isinstance(layer, nn.Linear):
            weight: Tensor = layer.weight
            bias: Tensor = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
            if matrix is not None:
                weight, bias = weight @ matrix[0], weight @ matrix[1] + bias
        elif isinstance(layer, nn.BatchNorm1d) and matrix is not None:
            if layer.running_mean is None or layer.running_var is None:
                return None
            scale = torch.rsqrt(layer.running_var + layer.eps)
            scale = scale if layer.weight is None else scale * layer.weight
            bias = (matrix[1] - layer.running_mean) * scale
            bias = bias if layer.bias is None else bias + layer.bias
            weight = matrix[0] * scale[:, None]
        else:
            return None
        matrix = weight, bias
    return matrix


def _holds(factors: Factors, model: nn.Module, example: Tensor, conditions: Tensor | None) -> bool:
    """Check on the example that the parts are the model and that the stem is affine."""
    double = example.dtype == torch.float64
    flat = example.flatten(1)
    copied = example.clone()
    whole = model(copied) if conditions is None else model(copied, conditions)
    try:
        parts = factors.outputs(factors.stem(flat), conditions)
        whole = whole.reshape(parts.shape)
        # Points on and beyond the line through two samples must stay on a line.
        turned = flat.roll(1, 0)
        between = factors.stem(3 * flat - 2 * turned)
        line = 3 * factors.stem(flat) - 2 * factors.stem(turned)
    except (RuntimeError, TypeError, ValueError):
        return False
    return _close(parts, whole, double) and _close(between, line, double)


def _close(a: Tensor, b: Tensor, double: bool) -> bool:
    """Compare relative to the largest entry, as rounding is."""
    tolerance = 1e-9 if double else 1e-4
    scale = max(float(b.abs().max()), torch.finfo(b.dtype).tiny)
    return bool((a - b).abs().max() <= tolerance * scale)
