"""Where the numbers come from, and nothing about the machine that computed them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from neuroigc.reporting.numbers import (
    format_duration,
    format_number,
    format_size,
    is_known,
    join_words,
)
from neuroigc.reporting.study import Study, hash_file

__all__ = ["describe_files", "describe_models", "describe_run", "describe_settings"]

_COUNTS = {
    "space": "Surface",
    "n_images": "Images",
    "n_held_out_images": "Held-out images",
    "n_vertices": "Vertices decoded from",
    "n_dropped_vertices": "Vertices left out (not finite, or constant in a session)",
}
_FOLDERS = {"root", "truth"}


def describe_run(study: Study) -> list[tuple[str, str]]:
    """List versions, seed, time, memory and counts, as (name, text)."""
    summary = study.summary
    rows = [
        ("neuroigc", summary.get("version", "not recorded")),
        *(summary.get("versions") or {}).items(),
        ("Seed", summary.get("seed", "not recorded")),
        ("Run time before this page", format_duration(summary.get("seconds"))),
        ("Peak memory", format_size(summary.get("peak_rss_mb"))),
        ("Subjects", join_words(study.subjects)),
        ("Data files", _data_files(study)),
    ]
    counts = summary.get("study", {})
    for key, label in _COUNTS.items():
        if key in counts:
            rows.append((label, _counts(counts[key])))
    return [(str(name), str(text)) for name, text in rows]


def _data_files(study):
    if study.simulated:
        return "simulated, so that no manifest applies"
    layout = study.settings.get("data", {}).get("layout")
    how = f"`neuroigc verify {layout} ROOT` does" if layout else "`neuroigc verify` does"
    return f"this run did not compare them with the manifest of their release; {how}"


def describe_files(study: Study) -> list[tuple[str, str]]:
    """List the tables and the settings that the page is made from, as (name, SHA-256)."""
    names = [*study.tables, "summary.json", "study.toml"]
    paths = [study.folder / name for name in names]
    return [(path.name, hash_file(path)) for path in paths if path.is_file()]


def _counts(value):
    if isinstance(value, dict):
        counts = {key: count for key, count in value.items() if count != 0}
        return ", ".join(f"subject {key}: {_counts(n)}" for key, n in counts.items()) or "none"
    return format_number(value, 0) if is_known(value) else str(value)


def describe_models(study: Study) -> list[dict]:
    """List the models' weights with their checksums, and whether these are still the same."""
    rows = []
    for path in sorted((study.folder / "models").glob("*.safetensors")):
        sha256 = hash_file(path)
        told = study.models.get(path.stem, {}).get("weights", {}).get("sha256", sha256)
        rows.append({"file": path.name, "sha256": sha256, "changed": told != sha256})
    return rows


def describe_settings(table: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, text) of all settings but folders, which belong to a machine."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from describe_settings(value, f"{prefix}{key}.")
        elif key not in _FOLDERS:
            values = value if isinstance(value, list) else [value]
            yield f"{prefix}{key}", ", ".join(_neutral(entry) for entry in values)


def _neutral(value):
    # A file given by its path keeps its name only.
    return PurePath(value.replace("\\", "/")).name if isinstance(value, str) else str(value)
