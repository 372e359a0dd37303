"""Whether the statistics keep what they promise, and how long they take.

    python tests/benchmarks/bench_stats.py areas
    python tests/benchmarks/bench_stats.py maps
    python tests/benchmarks/bench_stats.py group
    python tests/benchmarks/bench_stats.py intervals
    python tests/benchmarks/bench_stats.py spins
    python tests/benchmarks/bench_stats.py planted
    python tests/benchmarks/bench_stats.py sanity
    python tests/benchmarks/bench_stats.py ridge
    python tests/benchmarks/bench_stats.py speed --whole

Each prints a table, and writes it with ``--json PATH``. ``--small`` runs in seconds and means
nothing; without ``--whole`` the large spheres are timed with a twentieth of the rotations, and
large maps are left out. Of D data sets, a share s has a standard error of sqrt(s (1 - s) / D):
0.005 for a rejection rate of 0.05 and 2,000, 0.011 for a coverage of 0.95 and 400.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_calibration
import numpy as np
import pandas as pd
from benchmark_output import print_environment, print_table, write
from scipy import stats
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from neuroigc.attribution import (
    contrast_groups,
    group_difference,
    integrated_gradient_correlation,
    output_difference,
)
from neuroigc.cli.results import area_groups
from neuroigc.cli.statistics import cortex_mesh, map_p_values
from neuroigc.cli.study_data import decoding_samples
from neuroigc.models import NeuralDecoder
from neuroigc.stats import (
    cluster_test,
    correlation_interval,
    correlation_scores,
    max_statistic_p_values,
    mesh_edges,
    mirror_of_spheres,
    replication,
    ridge_baseline,
    sign_flip_maps,
    sign_flip_test,
    spin_test,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from meshes import icosphere, smooth_maps
from planted_study import AREA, largest_areas, read_areas, run_planted

ALPHA = 0.05
MAP_TESTS, LIGHTS = ("largest", "tfce", "mass"), ("green", "amber", "red")
MIRROR = np.array([-1.0, 1.0, 1.0])


def areas(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often areas are found within a subject although there is nothing."""
    options.scenarios, options.permutations = ["paired"], 199
    return bench_calibration.null(options)


def maps(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often anything is found in maps where there is nothing."""
    v, f = icosphere(2)
    edges, rng = mesh_edges(f), np.random.default_rng(1)
    rows = []
    for kind in ("permutations", "flipped signs"):
        found: dict[str, list[float]] = {}
        for _ in range(options.datasets):
            if kind == "permutations":
                null = smooth_maps(rng, v, 40, n_waves=40, frequency=4)
            else:
                null = sign_flip_maps(smooth_maps(rng, v, 6, n_waves=40, frequency=4))
            given = dict(standardise=kind == "permutations", n_steps=12)
            scale = np.sqrt((null**2).mean(0)) if kind == "permutations" else 1
            found.setdefault("largest", []).append(max_statistic_p_values(null / scale).min())
            for statistic, threshold in (("tfce", 1.0), ("mass", 1.5), ("area", 1.5)):
                test = cluster_test(null, edges, statistic=statistic, threshold=threshold, **given)
                found.setdefault(statistic, []).append(test.p_values.min())
        # p-values come in steps, so that 0.05 can be met exactly where 40 maps are compared, and
        # two of 64 patterns at most.
        alpha = ALPHA if kind == "permutations" else 2 / 64
        row = {"maps": kind, "vertices": len(v), "promised": alpha}
        rows.append(row | {k: float(np.mean(np.array(p) <= alpha)) for k, p in found.items()})
    print_table(rows)
    return {"rows": rows}


def group(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often eight subjects are found to have what they do not have."""
    rng, n, rows = np.random.default_rng(2), options.datasets, []
    shape = (8, n)
    draws = {
        "normal": rng.standard_normal(shape),
        "normal, of eight scales": rng.standard_normal(shape) * np.arange(1, 9)[:, None],
        "cauchy": rng.standard_cauchy(shape),
        "two values": rng.choice([-1.0, 1.0], shape) * np.arange(1, 9)[:, None] ** 0.5,
    }
    for name, values in draws.items():
        p, row = sign_flip_test(values).p_values, {"values": name}
        for alpha in (2 / 256, 12 / 256, 128 / 256):
            row[f"p ≤ {alpha:.4f}"] = float(np.mean(p <= alpha))
        row["t ≤ 0.05"] = float(np.mean(stats.ttest_1samp(values, 0).pvalue <= ALPHA))
        rows.append(row)
    print_table(rows)
    bounds = []
    for prevalence in (0.0, 0.25, 0.5, 0.75, 1.0):
        p = rng.uniform(size=shape)
        p[rng.uniform(size=shape) < prevalence] *= 1e-4
        found = replication(p)
        row = {"prevalence": prevalence, "mean k of 8": float(found.n_significant.mean())}
        row["p ≤ 0.05"] = float(np.mean(found.p_values <= ALPHA))
        for name in ("prevalence_low", "prevalence_low_all"):
            low = getattr(found, name)
            row |= {f"{name} above": float(np.mean(low > prevalence))}
            row[f"mean {name}"] = float(low.mean())
        bounds.append(row)
    print_table(bounds)
    return {"rows": rows, "bounds": bounds}


def intervals(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often 95 % intervals of scores and of contrasts contain the population's value."""
    rows = _scores(options)
    print_table(rows)
    contrasts = _contrasts(options)
    print_table(contrasts)
    return {"rows": rows, "contrasts": contrasts}


def _scores(options):
    """Return the coverage of r and R2, for 0.6 f as the best prediction."""
    rng, n_sets, rows = np.random.default_rng(3), 5 * options.datasets, []
    for n in (50, 200):
        for name in ("normal", "skewed", "heavy tails"):
            shape = (n, n_sets)
            f, noise = rng.standard_normal(shape), rng.standard_normal(shape)
            if name == "skewed":
                f, noise = rng.exponential(1, shape) - 1, rng.exponential(1, shape) - 1
            scale = np.sqrt(2 / rng.gamma(3, 1, shape)) if name == "heavy tails" else 1
            y = scale * (0.6 * f + 0.8 * noise)
            found = correlation_scores(0.6 * scale * f, y)
            ends = {
                "r": (found.r_interval, 0.6),
                "R2": (found.r2_interval, 0.36),
                "r, Fisher": (correlation_interval(found.r, n), 0.6),
            }
            shares = {
                key: float(np.mean((low_high[:, 0] <= truth) & (truth <= low_high[:, 1])))
                for key, (low_high, truth) in ends.items()
            }
            rows.append({"samples": n, "distribution": name, **shares})
    return rows


def _contrasts(options):
    """Return the coverage of differences between groups and between outputs."""
    model = bench_calibration.make_model()

    def draw(rng, n, distribution):
        x = bench_calibration.make_inputs(rng, n, distribution)
        f = bench_calibration.predict(model, x)
        return x, np.tanh(f) + 0.5 * rng.standard_normal(f.shape) + 0.3 * x[:, :1]

    def differences(result):
        weights = [
            group_difference(result, "one", "three"),
            group_difference(result, "four", ["one", "three"]),
            output_difference(result, 0, 1),
        ]
        return contrast_groups(result, np.concatenate(weights)), weights

    rows = []
    for distribution in bench_calibration.DISTRIBUTIONS:
        x, y = draw(np.random.default_rng(1), options.population, distribution)
        result = bench_calibration.attribute(model, x, y, max_gradients=12)
        truth, weights = differences(result)
        ends = np.cumsum([len(weight) for weight in weights])[:-1]
        hits = []
        for seed in range(options.datasets):
            x, y = draw(np.random.default_rng([seed, 13]), 100, distribution)
            result = bench_calibration.attribute(model, x, y, max_gradients=9, seed=seed)
            found, _ = differences(result)
            low, high = found.intervals.T
            hits.append((low <= truth.values) & (truth.values <= high))
        shares = np.mean(hits, 0)
        names = ("one - three", "four - one - three", "output 0 - 1")
        parts = np.split(shares, ends)
        row = {"inputs": distribution, "n": 100, "coverage": float(shares.mean())}
        row |= {"lowest": float(shares.min()), "highest": float(shares.max())}
        rows.append(row | {k: float(p.mean()) for k, p in zip(names, parts, strict=True)})
    return rows


def spins(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often smooth maps that have nothing in common are found to be alike."""
    rows = []
    for n_divisions, frequency, turn, mirrored in (
        (3, 2.5, 0, "plainly"),
        (4, 5.0, 0, "plainly"),
        (3, 5.0, 15, "plainly"),
        (3, 5.0, 15, "as they lie"),
    ):
        v = icosphere(n_divisions)[0]
        # Hemispheres are alike, as those of brains, and their spheres turned, as fsaverage's.
        both = np.concatenate([v, v])
        turned = Rotation.from_euler("z", turn, degrees=True).as_matrix()
        spheres = {"left": v, "right": v * MIRROR @ turned.T}
        surfaces = {"left": v * [1, 2, 1], "right": v * MIRROR * [1, 2, 1]}
        mirror = np.diag(MIRROR)
        if mirrored == "as they lie":
            mirror = mirror_of_spheres(spheres, surfaces)
        wall = both[:, 2] < -0.85
        rng, p, naive = np.random.default_rng(4), [], []
        for seed in range(options.datasets):
            x, y = smooth_maps(rng, both, 2, n_waves=100, frequency=frequency)
            x[wall] = y[wall] = np.nan
            found = spin_test(
                x, y, spheres, n_rotations=options.rotations, mirror=mirror, seed=seed
            )
            p.append(found.p_values[0])
            naive.append(stats.pearsonr(x[~wall], y[~wall]).pvalue)
        row = {"vertices": len(both), "frequency": frequency, "turned by": turn}
        row |= {"mirrored": mirrored, "medial wall": float(wall.mean())}
        row |= {f"p ≤ {a}": float(np.mean(np.array(p) <= a)) for a in (0.01, 0.05, 0.25, 0.5)}
        row["uniform, p of Kolmogorov"] = float(stats.kstest(p, "uniform").pvalue)
        rows.append(row | {"naive p ≤ 0.05": float(np.mean(np.array(naive) <= ALPHA))})
    print_table(rows)
    return {"rows": rows}


def planted(options: argparse.Namespace) -> dict[str, Any]:
    """Tell how often a feature that one area alone carries is found there, and elsewhere."""
    rows = []
    for seed in range(options.datasets):
        with tempfile.TemporaryDirectory() as folder:
            study = run_planted(Path(folder), seed=seed, small=options.small)
            table = read_areas(study)
            largest = {name: largest_areas(table, name) for name in study.config.decoding.features}
            own = table[(table["output"] == "planted") & (table["n_vertices"] > 0)]
            for s, subject in enumerate(study.config.data.subjects):
                areas = own[own["subject"] == subject]
                found = areas[areas["p_fwe"] <= ALPHA]
                elsewhere = areas[areas["roi"] != AREA]
                row = {
                    "seed": seed,
                    "subject": subject,
                    "hemispheres": int((found["roi"] == AREA).sum()),
                    "other areas": int((found["roi"] != AREA).sum()),
                    "igc": float(areas.loc[areas["roi"] == AREA, "igc"].sum()),
                    "others' largest |igc|": float(elsewhere["igc"].abs().max()),
                    "others' smallest p": float(elsewhere["p_fwe"].min()),
                    "contrast is V1's": bool(largest["luminance_contrast"][s] == "V1"),
                    "slope is places'": bool(largest["one_over_f_slope"][s] == "places"),
                }
                rows.append(row | _planted_vertices(study, subject))
    seen = {name: [row[name] for row in rows] for name in rows[0]}
    summary = [
        {
            "subjects": len(rows),
            "both hemispheres": float(np.mean(np.array(seen["hemispheres"]) == 2)),
            "any other area": float(np.mean(np.array(seen["other areas"]) > 0)),
            "igc": float(np.mean(seen["igc"])),
            "others' largest |igc|": float(np.max(seen["others' largest |igc|"])),
            "contrast is V1's": float(np.mean(seen["contrast is V1's"])),
            "slope is places'": float(np.mean(seen["slope is places'"])),
        }
    ]
    vertices = [
        {
            "test": test,
            "share of the area's vertices": float(np.mean(seen[f"{test}, inside"])),
            "any other": float(np.mean(np.array(seen[f"{test}, outside"]) > 0)),
            "any not beside it": float(np.mean(np.array(seen[f"{test}, apart"]) > 0)),
            "mean number of others": float(np.mean(seen[f"{test}, outside"])),
        }
        for test in MAP_TESTS
    ]
    print_table(summary)
    print_table(vertices)
    return {"rows": summary, "vertices": vertices, "subjects": rows}


def _planted_vertices(study, subject):
    """Return how many vertices single tests and those with neighbours find, in and out."""
    decoder = NeuralDecoder.load(study.model("decoder"))
    samples = decoding_samples(study, held_out=True, subject=subject)
    result = integrated_gradient_correlation(
        decoder.module_,
        samples.responses,
        samples.features,
        conditions=samples.conditions,
        outputs=[2],
        n_permutations=199,
        keep_null=True,
        tolerance=0.1,
        max_gradients=33,
        seed=study.config.seed,
    )
    groups = area_groups(study, subject, samples.vertices)
    inside = np.concatenate([groups[f"{side} {AREA}"] for side in ("left", "right")])
    near = _beside(inside, samples.vertices)
    row = {}
    space = study.config.data.space
    tested = map_p_values(result, MAP_TESTS, samples.vertices, space, progress=False)
    for test, p_values in tested.items():
        found = np.flatnonzero(p_values[0] <= ALPHA)
        outside = np.setdiff1d(found, inside)
        row |= {
            f"{test}, inside": float(np.isin(inside, found).mean()),
            f"{test}, outside": len(outside),
            f"{test}, apart": len(np.setdiff1d(outside, near)),
        }
    return row


def _beside(inside, vertices):
    """Return the columns within two edges of those of an area."""
    _, triangles = cortex_mesh("fsaverage5")
    n_left = int(triangles.max() + 1) // 2
    columns = np.concatenate([vertices["left"], vertices["right"] + n_left])
    edges = mesh_edges(triangles, vertices=columns)
    for _ in range(2):
        inside = np.unique(np.r_[inside, edges[np.isin(edges, inside).any(1)].ravel()])
    return inside


def sanity(options: argparse.Namespace) -> dict[str, Any]:
    """Count the lights of the sanity checks of planted studies, and what they are made of."""
    tables = []
    for seed in range(options.datasets):
        with tempfile.TemporaryDirectory() as folder:
            study = run_planted(Path(folder), seed=seed, small=options.small, sanity=True)
            tables.append(pd.read_csv(study.path / "sanity.tsv", sep="\t"))
    whole = pd.concat(tables)
    rows = []
    for check, own in whole.groupby("check", sort=False):
        lights = {light: float((own["light"] == light).mean()) for light in LIGHTS}
        values = own["value"].quantile([0, 0.5, 1])
        row = {"check": check, "maps": len(own), **lights}
        row |= dict(zip(("lowest", "median", "highest"), values, strict=True))
        rows.append(
            row | {"chance, median": f"{own['low'].median():.3f} to {own['high'].median():.3f}"}
        )
    print_table(rows)
    return {"rows": rows}


def ridge(options: argparse.Namespace) -> dict[str, Any]:
    """Time ridge regression at the size of NSD, beside its products alone, and its memory."""
    n, n_features = (60, 300) if options.small else (9000, 39_548)
    rng = np.random.default_rng(6)
    x = rng.standard_normal((n + n // 9, n_features), dtype=np.float32)
    y = x[:, :2] + rng.standard_normal((len(x), 2))
    before = _peak_gib()
    wall, processor = _timed(lambda: ridge_baseline(x[:n], y[:n], x[n:], y[n:]))
    peak = _peak_gib()

    def products():
        step = 4096
        for start in range(0, n_features, step):
            part = x[:, start : start + step]
            part @ part[:n].T

    _, plain = _timed(products)
    row = {"samples": n, "features": n_features, "seconds": wall, "seconds of a core": processor}
    row |= {"over its products": processor / plain, "inputs, GiB": x.nbytes / 2**30}
    rows = [row | {"peak GiB before": before, "peak GiB": peak}]
    print_table(rows)
    return {"rows": rows}


def _peak_gib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Time rotations, clusters and ridge regression."""
    rng, rows = np.random.default_rng(5), []
    share = 1 if options.whole else 20
    for n_divisions, n in ((5, options.rotations), (7, max(options.rotations // share, 1))):
        n_divisions -= 3 if options.small else 0
        v = icosphere(n_divisions)[0]
        spheres = {"left": v, "right": v * MIRROR}
        x, y = rng.standard_normal((2, 2 * len(v)))
        x[: len(v) // 12] = y[: len(v) // 12] = np.nan
        seconds, processor = _timed(
            lambda x=x, y=y, spheres=spheres, n=n: spin_test(
                x, y, spheres, n_rotations=n, n_threads=options.threads
            )
        )
        tree = cKDTree(v)
        turned = v @ Rotation.random(rng=0).as_matrix()
        _, search = _timed(lambda tree=tree, turned=turned: tree.query(turned))
        row = _row(f"spins, 2 x {len(v):,}, {options.threads} threads", n, seconds, processor)
        # A search of the vertices in their own order is what takes most of a rotation.
        rows.append(row | {"over searches": processor / (2 * n * search)})
    v, f = icosphere(2 if options.small else 5)
    edges = mesh_edges(np.concatenate([f, f + len(v)]))
    n = options.rotations // 50
    null = np.concatenate([smooth_maps(rng, v, n, n_waves=60, frequency=8) for _ in range(2)], 1)
    for statistic in ("tfce", "mass"):
        seconds, processor = _timed(
            lambda statistic=statistic: cluster_test(null, edges, statistic=statistic)
        )
        rows.append(_row(f"{statistic}, 2 x {len(v):,}", n, seconds, processor))
    n_train, n_features = (60, 300) if options.small else (1500, 39_548)
    x = rng.standard_normal((n_train + 100, n_features), dtype=np.float32)
    y = x[:, :2] + rng.standard_normal((len(x), 2))
    seconds, processor = _timed(
        lambda: ridge_baseline(x[:n_train], y[:n_train], x[n_train:], y[n_train:])
    )
    rows.append(_row(f"ridge, {n_train:,} x {n_features:,}, 5 folds", 1, seconds, processor))
    if options.whole:
        rows += _large_maps(options, rng)
    print_table(rows)
    return {"rows": rows}


def _large_maps(options, rng):
    """Time the tests of one output's maps at the vertices of NSD's nsdgeneral, on fsaverage."""
    v, f = icosphere(3 if options.small else 7)
    # A cap of each sphere of as many vertices.
    n_inside = 60 if options.small else 19_774
    inside = np.sort(np.argsort(-v[:, 0])[:n_inside])
    both = np.concatenate([inside, inside + len(v)])
    edges = mesh_edges(np.concatenate([f, f + len(v)]), vertices=both)
    n = 20
    null = smooth_maps(rng, np.concatenate([v[inside]] * 2), n, n_waves=40, frequency=8)
    rows = []
    for statistic in ("tfce", "mass"):
        seconds, processor = _timed(
            lambda statistic=statistic: cluster_test(null, edges, statistic=statistic)
        )
        name = f"{statistic}, {len(both):,} of 2 x {len(v):,}"
        rows.append(_row(name, n, seconds, processor))
    return rows


def _timed(call):
    start, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - processor


def _row(name, n, seconds, processor):
    row = {"what": name, "times": n, "seconds": seconds, "seconds of a core": processor}
    row |= {"of a core, for 1,000": 1000 * processor / n if n > 1 else None}
    return row | {"over searches": None}


# Data sets that are whole studies.
STUDIES = (planted, sanity)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for run, n_datasets in (
        (areas, 2000), (maps, 1000), (group, 20_000), (intervals, 400), (spins, 400), (planted, 30),
        (sanity, 5), (ridge, 1), (speed, 1),
    ):  # fmt: skip
        command = commands.add_parser(run.__name__, help=str(run.__doc__).replace("%", "%%"))
        command.set_defaults(run=run)
        command.add_argument("--datasets", type=int, default=n_datasets)
        command.add_argument("--rotations", type=int, default=1000 if run is speed else 199)
        command.add_argument("--population", type=int, default=60_000)
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--whole", action="store_true", help="of speed: all at full size")
        command.add_argument("--json", type=Path)
        command.add_argument("--small", action="store_true", help="a test that it runs")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark."""
    options = make_parser().parse_args(arguments)
    if options.small:
        options.datasets, options.population = 1 if options.run in STUDIES else 3, 500
        options.rotations = 100 if options.run is speed else 9
    print_environment()
    write(options.json, options.command, options.run(options))


if __name__ == "__main__":
    main()
