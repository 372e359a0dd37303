"""The study folder: where each stage reads and writes, and which stages are done."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import neuroigc
from neuroigc._files import atomic_path, make_output_folder, writing_alone
from neuroigc._validation import InputError
from neuroigc.cli.config import StudyConfig, dump_config, load_config

__all__ = ["SIMULATE", "STAGES", "StudyFolder"]

# A demo's data are made before the stages of any study.
SIMULATE = "simulate"
STAGES = ("prepare", "train", "attribute", "roi", "prf", "report")

_OUTPUTS = {
    "prepare": ("prepared/*", "labels/*"),
    "train": ("models/*",),
    "attribute": ("attributions/*", "sums/*"),
    "roi": (
        *("roi.*", "group.*", "decoding.*", "sanity.*", "sanity/*"),
        *("sub-*/*_stat-igc_*", "sub-*/*_stat-z_*", "sub-*/*_stat-p*_*"),
    ),
    "prf": ("prf.*", "phantoms.*", "sub-*/*_desc-prf_*"),
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
        """Folder of one subject's responses."""
        return self.file("prepared", f"sub-{subject}")

    @property
    def images(self) -> Path:
        """Folder of the grey images that subjects with an encoder saw, at its size."""
        return self.file("prepared", "images")

    @property
    def features(self) -> Path:
        """Features of every image, and which images are held out."""
        return self.file("prepared", "features.tsv")

    def model(self, name: str) -> Path:
        """Prefix of a model's two files."""
        return self.file("models", name)

    def phantoms(self, subject: str) -> Path:
        """Phantom vertices that the subject's encoder was trained with."""
        return self.file("models", f"phantoms_sub-{subject}.npz")

    def training(self, name: str) -> Path:
        """File of the training of a model, as long as it goes on."""
        return self.file("models", f"{name}_training.safetensors")

    def forget_training(self, name: str) -> None:
        """Remove what is left of the training of a model that was made."""
        path = self.training(name)
        for own in (path, *path.parent.glob(f".{path.stem}-*")):
            own.unlink(missing_ok=True)

    def scores(self, subject: str) -> Path:
        """Scores of the decoder, and of a linear one, on a subject's held-out images."""
        return self.file("models", f"scores_sub-{subject}.tsv")

    def attribution(self, subject: str, kind: str) -> Path:
        """Integrated gradient correlation of one subject."""
        return self.file("attributions", f"sub-{subject}_{kind}.npz")

    def sums(self, subject: str, name: str) -> Path:
        """File of the sums so far of an attribution; processes add to the name."""
        return self.file("sums", f"sub-{subject}_{name}.npz")

    def forget_sums(self, subject: str, name: str) -> None:
        """Remove the sums of an attribution that was made."""
        path = self.sums(subject, name)
        for own in (path, *path.parent.glob(f"{path.stem}-*of*.npz")):
            own.unlink(missing_ok=True)

    def shard(self, subject: str, kind: str, number: int, size: int) -> Path:
        """File of one job's sums for an attribution."""
        return self.file("shards", f"sub-{subject}_{kind}_{number}of{size}.npz")

    def finished_shards(self) -> int:
        """Return how many shards the attributions were cut into, if all of them are done."""
        done: dict[int, set[int]] = {}
        for marker in self._marker(STAGES[0]).parent.glob("attribute-*of*.json"):
            match = re.fullmatch(r"attribute-(\d+)of(\d+)", marker.stem)
            if match and self.is_done(marker.stem):
                done.setdefault(int(match[2]), set()).add(int(match[1]))
        missing = {n: sorted({*range(1, n + 1)} - numbers) for n, numbers in done.items()}
        if not missing:
            raise InputError(
                "DIR",
                expected="a study with shards of its attributions",
                got=f"{self.path}, where none is done, or with other settings",
                fix="Run `neuroigc attribute DIR --shard i/n` for every i from 1 to n.",
            )
        n = min(missing, key=lambda n: (len(missing[n]), n))
        if missing[n]:
            raise InputError(
                "DIR",
                expected=f"all {n} shards of the attributions",
                got=f"none of number {', '.join(map(str, missing[n]))}",
                fix=f"Run `neuroigc attribute DIR --shard {missing[n][0]}/{n}`, then merge again.",
            )
        return n

    def forget_shards(self) -> None:
        """Remove the shards, which were merged."""
        for folder, pattern in (("shards", "*.npz"), ("stages", "attribute-*of*.json")):
            for path in (self.path / folder).glob(pattern):
                path.unlink()

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

        Yields whether files of an interrupted run with the same settings may be kept. Nobody else
        runs the same stage meanwhile; shards are stages of their own here.
        """
        lock = self._marker(stage).with_name(f".{stage}.lock").relative_to(self.path)
        with writing_alone(self.path, "DIR", name=str(lock)):
            yield from self._running(stage)

    def _running(self, stage):
        before = self.record(stage)
        keep = before.get("state") == "running" and before.get("key") == self.key
        if not keep:
            self._clear(stage)
        record = {"key": self.key, "state": "running"}
        self._write_marker(stage, record)
        # What was built on an earlier run of this stage is stale from here on.
        for later in self._later_markers(stage):
            later.unlink(missing_ok=True)
        start = time.monotonic()
        yield keep
        record["state"] = "done"
        record["seconds"] = time.monotonic() - start
        record["peak_rss_mb"] = _peak_rss_mb()
        self._write_marker(stage, record)

    def _later_markers(self, stage):
        is_shard = stage.startswith("attribute-")
        first = STAGES.index(stage) + 1 if stage in STAGES else 0
        # Shards are merged into the stage that they are of.
        first = STAGES.index("attribute") if is_shard else first
        markers = [self._marker(later) for later in STAGES[first:]]
        if "attribute" in STAGES[first:] and not is_shard:
            markers += markers[0].parent.glob("attribute-*of*.json")
        return markers

    def _clear(self, stage):
        """Remove what an earlier run of a stage left, lest a part no longer asked for stays."""
        patterns = _OUTPUTS.get(stage, ())
        if stage.startswith("attribute-"):
            part = stage.removeprefix("attribute-")
            number, _, size = part.partition("of")
            patterns = (f"shards/*_{part}.npz", f"sums/*_job-{number}-*of{size}.npz")
        for pattern in patterns:
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _write_marker(self, stage, record):
        with atomic_path(self._marker(stage)) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")


def _peak_rss_mb():
    # The unit is kilobytes on Linux and bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
