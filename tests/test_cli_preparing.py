"""The first stage of a study: what is refused before any work, kept when resumed, and said."""

import dataclasses

import numpy as np
import pytest

from neuroigc.cli import main, stages
from neuroigc.cli.preparing import Before, describe_subject
from neuroigc.datasets import SubjectData
from neuroigc.datasets.layouts import write_betas, write_experiment, write_labels, write_stimuli

N, N_TRIALS, SIDES = 10242, 4, ("left", "right")
STUDY = """
[data]
root = "{root}"
space = "{space}"
subjects = ["01"]
mask = "all"
truth = true
{more}
[rois]
atlases = ["streams"]
[decoding]
n_permutations = 0
"""


@pytest.fixture
def root(tmp_path, rng):
    """Write two sessions of subject 1, and a design in which there is a second."""
    root = tmp_path / "nsd"
    write_experiment(
        root,
        master_ordering=np.arange(1, 9),
        subject_images=[np.arange(1, 9), np.r_[1, 2, np.arange(9, 15)]],
        shared_images=[1, 2],
        trials_per_session=N_TRIALS,
    )
    write_stimuli(root, rng.integers(0, 256, size=(16, 16, 16, 3), dtype=np.uint8))
    for session in (1, 2):
        betas = {side: rng.normal(size=(N, N_TRIALS)) for side in SIDES}
        write_betas(root, 1, session, betas, space="fsaverage5")
    labels = {side: np.arange(N) % 2 for side in SIDES}
    write_labels(root, "fsaverage5", "streams", labels, {1: "early"})
    return root


@pytest.fixture
def prepare(root, tmp_path, capsys):
    def prepare(*options, space="fsaverage5", more=""):
        study = tmp_path / "study.toml"
        study.write_text(STUDY.format(root=root, space=space, more=more))
        code = main(["prepare", str(study), "--out", str(tmp_path / "out"), *options])
        return code, capsys.readouterr()

    return prepare


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[0, 9, 10]", "got 2 of 3 that nobody saw, such as 9. Leave them out, or add the subject"),
        ("[0, 99]", "got 1 of 2 that nobody saw, such as 99"),
    ],
)
def test_test_images_that_no_subject_of_the_study_saw(prepare, tmp_path, given, message):
    code, said = prepare("--quiet", more=f"test_images = {given}")
    assert code == 2
    assert message in said.err
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_test_images_that_were_seen(prepare, tmp_path):
    code, said = prepare("--quiet", more="test_images = [3, 5]")
    assert code == 0, said.err
    data = SubjectData.load(tmp_path / "out" / "prepared" / "sub-01")
    assert data.image_ids[data.is_test].tolist() == [3, 5]


def test_a_subjects_own_surface_is_not_for_the_command(prepare):
    code, said = prepare("--quiet", space="nativesurface")
    assert code == 2
    assert "[data] space: expected one of fsaverage5, fsaverage6, fsaverage, on which" in said.err
    assert "No stage of this command goes that way" in said.err
    assert "prepare_nsd" in said.err


def test_what_is_resumed_says_what_was_done_again(prepare, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_features", interrupted)
        code, said = prepare()
    assert code == 2
    assert "sub-01: 8 images" in said.out
    assert "kept as" not in said.out
    code, said = prepare("--resume")
    assert code == 0
    assert "; kept as it was\n" in said.out
    assert "features" not in said.out
    code, said = prepare("--resume")
    assert code == 0
    assert said.out == "prepare: done before, with these settings; nothing is done again\n"
    code, said = prepare("--resume", more='dtype = "float16"')
    assert code == 0
    assert said.out.startswith("prepare: begun with other settings or another version; all is")
    assert "kept as" not in said.out


def test_two_commands_do_not_prepare_the_same_study(prepare, tmp_path, monkeypatch):
    """The second changes nothing of what the first is at."""
    told, write = [], stages.write_features

    def meanwhile(*args):
        if not told:
            told.append(prepare("--resume", "--quiet"))
        write(*args)

    monkeypatch.setattr(stages, "write_features", meanwhile)
    code, said = prepare("--quiet")
    assert code == 0, said.err
    ((code, said),) = told
    assert code == 2
    out = tmp_path / "out"
    assert f"DIR: expected one that no other process writes to; got {out}, to which" in said.err
    assert not list(out.rglob("*.lock"))


def test_sessions_that_were_kept_are_counted(tmp_path):
    assert Before(tmp_path / "none").describe() == ""
    (tmp_path / ".work").mkdir()
    for name in ("session01.npy", "session02.npy", ".session03-abcdefgh.npy", "settings.json"):
        (tmp_path / ".work" / name).touch()
    before = Before(tmp_path)
    (tmp_path / "subject.json").write_text("{}")
    assert before.describe() == "2 sessions kept, the rest read"
    again = Before(tmp_path)
    assert again.describe() == "kept as it was"


@pytest.mark.parametrize(
    ("ceiling", "message"),
    [
        (None, "noise ceiling unknown (no image has three trials, and the release has no ncsnr)"),
        ([0.2, 0.4, 0.6, 0], "median noise ceiling 30.0 % (from 9 images with 3 trials)"),
        (
            [0, 0, 0, 0],
            "median noise ceiling 0.0 % (from 9 images with 3 trials; no vertex answers",
        ),
        ([0, 0, 0, 0.5], "0.0 % (from 9 images with 3 trials; only 25.0 % of the vertices have"),
    ],
)
def test_a_ceiling_of_nothing_says_why(ceiling, message):
    ceiling = None if ceiling is None else np.array(ceiling, np.float32)
    data = SubjectData(
        subject="01",
        responses=np.zeros((3, 4), np.float32),
        image_ids=np.arange(3),
        n_repeats=np.array([3, 3, 1]),
        is_test=np.array([True, False, False]),
        vertices={"left": np.arange(2), "right": np.arange(2)},
        space="fsaverage5",
        n_surface_vertices=dict.fromkeys(SIDES, N),
        n_dropped=dict.fromkeys(SIDES, 0),
        noise_ceiling=ceiling,
        provenance={"ncsnr_from": "9 images with 3 trials"},
    )
    assert message in describe_subject(data)
    bare = dataclasses.replace(data, noise_ceiling=None, provenance=None)
    assert "noise ceiling unknown" in describe_subject(bare)


def test_invented_data_are_expected_as_their_design_says(root, tmp_path, capsys):
    study = tmp_path / "study.toml"
    study.write_text(STUDY.format(root=root, space="fsaverage5", more=""))
    main(["verify", "nsd", str(root), "--study", str(study), "--quiet"])
    said = capsys.readouterr().out
    (row,) = [line.split() for line in said.splitlines() if line.startswith("subj01  betas")]
    assert row[2:6] == ["4", "4", "0", "0"]
