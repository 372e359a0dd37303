"""Reference maps from files of NSD and of Benson's atlas, written here."""

import nibabel
import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.prf import load_reference_prfs

# A vertex for each of right, up, left, down, upper right; one at fixation, one not measured.
ANGLE = np.array([0.0, 90.0, 180.0, 270.0, 45.0, np.nan, np.nan])
ECCENTRICITY = np.array([1.0, 2.0, 3.0, 4.0, 2**0.5, 0.0, np.nan])
X, Y = [1, 0, -3, 0, 1, 0, np.nan], [0, 2, 0, -4, 1, 0, np.nan]


def write(folder, name, values, shape="first", dtype=np.float32):
    values = np.asarray(values, dtype)
    shaped = values.reshape((-1, 1, 1) if shape == "first" else (1, 1, -1))
    nibabel.save(nibabel.MGHImage(shaped, np.eye(4)), folder / name)


@pytest.fixture
def nsd(tmp_path):
    for side in ("lh", "rh"):
        write(tmp_path, f"{side}.prfangle.mgz", ANGLE)
        write(tmp_path, f"{side}.prfeccentricity.mgz", ECCENTRICITY, "last")
        size = np.arange(1, 8) / (2 if side == "lh" else 4)
        write(tmp_path, f"{side}.prfsize.mgh", size)
        write(tmp_path, f"{side}.prfR2.mgz", [50, 10, 0, -1000, 100, 7, np.nan])
        write(tmp_path, f"{side}.prf-visualrois.mgz", [1, 2, 3, 6, 7, 0, -1], dtype=np.int32)
    return tmp_path


def test_nsd_maps_are_in_the_convention_of_the_house(nsd):
    fields = load_reference_prfs(nsd)
    np.testing.assert_allclose(fields["x_deg"], X + X, atol=1e-6)
    np.testing.assert_allclose(fields["y_deg"], Y + Y, atol=1e-6)
    np.testing.assert_allclose(fields["size_deg"][[0, 5, 7]], [0.5, 3.0, 0.25])
    # Percent become shares.
    np.testing.assert_allclose(fields["r2"][:6], [0.5, 0.1, 0, -10, 1, 0.07], rtol=1e-6)
    assert fields["area"][:7].tolist() == ["V1", "V1", "V2", "V3", "hV4", "", ""]
    assert np.isnan([fields[name][6] for name in ("x_deg", "y_deg", "size_deg", "r2")]).all()


def test_vertices_are_picked_left_first(nsd):
    fields = load_reference_prfs(nsd, vertices={"left": [3, 0], "right": np.array([2])})
    np.testing.assert_allclose(fields["x_deg"], [0, 1, -3], atol=1e-6)
    np.testing.assert_allclose(fields["y_deg"], [-4, 0, 0], atol=1e-6)
    np.testing.assert_allclose(fields["size_deg"], [2, 0.5, 0.75])
    only_right = load_reference_prfs(nsd, vertices={"left": [], "right": [2]})
    assert len(only_right["x_deg"]) == 1


def test_areas_of_nsd_are_optional(nsd):
    for side in ("lh", "rh"):
        (nsd / f"{side}.prf-visualrois.mgz").unlink()
    assert set(load_reference_prfs(nsd)["area"].tolist()) == {""}


@pytest.fixture(params=["", ".v4_0"])
def benson(tmp_path, request):
    # Vertices: upper vertical, horizontal, lower vertical meridian; the last is in no area.
    for side in ("lh", "rh"):
        stem, end = f"{side}.benson14_", f"{request.param}.mgz"
        write(tmp_path, f"{stem}angle{end}", [0, 90, 180, 0], "last")
        write(tmp_path, f"{stem}eccen{end}", [1, 2, 3, 0], "last")
        write(tmp_path, f"{stem}sigma{end}", [0.3, 0.4, 0.5, 0], "last")
        write(tmp_path, f"{stem}varea{end}", [1, 4, 12, 0], "last", np.int32)
    return tmp_path


def test_benson_angles_point_to_the_field_across(benson):
    fields = load_reference_prfs(benson, kind="benson")
    # The left hemisphere sees the right field, and the right one the left.
    np.testing.assert_allclose(fields["x_deg"], [0, 2, 0, np.nan, 0, -2, 0, np.nan], atol=1e-6)
    np.testing.assert_allclose(fields["y_deg"], [1, 0, -3, np.nan] * 2, atol=1e-6)
    np.testing.assert_allclose(fields["size_deg"], [0.3, 0.4, 0.5, np.nan] * 2, rtol=1e-6)
    assert fields["area"][:4].tolist() == ["V1", "hV4", "V3A", ""]
    assert np.isnan(fields["r2"]).all()


def test_missing_and_ambiguous_files_are_named(benson, tmp_path):
    with pytest.raises(InputError, match=r"one file lh\.prfangle\.mgz or \.mgh; got none"):
        load_reference_prfs(benson)
    with pytest.raises(InputError, match="folder: expected a folder of map files"):
        load_reference_prfs(benson / "nowhere")
    with pytest.raises(InputError, match="kind: expected one of 'nsd', 'benson'; got 'hcp'"):
        load_reference_prfs(benson, kind="hcp")
    for version in ("v2_0", "v3_0"):
        write(tmp_path, f"lh.prfangle.{version}.mgz", ANGLE)
    with pytest.raises(InputError, match=r"got lh\.prfangle\.v2_0\.mgz, lh\.prfangle\.v3_0\.mgz"):
        load_reference_prfs(tmp_path)


def test_wrong_files_and_vertices_are_named(nsd):
    with pytest.raises(InputError, match=r"vertices\['left'\]: expected indices from 0 to 6"):
        load_reference_prfs(nsd, vertices={"left": [7], "right": [0]})
    with pytest.raises(InputError, match="vertices: expected the keys 'left' and 'right'"):
        load_reference_prfs(nsd, vertices={"lh": [0]})
    with pytest.raises(InputError, match="got float64 values"):
        load_reference_prfs(nsd, vertices={"left": [0.5], "right": [0]})
    write(nsd, "rh.prfsize.mgh", [1, 2])
    with pytest.raises(InputError, match=r"one surface for the right hemisphere.*size: 2 vertices"):
        load_reference_prfs(nsd)
    (nsd / "lh.prfangle.mgz").write_bytes(b"no such thing")
    with pytest.raises(InputError, match=r"lh\.prfangle\.mgz: expected a whole, readable file"):
        load_reference_prfs(nsd)
