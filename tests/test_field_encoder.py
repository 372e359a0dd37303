"""Encoders that look through windows: closed forms, scipy and the attribution engine."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from sklearn.exceptions import NotFittedError
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import integrated_gradient_correlation
from neuroigc.models import FieldEncoder, FieldEncoderNetwork, windows
from neuroigc.models.fields import WindowReadout, _Pool, growth, make_point_symmetric
from neuroigc.models.windows import contrast_exponents, finish_windows, place_windows

SIZE, N_OUTPUTS = 24, 6
FAST = {"channels": (3, 4), "kernel_sizes": (3, 3), "largest_grid": 12, "max_epochs": 3}


@pytest.fixture
def images(rng):
    """Noise whose contrast varies from place to place."""
    noise = torch.from_numpy(rng.standard_normal((300, SIZE, SIZE)).astype(np.float32))
    coarse = torch.from_numpy(rng.standard_normal((300, 1, 6, 6)).astype(np.float32))
    strength = nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")[:, 0]
    return noise * torch.exp(0.7 * strength)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = FieldEncoderNetwork(
        SIZE, N_OUTPUTS, channels=(3, 4), kernel_sizes=(3, 3), largest_grid=12
    ).eval()
    network.readout.set_parameters(
        x=torch.tensor([-0.5, -0.3, 0.0, 0.2, 0.4, 0.6]),
        y=torch.tensor([0.5, -0.5, 0.1, -0.2, 0.3, -0.4]),
        log_width=torch.linspace(-1.8, -0.9, N_OUTPUTS),
        power=torch.linspace(-0.3, 1.0, N_OUTPUTS),
        share=torch.linspace(0.0, 0.6, N_OUTPUTS),
    )
    with torch.no_grad():
        network.readout.raw_weights.normal_()
        network.head.weight.copy_(torch.linspace(0.5, 2, N_OUTPUTS)[:, None])
        # Features that vary as much as those of a trained network do.
        for layer in (network.stem, network.body.features[3]):
            layer.weight *= 6
    return network


def batches(images, targets, weights=None, size=64):
    def cut():
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            yield images[part], targets[part], None if weights is None else weights[part]

    return cut


def test_symmetric_features_stand_where_the_image_has_them(network, images):
    arguments = {"channels": (3, 4), "kernel_sizes": (3, 3), "largest_grid": 12}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    symmetric = make_point_symmetric(network, image_size=SIZE, n_outputs=N_OUTPUTS, **arguments)
    assert not symmetric.training
    turned = images.flip(-1, -2)
    with torch.no_grad():
        both = network.features(images), network.features(turned).flip(-1, -2)
        found = symmetric.features(images)
        torch.testing.assert_close(found, (both[0] + both[1]) / 2)
        torch.testing.assert_close(symmetric.features(turned), found.flip(-1, -2))
    # Which is not so without.
    assert (both[0] - both[1]).abs().mean() > 0.05 * both[0].std()
    # Windows are the same, and the network is a factorised one as before.
    assert torch.equal(symmetric.readout.windows(), network.readout.windows())
    hidden = symmetric.stem(images)
    torch.testing.assert_close(symmetric.head(symmetric.body(hidden)), symmetric(images))
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])


def test_is_what_the_formula_says(network, images):
    readout, head = network.readout, network.head
    features = network.features(images[:3]).detach().numpy()
    assert features.min() >= 0
    rows, columns = features.shape[2:]
    y = 1 - (2 * np.arange(rows) + 1) / rows
    x = (2 * np.arange(columns) + 1) / columns - 1
    now = {name: value.detach().numpy() for name, value in readout.parameters_by_name.items()}
    with torch.no_grad():
        got = network(images[:3]).numpy()
    weights, scene_weights = (w.detach().numpy() for w in readout.weights())
    for v in range(N_OUTPUTS):
        squared = (x - now["x"][v]) ** 2 + (y[:, None] - now["y"][v]) ** 2
        window = np.exp(-squared / (2 * np.exp(now["log_width"][v]) ** 2))
        inside = ((features * window / window.sum()).sum((2, 3)) * weights[v]).sum(1)
        scene = (features.mean((2, 3)) * scene_weights[v]).sum(1)
        k, quotient = now["power"][v], inside / scene ** now["share"][v]
        expected = head.weight[v, 0].item() * (quotient**k - 1) / k + head.bias[v].item()
        np.testing.assert_allclose(got[:, v], expected, rtol=1e-4)


def test_conditions_are_not_dropped_quietly(network, images):
    with pytest.raises(InputError, match="conditions: expected none"):
        network(images[:3], torch.zeros(3, dtype=torch.int64))


def test_features_that_no_gradient_comes_through_are_left_out_exactly(rng):
    features = torch.from_numpy(rng.random((2, 3, 5))).requires_grad_(True)
    windows = torch.from_numpy(rng.random((4, 5))).requires_grad_(True)
    assert torch.autograd.gradcheck(_Pool.apply, (features, windows))
    for v in range(4):
        (got,) = torch.autograd.grad(
            _Pool.apply(features, windows.detach())[..., v].sum(), features
        )
        torch.testing.assert_close(got, windows.detach()[v].expand_as(got))


def test_places_windows_where_contrast_goes_along_with_responses(rng):
    # Up and to the right, and down and to the left: neither a flip nor a transpose agrees.
    images = torch.from_numpy(rng.standard_normal((400, SIZE, SIZE)).astype(np.float32))
    strength = torch.from_numpy(rng.random((400, 2)).astype(np.float32)) * 3 + 0.1
    images[:, 2:8, 12:18] *= strength[:, :1, None]
    images[:, 18:22, 1:5] *= strength[:, 1:, None]
    network = FieldEncoderNetwork(SIZE, 2, channels=(2,), kernel_sizes=(3,))
    targets = (strength - strength.mean(0)) / strength.std(0)
    place_windows(network, batches(images, targets)())
    now = network.readout.parameters_by_name
    np.testing.assert_allclose(now["x"].detach(), [0.25, -0.75], atol=0.15)
    np.testing.assert_allclose(now["y"].detach(), [0.583, -0.667], atol=0.15)


@pytest.mark.parametrize("weighted", [False, True])
def test_finished_windows_are_those_of_scipy(network, images, rng, weighted):
    network, images = network.double(), images.double()
    with torch.no_grad():
        targets = network(images)
        targets = targets + 0.1 * targets.std(0) * torch.randn(targets.shape)
    weights = torch.from_numpy(rng.random(len(images))) + 0.5 if weighted else None
    readout, head = network.readout, network.head
    truth = {name: value.detach().clone() for name, value in readout.parameters_by_name.items()}
    readout.set_parameters(
        x=truth["x"] + 0.05, y=truth["y"] - 0.05, log_width=truth["log_width"] + 0.1
    )
    first = torch.cat(readout.weights(), 1).detach().log().numpy()
    covariance = finish_windows(network, batches(images, targets, weights), n_steps=12).numpy()
    found = torch.stack([*readout.parameters_by_name.values()], 1).detach().double().numpy()
    features = network.features(images).detach().double().flatten(2).numpy()
    grid_x, grid_y = readout.grid_x.double().numpy(), readout.grid_y.double().numpy()
    logs = [weights.detach().log().numpy() for weights in readout.weights()]
    scale = 1 if weights is None else weights.double().sqrt().numpy()
    spread = np.sqrt(np.cov(targets.T.numpy(), aweights=weights, bias=True).diagonal())

    def residuals(p, v):
        squared = (grid_x - p[0]) ** 2 + (grid_y - p[1]) ** 2
        window = np.exp(-squared / (2 * np.exp(2 * p[2])))
        inside = np.log((features @ (window / window.sum())) @ np.exp(p[7:11]) + 1e-6)
        scene = np.log(features.mean(2) @ np.exp(p[11:]) + 1e-6)
        drive = inside - p[4] * scene - readout.typical[v].item()
        predicted = p[5] * np.expm1(p[3] * drive) / p[3] + p[6]
        return (predicted - targets[:, v].double().numpy()) * scale

    def with_prior(p, v):
        return np.concatenate([residuals(p, v), spread[v] * (p[7:] - first[v])])

    for v in range(N_OUTPUTS):
        linear = [head.weight[v, 0].item(), head.bias[v].item()]
        start = np.concatenate([found[v], linear, *(own[v] for own in logs)])
        options = dict(x_scale="jac", xtol=1e-12, ftol=1e-12)
        fit = least_squares(with_prior, start, args=(v,), **options)
        inverse = np.linalg.inv(fit.jac.T @ fit.jac)
        n_learned = len(start) - spread[v] ** 2 * np.diag(inverse)[7:].sum()
        noise = (residuals(fit.x, v) ** 2).sum() / (len(images) - n_learned)
        expected = noise * inverse[:5, :5]
        # Far closer than the data can tell.
        assert (np.abs(fit.x[:5] - found[v]) < 0.05 * np.sqrt(np.diag(expected)) + 1e-4).all()
        np.testing.assert_allclose(np.diag(covariance[v]), np.diag(expected), rtol=0.05)


@pytest.mark.parametrize(
    "limits", [{"KEPT_BYTES": 0}, {"KEPT_BYTES": 10**6}, {"OUTPUT_BLOCK": 2}, {"OUTPUT_BLOCK": 4}]
)
def test_what_is_kept_and_held_changes_nothing(network, images, monkeypatch, limits):
    network, images = network.double(), images.double()
    with torch.no_grad():
        targets = network(images)
        targets = targets + 0.1 * targets.std(0) * torch.randn(targets.shape)
    other = copy.deepcopy(network)
    covariance = finish_windows(network, batches(images, targets), n_steps=3)
    for name, value in limits.items():
        monkeypatch.setattr(windows, name, value)
    same = finish_windows(other, batches(images, targets), n_steps=3)
    np.testing.assert_allclose(same, covariance, rtol=1e-6)
    for name, value in network.state_dict().items():
        np.testing.assert_allclose(other.state_dict()[name], value, atol=1e-9, err_msg=name)


def test_vertices_that_see_nothing_hinder_no_others_and_are_not_known(network, images):
    with torch.no_grad():
        targets = network(images)
    targets = targets / targets.std(0) + 0.2 * torch.randn(targets.shape)
    other = copy.deepcopy(network)
    with torch.no_grad():
        # Features weigh nothing, so that responses are all the same.
        network.readout.raw_weights[0] = network.readout.raw_weights[3] = -200.0
        network.readout.raw_share[3] = 0.0
    covariance = finish_windows(network, batches(images, targets), n_steps=3)
    expected = finish_windows(other, batches(images, targets), n_steps=3)
    assert all(value.isfinite().all() for value in network.state_dict().values())
    seeing = torch.tensor([1, 2, 4, 5])
    torch.testing.assert_close(covariance[seeing], expected[seeing])
    errors = covariance[:, [0, 1, 2], [0, 1, 2]].sqrt()
    assert (errors[[0, 3]] > 1e3).all()
    assert (errors[seeing] < 1).all()
    with torch.no_grad():
        predicted = network(images)
    torch.testing.assert_close(predicted[:, seeing], other(images).detach()[:, seeing])
    blind = torch.tensor([0, 3])
    mean = targets[:, blind].mean(0).expand(len(images), 2)
    torch.testing.assert_close(predicted[:, blind], mean, atol=1e-4, rtol=0)


def test_finished_weights_are_nearer_to_the_truth(network, images):
    with torch.no_grad():
        clean = network(images)
        truth = network.readout.weights()[0].clone()
        network.readout.raw_weights += 0.5 * torch.randn(network.readout.raw_weights.shape)
    began = network.readout.weights()[0].detach().clone()
    finish_windows(network, batches(images, clean), n_steps=8)
    own = network.readout.weights()[0].detach()

    def distance(weights):
        # What all weights have in common is the gain's.
        logs = torch.log(weights / truth)
        return (logs - logs.mean(1, keepdim=True)).square().mean()

    assert distance(own) < 0.5 * distance(began)
    with torch.no_grad():
        error = (network(images) - clean).square().mean(0) / clean.var(0)
    assert error.max() < 0.01


def test_reported_errors_are_those_made(network, images):
    with torch.no_grad():
        clean = network(images)
    readout = network.readout
    truth = torch.stack([*readout.parameters_by_name.values()], 1).detach()
    z = []
    for seed in range(12):
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        readout.set_parameters(**dict(zip(readout.parameters_by_name, truth.T, strict=True)))
        targets = clean + 0.2 * clean.std(0) * noise
        covariance = finish_windows(network, batches(images, targets), n_steps=8)
        found = torch.stack([*readout.parameters_by_name.values()], 1).detach()
        z.append((found - truth) / covariance.diagonal(dim1=1, dim2=2).sqrt())
    z = torch.stack(z)[..., :3]
    assert 0.75 < z.square().mean().sqrt() < 1.3
    assert z.mean().abs() < 0.3


@pytest.mark.parametrize("z", [-3.0, -0.021, -0.019, 0.0, 1e-4, 0.019, 0.021, 2.0])
def test_growth_and_its_slope(z):
    z = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    value, slope = growth(z)
    exact = np.expm1(z.item()) / z.item() if z.item() else 1.0
    assert abs(value.item() - exact) < 1e-8
    (by_torch,) = torch.autograd.grad(value, z)
    assert abs(by_torch.item() - slope.item()) < 1e-6


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_exponent_of_contrast_counts_what_features_do_to_it(network, power, floor):
    """Features c^power above a floor: of a window's power k, what is left is c^(k power)."""

    class Contrast(nn.Module):
        def forward(self, hidden):
            deviation = hidden - hidden.mean((1, 2), keepdim=True)
            contrast = (deviation**2).mean((1, 2), keepdim=True).sqrt()
            return (contrast**power + floor)[:, None].expand(-1, 4, 12, 12)

    network.stem, network.body.features = nn.Identity(), Contrast()
    images = torch.randn(20, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) + 3
    found, slope = contrast_exponents(network, batches(images, images)())
    k = network.readout.parameters_by_name["power"]
    if floor == 0:
        torch.testing.assert_close(found, k * power, rtol=2e-2, atol=1e-2)
        torch.testing.assert_close(slope, torch.full_like(k, power), rtol=2e-2, atol=1e-2)
        return
    low, middle, high = (2 ** (step * power / 2) + floor for step in (-1, 0, 1))
    expected = 2 * torch.log2((high**k - middle**k) / (middle**k - low**k))
    torch.testing.assert_close(found, expected, rtol=3e-2, atol=2e-2)


def test_slopes_of_exponents_depend_on_no_batches_nor_much_on_precision(network, images):
    results = []
    for model, size in ((network, 300), (network, 37), (copy.deepcopy(network).double(), 300)):
        inputs = images.to(model.readout.typical.dtype)
        results.append(
            [
                part.double()
                for part in contrast_exponents(model, batches(inputs, inputs, size=size)())
            ]
        )
    for other in results[1:]:
        torch.testing.assert_close(other[0], results[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other[1], results[0][1], rtol=1e-5, atol=1e-5)


def simulated(rng, n=700):
    """Responses to contrast in two places; half of them of either exponent."""
    x, y = np.array([-2.0, 1.5, 0.0, 2.0]), np.array([1.0, -2.0, 0.5, 2.0])
    degrees = ((np.arange(SIZE) + 0.5) / SIZE - 0.5) * 8
    coarse = torch.from_numpy(rng.standard_normal((n, 1, 8, 8)).astype(np.float32))
    strength = nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")[:, 0].numpy()
    images = rng.standard_normal((n, SIZE, SIZE)) * np.exp(0.8 * strength)
    squared = (degrees - x[:, None, None]) ** 2 + (-degrees[:, None] - y[:, None, None]) ** 2
    window = np.exp(-squared / (2 * 0.8**2))
    energy = np.sqrt((images[:, None] ** 2 * window).sum((2, 3)))
    responses = energy / energy.std(0) + 0.2 * rng.standard_normal((n, 4))
    return images.astype(np.float32), responses.astype(np.float32), x, y


def test_finds_receptive_fields_that_attribution_confirms(rng, tmp_path):
    images, responses, x, y = simulated(rng)
    encoder = FieldEncoder(**{**FAST, "max_epochs": 8}).fit(images, responses)
    fields = encoder.receptive_fields(8.0)
    np.testing.assert_allclose(fields["x_deg"], x, atol=0.25)
    np.testing.assert_allclose(fields["y_deg"], y, atol=0.25)
    assert (fields["x_error_deg"] > 0).all()
    assert (fields["x_error_deg"] < 0.3).all()
    assert (encoder.correlation(images, responses) > 0.7).all()
    twin = FieldEncoder.load(encoder.save(tmp_path / "encoder") or tmp_path / "encoder")
    np.testing.assert_array_equal(twin.predict(images[:5]), encoder.predict(images[:5]))
    for name, values in twin.receptive_fields(8.0).items():
        np.testing.assert_allclose(values, fields[name], rtol=1e-12)

    result = integrated_gradient_correlation(
        encoder.module_, images[:120], responses[:120], pool=2, max_gradients=9
    )
    np.testing.assert_allclose(
        result.correlation, encoder.correlation(images[:120], responses[:120]), atol=1e-5
    )
    degrees = ((np.arange(12) + 0.5) / 12 - 0.5) * 8
    weights = result.attributions.clip(0)
    weights = weights / weights.sum((1, 2), keepdims=True)
    np.testing.assert_allclose((weights.sum(1) * degrees).sum(1), x, atol=0.8)
    np.testing.assert_allclose((weights.sum(2) * -degrees).sum(1), y, atol=0.8)


def test_same_seed_same_windows_and_weights_count(rng):
    images, responses, *_ = simulated(rng, 120)
    one, again = (FieldEncoder(**FAST).fit(images, responses) for _ in range(2))
    np.testing.assert_array_equal(one.windows_["x"], again.windows_["x"])
    ones = FieldEncoder(**FAST).fit(images, responses, sample_weight=np.full(120, 7))
    np.testing.assert_allclose(ones.windows_["x"], one.windows_["x"], atol=1e-5)
    some = FieldEncoder(**FAST).fit(images, responses, sample_weight=np.arange(1, 121))
    assert np.abs(some.windows_["x"] - one.windows_["x"]).max() > 1e-4


def test_windows_refined_on_more_data_are_better_and_features_as_they_were(rng):
    images, responses, x, y = simulated(rng, 900)
    encoder = FieldEncoder(**FAST).fit(images[:200], responses[:200])
    features = encoder.module_.features(torch.from_numpy(images[:9]))
    before = encoder.receptive_fields(8.0)
    # On the same data there is nothing left to do.
    again = encoder.refine(images[:200], responses[:200]).receptive_fields(8.0)
    for name in ("x_deg", "y_deg"):
        np.testing.assert_allclose(
            again[name], before[name], atol=0.2 * before["x_error_deg"].min()
        )
    repeats = np.r_[np.ones(200), np.full(700, 2)]
    after = encoder.refine(images, responses, sample_weight=repeats).receptive_fields(8.0)
    torch.testing.assert_close(encoder.module_.features(torch.from_numpy(images[:9])), features)
    assert not encoder.module_.training
    assert (after["x_error_deg"] < 0.7 * before["x_error_deg"]).all()
    errors = [np.hypot(f["x_deg"] - x, f["y_deg"] - y) for f in (before, after)]
    assert errors[1].mean() < errors[0].mean()
    r = encoder.correlation(images, responses)
    assert (r > 0.7).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"X": np.zeros((120, 24, 20), np.float32)}, "X: expected"),
        ({"y": np.zeros((120, 3), np.float32)}, "y: expected targets"),
        ({"y": np.full((120, 4), np.nan, np.float32)}, "y: expected"),
        ({"sample_weight": np.zeros(120)}, "sample_weight: expected one finite number above 0"),
        ({"n_steps": 0}, "n_steps"),
        ({"X": np.ones((120, 24, 24), np.float32)}, "X: expected images that differ"),
        ({"y": np.ones((120, 4), np.float32)}, "y: expected targets that vary; got 4 constant"),
        (
            {"X": np.zeros((5, 24, 24), np.float32), "y": np.zeros((5, 4), np.float32)},
            "X: expected at least 10 samples; got 5",
        ),
    ],
)
def test_refining_refuses_what_fit_would(rng, change, match):
    images, responses, *_ = simulated(rng, 120)
    encoder = FieldEncoder(**FAST).fit(images, responses)
    before = encoder.predict(images[:5])
    with pytest.raises(InputError, match=match):
        encoder.refine(**{"X": images, "y": responses, **change})
    np.testing.assert_array_equal(encoder.predict(images[:5]), before)


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_windows_are_refined_alike_in_all_units(rng, unit):
    images, responses, *_ = simulated(rng, 300)
    encoder = FieldEncoder(**FAST).fit(images[:100], responses[:100])
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in other.module_.head.parameters():
            parameter *= unit
    own = encoder.refine(images, responses).receptive_fields(8.0)
    again = other.refine(images, responses * unit).receptive_fields(8.0)
    for name, values in own.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
    for one, two in zip(
        encoder.module_.readout.weights(), other.module_.readout.weights(), strict=True
    ):
        np.testing.assert_allclose(one.detach(), two.detach(), rtol=5e-3)


def test_refining_that_is_interrupted_changes_nothing(rng, monkeypatch):
    images, responses, *_ = simulated(rng, 120)
    encoder = FieldEncoder(**FAST).fit(images, responses)
    before, fields = encoder.predict(images[:5]), encoder.receptive_fields(8.0)
    steps = iter([windows._step])
    monkeypatch.setattr(windows, "_step", lambda *given: next(steps)(*given))
    with pytest.raises(StopIteration):
        encoder.refine(images, 2 * responses)
    np.testing.assert_array_equal(encoder.predict(images[:5]), before)
    np.testing.assert_array_equal(encoder.receptive_fields(8.0)["x_deg"], fields["x_deg"])


def test_nothing_is_refined_before_it_is_fitted(rng):
    images, responses, *_ = simulated(rng, 120)
    with pytest.raises(NotFittedError, match="call fit first"):
        FieldEncoder(**FAST).refine(images, responses)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": np.zeros((120, 24, 20), np.float32)}, "square images"),
        ({"images": np.ones((120, 24, 24), np.float32)}, "X: expected images that differ"),
        ({"conditions": np.zeros(120, int)}, "conditions: expected none"),
        ({"sample_weight": np.zeros(120)}, "sample_weight: expected one finite number above 0"),
        ({"sample_weight": np.ones(119)}, "119"),
    ],
)
def test_bad_input(rng, change, match):
    images, responses, *_ = simulated(rng, 120)
    images = change.pop("images", images)
    with pytest.raises(InputError, match=match):
        FieldEncoder(**FAST).fit(images, responses, **change)


def test_undefined_exponents_leave_fields_that_can_be_used(rng):
    images, responses, *_ = simulated(rng, 120)
    encoder = FieldEncoder(**FAST).fit(images, responses)
    known = encoder.receptive_fields(8.0)
    # As of vertices that follow luminance, of which contrast makes as much as it takes.
    encoder.windows_["exponent"][:2] = np.nan, np.inf
    encoder.windows_["covariance"][:2, 3] = encoder.windows_["covariance"][:2, :, 3] = np.nan
    fields = encoder.receptive_fields(8.0)
    np.testing.assert_array_equal(fields["exponent"][:2], 0.05)
    np.testing.assert_allclose(
        fields["size_deg"][:2], 8.0 / 2 * encoder.windows_["width"][:2] / 0.05**0.5
    )
    assert np.isnan(fields["size_error_deg"]).tolist() == [True, True, False, False]
    for name, values in fields.items():
        np.testing.assert_array_equal(values[2:], known[name][2:])
        if name.startswith(("x_", "y_")):
            np.testing.assert_array_equal(values, known[name])


def test_extent_is_checked_and_scales(rng):
    images, responses, *_ = simulated(rng, 120)
    encoder = FieldEncoder(**FAST).fit(images, responses)
    near, far = encoder.receptive_fields(4.0), encoder.receptive_fields(8.0)
    for name in ("x_deg", "y_deg", "size_deg", "x_error_deg", "size_error_deg"):
        np.testing.assert_allclose(2 * near[name], far[name])
    # The logarithm of the size is that of the width less half that of the exponent.
    both, exponent = encoder.windows_["covariance"][:, 2:, 2:], far["exponent"]
    variance = both[:, 0, 0] - both[:, 0, 1] / exponent + both[:, 1, 1] / (4 * exponent**2)
    np.testing.assert_allclose((far["size_error_deg"] / far["size_deg"]) ** 2, variance)
    with pytest.raises(InputError, match="extent_deg"):
        encoder.receptive_fields(0)


def test_colour_images_and_readout_alone(rng):
    images = rng.standard_normal((100, 3, 16, 16)).astype(np.float32)
    responses = np.abs(images[:, :, 4:8, 8:12]).mean((1, 2, 3))
    encoder = FieldEncoder(**FAST).fit(images, responses)
    assert encoder.predict(images).shape == (100,)
    readout = WindowReadout(2, (4, 6), 3)
    assert readout(torch.rand(5, 2, 4, 6)).shape == (5, 3)
    torch.testing.assert_close(readout.windows().sum(1), torch.ones(3))
