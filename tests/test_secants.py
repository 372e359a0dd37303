"""Slopes between two points: exact over steps of any length, and derivatives in the limit."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from attribution_models import mlp, shake
from torch import nn
from torch.utils.checkpoint import checkpoint

from neuroigc.attribution import blur_integrated_gradients
from neuroigc.attribution.gradients import POINTWISE, gradients
from neuroigc.attribution.scale_space import ScaleSpace
from neuroigc.attribution.secants import has_kinks, secant_gradients


def ends(rng, distance, n=9, width=6):
    low = rng.standard_normal((n, width))
    return torch.from_numpy(low), torch.from_numpy(low + distance * rng.standard_normal((n, width)))


def change(model, low, high, slopes):
    """Return what the model changes by, and what slopes say, (n, n_values) each."""
    with torch.no_grad():
        return model(high) - model(low), torch.einsum("nki,ni->nk", slopes, high - low)


def keep(slope):
    return slope


@pytest.mark.parametrize("distance", [3.0, 1e-2, 1e-9])
@pytest.mark.parametrize("kind", POINTWISE)
def test_slopes_times_steps_are_changes(rng, kind, distance):
    model = mlp(activation=kind).double()
    low, high = ends(rng, distance)
    slopes = secant_gradients(model, model, low, high, keep)
    expected, told = change(model, low, high, slopes)
    np.testing.assert_allclose(told, expected, atol=1e-13)
    back = secant_gradients(model, model, high, low, keep)
    np.testing.assert_allclose(back, slopes, atol=1e-12)


@pytest.mark.parametrize("kind", POINTWISE)
def test_slopes_of_one_point_are_its_gradient(rng, kind):
    model, (low, _) = mlp(activation=kind).double(), ends(rng, 0.0)
    found = secant_gradients(model, model, low, low, keep)
    np.testing.assert_allclose(found, gradients(model, low, keep), atol=1e-13)


def test_single_precision_is_as_good_as_it_gets(rng):
    model = mlp(activation=nn.ReLU)
    low, high = (points.float() for points in ends(rng, 1e-4))
    expected, told = change(model, low, high, secant_gradients(model, model, low, high, keep))
    np.testing.assert_allclose(told, expected, atol=1e-6)


class Reused(nn.Module):
    """One activation in two places, one in place, and rows that are cut into several."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(6, 2)
        self.activation, self.in_place = nn.ReLU(), nn.LeakyReLU(inplace=True)

    def forward(self, x):
        hidden = self.activation(self.first(x.reshape(len(x), 2, 3).transpose(0, 1)))
        hidden = self.in_place(self.activation(self.second(hidden)) - 0.2)
        return self.last(hidden.transpose(0, 1).flatten(1))


def test_modules_may_be_used_twice_and_in_place_on_rows_in_any_order(rng):
    model, (low, high) = shake(Reused()).double(), ends(rng, 2.0)
    expected, told = change(model, low, high, secant_gradients(model, model, low, high, keep))
    np.testing.assert_allclose(told, expected, atol=1e-12)
    assert model.in_place.inplace
    assert not any(module._forward_hooks for module in model.modules())


class Layers(nn.Module):
    """What the models below are made of."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.activation, self.in_place = nn.ReLU(), nn.LeakyReLU(inplace=True)


class WritesUnseen(Layers):
    """Nobody takes what the activation returns, but what it has written."""

    def forward(self, x):
        hidden = self.first(x)
        self.in_place(hidden)
        hidden = self.second(hidden)
        return self.last(hidden + self.second(self.in_place(hidden)))


class WrittenBehind(Layers):
    """What an activation was given changes later on."""

    def forward(self, x):
        hidden = self.first(x)
        positive = self.activation(hidden)
        return self.last(positive - 0.3 * self.activation(hidden.neg_()))


class ByName(Layers):
    def forward(self, x):
        return self.last(self.in_place(input=self.second(self.activation(input=self.first(x)))))


class FastWithoutGradients(Layers):
    """As layers of transformers in evaluation mode, which then skip their modules."""

    def forward(self, x):
        hidden = self.first(x)
        hidden = self.activation(hidden) if torch.is_grad_enabled() else torch.relu(hidden)
        return self.last(self.in_place(self.second(hidden)))


class Checkpointed(Layers):
    """Parts are computed a second time on the way back, the last one first."""

    def forward(self, x):
        def part(x):
            return self.in_place(self.second(self.activation(self.first(x))))

        hidden = checkpoint(part, checkpoint(part, x, use_reentrant=False), use_reentrant=False)
        return self.last(self.activation(hidden))


@pytest.mark.parametrize(
    "make", [WritesUnseen, WrittenBehind, ByName, FastWithoutGradients, Checkpointed]
)
def test_models_compute_what_they_do_otherwise(rng, make):
    model, (low, high) = shake(make()).double(), ends(rng, 2.0)
    expected, told = change(model, low, high, secant_gradients(model, model, low, high, keep))
    np.testing.assert_allclose(told, expected, atol=1e-12)
    same = secant_gradients(model, model, low, low, keep)
    np.testing.assert_allclose(same, gradients(model, low, keep), atol=1e-13)
    assert model.in_place.inplace


def test_models_that_fail_are_left_as_they_were(rng):
    class Fails(Layers):
        def forward(self, x):  # noqa: ARG002
            raise RuntimeError(str(self.in_place.inplace))

    model = Fails().double()
    with pytest.raises(RuntimeError, match="False"):
        secant_gradients(model, model, *ends(rng, 1.0), keep)
    assert model.in_place.inplace
    assert not any(module._forward_hooks for module in model.modules())


def test_other_modules_have_the_mean_of_their_derivatives(rng):
    model = shake(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2))).double()
    low, high = ends(rng, 0.5)
    found = secant_gradients(model, model, low, high, keep)
    mean = (gradients(model, low, keep) + gradients(model, high, keep)) / 2
    np.testing.assert_allclose(found, mean, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "kinked"), [(nn.ReLU, True), (nn.SELU, True), (nn.Mish, False), (nn.GELU, False)]
)
def test_kinks_are_seen(kind, kinked):
    assert has_kinks(mlp(activation=kind)) is kinked
    assert has_kinks(nn.Sequential(mlp(activation=kind), nn.MaxPool1d(2)))


def rectified(images, *layers):
    network = nn.Sequential(nn.Flatten(), *(layers or mlp(64, 2, nn.ReLU, width=24)))
    return shake(network).double(), images


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Mish])
def test_blur_is_complete_where_maxima_are_pooled(rng, activation):
    layers = nn.Conv2d(1, 3, 3), activation(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 2, 2)
    network = nn.Sequential(*layers, activation(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    model, images = shake(network).double(), rng.standard_normal((5, 1, 8, 8))
    few, more, many = (blur_integrated_gradients(model, images, n_points=n) for n in (3, 30, 300))
    assert np.abs(few.scale_gap).max() < 1e-13
    assert np.abs(few.completeness_gap).max() < 1e-13
    errors = [np.linalg.norm(found.attributions - many.attributions) for found in (few, more)]
    assert errors[1] < errors[0] / 20


@pytest.mark.parametrize("n_points", [1, 20])
def test_blur_is_complete_in_spite_of_kinks(rng, n_points):
    model, images = rectified(rng.standard_normal((7, 8, 8)))
    found = blur_integrated_gradients(model, images, n_points=n_points)
    assert np.abs(found.scale_gap).max() < 1e-13
    assert np.abs(found.completeness_gap).max() < 1e-13
    single = blur_integrated_gradients(model.float(), images.astype("f4"), n_points=n_points)
    assert np.abs(single.completeness_gap).max() < 1e-5


def test_blur_tends_to_the_integral(rng):
    model, images = rectified(rng.standard_normal((5, 8, 8)))
    space = ScaleSpace((8, 8), 2, torch.zeros(1, dtype=torch.float64))
    spectrum, edges = space.spectrum(torch.from_numpy(images)), np.linspace(0, 8, 20_001)
    expected = torch.zeros(5, 2, 64, dtype=torch.float64)
    sharp = space.blurred(spectrum, 0.0)
    for low, high in pairwise(edges):
        blurred = space.blurred(spectrum, high)
        middle = space.blurred(spectrum, (low + high) / 2)
        expected += gradients(model, middle, keep) * (sharp - blurred)[:, None]
        sharp = blurred
    errors = []
    for n_points in (4, 16):
        maps = blur_integrated_gradients(model, images, n_points=n_points).attributions
        difference = maps.reshape(expected.shape) - expected.numpy()
        errors.append(np.linalg.norm(difference) / np.linalg.norm(expected))
    assert errors[0] < 0.03
    assert errors[1] < errors[0] / 8


class Functional(nn.Module):
    """Kinks that no module shows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 24), nn.Linear(24, 2)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1))))


def normalised():
    return nn.Linear(64, 24), nn.LayerNorm(24), nn.ReLU(), nn.Linear(24, 2)


@pytest.mark.parametrize("make", [Functional, lambda: nn.Sequential(nn.Flatten(), *normalised())])
def test_what_is_missing_elsewhere_is_reported(rng, make):
    images, model = rng.standard_normal((7, 8, 8)), shake(make()).double()
    few, many = (blur_integrated_gradients(model, images, n_points=n) for n in (4, 200))
    summed = few.attributions.reshape(7, 2, -1).sum(2)
    np.testing.assert_allclose(
        few.completeness_gap, summed - few.predictions + few.baseline_predictions, atol=1e-12
    )
    assert np.abs(few.completeness_gap).max() > 1e-5
    assert np.abs(many.completeness_gap).max() < np.abs(few.completeness_gap).max() / 4
