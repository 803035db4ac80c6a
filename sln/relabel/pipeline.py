"""`python -m sln relabel`: finds wrong labels in a folder or CSV of images and suggests right ones.

All files go to a folder of their own; your data are only read:

    labels.csv       one row per label, most suspect first: path, given, suggested, probability, suspect,
                     rank, judged, class_agreement, group (`Fitted.labels`); and split, if the folder has
                     splits. A group are copies, or what --groups says; empty: the image is alone
    corrected.csv    a copy of the CSV with the suspect labels replaced, and spellings merged if that is asked
                     for; for a folder, path,label and, if it has splits, split
    skipped.csv      path and reason of what could not be used
    suspects.html    the most suspect images and copies with different labels, to decide on them
                     (`decisions` applies what was decided)
    .sln-relabel/    features, finished networks; after an interruption the same command continues from there

In all CSV files, if a cell is no number and begins with = + - @ or a control character, so that a spreadsheet
would run it as a formula, a path gets a leading ./ and any other cell a leading apostrophe.
"""  # fmt: skip

from __future__ import annotations

import functools
import hashlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sln.relabel import exports, features, images, judged, scores, survey
from sln.relabel.crossfit import Fitted, fit, require_settings
from sln.relabel.listing import LabelledImages, contents
from sln.relabel.page import arranged, page
from sln.relabel.tables import COLUMNS, as_csv, printable
from sln.utils.errors import choose, require
from sln.utils.files import write_text, write_together

WORK = ".sln-relabel"
SOURCE = "source"  # file in WORK that holds the path of the data
CORRECTED, RECORD = "corrected.csv", "corrected"  # and a file in WORK that says what it was made from
THRESHOLD = 0.5  # a label is replaced if it is more likely wrong than right
DOUBTFUL = 0.7  # estimated share of right predictions, below which there is a warning


@dataclass(frozen=True)
class Relabelled:
    """What was found."""

    folder: Path  # where the files are
    labels: pd.DataFrame  # labels.csv as a table, in the order of the data
    fitted: Fitted  # the networks
    changed: int  # number of labels that are replaced in corrected.csv
    skipped: list[tuple[str, str]]  # name, reason
    warnings: list[str]  # what to look at before corrected.csv is used
    sentences: list[str]  # how labels were judged, and how far to trust the result, warnings included
    verdict: list[str]  # two sentences: how many labels look wrong and are replaced


def relabel(
    source: Path | str,
    out: Path | str | None = None,
    *,
    root: Path | str | None = None,
    path_column: str = COLUMNS[0],
    label_column: str = COLUMNS[1],
    encoding: str = "utf-8",
    size: int | None = None,
    threshold: float = THRESHOLD,
    backbone: str | None = None,
    weights: Path | str | None = None,
    export: Sequence[str] = (),
    groups: str | None = None,
    keep_missing_words: bool = False,
    merge_spellings: bool = False,
    check: bool = False,
    quiet: bool = False,
    **fitting: Any,
) -> Relabelled | None:
    """Judge the labels of a folder or CSV of images, and write the files above to `out`.

    source : a folder with a sub-folder per class, or a CSV with the columns `path_column`, `label_column`
    root, encoding, size, groups, keep_missing_words, merge_spellings, fitting : as for `images.read`, `fit`
    out : default <name>-relabelled in the working directory; must be new, empty, or written by an earlier
        `relabel` of the same source, without a corrected.csv that a person has made or changed since, and
        not inside a folder of images
    threshold : labels with at least this probability of being wrong are replaced in corrected.csv
    backbone, weights : features of this pretrained network instead of pixels (`features.encoder`); "none":
        pixels; default: as `features.chosen`
    export : names of other tools' formats (`exports.FORMATS`) to write the judged labels in, too; files of
        these formats that are in `out` are written again in any case
    check : only print what the data hold (`survey.screen`), which is printed first in any case unless quiet;
        returns None

    Raises InputError for bad input, before anything is written.
    """
    source, root, weights = (None if path is None else Path(path) for path in (source, root, weights))
    require(0 <= threshold <= 1, f"threshold is {threshold}, allowed is [0, 1]")
    named = backbone not in (None, "none")
    require(weights is None or named, "weights need a backbone; name one with --backbone")
    pixels = {"model": fitting.get("model"), "size": size}
    asked = next((f"--{name}" for name, value in pixels.items() if value is not None), None)
    require(not (asked and named), f"{asked} and --backbone exclude each other; leave out one")
    require_settings(**fitting)
    for name in export:
        choose("export", name, exports.FORMATS)
    folder = Path() if check else output_folder(source, out, "suggestions")  # Path(): nothing is written
    table = {"root": root, "columns": (path_column, label_column), "encoding": encoding, "groups": groups}
    table |= {"keep_missing_words": keep_missing_words, "merge_spellings": merge_spellings}
    encoder = functools.partial(features.chosen, backbone=backbone, weights=weights, pixels=asked)
    way = {"size": size, "choose": None if check else encoder, "cache": None if check else folder / WORK}
    found, folds = images.read(source, **table, **way, quiet=quiet), fitting.get("folds", 5)
    if check or not quiet:
        print(survey.screen(found, source.name, folds), flush=True)
    if check:
        return None
    write_text(folder / WORK / SOURCE, relative(source, folder))
    fitted = fit(found.images, found.labels, groups=found.groups, cache=folder / WORK, quiet=quiet, **fitting)
    labels = fitted.labels.assign(path=[entry.name for entry in found.entries])
    labels = labels[["path", *fitted.labels.columns]]
    if any(entry.split for entry in found.entries):
        labels["split"] = [entry.split for entry in found.entries]
    by_rank = labels.assign(group=labels["group"].astype("string").fillna("")).sort_values("rank")
    # compared with the four decimals that labels.csv and the page show
    suspect = labels["suspect"].round(4) >= threshold
    replaced = suspect & (labels["suggested"] != labels["given"]) & labels["judged"]
    corrected = labels["given"].where(~replaced, labels["suggested"]).tolist()
    paged, count = arranged(labels, found.copies.groups)
    pictures = (images.picture(found, found.entries[row]) for row in paged.index[:count])
    skipped = found.skipped
    warnings = judged.lost(found.labels, corrected)
    sentences = [found.way, *describe(fitted, len(skipped), 2 * folds), *warnings]
    changed = int(replaced.sum())
    verdict = [
        f"{int(suspect.sum())} labels are at least as suspect as {threshold:g}; {changed} of them are "
        "replaced in corrected.csv.",
        f"{changed} of {len(labels)} labels look wrong. Look at them before you use corrected.csv.",
    ]
    data = {"out": out, "images": root, "path-column": path_column, "label-column": label_column}
    data |= {"encoding": encoding, "keep-missing-words": keep_missing_words}
    made = command(source, **data, **{"merge-spellings": merge_spellings})
    how = f"Made by {made}, besides options that leave the data as they are."
    told = [*verdict[::-1], *sentences, how]
    q = scores.true_class(fitted.probabilities.numpy(), fitted.given.numpy())[paged.index]
    html = page(source.name, paged, pictures, threshold, told, fitted.classes, q, made)
    texts = {"labels.csv": as_csv([list(labels.columns), *by_rank.itertuples(index=False)])}
    texts |= corrected_texts(corrected_csv(found, corrected), "suggestions") | {"suspects.html": html}
    texts |= {"skipped.csv": as_csv([("path", "reason"), *skipped])}
    texts |= exports.texts([*export, *exports.there(folder)], labels, replaced, found.root)
    require_own(folder, "suggestions")  # the training took a while
    write_together({folder / name: text for name, text in texts.items()})
    return Relabelled(folder, labels, fitted, changed, skipped, warnings, sentences, verdict)


def command(source: Path, **options: Any) -> str:
    """The command with those of the options that differ from the defaults, as a shell reads it."""
    usual = {"path-column": COLUMNS[0], "label-column": COLUMNS[1], "encoding": "utf-8"}
    words = ["python", "-m", "sln", "relabel", str(source)]
    for name, value in options.items():
        if value not in (None, False, usual.get(name)):
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def output_folder(source: Path, out: Path | str | None, *makers: str) -> Path:
    """The folder for the files. Raises InputError if it is inside the data or has other files.

    makers : as for `require_own`
    """
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
    require_own(out, *makers)
    return out


def relative(source: Path, out: Path) -> str:
    """The path from the output to the data; it stays the same if both are moved together."""
    return printable(Path(os.path.relpath(source.resolve(), out.resolve())).as_posix())


def corrected_texts(text: str, maker: str) -> dict[str, str]:
    """corrected.csv, and who made it from what: suggestions or decisions."""
    return {CORRECTED: text, f"{WORK}/{RECORD}": record(text.encode(), maker)}


def record(content: bytes, maker: str) -> str:
    """What RECORD says of a corrected.csv."""
    return f"{maker} {hashlib.sha256(content).hexdigest()}"


def require_own(folder: Path, *makers: str) -> None:
    """Raise InputError if there is a corrected.csv that is not made from one of `makers`, or was changed."""
    file, known = folder / CORRECTED, folder / WORK / RECORD
    if file.is_file():
        content, told = file.read_bytes(), known.read_text(errors="replace") if known.exists() else ""
        own = told in {record(content, maker) for maker in makers}
        what = f"{file} holds decisions or changes of yours, which would be lost"
        require(own, f"{what}; rename or remove it, or name another folder with --out")


def corrected_csv(found: LabelledImages, labels: Sequence[str | None]) -> str:
    """The CSV with `labels` (N,) instead of the given ones, other cells as they are; or path,label.

    None leaves the row out.
    """
    pairs = list(zip(found.entries, labels, strict=True))
    if found.table is None:
        splits = any(entry.split for entry in found.entries)
        rows = [(e.name, label, e.split)[: 2 + splits] for e, label in pairs if label is not None]
        return as_csv([(*COLUMNS, "split")[: 2 + splits], *rows])
    return found.table.with_labels({entry.record: label for entry, label in pairs})


def describe(fitted: Fitted, skipped: int, least: int = 0) -> list[str]:
    """Sentences on how the labels were judged and how far to trust that; least: as `judged.sentences`."""
    agreement, surest = (
        fitted.agreement,
        judged.surest_agreement(fitted.probabilities.numpy(), fitted.given.numpy()),
    )
    named = f"; {skipped} skipped (skipped.csv names them)" if skipped else ""
    sentences = [
        f"{len(fitted.given)} labelled images, {len(fitted.classes)} classes{named}.",
        f"Each label was judged by networks that were not trained on it (SLN-MO-LC, σ = {fitted.sigma:g}, "
        f"{len(fitted.states)} networks). They predict {agreement:.0%} of the given labels, "
        f"{surest:.0%} where they are most confident (a fifth of the images).",
    ]
    if agreement < DOUBTFUL * surest:
        sentences.append(
            "The difference is large, so these networks are poor judges of many of these images. Look at the "
            "most suspect before you use corrected.csv; more images, --size or --backbone may help."
        )
    sentences += judged.sentences(fitted.agreement_by_class, least)
    if fitted.validation:
        scores = ", ".join(f"{sigma:g}: {score:.3f}" for sigma, score in fitted.validation.items())
        sentences.append(f"σ was chosen by accuracy on the given, noisy labels of one fold ({scores}).")
    return sentences
