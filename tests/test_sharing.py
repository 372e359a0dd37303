"""Processes side by side train the network that one process trains, and all have the same."""

import json

import numpy as np
import pytest
import torch
from cutting_cases import run_processes, team_of
from torch import nn

from neuroigc._validation import InputError
from neuroigc.models import FieldEncoder, NeuralClassifier, NeuralDecoder, NeuralEncoder

SIZES = [2, pytest.param(4, marks=pytest.mark.slow)]
FAST = {"max_epochs": 4, "device": "cpu", "seed": 3, "dropout": 0.0}
# Batches of which the processes have unequal parts.
KINDS = {
    "decoder": (NeuralDecoder, {**FAST, "hidden": (8, 8), "batch_size": 31}),
    "parts": (NeuralDecoder, {**FAST, "hidden": (8,), "batch_size": 50, "accumulate": 2}),
    "encoder": (NeuralEncoder, {**FAST, "channels": (2,) * 5, "n_latents": 4, "batch_size": 19}),
    "classifier": (NeuralClassifier, {**FAST, "hidden": (8,), "batch_size": 31}),
}


def make_data(name):
    rng = np.random.default_rng(1)
    if name == "encoder":
        images = rng.random((61, 12, 12)).astype(np.float32)
        return (images, images[:, ::6, ::6].reshape(61, 4)), {}
    inputs = rng.normal(size=(123, 6)).astype(np.float32)
    targets = inputs[:, :2] + 0.3 * rng.normal(size=(123, 2)).astype(np.float32)
    if name == "classifier":
        return (inputs, targets[:, 0] > 0), {}
    weights = rng.integers(1, 4, 123)
    return (inputs, targets), {"conditions": np.arange(123) // 41, "sample_weight": weights}


def fit_all(rank, size, folder):
    with team_of(rank, size, folder / "meeting"):
        for name, (kind, options) in KINDS.items():
            arrays, more = make_data(name)
            model = kind(**options).fit(*arrays, **more, checkpoint=folder / f"{name}.part")
            model.save(folder / f"{name}-{size}-{rank}")
            assert not [m for m in model.module_.modules() if "forward" in vars(m)]


@pytest.mark.parametrize("size", SIZES)
def test_many_processes_train_what_one_does(tmp_path, size):
    assert run_processes(size, fit_all, tmp_path) == [0] * size
    for name, (kind, options) in KINDS.items():
        arrays, more = make_data(name)
        alone = kind(**options).fit(*arrays, **more)
        shared = [kind.load(tmp_path / f"{name}-{size}-{rank}") for rank in range(size)]
        state = [nn.utils.parameters_to_vector(m.module_.state_dict().values()) for m in shared]
        assert all(torch.equal(own, state[0]) for own in state)
        # Parts of a batch are normalised one by one, by however many processes.
        loose = name == "parts"
        history = shared[0].history_
        np.testing.assert_allclose(
            history["train_loss"], alone.history_["train_loss"], rtol=0.05 if loose else 1e-4
        )
        # A bias before batch normalisation has no gradient but rounding errors, which Adam makes
        # as large as any other; of what running means then lag behind, validation knows.
        np.testing.assert_allclose(
            history["validation_loss"], alone.history_["validation_loss"], rtol=0.02
        )
        assert [m.history_["validation_loss"] for m in shared] == [
            history["validation_loss"]
        ] * size
        if not loose:
            weights = [p for p in shared[0].module_.body.parameters() if p.ndim > 1]
            expected = [p for p in alone.module_.body.parameters() if p.ndim > 1]
            torch.testing.assert_close(weights, expected, rtol=1e-2, atol=1e-3)
    # What only the first process writes.
    assert sorted(path.name for path in tmp_path.glob("*.part")) == sorted(
        f"{k}.part" for k in KINDS
    )


def drop_and_stop(rank, size, folder):
    """Train with dropout, on noise, until the validation loss has not fallen for long."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 80, 6))
    images = rng.random((60, 12, 12)).astype(np.float32)
    with team_of(rank, size, folder / "meeting"):
        options = {"max_epochs": 60, "patience": 2, "batch_size": 16, "device": "cpu"}
        model = NeuralDecoder(hidden=(8,), dropout=0.3, learning_rate=1e-2, **options).fit(x, y)
        fields = FieldEncoder(channels=(3, 4), kernel_sizes=(3, 3), max_epochs=2, device="cpu")
        fields.fit(images, images[:, ::6, ::6].reshape(60, 4))
    told = {"history": model.history_, "weights": float(model.module_.stem.weight.sum())}
    told["history"].pop("seconds")
    told["fields"] = fields.windows_["x"].tolist()
    (folder / f"{rank}.json").write_text(json.dumps(told))


def test_processes_stop_together_and_agree(tmp_path):
    assert run_processes(2, drop_and_stop, tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert len(first["history"]["train_loss"]) < 60


def disagree(rank, size, folder):
    x = np.random.default_rng(0).normal(size=(60, 6))
    options = {"hidden": (8,), "max_epochs": 1, "device": "cpu"}
    with team_of(rank, size, folder / "meeting"):
        cases = {
            "seed": (NeuralDecoder(seed=rank, **options), x),
            "data": (NeuralDecoder(**options), x + rank * np.arange(60)[:, None]),
            "few": (NeuralDecoder(batch_size=3, **options), x),
        }
        for name, (model, inputs) in cases.items():
            try:
                model.fit(inputs, x)
            except InputError as error:
                (folder / f"{name}-{rank}").write_text(str(error))


def test_processes_that_do_not_do_the_same_are_told(tmp_path):
    assert run_processes(2, disagree, tmp_path) == [0, 0]
    for rank in range(2):
        for name in ("seed", "data"):
            message = (tmp_path / f"{name}-{rank}").read_text()
            assert "network, samples and options: expected the same in all processes" in message
        assert "two samples for each of 2 parts" in (tmp_path / f"few-{rank}").read_text()
