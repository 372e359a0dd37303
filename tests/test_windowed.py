"""Maps of networks with windows: closed forms, the general engine, and how the work is cut."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import integrated_gradient_correlation, window_correlation, windowed
from neuroigc.models import FieldEncoderNetwork

SIZE, N_OUTPUTS, N = 16, 5, 60


@pytest.fixture
def images(rng):
    strength = np.exp(0.5 * rng.standard_normal((N, 4, 4))).repeat(4, 1).repeat(4, 2)
    return (strength * rng.standard_normal((N, SIZE, SIZE))).astype(np.float32)


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = FieldEncoderNetwork(
        SIZE, N_OUTPUTS, channels=(3, 2), kernel_sizes=(3, 3), largest_grid=8
    ).eval()
    network.readout.set_parameters(
        x=torch.linspace(-0.6, 0.6, N_OUTPUTS),
        y=torch.linspace(0.5, -0.3, N_OUTPUTS),
        log_width=torch.linspace(-1.8, -0.9, N_OUTPUTS),
        power=torch.linspace(-0.3, 1.0, N_OUTPUTS),
        share=torch.linspace(0.0, 0.6, N_OUTPUTS),
    )
    with torch.no_grad():
        for layer in (network.stem, network.body.features[3]):
            layer.weight *= 6
    return network


class Behind(nn.Module):
    """What follows the features."""

    def __init__(self, network):
        super().__init__()
        self.readout, self.head = network.readout, network.head

    def forward(self, features):
        return self.head(self.readout(features))


@pytest.mark.parametrize("auto", [True, False])
def test_is_what_the_general_engine_says_of_the_layer(network, images, rng, auto):
    targets = None
    with torch.no_grad():
        features = network.features(torch.from_numpy(images)).numpy()
        if not auto:
            targets = network(torch.from_numpy(images)).numpy()
            targets = targets + targets.std(0) * rng.standard_normal(targets.shape)
    expected = integrated_gradient_correlation(
        Behind(network).eval(), features, targets, tolerance=1e-9, max_gradients=600
    )
    found = window_correlation(network, images, targets, n_shifts=30)
    maps = expected.attributions.sum(1)
    assert found.attributions.shape == maps.shape == (N_OUTPUTS, 8, 8)
    np.testing.assert_allclose(found.correlation, expected.correlation, atol=1e-5)
    # All distances but the half were drawn once: what differs is what the engine drew.
    error = np.linalg.norm(found.attributions - maps, axis=(1, 2)) / np.linalg.norm(
        maps, axis=(1, 2)
    )
    assert error.max() < 0.12
    correlation = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(found.attributions, maps, strict=True)
    ]
    assert min(correlation) > 0.99
    assert (np.abs(found.completeness_gap) < 0.1).all()
    assert found.settings["auto_correlation"] is auto


class Linear(nn.Module):
    """Outputs that are sums of pixels: inside less the scene."""

    def __init__(self, weights, scene):
        super().__init__()
        self.weights, self.scene = nn.Parameter(weights), nn.Parameter(scene)

    def features(self, inputs):
        return inputs[:, None]

    def window_weights(self):
        return self.weights[:, None], self.scene[:, None]

    def from_sums(self, inside, scene):
        return inside - scene

    def forward(self, inputs):
        return inputs.flatten(1) @ (self.weights - self.scene).T


def test_linear_windows_have_the_closed_form(rng):
    x = rng.standard_normal((50, 4, 6)) @ rng.standard_normal((6, 6))
    weights, scene = torch.from_numpy(rng.standard_normal((2, 3, 24)))
    network = Linear(weights, scene)
    y = x.reshape(50, -1) @ (weights - scene).numpy().T + rng.standard_normal((50, 3))
    # All distances, and both halves of them.
    found = window_correlation(network, x, y, n_shifts=25)
    f = x.reshape(50, -1) @ (weights - scene).numpy().T
    centred = (x - x.mean(0)).reshape(50, -1)
    cov = np.einsum("nl,nv->vl", centred, (y - y.mean(0)) / y.std(0)) / 50
    expected = cov * (weights - scene).numpy() / f.std(0)[:, None]
    got = found.attributions.reshape(3, -1)
    np.testing.assert_allclose(
        np.linalg.norm(got - expected) / np.linalg.norm(expected), 0, atol=0.2
    )
    np.testing.assert_allclose(expected.sum(1), found.correlation, atol=1e-10)
    exhaustive = [
        window_correlation(network, x, y, n_shifts=25, seed=seed).attributions for seed in range(40)
    ]
    mean = np.mean(exhaustive, 0).reshape(3, -1)
    # Unbiased over the distances that are drawn.
    np.testing.assert_allclose(mean, expected, atol=4 * np.abs(expected).max() * 0.2 / 40**0.5)


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 1}, {"batch_size": 7}, {"order": True}, {"blocks": 2}, {"kind": "tensor"}],
)
def test_cutting_changes_rounding_only(network, images, monkeypatch, change):
    network, images = network.double(), images.astype(np.float64)
    expected = window_correlation(network, images, n_shifts=8)
    if change.pop("order", False):
        images = images[np.random.default_rng(0).permutation(N)]
    if blocks := change.pop("blocks", None):
        monkeypatch.setattr(windowed, "MOST_NUMBERS", N * blocks)
    if change.pop("kind", None):
        images = torch.from_numpy(images)
    found = window_correlation(network, images, n_shifts=8, **change)
    np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-12)
    np.testing.assert_allclose(found.standard_errors, expected.standard_errors, atol=1e-12)
    np.testing.assert_allclose(found.numerical_error, expected.numerical_error, rtol=1e-8)


def test_numerical_error_is_about_the_error_made(network, images):
    maps = [window_correlation(network, images, n_shifts=4, seed=seed) for seed in range(30)]
    exact = np.mean([m.attributions for m in maps], 0)
    norm = np.linalg.norm(exact, axis=(1, 2))
    made = np.mean([np.linalg.norm(m.attributions - exact, axis=(1, 2)) / norm for m in maps], 0)
    said = np.mean([m.numerical_error for m in maps], 0)
    assert (made / said > 0.7).all()
    assert (made / said < 1.4).all()


@pytest.mark.parametrize("auto", [True, False])
def test_standard_errors_are_the_spread_over_samples(rng, auto):
    # Means that are large against deviations, as those of features are.
    x = 5 + rng.standard_normal((40, 200, 4, 6)) @ rng.standard_normal((6, 6))
    weights = torch.from_numpy(rng.standard_normal((3, 24)))
    network = Linear(weights, torch.zeros_like(weights))
    y = x.reshape(40, 200, -1) @ weights.numpy().T
    y = y + y.std((0, 1)) * rng.standard_normal(y.shape)
    found = [
        window_correlation(network, *(own if not auto else own[:1]), n_shifts=40)
        for own in zip(x, y, strict=True)
    ]
    made = np.std([result.attributions for result in found], axis=0, ddof=1)
    said = np.sqrt(np.mean([result.standard_errors**2 for result in found], axis=0))
    assert 0.9 < np.median(said / made) < 1.1
    assert (said / made).min() > 0.6
    assert (said / made).max() < 1.7


def test_leaves_the_network_as_it_was_and_keeps_results(network, images, tmp_path):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = window_correlation(network, images, n_shifts=4)
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])
    result.save(tmp_path / "maps")
    again = type(result).load(tmp_path / "maps.npz")
    np.testing.assert_array_equal(again.attributions, result.attributions)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"network": nn.Linear(2, 2)}, "network: expected a network whose outputs look"),
        ({"n_shifts": 40}, "n_shifts: expected at most half"),
        ({"n_shifts": 1}, "n_shifts"),
        ({"targets": np.zeros((N, 2))}, r"targets: expected shape \(60, 5\)"),
        ({"targets": np.zeros((N, N_OUTPUTS))}, f"{N_OUTPUTS} constant ones, such as output 0"),
        ({"targets": np.zeros((N - 1, N_OUTPUTS))}, "59"),
        ({"targets": np.full((N, N_OUTPUTS), np.nan)}, "targets: expected finite numbers"),
        ({"images": np.ones((N, 12, SIZE), np.float32)}, r"inputs: .*; got shape \(12, 16\)"),
        ({"images": np.full((N, SIZE, SIZE), np.nan, np.float32)}, "inputs: expected finite"),
    ],
)
def test_bad_input(network, images, change, match):
    network, images = change.pop("network", network), change.pop("images", images)
    with pytest.raises(InputError, match=match):
        window_correlation(network, images, **change)
