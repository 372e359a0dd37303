"""What is replaced, and what is read."""

import numpy as np
import pytest
import torch
from attribution_models import Conditioned, mlp, predict, shake

from neuroigc._validation import InputError
from neuroigc.attribution import GivenBaseline, MeanBaseline, SampledBaseline
from neuroigc.attribution.perturbation import element_values, make_elements, open_perturbed


def opened(model, x, y=None, **options):
    defaults = dict(
        replacement=MeanBaseline(), output=1, conditions=None, batch_size=3, device="cpu", seed=0
    )
    return open_perturbed(model, x, y, **(defaults | options))


@pytest.mark.parametrize("own", [False, True])
def test_reads_predictions_of_what_is_mixed(rng, own):
    model, x = mlp().double(), rng.standard_normal((7, 6))
    keep = rng.random((7, 6)) < 0.5
    blurred = rng.standard_normal((7, 6))
    replacement, other = (blurred, blurred) if own else (MeanBaseline(), x.mean(0))
    with opened(model, x, replacement=replacement) as perturbed:
        found = perturbed.read(torch.from_numpy(keep)).numpy()
    np.testing.assert_allclose(found, predict(model, np.where(keep, x, other))[:, 1], atol=1e-12)


def test_conditions_stay_with_their_samples(rng):
    model, x = shake(Conditioned()).double(), rng.standard_normal((7, 5))
    conditions, keep = np.arange(7) % 3, rng.random((1, 5)) < 0.5
    with opened(model, x, conditions=conditions) as perturbed:
        found = perturbed.read(torch.from_numpy(keep)).numpy()
    mixed = np.where(keep, x, x.mean(0))
    np.testing.assert_allclose(found, predict(model, mixed, conditions)[:, 1], atol=1e-12)


def test_several_replacements_are_averaged(rng):
    model, x, bank = mlp().double(), rng.standard_normal((7, 6)), rng.standard_normal((3, 6))
    keep = rng.random((1, 6)) < 0.5
    with opened(model, x, replacement=GivenBaseline(bank)) as perturbed:
        found = perturbed.read(torch.from_numpy(keep)).numpy()
    expected = np.mean([predict(model, np.where(keep, x, b))[:, 1] for b in bank], 0)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_reads_covariances_over_the_intact_model(rng):
    model, x, y = mlp().double(), rng.standard_normal((20, 6)), rng.standard_normal(20)
    keep = np.array([[True, False, True, True, False, True]])
    f, left = (predict(model, a)[:, 1] for a in (x, np.where(keep, x, x.mean(0))))
    expected = ((y - y.mean()) * left).mean() / (f.std() * y.std())
    with opened(model, x, y) as perturbed:
        np.testing.assert_allclose(perturbed.read(torch.from_numpy(keep)), [expected])
        whole = perturbed.read(torch.ones(1, 6, dtype=torch.bool))
    np.testing.assert_allclose(whole, [np.corrcoef(f, y)[0, 1]])


def test_elements_are_components_or_groups(rng):
    x = rng.standard_normal((4, 2, 3))
    single = make_elements(None, (2, 3))
    np.testing.assert_allclose(element_values(x, single, (2, 3), 4), x.reshape(4, 6))
    groups = make_elements({"a": [0, 4], "b": [1, 2, 4]}, (2, 3))
    expected = [[x[0, 0, 0] + x[0, 1, 1], x[0, 0, 1] + x[0, 0, 2] + x[0, 1, 1]]]
    np.testing.assert_allclose(element_values(x[0], groups, (2, 3), None), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(y=np.zeros(5)), "targets: expected three or more samples whose targets"),
        (dict(y=np.zeros((5, 2))), "targets: expected those of one output"),
        (dict(y=np.zeros(4)), "expected the same number of samples"),
        (dict(replacement=np.zeros((5, 5))), r"replacement: expected a baseline, or an array of"),
        (dict(replacement=np.full((5, 6), np.nan)), "replacement: expected finite numbers"),
        (dict(replacement="mean"), "replacement: expected numbers"),
        (dict(replacement=np.zeros((4, 6))), "expected the same number of samples"),
        (dict(replacement=SampledBaseline(9)), "baseline: expected at most as many"),
        (dict(output=7), "outputs: expected indices of the model's outputs"),
        (dict(output=-1), "output: expected 0 or more"),
        (dict(batch_size=0), "batch_size: expected 1 or more"),
    ],
)
def test_bad_input_is_named(rng, options, message):
    x = rng.standard_normal((5, 6))
    with pytest.raises(InputError, match=message), opened(mlp(), x, **options):
        pass


def test_predictions_that_differ_by_rounding_are_constant(rng):
    class Shares(torch.nn.Module):
        def forward(self, x):
            return torch.softmax(x, 1).sum(1, keepdim=True)

    x = rng.standard_normal((40, 6)).astype(np.float32)
    with (
        pytest.raises(InputError, match="three or more samples whose targets and predictions vary"),
        opened(Shares(), x, y=x[:, 0], output=0),
    ):
        pass


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3)), r"maps: expected shape \(4, 6\) or \(6,\)"),
        (np.full(6, np.nan), "finite"),
        ("abc", "maps: expected numbers"),
        (np.full(6, 1j), "maps: expected numbers"),
    ],
)
def test_bad_maps_are_named(values, message):
    with pytest.raises(InputError, match=message):
        element_values(values, make_elements(None, (6,)), (6,), 4)
