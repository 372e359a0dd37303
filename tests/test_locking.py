"""One writer at a time: the second is told, and who was killed is in nobody's way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuroigc._files import LOCK, writing_alone
from neuroigc._validation import InputError
from neuroigc.datasets import SubjectData
from neuroigc.datasets.image_cache import cache_images

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys, time
from neuroigc._files import writing_alone
with writing_alone(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_told(holder, tmp_path):
    expected = rf"folder: expected one that no other process writes to; got {tmp_path}, .*Wait"
    with pytest.raises(InputError, match=expected), writing_alone(tmp_path):
        pass
    # Another part of the folder is another's.
    with writing_alone(tmp_path, name=".lock-b"):
        assert (tmp_path / ".lock-b").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_in_nobodys_way(holder, tmp_path, number):
    holder.send_signal(number)
    holder.wait()
    assert (tmp_path / LOCK).exists()  # what it left is no lock
    with writing_alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_it_is_let_go_of_whatever_happens(tmp_path):
    with pytest.raises(ValueError, match="mine"), writing_alone(tmp_path):
        raise ValueError("mine")
    with writing_alone(tmp_path), pytest.raises(InputError), writing_alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Who opened the file before it was removed would hold one that nobody else finds."""
    opened, remove = os.open, [True]

    def slow(path, *args):
        handle = opened(path, *args)
        if remove.pop() if remove else False:
            Path(path).unlink()
        return handle

    monkeypatch.setattr(os, "open", slow)
    with writing_alone(tmp_path):
        with pytest.raises(InputError), writing_alone(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()


def subject():
    return SubjectData(
        subject="01",
        responses=np.zeros((2, 2), np.float32),
        image_ids=np.arange(2),
        n_repeats=None,
        is_test=np.array([True, False]),
        vertices={"left": np.arange(1), "right": np.arange(1)},
        space="x",
        n_surface_vertices={"left": 1, "right": 1},
        n_dropped={"left": 0, "right": 0},
    )


def zeros(ids):
    return np.zeros((len(ids), 4, 4), np.float32)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: subject().save(folder),
        lambda folder: cache_images(folder, [1, 2], zeros, settings={}),
    ],
)
def test_stores_are_written_by_one_at_a_time(tmp_path, write):
    with writing_alone(tmp_path):
        with pytest.raises(InputError, match="no other process writes to"):
            write(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    write(tmp_path)


def test_what_is_finished_is_read_while_another_holds_it(tmp_path):
    cache_images(tmp_path, [1, 2], zeros, settings={})
    with writing_alone(tmp_path):
        images, _ = cache_images(tmp_path, [1, 2], zeros, settings={})
    assert len(images) == 2
