"""One sentence form for everything that is wrong with an input."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real

__all__ = ["InputError", "check_choice", "check_count", "check_positive", "check_same_length"]


class InputError(ValueError):
    """Something the caller handed over cannot be used.

    Parameters
    ----------
    argument : str
        The argument, option or file at fault.
    expected : str
        What would have been right.
    got : str
        What came.
    fix : str, optional
        What to do about it, as a sentence.
    """

    def __init__(self, argument: str, *, expected: str, got: str, fix: str = "") -> None:
        self.argument, self.expected, self.got, self.fix = argument, expected, got, fix
        message = f"{argument}: expected {expected}; got {got}."
        super().__init__(f"{message} {fix}".rstrip())

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not travel between processes by themselves.
        return (_rebuild, (self.argument, self.expected, self.got, self.fix))


def _rebuild(argument: str, expected: str, got: str, fix: str) -> InputError:
    return InputError(argument, expected=expected, got=got, fix=fix)


def check_choice(argument: str, value: object, choices: Iterable[object]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise InputError(argument, expected=f"one of {listed}", got=repr(value))


def check_count(argument: str, value: object, least: int = 1) -> int:
    """Raise unless ``value`` is a whole number of at least ``least``; return it as int."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(argument, expected=f"{least} or more, a whole number", got=repr(value))
    return int(value)


def check_positive(argument: str, value: object) -> None:
    """Raise unless ``value`` is a number above zero, neither infinite nor next to either."""
    if not (isinstance(value, Real) and 1e-30 < float(value) < 1e30):
        raise InputError(argument, expected="a number above 0", got=repr(value))


def check_same_length(**arrays: object) -> int:
    """Raise unless all arrays that are not None have equally many rows; return that number."""
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        if array is None:
            continue
        try:
            lengths[name] = len(array)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(
                name, expected="one row for each sample", got="a single value"
            ) from error
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InputError(
            " and ".join(lengths),
            expected="the same number of samples",
            got=listed,
            fix="Row i must be the same sample in each.",
        )
    return next(iter(lengths.values()), 0)
