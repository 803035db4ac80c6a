"""What a sweep costs beside its runs: `python benchmarks/sweep_overhead.py`, some minutes.

Its wall time times its workers, against the sum of the seconds that its runs took in them. Starting the
workers (they import torch) costs seconds once, and is shown apart. Nothing here
is a test: machines differ and are shared. Runs are trained in a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time

from sln import Config
from sln.runs import pool
from sln.study import sweep


def main() -> None:
    """Train runs in a sweep and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=12, help="uncorrected runs, half as many corrected ones")
    parser.add_argument("--epochs", type=int, default=100, help="of every run")
    options = parser.parse_args()
    plain = [
        Config(epochs=options.epochs, fork_epoch=options.epochs // 2, seed=seed)
        for seed in range(options.runs)
    ]
    corrected = [config.replace(correction=options.epochs // 2) for config in plain[: options.runs // 2]]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLN_RUNS"] = folder
        with contextlib.closing(pool.Processes(pool.seats())) as crew:
            start = time.perf_counter()
            first = [Config(epochs=1, seed=seed) for seed in range(len(crew.seats))]
            sweep.train(first, crew, "starting the workers")
            starting = time.perf_counter() - start
            start = time.perf_counter()
            outcomes = sweep.train([*plain, *corrected], crew, "sweep")
            wall = time.perf_counter() - start
    workers = len(crew.seats)
    seconds = sum(outcome.last.seconds for outcome in outcomes if outcome.last is not None)
    print(f"{len(outcomes)} runs, {workers} workers")
    print(f"sum of the runs' seconds, over the workers  {seconds / workers:9.1f} s")
    print(f"the sweep's wall time, its workers started  {wall:9.1f} s")
    print(f"starting the workers, once, beside that     {starting:9.1f} s")
    print(f"overhead                                    {100 * (wall * workers / seconds - 1):9.1f} %")


if __name__ == "__main__":
    main()
