"""Images of one's own with labels that may be wrong: a folder with a sub-folder a class, or a CSV.

Nothing is ever written here. What cannot be used is left out, named and counted.
"""

from __future__ import annotations

import hashlib
import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sln import clothing1m
from sln.cells import Cells, value
from sln.crossfit import SMALLEST_SIDE, lonely
from sln.errors import InputError, require
from sln.progress import Progress

COLUMNS = ("path", "label")
WORK = ".sln-relabel"  # what `relabel` works in, inside the folder that it makes; such a folder is no class
FORMATS = (*clothing1m.FORMATS, "TIFF", "PPM")
LARGEST_SIDE = 32  # pixels that images are resized to where nothing is said
LOOKED_AT = 1000  # images whose size is looked at to choose that
TOGETHER = 64  # images that are encoded at once


@dataclass(frozen=True)
class Entry:
    """One image that is listed.

    name : its path below the root, "7/0012.png", or as the CSV has it
    record : where the CSV has it: its record, the header being 0; 0 in a folder
    """

    name: str
    label: str
    record: int = 0


@dataclass(frozen=True)
class Listing:
    """What a folder or a CSV lists, before any image is read.

    root : folder that names start from
    skipped : (name, why) of what cannot be used
    cells : the CSV; None for a folder
    """

    root: Path
    entries: list[Entry]
    skipped: list[tuple[str, str]]
    cells: Cells | None = None


@dataclass(frozen=True)
class Own:
    """N images that could be read.

    images : (N, 3, S, S) uint8; or (N, D) features, where they were encoded
    groups : (N,) int64, the same number for identical pixels
    """

    listing: Listing
    entries: list[Entry]
    images: Tensor
    groups: np.ndarray

    @property
    def labels(self) -> list[str]:
        """(N,): the given labels."""
        return [entry.label for entry in self.entries]

    def path(self, entry: Entry) -> Path:
        """Where an image is."""
        return self.listing.root / entry.name


def read(
    source: Path,
    *,
    root: Path | None = None,
    size: int | None = None,
    encode: Callable[[Tensor], Tensor] | None = None,
    quiet: bool = False,
) -> Own:
    """Read all images, each resized to `size` x `size` pixels in RGB.

    Parameters
    ----------
    source : a folder with a sub-folder a class, or a CSV with the columns path and label
    root : folder that a CSV's paths start from; default its own
    size : pixels a side; default 32, but no more than the median image's shorter side (and at least 8)
    encode : uint8 (B, 3, size, size) -> (B, D), where features are wanted instead of pixels

    The whole image is kept, squeezed into the square; transparency becomes white, 16 bits become 8, cameras'
    orientation is followed. Raises InputError for a folder or CSV that is missing or has no images, a class
    without any, and fewer than two classes.
    """
    listing = listed(source, root)
    if size is None:
        size = usual_size(listing)
    require(SMALLEST_SIDE <= size <= 1024, f"size is {size}, allowed is [{SMALLEST_SIDE}, 1024] pixels")
    entries, parts, hashes = [], [], []
    with Progress(len(listing.entries), f"reading {source.name}", "images", quiet=quiet) as progress:
        for some, pixels in _batches(listing, size, progress):
            entries += some
            hashes += [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
            images = torch.from_numpy(pixels)
            parts.append(images if encode is None else encode(images))
    _require_readable(source, listing, entries)
    groups = np.unique(hashes, return_inverse=True)[1]
    kept = _judgeable(source, listing, entries, groups)
    return Own(listing, [entries[row] for row in kept], torch.cat(parts)[kept], groups[kept])


def _judgeable(source: Path, listing: Listing, entries: list[Entry], groups: np.ndarray) -> list[int]:
    """Rows of the entries whose label is on another image too; the others are skipped."""
    labels = np.unique([entry.label for entry in entries], return_inverse=True)[1]
    alone = set(lonely(labels, groups).tolist())
    for row in sorted(alone):
        reason = f"its label {entries[row].label!r} is on no other image, so nobody could judge it"
        listing.skipped.append((entries[row].name, reason))
    kept = [row for row in range(len(entries)) if row not in alone]
    left = len({entries[row].label for row in kept})
    require(left >= 2, f"{source} has {left} labels that are on two different images or more; two are needed")
    return kept


def _batches(listing: Listing, size: int, progress: Progress) -> Iterator[tuple[list[Entry], np.ndarray]]:
    """Entries that could be decoded and their pixels (B, 3, size, size) uint8, TOGETHER at a time."""
    entries, images = [], []
    for entry in listing.entries:
        progress.advance()
        try:
            images.append(square(decode(listing.root / entry.name), size))
            entries.append(entry)
        except clothing1m.UNREADABLE as error:
            listing.skipped.append((entry.name, why(error)))
        if len(images) == TOGETHER:
            yield entries, np.stack(images)
            entries, images = [], []
    if images:
        yield entries, np.stack(images)


def _require_readable(source: Path, listing: Listing, entries: list[Entry]) -> None:
    """Refuse a source without readable images, and a folder with a class that has none."""
    found = {entry.label for entry in entries}
    for entry in listing.entries:
        if entry.label not in found and (listing.cells is None or not entries):
            reason = next(reason for name, reason in listing.skipped if name == entry.name)
            raise InputError(
                f"no image labelled {entry.label!r} in {source} could be read ({entry.name!r}: {reason}); "
                "repair or remove them"
            )


# --- what there is ------------------------------------------------------------------------------------------


def listed(source: Path, root: Path | None = None) -> Listing:
    """What a folder or a CSV lists. Raises InputError where there is nothing."""
    source = Path(source)
    if source.is_dir():
        require(root is None, f"{source} is a folder; the folder of the images goes with a CSV only")
        listing = _in_folder(source)
    else:
        require(source.is_file(), f"{source} is neither a folder nor a file")
        listing = _in_csv(source, source.parent if root is None else Path(root))
    reason = f" ({listing.skipped[0][0]!r}: {listing.skipped[0][1]})" if listing.skipped else ""
    require(bool(listing.entries), f"{source} lists no image that can be used{reason}")
    return listing


def _in_folder(folder: Path) -> Listing:
    def visible(inside: Path) -> list[Path]:
        return sorted(path for path in inside.iterdir() if not path.name.startswith("."))

    found = visible(folder)
    classes = [path for path in found if path.is_dir() and not (path / WORK).exists()]
    require(bool(classes), f"{folder} has no sub-folders; expected is one a class, or a CSV of path,label")
    listing = Listing(folder, [], [(p.name, "it is in no class's sub-folder") for p in found if p.is_file()])
    for path in classes:
        before = len(listing.entries)
        for name in sorted(file.relative_to(folder).as_posix() for file in path.rglob("*") if file.is_file()):
            if not any(part.startswith(".") for part in name.split("/")):
                _list(listing, Entry(name, path.name))
        require(
            len(listing.entries) > before, f"class {path.name!r} of {folder} has no images; fill or remove it"
        )
    return listing


def _in_csv(file: Path, root: Path) -> Listing:
    require(root.is_dir(), f"{root}, where the images of {file} should be, is no folder")
    cells = Cells(file)
    path, label = (cells.column(name) for name in COLUMNS)
    listing = Listing(root, [], [], cells)
    for number, raw in enumerate(cells.records[1:], 1):
        if len(raw) <= max(path, label):
            listing.skipped.append((f"record {number}", f"it has {len(raw)} cells, too few"))
            continue
        _list(listing, Entry(value(raw[path]), value(raw[label]).strip(), number))
    return listing


def _list(listing: Listing, entry: Entry) -> None:
    """Add an entry, or skip it and say why."""
    problem = _problem(listing.root, entry)
    if problem is None:
        listing.entries.append(entry)
    else:
        listing.skipped.append((entry.name, problem))


def _problem(root: Path, entry: Entry) -> str | None:
    if not entry.name or not entry.label:
        return "it has no path" if not entry.name else "it has no label"
    try:
        (entry.name + entry.label).encode()
        path = (root / entry.name).resolve()
    except (OSError, ValueError, RuntimeError):  # names that are no UTF-8, zero bytes, links in a circle
        return "its name cannot be used"
    if not path.is_relative_to(root.resolve()):
        return f"it leads out of the folder {root.name}"
    return None if path.is_file() else "it is missing"


# --- one image ----------------------------------------------------------------------------------------------


def usual_size(listing: Listing) -> int:
    """LARGEST_SIDE, or less where the median image's shorter side is; at least SMALLEST_SIDE."""
    some, sides = listing.entries[:: -(-len(listing.entries) // LOOKED_AT)], []
    for entry in some:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(listing.root / entry.name, formats=FORMATS) as image:
                    sides.append(min(image.size))
        except clothing1m.UNREADABLE:
            continue  # it is skipped, with its reason, when it is read
    median = int(statistics.median(sides)) if sides else LARGEST_SIDE
    return max(SMALLEST_SIDE, min(LARGEST_SIDE, median))


def decode(path: Path) -> Image.Image:
    """The image in RGB, whatever its mode. Raises one of `clothing1m.UNREADABLE` where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on oddities that do not matter
        with Image.open(path, formats=FORMATS) as stored:
            image = ImageOps.exif_transpose(stored)
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
            if image.mode.startswith("I"):  # 16 bits, for which Pillow has several modes
                image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")


def square(image: Image.Image, size: int) -> np.ndarray:
    """(3, size, size) uint8: the whole image, squeezed into the square, antialiased."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def why(error: BaseException) -> str:
    """In one line, why an image could not be decoded."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
