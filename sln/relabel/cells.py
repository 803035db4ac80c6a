"""CSV files cell by cell, as they were written, so that a copy can differ in some cells and nowhere else."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from sln.utils.errors import InputError, require

# What makes a spreadsheet take a cell for a formula (OWASP, "CSV injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
CELL = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n|\n|\r|\Z)')
NUMBER = re.compile(r"[+-]\d+([.,]\d+)?")
BOM = "\ufeff"  # that some spreadsheets begin a file with


class Cells:
    """A CSV file with a header: what its cells say (`value`), and how they were written.

    records : the raw cells of every line that is not empty, the header first
    Raises InputError for a file that is missing, not UTF-8, or not of commas and quotes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_bytes().decode("utf-8")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
        self._spans: list[list[tuple[int, int]]] = [[]]  # of every cell, record by record
        start = len(BOM) if self.text.startswith(BOM) else 0
        while start < len(self.text):
            match = CELL.match(self.text, start)
            if match is None:
                line = self.text.count("\n", 0, start) + 1
                raise InputError(f"{path}, line {line}: a quote that is not closed, or is inside a cell")
            self._spans[-1].append(match.span(1))
            if match[2] != ",":
                self._spans.append([])
            start = match.end()
        self._spans = [spans for spans in self._spans if any(a < b for a, b in spans) or len(spans) > 1]
        require(bool(self._spans), f"{path} is empty, expected is a CSV with the columns path and label")

    @functools.cached_property
    def records(self) -> list[list[str]]:
        """The raw cells, record by record."""
        return [[self.text[a:b] for a, b in spans] for spans in self._spans]

    def column(self, name: str) -> int:
        """The place of a column. Raises InputError where there is none of that name, or two."""
        header = [value(cell) for cell in self.records[0]]
        require(
            header.count(name) == 1,
            f"{self.path} has {header.count(name) or 'no'} column{'s' * (header.count(name) > 1)} {name!r} "
            f"in its first line; it has {', '.join(map(repr, header))}, separated by commas",
        )
        return header.index(name)

    def replaced(self, changes: dict[tuple[int, int], str]) -> str:
        """The file's text with raw cells replaced by (record, column), every other character as it was."""
        parts, done = [], 0
        for (record, column), raw in sorted(changes.items()):
            start, end = self._spans[record][column]
            parts += [self.text[done:start], raw]
            done = end
        return "".join(parts) + self.text[done:]


def value(raw: str) -> str:
    """What a raw cell says."""
    return raw[1:-1].replace('""', '"') if raw.startswith('"') else raw


def harmless(text: str, mark: str = "'") -> str:
    """`text`, behind a mark where a spreadsheet would take it for a formula; numbers are none.

    Inside, an apostrophe separates what one would take for the end of a cell and a formula after it: where
    lists are separated by semicolons, quotes do not help.
    """
    text = re.sub(r"([;\t\r\n])(?=[=+\-@])", r"\1'", text)
    return f"{mark}{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text
