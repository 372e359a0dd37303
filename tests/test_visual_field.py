"""Which way is up, and which is right: one invented vertex, followed through every room.

An image has its row 0 at the top; the visual field has y upwards and x to the right. Everything
that shows or compares receptive fields has to agree on that, on the order of the axes, and on how
many degrees the image is wide.
"""

import matplotlib.pyplot
import numpy as np
import pytest

from neuroigc.prf import (
    convert_angle,
    fit_prf,
    pixel_centres,
    plot_prf_map,
    plot_visual_field_coverage,
    to_polar,
    visual_field_coverage,
)

matplotlib.use("Agg")

# Far right, a little up: no flip, transposition or turn leaves it where it is.
X, Y, SIZE = 2.4, 0.9, 0.6
# Wider than high, with unlike numbers of rows and columns.
EXTENT, N_ROWS, N_COLUMNS = (8.4, 6.0), 30, 56


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture
def image():
    """Return the picture of the vertex, drawn by counting pixels from the upper left corner."""
    picture = np.zeros((N_ROWS, N_COLUMNS))
    for row in range(N_ROWS):
        for column in range(N_COLUMNS):
            right = (column + 0.5) * 8.4 / 56 - 4.2
            up = 3.0 - (row + 0.5) * 6.0 / 30
            picture[row, column] = np.exp(-((right - X) ** 2 + (up - Y) ** 2) / (2 * SIZE**2))
    return picture


def test_the_picture_is_where_it_should_be(image):
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert row < N_ROWS / 2 < N_COLUMNS / 2 < column


def test_rows_go_down_and_columns_to_the_right():
    x_deg, y_deg = pixel_centres(N_ROWS, N_COLUMNS, EXTENT)
    assert (len(x_deg), len(y_deg)) == (N_COLUMNS, N_ROWS)
    assert x_deg[0] == pytest.approx(-4.2 + 8.4 / 56 / 2)
    assert y_deg[0] == pytest.approx(3.0 - 6.0 / 30 / 2)


def test_a_fit_finds_right_up_and_degrees(image):
    fields = fit_prf(image[None], extent_deg=EXTENT)
    found = [fields.x_deg[0], fields.y_deg[0], fields.size_deg[0]]
    np.testing.assert_allclose(found, [X, Y, SIZE], atol=1e-3)
    assert fields.angle_deg[0] == pytest.approx(np.degrees(np.arctan2(0.9, 2.4)), abs=0.1)


def test_a_field_of_another_extent_scales_with_it(image):
    fields = fit_prf(image[None], extent_deg=(16.8, 12.0))
    np.testing.assert_allclose(
        [fields.x_deg[0], fields.y_deg[0], fields.size_deg[0]], [2 * X, 2 * Y, 2 * SIZE], atol=1e-3
    )


def test_coverage_lies_on_the_picture(image):
    fields = {"x_deg": [X], "y_deg": [Y], "size_deg": [SIZE]}
    covered = visual_field_coverage(fields, {"V1": [0]}, extent_deg=EXTENT, n_pixels=60)[0]
    # The same place, in parts of the picture from the upper left corner.
    for picture in (covered, image):
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        place = (row + 0.5) / picture.shape[0], (column + 0.5) / picture.shape[1]
        assert place == pytest.approx(((3.0 - Y) / 6.0, (X + 4.2) / 8.4), abs=0.02)


def test_plots_put_the_bright_spot_at_its_degrees(image):
    fields = {"x_deg": [X], "y_deg": [Y], "size_deg": [SIZE]}
    figure = plot_visual_field_coverage(fields, {"V1": [0]}, extent_deg=EXTENT)
    for ax in (plot_prf_map(image, extent_deg=EXTENT), figure.axes[0]):
        shown = ax.get_images()[0]
        values = np.asarray(shown.get_array())
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert shown.origin == "upper"
        left, right, bottom, top = shown.get_extent()
        x = left + (column + 0.5) / values.shape[1] * (right - left)
        y = top - (row + 0.5) / values.shape[0] * (top - bottom)
        assert (x, y) == pytest.approx((X, Y), abs=0.12)
        assert ax.get_xlim()[0] < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < ax.get_ylim()[1]
    outline = figure.axes[0].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(outline.mean(axis=0), [X, Y], atol=0.05)


@pytest.mark.parametrize(
    ("convention", "hemisphere", "angle"),
    [
        ("nsd", "left", 20.556),
        ("benson", "left", 69.444),
        ("hcp", "left", 200.556),
        # What the same vertex would be called in the hemisphere that does not see it.
        ("benson", "right", -69.444),
        ("hcp", "right", 20.556),
    ],
)
def test_the_vertex_in_each_convention(convention, hemisphere, angle):
    own = to_polar(X, Y)[1]
    named = convert_angle(own, source="nsd", target=convention, hemisphere=hemisphere)
    assert named == pytest.approx(angle, abs=1e-3)
    back = convert_angle(named, source=convention, target="nsd", hemisphere=hemisphere)
    assert back == pytest.approx(own)
