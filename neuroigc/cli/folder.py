"""The study folder: where each stage reads and writes, and which stages are done."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import neuroigc
from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError
from neuroigc.cli.config import StudyConfig, dump_config, load_config

__all__ = ["SIMULATE", "STAGES", "StudyFolder"]

# A demo's data are made before the stages of any study.
SIMULATE = "simulate"
STAGES = ("prepare", "train", "attribute", "roi", "prf", "report")

_OUTPUTS = {
    "prepare": ("prepared/*", "labels/*"),
    "train": ("models/*",),
    "attribute": ("attributions/*",),
    "roi": ("roi.tsv", "decoding.tsv", "sub-*/*_stat-igc_*"),
    "prf": ("prf.tsv", "sub-*/*_desc-prf_*"),
    "report": ("report.html", "summary.json", "figures/*"),
}


class StudyFolder:
    """Paths inside a study folder, and the record of the stages that were run in it."""

    def __init__(self, path: str | Path, config: StudyConfig) -> None:
        self.path = Path(path)
        self.config = config

    @classmethod
    def create(cls, path: str | Path, config: StudyConfig, *, resume: bool = False) -> StudyFolder:
        """Make the folder and write study.toml; a folder already in use needs ``resume``."""
        path = make_output_folder(path)
        if (path / "study.toml").exists() and not resume:
            raise InputError(
                "--out",
                expected="a folder without a study",
                got=f"{path}, which holds one",
                fix="Add --resume to go on with it, or choose another folder.",
            )
        with atomic_path(path / "study.toml") as temporary:
            temporary.write_text(dump_config(config, path.resolve()), encoding="utf-8")
        return cls(path, config)

    @classmethod
    def open(cls, path: str | Path) -> StudyFolder:
        """Open a folder that `create` made."""
        path = Path(path)
        if not (path / "study.toml").is_file():
            raise InputError(
                "DIR",
                expected="a study folder, with a study.toml in it",
                got=str(path),
                fix="Start one with `neuroigc prepare STUDY.toml --out DIR`.",
            )
        return cls(path, load_config(path / "study.toml"))

    def file(self, *parts: str) -> Path:
        """Return the path of a file inside, and make its folder."""
        path = self.path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def prepared(self, subject: str) -> Path:
        """Responses of one subject."""
        return self.file("prepared", f"sub-{subject}.npz")

    def images(self, subject: str) -> Path:
        """Grey images that one subject saw, at the encoder's size."""
        return self.file("prepared", f"sub-{subject}_images.npy")

    @property
    def features(self) -> Path:
        """Features of every image, and which images are held out."""
        return self.file("prepared", "features.tsv")

    def model(self, name: str) -> Path:
        """Prefix of a model's two files."""
        return self.file("models", name)

    def attribution(self, subject: str, kind: str) -> Path:
        """Integrated gradient correlation of one subject."""
        return self.file("attributions", f"sub-{subject}_{kind}.npz")

    def _marker(self, stage: str) -> Path:
        return self.file("stages", f"{stage}.json")

    def record(self, stage: str) -> dict:
        """Return what is known of ``stage``: its key, state, seconds and peak memory."""
        try:
            record = json.loads(self._marker(stage).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    @property
    def key(self) -> str:
        """Changes whenever the version or a setting does, so that nothing stale is reused."""
        settings = dump_config(self.config, self.path.resolve())
        return hashlib.sha256(f"{neuroigc.__version__}\n{settings}".encode()).hexdigest()

    def is_done(self, stage: str) -> bool:
        """Tell whether ``stage`` ended well under the present settings."""
        record = self.record(stage)
        return record.get("state") == "done" and record.get("key") == self.key

    def require(self, stage: str) -> None:
        """Raise unless ``stage`` is done."""
        if not self.is_done(stage):
            raise InputError(
                "DIR",
                expected=f"a study whose stage {stage!r} is done",
                got=f"{self.path}, where it is not, or was run with other settings",
                fix=f"Run `neuroigc {stage}` first, or `neuroigc run --resume`.",
            )

    @contextmanager
    def reading(self, stage: str, path: Path) -> Iterator[None]:
        """Turn whatever is wrong with a file of ``stage`` into one clear error."""
        try:
            yield
        except InputError:
            raise
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                str(path),
                expected=f"a whole file, as the stage {stage!r} leaves it",
                got=str(error) or type(error).__name__,
                fix=f"Run `neuroigc {stage}` again.",
            ) from error

    @contextmanager
    def running(self, stage: str) -> Iterator[bool]:
        """Keep the record of ``stage`` around its work.

        Yields whether files of an interrupted run with the same settings may be kept.
        """
        before = self.record(stage)
        keep = before.get("state") == "running" and before.get("key") == self.key
        if not keep:
            self._clear(stage)
        record = {"key": self.key, "state": "running"}
        self._write_marker(stage, record)
        # What was built on an earlier run of this stage is stale from here on.
        for later in STAGES[STAGES.index(stage) + 1 if stage in STAGES else 0 :]:
            self._marker(later).unlink(missing_ok=True)
        start = time.monotonic()
        yield keep
        record["state"] = "done"
        record["seconds"] = time.monotonic() - start
        record["peak_rss_mb"] = _peak_rss_mb()
        self._write_marker(stage, record)

    def _clear(self, stage):
        """Remove what an earlier run of a stage left, lest a part no longer asked for stays."""
        for pattern in _OUTPUTS.get(stage, ()):
            for path in self.path.glob(pattern):
                if path.is_file():
                    path.unlink()

    def _write_marker(self, stage, record):
        with atomic_path(self._marker(stage)) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")


def _peak_rss_mb():
    # The unit is kilobytes on Linux and bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
