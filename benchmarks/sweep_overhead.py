"""What a sweep costs beside its runs: `python benchmarks/sweep_overhead.py`, some minutes.

Its wall time times its workers, against the sum of the seconds that its runs took in them. Starting the
workers (they import torch) costs seconds once, however many runs there are, and is a row of its own. Nothing
here is a test: machines differ and are shared. Runs are trained in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

from measuring import row

from sln import Config
from sln.runs import parallel, store


def trained(configs: list[Config]) -> float:
    """Train the runs as a sweep does; returns the seconds that it takes."""
    start = time.perf_counter()
    assert all(error is None for _, error in parallel.train(configs))
    return time.perf_counter() - start


def own_seconds(config: Config) -> float:
    """Seconds from the first file of a finished run to its last."""
    first, last = (store.folder(config) / name for name in ("versions.json", "done.json"))
    return last.stat().st_mtime - first.stat().st_mtime


def main() -> None:
    """Train runs in a sweep and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=12, help="uncorrected runs, half as many corrected ones")
    parser.add_argument("--epochs", type=int, default=100, help="of every run")
    options = parser.parse_args()
    plain = [Config(epochs=options.epochs, seed=seed) for seed in range(options.runs)]
    corrected = [config.replace(correction=options.epochs // 2) for config in plain[: options.runs // 2]]
    workers = len(parallel.slots())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLN_RUNS"] = folder
        starting = trained([Config(epochs=1, seed=seed) for seed in range(workers)])
        wall = trained([*plain, *corrected])
        seconds = sum(map(own_seconds, [*plain, *corrected]))
    row(f"the seconds of the runs, over {workers} workers", seconds / workers, "s")
    row("the sweep's wall time, its workers started", wall, "s")
    row("starting the workers, once, beside that", starting, "s")
    row("overhead", 100 * (wall * workers / seconds - 1), "%")


if __name__ == "__main__":
    main()
