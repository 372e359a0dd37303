"""Invented images whose targets depend on known places."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from neuroigc._validation import InputError
from neuroigc.attribution import factorise
from neuroigc.attribution.stems import DenseStem
from neuroigc.datasets import make_localised_statistics
from neuroigc.datasets.localised_statistics import KINDS, TEMPERATURE, GeneratingFunction


def distances(images, first, second):
    """Return mean squared differences of the pixels of two places, in their order."""
    return ((images[:, first] - images[:, second]) ** 2).mean(1)


def left_and_right(mask):
    left = mask.copy()
    left[:, mask.shape[1] // 2 :] = False
    return left, mask & ~left


def test_weighted_sum_is_the_disc_less_the_ring():
    made = make_localised_statistics("weighted sum", 50)
    centre, surround = (made.images[:, made.regions[name]] for name in ("centre", "surround"))
    np.testing.assert_allclose(made.targets[:, 0], centre.mean(1) - surround.mean(1), atol=1e-5)
    assert made.truth[made.regions["centre"]] == pytest.approx(1)
    share = made.regions["centre"].sum() / made.regions["surround"].sum()
    assert made.truth[made.regions["surround"]] == pytest.approx(share)


def test_maximum_is_the_largest_of_three_means():
    made = make_localised_statistics("maximum", 50)
    rows, columns = (np.mgrid[:32, :32] + 0.5) / 32
    places = [(0.388, 0.5), (0.556, 0.403), (0.556, 0.597)]
    discs = [np.hypot(rows - y, columns - x) <= 0.156 for y, x in places]
    means = np.stack([made.images[:, disc].mean(1) for disc in discs])
    np.testing.assert_allclose(made.targets[:, 0], means.max(0), atol=1e-5)
    np.testing.assert_allclose(made.truth, np.sum(discs, 0) / 3)
    # None of the three is favoured.
    assert np.bincount(means.argmax(0), minlength=3).min() > 8
    assert made.regions["all discs"].sum() >= 6


def test_the_lower_pair_counts_in_half_of_the_images():
    made = make_localised_statistics("similarity", 400)
    one, other = (
        distances(made.images, *left_and_right(made.regions[name]))
        for name in ("counts", "at chance")
    )
    np.testing.assert_allclose(made.function(torch.from_numpy(made.images)).numpy()[:, 0],
                               -(one + other) / 2, atol=1e-5)  # fmt: skip
    whole = np.isclose(made.targets[:, 0], -(one + other) / 2, atol=1e-5)
    ignored = np.isclose(made.targets[:, 0], -one / 2, atol=1e-5)
    assert (whole ^ ignored).all()
    assert 0.4 < ignored.mean() < 0.6
    assert abs(np.corrcoef(ignored, other)[0, 1]) < 0.15


def test_the_category_is_the_most_similar_permutation():
    made = make_localised_statistics("category", 300)
    moved, fixed = made.regions["moved"], made.regions["fixed"]
    rows, columns = np.nonzero((moved | fixed).any(1))[0], np.nonzero((moved | fixed).any(0))[0]
    side = len(rows) // 2
    x = made.images[:, rows]
    starts = [columns[0], columns[2 * side]]
    corners = [(0, 0), (0, side), (side, 0), (side, side)]
    parts = [[x[:, r : r + side, s + c : s + c + side] for r, c in corners] for s in starts]
    orders = [(0, 1, 2, 3), (1, 2, 0, 3), (2, 0, 1, 3)]
    far = np.array(
        [
            np.mean([(parts[0][a] - parts[1][b]) ** 2 for a, b in enumerate(order)], (0, 2, 3))
            for order in orders
        ]
    )
    np.testing.assert_array_equal(made.targets.argmax(1), far.argmin(0))
    np.testing.assert_array_equal(made.targets.sum(1), 1)
    weights = np.exp(-far / TEMPERATURE)
    predicted = made.function(torch.from_numpy(made.images)).numpy()
    np.testing.assert_allclose(predicted, (weights / weights.sum(0)).T, atol=1e-4)
    assert made.targets.mean(0).min() > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_count_where_the_truth_says_so(kind):
    made = make_localised_statistics(kind, 30, size=24)
    x = torch.from_numpy(made.images).requires_grad_(True)
    (gradient,) = torch.autograd.grad(made.function(x)[:, 0].sum(), x)
    # What cancels out leaves rounding.
    counts = (gradient.abs() > 1e-5 * gradient.abs().max()).any(0).numpy()
    np.testing.assert_array_equal(counts, made.truth > 0)
    placed = np.sum(list(made.regions.values()), 0)
    assert placed.max() == 1
    assert not counts[placed == 0].any()
    # Derivatives need be taken behind the sums of pixels only.
    assert isinstance(factorise(made.function, x.detach()).stem, DenseStem)


def test_images_have_the_spectrum_of_photographs():
    images = make_localised_statistics("maximum", 400).images
    assert images.std() == pytest.approx(1, abs=0.02)
    edges = np.hanning(32)
    power = (np.abs(np.fft.fft2(images * edges * edges[:, None])) ** 2).mean(0)
    along = np.arange(3, 13)
    slope = np.polyfit(np.log(along), np.log(power[along, 0] + power[0, along]) / 2, 1)[0]
    assert slope == pytest.approx(-1, abs=0.15)
    # Opposite edges are not neighbours.
    assert np.corrcoef(images[:, 5, 0], images[:, 5, 31])[0, 1] < 0.4
    assert np.corrcoef(images[:, 5, 0], images[:, 5, 1])[0, 1] > 0.6


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


def test_an_unknown_function_is_refused():
    with pytest.raises(InputError, match="kind: expected one of"):
        GeneratingFunction("median", np.ones((1, 1, 24, 24)))


def test_torch_is_loaded_by_those_who_ask_for_it_only():
    code = (
        "import sys, neuroigc.datasets as d; print('torch' in sys.modules);"
        "d.make_localised_statistics; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told.split() == ["False", "True"]
