"""How the benchmarks call the engine, take times, and print and keep what they measured."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmark_models import Case

import neuroigc
from neuroigc.attribution import IGCResult, integrated_gradient_correlation

# Below any error, so that a call spends all the gradients it may.
NEVER = 1e-9


def attribute(case: Case, **options: Any) -> IGCResult:
    """Run neuroigc on the processor; that a tolerance is not met is no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return integrated_gradient_correlation(
            case.model, case.inputs, case.targets, device="cpu", **options
        )


def interleave(
    calls: Mapping[str, Callable[[int], Any]], n_repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Time calls in turn, so that a busy moment meets all of them; each gets the turn's number."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    values: dict[str, list[Any]] = {name: [] for name in calls}
    for turn in range(n_repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            value = call(turn)
            seconds[name].append(time.perf_counter() - start)
            values[name].append(value)
    return seconds, values


def median_and_range(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the extremes."""
    return {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
    }


def environment() -> dict[str, Any]:
    """Return versions and threads."""
    versions = {"neuroigc": neuroigc.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "captum"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"versions": versions, "threads": torch.get_num_threads()}


def print_environment() -> None:
    """Print versions and threads."""
    found = environment()
    listed = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{listed}; {found['threads']} thread(s)\n")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same keys as a Markdown table."""
    lines = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def write(path: Path | None, command: str, results: Mapping[str, Any]) -> None:
    """Write what was measured as JSON, if a path is given."""
    if path is not None:
        document = {"command": command, **environment(), **results}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " / ".join(_text(one) for one in value)
    return str(value)
