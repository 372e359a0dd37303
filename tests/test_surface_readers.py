"""Values and labels of any format, through one door each; volumes, through nilearn."""

import struct

import nibabel
import numpy as np
import pytest
from nibabel import cifti2
from nibabel.freesurfer import read_annot, write_annot
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable

from neuroigc._validation import InputError
from neuroigc.surface import (
    SurfaceMap,
    load_atlas,
    read_surface_data,
    read_surface_labels,
    vol_to_surface,
)
from neuroigc.surface.annotations import read_annotation
from neuroigc.surface.tables import read_color_table

N, T, F5 = 60, 7, 10242


def save_mgh(path, values, dtype=np.float32):
    nibabel.save(nibabel.MGHImage(np.asarray(values, dtype), np.eye(4)), path)


@pytest.fixture
def series(rng):
    return {side: rng.normal(size=(T, N)).astype(np.float32) for side in ("left", "right")}


@pytest.mark.parametrize("suffix", ["mgh", "mgz"])
@pytest.mark.parametrize(
    ("shape", "vertices_first"),
    [((N, 1, 1, T), True), ((1, 1, N, T), True), ((1, 1, T, N), False), ((N, T, 1), True)],
)
def test_mgh_in_every_order_of_axes(tmp_path, series, suffix, shape, vertices_first):
    for prefix, maps in zip(("lh", "rh"), series.values(), strict=True):
        save_mgh(
            tmp_path / f"{prefix}.x.{suffix}", (maps.T if vertices_first else maps).reshape(shape)
        )
    data, names = read_surface_data(tmp_path / f"{{hemi}}.x.{suffix}")
    assert names == [""] * T
    for side, maps in series.items():
        np.testing.assert_array_equal(data[side], maps)


def test_more_maps_than_vertices_where_the_first_axis_says_which(tmp_path, rng):
    maps = rng.normal(size=(9, 4)).astype(np.float32)
    for prefix in ("lh", "rh"):
        save_mgh(tmp_path / f"{prefix}.x.mgh", maps.T.reshape(4, 1, 1, 9))
    np.testing.assert_array_equal(read_surface_data(tmp_path / "{hemi}.x.mgh")[0]["left"], maps)


def test_shapes_that_are_no_maps(tmp_path):
    for name, shape in (("volume", (3, 4, 5)), ("square", (1, 1, 4, 4))):
        for prefix in ("lh", "rh"):
            save_mgh(tmp_path / f"{prefix}.{name}.mgz", np.zeros(shape))
    with pytest.raises(InputError, match="values of vertices, not of a volume"):
        read_surface_data(tmp_path / "{hemi}.volume.mgz")
    with pytest.raises(InputError, match="another number of maps than of vertices; got 4 of both"):
        read_surface_data(tmp_path / "{hemi}.square.mgz")
    save_mgh(tmp_path / "rh.volume.mgz", np.zeros((4, 1, 1)))
    save_mgh(tmp_path / "lh.volume.mgz", np.zeros((4, 1, 1, 2)))
    with pytest.raises(InputError, match="as many maps on both sides"):
        read_surface_data(tmp_path / "{hemi}.volume.mgz")


@pytest.mark.parametrize("one_array", [False, True])
@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_gifti_series(tmp_path, series, one_array, zipped):
    for letter, maps in zip("LR", series.values(), strict=True):
        arrays = [maps.T] if one_array else maps
        image = GiftiImage(
            darrays=[GiftiDataArray(a, intent="NIFTI_INTENT_TIME_SERIES") for a in arrays]
        )
        nibabel.save(image, tmp_path / f"hemi-{letter}_bold.func.gii{zipped}")
    data, names = read_surface_data(tmp_path / f"hemi-{{hemi}}_bold.func.gii{zipped}")
    assert len(names) == T
    for side, maps in series.items():
        np.testing.assert_array_equal(data[side], maps)


def test_gifti_that_names_another_file_is_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype="<f4").tobytes())
    path = tmp_path / "lh.x.gii"
    nibabel.save(GiftiImage(darrays=[GiftiDataArray(np.zeros(4, "f4"))]), path)
    text = path.read_text().replace("GZipBase64Binary", "ExternalFileBinary")
    path.write_text(text.replace('ExternalFileName=""', 'ExternalFileName="secret.bin"'))
    with pytest.raises(InputError, match=r"lh\.x\.gii: .*ExternalFileBinary is not supported"):
        read_surface_data({"left": path, "right": path})


def test_gifti_with_entities_that_grow(tmp_path):
    path = tmp_path / "lh.x.gii"
    entities = "".join(f'<!ENTITY e{k + 1} "{f"&e{k};" * 10}">' for k in range(12))
    head = f'<?xml version="1.0"?><!DOCTYPE GIFTI [<!ENTITY e0 "0123456789">{entities}]>'
    path.write_text(head + '<GIFTI Version="1.0" NumberOfDataArrays="1"><Name>&e12;</Name></GIFTI>')
    with pytest.raises(InputError, match=r"lh\.x\.gii: expected a whole, readable file"):
        read_surface_data({"left": path, "right": path})


def label_gifti(path, labels, table, kind=np.int32):
    image = GiftiImage(darrays=[GiftiDataArray(np.asarray(labels, kind))])
    image.labeltable = GiftiLabelTable()
    for key, name in table.items():
        label = GiftiLabel(key, 0.5, 0.5, 0.5, 1)
        label.label = name
        image.labeltable.labels.append(label)
    nibabel.save(image, path)


def test_labels_above_255_and_below_0(tmp_path):
    labels = [0, 300, -1, -7, 70_000, 300]
    for prefix in ("lh", "rh"):
        label_gifti(
            tmp_path / f"{prefix}.a.label.gii",
            labels,
            {0: "???", 300: "V1", 70_000: "V2", -7: "no cortex"},
        )
    read, tables = read_surface_labels(tmp_path / "{hemi}.a.label.gii")
    np.testing.assert_array_equal(read["left"], [0, 300, 0, 0, 70_000, 300])
    assert tables["right"] == {300: "V1", 70_000: "V2"}


@pytest.mark.parametrize("of_both", [False, True])
def test_bids_table_beside_labels(tmp_path, rng, of_both):
    labels = {side: rng.integers(0, 3, F5) for side in ("left", "right")}
    for letter, values in zip("LR", labels.values(), strict=True):
        stem = f"tpl-fsaverage_hemi-{letter}_den-10k_atlas-mine"
        array = GiftiDataArray(values.astype(np.int32), intent="NIFTI_INTENT_LABEL")
        nibabel.save(GiftiImage(darrays=[array]), tmp_path / f"{stem}_dseg.label.gii")
        stem = "tpl-fsaverage_den-10k_atlas-mine" if of_both else stem
        (tmp_path / f"{stem}_dseg.tsv").write_text(
            "index\tname\tcolor\n0\tUnknown\t#000000\n1\tV1 dorsal\t#ff0000\n2\tV2\tn/a\n"
        )
    atlas = load_atlas(tmp_path / "tpl-fsaverage_hemi-{hemi}_den-10k_atlas-mine_dseg.label.gii")
    assert (atlas.name, atlas.table) == ("mine", {1: "V1 dorsal", 2: "V2"})
    np.testing.assert_array_equal(atlas.labels["right"], labels["right"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.tsv", "number\tname\n1\tV1\n", "the columns index and name"),
        ("x.tsv", "index\tname\n1\n", "line 2: expected a number and a name"),
        ("x.tsv", "", "the columns index and name; got none"),
        ("x.ctab", "9" * 5000 + " V1", "line 1: expected a number and a name"),
        ("x.ctab", "- V1", "line 1: expected a number and a name"),
        ("x.ctab", "1 V1\n1 V2", "line 2: expected one name for each number"),
        ("x.ctab", "\xff\x00", "expected a table of names"),
    ],
)
def test_tables_that_are_none(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_color_table(path)


# Annotations: nibabel is the independent implementation.


@pytest.fixture
def annotation(tmp_path, rng):
    """Write 40 vertices of 5 areas, one without a vertex, some vertices without an area."""
    labels = rng.integers(-1, 4, 40)
    colors = np.c_[rng.permutation(200)[:15].reshape(5, 3) + 1, np.zeros(5, int)]
    names = ["unknown", "V1", "Größe", "V3", "V4"]
    write_annot(
        tmp_path / "lh.a.annot", labels, colors, [n.encode() for n in names], fill_ctab=True
    )
    return tmp_path / "lh.a.annot", labels, names


def test_annotations_as_nibabel_reads_them(annotation):
    path, labels, names = annotation
    read, read_names = read_annotation(path)
    np.testing.assert_array_equal(read, labels)
    np.testing.assert_array_equal(read, read_annot(path)[0])
    assert read_names == names


def test_tables_of_the_old_version(annotation):
    path, labels, names = annotation
    content = path.read_bytes()
    start = 4 + 8 * len(labels) + 4
    codes = struct.unpack(f">{2 * len(labels)}i", content[4 : start - 4])[1::2]
    color = {k: code for k, code in zip(labels.tolist(), codes, strict=True) if k >= 0}
    table = struct.pack(">2i4s", 4, 4, b"x.t\0")
    for k, name in enumerate(names[:4]):
        code, text = color[k], name.encode() + b"\0"
        rgb = [code & 255, code >> 8 & 255, code >> 16, 0]
        table += struct.pack(f">i{len(text)}s4i", len(text), text, *rgb)
    path.write_bytes(content[:start] + table)
    read, read_names = read_annotation(path)
    np.testing.assert_array_equal(read, labels)
    np.testing.assert_array_equal(read, read_annot(path)[0])
    assert read_names == names[:4]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-1], "bytes where"),
        (lambda c: c + b"\0", "1 bytes behind the table"),
        (lambda c: c[:4] + c[12:], "colour table|not every vertex once|bytes"),
        (lambda c: struct.pack(">i", 39) + c[4:], "not every vertex once|no colour table"),
        (lambda c: c[:11] + b"\x07" + c[12:20] + b"\x7f" + c[21:], "not every|colours that no"),
        (lambda c: c[:4] + b"\0\0\0\x09" + c[8:], "not every vertex once"),
        (lambda c: b"\x7f" + c[1:], "bytes where"),
        (lambda c: b"\xff" + c[1:], "bytes where"),
    ],
)
def test_damaged_annotations(annotation, damage, message):
    path = annotation[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"lh.a.annot: expected a whole.*({message})"):
        read_annotation(path)


def test_a_colour_that_no_area_has(annotation):
    """Its own reader takes it for the next area's."""
    path, *_ = annotation
    content = bytearray(path.read_bytes())
    content[8:12] = struct.pack(">i", 1)
    path.write_bytes(content)
    assert read_annot(path)[0][0] >= 0
    with pytest.raises(InputError, match="1 colours that no area has, such as 1"):
        read_annotation(path)


# CIFTI-2.


@pytest.fixture
def brain(rng):
    """Return an axis of two hemispheres without the medial wall, and of a volume."""
    parts = [
        cifti2.BrainModelAxis.from_surface(np.sort(rng.choice(F5, n, replace=False)), F5, name)
        for n, name in ((9000, "CortexLeft"), (9100, "CortexRight"))
    ]
    below = cifti2.BrainModelAxis.from_mask(
        np.ones((2, 2, 2)), name="thalamus_left", affine=np.eye(4)
    )
    return parts[0] + below + parts[1]


def columns_of(brain, side):
    columns = np.flatnonzero(brain.name == f"CIFTI_STRUCTURE_CORTEX_{side.upper()}")
    return columns, brain.vertex[columns]


@pytest.mark.parametrize("kind", ["dscalar", "dtseries"])
def test_cifti_is_expanded_where_it_says(tmp_path, brain, rng, kind):
    maps = rng.normal(size=(3, len(brain))).astype(np.float32)
    axis = cifti2.ScalarAxis(list("abc")) if kind == "dscalar" else cifti2.SeriesAxis(0, 2, 3)
    path = tmp_path / f"x.{kind}.nii"
    cifti2.Cifti2Image(maps, (axis, brain)).to_filename(path)
    data, names = read_surface_data(path)
    assert names == (list("abc") if kind == "dscalar" else ["time 0", "time 1", "time 2"])
    for side in ("left", "right"):
        columns, vertices = columns_of(brain, side)
        assert data[side].shape == (3, F5)
        np.testing.assert_array_equal(data[side][:, vertices], maps[:, columns])
        wall = np.setdiff1d(np.arange(F5), vertices)
        assert np.isnan(data[side][:, wall]).all()
    one = SurfaceMap.load(path, map=1)
    np.testing.assert_array_equal(one.data["right"], data["right"][1])
    with pytest.raises(InputError, match="expected one map; got 3 maps"):
        SurfaceMap.load(path)
    with pytest.raises(InputError, match="map: expected one of"):
        SurfaceMap.load(path, map="d")


def test_cifti_labels_are_an_atlas(tmp_path, brain, rng):
    values = rng.choice([0, 300, 5, -2], size=(2, len(brain))).astype(np.float32)
    table = {0: ("???", (0,) * 4), 5: ("V2", (1,) * 4), 300: ("V1", (1, 0, 0, 1))}
    table |= {-2: ("cut", (0,) * 4)}
    axis = cifti2.LabelAxis(["first", "second"], [table, table])
    path = tmp_path / "mine.dlabel.nii"
    cifti2.Cifti2Image(values, (axis, brain)).to_filename(path)
    atlas = load_atlas(path, map="second")
    assert (atlas.name, atlas.space, atlas.table) == ("mine", "fsaverage5", {5: "V2", 300: "V1"})
    for side in ("left", "right"):
        columns, vertices = columns_of(brain, side)
        expected = np.zeros(F5)
        expected[vertices] = values[1, columns].clip(0)
        np.testing.assert_array_equal(atlas.labels[side], expected)


def test_cifti_of_one_hemisphere_or_of_no_surface(tmp_path, brain, rng):
    left = brain[np.flatnonzero(brain.name == "CIFTI_STRUCTURE_CORTEX_LEFT")]
    path = tmp_path / "x.dscalar.nii"
    values = rng.normal(size=(1, len(left))).astype(np.float32)
    cifti2.Cifti2Image(values, (cifti2.ScalarAxis(["a"]), left)).to_filename(path)
    with pytest.raises(InputError, match="cortex of both hemispheres; got none on the right"):
        read_surface_data(path)


@pytest.mark.parametrize(
    ("place", "code", "value"),
    [(56, "<q", 2), (168, "<q", 16), (176, "<d", 2.0), (184, "<d", 1.0), (12, "<h", 8)],
    ids=["number of maps", "offset", "slope", "intercept", "type"],
)
def test_cifti_headers_that_lie(tmp_path, brain, rng, place, code, value):
    path = tmp_path / "x.dscalar.nii"
    values = rng.normal(size=(1, len(brain))).astype(np.float32)
    cifti2.Cifti2Image(values, (cifti2.ScalarAxis(["a"]), brain)).to_filename(path)
    content = bytearray(path.read_bytes())
    content[place : place + struct.calcsize(code)] = struct.pack(code, value)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.dscalar\.nii: expected a whole CIFTI-2 file"):
        read_surface_data(path)


def test_cifti_data_that_begin_elsewhere(tmp_path, brain, rng):
    path = tmp_path / "x.dscalar.nii"
    values = rng.normal(size=(1, len(brain))).astype(np.float32)
    cifti2.Cifti2Image(values, (cifti2.ScalarAxis(["a"]), brain)).to_filename(path)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack("<q", content[168:176])
    content[168:176] = struct.pack("<q", start + 16)  # four numbers later, and all are moved
    path.write_bytes(content + bytes(16))
    with pytest.raises(InputError, match=r"x\.dscalar\.nii: expected a whole CIFTI-2 file"):
        read_surface_data(path)
    content[168:176] = struct.pack("<q", start)
    path.write_bytes(content + bytes(4))
    with pytest.raises(InputError, match="bytes where its header says"):
        read_surface_data(path)


# Volumes.


def test_a_gradient_is_sampled_where_the_surface_is(tmp_path):
    from neuroigc.surface import load_mesh

    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -90, -126, -72
    ijk = np.stack(np.meshgrid(*map(np.arange, (91, 109, 91)), indexing="ij"), -1)
    xyz = ijk @ affine[:3, :3] + affine[:3, 3]
    path = tmp_path / "x.nii.gz"
    nibabel.save(nibabel.Nifti1Image(xyz[..., :2].astype(np.float32), affine), path)
    data = vol_to_surface(path)
    for side in ("left", "right"):
        assert data[side].shape == (2, F5)
        middle = sum(load_mesh("fsaverage5", kind, side)[0] for kind in ("white", "pial")) / 2
        # Linear in the coordinates, so the mean over depths is the value in the middle.
        assert np.nanmax(np.abs(data[side] - middle[:, :2].T)) < 0.5
        assert np.isnan(data[side]).mean() < 0.05
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"x\.nii\.gz: expected a whole volume"):
        vol_to_surface(path)


def test_volumes_that_are_elsewhere():
    affine = np.eye(4)
    affine[:3, 3] = 1000
    with pytest.raises(InputError, match="a volume around the surface; got one in which no"):
        vol_to_surface(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), affine))
    with pytest.raises(InputError, match="three or four axes; got \\(4, 4\\)"):
        vol_to_surface(np.ones((4, 4)))


@pytest.mark.data
def test_real_labels_of_nsd(real_data):
    names = dict(enumerate(("posterior", "anterior", "V1", "V2", "V3"), 1))
    labels, tables = read_surface_labels(
        real_data / "nsd_group_rois" / "{hemi}.highlevelvisual.mgz", table=names
    )
    counts = {"left": [2736, 6218, 1451, 1227, 1144], "right": [2452, 6058, 1347, 1600, 1251]}
    for side, expected in counts.items():
        np.testing.assert_array_equal(np.bincount(labels[side])[1:], expected)
        assert tables[side] == names
    data, _ = read_surface_data(real_data / "nsd_group_rois" / "{hemi}.highlevelvisual.mgz")
    assert data["left"].shape == (1, 163842)
