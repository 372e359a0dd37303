"""Where things lie in the release layout of the Natural Scenes Dataset, said once."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from neuroigc._validation import InputError

__all__ = [
    "BETA_VERSION",
    "NATIVE",
    "PREFIXES",
    "SURFACE_VERTICES",
    "beta_folder",
    "beta_path",
    "beta_suffix",
    "design_path",
    "is_inside",
    "label_folder",
    "ncsnr_path",
    "path_inside",
    "stim_info_path",
    "stimuli_path",
    "subject_label",
]

PREFIXES = {"left": "lh", "right": "rh"}
HEMISPHERES = tuple(PREFIXES)
SURFACE_VERTICES = {"fsaverage": 163842, "fsaverage6": 40962, "fsaverage5": 10242}
# What lies on a subject's own surface, and how its betas are kept.
NATIVE, NATIVE_SUFFIX = "nativesurface", ".hdf5"
BETA_VERSION = "betas_fithrf_GLMdenoise_RR"

StrPath = str | os.PathLike[str]


def subject_label(subject: int | str) -> str:
    """Return the two-digit label of 1, "1", "01", "subj01" or "sub-01"."""
    match = re.fullmatch(r"(?:subj?-?)?0*([1-9][0-9]*)", str(subject))
    if match is None:
        raise InputError("subject", expected="a number such as 1 or 'subj01'", got=repr(subject))
    return f"{int(match[1]):02d}"


def beta_folder(root: StrPath, subject: int | str, space: str, beta_version: str) -> Path:
    """Return the folder with one subject's betas in one space."""
    subject = f"subj{subject_label(subject)}"
    return Path(root) / "nsddata_betas" / "ppdata" / subject / space / beta_version


def beta_path(
    root: StrPath, subject: int | str, space: str, beta_version: str, hemisphere: str, session: int
) -> Path:
    """Return the file with one session's betas of one hemisphere."""
    name = f"{PREFIXES[hemisphere]}.betas_session{session:02d}{beta_suffix(space)}"
    return beta_folder(root, subject, space, beta_version) / name


def beta_suffix(space: str) -> str:
    """Return how the names of files with betas end in a space."""
    return NATIVE_SUFFIX if space == NATIVE else ".mgh"


def ncsnr_path(
    root: StrPath, subject: int | str, space: str, beta_version: str, hemisphere: str
) -> Path:
    """Return the file with the noise ceiling signal-to-noise ratio of one hemisphere."""
    folder = beta_folder(root, subject, space, beta_version)
    return folder / f"{PREFIXES[hemisphere]}.ncsnr.mgh"


def design_path(root: StrPath) -> Path:
    """Return the file that says which image was shown on which trial."""
    return Path(root) / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"


def stim_info_path(root: StrPath) -> Path:
    """Return the table of all images."""
    return Path(root) / "nsddata" / "experiments" / "nsd" / "nsd_stim_info_merged.csv"


def stimuli_path(root: StrPath) -> Path:
    """Return the file with the pixels of all images."""
    return Path(root) / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"


def label_folder(root: StrPath, owner: str) -> Path:
    """Return the folder with the surface labels of ``owner``, a template or a subject."""
    return Path(root) / "nsddata" / "freesurfer" / owner / "label"


def is_inside(name: str) -> bool:
    """Tell whether a relative path with forward slashes stays below where it starts."""
    pure, windows = PurePosixPath(name), PureWindowsPath(name)
    return bool(pure.parts) and not (
        pure.is_absolute()
        or windows.drive
        or windows.root
        or ".." in pure.parts
        or "\\" in name
        or re.search(r"[{}\0]", name)
    )


def path_inside(root: Path, name: str, argument: str) -> Path:
    """Return the path of ``name`` below ``root``; neither it nor a link may lead out.

    Raises
    ------
    InputError
        If it does.
    """
    path = root / name
    if not is_inside(name) or not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            argument,
            expected=f"a relative path that stays inside {root}",
            got=repr(name),
            fix="Copy or move the file there.",
        )
    return path
