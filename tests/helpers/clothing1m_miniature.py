"""A Clothing1M of a few dozen drawn images: real files of many sizes, in folders and lists as published."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sln import runs
from sln.config import Config
from sln.runs import store
from sln.utils.progress import Progress

# 14 of 28 training images an epoch in batches of 5, 5 and 4; settings large enough to show in the weights
SMALL = Config(
    dataset="clothing1m", model="resnet18", pretrained=False, epochs=2, num_per_class=1, batch_size=5,
    lr=0.01, lr_drop=1, weight_decay=0.05, alpha=0.9, seed=5, threads=1,
)  # fmt: skip
CLASSES = 14
# (list, images a class)
LISTS = (("noisy_train.txt", 2), ("clean_val.txt", 1), ("clean_test.txt", 1))


def drawn(rng, label):
    """An RGB image of 40 to 90 pixels a side: a colour of its class, stripes, noise."""
    height, width = rng.integers(40, 91, 2)
    colour = np.random.default_rng(label).integers(0, 256, 3)
    pixels = np.full((height, width, 3), colour) + rng.normal(0, 40, (height, width, 3))
    pixels[:: label + 2] += 60
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make(folder, lists=LISTS, seed=0):
    """Write Clothing1M/ below `folder`: `annotations/*.txt` and `images/`. Returns its path.

    Of the training images one is grey, one is CMYK, one has a palette and one is transparent.
    """
    root, rng, number = Path(folder) / "Clothing1M", np.random.default_rng(seed), 0
    for name, per_class in lists:
        lines = []
        for label in rng.permutation(np.repeat(np.arange(CLASSES), per_class)).tolist():
            path = f"images/{number % 3}/{number % 10:02d}/{1000 + number},{7 * number}.jpg"
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            mode, kind = {3: ("L", "JPEG"), 5: ("CMYK", "JPEG"), 7: ("P", "PNG"), 8: ("RGBA", "PNG")}.get(
                number, ("RGB", "JPEG")
            )
            drawn(rng, label).convert(mode).save(file, kind)
            lines.append(f"{path} {label}\n")
            number += 1
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / name).write_text("".join(lines))
    return root


def listed(root, name="noisy_train.txt"):
    """The files and labels of a list, in its order."""
    lines = (Path(root) / "annotations" / name).read_text().splitlines()
    return [(Path(root) / line.split(" ")[0], int(line.split(" ")[1])) for line in lines]


def spoil(root, corrupt=(), missing=(), name="noisy_train.txt"):
    """Cut the files of some rows of a list in half, and remove others."""
    files = [file for file, _ in listed(root, name)]
    for row in corrupt:
        files[row].write_bytes(files[row].read_bytes()[: files[row].stat().st_size // 2])
    for row in missing:
        files[row].unlink()


# --- training -----------------------------------------------------------------------------------------------


class Tiny(torch.nn.Module):
    """A network with all kinds of tensors that a ResNet has, and few of them."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 5, stride=4)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.fc = torch.nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(torch.relu(self.bn1(self.conv1(x))).mean(dim=(2, 3)))


def in_folder(folder, config, **options):
    """The run of `config`, trained below `folder` with a checkpoint after every epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(folder))
        return runs.get(config, quiet=True, checkpoint_seconds=0, **options)


class Stop(BaseException):
    """Ctrl-C, or the machine going down."""


def interrupted(folder, config, at):
    """Train until `at` batches were counted, then stop as by Ctrl-C."""
    counted, advance = 0, Progress.advance

    def count(self, **facts):
        nonlocal counted
        counted += 1
        if counted == at:
            raise Stop
        advance(self, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "advance", count)
        with pytest.raises((Stop, SystemExit)):  # of several processes, the second one exits
            in_folder(folder, config)


def numbers(run):
    """Everything of a run that must not depend on how it came about; the larger files as checksums."""
    found = {
        path.relative_to(run.folder).as_posix(): store.sha256(path)
        for pattern in ("weights.safetensors", "corrections/*.npz")
        for path in run.folder.glob(pattern)
    }
    history = pd.read_csv(run.folder / "history.csv", dtype=str).drop(columns="seconds")
    return found | {"history": history.to_csv()}
