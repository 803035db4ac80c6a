"""Your own images with labels that may be wrong: a folder with a sub-folder per class, or a CSV.

Nothing is ever written here. What cannot be used is left out, named and counted.
"""

from __future__ import annotations

import contextlib
import hashlib
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
from sln.relabel.cells import Cells, value
from sln.relabel.crossfit import SMALLEST_SIDE, lonely
from sln.utils.errors import InputError, require
from sln.utils.progress import Progress

COLUMNS = ("path", "label")
FORMATS = (*clothing1m.FORMATS, "TIFF", "PPM")
LARGEST_SIDE = 32  # pixels that images are resized to by default
LOOKED_AT = 1000  # images whose size is looked at to choose that
TOGETHER = 64  # images that are encoded at once
# What is white, of 8, 10, 12, 14 and 16 bits; and how images that a camera turned are turned back, by EXIF's
# orientation.
WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
TURNS |= {7: "TRANSVERSE", 8: "ROTATE_90"}


class Unreadable(ValueError):
    """An image that cannot be decoded; says why in one line."""


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

    def picture(self, entry: Entry) -> Image.Image:
        """An image as it is, in RGB. Raises Unreadable where it can no longer be read."""
        return decode(self.listing.root / entry.name, self.white)


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
    source : a folder with a sub-folder per class, or a CSV with the columns path and label
    root : folder that a CSV's paths start from; default its own
    size : pixels a side; default 32, but no more than the median image's shorter side (and at least 8)
    encode : uint8 (B, 3, size, size) -> (B, D), where features are wanted instead of pixels

    The whole image is kept, squeezed into the square; transparency becomes white, cameras' orientation is
    followed, and more than 8 bits become 8 by the same scale for all images (`white_of`). Raises InputError
    for a folder or CSV that is missing or has no images, a class without any, and fewer than two classes.
    """
    listing = listed(source, root)
    white = white_of(listing)
    if size is None:
        size = usual_size(listing)
    require(SMALLEST_SIDE <= size <= 1024, f"size is {size}, allowed is [{SMALLEST_SIDE}, 1024] pixels")
    entries, parts, hashes = [], [], []
    with Progress(len(listing.entries), f"reading {source.name}", "images", quiet=quiet) as progress:
        for some, pixels in _batches(listing, size, white, progress):
            entries += some
            hashes += [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
            images = torch.from_numpy(pixels)
            parts.append(images if encode is None else encode(images))
    _require_readable(source, listing, entries)
    groups = np.unique(hashes, return_inverse=True)[1]
    kept = _judgeable(source, listing, entries, groups)
    return Own(listing, [entries[row] for row in kept], torch.cat(parts)[kept], groups[kept], white)


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


def _batches(
    listing: Listing, size: int, white: int, progress: Progress
) -> Iterator[tuple[list[Entry], np.ndarray]]:
    """Entries that could be decoded and their pixels (B, 3, size, size) uint8, TOGETHER at a time."""
    entries, images = [], []
    for entry in listing.entries:
        progress.advance()
        try:
            images.append(square(decode(listing.root / entry.name, white), size))
            entries.append(entry)
        except Unreadable as error:
            listing.skipped.append((entry.name, str(error)))
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
    found = sorted(path for path in contents(folder) if not path.name.startswith("."))
    classes = [path for path in found if path.is_dir()]
    require(bool(classes), f"{folder} has no sub-folders; expected is one a class, or a CSV of path,label")
    listing = Listing(folder, [], [(p.name, "it is in no class's sub-folder") for p in found if p.is_file()])
    for path in classes:
        listed, skipped = len(listing.entries), len(listing.skipped)
        files = (file for file in path.rglob("*") if file.is_symlink() or file.is_file())
        for name in sorted(file.relative_to(folder).as_posix() for file in files):
            if not any(part.startswith(".") for part in name.split("/")):
                _list(listing, Entry(name, path.name))
        if len(listing.entries) == listed:
            reason = "".join(f" ({name!r}: {why})" for name, why in listing.skipped[skipped : skipped + 1])
            raise InputError(f"class {path.name!r} of {folder} has no images{reason}; fill or remove it")
    return listing


def contents(folder: Path) -> list[Path]:
    """What is directly in a folder. Raises InputError where that cannot be seen."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from None


def _in_csv(file: Path, root: Path) -> Listing:
    require(root.is_dir(), f"{root}, where the images of {file} should be, is no folder")
    cells = Cells(file)
    path, label = (cells.column(name) for name in COLUMNS)
    listing = Listing(root, [], [], cells)
    for number, raw in enumerate(cells.records[1:], 1):
        if len(raw) <= max(path, label):
            listing.skipped.append((f"record {number}", f"it has {len(raw)} cells, too few"))
            continue
        entry = Entry(value(raw[path]), value(raw[label]).strip(), number)
        if entry.name:
            _list(listing, entry)
        else:
            listing.skipped.append((f"record {number}", "it has no path"))
    return listing


def _list(listing: Listing, entry: Entry) -> None:
    """Add an entry, or skip it and say why."""
    problem = _problem(listing.root, entry)
    if problem is None:
        listing.entries.append(entry)
    else:
        listing.skipped.append((entry.name, problem))


def _problem(root: Path, entry: Entry) -> str | None:
    if not entry.label:
        return "it has no label"
    try:
        (entry.name + entry.label).encode()
        path, whole = (root / entry.name).resolve(), root.resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, no UTF-8, zero bytes, links in a circle
        return "its name cannot be used"
    if not path.is_relative_to(whole):
        return f"it leads out of the folder {whole.name}"
    return None if there else "it is missing"


# --- one image ----------------------------------------------------------------------------------------------


def usual_size(listing: Listing) -> int:
    """LARGEST_SIDE, or less where the median image's shorter side is; at least SMALLEST_SIDE."""
    sides = _looked_at(listing, lambda image: min(image.size))
    median = int(statistics.median(sides)) if sides else LARGEST_SIDE
    return max(SMALLEST_SIDE, min(LARGEST_SIDE, median))


def white_of(listing: Listing) -> int:
    """The value that is white in images of more than 8 bits: the least of WHITES that holds their brightest.

    Many cameras and scanners store 10 or 12 bits in 16.
    """

    def brightest(image: Image.Image) -> int:
        return int(np.asarray(image).max()) if image.mode.startswith("I") else 0

    most = max(_looked_at(listing, brightest), default=0)
    return next((white for white in WHITES if most <= white), WHITES[-1])


def _looked_at(listing: Listing, look: Callable[[Image.Image], int]) -> list[int]:
    """`look` at images here and there, LOOKED_AT at most; those that cannot be read are skipped later."""
    some, seen = listing.entries[:: -(-len(listing.entries) // LOOKED_AT)], []
    for entry in some:
        with contextlib.suppress(Unreadable), _opened(listing.root / entry.name) as image:
            seen.append(look(image))
    return seen


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file; whatever goes wrong inside is raised as Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on oddities that do not matter
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except UnidentifiedImageError:
        raise Unreadable(f"it is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # noqa: BLE001  on other bytes decoders raise whatever comes
        told = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise Unreadable(told or type(error).__name__) from None


def decode(path: Path, white: int = WHITES[-1]) -> Image.Image:
    """The image in RGB, whatever its mode. Raises Unreadable where it cannot be read.

    white : the value that becomes white, where it has more than 8 bits
    """
    with _opened(path) as image:
        # Pillow's own exif_transpose also writes all tags anew, and fails for those that it finds odd
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        if turn is not None:
            image = image.transpose(Image.Transpose[turn])
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
        if image.mode.startswith("I"):  # more than 8 bits, for which Pillow has several modes
            image = Image.fromarray((np.asarray(image).clip(0, white) * 255.0 / white).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


def square(image: Image.Image, size: int) -> np.ndarray:
    """(3, size, size) uint8: the whole image, squeezed into the square, antialiased."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)
