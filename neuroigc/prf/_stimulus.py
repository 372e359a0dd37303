"""What a fit of pooled stimuli must know about the stimulus, prepared once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

__all__ = ["Stimulus"]

_GRID_EXPONENTS = (0.125, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Stimulus:
    """Everything a fit must know about the stimulus, as tensors on the device.

    What grows with samples is in the precision of the computation, the rest is float64.
    """

    frames: Tensor  # (n_samples, n_rows * n_columns); clean already if the model is linear
    norms: Tensor  # (n_rows * n_columns,): of the raw time courses of tiles
    means: Tensor  # (n_rows * n_columns,): over samples
    x: Tensor  # (n_columns,): degrees
    y: Tensor  # (n_rows,)
    lower: Tensor  # (n_parameters,): x, y, log sigma and, where the exponent is free, log n
    upper: Tensor
    exponents: tuple[float, ...]  # to start from; a single one is kept
    delay: Tensor | None  # (n_samples, n_samples): convolves rows of samples
    root_weights: Tensor  # (n_samples,)
    nuisance: Tensor  # (n_samples, n_regressors): orthonormal, weighted

    @classmethod
    def make(
        cls, frames, axes, lower, upper, *, exponent, delay, weights, nuisance, device, dtype
    ) -> Stimulus:
        """Build it from arrays: frames (n_samples, n_rows, n_columns), nuisance unweighted."""

        def tensor(values, dtype=dtype):
            return torch.as_tensor(np.array(values, dtype=float), dtype=dtype, device=device)

        root = np.ones(len(frames)) if weights is None else np.sqrt(weights / np.mean(weights))
        frames = torch.as_tensor(np.array(frames, order="C"), device=device).to(dtype).flatten(1)
        free = exponent is None
        exponents = tuple(
            n for n in _GRID_EXPONENTS if free and lower[3] <= math.log(n) <= upper[3]
        )
        if not exponents:
            exponents = (math.exp((lower[3] + upper[3]) / 2) if free else float(exponent),)
        raw = cls(
            frames=frames,
            norms=frames.norm(dim=0).double(),
            means=(tensor(root**2) @ frames).double() / len(frames),
            x=tensor(axes[0], torch.float64),
            y=tensor(axes[1], torch.float64),
            lower=tensor(lower, torch.float64),
            upper=tensor(upper, torch.float64),
            exponents=exponents,
            delay=None if delay is None else tensor(delay).T,
            root_weights=tensor(root),
            nuisance=tensor(np.linalg.qr(root[:, None] * nuisance)[0]),
        )
        if not raw.is_linear:
            return raw
        delayed = raw.delayed(frames.T)
        return replace(
            raw,
            frames=raw.clean(delayed).T.contiguous(),
            norms=delayed.norm(dim=1).double(),
            means=(delayed @ raw.root_weights**2).double() / raw.n_samples,
        )

    @property
    def n_samples(self) -> int:
        """Images or volumes."""
        return len(self.frames)

    @property
    def exponent_is_free(self) -> bool:
        """Whether the fourth parameter is there."""
        return len(self.lower) == 4

    @property
    def is_linear(self) -> bool:
        """Whether pooling and everything after it can change places."""
        return not self.exponent_is_free and self.exponents == (1.0,)

    def delayed(self, series: Tensor) -> Tensor:
        """Convolve series (..., n_samples)."""
        return series if self.delay is None else series @ self.delay

    def clean(self, series: Tensor) -> Tensor:
        """Weight series (..., n_samples), and take nuisance out."""
        series = series * self.root_weights
        return series - (series @ self.nuisance) @ self.nuisance.T

    def mean(self, series: Tensor) -> Tensor:
        """Return the weighted mean of series (..., n_samples)."""
        return (series @ self.root_weights**2).double() / self.n_samples
