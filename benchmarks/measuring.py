"""How the benchmarks measure: same work, A B A B, medians; ratios, since machines differ and are shared."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping

import psutil
import torch


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


def alternating(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median wall time of each action, called in turns: what disturbs the machine disturbs all of them."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return {name: statistics.median(values) for name, values in times.items()}


def row(what: str, value: float, unit: str) -> None:
    """Print one line of a table."""
    print(f"{what:66} {value:9.3g} {unit}", flush=True)


class PeakMemory(threading.Thread):
    """Samples the unique memory of a process and its children, four times a second."""

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
