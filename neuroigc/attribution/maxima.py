"""Pooling by maxima along a line: which member of a window is the largest for how long of it.

Between two points the members of a window change linearly, so that each is the largest on one
interval (or none). The lengths of these intervals are the mean derivatives of the maximum, in
closed form, and times the members' changes they are its change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["pools_maxima", "with_mean_slopes"]

_N_DIMENSIONS: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}


def pools_maxima(module: nn.Module) -> bool:
    """Tell whether a module returns the maxima of windows, and nothing beside."""
    return type(module) in _N_DIMENSIONS and not module.return_indices


def with_mean_slopes(module: nn.Module, here: Tensor, there: Tensor, output: Tensor) -> Tensor:
    """Return the output of a module at one point, with its mean derivatives towards the other.

    Parameters
    ----------
    module : torch.nn.Module
        For which `pools_maxima` holds.
    here, there : Tensor of shape (..., *sizes)
        What it is given at the two points; derivatives are with respect to the first.
    output : Tensor
        What it makes of the first.
    """
    windows = _cutter(module, output)
    members = windows(here)
    with torch.no_grad():
        shares = _shares(members, windows(there))
    weighted = (members * shares).sum(-1)
    return weighted - weighted.detach() + output.detach()


def _cutter(module: nn.Module, output: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what cuts an input into windows, (*output.shape, n_members)."""
    n = _N_DIMENSIONS[type(module)]

    def option(name: str) -> tuple[int, ...]:
        value: Any = getattr(module, name)
        return tuple(value) if isinstance(value, Sequence) else (value,) * n

    stride, padding, dilation = option("stride"), option("padding"), option("dilation")
    lengths = [d * (k - 1) + 1 for k, d in zip(option("kernel_size"), dilation, strict=True)]

    def cut(x: Tensor) -> Tensor:
        margins: list[int] = []
        for axis in range(-1, -n - 1, -1):
            # Rounded up, windows reach beyond the end.
            used = (output.shape[axis] - 1) * stride[axis] + lengths[axis]
            missing = used - x.shape[axis] - 2 * padding[axis]
            margins += [padding[axis], padding[axis] + max(0, missing)]
        # Below all that counts, but with differences that are finite.
        x = functional.pad(x, margins, value=torch.finfo(x.dtype).min / 4)
        for length, step, apart in zip(lengths, stride, dilation, strict=True):
            # Members go to the end, so that the next axis moves up.
            x = x.unfold(-n, length, step)[..., ::apart]
        return x.flatten(-n)

    return cut


def _shares(low: Tensor, high: Tensor) -> Tensor:
    """Return the share of the line on which each member of a window is the largest.

    Of members that are equal all along, the first counts.
    """
    n_members = low.shape[-1]
    shares = torch.empty_like(low)
    first = torch.arange(n_members, device=low.device)
    for k in range(n_members):
        ahead, later = low[..., k, None] - low, high[..., k, None] - high
        crossing = ahead / torch.where(ahead == later, 1, ahead - later)
        begins = torch.where(ahead < 0, torch.where(later > 0, crossing, 1), 0)
        ends = torch.where(later < 0, torch.where(ahead > 0, crossing, 0), 1)
        ends = torch.where((ahead == 0) & (later == 0) & (first < k), 0, ends)
        shares[..., k] = (ends.amin(-1) - begins.amax(-1)).clamp_(min=0)
    return shares
