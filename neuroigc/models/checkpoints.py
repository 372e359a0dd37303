"""Networks on disk: weights as safetensors, everything else as JSON beside them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

import neuroigc
from neuroigc._files import atomic_path, make_output_folder, reading
from neuroigc._validation import InputError

__all__ = ["load_checkpoint", "load_weights", "save_checkpoint"]

FORMAT = "neuroigc model, 2"
# Which had no digest of the description.
OLD_FORMAT = "neuroigc model, 1"
DIGEST = "sha256_of_the_rest"


def save_checkpoint(path_prefix: str | os.PathLike[str], network: nn.Module, description: dict):
    """Write ``<path_prefix>.safetensors`` and ``<path_prefix>.json``.

    Parameters
    ----------
    path_prefix : path
        Folder and name without suffix.
    network : torch.nn.Module
        Its state is stored bit by bit.
    description : dict
        Whatever is needed to build the network again; JSON types and numpy numbers.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    weights_path, json_path = _paths(path_prefix)
    make_output_folder(weights_path.parent, "path_prefix")
    weights = save_tensors(
        {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    )
    content = {
        "format": FORMAT,
        "neuroigc_version": neuroigc.__version__,
        "weights": {"file": weights_path.name, "sha256": hashlib.sha256(weights).hexdigest()},
        **description,
    }
    plain = json.loads(json.dumps(content, default=_plain))
    text = json.dumps({**plain, DIGEST: _digest(plain)}, indent=1)
    with atomic_path(weights_path) as path:
        path.write_bytes(weights)
    with atomic_path(json_path) as path:
        path.write_text(text + "\n", encoding="utf-8")


def load_checkpoint(path_prefix: str | os.PathLike[str]) -> tuple[dict, dict]:
    """Read what `save_checkpoint` wrote.

    Returns
    -------
    description : dict
    state : dict
        Tensors for ``load_state_dict``.

    Raises
    ------
    InputError
        If a file is missing, damaged, of another format, or if the two do not belong together.
    """
    weights_path, json_path = _paths(path_prefix)
    try:
        text = json_path.read_bytes().decode("utf-8", "replace")
        weights = weights_path.read_bytes()
    except OSError as error:
        raise InputError(
            "path_prefix",
            expected=f"{weights_path.name} and {json_path.name} in {weights_path.parent}",
            got=f"{error.strerror}: {error.filename}",
        ) from error
    with reading(json_path, "the description of a saved model", fix="Save the model again."):
        description = json.loads(text)
        found = description["format"]
        expected_hash = description["weights"]["sha256"]
        digest = description.pop(DIGEST, None)
        is_old = found == OLD_FORMAT and digest is None
        if found in (FORMAT, OLD_FORMAT) and not is_old and digest != _digest(description):
            raise ValueError("one that was changed or damaged after it was written")
    if found not in (FORMAT, OLD_FORMAT):
        raise InputError(
            str(json_path),
            expected=f"format {FORMAT!r}",
            got=f"{found!r}",
            fix="It was written by another version of neuroigc.",
        )
    if hashlib.sha256(weights).hexdigest() != expected_hash:
        raise InputError(
            str(weights_path),
            expected=f"the weights that {json_path.name} describes (sha256 {expected_hash[:12]}…)",
            got=f"{len(weights)} bytes with another checksum: cut short, or of another model",
            fix="Copy both files again, or save the model again.",
        )
    try:
        return description, load_tensors(weights)
    except SafetensorError as error:
        raise InputError(str(weights_path), expected="safetensors", got=str(error)) from error


def load_weights(network: nn.Module, state: dict, source: str) -> None:
    """Put ``state`` into ``network``, refusing what does not fit exactly."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            source,
            expected=f"the weights of a {type(network).__name__} as described",
            got=str(error).splitlines()[-1].strip().rstrip("."),
        ) from error


def _digest(content):
    """Return the SHA-256 of a description, whatever its order and spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _paths(path_prefix):
    prefix = Path(path_prefix)
    return [prefix.with_name(f"{prefix.name}.{suffix}") for suffix in ("safetensors", "json")]


def _plain(value):
    """Turn numpy numbers and arrays into what JSON knows."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be saved as JSON")
