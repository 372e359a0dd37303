"""Deletion and insertion: closed forms of linear models, control orders, and one table."""

import numpy as np
import pytest
import torch
from attribution_models import cnn, make_targets, mlp
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    MeanBaseline,
    ZeroBaseline,
    compare_maps,
    gradient_times_input,
    integrated_gradient_correlation,
    integrated_gradients,
    perturbation_curve,
)

D = 20


@pytest.fixture
def linear(rng):
    model = nn.Linear(D, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(rng.standard_normal((1, D))))
    return model


def igc_of(model, x, y):
    w, c = model.weight.detach().numpy()[0], (y - y.mean()) / y.std()
    return w * (c @ (x - x.mean(0))) / len(x) / (x @ w).std()


def test_deletion_of_a_linear_model_takes_exactly_the_igc(linear, rng):
    # Inputs correlated, targets noisy: an identity all the same.
    x = rng.standard_normal((50, D)) @ rng.standard_normal((D, D))
    y = x[:, 0] + rng.standard_normal(50)
    values = igc_of(linear, x, y)
    curve = perturbation_curve(linear, x, values, targets=y, n_points=D)
    ordered = np.sort(values)[::-1]
    np.testing.assert_allclose(curve.shares, np.arange(D + 1) / D)
    left = values.sum() - np.r_[0, np.cumsum(ordered)]
    np.testing.assert_allclose(curve.values, left, atol=1e-12)
    inserted = perturbation_curve(linear, x, values, targets=y, n_points=D, mode="insertion")
    np.testing.assert_allclose(inserted.values, np.r_[0, np.cumsum(ordered)], atol=1e-12)


def test_deletion_of_regions_takes_their_igc(linear, rng):
    x = rng.standard_normal((50, D)) @ rng.standard_normal((D, D))
    y = x[:, 0] + rng.standard_normal(50)
    values = igc_of(linear, x, y)
    groups = {"a": np.arange(8), "b": np.arange(8, 12), "c": np.arange(12, D)}
    sums = np.sort([values[index].sum() for index in groups.values()])[::-1]
    curve = perturbation_curve(linear, x, values, targets=y, groups=groups)
    np.testing.assert_allclose(curve.shares, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(curve.values, sums.sum() - np.r_[0, np.cumsum(sums)], atol=1e-12)


def test_overlapping_regions_are_gone_with_the_first_of_them(linear, rng):
    x = rng.standard_normal((10, D))
    groups = {"a": np.arange(15), "b": np.arange(5, D)}
    maps = np.r_[np.ones(15), np.zeros(5)]
    curve = perturbation_curve(linear, x, maps, groups=groups, replacement=ZeroBaseline())
    rest = x.copy()
    rest[:, :15] = 0
    with torch.no_grad():
        expected = linear(torch.from_numpy(rest)).numpy()[:, 0]
    np.testing.assert_allclose(curve.values[:, 1], expected)


def test_what_is_in_no_region_stays(linear, rng):
    x, groups = rng.standard_normal((6, D)), {"a": np.arange(4), "b": np.arange(6, 9)}
    options = dict(groups=groups, replacement=ZeroBaseline())
    inserted = perturbation_curve(linear, x, np.arange(D), mode="insertion", **options)
    least = perturbation_curve(linear, x, np.arange(D), first="least", **options)
    with torch.no_grad():
        intact = linear(torch.from_numpy(x)).numpy()[:, 0]
    np.testing.assert_allclose(inserted.values[:, -1], intact)
    np.testing.assert_allclose(inserted.values, least.values[:, ::-1], atol=1e-12)


def test_what_is_inserted_and_deleted_adds_up(linear, rng):
    x = rng.standard_normal((6, D))
    maps = integrated_gradients(linear, x, baseline=ZeroBaseline()).attributions[:, 0]
    options = dict(replacement=ZeroBaseline(), n_points=D)
    deleted = perturbation_curve(linear, x, maps, **options)
    inserted = perturbation_curve(linear, x, maps, mode="insertion", **options)
    total = deleted.values[:, [0]] + deleted.values[:, [-1]]
    np.testing.assert_allclose(deleted.values + inserted.values, np.repeat(total, D + 1, 1))
    assert deleted.area.shape == (6,)
    random = [
        perturbation_curve(linear, x, rng.standard_normal(D), **options).area for _ in range(60)
    ]
    assert (deleted.area < np.min(random, 0)).all()
    least = perturbation_curve(linear, x, maps, first="least", **options)
    assert (least.area > np.max(random, 0)).all()
    # What is left is what insertion has come to.
    np.testing.assert_allclose(least.values[:, ::-1], inserted.values, atol=1e-12)


def test_own_orders_are_those_of_single_samples(rng):
    model, x = mlp().double(), rng.standard_normal((5, 6))
    maps = rng.standard_normal((5, 6))
    together = perturbation_curve(model, x, maps, output=1, replacement=ZeroBaseline())
    for i in range(5):
        alone = perturbation_curve(
            model, x[[i]], maps[i], output=1, replacement=ZeroBaseline(), batch_size=1
        )
        np.testing.assert_allclose(together.values[i], alone.values[0], atol=1e-12)


def test_points_of_a_curve_are_bounded(linear, rng):
    x = rng.standard_normal((5, D))
    assert len(perturbation_curve(linear, x, np.arange(D), n_points=4).shares) == 5
    assert len(perturbation_curve(linear, x, np.arange(D), n_points=99).shares) == D + 1


@pytest.mark.parametrize("level", ["pixels", "regions"])
def test_table_ranks_maps_by_what_the_model_uses(rng, level):
    model, x = cnn().double(), rng.standard_normal((150, 1, 8, 8))
    y = make_targets(model, x, rng)
    values = integrated_gradient_correlation(model, x, y, tolerance=0.1).attributions[1]
    groups = None if level == "pixels" else {str(i): np.arange(4 * i, 4 * i + 4) for i in range(16)}
    wrong = rng.permuted(values.reshape(-1)).reshape(values.shape)
    rows = compare_maps(
        model,
        x,
        {"igc": values, "shuffled": wrong, "opposite": -values},
        targets=y[:, 1],
        groups=groups,
        output=1,
        n_sets=40,
    )
    table = {row["method"]: row for row in rows}
    assert list(table) == ["igc", "shuffled", "opposite", "random"]
    for other in ("shuffled", "opposite", "random"):
        assert table["igc"]["deletion"] < table[other]["deletion"]
        assert table["igc"]["insertion"] > table[other]["insertion"]
        assert table["igc"]["sensitivity"] > table[other]["sensitivity"] + 0.3
    np.testing.assert_allclose(table["opposite"]["sensitivity"], -table["igc"]["sensitivity"])


def test_table_of_single_samples(rng):
    model, x = mlp().double(), rng.standard_normal((30, 6))
    maps = {
        "ig": integrated_gradients(model, x, baseline=MeanBaseline()).attributions[:, 0],
        "gradient": gradient_times_input(model, x, baseline=MeanBaseline()).attributions[:, 0],
    }
    rows = compare_maps(model, x, maps, n_random=5)
    assert rows[0]["sensitivity"] > rows[-1]["sensitivity"] + 0.5
    assert rows[0]["deletion"] < rows[-1]["deletion"]
    assert [row["method"] for row in rows] == ["ig", "gradient", "random"]


def test_order_of_samples_and_batches_change_nothing(rng):
    model, x = mlp().double(), rng.standard_normal((30, 6))
    y, order, maps = rng.standard_normal(30), rng.permutation(30), rng.standard_normal(6)
    options = dict(n_sets=5, n_random=2)
    rows = compare_maps(model, x, {"a": maps}, targets=y, **options)
    cut = compare_maps(model, x[order], {"a": maps}, targets=y[order], batch_size=4, **options)
    for row, other in zip(rows, cut, strict=True):
        np.testing.assert_allclose(list(row.values())[1:], list(other.values())[1:], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mode="both"), "mode: expected one of 'deletion', 'insertion'"),
        (dict(first="some"), "first: expected one of 'most', 'least'"),
        (dict(n_points=0), "n_points: expected 1 or more"),
        (dict(maps=np.zeros(3)), "maps: expected shape"),
        (dict(maps=np.zeros((8, D)), targets=np.arange(8.0)), "maps: expected shape"),
        (dict(targets=np.ones(8)), "targets: expected three or more samples whose targets"),
        (dict(groups={}), "groups: expected a group of one or more components; got none"),
        (dict(groups={"a": []}), "groups: expected a group of one or more components; got none"),
        (dict(groups={"a": [99]}), r"groups\['a'\]: expected indices"),
    ],
)
def test_bad_input_is_named(linear, rng, options, message):
    options = dict(inputs=rng.standard_normal((8, D)), maps=np.arange(D)) | options
    with pytest.raises(InputError, match=message):
        perturbation_curve(linear, options.pop("inputs"), options.pop("maps"), **options)


def test_bad_tables_are_named(linear, rng):
    with pytest.raises(InputError, match="maps: expected a dict of names to maps; got ndarray"):
        compare_maps(linear, rng.standard_normal((8, D)), np.zeros(D))
