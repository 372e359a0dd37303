"""Attribution: time, accuracy, honesty of its own errors, growth and memory.

    python tests/benchmarks/bench_attribution.py decoder --cache cache
    python tests/benchmarks/bench_attribution.py accuracy --cache cache
    python tests/benchmarks/bench_attribution.py honesty --cache cache
    python tests/benchmarks/bench_attribution.py scaling
    python tests/benchmarks/bench_attribution.py memory

Each prints tables, and writes them with ``--json PATH``. ``--cache`` keeps trained networks and
converged maps, which take minutes. ``--small`` runs in seconds and means nothing.
Errors of maps are relative L2 distances to the converged map of all pairs of samples.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark_models import ACTIVATIONS, KINDS, Case, make_case, make_decoder
from benchmark_output import (
    NEVER,
    attribute,
    interleave,
    median_and_range,
    print_environment,
    print_table,
    write,
)
from benchmark_resources import measure_memory, measure_scaling
from competitors import (
    PAPER_GRADIENTS,
    captum_loop,
    draw_baselines,
    has_int_grad_corr,
    int_grad_corr,
    paper_errors,
    reference_by_halves,
    reference_by_quadrature,
    relative_errors,
    textbook,
)
from torch import Tensor

from neuroigc._devices import fast_products
from neuroigc.attribution import IGCResult

LADDER = (3, 5, 7, 9, 11, 15, 21, 31, 41, 61)
TEXTBOOK, CAPTUM, INT_GRAD_CORR = (
    f"{name}, 32 x 32" for name in ("textbook", "captum", "int_grad_corr")
)
INVERSE = {"": "", "≤ ": "≥ ", "> ": "< "}
PRODUCTS = "the wide products"
# By the kernels that neuroigc multiplies with, where torch's own choice is slower.
FASTEST = ", fastest kernels"
DEFAULT, EQUAL, HALF = "neuroigc, default options", "neuroigc, same error", "neuroigc, half error"


def decoder(options: argparse.Namespace) -> dict[str, Any]:
    """Time the real size against wide products that cannot be avoided, and other ways."""
    case = make_decoder(small=options.small, cache=options.cache)
    reference, uncertainty = reference_by_halves(case, cache=options.cache)
    paper, gauss = _others_errors(case, reference, options)
    paper, gauss = paper.mean(0), gauss.mean(0)
    print(f"{case.n_samples} samples of {case.inputs[0].numel():,} inputs, rho {_list(case.rho)};")
    print(f"error of the reference {_list(uncertainty)}, of the paper's setting {_list(paper)}\n")

    def run(turn: int, **wanted: Any) -> IGCResult:
        return attribute(case, seed=turn, **wanted)

    calls: dict[str, Callable[[int], Any]] = {PRODUCTS: partial(_wide_products, case), DEFAULT: run}
    half, same = (
        _fewest_gradients(case, reference, share * paper, n_seeds=options.seeds)
        for share in (0.5, 1.0)
    )
    for name, most in ((HALF, half), (EQUAL, None if same == half else same)):
        if most is not None:
            calls[name] = partial(run, max_gradients=most, tolerance=NEVER)
    n = min(options.timed_samples, case.n_samples)
    baselines = draw_baselines(case.n_samples)
    others: dict[str, Callable[[int], Any]] = {
        TEXTBOOK: lambda _: textbook(case, baselines, n_samples=n),
        CAPTUM: lambda _: captum_loop(case, baselines, n_samples=n),
    }
    if has_int_grad_corr():
        others[INT_GRAD_CORR] = lambda _: int_grad_corr(case, n_samples=n)
    calls[PRODUCTS + FASTEST] = _fastest(calls[PRODUCTS])
    others |= {name + FASTEST: _fastest(call) for name, call in others.items()}
    for call in calls.values():
        call(0)  # once before it counts
    seconds, values = interleave({**calls, **others}, options.repeats)

    rows = []
    for name, times in seconds.items():
        scale = case.n_samples / n if name in others else 1.0
        row = {"name": name} | median_and_range([time * scale for time in times])
        row |= {"gradients": None, "errors": None, "reported": None, "note": ""}
        if name in others:
            known = {TEXTBOOK: paper.tolist(), CAPTUM: gauss.tolist()}
            known |= {name + FASTEST: errors for name, errors in known.items()}
            row |= {"gradients": PAPER_GRADIENTS, "errors": known.get(name)}
            row["note"] = f"timed on {n} of {case.n_samples:,} samples, scaled"
        elif not name.startswith(PRODUCTS):
            row["gradients"] = values[name][0].n_gradients
            row["errors"] = _rms([_errors(result, reference) for result in values[name]]).tolist()
            reported = [torch.from_numpy(result.numerical_error) for result in values[name]]
            row["reported"] = _rms(reported).tolist()
        rows.append(row)
    at = {row["name"]: row["seconds"] for row in rows}
    for row in rows:
        row["over_products"] = row["seconds"] / at[PRODUCTS]
        row["over_neuroigc"] = row["seconds"] / at[DEFAULT]
    if not has_int_grad_corr():
        nothing = dict.fromkeys(rows[0])
        rows.append({**nothing, "name": INT_GRAD_CORR, "note": "not installed"})
    print_table(
        [
            {
                "": row["name"],
                "seconds": row["seconds"],
                "fastest": row["fastest"],
                "slowest": row["slowest"],
                "/ wide products": row["over_products"],
                "/ neuroigc's default": row["over_neuroigc"],
                "gradients": row["gradients"],
                "errors": row["errors"],
                "reported errors": row["reported"],
                "note": row["note"],
            }
            for row in rows
        ]
    )
    return {
        "rho": case.rho,
        "reference_error": uncertainty.tolist(),
        "paper_error": paper.tolist(),
        "gauss_error": gauss.tolist(),
        "rows": rows,
    }


def _fastest(call: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return a call that multiplies as neuroigc does."""

    def faster(turn: int) -> Any:
        with fast_products(torch.device("cpu")):
            return call(turn)

    return faster


def _wide_products(case: Case, turn: int) -> None:
    """Multiply all samples by the first layer, and its transpose by a gradient per output."""
    weight = case.stem[0].weight
    hidden = case.inputs @ weight.T
    for _ in range(case.n_outputs):
        hidden @ weight


def _fewest_gradients(case: Case, reference: Tensor, wanted: Tensor, *, n_seeds: int) -> int | None:
    """Return the first of the ladder at which no output's error is above what is wanted."""
    for most in LADDER:
        if (_ladder_errors(case, reference, most, n_seeds)[1] <= wanted).all():
            return most
    return None


def accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Find how many gradients reach the error of 32 baselines x 32 steps."""
    rows = []
    for case in _cases(options):
        reference, uncertainty = reference_by_quadrature(case, cache=options.cache)
        paper, gauss = (
            float((error**2).mean(1).sqrt().mean())
            for error in _others_errors(case, reference, options)
        )
        taken, errors = [], []
        for most in LADDER:
            n_gradients, error = _ladder_errors(case, reference, most, options.seeds)
            taken.append(n_gradients)
            errors.append(float((error**2).mean().sqrt()))
        same, bound = crossing(taken, errors, paper)
        same_as_gauss, gauss_bound = crossing(taken, errors, gauss)
        rows.append(
            {
                "model": case.name,
                "rho": case.rho,
                "reference_error": float((uncertainty**2).mean().sqrt()),
                "paper_error": paper,
                "gauss_error": gauss,
                "gradients": taken,
                "errors": errors,
                "gradients_at_paper_error": same,
                "bound": bound,
                "times_fewer": PAPER_GRADIENTS / same,
                "gradients_at_gauss_error": same_as_gauss,
                "gauss_bound": gauss_bound,
                "times_fewer_than_gauss": PAPER_GRADIENTS / same_as_gauss,
            }
        )
    taken = ", ".join(str(n) for n in rows[0]["gradients"])
    print("Errors, root mean square over outputs. neuroigc: columns are max_gradients, of which")
    print(f"{taken} were taken per sample; root mean square over {options.seeds} seeds.")
    print("32 x 32: random baselines x steps of the paper's Riemann sum, 1024 gradients; GL: by")
    print(f"Gauss-Legendre nodes instead; means over {options.paper_seeds} seeds.\n")
    print_table(
        [
            {
                "": row["model"],
                "rho": row["rho"],
                "reference's own": row["reference_error"],
                "32 x 32": row["paper_error"],
                "GL": row["gauss_error"],
                **dict(zip((f"{most}" for most in LADDER), row["errors"], strict=True)),
                "gradients for 32 x 32's": row["bound"] + f"{row['gradients_at_paper_error']:.1f}",
                "1024 / that": INVERSE[row["bound"]] + f"{row['times_fewer']:.0f}",
                "for GL's": row["gauss_bound"] + f"{row['gradients_at_gauss_error']:.1f}",
                "1024 / it": INVERSE[row["gauss_bound"]] + f"{row['times_fewer_than_gauss']:.0f}",
            }
            for row in rows
        ]
    )
    return {"rows": rows}


def crossing(gradients: Sequence[int], errors: Sequence[float], wanted: float) -> tuple[float, str]:
    """Return where errors fall to what is wanted, between points of a double logarithmic plot.

    Beside it stands "≤ " or "> " where all errors are below or above.
    """
    below = [error <= wanted for error in errors]
    if not any(below):
        return float(gradients[-1]), "> "
    k = below.index(True)
    if k == 0:
        return float(gradients[0]), "≤ "
    share = math.log(errors[k - 1] / wanted) / math.log(errors[k - 1] / errors[k])
    return gradients[k - 1] * (gradients[k] / gradients[k - 1]) ** share, ""


def honesty(options: argparse.Namespace) -> dict[str, Any]:
    """Divide the errors that were made by those that were reported."""
    rows = []
    for case in _cases(options):
        reference, uncertainty = reference_by_quadrature(case, cache=options.cache)
        for most in options.max_gradients:
            made, told = [], []
            for seed in range(options.seeds):
                result = attribute(case, seed=seed, max_gradients=most, tolerance=NEVER)
                made.append(_errors(result, reference))
                told.append(torch.from_numpy(result.numerical_error))
            ratios = torch.stack(made) / torch.stack(told)
            rows.append(
                {
                    "model": case.name,
                    "gradients": result.n_gradients,
                    "reference_error": float((uncertainty**2).mean().sqrt()),
                    "made": float(_rms(made).square().mean().sqrt()),
                    "reported": float(_rms(told).square().mean().sqrt()),
                    "mean_ratio": float(ratios.mean()),
                    "sd_ratio": float(ratios.std()),
                    "mean_ratio_by_output": ratios.mean(0).tolist(),
                }
            )
    print(f"error made / error reported, over {options.seeds} seeds and the outputs\n")
    print_table(
        [
            {
                "": row["model"],
                "gradients": row["gradients"],
                "error made": row["made"],
                "reported": row["reported"],
                "mean ratio": row["mean_ratio"],
                "its deviation": row["sd_ratio"],
                "by output": row["mean_ratio_by_output"],
            }
            for row in rows
        ]
    )
    return {"rows": rows}


def scaling(options: argparse.Namespace) -> dict[str, Any]:
    """Time calls as the problem grows."""
    results = measure_scaling(
        max_gradients=options.max_gradients, n_repeats=options.repeats, small=options.small
    )
    print_table(results["rows"])
    print("time grows with the power, by least squares")
    print_table([{"of": axis, "power": power} for axis, power in results["exponents"].items()])
    return results


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the anonymous memory that calls take on top of their inputs."""
    results = measure_memory(
        max_gradients=options.max_gradients, small=options.small, folder=options.folder
    )
    print_table(results["rows"])
    print(f"peak of the second / peak of the first: {results['ratio']:.2f}")
    return results


def _cases(options: argparse.Namespace) -> list[Case]:
    wanted = [(kind, activation) for kind in options.models for activation in ACTIVATIONS]
    return [make_case(*one, small=options.small, cache=options.cache) for one in wanted]


def _others_errors(
    case: Case, reference: Tensor, options: argparse.Namespace
) -> tuple[Tensor, Tensor]:
    """Return errors (n_seeds, n_outputs) of 32 x 32, by the paper's rule and by Gauss-Legendre."""
    wanted = {"n_seeds": options.paper_seeds, "cache": options.cache}
    by_paper, by_gauss = (
        paper_errors(case, reference, by_gauss=rule, **wanted) for rule in (False, True)
    )
    return by_paper, by_gauss


def _ladder_errors(case: Case, reference: Tensor, most: int, n_seeds: int) -> tuple[int, Tensor]:
    """Return gradients taken, and errors by output, root mean square over seeds."""
    results = [
        attribute(case, seed=seed, max_gradients=most, tolerance=NEVER) for seed in range(n_seeds)
    ]
    return results[0].n_gradients, _rms([_errors(result, reference) for result in results])


def _errors(result: IGCResult, reference: Tensor) -> Tensor:
    return relative_errors(torch.from_numpy(result.attributions).double(), reference)


def _rms(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).square().mean(0).sqrt()


def _list(values: Sequence[float] | Tensor) -> str:
    return " / ".join(f"{float(value):.3g}" for value in values)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Benchmarks of attribution.")
    commands = parser.add_subparsers(dest="command", required=True)
    for run in (decoder, accuracy, honesty, scaling, memory):
        sub = commands.add_parser(run.__name__, help=run.__doc__)
        sub.set_defaults(run=run)
        sub.add_argument("--json", type=Path, help="write what was measured to this file")
        sub.add_argument("--small", action="store_true", help="a tiny size, to see it work")
        if run in (decoder, accuracy, honesty):
            sub.add_argument("--cache", type=Path, help="folder of networks and converged maps")
            n_seeds = {decoder: 3, accuracy: 8, honesty: 20}[run]
            sub.add_argument("--seeds", type=int, default=n_seeds, help="of neuroigc")
        if run in (accuracy, honesty):
            sub.add_argument("--models", nargs="+", choices=KINDS, default=KINDS)
        if run in (decoder, accuracy):
            sub.add_argument("--paper-seeds", type=int, default=2, help="of 32 x 32")
        if run in (decoder, scaling):
            sub.add_argument("--repeats", type=int, default=5, help="of every timing")
        if run in (scaling, memory):
            sub.add_argument("--max-gradients", type=int, default=11)
    commands.choices["decoder"].add_argument("--timed-samples", type=int, default=4)
    commands.choices["honesty"].add_argument("--max-gradients", type=int, nargs="+", default=[15])
    commands.choices["memory"].add_argument("--folder", type=Path, help="for 1.6 GB of inputs")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark."""
    options = make_parser().parse_args(arguments)
    print_environment()
    results = options.run(options)
    write(options.json, options.command, results)


if __name__ == "__main__":
    main()
