"""From files to a store: against plain numpy in memory, whatever is damaged, killed or nested."""

import json
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from neuroigc._mgh import read_mgh
from neuroigc._validation import InputError
from neuroigc.datasets import SubjectData, _paths, load_nsd, make_study, preparation, prepare_nsd
from neuroigc.datasets._design import RELEASED_SESSIONS, Design
from neuroigc.datasets._release import open_nsd
from neuroigc.datasets._sessions import BetaFile
from neuroigc.datasets._work import WORK
from neuroigc.datasets.layouts import write_betas, write_experiment, write_ncsnr
from neuroigc.datasets.store import check_numbers, write_array
from neuroigc.stats import ncsnr_from_trials

ROOT = Path(__file__).resolve().parents[1]
N_TRIALS, N_SESSIONS, SPACE = 12, 4, "tiny"
N_VERTICES = {"left": 9, "right": 6}
SIDES = tuple(N_VERTICES)


def write_design(root, rng, *, n_subjects=2, n_trials=N_TRIALS, n_sessions=N_SESSIONS):
    """Write a design in which images 1 to 13 come 3 times, others once or twice."""
    shared = np.array([2, 5, 11, 20, 31, 40])
    own = rng.permutation(np.setdiff1d(np.arange(1, 61), shared)).reshape(n_subjects, -1)
    images = np.hstack([np.tile(shared, (n_subjects, 1)), own])
    ordering = np.r_[np.repeat(np.arange(1, 14), 3), np.repeat([14, 15, 16], 2), [17, 18, 19]]
    write_experiment(
        root,
        master_ordering=rng.permutation(np.resize(ordering, n_trials * n_sessions)),
        subject_images=images,
        shared_images=shared,
        trials_per_session=n_trials,
        n_images=60,
    )


def make_betas(rng, n_vertices=N_VERTICES, n_trials=N_TRIALS):
    """Sessions of different means and scales, with vertices that are invalid in some."""
    betas = [
        {
            side: (30 * s + (1 + s) * rng.normal(size=(n, n_trials))).astype(np.float32)
            for side, n in n_vertices.items()
        }
        for s in range(N_SESSIONS)
    ]
    betas[1]["left"][2] = np.nan
    betas[3]["right"][1] = np.nan
    betas[3]["right"][5, 4] = np.inf
    betas[0]["left"][7] = 0.1
    return betas


@pytest.fixture
def betas(rng):
    return make_betas(rng)


@pytest.fixture
def root(tmp_path, rng, betas):
    write_design(tmp_path / "nsd", rng)
    for session, values in enumerate(betas, start=1):
        write_betas(tmp_path / "nsd", 1, session, values, space=SPACE)
    return tmp_path / "nsd"


def trials_of(root, betas, sessions=range(1, N_SESSIONS + 1), subject=1):
    """Return every trial standardised, by the image table rather than the design."""
    folder = root / "nsddata/experiments/nsd"
    table = pd.read_csv(folder / "nsd_stim_info_merged.csv", index_col=0)
    shown = {}
    for column in table.filter(regex=f"subject{subject}_rep"):
        shown |= {trial: image for image, trial in zip(table["nsdId"], table[column], strict=True)}
    rows = []
    for session in sessions:
        both = np.vstack([betas[session - 1][side] for side in SIDES]).astype(np.float64)
        with np.errstate(all="ignore"):
            z = (both - both.mean(1, keepdims=True)) / both.std(1, keepdims=True)
        ids = [shown[(session - 1) * both.shape[1] + t + 1] for t in range(both.shape[1])]
        rows.append(pd.DataFrame(z.T, index=ids))
    return pd.concat(rows)


KEPT = np.setdiff1d(np.arange(15), [2, 7, 10, 14])


def assert_same(one, other):
    for name in ("responses", "image_ids", "n_repeats", "is_test", "ncsnr", "noise_ceiling"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for side in SIDES:
        np.testing.assert_array_equal(one.vertices[side], other.vertices[side])
    assert one.n_dropped == other.n_dropped
    assert one.n_surface_vertices == other.n_surface_vertices


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# The numbers.


@pytest.mark.parametrize("sessions", [None, [4, 2]])
def test_the_store_is_what_numpy_computes_in_memory(root, betas, tmp_path, sessions):
    data = prepare_nsd(root, 1, tmp_path / "store", space=SPACE, sessions=sessions)
    trials = trials_of(root, betas, sorted(sessions) if sessions else range(1, N_SESSIONS + 1))
    expected = trials.groupby(trials.index).mean()
    kept = KEPT if sessions is None else np.setdiff1d(np.arange(15), [2, 10, 14][sessions == 0 :])
    np.testing.assert_array_equal(data.image_ids, expected.index)
    np.testing.assert_allclose(data.responses, expected[kept], atol=1e-6)
    np.testing.assert_array_equal(data.n_repeats, trials.groupby(trials.index).size())
    assert isinstance(data.responses, np.memmap)
    assert not (tmp_path / "store" / WORK).exists()


def test_the_store_is_what_is_loaded_into_memory(root, tmp_path):
    ncsnr = {side: np.linspace(0, 1, n) for side, n in N_VERTICES.items()}
    write_ncsnr(root, 1, ncsnr, space=SPACE)
    mask = {side: np.arange(n) % 3 != 0 for side, n in N_VERTICES.items()}
    options = {"space": SPACE, "mask": mask, "test_images": [1, 4]}
    stored = prepare_nsd(root, 1, tmp_path / "store", **options)
    loaded = load_nsd(root, 1, **options)
    assert_same(stored, loaded)
    assert stored.provenance == loaded.provenance
    assert stored.provenance["ncsnr_from"] == "the release"


def test_half_precision_is_the_rounded_store(root, tmp_path):
    whole = prepare_nsd(root, 1, tmp_path / "whole", space=SPACE)
    half = prepare_nsd(root, 1, tmp_path / "half", space=SPACE, dtype="float16")
    np.testing.assert_array_equal(half.responses, whole.responses.astype(np.float16))
    np.testing.assert_array_equal(half.ncsnr, whole.ncsnr)
    with pytest.raises(InputError, match="dtype: expected one of 'float32', 'float16'"):
        prepare_nsd(root, 1, tmp_path / "half", space=SPACE, dtype="float64")


def test_provenance_tells_what_was_left_out_and_what_was_short(root, tmp_path):
    data = prepare_nsd(root, "subj01", tmp_path / "store", space=SPACE)
    said = data.provenance
    assert said["n_invalid_vertices_by_session"] == {
        "1": {"left": 1, "right": 0},
        "2": {"left": 1, "right": 0},
        "4": {"left": 0, "right": 2},
    }
    assert data.n_dropped == {"left": 2, "right": 2}
    assert said["n_images_by_trials"] == {"1": 3, "2": 3, "3": 13}
    assert said["n_trials"] == N_TRIALS * N_SESSIONS
    assert said["ncsnr_from"] == "13 images with 3 trials"
    assert said["settings"]["sessions"] == [1, 2, 3, 4]
    files = {file["path"]: file["bytes"] for file in said["settings"]["files"]}
    assert len(files) == 1 + 2 * N_SESSIONS
    for path, size in files.items():
        assert (root / path).stat().st_size == size


# Noise ceilings from repeats.


def translated_ncsnr(trials):
    """The authors' formula, word for word, of trials with one row per image and repeat."""
    counts = trials.index.value_counts()
    variances = [trials.loc[i].var(ddof=1) for i in counts.index[counts == 3]]
    v = np.sqrt(np.mean(variances, axis=0))
    return np.sqrt(np.maximum(0, 1 - v**2)) / v


def test_ncsnr_from_repeats_is_the_authors_formula(root, betas, tmp_path):
    for session, values in enumerate(betas, start=1):  # with signal, or there is little to see
        shown = open_nsd(root, 1, space=SPACE).rows[session]
        for side, n in N_VERTICES.items():
            values[side] += (
                3 * (1 + session) * np.random.default_rng(7).normal(size=(n, 19))[:, shown]
            )
        write_betas(root, 1, session, values, space=SPACE)
    data = prepare_nsd(root, 1, tmp_path / "store", space=SPACE)
    kept = np.setdiff1d(np.arange(15), [2, 10, 14])
    trials = trials_of(root, betas)[kept]
    expected = translated_ncsnr(trials)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_allclose(data.ncsnr, expected, rtol=1e-5, atol=1e-6)
    thrice = trials.index.value_counts().loc[lambda n: n == 3].index
    whole = np.stack([trials.loc[i].to_numpy() for i in thrice])
    np.testing.assert_allclose(data.ncsnr, ncsnr_from_trials(whole), rtol=1e-5, atol=1e-6)
    # Of the images kept for testing, A have 3 trials, B 2 and C 1.
    a, b, c = (np.sum(data.n_repeats[data.is_test] == n) for n in (3, 2, 1))
    assert a == data.is_test.sum() == 6
    share = expected**2 / (expected**2 + (a / 3 + b / 2 + c) / (a + b + c))
    np.testing.assert_allclose(data.noise_ceiling, share, rtol=1e-5, atol=1e-6)


def test_the_ceiling_is_that_of_mixed_repeats(root, tmp_path):
    probe = prepare_nsd(root, 1, tmp_path / "probe", space=SPACE)
    ids = [probe.image_ids[probe.n_repeats == n][k] for n, k in ((1, 0), (2, 0), (3, 0), (3, 1))]
    data = prepare_nsd(root, 1, tmp_path / "store", space=SPACE, test_images=ids)
    power = data.ncsnr.astype(float) ** 2
    expected = power / (power + (1 + 1 / 2 + 1 / 3 + 1 / 3) / 4)
    np.testing.assert_allclose(data.noise_ceiling, expected, rtol=1e-6)


def test_without_repeats_there_is_no_ceiling(root, tmp_path):
    data = prepare_nsd(root, 1, tmp_path / "store", space=SPACE, sessions=[1])
    assert (data.n_repeats < 3).any()
    if (data.n_repeats == 3).any():
        pytest.fail("the design should have no image three times in its first session")
    assert data.ncsnr is data.noise_ceiling is data.provenance["ncsnr_from"] is None


def test_repeats_of_a_simulated_subject_give_its_true_ratio(tmp_path):
    root = make_study(
        tmp_path / "nsd", n_subjects=1, n_sessions=2, trials_per_session=300, n_shared_images=150,
        image_size=32,
    )  # fmt: skip
    options = {"space": "fsaverage5", "mask": None}
    released = prepare_nsd(root, 1, tmp_path / "released", **options)
    for path in root.rglob("*.ncsnr.mgh"):
        path.unlink()
    estimated = prepare_nsd(root, 1, tmp_path / "estimated", **options)
    assert released.provenance["ncsnr_from"] == "the release"
    assert estimated.provenance["ncsnr_from"] == "150 images with 3 trials"
    seen = released.ncsnr > 0.3
    assert np.median(estimated.ncsnr[seen] / released.ncsnr[seen]) == pytest.approx(1, abs=0.02)
    assert np.corrcoef(estimated.ncsnr[seen], released.ncsnr[seen])[0, 1] > 0.8


# Test images.


def test_special_images_are_those_that_all_saw_three_times(tmp_path, rng):
    write_design(tmp_path, rng)
    for subject, n_sessions in ((1, 4), (2, 3)):
        for session in range(1, n_sessions + 1):
            write_betas(tmp_path, subject, session, make_betas(rng)[2], space=SPACE)
    data = load_nsd(tmp_path, 1, space=SPACE, test_images="special")
    seen = {}
    for subject, n_sessions in ((1, 4), (2, 3)):
        trials = trials_of(tmp_path, [make_betas(rng)[2]] * 4, range(1, n_sessions + 1), subject)
        counts = trials.index.value_counts()
        seen[subject] = set(counts.index[counts == 3])
    shared = {1, 4, 10, 19, 30, 39}
    expected = sorted(seen[1] & seen[2] & shared)
    assert 0 < len(expected) < len(shared)
    np.testing.assert_array_equal(data.image_ids[data.is_test], expected)
    # Which sessions are used does not change what is special.
    part = load_nsd(tmp_path, 1, space=SPACE, test_images="special", sessions=[1])
    assert set(part.image_ids[part.is_test]) <= set(expected)


def test_an_image_that_one_subject_did_not_see_is_not_special():
    images = np.array([[4, 6, 8, 1], [4, 6, 9, 8]])
    ordering = np.array([1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 4, 1])
    design = Design("", ordering, images, np.array([4, 6, 8]), np.array([6, 6]))
    np.testing.assert_array_equal(design.special_ids([2, 2]), [3, 5])
    np.testing.assert_array_equal(design.special_ids([2, 1]), [])


def test_special_images_of_the_release_do_not_depend_on_the_download(tmp_path, rng):
    shared = np.sort(rng.choice(np.arange(1, 73001), 1000, replace=False))
    own = np.setdiff1d(np.arange(1, 73001), shared).reshape(8, 9000)
    ordering = rng.permutation(np.repeat(np.arange(1, 10001), 3))
    write_experiment(
        tmp_path,
        master_ordering=ordering,
        subject_images=np.hstack([np.tile(shared, (8, 1)), own]),
        shared_images=shared,
    )
    design = Design.read(tmp_path)
    counts = np.bincount(ordering[: min(RELEASED_SESSIONS) * 750], minlength=10001)[1:1001]
    expected = np.sort(shared[counts == 3]) - 1
    assert 300 < len(expected) < 600
    for on_disk in ([40], [1, 2], RELEASED_SESSIONS):
        np.testing.assert_array_equal(np.sort(design.special_ids(on_disk)), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 60, 61, 999], r"got 3 of 4 that nobody saw, such as 60\. Leave them out, or add"),
        ([-1, 1], "got 1 of 2 that nobody saw, such as -1"),
    ],
)
def test_test_images_that_nobody_saw(root, tmp_path, given, message):
    with pytest.raises(InputError, match=rf"test_images: expected 0-based .*{message}"):
        prepare_nsd(root, 1, tmp_path / "store", space=SPACE, test_images=given)
    assert not (tmp_path / "store").exists()


# Files of other shapes, surfaces and kinds.


@pytest.mark.parametrize("axes", ["n11t", "1n1t", "11nt"])
def test_axes_of_mgh_files_and_what_is_read_of_them(root, betas, tmp_path, axes):
    """Betas on a template are percent: nothing is divided by 300."""
    expected = prepare_nsd(root, 1, tmp_path / "first", space=SPACE)
    for path in sorted((root / "nsddata_betas").rglob("*.mgh")):
        n_vertices = BetaFile.open(path).n_vertices
        shape = [n_vertices if axis == "n" else 1 for axis in axes[:3]]
        head = struct.pack(">7i", 1, *shape, N_TRIALS, 3, 0)
        path.write_bytes(head + path.read_bytes()[len(head) :])
    assert_same(prepare_nsd(root, 1, tmp_path / "second", space=SPACE), expected)
    where = (root, 1, SPACE, _paths.BETA_VERSION, "left", 3)
    out, columns = np.empty((N_TRIALS, 3), np.float32), np.array([1, 4, 8])
    list(BetaFile.open(_paths.beta_path(*where)).read(columns, out))
    np.testing.assert_array_equal(out, betas[2]["left"][columns].T)


@pytest.mark.parametrize("beta_version", ["betas_assumehrf", "betas_fithrf"])
def test_other_versions_of_betas(root, betas, tmp_path, beta_version):
    with pytest.raises(InputError, match=r"got none\. There are betas_fithrf_GLMdenoise_RR\."):
        prepare_nsd(root, 1, tmp_path / "store", space=SPACE, beta_version=beta_version)
    for session, values in enumerate(betas, start=1):
        other = {side: -v for side, v in values.items()}
        write_betas(root, 1, session, other, space=SPACE, beta_version=beta_version)
    data = prepare_nsd(root, 1, tmp_path / "store", space=SPACE, beta_version=beta_version)
    first = prepare_nsd(root, 1, tmp_path / "first", space=SPACE)
    np.testing.assert_allclose(data.responses, -first.responses, atol=1e-6)


@pytest.mark.parametrize(("space", "n"), [("fsaverage5", 10242), ("fsaverage6", 40962)])
def test_coarser_templates_are_the_first_vertices_of_fsaverage(tmp_path, rng, space, n):
    root, n_trials = tmp_path / "nsd", 3
    write_design(root, rng, n_trials=n_trials, n_sessions=1)
    values = {side: rng.normal(size=(163842, n_trials)).astype(np.float32) for side in SIDES}
    write_betas(root, 1, 1, values, space="fsaverage")
    ncsnr = {side: rng.uniform(size=163842) for side in SIDES}
    write_ncsnr(root, 1, ncsnr, space="fsaverage")
    mask = {side: rng.uniform(size=n) < 0.01 for side in SIDES}
    mask["left"][n - 1] = True  # the last vertex that both have
    data = prepare_nsd(root, 1, tmp_path / "store", space=space, mask=mask)
    whole = {side: np.r_[mask[side], np.zeros(163842 - n, bool)] for side in SIDES}
    fine = prepare_nsd(root, 1, tmp_path / "fine", space="fsaverage", mask=whole)
    np.testing.assert_array_equal(data.responses, fine.responses)
    np.testing.assert_array_equal(data.ncsnr, fine.ncsnr)
    np.testing.assert_array_equal(data.vertices["left"], np.flatnonzero(mask["left"]))
    assert data.space == space
    assert data.n_surface_vertices == {"left": n, "right": n}
    # Files of the space itself come first, where there are any.
    own = {side: -v[:n] for side, v in values.items()}
    write_betas(root, 1, 1, own, space=space)
    again = load_nsd(root, 1, space=space, mask=mask)
    np.testing.assert_allclose(again.responses, -fine.responses, atol=1e-6)


def write_native(root, betas, *, transpose=False, dtype=np.int16, name="betas"):
    """Write whole numbers of a 300th percent as MATLAB does; invalid vertices are 0 there."""
    for session, values in enumerate(betas, start=1):
        for side, table in values.items():
            where = (root, 1, "nativesurface", _paths.BETA_VERSION, side, session)
            path = _paths.beta_path(*where)
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers = np.round(300 * np.nan_to_num(table, posinf=0)).astype(dtype)
            with h5py.File(path, "w") as file:
                # Seen from Python, axes are the other way round: trials first.
                file.create_dataset(name, data=numbers if transpose else numbers.T)


def test_a_subjects_own_surface(root, betas, tmp_path, monkeypatch):
    monkeypatch.setattr("neuroigc.datasets._sessions.BLOCK_VERTICES", 4)
    write_native(root, betas)
    out, columns = np.empty((N_TRIALS, 4), np.float32), np.array([1, 2, 6, 8])
    where = (root, 1, "nativesurface", _paths.BETA_VERSION, "left", 2)
    list(BetaFile.open(_paths.beta_path(*where)).read(columns, out))
    percent = np.round(300 * np.nan_to_num(betas[1]["left"][columns])).T / 300
    np.testing.assert_allclose(out, percent, rtol=1e-6)
    data = prepare_nsd(root, 1, tmp_path / "store", space="nativesurface")
    rounded = [
        {side: np.round(300 * np.nan_to_num(v, posinf=0)) for side, v in values.items()}
        for values in betas
    ]
    trials = trials_of(root, rounded)
    kept = np.setdiff1d(np.arange(15), [2, 7, 10])  # one bad trial is 0 like any other there
    # Percents are rounded to single precision, of which a mean of some deviations takes its part.
    np.testing.assert_allclose(data.responses, trials.groupby(trials.index).mean()[kept], atol=3e-6)
    assert data.n_dropped == {"left": 2, "right": 1}
    assert data.n_surface_vertices == N_VERTICES


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"transpose": True}, r"rh.*hdf5: expected 9 trials, as the other sessions have; got 6"),
        ({"dtype": np.float32}, r"betas, int16 of shape .* got float32"),
        ({"name": "other"}, r"betas, int16 of shape .* got none"),
    ],
)
def test_native_files_that_are_something_else(root, betas, tmp_path, damage, message):
    write_native(root, betas, **damage)
    with pytest.raises(InputError, match=message):
        prepare_nsd(root, 1, tmp_path / "store", space="nativesurface")


def test_a_truncated_native_file(root, betas, tmp_path):
    write_native(root, betas)
    path = _paths.beta_path(root, 1, "nativesurface", _paths.BETA_VERSION, "right", 4)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{path}: expected a whole HDF5 file"):
        prepare_nsd(root, 1, tmp_path / "store", space="nativesurface")


# Whole or resumed. What fits in memory leaves nothing to go on from, so it is given none.

on_disk = partial(prepare_nsd, space=SPACE, memory_gb=0)


@pytest.mark.parametrize("memory_gb", ["a", -1, float("nan")])
def test_memory_is_a_number(root, tmp_path, memory_gb):
    with pytest.raises(InputError, match="memory_gb: expected a number, 0 or more"):
        prepare_nsd(root, 1, tmp_path / "store", space=SPACE, memory_gb=memory_gb)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("memory_gb", [0, 15 * 4 * N_TRIALS * 2 / 1e9, 1])
def test_how_much_stays_in_memory_does_not_change_a_byte(root, tmp_path, memory_gb):
    """Not either where part of the sessions was left by what was interrupted."""
    prepare_nsd(root, 1, tmp_path / "expected", space=SPACE, memory_gb=0)
    prepare_nsd(root, 1, tmp_path / "store", space=SPACE, memory_gb=memory_gb)
    assert content(tmp_path / "store") == content(tmp_path / "expected")


@pytest.mark.parametrize("session", [1, 2])
def test_sessions_of_the_release_have_750_trials_whatever_the_design_leaves_out(session):
    """Of shorter ones all trials from the second session on would get other images."""
    ordering, images = np.resize(np.arange(1, 10_001), 30_000), np.arange(1, 10_001)[None]
    design = Design("design.mat", ordering, images, images[0, :9], planned_trials=None)
    with pytest.raises(InputError, match=rf"750 trials in session {session}\); got 700 trials"):
        design.trial_images("01", session, 700, Path("short.mgh"))
    whole = design.trial_images("01", session, 750, Path("whole.mgh"))
    np.testing.assert_array_equal(whole, np.arange(750 * session - 750, 750 * session))


def test_every_file_is_checked_before_any_is_read(root, tmp_path, monkeypatch):
    path = root / "nsddata_betas/ppdata/subj01/tiny" / _paths.BETA_VERSION
    path = path / "rh.betas_session04.mgh"
    path.write_bytes(path.read_bytes()[:-99])
    monkeypatch.setattr(BetaFile, "read", None)
    with pytest.raises(InputError, match=rf"{path}: expected at least"):
        prepare_nsd(root, 1, tmp_path / "store", space=SPACE)
    assert not (tmp_path / "store").exists()


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(root, tmp_path):
    command = [sys.executable, ROOT / "tests/killed_preparation.py", root, tmp_path, "12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report) == 12
    for run in report:
        assert run == {"signal": signal.SIGKILL, "resumed": 0, "same": True} | {
            "sessions": run["sessions"]
        }
    # They were killed before, amid and after the sessions.
    left = {run["sessions"] for run in report}
    assert {0, N_SESSIONS} < left


@pytest.mark.parametrize("n_bytes", [1, 100, 2**22])
def test_how_much_is_read_and_written_at_once_does_not_change_a_byte(
    root, tmp_path, monkeypatch, n_bytes
):
    on_disk(root, 1, tmp_path / "expected")
    for module in ("datasets.preparation", "_mgh"):
        monkeypatch.setattr(f"neuroigc.{module}.BLOCK_BYTES", n_bytes)
    on_disk(root, 1, tmp_path / "store")
    assert content(tmp_path / "store") == content(tmp_path / "expected")


def test_what_was_done_is_not_done_again(root, tmp_path, monkeypatch):
    whole = content(Path(on_disk(root, 1, tmp_path / "a").responses.filename).parent)
    written = []

    def watched(path, array):
        if path.name.startswith("session"):
            if len(written) == 2 and not written.count("again"):
                raise KeyboardInterrupt
            written.append(path.stem)
        write_array(path, array)

    monkeypatch.setattr(preparation, "write_array", watched)
    with pytest.raises(KeyboardInterrupt):
        on_disk(root, 1, tmp_path / "b")
    assert written == ["session01", "session02"]
    written.append("again")
    on_disk(root, 1, tmp_path / "b")
    assert written[2:] == ["again", "session03", "session04"]
    assert content(tmp_path / "b") == whole
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").iterdir()}
    on_disk(root, 1, tmp_path / "b")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "b").iterdir()}


@pytest.mark.parametrize("n_bytes", [0, 100, 300])
def test_a_session_that_a_power_cut_left_short_is_read_again(root, tmp_path, monkeypatch, n_bytes):
    on_disk(root, 1, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_write_averages", None)
        with pytest.raises(TypeError):
            on_disk(root, 1, tmp_path / "cut")
    session = tmp_path / "cut" / WORK / "session03.npy"
    session.write_bytes(session.read_bytes()[:n_bytes])
    on_disk(root, 1, tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_other_hidden_files_stay(root, tmp_path):
    folder = tmp_path / "store"
    (folder / ".a-folder.d").mkdir(parents=True)
    (folder / ".pre-commit-config.yaml").write_text("mine")
    (folder / ".responses-ab12_xyz.npy").write_text("begun")
    prepare_nsd(root, 1, folder, space=SPACE)
    hidden = {path.name for path in folder.glob(".*")}
    assert hidden == {".a-folder.d", ".pre-commit-config.yaml"}


def test_a_damaged_store_is_made_again(root, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    prepare_nsd(root, 1, folder, space=SPACE)
    whole = content(folder)
    (folder / "responses.npy").write_bytes(whole["responses.npy"][:-3])
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_write_averages", None)
        with pytest.raises(TypeError):
            prepare_nsd(root, 1, folder, space=SPACE)
    with pytest.raises(InputError, match="not finished"):  # from the moment it is begun
        SubjectData.load(folder)
    prepare_nsd(root, 1, folder, space=SPACE)
    assert content(folder) == whole


def test_other_settings_or_files_do_not_mix(root, betas, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    prepare_nsd(root, 1, folder, space=SPACE)
    with pytest.raises(InputError, match=r"where sessions, .* differ\. Name another folder"):
        prepare_nsd(root, 1, folder, space=SPACE, sessions=[1, 2])
    with pytest.raises(InputError, match=r"where test_images, .*differ"):
        prepare_nsd(root, 1, folder, space=SPACE, test_images=[4])
    with pytest.raises(InputError, match="where dtype differ"):
        prepare_nsd(root, 1, folder, space=SPACE, dtype="float16")
    mask = {side: np.arange(n) > 2 for side, n in N_VERTICES.items()}
    monkeypatch.setattr(preparation, "write_rest", None)
    with pytest.raises(TypeError):
        prepare_nsd(root, 1, tmp_path / "begun", space=SPACE)
    with pytest.raises(InputError, match=r"where n_vertices_asked_for, .* differ"):
        prepare_nsd(root, 1, tmp_path / "begun", space=SPACE, mask=mask)
    betas[3]["left"][0] += 1
    write_betas(root, 1, 4, betas[3], space=SPACE)
    with pytest.raises(InputError, match="where files differ"):
        prepare_nsd(root, 1, folder, space=SPACE)


def test_memory_does_not_grow_with_the_number_of_sessions(tmp_path, rng, monkeypatch):
    for module in ("datasets.preparation", "_mgh"):
        monkeypatch.setattr(f"neuroigc.{module}.BLOCK_BYTES", 2**16)
    n_vertices, n_trials, n_sessions = 2000, 40, 16
    root = tmp_path / "nsd"
    write_experiment(
        root,
        master_ordering=np.arange(1, n_trials * n_sessions + 1),
        subject_images=[np.arange(1, n_trials * n_sessions + 1)],
        shared_images=[1],
        trials_per_session=n_trials,
    )
    for session in range(1, n_sessions + 1):
        betas = rng.normal(size=(n_vertices, n_trials)).astype(np.float32)
        write_betas(root, 1, session, {"left": betas, "right": betas}, space=SPACE)
    peaks = {}
    for n in (1, 2, 16):  # the first brings imports with it
        tracemalloc.start()
        on_disk(root, 1, tmp_path / str(n), sessions=range(1, n + 1))
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    session_bytes = 2 * n_vertices * n_trials * 4
    # Whether one more was read ahead, and on both sides, when memory peaked is chance.
    assert peaks[16] < peaks[2] + 2 * session_bytes < 16 * session_bytes


def test_progress_is_shown_and_changes_nothing(root, tmp_path, capsys):
    prepare_nsd(root, 1, tmp_path / "quiet", space=SPACE)
    assert capsys.readouterr() == ("", "")
    prepare_nsd(root, 1, tmp_path / "shown", space=SPACE, progress=True)
    assert "subj01 sessions" in capsys.readouterr().err
    assert content(tmp_path / "quiet") == content(tmp_path / "shown")


def test_no_valid_vertex_is_an_error(root, betas, tmp_path):
    nothing = {side: np.full_like(v, np.nan) for side, v in betas[0].items()}
    write_betas(root, 1, 1, nothing, space=SPACE)
    with pytest.raises(InputError, match=r"valid data in .* got none of 15 \(invalid: .*15 in se"):
        prepare_nsd(root, 1, tmp_path / "store", space=SPACE)
    with pytest.raises(InputError, match="not finished"):
        SubjectData.load(tmp_path / "store")
    mask = {side: np.zeros(n, bool) for side, n in N_VERTICES.items()}
    with pytest.raises(InputError, match="mask: expected at least one vertex; got none"):
        prepare_nsd(root, 1, tmp_path / "other", space=SPACE, mask=mask)


def test_a_session_in_the_wrong_byte_order_is_refused(tmp_path, rng):
    """Its header is right, so that nothing but the sizes of its numbers tells."""
    values = rng.normal(size=(99, N_TRIALS))
    _, path = write_betas(tmp_path, 1, 1, {"left": values, "right": values}, space=SPACE)
    content, n_bytes = path.read_bytes(), 4 * values.size
    swapped = np.frombuffer(content[284 : 284 + n_bytes], "<i4").byteswap().tobytes()
    path.write_bytes(content[:284] + swapped + content[284 + n_bytes :])
    with pytest.raises(InputError, match="below 1e-20, as of a wrong byte order"):
        list(BetaFile.open(path).read(np.arange(99), np.empty((N_TRIALS, 99), np.float32)))
    with pytest.raises(InputError, match="wrong byte order"):
        read_mgh(path)


def test_two_processes_do_not_prepare_the_same_folder(root, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    whole = content(Path(on_disk(root, 1, tmp_path / "whole").responses.filename).parent)
    told = []

    def watched(path, array):
        if not told:
            with pytest.raises(InputError, match="no other process writes to") as error:
                on_disk(root, 1, folder)
            told.append(str(error.value))
        write_array(path, array)

    monkeypatch.setattr(preparation, "write_array", watched)
    on_disk(root, 1, folder)
    assert told[0].startswith(f"folder: expected one that no other process writes to; got {folder}")
    assert content(folder) == whole


def test_work_that_was_left_behind_a_whole_store_is_removed(root, tmp_path):
    folder = tmp_path / "store"
    on_disk(root, 1, folder)
    (folder / WORK).mkdir()
    (folder / WORK / "session01.npy").write_bytes(b"x")
    on_disk(root, 1, folder)
    assert not (folder / WORK).exists()


def test_numbers_that_changed_in_a_store_are_found(root, tmp_path):
    """The hash is that of what was written, block by block."""
    folder = tmp_path / "store"
    for dtype in ("float32", "float16"):
        responses = prepare_nsd(root, 1, folder / dtype, space=SPACE, dtype=dtype).responses
        assert check_numbers(folder / dtype, "subject", "responses") == responses.nbytes
        with (folder / dtype / "responses.npy").open("r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"\x55")
        with pytest.raises(InputError, match=r"responses.npy: expected the numbers that were"):
            check_numbers(folder / dtype, "subject", "responses")
