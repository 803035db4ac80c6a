"""Whether the fast path computes what the plain loop computes, on this device: a row per check.

    python benchmarks/gpu_checks.py --out checks.csv

The paper's network and batch (WRN-28-2, 128 images, a last batch of 80) on images of noise. Differences of
weights and averages are relative to how far training moved them. Exit code 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import measuring
import parcel
import torch
from torch import Tensor

from sln import fast, objective, train
from sln.config import Config
from sln.data import Data, Split
from sln.utils.crops import crop_and_flip
from sln.utils.devices import device
from sln.utils.speeds import SPEEDS, Speed

# what is compared: the plain loop there and here, and every speed; "graph" replays float32 steps
WAYS: dict[str, Speed] = {"here": Speed(), **SPEEDS, "graph": Speed(static=True, graph=True)}


class Checks:
    """The checks of one network, batch size and number of full batches."""

    def __init__(self, model: str, batch: int, last: int, full: int) -> None:
        settings = {"dataset": "cifar10", "noise_mode": "none", "sigma": 1.0, "epochs": 2, "lr": 0.01}
        self.config = Config.from_dict(settings | {"model": model, "batch_size": batch})
        self.here = noise_images(full * batch + last, last)
        self.there = self.here.to(device())
        self._known: dict[str, dict[str, Tensor]] = {}

    def trained(self, way: str, seed: int = 0, breaks: bool = False) -> dict[str, Tensor]:
        """The state after both epochs, without or with a break between them."""
        config, data = self.config.replace(seed=seed), self.here if way == "here" else self.there
        state = train.State(config, data)
        with exact() if not WAYS[way].bfloat16 else contextlib.nullcontext():
            for epoch in train.train(state, data, config, self.engine(way, config), measured=False):
                if breaks and epoch.number == 1:
                    kept = {name: value.clone() for name, value in state.tensors().items()}
                    state = train.State(config, data)
                    state.restore(kept)
                    for _ in train.train(state, data, config, self.engine(way, config), measured=False):
                        pass
                    break
        return {name: value.detach().cpu() for name, value in state.tensors().items()}

    def state(self, way: str) -> dict[str, Tensor]:
        """`trained`, once."""
        if way not in self._known:
            self._known[way] = self.trained(way)
        return self._known[way]

    @staticmethod
    def engine(way: str, config: Config) -> train.Engine:
        """What trains."""
        return fast.Engine(config, WAYS[way]) if WAYS[way].static else train.Engine()

    def between(self, one: str, two: str) -> float:
        """How far apart two ways end."""
        return self.apart(self.state(one), self.state(two))

    def resumed(self, way: str) -> float:
        """How far apart a run ends with and without a break."""
        return self.apart(self.trained(way, breaks=True), self.state(way))

    def apart(self, one: dict, two: dict, seed: int = 0) -> float:
        """The largest difference of two states' weights and averages, as a share of the way gone."""
        start = train.State(self.config.replace(seed=seed), self.here).tensors()
        names = [n for n in one if n.startswith(("network/", "momentum/")) and one[n].is_floating_point()]
        moved = max((two[name] - start[name]).abs().max().item() for name in names)
        return max((one[name] - two[name]).abs().max().item() for name in names) / moved

    def crops(self) -> float:
        """Augmented images here and there: pixels that differ."""
        draws = train.crops_and_flips(self.here, self.config, 1)
        images = [
            crop_and_flip(data.train.images, draws.to(data.device), data.padding).cpu()
            for data in (self.here, self.there)
        ]
        return (images[0] != images[1]).sum().item()

    def passes(self, way: str) -> float:
        """Logits by this speed and by the plain pass: the largest difference, in standard deviations."""
        state, engine = train.State(self.config, self.there), self.engine(way, self.config)
        engine.prepare(state, self.there)
        plain, ours = (
            one.predict(state.network, self.there.train, self.there) for one in (train.Engine(), engine)
        )
        return ((ours - plain).abs().max() / plain.std()).item()

    def matched(self) -> float:
        """SLN's expected noise here and there: relative difference."""
        z = torch.randn(2, 16, 10, generator=torch.Generator().manual_seed(0))
        norms = []
        for data in (self.here, self.there):
            state, images = train.State(self.config, data), data.normalise(data.train.images[:16])
            norms.append(objective.expected_squared_norm(state.network, images, "labels", z.to(data.device)))
        return abs(norms[0] / norms[1] - 1)

    def in_turns(self, way: str, count: int) -> float:
        """Runs that take turns, each on its stream, against each alone: the largest difference."""
        configs = [self.config.replace(seed=seed) for seed in range(count)]
        states = [train.State(config, self.there) for config in configs]
        turns = [
            train.train_in_turns(state, self.there, config, self.engine(way, config), measured=False)
            for state, config in zip(states, configs, strict=True)
        ]
        measuring.in_turns(turns, [measuring.own_stream() for _ in turns])
        found = [{name: value.detach().cpu() for name, value in state.tensors().items()} for state in states]
        return max(self.apart(one, self.trained(way, seed), seed) for seed, one in enumerate(found))


def noise_images(train: int, test: int) -> Data:
    """Random pixels in CIFAR's shape with random labels: `train` images to train on, `test` to test."""
    generator, parts = torch.Generator().manual_seed(0), []
    for count in (train, 0, test):
        images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        labels = torch.randint(10, (count,), generator=generator)
        parts.append(Split(images, labels, labels))
    return Data(*parts, tuple(map(str, range(10))), 255.0, (0.5,) * 3, (0.25,) * 3, padding=4)


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """float32 products without TF32, by deterministic kernels."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def checks(of: Checks, speeds: list[str]) -> Iterator[tuple[str, float, Callable[..., float], tuple]]:
    """Name, bound, measurement and its arguments; the name of a speed's check begins with the speed's."""
    yield "crops: pixels that differ", 0, of.crops, ()
    yield "matched strength, as on the CPU", 1e-3, of.matched, ()
    yield "reference: as on the CPU", 0.05, of.between, ("reference", "here")
    yield "static: the plain step", 1e-2, of.between, ("static", "reference")
    yield "bfloat16: a replayed float32 step", 1e-2, of.between, ("graph", "static")
    for way, before in (("bfloat16", "graph"), ("compiled", "bfloat16")):
        if way in speeds:
            yield f"{way}: close to {before}", 0.3, of.between, (way, before)
            yield f"{way}: a resumed run", 0.05, of.resumed, (way,)
            yield f"{way}: logits of a pass", 0.1, of.passes, (way,)
            yield f"{way}: 2 runs in turns", 0.05, of.in_turns, (way, 2)


def main() -> None:
    """Print and write a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also append the rows to this CSV")
    parser.add_argument(
        "--speeds", nargs="+", default=["bfloat16", "compiled"], choices=["bfloat16", "compiled"]
    )
    parser.add_argument("--small", action="store_true", help="a small network and batch, for a rehearsal")
    options = parser.parse_args()
    of = Checks("wrn-10-1", 16, 6, 2) if options.small else Checks("wrn-28-2", 128, 80, 3)
    failed = 0
    for name, bound, measure, arguments in checks(of, options.speeds):
        try:
            value, why = measure(*arguments), ""
        except Exception as error:  # noqa: BLE001  the other checks are still worth their time
            value, why = float("nan"), f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            traceback.print_exc()
        passed = value <= bound
        failed += not passed
        parcel.write_row(
            options.out, {"check": name, "value": value, "bound": bound, "passed": passed, "error": why}
        )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
