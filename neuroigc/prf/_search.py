"""Newton and Levenberg-Marquardt steps for isotropic Gaussians, on many maps at once.

For a given centre and size, amplitude and offset have a closed form (variable projection, Golub
& Pereyra 1973), and what is left of the squared error is ``1 - r^2`` with ``r`` the correlation
of the Gaussian with the map. So only x, y and log(size) are searched, with the analytic Jacobian
of Kaufman (1975) and, as noisy maps leave large residuals, with the residual's curvature.

The Gaussian is separable, and so are its derivatives: but for one product with the map per
step, everything is made of sums along rows and along columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Field", "Fit", "best_start", "evaluate", "propagate_errors", "search"]

# Step, in units of the size, below which a fit counts as settled.
_SETTLED = 1e-4


@dataclass(frozen=True)
class Field:
    """Everything a fit must know about the picture, as float64 tensors on the device.

    With u and v the distances from the centre in units of the size, every derivative of g by
    x / size, y / size and log(size) is g times a polynomial in u and v. Moments, sums over
    pixels of ``g u^k v^l`` times something, are numbered ``5 l + k``.
    """

    x: Tensor  # (w,): degrees
    y: Tensor  # (h,)
    lower: Tensor  # (3,): x, y, log size
    upper: Tensor  # (3,)
    derivatives: Tensor  # (25, 13): moments -> with g (1), first (3) and second (9) derivatives
    products: Tensor  # (25, 22): moments of g^2 -> g g (1), g_k g (3), g_kl g (9), g_k g_l (9)

    @classmethod
    def make(cls, x, y, lower, upper, device) -> Field:
        """Build it from arrays of pixel centres and the bounds."""
        one, u, v = _monomial(0, 0), _monomial(1, 0), _monomial(0, 1)
        uu, uv, vv = _times(u, u), _times(u, v), _times(v, v)
        square = uu + vv
        u_size = _times(u, square - 2 * one)
        v_size = _times(v, square - 2 * one)
        size_size = _times(square, square - 2 * one)
        first = [u, v, square]
        second = [uu - one, uv, u_size, uv, vv - one, v_size, u_size, v_size, size_size]
        derivatives = np.stack([one, *first, *second])
        pairs = [_times(a, b) for a in first for b in first]
        products = np.concatenate([derivatives, np.stack(pairs)])
        tensors = (x, y, lower, upper, derivatives.reshape(-1, 25).T, products.reshape(-1, 25).T)
        return cls(*(torch.as_tensor(t, dtype=torch.float64, device=device) for t in tensors))

    @property
    def n_pixels(self) -> int:
        """Pixels of a map."""
        return len(self.x) * len(self.y)


def _monomial(power_u: int, power_v: int) -> np.ndarray:
    """Return the coefficients [v power, u power] of one term."""
    coefficients = np.zeros((5, 5))
    coefficients[power_v, power_u] = 1.0
    return coefficients


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply polynomials whose product has no power above 4."""
    product = np.zeros((9, 9))
    for (i, j), value in np.ndenumerate(a):
        product[i : i + 5, j : j + 5] += value * b
    return product[:5, :5]


@dataclass
class Fit:
    """How well Gaussians fit, and where that would improve; one row per map.

    Derivatives of half the squared error are by x / size, y / size and log size, with amplitude
    and offset always at their best.
    """

    parameters: Tensor  # (n, 3): x, y, log size
    correlation: Tensor  # (n,): of g with the map
    amplitude: Tensor  # (n,)
    mean: Tensor  # (n,): of g over the pixels
    downhill: Tensor  # (n, 3): J^T r
    normal: Tensor  # (n, 3, 3): J^T J
    curvature: Tensor  # (n, 3, 3): of the residual, what J^T J lacks to the Hessian

    def __getitem__(self, rows: Tensor) -> Fit:
        return Fit(**{name: value[rows] for name, value in vars(self).items()})

    def replace(self, rows: Tensor, new: Fit) -> None:
        """Put ``new`` at the places ``rows`` (indices)."""
        for name, value in vars(new).items():
            getattr(self, name)[rows] = value


def evaluate(maps: Tensor, field: Field, parameters: Tensor) -> Fit:
    """Compare Gaussians with ``maps`` (n, h, w), which have mean 0 and norm 1."""
    size = parameters[:, 2].exp()
    along_x, along_y = (
        _powers(axis, parameters[:, i], size) for i, axis in enumerate((field.x, field.y))
    )
    # The one step that touches the maps, in their precision; everything small is float64.
    with_map = (along_y.to(maps.dtype) @ maps).double() @ along_x.mT
    with_map = with_map.flatten(1) @ field.derivatives
    mean = _outer(along_y.sum(-1), along_x.sum(-1)) @ field.derivatives / field.n_pixels
    squares = [(along @ along[:, 0, :, None])[..., 0] for along in (along_y, along_x)]
    inner = _outer(*squares) @ field.products
    first = mean[:, 1:4]
    of_means = torch.cat((mean[:, :1] * mean, _outer(first, first)), dim=1)
    inner = inner - field.n_pixels * of_means
    # A Gaussian far outside the picture may vanish on every pixel.
    norm = inner[:, :1].clamp_min(torch.finfo(torch.float64).tiny)
    amplitude = with_map[:, :1] / norm
    residual = with_map - amplitude * inner[:, :13]
    with_g = inner[:, 1:4]
    return Fit(
        parameters=parameters,
        correlation=(with_map[:, :1] / norm.sqrt())[:, 0],
        amplitude=amplitude[:, 0],
        mean=mean[:, 0],
        downhill=amplitude * residual[:, 1:4],
        normal=(amplitude**2 * (inner[:, 13:] - _outer(with_g, with_g) / norm)).view(-1, 3, 3),
        # Terms in the first derivatives of the residual are left out: they end as zero.
        curvature=(-amplitude * residual[:, 4:]).view(-1, 3, 3),
    )


def _powers(axis: Tensor, centre: Tensor, size: Tensor) -> Tensor:
    """Return g, u g, ..., u^4 g along one axis, (n, 5, n_pixels)."""
    u = (axis - centre[:, None]) / size[:, None]
    powers = [torch.exp(-0.5 * u * u)]
    for _ in range(4):
        powers.append(powers[-1] * u)
    return torch.stack(powers, dim=1)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of all pairs, (n, len_a * len_b)."""
    return (a[:, :, None] * b[:, None, :]).flatten(1)


def best_start(maps: Tensor, field: Field) -> Tensor:
    """Return the parameters (n, 3) of the grid Gaussian that correlates best with each map.

    Sizes double from one pixel on, and centres lie one size apart. A size is a separable filter
    of the map, so the whole grid costs about as much as a few steps of the search.
    """
    best = torch.full((len(maps),), -math.inf, dtype=maps.dtype, device=maps.device)
    start = torch.zeros(len(maps), 3, dtype=torch.float64, device=maps.device)
    smallest, largest = field.lower[2].exp().item(), field.upper[2].exp().item()
    size = max(smallest, (field.x[1] - field.x[0]).item(), (field.y[0] - field.y[1]).item())
    while size <= largest:
        x, gx = _centres_and_gaussians(field.x, size, field.upper[0])
        y, gy = _centres_and_gaussians(field.y, size, field.upper[1])
        norm = gy.square().sum(1)[:, None] * gx.square().sum(1)
        norm = (norm - (gy.sum(1)[:, None] * gx.sum(1)) ** 2 / field.n_pixels).sqrt()
        filtered = gy.to(maps.dtype) @ (maps @ gx.T.to(maps.dtype))
        value, place = filtered.mul_(1 / norm.to(maps.dtype)).flatten(1).max(1)
        better = value > best
        log_size = torch.full_like(best, math.log(size), dtype=torch.float64)
        here = torch.stack((x[place % len(x)], y[place // len(x)], log_size), dim=1)
        best = torch.where(better, value, best)
        start = torch.where(better[:, None], here, start)
        size *= 2
    return start


def _centres_and_gaussians(axis: Tensor, size: float, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return centres one ``size`` apart, up to one size beyond the pixels, and their Gaussians."""
    reach = min(axis.abs().max().item() + size, bound.item())
    n = int(reach / size)
    centres = torch.arange(-n, n + 1, dtype=torch.float64, device=axis.device) * size
    return centres, torch.exp(-0.5 * ((axis - centres[:, None]) / size) ** 2)


def search(maps: Tensor, field: Field, start: Tensor, max_iterations: int) -> tuple[Fit, Tensor]:
    """Improve the starts (n, 3) until every fit has settled.

    Returns
    -------
    fit : Fit
        One row per map.
    settled : (n,) tensor of bool
        False where ``max_iterations`` were not enough.
    """
    # Errors closer than this differ by rounding only.
    equal = 4 * torch.finfo(maps.dtype).eps
    fit = evaluate(maps, field, start)
    settled = torch.zeros(len(maps), dtype=torch.bool, device=maps.device)
    rows = torch.arange(len(maps), device=maps.device)
    now, damping = fit[rows], torch.full_like(fit.correlation, 1e-3)
    for _ in range(max_iterations):
        trial = _step(now, field, damping)
        moved = (trial - now.parameters).abs()
        moved[:, :2] /= now.parameters[:, 2:].exp()
        done = moved.amax(1) < _SETTLED
        new = evaluate(maps, field, trial)
        # Amplitudes are positive, so a negative correlation is no resemblance.
        better = new.correlation.clamp_min(0) ** 2 >= now.correlation.clamp_min(0) ** 2 - equal
        now.replace(better.nonzero()[:, 0], new[better])
        damping = torch.where(better, damping / 8, damping * 8).clamp(1e-9, 1e9)
        # A settled map is left alone, whatever the others in its batch still need.
        fit.replace(rows, now)
        settled[rows] = done
        keep = ~done
        rows, maps, now, damping = rows[keep], maps[keep], now[keep], damping[keep]
        if not len(rows):
            break
    return fit, settled


def _step(now: Fit, field: Field, damping: Tensor) -> Tensor:
    """Return the next parameters to try."""
    # A parameter at its bound that wants to leave the box is held there.
    held = ((now.parameters <= field.lower) & (now.downhill < 0)) | (
        (now.parameters >= field.upper) & (now.downhill > 0)
    )
    downhill = now.downhill.masked_fill(held, 0)
    diagonal = now.normal.diagonal(dim1=1, dim2=2)
    tiny = torch.finfo(torch.float64).tiny ** 0.25
    damped = now.normal + torch.diag_embed(damping[:, None] * diagonal + tiny)
    newton = damped + now.curvature
    any_held = held[:, :, None] | held[:, None, :]
    damped, newton = (
        matrix.masked_fill(any_held, 0) + torch.diag_embed(held.double())
        for matrix in (damped, newton)
    )
    # Newton's step where it leads downhill for certain.
    definite = (
        (newton[:, 0, 0] > 0)
        & (newton[:, 0, 0] * newton[:, 1, 1] > newton[:, 0, 1] ** 2)
        & (_adjugate(newton)[1] > 0)
    )
    adjugate, determinant = _adjugate(torch.where(definite[:, None, None], newton, damped))
    step = (adjugate * downhill[:, None, :]).sum(2) / determinant[:, None]
    # At most one size at a time, and e-fold in size: the quadratic model ends there.
    step = step.clamp(-1, 1)
    step[:, :2] *= now.parameters[:, 2:].exp()
    return torch.clamp(now.parameters + step, field.lower, field.upper)


def _adjugate(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return adjugate and determinant of symmetric 3 x 3 matrices; LAPACK is slow on so many."""
    a, b, c = matrices.unbind(1)
    adjugate = torch.stack((b.cross(c, dim=1), c.cross(a, dim=1), a.cross(b, dim=1)), dim=1)
    return adjugate, (a * adjugate[:, 0]).sum(1)


def propagate_errors(fit: Fit, errors: Tensor, field: Field, width_deg: float) -> Tensor:
    """Return standard errors of x, y and log size at optima, by the delta method.

    At an optimum the gradient vanishes for every map, so a change dm of the map moves the
    parameters by ``H^-1 J^T dm``, with H the Hessian and J the derivatives of the Gaussian that
    amplitude and offset cannot mimic.

    Parameters
    ----------
    fit : Fit
        Settled fits (n) of maps of mean 0 and norm 1.
    errors : (n, n_rows, n_columns) tensor
        Standard errors of those maps.
    field : Field
        The picture.
    width_deg : float
        Errors at a distance d correlate with ``exp(-d^2 / (2 width^2))``; 0 for independent ones.

    Returns
    -------
    (n, 3) tensor
        In degrees, the last one of log(size); NaN where the Hessian is not positive definite.
    """
    size = fit.parameters[:, 2].exp()
    along_x, along_y = (
        _powers(axis, fit.parameters[:, i], size)[:, :3]
        for i, axis in enumerate((field.x, field.y))
    )
    # g, u g, v g and (u^2 + v^2) g on the pixels, (n, 4, h, w).
    powers = ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2))
    g = [along_y[:, v, :, None] * along_x[:, u, None, :] for u, v in powers]
    g = torch.stack([*g[:3], g[3] + g[4]], dim=1)
    g -= g.mean((2, 3), keepdim=True)
    gaussian, jacobian = g[:, :1], g[:, 1:]
    share = (gaussian * jacobian).sum((2, 3)) / gaussian.square().sum((2, 3))
    jacobian = (jacobian - share[:, :, None, None] * gaussian) * fit.amplitude[:, None, None, None]
    jacobian *= errors[:, None]
    correlated = jacobian
    if width_deg > 0:
        by_x, by_y = (
            torch.exp(-0.5 * ((axis - axis[:, None]) / width_deg) ** 2)
            for axis in (field.x, field.y)
        )
        correlated = by_y @ jacobian @ by_x
    middle = jacobian.flatten(2) @ correlated.flatten(2).mT
    hessian = fit.normal + fit.curvature
    adjugate, determinant = _adjugate(hessian)
    inverse = adjugate / determinant[:, None, None]
    variance = (inverse @ middle @ inverse.mT).diagonal(dim1=1, dim2=2)
    definite = (
        (hessian[:, 0, 0] > 0)
        & (hessian[:, 0, 0] * hessian[:, 1, 1] > hessian[:, 0, 1] ** 2)
        & (determinant > 0)
    )
    per_size = torch.stack((size, size, torch.ones_like(size)), dim=1)
    return torch.where(definite[:, None], variance.clamp_min(0).sqrt() * per_size, math.nan)
