import numpy as np
import pytest
import torch
from attribution_models import Conditioned, Quadratic, cnn, mlp, predict, shake
from captum.attr import IntegratedGradients

from neuroigc._validation import InputError
from neuroigc.attribution import (
    GivenBaseline,
    IGResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradients,
)


@pytest.mark.parametrize("model", [mlp, cnn])
def test_equals_captum(rng, model):
    model = model().double()
    x = rng.standard_normal((5, 6) if model[0].weight.ndim == 2 else (5, 1, 8, 8))
    baseline = rng.standard_normal(x.shape[1:])
    result = integrated_gradients(model, x, baseline=GivenBaseline(baseline), n_steps=20)
    captum = IntegratedGradients(model)
    for v in range(result.predictions.shape[1]):
        expected = captum.attribute(
            torch.from_numpy(x), torch.from_numpy(baseline)[None], target=v, n_steps=20
        )
        np.testing.assert_allclose(result.attributions[:, v], expected.numpy(), atol=1e-12)


def test_equals_captum_in_single_precision_with_conditions(rng):
    model = shake(Conditioned())
    x, conditions = rng.standard_normal((6, 5)).astype("f4"), np.arange(6) % 3
    result = integrated_gradients(
        model, x, baseline=ZeroBaseline(), conditions=conditions, outputs=[1]
    )
    expected = IntegratedGradients(model).attribute(
        torch.from_numpy(x), target=1, additional_forward_args=torch.from_numpy(conditions)
    )
    np.testing.assert_allclose(result.attributions[:, 0], expected.detach().numpy(), atol=1e-6)


def test_quadratic_model_takes_one_step(rng):
    a = rng.standard_normal((4, 4))
    x, a = rng.standard_normal((7, 4)), a + a.T
    result = integrated_gradients(Quadratic(a), x, baseline=MeanBaseline(), n_steps=1)
    mean = x.mean(0)
    np.testing.assert_allclose(result.attributions[:, 0], (x - mean) * ((x + mean) / 2 @ a))
    assert np.abs(result.completeness_gap).max() < 1e-12


def test_several_baselines_are_averaged_and_complete(rng):
    model, x = mlp().double(), rng.standard_normal((6, 6))
    bank = rng.standard_normal((3, 6))
    options = dict(n_steps=30, batch_size=7)
    mean = integrated_gradients(model, x, baseline=GivenBaseline(bank), **options)
    single = [integrated_gradients(model, x, baseline=GivenBaseline(b), **options) for b in bank]
    np.testing.assert_allclose(
        mean.attributions, np.mean([s.attributions for s in single], 0), atol=1e-12
    )
    np.testing.assert_allclose(mean.predictions, predict(model, x))
    np.testing.assert_allclose(mean.baseline_predictions, [predict(model, bank).mean(0)] * 6)
    assert np.abs(mean.completeness_gap).max() < 1e-4
    sampled = integrated_gradients(model, x, baseline=SampledBaseline(6), **options)
    np.testing.assert_allclose(sampled.attributions.mean(0), 0, atol=1e-6)


def test_result_is_saved_and_loaded(rng, tmp_path):
    result = integrated_gradients(mlp(), rng.standard_normal((3, 6)), baseline=ZeroBaseline())
    result.save(tmp_path / "ig.npz")
    loaded = IGResult.load(tmp_path / "ig.npz")
    assert loaded.settings == result.settings
    np.testing.assert_array_equal(loaded.attributions, result.attributions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(baseline=PairedBaseline()), "baseline: expected a baseline for single samples"),
        (dict(baseline=0), "baseline: expected a PairedBaseline, .*; got 0"),
        (dict(n_steps=0), "n_steps: expected 1 or more, a whole number; got 0"),
        (dict(n_steps=2.5), "n_steps: expected 1 or more, a whole number; got 2.5"),
        (dict(batch_size=0), "batch_size: expected 1 or more, a whole number; got 0"),
        (dict(batch_size=True), "batch_size: expected 1 or more, a whole number; got True"),
        (dict(seed=-1), "seed: expected 0 or more, a whole number; got -1"),
        (dict(inputs=np.zeros((0, 6))), "inputs: expected at least one sample; got 0"),
        (dict(model=len), "model: expected a torch.nn.Module"),
        (dict(inputs=np.full((3, 6), np.nan)), r"inputs: expected finite numbers; got 18 NaN"),
        (dict(outputs=[5]), "outputs: expected indices of the model's outputs, from 0 to 1"),
        (dict(conditions=[0]), "inputs has 3, conditions has 1"),
    ],
)
def test_bad_input_is_named(options, message):
    options = dict(model=mlp(), inputs=np.zeros((3, 6)), baseline=ZeroBaseline()) | options
    with pytest.raises(InputError, match=message):
        integrated_gradients(options.pop("model"), options.pop("inputs"), **options)
