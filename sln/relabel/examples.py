"""Labelled images (or features) for cross-fitting, checked."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sln.utils.errors import InputError, require

SMALLEST_SIDE = 8  # pixels; smaller images would vanish in the pooling layers


@dataclass(frozen=True)
class Examples:
    """N labelled images (or features), checked."""

    images: Tensor  # (N, channels, H, W), any real type; features are (N, D, 1, 1)
    given: Tensor  # (N,) int64, the given labels as indices into `classes`
    classes: tuple[Hashable, ...]  # the labels' names, sorted
    groups: np.ndarray  # (N,) int64; a group is never split between training and held-out examples

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of everything that a network is trained on."""
        content = hashlib.sha256(f"{self.images.dtype} {tuple(self.images.shape)}".encode())
        for values in (self.images, self.given):
            content.update(np.ascontiguousarray(values.numpy()).tobytes())
        return content.digest()


def checked(images: Tensor | np.ndarray, labels: Sequence, groups: Sequence[int] | None = None) -> Examples:
    """The examples, checked. Raises InputError for input that `fit` does not allow."""
    pixels = pixels_of(images)
    values = labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else list(labels)
    require(all(value == value for value in values), "some labels are missing (NaN)")
    try:
        classes = tuple(sorted(set(values)))
    except TypeError:
        raise InputError("labels must be all numbers or all names, one per example") from None
    index = {name: number for number, name in enumerate(classes)}
    given = torch.tensor([index[value] for value in values])
    require(len(pixels) == len(given), f"there are {len(pixels)} images and {len(given)} labels")
    groups = np.asarray(image_hashes(pixels) if groups is None else groups)
    require(groups.shape == (len(given),), f"groups has shape {groups.shape}, expected one value per example")
    groups = np.unique(groups, return_inverse=True)[1]
    require(len(classes) >= 2, f"all labels are {classes[0]!r}; there is nothing to tell apart")
    alone = singletons(given.numpy(), groups)
    if len(alone):
        raise InputError(
            f"label {classes[given[alone[0]]]!r} is on one image only (row {alone[0]}), so no network could "
            f"judge it; leave out labels that are not on two different images ({len(alone)} examples)"
        )
    return Examples(pixels, given, classes, groups)


def singletons(given: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rows (n,) of examples whose label, 0..C-1, is in no other group, so that it cannot be learnt."""
    pairs = np.unique(np.stack([given, groups]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0])[given] < 2)


def image_hashes(images: Tensor) -> list[str]:
    """(N,) SHA-256 of the pixels of every image, the same for identical images."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images.contiguous().numpy()]


def pixels_of(images: Tensor | np.ndarray) -> Tensor:
    """(N, channels, H, W), or features (N, D, 1, 1)."""
    # NumPy allows negative strides, such as BGR viewed as RGB; torch does not
    pixels = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images).cpu()
    require(pixels.dtype != torch.bool and not pixels.is_complex(), "images must be real numbers")
    pixels, shape = pixels.float() if pixels.dtype == torch.float64 else pixels, tuple(pixels.shape)
    features, grey = pixels.ndim == 2, pixels.ndim == 3
    pixels = pixels[:, :, None, None] if features else pixels[:, None] if grey else pixels
    fits = pixels.ndim == 4 and (
        features or (pixels.shape[1] <= 4 and min(pixels.shape[2:]) >= SMALLEST_SIDE)
    )
    require(
        fits and len(pixels) > 0,
        f"images have shape {shape}; allowed are (N, channels, H, W) with 1 to 4 channels, grey (N, H, W), "
        f"both with at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, and features (N, D)",
    )
    require(bool(pixels.isfinite().all()), "images have infinite or missing pixels")
    return pixels
