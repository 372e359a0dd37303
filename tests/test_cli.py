"""The command line from data on disk to the report, on a study small enough for a test."""

import errno
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neuroigc import attribution, models
from neuroigc._mgh import open_mgh
from neuroigc._vertex_files import read_map
from neuroigc.attribution import IGCResult
from neuroigc.cli import main
from neuroigc.cli.attributions import SHARD_GRADIENTS
from neuroigc.cli.config import load_config
from neuroigc.cli.folder import STAGES, StudyFolder
from neuroigc.cli.stages import run_stage
from neuroigc.cli.study_data import common_vertices, decoding_samples, load_features
from neuroigc.datasets import (
    SubjectData,
    _paths,
    load_image_cache,
    load_nsd,
    load_nsd_images,
    make_study,
)
from neuroigc.datasets.layouts import write_algonauts, write_betas, write_labels
from neuroigc.datasets.preparation import prepare_opened
from neuroigc.datasets.store import write_array
from neuroigc.surface import load_atlas, load_mask

ROOT = Path(__file__).resolve().parents[1]
TOML = """
title = "A small study"

[data]
root = "{root}"
layout = "{layout}"
space = "fsaverage5"
subjects = ["01", "02"]
test_fraction = 0.2
{truth}

[rois]
atlases = ["prf-visualrois", "floc-faces"]

[rois.merge]
V1 = ["V1v", "V1d"]

[decoding]
tolerance = 0.001
max_gradients = 5

[decoding.network]
hidden = [16, 16]
max_epochs = 2

[encoding]
subjects = ["01"]
image_size = 24
n_phantoms = 60
rois = ["V1", "hV4"]

[encoding.network]
channels = [4, 4]
max_epochs = 8
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "nsd"
    return make_study(
        root, n_subjects=2, n_sessions=2, trials_per_session=80, n_shared_images=12, image_size=48
    )


@pytest.fixture(scope="module")
def study_toml(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(TOML.format(root=data, layout="nsd", truth="truth = true"))
    return path


@pytest.fixture(scope="module")
def done(study_toml, tmp_path_factory):
    """Return the folder of a study that was run through."""
    out = tmp_path_factory.mktemp("out") / "study"
    assert main(["run", str(study_toml), "--out", str(out), "--quiet"]) == 0
    return out


def message(capsys):
    return capsys.readouterr().err


def test_every_file_is_there(done):
    for name in ("study.toml", "summary.json", "report.html", "roi.tsv", "prf.tsv"):
        assert (done / name).is_file()
    assert json.loads((done / "dataset_description.json").read_text())["GeneratedBy"]
    for model in ("decoder", "encoder_sub-01"):
        assert (done / "models" / f"{model}.safetensors").is_file()
        assert (done / "models" / f"{model}.json").is_file()
    stem = "sub-02_hemi-R_space-fsaverage_den-10k_desc-luminanceContrast_stat-igc_statmap"
    assert (done / "sub-02" / f"{stem}.shape.gii").is_file()
    assert json.loads((done / "sub-02" / f"{stem}.json").read_text())["Density"]


def test_summary_has_its_keys(done):
    summary = json.loads((done / "summary.json").read_text())
    assert {"version", "seconds", "peak_rss_mb", "seed", "decoding", "encoding", "prf"} <= set(
        summary
    )
    for feature in ("luminance_contrast", "one_over_f_slope"):
        assert {"r", "ridge_r", "completeness_gap", "numerical_error", "n_gradients"} == set(
            summary["decoding"][feature]
        )
    names = {"median_r", "median_ridge_r", "median_noise_ceiling_r", "median_normalised_r"}
    assert names <= set(summary["encoding"])
    assert {"n_vertices", "median_centre_error_deg", "r_eccentricity", "r_angle", "r_size"} <= set(
        summary["prf"]
    )


ROI_COLUMNS = (
    "subject hemisphere atlas roi output igc standard_error n_vertices low high p p_fwe p_fdr"
)
PRF_COLUMNS = (
    "subject hemisphere vertex roi x_deg y_deg eccentricity_deg angle_deg size_deg r2 status"
)


def read_table(path, **equal):
    """Read a table, and of it the rows in which the given columns have the given values."""
    table = pd.read_csv(path, sep="\t", dtype={"subject": str})
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def test_tables_have_their_columns(done):
    assert " ".join(read_table(done / "roi.tsv")) == ROI_COLUMNS
    prfs = read_table(done / "prf.tsv")
    assert " ".join(prfs).startswith(PRF_COLUMNS)
    assert set(prfs["status"]) <= {"ok", "at_bound", "not_converged", "flat"}
    ok = prfs[prfs["status"] == "ok"]
    for name in ("x", "y", "size"):
        assert ok[f"{name}_deg"].between(ok[f"{name}_low"], ok[f"{name}_high"]).all()


def test_areas_and_elsewhere_sum_to_the_total(done):
    rois = read_table(done / "roi.tsv", subject="01")
    scores = read_table(done / "decoding.tsv", subject="01")
    folder = StudyFolder.open(done)
    result = IGCResult.load(folder.attribution("01", "decoding"))
    faces = load_atlas(
        done / "labels" / "sub-01_hemi-{hemi}_space-fsaverage_den-10k_desc-flocFaces_dseg.label.gii"
    )
    visual = load_atlas(
        done
        / "labels"
        / "sub-01_hemi-{hemi}_space-fsaverage_den-10k_desc-prfVisualrois_dseg.label.gii"
    )
    vertices = common_vertices(folder)
    once = np.unique(np.concatenate([*visual.groups(vertices).values()]))
    again = np.concatenate([*faces.groups(vertices).values()])
    twice = np.intersect1d(once, again)  # areas of different atlases may overlap
    for k, output in enumerate(folder.config.decoding.features):
        total = rois["igc"][rois["output"] == output].sum()
        total -= result.attributions[k, twice].sum()
        score = scores[scores["output"] == output].iloc[0]
        assert total == pytest.approx(score["r"] + score["completeness_gap"], abs=1e-5)


def test_standard_errors_are_those_of_the_groups(done):
    result = IGCResult.load(done / "attributions" / "sub-01_decoding.npz")
    for j, group in enumerate(result.settings["groups"]):
        hemisphere, _, roi = group.partition(" ")
        rows = read_table(done / "roi.tsv", subject="01", hemisphere=hemisphere, roi=roi)
        np.testing.assert_allclose(rows["igc"], result.group_values[:, j], rtol=1e-4, atol=1e-6)
        errors = result.group_standard_errors[:, j]
        np.testing.assert_allclose(rows["standard_error"], errors, rtol=1e-4)


def test_no_image_is_both_trained_on_and_held_out(done):
    folder = StudyFolder.open(done)
    features = load_features(folder)
    assert 0 < features["held_out"].sum() < len(features)
    # The shared images, which every subject sees, are held out for all of them.
    kept = decoding_samples(folder, held_out=True)
    trained = decoding_samples(folder, held_out=False)
    assert set(np.unique(kept.conditions)) == set(np.unique(trained.conditions)) == {0, 1}
    seen = {tuple(row) for row in np.round(trained.features, 6)}
    assert not seen & {tuple(row) for row in np.round(kept.features, 6)}


def test_stages_one_by_one_and_interrupted_give_the_same(done, study_toml, tmp_path, monkeypatch):
    out = tmp_path / "staged"
    assert main(["prepare", str(study_toml), "--out", str(out), "--quiet"]) == 0
    # Interrupted between the two networks of the stage: the first is kept.
    original = models.FieldEncoder.fit

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(models.FieldEncoder, "fit", interrupted)
    assert main(["train", str(out), "--quiet"]) == 2
    kept = (out / "models" / "decoder.json").stat().st_mtime_ns
    monkeypatch.setattr(models.FieldEncoder, "fit", original)
    for stage in STAGES[1:-1]:
        assert main([stage, str(out), "--quiet"]) == 0
    assert (out / "models" / "decoder.json").stat().st_mtime_ns == kept
    for name in ("roi.tsv", "prf.tsv", "decoding.tsv"):
        first, second = (pd.read_csv(f / name, sep="\t") for f in (done, out))
        pd.testing.assert_frame_equal(first, second)


def test_resume_leaves_what_is_done(done, study_toml):
    before = {path: path.stat().st_mtime_ns for path in done.glob("*.tsv")}
    assert main(["run", str(study_toml), "--out", str(done), "--resume", "--quiet"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in done.glob("*.tsv")}


def test_a_stage_needs_the_ones_before_it(study_toml, tmp_path, capsys):
    folder = StudyFolder.create(tmp_path / "study", load_config(study_toml))
    assert main(["train", str(folder.path), "--quiet"]) == 2
    assert "expected a study whose stage 'prepare' is done" in message(capsys)


def test_algonauts_layout_gives_the_same_responses(data, tmp_path):
    mask = load_mask(data / "nsddata/freesurfer/fsaverage5/label/{hemi}.nsdgeneral.mgz")
    write_algonauts(
        data, tmp_path / "algonauts", subjects=["01", "02"], space="fsaverage5", mask=mask
    )
    folders = {}
    for layout, root in (("nsd", data), ("algonauts", tmp_path / "algonauts")):
        text = TOML.format(root=root, layout=layout, truth="")
        (tmp_path / f"{layout}.toml").write_text(text)
        folder = StudyFolder.create(tmp_path / layout, load_config(tmp_path / f"{layout}.toml"))
        run_stage(folder, "prepare")
        folders[layout] = folder
    for subject in ("01", "02"):
        nsd, algonauts = (SubjectData.load(f.prepared(subject)) for f in folders.values())
        shown = ~nsd.is_test
        np.testing.assert_array_equal(nsd.image_ids[shown], algonauts.image_ids)
        np.testing.assert_array_equal(nsd.responses[shown], algonauts.responses)
        for side in ("left", "right"):
            np.testing.assert_array_equal(nsd.vertices[side], algonauts.vertices[side])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("max_gradients = 5\n\n[decoding.n", 'features = ["hue"]\n\n[decoding.n'),
         "[decoding] features: expected some of luminance_contrast, one_over_f_slope; got 'hue'"),
        (('"V1v", "V1d"', '"V1v", "V9"'), "[rois.merge] V1: expected areas of one atlas"),
        (('"floc-faces"', '"floc-feet"'), "floc-feet"),
        (('subjects = ["01", "02"]', 'subjects = ["01", "07"]'), "subj07"),
        (("space = ", "sessions = 3\nspace = "), "session"),
        (("[encoding.network]", '[encoding.network]\nchanels = 1'), "chanels"),
        (('rois = ["V1"', 'rois = ["V9"'), "[encoding] rois: expected one of 'V1', 'V2v'"),
        (('"floc-faces"', '"floc-{x}"'), "floc-{x}"),
        (('space = "fsaverage5"', 'space = "fsaverage6"'), "fsaverage6"),
    ],
)  # fmt: skip
def test_bad_settings_get_one_line_and_status_2(study_toml, tmp_path, capsys, change, text):
    path = tmp_path / "study.toml"
    path.write_text(study_toml.read_text().replace(*change))
    assert path.read_text() != study_toml.read_text()
    assert main(["run", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    error = message(capsys)
    assert text in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_missing_data_and_unwritable_output(study_toml, tmp_path, capsys):
    path = tmp_path / "study.toml"
    path.write_text(TOML.format(root="nowhere", layout="nsd", truth=""))
    assert main(["run", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "[data] root: expected a folder" in message(capsys)
    (tmp_path / "file").write_text("")
    assert main(["run", str(study_toml), "--out", str(tmp_path / "file"), "--quiet"]) == 2
    assert "expected a folder that can be written to" in message(capsys)


def test_usage_errors_and_help(capsys):
    assert main([]) == 2
    assert main(["run"]) == 2
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(stage in out for stage in STAGES)
    assert main(["--version"]) == 0


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom neuroigc.cli import main\nmain(['--help'])\n"
        "print(sorted({'torch', 'numpy', 'nibabel'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]")


def test_a_fault_of_ours_shows_itself(study_toml, tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("neuroigc.cli.stages.open_source", fail)
    assert main(["run", str(study_toml), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    assert "a fault of neuroigc" in message(capsys)


def test_verify_tells_what_is_missing(tmp_path, capsys):
    assert main(["verify", "mnist", str(tmp_path)]) == 2
    assert "missing" in capsys.readouterr().out
    assert main(["verify", "atlantis", str(tmp_path)]) == 2
    assert "atlantis" in message(capsys)


@pytest.fixture
def copy(done, tmp_path):
    """Return a copy of the study that was run through."""
    return copy_study(done, tmp_path / "copy")


def copy_study(done, out):
    """Copy a study; its data stay where they are."""
    shutil.copytree(done, out)
    root = json.dumps(load_config(done / "study.toml").data.root)
    lines = (out / "study.toml").read_text().splitlines()
    lines = [f"root = {root}" if line.startswith("root = ") else line for line in lines]
    (out / "study.toml").write_text("\n".join(lines))
    key = StudyFolder.open(out).key
    for marker in (out / "stages").iterdir():
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "key": key}))
    return out


def test_dropping_a_part_leaves_nothing_of_it(copy, study_toml, tmp_path):
    text = study_toml.read_text()
    (tmp_path / "study.toml").write_text(text[: text.index("[encoding]")])
    arguments = ["run", str(tmp_path / "study.toml"), "--out", str(copy), "--resume", "--quiet"]
    assert main(arguments) == 0
    assert (copy / "roi.tsv").exists()
    assert not (copy / "prf.tsv").exists()
    assert not list(copy.glob("sub-*/*desc-prf*"))
    assert "encoding" not in json.loads((copy / "summary.json").read_text())


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("prepared/features.tsv", "train"),
        ("prepared/sub-01/responses.npy", "train"),
        ("prepared/images/images.npy", "attribute"),
        ("attributions/sub-02_decoding.npz", "roi"),
        ("prf.tsv", "report"),
    ],
)
def test_a_damaged_file_of_the_study_is_named(copy, capsys, name, stage):
    path = copy / name
    path.write_bytes(path.read_bytes()[:7])
    assert main([stage, str(copy), "--quiet"]) == 2
    error = message(capsys)
    assert path.name in error
    assert "Traceback" not in error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_a_full_or_failing_disk_is_no_fault_of_ours(
    study_toml, tmp_path, capsys, monkeypatch, number
):
    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))

    monkeypatch.setattr("neuroigc.cli.stages.open_source", full)
    assert main(["run", str(study_toml), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert os.strerror(number) in message(capsys)


# Work that is shared out.


@pytest.fixture(scope="module")
def trained(done, tmp_path_factory):
    """Return a function that makes copies of the study whose networks are trained."""

    def make():
        out = tmp_path_factory.mktemp("trained") / "study"
        copy_study(done, out)
        for stage in STAGES[2:]:
            (out / "stages" / f"{stage}.json").unlink()
        shutil.rmtree(out / "attributions")
        return out

    return make


def same_attributions(folder, done):
    names = sorted(path.name for path in (folder / "attributions").iterdir())
    assert names == sorted(path.name for path in (done / "attributions").iterdir())
    for name in names:
        one, other = (IGCResult.load(f / "attributions" / name) for f in (folder, done))
        for field in ("attributions", "standard_errors", "group_values", "completeness_gap"):
            if getattr(other, field) is not None:
                np.testing.assert_allclose(
                    getattr(one, field), getattr(other, field), rtol=1e-3, atol=1e-5
                )
        assert one.n_gradients == other.n_gradients
    # What is made on the way does not stay.
    assert not list((folder / "sums").glob("*"))
    return True


def test_shards_are_merged_into_what_one_run_writes(trained, done, capsys):
    out = trained()
    assert main(["merge", str(out), "--quiet"]) == 2
    assert "DIR: expected a study with shards of its attributions; got" in message(capsys)
    assert main(["attribute", str(out), "--shard", "2/3", "--quiet"]) == 0
    assert main(["merge", str(out), "--quiet"]) == 2
    error = message(capsys)
    assert "DIR: expected all 3 shards of the attributions; got none of number 1, 3." in error
    assert len(error.strip().splitlines()) == 1
    # Cut in another way at first: what is whole is merged.
    assert main(["attribute", str(out), "--shard", "1/2", "--quiet"]) == 0
    for number in (3, 1):
        assert main(["attribute", str(out), "--shard", f"{number}/3", "--quiet"]) == 0
    assert main(["roi", str(out), "--quiet"]) == 2
    assert "whose stage 'attribute' is done" in message(capsys)
    assert main(["merge", str(out), "--quiet"]) == 0
    assert same_attributions(out, done)
    assert not list((out / "shards").iterdir())
    for stage in STAGES[3:]:
        assert main([stage, str(out), "--quiet"]) == 0
    assert message(capsys) == ""


def test_shards_that_are_stale_or_damaged_are_not_merged(trained, capsys):
    out = trained()
    for number in (1, 2):
        assert main(["attribute", str(out), "--shard", f"{number}/2", "--quiet"]) == 0
    path = out / "shards" / "sub-02_decoding_2of2.npz"
    content = path.read_bytes()
    path.write_bytes(content[:99])
    assert main(["merge", str(out), "--quiet"]) == 2
    error = message(capsys)
    assert path.name in error
    assert len(error.strip().splitlines()) == 1
    path.write_bytes(content)
    # Networks that are trained anew make shards of the old ones stale.
    assert main(["train", str(out), "--quiet"]) == 0
    assert main(["merge", str(out), "--quiet"]) == 2
    assert "a study with shards" in message(capsys)


def test_a_shard_that_was_killed_keeps_what_it_has(trained, monkeypatch):
    out, calls = trained(), []
    original = attribution.attribute_shard

    def interrupted(path, *arguments, **options):
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(path, *arguments, **options)

    monkeypatch.setattr(attribution, "attribute_shard", interrupted)
    assert main(["attribute", str(out), "--shard", "1/2", "--quiet"]) == 2
    assert main(["attribute", str(out), "--shard", "1/2", "--quiet"]) == 0
    names = ["sub-01_decoding", "sub-02_decoding", "sub-02_decoding"]
    assert calls == [f"{name}_1of2.npz" for name in names]
    # Windows are attributed all at once, by one of the jobs.
    assert (out / "shards" / "sub-01_encoding_1of2.npz").exists()
    assert main(["attribute", str(out), "--shard", "2/2", "--quiet"]) == 0
    assert not (out / "shards" / "sub-01_encoding_2of2.npz").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/3/3", "-1/3", "1.5/2", ""])
def test_shards_that_are_none_are_refused(done, capsys, text):
    assert main(["attribute", str(done), f"--shard={text}", "--quiet"]) == 2
    error = message(capsys)
    assert f"--shard: expected i/n, number i of n from 1 on, such as 2/8; got {text!r}" in error
    assert len(error.strip().splitlines()) == 1


def test_shards_have_gradients_where_the_study_does_not_say(trained, monkeypatch, capsys):
    out, taken = trained(), []
    text = (out / "study.toml").read_text()
    begin, end = text.index("[decoding]"), text.index("[encoding]")
    part = text[begin:end].replace("max_gradients = 5\n", "").replace("0.001", "1e-6")
    (out / "study.toml").write_text(text[:begin] + part + text[end:])
    key = StudyFolder.open(out).key
    for marker in (out / "stages").iterdir():
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "key": key}))
    original = attribution.attribute_shard

    def counted(path, *arguments, **options):
        taken.append(options["max_gradients"])
        original(path, *arguments, **{**options, "max_gradients": 5})

    monkeypatch.setattr(attribution, "attribute_shard", counted)
    assert main(["attribute", str(out), "--shard", "1/1", "--quiet"]) == 0
    assert taken == [SHARD_GRADIENTS, SHARD_GRADIENTS]
    assert main(["merge", str(out), "--quiet"]) == 0
    assert "sub-01, decoding: a tolerance of 1e-06 is not met after 5" in message(capsys)


def test_an_attribution_that_was_killed_goes_on(trained, done, monkeypatch):
    out, saves = trained(), []
    save = attribution.estimate.save_state

    def save_and_stop(*arguments):
        save(*arguments)
        saves.append(arguments)
        if len(saves) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(attribution.estimate, "save_state", save_and_stop)
    assert main(["attribute", str(out), "--quiet"]) == 2
    (sums,) = (out / "sums").iterdir()
    assert sums.name == "sub-01_decoding.npz"
    loads, load = [], attribution.estimate.load_state

    def counted(path, *arguments, **options):
        loads.append((path.name, path.exists()))
        return load(path, *arguments, **options)

    monkeypatch.setattr(attribution.estimate, "load_state", counted)
    assert main(["attribute", str(out), "--quiet"]) == 0
    assert loads[0] == ("sub-01_decoding.npz", True)
    assert not any(exists for _, exists in loads[1:])
    assert same_attributions(out, done)


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "neuroigc", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_processes_under_torchrun_write_what_one_writes(trained, done):
    out = trained()
    run = torchrun("attribute", str(out))
    assert run.returncode == 0, run.stderr
    assert "neuroigc:" not in run.stderr
    assert same_attributions(out, done)
    result = IGCResult.load(out / "attributions" / "sub-01_decoding.npz")
    assert result.settings["n_processes"] == 2


def test_processes_under_torchrun_say_what_is_wrong_once(trained):
    out = trained()
    path = out / "prepared" / "sub-02" / "responses.npy"
    path.write_bytes(path.read_bytes()[:99])
    run = torchrun("attribute", str(out), "--quiet")
    assert run.returncode != 0
    assert run.stderr.count("neuroigc: ") == 1, run.stderr
    assert "sub-02/responses.npy" in run.stderr
    run = torchrun("attribute", str(out), "--shard", "1/2")
    assert run.stderr.count("--shard: expected a process by itself") == 1


# Preparing what was downloaded.


def write_full_surface(root, betas_of):
    """Move a study's data to fsaverage: its first vertices, and nothing at the others."""
    n_vertices = 163842
    for subject in (1, 2):
        for session in (1, 2):
            values = {}
            for side in ("left", "right"):
                where = (root, subject, "fsaverage5", _paths.BETA_VERSION, side, session)
                fine = np.full((n_vertices, 80), np.nan, np.float32)
                fine[:10242] = np.asarray(open_mgh(_paths.beta_path(*where))).T
                values[side] = fine
            write_betas(betas_of, subject, session, values, space="fsaverage")


def test_coarse_studies_can_be_made_of_files_of_fsaverage(data, tmp_path, study_toml, capsys):
    """As the release has them: betas and masks on fsaverage only."""
    root = tmp_path / "nsd"
    shutil.copytree(data, root, ignore=shutil.ignore_patterns("*betas*", "*nsdgeneral*"))
    write_full_surface(data, root)
    labels = {}
    for side, prefix in (("left", "lh"), ("right", "rh")):
        file = data / f"nsddata/freesurfer/fsaverage5/label/{prefix}.nsdgeneral.mgz"
        labels[side] = np.r_[read_map(file), np.ones(163842 - 10242)].astype(int)
    write_labels(root, "fsaverage", "nsdgeneral", labels, {1: "nsdgeneral"})
    text = study_toml.read_text().replace(str(data), str(root))
    text = text.replace("truth = true", 'test_images = "special"\ndtype = "float16"')
    (tmp_path / "study.toml").write_text(text)
    arguments = ["prepare", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sub-")]
    assert len(told) == 2
    assert "(shown 12 three times, " in told[0]
    assert "(from 12 images with 3 trials)" in told[0]
    folder = StudyFolder.open(tmp_path / "out")
    mask = load_mask(data / "nsddata/freesurfer/fsaverage5/label/{hemi}.nsdgeneral.mgz")
    expected = load_nsd(data, 1, space="fsaverage5", mask=mask)
    prepared = SubjectData.load(folder.prepared("01"))
    np.testing.assert_array_equal(prepared.responses, expected.responses.astype(np.float16))
    np.testing.assert_array_equal(prepared.vertices["right"], expected.vertices["right"])
    np.testing.assert_array_equal(prepared.is_test, expected.is_test)
    images, ids = load_image_cache(folder.images)
    np.testing.assert_array_equal(ids, expected.image_ids)
    np.testing.assert_array_equal(images, load_nsd_images(data, ids, size=24))
    before = {path: path.stat().st_mtime_ns for path in folder.images.parent.rglob("*.*")}
    assert main([*arguments, "--resume"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_a_killed_preparation_left_is_used(study_toml, done, tmp_path, monkeypatch):
    out, written = tmp_path / "out", []

    def killed(path, array):
        if path.name.startswith("session"):
            if len(written) == 3 and not written.count("again"):
                raise KeyboardInterrupt
            written.append(path.stem)
        write_array(path, array)

    monkeypatch.setattr("neuroigc.datasets.preparation.write_array", killed)
    # Sessions that stay in memory would leave nothing to be used.
    no_memory = partial(prepare_opened, memory_gb=0)
    monkeypatch.setattr("neuroigc.datasets.preparation.prepare_opened", no_memory)
    arguments = ["prepare", str(study_toml), "--out", str(out), "--quiet"]
    assert main(arguments) == 2
    written.append("again")
    assert main([*arguments, "--resume"]) == 0
    assert written == ["session01", "session02", "session01", "again", "session02"]
    prepared = done / "prepared"
    for path in prepared.rglob("*.npy"):
        assert (out / "prepared" / path.relative_to(prepared)).read_bytes() == path.read_bytes()


def test_a_surface_without_atlases_is_told_at_once(study_toml, tmp_path, capsys):
    path = tmp_path / "study.toml"
    path.write_text(study_toml.read_text().replace('"fsaverage5"', '"nativesurface"'))
    assert main(["prepare", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "[data] space: expected one of fsaverage5, fsaverage6" in message(capsys)
