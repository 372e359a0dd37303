"""Windows from data: where learning begins, where it ends, and how well that is known.

Gradient descent finds good features, but what it leaves undone in the few parameters of a window,
and in how features are weighed inside, matters more for receptive fields than for predictions.
With the features as they are, a few steps of Levenberg and Marquardt finish each vertex, and tell
its errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
# Logarithms of weights stay within about this of where they were, if data say nothing: some
# features weigh nothing, and gain and offset undo what all weights have in common.
WEIGHT_SPREAD = 1.0
# Outputs whose columns are held at once.
OUTPUT_BLOCK = 1_000
# Of features that are kept from step to step, which are cheaper to keep than to compute.
KEPT_BYTES = 2**29
# Of curvature and of variance, relative to what they are made of: less is rounding.
UNKNOWN = 1e-12
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
    network: FieldEncoderNetwork,
    batches: Callable[[], Batches],
    *,
    n_steps: int = 8,
    progress: bool = False,
) -> Tensor:
    """Fit the windows to the data, the features being as they are.

    Least squares over place, width, power and share of normalisation of every vertex, and over
    the logarithms of its weights, with gain and offset always at their best (variable
    projection, Golub & Pereyra 1973), by Levenberg-Marquardt steps. Logarithms of weights have a
    normal prior about what they were, of which one standard deviation (`WEIGHT_SPREAD`) costs as
    much as one target that is missed by its own. Responses that do not vary over the samples have
    a gain of zero, and nothing is known then of their windows.

    Parameters
    ----------
    network : FieldEncoderNetwork
        In evaluation mode; its windows, weights and head are changed.
    batches : callable
        Returns an iterator of (inputs, targets, weights), of which the inputs are such as the
        network takes; called for every step.
    n_steps : int
    progress : bool

    Returns
    -------
    Tensor of shape (n_outputs, 5, 5)
        Covariance of the errors of x, y, log width, power and share, from the curvature
        of the error and the noise that is left.
    """
    readout, seen = network.readout, _Seen(network, batches)
    _centre_drive(readout, seen)
    values = _values(readout)
    first = values.clone()
    now = _project(*_products(readout, seen), values - first)
    damping = torch.full_like(now.error, 1e-3)
    for _ in track(range(n_steps), show=progress, label="windows"):
        trial = values + _step(now.normal, now.downhill, damping)
        _set_values(readout, trial)
        new = _project(*_products(readout, seen), trial - first)
        better = new.error < now.error
        values = torch.where(better[:, None], trial, values)
        now = now.where(better, new)
        damping = torch.where(better, damping / 8, damping * 8).clamp(1e-9, 1e9)
    _set_values(readout, values)
    network.head.weight.copy_(now.gain[:, None])
    network.head.bias.copy_(now.offset)
    inverse = _inverse(now.normal)
    # What the prior knows is not learned from data.
    n_learned = (1 - _prior(values, now.spread) * inverse.diagonal(dim1=1, dim2=2)).sum(1)
    noise = now.squares / (now.n - n_learned.clamp_min(0) - 2).clamp_min(1)
    own = len(NAMES)
    return noise[:, None, None] * inverse[:, :own, :own]


@dataclass
class _Fit:
    """Errors of all outputs, and where they fall, gain and offset being at their best."""

    error: Tensor  # (n_outputs,), what the prior costs included
    squares: Tensor  # (n_outputs,)
    spread: Tensor  # (n_outputs,): the variance of the targets
    gain: Tensor
    offset: Tensor
    normal: Tensor  # (n_outputs, n_values, n_values): J^T J
    downhill: Tensor  # (n_outputs, n_values): J^T r
    n: int

    def where(self, better: Tensor, new: _Fit) -> _Fit:
        """Take over what is better."""
        parts = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                mask = better.reshape(-1, *(1,) * (value.ndim - 1))
                parts[name] = torch.where(mask, getattr(new, name), value)
        return _Fit(**parts, n=self.n)


class _Seen:
    """Features, targets and weights, batch by batch; the first features are kept."""

    def __init__(self, network: FieldEncoderNetwork, batches: Callable[[], Batches]) -> None:
        self._network, self._batches = network, batches
        self._kept: list[Tensor] = []
        self._room = KEPT_BYTES

    def __iter__(self) -> Batches:
        for k, (inputs, targets, weights) in enumerate(self._batches()):
            if k < len(self._kept):
                features = self._kept[k]
            else:
                features = self._network.features(inputs).flatten(2)
                self._room -= features.numel() * features.element_size()
                if self._room >= 0:
                    self._kept.append(features)
            yield features, targets, weights


def _centre_drive(readout: WindowReadout, seen: _Seen) -> None:
    """Let the power turn about the mean drive, so that it has a size of about one."""
    share, total, n = readout.parameters_by_name["share"], 0.0, 0
    for features, _, _ in seen:
        inside, scene = readout.pooled(features)
        total = total + (inside - share * scene).double().sum(0)
        n += len(features)
    readout.typical.copy_(total / n)


def _values(readout: WindowReadout) -> Tensor:
    """Return what is fitted, (n_outputs, 5 + 2 n_channels)."""
    own = [readout.parameters_by_name[name] for name in NAMES]
    weights = torch.cat(readout.weights(), 1).clamp_min(torch.finfo(own[0].dtype).tiny)
    return torch.cat([torch.stack(own, 1), weights.log()], 1).double()


def _prior(values: Tensor, spread: Tensor) -> Tensor:
    """Return the precision of the prior of what is fitted, (n_outputs, n_values).

    In units of the targets, as errors are.
    """
    precision = (spread / WEIGHT_SPREAD**2)[:, None].expand_as(values).clone()
    precision[:, : len(NAMES)] = 0
    return precision


def _inverse(normal: Tensor) -> Tensor:
    """Return the inverses of (n_outputs, n, n), very large along what nothing depends on."""
    # In units in which all have about the same size.
    diagonal = normal.diagonal(dim1=1, dim2=2)
    scale = torch.where(diagonal > 0, diagonal, 1).rsqrt()
    scale = scale[:, :, None] * scale[:, None, :]
    size, along = torch.linalg.eigh(normal * scale)
    return scale * ((along / size.clamp_min(UNKNOWN)[:, None]) @ along.mT)


def _set_values(readout: WindowReadout, values: Tensor) -> None:
    own, logs = values[:, : len(NAMES)], values[:, len(NAMES) :]
    kind = readout.typical.dtype
    readout.set_parameters(**dict(zip(NAMES, own.to(kind).unbind(1), strict=True)))
    weights = logs.exp()
    # The inverse of softplus.
    raw = (weights + torch.log(-torch.expm1(-weights))).to(kind)
    for parameter, part in zip(
        (readout.raw_weights, readout.raw_scene_weights), raw.chunk(2, 1), strict=True
    ):
        parameter.copy_(part)


def _step(normal: Tensor, downhill: Tensor, damping: Tensor) -> Tensor:
    """Return the damped steps, at most so long as the quadratic model may be trusted."""
    diagonal = normal.diagonal(dim1=1, dim2=2)
    # What nothing depends on has a diagonal of zero.
    tiny = torch.finfo(normal.dtype).tiny ** 0.5
    damped = normal + torch.diag_embed((damping[:, None] + 1e-12) * diagonal + tiny)
    step = torch.linalg.solve(damped, downhill)
    most = step.new_ones(step.shape[1])
    most[: len(NAMES)] = step.new_tensor([0.1, 0.1, 0.3, 0.5, 0.2])
    return step / (step.abs() / most).amax(1).clamp_min(1)[:, None]


def _products(readout: WindowReadout, seen: _Seen) -> tuple[Tensor, int]:
    """Return weighted products of all columns with each other, and the number of samples.

    The columns (for each output) are the derivatives of the response by what is fitted, the
    response before gain and offset, one, and the target.
    """
    now, windows = readout.parameters_by_name, readout.windows()
    inverse = torch.exp(-2 * now["log_width"])[:, None]
    across = (readout.grid_x - now["x"][:, None]) * inverse
    up = (readout.grid_y - now["y"][:, None]) * inverse
    wide = (across * across + up * up) / inverse
    # Derivatives of windows that sum to one.
    moved = [windows * (d - (windows * d).sum(1, keepdim=True)) for d in (across, up, wide)]
    n_outputs, n_columns = len(windows), len(NAMES) + 2 * readout.raw_weights.shape[1] + 3
    products = windows.new_zeros(n_outputs, n_columns, n_columns, dtype=torch.float64)
    n = 0
    for features, targets, weights in seen:
        for first in range(0, n_outputs, OUTPUT_BLOCK):
            some = slice(first, first + OUTPUT_BLOCK)
            columns = _columns(readout, features, torch.stack([windows, *moved])[:, some], some)
            columns = torch.cat([columns, targets[:, some, None]], 2).transpose(0, 1).double()
            weighted = columns if weights is None else columns * weights[:, None].double()
            products[some] += weighted.mT @ columns
        n += len(features)
    return products, n


def _columns(readout: WindowReadout, features: Tensor, windows: Tensor, some: slice) -> Tensor:
    """Return derivatives of some outputs' responses, the responses, and one, (n, n_some, any)."""
    now = {name: values[some] for name, values in readout.parameters_by_name.items()}
    feature_weights, scene_weights = (weights[some] for weights in readout.weights())
    pooled = (features @ windows.flatten(0, 1).T).unflatten(2, windows.shape[:2])
    inside, *slopes = torch.einsum("nckv,vc->knv", pooled, feature_weights)
    means = features.mean(2)
    scene = means @ scene_weights.T
    log_scene = torch.log(scene + FLOOR)
    drive = torch.log(inside + FLOOR) - now["share"] * log_scene - readout.typical[some]
    grown, bent = growth(now["power"] * drive)
    steep = torch.exp(now["power"] * drive)
    by_inside, by_scene = steep / (inside + FLOOR), -steep * now["share"] / (scene + FLOOR)
    parts = [
        *(by_inside * slope for slope in slopes),
        drive * drive * bent,
        -steep * log_scene,
        by_inside[..., None] * pooled[:, :, 0].mT * feature_weights,
        by_scene[..., None] * means[:, None] * scene_weights,
        drive * grown,
        torch.ones_like(drive),
    ]
    return torch.cat([part.reshape(*drive.shape, -1) for part in parts], 2)


def _project(products: Tensor, n: int, moved: Tensor) -> _Fit:
    """Put gain and offset at their best, and take out of the derivatives what they can do.

    ``moved`` is how far what is fitted has come; the prior is of weights alone.
    """
    n_values = moved.shape[1]
    own, linear, target = slice(0, n_values), slice(n_values, n_values + 2), slice(-1, None)
    sums = products[:, -2, -2:]
    spread = (products[:, -1, -1] - sums[:, 1] ** 2 / sums[:, 0]) / sums[:, 0]
    # Where responses do not vary, only an offset is left.
    squared = products[:, -3, -3]
    flat = squared - products[:, -3, -2] ** 2 / sums[:, 0] <= UNKNOWN * squared
    products[flat, -3] = 0
    products[flat, :, -3] = 0
    products[flat, -3, -3] = 1
    both, with_target = products[:, linear, linear], products[:, linear, target]
    best = torch.linalg.solve(both, with_target)
    gain, offset = best[:, 0, 0], best[:, 1, 0]
    mixed = products[:, own, linear]
    normal = products[:, own, own] - mixed @ torch.linalg.solve(both, mixed.mT)
    downhill = gain[:, None] * (products[:, own, target] - mixed @ best)[..., 0]
    squares = products[:, -1, -1] - (with_target * best).sum((1, 2))
    prior = _prior(moved, spread)
    return _Fit(
        squares + (prior * moved**2).sum(1),
        squares,
        spread,
        gain,
        offset,
        gain[:, None, None] ** 2 * normal + torch.diag_embed(prior),
        downhill - prior * moved,
        n,
    )


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
    # The slope is a small difference of small differences.
    kind, power = readout.typical.dtype, readout.parameters_by_name["power"].double()
    nudge, totals = 1e-2, power.new_zeros(3, 3, len(power))
    n = 0
    for inputs, _, _ in batches:
        mean = inputs.flatten(1).mean(1).reshape(-1, *(1,) * (inputs.ndim - 1))
        scene = readout.pooled(network.features(inputs))[1]
        for k, contrast in enumerate((1 / CONTRAST, 1.0, CONTRAST)):
            inside, _ = readout.pooled(network.features(mean + contrast * (inputs - mean)))
            drive = inside - readout.parameters_by_name["share"] * scene - readout.typical
            drive = drive.double()
            for p, moved in enumerate((-nudge, 0.0, nudge)):
                totals[p, k] += (drive * growth((power + moved) * drive)[0]).sum(0)
        n += len(inputs)
    low, middle, high = (totals / n).unbind(1)
    exponents = torch.log2((high - middle) / (middle - low)) / math.log2(CONTRAST)
    slopes = (exponents[2] - exponents[0]) / (2 * nudge)
    return exponents[1].to(kind), slopes.to(kind)
