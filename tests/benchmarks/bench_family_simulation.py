"""Which method finds the pixels that matter, where it is known which these are.

    python tests/benchmarks/bench_family_simulation.py functions
    python tests/benchmarks/bench_family_simulation.py models
    python tests/benchmarks/bench_family_simulation.py players

The first attributes the functions that made the targets, the second networks trained on them. Both
print, for each of four experiments, how much the map of each method overlaps with the truth and
what it takes of processor time relative to IGC in the same run (Shapley: of fewer images); and
attributions of regions relative to one another. The third sets IGC of regions beside their Shapley
values, from all coalitions. They write it with ``--json PATH``; ``--small`` runs in seconds and
means nothing.

Scores are of the sizes of a map, without signs, meaned over outputs: ``overlap`` is the sum over
pixels of the smaller one of two shares, of the map's total and of the truth's (1 for maps that are
in proportion to the truth); ``r`` is Pearson's, over pixels; ``auc`` is the probability that a
pixel that counts has a larger value than one that does not; ``dice`` is the share of pixels that
count among as many of the largest values. A pixel counts if its truth is more than a tenth of the
largest.

What the paper calls SD of IG is its variance: the package it comes with drops the root that it
takes. Both are here, under their names. IG against zero says little of C and D: cosines do not
change along such a path.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_output import print_environment, print_table, write
from scipy.stats import rankdata
from torch import nn

from neuroigc.attribution import (
    SampledBaseline,
    ZeroBaseline,
    component_correlation,
    component_t_test,
    gradient_times_input,
    integrated_gradient_correlation,
    shapley_correlation,
    summarise_attributions,
)
from neuroigc.datasets.localised_statistics import (
    KINDS,
    LocalisedStatistics,
    make_localised_statistics,
)
from neuroigc.models import NeuralClassifier, NeuralDecoder, NeuralEncoder

LETTERS = dict(zip(KINDS, "ABCD", strict=True))
# Squares of pixels that are the players of Shapley values, and that IGC is summed over beside them.
POOL = 2
# Pixels count whose truth, relative to the largest, is more than this.
COUNTS = 0.1
# Of IGC, for each image at most. Left alone, functions take 3 in A and B, 16 to 50 in C, and 398 in
# D, whose softmax is steep.
GRADIENTS = 33
PERCEPTRON: dict[str, Any] = dict(
    hidden=(128,) * 4, learning_rate=2e-3, weight_decay=0.05, dropout=0.2, batch_size=128
)
CONVOLUTIONAL: dict[str, Any] = dict(max_epochs=12)
METHODS = (
    "IGC",
    "IGC, squares",
    "IGaC",
    "IG mean",
    "IG mean, zero",
    "IG SD",
    "IG variance",
    "gradient × input SD",
    "gradient × input covariance",
    "component r",
    "component t",
    "Shapley",
)
# Methods whose maps have no negative regions, so that these can be compared with one another.
SHOWN = ("IGC", "IGaC", "IG SD", "IG variance", "gradient × input SD", "Shapley")


@dataclass
class Experiment:
    """What is attributed, and the truth."""

    made: LocalisedStatistics
    model: nn.Module
    images: np.ndarray
    targets: np.ndarray
    score: float


def make_function(kind: str, n_samples: int, seed: int) -> Experiment:
    """Return the function that made the targets."""
    made = make_localised_statistics(kind, n_samples, seed=seed)
    with torch.no_grad():
        f = made.function(torch.from_numpy(made.images)).numpy()
    return Experiment(made, made.function, made.images, made.targets, _mean_r(f, made.targets))


def make_trained(
    kind: str, n_samples: int, seed: int, *, n_train: int, convolutional: bool
) -> Experiment:
    """Return a network trained on other images than those to attribute."""
    made = make_localised_statistics(kind, n_train + n_samples, seed=seed)
    size = made.images.shape[1]
    inputs = made.images[:, None] if convolutional else made.images.reshape(-1, size * size)
    reshape = nn.Unflatten(1, (1, size)) if convolutional else nn.Flatten()
    options: dict[str, Any] = dict(seed=seed) | (CONVOLUTIONAL if convolutional else PERCEPTRON)
    targets = made.targets[:n_train]
    if kind == "category":
        channels = {} if convolutional else dict(channels=())
        estimator, targets = NeuralClassifier(**options, **channels), targets.argmax(1)
    else:
        estimator = (NeuralEncoder if convolutional else NeuralDecoder)(**options)
    estimator.fit(inputs[:n_train], targets)
    model = nn.Sequential(reshape, estimator.module_).eval()
    images, targets = made.images[n_train:], made.targets[n_train:]
    with torch.no_grad():
        f = model(torch.from_numpy(images)).numpy()
    return Experiment(made, model, images, targets, _mean_r(f, targets))


def attribute(
    experiment: Experiment, *, n_baselines: int, n_steps: int, n_shapley: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return maps (n_outputs, size, size) of all methods, and the seconds each took."""
    model, x, y = experiment.model, experiment.images, experiment.targets
    several = SampledBaseline(min(n_baselines, len(x)))
    zero = ZeroBaseline()

    def summary(**options: Any) -> Any:
        return summarise_attributions(model, x, y, seed=seed, device="cpu", **options)

    def igc(targets: Any) -> np.ndarray:
        return integrated_gradient_correlation(
            model, x, targets, max_gradients=GRADIENTS, seed=seed, device="cpu"
        ).attributions

    def shapley() -> np.ndarray:
        some = slice(n_shapley)
        found = shapley_correlation(
            model, x[some], y[some], pool=POOL, n_rounds=2, seed=seed, device="cpu"
        )
        return _spread(found.attributions)

    calls: dict[str, Callable[[], Any]] = {
        "IGC": lambda: igc(y),
        "IGaC": lambda: igc(None),
        "IG, sampled": lambda: summary(baseline=several, n_steps=n_steps),
        "IG, zero": lambda: summary(baseline=zero, n_steps=n_steps),
        "gradient × input": lambda: summary(baseline=zero, method=gradient_times_input),
        "component r": lambda: component_correlation(x, y),
        "component t": lambda: component_t_test(x, y).t,
        "Shapley": shapley,
    }
    # What is done once only, such as loading, is in nobody's time.
    igc(y)
    found, seconds = {}, {}
    for name, call in calls.items():
        start = time.process_time()
        found[name] = call()
        seconds[name] = time.process_time() - start
    derived = {
        "IG mean": ("IG, sampled", "mean"),
        "IG mean, zero": ("IG, zero", "mean"),
        "IG SD": ("IG, sampled", "standard_deviation"),
        "gradient × input SD": ("gradient × input", "standard_deviation"),
        "gradient × input covariance": ("gradient × input", "covariance"),
    }
    for name, (source, field) in derived.items():
        found[name], seconds[name] = getattr(found[source], field), seconds[source]
    found["IG variance"], seconds["IG variance"] = found["IG SD"] ** 2, seconds["IG SD"]
    n, size = found["IGC"].shape[:2]
    in_squares = found["IGC"].reshape(n, size // POOL, POOL, size // POOL, POOL).sum((2, 4))
    found["IGC, squares"], seconds["IGC, squares"] = _spread(in_squares), seconds["IGC"]
    return {name: found[name] for name in METHODS}, {name: seconds[name] for name in METHODS}


def _spread(in_squares: np.ndarray) -> np.ndarray:
    """Share out evenly what each square of pixels has."""
    shared: np.ndarray = in_squares.repeat(POOL, -1).repeat(POOL, -2) / POOL**2
    return shared


def scores(maps: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return how much the sizes of maps (n_outputs, size, size) resemble the truth, of that shape.

    Means over outputs.
    """
    return _mean([_score(*both) for both in zip(np.abs(maps), truth, strict=True)])


def _score(sizes: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    sizes, truth = sizes.ravel(), truth.ravel().astype(float)
    counts = truth > COUNTS * truth.max()
    n = int(counts.sum())
    ranks = rankdata(sizes)[counts].sum() - n * (n + 1) / 2
    largest = np.argsort(sizes, kind="stable")[::-1][:n]
    return {
        "overlap": float(np.minimum(sizes / sizes.sum(), truth / truth.sum()).sum()),
        "r": float(np.corrcoef(sizes, truth)[0, 1]),
        "auc": float(ranks / (n * (len(sizes) - n))),
        "dice": float(counts[largest].mean()),
    }


def relative(made: LocalisedStatistics, maps: np.ndarray) -> dict[str, float]:
    """Return mean attributions of regions for the first output, relative to what counts most."""
    means = {name: float(maps[0][region].mean()) for name, region in made.regions.items()}
    largest = max(made.regions, key=lambda name: float(made.truth[0][made.regions[name]].mean()))
    return {name: mean / means[largest] for name, mean in means.items() if name != largest}


def compare(make: Callable[[str, int], Experiment], options: argparse.Namespace) -> dict[str, Any]:
    """Print the tables of all experiments."""
    rows: list[dict[str, Any]] = []
    regions: list[dict[str, Any]] = []
    for kind in options.kinds:
        told, ratios, times, r = _repeat(make, kind, options)
        print(f"{LETTERS[kind]}, {kind}: r of predictions and targets {r:.3f}\n")
        table = []
        for name in METHODS:
            overlaps = [score["overlap"] for score in told[name]]
            table.append(
                {"method": name}
                | _mean(told[name])
                | {"overlap, range": [min(overlaps), max(overlaps)]}
                | {"time / IGC": float(np.median(times[name]))}
            )
        table.sort(key=lambda row: -row["overlap"])
        print_table(table)
        rows += [{"experiment": kind, "r of model": r} | row for row in table]
        if kind != "weighted sum":
            table = [{"method": name} | _mean(ratios[name]) for name in SHOWN]
            print_table(table)
            regions += [{"experiment": kind} | row for row in table]
    return {"rows": rows, "regions": regions}


def _repeat(make: Callable[[str, int], Experiment], kind: str, options: argparse.Namespace) -> Any:
    """Return what each method's map scores, regions' attributions and times, and the model's r."""
    told: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    ratios: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    r = []
    for seed in range(options.seeds):
        experiment = make(kind, seed)
        r.append(experiment.score)
        maps, seconds = attribute(
            experiment,
            n_baselines=options.baselines,
            n_steps=options.steps,
            n_shapley=options.shapley,
            seed=seed,
        )
        for name in METHODS:
            told[name].append(scores(maps[name], experiment.made.truth))
            ratios[name].append(relative(experiment.made, maps[name]))
            times[name].append(seconds[name] / seconds["IGC"])
    return told, ratios, times, float(np.mean(r))


def functions(options: argparse.Namespace) -> dict[str, Any]:
    """Attribute the functions that made the targets."""
    return compare(lambda kind, seed: make_function(kind, options.samples, seed), options)


def models(options: argparse.Namespace) -> dict[str, Any]:
    """Attribute networks that were trained on the targets."""
    how = dict(n_train=options.train, convolutional=options.convolutional)
    return compare(lambda kind, seed: make_trained(kind, options.samples, seed, **how), options)


def players(options: argparse.Namespace) -> dict[str, Any]:
    """Attribute regions by IGC, and by Shapley values of all coalitions of them."""
    rows = []
    for kind in options.kinds:
        made = make_localised_statistics(kind, options.samples)
        data = made.function, made.images, made.targets
        start = time.process_time()
        igc = integrated_gradient_correlation(
            *data, groups=made.regions, max_gradients=GRADIENTS, device="cpu"
        )
        middle = time.process_time()
        shapley = shapley_correlation(*data, groups=made.regions, device="cpu")
        ratio = (time.process_time() - middle) / (middle - start)
        for g, name in enumerate(made.regions):
            rows.append(
                {"experiment": kind, "region": name}
                | {"IGC": float(igc.group_values[0, g])}
                | {"± 1 SE": float(igc.group_standard_errors[0, g])}
                | {"Shapley": float(shapley.group_values[0, g])}
                | {"Shapley ± 1 SE": float(shapley.group_standard_errors[0, g])}
                | {"time / IGC": ratio}
            )
    print_table(rows)
    return {"rows": rows}


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _mean_r(f: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(f[:, v], y[:, v])[0, 1] for v in range(y.shape[1])]))


COMMANDS = {"functions": functions, "models": models, "players": players}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--samples", type=int, default=2000, help="images to attribute")
    parser.add_argument("--train", type=int, default=20_000, help="images to train with")
    parser.add_argument("--convolutional", action="store_true", help="train these networks")
    parser.add_argument("--baselines", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3, help="Gauss-Legendre nodes")
    parser.add_argument("--shapley", type=int, default=500, help="images for Shapley values")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    if options.small:
        options.samples, options.train, options.baselines, options.steps = 60, 300, 4, 2
        options.shapley, options.seeds = 8, 1
    torch.manual_seed(0)
    print_environment()
    write(options.json, options.command, COMMANDS[options.command](options))


if __name__ == "__main__":
    main()
