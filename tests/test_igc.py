import json
import math

import numpy as np
import pytest
import torch
from attribution_models import (
    Conditioned,
    Quadratic,
    cnn,
    drawn,
    keys_of,
    make_targets,
    mlp,
    predict,
    shake,
)
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    GivenBaseline,
    IGCResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    estimate,
    gradients,
    igc,
    integrated_gradient_correlation,
)
from neuroigc.attribution.engine import Settings
from neuroigc.attribution.problem import prepare
from neuroigc.attribution.reference import reference_igc_of_pairs
from neuroigc.models.networks import DecoderNetwork, EncoderNetwork

ENOUGH = dict(max_gradients=9, tolerance=1e-9)


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


def brute_force(model, x, y, conditions=None, strata=None):
    """Return IGC over all pairs with 64 Gauss-Legendre nodes."""
    n = len(x)
    strata = np.zeros(n, int) if strata is None else strata
    counts = np.bincount(strata)[strata]
    i, j = np.nonzero(strata[:, None] == strata)
    weight = 1 / (n * counts[i])
    nodes, weights = np.polynomial.legendre.leggauss(64)
    x_t, c = torch.from_numpy(x), None if conditions is None else torch.from_numpy(conditions)
    f, t = predict(model, x, conditions), y.copy()
    for s in np.unique(strata):
        f[strata == s] -= f[strata == s].mean(0)
        t[strata == s] -= t[strata == s].mean(0)
    maps = np.zeros((y.shape[1], *x.shape[1:]))
    for node, w in zip((nodes + 1) / 2, weights / 2, strict=True):
        points = (x_t[j] + node * (x_t[i] - x_t[j])).requires_grad_()
        out = model(points) if c is None else model(points, c[i])
        for v in range(y.shape[1]):
            total = out.reshape(len(out), -1)[:, v].sum()
            (g,) = torch.autograd.grad(total, points, retain_graph=True)
            factor = weight * w / 2 * (t[i, v] - t[j, v])
            maps[v] += np.einsum("p,p...->...", factor, ((x[i] - x[j]) * g.numpy()))
    return maps / (f.std(0) * t.std(0)).reshape(-1, *(1,) * (x.ndim - 1))


# Closed forms.


def test_linear_model_is_exact_with_exact_standard_errors(rng):
    n = 101
    x = rng.standard_normal((n, 5)) @ rng.standard_normal((5, 5))
    y = x[:, :2] + rng.standard_normal((n, 2))
    model = nn.Linear(5, 2).double()
    result = integrated_gradient_correlation(model, x, y)
    w, f = model.weight.detach().numpy(), predict(model, x)
    z, xc = (y - y.mean(0)) / y.std(0), x - x.mean(0)
    expected = w * (z.T @ xc / n) / f.std(0)[:, None]
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)
    assert np.abs(result.completeness_gap).max() < 1e-12
    assert np.abs(result.numerical_error).max() < 1e-12
    np.testing.assert_allclose(
        result.correlation, [np.corrcoef(f[:, v], y[:, v])[0, 1] for v in range(2)]
    )
    # A weighted correlation coefficient has a known influence function.
    zf = (f - f.mean(0)) / f.std(0)
    for v in range(2):
        influence = z[:, [v]] * xc * w[v] / f.std(0)[v] - expected[v]
        influence -= expected[v] * ((zf[:, [v]] ** 2 + z[:, [v]] ** 2) / 2 - 1)
        error = influence.std(0, ddof=1) / np.sqrt(n)
        np.testing.assert_allclose(result.standard_errors[v], error, rtol=1e-10)


@pytest.mark.parametrize("baseline", ["paired", "zero"])
def test_quadratic_model_is_exact(rng, baseline):
    a = rng.standard_normal((4, 4))
    a = a + a.T
    x, y = rng.standard_normal((60, 4)), rng.standard_normal(60)
    f = predict(Quadratic(a), x)[:, 0]
    if baseline == "paired":
        differences, middles = x[:, None] - x[None], (x[:, None] + x[None]) / 2
        products = (y[:, None] - y[None])[..., None] * differences * (middles @ a)
        covariance = products.mean((0, 1)) / 2
        result = integrated_gradient_correlation(Quadratic(a), x, y)
    else:
        covariance = ((y - y.mean())[:, None] * x * (x @ a / 2)).mean(0)
        result = integrated_gradient_correlation(Quadratic(a), x, y, baseline=ZeroBaseline())
    np.testing.assert_allclose(result.attributions[0], covariance / (f.std() * y.std()), atol=1e-12)
    assert abs(result.completeness_gap[0]) < 1e-12


# The oracle.


def test_equals_the_reference_at_the_same_pairs_and_points(rng):
    x = rng.standard_normal((14, 6))
    model = mlp().double()
    y = make_targets(model, x, rng)
    result = integrated_gradient_correlation(model, x, y, seed=3, **ENOUGH)
    # About every other pair takes a gradient.
    n_rounds = result.settings["n_rounds"]
    assert 14 < n_rounds < 20
    assert result.n_gradients == 9
    sample = drawn(keys_of(x, y), n_rounds=(n_rounds,), seed=3, y=y)
    expected = reference_igc_of_pairs(model, x, y, **sample)
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)


def test_equals_the_reference_in_single_precision(rng):
    x = rng.standard_normal((14, 6)).astype("f4")
    model = mlp()
    y = make_targets(model, x, rng)
    result = integrated_gradient_correlation(model, x, y, **ENOUGH)
    sample = drawn(keys_of(x, y), n_rounds=(result.settings["n_rounds"],), y=y)
    expected = reference_igc_of_pairs(model, x, y, **sample)
    assert result.attributions.dtype == np.float32
    assert relative(result.attributions, expected) < 1e-5


def test_equals_the_reference_within_conditions_with_nothing_to_peel(rng):
    x, conditions = rng.standard_normal((15, 5)), rng.permutation(np.arange(15) % 3)
    model = shake(Conditioned()).double()
    y = make_targets(model, x, rng, conditions)
    result = integrated_gradient_correlation(model, x, y, conditions=conditions, **ENOUGH)
    n_rounds = (result.settings["n_rounds"],)
    sample = drawn(keys_of(x, y, conditions), conditions, n_rounds=n_rounds, y=y)
    expected = reference_igc_of_pairs(
        model, x, y, conditions=conditions, strata=conditions, **sample
    )
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)
    assert result.settings["n_strata"] == 3


def test_equals_the_reference_with_many_outputs_and_blocks(rng, monkeypatch):
    x = rng.standard_normal((20, 1, 8, 8))
    model = cnn(n_outputs=7, n_latents=3).double()
    y = make_targets(model, x, rng)
    monkeypatch.setattr(estimate, "HELD_BYTES", 0)
    monkeypatch.setattr(estimate, "BLOCK_BYTES", 0)
    monkeypatch.setattr(estimate, "SMALLEST_BLOCK", 7)
    # Three rounds, all there are in such blocks, then two more, each with gradients at the samples.
    result = integrated_gradient_correlation(model, x, y, max_gradients=7, tolerance=1e-9)
    assert (result.settings["n_rounds"], result.n_gradients) == (5, 7)
    expected = reference_igc_of_pairs(
        model, x, y, **drawn(keys_of(x, y), n_rounds=(3, 2), max_size=7)
    )
    assert result.settings["regime"] == "LatentEngine"
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)


# The estimate and its errors.


def decoder(n_conditions=0):
    return shake(DecoderNetwork(30, 2, hidden=(16,) * 5, n_conditions=n_conditions)).double()


@pytest.mark.parametrize("activation", [nn.Mish, nn.ReLU])
def test_meets_the_tolerance_against_all_pairs(rng, activation):
    x = rng.standard_normal((120, 30))
    model = mlp(30, 2, activation, width=24).double()
    y = make_targets(model, x, rng)
    truth = brute_force(model, x, y)
    for tolerance in (0.05, 0.02):
        result = integrated_gradient_correlation(model, x, y, tolerance=tolerance)
        assert result.numerical_error.max() <= tolerance
        assert np.abs(result.completeness_gap).max() <= tolerance / 5
        for v in range(2):
            assert relative(result.attributions[v], truth[v]) < 1.6 * tolerance


def test_within_conditions_meets_brute_force(rng):
    x, conditions = rng.standard_normal((90, 30)), rng.integers(0, 3, 90)
    model = decoder(n_conditions=3)
    y = make_targets(model, x, rng, conditions) + 3 * conditions[:, None]
    truth = brute_force(model, x, y, conditions, conditions)
    options = dict(conditions=conditions, tolerance=1e-9, max_gradients=200)
    result = integrated_gradient_correlation(model, x, y, **options)
    assert relative(result.attributions, truth) < 0.02
    # What conditions differ by is no part of the correlation.
    assert np.abs(result.completeness_gap).max() < 0.01
    labels = np.array(["a", "b", "c"])[conditions]
    again = integrated_gradient_correlation(
        model, x, y, baseline=PairedBaseline(within=labels), **options
    )
    np.testing.assert_array_equal(again.attributions, result.attributions)


def test_numerical_error_is_the_error_made(rng):
    x = rng.standard_normal((200, 30))
    model = decoder()
    y = make_targets(model, x, rng)
    truth = integrated_gradient_correlation(model, x, y, tolerance=1e-9, max_gradients=400)
    made, said = [], []
    for seed in range(12):
        result = integrated_gradient_correlation(model, x, y, seed=seed, **ENOUGH)
        error = result.attributions - truth.attributions
        made.append((error**2).sum(1) / (truth.attributions**2).sum(1))
        said.append(result.numerical_error**2)
    assert np.all(np.sqrt(np.mean(made, 0) / np.mean(said, 0)) > 0.7)
    assert np.all(np.sqrt(np.mean(made, 0) / np.mean(said, 0)) < 1.4)


# A good part of all pairs, each of them once, and several times.
@pytest.mark.parametrize("most", [5, 8, 97])
def test_numerical_error_knows_how_many_pairs_are_left(rng, most):
    x = rng.standard_normal((16, 6))
    model = mlp().double()
    y = make_targets(model, x, rng)
    truth, made, said = brute_force(model, x, y), [], []
    for seed in range(24):
        result = integrated_gradient_correlation(
            model, x, y, seed=seed, tolerance=1e-9, max_gradients=most
        )
        made.append(((result.attributions - truth) ** 2).sum(1) / (truth**2).sum(1))
        said.append(result.numerical_error**2)
    ratio = np.sqrt(np.mean(made, 0) / np.mean(said, 0))
    assert np.all((ratio > 0.7) & (ratio < 1.4))


def test_estimate_is_unbiased(rng):
    x = rng.standard_normal((24, 6))
    model = mlp(activation=nn.ReLU).double()
    y = make_targets(model, x, rng)
    truth = brute_force(model, x, y)
    maps = [
        integrated_gradient_correlation(
            model, x, y, seed=seed, max_gradients=5, tolerance=1e-9
        ).attributions
        for seed in range(200)
    ]
    z = (np.mean(maps, 0) - truth) / (np.std(maps, 0) / np.sqrt(200))
    assert np.sqrt(np.mean(z**2)) < 1.6


@pytest.mark.parametrize("many_outputs", [False, True])
def test_standard_errors_are_the_spread_over_samples(rng, many_outputs):
    model = mlp(6, 8, width=5).double()
    outputs = None if many_outputs else [0, 1]
    groups = {"first": [0, 1, 2], "rest": [3, 4, 5], "all": np.ones(6, bool)}
    mixing = rng.standard_normal((6, 6))
    results = []
    for seed in range(50):
        x = rng.standard_normal((150, 6)) @ mixing
        f = predict(model, x)
        y = np.tanh(f) + rng.standard_normal(f.shape)
        results.append(
            integrated_gradient_correlation(
                model,
                x,
                y,
                groups=groups,
                outputs=outputs,
                seed=seed,
                tolerance=1e-9,
                max_gradients=64,
            )
        )
    for values, errors in (
        ("attributions", "standard_errors"),
        ("group_values", "group_standard_errors"),
    ):
        spread = np.std([getattr(r, values) for r in results], axis=0, ddof=1)
        said = np.sqrt(np.mean([getattr(r, errors) ** 2 for r in results], axis=0))
        ratio = said / spread
        assert 0.85 < np.median(ratio) < 1.18
        assert np.all((ratio > 0.65) & (ratio < 1.5))
    regime = "LatentEngine" if many_outputs else "CotangentEngine"
    assert results[0].settings["regime"] == regime


class Square(nn.Module):
    def forward(self, x):
        return x**2


@pytest.mark.parametrize("n_outputs", [2, 5])
def test_standard_errors_are_those_of_a_u_statistic(rng, n_outputs):
    # Quadratic, so that one midpoint is the whole path, and baselines matter to first order.
    n = 30
    model = shake(nn.Sequential(nn.Linear(4, 3), Square(), nn.Linear(3, n_outputs))).double()
    x = rng.standard_normal((n, 4)) @ rng.standard_normal((4, 4))
    y = make_targets(model, x, rng)
    groups = {"pair": [0, 2]}
    result = integrated_gradient_correlation(model, x, y, groups=groups, **ENOUGH)
    regime = "LatentEngine" if n_outputs == 5 else "CotangentEngine"
    assert result.settings["regime"] == regime
    middles = torch.from_numpy((x[:, None] + x) / 2).reshape(-1, 4).requires_grad_()
    f = predict(model, x)
    for v in range(n_outputs):
        (slopes,) = torch.autograd.grad(model(middles)[:, v].sum(), middles)
        ig = (x[:, None] - x) * slopes.numpy().reshape(n, n, 4)
        kernel = (y[:, None, v] - y[:, v])[..., None] * ig / (f[:, v].std() * y[:, v].std())
        kernel = np.concatenate([kernel, kernel[..., [0, 2]].sum(-1, keepdims=True)], -1)
        values = kernel.mean((0, 1)) / 2
        influence = kernel.mean(1) - 2 * values
        z = [(a[:, v] - a[:, v].mean()) / a[:, v].std() for a in (f, y)]
        influence -= np.outer((z[0] ** 2 + z[1] ** 2) / 2 - 1, values)
        errors = influence.std(0, ddof=1) / np.sqrt(n)
        np.testing.assert_allclose(result.attributions[v], values[:-1], atol=1e-12)
        np.testing.assert_allclose(result.standard_errors[v], errors[:-1], rtol=1e-8)
        np.testing.assert_allclose(result.group_standard_errors[v], errors[-1], rtol=1e-8)


class Tanh(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        return torch.tanh(self.gain * x)


class TanhSum(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x):
        return torch.tanh(self.gain * x).sum(1, keepdim=True)


def steep(n_outputs):
    layers = [nn.Linear(6, 8), Tanh(2.0), nn.Linear(8, n_outputs)]
    return shake(nn.Sequential(*layers)).double()


@pytest.mark.parametrize(
    ("baseline", "max_gradients"),
    [
        (PairedBaseline(), 257),
        (ZeroBaseline(), 65),
        (MeanBaseline(), 65),
        (GivenBaseline(np.outer([-2.0, 0.5], np.ones(6))), 129),
        (SampledBaseline(8), 129),
    ],
)
@pytest.mark.parametrize(
    ("kind", "cut"), [("sum", False), ("few", False), ("few", True), ("many", False)]
)
def test_all_inputs_together_have_the_standard_error_of_the_correlation(
    rng, monkeypatch, baseline, max_gradients, kind, cut
):
    model = {"sum": TanhSum(), "few": steep(2), "many": steep(12)}[kind]
    n = 47 if kind == "many" else 500
    if cut:
        # Parts of the samples, each of fewer pairs.
        monkeypatch.setattr(estimate, "HELD_BYTES", 0)
        monkeypatch.setattr(estimate, "LARGEST_BLOCK", 250)
    x = rng.standard_normal((n, 6)) + 0.3
    f = predict(model, x)
    y = f + 0.7 * f.std(0) * rng.standard_normal(f.shape)
    result = integrated_gradient_correlation(
        model, x, y, baseline=baseline, groups={"all": np.ones(6, bool)},
        tolerance=1e-9, max_gradients=max_gradients,
    )  # fmt: skip
    assert result.settings["regime"] == ("LatentEngine" if kind == "many" else "CotangentEngine")
    zf, zy = ((a - a.mean(0)) / a.std(0) for a in (f, y))
    r = (zf * zy).mean(0)
    expected = (zf * zy - r * (zf**2 + zy**2) / 2).std(0, ddof=1) / np.sqrt(n)
    ratio = result.group_standard_errors[:, 0] / expected
    if kind == "many":
        # A few random groups of samples leave a scatter over outputs.
        ratio = np.median(ratio)
    # Parts are taken up anew with few pairs each, whose noise is known less well.
    bound = 0.15 if cut else 0.07
    assert np.all(np.abs(ratio - 1) < bound)


@pytest.mark.parametrize("n_outputs", [2, 12])
def test_standard_errors_of_groups_are_those_of_a_u_statistic_of_whole_paths(rng, n_outputs):
    n, model = 32, steep(n_outputs)
    x = rng.standard_normal((n, 6)) + 0.3
    f = predict(model, x)
    y = f + 0.7 * f.std(0) * rng.standard_normal(f.shape)
    groups = {"some": [0, 2], "others": [1, 3, 4], "one": [5]}
    result = integrated_gradient_correlation(
        model, x, y, groups=groups, tolerance=1e-9, max_gradients=513
    )
    nodes, weights = np.polynomial.legendre.leggauss(40)
    z = [(a - a.mean(0)) / a.std(0) for a in (f, y)]
    ratios = []
    for v in range(n_outputs):
        ig = np.zeros((n, n, 6))
        for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            points = torch.from_numpy(x + t * (x[:, None] - x)).reshape(-1, 6).requires_grad_()
            (slopes,) = torch.autograd.grad(model(points)[:, v].sum(), points)
            ig += weight * (x[:, None] - x) * slopes.numpy().reshape(n, n, 6)
        ig = np.stack([ig[..., members].sum(-1) for members in groups.values()], -1)
        kernel = (y[:, None, v] - y[:, v])[..., None] * ig / (f[:, v].std() * y[:, v].std())
        values = kernel.mean((0, 1)) / 2
        influence = kernel.mean(1) - 2 * values
        influence -= np.outer((z[0][:, v] ** 2 + z[1][:, v] ** 2) / 2 - 1, values)
        ratios.append(result.group_standard_errors[v] / (influence.std(0, ddof=1) / np.sqrt(n)))
    # With many outputs, what partners do by trapezoids comes from some of the samples.
    np.testing.assert_allclose(ratios, 1, atol=0.03 if n_outputs == 2 else 0.1)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("n_outputs", [3, 9])
def test_probe_is_the_map_on_some_components(rng, monkeypatch, held, n_outputs):
    if not held:
        monkeypatch.setattr(estimate, "HELD_BYTES", 0)
        monkeypatch.setattr(estimate, "BLOCK_BYTES", 0)
    model, x = small_encoder(n_outputs), rng.standard_normal((50, 8, 8))
    y = make_targets(model, x, rng)
    with gradients.borrow(model, torch.device("cpu")):
        problem = prepare(
            model, x, y, baseline=PairedBaseline(), conditions=None, groups={"g": [0]},
            outputs=None, pool=2, device=torch.device("cpu"), seed=0, progress=False,
        )  # fmt: skip
        engine = type(igc.choose_engine(problem, Settings()))(problem, Settings(n_probe=5))
        found = estimate.Estimator(
            engine, tolerance=1e-9, max_gradients=12, checkpoint=None, identity="", progress=False
        ).run()
        whole, probed = found.sums["map"], found.sums["probe"]
    assert probed.shape == (n_outputs, 6)
    torch.testing.assert_close(probed[:, :-1], whole[:, engine.probe_columns])
    torch.testing.assert_close(probed[:, -1], whole[:, :16].sum(1))


# Cutting.


def small_encoder(n_outputs=9):
    model = EncoderNetwork(8, n_outputs, channels=(2, 2, 3, 3, 3), n_latents=4)
    return shake(model).double()


@pytest.mark.parametrize(("double", "bound"), [(True, 1e-10), (False, 1e-5)])
@pytest.mark.parametrize("model", [decoder, small_encoder])
def test_batch_size_changes_nothing(rng, model, double, bound):
    model = model() if double else model().float()
    shape = (8, 8) if isinstance(model, EncoderNetwork) else (30,)
    x = rng.standard_normal((40, *shape))
    y = make_targets(model, x, rng)
    whole = integrated_gradient_correlation(model, x, y, **ENOUGH)
    for batch_size in (1, 7, 64):
        cut = integrated_gradient_correlation(model, x, y, batch_size=batch_size, **ENOUGH)
        assert relative(cut.attributions, whole.attributions) < bound
        assert relative(cut.standard_errors, whole.standard_errors) < 100 * bound


def test_seeds_differ_and_repeat(rng):
    x = rng.standard_normal((50, 30))
    model = decoder()
    y = make_targets(model, x, rng)
    one, again, other = (
        integrated_gradient_correlation(model, x, y, seed=seed, **ENOUGH).attributions
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert relative(other, one) > 1e-6


def test_order_of_samples_matters_no_more_than_the_numerical_error(rng):
    x = rng.standard_normal((80, 30))
    model = decoder()
    y = make_targets(model, x, rng)
    order = rng.permutation(80)
    one = integrated_gradient_correlation(model, x, y, tolerance=0.01)
    other = integrated_gradient_correlation(model, x[order], y[order], tolerance=0.01)
    assert relative(other.attributions, one.attributions) < 0.03


def test_blocks_and_whole_strata_agree(rng, monkeypatch):
    x, conditions = rng.standard_normal((120, 30)), np.arange(120) % 2
    model = decoder(n_conditions=2)
    y = make_targets(model, x, rng, conditions)
    options = dict(conditions=conditions, groups={"g": np.arange(10)})
    options |= dict(tolerance=1e-9, max_gradients=200)
    whole = integrated_gradient_correlation(model, x, y, **options)
    monkeypatch.setattr(estimate, "HELD_BYTES", 0)
    monkeypatch.setattr(estimate, "BLOCK_BYTES", 0)
    blocks = integrated_gradient_correlation(model, x, y, **options)
    assert relative(blocks.attributions, whole.attributions) < 0.02
    assert relative(blocks.standard_errors, whole.standard_errors) < 0.1
    assert relative(blocks.group_standard_errors, whole.group_standard_errors) < 0.3


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("model", [decoder, small_encoder])
def test_killed_and_resumed_is_as_if_never_stopped(rng, monkeypatch, tmp_path, held, model):
    model = model()
    shape = (8, 8) if isinstance(model, EncoderNetwork) else (30,)
    x = rng.standard_normal((40, *shape))
    y = make_targets(model, x, rng)
    if not held:
        monkeypatch.setattr(estimate, "HELD_BYTES", 0)
        monkeypatch.setattr(estimate, "BLOCK_BYTES", 0)
    monkeypatch.setattr(estimate, "SECONDS_BETWEEN_SAVES", 0)
    options = dict(tolerance=1e-9, max_gradients=40, groups={"g": [1, 2, 5]})
    whole = integrated_gradient_correlation(model, x, y, **options)
    path, save, saves = tmp_path / "sums.npz", estimate.save_state, []

    def save_and_die(*arguments):
        save(*arguments)
        saves.append(arguments)
        if len(saves) in (1, 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(estimate, "save_state", save_and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            integrated_gradient_correlation(model, x, y, checkpoint=path, **options)
    resumed = integrated_gradient_correlation(model, x, y, checkpoint=path, **options)
    assert resumed.n_gradients == whole.n_gradients
    np.testing.assert_array_equal(resumed.attributions, whole.attributions)
    np.testing.assert_array_equal(resumed.standard_errors, whole.standard_errors)
    np.testing.assert_array_equal(resumed.group_standard_errors, whole.group_standard_errors)
    np.testing.assert_array_equal(resumed.numerical_error, whole.numerical_error)


def test_checkpoint_of_something_else_is_refused(rng, tmp_path):
    x, path = rng.standard_normal((40, 30)), tmp_path / "sums.npz"
    model = decoder()
    y = make_targets(model, x, rng)
    integrated_gradient_correlation(model, x, y, checkpoint=path, **ENOUGH)
    with pytest.raises(InputError, match=r"checkpoint: expected sums of this very analysis"):
        integrated_gradient_correlation(model, x, y + x[:, :2], checkpoint=path, **ENOUGH)
    path.write_bytes(b"no sums")
    with pytest.raises(InputError, match=r"checkpoint: expected sums saved by neuroigc"):
        integrated_gradient_correlation(model, x, y, checkpoint=path, **ENOUGH)


# Invariances.


def test_same_function_in_other_layers_has_the_same_map(rng):
    x = rng.standard_normal((40, 6))
    model = mlp().double()
    y = make_targets(model, x, rng)
    one = integrated_gradient_correlation(model, x, y, **ENOUGH)

    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x.clone())

    split = nn.Sequential(nn.Linear(6, 6, bias=False).double(), *model)
    square = torch.linalg.inv(split[0].weight.detach())
    first = nn.Linear(6, 16).double()
    with torch.no_grad():
        first.weight.copy_(model[0].weight @ square)
        first.bias.copy_(model[0].bias)
    split[1] = first
    for other in (Opaque(), split):
        again = integrated_gradient_correlation(other.eval(), x, y, **ENOUGH)
        np.testing.assert_allclose(again.attributions, one.attributions, atol=1e-12)
        np.testing.assert_allclose(again.standard_errors, one.standard_errors, atol=1e-12)


def test_covariance_is_linear_in_the_model(rng):
    class Sum(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.a, self.b = a, b

        def forward(self, x):
            return 2 * self.a(x) - 3 * self.b(x)

    x, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 2))
    a, b = mlp().double(), shake(mlp(), seed=5).double()

    def covariance(model):
        result = integrated_gradient_correlation(model, x, y, **ENOUGH)
        return result.attributions * predict(model, x).std(0)[:, None]

    expected = 2 * covariance(a) - 3 * covariance(b)
    np.testing.assert_allclose(covariance(Sum(a, b)), expected, atol=1e-11)


def test_dead_inputs_are_exactly_zero_and_symmetric_ones_equal(rng):
    x = rng.standard_normal((40, 6)).astype("f4")
    model = mlp()
    with torch.no_grad():
        model[0].weight[:, 4] = 0
        model[0].weight[:, 3] = model[0].weight[:, 2]
    x[:, 3] = x[:, 2]
    y = make_targets(model, x, rng)
    for inner in (model, nn.Sequential(nn.Softshrink(0.0), model)):
        result = integrated_gradient_correlation(inner, x, y)
        assert np.all(result.attributions[:, 4] == 0)
        assert np.all(result.standard_errors[:, 4] == 0)
        np.testing.assert_allclose(
            result.attributions[:, 3], result.attributions[:, 2], rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("model", [decoder, small_encoder])
def test_groups_are_plain_sums(rng, model):
    model = model()
    shape = (8, 8) if isinstance(model, EncoderNetwork) else (30,)
    x = rng.standard_normal((50, *shape))
    y = make_targets(model, x, rng)
    size = int(np.prod(shape))
    mask = np.zeros(shape, bool)
    mask[::2] = True
    groups = {"mask": mask, "few": [3, 1], "none": [], "all": torch.arange(size)}
    result = integrated_gradient_correlation(model, x, y, groups=groups, **ENOUGH)
    flat = result.attributions.reshape(len(result.correlation), size)
    sums = [flat[:, mask.ravel()].sum(1), flat[:, [1, 3]].sum(1), 0 * flat[:, 0], flat.sum(1)]
    np.testing.assert_allclose(result.group_values, np.transpose(sums), atol=1e-12)
    assert np.all(result.group_standard_errors[:, [0, 1, 3]] > 0)
    frame = result.to_frame()
    assert list(frame["group"][:4]) == ["mask", "few", "none", "all"]
    assert len(frame) == len(flat) * 4
    np.testing.assert_allclose(frame["igc"], result.group_values.ravel())


@pytest.mark.parametrize("n_outputs", [3, 9])
def test_pooled_maps_are_sums_of_pixels(rng, n_outputs):
    model, x = small_encoder(n_outputs), rng.standard_normal((40, 8, 8))
    y = make_targets(model, x, rng)
    groups = {"odd": np.arange(1, 64, 2)}
    fine = integrated_gradient_correlation(model, x, y, groups=groups, **ENOUGH)
    coarse = integrated_gradient_correlation(model, x, y, groups=groups, pool=4, **ENOUGH)
    assert coarse.attributions.shape == (n_outputs, 2, 2)
    summed = fine.attributions.reshape(n_outputs, 2, 4, 2, 4).sum((2, 4))
    np.testing.assert_allclose(coarse.attributions, summed, atol=1e-12)
    np.testing.assert_allclose(coarse.group_values, fine.group_values, atol=1e-12)
    np.testing.assert_allclose(coarse.completeness_gap, fine.completeness_gap, atol=1e-12)


def test_outputs_one_by_one_are_outputs_together(rng):
    model, x = mlp(n_outputs=5), rng.standard_normal((60, 6))
    y = make_targets(model, x, rng)
    y[:, 3] = y[:, 3] > 0
    together = integrated_gradient_correlation(model.double(), x, y, groups={"g": [0, 3]}, **ENOUGH)
    n_rounds = together.settings["n_rounds"]
    for v in range(5):
        one = integrated_gradient_correlation(
            model, x, y, outputs=[v], groups={"g": [0, 3]}, max_gradients=40, tolerance=1e-9
        )
        assert one.settings["outputs"] == [v]
        # Alone, an output may have more rounds; compare as many.
        cost = (one.n_gradients - 1) / one.settings["n_rounds"]
        again = integrated_gradient_correlation(
            model, x, y, outputs=[v], groups={"g": [0, 3]}, tolerance=1e-9,
            max_gradients=math.ceil(1 + n_rounds * cost),
        )  # fmt: skip
        if again.settings["n_rounds"] == n_rounds:
            np.testing.assert_allclose(again.attributions[0], together.attributions[v], atol=1e-12)
            np.testing.assert_allclose(
                again.standard_errors[0], together.standard_errors[v], atol=1e-12
            )
            np.testing.assert_allclose(again.group_values[0], together.group_values[v], atol=1e-12)


@pytest.mark.parametrize("thinned", [False, True])
def test_regimes_agree(rng, thinned):
    model, x = small_encoder(), rng.standard_normal((30, 8, 8))
    y = make_targets(model, x, rng)
    # Where targets are permuted, all pairs are taken, in either regime the same.
    options = dict(max_gradients=9, tolerance=1e-9, n_permutations=0 if thinned else 1)
    together = integrated_gradient_correlation(model, x, y, **options)
    assert together.settings["regime"] == "LatentEngine"
    for v in (0, 5):
        one = integrated_gradient_correlation(model, x, y, outputs=[v], **options)
        assert one.settings["regime"] == "CotangentEngine"
        difference = relative(one.attributions[0], together.attributions[v])
        if thinned:
            assert difference < 3 * together.numerical_error[v]
            continue
        assert difference < 1e-12
        # The paths' deviations from trapezoids act on standard errors in second order.
        assert relative(one.standard_errors[0], together.standard_errors[v]) < 0.1
        assert one.numerical_error[0] == pytest.approx(together.numerical_error[v])
        assert one.correlation[0] == pytest.approx(together.correlation[v])


def test_outputs_are_sliced_where_maps_are_large(rng):
    results = []
    for memory in (1, 150 * 8 * 16 / 2**30):
        for outputs in (None, [0, 3, 2]):
            model, x = small_encoder(), np.random.default_rng(3).standard_normal((30, 8, 8))
            y = predict(model, x) + x[:, 0, :1]
            results.append(
                integrated_gradient_correlation(
                    model, x, y, outputs=outputs, groups={"g": [1, 2]}, memory=memory, **ENOUGH
                )
            )
    for cut, whole in ((results[2], results[0]), (results[3], results[1])):
        np.testing.assert_allclose(cut.attributions, whole.attributions, atol=1e-12)
        np.testing.assert_allclose(cut.standard_errors, whole.standard_errors, atol=1e-12)
        np.testing.assert_allclose(
            cut.group_standard_errors, whole.group_standard_errors, atol=1e-12
        )


@pytest.mark.parametrize("activation", gradients.POINTWISE)
def test_remembered_slopes_are_the_slopes(rng, activation):
    model = shake(
        nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), activation(), nn.Flatten(), nn.Linear(8, 3)
        )
    ).double()
    x = torch.from_numpy(rng.standard_normal((4, 16)))

    def function(flat):
        return model(flat.reshape(-1, 1, 4, 4))

    plain = gradients.gradients(function, x, lambda gradient: gradient)
    with gradients.remembered_slopes(model):
        remembered = gradients.gradients(function, x, lambda gradient: gradient)
    torch.testing.assert_close(remembered, plain)
    assert not any(module._forward_hooks for module in model.modules())


# The caller's things.


def test_model_is_left_as_it_was_found(rng):
    model = mlp().train()
    model[0].eval()
    model[0].weight.requires_grad_(False)
    x = rng.standard_normal((30, 6)).astype("f4")
    y = rng.standard_normal((30, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    integrated_gradient_correlation(model, x, y)
    with pytest.raises(InputError):
        integrated_gradient_correlation(model, x, y[:, :1])
    assert [module.training for module in model.modules()] == flags
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_arrays_tensors_and_memory_maps_are_the_same(rng, tmp_path):
    x = rng.standard_normal((30, 6)).astype("f4")
    model = mlp()
    y = make_targets(model, x, rng)
    stored = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "f4", x.shape)
    stored[:] = x
    stored.flush()
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = integrated_gradient_correlation(model, x, y).attributions
    for inputs, targets in (
        (mapped, y),
        (torch.from_numpy(x), torch.from_numpy(y)),
        (x.astype(">f4"), y),
        (x.tolist(), y.tolist()),
    ):
        result = integrated_gradient_correlation(model, inputs, targets)
        np.testing.assert_array_equal(result.attributions, expected)


def test_in_place_layers_and_no_grad_callers(rng):
    x = rng.standard_normal((30, 6)).astype("f4")
    y = rng.standard_normal(30)
    linear, before = nn.Linear(6, 1), x.copy()
    model = nn.Sequential(nn.ReLU(inplace=True), linear)
    plain = nn.Sequential(nn.ReLU(), linear)
    expected = integrated_gradient_correlation(plain, x, y).attributions
    with torch.inference_mode():
        result = integrated_gradient_correlation(model, x, y)
    np.testing.assert_array_equal(result.attributions, expected)
    np.testing.assert_array_equal(x, before)


def test_few_samples_are_enough(rng):
    model = mlp().double()
    for n, conditions in ((3, None), (4, None), (5, [0, 1, 0, 1, 1])):
        x = rng.standard_normal((n, 6))
        y = x[:, :2] + x[:, 2:4]
        if conditions is None:
            result = integrated_gradient_correlation(model, x, y, tolerance=0.1)
        else:
            net, x = shake(Conditioned()).double(), x[:, :5]
            result = integrated_gradient_correlation(
                net, x, y, conditions=conditions, tolerance=0.1
            )
        assert np.isfinite(result.standard_errors).all()
        assert np.abs(result.completeness_gap).max() <= 0.02


def test_result_is_saved_and_loaded(rng, tmp_path):
    x = rng.standard_normal((30, 6))
    model = mlp().double()
    y = make_targets(model, x, rng)
    result = integrated_gradient_correlation(model, x, y, groups={"α": [0, 2]})
    result.save(tmp_path / "map.npz")
    loaded = IGCResult.load(tmp_path / "map.npz")
    assert loaded.settings == json.loads(json.dumps(result.settings))
    assert (loaded.n_samples, loaded.n_gradients) == (30, result.n_gradients)
    for name in ("attributions", "standard_errors", "completeness_gap", "group_values"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(result, name))
    assert list(tmp_path.iterdir()) == [tmp_path / "map.npz"]
    integrated_gradient_correlation(model, x, y).save(tmp_path / "bare")
    bare = IGCResult.load(tmp_path / "bare.npz")
    assert bare.group_values is None
    assert list(bare.to_frame()["group"]) == ["all", "all"]
    np.savez(tmp_path / "other.npz", x)
    with pytest.raises(InputError, match="path: expected a saved IGCResult"):
        IGCResult.load(tmp_path / "other.npz")
    with pytest.raises(InputError, match="path: expected a saved IGCResult"):
        IGCResult.load(tmp_path / "absent.npz")


def test_warns_if_the_tolerance_cannot_be_met(rng, monkeypatch):
    x = rng.standard_normal((30, 6))
    model = mlp().double()
    monkeypatch.setattr(igc, "MAX_GRADIENTS", 20)
    with pytest.warns(RuntimeWarning, match="tolerance of 1e-06 is not met after 20"):
        integrated_gradient_correlation(model, x, rng.standard_normal((30, 2)), tolerance=1e-6)


# Bad input.


class NoGradient(nn.Module):
    def forward(self, x):
        return x.detach().sum(1)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


BAD = {
    "constant target": (
        dict(y=np.ones((30, 2))),
        r"targets: .* vary.*constant values of output 0, 1",
    ),
    "constant prediction": (
        dict(model=nn.Sequential(nn.Linear(6, 2), nn.Hardtanh(5, 6))),
        r"model: expected predictions that vary.*output 0, 1",
    ),
    "NaN inputs": (dict(nan="x"), r"inputs: expected finite numbers; got 2 NaN .* in 1 samples"),
    "NaN targets": (dict(nan="y"), r"targets: expected finite numbers; got 1 NaN"),
    "lengths": (dict(y=np.zeros((29, 2))), r"inputs has 30, targets has 29"),
    "columns": (dict(y=np.zeros((30, 3))), r"targets: expected one column for each .* 2 outputs"),
    "output shape": (dict(model=nn.Unflatten(1, (2, 3))), r"model: expected outputs of shape"),
    "several outputs": (dict(model=Pair()), r"model: expected outputs .*got tuple"),
    "no gradient": (dict(model=NoGradient()), r"model: expected outputs that torch can diff"),
    "no module": (dict(model=np.sum), r"model: expected a torch.nn.Module; got"),
    "short mask": (dict(groups={"a": np.ones(5, bool)}), r"groups\['a'\]: .*mask over the 6"),
    "group range": (dict(groups={"a": [6]}), r"groups\['a'\]: expected indices from 0 to 5"),
    "group twice": (dict(groups={"a": [1, 1]}), r"groups\['a'\]: expected each index once"),
    "group text": (dict(groups={"a": ["b"]}), r"groups\['a'\]: expected indices or a boolean"),
    "groups list": (dict(groups=[[0, 1]]), r"groups: expected a dict"),
    "unknown output": (dict(outputs=[2]), r"outputs: expected indices .* from 0 to 1; got \[2\]"),
    "named output": (dict(outputs=["a"]), r"outputs: expected indices"),
    "pool": (dict(pool=2), r"pool: expected inputs whose last two dimensions"),
    "pool of zero": (dict(pool=0), r"pool: expected a number of pixels"),
    "single": (
        dict(conditions=np.r_[np.zeros(29, int), 7]),
        r"conditions: expected two or more samples .*1 of a single sample \(sample 29: 7\)",
    ),
    "single within": (
        dict(baseline=PairedBaseline(within=["a"] * 28 + ["b", "c"])),
        r"within: expected two or more",
    ),
    "within length": (dict(baseline=PairedBaseline(within=[0])), r"within: expected one label"),
    "condition names": (dict(conditions=["a"] * 30), r"conditions: expected numbers"),
    "baseline class": (dict(baseline=PairedBaseline), r"baseline: .*the class PairedBaseline"),
    "baseline shape": (dict(baseline=GivenBaseline(np.zeros(5))), r"baseline: .*shape \(5,\)"),
    "baseline NaN": (dict(baseline=GivenBaseline(np.full(6, np.nan))), r"baseline: .*finite"),
    "many baselines": (dict(baseline=SampledBaseline(31)), r"baseline: expected at most .*30"),
    "tolerance": (dict(tolerance=0), r"tolerance: expected a number above 0"),
    "gradients": (dict(max_gradients=2), r"max_gradients: expected 3 or more"),
    "batch": (dict(batch_size=0), r"batch_size: expected 1 or more"),
    "seed": (dict(seed=-1), r"seed: expected 0 or more, a whole number"),
    "device": (dict(device="nowhere"), r"device: expected \"auto\" or a torch device"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(rng, name):
    options, message = BAD[name]
    options = dict(options)
    x, y = rng.standard_normal((30, 6)), rng.standard_normal((30, 2))
    match options.pop("nan", None):
        case "x":
            x[10, 2:4] = np.nan, np.inf
        case "y":
            y[3, 1] = np.nan
    y = options.pop("y", y)
    model = options.pop("model", nn.Linear(6, 2).double())
    with pytest.raises(InputError, match=message):
        integrated_gradient_correlation(model, x, y, **options)


def test_too_few_samples():
    with pytest.raises(InputError, match="inputs: expected at least three samples; got 2"):
        integrated_gradient_correlation(nn.Linear(2, 1), np.eye(2), np.arange(2.0))
    with pytest.raises(InputError, match="n: expected a number of baselines"):
        SampledBaseline(0)
