"""Clothing1M (Xiao et al., CVPR 2015): a million clothing images with the labels of online shops.

A line of the released lists is an image and its label: "images/0/00/1429296456,2096860000.jpg 7". A row is
the number of a line, from 0, in the three lists one after the other. Images stay on disk, and worker
processes decode them batch by batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sln.data import SPLITS
from sln.utils import distributed
from sln.utils.devices import torchvision
from sln.utils.errors import InputError, require
from sln.utils.files import data_folder, read_table, runs_folder, write_text
from sln.utils.progress import Progress
from sln.utils.rng import numpy_generator

CLASSES = ("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket",
           "Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear")  # fmt: skip
C = len(CLASSES)
LISTS = {"train": "noisy_train.txt", "validation": "clean_val.txt", "test": "clean_test.txt"}
LINE = re.compile(r"(\S+) ([0-9]+)")
OUTSIDE = re.compile(
    r"[\\:\0]|(^|/)\.{0,2}(/|$)"
)  # in a path that on some system starts elsewhere or goes up
RESIZE, CROP = 256, 224  # pixels: the shorter side after resizing, the side of the square that is cut out
MEAN, STD = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)
CHECKED_TOGETHER = 64  # images
LONGEST = 50  # longer side over shorter side; beyond it, a resized image would fill the memory
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")  # only these decoders may run, for any file name
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# torchvision's IMAGENET1K_V1; a name ends in the first digits of the file's SHA-256
IMAGENET = {"resnet50": "resnet50-0676ba61.pth", "resnet18": "resnet18-f37072fd.pth"}
View = tuple[int, ...]  # counters of the "augmentation" stream for a random crop and flip, or the centre crop
CENTRE: View = ()
Fault = tuple[int, str]  # row, and why the image cannot be used


@dataclass(frozen=True)
class Clothing1M:
    """The three lists, without the images. N rows: training images, then validation, then test."""

    root: Path  # folder that the paths start from
    paths: np.ndarray  # (N,) bytes, a compact array for the workers
    labels: np.ndarray  # (N,) int64; given, noisy labels of training images, true labels of the others
    sizes: tuple[int, ...]  # number of rows of each split, as in SPLITS
    checksum: str  # SHA-256 of the three lists
    bad: tuple[int, ...] = ()  # rows whose images are left out

    def rows(self, split: str) -> np.ndarray:
        """The split's rows in order, without bad images."""
        rows = np.split(np.arange(sum(self.sizes)), np.cumsum(self.sizes[:-1]))[SPLITS.index(split)]
        return np.setdiff1d(rows, self.bad, assume_unique=True)

    def path(self, row: int) -> str:
        """The image's path, as listed."""
        return self.paths[row].decode()

    def line(self, row: int) -> tuple[str, int]:
        """The list that holds `row`, and the line there, from 1."""
        starts = np.cumsum((0, *self.sizes))
        split = int(np.searchsorted(starts, row, side="right")) - 1
        return LISTS[SPLITS[split]], row - int(starts[split]) + 1

    def subset(self, num_per_class: int, seed: int, epoch: int) -> np.ndarray:
        """The training rows of one epoch, ascending: `num_per_class` of each class, or all it has; -1 is all.

        The draw depends on (seed, epoch) alone; the released script seeds once for all epochs.
        """
        rows = self.rows("train")
        if num_per_class < 0:
            return rows
        shuffled = numpy_generator(seed, "class-balanced draw", epoch).permutation(rows)
        given = self.labels[shuffled]
        return np.sort(np.concatenate([shuffled[given == c][:num_per_class] for c in range(C)]))

    def error(self, fault: Fault) -> InputError:
        """The error for an image that cannot be used."""
        (row, why), (name, line) = fault, self.line(fault[0])
        return InputError(
            f"image {self.root / self.path(row)} ({name}, line {line}) cannot be used: {why}; "
            f"`python -m sln data check clothing1m` lists all such images, --skip-bad-images leaves them out"
        )


def read(*, skip_bad_images: bool = False) -> Clothing1M:
    """The lists below `data_folder()`, in Clothing1M/ or in the folder itself.

    Raises InputError if something is missing, and for a line that is malformed or leads out of the folder.
    """
    places = [data_folder() / "Clothing1M", data_folder()]
    root = next((place for place in places if (place / "annotations").is_dir()), None)
    if root is None:
        raise _missing("its folder annotations", " and ".join(map(str, places)))
    entries, sizes, digest = [], [], hashlib.sha256()
    for name in LISTS.values():
        file = root / "annotations" / name
        if not file.is_file():
            raise _missing(f"its list {name}", str(file.parent))
        found = list(_entries(file))
        require(len(found) > 0, f"{file} lists no images")
        entries += found
        sizes.append(len(found))
        digest.update(file.read_bytes())
    if not (root / "images").is_dir():
        raise _missing("its folder images", str(root))
    paths, labels = zip(*entries, strict=True)
    data = Clothing1M(root, np.array(paths), np.array(labels), tuple(sizes), digest.hexdigest())
    return _without_bad_images(data) if skip_bad_images else data


def _missing(what: str, where: str) -> InputError:
    return InputError(
        f"Clothing1M is incomplete: {what} was looked for in {where}; its authors (Xiao et al., CVPR 2015) "
        "give the images on request, and the repository chenpf1025/SLN has the lists, in "
        "data/Clothing1M/annotations"
    )


def _entries(file: Path) -> Iterator[tuple[bytes, int]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                match = LINE.fullmatch(line.rstrip("\n"))
                if match is None or int(match[2]) >= C or OUTSIDE.search(match[1]):
                    wanted = f"a path below the data set's folder and a label from 0 to {C - 1}"
                    wrong = f'{line.strip()[:80]!r} is not "images/....jpg 7"'
                    raise InputError(f"{file}, line {number}: {wrong}: {wanted}")
                yield match[1].encode(), int(match[2])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not readable text: {' '.join(str(error).split())}") from None


def decode(path: Path) -> Image.Image:
    """The image in RGB, without transparency. Raises one of UNREADABLE if it is missing or damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # harmless oddities, such as dropped transparency
        with Image.open(path, formats=FORMATS) as image:
            rgb = image.convert("RGB")
    if max(rgb.size) > LONGEST * min(rgb.size):
        raise ValueError(f"it has {rgb.width} x {rgb.height} pixels")
    return rgb


def crop(image: Image.Image, rng: np.random.Generator | None) -> np.ndarray:
    """(CROP, CROP, 3) uint8: the shorter side resized to RESIZE, then a random crop, flipped half the time.

    `rng` draws the top, the left, and a number that flips the image if it is below 1/2; None: centre crop.
    """
    functional = torchvision().transforms.functional
    image = functional.resize(image, RESIZE)
    if rng is None:
        return np.asarray(functional.center_crop(image, CROP))
    top, left = (int(rng.integers(side - CROP + 1)) for side in (image.height, image.width))
    pixels = np.asarray(functional.crop(image, top, left, CROP, CROP))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) float32, in channels-last memory, from (B, H, W, 3) uint8, on the same device."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


class Images(Dataset):
    """From a row to the pixels of one view, or to the Fault that prevents it.

    The draws of a random view depend on (seed, its counters, row) alone: not on workers, batches or order.
    """

    def __init__(self, data: Clothing1M, seed: int, view: View) -> None:
        self.root, self.paths, self.seed, self.view = data.root, data.paths, seed, view

    def __getitem__(self, row: int) -> np.ndarray | Fault:
        try:
            image = decode(self.root / self.paths[row].decode())
        except UNREADABLE as error:
            return row, _why(error)
        rng = None if self.view == CENTRE else numpy_generator(self.seed, "augmentation", *self.view, row)
        return crop(image, rng)


def _why(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def _collate(items: list[np.ndarray | Fault]) -> tuple[Tensor, list[Fault]]:
    pixels = [item for item in items if isinstance(item, np.ndarray)]
    whole = np.stack(pixels) if pixels else np.empty((0, CROP, CROP, 3), np.uint8)
    return torch.from_numpy(whole), [item for item in items if isinstance(item, tuple)]


def decoded(
    data: Clothing1M, batches: list[list[int]], view: View, seed: int, *, pin_memory: bool = False
) -> DataLoader:
    """For each batch of rows: images (B, CROP, CROP, 3) uint8 in this order, and the faults of the others."""
    return DataLoader(
        Images(data, seed, view),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=decoders(),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # it numbers the workers; the global one is left alone
    )


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Around a pass over `decoded`: InputError if a worker is killed; torch's error comes at any place."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        raise InputError(
            "a process that decodes images was killed (out of memory or of shared memory?); set SLN_DECODERS "
            f"below {decoders()} and give the same command again"
        ) from error


def decoders() -> int:
    """Processes that decode: `SLN_DECODERS` (0: this one), by default a fair share of the CPUs, at most 8."""
    asked = os.environ.get("SLN_DECODERS")
    if asked is None:
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, max(1, here // distributed.processes_here()))
    require(asked.isdecimal(), f"SLN_DECODERS is {asked!r}, expected a whole number from 0 up")
    return int(asked)


def bad_list(data: Clothing1M) -> Path:
    """The list of bad images, beside the runs: a CSV with list, line, image and problem."""
    place = hashlib.sha256(os.fsencode(data.root.resolve())).hexdigest()[:8]
    return runs_folder() / f"clothing1m-bad-images-{data.checksum[:12]}-{place}.csv"


@decoding()
def check(*, quiet: bool = False) -> pd.DataFrame:
    """Decode every listed image once, and write `bad_list`: one row per image that cannot be used."""
    data = read()
    batches = [batch.tolist() for batch in torch.arange(len(data.paths)).split(CHECKED_TOGETHER)]
    faults: list[Fault] = []
    with Progress(len(batches), "checking images", "batches", quiet=quiet) as progress:
        for _, new in decoded(data, batches, CENTRE, seed=0):
            faults += new
            progress.advance(bad=len(faults))
    found = [(*data.line(row), data.path(row), why) for row, why in faults]
    table = pd.DataFrame(found, columns=["list", "line", "image", "problem"])
    write_text(bad_list(data), table.to_csv(index=False, lineterminator="\n"))
    return table


def _without_bad_images(data: Clothing1M) -> Clothing1M:
    file = bad_list(data)
    try:
        images = {str(image).encode() for image in read_table(file)["image"]}
    except (OSError, ValueError, KeyError):
        way = "`python -m sln data check clothing1m` decodes all images once and writes it"
        raise InputError(f"{file} is missing or damaged; {way}") from None
    bad = np.flatnonzero([path in images for path in data.paths.tolist()])
    left = dataclasses.replace(data, bad=tuple(bad.tolist()))
    for split, name in LISTS.items():
        require(len(left.rows(split)) > 0, f"no image of {name} can be used; {file} lists the reasons")
    return left


def imagenet_weights(model: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of `model`; reading them runs no code."""
    ours, torchs = places(model)
    found = next((place for place in (ours, torchs) if place.is_file()), None)
    way = f"put torchvision's {IMAGENET[model]} there"
    if model == "resnet50":
        way = "`python -m sln data get resnet50` gets them"
    if found is None:
        raise InputError(
            f"ImageNet weights {IMAGENET[model]} are in neither {ours.parent} nor {torchs.parent}; "
            f"{way}, --no-pretrained does without"
        )
    prefix, sha256 = found.stem.rpartition("-")[2], hashlib.sha256(found.read_bytes()).hexdigest()
    require(
        sha256.startswith(prefix),
        f"{found} is not the published file: its SHA-256 starts with {sha256[:8]}, expected is {prefix}; "
        f"remove it; {way}",
    )
    return torch.load(found, map_location="cpu", weights_only=True)


def places(model: str) -> tuple[Path, Path]:
    """Where ImageNet weights of `model` may be: in the data folder, or in torch.hub's."""
    name = IMAGENET[model]
    return data_folder() / name, Path(torch.hub.get_dir()) / "checkpoints" / name
