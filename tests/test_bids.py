"""Every file of a study has a name that BIDS knows, opens elsewhere, and says what is in it."""

import json
import re
from fnmatch import fnmatch

import nibabel
import numpy as np
import pandas as pd
import pytest
from report_study import make_report_study

from neuroigc.cli import main
from neuroigc.cli.columns import COLUMNS
from neuroigc.datasets import make_study
from neuroigc.surface import SurfaceMap, bids_name, load_atlas

# The entities of the specification, in its order; "stat" is what nilearn and fitlins add.
ENTITIES = re.findall(
    "[a-z]+",
    "sub ses sample task tracksys acq nuc voi ce trc stain rec dir run mod echo flip inv mt part "
    "proc hemi space split recording chunk atlas seg scale res den label desc stat",
)
SUFFIXES = {"statmap": (".shape.gii", ".json"), "dseg": (".label.gii", ".json", ".tsv")}

STUDY = """
title = "Names"
[data]
root = "{root}"
layout = "nsd"
space = "fsaverage5"
subjects = ["01", "02"]
test_fraction = 0.2
truth = true
[rois]
atlases = ["prf-visualrois", "floc-faces"]
[decoding]
tolerance = 0.5
max_gradients = 5
n_permutations = 9
[decoding.network]
hidden = [8]
max_epochs = 1
[encoding]
subjects = ["01"]
image_size = 24
n_phantoms = 60
rois = ["V1v", "hV4"]
[encoding.network]
channels = [4, 4]
max_epochs = 1
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study, run through all stages but the report."""
    folder = tmp_path_factory.mktemp("bids")
    data = make_study(
        folder / "nsd",
        n_subjects=2,
        n_sessions=2,
        trials_per_session=80,
        n_shared_images=12,
        image_size=48,
    )
    (folder / "study.toml").write_text(STUDY.format(root=data))
    out = folder / "out"
    assert main(["prepare", str(folder / "study.toml"), "--out", str(out), "--quiet"]) == 0
    for stage in ("train", "attribute", "roi", "prf"):
        assert main([stage, str(out), "--quiet"]) == 0
    return out


def complaints(name):
    """Say what the specification has against a file's name."""
    found = []
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    if dot + extension not in SUFFIXES.get(suffix, ()):
        found.append(f"suffix {suffix} with {dot}{extension}")
    keys = [pair.partition("-")[0] for pair in pairs]
    found += [f"entity {pair}" for pair in pairs if not re.fullmatch("[a-z]+-[A-Za-z0-9]+", pair)]
    found += [f"unknown {key}" for key in keys if key not in ENTITIES]
    if not found and keys != sorted(set(keys), key=ENTITIES.index):
        found.append(f"order of {keys}")
    if keys[:1] != ["sub"]:
        found.append("no subject in front")
    if extension.endswith("gii") and "hemi" not in keys:
        found.append("no hemisphere")
    return found


@pytest.mark.parametrize(
    "name",
    [
        "roi.tsv",
        "sub-01_den-10k_space-fsaverage_hemi-L_statmap.shape.gii",
        "sub-01_hemi-L_hemi-R_dseg.label.gii",
        "sub-01_space-fsaverage_den-10k_dseg.label.gii",
        "hemi-L_space-fsaverage_dseg.label.gii",
        "sub-a_b_hemi-L_dseg.label.gii",
        "sub-01_hemi-L_feature-x_statmap.shape.gii",
        "sub-01_hemi-L_statmap.func.gii",
    ],
)
def test_the_check_finds_bad_names(name):
    assert complaints(name)


def ignored(path, lines):
    """Whether ``.bidsignore`` covers a path: folders, or names in the root."""
    root = path.parts[0]
    return root in (".bidsignore", "dataset_description.json") or any(
        root == line[:-1] if line.endswith("/") else fnmatch(f"/{path.as_posix()}", line)
        for line in lines
    )


def test_every_name_is_one_of_bids(study):
    lines = (study / ".bidsignore").read_text().split()
    files = [path.relative_to(study) for path in study.rglob("*") if path.is_file()]
    named = [path for path in files if not ignored(path, lines)]
    assert {path.parts[0] for path in named} == {"labels", "sub-01", "sub-02"}
    assert {path.name: complaints(path.name) for path in named if complaints(path.name)} == {}
    for path in named:
        if path.parts[0] != "labels":
            assert path.name.startswith(f"{path.parts[0]}_")
    assert sum(path.name.endswith("stat-z_statmap.shape.gii") for path in named) == 2 * 2 * 2


def test_dataset_is_described(study):
    told = json.loads((study / "dataset_description.json").read_text())
    assert told["DatasetType"] == "derivative"
    assert re.fullmatch(r"1\.\d+\.\d+", told["BIDSVersion"])
    assert told["Name"] == "Names"
    assert told["GeneratedBy"][0]["Name"] == "neuroigc"


def test_every_surface_file_has_a_sidecar_and_opens(study):
    from nilearn.surface import load_surf_data

    files = sorted(study.rglob("*.gii"))
    assert files
    for path in files:
        told = json.loads(path.with_name(path.name.split(".")[0] + ".json").read_text())
        assert "10242 vertices" in told["Density"]
        assert told["Description"]
        image = nibabel.load(path)
        side = "Left" if "_hemi-L_" in path.name else "Right"
        assert image.meta["AnatomicalStructurePrimary"] == f"Cortex{side}"
        (array,) = image.darrays
        is_label = path.name.endswith(".label.gii")
        assert array.data.dtype == (np.int32 if is_label else np.float32)
        assert load_surf_data(path).shape == (10242,)


def test_names_of_labels_are_inside_and_beside(study):
    for path in (study / "labels").glob("*hemi-L*prfVisualrois*.label.gii"):
        inside = nibabel.load(path).labeltable.get_labels_as_dict()
        beside = pd.read_csv(
            path.with_name(path.name.split(".")[0].replace("_hemi-L", "") + ".tsv"), sep="\t"
        )
        assert dict(zip(beside["index"], beside["name"], strict=True)) == {
            key: name for key, name in inside.items() if key
        }
        pair = {"left": path, "right": path.with_name(path.name.replace("hemi-L", "hemi-R"))}
        assert load_atlas(pair).table == {key: name for key, name in inside.items() if key}


def test_every_column_is_described(study):
    tables = sorted(study.glob("*.tsv"))
    assert {path.stem for path in tables} >= {"decoding", "group", "prf", "roi"}
    for path in tables:
        columns = pd.read_csv(path, sep="\t").columns
        told = json.loads(path.with_suffix(".json").read_text())
        assert list(told) == list(columns)
        assert all(told[name]["Description"] == COLUMNS[name][0] for name in columns)


def test_columns_of_all_tables_are_described(tmp_path):
    folder = make_report_study(tmp_path / "study")
    for name in ("prf", "phantoms", "sanity", "group", "roi", "decoding"):
        assert set(pd.read_csv(folder / f"{name}.tsv", sep="\t")) <= set(COLUMNS)


def test_z_is_the_value_over_its_error(study):
    with np.load(study / "attributions" / "sub-01_decoding.npz") as saved:
        expected = saved["attributions"][0] / saved["standard_errors"][0]
    feature = pd.read_csv(study / "decoding.tsv", sep="\t")["output"][0]
    names = {
        side: study
        / "sub-01"
        / bids_name(
            hemisphere=side,
            space="fsaverage5",
            subject="01",
            desc=feature,
            stat="z",
            suffix="statmap.shape.gii",
        )
        for side in ("left", "right")
    }
    found = SurfaceMap.load(names)
    values = np.concatenate([part[~np.isnan(part)] for part in found.data.values()])
    np.testing.assert_allclose(values, np.nan_to_num(expected), rtol=1e-5)
