"""Several estimates of the same receptive fields made into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroigc._validation import InputError
from neuroigc.prf.result import ClassicalPRFResult, PRFResult

__all__ = ["average_prfs"]


def average_prfs(estimates: Sequence[PRFResult]) -> PRFResult:
    """Average receptive fields of the same vertices, as of encoders that differ by their seed.

    Networks that start elsewhere learn other features, and what these do to centres and sizes
    averages out.

    Parameters
    ----------
    estimates : sequence of PRFResult
        Of the same vertices, in the same order and for pictures of the same extent.

    Returns
    -------
    PRFResult
        Means of centres, exponents and all else, of sizes geometric ones. Standard errors are
        root mean squares, not smaller than those of a single estimate: all have seen the same
        responses. ``status`` is the first that is not "ok".

    Raises
    ------
    InputError
        If there is none, or they are not of the same vertices, kind and extent.
    """
    estimates = list(estimates)
    if not estimates or len({len(fields) for fields in estimates}) > 1:
        raise InputError(
            "estimates",
            expected="one or more, of the same vertices",
            got=f"lengths {[len(fields) for fields in estimates]}",
        )
    first = estimates[0]
    for fields in estimates[1:]:
        same = (type(fields), fields.extent_deg, fields.calibration, fields.has_errors)
        if same != (type(first), first.extent_deg, first.calibration, first.has_errors):
            raise InputError(
                "estimates",
                expected="fields of one kind and extent, calibrated alike",
                got=f"{type(first).__name__} of {first.extent_deg} deg beside "
                f"{type(fields).__name__} of {fields.extent_deg} deg",
            )

    def stack(name: str) -> np.ndarray:
        return np.stack([getattr(fields, name) for fields in estimates])

    averaged = {
        name: stack(name).mean(0) for name in ("x_deg", "y_deg", "amplitude", "offset", "r2")
    }
    averaged["size_deg"] = np.exp(np.log(stack("size_deg")).mean(0))
    if isinstance(first, ClassicalPRFResult):
        averaged["exponent"] = stack("exponent").mean(0)
    if first.has_errors:
        for name in ("x_error_deg", "y_error_deg", "size_error_deg"):
            averaged[name] = np.sqrt((stack(name) ** 2).mean(0))
    status = stack("status")
    worst = (status != "ok").argmax(0)
    averaged["status"] = status[worst, np.arange(status.shape[1])]
    return replace(first, **averaged)
