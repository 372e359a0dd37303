"""Damage files of every reader, again and again, and count what comes of it.

``python tests/benchmarks/bench_fuzz.py --mutations 5000`` damages the files of each reader that
often, each time anew, in a process of its own: what crashes or hangs is counted, and the work goes
on behind it. "Other numbers" are those that no checksum guards, changed one for one with the bytes
that they are. ``--readers NAME ...`` chooses some, ``--seed N`` other damage, ``--json PATH``
writes what was counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fuzzing
from benchmark_output import environment, print_environment, print_table

from neuroigc._progress import track

SECONDS = 20
CRASHED, HUNG = "crash", "hang"


def work(name: str, seed: int, first: int, last: int, pipe: Connection) -> None:
    """Send the number of each mutation before it is read, and its verdict after."""
    warnings.simplefilter("ignore")
    case = fuzzing.CASES[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        case.make(folder, np.random.default_rng(seed))
        truth = fuzzing.flatten(case.read(folder))
        for number in range(first, last):
            rng = np.random.default_rng([seed, number])
            path, content, n_bytes = fuzzing.damage(case, folder, rng)
            pipe.send(number)
            pipe.send(fuzzing.judge(case, folder, truth, n_bytes))
            path.write_bytes(content)


def fuzz(name: str, n_mutations: int, seed: int) -> dict[str, object]:
    """Count the verdicts on one reader's damaged files."""
    context = multiprocessing.get_context("spawn")
    verdicts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    number = -1
    while number + 1 < n_mutations:
        here, there = context.Pipe(duplex=False)
        options = (name, seed, number + 1, n_mutations, there)
        process = context.Process(target=work, args=options, daemon=True)
        process.start()
        there.close()
        why, before = None, number
        try:
            while number + 1 < n_mutations:
                # Starting takes longer than reading.
                if not here.poll(SECONDS * 6):
                    number, why = number + 1, HUNG
                    break
                number = here.recv()
                if not here.poll(SECONDS):
                    why = HUNG
                    break
                verdict, fault = here.recv()
                verdicts[verdict] += 1
                faults[fault] += bool(fault)
        except EOFError:
            why = CRASHED
            if number == before:
                raise RuntimeError(f"{name}: its process ended before it began") from None
        if why:
            verdicts[why] += 1
            faults[f"{why} at {number}"] += 1
            process.kill()
        process.join()
    kinds = (fuzzing.RIGHT, fuzzing.REFUSED, fuzzing.CHANGED, fuzzing.FAULT, CRASHED, HUNG)
    row = {"reader": name} | {kind: verdicts[kind] for kind in kinds}
    return row | {"faults": {text: n for text, n in faults.items() if n}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Damage, count, print."""
    parser = argparse.ArgumentParser(description="Damaged files of every reader.")
    parser.add_argument("--mutations", type=int, default=1000, help="of each reader's files")
    parser.add_argument("--readers", nargs="+", choices=list(fuzzing.CASES), metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write what was counted to this file")
    options = parser.parse_args(arguments)
    print_environment()
    names = options.readers or list(fuzzing.CASES)
    rows = [
        fuzz(name, options.mutations, options.seed)
        for name in track(names, show=True, label="readers", total=len(names))
    ]
    sums = {
        key: sum(row[key] for row in rows) for key in rows[0] if key not in ("reader", "faults")
    }
    print_table(
        [{k: v for k, v in row.items() if k != "faults"} for row in rows]
        + [{"reader": "all"} | sums]
    )
    for row in rows:
        for text, n in row["faults"].items():
            print(f"{row['reader']}: {n} x {text}")
    if options.json is not None:
        document = {"mutations": options.mutations, "seed": options.seed, **environment()}
        text = json.dumps(document | {"rows": rows}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(any(row[kind] for row in rows for kind in (fuzzing.FAULT, CRASHED, HUNG)))


if __name__ == "__main__":
    sys.exit(main())
