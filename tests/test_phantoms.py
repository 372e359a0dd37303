"""Phantom vertices: a second, slow computation, and noise that is what it says."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from neuroigc._validation import InputError
from neuroigc.prf import make_phantoms

EXTENT = (8.0, 6.0)
NOISELESS = {"extent_deg": EXTENT, "n_repeats": 1, "ncsnr": 1e7}


@pytest.fixture
def images(rng):
    """Patches of noise on grey, as strong in one place as in another now and then."""
    strength = gaussian_filter(rng.uniform(0, 1, (40, 18, 24)), (0, 3, 3))
    return np.clip(0.5 + strength * rng.standard_normal(strength.shape) / 3, 0, 1)


def zscore(values):
    return (values - values.mean(0)) / values.std(0)


@pytest.mark.parametrize("exponents", [(0.3, 0.9), (1.0, 1.0)])
@pytest.mark.parametrize("normalisation", [(0.0, 0.0), (0.7, 0.7)])
def test_signal_in_closed_form(images, exponents, normalisation):
    options = {"exponents": exponents, "normalisation": normalisation, "margin_deg": 0.5}
    phantoms = make_phantoms(images, n_phantoms=12, **NOISELESS, **options)
    for i in range(12):
        sigma = phantoms.size_deg[i] * np.sqrt(phantoms.exponent[i])
        signal = []
        for image in images:
            x = image - image.mean()
            mean, square = (gaussian_filter(v, 1.5, mode="nearest", truncate=4) for v in (x, x**2))
            contrast = np.sqrt(np.maximum(square - mean**2, 0))
            pooled = 0.0
            for row in range(18):
                for column in range(24):
                    dx = (column + 0.5) / 3 - 4 - phantoms.x_deg[i]
                    dy = 3 - (row + 0.5) / 3 - phantoms.y_deg[i]
                    gaussian = np.exp(-(dx**2 + dy**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
                    pooled += gaussian / 9 * contrast[row, column]
            signal.append((pooled / contrast.mean() ** normalisation[0]) ** phantoms.exponent[i])
        expected = zscore(np.array(signal))
        np.testing.assert_allclose(phantoms.responses[:, i], expected, atol=2e-5)


def test_noise_is_that_of_trials_averaged_over_repeats(rng):
    images = np.clip(0.5 + 0.2 * rng.standard_normal((4000, 8, 8)), 0, 1)
    repeats = np.arange(4000) % 3 + 1
    options = {"extent_deg": 8.0, "n_phantoms": 40, "sizes_deg": (0.8, 2.0)}
    clean = make_phantoms(images, n_repeats=repeats, ncsnr=1e7, **options)
    noisy = make_phantoms(images, n_repeats=repeats, ncsnr=[0.5, np.nan, 0.0], **options)
    np.testing.assert_allclose(clean.x_deg, noisy.x_deg)
    # Of what is left after the signal, the variance of single trials is 1 / ncsnr^2.
    scale = np.sqrt(1 + (1 / repeats).mean() / noisy.ncsnr**2)
    left = noisy.responses * scale - clean.responses
    for n in (1, 2, 3):
        variance = left[repeats == n].var(0) * n * noisy.ncsnr**2
        assert 0.97 < variance.mean() < 1.03
    np.testing.assert_allclose(noisy.responses.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(noisy.responses.std(0), 1, atol=1e-5)
    # The share on the image: everything for fields inside, half at an edge.
    assert (noisy.ncsnr <= 0.5 + 1e-12).all()
    inside = np.maximum(np.abs(noisy.x_deg), np.abs(noisy.y_deg)) + 3 * noisy.size_deg < 4
    np.testing.assert_allclose(noisy.ncsnr[inside], 0.5, rtol=0.01)
    assert noisy.ncsnr.min() < 0.4


def test_ranges_are_filled_and_kept(images):
    phantoms = make_phantoms(
        images,
        extent_deg=EXTENT,
        n_repeats=3,
        ncsnr=[0.4, 0.8],
        n_phantoms=800,
        sizes_deg=(0.3, 3.0),
        margin_deg=1.0,
    )
    assert len(phantoms) == 800
    assert phantoms.responses.shape == (40, 800)
    assert phantoms.responses.dtype == np.float32
    assert np.isfinite(phantoms.responses).all()
    for values, low, high in (
        (phantoms.x_deg, -5, 5),
        (phantoms.y_deg, -4, 4),
        (np.log(phantoms.size_deg), np.log(0.3), np.log(3.0)),
        (phantoms.exponent, 0.25, 1.0),
    ):
        shares = (values - low) / (high - low)
        assert 0 <= shares.min() < 0.01
        assert 0.99 < shares.max() <= 1
        assert abs(shares.mean() - 0.5) < 0.04
    few = phantoms[[3, 1]]
    np.testing.assert_array_equal(few.responses, phantoms.responses[:, [3, 1]])
    assert few.x_deg.tolist() == phantoms.x_deg[[3, 1]].tolist()


def test_equal_seeds_make_equal_phantoms_whatever_the_memory(images, monkeypatch):
    options = {"extent_deg": EXTENT, "n_repeats": 2, "ncsnr": [0.5], "n_phantoms": 30}
    first = make_phantoms(images, seed=3, **options)
    again = make_phantoms(torch.from_numpy(images), seed=3, **options)
    other = make_phantoms(images, seed=4, **options)
    monkeypatch.setattr("neuroigc.prf.phantoms._N_VALUES_PER_BLOCK", 7 * 18 * 24)
    monkeypatch.setattr("neuroigc.prf.phantoms._N_PIXELS_PER_BATCH", 11 * 18 * 24)
    cut = make_phantoms(images, seed=3, **options)
    for field in fields(first):
        values = getattr(first, field.name)
        np.testing.assert_array_equal(getattr(again, field.name), values)
        np.testing.assert_allclose(getattr(cut, field.name), values, atol=1e-5)
    assert not np.array_equal(other.x_deg, first.x_deg)
    assert not np.allclose(other.responses, first.responses)


def test_responses_follow_the_order_of_the_images(images, rng):
    order = rng.permutation(len(images))
    forwards = make_phantoms(images, n_phantoms=20, **NOISELESS)
    shuffled = make_phantoms(images[order], n_phantoms=20, **NOISELESS)
    np.testing.assert_allclose(shuffled.responses, forwards.responses[order], atol=1e-5)


def test_repeats_belong_to_their_images(images):
    # One image is measured exactly, the others hardly.
    repeats = np.ones(len(images))
    repeats[7] = 1e12
    options = {"extent_deg": EXTENT, "n_phantoms": 200, "ncsnr": 1e-3}
    clean = make_phantoms(images, **NOISELESS, n_phantoms=200)
    noisy = make_phantoms(images, n_repeats=repeats, **options)
    spread = (noisy.responses - noisy.responses.mean(0)).std(1)
    assert spread.argmin() == 7
    assert spread[7] < 0.3
    assert np.delete(spread, 7).min() > 0.7
    np.testing.assert_array_equal(clean.x_deg, noisy.x_deg)


def test_uint8_is_the_same_and_blank_images_drive_nothing(images):
    shown = np.rint(255 * images).astype(np.uint8)
    options = NOISELESS | {"n_phantoms": 10, "normalisation": (0.5, 0.5)}
    as_bytes = make_phantoms(shown, **options)
    as_floats = make_phantoms(shown / np.float32(255), **options)
    np.testing.assert_array_equal(as_bytes.responses, as_floats.responses)
    shown[5] = 77
    blank = make_phantoms(shown, **options)
    assert (blank.responses.argmin(0) == 5).all()


def test_fields_that_see_no_image_are_noise_alone(images):
    far = make_phantoms(images, extent_deg=0.1, n_repeats=1, ncsnr=0.5, margin_deg=50.0)
    assert np.isfinite(far.responses).all()
    assert (far.ncsnr == 0).any()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x: x[0], {}, r"images: expected grey images.*got shape \(18, 24\)"),
        (lambda x: x[:1], {}, "at least two"),
        (lambda x: x[..., None], {}, "grey images"),
        (lambda x: x * 255, {}, "uint8, or numbers from 0 to 1"),
        (lambda x: x - 0.9, {}, "uint8, or numbers from 0 to 1"),
        (lambda x: x * np.nan, {}, "uint8, or numbers from 0 to 1"),
        (lambda x: 0 * x + 0.3, {}, "differ in local contrast.*Blank"),
        (lambda x: np.repeat(x[:1], 5, axis=0), {}, "differ in local contrast"),
        (None, {"n_repeats": [1, 2]}, r"n_repeats.*one number or 40; got shape \(2,\)"),
        (None, {"n_repeats": 0}, "at least one trial per image"),
        (None, {"ncsnr": [0.0, np.nan]}, "some of them above 0; got 2 numbers"),
        (None, {"ncsnr": [-0.1, 1]}, "1 of them negative"),
        (None, {"n_phantoms": 0}, "n_phantoms"),
        (None, {"margin_deg": -1}, "margin_deg"),
        (None, {"sizes_deg": (0.0, 1.0)}, "sizes_deg: expected two numbers above 0"),
        (None, {"sizes_deg": 1.0}, "sizes_deg"),
        (None, {"exponents": (1.0, 0.5)}, "the smaller one first"),
        (None, {"normalisation": (-0.1, 0.5)}, "normalisation.*from 0 on"),
        (None, {"extent_deg": 0}, "extent_deg"),
    ],
)
def test_bad_input_is_named(images, change, options, message):
    given = {"extent_deg": EXTENT, "n_repeats": 1, "ncsnr": 0.5, "n_phantoms": 5} | options
    with pytest.raises(InputError, match=message):
        make_phantoms(images if change is None else change(images), **given)
