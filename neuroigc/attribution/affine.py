"""Which operations of a graph are affine.

An operation is affine if, everything else being constant, its result is an affine function of
all those of its arguments together that depend on the model's input.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from neuroigc.attribution.folding import CONVOLUTIONS, NORMS, PASSIVE
from neuroigc.attribution.stems import runs_as
from neuroigc.attribution.tracing import Trace

__all__ = ["dependent", "is_affine", "is_idle", "is_reshape", "submodule"]

_RESHAPING_MODULES = (nn.Flatten, nn.Unflatten)


class _Operations:
    """The methods of some names, and torch's and Python's own functions of these names."""

    def __init__(self, names: str) -> None:
        self.names = names.split()
        spaces = [(space, name) for name in self.names for space in (torch, F, operator)]
        self.functions = {getattr(space, name, None) for space, name in spaces} - {None}

    def __contains__(self, node: fx.Node) -> bool:
        if node.op == "call_method":
            return str(node.target) in self.names
        return node.op == "call_function" and node.target in self.functions


# What gives the numbers of a row another shape, and neither other values nor another order.
_RESHAPES = _Operations("flatten unflatten reshape view squeeze unsqueeze contiguous")
# Sums of arguments, each of which may depend on the input.
_SUMS = _Operations(
    """add sub subtract rsub neg negative positive cat concat concatenate stack hstack vstack clone
    __add__ __radd__ __sub__ __rsub__ __neg__"""
)
# Products, and whatever is linear in one argument while the others are constant.
_PRODUCTS = _Operations(
    """mul multiply __mul__ __rmul__ linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d matmul mm bmm mv __matmul__ __rmatmul__ einsum addmm baddbmm tensordot"""
)
_QUOTIENTS = _Operations("div divide true_divide truediv __truediv__ __div__")
# What picks, moves, repeats, adds or averages the numbers of its first argument.
_MOVES = _Operations(
    """permute transpose swapaxes swapdims movedim moveaxis t expand repeat tile narrow select
    index_select chunk split tensor_split unbind getitem __getitem__ flip roll mean sum cumsum tril
    triu diagonal avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d pad interpolate unfold pixel_shuffle pixel_unshuffle to float double type
    type_as"""
)
_DROPOUTS = _Operations(
    """dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout
    feature_dropout"""
)

_MODULES: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.ConstantPad1d,
    nn.ConstantPad2d,
    nn.ConstantPad3d,
    nn.ZeroPad2d,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReplicationPad1d,
    nn.ReplicationPad2d,
    nn.ReplicationPad3d,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Unfold,
    *_RESHAPING_MODULES,
    *CONVOLUTIONS,
    *PASSIVE,
)


def submodule(trace: Trace, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls."""
    return trace.root.get_submodule(str(node.target)) if node.op == "call_module" else None


def dependent(trace: Trace, arguments: Any) -> list[fx.Node]:
    """List the nodes in arguments that depend on inputs or conditions, as often as they occur."""
    found: list[fx.Node] = []
    fx.map_arg(arguments, lambda node: found.append(node))
    return [node for node in found if node.op != "get_attr" and node not in trace.counts]


def is_affine(trace: Trace, node: fx.Node) -> bool:
    """Tell whether a node is an affine function of the nodes it uses."""
    if not _keeps_dtype(trace, node):
        return False
    module = submodule(trace, node)
    if module is not None:
        return _is_affine_module(module) and len(node.args) == 1 and not node.kwargs
    uses = dependent(trace, (node.args, node.kwargs))
    if node.kwargs.get("out") is not None or not node.args:
        return False
    # A number of rows may shape a tensor, but must not enter its values.
    rowless = not any(part in trace.counts for part in node.all_input_nodes)
    if node in _SUMS:
        return rowless
    if node in _PRODUCTS:
        return rowless and len(uses) == 1
    first_alone = len(uses) == 1 == len(dependent(trace, node.args[0]))
    if node in _QUOTIENTS:
        return rowless and first_alone and node.kwargs.get("rounding_mode") is None
    if node in _MOVES or node in _RESHAPES:
        return first_alone
    if node.target is getattr:
        return first_alone and node.args[1] in ("T", "mT")
    if node in _DROPOUTS:
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        return first_alone and node.kwargs.get("train", training) is False
    if node.target is F.batch_norm:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training")
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        known = given.get("running_mean") is not None
        return first_alone and known and not given.get("training", False)
    return False


def is_reshape(trace: Trace, node: fx.Node) -> bool:
    """Tell whether a node only gives its rows another shape (or nothing at all)."""
    shapes = [trace.row_shape(part) for part in (node, *dependent(trace, node.args))]
    if len(shapes) != 2 or None in shapes or not is_affine(trace, node):
        return False
    sizes = [torch.Size(shape).numel() for shape in shapes if shape is not None]
    module = submodule(trace, node)
    if module is not None:
        return sizes[0] == sizes[1] and runs_as(module, _RESHAPING_MODULES)
    return sizes[0] == sizes[1] and node in _RESHAPES


def is_idle(trace: Trace, node: fx.Node) -> bool:
    """Tell whether a node calls a function that does nothing in evaluation mode."""
    return node in _DROPOUTS and is_affine(trace, node)


def _is_affine_module(module: nn.Module) -> bool:
    if module.training:
        return False
    if runs_as(module, NORMS):
        return isinstance(module.running_mean, Tensor) and isinstance(module.running_var, Tensor)
    return runs_as(module, _MODULES)


def _keeps_dtype(trace: Trace, node: fx.Node) -> bool:
    """Tell whether a node's tensors are of the input's type: rounding is not affine."""
    wanted = trace.values[trace.inputs][0].dtype
    found = trace.values.get(node, (None, None))[0]
    parts = found if isinstance(found, tuple | list) else [found]
    return all(isinstance(part, Tensor) and part.dtype == wanted for part in parts)
