"""Networks that have learned nothing: layers drawn anew, from the head down.

A map that stays as it is when what the network has learned is taken away tells of the data, not
of the network (Adebayo et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from neuroigc._validation import InputError
from neuroigc.models.checks import check_count
from neuroigc.models.networks import FactorisedNetwork, fold_scalings
from neuroigc.models.training import seeded

__all__ = ["list_layers", "randomise_layers"]

# Apart from the seeds that networks begin with: wide layers stay so near to their first weights
# that one drawn with the same seed is like the trained one.
STREAM = 7


def list_layers(network: nn.Module) -> list[list[str]]:
    """Return the network's layers from input to output, each by the names of its modules.

    A layer is a module with a weight matrix or kernel, and the normalisations behind it. Order
    is that in which modules were registered.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    list of list of str

    Raises
    ------
    InputError
        If parameters belong to a module that cannot draw them anew (``reset_parameters``).
    """
    layers: list[list[str]] = []
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        if not hasattr(module, "reset_parameters"):
            raise InputError(
                "network",
                expected="modules that can draw their parameters anew",
                got=f"{type(module).__name__} ({name or 'the network itself'}), which cannot",
                fix="Give it a method reset_parameters().",
            )
        if layers and all(parameter.ndim < 2 for parameter in own):
            layers[-1].append(name)
        else:
            layers.append([name])
    return layers


def randomise_layers(
    network: nn.Module,
    n_layers: int | None = None,
    *,
    seed: int = 0,
    input_scaling: Sequence | None = None,
) -> nn.Module:
    """Return a copy of a network whose last layers are drawn anew, as before any training.

    Parameters
    ----------
    network : torch.nn.Module
    n_layers : int, optional
        How many of `list_layers`, counted from the output; all by default.
    seed : int
        Has nothing to do with that of a training: none gives back the weights it began with.
    input_scaling : (mean, scale), optional
        Of the inputs, as of `neuroigc.models.networks.fold_scalings`. For the networks of this
        package, whose first layer holds the standardisation of raw inputs: one drawn anew has
        none.

    Raises
    ------
    InputError
        If there are fewer layers, or a module cannot draw its parameters.
    """
    layers = list_layers(network)
    n_layers = len(layers) if n_layers is None else n_layers
    check_count("n_layers", n_layers, fewest=0)
    if n_layers > len(layers):
        raise InputError(
            "n_layers", expected=f"at most the {len(layers)} there are", got=str(n_layers)
        )
    drawn = deepcopy(network)
    modules = dict(drawn.named_modules())
    check_count("seed", seed, fewest=0)
    own_seed = np.random.SeedSequence([seed, STREAM]).generate_state(1)[0]
    with seeded(int(own_seed), next(network.parameters()).device), torch.no_grad():
        for layer in layers[len(layers) - n_layers :]:
            for name in layer:
                modules[name].reset_parameters()
    if n_layers == len(layers) and input_scaling is not None:
        if not isinstance(drawn, FactorisedNetwork):
            raise InputError(
                "input_scaling", expected="a network with a stem", got=type(network).__name__
            )
        fold_scalings(drawn, inputs=input_scaling)
    return drawn
