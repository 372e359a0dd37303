"""Progress with time left, quiet unless asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

__all__ = ["track"]

T = TypeVar("T")


def track(items: Iterable[T], *, show: bool, label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items``, with a progress bar on stderr if ``show``."""
    return iter(tqdm(items, desc=label, total=total, disable=not show, leave=False))
