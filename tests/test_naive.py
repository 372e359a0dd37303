"""Summaries of single attributions and statistics of components, against scipy."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, Quadratic, make_targets, mlp
from scipy import stats
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    GivenBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    component_correlation,
    component_t_test,
    expected_gradients,
    gradient_times_input,
    integrated_gradient_correlation,
    integrated_gradients,
    summarise_attributions,
)


class Shares(nn.Module):
    def forward(self, x):
        return torch.softmax(x, 1).sum(1, keepdim=True)


@pytest.fixture
def data(rng):
    model, x = mlp().double(), rng.standard_normal((30, 6))
    return model, x, make_targets(model, x, rng)


@pytest.mark.parametrize("method", [integrated_gradients, gradient_times_input, expected_gradients])
@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_summaries_are_those_of_all_attributions(method, chunk_size, data):
    model, x, y = data
    baseline = GivenBaseline(x[:4])
    maps = method(model, x, baseline=baseline).attributions
    found = summarise_attributions(
        model, x, y, method=method, baseline=baseline, chunk_size=chunk_size
    )
    np.testing.assert_allclose(found.mean, maps.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.standard_deviation, maps.std(0), atol=1e-12)
    np.testing.assert_allclose(found.mean_absolute, np.abs(maps).mean(0), atol=1e-12)
    f = model(torch.from_numpy(x)).detach().numpy()
    for v in range(2):
        assert found.correlation[v] == pytest.approx(np.corrcoef(f[:, v], y[:, v])[0, 1])
        expected = maps[:, v].T @ (y[:, v] - y[:, v].mean()) / 30 / f[:, v].std() / y[:, v].std()
        np.testing.assert_allclose(found.covariance[v], expected, atol=1e-12)


def test_order_of_samples_changes_nothing(data, rng):
    model, x, y = data
    order = rng.permutation(30)
    straight = summarise_attributions(model, x, y, baseline=SampledBaseline(5))
    turned = summarise_attributions(model, x[order], y[order], baseline=SampledBaseline(5))
    np.testing.assert_allclose(turned.covariance, straight.covariance, atol=1e-12)


def test_covariance_of_integrated_gradients_is_igc(data):
    model, x, y = data
    everyone = summarise_attributions(model, x, y, baseline=GivenBaseline(x), n_steps=20)
    igc = integrated_gradient_correlation(model, x, y, tolerance=1e-9, max_gradients=400)
    np.testing.assert_allclose(everyone.covariance, igc.attributions, atol=6e-3)
    np.testing.assert_allclose(everyone.completeness_gap, 0, atol=1e-9)
    # x against x' is minus x' against x.
    np.testing.assert_allclose(everyone.mean, 0, atol=1e-12)


def test_baselines_are_the_same_for_all_chunks(data):
    model, x, _ = data
    expected = integrated_gradients(model, x, baseline=SampledBaseline(5), seed=3, n_steps=8)
    found = summarise_attributions(
        model, x, baseline=SampledBaseline(5), seed=3, n_steps=8, chunk_size=4
    )
    np.testing.assert_allclose(found.mean, expected.attributions.mean(0), atol=1e-12)
    assert found.covariance is None
    assert found.completeness_gap is None
    assert found.correlation is None


def test_conditions_stay_with_their_samples(rng):
    torch.manual_seed(0)
    model, x, who = Conditioned().double(), rng.standard_normal((20, 5)), np.arange(20) % 3
    options = dict(baseline=GivenBaseline(x[:3]), conditions=who, n_steps=5)
    found = summarise_attributions(model, x, chunk_size=6, **options)
    maps = integrated_gradients(model, x, **options).attributions
    np.testing.assert_allclose(found.standard_deviation, maps.std(0), atol=1e-12)


def test_gradient_times_input_of_a_quadratic_is_too_large(rng):
    """Against zero, x Ax is twice what integrated gradients say."""
    a = rng.standard_normal((4, 4))
    model, x = Quadratic(a + a.T), rng.standard_normal((25, 4))
    y = model(torch.from_numpy(x)).detach().numpy()
    options = dict(baseline=GivenBaseline(np.zeros(4)))
    twice = summarise_attributions(model, x, y, method=gradient_times_input, **options).covariance
    once = summarise_attributions(model, x, y, n_steps=1, **options).covariance
    np.testing.assert_allclose(twice, 2 * once)
    assert once.sum() == pytest.approx(1)
    found = summarise_attributions(model, x, y, method=gradient_times_input, **options)
    assert found.completeness_gap == pytest.approx(1)


@pytest.mark.parametrize("offset", [0, 1e5])
def test_correlations_and_t_tests_are_those_of_scipy(rng, offset):
    x = rng.standard_normal((41, 2, 3)) + offset
    y = np.stack([x[:, 0, 1] + rng.standard_normal(41), rng.standard_normal(41)], 1)
    r, test = component_correlation(x, y), component_t_test(x, y)
    assert r.shape == test.t.shape == (2, 2, 3)
    for v in range(2):
        high = y[:, v] > np.median(y[:, v])
        expected = stats.ttest_ind(x[high], x[~high], equal_var=False)
        np.testing.assert_allclose(test.t[v], expected.statistic, rtol=1e-6)
        np.testing.assert_allclose(test.p_values[v], expected.pvalue, rtol=1e-5)
        one = [[stats.pearsonr(x[:, i, j], y[:, v])[0] for j in range(3)] for i in range(2)]
        np.testing.assert_allclose(r[v], one, atol=1e-9)


def test_classes_are_compared_with_the_rest(rng):
    x, label = rng.standard_normal((30, 4)), np.arange(30) % 5
    test = component_t_test(x, (label[:, None] == np.arange(5)).astype(float))
    expected = stats.ttest_ind(x[label == 2], x[label != 2], equal_var=False)
    np.testing.assert_allclose(test.t[2], expected.statistic)
    np.testing.assert_allclose(test.p_values[2], expected.pvalue)


def test_constant_components_tell_nothing(rng):
    x = rng.standard_normal((20, 3))
    x[:, 1] = 0.1
    y = rng.standard_normal(20)
    assert component_correlation(x, y)[0, 1] == 0
    test = component_t_test(x, y)
    assert (test.t[0, 1], test.p_values[0, 1]) == (0, 1)
    assert (component_correlation(x, y)[0, [0, 2]] != 0).all()


def test_components_of_one_value_on_each_side_are_infinitely_apart():
    y = np.repeat([0.0, 1.0], 20)
    test = component_t_test(np.stack([3 - 0.1 * y, 7 + 0.1 * y, np.full(40, 0.1)], 1), y)
    np.testing.assert_array_equal(test.t, [[-np.inf, np.inf, 0]])
    np.testing.assert_array_equal(test.p_values, [[0, 0, 1]])


@pytest.mark.parametrize("statistic", [component_correlation, component_t_test])
def test_components_that_cannot_be_compared_are_refused(statistic, rng):
    x = rng.standard_normal((6, 3))
    with pytest.raises(InputError, match="inputs has 6, targets has 5"):
        statistic(x, np.arange(5.0))
    with pytest.raises(InputError, match="targets: expected targets that vary; got constant: 0"):
        statistic(x, np.ones(6))
    with pytest.raises(InputError, match="inputs: expected at least two samples; got 1"):
        statistic(x[:1], np.ones(1))
    x[2, 1] = np.nan
    with pytest.raises(InputError, match="inputs: expected finite numbers; got 1 NaN"):
        statistic(x, np.arange(6.0))


def test_a_single_sample_on_one_side_is_no_test(rng):
    with pytest.raises(InputError, match="two samples or more, high and low; got 1 on one side"):
        component_t_test(rng.standard_normal((6, 3)), np.eye(6)[0])


def test_what_cannot_be_summarised_is_refused(data):
    model, x, y = data
    with pytest.raises(InputError, match="baseline: expected a baseline for single samples"):
        summarise_attributions(model, x, baseline=PairedBaseline())
    with pytest.raises(InputError, match="one column for each of the 2 outputs"):
        summarise_attributions(model, x, y[:, 0], baseline=SampledBaseline(3))
    with pytest.raises(InputError, match="targets and predictions that vary; got a constant"):
        summarise_attributions(model, x, np.ones_like(y), baseline=SampledBaseline(3))
    with pytest.raises(InputError, match="method: expected a function that attributes; got 'ig'"):
        summarise_attributions(model, x, y, method="ig", baseline=SampledBaseline(3))
    with pytest.raises(InputError, match="targets and predictions that vary; got a constant"):
        # Shares sum to 1 but for the rounding of single precision.
        summarise_attributions(Shares(), x.astype(np.float32), y[:, 0], baseline=ZeroBaseline())
    with pytest.raises(InputError, match="at least two samples"):
        summarise_attributions(model, x[:1], baseline=GivenBaseline(x[0]))
    with pytest.raises(InputError, match=r"model: expected a torch\.nn\.Module"):
        summarise_attributions(nn.Linear, x)
