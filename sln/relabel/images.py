"""Reads your own images as `listing` lists them. Nothing is written here."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from sln.datasets import clothing1m
from sln.datasets.load import threads
from sln.relabel import copies, kept, survey
from sln.relabel.copies import image_hashes, singletons
from sln.relabel.features import Encoder
from sln.relabel.kept import shrunk
from sln.relabel.kinds import LARGEST_SIDE, SMALLEST_SIDE, in_rgb
from sln.relabel.listing import Entry, LabelledImages, listed
from sln.relabel.tables import COLUMNS
from sln.runs import parallel
from sln.utils.errors import InputError, require
from sln.utils.progress import Progress

FORMATS = (*clothing1m.FORMATS, "TIFF", "PPM")
HEIC = re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL)  # what such a file begins with
SAMPLE = 1000  # images that the default size and the brightest value are taken from
BATCH = 6  # images in a network at once: 1.3 times as fast as 16 at 224 pixels, as a core's cache holds them
# Pillow's names of 16-bit colours (B: big-endian, L: little-endian, N: as here) and of the other byte order
SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
ORDERS = {f"{mode};16{a}": f"{mode};16{b}" for mode in ("RGB", "RGBX", "RGBA") for a, b in SWAPPED.items()}
GREY = "LA;16B"  # has no other order in Pillow: its four bytes are read as they are
ORDERS |= {GREY: "RGBA"}


def read(
    source: Path,
    *,
    root: Path | None = None,
    columns: Sequence[str] = COLUMNS,
    encoding: str = "utf-8",
    size: int | None = None,
    groups: str | None = None,
    keep_missing_words: bool = False,
    merge_spellings: bool = False,
    choose: Callable[[int], tuple[Encoder | None, str]] | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> LabelledImages:
    """Read all images, in RGB, each resized to a square of `size` x `size` pixels without cropping.

    root : folder that the paths of a CSV start from; default the CSV's own folder
    columns, encoding : a CSV's names of the columns of paths and labels, and how its characters are stored
    size : default the median of the images' shorter sides, at least 8 and at most 32
    groups : images that stay in one fold, besides copies: a CSV's column, or a pattern (`copies.by_hand`)
    keep_missing_words, merge_spellings : take words such as nan for labels; one spelling for each class
    choose : from that median to an encoder, or None, and the reason, as `features.chosen`
    cache : folder that keeps features, so that the same images are not decoded again

    Raises InputError for a source that is missing, a class without images, and fewer than two classes.
    """
    found = survey.checked(listed(source, root, columns, encoding, keep_missing_words), merge_spellings)
    _sample(found)
    encoder, found.way = choose(found.side) if choose else (None, "")
    size = int(np.clip(found.side, SMALLEST_SIDE, LARGEST_SIDE)) if size is None else size
    require(SMALLEST_SIDE <= size <= 1024, f"size is {size}, allowed is [{SMALLEST_SIDE}, 1024] pixels")
    side, encode = (encoder.side, encoder.encode) if encoder else (size, lambda images: images)
    with (
        _without_warnings(),
        Progress(len(found.entries), f"reading {source.name}", "images", quiet=quiet) as progress,
        threads(1),  # in each thread of the pool, which is faster than several threads for one network
        ThreadPoolExecutor(parallel.processors()) as pool,
    ):
        decoded = functools.partial(_decoded, found, side, encode, pool, progress)
        rows = range(len(found.entries))
        parts = kept.features(found, encoder, cache, decoded, progress) if encoder else decoded(rows)
    rows, found.images, found.small = kept.joined(parts)
    readable = [found.entries[row] for row in rows]
    given = np.unique([entry.label for entry in readable], return_inverse=True)[1]
    found.copies = copies.Copies(given)
    if readable:
        found.copies = copies.find(copies.thumbnails(found.small), image_hashes(found.small), given)
    by_hand = readable and groups is not None
    together = survey.together(found, readable, groups) if by_hand else found.copies.groups
    _require_classes(source, found, readable, together)
    found.entries, found.groups = readable, together
    return found


def _decoded(
    found: LabelledImages,
    side: int,
    encode: Callable[[Tensor], Tensor],
    pool: Executor,
    progress: Progress,
    rows: Sequence[int],
) -> list[kept.Part]:
    """Those of the entries `rows` that can be decoded, encoded; only a batch per thread is in memory."""

    def work(batch: Sequence[int]) -> tuple[list[kept.Part], list[tuple[str, str]]]:
        whole, faults = {}, []
        for entry, row in ((found.entries[row], row) for row in batch):
            try:
                image = decode(found.root / entry.name, found.white, side)
                whole[row] = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
            except InputError as error:
                faults.append((entry.name, str(error)))
        if not whole:
            return [], faults
        images = torch.from_numpy(np.stack(list(whole.values())).transpose(0, 3, 1, 2).copy())
        return [(list(whole), encode(images), shrunk(images))], faults

    parts = []
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    for batch, (part, faults) in zip(batches, pool.map(work, batches), strict=True):
        parts += part
        found.skipped += faults
        for _ in batch:
            progress.advance()
    return parts


def _require_classes(source: Path, found: LabelledImages, readable: list[Entry], groups: np.ndarray) -> None:
    """Raise InputError if no image of a folder's class is readable, or under two labels are on two images."""
    names, reasons = [entry.label for entry in readable], dict(found.skipped)
    classes, labels = np.unique(names, return_inverse=True)
    for entry in found.entries:
        if entry.label not in classes and (found.table is None or not names):
            what = f"no image labelled {entry.label!r} in {source} could be read"
            raise InputError(f"{what} ({entry.name!r}: {reasons[entry.name]}); repair or remove them")
    left = len(classes) - len(set(labels[singletons(labels, groups)]))
    few, words = "one label" if left else "no label", ", ".join(map(repr, found.missing))
    way = f"; images labelled {words} are skipped, --keep-missing-words takes them" if words else ""
    require(left >= 2, f"{source} has {few} that is on two different images or more; two are needed{way}")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Without Pillow's warnings about harmless oddities of a file, in all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_without_warnings()
def _sample(found: LabelledImages) -> None:
    """Set `side` to the median shorter side of a sample, and `white` to its brightest value.

    Cameras and scanners store 10 or 12 bits in 16.
    """
    sides, brightest = [], []
    for entry in found.entries[:: -(-len(found.entries) // SAMPLE)]:
        with contextlib.suppress(InputError), _opened(found.root / entry.name) as image:
            sides.append(min(image.size))
            deep = _deep(found.root / entry.name, image)
            if deep is not None:
                brightest.append(int(deep.max()))
    found.white = max(brightest, default=0) or found.white
    found.side = int(statistics.median(sides or [LARGEST_SIDE]))


@_without_warnings()
def picture(found: LabelledImages, entry: Entry) -> Image.Image | None:
    """An image in its own size, in RGB; None if it can no longer be read."""
    with contextlib.suppress(InputError):
        return decode(found.root / entry.name, found.white)
    return None


def is_image(path: Path) -> bool:
    """Whether the file begins like an image; its pixels are not read."""
    with contextlib.suppress(InputError), _opened(path):
        return True
    return False


@functools.cache
def _formats() -> tuple[str, ...]:
    """The decoders that may run: HEIF's is an optional package."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return FORMATS
    return (*FORMATS, "HEIF")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file; all errors inside are raised as InputError."""
    try:
        with Image.open(path, formats=_formats()) as image:
            yield image
    except UnidentifiedImageError:
        with path.open("rb") as file:
            start = file.read(12)
        require(start != b"", "it is empty")
        heic = HEIC.match(start) and "HEIF" not in _formats()
        other = f"it is none of {', '.join(_formats())}; convert it to one of them"
        way = "it is HEIC; convert it to JPEG, or pip install pillow-heif"
        raise InputError(way if heic else other) from None
    except (InputError, Image.DecompressionBombError) as error:
        raise InputError(str(error)) from None
    except Exception as error:  # noqa: BLE001  damaged files raise errors of many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(getattr(error, "strerror", None) or f"it is damaged ({reason})") from None


def decode(path: Path, white: int = 2**16 - 1, side: int | None = None) -> Image.Image:
    """The image in RGB, upright, transparent on white, `white` of more than 8 bits as 255; or InputError.

    A JPEG that is to be resized to `side` may come at a half, a quarter or an eighth of its size, but at
    least at twice that side: decoding is the slowest part.
    """
    with _opened(path) as image:
        if side is not None:
            image.draft(None, (2 * side, 2 * side))
        require(image.mode != "F", "its pixels are floating-point numbers; save it with 8 or 16 bits")
        deep = _deep(path, image)
        image.load()  # which turns a TIFF upright and drops its tag
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if deep is not None:
            opacity = image.getchannel("A") if image.mode == "RGBA" else None
            image = Image.fromarray((deep.clip(0, white) * 255.0 / white).astype(np.uint8))
            if opacity is not None:
                image.putalpha(opacity)
        return in_rgb(image, orientation)


def _deep(path: Path, image: Image.Image) -> np.ndarray | None:
    """The numbers (H, W) or (H, W, 3) of an image of more than 8 bits, without opacity; None for 8 bits.

    Of 16-bit colours Pillow keeps the high bytes only; read in the other byte order, these are the low ones.
    """
    if image.mode.startswith("I"):
        numbers = np.asarray(image)
        require(numbers.min() >= 0, "it has negative pixels; save it with values from 0 on")
        return numbers
    tiles = [_other_order(tile) for tile in image.tile]
    if not tiles or None in tiles:
        return None
    with Image.open(path, formats=_formats()) as again:
        again.tile, grey = tiles, image.tile[0].args == GREY
        low = np.asarray(again)[..., 1:2] if grey else np.asarray(again)[..., :3]
    return np.asarray(image)[..., :3] * np.uint16(256) + low


def _other_order(tile: Any) -> Any:
    """A part of a file of 16-bit colours, to be read in the other byte order; None for all others."""
    order, *others = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return tile._replace(args=(ORDERS[order], *others)) if order in ORDERS else None
