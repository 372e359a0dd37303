"""Estimators: scikit-learn's manners, raw units in and out, and clear refusals."""

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from torch import nn

from neuroigc._validation import InputError
from neuroigc.models import NeuralClassifier, NeuralDecoder, NeuralEncoder
from neuroigc.models.base import pearson
from neuroigc.models.feeding import Samples

FAST = {"max_epochs": 2, "batch_size": 16, "device": "cpu"}
DECODER = {**FAST, "hidden": (8, 8)}
ENCODER = {**FAST, "channels": (2, 2, 2, 2, 2), "n_latents": 4}
CLASSIFIER = {**FAST, "hidden": (8, 8)}


@pytest.fixture
def decoding(rng):
    X = rng.normal(50, 3, size=(120, 6)).astype(np.float32)
    return X, X @ rng.normal(size=(6, 2)) * 10 + 1000


@pytest.fixture
def encoding(rng):
    images = rng.random((40, 12, 12)).astype(np.float32)
    return images, images[:, ::6, ::6].reshape(40, 4)


@pytest.fixture
def classes(rng):
    y = np.array(["face", "house", "shoe"])[np.arange(90) % 3]
    return rng.normal(size=(90, 5)) + 3 * (np.arange(90) % 3)[:, None], y


def state(estimator):
    return nn.utils.parameters_to_vector(estimator.module_.parameters())


@pytest.mark.parametrize("kind", [NeuralDecoder, NeuralEncoder, NeuralClassifier])
def test_clone_and_parameters(kind):
    estimator = kind(seed=7, dropout=0.25)
    twin = clone(estimator)
    assert twin is not estimator
    assert twin.get_params() == estimator.get_params()
    assert twin.set_params(batch_size=3).batch_size == 3
    assert not [name for name in vars(estimator) if name.endswith("_")]
    assert repr(estimator) == f"{kind.__name__}(dropout=0.25, seed=7)"
    with pytest.raises(InputError, match=r"parameter: expected one of .*; got 'depth'"):
        estimator.set_params(depth=3)


def test_serves_in_cross_validation(rng):
    X = rng.standard_normal((60, 4)).astype(np.float32)
    regressor, classifier = NeuralDecoder(**DECODER), NeuralClassifier(**CLASSIFIER)
    assert is_regressor(regressor)
    assert is_classifier(classifier)
    scores = cross_val_score(regressor, X, X[:, 0], cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    # Folds are stratified only for what is known as a classifier.
    labels = np.repeat(["a", "b", "c"], 20)
    assert np.isfinite(cross_val_score(classifier, X, labels, cv=3)).all()


@pytest.mark.parametrize("kind", [NeuralDecoder, NeuralEncoder, NeuralClassifier])
def test_not_fitted(kind, tmp_path):
    shape = (3, 4, 4) if kind is NeuralEncoder else (3, 4)
    with pytest.raises(NotFittedError):
        kind().predict(np.zeros(shape))
    with pytest.raises(NotFittedError):
        kind().save(tmp_path / "model")


def test_learns_a_linear_map_in_raw_units(decoding):
    X, y = decoding
    model = NeuralDecoder(
        hidden=(32,), dropout=0.0, max_epochs=60, learning_rate=1e-2, device="cpu"
    )
    model.fit(X[:90], y[:90])
    assert model.score(X[90:], y[90:]) > 0.95
    assert abs(model.predict(X[90:]) - y[90:]).mean() < 0.3 * y.std()
    np.testing.assert_allclose(
        model.score(X[90:], y[90:]), np.mean(model.correlation(X[90:], y[90:]))
    )


def test_module_maps_raw_inputs_to_predictions(decoding, encoding):
    for model, (X, y) in [
        (NeuralDecoder(**DECODER), decoding),
        (NeuralEncoder(**ENCODER), encoding),
    ]:
        model.fit(X, y)
        assert not model.module_.training
        with torch.no_grad():
            outputs = model.module_(torch.from_numpy(X)).numpy()
        np.testing.assert_allclose(model.predict(X), outputs, rtol=1e-6)
        assert model.predict(X).shape == y.shape


def test_units_of_inputs_and_targets_do_not_matter(decoding):
    X, y = (array.astype(np.float64) for array in decoding)
    first = NeuralDecoder(**DECODER).fit(X, y).predict(X)
    second = NeuralDecoder(**DECODER).fit((X - 50) / 4, y * 8 - 3).predict((X - 50) / 4)
    np.testing.assert_allclose((second + 3) / 8, first, atol=0.01 * y.std())


def test_one_target_stays_flat(decoding):
    X, y = decoding
    model = NeuralDecoder(**DECODER).fit(X, y[:, 0])
    assert model.predict(X).shape == (120,)
    assert model.correlation(X, y[:, 0]).shape == (1,)


def test_same_seed_same_model_and_global_state_untouched(decoding):
    X, y = decoding
    before = torch.random.get_rng_state()
    first, second = (NeuralDecoder(**DECODER, seed=3).fit(X, y) for _ in range(2))
    other = NeuralDecoder(**DECODER, seed=4).fit(X, y)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(state(first), state(second))
    assert not torch.equal(state(first), state(other))


def test_memory_map_and_other_number_types(decoding, tmp_path):
    X, y = decoding
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = NeuralDecoder(**DECODER).fit(X, y).predict(X)
    for other in (mapped, X.astype(">f4"), torch.from_numpy(X)):
        np.testing.assert_array_equal(
            NeuralDecoder(**DECODER).fit(other, y).predict(other), expected
        )
    counts = np.round(X).astype(np.int16)
    np.testing.assert_array_equal(
        NeuralDecoder(**DECODER).fit(counts, y).predict(counts),
        NeuralDecoder(**DECODER).fit(counts.astype(float), y).predict(counts.astype(float)),
    )


def test_conditions_explain_what_the_input_cannot(rng):
    c = rng.integers(2, 5, 300)
    X, y = rng.normal(size=(300, 3)), c + 0.1 * rng.normal(size=300)
    model = NeuralDecoder(
        hidden=(16,), dropout=0.0, max_epochs=30, learning_rate=1e-2, device="cpu"
    )
    model.fit(X, y, conditions=c)
    assert model.score(X, y, conditions=c) > 0.9
    np.testing.assert_array_equal(model.conditions_, [2, 3, 4])
    with pytest.raises(
        InputError, match=r"conditions: expected those of fit \(2, 3, 4\); got 1, 9"
    ):
        model.predict(X, conditions=np.where(c == 2, 9, 1))
    with pytest.raises(InputError, match=r"conditions: expected one for each sample; got none"):
        model.predict(X)
    with pytest.raises(InputError, match=r"conditions: expected none; got some"):
        NeuralDecoder(**DECODER).fit(X, y).predict(X, conditions=c)


@pytest.mark.parametrize("wrong", [[0.5] * 120, [-1] * 120, ["a"] * 120, [[1]] * 120])
def test_conditions_are_whole_numbers(decoding, wrong):
    with pytest.raises(InputError, match=r"conditions: expected one whole number for each sample"):
        NeuralDecoder(**DECODER).fit(*decoding, conditions=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(seed=-1), r"seed: expected a whole number, 0 or more; got -1"),
        (dict(hidden=[]), r"hidden: expected a sequence of positive whole numbers, .*got \[\]"),
        (dict(max_epochs="2"), r"max_epochs: expected a whole number, 1 or more; got '2'"),
        (dict(dropout=1.5), r"dropout: expected a number from 0 to 1, and less than 1; got 1.5"),
        (dict(progress="no"), r"progress: expected True or False; got 'no'"),
        (dict(device="meta"), r"device: expected 'auto', .*; got 'meta'"),
    ],
)
def test_options_of_the_wrong_kind(decoding, options, message):
    with pytest.raises(InputError, match=message):
        NeuralDecoder(**{**DECODER, **options}).fit(*decoding)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((120, 0)), r"y: expected at least one target for each sample; got .*\(120, 0\)"),
        (np.full((120, 2), "a"), r"y: expected real numbers; got dtype <U1"),
        (np.full(120, 1j), r"y: expected real numbers; got dtype complex128"),
        (np.full(120, None), r"y: expected real numbers; got dtype object"),
    ],
)
def test_targets_are_numbers(decoding, y, message):
    with pytest.raises(InputError, match=message):
        NeuralDecoder(**DECODER).fit(decoding[0], y)


def test_features_are_there(decoding):
    X, y = decoding
    with pytest.raises(InputError, match=r"X: expected at least one feature; got shape \(120, 0\)"):
        NeuralDecoder(**DECODER).fit(X[:, :0], y)


@pytest.mark.parametrize("greatest", [10_002, 10**9])
def test_conditions_are_counted_from_zero(decoding, greatest):
    conditions = np.arange(120) % 2 * greatest
    with pytest.raises(
        InputError, match=rf"conditions: .*got 2 .* up to {greatest}\. Number the subjects from 0"
    ):
        NeuralDecoder(**DECODER).fit(*decoding, conditions=conditions)


def test_random_validation_has_no_source_of_the_samples_trained_on(decoding, monkeypatch):
    X, y, *_ = decoding
    sources, parts = np.arange(len(X)) % 31, []
    split = Samples.split

    def watched(samples, *args):
        parts.append(split(samples, *args))
        return parts[-1]

    monkeypatch.setattr(Samples, "split", watched)
    NeuralDecoder(**DECODER).fit(X, y, sources=sources)
    ((first, second),) = parts
    assert len(second)
    assert not np.intersect1d(sources[first.rows], sources[second.rows]).size
    with pytest.raises(InputError, match=r"sources: expected the same number|sources has 3"):
        NeuralDecoder(**DECODER).fit(X, y, sources=sources[:3])


def test_given_validation_is_used(decoding):
    X, y = decoding
    model = NeuralDecoder(**DECODER).fit(X[:100], y[:100], validation=(X[100:], y[100:]))
    scale = y[:100].std(0)
    expected = np.mean(((model.predict(X[100:]) - y[100:]) / scale) ** 2)
    assert min(model.history_["validation_loss"]) == pytest.approx(expected, rel=1e-4)
    c = np.zeros(120, int)
    NeuralDecoder(**DECODER).fit(
        X[:100], y[:100], conditions=c[:100], validation=(X[100:], y[100:], c[100:])
    )
    with pytest.raises(
        InputError, match=r"validation\[0\]: expected \(n_samples, 6\), as in fit; got"
    ):
        NeuralDecoder(**DECODER).fit(X, y, validation=(X[:, :5], y))
    with pytest.raises(InputError, match=r"validation: expected \(X, y\) or \(X, y, conditions\)"):
        NeuralDecoder(**DECODER).fit(X, y, validation=(X,))


def test_refuses_what_is_not_finite(decoding):
    X, y = decoding
    bad = X.copy()
    bad[3, 2], bad[4, 4] = np.nan, np.inf
    with pytest.raises(InputError, match=r"X: expected finite numbers only; got 2 values"):
        NeuralDecoder(**DECODER).fit(bad, y)
    bad = y.copy()
    bad[:5, 1] = np.nan
    with pytest.raises(InputError, match=r"y: expected finite numbers only; got 5 values"):
        NeuralDecoder(**DECODER).fit(X, bad)
    with pytest.raises(InputError, match=r"validation\[1\]: expected finite numbers only; got 5"):
        NeuralDecoder(**DECODER).fit(X, y, validation=(X, bad))
    bad = X.copy()
    bad[7, 1:4] = np.nan
    with pytest.raises(InputError, match=r"X: expected finite numbers only; got 3 values"):
        NeuralDecoder(**DECODER).fit(X, y).predict(bad)
    with pytest.raises(InputError, match=r"X: expected real numbers; got dtype <U3"):
        NeuralDecoder(**DECODER).fit(np.full((120, 6), "1.0"), y)


def test_refuses_constant_targets_by_column(decoding):
    X, y = decoding
    y = np.column_stack([y, np.full(120, 0.1), y[:, 0], np.zeros(120)])
    with pytest.raises(
        InputError, match=r"y: expected targets that vary; got 2 constant of 5, column 2, 4"
    ):
        NeuralDecoder(**DECODER).fit(X, y)


def test_refuses_lengths_shapes_and_few_samples(decoding):
    X, y = decoding
    model = NeuralDecoder(**DECODER)
    with pytest.raises(InputError, match=r"same number of samples; got X has 120, y has 119"):
        model.fit(X, y[1:])
    with pytest.raises(InputError, match=r"same number of samples; .*conditions has 3"):
        model.fit(X, y, conditions=[0, 0, 1])
    with pytest.raises(InputError, match=r"X: expected at least 10 samples; got 4"):
        model.fit(X[:4], y[:4])
    with pytest.raises(InputError, match=r"X: expected 2 dimensions; got shape \(120, 2, 3\)"):
        model.fit(X.reshape(120, 2, 3), y)
    with pytest.raises(InputError, match=r"y: expected targets .* got shape \(120, 2, 1\)"):
        model.fit(X, y[:, :, None])
    model.fit(X, y)
    with pytest.raises(
        InputError, match=r"X: expected \(n_samples, 6\), as in fit; got shape \(120, 5\)"
    ):
        model.predict(X[:, :5])
    with pytest.raises(InputError, match=r"y: expected targets .* as in fit; got shape \(120,\)"):
        model.score(X, y[:, 0])
    with pytest.raises(InputError, match=r"activation: expected one of 'mish', 'relu'; got 'elu'"):
        NeuralDecoder(**{**DECODER, "activation": "elu"}).fit(X, y)


def test_constant_features_carry_nothing(decoding):
    X, y = decoding
    X = np.column_stack([X, np.full(120, 4.0)])
    model = NeuralDecoder(**DECODER).fit(X, y)
    changed = X.copy()
    changed[:, 6] += 100
    np.testing.assert_array_equal(model.predict(changed), model.predict(X))


def test_classifier_returns_its_labels_and_their_probabilities(classes):
    X, y = classes
    model = NeuralClassifier(hidden=(16, 16), max_epochs=30, device="cpu").fit(X, y)
    probabilities = model.predict_proba(X)
    assert model.score(X, y) > 0.9
    np.testing.assert_array_equal(model.classes_, ["face", "house", "shoe"])
    np.testing.assert_array_equal(model.predict(X), model.classes_[probabilities.argmax(1)])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    with torch.no_grad():
        outputs = model.module_(torch.from_numpy(X.astype(np.float32))).numpy()
    np.testing.assert_allclose(outputs, probabilities, rtol=1e-6)
    expected = [
        np.corrcoef(probabilities[:, k], y == name)[0, 1] for k, name in enumerate(model.classes_)
    ]
    np.testing.assert_allclose(model.correlation(X, y), expected)


def test_classifier_has_convolutions_for_images_only(classes, encoding):
    X, y = classes
    flat = NeuralClassifier(**CLASSIFIER).fit(X, y)
    image = NeuralClassifier(**CLASSIFIER).fit(encoding[0], np.arange(40) % 2)
    perceptron = NeuralClassifier(**CLASSIFIER, channels=()).fit(encoding[0], np.arange(40) % 2)
    kinds = [
        any(isinstance(module, nn.Conv2d) for module in model.module_.modules())
        for model in (flat, image, perceptron)
    ]
    assert kinds == [False, True, False]


def test_classifier_refusals(classes):
    X, y = classes
    with pytest.raises(InputError, match=r"y: expected two classes or more; got \['face'\] only"):
        NeuralClassifier(**CLASSIFIER).fit(X, np.full(90, "face"))
    with pytest.raises(
        InputError, match=r"y: expected one class for each sample; got shape \(90, 1\)"
    ):
        NeuralClassifier(**CLASSIFIER).fit(X, y[:, None])
    with pytest.raises(
        InputError, match=r"validation\[1\]: expected classes among .* got \['cat'\] too"
    ):
        NeuralClassifier(**CLASSIFIER).fit(X, y, validation=(X[:2], np.array(["cat", "shoe"])))
    model = NeuralClassifier(**CLASSIFIER).fit(X, y)
    with pytest.raises(InputError, match=r"same number of samples; got X has 90, y has 89"):
        model.score(X, y[1:])


def test_pearson_is_numpys_and_nan_for_constants(rng):
    first, second = rng.normal(1e3, 1, size=(2, 50, 3))
    expected = [np.corrcoef(first[:, k], second[:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(pearson(first, second), expected)
    second[:, 1] = 0.1
    assert np.isnan(pearson(first, second)).tolist() == [False, True, False]
