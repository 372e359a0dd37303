"""What it costs to import neuroigc and to ask its command for help.

    python tests/benchmarks/bench_startup.py

Prints the median over fresh interpreters, beside that of an interpreter that does nothing.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

N_RUNS = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import neuroigc": [sys.executable, "-c", "import neuroigc"],
    "neuroigc --help": [str(Path(sys.executable).with_name("neuroigc")), "--help"],
}


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    times = {name: [] for name in COMMANDS}
    for _ in range(N_RUNS):  # in turn, so that a busy moment meets all of them
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:18s} {value:.3f} s")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
