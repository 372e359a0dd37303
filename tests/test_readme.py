"""What README.md promises, run as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuroigc.datasets import make_study

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def block(section):
    """Return the one fenced block of a section."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", README, re.M | re.S).group(1)
    (code,) = re.findall(r"^```\w+\n(.*?)^```", text, re.M | re.S)
    return code


def test_quick_start_and_tests_install_and_run():
    assert "pip install" in block("Quick start")
    assert "neuroigc demo --out demo" in block("Quick start")
    assert "pytest" in block("Tests")


def test_recipes_for_large_studies_are_commands_that_exist(capsys):
    from neuroigc.cli import main

    commands = re.findall(r"neuroigc (\w+)", block("Large studies"))
    assert commands == [
        "prepare",
        "train",
        "attribute",
        "merge",
        "attribute",
        "roi",
        "prf",
        "report",
    ]
    for command in commands:
        assert main([command, "--help"]) == 0
    assert main(["attribute", "--help"]) == 0
    assert "--shard i/n" in capsys.readouterr().out


def test_pictures_and_links_exist():
    root = Path(__file__).resolve().parents[1]
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (root / target).exists(), target


@pytest.mark.slow
def test_the_ten_lines_run(tmp_path):
    make_study(
        tmp_path / "nsd",
        n_subjects=1,
        n_sessions=1,
        trials_per_session=120,
        n_shared_images=20,
        image_size=48,
    )
    code = block("The library in ten lines")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "standard_error" in run.stdout
    assert "V1v" in run.stdout
