"""What phantoms teach, and how well vertices like them come out, in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroigc.prf._calibration import Calibration, width_and_exponent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_calibration"]

_POINTS: dict[str, float] = {"s": 8, "alpha": 0.35, "linewidths": 0}


def plot_calibration(calibration: Calibration, *, n_bins: int = 8) -> Figure:
    """Plot what phantoms say about a way of estimating receptive fields.

    Top left: what is inverted, estimates against true sizes; phantoms that were not used are left
    out. Where fields have exponents, the estimate is the width of what pools, and every exponent
    has a curve of its own: size comes from both. Elsewhere it is the size, with one line. Top
    right: calibrated sizes against the true ones, and the identity. Bottom left: distance of
    calibrated from true centres against the noise ceiling signal-to-noise ratio, with medians and
    90th percentiles of bins that hold equally many phantoms. Bottom right: how often intervals
    contain the truth of phantoms that they were not learned from, against how often they should.

    Parameters
    ----------
    calibration : Calibration
        From :func:`calibrate_prfs` or :func:`learn_calibration`.
    n_bins : int
        Bins of the centres' errors; fewer where there are few phantoms.

    Returns
    -------
    matplotlib Figure
        7.2 inches wide, two columns of a journal.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(7.2, 6.2), layout="constrained")
    (raw, sizes), (centres, shares) = axes
    used = calibration.used
    truth, estimates = calibration.phantoms[used], calibration.estimates[used]
    found = calibration.apply(estimates, quality=calibration.quality[used])
    ends = np.array([truth.size_deg.min(), truth.size_deg.max()])

    _draw_inverted(raw, calibration, ends)
    raw.set_title(f"{used.sum()} of {len(used)} phantoms", fontsize="medium")
    sizes.scatter(truth.size_deg, found.size_deg, **_POINTS)
    sizes.plot(ends, ends, color="0.4", linestyle="--", linewidth=1, label="identity")
    sizes.set(xscale="log", yscale="log")
    off = np.median(np.abs(found.size_deg / truth.size_deg - 1))
    sizes.set_title(f"median error {100 * off:.1f} %", fontsize="medium")
    sizes.set(xlabel="true size (deg)", ylabel="calibrated size (deg)")

    # On the same logarithmic axes a few bad fits do not hide the others.
    errors = calibration.errors()["centre_error_deg"].to_numpy()
    centres.scatter(truth.ncsnr, errors, **_POINTS)
    bins = np.array_split(np.argsort(truth.ncsnr), max(1, min(n_bins, len(errors) // 10)))
    at = [np.median(truth.ncsnr[members]) for members in bins]
    for share, style, name in ((50, "-", "median"), (90, ":", "90th percentile")):
        values = [np.percentile(errors[members], share) for members in bins]
        centres.plot(at, values, color="tab:red", linestyle=style, label=name)
    # Exact recovery leaves nothing to show on a logarithmic axis.
    if np.median(errors) > 0:
        centres.set(xscale="log", yscale="log")
        centres.set_ylim(bottom=np.percentile(errors[errors > 0], 1) / 1.5)
    centres.set(xlabel="noise ceiling SNR (ncsnr)", ylabel="error of the centre (deg)")

    levels = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    observed = calibration.coverage(levels)
    for name, marker in (("x", "o"), ("y", "s"), ("size", "^")):
        shares.plot(100 * observed["level"], 100 * observed[name], marker=marker, ms=4, label=name)
    shares.plot([0, 100], [0, 100], color="0.4", linestyle="--", linewidth=1)
    shares.set(xlabel="nominal coverage (%)", ylabel="observed coverage, held out (%)")
    for ax in (raw, sizes, centres, shares):
        _write_plain_logarithms(ax)
        ax.legend(frameon=False, fontsize="small")
    return figure


def _draw_inverted(ax: Axes, calibration: Calibration, ends: np.ndarray) -> None:
    """Draw estimates against true sizes, with the lines or curves that are inverted."""
    from matplotlib import colormaps

    truth, estimates = (
        some[calibration.used] for some in (calibration.phantoms, calibration.estimates)
    )
    ax.set(xscale="log", yscale="log", xlabel="true size (deg)")
    if calibration.surface is None:
        intercept, slope = calibration.size
        ax.scatter(truth.size_deg, estimates.size_deg, **_POINTS)
        values = np.exp(intercept) * ends**slope
        ax.plot(ends, values, color="tab:red", label=f"fit, slope {slope:.2f}")
        ax.plot(ends, ends, color="0.4", linestyle="--", linewidth=1, label="identity")
        ax.set_ylabel("estimated size (deg)")
        return
    log_width, exponent = width_and_exponent(estimates)
    chosen = np.quantile(exponent, (0.1, 0.5, 0.9))
    # The brightest colours of the scale are hard to see on white.
    limits = {"vmin": chosen[0], "vmax": chosen[2] + 0.2 * (chosen[2] - chosen[0])}
    ax.scatter(
        truth.size_deg, np.exp(log_width), c=exponent, cmap="viridis", **limits,
        **(_POINTS | {"alpha": 0.6}),
    )  # fmt: skip
    along = np.linspace(log_width.min(), log_width.max(), 50)
    for value, place in zip(chosen, (0.0, 0.42, 0.83), strict=True):
        sizes = np.exp(calibration.surface.at(along, np.full(len(along), value)))
        seen = (sizes >= ends[0]) & (sizes <= ends[1])
        label = f"estimated exponent {value:.2f}"
        ax.plot(sizes[seen], np.exp(along[seen]), color=colormaps["viridis"](place), label=label)
    ax.set_ylabel("estimated width (deg)")


def _write_plain_logarithms(ax: Axes) -> None:
    """Label logarithmic axes with numbers instead of powers of ten."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
