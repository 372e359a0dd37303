"""An invented study, read back as any study is read."""

import json
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import (
    _paths,
    load_nsd,
    load_nsd_images,
    make_study,
    simulation,
    synthetic_betas,
)
from neuroigc.datasets.simulation import load_truth
from neuroigc.datasets.synthetic_images import make_scene
from neuroigc.datasets.synthetic_retinotopy import visual_mask

TINY = {
    "n_subjects": 2,
    "n_sessions": (2, 1),
    "trials_per_session": 60,
    "n_shared_images": 12,
    "image_size": 48,
    "seed": 7,
}
HEMISPHERES = ("left", "right")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), **TINY)


@pytest.fixture(scope="module")
def all_eight(tmp_path_factory):
    """Return a study with every subject, with the least of everything else."""
    folder = tmp_path_factory.mktemp("eight")
    return make_study(folder, n_sessions=1, trials_per_session=9, n_shared_images=2, image_size=32)


def read_mgh(path):
    # From bytes, because nibabel leaves the files that it maps into memory open.
    return np.asarray(nib.MGHImage.from_bytes(path.read_bytes()).dataobj)


def betas(root, subject, session):
    paths = [
        _paths.beta_path(root, subject, "fsaverage5", _paths.BETA_VERSION, h, session)
        for h in HEMISPHERES
    ]
    return np.concatenate([read_mgh(path)[:, 0, 0] for path in paths])


def both(truth, name):
    return np.concatenate([truth[h][name] for h in HEMISPHERES])


def ncsnr_file(root, subject):
    paths = [
        _paths.ncsnr_path(root, subject, "fsaverage5", _paths.BETA_VERSION, h) for h in HEMISPHERES
    ]
    return np.concatenate([read_mgh(path).ravel() for path in paths])


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(study, tmp_path):
    again = make_study(tmp_path / "again", **TINY, n_workers=1)
    files = sorted(p.relative_to(study) for p in study.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert len(files) > 40
    for file in files:
        # The text header of a MATLAB file tells the time of writing.
        skip = 128 if file.suffix == ".mat" else 0
        assert (study / file).read_bytes()[skip:] == (again / file).read_bytes()[skip:], file


def test_another_seed_gives_another_study(study, tmp_path):
    other = make_study(tmp_path, **TINY | {"seed": 8})
    assert np.corrcoef(betas(study, 1, 1)[:, 0], betas(other, 1, 1)[:, 0])[0, 1] < 0.5


@pytest.mark.parametrize("subject", [1, 2])
def test_readers_take_it_for_a_study(study, subject):
    mask = visual_mask()
    data = load_nsd(study, subject, space="fsaverage5", mask=mask)
    n_trials = TINY["n_sessions"][subject - 1] * TINY["trials_per_session"]
    assert data.responses.shape == (n_trials - 2 * TINY["n_shared_images"], 2374)
    assert data.is_test.sum() == TINY["n_shared_images"]
    assert (data.n_repeats == np.where(data.is_test, 3, 1)).all()
    assert np.isfinite(data.responses).all()
    for h in HEMISPHERES:
        np.testing.assert_array_equal(data.vertices[h], np.flatnonzero(mask[h]))


def test_subjects_share_the_test_images_and_nothing_else(study):
    first, second = (load_nsd(study, s, space="fsaverage5", mask=visual_mask()) for s in (1, 2))
    shared = first.image_ids[first.is_test]
    np.testing.assert_array_equal(shared, second.image_ids[second.is_test])
    np.testing.assert_array_equal(np.intersect1d(first.image_ids, second.image_ids), shared)
    n_images = len(np.union1d(first.image_ids, second.image_ids))
    with h5py.File(_paths.stimuli_path(study)) as file:
        assert file["imgBrick"].shape == (n_images, 48, 48, 3)


def test_trials_match_their_images(study):
    """Responses predicted from the pixels on disk are the ones that were measured."""
    from neuroigc.datasets.synthetic_responses import SeeingCortex, local_contrast
    from neuroigc.datasets.synthetic_retinotopy import make_visual_cortex

    data = load_nsd(study, 1, space="fsaverage5")
    images = load_nsd_images(study, data.image_ids, gray=True)
    cortex = make_visual_cortex(np.random.default_rng([7, 0, 0, simulation.CORTEX_STREAM]))
    observer = SeeingCortex.of(cortex, image_size=48)
    with np.load(study / "truth" / "images.npz") as file:
        categories = file["categories"][data.image_ids]
    predicted = observer.respond(local_contrast(images), categories)
    columns = np.concatenate([observer.vertices["left"], observer.vertices["right"] + 10242])
    measured = data.responses[:, columns]
    z = (predicted - predicted.mean(axis=0)) / predicted.std(axis=0)
    r = (z * (measured - measured.mean(axis=0)) / measured.std(axis=0)).mean(axis=0)
    fraction = both(load_truth(study, 1), "signal_fraction")[columns]
    assert r.mean() == pytest.approx(np.sqrt(fraction).mean(), rel=0.25)
    # Shuffled images predict nothing.
    shuffled = (np.roll(z, 1, axis=0) * measured / measured.std(axis=0)).mean(axis=0)
    assert abs(shuffled.mean()) < 0.05


def test_pixels_on_disk_are_scenes_by_number(study):
    with h5py.File(_paths.stimuli_path(study)) as file:
        np.testing.assert_array_equal(file["imgBrick"][17], make_scene(7, 17, size=48).pixels)


def test_readers_never_open_the_truth(study, tmp_path):
    blind = tmp_path / "blind"
    shutil.copytree(study, blind, ignore=shutil.ignore_patterns("truth"))
    seen, unseen = (load_nsd(root, 1, space="fsaverage5") for root in (study, blind))
    np.testing.assert_array_equal(seen.responses, unseen.responses)
    with pytest.raises(InputError, match="Only studies from make_study come with the truth"):
        load_truth(blind, 1)


def test_noise_ceilings_are_those_of_nsd(all_eight):
    for subject, expected in enumerate(synthetic_betas.MEDIAN_NCSNR, start=1):
        ncsnr = ncsnr_file(all_eight, subject)
        fraction = both(load_truth(all_eight, subject), "signal_fraction")
        np.testing.assert_allclose(ncsnr**2 / (1 + ncsnr**2), fraction, atol=1e-6)
        assert np.median(ncsnr[fraction > 0]) == pytest.approx(expected, rel=1e-5)
        assert 0.2 < np.log(ncsnr[fraction > 0]).std() < 0.8
        outside = ~np.concatenate([visual_mask()[h] for h in HEMISPHERES])
        assert (fraction[outside] == 0).all()


def test_repeats_show_the_noise_that_the_ceiling_states(study):
    """The release's own estimate of the noise, from images with three trials."""
    responses = np.concatenate([betas(study, 1, s) for s in (1, 2)], axis=1).reshape(20484, 2, 60)
    z = (responses - responses.mean(axis=2, keepdims=True)) / responses.std(axis=2, keepdims=True)
    z = z.reshape(20484, 120)
    from scipy.io import loadmat

    ordering = loadmat(_paths.design_path(study))["masterordering"].ravel().astype(int) - 1
    repeated = [np.flatnonzero(ordering == i) for i in range(TINY["n_shared_images"])]
    noise = np.mean([z[:, trials].var(axis=1, ddof=1) for trials in repeated], axis=0)
    fraction = both(load_truth(study, 1), "signal_fraction")
    for low, high in [(0, 0.01), (0.05, 0.15), (0.15, 0.25), (0.25, 0.6)]:
        chosen = (fraction >= low) & (fraction < high)
        assert chosen.sum() > 50
        assert noise[chosen].mean() == pytest.approx(1 - fraction[chosen].mean(), abs=0.04)


def test_noise_is_partly_smooth_over_cortex(study):
    from scipy.spatial import cKDTree

    from neuroigc.datasets.synthetic_retinotopy import mesh_coordinates

    tree = cKDTree(mesh_coordinates("sphere", "left"))
    neighbour = tree.query(tree.data, k=2)[1][:, 1]
    silent = both(load_truth(study, 1), "signal_fraction")[:10242] == 0
    z = betas(study, 1, 1)[:10242]
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
    near = (z * z[neighbour]).mean(axis=1)[silent & silent[neighbour]]
    assert near.mean() == pytest.approx(synthetic_betas.SMOOTH_SHARE, abs=0.03)
    assert abs((z * np.roll(z, 5000, axis=0)).mean()) < 0.02


def test_sessions_differ_in_level_so_that_standardising_them_matters(study):
    first, second = betas(study, 1, 1), betas(study, 1, 2)
    change = (first.mean(axis=1) - second.mean(axis=1)) / first.std(axis=1)
    # Beyond the standard error of means over 60 trials.
    assert change.std() > 1.5 * np.sqrt(2 / 60)
    assert 0.5 < np.median(first.std(axis=1)) < 3  # percent signal change


def test_the_two_subjects_of_nsd_with_missing_vertices_miss_some_here(all_eight):
    for subject in range(1, 9):
        missing = np.isnan(betas(all_eight, subject, 1))
        assert (missing.all(axis=1) == missing.any(axis=1)).all()
        counts = {6: 22, 8: 3}
        assert missing.any(axis=1).sum() == counts.get(subject, 0)
    data = load_nsd(all_eight, 6, space="fsaverage5", mask=visual_mask())
    assert data.n_dropped == {"left": 2, "right": 20}


def test_truth_is_complete_and_consistent(study):
    for subject in (1, 2):
        for arrays in load_truth(study, subject).values():
            inside = arrays["area"] != ""
            assert set(arrays["area"][inside]) == {"V1", "V2", "V3", "hV4"}
            size = arrays["sigma_deg"] / np.sqrt(arrays["exponent"])
            np.testing.assert_allclose(size, arrays["size_deg"])
            for name in ("x_deg", "y_deg", "size_deg", "exponent"):
                np.testing.assert_array_equal(np.isfinite(arrays[name]), inside)
            assert (arrays["signal_fraction"][inside] > 0).all()
    settings = json.loads((study / "truth" / "study.json").read_text())
    assert settings["seed"] == 7
    assert settings["n_sessions"] == [2, 1]
    assert settings["prf"]["V1"]["size_slope"] == 0.16


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"garbage" * 99,
        lambda whole: whole[:80],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[:120] + bytes(40) + whole[160:],
    ],
)
def test_damaged_truth(study, tmp_path, damage):
    path = tmp_path / "truth" / "subj01.npz"
    path.parent.mkdir()
    path.write_bytes(damage((study / "truth" / path.name).read_bytes()))
    with pytest.raises(InputError, match=f"{path}: expected a .npz file of plain arrays"):
        load_truth(tmp_path, 1)


@pytest.mark.parametrize("name", ["right_area", "left_x_deg"])
def test_truth_that_lacks_something(study, tmp_path, name):
    (tmp_path / "truth").mkdir()
    with np.load(study / "truth" / "subj01.npz") as file:
        arrays = dict(file)
    del arrays[name]
    np.savez(tmp_path / "truth" / "subj01.npz", **arrays)
    with pytest.raises(InputError, match=rf"everything that is true of .*; got no \['{name}'\]"):
        load_truth(tmp_path, 1)


def test_labels_on_disk_are_the_areas(study):
    folder = _paths.label_folder(study, "subj01")
    labels = np.asarray(nib.load(folder / "lh.prf-visualrois.mgz").dataobj).ravel()
    area = load_truth(study, 1)["left"]["area"]
    np.testing.assert_array_equal(np.isin(labels, [1, 2]), area == "V1")
    np.testing.assert_array_equal(labels == 7, area == "hV4")
    table = (folder / "prf-visualrois.mgz.ctab").read_text().split("\n")
    assert table[0] == "0 Unknown"
    assert table[7] == "7 hV4"
    general = nib.load(_paths.label_folder(study, "fsaverage5") / "rh.nsdgeneral.mgz")
    np.testing.assert_array_equal(np.asarray(general.dataobj).ravel() > 0, visual_mask()["right"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_subjects": 9}, "n_subjects: expected 1 to 8; got 9"),
        ({"n_sessions": (2, 1, 1)}, "n_sessions: expected a positive number, or one for each of 2"),
        ({"n_sessions": 0}, "n_sessions: expected a positive number"),
        ({"n_shared_images": 21}, "n_shared_images: expected 1 to 20, so that three"),
        ({"image_size": 50}, "image_size: expected a multiple of 8"),
        ({"seed": -1}, "seed: expected a whole number from 0 up"),
        ({"n_workers": 0}, "n_workers: expected at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        make_study(tmp_path / "study", **TINY | arguments)
    assert not (tmp_path / "study").exists()


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"root: expected a new or empty folder; got .*has files"):
        make_study(tmp_path, **TINY)
