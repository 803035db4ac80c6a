"""Data sets as tensors: images, given labels and true labels, whole, in data-set order.

Images are uint8 tensors (N, channels, height, width). There is no loader: a batch is an index into the
tensors, so every batch carries the identity of its examples, which label correction and analysis need.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import torch
from torch import Tensor

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """N examples of one split, in a fixed order."""

    images: Tensor  # (N, channels, height, width) uint8
    given: Tensor  # (N,) int64, the labels that training sees
    true: Tensor  # (N,) int64; -1 where the image belongs to no class (open-set)

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
    """A data set for one run: test labels are true; images may be on a GPU, labels stay on the CPU."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    scale: float  # largest pixel value
    mean: tuple[float, ...]  # of the training pixels on the scale [0, 1], one number a channel
    std: tuple[float, ...]  # likewise
    padding: int = 0  # zeros around an image before a random crop

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.images.device

    def to(self, device: torch.device) -> Data:
        """The same with the images on `device`."""
        parts = ((name, getattr(self, name)) for name in SPLITS)
        moved = {name: dataclasses.replace(split, images=split.images.to(device)) for name, split in parts}
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
        both = torch.tensor([self.mean, self.std], device=self.device).view(2, 1, -1, 1, 1) * self.scale
        return both[0], both[1]
