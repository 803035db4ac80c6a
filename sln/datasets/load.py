"""The data of one configuration: a data set with the inherent noise that its settings ask for."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sln import noise
from sln.config import HUMAN_NOISE, Config
from sln.data import SPLITS, Data, Split
from sln.datasets import images, label_files
from sln.datasets.images import outside_digits, outside_images, published_labels
from sln.noise import Corruption
from sln.train import State, predict, train_epoch
from sln.utils.devices import device
from sln.utils.errors import InputError
from sln.utils.files import data_folder, lock, runs_folder, write_atomically
from sln.utils.progress import Progress
from sln.utils.rng import numpy_generator

# What the authors' label files hold.
RELEASED_NOISE, RELEASED_RATE = ("sym", "asym", "dependent"), 0.4
# Epochs over which the scores of instance-dependent noise are averaged.
AVERAGED_EPOCHS = 20


def load_data(config: Config) -> Data:
    """The data of `config`, inherent noise included, images on the CPU; kept in memory for the next run."""
    # files may change while this process lives: where they are and what they are is part of the cache's key
    path = Path(config.labels)
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    load = _load if config.dataset == "digits" else _load_photographs
    return load(data_settings(config), runs_folder(), data_folder(), stamp)


def load_clean(config: Config) -> Data:
    """The data of `config` with true labels, images on the CPU; kept in memory."""
    return load_data(config.replace(noise_mode="none", labels=config.default("labels")))


def data_settings(config: Config) -> Config:
    """`config` with only the settings kept that decide its data: the runs that share them share the data."""
    kept = ("dataset", "noise_mode", "classes", "subset", "test_subset", "held_out", "downsample")
    if config.noise_mode != "none":
        kept += ("noise_rate", "noise_seed", "labels")
    settings = {name: getattr(config, name) for name in kept}
    if config.noise_mode == "dependent" and config.labels != "released":
        settings |= {
            name: getattr(config, name) for name in ("model", "threads")
        }  # of the network that scores
    return Config(**settings)


def draw_corruption(config: Config, *, exact: bool = True, own_class: bool = False) -> Corruption:
    """The training labels of `config` as a Corruption, to look at or to save.

    With the defaults of `exact` and `own_class` they are the labels that its runs train on.
    """
    clean = load_clean(config)
    true, scores = clean.train.true.numpy(), None
    filed = labels_on_file(config)
    if filed is not None:
        return filed.rows(slice(0, len(true)))
    if config.noise_mode == "dependent":
        scores = _scores(clean, config)[: len(true)]
    return draw(config, true, clean.num_classes, "train", scores, exact=exact, own_class=own_class)


def labels_on_file(config: Config) -> Corruption | None:
    """The labels of all training images from the file that `config` names; None where they are drawn here.

    The released label files are for symmetric, asymmetric and instance-dependent noise, human labels are
    CIFAR-N's, and any label CSV may be named. Open-set noise was never released as a file.
    """
    mode, own_file = config.noise_mode, config.labels.endswith(".csv")
    human = mode in HUMAN_NOISE.get(config.dataset, ())
    if not (human or own_file or (config.labels == "released" and mode in RELEASED_NOISE)):
        return None
    digits = config.dataset == "digits"
    true = images.clean(config).train.true.numpy() if digits else published_labels(config.dataset)
    if human:
        return label_files.human(config.dataset, mode, true)
    if own_file:
        return label_files.from_file(Path(config.labels), true, config.num_classes)
    return label_files.released(config.dataset, mode, config.noise_rate, true)


def labels_are_pinned(config: Config) -> bool:
    """Whether `config` alone fixes the labels: they are drawn from its seed, or a file of known checksum.

    Not so for a file of the user's, and for labels that depend on a network that some machine trained.
    """
    if config.labels.endswith(".csv"):
        return False
    if config.noise_mode == "dependent" and config.labels == "generated":
        return False
    own = config.labels == "released" and config.noise_mode in RELEASED_NOISE
    return not own or config.dataset == "clothing1m" or config.noise_rate == RELEASED_RATE


@functools.lru_cache(maxsize=32)
def _load(config: Config, runs: Path, folder: Path, stamp: object) -> Data:
    if config.noise_mode == "none":
        return images.clean(config)
    clean, filed = load_clean(config), labels_on_file(config)
    scores, wanted = None, len(clean.train) + len(clean.validation)
    if config.noise_mode == "dependent" and (filed is None or len(filed.given) < wanted):
        scores = _scores(clean, config)
    return corrupt(clean, config, scores, filed)


# photographs are large: a few kinds of noise at once
_load_photographs = functools.lru_cache(maxsize=4)(_load.__wrapped__)


def _scores(clean: Data, config: Config) -> np.ndarray:
    """Averaged softmax outputs for instance-dependent noise, computed once and kept beside the runs."""
    base = data_settings(config.replace(labels="generated"))
    name = f"averaged-softmax-{base.dataset}-seed{base.noise_seed}-{base.replace(noise_rate=0.4).digest()}"
    path = runs_folder() / f"{name}.npy"
    with lock(name):
        if not path.exists():
            what, quiet = "scores of instance-dependent noise", base.dataset == "digits"  # a second or two
            with threads(base.threads), Progress(AVERAGED_EPOCHS, what, "epochs", quiet=quiet) as progress:
                scores = averaged_softmax(clean.to(device()), base, AVERAGED_EPOCHS, progress.advance)
            buffer = io.BytesIO()
            np.save(buffer, scores)
            write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))
        return np.load(path, allow_pickle=False)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Use `number` CPU threads inside, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def corrupt(
    clean: Data,
    config: Config,
    scores: np.ndarray | None = None,
    filed: noise.Corruption | None = None,
) -> Data:
    """`clean` with the inherent noise that `config` asks for.

    Training and validation are corrupted at the same rate, each by its own stream of random numbers; test
    labels stay true.

    scores : (N_train + N_validation, C), averaged softmax outputs, for `noise_mode="dependent"` only
    filed : the labels of a file, of the training and then the validation images; validation labels that the
        file does not reach are drawn
    """
    start, corrupted = 0, {}
    for part in ("train", "validation"):
        split: Split = getattr(clean, part)
        rows = slice(start, start + len(split))
        start += len(split)
        if len(split) == 0:  # nothing held out
            corrupted[part] = split
            continue
        if filed is not None and rows.stop <= len(filed.given):
            corruption = filed.rows(rows)
        else:
            part_scores = None if scores is None else scores[rows]
            corruption = draw(config, split.true.numpy(), clean.num_classes, part, part_scores)
        images = split.images
        if corruption.replaced_by is not None:
            replaced = torch.from_numpy(corruption.replaced_by >= 0)
            images = images.clone()
            images[replaced] = outside_images(config)[torch.from_numpy(corruption.replaced_by)[replaced]]
        corrupted[part] = Split(images, torch.from_numpy(corruption.given), torch.from_numpy(corruption.true))
    return dataclasses.replace(clean, **corrupted)


def draw(
    config: Config,
    true: np.ndarray,
    num_classes: int,
    part: str,
    scores: np.ndarray | None = None,
    *,
    exact: bool = True,
    own_class: bool = False,
) -> noise.Corruption:
    """The inherent noise of split `part`: `config`'s mode, rate and noise_seed on true labels (N,).

    Runs use exact counts. `scores` (N, C) are for `noise_mode="dependent"` only.
    """
    rng = numpy_generator(config.noise_seed, "inherent noise", SPLITS.index(part))
    rate, seed = config.noise_rate, config.noise_seed
    match config.noise_mode:
        case "sym":
            return noise.symmetric(
                true, num_classes, rate, seed=seed, rng=rng, exact=exact, own_class=own_class
            )
        case "asym":
            return noise.asymmetric(
                true, num_classes, rate, class_map(config.dataset), seed=seed, rng=rng, exact=exact
            )
        case "dependent":
            if scores is None:
                raise InputError(
                    "instance-dependent noise needs the averaged softmax outputs of a network: "
                    "loading.load_data gives them"
                )
            return noise.instance_dependent(true, scores, rate, seed=seed)
        case "openset":
            outside = (
                len(outside_digits()) if config.dataset == "digits" else len(published_labels("cifar100"))
            )
            return noise.open_set(true, num_classes, outside, rate, seed=seed, rng=rng, exact=exact)
        case _:
            return noise.none(true, num_classes)


def class_map(dataset: str) -> dict[int, int]:
    """Which class becomes which in the data set's asymmetric noise."""
    return {
        "digits": noise.DIGITS_MAP,
        "cifar10": noise.CIFAR10_MAP,
        "cifar100": noise.next_class_map(100),
    }[dataset]


def averaged_softmax(
    clean: Data, config: Config, epochs: int, advance: Callable[[], None] = lambda: None
) -> np.ndarray:
    """(N_train + N_validation, C): softmax outputs averaged over `epochs`, for instance-dependent noise.

    The network is `config`'s, trained by plain cross-entropy on the *true* labels of the same training and
    validation images (Chen et al., AAAI 2021). Its seed is `config.noise_seed`. `advance` is called after
    every epoch.
    """
    both = Split(
        *(
            torch.cat([getattr(clean.train, name), getattr(clean.validation, name)])
            for name in ("images", "given", "true")
        )
    )
    everything = dataclasses.replace(clean, train=both)
    config = config.replace(
        noise_mode="none", sigma=0.0, correction=-1, extra_alphas=(), epochs=epochs, seed=config.noise_seed
    )
    state = State(config, everything)
    mean = torch.zeros(len(both), clean.num_classes)
    for epoch in range(1, epochs + 1):
        train_epoch(state, everything, config, epoch, sigma=0.0)
        mean += F.softmax(predict(state.network, both, everything), dim=1) / epochs
        advance()
    return mean.double().numpy()
