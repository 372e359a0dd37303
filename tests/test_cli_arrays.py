"""A study on anyone's arrays, from dataset.toml to the table of areas."""

import json

import numpy as np
import pandas as pd
import pytest

from neuroigc._validation import InputError
from neuroigc.cli import main
from neuroigc.cli.arrays_source import ArraysSource
from neuroigc.cli.config import parse_config
from neuroigc.cli.folder import StudyFolder
from neuroigc.cli.sources import label_path
from neuroigc.cli.study_data import decoding_samples
from neuroigc.datasets import SubjectData, load_arrays, save_arrays
from neuroigc.models import NeuralDecoder
from neuroigc.stats import correlation_scores, ridge_baseline

N, N_LEFT, N_RIGHT = 400, 12, 10
STUDY = """
[data]
root = "{root}"
layout = "arrays"
space = "fsaverage5"
subjects = {subjects}
test_fraction = {test_fraction}
[rois]
atlases = ["groups"]
[decoding]
features = ["speed"]
max_gradients = 5
tolerance = 0.01
network = {{ hidden = [8], max_epochs = 40 }}
"""


@pytest.fixture
def options(rng):
    """Return arrays of two subjects, in which the right hemisphere's group says the target."""
    responses = rng.normal(size=(N, N_LEFT + N_RIGHT)).astype(np.float32)
    speed = responses[:, N_LEFT : N_LEFT + 4].sum(1) + 0.1 * rng.normal(size=N)
    return {
        "responses": responses,
        "targets": np.c_[rng.normal(size=N), speed],
        "target_names": ["noise", "speed"],
        "conditions": 1 + np.arange(N) % 2,
        "is_test": np.arange(N) % 8 < 2,
        "image_ids": np.arange(N) // 8 * 2 + (np.arange(N) % 8 < 2),
        "groups": {"MT": np.arange(N_LEFT, N_LEFT + 4), "early": np.arange(N_LEFT)},
        # In no order, as they may come.
        "vertices": {"left": rng.permutation(N_LEFT) * 7, "right": rng.permutation(N_RIGHT) * 9},
        "space": "fsaverage5",
    }


def open_study(folder, options, subjects=("01", "02"), test_fraction=0):
    save_arrays(load_arrays(**options), folder)
    text = STUDY.format(
        root=folder, subjects=json.dumps(list(subjects)), test_fraction=test_fraction
    )
    (folder / "study.toml").write_text(text)
    return parse_config(text)


def test_a_study_finds_the_group_that_says_the_target(tmp_path, options):
    open_study(tmp_path, options)
    out = tmp_path / "out"
    assert main(["prepare", str(tmp_path / "study.toml"), "--out", str(out), "--quiet"]) == 0
    for stage in ("train", "attribute", "roi"):
        assert main([stage, str(out), "--quiet"]) == 0
    table = pd.read_csv(out / "roi.tsv", sep="\t", dtype={"subject": str}, na_values="n/a")
    scores = pd.read_csv(out / "decoding.tsv", sep="\t")
    assert scores["n_test"].tolist() == [N // 8, N // 8]
    assert scores["r"].min() > 0.5
    for subject in ("01", "02"):
        own = table[table["subject"] == subject].groupby("roi")["igc"].sum()
        assert own["MT"] > 0.4
        assert abs(own["early"]) < 0.15
    assert list((out / "sub-02").glob("*hemi-R*_stat-igc_statmap.shape.gii"))


def test_columns_keep_their_vertices(tmp_path, options):
    options["responses"][:, 3] = 1.0  # constant
    source = ArraysSource(open_study(tmp_path, options))
    data = source.prepare("02", tmp_path / "sub-02", keep=False)
    rows = np.flatnonzero(options["conditions"] == 2)
    np.testing.assert_array_equal(data.image_ids, rows)
    np.testing.assert_array_equal(data.is_test, options["is_test"][rows])
    assert data.n_dropped == {"left": 1, "right": 0}
    assert (np.diff(data.vertices["left"]) > 0).all()
    where = {v: k for k, v in enumerate(options["vertices"]["left"].tolist())}
    columns = [where[v] for v in data.vertices["left"].tolist()]
    assert 3 not in columns
    np.testing.assert_array_equal(
        data.responses[:, : N_LEFT - 1], options["responses"][rows][:, columns]
    )
    table = source.features("02", rows[[5, 0]])
    np.testing.assert_array_equal(table["speed"], options["targets"][rows[[5, 0]], 1])


ENCODING = """
[encoding]
subjects = ["01"]
rois = ["MT", "early"]
image_size = 16
n_phantoms = 50
network = { max_epochs = 30, batch_size = 16 }
"""


@pytest.fixture
def with_images(options, rng):
    """Give each sample an image, and to its contrast on one side the other hemisphere."""
    contrast = rng.uniform(size=(N, 2))
    noise = rng.choice([-1.0, 1.0], size=(N, 24, 24))
    levels = 127.5 * (1 + noise * contrast.repeat(12, axis=1)[:, None])
    responses = options["responses"].copy()
    responses[:, :N_LEFT] += 8 * contrast[:, 1:]
    responses[:, N_LEFT:] += 8 * contrast[:, :1]
    images = np.uint8(levels)[..., None].repeat(3, axis=-1)
    return options | {"responses": responses, "images": images}


@pytest.mark.slow
def test_encoding_from_arrays_with_images(tmp_path, with_images):
    open_study(tmp_path, with_images)
    path, out = tmp_path / "study.toml", tmp_path / "out"
    text = path.read_text().replace("[decoding]", "[decoding]\nridge = false\nn_permutations = 0")
    path.write_text(text + ENCODING)
    assert main(["prepare", str(path), "--out", str(out), "--quiet"]) == 0
    for stage in ("train", "attribute", "roi", "prf"):
        assert main([stage, str(out), "--quiet"]) == 0
    table = pd.read_csv(out / "prf.tsv", sep="\t", dtype={"subject": str}, na_values="n/a")
    assert set(table["subject"]) == {"01"}
    assert set(table["roi"]) == {"MT", "early"}
    assert len(table) == N_LEFT + 4
    # So few samples teach the encoder some of the vertices.
    best = table.loc[table.groupby("hemisphere")["encoder_r"].idxmax()].set_index("hemisphere")
    assert (best["encoder_r"] > 0.8).all()
    assert best["x_deg"]["left"] > 0.5
    assert best["x_deg"]["right"] < -0.5


def test_images_of_arrays_are_grey_and_of_the_size_asked_for(tmp_path, with_images):
    source = ArraysSource(open_study(tmp_path, with_images))
    rows = np.array([7, 2])
    grey = source.images("01", rows, size=12)
    luma = with_images["images"][rows] @ [0.299, 0.587, 0.114] / 255
    expected = luma.reshape(2, 12, 2, 12, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(grey, expected, atol=1e-6)
    options = with_images | {"images": luma.repeat(200, axis=0)[:N].astype(np.float32)}
    other = ArraysSource(open_study(tmp_path / "grey", options))
    np.testing.assert_allclose(other.images("01", np.array([0, 200]), size=12), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, r"\[encoding\]: expected square images in dataset.toml, .* got none"),
        (np.zeros((N, 20, 24), np.uint8), r"got 20 x 24 pixels"),
    ],
)
def test_encoding_needs_square_images(tmp_path, options, images, message):
    open_study(tmp_path, options | {"images": images})
    config = parse_config((tmp_path / "study.toml").read_text() + ENCODING)
    with pytest.raises(InputError, match=message):
        ArraysSource(config)


def test_samples_of_one_image_are_validated_together(tmp_path, options, monkeypatch):
    """Whoever saw it: image ids say which samples these are."""
    seen = {}

    class Seen(Exception):
        pass

    def fit(self, X, y, *, sources, **_):
        seen["sources"] = sources
        raise Seen

    open_study(tmp_path, options)
    study, out = str(tmp_path / "study.toml"), str(tmp_path / "out")
    assert main(["prepare", study, "--out", out, "--quiet"]) == 0
    monkeypatch.setattr("neuroigc.models.NeuralDecoder.fit", fit)
    main(["train", out, "--quiet"])
    trained = [np.flatnonzero((options["conditions"] == c) & ~options["is_test"]) for c in (1, 2)]
    expected = options["image_ids"][np.concatenate(trained)]
    np.testing.assert_array_equal(seen["sources"], expected)
    assert len(np.unique(expected)) < len(expected) / 2


@pytest.mark.parametrize(
    ("change", "study", "message"),
    [
        ({"vertices": None, "space": ""}, {}, "vertices of the responses' columns"),
        ({"conditions": None}, {}, "subjects: expected one, where the data set has no conditions"),
        ({}, {"test_fraction": 0.1}, "where images come more than once; got 0.1"),
        ({"is_test": None}, {}, "and is_test in dataset.toml"),
    ],
)
def test_what_no_study_can_be_made_of(tmp_path, options, change, study, message):
    config = open_study(tmp_path, options | change, **study)
    with pytest.raises(InputError, match=message):
        ArraysSource(config)


def test_subjects_and_areas_that_are_not_there(tmp_path, options):
    config = open_study(tmp_path, options | {"groups": None}, subjects=("01", "07"))
    source = ArraysSource(config)
    with pytest.raises(InputError, match=r"numbers among \[1, 2\]; got '07'"):
        source.prepare("07", tmp_path / "sub-07", keep=False)
    with pytest.raises(InputError, match=r"groups in dataset.toml; got none"):
        source.atlas("01", config.rois)


@pytest.mark.parametrize("name", ["/x/{hemi}.a.mgz", "../{hemi}.a.mgz", "a/../../{hemi}.mgz"])
def test_labels_cannot_be_read_from_outside_the_root(tmp_path, name):
    with pytest.raises(InputError, match="expected a path that stays inside"):
        label_path(tmp_path, name, "subj01")


def test_repeats_of_an_image_are_no_further_evidence(tmp_path, options, capsys):
    is_test = np.arange(N) % 8 < 4
    repeats = {"is_test": is_test, "image_ids": np.arange(N) // 8 * 2 + is_test}
    open_study(tmp_path, options | repeats)
    study, out = str(tmp_path / "study.toml"), str(tmp_path / "out")
    assert main(["prepare", study, "--out", out, "--quiet"]) == 0
    told = capsys.readouterr().err
    for subject in ("01", "02"):
        assert f"sub-{subject}: 100 held-out samples are of 50 images" in told
    assert main(["train", out, "--quiet"]) == 0
    folder = StudyFolder.open(out)
    decoder = NeuralDecoder.load(folder.model("decoder"))
    for subject in ("01", "02"):
        parts = [decoding_samples(folder, held_out=h, subject=subject) for h in (False, True)]
        train, test = parts
        predicted = decoder.predict(test.responses, conditions=test.conditions)
        expected = correlation_scores(predicted, test.features, clusters=test.shown)
        ridge = ridge_baseline(
            train.responses[:], train.features, test.responses[:], test.features,
            groups=train.shown, test_clusters=test.shown,
        )  # fmt: skip
        own = pd.read_csv(folder.scores(subject), sep="\t")
        for prefix, scores in (("", expected), ("ridge_", ridge.scores)):
            names = [f"{prefix}r_low", f"{prefix}r_high"]
            np.testing.assert_allclose(own[names], scores.r_interval, rtol=1e-4)


def test_held_out_repeats_of_an_image_are_averaged(tmp_path, options, capsys):
    is_test = np.arange(N) % 8 < 4
    ids = np.arange(N) // 8 * 2 + is_test
    targets = np.random.default_rng(3).standard_normal((N, 1))[ids]
    repeats = {"is_test": is_test, "image_ids": ids, "targets": targets, "target_names": ["speed"]}
    config = open_study(tmp_path, options | repeats)
    study, out = str(tmp_path / "study.toml"), str(tmp_path / "out")
    assert main(["prepare", study, "--out", out, "--quiet"]) == 0
    assert "held-out samples" not in capsys.readouterr().err
    folder, data = StudyFolder.open(out), ArraysSource(config).data
    for subject in ("01", "02"):
        own = SubjectData.load(folder.prepared(subject))
        mine = np.flatnonzero(data.conditions == int(subject))
        test = mine[is_test[mine]]
        assert own.image_ids[~own.is_test].tolist() == mine[~is_test[mine]].tolist()
        assert len(np.unique(ids[own.image_ids[own.is_test]])) == own.is_test.sum()
        columns = np.concatenate([own.vertices["left"], own.vertices["right"]])
        sides = np.repeat(["left", "right"], [len(own.vertices[s]) for s in ("left", "right")])
        where = {
            (side, vertex): k + start
            for side, start in (("left", 0), ("right", len(data.vertices["left"])))
            for k, vertex in enumerate(data.vertices[side])
        }
        order = [where[pair] for pair in zip(sides, columns, strict=True)]
        for row, image in zip(own.responses[own.is_test], own.image_ids[own.is_test], strict=True):
            same = test[ids[test] == ids[image]]
            assert same[0] == image
            expected = data.responses[same][:, order].mean(0)
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)
        counts = [np.sum(ids[test] == ids[i]) for i in own.image_ids[own.is_test]]
        assert own.n_repeats[own.is_test].tolist() == counts
        assert set(own.n_repeats[~own.is_test]) == {1}


def test_independent_samples_need_no_word(tmp_path, options, capsys):
    open_study(tmp_path, options | {"image_ids": None})
    study, out = str(tmp_path / "study.toml"), str(tmp_path / "out")
    assert main(["prepare", study, "--out", out, "--quiet"]) == 0
    assert "held-out samples" not in capsys.readouterr().err


def test_features_whose_files_would_have_one_name_are_refused(tmp_path, options, capsys):
    names = ["eye_speed", "EyeSpeed"]
    open_study(tmp_path, options | {"target_names": names})
    study = tmp_path / "study.toml"
    study.write_text(study.read_text().replace('["speed"]', json.dumps(names)))
    assert main(["prepare", str(study), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "got 'eye_speed' and 'EyeSpeed'" in capsys.readouterr().err


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path, options):
    names = ["null", "01"]
    open_study(tmp_path, options | {"target_names": names, "groups": {"NA": np.arange(4)}})
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(study.read_text().replace('["speed"]', json.dumps(names)))
    assert main(["run", str(study), "--out", str(out), "--quiet"]) == 0
    assert list(json.loads((out / "summary.json").read_text())["decoding"]) == names
    assert (out / "report.html").stat().st_size > 0
