"""Reads your own images. Nothing is written here; what cannot be used is skipped, named and counted."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from sln.datasets import clothing1m
from sln.relabel.examples import SMALLEST_SIDE, image_hashes, singletons
from sln.relabel.listing import Entry, Listing, listed
from sln.utils.errors import InputError, require
from sln.utils.progress import Progress

FORMATS = (*clothing1m.FORMATS, "TIFF", "PPM")
LARGEST_SIDE = 32  # pixels, the default size of large images
SAMPLE = 1000  # images that the default size and the brightest value are taken from
BATCH = 64  # images that are encoded at once
WHITE = 2**16 - 1  # of images with more than 8 bits, if no sampled pixel sets it
# how to turn an image back by its EXIF orientation
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
TURNS |= {7: "TRANSVERSE", 8: "ROTATE_90"}


@dataclass(frozen=True)
class LabelledImages:
    """N images that could be read.

    images : (N, 3, S, S) uint8; or (N, D) features, if they were encoded
    groups : (N,) int64, the same number for identical pixels
    white : the value that is white in images of more than 8 bits
    """

    listing: Listing
    entries: list[Entry]
    images: Tensor
    groups: np.ndarray
    white: int

    @property
    def labels(self) -> list[str]:
        """(N,): the given labels."""
        return [entry.label for entry in self.entries]

    def picture(self, entry: Entry) -> Image.Image | None:
        """An image in its own size, in RGB; None if it can no longer be read."""
        with contextlib.suppress(InputError):
            return decode(self.listing.root / entry.name, self.white)
        return None


def read(
    source: Path,
    *,
    root: Path | None = None,
    size: int | None = None,
    encode: Callable[[Tensor], Tensor] | None = None,
    quiet: bool = False,
) -> LabelledImages:
    """Read all images, each resized to `size` x `size` pixels in RGB.

    source : a folder with a sub-folder per class, or a CSV with the columns path and label
    root : folder that the paths of a CSV start from; default the CSV's own folder
    size : side in pixels; default the median of the images' shorter sides, at least 8 and at most 32
    encode : uint8 (B, 3, size, size) -> (B, D), to get features instead of pixels

    Images are resized to a square without cropping, transparency is filled with white, EXIF orientation is
    applied, and images of more than 8 bits are scaled to 8 bits, all by the same factor. Raises InputError
    for a folder or CSV that is missing or has no images, a class without any, and fewer than two classes.
    """
    listing = listed(source, root)
    side, white = _side_and_white(listing)
    size = side if size is None else size
    require(SMALLEST_SIDE <= size <= 1024, f"size is {size}, allowed is [{SMALLEST_SIDE}, 1024] pixels")
    entries, parts, hashes = [], [], []
    with Progress(len(listing.entries), f"reading {source.name}", "images", quiet=quiet) as progress:
        decoded = _decoded(listing, size, white, progress)
        while batch := list(itertools.islice(decoded, BATCH)):
            entries += [entry for entry, _ in batch]
            images = torch.from_numpy(np.stack([pixels for _, pixels in batch]))
            hashes += image_hashes(images)
            parts.append(images if encode is None else encode(images))
    groups = np.unique(hashes, return_inverse=True)[1]
    rows = _usable(source, listing, entries, groups)
    kept = [entries[row] for row in rows]
    return LabelledImages(listing, kept, torch.cat(parts)[rows], groups[rows], white)


def _decoded(
    listing: Listing, size: int, white: int, progress: Progress
) -> Iterator[tuple[Entry, np.ndarray]]:
    """The entries that can be decoded, each with its pixels (3, size, size) uint8."""
    for entry in listing.entries:
        progress.advance()
        try:
            yield entry, square(decode(listing.root / entry.name, white), size)
        except InputError as error:
            listing.skipped.append((entry.name, str(error)))


def _usable(source: Path, listing: Listing, entries: list[Entry], groups: np.ndarray) -> np.ndarray:
    """Rows (n,) of the readable `entries` whose label is on another image too; the others are skipped.

    Raises InputError if none is readable or, in a folder, none of one class, and for fewer than two labels.
    """
    readable, reasons = {entry.label for entry in entries}, dict(listing.skipped)
    for entry in listing.entries:
        if entry.label not in readable and (listing.records is None or not readable):
            raise InputError(
                f"no image labelled {entry.label!r} in {source} could be read ({entry.name!r}: "
                f"{reasons[entry.name]}); repair or remove them"
            )
    labels = np.unique([entry.label for entry in entries], return_inverse=True)[1]
    alone = singletons(labels, groups)
    for entry in (entries[row] for row in alone):
        reason = f"its label {entry.label!r} is on no other image, so no network could judge it"
        listing.skipped.append((entry.name, reason))
    rows = np.setdiff1d(np.arange(len(entries)), alone)
    left = len(set(labels[rows]))
    require(left >= 2, f"{source} has {left} labels that are on two different images or more; two are needed")
    return rows


# --- one image ----------------------------------------------------------------------------------------------


def _side_and_white(listing: Listing) -> tuple[int, int]:
    """The default size, and the brightest value in images of more than 8 bits, both from a sample.

    The brightest value is taken for white, because cameras and scanners store 10 or 12 bits in 16.
    """
    sides, brightest = [], []
    for entry in listing.entries[:: -(-len(listing.entries) // SAMPLE)]:
        with contextlib.suppress(InputError), _opened(listing.root / entry.name) as image:
            sides.append(min(image.size))
            if image.mode.startswith("I"):
                brightest.append(int(np.asarray(image).max()))
    side = int(statistics.median(sides or [LARGEST_SIDE]))
    return max(SMALLEST_SIDE, min(LARGEST_SIDE, side)), max(brightest, default=WHITE) or WHITE


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file; all errors inside are raised as InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about harmless oddities of the file
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except UnidentifiedImageError:
        raise InputError(f"it is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # noqa: BLE001  damaged files raise errors of many types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(reason or type(error).__name__) from None


def decode(path: Path, white: int = WHITE) -> Image.Image:
    """The image in RGB. Raises InputError if it cannot be read.

    white : the value that becomes 255 in an image of more than 8 bits
    """
    with _opened(path) as image:
        # Pillow's exif_transpose also rewrites all tags, and fails on odd ones
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        if turn is not None:
            image = image.transpose(Image.Transpose[turn])
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
        if image.mode.startswith("I"):  # more than 8 bits
            image = Image.fromarray((np.asarray(image).clip(0, white) * 255.0 / white).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


def square(image: Image.Image, size: int) -> np.ndarray:
    """(3, size, size) uint8: the whole image resized to a square, antialiased."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
