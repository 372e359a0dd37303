"""Pictures of maps on the inflated and on the flattened cortex."""

from functools import lru_cache

import numpy as np

from neuroigc._validation import InputError, check_choice
from neuroigc.surface.outlines import draw_outlines, write_names
from neuroigc.surface.rendering import normals, project, render, window_around
from neuroigc.surface.spaces import HEMISPHERES, load_background, load_mesh, mesh_at_hand

__all__ = ["plot_surface_map", "plot_surface_overview"]

_MARGIN = 0.02  # of a panel, in parts of the surface's size
_CROP_MARGIN = 0.12


def plot_surface_map(
    surface_map,
    *,
    hemisphere="left",
    mesh="inflated",
    view="medial",
    outlines=None,
    outline_names=False,
    crop=None,
    cmap="RdBu_r",
    vmin=None,
    vmax=None,
    period=None,
    evidence=None,
    opaque_at=2.0,
    colorbar=True,
    label=None,
    title=None,
    ax=None,
):
    """Draw one hemisphere of a map over its sulci.

    Parameters
    ----------
    surface_map : SurfaceMap
        NaN vertices show the sulci: dark where the cortex folds inwards.
    hemisphere : {"left", "right"}
        Which one.
    mesh : {"inflated", "flat", "pial", "white", "sphere"}
        The flat map is seen from outside the brain, its front away from the middle of a
        left-right pair.
    view : {"lateral", "medial", "posterior", "anterior", "dorsal", "ventral", "occipital"}
        Where the viewer stands; "occipital" is between posterior and medial. No use for "flat".
    outlines : Atlas or CombinedAtlas, optional
        On the map's surface; the borders of its areas are drawn as lines between vertices.
    outline_names : bool or sequence of str
        Write the areas' names, or these of them.
    crop : bool or tuple of float, optional
        Show only the surroundings of what was measured, or left, right, bottom and top in mm;
        flat maps are cropped by default.
    cmap : str or Colormap
        Diverging by default, and told apart by colour-blind readers.
    vmin, vmax : float, optional
        Limits of the colours. ``vmax`` is by default the 99th percentile of the absolute values
        of both hemispheres, ``vmin`` is ``-vmax``, so that white is zero.
    period : float, optional
        Of cyclic values, 360 for angles in degrees: interpolates around the circle.
    evidence : SurfaceMap, optional
        On the map's surface: z, say. Colours are as opaque as the square of its size, in parts of
        ``opaque_at``, so that what is certain stands out and nothing is cut away.
    opaque_at : float
        Evidence from which colours are opaque; 2 is about p = 0.05 for z.
    colorbar : bool
        Draw one beside the panel.
    label : str, optional
        Of the colour bar; the map's units by default.
    title : str, optional
        Of the panel.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If an atlas or the evidence lies on another surface, or an option is unknown.

    Notes
    -----
    Maps denser than the meshes on this machine are drawn on fsaverage5, at the vertices that the
    surfaces share; :func:`neuroigc.surface.fetch_meshes` brings denser ones.
    """
    from matplotlib.figure import Figure

    check_choice("hemisphere", hemisphere, HEMISPHERES)
    for name, other in (("outlines", outlines), ("evidence", evidence)):
        if other is not None and other.space != surface_map.space:
            raise InputError(name, expected=f"one on {surface_map.space}", got=other.space)
    if not opaque_at > 0:
        raise InputError("opaque_at", expected="a positive number", got=repr(opaque_at))
    colors = _color_scale(surface_map, cmap, vmin, vmax)
    space = mesh_at_hand(surface_map.space)
    values = surface_map.nested(space).data[hemisphere]
    points, faces, on_mesh = _turned_mesh(space, mesh, hemisphere, view)
    crop = mesh == "flat" if crop is None else crop
    if crop is True:
        window = _measured_window(points, on_mesh, values)
    else:
        window = crop or window_around(points[on_mesh], _MARGIN)

    canvas, facing, background = _scene(space, mesh, hemisphere, view, tuple(window))
    picture = background.copy()
    shown, interpolated = _interpolate(canvas, faces, values, period)
    rgba = colors.to_rgba(interpolated)
    if evidence is not None:
        # What has no evidence is transparent.
        strength = np.nan_to_num(evidence.nested(space).data[hemisphere] / opaque_at)
        strength = np.where(np.isnan(values), np.nan, strength)
        interpolated = _interpolate(canvas, faces, strength, None)[1]
        opacity = np.clip(interpolated**2, 0, 1)[:, None]
        rgba = opacity * rgba + (1 - opacity) * background[shown]
    picture[shown] = rgba

    if ax is None:
        height, width = canvas.face.shape
        size = (3.5, min(4.5, 2.8 * height / width + 0.3))  # one column of a journal
        ax = Figure(figsize=size, layout="constrained").add_subplot()
    ax.imshow(picture, extent=window, interpolation="antialiased", zorder=1)
    if outlines is not None:
        on_space = outlines.nested(space)
        draw_outlines(ax, canvas, on_space, hemisphere, points, facing, faces)
        names = outlines.names if outline_names is True else outline_names or []
        seen = on_mesh & (facing > 0.3) & canvas.shows(points)
        write_names(ax, canvas, on_space, names, hemisphere, points, seen)
    ax.set(xlim=window[:2], ylim=window[2:], aspect="equal")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=8)
    if colorbar:
        _draw_colorbar(
            ax.figure, colors, surface_map, label, ax=ax, shrink=0.7, aspect=18, pad=0.03
        )
    return ax


@lru_cache(maxsize=16)
def _turned_mesh(space, mesh, hemisphere, view):
    """Return points as the viewer sees them, faces, and which points are on a face."""
    coordinates, faces = load_mesh(space, mesh, hemisphere)
    if mesh == "flat":
        points = coordinates * [1.0, 1.0, 0.0]
    else:
        points = project(coordinates, hemisphere, view)
    on_mesh = np.zeros(len(points), bool)
    on_mesh[faces] = True  # the vertices at a flat map's cuts are on no face
    return points, faces, on_mesh


# A report draws many maps on few meshes from few sides; about 30 MB each.
@lru_cache(maxsize=16)
def _scene(space, mesh, hemisphere, view, window):
    """Return the canvas of a window, how far each vertex faces the viewer, and the sulci."""
    points, faces, _ = _turned_mesh(space, mesh, hemisphere, view)
    canvas = render(points, faces, window)
    facing = normals(points, faces)[:, 2]
    background = _background(canvas, faces, load_background(space, hemisphere), facing)
    return canvas, facing, background


def plot_surface_overview(
    surface_map,
    *,
    outlines=None,
    outline_names=True,
    cmap="RdBu_r",
    vmin=None,
    vmax=None,
    period=None,
    evidence=None,
    opaque_at=2.0,
    label=None,
    title=None,
):
    """Draw both hemispheres from inside, behind and below, and flattened: the paper's Figure 2.

    Parameters
    ----------
    surface_map : SurfaceMap
        What to draw.
    outlines, outline_names, cmap, vmin, vmax, period, evidence, opaque_at, label, title
        As in :func:`plot_surface_map`; one colour bar serves all panels. Names are written on
        the flat maps.

    Returns
    -------
    matplotlib Figure
        7.2 inches wide, two columns of a journal.
    """
    from matplotlib.figure import Figure

    colors = _color_scale(surface_map, cmap, vmin, vmax)
    # Inflated hemispheres of 216 x 146 x 83 mm, in one scale and mirrored as the brain is. The
    # lengths below are in those mm; 660 of them are the 7.2 inches of two columns.
    width, height, gap, heading = 660, 500, 12, 22
    figure = Figure(figsize=(7.2, 7.2 * height / width))
    rows = [
        (300, 146, ("medial", "posterior", "posterior", "medial"), (216, 88, 88, 216)),
        (58, 216, ("ventral", "flat", "flat", "ventral"), (88, 216, 216, 88)),
    ]
    windows = _flat_windows(surface_map)
    for bottom, tall, views, widths in rows:
        left = gap / 2
        for column, (view, wide) in enumerate(zip(views, widths, strict=True)):
            flat, hemisphere = view == "flat", HEMISPHERES[column // 2]
            ax = figure.add_axes((left / width, bottom / height, wide / width, tall / height))
            plot_surface_map(
                surface_map,
                hemisphere=hemisphere,
                mesh="flat" if flat else "inflated",
                view="medial" if flat else view,
                crop=windows[hemisphere] if flat else False,
                outlines=outlines,
                outline_names=flat and outline_names,
                cmap=colors.cmap,
                vmin=colors.norm.vmin,
                vmax=colors.norm.vmax,
                period=period,
                evidence=evidence,
                opaque_at=opaque_at,
                colorbar=False,
                title=f"{hemisphere}, {view}",
                ax=ax,
            )
            ax.set_anchor("NE" if hemisphere == "left" else "NW")
            left += wide + gap
    cax = figure.add_axes((0.33, 38 / height, 0.34, 10 / height))
    _draw_colorbar(figure, colors, surface_map, label, cax=cax, orientation="horizontal")
    if title:
        figure.text(0.5, 1 - heading / height, title, fontsize=9, ha="center", weight="bold")
    return figure


def _color_scale(surface_map, cmap, vmin, vmax):
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    if vmax is None:
        values = np.abs(np.concatenate(list(surface_map.data.values())))
        values = values[np.isfinite(values)]
        vmax = float(np.percentile(values, 99)) if values.size else 1.0
        vmax = vmax or 1.0
    vmin = -vmax if vmin is None else vmin
    if not vmin < vmax:
        raise InputError("vmin", expected=f"a number below vmax, {vmax}", got=str(vmin))
    return ScalarMappable(Normalize(vmin, vmax), cmap)


def _draw_colorbar(figure, colors, surface_map, label, **options):
    values = np.concatenate(list(surface_map.data.values()))
    below = bool(np.nanmin(values, initial=np.inf) < colors.norm.vmin)
    above = bool(np.nanmax(values, initial=-np.inf) > colors.norm.vmax)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    bar = figure.colorbar(colors, extend=extend, **options)
    if hasattr(bar.formatter, "set_powerlimits"):
        bar.formatter.set_powerlimits((-2, 4))
        bar.formatter.set_useMathText(True)
        bar.update_ticks()
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.ax.xaxis.get_offset_text().set_fontsize(7)
    bar.set_label(surface_map.units if label is None else label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_linewidth(0.5)


def _measured_window(points, on_mesh, values):
    """Return the window around what was measured, but no farther than the surface reaches."""
    whole = window_around(points[on_mesh], _MARGIN)
    measured = on_mesh & ~np.isnan(values)
    if not measured.any():
        return whole
    near = window_around(points[measured], _CROP_MARGIN)
    return tuple(pick(a, b) for pick, a, b in zip((max, min, max, min), near, whole, strict=True))


def _flat_windows(surface_map):
    """Return a window for each hemisphere's flat map: of one size, mirrored."""
    space = mesh_at_hand(surface_map.space)
    windows = []
    for hemisphere, sign in (("left", 1), ("right", -1)):
        points, faces = load_mesh(space, "flat", hemisphere)
        on_mesh = np.isin(np.arange(len(points)), faces)
        values = surface_map.nested(space).data[hemisphere]
        windows.append(_measured_window(points * [sign, 1, 0], on_mesh, values))
    left, right, bottom, top = (
        pick(a, b) for pick, a, b in zip((min, max, min, max), *windows, strict=True)
    )
    return {"left": (left, right, bottom, top), "right": (-right, -left, bottom, top)}


def _background(canvas, faces, sulci, facing):
    """Return grey sulci (height, width, 4), darker to the rim, transparent outside."""
    corners = faces[canvas.face]
    depth = (canvas.weights * sulci[corners]).sum(axis=-1)
    towards = (canvas.weights * facing[corners]).sum(axis=-1)
    grey = (0.74 - 0.14 * np.tanh(2.5 * depth)) * (0.72 + 0.28 * np.clip(towards, 0, 1))
    inside = canvas.face >= 0
    picture = np.stack([grey, grey, grey, np.ones_like(grey)], axis=-1) * inside[..., None]
    return picture.astype(np.float32)


def _interpolate(canvas, faces, values, period):
    """Return which pixels are nearer to measured vertices than to others, and their values."""
    corners = faces[canvas.face]
    measured = ~np.isnan(values)
    filled = np.where(measured, values, 0.0)
    weights = canvas.weights * measured[corners]
    shown = weights.sum(axis=-1) > 0.5
    corners, weights = corners[shown], weights[shown]
    if period is None:
        return shown, (weights * filled[corners]).sum(axis=-1) / weights.sum(axis=-1)
    turns = np.exp(2j * np.pi * filled / period)
    return shown, np.angle((weights * turns[corners]).sum(axis=-1)) / (2 * np.pi) % 1 * period
