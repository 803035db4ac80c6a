"""How the benchmarks measure: same work, A B A B, medians; ratios, since machines differ and are shared."""

from __future__ import annotations

import csv
import dataclasses
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path

import psutil
import torch

# sln need not be installed; processes that multiprocessing spawns get this path too
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sln import fast, train
from sln.config import Config
from sln.data import Split
from sln.datasets.images import read_cifar
from sln.study import plan
from sln.utils.devices import device
from sln.utils.speeds import SPEEDS

SIGMA = 1.0


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call; a GPU's work is waited for."""
    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    """Until the GPU, where there is one, has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternating(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall times of each action, called in turns: what disturbs the machine disturbs all of them."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return times


def in_turns(
    generators: Iterable[Generator[object, None, object]], streams: Iterable[torch.cuda.Stream | None]
) -> None:
    """All turns of all generators, round-robin in this thread, each on a stream of its own (CPU: None)."""
    left = list(zip(generators, streams, strict=True))
    while left:
        for one in list(left):
            with torch.cuda.stream(one[1]):  # of no stream: nothing
                try:
                    next(one[0])
                except StopIteration:
                    left.remove(one)


def own_stream() -> torch.cuda.Stream | None:
    """A stream for a run that is to take turns: it is prepared on it, too. None on a CPU."""
    return torch.cuda.Stream() if device().type == "cuda" else None


class Table:
    """Measured values, printed and added to a CSV one by one: a script that is killed loses none of them.

    path : the CSV, which is added to if it is there; None for none
    Columns: what, speed, at_once (runs that share the device), median, low and high of the rounds, unit.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path and not (path.exists() and path.stat().st_size):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write("what", "speed", "at_once", "value", "low", "high", "unit")

    def add(self, what: str, speed: str, values: Sequence[float], unit: str, at_once: int = 1) -> float:
        """One row, from a value per round. Returns their median."""
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"{what:40} {speed:10} x{at_once} {median:10.4g} ({low:.4g}..{high:.4g}) {unit}", flush=True)
        if self.path:
            self._write(what, speed, at_once, *(f"{value:.6g}" for value in (median, low, high)), unit)
        return median

    def _write(self, *values: object) -> None:
        assert self.path is not None
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(values)


def images(count: int, part: str = "train", *, noise: bool = True) -> Split:
    """The first `count` images of CIFAR-10's "train" or "test", or as many of noise, with their labels."""
    random = torch.Generator().manual_seed(count)
    pixels = torch.randint(256, (count if noise else 0, 3, 32, 32), generator=random, dtype=torch.uint8)
    labels = torch.randint(10, (len(pixels),), generator=random)
    if not noise:
        pixels, labels = map(torch.as_tensor, read_cifar("cifar10", part == "train")[:2])
    return Split(pixels[:count], labels[:count], labels[:count])


class Run:
    """A run of the CIFAR-10 recipe at one speed, prepared; its label correction is as released.

    prepared : seconds until its first step was done
    """

    def __init__(self, speed: str, training: Split, tests: Split, seed: int = 0, **others: object) -> None:
        settings = {"dataset": "cifar10", "noise_mode": "none", "sigma": SIGMA, "seed": seed}
        self.config = Config.from_dict(settings | {"correction_losses": "as-released"} | others)
        data = dataclasses.replace(plan.random_images(self.config), train=training, test=tests)
        self.data, chosen = data.to(device()), SPEEDS[speed]
        self.engine = fast.Engine(self.config, chosen) if chosen.static else train.Engine()
        self.state, self.number = train.State(self.config, self.data), 0
        self.prepared = seconds(self._prepare)

    def _prepare(self) -> None:
        self.engine.prepare(self.state, self.data)
        next(self.turns())  # compiles on a CPU

    def turns(self, sigma: float = SIGMA) -> Generator[None, None, float]:
        """Training alone, every image once, in turns."""
        self.number += 1
        return self.engine.turns(self.state, self.data, self.config, self.number, sigma)

    def tests(self) -> Generator[None, None, None]:
        """Both test passes, a turn each."""
        for network in self.state.networks.values():
            train.measure(network, self.data, whole=False, engine=self.engine)
            yield

    def epoch(self) -> Generator[None, None, None]:
        """An epoch with stochastic label noise, in turns."""
        self.state.targets = train.one_hot(self.data).to(self.data.device)
        yield from self.turns()
        yield from self.tests()

    def steps(self) -> None:
        """Training alone."""
        train.last(self.turns())

    def sln(self) -> None:
        """An epoch with stochastic label noise."""
        train.last(self.epoch())

    def measure(self) -> None:
        """Both test passes."""
        train.last(self.tests())

    def correct(self) -> None:
        """Label correction alone."""
        train.correct(self.state, self.data, self.config, self.number + 1, self.engine)

    def correction(self) -> None:
        """An epoch that begins with label correction."""
        self.correct()
        train.last(self.turns(0.0))
        self.measure()


def ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """How many times as long `times` took as `others`, a ratio per round."""
    return [a / b for a, b in zip(times, others, strict=True)]


def row(what: str, value: float, unit: str) -> None:
    """Print one line of a table."""
    print(f"{what:66} {value:9.3g} {unit}", flush=True)


class PeakMemory(threading.Thread):
    """Samples the unique memory of a process and its children, four times per second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.running = psutil.Process(pid), 0, True
        self.start()

    def run(self) -> None:
        """Sample until stopped."""
        while self.running:
            total = 0
            for process in [self.process, *self.process.children(recursive=True)]:
                try:
                    total += process.memory_full_info().uss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)
            time.sleep(0.25)

    def stop(self) -> int:
        """The peak in bytes."""
        self.running = False
        return self.peak
