"""CSV files as people and spreadsheets have them: read, and written so that no spreadsheet runs a cell."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sln.utils.errors import InputError, require

COLUMNS = ("path", "label")
# Before the header, some spreadsheets write a byte order mark and the separator, sep=;
START = re.compile("\ufeff?(sep=.\r?\n)?")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # OWASP, "CSV injection"
NUMBER = re.compile(r"[+-](\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)  # a signed one


@dataclass(frozen=True)
class Table:
    """A CSV of paths and labels."""

    records: list[list[str]]  # cells, header first, without blank lines
    columns: tuple[int, int]  # where path and label are
    delimiter: str
    start: str  # what comes before the header: a byte order mark, sep=;

    def rows(self) -> Iterable[tuple[int, str, str]]:
        """The number of each record, the header being 0, its path and its label; "" for a missing cell."""
        for number, cells in enumerate(self.records[1:], 1):
            path, label = (cells[place] if place < len(cells) else "" for place in self.columns)
            if any(cell.strip() for cell in cells):  # spreadsheets leave empty rows
                yield number, path, label.strip()

    def column(self, name: str) -> list[str] | None:
        """The cells of another column, one per record, "" for the header's; None if there is none."""
        header = [cell.strip() for cell in self.records[0]]
        if name not in header:
            return None
        place = header.index(name)
        cells = [cells[place].strip() if place < len(cells) else "" for cells in self.records]
        return ["", *cells[1:]]

    def with_labels(self, labels: dict[int, str | None]) -> str:
        """The CSV with other labels in some records, without those of None, all other cells as they are."""
        (path, column), records = self.columns, []
        for number, cells in enumerate(self.records):
            label = labels.get(number, "")
            if label is not None:
                same = not label or label == cells[column].strip()
                records.append(cells if same else [*cells[:column], label, *cells[column + 1 :]])
        return self.start + as_csv(records, path, self.delimiter)


def read(file: Path, columns: Sequence[str] = COLUMNS, encoding: str = "utf-8") -> Table:
    """A CSV separated by commas, semicolons or tabs. Raises InputError if it cannot be read as one.

    columns : names of the columns of paths and labels; encoding : how its characters are stored
    """
    try:
        content = file.read_bytes()
        marked = encoding == "utf-8" and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if marked else encoding)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    except LookupError:
        raise InputError(
            f"unknown encoding {encoding!r}; --encoding is for example cp1252 or utf-16"
        ) from None
    except UnicodeError as error:
        where = f" (byte {getattr(error, 'start', 0)})"
        way = "save it as CSV UTF-8, or name its own with --encoding, such as cp1252 or utf-16"
        raise InputError(f"{file} is not {encoding.upper()} text{where}; {way}") from None
    start = START.match(text)[0]
    text = text.removeprefix(start)
    dialect, records, line = _dialect(text, columns), [], 1
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    try:
        for cells in reader:
            records += [cells] if cells else []
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}, line {line}: {error}; look for a quote that is not closed") from None
    require(bool(records), f"{file} is empty, expected is a CSV with the columns path and label")
    header, places = [cell.strip() for cell in records[0]], []
    for row, cells in enumerate(records, 1):
        what = f"{file}, row {row} has more cells than its first line has names"
        way = f"put a cell with {dialect['delimiter']!r} into double quotes, without a blank before them"
        require(not any(cell.strip() for cell in cells[len(header) :]), f"{what}; {way}")
    ones = [name for place, name in enumerate(header) if _is_one_hot(records[1:], place)]
    if columns[1] not in header and len(ones) > 1:
        what = f"{file} has no column {columns[1]!r}, but {', '.join(map(repr, ones))} with 0 and 1"
        raise InputError(f"{what}; write the name of the class into one column")
    for name, kind in zip(columns, COLUMNS, strict=True):
        if name not in header and [cell.casefold() for cell in header].count(name.casefold()) == 1:
            name = next(cell for cell in header if cell.casefold() == name.casefold())
        count = header.count(name)
        has = f"{file} has {count or 'no'} column{'s' * (count > 1)} {name!r} in its first line"
        way = f"separated by commas; --{kind}-column names another"
        if any(re.search(r"\.\w{3,4}$", cell) for cell in header):
            way = "separated by commas; the first line must be the columns' names, such as path,label"
        require(count == 1, f"{has}; it has {', '.join(map(repr, header))}, {way}")
        places.append(header.index(name))
    return Table(records, (places[0], places[1]), dialect["delimiter"], start)


def _is_one_hot(records: list[list[str]], place: int) -> bool:
    cells = {cells[place].strip().removesuffix(".0") for cells in records if place < len(cells)}
    return cells == {"0", "1"}


def _dialect(text: str, columns: Sequence[str]) -> dict[str, Any]:
    """How the cells of a CSV are separated, by its header: by commas, if that has no `columns` otherwise."""
    header = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    dialects = []
    for mark in ",;\t":
        dialects.append({"delimiter": mark, "skipinitialspace": f"{mark} " in header, "strict": True})
        with contextlib.suppress(csv.Error):
            cells = next(csv.reader([header], **dialects[-1]), [])
            if {name.casefold() for name in columns} <= {cell.strip().casefold() for cell in cells}:
                return dialects[-1]
    return dialects[0]


def as_csv(records: Iterable[Sequence], path: int | None = None, delimiter: str = ",") -> str:
    """A CSV, the header first; numbers with four decimals, formulas made safe (see the docstring above).

    path : the place of the column of paths; by default that named path
    """
    table = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in records]
    path = table[0].index("path") if path is None else path
    table = [[safe(cell, "./" if i == path else "'") for i, cell in enumerate(row)] for row in table]
    returns = any("\r" in cell for row in table for cell in row)
    quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL  # which leaves "\r" bare in Python 3.11
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(table)
    return printable(text.getvalue())


def safe(cell: str, mark: str = "'") -> str:
    """The cell behind `mark` if a spreadsheet would run it as a formula."""
    return f"{mark}{cell}" if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell) else cell


def printable(text: str) -> str:
    """`text` with bytes of file names that are not UTF-8 as \\udc.."""
    return text.encode("utf-8", "backslashreplace").decode()
