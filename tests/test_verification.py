"""What is there of a release, what is missing, and what is not what it should be."""

import shutil
import struct

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from neuroigc._validation import InputError
from neuroigc.cli import main
from neuroigc.datasets import SubjectData, load_arrays, save_arrays, verify
from neuroigc.datasets.inspection import inspect_file
from neuroigc.datasets.layouts import (
    write_algonauts,
    write_betas,
    write_experiment,
    write_labels,
    write_ncsnr,
    write_stimuli,
)
from neuroigc.datasets.requirements import N_SESSIONS, require_algonauts, require_nsd

N, N_TRIALS, BETAS = 10242, 4, "nsddata_betas/ppdata/subj01/fsaverage5/betas_fithrf_GLMdenoise_RR"
STUDY = """
[data]
root = "{root}"
space = "fsaverage5"
subjects = ["01"]
sessions = 2
mask = "all"
truth = true
[rois]
atlases = ["streams"]
[decoding]
"""


@pytest.fixture
def study(tmp_path, rng):
    """Write two sessions of one subject, and a study that needs them."""
    root = tmp_path / "nsd"
    write_experiment(
        root,
        master_ordering=np.arange(1, 9),
        subject_images=np.arange(1, 9)[None],
        shared_images=[2, 5],
        trials_per_session=N_TRIALS,
    )
    write_stimuli(root, rng.integers(0, 256, size=(8, 6, 6, 3), dtype=np.uint8))
    for session in (1, 2):
        betas = {side: rng.normal(size=(N, N_TRIALS)) for side in ("left", "right")}
        betas["right"][[3, 9]] = np.nan
        write_betas(root, 1, session, betas, space="fsaverage5")
    write_ncsnr(root, 1, {side: np.ones(N) for side in ("left", "right")}, space="fsaverage5")
    labels = {side: np.arange(N) % 2 for side in ("left", "right")}
    write_labels(root, "fsaverage5", "streams", labels, {1: "early"})
    (tmp_path / "study.toml").write_text(STUDY.format(root=root))
    return root


@pytest.fixture
def check(study, capsys):
    def check(*options):
        arguments = ["verify", "nsd", str(study), "--quiet", *map(str, options)]
        code = main([*arguments, "--study", str(study.parent / "study.toml")])
        return code, capsys.readouterr()

    return check


def test_a_whole_study(check):
    code, said = check()
    assert code == 0
    assert "12 of 12 files are there and fit" in said.out
    assert "header and size fit; no hash is known" in said.out


def test_files_on_fsaverage_serve_a_study_on_what_nests_in_it(check, study):
    n_fine, space = 163842, "fsaverage"
    shutil.rmtree(study / BETAS)
    shutil.rmtree(study / "nsddata" / "freesurfer" / "fsaverage5")
    (study / BETAS).parent.rmdir()
    ones = dict.fromkeys(("left", "right"), np.ones(n_fine))
    for session in (1, 2):
        betas = {side: np.ones((n_fine, N_TRIALS)) for side in ones}
        write_betas(study, 1, session, betas, space=space)
    write_ncsnr(study, 1, ones, space=space)
    write_labels(study, space, "streams", ones, {1: "early"})
    code, said = check()
    assert code == 0, said.out
    assert "12 of 12 files are there and fit" in said.out
    assert "/fsaverage/" in said.out
    assert "/fsaverage5/" not in said.out


def test_deep_checks_count_what_is_no_number(check):
    code, said = check("--deep")
    assert code == 0
    (line,) = [line for line in said.out.splitlines() if "rh.betas_session02" in line]
    assert f"2 of {N} columns not finite ({2 * N_TRIALS} numbers)" in line
    (line,) = [line for line in said.out.splitlines() if "lh.betas_session01" in line]
    assert "not finite" not in line


def test_what_is_missing_is_counted_in_bytes(check, study):
    (study / BETAS / "rh.betas_session02.mgh").unlink()
    code, said = check()
    assert code == 2
    assert "missing     " + BETAS + "/rh.betas_session02.mgh" in said.out
    (row,) = [line.split() for line in said.out.splitlines() if line.startswith("subj01  betas")]
    assert row[2:6] == ["4", "3", "1", "0"]
    assert "11 of 12 files" in said.out


def test_noise_ceilings_can_be_spared_if_they_are_missing_not_if_damaged(check, study):
    ceiling = next((study / BETAS).glob("lh.*ncsnr*"))
    whole = ceiling.read_bytes()
    ceiling.unlink()
    code, said = check()
    assert code == 0
    assert "11 of 12 files are there and fit\nWithout its files the noise ceiling is" in said.out
    ceiling.write_bytes(whole[:1000])
    code, said = check()
    assert code == 2
    assert "Without" not in said.out


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (f"{BETAS}/lh.betas_session01.mgh", lambda c: c[:-30], "bytes"),
        (f"{BETAS}/lh.betas_session01.mgh", lambda c: c[:4] + b"\0\0\x27" + c[7:], "shape|no tags"),
        ("nsddata/experiments/nsd/nsd_expdesign.mat", lambda c: c[:-9], "bytes where"),
        ("nsddata/experiments/nsd/nsd_stim_info_merged.csv", lambda _: b"a,b\n", "no column nsdId"),
        ("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", lambda c: c[: len(c) // 2], "truncated"),
        ("nsddata/freesurfer/fsaverage5/label/lh.streams.mgz", lambda c: c[:40], "end-of-stream"),
        ("nsddata/freesurfer/fsaverage5/label/streams.mgz.ctab", lambda _: b"", "nothing"),
    ],
)
def test_damage_is_seen_at_a_glance_or_in_depth(check, study, file, damage, message):
    path = study / file
    path.write_bytes(damage(path.read_bytes()))
    code, said = check("--deep")
    assert code == 2
    (line,) = [line for line in said.out.splitlines() if line.startswith("corrupt")]
    assert file in line
    assert any(part in line for part in message.split("|")), line


def test_sizes_of_the_release(tmp_path):
    """A file of the right size and header passes quickly; a session with a trial less does not."""
    folder = tmp_path / BETAS.replace("fsaverage5", "fsaverage")
    folder.mkdir(parents=True)
    files = require_nsd(subjects=[1], sessions=[1])
    for prefix, n_trials in (("lh", 750), ("rh", 749)):
        with (folder / f"{prefix}.betas_session01.mgh").open("wb") as file:
            file.write(struct.pack(">7i", 1, 163842, 1, 1, n_trials, 3, 0).ljust(284, b"\0"))
            file.truncate(284 + 4 * 163842 * n_trials)  # sparse
    states = {status.path[-21:]: status for status in verify("nsd", tmp_path, files=files)}
    assert states["h.betas_session01.mgh"].state == "wrong_size"
    left = next(s for s in verify("nsd", tmp_path, files=files) if "lh.betas" in s.path)
    assert (left.state, left.n_bytes) == ("unverified", 284 + 4 * 163842 * 750)


def test_what_a_study_requires():
    files = require_nsd(subjects=["subj03", 8], labels=["nsdgeneral"])
    betas = [entry for entry in files if entry.role == "betas"]
    assert len(betas) == 2 * (N_SESSIONS[3] + N_SESSIONS[8])
    assert {entry.shape for entry in betas} == {(163842, 1, 1, 750)}
    assert sum(entry.role == "atlas" for entry in files) == 2
    native = require_nsd(subjects=[2], sessions=3, space="nativesurface")
    assert next(entry.path for entry in native if entry.role == "betas").endswith(
        "subj02/nativesurface/betas_fithrf_GLMdenoise_RR/lh.betas_session01.hdf5"
    )
    with pytest.raises(InputError, match="subjects: expected 1 to 8; got 9"):
        require_nsd(subjects=[9])
    for sessions in (31, [2, 31]):
        with pytest.raises(InputError, match="sessions: expected 1 to 30, which subject 8 took"):
            require_nsd(subjects=[1, 8], sessions=sessions)
    with pytest.raises(InputError, match="sessions: expected 1 or more"):
        require_nsd(subjects=[1], sessions=0)
    files = require_algonauts(subjects=[6], classes=["streams"])
    assert {entry.part for entry in files} == {"subj06"}
    names = {entry.path.rsplit("/", 1)[-1] for entry in files if entry.role == "atlas"}
    assert names == {
        *(
            f"{p}.{c}_fsaverage_space.npy"
            for p in ("lh", "rh")
            for c in ("all-vertices", "streams")
        ),
        "mapping_streams.npy",
    }
    with pytest.raises(InputError, match="subjects: expected 1 to 8; got subj11"):
        require_algonauts(subjects=[11])


def test_algonauts(study, tmp_path, capsys):
    root = write_algonauts(study, tmp_path / "alg", subjects=[1], space="fsaverage5")
    text = STUDY.replace('sessions = 2\nmask = "all"', 'layout = "algonauts"')
    (tmp_path / "alg.toml").write_text(text.format(root=root))
    arguments = ["verify", "algonauts2023", str(root), "--study", str(tmp_path / "alg.toml")]
    assert main([*arguments, "--deep"]) == 0
    said = capsys.readouterr().out
    assert "6 images, each read whole" in said
    assert "2 images, each read whole" in said
    assert "9 of 9 files" in said
    next((root / "subj01/test_split/test_images").iterdir()).write_bytes(b"no PNG")
    assert main(arguments) == 0
    assert main([*arguments, "--deep"]) == 2
    shutil.rmtree(root / "subj01/test_split")
    capsys.readouterr()
    assert main(arguments) == 2
    assert "missing     subj01/test_split/test_images/" in capsys.readouterr().out
    # None of this is as large as the challenge's files.
    assert main(["verify", "algonauts2023", str(root)]) == 2
    assert "wrong_size  subj01/training_split/training_fmri/lh_tr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nsd", "--sessions", "2"], "--subjects: expected the subjects to look for"),
        (["mnist", "--subjects", "1"], "DATASET: expected nsd or algonauts2023"),
        (["algonauts2023", "--study", "{study}"], "DATASET: expected nsd; got algonauts2023"),
        (["nsd", "--study", "{study}", "--subjects", "1"], "no other choice beside it"),
    ],
)
def test_choices_that_do_not_fit(study, capsys, options, message):
    options = [o.format(study=study.parent / "study.toml") for o in options]
    assert main(["verify", options[0], str(study), *options[1:]]) == 2
    assert message in capsys.readouterr().err


def test_coarser_templates_are_looked_for_in_fsaverage(tmp_path, capsys):
    """As `prepare` does it: the release holds neither betas nor labels of fsaverage5."""
    text = STUDY.replace("truth = true\n", "").replace('mask = "all"', 'mask = "nsdgeneral"')
    (tmp_path / "study.toml").write_text(text.format(root=tmp_path))
    command = ["verify", "nsd", str(tmp_path), "--study", str(tmp_path / "study.toml"), "--quiet"]
    labels = {side: np.arange(7) % 2 for side in ("left", "right")}
    for own in (False, True):  # on the subject's own surface they are of no use here
        if own:
            write_labels(tmp_path, "subj01", "streams", labels, {1: "early"})
        assert main(command) == 2
        said = capsys.readouterr().out
        for wanted in (
            "subj01/fsaverage/betas_fithrf_GLMdenoise_RR/rh.betas_session02.mgh",
            "subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.ncsnr.mgh",
            "freesurfer/fsaverage/label/lh.nsdgeneral.mgz",
            "freesurfer/fsaverage/label/rh.streams.mgz",
        ):
            assert wanted in said
        assert "fsaverage5" not in said


def test_sizes_that_are_not_known_are_not_counted_as_nothing(tmp_path, capsys):
    """Of files on a subject's own surface, and of the design, nobody says the size."""
    command = ["verify", "nsd", str(tmp_path), "--subjects", "1", "--sessions", "1", "--quiet"]
    for options, betas in (([], "0.983"), (["--space", "nativesurface"], ">0.000")):
        assert main([*command, *options]) == 2
        said = capsys.readouterr().out
        assert "\n> and files besides whose size is not known\n" in said
        rows = [line.split() for line in said.splitlines()]
        (row,) = [row for row in rows if row[:2] == ["subj01", "betas"]]
        (total,) = [row for row in rows if row[:1] == ["total"]]
        assert row[-1] == betas
        assert total[-1].startswith(">")


def test_long_lists_are_cut(study, capsys):
    assert main(["verify", "nsd", str(study), "--subjects", "1", "--quiet"]) == 2
    said = capsys.readouterr().out
    assert "missing     and 74 more of these" in said
    assert len(said.splitlines()) < 40


def test_arrays(tmp_path, rng, capsys):
    save_arrays(load_arrays(rng.normal(size=(5, 3)), rng.normal(size=5)), tmp_path)
    assert main(["verify", "arrays", str(tmp_path)]) == 0
    assert "responses (5, 3)" in capsys.readouterr().out
    (tmp_path / "targets.npy").write_bytes(b"")
    assert main(["verify", "arrays", str(tmp_path)]) == 2


# Single files.


def inspect(path, shape=(), dtype="", role="x", deep=True):
    return inspect_file(path, role=role, shape=shape, dtype=dtype, deep=deep)


def test_numbers_that_are_not_finite(tmp_path):
    values = np.array([[1, np.nan, 3], [-5, 2, np.inf]], np.float32)
    np.save(tmp_path / "x.npy", values)
    found = inspect(tmp_path / "x.npy", (2, "n"), "float32")
    assert found == "read whole: -5 to 3, 2 of 3 columns not finite (2 numbers)"
    assert inspect(tmp_path / "x.npy", deep=False) == "header and size fit"
    with pytest.raises(InputError, match=r"float32 of shape \(2, 3\), not  \(3, 'n'\)"):
        inspect(tmp_path / "x.npy", (3, "n"))
    with pytest.raises(InputError, match="not float64"):
        inspect(tmp_path / "x.npy", (2, 3), "float64")
    np.save(tmp_path / "x.npy", np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="not one finite number"):
        inspect(tmp_path / "x.npy")


def test_hdf5_by_its_role(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["betas"] = np.arange(12, dtype=np.int16).reshape(4, 3)
    assert inspect(tmp_path / "x.hdf5", (4, "n"), "int16", "betas") == "read whole: 0 to 11"
    with pytest.raises(InputError, match=r"no dataset imgBrick, but \['betas'\]"):
        inspect(tmp_path / "x.hdf5", role="stimuli")


def test_kinds_that_nothing_is_known_of(tmp_path):
    (tmp_path / "x.tsv").write_text("a")
    assert inspect(tmp_path / "x.tsv") == ""


def test_packed_labels_and_folders_of_images(tmp_path):
    nibabel.save(nibabel.MGHImage(np.ones((7, 1, 1), np.float32), np.eye(4)), tmp_path / "x.mgz")
    for deep, found in ((False, "header fits"), (True, "read whole: 1 to 1")):
        assert inspect(tmp_path / "x.mgz", (7, 1, 1), "float32", deep=deep) == found
        with pytest.raises(InputError, match=r"not float32 \(8, 1, 1\)"):
            inspect(tmp_path / "x.mgz", (8, 1, 1), "float32", deep=deep)
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(InputError, match="no images"):
        inspect(folder)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    assert inspect(folder, (1, 4, 4, 3), deep=False) == "1 images"
    with pytest.raises(InputError, match="1 images of 2"):
        inspect(folder, (2, 4, 4, 3))


# What was prepared.


@pytest.fixture
def prepared(study, rng, capsys):
    """Prepare the study; return its folder, and how to check it."""
    out = study.parent / "out"
    write_stimuli(study, rng.integers(0, 256, size=(8, 16, 16, 3), dtype=np.uint8))
    assert main(["prepare", str(study.parent / "study.toml"), "--out", str(out), "--quiet"]) == 0

    def check(*options, root=out):
        code = main(["verify", "prepared", str(root), "--quiet", *options])
        return code, capsys.readouterr()

    return out, check


def test_what_was_prepared_is_as_it_was_written(prepared):
    out, check = prepared
    n_bytes = SubjectData.load(out / "prepared" / "sub-01").responses.nbytes
    for options, found in (((), "size fits"), (("--deep",), f"{n_bytes:,} bytes as written")):
        code, said = check(*options)
        assert code == 0, said
        (line,) = [line for line in said.out.splitlines() if "responses.npy" in line]
        assert line.startswith("ok          prepared/sub-01/responses.npy  ")
        assert line.endswith(found)
    code, said = check(root=out / "prepared" / "sub-01")
    assert code == 0
    assert "8 of 8 files are there and fit" in said.out


@pytest.mark.parametrize(
    ("name", "deep", "message"),
    [
        ("responses.npy", True, "responses.npy: expected the numbers that were written"),
        ("image_ids.npy", False, "image_ids.npy: expected the numbers that were written"),
        ("subject.json", False, "subject.json: expected"),
    ],
)
def test_flipped_bits_in_what_was_prepared(prepared, name, deep, message):
    out, check = prepared
    path = out / "prepared" / "sub-01" / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    code, said = check(*["--deep"] * deep)
    assert code == 2
    assert any(line.startswith("corrupt") and message in line for line in said.out.splitlines())


@pytest.mark.parametrize("begun", [True, False])
def test_a_store_without_its_description_is_unfinished(prepared, begun):
    out, check = prepared
    folder = out / "prepared" / "sub-02"
    if begun:
        (folder / ".work").mkdir(parents=True)
    else:
        (out / "prepared" / "sub-01").rename(folder)
        (folder / "subject.json").unlink()
    code, said = check()
    assert code == 2
    assert f"unfinished  {folder}  prepare again, with --resume" in said.out
    assert said.out.splitlines()[-1] == f"{8 * begun} of {8 * begun + 1} files are there and fit"


def test_a_folder_where_nothing_was_prepared(study, capsys):
    assert main(["verify", "prepared", str(study)]) == 2
    assert "a folder that `neuroigc prepare` wrote to; got" in capsys.readouterr().err
