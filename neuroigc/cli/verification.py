"""What `neuroigc verify` looks for, and how it says what it found."""

from __future__ import annotations

import math
from pathlib import Path

from neuroigc._mgh import read_mgh
from neuroigc._progress import track
from neuroigc._validation import InputError
from neuroigc.cli.config import load_config
from neuroigc.datasets import SubjectData, load_image_cache
from neuroigc.datasets._design import Design
from neuroigc.datasets._paths import BETA_VERSION, PREFIXES, SURFACE_VERTICES, label_folder
from neuroigc.datasets._sessions import TEMPLATE, source_space
from neuroigc.datasets._work import WORK
from neuroigc.datasets.array_folder import DATASET_FILE
from neuroigc.datasets.manifest import FileEntry, load_manifest, verify
from neuroigc.datasets.requirements import require_algonauts, require_nsd
from neuroigc.datasets.store import check_numbers, read_description

__all__ = ["verify_and_print"]

GOOD = ("ok", "unverified")
# More files of one kind with the same fault are counted only.
MOST_LINES = 6
# What is prepared, by the name of its description, and how it is loaded.
STORES = {"images": load_image_cache, "subject": SubjectData.load}
# What lies where a store was begun, its description or not.
TRACES = (WORK, "images.npy", "vertices_left.npy")
LAYOUTS = {"nsd": "nsd", "algonauts": "algonauts2023"}


def verify_and_print(options) -> bool:
    """Print what is there and what is not; return whether all that is needed is."""
    if options.dataset == "arrays":
        return _verify_arrays(options.root)
    if options.dataset == "prepared":
        return _verify_prepared(options.root, deep=options.deep, progress=not options.quiet)
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
    bad = [status for status in statuses if status.state not in GOOD]
    print(f"{len(statuses) - len(bad)} of {len(statuses)} files are there and fit")
    needed = [status for status in bad if not _can_be_spared(status, entries[status.path])]
    if len(needed) < len(bad):
        print("Without its files the noise ceiling is estimated from images with three trials")
    return not needed and bool(statuses)


def _can_be_spared(status, entry):
    return status.state == "missing" and entry.role == "noise ceiling"


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
        files = _nsd_files(options.root, given, labels, invented)
        return files + _areas(options.root, given, classes or (), invented)
    if options.dataset == "algonauts2023":
        return require_algonauts(subjects=given["subjects"], classes=classes, invented=invented)
    raise InputError(
        "DATASET",
        expected="nsd or algonauts2023, of which parts can be chosen",
        got=options.dataset,
    )


def _nsd_files(root, given, labels, invented):
    """Return what a study needs of the release, where coarser templates are part of fsaverage."""
    space = given.get("space", TEMPLATE)
    if invented and given.get("sessions") is None:
        given = {**given, "sessions": _planned_sessions(root)}
    found = {}
    for subject in given["subjects"]:
        source = source_space(root, subject, space, given.get("beta_version", BETA_VERSION))
        wanted = {**given, "subjects": [subject], "space": source}
        found |= {entry.path: entry for entry in require_nsd(**wanted, invented=invented)}
    for name in labels:
        owner = _owner_of_labels(root, space, name, invented)
        entries = require_nsd(subjects=[], space=owner, labels=[name])
        found |= {entry.path: entry for entry in entries if entry.role == "atlas"}
    return list(found.values())


def _planned_sessions(root):
    """Return how many sessions the design of invented data has; 1 where it does not say."""
    try:
        planned = Design.read(root).planned_trials
    except InputError:  # which is told of the file itself
        return 1
    return 1 if planned is None else len(planned)


def _owner_of_labels(root, space, name, invented):
    """Return the template whose labels are used; the release has those of fsaverage alone."""
    there = {owner: label_folder(root, owner) / f"lh.{name}.mgz" for owner in (space, TEMPLATE)}
    nests = space in SURFACE_VERTICES and not there[space].is_file()
    return TEMPLATE if nests and (there[TEMPLATE].is_file() or not invented) else space


def _areas(root, given, atlases, invented):
    """Return the labels of each subject, or the group's where the subject has none."""
    found = {}
    for name in atlases:
        if "{" in name:
            continue
        for subject in given["subjects"]:
            group = _owner_of_labels(root, given["space"], name, invented)
            owners = (f"subj{subject}", group)
            folders = [label_folder(Path(), owner) for owner in owners]
            names = [f"{prefix}.{name}.mgz" for prefix in PREFIXES.values()]
            own = _is_of(root / folders[0] / names[0], given["space"])
            folder, part = (folders[0], owners[0]) if own else (folders[1], "")
            for path in (*(folder / file for file in names), folder / f"{name}.mgz.ctab"):
                found[path.as_posix()] = FileEntry(path.as_posix(), "atlas", part)
    return list(found.values())


def _is_of(path, space):
    """Tell whether labels are there and, unless they are damaged, lie on a template."""
    try:
        return path.is_file() and read_mgh(path).size == SURFACE_VERTICES.get(space)
    except InputError:
        return True


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
    totals, any_unknown = [0, 0, 0, 0, 0.0, 0.0], False
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
        is_unknown = any(not _size(entries[status.path]) for status in missing)
        any_unknown |= is_unknown
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        rows.append((part, role, *_texts(numbers, is_unknown)))
    rows.append(("total", "", *_texts(totals, any_unknown)))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    print()
    for row in rows:
        cells = [
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells))
    if any_unknown:
        print("> and files besides whose size is not known")
    print()


def _texts(numbers, is_unknown):
    """Return numbers as text, the last with a > if files of unknown size come on top."""
    texts = [f"{n:.3f}" if isinstance(n, float) else str(n) for n in numbers]
    return [*texts[:-1], ">" * is_unknown + texts[-1]]


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


def _verify_prepared(root, *, deep, progress):
    """Check what `neuroigc prepare` left below a folder; with ``deep``, every number of it."""
    n_files = n_bad = 0
    stores = [(path.parent, path.stem) for kind in STORES for path in root.rglob(f"{kind}.json")]
    for folder, kind in sorted(stores):
        try:
            STORES[kind](folder)
            names = read_description(folder, kind)["arrays"]
        except InputError as error:
            print(f"corrupt     {error}")
            n_files, n_bad = n_files + 1, n_bad + 1
            continue
        n_files += len(names)
        for name in track(names, show=progress and deep, label=folder.name):
            path, found = folder / f"{name}.npy", "size fits"
            try:
                if deep:
                    found = f"read whole: {check_numbers(folder, kind, name):,} bytes as written"
            except InputError as error:
                n_bad += 1
                print(f"corrupt     {error}")
            else:
                print(f"ok          {path.relative_to(root)}  {found}")
    unfinished = _unfinished(root) - {folder for folder, _ in stores}
    for folder in sorted(unfinished):
        n_files, n_bad = n_files + 1, n_bad + 1
        print(f"unfinished  {folder}  prepare again, with --resume")
    if not n_files:
        raise InputError(
            "ROOT",
            expected="a folder that `neuroigc prepare` wrote to",
            got=f"{root}, with no {' or '.join(f'{kind}.json' for kind in STORES)} in it",
        )
    print(f"{n_files - n_bad} of {n_files} files are there and fit")
    return not n_bad


def _unfinished(root):
    """Return the folders in which a store was begun, or has lost its description."""
    begun = {path.parent for name in TRACES for path in root.rglob(name)}
    return {folder for folder in begun if not (folder / DATASET_FILE).exists()}
