"""The released code against ours: the same epochs, device and images, in turns.

    python benchmarks/released.py --code FOLDER

FOLDER holds the authors' repository, which has no licence and is therefore no part of this one; nothing in
it is changed. Its data sets are built here as its `dataset.py` does, which torchvision's today no longer lets
one import; and on a CPU the integer counters are left out of its moving average, which it stumbles over.

R1 : time of the released code over ours, for a training step, an SLN epoch, and one with label correction
R2 : the same with K of our runs at once, in turns on a GPU, or in as many processes as there are processors
    on a CPU, against one run of the released code, which uses the whole machine: run-epochs in equal time
An epoch is training and both test passes. On a CPU a part of CIFAR-10 is enough, since time is proportional
to the number of images; `--noise` needs no data. Every row is printed, and added to `--out`, at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import math
import multiprocessing
import sys
import types
from pathlib import Path

import numpy as np
import torch
from measuring import SIGMA, Run, Table, alternating, images, in_turns, own_stream, ratios, seconds

from sln.data import Split
from sln.datasets.images import CIFAR_MEAN, CIFAR_STD
from sln.runs import parallel
from sln.utils import graphs
from sln.utils.devices import device, torchvision
from sln.utils.speeds import SPEEDS

BATCH = 128


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of both sides: numbers for training and tests, of CIFAR-10 or of noise."""

    train: int
    test: int
    noise: bool

    def __getitem__(self, part: str) -> Split:
        """The images and labels of "train" or "test"."""
        return images(getattr(self, part), part, noise=self.noise)

    def run(self, speed: str, seed: int = 0) -> Run:
        """One of our runs with these."""
        return Run(speed, self["train"], self["test"], seed)


class Released:
    """The authors' own functions and classes, as their script calls them."""

    def __init__(self, code: Path, shown: Images) -> None:
        sys.path.insert(0, str(code))
        self.utils = importlib.import_module("utils")
        network = importlib.import_module("networks.wideresnet").Wide_ResNet
        self.args = types.SimpleNamespace(num_class=10, sigma=SIGMA)
        self.device = device()
        self.train_set, self.test_set = self._data_set(shown, "train"), self._data_set(shown, "test")
        self.noisy = np.eye(10)[self.train_set.targets]
        self.workers = {"num_workers": 4, "pin_memory": True} if self.device.type == "cuda" else {}
        self.net, self.ema_net = network().to(self.device), network().to(self.device)
        for parameter in self.ema_net.parameters():
            parameter.detach_()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
        self.ema = self.utils.WeightEMA(self.net, self.ema_net)
        if self.device.type == "cpu":  # the counters, which its own test finds on a GPU only
            kept = [param.is_floating_point() for param in self.ema.params]
            for name in ("params", "ema_params"):
                tensors = getattr(self.ema, name)
                setattr(self.ema, name, [t for t, keep in zip(tensors, kept, strict=True) if keep])

    @staticmethod
    def _data_set(shown: Images, part: str) -> torch.utils.data.Dataset:
        """torchvision's, without its reading of files."""
        transforms, kind = torchvision().transforms, torchvision().datasets.CIFAR10
        steps = [
            transforms.ToTensor(),
            transforms.Normalize(CIFAR_MEAN["cifar10"], CIFAR_STD["cifar10"]),
        ]
        if part == "train":
            steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *steps]
        ours, found = shown[part], kind.__new__(kind)
        found.data = ours.images.permute(0, 2, 3, 1).contiguous().numpy()
        found.targets = ours.given.tolist()
        found.transform, found.target_transform = transforms.Compose(steps), None
        return found

    def loader(self, part: torch.utils.data.Dataset, shuffle: bool = False) -> torch.utils.data.DataLoader:
        """A loader as its script makes them."""
        return torch.utils.data.DataLoader(part, batch_size=BATCH, shuffle=shuffle, **self.workers)

    def steps(self) -> None:
        """Training alone: every image once."""
        loader = self.loader(self.train_set, shuffle=True)
        with graphs.chooses_kernels():  # as its script asks for; not for ours
            self.utils.train_noise(self.args, self.net, self.device, loader, self.optimizer, 1, self.ema)

    def epoch(self) -> None:
        """Training, and the two test passes."""
        self.steps()
        with graphs.chooses_kernels():
            for network in (self.ema_net, self.net):
                self.utils.test(self.args, network, self.device, self.loader(self.test_set))

    def sln(self) -> None:
        """An epoch with stochastic label noise."""
        self.args.sigma, self.train_set.targets = SIGMA, self.noisy.argmax(axis=1).tolist()
        self.epoch()

    def correction(self) -> None:
        """An epoch that begins with label correction."""
        self.args.sigma = 0
        with graphs.chooses_kernels():
            output, losses = self.utils.get_output(self.ema_net, self.device, self.loader(self.train_set))
        output = np.eye(10)[output.argmax(axis=1)]
        losses = ((losses - losses.min()) / (losses.max() - losses.min())).reshape(-1, 1)
        self.train_set.targets = losses * self.noisy + (1 - losses) * output
        self.epoch()


def worker(shown: Images, speed: str, seed: int, start: object, done: object) -> None:
    """A process with one of our runs on one thread: an epoch on request."""
    torch.set_num_threads(1)
    ours = shown.run(speed, seed)
    ours.sln()
    while True:
        done.put(seed)
        if start.get() is None:
            return
        ours.sln()


class Processes:
    """Some of our runs, a process each."""

    def __init__(self, shown: Images, speed: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.done, self.starts = context.Queue(), [context.Queue() for _ in range(count)]
        self.processes = [
            context.Process(target=worker, args=(shown, speed, seed, start, self.done), daemon=True)
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
        for _ in self.starts:
            self.done.get(timeout=600)

    def close(self) -> None:
        """End the processes."""
        for start in self.starts:
            start.put(None)
        for process in self.processes:
            process.join()


def compare(table: Table, everyone: dict[str, Released | Run], shown: Images, rounds: int) -> str:
    """R1, and the times behind it. Returns the fastest of our speeds in an SLN epoch."""
    fastest = {}
    for what, name, share in (
        ("steps", "step", 1 / math.ceil(shown.train / BATCH)),
        ("sln", "SLN epoch", 1),
        ("correction", "correction epoch", 1),
    ):
        times = alternating({side: getattr(run, what) for side, run in everyone.items()}, rounds)
        for side, took in times.items():
            table.add(name, side, [share * t for t in took], "s")
            if side != "released":
                gained = table.add(f"R1 {name}", side, ratios(times["released"], took), "")
                fastest[side] = gained if what == "sln" else fastest.get(side, 0.0)
    return max(fastest, key=fastest.__getitem__)


def together(
    table: Table, released: Released, shown: Images, speed: str, counts: list[int], rounds: int
) -> None:
    """R2 for each number of our runs at once, and the times behind it."""
    gpu, runs, streams = device().type == "cuda", [], []
    for count in sorted(counts):
        if gpu:
            while len(runs) < count:  # one after another, each when the GPU is idle
                streams.append(own_stream())
                with torch.cuda.stream(streams[-1]):
                    runs.append(shown.run(speed, len(runs)))
            ours = lambda: in_turns([run.epoch() for run in runs], streams)  # noqa: E731
            ours()
        else:
            processes = Processes(shown, speed, count)
            ours = processes.sln
        times = alternating({"released": released.sln, speed: ours}, rounds)
        table.add("SLN epoch beside R2", "released", times["released"], "s")
        table.add("SLN epoch of all runs", speed, times[speed], "s", count)
        table.add("R2", speed, [count * r for r in ratios(times["released"], times[speed])], "", count)
        if not gpu:
            processes.close()


def main() -> None:
    """Measure and print."""
    gpu = device().type == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", type=Path, required=True, help="folder of the released repository")
    parser.add_argument("--images", type=int, default=50_000 if gpu else 640, help="training images")
    parser.add_argument("--tests", type=int, default=10_000 if gpu else 128, help="test images")
    parser.add_argument("--noise", action="store_true", help="images of noise instead of CIFAR-10's")
    parser.add_argument("--rounds", type=int, default=3, help="measurements, in turns")
    parser.add_argument("--speeds", nargs="+", choices=tuple(SPEEDS), default=list(SPEEDS))
    parser.add_argument(
        "--at-once", nargs="+", type=int, default=[4 if gpu else parallel.processors()], help="our runs in R2"
    )
    parser.add_argument("--skip", choices=("R1", "R2"), help="without R1, R2 is at the last of the speeds")
    parser.add_argument("--out", type=Path, help="add the rows to this CSV")
    options = parser.parse_args()
    shown, code = Images(options.images, options.tests, options.noise), options.code.resolve()
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}, {shown}, {options.rounds} rounds", flush=True)
    table, best = Table(options.out), options.speeds[-1]
    # one of each size of batch, for which cuDNN searches kernels that the rest finds again
    few = Images(*(BATCH + count % BATCH for count in (shown.train, shown.test)), noise=shown.noise)
    warm = Released(code, few)
    table.add("kernel search", "released", [seconds(lambda: (warm.sln(), warm.correction()))], "s")
    released = Released(code, shown)
    if options.skip != "R1":
        everyone: dict[str, Released | Run] = {"released": released}
        for speed in options.speeds:
            everyone[speed] = shown.run(speed)
            table.add("prepare", speed, [everyone[speed].prepared], "s")
            everyone[speed].correction()  # fills caches, compiles on a CPU
        best = compare(table, everyone, shown, options.rounds)
    if options.skip != "R2":
        together(table, released, shown, best, options.at_once, options.rounds)


if __name__ == "__main__":
    main()
