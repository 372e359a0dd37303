import numpy as np
import pytest

from neuroigc.attribution.pairs import draw_bank_pairs, draw_blocks, draw_pairs
from neuroigc.attribution.paths import draw_points, uniform


def one_block(n, seed=0):
    (block,) = draw_blocks(np.zeros(n, int), seed=seed)
    return block


@pytest.mark.parametrize("n", [2, 3, 4, 9, 10])
def test_all_rounds_together_are_all_pairs_with_equal_weight(n):
    block, weights = one_block(n), np.zeros((n, n))
    n_rounds = n // 2
    for shift in range(n_rounds):
        pairs = draw_pairs(block, shift)
        np.add.at(weights, (pairs.first, pairs.second), pairs.weight / (n * n_rounds))
    # Either direction counts half; a sample with itself would make up the rest.
    both = (weights + weights.T) / 2
    np.testing.assert_allclose(both[~np.eye(n, dtype=bool)], 1 / n**2)
    assert both.trace() == 0


def test_every_sample_stands_in_two_pairs_of_each_round():
    pairs = draw_pairs(one_block(11), 3)
    assert sorted(pairs.first) == sorted(pairs.second) == list(range(11))
    assert not np.any(pairs.first == pairs.second)


def test_distances_come_anew_once_all_were_used():
    block = one_block(20)
    distances = [int(draw_pairs(block, k).second[0]) for k in range(30)]
    assert sorted(distances[:10]) == sorted(distances[10:20]) == list(range(1, 11))
    assert distances[:10] != distances[10:20]


def test_pairs_stay_in_their_stratum_and_blocks_in_their_size():
    strata = np.array([0, 1, 2] * 30)
    blocks = draw_blocks(strata, max_size=7, seed=1)
    assert sorted(np.concatenate([b.samples for b in blocks])) == list(range(90))
    for block in blocks:
        assert set(strata[block.samples]) == {block.stratum}
        assert 2 <= len(block.samples) <= 7
        assert block.stratum_size == 30
    assert [b.index for b in blocks] == list(range(len(blocks)))


def test_choices_depend_on_seed_sample_and_round_alone():
    samples = np.arange(1000)
    numbers = uniform(3, 4, (5,), samples)
    np.testing.assert_array_equal(uniform(3, 4, (5,), samples[400:500]), numbers[400:500])
    for other in (uniform(4, 4, (5,), samples), uniform(3, 4, (6,), samples)):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.1
    assert abs(numbers.mean() - 0.5) < 0.03
    assert abs(numbers.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.1


def test_orders_differ_between_seeds():
    assert list(one_block(30, seed=0).samples) != list(one_block(30, seed=1).samples)


@pytest.mark.parametrize("n_points", [2, 4])
def test_points_are_antithetic_and_stratified(n_points):
    points = draw_points(np.arange(50), 2, n_points=n_points, seed=1)
    assert points.shape == (n_points, 50)
    np.testing.assert_allclose(points[0::2] + points[1::2], 1)
    # One point in each of as many cells as there are points.
    cells = np.sort(np.floor(points.ravel() * points.size).astype(int))
    np.testing.assert_array_equal(cells, np.arange(points.size))


def test_points_are_uniform_for_each_path():
    first = [draw_points(np.arange(5), k)[0, 2] for k in range(400)]
    assert abs(np.mean(first) - 0.25) < 0.03
    assert 0 <= min(first) < 0.02
    assert 0.48 < max(first) <= 0.5


def test_every_sample_meets_every_baseline_of_a_bank():
    block = one_block(6)
    met = np.zeros((6, 4), int)
    for shift in range(8):
        pairs = draw_bank_pairs(block, 4, shift)
        met[pairs.first, pairs.second] += 1
        assert pairs.weight == 1
    assert np.all(met == 2)
