"""What `neuroigc verify` looks for, and how it says what it found."""

from __future__ import annotations

import math
from pathlib import Path

from neuroigc._validation import InputError
from neuroigc.cli.config import load_config
from neuroigc.datasets._paths import BETA_VERSION, PREFIXES, label_folder
from neuroigc.datasets._sessions import source_space
from neuroigc.datasets.manifest import FileEntry, load_manifest, verify
from neuroigc.datasets.requirements import require_algonauts, require_nsd

__all__ = ["verify_and_print"]

GOOD = ("ok", "unverified")
# More files of one kind with the same fault are counted only.
MOST_LINES = 6
LAYOUTS = {"nsd": "nsd", "algonauts": "algonauts2023"}


def verify_and_print(options) -> bool:
    """Print what is there and what is not; return whether all that is needed is."""
    if options.dataset == "arrays":
        return _verify_arrays(options.root)
    files = _required(options)
    statuses = verify(
        options.dataset, options.root, files=files, deep=options.deep, progress=not options.quiet
    )
    entries = {entry.path: entry for entry in files or load_manifest(options.dataset).files}
    groups: dict[tuple[str, str], list] = {}
    for status in statuses:
        entry = entries[status.path]
        groups.setdefault((entry.part or "common", entry.role), []).append(status)
    _print_files(groups, every=len(statuses) <= 40 or options.deep)
    _print_table(groups, entries)
    n_bad = sum(status.state not in GOOD for status in statuses)
    print(f"{len(statuses) - n_bad} of {len(statuses)} files are there and fit")
    return not n_bad and bool(statuses)


def _required(options):
    """Return the files that the options ask for, or None for the manifest's."""
    given = {
        name: getattr(options, name)
        for name in ("subjects", "sessions", "space", "beta_version")
        if getattr(options, name) is not None
    }
    labels, classes, invented = (), None, False
    if options.study is not None:
        if given:
            raise InputError(
                "--study", expected="no other choice beside it", got=f"also {', '.join(given)}"
            )
        config = load_config(options.study)
        if LAYOUTS.get(config.data.layout) != options.dataset:
            raise InputError(
                "DATASET",
                expected=LAYOUTS.get(config.data.layout, config.data.layout),
                got=options.dataset,
                fix=f"{options.study} has layout = {config.data.layout!r}.",
            )
        data = config.data
        given = {"subjects": data.subjects, "sessions": data.sessions, "space": data.space}
        given["beta_version"] = data.beta_version
        mask = "nsdgeneral" if data.mask is None else data.mask
        labels = [name for name in (mask,) if name != "all" and "{" not in name]
        classes = config.rois.atlases
        invented = data.truth
    if not given:
        return None
    if "subjects" not in given:
        raise InputError("--subjects", expected="the subjects to look for", got="none")
    if options.dataset == "nsd":
        given = _files_of(options.root, given)
        files = require_nsd(**given, labels=labels, invented=invented)
        return files + _areas(options.root, given, classes or ())
    if options.dataset == "algonauts2023":
        return require_algonauts(subjects=given["subjects"], classes=classes, invented=invented)
    raise InputError(
        "DATASET",
        expected="nsd or algonauts2023, of which parts can be chosen",
        got=options.dataset,
    )


def _files_of(root, given):
    """Return what is asked for with the space of the files that hold it: fsaverage's nest."""
    if "space" not in given:
        return given
    version = given.get("beta_version", BETA_VERSION)
    spaces = {source_space(root, str(s), given["space"], version) for s in given["subjects"]}
    # Where some subject has files of its own in this space, all are to.
    return given if given["space"] in spaces else given | {"space": spaces.pop()}


def _areas(root, given, atlases):
    """Return the labels of each subject, or the group's where the subject has none."""
    found = {}
    for name in atlases:
        if "{" in name:
            continue
        for subject in given["subjects"]:
            owners = (f"subj{subject}", given["space"])
            folders = [label_folder(Path(), owner) for owner in owners]
            names = [f"{prefix}.{name}.mgz" for prefix in PREFIXES.values()]
            own = (root / folders[0] / names[0]).is_file()
            folder, part = (folders[0], owners[0]) if own else (folders[1], "")
            for path in (*(folder / file for file in names), folder / f"{name}.mgz.ctab"):
                found[path.as_posix()] = FileEntry(path.as_posix(), "atlas", part)
    return list(found.values())


def _print_files(groups, *, every):
    for statuses in groups.values():
        shown = {}
        for status in statuses:
            if status.state in GOOD and not every:
                continue
            shown[status.state] = shown.get(status.state, 0) + 1
            if shown[status.state] <= MOST_LINES or status.state in GOOD:
                print(f"{status.state:<10}  {status.path}  {status.detail}".rstrip())
        for state, n in shown.items():
            if n > MOST_LINES and state not in GOOD:
                print(f"{state:<10}  and {n - MOST_LINES} more of these")


def _print_table(groups, entries):
    """Print one line for each part and kind of file."""
    rows = [("part", "kind", "files", "there", "missing", "damaged", "GB there", "GB missing")]
    totals = [0, 0, 0, 0, 0.0, 0.0]
    for (part, role), statuses in groups.items():
        missing = [status for status in statuses if status.state == "missing"]
        n_damaged = sum(status.state not in (*GOOD, "missing") for status in statuses)
        numbers = [
            len(statuses),
            len(statuses) - len(missing),
            len(missing),
            n_damaged,
            sum(status.n_bytes for status in statuses) / 1e9,
            sum(_size(entries[status.path]) for status in missing) / 1e9,
        ]
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        rows.append((part, role, *_texts(numbers)))
    rows.append(("total", "", *_texts(totals)))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    print()
    for row in rows:
        cells = [
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells))
    print()


def _texts(numbers):
    return [f"{n:.3f}" if isinstance(n, float) else str(n) for n in numbers]


def _size(entry):
    """Return about how many bytes a file takes, 0 where nothing is known."""
    if entry.bytes or entry.min_bytes:
        return entry.bytes or entry.min_bytes
    known = all(isinstance(n, int) for n in entry.shape) and not entry.path.endswith("/")
    if not (known and entry.shape and entry.dtype):
        return 0
    return math.prod(entry.shape) * {"uint8": 1, "int16": 2}.get(entry.dtype, 4)


def _verify_arrays(root):
    """Load a folder with a dataset.toml, which compares all that there is to compare."""
    from neuroigc.datasets import load_arrays

    data = load_arrays(root)
    print(f"ok          {root}: responses {data.responses.shape}, targets {data.targets.shape}")
    return True
