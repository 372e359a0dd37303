"""The look of the report's figures, where they are saved, and the plots that no other room has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuroigc._files import atomic_path, make_output_folder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FigureFolder", "area_colors", "plot_ceiling", "plot_truth", "reliable"]

# Okabe and Ito's colours, which the colour-blind can tell apart.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    # Without it the same numbers would give a different file each time.
    "svg.hashsalt": "neuroigc",
    # Names of regions and features are text, whatever signs they hold.
    "text.parse_math": False,
    "axes.formatter.limits": (-2, 5),
}
# More points than this make a vector drawing slow to show.
_MANY_POINTS = 2000


class FigureFolder:
    """The folder ``figures/`` of a study: names files safely and writes them whole."""

    def __init__(self, study_folder: Path) -> None:
        self.path = make_output_folder(study_folder / "figures", "study_folder")

    def file(self, *parts: str, suffix: str) -> Path:
        """Return a path inside the folder; names from the data can neither leave it nor clash
        with the file system's own signs."""
        words = (re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-") or "unnamed" for part in parts)
        return self.path / ("_".join(words) + suffix)

    def draw(self, path: Path, plot: Callable, *arguments, **options) -> Path:
        """Call ``plot``, which returns a matplotlib figure, in the report's style and save it.

        The same picture gives the same bytes.
        """
        import matplotlib as mpl

        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with mpl.rc_context(_STYLE):
            canvas = plot(*arguments, **options)
            with atomic_path(path) as temporary:
                canvas.savefig(temporary, metadata=metadata, facecolor="white")
        return path


def area_colors(areas: list[str]) -> dict[str, str]:
    """Give every area its colour, the same in all figures."""
    return {area: _PALETTE[index % len(_PALETTE)] for index, area in enumerate(areas)}


def plot_ceiling(prf: pd.DataFrame, areas: list[str]):
    """Draw the encoder's correlation of every vertex against its noise ceiling."""
    canvas = _canvas(4.6, 3.5)
    ax = canvas.subplots()
    ceiling, reached = prf["noise_ceiling_r"].to_numpy(float), prf["encoder_r"].to_numpy(float)
    top = 1.05 * np.nanmax([np.nanmax(ceiling, initial=0), np.nanmax(reached, initial=0), 0.1])
    bottom = min(0, 1.05 * np.nanmin(reached, initial=0))
    ax.plot([0, top], [0, top], color="#555555", linewidth=1)
    ax.plot([0, top], [0, top / 2], color="#555555", linewidth=1, linestyle=(0, (4, 3)))
    for end, text in ((1.0, "ceiling"), (0.5, "half the ceiling")):
        ax.annotate(
            text, (top, end * top), (-4, 3), textcoords="offset points", ha="right", va="bottom",
            fontsize=8, color="#555555",
        )  # fmt: skip
    _scatter_areas(ax, prf, areas, ceiling, reached)
    ax.set(
        xlim=(0, top),
        ylim=(bottom, top * 1.08),
        xlabel="noise ceiling (r)",
        ylabel="encoder (r, held-out images)",
        aspect="equal",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.2, markerscale=1.3)
    return canvas


def plot_truth(prf: pd.DataFrame, areas: list[str], *, name: str):
    """Draw estimated against true eccentricity, angle and size, one panel each.

    Parameters
    ----------
    prf : DataFrame
        Rows of ``prf.tsv`` with the columns ``true_x_deg``, ``true_y_deg``, ``true_size_deg``.
    areas : list of str
        In the order of the legend.
    name : str
        What the comparison is: "true" or "reference".
    """
    x, y = prf["true_x_deg"].to_numpy(float), prf["true_y_deg"].to_numpy(float)
    true_angle = np.degrees(np.arctan2(y, x)) % 360
    angle = prf["angle_deg"].to_numpy(float)
    # Shown on the same turn as the truth, so that 359° and 1° lie side by side.
    angle = true_angle + (angle - true_angle + 180) % 360 - 180
    panels = (
        ("eccentricity (°)", np.hypot(x, y), prf["eccentricity_deg"].to_numpy(float)),
        ("polar angle (°)", true_angle, angle),
        ("size (°)", prf["true_size_deg"].to_numpy(float), prf["size_deg"].to_numpy(float)),
    )
    canvas = _canvas(7.2, 3.0)
    axes = canvas.subplots(1, 3)
    for ax, (label, truth, estimate) in zip(axes, panels, strict=True):
        _scatter_areas(ax, prf, areas, truth, estimate)
        limits = (0, 360) if "angle" in label else (0, 1.05 * _largest(truth, estimate))
        ax.plot(limits, limits, color="#555555", linewidth=1)
        ax.set(title=label, xlabel=name, box_aspect=1, xlim=limits)
        if "angle" in label:
            ax.set(xticks=range(0, 361, 90), yticks=range(0, 361, 90), ylim=(-30, 390))
        else:
            ax.set(ylim=limits)
    axes[0].set_ylabel("estimated from IGC maps")
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), handletextpad=0.2,
        markerscale=1.3,
    )  # fmt: skip
    return canvas


def reliable(prf: pd.DataFrame) -> np.ndarray:
    """Return which vertices the encoder predicts to at least half their noise ceiling."""
    if not {"encoder_r", "noise_ceiling_r"} <= set(prf):
        return np.ones(len(prf), bool)
    ceiling = prf["noise_ceiling_r"]
    return ((ceiling > 0) & (prf["encoder_r"] >= 0.5 * ceiling)).to_numpy(bool)


def _canvas(width, height):
    # Made without pyplot: no window system, and nothing left open behind us.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _scatter_areas(ax, prf, areas, x, y):
    """Draw points coloured by area, pale where the encoder is unreliable."""
    good, rasterized = reliable(prf), len(prf) > _MANY_POINTS
    for area, color in area_colors(areas).items():
        inside = (prf["roi"] == area).to_numpy()
        common = {"s": 11, "color": color, "linewidths": 0, "rasterized": rasterized}
        ax.scatter(x[inside & ~good], y[inside & ~good], alpha=0.22, **common)
        ax.scatter(x[inside & good], y[inside & good], alpha=0.85, label=area, **common)


def _largest(*arrays):
    return max((float(np.nanmax(array, initial=0)) for array in arrays), default=1.0) or 1.0
