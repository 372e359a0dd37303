"""Invented scenes: reproducible one by one, natural as a collection."""

import numpy as np
import pytest

from neuroigc.datasets.synthetic_images import CATEGORIES, make_scene

LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(3, number, size=96) for number in range(150)]


@pytest.fixture(scope="module")
def features(scenes):
    """Contrast and spectral slope, computed here independently of the package."""
    grey = np.stack([scene.pixels for scene in scenes]) @ LUMA / 255
    contrast = grey.std(axis=(1, 2))
    centred = grey - grey.mean(axis=(1, 2), keepdims=True)
    amplitude = np.abs(np.fft.fft2(centred))
    f = np.fft.fftfreq(96, 1 / 96)
    radius = np.hypot(f[:, None], f)
    rings = np.arange(1, 48)
    radial = np.stack([amplitude[:, np.abs(radius - r) < 0.5].mean(axis=1) for r in rings], axis=1)
    slope = [np.polyfit(np.log(rings), np.log(row), 1)[0] for row in radial]
    return contrast, np.array(slope)


def test_an_image_depends_on_seed_and_number_only(scenes):
    again = make_scene(3, 41, size=96)
    np.testing.assert_array_equal(again.pixels, scenes[41].pixels)
    np.testing.assert_array_equal(again.categories, scenes[41].categories)
    assert (make_scene(4, 41, size=96).pixels != scenes[41].pixels).mean() > 0.5
    assert (scenes[40].pixels != scenes[41].pixels).mean() > 0.5


def test_statistics_are_natural_and_vary_independently(features):
    contrast, slope = features
    assert -1.25 < slope.mean() < -0.9
    assert slope.std() > 0.15
    assert 0.1 < contrast.mean() < 0.2
    assert contrast.std() > 0.035
    assert abs(np.corrcoef(contrast, slope)[0, 1]) < 0.25


def test_contrast_varies_from_place_to_place(scenes):
    grey = np.stack([scene.pixels for scene in scenes]) @ LUMA / 255
    quadrants = grey.reshape(len(grey), 2, 48, 2, 48).std(axis=(2, 4)).reshape(len(grey), 4)
    relative = quadrants / quadrants.mean(axis=1, keepdims=True)
    assert relative.std() > 0.15
    # No place of the field is favoured.
    np.testing.assert_allclose(relative.mean(axis=0), 1, atol=0.08)


def test_few_pixels_leave_the_display(scenes):
    pixels = np.stack([scene.pixels for scene in scenes])
    assert ((pixels == 0) | (pixels == 255)).mean() < 0.05
    assert pixels.dtype == np.uint8


def test_each_category_is_in_some_images_and_can_be_seen():
    scenes = [make_scene(3, number, size=32) for number in range(200)]
    present = np.stack([scene.categories for scene in scenes])
    assert present.shape == (200, len(CATEGORIES))
    np.testing.assert_allclose((present > 0).mean(axis=0), 0.3, atol=0.1)
    assert present[present > 0].min() >= 0.25
    assert present.max() <= 0.55
    assert np.abs(np.corrcoef(present.T) - np.eye(4)).max() < 0.25


@pytest.mark.parametrize("category", range(4))
def test_objects_change_the_picture_where_they_are(category, monkeypatch):
    """The same scene with and without its objects differs in one compact place."""
    from neuroigc.datasets import synthetic_images

    numbers = (n for n in range(200) if _only(make_scene(3, n, size=32), category))
    number = next(numbers)
    with_object = make_scene(3, number, size=96)
    monkeypatch.setattr(synthetic_images, "_STAMPS", _blind(synthetic_images._STAMPS))
    without = make_scene(3, number, size=96)
    changed = np.abs(with_object.pixels.astype(float) - without.pixels).mean(axis=-1)
    rows, columns = np.nonzero(changed > np.quantile(changed, 0.97))
    extent = with_object.categories[category] * 96
    assert np.subtract(*np.percentile(rows, [90, 10])) < 1.3 * extent
    assert np.subtract(*np.percentile(columns, [90, 10])) < 1.3 * extent


def _only(scene, category):
    return np.flatnonzero(scene.categories).tolist() == [category]


class _NoInk:
    def polygon(self, *args, **kwargs):
        pass

    line = ellipse = polygon


def _blind(stamps):
    def invisible(stamp):
        def draw(pen, rng):
            pen.draw = _NoInk()
            stamp(pen, rng)  # uses up the same random numbers

        return draw

    return tuple(invisible(stamp) for stamp in stamps)
