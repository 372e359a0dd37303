"""What is reported of an attribution map: (pooled) components, and sums over groups of them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._validation import InputError
from neuroigc.attribution.paths import uniform

__all__ = ["Columns", "check_groups"]


class Columns:
    """Linear reduction of maps (..., n_inputs) to columns: pooled components, then groups.

    Parameters
    ----------
    input_shape : tuple of int
    pool : int
        Side of the squares, over the last two dimensions, that are summed.
    groups : dict of str to index arrays
        As `check_groups` returns them.
    device : torch.device

    Attributes
    ----------
    n_components, n_groups, n_columns : int
    group_names : list of str
    shape : tuple of int
        Shape of the pooled map.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        pool: int,
        groups: dict[str, NDArray[np.int64]],
        device: torch.device,
    ) -> None:
        self.input_shape, self.pool = input_shape, pool
        self.shape = _pooled_shape(input_shape, pool)
        self.n_inputs = int(np.prod(input_shape))
        self.n_components = int(np.prod(self.shape))
        self.groups = [torch.from_numpy(index).to(device) for index in groups.values()]
        self.group_names, self.n_groups = list(groups), len(self.groups)
        self.n_columns = self.n_components + self.n_groups
        # Which input components make a pooled one: (n_components, pool * pool).
        members = np.arange(self.n_inputs).reshape(1, *input_shape)
        self._members = torch.from_numpy(_pool_windows(members, pool)[0]).to(device)

    def reduce(self, maps: Tensor) -> Tensor:
        """Map (..., n_inputs) to (..., n_columns)."""
        parts = [maps if self.pool == 1 else self._pooled(maps)]
        parts += [maps[..., group].sum(-1, keepdim=True) for group in self.groups]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _pooled(self, maps: Tensor) -> Tensor:
        shaped, n = maps.reshape(-1, *self.input_shape), self.pool
        # Adding slices is several times as fast as summing over short axes.
        rows = shaped[..., ::n, :].clone()
        for i in range(1, n):
            rows += shaped[..., i::n, :]
        pooled = rows[..., ::n].clone(memory_format=torch.contiguous_format)
        for i in range(1, n):
            pooled += rows[..., i::n]
        return pooled.reshape(*maps.shape[:-1], self.n_components)

    def probe(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Choose at most ``n`` components at random, on which numerical errors are measured.

        Returns
        -------
        columns : Tensor of shape (n_probe,)
        inputs : Tensor of shape (n_probe, pool * pool)
            The input components that each is the sum of.
        """
        candidates = np.arange(self.n_components)
        if n < self.n_components:
            candidates = np.sort(np.argsort(uniform(seed, 99, (), candidates))[:n])
        columns = torch.from_numpy(candidates).to(self._members.device)
        return columns, self._members[columns]


def _pooled_shape(input_shape: tuple[int, ...], pool: int) -> tuple[int, ...]:
    if not (isinstance(pool, Integral) and pool >= 1):
        raise InputError("pool", expected="a number of pixels, 1 or more", got=repr(pool))
    if pool == 1:
        return input_shape
    if len(input_shape) < 2 or any(side % pool for side in input_shape[-2:]):
        raise InputError(
            "pool",
            expected="inputs whose last two dimensions are multiples of it",
            got=f"pool {pool} for inputs of shape {input_shape}",
        )
    return (*input_shape[:-2], *(side // pool for side in input_shape[-2:]))


def _pool_windows(maps: NDArray[Any], pool: int) -> NDArray[Any]:
    """Return (n, n_components, pool * pool)."""
    if pool == 1:
        return maps.reshape(len(maps), -1, 1)
    height, width = maps.shape[-2:]
    windows = maps.reshape(-1, height // pool, pool, width // pool, pool).swapaxes(2, 3)
    return windows.reshape(len(maps), -1, pool * pool)


def check_groups(
    groups: Mapping[str, Any] | None,
    input_shape: tuple[int, ...],
    path: str = "",
    *,
    argument: str = "groups",
) -> dict[str, NDArray[np.int64]]:
    """Return groups as index arrays over the flattened input; of trees, stems before branches.

    Raises
    ------
    InputError
        If a mask has the wrong length, an index is out of range or repeated, or a group is
        neither mask nor indices, or the branches of a tree overlap.
    """
    if groups is not None and not isinstance(groups, Mapping):
        raise InputError(
            argument, expected="a dict of names to components", got=type(groups).__name__
        )
    checked: dict[str, NDArray[np.int64]] = {}
    for name, members in (groups or {}).items():
        if isinstance(members, Mapping):
            branches = check_groups(members, input_shape, f"{path}{name}/", argument=argument)
            own = [branches[f"{path}{name}/{branch}"] for branch in members]
            together = np.concatenate([*own, np.empty(0, np.int64)])
            if len(np.unique(together)) != len(together):
                raise InputError(
                    f"{argument}[{path + str(name)!r}]",
                    expected="branches of a tree that do not overlap, so that they add up",
                    got=f"{len(together) - len(np.unique(together))} components in several",
                    fix="Give overlapping groups names of their own.",
                )
            added = {f"{path}{name}": together, **branches}
        else:
            entry = f"{argument}[{path + str(name)!r}]"
            added = {f"{path}{name}": _check_members(entry, members, input_shape)}
        if twice := sorted(checked.keys() & added.keys()):
            raise InputError(
                f"{argument}[{twice[0]!r}]",
                expected="names, those of a tree's branches included, that come once",
                got="the same name again",
            )
        checked |= added
    return checked


def _check_members(argument: str, members: Any, input_shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return a group as indices over the flattened input."""
    n_inputs = int(np.prod(input_shape))
    array = members.detach().cpu().numpy() if hasattr(members, "detach") else members
    array = np.asarray(array)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype == bool:
        if array.shape not in (input_shape, (n_inputs,)):
            raise InputError(
                argument,
                expected=f"a mask over the {n_inputs} input components",
                got=f"a mask of {array.size}, of shape {array.shape}",
                fix=f"Its shape has to be {input_shape}, or flat.",
            )
        array = np.flatnonzero(array)
    if array.ndim != 1:
        raise InputError(
            argument,
            expected="indices over the flattened input, in one dimension",
            got=f"an array of shape {array.shape}",
            fix="Of places in several dimensions, take a boolean mask.",
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            argument, expected="indices or a boolean mask", got=f"an array of {array.dtype}"
        )
    index: NDArray[np.int64] = array.reshape(-1).astype(np.int64)
    if index.size and (index.min() < 0 or index.max() >= n_inputs):
        raise InputError(
            argument,
            expected=f"indices from 0 to {n_inputs - 1}",
            got=f"{index.min()} to {index.max()}",
        )
    if len(np.unique(index)) != len(index):
        raise InputError(argument, expected="each index once", got="repeated indices")
    return index
