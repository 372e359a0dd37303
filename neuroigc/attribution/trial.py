"""A trial run of the caller's model, on a few samples and before any work is done.

Attributions of a sample are derivatives of a function of that sample. A model that draws random
numbers, or mixes the samples of a batch, is no such function, and nothing in its maps would tell.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuroigc._validation import InputError
from neuroigc.attribution.gradients import not_differentiable

__all__ = ["check_backward", "check_function_of_rows"]

# Calls the model on (inputs, conditions).
Call = Callable[[Tensor, Tensor | None], Tensor]

# Differences of passes of one shape, relative to the largest output. They are mere rounding, if
# there are any: kernels do the same for a row whatever the others hold.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_LOW_PRECISION = 0.05
# Passes of another shape take other kernels, in low precision perhaps and cast to single later.
_OTHER_SHAPE = 0.1


def check_backward(values: Tensor, leaf: Tensor) -> None:
    """Raise unless outputs can be differentiated with respect to a leaf, one after the other.

    Parameters
    ----------
    values : Tensor of shape (n, n_outputs) or (n,)
        Computed from the leaf.
    leaf : Tensor of shape (n, *input_shape)

    Raises
    ------
    InputError
        If torch cannot.
    """
    columns = values.reshape(len(values), -1)
    last = columns.shape[1] - 1
    try:
        for k in {0, last}:
            # As many outputs are: the graph outlives all backward passes but the last.
            (gradient,) = torch.autograd.grad(
                columns[:, k].sum(), leaf, retain_graph=k != last, allow_unused=True
            )
            if gradient is None:
                raise not_differentiable()
    except RuntimeError as error:
        raise InputError(
            "model",
            expected="a forward() through which torch can differentiate, output by output",
            got=_told(error),
            fix="Look for operations in place on what another operation needs again (leave out "
            "inplace=True), checkpoints with use_reentrant=True, compiled or quantised parts, "
            "and recurrent layers of cuDNN outside of torch's modules.",
        ) from error


def check_function_of_rows(
    call: Call, inputs: Tensor, conditions: Tensor | None, values: Tensor | None = None
) -> None:
    """Raise unless the model is a function, and one of each row by itself.

    Takes a pass of the rows given, if all is well, and one of a single row.

    Parameters
    ----------
    call : callable
        Maps inputs (n, *input_shape) and conditions to outputs (n,) or (n, n_outputs).
    inputs : Tensor of shape (n, *input_shape)
    conditions : Tensor of shape (n, ...) or None
    values : Tensor of shape (n,) or (n, n_outputs), optional
        What the model made of the inputs.

    Raises
    ------
    InputError
        If the same inputs have different outputs, if the outputs of a row change with the other
        rows, or if a single row has no output.
    """
    if len(inputs) == 1:
        # Batches hold points between sample and baseline, even for one sample.
        inputs = torch.cat([inputs, inputs / 2])
        conditions = None if conditions is None else torch.cat([conditions, conditions])
        values = None
    kept = len(inputs) // 2
    others = inputs.clone()
    others[kept:] /= 4
    with torch.no_grad():
        if values is None:
            values = call(inputs.clone(), conditions)
        beside = call(others, conditions)
        tolerance = _TOLERANCE.get(values.dtype, _LOW_PRECISION)
        if not _close(beside[:kept], values[:kept], tolerance):
            # With the very same rows, is it the rows beside that matter?
            if _close(call(inputs.clone(), conditions), values, tolerance):
                raise _mixed_rows("outputs of a sample that change with the others")
            raise InputError(
                "model",
                expected="the same outputs for the same inputs",
                got="other outputs the second time",
                fix="Look for dropout with training=True or other random numbers, or for state "
                "that changes, inside forward().",
            )
        try:
            alone = call(inputs[-1:].clone(), None if conditions is None else conditions[-1:])
        except InputError as error:
            raise _mixed_rows(f"no outputs for one sample ({error.got})") from error
    if alone.ndim not in (1, 2) or alone.shape != (1, *values.shape[1:]):
        raise _mixed_rows(f"outputs of shape {tuple(alone.shape)} for one sample")
    if not _close(alone, values[-1:], max(tolerance, _OTHER_SHAPE)):
        raise _mixed_rows("other outputs for one sample alone than among others")


def _mixed_rows(got: str) -> InputError:
    return InputError(
        "model",
        expected="outputs of each sample that depend on that sample alone",
        got=got,
        fix="Attributions of a sample are undefined otherwise. Look for batch norm without running "
        "statistics, and for means, norms, squeeze() or fixed sizes over the first dimension, "
        "inside forward().",
    )


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Compare output by output, relative to its largest value; what is not finite is alike."""
    a, b = (torch.nan_to_num(v.detach().double().reshape(len(v), -1)) for v in (a, b))
    if a.shape != b.shape:
        return False
    scale = b.abs().amax(0)
    # An output that is next to nothing beside the others may be their rounding.
    floor = scale.max() * tolerance * 1e-3
    return bool(((a - b).abs() <= tolerance * scale + floor).all())


def _told(error: Exception) -> str:
    """Return the first sentence of an error on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text.split('. ')[0].rstrip('.')}"
