"""Grey images and their statistics, against spectra that were chosen."""

import h5py
import numpy as np
import pytest
from PIL import Image

from neuroigc._validation import InputError
from neuroigc.datasets import image_statistics, load_nsd_images, prepare_image
from neuroigc.datasets.layouts import write_stimuli


def noise(rng, exponent, size, n=8):
    """Return images whose amplitude spectrum is exactly 1/f^exponent, with random phases."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)
    f = np.hypot(fy, fx)
    f[0, 0] = np.inf
    phases = np.angle(np.fft.fft2(rng.normal(size=(n, size, size))))
    images = np.fft.ifft2(f**-exponent * np.exp(1j * phases)).real
    return 0.5 + 0.1 * images / np.abs(images).max() * 4


@pytest.mark.parametrize("size", [64, 128, 425])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_slope_of_noise_with_a_known_spectrum(rng, exponent, size):
    n = 3 if size == 425 else 16
    slopes = image_statistics(noise(rng, exponent, size, n))["one_over_f_slope"]
    assert slopes.mean() == pytest.approx(-exponent, abs=0.04)
    assert slopes.std() < 0.12


def test_slope_of_white_noise(rng):
    slopes = image_statistics(rng.uniform(size=(16, 96, 96)))["one_over_f_slope"]
    assert slopes.mean() == pytest.approx(0, abs=0.03)


def test_slope_ignores_contrast_brightness_and_turning(rng):
    images = noise(rng, 1.0, 64)
    slopes = image_statistics(images)["one_over_f_slope"]
    for other in (0.3 + 0.5 * (images - 0.5), images.transpose(0, 2, 1), images[:, ::-1]):
        np.testing.assert_allclose(image_statistics(other)["one_over_f_slope"], slopes, atol=1e-6)


def test_slope_of_a_piece_with_cut_edges(rng):
    """A window keeps borders, where a piece of an image does not meet itself, out of it."""
    pieces = noise(rng, 2.0, 256, 8)[:, 40:168, 40:168]
    slopes = image_statistics(pieces)["one_over_f_slope"]
    assert slopes.mean() == pytest.approx(-2, abs=0.06)


def test_contrast_is_the_standard_deviation(rng):
    images = rng.uniform(size=(70, 32, 40)).astype(np.float32)
    table = image_statistics(images)
    assert list(table.columns) == ["luminance_contrast", "one_over_f_slope"]
    expected = [np.std(image.astype(float)) for image in images]
    np.testing.assert_allclose(table["luminance_contrast"], expected, rtol=1e-12)


def test_each_image_is_by_itself(rng):
    images = noise(rng, 1.0, 48, 67)
    table = image_statistics(images)
    alone = image_statistics(images[65:66])
    np.testing.assert_allclose(alone.iloc[0], table.iloc[65], rtol=1e-12)


def test_fitted_range_is_stated(rng):
    images = rng.uniform(size=(2, 100, 100))
    attributes = image_statistics(images).attrs
    assert attributes["fitted_range"] == (3, 40)
    assert attributes["fitted_range_units"] == "cycles per image"
    table = image_statistics(images, extent_deg=8)
    assert table.attrs["fitted_range"] == (3 / 8, 5)
    assert table.attrs["fitted_range_units"] == "cycles per degree"
    np.testing.assert_array_equal(table, image_statistics(images))


def test_image_without_contrast():
    table = image_statistics(np.full((1, 32, 32), 0.1))
    assert table["luminance_contrast"][0] == pytest.approx(0, abs=1e-12)
    assert np.isnan(table["one_over_f_slope"][0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((32, 32)), r"shape \(n_images, height, width\); got \(32, 32\)"),
        (np.zeros((0, 32, 32)), r"got \(0, 32, 32\)"),
        (np.zeros((1, 8, 32)), "images of at least 12 pixels a side"),
        (np.full((1, 32, 32), 255), "grey levels from 0 to 1; got values from 255 to 255"),
        (np.full((1, 32, 32), np.nan), "grey levels from 0 to 1; got values from nan"),
    ],
)
def test_images_that_do_not_fit(images, message):
    with pytest.raises(InputError, match=message):
        image_statistics(images)


# Stimuli.


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, size=(9, 12, 12, 3), dtype=np.uint8)


def test_grey_is_rec_601_luma(pixels):
    expected = pixels[0] / 255 @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(prepare_image(pixels[0]), expected, atol=1e-6)
    # Pillow's "L" is the same, rounded.
    reference = np.asarray(Image.fromarray(pixels[0]).convert("L")) / 255
    np.testing.assert_allclose(prepare_image(pixels[0]), reference, atol=0.5 / 255 + 0.002)


def test_white_is_one():
    assert prepare_image(np.full((12, 12, 3), 255, np.uint8), size=5).max() <= 1


def test_downscaling_averages_areas(pixels):
    whole = prepare_image(pixels[0])
    blocks = whole.reshape(4, 3, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(prepare_image(pixels[0], size=4), blocks, atol=1e-6)
    # 12 to 8: each new pixel covers one and a half, which is three halves.
    halves = np.kron(whole, np.ones((2, 2))).reshape(8, 3, 8, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(prepare_image(pixels[0], size=8), halves, atol=1e-6)
    np.testing.assert_allclose(
        prepare_image(pixels[0][:, :6], size=3),
        whole[:, :6].reshape(3, 4, 3, 2).mean((1, 3)),
        atol=1e-6,
    )


def test_images_come_in_the_order_asked_for(tmp_path, pixels):
    write_stimuli(tmp_path, pixels)
    ids = [7, 0, 3, 3]
    images = load_nsd_images(tmp_path, ids, size=6)
    assert images.shape == (4, 6, 6)
    assert images.dtype == np.float32
    for image, number in zip(images, ids, strict=True):
        np.testing.assert_array_equal(image, prepare_image(pixels[number], size=6))
    colours = load_nsd_images(tmp_path, [2], gray=False)
    np.testing.assert_allclose(colours[0], pixels[2].transpose(2, 0, 1) / 255, atol=1e-6)


def test_row_zero_is_the_top(tmp_path):
    image = np.zeros((1, 12, 12, 3), np.uint8)
    image[0, :3, :5] = 255
    write_stimuli(tmp_path, image)
    (read,) = load_nsd_images(tmp_path, [0], size=12)
    assert read[:3, :5].min() > 0.99
    assert read[3:].max() == read[:, 5:].max() == 0


@pytest.mark.parametrize("ids", [[9], [-1], [], [[1]], 1, [0.5], [np.nan], ["a"], [[1], [2, 3]]])
def test_unknown_images(tmp_path, pixels, ids):
    write_stimuli(tmp_path, pixels)
    with pytest.raises(
        InputError, match=r"image_ids: expected (0-based numbers of the 9 images|an array)"
    ):
        load_nsd_images(tmp_path, ids)


def test_sizes_that_do_not_fit(pixels):
    for size in (0, 13):
        with pytest.raises(InputError, match=f"size: expected 1 to 12 pixels; got {size}"):
            prepare_image(pixels[0], size=size)


def test_missing_stimuli(tmp_path):
    with pytest.raises(InputError, match=r"a folder with .*nsd_stimuli.hdf5; got no such file"):
        load_nsd_images(tmp_path, [0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"no HDF5" * 99,
        lambda whole: whole[:50],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[:96] + bytes(len(whole) - 96),
    ],
)
def test_damaged_stimuli(tmp_path, pixels, damage):
    write_stimuli(tmp_path, pixels)
    (path,) = tmp_path.rglob("nsd_stimuli.hdf5")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"{path}: expected (a whole HDF5 file|imgBrick)"):
        load_nsd_images(tmp_path, [0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "imgBrick, uint8 of shape .*; got none"),
        ({"imgBrick/within": np.zeros(3)}, "imgBrick, uint8 of shape .*; got none"),
        ({"imgBrick": np.zeros((2, 5, 5), np.uint8)}, r"got uint8 of shape \(2, 5, 5\)"),
        ({"imgBrick": np.zeros((2, 5, 5, 3))}, "got float64 of shape"),
    ],
)
def test_stimuli_without_pixels(tmp_path, pixels, content, message):
    write_stimuli(tmp_path, pixels)
    (path,) = tmp_path.rglob("nsd_stimuli.hdf5")
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
    with pytest.raises(InputError, match=message):
        load_nsd_images(tmp_path, [0])


def test_rows_are_read_one_by_one(tmp_path, pixels, monkeypatch):
    """The stimuli of the release are 37 GB."""
    write_stimuli(tmp_path, pixels)
    rows = []
    original = h5py.Dataset.__getitem__

    def watch(self, key, *args, **kwargs):
        rows.append(key)
        return original(self, key, *args, **kwargs)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watch)
    load_nsd_images(tmp_path, [5, 1])
    assert [int(row) for row in rows] == [1, 5]
