"""All runs of a study in one list: to train them ahead, or to estimate how long that takes here."""

from __future__ import annotations

import datetime
import functools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
import torch

from sln import fast, runs
from sln.config import EMBEDDED, Config
from sln.data import Data, Split
from sln.datasets import clothing1m, download, label_files
from sln.datasets.images import CIFAR_MEAN, CIFAR_STD, clean
from sln.datasets.load import threads
from sln.runs import parallel
from sln.study import ablations, comparisons, mechanism
from sln.study.recipes import RECIPES
from sln.study.statistics import Arm
from sln.study.study import VARIANTS, Study
from sln.train import State
from sln.utils.devices import current, device
from sln.utils.files import read_json

# training, validation and test images
SIZES = {
    "digits": (1150, 287, 360),
    "letters": (2000, 500, 4000),
    "cifar10": (50_000, 0, 10_000),
    "cifar100": (50_000, 0, 10_000),
}
STEPS = {"cpu": 2, "cuda": 40}  # training steps that are timed, after as many to warm up
# settings that decide how long a training step takes
STEP = ("dataset", "model", "downsample", "batch_size", "baseline", "precision", "threads")


# --- what is trained ----------------------------------------------------------------------------------------


def planned(study: Study) -> list[Config]:
    """The runs of the notebooks, candidates of choices included, each once."""
    asked = list(_asked(study))
    return list(dict.fromkeys([*study.candidates, *study.dependent, *asked]))


def train_ahead(study: Study) -> None:
    """Train them all: first the candidates, because the others depend on the choices.

    The notebooks would train them too, but a few at a time, with idle processors at the end of each group.
    """
    guess = Study(study.name, guesses=True)
    planned(guess)
    if guess.candidates:
        study.trained(guess.candidates, f"{study.name}: candidates")
    study.trained(planned(study), f"{study.name}: all runs")


def _asked(study: Study) -> Iterator[Config]:
    profile = study.profile
    for name in profile.recipes:
        yield from (RECIPES[name].config(seed) for seed in study.seeds)
    for mode in profile.noise_modes:
        yield from _configs(study.arms(mode))
    for mode in profile.letters_modes:
        yield from _configs(study.arms(mode, dataset="letters"))
    for sigma in profile.sigma_curve:
        yield from study.over_seeds("sym", sigma, study.curve_seeds)
    for losses in ("given", "as-released"):  # notebook 3 compares both
        yield from study.correcting("sym", correction_losses=losses)
    yield from _configs(ablations.weight_arms(study))
    if profile.alphas:
        yield from study.averaging("sym")
    yield from _configs(study.variant_arms())
    yield from _configs(study.matched())
    for noise_on in VARIANTS.values():
        yield from _configs(study.strengths(noise_on, seeds=profile.choice_seeds))
    for mode in profile.comparison_modes:
        yield from _configs(comparisons.arms(study, mode))
        if mode in profile.tuned_modes:
            yield from _configs(comparisons.arms(study, mode, tuned=True))
    if profile.comparison_modes:
        yield from _configs(mechanism.late_arms(study))
    if profile.tuned_modes:
        yield from _configs(mechanism.less_sure_arms(study))
    if not profile.recipes:
        yield from _configs(ablations.clean_price_arms(study))
    if profile.noise_rates:
        yield from _configs(ablations.rate_arms(study))
        yield from _configs(ablations.noise_for_arms(study))
        yield from _configs(ablations.schedule_arms(study))
        yield from _configs(ablations.correction_arms(study))
        yield from _configs(ablations.class_arms(study))
    yield from _configs(ablations.image_arms(study))


def _configs(arms: Mapping[Any, Arm]) -> Iterable[Config]:
    return [config for arm in arms.values() for config in arm.configs]


def require_data(study: Study) -> None:
    """Raise InputError unless the data are there that the notebooks read and the missing runs need.

    Checked first, not after days of training.
    """
    configs = [c for c in planned(study) if c.dataset == study.dataset or runs.find(c) is None]
    for dataset, noise_mode, labels in dict.fromkeys((c.dataset, c.noise_mode, c.labels) for c in configs):
        needed = [dataset] if dataset in ("cifar10", "cifar100") else []
        if dataset == "cifar10" and noise_mode == "openset":
            needed.append("cifar100")
        elif labels == "released" and noise_mode in ("sym", "asym", "dependent"):
            needed.append("sln-labels")
        for name in needed:
            if not download.present(name):
                raise download.missing(name)
        if noise_mode.startswith("human"):
            label_files.human_file(dataset)
    for model in dict.fromkeys(c.model for c in configs if c.dataset == "clothing1m"):
        clothing1m.read()
        clothing1m.imagenet_weights(model)


# --- how long it takes --------------------------------------------------------------------------------------


def plan(study: Study) -> pd.DataFrame:
    """The runs of a study, one row per configuration without its seed.

    Columns: run (its name without the seed), runs, found (trained already), to_train, epochs (left to train,
    without those that a corrected run takes over from its uncorrected one), hours (estimated, one run at a
    time).
    """
    configs, timed = planned(study), trained_seconds()
    rows: dict[str, dict] = {}
    for config in configs:
        name = config.replace(seed=0, noise_seed=0).run_id.rsplit("-seed", 1)[0]
        empty = {"run": name, "runs": 0, "found": 0, "to_train": 0, "epochs": 0, "hours": 0.0}
        row = rows.setdefault(name, empty)
        row["runs"] += 1
        if runs.find(config) is not None:
            row["found"] += 1
            continue
        forks = config.corrects and config.uncorrected in configs
        epochs = config.epochs - (config.correction if forks else 0)
        row["to_train"] += 1
        row["epochs"] += epochs
        row["hours"] += epochs * (timed.get(_pace(config)) or seconds_an_epoch(config)) / 3600
    return pd.DataFrame(list(rows.values()))


def describe(table: pd.DataFrame, parallel: float) -> str:
    """The plan as text: the table, and the sum for `parallel` runs at the same time."""
    total = datetime.timedelta(seconds=round(3600 * table["hours"].sum() / parallel))
    text = (
        f"{table.to_string(index=False, float_format='%.2f', na_rep='unknown')}\n"
        f"{table['runs'].sum()} runs, {table['found'].sum()} of them trained already; "
        f"{table['epochs'].sum()} epochs to train, about {total} with {parallel:.3g} at once on "
        f"{device()} (estimated from epochs trained here, or from a few steps; notebooks come on top)"
    )
    unknown = int(table.loc[table["hours"].isna(), "to_train"].sum())
    if unknown:
        text += f"; {unknown} runs of Clothing1M come on top, unknown until one is trained"
    return text


def parallel_runs(configs: Iterable[Config]) -> float:
    """How many runs make progress at the same time: one per worker, with processors for their threads."""
    if device().type != "cpu":
        return len(set(parallel.slots()))  # several runs on one GPU share it
    threads_each = max((config.threads for config in configs), default=1)
    return min(len(parallel.slots()), max(1, parallel.processors() / threads_each))


def _pace(config: Config) -> tuple:
    """Settings that decide how long an epoch takes."""
    return tuple(getattr(config, name) for name in (*STEP, "subset", "classes", "num_per_class"))


def trained_seconds() -> dict[tuple, float]:
    """Median seconds per epoch of the finished runs that were trained on this kind of device, by `_pace`."""
    seconds = defaultdict(list)
    for run in runs.finished():
        trained_on_cpu = read_json(run.folder / "versions.json").get("device", "cpu") == "cpu"
        if trained_on_cpu == (device().type == "cpu"):
            seconds[_pace(run.config)].append(run.history["seconds"].median())
    return {pace: statistics.median(values) for pace, values in seconds.items()}


def seconds_an_epoch(config: Config) -> float:
    """Estimated seconds of one epoch of `config` with its measurements, from a few steps; NaN: unknown."""
    if config.dataset == "clothing1m":
        return math.nan
    train, validation, test = SIZES[config.dataset]
    if config.dataset == "digits":
        train, validation, test = (n * config.num_classes // 10 for n in (train, validation, test))
    elif config.dataset != "letters":
        train, test = config.subset or train, config.test_subset or test
        validation = round(config.held_out * train)
        train -= validation
    training, predicting = _seconds_an_image(*(getattr(config, name) for name in STEP))
    measured = (test + validation) / config.measure_test_every + train / config.measure_train_every
    return train * training + (2 + len(config.extra_alphas)) * measured * predicting


@functools.cache
def _seconds_an_image(*step: object) -> tuple[float, float]:
    """Seconds per image, (training, predicting), as runs with these settings (STEP) are trained here."""
    config = Config.from_dict(dict(zip(STEP, step, strict=True)) | {"sigma": 0.0, "correction": -1})
    with threads(config.threads), current(device()):
        data = (clean(config) if config.dataset in EMBEDDED else random_images(config)).to(device())
        state, engine = State(config, data), fast.engine(config, data.device)
        engine.train_epoch(state, data, config, 1, config.sigma)  # to warm up
        engine.predict(state.network, data.train, data)
        start = time.perf_counter()
        engine.train_epoch(state, data, config, 2, config.sigma)
        trained = time.perf_counter()
        engine.predict(state.network, data.train, data)
        return (trained - start) / len(data.train), (time.perf_counter() - trained) / len(data.train)


def random_images(config: Config) -> Data:
    """A few batches of random training images of CIFAR's shape."""
    N, C, side = STEPS[device().type] * config.batch_size, config.num_classes, 32 // config.downsample
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (N, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(C, (N,), generator=generator)
    split, classes = Split(images, labels, labels), tuple(map(str, range(C)))
    scale = (255.0, CIFAR_MEAN[config.dataset], CIFAR_STD[config.dataset])
    return Data(split, split[:0], split[:0], classes, *scale, padding=4 // config.downsample)
