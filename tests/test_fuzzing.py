"""Damaged files of every reader: the right data or one clear error, and nothing else.

``tests/benchmarks/bench_fuzz.py`` does more of the same, in processes that may crash.
"""

import json
import sys
from pathlib import Path

import fuzzing
import numpy as np
import pytest
from fuzzing import CASES, CHANGED, FAULT, REFUSED, RIGHT, Case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuroigc._validation import InputError

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_fuzz

QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# Read by a process of its own for each, which takes longer.
APART = ("HDF5, arrays",)
# Where, as a share of the file or from its start, and what is put there.
PLACES = st.one_of(st.floats(0, 0.999), st.integers(0, 400))
CHANGES = st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the files of a case, made once, and what is read of them."""
    made = {}

    def whole(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            CASES[name].make(folder, np.random.default_rng(5))
            made[name] = folder, fuzzing.flatten(CASES[name].read(folder))
        return made[name]

    return whole


@pytest.mark.parametrize("name", [name for name in CASES if name not in APART])
@QUICK
@given(changes=CHANGES, keep=st.one_of(st.none(), st.floats(0, 0.999)), pick=st.integers(0, 99))
def test_bytes_that_changed(whole, name, changes, keep, pick):
    case, (folder, truth) = CASES[name], whole(name)
    files = sorted(path for path in folder.rglob(case.files) if path.is_file())
    path = files[pick % len(files)]
    content = path.read_bytes()
    damaged = bytearray(content)
    for place, value in changes:
        at = int(place * len(content)) if isinstance(place, float) else place % len(content)
        damaged[at] = value
    damaged = damaged if keep is None else damaged[: int(keep * len(content))]
    n_bytes = sum(a != b for a, b in zip(content, damaged, strict=False))
    n_bytes += len(content) - len(damaged)
    path.write_bytes(damaged)
    try:
        verdict, why = fuzzing.judge(case, folder, truth, n_bytes)
    finally:
        path.write_bytes(content)
    assert verdict != FAULT, why


@pytest.mark.parametrize("name", CASES)
def test_random_damage(whole, name):
    case, (folder, truth) = CASES[name], whole(name)
    verdicts = []
    for seed in range(40 if name not in APART else 10):
        rng = np.random.default_rng([seed, 3])
        path, content, n_bytes = fuzzing.damage(case, folder, rng)
        try:
            verdict, why = fuzzing.judge(case, folder, truth, n_bytes)
        finally:
            path.write_bytes(content)
        assert verdict != FAULT, (seed, why)
        verdicts.append(verdict)
    # Some of it is always noticed.
    assert REFUSED in verdicts


# The verdicts themselves.


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.array([1.0, 2, 3]), RIGHT),
        (np.array([1.0, 2, 4]), CHANGED),
        (np.array([1.0, 5, 4]), FAULT),
        (np.array([1.0, 2]), FAULT),
        (np.array([1, 2, 3]), FAULT),
        (np.array([[1.0, 2, 3]]), FAULT),
        (InputError("x", expected="y", got="z"), REFUSED),
        (ValueError("x"), FAULT),
    ],
)
def test_verdicts(tmp_path, found, expected):
    def read(_):
        if isinstance(found, Exception):
            raise found
        return found

    truth = fuzzing.flatten(np.array([1.0, 2, 3]))
    assert fuzzing.judge(Case(None, read), tmp_path, truth, 1)[0] == expected
    if expected == CHANGED:
        assert fuzzing.judge(Case(None, read, checked=True), tmp_path, truth, 1)[0] == FAULT


def test_the_long_profile_prints_and_writes(tmp_path, capsys):
    path = tmp_path / "x.json"
    options = ["--mutations", "12", "--readers", "npz", "--json", str(path)]
    assert bench_fuzz.main(options) == 0
    assert "| npz " in capsys.readouterr().out
    (row,) = json.loads(path.read_text())["rows"]
    assert sum(row[kind] for kind in (RIGHT, REFUSED, CHANGED, FAULT, "crash", "hang")) == 12


@pytest.mark.parametrize("name", ["manifest", "study", "arrays, dataset.toml"])
def test_toml_that_is_nested_without_end(tmp_path, name):
    case = CASES[name]
    case.make(tmp_path, np.random.default_rng(1))
    (path,) = tmp_path.glob("*.toml")
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError):
        case.read(tmp_path)
