"""The invented visual areas have the geometry of measured ones."""

import numpy as np
import pytest

from neuroigc.datasets import synthetic_retinotopy as retinotopy
from neuroigc.datasets.synthetic_retinotopy import (
    ATLAS_TABLES,
    PRF_BY_AREA,
    area_names,
    make_visual_cortex,
    mesh_coordinates,
    visual_mask,
)

HEMISPHERES = ("left", "right")
STIMULUS_RADIUS_DEG = 4.2


@pytest.fixture(scope="module")
def group():
    return make_visual_cortex()


@pytest.fixture(scope="module")
def subjects():
    return [make_visual_cortex(np.random.default_rng([5, s])) for s in range(4)]


def names_of(cortex, hemisphere):
    return area_names(cortex.labels["prf-visualrois"][hemisphere])


def detailed(cortex, hemisphere, name):
    label = 1 + ATLAS_TABLES["prf-visualrois"].index(name)
    return cortex.labels["prf-visualrois"][hemisphere] == label


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_field_is_contralateral_and_upper_is_ventral(group, subjects, hemisphere):
    for cortex in [group, *subjects]:
        x, y = cortex.x_deg[hemisphere], cortex.y_deg[hemisphere]
        inside = names_of(cortex, hemisphere) != ""
        side = 1 if hemisphere == "left" else -1
        assert (side * x[inside] >= 0).all()
        assert np.isnan(x[~inside]).all()
        for area in ("V1", "V2", "V3"):
            assert (y[detailed(cortex, hemisphere, area + "v")] >= 0).all()
            assert (y[detailed(cortex, hemisphere, area + "d")] <= 0).all()
        hv4 = y[detailed(cortex, hemisphere, "hV4")]
        assert hv4.min() < -1
        assert hv4.max() > 1
    # Ventral is below dorsal in the brain.
    height = mesh_coordinates("white_matter", hemisphere)[:, 2]
    for area in ("V1", "V2", "V3"):
        ventral, dorsal = (detailed(group, hemisphere, area + bank) for bank in "vd")
        assert height[ventral].mean() < height[dorsal].mean() - 5


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_polar_angle_reverses_at_every_border(group, hemisphere):
    """Field sign: V1 is a mirror image of the field, V2 is not, V3 is, hV4 is not."""
    from nilearn.datasets import load_fsaverage

    mesh = load_fsaverage("fsaverage5")["sphere"].parts[hemisphere]
    faces, coordinates = np.asarray(mesh.faces), np.asarray(mesh.coordinates, dtype=float)
    corners = coordinates[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normals * corners.mean(axis=1)).sum(axis=1) > 0).all()  # seen from outside
    x, y = group.x_deg[hemisphere], group.y_deg[hemisphere]
    # In log-polar coordinates, as hV4 is two vertices wide: its triangles span much of the field.
    side = 1 if hemisphere == "left" else -1
    u, v = np.log(np.hypot(x, y))[faces], side * np.arctan2(y, side * x)[faces]
    handed = (u[:, 1] - u[:, 0]) * (v[:, 2] - v[:, 0]) - (u[:, 2] - u[:, 0]) * (v[:, 1] - v[:, 0])
    labels = group.labels["prf-visualrois"][hemisphere][faces]
    for area, sign in {"V1": -1, "V2": 1, "V3": -1, "hV4": 1}.items():
        within = (area_names(labels) == area).all(axis=1)
        # V2 and V3 are in two pieces; a triangle that spans them would be no map.
        within &= (labels == labels[:, :1]).all(axis=1) | (area == "V1")
        assert within.sum() > 20
        assert (np.sign(handed[within]) == sign).mean() > 0.95, area


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_maps_are_continuous_across_borders(group, hemisphere):
    from nilearn.datasets import load_fsaverage

    faces = np.asarray(load_fsaverage("fsaverage5")["sphere"].parts[hemisphere].faces)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    names = names_of(group, hemisphere)[edges]
    x, y = group.x_deg[hemisphere][edges], group.y_deg[hemisphere][edges]
    eccentricity = np.hypot(x, y).mean(axis=1)
    jump = np.hypot(x[:, 0] - x[:, 1], y[:, 0] - y[:, 1])
    border = (names != "").all(axis=1) & (names[:, 0] != names[:, 1])
    # hV4 is so narrow that a step across its border is a large part of its map.
    border &= ~(names == "hV4").any(axis=1) & (eccentricity > 0.5)
    assert border.sum() > 30
    assert np.median(jump[border] / eccentricity[border]) < 0.5


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_magnification_follows_the_monopole_map(group, hemisphere):
    x, y = group.x_deg[hemisphere], group.y_deg[hemisphere]
    eccentricity, in_v1 = np.hypot(x, y), names_of(group, hemisphere) == "V1"
    bounds = np.array([0, 1, 2, 3.2, 5.0])
    counts = np.histogram(eccentricity[in_v1], bounds)[0]
    density = counts / np.diff(bounds**2)
    assert (np.diff(density) < 0).all()
    # Along the horizontal meridian, distance on the sphere is k log(1 + E / a).
    meridian = in_v1 & (np.abs(y) < 0.15 * np.abs(x)) & (eccentricity > 0.5)
    sphere = mesh_coordinates("sphere", hemisphere)
    fovea = sphere[in_v1][np.argmin(eccentricity[in_v1])]
    distance = np.linalg.norm(sphere[meridian] - fovea, axis=1)
    predicted = retinotopy.MAGNIFICATION_MM * np.log1p(eccentricity[meridian] / 0.75)
    assert np.corrcoef(distance, predicted)[0, 1] > 0.97
    assert np.abs(distance - predicted).max() < 6  # two vertices


def test_sizes_grow_with_eccentricity_as_stated(group, subjects):
    def regress(cortex, area):
        x, y, size = (
            np.concatenate([values[h][names_of(cortex, h) == area] for h in HEMISPHERES])
            for values in (cortex.x_deg, cortex.y_deg, cortex.size_deg)
        )
        return np.polyfit(np.hypot(x, y), size, 1)

    for area, (slope, intercept, exponent) in PRF_BY_AREA.items():
        np.testing.assert_allclose(regress(group, area), [slope, intercept], rtol=1e-9)
        estimates = np.array([regress(cortex, area) for cortex in subjects])
        np.testing.assert_allclose(estimates.mean(axis=0), [slope, intercept], atol=0.06)
        for h in HEMISPHERES:
            assert (group.exponent[h][names_of(group, h) == area] == exponent).all()


def test_areas_have_the_size_that_fsaverage5_allows(group):
    expected = {"V1": (50, 64), "V2": (64, 78), "V3": (60, 78), "hV4": (42, 54)}
    for h in HEMISPHERES:
        seen = np.hypot(group.x_deg[h], group.y_deg[h]) < STIMULUS_RADIUS_DEG
        for area, (low, high) in expected.items():
            assert low <= (seen & (names_of(group, h) == area)).sum() <= high


def test_subjects_differ_and_are_reproducible(group, subjects):
    again = make_visual_cortex(np.random.default_rng([5, 0]))
    for h in HEMISPHERES:
        np.testing.assert_array_equal(again.x_deg[h], subjects[0].x_deg[h])
        first, second = (names_of(cortex, h) == "V1" for cortex in subjects[:2])
        overlap = 2 * (first & second).sum() / (first.sum() + second.sum())
        assert 0.4 < overlap < 0.99
        both = first & (names_of(group, h) == "V1")
        angles = [np.arctan2(c.y_deg[h], np.abs(c.x_deg[h]))[both] for c in (subjects[0], group)]
        assert 1 < np.rad2deg(np.abs(angles[0] - angles[1])).mean() < 30


def test_visual_mask_holds_all_areas(group, subjects):
    mask = visual_mask()
    assert sum(inside.sum() for inside in mask.values()) == 2374
    for cortex in [group, *subjects]:
        for labels in cortex.labels.values():
            for h in HEMISPHERES:
                assert mask[h][labels[h] > 0].all()


def test_category_areas_keep_clear_of_retinotopic_ones(group):
    for h in HEMISPHERES:
        for atlas, table in ATLAS_TABLES.items():
            if atlas == "prf-visualrois":
                continue
            labels = group.labels[atlas][h]
            assert labels.max() <= len(table)
            assert not (labels[names_of(group, h) != ""] > 0).any()
        assert (group.labels["floc-bodies"][h] == 1).sum() > 20  # EBA


@pytest.mark.data
@pytest.mark.parametrize(("hemisphere", "file"), [("left", "lh"), ("right", "rh")])
def test_areas_agree_with_those_of_real_subjects(group, real_data, hemisphere, file):
    """Dice with the group areas that NSD's authors drew, over whole areas (no vertex left out)."""
    import nibabel as nib

    image = nib.load(real_data / "nsd_group_rois" / f"{file}.highlevelvisual.mgz")
    drawn = np.asarray(image.dataobj).ravel()[: retinotopy.N_VERTICES]
    for label, area in {3: "V1", 4: "V2", 5: "V3"}.items():
        ours, theirs = names_of(group, hemisphere) == area, drawn == label
        dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        assert dice > 0.65, f"{area}: {dice:.2f}"
