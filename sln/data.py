"""Data sets as tensors: images, given labels and true labels, whole, in data-set order.

Images are uint8 tensors (N, channels, height, width). There is no loader: a batch is an index into the
tensors, so every batch carries the identity of its examples, which label correction and analysis need.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split
from torch import Tensor

from sln import noise
from sln.config import Config
from sln.errors import InputError
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

    def __len__(self) -> int:
        return len(self.given)


@dataclass(frozen=True)
class Data:
    """A data set for one run. Training and validation labels carry the inherent noise, test labels are true.

    scale : largest pixel value
    mean, std : of the training pixels on the scale [0, 1], one number a channel
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """C, the width of a one-hot label."""
        return len(self.classes)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, channels, H, W) -> float32, of mean 0 and deviation 1 over the training pixels."""
        mean = torch.tensor(self.mean).view(1, -1, 1, 1) * self.scale
        std = torch.tensor(self.std).view(1, -1, 1, 1) * self.scale
        return (images.float() - mean) / std


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


def corrupt(clean: Data, config: Config, scores: np.ndarray | None = None) -> Data:
    """`clean` with the inherent noise that `config` asks for.

    Training and validation are corrupted at the same rate, each by its own stream of random numbers; test
    labels stay true.

    scores : (N_train + N_validation, C), averaged softmax outputs, for `noise_mode="dependent"` only
    """
    bounds = {"train": slice(0, len(clean.train)), "validation": slice(len(clean.train), None)}
    corrupted = {}
    for part, rows in bounds.items():
        split: Split = getattr(clean, part)
        corruption = draw(
            config, split.true.numpy(), clean.num_classes, part, None if scores is None else scores[rows]
        )
        images = split.images
        if corruption.replaced_by is not None:
            replaced = torch.from_numpy(corruption.replaced_by >= 0)
            images = images.clone()
            images[replaced] = outside_digits()[torch.from_numpy(corruption.replaced_by)[replaced]]
        corrupted[part] = Split(images, torch.from_numpy(corruption.given), torch.from_numpy(corruption.true))
    return Data(
        **corrupted, test=clean.test, classes=clean.classes, scale=clean.scale, mean=clean.mean, std=clean.std
    )


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
                true, num_classes, rate, noise.DIGITS_MAP, seed=seed, rng=rng, exact=exact
            )
        case "dependent":
            if scores is None:
                raise InputError(
                    "instance-dependent noise needs the averaged softmax outputs of a network: "
                    "loading.load_data gives them"
                )
            return noise.instance_dependent(true, scores, rate, seed=seed)
        case "openset":
            return noise.open_set(
                true, num_classes, len(outside_digits()), rate, seed=seed, rng=rng, exact=exact
            )
        case _:
            return noise.none(true, num_classes)
