"""Ceilings and uncertainty."""

from neuroigc.stats.ceilings import (
    correlation_ceiling,
    ncsnr_from_trials,
    noise_ceiling,
    reaches_ceiling,
)

__all__ = ["correlation_ceiling", "ncsnr_from_trials", "noise_ceiling", "reaches_ceiling"]
