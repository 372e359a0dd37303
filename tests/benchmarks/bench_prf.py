"""Benchmarks of maps of visual cortex and of the receptive fields in them.

``python tests/benchmarks/bench_prf.py accuracy`` compares receptive fields with the truth of an
invented subject and with the classical model's, ``images`` does so for more and more images,
``fits`` times fits of Gaussians, and ``speed`` the maps of all vertices in one pass. What is
printed is written as JSON with ``--json PATH``. ``--small`` runs in seconds and means nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmark_fields import add_accuracy, add_fits, add_images
from benchmark_output import print_environment, write
from benchmark_speed import add_speed

# Each adds its subcommand, with what it runs.
COMMANDS = (add_accuracy, add_images, add_fits, add_speed)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Benchmarks of maps and receptive fields.")
    commands = parser.add_subparsers(dest="command", required=True)
    for add in COMMANDS:
        add(commands)
    for sub in commands.choices.values():
        sub.add_argument("--json", type=Path, help="write what was measured to this file")
        sub.add_argument("--small", action="store_true", help="a tiny size, to see it work")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark."""
    options = make_parser().parse_args(arguments)
    print_environment()
    results = options.run(options)
    write(options.json, options.command, results)


if __name__ == "__main__":
    main()
