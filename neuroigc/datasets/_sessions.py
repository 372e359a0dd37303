"""Files of single trials: found, checked before any is read, read in part, standardised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuroigc._mgh import mgh_layout, read_mgh_columns
from neuroigc._progress import track
from neuroigc._validation import InputError
from neuroigc.datasets import _paths
from neuroigc.datasets._hdf5 import read_part
from neuroigc.datasets._moments import Moments
from neuroigc.datasets._paths import PREFIXES, SURFACE_VERTICES, StrPath
from neuroigc.datasets.arrays import whole_numbers

__all__ = ["BetaFile", "find_sessions", "open_sessions", "read_sessions", "source_space"]

TEMPLATE = "fsaverage"
# Betas on a subject's own surface are whole numbers of a 300th of a percent; those on a template
# are percent already.
NATIVE_SCALE = np.float32(300)
# Vertices of an HDF5 file that are read at once.
BLOCK_VERTICES = 4096
START_BYTES = 2**16


@dataclass(frozen=True)
class BetaFile:
    """A checked file of one session and hemisphere."""

    path: Path
    n_trials: int
    n_vertices: int

    @classmethod
    def open(cls, path: Path) -> BetaFile:
        """Read the header, and compare it with the size."""
        if path.suffix == ".mgh":
            layout = mgh_layout(path)
            return cls(path, layout.n_frames, layout.n_vertices)
        return cls(path, *_with_hdf5(path, lambda betas: betas.shape))

    def read(self, columns: npt.NDArray[np.int64], out: npt.NDArray[np.float32]) -> Iterator[slice]:
        """Read some vertices in percent signal change into ``out`` (n_trials, n_columns).

        Yields
        ------
        slice
            The trials that were read.
        """
        if self.path.suffix == ".mgh":
            yield from read_mgh_columns(self.path, columns, out)
        elif len(columns):
            _with_hdf5(self.path, lambda betas: _read_vertices(betas, columns, out))
            yield slice(0, self.n_trials)


def file_identity(path: Path, root: StrPath) -> dict[str, Any]:
    """Return path, size and a hash of the first 64 KiB, which cost next to nothing."""
    with path.open("rb") as file:
        start = hashlib.sha256(file.read(START_BYTES)).hexdigest()
    where = path.relative_to(root).as_posix()
    return {"path": where, "bytes": path.stat().st_size, "sha256_of_first_64_kib": start}


def source_space(root: StrPath, subject: str, space: str, beta_version: str) -> str:
    """Return the space whose files hold the betas in ``space``.

    The meshes of fsaverage nest: the first vertices of a finer one are the coarser one's.
    """
    nests = space in SURFACE_VERTICES and space != TEMPLATE
    if nests and not _paths.beta_folder(root, subject, space, beta_version).is_dir():
        return TEMPLATE
    return space


def find_sessions(
    root: StrPath, subject: str, space: str, beta_version: str
) -> dict[str, list[int]]:
    """Return the sessions that there are files of, for each hemisphere."""
    folder = _paths.beta_folder(root, subject, space, beta_version)
    suffix = _paths.beta_suffix(space)
    return {
        hemisphere: sorted(
            int(digits)
            for path in folder.glob(f"{prefix}.betas_session*{suffix}")
            if (digits := path.stem.removeprefix(f"{prefix}.betas_session")).isdecimal()
        )
        for hemisphere, prefix in PREFIXES.items()
    }


def open_sessions(
    root: StrPath, subject: str, space: str, beta_version: str, sessions: Sequence[int] | None
) -> dict[str, dict[int, BetaFile]]:
    """Check the files of all sessions before any is read; vertices and trials must agree."""
    found = find_sessions(root, subject, space, beta_version)
    if sessions is None:
        last = max(found["left"] + found["right"], default=0)
        if last == 0:
            raise _nothing_found(root, subject, space, beta_version)
        sessions = range(1, last + 1)
    expected = "distinct 1-based numbers in a sequence such as [1, 2] or range(1, 3)"
    sessions = whole_numbers("sessions", sessions, expected).tolist()
    if not sessions or len(set(sessions)) < len(sessions):
        raise InputError("sessions", expected=expected, got=f"{sessions}")
    files: dict[str, dict[int, BetaFile]] = {}
    for hemisphere in PREFIXES:
        files[hemisphere] = {}
        for session in sorted(sessions):
            path = _paths.beta_path(root, subject, space, beta_version, hemisphere, session)
            if not path.is_file():
                raise InputError(
                    "sessions",
                    expected=f"the file {path}",
                    got=f"no such file; {hemisphere} sessions there are {found[hemisphere]}",
                    fix="Obtain it, or name the sessions to use.",
                )
            files[hemisphere][session] = BetaFile.open(path)
    _check_sizes(files, space)
    return files


def _nothing_found(root: StrPath, subject: str, space: str, beta_version: str) -> InputError:
    folder = _paths.beta_folder(root, subject, space, beta_version)
    others = sorted(path.parent.name for path in folder.parent.glob("*/lh.betas_session01.*"))
    name = f"lh.betas_sessionNN{_paths.beta_suffix(space)}"
    return InputError(
        "root",
        expected=f"session files {name} in {folder}",
        got="none",
        fix=f"There are {', '.join(others)}." if others else "",
    )


def _check_sizes(files: Mapping[str, Mapping[int, BetaFile]], space: str) -> None:
    first_trials = next(iter(files["left"].values())).n_trials
    for by_session in files.values():
        expected = SURFACE_VERTICES.get(space, next(iter(by_session.values())).n_vertices)
        for file in by_session.values():
            if file.n_vertices != expected:
                raise InputError(
                    str(file.path),
                    expected=f"{expected} vertices, as {space} has",
                    got=f"{file.n_vertices}",
                )
            if file.n_trials != first_trials:
                raise InputError(
                    str(file.path),
                    expected=f"{first_trials} trials, as the other sessions have",
                    got=f"{file.n_trials}",
                )


def read_sessions(
    files: Mapping[int, Mapping[str, BetaFile]],
    columns: Mapping[str, npt.NDArray[np.int64]],
    *,
    progress: bool,
    label: str,
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Read and standardise sessions, the next one while the last is in use.

    Parameters
    ----------
    files : dict of int to dict of hemisphere to BetaFile
        By session.
    columns : dict of hemisphere to array of int
        The vertices to read.
    progress, label
        Whether a progress bar is shown, and what it is called.

    Yields
    ------
    session : int
    betas : array of shape (n_trials, n_columns), float32
        z-scored per vertex over the trials (SD with ddof = 0); the left hemisphere's vertices,
        then the right's. Where a number is not finite, or all are the same, NaN for all trials.
        To be let go of before the next is asked for, or three are in memory rather than two.
    """
    n_left, n_columns = len(columns["left"]), sum(map(len, columns.values()))

    def fill(file: BetaFile, hemisphere: str, part: npt.NDArray[np.float32]) -> None:
        seen = Moments(part)
        for block in file.read(columns[hemisphere], part):
            seen.add(block.stop)
        seen.standardise()

    with ThreadPoolExecutor(len(columns)) as pool:

        def begin(session: int) -> tuple[npt.NDArray[np.float32], list[Future[None]]]:
            own = files[session]
            betas = np.empty((own["left"].n_trials, n_columns), dtype=np.float32)
            parts = {"left": betas[:, :n_left], "right": betas[:, n_left:]}
            return betas, [pool.submit(fill, own[side], side, parts[side]) for side in parts]

        coming = [*files][1:]
        following = begin(next(iter(files))) if files else None
        # The progress bar keeps what it yields: numbers of sessions, not their data.
        for session in track(files, show=progress, label=label):
            betas, reading = following
            for part in reading:
                part.result()
            following = begin(coming.pop(0)) if coming else None
            yield session, betas
            del betas


def _with_hdf5(path: Path, use: Any) -> Any:
    """Call ``use`` with the checked betas of a subject's own surface."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            betas = file.get("betas")
            shape, dtype = getattr(betas, "shape", None), getattr(betas, "dtype", None)
            if shape is None or len(shape) != 2 or 0 in shape or dtype != np.int16:
                raise InputError(
                    str(path),
                    expected="betas, int16 of shape (n_trials, n_vertices) as Python sees it",
                    got="none" if shape is None else f"{dtype} of shape {shape}",
                )
            return use(betas)
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            str(path), expected="a whole HDF5 file", got=f"{error}", fix="Obtain it again."
        ) from error


def _read_vertices(
    betas: Any, columns: npt.NDArray[np.int64], out: npt.NDArray[np.float32]
) -> None:
    """Read a range of vertices after the other: each has all its trials in one chunk."""
    for start in range(int(columns[0]), int(columns[-1]) + 1, BLOCK_VERTICES):
        first, last = np.searchsorted(columns, [start, start + BLOCK_VERTICES])
        if first < last:
            block = read_part(betas, slice(None), slice(start, start + BLOCK_VERTICES))
            np.divide(block[:, columns[first:last] - start], NATIVE_SCALE, out=out[:, first:last])
