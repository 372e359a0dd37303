import numpy as np
import pytest
import torch
from attribution_models import Conditioned, cnn, keys_of, make_targets, mlp, predict, shake
from torch import nn

from neuroigc.attribution import (
    GivenBaseline,
    MeanBaseline,
    SampledBaseline,
    ZeroBaseline,
    estimate,
    integrated_gradient_correlation,
)
from neuroigc.attribution.baselines import baseline_bank
from neuroigc.attribution.samples import Samples

MANY = dict(tolerance=1e-9, max_gradients=300)


def brute_force(model, x, y, bank, conditions=None):
    """Return IGC against fixed baselines, by 32 Gauss-Legendre nodes; for one stratum or many."""
    n, labels = len(x), np.zeros(len(x), int) if conditions is None else conditions
    f, c = predict(model, x, conditions), y.astype(float).copy()
    for label in np.unique(labels):
        f[labels == label] -= f[labels == label].mean(0)
        c[labels == label] -= c[labels == label].mean(0)
    nodes, weights = np.polynomial.legendre.leggauss(32)
    maps = np.zeros((y.shape[1], *x.shape[1:]))
    for b in bank:
        for t, w in zip((nodes + 1) / 2, weights / 2, strict=True):
            points = torch.from_numpy(b + t * (x - b)).requires_grad_()
            beside = () if conditions is None else (torch.from_numpy(conditions),)
            out = model(points, *beside).reshape(n, -1)
            for v in range(y.shape[1]):
                (g,) = torch.autograd.grad(out[:, v].sum(), points, retain_graph=True)
                product = np.einsum("n,n...->...", c[:, v], (x - b) * g.numpy())
                maps[v] += w * product / (n * len(bank))
    return maps / (f.std(0) * c.std(0)).reshape(-1, *(1,) * (x.ndim - 1))


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("kind", ["sampled", "given", "one given", "mean", "zero"])
def test_every_baseline_meets_brute_force_and_is_complete(rng, kind):
    x = rng.standard_normal((60, 6)) + 0.5
    model = mlp().double()
    y = make_targets(model, x, rng)
    given = rng.standard_normal((4, 6))
    baseline, bank = {
        "sampled": (SampledBaseline(5), None),
        "given": (GivenBaseline(given), given),
        "one given": (GivenBaseline(given[0]), given[:1]),
        "mean": (MeanBaseline(), x.mean(0, keepdims=True)),
        "zero": (ZeroBaseline(), np.zeros((1, 6))),
    }[kind]
    if bank is None:
        samples = Samples(x, torch.device("cpu"), torch.float64)
        bank = baseline_bank(baseline, samples, 0, keys_of(x, y)).numpy()
        assert all((x == b).all(1).any() for b in bank)
    result = integrated_gradient_correlation(model, x, y, baseline=baseline, **MANY)
    assert relative(result.attributions, brute_force(model, x, y, bank)) < 0.01
    assert np.abs(result.completeness_gap).max() < 0.005
    np.testing.assert_allclose(
        result.correlation,
        [np.corrcoef(predict(model, x)[:, v], y[:, v])[0, 1] for v in range(2)],
    )
    assert result.settings["baseline"] == type(baseline).__name__


def test_conditions_with_fixed_baselines(rng):
    x, conditions = rng.standard_normal((60, 5)), np.arange(60) % 3
    model = shake(Conditioned()).double()
    y = make_targets(model, x, rng, conditions) + conditions[:, None]
    result = integrated_gradient_correlation(
        model, x, y, baseline=ZeroBaseline(), conditions=conditions, **MANY
    )
    truth = brute_force(model, x, y, np.zeros((1, 5)), conditions)
    assert relative(result.attributions, truth) < 0.01
    assert np.abs(result.completeness_gap).max() < 0.005


@pytest.mark.parametrize("held", [True, False])
def test_both_regimes_agree_and_blocks_too(rng, monkeypatch, held):
    model, x = cnn(n_outputs=8, n_latents=3).double(), rng.standard_normal((40, 1, 8, 8))
    y = make_targets(model, x, rng)
    if not held:
        monkeypatch.setattr(estimate, "HELD_BYTES", 0)
        monkeypatch.setattr(estimate, "BLOCK_BYTES", 0)
    options = dict(baseline=SampledBaseline(6), pool=2, tolerance=1e-9, max_gradients=5)
    # Where targets are permuted, all pairs are taken, in either regime the same.
    options["n_permutations"] = 1
    many = integrated_gradient_correlation(model, x, y, **options)
    few = integrated_gradient_correlation(model, x, y, outputs=[1, 4], **options)
    assert many.settings["regime"] == "LatentEngine"
    assert few.settings["regime"] == "CotangentEngine"
    np.testing.assert_allclose(few.attributions, many.attributions[[1, 4]], atol=1e-12)
    assert relative(few.standard_errors, many.standard_errors[[1, 4]]) < 0.1
    np.testing.assert_allclose(few.numerical_error, many.numerical_error[[1, 4]])


def test_standard_errors_against_a_fixed_baseline(rng):
    model, mixing = mlp().double(), rng.standard_normal((6, 6))
    results = []
    for seed in range(50):
        x = rng.standard_normal((150, 6)) @ mixing + 1
        f = predict(model, x)
        y = np.tanh(f) + rng.standard_normal(f.shape)
        results.append(
            integrated_gradient_correlation(
                model, x, y, baseline=ZeroBaseline(), seed=seed, tolerance=1e-9, max_gradients=33
            )
        )
    spread = np.std([r.attributions for r in results], axis=0, ddof=1)
    said = np.sqrt(np.mean([r.standard_errors**2 for r in results], axis=0))
    assert 0.85 < np.median(said / spread) < 1.18


@pytest.mark.parametrize("conditions", [None, np.arange(300) % 2], ids=["one", "conditions"])
@pytest.mark.parametrize("regime", ["CotangentEngine", "LatentEngine"])
def test_standard_errors_against_a_baseline_far_away(rng, conditions, regime):
    """Those of single components, by other means than those of groups of one component each."""
    outputs = [3] if regime == "CotangentEngine" else None
    model = mlp(n_outputs=8, activation=nn.Mish, width=5).double()
    x = rng.standard_normal((300, 6)) + 10.0
    x += 0.0 if conditions is None else 10.0 * conditions[:, None]
    f = predict(model, x)
    y = f + f.std(0) * rng.standard_normal(f.shape)
    result = integrated_gradient_correlation(
        model if conditions is None else Beside(model), x, y, conditions=conditions,
        baseline=ZeroBaseline(), groups={str(k): [k] for k in range(6)}, outputs=outputs,
        tolerance=1e-9, max_gradients=129,
    )  # fmt: skip
    assert result.settings["regime"] == regime
    ratio = result.standard_errors / result.group_standard_errors
    assert 0.85 < np.median(ratio) < 1.18
    assert ratio.max() < 2


class Beside(nn.Module):
    """A model that conditions do not change."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, conditions):  # noqa: ARG002
        return self.model(x)


def test_sampled_baselines_are_a_function_of_the_seed():
    samples = Samples(np.arange(40.0).reshape(20, 2), torch.device("cpu"), torch.float64)
    one, again, other = (baseline_bank(SampledBaseline(7), samples, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len(torch.unique(one, dim=0)) == 7
