"""The NSD reader against files read by other means, and against files that are wrong."""

import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array
from scipy.stats import zscore

from neuroigc._mgh import open_mgh
from neuroigc._validation import InputError
from neuroigc._vertex_files import read_map
from neuroigc.datasets import SubjectData, load_nsd
from neuroigc.datasets.layouts import write_betas, write_experiment, write_ncsnr

N_LEFT, N_RIGHT, N_TRIALS, N_SESSIONS = 7, 5, 24, 3
N_IMAGES, SPACE = 40, "tiny"
BETAS = "nsddata_betas/ppdata/subj02/tiny/betas_fithrf_GLMdenoise_RR"
DESIGN = "nsddata/experiments/nsd"


@pytest.fixture
def betas(rng):
    """Sessions with very different means and scales, so that how they are pooled matters."""
    return {
        side: [
            (100 * s + (1 + 10 * s) * rng.normal(size=(n, N_TRIALS))).astype(np.float32)
            for s in range(N_SESSIONS)
        ]
        for side, n in {"left": N_LEFT, "right": N_RIGHT}.items()
    }


@pytest.fixture
def study(tmp_path, rng, betas):
    # Images of both subjects, those shared first; ids scattered and 1-based.
    shared = np.array([3, 17, N_IMAGES])
    own = np.setdiff1d(np.arange(1, N_IMAGES + 1), shared)
    own = rng.permutation(own)
    images = np.stack([np.r_[shared, own[:18]], np.r_[shared, own[18:36]]])
    ordering = np.r_[np.repeat([1, 2, 3], 3), np.repeat(np.arange(4, 22), 3), np.repeat([5], 9)]
    ordering = rng.permutation(ordering)
    write_experiment(
        tmp_path,
        master_ordering=ordering,
        subject_images=images,
        shared_images=shared,
        trials_per_session=N_TRIALS,
    )
    for s in range(N_SESSIONS):
        session = {side: values[s] for side, values in betas.items()}
        write_betas(tmp_path, 2, s + 1, session, space=SPACE)
    return tmp_path


def image_of_each_trial(root):
    """Return 0-based image ids of subject 2's trials by the image table, not by the design."""
    table = pd.read_csv(root / DESIGN / "nsd_stim_info_merged.csv", index_col=0)
    trials = {}
    for column in table.filter(regex="subject2_rep"):
        for image, trial in zip(table["nsdId"], table[column], strict=True):
            if trial:
                trials[trial - 1] = image
    return np.array([trials[t] for t in range(len(trials))])


def reference(root, betas, sessions=(1, 2, 3)):
    ids = image_of_each_trial(root)
    ids = np.concatenate([ids[(s - 1) * N_TRIALS : s * N_TRIALS] for s in sessions])
    both = [np.vstack([betas["left"][s - 1], betas["right"][s - 1]]) for s in sessions]
    z = np.concatenate([zscore(b.astype(float), axis=1).T for b in both])
    return pd.DataFrame(z).groupby(ids).mean()


def test_responses_ids_and_repeats(study, betas):
    data = load_nsd(study, 2, space=SPACE)
    expected = reference(study, betas)
    np.testing.assert_array_equal(data.image_ids, expected.index)
    np.testing.assert_allclose(data.responses, expected, atol=1e-6)
    assert data.responses.dtype == np.float32
    assert data.image_ids.dtype == np.int64
    counts = pd.Series(image_of_each_trial(study)).value_counts().sort_index()
    np.testing.assert_array_equal(data.n_repeats, counts)
    assert data.subject == "02"
    assert data.space == SPACE
    assert data.n_surface_vertices == {"left": N_LEFT, "right": N_RIGHT}
    assert data.n_dropped == {"left": 0, "right": 0}
    np.testing.assert_array_equal(data.vertices["right"], np.arange(N_RIGHT))


def test_image_ids_are_zero_based(study):
    """73k ids are 1-based, rows of the stimuli and nsdId 0-based."""
    data = load_nsd(study, 2, space=SPACE)
    np.testing.assert_array_equal(data.image_ids[data.is_test], [2, 16, N_IMAGES - 1])


def test_each_session_is_standardised_by_itself(study):
    data = load_nsd(study, 2, space=SPACE, sessions=[2])
    weighted = (data.responses * data.n_repeats[:, None]).sum(axis=0)
    np.testing.assert_allclose(weighted, 0, atol=1e-4)
    # Pooled without it, the means of 0, 100 and 200 would swamp all.
    assert np.abs(load_nsd(study, 2, space=SPACE).responses).max() < 5


def test_some_sessions_keep_their_own_trials(study, betas):
    data = load_nsd(study, 2, space=SPACE, sessions=[3, 1])
    expected = reference(study, betas, sessions=(1, 3))
    np.testing.assert_array_equal(data.image_ids, expected.index)
    np.testing.assert_allclose(data.responses, expected, atol=1e-6)


def test_no_scaling_by_300(tmp_path, study, betas):
    """The result does not depend on the scale, so look at what is read before."""
    raw = open_mgh(study / BETAS / "lh.betas_session01.mgh")
    np.testing.assert_array_equal(raw, betas["left"][0].T)


def test_mask_picks_vertices(study, betas):
    mask = {"left": np.arange(N_LEFT) % 2 == 0, "right": np.arange(N_RIGHT) == 3}
    data = load_nsd(study, "subj02", space=SPACE, mask=mask)
    np.testing.assert_array_equal(data.vertices["left"], [0, 2, 4, 6])
    np.testing.assert_array_equal(data.vertices["right"], [3])
    expected = reference(study, betas)[[0, 2, 4, 6, N_LEFT + 3]]
    np.testing.assert_allclose(data.responses, expected, atol=1e-6)


def test_invalid_vertices_are_kept_out_and_counted(study, betas):
    expected = reference(study, betas)
    betas["left"][1][2] = np.nan  # a whole session
    betas["left"][2][4, 5] = np.inf  # one trial
    betas["right"][0][1] = 0.1  # a constant
    for s in range(N_SESSIONS):
        session = {side: values[s] for side, values in betas.items()}
        write_betas(study, 2, s + 1, session, space=SPACE)
    data = load_nsd(study, 2, space=SPACE)
    assert data.n_dropped == {"left": 2, "right": 1}
    np.testing.assert_array_equal(data.vertices["left"], [0, 1, 3, 5, 6])
    np.testing.assert_array_equal(data.vertices["right"], [0, 2, 3, 4])
    kept = [0, 1, 3, 5, 6, *(N_LEFT + np.array([0, 2, 3, 4]))]
    np.testing.assert_allclose(data.responses, expected[kept], atol=1e-6)


def test_no_valid_vertex_is_an_error(study, betas):
    nothing = {side: np.full_like(values[0], np.nan) for side, values in betas.items()}
    write_betas(study, 2, 1, nothing, space=SPACE)
    with pytest.raises(InputError, match=r"valid data in all sessions; got none of 12 \(in"):
        load_nsd(study, 2, space=SPACE)


def test_noise_ceiling_of_the_test_images(study):
    ncsnr = {"left": np.linspace(0, 1, N_LEFT), "right": np.full(N_RIGHT, 0.5)}
    write_ncsnr(study, 2, ncsnr, space=SPACE)
    data = load_nsd(study, 2, space=SPACE)
    np.testing.assert_allclose(data.ncsnr, np.r_[ncsnr["left"], ncsnr["right"]], rtol=1e-6)
    # The shared images were shown three times each: ncsnr^2 / (ncsnr^2 + 1/3).
    assert (data.n_repeats[data.is_test] == 3).all()
    np.testing.assert_allclose(data.noise_ceiling[-1], 0.25 / (0.25 + 1 / 3), rtol=1e-6)
    one = load_nsd(study, 2, space=SPACE, sessions=[1])
    repeats = one.n_repeats[one.is_test]
    share = 0.25 / (0.25 + np.mean(1 / repeats))
    np.testing.assert_allclose(one.noise_ceiling[-1], share, rtol=1e-6)


def test_noise_ceiling_is_none_where_unknown(study):
    data = load_nsd(study, 2, space=SPACE)
    assert data.ncsnr is None
    assert data.noise_ceiling is None


def test_own_test_images(study):
    data = load_nsd(study, 2, space=SPACE, test_images=[2])
    np.testing.assert_array_equal(data.image_ids[data.is_test], [2])
    with pytest.raises(InputError, match="test_images: expected 'shared' or an array"):
        load_nsd(study, 2, space=SPACE, test_images="all")


def test_save_and_load(study, tmp_path):
    write_ncsnr(study, 2, {"left": np.ones(N_LEFT), "right": np.ones(N_RIGHT)}, space=SPACE)
    data = load_nsd(study, 2, space=SPACE)
    back = SubjectData.load(data.save(tmp_path / "prepared" / "sub-02.npz"))
    for name in ("responses", "image_ids", "n_repeats", "is_test", "noise_ceiling", "ncsnr"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    assert (back.subject, back.space) == (data.subject, data.space)
    assert back.n_surface_vertices == data.n_surface_vertices
    np.testing.assert_array_equal(back.vertices["left"], data.vertices["left"])


def test_progress_does_not_change_the_result(study, capsys):
    quiet = load_nsd(study, 2, space=SPACE)
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(
        load_nsd(study, 2, space=SPACE, progress=True).responses, quiet.responses
    )


def test_memory_holds_the_result_and_little_more(tmp_path, rng, monkeypatch):
    """No session stays, and nothing is copied to leave vertices out."""
    monkeypatch.setattr("neuroigc._mgh.BLOCK_BYTES", 2**16)
    n_vertices, n_trials, n_sessions = 3000, 40, 24
    n = n_trials * n_sessions
    write_experiment(
        tmp_path,
        master_ordering=np.arange(1, n + 1),
        subject_images=[np.arange(1, n + 1)],
        shared_images=[1],
        trials_per_session=n_trials,
    )
    for session in range(1, n_sessions + 1):
        betas = rng.normal(size=(n_vertices, n_trials)).astype(np.float32)
        betas[::5, 0] = np.nan
        write_betas(tmp_path, 1, session, {"left": betas, "right": betas}, space=SPACE)
    load_nsd(tmp_path, 1, space=SPACE, sessions=[1])  # what is imported once
    tracemalloc.start()
    data = load_nsd(tmp_path, 1, space=SPACE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.responses.shape == (n, 2 * 2400)
    allocated = n * 2 * n_vertices * 4
    # A quarter more is enough for two sessions and the blocks that they are read in.
    assert peak < 1.25 * allocated


# Files that are wrong.


def test_missing_session(study):
    path = study / BETAS / "rh.betas_session02.mgh"
    path.unlink()
    with pytest.raises(InputError, match=rf"the file {path}; got no .* right sessions .* \[1, 3\]"):
        load_nsd(study, 2, space=SPACE)
    with pytest.raises(InputError, match=r"lh.betas_session09.mgh; got no such file"):
        load_nsd(study, 2, space=SPACE, sessions=[1, 9])


def test_no_betas_at_all(study):
    with pytest.raises(InputError, match=r"session files .* in .*subj01.*got none"):
        load_nsd(study, 1, space=SPACE)


def test_truncated_file(study):
    path = study / BETAS / "lh.betas_session03.mgh"
    whole = path.read_bytes()
    expected = 284 + N_LEFT * N_TRIALS * 4
    path.write_bytes(whole[: expected - 1])
    with pytest.raises(
        InputError, match=rf"{path}: expected at least {expected} bytes.*got {expected - 1} bytes"
    ):
        load_nsd(study, 2, space=SPACE)
    path.write_bytes(whole[:10])
    with pytest.raises(InputError, match=rf"{path}: expected an MGH file"):
        load_nsd(study, 2, space=SPACE)


def test_wrong_number_of_vertices(study, betas):
    write_betas(study, 2, 2, {"left": betas["left"][1][:-1]}, space=SPACE)
    with pytest.raises(InputError, match=r"lh.betas_session02.mgh: expected 7 vertices.*got 6"):
        load_nsd(study, 2, space=SPACE)


def test_template_spaces_have_known_numbers_of_vertices(study, betas):
    write_betas(study, 2, 1, {k: v[0] for k, v in betas.items()}, space="fsaverage5")
    with pytest.raises(InputError, match=r"expected 10242 vertices, as fsaverage5 has; got 7"):
        load_nsd(study, 2, space="fsaverage5")


def test_betas_without_an_image_id(study, betas):
    session = {side: values[0] for side, values in betas.items()}
    write_betas(study, 2, 4, session, space=SPACE)
    with pytest.raises(InputError, match=r"session04.mgh: expected an image id .*73 to 96"):
        load_nsd(study, 2, space=SPACE)


def test_trials_that_differ_from_the_design(study, betas):
    for s in range(N_SESSIONS):
        session = {side: values[s][:, :20] for side, values in betas.items()}
        write_betas(study, 2, s + 1, session, space=SPACE)
    with pytest.raises(InputError, match=r"24 trials in session 1\); got 20 trials"):
        load_nsd(study, 2, space=SPACE)


def test_sessions_of_different_length(study, betas):
    write_betas(study, 2, 2, {"right": betas["right"][1][:, :20]}, space=SPACE)
    with pytest.raises(InputError, match=r"rh.betas_session02.mgh: expected 24 trials.*got 20"):
        load_nsd(study, 2, space=SPACE)


def test_missing_design(study):
    path = study / DESIGN / "nsd_expdesign.mat"
    path.unlink()
    with pytest.raises(InputError, match=f"a folder with {path}; got no such file"):
        load_nsd(study, 2, space=SPACE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"not MATLAB at all",
        lambda _: b"garbage, and much of it" * 99,
        lambda whole: whole[:60],
        lambda whole: whole[:126],
        lambda whole: whole[:140],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-5],
        # As the header of version 7.3 has it.
        lambda whole: whole[:124] + b"\x00\x02IM" + whole[128:],
    ],
)
def test_damaged_design(study, damage):
    path = study / DESIGN / "nsd_expdesign.mat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{path}: expected (a whole MATLAB file|the variables)"):
        load_nsd(study, 2, space=SPACE)


def put(values, index, value):
    values = values.astype(float)
    values[index] = value
    return values


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("subjectim", lambda x: put(x, (1, 2), np.nan), "subjectim in .*mat: expected whole num"),
        ("subjectim", lambda x: put(x, (1, 2), 0), "subjectim in .* from 1 up; got 0"),
        ("subjectim", lambda x: put(x, (0, 0), 2.5), "subjectim in .*: expected whole numbers"),
        ("subjectim", lambda x: csc_array(x.astype(float)), "subjectim in .*: expected whole"),
        ("subjectim", lambda _: np.array(["many"]), "subjectim in .*: expected whole numbers"),
        ("masterordering", lambda x: put(x, (0, 3), 999), "numbers up to 999 and subjectim of sh"),
        ("masterordering", lambda x: put(x, (0, 3), -1), "masterordering in .*1 up; got -1"),
        ("masterordering", lambda x: put(x, (0, 3), np.inf), "masterordering in .* whole numbers"),
        ("masterordering", lambda _: np.empty((1, 0)), "masterordering in .*1 up; got none"),
        ("sharedix", lambda x: put(x, (0, 0), 0), "sharedix in .*1 up; got 0"),
        ("stimpattern", lambda x: x[0], "stimpattern in .* array of sessions, runs and trials"),
    ],
)
def test_numbers_of_the_design(study, name, change, message):
    path = study / DESIGN / "nsd_expdesign.mat"
    content = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    savemat(path, content | {name: change(content[name])})
    with pytest.raises(InputError, match=message):
        load_nsd(study, 2, space=SPACE)


@pytest.mark.parametrize("sessions", [1, np.int64(1), "1", ["1"], [1.5], [np.nan], [[1]], []])
def test_sessions_that_are_no_sequence_of_numbers(study, sessions):
    with pytest.raises(
        InputError, match=r"sessions: expected .* such as \[1, 2\] or range\(1, 3\)"
    ):
        load_nsd(study, 2, space=SPACE, sessions=sessions)


@pytest.mark.parametrize("test_images", [[0.5], 3, [True, False], [np.nan], ["a"]])
def test_test_images_that_are_no_numbers(study, test_images):
    with pytest.raises(InputError, match="test_images: expected 'shared' or 0-based numbers"):
        load_nsd(study, 2, space=SPACE, test_images=test_images)


def test_unknown_subjects(study):
    with pytest.raises(InputError, match="subject: expected a number such as 1 or 'subj01'"):
        load_nsd(study, "bert", space=SPACE)
    for path in (study / BETAS).glob("*.mgh"):
        target = study / BETAS.replace("subj02", "subj07") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="subject: expected one of 1 to 2; got 07"):
        load_nsd(study, 7, space=SPACE)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"left": np.ones(N_LEFT, bool)}, "mask: expected 'left' and 'right'"),
        ({"left": np.ones(9, bool), "right": np.ones(5, bool)}, r"bool of shape \(7,\)"),
        ({"left": np.ones(7, int), "right": np.ones(5, bool)}, r"got int64 of shape \(7,\)"),
    ],
)
def test_masks_that_do_not_fit(study, mask, message):
    with pytest.raises(InputError, match=message):
        load_nsd(study, 2, space=SPACE, mask=mask)


def test_sessions_named_twice(study):
    with pytest.raises(InputError, match="sessions: expected distinct"):
        load_nsd(study, 2, space=SPACE, sessions=[1, 1])


def test_wrong_ncsnr(study):
    write_ncsnr(study, 2, {"left": np.ones(N_LEFT), "right": np.ones(9)}, space=SPACE)
    with pytest.raises(InputError, match=r"rh.ncsnr.mgh: expected 5 vertices; got 9"):
        load_nsd(study, 2, space=SPACE)


# MGH files.


@pytest.mark.parametrize("shape", [(6, 1, 1, 3), (1, 6, 1, 3), (1, 1, 6, 3)])
def test_mgh_axes_and_byte_order(tmp_path, shape):
    """Against bytes put together by hand."""
    values = np.arange(18, dtype=">f4").reshape(3, 6)
    path = tmp_path / "x.mgh"
    path.write_bytes(struct.pack(">7i", 1, *shape, 3, 0).ljust(284, b"\0") + values.tobytes())
    np.testing.assert_array_equal(open_mgh(path), values)
    image = nib.MGHImage.from_bytes(path.read_bytes())
    np.testing.assert_array_equal(np.squeeze(image.dataobj), values.T)


def test_mgh_of_a_volume_or_strange_type(tmp_path):
    path = tmp_path / "x.mgh"
    path.write_bytes(struct.pack(">7i", 1, 4, 4, 4, 1, 3, 0).ljust(999, b"\0"))
    with pytest.raises(InputError, match="surface data of shape"):
        open_mgh(path)
    path.write_bytes(struct.pack(">7i", 1, 4, 1, 1, 1, 9, 0).ljust(999, b"\0"))
    with pytest.raises(InputError, match=r"an MGH type .* got type 9"):
        open_mgh(path)


@pytest.mark.parametrize("suffix", ["mgh", "mgz"])
@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 1, 6)])
def test_surface_vectors(tmp_path, suffix, shape):
    values = np.arange(6, dtype=np.float32)
    path = tmp_path / f"x.{suffix}"
    nib.save(nib.MGHImage(values.reshape(shape), np.eye(4)), path)
    read = read_map(path)
    np.testing.assert_array_equal(read, values)
    nib.save(nib.MGHImage(np.zeros((6, 1, 1, 2), np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match="one value per vertex"):
        read_map(path)


@pytest.mark.data
def test_real_group_labels(real_data):
    counts = {"lh": [2736, 6218, 1451, 1227, 1144], "rh": [2452, 6058, 1347, 1600, 1251]}
    for prefix, expected in counts.items():
        labels = read_map(real_data / "nsd_group_rois" / f"{prefix}.highlevelvisual.mgz")
        assert labels.shape == (163842,)
        np.testing.assert_array_equal(np.bincount(labels.astype(int))[1:], expected)
