"""Retinotopy on the cortex: the right colours on the right side."""

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from neuroigc._validation import InputError
from neuroigc.reporting import plot_retinotopy
from neuroigc.surface import Atlas, load_mesh

matplotlib.use("Agg")

VIEWS = ["flat", "inflated"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def vertices():
    """Return a patch of some hundred vertices at the occipital pole of each hemisphere."""
    patches = {}
    for side in ("left", "right"):
        points, _ = load_mesh("fsaverage5", "inflated", side)
        _, faces = load_mesh("fsaverage5", "flat", side)
        back = np.where(np.isin(np.arange(len(points)), faces), points[:, 1], np.inf)
        patches[side] = np.sort(np.argsort(back, kind="stable")[:300])
    return patches


@pytest.fixture
def fields():
    """Return the left hemisphere's vertices to the right, the right one's above."""
    n = 300
    return {
        "x_deg": np.repeat([2.0, 0.0], n),
        "y_deg": np.repeat([0.0, 2.0], n),
        "size_deg": np.repeat([0.5, 1.0], n),
        "r2": np.tile([0.05, 0.5], n),
    }


def panels(figure):
    return {ax.get_title().split()[0]: ax for ax in figure.axes if "hemisphere" in ax.get_title()}


def coloured(ax):
    """Return the pixels that are no grey of the sulci."""
    picture = np.asarray(ax.get_images()[0].get_array())
    return picture[np.ptp(picture[..., :3], axis=-1) > 0.01]


@pytest.mark.parametrize("view", VIEWS)
def test_angles_have_the_colours_of_the_wheel(fields, vertices, view):
    axes = panels(plot_retinotopy(fields, vertices, view=view))
    # Right is red, up is yellow.
    for side, colour in (("left", "#b2182b"), ("right", "#fdd049")):
        pixels = coloured(axes[side])
        assert len(pixels) > 1000
        np.testing.assert_allclose(pixels[:, :3] - to_rgb(colour), 0, atol=0.02)


@pytest.mark.parametrize(("quantity", "values"), [("size", [0.5, 1.0]), ("eccentricity", [2, 2])])
def test_sizes_and_eccentricities_have_the_colours_of_their_bar(fields, vertices, quantity, values):
    figure = plot_retinotopy(fields, vertices, quantity=quantity, vmax=4)
    (bar,) = (bar for ax in figure.axes for bar in ax.child_axes)
    assert "deg" in bar.get_ylabel()
    low, high = bar.get_ylim()
    for side, value in zip(("left", "right"), values, strict=True):
        if quantity == "eccentricity":
            # Four octaves below the highest: 2 of 4 deg is three quarters up.
            assert (low, high) == pytest.approx((0.25, 4))
            share = 0.75
        else:
            assert (low, high) == pytest.approx((0, 4))
            share = value / 4
        expected = matplotlib.colormaps["viridis"](share)[:3]
        np.testing.assert_allclose(coloured(panels(figure)[side])[:, :3] - expected, 0, atol=0.02)
    figure.draw_without_rendering()


def test_vertices_below_the_threshold_are_transparent(fields, vertices):
    whole = len(coloured(panels(plot_retinotopy(fields, vertices))["left"]))
    by_r2 = plot_retinotopy(fields, vertices, min_r2=0.1)
    by_mask = plot_retinotopy(fields, vertices, where=fields["r2"] > 0.1)
    left = coloured(panels(by_r2)["left"])
    assert 0.3 * whole < len(left) < 0.7 * whole
    np.testing.assert_array_equal(left, coloured(panels(by_mask)["left"]))
    fields["x_deg"][:300] = np.nan
    assert len(coloured(panels(plot_retinotopy(fields, vertices))["left"])) == 0


@pytest.mark.parametrize("view", VIEWS)
def test_areas_are_outlined_and_named(fields, vertices, view):
    labels = {side: np.zeros(10242, int) for side in vertices}
    for side, chosen in vertices.items():
        labels[side][chosen] = 1
    atlas = Atlas("areas", labels, {1: "V1"})
    axes = panels(plot_retinotopy(fields, vertices, view=view, outlines=atlas))
    for ax in axes.values():
        assert len(ax.collections[0].get_paths()) > 0
        assert [text.get_text() for text in ax.texts] == ["V1"]
    axes = panels(plot_retinotopy(fields, vertices, outlines=atlas, outline_names=False))
    assert not axes["left"].texts


def test_the_wheel_names_the_directions(fields, vertices):
    figure = plot_retinotopy(fields, vertices, title="sub-01")
    words = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert words == {"up", "down", "left", "right"}
    assert figure.get_suptitle() == "sub-01"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantity": "phase"}, "quantity: expected one of 'angle', 'eccentricity', 'size'"),
        ({"view": "pial"}, "view: expected one of 'flat', 'inflated'; got 'pial'"),
        ({"where": np.ones(3, bool)}, "where: expected a boolean mask over the 600 vertices"),
        ({"min_r2": 0.9}, "fields: expected at least one vertex to show; got none of 600"),
        ({"quantity": "size", "vmax": -1}, "vmax: expected a positive number of degrees"),
        ({"space": "fsaverage9"}, "space: expected one of"),
    ],
)
def test_bad_options_are_named(fields, vertices, options, words):
    with pytest.raises(InputError, match=words):
        plot_retinotopy(fields, vertices, **options)


def test_bad_fields_are_named(fields, vertices):
    short = {name: values[:400] for name, values in fields.items()}
    with pytest.raises(InputError, match="values: expected one value for each of the 600 vertices"):
        plot_retinotopy(short, vertices)
    del fields["r2"]
    with pytest.raises(InputError, match="no usable r2"):
        plot_retinotopy(fields, vertices, min_r2=0.1)
