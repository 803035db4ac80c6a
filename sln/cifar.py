"""CIFAR-10 and CIFAR-100 from the published files, which are checked before anything of them is read."""

from __future__ import annotations

import numpy as np

from sln.errors import choose
from sln.sources import DATAPATHS, cifar_root
from sln.vision import torchvision


def read_cifar(dataset: str, train: bool) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images, true labels and class names of CIFAR-10 or -100 (Krizhevsky, 2009), in the files' order.

    The files are pickles, which run code when they are read, so every one must have its published MD5 first:
    `cifar_root` checks them all, and torchvision, which reads them, does so again.

    Returns images (N, 3, 32, 32) uint8, contiguous; labels (N,) int64, fine ones for CIFAR-100; the names.
    Raises InputError for files that are missing or have another MD5, with the command that gets them.
    """
    choose("CIFAR data set", dataset, DATAPATHS)
    kind = getattr(torchvision().datasets, DATAPATHS[dataset])
    files = kind(cifar_root(dataset), train=train, download=False)
    images = np.ascontiguousarray(files.data.transpose(0, 3, 1, 2))
    return images, np.array(files.targets, dtype=np.int64), tuple(files.classes)
