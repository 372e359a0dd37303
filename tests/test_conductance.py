"""Units' parts of single predictions: captum, axioms with distributions of baselines."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, cnn, mlp, predict, shake
from captum.attr import LayerConductance, LayerIntegratedGradients, NeuronConductance
from module_zoo import ResidualMLP
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    GivenBaseline,
    LayerIGResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradients,
    layer_integrated_gradients,
)


@pytest.fixture
def model():
    return cnn().double()


@pytest.fixture
def images(rng):
    return rng.standard_normal((3, 1, 8, 8))


@pytest.mark.parametrize("layer", ["1", "2", "4", "7"])
def test_equals_captum(model, images, rng, layer):
    start = rng.standard_normal((1, 8, 8))
    pixels = {str(i): [i] for i in range(64)}
    found = layer_integrated_gradients(
        model, images, layer=layer, baseline=GivenBaseline(start), n_steps=20, regions=pixels
    )
    tensors, module = [torch.from_numpy(a) for a in (images, start[None])], model[int(layer)]
    # Differences of activity between steps: an error of one over their number.
    options = dict(target=1, n_steps=3000)
    expected = LayerConductance(model, module).attribute(*tensors, **options)
    np.testing.assert_allclose(found.attributions[:, 1], expected.detach().numpy(), atol=1e-4)
    unit = (0,) * (expected.ndim - 1)
    neuron = NeuronConductance(model, module).attribute(
        tensors[0], unit if len(unit) > 1 else 0, tensors[1], **options
    )
    by_pixel = found.region_attributions[(slice(None), 1, slice(None), *unit)]
    np.testing.assert_allclose(by_pixel, neuron.detach().numpy().reshape(3, -1), atol=1e-4)


@pytest.mark.parametrize("layer", ["1", "4", "7"])
def test_between_activities_equals_captum(model, images, layer):
    found = layer_integrated_gradients(
        model, images, layer=layer, path="activities", baseline=ZeroBaseline(), n_steps=20
    )
    expected = LayerIntegratedGradients(model, model[int(layer)]).attribute(
        torch.from_numpy(images), torch.zeros(1, 1, 8, 8).double(), target=2, n_steps=60
    )
    np.testing.assert_allclose(found.attributions[:, 2], expected.detach().numpy(), atol=1e-6)


BASELINES = [SampledBaseline(3), MeanBaseline(), ZeroBaseline(), GivenBaseline(np.eye(5, 6))]


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda b: type(b).__name__)
@pytest.mark.parametrize("path", ["inputs", "activities"])
def test_completeness_with_baselines_of_a_distribution(rng, baseline, path):
    model, x = mlp().double(), rng.standard_normal((4, 6))
    found = layer_integrated_gradients(
        model, x, layer="2", path=path, baseline=baseline, n_steps=30
    )
    whole = integrated_gradients(model, x, baseline=baseline, n_steps=30)
    np.testing.assert_allclose(
        found.attributions.sum(2), found.predictions - found.baseline_predictions, atol=1e-7
    )
    np.testing.assert_allclose(found.baseline_predictions, whole.baseline_predictions, atol=1e-12)
    assert np.abs(found.completeness_gap).max() < 1e-7


def test_several_baselines_are_averaged(rng):
    model, x, bank = mlp().double(), rng.standard_normal((4, 6)), rng.standard_normal((3, 6))
    regions = {"a": [0, 1], "b": [2, 3, 4, 5]}
    options = dict(layer="2", regions=regions, n_steps=5)
    mean = layer_integrated_gradients(model, x, baseline=GivenBaseline(bank), **options)
    each = [
        layer_integrated_gradients(model, x, baseline=GivenBaseline(b), **options) for b in bank
    ]
    for name in ("attributions", "region_attributions", "region_values"):
        expected = np.mean([getattr(one, name) for one in each], 0)
        np.testing.assert_allclose(getattr(mean, name), expected, atol=1e-12)


def attribute(model, x, layer, **options):
    bank = np.random.default_rng(5).standard_normal((4, x.shape[1]))
    options = dict(baseline=GivenBaseline(bank), n_steps=24) | options
    return layer_integrated_gradients(model, x, layer=layer, **options)


def test_dummy_units_and_regions_have_nothing(rng):
    model, x = mlp().double(), rng.standard_normal((4, 6))
    with torch.no_grad():
        model[4].weight[:, 3] = 0
        model[0].weight[:, 5] = 0
    found = attribute(model, x, "2", regions={"seen": np.arange(5), "unseen": [5]})
    np.testing.assert_array_equal(found.attributions[:, :, 3], 0)
    np.testing.assert_allclose(found.region_attributions[:, :, 1], 0, atol=1e-15)
    assert np.abs(found.attributions[:, :, 2]).min() > 0


def test_linearity_in_the_model(rng):
    x = rng.standard_normal((4, 6))
    front, first, second = shake(nn.Linear(6, 7)), shake(mlp(7, 1)), shake(mlp(7, 1), seed=1)

    class Sum(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.front, self.first, self.second, self.a, self.b = front, first, second, a, b

        def forward(self, x):
            hidden = self.front(x)
            return self.a * self.first(hidden) + self.b * self.second(hidden)

    maps = [
        attribute(Sum(a, b).double().eval(), x, "front").attributions
        for a, b in ((1, 0), (0, 1), (2, -3))
    ]
    np.testing.assert_allclose(maps[2], 2 * maps[0] - 3 * maps[1], atol=1e-12)


def test_units_that_are_alike_have_alike_values(rng):
    # Symmetry: two units that see the same and are read alike, wherever the baselines lie.
    model, x = mlp().double(), rng.standard_normal((4, 6))
    with torch.no_grad():
        for layer in (model[0].weight, model[0].bias, *model[1].parameters()):
            layer[1] = layer[0]
        model[1].running_mean[1] = model[1].running_mean[0]
        model[1].running_var[1] = model[1].running_var[0]
        model[4].weight[:, 1] = model[4].weight[:, 0]
    found = attribute(model, x, "2").attributions
    np.testing.assert_allclose(found[:, :, 0], found[:, :, 1], atol=1e-13)


def test_implementation_and_scale_of_inputs_change_nothing(rng):
    # The same units, computed from inputs in other units by another front.
    x = rng.standard_normal((4, 6))
    model = mlp().double()
    factor, offset = rng.uniform(0.5, 3, 6), rng.standard_normal(6)
    other = nn.Sequential(nn.Linear(6, 6), *model).double().eval()
    with torch.no_grad():
        other[0].weight.copy_(torch.diag(torch.from_numpy(1 / factor)))
        other[0].bias.copy_(torch.from_numpy(-offset / factor))
    bank = rng.standard_normal((3, 6))
    first = attribute(model, x, "2", baseline=GivenBaseline(bank))
    moved = GivenBaseline(bank * factor + offset)
    second = attribute(other, x * factor + offset, "3", baseline=moved)
    np.testing.assert_allclose(second.attributions, first.attributions, atol=1e-12)


def test_targeted_units_add_up(model, images):
    regions = {"left": np.tile(np.arange(8) < 3, 8), "right": np.tile(np.arange(8) >= 3, 8)}
    found = layer_integrated_gradients(
        model, images, layer="4", baseline=MeanBaseline(), regions=regions, n_steps=12
    )
    np.testing.assert_allclose(found.region_attributions.sum(2), found.attributions, atol=1e-12)
    np.testing.assert_allclose(
        found.region_attributions.sum((3, 4, 5)), found.region_values, atol=1e-12
    )
    whole = integrated_gradients(model, images, baseline=MeanBaseline(), n_steps=12).attributions
    left = whole.reshape(3, 3, -1)[..., regions["left"]].sum(2)
    np.testing.assert_allclose(found.region_values[:, :, 0], left, atol=1e-12)


def test_conditions_are_fed_and_baselines_have_them_too(rng):
    model, x = shake(Conditioned()).double(), rng.standard_normal((6, 5))
    conditions = np.arange(6) % 3
    found = layer_integrated_gradients(
        model, x, layer="first", baseline=ZeroBaseline(), conditions=conditions, n_steps=30
    )
    start = predict(model, np.zeros((6, 5)), conditions)
    np.testing.assert_allclose(found.baseline_predictions, start, atol=1e-12)
    np.testing.assert_allclose(
        found.attributions.sum(2), predict(model, x, conditions) - start, atol=1e-7
    )


def test_what_passes_by_is_the_remainder(rng):
    model, x = shake(ResidualMLP()).double(), rng.standard_normal((4, 6))
    found = attribute(model, x, "blocks.1")
    assert np.abs(found.remainder).max() > 1e-2
    summed = found.attributions.sum(2) + found.remainder
    np.testing.assert_allclose(summed, found.predictions - found.baseline_predictions, atol=1e-6)
    # Without the connection past it, nothing else would be left: the end is linear.
    ends = [predict(model, x) - found.baseline_predictions, found.attributions.sum(2)]
    np.testing.assert_allclose(ends[0] - ends[1], found.remainder, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_and_order_change_nothing(model, images, batch_size):
    options = dict(layer="4", baseline=ZeroBaseline(), n_steps=4, by_channel=True)
    whole = layer_integrated_gradients(model, images, **options)
    assert whole.attributions.shape == (3, 3, 4)
    cut = layer_integrated_gradients(model, images[::-1].copy(), batch_size=batch_size, **options)
    np.testing.assert_allclose(cut.attributions[::-1], whole.attributions, atol=1e-13)


def test_result_is_saved_and_loaded(model, images, tmp_path):
    found = layer_integrated_gradients(
        model, images, layer="4", baseline=ZeroBaseline(), n_steps=2, regions={"a": [0]}
    )
    found.save(tmp_path / "units.npz")
    loaded = LayerIGResult.load(tmp_path / "units.npz")
    np.testing.assert_array_equal(loaded.region_values, found.region_values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(layer="x"), "layer: expected a module of the model"),
        (dict(baseline=PairedBaseline()), "baseline: expected a baseline for single samples"),
        (dict(path="activities", regions={"a": [0]}), "regions: expected none"),
        (dict(regions={"a": [64]}), r"regions\['a'\]: expected indices from 0 to 63"),
        (dict(regions={"a": {"b": [1], "c": [1]}}), r"regions\['a'\]: expected branches"),
        (dict(regions=[1, 2]), "regions: expected a dict of names to components"),
        (dict(n_steps=0), "n_steps: expected 1 or more"),
        (dict(inputs=np.zeros((0, 1, 8, 8))), "inputs: expected at least one sample"),
    ],
)
def test_bad_input_is_named(model, images, options, message):
    options = dict(inputs=images, layer="4", baseline=ZeroBaseline()) | options
    with pytest.raises(InputError, match=message):
        layer_integrated_gradients(model, options.pop("inputs"), **options)
