"""What a study folder holds, read strictly where it matters and tolerant of parts never run."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuroigc._files import read_json, reading
from neuroigc._validation import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EARLY_AREAS",
    "ELSEWHERE",
    "Study",
    "compact",
    "hash_file",
    "read_attribution",
    "read_study",
]

_TABLES = {
    # file: (text columns, number columns)
    "roi.tsv": (
        ("subject", "hemisphere", "atlas", "roi", "output"),
        ("igc", "standard_error", "n_vertices"),
    ),
    "prf.tsv": (
        ("subject", "hemisphere", "roi", "status"),
        ("vertex", "x_deg", "y_deg", "eccentricity_deg", "angle_deg", "size_deg", "r2"),
    ),
    "phantoms.tsv": (
        ("subject", "status"),
        ("phantom", "true_x_deg", "true_y_deg", "true_size_deg", "ncsnr", "quality"),
    ),
    "decoding.tsv": (("subject", "output"), ("r", "n_test")),
    "group.tsv": (
        ("hemisphere", "atlas", "roi", "output"),
        ("mean", "sd", "n_subjects", "t", "p", "p_fwe", "p_fdr"),
    ),
    "sanity.tsv": (
        ("subject", "output", "check", "light", "meaning"),
        ("value", "low", "high", "limit"),
    ),
}
_KEYS = {
    "roi.tsv": ["subject", "hemisphere", "atlas", "roi", "output"],
    "prf.tsv": ["subject", "hemisphere", "vertex"],
    "phantoms.tsv": ["subject", "phantom"],
    "decoding.tsv": ["subject", "output"],
    "group.tsv": ["hemisphere", "atlas", "roi", "output"],
    "sanity.tsv": ["subject", "output", "check"],
}
# Columns that need not be there, and hold numbers.
_OPTIONAL = {
    "roi.tsv": ("low", "high", "p", "p_fwe", "p_fdr"),
    "prf.tsv": ("encoder_r", "ridge_r", "noise_ceiling_r", "normalised_r"),
    "decoding.tsv": ("r_low", "r_high", "ridge_r", "ridge_r_low", "ridge_r_high"),
    "group.tsv": ("n_significant", "p_replication", "prevalence_low"),
}
# Whose rows belong to subjects, and to subjects only.
_OF_SUBJECTS = ("roi.tsv", "prf.tsv", "phantoms.tsv", "decoding.tsv")
_NOT_A_NUMBER = ("", "n/a", "nan", "NaN", "NA")
# What `neuroigc` fits receptive fields in unless it is told otherwise.
EARLY_AREAS = ("V1", "V2", "V3", "hV4")
ELSEWHERE = "elsewhere"
_RERUN = "Run the stage again that writes it."


@dataclass(frozen=True)
class Study:
    """The files of one study folder, as the report needs them.

    Attributes
    ----------
    folder : Path
        The study folder.
    summary : dict
        ``summary.json``.
    settings : dict
        ``study.toml`` as run; empty where there is none.
    tables : dict of str to DataFrame
        ``roi.tsv``, ``group.tsv``, ``decoding.tsv``, ``prf.tsv``, ``phantoms.tsv`` and
        ``sanity.tsv``, those that exist; missing numbers are NaN.
    maps : dict
        (subject, description, statistic), the first two compacted, to
        {"left": path, "right": path}.
    labels : dict
        Compacted subject to a list of {"left": path, "right": path}, one for each atlas.
    attributions : dict
        (compacted subject, "decoding" or "encoding") to the path of its .npz file.
    models : dict
        Model name to the content of its JSON file.
    """

    folder: Path
    summary: dict
    settings: dict = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    maps: dict[tuple[str, str, str], dict[str, Path]] = field(default_factory=dict)
    labels: dict[str, list[dict[str, Path]]] = field(default_factory=dict)
    attributions: dict[tuple[str, str], Path] = field(default_factory=dict)
    models: dict[str, dict] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the study calls itself."""
        about = self.summary.get("study", {})
        return str(about.get("title") or self.settings.get("title") or "neuroigc study")

    @property
    def simulated(self) -> bool:
        """Whether the data were invented, so that the truth is known."""
        return bool(self.summary.get("study", {}).get("simulated", False))

    @property
    def subjects(self) -> list[str]:
        """Subject labels, in the study's own order."""
        named = self.summary.get("study", {}).get("subjects") or []
        if named:
            return [str(subject) for subject in named]
        found = [self.tables[name]["subject"] for name in _OF_SUBJECTS if name in self.tables]
        return list(dict.fromkeys(subject for column in found for subject in column))

    @property
    def has_windows(self) -> bool:
        """Whether encoders gave each vertex a window of its own, and maps are of predictions."""
        return any(model.get("class") == "FieldEncoder" for model in self.models.values())

    @property
    def known_sizes(self) -> tuple[str, str]:
        """Whose sizes to draw beside, and where they are from.

        Sizes that the exponent has gone into are those of the compressive model.
        """
        if "phantoms.tsv" in self.tables:
            return "kay2013", "Kay and others (Journal of Neurophysiology 110:481, 2013)"
        return "wandell2015", "Wandell and Winawer (Trends in Cognitive Sciences 19:349, 2015)"

    @property
    def areas(self) -> list[str]:
        """The areas whose receptive fields are shown, in the study's own order."""
        prf = self.tables.get("prf.tsv")
        there = [] if prf is None else sorted(set(prf["roi"]) - {ELSEWHERE})
        asked = self.settings.get("encoding", {}).get("rois") or EARLY_AREAS
        return [area for area in asked if area in there] or there


def read_study(folder: str | Path) -> Study:
    """Read a study folder.

    Files are found by listing the folder, never by building a path out of a name that stands in
    a table, so that no name in the data can point elsewhere.

    Raises
    ------
    InputError
        If ``summary.json`` is missing, or a file that is there cannot be understood.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise InputError(
            "study_folder",
            expected="a folder with a summary.json, as `neuroigc run` leaves it",
            got=f"no summary.json in {folder}",
            fix="Run the study first, or name its folder.",
        )
    models = sorted((folder / "models").glob("*.json"))
    return Study(
        folder=folder,
        summary=_read_summary(folder / "summary.json"),
        settings=_read_settings(folder / "study.toml"),
        tables={name: _read_table(folder / name) for name in _TABLES if (folder / name).is_file()},
        maps=_find_maps(folder),
        labels=_find_labels(folder),
        attributions=_find_attributions(folder),
        models={path.stem: read_json(path, "a JSON object", fix=_RERUN) for path in models},
    )


def read_attribution(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of a saved attribution.

    Raises
    ------
    InputError
        If the file is damaged, or lacks one of them.
    """
    # Opened here, because numpy leaves the file open where it is no archive.
    with (
        reading(path, "a saved attribution (.npz)", fix=_RERUN),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return {name: arrays[name] for name in names}


def compact(name: str) -> str:
    """Return what BIDS file names leave of a name: letters and digits, here in lower case."""
    return re.sub(r"[^A-Za-z0-9]", "", name).lower()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_summary(path: Path) -> dict:
    summary = read_json(path, "a JSON object", fix=_RERUN)
    parts = {
        "study": summary.get("study"),
        "versions": summary.get("versions"),
        "encoding": summary.get("encoding"),
        "prf": summary.get("prf"),
        "decoding": summary.get("decoding"),
    }
    if isinstance(parts["decoding"], dict):
        parts |= {f"decoding.{name}": part for name, part in parts["decoding"].items()}
    for name, part in parts.items():
        if part is not None and not isinstance(part, dict):
            raise InputError(
                f"summary.json {name}", expected="an object", got=repr(part), fix=_RERUN
            )
    subjects = (parts["study"] or {}).get("subjects")
    if subjects is not None and not isinstance(subjects, list):
        raise InputError(
            "summary.json study.subjects", expected="a list", got=repr(subjects), fix=_RERUN
        )
    numbers = {
        f"{name}.{key}": value
        for name, part in parts.items()
        if name not in ("study", "versions", "decoding")
        for key, value in (part or {}).items()
    }
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(
                f"summary.json {name}", expected="a number or null", got=repr(value), fix=_RERUN
            )
    return {key: value for key, value in summary.items() if value is not None}


def _read_settings(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("study.toml", expected="valid TOML", got=str(error)) from error
    for name in ("data", "rois", "decoding", "encoding"):
        if not isinstance(settings.get(name, {}), dict):
            raise InputError(
                f"study.toml {name}", expected="a table", got=repr(settings[name]), fix=_RERUN
            )
    return settings


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    text, numbers = _TABLES[path.name]
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8")
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(
            path.name, expected="a table separated by tabs", got=str(error), fix=_RERUN
        ) from error
    missing = [name for name in (*text, *numbers) if name not in table]
    if missing:
        raise InputError(
            path.name,
            expected=f"columns {', '.join((*text, *numbers))}",
            got=f"no {', '.join(missing)}",
            fix=_RERUN,
        )
    numbers += _OPTIONAL.get(path.name, ())
    for name in table.columns.difference(text):
        column = table[name].mask(table[name].isin(_NOT_A_NUMBER))
        converted = pd.to_numeric(column, errors="coerce")
        bad = column.notna() & converted.isna()
        if bad.any() and name in numbers:
            raise InputError(
                f"{path.name} {name}", expected="numbers", got=repr(column[bad].iloc[0]), fix=_RERUN
            )
        if not bad.any():
            table[name] = converted
    doubled = table[table.duplicated(_KEYS[path.name])]
    if len(doubled):
        first = ", ".join(map(str, doubled.iloc[0][_KEYS[path.name]]))
        raise InputError(
            path.name,
            expected=f"one row for each {', '.join(_KEYS[path.name])}",
            got=f"{len(doubled)} repeated rows, the first for {first}",
            fix=_RERUN,
        )
    return table


_HEMISPHERES = {"L": "left", "R": "right"}
_MAP = re.compile(
    r"sub-(?P<subject>.+)_hemi-(?P<hemi>[LR])_.*desc-(?P<desc>[^_]+)_stat-(?P<stat>[^_]+)"
    r"_statmap\.shape\.gii"
)
_LABEL = re.compile(r"sub-(?P<subject>.+)_hemi-(?P<hemi>[LR])_(?P<rest>.*dseg)\.label\.gii")
_ATTRIBUTION = re.compile(r"sub-(?P<subject>.+)_(?P<kind>decoding|encoding)\.npz")


def _find_maps(folder):
    found: dict[tuple[str, str, str], dict[str, Path]] = {}
    for path in sorted(folder.glob("sub-*/*.shape.gii")):
        match = _MAP.fullmatch(path.name)
        if match:
            key = (compact(match["subject"]), compact(match["desc"]), match["stat"])
            found.setdefault(key, {})[_HEMISPHERES[match["hemi"]]] = path
    return {key: sides for key, sides in found.items() if len(sides) == 2}


def _find_labels(folder):
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted((folder / "labels").glob("*.label.gii")):
        match = _LABEL.fullmatch(path.name)
        if match:
            key = (compact(match["subject"]), match["rest"])
            found.setdefault(key, {})[_HEMISPHERES[match["hemi"]]] = path
    labels: dict[str, list[dict[str, Path]]] = {}
    for (subject, _), sides in found.items():
        if len(sides) == 2:
            labels.setdefault(subject, []).append(sides)
    return labels


def _find_attributions(folder):
    found = {}
    for path in sorted((folder / "attributions").glob("*.npz")):
        match = _ATTRIBUTION.fullmatch(path.name)
        if match:
            found[compact(match["subject"]), match["kind"]] = path
    return found
