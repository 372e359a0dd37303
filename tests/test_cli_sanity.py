"""Sanity checks and tests of vertices in a study, against the statistics they are made of."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from neuroigc._validation import InputError
from neuroigc.attribution import IGCResult
from neuroigc.cli import sanity
from neuroigc.cli.config import dump_config, parse_config
from neuroigc.cli.folder import StudyFolder
from neuroigc.cli.results import area_groups, write_summary
from neuroigc.cli.stages import merge, run_shard, run_stage
from neuroigc.cli.study_data import common_vertices, decoding_samples
from neuroigc.datasets import make_study
from neuroigc.models import NeuralDecoder
from neuroigc.stats import cluster_test, mesh_edges, replace_groups, vertex_areas
from neuroigc.surface import SurfaceMap
from neuroigc.surface.spaces import HEMISPHERES, load_mesh

TOML = """
[data]
root = "{root}"
space = "fsaverage5"
subjects = ["01", "02"]
test_fraction = 0.3

[rois]
atlases = ["prf-visualrois", "floc-faces"]

[decoding]
max_gradients = 5
n_permutations = 39
map_tests = ["largest", "tfce", "mass"]
sanity = true
ridge = false

[decoding.network]
hidden = [16, 16]
max_epochs = 6
"""
COLUMNS = "subject output check value low high limit light meaning"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "nsd"
    make_study(
        root, n_subjects=2, n_sessions=2, trials_per_session=100, n_shared_images=20, image_size=48
    )
    config = parse_config(TOML.format(root=root))
    folder = StudyFolder.create(tmp_path_factory.mktemp("out") / "study", config)
    for stage in ("prepare", "train", "attribute", "roi"):
        run_stage(folder, stage)
    write_summary(folder)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder.path / "sanity.tsv", sep="\t", dtype={"subject": str})


def test_every_subject_and_feature_has_every_check(folder, table):
    assert " ".join(table) == COLUMNS
    checks = table["check"].unique()
    assert len(checks) == 15
    counted = table.groupby(["subject", "output"]).size()
    assert (counted == len(checks)).all()
    assert len(counted) == 4
    assert set(table["light"]) <= {"green", "amber", "red"}
    # n/a where there is no chance in it.
    assert table["low"].isna().sum() == table["check"].str.startswith("baseline").sum()


def test_models_that_know_nothing_have_other_maps(table):
    for check in ("randomised: all layers", "shuffled labels: map"):
        own = table[table["check"] == check]
        assert (own["value"].abs() < 0.2).all()
        assert (own["light"] == "red").sum() == 0


def test_lights_are_counted_in_the_summary(folder, table):
    counts = json.loads((folder.path / "summary.json").read_text())["sanity"]
    assert list(counts) == list(table["check"].unique())
    for check, lights in counts.items():
        own = table[table["check"] == check]
        assert lights == {c: int((own["light"] == c).sum()) for c in ("green", "amber", "red")}


@pytest.mark.parametrize("replacement", ["mean", "samples"])
def test_areas_are_taken_away_behind_the_stem_as_before_it(folder, replacement):
    module = NeuralDecoder.load(folder.model("decoder")).module_
    samples = decoding_samples(folder, held_out=True, subject="02")
    groups = sanity._apart(area_groups(folder, "02", samples.vertices))
    responses, conditions = samples.responses[:], samples.conditions
    quick = sanity._areas_kept(module, responses, conditions, groups, replacement, 5)
    decoder = NeuralDecoder.load(folder.model("decoder"))
    plain = replace_groups(
        lambda x: decoder.predict(x, conditions=conditions),
        responses,
        groups,
        replacement=replacement,
        seed=5,
    )
    rng = np.random.default_rng(0)
    for kept in rng.uniform(size=(3, len(groups))) > [[0], [0.5], [1]]:
        np.testing.assert_allclose(quick(kept), plain(kept), rtol=1e-4, atol=1e-4)


def test_groups_that_overlap_are_told_apart():
    groups = {"a": np.array([0, 3]), "b": np.array([3, 1]), "c": np.array([1, 0])}
    apart = sanity._apart(groups)
    assert {name: own.tolist() for name, own in apart.items()} == {"a": [0, 3], "b": [1]}


def test_permuted_features_make_the_sums_of_maps(rng):
    predicted, features = rng.standard_normal((2, 50, 2))
    sums = sanity._null_sums(predicted, features, np.random.default_rng(1))
    for v in range(2):
        expected = pearsonr(predicted[:, v], features[:, v])[0]
        assert sums[v, 0, 0] == pytest.approx(expected)
    assert sums[:, 1:].std() == pytest.approx(1 / 7, rel=0.1)


def test_labels_are_shuffled_within_subjects(rng):
    labels, conditions = np.arange(30.0)[:, None], rng.permutation(np.repeat([0, 1], 15))
    shuffled = sanity._shuffle(labels, conditions, rng)
    for condition in (0, 1):
        own = conditions == condition
        assert sorted(shuffled[own, 0]) == sorted(labels[own, 0])
    assert (shuffled != labels).mean() > 0.7


def test_p_maps_are_those_of_the_tests(folder):
    result = IGCResult.load(folder.attribution("02", "decoding"))
    vertices = common_vertices(folder)
    sheets = [load_mesh("fsaverage5", "white", side) for side in HEMISPHERES]
    for k, feature in enumerate(("luminanceContrast", "oneOverFSlope")):
        stem = f"sub-02_hemi-{{hemi}}_space-fsaverage_den-10k_desc-{feature}"
        found = {
            test: SurfaceMap.load(
                str(folder.path / "sub-02" / f"{stem}_stat-{stat}_statmap.shape.gii")
            )
            for test, stat in (("largest", "pLargest"), ("tfce", "pTfce"), ("mass", "pMass"))
        }
        assert found["tfce"].metadata["Permutations"] == 39
        columns = {
            test: np.concatenate([loaded.data[side][vertices[side]] for side in HEMISPHERES])
            for test, loaded in found.items()
        }
        np.testing.assert_allclose(columns["largest"], result.p_values[k], rtol=1e-5)
        # Hemispheres have no edges in common, so that edges may be found one by one.
        n_left = len(vertices["left"])
        edges = np.concatenate(
            [
                mesh_edges(faces, vertices=vertices[side]) + first
                for (_, faces), side, first in zip(sheets, HEMISPHERES, (0, n_left), strict=True)
            ]
        )
        areas = np.concatenate(
            [
                vertex_areas(*sheet)[vertices[side]]
                for sheet, side in zip(sheets, HEMISPHERES, strict=True)
            ]
        )
        for test in ("tfce", "mass"):
            expected = cluster_test(result.null_maps[k], edges, statistic=test, areas=areas)
            np.testing.assert_allclose(columns[test], expected.p_values, rtol=1e-5)
        outside = np.delete(found["tfce"].data["left"], vertices["left"])
        assert np.isnan(outside).all()


def test_an_interrupted_run_keeps_its_models_and_a_new_one_does_not(folder, monkeypatch):
    before = (folder.path / "sanity.tsv").read_text()
    models = sorted((folder.path / "sanity").glob("*.json"))
    assert len(models) == 8
    first = [path.stat().st_mtime_ns for path in models]

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sanity, "_check_subject", stop)
        with pytest.raises(KeyboardInterrupt):
            run_stage(folder, "roi")
    second = [path.stat().st_mtime_ns for path in models]
    assert not set(first) & set(second)
    run_stage(folder, "roi")
    assert second == [path.stat().st_mtime_ns for path in models]
    assert (folder.path / "sanity.tsv").read_text() == before


def test_what_is_not_asked_for_is_not_there(folder, tmp_path):
    decoding = dataclasses.replace(folder.config.decoding, map_tests=(), sanity=False)
    data = dataclasses.replace(folder.config.data, subjects=("01",))
    other = StudyFolder.create(
        tmp_path / "study", dataclasses.replace(folder.config, decoding=decoding, data=data)
    )
    for stage in ("prepare", "train", "attribute", "roi"):
        run_stage(other, stage)
    write_summary(other)
    assert not (other.path / "sanity.tsv").exists()
    assert not (other.path / "sanity").exists()
    assert "sanity" not in json.loads((other.path / "summary.json").read_text())
    assert not list(other.path.glob("sub-01/*_stat-p*"))
    assert IGCResult.load(other.attribution("01", "decoding")).null_maps is None


def test_jobs_of_an_array_keep_what_the_tests_need(folder, tmp_path):
    decoding = dataclasses.replace(folder.config.decoding, map_tests=("mass",), sanity=False)
    data = dataclasses.replace(folder.config.data, subjects=("01",))
    other = StudyFolder.create(
        tmp_path / "study", dataclasses.replace(folder.config, decoding=decoding, data=data)
    )
    for stage in ("prepare", "train"):
        run_stage(other, stage)
    for number in (1, 2):
        run_shard(other, number, 2)
    merge(other)
    run_stage(other, "roi")
    assert len(list(other.path.glob("sub-01/*_stat-pMass_statmap.shape.gii"))) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"tfce", "mass"', '"tfce", "peak"', r"map_tests: expected one of 'largest', .* 'peak'"),
        ('"tfce", "mass"', '"tfce", "tfce"', "map_tests: expected each once"),
        ("= 39", "= 0", "n_permutations: expected some, for map_tests; got 0"),
        ("sanity = true", 'sanity = "yes"', "sanity: expected a value of type bool"),
    ],
)
def test_settings_without_meaning_are_refused(old, new, message):
    with pytest.raises(InputError, match=message):
        parse_config(TOML.replace(old, new).format(root="x"))


def test_settings_are_written_as_they_are_read(tmp_path):
    config = parse_config(TOML.format(root=tmp_path / "x"))
    assert parse_config(dump_config(config, tmp_path), base=tmp_path) == config


def test_a_mesh_that_is_missing_is_told_before_any_work(folder, tmp_path):
    data = dataclasses.replace(folder.config.data, space="fsaverage")
    other = StudyFolder.create(tmp_path / "study", dataclasses.replace(folder.config, data=data))
    with pytest.raises(InputError, match="expected a surface whose meshes are on this machine"):
        run_stage(other, "prepare")
