"""Maps and masks in files: GIFTI, MGH, BIDS names and sidecars."""

import json

import nibabel
import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.surface import (
    SurfaceMap,
    bids_label,
    bids_name,
    load_mask,
    read_map,
    write_dataset_description,
    write_json,
)

N = 10242
STEM = "sub-01_hemi-{}_space-fsaverage_den-10k_desc-luminanceContrast_stat-igc_statmap"


@pytest.fixture
def vertices(rng):
    return {"left": rng.choice(N, 40, replace=False), "right": rng.choice(N, 30, replace=False)}


@pytest.fixture
def surface_map(vertices, rng):
    return SurfaceMap.from_columns(
        rng.normal(size=70),
        vertices,
        space="fsaverage5",
        name="IGC of luminance contrast",
        units="IGC (sums to r)",
        metadata={"Correlation": 0.56, "Baselines": ["paired"]},
    )


def test_columns_go_to_their_vertices(vertices, rng):
    values = rng.normal(size=70)
    surface_map = SurfaceMap.from_columns(values, vertices, space="fsaverage5")
    assert surface_map.space == "fsaverage5"
    assert np.array_equal(surface_map.data["left"][vertices["left"]], values[:40].astype("f4"))
    assert np.array_equal(surface_map.data["right"][vertices["right"]], values[40:].astype("f4"))
    assert np.isnan(surface_map.data["left"]).sum() == N - 40


def test_columns_that_do_not_fit(vertices):
    with pytest.raises(InputError, match="each of the 70 vertices; got shape"):
        SurfaceMap.from_columns(np.zeros(69), vertices, space="fsaverage5")
    with pytest.raises(InputError, match="indices from 0 to 10241"):
        SurfaceMap.from_columns(np.zeros(2), {"left": [0], "right": [N]}, space="fsaverage5")


def test_maps_that_fit_no_surface():
    with pytest.raises(InputError, match="known surface"):
        SurfaceMap({"left": np.zeros(10), "right": np.zeros(10)})
    with pytest.raises(InputError, match="the keys 'left' and 'right'"):
        SurfaceMap({"left": np.zeros(N)})
    with pytest.raises(InputError, match="one value per vertex"):
        SurfaceMap({"left": np.zeros((N, 2)), "right": np.zeros((N, 2))})
    with pytest.raises(InputError, match="the vertices of fsaverage; got those of fsaverage5"):
        SurfaceMap({"left": np.zeros(N), "right": np.zeros(N)}, "fsaverage")


def test_gifti_names_and_content(tmp_path, surface_map):
    paths = surface_map.to_gifti(
        tmp_path / "sub-01", subject="01", desc="luminance_contrast", stat="igc"
    )
    for side, letter in (("left", "L"), ("right", "R")):
        assert paths[side] == tmp_path / "sub-01" / (STEM.format(letter) + ".shape.gii")
        image = nibabel.load(paths[side])
        array = image.darrays[0]
        assert array.data.dtype == np.float32
        assert array.intent == nibabel.nifti1.intent_codes["NIFTI_INTENT_SHAPE"]
        assert image.meta["AnatomicalStructurePrimary"] == f"Cortex{side.title()}"
        assert np.array_equal(array.data, surface_map.data[side], equal_nan=True)
    assert len(list((tmp_path / "sub-01").iterdir())) == 4  # and no temporary file


def test_sidecars(tmp_path, surface_map):
    surface_map.to_gifti(tmp_path, subject="01", desc="luminance_contrast", stat="igc")
    for letter in "LR":
        sidecar = json.loads((tmp_path / f"{STEM.format(letter)}.json").read_text())
        assert sidecar["Units"] == "IGC (sums to r)"
        assert sidecar["Density"] == "10242 vertices per hemisphere (fsaverage5)"
        assert sidecar["Description"] == "IGC of luminance contrast"
        assert sidecar["Correlation"] == 0.56


def test_round_trip(tmp_path, surface_map):
    paths = surface_map.to_gifti(tmp_path, subject="sub-01", desc="luminance_contrast", stat="igc")
    for path in (paths, tmp_path / (STEM.format("{hemi}") + ".shape.gii")):
        again = SurfaceMap.load(path)
        assert (again.name, again.units, again.space, again.metadata) == (
            surface_map.name, surface_map.units, "fsaverage5", surface_map.metadata,
        )  # fmt: skip
        for side in paths:
            assert np.array_equal(again.data[side], surface_map.data[side], equal_nan=True)
    assert SurfaceMap.load(paths, units="percent").units == "percent"


def test_nilearn_reads_what_we_write(tmp_path, surface_map):
    from nilearn.surface import load_surf_data

    paths = surface_map.to_gifti(tmp_path, subject="01", desc="a", stat="igc")
    for side, path in paths.items():
        assert np.array_equal(load_surf_data(path), surface_map.data[side], equal_nan=True)


def test_surface_image_there_and_back(surface_map):
    image = surface_map.to_surface_image(mesh="pial")
    for one in (image, image_of_columns(image)):
        back = SurfaceMap.from_surface_image(one, name=surface_map.name, units=surface_map.units)
        assert (back.space, back.name) == (surface_map.space, surface_map.name)
        for side, values in surface_map.data.items():
            np.testing.assert_array_equal(back.data[side], values)


def image_of_columns(image, n_maps=1):
    """Return the same with an axis of maps, as nilearn's maskers make it."""
    from nilearn.surface import SurfaceImage

    data = {side: np.repeat(part[:, None], n_maps, 1) for side, part in image.data.parts.items()}
    return SurfaceImage(mesh=image.mesh, data=data)


def test_surface_image_of_several_maps_is_an_error(surface_map):
    image = image_of_columns(surface_map.to_surface_image(), n_maps=2)
    with pytest.raises(InputError, match="image: expected one map of both hemispheres"):
        SurfaceMap.from_surface_image(image)


def test_surface_image(surface_map):
    image = surface_map.to_surface_image()
    for side in ("left", "right"):
        assert np.array_equal(image.data.parts[side], surface_map.data[side], equal_nan=True)
        assert image.mesh.parts[side].n_vertices == N


@pytest.mark.parametrize("bad", ["<script>", "../x", "a/b", "", "  ", "a.b", "ü", "a\x00b", "a\n"])
@pytest.mark.parametrize("entity", ["subject", "desc", "stat"])
def test_labels_that_could_do_harm(tmp_path, surface_map, entity, bad):
    labels = {"subject": "01", "desc": "contrast", "stat": "igc", entity: bad}
    with pytest.raises(InputError, match=f"{entity}: expected letters and digits"):
        surface_map.to_gifti(tmp_path / "out", **labels)
    assert not (tmp_path / "out").exists()


def test_words_are_joined():
    assert bids_label("one_over_f-slope 2", "desc") == "oneOverFSlope2"
    assert bids_label("HCP_MMP1", "desc") == "HCPMMP1"


def test_names_without_a_subject():
    name = bids_name(hemisphere="right", space="fsaverage", suffix="dseg.label.gii", desc="streams")
    assert name == "hemi-R_space-fsaverage_den-164k_desc-streams_dseg.label.gii"


def test_metadata_that_json_cannot_hold(tmp_path):
    with pytest.raises(InputError, match="metadata: expected text, finite numbers"):
        write_json(tmp_path / "x.json", {"r": float("nan")})
    with pytest.raises(InputError, match=r"metadata: .* not JSON serializable"):
        write_json(tmp_path / "x.json", {"r": object()})
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written(tmp_path, surface_map):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder: expected a folder that can be written to"):
        surface_map.to_gifti(tmp_path / "file", subject="01", desc="a", stat="igc")


def test_dataset_description(tmp_path):
    path = write_dataset_description(tmp_path, name="A study", sources=["https://example.org"])
    content = json.loads(path.read_text())
    assert path == tmp_path / "dataset_description.json"
    assert content["Name"] == "A study"
    assert content["DatasetType"] == "derivative"
    assert content["GeneratedBy"][0]["Name"] == "neuroigc"
    assert content["SourceDatasets"] == [{"URL": "https://example.org"}]
    assert "SourceDatasets" not in json.loads(
        write_dataset_description(tmp_path, name="A study").read_text()
    )


def write_mgh(path, values):
    nibabel.save(nibabel.MGHImage(np.asarray(values, np.float32), np.eye(4)), path)


@pytest.mark.parametrize("shape", [(N, 1, 1), (1, 1, N)])
@pytest.mark.parametrize("extension", ["mgh", "mgz"])
def test_mgh_maps(tmp_path, rng, shape, extension):
    values = {side: rng.normal(size=N).astype(np.float32) for side in ("left", "right")}
    for side, prefix in (("left", "lh"), ("right", "rh")):
        write_mgh(tmp_path / f"{prefix}.prfangle.{extension}", values[side].reshape(shape))
    surface_map = SurfaceMap.load(tmp_path / f"{{hemi}}.prfangle.{extension}", name="angle")
    assert surface_map.name == "angle"
    for side in values:
        assert np.array_equal(surface_map.data[side], values[side])
    assert read_map(tmp_path / f"lh.prfangle.{extension}").dtype.isnative


def test_several_maps_are_not_one(tmp_path):
    write_mgh(tmp_path / "lh.betas.mgh", np.zeros((N, 1, 1, 3)))
    with pytest.raises(InputError, match=r"lh\.betas\.mgh: expected one map.* got 3 maps"):
        read_map(tmp_path / "lh.betas.mgh")
    array = nibabel.gifti.GiftiDataArray(np.zeros(5, np.float32), intent="NIFTI_INTENT_SHAPE")
    nibabel.save(nibabel.GiftiImage(darrays=[array, array]), tmp_path / "two.gii")
    with pytest.raises(InputError, match=r"two\.gii: expected one map.*; got 2 maps"):
        read_map(tmp_path / "two.gii")


@pytest.mark.parametrize("name", ["x.mgh", "x.mgz", "x.gii"])
@pytest.mark.parametrize("size", [0, 10, 400, 2000])
def test_truncated_files_are_named(tmp_path, rng, name, size):
    path = tmp_path / name
    values = rng.normal(size=N).astype(np.float32)
    if name.endswith("gii"):
        array = nibabel.gifti.GiftiDataArray(values, intent="NIFTI_INTENT_SHAPE")
        nibabel.save(nibabel.GiftiImage(darrays=[array]), path)
    else:
        write_mgh(path, values.reshape(N, 1, 1))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=rf"{name}: expected a whole, readable file"):
        read_map(path)


def test_corrupt_contents_are_named(tmp_path, rng):
    path = tmp_path / "x.mgz"
    write_mgh(path, rng.normal(size=(N, 1, 1)))
    content = bytearray(path.read_bytes())
    content[5000:5200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.mgz: expected a whole, readable file"):
        read_map(path)


def test_files_that_are_missing_or_of_another_kind(tmp_path):
    with pytest.raises(InputError, match=r"path: expected a file; got nothing at .*no\.mgz"):
        read_map(tmp_path / "no.mgz")
    with pytest.raises(InputError, match=r"a \.mgh, \.mgz or \.gii file; got .*x\.nii"):
        read_map(tmp_path / "x.nii")


def test_damaged_sidecar(tmp_path, surface_map):
    paths = surface_map.to_gifti(tmp_path, subject="01", desc="luminance_contrast", stat="igc")
    (tmp_path / f"{STEM.format('L')}.json").write_text("{")
    with pytest.raises(InputError, match=r"statmap\.json: expected a JSON sidecar"):
        SurfaceMap.load(paths)


def test_masks(tmp_path, rng):
    for prefix in ("lh", "rh"):
        write_mgh(tmp_path / f"{prefix}.nsdgeneral.mgz", rng.integers(-1, 2, (N, 1, 1)))
    mask = load_mask(tmp_path / "{hemi}.nsdgeneral.mgz")
    assert mask["left"].dtype == bool
    assert np.array_equal(mask["right"], read_map(tmp_path / "rh.nsdgeneral.mgz") == 1)


def test_nested_map(rng):
    data = {side: rng.normal(size=40962) for side in ("left", "right")}
    nested = SurfaceMap(data, name="a", units="b").nested("fsaverage5")
    assert (nested.space, nested.name, nested.units) == ("fsaverage5", "a", "b")
    assert np.array_equal(nested.data["left"], data["left"][:N].astype(np.float32))
