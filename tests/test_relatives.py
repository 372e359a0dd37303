"""Gradient times input and expected gradients, beside integrated gradients."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, Quadratic, cnn, mlp, predict, shake
from captum.attr import GradientShap, InputXGradient
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    GivenBaseline,
    IGResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    expected_gradients,
    gradient_times_input,
    integrated_gradients,
    single,
)

METHODS = [gradient_times_input, expected_gradients, integrated_gradients]


def linear(n_inputs=4):
    return shake(nn.Linear(n_inputs, 2)).double()


def quadratic(rng, n_inputs=4):
    a = rng.standard_normal((n_inputs, n_inputs))
    return Quadratic(a + a.T), a + a.T


@pytest.mark.parametrize("method", METHODS)
def test_linear_models_are_exact_from_one_baseline(rng, method):
    model, x, b = linear(), rng.standard_normal((5, 4)), rng.standard_normal(4)
    result = method(model, x, baseline=GivenBaseline(b))
    expected = model.weight.detach().numpy() * (x - b)[:, None]
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)
    assert np.abs(result.completeness_gap).max() < 1e-12


def test_gradient_times_input_of_a_quadratic_model_reports_its_remainder(rng):
    model, a = quadratic(rng)
    x, bank = rng.standard_normal((5, 4)), rng.standard_normal((3, 4))
    result = gradient_times_input(model, x, baseline=GivenBaseline(bank))
    np.testing.assert_allclose(result.attributions[:, 0], (x - bank.mean(0)) * (x @ a))
    # Along each path f(x) - f(b) = (x - b) A (x + b) / 2.
    steps = x[:, None] - bank
    remainder = np.einsum("nbi,ij,nbj->nb", steps, a, steps).mean(1) / 2
    np.testing.assert_allclose(result.completeness_gap[:, 0], remainder)
    np.testing.assert_allclose(result.baseline_predictions[0], predict(model, bank).mean(0))
    assert result.standard_errors is None


@pytest.mark.parametrize("model", [mlp, cnn])
def test_gradient_times_input_equals_captum(rng, model):
    model = model().double()
    x = rng.standard_normal((5, 6) if model[0].weight.ndim == 2 else (5, 1, 8, 8))
    result = gradient_times_input(model, x)
    for v in range(result.predictions.shape[1]):
        inputs = torch.from_numpy(x).requires_grad_(True)
        expected = InputXGradient(model).attribute(inputs, target=v).detach().numpy()
        np.testing.assert_allclose(result.attributions[:, v], expected, atol=1e-12)


def deviations(result, expected):
    """Return deviations in standard errors, where there are any."""
    errors = result.standard_errors
    return ((result.attributions - expected)[errors > 0] / errors[errors > 0]).ravel()


def test_expected_gradients_are_integrated_gradients_but_for_their_standard_error(rng):
    model, x = mlp(n_outputs=3).double(), rng.standard_normal((40, 6))
    bank = GivenBaseline(rng.standard_normal((7, 6)))
    exact = integrated_gradients(model, x, baseline=bank, n_steps=40).attributions
    result = expected_gradients(model, x, baseline=bank, n_draws=150)
    z = deviations(result, exact)
    assert 0.9 < np.sqrt((z**2).mean()) < 1.1
    assert abs(z.mean()) < 0.15
    more = expected_gradients(model, x, baseline=bank, n_draws=1500, batch_size=3000)
    ratio = np.median(more.standard_errors / result.standard_errors)
    assert ratio == pytest.approx(10**-0.5, rel=0.05)
    assert np.abs(more.completeness_gap).mean() < np.abs(result.completeness_gap).mean() / 2


def test_expected_gradients_equal_captum_in_distribution(rng):
    model, x = mlp(n_outputs=1).double(), rng.standard_normal((10, 6))
    bank = rng.standard_normal((7, 6))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - captum draws from both
    captum = GradientShap(model).attribute(
        torch.from_numpy(x), torch.from_numpy(bank), n_samples=2000, target=0
    )
    result = expected_gradients(model, x, baseline=GivenBaseline(bank), n_draws=2000)
    # Two independent estimates with the same spread.
    z = deviations(result, captum.detach().numpy()[:, None]) / np.sqrt(2)
    assert 0.8 < np.sqrt((z**2).mean()) < 1.2


def test_expected_gradients_of_a_linear_model_owe_their_error_to_baselines_alone(rng):
    model, x = linear(), rng.standard_normal((30, 4))
    result = expected_gradients(model, x, n_draws=50)
    assert result.settings["n_baselines"] == 30
    weight = model.weight.detach().numpy()
    z = deviations(result, weight * (x - x.mean(0))[:, None])
    assert 0.85 < np.sqrt((z**2).mean()) < 1.15
    # The spread of a drawn baseline, times the weight.
    expected = np.abs(weight) * x.std(0) / np.sqrt(50)
    np.testing.assert_allclose(result.standard_errors.mean(0), expected, rtol=0.1)


def test_draws_are_those_of_more_draws(rng):
    model, x = linear(), rng.standard_normal((6, 4))
    two, three = (expected_gradients(model, x, n_draws=k).attributions for k in (2, 3))
    last = 3 * three - 2 * two
    # The third draw is one path from one of the samples.
    paths = model.weight.detach().numpy() * (x[:, None] - x)[:, :, None]
    distance = np.abs(paths - last[:, None]).max((2, 3)).min(1)
    np.testing.assert_allclose(distance, 0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_outputs", [2, 20])
def test_batch_size_changes_nothing(rng, method, n_outputs, monkeypatch):
    model, x = mlp(n_outputs=n_outputs).double(), rng.standard_normal((9, 6))
    options = dict(baseline=SampledBaseline(4))
    expected = method(model, x, **options)
    for n_rows in (1, 7, 64, 10_000):
        result = method(model, x, batch_size=n_rows, **options)
        np.testing.assert_allclose(result.attributions, expected.attributions, atol=1e-12)
        np.testing.assert_allclose(result.predictions, expected.predictions, atol=1e-12)
        if expected.standard_errors is not None:
            np.testing.assert_allclose(result.standard_errors, expected.standard_errors, atol=1e-9)
    monkeypatch.setattr(single, "CHUNK_NUMBERS", 20)
    monkeypatch.setattr(single, "MOST_DRAWN", 2)
    np.testing.assert_allclose(
        method(model, x, **options).attributions, expected.attributions, atol=1e-12
    )


@pytest.mark.parametrize("method", METHODS)
def test_repetition_and_seed(rng, method):
    model, x = mlp().double(), rng.standard_normal((9, 6))
    first, again, other = (
        method(model, x, baseline=SampledBaseline(4), seed=seed).attributions for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_order_of_samples(rng, method):
    model, x = mlp().double(), rng.standard_normal((200, 6))
    order = rng.permutation(200)
    straight = method(model, x, baseline=MeanBaseline())
    turned = method(model, x[order], baseline=MeanBaseline())
    # Draws go by what a sample consists of, not by its place among others.
    np.testing.assert_allclose(turned.attributions, straight.attributions[order], atol=1e-12)
    straight, turned = (method(model, rows, baseline=SampledBaseline(4)) for rows in (x, x[order]))
    np.testing.assert_allclose(turned.attributions, straight.attributions[order], atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_many_outputs_by_latents_are_outputs_one_by_one(rng, method):
    model, x = mlp(n_outputs=20).double(), rng.standard_normal((5, 6))
    options = dict(baseline=SampledBaseline(3))
    together = method(model, x, **options)
    alone = method(model, x, outputs=[17], **options)
    np.testing.assert_allclose(together.attributions[:, 17:18], alone.attributions, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["labels", "vectors"])
def test_conditions_are_those_of_each_sample(rng, method, kind):
    if kind == "labels":
        model, conditions = shake(Conditioned()).double(), np.array([2, 0, 1, 0, 2, 1])
    else:

        class Scaled(nn.Linear):
            def forward(self, x, conditions):
                return torch.tanh(super().forward(x) * conditions)

        model = shake(Scaled(5, 2)).double()
        conditions = rng.standard_normal((6, 2))
    x = rng.standard_normal((6, 5))
    bank = GivenBaseline(rng.standard_normal((3, 5)))
    options = dict(baseline=bank, batch_size=13)
    together = method(model, x, conditions=conditions, **options)
    for label in np.unique(conditions, axis=0):
        # The others' conditions are of no account, only a sample's own.
        same = np.broadcast_to(label, conditions.shape)
        member = np.flatnonzero((conditions == label).reshape(6, -1).all(1))
        apart = method(model, x, conditions=same, **options)
        for name in ("attributions", "predictions", "baseline_predictions", "completeness_gap"):
            np.testing.assert_allclose(
                getattr(together, name)[member], getattr(apart, name)[member], atol=1e-12
            )


@pytest.mark.parametrize("method", METHODS)
def test_arrays_tensors_and_memory_maps_are_the_same(rng, tmp_path, method):
    x = rng.standard_normal((9, 6)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    model = mlp()
    expected = method(model, x, baseline=ZeroBaseline())
    assert expected.attributions.dtype == np.float32
    for inputs in (np.load(tmp_path / "x.npy", mmap_mode="r"), torch.from_numpy(x), x.tolist()):
        result = method(model, inputs, baseline=ZeroBaseline())
        np.testing.assert_array_equal(result.attributions, expected.attributions)


def test_results_are_saved_with_their_standard_errors(rng, tmp_path):
    x = rng.standard_normal((3, 6))
    for method in METHODS:
        result = method(mlp(), x, baseline=ZeroBaseline())
        result.save(tmp_path / "map.npz")
        loaded = IGResult.load(tmp_path / "map.npz")
        assert loaded.settings == result.settings
        if result.standard_errors is None:
            assert loaded.standard_errors is None
        else:
            np.testing.assert_array_equal(loaded.standard_errors, result.standard_errors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(baseline=PairedBaseline()), "baseline: expected a baseline for single samples"),
        (dict(baseline=0), "baseline: expected a PairedBaseline, .*; got 0"),
        (dict(n_draws=1), "n_draws: expected 2 or more, a whole number; got 1"),
        (dict(n_draws=2.0), r"n_draws: expected 2 or more, a whole number; got 2\.0"),
        (dict(n_baselines=0), "n_baselines: expected 1 or more, a whole number; got 0"),
        (dict(batch_size="9"), "batch_size: expected 1 or more, a whole number; got '9'"),
        (dict(seed=None), "seed: expected 0 or more, a whole number; got None"),
        (dict(model=len), "model: expected a torch.nn.Module"),
        (dict(inputs=5.0), r"inputs: expected shape .* got shape \(\)"),
        (dict(inputs=np.zeros((0, 6))), "inputs: expected at least one sample; got 0"),
        (dict(inputs=np.full((3, 6), np.inf)), "inputs: expected finite numbers; got 18 NaN"),
        (dict(outputs=[5]), "outputs: expected indices of the model's outputs, from 0 to 1"),
    ],
)
def test_bad_input_is_named(options, message):
    options = dict(model=mlp(), inputs=np.zeros((3, 6))) | options
    model, inputs = options.pop("model"), options.pop("inputs")
    with pytest.raises(InputError, match=message):
        expected_gradients(model, inputs, **options)
    if not options.keys() & {"n_draws", "n_baselines"}:
        with pytest.raises(InputError, match=message):
            gradient_times_input(model, inputs, **options)
