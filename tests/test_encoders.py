"""The encoding part of a study: windows and phantoms, from images to receptive fields."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from neuroigc._validation import InputError
from neuroigc.attribution import IGCResult
from neuroigc.cli import encoders, main
from neuroigc.cli.config import load_config
from neuroigc.cli.folder import STAGES, StudyFolder
from neuroigc.cli.results import write_prfs, write_summary
from neuroigc.cli.stages import run_stage
from neuroigc.cli.study_data import encoding_images, encoding_samples, write_table
from neuroigc.datasets import SubjectData, make_study
from neuroigc.datasets.simulation import load_truth
from neuroigc.models import FieldEncoder, NeuralEncoder
from neuroigc.prf import fit_prf, read_phantom_table, stimulus_power
from neuroigc.stats import noise_ceiling

TOML = """
[data]
root = "{root}"
space = "fsaverage5"
subjects = ["01"]
test_fraction = 0.2
truth = true

[rois]
atlases = ["prf-visualrois"]

[rois.merge]
V1 = ["V1v", "V1d"]

[encoding]
subjects = ["01"]
image_size = 24
n_phantoms = 60
rois = ["V1", "hV4"]

[encoding.network]
channels = [4, 4]
max_epochs = 6
"""
LATENTS = """model = "latents"
max_gradients = 5

[encoding.network]
channels = [4, 4, 4, 4, 4]
n_latents = 6
max_epochs = 1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "nsd"
    return make_study(
        folder,
        n_subjects=1,
        n_sessions=2,
        trials_per_session=300,
        n_shared_images=12,
        image_size=48,
    )


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """Return a study up to its receptive fields."""
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(TOML.format(root=root))
    folder = StudyFolder.create(path.parent / "out", load_config(path))
    for stage in STAGES[:-1]:
        run_stage(folder, stage)
    return folder


@pytest.fixture
def study(whole, tmp_path):
    """Return the study with its results in a folder of the test's own."""
    for path in whole.path.rglob("*"):
        if path.is_file() and path.suffix != ".gii":
            copy = tmp_path / path.relative_to(whole.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return StudyFolder(tmp_path, whole.config)


def changed(folder, **values):
    """Return the folder with other settings of its encoding part."""
    encoding = dataclasses.replace(folder.config.encoding, **values)
    return StudyFolder(folder.path, dataclasses.replace(folder.config, encoding=encoding))


def read(folder, name="prf.tsv"):
    return pd.read_csv(folder.path / name, sep="\t", dtype={"subject": str})


def test_only_the_areas_asked_for_are_encoded(whole):
    table = read(whole)
    assert set(table["roi"]) == {"V1", "hV4"}
    few, all_of_them = (
        encoding_samples(changed(whole, elsewhere=elsewhere), "01", held_out=True)
        for elsewhere in (False, True)
    )
    data = SubjectData.load(whole.prepared("01"))
    assert few.responses.shape[1] == len(table) < all_of_them.responses.shape[1]
    np.testing.assert_array_equal(all_of_them.responses, data.responses[few.rows])
    chosen = np.isin(all_of_them.roi, ["V1", "hV4"])
    np.testing.assert_array_equal(few.responses, all_of_them.responses[:, chosen])
    np.testing.assert_array_equal(few.ncsnr, data.ncsnr[chosen])
    vertices = np.concatenate([data.vertices[side] for side in ("left", "right")])
    np.testing.assert_array_equal(table["vertex"], vertices[chosen])


def test_areas_outside_of_the_mask_are_named(whole):
    with pytest.raises(InputError, match=r"\[encoding\] rois: expected areas with vertices"):
        encoding_samples(changed(whole, rois=("V9",)), "01", held_out=True)


def test_accuracy_is_that_of_held_out_responses(whole):
    samples = encoding_samples(whole, "01", held_out=True)
    predicted = FieldEncoder.load(whole.model("encoder_sub-01")).predict(samples.images)
    n = samples.responses.shape[1]
    assert predicted.shape[1] == n + 60
    r = [np.corrcoef(predicted[:, v], samples.responses[:, v])[0, 1] for v in range(n)]
    table = read(whole)
    np.testing.assert_allclose(table["encoder_r"], r, rtol=1e-4, atol=1e-5)
    data = SubjectData.load(whole.prepared("01"))
    ceiling = noise_ceiling(samples.ncsnr, n_repeats=data.n_repeats[samples.rows])
    np.testing.assert_allclose(table["noise_ceiling_r"] ** 2, ceiling, rtol=1e-4)


def test_ridge_regression_of_local_contrast_stands_beside_the_encoder(whole):
    from sklearn.linear_model import RidgeCV

    def contrast(images):
        # Images of 24 pixels have 8 tiles of 3 along a side; luminance is the value squared.
        scale = 255 if images.dtype == np.uint8 else 1
        tiles = ((images / scale) ** 2).reshape(len(images), 8, 3, 8, 3)
        return np.minimum(2 * tiles.std((2, 4)), 1).reshape(len(images), -1)

    train, test = (encoding_samples(whole, "01", held_out=held) for held in (False, True))
    x = contrast(train.images)
    alphas = np.logspace(-4, 4, 17) * x.var(0).mean() * len(x)
    model = RidgeCV(alphas, cv=5, alpha_per_target=False)
    r = []
    for v in range(train.responses.shape[1]):
        predicted = model.fit(x, train.responses[:, v]).predict(contrast(test.images))
        r.append(np.corrcoef(predicted, test.responses[:, v])[0, 1])
    found = read(whole)["ridge_r"]
    assert np.median(np.abs(found - r)) < 0.01
    assert np.corrcoef(found, r)[0, 1] > 0.98


def test_ridge_regression_is_left_out_on_demand(whole):
    without = changed(whole, ridge=False)
    write_prfs(without)
    assert "ridge_r" not in read(without)
    write_prfs(whole)
    assert "ridge_r" in read(whole)


def test_fields_are_what_the_table_of_phantoms_makes_of_the_maps(whole):
    table, phantoms = read(whole), read(whole, "phantoms.tsv")
    assert phantoms["phantom"].tolist() == list(range(60))
    calibration = read_phantom_table(phantoms, extent_deg=8.4)
    maps = IGCResult.load(whole.attribution("01", "encoding"))
    encoder = FieldEncoder.load(whole.model("encoder_sub-01_refined"))
    power = stimulus_power(encoding_images(whole, "01"), shape=maps.attributions.shape[1:])
    fields = fit_prf(
        maps.attributions / power,
        extent_deg=8.4,
        standard_errors=maps.standard_errors / power,
    ).with_exponent(encoder.receptive_fields(8.4)["exponent"][: len(table)])
    quality = table["encoder_r"].to_numpy()
    found = calibration.for_vertices(fields, quality=quality).apply(fields, quality=quality)
    ok = (table["status"] == "ok").to_numpy()
    assert ok.sum() > 20
    for name, values in found.to_frame()[ok].items():
        if name != "status":
            np.testing.assert_allclose(table[ok][name], values, rtol=2e-3, atol=2e-3, err_msg=name)
    assert table.loc[~ok, ["x_low", "size_high"]].isna().all(axis=None)


def test_phantoms_have_the_images_and_the_noise_of_the_vertices(whole):
    with np.load(whole.phantoms("01")) as file:
        assert file["responses"].shape == (len(encoding_images(whole, "01")), 60)
        ncsnr = encoding_samples(whole, "01", held_out=True).ncsnr
        # Less where a field reaches beyond the image.
        assert 0 < file["ncsnr"].min() <= file["ncsnr"].max() <= ncsnr.max() + 1e-6
    # Predicted as well as the vertices are: image by image they were learned beside them.
    quality = read(whole, "phantoms.tsv")["quality"].median()
    assert quality > read(whole)["encoder_r"].median() / 2 > 0.1


def test_summary_counts_the_intervals_that_hold(study):
    # The stage of the report needs the features of all images.
    write_summary(study)
    found = json.loads((study.path / "summary.json").read_text())["prf"]
    table = read(study)
    good = (table["status"] == "ok") & (table["encoder_r"] >= table["noise_ceiling_r"] / 2)
    kept = table[good]
    assert found["n_vertices"] == len(kept)
    inside = (kept["x_low"] <= kept["true_x_deg"]) & (kept["true_x_deg"] <= kept["x_high"])
    assert found["coverage_x"] == pytest.approx(inside.mean())


def test_what_cannot_be_calibrated_is_said_and_has_no_intervals(study, monkeypatch, capsys):
    monkeypatch.setattr("neuroigc.prf.calibration._LEAST_PHANTOMS", 1000)
    (study.path / "phantoms.tsv").unlink()
    write_prfs(study)
    error = capsys.readouterr().err
    assert "sub-01: receptive fields are not calibrated" in error
    assert "at least 1000 phantoms" in error
    table = read(study)
    assert "x_low" not in table
    assert not (study.path / "phantoms.tsv").exists()


def test_maps_are_of_so_many_images_at_most(study, monkeypatch):
    monkeypatch.setattr(encoders, "MOST_MAPPED", 50)
    result = encoders.map_fields(study, "01", progress=False)
    assert result.n_samples == 50
    np.testing.assert_allclose(result.attributions.sum((1, 2)), 1, atol=0.2)
    chosen = encoders._mapped_images(study, "01")
    assert len(np.unique(chosen.reshape(50, -1), axis=0)) == 50


def test_a_release_without_repeats_gets_phantoms_of_usual_noise(study):
    data = SubjectData.load(study.prepared("01"))
    dataclasses.replace(data, n_repeats=None, ncsnr=None, noise_ceiling=None).save(
        study.prepared("01")
    )
    encoders.train_encoder(study, "01", FieldEncoder(channels=(4, 4), max_epochs=6))
    encoders.save_maps(study, "01", encoders.map_fields(study, "01", progress=False))
    write_prfs(study)
    assert "noise_ceiling_r" not in read(study)
    assert read(study, "phantoms.tsv")["ncsnr"].max() > 1
    write_summary(study)


@pytest.fixture(scope="module")
def reference_folder(root, tmp_path_factory):
    """Return the truth as the pRF experiment would have found it, half of it noise."""
    folder = tmp_path_factory.mktemp("references") / "subj01"
    folder.mkdir()
    truth = load_truth(root, 1)
    for side, letter in (("left", "lh"), ("right", "rh")):
        x, y = truth[side]["x_deg"], truth[side]["y_deg"]
        maps = {
            "prfangle": np.degrees(np.arctan2(y, x)) % 360,
            "prfeccentricity": np.hypot(x, y),
            "prfsize": truth[side]["size_deg"],
            "prfR2": np.where(np.arange(len(x)) % 2, 50, 5),
        }
        for name, values in maps.items():
            image = nib.MGHImage(np.asarray(values, np.float32)[:, None, None], np.eye(4))
            nib.save(image, folder / f"{letter}.{name}.mgz")
    return folder


def test_references_are_compared_with_where_the_truth_is_not_known(study, reference_folder):
    settings = {"references": str(reference_folder.parent / "{subject}"), "within_deg": 2.0}
    folder = changed(study, **settings)
    folder = StudyFolder(
        study.path,
        dataclasses.replace(
            folder.config, data=dataclasses.replace(folder.config.data, truth=False)
        ),
    )
    before = read(study)
    write_prfs(folder)
    table = read(folder)
    assert "true_x_deg" not in table
    known = table["vertex"] % 2 == 1
    np.testing.assert_allclose(
        table["reference_x_deg"][known], before["true_x_deg"][known], atol=1e-4
    )
    assert table["reference_size_deg"][~known].isna().all()
    write_summary(folder)
    found = json.loads((study.path / "summary.json").read_text())["prf"]
    good = (table["status"] == "ok") & (table["encoder_r"] >= table["noise_ceiling_r"] / 2)
    near = np.hypot(before["true_x_deg"], before["true_y_deg"]) <= 2
    compared = table[good & known & near]
    assert found["n_vertices"] == len(compared) > 3
    error = np.hypot(
        compared["x_deg"] - compared["reference_x_deg"],
        compared["y_deg"] - compared["reference_y_deg"],
    )
    assert found["median_centre_error_deg"] == pytest.approx(error.median(), rel=1e-5)
    # Too few to compare: the count stays.
    write_table(folder.path / "prf.tsv", table.head(2))
    write_summary(folder)
    found = json.loads((study.path / "summary.json").read_text())["prf"]
    assert "median_centre_error_deg" not in found


def test_references_that_are_not_there_are_told_before_any_work(root, tmp_path, capsys):
    text = TOML.format(root=root).replace("image_size", 'references = "no/{subject}"\nimage_size')
    (tmp_path / "study.toml").write_text(text)
    arguments = ["run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(arguments) == 2
    assert "no/subj01" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("prepared/*"))


def test_few_latents_are_an_option_whose_fields_are_those_of_the_maps(root, tmp_path):
    text = TOML.format(root=root)
    text = text[: text.index("\n[encoding.network]")] + LATENTS
    (tmp_path / "study.toml").write_text(text)
    out = tmp_path / "out"
    assert main(["run", str(tmp_path / "study.toml"), "--out", str(out), "--quiet"]) == 0
    folder = StudyFolder.open(out)
    assert isinstance(NeuralEncoder.load(folder.model("encoder_sub-01")), NeuralEncoder)
    table = read(folder)
    assert not list(out.glob("**/*phantoms*"))
    assert "x_low" not in table
    result = IGCResult.load(folder.attribution("01", "encoding"))
    fields = fit_prf(result.attributions, extent_deg=8.4)
    np.testing.assert_allclose(table["size_deg"], fields.size_deg, rtol=1e-4)
    np.testing.assert_allclose(table["encoder_r"], result.correlation, rtol=1e-4)
    # These are shared out sample by sample.
    for number in (1, 2):
        assert main(["attribute", str(out), "--shard", f"{number}/2", "--quiet"]) == 0
    assert main(["merge", str(out), "--quiet"]) == 0
    merged = IGCResult.load(folder.attribution("01", "encoding"))
    np.testing.assert_allclose(merged.attributions, result.attributions, rtol=1e-3, atol=1e-5)
