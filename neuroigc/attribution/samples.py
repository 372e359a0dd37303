"""The caller's arrays and model, checked and brought to one device and dtype."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._validation import InputError
from neuroigc.attribution.gradients import check_differentiable
from neuroigc.attribution.trial import check_backward, check_function_of_rows

__all__ = [
    "Samples",
    "check_finite",
    "check_outputs",
    "choose_dtype",
    "condition_tensor",
    "numbers",
    "run_model",
]

# Of the memory that may be used, one array of what is streamed takes this share.
CHUNK_SHARE = 1 / 16


class Samples:
    """Rows of an array, memory map or tensor, flattened, on the device and in the dtype wanted.

    Parameters
    ----------
    array : array, memory map or tensor of shape (n_samples, *input_shape)
    device : torch.device
    dtype : torch.dtype
    memory : float
        GiB that may be used while they are streamed.
    """

    def __init__(
        self, array: Any, device: torch.device, dtype: torch.dtype, memory: float = 1.0
    ) -> None:
        self.array = _real_rows(array)
        self.device, self.dtype = device, dtype
        # Numbers held at once in one array of what is streamed.
        self.chunk_numbers = max(1, int(memory * 2**30 * CHUNK_SHARE / dtype.itemsize))
        self.shape = tuple(self.array.shape[1:])
        self.n_inputs = int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, index: NDArray[np.int64] | slice) -> Tensor:
        """Return some samples as (n, n_inputs)."""
        if isinstance(self.array, Tensor):
            picked = self.array[index if isinstance(index, slice) else torch.from_numpy(index)]
            taken = picked.detach()
        elif isinstance(self.array, np.ndarray) or isinstance(index, slice):
            part = np.asarray(self.array[index])
            if part.dtype.byteorder == ">" or not part.flags.writeable:
                part = part.astype(part.dtype.newbyteorder("="))
            taken = torch.from_numpy(np.ascontiguousarray(part))
        else:
            # Files such as those of h5py give rows in ascending order only.
            order = np.argsort(index)
            taken = torch.from_numpy(np.asarray(self.array[index[order]])[np.argsort(order)])
        return taken.to(self.device, self.dtype).reshape(len(taken), self.n_inputs)

    def components(self, index: NDArray[np.int64], members: NDArray[np.int64]) -> Tensor:
        """Return some components of some samples, (n, n_members), without reading the others."""
        if not isinstance(self.array, np.ndarray | Tensor):
            return self.rows(index)[:, torch.from_numpy(members).to(self.device)]
        places = np.unravel_index(members, self.shape)
        picked = self.array[(index[:, None], *(place[None] for place in places))]
        if not isinstance(picked, Tensor):
            picked = torch.from_numpy(picked.astype(picked.dtype.newbyteorder("=")))
        return picked.detach().to(self.device, self.dtype)

    def chunks(self) -> list[slice]:
        """Cut the samples into slices of bounded size."""
        step = max(1, self.chunk_numbers // self.n_inputs)
        return [slice(i, min(i + step, len(self))) for i in range(0, len(self), step)]


def _real_rows(array: Any) -> Any:
    """Return what holds real numbers, row by row, as it is or as an array."""
    refuse_masked(array, "inputs")
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        try:
            array = np.asarray(array)
        except (TypeError, ValueError) as error:
            raise InputError("inputs", expected="an array of numbers", got=str(error)) from error
    is_tensor = isinstance(array, Tensor)
    if array.dtype.is_complex if is_tensor else array.dtype.kind not in "fiub":
        raise InputError("inputs", expected="real numbers", got=f"dtype {array.dtype}")
    if not array.shape or 0 in array.shape[1:]:
        raise InputError(
            "inputs",
            expected="shape (n_samples, *input_shape), with at least one component",
            got=f"shape {tuple(array.shape)}",
        )
    return array


def choose_dtype(model: nn.Module, inputs: Any) -> torch.dtype:
    """Compute in the dtype of the model; one without weights takes that of the inputs."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    wide = "float64" in str(getattr(inputs, "dtype", "float64"))
    return torch.float64 if wide else torch.float32


def run_model(model: nn.Module, inputs: Tensor, conditions: Tensor | None) -> Tensor:
    """Run the model on a few samples, check what comes out, and return it as (n, n_outputs)."""
    with torch.enable_grad():
        leaf = inputs.detach().clone().requires_grad_(True)
        # A first layer that works in place may not touch a leaf.
        values = _call(model, leaf.clone(), *(() if conditions is None else (conditions,)))
    n = len(inputs)
    if not isinstance(values, Tensor) or values.ndim not in (1, 2) or len(values) != n:
        got = (
            f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        raise InputError(
            "model",
            expected="outputs of shape (n,) or (n, n_outputs)",
            got=f"{got} for {n} samples",
            fix="Wrap the model in a module that returns one row of numbers per sample.",
        )
    check_differentiable(values)
    check_backward(values, leaf)
    outputs = values.detach().reshape(n, -1)

    def call(rows: Tensor, beside: Tensor | None) -> Any:
        return _call(model, rows, *(() if beside is None else (beside,)))

    check_function_of_rows(call, inputs, conditions, values.detach())
    return outputs


def _call(model: nn.Module, inputs: Tensor, *conditions: Tensor) -> Any:
    """Call the model, and tell what came if it cannot take that."""
    try:
        inspect.signature(model.forward).bind(inputs, *conditions)
    except TypeError as error:
        raise InputError(
            "conditions",
            expected="what the model's forward() takes beside the inputs",
            got=f"{'some' if conditions else 'none'} ({error})",
            fix="Give conditions exactly if the model takes (inputs, conditions).",
        ) from error
    except (ValueError, AttributeError):
        pass  # a forward that does not tell its arguments, such as a traced one
    try:
        return model(inputs, *conditions)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        beside = "".join(f" and conditions of shape {tuple(c.shape)}" for c in conditions)
        raise InputError(
            "inputs" + " and conditions" * len(conditions),
            expected="samples that the model can take",
            got=f"shape {tuple(inputs.shape)}{beside}, at which it raised "
            f"{type(error).__name__}: {str(error).rstrip('.')}",
        ) from error


def check_outputs(outputs: Any, n_outputs: int) -> NDArray[np.int64]:
    """Return the chosen output columns as indices."""
    if outputs is None:
        return np.arange(n_outputs)
    chosen = np.atleast_1d(np.asarray(outputs))
    if chosen.dtype == bool and chosen.shape == (n_outputs,):
        chosen = np.flatnonzero(chosen)
    fine = chosen.ndim == 1 and chosen.size and np.issubdtype(chosen.dtype, np.integer)
    if not fine or chosen.min() < 0 or chosen.max() >= n_outputs:
        raise InputError(
            "outputs",
            expected=f"indices of the model's outputs, from 0 to {n_outputs - 1}",
            got=repr(outputs),
        )
    indices: NDArray[np.int64] = chosen.astype(np.int64)
    return indices


def condition_tensor(conditions: Any, samples: Samples) -> Tensor | None:
    """Return the conditions: integers as int64, other numbers in the model's dtype."""
    if conditions is None:
        return None
    tensor = torch.as_tensor(numbers(conditions, "conditions"))
    if not bool(torch.isfinite(tensor).all()):
        raise InputError("conditions", expected="finite numbers", got="NaN or infinite ones")
    return tensor.to(samples.device, samples.dtype if tensor.is_floating_point() else torch.int64)


def refuse_masked(array: Any, argument: str) -> None:
    """Raise where entries are masked: what lies under a mask is no data."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputError(
            argument,
            expected="numbers throughout",
            got=f"{int(np.ma.getmaskarray(array).sum())} masked entries",
            fix="Leave out the components or samples that were not measured.",
        )


def numbers(array: Any, argument: str) -> NDArray[Any]:
    """Return an array in memory."""
    refuse_masked(array, argument)
    loaded = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if loaded.dtype == bool:
        loaded = loaded.astype(np.int64)
    if loaded.dtype.kind not in "fiu":
        raise InputError(argument, expected="numbers that are real", got=f"{loaded.dtype}")
    return loaded.astype(loaded.dtype.newbyteorder("="))


def check_finite(samples: Samples, x: Tensor) -> None:
    """Raise if some of the samples are not finite, and say how many."""
    # A finite sum is quick to see, and proof enough.
    if bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all()):
        return
    counts = [(~torch.isfinite(samples.rows(part))).sum(1) for part in samples.chunks()]
    bad = torch.cat(counts)
    raise InputError(
        "inputs",
        expected="finite numbers",
        got=f"{int(bad.sum())} NaN or infinite in {int((bad > 0).sum())} samples",
        fix="Leave out the components or samples that were not measured.",
    )
