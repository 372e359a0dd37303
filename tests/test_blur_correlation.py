"""Scale-resolved IGC: definitions, sums over both axes, errors, and planted frequencies."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, cnn, make_targets, mlp, predict, shake
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import BlurIGCResult, blur_correlation, blur_integrated_gradients

N = 90


@pytest.fixture
def images(rng):
    return rng.standard_normal((N, 1, 8, 8))


@pytest.fixture
def model():
    return cnn().double()


@pytest.fixture
def targets(model, images, rng):
    return make_targets(model, images, rng)


def test_is_the_covariance_of_single_samples(model, images, targets):
    single = blur_integrated_gradients(model, images, n_points=4, keep_scales=True)
    found = blur_correlation(model, images, targets, n_points=4)
    c = (targets - targets.mean(0)) / targets.std(0)
    f = predict(model, images)
    by_scale = np.einsum("nv,nvscij->vscij", c, single.scale_attributions) / N
    by_scale /= f.std(0)[:, None, None, None, None]
    np.testing.assert_allclose(found.scale_attributions, by_scale, atol=1e-12)
    np.testing.assert_allclose(found.attributions, by_scale.sum(1), atol=1e-12)
    rest = (c * single.baseline_predictions).mean(0) / f.std(0)
    np.testing.assert_allclose(found.remainder, rest, atol=1e-12)


def test_sums_are_exact_on_both_axes(model, images, targets):
    found = blur_correlation(model, images, targets, n_points=2)
    maps = found.scale_attributions
    np.testing.assert_allclose(maps.sum(1), found.attributions, atol=1e-13)
    summed = maps.sum((2, 3, 4))
    np.testing.assert_allclose(summed - found.scale_values, found.scale_gap, atol=1e-13)
    whole = found.scale_values.sum(1) + found.remainder
    np.testing.assert_allclose(whole, found.correlation, atol=1e-12)
    gap = found.attributions.sum((1, 2, 3)) + found.remainder - found.correlation
    np.testing.assert_allclose(gap, found.completeness_gap, atol=1e-13)
    np.testing.assert_allclose(found.scale_gap.sum(1), found.completeness_gap, atol=1e-12)
    # Two nodes a band are few; what they miss is told, and goes with more.
    assert found.numerical_error.max() > 1e-6
    better = blur_correlation(model, images, targets, n_points=20)
    assert np.abs(better.completeness_gap).max() < 1e-10
    assert better.numerical_error.max() < 1e-9


def influences(values, c, z, h):
    """Return each sample's influence on mean(c * values), a covariance over both deviations."""
    own = np.einsum("nv,nvm->nvm", c, values - values.mean(0))
    return own - h * ((z**2 + c**2) / 2)[:, :, None]


def test_standard_errors_are_those_of_influences(model, images, targets):
    # Fewer samples than groups: each is a group.
    images, targets = images[:50], targets[:50]
    found = blur_correlation(model, images, targets, n_points=4, groups={"left": np.arange(20)})
    single = blur_integrated_gradients(model, images, n_points=4, keep_scales=True)
    f = predict(model, images)
    c, z = ((a - a.mean(0)) / a.std(0) for a in (targets, f))
    scaled = single.scale_attributions / f.std(0)[None, :, None, None, None, None]
    flat = scaled.reshape(50, 3, -1)
    expected = influences(flat, c, z, found.scale_attributions.reshape(3, -1))
    expected = np.sqrt((expected**2).sum(0) * 50 / 49) / 50
    errors = found.scale_attribution_errors.reshape(3, -1)
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    group = scaled.sum(2).reshape(50, 3, -1)[..., :20].sum(2, keepdims=True)
    expected = influences(group, c, z, found.group_values)
    expected = np.sqrt((expected**2).sum(0) * 50 / 49) / 50
    np.testing.assert_allclose(found.group_standard_errors, expected, rtol=1e-6)


def test_standard_errors_are_those_of_new_samples(rng):
    model = cnn().double()
    drawn = rng.standard_normal((60, 128, 1, 8, 8))
    results = [
        blur_correlation(model, x, make_targets(model, x, rng), n_points=2, scales=[0, 1, 8])
        for x in drawn
    ]
    for name, error in (
        ("scale_values", "scale_standard_errors"),
        ("remainder", "remainder_errors"),
        ("attributions", "standard_errors"),
    ):
        spread = np.std([getattr(r, name) for r in results], 0)
        told = np.mean([getattr(r, error) for r in results], 0)
        assert 0.8 < np.median(told / spread) < 1.25


def test_many_outputs_are_read_from_latents(images, rng):
    model = cnn(n_outputs=30).double()
    targets = make_targets(model, images, rng)
    many = blur_correlation(model, images, targets, pool=2, n_points=3)
    few = blur_correlation(model, images, targets, pool=2, n_points=3, outputs=[3, 22])
    for name in ("attributions", "standard_errors", "scale_attributions", "scale_standard_errors"):
        np.testing.assert_allclose(getattr(many, name)[[3, 22]], getattr(few, name), atol=1e-12)


def test_kinks_are_no_gap(images, rng):
    model = nn.Sequential(nn.Flatten(), *mlp(64, 3, nn.ReLU)).double().eval()
    targets = make_targets(model, images, rng)
    found = blur_correlation(model, images, targets, n_points=1)
    assert np.abs(found.scale_gap).max() < 1e-12


def test_kinks_are_no_gap_for_many_outputs_either(images, rng):
    model = nn.Sequential(nn.Flatten(), *mlp(64, 30, nn.ReLU)).double().eval()
    targets = make_targets(model, images, rng)
    many = blur_correlation(model, images, targets, n_points=3)
    few = blur_correlation(model, images, targets, n_points=3, outputs=[3, 22])
    assert np.abs(many.scale_gap).max() < 1e-12
    np.testing.assert_allclose(many.attributions[[3, 22]], few.attributions, atol=1e-12)


def test_pooled_maps_are_sums(model, images, targets):
    fine, coarse = (blur_correlation(model, images, targets, pool=pool) for pool in (1, 4))
    pooled = fine.attributions.reshape(3, 1, 2, 4, 2, 4).sum((3, 5))
    np.testing.assert_allclose(coarse.attributions, pooled, atol=1e-12)
    assert coarse.scale_attributions.shape == (3, 5, 1, 2, 2)


@pytest.mark.parametrize("options", [dict(batch_size=1), dict(batch_size=7), dict(memory=1e-4)])
def test_cutting_and_order_change_nothing(model, images, targets, rng, options):
    order = rng.permutation(N)
    whole = blur_correlation(model, images, targets, n_points=3)
    cut = blur_correlation(model, images[order], targets[order], n_points=3, **options)
    for name in ("attributions", "standard_errors", "scale_attributions", "remainder_errors"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), atol=1e-12)


class ConditionedImages(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Conditioned(n_inputs=16)

    def forward(self, x, conditions):
        return self.inner(x.flatten(1), conditions)


def test_conditions_are_kept_apart(rng):
    model = shake(ConditionedImages()).double()
    x, conditions = rng.standard_normal((40, 4, 4)), np.arange(40) % 2
    y = make_targets(model, x, rng, conditions)
    found = blur_correlation(model, x, y, conditions=conditions, n_points=8)
    assert np.abs(found.completeness_gap).max() < 1e-6
    # Adding a constant to the targets of a condition changes nothing.
    moved = blur_correlation(model, x, y + conditions[:, None], conditions=conditions, n_points=8)
    np.testing.assert_allclose(moved.attributions, found.attributions, atol=1e-12)


def test_predictions_themselves_sum_to_one(model, images):
    found = blur_correlation(model, images, None, n_points=8)
    np.testing.assert_allclose(found.scale_values.sum(1) + found.remainder, 1, atol=1e-12)
    assert found.settings["auto_correlation"]


class Gabors(nn.Module):
    """Contrast energy at places and spatial frequencies, as one would plant it."""

    def __init__(self, size, frequencies, rng):
        super().__init__()
        rows, columns = np.mgrid[:size, :size]
        filters = []
        for frequency in frequencies:
            y, x = rng.uniform(size / 4, 3 * size / 4, 2)
            window = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) * 2 * frequency**2)
            for angle in np.pi / 4 * np.arange(4):
                along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
                for phase in (0, np.pi / 2):
                    wave = window * np.cos(2 * np.pi * frequency * along + phase)
                    wave -= window * wave.sum() / window.sum()
                    filters.append((wave / np.linalg.norm(wave)).ravel())
        self.stem = nn.Linear(size**2, len(filters), bias=False)
        self.stem.weight = nn.Parameter(torch.tensor(np.array(filters), dtype=torch.float32))

    def forward(self, x):
        return (self.stem(x.flatten(1)).unflatten(1, (-1, 8)).square().sum(2) + 1e-3).sqrt()


def pink(n, size, rng):
    """Return images whose amplitude falls with one over the frequency."""
    spectrum = np.fft.rfft2(rng.standard_normal((n, size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    images = np.fft.irfft2(spectrum / frequency, s=(size, size))
    return (images / images.std((1, 2), keepdims=True)).astype(np.float32)


def test_spatial_frequencies_of_two_bands_an_octave_apart(rng):
    truth = np.where(np.arange(40) % 2, 0.08, 0.16)
    model, images = Gabors(32, truth, rng), pink(200, 32, rng)
    targets = make_targets(model, images, rng, noise=1.0)
    found = blur_correlation(model, images, targets, pool=8).preferred_frequencies()
    right = (found > np.sqrt(0.08 * 0.16)) == (truth > 0.1)
    assert right.mean() >= 0.95


def test_spatial_frequencies_of_a_continuum(rng):
    truth = np.exp(rng.uniform(np.log(0.05), np.log(0.25), 40))
    model, images = Gabors(32, truth, rng), pink(200, 32, rng)
    targets = make_targets(model, images, rng, noise=1.0)
    found = blur_correlation(model, images, targets, pool=8)
    assert np.corrcoef(np.log(found.preferred_frequencies()), np.log(truth))[0, 1] >= 0.9
    assert np.abs(found.completeness_gap).max() < 1e-3


@pytest.mark.parametrize("frequency", [1 / 64, 4 / 64, 10 / 64, 20 / 64])
@pytest.mark.parametrize("scales", [None, [0, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8, 11, 16, 32]])
def test_a_grating_read_linearly_has_its_own_frequency(rng, frequency, scales):
    # Cosines of the grid of a signal of 32 points, in noise of all frequencies.
    grating = np.cos(2 * np.pi * frequency * (np.arange(32) + 0.5))
    model = nn.Linear(32, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(grating))
    x = rng.standard_normal((60, 32))
    found = blur_correlation(model, x, x @ grating, n_dims=1, scales=scales)
    np.testing.assert_allclose(found.preferred_frequencies(), frequency, rtol=1e-3)


def test_one_band_tells_no_frequency(model, images, targets):
    found = blur_correlation(model, images, targets, scales=[0, 8])
    assert np.isnan(found.preferred_frequencies()).all()


def test_result_is_saved_and_loaded(model, images, targets, tmp_path):
    result = blur_correlation(model, images, targets, n_points=2, groups={"top": np.arange(32)})
    result.save(tmp_path / "blur.npz")
    loaded = BlurIGCResult.load(tmp_path / "blur.npz")
    np.testing.assert_array_equal(loaded.scale_attributions, result.scale_attributions)
    np.testing.assert_array_equal(loaded.preferred_frequencies(), result.preferred_frequencies())
    assert list(loaded.to_frame()["group"]) == ["top"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(inputs=np.zeros((N, 64))), "inputs"),
        (dict(scales=[0, 0]), "scales: expected two or more finite numbers"),
        (dict(n_points=0), "n_points: expected 1 or more"),
        (dict(memory=-1), "memory: expected a number above 0"),
        (dict(memory="1"), "memory: expected a number above 0"),
        (dict(seed=-1), "seed: expected 0 or more"),
        (dict(targets=np.zeros((N, 3))), "targets: expected values that vary"),
        (dict(targets=np.zeros((5, 3))), "expected the same number of samples"),
        (dict(inputs=np.zeros((1, 1, 8, 8)), targets=np.zeros((1, 3))), "at least three samples"),
        (dict(inputs=np.zeros((N, 1, 8, 8))), "model: expected predictions that vary"),
    ],
)
def test_bad_input_is_named(model, images, targets, options, message):
    options = dict(inputs=images, targets=targets) | options
    with pytest.raises(InputError, match=message):
        blur_correlation(model, options.pop("inputs"), options.pop("targets"), **options)
