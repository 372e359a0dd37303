"""The networks of the IGC paper, each written as head ∘ body ∘ stem.

Both ends are affine, so attribution needs derivatives of the body alone (and a straight path
in the input is a straight path behind the stem). Sources: IGC paper, sections 4.1-4.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from neuroigc._validation import InputError, check_choice
from neuroigc.models.checks import check_count, check_counts, check_share

__all__ = ["CategoricalNetwork", "DecoderNetwork", "EncoderNetwork", "fold_scalings"]

ACTIVATIONS = {"mish": nn.Mish, "relu": nn.ReLU}


class FactorisedNetwork(nn.Module):
    """A network whose output is ``head(body(stem(inputs), conditions))``, exactly.

    Attributes
    ----------
    stem : torch.nn.Linear or torch.nn.Conv2d
        Affine, takes the input alone.
    body : torch.nn.Module
        Everything that is not affine, called with (hidden, conditions).
    head : torch.nn.Linear or torch.nn.Identity
        Affine, gives the outputs.
    """

    stem: nn.Module
    body: nn.Module
    head: nn.Module

    def forward(self, inputs, conditions=None):
        """Map (n, *input_shape) and, if any, (n,) integer conditions to (n, n_outputs)."""
        return self.head(self.body(self.stem(inputs), conditions))


class FlatLinear(nn.Linear):
    """A linear layer of all the input's numbers, whatever its shape."""

    def forward(self, inputs):
        return super().forward(inputs.flatten(1))


class ImageConv(nn.Conv2d):
    """A convolution of (n, height, width) or (n, n_channels, height, width) images.

    Edges are continued by their outermost pixels: this is linear, keeps a uniform image uniform
    and, unlike zeros, draws no map away from the border.
    """

    def __init__(self, n_in, n_out, kernel_size, groups=1):
        if kernel_size % 2 == 0:
            raise InputError(
                "kernel_size",
                expected="an odd number",
                got=str(kernel_size),
                fix="An even kernel moves the image by half a pixel.",
            )
        super().__init__(
            n_in, n_out, kernel_size, padding="same", padding_mode="replicate", groups=groups
        )

    def forward(self, inputs):
        return super().forward(inputs.unsqueeze(1) if inputs.ndim == 3 else inputs)


class ConditionTerm(nn.Module):
    """What a condition (subject) adds behind a linear layer.

    Concatenating an embedding e to the layer's input x is the same as adding a term to its
    output, [W U] [x e] = W x + U e. Written so, a stem can be a layer of the input alone.
    """

    def __init__(self, n_conditions, condition_size, n_outputs):
        super().__init__()
        self.embedding = nn.Embedding(n_conditions, condition_size)
        self.linear = nn.Linear(condition_size, n_outputs, bias=False)

    def forward(self, conditions):
        return self.linear(self.embedding(conditions))


class DenseBody(nn.Module):
    """Features, the first linear layer's condition term, then dense layers.

    Parameters
    ----------
    features : torch.nn.Module
        From the stem's output to the output of the first linear layer.
    layers : torch.nn.Module
        All that follows.
    condition_term : ConditionTerm or None
    """

    def __init__(self, features, layers, condition_term):
        super().__init__()
        self.features, self.layers, self.condition_term = features, layers, condition_term

    def forward(self, hidden, conditions=None):
        return self.layers(self.first_linear(hidden, conditions))

    def first_linear(self, hidden, conditions=None):
        """Return the first linear layer's output, the condition's part included."""
        if (conditions is None) != (self.condition_term is None):
            raise InputError(
                "conditions",
                expected="none" if self.condition_term is None else "one for each sample",
                got="none" if conditions is None else f"{len(conditions)} of them",
                fix="A network takes conditions exactly if it was built with n_conditions > 0.",
            )
        hidden = self.features(hidden)
        if self.condition_term is not None:
            hidden = hidden + self.condition_term(conditions)
        return hidden


class DecoderNetwork(FactorisedNetwork):
    """From brain to stimulus features: a multilayer perceptron (IGC paper, section 4.1).

    Parameters
    ----------
    n_features, n_outputs : int
        Input (for example, vertices) and output numbers.
    hidden : sequence of int
        Units of the hidden layers; five make the six linear layers of the paper.
    n_conditions : int
        Number of conditions (subjects); 0 for a network without. Each is embedded by one layer
        and concatenated to the input of the first linear layer (see `ConditionTerm`).
    condition_size : int
        Length of the embedding.
    activation : {"mish", "relu"}
    dropout : float
        Share of hidden units left out in each training step.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        hidden: Sequence[int] = (512,) * 5,
        n_conditions: int = 0,
        condition_size: int = 8,
        activation: str = "mish",
        dropout: float = 0.0,
    ):
        super().__init__()
        hidden = check_counts("hidden", hidden)
        check_count("n_features", n_features)
        check_count("n_outputs", n_outputs)
        self.stem = nn.Linear(n_features, hidden[0])
        self.body = DenseBody(
            nn.Identity(),
            _dense_layers(hidden, activation, dropout),
            _condition_term(n_conditions, condition_size, hidden[0]),
        )
        self.head = nn.Linear(hidden[-1], n_outputs)


class EncoderNetwork(FactorisedNetwork):
    """From image to brain: five convolutions and two linear layers (IGC paper, section 4.2).

    Places are kept: convolutions have unit stride and continue the edges, pooling averages
    (so that it neither aliases nor shifts), and the grid is flattened, never pooled as a whole.

    Parameters
    ----------
    image_size : int or (int, int)
        Height and width in pixels.
    n_outputs : int
        Number of vertices.
    n_channels : int
        Colour channels; 1 takes (n, height, width) as well.
    channels, kernel_sizes : sequence of int
        Feature maps and kernel width of each convolution.
    n_latents : int
        Units of the first linear layer; attribution takes one backward pass for each.
    largest_grid : int
        Features are pooled until the grid that is flattened has at most this many cells a side.
        Receptive fields narrower than a cell are told apart no more.
    n_conditions, condition_size, activation
        As for `DecoderNetwork`.
    dropout : float
        Share of the flattened features left out in each training step.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        n_outputs: int,
        *,
        n_channels: int = 1,
        channels: Sequence[int] = (8, 16, 16, 16, 8),
        kernel_sizes: Sequence[int] = (5, 3, 3, 1, 1),
        n_latents: int = 64,
        largest_grid: int = 16,
        n_conditions: int = 0,
        condition_size: int = 8,
        activation: str = "mish",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_count("n_outputs", n_outputs)
        check_count("n_latents", n_latents)
        check_share("dropout", dropout)
        self.stem, features, n_features = convolutions(
            image_size,
            n_channels=n_channels,
            channels=channels,
            kernel_sizes=kernel_sizes,
            largest_grid=largest_grid,
            activation=activation,
        )
        features += [
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(math.prod(n_features), n_latents),
        ]
        self.body = DenseBody(
            nn.Sequential(*features),
            nn.Sequential(*_normalised(nn.BatchNorm1d(n_latents), activation)),
            _condition_term(n_conditions, condition_size, n_latents),
        )
        self.head = nn.Linear(n_latents, n_outputs)


class CategoricalNetwork(FactorisedNetwork):
    """Class probabilities: two convolutions and five linear layers (IGC paper, section 4.3).

    The head is the identity and the body ends in a softmax, because IGC of a class is that of
    its probability (section 3.3).

    Parameters
    ----------
    input_shape : tuple of int
        (n_features,), (height, width) or (n_channels, height, width).
    n_classes : int
    channels : sequence of int
        Feature maps of the convolutions; none for a multilayer perceptron.
    kernel_size : int
    hidden : sequence of int
        Units of the hidden linear layers; four make the five linear layers of the paper.
    n_conditions, condition_size, activation, dropout
        As for `DecoderNetwork`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        *,
        channels: Sequence[int] = (16, 32),
        kernel_size: int = 5,
        hidden: Sequence[int] = (128,) * 4,
        n_conditions: int = 0,
        condition_size: int = 8,
        activation: str = "mish",
        dropout: float = 0.0,
    ):
        super().__init__()
        channels = check_counts("channels", channels, fewest=0)
        hidden = check_counts("hidden", hidden)
        check_count("kernel_size", kernel_size)
        check_count("n_classes", n_classes)
        if channels and len(input_shape) < 2:
            raise InputError(
                "channels",
                expected="none for inputs that are not images",
                got=f"{tuple(channels)} for inputs of shape {tuple(input_shape)}",
            )
        if channels:
            *n_in, height, width = input_shape
            self.stem = ImageConv(n_in[0] if n_in else 1, channels[0], kernel_size)
            features = []
            for index, n_maps in enumerate(channels):
                features += [
                    *_normalised(nn.BatchNorm2d(n_maps), activation),
                    nn.AvgPool2d(2, ceil_mode=True),
                ]
                height, width = -(-height // 2), -(-width // 2)
                if index + 1 < len(channels):
                    features.append(ImageConv(n_maps, channels[index + 1], kernel_size))
            features += [nn.Flatten(), nn.Linear(channels[-1] * height * width, hidden[0])]
        else:
            self.stem = FlatLinear(int(torch.Size(input_shape).numel()), hidden[0])
            features = []
        layers = _dense_layers(hidden, activation, dropout)
        layers.extend([nn.Linear(hidden[-1], n_classes), nn.Softmax(dim=1)])
        self.body = DenseBody(
            nn.Sequential(*features),
            layers,
            _condition_term(n_conditions, condition_size, hidden[0]),
        )
        self.head = nn.Identity()

    def logits(self, inputs, conditions=None):
        """Return the (n, n_classes) logarithms of unnormalised probabilities, for training."""
        *layers, _softmax = self.body.layers
        hidden = self.body.first_linear(self.stem(inputs), conditions)
        return nn.Sequential(*layers)(hidden)


def fold_scalings(network, *, inputs=None, outputs=None):
    """Move the standardisation of inputs and outputs into the network's affine ends.

    After ``fold_scalings(network, inputs=(m, s), outputs=(n, t))`` the network gives for x what
    it gave before for (x - m) / s, times t, plus n. An ``inf`` in s cuts that input off.

    Parameters
    ----------
    network : FactorisedNetwork
        Changed in place.
    inputs, outputs : (mean, scale), optional
        Arrays of one number for each feature (output), or of a single number for all.
    """
    with torch.no_grad():
        if inputs is not None:
            mean, scale = _as_columns(inputs, network.stem.weight, 1)
            weight = network.stem.weight.double()
            weight = weight / scale.view(1, -1, *[1] * (weight.ndim - 2))
            # A convolution that continues the edges meets a constant with its whole kernel.
            moved = weight.reshape(*weight.shape[:2], -1).sum(2) @ mean
            network.stem.bias.copy_(network.stem.bias.double() - moved)
            network.stem.weight.copy_(weight)
        if outputs is not None:
            mean, scale = _as_columns(outputs, network.head.weight, 0)
            network.head.weight.copy_(network.head.weight.double() * scale[:, None])
            network.head.bias.copy_(network.head.bias.double() * scale + mean)


def _as_columns(scaling, weight, axis):
    """Return mean and scale in float64, one number for each of the weight's rows or columns."""
    options = {"dtype": torch.float64, "device": weight.device}
    return [torch.as_tensor(part, **options).expand(weight.shape[axis]) for part in scaling]


def convolutions(
    image_size,
    *,
    n_channels,
    channels,
    kernel_sizes,
    largest_grid,
    activation,
    last=None,
    n_branches=1,
):
    """Return a stem, the layers of a convolutional body behind it, and the shape they end in.

    Each convolution is batch-normalised, and pooled by two as long as the grid has more than
    ``largest_grid`` cells a side. ``last`` is the activation of the last one, if another. All of
    it may stand side by side in several branches, which see the same image.
    """
    channels = check_counts("channels", channels)
    kernel_sizes = check_counts("kernel_sizes", kernel_sizes)
    check_count("n_channels", n_channels)
    check_count("largest_grid", largest_grid)
    if len(channels) != len(kernel_sizes):
        raise InputError(
            "channels and kernel_sizes",
            expected="one number each for every convolution",
            got=f"{len(channels)} and {len(kernel_sizes)}",
        )
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    widths = [n_branches * n_maps for n_maps in channels]
    stem = ImageConv(n_channels, widths[0], kernel_sizes[0])
    layers = []
    for index, n_maps in enumerate(widths):
        is_last = index + 1 == len(channels)
        layers += _normalised(nn.BatchNorm2d(n_maps), activation)
        if is_last and last is not None:
            layers[-1] = last()
        if max(height, width) > largest_grid:
            layers.append(nn.AvgPool2d(2, ceil_mode=True))
            height, width = -(-height // 2), -(-width // 2)
        if not is_last:
            layers.append(
                ImageConv(n_maps, widths[index + 1], kernel_sizes[index + 1], groups=n_branches)
            )
    return stem, layers, (widths[-1], height, width)


def _normalised(norm, activation):
    check_choice("activation", activation, ACTIVATIONS)
    return [norm, ACTIVATIONS[activation]()]


def _dense_layers(hidden, activation, dropout):
    """Return the layers from the first linear layer's output to the last hidden units."""
    check_share("dropout", dropout)
    layers = []
    for index, n_units in enumerate(hidden):
        if index:
            layers.append(nn.Linear(hidden[index - 1], n_units))
        layers += [*_normalised(nn.BatchNorm1d(n_units), activation), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def _condition_term(n_conditions, condition_size, n_units):
    check_count("n_conditions", n_conditions, fewest=0)
    check_count("condition_size", condition_size)
    return ConditionTerm(n_conditions, condition_size, n_units) if n_conditions else None
