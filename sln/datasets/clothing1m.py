"""Clothing1M (Xiao et al., CVPR 2015): a million clothing images with the labels that shops gave them.

Its three lists are those of the released repository, `annotations/{noisy_train,clean_val,clean_test}.txt`,
one image a line: "images/0/00/1429296456,2096860000.jpg 7". An image is known by its row: its line, from 0,
in the three lists one after the other, so rows of training images are lines of noisy_train.txt. The images
stay files; worker processes decode them batch by batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import multiprocessing
import os
import re
import struct
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sln.utils import distributed
from sln.utils.errors import InputError, require
from sln.utils.files import data_folder, read_table, runs_folder, write_text
from sln.utils.progress import Progress
from sln.utils.rng import numpy_generator

CLASSES = ("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket",
           "Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear")  # fmt: skip
C = len(CLASSES)
SPLITS = ("train", "validation", "test")
LISTS = {"train": "noisy_train.txt", "validation": "clean_val.txt", "test": "clean_test.txt"}
LINE = re.compile(r"(\S+) ([0-9]+)")

RESIZE, CROP = 256, 224  # pixels: the shorter side after resizing, the side of the square that is cut out
MEAN, STD = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)
LONGEST = 50  # longer side over shorter side; a resized image beyond it would fill the memory
# only these decoders run on a file, whatever its name says
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

# A view of an image: counters of the "augmentation" stream for a random crop and flip; CENTRE for the centre
# crop; CHECK to decode it and throw it away.
View = tuple[int, ...] | None
CENTRE: View = ()
CHECK: View = None
Key = tuple[int, View]  # row and view
Fault = tuple[int, str]  # row, and why the image cannot be used


@dataclass(frozen=True)
class Clothing1M:
    """The three lists, without the images. N rows: training images, then validation, then test.

    root : folder that the paths start from
    paths : (N,) bytes, for workers to get them quickly
    labels : (N,) int64; the given, noisy ones of training images, true ones of the others
    sizes : rows of each split, as in SPLITS
    checksum : SHA-256 of the three lists
    bad : rows whose images are left out
    """

    root: Path
    paths: np.ndarray
    labels: np.ndarray
    sizes: tuple[int, ...]
    checksum: str
    bad: tuple[int, ...] = ()

    def rows(self, split: str) -> np.ndarray:
        """The split's rows in order, without bad images."""
        start = sum(self.sizes[: SPLITS.index(split)])
        rows = np.arange(start, start + self.sizes[SPLITS.index(split)])
        return np.setdiff1d(rows, self.bad, assume_unique=True)

    def path(self, row: int) -> str:
        """The image's path, as listed."""
        return self.paths[row].decode()

    def line(self, row: int) -> tuple[str, int]:
        """The list that holds `row`, and the line there, from 1."""
        for split, size in zip(SPLITS, self.sizes, strict=True):
            if row < size:
                return LISTS[split], row + 1
            row -= size
        raise AssertionError("no such row")

    def subset(self, num_per_class: int, seed: int, epoch: int) -> np.ndarray:
        """The training rows of one epoch, ascending: `num_per_class` of each class, without replacement.

        A class with fewer images gives all; -1 is all images. The draw depends on (seed, epoch) alone. The
        released script draws in the same way, with Python's own generator, seeded once for all epochs.
        """
        rows = self.rows("train")
        if num_per_class < 0:
            return rows
        shuffled = numpy_generator(seed, "class-balanced draw", epoch).permutation(rows)
        given = self.labels[shuffled]
        return np.sort(np.concatenate([shuffled[given == c][:num_per_class] for c in range(C)]))

    def complaint(self, faults: list[Fault]) -> str | None:
        """One line about images that cannot be used, None without any."""
        if not faults:
            return None
        row, why = faults[0]
        name, line = self.line(row)
        return (
            f"image {self.root / self.path(row)} ({name}, line {line}) cannot be used: {why}; "
            f"{len(faults)} such image{'s are' if len(faults) > 1 else ' is'} known so far; "
            "--skip-bad-images looks at all images once and leaves such ones out"
        )


# --- the lists ----------------------------------------------------------------------------------------------


def read() -> Clothing1M:
    """The lists below `data_folder()`, in Clothing1M/ or in itself.

    Raises InputError for what is missing, saying where to get it, and for a line that is malformed or leads
    out of the folder.
    """
    places = [data_folder() / "Clothing1M", data_folder()]
    root = next((place for place in places if (place / "annotations").is_dir()), None)
    if root is None:
        raise _missing("its folder annotations", " and ".join(f"{place}" for place in places))
    entries, sizes, digest = [], [], hashlib.sha256()
    for split in SPLITS:
        file = root / "annotations" / LISTS[split]
        if not file.is_file():
            raise _missing(f"its list {LISTS[split]}", str(file.parent))
        found = list(_entries(file))
        require(len(found) > 0, f"{file} lists no images")
        entries += found
        sizes.append(len(found))
        digest.update(file.read_bytes())
    if not (root / "images").is_dir():
        raise _missing("its folder images", str(root))
    paths, labels = zip(*entries, strict=True)
    return Clothing1M(root, np.array(paths), np.array(labels), tuple(sizes), digest.hexdigest())


def _missing(what: str, where: str) -> InputError:
    return InputError(
        f"Clothing1M is incomplete: {what} was looked for in {where}; its authors (Xiao et al., CVPR 2015) "
        "give the images on request, and the repository chenpf1025/SLN has the lists, in "
        "data/Clothing1M/annotations"
    )


def _entries(file: Path) -> Iterator[tuple[bytes, int]]:
    """Every line's path and label."""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                match = LINE.fullmatch(line.rstrip("\n"))
                if match is None or int(match[2]) >= C:
                    raise InputError(
                        f'{file}, line {number}: {line.strip()[:80]!r} is not "images/....jpg 7", '
                        f"a path and a label from 0 to {C - 1}"
                    )
                path = match[1]
                # of every system: a path that starts elsewhere, or goes up
                if {"", ".", ".."} & set(path.split("/")) or any(sign in path for sign in "\\:\0"):
                    raise InputError(
                        f"{file}, line {number}: path {path[:80]!r} leads out of the data set's folder; "
                        "expected is one below it, such as images/0/00/1.jpg"
                    )
                yield path.encode(), int(match[2])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not readable text: {' '.join(str(error).split())}") from None


# --- one image ----------------------------------------------------------------------------------------------


def decode(path: Path) -> Image.Image:
    """The image in RGB, be it stored grey, CMYK, with a palette or with transparency, which is dropped.

    Raises one of UNREADABLE when the file is missing, cut short, or no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on oddities that do not matter, such as transparency being dropped
        with Image.open(path, formats=FORMATS) as image:
            rgb = image.convert("RGB")
    if max(rgb.size) > LONGEST * min(rgb.size):
        raise ValueError(f"it has {rgb.width} x {rgb.height} pixels")
    return rgb


def resize(image: Image.Image) -> Image.Image:
    """The shorter side to RESIZE pixels, bilinear, antialiased: torchvision's Resize on a PIL image."""
    width, height = image.size
    short = min(width, height)
    size = (int(RESIZE * width / short), int(RESIZE * height / short))
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def crop(image: Image.Image, rng: np.random.Generator | None) -> np.ndarray:
    """(CROP, CROP, 3) uint8 of a resized image: a random crop, flipped half the time; the centre without rng.

    `rng` draws the top, the left, and a number that flips if below 1/2.
    """
    down, right = image.height - CROP, image.width - CROP
    if rng is None:
        top, left, flip = round(down / 2), round(right / 2), False
    else:
        top, left, flip = rng.integers(down + 1), rng.integers(right + 1), rng.random() < 0.5
    pixels = np.asarray(image)[top : top + CROP, left : left + CROP]
    return pixels[:, ::-1] if flip else pixels


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) float32, in channels-last memory, from (B, H, W, 3) uint8, on the same device."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


class Images(Dataset):
    """What workers do: from (row, view) to pixels, or to the Fault that prevents it.

    A random view's draws depend on (seed, "augmentation", its counters, row) alone: not on workers, batches
    or processes.
    """

    def __init__(self, data: Clothing1M, seed: int) -> None:
        self.root, self.paths, self.seed = data.root, data.paths, seed

    def __getitem__(self, key: Key) -> np.ndarray | Fault | None:
        row, view = key
        try:
            image = decode(self.root / self.paths[row].decode())
        except UNREADABLE as error:
            return row, _why(error)
        if view is CHECK:
            return None
        rng = None if view == CENTRE else numpy_generator(self.seed, "augmentation", *view, row)
        return crop(resize(image), rng)


def _why(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def _collate(items: list[np.ndarray | Fault | None]) -> tuple[Tensor, list[Fault]]:
    """(B, CROP, CROP, 3) uint8 of the images that could be decoded, and the faults of the others."""
    pixels = [item for item in items if isinstance(item, np.ndarray)]
    whole = np.stack(pixels) if pixels else np.empty((0, CROP, CROP, 3), np.uint8)
    return torch.from_numpy(whole), [item for item in items if isinstance(item, tuple)]


# --- decoding in other processes ----------------------------------------------------------------------------


def decoders() -> int:
    """Worker processes that decode: `SLN_DECODERS`, default this process's part of the processors, at most 8.

    0 decodes in this process.
    """
    asked = os.environ.get("SLN_DECODERS")
    if asked is None:
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, max(1, here // distributed.processes_here()))
    if not asked.isdecimal():
        raise InputError(f"SLN_DECODERS is {asked!r}, expected a whole number from 0 up")
    return int(asked)


class Decoder:
    """Reads batches of images in worker processes, which live as long as this context.

    Raises InputError on leaving when a worker was killed.
    """

    def __init__(self, data: Clothing1M, seed: int, *, pin_memory: bool = False) -> None:
        workers = decoders()
        self._batches = _Batches()
        self._loader = DataLoader(
            Images(data, seed),
            batch_sampler=self._batches,
            collate_fn=_collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=_context() if workers else None,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # it numbers the workers; the global one is left alone
        )

    def read(self, batches: Iterable[list[Key]]) -> Iterator[tuple[Tensor, list[Fault]]]:
        """For each batch of (row, view): images (B, CROP, CROP, 3) uint8 in this order, and faults."""
        self._batches.batches = batches
        yield from self._loader

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # its deletion would end the workers too, but an error's traceback may keep it alive
        iterator = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
            self._loader._iterator = None
        # noticed by torch, or as a batch that could not be fetched
        if str(error).startswith("DataLoader worker") or isinstance(error, (ConnectionError, EOFError)):
            raise InputError(
                "a process that decodes images was killed, for want of memory or of shared memory; set "
                "SLN_DECODERS to fewer than it was, and give the same command again"
            ) from error


class _Batches:
    """The DataLoader's sampler: the batches of the pass that is on."""

    batches: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


@functools.cache
def _context() -> BaseContext:
    """How workers start: never as a copy of a process that has threads, GPUs or connections."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sln.datasets.clothing1m"])  # imported once for all workers
    return context


# --- bad images ---------------------------------------------------------------------------------------------


def scan(data: Clothing1M, *, quiet: bool = False, batch_size: int = 64) -> list[Fault]:
    """Every listed image that cannot be decoded, by row. Each process of a group looks at its part."""
    rows = range(len(data.paths))[distributed.share(len(data.paths))]
    batches = [[(row, CHECK) for row in rows[i : i + batch_size]] for i in range(0, len(rows), batch_size)]
    faults: list[Fault] = []
    silent = quiet or not distributed.is_main()
    with (
        Progress(len(batches), "looking for bad images", "batches", quiet=silent) as progress,
        Decoder(data, 0) as decoder,
    ):
        for _, found in decoder.read(batches):
            faults += found
            progress.advance(bad=len(faults))
    return list(itertools.chain(*distributed.gather_objects(faults)))


def without_bad_images(data: Clothing1M, folder: Path, *, quiet: bool = False) -> Clothing1M:
    """`data` without the images that cannot be decoded; they are counted and named on stderr.

    All images are decoded once. What is found is kept beside the runs, by the checksum of the lists, and in
    `folder`, the run's, as bad_images.csv: list, line, image, problem. The latter counts if it is there, for
    a resumed run to go on with the same images.
    """
    kept = runs_folder() / f"clothing1m-bad-images-{data.checksum[:12]}.csv"
    own = folder / "bad_images.csv"
    faults = distributed.on_main(
        lambda: next((_read_faults(data, file) for file in (own, kept) if file.exists()), None)
    )
    if faults is None:
        faults = scan(data, quiet=quiet)
        distributed.on_main(lambda: _write_faults(data, kept, faults))
    distributed.on_main(lambda: None if own.exists() else _write_faults(data, own, faults))
    if faults and not quiet and distributed.is_main():
        named = ", ".join(f"{data.path(row)} ({why})" for row, why in faults[:5])
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        print(
            f"{len(faults)} of {len(data.paths)} images are left out: {named}{more}; {own} lists them, and "
            f"without {kept} all are looked at again",
            file=sys.stderr,
        )
    left = dataclasses.replace(data, bad=tuple(row for row, _ in faults))
    for split in SPLITS:
        require(len(left.rows(split)) > 0, f"no image of {LISTS[split]} can be used; {own} says why")
    return left


def _write_faults(data: Clothing1M, file: Path, faults: list[Fault]) -> None:
    rows = [(*data.line(row), data.path(row), why) for row, why in faults]
    table = pd.DataFrame(rows, columns=["list", "line", "image", "problem"])
    write_text(file, table.to_csv(index=False, lineterminator="\n"))


def _read_faults(data: Clothing1M, file: Path) -> list[Fault]:
    """The faults that a file of `_write_faults` holds; InputError where it does not fit the lists."""
    starts = dict(zip(LISTS.values(), itertools.accumulate((0, *data.sizes[:-1])), strict=True))
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError, AttributeError):
        table = read_table(file)
        faults = [
            (starts[name] + int(line) - 1, str(why))
            for name, line, why in zip(table["list"], table["line"], table["problem"], strict=True)
        ]
        if [data.path(row) for row, _ in faults] == list(table["image"]):
            return faults
    raise InputError(
        f"{file} does not fit the lists of images in {data.root}; remove it, and all are looked at again"
    )
