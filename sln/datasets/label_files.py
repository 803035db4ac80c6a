"""Noisy labels of CIFAR-10 and CIFAR-100 that others published: the authors' files, and human labels."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import warnings
from pathlib import Path

import numpy as np
import torch

from sln.config import HUMAN_NOISE, NUM_CLASSES
from sln.datasets.registry import label_places, located, missing, source
from sln.noise import Corruption
from sln.utils.errors import InputError, choose, require
from sln.utils.files import data_folder

PUBLISHED_HUMAN = {"cifar10": "CIFAR-10_human.pt", "cifar100": "CIFAR-100_human.pt"}
GET_THEM = "`python -m sln data get cifar-n` gets the published file"

# Where CIFAR-N's labels lie for each noise mode: key, and SHA-256 of the labels as little-endian int64, which
# is the same in the published .pt and in an .npz.
HUMAN = {
    "human-aggregate": ("aggre_label", "b3c3d486d22c3055756e7b1b1a0e98b099c1d68b771633023b0f76fa2e09ede6"),
    "human-random1": ("random_label1", "b5dc9007ae247a48ce267bec37a1310b0cd65ed73801ca7e595fb954902575a7"),
    "human-random2": ("random_label2", "1182c45d3a24636640fe1e3743b9566b6fabe86b2ed14f6b8216799e209a0d4e"),
    "human-random3": ("random_label3", "b51e116c617ded2c98be095ba8b3abae8adfa6caa54f7f6eedf50c7aed013d44"),
    "human-worst": ("worse_label", "a64d887522cf6d8f4966912a1536ea2d890600929a8465a7f307cdca2501847b"),
    "human": ("noisy_label", "4a1efd5da7a214b299cf6ac0bafe3f0d48c065b7aa2d40aa185d4711714bb311"),
}
# All that the published .pt files need beyond tensors and plain values: NumPy arrays of int64.
ARRAYS = [
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    np.dtypes.Int64DType,
]


def released(dataset: str, noise_mode: str, noise_rate: float, true: np.ndarray) -> Corruption:
    """The given labels of all training images from the authors' label files (Chen et al., ICLR 2021).

    Realised rates of the six files, all of nominal rate 0.4 and without a stated seed: CIFAR-10 sym 40.026%,
    asym 20.318% (five of the ten classes flip), dependent 40%; CIFAR-100 sym 39.88%, asym 40.012%, dependent
    40%.

    Parameters
    ----------
    dataset : cifar10 or cifar100
    noise_mode, noise_rate : `sym` and 0.4 are the file sym0.4.csv. Of another kind or rate, a file of the
        user's own in the same folders is read, too.
    true : (N,) the data set's true training labels, which the file's must equal

    Raises InputError for a file that is missing, one of the six with another SHA-256, kinds and rates that
    were never released, and all that `Corruption.load` refuses.
    """
    choose("data set with released labels", dataset, PUBLISHED_HUMAN)
    name = f"{noise_mode}{noise_rate}.csv"
    places = label_places(dataset, name)
    published = {file.places: file for file in source("sln-labels").files}
    if places in published:
        file = published[places]
        path = located(file)
        if path is None:
            raise missing("sln-labels", file)
    else:
        path = next((data_folder() / place for place in places if (data_folder() / place).exists()), None)
        known = ", ".join(sorted(Path(of).stem for of, *_ in published if Path(of).parent.name == dataset))
        require(
            path is not None,
            f"no labels {noise_mode}{noise_rate} of {dataset} were released, only {known}; `--labels "
            f"generated` draws its own, or put a file of yours at {data_folder() / places[0]}",
        )
    corruption = from_file(path, true, NUM_CLASSES[dataset])
    return dataclasses.replace(corruption, kind=noise_mode, rate=noise_rate)


def human(dataset: str, noise_mode: str, true: np.ndarray) -> Corruption:
    """Labels that people gave to the training images: CIFAR-10N and -100N (Wei et al., ICLR 2022).

    Realised rates: CIFAR-10N aggregate 9.01%, random 1-3 17.234%, 18.122% and 17.64%, worst 40.208%;
    CIFAR-100N 40.2% (the paper states 9.03% for aggregate, and the others so rounded).

    Read from labels/cifar-n/CIFAR-10_human.pt as published or, where that is not there, from an .npz with the
    same keys, cifar10_human.npz; CIFAR-100 likewise. Neither can run code.

    Parameters
    ----------
    dataset, noise_mode : as in `config.HUMAN_NOISE`
    true : (N,) the data set's true training labels, which the file's `clean_label` must equal

    Raises InputError for a file that is missing, damaged, holds anything but plain labels, or other labels
    than the published ones.
    """
    choose("data set with human labels", dataset, HUMAN_NOISE)
    choose(f"human labels of {dataset}", noise_mode, HUMAN_NOISE[dataset])
    key, sha256 = HUMAN[noise_mode]
    path, clean, given = _human_labels(dataset, key)
    true = np.asarray(true)
    require(
        len(clean) == len(true),
        f"{path} has {len(clean)} labels, {dataset} has {len(true)}; it belongs to another data set",
    )
    differing = np.flatnonzero(clean != true)
    if len(differing):
        first = differing[0]
        raise InputError(
            f"{path}: true label {clean[first]} at row {first}, {dataset} has {true[first]} there "
            f"({len(differing)} differ); it belongs to another data set or order"
        )
    found = hashlib.sha256(given.astype("<i8").tobytes()).hexdigest()
    require(
        found == sha256,
        f"{path}: the labels {key} are not the published ones (SHA-256 {found[:12]}, expected "
        f"{sha256[:12]}); {GET_THEM}",
    )
    rate = float((given != true).mean())
    return Corruption(true, given, NUM_CLASSES[dataset], noise_mode, rate, seed=0)


def from_file(path: Path, true: np.ndarray, num_classes: int) -> Corruption:
    """The labels of a CSV of the user's own. Raises InputError as `Corruption.load` does."""
    return Corruption.load(Path(path), true=true, num_classes=num_classes)


def _human_labels(dataset: str, key: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """Where the labels were found, `clean_label` (N,) and `key` (N,)."""
    published = next(file for file in source("cifar-n").files if file.remote == PUBLISHED_HUMAN[dataset])
    path = data_folder() / published.places[0]
    if not path.exists():
        path = path.with_name(f"{dataset}_human.npz")
    if not path.exists():
        raise missing("cifar-n", published)
    content = read_pt(path) if path.suffix == ".pt" else _read_npz(path)
    labels = []
    for name in ("clean_label", key):
        values = content.get(name) if isinstance(content, dict) else None
        require(
            isinstance(values, np.ndarray) and values.ndim == 1 and np.issubdtype(values.dtype, np.integer),
            f"{path} has no array of whole numbers {name!r}; {GET_THEM}",
        )
        labels.append(values)
    return path, *labels


def read_pt(path: Path) -> object:
    """What a file of torch.save holds, if that is tensors, int64 arrays and plain values only.

    A pickle can name any function to be called when it is read. torch's restricted reader calls none but its
    own and those in ARRAYS. Raises InputError for every other file, and then nothing of it has run.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(ARRAYS):
            warnings.simplefilter("ignore")  # that the reader may not know a newer pickle's instructions
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  on other bytes the reader raises whatever comes
        why = re.search(r"[Uu]nsupported [^\n]*", str(error))
        raise InputError(
            f"{path} is refused, nothing of it was run: it is no file of plain label arrays "
            f"({why[0] if why else type(error).__name__}); {GET_THEM}"
        ) from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # a path would stay open where the file is no .npz
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # noqa: BLE001  likewise
        raise InputError(
            f"{path} is refused: it is no .npz of plain label arrays ({type(error).__name__}); {GET_THEM}"
        ) from None
