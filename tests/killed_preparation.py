"""Prepare a subject in processes that are killed at many moments, and resume; print what happened.

    python killed_preparation.py ROOT FOLDER N_KILLS

Each process of the work is a fork, which sends itself SIGKILL at the k-th call of or return from a
function in the modules that read and write.
"""

import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np

from neuroigc.datasets import prepare_nsd
from neuroigc.datasets._work import WORK

WRITERS = ("/preparation.py", "/store.py", "/_files.py", "/_sessions.py")


def prepare(root, folder, kill_at=None):
    """Return the number of calls that preparing took, or kill this process at one of them."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += frame.f_code.co_filename.endswith(WRITERS)
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    prepare_nsd(root, 1, folder, space="tiny", mask=None, memory_gb=0)
    sys.setprofile(None)
    return calls


def in_a_fork(function):
    """Call ``function``; return what it printed and the signal that ended it, 0 if none."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, str(function()).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text, os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def main(root, folder, n_kills):
    whole = folder / "whole"
    n_calls, _ = in_a_fork(partial(prepare, root, whole))
    expected, report = content(whole), []
    moments = np.random.default_rng(0).integers(1, int(n_calls), n_kills)
    cut = folder / "cut"
    for kill_at in sorted(moments.tolist()):
        _, ended_by = in_a_fork(partial(prepare, root, cut, kill_at))
        work = cut / WORK
        left = len(list(work.glob("session*.npy"))) if work.is_dir() else 0
        _, status = in_a_fork(partial(prepare, root, cut))
        same = content(cut) == expected
        report.append({"signal": ended_by, "sessions": left, "resumed": status, "same": same})
        shutil.rmtree(cut)
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
