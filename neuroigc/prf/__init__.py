"""Maps to receptive fields."""

from neuroigc.prf.gaussian import fit_prf, pixel_centres
from neuroigc.prf.plotting import (
    angle_colormap,
    plot_angle_wheel,
    plot_prf_comparison,
    plot_prf_gallery,
    plot_prf_map,
    plot_size_eccentricity,
)
from neuroigc.prf.result import PRFResult
from neuroigc.prf.retinotopy import (
    ANGLE_CONVENTIONS,
    circular_correlation,
    circular_difference,
    circular_mean,
    compare_prfs,
    convert_angle,
    to_cartesian,
    to_polar,
)

__all__ = [
    "ANGLE_CONVENTIONS",
    "PRFResult",
    "angle_colormap",
    "circular_correlation",
    "circular_difference",
    "circular_mean",
    "compare_prfs",
    "convert_angle",
    "fit_prf",
    "pixel_centres",
    "plot_angle_wheel",
    "plot_prf_comparison",
    "plot_prf_gallery",
    "plot_prf_map",
    "plot_size_eccentricity",
    "to_cartesian",
    "to_polar",
]
