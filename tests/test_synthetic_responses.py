"""The invented cortex against closed forms and plain loops."""

import numpy as np
import pytest

from neuroigc.datasets.synthetic_images import make_scene
from neuroigc.datasets.synthetic_responses import (
    BANDS_CPD,
    SeeingCortex,
    grid_degrees,
    local_contrast,
)
from neuroigc.datasets.synthetic_retinotopy import area_names, make_visual_cortex

SIZE, EXTENT = 96, 8.4
PIXEL_X = (np.arange(SIZE) + 0.5) / SIZE * EXTENT - EXTENT / 2


@pytest.fixture(scope="module")
def cortex():
    return make_visual_cortex()


@pytest.fixture(scope="module")
def observer(cortex):
    return SeeingCortex.of(cortex, image_size=SIZE)


def gather(observer, values):
    return np.concatenate([values[h][index] for h, index in observer.vertices.items()])


def grating(cpd, *, amplitude=0.2, phase=0.0, angle=0.3):
    x, y = np.meshgrid(PIXEL_X, -PIXEL_X)
    along = np.cos(angle) * x + np.sin(angle) * y
    wave = amplitude * np.sin(2 * np.pi * cpd * along + phase)
    return (0.5 + wave)[None].astype(np.float32)


@pytest.mark.parametrize("band", range(3))
def test_contrast_of_a_grating(band):
    """A grating of a band's centre has its amplitude as contrast, everywhere, at any phase."""
    maps = [local_contrast(grating(BANDS_CPD[band], phase=p))[0] for p in (0, 1.3)]
    inner = slice(10, -10)
    for contrast in maps:
        values = contrast[band, inner, inner]
        np.testing.assert_allclose(values.mean(), 0.2, rtol=0.05)
        assert values.std() < 0.02
        assert contrast.mean(axis=(1, 2)).argmax() == band
    double = local_contrast(grating(BANDS_CPD[band], amplitude=0.4))[0]
    np.testing.assert_allclose(double[band], 2 * maps[0][band], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [32, 48, 64, 96])
@pytest.mark.parametrize(("x0", "y0"), [(-2.0, 1.0), (1.2, 2.4), (2.1, -1.3)])
def test_contrast_lies_where_the_image_has_it(size, x0, y0):
    pixel = (np.arange(size) + 0.5) / size * EXTENT - EXTENT / 2
    x, y = np.meshgrid(pixel, -pixel)
    patch = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * 0.5**2)) * np.sin(2 * np.pi * x)
    contrast = local_contrast((0.5 + 0.3 * patch)[None].astype(np.float32))[0, 1]
    degrees = grid_degrees(contrast.shape[-1], size)
    weight = contrast**2 / (contrast**2).sum()
    np.testing.assert_allclose((weight.sum(axis=0) * degrees).sum(), x0, atol=0.02)
    np.testing.assert_allclose((weight.sum(axis=1) * -degrees).sum(), y0, atol=0.02)


def test_one_border_does_not_leak_into_the_other():
    image = grating(1.0)
    image[:, :, SIZE // 2 :] = 0.5
    contrast = local_contrast(image)[0, 1]
    assert contrast[:, -6:].max() < 0.02 < contrast[:, :6].min()


def test_responses_equal_the_formula_in_plain_loops(cortex, observer, rng):
    contrast = rng.uniform(0.02, 0.2, (2, 3, 48, 48)).astype(np.float32)
    categories = np.array([[0, 0.4, 0, 0], [0.3, 0, 0, 0]], dtype=np.float32)
    responses = observer.respond(contrast, categories)
    x, y, size, exponent = (
        gather(observer, values)
        for values in (cortex.x_deg, cortex.y_deg, cortex.size_deg, cortex.exponent)
    )
    names = area_names(gather(observer, cortex.labels["prf-visualrois"]))
    degrees = grid_degrees(48, SIZE).astype(float)
    step = degrees[1] - degrees[0]
    for area, p in {"V1": 0.0, "V2": 0.6, "hV4": 0.8}.items():
        v = np.flatnonzero((names == area) & (np.hypot(x, y) < 3))[4]
        sigma = size[v] * np.sqrt(exponent[v])
        for image in range(2):
            drive = 0.0
            for row in range(48):
                for column in range(48):
                    squared = (degrees[column] - x[v]) ** 2 + (-degrees[row] - y[v]) ** 2
                    weight = np.exp(-squared / (2 * sigma**2)) / (2 * np.pi * sigma**2) * step**2
                    drive += weight * observer.tuning[:, v] @ contrast[image, :, row, column]
            expected = (drive / contrast[image].mean() ** p) ** exponent[v]
            np.testing.assert_allclose(responses[image, v], expected, rtol=1e-4)


def test_category_areas_answer_to_their_category(cortex, observer, rng):
    contrast = np.repeat(rng.uniform(0.05, 0.1, (1, 3, 48, 48)).astype(np.float32), 5, axis=0)
    categories = np.concatenate([np.zeros((1, 4)), 0.4 * np.eye(4)]).astype(np.float32)
    gain = np.diff(observer.respond(contrast, categories), axis=0, prepend=0)
    change = observer.respond(contrast, categories)[1:] - gain[0]
    faces = gather(observer, cortex.labels["floc-faces"]) > 0
    bodies = gather(observer, cortex.labels["floc-bodies"]) > 0
    retinotopic = gather(observer, cortex.labels["prf-visualrois"]) > 0
    assert (change[1, faces] > 0.1).all()
    assert (np.abs(change[1, ~faces]) < 1e-6).all()
    assert (change[0, bodies] > 0.1).all()
    assert (np.abs(change[:, retinotopic]) < 1e-6).all()


def test_v1_follows_scene_contrast_and_hv4_hardly(cortex, observer, rng):
    contrast = rng.uniform(0.05, 0.1, (1, 3, 48, 48)).astype(np.float32)
    none = np.zeros((1, 4), dtype=np.float32)
    names = area_names(gather(observer, cortex.labels["prf-visualrois"]))
    growth = np.log(observer.respond(2 * contrast, none) / observer.respond(contrast, none))[0]
    expected = {"V1": 0.7, "V2": 0.55 * 0.4, "V3": 0.45 * 0.3, "hV4": 0.35 * 0.2}
    for area, power in expected.items():
        np.testing.assert_allclose(growth[names == area] / np.log(2), power, rtol=1e-3)


def test_coverage_tells_what_lies_outside_the_image(cortex, observer):
    eccentricity = np.hypot(gather(observer, cortex.x_deg), gather(observer, cortex.y_deg))
    coverage = observer.coverage
    assert (coverage[eccentricity < 1] > 0.99).all()
    beyond = np.abs(gather(observer, cortex.x_deg)) > 4.5
    assert beyond.any()
    assert (coverage[beyond] < 0.5).all()


def test_receptive_fields_are_in_the_responses(cortex, observer):
    """Regression of V1's responses on local contrast finds the centres it was made with."""
    grey = np.stack([make_scene(1, n, size=SIZE).pixels for n in range(500)])
    grey = (grey @ np.array([0.299, 0.587, 0.114]) / 255).astype(np.float32)
    contrast = local_contrast(grey)
    names = area_names(gather(observer, cortex.labels["prf-visualrois"]))
    x, y = gather(observer, cortex.x_deg), gather(observer, cortex.y_deg)
    chosen = (names == "V1") & (np.hypot(x, y) < 3.5)
    responses = observer.respond(contrast, np.zeros((500, 4), np.float32))[:, chosen] ** (1 / 0.7)
    coarse = contrast.mean(axis=1).reshape(500, 12, 4, 12, 4).mean(axis=(2, 4)).reshape(500, -1)
    predictors = coarse - coarse.mean(axis=0)
    covariance = predictors.T @ predictors
    covariance += 0.003 * np.trace(covariance) / 144 * np.eye(144)
    weights = np.linalg.solve(covariance, predictors.T @ (responses - responses.mean(axis=0)))
    weights = np.maximum(weights - 0.25 * weights.max(axis=0), 0)
    weights /= weights.sum(axis=0)
    degrees = grid_degrees(48, SIZE).reshape(12, 4).mean(axis=1)
    found_x = weights.T @ np.tile(degrees, 12)
    found_y = weights.T @ np.repeat(-degrees, 12)
    error = np.hypot(found_x - x[chosen], found_y - y[chosen])
    assert np.median(error) < 0.15
    assert np.quantile(error, 0.9) < 0.6
