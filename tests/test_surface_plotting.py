"""Pictures: what a pixel shows, where lines run, which way is up, and what a figure says."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.path import Path as Polygon

from neuroigc._validation import InputError
from neuroigc.surface import (
    Atlas,
    SurfaceMap,
    aggregate_rois,
    load_mesh,
    plot_roi_bars,
    plot_surface_map,
    plot_surface_overview,
    summarise_rois,
)
from neuroigc.surface.outlines import boundary_lines, label_position, visible_parts
from neuroigc.surface.plotting import _interpolate
from neuroigc.surface.rendering import front_facing, project, render, window_around

N = 10242


def grid(n):
    """Return a flat mesh of n x n vertices, counter-clockwise."""
    y, x = np.mgrid[:n, :n].astype(float)
    points = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], axis=1)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + n], axis=1),
            np.stack([corner + 1, corner + n + 1, corner + n], axis=1),
        ]
    )
    return points, faces


@pytest.fixture(scope="module")
def posterior():
    """Return a map of the posterior cortex, rising upwards, and an atlas of two areas on it."""
    data, labels = {}, {}
    for side in ("left", "right"):
        points, _ = load_mesh("fsaverage5", "pial", side)
        back = points[:, 1] < -60
        data[side] = np.where(back, points[:, 2], np.nan)
        labels[side] = np.where(points[:, 1] < -85, 1, np.where(points[:, 1] < -75, 2, 0))
    surface_map = SurfaceMap(data, name="height", units="mm")
    return surface_map, Atlas("bands", labels, {1: "pole", 2: "band"})


# ---- the renderer


def test_every_pixel_knows_its_point(rng):
    points, faces = grid(6)
    points[:, 2] = rng.normal(size=36)
    canvas = render(points, faces, (0, 5, 0, 5), n_pixels=50)
    assert canvas.face.shape == (50, 50)
    assert (canvas.face >= 0).all()
    there = np.einsum("hwc,hwcd->hwd", canvas.weights, points[faces[canvas.face]])
    column, row = np.meshgrid(np.arange(50), np.arange(50))
    np.testing.assert_allclose(there[..., 0], (column + 0.5) / 10, atol=1e-6)
    np.testing.assert_allclose(there[..., 1], 5 - (row + 0.5) / 10, atol=1e-6)  # row 0 is the top
    np.testing.assert_allclose(there[..., 2], canvas.depth, atol=1e-6)


def test_the_nearer_face_hides_the_other():
    points, faces = grid(2)
    both = np.concatenate([points, points + np.array([0, 0, 5])])
    for order in (1, -1):
        stacked = np.concatenate([faces, faces + 4][::order])
        canvas = render(both, stacked, (0, 1, 0, 1), n_pixels=8)
        assert (canvas.depth == 5).all()
        assert not canvas.shows(np.array([[0.5, 0.5, 0.0]])).any()
        assert canvas.shows(np.array([[0.5, 0.5, 5.0]])).all()
    assert not canvas.shows(np.array([[1.5, 0.5, 9.0]])).any()  # outside the picture


def test_the_back_of_a_face_is_not_drawn():
    points, faces = grid(3)
    canvas = render(points, faces[:, ::-1], (0, 2, 0, 2), n_pixels=8)
    assert not front_facing(points, faces[:, ::-1]).any()
    assert (canvas.face == -1).all()


def values_at(values, period=None):
    points, faces = grid(3)
    canvas = render(points, faces, (0, 2, 0, 2), n_pixels=40)
    shown, found = _interpolate(canvas, faces, np.asarray(values, float), period)
    picture = np.full(shown.shape, np.nan)
    picture[shown] = found
    return picture


def test_values_are_interpolated_linearly():
    points, _ = grid(3)
    picture = values_at(2 * points[:, 0] - points[:, 1])
    column, row = np.meshgrid(np.arange(40), np.arange(40))
    x, y = (column + 0.5) / 20, 2 - (row + 0.5) / 20
    np.testing.assert_allclose(picture, 2 * x - y, atol=1e-6)


def test_unmeasured_vertices_keep_their_half():
    values = np.ones(9)
    values[[0, 3, 6]] = np.nan  # the left column of the grid
    picture = values_at(values)
    assert np.isnan(picture[:, :10]).all()
    np.testing.assert_allclose(picture[:, 10:], 1, rtol=1e-6)


def test_angles_are_interpolated_around_the_circle():
    points, _ = grid(3)
    picture = values_at(np.where(points[:, 0] < 1, 350.0, 10.0), period=360)
    away = np.abs((picture + 180) % 360 - 180)
    assert away.max() <= 10 + 1e-4
    assert (picture >= 0).all()
    assert (picture < 360).all()


# ---- orientation, by anatomy


def landmarks(hemisphere, view):
    points, _ = load_mesh("fsaverage5", "pial", hemisphere)
    seen = project(load_mesh("fsaverage5", "inflated", hemisphere)[0], hemisphere, view)
    centred = seen - (seen.min(axis=0) + seen.max(axis=0)) / 2
    extremes = {
        "back": points[:, 1].argmin(),
        "front": points[:, 1].argmax(),
        "top": points[:, 2].argmax(),
        "bottom": points[:, 2].argmin(),
    }
    return {name: centred[vertex] for name, vertex in extremes.items()}


@pytest.mark.parametrize(
    ("hemisphere", "view", "back_at"),
    [
        ("left", "medial", -1), ("left", "lateral", 1),
        ("right", "medial", 1), ("right", "lateral", -1),
    ],
)  # fmt: skip
def test_occipital_pole_from_the_side(hemisphere, view, back_at):
    at = landmarks(hemisphere, view)
    assert at["back"][0] * back_at > 50
    assert at["front"][0] * back_at < -50
    assert at["top"][1] > 0 > at["bottom"][1]


@pytest.mark.parametrize("hemisphere", ["left", "right"])
def test_other_views(hemisphere):
    below, above, behind, before = (
        landmarks(hemisphere, view) for view in ("ventral", "dorsal", "posterior", "anterior")
    )
    assert below["front"][1] > 50 > -50 > below["back"][1]
    assert above["front"][1] > 50 > -50 > above["back"][1]
    assert below["bottom"][2] > 0 > below["top"][2]  # the bottom is near
    assert above["top"][2] > 0
    assert behind["back"][2] > 50
    assert before["front"][2] > 50


def test_medial_walls_face_each_other_from_behind():
    for hemisphere, side in (("left", 1), ("right", -1)):
        coordinates, _ = load_mesh("fsaverage5", "pial", hemisphere)
        middle = np.abs(coordinates[:, 0]) < 3
        seen = project(load_mesh("fsaverage5", "inflated", hemisphere)[0], hemisphere, "posterior")
        assert (seen[middle, 0].mean() - seen[:, 0].mean()) * side > 10


def test_hemispheres_are_mirrored(rng):
    points = rng.normal(size=(5, 3))
    for view in ("lateral", "medial", "ventral", "posterior", "occipital"):
        left = project(points, "left", view)
        right = project(points * [-1, 1, 1], "right", view)
        np.testing.assert_allclose(right, left * [-1, 1, 1], atol=1e-12)


def test_flat_maps_are_not_mirrored():
    for hemisphere, back_at in (("left", 1), ("right", -1)):
        pial, _ = load_mesh("fsaverage5", "pial", hemisphere)
        flat, faces = load_mesh("fsaverage5", "flat", hemisphere)
        assert front_facing(flat * [1, 1, 0], faces).mean() > 0.999
        assert flat[pial[:, 1].argmin(), 0] * back_at > 100  # as in a lateral view
        assert flat[pial[:, 2].argmax(), 1] > 50


# ---- outlines


def test_outline_encloses_exactly_its_vertices():
    points, faces = grid(12)
    labels = (((points[:, :2] - [5.2, 6.1]) ** 2).sum(axis=1) < 10).astype(int)
    for smoothing in (0, 2):
        lines = boundary_lines(labels, points, faces, smoothing=smoothing)
        assert len(lines) == 1
        assert np.array_equal(lines[0][0], lines[0][-1])
        assert np.array_equal(Polygon(lines[0][:, :2]).contains_points(points[:, :2]), labels == 1)


def test_outline_crosses_edges_in_their_middle():
    points, faces = grid(5)
    (line,) = boundary_lines((points[:, 0] > 1.5).astype(int), points, faces, smoothing=0)
    assert np.isin(line[:, 0], [1.5]).all()
    assert {line[0, 1], line[-1, 1]} == {0, 4}  # open, from rim to rim


def test_three_areas_meet_in_one_point():
    points, faces = grid(9)
    labels = np.where(points[:, 1] > 4, 2, (points[:, 0] > 4).astype(int))
    lines = boundary_lines(labels, points, faces)
    assert len(lines) == 3
    ends = np.round(np.concatenate([line[[0, -1], :2] for line in lines]), 6)
    unique, counts = np.unique(ends, axis=0, return_counts=True)
    assert sorted(counts) == [1, 1, 1, 3]
    assert ((unique[counts == 3] > 3) & (unique[counts == 3] < 5)).all()


def test_every_border_is_traced_once(rng):
    points, faces = grid(15)
    labels = rng.integers(0, 4, len(points))
    lines = boundary_lines(labels, points, faces, smoothing=0)
    pieces = np.concatenate([np.stack([line[:-1], line[1:]], axis=1) for line in lines])
    pieces = {tuple(sorted(map(tuple, np.round(piece, 6)))) for piece in pieces}
    kinds = np.array([len(set(face)) for face in labels[faces]])
    assert len(pieces) == (kinds == 2).sum() + 3 * (kinds == 3).sum()
    assert sum(len(line) - 1 for line in lines) == len(pieces)


def test_no_outline_where_all_is_one():
    points, faces = grid(4)
    assert boundary_lines(np.zeros(16, int), points, faces) == []


def test_hidden_parts_are_cut_out():
    line = np.arange(14.0).reshape(7, 2)
    visible = np.array([1, 1, 0, 1, 0, 1, 1], bool)
    parts = visible_parts(line, visible)
    assert [part.tolist() for part in parts] == [line[:2].tolist(), line[5:].tolist()]


def test_names_keep_apart():
    strip = np.stack([np.zeros(20), np.arange(20.0)], axis=1)
    beside = strip + np.array([1, 0])
    first = label_position(strip, beside, [], 6, 3)
    second = label_position(beside, strip, [(first, 6)], 6, 3)
    assert np.abs(first - second)[1] >= 3  # a line lower or higher: six wide, they would touch
    far = label_position(strip + np.array([9, 0]), strip, [(first, 6)], 6, 3)
    assert np.abs(first - far)[1] < 1  # side by side


# ---- figures


def drawn_lines(ax):
    collections = [c for c in ax.collections if isinstance(c, LineCollection)]
    return [line for collection in collections for line in collection.get_segments()]


@pytest.mark.parametrize("mesh", ["inflated", "flat"])
@pytest.mark.parametrize("hemisphere", ["left", "right"])
def test_panel(posterior, tmp_path, mesh, hemisphere):
    surface_map, atlas = posterior
    ax = plot_surface_map(
        surface_map, mesh=mesh, hemisphere=hemisphere, outlines=atlas, outline_names=True, title="t"
    )
    assert drawn_lines(ax)
    assert {text.get_text() for text in ax.texts} <= {"pole", "band"}
    assert ax.texts
    assert ax.get_title() == "t"
    assert ax.figure.axes[1].get_ylabel() == "mm"
    ax.figure.savefig(tmp_path / "panel.png")
    ax.figure.savefig(tmp_path / "panel.svg")


def picture_of(ax):
    return np.asarray(ax.images[0].get_array())


def test_colours_are_where_the_values_are(posterior):
    surface_map, _ = posterior
    ax = plot_surface_map(surface_map, view="medial", colorbar=False)
    picture = picture_of(ax)
    red, blue, alpha = picture[..., 0], picture[..., 2], picture[..., 3]
    coloured = (np.abs(red - blue) > 0.05) & (alpha > 0)
    half = picture.shape[1] // 2
    assert coloured[:, :half].sum() > 1000  # the back is on the left from inside
    assert not coloured[:, half:].any()  # unmeasured vertices are grey
    rows = np.arange(picture.shape[0])[:, None]
    above = (rows * (red > blue + 0.05) * alpha).sum() / ((red > blue + 0.05) * alpha).sum()
    below = (rows * (blue > red + 0.05) * alpha).sum() / ((blue > red + 0.05) * alpha).sum()
    assert above < below  # high values are red and up
    assert picture[0, 0, 3] == 0  # nothing beside the brain


def test_colours_are_symmetric_about_zero(posterior, rng):
    data = {side: rng.normal(size=N) + 0.3 for side in ("left", "right")}
    ax = plot_surface_map(SurfaceMap(data))
    low, high = ax.figure.axes[1].get_ylim()
    assert low == -high
    expected = np.percentile(np.abs(np.concatenate(list(data.values()))), 99)
    assert high == pytest.approx(expected, rel=1e-6)


def test_both_hemispheres_have_one_scale(posterior):
    surface_map, _ = posterior
    limits = [
        plot_surface_map(surface_map, hemisphere=side).figure.axes[1].get_ylim()
        for side in ("left", "right")
    ]
    assert limits[0] == limits[1]


def test_colours_fade_where_evidence_is_weak(posterior):
    surface_map, _ = posterior
    blank = {side: np.full(N, np.nan) for side in surface_map.data}
    sulci = picture_of(plot_surface_map(SurfaceMap(blank), mesh="flat", crop=False, vmax=1))
    options = {"mesh": "flat", "crop": False, "vmax": 30}
    opaque = picture_of(plot_surface_map(surface_map, **options))
    for z, share in ((0.0, 0.0), (1.0, 0.25), (-1.0, 0.25), (2.0, 1.0), (9.0, 1.0)):
        evidence = SurfaceMap({side: np.full(N, z) for side in surface_map.data})
        faded = picture_of(plot_surface_map(surface_map, evidence=evidence, **options))
        expected = share * opaque + (1 - share) * sulci
        np.testing.assert_allclose(faded, expected, atol=1e-5)
    finer = SurfaceMap({side: np.zeros(40962) for side in surface_map.data})
    with pytest.raises(InputError, match="evidence: expected one on fsaverage5; got fsaverage6"):
        plot_surface_map(surface_map, evidence=finer)
    with pytest.raises(InputError, match="opaque_at: expected a positive number"):
        plot_surface_map(surface_map, evidence=surface_map, opaque_at=0)


def test_cyclic_and_sequential_maps(posterior, rng):
    _surface_map, _ = posterior
    angle = SurfaceMap({s: rng.uniform(0, 360, N) for s in ("left", "right")}, units="deg")
    ax = plot_surface_map(angle, cmap="twilight", vmin=0, vmax=360, period=360, label="angle")
    assert ax.figure.axes[1].get_ylim() == (0, 360)
    assert ax.figure.axes[1].get_ylabel() == "angle"
    plot_surface_map(angle, cmap="viridis", vmin=0)


def test_outlines_stay_on_the_visible_side(posterior):
    surface_map, atlas = posterior
    behind = plot_surface_map(surface_map, view="posterior", outlines=atlas, colorbar=False)
    before = plot_surface_map(surface_map, view="anterior", outlines=atlas, colorbar=False)
    assert len(drawn_lines(behind)) > 0
    assert len(drawn_lines(before)) == 0  # all at the back of the brain


def test_given_axes_are_used(posterior):
    surface_map, _ = posterior
    figure = Figure()
    ax = figure.add_subplot()
    assert plot_surface_map(surface_map, colorbar=False, ax=ax) is ax
    assert figure.axes == [ax]


def test_maps_without_a_value_are_grey():
    data = {side: np.full(N, np.nan) for side in ("left", "right")}
    for mesh in ("inflated", "flat"):
        picture = picture_of(plot_surface_map(SurfaceMap(data), mesh=mesh))
        assert (picture[..., 0] == picture[..., 2]).all()


def test_dense_maps_are_drawn_on_what_is_at_hand(posterior):
    data = {side: np.zeros(163842) for side in ("left", "right")}
    for side in data:
        data[side][10242:] = 1e6  # must not be seen
        data[side][:100] = 1
    labels = {side: (np.arange(163842) < 100).astype(int) for side in data}
    atlas = Atlas("a", labels, {1: "A"})
    ax = plot_surface_map(SurfaceMap(data), vmax=1, outlines=atlas, mesh="flat")
    assert drawn_lines(ax)


def test_bad_options(posterior):
    surface_map, _ = posterior
    fine = Atlas("a", {side: np.zeros(40962) for side in ("left", "right")}, {})
    with pytest.raises(InputError, match="outlines: expected one on fsaverage5; got fsaverage6"):
        plot_surface_map(surface_map, outlines=fine)
    with pytest.raises(InputError, match="view: expected one of 'lateral'"):
        plot_surface_map(surface_map, view="inside")
    with pytest.raises(InputError, match="hemisphere: expected one of 'left', 'right'"):
        plot_surface_map(surface_map, hemisphere="lh")
    with pytest.raises(InputError, match=r"vmin: expected a number below vmax, 1; got 2"):
        plot_surface_map(surface_map, vmin=2, vmax=1)


def test_overview(posterior, tmp_path):
    surface_map, atlas = posterior
    figure = plot_surface_overview(surface_map, outlines=atlas, title="Height")
    panels, bar = figure.axes[:-1], figure.axes[-1]
    assert [ax.get_title() for ax in panels] == [
        "left, medial", "left, posterior", "right, posterior", "right, medial",
        "left, ventral", "left, flat", "right, flat", "right, ventral",
    ]  # fmt: skip
    assert bar.get_xlabel() == "mm"
    left, right = panels[5], panels[6]
    assert np.allclose(left.get_xlim(), [-x for x in right.get_xlim()[::-1]])
    assert left.get_ylim() == right.get_ylim()
    figure.savefig(tmp_path / "overview.png")


# ---- bars


@pytest.fixture
def table(posterior, rng):
    import pandas as pd

    _, atlas = posterior
    vertices = {side: np.flatnonzero(atlas.labels[side]) for side in ("left", "right")}
    n_columns = sum(map(len, vertices.values()))
    return pd.concat(
        [
            aggregate_rois(
                rng.normal(size=(2, n_columns)), atlas, vertices, subject=s, outputs=["a", "b"]
            )
            for s in ("01", "02", "03")
        ],
        ignore_index=True,
    )


def test_bars_show_the_summary(table):
    ax = plot_roi_bars(table, rois=["band", "pole"])
    summary = summarise_rois(table).set_index(["output", "roi"])["mean"]
    heights = [[bar.get_height() for bar in container] for container in ax.containers[::2]]
    for output, row in zip(["a", "b"], heights, strict=True):
        np.testing.assert_allclose(row, [summary[output, "band"], summary[output, "pole"]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["band", "pole"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert ax.get_ylabel() == "IGC (sums to r)"


def test_dots_show_single_subjects(table):
    ax = plot_roi_bars(table, outputs=["a"], rois=["pole"])
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    rows = table[(table.roi == "pole") & (table.output == "a")]
    expected = rows.groupby("subject")["igc"].sum()
    np.testing.assert_allclose(np.sort(dots[0].get_ydata()), np.sort(expected))


def test_bars_of_one_subject_and_of_empty_areas(table, tmp_path):
    ax = plot_roi_bars(table[table.subject == "01"])  # "elsewhere" has no vertex here
    assert [text.get_text() for text in ax.texts] == ["n/a", "n/a"]
    assert not [line for line in ax.lines if line.get_marker() == "o"]
    ax.figure.savefig(tmp_path / "bars.png")


def test_bars_of_what_is_not_there(table):
    with pytest.raises(InputError, match="rois: expected some of pole, band, elsewhere; got V1"):
        plot_roi_bars(table, rois=["V1"])
    with pytest.raises(InputError, match="outputs: expected some of a, b; got c"):
        plot_roi_bars(table, outputs=["c"])


def test_nothing_is_left_in_pyplot(posterior, table):
    from matplotlib import pyplot

    surface_map, _ = posterior
    plot_surface_map(surface_map)
    plot_roi_bars(table)
    assert pyplot.get_fignums() == []


def test_window():
    points = np.array([[0.0, 0.0], [10.0, 4.0]])
    assert window_around(points, 0.1) == (-1, 11, -1, 5)
