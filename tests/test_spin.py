"""Spin tests against rotating by hand, and on smooth maps that have nothing in common."""

import numpy as np
import pytest
from meshes import icosphere, smooth_maps
from scipy import stats
from scipy.spatial import cKDTree

from neuroigc._validation import InputError
from neuroigc.stats import mirror_of_spheres, random_rotations, spin_test, spun_vertices
from neuroigc.surface.spaces import load_background, load_mesh

MIRROR = np.diag([-1.0, 1, 1])


def two_spheres(n_divisions):
    """Return a sphere and its mirror image, whose vertices come in another order."""
    v = icosphere(n_divisions)[0]
    return {"left": 100 * v, "right": 100 * v[::-1] * [-1, 1, 1]}


def test_rotations_are_rotations_and_uniform():
    rotations = random_rotations(4000, seed=2)
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.eye(3) + 0 * rotations, atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    # Where a point comes to lie is uniform: each coordinate is (Archimedes).
    for point in np.eye(3):
        for coordinate in (rotations @ point).T:
            assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    # Angles of Haar's measure have density (1 - cos) / pi.
    angles = np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert stats.kstest(angles, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-3
    np.testing.assert_array_equal(random_rotations(5, seed=2), rotations[:5])


def test_vertices_are_given_the_nearest_value_and_hemispheres_are_mirrored():
    spheres = two_spheres(2)
    n = len(spheres["left"])
    rotations = random_rotations(3, seed=5)
    for k, given in enumerate(spun_vertices(spheres, 3, seed=5)):
        for side, turn, first in (
            ("left", rotations[k], 0),
            ("right", MIRROR @ rotations[k] @ MIRROR, n),
        ):
            v = spheres[side]
            distances = np.linalg.norm((v @ turn.T)[:, None] - v, axis=2)
            np.testing.assert_array_equal(given[first : first + n], first + distances.argmin(1))
        # The right is the mirror image of the left, in reverse order.
        np.testing.assert_array_equal(given[n:][::-1] - n, n - 1 - given[:n])


def test_spheres_that_are_turned_against_each_other_are_laid_upon_each_other():
    spheres = two_spheres(2)
    turn = random_rotations(1, seed=9)[0]
    turned = {"left": spheres["left"], "right": spheres["right"] @ turn.T}
    # Places that are no sphere, on which the hemispheres are mirror images.
    bent = {side: v * [1, 2, 1] + 0.002 * v**2 for side, v in spheres.items()}
    bent["right"] = bent["right"] - 2 * 0.002 * spheres["right"] ** 2 * [1, 0, 0] + 70
    mirror = mirror_of_spheres(turned, bent)
    np.testing.assert_allclose(mirror, turn @ MIRROR, atol=1e-6)
    given = list(spun_vertices(turned, 3, mirror=mirror))
    np.testing.assert_array_equal(given, list(spun_vertices(spheres, 3)))


def test_hemispheres_of_fsaverage_are_alike_after_laying_them_upon_each_other():
    spheres, inflated = (
        {side: load_mesh("fsaverage5", kind, side)[0] for side in ("left", "right")}
        for kind in ("sphere", "inflated")
    )
    depth = {side: load_background("fsaverage5", side) for side in spheres}
    tree = cKDTree(spheres["right"])
    mirror = mirror_of_spheres(spheres, inflated)
    assert np.linalg.det(mirror) == pytest.approx(-1)
    r = [
        np.corrcoef(depth["left"], depth["right"][tree.query(spheres["left"] @ own.T)[1]])[0, 1]
        for own in (mirror, MIRROR)
    ]
    assert r[0] > 0.8
    assert r[1] < 0.3


def test_a_sphere_may_come_alone(rng):
    spheres = two_spheres(2)
    n = len(spheres["left"])
    both = [given[n:] - n for given in spun_vertices(spheres, 4)]
    right = list(spun_vertices({"right": spheres["right"]}, 4))
    np.testing.assert_array_equal(both, right)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_correlations_are_over_vertices_that_both_maps_have(rng, method):
    spheres = two_spheres(2)
    coordinates = np.concatenate([spheres["left"], spheres["right"]]) / 100
    x, *maps = smooth_maps(rng, coordinates, 3, frequency=2) + 40
    maps = np.array(maps)
    wall = np.abs(coordinates[:, 0]) > 0.9
    x[wall] = np.nan
    maps[:, wall] = np.nan
    maps[0, :5] = np.nan
    found = spin_test(x, maps, spheres, n_rotations=7, method=method, seed=1)
    if method == "spearman":
        x, maps = (stats.rankdata(a, axis=-1, nan_policy="omit") for a in (x, maps))
    spins = [np.arange(len(x)), *spun_vertices(spheres, 7, seed=1)]
    for m in range(2):
        r, counts = [], []
        for given in spins:
            y = maps[m][given]
            kept = np.isfinite(x) & np.isfinite(y)
            r.append(np.corrcoef(x[kept], y[kept])[0, 1])
            counts.append(kept.sum())
        np.testing.assert_allclose([found.r[m], *found.null[:, m]], r, rtol=1e-8)
        assert found.n_compared[:, m].tolist() == counts
        assert counts[1] < counts[0] < len(x)
        assert found.p_values[m] == np.mean(np.abs(r) >= np.abs(r[0]) - 1e-12)


def test_a_map_is_found_in_itself(rng):
    spheres = two_spheres(3)
    coordinates = np.concatenate([spheres["left"], spheres["right"]]) / 100
    x, noise = smooth_maps(rng, coordinates, 2)
    found = spin_test(x, [x, x + noise, -x, np.ones_like(x)], spheres, n_rotations=99)
    np.testing.assert_allclose(found.r[[0, 2]], [1, -1])
    assert found.p_values[:3].tolist() == [0.01] * 3
    assert np.isnan(found.p_values[3])


def test_rotated_maps_are_as_smooth_and_tests_honest_where_plain_ones_are_not(rng):
    spheres = two_spheres(3)
    # Hemispheres are alike, as those of brains: their rotations must be mirrored, too.
    coordinates = np.concatenate([spheres["left"], spheres["right"] @ MIRROR]) / 100
    wall = coordinates[:, 2] < -0.9
    p, naive = [], []
    for seed in range(60):
        x, *maps = smooth_maps(rng, coordinates, 6, n_waves=100, frequency=2.5)
        x[wall] = np.nan
        found = spin_test(x, maps, spheres, n_rotations=99, seed=seed)
        p.append(found.p_values)
        naive.append(2 * stats.norm.sf(np.abs(np.arctanh(found.r)) * np.sqrt((~wall).sum() - 3)))
    p = np.ravel(p)
    # Maps of one round share x, so that 300 p-values are worth some fewer.
    assert np.abs(np.sort(p) - np.arange(1, 301) / 300).max() < 0.01 + 1.63 / np.sqrt(150)
    assert 0.01 < np.mean(p <= 0.05) < 0.1
    assert np.mean(np.array(naive) <= 0.05) > 0.5


def test_offsets_of_maps_do_not_matter(rng):
    spheres = two_spheres(2)
    x, maps = rng.standard_normal(324), rng.standard_normal((2, 324))
    plain = spin_test(x, maps, spheres, n_rotations=9)
    for moved in (spin_test(x, maps + 1e9, spheres, n_rotations=9),
                  spin_test(x + 1e9, maps, spheres, n_rotations=9)):  # fmt: skip
        np.testing.assert_allclose(moved.r, plain.r, atol=1e-6)
        np.testing.assert_allclose(moved.null, plain.null, atol=1e-6)
    flat = spin_test(x, np.full(324, 0.7), spheres, n_rotations=2)
    assert np.isnan([flat.r, flat.p_values]).all()


def test_bad_input_is_named(rng):
    spheres = two_spheres(1)
    x = rng.standard_normal(84)
    with pytest.raises(InputError, match=r"keys 'left' and 'right'; got \['lh'\]"):
        spin_test(x, x, {"lh": spheres["left"]})
    with pytest.raises(InputError, match=r"spheres\['right'\]: expected vertices on a sphere"):
        spin_test(x, x, spheres | {"right": spheres["right"] * [1, 2, 1]})
    with pytest.raises(InputError, match="maps: expected a value or NaN for each of 84 vertices"):
        spin_test(x, x[:42], spheres)
    with pytest.raises(InputError, match=r"values: expected a value or NaN .*got infinity"):
        spin_test(np.where(x == x[3], np.inf, x), x, spheres)
    with pytest.raises(InputError, match="spheres: expected both hemispheres; got left"):
        mirror_of_spheres({"left": spheres["left"]}, spheres)
    with pytest.raises(InputError, match=r"surfaces\['right'\]: expected coordinates of the"):
        mirror_of_spheres(spheres, spheres | {"right": x})
    with pytest.raises(InputError, match=r"mirror: expected an orthogonal matrix .*got shape"):
        spin_test(x, x, spheres, mirror=np.eye(2))
    with pytest.raises(InputError, match=r"mirror: expected an orthogonal matrix"):
        spin_test(x, x, spheres, mirror=2 * np.eye(3))
    patch = np.where(np.arange(84) < 60, x, np.nan)
    with pytest.raises(InputError, match=r"maps: expected values at half of each .*got 43%"):
        spin_test(x, patch, spheres)
    for n_rotations in (0, -1, 2.5, "9"):
        with pytest.raises(InputError, match="n_rotations: expected 1 or more"):
            spin_test(x, x, spheres, n_rotations=n_rotations)


def test_threads_change_nothing():
    spheres = two_spheres(2)
    one, two = (list(spun_vertices(spheres, 3, n_threads=n)) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
