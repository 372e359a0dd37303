"""One study folder to one HTML page, and the pictures that need several rooms."""

from neuroigc.reporting.page import write_report
from neuroigc.reporting.retinotopy import plot_retinotopy

__all__ = ["plot_retinotopy", "write_report"]
