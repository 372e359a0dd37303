"""The benchmarks of attribution run, at a tiny size, and compare with what they say."""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_attribution
import bench_calibration
import bench_prepare
import bench_prf
import bench_stats
import bench_training
import benchmark_models
import competitors

TABLES = {
    "decoder": (["--seeds", "1", "--repeats", "2", "--paper-seeds", "1"], "errors"),
    "accuracy": (["--seeds", "1", "--paper-seeds", "1", "--models", "MLP", "CNN"], "times_fewer"),
    "honesty": (["--seeds", "2", "--models", "residual"], "mean_ratio"),
    "scaling": (["--repeats", "1"], "seconds"),
    "memory": ([], "peak_mib"),
}


@pytest.fixture(scope="module")
def tiny_case():
    return benchmark_models.make_case("CNN", "Mish", small=True)


@pytest.mark.parametrize("command", TABLES)
def test_a_benchmark_prints_tables_and_writes_json(command, tmp_path, capsys):
    options, field = TABLES[command]
    path = tmp_path / "measured.json"
    bench_attribution.main([command, "--small", "--json", str(path), *options])
    printed, measured = capsys.readouterr().out, json.loads(path.read_text(encoding="utf-8"))
    assert f"torch {torch.__version__}" in printed
    assert f"{torch.get_num_threads()} thread(s)" in printed
    assert "| --" in printed
    assert measured["command"] == command
    assert measured["threads"] == torch.get_num_threads()
    assert all(field in row for row in measured["rows"])


def test_the_decoder_is_set_beside_all_competitors(tmp_path, capsys):
    path = tmp_path / "measured.json"
    options = ["--small", "--seeds", "1", "--repeats", "1", "--paper-seeds", "1"]
    bench_attribution.main(["decoder", "--json", str(path), *options])
    assert "timed on 4 of 24 samples, scaled" in capsys.readouterr().out
    measured = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in measured["rows"]}
    for name, errors in (("textbook", "paper_error"), ("captum", "gauss_error")):
        name = f"{name}, 32 x 32"
        assert rows[name]["errors"] == measured[errors]
        assert rows[name]["over_products"] > 0
    assert rows["the wide products"]["over_products"] == 1
    assert rows["neuroigc, default options"]["over_neuroigc"] == 1
    if not competitors.has_int_grad_corr():
        assert rows["int_grad_corr, 32 x 32"]["note"] == "not installed"


@pytest.mark.parametrize("kind", benchmark_models.KINDS)
def test_the_papers_setting_behind_the_stem_is_the_textbook(kind):
    case = benchmark_models.make_case(kind, "ReLU", small=True)
    baselines = competitors.draw_baselines(case.n_samples, n_baselines=4, seed=3)
    plain = competitors.textbook(case, baselines, n_steps=5)
    behind = competitors.behind_the_stem(case, baselines, competitors.right_riemann(5))
    assert competitors.relative_errors(behind, plain).max() < 1e-5


def test_32_gauss_legendre_nodes_behind_the_stem_are_those_of_captum(tiny_case):
    pytest.importorskip("captum")
    n = tiny_case.n_samples
    baselines = competitors.draw_baselines(n, n_baselines=2)
    loop = competitors.captum_loop(tiny_case, baselines, n_samples=n)
    behind = competitors.behind_the_stem(tiny_case, baselines, competitors.gauss_legendre(32))
    assert competitors.relative_errors(behind, loop).max() < 1e-5


def test_all_pairs_are_the_textbook_with_all_baselines_and_many_steps(tiny_case):
    everyone = torch.arange(tiny_case.n_samples).expand(tiny_case.n_samples, -1)
    plain = competitors.textbook(tiny_case, everyone, n_steps=64)
    converged, error = competitors.reference_by_quadrature(tiny_case)
    assert error.max() < 1e-3
    assert competitors.relative_errors(plain, converged).max() < 0.01
    gap = converged.flatten(1).sum(1) - torch.tensor(tiny_case.rho)
    assert gap.abs().max() < 1e-4


def test_two_ways_to_a_converged_map_agree_within_the_error_that_is_told(tiny_case):
    one, _ = competitors.reference_by_quadrature(tiny_case)
    other, error = competitors.reference_by_halves(tiny_case, n_points=8)
    assert (competitors.relative_errors(other, one) < 3 * error).all()


def test_what_is_cached_is_not_computed_again(tiny_case, tmp_path, monkeypatch):
    first = competitors.paper_errors(tiny_case, torch.ones(2, 1, 12, 12), n_seeds=1, cache=tmp_path)
    monkeypatch.setattr(competitors, "behind_the_stem", None)
    again = competitors.paper_errors(tiny_case, torch.ones(2, 1, 12, 12), n_seeds=1, cache=tmp_path)
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.2, 0.1, 0.05], (np.sqrt(200), "")),
        ([0.04, 0.02, 0.01], (10.0, "≤ ")),
        ([0.8, 0.4, 0.2], (40.0, "> ")),
    ],
)
def test_gradients_are_interpolated_on_logarithmic_axes(errors, expected):
    wanted = 0.2 / np.sqrt(2)
    at, bound = bench_attribution.crossing([10, 20, 40], errors, wanted)
    assert (pytest.approx(at), bound) == expected


@pytest.mark.parametrize(
    ("command", "field"),
    [("coverage", "coverage"), ("null", "any component"), ("power", "any group")],
)
def test_calibration_prints_a_table_and_writes_json(command, field, tmp_path, capsys):
    path = tmp_path / "measured.json"
    bench_calibration.main([command, "--small", "--json", str(path)])
    assert f"| {field}" in capsys.readouterr().out
    measured = json.loads(path.read_text(encoding="utf-8"))
    assert measured["command"] == command
    assert all(0 <= row[field] <= 1 for row in measured["rows"])


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ("areas", "any component"),
        ("maps", "tfce"),
        ("group", "p ≤ 0.5000"),
        ("intervals", "R2"),
        ("spins", "naive p ≤ 0.05"),
        pytest.param("planted", "any other area", marks=pytest.mark.slow),
        pytest.param("sanity", "green", marks=pytest.mark.slow),
        ("ridge", "over its products"),
        ("speed", "seconds"),
    ],
)
def test_statistics_print_tables_and_write_json(command, field, tmp_path, capsys):
    path = tmp_path / "measured.json"
    bench_stats.main([command, "--small", "--whole", "--json", str(path)])
    assert f"| {field}" in capsys.readouterr().out
    measured = json.loads(path.read_text(encoding="utf-8"))
    assert measured["command"] == command
    assert all(row[field] >= 0 for row in measured["rows"])


def test_all_vertices_in_one_pass_are_timed(tmp_path, capsys):
    pytest.importorskip("captum")
    path = tmp_path / "measured.json"
    bench_prf.main(["speed", "--small", "--json", str(path), "--folder", str(tmp_path)])
    assert "captum over neuroigc" in capsys.readouterr().out
    (row,) = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert row["vertices"] == 40
    for field in ("seconds_of_gradients", "product_gflop_s", "share_of_plain", "captum_seconds"):
        assert row[field] > 0
    assert not [other for other in tmp_path.iterdir() if other != path]


@pytest.mark.parametrize(
    ("command", "column", "names"),
    [
        ("feeding", "source", ["memory", "warm", "cold", "warm, no threads"]),
        ("processes", "processes", [1, 2]),
        ("real", "what", ["writing", "scaling", "epoch", "attribution"]),
    ],
)
@pytest.mark.slow
def test_training_is_measured_and_its_stores_removed(command, column, names, tmp_path, capsys):
    bench_training.main([command, "--small", "--folder", str(tmp_path)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row[column] for row in rows] == names
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_preparing_is_timed_measured_and_killed(tmp_path, capsys):
    path = tmp_path / "measured.json"
    options = ["--small", "--repeats", "1", "--json", str(path), "--folder", str(tmp_path)]
    bench_prepare.main(options)
    assert "share_of_reading" in capsys.readouterr().out
    measured = json.loads(path.read_text(encoding="utf-8"))
    assert {row["what"] for row in measured["rows"]} >= {"prepare", "read, one thread"}
    assert measured["kills"]["identical"]
    assert all(row["peak_mib"] > 0 for row in measured["memory"])
    assert list(tmp_path.iterdir()) == [path]


def test_watching_ends_with_what_it_watches():
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="no disk"), bench_training.watching():
        raise OSError("no disk")
    assert set(threading.enumerate()) == before
