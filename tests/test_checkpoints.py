"""Saved models: the same to the last bit, or refused."""

import json

import numpy as np
import pytest
import torch

from neuroigc import __version__
from neuroigc._validation import InputError
from neuroigc.models import DecoderNetwork, NeuralClassifier, NeuralDecoder, NeuralEncoder
from neuroigc.models.checkpoints import load_checkpoint, load_weights, save_checkpoint

FAST = {"max_epochs": 2, "batch_size": 16, "device": "cpu"}


@pytest.fixture
def models(rng):
    """Return fitted models of every kind, with inputs and conditions for each."""
    X, images = rng.normal(size=(30, 4)), rng.random((30, 12, 12))
    c, y = np.arange(30) % 3, rng.normal(size=(30, 2))
    labels = np.array(["a", "b"])[np.arange(30) % 2]
    return {
        NeuralDecoder: (NeuralDecoder(hidden=(6,), **FAST).fit(X, y, conditions=c), X, c),
        NeuralEncoder: (
            NeuralEncoder(channels=(2,) * 5, n_latents=3, **FAST).fit(images, y),
            images,
            None,
        ),
        NeuralClassifier: (NeuralClassifier(hidden=(6, 6), **FAST).fit(X, labels), X, None),
    }


@pytest.fixture
def saved(models, tmp_path):
    model, X, c = models[NeuralDecoder]
    model.save(tmp_path / "sub-01.v2")
    return tmp_path / "sub-01.v2", model, X, c


def test_round_trip_is_exact(models, tmp_path):
    for kind, (model, X, c) in models.items():
        model.save(tmp_path / "models" / kind.__name__)
        before = torch.random.get_rng_state()
        loaded = kind.load(tmp_path / "models" / kind.__name__)
        assert torch.equal(torch.random.get_rng_state(), before)
        np.testing.assert_array_equal(
            loaded.predict(X, conditions=c), model.predict(X, conditions=c)
        )
        assert loaded.get_params() == model.get_params()
        assert loaded.history_ == model.history_
        assert not loaded.module_.training
        for name, value in model.module_.state_dict().items():
            assert torch.equal(loaded.module_.state_dict()[name], value)
        np.testing.assert_array_equal(loaded.conditions_, model.conditions_)


def test_a_loaded_classifier_knows_its_classes(models, tmp_path):
    model, X, _ = models[NeuralClassifier]
    model.save(tmp_path / "m")
    loaded = NeuralClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.classes_, ["a", "b"])
    assert loaded.correlation(X, model.predict(X)).shape == (2,)


def test_description_says_what_it_is(saved):
    prefix = saved[0]
    assert sorted(path.name for path in prefix.parent.iterdir()) == [
        "sub-01.v2.json",
        "sub-01.v2.safetensors",
    ]
    description = json.loads(prefix.with_name("sub-01.v2.json").read_text())
    assert description["class"] == "NeuralDecoder"
    assert description["neuroigc_version"] == __version__
    assert description["parameters"]["hidden"] == [6]
    assert len(description["fitted"]["history_"]["train_loss"]) == 2
    assert len(description["weights"]["sha256"]) == 64


def test_another_class_is_refused(saved):
    with pytest.raises(
        InputError, match=r"expected a saved NeuralEncoder; got a saved NeuralDecoder"
    ):
        NeuralEncoder.load(saved[0])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"expected m.safetensors and m.json in .*No such file"):
        NeuralDecoder.load(tmp_path / "m")


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_truncated_weights_are_refused(saved, kept):
    path = saved[0].with_name("sub-01.v2.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        InputError, match=r"sub-01.v2.safetensors: expected the weights that .* describes"
    ):
        NeuralDecoder.load(saved[0])


def test_one_flipped_bit_is_refused(saved):
    path = saved[0].with_name("sub-01.v2.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="with another checksum"):
        NeuralDecoder.load(saved[0])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "neuroigc model, 1"}', "\x00"])
def test_damaged_descriptions_are_refused(saved, text):
    saved[0].with_name("sub-01.v2.json").write_text(text)
    with pytest.raises(
        InputError, match=r"sub-01.v2.json: expected the description of a saved model"
    ):
        NeuralDecoder.load(saved[0])


def test_another_format_is_refused(saved):
    path = saved[0].with_name("sub-01.v2.json")
    path.write_text(path.read_text().replace("neuroigc model, 2", "neuroigc model, 9"))
    with pytest.raises(
        InputError, match=r"expected format 'neuroigc model, 2'; got 'neuroigc model, 9'"
    ):
        NeuralDecoder.load(saved[0])


def as_before_digests(path, description):
    """Write a description as the first version of the format had it."""
    del description["sha256_of_the_rest"]
    path.write_text(json.dumps({**description, "format": "neuroigc model, 1"}))


def test_models_of_the_first_format_are_read(saved):
    path = saved[0].with_name("sub-01.v2.json")
    as_before_digests(path, json.loads(path.read_text()))
    NeuralDecoder.load(saved[0])


def test_a_description_without_its_digest_is_refused(saved):
    path = saved[0].with_name("sub-01.v2.json")
    description = json.loads(path.read_text())
    del description["sha256_of_the_rest"]
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match="changed or damaged after it was written"):
        NeuralDecoder.load(saved[0])


def test_weights_of_another_shape_are_refused(saved):
    path = saved[0].with_name("sub-01.v2.json")
    description = json.loads(path.read_text())
    description["fitted"]["network_arguments_"]["hidden"] = [5]
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match="changed or damaged after it was written"):
        NeuralDecoder.load(saved[0])
    as_before_digests(path, description)
    with pytest.raises(InputError, match=r"expected the weights of a DecoderNetwork as described"):
        NeuralDecoder.load(saved[0])


def test_weights_that_are_no_safetensors_are_refused(tmp_path):
    network = DecoderNetwork(3, 1, hidden=(2,))
    save_checkpoint(tmp_path / "m", network, {"n": np.int64(3), "values": np.arange(2)})
    description, state = load_checkpoint(tmp_path / "m")
    assert (description["n"], description["values"]) == (3, [0, 1])
    load_weights(network, state, "m")
    with pytest.raises(InputError, match=r"m: expected the weights of a DecoderNetwork"):
        load_weights(DecoderNetwork(4, 1, hidden=(2,)), state, "m")


def test_a_failed_save_leaves_the_old_model(saved, monkeypatch):
    prefix, model, X, c = saved
    expected = model.predict(X, conditions=c)
    model.history_ = {"train_loss": [object()]}
    with pytest.raises(TypeError, match="cannot be saved as JSON"):
        model.save(prefix)
    np.testing.assert_array_equal(NeuralDecoder.load(prefix).predict(X, conditions=c), expected)
    assert len(list(prefix.parent.iterdir())) == 2


def test_unwritable_folder(models, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"path_prefix: expected a folder that can be written to"):
        models[NeuralDecoder][0].save(tmp_path / "file" / "model")
