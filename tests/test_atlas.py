"""Atlases from every kind of file, and what can be asked of them."""

import nibabel
import numpy as np
import pytest
from nibabel.freesurfer import write_annot

from neuroigc._validation import InputError
from neuroigc.surface import Atlas, combine, load_atlas
from neuroigc.surface.files import write_label_gifti

N = 10242
PRF = {1: "V1v", 2: "V1d", 3: "V2v", 4: "V2d", 5: "V3v", 6: "V3d", 7: "hV4"}


@pytest.fixture
def labels(rng):
    return {side: rng.integers(0, 8, N) for side in ("left", "right")}


@pytest.fixture
def prf(labels):
    return Atlas("prf-visualrois", labels, PRF)


def write_mgz(path, values, shape=(N, 1, 1)):
    values = np.asarray(values, np.float32).reshape(shape)
    nibabel.save(nibabel.MGHImage(values, np.eye(4)), path)


def write_pair(folder, labels, name="prf-visualrois", **options):
    for side, prefix in (("left", "lh"), ("right", "rh")):
        write_mgz(folder / f"{prefix}.{name}.mgz", labels[side], **options)
    return str(folder / f"{{hemi}}.{name}.mgz")


NSD_TABLE = "0 Unknown\n" + "".join(f"{key} {name}\n" for key, name in PRF.items())
FREESURFER_TABLE = "# a colour table\n  0  Unknown   0   0   0   0\n" + "".join(
    f"{key:3d}  {name:20s} {key * 10} 20 30 0\n" for key, name in PRF.items()
)


@pytest.mark.parametrize("shape", [(N, 1, 1), (1, 1, N), (1, N, 1)])
@pytest.mark.parametrize("table", [NSD_TABLE, FREESURFER_TABLE])
def test_mgz_with_table_beside(tmp_path, labels, shape, table):
    path = write_pair(tmp_path, labels, shape=shape)
    (tmp_path / "prf-visualrois.mgz.ctab").write_text(table)
    atlas = load_atlas(path)
    assert atlas.name == "prf-visualrois"
    assert atlas.space == "fsaverage5"
    assert atlas.table == PRF
    for side, expected in labels.items():
        assert atlas.labels[side].dtype == np.int32
        assert np.array_equal(atlas.labels[side], expected)


def test_names_of_several_words(tmp_path, labels):
    path = write_pair(tmp_path, {side: np.minimum(v, 1) for side, v in labels.items()})
    table = tmp_path / "names.txt"
    table.write_text("0 Unknown\n1 lateral occipital cortex\n")
    assert load_atlas(path, table=table).names == ["lateral occipital cortex"]


def test_minus_one_is_background(tmp_path, labels):
    labels["left"][:5] = -1
    atlas = load_atlas(write_pair(tmp_path, labels), table=PRF)
    assert not atlas.labels["left"][:5].any()
    assert np.array_equal(atlas.labels["left"][5:], labels["left"][5:])


def test_labels_without_a_name_are_listed(tmp_path, labels):
    labels["right"][[3, 9]] = 11, 12
    with pytest.raises(InputError, match=r"rh\.prf-visualrois\.mgz.* got 11, 12 without one"):
        load_atlas(write_pair(tmp_path, labels), table=PRF)
    with pytest.raises(InputError, match=r"atlas 'x': .* got 11, 12 without one"):
        Atlas("x", labels, PRF)


def test_missing_table(tmp_path, labels):
    with pytest.raises(InputError, match=r"table of names beside .* no prf-visualrois.mgz.ctab"):
        load_atlas(write_pair(tmp_path, labels))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 V1v\n1 V1d\n", "line 2: expected one name for each number; got 'V1v' and 'V1d' for 1"),
        ("V1v 1\n", "line 1: expected a number and a name"),
        ("1\n", "line 1: expected a number and a name; got '1'"),
    ],
)
def test_damaged_table(tmp_path, labels, text, message):
    table = tmp_path / "bad.ctab"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        load_atlas(write_pair(tmp_path, labels), table=table)


def test_table_that_is_not_there(tmp_path, labels):
    with pytest.raises(InputError, match=r"path: .* nothing at .*no\.ctab"):
        load_atlas(write_pair(tmp_path, labels), table=tmp_path / "no.ctab")


def test_missing_file_is_named(tmp_path, labels):
    path = write_pair(tmp_path, labels)
    (tmp_path / "rh.prf-visualrois.mgz").unlink()
    with pytest.raises(InputError, match=r"right hemisphere; got nothing at .*rh\.prf-visualrois"):
        load_atlas(path, table=PRF)


def test_path_without_placeholder():
    with pytest.raises(InputError, match=r"path with \{hemi\}.*got 'lh.x.mgz'"):
        load_atlas("lh.x.mgz")
    with pytest.raises(InputError, match="the keys 'left' and 'right'"):
        load_atlas({"lh": "lh.x.mgz"})


def test_truncated_file_is_named(tmp_path, labels):
    path = write_pair(tmp_path, labels)
    file = tmp_path / "lh.prf-visualrois.mgz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"lh\.prf-visualrois\.mgz: expected a whole"):
        load_atlas(path, table=PRF)


def test_fractions_are_no_labels(tmp_path, labels):
    labels["left"] = labels["left"] + 0.5
    with pytest.raises(InputError, match="whole numbers, one label per vertex"):
        load_atlas(write_pair(tmp_path, labels), table=PRF)


def test_native_surfaces_are_refused(tmp_path):
    labels = {"left": np.zeros(227021), "right": np.zeros(226601)}
    for side, prefix in (("left", "lh"), ("right", "rh")):
        write_mgz(tmp_path / f"{prefix}.x.mgz", labels[side], shape=(-1, 1, 1))
    with pytest.raises(InputError, match=r"known surface.*got 227021 in the left hemisphere"):
        load_atlas(tmp_path / "{hemi}.x.mgz", table=PRF)


def test_hemispheres_of_two_surfaces(tmp_path, labels):
    path = write_pair(tmp_path, labels)
    write_mgz(tmp_path / "rh.prf-visualrois.mgz", np.zeros(40962), shape=(-1, 1, 1))
    with pytest.raises(InputError, match="left: fsaverage5, right: fsaverage6"):
        load_atlas(path, table=PRF)


def write_annotation(path, labels, names):
    colors = np.array([[i, i, i, 0, i * 0x010101] for i in range(1, len(names) + 1)])
    write_annot(path, labels, colors, [name.encode() for name in names], fill_ctab=False)


def test_annotation(tmp_path, labels):
    names = ["unknown", *PRF.values()]
    for side, prefix in (("left", "lh"), ("right", "rh")):
        write_annotation(tmp_path / f"{prefix}.areas.annot", labels[side], names)
    atlas = load_atlas(tmp_path / "{hemi}.areas.annot")
    assert atlas.name == "areas"
    assert atlas.table == PRF
    assert np.array_equal(atlas.labels["right"], labels["right"])


def test_annotation_whose_first_entry_is_an_area(tmp_path, labels):
    for side, prefix in (("left", "lh"), ("right", "rh")):
        values = labels[side] - 1  # -1: on no entry of the table
        write_annotation(tmp_path / f"{prefix}.areas.annot", values, list(PRF.values()))
    atlas = load_atlas(tmp_path / "{hemi}.areas.annot")
    assert atlas.table == PRF
    assert np.array_equal(atlas.labels["left"], labels["left"])


def test_hemispheres_with_tables_of_their_own(tmp_path, labels):
    write_annotation(tmp_path / "lh.a.annot", labels["left"] % 3, ["???", "L_V1", "both"])
    write_annotation(tmp_path / "rh.a.annot", labels["right"] % 3, ["???", "both", "R_V1"])
    atlas = load_atlas(tmp_path / "{hemi}.a.annot")
    assert atlas.names == ["L_V1", "both", "R_V1"]
    assert np.array_equal(atlas.mask("both", "left"), labels["left"] % 3 == 2)
    assert np.array_equal(atlas.mask("both", "right"), labels["right"] % 3 == 1)
    assert not atlas.mask("R_V1", "left").any()


def test_truncated_annotation(tmp_path, labels):
    for prefix in ("lh", "rh"):
        write_annotation(tmp_path / f"{prefix}.a.annot", labels["left"], ["unknown", *PRF.values()])
    file = tmp_path / "rh.a.annot"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"rh\.a\.annot: expected a whole"):
        load_atlas(tmp_path / "{hemi}.a.annot")


def test_gifti_round_trip_above_255_labels(tmp_path, rng):
    table = {key: f"area {key}" for key in range(1, 1200)}
    labels = {"left": rng.integers(0, 1200, N), "right": np.resize([1, 255, 256, 300, 1035], N)}
    atlas = Atlas("many", labels, table)
    paths = atlas.to_gifti(tmp_path)
    stem = "hemi-L_space-fsaverage_den-10k_desc-many_dseg"
    assert paths["left"].name == f"{stem}.label.gii"
    assert (tmp_path / f"{stem}.json").is_file()
    array = nibabel.load(paths["right"]).darrays[0]
    assert array.data.dtype == np.int32
    assert array.intent == nibabel.nifti1.intent_codes["NIFTI_INTENT_LABEL"]
    again = load_atlas(
        tmp_path
        / "{hemi}_space-fsaverage_den-10k_desc-many_dseg.label.gii".replace("{hemi}", "hemi-{hemi}")
    )
    assert again.name == "many"
    assert again.table == table
    for side in labels:
        assert np.array_equal(again.labels[side], labels[side])


def test_gifti_labels_are_readable_by_nilearn(tmp_path, prf):
    from nilearn.surface import load_surf_data

    paths = prf.to_gifti(tmp_path, subject="01")
    assert paths["left"].name.startswith("sub-01_hemi-L_space-fsaverage_den-10k_desc-prfVisualrois")
    assert np.array_equal(load_surf_data(paths["left"]), prf.labels["left"])


def test_gifti_background_by_name(tmp_path, labels):
    for side in labels:
        write_label_gifti(tmp_path / f"{side}.gii", labels[side], {**PRF, 7: "???"}, side, name="x")
    atlas = load_atlas(tmp_path / "{hemi}.gii")
    assert "hV4" not in atlas.names
    assert not np.isin(7, atlas.labels["left"])


def test_damaged_gifti(tmp_path, labels):
    for side in labels:
        write_label_gifti(tmp_path / f"{side}.gii", labels[side], PRF, side, name="x")
    (tmp_path / "right.gii").write_text((tmp_path / "right.gii").read_text()[:800])
    with pytest.raises(InputError, match=r"right\.gii: expected a whole"):
        load_atlas(tmp_path / "{hemi}.gii")


def test_masks(prf, labels):
    assert np.array_equal(prf.mask("V1d", "left"), labels["left"] == 2)
    assert set(prf.mask("V1d")) == {"left", "right"}
    with pytest.raises(InputError, match=r"roi: expected one of V1v, V1d, .* got 'V9'"):
        prf.mask("V9")


def test_merging(prf, labels):
    merged = prf.merge({"V1": ("V1v", "V1d"), "V2": ["V2v", "V2d"], "V4": "hV4"})
    assert merged.names == ["V1", "V2", "V3v", "V3d", "V4"]
    assert np.array_equal(merged.mask("V1", "left"), np.isin(labels["left"], [1, 2]))
    assert np.array_equal(merged.mask("V4", "right"), labels["right"] == 7)
    assert prf.names == list(PRF.values())  # left as it was


def test_merging_what_is_not_there(prf):
    with pytest.raises(InputError, match=r"areas\['V1'\]: expected some of V1v.* got V1x"):
        prf.merge({"V1": ("V1v", "V1x")})
    with pytest.raises(InputError, match=r"areas\['b'\]: .* got V1v"):
        prf.merge({"a": ("V1v", "V1d"), "b": ("V1v",)})
    with pytest.raises(InputError, match="every name once"):
        prf.merge({"V2v": ("V1v", "V1d")})


def test_groups_are_columns_left_then_right(prf, labels, rng):
    vertices = {side: rng.choice(N, 300, replace=False) for side in labels}
    column_labels = np.concatenate([labels[side][vertices[side]] for side in ("left", "right")])
    groups = prf.groups(vertices)
    assert list(groups) == list(PRF.values())
    for key, name in PRF.items():
        assert np.array_equal(groups[name], np.flatnonzero(column_labels == key))


def test_groups_with_elsewhere_partition_the_columns(prf, rng):
    vertices = {"left": rng.choice(N, 300, replace=False), "right": np.arange(50)}
    groups = prf.groups(vertices, by_hemisphere=True, elsewhere=True)
    assert next(iter(groups)) == "left V1v"
    assert np.array_equal(np.sort(np.concatenate(list(groups.values()))), np.arange(350))
    assert all((groups[name] < 300).all() for name in groups if name.startswith("left"))
    assert all((groups[name] >= 300).all() for name in groups if name.startswith("right"))


def test_areas_without_a_column_are_left_out():
    atlas = Atlas("x", {"left": np.ones(N), "right": np.zeros(N)}, {1: "A", 2: "B"})
    assert atlas.names == ["A", "B"]
    assert list(atlas.groups({"left": np.arange(5), "right": np.arange(5)})) == ["A"]


def test_vertices_of_another_surface(prf):
    with pytest.raises(InputError, match=r"indices from 0 to 10241.*another surface"):
        prf.groups({"left": np.array([20000]), "right": np.array([0])})


def test_combined_areas_may_overlap(prf, labels):
    faces = Atlas("floc-faces", {s: (v == 7).astype(int) for s, v in labels.items()}, {1: "FFA-1"})
    both = combine([prf, faces], name="visual")
    assert both.names == [*PRF.values(), "FFA-1"]
    assert both.atlas_of("FFA-1") == "floc-faces"
    assert np.array_equal(both.mask("FFA-1", "left"), both.mask("hV4", "left"))
    every = {side: np.arange(N) for side in labels}
    groups = both.groups(every, elsewhere=True)
    assert np.array_equal(groups["FFA-1"], groups["hV4"])
    nowhere = np.concatenate([labels[side] == 0 for side in ("left", "right")])
    assert np.array_equal(groups["elsewhere"], np.flatnonzero(nowhere))


def test_combining_needs_names_of_their_own_and_one_surface(prf):
    with pytest.raises(InputError, match=r"V1v, V1d, .* in two atlases.*Rename"):
        combine([prf, Atlas("Kastner2015", prf.labels, prf.table)])
    fine = {side: np.zeros(40962) for side in ("left", "right")}
    with pytest.raises(InputError, match="atlases of one surface"):
        combine([prf, Atlas("fine", fine, {1: "A"})])


def test_names_that_would_confuse(labels):
    with pytest.raises(InputError, match="every name once"):
        Atlas("x", labels, {**PRF, 8: "V1v"})
    with pytest.raises(InputError, match="no area called 'elsewhere'"):
        Atlas("x", labels, {**PRF, 8: "elsewhere"})
    with pytest.raises(InputError, match="the keys 'left' and 'right'"):
        Atlas("x", {"left": labels["left"]}, PRF)


def test_nested(prf):
    fine = {side: np.resize(values, 40962) for side, values in prf.labels.items()}
    nested = combine([Atlas("x", fine, PRF)]).nested("fsaverage5")
    assert nested.space == "fsaverage5"
    assert np.array_equal(nested.mask("V1v", "left"), prf.mask("V1v", "left"))


@pytest.mark.data
def test_masks_drawn_by_the_authors_of_nsd(real_data):
    path = real_data / "nsd_group_rois" / "{hemi}.highlevelvisual.mgz"
    table = {1: "posterior", 2: "anterior", 3: "V1", 4: "V2", 5: "V3"}
    atlas = load_atlas(path, table=table)
    assert atlas.space == "fsaverage"
    counts = {side: [atlas.mask(roi, side).sum() for roi in atlas.names] for side in atlas.labels}
    assert counts == {
        "left": [2736, 6218, 1451, 1227, 1144],
        "right": [2452, 6058, 1347, 1600, 1251],
    }
