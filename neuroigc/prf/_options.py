"""Options that several fits take, seen to make sense."""

from __future__ import annotations

import math
from typing import Any

from neuroigc._validation import InputError

__all__ = ["check_amount", "check_limits"]


def check_amount(argument: str, value: Any) -> float:
    """Return a finite number from 0 on."""
    amount = _as_float(value)
    if not 0 <= amount < math.inf:
        raise InputError(argument, expected="zero or a positive number", got=repr(value))
    return amount


def check_limits(argument: str, limits: Any) -> tuple[float, float]:
    """Return two finite numbers above 0, the smaller one first."""
    try:
        low, high = limits
    except (TypeError, ValueError):
        low = high = math.nan
    low, high = _as_float(low), _as_float(high)
    if not 0 < low < high < math.inf:
        raise InputError(
            argument, expected="two positive numbers, the smaller one first", got=repr(limits)
        )
    return low, high


def _as_float(value: Any) -> float:
    """Return a number, NaN for what is none; text is no number, even if it reads like one."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan
