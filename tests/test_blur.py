"""Blur integrated gradients of single samples: closed forms, completeness, and how work is cut."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, cnn, mlp, predict, shake
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import BlurIGResult, blur_integrated_gradients
from neuroigc.attribution.scale_space import ScaleSpace


@pytest.fixture
def images(rng):
    return rng.standard_normal((7, 1, 8, 8))


def blurred(images, scale):
    space = ScaleSpace(images.shape[1:], 2, torch.zeros(1, dtype=torch.float64))
    flat = torch.from_numpy(images).flatten(1)
    return space.blurred(space.spectrum(flat), scale).numpy().reshape(images.shape)


def test_linear_model_has_the_closed_form(images, rng):
    weight = rng.standard_normal((2, 64))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(weight))
    scales = [0, 1, 3, 7]
    result = blur_integrated_gradients(model, images, scales=scales, n_points=12, keep_scales=True)
    at = [blurred(images, scale) for scale in scales]
    for s in range(3):
        lost = (at[s] - at[s + 1])[:, None]
        expected = weight.reshape(1, 2, 1, 8, 8) * lost
        np.testing.assert_allclose(result.scale_attributions[:, :, s], expected, atol=1e-10)


def test_is_the_plain_sum_of_the_paper(images):
    # Many small steps, gradients by autograd, differences of blurred images by themselves.
    model = cnn().double()
    edges = np.linspace(0, 8, 1601)
    expected = np.zeros((7, 3, 1, 8, 8))
    for low, high in pairwise(edges):
        point = torch.from_numpy(blurred(images, (low + high) / 2)).requires_grad_(True)
        step = blurred(images, low) - blurred(images, high)
        for v in range(3):
            (slope,) = torch.autograd.grad(model(point)[:, v].sum(), point)
            expected[:, v] += slope.numpy() * step
    result = blur_integrated_gradients(model, images, n_points=10)
    np.testing.assert_allclose(result.attributions, expected, atol=2e-6)


@pytest.mark.parametrize(("n_points", "bound"), [(20, 1e-3), (40, 1e-5)])
@pytest.mark.parametrize("activation", [nn.Mish, nn.Tanh, nn.Softplus])
def test_is_complete(rng, activation, n_points, bound):
    images = rng.standard_normal((7, 8, 8))
    layers = (nn.Flatten(), *mlp(64, 2, activation, width=24))
    model = shake(nn.Sequential(*layers)).double()
    # Five bands: 100 and 200 scales.
    result = blur_integrated_gradients(model, images, n_points=n_points)
    assert result.scale_gap.shape == (7, 2, 5)
    assert np.abs(result.completeness_gap).max() < bound
    assert np.abs(result.scale_gap).max() < bound
    ends = predict(model, blurred(images, 8.0))
    np.testing.assert_allclose(result.predictions, predict(model, images), atol=1e-12)
    np.testing.assert_allclose(result.baseline_predictions, ends, atol=1e-12)


def test_sums_over_scales_and_pixels(images):
    result = blur_integrated_gradients(cnn().double(), images, n_points=3, keep_scales=True)
    kept = result.scale_attributions
    np.testing.assert_allclose(kept.sum(2), result.attributions, atol=1e-14)
    np.testing.assert_allclose(kept.sum((3, 4, 5)), result.scale_values, atol=1e-14)


def test_signals_of_one_dimension(rng):
    signals = rng.standard_normal((5, 12))
    model = mlp(12, 2).double()
    result = blur_integrated_gradients(model, signals, n_dims=1, n_points=20)
    assert result.attributions.shape == (5, 2, 12)
    assert np.abs(result.completeness_gap).max() < 1e-6
    # As images of one row of pixels that are doubled, half of which is read.
    layers = nn.Sequential(nn.Flatten(), nn.Linear(24, 12, bias=False), model).double()
    with torch.no_grad():
        layers[1].weight.copy_(
            torch.eye(12).repeat(1, 2) * torch.cat([torch.ones(12), torch.zeros(12)])
        )
    doubled = np.stack([signals, signals], 1)
    images = blur_integrated_gradients(layers, doubled, n_points=20, scales=result.scales.tolist())
    np.testing.assert_allclose(images.attributions[:, :, 0], result.attributions, atol=1e-9)


def test_conditions_are_repeated_for_every_scale(rng):
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Conditioned(n_inputs=16)

        def forward(self, x, conditions):
            return self.inner(x.flatten(1), conditions)

    model, x = shake(Images()).double(), rng.standard_normal((6, 4, 4))
    conditions = np.arange(6) % 3
    found = blur_integrated_gradients(model, x, conditions=conditions, n_points=20)
    assert np.abs(found.completeness_gap).max() < 1e-6
    np.testing.assert_allclose(found.predictions, predict(model, x, conditions), atol=1e-12)


def test_many_outputs_are_read_from_latents(images):
    model = cnn(n_outputs=40).double()
    whole = blur_integrated_gradients(model, images, n_points=3, keep_scales=True)
    few = blur_integrated_gradients(model, images, n_points=3, keep_scales=True, outputs=[7, 31])
    for name in ("attributions", "scale_values", "scale_gap", "scale_attributions"):
        chosen = getattr(whole, name)[:, [7, 31]]
        np.testing.assert_allclose(chosen, getattr(few, name), atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_batch_size_and_order_change_nothing(images, batch_size):
    model, order = cnn().double(), np.array([3, 0, 6, 1, 5, 2, 4])
    whole = blur_integrated_gradients(model, images, n_points=3)
    cut = blur_integrated_gradients(model, images[order], n_points=3, batch_size=batch_size)
    np.testing.assert_allclose(cut.attributions, whole.attributions[order], atol=1e-12)
    np.testing.assert_allclose(cut.scale_gap, whole.scale_gap[order], atol=1e-12)


def test_result_is_saved_and_loaded(images, tmp_path):
    result = blur_integrated_gradients(cnn(), images.astype("f4"), n_points=2)
    result.save(tmp_path / "blur.npz")
    loaded = BlurIGResult.load(tmp_path / "blur.npz")
    assert loaded.settings == result.settings
    assert loaded.scale_attributions is None
    np.testing.assert_array_equal(loaded.scale_values, result.scale_values)
    assert loaded.attributions.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(inputs=np.zeros((3, 64))), "inputs: expected samples that are images"),
        (dict(scales=[2, 1]), "scales: expected two or more finite numbers"),
        (dict(n_points=0), "n_points: expected 1 or more, a whole number; got 0"),
        (dict(batch_size=0), "batch_size: expected 1 or more"),
        (dict(inputs=np.zeros((0, 8, 8))), "inputs: expected at least one sample; got 0"),
        (dict(inputs=np.full((3, 8, 8), np.nan)), "inputs: expected finite numbers"),
        (dict(model=len), "model: expected a torch.nn.Module"),
        (dict(outputs=[9]), "outputs: expected indices of the model's outputs"),
    ],
)
def test_bad_input_is_named(options, message):
    model = nn.Sequential(nn.Flatten(), mlp(64))
    options = dict(model=model.eval(), inputs=np.zeros((3, 8, 8))) | options
    with pytest.raises(InputError, match=message):
        blur_integrated_gradients(options.pop("model"), options.pop("inputs"), **options)
