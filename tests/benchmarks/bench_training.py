"""Training at scale: how fast networks are fed, by how many processes, in how much memory.

    python tests/benchmarks/bench_training.py feeding | processes | real [--small] [--folder DIR]

Stores are written to the folder (by default a temporary one) and removed at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroigc.attribution import integrated_gradient_correlation
from neuroigc.datasets import StackedRows
from neuroigc.models import DecoderNetwork, NeuralDecoder
from neuroigc.models.feeding import Samples
from neuroigc.models.scaling import measure_scaling
from neuroigc.models.training import seeded, train

N_VERTICES = 39_548
WIDTHS = (512,) * 5
N_TEST = 1000
BLOCK = 500


def write_stores(folder: Path, n_subjects: int, n_images: int, n_vertices: int) -> np.ndarray:
    """Write one float16 store for each subject; return the features of all rows."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((12, n_vertices), dtype=np.float32)
    features = np.empty((n_subjects, n_images, 2))
    for subject in range(n_subjects):
        z = rng.standard_normal((n_images, 12), dtype=np.float32)
        features[subject, :, 0] = z[:, 0] + z[:, 1] * z[:, 2]
        features[subject, :, 1] = np.tanh(2 * z[:, 3]) + np.abs(z[:, 4])
        store = np.lib.format.open_memmap(
            folder / f"{subject}.npy", "w+", np.float16, (n_images, n_vertices)
        )
        for start in range(0, n_images, BLOCK):
            rows = slice(start, min(start + BLOCK, n_images))
            noise = rng.standard_normal((rows.stop - start, n_vertices), dtype=np.float32)
            store[rows] = z[rows] @ loadings + 8 * noise
        store.flush()
        del store
    return features + 0.5 * rng.standard_normal(features.shape)


def open_stores(folder: Path, rows: slice, subjects: list[int]) -> StackedRows:
    """Return chosen rows of all vertices but every hundredth, which others have not."""
    maps = [np.load(folder / f"{subject}.npy", mmap_mode="r") for subject in subjects]
    columns = np.flatnonzero(np.arange(maps[0].shape[1]) % 100 != 99)
    return StackedRows([(m, np.arange(len(m))[rows], columns) for m in maps])


def forget(folder: Path) -> None:
    """Drop the stores from the page cache."""
    for path in folder.glob("*.npy"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def feeding(folder: Path, small: bool) -> dict[str, Any]:
    """Compare samples per second from stores with those from float32 arrays in memory."""
    n_images, n_vertices, n_repeats = (60, 300, 2) if small else (1500, N_VERTICES, 15)
    features = write_stores(folder, 2, n_images, n_vertices).reshape(-1, 2).astype(np.float32)
    stores = open_stores(folder, slice(None), [0, 1])
    scaling = measure_scaling(stores, argument="X")
    sources = {"memory": np.asarray(stores, dtype=np.float32), "warm": stores, "cold": stores}
    rates: dict[str, list[float]] = {name: [] for name in (*sources, "warm, no threads")}
    for _ in range(n_repeats):
        for name in rates:
            inputs = sources[name.partition(",")[0]]
            samples = Samples(inputs, features, np.arange(len(features)) // n_images,
                              input_scaling=scaling)  # fmt: skip
            if name == "cold":
                forget(folder)
            with seeded(0, "cpu"):
                network = DecoderNetwork(inputs.shape[1], 2, hidden=WIDTHS, n_conditions=2)
            n_workers = 0 if "no threads" in name else 1
            history = train(network, samples, validation_fraction=0.0, max_epochs=1,
                            n_workers=n_workers, device="cpu")  # fmt: skip
            rates[name].append(len(features) / history["seconds"][-1])
    base = rates["memory"]
    return {
        "rows": [
            {
                "source": name,
                "samples_per_second": statistics.median(own),
                "share": statistics.median(a / b for a, b in zip(own, base, strict=True)),
            }
            for name, own in rates.items()
        ]
    }


def _fit_share(rank: int, size: int, folder: Path, small: bool) -> None:
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting{size}", rank=rank, world_size=size
        )
    features = np.load(folder / "features.npy")
    fit, test = slice(0, -len(features[0]) // 5), slice(-len(features[0]) // 5, None)
    subjects = list(range(len(features)))
    model = NeuralDecoder(hidden=(64,) * 3, max_epochs=1 if small else 8, device="cpu", dropout=0.2)
    model.fit(open_stores(folder, fit, subjects), features[:, fit].reshape(-1, 2))
    r = model.score(open_stores(folder, test, subjects), features[:, test].reshape(-1, 2))
    told = {"r": r, "validation_loss": min(model.history_["validation_loss"])}
    (folder / f"processes-{size}-{rank}.json").write_text(json.dumps(told))
    if size > 1:
        torch.distributed.destroy_process_group()


def processes(folder: Path, small: bool) -> dict[str, Any]:
    """Compare decoders that one, two and four processes train."""
    n_images, n_vertices = (60, 40) if small else (3000, 2000)
    np.save(folder / "features.npy", write_stores(folder, 2, n_images, n_vertices))
    rows, context = [], multiprocessing.get_context("spawn")
    for size in (1, 2) if small else (1, 2, 4):
        start = time.perf_counter()
        workers = [context.Process(target=_fit_share, args=(rank, size, folder, small))
                   for rank in range(size)]  # fmt: skip
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        told = [(folder / f"processes-{size}-{rank}.json").read_text() for rank in range(size)]
        if len(set(told)) > 1:
            raise RuntimeError(f"processes differ: {told}")
        seconds = time.perf_counter() - start
        rows.append({"processes": size, "seconds": seconds, **json.loads(told[0])})
    return {"rows": rows}


@contextmanager
def watching() -> Iterator[dict[str, float]]:
    """Yield a dict that has, at the end, seconds and the peaks of this process's memory in GiB."""
    peaks = {"VmHWM": 0.0, "RssAnon": 0.0, "RssFile": 0.0}
    done = threading.Event()

    def watch() -> None:
        # Once more at the end, for what is too short to be met otherwise.
        last = False
        while not last:
            last = done.wait(0.05)
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            for line in status.splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) / 2**20)

    watcher, start = threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    told: dict[str, float] = {}
    try:
        yield told
    finally:  # a thread that goes on would keep the process from ending
        done.set()
        watcher.join()
    told |= {"seconds": time.perf_counter() - start}
    told |= {"max_rss_gib": peaks["VmHWM"], "anonymous_gib": peaks["RssAnon"]}
    told |= {"mapped_gib": peaks["RssFile"]}


def _train_decoder(folder: Path, small: bool) -> None:
    features = np.load(folder / "features.npy")
    subjects, fit = list(range(len(features))), slice(0, -features.shape[1] // 9)
    inputs = open_stores(folder, fit, subjects)
    targets = features[:, fit].reshape(-1, 2)
    model = NeuralDecoder(max_epochs=1, device="cpu", hidden=(16,) * 5 if small else WIDTHS)
    with watching() as told:
        measure_scaling(inputs, argument="X")
    told["gigabytes_per_second"] = inputs.size * 2e-9 / told["seconds"]
    (folder / "scaling.json").write_text(json.dumps(told))
    with watching() as told:
        model.fit(
            inputs, targets, conditions=np.repeat(subjects, len(inputs) // len(subjects)),
            checkpoint=folder / "state.safetensors",
        )  # fmt: skip
    epoch = model.history_["seconds"][-1]
    told |= {"seconds_of_epoch": epoch, "samples_per_second": len(inputs) / epoch}
    (folder / "epoch.json").write_text(json.dumps(told))
    model.save(folder / "model")


def _attribute_subject(folder: Path, small: bool) -> None:
    features = np.load(folder / "features.npy")
    n_test = features.shape[1] // 9
    inputs = open_stores(folder, slice(-n_test, None), [0])
    model = NeuralDecoder.load(folder / "model")
    with watching() as told:
        result = integrated_gradient_correlation(
            model.module_, inputs, features[0, -n_test:], conditions=np.zeros(n_test, int),
            max_gradients=5 if small else 64, tolerance=0.5 if small else 0.05, device="cpu",
        )  # fmt: skip
    told |= {"samples": n_test, "gradients": result.n_gradients}
    told |= {"r": float(result.correlation.mean())}
    told |= {"numerical_error": float(result.numerical_error.max())}
    (folder / "attribution.json").write_text(json.dumps(told))


def real(folder: Path, small: bool) -> dict[str, Any]:
    """Train a decoder of eight subjects for an epoch, and attribute one subject's test images."""
    n_images, n_vertices = (90, 60) if small else (9000, N_VERTICES)
    start = time.perf_counter()
    np.save(folder / "features.npy", write_stores(folder, 8, n_images, n_vertices))
    rows = [{"what": "writing", "seconds": time.perf_counter() - start}]
    context = multiprocessing.get_context("spawn")
    for job, names in ((_train_decoder, ("scaling", "epoch")),
                       (_attribute_subject, ("attribution",))):  # fmt: skip
        forget(folder)
        worker = context.Process(target=job, args=(folder, small))
        worker.start()
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"{job.__name__} ended with {worker.exitcode}")
        rows += [
            {"what": name, **json.loads((folder / f"{name}.json").read_text())} for name in names
        ]
    return {"rows": rows}


COMMANDS = {"feeding": feeding, "processes": processes, "real": real}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print one line of JSON for each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--small", action="store_true", help="for a test of this file")
    parser.add_argument("--folder", type=Path, help="where the stores may be (7 GB for real)")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        for row in COMMANDS[options.command](folder, options.small)["rows"]:
            print(json.dumps({k: round(v, 4) if isinstance(v, float) else v
                              for k, v in row.items()}))  # fmt: skip
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
