"""Torch devices, seen to be there."""

from __future__ import annotations

from typing import Any

import torch

from neuroigc._validation import InputError

__all__ = ["check_device"]


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
