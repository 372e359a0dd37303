"""STUDY.toml: read strictly, written back whole."""

import dataclasses

import pytest

from neuroigc._validation import InputError
from neuroigc.cli.config import dump_config, load_config, parse_config

MINIMAL = '[data]\nroot = "data"\nsubjects = ["01"]\n[decoding]\n'


def test_defaults_are_filled_in():
    config = parse_config(MINIMAL)
    assert config.data.subjects == ("01",)
    assert config.decoding.features == ("luminance_contrast", "one_over_f_slope")
    assert config.encoding is None


def test_root_counts_from_the_file(tmp_path):
    (tmp_path / "study.toml").write_text(MINIMAL)
    assert load_config(tmp_path / "study.toml").data.root == str(tmp_path / "data")


def test_dump_is_read_back_unchanged(tmp_path):
    text = MINIMAL.replace("[decoding]", '[rois.merge]\n"V 1" = ["V1v", "V1d"]\n[decoding]')
    config = parse_config(text, base=tmp_path)
    config = dataclasses.replace(config, title='quotes " and ümlauts \\ and 🧠')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml").write_text(dump_config(config, tmp_path / "run"), "utf-8")
    assert 'root = "../data"' in (tmp_path / "run" / "study.toml").read_text("utf-8")
    assert load_config(tmp_path / "run" / "study.toml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "expected valid TOML"),
        ('[data]\nroot = "x"\n[decoding]\n', "data: expected the key 'subjects'; got nothing"),
        (MINIMAL + "[encodin]\n", "expected keys among .*encoding.*; got 'encodin'"),
        (MINIMAL + "tolerance = 'low'\n", "tolerance: expected a value of type float; got 'low'"),
        (MINIMAL + "max_gradients = true\n", "expected a value of type int; got True"),
        (MINIMAL + "features = 'contrast'\n", "features: expected a list of strings"),
        (MINIMAL + "[encoding]\nsubjects = ['02']\n", "subjects: expected one of '01'; got '02'"),
        (MINIMAL.replace("[decoding]", ""), r"expected a table \[decoding\] or \[encoding\]"),
        (MINIMAL.replace('["01"]', "[]"), "expected at least one subject; got none"),
        (MINIMAL.replace("[decoding]", 'layout = "bids"\n[decoding]'), "one of 'nsd', 'algonauts'"),
        (
            MINIMAL.replace("[decoding]", "test_fraction = 1\n[decoding]"),
            "test_fraction: expected 0 to below 1",
        ),
        ("seed = -1\n" + MINIMAL, "seed: expected 0 or more; got -1"),
        (MINIMAL.replace('["01"]', '["01", "01"]'), "expected every subject once"),
        (MINIMAL.replace('["01"]', '["1"]'), "expected two digits for each"),
        (MINIMAL + "features = []\n", "features: expected at least one; got none"),
        (MINIMAL + "features = ['a', 'a']\n", "features: expected each once"),
        (MINIMAL + "max_gradients = 2\n", "max_gradients: expected 5 or more; got 2"),
        (MINIMAL + "[encoding]\n", "encoding. subjects: expected at least one"),
        (MINIMAL + "[encoding]\nsubjects = ['01']\npool = 24\n", "pool: expected 1 to image_size"),
        (MINIMAL + "[encoding]\nsubjects = ['01']\nrois = []\n", "rois: expected at least one"),
        (MINIMAL + "[rois.merge]\nV1 = [1, 2]\n", "merge V1: expected a list of strings"),
        (
            MINIMAL.replace("[decoding]", 'layout = "algonauts"\nsessions = 7\n[decoding]'),
            "sessions: expected nothing: only NSD has any; got 7",
        ),
        (MINIMAL.replace("[decoding]", "extent_deg = inf\n[decoding]"), "a finite number; got inf"),
        (MINIMAL.replace("[decoding]", "extent_deg = nan\n[decoding]"), "a finite number; got nan"),
        (MINIMAL + f"tolerance = 1{'0' * 400}\n", "a finite number; got 1000"),
        (
            MINIMAL.replace("[decoding]", "space = '../..'\n[decoding]"),
            "space: .* name of a folder",
        ),
        (
            MINIMAL.replace("[decoding]", "beta_version = 'a/../..'\n[decoding]"),
            "beta_version: expected the name of a folder",
        ),
        (
            MINIMAL.replace("[decoding]", "layout = 'arrays'\n[encoding]\nsubjects = ['01']\n"),
            "encoding.: expected none: arrays come without images",
        ),
        ("a = " + "[" * 5000, "expected valid TOML"),
        ('data = "x"\n[decoding]\n', "data: expected a table; got str"),
        (MINIMAL.replace('["01"]', '["../x"]'), "subjects: expected two digits"),
    ],
)
def test_bad_tables_get_one_clear_error(text, message):
    with pytest.raises(InputError, match=message):
        parse_config(text)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"expected a readable TOML file; got .*No such file"):
        load_config(tmp_path / "study.toml")
