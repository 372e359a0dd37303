"""The benchmark of the family runs, and finds what it stands for."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_family


def test_frequencies_are_found_and_printed(capsys):
    bench_family.main(["frequency"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])["frequency"]
    assert measured["two bands an octave apart: right"] >= 0.95
    assert measured["continuum: r of log frequency"] >= 0.9


def test_costs_are_relative_to_igc():
    measured = bench_family.cost(1)
    assert measured["decoder: IGC, 10 regions (times IGC)"] == 1
    assert all(value > 0 for value in measured.values())
