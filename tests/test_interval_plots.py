"""Intervals of areas: lines where the numbers are, stars where p is small, one row for each."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from neuroigc._validation import InputError
from neuroigc.reporting.area_plots import plot_against_ridge, plot_intervals
from neuroigc.reporting.numbers import group_intervals
from neuroigc.surface import plot_roi_intervals

COLUMNS = ["hemisphere", "roi", "output", "igc", "low", "high", "p_fwe"]
ROIS = ("V1", "V2", "faces")


@pytest.fixture
def table():
    """Return rows of roi.tsv: two outputs, both hemispheres, one area missing on the right."""
    rows = [
        (side, roi, output, k / 10, k / 10 - 0.05, k / 10 + 0.07, 0.04 if roi == "V1" else 0.3)
        for k, (side, roi, output) in enumerate(
            (side, roi, output)
            for output in ("a", "b")
            for side in ("left", "right")
            for roi in ROIS
        )
    ]
    table = pd.DataFrame(
        rows, columns=["hemisphere", "roi", "output", "igc", "low", "high", "p_fwe"]
    )
    missing = (table["roi"] == "faces") & (table["hemisphere"] == "right")
    table.loc[missing, ["igc", "low", "high", "p_fwe"]] = np.nan
    return table


def lines(ax):
    """Return the ends of all intervals and their rows."""
    return [
        (line[0, 0], line[1, 0], line[0, 1])
        for drawn in ax.collections
        if isinstance(drawn, LineCollection)
        for line in drawn.get_segments()
    ]


def test_intervals_are_the_numbers(table):
    ax = plot_roi_intervals(table, output="a")
    own = table[(table["output"] == "a") & table["igc"].notna()]
    drawn = lines(ax)
    np.testing.assert_allclose([line[0] for line in drawn], own["low"])
    np.testing.assert_allclose([line[1] for line in drawn], own["high"])
    assert [text.get_text() for text in ax.get_yticklabels()] == list(ROIS)
    # Left above right, both nearer to their area's name than to others'.
    rows = np.array([line[2] for line in drawn])
    np.testing.assert_array_equal(np.round(rows), [0, 1, 2, 0, 1])
    assert (rows[:3] < [0, 1, 2]).all()
    assert (rows[3:] > [0, 1]).all()
    assert ax.yaxis_inverted()


def test_stars_stand_where_p_is_small(table):
    def stars(**options):
        return sum(
            text.get_text() == "*"
            for text in plot_roi_intervals(table, output="a", **options).texts
        )

    assert stars() == 2
    assert stars(alpha=0.03) == 0
    assert stars(alpha=0.5) == 5
    assert stars(p="p_fdr") == 0


def test_the_legend_lies_between_title_and_axes(table):
    ax = plot_roi_intervals(table, output="b", title="Some output")
    ax.figure.canvas.draw()
    legend, axes = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert axes.y1 <= legend.y0 + 1
    assert legend.y1 <= ax.title.get_window_extent().y0 + 1


def test_one_side_alone_has_no_legend(table):
    both = table[table["hemisphere"] == "left"].assign(hemisphere="both")
    assert plot_roi_intervals(both, output="b").get_legend() is None
    assert plot_roi_intervals(table, output="b").get_legend() is not None


def test_fits_a_column(table):
    ax = plot_roi_intervals(table, output="a")
    assert ax.figure.get_figwidth() * 2.54 <= 8.6
    assert all(text.get_fontsize() >= 6 for text in ax.get_yticklabels())


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda table: table.drop(columns="low"), {}, "table: expected columns .* got no low"),
        (lambda table: table, {"output": "c"}, "output: expected one of a, b; got 'c'"),
        (lambda table: pd.concat([table, table]), {}, "table: expected one row for each area"),
    ],
)
def test_bad_tables(table, change, options, message):
    with pytest.raises(InputError, match=message):
        plot_roi_intervals(change(table), **{"output": "a", **options})


def test_group_intervals_are_students():
    from scipy.stats import ttest_1samp

    values = np.array([0.2, 0.35, 0.3, 0.1, 0.24])
    group = pd.DataFrame(
        {
            "mean": [values.mean(), 0.3],
            "sd": [values.std(ddof=1), np.nan],
            "n_subjects": [len(values), 1],
        }
    )
    found = group_intervals(group)
    expected = ttest_1samp(values, 0).confidence_interval()
    np.testing.assert_allclose(found.loc[0, ["low", "high"]].tolist(), expected)
    assert found.loc[1, ["low", "high"]].isna().all()


def test_panels_for_each_output(table):
    canvas = plot_intervals([table, table], ["a", "b"], label="x")
    assert [ax.get_title() for ax in canvas.axes] == ["a", "b"]


def test_network_against_ridge_is_square_and_holds_all_points():
    scores = pd.DataFrame(
        {
            "output": ["a", "a", "b"],
            "r": [0.5, 0.7, 0.2],
            "ridge_r": [0.4, 0.72, 0.3],
            "r_low": [0.4, 0.6, 0.1],
            "r_high": [0.6, 0.8, 0.3],
        }
    )
    (ax,) = plot_against_ridge(scores, ["a", "b"]).axes
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[0] < 0.1
    assert ax.get_ylim()[1] > 0.8
    points = np.concatenate([part[0].get_xydata() for part in ax.containers])
    np.testing.assert_allclose(points, scores[["ridge_r", "r"]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
