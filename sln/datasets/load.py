"""The data of one configuration: a data set with the inherent noise that its settings ask for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sln import noise
from sln.config import CIFAR, EMBEDDED, HUMAN_NOISE, Config
from sln.data import SPLITS, Data, Split
from sln.datasets import images, label_files
from sln.datasets.images import outside_images
from sln.datasets.letters import similar_letters
from sln.noise import Corruption
from sln.train import State, predict, train_epoch
from sln.utils.devices import device
from sln.utils.errors import require
from sln.utils.files import data_folder, lock, runs_folder, write_atomically
from sln.utils.progress import Progress
from sln.utils.rng import numpy_generator

RELEASED_NOISE = ("sym", "asym", "dependent")  # the kinds in the authors' label files
AVERAGED_EPOCHS = 20  # over which the scores of instance-dependent noise are averaged
MAX_CACHED = 6  # data sets in memory; kinds of noise on the same images share these
cache: dict[tuple, Data] = {}


def load_data(config: Config) -> Data:
    """The data of `config`, inherent noise included, images on the CPU; the last ones stay in memory."""
    file = Path(config.labels)  # files and folders may change while a process runs
    version = (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None
    key = data_settings(config), runs_folder(), data_folder(), version
    data = cache.pop(key, None) or _load(data_settings(config))
    cache[key] = data  # at the end: the most recently used
    while len(cache) > MAX_CACHED:
        cache.pop(next(iter(cache)), None)
    return data


def load_clean(config: Config) -> Data:
    """The data of `config` with true labels, images on the CPU."""
    return load_data(config.replace(noise_mode="none", labels=config.default("labels")))


def data_settings(config: Config) -> Config:
    """`config` with its data's settings; all others have their defaults. Runs that agree share the data."""
    kept = ("dataset", "noise_mode", "fold", "classes", "subset", "test_subset", "held_out", "downsample")
    if config.noise_mode != "none":
        kept += ("noise_rate", "noise_seed", "labels")
    if config.noise_mode == "dependent" and config.labels != "released":
        kept += ("model", "threads")  # of the network that gives the scores
    return Config(**{name: getattr(config, name) for name in kept})


def draw_corruption(
    config: Config, *, exact: bool = True, own_class: bool = False, matrix: np.ndarray | None = None
) -> Corruption:
    """The training labels of `config`; with the other arguments at their defaults, those of its runs.

    exact : an exact count of flips (False: every example independently); for sym, asym, openset, or a matrix
    own_class : symmetric noise redraws over all classes, the own one included
    matrix : (C, C) transition matrix T[true, given] in the place of noise_mode and noise_rate
    """
    mode, clean = config.noise_mode, load_clean(config)
    true = clean.train.true.numpy()
    symmetric = mode == "sym" and matrix is None
    require(symmetric or not own_class, "own-class belongs to noise-mode sym without a matrix")
    if matrix is not None:
        return noise.from_matrix(true, matrix, seed=config.noise_seed, exact=exact)
    fixed = f"bernoulli does not go with noise-mode {mode}, whose count is fixed"
    require(exact or mode in ("sym", "asym", "openset"), fixed)
    if (filed := labels_on_file(config)) is not None:
        return filed.rows(slice(0, len(true)))
    scores = _scores(clean, config)[: len(true)] if mode == "dependent" else None
    return draw(config, true, "train", scores, exact=exact, own_class=own_class)


def labels_on_file(config: Config) -> Corruption | None:
    """The labels of the training images from the file that `config` names; None where they are drawn here."""
    human = config.noise_mode in HUMAN_NOISE.get(config.dataset, ())
    own_file = config.labels.endswith(".csv")
    if not (human or own_file or (config.labels == "released" and config.noise_mode in RELEASED_NOISE)):
        return None
    if config.dataset in CIFAR:
        true = images.read_cifar(config.dataset, train=True)[1]  # files have a row for every image
    else:
        true = images.clean(config).train.true.numpy()
    if human:
        filed = label_files.human(config.dataset, config.noise_mode, true)
    elif own_file:
        filed = label_files.from_csv(Path(config.labels), true, config.num_classes)
    else:
        filed = label_files.released(config.dataset, config.noise_mode, config.noise_rate, true)
    return filed.rows(images.block(config.subset, config.fold, len(true)))


def labels_are_pinned(config: Config) -> bool:
    """Whether `config` alone fixes the labels: no CSV of your own, and no network that gives scores."""
    drawn_by_network = config.noise_mode == "dependent" and config.labels == "generated"
    return not (config.labels.endswith(".csv") or drawn_by_network)


def _load(config: Config) -> Data:
    if config.noise_mode == "none":
        return images.clean(config)
    clean, filed = load_clean(config), labels_on_file(config)
    drawn = filed is None or len(filed.given) < len(clean.train) + len(clean.validation)
    scores = _scores(clean, config) if config.noise_mode == "dependent" and drawn else None
    return corrupt(clean, config, scores, filed)


def _scores(clean: Data, config: Config) -> np.ndarray:
    """(N_train + N_validation, C) scores for instance-dependent noise, computed once, saved beside the runs.

    Training and validation images have networks of their own: validation labels with one network's mistakes
    would favour whoever imitates these.
    """
    base = data_settings(config.replace(labels="generated"))
    name = f"scores-{base.dataset}-seed{base.noise_seed}-{base.replace(noise_rate=0.4).digest()}"
    path = runs_folder() / f"{name}.npy"
    if path.exists():  # the folder may be one that is only read
        return np.load(path, allow_pickle=False)
    with lock(name):
        if not path.exists():
            what, quiet = "scores of instance-dependent noise", base.dataset in EMBEDDED  # a second or two
            parts = [slice(0, len(clean.train)), slice(len(clean.train), None)]
            networks = parts if len(clean.validation) else parts[:1]
            epochs, images = AVERAGED_EPOCHS, clean.to(device())
            progress = Progress(epochs * len(networks), what, "epochs", quiet=quiet)
            with threads(base.threads), progress:
                scores = [
                    averaged_softmax(images, base, epochs, network, progress.advance)[rows]
                    for network, rows in enumerate(networks)
                ]
            write_atomically(path, lambda temporary: np.save(temporary, np.concatenate(scores)))
        return np.load(path, allow_pickle=False)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """A context of `number` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def corrupt(
    clean: Data, config: Config, scores: np.ndarray | None = None, filed: Corruption | None = None
) -> Data:
    """`clean` with the inherent noise that `config` asks for: training and validation at the same rate.

    scores : (N_train + N_validation, C), averaged softmax outputs, for `noise_mode="dependent"` only
    filed : the labels of a file, first of the training and then of the validation images; validation labels
        that the file does not have are drawn
    """
    corrupted = {}
    for part, start in (("train", 0), ("validation", len(clean.train))):
        split: Split = getattr(clean, part)
        rows = slice(start, start + len(split))
        if len(split) == 0:  # nothing held out
            continue
        if filed is not None and rows.stop <= len(filed.given):
            corruption = filed.rows(rows)
        else:
            corruption = draw(config, split.true.numpy(), part, None if scores is None else scores[rows])
        images = split.images
        if corruption.replaced_by is not None:
            index, images = torch.from_numpy(corruption.replaced_by), images.clone()
            outside = outside_images(config)
            what = f"replaced_by is up to {index.max()} in {config.labels}"
            require(index.max() < len(outside), f"{what}, but there are {len(outside)} images of no class")
            images[index >= 0] = outside[index[index >= 0]]
        corrupted[part] = Split(images, torch.from_numpy(corruption.given), torch.from_numpy(corruption.true))
    return dataclasses.replace(clean, **corrupted)


def draw(
    config: Config, true: np.ndarray, part: str, scores: np.ndarray | None = None, *,
    exact: bool = True, own_class: bool = False,
) -> Corruption:  # fmt: skip
    """The inherent noise of split `part`: `config`'s mode, rate and noise_seed on true labels (N,)."""
    C, rate, seed = config.num_classes, config.noise_rate, config.noise_seed
    how = {"seed": seed, "split": SPLITS.index(part), "exact": exact}
    match config.noise_mode:
        case "sym":
            return noise.symmetric(true, C, rate, own_class=own_class, **how)
        case "asym":
            return noise.asymmetric(true, C, rate, class_map(config.dataset, C), **how)
        case "openset":
            return noise.open_set(true, C, len(outside_images(config)), rate, **how)
        case "dependent":
            needed = "instance-dependent noise needs a network's averaged softmax; use load_data"
            require(scores is not None, needed)
            return noise.instance_dependent(true, scores, rate, seed=seed)
    return noise.none(true, C)


def class_map(dataset: str, num_classes: int) -> dict[int, int]:
    """The class that each class becomes in the data set's asymmetric noise."""
    maps = {"digits": noise.DIGITS_MAP, "letters": similar_letters(num_classes)}
    return (maps | {"cifar10": noise.CIFAR10_MAP, "cifar100": noise.next_class_map(100)})[dataset]


def averaged_softmax(
    clean: Data, config: Config, epochs: int, network: int = 0, advance: Callable[[], None] = lambda: None
) -> np.ndarray:
    """(N_train + N_validation, C): softmax outputs averaged over `epochs`, for instance-dependent noise.

    The network is `config`'s, trained by plain cross-entropy on the *true* labels of the same images (Chen et
    al., AAAI 2021). Its seed is drawn from (`config.noise_seed`, `network`): it is not that of a run.
    """
    both = Split(*map(torch.cat, zip(clean.train.tensors, clean.validation.tensors, strict=True)))
    everything = dataclasses.replace(clean, train=both)
    seed = int(numpy_generator(config.noise_seed, "instance-dependent noise", network).integers(2**32))
    settings = {"noise_mode": "none", "sigma": 0.0, "correction": -1, "extra_alphas": ()}
    config = config.replace(**settings, epochs=epochs, seed=seed)
    state = State(config, everything)
    mean = torch.zeros(len(both), clean.num_classes)
    for epoch in range(1, epochs + 1):
        train_epoch(state, everything, config, epoch, sigma=0.0)
        mean += F.softmax(predict(state.network, both, everything), dim=1) / epochs
        advance()
    return mean.double().numpy()
