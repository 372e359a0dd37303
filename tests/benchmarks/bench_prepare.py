"""Preparing NSD at full size: speed against plain reading, memory, and what being killed does.

    python tests/benchmarks/bench_prepare.py --folder /somewhere/with/20/GB

Writes sessions of the release's size (163,842 vertices x 750 trials a hemisphere, 491.5 MB a file)
into a temporary folder inside, prepares two subjects of three sessions each, and removes it all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_output import interleave, median_and_range, print_environment, print_table, write

from neuroigc._vertex_files import read_map
from neuroigc.datasets import _paths, prepare_nsd
from neuroigc.datasets.layouts import write_experiment, write_labels

N_SURFACE, N_PATTERNS = 163842, 97
SUBJECTS, SIDES = (1, 2), ("left", "right")
N_SESSIONS, N_LINKED = 3, 12
READ_BYTES = 2**24
MIB = 2**20


def make_release(root: Path, *, n_trials: int, n_inside: int) -> list[Path]:
    """Write the design, nsdgeneral and the sessions; return the files of betas."""
    rng = np.random.default_rng(0)
    # Each image comes back twice after some hundred trials, as in the experiment.
    n_columns = 40 * n_trials // 3
    times = 3 * np.arange(n_columns)[:, None] + rng.exponential(0.7 * n_trials, (n_columns, 3))
    ordering = np.repeat(np.arange(1, n_columns + 1), 3)[np.argsort(times.ravel())]
    n_shared = n_columns // 10
    own = 1 + n_shared + np.arange(8 * (n_columns - n_shared)).reshape(8, -1)
    shared = np.arange(1, n_shared + 1)
    write_experiment(
        root,
        master_ordering=ordering[: 40 * n_trials],
        subject_images=np.hstack([np.tile(shared, (8, 1)), own]),
        shared_images=shared,
        trials_per_session=n_trials,
    )
    labels = {side: np.zeros(N_SURFACE, np.int64) for side in SIDES}
    for values in labels.values():
        values[rng.choice(N_SURFACE, n_inside, replace=False)] = 1
    write_labels(root, "fsaverage", "nsdgeneral", labels, {1: "nsdgeneral"})
    paths = []
    for subject in SUBJECTS:
        for side in SIDES:
            patterns = rng.standard_normal((N_PATTERNS, N_SURFACE), dtype=np.float32)
            for session in range(1, N_SESSIONS + 1):
                shown = ordering[(session - 1) * n_trials : session * n_trials]
                missing = rng.choice(N_SURFACE, 300) if session == 2 else []
                path = _beta_path(root, subject, side, session)
                _write_session(path, patterns, shown, missing, rng)
                paths.append(path)
    return paths


def _beta_path(root: Path, subject: int, side: str, session: int) -> Path:
    return _paths.beta_path(root, subject, "fsaverage", _paths.BETA_VERSION, side, session)


def _write_session(path, patterns, shown, missing, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        header = struct.pack(">7i", 1, N_SURFACE, 1, 1, len(shown), 3, 0)
        file.write(header.ljust(284, b"\0"))
        for image in shown:
            trial = rng.standard_normal(N_SURFACE, dtype=np.float32)
            trial += np.float32(0.6) * patterns[image % N_PATTERNS]
            trial[missing] = np.nan
            file.write((np.float32(1.75) * trial + np.float32(0.25)).astype(">f4").data)
        file.flush()
        os.fsync(file.fileno())  # the system can only forget what is on disk


def evict(paths: list[Path]) -> None:
    """Make the system forget what it has in memory of files."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(function) -> dict[str, float]:
    """Return the seconds that a call takes, and those of the processor."""
    begin, processor = time.perf_counter(), time.process_time()
    function()
    return {
        "seconds": time.perf_counter() - begin,
        "processor": time.process_time() - processor,
    }


def read_plainly(paths: list[Path]) -> None:
    """Read all bytes once, into one buffer."""
    buffer = bytearray(READ_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_on_two_threads(paths: list[Path]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read_plainly, (paths[::2], paths[1::2])))


def start(
    root: Path,
    out: Path,
    sessions: int,
    subjects=SUBJECTS,
    *,
    mask: str = "nsdgeneral",
    memory_gb: float = 1,
) -> subprocess.Popen:
    """Start a process that prepares, and wait until it begins."""
    here = Path(__file__).resolve()
    paths = [str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, here, "--prepare", root, out, mask]
    command += map(str, (memory_gb, sessions, *subjects))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    process.stdout.readline()
    return process


def finish(process: subprocess.Popen) -> dict[str, Any]:
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"preparing ended with status {process.returncode}")
    return json.loads(text)


def prepare_here(
    root: Path, out: Path, label: str, memory_gb: float, sessions: int, *subjects: int
) -> None:
    """Prepare in this process; print the time and the peak of resident memory."""
    folder = _paths.label_folder(root, "fsaverage")
    names = {"left": "lh.nsdgeneral.mgz", "right": "rh.nsdgeneral.mgz"}
    mask = {side: read_map(folder / name) > 0 for side, name in names.items()}
    mask = None if label == "all" else mask
    print("ready", flush=True)
    options = {"sessions": range(1, sessions + 1), "mask": mask, "memory_gb": memory_gb}

    def prepare_all() -> None:
        for subject in subjects:
            prepare_nsd(root, subject, out / f"sub-{subject:02d}", **options)

    measured = timed(prepare_all)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    print(json.dumps({**measured, "peak_mib": int(peak[1]) / 1024}))


def hashes(out: Path) -> dict[str, str]:
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(out).as_posix()] = digest
    return found


def measure_speed(root: Path, out: Path, paths: list[Path], n_repeats: int) -> list[dict]:
    """Time plain reading and preparing in turn, with files on disk only and in memory."""
    n_bytes = sum(path.stat().st_size for path in paths)
    rows = []
    for state in ("on disk only", "in memory"):

        def settle(state=state):
            shutil.rmtree(out, ignore_errors=True)
            evict(paths) if state == "on disk only" else read_plainly(paths)

        def plainly(_, read, settle=settle):
            settle()
            return timed(partial(read, paths))

        def preparing(_, memory_gb, settle=settle):
            settle()
            return finish(start(root, out, N_SESSIONS, memory_gb=memory_gb))

        calls = {
            "read, one thread": partial(plainly, read=read_plainly),
            "read, two threads": partial(plainly, read=read_on_two_threads),
            "prepare": partial(preparing, memory_gb=1),
            "prepare, all sessions written first": partial(preparing, memory_gb=0),
        }
        _, measured = interleave(calls, n_repeats)
        seconds = {name: [one["seconds"] for one in turns] for name, turns in measured.items()}
        reading = np.array(seconds["read, one thread"])
        for name, turns in measured.items():
            took = median_and_range(seconds[name])
            rows.append(
                {
                    "files": state,
                    "what": name,
                    **took,
                    "processor_seconds": float(np.median([one["processor"] for one in turns])),
                    "gb_per_s": n_bytes / took["seconds"] / 1e9,
                    # Of the reading in the same turn.
                    "share_of_reading": float(np.median(reading / seconds[name])),
                }
            )
    return rows


def measure_memory(root: Path, out: Path) -> list[dict]:
    """Measure peaks with few and many sessions, of which the later are links to the first."""
    for session in range(N_SESSIONS + 1, N_LINKED + 1):
        for side in SIDES:
            first = _beta_path(root, 1, side, 1 + (session - 1) % N_SESSIONS)
            os.link(first, _beta_path(root, 1, side, session))
    rows = []
    for sessions, mask in [(1, "nsdgeneral"), (3, "nsdgeneral"), (12, "nsdgeneral"), (3, "all")]:
        shutil.rmtree(out, ignore_errors=True)
        measured = finish(start(root, out, sessions, [1], mask=mask))
        rows.append({"sessions": sessions, "vertices": mask, **measured})
    return rows


def measure_kills(root: Path, out: Path, *, n_kills: int, seconds: float) -> dict[str, Any]:
    """Kill preparing at random moments, resume it, and compare with what was never killed.

    Sessions go to disk, where those that were killed leave them; to compare with, they do not.
    """
    shutil.rmtree(out, ignore_errors=True)
    finish(start(root, out, N_SESSIONS))
    expected = hashes(out)
    shutil.rmtree(out)
    rng, moments, ended = np.random.default_rng(), [], []
    for _ in range(n_kills):
        process = start(root, out, N_SESSIONS, memory_gb=0)
        # Each finds less to do than the one before: all are to be met at work.
        moments.append(float(rng.uniform(0, seconds / (n_kills + 1))))
        time.sleep(moments[-1])
        process.send_signal(signal.SIGKILL)
        process.communicate()
        ended.append(process.returncode)
    finish(start(root, out, N_SESSIONS, memory_gb=0))
    return {
        "killed_after_seconds": moments,
        "exit_statuses": ended,
        "files": len(expected),
        "identical": hashes(out) == expected,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true", help="few trials, to try it out")
    options = parser.parse_args(arguments)
    sizes = (
        {"n_trials": 12, "n_inside": 500}
        if options.small
        else {"n_trials": 750, "n_inside": 18_992}
    )
    print_environment()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        root, out = Path(temporary) / "nsd", Path(temporary) / "prepared"
        paths = make_release(root, **sizes)
        n_bytes = sum(path.stat().st_size for path in paths)
        print(f"{len(paths)} files, {n_bytes / 1e9:.2f} GB\n")
        rows = measure_speed(root, out, paths, options.repeats)
        print_table(rows)
        seconds = rows[-1]["seconds"]
        kills = measure_kills(root, out, n_kills=3, seconds=seconds)
        print_table([kills])
        memory = measure_memory(root, out)
        print_table(memory)
    results = {"bytes": n_bytes, "rows": rows, "kills": kills, "memory": memory}
    write(options.json, "prepare", results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--prepare"]:
        where, into, label, *numbers = sys.argv[2:]
        memory, *counts = numbers
        prepare_here(Path(where), Path(into), label, float(memory), *map(int, counts))
    else:
        main()
