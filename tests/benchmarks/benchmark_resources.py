"""How time grows with the problem, and how much memory a call takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_models import DEPTH, N_VERTICES, WIDTH, make_mlp, make_untrained
from benchmark_output import NEVER, attribute, interleave, median_and_range
from torch import nn

from neuroigc.attribution import integrated_gradient_correlation

MIB = 2**20


def measure_scaling(*, max_gradients: int, n_repeats: int, small: bool) -> dict[str, Any]:
    """Time calls over samples, features and outputs, one of them varied at a time."""
    base = {"samples": 1000, "features": 10_000, "outputs": 2}
    sweeps = {
        "samples": [500, 1000, 2000, 4000, 8000],
        "features": [2500, 5000, 10_000, 20_000, 40_000],
        "outputs": [1, 2, 4, 8, 16],
    }
    width = WIDTH
    if small:
        base, width = {"samples": 30, "features": 40, "outputs": 2}, 16
        sweeps = {"samples": [20, 40], "features": [20, 40], "outputs": [1, 2]}
    sizes = {(axis, n): base | {axis: n} for axis, values in sweeps.items() for n in values}
    calls = {}
    for (axis, n), size in sizes.items():
        case = make_untrained(size["samples"], size["features"], size["outputs"], width=width)
        options = {"max_gradients": max_gradients, "tolerance": NEVER}
        calls[f"{axis} {n}"] = partial(_call, case, options)
    seconds, results = interleave(calls, n_repeats)
    rows = [
        {
            "varied": axis,
            **size,
            "gradients": results[f"{axis} {n}"][0],
            **median_and_range(seconds[f"{axis} {n}"]),
        }
        for (axis, n), size in sizes.items()
    ]
    exponents = {}
    for axis, values in sweeps.items():
        times = [row["seconds"] for row in rows if row["varied"] == axis]
        exponents[axis] = float(np.polyfit(np.log(values), np.log(times), 1)[0])
    return {"rows": rows, "exponents": exponents}


def _call(case: Any, options: dict[str, Any], turn: int) -> int:
    return attribute(case, seed=turn, **options).n_gradients


def measure_memory(*, max_gradients: int, small: bool, folder: Path | None) -> dict[str, Any]:
    """Measure peaks of memory above the inputs, each in a process of its own."""
    n_inputs, width, few, many = (60, 16, 20, 60) if small else (N_VERTICES, WIDTH, 1000, 10_000)
    rows = []
    for n, mapped in ((few, False), (many, True)):
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _write_problem(Path(temporary), n, n_inputs, width)
            command = [sys.executable, __file__, temporary, str(int(mapped)), str(max_gradients)]
            here = Path(__file__).resolve()
            paths = [str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
            done = subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        size = n * n_inputs * 4
        rows.append(
            {
                "samples": n,
                "inputs": "memory-mapped" if mapped else "in memory",
                "inputs_mib": size / MIB,
                **json.loads(done.stdout),
            }
        )
    return {"rows": rows, "ratio": rows[1]["peak_mib"] / rows[0]["peak_mib"]}


def _write_problem(folder: Path, n: int, n_inputs: int, width: int) -> None:
    """Write inputs, targets and weights, without ever holding all inputs."""
    torch.manual_seed(0)
    model = make_mlp(n_inputs, nn.Mish, width=width, depth=DEPTH).eval()
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "sizes.json").write_text(json.dumps([n_inputs, width]), encoding="utf-8")
    rng = np.random.default_rng(0)
    inputs = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (n, n_inputs))
    targets = np.empty((n, 2), np.float32)
    for start in range(0, n, 500):
        rows = slice(start, min(start + 500, n))
        inputs[rows] = rng.standard_normal((rows.stop - start, n_inputs), np.float32)
        with torch.no_grad():
            targets[rows] = model(torch.from_numpy(inputs[rows])).numpy()
    targets += targets.std(0) * rng.standard_normal(targets.shape, np.float32)
    np.save(folder / "y.npy", targets)
    inputs.flush()


def anonymous_bytes() -> int:
    """Return the memory of this process that no file backs (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError("/proc/self/status does not tell RssAnon")
    return int(found.group(1)) * 1024


def _measure_here(folder: Path, *, mapped: bool, max_gradients: int) -> None:
    """Run one call in this process, and print its time and peak memory as JSON."""
    n_inputs, width = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
    model = make_mlp(n_inputs, nn.Mish, width=width, depth=DEPTH).eval()
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    inputs = np.load(folder / "x.npy", mmap_mode="r" if mapped else None)
    targets = np.load(folder / "y.npy")
    samples, over = [anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            samples.append(anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = integrated_gradient_correlation(
        model, inputs, targets, device="cpu", tolerance=NEVER, max_gradients=max_gradients
    )
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    samples.append(anonymous_bytes())
    peak = (max(samples) - samples[0]) / MIB
    print(json.dumps({"gradients": result.n_gradients, "seconds": seconds, "peak_mib": peak}))


if __name__ == "__main__":
    where, is_mapped, most = sys.argv[1:]
    _measure_here(Path(where), mapped=is_mapped == "1", max_gradients=int(most))
