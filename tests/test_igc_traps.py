"""What once gave wrong numbers without a word, or could."""

import h5py
import numpy as np
import pytest
import torch
from attribution_models import make_targets, mlp
from torch import nn

from neuroigc._validation import InputError
from neuroigc.attribution import (
    PairedBaseline,
    attribute_shard,
    integrated_gradient_correlation,
    merge_shards,
)
from neuroigc.attribution.columns import check_groups

FEW = dict(max_gradients=9, tolerance=1e-9)


@pytest.fixture
def case(rng):
    x, model = rng.standard_normal((60, 6)), mlp().double()
    return model, x, make_targets(model, x, rng)


class Temperature(nn.Module):
    """A module whose state says nothing of one of its numbers."""

    def __init__(self, inner, temperature):
        super().__init__()
        self.inner, self.temperature = inner, temperature

    def forward(self, x):
        return torch.tanh(self.temperature * self.inner(x))


@pytest.mark.parametrize("names", [("V1/left", "V2"), ("a", "b"), ("a/b", "b/a")])
def test_stems_are_the_sums_of_all_their_branches(names):
    groups = check_groups({"v/w": {names[0]: [0, 1], names[1]: [2]}}, (6,))
    assert list(groups["v/w"]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (np.ones((3, 2), bool), r"mask of 6, of shape \(3, 2\)"),
        (np.nonzero(np.ones((2, 3))), r"indices over the flattened input, in one dimension"),
    ],
)
def test_groups_of_another_shape_are_refused(members, message):
    with pytest.raises(InputError, match=message):
        check_groups({"g": members}, (2, 3))


class Root(nn.Module):
    def forward(self, x):
        return torch.sqrt(x[:, :1] + 1)


def test_outputs_that_are_no_numbers_are_refused(rng):
    x = np.abs(rng.standard_normal((50, 4)))
    x[20] = -2
    with pytest.raises(InputError, match=r"model: expected finite outputs.*for 1 samples"):
        integrated_gradient_correlation(Root(), x, x[:, 0])


@pytest.mark.parametrize("which", ["inputs", "targets"])
def test_masked_entries_are_refused(case, which):
    model, x, y = case
    arrays = {"inputs": x, "targets": y}
    arrays[which] = np.ma.masked_greater(arrays[which], 1)
    with pytest.raises(InputError, match=f"{which}: expected numbers throughout"):
        integrated_gradient_correlation(model, arrays["inputs"], arrays["targets"])


def test_targets_count_by_their_order_not_their_size(case):
    model, x, y = case
    usual = integrated_gradient_correlation(model, x, y, **FEW)
    for size in (1e-200, 1e200):
        other = integrated_gradient_correlation(model, x, y * size, **FEW)
        np.testing.assert_allclose(other.correlation, usual.correlation)
        assert np.abs(other.attributions.sum(1) - other.correlation).max() < 0.05


def test_data_sets_of_a_file_are_streamed(case, tmp_path):
    model, x, y = case
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=x)
        result = integrated_gradient_correlation(model, data, y, **FEW)
    expected = integrated_gradient_correlation(model, x, y, **FEW)
    np.testing.assert_allclose(result.attributions, expected.attributions, atol=1e-12)


class Clamped(nn.Module):
    """Has parts of the names that parts are declared by, and does more than these."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.body(self.stem(x))).clamp(-0.3, 0.3)


def test_parts_are_compared_with_the_whole_on_samples_from_all_over(rng):
    x = rng.standard_normal((300, 6))
    x[:6] *= 0.05
    model = Clamped().double().eval()
    with torch.no_grad():
        f = model(torch.from_numpy(x))[:, 0].numpy()
    y = f + rng.standard_normal(300)
    result = integrated_gradient_correlation(model, x, y, **FEW)
    assert result.correlation[0] == pytest.approx(np.corrcoef(f, y)[0, 1])


# Sums of another analysis.


@pytest.mark.parametrize("what", ["forward", "within", "order"])
def test_checkpoints_of_something_else_are_refused(case, tmp_path, what):
    model, x, y = case
    labels = np.arange(60) // 30
    options = dict(checkpoint=tmp_path / "sums.npz", **FEW)
    first = Temperature(model, 1.0)
    integrated_gradient_correlation(first, x, y, baseline=PairedBaseline(within=labels), **options)
    if what == "forward":
        first = Temperature(model, 3.0)
    elif what == "within":
        labels = np.arange(60) % 2
    else:
        x, y, labels = x[::-1].copy(), y[::-1].copy(), labels[::-1].copy()
    with pytest.raises(InputError, match="checkpoint: expected sums of this very analysis"):
        integrated_gradient_correlation(
            first, x, y, baseline=PairedBaseline(within=labels), **options
        )


def test_shards_of_another_model_are_not_merged(case, tmp_path):
    model, x, y = case
    for number, temperature in ((1, 1.0), (2, 3.0)):
        attribute_shard(
            tmp_path / f"{number}.npz", Temperature(model, temperature), x, y,
            shard=(number, 2), max_gradients=9,
        )  # fmt: skip
    with pytest.raises(InputError, match="paths: expected shards of one and the same attribution"):
        merge_shards([tmp_path / "1.npz", tmp_path / "2.npz"])


def test_rare_targets_take_no_more_rounds_than_their_gradients_say(rng):
    x = rng.standard_normal((400, 6))
    y = np.zeros((400, 2))
    y[7, 0] = y[::2, 1] = 1
    result = integrated_gradient_correlation(
        mlp().double(), x, y, outputs=[0], max_gradients=8, tolerance=1e-9
    )
    assert result.settings["n_rounds"] <= 8 * 7
