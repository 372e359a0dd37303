"""Plots of what areas and models contribute: intervals, and the network beside ridge regression."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from neuroigc.reporting.plots import PALETTE, make_canvas

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plot_against_ridge", "plot_intervals"]


def plot_intervals(tables, outputs, *, label):
    """Draw estimates and intervals of areas, a panel for each output."""
    from neuroigc.surface.interval_plots import plot_roi_intervals

    n_rois = max(table["roi"].nunique() for table in tables)
    canvas = make_canvas(3.35 if len(outputs) == 1 else 7.2, 1.0 + 0.24 * n_rois)
    for ax, table, output in zip(
        np.atleast_1d(canvas.subplots(1, len(outputs))), tables, outputs, strict=True
    ):
        plot_roi_intervals(table, output=output, title=output, label=label, ax=ax)
    return canvas


def plot_against_ridge(scores: pd.DataFrame, outputs: list[str]):
    """Draw r of the network against r of ridge regression, a point for each subject.

    Parameters
    ----------
    scores : DataFrame
        Rows of ``decoding.tsv``: output, r, ridge_r, and the ends of their intervals if known.
    outputs : list of str
        In the order of the legend.
    """
    canvas = make_canvas(3.35, 3.3)
    ax = canvas.subplots()
    ends = []
    for color, marker, output in zip(cycle(PALETTE), cycle("osD^vP"), outputs, strict=False):
        own = scores[scores["output"] == output]
        bars = {}
        for axis, name in (("xerr", "ridge_r"), ("yerr", "r")):
            if {f"{name}_low", f"{name}_high"} <= set(own):
                lows, highs = own[f"{name}_low"], own[f"{name}_high"]
                bars[axis] = np.stack([own[name] - lows, highs - own[name]])
                ends += [lows.min(), highs.max()]
        ends += [own[["r", "ridge_r"]].min().min(), own[["r", "ridge_r"]].max().max()]
        ax.errorbar(
            own["ridge_r"], own["r"], **bars, fmt=marker, color=color, markersize=4, elinewidth=0.6,
            alpha=0.85, label=output,
        )  # fmt: skip
    low, high = np.nanmin(ends), np.nanmax(ends)
    margin = 0.05 * (high - low) or 0.05
    limits = (low - margin, high + margin)
    ax.plot(limits, limits, color="#555555", linewidth=1, zorder=0)
    ax.set(
        xlim=limits, ylim=limits, box_aspect=1, xlabel="ridge regression (r, held-out images)",
        ylabel="network (r, held-out images)",
    )  # fmt: skip
    ax.legend(loc="lower right", fontsize=8, handletextpad=0.2)
    return canvas
