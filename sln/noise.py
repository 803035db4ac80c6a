"""Inherent label noise: the wrong labels that a data set comes with.

T[true, given] is the probability that an example of class `true` is given the label `given`; **rows sum to
one**. "Rate r" means here that a share r of the labels becomes *another* class. The other meaning in use, a
redraw over *all* classes that leaves a true rate of r (1 - 1/C), is `own_class=True`. Every kind of noise
draws from the stream "inherent noise" of (seed, split), where `split` is 0 for training and 1 for validation.
Counts are exact by default; with `exact=False` every example flips by its own draw (Bernoulli).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sln.utils.errors import InputError, require, require_labels
from sln.utils.files import json_text, labels_sha256, write_together
from sln.utils.rng import numpy_generator

# Asymmetric noise of CIFAR-10 (Patrini et al., CVPR 2017):
# truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog.
CIFAR10_MAP = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
# Asymmetric noise of the embedded digits: pairs that look similar in handwriting, as Patrini et al. use them
# on MNIST: 7 -> 1, 2 -> 7, 3 -> 8, 5 <-> 6.
DIGITS_MAP = {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}
# The attributes of a Corruption, as a CSV names them.
COLUMNS = {"true": "label", "given": "label_noisy", "replaced_by": "replaced_by"}


@dataclass(frozen=True)
class Corruption:
    """Given labels beside true ones, and how they were made: kind, rate and seed as asked for."""

    true: np.ndarray  # (N,) int64, classes 0..C-1; -1 for an image that belongs to no class (open-set)
    given: np.ndarray  # (N,) int64, classes 0..C-1
    num_classes: int  # C
    kind: str
    rate: float
    seed: int
    exact: bool = True  # or every example flips by its own draw (False, Bernoulli)
    own_class: bool = False  # whether the redraw may give the true class again
    replaced_by: np.ndarray | None = None  # (N,) int64, open-set: index of the outside image, -1 for none

    def __post_init__(self) -> None:
        # copies: the arrays of a cached data set must not change with these, nor these with them
        for name, values in self._arrays().items():
            object.__setattr__(self, name, np.array(values, dtype=np.int64))

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"true": self.true, "given": self.given, "replaced_by": self.replaced_by}
        return {name: values for name, values in arrays.items() if values is not None}

    @property
    def changed(self) -> np.ndarray:
        """(N,) bool: examples whose given label is wrong."""
        return self.given != self.true

    @property
    def realised_rate(self) -> float:
        """Share of examples whose given label is wrong."""
        return float(self.changed.mean())

    @property
    def transition_matrix(self) -> np.ndarray:
        """`realised_transitions` of these labels."""
        return realised_transitions(self.true, self.given, self.num_classes)

    def rows(self, rows: slice) -> Corruption:
        """The corruption of some of the examples."""
        return dataclasses.replace(self, **{name: values[rows] for name, values in self._arrays().items()})

    def manifest(self) -> dict:
        """Facts about the labels, with the SHA-256 of every column as little-endian int64."""
        names = ("kind", "rate", "realised_rate", "exact", "own_class", "seed", "num_classes")
        facts = {name: getattr(self, name) for name in names} | {"examples": len(self.given)}
        return facts | {f"sha256_{name}": labels_sha256(values) for name, values in self._arrays().items()}

    def save(self, path: Path) -> None:
        """Write the labels to the CSV `path`, columns as released, and the manifest beside it, or neither."""
        require(path.suffix == ".csv", f"labels are written to a .csv file and a .json beside it; got {path}")
        columns = {COLUMNS[name]: values for name, values in self._arrays().items()}
        table = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")
        write_together({path.with_suffix(".json"): json_text(self.manifest()), path: table})


def realised_transitions(true: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, C) float64, realised T[true, given] of labels (N,), without those of no class (open-set).

    A class without examples has its row of the identity.
    """
    inside = true >= 0
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (true[inside], given[inside]), 1)
    empty = counts.sum(axis=1) == 0
    counts[empty, empty] = 1
    return counts / counts.sum(axis=1, keepdims=True)


def symmetric_matrix(num_classes: int, rate: float, *, own_class: bool = False) -> np.ndarray:
    """(C, C) T of symmetric noise: equally to the C - 1 other classes, or, with `own_class`, to all C."""
    C = num_classes
    require(C >= 2, f"num_classes is {C}, symmetric noise needs at least 2")
    _require_rate(rate)
    flip = rate * (1 - 1 / C) if own_class else rate
    T = np.full((C, C), flip / (C - 1))
    np.fill_diagonal(T, 1 - flip)
    return T


def asymmetric_matrix(num_classes: int, rate: float, class_map: Mapping[int, int]) -> np.ndarray:
    """(C, C) T that sends class i to class_map[i] with probability `rate`; classes not in the map stay."""
    _require_rate(rate)
    T = np.eye(num_classes)
    for i, j in class_map.items():
        inside = 0 <= i < num_classes and 0 <= j < num_classes
        require(inside, f"class map {i} -> {j} leaves the classes 0..{num_classes - 1}")
        T[i, i] -= rate
        T[i, j] += rate
    return T


def next_class_map(num_classes: int) -> dict[int, int]:
    """i -> i + 1 mod C, the asymmetric noise of CIFAR-100."""
    return {i: (i + 1) % num_classes for i in range(num_classes)}


def flip(true: np.ndarray, T: np.ndarray, rng: np.random.Generator, *, exact: bool = True) -> np.ndarray:
    """(N,) int64: given labels drawn from P(given | true) = T[true], for true (N,) and T (C, C).

    exact : the number that flips is round(sum over examples of 1 - T[true, true]) in all, shared between the
        classes and their targets by largest remainder; which examples flip is random

    All flips are decided from the true labels at once, so that cat -> dog does not feed dog -> cat.
    """
    true, T = np.asarray(true), np.asarray(T, dtype=float)
    C = len(T)
    _require_matrix(T)
    require_labels(true, C, "true labels")
    given = true.astype(np.int64, copy=True)
    if not exact:
        # inverse of the cumulative row; the last column catches rounding
        uniform = rng.random(len(true))
        edges = np.cumsum(T, axis=1)[:, :-1]
        return (uniform[:, None] >= edges[true]).sum(axis=1).astype(np.int64)
    members = [rng.permutation(np.flatnonzero(true == i)) for i in range(C)]
    leaving = np.array([len(members[i]) * (1 - T[i, i]) for i in range(C)])
    # 35 (1 - 0.9) is a little less than 3.5, but must be rounded as 3.5 is
    flips = _apportion(leaving, round(round(leaving.sum(), 9)), rng)
    for i in range(C):
        row = np.where(np.arange(C) == i, 0, T[i])
        if flips[i] and row.sum() > 0:
            targets = np.repeat(np.arange(C), _apportion(row / row.sum() * flips[i], int(flips[i]), rng))
            given[members[i][: flips[i]]] = targets
    return given


def from_matrix(
    true: np.ndarray, T: np.ndarray, *, seed: int, split: int = 0, exact: bool = True
) -> Corruption:
    """Corrupt `true` (N,) by any transition matrix T (C, C). The recorded rate is the expected one."""
    given = flip(true, T, numpy_generator(seed, "inherent noise", split), exact=exact)
    return Corruption(true, given, len(T), "matrix", float(1 - T[true, true].mean()), seed, exact)


def symmetric(
    true: np.ndarray, num_classes: int, rate: float, *, own_class: bool = False, **how: Any
) -> Corruption:
    """Symmetric noise: every wrong class is equally likely; seed, split, exact: see `from_matrix`."""
    drawn = from_matrix(true, symmetric_matrix(num_classes, rate, own_class=own_class), **how)
    return dataclasses.replace(drawn, kind="sym", rate=rate, own_class=own_class)


def asymmetric(
    true: np.ndarray, num_classes: int, rate: float, class_map: Mapping[int, int], **how: Any
) -> Corruption:
    """Asymmetric noise: class i becomes class_map[i], a similar class, with probability `rate`."""
    drawn = from_matrix(true, asymmetric_matrix(num_classes, rate, class_map), **how)
    return dataclasses.replace(drawn, kind="asym", rate=rate)


def instance_dependent(true: np.ndarray, scores: np.ndarray, rate: float, *, seed: int) -> Corruption:
    """Instance-dependent noise: a network's most confusing examples get the class it confuses them with.

    Chen et al., "Beyond class-conditional assumption", AAAI 2021. The released label files were made so.
    Deviation: in every class the true label stays the most frequent given one, as it is in the released
    files, because otherwise no method could be right about that class. An example whose flip would break
    this is passed over.

    scores : (N, C) softmax outputs averaged over the epochs of a network trained on true labels
        (`datasets.load.averaged_softmax`)
    rate : share of examples to flip: exactly round(rate N), those with the largest score of a wrong class
    seed : for the record, the seed of the scores; nothing is drawn here
    """
    true, scores = np.asarray(true), np.asarray(scores, dtype=float)
    _require_rate(rate)
    fits = scores.ndim == 2 and len(scores) == len(true)
    require(fits, f"scores have shape {scores.shape}, expected ({len(true)}, classes)")
    C = scores.shape[1]
    require_labels(true, C, "true labels")
    wrong = scores.copy()
    wrong[np.arange(len(true)), true] = -np.inf
    confused_with, given = wrong.argmax(axis=1), true.astype(np.int64)
    counts = np.diag(np.bincount(true, minlength=C))  # [true, given]
    left = wanted = round(rate * len(true))
    for n in np.argsort(-wrong.max(axis=1), kind="stable"):
        i, j = true[n], confused_with[n]
        flipped = np.delete(counts[i], i).max()
        if left and counts[i, i] - 1 > max(flipped, counts[i, j] + 1):
            counts[i, i], counts[i, j], given[n], left = counts[i, i] - 1, counts[i, j] + 1, j, left - 1
    too_many = f"noise rate {rate} would leave a class whose true label is not its most frequent one"
    highest = f"the highest possible for these scores is {(wanted - left) / len(true):.3f}"
    require(left == 0, f"{too_many}; {highest}")
    return Corruption(true, given, C, "dependent", rate, seed)


def open_set(
    true: np.ndarray,
    num_classes: int,
    num_outside: int,
    rate: float,
    *,
    seed: int,
    split: int = 0,
    exact: bool = True,
) -> Corruption:
    """Open-set noise: images of no known class replace some examples; the labels stay.

    The released script draws both index lists with NumPy's global generator, which it never seeds. Here each
    outside image is used at most once if there are enough.
    """
    true, rng = np.asarray(true), numpy_generator(seed, "inherent noise", split)
    _require_rate(rate)
    require_labels(true, num_classes, "true labels")
    require(num_outside >= 1, "open-set noise needs at least one outside image")
    N = len(true)
    replaced = rng.permutation(N)[: round(rate * N)] if exact else np.flatnonzero(rng.random(N) < rate)
    replaced_by = np.full(N, -1, dtype=np.int64)
    replaced_by[replaced] = rng.choice(num_outside, size=len(replaced), replace=len(replaced) > num_outside)
    outside = np.where(replaced_by >= 0, -1, true)
    return Corruption(outside, true, num_classes, "openset", rate, seed, exact=exact, replaced_by=replaced_by)


def none(true: np.ndarray, num_classes: int) -> Corruption:
    """No inherent noise: the given labels are the true ones."""
    return Corruption(true, true, num_classes, "none", 0.0, seed=0)


def _apportion(shares: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers near `shares` that sum to `total`: largest remainders go up, `rng` breaks ties."""
    counts = np.floor(shares + 1e-9).astype(int)
    remainders = shares - counts
    order = np.lexsort((rng.random(len(shares)), -np.round(remainders, 9)))
    counts[order[: total - counts.sum()]] += 1
    return counts


def _require_rate(rate: float) -> None:
    require(bool(0 <= rate <= 1), f"noise rate is {rate}, allowed is [0, 1]")


def _require_matrix(T: np.ndarray) -> None:
    require(T.shape == (len(T), len(T)), f"transition matrix has shape {T.shape}, expected (C, C)")
    inside = np.isfinite(T) & (T >= 0) & (T <= 1 + 1e-9)
    require(bool(inside.all()), "transition matrix has entries outside [0, 1]")
    sums = T.sum(axis=1)
    for row in np.flatnonzero(~np.isclose(sums, 1, atol=1e-6)):
        raise InputError(
            f"row {row} of the transition matrix sums to {sums[row]:.6g}; "
            "T[true, given] must have rows that sum to one"
        )
