"""Peel the affine ends off a model: f = head ∘ body ∘ stem, and only the body needs derivatives.

The path from baseline to sample is straight, and stays straight behind an affine stem; the
stem is therefore run once per sample and its transpose applied once to sums of gradients. The
gradients of the latents before an affine head serve all outputs. Both are exact identities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroigc.attribution.graph import as_matrix, as_stem, split
from neuroigc.attribution.stems import DenseStem, IdentityStem, ModuleStem, Stem

__all__ = ["DenseStem", "Factors", "IdentityStem", "ModuleStem", "Stem", "factorise"]

Body = Callable[..., Tensor]

# How far from the data a stem must still be affine, in multiples of the largest number there.
_SCALES = (0.1, 1.0, 10.0, 1e3, 1e6)


@dataclass
class Factors:
    """A model in three parts.

    Attributes
    ----------
    stem : IdentityStem, DenseStem or ModuleStem
        Affine; flat inputs to flat hidden activity.
    body : callable
        Hidden activity of the stem's ``hidden_shape`` (and conditions) to (n, n_latents).
    head : (weight, bias) or None
        Latents to outputs, ``latents @ weight.T + bias``; None where the latents are the outputs.
    """

    stem: Stem
    body: Body
    head: tuple[Tensor, Tensor] | None

    def latents(self, hidden: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Run the body on flat hidden activity."""
        # A body that begins in place must write neither on a leaf nor on the caller's data.
        shaped = hidden.clone().reshape(-1, *self.stem.hidden_shape)
        values = self.body(shaped) if conditions is None else self.body(shaped, conditions)
        return values.unsqueeze(1) if values.ndim == 1 else values

    def outputs(self, hidden: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Run body and head on flat hidden activity."""
        latents = self.latents(hidden, conditions)
        return latents if self.head is None else latents @ self.head[0].T + self.head[1]

    def select(self, outputs: Tensor) -> Factors:
        """Return the factors of some outputs alone."""
        if self.head is not None:
            weight, bias = self.head
            return Factors(self.stem, self.body, (weight[outputs], bias[outputs]))
        whole = self

        def body(hidden: Tensor, conditions: Tensor | None = None) -> Tensor:
            return whole.latents(hidden, conditions)[:, outputs]

        return Factors(self.stem, body, None)

    def without_stem(self) -> Factors:
        """Return factors that leave the stem in the body."""
        whole = self

        def body(inputs: Tensor, conditions: Tensor | None = None) -> Tensor:
            return whole.latents(whole.stem(inputs.flatten(1)), conditions)

        return Factors(IdentityStem(self.stem.input_shape), body, self.head)


def factorise(model: nn.Module, example: Tensor, conditions: Tensor | None = None) -> Factors:
    """Split a model into affine stem, nonlinear body and affine head.

    Parts are taken from the model's own ``stem``, ``body`` and ``head`` attributes, or found in
    the graph of what its ``forward`` computes. They are trusted only if they give the model's
    outputs and gradients, and if the stem proves affine, on the example and far from it;
    otherwise less is taken off, in the end nothing.

    Parameters
    ----------
    model : torch.nn.Module
        Neither changed nor copied. Left whole unless all of it is in evaluation mode.
    example : Tensor of shape (n, *input_shape)
        A few samples. Ends are taken off in float32 and float64 alone.
    conditions : Tensor of shape (n, ...), optional
        Fed to the body (or the whole model) beside the hidden activity.

    Returns
    -------
    Factors
    """
    example = example.detach()
    evaluated = not any(module.training for module in model.modules())
    if evaluated and example.dtype in (torch.float32, torch.float64) and len(example):
        with torch.no_grad():
            probes = _probe(model, example, conditions)
            if probes is not None:
                for factors in _candidates(model, example, conditions):
                    if _holds(factors, probes):
                        return factors
    return Factors(IdentityStem(tuple(example.shape[1:])), model, None)


def _candidates(model: nn.Module, example: Tensor, conditions: Tensor | None) -> Iterator[Factors]:
    """Yield what the model may be made of, from the smallest body to the largest."""
    declared = _declared(model, example, conditions)
    if declared is not None:
        yield declared
    for stem, body, head in split(model, example, conditions):
        yield Factors(stem, body, head)


def _declared(model: nn.Module, example: Tensor, conditions: Tensor | None) -> Factors | None:
    """Return the parts a model declares, or None."""
    stem, body, head = (getattr(model, name, None) for name in ("stem", "body", "head"))
    if not (isinstance(stem, nn.Module) and callable(body) and isinstance(head, nn.Module)):
        return None

    def body_and_head(hidden: Tensor, *conditions: Tensor) -> Tensor:
        values: Tensor = head(body(hidden, *conditions))
        return values

    try:
        first = as_stem(stem, example)
        latents = Factors(first, body, None).latents(first(example.flatten(1)), conditions)
        matrix = as_matrix(head, latents)
    except Exception:  # noqa: BLE001 - a caller's modules of these names may be anything
        return None
    if matrix is None:
        return Factors(first, body if type(head) is nn.Identity else body_and_head, None)
    return Factors(first, body, (matrix.weight, matrix.bias))


@dataclass
class _Probe:
    """Some inputs, and what the model makes of them: parts must do the same.

    Attributes
    ----------
    inputs : Tensor of shape (n, n_inputs)
    conditions : Tensor of shape (n, ...) or None
    outputs : Tensor of shape (n, n_outputs)
    gradients : Tensor of shape (n, n_inputs) or None
        Of the outputs weighted by ``weights``.
    weights : Tensor of shape (n, n_outputs)
    n_data : int
        The first so many rows are data, which may lie on kinks (images on black), where
        gradients are a choice: there they count as zero.
    """

    inputs: Tensor
    conditions: Tensor | None
    outputs: Tensor
    gradients: Tensor | None
    weights: Tensor
    n_data: int


def _probe(model: nn.Module, example: Tensor, conditions: Tensor | None) -> list[_Probe] | None:
    """Run the model on the example with more rows around it, and on one; None if not finite."""
    n = len(example)
    flat = example.flatten(1)
    # Points between the samples, beyond them, and beside them.
    mixing = _noise(n + 3, n, like=flat)
    mixing += (1 - mixing.sum(1, keepdim=True)) / n
    around = mixing @ flat + 0.1 * _reach(flat) * _noise(n + 3, flat.shape[1], like=flat)
    try:
        probes = [_run(model, example, conditions, torch.cat([flat, around]))]
    except Exception:  # noqa: BLE001 - a caller's model may take no such input
        return None
    with suppress(Exception):  # nor a single row
        probes.append(_run(model, example, conditions, flat[:1]))
    finite = (t.isfinite().all() for p in probes for t in (p.outputs, p.gradients) if t is not None)
    return probes if all(map(bool, finite)) else None


def _run(model: nn.Module, example: Tensor, conditions: Tensor | None, rows: Tensor) -> _Probe:
    """Run the model forwards and, if that goes, backwards."""
    chosen = torch.arange(len(rows), device=rows.device) % len(example)
    beside = None if conditions is None else conditions[chosen.to(conditions.device)]
    arguments = () if beside is None else (beside,)
    leaf = rows.clone().requires_grad_(True)
    with torch.enable_grad():
        # A first layer that works in place may not touch a leaf.
        values: Tensor = model(leaf.clone().reshape(-1, *example.shape[1:]), *arguments)
        values = values.reshape(len(rows), -1)
        weights = _noise(*values.shape, like=values)
        gradients = None
        if len(rows) > len(example) and values.requires_grad:
            (gradients,) = torch.autograd.grad(
                (values * weights).sum(), leaf, allow_unused=True, materialize_grads=True
            )
            gradients[: len(example)] = 0
    n_data = min(len(rows), len(example))
    return _Probe(rows, beside, values.detach(), gradients, weights, n_data)


def _holds(factors: Factors, probes: list[_Probe]) -> bool:
    """Check that the parts are the model and that the stem is affine."""
    try:
        return _is_affine(factors.stem, probes[0].inputs[: probes[0].n_data]) and all(
            _agree(factors, probe) for probe in probes
        )
    except Exception:  # noqa: BLE001 - parts that do not even run are not the model
        return False


def _agree(factors: Factors, probe: _Probe) -> bool:
    """Check the parts' outputs and gradients."""
    hidden = factors.stem(probe.inputs)
    if hidden.shape != (len(probe.inputs), factors.stem.n_hidden):
        return False
    if not _close(factors.outputs(hidden, probe.conditions), probe.outputs):
        return False
    if probe.gradients is None:
        return True
    leaf = hidden.detach().requires_grad_(True)
    with torch.enable_grad():
        weighted = (factors.outputs(leaf, probe.conditions) * probe.weights).sum()
        (slopes,) = torch.autograd.grad(weighted, leaf, allow_unused=True, materialize_grads=True)
    slopes[: probe.n_data] = 0
    error = (factors.stem.pull(slopes) - probe.gradients).norm()
    # Rounding may put a few units on the other side of a kink; detached tensors and hooks on
    # gradients change far more.
    tolerance = 1e-6 if hidden.dtype == torch.float64 else 0.02
    return bool(error <= tolerance * probe.gradients.norm())


def _is_affine(stem: Stem, flat: Tensor) -> bool:
    """Check that lines stay lines behind the stem, near and far, and that it is transposed."""
    if isinstance(stem, DenseStem) or type(stem) is IdentityStem:
        # A matrix cannot be anything else.
        return True
    reach = _reach(flat)
    for scale in _SCALES:
        first, second = (
            flat + scale * reach * _noise(*flat.shape, like=flat, seed=seed) for seed in (1, 2)
        )
        t = 1.5 * _noise(len(flat), 1, like=flat, seed=3)
        ends = stem(first), stem(second)
        if not _close(stem(t * first + (1 - t) * second), t * ends[0] + (1 - t) * ends[1]):
            return False
        # <W x, g> = <x, W^T g>.
        moved, step = ends[0] - ends[1], first - second
        g = _noise(*moved.shape, like=flat, seed=4)
        pulled = stem.pull(g)
        error = ((moved * g).sum(1) - (step * pulled).sum(1)).abs()
        most = moved.norm(dim=1) * g.norm(dim=1) + step.norm(dim=1) * pulled.norm(dim=1)
        if not bool((error <= _tolerance(flat) * most).all()):
            return False
    return True


def _reach(flat: Tensor) -> float:
    """Return the largest number in the data, 1 if there are only zeros."""
    return float(flat.abs().max()) or 1.0


def _noise(*shape: int, like: Tensor, seed: int = 0) -> Tensor:
    """Return normal numbers that are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)


def _close(a: Tensor, b: Tensor) -> bool:
    """Compare relative to the largest entry, as rounding is; NaN and infinities are not close."""
    scale = max(float(b.abs().max()), torch.finfo(b.dtype).tiny)
    return a.shape == b.shape and bool((a - b).abs().max() <= _tolerance(b) * scale)


def _tolerance(like: Tensor) -> float:
    return 1e-9 if like.dtype == torch.float64 else 1e-4
