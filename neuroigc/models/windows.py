"""Windows from data: where learning begins, where it ends, and how well that is known.

Gradient descent finds good features, but what it leaves undone in the few parameters of a window
matters more for receptive fields than for predictions. With the features as they are, a few steps
of Levenberg and Marquardt finish each vertex, and tell its errors.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from neuroigc._progress import track
from neuroigc.models.fields import FLOOR, FieldEncoderNetwork, WindowReadout

__all__ = ["contrast_exponents", "finish_windows", "place_windows"]

# Cells a side of the coarse contrast maps on which windows are placed first.
N_CELLS = 16
NAMES = ("x", "y", "log_width", "log_exponent", "share")
# Contrast of images is multiplied by these to see how features follow it.
CONTRASTS = (0.7, 1.4)

# Yields standardised inputs (n, *image) and targets (n, n_outputs).
Batches = Iterator[tuple[Tensor, Tensor]]


@torch.no_grad()
def place_windows(network: FieldEncoderNetwork, batches: Batches) -> None:
    """Put each window where responses go along best with the local contrast of the image.

    Parameters
    ----------
    network : FieldEncoderNetwork
        Its windows are moved.
    batches : iterator of (inputs, targets)
        Standardised.
    """
    cross = total = squares = n = torch.zeros(())
    for inputs, targets in batches:
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

    Least squares over place, width, exponent, share of normalisation, gain and offset of every
    vertex, by Levenberg-Marquardt steps.

    Parameters
    ----------
    network : FieldEncoderNetwork
        In evaluation mode; its windows and head are changed.
    batches : callable
        Returns an iterator of standardised (inputs, targets); called for every step.
    n_steps : int
    progress : bool

    Returns
    -------
    Tensor of shape (n_outputs, 5, 5)
        Covariance of the errors of x, y, log width, log exponent and share, from the curvature
        of the error and the noise that is left.
    """
    readout, head = network.readout, network.head
    n_outputs = len(head.bias)
    damping = torch.full((n_outputs,), 1e-3, dtype=torch.float64, device=head.bias.device)
    values = _values(readout, head)
    best, normal, downhill, n = _normal_equations(network, batches())
    for _ in track(range(n_steps), show=progress, label="windows"):
        trial = values + _step(normal, downhill, damping)
        _set_values(readout, head, trial)
        error, trial_normal, trial_downhill, n = _normal_equations(network, batches())
        better = error < best
        values = torch.where(better[:, None], trial, values)
        best = torch.where(better, error, best)
        normal = torch.where(better[:, None, None], trial_normal, normal)
        downhill = torch.where(better[:, None], trial_downhill, downhill)
        damping = torch.where(better, damping / 8, damping * 8).clamp(1e-9, 1e9)
    _set_values(readout, head, values)
    noise = best / max(n - normal.shape[1], 1)
    scale = normal.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    scaled = normal * scale[:, :, None] * scale[:, None, :]
    inverse = torch.linalg.pinv(scaled, hermitian=True) * scale[:, :, None] * scale[:, None, :]
    covariance: Tensor = noise[:, None, None] * inverse
    return covariance[:, : len(NAMES), : len(NAMES)]


def _values(readout: WindowReadout, head) -> Tensor:
    """Return all that is fitted, (n_outputs, 7)."""
    own = readout.parameters_by_name
    return torch.stack([*(own[name] for name in NAMES), head.weight[:, 0], head.bias], 1).double()


def _set_values(readout: WindowReadout, head, values: Tensor) -> None:
    """Put what `_values` returns in its place; of no width or power are there infinitely many."""
    *own, gain, offset = values.to(head.bias.dtype).unbind(1)
    readout.set_parameters(**dict(zip(NAMES, own, strict=True)))
    head.weight.copy_(gain[:, None])
    head.bias.copy_(offset)


def _step(normal: Tensor, downhill: Tensor, damping: Tensor) -> Tensor:
    """Return the damped steps, at most so long as the quadratic model may be trusted."""
    diagonal = normal.diagonal(dim1=1, dim2=2)
    damped = normal + torch.diag_embed(damping[:, None] * diagonal + 1e-12 * (1 + diagonal))
    step = torch.linalg.solve(damped, downhill)
    most = step.new_tensor([0.1, 0.1, 0.3, 0.3, 0.2])
    longest = (step[:, :5].abs() / most).amax(1).clamp_min(1)
    return step / longest[:, None]


def _normal_equations(
    network: FieldEncoderNetwork, batches: Batches
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return squared errors (n_outputs,), J^T J (n_outputs, 7, 7), J^T r, and the samples."""
    readout, head = network.readout, network.head
    now = readout.parameters_by_name
    windows = readout.windows()
    inverse = torch.exp(-2 * now["log_width"])[:, None]
    across = (readout.grid_x - now["x"][:, None]) * inverse
    up = (readout.grid_y - now["y"][:, None]) * inverse
    wide = (across * across + up * up) / inverse
    # Derivatives of windows that sum to one.
    moved = [windows * (d - (windows * d).sum(1, keepdim=True)) for d in (across, up, wide)]
    all_windows = torch.cat([windows, *moved])
    weights = F.softplus(readout.raw_weights)
    scene_weights = F.softplus(readout.raw_scene_weights)
    exponent, gain = now["log_exponent"].exp(), head.weight[:, 0]
    n_outputs, n = len(gain), 0
    error = gain.new_zeros(n_outputs, dtype=torch.float64)
    normal = gain.new_zeros(n_outputs, 7, 7, dtype=torch.float64)
    downhill = gain.new_zeros(n_outputs, 7, dtype=torch.float64)
    for inputs, targets in batches:
        flat = network.features(inputs).flatten(2)
        pooled = (flat @ all_windows.T).unflatten(2, (4, n_outputs))
        inside, *slopes = torch.einsum("nckv,vc->knv", pooled, weights)
        scene = torch.log(flat.mean(2) @ scene_weights.T + FLOOR)
        drive = torch.log(inside + FLOOR) - now["share"] * scene - readout.typical
        power = torch.exp(exponent * drive)
        steep = gain * power * exponent
        columns = [steep * slope / (inside + FLOOR) for slope in slopes]
        columns += [steep * drive, -steep * scene, power, torch.ones_like(power)]
        jacobian = torch.stack(columns, 2).transpose(0, 1)
        residual = (targets - gain * power - head.bias).T
        error += (residual**2).sum(1).double()
        normal += (jacobian.mT @ jacobian).double()
        downhill += (jacobian.mT @ residual[:, :, None])[..., 0].double()
        n += len(inputs)
    return error, normal, downhill, n


@torch.no_grad()
def contrast_exponents(network: FieldEncoderNetwork, batches: Batches) -> Tensor:
    """Return the power of contrast that responses follow, (n_outputs,).

    Windows pool features, which need not be proportional to contrast. So the contrast of images
    is changed, about their mean, and with it what is in the window (but not what it is divided
    by): exponent times d log(inside) / d log(contrast).
    """
    slopes: list[Tensor] = []
    for inputs, _ in batches:
        mean = inputs.flatten(1).mean(1).reshape(-1, *(1,) * (inputs.ndim - 1))
        low, high = (
            network.readout.pooled(network.features(mean + c * (inputs - mean)))[0]
            for c in CONTRASTS
        )
        slopes.append(high - low)
    slope = torch.cat(slopes).mean(0)
    slope = slope / (torch.tensor(CONTRASTS[1]).log() - torch.tensor(CONTRASTS[0]).log())
    exponent: Tensor = network.readout.parameters_by_name["log_exponent"].exp() * slope
    return exponent
