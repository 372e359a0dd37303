"""An encoder whose vertices look through windows: learned features, a Gaussian, a power.

Every vertex pools the same features of the image over a Gaussian of its own, divides by what the
whole image holds, and compresses the result,

    f_v = gain_v B((sum_c w_vc sum_p G_v(p) phi_c(p)) / (sum_c u_vc mean_p phi_c(p))^q_v) + b_v

with ``B(z) = (z^k_v - 1) / k_v``, a power whose limit for small k is the logarithm (Box & Cox
1964, J R Stat Soc B 26:211), and which goes on below, as features grow with contrast in ways of
their own:

compressive spatial summation (Kay et al. 2013, J Neurophysiol 110:481) with divisive
normalisation by the scene (Heeger 1992, Vis Neurosci 9:181), on features that are learned instead
of assumed. That windows have a few parameters is what makes receptive fields identifiable from
noisy responses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuroigc._validation import InputError
from neuroigc.models.checks import check_count
from neuroigc.models.networks import FactorisedNetwork, convolutions

__all__ = ["FieldEncoderNetwork", "WindowReadout", "growth", "make_point_symmetric"]

# Parameters count in units in which they are learned as fast as weights are.
PLACE_UNIT, WIDTH_UNIT, POWER_UNIT = 1.5, 6.0, 10.0
FIRST_POWER, FIRST_WIDTH = 0.5, 0.2
# Pooled features are positive; this keeps their logarithm finite.
FLOOR = 1e-6


class _Pool(torch.autograd.Function):
    """Features times windows; backwards, windows that nothing came back through cost nothing."""

    @staticmethod
    def forward(ctx, features: Tensor, windows: Tensor) -> Tensor:
        ctx.save_for_backward(features, windows)
        return features @ windows.T

    @staticmethod
    def backward(ctx, gradient: Tensor):
        features, windows = ctx.saved_tensors
        to_features = to_windows = None
        if ctx.needs_input_grad[1]:
            to_windows = gradient.flatten(0, -2).T @ features.flatten(0, -2)
        elif ctx.needs_input_grad[0]:
            # In attribution, outputs are differentiated one by one.
            used = gradient.flatten(0, -2).any(0)
            gradient, windows = gradient[..., used], windows[used]
        if ctx.needs_input_grad[0]:
            to_features = gradient @ windows
        return to_features, to_windows


def growth(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(e^z - 1) / z`` and its derivative."""
    small = z.abs() < 0.02
    safe = torch.where(small, 1.0, z)
    value = torch.where(small, 1 + z / 2 + z * z / 6 + z**3 / 24, torch.expm1(safe) / safe)
    slope = torch.where(small, 0.5 + z / 3 + z * z / 8 + z**3 / 30, (safe.exp() - value) / safe)
    return value, slope


class WindowReadout(nn.Module):
    """Gaussian windows on a grid of features, normalisation by the scene, and a power.

    Places are in units of half the grid's side: x to the right and y upwards, -1 to 1.

    Parameters
    ----------
    n_channels : int
        Features, none below zero.
    shape : (int, int)
        Rows and columns of the grid.
    n_outputs : int
        Number of vertices.
    """

    def __init__(self, n_channels: int, shape: tuple[int, int], n_outputs: int):
        super().__init__()
        for name in ("raw_x", "raw_y", "raw_width", "raw_power", "raw_share"):
            self.register_parameter(name, nn.Parameter(torch.zeros(n_outputs)))
        self.raw_weights = nn.Parameter(torch.zeros(n_outputs, n_channels))
        self.raw_scene_weights = nn.Parameter(torch.zeros(n_outputs, n_channels))
        # Running mean of the drive, so that the exponent turns the curve about its middle.
        self.register_buffer("typical", torch.zeros(n_outputs))
        rows, columns = shape
        y, x = (2 * (torch.arange(size) + 0.5) / size - 1 for size in shape)
        self.register_buffer("grid_y", -y.repeat_interleave(columns), persistent=False)
        self.register_buffer("grid_x", x.repeat(rows), persistent=False)

    @property
    def parameters_by_name(self) -> dict[str, Tensor]:
        """Return x, y, logarithm of the width, power and share, (n_outputs,) each."""
        return {
            "x": PLACE_UNIT * self.raw_x,
            "y": PLACE_UNIT * self.raw_y,
            "log_width": WIDTH_UNIT * self.raw_width + FIRST_WIDTH_LOG,
            "power": POWER_UNIT * self.raw_power + FIRST_POWER,
            "share": POWER_UNIT * self.raw_share,
        }

    @torch.no_grad()
    def set_parameters(self, **values: Tensor) -> None:
        """Put values in the place of some of `parameters_by_name`."""
        for name, value in values.items():
            raw, unit, zero = _UNITS[name]
            getattr(self, raw).copy_((value - zero) / unit)

    def windows(self) -> Tensor:
        """Return the Gaussians (n_outputs, rows * columns), each of sum 1 over the grid."""
        now = self.parameters_by_name
        x, y = self.grid_x - now["x"][:, None], self.grid_y - now["y"][:, None]
        return torch.softmax(-0.5 * (x * x + y * y) * torch.exp(-2 * now["log_width"])[:, None], 1)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return weights of features in windows and in the scene, (n_outputs, n_channels) each."""
        raw = self.raw_weights, self.raw_scene_weights
        inside, scene = (F.softplus(weights) for weights in raw)
        return inside, scene

    def pooled(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logarithms of what windows and scene hold, (n, n_outputs) each."""
        flat = features.flatten(2)
        weights, scene_weights = self.weights()
        inside = torch.einsum("ncv,vc->nv", _Pool.apply(flat, self.windows()), weights)
        scene = flat.mean(2) @ scene_weights.T
        return torch.log(inside + FLOOR), torch.log(scene + FLOOR)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_channels, rows, columns) to responses (n, n_outputs)."""
        inside, scene = self.pooled(features)
        if self.training:
            drive = inside - self.parameters_by_name["share"] * scene
            self.typical.lerp_(drive.detach().mean(0), 0.05)
        return self.respond(inside, scene)

    def respond(self, inside: Tensor, scene: Tensor) -> Tensor:
        """Turn logarithms of what windows and scene hold into responses, (n, n_outputs) each."""
        now = self.parameters_by_name
        drive = inside - now["share"] * scene - self.typical
        return drive * growth(now["power"] * drive)[0]


FIRST_WIDTH_LOG = math.log(FIRST_WIDTH)
_UNITS = {
    "x": ("raw_x", PLACE_UNIT, 0.0),
    "y": ("raw_y", PLACE_UNIT, 0.0),
    "log_width": ("raw_width", WIDTH_UNIT, FIRST_WIDTH_LOG),
    "power": ("raw_power", POWER_UNIT, FIRST_POWER),
    "share": ("raw_share", POWER_UNIT, 0.0),
}


class Gain(nn.Module):
    """A gain and an offset for each output: an affine head that mixes nothing."""

    def __init__(self, n_outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_outputs, 1))
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, values: Tensor) -> Tensor:
        """Scale and shift (n, n_outputs)."""
        return values * self.weight[:, 0] + self.bias


class _FieldBody(nn.Module):
    """Features and readout, called as bodies are."""

    def __init__(self, features: nn.Module, readout: WindowReadout):
        super().__init__()
        self.features, self.readout = features, readout

    def forward(self, hidden: Tensor, conditions: Tensor | None = None) -> Tensor:
        if conditions is not None:
            raise InputError(
                "conditions",
                expected="none: every vertex has a window of its own",
                got=f"{len(conditions)} of them",
            )
        return self.readout(self.features(hidden))


class _MeanOfBranches(nn.Module):
    """The mean of the first and the second half of the channels."""

    def forward(self, features: Tensor) -> Tensor:
        return features.unflatten(1, (2, -1)).mean(1)


class FieldEncoderNetwork(FactorisedNetwork):
    """From image to brain through one Gaussian window per vertex.

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
    largest_grid : int
        Features are pooled until the grid has at most this many cells a side.
    activation : {"mish", "relu"}
        Of all convolutions but the last, whose features are made positive.
    point_symmetric : bool
        Whether features are means of two branches whose kernels are those of each other turned
        by 180 degrees, see `make_point_symmetric`.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        n_outputs: int,
        *,
        n_channels: int = 1,
        channels: Sequence[int] = (16, 12),
        kernel_sizes: Sequence[int] = (5, 3),
        largest_grid: int = 24,
        activation: str = "mish",
        point_symmetric: bool = False,
    ):
        super().__init__()
        check_count("n_outputs", n_outputs)
        self.stem, features, (n_features, *grid) = convolutions(
            image_size,
            n_channels=n_channels,
            channels=channels,
            kernel_sizes=kernel_sizes,
            largest_grid=largest_grid,
            activation=activation,
            last=nn.Softplus,
            n_branches=2 if point_symmetric else 1,
        )
        if point_symmetric:
            features.append(_MeanOfBranches())
            n_features //= 2
        readout = WindowReadout(n_features, tuple(grid), n_outputs)
        self.body = _FieldBody(nn.Sequential(*features), readout)
        self.head = Gain(n_outputs)

    def features(self, inputs: Tensor) -> Tensor:
        """Return what windows look at, (n, n_features, rows, columns), none below zero."""
        features: Tensor = self.body.features(self.stem(inputs))
        return features

    def window_weights(self) -> tuple[Tensor, Tensor]:
        """Return how outputs weigh features inside their windows, and in the scene.

        Both (n_outputs, n_features, rows * columns): their sums with the features are what
        `from_sums` takes.
        """
        readout = self.readout
        windows = readout.windows()
        weights, scene_weights = readout.weights()
        inside = weights[:, :, None] * windows[:, None]
        return inside, (scene_weights[:, :, None] / windows.shape[1]).expand_as(inside)

    def from_sums(self, inside: Tensor, scene: Tensor) -> Tensor:
        """Return the outputs for given sums of features, (n, n_outputs) each."""
        power = self.readout.respond(torch.log(inside + FLOOR), torch.log(scene + FLOOR))
        outputs: Tensor = self.head(power)
        return outputs

    @property
    def readout(self) -> WindowReadout:
        """Return the windows."""
        readout: WindowReadout = self.body.readout
        return readout


@torch.no_grad()
def make_point_symmetric(network: FieldEncoderNetwork, **arguments: Any) -> FieldEncoderNetwork:
    """Return a network whose features stand where the image has them.

    A learned kernel need not be centred: its features may stand a part of a pixel to one side,
    and windows, which are learned with them, to the other. What the same kernels turned by 180
    degrees see is moved the other way, so that the mean of both is not moved at all.

    Parameters
    ----------
    network : FieldEncoderNetwork
        Left as it is.
    **arguments
        Those that it was made with.
    """
    symmetric = type(network)(**arguments, point_symmetric=True)
    state = network.state_dict()
    for name, value in state.items():
        if value.ndim and not name.startswith(("body.readout.", "head.")):
            turned = value.flip(2, 3) if value.ndim == 4 else value
            state[name] = torch.cat([value, turned])
    symmetric.load_state_dict(state)
    return symmetric.to(next(network.parameters()).device).train(network.training)
