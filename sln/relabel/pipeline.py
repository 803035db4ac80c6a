"""`python -m sln relabel`: finds wrong labels in a folder or CSV of images and suggests right ones.

All files go to a folder of their own; your data are only read:

    labels.csv       one row per label, most suspect first: path, given, suggested, probability, suspect, rank
    corrected.csv    a copy of the CSV with the suspect labels replaced; for a folder, path,label
    skipped.csv      path and reason of what could not be used
    suspects.html    the most suspect images, with a slider for the threshold
    .sln-relabel/    finished networks; after an interruption the same command continues from there

Cells that a spreadsheet would run as a formula are made safe in all CSV files: if a cell is no number and
begins with = + - @ or a control character, a path gets a leading ./ and any other cell a leading apostrophe.
"""  # fmt: skip

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sln.relabel import images
from sln.relabel.crossfit import Fitted, fit, require_settings
from sln.relabel.images import LabelledImages
from sln.relabel.listing import BOM, COLUMNS, contents
from sln.relabel.page import page
from sln.utils.errors import require
from sln.utils.files import write_text

WORK = ".sln-relabel"
SOURCE = "source"  # file in WORK that holds the path of the data
PICTURES = 200  # on the page
THRESHOLD = 0.5  # a label is replaced if it is more likely wrong than right
DOUBTFUL = 0.7  # share of given labels that networks predict, below which there is a warning
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # OWASP, "CSV injection"
NUMBER = re.compile(r"[+-](\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)  # a signed one


@dataclass(frozen=True)
class Relabelled:
    """The result: the folder, labels.csv as a table (in the order of the data), and the networks.

    changed : number of labels that are replaced in corrected.csv
    skipped : (name, reason)
    """

    folder: Path
    labels: pd.DataFrame
    fitted: Fitted
    changed: int
    skipped: list[tuple[str, str]]


def relabel(
    source: Path | str,
    out: Path | str | None = None,
    *,
    root: Path | str | None = None,
    size: int | None = None,
    threshold: float = THRESHOLD,
    backbone: str | None = None,
    weights: Path | str | None = None,
    quiet: bool = False,
    **fitting: Any,
) -> Relabelled:
    """Judge the labels of a folder or CSV of images, and write the files above to `out`.

    source, root, size : as for `images.read`
    out : default <name>-relabelled in the working directory; must be new, empty, or written by an earlier
        `relabel` of the same source, and not inside a folder of images
    threshold : labels with at least this probability of being wrong are replaced in corrected.csv
    backbone, weights : use features of a pretrained network (`features.encoder`) instead of pixels
    fitting : as for `fit`

    Raises InputError for bad input, before anything is written.
    """
    source, root, weights = (None if path is None else Path(path) for path in (source, root, weights))
    require(0 <= threshold <= 1, f"threshold is {threshold}, allowed is [0, 1]")
    require(weights is None or backbone is not None, "weights need a backbone; name one with --backbone")
    for name, value in {"model": fitting.get("model"), "size": size}.items():
        alone = value is None or backbone is None
        require(alone, f"{name} and backbone exclude each other; leave out one")
    require_settings(**fitting)
    folder = output_folder(source, out)
    encode = None
    if backbone is not None:
        from sln.relabel import features

        size, encode = features.SIDE, features.encoder(backbone, weights)
    found = images.read(source, root=root, size=size, encode=encode, quiet=quiet)
    write_text(folder / WORK / SOURCE, relative(source, folder))
    fitted = fit(found.images, found.labels, groups=found.groups, cache=folder / WORK, quiet=quiet, **fitting)
    labels = fitted.labels.assign(path=[entry.name for entry in found.entries])
    labels = labels[["path", "given", "suggested", "probability", "suspect", "rank"]]
    by_rank = labels.sort_values("rank")
    # compared with the four decimals that labels.csv and the page show
    replaced = (labels["suspect"].round(4) >= threshold) & (labels["suggested"] != labels["given"])
    corrected = labels["given"].where(~replaced, labels["suggested"]).tolist()
    pictures = [found.picture(found.entries[row]) for row in by_rank.index[:PICTURES]]
    skipped = found.listing.skipped
    sentences = [*describe(fitted, len(skipped)), f"Made by python -m sln relabel from {source}."]
    files = {
        "labels.csv": as_csv([list(labels.columns), *by_rank.itertuples(index=False)]),
        "corrected.csv": corrected_csv(found, corrected),
        "skipped.csv": as_csv([("path", "reason"), *skipped]),
        "suspects.html": page(source.name, by_rank, pictures, threshold, sentences),
    }
    for name, text in files.items():
        write_text(folder / name, printable(text))
    return Relabelled(folder, labels, fitted, int(replaced.sum()), skipped)


# --- the output folder --------------------------------------------------------------------------------------


def output_folder(source: Path, out: Path | str | None) -> Path:
    """The folder for the files. Raises InputError if it is inside the data or has other files."""
    data = source.resolve()
    out = Path(out or f"{data.name if source.is_dir() else data.stem}-relabelled")
    inside = source.is_dir() and out.resolve().is_relative_to(data)
    require(not inside, f"{out.resolve()} is inside your data; name a folder elsewhere with --out")
    require(not out.exists() or out.is_dir(), f"{out} is a file; name a folder with --out")
    ours = not out.is_dir() or not contents(out) or (out / WORK).exists()
    require(ours, f"{out} has files that are not of `relabel`; name another folder with --out")
    known = out / WORK / SOURCE
    same = not known.exists() or known.read_text(encoding="utf-8") == relative(source, out)
    require(same, f"{out} is of other labels (see {known}); name another folder with --out, or remove it")
    return out


def relative(source: Path, out: Path) -> str:
    """The path from the output to the data; it stays the same if both are moved together."""
    return printable(Path(os.path.relpath(source.resolve(), out.resolve())).as_posix())


def printable(text: str) -> str:
    """`text` with bytes of file names that are not UTF-8 as \\udc.."""
    return text.encode("utf-8", "backslashreplace").decode()


# --- CSV files ----------------------------------------------------------------------------------------------


def as_csv(records: Iterable[Sequence]) -> str:
    """A CSV, the header first; numbers with four decimals, formulas made safe (see the docstring above)."""
    table = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in records]
    path = table[0].index("path")
    table = [[safe(cell, "./" if i == path else "'") for i, cell in enumerate(row)] for row in table]
    # Python 3.11 does not quote a lone carriage return by itself
    returns = any("\r" in cell for row in table for cell in row)
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(table)
    return text.getvalue()


def safe(cell: str, mark: str = "'") -> str:
    """The cell behind `mark` if a spreadsheet would run it as a formula."""
    return f"{mark}{cell}" if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell) else cell


def corrected_csv(found: LabelledImages, labels: Sequence[str]) -> str:
    """The CSV with `labels` (N,) instead of the given ones, other cells as they are; or path,label."""
    records = found.listing.records
    if records is None:
        return as_csv([COLUMNS, *((e.name, label) for e, label in zip(found.entries, labels, strict=True))])
    column, records = records[0].index("label"), [list(cells) for cells in records]
    for entry, label in zip(found.entries, labels, strict=True):
        if label != entry.label:
            records[entry.record][column] = label
    return BOM * found.listing.bom + as_csv(records)


# --- the summary --------------------------------------------------------------------------------------------


def describe(fitted: Fitted, skipped: int) -> list[str]:
    """Sentences on how the labels were judged and how far to trust the result."""
    agreement, named = fitted.agreement, f"; {skipped} skipped (skipped.csv names them)" if skipped else ""
    sentences = [
        f"{len(fitted.given)} labelled images, {len(fitted.classes)} classes{named}.",
        f"Each label was judged by networks that were not trained on it (SLN-MO-LC, σ = {fitted.sigma:g}, "
        f"{len(fitted.states)} networks). They predict {agreement:.0%} of the given labels.",
    ]
    if agreement < DOUBTFUL:
        sentences.append(
            "That is little: many labels are wrong, or these networks are poor judges of these images. Look "
            "at the most suspect before you use corrected.csv; more images, --size or --backbone may help."
        )
    if fitted.validation:
        scores = ", ".join(f"{sigma:g}: {score:.3f}" for sigma, score in fitted.validation.items())
        sentences.append(f"σ was chosen by accuracy on the given, noisy labels of one fold ({scores}).")
    return sentences
