"""Windows from data: where learning begins, where it ends, and how well that is known.

Gradient descent finds good features, but what it leaves undone in the few parameters of a window
matters more for receptive fields than for predictions. With the features as they are, a few steps
of Levenberg and Marquardt finish each vertex, and tell its errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neuroigc._progress import track
from neuroigc.models.fields import FLOOR, FieldEncoderNetwork, WindowReadout, growth

__all__ = ["contrast_exponents", "finish_windows", "place_windows"]

# Cells a side of the coarse contrast maps on which windows are placed first.
N_CELLS = 16
NAMES = ("x", "y", "log_width", "power", "share")
# Contrast of images is multiplied and divided by this to see how responses follow it.
CONTRAST = 2**0.5

# Yields standardised inputs (n, *image) and targets (n, n_outputs), and weights (n,) if any.
Batches = Iterator[tuple[Tensor, Tensor, Tensor | None]]


@torch.no_grad()
def place_windows(network: FieldEncoderNetwork, batches: Batches) -> None:
    """Put each window where responses go along best with the local contrast of the image.

    Parameters
    ----------
    network : FieldEncoderNetwork
        Its windows are moved.
    batches : iterator of (inputs, targets, weights)
        Standardised; weights do not matter here.
    """
    cross = total = squares = n = torch.zeros(())
    for inputs, targets, _ in batches:
        grey = inputs if inputs.ndim == 3 else inputs.mean(1)
        local = F.adaptive_avg_pool2d(torch.stack([grey, grey * grey], 1), N_CELLS)
        contrast = (local[:, 1] - local[:, 0] ** 2).clamp_min(0).sqrt().flatten(1)
        cross = cross + targets.T @ contrast
        total, squares = total + contrast.sum(0), squares + (contrast**2).sum(0)
        n = n + len(inputs)
    spread = (squares / n - (total / n) ** 2).clamp_min(1e-12).sqrt()
    # Targets are standardised, so their products with a mean are nothing.
    maps = (cross / n / spread).reshape(-1, 1, N_CELLS, N_CELLS)
    kernel = torch.exp(-0.5 * (torch.arange(-4.0, 5.0, device=maps.device) / 1.2) ** 2)
    kernel = (kernel[:, None] * kernel)[None, None]
    smooth = F.conv2d(F.pad(maps, (4,) * 4, mode="replicate"), kernel).flatten(1)
    place = smooth.argmax(1)
    cells = (torch.arange(N_CELLS, device=maps.device) + 0.5) * 2 / N_CELLS - 1
    network.readout.set_parameters(x=cells[place % N_CELLS], y=-cells[place // N_CELLS])


@torch.no_grad()
def finish_windows(
    network: FieldEncoderNetwork, batches, *, n_steps: int = 8, progress: bool = False
) -> Tensor:
    """Fit the windows to the data, the features being as they are.

    Least squares over place, width, power and share of normalisation of every vertex, with
    gain and offset always at their best (variable projection, Golub & Pereyra 1973), by
    Levenberg-Marquardt steps.

    Parameters
    ----------
    network : FieldEncoderNetwork
        In evaluation mode; its windows and head are changed.
    batches : callable
        Returns an iterator of standardised (inputs, targets, weights); called for every step.
    n_steps : int
    progress : bool

    Returns
    -------
    Tensor of shape (n_outputs, 5, 5)
        Covariance of the errors of x, y, log width, power and share, from the curvature
        of the error and the noise that is left.
    """
    readout = network.readout
    _centre_drive(network, batches())
    values = torch.stack([readout.parameters_by_name[name] for name in NAMES], 1).double()
    now = _project(*_products(network, batches()))
    damping = torch.full_like(now.error, 1e-3)
    for _ in track(range(n_steps), show=progress, label="windows"):
        trial = values + _step(now.normal, now.downhill, damping)
        _set_values(readout, trial)
        new = _project(*_products(network, batches()))
        better = new.error < now.error
        values = torch.where(better[:, None], trial, values)
        now = now.where(better, new)
        damping = torch.where(better, damping / 8, damping * 8).clamp(1e-9, 1e9)
    _set_values(readout, values)
    network.head.weight.copy_(now.gain[:, None])
    network.head.bias.copy_(now.offset)
    noise = now.error / max(now.n - len(NAMES) - 2, 1)
    # In units in which all have about the same size.
    scale = now.normal.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    scale = scale[:, :, None] * scale[:, None, :]
    covariance: Tensor = noise[:, None, None] * scale
    return covariance * torch.linalg.pinv(now.normal * scale, hermitian=True)


@dataclass
class _Fit:
    """Errors of all outputs, and where they fall, gain and offset being at their best."""

    error: Tensor  # (n_outputs,)
    gain: Tensor
    offset: Tensor
    normal: Tensor  # (n_outputs, 5, 5): J^T J
    downhill: Tensor  # (n_outputs, 5): J^T r
    n: int

    def where(self, better: Tensor, new: _Fit) -> _Fit:
        """Take over what is better."""
        parts = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                mask = better.reshape(-1, *(1,) * (value.ndim - 1))
                parts[name] = torch.where(mask, getattr(new, name), value)
        return _Fit(**parts, n=self.n)


def _centre_drive(network: FieldEncoderNetwork, batches: Batches) -> None:
    """Let the power turn about the mean drive, so that it has a size of about one."""
    readout = network.readout
    share, total, n = readout.parameters_by_name["share"], 0.0, 0
    for inputs, _, _ in batches:
        inside, scene = readout.pooled(network.features(inputs))
        total = total + (inside - share * scene).double().sum(0)
        n += len(inputs)
    readout.typical.copy_(total / n)


def _set_values(readout: WindowReadout, values: Tensor) -> None:
    own = values.to(readout.typical.dtype).unbind(1)
    readout.set_parameters(**dict(zip(NAMES, own, strict=True)))


def _step(normal: Tensor, downhill: Tensor, damping: Tensor) -> Tensor:
    """Return the damped steps, at most so long as the quadratic model may be trusted."""
    diagonal = normal.diagonal(dim1=1, dim2=2)
    # What nothing depends on has a diagonal of zero.
    tiny = torch.finfo(normal.dtype).tiny ** 0.5
    damped = normal + torch.diag_embed((damping[:, None] + 1e-12) * diagonal + tiny)
    step = torch.linalg.solve(damped, downhill)
    most = step.new_tensor([0.1, 0.1, 0.3, 0.5, 0.2])
    return step / (step.abs() / most).amax(1).clamp_min(1)[:, None]


def _products(network: FieldEncoderNetwork, batches: Batches) -> tuple[Tensor, int]:
    """Return weighted products of all columns with each other, and the number of samples.

    The columns (8 of them, for each output) are the derivatives of the response by what is
    fitted, the response before gain and offset, one, and the target.
    """
    readout = network.readout
    now, windows = readout.parameters_by_name, readout.windows()
    inverse = torch.exp(-2 * now["log_width"])[:, None]
    across = (readout.grid_x - now["x"][:, None]) * inverse
    up = (readout.grid_y - now["y"][:, None]) * inverse
    wide = (across * across + up * up) / inverse
    # Derivatives of windows that sum to one.
    moved = [windows * (d - (windows * d).sum(1, keepdim=True)) for d in (across, up, wide)]
    all_windows = torch.cat([windows, *moved])
    feature_weights, scene_weights = readout.weights()
    n_outputs, n = len(windows), 0
    products = windows.new_zeros(n_outputs, 8, 8, dtype=torch.float64)
    for inputs, targets, weights in batches:
        flat = network.features(inputs).flatten(2)
        pooled = (flat @ all_windows.T).unflatten(2, (4, n_outputs))
        inside, *slopes = torch.einsum("nckv,vc->knv", pooled, feature_weights)
        scene = torch.log(flat.mean(2) @ scene_weights.T + FLOOR)
        drive = torch.log(inside + FLOOR) - now["share"] * scene - readout.typical
        grown, bent = growth(now["power"] * drive)
        steep = torch.exp(now["power"] * drive)
        columns = [steep * slope / (inside + FLOOR) for slope in slopes]
        columns += [drive * drive * bent, -steep * scene]
        columns += [drive * grown, torch.ones_like(drive), targets]
        matrix = torch.stack(columns, 2).transpose(0, 1).double()
        weighted = matrix if weights is None else matrix * weights[:, None].double()
        products += weighted.mT @ matrix
        n += len(inputs)
    return products, n


def _project(products: Tensor, n: int) -> _Fit:
    """Put gain and offset at their best, and take out of the derivatives what they can do."""
    own, linear = slice(0, 5), slice(5, 7)
    both, with_target = products[:, linear, linear], products[:, linear, 7:]
    best = torch.linalg.solve(both, with_target)
    gain, offset = best[:, 0, 0], best[:, 1, 0]
    mixed = products[:, own, linear]
    normal = products[:, own, own] - mixed @ torch.linalg.solve(both, mixed.mT)
    downhill = (products[:, own, 7:] - mixed @ best)[..., 0]
    error = products[:, 7, 7] - (with_target * best).sum((1, 2))
    return _Fit(error, gain, offset, gain[:, None, None] ** 2 * normal, gain[:, None] * downhill, n)


@torch.no_grad()
def contrast_exponents(network: FieldEncoderNetwork, batches: Batches) -> tuple[Tensor, Tensor]:
    """Return the power of contrast that responses follow, and what it would be for others.

    Windows pool features, which need not be proportional to contrast, and responses have a gain
    and an offset. So the contrast of images is changed about their mean, and with it what is in
    the windows (not what it is divided by): a response ``g c^n + b`` grows ``s^n`` times as much
    from c to s c as it did from c / s to c.

    Returns
    -------
    exponent : Tensor of shape (n_outputs,)
    slope : Tensor of shape (n_outputs,)
        Its derivative by the window's power.
    """
    readout = network.readout
    power = readout.parameters_by_name["power"]
    nudge, totals = 1e-2, torch.zeros(3, 3, len(power), device=power.device)
    n = 0
    for inputs, _, _ in batches:
        mean = inputs.flatten(1).mean(1).reshape(-1, *(1,) * (inputs.ndim - 1))
        scene = readout.pooled(network.features(inputs))[1]
        for k, contrast in enumerate((1 / CONTRAST, 1.0, CONTRAST)):
            inside, _ = readout.pooled(network.features(mean + contrast * (inputs - mean)))
            drive = inside - readout.parameters_by_name["share"] * scene - readout.typical
            for p, moved in enumerate((-nudge, 0.0, nudge)):
                totals[p, k] += (drive * growth((power + moved) * drive)[0]).sum(0)
        n += len(inputs)
    low, middle, high = (totals / n).unbind(1)
    exponents = torch.log2((high - middle) / (middle - low)) / math.log2(CONTRAST)
    return exponents[1], (exponents[2] - exponents[0]) / (2 * nudge)
