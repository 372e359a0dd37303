"""A training that was cut short ends with the weights of one that was not, bit by bit."""

import json
import math
import signal

import numpy as np
import pytest
import torch
from cutting_cases import die, run_processes, team_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from neuroigc._validation import InputError
from neuroigc.models import NeuralClassifier, NeuralDecoder, NeuralEncoder, resuming, training
from neuroigc.models.resuming import Checkpoint

OPTIONS = {"max_epochs": 6, "batch_size": 16, "device": "cpu", "dropout": 0.3, "patience": 2}
KINDS = {
    "decoder": (NeuralDecoder, {**OPTIONS, "hidden": (8, 8), "accumulate": 2}),
    "no validation": (NeuralDecoder, {**OPTIONS, "hidden": (8,), "validation_fraction": 0.0}),
    "encoder": (NeuralEncoder, {**OPTIONS, "channels": (2,) * 5, "n_latents": 4}),
    # Labels are by chance: its validation loss does not fall for long.
    "classifier": (NeuralClassifier, {**OPTIONS, "hidden": (8,), "max_epochs": 20, "patience": 0}),
}


def make(name, **changed):
    kind, options = KINDS[name]
    return kind(**{**options, **changed})


def fit(model, name, **options):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(90, 12, 12) if name == "encoder" else (90, 6)).astype(np.float32)
    y = rng.integers(0, 2, 90) if name == "classifier" else x.reshape(90, -1)[:, :2] ** 2
    if name == "decoder":
        options = {
            "conditions": np.arange(90) % 3,
            "sample_weight": 1 + np.arange(90) % 2,
        } | options
    return model.fit(x, y, **options)


def bits(model):
    return nn.utils.parameters_to_vector(model.module_.state_dict().values())


def without_seconds(model):
    return {name: values for name, values in model.history_.items() if name != "seconds"}


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("n_saves", [1, 3])
def test_goes_on_to_the_same_weights(name, n_saves, tmp_path, monkeypatch):
    path, save, saves = tmp_path / "new" / "training.safetensors", Checkpoint.save, []

    def save_and_stop(*arguments):
        save(*arguments)
        saves.append(1)
        if len(saves) % n_saves == 0:
            raise Stop

    expected = fit(make(name), name)
    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    for _ in range(21):
        try:
            torch.rand(1)  # what others do in between has no influence
            model = fit(make(name), name, checkpoint=path)
            break
        except Stop:
            continue
    assert len(saves) == len(expected.history_["seconds"])
    assert torch.equal(bits(model), bits(expected))
    assert without_seconds(model) == without_seconds(expected)
    assert (np.diff(model.history_["seconds"]) > 0).all()
    # Once finished, there is nothing left to do.
    again = fit(make(name), name, checkpoint=path)
    assert torch.equal(bits(again), bits(expected))
    assert len(saves) == len(expected.history_["seconds"])
    if name == "classifier":
        assert len(saves) < 20


def fit_and_die(rank, size, folder, attempt, n_saves, when):
    """Be killed at a save: before it, or amid writing, or afterwards."""
    save, replace, saves = resuming.Checkpoint.save, resuming.save_file, []

    def counted(*arguments):
        saves.append(1)
        if (len(saves), when) == (n_saves, "before") and rank == size - 1:
            die()
        save(*arguments)
        if (len(saves), when) == (n_saves, "after") and rank == 0:
            die()

    def write(tensors, path, header):
        replace(tensors, path, header)
        if (len(saves), when) == (n_saves, "amid"):
            with open(path, "r+b") as file:  # noqa: PTH123
                file.truncate(1000)
            die()

    resuming.Checkpoint.save, resuming.save_file = counted, write
    with team_of(rank, size, folder / f"meeting{attempt}"):
        model = fit(make("decoder"), "decoder", checkpoint=folder / "training.safetensors")
        model.save(folder / f"model-{rank}")


@pytest.fixture
def one_thread():
    """As many as processes side by side have: weights are the same for the same number."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("when", ["before", "amid", "after"])
def test_killed_and_started_again(when, tmp_path):
    (exit_code,) = run_processes(1, fit_and_die, tmp_path, 0, 3, when)
    assert exit_code == -signal.SIGKILL
    assert run_processes(1, fit_and_die, tmp_path, 1, 99, when) == [0]
    model, expected = NeuralDecoder.load(tmp_path / "model-0"), fit(make("decoder"), "decoder")
    assert torch.equal(bits(model), bits(expected))


def test_two_processes_go_on_after_one_was_killed(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir(), broken.mkdir()
    assert run_processes(2, fit_and_die, straight, 0, 99, "") == [0, 0]
    assert -signal.SIGKILL in run_processes(2, fit_and_die, broken, 0, 3, "before")
    assert run_processes(2, fit_and_die, broken, 1, 99, "") == [0, 0]
    states = [
        bits(NeuralDecoder.load(folder / f"model-{rank}"))
        for folder in (straight, broken) for rank in range(2)
    ]  # fmt: skip
    assert all(torch.equal(state, states[0]) for state in states)
    with pytest.raises(InputError, match=r"of one with other number of processes\. Name another"):
        fit(make("decoder"), "decoder", checkpoint=broken / "training.safetensors")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (dict(seed=1), "seed, network, samples"),
        (dict(learning_rate=2e-3), "learning_rate"),
        (dict(max_epochs=7), "max_epochs"),
        (dict(accumulate=1), "accumulate"),
        (dict(hidden=(8, 9)), "network"),
        (dict(dropout=0.6), "layers"),
        (dict(activation="relu"), "layers"),
        (dict(validation_fraction=0.2), "samples, validation samples"),
    ],
)
def test_other_settings_are_refused(changed, what, tmp_path):
    fit(make("decoder"), "decoder", checkpoint=tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    with pytest.raises(InputError, match=rf"checkpoint: expected .* of one with other {what}"):
        fit(make("decoder", **changed), "decoder", checkpoint=tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == before
    # What has no influence on the weights may change.
    fit(make("decoder", n_workers=0), "decoder", checkpoint=tmp_path / "x")


def test_goes_on_after_a_validation_loss_that_is_none(tmp_path, monkeypatch):
    """The first is NaN; the weights are those of the least that is known."""
    evaluate, n_calls = training._evaluate, []

    def watched(*args):
        n_calls.append(1)
        return math.nan if len(n_calls) == 1 else evaluate(*args)

    monkeypatch.setattr(training, "_evaluate", watched)
    whole, again = (
        fit(make("decoder", max_epochs=3, patience=5), "decoder", checkpoint=tmp_path / name)
        for name in ("x", "x")
    )
    assert math.isnan(again.history_["validation_loss"][0])
    n_calls.clear()
    save = Checkpoint.save

    def stop(self, progress):
        save(self, progress)
        if progress.n_epochs == 1 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise Stop

    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(Stop):
        fit(make("decoder", max_epochs=3, patience=5), "decoder", checkpoint=tmp_path / "y")
    resumed = fit(make("decoder", max_epochs=3, patience=5), "decoder", checkpoint=tmp_path / "y")
    assert torch.equal(bits(resumed), bits(whole))


def test_other_data_are_refused(tmp_path):
    fit(make("decoder"), "decoder", checkpoint=tmp_path / "x")
    for other in ({"conditions": np.arange(90) % 2}, {"sample_weight": 1 + np.arange(90) % 3}):
        with pytest.raises(InputError, match=r"checkpoint: .* with other (network, )?samples"):
            fit(make("decoder"), "decoder", checkpoint=tmp_path / "x", **other)


def test_files_are_safetensors_and_json_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "x"
    fit(make("decoder"), "decoder", checkpoint=path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["neuroigc"])
    assert header["format"] == resuming.FORMAT
    kinds = {name.partition(".")[0] for name in load_file(path)}
    assert kinds == {"network", "best", "optimizer", "random"}
    whole = path.read_bytes()
    old = {"neuroigc": json.dumps({"format": "neuroigc training, 0"})}
    save_file({"a": torch.zeros(1)}, tmp_path / "old", old)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    others = [(tmp_path / name).read_bytes() for name in ("old", "foreign")]
    for damaged in (whole[:-100], whole[:20], b"", b"text", *others):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"checkpoint: expected the state of a training, as"):
            fit(make("decoder"), "decoder", checkpoint=path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoint: expected a folder that can be written to"):
        fit(make("decoder"), "decoder", checkpoint=tmp_path / "file" / "x")
