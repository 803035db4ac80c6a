"""How well wrong labels are found if the true labels are known: data to try it on, and scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from sln.config import Config
from sln.data import Split
from sln.datasets import download
from sln.datasets.images import digits
from sln.datasets.load import load_data
from sln.relabel.crossfit import fit
from sln.study.study import Study
from sln.utils.files import runs_folder, write_atomically

HUMAN = ("human-random1", "human-worst")  # CIFAR-10N: one person's labels, and the worst of three
THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


def noisy_digits(noise_mode: str, noise_rate: float, seed: int = 0) -> Split:
    """The 1,437 training and validation images of the digits, RGB (N, 3, 8, 8), with wrong labels."""
    noisy = load_data(Config(noise_mode=noise_mode, noise_rate=noise_rate, noise_seed=seed))
    return _rgb(Split(*map(torch.cat, zip(noisy.train.tensors, noisy.validation.tensors, strict=True))))


def unseen_digits() -> Split:
    """The 360 test images of the digits, RGB, with true labels."""
    return _rgb(digits().test)


def _rgb(split: Split) -> Split:
    pixels = (split.images.float() * 255 / digits().scale).round().to(torch.uint8)
    return Split(pixels.expand(-1, 3, -1, -1).contiguous(), split.given, split.true)


def human_cifar10(noise_mode: str, count: int, downsample: int = 1) -> Split:
    """The first `count` images of CIFAR-10 with people's labels (CIFAR-10N). Raises InputError if missing."""
    config = Config(dataset="cifar10", noise_mode=noise_mode, subset=count, downsample=downsample)
    return load_data(config).train


def photographs(study: Study) -> pd.DataFrame | None:
    """How well wrong labels are found on CIFAR-10 at 16 x 16 pixels, one row per kind of human labels.

    Without photographs in the profile or in the data folder it prints why, and returns nothing.
    """
    count, judged = study.profile.photographs, []
    if not (count and all(map(download.present, ("cifar10", "cifar-n")))):
        way = "`data get cifar10` and `data get cifar-n` get them." if count else f"Not at {study.name}."
        kinds = f"CIFAR-10 with human labels ({', '.join(HUMAN)})"
        print(f"Not judged: {count or 4000} photographs of {kinds}. {way}")
        return None
    for noise_mode in HUMAN:
        split = human_cifar10(noise_mode, count, downsample=2)
        cache = runs_folder() / "own-data-photographs"
        fitted = fit(split.images, split.given, cache=cache, **study.profile.own_fit)
        row = {"labels": noise_mode, "wrong": split.wrong.double().mean().item(), "sigma": fitted.sigma}
        judged.append(row | detection(fitted.labels["suspect"].to_numpy(), split.wrong))
    return pd.DataFrame(judged)


def export(split: Split, folder: Path) -> Path:
    """Write the images as PNG to one sub-folder per given label: 7/0012.png is the example of row 12."""
    for row, (image, label) in enumerate(zip(split.images, split.given.tolist(), strict=True)):
        path = folder / f"{label}" / f"{row:04}.png"
        if not path.exists():
            write_atomically(path, Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save)
    return folder


def checksum(folder: Path) -> str:
    """SHA-256 of the names and bytes of a folder's files, to show that nothing has changed."""
    content = hashlib.sha256()
    for path in sorted(filter(Path.is_file, folder.rglob("*"))):
        content.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()


def rows(labels: pd.DataFrame) -> np.ndarray:
    """The rows of the `export`ed examples, from the column path of `relabel`'s table."""
    return np.array([int(Path(name).stem) for name in labels["path"]])


def detection(suspect: np.ndarray, wrong: np.ndarray | Tensor) -> dict[str, float]:
    """How well a score (N,) ranks wrong labels (N,) first (at random: the share of wrong labels, and 0.5)."""
    scores = {"average_precision": average_precision_score, "auroc": roc_auc_score}
    return {name: float(score(np.asarray(wrong), suspect)) for name, score in scores.items()}


def describe_thresholds(table: pd.DataFrame, thresholds: Sequence[float] = (0.5, 0.15)) -> str:
    """What some thresholds of `over_threshold` find, miss and make true, one line each."""
    return "\n".join(
        f"threshold {row.Index:g}: {row.recall:.0%} of the wrong labels are flagged, so {1 - row.recall:.0%} "
        f"are missed; {1 - row.precision:.0%} of the flagged are right. In the corrected copy "
        f"{row.true_after:.1%} are true."
        for row in table.set_index("threshold").loc[list(thresholds)].itertuples()
    )


def over_threshold(labels: pd.DataFrame, true: np.ndarray) -> pd.DataFrame:
    """What each threshold on `suspect` finds in labels (`scores.table`), `true` (N,): one row per threshold.

    flagged : share of the labels whose `suspect` is at least the threshold
    precision : share of the flagged that are wrong; recall : share of the wrong that are flagged
    true_after : share of labels that are true if the suggested ones replace the flagged
    """
    table, wrong = pd.DataFrame({"threshold": THRESHOLDS}), labels["given"] != true
    flagged = [labels["suspect"] >= threshold for threshold in THRESHOLDS]
    table["flagged"] = [flags.mean() for flags in flagged]
    table["precision"] = [wrong[flags].mean() for flags in flagged]  # NaN if none is flagged
    table["recall"] = [flags[wrong].mean() for flags in flagged]
    after = [labels["given"].where(~flags, labels["suggested"]) for flags in flagged]
    return table.assign(true_after=[(corrected == true).mean() for corrected in after])
