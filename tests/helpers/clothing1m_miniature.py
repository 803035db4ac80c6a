"""A Clothing1M of a few dozen drawn images: real files of many sizes, in folders and lists as published."""

from pathlib import Path

import numpy as np
from PIL import Image

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
