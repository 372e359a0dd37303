"""Whether intervals cover and tests reject as often as they say.

    python tests/benchmarks/bench_calibration.py coverage
    python tests/benchmarks/bench_calibration.py null
    python tests/benchmarks/bench_calibration.py power

Each prints a table, and writes it with ``--json PATH``. ``--small`` runs in seconds and means
nothing. Data sets are simulated anew for a model that stays the same. Of D data sets, a share s
has a standard error of sqrt(s (1 - s) / D): 0.013 for a coverage of 0.95 and 300 data sets, 0.007
for a rejection rate of 0.05 and 1,000.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_output import NEVER, print_environment, print_table, write
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc.attribution import (
    IGCResult,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradient_correlation,
)

Array = NDArray[np.float64]

N_INPUTS, LEVEL, ALPHA = 8, 0.95, 0.05
GROUPS = {"one": [2], "three": [0, 1, 3], "four": [3, 4, 5, 6], "all": list(range(N_INPUTS))}
KINDS = ("few", "many")
METHODS = ("jackknife", "bootstrap")
DISTRIBUTIONS = ("gaussian", "skewed", "heavy")
SCENARIOS = ("paired", "conditions", "zero", "mean", "sampled", "many outputs")
BASELINES = {"zero": ZeroBaseline(), "mean": MeanBaseline(), "sampled": SampledBaseline(8)}


class Conditioned(nn.Module):
    """A network that is told the condition beside the input."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 4)
        self.body = nn.Sequential(nn.Linear(N_INPUTS + 4, 12), nn.Mish(), nn.Linear(12, 2))

    def forward(self, inputs: Tensor, conditions: Tensor) -> Tensor:
        """Map (n, n_inputs) and (n,) to (n, 2)."""
        output: Tensor = self.body(torch.cat([inputs, self.embedding(conditions)], 1))
        return output


@cache
def make_model(kind: str = "few") -> nn.Module:
    """Return a nonlinear network of fixed random weights, of 2 outputs or of many."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if kind == "conditions":
            model: nn.Module = Conditioned()
        else:
            last = [nn.Linear(12, 2)] if kind == "few" else [nn.Linear(12, 3), nn.Linear(3, 12)]
            layers = [nn.Linear(N_INPUTS, 12), nn.Mish(), nn.Linear(12, 12), nn.Mish()]
            model = nn.Sequential(*layers, *last)
        with torch.no_grad():
            for parameter in model.parameters():
                spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
                parameter.copy_(2 * spread * torch.randn(parameter.shape))
    return model.double().eval()


def make_inputs(rng: np.random.Generator, n: int, distribution: str = "gaussian") -> Array:
    """Draw correlated inputs of mean zero."""
    shape = (n, N_INPUTS)
    if distribution == "skewed":
        z = rng.exponential(1, shape) - 1
    elif distribution == "heavy":
        z = rng.standard_t(5, shape)
    else:
        z = rng.standard_normal(shape)
    mixing = np.random.default_rng(5).standard_normal((N_INPUTS, N_INPUTS))
    return z @ mixing / np.sqrt(N_INPUTS)


def predict(model: nn.Module, inputs: Array) -> Array:
    """Return predictions (n, n_outputs)."""
    with torch.no_grad():
        predictions: Array = model(torch.from_numpy(inputs)).numpy()
    return predictions


def attribute(model: nn.Module, inputs: Array, targets: Array, **options: Any) -> IGCResult:
    """Attribute, spending all the gradients that may be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return integrated_gradient_correlation(
            model, inputs, targets, groups=GROUPS, tolerance=NEVER, device="cpu", **options
        )


def coverage(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often 95 % intervals of groups contain the population's value."""
    rows = []
    for kind in options.outputs:
        for distribution in options.distributions:
            found = _coverage(make_model(kind), kind, distribution, options)
            print_table(found)
            rows += found
    return {"rows": rows}


def _coverage(
    model: nn.Module, kind: str, distribution: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        x = make_inputs(rng, n, distribution)
        f = predict(model, x)
        return x, np.tanh(f) + 0.5 * rng.standard_normal(f.shape) + 0.3 * x[:, :1]

    x, y = draw(np.random.default_rng(1), options.population)
    truth = attribute(model, x, y, max_gradients=12).group_values
    rows = []
    for n in options.samples:
        for most in options.gradients:
            hits: dict[str, list[Any]] = {method: [] for method in METHODS}
            for seed in range(options.datasets):
                x, y = draw(np.random.default_rng([seed, 7]), n)
                result = attribute(model, x, y, max_gradients=most, seed=seed)
                for method in METHODS if kind == "few" else METHODS[:1]:
                    low, high = np.moveaxis(
                        result.group_intervals(LEVEL, method=method, n_resamples=options.resamples),
                        -1,
                        0,
                    )
                    hits[method].append((low <= truth) & (truth <= high))
            for method, found in hits.items():
                if found:
                    shares = np.mean(found, 0)
                    row = {"outputs": kind, "inputs": distribution, "n": n, "gradients": most}
                    row |= {"method": method, "coverage": float(shares.mean())}
                    row |= {"lowest": float(shares.min()), "highest": float(shares.max())}
                    for g, name in enumerate(GROUPS):
                        share = shares[:, g]
                        row[name] = share.tolist() if len(share) < 3 else float(share.mean())
                    rows.append(row)
    return rows


def null(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often tests reject although targets have nothing to do with the inputs."""
    rows = [_rejections(name, options, effect=0.0) for name in options.scenarios]
    print_table(rows)
    return {"rows": rows}


def power(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often tests reject where targets follow the predictions."""
    rows = [
        {"effect": effect, **_rejections(name, options, effect=effect)}
        for name in options.scenarios
        for effect in (0.3, 0.6)
    ]
    print_table(rows)
    return {"rows": rows}


def _rejections(scenario: str, options: argparse.Namespace, *, effect: float) -> dict[str, Any]:
    """Return shares of data sets, averaged over outputs, with p-values of 0.05 or less."""
    kinds = {"conditions": "conditions", "many outputs": "many"}
    model = make_model(kinds.get(scenario, "few"))
    given = {"baseline": BASELINES.get(scenario, PairedBaseline()), "max_gradients": 9}
    component, single, family = [], [], []
    for seed in range(options.datasets):
        rng = np.random.default_rng([seed, 11])
        n = int(rng.integers(60, 101))
        x = make_inputs(rng, n, DISTRIBUTIONS[seed % 3])
        labels = rng.permutation(np.arange(n) % 3)
        if scenario == "conditions":
            given["conditions"] = labels
            with torch.no_grad():
                f = model(torch.from_numpy(x), torch.from_numpy(labels)).numpy()
        else:
            f = predict(model, x)
        y = rng.exponential(1, f.shape) - 1 + effect * (f - f.mean(0)) / f.std(0)
        y += 3 * labels[:, None] if scenario == "conditions" else 0
        result = attribute(model, x, y, seed=seed, n_permutations=options.permutations, **given)
        component.append((result.p_values <= ALPHA).any(-1).mean())
        single.append((result.group_p_values <= ALPHA).mean(0))
        family.append((result.group_p_values_fwe <= ALPHA).any(-1).mean())
    return {
        "scenario": scenario,
        "any component": float(np.mean(component)),
        "any group": float(np.mean(family)),
        **dict(zip(GROUPS, np.mean(single, 0).tolist(), strict=True)),
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for run, n_datasets in ((coverage, 300), (null, 1000), (power, 100)):
        command = commands.add_parser(run.__name__, help=str(run.__doc__).replace("%", "%%"))
        command.set_defaults(run=run)
        command.add_argument("--datasets", type=int, default=n_datasets)
        command.add_argument("--json", type=Path)
        command.add_argument("--small", action="store_true", help="a test that it runs")
        if run is coverage:
            command.add_argument("--samples", type=int, nargs="+", default=[100, 200, 500])
            command.add_argument("--gradients", type=int, nargs="+", default=[9, 40])
            command.add_argument("--population", type=int, default=200_000)
            command.add_argument("--outputs", nargs="+", default=KINDS, choices=KINDS)
            command.add_argument("--resamples", type=int, default=1000)
            command.add_argument(
                "--distributions", nargs="+", default=DISTRIBUTIONS, choices=DISTRIBUTIONS
            )
        else:
            command.add_argument("--permutations", type=int, default=199)
            command.add_argument("--scenarios", nargs="+", default=SCENARIOS, choices=SCENARIOS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark."""
    options = make_parser().parse_args(arguments)
    if options.small:
        options.datasets = 3
        if options.command == "coverage":
            options.samples, options.gradients, options.population = [40], [9], 500
            options.distributions = DISTRIBUTIONS[:1]
    print_environment()
    write(options.json, options.command, options.run(options))


if __name__ == "__main__":
    main()
