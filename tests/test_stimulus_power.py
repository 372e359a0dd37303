"""What images offer place by place, and maps that are free of it."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.prf import fit_prf, pixel_centres, stimulus_power


def gaussians(x, y, size, shape=(16, 16), extent=8.0):
    across, up = pixel_centres(*shape, extent)
    squared = (across - x[:, None, None]) ** 2 + (up[:, None] - y[:, None, None]) ** 2
    return np.exp(-squared / (2 * size[:, None, None] ** 2))


def test_power_is_the_variance_of_local_contrast(rng):
    # Noise of which the strength varies from image to image, twice as much in one corner.
    strength = rng.uniform(0.02, 0.1, (500, 1, 1)) * np.where(
        (np.arange(32)[:, None] < 16) & (np.arange(32) >= 16), 2, 1
    )
    images = np.clip(0.5 + strength * rng.standard_normal((500, 32, 32)), 0, 1)
    power = stimulus_power(images, shape=(8, 8))
    assert power.shape == (8, 8)
    assert power.mean() == pytest.approx(1)
    ratio = power[:3, 5:].mean() / power[5:, :3].mean()
    assert ratio == pytest.approx(4, rel=0.15)
    again = stimulus_power(images[rng.permutation(500)], shape=(8, 8))
    np.testing.assert_allclose(power, again, rtol=1e-10)


def test_maps_are_freed_of_it(rng):
    x, y, size = rng.uniform(-2, 2, 30), rng.uniform(-2, 2, 30), rng.uniform(0.5, 1.2, 30)
    power = np.exp(-0.3 * np.linspace(-1.5, 1.5, 16) ** 2 + 0.4 * np.linspace(-1, 1, 16)[:, None])
    maps = (gaussians(x, y, size) + 0.1) * power
    biased, freed = fit_prf(maps, extent_deg=8.0), fit_prf(maps, extent_deg=8.0, power=power)
    assert np.abs(biased.x_deg - x).max() > 0.02
    for name, truth in (("x_deg", x), ("y_deg", y), ("size_deg", size)):
        np.testing.assert_allclose(getattr(freed, name), truth, atol=1e-6)
    errors = np.full(maps.shape, 0.01)
    with_errors = fit_prf(maps, extent_deg=8.0, power=power, standard_errors=errors)
    by_hand = fit_prf(maps / power, extent_deg=8.0, standard_errors=errors / power)
    np.testing.assert_allclose(with_errors.x_error_deg, by_hand.x_error_deg, rtol=1e-6)


def test_exponents_widen_sizes(rng):
    fields = fit_prf(gaussians(*(np.full(3, v) for v in (0.5, -0.5, 0.8))), extent_deg=8.0)
    compressed = fields.with_exponent(np.array([1.0, 0.25, 0.5]))
    np.testing.assert_allclose(
        compressed.size_deg, fields.size_deg * [1, 2, np.sqrt(2)], rtol=1e-12
    )
    np.testing.assert_array_equal(compressed.x_deg, fields.x_deg)
    assert "exponent" in compressed.to_frame()
    for bad in (np.array([1.0, 0.0, 0.5]), np.ones(2)):
        with pytest.raises(InputError, match="exponent"):
            fields.with_exponent(bad)


@pytest.mark.parametrize(
    ("images", "shape", "match"),
    [
        (np.zeros((4, 8, 8)), (4, 4), "places where it does not"),
        (np.zeros((4, 8, 8)), (3, 4), "divide 8 x 8"),
        (np.zeros((8, 8)), (4, 4), "grey images"),
    ],
)
def test_bad_images(images, shape, match):
    with pytest.raises(InputError, match=match):
        stimulus_power(images, shape=shape)


@pytest.mark.parametrize("power", [np.ones((4, 4)), np.zeros((16, 16))])
def test_bad_power(power):
    maps = gaussians(*(np.full(3, v) for v in (0.5, -0.5, 0.8)))
    with pytest.raises(InputError, match="power: expected numbers above 0"):
        fit_prf(maps, extent_deg=8.0, power=power)
