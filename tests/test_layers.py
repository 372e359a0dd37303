"""Units' IGC: the definition by loops, sums in every layer, tables that add up, errors."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, Quadratic, cnn, make_targets, mlp, predict, shake
from module_zoo import Patches, Recurrent, ResidualCNN, ResidualMLP
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    GivenBaseline,
    LayerIGCResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradient_correlation,
    layer_correlation,
)
from neuroigc.attribution.reference import reference_igc_of_pairs

# Enough rounds for all pairs of so many samples.
N = 24
ALL_PAIRS = dict(n_pairs=N)
ARCHITECTURES = {
    "perceptron": (mlp, (6,)),
    "convolutions": (cnn, (1, 8, 8)),
    "residual": (ResidualMLP, (6,)),
    "recurrent": (Recurrent, (5, 3)),
}


def case(name, rng, n=N):
    make, shape = ARCHITECTURES[name]
    model = shake(make()).double()
    x = rng.standard_normal((n, *shape))
    return model, x, make_targets(model, x, rng)


def every_layer(passed_by):
    """List the layers whose units are tensors, of which connections pass by or do not."""
    return [
        (name, layer)
        for name, (make, _) in ARCHITECTURES.items()
        for layer, module in make().named_modules()
        if layer
        and not isinstance(module, nn.ModuleList | nn.LSTM)
        and ("blocks" in layer) == passed_by
    ]


def summed(result):
    return result.attributions.reshape(len(result.correlation), -1).sum(1)


@pytest.mark.parametrize("path", ["inputs", "activities"])
@pytest.mark.parametrize(("name", "layer"), every_layer(False))
def test_units_sum_to_the_correlation_in_every_layer(name, layer, path, rng):
    model, x, y = case(name, rng)
    found = layer_correlation(model, x, y, layer=layer, path=path, n_steps=20, **ALL_PAIRS)
    np.testing.assert_allclose(summed(found), found.correlation, atol=1e-4)
    np.testing.assert_allclose(found.remainder, 0, atol=1e-12)
    np.testing.assert_allclose(
        summed(found) - found.correlation, found.completeness_gap, atol=1e-12
    )


@pytest.mark.parametrize(("name", "layer"), every_layer(True))
def test_what_passes_by_is_reported(name, layer, rng):
    model, x, y = case(name, rng)
    found = layer_correlation(model, x, y, layer=layer, n_steps=20, **ALL_PAIRS)
    np.testing.assert_allclose(summed(found) + found.remainder, found.correlation, atol=1e-4)
    assert np.abs(found.remainder).max() > 1e-3
    with pytest.raises(InputError, match="which connections pass by"):
        layer_correlation(model, x, y, layer=layer, path="activities")


def test_attention_is_differentiated_twice(rng):
    # Other formulas of attention than the plain one are not.
    model, x = shake(Patches()).double(), rng.standard_normal((8, 1, 8, 8))
    y = make_targets(model, x, rng)
    found = layer_correlation(model, x, y, layer="norm", n_pairs=4, n_steps=50)
    assert np.abs(found.completeness_gap).max() < 0.01


def test_kinks_leave_a_gap_that_more_points_close(rng):
    model, x = shake(ResidualCNN()).double(), rng.standard_normal((12, 2, 8, 8))
    y = make_targets(model, x, rng)
    gaps = [
        np.abs(
            layer_correlation(model, x, y, layer="blocks.0", n_steps=n, n_pairs=6).completeness_gap
        ).max()
        for n in (4, 300)
    ]
    assert gaps[1] < 0.002 < gaps[0]


def conductance_by_loops(model, layer, x, start, t, regions):
    """Return ∂f/∂a ∘ (∂a/∂x d) at one point, of the difference inside each region."""
    front, back = model[: layer + 1], model[layer + 1 :]
    point = torch.from_numpy(start + t * (x - start))[None]
    slope = torch.func.jacrev(lambda a: back(a[None])[0])(front(point)[0])
    found = []
    for region in regions:
        step = torch.zeros(x.size, dtype=torch.float64)
        step[region] = torch.from_numpy(x - start).flatten()[region]
        jacobian = torch.func.jacrev(lambda z: front(z[None])[0])(point[0])
        found.append((slope * (jacobian @ step)).detach().numpy())
    return np.array(found)


@pytest.mark.parametrize("layer", [1, 2, 5])
def test_is_the_definition(rng, layer):
    model, x, y = case("perceptron", rng, n=8)
    regions = {"a": [0, 3], "b": [1, 2, 4, 5]}
    everything = [np.arange(6), *map(np.array, regions.values())]
    nodes, weights = np.polynomial.legendre.leggauss(5)
    c = (y - y.mean(0)) / y.std(0)
    expected = 0
    for i in range(8):
        for j in range(8):
            for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                part = conductance_by_loops(model, layer, x[i], x[j], node, everything)
                expected = expected + weight * (c[i] - c[j])[:, None] * part / (2 * 64)
    expected /= predict(model, x).std(0)[:, None]
    found = layer_correlation(model, x, y, layer=str(layer), regions=regions, n_steps=5, n_pairs=4)
    np.testing.assert_allclose(found.attributions, expected[0], atol=1e-12)
    tables = found.region_attributions
    np.testing.assert_allclose(tables, expected[1:].transpose(1, 0, 2), atol=1e-12)


def test_between_activities_is_igc_of_what_follows(rng):
    model, x, y = case("perceptron", rng)
    found = layer_correlation(model, x, y, layer="2", path="activities", n_steps=12, **ALL_PAIRS)
    activity = model[:3](torch.from_numpy(x)).detach().numpy()
    nodes, weights = np.polynomial.legendre.leggauss(12)
    pairs = [(i, j, 2 / N**2) for i in range(N) for j in range(i)]
    expected = reference_igc_of_pairs(
        model[3:],
        activity,
        y,
        pairs=pairs,
        points=np.tile((nodes + 1) / 2, (len(pairs), 1)),
        weights=np.tile(weights / 2 * 12, (len(pairs), 1)),
    )
    np.testing.assert_allclose(found.attributions, expected, atol=1e-10)


@pytest.mark.parametrize(("name", "layer"), [("perceptron", "2"), ("convolutions", "4")])
def test_table_adds_up_both_ways(name, layer, rng):
    model, x, y = case(name, rng)
    n_inputs = x[0].size
    cut = rng.permutation(n_inputs)
    regions = {"a": cut[: n_inputs // 3], "b": cut[n_inputs // 3 : -1], "c": cut[-1:]}
    found = layer_correlation(model, x, y, layer=layer, regions=regions, n_steps=16, **ALL_PAIRS)
    table = found.region_attributions.reshape(len(found.correlation), 3, -1)
    units = found.attributions.reshape(len(found.correlation), -1)
    np.testing.assert_allclose(table.sum(1), units, atol=1e-6)
    np.testing.assert_allclose(table.sum(2), found.group_values, atol=1e-6)
    np.testing.assert_allclose(table.sum((1, 2)), found.correlation, atol=1e-6)
    # What regions carry is their IGC, of which the general engine has an estimate.
    general = integrated_gradient_correlation(model, x, y, groups=regions, max_gradients=400)
    np.testing.assert_allclose(found.group_values, general.group_values, atol=0.01)
    np.testing.assert_allclose(
        found.group_standard_errors, general.group_standard_errors, rtol=0.25
    )


def test_table_adds_up_beside_what_passes_by(rng):
    model, x, y = case("residual", rng)
    regions = {"a": [0, 1, 2], "b": [3, 4, 5]}
    found = layer_correlation(model, x, y, layer="blocks.1", regions=regions, **ALL_PAIRS)
    past = found.group_values - found.region_attributions.sum(2)
    np.testing.assert_allclose(past.sum(1), found.remainder, atol=1e-10)
    assert np.abs(past).max() > 1e-3


@pytest.mark.parametrize(
    "baseline",
    [SampledBaseline(5), MeanBaseline(), ZeroBaseline(), GivenBaseline(np.eye(3, 6))],
    ids=lambda baseline: type(baseline).__name__,
)
def test_baselines_of_a_distribution_are_complete(rng, baseline):
    model, x, y = case("perceptron", rng)
    regions = {"a": [0, 1, 2], "b": [3, 4, 5]}
    found = layer_correlation(
        model, x, y, layer="2", baseline=baseline, n_steps=20, regions=regions
    )
    assert np.abs(found.completeness_gap).max() < 1e-9
    general = integrated_gradient_correlation(
        model, x, y, baseline=baseline, max_gradients=400, groups=regions
    )
    np.testing.assert_allclose(found.group_values, general.group_values, atol=0.01)
    np.testing.assert_allclose(
        found.group_standard_errors, general.group_standard_errors, rtol=0.25
    )


def test_few_pairs_report_what_they_miss(rng):
    model, x, y = case("perceptron", rng, n=60)
    exact = layer_correlation(model, x, y, layer="2", n_pairs=30)
    assert exact.settings["n_rounds"] == 30
    told, made = [], []
    for seed in range(20):
        few = layer_correlation(model, x, y, layer="2", n_pairs=4, seed=seed)
        size = np.linalg.norm(exact.attributions, axis=1)
        made.append(np.linalg.norm(few.attributions - exact.attributions, axis=1) / size)
        told.append(few.numerical_error)
    made = np.sqrt(np.mean(np.square(made), 0))
    assert (np.mean(told, 0) / made > 0.7).all()
    assert (np.mean(told, 0) / made < 2).all()
    assert exact.numerical_error.max() < 1e-3


def test_standard_errors_are_those_of_new_samples(rng):
    model = mlp().double()
    results = []
    for _ in range(50):
        x = rng.standard_normal((128, 6))
        y = make_targets(model, x, rng)
        results.append(
            layer_correlation(model, x, y, layer="2", n_pairs=6, n_steps=3, regions={"a": [0, 1]})
        )
    for name, error in (
        ("attributions", "standard_errors"),
        ("group_values", "group_standard_errors"),
        ("region_attributions", "region_attribution_errors"),
    ):
        spread = np.std([getattr(r, name) for r in results], 0)
        told = np.mean([getattr(r, error) for r in results], 0)
        assert 0.75 < np.median(told / spread) < 1.25


@pytest.mark.parametrize("options", [dict(batch_size=1), dict(batch_size=7), dict(memory=1e-5)])
@pytest.mark.parametrize("baseline", [PairedBaseline(), SampledBaseline(4)], ids=["pairs", "bank"])
def test_cutting_and_order_change_nothing(rng, options, baseline):
    model, x, y = case("perceptron", rng)
    order = rng.permutation(N)
    settings = dict(layer="2", n_pairs=3, n_steps=4, regions={"a": [1, 5]}, baseline=baseline)
    whole = layer_correlation(model, x, y, **settings)
    cut = layer_correlation(model, x[order], y[order], **settings, **options)
    for name in ("attributions", "standard_errors", "region_attributions", "group_values"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), atol=1e-12)


def test_many_outputs_are_read_from_latents(rng):
    model, x = cnn(n_outputs=20).double(), rng.standard_normal((12, 1, 8, 8))
    y = make_targets(model, x, rng)
    settings = dict(layer="4", n_pairs=2, n_steps=3, by_channel=True, regions={"a": np.arange(9)})
    many = layer_correlation(model, x, y, **settings)
    few = layer_correlation(model, x, y, outputs=[4, 17], **settings)
    assert many.attributions.shape == (20, 4)
    for name in ("attributions", "standard_errors", "region_attributions", "group_values"):
        np.testing.assert_allclose(getattr(many, name)[[4, 17]], getattr(few, name), atol=1e-12)
    whole = layer_correlation(model, x, y, **(settings | dict(by_channel=False)))
    np.testing.assert_allclose(whole.attributions.sum((2, 3)), many.attributions, atol=1e-12)


def test_quadratic_model_of_named_units_is_closed(rng):
    # Units that are the inputs themselves: half the gradient at both ends, exactly.
    a = rng.standard_normal((4, 4))
    model = nn.Sequential(nn.Identity(), Quadratic(a + a.T))
    x, y = rng.standard_normal((10, 4)), rng.standard_normal(10)
    found = layer_correlation(model, x, y, layer="0", n_pairs=5, n_steps=1)
    f, c = predict(model, x)[:, 0], (y - y.mean()) / y.std()
    expected = np.zeros(4)
    for i in range(10):
        for j in range(10):
            slope = (x[i] + x[j]) / 2 @ (a + a.T)
            expected += (c[i] - c[j]) * (x[i] - x[j]) * slope / 200
    np.testing.assert_allclose(found.attributions[0], expected / f.std(), atol=1e-12)


def test_conditions_stay_together(rng):
    model = shake(Conditioned()).double()
    x, conditions = rng.standard_normal((30, 5)), np.arange(30) % 3
    y = make_targets(model, x, rng, conditions)
    found = layer_correlation(
        model, x, y, layer="first", conditions=conditions, n_pairs=5, n_steps=16
    )
    assert np.abs(found.completeness_gap).max() < 1e-6
    moved = layer_correlation(
        model,
        x,
        y + conditions[:, None],
        layer="first",
        conditions=conditions,
        n_pairs=5,
        n_steps=16,
    )
    assert np.abs(moved.attributions - found.attributions).max() < 1e-6


def test_targets_may_be_the_predictions(rng):
    model, x, _ = case("perceptron", rng)
    found = layer_correlation(model, x, None, layer="2", n_steps=16, **ALL_PAIRS)
    np.testing.assert_allclose(found.attributions.sum(1), 1, atol=1e-6)


def test_model_is_left_as_it_was(rng):
    model, x, y = case("convolutions", rng)
    model.train()
    layer_correlation(model, x, y, layer=model[4], n_pairs=1, n_steps=1)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_result_is_saved_and_loaded(rng, tmp_path):
    model, x, y = case("perceptron", rng)
    found = layer_correlation(model, x, y, layer="2", n_pairs=2, regions={"a": [0], "b": [1]})
    found.save(tmp_path / "units.npz")
    loaded = LayerIGCResult.load(tmp_path / "units.npz")
    np.testing.assert_array_equal(loaded.region_attributions, found.region_attributions)
    frame = loaded.to_frame()
    assert list(frame["group"]) == ["a", "b"] * 2
    np.testing.assert_allclose(frame["igc"], found.group_values.ravel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(layer="seven"), "layer: expected a module of the model, or its name; got 'seven'"),
        (dict(path="straight"), "path: expected one of 'inputs', 'activities'"),
        (dict(path="activities", regions={"a": [0]}), "regions: expected none with path="),
        (dict(regions={"a": [99]}), r"regions\['a'\]: expected indices from 0 to 5"),
        (dict(n_pairs=0), "n_pairs: expected 1 or more"),
        (dict(n_steps=0), "n_steps: expected 1 or more"),
        (dict(memory=-1), "memory: expected a number above 0"),
        (dict(memory="1"), "memory: expected a number above 0"),
        (dict(inputs=np.zeros((1, 6)), targets=np.zeros((1, 2))), "at least three samples"),
        (dict(targets=np.ones((N, 2))), "targets: expected values that vary"),
        (dict(inputs=np.zeros((N, 6))), "model: expected predictions that vary"),
        (dict(baseline=3), "baseline: expected a PairedBaseline"),
    ],
)
def test_bad_input_is_named(rng, options, message):
    model, x, y = case("perceptron", rng)
    options = dict(inputs=x, targets=y, layer="2") | options
    with pytest.raises(InputError, match=message):
        layer_correlation(model, options.pop("inputs"), options.pop("targets"), **options)


def test_layer_that_sees_no_input_is_refused(rng):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift, self.line = nn.Embedding(2, 5), nn.Linear(5, 1)

        def forward(self, x, condition):
            return self.line(torch.tanh(x + self.shift(condition)))

    model, x, who = Shifted().double(), rng.standard_normal((10, 5)), np.arange(10) % 2
    with pytest.raises(InputError, match="layer: expected a module whose activity depends on"):
        layer_correlation(model, x, x[:, :1], conditions=who, layer="shift")
