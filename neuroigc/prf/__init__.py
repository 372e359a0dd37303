"""Maps to receptive fields."""

from neuroigc.prf.calibration import Calibration, calibrate_prfs, learn_calibration
from neuroigc.prf.calibration_plot import plot_calibration
from neuroigc.prf.classical import (
    contrast_energy,
    double_gamma_hrf,
    fit_css,
    fit_timeseries_prf,
    simulate_bars,
)
from neuroigc.prf.comparison import compare_prfs
from neuroigc.prf.coverage import plot_visual_field_coverage, visual_field_coverage
from neuroigc.prf.gaussian import fit_prf, pixel_centres
from neuroigc.prf.phantom_tables import phantom_table, read_phantom_table
from neuroigc.prf.phantoms import Phantoms, make_phantoms
from neuroigc.prf.plotting import (
    angle_colormap,
    plot_angle_wheel,
    plot_prf_comparison,
    plot_prf_gallery,
    plot_prf_map,
)
from neuroigc.prf.references import load_reference_prfs
from neuroigc.prf.result import ClassicalPRFResult, PRFResult
from neuroigc.prf.retinotopy import (
    ANGLE_CONVENTIONS,
    circular_correlation,
    circular_difference,
    circular_mean,
    convert_angle,
    to_cartesian,
    to_polar,
)
from neuroigc.prf.sizes import LITERATURE_SIZES, plot_size_eccentricity, size_eccentricity
from neuroigc.prf.stimulus import stimulus_power

__all__ = [
    "ANGLE_CONVENTIONS",
    "LITERATURE_SIZES",
    "Calibration",
    "ClassicalPRFResult",
    "PRFResult",
    "Phantoms",
    "angle_colormap",
    "calibrate_prfs",
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
    "learn_calibration",
    "load_reference_prfs",
    "make_phantoms",
    "phantom_table",
    "pixel_centres",
    "plot_angle_wheel",
    "plot_calibration",
    "plot_prf_comparison",
    "plot_prf_gallery",
    "plot_prf_map",
    "plot_size_eccentricity",
    "plot_visual_field_coverage",
    "read_phantom_table",
    "simulate_bars",
    "size_eccentricity",
    "stimulus_power",
    "to_cartesian",
    "to_polar",
    "visual_field_coverage",
]
