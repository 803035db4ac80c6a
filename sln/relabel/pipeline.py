"""`python -m sln relabel`: which labels of a folder or CSV of images are wrong, and what they should be.

Everything is written to a folder of its own, and nothing into the user's data:

    labels.csv       a row per label, most suspect first: path, given, suggested, probability, suspect, rank
    corrected.csv    a CSV's own bytes except for the labels that were replaced; for a folder, path,label
    skipped.csv      path and reason of what could not be used
    suspects.html    the most suspect images, with a slider for the threshold
    .sln-relabel/    finished networks, so that the same command goes on after a break

A path that a spreadsheet would take for a formula begins with ./ here, which leads to the same file, and any
other such cell with an apostrophe; so does what follows a semicolon or a line end inside a cell. The cells of
a CSV, in corrected.csv, stay as they are.
"""  # fmt: skip

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sln.relabel import images
from sln.relabel.cells import harmless
from sln.relabel.crossfit import Fitted, fit, require_settings
from sln.relabel.images import COLUMNS, Own
from sln.relabel.page import Suspect, page
from sln.utils.errors import require
from sln.utils.files import write_text

WORK = ".sln-relabel"
SOURCE = "source"  # in WORK: whose labels these are
PICTURES = 200  # that the page holds
THRESHOLD = 0.5  # a label is replaced where it is more likely wrong than not
DOUBTFUL = 0.7  # share of given labels that networks predict, below which a warning is due


@dataclass(frozen=True)
class Relabelled:
    """What came out: the folder, the judged labels (`labels.csv` as a table), and the networks.

    changed : labels that are replaced in corrected.csv
    skipped : (name, why)
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

    Parameters
    ----------
    source, root, size : as `images.read` takes them
    out : default <name>-relabelled in the working directory; must be new, empty, or of an earlier `relabel`
        of the same source, and not inside a folder of images
    threshold : labels at least that suspect are replaced in corrected.csv
    backbone, weights : judge features of a pretrained network (`features.encoder`) instead of pixels
    fitting : as `fit` takes it

    Raises InputError for bad input, before anything is written.
    """
    source = Path(source)
    require(0 <= threshold <= 1, f"threshold is {threshold}, allowed is [0, 1]")
    require(weights is None or backbone is not None, "weights are those of a backbone, and none is named")
    require("model" not in fitting or backbone is None, "model does not go with a backbone, which is one")
    require_settings(**fitting)
    folder = output_folder(source, None if out is None else Path(out))
    encode = None
    if backbone is not None:
        from sln.relabel import features

        require(size is None, "size does not go with a backbone, which has its own")
        size, encode = features.SIDE, features.encoder(backbone, None if weights is None else Path(weights))
    found = images.read(
        source, root=None if root is None else Path(root), size=size, encode=encode, quiet=quiet
    )
    write_text(folder / WORK / SOURCE, seen_from(folder, source))
    fitted = fit(found.images, found.labels, groups=found.groups, cache=folder / WORK, quiet=quiet, **fitting)
    labels = fitted.labels.assign(path=[entry.name for entry in found.entries])
    labels = labels[["path", "given", "suggested", "probability", "suspect", "rank"]]
    # as many decimals as labels.csv and the page have
    replace = (labels["suspect"].round(4) >= threshold) & (labels["suggested"] != labels["given"])
    new = labels["given"].where(~replace, labels["suggested"])
    by_rank = labels.sort_values("rank")
    told = [*in_words(fitted, len(found.listing.skipped)), f"Made by python -m sln relabel from {source}."]
    suspects = [_suspect(found, labels.loc[row], row) for row in by_rank.index[:PICTURES]]
    texts = {
        "labels.csv": as_csv(labels.columns, by_rank.itertuples(index=False)),
        "corrected.csv": corrected(found, new),
        "skipped.csv": as_csv(("path", "reason"), found.listing.skipped),
        "suspects.html": page(source.name, suspects, labels["suspect"], threshold, told),
    }
    for name, text in texts.items():
        write_text(folder / name, printable(text))
    return Relabelled(folder, labels, fitted, int(replace.sum()), found.listing.skipped)


def output_folder(source: Path, out: Path | None) -> Path:
    """Where the files go. Raises InputError for a place in the user's data, and for a folder of others'."""
    whole = source.resolve()
    if out is None:
        out = Path(f"{whole.name if source.is_dir() else whole.stem}-relabelled")
    inside = source.is_dir() and out.resolve().is_relative_to(whole)
    require(not inside, f"{out.resolve()} is inside your data; name a folder elsewhere with --out")
    require(not out.exists() or out.is_dir(), f"{out} is a file; name a folder with --out")
    if out.is_dir() and images.contents(out):
        require(
            (out / WORK).exists(),
            f"{out} has files that are not of `relabel`; name another folder with --out",
        )
        known = out / WORK / SOURCE
        require(
            not known.exists() or known.read_text(encoding="utf-8") == seen_from(out, source),
            f"{out} is of other labels ({known} says which); name another folder with --out, or remove it",
        )
    return out


def seen_from(out: Path, source: Path) -> str:
    """The way from the output to the source, which stays the same where both are moved together."""
    return printable(Path(os.path.relpath(source.resolve(), out.resolve())).as_posix())


def printable(text: str) -> str:
    """`text` with what is no UTF-8, in names of files, as \\udc.."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_csv(header: Iterable[str], rows: Iterable[Sequence]) -> str:
    """A CSV; numbers with four decimals, and no cell that a spreadsheet would take for a formula.

    Every cell is in quotes: so its line ends begin no other.
    """
    header, text = list(header), io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    for row in rows:
        writer.writerow(
            f"{cell:.4f}" if isinstance(cell, float) else harmless(str(cell), "./" if name == "path" else "'")
            for name, cell in zip(header, row, strict=True)
        )
    return text.getvalue()


def corrected(found: Own, labels: Sequence[str]) -> str:
    """The CSV with `labels` (N,) in the place of the given ones; for a folder, a CSV of path,label.

    Every character of a CSV stays, except the cells whose label changes: those become a copy of another cell
    of the column with that label. So nothing is in the file that was not in it before.
    """
    cells = found.listing.cells
    if cells is None:
        return as_csv(
            COLUMNS, [(entry.name, label) for entry, label in zip(found.entries, labels, strict=True)]
        )
    column, written = cells.column("label"), {}
    for entry in found.entries:
        written.setdefault(entry.label, cells.records[entry.record][column])
    return cells.replaced(
        {
            (entry.record, column): written[label]
            for entry, label in zip(found.entries, labels, strict=True)
            if label != entry.label
        }
    )


def in_words(fitted: Fitted, skipped: int) -> list[str]:
    """Sentences on how the labels were judged, and how far that is to be trusted."""
    agree = fitted.agreement
    told = [
        f"{len(fitted.given)} labelled images, {len(fitted.classes)} classes"
        + (f"; {skipped} skipped (skipped.csv names them)." if skipped else "."),
        f"Each label was judged by networks that were not shown it (SLN-MO-LC, σ = {fitted.sigma:g}, "
        f"{len(fitted.states)} networks). They predict {agree:.0%} of the given labels.",
    ]
    if agree < DOUBTFUL:
        told.append(
            "That is little: many labels are wrong, or these networks are poor judges of these images. Look "
            "at the most suspect before you use corrected.csv; more images, --size or --backbone may help."
        )
    if fitted.validation:
        scores = ", ".join(f"{sigma:g}: {score:.3f}" for sigma, score in fitted.validation.items())
        told.append(f"σ was chosen by accuracy on the given, noisy labels of one fold ({scores}).")
    return told


def _suspect(found: Own, of: pd.Series, row: int) -> Suspect:
    try:
        image = found.picture(found.entries[row])
    except images.Unreadable:  # it was there when it was read first
        image = None
    return Suspect(
        of["path"], of["given"], of["suggested"], of["suspect"], of["probability"], of["rank"], image
    )
