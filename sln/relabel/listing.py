"""Lists your own labelled images: a folder with a sub-folder per class, or a CSV of path,label.

In a folder, train, valid and test (or other words for them) with a sub-folder per class each are splits.
Nothing is written or decoded here. What cannot be used is skipped, named and counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sln.relabel import tables
from sln.relabel.copies import Copies
from sln.relabel.tables import COLUMNS, Table
from sln.utils.errors import InputError, require

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
ENDINGS = ("jpg", "png", "jpeg", "JPG", "PNG", "JPEG", "tif", "tiff", "bmp", "webp")  # a CSV may leave out
OTHERS = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".xlsx",
    ".xls",
    ".ods",
    ".parquet",
    ".feather",
    ".xml",
    ".yaml",
    ".yml",
)
ELSEWHERE = re.compile(r"[A-Za-z]:|\w+://|/data/upload/")  # a drive, a URL, Label Studio's server
# What file managers, archives and network storage leave in folders, beside hidden files.
SYSTEM = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "lost+found"}
SYSTEM |= {"$recycle.bin", "system volume information"}
SPLITS = {"train", "training", "trainset", "valid", "validation", "val", "dev", "test", "testing", "testset"}
SPLITS |= {"eval", "evaluation", "holdout"}
# What programs write for a label that is missing; "unknown" is an answer and none of them.
MISSING = {"nan", "none", "null", "n/a", "na", "<na>", "#n/a", "nil", "nat", "?", "-", "--", "-nan"}
MISSING_LABEL = "a word for a missing one"  # the end of a reason to skip
EMPTY = "it is an empty folder"  # a reason to skip


class Entry(NamedTuple):
    """One image that is listed."""

    name: str  # path below the root, "7/0012.png", or as the CSV has it
    label: str
    record: int = 0  # number of its record in the CSV, the header being 0; 0 in a folder
    split: str = ""  # name of the folder of its split, such as train


@dataclass
class LabelledImages:
    """N images that a folder or a CSV lists; those that can be read, and their pixels, after `read`."""

    root: Path  # folder that names start from
    entries: list[Entry]
    skipped: list[tuple[str, str]]  # name and reason of what cannot be used
    table: Table | None = None  # the CSV
    images: Tensor | None = None  # (N, 3, S, S) uint8; or (N, D) features, if they were encoded
    small: Tensor | None = None  # (N, 3, s, s) uint8, the same images at no more than 32 pixels
    groups: np.ndarray | None = None  # (N,) int64, the same number for images that stay in one fold
    copies: Copies | None = None  # the identical images and near copies
    notes: list[tuple[str, str]] = field(default_factory=list)  # lines of the survey, with headings
    missing: Counter[str] = field(default_factory=Counter)  # words for a missing label, which are skipped
    keep_missing: bool = False  # take them for labels
    side: int = 0  # median shorter side in pixels, of a sample
    way: str = ""  # a sentence: judged on features or pixels, and why
    white: int = 2**16 - 1  # the value that is white in images of more than 8 bits

    @property
    def labels(self) -> list[str]:
        """(N,): the given labels."""
        return [entry.label for entry in self.entries]

    def add(self, entry: Entry) -> None:
        """Add an entry, or skip it with a reason."""
        try:
            (entry.name + entry.label).encode()
            entry = entry._replace(name=self._as_on_disk(entry.name))
            path, whole = (self.root / entry.name).resolve(), self.root.resolve()
            out = "it is a link that leads out of the folder {}; give a copy, made with cp -rL"
            out = (out if self.table is None else "it leads out of the folder {}").format(whole.name)
            problems = {
                "it has no path": not entry.name,
                "it has no label": not entry.label,
                out: path.exists() and not path.is_relative_to(whole),
                "it is missing": not path.is_file(),
            }
        except (OSError, ValueError, RuntimeError):  # too long, not UTF-8, zero bytes, circular links
            problems = {"its name cannot be used": True}
        holding = [problem for problem, holds in problems.items() if holds]
        if holding:
            self.skipped.append((entry.name or f"record {entry.record}", holding[0]))
        elif entry.label.casefold() in MISSING and not self.keep_missing:
            self.missing[entry.label] += 1
            self.skipped.append((entry.name, f"its label is {entry.label!r}, {MISSING_LABEL}"))
        else:
            self.entries.append(entry)

    def _as_on_disk(self, name: str) -> str:
        """A file's own name, if a CSV has backslashes, blanks around it, its ending in other case or none.

        Or another Unicode form: archives from macOS have decomposed letters.
        """
        plain = name.strip().replace("\\", "/")
        stem, dot, ending = plain.rpartition(".")
        tried = [name, plain, stem + dot + ending.lower(), stem + dot + ending.upper()]
        tried += [unicodedata.normalize(form, plain) for form in ("NFC", "NFD")]
        found = next((other for other in tried if (self.root / other).is_file()), None)
        added = {
            e.lower(): f"{plain}.{e}" for e in ENDINGS if not found and (self.root / f"{plain}.{e}").is_file()
        }
        return found or (next(iter(added.values())) if len(added) == 1 else name)


def listed(
    source: Path,
    root: Path | None = None,
    columns: Sequence[str] = COLUMNS,
    encoding: str = "utf-8",
    keep_missing_words: bool = False,
) -> LabelledImages:
    """The images that a folder or a CSV lists, paths starting from `root`. Raises InputError without any."""
    hint = ""
    if source.is_dir():
        require(root is None, f"{source} is a folder; the folder of the images goes with a CSV only")
        found = _in_folder(source, keep_missing_words)
    else:
        require(source.is_file(), f"{source} is neither a folder nor a file")
        packed = source.suffix.lower() in ARCHIVES
        require(not packed, f"{source} is an archive; unpack it and give the folder that comes out")
        other = source.suffix.lower() in OTHERS
        require(not other, f"{source} is no CSV; save the list as CSV with the columns path and label")
        root = source.parent if root is None else root
        require(root.is_dir(), f"{root}, where the images of {source} should be, is no folder")
        table = tables.read(source, columns, encoding)
        found = LabelledImages(root, [], [], table, keep_missing=keep_missing_words)
        for number, path, label in table.rows():
            found.add(Entry(path, label, number))
        hint = f"; its paths start from {found.root}, --images names another folder"
        if found.skipped and ELSEWHERE.match(found.skipped[0][0]):
            hint = "; write its paths as they are below a folder here, and name that with --images"
    require(bool(found.entries), f"{source} lists no image that can be used{_first(found.skipped)}{hint}")
    return found


def contents(folder: Path) -> list[Path]:
    """The files and folders directly in a folder. Raises InputError if it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from None


def _first(skipped: list[tuple[str, str]]) -> str:
    return "".join(f" ({name!r}: {reason})" for name, reason in skipped[:1])


def _visible(path: PurePath) -> bool:
    return not any(part.startswith(".") or part.casefold() in SYSTEM for part in path.parts)


def _visible_in(folder: Path) -> list[Path]:
    return sorted(path for path in contents(folder) if _visible(PurePath(path.name)))


def _classes(folder: Path, split: str = "") -> Iterator[tuple[Path, str | None]]:
    """The folders of classes, each with the name of its split, "" if there are no splits.

    A split without classes, such as the unlabelled test images of a competition, comes with None.
    """
    inner = [path for path in _visible_in(folder) if path.is_dir()]
    splits = [path for path in inner if _is_split(path)]
    others = [path for path in inner if path not in splits]
    if splits and all(SPLITS & _words(path) for path in others):
        for path in splits:
            yield from _classes(path, split or path.name)
        yield from ((path, None) for path in others)
    else:
        names = [", ".join(path.name for path in paths) for paths in (splits, others)]
        what = f"{folder} has splits with sub-folders ({names[0]}) and other folders ({names[1]})"
        require(len(splits) < 2, f"{what}; move the others elsewhere, or give the folder of one split")
        words = [SPLITS & _words(path) for path in inner]
        bare = all(words) and len(set().union(*words)) > 1
        require(
            not bare,
            f"{folder} has splits ({names[1]}) without a sub-folder per class; give a CSV of path,label",
        )
        yield from ((path, split) for path in inner)


def _is_split(folder: Path) -> bool:
    return bool(SPLITS & _words(folder)) and any(path.is_dir() for path in _visible_in(folder))


def _words(folder: Path) -> set[str]:
    """The words of its name: train, seg_train and Test1 have train or test."""
    return set(re.split(r"[\W\d_]+", folder.name.casefold()))


def _in_folder(folder: Path, keep_missing: bool) -> LabelledImages:
    classes = list(_classes(folder))
    require(bool(classes), f"{folder} has no sub-folders; expected is one per class, or a CSV of path,label")
    deeper = len(classes) == 1 and any(path.is_dir() for path in _visible_in(classes[0][0]))
    require(
        not deeper,
        f"{folder} has one sub-folder, {classes[0][0].name!r}; give that, or the folder of classes",
    )
    found = LabelledImages(folder, [], [], keep_missing=keep_missing)
    loose = {path for place, _ in classes for path in _visible_in(place.parent) if path.is_file()}
    loose |= {path for place, split in classes if split is None for path in _files(place)}
    loose |= {path for path in _visible_in(folder) if path.is_file()}
    for path in sorted(loose):
        found.skipped.append((path.relative_to(folder).as_posix(), "it is in no class's sub-folder"))
    reasons = {}
    for path, split in classes:
        if split is None:
            continue
        before = len(found.skipped)
        files = sorted(file.relative_to(folder).as_posix() for file in _files(path))
        if not files:
            found.skipped.append((path.relative_to(folder).as_posix(), EMPTY))
            continue
        for name in files:
            found.add(Entry(name, path.name, split=split))
        reasons.setdefault(path.name, _first(found.skipped[before:]))
    filled = {*found.labels, *found.missing}
    for name, reason in reasons.items():
        require(name in filled, f"class {name!r} of {folder} has no images{reason}; fill or remove it")
    return found


def _files(folder: Path) -> Iterator[Path]:
    """The visible files and links in a folder, at any depth. Raises InputError if one cannot be read."""
    for path in filter(lambda path: _visible(PurePath(path.name)), contents(folder)):
        if path.is_symlink() or path.is_file():
            yield path
        elif path.is_dir():
            yield from _files(path)
