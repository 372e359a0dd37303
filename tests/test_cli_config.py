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


def test_references_count_from_the_file_and_move_with_the_study(tmp_path):
    text = MINIMAL + "[encoding]\nsubjects = ['01']\nreferences = 'maps/{subject}'\n"
    config = parse_config(text, base=tmp_path)
    assert config.encoding.references == str(tmp_path / "maps" / "{subject}")
    assert 'references = "../maps/{subject}"' in dump_config(config, tmp_path / "run")


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
        (MINIMAL + "[encoding]\nmodel = 'cnn'\n", "model: expected one of 'fields', 'latents'"),
        (
            MINIMAL + "[encoding]\nsubjects = ['01']\nreference_kind = 'hcp'\n",
            "reference_kind: expected one of 'nsd', 'benson'",
        ),
        (MINIMAL + "[encoding]\nsubjects = ['01']\nimage_size = 50\n", "a multiple of 8 above 24"),
        (MINIMAL + "[encoding]\nsubjects = ['01']\nn_phantoms = 9\n", "expected 50 or more; got 9"),
        (MINIMAL + "[encoding]\nsubjects = ['01']\nwithin_deg = 0.0\n", "more than 0 degrees"),
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


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("sessions = 3", "sessions", 3),
        ("sessions = [1, 4]", "sessions", (1, 4)),
        ('test_images = "special"', "test_images", "special"),
        ("test_images = [0, 72999]", "test_images", (0, 72999)),
        ('dtype = "float16"', "dtype", "float16"),
    ],
)
def test_what_is_prepared_can_be_chosen(tmp_path, line, name, value):
    config = parse_config(MINIMAL.replace("[decoding]", f"{line}\n[decoding]"), base=tmp_path)
    assert getattr(config.data, name) == value
    (tmp_path / "study.toml").write_text(dump_config(config, tmp_path))
    assert load_config(tmp_path / "study.toml") == config


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sessions = 0", "sessions: expected 1 or more, or a list; got 0"),
        ("sessions = []", "sessions: expected different whole numbers from 1 up; got none"),
        ("sessions = [1, 1]", "sessions: expected different whole numbers from 1 up; got 1, 1"),
        ("sessions = [1.5]", "sessions: expected a list of whole numbers"),
        ("sessions = [true]", "sessions: expected a list of whole numbers"),
        ('test_images = "all"', "test_images: expected 'shared', 'special' or a list of image"),
        ("test_images = [-1]", "test_images: expected different whole numbers from 0 up; got -1"),
        ("test_images = 3", "test_images: expected a value of type str; got 3"),
        ('dtype = "int8"', "dtype: expected one of 'float32', 'float16'; got 'int8'"),
        ('layout = "algonauts"\ntest_images = [3]', "test_images: expected nothing: only NSD"),
    ],
)
def test_what_cannot_be_prepared_is_told(line, message):
    with pytest.raises(InputError, match=message):
        parse_config(MINIMAL.replace("[decoding]", f"{line}\n[decoding]"))
