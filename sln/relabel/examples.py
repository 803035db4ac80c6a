"""Labelled images (or features) for cross-fitting, checked."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sln.relabel import copies, kinds
from sln.relabel.copies import image_hashes, singletons
from sln.utils.errors import InputError, require


@dataclass(frozen=True)
class Examples:
    """N labelled images (or features), checked."""

    images: Tensor  # (N, channels, H, W), any real type; features are (N, D, 1, 1)
    given: Tensor  # (N,) int64, the given labels as indices into `classes`
    classes: tuple[Hashable, ...]  # the labels' names, sorted
    groups: np.ndarray  # (N,) int64; a group is never split between training and held-out examples
    index: pd.Index | None = None  # (N,) of the labels or images, if they are of pandas

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of everything that a network is trained on."""
        content = hashlib.sha256(f"{self.images.dtype} {tuple(self.images.shape)}".encode())
        for values in (self.images, self.given):
            content.update(np.ascontiguousarray(values.numpy()).tobytes())
        return content.digest()


def checked(images: Any, labels: Any = None, groups: Any = None) -> Examples:
    """The examples (`kinds`), checked. Raises InputError for input that `fit` does not allow."""
    for values, what in ((labels, "labels"), (groups, "groups")):
        kinds.same_order(images, values, what)
    pixels, own = kinds.unpacked(images, labels)
    values = kinds.values_of(own)
    sorts = {str if isinstance(value, str) else bool if isinstance(value, bool) else None for value in values}
    try:
        classes = tuple(sorted(set(values)))
    except TypeError:
        sorts = {str, None}
    require(len(sorts) == 1, "labels must be all numbers or all names, one per example")
    index = {name: number for number, name in enumerate(classes)}
    given = torch.tensor([index[value] for value in values])
    require(len(pixels) == len(given), f"there are {len(pixels)} images and {len(given)} labels")
    if groups is not None:
        named = kinds.values_of(groups, "groups")
    elif pixels.shape[2:] == (1, 1):
        named = image_hashes(pixels)
    else:
        found = copies.find(copies.thumbnails(pixels), image_hashes(pixels), given.numpy())
        named = found.groups.tolist()
    require(len(named) == len(given), f"there are {len(given)} images and {len(named)} groups")
    try:
        group = pd.factorize(np.array([*named, None], dtype=object)[:-1], sort=True)[0]
    except TypeError:
        raise InputError("groups are of kinds that cannot be sorted; give numbers or names") from None
    require(len(classes) >= 2, f"all labels are {classes[0]!r}; there is nothing to tell apart")
    left = len(classes) - len({*given[singletons(given.numpy(), group)].tolist()})
    where = "different images" if groups is None else "images of different groups"
    require(left >= 2, f"{left or 'no'} labels are on two {where}; two are needed, or nothing can be judged")
    indices = (getattr(of, "index", None) for of in (labels, images))
    index_of = next((of for of in indices if isinstance(of, pd.Index)), None)
    return Examples(pixels, given, classes, group, index_of)
