"""Data sets as tensors: images, given labels and true labels, whole, in data-set order.

Images are uint8 tensors (N, channels, height, width). There is no loader: a batch is an index into the
tensors, so every batch carries the identity of its examples, which label correction and analysis need.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split
from torch import Tensor

from sln import noise
from sln.cifar import read_cifar
from sln.config import Config
from sln.errors import InputError, require
from sln.files import data_folder
from sln.streams import numpy_generator

# The published split of the embedded digits: 1,150 train / 287 validation / 360 test, stratified by class.
DIGITS_SPLIT_SEED = 2021
DIGITS_TEST, DIGITS_VALIDATION = 360, 287
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """N examples of one split, in a fixed order.

    images : (N, channels, height, width) uint8
    given : (N,) int64, the labels that training sees
    true : (N,) int64; -1 where the image belongs to no class (open-set)
    """

    images: Tensor
    given: Tensor
    true: Tensor

    @property
    def wrong(self) -> Tensor:
        """(N,) bool: examples whose given label is not the true one."""
        return self.given != self.true

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """images, given, true."""
        return self.images, self.given, self.true

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, rows: slice | Tensor) -> Split:
        """Some of the examples."""
        return Split(*(values[rows] for values in self.tensors))


@dataclass(frozen=True)
class Data:
    """A data set for one run. Training and validation labels carry the inherent noise, test labels are true.

    Images may be on a GPU; labels stay on the CPU.

    scale : largest pixel value
    mean, std : of the training pixels on the scale [0, 1], one number a channel
    padding : zeros around an image before a random crop
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int = 0

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.images.device

    def to(self, device: torch.device) -> Data:
        """The same with the images on `device`."""
        parts = {name: getattr(self, name) for name in SPLITS}
        moved = {name: Split(s.images.to(device), s.given, s.true) for name, s in parts.items()}
        return dataclasses.replace(self, **moved)

    @property
    def num_classes(self) -> int:
        """C, the width of a one-hot label."""
        return len(self.classes)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, channels, H, W) -> float32, of mean 0 and deviation 1 over the training pixels."""
        mean, std = self._mean_and_std
        return (images.float() - mean) / std

    @functools.cached_property
    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        # on the device once: a captured step may not copy from the CPU
        values = (torch.tensor(values, device=self.device) for values in (self.mean, self.std))
        mean, std = (value.view(1, -1, 1, 1) * self.scale for value in values)
        return mean, std


@functools.cache
def digits() -> Data:
    """scikit-learn's handwritten digits with true labels: 1,797 images of 8x8 pixels 0..16.

    They are shipped with the library. Source: UCI "Optical Recognition of Handwritten Digits", test part.
    Split once, stratified, by DIGITS_SPLIT_SEED.
    """
    bunch = load_digits()
    images = torch.from_numpy(bunch.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    everything = np.arange(len(labels))
    rest, test = train_test_split(
        everything, test_size=DIGITS_TEST, stratify=bunch.target, random_state=DIGITS_SPLIT_SEED
    )
    train, validation = train_test_split(
        rest, test_size=DIGITS_VALIDATION, stratify=bunch.target[rest], random_state=DIGITS_SPLIT_SEED
    )
    parts = [
        Split(images[index], labels[index], labels[index])
        for index in map(torch.from_numpy, (train, validation, test))
    ]
    pixels = parts[0].images.float() / 16
    return Data(
        *parts,
        classes=tuple("0123456789"),
        scale=16.0,
        mean=(pixels.mean().item(),),
        std=(pixels.std().item(),),
    )


@functools.cache
def outside_digits() -> Tensor:
    """(884, 1, 8, 8) uint8, pixels 0..16: images that are no digit, for open-set noise.

    They are grey 24x24 tiles, averaged down to 8x8, of the two photographs that scikit-learn ships: a temple
    and a flower.
    """
    tiles = []
    for photo in load_sample_images().images:
        grey = torch.from_numpy(photo.astype(np.float32)).mean(dim=2)
        small = torch.nn.functional.avg_pool2d(grey[None], 3)[0]
        rows, columns = small.shape[0] // 8, small.shape[1] // 8
        cut = small[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).transpose(1, 2)
        tiles.append(cut.reshape(-1, 1, 8, 8))
    return (torch.cat(tiles) / 255 * 16).round().to(torch.uint8)


# The released recipe's, of the training pixels.
CIFAR_MEAN = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4867, 0.4408)}
CIFAR_STD = {"cifar10": (0.2023, 0.1994, 0.2010), "cifar100": (0.2675, 0.2565, 0.2761)}


def cifar(config: Config) -> Data:
    """CIFAR-10 or -100 with true labels, cut as `config` says, in the files' own order.

    The released recipe has no validation images (`held_out` 0). Raises InputError for files that are missing
    or damaged, and for a subset larger than the data set.
    """
    images, labels, classes = read_cifar(config.dataset, train=True)
    everything = _photographs(images, labels, config.subset, config)
    kept = len(everything) - round(config.held_out * len(everything))
    require(kept > 0, f"held_out {config.held_out} of {len(everything)} images leaves none to train on")
    images, labels, _ = read_cifar(config.dataset, train=False)
    return Data(
        train=everything[:kept],
        validation=everything[kept:],
        test=_photographs(images, labels, config.test_subset, config),
        classes=classes,
        scale=255.0,
        mean=CIFAR_MEAN[config.dataset],
        std=CIFAR_STD[config.dataset],
        padding=4 // config.downsample,  # the released recipe's 4 of 32 pixels
    )


def published_labels(dataset: str) -> np.ndarray:
    """(N,) int64: the true labels of all training images of CIFAR, in the files' order."""
    return _published_labels(dataset, data_folder())


@functools.cache
def _published_labels(dataset: str, folder: Path) -> np.ndarray:  # the folder is only part of the key
    return read_cifar(dataset, train=True)[1]


def _photographs(images: np.ndarray, labels: np.ndarray, subset: int, config: Config) -> Split:
    require(subset <= len(labels), f"a subset of {subset} images was asked for, there are {len(labels)}")
    # copies: a view would keep all images in memory
    images, labels = (values[:subset].copy() if subset else values for values in (images, labels))
    true = torch.from_numpy(labels)
    return Split(downsampled(torch.from_numpy(images), config.downsample), true, true)


def downsampled(images: Tensor, side: int) -> Tensor:
    """uint8 (N, channels, H, W) averaged over squares of `side` pixels, rounded to uint8."""
    if side == 1:
        return images
    parts = [F.avg_pool2d(part.float(), side).round().to(torch.uint8) for part in images.split(10_000)]
    return torch.cat(parts)


def clean(config: Config) -> Data:
    """The data set of `config` with true labels."""
    if config.dataset == "digits":
        return first_classes(digits(), config.num_classes)
    return cifar(config)


def first_classes(data: Data, num_classes: int) -> Data:
    """`data` with only the examples of its first `num_classes` classes."""
    parts = {name: getattr(data, name) for name in SPLITS}
    kept = {name: split[split.true < num_classes] for name, split in parts.items()}
    return dataclasses.replace(data, **kept, classes=data.classes[:num_classes])


def outside_images(config: Config) -> Tensor:
    """uint8 images of no class, to stand in the place of others in open-set noise.

    CIFAR-100's training images for CIFAR-10, as released; for the digits, see `outside_digits`.
    """
    if config.dataset == "digits":
        return outside_digits()
    images, _, _ = read_cifar("cifar100", train=True)
    return downsampled(torch.from_numpy(images), config.downsample)


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
