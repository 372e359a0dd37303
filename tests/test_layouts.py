"""The writers, as files that other programmes open."""

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from neuroigc._validation import InputError
from neuroigc.datasets.layouts import (
    write_betas,
    write_experiment,
    write_labels,
    write_ncsnr,
    write_stimuli,
)

DESIGN = "nsddata/experiments/nsd"
ORDERING = [2, 1, 3, 3, 2, 2, 1, 3]
IMAGES = [[1, 9, 4], [1, 2, 3]]


@pytest.fixture
def experiment(tmp_path):
    write_experiment(
        tmp_path,
        master_ordering=ORDERING,
        subject_images=IMAGES,
        shared_images=[1],
        trials_per_session=4,
    )
    return tmp_path / DESIGN


def test_betas_are_big_endian_mgh(tmp_path, rng):
    values = rng.normal(size=(6, 4)).astype(np.float32)
    (path,) = write_betas(tmp_path, "subj03", 7, {"right": values}, space="fsaverage5")
    folder = "nsddata_betas/ppdata/subj03/fsaverage5/betas_fithrf_GLMdenoise_RR"
    assert path == tmp_path / folder / "rh.betas_session07.mgh"
    image = nib.MGHImage.from_bytes(path.read_bytes())
    assert image.shape == (6, 1, 1, 4)
    assert image.get_data_dtype() == np.dtype(">f4")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[:, 0, 0], values)


def test_ncsnr(tmp_path):
    paths = write_ncsnr(
        tmp_path, 1, {"left": np.arange(6.0), "right": np.arange(5.0)}, space="fsaverage5"
    )
    assert [path.name for path in paths] == ["lh.ncsnr.mgh", "rh.ncsnr.mgh"]
    assert nib.MGHImage.from_bytes(paths[1].read_bytes()).shape == (5, 1, 1)


def test_labels_and_table(tmp_path):
    labels = {"left": np.array([0, 1, 1, 2]), "right": np.array([0, 0, 0, 0])}
    *_, table = write_labels(tmp_path, "subj01", "floc-faces", labels, {1: "OFA", 2: "FFA-1"})
    folder = tmp_path / "nsddata/freesurfer/subj01/label"
    image = nib.load(folder / "lh.floc-faces.mgz")
    assert image.shape == (4, 1, 1)
    assert image.get_data_dtype() == np.dtype(">f4")
    np.testing.assert_array_equal(np.squeeze(image.dataobj), labels["left"])
    assert table == folder / "floc-faces.mgz.ctab"
    # As nsd_access and the Algonauts script read it.
    names = pd.read_csv(table, delimiter=" ", header=None, index_col=0)[1]
    assert names.to_dict() == {0: "Unknown", 1: "OFA", 2: "FFA-1"}


def test_labels_without_a_name(tmp_path):
    with pytest.raises(InputError, match=r"a name for every label; got none for \[2\]"):
        write_labels(tmp_path, "subj01", "x", {"left": np.array([0, 2])}, {1: "V1"})


def test_design(experiment):
    design = loadmat(experiment / "nsd_expdesign.mat")
    np.testing.assert_array_equal(design["masterordering"], [ORDERING])
    np.testing.assert_array_equal(design["subjectim"], IMAGES)
    np.testing.assert_array_equal(design["sharedix"], [[1]])
    assert design["stimpattern"].shape == (2, 12, 75)
    np.testing.assert_array_equal(design["stimpattern"].sum(axis=(1, 2)), [4, 4])


def test_runs_of_a_full_session(tmp_path):
    write_experiment(
        tmp_path,
        master_ordering=np.ones(750),
        subject_images=[[1]],
        shared_images=[1],
    )
    pattern = loadmat(tmp_path / DESIGN / "nsd_expdesign.mat")["stimpattern"]
    np.testing.assert_array_equal(pattern.sum(axis=2), [[63, 62] * 6])


def test_image_table(experiment):
    table = pd.read_csv(experiment / "nsd_stim_info_merged.csv", index_col=0)
    assert len(table) == 9
    np.testing.assert_array_equal(table["nsdId"], np.arange(9))
    np.testing.assert_array_equal(np.flatnonzero(table["shared1000"]), [0])
    np.testing.assert_array_equal(np.flatnonzero(table["subject1"]), [0, 3, 8])
    # Image 9 is column 2 of subject 1, shown on the first, fifth and sixth trial.
    row = table.loc[8]
    assert [row[f"subject1_rep{k}"] for k in range(3)] == [1, 5, 6]
    assert [row[f"subject2_rep{k}"] for k in range(3)] == [0, 0, 0]
    row = table.loc[0]
    assert [row[f"subject2_rep{k}"] for k in range(3)] == [2, 7, 0]
    for name in ("cocoId", "cocoSplit", "cropBox", "loss", "flagged", "BOLD5000"):
        assert name in table


def test_orderings_that_do_not_fit(tmp_path):
    given = {"subject_images": IMAGES, "shared_images": [1]}
    with pytest.raises(InputError, match="whole sessions of 3 trials; got 4 trials"):
        write_experiment(tmp_path, master_ordering=[1, 2, 3, 1], trials_per_session=3, **given)
    with pytest.raises(InputError, match=r"1-based columns .* 1 to 3; got values from 0 to 2"):
        write_experiment(tmp_path, master_ordering=[0, 1, 2], trials_per_session=3, **given)


def test_stimuli_from_an_iterator(tmp_path, rng):
    images = rng.integers(0, 256, size=(130, 6, 6, 3), dtype=np.uint8)
    path = write_stimuli(tmp_path, (image for image in images))
    assert path == tmp_path / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    with h5py.File(path) as file:
        assert file["imgBrick"].dtype == np.uint8
        np.testing.assert_array_equal(file["imgBrick"], images)


def test_stimuli_of_another_kind(tmp_path):
    with pytest.raises(InputError, match=r"uint8 arrays of shape .* got float64"):
        write_stimuli(tmp_path, np.zeros((2, 6, 6, 3)))
    with pytest.raises(InputError, match="at least one image; got none"):
        write_stimuli(tmp_path, [])
    assert not list(tmp_path.rglob("*.hdf5"))


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "nsddata").write_text("in the way")
    with pytest.raises(InputError, match="root: expected a folder that can be written to"):
        write_labels(tmp_path, "subj01", "x", {"left": np.array([0, 1])}, {1: "V1"})
