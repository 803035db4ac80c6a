"""Images that belong together: identical ones, near copies, and what a user says. They stay in one fold.

A network that was trained on a copy of an image, with the same wrong label, predicts that wrong label. Near
copies differ in brightness, contrast, compression, noise or size. They are found by the correlation of their
thumbnails, 8 x 8 pixels in colour. Turned or cropped ones are rarely found, but can be named. So can mirrored
ones: in CIFAR-10, of 20 pairs whose mirrored thumbnails are as alike, 10 were other objects in the same sky.

Chosen on CIFAR-10: of 50,000 images 335 are near copies of others (of 5,000, 4). Of copies that were saved as
JPEG of quality 50 or 75, made brighter or darker by 10%, blurred or got noise, 99% to 100% are found; of
crops by one pixel of 32 72%, by two 20%. Of the 1,797 digits 4 are near copies, of the same class each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sln.utils.errors import require

SIDE = 8  # pixels of a thumbnail
LIKENESS = (
    0.975,
    0.985,
    0.995,
    0.999,
)  # correlations above which two images are near copies; the first that fits
LARGEST, SHARE = 10, 0.1  # no group of near copies has more images, or more of all images
BLOCK = 512  # images that are compared with others at once
PAIRS = 20  # per image; more are no copies


@dataclass(frozen=True)
class Copies:
    """Which of N images belong together."""

    groups: np.ndarray  # (N,) int64, the same number for images that stay in one fold
    exact: int = 0  # images that are identical to an earlier one
    near: int = 0  # further images that are near copies of an earlier one
    likeness: float | None = None  # correlation of near copies; None: all images look too much alike


def image_hashes(images: Tensor) -> list[str]:
    """(N,) SHA-256 of the pixels of every image, the same for identical images."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images.contiguous().numpy()]


def singletons(given: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rows (n,) of examples whose label, 0..C-1, is in no other group, so that it cannot be learnt."""
    pairs = np.unique(np.stack([given, groups]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0])[given] < 2)


def differing(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) bool: whether an example of the same group has another label."""
    pairs = np.unique(np.stack([groups, labels]), axis=1)[0]
    return np.isin(groups, pairs[1:][np.diff(pairs) == 0])


def thumbnails(images: Tensor) -> Tensor:
    """(N, channels x 64) float32: images (N, channels, H, W) in 8 x 8 pixels."""
    return torch.cat([F.adaptive_avg_pool2d(part.float(), SIDE).flatten(1) for part in images.split(1024)])


def find(small: Tensor, hashes: Sequence, given: np.ndarray) -> Copies:
    """The identical images and near copies.

    small : (N, D) `thumbnails`; hashes : (N,) equal for identical images; given : (N,) labels, 0..C-1

    What all images have in common, such as a background, is subtracted. If groups of near copies are larger
    than copies are, or a class would become one group, only more alike images count. An image without
    contrast, such as a black one, is a near copy of none.
    """
    exact = np.unique(hashes, return_inverse=True)[1]
    first = np.unique(exact, return_index=True)[1]
    distinct = small[first] - small[first].mean(dim=1, keepdim=True)
    contrast = distinct.square().mean(dim=1, keepdim=True).sqrt()
    distinct = F.normalize(distinct)
    distinct = F.normalize(distinct - distinct.mean(dim=0))
    distinct = distinct.masked_fill(contrast <= contrast.median() / 50, 0)
    alone = len(singletons(given, exact))
    for likeness in LIKENESS:
        pairs = _alike(distinct, likeness)
        if pairs is not None:
            near = _joined(len(first), *pairs.T)
            groups = near[exact]
            largest = np.bincount(near).max()
            if largest <= max(LARGEST, SHARE * len(first)) and len(singletons(given, groups)) == alone:
                return Copies(groups, len(exact) - len(first), len(first) - near.max() - 1, likeness)
    return Copies(exact, len(exact) - len(first))


def _alike(small: Tensor, likeness: float) -> np.ndarray | None:
    """(n, 2): pairs of rows of norm 1 whose product is above `likeness`; None if there are too many.

    Rows are sorted along their first principal component, and those too far apart on it are not compared.
    """
    along = small @ torch.linalg.eigh(small.T @ small)[1][:, -1]
    order = along.argsort()
    small, along, found = small[order], along[order], []
    ends = torch.searchsorted(along, along + (2 - 2 * likeness) ** 0.5, right=True)
    for start in range(0, len(small), BLOCK):
        rows = small[start : start + BLOCK]
        alike = rows @ small[start : ends[start : start + BLOCK].max()].T > likeness
        alike = alike.triu(1)
        if alike.sum() + sum(map(len, found)) > PAIRS * len(small):
            return None
        found.append(order[alike.nonzero() + start])
    return torch.cat(found).numpy()


def _joined(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(count,) numbers of the groups that pairs of rows form, in the order of their first rows."""
    edges = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def united(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,): images that are together in one of two groupings (N,), numbers from 0, are together."""
    N = len(first)
    rows = np.arange(N)
    joined = _joined(
        N + first.max() + second.max() + 2,
        np.r_[rows, rows],
        N + np.r_[first, first.max() + 1 + second],
    )
    return np.unique(joined[:N], return_inverse=True)[1]


def by_hand(names: Sequence[str], pattern: str) -> np.ndarray:
    """(N,) groups: names (paths) with the same part in the parentheses of a regular expression.

    A name that does not match is alone. Raises InputError for a pattern that matches none.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        require(False, f"groups is {pattern!r}: no column of the CSV and no regular expression ({error})")
    hint = "such as '(.*)_png' for all names with the same text before _png"
    require(expression.groups == 1, f"groups is {pattern!r}; needed is a pattern with one (group), {hint}")
    parts = [match and match[1] for match in map(expression.search, names)]
    example = f"{names[0]!r} or any other path"
    require(any(part is not None for part in parts), f"groups {pattern!r} does not match {example}")
    return numbered(parts)


def numbered(values: Sequence[str | None]) -> np.ndarray:
    """(N,) numbers, the same for equal values; None and "" are alone."""
    return np.unique([f"v{v}" if v else f"n{i}" for i, v in enumerate(values)], return_inverse=True)[1]
