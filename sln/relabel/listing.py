"""Lists your own images and their labels: a folder with a sub-folder per class, or a CSV of path,label."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from sln.utils.errors import InputError, require

COLUMNS = ("path", "label")
BOM = "\ufeff"  # byte order mark, the first character of CSV files by some spreadsheets


@dataclass(frozen=True)
class Entry:
    """One image that is listed.

    name : path below the root, "7/0012.png", or as the CSV has it
    record : number of its record in the CSV, the header being 0; 0 in a folder
    """

    name: str
    label: str
    record: int = 0


@dataclass(frozen=True)
class Listing:
    """The images that a folder or a CSV lists, before any is read.

    root : folder that names start from
    skipped : (name, reason) of what cannot be used
    records : cells of the CSV, header first, without blank lines; None for a folder
    bom : whether the CSV begins with a byte order mark
    """

    root: Path
    entries: list[Entry]
    skipped: list[tuple[str, str]]
    records: list[list[str]] | None = None
    bom: bool = False

    def add(self, entry: Entry) -> None:
        """Add an entry, or skip it with a reason."""
        problem = _problem(self.root, entry)
        if problem is None:
            self.entries.append(entry)
        else:
            self.skipped.append((entry.name or f"record {entry.record}", problem))


def listed(source: Path, root: Path | None = None) -> Listing:
    """The images that a folder or a CSV lists. Raises InputError if there are none.

    root : folder that the paths of a CSV start from; default the CSV's own folder
    """
    if source.is_dir():
        require(root is None, f"{source} is a folder; the folder of the images goes with a CSV only")
        listing = _in_folder(source)
    else:
        require(source.is_file(), f"{source} is neither a folder nor a file")
        listing = _in_csv(source, source.parent if root is None else root)
    require(bool(listing.entries), f"{source} lists no image that can be used{_first(listing.skipped)}")
    return listing


def contents(folder: Path) -> list[Path]:
    """The files and folders directly in a folder. Raises InputError if it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from None


def _first(skipped: list[tuple[str, str]]) -> str:
    return "".join(f" ({name!r}: {reason})" for name, reason in skipped[:1])


def _in_folder(folder: Path) -> Listing:
    found = sorted(path for path in contents(folder) if not path.name.startswith("."))
    classes = [path for path in found if path.is_dir()]
    require(bool(classes), f"{folder} has no sub-folders; expected is one per class, or a CSV of path,label")
    listing = Listing(folder, [], [(p.name, "it is in no class's sub-folder") for p in found if p.is_file()])
    for path in classes:
        before, skipped = len(listing.entries), len(listing.skipped)
        files = (file for file in path.rglob("*") if file.is_symlink() or file.is_file())
        for name in sorted(file.relative_to(folder).as_posix() for file in files):
            if not any(part.startswith(".") for part in name.split("/")):
                listing.add(Entry(name, path.name))
        if len(listing.entries) == before:
            reason = _first(listing.skipped[skipped:])
            raise InputError(f"class {path.name!r} of {folder} has no images{reason}; fill or remove it")
    return listing


def _in_csv(file: Path, root: Path) -> Listing:
    require(root.is_dir(), f"{root}, where the images of {file} should be, is no folder")
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
    reader, records, line = csv.reader(io.StringIO(text.removeprefix(BOM), newline=""), strict=True), [], 1
    try:
        for cells in reader:
            records += [cells] if cells else []
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}, line {line}: {error}; look for a quote that is not closed") from None
    require(bool(records), f"{file} is empty, expected is a CSV with the columns path and label")
    header = records[0]
    for name, count in ((name, header.count(name)) for name in COLUMNS):
        has = f"{file} has {count or 'no'} column{'s' * (count > 1)} {name!r} in its first line"
        require(count == 1, f"{has}; it has {', '.join(map(repr, header))}, separated by commas")
    listing = Listing(root, [], [], records, text.startswith(BOM))
    for number, cells in enumerate(records[1:], 1):
        padded = dict(zip(header, cells + [""] * len(header), strict=False))
        listing.add(Entry(padded["path"], padded["label"].strip(), number))
    return listing


def _problem(root: Path, entry: Entry) -> str | None:
    if not entry.name or not entry.label:
        return "it has no label" if entry.name else "it has no path"
    try:
        (entry.name + entry.label).encode()
        path, whole = (root / entry.name).resolve(), root.resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, not UTF-8, zero bytes, circular links
        return "its name cannot be used"
    if not path.is_relative_to(whole):
        return f"it leads out of the folder {whole.name}"
    return None if there else "it is missing"
