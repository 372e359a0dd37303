"""The look of the report's figures, where they are saved, and the plots that no other room has."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuroigc._files import atomic_path, make_output_folder
from neuroigc.reporting.numbers import power_of_ten

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PALETTE",
    "FigureFolder",
    "area_colors",
    "escape_math",
    "make_canvas",
    "plot_ceiling",
    "plot_coverage",
    "plot_flat_pairs",
    "plot_gallery",
    "plot_inflated_pair",
    "plot_regions",
    "plot_sizes",
    "plot_truth",
    "reliable",
]

# Okabe and Ito's colours, which the colour-blind can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_STYLE = {
    "font.size": 9,
    "axes.prop_cycle": f"cycler(color={list(PALETTE)})",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    # Letters stay letters, which journals and editors of drawings want.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    # Without it the same numbers would give a different file each time.
    "svg.hashsalt": "neuroigc",
}
# Without dates and versions, which would change the bytes.
_METADATA: dict[str, dict] = {
    ".svg": {"Date": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
# More points than this make a vector drawing slow to show.
_MANY_POINTS = 2000


class FigureFolder:
    """The folder ``figures/`` of a study: names files safely and writes them whole."""

    def __init__(self, study_folder: Path) -> None:
        self.path = make_output_folder(study_folder / "figures", "study_folder")
        self._taken: set[str] = set()

    def file(self, *parts: str, suffix: str) -> Path:
        """Return a path inside the folder, made of letters and digits, that no figure has yet.

        Names from the data can so neither leave the folder nor take each other's place.
        """
        words = (re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-") or "unnamed" for part in parts)
        stem = name = "_".join(words)
        number = 1
        while name.lower() in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name.lower())
        return self.path / (name + suffix)

    def draw(self, path: Path, plot: Callable, *arguments, **options) -> Path:
        """Call ``plot``, which returns a matplotlib figure, in the report's style and save it.

        Beside ``path`` lie the same as PDF and, of drawings, as PNG: for papers and slides. The
        same picture gives the same bytes.
        """
        import matplotlib as mpl
        from matplotlib import pyplot as plt

        with mpl.rc_context(_STYLE):
            canvas = plot(*arguments, **options)
            # Laid out and measured once for all formats, which takes most of the time.
            canvas.draw_without_rendering()
            canvas.set_layout_engine("none")
            frame = canvas.get_tightbbox().padded(0.05)
            for suffix in dict.fromkeys((path.suffix, ".png", ".pdf")):
                with atomic_path(path.with_suffix(suffix)) as temporary:
                    canvas.savefig(temporary, metadata=_METADATA[suffix], bbox_inches=frame)
            plt.close(canvas)
        return path


def escape_math(name: str) -> str:
    """Return a name as text for matplotlib, to which dollar signs mean a formula."""
    return name.replace("$", r"\$")


def area_colors(areas: list[str]) -> dict[str, str]:
    """Give every area its colour, the same in all figures."""
    return {area: PALETTE[index % len(PALETTE)] for index, area in enumerate(areas)}


def plot_ceiling(prf: pd.DataFrame, areas: list[str]):
    """Draw the encoder's correlation of every vertex against its noise ceiling."""
    canvas = make_canvas(4.6, 3.5)
    ax = canvas.subplots()
    ceiling, reached = prf["noise_ceiling_r"].to_numpy(float), prf["encoder_r"].to_numpy(float)
    top = 1.05 * np.nanmax([np.nanmax(ceiling, initial=0), np.nanmax(reached, initial=0), 0.1])
    bottom = min(0, 1.05 * np.nanmin(reached, initial=0))
    ax.plot([0, top], [0, top], color="#555555", linewidth=1)
    ax.plot([0, top], [0, top / 2], color="#555555", linewidth=1, linestyle=(0, (4, 3)))
    for end, text in ((1.0, "ceiling"), (0.5, "half of it")):
        ax.annotate(
            text, (top, end * top), (4, 0), textcoords="offset points", va="center", fontsize=8,
            color="#555555",
        )  # fmt: skip
    _scatter_areas(ax, prf, areas, ceiling, reached)
    ax.set(
        xlim=(0, top),
        ylim=(bottom, top * 1.08),
        xlabel="noise ceiling (r)",
        ylabel="encoder (r, held-out images)",
        aspect="equal",
    )
    ax.legend(loc="upper left", handletextpad=0.2, markerscale=1.3)
    return canvas


def plot_truth(prf: pd.DataFrame, areas: list[str], *, name: str):
    """Draw estimated against true eccentricity, angle and size, one panel each.

    Parameters
    ----------
    prf : DataFrame
        Rows of ``prf.tsv`` with the columns ``{name}_x_deg``, ``_y_deg`` and ``_size_deg``.
    areas : list of str
        In the order of the legend.
    name : str
        What the comparison is: "true" or "reference".
    """
    x, y, size = (prf[f"{name}_{column}_deg"].to_numpy(float) for column in ("x", "y", "size"))
    true_angle = np.degrees(np.arctan2(y, x)) % 360
    angle = prf["angle_deg"].to_numpy(float)
    # Shown on the same turn as the truth, so that 359° and 1° lie side by side.
    angle = true_angle + (angle - true_angle + 180) % 360 - 180
    panels = (
        ("eccentricity (°)", np.hypot(x, y), prf["eccentricity_deg"].to_numpy(float)),
        ("polar angle (°)", true_angle, angle),
        ("size (°)", size, prf["size_deg"].to_numpy(float)),
    )
    canvas = make_canvas(7.2, 3.0)
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


def plot_flat_pairs(panels: list[tuple], atlas=None):
    """Draw flat maps of both hemispheres side by side, two maps to a row.

    Parameters
    ----------
    panels : list of (str, SurfaceMap, dict)
        Label of the colour bar, map, and the colours' ``cmap``, ``vmin``, ``vmax``, ``period``.
    atlas : Atlas, optional
        Whose borders to draw.
    """
    from neuroigc.surface.plotting import plot_surface_map

    n_rows = -(-len(panels) // 2)
    canvas = make_canvas(7.2, 2.7 * n_rows)
    cells = canvas.subfigures(n_rows, 2, squeeze=False, wspace=0.04).ravel()
    for cell, (label, surface_map, look) in zip(cells, panels, strict=False):
        axes = cell.subplots(1, 2)
        for hemisphere, ax in zip(("left", "right"), axes, strict=True):
            plot_surface_map(
                surface_map, hemisphere=hemisphere, mesh="flat", outlines=atlas, title=hemisphere,
                colorbar=False, ax=ax, **look,
            )  # fmt: skip
        _draw_bar(cell, axes, label, look, shrink=0.7)
    return canvas


def plot_inflated_pair(surface_map, atlas=None, *, label, **look):
    """Draw the inflated hemispheres from behind and inside, side by side, with one colour bar."""
    from neuroigc.surface.plotting import plot_surface_map

    canvas = make_canvas(7.2, 3.4)
    axes = canvas.subplots(1, 2)
    for hemisphere, ax in zip(("left", "right"), axes, strict=True):
        plot_surface_map(
            surface_map, hemisphere=hemisphere, view="occipital", outlines=atlas, title=hemisphere,
            colorbar=False, ax=ax, **look,
        )  # fmt: skip
    _draw_bar(canvas, axes, label, look, shrink=0.4)
    return canvas


def plot_regions(surface_map, atlas):
    """Draw the borders and names of all regions on the flat cortex, over what was measured."""
    from neuroigc.surface.plotting import plot_surface_map

    canvas = make_canvas(7.2, 4.0)
    measured = {side: np.where(np.isnan(v), v, 0.0) for side, v in surface_map.data.items()}
    blank = dataclasses.replace(surface_map, data=measured)
    for hemisphere, ax in zip(("left", "right"), canvas.subplots(1, 2), strict=True):
        plot_surface_map(
            blank, hemisphere=hemisphere, mesh="flat", outlines=atlas, outline_names=True,
            colorbar=False, title=hemisphere, ax=ax,
        )  # fmt: skip
    return canvas


def plot_gallery(maps, fields, references, titles, *, extent_deg, n_columns):
    """Draw the gallery of `neuroigc.prf` at the width of a page."""
    from neuroigc.prf.plotting import plot_prf_gallery

    canvas = plot_prf_gallery(
        maps, extent_deg=extent_deg, estimates=fields, references=references, titles=titles,
        n_columns=n_columns,
    )  # fmt: skip
    n_rows = -(-len(maps) // n_columns)
    canvas.set_size_inches(1.9 * min(n_columns, len(maps)), 1.75 * n_rows + 0.35)
    return canvas


def plot_coverage(fitted: pd.DataFrame, areas: list[str], *, extent_deg: float):
    """Draw which part of the images the receptive fields of each area cover."""
    from neuroigc.prf.coverage import plot_visual_field_coverage

    groups = {escape_math(area): (fitted["roi"] == area).to_numpy() for area in areas}
    return plot_visual_field_coverage(fitted, groups, extent_deg=extent_deg)


def plot_sizes(fitted: pd.DataFrame, *, literature: str):
    """Draw size against eccentricity on a canvas of our own, with the literature's lines."""
    from neuroigc.prf.sizes import plot_size_eccentricity

    canvas = make_canvas(5.0, 3.6)
    areas = fitted["roi"].map(escape_math).to_numpy()
    plot_size_eccentricity(fitted, areas=areas, literature=literature, ax=canvas.subplots())
    return canvas


def reliable(prf: pd.DataFrame) -> np.ndarray:
    """Return which vertices the encoder predicts to at least half their noise ceiling."""
    if not {"encoder_r", "noise_ceiling_r"} <= set(prf):
        return np.ones(len(prf), bool)
    from neuroigc.stats import reaches_ceiling

    return reaches_ceiling(prf["encoder_r"], prf["noise_ceiling_r"] ** 2)


def make_canvas(width: float, height: float):
    """Return an empty figure of a size in inches."""
    # Made without pyplot: no window system, and nothing left open behind us.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_bar(cell, axes, label, look, *, shrink):
    """Draw the colour bar of maps below them."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # Small numbers are written as multiples of a power of ten, which stands in the label.
    power = min(0, math.floor(math.log10(look["vmax"])))
    scale = 10.0**power if power < -2 else 1.0
    colors = ScalarMappable(Normalize(look["vmin"] / scale, look["vmax"] / scale), look["cmap"])
    bar = cell.colorbar(colors, ax=axes, orientation="horizontal", shrink=shrink, aspect=30)
    bar.set_label(label if scale == 1 else f"{label} (× {power_of_ten(power)})", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.ax.locator_params(nbins=5)
    bar.outline.set_linewidth(0.5)
    if look.get("period") == 360:
        bar.set_ticks(range(0, 361, 90), labels=["right", "up", "left", "down", "right"])


def _scatter_areas(ax, prf, areas, x, y):
    """Draw points coloured by area, pale where the encoder is unreliable."""
    colors = area_colors(areas)
    if prf.empty:
        return
    # Mixed, always in the same way, so that no area hides another.
    order = np.random.default_rng(0).permutation(len(prf))
    shown = prf["roi"].map(colors).to_numpy()[order]
    alpha = np.where(reliable(prf), 0.85, 0.22)[order]
    ax.scatter(
        x[order], y[order], s=9, c=list(shown), alpha=alpha, linewidths=0,
        rasterized=len(prf) > _MANY_POINTS,
    )  # fmt: skip
    for area, color in colors.items():
        ax.scatter([], [], s=11, color=color, label=escape_math(area))


def _largest(*arrays):
    return max((float(np.nanmax(array, initial=0)) for array in arrays), default=1.0) or 1.0
