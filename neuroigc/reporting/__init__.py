"""One study folder to one HTML page."""

from neuroigc.reporting.page import write_report

__all__ = ["write_report"]
