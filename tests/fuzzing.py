"""Files of every reader, ways to damage them, and a verdict on what a reader then returns.

A reader may return the right data or one InputError. Where a format has no checksum, bytes of the
data themselves may change the numbers that they are, one for one, and nothing can tell: that is
counted by itself. All else is a fault: another exception, other shapes or types, or more numbers
changed than bytes.
"""

import dataclasses
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import torch
from nibabel import cifti2
from nibabel.freesurfer import write_annot
from nibabel.gifti import GiftiDataArray, GiftiImage
from PIL import Image

from neuroigc._array_files import open_npy
from neuroigc._mgh import open_mgh
from neuroigc._validation import InputError
from neuroigc._vertex_files import read_map, read_maps
from neuroigc.attribution import IGCResult
from neuroigc.attribution.checkpoint import load_state, save_state
from neuroigc.attribution.result_folder import MAPS
from neuroigc.cli.config import load_config
from neuroigc.datasets import SubjectData, load_arrays, load_manifest, load_mnist, save_arrays
from neuroigc.datasets._mappings import read_mapping
from neuroigc.datasets._mat5 import read_mat
from neuroigc.datasets._png import read_png
from neuroigc.datasets.layouts import write_experiment, write_stimuli
from neuroigc.datasets.stimuli import load_nsd_images
from neuroigc.datasets.store import check_numbers
from neuroigc.models.checkpoints import load_checkpoint, save_checkpoint
from neuroigc.prf import PRFResult
from neuroigc.surface import SurfaceMap, load_atlas
from neuroigc.surface.annotations import read_annotation
from neuroigc.surface.atlas import check_named
from neuroigc.surface.cifti import read_cifti
from neuroigc.surface.files import read_labels, write_label_gifti
from neuroigc.surface.tables import read_color_table

RIGHT, REFUSED, CHANGED, FAULT = "right data", "clear error", "other numbers", "fault"
N, T = 40, 6


@dataclass(frozen=True)
class Case:
    """One reader.

    ``checked`` formats hold checksums of their data. Of ``text``, which says what it says, any
    valid reading of changed text is right. ``reach`` numbers may change with one byte that is
    part of two numbers, of a vertex's index, or of a block's address.
    """

    make: Callable[[Path, np.random.Generator], None]
    read: Callable[[Path], object]
    checked: bool = False
    text: bool = False
    reach: int = 1
    files: str = "*"


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Return content with a few bytes changed, a part missing, doubled or blanked."""
    size = len(content)
    if not size:
        return b"\x00"
    kind = rng.choice(["bytes", "bit", "head", "cut", "more", "blank", "lost", "twice"], p=P_KINDS)
    damaged = bytearray(content)
    if kind in ("bytes", "head"):
        # Headers are small parts of files, and of the damage most should be done there.
        end = min(size, 400) if kind == "head" else size
        for place in rng.integers(0, end, rng.integers(1, 4)):
            damaged[place] = rng.choice([rng.integers(256), 0, 255, damaged[place] ^ 1])
    elif kind == "bit":
        damaged[rng.integers(min(size, 400) if rng.random() < 0.5 else size)] ^= 1 << rng.integers(
            8
        )
    elif kind == "cut":
        return content[: rng.integers(0, size)]
    elif kind == "more":
        return content + rng.bytes(rng.integers(1, 64))
    else:
        start, length = rng.integers(0, size), rng.integers(1, 40)
        part = content[start : start + length]
        middle = {"blank": bytes(len(part)), "lost": b"", "twice": part * 2}[kind]
        return content[:start] + middle + content[start + length :]
    return bytes(damaged)


P_KINDS = [0.2, 0.15, 0.3, 0.1, 0.05, 0.1, 0.05, 0.05]


def judge(case: Case, folder: Path, truth: object, n_bytes: int) -> tuple[str, str]:
    """Read what was damaged; return the verdict, and of a fault what it was."""
    try:
        found = flatten(case.read(folder))
    except InputError as error:
        return (REFUSED, "") if str(error) else (FAULT, "an error without words")
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return FAULT, f"{type(error).__name__}: {error}"[:200]
    if found == truth:
        return RIGHT, ""
    if case.text:
        return CHANGED, ""
    if case.checked:
        return FAULT, "other data in spite of checksums"
    return compare(found, truth, n_bytes * case.reach)


def compare(found: list, truth: list, n_bytes: int) -> tuple[str, str]:
    """Tell numbers that were changed one for one from a wrong reading of all."""
    if len(found) != len(truth) or [item[0] for item in found] != [item[0] for item in truth]:
        return FAULT, "other parts, shapes or types"
    n_changed = sum(
        sum(a != b for a, b in zip(x, y, strict=True))
        for (_, x), (_, y) in zip(found, truth, strict=True)
    )
    return (CHANGED, "") if n_changed <= n_bytes else (FAULT, f"{n_changed} for {n_bytes} bytes")


def flatten(value: object, name: str = "") -> list:
    """Return (what and of which shape and type, its elements) of everything in ``value``."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        items = [flatten(part, f"{name}/{key!r}") for key, part in sorted(value.items())]
        return [part for item in items for part in item]
    if isinstance(value, (list, tuple)) and not all(isinstance(x, (str, int)) for x in value):
        return [part for k, item in enumerate(value) for part in flatten(item, f"{name}[{k}]")]
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        # As bytes, so that NaN is itself.
        elements = np.ascontiguousarray(value).reshape(-1)
        size = elements.dtype.itemsize
        data = elements.tobytes()
        parts = [data[k : k + size] for k in range(0, len(data), size)]
        return [(f"{name} {value.dtype.newbyteorder('=')} {value.shape}", parts)]
    return [(name, [repr(value)])]


def damage(case: Case, folder: Path, rng: np.random.Generator) -> tuple[Path, bytes, int]:
    """Damage one of the files; return it, what it was, and how many bytes differ."""
    files = sorted(path for path in folder.rglob(case.files) if path.is_file())
    path = files[rng.integers(len(files))]
    content = path.read_bytes()
    damaged = mutate(content, rng)
    path.write_bytes(damaged)
    same = sum(a == b for a, b in zip(content, damaged, strict=False))
    return path, content, max(len(content), len(damaged)) - same


# The files.


def _mgh(name, shape, kind=np.float32):
    def make(folder, rng):
        values = rng.normal(size=shape) if kind == np.float32 else rng.integers(0, 9, shape)
        nibabel.save(nibabel.MGHImage(values.astype(kind), np.eye(4)), folder / name)

    return make


def _values(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def _arrays(rng):
    return {
        "responses": _values(rng, N, 5),
        "targets": rng.normal(size=N),
        "conditions": np.arange(N) % 3,
        "image_ids": np.arange(N),
        "is_test": np.arange(N) > 30,
    }


def _make_npz(folder, rng):
    np.savez(folder / "x.npz", **_arrays(rng))


def _make_packed(folder, rng):
    np.savez_compressed(folder / "x.npz", **_arrays(rng))


def _make_idx(zipped):
    def make(folder, rng):
        images = b"\0\0\x08\x03" + np.array([N, 28, 28], ">u4").tobytes() + rng.bytes(N * 784)
        labels = b"\0\0\x08\x01" + np.array([N], ">u4").tobytes() + bytes(k % 10 for k in range(N))
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"t10k-{name}-ubyte{'.gz' * zipped}"
            path.write_bytes(gzip.compress(content) if zipped else content)

    return make


def _make_annot(folder, rng):
    colors = np.c_[np.arange(1, 16).reshape(5, 3) * 16, np.zeros(5, int)]
    names = [b"unknown", b"V1", b"V2", b"V3", b"hV4"]
    write_annot(folder / "lh.a.annot", rng.integers(-1, 5, N), colors, names, fill_ctab=True)


def _make_gifti(encoding):
    def make(folder, rng):
        arrays = [
            GiftiDataArray(_values(rng, N), intent="NIFTI_INTENT_SHAPE", encoding=encoding)
            for _ in range(2)
        ]
        nibabel.save(GiftiImage(darrays=arrays), folder / "x.gii")

    return make


def _make_label_gifti(folder, rng):
    write_label_gifti(
        folder / "x.label.gii", rng.integers(0, 3, N), {1: "V1", 2: "V2"}, "left", name="areas"
    )


def _brain(rng):
    left, right = (np.sort(rng.choice(N, N - 5, replace=False)) for _ in range(2))
    return cifti2.BrainModelAxis.from_surface(
        left, N, "CortexLeft"
    ) + cifti2.BrainModelAxis.from_surface(right, N, "CortexRight")


def _make_dscalar(folder, rng):
    brain = _brain(rng)
    axes = (cifti2.ScalarAxis(["a", "b"]), brain)
    cifti2.Cifti2Image(_values(rng, 2, len(brain)), axes).to_filename(folder / "x.dscalar.nii")


def _make_dlabel(folder, rng):
    brain = _brain(rng)
    table = {0: ("???", (0,) * 4), 1: ("V1", (1,) * 4), 2: ("V2", (1, 0, 0, 1))}
    values = rng.integers(0, 3, (1, len(brain))).astype(np.float32)
    axes = (cifti2.LabelAxis(["a"], [table]), brain)
    cifti2.Cifti2Image(values, axes).to_filename(folder / "x.dlabel.nii")


MANIFEST = """
name = "tiny"
title = "Tiny"
version = "1"
licence = "unknown"
access = "open"
how_to_obtain = "Make it."
citation = ["doi:1"]
[[files]]
path = "a/{hemi}.mgh"
role = "betas"
bytes = 99
shape = [5, "n"]
sha256 = ""
each = { hemi = ["lh", "rh"] }
[[files]]
path = "s{k}.npy"
role = "x"
each = { k = "01..12" }
"""
CONFIG = """
title = "A study"
seed = 3
[data]
root = "data"
subjects = ["01", "02"]
layout = "nsd"
extent_deg = 8.4
[rois]
atlases = ["prf-visualrois"]
[rois.merge]
V1 = ["V1v", "V1d"]
[decoding]
features = ["a", "b"]
tolerance = 0.01
network = { hidden = [16], max_epochs = 2 }
"""


def _text(name, text):
    return lambda folder, _: (folder / name).write_text(text, "utf-8")


def _make_folder(folder, rng):
    arrays = _arrays(rng) | {
        "groups": {"V1": [0, 2]},
        "vertices": {"left": [4, 2], "right": [7, 1, 3]},
        "space": "fsaverage5",
        "target_names": ["speed"],
    }
    save_arrays(load_arrays(**arrays), folder)


def _make_hdf5_folder(folder, rng):
    arrays = _arrays(rng)
    with h5py.File(folder / "x.h5", "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, fletcher32=True, chunks=values.shape)
    lines = [f'{name} = "x.h5:/{name}"' for name in arrays]
    (folder / "dataset.toml").write_text("\n".join(lines))


def known(data, n=N):
    """Refuse another surface, as SurfaceMap, Atlas and load_nsd do by its number of vertices."""
    parts = data.values() if isinstance(data, dict) else [data]
    sizes = {part.shape[-1] for part in parts}
    if sizes != {n}:
        raise InputError("data", expected=f"{n} vertices", got=str(sizes))


def _read_map(folder):
    values = read_map(folder / "x.mgh")
    known(values)
    return values


def _read_labels(name):
    def read(folder):
        labels, table = read_labels(folder / name)
        known(labels)
        if table is not None:
            check_named(name, labels, table)
        return labels, table

    return read


def _read_cifti(name):
    def read(folder):
        data, names, tables = read_cifti(folder / name)
        known(data)
        return data, names, tables

    return read


def _make_stimuli(folder, rng):
    write_stimuli(folder, rng.integers(0, 256, size=(4, 8, 8, 3), dtype=np.uint8))


def _make_design(compressed):
    from scipy.io import loadmat, savemat

    def make(folder, rng):
        write_experiment(
            folder,
            master_ordering=rng.permutation(np.tile(np.arange(1, 9), 3)),
            subject_images=np.arange(1, 17).reshape(2, 8),
            shared_images=[1, 2],
            trials_per_session=8,
        )
        path = folder / "nsddata/experiments/nsd/nsd_expdesign.mat"
        arrays = loadmat(path, variable_names=DESIGN)
        savemat(path, {name: arrays[name] for name in DESIGN}, do_compression=compressed)

    return make


DESIGN = ("masterordering", "subjectim", "sharedix", "stimpattern")


def _read_design(folder):
    path = folder / "nsddata/experiments/nsd/nsd_expdesign.mat"
    arrays = read_mat(path, DESIGN)
    if lost := sorted(set(DESIGN) - arrays.keys()):
        # As whoever needs them says; a name that was damaged is another's.
        raise InputError(str(path), expected=f"the variables {DESIGN}", got=f"no {lost}")
    if strange := [name for name in DESIGN if arrays[name].dtype.kind not in "iuf"]:
        raise InputError(str(path), expected="numbers", got=f"none in {strange}")
    # Numbers are the same in whatever class they come.
    return {name: arrays[name].astype(np.float64) for name in DESIGN}


TABLE = {0: "Unknown", 1: "V1v", 2: "V1d", 7: "hV4"}


def _make_pickle(folder, _):
    np.save(folder / "mapping_a.npy", np.array(TABLE, object), allow_pickle=True)


def _make_json(folder, _):
    (folder / "mapping_a.json").write_text(json.dumps(TABLE))


def _make_checkpoint(folder, rng):
    torch.manual_seed(int(rng.integers(99)))
    description = {"kind": "linear", "mean": [0.25, 1.5], "n": 3}
    save_checkpoint(folder / "m", torch.nn.Linear(4, 3), description)


def _igc(rng):
    return IGCResult(
        attributions=_values(rng, 2, 5),
        standard_errors=_values(rng, 2, 5),
        correlation=rng.normal(size=2),
        completeness_gap=rng.normal(size=2),
        numerical_error=rng.normal(size=2),
        group_values=None,
        group_standard_errors=None,
        n_samples=9,
        n_gradients=4,
        settings={"seed": 3, "outputs": [0, 1]},
    )


def _make_result_folder(folder, rng):
    result = _igc(rng)
    for name in MAPS[:2]:
        np.save(folder / f"{name}.npy", getattr(result, name))
    result.save_rest(folder)


def _make_prf(folder, rng):
    names = [field.name for field in dataclasses.fields(PRFResult)]
    arrays = {name: rng.uniform(1, 2, N) for name in names}
    arrays |= {"status": np.full(N, "ok"), "extent_deg": (8.4, 8.4), "calibration": None}
    optional = {name: None for name in PRFResult._errors}
    PRFResult(**(arrays | optional)).save(folder / "x.npz")


def _make_subject(folder, rng):
    sides = {"left": np.arange(3), "right": np.arange(2)}
    counts = {"left": 9, "right": 9}
    SubjectData(
        subject="01",
        responses=_values(rng, 7, 5),
        image_ids=np.arange(7),
        n_repeats=np.ones(7, int),
        is_test=np.arange(7) > 4,
        vertices=sides,
        space="x",
        n_surface_vertices=counts,
        n_dropped=counts,
    ).save(folder / "sub-01")


def _read_every_number(folder):
    data = SubjectData.load(folder / "sub-01")
    check_numbers(folder / "sub-01", "subject", "responses")
    return data


def _make_png(folder, rng):
    pixels = rng.integers(0, 256, size=(12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "x.png")


def _make_map(folder, rng):
    data = {side: np.zeros(10242) for side in ("left", "right")}
    SurfaceMap(data, name="a", units="deg", metadata={"R": 0.5}).to_gifti(
        folder, subject="01", desc="a", stat="igc"
    )


MAP = "sub-01_hemi-{hemi}_space-fsaverage_den-10k_desc-a_stat-igc_statmap.shape.gii"


def _make_atlas(folder, rng):
    for prefix in ("lh", "rh"):
        values = rng.integers(0, 3, (10242, 1, 1)).astype(np.float32)
        nibabel.save(nibabel.MGHImage(values, np.eye(4)), folder / f"{prefix}.a.mgz")
    (folder / "a.mgz.ctab").write_text("0 Unknown\n1 V1\n2 V2\n")


def _read_atlas(folder):
    atlas = load_atlas(folder / "{hemi}.a.mgz")
    return atlas.labels, atlas.table


CASES = {
    "MGH, betas mapped": Case(
        _mgh("x.mgh", (N, 1, 1, T)), lambda folder: np.array(open_mgh(folder / "x.mgh"))
    ),
    "MGH, a map": Case(_mgh("x.mgh", (N, 1, 1)), _read_map),
    "MGH, int32": Case(_mgh("x.mgh", (N, 1, 1), np.int32), _read_labels("x.mgh")),
    "MGZ, maps": Case(
        _mgh("x.mgz", (1, 1, T, N)), lambda folder: read_maps(folder / "x.mgz"), checked=True
    ),
    "npy": Case(
        lambda folder, rng: np.save(folder / "x.npy", _values(rng, N, 5)),
        lambda folder: np.array(open_npy(folder / "x.npy")),
    ),
    "npz": Case(_make_npz, lambda folder: load_arrays(folder / "x.npz"), checked=True),
    "npz, packed": Case(_make_packed, lambda folder: load_arrays(folder / "x.npz"), checked=True),
    "idx": Case(_make_idx(False), load_mnist),
    "idx, gzipped": Case(_make_idx(True), load_mnist, checked=True),
    "colour table": Case(
        _text("x.ctab", "0 Unknown\n1 V1v\n2 V1d 10 20 30 0\n3 left  hV4\n"),
        lambda folder: read_color_table(folder / "x.ctab"),
        text=True,
    ),
    "BIDS table": Case(
        _text("x.tsv", "index\tname\tcolor\n0\tUnknown\tn/a\n1\tV1\t#ff0000\n2\tV2\tn/a\n"),
        lambda folder: read_color_table(folder / "x.tsv"),
        text=True,
    ),
    "atlas, MGZ and table": Case(_make_atlas, _read_atlas, text=True),
    "annotation": Case(_make_annot, lambda folder: read_annotation(folder / "lh.a.annot")),
    "GIFTI, gzip": Case(
        _make_gifti("GIFTI_ENCODING_B64GZ"), lambda folder: read_maps(folder / "x.gii")
    ),
    "GIFTI, base64": Case(
        _make_gifti("GIFTI_ENCODING_B64BIN"),
        lambda folder: read_maps(folder / "x.gii"),
        reach=2,
    ),
    "GIFTI, ASCII": Case(
        _make_gifti("GIFTI_ENCODING_ASCII"), lambda folder: read_maps(folder / "x.gii")
    ),
    "GIFTI, labels": Case(_make_label_gifti, _read_labels("x.label.gii")),
    "GIFTI with sidecar": Case(_make_map, lambda folder: SurfaceMap.load(folder / MAP), text=True),
    "CIFTI-2, scalars": Case(_make_dscalar, _read_cifti("x.dscalar.nii"), reach=4),
    "CIFTI-2, labels": Case(_make_dlabel, _read_cifti("x.dlabel.nii"), reach=2),
    "manifest": Case(
        _text("tiny.toml", MANIFEST), lambda folder: load_manifest("tiny", folder=folder), text=True
    ),
    "study": Case(
        _text("study.toml", CONFIG), lambda folder: load_config(folder / "study.toml"), text=True
    ),
    "arrays, dataset.toml": Case(_make_folder, load_arrays, files="*.toml", text=True),
    "arrays, its files": Case(_make_folder, load_arrays, files="*.npy", checked=True),
    "HDF5, arrays": Case(_make_hdf5_folder, load_arrays, files="*.h5"),
    "HDF5, stimuli": Case(
        _make_stimuli,
        lambda folder: load_nsd_images(folder, np.arange(4)),
        files="*.hdf5",
        reach=64,
    ),
    "MATLAB": Case(_make_design(False), _read_design, files="*.mat"),
    "MATLAB, packed": Case(_make_design(True), _read_design, files="*.mat", checked=True),
    "pickled names": Case(_make_pickle, lambda folder: read_mapping(folder, "a"), text=True),
    "names in JSON": Case(_make_json, lambda folder: read_mapping(folder, "a"), text=True),
    "model": Case(_make_checkpoint, lambda folder: load_checkpoint(folder / "m"), checked=True),
    "IGC result": Case(
        lambda folder, rng: _igc(rng).save(folder / "x.npz"),
        lambda folder: IGCResult.load(folder / "x.npz"),
        checked=True,
    ),
    "IGC result, folder": Case(_make_result_folder, IGCResult.load),
    "sums": Case(
        lambda folder, rng: save_state(folder / "x.npz", "id", {"a": _values(rng, 4, 5)}),
        lambda folder: load_state(folder / "x.npz", "id"),
        checked=True,
    ),
    "pRF result": Case(_make_prf, lambda folder: PRFResult.load(folder / "x.npz"), checked=True),
    "subject": Case(_make_subject, lambda folder: SubjectData.load(folder / "sub-01")),
    "subject, every number": Case(_make_subject, _read_every_number, checked=True),
    "PNG": Case(_make_png, lambda folder: read_png(folder / "x.png"), checked=True),
}
