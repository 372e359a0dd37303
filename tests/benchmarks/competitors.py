"""What the benchmarks compare with: other ways to the same map, and the map itself.

All in plain torch, and independent of the engine of neuroigc. Maps have the shape
(n_outputs, *input_shape) and are in float64.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_models import Case, cached
from torch import Tensor

Nodes = Callable[[int], tuple[Tensor, Tensor]]
# The paper's setting.
N_BASELINES = N_STEPS = 32
PAPER_GRADIENTS = N_BASELINES * N_STEPS


def draw_baselines(n_samples: int, *, n_baselines: int = N_BASELINES, seed: int = 0) -> Tensor:
    """Draw for each sample the samples that are its baselines."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(n_samples, (n_samples, n_baselines), generator=generator)


def textbook(
    case: Case, baselines: Tensor, *, n_steps: int = N_STEPS, n_samples: int | None = None
) -> Tensor:
    """Return IGC as defined: gradients of every output, at every step, of the full input.

    With ``n_samples``, the part of the sum that the first samples contribute.
    """
    total = torch.zeros(case.n_outputs, *case.inputs.shape[1:], dtype=torch.float64)
    steps = torch.arange(1, n_steps + 1) / n_steps
    for i in range(case.n_samples if n_samples is None else n_samples):
        difference = case.inputs[i] - case.inputs[baselines[i]]
        along = steps.reshape(-1, 1, *(1,) * (difference.ndim - 1))
        points = (case.inputs[baselines[i]] + along * difference).flatten(0, 1)
        outputs = case.model(points.requires_grad_(True))
        for v in range(case.n_outputs):
            (gradients,) = torch.autograd.grad(
                outputs[:, v].sum(), points, retain_graph=v + 1 < case.n_outputs
            )
            mean = gradients.unflatten(0, (n_steps, -1)).mean(0)
            total[v] += (difference * mean).mean(0) * case.centred[i, v]
    return _divide(total / case.n_samples, case)


def captum_loop(case: Case, baselines: Tensor, *, n_samples: int) -> Tensor:
    """Return what the first samples contribute, by captum's integrated gradients.

    Baseline by baseline, and by 32 Gauss-Legendre nodes, its default rule.
    """
    from captum.attr import IntegratedGradients

    explainer = IntegratedGradients(case.model)
    x = case.inputs[:n_samples]
    total = torch.zeros(case.n_outputs, *x.shape[1:], dtype=torch.float64)
    for b in range(baselines.shape[1]):
        bank = case.inputs[baselines[:n_samples, b]]
        for v in range(case.n_outputs):
            values = explainer.attribute(x, bank, target=v, n_steps=N_STEPS)
            total[v] += torch.tensordot(case.centred[:n_samples, v], values.double(), 1)
    return _divide(total / (case.n_samples * baselines.shape[1]), case)


def has_int_grad_corr() -> bool:
    """Return whether the package int_grad_corr (which imports as igc) is there."""
    try:
        from igc import IntGradCorr  # noqa: F401
    except ImportError:
        return False
    return True


def int_grad_corr(case: Case, *, n_samples: int) -> None:
    """Run the package int_grad_corr on the first samples, with as many baselines and steps.

    All of them get the same baselines, and as many at once as there are samples: more it
    does not accept.
    """
    from igc import IntGradCorr

    class Data(torch.utils.data.Dataset):  # type: ignore[type-arg]
        rng = None  # the package asks for it

        def __len__(self) -> int:
            return n_samples

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return case.inputs[index], case.targets[index]

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        IntGradCorr(case.model, Data()).compute(
            x_0=case.inputs[-N_BASELINES:],
            y_idx=None,
            n_steps=N_STEPS,
            batch_size=(1, n_samples, None),
        )


def behind_the_stem(case: Case, baselines: Tensor, nodes: Nodes) -> Tensor:
    """Return the sum over samples and baselines with gradients taken behind the stem.

    By `right_riemann` it is the very sum that `textbook` returns: straight paths stay straight
    behind an affine stem. Gradients there are summed for every sample, as the end of a path and
    as a baseline, and pulled through the stem once.
    """
    hidden, sums = _open(case)
    for i in range(case.n_samples):
        rows = baselines[i]
        weighted = _mean_slopes(case, hidden[rows], hidden[i], *nodes(len(rows)))
        weighted *= case.centred[i][:, None] / len(rows)
        sums[i] += weighted.sum(0)
        sums.index_add_(0, rows, -weighted)
    return _divide(_pull(case, sums / case.n_samples), case)


def all_pairs(case: Case, nodes: Nodes) -> Tensor:
    """Return IGC over all pairs of samples.

    ``nodes`` gives points (n_pairs, n_points) in 0 to 1, and their weights.
    """
    hidden, sums = _open(case)
    for i in range(1, case.n_samples):
        t, weights = nodes(i)
        slopes = _mean_slopes(case, hidden[:i], hidden[i], t, weights)
        weighted = slopes * (case.centred[i] - case.centred[:i])[:, :, None]
        sums[i] += weighted.sum(0)
        sums[:i] -= weighted
    # Each pair stands for both of its directions, and a sample with itself adds nothing.
    return _divide(_pull(case, sums / case.n_samples**2), case)


def right_riemann(n_steps: int) -> Nodes:
    """Return the ends of equal steps, the paper's rule."""
    t = torch.arange(1, n_steps + 1) / n_steps
    return lambda n_pairs: (t.expand(n_pairs, -1), torch.full((n_pairs, n_steps), 1 / n_steps))


def gauss_legendre(n_nodes: int) -> Nodes:
    """Return the same Gauss-Legendre nodes for every pair."""
    points, weights = np.polynomial.legendre.leggauss(n_nodes)
    t = torch.from_numpy((points + 1) / 2).float()
    w = torch.from_numpy(weights / 2).float()
    return lambda n_pairs: (t.expand(n_pairs, -1), w.expand(n_pairs, -1))


def stratified(n_points: int, *, seed: int) -> Nodes:
    """Return a random point in each of equal parts of every path."""
    generator = torch.Generator().manual_seed(seed)

    def nodes(n_pairs: int) -> tuple[Tensor, Tensor]:
        u = torch.rand(n_pairs, n_points, generator=generator)
        t = (torch.arange(n_points) + u) / n_points
        return t, torch.full_like(t, 1 / n_points)

    return nodes


def reference_by_quadrature(case: Case, *, cache: Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the map over all pairs by 16 Gauss-Legendre nodes, and its error.

    The error is the distance to the map by 8 nodes, so rather that of 8 nodes than of 16.
    """

    def compute() -> tuple[Tensor, Tensor]:
        coarse, fine = (all_pairs(case, gauss_legendre(n)) for n in (8, 16))
        return fine, relative_errors(coarse, fine)

    return _cached(case, "quadrature", cache, compute)


def reference_by_halves(
    case: Case, *, n_points: int = 2, cache: Path | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean of two unbiased maps over all pairs, and half their distance.

    Each takes a random point in each of ``n_points`` parts of every path.
    """

    def compute() -> tuple[Tensor, Tensor]:
        one, other = (all_pairs(case, stratified(n_points, seed=seed)) for seed in (0, 1))
        mean = (one + other) / 2
        return mean, relative_errors(one, other) / 2

    return _cached(case, f"halves{n_points}", cache, compute)


def paper_errors(
    case: Case,
    reference: Tensor,
    *,
    n_seeds: int,
    by_gauss: bool = False,
    cache: Path | None = None,
) -> Tensor:
    """Return the errors (n_seeds, n_outputs) of 32 random baselines x 32 steps.

    Of the paper's right Riemann sum or, by as many Gauss-Legendre nodes, of hardly more than
    the choice of baselines.
    """
    rule, name = (gauss_legendre, "gauss") if by_gauss else (right_riemann, "paper")

    def map_of(seed: int) -> Tensor:
        baselines = draw_baselines(case.n_samples, seed=seed)
        return behind_the_stem(case, baselines, rule(N_STEPS))

    maps = [_cached(case, f"{name}{s}", cache, partial(map_of, s)) for s in range(n_seeds)]
    return torch.stack([relative_errors(one, reference) for one in maps])


def relative_errors(maps: Tensor, reference: Tensor) -> Tensor:
    """Return for each output the L2 distance to the reference, relative to its norm."""
    difference = (maps - reference).flatten(1).norm(dim=1)
    return difference / reference.flatten(1).norm(dim=1)


def _cached(case: Case, kind: str, cache: Path | None, compute: Callable[[], Any]) -> Any:
    if cache is None:
        return compute()
    name = f"{kind}_{case.name.replace(' ', '_')}_{case.fingerprint()}"
    if not (cache / f"{name}.pt").exists():
        print(f"computing {name} ...", file=sys.stderr, flush=True)
    return cached(cache, name, compute)


def _open(case: Case) -> tuple[Tensor, Tensor]:
    """Return the stem's values of all samples, flat, and zeros for sums of gradients."""
    with torch.no_grad():
        hidden = torch.cat([case.stem(x) for x in case.inputs.split(500)])
    flat = hidden.flatten(1)
    return flat, torch.zeros(len(flat), case.n_outputs, flat.shape[1], dtype=torch.float64)


def _mean_slopes(case: Case, starts: Tensor, end: Tensor, t: Tensor, weights: Tensor) -> Tensor:
    """Return weighted means over points of paths, (n_pairs, n_outputs, n_hidden), in float64."""
    points = starts[:, None] + t[:, :, None] * (end - starts)[:, None]
    shaped = points.flatten(0, 1).unflatten(1, case.hidden_shape).requires_grad_(True)
    outputs = case.rest(shaped)
    means = []
    for v in range(case.n_outputs):
        (slopes,) = torch.autograd.grad(
            outputs[:, v].sum(), shaped, retain_graph=v + 1 < case.n_outputs
        )
        means.append(torch.einsum("pth,pt->ph", slopes.reshape(points.shape), weights))
    return torch.stack(means, 1).double()


def _pull(case: Case, sums: Tensor) -> Tensor:
    """Pull sums of gradients through the stem, and multiply by the samples."""
    total = torch.zeros(case.n_outputs, *case.inputs.shape[1:], dtype=torch.float64)
    for rows in torch.arange(case.n_samples).split(500):
        x = case.inputs[rows].requires_grad_(True)
        hidden = case.stem(x)
        for v in range(case.n_outputs):
            cotangents = sums[rows, v].to(x.dtype).reshape(hidden.shape)
            (slopes,) = torch.autograd.grad(hidden, x, cotangents, retain_graph=True)
            total[v] += (slopes.double() * x.detach()).sum(0)
    return total


def _divide(maps: Tensor, case: Case) -> Tensor:
    return maps / case.scale.reshape(-1, *(1,) * (maps.ndim - 1))
