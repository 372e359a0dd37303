"""Find the affine ends of a model in the graph of what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from neuroigc.attribution.affine import (
    dependent,
    is_affine,
    is_idle,
    is_reshape,
    submodule,
)
from neuroigc.attribution.folding import CONVOLUTIONS, PASSIVE, Matrix, Step, fold
from neuroigc.attribution.stems import DenseStem, IdentityStem, ModuleStem, Stem, runs_as
from neuroigc.attribution.tracing import Trace, trace

__all__ = ["Parts", "as_matrix", "as_stem", "split"]

Parts = tuple[Stem, nn.Module, tuple[Tensor, Tensor] | None]

# A matrix is made of an affine end if it is at most so many times larger than the end's weights.
_MOST_GROWTH = 4
# Rows sent through an end at once while its matrix is made.
_N_AT_ONCE = 64

_FUNCTIONAL: dict[Any, type[nn.Module]] = {
    F.conv1d: nn.Conv1d,
    F.conv2d: nn.Conv2d,
    F.conv3d: nn.Conv3d,
}


def split(model: nn.Module, example: Tensor, conditions: Tensor | None) -> Iterator[Parts]:
    """Yield ways to take a model apart, those that leave the smallest body first.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    example : Tensor of shape (n, *input_shape)
    conditions : Tensor of shape (n, ...) or None

    Yields
    ------
    stem : IdentityStem, DenseStem or ModuleStem
    body : torch.nn.Module
    head : (weight, bias) or None
    """
    traced = trace(model, example, conditions)
    if traced is None:
        return
    last = _widest_stem(traced)
    for cut in [last] if last is traced.inputs else [last, traced.inputs]:
        stem = _stem(traced, cut, example)
        head = _head(traced, cut)
        if head is not None:
            latents, matrix = head
            yield stem, _body(traced, cut, latents), (matrix.weight, matrix.bias)
        if cut is not traced.inputs:
            yield stem, _body(traced, cut, traced.output), None


def as_stem(module: nn.Module, example: Tensor) -> Stem:
    """Return a module that is said to be affine as a stem, folded if it is seen to be affine."""
    traced = trace(module, example, None)
    if traced is None or traced.output not in _affine_cuts(traced):
        return ModuleStem(tuple(example.shape[1:]), module, example[:1])
    return _stem(traced, traced.output, example, module)


def as_matrix(module: nn.Module, example: Tensor) -> Matrix | None:
    """Return a module as a matrix, or None if it is not seen to be one."""
    traced = trace(module, example, None)
    steps = None if traced is None else _steps(traced, traced.inputs, traced.output)
    folded = fold(steps) if steps else None
    return folded if isinstance(folded, Matrix) else None


def _widest_stem(traced: Trace) -> fx.Node:
    """Return the node up to which the stem goes."""
    n_inputs = _width(traced, traced.inputs)
    cuts = [node for node in _affine_cuts(traced) if _width(traced, node)]
    # Behind a narrow place, a wide one would make the sums of gradients larger than the input.
    cuts = [node for node in cuts if _width(traced, node) < n_inputs] or cuts
    last = cuts[-1] if cuts else traced.inputs
    steps = _steps(traced, traced.inputs, last)
    # Another shape of the input is no stem.
    return traced.inputs if steps == [] else last


def _affine_cuts(traced: Trace) -> list[fx.Node]:
    """List the nodes that are affine in the input, and through which alone the input is used."""
    affine = {traced.inputs}
    cuts = []
    for node in traced.graph.nodes:
        uses = dependent(traced, (node.args, node.kwargs))
        if node.op.startswith("call") and node not in traced.counts and uses:
            if not (set(uses) <= affine and is_affine(traced, node)):
                continue
            affine.add(node)
        if node not in affine or traced.row_shape(node) is None:
            continue
        before = _ancestors(traced, node)
        inside = before | {node} | traced.counts
        if all(user in inside for part in before for user in part.users):
            cuts.append(node)
    return cuts


def _ancestors(traced: Trace, node: fx.Node) -> set[fx.Node]:
    """Return the nodes that a node is computed from."""
    found: set[fx.Node] = set()
    waiting = dependent(traced, (node.args, node.kwargs))
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += dependent(traced, (part.args, part.kwargs))
    return found


def _width(traced: Trace, node: fx.Node) -> int:
    """Return how many numbers a row has."""
    shape = traced.row_shape(node)
    return 0 if shape is None else torch.Size(shape).numel()


def _steps(traced: Trace, first: fx.Node, last: fx.Node) -> list[Step] | None:
    """List the layers between two nodes, or None if they are not layers in a row."""
    steps: list[Step] = []
    node = last
    while node is not first:
        uses = dependent(traced, (node.args, node.kwargs))
        if len(uses) != 1 or not is_affine(traced, node):
            return None
        shape = traced.row_shape(uses[0])
        if shape is None:
            return None
        if not (is_reshape(traced, node) or is_idle(traced, node)):
            layer = _as_layer(traced, node)
            if layer is None:
                return None
            if not runs_as(layer, PASSIVE):
                steps.insert(0, (layer, shape))
        node = uses[0]
    return steps


def _as_layer(traced: Trace, node: fx.Node) -> nn.Module | None:
    """Return what a node does as a layer, sharing the weights."""
    module = submodule(traced, node)
    if module is not None:
        return module
    layer: Any
    kind = _FUNCTIONAL.get(node.target)
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | node.kwargs
    weight, bias = (_constant(traced, given.pop(name, None)) for name in ("weight", "bias"))
    given.pop("input", None)
    if weight is None:
        return None
    if node.target is F.linear and weight.ndim == 2:
        layer = nn.Linear(weight.shape[1], len(weight), device="meta")
    elif kind is not None and all(_is_plain_number(value) for value in given.values()):
        n_in, kernel = weight.shape[1] * given.get("groups", 1), tuple(weight.shape[2:])
        layer = kind(n_in, len(weight), kernel, device="meta", **given)
    else:
        return None
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    found: nn.Module = layer.eval()
    return found


def _constant(traced: Trace, node: object) -> Tensor | None:
    """Return the tensor that a node stands for, if it is a constant one."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: object = traced.root
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value if isinstance(value, Tensor) else None


def _is_plain_number(value: object) -> bool:
    parts = value if isinstance(value, tuple | list) else [value]
    return all(isinstance(part, int | str) for part in parts)


def _n_weights(traced: Trace, nodes: set[fx.Node]) -> int:
    """Count the numbers that some nodes multiply by."""
    tensors: list[Tensor] = []
    for node in nodes:
        module = submodule(traced, node)
        tensors += [] if module is None else list(module.parameters())
        found = [_constant(traced, part) for part in node.all_input_nodes]
        tensors += [tensor for tensor in found if tensor is not None]
    return sum(tensor.numel() for tensor in tensors)


def _stem(traced: Trace, cut: fx.Node, example: Tensor, module: nn.Module | None = None) -> Stem:
    """Return everything up to a node as a stem; ``module`` is that, if somebody has one."""
    shape, hidden_shape = tuple(example.shape[1:]), traced.row_shape(cut) or ()
    steps = _steps(traced, traced.inputs, cut)
    folded = fold(steps) if steps else None
    stem: Stem
    if steps == []:
        stem = IdentityStem(shape)
    elif isinstance(folded, Matrix):
        stem = DenseStem(shape, folded.weight, folded.bias)
    elif folded is not None and steps is not None:
        taken = next(shape for layer, shape in steps if runs_as(layer, CONVOLUTIONS))
        stem = ModuleStem(shape, folded, example[:1].reshape(1, *taken))
    else:
        nodes = _ancestors(traced, cut) | {cut}
        part = _part(traced, nodes, traced.inputs, cut)
        stem = ModuleStem(shape, part if module is None else module, example[:1])
        n_numbers = stem.n_hidden * stem.n_inputs
        if len(hidden_shape) == 1 and n_numbers <= _MOST_GROWTH * _n_weights(traced, nodes):
            units = torch.eye(stem.n_hidden, dtype=example.dtype, device=example.device)
            rows = [stem.pull(unit) for unit in torch.split(units, _N_AT_ONCE)]
            origin = stem(torch.zeros_like(example[:1]).flatten(1))[0]
            stem = DenseStem(shape, torch.cat(rows), origin)
    stem.hidden_shape = hidden_shape
    return stem


def _head(traced: Trace, cut: fx.Node) -> tuple[fx.Node, Matrix] | None:
    """Find the narrowest node of which the output is an affine function, and that function."""
    if cut is traced.output:
        return None
    stem = _ancestors(traced, cut)
    back: dict[fx.Node, None] = {}
    waiting = [traced.output]
    while waiting:
        node = waiting.pop()
        if node.op.startswith("call") and is_affine(traced, node):
            uses = [use for use in dependent(traced, (node.args, node.kwargs)) if use not in back]
            back.update(dict.fromkeys(uses))
            waiting += uses
    found = [node for node in back if node not in stem and len(traced.row_shape(node) or ()) == 1]
    order = {node: place for place, node in enumerate(traced.graph.nodes)}
    for node in sorted(found, key=lambda node: (_width(traced, node), order[node])):
        suffix = _suffix(traced, node)
        matrix = None if suffix is None else _head_matrix(traced, node, suffix)
        if matrix is not None:
            return node, matrix
    return None


def _suffix(traced: Trace, first: fx.Node) -> set[fx.Node] | None:
    """Return the nodes between a node and the output, if they are affine and use it alone."""
    wanted = _ancestors(traced, traced.output) | {traced.output}
    reached = {first}
    for node in traced.graph.nodes:
        uses = set(dependent(traced, (node.args, node.kwargs)))
        if node not in wanted or node is first or not uses & reached:
            continue
        if not (uses <= reached and is_affine(traced, node)):
            return None
        reached.add(node)
    return reached - {first} if traced.output in reached else None


def _head_matrix(traced: Trace, first: fx.Node, suffix: set[fx.Node]) -> Matrix | None:
    """Return the affine map between a node and the output."""
    steps = _steps(traced, first, traced.output)
    if steps == []:
        return None
    folded = fold(steps) if steps else None
    if isinstance(folded, Matrix):
        return folded
    width, n_outputs = _width(traced, first), _width(traced, traced.output)
    if width * n_outputs > _MOST_GROWTH * _n_weights(traced, suffix):
        return None
    part = _part(traced, suffix, first, traced.output)
    like = traced.values[first][0]
    units = torch.eye(width, dtype=like.dtype, device=like.device)
    bias = part(torch.zeros_like(units[:1])).flatten()
    rows = [part(unit).flatten(1) - bias for unit in torch.split(units, _N_AT_ONCE)]
    return Matrix(torch.cat(rows).T.contiguous(), bias)


def _body(traced: Trace, cut: fx.Node, latents: fx.Node) -> nn.Module:
    """Return what is between stem and head as a module."""
    suffix = set() if latents is traced.output else _suffix(traced, latents) or set()
    ends = _ancestors(traced, cut) | {cut} | suffix | traced.counts
    # What nobody uses may still write in place on what somebody uses.
    nodes = {node for node in traced.graph.nodes if node.op.startswith("call")} - ends
    for node in traced.graph.nodes:
        if node in nodes and set(dependent(traced, (node.args, node.kwargs))) & suffix:
            suffix.add(node)
            nodes.discard(node)
    return _part(traced, nodes, cut, latents, is_body=True)


def _part(
    traced: Trace, nodes: set[fx.Node], first: fx.Node, last: fx.Node, *, is_body: bool = False
) -> fx.GraphModule:
    """Return some nodes of a graph as a module, which shares the weights."""
    graph = fx.Graph()
    copied = {first: graph.placeholder("hidden")}
    if is_body and traced.conditions is not None:
        copied[traced.conditions] = graph.placeholder("conditions")

    def look_up(node: fx.Node) -> fx.Node:
        if node not in copied:
            # Constants, and the number of rows, are the same in every part.
            if node is traced.rows:
                copied[node] = graph.call_method("size", (copied[first], 0))
            else:
                copied[node] = graph.node_copy(node, look_up)
        return copied[node]

    for node in traced.graph.nodes:
        if node in nodes:
            look_up(node)
    given = copied[last]
    if is_body and len(traced.row_shape(last) or ()) != 1:
        given = graph.call_method("reshape", (given, look_up(traced.rows), -1))
    graph.output(given)
    return fx.GraphModule(traced.root, graph)
