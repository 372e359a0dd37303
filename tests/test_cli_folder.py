"""The study folder: what is done, what is stale, what may be kept."""

import pytest

from neuroigc._validation import InputError
from neuroigc.cli.config import parse_config
from neuroigc.cli.folder import StudyFolder

TEXT = '[data]\nroot = "data"\nsubjects = ["01"]\n[decoding]\n'


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.create(tmp_path / "study", parse_config(TEXT, base=tmp_path))


def test_opens_what_it_created(folder):
    assert StudyFolder.open(folder.path).config == folder.config
    assert StudyFolder.open(folder.path).key == folder.key


def test_a_used_folder_needs_resume(folder):
    with pytest.raises(InputError, match=r"which holds one\. Add --resume"):
        StudyFolder.create(folder.path, folder.config)
    assert StudyFolder.create(folder.path, folder.config, resume=True).key == folder.key


def test_open_wants_a_study(tmp_path):
    with pytest.raises(InputError, match="expected a study folder"):
        StudyFolder.open(tmp_path)


def test_stages_are_recorded(folder):
    with pytest.raises(InputError, match="expected a study whose stage 'prepare' is done"):
        folder.require("prepare")
    with folder.running("prepare") as keep:
        assert not keep
        assert not folder.is_done("prepare")
    folder.require("prepare")
    assert folder.record("prepare")["seconds"] >= 0
    assert folder.record("prepare")["peak_rss_mb"] > 0


def interrupt(folder, stage):
    with folder.running(stage):
        raise KeyboardInterrupt


def test_an_interrupted_stage_may_keep_its_files(folder):
    with pytest.raises(KeyboardInterrupt):
        interrupt(folder, "train")
    assert not folder.is_done("train")
    with folder.running("train") as keep:
        assert keep


def test_other_settings_make_everything_stale(folder, tmp_path):
    with folder.running("prepare"):
        pass
    with pytest.raises(KeyboardInterrupt):
        interrupt(folder, "train")
    changed = parse_config("seed = 1\n" + TEXT, base=tmp_path)
    other = StudyFolder.create(folder.path, changed, resume=True)
    assert not other.is_done("prepare")
    with other.running("train") as keep:
        assert not keep


def test_running_a_stage_again_makes_later_ones_stale(folder):
    for stage in ("prepare", "train"):
        with folder.running(stage):
            pass
    with folder.running("prepare"):
        pass
    assert folder.is_done("prepare")
    assert not folder.is_done("train")
