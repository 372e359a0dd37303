"""Tests, intervals and baselines of a study's tables, against the statistics they are made of."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from neuroigc._validation import InputError
from neuroigc.attribution import IGCResult
from neuroigc.cli.config import parse_config
from neuroigc.cli.folder import StudyFolder
from neuroigc.cli.results import write_rois
from neuroigc.cli.stages import run_stage
from neuroigc.cli.statistics import AREA_TESTS, group_table
from neuroigc.cli.study_data import decoding_samples, read_table
from neuroigc.datasets import make_study
from neuroigc.models import NeuralDecoder
from neuroigc.stats import correlation_scores, replication, ridge_baseline, sign_flip_test

TOML = """
[data]
root = "{root}"
space = "fsaverage5"
subjects = ["01", "02"]
test_fraction = 0.2

[rois]
atlases = ["prf-visualrois", "floc-faces"]

[decoding]
max_gradients = 5
n_permutations = 39

[decoding.network]
hidden = [16, 16]
max_epochs = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "nsd"
    make_study(
        root, n_subjects=2, n_sessions=2, trials_per_session=80, n_shared_images=12, image_size=48
    )
    config = parse_config(TOML.format(root=root))
    folder = StudyFolder.create(tmp_path_factory.mktemp("out") / "study", config)
    for stage in ("prepare", "train", "attribute", "roi"):
        run_stage(folder, stage)
    return folder


def read(folder, name):
    return read_table(folder, "roi", folder.path / name, ())


def test_areas_have_the_intervals_and_tests_of_the_attribution(folder):
    table = read(folder, "roi.tsv")
    for subject in ("01", "02"):
        result = IGCResult.load(folder.attribution(subject, "decoding"))
        assert result.settings["n_permutations"] == 39
        frame = result.to_frame()
        own = table[table["subject"] == subject]
        features = folder.config.decoding.features
        for row in frame.itertuples():
            side, _, roi = row.group.partition(" ")
            (found,) = own[
                (own["hemisphere"] == side)
                & (own["roi"] == roi)
                & (own["output"] == features[row.output])
            ].itertuples()
            for name in AREA_TESTS:
                assert getattr(found, name) == pytest.approx(getattr(row, name), rel=1e-5)
        # What has no vertex was not tested.
        empty = own["n_vertices"] == 0
        assert own[empty][list(AREA_TESTS)].isna().all(axis=None)
        assert own[~empty][list(AREA_TESTS)].notna().all(axis=None)


def test_the_network_and_a_linear_model_are_scored_on_the_same_images(folder):
    table = read(folder, "decoding.tsv")
    decoder = NeuralDecoder.load(folder.model("decoder"))
    for subject in ("01", "02"):
        own = table[table["subject"] == subject]
        test = decoding_samples(folder, held_out=True, subject=subject)
        train = decoding_samples(folder, held_out=False, subject=subject)
        assert set(own["n_test"]) == {len(test.features)}
        predicted = decoder.predict(test.responses, conditions=test.conditions)
        scores = correlation_scores(predicted, test.features)
        np.testing.assert_allclose(own["r"], scores.r, rtol=1e-4)
        np.testing.assert_allclose(own[["r_low", "r_high"]], scores.r_interval, rtol=1e-4)
        np.testing.assert_allclose(own[["r2_low", "r2_high"]], scores.r2_interval, rtol=1e-4)
        ridge = ridge_baseline(train.responses, train.features, test.responses, test.features)
        np.testing.assert_allclose(own["ridge_r"], ridge.scores.r, rtol=1e-4)
        expected = Ridge(ridge.penalty).fit(train.responses, train.features)
        predicted = expected.predict(test.responses)
        np.testing.assert_allclose(predicted, ridge.predictions, rtol=1e-3, atol=1e-3)
        assert own["ridge_r_low"].lt(own["ridge_r"]).all()


def test_groups_are_tested_across_subjects(folder):
    rois, table = read(folder, "roi.tsv"), read(folder, "group.tsv")
    assert list(table["hemisphere"].unique()) == ["left", "right", "both"]
    for row in table.itertuples():
        own = rois[(rois["roi"] == row.roi) & (rois["output"] == row.output)]
        if row.hemisphere != "both":
            own = own[own["hemisphere"] == row.hemisphere]
        values = own.groupby("subject")["igc"].sum(min_count=1)
        assert row.mean == pytest.approx(values.mean(), rel=1e-4, nan_ok=True)
        assert row.n_subjects == values.count()
        if row.hemisphere != "both" and row.n_subjects:
            assert row.n_significant == (own["p"] <= 0.05).sum()
    assert table[table["hemisphere"] == "both"]["n_significant"].isna().all()


def made_up(rng, n_subjects=6):
    keys = [
        (s, side, "atlas", roi, output)
        for s in range(n_subjects)
        for output in ("b", "a")
        for side in ("left", "right")
        for roi in ("V2", "V1")
    ]
    table = pd.DataFrame(keys, columns=["subject", "hemisphere", "atlas", "roi", "output"])
    return table.assign(igc=rng.standard_normal(len(keys)) + 0.7, p=rng.uniform(size=len(keys)) / 5)


def test_families_are_the_areas_of_an_output(rng):
    rois = made_up(rng)
    table = group_table(rois)
    cube = rois["igc"].to_numpy().reshape(6, 2, 4)
    p = rois["p"].to_numpy().reshape(6, 2, 4)
    for k, output in enumerate(("b", "a")):
        own = table[(table["output"] == output) & (table["hemisphere"] != "both")]
        test = sign_flip_test(cube[:, k])
        found = replication(p[:, k])
        np.testing.assert_allclose(own["p"], test.p_values)
        np.testing.assert_allclose(own["p_fwe"], test.p_values_fwe)
        np.testing.assert_allclose(own["sd"], cube[:, k].std(0, ddof=1))
        np.testing.assert_array_equal(own["n_significant"], found.n_significant)
        np.testing.assert_allclose(own["prevalence_low"], found.prevalence_low)
        both = table[(table["output"] == output) & (table["hemisphere"] == "both")]
        test = sign_flip_test(cube[:, k, :2] + cube[:, k, 2:])
        np.testing.assert_allclose(both["p_fwe"], test.p_values_fwe)


def test_subjects_without_an_area_are_left_out_of_it(rng):
    rois = made_up(rng)
    gone = (rois["subject"] == 3) & (rois["roi"] == "V2")
    rois.loc[gone & (rois["hemisphere"] == "left"), ["igc", "p"]] = np.nan
    table = group_table(rois).set_index(["hemisphere", "roi", "output"])
    assert table.loc[("left", "V2", "a"), "n_subjects"] == 5
    # The other hemisphere's value is the subject's.
    assert table.loc[("both", "V2", "a"), "n_subjects"] == 6
    without = group_table(rois.drop(columns="p"))
    assert "n_significant" not in without


def test_without_permutations_or_ridge_there_are_none(folder, tmp_path):
    decoding = dataclasses.replace(folder.config.decoding, n_permutations=0, ridge=False)
    data = dataclasses.replace(folder.config.data, subjects=("01",))
    config = dataclasses.replace(folder.config, decoding=decoding, data=data)
    other = StudyFolder.create(tmp_path / "study", config)
    for stage in ("prepare", "train", "attribute", "roi"):
        run_stage(other, stage)
    assert list(read(other, "roi.tsv"))[-2:] == ["low", "high"]
    assert "ridge_r" not in read(other, "decoding.tsv")
    assert not (other.path / "group.tsv").exists()


def test_a_number_of_permutations_below_0_is_refused():
    text = TOML.format(root="x").replace("= 39", "= -1")
    with pytest.raises(InputError, match=r"\[decoding\] n_permutations: expected 0 or more"):
        parse_config(text)


def test_a_second_run_writes_the_same(folder):
    before = read(folder, "group.tsv")
    write_rois(folder)
    pd.testing.assert_frame_equal(read(folder, "group.tsv"), before)
