"""Slopes between two points: what a model changes by, exactly, where derivatives jump in between.

Behind a kink (ReLU) the derivative is another one, and no quadrature of derivatives at fixed
points is fast on such paths. Between two points, however, an activation that acts on each number
by itself changes by the slope of its secant times the change of what it is given, and so does a
chain of these and affine layers: the product of such slopes, which back-propagation forms, times
the step is the change of the output. Maxima of windows have such slopes as well, along the line
between what they are given at the two points. The slopes tend to derivatives as the steps grow
short, so that a sum over short steps tends to the same integral, while it is complete for steps of
any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from neuroigc.attribution.gradients import POINTWISE, gradients, remembered
from neuroigc.attribution.maxima import pools_maxima, with_mean_slopes

__all__ = ["has_kinks", "secant_gradients"]

_KINKED = (
    nn.ELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.Softshrink,
)


def has_kinks(model: nn.Module) -> bool:
    """Tell whether some module's derivative jumps."""
    return any(type(module) in _KINKED or pools_maxima(module) for module in model.modules())


def secant_gradients(
    model: nn.Module,
    function: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    after: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return slopes of a function between rows of two sets of points.

    The mean of two of them, of which one has the derivatives of modules that do not act on each
    number by itself (norms over features, attention) at the low points, the other at the high
    ones. Of affine and pointwise modules and maxima alone both are the same, and exact.

    Parameters
    ----------
    model : torch.nn.Module
        Whose modules the function calls, in the same order whatever the numbers.
    function : callable
        Maps (n, d) to values (n, k); each row depends on its own row alone.
    low, high : Tensor of shape (n, d)
    after : callable
        Linear. Applied to the slope (n, d) of each value, so that only what it returns is held.

    Returns
    -------
    Tensor of shape (n, k, ...)
        What ``after`` returned, for each value.
    """
    total: Tensor | None = None
    for here, there in ((high, low), (low, high)):
        # With derivatives, as without them some layers take another way.
        with _recorded(model) as seen, torch.enable_grad():
            function(there.detach().requires_grad_(True))
        with _secants(model, seen):
            found = gradients(function, here, after)
        total = found if total is None else (total + found) / 2
    if total is None:
        raise RuntimeError("there are two ends")
    return total


Call = tuple[nn.Module, Tensor]


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[Call]]:
    """Collect what modules with slopes are given, call by call."""
    seen: list[Call] = []

    def use(module: nn.Module, here: Tensor, output: Tensor) -> None:  # noqa: ARG001
        # What follows may work in place.
        seen.append((module, here.detach().clone()))

    with _hooked(model, use):
        yield seen


@contextmanager
def _secants(model: nn.Module, seen: list[Call]) -> Iterator[None]:
    """Let modules have the slope towards what was seen, call by call."""
    calls, done = iter(seen), list[tuple[nn.Module, Tensor, Tensor]]()

    def use(module: nn.Module, here: Tensor, output: Tensor) -> Tensor | None:
        same, there = next(calls, (None, here))
        if same is None:
            # Checkpoints compute again on the way back, in an order of their own.
            for same, given, other in done:
                if same is module and torch.equal(given, here):
                    there = other
                    break
        else:
            done.append((same, here.detach().clone(), there))
        # A forward that takes another way for other numbers has no secant.
        if same is not module or there.shape != here.shape or not here.requires_grad:
            return None
        if pools_maxima(module):
            return with_mean_slopes(module, here, there, output)
        return remembered(here, [output.detach()], _slope(module, here.detach(), there))

    with _hooked(model, use):
        yield


@contextmanager
def _hooked(
    model: nn.Module, use: Callable[[nn.Module, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Put a hook on modules with slopes: what it returns, if not None, is what they return.

    Modules that work in place compute beside what they are given, and write there at the end,
    because the rest of the model may look at it again.
    """
    in_place: set[nn.Module] = set()

    def hook(
        module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
    ) -> Tensor | None:
        here = inputs[0] if inputs else named["input"]
        other = use(module, here, output)
        if module not in in_place:
            return other
        return here.copy_(output if other is None else other)

    with ExitStack() as stack:
        for module in model.modules():
            known = type(module) in POINTWISE or pools_maxima(module)
            if known and "forward" not in vars(module):
                # Before the caller's hooks, which are not part of the activation.
                handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
                if getattr(module, "inplace", False):
                    in_place.add(module)
                    stack.callback(setattr, module, "inplace", True)
                    module.inplace = False  # type: ignore[assignment]
        yield


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _slope(module: nn.Module, here: Tensor, there: Tensor) -> Tensor:
    """Return the slope between two points, number by number; the derivative where they are one."""
    values, slopes = [], []
    for point in (here, there):
        leaf = point.detach().requires_grad_(True)
        # Nothing of this is for the checkpoints of the model.
        with torch.enable_grad(), saved_tensors_hooks(_itself, _itself):
            value = type(module).forward(module, leaf)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        values.append(value.detach())
        slopes.append(slope)
    step, change, mean = here - there, values[0] - values[1], (slopes[0] + slopes[1]) / 2
    # Where the mean derivative tells the change but for rounding, it is the better of the two.
    rounding = 8 * torch.finfo(step.dtype).eps
    size = sum(part.abs() for part in (here, there, *values))
    far = (change - mean * step).abs() > rounding * size
    return torch.where(far, change / torch.where(far, step, 1), mean)
