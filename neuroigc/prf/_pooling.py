"""Gaussian pooling of a stimulus, compressed, delayed and scaled: fitted to many series at once.

The prediction for sample i is ``gain * h * (sum_t S[i, t] G_t)^n``, with G a Gaussian over the
tiles (or pixels) t of the stimulus S and h an optional convolution over samples. For a given
centre, width and exponent, gain and nuisance regressors have a closed form (variable projection,
Golub & Pereyra 1973), and what is left of the squared error is ``1 - r^2`` with ``r`` the
correlation of prediction and series, both less their nuisance. So only x, y, log(sigma) and
log(n) are searched, with Levenberg-Marquardt steps and the Jacobian of Kaufman (1975); where
noise makes these slow, with the residual's curvature too, as learned from how gradients change.
Scaling G, or the pooled values, alters nothing, which is why neither is normalised here.

All that grows with samples times vertices is one product of Gaussians and stimulus per step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroigc.prf._stimulus import Stimulus

__all__ = ["Fit", "best_start", "evaluate", "search"]

# Step, in units of sigma (or e-fold in sigma and exponent), below which a fit counts as settled.
_SETTLED = 1e-4
# Steps after which a search that has not settled takes the residual's curvature into account.
_N_PLAIN_STEPS = 8


@dataclass
class Fit:
    """How well pooled stimuli fit, and where that would improve; one row per series.

    Derivatives are those of half the squared error by the parameters, with gain and nuisance
    always at their best. The curvature of the residual starts as zero; the search learns it.
    """

    parameters: Tensor  # (n, n_parameters): x, y, log sigma, log n
    correlation: Tensor  # (n,): of prediction and series
    gain: Tensor  # (n,): of the prediction, (pooled / largest)^n
    largest: Tensor  # (n,): log of the largest value that the Gaussian of height 1 pools
    mean: Tensor  # (n,): of the prediction over samples
    downhill: Tensor  # (n, n_parameters): J^T r
    normal: Tensor  # (n, n_parameters, n_parameters): J^T J
    curvature: Tensor  # (n, n_parameters, n_parameters): what J^T J lacks to the Hessian

    def __getitem__(self, rows: Tensor) -> Fit:
        return Fit(**{name: value[rows] for name, value in vars(self).items()})

    def replace(self, rows: Tensor, new: Fit) -> None:
        """Put ``new`` at the places ``rows`` (indices)."""
        for name, value in vars(new).items():
            getattr(self, name)[rows] = value


def evaluate(series: Tensor, stimulus: Stimulus, parameters: Tensor) -> Fit:
    """Compare predictions with ``series`` (n, n_samples), which are clean and have norm 1."""
    sigma = parameters[:, 2].exp()
    u, v = (
        (axis - parameters[:, i, None]) / sigma[:, None]
        for i, axis in enumerate((stimulus.x, stimulus.y))
    )
    gaussian = _outer(torch.exp(-0.5 * v * v), torch.exp(-0.5 * u * u))
    u, v = u[:, None, :], v[:, :, None]
    derivatives = (gaussian * u, gaussian * v, gaussian * (u * u + v * v))
    weights = torch.stack((gaussian, *derivatives), dim=1).flatten(2)
    pooled = weights.flatten(0, 1).to(series.dtype) @ stimulus.frames.T
    basis = pooled.view(len(series), 4, -1)
    if stimulus.is_linear:
        largest = torch.zeros_like(sigma)
        whole = (weights[:, 0] @ stimulus.norms) ** 2
        mean = weights[:, 0] @ stimulus.means
    else:
        basis, largest = _compress(basis, stimulus, parameters)
        basis = stimulus.delayed(basis)
        whole = basis[:, 0].square().sum(1).double()
        mean = stimulus.mean(basis[:, 0])
        basis = stimulus.clean(basis)
    gram = (basis @ basis.mT).double()
    with_series = (basis @ series[:, :, None])[:, :, 0].double()
    # A prediction that vanishes, or that nuisance explains, leaves nothing but rounding.
    square = gram[:, 0, 0]
    nothing = square <= (100 * torch.finfo(series.dtype).eps) ** 2 * whole
    square = square.masked_fill(nothing, math.inf)
    gain = with_series[:, :1] / square[:, None]
    with_prediction = gram[:, 1:, 0]
    overlap = _outer(with_prediction, with_prediction) / square[:, None, None]
    # So far by x / sigma and y / sigma.
    unit = torch.ones_like(parameters)
    unit[:, :2] = sigma[:, None]
    normal = gain[:, :, None] ** 2 * (gram[:, 1:, 1:] - overlap) / _outer(unit, unit)
    return Fit(
        parameters=parameters,
        correlation=with_series[:, 0] / square.sqrt(),
        gain=gain[:, 0],
        largest=largest,
        mean=mean,
        downhill=gain * (with_series[:, 1:] - gain * with_prediction) / unit,
        normal=normal,
        curvature=torch.zeros_like(normal),
    )


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :, None] * b[:, None, :]


def _compress(pooled: Tensor, stimulus: Stimulus, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Return (pooled / largest)^n with its derivatives, and the log of the largest value.

    ``pooled`` (n, 4, n_samples) holds values and their derivatives by the first parameters.
    """
    if stimulus.exponent_is_free:
        n = parameters[:, 3:].exp().to(pooled.dtype)
    else:
        n = torch.full_like(pooled[:, 0, :1], stimulus.exponents[0])
    values = pooled[:, 0].clamp_min(torch.finfo(pooled.dtype).tiny)
    logarithm, largest = _log_relative(values)
    # Where nothing at all is pooled the power is zero, not that of the smallest number.
    power = torch.exp(n * logarithm) * (pooled[:, 0] > 0)
    basis = [power[:, None], (n * power / values)[:, None] * pooled[:, 1:]]
    if stimulus.exponent_is_free:
        basis.append((n * power * logarithm)[:, None])
    return torch.cat(basis, dim=1), largest.double()


def _log_relative(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of values (n, n_samples) over the largest of a row, and that one's."""
    logarithm = values.log()
    largest = logarithm.amax(1)
    return logarithm - largest[:, None], largest


def best_start(series: Tensor, stimulus: Stimulus, chunk: int) -> Tensor:
    """Return the parameters (n, n_parameters) of the grid point that correlates best.

    Widths double from one tile on, centres lie one width apart up to a width beyond the edge.
    ``chunk`` Gaussians are pooled at a time.
    """
    best = torch.zeros(len(series), dtype=series.dtype, device=series.device) - math.inf
    n_parameters = len(stimulus.lower)
    start = torch.zeros(len(series), n_parameters, dtype=torch.float64, device=series.device)
    for candidates in _grid(stimulus).split(chunk):
        sigma = candidates[:, 2:3].exp()
        along_x = torch.exp(-0.5 * ((stimulus.x - candidates[:, :1]) / sigma) ** 2)
        along_y = torch.exp(-0.5 * ((stimulus.y - candidates[:, 1:2]) / sigma) ** 2)
        weights = _outer(along_y, along_x).flatten(1)
        pooled = weights.to(series.dtype) @ stimulus.frames.T
        if not stimulus.is_linear:
            logarithm, _ = _log_relative(pooled.clamp_min(torch.finfo(pooled.dtype).tiny))
        for n in stimulus.exponents:
            if stimulus.is_linear:
                clean, whole = pooled, (weights @ stimulus.norms).to(series.dtype)
            else:
                power = stimulus.delayed(torch.exp(n * logarithm) * (pooled > 0))
                clean, whole = stimulus.clean(power), power.norm(dim=1)
            norm = clean.norm(dim=1)
            norm[norm <= 100 * torch.finfo(series.dtype).eps * whole] = math.inf
            value, place = (series @ (clean / norm[:, None]).T).max(1)
            better = value > best
            best[better] = value[better]
            start[better, :3] = candidates[place[better]]
            start[better, 3:] = math.log(n)
    return start.clamp(stimulus.lower, stimulus.upper)


def _grid(stimulus: Stimulus) -> Tensor:
    """Return x, y and log sigma (n_candidates, 3) of all Gaussians to start from."""
    tile = max((stimulus.x[1] - stimulus.x[0]).item(), (stimulus.y[0] - stimulus.y[1]).item())
    log_sigma = max(stimulus.lower[2].item(), math.log(tile))
    points = []
    while True:
        log_sigma = min(log_sigma, stimulus.upper[2].item())
        sigma = math.exp(log_sigma)
        centres = []
        for axis, bound in zip((stimulus.x, stimulus.y), stimulus.upper, strict=False):
            reach = min(axis.abs().max().item() + sigma, bound.item())
            n = int(reach / sigma)
            centres.append(torch.arange(-n, n + 1, dtype=torch.float64) * sigma)
        width = torch.full((1,), log_sigma, dtype=torch.float64)
        points.append(torch.cartesian_prod(*centres, width))
        if log_sigma >= stimulus.upper[2].item():
            return torch.cat(points).to(stimulus.x.device)
        log_sigma += math.log(2)


def search(
    series: Tensor, stimulus: Stimulus, start: Tensor, max_iterations: int
) -> tuple[Fit, Tensor]:
    """Improve the starts (n, n_parameters) until every fit has settled.

    Returns
    -------
    fit : Fit
        One row per series.
    settled : (n,) tensor of bool
        False where ``max_iterations`` were not enough.
    """
    # Errors closer than this differ by rounding only.
    equal = 16 * torch.finfo(series.dtype).eps
    fit = evaluate(series, stimulus, start)
    settled = torch.zeros(len(series), dtype=torch.bool, device=series.device)
    rows = torch.arange(len(series), device=series.device)
    now, damping = fit[rows], torch.full_like(fit.correlation, 1e-3)
    for iteration in range(max_iterations):
        trial = _step(now, stimulus, damping, plain=iteration < _N_PLAIN_STEPS)
        moved = (trial - now.parameters).abs()
        moved[:, :2] /= now.parameters[:, 2:3].exp()
        done = moved.amax(1) < _SETTLED
        new = evaluate(series, stimulus, trial)
        # Gains are positive, so a negative correlation is no resemblance.
        better = new.correlation.clamp_min(0) ** 2 >= now.correlation.clamp_min(0) ** 2 - equal
        new.curvature = _learned(now, new)
        now.replace(better.nonzero()[:, 0], new[better])
        damping = torch.where(better, damping / 8, damping * 8).clamp(1e-9, 1e9)
        # A settled series is left alone, whatever the others in its batch still need.
        fit.replace(rows, now)
        settled[rows] = done
        keep = ~done
        rows, series, now, damping = rows[keep], series[keep], now[keep], damping[keep]
        if not len(rows):
            break
    return fit, settled


def _step(now: Fit, stimulus: Stimulus, damping: Tensor, *, plain: bool) -> Tensor:
    """Return the next parameters to try; ``plain`` leaves the residual's curvature out."""
    # A parameter at its bound that wants to leave the box is held there.
    held = ((now.parameters <= stimulus.lower) & (now.downhill < 0)) | (
        (now.parameters >= stimulus.upper) & (now.downhill > 0)
    )
    downhill = now.downhill.masked_fill(held, 0)
    diagonal = now.normal.diagonal(dim1=1, dim2=2)
    tiny = torch.finfo(torch.float64).tiny ** 0.25
    damped = now.normal + torch.diag_embed(damping[:, None] * diagonal + tiny)
    newton = damped if plain else damped + now.curvature
    any_held = held[:, :, None] | held[:, None, :]
    damped, newton = (
        matrix.masked_fill(any_held, 0) + torch.diag_embed(held.double())
        for matrix in (damped, newton)
    )
    # Newton's step where it leads downhill for certain.
    _, failed = torch.linalg.cholesky_ex(newton)
    matrix = torch.where(failed[:, None, None] == 0, newton, damped)
    step = torch.linalg.solve_ex(matrix, downhill[:, :, None])[0][:, :, 0]
    # At most one width at a time, and e-fold in width and exponent: the model ends there.
    sigma = now.parameters[:, 2:3].exp()
    step = step.nan_to_num(0.0)
    step = torch.cat((step[:, :2].clamp(-sigma, sigma), step[:, 2:].clamp(-1, 1)), dim=1)
    return torch.clamp(now.parameters + step, stimulus.lower, stimulus.upper)


def _learned(now: Fit, new: Fit) -> Tensor:
    """Return the curvature that explains how the gradient changed.

    A symmetric update of rank one to what was learned so far, which is shrunk first where it
    promised more curvature than there was: residuals that vanish leave none (the sizing of
    Dennis, Gay & Welsch 1981).
    """
    step = (new.parameters - now.parameters)[:, :, None]
    seen = (now.downhill - new.downhill)[:, :, None] - new.normal @ step
    promised = now.curvature @ step
    largest = (step.mT @ seen).abs() / (step.mT @ promised).abs()
    shrunk = largest.nan_to_num(1.0).clamp_max(1.0)
    missing = seen - shrunk * promised
    along = step.mT @ missing
    reliable = along.abs() > 1e-6 * missing.norm(dim=1, keepdim=True) * step.norm(
        dim=1, keepdim=True
    )
    return shrunk * now.curvature + missing @ missing.mT / along.masked_fill(~reliable, math.inf)
