"""Derivatives of a caller's model, which is left as it was found."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuroigc._validation import InputError

__all__ = ["borrow", "check_module", "choose_device", "gradients", "remembered_slopes"]


def check_module(model: object) -> None:
    """Raise unless the model is a torch module."""
    if not isinstance(model, nn.Module):
        raise InputError(
            "model",
            expected="a torch.nn.Module",
            got=type(model).__name__ if not isinstance(model, type) else f"the class {model}",
            fix="Of a neuroigc estimator pass the attribute module_.",
        )


def choose_device(device: str | torch.device, model: nn.Module) -> torch.device:
    """Return the device to compute on; "auto" is CUDA if there is one, else the model's."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    refusal = InputError(
        "device", expected='"auto" or a torch device that is there', got=repr(device)
    )
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise refusal from error
    # To torch, None is a device, and "meta" one that holds no numbers.
    if device is None or place.type == "meta":
        raise refusal
    return place


@contextmanager
def borrow(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Yield the model in evaluation mode, without gradients of its weights, on ``device``.

    Train flags and ``requires_grad`` are restored at the end. A model that lives elsewhere is
    copied, never moved.
    """
    if any(p.device != device for p in model.parameters()):
        yield copy.deepcopy(model).to(device).eval().requires_grad_(False)
        return
    training = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield model.eval().requires_grad_(False)
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def gradients(
    function: Callable[[Tensor], Tensor], points: Tensor, after: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return gradients of a function of rows of points.

    Parameters
    ----------
    function : callable
        Maps (n, d) to values (n, k), not in place; each row depends on its own row alone.
    points : Tensor of shape (n, d)
    after : callable
        Applied to the gradient (n, d) of each value, so that only what it returns is held.

    Returns
    -------
    Tensor of shape (n, k, ...)
        What ``after`` returned, for each value.
    """
    leaf = points.detach().requires_grad_(True)
    rows: list[Tensor] = []
    with torch.enable_grad():
        values = function(leaf)
        check_differentiable(values)
        for k in range(values.shape[1]):
            more = k < values.shape[1] - 1
            (gradient,) = torch.autograd.grad(values[:, k].sum(), leaf, retain_graph=more)
            rows.append(after(gradient))
    return torch.stack(rows, 1)


# Modules that act on each number by itself, so that one number is their whole derivative.
_POINTWISE = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Remembered(torch.autograd.Function):
    """A value computed elsewhere, and its derivative with respect to x, element by element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: list[Tensor], slope: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(slope)
        # In a list, the value is no input of this function: the next layer may work in place.
        return value[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return gradient * ctx.saved_tensors[0], None, None


_remembered: Callable[[Tensor, list[Tensor], Tensor], Tensor] = _Remembered.apply


@contextmanager
def remembered_slopes(model: nn.Module) -> Iterator[None]:
    """Compute the derivatives of activations and norms once per forward pass, for many backward.

    A backward pass through Mish costs several times the multiplication that it amounts to.
    """

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        x = inputs[0]
        if not (torch.is_grad_enabled() and x.requires_grad) or getattr(module, "inplace", False):
            return None
        if isinstance(module, _NORMS):
            if module.running_var is None:
                return None
            slope = torch.rsqrt(module.running_var + module.eps)
            slope = slope if module.weight is None else slope * module.weight
            slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
        else:
            leaf = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(type(module).forward(module, leaf).sum(), leaf)
        return _remembered(x, [output.detach()], slope)

    handles = [
        module.register_forward_hook(hook)
        for module in model.modules()
        if type(module) in (*_POINTWISE, *_NORMS)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_differentiable(values: Tensor) -> None:
    """Raise if nothing connects the values to what they were computed from."""
    if not values.requires_grad:
        raise not_differentiable()


def not_differentiable() -> InputError:
    """Return the error for a model whose output has no gradient with respect to its input."""
    return InputError(
        "model",
        expected="outputs that torch can differentiate with respect to the inputs",
        got="outputs without a gradient",
        fix="Look for torch.no_grad, detach, argmax or numpy inside forward().",
    )
