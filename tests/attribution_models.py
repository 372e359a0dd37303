"""Small models for the tests of attribution, with weights and norms that are not trivial."""

import numpy as np
import torch
from torch import nn

from neuroigc.attribution.keys import combine_keys, digest_rows
from neuroigc.attribution.pairs import draw_blocks, draw_pairs
from neuroigc.attribution.paths import draw_points
from neuroigc.attribution.thinning import Thinning


def shake(model, seed=0):
    """Give weights, biases and batch-norm statistics random values; return in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(noise * 1.2)
    return model.eval()


def mlp(n_inputs=6, n_outputs=2, activation=nn.Mish, width=16):
    return shake(
        nn.Sequential(
            nn.Linear(n_inputs, width),
            nn.BatchNorm1d(width),
            activation(),
            nn.Dropout(0.5),
            nn.Linear(width, width),
            activation(),
            nn.Linear(width, n_outputs),
        )
    )


def cnn(n_outputs=3, n_latents=5):
    return shake(
        nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Mish(),
            nn.Conv2d(3, 4, 3, stride=2),
            nn.Mish(),
            nn.Flatten(),
            nn.Linear(4 * 3 * 3, n_latents),
            nn.Mish(),
            nn.Linear(n_latents, n_outputs),
        )
    )


class Conditioned(nn.Module):
    """Nothing to peel: a layer that mixes input and condition, and a nonlinear end."""

    def __init__(self, n_inputs=5, n_conditions=3, n_outputs=2):
        super().__init__()
        self.embedding = nn.Embedding(n_conditions, 2)
        self.first = nn.Linear(n_inputs + 2, 8)
        self.second = nn.Linear(8, n_outputs)

    def forward(self, x, conditions):
        hidden = torch.cat([x, self.embedding(conditions)], 1)
        return torch.tanh(self.second(nn.functional.mish(self.first(hidden))))


class Quadratic(nn.Module):
    """½ xᵀ A x, in float64."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(torch.as_tensor(matrix, dtype=torch.float64))

    def forward(self, x):
        return torch.einsum("ni,ij,nj->n", x, self.matrix, x) / 2


def predict(model, inputs, conditions=None):
    """Return the model's outputs as float64 columns."""
    dtype = next(model.parameters()).dtype
    x = torch.as_tensor(np.asarray(inputs), dtype=dtype)
    with torch.no_grad():
        y = model(x) if conditions is None else model(x, torch.as_tensor(conditions))
    return y.double().numpy().reshape(len(x), -1)


def make_targets(model, inputs, rng, conditions=None, noise=0.7):
    """Return the model's predictions with noise, so that the correlation is moderate."""
    f = predict(model, inputs, conditions)
    return (f - f.mean(0)) / f.std(0) + noise * rng.standard_normal(f.shape)


def keys_of(x, y, conditions=None):
    parts = [x, y.reshape(len(y), -1)] + ([] if conditions is None else [conditions])
    return combine_keys(*map(digest_rows, parts))


def drawn(keys, strata=None, n_rounds=(8,), seed=0, max_size=512, y=None):
    """Return the pairs (with weights) and points that the estimator draws, sweep by sweep.

    With few outputs, pairs are thinned by their targets y.
    """
    pairs, points, first_round = [], [], 0
    strata = np.zeros(len(keys), int) if strata is None else np.asarray(strata)
    if y is not None:
        y = y.reshape(len(keys), -1).astype(float)
        for stratum in np.unique(strata):
            y[strata == stratum] -= y[strata == stratum].mean(0)
        thinning = Thinning(y, strata, paired=True, seed=seed)
    for sweep, in_sweep in enumerate(n_rounds):
        for block in draw_blocks(strata, keys, max_size=max_size, sweep=sweep, seed=seed):
            for shift in range(in_sweep):
                chosen = draw_pairs(block, shift, seed=seed)
                weight = chosen.weight / (len(strata) * sum(n_rounds))
                first, second = block.samples[chosen.first], block.samples[chosen.second]
                taken = np.ones(len(first))
                if y is not None:
                    taken = thinning.weights(y[first] - y[second], block.keys, first_round + shift)
                pairs += list(zip(first, second, weight * taken, strict=True))
                points.append(draw_points(block.keys, first_round + shift, seed=seed))
        first_round += in_sweep
    t, weights = np.concatenate(points, 1)
    return dict(pairs=pairs, points=t[:, None], weights=weights[:, None], control_variate=True)
