"""Torch devices: seen to be there, and used as they multiply fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from neuroigc._validation import InputError

__all__ = ["check_device", "fast_products"]

# Relative error of products in single precision, at most; in bfloat16 it is a thousandth.
SINGLE = 1e-5
# Of the products tried: rows, terms of each sum, columns.
_TRIED = ((64, 4096, 64), (128, 512, 512), (8, 256, 2048))


def check_device(
    device: Any, expected: str = '"auto" or a torch device that is there'
) -> torch.device:
    """Return the device.

    Raises
    ------
    InputError
        If it is not there, or holds no numbers.
    """
    refusal = InputError("device", expected=expected, got=repr(device))
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise refusal from error
    # To torch, None is a device, and "meta" one that holds no numbers.
    if device is None or place.type == "meta":
        raise refusal
    return place


@contextmanager
def fast_products(place: torch.device) -> Iterator[None]:
    """Multiply by the fastest kernels of single precision, on processors.

    As torch is delivered it multiplies by MKL, which leaves the widest registers of AMD's
    processors unused; oneDNN's kernels are about twice as fast there. Torch takes them where
    bfloat16 is allowed, which rounds on some processors and not on others: on this one, it is
    tried. Settings of the caller, other than torch's own, are left alone.
    """
    if place.type != "cpu" or _precision() != "highest" or not _medium_is_single():
        yield
        return
    with _medium():
        yield


@contextmanager
def _medium() -> Iterator[None]:
    """Allow bfloat16 in products, and put all settings back."""
    backends: list[Any] = [
        getattr(torch.backends.mkldnn, "matmul", None),
        torch.backends.cuda.matmul,
    ]
    kept = [(one, one.fp32_precision) for one in backends if hasattr(one, "fp32_precision")]
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        # Which sets each backend, so that none would follow torch.backends any more.
        for one, before in kept:
            one.fp32_precision = before


def _precision() -> str:
    """Return what the caller allows products in single precision to be."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # Set for each backend by itself.
        return ""


@cache
def _medium_is_single() -> bool:
    """Tell whether products keep single precision where bfloat16 is allowed."""
    numbers = torch.Generator().manual_seed(0)
    with _medium():
        for n, k, m in _TRIED:
            a, b = torch.randn(n, k, generator=numbers), torch.randn(k, m, generator=numbers)
            exact = a.double() @ b.double()
            if (a @ b - exact).norm() > SINGLE * exact.norm():
                return False
    return True
