"""Clusters on meshes against graphs walked by hand, closed forms and simulations."""

import numpy as np
import pytest
from meshes import icosphere, smooth_maps

from neuroigc._validation import InputError
from neuroigc.stats import (
    cluster_test,
    enhance_clusters,
    find_clusters,
    mesh_edges,
    sign_flip_maps,
    vertex_areas,
)

# Two triangles with a common edge, and one apart.
FACES = np.array([[0, 1, 2], [2, 1, 3], [4, 5, 6]])
# A line of ten vertices.
LINE = np.stack([np.arange(9), np.arange(1, 10)], 1)


def flood(values, edges, threshold):
    """Return the sets of neighbours at or above a threshold, walked one by one."""
    neighbours = {v: set() for v in range(len(values))}
    for a, b in edges:
        neighbours[a].add(b), neighbours[b].add(a)
    left, sets = {v for v in range(len(values)) if values[v] >= threshold}, []
    while left:
        grown, front = set(), {left.pop()}
        while front:
            grown |= front
            front = {w for v in front for w in neighbours[v] if w in left} - grown
            left -= front
        sets.append(frozenset(int(v) for v in grown))
    return set(sets)


def test_edges_come_once():
    edges = mesh_edges(FACES)
    assert edges.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3], [4, 5], [4, 6], [5, 6]]
    v, f = icosphere(2)
    assert len(v) == 162
    assert len(mesh_edges(f)) == len(v) + len(f) - 2  # Euler


def test_edges_among_some_vertices_are_numbered_by_their_places():
    assert mesh_edges(FACES, vertices=[3, 1, 6, 2]).tolist() == [[1, 3], [0, 1], [0, 3]]
    assert mesh_edges(FACES, vertices=[0, 4, 9]).shape == (0, 2)


def test_areas_add_up_to_the_surface():
    coordinates = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0], [9.0, 9, 9]])
    np.testing.assert_allclose(vertex_areas(coordinates, [[0, 1, 2]]), [2, 2, 2, 0])
    v, f = icosphere(4)
    assert vertex_areas(v, f).sum() == pytest.approx(4 * np.pi, rel=5e-3)


def test_clusters_are_those_that_walking_finds(rng):
    v, f = icosphere(3)
    edges = mesh_edges(f)
    values = smooth_maps(rng, v, 1)[0]
    labels = find_clusters(values, edges, threshold=0.8)
    for sign in (1, -1):
        numbers = [k for k in np.unique(labels) if sign * k > 0]
        found = {frozenset(np.flatnonzero(labels == k).tolist()) for k in numbers}
        assert found == flood(sign * values, edges, 0.8)
        assert len(found) > 3
        assert [sign * k for k in numbers[::sign]] == list(range(1, len(found) + 1))
    assert np.all((labels == 0) == (np.abs(values) < 0.8))


def test_enhancement_of_one_peak_by_hand():
    values = np.zeros(10)
    values[3:6] = [1, 2, 1]
    # Extent 3 up to 1 and 1 from there to 2; integrals of h^2.
    expected = np.zeros(10)
    expected[[3, 5]] = 3 / 3
    expected[4] = 3 / 3 + (8 - 1) / 3
    found = enhance_clusters(values, LINE, n_steps=2000)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(enhance_clusters(-values, LINE, n_steps=2000), -expected, rtol=1e-5)
    np.testing.assert_allclose(
        enhance_clusters(values, LINE, areas=np.full(10, 4.0), extent_power=0.5, n_steps=2000)[3],
        np.sqrt(12) / 3,
        rtol=1e-5,
    )


def test_enhancement_adds_up_over_heights_that_are_walked(rng):
    v, f = icosphere(2)
    edges, areas = mesh_edges(f), rng.uniform(0.5, 2, 162)
    values = 2 * smooth_maps(rng, v, 1)[0]
    step = np.abs(values).max() / 20
    expected = np.zeros(162)
    for sign in (1, -1):
        for height in (np.arange(20) + 0.5) * step:
            for members in flood(sign * values, edges, height):
                at = list(members)
                expected[at] += sign * areas[at].sum() * height**2 * step
    found = enhance_clusters(values, edges, areas=areas, n_steps=20)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.all(enhance_clusters(np.zeros(162), edges) == 0)


def test_order_of_vertices_does_not_matter(rng):
    v, f = icosphere(3)
    maps = smooth_maps(rng, v, 20)
    order = rng.permutation(len(v))
    place = np.argsort(order)
    for statistic in ("tfce", "area", "mass"):
        options = dict(statistic=statistic, threshold=1.0, n_steps=20)
        found = cluster_test(maps, mesh_edges(f), **options)
        other = cluster_test(maps[:, order], mesh_edges(place[f]), **options)
        np.testing.assert_allclose(other.scores, found.scores[order])
        np.testing.assert_array_equal(other.p_values, found.p_values[order])


def test_sizes_of_clusters_by_hand():
    null = np.zeros((3, 10))
    null[0, [1, 2, 3, 7]] = 3, 4, 3, -5
    null[1, [4, 5]] = 3.5
    null[2, 0] = 2
    found = cluster_test(null, LINE, statistic="area", threshold=2.5, standardise=False)
    assert found.scores.tolist() == [0, 3, 3, 3, 0, 0, 0, -1, 0, 0]
    assert found.labels.tolist() == [0, 1, 1, 1, 0, 0, 0, -1, 0, 0]
    np.testing.assert_allclose(found.p_values[[1, 7, 0]], [1 / 3, 2 / 3, 1])
    mass = cluster_test(null, LINE, statistic="mass", threshold=2.5, standardise=False)
    np.testing.assert_allclose(mass.scores[[1, 7]], [2.5, -2.5])


def test_maps_are_put_on_one_scale(rng):
    null = rng.standard_normal((30, 10))
    scaled = null * rng.uniform(1e-3, 1e3, 10)
    null[:, 3] = scaled[:, 3] = 0
    one, other = cluster_test(null, LINE), cluster_test(scaled, LINE)
    np.testing.assert_allclose(one.scores, other.scores)
    np.testing.assert_array_equal(one.p_values, other.p_values)
    assert one.p_values[3] == 1


@pytest.mark.parametrize(("statistic", "n_sets"), [("tfce", 100), ("mass", 300)])
def test_the_family_of_vertices_is_controlled(rng, statistic, n_sets):
    v, f = icosphere(1)
    edges = mesh_edges(f)
    options = dict(statistic=statistic, threshold=1.5, n_steps=6)
    maps = smooth_maps(rng, v, 20 * n_sets, n_waves=30, frequency=3).reshape(n_sets, 20, -1)
    smallest = np.array([cluster_test(null, edges, **options).p_values.min() for null in maps])
    assert abs(np.mean(smallest <= 0.05) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / n_sets)
    assert abs(np.mean(smallest <= 0.5) - 0.5) < 3 * np.sqrt(0.25 / n_sets)


def test_a_patch_that_all_subjects_have_is_found(rng):
    v, f = icosphere(2)
    patch = v[:, 2] > 0.8
    subjects = 0.5 * smooth_maps(rng, v, 8) + 2 * patch
    null = sign_flip_maps(subjects)
    found = cluster_test(null, mesh_edges(f), standardise=False, n_steps=20)
    assert found.p_values[patch].max() <= 0.05
    assert set(found.labels[patch]) == {1}
    assert np.mean(found.p_values[v[:, 2] < 0.5] <= 0.05) < 0.05


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"faces: expected whole numbers \(n_faces, 3\)"):
        mesh_edges(np.zeros((4, 3)))
    with pytest.raises(InputError, match="threshold: expected a number above 0; got 0"):
        find_clusters(np.zeros(10), LINE, threshold=0)
    with pytest.raises(InputError, match=r"null: expected finite maps.*got NaN"):
        cluster_test(np.full((3, 10), np.nan), LINE)
    with pytest.raises(InputError, match=r"a mesh of 5 vertices; got 5 areas, and .* 0 to 9"):
        cluster_test(np.zeros((3, 5)), LINE)
    with pytest.raises(InputError, match=r"a mesh of 10 vertices; .* from number -1 to 8"):
        cluster_test(np.zeros((3, 10)), LINE - 1)
    for edges in (LINE + 0.5, LINE[0]):
        with pytest.raises(InputError, match=r"edges: expected whole numbers \(n_edges, 2\)"):
            cluster_test(np.zeros((3, 10)), edges)
    with pytest.raises(InputError, match="statistic: expected one of 'tfce', 'area', 'mass'"):
        cluster_test(np.zeros((3, 10)), LINE, statistic="height")
    with pytest.raises(InputError, match="values: expected finite numbers; got NaN"):
        enhance_clusters(np.r_[np.nan, np.ones(9)], LINE)
    with pytest.raises(InputError, match="areas: expected finite numbers from 0 up"):
        cluster_test(np.ones((3, 10)), LINE, areas=np.r_[np.nan, np.ones(9)])
    for call in (
        lambda: enhance_clusters(np.ones(5), LINE),
        lambda: find_clusters(np.ones(5), LINE, threshold=1),
    ):
        with pytest.raises(InputError, match=r"a mesh of 5 vertices"):
            call()
    faces = np.array([[0, 1, 2]])
    for vertices in ([True, False, True], [0, 0], [-1, 2], [0.0, 1.0]):
        with pytest.raises(InputError, match="vertices: expected different whole numbers"):
            mesh_edges(faces, vertices=vertices)
