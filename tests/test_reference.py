import numpy as np
import pytest
import torch
from attribution_models import Conditioned, Quadratic, make_targets, mlp, predict, shake

from neuroigc.attribution.reference import reference_igc, reference_igc_of_pairs


def all_pairs(n):
    return [(i, j, 1 / n**2) for i in range(n) for j in range(n)]


def test_linear_model_has_its_closed_form(rng):
    x = rng.standard_normal((12, 4))
    model = torch.nn.Linear(4, 2).double()
    y = rng.standard_normal((12, 2))
    w, f = model.weight.detach().numpy(), predict(model, x)
    covariance = ((y - y.mean(0)).T @ (x - x.mean(0))) / 12
    expected = w * covariance / (f.std(0) * y.std(0))[:, None]
    np.testing.assert_allclose(reference_igc(model, x, y, n_steps=1), expected, atol=1e-12)


def test_paper_form_and_pair_form_agree_and_sum_to_the_correlation(rng):
    x = rng.standard_normal((6, 6))
    model = mlp().double()
    y = make_targets(model, x, rng)
    by_pairs = reference_igc_of_pairs(
        model, x, y, pairs=all_pairs(6), points=np.tile(np.arange(1, 49) / 48, (36, 1))
    )
    by_paper = reference_igc(model, x, y, n_steps=48)
    # Riemann's right-hand rule is not antisymmetric, hence not exact.
    np.testing.assert_allclose(by_pairs, by_paper, atol=0.02 * abs(by_paper).max())
    r = [np.corrcoef(predict(model, x)[:, v], y[:, v])[0, 1] for v in range(2)]
    np.testing.assert_allclose(by_paper.sum(1), r, atol=0.02)


def test_control_variate_changes_nothing_over_all_pairs(rng):
    x = rng.standard_normal((7, 6))
    model = mlp().double()
    y = make_targets(model, x, rng)
    # Mirrored points, so that the lines' means are the trapezoids.
    points = rng.random(49)
    points = np.stack([points, 1 - points], 1)
    plain, controlled = (
        reference_igc_of_pairs(
            model, x, y, pairs=all_pairs(7), points=points, control_variate=control
        )
        for control in (False, True)
    )
    np.testing.assert_allclose(controlled, plain, atol=1e-12)


def test_given_baselines(rng):
    a = rng.standard_normal((3, 3))
    model = Quadratic(a + a.T)
    x, zero = rng.standard_normal((8, 3)), np.zeros((1, 3))
    y = rng.standard_normal(8)
    attributions = x * (x @ (a + a.T)) / 2
    f = predict(model, x)[:, 0]
    expected = ((y - y.mean())[:, None] * attributions).mean(0) / (f.std() * y.std())
    igc = reference_igc(model, x, y, baselines=zero, n_steps=100)
    np.testing.assert_allclose(igc[0], expected, rtol=0.02, atol=0.02)


def test_strata_are_compared_within_themselves(rng):
    x, conditions = rng.standard_normal((10, 5)), np.arange(10) % 2
    model = shake(Conditioned()).double()
    y = make_targets(model, x, rng, conditions)
    alike = [(i, j, 1 / 50) for i in range(10) for j in range(10) if (i - j) % 2 == 0]
    igc = reference_igc_of_pairs(
        model,
        x,
        y,
        pairs=alike,
        points=np.tile(np.linspace(0.0125, 0.9875, 40), (50, 1)),
        conditions=conditions,
        strata=conditions,
    )
    f, t = predict(model, x, conditions), y.copy()
    for c in (0, 1):
        f[conditions == c] -= f[conditions == c].mean(0)
        t[conditions == c] -= t[conditions == c].mean(0)
    r = (f * t).mean(0) / (f.std(0) * t.std(0))
    assert igc.sum(1) == pytest.approx(r, abs=1e-3)
