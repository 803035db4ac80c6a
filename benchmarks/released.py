"""The released code against ours: the same epochs, device and images, in turns.

    python benchmarks/released.py --code FOLDER

FOLDER holds the authors' repository, which has no licence and is therefore no part of this one; nothing in
it is changed. Its data sets are built here as its `dataset.py` does, which torchvision's today no longer lets
one import; and on a CPU the integer counters are left out of its moving average, which it stumbles over.

R1 : time of the released code over ours, for a training step, an SLN epoch, and one with label correction
R2 : the same with K of our runs at once on a GPU, or with as many as there are processors on a CPU, against
    one run of the released code, which uses the whole machine: run-epochs in equal time
An epoch is training and both test passes. On a CPU a part of CIFAR-10 is enough, since time is proportional
to the number of images.
"""

from __future__ import annotations

import argparse
import importlib
import math
import multiprocessing
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import alternating

from sln import fast, pool, train
from sln.config import Config
from sln.data import Data
from sln.devices import device
from sln.files import data_folder
from sln.loading import load_data
from sln.vision import torchvision

BATCH, SIGMA = 128, 1.0


class Released:
    """The authors' own functions and classes, as their script calls them."""

    def __init__(self, code: Path, images: int, tests: int) -> None:
        vision = torchvision()
        sys.path.insert(0, str(code))
        self.utils = importlib.import_module("utils")
        network = importlib.import_module("networks.wideresnet").Wide_ResNet
        self.args = types.SimpleNamespace(num_class=10, sigma=SIGMA)
        self.device = device()
        transforms = vision.transforms
        normalise = [
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ]
        augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        cifar = vision.datasets.CIFAR10
        self.train_set = cifar(data_folder(), train=True, transform=transforms.Compose(augment + normalise))
        self.test_set = cifar(data_folder(), train=False, transform=transforms.Compose(normalise))
        for part, count in ((self.train_set, images), (self.test_set, tests)):
            part.data, part.targets = part.data[:count], part.targets[:count]
        self.noisy = np.eye(10)[self.train_set.targets]
        self.workers = {"num_workers": 4, "pin_memory": True} if self.device.type == "cuda" else {}
        self.net, self.ema_net = network().to(self.device), network().to(self.device)
        for parameter in self.ema_net.parameters():
            parameter.detach_()
        torch.backends.cudnn.benchmark = True
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
        self.ema = self.utils.WeightEMA(self.net, self.ema_net)
        if self.device.type == "cpu":  # the counters, which its own test finds on a GPU only
            kept = [param.is_floating_point() for param in self.ema.params]
            for name in ("params", "ema_params"):
                tensors = getattr(self.ema, name)
                setattr(self.ema, name, [t for t, keep in zip(tensors, kept, strict=True) if keep])

    def loader(self, part: torch.utils.data.Dataset, shuffle: bool) -> torch.utils.data.DataLoader:
        """A loader as its script makes them."""
        return torch.utils.data.DataLoader(part, batch_size=BATCH, shuffle=shuffle, **self.workers)

    def steps(self) -> None:
        """Training alone: every image once."""
        loader = self.loader(self.train_set, shuffle=True)
        self.utils.train_noise(self.args, self.net, self.device, loader, self.optimizer, 1, self.ema)

    def epoch(self) -> None:
        """Training, and the two test passes."""
        self.steps()
        for network in (self.ema_net, self.net):
            self.utils.test(self.args, network, self.device, self.loader(self.test_set, shuffle=False))

    def sln(self) -> None:
        """An epoch with stochastic label noise."""
        self.args.sigma, self.train_set.targets = SIGMA, self.noisy.argmax(axis=1).tolist()
        self.epoch()

    def correction(self) -> None:
        """An epoch that begins with label correction."""
        self.args.sigma = 0
        loader = self.loader(self.train_set, shuffle=False)
        output, losses = self.utils.get_output(self.ema_net, self.device, loader)
        output = np.eye(10)[output.argmax(axis=1)]
        losses = ((losses - losses.min()) / (losses.max() - losses.min())).reshape(-1, 1)
        self.train_set.targets = losses * self.noisy + (1 - losses) * output
        self.epoch()


class Ours:
    """One of our runs of the same recipe."""

    def __init__(self, images: int, tests: int, speed: str, seed: int = 0) -> None:
        knobs = {"dataset": "cifar10", "noise_mode": "none", "subset": images, "test_subset": tests}
        self.config = Config.from_dict(knobs | {"sigma": SIGMA, "seed": seed})
        self.data: Data = load_data(self.config).to(device())
        self.state = train.State(self.config, self.data)
        chosen = fast.SPEEDS[speed]
        self.engine = fast.Engine(self.config, chosen) if chosen.static else train.Engine()
        self.number = 0

    def steps(self, sigma: float = SIGMA) -> None:
        """Training alone: every image once."""
        self.number += 1
        self.engine.train_epoch(self.state, self.data, self.config, self.number, sigma)

    def epoch(self, sigma: float) -> None:
        """Training, and the two test passes."""
        self.steps(sigma)
        for network in self.state.readers.values():
            train.measure(network, self.data, whole=False, predict=self.engine.predict)

    def sln(self) -> None:
        """An epoch with stochastic label noise."""
        self.state.targets = train.one_hot(self.data).to(self.data.device)
        self.epoch(SIGMA)

    def correction(self) -> None:
        """An epoch that begins with label correction."""
        train.correct(self.state, self.data, self.config, self.number + 1)
        self.epoch(0.0)


def together(ours: list[Ours]) -> None:
    """An epoch of every run at once, a thread and a stream each."""
    streams = [torch.cuda.Stream() for _ in ours]

    def one(run: Ours, stream: torch.cuda.Stream) -> None:
        with torch.cuda.stream(stream):
            run.sln()

    with ThreadPoolExecutor(len(ours)) as threads:
        list(threads.map(one, ours, streams))


def worker(images: int, tests: int, speed: str, seed: int, start: object, done: object) -> None:
    """A process with one of our runs on one thread: an epoch whenever it is told to."""
    torch.set_num_threads(1)
    ours = Ours(images, tests, speed, seed)
    ours.sln()
    while True:
        done.put(seed)
        if start.get() is None:
            return
        ours.sln()


class Processes:
    """As many of our runs as processors, a process each."""

    def __init__(self, images: int, tests: int, speed: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.count, self.done = pool.processors(), context.Queue()
        self.starts = [context.Queue() for _ in range(self.count)]
        self.processes = [
            context.Process(target=worker, args=(images, tests, speed, seed, start, self.done), daemon=True)
            for seed, start in enumerate(self.starts)
        ]
        for process in self.processes:
            process.start()
        self._wait()

    def sln(self) -> None:
        """An epoch of every run."""
        for start in self.starts:
            start.put(True)
        self._wait()

    def _wait(self) -> None:
        for _ in range(self.count):
            self.done.get()

    def close(self) -> None:
        """End the processes."""
        for start in self.starts:
            start.put(None)
        for process in self.processes:
            process.join()


def main() -> None:
    """Print the comparison."""
    gpu = device().type == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", type=Path, required=True, help="folder of the released repository")
    parser.add_argument("--images", type=int, default=50_000 if gpu else 640, help="training images")
    parser.add_argument("--tests", type=int, default=10_000 if gpu else 128, help="test images")
    parser.add_argument("--rounds", type=int, default=3, help="measurements, in turns")
    parser.add_argument("--together", type=int, default=4, help="runs at once on a GPU")
    parser.add_argument("--speeds", nargs="+", default=["reference", "s1", "s2", "s3"])
    parser.add_argument("--out", help="also write the table to this CSV")
    options = parser.parse_args()
    size = (options.images, options.tests)
    released = Released(options.code.resolve(), *size)
    ours = {speed: Ours(*size, speed) for speed in options.speeds}
    for run in (released, *ours.values()):  # compile, capture, fill caches
        run.correction()
        run.sln()  # whose sigma and targets the steps below have
    everyone = {"released": released, **ours}
    found = pd.DataFrame(index=list(everyone))
    for column, what, share in (
        ("step s", "steps", 1 / math.ceil(options.images / BATCH)),
        ("SLN epoch s", "sln", 1),
        ("correction epoch s", "correction", 1),
    ):
        times = alternating({name: getattr(run, what) for name, run in everyone.items()}, options.rounds)
        found[column] = share * pd.Series(times)
    for column in list(found):
        found[f"R1 {column.removesuffix(' s')}"] = found[column].iloc[0] / found[column]
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}, {size[0]} + 2 x {size[1]} images an epoch")
    print(found.round(3).to_string())
    best = found["R1 SLN epoch"].drop("released").idxmax()
    if gpu:
        runs = [Ours(*size, best, seed) for seed in range(options.together)]
        together(runs)
        times = alternating({"released": released.sln, "ours": lambda: together(runs)}, options.rounds)
        count = len(runs)
    else:
        processes = Processes(*size, best)
        times = alternating({"released": released.sln, "ours": processes.sln}, options.rounds)
        count = processes.count
        processes.close()
    R2 = count * times["released"] / times["ours"]
    print(f"R2, {count} runs at once at speed {best}: {R2:.2f}")
    if options.out:
        found.assign(R2=R2, at_once=count).to_csv(options.out, index_label="speed")


if __name__ == "__main__":
    main()
