"""Maps against a truth, and against each other: closed forms and chance."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.attribution import localisation, map_agreement, region_correlation

MASK = np.zeros((20, 20), bool)
MASK[5:15, 5:15] = True


def test_the_mask_itself_is_found_and_its_complement_is_not():
    assert localisation(MASK.astype(float), MASK) == dict.fromkeys(
        ("inside", "pointing", "iou", "heat_ratio"), 1.0
    )
    assert set(localisation(1.0 - MASK, MASK).values()) == {0.0}


@pytest.mark.parametrize(
    ("inside", "outside", "expected"), [(1, 0, 1), (1, 0.25, 0.4375), (0.25, 0, 1), (0, 1, 0)]
)
def test_heat_ratio_of_two_levels(inside, outside, expected):
    # A quarter of the map: 1 for the upper quarter of thresholds, else the mask's share.
    found = localisation(np.where(MASK, inside, outside), MASK)["heat_ratio"]
    np.testing.assert_allclose(found, expected, atol=0.04)


def test_negative_values_count_as_none():
    found = localisation(np.where(MASK, 1.0, -5.0), MASK)
    assert found["heat_ratio"] == found["pointing"] == 1
    assert localisation(-np.ones((20, 20)), MASK)["heat_ratio"] == 0


def test_random_maps_find_the_share_of_the_mask(rng):
    found = [localisation(rng.random((20, 20)), MASK) for _ in range(300)]
    np.testing.assert_allclose(np.mean([one["inside"] for one in found]), 0.25, atol=0.01)
    np.testing.assert_allclose(np.mean([one["pointing"] for one in found]), 0.25, atol=0.08)


def test_region_correlation_takes_regions_as_units(rng):
    regions = {str(i): np.arange(i * i, (i + 1) ** 2) for i in range(10)}
    scores = {name: rng.standard_normal() for name in regions}
    painted = np.concatenate([np.full(len(regions[n]), scores[n]) for n in regions])
    np.testing.assert_allclose(region_correlation(painted, regions, scores), 1)
    noisy = painted + rng.standard_normal(100)
    means = [noisy[regions[n]].mean() for n in regions]
    expected = np.corrcoef(means, list(scores.values()))[0, 1]
    np.testing.assert_allclose(region_correlation(noisy, regions, scores), expected)
    assert np.isnan(region_correlation(np.ones(100), regions, scores))


def test_agreement_of_maps(rng):
    a = rng.standard_normal((10, 10))
    maps = {"a": a, "stretched": np.exp(a), "opposite": -a, "other": rng.standard_normal((10, 10))}
    ranks, overlaps = map_agreement(maps, share=0.1)
    np.testing.assert_allclose(np.diag(ranks), 1)
    np.testing.assert_allclose([ranks[0, 1], ranks[0, 2]], [1, -1])
    np.testing.assert_allclose([overlaps[0, 1], overlaps[0, 2]], [1, 0])
    assert abs(ranks[0, 3]) < 0.3
    np.testing.assert_allclose(ranks, ranks.T)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"mask: expected a boolean array of shape \(20, 20\)"):
        localisation(np.zeros((20, 20)), MASK.astype(float))
    with pytest.raises(InputError, match="mask: expected a boolean array"):
        localisation(np.zeros((20, 20)), np.ones((20, 20), bool))
    for mask in (None, np.full((20, 20), np.nan), np.full((20, 20), "in")):
        with pytest.raises(InputError, match="mask: expected a boolean array"):
            localisation(np.zeros((20, 20)), mask)
    with pytest.raises(InputError, match="values: expected numbers that are real"):
        localisation(np.full((20, 20), "high"), MASK)
    with pytest.raises(InputError, match="values: expected finite numbers"):
        localisation(np.full((20, 20), np.nan), MASK)
    with pytest.raises(InputError, match="scores: expected scores of three or more"):
        region_correlation(np.zeros(5), {"a": [0], "b": [1]}, {"a": 1.0, "b": 2.0})
    with pytest.raises(InputError, match="maps: expected maps of one shape"):
        map_agreement({"a": np.zeros(3), "b": np.zeros(4)})
    with pytest.raises(InputError, match="maps: expected finite numbers"):
        map_agreement({"a": np.array([1, np.nan, 2]), "b": np.arange(3)})
    with pytest.raises(InputError, match="maps: expected a dict of names to maps; got list"):
        map_agreement([np.arange(3), np.arange(3)])
    with pytest.raises(InputError, match="share: expected a number above 0"):
        map_agreement({"a": np.zeros(3)}, share=0)
