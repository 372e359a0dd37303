"""Maps of polar angle, eccentricity and size on the cortex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_choice
from neuroigc.prf._fields import read_fields, vertex_mask
from neuroigc.prf.plotting import angle_colormap, plot_angle_wheel
from neuroigc.prf.retinotopy import to_polar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OCTAVES", "plot_retinotopy"]

_LABELS = {
    "angle": "polar angle (deg)",
    "eccentricity": "eccentricity (deg)",
    "size": "size (deg, 1 SD)",
}
# Eccentricity is coloured by its logarithm, over so many octaves: the fovea fills half of V1.
OCTAVES = 4


def plot_retinotopy(
    fields: object,
    vertices: Mapping[str, ArrayLike],
    *,
    space: str = "fsaverage5",
    quantity: str = "angle",
    view: str = "flat",
    outlines: object | None = None,
    outline_names: bool | Sequence[str] = True,
    where: ArrayLike | None = None,
    min_r2: float | None = None,
    vmax: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw receptive fields on the occipital cortex of both hemispheres.

    Parameters
    ----------
    fields : PRFResult, DataFrame or dict of arrays
        ``x_deg``, ``y_deg`` and ``size_deg`` of the left hemisphere's vertices, then of the
        right's; also ``r2`` where ``min_r2`` is given.
    vertices : dict of str to int array
        Their indices into the surface, for "left" and "right".
    space : str
        The surface, see :data:`neuroigc.surface.SPACES`.
    quantity : {"angle", "eccentricity", "size"}
        Angle in the colours of :func:`neuroigc.prf.plot_angle_wheel`, which is the legend;
        eccentricity on a logarithmic scale; size on a linear one.
    view : {"flat", "inflated"}
        The flattened cortex from outside, or the inflated one from behind and medially.
    outlines : Atlas or CombinedAtlas, optional
        Whose borders to draw.
    outline_names : bool or sequence of str
        Write the areas' names, or these of them.
    where : (n_vertices,) array of bool, optional
        The vertices to show; the others are transparent. Default: all that are finite.
    min_r2 : float, optional
        Show vertices of at least this ``r2`` only.
    vmax : float, optional
        Highest eccentricity or size of the colours, in degrees. Default: the 99th percentile.
    title : str, optional
        Above the figure.

    Returns
    -------
    matplotlib Figure
        7.2 inches wide, two columns of a journal.

    Raises
    ------
    InputError
        If fields and vertices do not correspond, the outlines lie on another surface, or an
        option is unknown.
    """
    import matplotlib.pyplot as plt

    from neuroigc.surface import SurfaceMap, plot_surface_map

    check_choice("quantity", quantity, _LABELS)
    check_choice("view", view, ("flat", "inflated"))
    values = _values(fields, quantity, where, min_r2)
    surface_map = SurfaceMap.from_columns(values, vertices, space=space)
    look = _look(values, quantity, vmax)
    if quantity == "eccentricity":
        logarithms = {side: np.log2(part) for side, part in surface_map.data.items()}
        surface_map = SurfaceMap(logarithms, space)
    look_drawn = {key: look[key] for key in ("cmap", "vmin", "vmax", "period")}
    if quantity == "eccentricity":
        look_drawn |= {key: np.log2(look[key]) for key in ("vmin", "vmax")}

    figure = plt.figure(figsize=(7.2, 3.3), layout="constrained")
    left, right, legend = figure.subplots(1, 3, width_ratios=(1, 1, 0.24))
    for hemisphere, ax in (("left", left), ("right", right)):
        plot_surface_map(
            surface_map,
            hemisphere=hemisphere,
            mesh=view,
            view="occipital",
            crop=True,
            outlines=outlines,
            outline_names=outline_names if outlines is not None else False,
            colorbar=False,
            title=f"{hemisphere} hemisphere",
            ax=ax,
            **look_drawn,
        )
    if quantity == "angle":
        plot_angle_wheel(ax=legend)
        legend.set_title(_LABELS[quantity], fontsize=8, pad=16)
    else:
        legend.set_axis_off()
        _draw_bar(figure, legend, values, quantity, look)
    if title:
        figure.suptitle(title, fontsize=9, weight="bold")
    return figure


def _values(
    fields: object, quantity: str, where: ArrayLike | None, min_r2: float | None
) -> np.ndarray:
    """Return the numbers to draw, NaN where nothing is to be seen."""
    x, y, size = circles = read_fields(fields)
    shown = vertex_mask(where, len(x)) & np.isfinite(circles).all(axis=0)
    if min_r2 is not None:
        with np.errstate(invalid="ignore"):
            shown &= read_fields(fields, names=("r2",))[0] >= min_r2
    eccentricity, angle = to_polar(x, y)
    values = {"angle": angle, "eccentricity": eccentricity, "size": size}[quantity]
    if quantity == "eccentricity":
        # At fixation itself the logarithm has no end.
        values = np.maximum(values, 1e-6)
    if not (shown & np.isfinite(values)).any():
        raise InputError(
            "fields", expected="at least one vertex to show", got=f"none of {len(values)}"
        )
    return np.where(shown, values, np.nan)


def _look(values: np.ndarray, quantity: str, vmax: float | None) -> dict:
    if vmax is not None and not 0 < vmax < np.inf:
        raise InputError("vmax", expected="a positive number of degrees", got=repr(vmax))
    if quantity == "angle":
        return {"cmap": angle_colormap(), "vmin": 0, "vmax": 360, "period": 360}
    vmax = float(np.nanpercentile(values, 99)) if vmax is None else float(vmax)
    vmin = vmax / 2**OCTAVES if quantity == "eccentricity" else 0.0
    return {"cmap": "viridis", "vmin": vmin, "vmax": vmax, "period": None}


def _draw_bar(figure, legend, values, quantity, look) -> None:
    """Draw the colours as a bar in degrees, with ends where values lie beyond."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FixedLocator, NullLocator

    is_log = quantity == "eccentricity"
    norm = (LogNorm if is_log else Normalize)(look["vmin"], look["vmax"])
    below, above = np.nanmin(values) < look["vmin"], np.nanmax(values) > look["vmax"]
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    bar = figure.colorbar(
        ScalarMappable(norm, look["cmap"]), cax=legend.inset_axes((0.0, 0.1, 0.22, 0.8)),
        extend=extend,
    )  # fmt: skip
    if is_log:
        octaves = 2.0 ** np.arange(-20, 12)
        ticks = octaves[(octaves >= look["vmin"]) & (octaves <= look["vmax"])]
        bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.set_yticklabels([f"{tick:g}" for tick in ticks])
    bar.set_label(_LABELS[quantity], fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_linewidth(0.5)
