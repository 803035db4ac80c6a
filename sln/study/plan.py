"""What a reproduction would train, and about how long that takes on this machine."""

from __future__ import annotations

import datetime
import functools
import time
from collections.abc import Iterable

import pandas as pd
import torch
import torch.nn.functional as F

from sln import fast, runs
from sln.config import Config
from sln.data import Data, Split
from sln.datasets import clothing1m, registry
from sln.datasets.images import CIFAR_MEAN, CIFAR_STD, digits
from sln.datasets.load import threads
from sln.runs import parallel
from sln.study import experiments
from sln.study.study import Study
from sln.train import State
from sln.utils.devices import device, torchvision

# training, validation and test images
SIZES = {"digits": (1150, 287, 360), "cifar10": (50_000, 0, 10_000), "cifar100": (50_000, 0, 10_000)}
CLOTHING1M_TEST = 14_313 + 10_526  # clean validation and test images
STEPS = {"cpu": 2, "cuda": 40}  # that the calibration takes, after as many to warm up


def plan(study: Study) -> pd.DataFrame:
    """The runs of a study, one row per configuration but for its seed.

    Columns: run (without its seed), runs, found (trained already), to_train, epochs (left to train, less what
    a corrected run takes over from its uncorrected one), hours (estimated, one run at a time).
    """
    planned = experiments.planned(study)
    rows: dict[str, dict] = {}
    for config in planned:
        name = config.replace(seed=0, noise_seed=0).run_id.rsplit("-seed", 1)[0]
        row = rows.setdefault(
            name, {"run": name, "runs": 0, "found": 0, "to_train": 0, "epochs": 0, "hours": 0.0}
        )
        row["runs"] += 1
        if runs.find(config) is not None:
            row["found"] += 1
            continue
        forks = config.corrects and config.uncorrected in planned
        epochs = config.epochs - (config.correction if forks else 0)
        row["to_train"] += 1
        row["epochs"] += epochs
        row["hours"] += epochs * seconds_an_epoch(config) / 3600
    return pd.DataFrame(list(rows.values()))


def require_data(study: Study) -> None:
    """Raise InputError unless the data are there that the study's notebooks read and its missing runs need.

    Better now than after days of training.
    """
    planned = experiments.planned(study)
    configs = [c for c in planned if c.dataset == study.dataset or runs.find(c) is None]
    for dataset, noise_mode, labels in dict.fromkeys((c.dataset, c.noise_mode, c.labels) for c in configs):
        needed = [dataset] if dataset in ("cifar10", "cifar100") else []
        if dataset == "cifar10" and noise_mode == "openset":
            needed.append("cifar100")
        elif labels == "released" and noise_mode in ("sym", "asym", "dependent"):
            needed.append("sln-labels")
        for name in needed:
            if not registry.present(name):
                raise registry.missing(name)
    for model in dict.fromkeys(c.model for c in configs if c.dataset == "clothing1m"):
        clothing1m.read()
        clothing1m.imagenet_weights(model)


def at_once(configs: Iterable[Config]) -> float:
    """How many runs make progress at once: one per worker, as far as processors allow for their threads."""
    if device().type != "cpu":
        return len(set(parallel.slots()))  # several runs on one GPU share it
    threads_each = max((config.threads for config in configs), default=1)
    return min(len(parallel.slots()), max(1, parallel.processors() / threads_each))


def in_words(table: pd.DataFrame, at_once: float) -> str:
    """The plan as text: the table, and the sum."""
    total = datetime.timedelta(seconds=round(3600 * table["hours"].sum() / at_once))
    return (
        f"{table.to_string(index=False, float_format='%.2f')}\n"
        f"{table['runs'].sum()} runs, {table['found'].sum()} of them trained already; "
        f"{table['epochs'].sum()} epochs to train, about {total} with {at_once:.3g} at once on "
        f"{device()} (from a calibration of a few steps; notebooks and the decoding of JPEGs come on top)"
    )


def seconds_an_epoch(config: Config) -> float:
    """Estimated seconds of one epoch of `config`, its measurements included, from a few steps on noise."""
    if config.dataset == "clothing1m":
        forward_backward, forward = _resnet_seconds(config.model, config.batch_size, config.precision)
        images = 14 * config.num_per_class if config.num_per_class > 0 else 1_000_000
        return images * forward_backward + 2 * CLOTHING1M_TEST * forward
    train, validation, test = SIZES[config.dataset]
    if config.dataset == "digits":
        train, validation, test = (n * config.num_classes // 10 for n in (train, validation, test))
    else:
        train, test = config.subset or train, config.test_subset or test
        validation = round(config.held_out * train)
        train -= validation
    same_speed = {"seed": 0, "noise_seed": 0, "noise_mode": "none", "noise_rate": 0.0, "classes": 0}
    same_speed |= {"sigma": 0.0 if config.baseline == "sce" else 1.0, "baseline_parameter": None}
    same_speed |= {"strength": "fixed", "sigma_schedule": "constant", "noise_for": "all"}
    same_speed |= {"correction": -1, "correction_losses": "given"}
    same_speed |= {"subset": 0, "test_subset": 0, "held_out": 0.0, "epochs": 1, "measure_train_every": 1}
    same_speed |= {"measure_test_every": 1}
    forward_backward, forward = _seconds_an_image(config.replace(**same_speed))
    networks = 2 + len(config.extra_alphas)
    measured = networks * (
        test / config.measure_test_every + (validation + train) / config.measure_train_every
    )
    return train * forward_backward + measured * forward


@functools.cache
def _seconds_an_image(config: Config) -> tuple[float, float]:
    """(training, predicting): seconds an image, as its runs are trained here."""
    noise = _noise(config).to(device())
    with threads(config.threads):
        state, engine = State(config, noise), fast.engine(config, noise.device)
        engine.train_epoch(state, noise, config, 1, config.sigma)  # to warm up
        engine.predict(state.network, noise.train, noise)
        start = time.perf_counter()
        engine.train_epoch(state, noise, config, 2, config.sigma)
        trained = time.perf_counter()
        engine.predict(state.network, noise.train, noise)
        return (trained - start) / len(noise.train), (time.perf_counter() - trained) / len(noise.train)


def _noise(config: Config) -> Data:
    """STEPS batches of random pixels in the shape of the data set's images."""
    N, side = STEPS[device().type] * config.batch_size, 32 // config.downsample
    C = config.num_classes
    shape, mean, std, scale = (3, side, side), CIFAR_MEAN, CIFAR_STD, 255.0
    if config.dataset == "digits":
        shape, scale = tuple(digits().train.images.shape[1:]), 16.0
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(int(scale) + 1, (N, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(C, (N,), generator=generator)
    split = Split(images, labels, labels)
    return Data(
        split,
        split[:0],
        split[:0],
        classes=tuple(map(str, range(C))),
        scale=scale,
        mean=mean.get(config.dataset, (0.5,)),
        std=std.get(config.dataset, (0.5,)),
        padding=4 // config.downsample,
    )


@functools.cache
def _resnet_seconds(name: str, batch_size: int, precision: str) -> tuple[float, float]:
    """(training, predicting): seconds an image of Clothing1M's network, without decoding JPEGs."""
    images = torch.randn(min(batch_size, 8), 3, 224, 224).to(device())
    labels = torch.zeros(len(images), dtype=torch.long, device=device())
    with torch.random.fork_rng():
        network = getattr(torchvision().models, name)(num_classes=14).to(device())

    def seconds(train: bool) -> float:
        start = time.perf_counter()
        with (
            torch.set_grad_enabled(train),
            torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            loss = F.cross_entropy(network(images).float(), labels)
        if train:
            loss.backward()
        loss.item()  # waits for a GPU
        return (time.perf_counter() - start) / len(images)

    seconds(True)
    return seconds(True), seconds(False)
