"""Estimators that feel like scikit-learn's and hold one torch module of raw inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from neuroigc._validation import InputError, check_same_length
from neuroigc.models.checkpoints import load_checkpoint, load_weights, save_checkpoint
from neuroigc.models.networks import (
    CategoricalNetwork,
    DecoderNetwork,
    EncoderNetwork,
    fold_scalings,
)
from neuroigc.models.training import (
    FEWEST_SAMPLES,
    Samples,
    measure_scaling,
    resolve_device,
    seeded,
    train,
)

__all__ = ["NeuralClassifier", "NeuralDecoder", "NeuralEncoder"]

PREDICTION_BATCH = 512


class _NeuralEstimator(BaseEstimator):
    """What all three share: checks, standardisation, training, prediction, files."""

    _network_class: type
    _input_ndims: tuple[int, ...]
    _loss = "squared_error"

    def fit(self, X, y, *, conditions=None, validation=None):
        """Train on samples.

        Parameters
        ----------
        X : array (n_samples, *input_shape)
            May be a memory map; batches are read from it.
        y : array (n_samples, n_outputs) or (n_samples,)
        conditions : array (n_samples,) of int, optional
            For example subject numbers, 0 or greater; fed to the network beside ``X``.
        validation : (X, y) or (X, y, conditions), optional
            Samples for early stopping, instead of a random ``validation_fraction``.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For values that are not finite, constant targets, lengths that differ, too few
            samples or conditions that are not whole numbers.
        """
        X, y = self._check_inputs(X), np.asanyarray(y)
        n_samples = check_same_length(X=X, y=y, conditions=conditions)
        if n_samples < FEWEST_SAMPLES:
            raise InputError("X", expected=f"at least {FEWEST_SAMPLES} samples", got=str(n_samples))
        conditions = self._learn_conditions(conditions)
        targets, target_scaling = self._learn_targets(y)
        # One number for all pixels, so that it can be folded into a convolution.
        input_scaling = measure_scaling(X, argument="X", per_column=X.ndim == 2)
        scalings = {"input_scaling": input_scaling, "target_scaling": target_scaling}
        samples = Samples(X, targets, conditions, **scalings)
        if validation is not None:
            validation = self._check_validation(validation, X.shape[1:], scalings)

        self.input_shape_ = tuple(int(size) for size in X.shape[1:])
        self.network_arguments_ = {
            **self._network_arguments(),
            "n_conditions": 0 if conditions is None else int(self.conditions_.max()) + 1,
            "condition_size": self.condition_size,
            "activation": self.activation,
            "dropout": self.dropout,
        }
        device = resolve_device(self.device)
        with seeded(self.seed, "cpu"):
            network = self._network_class(**self.network_arguments_)
        self.history_ = train(
            network,
            samples,
            validation=validation,
            validation_fraction=self.validation_fraction,
            loss=self._loss,
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            device=device,
            seed=self.seed,
            progress=self.progress,
        )
        fold_scalings(network, inputs=input_scaling, outputs=target_scaling)
        self.module_ = network
        return self

    def save(self, path_prefix):
        """Write ``<path_prefix>.safetensors`` (weights) and ``<path_prefix>.json`` (the rest)."""
        check_is_fitted(self, "module_")
        fitted = {name: getattr(self, name) for name in self._fitted_names if hasattr(self, name)}
        save_checkpoint(
            path_prefix,
            self.module_,
            {"class": type(self).__name__, "parameters": self.get_params(), "fitted": fitted},
        )

    @classmethod
    def load(cls, path_prefix):
        """Read what `save` wrote; predictions are the same to the last bit.

        Raises
        ------
        InputError
            If a file is missing or damaged, or holds another kind of model.
        """
        description, state = load_checkpoint(path_prefix)
        if description.get("class") != cls.__name__:
            raise InputError(
                "path_prefix",
                expected=f"a saved {cls.__name__}",
                got=f"a saved {description.get('class')}",
            )
        estimator = cls(**_tuples(description["parameters"]))
        for name, value in description["fitted"].items():
            setattr(estimator, name, _tuples(value) if name.endswith("shape_") else value)
        for name in ("conditions_", "classes_"):
            if hasattr(estimator, name):
                setattr(estimator, name, np.asarray(getattr(estimator, name)))
        with seeded(0, "cpu"):
            network = cls._network_class(**_tuples(estimator.network_arguments_))
        load_weights(network, state, str(path_prefix))
        estimator.module_ = network.eval()
        return estimator

    _fitted_names = (
        "input_shape_",
        "target_shape_",
        "conditions_",
        "classes_",
        "network_arguments_",
        "history_",
    )

    def _raw_predictions(self, X, conditions):
        """Return the module's outputs (n, n_outputs), batch by batch."""
        check_is_fitted(self, "module_")
        X = self._check_inputs(X, shape=self.input_shape_)
        check_same_length(X=X, conditions=conditions)
        conditions = self._check_conditions(conditions)
        device = next(self.module_.parameters()).device
        outputs = []
        with torch.inference_mode():
            for start in range(0, len(X), PREDICTION_BATCH):
                rows = slice(start, start + PREDICTION_BATCH)
                inputs = torch.from_numpy(np.array(X[rows], dtype=np.float32)).to(device)
                given = (
                    None if conditions is None else torch.from_numpy(conditions[rows]).to(device)
                )
                outputs.append(self.module_(inputs, given).cpu().numpy())
        return np.concatenate(outputs)

    def _check_inputs(self, X, shape=None):
        X = np.asanyarray(X)
        if X.ndim not in self._input_ndims or (shape is not None and X.shape[1:] != shape):
            expected = " or ".join(str(ndim) for ndim in self._input_ndims) + " dimensions"
            if shape is not None:
                expected = f"(n_samples, {', '.join(map(str, shape))}), as in fit"
            raise InputError("X", expected=expected, got=f"shape {X.shape}")
        return X

    def _learn_conditions(self, conditions):
        if conditions is None:
            self.conditions_ = np.empty(0, dtype=np.int64)
            return None
        conditions = np.asarray(conditions)
        if conditions.ndim != 1 or conditions.dtype.kind not in "iu" or conditions.min() < 0:
            raise InputError(
                "conditions",
                expected="one whole number for each sample, 0 or greater",
                got=f"{conditions.dtype} of shape {conditions.shape}, from {conditions.min()}",
                fix="Number the subjects.",
            )
        self.conditions_ = np.unique(conditions).astype(np.int64)
        return conditions.astype(np.int64)

    def _check_conditions(self, conditions):
        if (conditions is None) != (len(self.conditions_) == 0):
            raise InputError(
                "conditions",
                expected="none" if conditions is not None else "one for each sample",
                got="none" if conditions is None else "some",
                fix="Give conditions exactly if the model was fitted with them.",
            )
        if conditions is None:
            return None
        unseen = np.setdiff1d(conditions, self.conditions_)
        if len(unseen):
            raise InputError(
                "conditions",
                expected=f"those of fit ({', '.join(map(str, self.conditions_))})",
                got=", ".join(map(str, unseen)),
                fix="The model has learned nothing about a condition that it never saw.",
            )
        return np.asarray(conditions).astype(np.int64)

    def _check_validation(self, validation, shape, scalings):
        inputs, targets, *conditions = validation
        inputs = self._check_inputs(inputs, shape=shape)
        conditions = self._check_conditions(conditions[0] if conditions else None)
        check_same_length(X=inputs, y=targets, conditions=conditions)
        measure_scaling(inputs, argument="validation", per_column=False)
        targets = self._encode_targets(np.asanyarray(targets), argument="validation")
        return Samples(inputs, targets, conditions, **scalings)


class _NeuralRegressor(RegressorMixin, _NeuralEstimator):
    """An estimator of numbers."""

    def predict(self, X, *, conditions=None):
        """Return predictions (n_samples, n_outputs), or (n_samples,) if ``y`` was so in fit."""
        predictions = self._raw_predictions(X, conditions)
        return predictions.reshape(len(predictions), *self.target_shape_)

    def correlation(self, X, y, *, conditions=None):
        """Return Pearson's r between predictions and ``y``, (n_outputs,).

        It is NaN where one of the two is constant.
        """
        predictions = self._raw_predictions(X, conditions)
        check_same_length(X=X, y=y)
        return pearson(predictions, self._encode_targets(np.asanyarray(y), argument="y"))

    def score(self, X, y, *, conditions=None):
        """Return the mean over outputs of `correlation`."""
        return float(self.correlation(X, y, conditions=conditions).mean())

    def _learn_targets(self, y):
        self.target_shape_ = tuple(int(size) for size in y.shape[1:])
        targets = self._encode_targets(y, argument="y")
        mean, scale = measure_scaling(targets, argument="y")
        constant = np.flatnonzero(np.isinf(scale))
        if len(constant):
            listed = ", ".join(map(str, constant[:10])) + ("…" if len(constant) > 10 else "")
            raise InputError(
                "y",
                expected="targets that vary",
                got=f"{len(constant)} constant of {len(scale)}, column {listed}",
                fix="Leave them out: nothing correlates with a constant.",
            )
        return targets, (mean, scale)

    def _encode_targets(self, y, argument):
        if y.ndim not in (1, 2) or y.shape[1:] != self.target_shape_:
            raise InputError(
                argument,
                expected="targets (n_samples, n_outputs) or (n_samples,), as in fit",
                got=f"shape {y.shape}",
            )
        targets = y.reshape(len(y), -1)
        return targets if targets.dtype.kind == "f" else targets.astype(np.float32)

    @property
    def _n_outputs(self):
        return int(np.prod(self.target_shape_))


class NeuralDecoder(_NeuralRegressor):
    """From brain responses to features of the stimulus (IGC paper, section 4.1).

    Parameters
    ----------
    hidden, condition_size, activation, dropout
        See `DecoderNetwork`.
    learning_rate, weight_decay, batch_size, max_epochs, patience, validation_fraction
        See `neuroigc.models.training.train`.
    device : str
        "auto" takes a GPU if there is one.
    seed : int
        The same seed gives the same model.
    progress : bool
        Show a progress bar.

    Attributes
    ----------
    module_ : DecoderNetwork
        Maps raw inputs (n, n_features) to raw outputs (n, n_outputs): both standardisations are
        folded into its ends.
    history_ : dict of list
        Losses, learning rate and seconds by epoch.
    conditions_ : array
        The conditions that were seen.
    """

    _network_class = DecoderNetwork
    _input_ndims = (2,)

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (512,) * 5,
        condition_size: int = 8,
        activation: str = "mish",
        dropout: float = 0.3,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 128,
        max_epochs: int = 40,
        patience: int = 10,
        validation_fraction: float = 0.1,
        device: str = "auto",
        seed: int = 0,
        progress: bool = False,
    ):
        self.hidden = hidden
        self.condition_size = condition_size
        self.activation = activation
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.seed = seed
        self.progress = progress

    def _network_arguments(self):
        return {
            "n_features": self.input_shape_[0],
            "n_outputs": self._n_outputs,
            "hidden": self.hidden,
        }


class NeuralEncoder(_NeuralRegressor):
    """From images to brain responses (IGC paper, section 4.2).

    Parameters
    ----------
    channels, kernel_sizes, n_latents, condition_size, activation, dropout
        See `EncoderNetwork`.
    learning_rate, weight_decay, batch_size, max_epochs, patience, validation_fraction
        See `neuroigc.models.training.train`.
    device, seed, progress
        As for `NeuralDecoder`.

    Attributes
    ----------
    module_ : EncoderNetwork
        Maps raw images (n, height, width) or (n, n_channels, height, width) to raw responses
        (n, n_vertices).
    history_, conditions_
        As for `NeuralDecoder`.
    """

    _network_class = EncoderNetwork
    _input_ndims = (3, 4)

    def __init__(
        self,
        *,
        channels: Sequence[int] = (16, 16, 16, 16, 8),
        kernel_sizes: Sequence[int] = (5, 3, 3, 1, 1),
        n_latents: int = 64,
        condition_size: int = 8,
        activation: str = "mish",
        dropout: float = 0.3,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 64,
        max_epochs: int = 20,
        patience: int = 6,
        validation_fraction: float = 0.1,
        device: str = "auto",
        seed: int = 0,
        progress: bool = False,
    ):
        self.channels = channels
        self.kernel_sizes = kernel_sizes
        self.n_latents = n_latents
        self.condition_size = condition_size
        self.activation = activation
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.seed = seed
        self.progress = progress

    def _network_arguments(self):
        return {
            "image_size": self.input_shape_[-2:],
            "n_channels": self.input_shape_[0] if len(self.input_shape_) == 3 else 1,
            "n_outputs": self._n_outputs,
            "channels": self.channels,
            "kernel_sizes": self.kernel_sizes,
            "n_latents": self.n_latents,
        }


class NeuralClassifier(ClassifierMixin, _NeuralEstimator):
    """Class probabilities of images or of feature vectors (IGC paper, section 4.3).

    Parameters
    ----------
    channels : sequence of int, optional
        Feature maps of the convolutions; () for a multilayer perceptron. By default two
        convolutions for images and none for feature vectors.
    kernel_size, hidden, condition_size, activation, dropout
        See `CategoricalNetwork`.
    learning_rate, weight_decay, batch_size, max_epochs, patience, validation_fraction
        See `neuroigc.models.training.train`.
    device, seed, progress
        As for `NeuralDecoder`.

    Attributes
    ----------
    module_ : CategoricalNetwork
        Maps raw inputs to probabilities (n, n_classes), in the order of ``classes_``.
    classes_ : array (n_classes,)
    history_, conditions_
        As for `NeuralDecoder`.
    """

    _network_class = CategoricalNetwork
    _input_ndims = (2, 3, 4)
    _loss = "cross_entropy"

    def __init__(
        self,
        *,
        channels: Sequence[int] | None = None,
        kernel_size: int = 5,
        hidden: Sequence[int] = (128,) * 4,
        condition_size: int = 8,
        activation: str = "mish",
        dropout: float = 0.2,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 64,
        max_epochs: int = 15,
        patience: int = 10,
        validation_fraction: float = 0.1,
        device: str = "auto",
        seed: int = 0,
        progress: bool = False,
    ):
        self.channels = channels
        self.kernel_size = kernel_size
        self.hidden = hidden
        self.condition_size = condition_size
        self.activation = activation
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.seed = seed
        self.progress = progress

    def predict_proba(self, X, *, conditions=None):
        """Return probabilities (n_samples, n_classes), in the order of ``classes_``."""
        return self._raw_predictions(X, conditions)

    def predict(self, X, *, conditions=None):
        """Return the most probable class of each sample, (n_samples,)."""
        return self.classes_[self.predict_proba(X, conditions=conditions).argmax(1)]

    def score(self, X, y, *, conditions=None):
        """Return the share of samples whose class is predicted."""
        check_same_length(X=X, y=y)
        return float(np.mean(self.predict(X, conditions=conditions) == np.asarray(y)))

    def correlation(self, X, y, *, conditions=None):
        """Return Pearson's r between each class's probability and its 0/1 target, (n_classes,).

        This is what the attributions of `neuroigc.attribution` add up to.
        """
        check_same_length(X=X, y=y)
        probabilities = self.predict_proba(X, conditions=conditions)
        return pearson(probabilities, np.asarray(y)[:, None] == self.classes_)

    def _learn_targets(self, y):
        if y.ndim != 1:
            raise InputError("y", expected="one class for each sample", got=f"shape {y.shape}")
        if y.dtype.kind == "f":
            measure_scaling(y, argument="y", per_column=False)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise InputError("y", expected="two classes or more", got=f"{self.classes_} only")
        return self._encode_targets(y, argument="y"), None

    def _encode_targets(self, y, argument):
        unseen = np.setdiff1d(y, self.classes_)
        if len(unseen):
            raise InputError(
                argument, expected=f"classes among {self.classes_}", got=f"{unseen} too"
            )
        return np.searchsorted(self.classes_, y)

    def _network_arguments(self):
        channels = self.channels
        if channels is None:
            channels = (16, 32) if len(self.input_shape_) > 1 else ()
        return {
            "input_shape": self.input_shape_,
            "n_classes": len(self.classes_),
            "channels": channels,
            "kernel_size": self.kernel_size,
            "hidden": self.hidden,
        }


def pearson(first, second):
    """Return the correlation of each column of two (n, n_columns) arrays; NaN for a constant."""
    first = np.asarray(first, dtype=np.float64) - np.mean(first, axis=0, dtype=np.float64)
    second = np.asarray(second, dtype=np.float64) - np.mean(second, axis=0, dtype=np.float64)
    norms = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    with np.errstate(invalid="ignore"):
        return (first * second).sum(0) / norms


def _tuples(value):
    """Turn the lists of a JSON value into tuples."""
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
