"""Inherent label noise: the wrong labels that a data set comes with.

Everywhere, T[true, given] is the probability that an example of class `true` is given the label `given`;
**rows sum to one**. "Rate r" means here that a share r of the labels becomes *another* class. The other
meaning in use, a redraw over *all* classes that leaves a true rate of r (1 - 1/C), is `own_class=True`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sln.utils.errors import InputError, require
from sln.utils.files import read_json, write_json, write_text

# Asymmetric noise of CIFAR-10 (Patrini et al., CVPR 2017):
# truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog.
CIFAR10_MAP = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
# The embedded digits' own: pairs that a hurried hand confuses, as Patrini et al. use them on MNIST:
# 7 -> 1, 2 -> 7, 3 -> 8, 5 <-> 6.
DIGITS_MAP = {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}


@dataclass(frozen=True)
class Corruption:
    """Given labels beside true ones, and how they came about.

    Attributes
    ----------
    true, given : (N,) int64, classes 0..C-1. `true` is -1 where the image belongs to no class (open-set).
    num_classes : C
    kind, rate, seed : as asked for
    exact : whether counts are exact (True) or every example flips by its own coin (False, Bernoulli)
    own_class : whether the redraw may give the own class back
    replaced_by : (N,) int64 or None. Open-set only: the outside image in an example's place, -1 for none
    """

    true: np.ndarray
    given: np.ndarray
    num_classes: int
    kind: str
    rate: float
    seed: int
    exact: bool = True
    own_class: bool = False
    replaced_by: np.ndarray | None = None

    def __post_init__(self) -> None:
        # own copies: the arrays of a cached data set must not change with these, nor these with them
        for name in ("true", "given", "replaced_by"):
            values = getattr(self, name)
            object.__setattr__(self, name, None if values is None else np.array(values, dtype=np.int64))

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
        """(C, C) float64, realised T[true, given]; rows sum to one.

        A class without examples keeps its row of the identity. Examples that belong to no class (open-set)
        are left out.
        """
        inside = self.true >= 0
        counts = np.zeros((self.num_classes, self.num_classes))
        np.add.at(counts, (self.true[inside], self.given[inside]), 1)
        empty = counts.sum(axis=1) == 0
        counts[empty, empty] = 1
        return counts / counts.sum(axis=1, keepdims=True)

    def rows(self, rows: slice) -> Corruption:
        """The corruption of some of the examples."""
        replaced_by = None if self.replaced_by is None else self.replaced_by[rows]
        return dataclasses.replace(
            self, true=self.true[rows], given=self.given[rows], replaced_by=replaced_by
        )

    def manifest(self) -> dict:
        """What a reader of the labels must know, with SHA-256 of both columns as little-endian int64."""
        return {
            "kind": self.kind,
            "rate": self.rate,
            "realised_rate": self.realised_rate,
            "exact": self.exact,
            "own_class": self.own_class,
            "seed": self.seed,
            "num_classes": self.num_classes,
            "examples": len(self.given),
            "sha256_true": _sha256(self.true),
            "sha256_given": _sha256(self.given),
        } | ({} if self.replaced_by is None else {"sha256_replaced_by": _sha256(self.replaced_by)})

    def save(self, path: Path) -> None:
        """Write the labels to the CSV `path` and the manifest beside it, as .json.

        Columns: label, label_noisy as in the released files; replaced_by for open-set noise.
        Raises InputError for another ending than .csv and for a place that cannot be written to.
        """
        require(
            path.suffix == ".csv",
            f"labels are written to a .csv file, its manifest beside it; got {path}",
        )
        columns = {"label": self.true, "label_noisy": self.given}
        if self.replaced_by is not None:
            columns["replaced_by"] = self.replaced_by
        write_text(path, pd.DataFrame(columns).to_csv(index=False, lineterminator="\n"))
        write_json(path.with_suffix(".json"), self.manifest())

    @classmethod
    def load(
        cls, path: Path, *, true: np.ndarray | None = None, num_classes: int | None = None
    ) -> Corruption:
        """Read a label CSV, ours or a released one (which has no manifest).

        Parameters
        ----------
        true : (N,) the data set's own true labels; a file whose column `label` differs is refused, and the
            first mismatch named
        num_classes : C; default: the manifest's, else one more than the largest label

        Raises InputError for missing columns, labels outside 0..C-1, another length, other true labels, or
        a checksum that fails.
        """
        table = _read_labels(path)
        manifest_path = path.with_suffix(".json")
        manifest = read_json(manifest_path) if manifest_path.exists() else {}
        labels, given = table["label"].to_numpy(), table["label_noisy"].to_numpy()
        replaced_by = table["replaced_by"].to_numpy() if "replaced_by" in table else None
        for column in table.columns.intersection(["label", "label_noisy", "replaced_by"]):
            _require_whole(table[column].to_numpy(), f"{path}, column {column}")
        C = num_classes or manifest.get("num_classes") or int(max(labels.max(), given.max())) + 1
        lowest = 0 if replaced_by is None else -1  # open-set examples have no class
        _require_labels(labels, C, f"{path}, column label", lowest)
        _require_labels(given, C, f"{path}, column label_noisy")
        if true is not None:
            _require_same(labels, np.asarray(true), path, outside=labels < 0)
        for column, values in (("true", labels), ("given", given), ("replaced_by", replaced_by)):
            known = manifest.get(f"sha256_{column}")
            require(
                known is None or (values is not None and known == _sha256(values)),
                f"{path}: the {column} labels are not those of {manifest_path.name} (SHA-256 differs); "
                "restore either file",
            )
        wrong = float((labels != given).mean())
        return cls(
            labels,
            given,
            C,
            kind=manifest.get("kind", "file"),
            rate=manifest.get("rate", wrong),
            seed=manifest.get("seed", 0),
            exact=manifest.get("exact", True),
            own_class=manifest.get("own_class", False),
            replaced_by=replaced_by,
        )


# --- transition matrices ------------------------------------------------------------------------------------


def symmetric_matrix(num_classes: int, rate: float, *, own_class: bool = False) -> np.ndarray:
    """(C, C) T of symmetric noise: to the C - 1 other classes alike, or, with `own_class`, to all C alike."""
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
        require(
            0 <= i < num_classes and 0 <= j < num_classes,
            f"class map {i} -> {j} leaves the classes 0..{num_classes - 1}",
        )
        T[i, i] -= rate
        T[i, j] += rate
    return T


def next_class_map(num_classes: int) -> dict[int, int]:
    """i -> i + 1 mod C, the asymmetric noise of CIFAR-100."""
    return {i: (i + 1) % num_classes for i in range(num_classes)}


# --- drawing given labels -----------------------------------------------------------------------------------


def flip(true: np.ndarray, T: np.ndarray, rng: np.random.Generator, *, exact: bool = True) -> np.ndarray:
    """Given labels drawn from P(given | true) = T[true].

    Parameters
    ----------
    true : (N,) int, classes 0..C-1
    T : (C, C), rows sum to one
    rng : generator of every draw
    exact : True: the number that flips is round(sum over examples of 1 - T[true, true]) in all, shared
        between the classes and their targets by largest remainder; which examples flip is random. False:
        every example flips by its own draw (Bernoulli).

    Returns (N,) int64. All flips are decided from the true labels at once, never in place class after class,
    so that cat -> dog does not feed dog -> cat.
    """
    true, T = np.asarray(true), np.asarray(T, dtype=float)
    C = len(T)
    _require_matrix(T)
    _require_labels(true, C, "true labels")
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
    true: np.ndarray,
    T: np.ndarray,
    *,
    seed: int,
    rng: np.random.Generator,
    exact: bool = True,
    kind: str = "matrix",
    rate: float | None = None,
    own_class: bool = False,
) -> Corruption:
    """Corrupt `true` (N,) by any transition matrix T (C, C); `rate` and `kind` are for the record."""
    given = flip(true, T, rng, exact=exact)
    asked = 1 - T[true, true].mean() if rate is None else rate
    return Corruption(
        np.asarray(true, dtype=np.int64), given, len(T), kind, float(asked), seed, exact, own_class
    )


def symmetric(
    true: np.ndarray,
    num_classes: int,
    rate: float,
    *,
    seed: int,
    rng: np.random.Generator,
    exact: bool = True,
    own_class: bool = False,
) -> Corruption:
    """Symmetric noise: every wrong class alike. See `symmetric_matrix` for the own-class question."""
    T = symmetric_matrix(num_classes, rate, own_class=own_class)
    return from_matrix(true, T, seed=seed, rng=rng, exact=exact, kind="sym", rate=rate, own_class=own_class)


def asymmetric(
    true: np.ndarray,
    num_classes: int,
    rate: float,
    class_map: Mapping[int, int],
    *,
    seed: int,
    rng: np.random.Generator,
    exact: bool = True,
) -> Corruption:
    """Asymmetric noise: class i becomes class_map[i], one it may be taken for, with probability `rate`."""
    T = asymmetric_matrix(num_classes, rate, class_map)
    return from_matrix(true, T, seed=seed, rng=rng, exact=exact, kind="asym", rate=rate)


def instance_dependent(true: np.ndarray, scores: np.ndarray, rate: float, *, seed: int) -> Corruption:
    """Instance-dependent noise: a network's most confusing examples get the class it confuses them with.

    Chen et al., "Beyond class-conditional assumption", AAAI 2021. The released label files were made so.

    Parameters
    ----------
    true : (N,) int, classes 0..C-1
    scores : (N, C) softmax outputs averaged over the epochs of a network trained on true labels
        (`datasets.load.averaged_softmax`)
    rate : share of examples to flip; exactly round(rate N) are, those with the largest probability on one
        wrong class
    seed : for the record, the one the scores were made with; no random draw is left here
    """
    true, scores = np.asarray(true, dtype=np.int64), np.asarray(scores, dtype=float)
    _require_rate(rate)
    require(
        scores.ndim == 2 and len(scores) == len(true),
        f"scores have shape {scores.shape}, expected ({len(true)}, classes)",
    )
    C = scores.shape[1]
    _require_labels(true, C, "true labels")
    wrong = scores.copy()
    wrong[np.arange(len(true)), true] = -np.inf
    most_confusing = np.argsort(-wrong.max(axis=1), kind="stable")[: round(rate * len(true))]
    given = true.copy()
    given[most_confusing] = wrong[most_confusing].argmax(axis=1)
    return Corruption(true, given, C, "dependent", rate, seed)


def open_set(
    true: np.ndarray,
    num_classes: int,
    num_outside: int,
    rate: float,
    *,
    seed: int,
    rng: np.random.Generator,
    exact: bool = True,
) -> Corruption:
    """Open-set noise: images of no known class stand in the place of some examples; the labels stay.

    The released script draws both index lists with NumPy's global generator, which it never seeds; here
    `rng` draws them, each outside image at most once where there are enough.

    Returns a Corruption whose `replaced_by` (N,) holds the outside image's index where one stands, and whose
    `true` is -1 there.
    """
    true = np.asarray(true, dtype=np.int64)
    _require_rate(rate)
    _require_labels(true, num_classes, "true labels")
    require(num_outside >= 1, "open-set noise needs at least one outside image")
    N = len(true)
    replaced = rng.permutation(N)[: round(rate * N)] if exact else np.flatnonzero(rng.random(N) < rate)
    replaced_by = np.full(N, -1, dtype=np.int64)
    replaced_by[replaced] = rng.choice(num_outside, size=len(replaced), replace=len(replaced) > num_outside)
    return Corruption(
        np.where(replaced_by >= 0, -1, true),
        true,
        num_classes,
        "openset",
        rate,
        seed,
        exact,
        replaced_by=replaced_by,
    )


def none(true: np.ndarray, num_classes: int) -> Corruption:
    """No inherent noise: the given labels are the true ones."""
    true = np.asarray(true, dtype=np.int64)
    return Corruption(true, true.copy(), num_classes, "none", 0.0, 0)


# --- checks and helpers -------------------------------------------------------------------------------------


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
    require(
        T.ndim == 2 and T.shape[0] == T.shape[1], f"transition matrix has shape {T.shape}, expected (C, C)"
    )
    require(
        bool(np.isfinite(T).all() and (T >= 0).all() and (T <= 1 + 1e-9).all()),
        "transition matrix has entries outside [0, 1]",
    )
    sums = T.sum(axis=1)
    for row in np.flatnonzero(~np.isclose(sums, 1, atol=1e-6)):
        raise InputError(
            f"row {row} of the transition matrix sums to {sums[row]:.6g}; "
            "T[true, given] must have rows that sum to one"
        )


def _require_whole(labels: np.ndarray, where: str) -> None:
    require(labels.ndim == 1 and len(labels) > 0, f"{where}: shape {labels.shape}, expected (N,) with N >= 1")
    require(np.issubdtype(labels.dtype, np.integer), f"{where}: type {labels.dtype}, expected whole numbers")


def _require_labels(labels: np.ndarray, num_classes: int, where: str, lowest: int = 0) -> None:
    labels = np.asarray(labels)
    _require_whole(labels, where)
    outside = np.flatnonzero((labels < lowest) | (labels >= num_classes))
    if len(outside):
        first = outside[0]
        raise InputError(
            f"{where}: label {labels[first]} at row {first} is outside the classes 0..{num_classes - 1}"
        )


def _require_same(labels: np.ndarray, true: np.ndarray, path: Path, outside: np.ndarray) -> None:
    require(
        len(labels) == len(true),
        f"{path} has {len(labels)} labels, the data set has {len(true)}; it belongs to another data set",
    )
    differing = np.flatnonzero((labels != true) & ~outside)
    if len(differing):
        first = differing[0]
        raise InputError(
            f"{path}: true label {labels[first]} at row {first}, the data set has {true[first]} there "
            f"({len(differing)} differ); it belongs to another data set or order"
        )


def _read_labels(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise InputError(f"label file {path} is missing") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())  # pandas ends some of its messages with a new line
        raise InputError(f"label file {path} is not a readable CSV: {reason}") from None
    for column in ("label", "label_noisy"):
        require(
            column in table,
            f"label file {path} has no column {column!r}; it has {', '.join(map(str, table.columns))}",
        )
    return table


def _sha256(labels: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()
