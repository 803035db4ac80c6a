"""The images of the data sets in memory, with true labels: the embedded digits, drawn letters, CIFAR."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sln.config import Config
from sln.data import SPLITS, Data, Split
from sln.datasets.download import DATAPATHS, cifar_root
from sln.datasets.letters import letters, outside_letters
from sln.utils.devices import torchvision
from sln.utils.errors import choose, require

# the folds are the test sets, 359 or 360 images each; 287 or 288 of the others are for validation
DIGITS_SPLIT_SEED, DIGITS_FOLDS, DIGITS_TRAIN = 2021, 5, 1150


@functools.cache
def digits(fold: int = 0) -> Data:
    """scikit-learn's handwritten digits with true labels: 1,797 images of 8x8 pixels 0..16.

    The images ship with scikit-learn. Source: UCI "Optical Recognition of Handwritten Digits", test part.
    Fold `fold` mod 5 is the test set, so five runs of different folds test every image once.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold, train_test_split

    bunch = load_digits()
    images = torch.from_numpy(bunch.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    folds = StratifiedKFold(DIGITS_FOLDS, shuffle=True, random_state=DIGITS_SPLIT_SEED)
    rest, test = list(folds.split(bunch.data, bunch.target))[fold % DIGITS_FOLDS]
    train, validation = train_test_split(
        rest, train_size=DIGITS_TRAIN, stratify=bunch.target[rest], random_state=DIGITS_SPLIT_SEED
    )
    everything = Split(images, labels, labels)
    parts = [everything[index] for index in map(torch.from_numpy, (train, validation, test))]
    pixels = parts[0].images.float() / 16
    return Data(*parts, tuple("0123456789"), 16.0, (pixels.mean().item(),), (pixels.std().item(),))


@functools.cache
def outside_digits() -> Tensor:
    """(884, 1, 8, 8) uint8, pixels 0..16: images that are no digit, for open-set noise.

    They are grey 24x24 tiles, averaged down to 8x8, of scikit-learn's photographs of a temple and a flower.
    """
    from sklearn.datasets import load_sample_images

    tiles = []
    for photo in load_sample_images().images:
        small = F.avg_pool2d(torch.from_numpy(photo.astype(np.float32)).mean(dim=2)[None], 3)[0]
        tiles.append(small.unfold(0, 8, 8).unfold(1, 8, 8).reshape(-1, 1, 8, 8))
    return (torch.cat(tiles) / 255 * 16).round().to(torch.uint8)


# Mean and standard deviation of the training pixels, as in the released recipe.
CIFAR_MEAN = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4867, 0.4408)}
CIFAR_STD = {"cifar10": (0.2023, 0.1994, 0.2010), "cifar100": (0.2675, 0.2565, 0.2761)}


def cifar(config: Config) -> Data:
    """CIFAR-10 or -100 with true labels, cut by `config`'s settings, in the files' order."""
    images, labels, classes = read_cifar(config.dataset, train=True)
    everything = _photographs(images, labels, block(config.subset, config.fold, len(labels)), config)
    kept = len(everything) - round(config.held_out * len(everything))
    require(kept > 0, f"held_out {config.held_out} of {len(everything)} images leaves none to train on")
    images, labels, _ = read_cifar(config.dataset, train=False)
    test = _photographs(images, labels, block(config.test_subset, config.fold, len(labels)), config)
    mean, std = CIFAR_MEAN[config.dataset], CIFAR_STD[config.dataset]
    padding = 4 // config.downsample  # the released recipe's 4 of 32 pixels
    return Data(everything[:kept], everything[kept:], test, classes, 255.0, mean, std, padding)


def block(subset: int, fold: int, total: int) -> slice:
    """Block `fold` of `subset` images among `total`, the first again after the last whole one; 0: all."""
    require(subset <= total, f"a subset of {subset} images was asked for, there are {total}")
    start = fold % (total // subset) * subset if subset else 0
    return slice(start, start + (subset or total))


def _photographs(images: np.ndarray, labels: np.ndarray, rows: slice, config: Config) -> Split:
    # copies: a view would keep all images in memory
    images, true = (torch.from_numpy(values[rows].copy()) for values in (images, labels))
    return Split(downsampled(images, config.downsample), true, true)


def downsampled(images: Tensor, side: int) -> Tensor:
    """uint8 (N, channels, H, W) averaged over squares of `side` pixels, rounded to uint8."""
    if side == 1:
        return images
    parts = [F.avg_pool2d(part.float(), side).round().to(torch.uint8) for part in images.split(10_000)]
    return torch.cat(parts)


def clean(config: Config) -> Data:
    """The data set of `config` with true labels."""
    if config.dataset == "digits":
        return first_classes(digits(config.fold), config.num_classes)
    if config.dataset == "letters":
        return letters(config.num_classes, config.fold)
    return cifar(config)


def first_classes(data: Data, num_classes: int) -> Data:
    """`data` with only the examples of its first `num_classes` classes."""
    parts = ((name, getattr(data, name)) for name in SPLITS)
    kept = {name: split[split.true < num_classes] for name, split in parts}
    return dataclasses.replace(data, **kept, classes=data.classes[:num_classes])


def outside_images(config: Config) -> Tensor:
    """uint8 images of no class, for open-set noise; CIFAR-10's are those of CIFAR-100, as released."""
    if config.dataset == "digits":
        return outside_digits()
    if config.dataset == "letters":
        return outside_letters(config.num_classes, config.fold)
    return downsampled(torch.from_numpy(read_cifar("cifar100", train=True)[0]), config.downsample)


def read_cifar(dataset: str, train: bool) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images, true labels and class names of CIFAR-10 or -100 (Krizhevsky, 2009), in the files' order.

    Images are (N, 3, 32, 32) uint8, contiguous; labels (N,) int64, fine ones for CIFAR-100. The files are
    pickles, which can run code when they are read. So `cifar_root` checks the MD5 of every file first.
    """
    choose("CIFAR data set", dataset, DATAPATHS)
    kind = getattr(torchvision().datasets, DATAPATHS[dataset])
    files = kind(cifar_root(dataset), train=train, download=False)
    images = np.ascontiguousarray(files.data.transpose(0, 3, 1, 2))
    return images, np.array(files.targets, dtype=np.int64), tuple(files.classes)
