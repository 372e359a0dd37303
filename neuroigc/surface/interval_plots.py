"""Intervals of areas: estimates, their 95 % intervals, and stars where they stand out."""

import numpy as np

from neuroigc._validation import InputError

__all__ = ["plot_roi_intervals"]

# Okabe and Ito's blue, vermilion and black; markers differ, too, for print without colours.
_SIDES = {
    "left": ("#0072B2", "o", "left hemisphere"),
    "right": ("#D55E00", "s", "right hemisphere"),
    "both": ("#000000", "D", "both hemispheres"),
}


def plot_roi_intervals(table, *, output, p="p_fwe", alpha=0.05, label=None, title=None, ax=None):
    """Draw the estimate and interval of each area, areas from top to bottom.

    Parameters
    ----------
    table : pandas.DataFrame
        ``hemisphere`` (left, right or both), ``roi``, ``output``, ``igc``, ``low`` and ``high``:
        one subject's rows of roi.tsv, or those of a group. Rows without an estimate are left out.
    output : str
        Which output.
    p : str
        Column of the p-values that stars stand for; without it there are no stars.
    alpha : float
        Stars stand where p is so small or smaller.
    label : str, optional
        Of the horizontal axis.
    title : str, optional
        Above the axes.
    ax : matplotlib Axes, optional
        Where to draw; a new figure, 8.5 cm wide, by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If columns are missing, there is no such output, or an area comes twice on one side.
    """
    from matplotlib.figure import Figure

    rows = _rows(table, output)
    rois = list(dict.fromkeys(rows["roi"]))
    sides = [side for side in _SIDES if (rows["hemisphere"] == side).any()]
    if ax is None:
        ax = Figure(figsize=(3.35, 0.9 + 0.24 * len(rois)), layout="constrained").add_subplot()
    ax.axvline(0, color="0.5", linewidth=0.8)
    for k, side in enumerate(sides):
        own = rows[rows["hemisphere"] == side]
        color, marker, name = _SIDES[side]
        at = np.array([rois.index(roi) for roi in own["roi"]])
        at = at + 0.3 * (k - (len(sides) - 1) / 2)
        ax.hlines(at, own["low"], own["high"], color=color, linewidth=1.3)
        ax.plot(
            own["igc"], at, marker, color=color, markersize=3.2, markeredgewidth=0, label=name
        )  # fmt: skip
        if p in own:
            starred = (own[p] <= alpha).to_numpy()
            ends = np.fmax(own["high"], own["igc"]).to_numpy()
            for x, y in zip(ends[starred], at[starred], strict=True):
                ax.annotate(
                    "*", (x, y), (3, -3.4), textcoords="offset points", fontsize=9, va="center",
                    color=color,
                )  # fmt: skip
    ax.set_yticks(range(len(rois)), rois, fontsize=7)
    ax.set_ylim(len(rois) - 0.5, -0.5)
    ax.margins(x=0.08)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=7)
    ax.locator_params(axis="x", nbins=6)
    ax.grid(axis="y", color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("IGC, 95 % interval" if label is None else label, fontsize=8)
    if title:
        # Room for the legend, which would lie over intervals inside.
        ax.set_title(title, fontsize=8, pad=16 if len(sides) > 1 else 6)
    if len(sides) > 1:
        ax.legend(
            fontsize=6.5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2,
            handletextpad=0.2, columnspacing=1.2, borderaxespad=0.1,
        )  # fmt: skip
    return ax


def _rows(table, output):
    needed = ("hemisphere", "roi", "output", "igc", "low", "high")
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(
            "table", expected=f"columns {', '.join(needed)}", got=f"no {', '.join(missing)}"
        )
    rows = table[(table["output"] == output) & table["igc"].notna()]
    if not len(rows):
        outputs = ", ".join(dict.fromkeys(map(str, table["output"])))
        raise InputError("output", expected=f"one of {outputs}", got=repr(output))
    if rows.duplicated(["hemisphere", "roi"]).any():
        raise InputError(
            "table",
            expected="one row for each area and side",
            got="several",
            fix="Choose the rows of one subject.",
        )
    return rows
