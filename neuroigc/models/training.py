"""Training: one loop for every network, seeded, with early stopping.

Works on arrays, tensors and memory maps: only the rows of one batch are in memory at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice, check_same_length
from neuroigc.models.checks import check_count, check_flag, check_number, check_share

__all__ = ["Samples", "measure_scaling", "resolve_device", "seeded", "train"]

# Fewer than this can be neither standardised nor batch-normalised with any sense.
FEWEST_SAMPLES = 10

# Share of the training in which the learning rate rises.
RISE = 0.2


def _squared_error(network, inputs, targets, conditions, weights):
    errors = nn.functional.mse_loss(network(inputs, conditions).float(), targets, reduction="none")
    return (errors if weights is None else errors * weights[:, None]).mean()


def _cross_entropy(network, inputs, targets, conditions, weights):
    logits = network.logits(inputs, conditions).float()
    errors = nn.functional.cross_entropy(logits, targets, reduction="none")
    return (errors if weights is None else errors * weights).mean()


LOSSES: dict[str, Callable] = {"squared_error": _squared_error, "cross_entropy": _cross_entropy}


@dataclass(frozen=True)
class Samples:
    """Rows of inputs, targets and conditions, standardised as they are read.

    Parameters
    ----------
    inputs : array (n, *input_shape)
    targets : array (n, n_outputs) or (n,) of class numbers
    conditions : array (n,) of int, optional
    weights : array (n,), optional
        What samples count, on average 1.
    input_scaling, target_scaling : (mean, scale), optional
        As `measure_scaling` returns them.
    rows : array of int, optional
        The rows that count; all by default.
    """

    inputs: np.ndarray
    targets: np.ndarray
    conditions: np.ndarray | None = None
    weights: np.ndarray | None = None
    input_scaling: tuple | None = None
    target_scaling: tuple | None = None
    rows: np.ndarray = field(default=None)

    def __post_init__(self):
        n = check_same_length(inputs=self.inputs, targets=self.targets, conditions=self.conditions)
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(n))

    def __len__(self):
        return len(self.rows)

    def split(self, fraction, generator):
        """Return two disjoint `Samples`, the second with ``fraction`` of the rows at random."""
        n_second = round(fraction * len(self))
        order = generator.permutation(self.rows)
        first, second = np.sort(order[n_second:]), np.sort(order[:n_second])
        parts = {name: value for name, value in vars(self).items() if name != "rows"}
        return Samples(**parts, rows=first), Samples(**parts, rows=second)

    def batches(self, batch_size, device, generator=None) -> Iterator[tuple]:
        """Yield (inputs, targets, conditions, weights), shuffled if given a generator.

        Every row comes exactly once. Batches differ by at most one row in length and hold at
        least two, because batch normalisation has nothing to go by in a batch of one.
        """
        rows = self.rows if generator is None else generator.permutation(self.rows)
        for batch in np.array_split(rows, count_batches(len(rows), batch_size)):
            batch = np.sort(batch)  # memory maps are read front to back
            yield (
                _standardised(_tensor(self.inputs, batch, device), self.input_scaling),
                _standardised(_tensor(self.targets, batch, device), self.target_scaling),
                None if self.conditions is None else _tensor(self.conditions, batch, device),
                None if self.weights is None else _tensor(self.weights, batch, device),
            )


def count_batches(n_samples, batch_size):
    """Return the number of batches of about ``batch_size``, none smaller than two."""
    return max(1, min(math.ceil(n_samples / batch_size), n_samples // 2))


def train(
    network: nn.Module,
    samples: Samples,
    *,
    validation: Samples | None = None,
    validation_fraction: float = 0.1,
    loss: str = "squared_error",
    max_epochs: int = 50,
    patience: int = 10,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    device: str = "auto",
    seed: int = 0,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Train ``network`` in place and leave it with its best weights, in evaluation mode.

    AdamW with one learning-rate cycle (a short rise, then a cosine fall), stopped early when
    the validation loss has not fallen for ``patience`` epochs. On CUDA with bfloat16 autocast.
    The same seed gives the same weights (on a CPU, for the same number of threads), and the
    caller's random number generators are left as they were.

    Parameters
    ----------
    network : torch.nn.Module
        Called with (inputs, conditions); with a method ``logits`` for the cross entropy.
    samples : Samples
    validation : Samples, optional
        Used instead of a random part of ``samples``.
    validation_fraction : float
        Size of that part; 0 trains on everything for ``max_epochs``.
    loss : {"squared_error", "cross_entropy"}
    max_epochs, patience, batch_size : int
    learning_rate : float
        Peak of the cycle.
    weight_decay : float
        Of weight matrices and kernels; biases, norms and embeddings are left free.
    device : str
        "auto" takes a GPU if there is one.
    seed : int
    progress : bool

    Returns
    -------
    history : dict of list
        ``train_loss``, ``validation_loss`` (None without validation), ``learning_rate`` and
        ``seconds`` since the start, one entry for each epoch.

    Raises
    ------
    InputError
        If there are too few samples, or an option has no meaning.
    """
    check_choice("loss", loss, LOSSES)
    check_count("max_epochs", max_epochs)
    check_count("batch_size", batch_size)
    check_count("patience", patience, fewest=0)
    check_count("seed", seed, fewest=0)
    check_number("learning_rate", learning_rate)
    check_number("weight_decay", weight_decay, above_zero=False)
    check_share("validation_fraction", validation_fraction)
    check_flag("progress", progress)
    device = resolve_device(device)
    generator = np.random.default_rng(seed)
    if validation is None and validation_fraction:
        samples, validation = samples.split(validation_fraction, generator)
    for name, part, fewest in [("inputs", samples, FEWEST_SAMPLES), ("validation", validation, 1)]:
        if part is not None and len(part) < fewest:
            raise InputError(name, expected=f"at least {fewest} samples", got=str(len(part)))

    network.to(device)
    optimizer = torch.optim.AdamW(_parameter_groups(network, weight_decay), lr=learning_rate)
    n_steps = max_epochs * count_batches(len(samples), batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_cycle((step + 0.5) / n_steps)
    )

    def step(value):
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    history = {"train_loss": [], "validation_loss": [], "learning_rate": [], "seconds": []}
    lowest, best, best_epoch, start = math.inf, None, 0, time.perf_counter()
    with seeded(seed, device):
        for epoch in track(range(max_epochs), show=progress, label="training"):
            batches = samples.batches(batch_size, device, generator)
            train_loss, validation_loss = _mean_loss(network, batches, LOSSES[loss], step), None
            if not math.isfinite(train_loss):
                raise InputError(
                    "learning_rate",
                    expected="one at which the training loss stays finite",
                    got=f"{learning_rate:g}, and a loss of {train_loss} in epoch {epoch + 1}",
                    fix="Lower it.",
                )
            if validation is not None:
                batches = validation.batches(batch_size, device)
                validation_loss = _mean_loss(network, batches, LOSSES[loss])
            history["train_loss"].append(train_loss)
            history["validation_loss"].append(validation_loss)
            history["learning_rate"].append(schedule.get_last_lr()[0])
            history["seconds"].append(time.perf_counter() - start)
            if validation is None:
                continue
            if validation_loss < lowest:
                lowest, best, best_epoch = validation_loss, deepcopy(network.state_dict()), epoch
            elif epoch - best_epoch >= patience:
                break
    if best is not None:
        network.load_state_dict(best)
    network.eval()
    return history


def learning_rate_cycle(done):
    """Return the share of the peak learning rate when ``done`` (0 to 1) of the training is over."""
    if done < RISE:
        return done / RISE
    return 0.5 * (1 + math.cos(math.pi * (done - RISE) / (1 - RISE)))


def measure_scaling(array, *, argument, per_column=True, chunk_size=2**24):
    """Return mean and standard deviation of an array, refusing what is not finite.

    Parameters
    ----------
    array : array (n, ...)
        Read in chunks, so that it may be a memory map larger than the memory.
    argument : str
        Its name in error messages.
    per_column : bool
        For each column of (n, n_columns), or one number for all values.
    chunk_size : int
        Numbers in memory at a time.

    Returns
    -------
    mean, scale : float64 arrays, (n_columns,) or ()
        ``scale`` is ``inf`` where there is no variation, so that standardised values are 0.
    """
    count, mean, squares, n_bad = 0, 0.0, 0.0, 0
    chunk_rows = max(1, chunk_size * len(array) // array.size)
    for start in range(0, len(array), chunk_rows):
        chunk = np.asarray(array[start : start + chunk_rows], dtype=np.float64)
        chunk = chunk.reshape(len(chunk), -1) if per_column else chunk.reshape(-1, 1)
        n_bad += np.size(chunk) - np.count_nonzero(np.isfinite(chunk))
        if n_bad:
            continue
        # Chan's update: exact also where the mean is large against the deviation.
        chunk_mean = chunk.mean(0)
        shift, total = chunk_mean - mean, count + len(chunk)
        squares = (
            squares + ((chunk - chunk_mean) ** 2).sum(0) + shift**2 * count * len(chunk) / total
        )
        mean = mean + shift * len(chunk) / total
        count = total
    refuse_not_finite(argument, n_bad)
    scale = np.sqrt(squares / max(count, 1))
    scale = np.where(scale > 1e-6 * np.abs(mean), scale, np.inf)
    return (mean, scale) if per_column else (mean[0], scale[0])


def refuse_not_finite(argument, n_bad):
    """Raise if there are values that are not finite."""
    if n_bad:
        raise InputError(
            argument,
            expected="finite numbers only",
            got=f"{n_bad} values that are NaN or infinite",
            fix="Leave those rows or columns out, knowingly.",
        )


def resolve_device(device):
    """Return the torch device that is meant; "auto" is a GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    refusal = InputError(
        "device", expected="'auto', 'cpu' or a GPU that is there", got=repr(device)
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
def seeded(seed, device):
    """Seed torch's generators inside the block, and leave them afterwards as they were."""
    check_count("seed", seed, fewest=0)
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(int(seed))
        if device.type == "cuda":
            torch.cuda.manual_seed(int(seed))
        yield


def _mean_loss(network, batches, measure, step=None):
    """Return the mean loss over batches; given ``step``, train on each."""
    network.train(step is not None)
    total = n = 0
    for inputs, targets, conditions, weights in batches:
        kind = inputs.device.type
        with (
            torch.set_grad_enabled(step is not None),
            torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"),
        ):
            value = measure(network, inputs, targets, conditions, weights)
        if step is not None:
            step(value)
        total += value.item() * len(inputs)
        n += len(inputs)
    return total / n


def _parameter_groups(network, weight_decay):
    embeddings = {
        id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)
    }
    decayed, free = [], []
    for parameter in network.parameters():
        kept = parameter.ndim < 2 or id(parameter) in embeddings
        (free if kept else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _tensor(array, rows, device):
    """Return rows as float32, or as int64 where they are integers (classes, conditions)."""
    dtype = np.int64 if array.dtype.kind in "iu" else np.float32
    return torch.from_numpy(np.asarray(array[rows], dtype=dtype)).to(device)


def _standardised(values, scaling):
    if scaling is None:
        return values
    mean, scale = (
        torch.as_tensor(part, dtype=torch.float32, device=values.device) for part in scaling
    )
    return (values - mean) / scale
