"""Fold affine layers in a row into one matrix or one convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroigc.attribution.stems import runs_as

__all__ = ["CONVOLUTIONS", "NORMS", "PASSIVE", "Matrix", "fold"]

# Layers that do nothing in evaluation mode.
PASSIVE = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

# A layer, and the shape of one row of its input.
Step = tuple[nn.Module, tuple[int, ...]]


@dataclass
class Matrix:
    """Rows x to ``x @ weight.T + bias``."""

    weight: Tensor
    bias: Tensor


@dataclass
class _Scaling:
    """Rows x to ``x * scale + shift``."""

    scale: Tensor
    shift: Tensor


def fold(steps: Sequence[Step]) -> Matrix | nn.Module | None:
    """Return layers in a row as one matrix or one convolution, if they are that.

    Parameters
    ----------
    steps : sequence of (module, input shape)
        Layers in evaluation mode, with the shape of a row of their input. Between two layers the
        numbers of a row may take another shape, but not another order.

    Returns
    -------
    Matrix, torch.nn.Module or None
        A convolution shares its weights with the layer, if nothing had to be folded in.
    """
    folded: Matrix | _Scaling | nn.Module | None = None
    for layer, shape in steps:
        if runs_as(layer, PASSIVE):
            continue
        if runs_as(layer, (nn.Linear,)) and len(shape) == 1:
            folded = _behind_linear(folded, layer)
        elif runs_as(layer, NORMS):
            folded = _behind_norm(folded, layer, shape)
        elif runs_as(layer, CONVOLUTIONS):
            folded = _behind_convolution(folded, layer, shape)
        else:
            return None
        if folded is None:
            return None
    return None if isinstance(folded, _Scaling) else folded


def _behind_linear(before: Matrix | _Scaling | nn.Module | None, layer: Any) -> Matrix | None:
    """Add a linear layer."""
    weight, bias = _weights(layer)
    if before is None:
        return Matrix(weight, bias)
    if isinstance(before, Matrix):
        return Matrix(weight @ before.weight, weight @ before.bias + bias)
    if isinstance(before, _Scaling):
        return Matrix(weight * before.scale, weight @ before.shift + bias)
    return None


def _behind_norm(
    before: Matrix | _Scaling | nn.Module | None, layer: Any, shape: tuple[int, ...]
) -> Matrix | _Scaling | nn.Module | None:
    """Add a batch norm in evaluation mode."""
    mean, variance = layer.running_mean, layer.running_var
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or len(mean) != shape[0]:
        return None
    scale = torch.rsqrt(variance + layer.eps)
    scale = scale if layer.weight is None else scale * layer.weight.detach()
    shift = -mean * scale
    shift = shift if layer.bias is None else shift + layer.bias.detach()
    if isinstance(before, nn.Module):
        weight, bias = _weights(before)
        # A convolution's channels may have been merged with places on the way.
        if len(shape) < 2 or shape[0] != len(weight):
            return None
        columns = scale.reshape(-1, *(1,) * (weight.ndim - 1))
        return _convolution(before, weight * columns, bias * scale + shift)
    # Every number of a row has the scale of its channel.
    n_places = torch.Size(shape[1:]).numel()
    scale, shift = scale.repeat_interleave(n_places), shift.repeat_interleave(n_places)
    if before is None:
        return _Scaling(scale, shift)
    if isinstance(before, _Scaling):
        return _Scaling(before.scale * scale, before.shift * scale + shift)
    return Matrix(before.weight * scale[:, None], before.bias * scale + shift)


def _behind_convolution(
    before: Matrix | _Scaling | nn.Module | None, layer: Any, shape: tuple[int, ...]
) -> nn.Module | None:
    """Add a convolution."""
    if before is None:
        own: nn.Module = layer
        return own
    weight, bias = _weights(layer)
    if not isinstance(before, _Scaling) or len(shape) != weight.ndim - 1:
        return None
    padding = layer.padding
    unpadded = padding == "valid" or (isinstance(padding, tuple) and not any(padding))
    # Zeros around the input would have been zeros behind the norm, not before it.
    if layer.padding_mode == "zeros" and not unpadded:
        return None
    scale, shift = before.scale.reshape(shape[0], -1), before.shift.reshape(shape[0], -1)
    if not bool((scale == scale[:, :1]).all() and (shift == shift[:, :1]).all()):
        return None
    n_groups: int = layer.groups
    kernel = weight.reshape(n_groups, -1, *weight.shape[1:])
    ones = (1,) * (weight.ndim - 2)
    scale, shift = (part[:, 0].reshape(n_groups, 1, -1, *ones) for part in (scale, shift))
    moved = (kernel * shift).flatten(2).sum(2).flatten()
    return _convolution(layer, (kernel * scale).reshape(weight.shape), bias + moved)


def _convolution(like: Any, weight: Tensor, bias: Tensor) -> nn.Module:
    """Return a convolution with the geometry of another."""
    kind = next(kind for kind in CONVOLUTIONS if isinstance(like, kind))
    layer = kind(
        like.in_channels,
        like.out_channels,
        like.kernel_size,
        like.stride,
        like.padding,
        like.dilation,
        like.groups,
        padding_mode=like.padding_mode,
        device="meta",
    )
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer.eval()


def _weights(layer: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer, sharing their memory."""
    weight: Tensor = layer.weight.detach()
    bias = layer.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()
