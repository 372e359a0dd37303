"""Maps to receptive fields."""

from neuroigc.prf.classical import (
    contrast_energy,
    double_gamma_hrf,
    fit_css,
    fit_timeseries_prf,
    simulate_bars,
)
from neuroigc.prf.gaussian import fit_prf, pixel_centres
from neuroigc.prf.plotting import (
    angle_colormap,
    plot_angle_wheel,
    plot_prf_comparison,
    plot_prf_gallery,
    plot_prf_map,
    plot_size_eccentricity,
)
from neuroigc.prf.result import ClassicalPRFResult, PRFResult
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
    "ClassicalPRFResult",
    "PRFResult",
    "angle_colormap",
    "circular_correlation",
    "circular_difference",
    "circular_mean",
    "compare_prfs",
    "contrast_energy",
    "convert_angle",
    "double_gamma_hrf",
    "fit_css",
    "fit_prf",
    "fit_timeseries_prf",
    "pixel_centres",
    "plot_angle_wheel",
    "plot_prf_comparison",
    "plot_prf_gallery",
    "plot_prf_map",
    "plot_size_eccentricity",
    "simulate_bars",
    "to_cartesian",
    "to_polar",
]
