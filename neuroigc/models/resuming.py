"""A training on disk, so that one that was cut short goes on as if it had not been.

One file of safetensors: the tensors of network, best network, optimizer and random number
generators; in its header, as JSON, all else. It is replaced as a whole after each epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from neuroigc._files import atomic_path, make_output_folder
from neuroigc._team import Team
from neuroigc._validation import InputError
from neuroigc.models.feeding import Samples

__all__ = ["Checkpoint", "Progress", "describe"]

FORMAT = "neuroigc training, 1"
# Of large arrays, this many rows tell whether they are the same.
N_COMPARED = 64


@dataclass
class Progress:
    """How far a training is: everything that its next epoch depends on.

    Attributes
    ----------
    network : torch.nn.Module
    optimizer : torch.optim.Optimizer
    generator : numpy.random.Generator
        Shuffles the samples.
    history : dict of list
    lowest : float
        Least validation loss so far.
    best : dict of Tensor or None
        State of the network then, in epoch ``best_epoch``.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    generator: np.random.Generator
    history: dict[str, list] = field(
        default_factory=lambda: {
            name: [] for name in ("train_loss", "validation_loss", "learning_rate", "seconds")
        }
    )
    lowest: float = math.inf
    best: dict[str, Tensor] | None = None
    best_epoch: int = 0

    @property
    def n_epochs(self) -> int:
        """Return the number of epochs done."""
        return len(self.history["seconds"])


@dataclass(frozen=True)
class Checkpoint:
    """The file of a training, and what tells whether it is of this one.

    Parameters
    ----------
    path : Path
    identity : dict
        What the training is of, by name; see `describe`.
    team : Team
        All of its members read the file, the first one writes it.
    device : torch.device
    """

    path: Path
    identity: dict
    team: Team
    device: torch.device

    def save(self, progress: Progress) -> None:
        """Write how far the training is."""
        states = self.team.gather(_random_states(self.device))
        if self.team.rank:
            return
        tensors = {
            f"random.{rank}.{name}": value
            for rank, state in enumerate(states)
            for name, value in state.items()
        }
        for name, state in (("network", progress.network.state_dict()), ("best", progress.best)):
            tensors |= {f"{name}.{key}": value for key, value in (state or {}).items()}
        for index, state in progress.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        header = {
            "format": FORMAT,
            "identity": self.identity,
            "history": progress.history,
            "best_epoch": progress.best_epoch,
            "generator": progress.generator.bit_generator.state,
        }
        with atomic_path(self.path) as path:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
                path,
                {"neuroigc": json.dumps(header)},
            )

    def load(self, progress: Progress) -> None:
        """Take up what `save` wrote, if there is anything.

        Raises
        ------
        InputError
            If the file is damaged, or of another training.
        """
        with self.team.together():
            make_output_folder(self.path.parent, "checkpoint")
            found = _read(self.path) if self.path.exists() else None
            if found is not None:
                self._check(found[0]["identity"])
        done = len(found[0]["history"]["seconds"]) if found else 0
        self.team.agree("checkpoint", "one file, that all processes see", done)
        if found is None:
            return
        header, tensors = found
        progress.history, progress.best_epoch = header["history"], header["best_epoch"]
        progress.generator.bit_generator.state = header["generator"]
        progress.network.load_state_dict(tensors["network"])
        if "best" in tensors:
            # Not the least of all: one of them may be NaN.
            progress.lowest = progress.history["validation_loss"][progress.best_epoch]
            progress.best = {key: v.to(self.device) for key, v in tensors["best"].items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors["optimizer"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        groups = progress.optimizer.state_dict()["param_groups"]
        progress.optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["random"][f"{self.team.rank}.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random"][f"{self.team.rank}.cuda"], self.device)

    def _check(self, identity):
        differ = [name for name, value in self.identity.items() if identity.get(name) != value]
        if differ:
            raise InputError(
                "checkpoint",
                expected="the state of this very training",
                got=f"{self.path}, of one with other {', '.join(differ)}",
                fix="Name another file, or delete this one to start anew.",
            )


def describe(network: nn.Module, samples: Samples, validation: Samples | None) -> dict[str, str]:
    """Return digests of a network and of the samples it is to learn from."""
    return {
        "network": _digest(value.cpu().numpy() for value in network.state_dict().values()),
        "samples": _digest(_traits(samples)),
        "validation samples": "" if validation is None else _digest(_traits(validation)),
        # Of what has no weights, as dropout and activations.
        "layers": repr(network),
    }


def _traits(samples):
    """Yield what tells samples from others; of what may be large, some rows."""
    some = np.unique(np.linspace(0, len(samples) - 1, N_COMPARED).astype(int))
    for array in (samples.inputs, samples.targets):
        yield np.array(array.shape)
        yield np.asarray(array[samples.rows[some]], dtype=np.float64)
    yield from (samples.rows, *(samples.input_scaling or ()), *(samples.target_scaling or ()))
    yield from (own for own in (samples.conditions, samples.weights) if own is not None)


def _digest(arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _random_states(device):
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _read(path):
    """Return the header and the tensors by kind."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["neuroigc"])
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']!r}")
            tensors: dict[str, dict[str, Tensor]] = {}
            for name in file.keys():  # noqa: SIM118 - no mapping
                kind, _, rest = name.partition(".")
                tensors.setdefault(kind, {})[rest] = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            "checkpoint",
            expected="the state of a training, as this version of neuroigc writes it",
            got=f"{path} ({error})",
            fix="Name another file, or delete this one to start anew.",
        ) from error
    return header, tensors
