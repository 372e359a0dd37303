"""Shapley values by enumeration of coalitions and of orders, and what they must not depend on."""

from itertools import chain, combinations, permutations
from math import factorial

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, Quadratic, cnn, make_targets, mlp, predict, shake
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    GivenBaseline,
    IGCResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradient_correlation,
    shapley_correlation,
)


def shapley_values(value, n):
    """Return Shapley values from the worth of each coalition, by the textbook's sum."""
    everyone = range(n)
    worth = {
        s: value(s) for s in chain.from_iterable(combinations(everyone, k) for k in range(n + 1))
    }
    phi = np.zeros((n, *worth[()].shape))
    for s in worth:
        for p in set(everyone) - set(s):
            share = factorial(len(s)) * factorial(n - len(s) - 1) / factorial(n)
            phi[p] += share * (worth[tuple(sorted((*s, p)))] - worth[s])
    return phi


def brute_force(model, x, y, *, baselines=None, players=None, conditions=None):
    """Return equation 8 with Shapley values, over all samples and baselines."""
    bank = x if baselines is None else baselines
    players = [[j] for j in range(x[0].size)] if players is None else players
    f, y = predict(model, x, conditions), y.reshape(len(x), -1)
    h = np.zeros((y.shape[1], len(players)))
    for i in range(len(x)):
        for start in bank:

            def value(coalition, i=i, start=start):
                mixed = start.copy().ravel()
                for p in coalition:
                    mixed[players[p]] = x[i].ravel()[players[p]]
                beside = None if conditions is None else conditions[i : i + 1]
                return predict(model, mixed.reshape(1, *x.shape[1:]), beside)[0]

            phi = shapley_values(value, len(players))
            h += (phi * (y[i] - y.mean(0))).T / len(x) / len(bank)
    return h / (f.std(0) * y.std(0))[:, None]


@pytest.fixture
def data(rng):
    model, x = mlp(n_inputs=8).double(), rng.standard_normal((7, 8))
    return model, x, make_targets(model, x, rng)


def test_all_coalitions_of_all_pairs_are_brute_force_on_eight_players(data):
    model, x, y = data
    result = shapley_correlation(model, x, y, n_rounds=3)
    assert result.settings["exact"]
    np.testing.assert_allclose(result.attributions, brute_force(model, x, y), atol=1e-12)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)
    np.testing.assert_array_equal(result.numerical_error, 0)
    assert result.settings["n_evaluations"] == 3 * 2**8


@pytest.mark.parametrize(
    ("baseline", "bank"),
    [
        (ZeroBaseline(), np.zeros((1, 8))),
        (MeanBaseline(), None),
        (GivenBaseline(np.eye(8)[:3]), np.eye(8)[:3]),
    ],
)
def test_other_baselines_are_brute_force_too(data, baseline, bank):
    model, x, y = data
    result = shapley_correlation(model, x, y, baseline=baseline, n_rounds=3)
    bank = x.mean(0, keepdims=True) if bank is None else bank
    expected = brute_force(model, x, y, baselines=bank)
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


def test_all_orders_are_all_coalitions(rng):
    """The two definitions of a Shapley value, here of four players."""
    model, x = mlp(n_inputs=4).double(), rng.standard_normal((5, 4))
    y = make_targets(model, x, rng)
    f = predict(model, x)
    expected = np.zeros((2, 4))
    for order in permutations(range(4)):
        for i in range(5):
            for j in range(5):
                walk = [x[j].copy()]
                for p in order:
                    walk.append(walk[-1].copy())
                    walk[-1][p] = x[i, p]
                added = np.diff(predict(model, np.array(walk)), axis=0)
                weight = (y[i] - y.mean(0)) / (factorial(4) * 25 * f.std(0) * y.std(0))
                expected[:, order] += (added * weight).T
    exact = shapley_correlation(model, x, y, n_rounds=2)
    np.testing.assert_allclose(exact.attributions, expected, atol=1e-12)


@pytest.mark.parametrize("model", ["dense", "convolution"])
def test_groups_play_as_one(model, rng):
    if model == "dense":
        model, x = mlp(n_inputs=8).double(), rng.standard_normal((6, 8))
    else:
        model, x = cnn(n_outputs=2).double(), rng.standard_normal((6, 1, 8, 8))
    n = x[0].size
    players = [[0, 3], [1], list(range(4, n)), [2]]
    groups = {"a": [0, 3], "b": np.arange(n) == 1, "c": range(4, n)}
    y = make_targets(model, x, rng)
    result = shapley_correlation(model, x, y, groups=groups, n_rounds=3)
    assert result.settings["groups"] == ["a", "b", "c", "rest"]
    expected = brute_force(model, x, y, players=players)
    np.testing.assert_allclose(result.group_values, expected, atol=1e-12)
    np.testing.assert_array_equal(result.attributions, result.group_values)
    frame = result.to_frame()
    assert frame.groupby("output")["igc"].sum().to_numpy() == pytest.approx(result.correlation)
    assert (frame["low"] < frame["igc"]).all()


def test_squares_of_pixels_play_as_one(rng):
    model, x = cnn(n_outputs=2).double(), rng.standard_normal((4, 1, 8, 8))
    y = make_targets(model, x, rng)
    numbers = np.arange(64).reshape(8, 8)
    players = [numbers[i : i + 4, j : j + 4].ravel() for i in (0, 4) for j in (0, 4)]
    result = shapley_correlation(model, x, y, pool=4, n_rounds=2)
    assert result.attributions.shape == (2, 1, 2, 2)
    expected = brute_force(model, x, y, players=players).reshape(2, 1, 2, 2)
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)


def test_once_all_baselines_were_met_nothing_is_left_to_chance(rng):
    model, x = mlp(n_inputs=5).double(), rng.standard_normal((12, 5))
    y, baselines = make_targets(model, x, rng), rng.standard_normal((4, 5))
    expected = brute_force(model, x, y, baselines=baselines)
    for n_rounds in (4, 8):
        result = shapley_correlation(
            model, x, y, baseline=GivenBaseline(baselines), n_rounds=n_rounds
        )
        np.testing.assert_allclose(result.attributions, expected, atol=1e-12)
        np.testing.assert_array_equal(result.numerical_error, 0)
    for n_rounds in (2, 3, 6):
        ratios = []
        for seed in range(12):
            some = shapley_correlation(
                model, x, y, baseline=GivenBaseline(baselines), n_rounds=n_rounds, seed=seed
            )
            error = np.linalg.norm(some.attributions - expected, axis=1)
            ratios.append(error / np.linalg.norm(some.attributions, axis=1) / some.numerical_error)
        assert 0.5 < np.sqrt(np.mean(np.square(ratios))) < 2


@pytest.mark.parametrize("baseline", [PairedBaseline(), SampledBaseline(5)])
def test_orders_approach_all_coalitions_within_the_error_told(rng, baseline):
    model, x = mlp(n_inputs=6).double(), rng.standard_normal((40, 6))
    y = make_targets(model, x, rng)
    exact = shapley_correlation(model, x, y, baseline=baseline, n_rounds=20)
    size, ratios = np.linalg.norm(exact.attributions, axis=1), []
    # Baselines that are drawn stay the same with the same seed only.
    for seed in range(6 if baseline == PairedBaseline() else 1):
        drawn = shapley_correlation(model, x, y, baseline=baseline, exact=False, seed=seed)
        error = np.linalg.norm(drawn.attributions - exact.attributions, axis=1) / size
        ratios.append(error / drawn.numerical_error)
    assert 0.5 < np.mean(ratios) < 1.6
    many = shapley_correlation(
        model, x, y, baseline=baseline, exact=False, n_rounds=20, n_orders=50
    )
    np.testing.assert_allclose(many.attributions, exact.attributions, atol=0.006)


def test_linear_models_need_one_order(rng):
    """w_l cov(x_l, y) / (sd(f) sd(y)), as IGC."""
    model, x = shake(nn.Linear(12, 2)).double(), rng.standard_normal((20, 12))
    y = make_targets(model, x, rng)
    expected = integrated_gradient_correlation(model, x, y).attributions
    result = shapley_correlation(model, x, y, n_rounds=10, n_orders=1)
    assert not result.settings["exact"]
    np.testing.assert_allclose(result.attributions, expected, atol=1e-12)


def test_an_order_and_its_reverse_are_exact_for_products(rng):
    """Of x'Ax, Shapley values and integrated gradients are the same."""
    a = rng.standard_normal((12, 12))
    model, x = Quadratic(a + a.T), rng.standard_normal((9, 12))
    y = make_targets(model, x, rng)
    igc = integrated_gradient_correlation(model, x, y, tolerance=1e-9, max_gradients=200)
    result = shapley_correlation(model, x, y, n_rounds=4, n_orders=2)
    np.testing.assert_allclose(result.attributions, igc.attributions, atol=1e-3)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-9)


@pytest.mark.parametrize("exact", [True, False])
def test_batches_and_the_order_of_samples_change_nothing(data, exact, rng):
    model, x, y = data
    one = shapley_correlation(model, x, y, exact=exact, n_rounds=2)
    order = rng.permutation(len(x))
    for other in (
        shapley_correlation(model, x, y, exact=exact, n_rounds=2, batch_size=5),
        shapley_correlation(model, x[order], y[order], exact=exact, n_rounds=2),
    ):
        np.testing.assert_allclose(other.attributions, one.attributions, atol=1e-12)
        np.testing.assert_allclose(other.standard_errors, one.standard_errors, atol=1e-12)


def test_pairs_stay_within_conditions(rng):
    torch.manual_seed(0)
    model, x, who = Conditioned().double(), rng.standard_normal((10, 5)), np.arange(10) % 2
    y = make_targets(model, x, rng, who)
    result = shapley_correlation(model, x, y, conditions=who, n_rounds=2)
    # Within each condition alone, put together over the spread within both.
    expected, squares = 0, []
    for one in (0, 1):
        some = who == one
        f, own = predict(model, x[some], who[some]), y[some]
        squares.append([f.var(0), own.var(0)])
        part = brute_force(model, x[some], own, conditions=who[some])
        expected = expected + part * (f.std(0) * own.std(0))[:, None] / 2
    scale = np.sqrt(np.mean(squares, 0).prod(0))
    np.testing.assert_allclose(result.attributions, expected / scale[:, None], atol=1e-12)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


@pytest.mark.parametrize("n_rounds", [5, 7])
def test_all_pairs_count_alike_in_conditions_of_any_size(rng, n_rounds):
    # All pairs of six samples are drawn in three rounds, those of eleven in five.
    model, x, who = Conditioned().double(), rng.standard_normal((17, 5)), np.repeat([0, 1], [6, 11])
    y = make_targets(model, x, rng, who)
    result = shapley_correlation(model, x, y, conditions=who, n_rounds=n_rounds)
    np.testing.assert_array_equal(result.numerical_error, 0)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        dict(n_rounds=3),
        dict(exact=False, n_rounds=2),
        # Attributions against what is far away are large on average.
        dict(baseline=GivenBaseline(np.full(5, 4.0)), n_rounds=2),
    ],
)
def test_standard_errors_are_the_spread_over_data_sets(options, rng):
    model = mlp(n_inputs=5).double()
    maps, errors = [], []
    for _ in range(80):
        x = rng.standard_normal((40, 5))
        y = make_targets(model, x, rng)
        result = shapley_correlation(model, x, y, **options)
        maps.append(result.attributions)
        errors.append(result.standard_errors)
    spread = np.std(maps, 0, ddof=1)
    ratio = np.sqrt((np.array(errors) ** 2).mean(0).sum() / (spread**2).sum())
    assert 0.8 < ratio < 1.3


def test_results_are_kept_like_igc(data, tmp_path):
    result = shapley_correlation(*data, n_rounds=2)
    result.save(tmp_path / "shapley")
    np.testing.assert_array_equal(
        IGCResult.load(tmp_path / "shapley.npz").attributions, result.attributions
    )


def test_the_model_is_left_as_it_was_found(data):
    model, x, y = data
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    shapley_correlation(model, x.astype(np.float32), y, n_rounds=2)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_targets_values_sum_to_one(data):
    model, x, _ = data
    result = shapley_correlation(model, x, None, n_rounds=3)
    np.testing.assert_allclose(result.attributions.sum(1), 1)
    assert result.settings["auto_correlation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(groups={"a": [0, 1], "b": [1]}), "players that have no component in common; got 1"),
        (dict(groups={"rest": [0, 1]}), "groups: expected no group named 'rest'"),
        (dict(n_rounds=1), "n_rounds: expected 2 or more"),
        (dict(n_orders=0), "n_orders: expected 1 or more"),
        (dict(baseline=3), "baseline: expected a PairedBaseline"),
    ],
)
def test_games_that_cannot_be_played_are_refused(options, message, data):
    with pytest.raises(InputError, match=message):
        shapley_correlation(*data, **options)


def test_too_many_players_or_two_kinds_are_refused(rng):
    model, x = cnn(n_outputs=2).double(), rng.standard_normal((4, 1, 8, 8))
    y = make_targets(model, x, rng)
    with pytest.raises(InputError, match=r"exact: expected at most 15 players.*; got 16"):
        shapley_correlation(model, x, y, pool=2, exact=True)
    with pytest.raises(InputError, match="pool: expected 1 where groups are the players"):
        shapley_correlation(model, x, y, pool=2, groups={"a": [0]})
