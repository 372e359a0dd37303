"""Invented images whose targets depend on known places."""

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import norm

from neuroigc._validation import InputError
from neuroigc.attribution import factorise
from neuroigc.attribution.stems import DenseStem
from neuroigc.datasets import make_localised_statistics
from neuroigc.datasets.localised_statistics import KINDS, GeneratingFunction, _exchange_squares


def disc(size, radius, row, column):
    """Return a disc, in parts of an image's side from its middle."""
    y, x = np.meshgrid(*2 * [np.arange(size) - (size - 1) / 2], indexing="ij")
    return (y - row * size) ** 2 + (x - column * size) ** 2 < (radius * size) ** 2


def similarity(first, second):
    """Return the cosines of rows."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / lengths


def predict(made, images):
    return made.function(torch.from_numpy(images)).numpy()


def test_weighted_sum_is_a_wide_gaussian_less_half_a_narrow_one():
    made = make_localised_statistics("weighted sum", 50)
    along = (np.arange(32) - 15.5) / 32
    wide, narrow = (norm.pdf(along, scale=scale) / 32 for scale in (0.18, 0.1))
    weights = np.outer(wide, wide) - 0.5 * np.outer(narrow, narrow)
    np.testing.assert_allclose(made.targets[:, 0], (made.images * weights).sum((1, 2)), atol=1e-5)
    np.testing.assert_allclose(made.truth[0], abs(weights) / abs(weights).max(), atol=1e-6)
    np.testing.assert_array_equal(made.regions["centre"], weights < 0)
    assert made.regions["centre"].sum() == 44


def test_maximum_is_the_largest_of_three_means():
    made = make_localised_statistics("maximum", 50)
    places = [(-0.13, 0), (0.140625, -0.15625), (0.140625, 0.15625)]
    discs = [disc(32, 0.269, *place) for place in places]
    means = np.stack([made.images[:, disc].mean(1) for disc in discs])
    np.testing.assert_allclose(made.targets[:, 0], means.max(0), atol=1e-5)
    np.testing.assert_allclose(made.truth[0], np.sum(discs, 0) / 3)
    # None of the three is favoured.
    assert np.bincount(means.argmax(0), minlength=3).min() > 8
    assert made.regions["all discs"].sum() >= 30


def test_the_right_pair_counts_in_half_of_the_images():
    made = make_localised_statistics("similarity", 400)
    left, right = (
        similarity(*(made.images[:, disc(32, 0.2, row, column)] for row in (-0.21875, 0.21875)))
        for column in (-0.25, 0.25)
    )
    larger, y = np.maximum(left, right), made.targets[:, 0]
    np.testing.assert_allclose(predict(made, made.images)[:, 0], larger, atol=1e-5)
    whole = np.isclose(y, larger, atol=1e-5)
    # What does not count is as if it had nothing in common.
    ignored = np.isclose(y, np.maximum(left, 0), atol=1e-5)
    assert (whole | ignored).all()
    told = whole ^ ignored
    assert told.sum() > 150
    assert 0.4 < ignored[told].mean() < 0.6
    assert (made.truth[0][made.regions["at chance"]] == 0.5).all()


def test_the_category_is_the_most_similar_corner_whoever_has_the_square():
    made = make_localised_statistics("category", 300)
    corners = [(y, x) for y in (-0.28125, 0.28125) for x in (-0.28125, 0.28125)]
    pixels = [disc(32, 0.185, *place) for place in [(0, 0), *corners]]
    squares = [made.regions["squares"] & pixel for pixel in pixels]
    assert [square.sum() for square in squares] == [16] * 5
    middle = made.images[:, pixels[0]]
    found = np.stack([similarity(middle, made.images[:, pixel]) for pixel in pixels[1:]], 1)
    np.testing.assert_allclose(predict(made, made.images), softmax(100 * found, 1), atol=1e-3)
    # One of the orders of the squares makes each target.
    could_be = np.zeros(made.targets.shape, bool)
    for order in permutations(range(4)):
        images = made.images.copy()
        for k, other in enumerate(order):
            images[:, squares[1 + k]] = made.images[:, squares[1 + other]]
        could_be |= predict(made, images).argmax(1)[:, None] == np.arange(4)
    np.testing.assert_array_equal(made.targets.sum(1), 1)
    assert could_be[made.targets == 1].all()
    agree = (found.argmax(1) == made.targets.argmax(1)).mean()
    assert 0.6 < agree < 0.95
    assert made.targets.mean(0).min() > 0.18


def test_corners_count_as_equal_probabilities_change_by_them():
    made = make_localised_statistics("category", 1)
    changes = torch.autograd.functional.jacobian(lambda t: torch.softmax(t, 0), torch.zeros(4))
    sizes = (changes.abs() / changes.abs().amax()).numpy()
    for k in range(4):
        inside = made.truth[:, made.regions[f"corner {k + 1}"]]
        np.testing.assert_allclose(inside, np.tile(sizes[:, [k]], inside.shape[1]), rtol=1e-6)
    assert (made.truth[:, made.regions["middle"]] == 1).all()
    assert (made.truth[:, made.regions["squares"]] == 0).all()


def test_squares_change_places_at_random():
    """Each comes from each corner as often."""
    labels = np.zeros((4000, 32, 32), np.float32)
    places = [(y, x) for y in (6.5, 24.5) for x in (6.5, 24.5)]
    inside = [np.s_[:, int(y - 1.5) : int(y + 2.5), int(x - 1.5) : int(x + 2.5)] for y, x in places]
    for k, where in enumerate(inside):
        labels[where] = k + 1
    moved = _exchange_squares(labels, np.random.default_rng(0))
    np.testing.assert_array_equal(moved[labels == 0], 0)
    origin = np.stack([moved[where].mean((1, 2)) for where in inside], 1)
    np.testing.assert_array_equal(np.sort(origin, 1), np.tile([1, 2, 3, 4], (4000, 1)))
    for k in range(1, 5):
        np.testing.assert_allclose((origin == k).mean(0), 0.25, atol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_count_where_the_truth_says_so(kind):
    made = make_localised_statistics(kind, 30, size=24)
    x = torch.from_numpy(made.images).requires_grad_(True)
    (gradient,) = torch.autograd.grad(made.function(x)[:, 0].sum(), x)
    counts = (gradient != 0).any(0).numpy()
    # The function takes squares for what they are not.
    misleading = made.regions.get("squares", np.zeros_like(counts))
    np.testing.assert_array_equal(counts, (made.truth[0] > 0) | misleading)
    placed = np.sum(list(made.regions.values()), 0)
    assert placed.max() == 1
    assert not counts[placed == 0].any()
    # Derivatives need be taken behind the sums of pixels only.
    assert isinstance(factorise(made.function, x.detach()).stem, DenseStem)


@pytest.mark.parametrize("size", [24, 25, 32, 35, 45])
def test_places_are_alike_in_all_directions(size):
    for kind, region in (("similarity", "counts"), ("category", "middle")):
        region = make_localised_statistics(kind, 1, size=size).regions[region]
        region = region[:, region.any(0)]
        np.testing.assert_array_equal(region, region[:, ::-1])
        np.testing.assert_array_equal(region, region[::-1])


def test_images_have_the_spectrum_of_photographs():
    images = make_localised_statistics("maximum", 2000).images
    assert images.mean() == pytest.approx(0, abs=0.05)
    assert images.std() == pytest.approx(1, abs=0.02)
    amplitude = np.sqrt((np.abs(np.fft.fft2(images)) ** 2).mean(0))
    along = np.arange(1, 16)
    for row in (amplitude[along, 0], amplitude[0, along], amplitude[along, along]):
        slope = np.polyfit(np.log(along), np.log(row), 1)[0]
        assert slope == pytest.approx(-1.2, abs=0.03)
    # The mean of an image varies as if it were of half a cycle.
    assert amplitude[0, 0] / amplitude[0, 1] == pytest.approx(2**1.2, rel=0.05)


def test_images_depend_on_seed_and_number_alone():
    few, many = (make_localised_statistics("similarity", n, seed=3) for n in (10, 20))
    np.testing.assert_array_equal(few.images, many.images[:10])
    np.testing.assert_allclose(few.targets, many.targets[:10], atol=1e-6)
    assert (make_localised_statistics("similarity", 10).images != few.images).mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(kind="median", n_images=3), "kind: expected one of 'weighted sum'"),
        (dict(kind="maximum", n_images=0), "n_images: expected 1 or more"),
        (dict(kind="maximum", n_images=3, size=20), "size: expected 24 or more"),
    ],
)
def test_what_cannot_be_invented_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_localised_statistics(**arguments)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("median", (1, 1, 24, 24), "kind: expected one of"),
        ("maximum", (24, 24), "weights: expected .n_places, n_sums, size, size"),
        ("similarity", (3, 5, 24, 24), "an even n_places; got shape .3, 5, 24, 24"),
    ],
)
def test_an_impossible_function_is_refused(kind, shape, message):
    with pytest.raises(InputError, match=message):
        GeneratingFunction(kind, np.ones(shape))


def test_torch_is_loaded_by_those_who_ask_for_it_only():
    code = (
        "import sys, neuroigc.datasets as d; print('torch' in sys.modules);"
        "d.make_localised_statistics; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told.split() == ["False", "True"]
