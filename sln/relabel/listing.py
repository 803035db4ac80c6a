"""Lists your own labelled images: a folder with a sub-folder per class, or a CSV of path,label.

Nothing is written or decoded here. What cannot be used is skipped, named and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sln.relabel import tables
from sln.relabel.tables import COLUMNS, Table
from sln.utils.errors import InputError, require

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# What file managers, archives and network storage leave in folders, beside hidden files.
SYSTEM = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "lost+found"}
SYSTEM |= {"$recycle.bin", "system volume information"}


class Entry(NamedTuple):
    """One image that is listed."""

    name: str  # path below the root, "7/0012.png", or as the CSV has it
    label: str
    record: int = 0  # number of its record in the CSV, the header being 0; 0 in a folder


@dataclass
class LabelledImages:
    """N images that a folder or a CSV lists; those that can be read, and their pixels, after `read`."""

    root: Path  # folder that names start from
    entries: list[Entry]
    skipped: list[tuple[str, str]]  # name and reason of what cannot be used
    table: Table | None = None  # the CSV
    images: Tensor | None = None  # (N, 3, S, S) uint8; or (N, D) features, if they were encoded
    groups: np.ndarray | None = None  # (N,) int64, the same number for identical pixels
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
            problems = {
                "it has no path": not entry.name,
                "it has no label": not entry.label,
                f"it leads out of the folder {whole.name}": not path.is_relative_to(whole),
                "it is missing": not path.is_file(),
            }
        except (OSError, ValueError, RuntimeError):  # too long, not UTF-8, zero bytes, circular links
            problems = {"its name cannot be used": True}
        holding = [problem for problem, holds in problems.items() if holds]
        if holding:
            self.skipped.append((entry.name or f"record {entry.record}", holding[0]))
        else:
            self.entries.append(entry)

    def _as_on_disk(self, name: str) -> str:
        """A file's own name, if a CSV has backslashes, blanks around it, or its ending in other case."""
        plain = name.strip().replace("\\", "/")
        stem, dot, ending = plain.rpartition(".")
        tried = (name, plain, stem + dot + ending.lower(), stem + dot + ending.upper())
        return next((other for other in tried if (self.root / other).is_file()), name)


def listed(
    source: Path, root: Path | None = None, columns: Sequence[str] = COLUMNS, encoding: str = "utf-8"
) -> LabelledImages:
    """The images that a folder or a CSV lists, paths starting from `root`. Raises InputError without any."""
    hint = ""
    if source.is_dir():
        require(root is None, f"{source} is a folder; the folder of the images goes with a CSV only")
        found = _in_folder(source)
    else:
        require(source.is_file(), f"{source} is neither a folder nor a file")
        packed = source.suffix.lower() in ARCHIVES
        require(not packed, f"{source} is an archive; unpack it and give the folder that comes out")
        found = _in_csv(source, source.parent if root is None else root, columns, encoding)
        hint = f"; its paths start from {found.root}, --images names another folder"
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


def _in_folder(folder: Path) -> LabelledImages:
    visible = sorted(path for path in contents(folder) if _visible(PurePath(path.name)))
    classes = [path for path in visible if path.is_dir()]
    require(bool(classes), f"{folder} has no sub-folders; expected is one per class, or a CSV of path,label")
    loose = [(path.name, "it is in no class's sub-folder") for path in visible if path.is_file()]
    found = LabelledImages(folder, [], loose)
    for path in classes:
        before, skipped = len(found.entries), len(found.skipped)
        files = (file for file in path.rglob("*") if file.is_symlink() or file.is_file())
        for name in sorted(file.relative_to(folder).as_posix() for file in files):
            if _visible(PurePath(name)):
                found.add(Entry(name, path.name))
        if len(found.entries) == before:
            reason = _first(found.skipped[skipped:])
            raise InputError(f"class {path.name!r} of {folder} has no images{reason}; fill or remove it")
    return found


def _in_csv(file: Path, root: Path, columns: Sequence[str], encoding: str) -> LabelledImages:
    require(root.is_dir(), f"{root}, where the images of {file} should be, is no folder")
    found = LabelledImages(root, [], [], tables.read(file, columns, encoding))
    for number, path, label in found.table.rows():
        found.add(Entry(path, label, number))
    return found
