"""Options of networks and of their training, checked before they are used."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

from neuroigc._validation import InputError

__all__ = ["check_count", "check_counts", "check_flag", "check_number", "check_share"]


def check_count(argument, value, fewest=1):
    """Raise unless ``value`` is a whole number (and no bool) of ``fewest`` or more."""
    if not _is_number(value, Integral) or value < fewest:
        raise InputError(argument, expected=f"a whole number, {fewest} or more", got=repr(value))


def check_counts(argument, values, fewest=1):
    """Return ``values`` as a tuple, or raise unless they are ``fewest`` or more positive counts."""
    counts = tuple(values) if isinstance(values, Iterable) else None
    fine = counts is not None and len(counts) >= fewest
    if not fine or not all(_is_number(count, Integral) and count > 0 for count in counts):
        at_least = f", at least {fewest} of them" if fewest else ""
        raise InputError(
            argument, expected=f"a sequence of positive whole numbers{at_least}", got=repr(values)
        )
    return counts


def check_number(argument, value, *, above_zero=True):
    """Raise unless ``value`` is a finite number above 0 (or 0, if that may be)."""
    fine = _is_number(value, Real) and math.isfinite(value)
    if not fine or value < 0 or (above_zero and value == 0):
        expected = "a number above 0" if above_zero else "a number, 0 or more"
        raise InputError(argument, expected=expected, got=repr(value))


def check_share(argument, value):
    """Raise unless ``value`` is a number from 0 up to, but not, 1."""
    if not _is_number(value, Real) or not 0 <= value < 1:
        raise InputError(
            argument, expected="a number from 0 to 1, and less than 1", got=repr(value)
        )


def check_flag(argument, value):
    """Raise unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise InputError(argument, expected="True or False", got=repr(value))


def _is_number(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)
