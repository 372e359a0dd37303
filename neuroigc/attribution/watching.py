"""One layer of a caller's model, watched while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._validation import InputError
from neuroigc.attribution.factorisation import Factors, IdentityStem
from neuroigc.attribution.gradients import unwrapped

__all__ = ["WatchedLayer", "layer_name", "watch", "watched_factors"]


def layer_name(model: nn.Module, layer: str | nn.Module) -> str:
    """Return the name of a layer inside the model.

    Raises
    ------
    InputError
        If it is none of the model's.
    """
    modules = unwrapped(model).named_modules(remove_duplicate=False)
    named: dict[str, nn.Module] = dict(modules)
    names = [name for name, module in named.items() if name and layer in (name, module)]
    if names:
        return names[0]
    listed = [name for name in named if name]
    some = ", ".join(listed[:8]) + ", ..." * (len(listed) > 8)
    raise InputError(
        "layer",
        expected="a module of the model, or its name",
        got=repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}",
        fix=f"Its modules are {some}." if listed else "It has none; wrap its parts in modules.",
    )


class WatchedLayer:
    """What comes out of a layer, kept or replaced.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of its activity for one sample.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.shape: tuple[int, ...] = ()
        # None while nobody watches.
        self._seen: list[Any] | None = None
        self._replacement: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> WatchedLayer:
        # Copies of the model that share its weights, as tracing makes them, are watched as well.
        return self

    def run(
        self, function: Callable[[], Tensor], replacement: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return what a function that runs the model gives, and the activity of the layer.

        Parameters
        ----------
        function : callable
        replacement : Tensor of shape (n, n_units), optional
            Takes the place of the activity.

        Returns
        -------
        values : Tensor
        activity : Tensor of shape (n, *shape), or None where the function does not get there
        """
        self._replacement = replacement
        try:
            values, seen = self._watched(function)
        finally:
            self._replacement = None
        return values, seen[0] if seen else None

    def _watched(self, function: Callable[[], Tensor]) -> tuple[Tensor, list[Any]]:
        self._seen = []
        try:
            return function(), self._seen
        finally:
            self._seen = None

    def check(self, function: Callable[[], Tensor], n: int) -> None:
        """Raise unless the layer is run once and gives a row for each of n samples."""
        _, seen = self._watched(function)
        if len(seen) != 1:
            raise InputError(
                "layer",
                expected="a module that forward() runs once",
                got=f"{self.name}, which is run {len(seen)} times",
                fix="Give each use a module of its own, or choose the module around all uses."
                if seen
                else "Choose one that forward() calls.",
            )
        (activity,) = seen
        fine = isinstance(activity, Tensor) and activity.ndim > 1 and len(activity) == n
        if not fine:
            got = (
                f"shape {tuple(activity.shape)} for {n} samples"
                if isinstance(activity, Tensor)
                else type(activity).__name__
            )
            raise InputError(
                "layer",
                expected="a module that returns one tensor, with a row of units for each sample",
                got=f"{self.name}, which returns {got}",
                fix="Choose a module behind it.",
            )
        self.shape = tuple(activity.shape[1:])

    def hook(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG002
        """Keep what comes out, and put what is given in its place.

        What is handed on is a copy, because what follows may work in place.
        """
        if self._seen is None:
            return None
        self._seen.append(output)
        if self._replacement is not None:
            return self._replacement.clone().reshape(output.shape)
        return output.clone() if isinstance(output, Tensor) else output


@contextmanager
def watch(borrowed: nn.Module, name: str) -> Iterator[WatchedLayer]:
    """Yield a layer of a borrowed model, which is watched as long as the context lasts.

    The model is taken apart around it: no affine end that is peeled off goes through the layer.
    """
    try:
        module = borrowed.get_submodule(name)
    except AttributeError as error:
        raise InputError(
            "layer",
            expected="a module of a model that is no TorchScript",
            got=name,
            fix="Pass the module that was scripted.",
        ) from error
    watched = WatchedLayer(name)
    handle = module.register_forward_hook(watched.hook)
    try:
        yield watched
    finally:
        handle.remove()


def watched_factors(
    borrowed: nn.Module,
    layer: WatchedLayer,
    factors: Factors,
    rows: Tensor,
    conditions: Tensor | None,
    chosen: NDArray[np.int64],
) -> Factors:
    """Return the parts of a model whose body runs the layer: those given, or the whole model.

    Parameters
    ----------
    borrowed : torch.nn.Module
    layer : WatchedLayer
    factors : Factors
        Of the chosen outputs.
    rows : Tensor of shape (n, n_inputs)
        A few samples.
    conditions : Tensor of shape (n, ...) or None
    chosen : array of shape (n_outputs,)

    Raises
    ------
    InputError
        If the layer is not run once, or gives no tensor with a row for each sample.
    """
    shape = factors.stem.input_shape
    beside = () if conditions is None else (conditions,)
    with torch.no_grad():
        layer.check(lambda: borrowed(rows.clone().reshape(-1, *shape), *beside), len(rows))
        hidden = factors.stem(rows)
        _, activity = layer.run(lambda: factors.latents(hidden, conditions))
    if activity is not None:
        return factors
    whole = Factors(IdentityStem(shape), borrowed, None)
    return whole.select(torch.from_numpy(chosen).to(rows.device))
