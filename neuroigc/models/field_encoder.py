"""The encoder for receptive fields, as an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np

from neuroigc._devices import fast_products
from neuroigc._validation import InputError, check_same_length
from neuroigc.models.base import FEWEST_SAMPLES, checked_weights
from neuroigc.models.checks import check_count, check_number
from neuroigc.models.estimators import NeuralRegressor
from neuroigc.models.feeding import Samples, as_rows
from neuroigc.models.fields import FieldEncoderNetwork, make_point_symmetric
from neuroigc.models.scaling import measure_scaling
from neuroigc.models.training import resolve_device
from neuroigc.models.windows import contrast_exponents, finish_windows, place_windows

__all__ = ["FieldEncoder"]

# Batches of images in the steps that finish the windows, and those that tell how features follow
# contrast.
BATCH, CONTRAST_BATCHES = 256, 2
LEAST_EXPONENT = 0.05


class FieldEncoder(NeuralRegressor):
    """From images to brain responses, each vertex through a Gaussian window of its own.

    For population receptive fields: its windows are as sharp as the data allow, where the maps of
    a `NeuralEncoder` are as wide as its few latents make them. Network and training are those of
    `FieldEncoderNetwork`; at the end its features are made symmetric, so that they stand where the
    image has them, and windows and weights are fitted by least squares
    (`neuroigc.models.windows`), which also tells their errors.

    Parameters
    ----------
    channels, kernel_sizes, largest_grid, activation
        See `FieldEncoderNetwork`. With thousands of images kernels of (5, 5) are a little better.
    learning_rate, weight_decay, batch_size, accumulate, max_epochs, patience
        See `neuroigc.models.training.train`.
    validation_fraction, n_workers
        See `neuroigc.models.training.train`.
    device : str
        "auto" takes a GPU if there is one.
    seed : int
        The same seed gives the same model.
    progress : bool
        Show progress bars.

    Attributes
    ----------
    module_ : FieldEncoderNetwork
        Maps raw images (n, size, size) or (n, n_channels, size, size) to raw responses
        (n, n_vertices).
    windows_ : dict of array
        ``x``, ``y``, ``width`` (of the Gaussian) in halves of the image's side, ``exponent`` (of
        contrast), ``share`` (of the scene that is divided by), (n_vertices,) each, and
        ``covariance`` (n_vertices, 4, 4) of the errors of x, y, log(width) and exponent.
    history_ : dict of list
        Losses, learning rate and seconds by epoch.
    """

    _network_class = FieldEncoderNetwork
    _input_ndims = (3, 4)
    _fitted_names = (*NeuralRegressor._fitted_names, "windows_")

    def __init__(
        self,
        *,
        channels: Sequence[int] = (16, 12),
        kernel_sizes: Sequence[int] = (5, 3),
        largest_grid: int = 24,
        activation: str = "mish",
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-2,
        batch_size: int = 128,
        accumulate: int = 1,
        max_epochs: int = 24,
        patience: int = 10,
        validation_fraction: float = 0.1,
        n_workers: int = 1,
        device: str = "auto",
        seed: int = 0,
        progress: bool = False,
    ):
        self._keep(locals())

    def receptive_fields(self, extent_deg: float) -> dict[str, np.ndarray]:
        """Return the windows in degrees of visual angle.

        Parameters
        ----------
        extent_deg : float
            Side of the images.

        Returns
        -------
        dict of array (n_vertices,)
            ``x_deg`` (to the right), ``y_deg`` (upwards), ``size_deg`` = sigma / sqrt(exponent)
            as is usual in the field, ``exponent``, 0.05 where it is lower or undefined, and the
            standard errors ``x_error_deg``, ``y_error_deg`` and ``size_error_deg`` (NaN where the
            exponent is undefined): those of least squares, which do not know what features might
            have been learned instead.

        Raises
        ------
        InputError
            If the extent is no positive number.
        """
        self._check_fitted()
        check_number("extent_deg", extent_deg)
        own = {name: np.asarray(values) for name, values in self.windows_.items()}
        half, covariance = extent_deg / 2, own["covariance"]
        # Of noisy vertices the exponent may come out as nothing, which no size goes with, or,
        # where responses do not follow contrast one way, as no number.
        exponent = np.where(np.isfinite(own["exponent"]), own["exponent"], 0.0)
        exponent = np.maximum(exponent, LEAST_EXPONENT)
        size = half * own["width"] / np.sqrt(exponent)
        # Of log(size) = log(width) - log(exponent) / 2.
        by = np.stack([np.ones_like(size), -0.5 / exponent], 1)
        log_variance = np.einsum("vi,vij,vj->v", by, covariance[:, 2:, 2:], by)
        errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2).clip(0))
        return {
            "x_deg": half * own["x"],
            "y_deg": half * own["y"],
            "size_deg": size,
            "exponent": exponent,
            "x_error_deg": half * errors[:, 0],
            "y_error_deg": half * errors[:, 1],
            "size_error_deg": size * np.sqrt(log_variance.clip(0)),
        }

    def _network_arguments(self):
        height, width = self.input_shape_[-2:]
        if height != width:
            raise InputError(
                "X",
                expected="square images, on which a window is as wide as it is high",
                got=f"{height} x {width} pixels",
                fix="Cut or pad them.",
            )
        return {
            "image_size": height,
            "n_channels": self.input_shape_[0] if len(self.input_shape_) == 3 else 1,
            "n_outputs": self._n_outputs,
            "channels": self.channels,
            "kernel_sizes": self.kernel_sizes,
            "largest_grid": self.largest_grid,
        }

    def _shared_arguments(self):
        if len(self.conditions_):
            raise InputError(
                "conditions",
                expected="none: every vertex, of whichever subject, has a window of its own",
                got=f"{len(self.conditions_)} different ones",
                fix="Fit each subject by itself.",
            )
        return {"activation": self.activation}

    def _begin(self, network, samples):
        _check_images_differ(samples)
        place_windows(network, _batches(samples, "cpu"))

    def _finish(self, network, samples):
        network = make_point_symmetric(network, **self.network_arguments_)
        self.network_arguments_ = {**self.network_arguments_, "point_symmetric": True}
        device = resolve_device(self.device)
        with fast_products(device):
            self._fit_windows(network, partial(_batches, samples, device))
        return network

    def refine(self, X, y, *, sample_weight=None, n_steps=3):
        """Fit windows, weights, gains and offsets anew, with the features as they are.

        For receptive fields from all data there are, once samples that were held out have told
        how well responses are predicted.

        Parameters
        ----------
        X : array (n_samples, *input_shape)
        y : array (n_samples, n_outputs)
        sample_weight : array (n_samples,), optional
            As for `fit`.
        n_steps : int
            Steps of Levenberg and Marquardt; windows are near their places already.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If samples are not like those of `fit`, or it would refuse them.
        """
        self._check_fitted()
        X, y = self._check_inputs(X, self.input_shape_), as_rows(y)
        n_samples = check_same_length(X=X, y=y, sample_weight=sample_weight)
        if n_samples < FEWEST_SAMPLES:
            raise InputError("X", expected=f"at least {FEWEST_SAMPLES} samples", got=str(n_samples))
        check_count("n_steps", n_steps)
        # Of the outputs that were learned, before it is looked at what they are.
        self._encode_targets(y, "y")
        y, _ = self._learn_targets(y)
        measure_scaling(X, argument="X", per_column=False)
        samples = Samples(X, y, weights=checked_weights(sample_weight))
        _check_images_differ(samples)
        device = resolve_device(self.device)
        home = next(self.module_.parameters()).device
        before = {name: value.clone() for name, value in self.module_.state_dict().items()}
        try:
            with fast_products(device):
                batches = partial(_batches, samples, device)
                self._fit_windows(self.module_.to(device), batches, n_steps=n_steps)
        except BaseException:
            self.module_.load_state_dict(before)
            raise
        finally:
            self.module_.to(home)
        return self

    def _fit_windows(self, network, batches, *, n_steps=8):
        """Finish the windows of a network, and keep what they are."""
        covariance = finish_windows(network, batches, n_steps=n_steps, progress=self.progress)
        covariance = covariance.cpu().numpy()
        some = islice(batches(), CONTRAST_BATCHES)
        exponent, by_power = contrast_exponents(network, some)
        now = network.readout.parameters_by_name
        self.windows_ = {
            "x": now["x"],
            "y": now["y"],
            "width": now["log_width"].exp(),
            "exponent": exponent,
            "share": now["share"],
        }
        self.windows_ = {
            name: value.detach().cpu().double().numpy() for name, value in self.windows_.items()
        }
        # What is known of x, y, log width and the exponent.
        mix = np.tile(np.eye(4, 5), (len(covariance), 1, 1))
        mix[:, 3, 3] = by_power.cpu().numpy()
        self.windows_["covariance"] = mix @ covariance @ mix.transpose(0, 2, 1)


def _check_images_differ(samples):
    """Raise if all images are the same: what windows see would be, too."""
    first = None
    for inputs, _, _ in _batches(samples, "cpu"):
        first = inputs[:1] if first is None else first
        if bool((inputs != first).any()):
            return
    raise InputError(
        "X", expected="images that differ", got="the same image in all samples",
        fix="Nothing tells then where a vertex looks.",
    )  # fmt: skip


def _batches(samples, device):
    for inputs, targets, _, weights in samples.batches(BATCH, device):
        yield inputs, targets, weights
