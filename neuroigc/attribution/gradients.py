"""Derivatives of a caller's model, which is left as it was found."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from neuroigc._devices import check_device, fast_products
from neuroigc._validation import InputError

__all__ = [
    "POINTWISE",
    "borrow",
    "check_module",
    "choose_device",
    "gradients",
    "remembered",
    "remembered_slopes",
    "unwrapped",
]


def check_module(model: object) -> None:
    """Raise unless the model is a torch module whose weights are there."""
    if not isinstance(model, nn.Module):
        raise InputError(
            "model",
            expected="a torch.nn.Module",
            got=type(model).__name__ if not isinstance(model, type) else f"the class {model}",
            fix="Of a neuroigc estimator pass the attribute module_.",
        )
    for name, module in model.named_modules():
        if any(nn.parameter.is_lazy(t) for t in _tensors(module, recurse=False)):
            raise InputError(
                "model",
                expected="weights that are initialised",
                got=f"a lazy {type(module).__name__} without any" + f" ({name})" * bool(name),
                fix="Run the model once on a few samples.",
            )


def choose_device(device: str | torch.device, model: nn.Module) -> torch.device:
    """Return the device to compute on; "auto" is CUDA if there is one, else the model's."""
    if device == "auto":
        here = next((p.device for p in model.parameters()), torch.device("cpu"))
        # A model that is on a GPU stays on it, if there are several.
        device = "cuda" if torch.cuda.is_available() and here.type != "cuda" else here
    return check_device(device)


@contextmanager
def borrow(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Yield the model in evaluation mode, without gradients of its weights, on ``device``.

    Train flags and ``requires_grad`` are restored at the end. A model that lives elsewhere is
    copied, never moved; one in half precision is copied in single precision, because numpy has
    no bfloat16 and sums over samples need the digits. Compiled models run uncompiled, and
    recurrent layers without cuDNN, as long as they are borrowed.
    """
    model = unwrapped(model)
    half = any(t.dtype in _HALF for t in _tensors(model))
    if half or any(t.device != device for t in _tensors(model)):
        model = _copied(model, device, single=half)
    training = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        recurrent = _without_cudnn() if _is_recurrent(model) else nullcontext()
        with _uncompiled(), recurrent, fast_products(device):
            _evaluate(model)
            # Scripted modules have no requires_grad_() of their own.
            for parameter, _ in wanted:
                parameter.requires_grad_(False)
            scripted = any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())
            yield _Whole(model) if scripted else model
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


_HALF = (torch.float16, torch.bfloat16)


class _Whole(nn.Module):
    """A model that nobody looks into: TorchScript has types, but no classes, of its layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(self, inputs: Tensor, *conditions: Tensor) -> Any:
        return self.model(inputs, *conditions)


def _tensors(module: nn.Module, recurse: bool = True) -> Iterator[Tensor]:
    """Return weights and buffers."""
    return chain(module.parameters(recurse), module.buffers(recurse))


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside wrappers that only choose how or where it runs."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)
        # Hooks on the wrapper are part of what it computes.
        if not isinstance(inner, nn.Module) or model._forward_hooks or model._forward_pre_hooks:
            return model
        model = inner


def _copied(model: nn.Module, device: torch.device, *, single: bool) -> nn.Module:
    """Return a copy on another device, in single precision if so wanted."""
    try:
        copied = copy.deepcopy(model).to(device)
        return copied.float() if single else copied
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(
            "model",
            expected=f"a module on {device}{' in single precision' * single}, or one that can be "
            "copied there",
            got=f"{type(error).__name__}: {str(error).splitlines()[0].rstrip('.')}",
            fix="Bring it there with its method to().",
        ) from error


def _evaluate(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError as error:
        raise InputError(
            "model",
            expected="a module that can be put in evaluation mode",
            got=f"{type(model).__name__}, whose eval() raised: {str(error).rstrip('.')}",
            fix="Of an exported program pass the module that was exported.",
        ) from error


def _is_recurrent(model: nn.Module) -> bool:
    """Tell whether some module is recurrent, scripted ones included."""
    names = {"RNN", "LSTM", "GRU"}
    return any(
        isinstance(module, nn.RNNBase) or getattr(module, "original_name", None) in names
        for module in model.modules()
    )


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Switch cuDNN off, which refuses the backward pass of recurrent layers in evaluation mode."""
    # The context manager torch.backends.cudnn.flags would change precisions on the way.
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


def _uncompiled() -> AbstractContextManager[Any]:
    """Run compiled code as it was written: its graphs are good for one backward pass only."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    # Nothing is compiled where the compiler was never loaded, which takes seconds.
    if set_stance is None or "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = set_stance("force_eager")
    return stance


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
POINTWISE = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.RReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
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


remembered: Callable[[Tensor, list[Tensor], Tensor], Tensor] = _Remembered.apply


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
        return remembered(x, [output.detach()], slope)

    handles = [
        # Before the caller's hooks, whose derivative is none of the module's.
        module.register_forward_hook(hook, prepend=True)
        for module in model.modules()
        if type(module) in (*POINTWISE, *_NORMS) and "forward" not in vars(module)
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
