"""Data of any lab: a folder with a dataset.toml, and what such a file cannot do."""

import dataclasses

import h5py
import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import load_arrays, save_arrays

N, M = 12, 6


@pytest.fixture
def data(rng):
    return load_arrays(
        rng.normal(size=(N, M)).astype(np.float32),
        rng.normal(size=(N, 2)),
        conditions=np.arange(N) % 3,
        groups={"V1/v": [0, 1, 3], 'a "b"': np.arange(M) > 2},
        image_ids=np.arange(N) + 5,
        is_test=np.arange(N) > 8,
        vertices={"left": [4, 0, 9], "right": [7, 10241, 3]},
        space="fsaverage5",
        target_names=["contrast", "slope"],
        title="Größe",
        units="z-score",
        licence="CC0-1.0",
    )


def assert_same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, dict):
            assert list(x) == list(y)
            for name in x:
                np.testing.assert_array_equal(x[name], y[name])
        elif isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
        else:
            assert x == y


def test_round_trip(data, tmp_path):
    path = save_arrays(data, tmp_path / "mine")
    assert path == tmp_path / "mine" / "dataset.toml"
    for place in (path, path.parent, str(path.parent)):
        read = load_arrays(place)
        assert_same(read, data)
        assert isinstance(read.responses, np.memmap)
    assert not [other for other in path.parent.iterdir() if other.name.startswith(".")]
    with pytest.raises(InputError, match="folder: expected one without a data set"):
        save_arrays(data, path.parent)


def test_round_trip_of_the_least(tmp_path, rng):
    least = load_arrays(rng.normal(size=(N, 2, 3)), rng.normal(size=N))
    assert_same(load_arrays(save_arrays(least, tmp_path)), least)


@pytest.fixture
def folder(data, tmp_path):
    """Write the arrays in every way there is."""
    np.save(tmp_path / "x.npy", data.responses)
    np.savez(tmp_path / "t.npz", targets=data.targets, V1=data.groups["V1/v"])
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["subject/number"] = data.conditions
        file["matlab"] = np.asfortranarray(data.responses).T
    return tmp_path


TOML = """
responses = "x.npy"
targets = "t.npz:targets"
conditions = "all.h5:/subject/number"
[groups]
V1 = { file = "t.npz:V1", shape = [3] }
"""


def write(folder, text):
    path = folder / "dataset.toml"
    path.write_text(text, "utf-8")
    return path


def test_every_kind_of_file(folder, data):
    write(folder, TOML)
    read = load_arrays(folder)
    np.testing.assert_array_equal(read.responses, data.responses)
    np.testing.assert_array_equal(read.targets, data.targets)
    np.testing.assert_array_equal(read.conditions, data.conditions)
    np.testing.assert_array_equal(read.groups["V1"], data.groups["V1/v"])


def test_one_file_spelled_in_two_ways(folder, data):
    with h5py.File(folder / "all.h5", "a") as file:
        file["responses"] = data.responses
    write(folder, TOML.replace("x.npy", "./all.h5:/responses"))
    np.testing.assert_array_equal(load_arrays(folder).responses, data.responses)


def test_axes_of_hdf5_that_matlab_wrote_come_reversed(folder, data):
    write(folder, TOML.replace("x.npy", "all.h5:/matlab"))
    with pytest.raises(InputError, match="the same number of samples; got responses has 6"):
        load_arrays(folder)


@pytest.mark.parametrize("place", ["/etc/x.npy", "../x.npy", "a/../../x.npy", "..\\x.npy", ".."])
def test_paths_that_lead_out(folder, place):
    write(folder, TOML.replace('"x.npy"', f"'{place}'"))
    with pytest.raises(InputError, match="responses: expected a relative path that stays inside"):
        load_arrays(folder)


def test_links_that_lead_out(folder, data, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    np.save(other / "x.npy", data.responses)
    (folder / "out").symlink_to(other)
    (folder / "link.npy").symlink_to(other / "x.npy")
    (folder / "stays.npy").symlink_to(folder / "x.npy")
    for place in ("out/x.npy", "link.npy"):
        write(folder, TOML.replace("x.npy", place))
        with pytest.raises(InputError, match="expected a relative path that stays inside"):
            load_arrays(folder)
    write(folder, TOML.replace("x.npy", "stays.npy"))
    np.testing.assert_array_equal(load_arrays(folder).responses, data.responses)


def test_hdf5_that_reads_other_files(folder, data, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with h5py.File(other / "secret.h5", "w") as file:
        file["a/number"] = data.conditions
    (other / "raw").write_bytes(data.conditions.tobytes())
    layout = h5py.VirtualLayout((N,), np.int64)
    layout[:] = h5py.VirtualSource(other / "secret.h5", "a/number", (N,))
    with h5py.File(folder / "all.h5", "a") as file:
        file["link"] = h5py.ExternalLink(other / "secret.h5", "a/number")
        file["group"] = h5py.ExternalLink(other / "secret.h5", "a")
        file["soft"] = h5py.SoftLink("/link")
        file.create_dataset("raw", (N,), np.int64, external=str(other / "raw"))
        file.create_virtual_dataset("virtual", layout)
    for name in ("link", "group/number", "soft", "raw", "virtual"):
        write(folder, TOML.replace("/subject/number", f"/{name}"))
        with pytest.raises(InputError, match=rf"all\.h5: expected an HDF5 file with .*{name}"):
            load_arrays(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"x.npy"', '"none.npy"', r"none\.npy: expected a whole .npy file"),
        ('"x.npy"', '"x.npy:a"', "responses: expected .x.npy., .x.npz:name. or"),
        ('"x.npy"', '"x.csv"', "responses: expected .x.npy., .x.npz:name. or"),
        ('"x.npy"', '""', "responses: expected a file such as"),
        ('"x.npy"', "[1]", "responses: expected a file such as"),
        ('"x.npy"', '{ file = "x.npy", colour = 1 }', "responses: expected a file such as"),
        ('"x.npy"', '{ file = "x.npy", dtype = "float64" }', "dtype float64, as .*; got float32"),
        ('"x.npy"', '{ file = "x.npy", sha256 = "00" }', "the numbers whose sha256"),
        ("[3]", "[4]", r"t\.npz, for groups\.V1: expected shape \[4\], .*; got \[3\]"),
        ("npz:targets", "npz:target", r"targets: expected one of \['V1', 'targets'\]; got 'target"),
        ("/subject/number", "/subject", "the dataset /subject"),
        ("/subject/number", "/none", "the dataset /none"),
        ("conditions", "condition", r"got unknown \['condition'\]"),
        ('responses = "x.npy"', "", "got no responses"),
        ("[groups]\nV1 = {", "groups = 1 #", "groups: expected a table of files"),
        ("[groups]", "units = 3\n[groups]", "units: expected text; got 3"),
        ("[groups]", 'target_names = "a"\n[groups]', "target_names: expected a list of names"),
        ("[groups]", 'target_names = ["a"]\n[groups]', "target_names: expected 2 names"),
        ("[groups]", "[", "a TOML file that says what the arrays are"),
        ("[groups]", "x = " + "[" * 5000, "a TOML file that says what the arrays are"),
        ("[groups]", "n_arrays = 5\n[groups]", "expected 5 arrays, as its n_arrays says; got 4"),
        ("[groups]", "[vertices]", "vertices: expected those of 'left' and 'right'"),
    ],
)
def test_files_that_say_something_else(folder, old, new, message):
    assert old in TOML
    write(folder, TOML.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_arrays(folder)


def test_a_number_that_changed_on_disk(data, tmp_path):
    save_arrays(data, tmp_path)
    content = bytearray((tmp_path / "responses.npy").read_bytes())
    content[-2] ^= 1
    (tmp_path / "responses.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"responses\.npy, for responses: expected the numbers"):
        load_arrays(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": ""}, "and the space that they are of"),
        (
            {"vertices": {"left": [0], "right": [1]}},
            "one for each column of responses; got 2 vertices",
        ),
        ({"vertices": {"left": [0, 1, 2], "right": [3, 4, 10242]}}, "vertices of fsaverage5"),
        ({"vertices": {"left": [0, 1, 1], "right": [3, 4, 5]}}, "each once"),
        ({"vertices": {"left": [0, 1, -1], "right": [3, 4, 5]}}, "each once"),
        ({"vertices": {"left": [0.5] * 6, "right": []}}, "expected whole numbers"),
    ],
)
def test_vertices_that_are_not_those_of_the_columns(data, change, message):
    given = {"vertices": data.vertices, "space": data.space} | change
    with pytest.raises(InputError, match=message):
        load_arrays(data.responses, data.targets, **given)


@pytest.mark.parametrize("shape", [(6, 5, 5), (6, 5, 4, 3)])
def test_images_come_back_and_stay_on_disk(tmp_path, rng, shape):
    images = rng.integers(0, 256, size=shape, dtype=np.uint8)
    data = load_arrays(rng.normal(size=(6, 2)), rng.normal(size=6), images=images)
    back = load_arrays(save_arrays(data, tmp_path))
    np.testing.assert_array_equal(back.images, images)
    assert isinstance(back.images, np.memmap)
