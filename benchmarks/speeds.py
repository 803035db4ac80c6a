"""What each speed gains on this machine: `make bench`, or this script alone.

The paper's network and recipe (WRN-28-2, batch 128) on images of noise at each speed (`sln/fast.py`), in
turns: a training step, the test passes, label correction; what prepares a run (compile and capture)
apart; then K runs at once on a GPU. Every row is printed, and added to `--out`, as soon as it is there.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import Run, Table, alternating, images, in_turns, own_stream, ratios, seconds, wait
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sln.utils.devices import device
from sln.utils.speeds import SPEEDS, has_bfloat16

# Multiplications and additions per image, of this WRN-28-2 (the stride is on the second convolution).
BATCH, FORWARD, FORWARD_BACKWARD = 128, 485.3e6, 1455e6
TRAIN, TEST = 50_000, 10_000  # CIFAR-10's images; an epoch has two test passes
PROFILED, SHOWN = 5, 40  # steps under the profiler, rows of its table


def trial(speed: str, steps: int, seed: int = 0, model: str = "wrn-28-2") -> Run:
    """A run on `steps` batches of noise, ready to be timed."""
    one = Run(speed, images(steps * BATCH), images(steps * BATCH), seed, model=model)
    for action in (one.sln, one.correct):  # fill caches
        action()
    return one


def ceilings(table: Table) -> float:
    """What this device reaches in a large copy and large matrix products; the best product, in FLOP/s."""
    gpu, repeats, best = device().type == "cuda", 10, 0.0
    source = torch.zeros(2**30 if gpu else 2**27, dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    times = _times(lambda: target.copy_(source), repeats)
    table.add("copy, read and written", "", [2 * len(source) / t / 1e9 for t in times], "GB/s")
    size = 8192 if gpu else 1024
    kinds = (torch.float32, torch.bfloat16) if has_bfloat16(device()) else (torch.float32,)
    for kind in kinds:
        a = torch.randn(size, size, device=device()).to(kind)
        flops = [2 * size**3 / t for t in _times(lambda a=a: a @ a, repeats)]
        name = str(kind).removeprefix("torch.")
        best = max(best, 1e12 * table.add(f"{name} matrix product", "", [f / 1e12 for f in flops], "TFLOP/s"))
    return best


def _times(action: Callable[[], object], repeats: int) -> list[float]:
    """Seconds per call, five times over `repeats` calls, after as many that do not count."""

    def repeated() -> None:
        for _ in range(repeats):
            action()

    repeated()
    return [seconds(repeated) / repeats for _ in range(5)]


def compare(table: Table, trials: dict[str, Run], steps: int, rounds: int, peak: float) -> str:
    """Rows of every speed, the ratio to the first speed among them. Returns the fastest one."""
    N = steps * BATCH
    found = {}
    for what, name, count, unit in (
        ("steps", "training step", BATCH, 1e3),
        ("measure", f"both test passes, {TEST:,} images", TEST, 1),
        ("correct", f"correction, {TRAIN:,} images", TRAIN, 1),
    ):
        found[what] = alternating({speed: getattr(run, what) for speed, run in trials.items()}, rounds)
        for speed, times in found[what].items():
            scaled = [unit * count * t / N for t in times]
            table.add(name, speed, scaled, "s" if unit == 1 else "ms")
    epochs, best = {}, {}
    floor = (TRAIN * FORWARD_BACKWARD + 2 * TEST * FORWARD) / peak
    for speed in trials:
        both = zip(found["steps"][speed], found["measure"][speed], strict=True)
        epochs[speed] = [(TRAIN * train + TEST * test) / N for train, test in both]
        best[speed] = table.add("epoch with both test passes", speed, epochs[speed], "s")
        table.add("share of the bound by arithmetic", speed, [floor / t for t in epochs[speed]], "")
        first = next(iter(epochs))
        table.add(f"epoch, times as fast as {first}", speed, ratios(epochs[first], epochs[speed]), "")
    return min(best, key=best.__getitem__)


def together(
    table: Table,
    speed: str,
    trials: dict[Run, torch.cuda.Stream | None],
    model: str,
    steps: int,
    K: int,
    rounds: int,
) -> None:
    """K runs at once against the first alone, all in one thread, a stream each; `trials` grows to K."""
    while len(trials) < K:
        stream = own_stream()
        with torch.cuda.stream(stream):  # of no stream: nothing
            one = trial(speed, steps, len(trials), model)
        trials[one] = stream
        table.add("prepare", speed, [one.prepared], "s", len(trials))

    def everyone(count: int, what: str) -> None:
        some = list(trials)[:count]
        in_turns([getattr(run, what)() for run in some], [trials[run] for run in some])

    actions = {
        (count, what): functools.partial(everyone, count, what)
        for count in (1, K)
        for what in ("turns", "tests")
    }
    for action in actions.values():
        action()
    times, N = alternating(actions, rounds), steps * BATCH
    rates = {
        count: [
            count * N / (TRAIN * train + TEST * test)
            for train, test in zip(times[count, "turns"], times[count, "tests"], strict=True)
        ]
        for count in (1, K)
    }
    table.add("run-epochs", speed, rates[K], "per s", K)
    table.add("run-epochs, times those of one run", speed, ratios(rates[K], rates[1]), "", K)


def kernels(table: Table, speed: str, one: Run, path: Path) -> None:
    """What PROFILED steps spend their time on, added to a text file; a CPU's operators without a GPU."""
    gpu, turns = device().type == "cuda", one.turns()
    next(turns)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiler:
        for _ in range(PROFILED):
            next(turns)
        wait()
    kind, took = (
        (DeviceType.CUDA, "self_device_time_total") if gpu else (DeviceType.CPU, "self_cpu_time_total")
    )
    rows = [event for event in profiler.key_averages() if event.device_type == kind]
    rows.sort(key=lambda event: -getattr(event, took))
    whole = sum(getattr(event, took) for event in rows)
    with path.open("a") as file:
        print(f"{speed}: {PROFILED} steps, {whole:.0f} us; us, share, count, name", file=file)
        for event in rows[:SHOWN]:
            time = getattr(event, took)
            print(f"{time:12.1f} {time / whole:6.1%} {event.count:7} {event.key[:120]}", file=file)
    what = "kernels per step" if gpu else "operators per step"
    table.add(what, speed, [sum(event.count for event in rows) / PROFILED], "")
    table.add("their time per step", speed, [whole / PROFILED / 1e3], "ms")


def main() -> None:
    """Measure and print."""
    gpu = device().type == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # 125 batches are 8 whole passes of 2,000 images
    parser.add_argument("--steps", type=int, default=125 if gpu else 6, help="batches in a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements, in turns")
    parser.add_argument("--speeds", nargs="+", choices=tuple(SPEEDS), default=tuple(SPEEDS))
    parser.add_argument(
        "--at-once", nargs="*", type=int, default=(1, 2, 4, 6) if gpu else (), help="runs at once"
    )
    parser.add_argument(
        "--kernels", type=Path, help="add a table of kernels at bfloat16 and the best speed to this"
    )
    parser.add_argument("--small", action="store_true", help="a small network, for a rehearsal")
    parser.add_argument("--out", type=Path, help="add the rows to this CSV")
    options = parser.parse_args()
    if options.kernels and options.steps <= PROFILED:
        parser.error(f"--kernels needs --steps {PROFILED + 1} or more")
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}; {options.rounds} rounds of {options.steps} steps", flush=True)
    table, trials, model = Table(options.out), {}, "wrn-10-1" if options.small else "wrn-28-2"
    peak = ceilings(table)
    for speed in options.speeds:
        before = torch.cuda.memory_allocated() if gpu else 0
        trials[speed] = trial(speed, options.steps, model=model)
        table.add("prepare", speed, [trials[speed].prepared], "s")
        if gpu:
            table.add("peak memory", speed, [(torch.cuda.max_memory_allocated() - before) / 1e9], "GB")
            torch.cuda.reset_peak_memory_stats()
    best = compare(table, trials, options.steps, options.rounds, peak)
    for speed in sorted({"bfloat16", best} & set(trials)) if options.kernels else ():
        if SPEEDS[speed].static:  # else an epoch is a single turn
            kernels(table, speed, trials[speed], options.kernels)
    several: dict[Run, torch.cuda.Stream | None] = {}
    for K in options.at_once:
        together(table, best, several, model, options.steps, K, options.rounds)


if __name__ == "__main__":
    main()
