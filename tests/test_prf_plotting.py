"""Pictures of receptive fields: what they show, not how they look."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle

from neuroigc._validation import InputError
from neuroigc.prf import (
    angle_colormap,
    fit_prf,
    pixel_centres,
    plot_angle_wheel,
    plot_prf_comparison,
    plot_prf_gallery,
    plot_prf_map,
    plot_size_eccentricity,
)

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture
def maps(rng):
    x_deg, y_deg = pixel_centres(16, 16, 8.4)
    x, y = rng.uniform(-3, 3, (2, 6, 1, 1))
    fields = np.exp(-((x_deg - x) ** 2 + (y_deg[:, None] - y) ** 2) / 2)
    return 1e-3 * (fields + 0.05 * rng.standard_normal(fields.shape))


@pytest.fixture
def fits(maps):
    return fit_prf(maps, extent_deg=8.4)


def circles(ax):
    return [patch for patch in ax.patches if isinstance(patch, Circle)]


def test_colours_are_symmetric_and_axes_in_degrees(maps):
    ax = plot_prf_map(maps[0], extent_deg=(8.4, 6.0))
    image = ax.get_images()[0]
    assert -image.norm.vmin == image.norm.vmax == np.abs(maps[0]).max()
    assert list(image.get_extent()) == [-4.2, 4.2, -3.0, 3.0]
    # Row 0 is the top.
    assert image.origin == "upper"
    np.testing.assert_array_equal(image.get_array(), maps[0])


def test_estimate_is_solid_and_reference_dotted(maps):
    ax = plot_prf_map(maps[0], extent_deg=8.4, estimate=(1, 2, 0.5), reference=(-1, 0.5, 0.8))
    solid, dotted = circles(ax)
    assert (solid.center, solid.radius, solid.get_linestyle()) == ((1, 2), 0.5, "-")
    assert (dotted.center, dotted.radius, dotted.get_linestyle()) == ((-1, 0.5), 0.8, ":")


def test_circle_lies_on_the_blob(maps, fits):
    ax = plot_prf_map(maps[2], extent_deg=8.4, estimate=(fits.x_deg[2], fits.y_deg[2], 1))
    # Where matplotlib draws the centre, the picture has its highest pixels.
    x, y = circles(ax)[0].center
    left, right, bottom, top = ax.get_images()[0].get_extent()
    row = int((top - y) / (top - bottom) * 16)
    column = int((x - left) / (right - left) * 16)
    assert maps[2][row, column] > 0.8 * maps[2].max()


def test_gallery_draws_every_map_with_its_circles(maps, fits):
    reference = {"x_deg": fits.x_deg, "y_deg": fits.y_deg, "size_deg": 0.5 * fits.size_deg}
    figure = plot_prf_gallery(
        maps, extent_deg=8.4, estimates=fits, references=reference, titles=list("abcdef")
    )
    panels = [ax for ax in figure.axes if ax.get_images()]
    assert len(panels) == 6
    for i, ax in enumerate(panels):
        solid, dotted = circles(ax)
        assert solid.radius == pytest.approx(2 * dotted.radius)
        assert solid.center == (fits.x_deg[i], fits.y_deg[i])
        assert ax.get_title() == "abcdef"[i]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["estimate (1 SD)", "reference (1 SD)"]
    figure.draw_without_rendering()


def test_maps_without_a_fit_are_drawn_without_circle(maps):
    maps[1] = 0.0
    maps[2, 0, 0] = np.nan
    figure = plot_prf_gallery(maps, extent_deg=8.4, estimates=fit_prf(maps, extent_deg=8.4))
    panels = [ax for ax in figure.axes if ax.get_images()]
    assert [len(circles(ax)) for ax in panels] == [1, 0, 0, 1, 1, 1]
    figure.draw_without_rendering()


def test_size_lines_are_drawn_per_area(rng):
    x = rng.uniform(0.5, 4, 60)
    areas = np.repeat(["V1", "V2"], 30)
    size = np.where(areas == "V1", 0.2 * x + 0.1, 0.5 * x - 0.2)
    fields = {"x_deg": x, "y_deg": np.zeros(60), "size_deg": size}
    fields["size_deg"][3] = np.nan
    ax = plot_size_eccentricity(fields, areas=areas)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["V1 (n = 29): 0.20 ecc +0.10", "V2 (n = 30): 0.50 ecc -0.20"]


def test_size_of_one_vertex_has_no_line():
    ax = plot_size_eccentricity({"x_deg": [1.0], "y_deg": [1.0], "size_deg": [0.5]})
    assert not ax.lines


def test_comparison_states_r_and_n(fits):
    estimate = {"x_deg": fits.x_deg, "y_deg": -fits.y_deg, "size_deg": fits.size_deg}
    figure = plot_prf_comparison(estimate, fits, where=np.arange(6) < 5)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["r = 1.000, n = 5", "r = -1.000, n = 5", *["r = 1.000, n = 5"] * 2]


def test_angle_colours_have_no_seam_and_wheel_shows_up_as_90():
    colours = angle_colormap()(np.linspace(0, 1, 360))[:, :3]
    steps = np.abs(np.diff(np.append(colours, colours[:1], axis=0), axis=0)).max(1)
    assert steps.max() < 0.02
    image = plot_angle_wheel().get_images()[0]
    shown = image.to_rgba(image.get_array())[:, :, :3]
    middle = shown.shape[0] // 2
    np.testing.assert_allclose(shown[20, middle], to_rgb("#fdd049"), atol=0.02)
    np.testing.assert_allclose(shown[middle, -20], to_rgb("#b2182b"), atol=0.02)


def test_bad_input_is_named(maps, fits):
    with pytest.raises(InputError, match=r"prf_map: expected a map \(n_rows, n_columns\)"):
        plot_prf_map(maps, extent_deg=8.4)
    with pytest.raises(InputError, match="maps: expected maps"):
        plot_prf_gallery(maps[0], extent_deg=8.4)
    with pytest.raises(InputError, match="one field per map, 5; got 6"):
        plot_prf_gallery(maps[:5], extent_deg=8.4, estimates=fits)
    with pytest.raises(InputError, match="titles: expected one per map, 6; got 1"):
        plot_prf_gallery(maps, extent_deg=8.4, titles=["a"])
    with pytest.raises(InputError, match="areas: expected one name per vertex, 6; got 2"):
        plot_size_eccentricity(fits, areas=["V1", "V2"])
    with pytest.raises(InputError, match="the same vertices; got 6 and 5"):
        plot_prf_comparison(fits, fits[:5])


# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(linear):
    """Return CIE L*a*b* of linear sRGB colours (n, 3)."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (linear @ np.transpose(to_xyz) / [0.95047, 1, 1.08883]).T
    x, y, z = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colour_blind_readers_tell_angles_apart(deficiency):
    colours = angle_colormap()(np.arange(0, 360, 3))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.transpose(DEFICIENCIES[deficiency]), 0, 1))
    distance = np.linalg.norm(seen[:, None] - seen, axis=-1)
    index = np.arange(0, 360, 3)
    apart = np.abs((index[:, None] - index + 180) % 360 - 180)
    # A just noticeable difference is about 2.3.
    assert distance[apart >= 60].min() > 10
    assert distance[apart >= 120].min() > 25
