"""The scale space: an independent solution of diffusion, its axioms, and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from neuroigc._validation import InputError
from neuroigc.attribution.scale_space import ScaleSpace, band_frequencies, check_scales

LIKE = torch.zeros(1, dtype=torch.float64)


def blur(space, samples, scale):
    flat = torch.from_numpy(samples).flatten(1)
    return space.blurred(space.spectrum(flat), scale).numpy().reshape(samples.shape)


def neighbours(n):
    """Return the matrix that takes differences with neighbours, edges having one alone."""
    matrix = np.diag(np.full(n - 1, 1.0), 1) + np.diag(np.full(n - 1, 1.0), -1)
    return matrix - np.diag(matrix.sum(1))


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_blur_solves_diffusion_between_pixels(rng, scale):
    x = rng.standard_normal((3, 2, 7, 5))
    space = ScaleSpace((2, 7, 5), 2, LIKE)
    rows, columns = (expm(scale**2 / 2 * neighbours(n)) for n in (7, 5))
    np.testing.assert_allclose(blur(space, x, scale), rows @ x @ columns, atol=1e-12)
    signal = ScaleSpace((2, 7, 5), 1, LIKE)
    np.testing.assert_allclose(blur(signal, x, scale), x @ columns, atol=1e-12)


def test_ends_are_the_sample_and_its_mean(rng):
    x = rng.standard_normal((2, 3, 6, 6))
    space = ScaleSpace((3, 6, 6), 2, LIKE)
    np.testing.assert_allclose(blur(space, x, 0.0), x, atol=1e-13)
    means = np.broadcast_to(x.mean((2, 3), keepdims=True), x.shape)
    np.testing.assert_allclose(blur(space, x, np.inf), means, atol=1e-13)


def test_blurs_follow_one_another(rng):
    x, space = rng.standard_normal((2, 9, 8)), ScaleSpace((9, 8), 2, LIKE)
    twice = blur(space, blur(space, x, 1.5), 2.0)
    np.testing.assert_allclose(twice, blur(space, x, 2.5), atol=1e-13)


def test_kernel_is_never_negative_and_has_its_variance():
    space, point = ScaleSpace((41,), 1, LIKE), np.eye(41)[[20]]
    place = np.arange(41) - 20
    for scale in (0.4, 1.0, 3.0):
        kernel = blur(space, point, scale)[0]
        assert kernel.min() > -1e-14
        np.testing.assert_allclose(kernel.sum(), 1)
        np.testing.assert_allclose((kernel * place**2).sum(), scale**2, rtol=1e-6)


def test_no_extrema_are_created(rng):
    space, x = ScaleSpace((60,), 1, LIKE), rng.standard_normal((1, 60))
    turns = []
    for scale in np.linspace(0, 6, 30):
        slope = np.diff(blur(space, x, scale)[0])
        turns.append((np.sign(slope[1:]) != np.sign(slope[:-1])).sum())
    assert all(later <= earlier for earlier, later in pairwise(turns))
    assert turns[-1] < turns[0]


@pytest.mark.parametrize("scale", [0.2, 2.0, 30.0])
def test_loss_is_minus_the_derivative(rng, scale):
    x = torch.from_numpy(rng.standard_normal((2, 64)))
    space = ScaleSpace((8, 8), 2, LIKE)
    spectrum, step = space.spectrum(x), 1e-5
    near = [space.blurred(spectrum, scale + d) for d in (step, -step)]
    expected = (near[1] - near[0]) / (2 * step)
    torch.testing.assert_close(space.loss(spectrum, scale), expected, atol=1e-9, rtol=1e-6)


def test_loss_keeps_its_digits_in_single_precision(rng):
    x = torch.from_numpy(100 + rng.standard_normal((1, 32 * 32)))
    exact, single = ScaleSpace((32, 32), 2, LIKE), ScaleSpace((32, 32), 2, LIKE.float())
    expected = exact.loss(exact.spectrum(x), 16.0)
    found = single.loss(single.spectrum(x.float()), 16.0)
    assert (found - expected).norm() / expected.norm() < 1e-3


def test_default_scales_are_octaves():
    np.testing.assert_allclose(check_scales(None, (12, 10)), [0, 0.5, 1, 2, 4, 8, 12])
    np.testing.assert_allclose(check_scales(None, (16,)), [0, 0.5, 1, 2, 4, 8, 16])
    np.testing.assert_allclose(check_scales([0, 3], (16,)), [0, 3])


def test_bands_hold_most_of_their_frequency():
    edges = np.array([0, 0.5, 1, 2, 4, 8])
    frequencies = band_frequencies(edges)
    grid = np.linspace(0, 0.5, 20001)
    decay = 2 - 2 * np.cos(2 * np.pi * grid)
    for low, high, frequency in zip(edges[1:-1], edges[2:], frequencies[1:], strict=True):
        lost = np.exp(-decay * low**2 / 2) - np.exp(-decay * high**2 / 2)
        np.testing.assert_allclose(frequency, grid[lost.argmax()], atol=1e-4)
    assert frequencies[0] == 0.5
    np.testing.assert_allclose(frequencies[-2] / frequencies[-1], 2, rtol=0.02)


@pytest.mark.parametrize(
    ("shape", "n_dims", "message"),
    [
        ((6,), 2, r"inputs: expected samples that are images, .*; got samples of shape \(6,\)"),
        ((1, 6), 2, "of two or more points a side; got samples of shape"),
        ((3, 1), 1, "inputs: expected samples that are signals"),
        ((6, 6), 3, "n_dims: expected one of 1, 2; got 3"),
        ((6, 6), 0, "n_dims: expected one of 1, 2; got 0"),
        ((6, 6), 2.0, "n_dims: expected 1 or more, a whole number; got 2.0"),
    ],
)
def test_what_is_no_image_is_refused(shape, n_dims, message):
    with pytest.raises(InputError, match=message):
        ScaleSpace(shape, n_dims, LIKE)


@pytest.mark.parametrize("scales", [[1, 2], [0], [0, 2, 1], [0, np.inf], "octaves", [[0, 1]]])
def test_scales_that_do_not_grow_from_zero_are_refused(scales):
    with pytest.raises(InputError, match="scales: expected two or more finite numbers"):
        check_scales(scales, (8, 8))
