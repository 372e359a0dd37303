"""Several processes at one piece of work: each takes a share, and sums are added.

Under torchrun (or any other start of `torch.distributed`) the processes add their sums
themselves; jobs that cannot talk to each other are shards, whose sums are added afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from neuroigc._validation import InputError

__all__ = ["Team", "assemble_team", "working_alone"]

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
    is_shard : bool
        Whether the sums are one of several shards', be it the only one.
    """

    rank: int = 0
    size: int = 1
    talks: bool = False
    is_shard: bool = False

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
                there = _within_reach(tensor)
                torch.distributed.all_reduce(there)
                if there is not tensor:
                    tensor.copy_(there)

    def copy_first(self, *tensors: Tensor) -> None:
        """Replace tensors by those of the first member, where members talk."""
        if self.talks:
            for tensor in tensors:
                there = _within_reach(tensor)
                torch.distributed.broadcast(there, src=0)
                if there is not tensor:
                    tensor.copy_(there)

    def add_up(self, sums: dict[str, Tensor], like: Tensor) -> None:
        """Replace named sums by those over the members; some members may lack some of them."""
        if not self.talks:
            return
        kinds: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for theirs in self.gather({k: (tuple(v.shape), v.dtype) for k, v in sums.items()}):
            kinds |= theirs
        for name, (shape, dtype) in sorted(kinds.items()):
            if name not in sums:
                sums[name] = like.new_zeros(shape, dtype=dtype)
            self.add(sums[name])

    def gather(self, thing: T) -> list[T]:
        """Return what each of the members that talk has to say."""
        things: list[Any] = [thing] * self.size
        if self.talks:
            torch.distributed.all_gather_object(things, thing)
        return things if self.talks else [thing]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise at the end, in all members, what is wrong with the input of one of them.

        Else the others would wait for it.
        """
        error: InputError | None = None
        try:
            yield
        except InputError as mine:
            if not self.talks:
                raise
            error = mine
        errors = [theirs for theirs in self.gather(error) if theirs is not None]
        if errors:
            raise errors[0]

    def agree(self, argument: str, expected: str, thing: Any) -> None:
        """Raise in all members unless they have the same thing."""
        others = [i for i, theirs in enumerate(self.gather(thing)) if theirs != thing]
        with self.together():
            if others:
                raise InputError(
                    argument,
                    expected=expected,
                    got=f"others in process {self.rank} than in process {others[0]}",
                )


def assemble_team(shard: tuple[int, int] | None) -> Team:
    """Return the team this process belongs to: a shard of a job array, torchrun's, or itself."""
    if shard is not None:
        number, size = shard
        return Team(number - 1, size, is_shard=True)
    distributed = torch.distributed
    if not _alone.get() and distributed.is_available() and distributed.is_initialized():
        size = distributed.get_world_size()
        return Team(distributed.get_rank(), size, talks=size > 1)
    return Team()


@contextmanager
def working_alone() -> Iterator[None]:
    """Let this process work by itself, for what the others of its team do not take part in."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


_alone = ContextVar("alone", default=False)


def _within_reach(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy on the one kind of device that the processes talk through."""
    if torch.distributed.get_backend() == "nccl" and not tensor.is_cuda:
        return tensor.cuda()
    return tensor
