"""The Algonauts layout: the same study, read another way; and pickles that are not obeyed."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuroigc._validation import InputError
from neuroigc.datasets import (
    algonauts,
    load_algonauts,
    load_algonauts_images,
    load_algonauts_rois,
    load_manifest,
    load_nsd,
    load_nsd_images,
    write_algonauts_submission,
)
from neuroigc.datasets.layouts import (
    write_algonauts,
    write_betas,
    write_experiment,
    write_labels,
    write_stimuli,
)

N = {"left": 8, "right": 6}
N_TRIALS, N_IMAGES, SPACE = 24, 30, "tiny"
TABLE = {1: "V1v", 2: "V1d"}


@pytest.fixture
def study(tmp_path, rng):
    root = tmp_path / "nsd"
    shared = np.array([2, 30])
    own = rng.permutation(np.setdiff1d(np.arange(1, N_IMAGES + 1), shared))
    images = np.stack([np.r_[shared, own[:14]], np.r_[shared, own[14:]]])
    write_experiment(
        root,
        master_ordering=rng.permutation(np.tile(np.arange(1, 17), 3)),
        subject_images=images,
        shared_images=shared,
        trials_per_session=N_TRIALS,
    )
    write_stimuli(root, rng.integers(0, 256, size=(N_IMAGES, 12, 12, 3), dtype=np.uint8))
    for subject in (1, 2):
        for session in (1, 2):
            betas = {
                side: rng.normal(size=(n, N_TRIALS)).astype(np.float32) for side, n in N.items()
            }
            if subject == 2:
                betas["left"][3] = np.nan
            write_betas(root, subject, session, betas, space=SPACE)
        labels = {side: np.arange(n) % 3 for side, n in N.items()}
        write_labels(root, f"subj{subject:02d}", "prf-visualrois", labels, TABLE)
    return root


@pytest.fixture
def export(study, tmp_path):
    return write_algonauts(study, tmp_path / "algonauts", subjects=[1, 2], space=SPACE)


@pytest.mark.parametrize("subject", [1, 2])
def test_same_responses_as_nsd(study, export, subject):
    nsd = load_nsd(study, subject, space=SPACE)
    algonauts = load_algonauts(export, subject)
    train = ~nsd.is_test
    assert 0 < train.sum() < len(train)
    np.testing.assert_array_equal(algonauts.responses, nsd.responses[train])
    np.testing.assert_array_equal(algonauts.image_ids, nsd.image_ids[train])
    assert not algonauts.is_test.any()
    assert algonauts.n_repeats is None
    assert algonauts.n_surface_vertices == N
    for side in N:
        np.testing.assert_array_equal(algonauts.vertices[side], nsd.vertices[side])


def test_test_responses_on_request(study, tmp_path):
    out = write_algonauts(study, tmp_path / "all", subjects=[1], space=SPACE, test_responses=True)
    nsd, algonauts = load_nsd(study, 1, space=SPACE), load_algonauts(out, 1)
    np.testing.assert_array_equal(algonauts.responses, nsd.responses)
    np.testing.assert_array_equal(algonauts.image_ids, nsd.image_ids)
    np.testing.assert_array_equal(algonauts.is_test, nsd.is_test)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no HDF5")])
def test_stimuli_that_cannot_be_exported_are_named(study, tmp_path, damage):
    (path,) = study.rglob("nsd_stimuli.hdf5")
    damage(path)
    with pytest.raises(InputError, match=f"{path}: expected a whole HDF5 file"):
        write_algonauts(study, tmp_path / "out", subjects=[1], space=SPACE)


def test_layout_of_the_release(export):
    folder = export / "subj01"
    responses = np.load(folder / "training_split/training_fmri/lh_training_fmri.npy")
    names = sorted(path.name for path in (folder / "training_split/training_images").iterdir())
    assert responses.shape == (14, N["left"])
    assert responses.dtype == np.float32
    assert len(names) == 14
    assert names[0].startswith("train-0001_nsd-")
    assert len(names[0]) == len("train-0001_nsd-00013.png")
    tests = sorted(path.name for path in (folder / "test_split/test_images").iterdir())
    assert tests == ["test-0001_nsd-00001.png", "test-0002_nsd-00029.png"]
    mask = np.load(export / "subj02/roi_masks/lh.all-vertices_fsaverage_space.npy")
    np.testing.assert_array_equal(mask, np.arange(8) != 3)
    challenge = np.load(export / "subj02/roi_masks/lh.prf-visualrois_challenge_space.npy")
    np.testing.assert_array_equal(challenge, [0, 1, 2, 1, 2, 0, 1])


def test_images(study, export):
    images, ids = load_algonauts_images(export, 1, size=6)
    np.testing.assert_array_equal(ids, load_algonauts(export, 1).image_ids)
    np.testing.assert_array_equal(images, load_nsd_images(study, ids, size=6))
    images, ids = load_algonauts_images(export, 1, split="test", gray=False)
    np.testing.assert_array_equal(ids, [1, 29])
    assert images.shape == (2, 3, 12, 12)
    with pytest.raises(InputError, match="split: expected one of 'training', 'test'"):
        load_algonauts_images(export, 1, split="validation")


def test_mask_is_cut_with_the_challenge(export):
    mask = {"left": np.arange(8) < 5, "right": np.zeros(6, bool)}
    data = load_algonauts(export, 2, mask=mask)
    np.testing.assert_array_equal(data.vertices["left"], [0, 1, 2, 4])
    assert data.responses.shape[1] == 4
    np.testing.assert_array_equal(data.responses, load_algonauts(export, 2).responses[:, :4])
    with pytest.raises(InputError, match=r"mask\['right'\]: expected bool of shape \(6,\)"):
        load_algonauts(export, 2, mask={"left": mask["left"]})


def test_invalid_vertices_are_counted(export):
    path = export / "subj01/training_split/training_fmri/rh_training_fmri.npy"
    values = np.load(path)
    values[3, 2] = np.nan
    np.save(path, values)
    data = load_algonauts(export, 1)
    assert data.n_dropped == {"left": 0, "right": 1}
    np.testing.assert_array_equal(data.vertices["right"], [0, 1, 3, 4, 5])
    assert np.isfinite(data.responses).all()


def test_number_of_images_and_responses_differ(export):
    path = export / "subj01/training_split/training_fmri/rh_training_fmri.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(InputError, match=r"rh_training_fmri.npy: expected shape \(14, 6\).*13"):
        load_algonauts(export, 1)


def test_truncated_and_missing_files(export):
    path = export / "subj01/training_split/training_fmri/lh_training_fmri.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"lh_training_fmri.npy: expected a whole .npy file"):
        load_algonauts(export, 1)
    path.write_bytes(b"\x93NUMPY\x01\x00\x02\x00{\n")
    with pytest.raises(InputError, match=r"lh_training_fmri.npy: expected a whole .npy file"):
        load_algonauts(export, 1)
    path.unlink()
    with pytest.raises(InputError, match=r"lh_training_fmri.npy: expected a whole .npy file"):
        load_algonauts(export, 1)
    with pytest.raises(InputError, match=r"train-NNNN_nsd-NNNNN.png in .*subj05.*; got none"):
        load_algonauts(export, 5)


def test_image_named_twice(export):
    folder = export / "subj01/training_split/training_images"
    first = min(folder.iterdir())
    Image.new("RGB", (12, 12)).save(folder / f"train-0099_{first.name.split('_')[1]}")
    with pytest.raises(InputError, match="each image once"):
        load_algonauts(export, 1)


# Names of regions.


def test_regions(export):
    labels, table = load_algonauts_rois(export, 2, "prf-visualrois")
    assert table == {0: "Unknown", **TABLE}
    np.testing.assert_array_equal(labels["left"], [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(labels["right"], [0, 1, 2, 0, 1, 2])


def as_released(folder, content, **options):
    """Put the pickled form of the release in the place of ours."""
    (folder / "mapping_prf-visualrois.json").unlink(missing_ok=True)
    path = folder / "mapping_prf-visualrois.npy"
    np.save(path, content, allow_pickle=True, **options)
    return path


def test_pickled_names_are_read_without_unpickling(export, monkeypatch):
    folder = export / "subj01/roi_masks"
    mapping = {0: "Unknown", 1: "V1v", 2: "V1d", 300: "naïve", 70000: "x" * 300}
    as_released(folder, mapping)
    monkeypatch.setattr(pickle, "load", None)
    monkeypatch.setattr(pickle, "loads", None)
    assert load_algonauts_rois(export, 1, "prf-visualrois")[1] == mapping


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(export, protocol):
    folder = export / "subj01/roi_masks"
    path = as_released(folder, {})
    header = path.read_bytes()[:128]
    content = np.array({0: "Unknown", 1: "V1v", 2: "V1d"}, dtype=object)
    path.write_bytes(header + pickle.dumps(content, protocol=protocol))
    if protocol == 2:  # asks for a codec, which numpy's own files never do
        with pytest.raises(InputError, match=r"a call of _codecs.encode"):
            load_algonauts_rois(export, 1, "prf-visualrois")
    else:
        assert load_algonauts_rois(export, 1, "prf-visualrois")[1][2] == "V1d"


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["value", "key", "top"])
def test_pickles_that_call_something(export, tmp_path, place):
    trap = tmp_path / "sprung"
    mapping = {
        "value": {0: "Unknown", 1: Malice(trap)},
        "key": {Malice(trap): "V1v"},
        "top": Malice(trap),
    }[place]
    as_released(export / "subj01/roi_masks", mapping)
    with pytest.raises(InputError, match=r"nothing to execute; got a call of \w+\.mkdir"):
        load_algonauts_rois(export, 1, "prf-visualrois")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: "Unknown", "1": "V1v"}, "names of integer labels; got .'1', 'V1v'"),
        ({0: "Unknown", 1: 2}, r"names of integer labels; got \(1, 2\)"),
        ({True: "V1v"}, "names of integer labels"),
        (np.array(["V1v"], object), "nothing to execute; got an array of object of shape"),
        (np.array([1, 2]), "nothing to execute; got an array of int64"),
        ({1: 0.5}, "the instruction BINFLOAT"),
    ],
)
def test_other_things_in_place_of_names(export, content, message):
    as_released(export / "subj01/roi_masks", content)
    with pytest.raises(InputError, match=message):
        load_algonauts_rois(export, 1, "prf-visualrois")


def test_huge_mappings_are_not_read(export):
    path = as_released(export / "subj01/roi_masks", {1: "V1v"})
    path.write_bytes(path.read_bytes() + bytes(2**20))
    with pytest.raises(InputError, match="more than 1048576 bytes"):
        load_algonauts_rois(export, 1, "prf-visualrois")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"1": "V1v", "1": "V1d"}', '{"1": 3}', "{"])
def test_names_in_json_that_are_none(export, text):
    (export / "subj01/roi_masks/mapping_prf-visualrois.json").write_text(text)
    with pytest.raises(InputError, match=r"names of (integer )?labels"):
        load_algonauts_rois(export, 1, "prf-visualrois")


def test_regions_in_the_space_of_the_responses(export):
    labels, table = load_algonauts_rois(export, 2, "prf-visualrois", space="challenge")
    everywhere, _ = load_algonauts_rois(export, 2, "prf-visualrois")
    vertices = load_algonauts(export, 2).vertices
    for side in N:
        np.testing.assert_array_equal(labels[side], everywhere[side][vertices[side]])
    assert table[1] == "V1v"
    with pytest.raises(InputError, match="space: expected one of 'fsaverage', 'challenge'"):
        load_algonauts_rois(export, 2, "prf-visualrois", space="native")


def test_empty_regions_are_normal(export):
    folder = export / "subj02/roi_masks"
    for space in ("fsaverage", "challenge"):
        path = folder / f"rh.prf-visualrois_{space}_space.npy"
        np.save(path, np.zeros_like(np.load(path)))
    labels, table = load_algonauts_rois(export, 2, "prf-visualrois")
    assert not labels["right"].any()
    assert table == {0: "Unknown", **TABLE}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("lh.prf-visualrois_challenge_space", lambda x: x[::-1], "the same labels in fsaverage"),
        ("lh.prf-visualrois_challenge_space", lambda x: x[1:], "expected 7 labels; got 6"),
        ("lh.prf-visualrois_fsaverage_space", lambda x: np.r_[x, 0], "expected 8 labels; got 9"),
        ("lh.prf-visualrois_fsaverage_space", lambda x: np.r_[1, 1, 2, 1, x[4:]], "and none out"),
        ("lh.prf-visualrois_fsaverage_space", lambda x: x - 1, "whole numbers from 0 to 2147"),
        ("lh.prf-visualrois_fsaverage_space", lambda x: x + 0.0, "got float64 of shape"),
        ("lh.all-vertices_fsaverage_space", lambda x: x * 2, "whole numbers from 0 to 1, one"),
        ("lh.all-vertices_fsaverage_space", lambda x: x[:0], "whole numbers from 0 to 1, one"),
    ],
)
def test_masks_that_do_not_fit(export, file, change, message):
    path = export / "subj02/roi_masks" / f"{file}.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(InputError, match=message):
        load_algonauts_rois(export, 2, "prf-visualrois")


def test_responses_of_another_type(export):
    path = export / "subj01/training_split/training_fmri/lh_training_fmri.npy"
    np.save(path, np.load(path).view(np.int32))
    with pytest.raises(InputError, match="responses in float32; got int32"):
        load_algonauts(export, 1)


def test_numbers_of_vertices_of_the_release(tmp_path, monkeypatch):
    """Files of full size must be of the subject that they say they are of."""
    monkeypatch.setitem(algonauts.RELEASE, "06", (2, *algonauts.RELEASE["06"][1:]))
    folder = tmp_path / "subj06"
    for name in ("training_split/training_fmri", "training_split/training_images", "roi_masks"):
        (folder / name).mkdir(parents=True)
    for number in (0, 5):
        name = f"train-{number:04d}_nsd-{number:05d}.png"
        Image.new("RGB", (4, 4)).save(folder / "training_split/training_images" / name)

    def write(counts):
        for prefix, n in zip(("lh", "rh"), counts, strict=True):
            mask = (np.arange(163842) < n).astype(np.int64)
            np.save(folder / "roi_masks" / f"{prefix}.all-vertices_fsaverage_space.npy", mask)
            responses = np.stack([np.arange(n), np.arange(n)[::-1] + 0.5]).astype(np.float32)
            np.save(folder / f"training_split/training_fmri/{prefix}_training_fmri.npy", responses)

    write((18978, 20220))
    data = load_algonauts(tmp_path, 6)
    assert data.space == "fsaverage"
    assert [len(v) for v in data.vertices.values()] == [18978, 20220]
    write((19004, 20544))
    with pytest.raises(InputError, match=r"18978 and 20220 vertices of .*; got 19004 and 20544"):
        load_algonauts(tmp_path, 6)


def test_release_is_the_manifests(tmp_path):
    shapes = {
        entry.path.split("/")[0] + Path(entry.path).name[:2]: entry.shape
        for entry in load_manifest("algonauts2023").files
        if entry.role == "responses"
    }
    for subject, (n_images, *n_vertices) in algonauts.RELEASE.items():
        for prefix, n in zip(("lh", "rh"), n_vertices, strict=True):
            assert shapes[f"subj{subject}{prefix}"] == (n_images, n)


# Handing in.


def test_submission(export, tmp_path, rng):
    _, image_ids = load_algonauts_images(export, 1, split="test")
    predictions = rng.normal(size=(2, 14))
    paths = write_algonauts_submission(
        tmp_path / "out", export, 1, predictions[::-1], image_ids=image_ids[::-1]
    )
    folder = tmp_path / "out/subj01"
    assert paths == [folder / "lh_pred_test.npy", folder / "rh_pred_test.npy"]
    left, right = (np.load(path) for path in paths)
    assert (left.shape, right.shape) == ((2, 8), (2, 6))
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_array_equal(np.c_[left, right], predictions.astype(np.float32))


def test_rows_go_by_the_order_of_files(export, tmp_path):
    folder = export / "subj01/test_split/test_images"
    first = min(folder.iterdir())
    first.rename(folder / "test-0003_nsd-00001.png")
    predictions = np.repeat([[1.0], [29.0]], 14, axis=1)
    left, _ = write_algonauts_submission(tmp_path, export, 1, predictions, image_ids=[1, 29])
    np.testing.assert_array_equal(np.load(left)[:, 0], [29, 1])


@pytest.mark.parametrize(
    ("predictions", "image_ids", "message"),
    [
        (np.zeros((2, 14)), [1, 2], "each of the 2 test images .*; 1 images missing, 1 others"),
        (np.zeros((2, 14)), [1, 1], "each of the 2 test images"),
        (np.zeros((1, 14)), [1], "each of the 2 test images"),
        (np.zeros((2, 13)), [1, 29], r"numbers of shape \(2, 14\).*got float64 of shape \(2, 13"),
        (np.full((2, 14), np.nan), [1, 29], "finite numbers; got 28 that are not"),
        (np.full((2, 14), 1e300), [1, 29], "finite numbers; got 28 that are not, in float32"),
        (np.full((2, 14), "a"), [1, 29], "got <U1 of shape"),
    ],
)
def test_submissions_that_lack_something(export, tmp_path, predictions, image_ids, message):
    with pytest.raises(InputError, match=message):
        write_algonauts_submission(tmp_path / "o", export, 1, predictions, image_ids=image_ids)
    assert not (tmp_path / "o").exists()


def test_some_images_in_any_order(export):
    everything, image_ids = load_algonauts_images(export, 1)
    some, their_ids = load_algonauts_images(export, 1, image_ids=image_ids[[3, 0]])
    np.testing.assert_array_equal(their_ids, image_ids[[3, 0]])
    np.testing.assert_array_equal(some, everything[[3, 0]])
    with pytest.raises(InputError, match=r"image_ids: expected numbers of images .*; got 1 others"):
        load_algonauts_images(export, 1, image_ids=[image_ids[0], 70_000])


def test_images_of_both_splits_in_one_call(study, export):
    train = load_algonauts_images(export, 1)[1]
    wanted = [29, *train[[3, 0]], 1]
    images, image_ids = load_algonauts_images(export, 1, image_ids=wanted)
    np.testing.assert_array_equal(image_ids, wanted)
    np.testing.assert_array_equal(images, load_nsd_images(study, wanted))
    with pytest.raises(InputError, match="subject 1's training split; got 2 others, such as 1"):
        load_algonauts_images(export, 1, image_ids=wanted, split="training")
    with pytest.raises(InputError, match="subject 1's test split; got 2 others"):
        load_algonauts_images(export, 1, image_ids=wanted, split="test")
    # Without a test split there is still the other.
    shutil.rmtree(export / "subj01/test_split")
    np.testing.assert_array_equal(
        load_algonauts_images(export, 1, image_ids=wanted[1:3])[0], images[1:3]
    )


@pytest.mark.parametrize("image_ids", [3, [0.5], ["a"], [[3]], [True], [np.nan]])
def test_image_ids_that_are_no_numbers(export, image_ids):
    with pytest.raises(InputError, match="image_ids: expected 0-based numbers of images"):
        load_algonauts_images(export, 1, image_ids=image_ids)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"no PNG",
        lambda whole: whole[:20],
        lambda whole: whole[:60],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:60] + bytes(len(whole) - 60),
    ],
)
def test_damaged_images(export, damage):
    path = sorted((export / "subj01/training_split/training_images").iterdir())[4]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"{path}: expected a whole PNG file"):
        load_algonauts_images(export, 1)


@pytest.mark.parametrize("gray", [True, False])
def test_images_of_several_sizes(export, gray):
    path = sorted((export / "subj01/training_split/training_images").iterdir())[4]
    Image.new("RGB", (14, 10)).save(path)
    with pytest.raises(InputError, match=rf"{path}: expected 12 x 12 pixels, .*; got 14 x 10"):
        load_algonauts_images(export, 1, gray=gray)
    assert load_algonauts_images(export, 1, size=6, gray=gray)[0].shape[-2:] == (6, 6)


@pytest.mark.parametrize("keep", [128, 140, 160, 200])
def test_cut_pickles(export, keep):
    path = as_released(export / "subj01/roi_masks", {0: "Unknown", 1: "V1v", 2: "V1d"})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="one dictionary of int to str and nothing to execute"):
        load_algonauts_rois(export, 1, "prf-visualrois")


def test_random_damage_never_escapes(export, rng):
    path = as_released(export / "subj01/roi_masks", {0: "Unknown", 1: "V1v", 2: "V1d"})
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    n_refused = 0
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(128, len(whole), size=2)] = rng.integers(0, 256, size=2)
        path.write_bytes(damaged.tobytes())
        try:
            load_algonauts_rois(export, 1, "prf-visualrois")
        except InputError:
            n_refused += 1
    assert n_refused > 150


def test_pickles_that_would_print_or_hash_for_ever(export):
    nested = ()
    for _ in range(60):
        nested = (nested, nested)
    path = as_released(export / "subj01/roi_masks", {1: nested})
    with pytest.raises(InputError, match=r"names of integer labels; got .1, <class 'tuple'>"):
        load_algonauts_rois(export, 1, "prf-visualrois")
    header = path.read_bytes()[:128]
    # Written by hand: to make such a key, pickle would have to hash it.
    doubled = b")" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(60))
    path.write_bytes(header + b"\x80\x04}" + doubled + b"K\x01s.")
    with pytest.raises(InputError, match="something else than names by number"):
        load_algonauts_rois(export, 1, "prf-visualrois")


def test_names_that_are_missing(export):
    folder = export / "subj01/roi_masks"
    path = folder / "mapping_prf-visualrois.json"
    path.write_text(json.dumps({"0": "Unknown", "1": "V1v"}))
    with pytest.raises(InputError, match=r"a name for every label; got none for \[2\]"):
        load_algonauts_rois(export, 1, "prf-visualrois")
    path.write_text("[]")
    with pytest.raises(InputError, match=r"mapping_prf-visualrois.json: expected names of labels"):
        load_algonauts_rois(export, 1, "prf-visualrois")
    path.unlink()
    with pytest.raises(InputError, match=r"expected a .json or .npy file; got neither"):
        load_algonauts_rois(export, 1, "prf-visualrois")


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_responses_to_test_images_of_one_hemisphere_alone(study, tmp_path, hemisphere):
    root = write_algonauts(study, tmp_path / "a", subjects=[1], space=SPACE, test_responses=True)
    path = root / "subj01" / "test_split" / "test_fmri" / f"{hemisphere}_test_fmri.npy"
    path.unlink()
    with pytest.raises(
        InputError, match=f"{path.name}: expected a whole .npy file; got .* No such"
    ):
        load_algonauts(root, 1)
