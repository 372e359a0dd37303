"""Record what a model computes as a graph, without touching the model.

The model is called with stand-ins that know every size but the number of rows, so that control
flow on shapes is followed and nothing of the batch is recorded. What cannot be followed (control
flow on values, code that is not torch's, hooks) is recorded as a call of the module it is in.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from neuroigc.attribution.stems import has_hooks

__all__ = ["Trace", "trace"]

# Numbers of rows of the two batches that are sent along; what differs between them is the batch.
_N_ROWS = (2, 3)


@dataclass
class Trace:
    """A model's graph.

    Attributes
    ----------
    root : torch.nn.Module
        Where the graph's names are looked up; holds the caller's model itself.
    graph : torch.fx.Graph
    inputs, rows, output : Node
        The input, its number of rows, and the tensor returned.
    conditions : Node or None
    values : dict of Node to (value, value)
        What each node gave for batches of two and of three rows.
    counts : set of Node
        Numbers computed from the number of rows alone.
    """

    root: nn.Module
    graph: fx.Graph
    inputs: fx.Node
    rows: fx.Node
    output: fx.Node
    conditions: fx.Node | None
    values: dict[fx.Node, tuple[Any, Any]]
    counts: set[fx.Node]

    def row_shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """Return the shape of one row of a tensor, None for what has no row for each sample."""
        pair = self.values.get(node, (None, None))
        if not all(isinstance(value, Tensor) and value.ndim > 0 for value in pair):
            return None
        first, second = (tuple(value.shape) for value in pair)
        same = first[1:] == second[1:] and (first[0], second[0]) == _N_ROWS
        return first[1:] if same else None


class _Model(nn.Module):
    """A root that torch.fx may write constants on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)


class _ConditionedModel(_Model):
    def forward(self, inputs: Tensor, conditions: Tensor) -> Any:  # type: ignore[override]
        return self.model(inputs, conditions)


class _StandIn(fx.Proxy):
    """A value of which everything is known but the number of rows, and the numbers."""

    tracer: _Tracer

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tracer.shape_of(self.node)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        value = self.tracer.values[self.node][0]
        n = self.shape[0] if isinstance(value, Tensor) else len(value)
        if isinstance(n, fx.Proxy):
            raise TypeError("the number of rows is not known")
        return int(n)

    def __iter__(self) -> Iterator[Any]:
        return (
            self.tracer.create_proxy("call_function", operator.getitem, (self, i), {})
            for i in range(len(self))
        )

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.tracer.values[self.node][0], name)
        if callable(value):
            return super().__getattr__(name)
        if isinstance(value, torch.dtype | torch.device | bool):
            return value
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})


class _Tracer(fx.Tracer):
    def __init__(self, *batches: dict[str, Tensor], with_weights: bool) -> None:
        super().__init__()
        self.batches, self.with_weights = batches, with_weights
        self.has_tripped = False
        self.values: dict[fx.Node, tuple[Any, Any]] = {}
        self.counts: set[fx.Node] = set()
        self.inputs: fx.Proxy | None = None
        self.rows: fx.Proxy | None = None
        self.is_running = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _StandIn(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        # Weights are constants: what is computed from them alone need not be recorded, unless a
        # number of rows gives them their shape.
        if self.is_running or not self.with_weights:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any
    ) -> Any:
        """Record a call, and make it for both batches."""
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        node = proxy.node
        if kind == "placeholder":
            self.values[node] = self.batches[0][target], self.batches[1][target]
            self.inputs = proxy if self.inputs is None else self.inputs
            return proxy
        first, second = self.values[node] = self._run(node, 0), self._run(node, 1)
        used = [part for part in node.all_input_nodes if part.op != "get_attr"]
        is_number = isinstance(first, int | float)
        if is_number and used and all(part in self.counts for part in used):
            if first == second:
                # For example the ratio of two numbers of rows: a plain number after all.
                self.graph.erase_node(node)
                return first
            self.counts.add(node)
        return proxy

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record what a module does, or, if that cannot be done, that it is called."""
        if self.is_running or not _holds_proxy((args, kwargs)):
            return self._for_real(lambda: forward(*args, **kwargs))
        if self.rows is None and self.inputs is not None:
            self.rows = self.create_proxy("call_method", "size", (self.inputs, 0), {})
            self.counts.add(self.rows.node)
        path = self.path_of_module(m)
        if not has_hooks(m) and not self.is_leaf_module(m, path):
            last = next(iter(reversed(self.graph.nodes)))
            try:
                return forward(*args, **kwargs)
            except Exception:  # noqa: BLE001 - a caller's code may trip over stand-ins in any way
                while (node := next(iter(reversed(self.graph.nodes)))) is not last:
                    self.graph.erase_node(node)
                    self.counts.discard(node)
                self.has_tripped = True
        return self.create_proxy("call_module", path, args, kwargs)

    def shape_of(self, node: fx.Node) -> tuple[Any, ...]:
        """Return a tensor's sizes: numbers, or stand-ins for multiples of the number of rows."""
        first, second = (value.shape for value in self.values[node])
        sizes: list[Any] = []
        for a, b in zip(first, second, strict=True):
            factor, rest = divmod(a, _N_ROWS[0])
            if a == b:
                sizes.append(a)
            elif rest == 0 and b == factor * _N_ROWS[1] and self.rows is not None:
                sizes.append(self.rows if factor == 1 else self.rows * factor)
            else:
                raise ValueError("a size is no multiple of the number of rows")
        return tuple(sizes)

    def _run(self, node: fx.Node, batch: int) -> Any:
        """Return what a node gives for one of the batches."""

        def value(part: fx.Node) -> Any:
            if part.op == "get_attr":
                return self._for_real(lambda: self._attribute(str(part.target)))
            known = self.values[part][batch]
            # Calls in place must not change what is known of other nodes.
            return known.clone() if isinstance(known, Tensor) else known

        args, kwargs = fx.map_arg((node.args, node.kwargs), value)  # type: ignore[misc]
        if node.op == "call_function":
            return self._for_real(lambda: node.target(*args, **kwargs))  # type: ignore[operator]
        name = str(node.target)
        if node.op == "call_method":
            return self._for_real(lambda: getattr(args[0], name)(*args[1:], **kwargs))
        if node.op == "get_attr":
            return self._for_real(lambda: self._attribute(name))
        return self._for_real(lambda: self._attribute(name)(*args, **kwargs))

    def _attribute(self, name: str) -> Any:
        value: Any = self.root
        for part in name.split("."):
            value = getattr(value, part)
        return value

    def _for_real(self, call: Callable[[], Any]) -> Any:
        """Call without recording."""
        before, self.is_running = self.is_running, True
        try:
            return call()
        finally:
            self.is_running = before


def _holds_proxy(structure: Any) -> bool:
    """Tell whether there is a stand-in among (nested) arguments."""
    if isinstance(structure, tuple | list):
        return any(map(_holds_proxy, structure))
    if isinstance(structure, dict):
        return any(map(_holds_proxy, structure.values()))
    return isinstance(structure, fx.Proxy)


def trace(model: nn.Module, example: Tensor, conditions: Tensor | None) -> Trace | None:
    """Return a model's graph, or None if the model cannot be followed at all."""
    kind = _Model if conditions is None else _ConditionedModel
    given = {"inputs": example}
    if conditions is not None:
        given["conditions"] = conditions
    batches = [{k: v[torch.arange(n) % len(v)] for k, v in given.items()} for n in _N_ROWS]
    try:
        # A model may write on itself while it runs; let it write on a copy with shared weights.
        replica = kind(copy.deepcopy(model, _shared_tensors(model)))
        tracer = _Tracer(*batches, with_weights=False)
        graph = tracer.trace(replica)
        if tracer.has_tripped:
            second = kind(copy.deepcopy(model, _shared_tensors(model)))
            other = _Tracer(*batches, with_weights=True)
            other_graph = other.trace(second)
            if not other.has_tripped:
                tracer, graph, replica = other, other_graph, second
    except Exception:  # noqa: BLE001 - whatever a caller's code raises, its graph is not known
        return None
    root = kind(model)
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and "." not in name:
            # A constant met on the way; everything else is reached through the model.
            setattr(root, name, getattr(replica, name))
    output = next(iter(reversed(graph.nodes))).args[0]
    inputs, *others = (node for node in graph.nodes if node.op == "placeholder")
    if not isinstance(output, fx.Node) or tracer.rows is None:
        return None
    conditions_node = others[0] if others else None
    return Trace(
        root,
        graph,
        inputs,
        tracer.rows.node,
        output,
        conditions_node,
        tracer.values,
        tracer.counts,
    )


def _shared_tensors(model: nn.Module) -> dict[int, Any]:
    """Return what a copy of the model is to share with it."""
    shared: dict[int, Any] = {}
    waiting: list[Any] = [vars(part) for part in model.modules()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            shared[id(value)] = value
        elif isinstance(value, dict | tuple | list) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    return shared
