"""What each step of the fast path gains, on whatever machine this is: `make bench`, or this script alone.

One table, a row a speed (`sln/fast.py`): time of the paper's network and recipe (WRN-28-2, batch 128) on
images of noise, compile and capture time apart; then K runs at once on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import torch
from measuring import PeakMemory, alternating, seconds

from sln import fast, plan
from sln.config import Config
from sln.data import Data
from sln.devices import device
from sln.fast import SPEEDS
from sln.train import Engine, State

# Multiplications and additions an image, of this WRN-28-2 (the stride is on the second convolution).
FORWARD, FORWARD_BACKWARD = 485.3e6, 1455e6
TRAIN, TESTS = 50_000, 2 * 10_000  # images an epoch, the two test passes included
TOGETHER = (1, 2, 4, 6)  # runs at once on a GPU


def peak_flops() -> float:
    """What this device reaches in one large matrix product, in FLOP/s, with the best of its operands."""
    size, best = (8192 if device().type == "cuda" else 2048), 0.0
    for kind in (torch.float32, torch.bfloat16):
        a = torch.randn(size, size, device=device()).to(kind)
        a @ a
        best = max(best, 2 * size**3 / min(seconds(lambda a=a: a @ a) for _ in range(5)))
    return best


def floor_seconds(peak: float) -> float:
    """An epoch's arithmetic at that peak."""
    return (TRAIN * FORWARD_BACKWARD + TESTS * FORWARD) / peak


class Trial:
    """One run of the recipe on `steps` batches of noise, at one speed."""

    def __init__(self, speed: str, steps: int, **knobs: object) -> None:
        self.config = Config.from_dict({"dataset": "cifar10", "noise_mode": "none", "sigma": 1.0} | knobs)
        self.data: Data = images(self.config, steps).to(device())
        self.engine = fast.Engine(self.config, SPEEDS[speed]) if SPEEDS[speed].static else Engine()
        self.state, self.epoch = State(self.config, self.data), 0
        self.prepared = seconds(self.train)  # compiles and captures

    def train(self) -> None:
        """An epoch of `steps` batches."""
        self.epoch += 1
        self.engine.train_epoch(self.state, self.data, self.config, self.epoch, self.config.sigma)

    def test(self) -> None:
        """One pass over the images."""
        self.engine.predict(self.state.network, self.data.train, self.data)


def images(config: Config, steps: int) -> Data:
    """`steps` batches of random pixels in the shape of CIFAR-10, for training and tests."""
    one = plan._noise(config)
    repeats = -(-steps * config.batch_size // len(one.train))
    rows = torch.arange(len(one.train)).repeat(repeats)[: steps * config.batch_size]
    return dataclasses.replace(one, train=one.train[rows])


def table(steps: int, rounds: int, names: tuple[str, ...]) -> pd.DataFrame:
    """A row a speed; "of floor" is the share of the bound by arithmetic, "ratio" that of the first row."""
    peak, trials, memory = peak_flops(), {}, {}
    for name in names:
        before = 0
        if device().type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()  # by the trials before
        watched = PeakMemory(os.getpid())
        trials[name] = Trial(name, steps)
        trials[name].test()
        memory[name] = watched.stop() / 1e9
        if device().type == "cuda":
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 1e9
    train = alternating({name: trial.train for name, trial in trials.items()}, rounds)
    test = alternating({name: trial.test for name, trial in trials.items()}, rounds)
    N = steps * 128
    rows = []
    for name, trial in trials.items():
        epoch = TRAIN * train[name] / N + TESTS * test[name] / N
        rows.append(
            {
                "speed": name,
                "prepare s": trial.prepared,
                "step ms": 1000 * train[name] / steps,
                "epoch s": epoch,
                "images/s": N / train[name],
                "of floor": floor_seconds(peak) / epoch,
                "memory GB": memory[name],
            }
        )
    found = pd.DataFrame(rows).set_index("speed")
    found["ratio"] = found["epoch s"].iloc[0] / found["epoch s"]
    print(f"floor: {floor_seconds(peak):.3g} s an epoch, at {peak / 1e12:.3g} TFLOP/s of one matrix product")
    return found


def together(steps: int, rounds: int) -> pd.DataFrame:
    """Run-epochs a second of K runs at once on a GPU, a stream each; tests are timed apart, as in `table`."""
    rows, N = [], steps * 128
    for K in TOGETHER:
        trials = [Trial("s3", steps, seed=seed) for seed in range(K)]
        streams = [torch.cuda.Stream() for _ in trials]

        def everyone(what: Callable[[Trial], None], trials: list[Trial], streams: list) -> None:
            def on_stream(trial: Trial, stream: torch.cuda.Stream) -> None:
                with torch.cuda.stream(stream):
                    what(trial)

            with ThreadPoolExecutor(len(trials)) as threads:
                list(threads.map(on_stream, trials, streams))

        passes = {
            what: functools.partial(everyone, getattr(Trial, what), trials, streams)
            for what in ("train", "test")
        }
        for one in passes.values():
            one()
        took = alternating(passes, rounds)
        rows.append({"runs at once": K, "epochs/s": K * N / (TRAIN * took["train"] + TESTS * took["test"])})
    found = pd.DataFrame(rows).set_index("runs at once")
    found["ratio"] = found["epochs/s"] / found["epochs/s"].iloc[0]
    return found


def main() -> None:
    """Print the tables."""
    gpu = device().type == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100 if gpu else 4, help="batches in a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements, in turns")
    parser.add_argument("--out", help="also write the table to this CSV")
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}; medians of {options.rounds} turns of {options.steps} steps")
    found = table(options.steps, options.rounds, tuple(SPEEDS))
    print(found.round(3).to_string())
    if options.out:
        found.to_csv(options.out)
    if gpu:
        print(together(options.steps, options.rounds).round(3).to_string())


if __name__ == "__main__":
    main()
