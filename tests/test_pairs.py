import numpy as np
import pytest
from scipy.special import betainc

from neuroigc.attribution.keys import combine_keys, digest_rows
from neuroigc.attribution.pairs import draw_bank_pairs, draw_blocks, draw_pairs
from neuroigc.attribution.paths import draw_points, uniform


def keys(n):
    return digest_rows(np.arange(n)[:, None])


def one_block(n, seed=0):
    (block,) = draw_blocks(np.zeros(n, int), keys(n), seed=seed)
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
    blocks = draw_blocks(strata, keys(90), max_size=7, seed=1)
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


def test_points_are_stratified_by_their_distribution():
    t, _ = draw_points(keys(50), 2, seed=1)
    # One point in each of as many cells of equal probability as there are paths.
    chance = betainc(1.5, 1.5, t)
    np.testing.assert_array_equal(np.sort(np.floor(chance * 50).astype(int)), np.arange(50))


@pytest.mark.parametrize("power", [0, 1, 2, 5])
def test_weighted_points_are_fair_for_each_path(power):
    # Of what vanishes at both ends, as all does that is integrated.
    drawn = [draw_points(keys(5), k) for k in range(3000)]
    values = [(w * t ** (power + 1) * (1 - t))[2] for t, w in drawn]
    expected = 1 / (power + 2) - 1 / (power + 3)
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))


def test_keys_know_contents_but_not_the_order(rng):
    x = rng.standard_normal((40, 3))
    x[7] = x[30] = x[12]
    found, order = combine_keys(digest_rows(x)), rng.permutation(40)
    assert len(set(found)) == 40
    again = combine_keys(digest_rows(x[order]))
    assert set(again) == set(found)
    single = np.setdiff1d(np.arange(40), [7, 12, 30])
    where = np.argsort(order)[single]
    np.testing.assert_array_equal(again[where], found[single])
    assert not set(combine_keys(digest_rows(x + 1))) & set(found)
    assert combine_keys(digest_rows(x), digest_rows(x[::-1]))[0] != found[0]


def test_every_sample_meets_every_baseline_of_a_bank():
    block = one_block(6)
    met = np.zeros((6, 4), int)
    for shift in range(8):
        pairs = draw_bank_pairs(block, 4, shift)
        met[pairs.first, pairs.second] += 1
        assert pairs.weight == 1
    assert np.all(met == 2)
