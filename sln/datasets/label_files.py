"""Label files: the authors' noisy labels of CIFAR-10 and CIFAR-100, human labels of both, and your own CSV.

Every file is checked against the data set's true labels, and no file can run code.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sln.config import HUMAN_NOISE, NUM_CLASSES
from sln.datasets.download import DATAPATHS, RELEASED, label_places, located, missing, source
from sln.noise import COLUMNS, Corruption
from sln.utils.errors import InputError, choose, require, require_labels
from sln.utils.files import data_folder, labels_sha256, read_json

GET_THEM = "`python -m sln data get cifar-n` gets the published file"

# CIFAR-N's labels by noise mode: their key in the file, and `labels_sha256`
HUMAN = {
    "human-aggregate": ("aggre_label", "b3c3d486d22c3055756e7b1b1a0e98b099c1d68b771633023b0f76fa2e09ede6"),
    "human-random1": ("random_label1", "b5dc9007ae247a48ce267bec37a1310b0cd65ed73801ca7e595fb954902575a7"),
    "human-random2": ("random_label2", "1182c45d3a24636640fe1e3743b9566b6fabe86b2ed14f6b8216799e209a0d4e"),
    "human-random3": ("random_label3", "b51e116c617ded2c98be095ba8b3abae8adfa6caa54f7f6eedf50c7aed013d44"),
    "human-worst": ("worse_label", "a64d887522cf6d8f4966912a1536ea2d890600929a8465a7f307cdca2501847b"),
    "human": ("noisy_label", "4a1efd5da7a214b299cf6ac0bafe3f0d48c065b7aa2d40aa185d4711714bb311"),
}
# The published .pt files hold tensors, plain values, and NumPy arrays of int64, which need these.
RECONSTRUCT = (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct")
ARRAYS = [RECONSTRUCT, np.ndarray, np.dtype, np.dtypes.Int64DType]


def released(dataset: str, noise_mode: str, noise_rate: float, true: np.ndarray) -> Corruption:
    """The given labels of all training images from the authors' label files (Chen et al., ICLR 2021).

    Realised rates of the six files, all of nominal rate 0.4 and without a stated seed: CIFAR-10 sym 40.026%,
    asym 20.318% (five of the ten classes flip), dependent 40%; CIFAR-100 sym 39.88%, asym 40.012%, dependent
    40%.

    true : (N,) the data set's true training labels, which the file's must equal
    """
    choose("data set with released labels", dataset, DATAPATHS)
    name = f"{noise_mode}{noise_rate}.csv"
    known = [Path(file).stem for of, file in RELEASED if of == dataset]
    wrong = f"no labels {noise_mode}{noise_rate} of {dataset} were released, only {', '.join(known)}"
    way = "`--labels generated` draws labels, `--labels mine.csv` takes yours"
    require((dataset, name) in RELEASED, f"{wrong}; {way}")
    places = label_places(dataset, name)
    file = next(file for file in source("sln-labels").files if file.places == places)
    if (path := located(file)) is None:
        raise missing("sln-labels", file)
    corruption = from_csv(path, true, NUM_CLASSES[dataset])
    return dataclasses.replace(corruption, kind=noise_mode, rate=noise_rate)


def human(dataset: str, noise_mode: str, true: np.ndarray) -> Corruption:
    """Labels that people gave to the training images: CIFAR-10N and -100N (Wei et al., ICLR 2022).

    Realised rates: CIFAR-10N aggregate 9.01%, random 1-3 17.234%, 18.122% and 17.64%, worst 40.208%;
    CIFAR-100N 40.2%. The paper states 9.03% for aggregate and rounds the others.

    The file is labels/cifar-n/CIFAR-10_human.pt as published or, if that is missing, an .npz with the same
    keys, cifar10_human.npz; likewise for CIFAR-100.

    true : (N,) the data set's true training labels, which the file's `clean_label` must equal
    """
    choose("data set with human labels", dataset, HUMAN_NOISE)
    choose(f"human labels of {dataset}", noise_mode, HUMAN_NOISE[dataset])
    key, sha256 = HUMAN[noise_mode]
    path, clean, given = _human_labels(dataset, key)
    _require_same(path, clean, true)
    found = labels_sha256(given)
    wrong = f"the labels {key} are not the published ones (SHA-256 {found[:12]}, expected {sha256[:12]})"
    require(found == sha256, f"{path}: {wrong}; {GET_THEM}")
    rate = float((given != true).mean())
    return Corruption(true, given, NUM_CLASSES[dataset], noise_mode, rate, seed=0)


def from_csv(path: Path, true: np.ndarray, num_classes: int) -> Corruption:
    """Labels from a CSV in the format of `Corruption.save`; the manifest beside it may be missing.

    true : (N,) the data set's true labels, which the column `label` must equal (-1, no class, aside)
    """
    arrays, manifest_path = _read_csv(path), path.with_suffix(".json")
    manifest = read_json(manifest_path) if manifest_path.exists() else {}
    manifest = manifest if "sha256_given" in manifest else {}  # else it is another file of that name
    lowest = {"true": -1 if "replaced_by" in arrays else 0, "replaced_by": -1}  # open-set: -1 is no class
    for name, values in arrays.items():
        classes = np.inf if name == "replaced_by" else num_classes
        require_labels(values, classes, f"{path}, column {COLUMNS[name]}", lowest.get(name, 0))
    labels, given = arrays["true"], arrays["given"]
    _require_same(path, labels, true)
    odd = (labels < 0) != (arrays.get("replaced_by", np.full_like(labels, -1)) >= 0)
    both = "label -1 and a number from 0 in replaced_by belong together"
    require(not odd.any(), f"{path}: {both}, at row {odd.argmax()}")
    for name in COLUMNS:
        known = manifest.get(f"sha256_{name}")
        same = known is None or (name in arrays and known == labels_sha256(arrays[name]))
        other = f"the {name} labels are not those of {manifest_path.name} (SHA-256 differs)"
        require(same, f"{path}: {other}; restore either file")
    facts = {"kind": "file", "rate": float((labels != given).mean()), "seed": 0}
    facts |= {name: manifest[name] for name in (*facts, "exact", "own_class") if name in manifest}
    return Corruption(**arrays, num_classes=num_classes, **facts)


def read_matrix(path: Path, num_classes: int) -> np.ndarray:
    """(C, C) transition matrix from a CSV of numbers without header. Raises InputError for any other."""
    try:
        T = pd.read_csv(path, header=None).to_numpy(dtype=float)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable CSV of numbers: {' '.join(str(error).split())}") from None
    C = num_classes
    require(T.shape == (C, C), f"{path} holds a matrix of shape {T.shape}, the data set has {C} classes")
    return T


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise InputError(f"label file {path} is missing") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())  # some of pandas' messages end with a new line
        raise InputError(f"label file {path} is not a readable CSV: {reason}") from None
    names = ", ".join(map(str, table.columns))
    for column in ("label", "label_noisy"):
        require(column in table, f"label file {path} has no column {column!r}; it has {names}")
    return {name: table[column].to_numpy() for name, column in COLUMNS.items() if column in table}


def _require_same(path: Path, labels: np.ndarray, true: np.ndarray) -> None:
    sizes = f"{path} has {len(labels)} labels, the data set has {len(true)}"
    require(len(labels) == len(true), f"{sizes}; it belongs to another data set")
    differing = np.flatnonzero((labels != true) & (labels >= 0))
    for row in differing:
        first = f"true label {labels[row]} at row {row}, the data set has {true[row]} there"
        other = "it belongs to another data set or order"
        raise InputError(f"{path}: {first} ({len(differing)} differ); {other}")


def human_file(dataset: str) -> Path:
    """The file of human labels, in either format. Raises InputError if it is missing."""
    name = f"{DATAPATHS[dataset].replace('CIFAR', 'CIFAR-')}_human.pt"
    published = next(file for file in source("cifar-n").files if file.remote == name)
    path = data_folder() / published.places[0]
    if not path.exists():
        path = path.with_name(f"{dataset}_human.npz")
    if not path.exists():
        raise missing("cifar-n", published)
    return path


def _human_labels(dataset: str, key: str) -> tuple[Path, np.ndarray, np.ndarray]:
    path = human_file(dataset)
    content = _read_arrays(path)
    arrays = content if isinstance(content, dict) else {}
    for name in ("clean_label", key):
        values = arrays.get(name)
        whole = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu"
        require(whole, f"{path} has no array of whole numbers {name!r}; {GET_THEM}")
    return path, arrays["clean_label"], arrays[key]


def _read_arrays(path: Path) -> object:
    """The content of an .npz of plain arrays, or of a .pt of tensors, int64 arrays and plain values only.

    A pickle can name any function to be called. torch's restricted reader calls its own and ARRAYS only.
    """
    try:
        if path.suffix == ".npz":
            # np.load(path) would leave the file open if it is no .npz
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        with warnings.catch_warnings(), torch.serialization.safe_globals(ARRAYS):
            warnings.simplefilter("ignore")  # about pickles newer than the reader
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  other bytes raise errors of any kind
        unsupported, kind = re.search(r"[Uu]nsupported [^\n]*", str(error)), type(error).__name__
        refused = ": it is no .npz of plain label arrays"
        if path.suffix == ".pt":
            refused = ", nothing of it was run: it is no file of plain label arrays"
            kind = unsupported[0] if unsupported else kind
        raise InputError(f"{path} is refused{refused} ({kind}); {GET_THEM}") from None
