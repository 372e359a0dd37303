"""Bars of areas: the paper's Figure 3."""

from itertools import pairwise

import numpy as np

from neuroigc._validation import InputError
from neuroigc.surface.rois import summarise_rois

__all__ = ["plot_roi_bars"]

# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")


def plot_roi_bars(table, *, outputs=None, rois=None, label="IGC (sums to r)", title=None, ax=None):
    """Draw each area's value, hemispheres summed: bars for the mean over subjects, dots for each.

    Parameters
    ----------
    table : pandas.DataFrame
        Of one or more subjects, as :func:`aggregate_rois` makes it.
    outputs : sequence of str, optional
        Which outputs; all by default. They stand side by side.
    rois : sequence of str, optional
        Which areas, in this order; all by default. Areas of different atlases stand apart.
    label : str
        Of the vertical axis.
    title : str, optional
        Above the axes.
    ax : matplotlib Axes, optional
        Where to draw; a new figure, as wide as the bars need, by default.

    Returns
    -------
    matplotlib Axes

    Notes
    -----
    Error bars are one standard deviation over subjects; a single subject has none. "n/a" stands
    where no subject has a vertex of the area.

    Raises
    ------
    InputError
        If an output or an area is not in the table, or there are more outputs than colours.
    """
    from matplotlib.figure import Figure

    outputs = _chosen(table, "output", outputs, "outputs")
    rois = _chosen(table, "roi", rois, "rois")
    if len(outputs) > len(_COLORS):
        raise InputError(
            "outputs", expected=f"at most {len(_COLORS)} to tell apart", got=str(len(outputs))
        )
    summary = summarise_rois(table).set_index(["atlas", "roi", "output"])
    dots = table.groupby(["atlas", "roi", "output", "subject"])["igc"].sum(min_count=1)
    bars = list(dict.fromkeys(zip(table["atlas"], table["roi"], strict=True)))
    bars = [bar for roi in rois for bar in bars if bar[1] == roi]

    changes = [first[0] != second[0] for first, second in pairwise(bars)]
    positions = np.arange(len(bars)) + 0.6 * np.concatenate([[0], np.cumsum(changes)])
    if ax is None:
        width = min(7.2, max(3.5, 0.8 + 0.22 * positions[-1] + 0.1 * len(bars) * len(outputs)))
        ax = Figure(figsize=(width, 2.6), layout="constrained").add_subplot()
    wide = 0.8 / len(outputs)
    for k, output in enumerate(outputs):
        centres = positions + (k - (len(outputs) - 1) / 2) * wide
        rows = summary.loc[[(*bar, output) for bar in bars]]
        ax.bar(centres, rows["mean"], wide * 0.9, color=_COLORS[k], alpha=0.75, label=output)
        ax.errorbar(
            centres, rows["mean"], rows["sd"], fmt="none", ecolor="black", elinewidth=0.8, capsize=2
        )
        for centre, bar in zip(centres, bars, strict=True):
            values = dots.loc[(*bar, output)].to_numpy()
            if np.isnan(values).all():
                ax.annotate(
                    "n/a",
                    (centre, 0),
                    (0, 2),
                    textcoords="offset points",
                    fontsize=5,
                    ha="center",
                    color="0.4",
                )
            if len(values) == 1:
                continue  # the bar says it
            # A fixed fan instead of a random jitter: the same picture every time.
            offsets = np.linspace(-0.25, 0.25, len(values)) * wide
            ax.plot(
                centre + offsets,
                values,
                "o",
                markersize=2.2,
                markerfacecolor="white",
                markeredgecolor="black",
                markeredgewidth=0.5,
                zorder=3,
            )
    ax.axhline(0, color="black", linewidth=0.8)
    names = [roi for _, roi in bars]
    ax.set_xticks(positions, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
    ax.set_xlim(positions[0] - 0.7, positions[-1] + 0.7)
    ax.set_ylabel(label, fontsize=8)
    ax.tick_params(axis="y", labelsize=7)
    ax.tick_params(axis="x", length=0)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    if len(outputs) > 1:
        ax.legend(fontsize=7, frameon=False)
    if title:
        ax.set_title(title, fontsize=8)
    return ax


def _chosen(table, column, chosen, argument):
    present = list(dict.fromkeys(table[column]))
    chosen = present if chosen is None else list(chosen)
    missing = [name for name in chosen if name not in present]
    if missing or not chosen:
        raise InputError(
            argument,
            expected=f"some of {', '.join(map(str, present))}",
            got=", ".join(map(str, missing)) or "none",
        )
    return chosen
