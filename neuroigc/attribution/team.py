"""Several processes at one attribution: each takes some of the blocks, and sums are added.

Under torchrun (or any other start of `torch.distributed`) the processes add their sums
themselves; jobs that cannot talk to each other are shards, and leave that to `merge_shards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

__all__ = ["Team", "assemble_team"]

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """One member's view of a team.

    Attributes
    ----------
    rank, size : int
        Number of this member, and of all members.
    talks : bool
        Whether members can add up their sums.
    """

    rank: int = 0
    size: int = 1
    talks: bool = False

    @property
    def is_shard(self) -> bool:
        """Return whether there are other members that cannot be asked."""
        return self.size > 1 and not self.talks

    def own_path(self, path: Path) -> Path:
        """Return a name of this member's own."""
        if self.size == 1:
            return path
        return path.with_name(f"{path.stem}-{self.rank + 1}of{self.size}{path.suffix}")

    def mine(self, items: Sequence[T]) -> list[T]:
        """Return this member's share of the work."""
        return list(items[self.rank :: self.size])

    def part_of(self, items: Sequence[T]) -> list[T]:
        """Return this member's share of what all members need: all of it, if they do not talk."""
        return self.mine(items) if self.talks else list(items)

    def add(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over the members, where these talk."""
        if self.talks:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def add_up(self, sums: dict[str, Tensor], like: Tensor) -> None:
        """Replace named sums by those over the members; some members may lack some of them."""
        if not self.talks:
            return
        shapes: dict[str, tuple[int, ...]] = {}
        for theirs in self.gather({name: tuple(sums[name].shape) for name in sums}):
            shapes |= theirs
        for name in sorted(shapes):
            if name not in sums:
                sums[name] = like.new_zeros(shapes[name], dtype=torch.float64)
            self.add(sums[name])

    def gather(self, thing: T) -> list[T]:
        """Return what each of the members that talk has to say."""
        things: list[Any] = [thing] * self.size
        if self.talks:
            torch.distributed.all_gather_object(things, thing)
        return things if self.talks else [thing]


def assemble_team(shard: tuple[int, int] | None) -> Team:
    """Return the team this process belongs to: a shard of a job array, torchrun's, or itself."""
    if shard is not None:
        number, size = shard
        return Team(number - 1, size)
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        size = distributed.get_world_size()
        return Team(distributed.get_rank(), size, talks=size > 1)
    return Team()
