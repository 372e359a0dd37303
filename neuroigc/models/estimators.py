"""Estimators that feel like scikit-learn's and hold one torch module of raw inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuroigc._validation import InputError, check_same_length
from neuroigc.models.base import NeuralEstimator, pearson
from neuroigc.models.feeding import as_rows
from neuroigc.models.networks import CategoricalNetwork, DecoderNetwork, EncoderNetwork
from neuroigc.models.scaling import measure_scaling

__all__ = ["NeuralClassifier", "NeuralDecoder", "NeuralEncoder", "NeuralRegressor"]


class NeuralRegressor(NeuralEstimator):
    """An estimator of numbers."""

    _estimator_type = "regressor"

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
        return pearson(predictions, np.asarray(self._encode_targets(as_rows(y), argument="y")))

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
        if len(y.shape) not in (1, 2) or y.shape[1:] != self.target_shape_:
            raise InputError(
                argument,
                expected="targets (n_samples, n_outputs) or (n_samples,), as in fit",
                got=f"shape {y.shape}",
            )
        if y.dtype.kind not in "fiub":
            raise InputError(argument, expected="real numbers", got=f"dtype {y.dtype}")
        if y.dtype.kind != "f":
            y = np.asarray(y).astype(np.float32)
        return y if len(y.shape) == 2 else y[:, None]

    @property
    def _n_outputs(self):
        return int(np.prod(self.target_shape_))


class NeuralDecoder(NeuralRegressor):
    """From brain responses to features of the stimulus (IGC paper, section 4.1).

    Parameters
    ----------
    hidden, condition_size, activation, dropout
        See `DecoderNetwork`.
    learning_rate, weight_decay, batch_size, accumulate, max_epochs, patience
        See `neuroigc.models.training.train`.
    validation_fraction, n_workers
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
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 128,
        accumulate: int = 1,
        max_epochs: int = 15,
        patience: int = 10,
        validation_fraction: float = 0.1,
        n_workers: int = 1,
        device: str = "auto",
        seed: int = 0,
        progress: bool = False,
    ):
        self._keep(locals())

    def _network_arguments(self):
        return {
            "n_features": self.input_shape_[0],
            "n_outputs": self._n_outputs,
            "hidden": self.hidden,
        }


class NeuralEncoder(NeuralRegressor):
    """From images to brain responses (IGC paper, section 4.2).

    All vertices share a few latents, so that the map of each is a mixture of as many pictures:
    centres of receptive fields can be read off, but maps are wider than the fields, and follow
    their sizes too little for phantoms to calibrate them. Take `FieldEncoder` where receptive
    fields are asked for.

    Parameters
    ----------
    channels, kernel_sizes, n_latents, largest_grid, condition_size, activation, dropout
        See `EncoderNetwork`.
    learning_rate, weight_decay, batch_size, accumulate, max_epochs, patience
        See `neuroigc.models.training.train`.
    validation_fraction, n_workers
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
        channels: Sequence[int] = (8, 16, 16, 16, 8),
        kernel_sizes: Sequence[int] = (5, 3, 3, 1, 1),
        n_latents: int = 64,
        largest_grid: int = 16,
        condition_size: int = 8,
        activation: str = "mish",
        dropout: float = 0.3,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.1,
        batch_size: int = 128,
        accumulate: int = 1,
        max_epochs: int = 15,
        patience: int = 10,
        validation_fraction: float = 0.1,
        n_workers: int = 1,
        device: str = "auto",
        seed: int = 0,
        progress: bool = False,
    ):
        self._keep(locals())

    def _network_arguments(self):
        return {
            "image_size": self.input_shape_[-2:],
            "n_channels": self.input_shape_[0] if len(self.input_shape_) == 3 else 1,
            "n_outputs": self._n_outputs,
            "channels": self.channels,
            "kernel_sizes": self.kernel_sizes,
            "n_latents": self.n_latents,
            "largest_grid": self.largest_grid,
        }


class NeuralClassifier(NeuralEstimator):
    """Class probabilities of images or of feature vectors (IGC paper, section 4.3).

    Parameters
    ----------
    channels : sequence of int, optional
        Feature maps of the convolutions; () for a multilayer perceptron. By default two
        convolutions for images and none for feature vectors.
    kernel_size, hidden, condition_size, activation, dropout
        See `CategoricalNetwork`.
    learning_rate, weight_decay, batch_size, accumulate, max_epochs, patience
        See `neuroigc.models.training.train`.
    validation_fraction, n_workers
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

    _estimator_type = "classifier"
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
        dropout: float = 0.3,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 64,
        accumulate: int = 1,
        max_epochs: int = 15,
        patience: int = 10,
        validation_fraction: float = 0.1,
        n_workers: int = 1,
        device: str = "auto",
        seed: int = 0,
        progress: bool = False,
    ):
        self._keep(locals())

    def predict_proba(self, X, *, conditions=None):
        """Return probabilities (n_samples, n_classes), in the order of ``classes_``."""
        return self._raw_predictions(X, conditions)

    def predict(self, X, *, conditions=None):
        """Return the most probable class of each sample, (n_samples,)."""
        probabilities = self.predict_proba(X, conditions=conditions)
        return self.classes_[probabilities.argmax(1)]

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
        return pearson(probabilities, (np.asarray(y)[:, None] == self.classes_).astype(float))

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
