"""Networks and data that the benchmarks measure with; all of them from fixed seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]
ACTIVATIONS: dict[str, Activation] = {"Mish": nn.Mish, "ReLU": nn.ReLU}
KINDS = ("MLP", "CNN", "residual")
# The decoder of the IGC paper.
N_VERTICES, WIDTH, DEPTH = 39_548, 512, 5


@dataclass
class Case:
    """A model, of an affine stem and all the rest, with the samples to attribute."""

    name: str
    model: nn.Sequential
    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)
        with torch.no_grad():
            parts = [self.model(x).double() for x in self.inputs.split(500)]
        f, y = torch.cat(parts), self.targets.double()
        f, self.centred = f - f.mean(0), y - y.mean(0)
        self.scale = (f**2).mean(0).sqrt() * (self.centred**2).mean(0).sqrt()
        self.rho = ((f * self.centred).mean(0) / self.scale).tolist()

    @property
    def n_samples(self) -> int:
        """Return the number of samples."""
        return len(self.inputs)

    @property
    def n_outputs(self) -> int:
        """Return the number of outputs."""
        return self.targets.shape[1]

    @property
    def stem(self) -> nn.Module:
        """Return the affine layers at the beginning."""
        return self.model[0]

    @property
    def rest(self) -> nn.Module:
        """Return the layers behind the stem."""
        return self.model[1:]

    @property
    def hidden_shape(self) -> tuple[int, ...]:
        """Return the shape of a sample behind the stem."""
        with torch.no_grad():
            return tuple(self.stem(self.inputs[:1]).shape[1:])

    def fingerprint(self) -> str:
        """Return a digest of weights and data."""
        return digest(*self.model.state_dict().values(), self.inputs, self.targets)


def digest(*tensors: Tensor) -> str:
    """Return a short name of these values."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.contiguous().numpy())
    return whole.hexdigest()[:16]


def cached(folder: Path | None, name: str, compute: Callable[[], Any]) -> Any:
    """Return what a file of the folder holds, or compute and keep it."""
    if folder is None:
        return compute()
    path = folder / f"{name}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(compute(), path)
    return torch.load(path, weights_only=True)


class Residual(nn.Module):
    """Add what a branch makes of the input to the input."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        """Run the branch."""
        return x + self.branch(x)


def assemble(stem: list[nn.Module], body: list[nn.Module], head: nn.Module) -> nn.Sequential:
    """Put the three parts into one sequential model, which does not name them."""
    return nn.Sequential(nn.Sequential(*stem), nn.Sequential(*body), head)


def make_mlp(
    n_inputs: int, activation: Activation, *, width: int, depth: int, n_outputs: int = 2
) -> nn.Sequential:
    """Return hidden layers with batch norm."""
    body = [activation()]
    for _ in range(depth - 1):
        body += [nn.Linear(width, width), nn.BatchNorm1d(width), activation()]
    stem: list[nn.Module] = [nn.Linear(n_inputs, width), nn.BatchNorm1d(width)]
    return assemble(stem, body, nn.Linear(width, n_outputs))


def make_residual(
    n_inputs: int, activation: Activation, *, width: int, n_blocks: int
) -> nn.Sequential:
    """Return a linear layer, then blocks of two layers each with a way around them."""
    body: list[nn.Module] = []
    for _ in range(n_blocks):
        branch: list[nn.Module] = []
        for _ in range(2):
            branch += [nn.BatchNorm1d(width), activation(), nn.Linear(width, width)]
        body.append(Residual(*branch))
    body += [nn.BatchNorm1d(width), activation()]
    return assemble([nn.Linear(n_inputs, width)], body, nn.Linear(width, 2))


def make_cnn(side: int, activation: Activation, *, channels: int) -> nn.Sequential:
    """Return four convolutions with batch norm and a hidden layer."""
    stem = [nn.Conv2d(1, channels, 5, stride=2, padding=2), nn.BatchNorm2d(channels)]
    body = [activation()]
    for stride in (1, 2, 2):
        convolution = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
        body += [convolution, nn.BatchNorm2d(channels), activation()]
    n_flat = channels * (-(-side // 8)) ** 2
    body += [nn.Flatten(), nn.Linear(n_flat, 32), activation()]
    return assemble(stem, body, nn.Linear(32, 2))


def make_signals(
    n_samples: int, n_inputs: int, *, noise: float = 3.0, target_noise: float = 0.6, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return latent signals spread over groups of inputs, and nonlinear features of them."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    n_latents, n_groups = 12, 40
    z = draw(n_samples, n_latents)
    loadings = torch.zeros(n_latents, n_inputs)
    for group in torch.arange(n_inputs).chunk(n_groups):
        active = torch.randperm(n_latents, generator=generator)[:3]
        loadings[active[:, None], group] = draw(3, 1) * (1 + 0.5 * draw(3, len(group)))
    inputs = z @ loadings
    for part in inputs.split(500):
        part.add_(draw(part.shape), alpha=noise)
    features = [
        z[:, 0] + z[:, 1] * z[:, 2] + 0.5 * z[:, 3] ** 2,
        torch.tanh(2 * z[:, 4]) + z[:, 5].abs() + 0.7 * z[:, 6] * z[:, 7],
    ]
    return inputs, _with_noise(torch.stack(features, 1), target_noise, draw)


def make_images(
    n_samples: int, side: int, *, target_noise: float = 0.5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return noisy images of two blobs; the energy of one and the contrast of both."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    axis = torch.linspace(-1, 1, side)
    places = torch.tensor([[-0.4, -0.3], [0.4, 0.3]]) + 0.12 * draw(n_samples, 2, 2)
    heights = draw(n_samples, 2)
    x2 = (axis - places[..., :1]).unsqueeze(-2) ** 2
    y2 = (axis - places[..., 1:]).unsqueeze(-1) ** 2
    images = (heights[..., None, None] * torch.exp(-(x2 + y2) / 0.08)).sum(1, keepdim=True)
    coarse = draw(n_samples, 1, 6, 6)
    images += 0.4 * nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    images += 0.3 * draw(images.shape)
    first, second = heights.T
    features = [first**2 + 0.7 * first, second.abs() * torch.sign(first) + places[:, 1, 0] * 4]
    return images, _with_noise(torch.stack(features, 1), target_noise, draw)


def _with_noise(features: Tensor, noise: float, draw: Callable[..., Tensor]) -> Tensor:
    """Standardise features and add noise to them."""
    standard = (features - features.mean(0)) / features.std(0)
    return standard + noise * draw(features.shape)


def train(model: nn.Module, inputs: Tensor, targets: Tensor, *, n_epochs: int, lr: float) -> None:
    """Fit the model by mean squared error."""
    generator = torch.Generator().manual_seed(1)
    size = min(100, len(inputs) // 4)
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    n_batches = len(inputs) // size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=n_epochs * n_batches)
    model.train()
    for _ in range(n_epochs):
        order = torch.randperm(len(inputs), generator=generator)[: n_batches * size]
        for rows in order.split(size):
            optimiser.zero_grad()
            nn.functional.mse_loss(model(inputs[rows]), targets[rows]).backward()
            optimiser.step()
            schedule.step()
    model.eval()


def make_trained(
    name: str,
    make_model: Callable[[], nn.Sequential],
    data: tuple[Tensor, Tensor],
    n_held_out: int,
    *,
    n_epochs: int,
    lr: float = 2e-3,
    cache: Path | None = None,
) -> Case:
    """Train a model on all but the last samples, which become those of the case."""
    inputs, targets = data
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_model()

    def fit() -> dict[str, Tensor]:
        n = len(inputs) - n_held_out
        train(model, inputs[:n], targets[:n], n_epochs=n_epochs, lr=lr)
        return model.state_dict()

    recipe = torch.tensor([n_held_out, n_epochs, lr], dtype=torch.float64)
    start = "" if cache is None else digest(*model.state_dict().values(), *data, recipe)
    model.load_state_dict(cached(cache, f"model_{name.replace(' ', '_')}_{start}", fit))
    return Case(name, model, inputs[-n_held_out:].clone(), targets[-n_held_out:].clone())


def make_decoder(*, small: bool = False, cache: Path | None = None) -> Case:
    """Return the decoder at its real size, trained, with 1,000 held-out samples."""
    n_inputs, width, n = (60, 16, 24) if small else (N_VERTICES, WIDTH, 1000)
    n_train = 200 if small else 2000
    return make_trained(
        f"decoder_{n_inputs}",
        partial(make_mlp, n_inputs, nn.Mish, width=width, depth=DEPTH),
        make_signals(n_train + n, n_inputs, noise=1.0 if small else 8.0),
        n,
        n_epochs=20 if small else 6,
        lr=1e-3,
        cache=cache,
    )


def make_case(
    kind: str, activation: str, *, small: bool = False, cache: Path | None = None
) -> Case:
    """Return one of three different networks, trained, with 400 held-out samples."""
    act, n = ACTIVATIONS[activation], 24 if small else 400
    n_all = n + (200 if small else 2000)
    if kind == "CNN":
        side, channels = (12, 4) if small else (24, 8)
        make = partial(make_cnn, side, act, channels=channels)
        data = make_images(n_all, side, seed=1)
    elif kind == "MLP":
        n_inputs, width = (60, 16) if small else (2000, 128)
        make = partial(make_mlp, n_inputs, act, width=width, depth=4)
        data = make_signals(n_all, n_inputs, seed=2)
    else:
        n_inputs, width = (60, 16) if small else (1000, 96)
        make = partial(make_residual, n_inputs, act, width=width, n_blocks=3)
        data = make_signals(n_all, n_inputs, seed=3)
    name = f"{kind} {activation}"
    return make_trained(name, make, data, n, n_epochs=20, cache=cache)


def make_untrained(n_samples: int, n_inputs: int, n_outputs: int, *, width: int) -> Case:
    """Return the decoder's architecture as it is initialised: for time and memory it serves."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_mlp(n_inputs, nn.Mish, width=width, depth=DEPTH, n_outputs=n_outputs).eval()
        inputs = torch.randn(n_samples, n_inputs)
        with torch.no_grad():
            f = model(inputs)
        targets = (f - f.mean(0)) / f.std(0) + torch.randn(f.shape)
    return Case(f"{n_samples} x {n_inputs} to {n_outputs}", model, inputs, targets)
