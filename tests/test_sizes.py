"""Lines of size against eccentricity, where they are known."""

import matplotlib.pyplot
import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.prf import LITERATURE_SIZES, plot_size_eccentricity, size_eccentricity
from neuroigc.prf.sizes import literature_line

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


def on_lines(rng, lines, n=41):
    """Return fields exactly on a line (slope, intercept) per area, and the areas."""
    angle = rng.uniform(0, 2 * np.pi, n * len(lines))
    eccentricity = rng.uniform(0.2, 4, n * len(lines))
    slope, intercept = np.repeat(list(lines.values()), n, axis=0).T
    fields = {
        "x_deg": eccentricity * np.cos(angle),
        "y_deg": eccentricity * np.sin(angle),
        "size_deg": slope * eccentricity + intercept,
    }
    return fields, np.repeat(list(lines), n)


@pytest.mark.parametrize("n", [10, 41, 120])
def test_exact_lines_are_found_with_intervals_of_no_width(rng, n):
    lines = {"V1": (0.169, 0.022), "hV4": (0.53, 0.445), "odd": (-0.1, 2.0)}
    table = size_eccentricity(*on_lines(rng, lines, n), n_resamples=50)
    assert list(table["area"]) == list(lines)
    assert list(table["n_vertices"]) == [n] * 3
    for name, column in (("slope", 0), ("intercept", 1)):
        expected = np.array(list(lines.values()))[:, column]
        for end in ("", "_low", "_high"):
            np.testing.assert_allclose(table[name + end], expected, atol=1e-9)


def test_wild_sizes_do_not_pull_at_the_line(rng):
    fields, areas = on_lines(rng, {"V1": (0.2, 0.1)}, 200)
    fields["size_deg"] += 0.02 * rng.standard_normal(200)
    fields["size_deg"][:20] = 8.0
    table = size_eccentricity(fields, areas)
    assert table["slope"][0] == pytest.approx(0.2, abs=0.03)
    assert table["slope_low"][0] < 0.2 < table["slope_high"][0]


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say(rng):
    hits = 0
    for _ in range(200):
        fields, areas = on_lines(rng, {"V1": (0.2, 0.3)}, 80)
        fields["size_deg"] *= np.exp(0.2 * rng.standard_normal(80))
        row = size_eccentricity(fields, areas, n_resamples=300).iloc[0]
        hits += row["slope_low"] <= 0.2 <= row["slope_high"]
    assert 0.88 <= hits / 200 <= 0.99


def test_same_seed_same_interval_and_wider_with_more_confidence(rng):
    fields, areas = on_lines(rng, {"V1": (0.2, 0.1)}, 60)
    fields["size_deg"] += 0.1 * rng.standard_normal(60)
    first = size_eccentricity(fields, areas, seed=3)
    assert first.equals(size_eccentricity(fields, areas, seed=3))
    narrow = size_eccentricity(fields, areas, seed=3, confidence=0.5)
    assert narrow["slope_low"][0] > first["slope_low"][0]
    assert narrow["slope_high"][0] < first["slope_high"][0]


def test_few_vertices_or_no_spread_have_no_line(rng):
    fields, areas = on_lines(rng, {"V1": (0.2, 0.1), "V2": (0.2, 0.1), "V3": (0.3, 0.1)}, 12)
    fields["size_deg"][:3] = np.nan
    fields["x_deg"][12:24], fields["y_deg"][12:24] = 1.1, 0.3
    table = size_eccentricity(fields, areas, n_resamples=20)
    assert list(table["n_vertices"]) == [9, 12, 12]
    assert table["slope"].isna().tolist() == [True, True, False]
    assert table["slope_low"].isna().tolist() == [True, True, False]


def test_the_literature_stands_beside(rng):
    fields, areas = on_lines(rng, {"V2v": (0.2, 0.1), "EBA": (0.2, 0.1)}, 12)
    table = size_eccentricity(fields, areas, n_resamples=5)
    np.testing.assert_array_equal(table["literature_slope"], [0.169, np.nan])
    np.testing.assert_array_equal(table["literature_intercept"], [0.147, np.nan])
    plain = size_eccentricity(fields, areas, n_resamples=5, literature=None)
    assert not [name for name in plain if "literature" in name]


@pytest.mark.parametrize(
    ("area", "source", "line"),
    [
        ("V1", "wandell2015", (0.169, 0.022)),
        ("v3D", "kay2013", (0.25, 0.5)),
        ("V4", "kay2013", (0.36, 0.5)),
        ("V3A", "wandell2015", (0.357, 1.002)),
        ("V3A", "kay2013", None),
        ("elsewhere", "wandell2015", None),
    ],
)
def test_areas_are_found_in_the_literature(area, source, line):
    assert literature_line(area, source) == line


def test_the_literature_grows_along_the_hierarchy():
    for lines in LITERATURE_SIZES.values():
        at_two = [lines[area][0] * 2 + lines[area][1] for area in ("V1", "V2", "V3", "hV4")]
        assert (np.diff(at_two) > 0).all()


def test_plot_draws_literature_dashed_in_the_colour_of_its_area(rng):
    fields, areas = on_lines(rng, {"V1": (0.3, 0.1), "EBA": (0.2, 0.1), "hV4": (0.6, 0.2)}, 12)
    ax = plot_size_eccentricity(fields, areas=areas, literature="kay2013")
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]
    dashed = [line for line in ax.lines if line.get_linestyle() != "-"]
    assert (len(solid), len(dashed)) == (3, 2)
    assert [line.get_color() for line in dashed] == [solid[0].get_color(), solid[2].get_color()]
    x, y = dashed[1].get_data()
    np.testing.assert_allclose(y, 0.36 * x + 0.5)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[-1] == "Kay et al. 2013"
    assert ax.get_xlabel() == "eccentricity (deg)"


def test_bad_input_is_named(rng):
    fields, areas = on_lines(rng, {"V1": (0.2, 0.1)}, 12)
    with pytest.raises(InputError, match="areas: expected one name per vertex, 12; got 2 names"):
        size_eccentricity(fields, ["V1", "V2"])
    with pytest.raises(InputError, match="confidence: expected a number between 0 and 1; got 95"):
        size_eccentricity(fields, areas, confidence=95)
    with pytest.raises(InputError, match="n_resamples: expected 1 or more"):
        size_eccentricity(fields, areas, n_resamples=0)
    with pytest.raises(InputError, match="source: expected one of 'wandell2015', 'kay2013'"):
        size_eccentricity(fields, areas, literature="amano2009")
    with pytest.raises(InputError, match="literature: expected one of"):
        plot_size_eccentricity(fields, literature="amano2009")
