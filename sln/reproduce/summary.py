"""Writes figures/README.md from the CSV files and manifests of all profiles (figures_readme.md.j2)."""

from __future__ import annotations

import datetime
import math
from collections.abc import Hashable
from pathlib import Path

import jinja2
import pandas as pd

from sln.analysis.sharpness import MEASURES
from sln.config import NOISE_NAMES
from sln.reproduce import claims
from sln.study.profiles import PROFILES
from sln.utils.files import read_json, read_table, write_text

MISSING = "–"


class Numbers:
    """The tables of one profile. Numbers that are not there are NaN, which the page shows as a dash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, name: str, **values: Hashable) -> pd.DataFrame:
        """The rows of `name`.csv with these values in these columns; empty if there are none."""
        path = self.folder / f"{name}.csv"
        table = read_table(path) if path.exists() and path.stat().st_size else pd.DataFrame()
        for column, value in values.items():
            table = table[table[column] == value] if column in table else table[:0]
        return table

    def shows_own(self, name: str, other: Numbers) -> bool:
        """Whether `name`.csv is not the table of `other`, which a notebook shows where it trains nothing."""
        mine, theirs = (numbers.folder / f"{name}.csv" for numbers in (self, other))
        return not (mine.exists() and theirs.exists() and mine.read_bytes() == theirs.read_bytes())

    def column(self, name: str, column: str, **values: Hashable) -> pd.Series:
        """A column of these rows; empty if it is missing."""
        rows = self.rows(name, **values)
        return rows[column] if column in rows else pd.Series(dtype=float)

    def value(self, name: str, column: str, **values: Hashable) -> float:
        """The mean of a column over these rows, of the last epoch in a table over epochs."""
        rows = self.rows(name, **values)
        if "epoch" in rows:
            rows = rows[rows["epoch"] == rows["epoch"].max()]
        return float(rows[column].mean()) if column in rows else math.nan

    def mean(self, name: str, **values: Hashable) -> str:
        """A mean and its standard deviation, as "93.7 ± 1.5"."""
        mean, std = (self.value(name, part, **values) for part in ("mean", "std"))
        return f"{mean:.1f} ± {std:.1f}" if math.isfinite(mean) else MISSING

    def estimate(
        self,
        name: str,
        column: str = "mean",
        low: str = "low",
        high: str = "high",
        form: str = ".1f",
        **values: Hashable,
    ) -> str:
        """A mean and its interval, as "93.7 (91.2 to 96.2)"."""
        mean, *ends = (self.value(name, part, **values) for part in (column, low, high))
        if not math.isfinite(mean):
            return MISSING
        return f"{_number(mean, form)} ({' to '.join(_number(end, form) for end in ends)})"


def write_summary(figures: Path) -> None:
    """Write `figures`/README.md. The same CSV files and manifests give the same bytes."""
    write_text(figures / "README.md", summary(figures))


def summary(figures: Path) -> str:
    """The page as text, without the profile `smoke` and those that have no manifest."""
    files = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=files, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": _number, "duration": _duration}
    manifests = {name: figures / name / "manifest.json" for name in PROFILES if name != "smoke"}
    done = {name: read_json(path) for name, path in manifests.items() if path.exists()}
    numbers = {name: Numbers(figures / name) for name in done}
    text = environment.get_template("figures_readme.md.j2").render(
        claims=claims.rows(numbers),
        profiles={name: (PROFILES[name].about, manifest) for name, manifest in done.items()},
        numbers=numbers,
        noise_names=NOISE_NAMES,
        measures=MEASURES,
    )
    return text.rstrip() + "\n"


def _number(value: float, form: str = ".1f") -> str:
    return format(value, form) if math.isfinite(value) else MISSING


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
