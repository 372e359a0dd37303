"""Names, counts, nesting and meshes of surfaces."""

import gzip

import nibabel
import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.surface import spaces
from neuroigc.surface.spaces import (
    HEMISPHERES,
    SPACES,
    check_vertices,
    fetch_meshes,
    get_space,
    load_background,
    load_mesh,
    mesh_at_hand,
    nest,
    space_of,
)


def test_icosahedral_counts():
    for level, name in ((5, "fsaverage5"), (6, "fsaverage6"), (7, "fsaverage")):
        assert SPACES[name].n_vertices == 10 * 4**level + 2


def test_density_is_what_bids_calls_it():
    assert {name: space.density for name, space in SPACES.items()} == {
        "fsaverage5": "10k",
        "fsaverage6": "41k",
        "fsaverage": "164k",
    }
    assert get_space("fsaverage5").density_text == "10242 vertices per hemisphere (fsaverage5)"


def test_unknown_space():
    with pytest.raises(InputError, match=r"space: expected one of 'fsaverage5'.* got 'fsnative'"):
        get_space("fsnative")


def test_space_of_counts():
    assert space_of({"left": 163842, "right": 163842}).name == "fsaverage"


def test_count_of_no_space_names_the_known_ones():
    with pytest.raises(InputError, match=r"10242 \(fsaverage5\).* got 227021 in the left hemi"):
        space_of({"left": 227021, "right": 226601})


def test_hemispheres_on_two_surfaces():
    with pytest.raises(InputError, match="same surface; got left: fsaverage5, right: fsaverage6"):
        space_of({"left": 10242, "right": 40962})


def test_vertices_pass():
    vertices = check_vertices({"left": [3, 1], "right": []}, 10)
    assert vertices["left"].tolist() == [3, 1]
    assert vertices["right"].dtype == np.int64


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ([10242], "indices from 0 to 10241; got 10242 to 10242"),
        ([-1, 2], "got -1 to 2"),
        ([1, 1], "every vertex once"),
        (np.array([True, False]), "list of vertex indices; got bool"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ([0.5], "float64"),
    ],
)
def test_vertices_that_do_not_fit(left, message):
    with pytest.raises(InputError, match=message):
        check_vertices({"left": left, "right": [0]}, 10242)


def test_vertices_of_one_hemisphere():
    with pytest.raises(InputError, match="the keys 'left' and 'right'"):
        check_vertices({"left": [1]}, 10)


def test_nesting_keeps_the_first_vertices(rng):
    values = rng.normal(size=(40962, 2))
    assert np.array_equal(nest(values, "fsaverage6", "fsaverage5"), values[:10242])


def test_nesting_only_thins():
    with pytest.raises(InputError, match="no finer than fsaverage5; got fsaverage6"):
        nest(np.zeros(10242), "fsaverage5", "fsaverage6")
    with pytest.raises(InputError, match="expected 40962 rows; got 10242"):
        nest(np.zeros(10242), "fsaverage6", "fsaverage5")


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_meshes_are_closed_and_wound_outwards(hemisphere):
    coordinates, faces = load_mesh("fsaverage5", "inflated", hemisphere)
    assert coordinates.shape == (10242, 3)
    assert faces.shape == (20480, 3)
    a, b, c = (coordinates[faces[:, corner]] for corner in range(3))
    assert np.einsum("ij,ij->", a, np.cross(b, c)) / 6 > 1e5  # enclosed volume, in mm^3
    assert len(np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)), axis=0)) == (
        10242 + 20480 - 2  # Euler
    )


def test_background_is_deep_in_the_calcarine():
    depth = load_background("fsaverage5", "left")
    assert depth.shape == (10242,)
    assert depth.min() < 0 < depth.max()


def test_callers_cannot_change_the_mesh_of_others():
    coordinates, _ = load_mesh("fsaverage5", "inflated", "left")
    coordinates[:] = 0
    assert load_mesh("fsaverage5", "inflated", "left")[0].any()


def test_missing_mesh_says_how_to_get_it():
    assert mesh_at_hand("fsaverage") == "fsaverage5"
    with pytest.raises(InputError, match=r"Call neuroigc.surface.fetch_meshes\('fsaverage'\)"):
        load_mesh("fsaverage", "inflated", "left")


def test_unknown_kind_and_hemisphere():
    with pytest.raises(InputError, match="kind: expected one of 'inflated'"):
        load_mesh("fsaverage5", "puffed", "left")
    with pytest.raises(InputError, match="hemisphere: expected one of 'left', 'right'; got 'lh'"):
        load_mesh("fsaverage5", "inflated", "lh")


def test_fetched_meshes_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("NILEARN_DATA", str(tmp_path))
    folder = tmp_path / "fsaverage6"
    folder.mkdir()
    points = np.eye(3, dtype=np.float32)
    mesh = nibabel.GiftiImage(
        darrays=[
            nibabel.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"),
            nibabel.gifti.GiftiDataArray(
                np.array([[0, 1, 2]], np.int32), intent="NIFTI_INTENT_TRIANGLE"
            ),
        ]
    )
    with gzip.open(folder / "infl_left.gii.gz", "wb") as file:
        file.write(mesh.to_bytes())
    assert mesh_at_hand("fsaverage6") == "fsaverage6"
    try:
        coordinates, faces = load_mesh("fsaverage6", "inflated", "left")
    finally:
        spaces._read.cache_clear()
    assert np.array_equal(coordinates, points)
    assert faces.tolist() == [[0, 1, 2]]


def test_fetching_is_left_to_nilearn(monkeypatch):
    import nilearn.datasets

    asked = []
    monkeypatch.setattr(nilearn.datasets, "fetch_surf_fsaverage", asked.append)
    fetch_meshes("fsaverage6")
    assert asked == ["fsaverage6"]
