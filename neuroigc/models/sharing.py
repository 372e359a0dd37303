"""One training shared by processes side by side: each has a part of every batch.

Gradients are added up as they are (`Team.add`): that of the widest layer, which takes longest, is
the last to be known, so that there is nothing to do meanwhile. Batch normalisation goes by the
mean and variance of the whole batch, in all processes, so that a training by many processes is
that by one but for rounding and for what dropout leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroigc._team import Team

__all__ = ["shared"]


@contextmanager
def shared(network: nn.Module, team: Team) -> Iterator[None]:
    """Give all members of a team the same network, and let it normalise whole batches."""
    team.copy_first(*network.state_dict().values())
    norms = [
        module
        for module in network.modules()
        if team.talks and isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    for norm in norms:
        norm.forward = partial(_normalise_together, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalise_together(norm, values):
    """Normalise by moments over the parts of all processes (torch has this for GPUs alone)."""
    if not norm.training:
        return type(norm).forward(norm, values)
    shape = (-1, *[1] * (values.ndim - 2))
    axes = (0, *range(2, values.ndim))
    # About the running mean, squares do not grow beyond the spread by much.
    around = norm.running_mean.clone()
    centred = values.float() - around.view(shape)
    n = values.numel() // values.shape[1]
    own = torch.cat([centred.sum(axes), centred.square().sum(axes), centred.new_tensor([n])])
    sums = _Sum.apply(own)
    n, offset, square = sums[-1], *(sums[:-1] / sums[-1]).chunk(2)
    variance = square - offset**2
    with torch.no_grad():
        norm.running_mean.lerp_(around + offset, norm.momentum)
        norm.running_var.lerp_(variance * n / (n - 1), norm.momentum)
        norm.num_batches_tracked.add_(1)
    normal = (centred - offset.view(shape)) * (variance + norm.eps).rsqrt().view(shape)
    return (normal * norm.weight.view(shape) + norm.bias.view(shape)).to(values.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; of what it becomes in each of them, the gradients add up."""

    @staticmethod
    def forward(ctx, values):  # noqa: ARG004 - nothing is kept for the way back
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        total = gradient.clone()
        distributed.all_reduce(total)
        return total
