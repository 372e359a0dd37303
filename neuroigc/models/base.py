"""What all estimators share: checks, standardisation, training, prediction, files."""

from __future__ import annotations

import numpy as np
import torch

from neuroigc._validation import InputError, check_same_length
from neuroigc.models.checkpoints import load_checkpoint, load_weights, save_checkpoint
from neuroigc.models.feeding import Samples, as_rows
from neuroigc.models.networks import fold_scalings
from neuroigc.models.parameters import Parametrised
from neuroigc.models.scaling import measure_scaling, refuse_not_finite
from neuroigc.models.training import FEWEST_SAMPLES, resolve_device, seeded, train

__all__ = ["NeuralEstimator", "checked_weights", "pearson"]

PREDICTION_BATCH = 512

# Conditions that may be left out in counting up to the greatest: each takes memory.
MOST_UNUSED_CONDITIONS = 10_000


class NeuralEstimator(Parametrised):
    """A network with scikit-learn's manners.

    A kind of estimator says which network it builds and with what, and how targets are coded:
    ``_learn_targets(y)`` returns (coded targets, scaling) and raises for what cannot be learned,
    ``_encode_targets(y, argument)`` codes further targets, ``_network_arguments()`` gives what
    the network needs beyond the arguments that all have.
    """

    _network_class: type
    _input_ndims: tuple[int, ...]
    _loss = "squared_error"
    _fitted_names = (
        "input_shape_",
        "target_shape_",
        "conditions_",
        "classes_",
        "network_arguments_",
        "history_",
    )

    def fit(
        self,
        X,
        y,
        *,
        conditions=None,
        sample_weight=None,
        sources=None,
        validation=None,
        checkpoint=None,
    ):
        """Train on samples.

        Parameters
        ----------
        X : array (n_samples, *input_shape)
            May be a memory map, or anything else with a shape, a dtype and rows that are read
            when they are asked for; batches are.
        y : array (n_samples, n_outputs) or (n_samples,)
        conditions : array (n_samples,) of int, optional
            For example subject numbers, 0 or greater; fed to the network beside ``X``.
        sample_weight : array (n_samples,), optional
            What each sample counts, above 0: for responses that are averages, the repeats.
        sources : array (n_samples,), optional
            What samples were taken from, such as the image that several subjects saw. Those of
            one source are all for training or all for the random ``validation_fraction``, which
            would otherwise be no test of what is new.
        validation : (X, y) or (X, y, conditions), optional
            Samples for early stopping, instead of a random ``validation_fraction``.
        checkpoint : path, optional
            File of the training so far, which goes on from there; see
            `neuroigc.models.training.train`, also on processes side by side.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For values that are not finite, constant targets, lengths that differ, too few
            samples, conditions that are not whole numbers, or the checkpoint of another training.
        """
        X, y = self._check_inputs(X), as_rows(y)
        if 0 in y.shape:
            raise InputError(
                "y", expected="at least one target for each sample", got=f"shape {y.shape}"
            )
        n_samples = check_same_length(
            X=X, y=y, conditions=conditions, sample_weight=sample_weight, sources=sources
        )
        if n_samples < FEWEST_SAMPLES:
            raise InputError("X", expected=f"at least {FEWEST_SAMPLES} samples", got=str(n_samples))
        conditions = self._learn_conditions(conditions)
        weights = checked_weights(sample_weight)
        targets, target_scaling = self._learn_targets(y)
        # One number for all pixels, so that it can be folded into a convolution.
        input_scaling = measure_scaling(X, argument="X", per_column=len(X.shape) == 2)
        scalings = {"input_scaling": input_scaling, "target_scaling": target_scaling}
        sources = None if sources is None else np.asarray(sources)
        samples = Samples(X, targets, conditions, weights, sources=sources, **scalings)
        if validation is not None:
            validation = self._check_validation(validation, X.shape[1:], scalings)

        self.input_shape_ = tuple(int(size) for size in X.shape[1:])
        self.network_arguments_ = {**self._network_arguments(), **self._shared_arguments()}
        device = resolve_device(self.device)
        with seeded(self.seed, "cpu"):
            network = self._network_class(**self.network_arguments_)
        self._begin(network, samples)
        self.history_ = train(
            network,
            samples,
            validation=validation,
            validation_fraction=self.validation_fraction,
            loss=self._loss,
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            n_workers=self.n_workers,
            device=device,
            seed=self.seed,
            progress=self.progress,
            checkpoint=checkpoint,
        )
        network = self._finish(network, samples)
        fold_scalings(network, inputs=input_scaling, outputs=target_scaling)
        self.module_ = network
        return self

    def _shared_arguments(self):
        """Return the arguments that most networks have."""
        return {
            "n_conditions": int(self.conditions_.max()) + 1 if len(self.conditions_) else 0,
            "condition_size": self.condition_size,
            "activation": self.activation,
            "dropout": self.dropout,
        }

    def _begin(self, network, samples):
        """Prepare a new network for its samples; most need nothing."""

    def _finish(self, network, samples):  # noqa: ARG002 - for those that override it
        """Complete a trained network, before scalings are folded in; most need nothing."""
        return network

    def save(self, path_prefix):
        """Write ``<path_prefix>.safetensors`` (weights) and ``<path_prefix>.json`` (the rest)."""
        self._check_fitted()
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

    def _raw_predictions(self, X, conditions):
        """Return the module's outputs (n, n_outputs), batch by batch."""
        self._check_fitted()
        X = self._check_inputs(X, shape=self.input_shape_)
        check_same_length(X=X, conditions=conditions)
        conditions = self._check_conditions(conditions)
        device = next(self.module_.parameters()).device
        outputs, n_bad = [], 0
        with torch.inference_mode():
            for start in range(0, len(X), PREDICTION_BATCH):
                rows = slice(start, start + PREDICTION_BATCH)
                inputs = torch.from_numpy(np.array(X[rows], dtype=np.float32)).to(device)
                given = None if conditions is None else torch.from_numpy(conditions[rows])
                given = given if given is None else given.to(device)
                n_bad += int((~inputs.isfinite()).sum())
                outputs.append(self.module_(inputs, given).cpu().numpy())
        refuse_not_finite("X", n_bad)
        return np.concatenate(outputs)

    def _check_inputs(self, X, shape=None, argument="X"):
        X = as_rows(X)
        if shape is None:
            fits = len(X.shape) in self._input_ndims
            expected = " or ".join(map(str, self._input_ndims)) + " dimensions"
        else:
            fits = X.shape[1:] == shape
            expected = f"(n_samples, {', '.join(map(str, shape))}), as in fit"
        if not fits or not len(X):
            raise InputError(argument, expected=expected, got=f"shape {X.shape}")
        if 0 in X.shape:
            raise InputError(argument, expected="at least one feature", got=f"shape {X.shape}")
        if X.dtype.kind not in "fiub":
            raise InputError(argument, expected="real numbers", got=f"dtype {X.dtype}")
        return X

    def _learn_conditions(self, conditions):
        if conditions is None:
            self.conditions_ = np.empty(0, dtype=np.int64)
            return None
        conditions = np.asarray(conditions)
        whole = conditions.ndim == 1 and conditions.dtype.kind in "iu"
        if not whole or conditions.min() < 0:
            raise InputError(
                "conditions",
                expected="one whole number for each sample, 0 or greater",
                got=f"{conditions.dtype} of shape {conditions.shape}"
                + (f", from {conditions.min()}" if whole else ""),
                fix="Number the subjects.",
            )
        self.conditions_ = np.unique(conditions).astype(np.int64)
        greatest = int(conditions.max())
        if greatest + 1 - len(self.conditions_) > MOST_UNUSED_CONDITIONS:
            raise InputError(
                "conditions",
                expected="whole numbers from 0 on, with few left out",
                got=f"{len(self.conditions_)} different ones up to {greatest}",
                fix="Number the subjects from 0.",
            )
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
        if len(validation) not in (2, 3):
            raise InputError(
                "validation",
                expected="(X, y) or (X, y, conditions)",
                got=f"{len(validation)} arrays",
            )
        inputs, targets, *conditions = validation
        inputs = self._check_inputs(inputs, shape, "validation[0]")
        measure_scaling(inputs, argument="validation[0]", per_column=False)
        targets = self._encode_targets(as_rows(targets), "validation[1]")
        measure_scaling(targets, argument="validation[1]", per_column=False)
        conditions = self._check_conditions(conditions[0] if conditions else None)
        return Samples(inputs, targets, conditions, **scalings)


def checked_weights(sample_weight):
    """Return weights of mean 1, in float32."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    fine = weights.ndim == 1 and weights.dtype.kind in "fiu"
    if not fine or not np.isfinite(weights).all() or not (weights > 0).all():
        raise InputError(
            "sample_weight",
            expected="one finite number above 0 for each sample",
            got=f"{weights.dtype} of shape {weights.shape}"
            + (f", from {weights.min()}" if fine and len(weights) else ""),
            fix="Leave out samples that are not to count.",
        )
    return (weights / weights.mean()).astype(np.float32)


def pearson(first, second):
    """Return the correlation of each column of two (n, n_columns) arrays; NaN for a constant."""
    constant = (np.ptp(first, axis=0) == 0) | (np.ptp(second, axis=0) == 0)
    first = first - np.mean(first, axis=0, dtype=np.float64)
    second = second - np.mean(second, axis=0, dtype=np.float64)
    norms = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return (first * second).sum(0) / np.where(constant, np.nan, norms)


def _tuples(value):
    """Turn the lists of a JSON value into tuples."""
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
