"""IGC on the features that windows look at: all outputs at once, whatever their number.

Of a network ``f_v = h_v(a_v, m_v)``, where a_v and m_v are weighted sums of features common to
all outputs (what is in the window of output v, and in the whole scene), every output depends on
two numbers of its own. One backward pass through the sum of all outputs therefore gives the
gradients of every one of them, integrals along paths are cheap, and maps are one product of their
weights with the features:

    IGC_v(c, p) = 1 / (sd(f) sd(y)) mean_i phi_i(c, p) (w_vcp A_iv + u_vcp M_iv),
    A_iv = mean_j (y_i - y_j) int dh_v/da_v dt along the path from j to i,

and M_iv likewise for m. That is Integrated Gradient Correlation (Lelièvre & Chen, equations 8 and
9) with the layer of features as its input, which cuts the network: sums are the correlation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count, check_same_length
from neuroigc.attribution.gradients import borrow, choose_device
from neuroigc.attribution.keys import digest_rows
from neuroigc.attribution.problem import checked_targets
from neuroigc.attribution.results import IGCResult
from neuroigc.attribution.samples import Samples, check_finite, choose_dtype

__all__ = ["WindowedNetwork", "window_correlation"]

# Numbers in one array of samples x outputs.
MOST_NUMBERS = 2**24
N_SAMPLE_GROUPS = 48


class WindowedNetwork(Protocol):
    """What a network must offer: `neuroigc.models.FieldEncoderNetwork` does."""

    def features(self, inputs: Tensor) -> Tensor:
        """Map (n, *input_shape) to features (n, n_features, rows, columns)."""

    def window_weights(self) -> tuple[Tensor, Tensor]:
        """Return weights inside windows and in the scene, (n_outputs, n_features, n_places)."""

    def from_sums(self, inside: Tensor, scene: Tensor) -> Tensor:
        """Map weighted sums of features, (n, n_outputs) each, to outputs (n, n_outputs)."""


def window_correlation(
    network: Any,
    inputs: Any,
    targets: Any = None,
    *,
    n_shifts: int = 16,
    n_points: int = 4,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> IGCResult:
    """Attribute correlations to places, for networks whose outputs look through windows.

    Baselines are the other samples, as many as there are shifts: samples are put in a random
    order that depends on their contents alone, and each is compared with those ``d`` places
    away, for ``n_shifts`` distances d.

    Parameters
    ----------
    network : torch.nn.Module
        As `WindowedNetwork`, for example the ``module_`` of a fitted
        `neuroigc.models.FieldEncoder`.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
        Streamed, group of samples by group.
    targets : array of shape (n_samples, n_outputs), optional
        True values. By default the predictions themselves (IGaC), whose maps have the same
        places and no noise, and for which samples that were learned from serve as well.
    n_shifts : int
        Pairs per sample, at least 2.
    n_points : int
        Gauss-Legendre nodes on each path; responses are smooth, so that few are exact.
    batch_size : int
        Samples whose features are taken at once; has no influence but rounding.
    device : str or torch.device
        "auto" takes CUDA if there is one, else where the network is.
    seed : int
    progress : bool

    Returns
    -------
    IGCResult
        ``attributions`` of shape (n_outputs, rows, columns), summed over features. Standard
        errors are those of sums over random groups of samples, less what groups share of both
        standard deviations; they leave out that the samples are each other's baselines, and that
        the network was trained.

    Raises
    ------
    InputError
        If the network offers no windows, or data do not fit.
    """
    _check_network(network)
    n_shifts, n_points = check_count("n_shifts", n_shifts, 2), check_count("n_points", n_points)
    batch_size, seed = check_count("batch_size", batch_size), check_count("seed", seed, 0)
    place = choose_device(device, network)
    with torch.inference_mode(False), torch.no_grad(), borrow(network, place) as borrowed:
        samples = Samples(inputs, place, choose_dtype(borrowed, inputs))
        n = check_same_length(inputs=samples, targets=targets)
        if n < 2 * n_shifts:
            raise InputError(
                "n_shifts", expected=f"at most half of the {n} samples", got=str(n_shifts)
            )
        work = _Work(borrowed, samples, n_shifts, n_points, batch_size, seed, progress)
        y = None if targets is None else checked_targets(targets)
        if y is not None and y.shape != (n, work.n_outputs):
            raise InputError(
                "targets", expected=f"shape ({n}, {work.n_outputs})", got=f"shape {y.shape}"
            )
        blocks = [work.block(outputs, y) for outputs in work.output_slices]
    parts = [np.concatenate([block[k] for block in blocks]) for k in range(5)]
    attributions, errors, correlation, gap, numerical = parts
    shape = (work.n_outputs, *work.shape)
    return IGCResult(
        attributions=attributions.reshape(shape),
        standard_errors=errors.reshape(shape),
        correlation=correlation,
        completeness_gap=gap,
        numerical_error=numerical,
        group_values=None,
        group_standard_errors=None,
        n_samples=n,
        n_gradients=n_shifts * n_points,
        settings={
            "baseline": "PairedBaseline",
            "regime": "windows",
            "auto_correlation": targets is None,
            "n_shifts": n_shifts,
            "n_points": n_points,
            "n_sample_groups": len(work.groups),
            "seed": seed,
            "dtype": str(samples.dtype),
        },
    )


def _check_network(network: Any) -> None:
    missing = [
        name
        for name in ("features", "window_weights", "from_sums")
        if not callable(getattr(network, name, None))
    ]
    if missing:
        raise InputError(
            "network",
            expected="a network whose outputs look through windows, as that of a FieldEncoder",
            got=f"{type(network).__name__}, without {', '.join(missing)}",
            fix="integrated_gradient_correlation takes any network.",
        )


class _Work:
    """What all blocks of outputs share."""

    def __init__(
        self,
        network: Any,
        samples: Samples,
        n_shifts: int,
        n_points: int,
        batch_size: int,
        seed: int,
        progress: bool,
    ) -> None:
        self.network, self.samples, self.progress = network, samples, progress
        self.batch_size, self.n_points = batch_size, n_points
        n = len(samples)
        keys = [digest_rows(samples.rows(part).cpu().numpy()) for part in samples.chunks()]
        # Neighbours in this order are no more alike than any two samples.
        self.order = np.argsort(np.concatenate(keys), kind="stable")
        distances = np.random.default_rng(seed).permutation(np.arange(1, n))
        self.shifts = distances[:n_shifts].tolist()
        self.groups = np.array_split(np.arange(n), min(N_SAMPLE_GROUPS, n // 2))
        self.inside, self.scene = network.window_weights()
        self.n_outputs, self.n_features, _ = self.inside.shape
        found = network.features(self._inputs(np.arange(1))).shape[1:]
        if (found[0], found[1:].numel()) != self.inside.shape[1:]:
            raise InputError(
                "inputs",
                expected="images of the size that the network was made for",
                got=f"shape {samples.shape}",
                fix="The windows lie on the grid of features of those.",
            )
        self.shape = tuple(found[1:])
        width = max(1, MOST_NUMBERS // n)
        self.output_slices = [
            slice(v, min(v + width, self.n_outputs)) for v in range(0, self.n_outputs, width)
        ]

    def _inputs(self, index: NDArray[np.int64]) -> Tensor:
        rows = self.samples.rows(index)
        check_finite(self.samples, rows)
        return rows.reshape(-1, *self.samples.shape)

    def features(self, group: NDArray[np.int64], label: str) -> Iterator[tuple[slice, Tensor]]:
        """Yield features (n, n_features * n_places) of samples of the random order, batched."""
        starts = range(int(group[0]), int(group[-1]) + 1, self.batch_size)
        for start in track(starts, show=self.progress and bool(label), label=label):
            part = slice(start, min(start + self.batch_size, int(group[-1]) + 1))
            yield part, self.network.features(self._inputs(self.order[part])).flatten(1)

    def block(
        self, outputs: slice, targets: NDArray[np.float64] | None
    ) -> tuple[NDArray[Any], ...]:
        """Return maps, standard errors, correlation, gap and numerical error of some outputs."""
        inside, scene = self.inside[outputs], self.scene[outputs]
        n = len(self.samples)
        sums = torch.cat([inside.flatten(1), scene.flatten(1)])
        held = self.samples.rows(slice(0, 1)).new_empty(n, len(sums))
        centre = sums.new_zeros(inside[0].numel(), dtype=torch.float64)
        for part, features in self.features(np.arange(n), "features"):
            held[part] = features @ sums.T
            centre += features.sum(0, dtype=torch.float64)
        centre = (centre / n).to(held.dtype)
        a, m = held[:, : len(inside)], held[:, len(inside) :]
        f = self._outputs(a, m, outputs)
        y = f if targets is None else torch.from_numpy(targets[self.order][:, outputs]).to(f)
        f_sd, y_sd = (v.double().std(0, unbiased=False) for v in (f, y))
        for name, deviation in (("network", f_sd), ("targets", y_sd)):
            constant = torch.nonzero(~(deviation > 0))[:, 0] + outputs.start
            if len(constant):
                raise InputError(
                    name,
                    expected="outputs and targets that vary",
                    got=f"{len(constant)} constant ones, such as output {int(constant[0])}",
                    fix="A correlation with a constant is undefined: leave such outputs out.",
                )
        c = ((y.double() - y.double().mean(0)) / y_sd).to(f)
        standard = (f.double() - f.double().mean(0)) / f_sd
        correlation = (c.double() * standard).mean(0)
        # A map is a covariance over both deviations, which vary with the samples as well.
        shares = standard.to(f.dtype).square_().add_(c.square()).div_(2)[:, :, None]
        del standard
        halves = self._cotangents(a, m, c, outputs)
        total = inside.new_zeros(2, len(inside), inside.shape[2], dtype=torch.float64)
        squares, by_share = total[0].clone(), total[0].clone()
        squared_share = total.new_zeros(len(inside), 1)
        for group in track(self.groups, show=self.progress, label="maps"):
            own = total.new_zeros(total.shape)
            for part, features in self.features(group, ""):
                # What multiplies them sums to zero over all samples, but not over a group's.
                features = features - centre
                for h, (to_inside, to_scene) in enumerate(halves):
                    maps = (to_inside[part].T @ features).view_as(inside) * inside
                    maps += (to_scene[part].T @ features).view_as(scene) * scene
                    own[h] += maps.sum(1)
            total += own
            mean = own.mean(0)
            squares += mean**2
            share = shares[int(group[0]) : int(group[-1]) + 1]
            share = share.sum(0, dtype=torch.float64)
            by_share += share * mean
            squared_share += share**2
        n_groups, whole = len(self.groups), total.mean(0)
        mean = whole / n
        spread = squares - 2 * mean * by_share + mean**2 * squared_share
        scale = n * f_sd[:, None]
        attributions = whole / scale
        errors = (spread.clamp_min(0) * n_groups / (n_groups - 1)).sqrt() / scale
        doubt = (total[0] - total[1]).norm(dim=1) / 2
        results = (
            attributions.to(f.dtype),
            errors.to(f.dtype),
            correlation,
            attributions.sum(1) - correlation,
            doubt / whole.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny),
        )
        return tuple(result.cpu().numpy() for result in results)

    def _outputs(self, inside: Tensor, scene: Tensor, outputs: slice) -> Tensor:
        """Run the end of the network for some outputs; those beside them are fed ones."""
        if outputs == slice(0, self.n_outputs):
            values: Tensor = self.network.from_sums(inside, scene)
            return values
        whole = [v.new_ones(len(v), self.n_outputs) for v in (inside, scene)]
        whole[0][:, outputs], whole[1][:, outputs] = inside, scene
        chosen: Tensor = self.network.from_sums(*whole)[:, outputs]
        return chosen

    def _cotangents(
        self, a: Tensor, m: Tensor, c: Tensor, outputs: slice
    ) -> list[tuple[Tensor, Tensor]]:
        """Return for either half of the shifts what multiplies features: A / n_pairs, and M."""
        n, nodes = len(a), np.polynomial.legendre.leggauss(self.n_points)
        points, weights = (nodes[0] + 1) / 2, nodes[1] / 2
        halves = []
        for shifts in (self.shifts[::2], self.shifts[1::2]):
            to_inside, to_scene = torch.zeros_like(a), torch.zeros_like(m)
            for shift in shifts:
                for start in range(0, n, self.batch_size):
                    i = torch.arange(start, min(start + self.batch_size, n), device=a.device)
                    j = (i + shift) % n
                    slopes = self._path(a[j], a[i], m[j], m[i], points, weights, outputs)
                    difference = c[i] - c[j]
                    for cotangent, slope in zip((to_inside, to_scene), slopes, strict=True):
                        slope *= difference
                        cotangent.index_add_(0, i, slope)
                        cotangent.index_add_(0, j, slope, alpha=-1)
            # A mean over all pairs, those of a sample with itself included, which give nothing.
            factor = (n - 1) / n / (2 * len(shifts))
            halves.append((to_inside.mul_(factor), to_scene.mul_(factor)))
        return halves

    def _path(
        self,
        a0: Tensor,
        a1: Tensor,
        m0: Tensor,
        m1: Tensor,
        points: NDArray[np.float64],
        weights: NDArray[np.float64],
        outputs: slice,
    ) -> tuple[Tensor, Tensor]:
        """Integrate both derivatives of every output along straight paths."""
        total: list[Tensor] = [torch.zeros_like(a0), torch.zeros_like(m0)]
        for t, weight in zip(points.tolist(), weights.tolist(), strict=True):
            leaves = [torch.lerp(*ends, t).requires_grad_(True) for ends in ((a0, a1), (m0, m1))]
            with torch.enable_grad():
                # No output depends on the numbers of another.
                summed = self._outputs(leaves[0], leaves[1], outputs).sum()
            for part, slope in zip(total, torch.autograd.grad(summed, leaves), strict=True):
                part.add_(slope, alpha=weight)
        return total[0], total[1]
