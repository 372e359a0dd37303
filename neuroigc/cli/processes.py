"""Processes side by side, as torchrun starts them.

The first does what a single process does, and alone writes and prints; the others wait for the
training of the decoder and the attributions, whose work all share.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, suppress
from datetime import timedelta

from neuroigc._validation import InputError

__all__ = ["call_together", "first_of_many", "is_one_of_many", "is_silent", "loading"]

# The others wait while the first trains, however long that takes.
PATIENCE = timedelta(days=30)

# Whether others wait for this process to call them, and whether they are at work with it.
_team = {"waits": False, "works": False}


def is_one_of_many() -> bool:
    """Tell whether torchrun started this process beside others."""
    return _number("WORLD_SIZE", 1) > 1


def is_silent() -> bool:
    """Tell whether another process speaks for this one."""
    return is_one_of_many() and _number("RANK", 0) > 0


def _number(name, default):
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default


@contextmanager
def first_of_many():
    """Yield whether this process is the first; the others have helped it when they get there."""
    import torch

    # Optimizers load it. Loaded while processes talk, it would keep their group alive for ever,
    # whose threads then stop the process at its end, now and then.
    import torch._dynamo

    distributed = torch.distributed
    distributed.init_process_group(_backend(torch), timeout=PATIENCE)
    if distributed.get_rank():
        _help(distributed)
        yield False
    else:
        _team.update(waits=True, works=False)
        yield True
        _team["waits"] = False
        if _team["works"]:
            # Stopped amid common work: the others are not listening. That this one ends tells
            # torchrun to end them.
            return
        _tell(distributed, None)
    distributed.destroy_process_group()


def _backend(torch):
    if not torch.cuda.is_available():
        return "gloo"
    local, n_devices = _number("LOCAL_RANK", 0), torch.cuda.device_count()
    torch.cuda.set_device(local % n_devices)
    # Several processes on one GPU are more than NCCL allows.
    alone = _number("LOCAL_WORLD_SIZE", local + 1) <= n_devices
    return "cpu:gloo,cuda:nccl" if alone else "gloo"


def _help(distributed):
    """Do what the first process says until it says that all is done."""
    warnings.simplefilter("ignore")
    while (task := _tell(distributed, None)) is not None:
        function, arguments = task
        # The first process has the same error, and says so.
        with suppress(InputError):
            function(*arguments)


def _tell(distributed, task):
    """Send a task from the first process to the others; return it."""
    tasks = [task]
    distributed.broadcast_object_list(tasks, src=0)
    return tasks[0]


def call_together(function, *arguments):
    """Call a function whose last argument is ``progress`` in this process, and in all others."""
    if not _team["waits"]:
        return function(*arguments)
    import torch

    _tell(torch.distributed, (function, (*arguments[:-1], False)))
    _team["works"] = True
    try:
        result = function(*arguments)
    except InputError:
        # All have it.
        _team["works"] = False
        raise
    _team["works"] = False
    return result


@contextmanager
def loading():
    """Raise in all processes what keeps one of them from loading its data."""
    from neuroigc._team import assemble_team

    with assemble_team(None).together():
        yield
