"""Times and memory of the study on this machine: `make bench`; `--reproduce quick` adds the whole study.

Nothing here is a test: machines differ and are shared. Runs are trained in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import PeakMemory, row, seconds

from sln import Config, Study, plots, runs
from sln.analysis import landscape
from sln.runs import parallel


def median_seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of `action`, after one call that does not count."""
    action()
    return statistics.median(seconds(action) for _ in range(repeats))


def training() -> None:
    """One run after another, and several at once."""
    start = time.perf_counter()
    run = runs.get(Config(), quiet=True)
    row("one run of the embedded digits, 100 epochs", time.perf_counter() - start, "s")
    row("  of which training, without measuring", run.of("network")["seconds"].sum(), "s")
    workers = len(parallel.slots())
    configs = [Config(seed=seed, epochs=25) for seed in range(1, 2 * workers + 1)]
    parallel.get_all(configs[:workers], "starting the workers")
    start, rest = time.perf_counter(), configs[workers:]
    parallel.get_all(rest, "timing")
    row(f"the same by {workers} workers at once", (time.perf_counter() - start) / len(rest) * 4, "s a run")


def sliders() -> None:
    """Moving a slider: from the new value to the PNG that the page gets."""
    study = Study("smoke")
    grid = study.grid("sym", study.profile.sigma_curve)
    corrected = study.corrected("sym").first
    points = landscape.surface(corrected.network(), corrected.data, radius=0.5, points=21, quiet=True)
    surfaces = dict.fromkeys(("CE", "SLN", "SLN-MO"), points)
    draws = {
        "label_noise": lambda: plots.labels.label_noise(Config(), "dependent", 0.4),
        "stochastic_noise": lambda: plots.theory.stochastic_noise(1.0, 0.9),
        "training_curves": lambda: plots.training.training_curves(grid, 1.0),
        "moved_images": lambda: plots.labels.moved_images(corrected, 2, 24),
        "confidence": lambda: plots.confidence.histograms(grid, 1.0),
        "loss_surfaces": lambda: plots.landscape.contours(surfaces, "given"),
    }
    for name, draw in draws.items():
        row(
            f"slider of panels.{name}: value to picture",
            median_seconds(lambda draw=draw: draw()._repr_png_()),
            "s",
        )
    network = corrected.network()
    start = time.perf_counter()
    landscape.surface(network, corrected.data, radius=0.5, points=25, quiet=True)
    row("loss surface of 25 x 25 points", time.perf_counter() - start, "s")


def reproduction(profile: str) -> None:
    """`python -m sln reproduce`, cold and warm, with the peak memory of all its processes together."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SLN_RUNS": f"{folder}/runs", "SLN_FIGURES": f"{folder}/figures"}
        for state in ("cold", "warm"):
            command = [sys.executable, "-m", "sln", "reproduce", "--profile", profile]
            start = time.perf_counter()
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            peak = PeakMemory(process.pid)
            code = process.wait()
            row(f"reproduce, profile {profile}, {state} (exit code {code})", time.perf_counter() - start, "s")
            row("  peak memory, all processes", peak.stop() / 1e9, "GB")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--reproduce", metavar="PROFILE", help="also time the whole study, cold and warm (minutes)"
    )
    options = parser.parse_args()
    os.chdir(Path(__file__).resolve().parent.parent)
    print(f"torch {torch.__version__}, {os.cpu_count()} processors, {torch.get_num_threads()} threads")
    if options.reproduce:
        reproduction(options.reproduce)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLN_RUNS"] = folder
        training()
        sliders()


if __name__ == "__main__":
    main()
