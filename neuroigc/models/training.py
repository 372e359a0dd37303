"""Training: one loop for every network, seeded, with early stopping."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from copy import deepcopy
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from neuroigc._devices import check_device, fast_products
from neuroigc._progress import track
from neuroigc._team import assemble_team
from neuroigc._validation import InputError, check_choice
from neuroigc.models.checks import check_count, check_flag, check_number, check_share
from neuroigc.models.feeding import Samples, count_batches
from neuroigc.models.resuming import Checkpoint, Progress, describe
from neuroigc.models.sharing import shared

__all__ = ["resolve_device", "seeded", "train"]

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
    accumulate: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    n_workers: int = 1,
    device: str = "auto",
    seed: int = 0,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> dict[str, list[float]]:
    """Train ``network`` in place and leave it with its best weights, in evaluation mode.

    AdamW with one learning-rate cycle (a short rise, then a cosine fall), stopped early when
    the validation loss has not fallen for ``patience`` epochs. On CUDA with bfloat16 autocast.
    The same seed gives the same weights (on a CPU, for the same number of threads), and the
    caller's random number generators are left as they were.

    Under torchrun, or wherever else `torch.distributed` was started, the processes call this with
    the same arguments and share the work: each takes its part of every batch, gradients are those
    of the whole batch, and all end with the same network. One process and many differ by rounding
    and by the units that dropout leaves out.

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
    accumulate : int
        Parts of a batch that go through the network one after another, where a whole one is too
        much for the memory. Steps are those of whole batches, but for batch normalisation, which
        goes by the mean and variance of each part, and for the units that dropout leaves out.
    learning_rate : float
        Peak of the cycle.
    weight_decay : float
        Of weight matrices and kernels; biases, norms and embeddings are left free.
    n_workers : int
        Threads that read what comes next while the network is at work; 0 for none. They change
        nothing but the time it takes.
    device : str
        "auto" takes a GPU if there is one.
    seed : int
    progress : bool
    checkpoint : path, optional
        File of the state after each epoch. If it exists, the training goes on from there, to the
        same weights as without a break (on a CPU, for the same number of threads). Takes four
        times as much disk as the weights.

    Returns
    -------
    history : dict of list
        ``train_loss``, ``validation_loss`` (None without validation), ``learning_rate`` and
        ``seconds`` since the start, one entry for each epoch.

    Raises
    ------
    InputError
        If there are too few samples, an option has no meaning, or the checkpoint is of another
        training.
    """
    check_choice("loss", loss, LOSSES)
    check_count("max_epochs", max_epochs)
    check_count("batch_size", batch_size)
    check_count("accumulate", accumulate)
    check_count("patience", patience, fewest=0)
    check_count("n_workers", n_workers, fewest=0)
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
    team = assemble_team(None)
    n_batches = count_batches(len(samples), batch_size)
    _check_parts(accumulate * team.size, len(samples) // n_batches)

    store = None
    if team.talks or checkpoint is not None:
        settings = {
            "loss": loss, "max_epochs": max_epochs, "patience": patience, "batch_size": batch_size,
            "accumulate": accumulate, "learning_rate": learning_rate,
            "weight_decay": weight_decay, "seed": seed, "number of processes": team.size,
        }  # fmt: skip
        numbers = {name: str(value) for name, value in settings.items()}
        identity = {**numbers, **describe(network, samples, validation)}
        team.agree("network, samples and options", "the same in all processes", identity)
        if checkpoint is not None:
            store = Checkpoint(Path(checkpoint), identity, team, device)
    network.to(device)
    optimizer = torch.optim.AdamW(
        _parameter_groups(network, weight_decay), fused=device.type in ("cpu", "cuda")
    )
    n_steps = max_epochs * n_batches
    rates = [
        learning_rate * learning_rate_cycle((step + 0.5) / n_steps) for step in range(n_steps + 1)
    ]
    state = Progress(network, optimizer, generator)
    objective = partial(_measure, network, LOSSES[loss])
    feed = {"device": device, "n_workers": n_workers}
    seeds = seeded(_seed_of(team, seed), device)
    with seeds, shared(network, team), fast_products(device):
        if store is not None:
            store.load(state)
        start = time.perf_counter() - max(state.history["seconds"], default=0)
        epochs = range(state.n_epochs, max_epochs)
        for epoch in track(epochs, show=progress and team.rank == 0, label="training"):
            if state.best is not None and epoch - 1 - state.best_epoch >= max(patience, 1):
                break
            batches = samples.cut(batch_size, generator, accumulate * team.size)
            network.train()
            first = epoch * n_batches
            own_rates = rates[first : first + n_batches]
            train_loss = _train_epoch(objective, optimizer, samples, batches, own_rates, team, feed)
            if not math.isfinite(train_loss):
                raise InputError(
                    "learning_rate",
                    expected="one at which the training loss stays finite",
                    got=f"{learning_rate:g}, and a loss of {train_loss} in epoch {epoch + 1}",
                    fix="Lower it.",
                )
            team.copy_first(*network.state_dict().values())
            validation_loss = None
            if validation is not None:
                network.eval()
                batches = validation.cut(batch_size)
                validation_loss = _evaluate(objective, validation, batches, team, feed)
                if validation_loss < state.lowest:
                    state.lowest, state.best_epoch = validation_loss, epoch
                    state.best = deepcopy(network.state_dict())
            state.history["train_loss"].append(train_loss)
            state.history["validation_loss"].append(validation_loss)
            state.history["learning_rate"].append(rates[first + n_batches])
            state.history["seconds"].append(time.perf_counter() - start)
            if store is not None:
                store.save(state)
    if state.best is not None:
        network.load_state_dict(state.best)
    network.eval()
    return state.history


def _train_epoch(objective, optimizer, samples, batches, rates, team, feed):
    """Take a step for each batch, of which this process has some parts; return the mean loss."""
    mine = [parts[team.rank :: team.size] for parts in batches]
    total = torch.zeros((), dtype=torch.float64, device=feed["device"])
    with closing(samples.feed(chain.from_iterable(mine), **feed)) as fed:
        for whole, parts, rate in zip(batches, mine, rates, strict=True):
            n_whole = sum(map(len, whole))
            for part in parts:
                value = objective(*next(fed))
                (value * (len(part) / n_whole)).backward()
                # Not asked for what it is until the end: a GPU would be waited for.
                total += value.detach() * len(part)
            for group in optimizer.param_groups:
                group["lr"] = rate
                team.add(*(p.grad for p in group["params"] if p.grad is not None))
            optimizer.step()
            optimizer.zero_grad()
    team.add(total)
    return total.item() / len(samples)


@torch.no_grad()
def _evaluate(objective, samples, batches, team, feed):
    """Return the mean loss over batches, of which this process takes some."""
    mine = [rows for (rows,) in batches[team.rank :: team.size]]
    total = torch.zeros((), dtype=torch.float64, device=feed["device"])
    with closing(samples.feed(mine, **feed)) as fed:
        for batch in fed:
            total += objective(*batch) * len(batch[0])
    team.add(total)
    return total.item() / len(samples)


def _measure(network, loss, inputs, *beside):
    kind = inputs.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        return loss(network, inputs, *beside)


def _check_parts(n_parts, smallest):
    if smallest < 2 * n_parts:
        raise InputError(
            "batch_size",
            expected=f"two samples for each of {n_parts} parts (accumulate, times processes)",
            got=f"batches of {smallest}",
            fix="Take larger batches, or fewer parts.",
        )


def _seed_of(team, seed):
    """Return a seed of this process's own, lest dropout leaves out the same units in all."""
    return (
        int(np.random.SeedSequence([seed, team.rank]).generate_state(1)[0]) if team.rank else seed
    )


def learning_rate_cycle(done):
    """Return the share of the peak learning rate when ``done`` (0 to 1) of the training is over."""
    if done < RISE:
        return done / RISE
    return 0.5 * (1 + math.cos(math.pi * (done - RISE) / (1 - RISE)))


def resolve_device(device):
    """Return the torch device that is meant; "auto" is a GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return check_device(device, "'auto', 'cpu' or a GPU that is there")


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
