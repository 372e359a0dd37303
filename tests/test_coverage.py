"""Coverage of the visual field, in closed form."""

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.patches import Circle

from neuroigc._validation import InputError
from neuroigc.prf import pixel_centres, plot_visual_field_coverage, visual_field_coverage

matplotlib.use("Agg")

# Right, a little below the horizontal meridian; and left, above it.
FIELDS = {
    "x_deg": np.array([2.0, -1.0, np.nan, 0.5]),
    "y_deg": np.array([-1.0, 3.0, 0.0, 0.5]),
    "size_deg": np.array([0.8, 0.5, 1.0, 0.0]),
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


def gaussian(vertex, n=40, extent=(8.0, 8.0)):
    x_deg, y_deg = pixel_centres(n, n, extent)
    x, y, size = (FIELDS[name][vertex] for name in ("x_deg", "y_deg", "size_deg"))
    return np.exp(-((x_deg - x) ** 2 + (y_deg[:, None] - y) ** 2) / (2 * size**2))


@pytest.mark.parametrize("method", ["max", "mean", "sum"])
@pytest.mark.parametrize("extent", [8.0, (8.0, 6.0)])
def test_one_vertex_is_its_gaussian(method, extent):
    maps = visual_field_coverage(FIELDS, {"V1": [0]}, extent_deg=extent, n_pixels=40, method=method)
    np.testing.assert_allclose(maps, [gaussian(0, extent=extent)], atol=1e-12)


@pytest.mark.parametrize(
    ("method", "combine"), [("max", np.max), ("mean", np.mean), ("sum", np.sum)]
)
def test_two_vertices_are_combined_pixel_by_pixel(method, combine):
    both = combine([gaussian(0), gaussian(1)], axis=0)
    maps = visual_field_coverage(FIELDS, {"V1": [0, 1]}, extent_deg=8, n_pixels=40, method=method)
    np.testing.assert_allclose(maps[0], both, atol=1e-12)


def test_many_vertices_are_more_than_one_batch(rng):
    fields = {name: rng.uniform(0.5, 3, 300) for name in FIELDS}
    x_deg, y_deg = pixel_centres(9, 9, 8)
    x, y, size = (fields[name][:, None, None] for name in ("x_deg", "y_deg", "size_deg"))
    each = np.exp(-((x_deg - x) ** 2 + (y_deg[:, None] - y) ** 2) / (2 * size**2))
    maps = visual_field_coverage(fields, {"all": np.arange(300)}, extent_deg=8, n_pixels=9)
    np.testing.assert_allclose(maps[0], each.max(axis=0))


def test_masks_indices_and_unusable_vertices():
    groups = {
        "mask": np.array([True, False, True, True]),
        "indices": [0],
        "none": [],
        "bad": [2, 3],
    }
    maps = visual_field_coverage(FIELDS, groups, extent_deg=8, n_pixels=5)
    assert maps.shape == (4, 5, 5)
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.isnan(maps[2:]).all()


def test_plot_is_in_degrees_with_half_line_dots_and_field():
    figure = plot_visual_field_coverage(
        FIELDS, {"V1": [0], "V2": [1, 2], "V3": []}, extent_deg=(8, 6), field_radius_deg=2.5
    )
    panels = [ax for ax in figure.axes if ax.get_images()]
    assert [ax.get_title() for ax in panels] == ["V1 (n = 1)", "V2 (n = 1)", "V3 (n = 0)"]
    ax = panels[0]
    assert list(ax.get_images()[0].get_extent()) == [-4, 4, -3, 3]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (deg)", "y (deg)")
    (circle,) = (patch for patch in ax.patches if isinstance(patch, Circle))
    assert (circle.center, circle.radius) == ((0, 0), 2.5)
    lines, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [[2, -1]])
    # A Gaussian is at half its height sqrt(2 ln 2) standard deviations from its centre.
    outline = lines.get_paths()[0].vertices
    np.testing.assert_allclose(
        np.hypot(*(outline - [2, -1]).T), 0.8 * (2 * np.log(2)) ** 0.5, atol=0.01
    )
    figure.draw_without_rendering()


def test_the_field_is_by_default_the_largest_circle():
    figure = plot_visual_field_coverage(FIELDS, {"V1": [0]}, extent_deg=(8, 6), method="sum")
    assert [p.radius for p in figure.axes[0].patches if isinstance(p, Circle)] == [3]


@pytest.mark.parametrize(
    ("groups", "options", "words"),
    [
        ({"V1": [4]}, {}, r"groups\['V1'\]: expected indices from 0 to 3"),
        ({"V1": [-1]}, {}, r"groups\['V1'\]: expected indices from 0 to 3"),
        ({"V1": [True, False]}, {}, "a mask of 4 vertices; got bool values"),
        ({"V1": [0.5]}, {}, "got float64 values"),
        ([[0]], {}, "groups: expected a dict of area to vertices; got a list"),
        ({"V1": [0]}, {"method": "median"}, "method: expected one of 'max', 'mean', 'sum'"),
        ({"V1": [0]}, {"n_pixels": 1}, "n_pixels: expected 2 or more"),
        ({"V1": [0]}, {"extent_deg": 0}, "extent_deg: expected a positive number"),
    ],
)
def test_bad_input_is_named(groups, options, words):
    with pytest.raises(InputError, match=words):
        visual_field_coverage(FIELDS, groups, **{"extent_deg": 8} | options)


def test_bad_fields_and_plots_are_named():
    with pytest.raises(InputError, match=r"fields: .*no usable size_deg in a dict"):
        visual_field_coverage({"x_deg": [1], "y_deg": [1]}, {"V1": [0]}, extent_deg=8)
    with pytest.raises(InputError, match="fields: expected one number per vertex in each column"):
        visual_field_coverage(FIELDS | {"x_deg": [1]}, {"V1": [0]}, extent_deg=8)
    with pytest.raises(InputError, match="groups: expected at least one area"):
        plot_visual_field_coverage(FIELDS, {}, extent_deg=8)
    with pytest.raises(InputError, match="field_radius_deg: expected a positive number"):
        plot_visual_field_coverage(FIELDS, {"V1": [0]}, extent_deg=8, field_radius_deg=-1)
