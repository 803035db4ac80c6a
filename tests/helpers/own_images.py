"""Images of two classes that are easy to tell apart, as arrays and as files."""

import csv

import numpy as np
import torch
from PIL import Image

from sln.relabel.crossfit import Fitted
from sln.relabel.examples import checked

CLASSES = ("left", "right")


def pictures(count, seed=0, side=8):
    """(count, 3, side, side) uint8 and labels (count,): noise, bright on the left (0) or the right (1)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(100, size=(count, 3, side, side), dtype=np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        image[:, :, slice(side // 2, None) if label else slice(side // 2)] += 150
    return images, labels


def save(pixels, path, **options):
    """One image (channels, H, W) as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(path, **options)


def lay(folder, count=24, seed=0, side=8):
    """A folder with a sub-folder per class; returns its path."""
    for number, (pixels, label) in enumerate(zip(*pictures(count, seed, side), strict=True)):
        save(pixels, folder / CLASSES[label] / f"{number:03}.png")
    return folder


def write_csv(path, rows, header=("path", "label")):
    """A CSV; returns its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def names(found):
    """The names of the entries."""
    return [entry.name for entry in found.entries]


def canned_fit(images, labels, *, groups=None, **settings):
    """What `fit` returns, without training: random probabilities, three labels of four being predicted."""
    examples = checked(images, labels, groups)
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(len(examples.classes)), len(examples.given))
    for row, label in enumerate(examples.given.tolist()):
        if row % 4:
            p[row, [label, p[row].argmax()]] = p[row, [p[row].argmax(), label]]
    probabilities = torch.from_numpy(p.astype(np.float32))
    found = (examples.classes, examples.given, probabilities, 0.5, {}, "cnn", [{}, {}])
    return Fitted(*found, groups=examples.groups)
