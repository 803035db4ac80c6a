"""A person's decisions on suspect labels, as the page saves them, applied to the data: nothing is trained.

decisions.csv has a row per decided label: path and given label as in labels.csv, the decision, and the label
that results; none for what is excluded.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sln.relabel import images, pipeline, survey, tables
from sln.relabel.listing import Entry, LabelledImages, listed
from sln.relabel.pipeline import CORRECTED, SOURCE, WORK, corrected_csv
from sln.relabel.tables import COLUMNS, safe
from sln.utils.errors import InputError, require
from sln.utils.files import write_together

HEADER = ("path", "given", "decision", "label")
DECISIONS = ("suggestion", "keep", "other", "exclude")
NEEDS = (
    "root",
    "path_column",
    "label_column",
    "encoding",
    "keep_missing_words",
    "merge_spellings",
)  # options of `relabel` that go with decisions


def decide(source: Path, decisions: Path, out: Path | None = None, **options: Any) -> list[str]:
    """Write corrected.csv: the labels that `decisions` gives, all others as they are, none of the excluded.

    source, out, options : as for `relabel`, of the options those in NEEDS

    Returns sentences on what was written. Raises InputError for bad input, before anything is written.
    """
    for name in options.keys() - {*NEEDS}:
        raise InputError(f"--decisions trains nothing, so --{name.replace('_', '-')} does not go with it")
    columns = tuple(options.pop(f"{name}_column", name) for name in COLUMNS)
    folder = pipeline.output_folder(source, out, "suggestions", "decisions")
    merge = options.pop("merge_spellings", False)
    found = survey.checked(listed(source, columns=columns, **options), merge)
    if found.table is None:
        found.entries = _readable(found, folder / "skipped.csv")
    decided = read(decisions, found.entries, merge)
    results = [decided.get(cells(entry)) for entry in found.entries]
    pairs = zip(found.entries, results, strict=True)
    labels = [entry.label if result is None else result[1] for entry, result in pairs]
    written = folder / CORRECTED
    texts = pipeline.corrected_texts(corrected_csv(found, labels), "decisions")
    texts |= {f"{WORK}/{SOURCE}": pipeline.relative(source, folder)}
    write_together({folder / name: text for name, text in texts.items()})
    count = Counter(result[0] for result in results if result)
    named = ", ".join(f"{count[decision]} {decision}" for decision in DECISIONS)
    kept = f"{results.count(None)} without a decision stay as given"
    return [f"{len(labels)} labels: {named}; {kept}.", f"{written} has {len(labels) - count['exclude']}."]


def _readable(found: LabelledImages, skipped: Path) -> list[Entry]:
    """The entries that are images. Only those that `relabel` has skipped are decoded to the end."""
    doubtful = set()
    if skipped.is_file():
        doubtful = {path for _, path, _ in tables.read(skipped, ("path", "reason")).rows()}
    return [
        entry
        for entry in found.entries
        if images.is_image(found.root / entry.name)
        and (cells(entry)[0] not in doubtful or images.picture(found, entry) is not None)
    ]


def read(
    file: Path, entries: list[Entry], merge: bool = False
) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Decision and label by path and given label (`cells`); the label is None for what is excluded.

    merge : whether the spellings of `entries` were merged

    Raises InputError, naming file and row (the header is row 1), for what does not fit the data.
    """
    try:
        (names, *records) = tables.read(file, (HEADER[0], HEADER[3])).records
    except InputError as error:  # the options that it names are those of the data
        raise InputError(str(error).partition("; --")[0]) from None
    right = sorted(names) == sorted(HEADER)
    require(right, f"{file} has the columns {', '.join(names)}; expected are {', '.join(HEADER)}")
    classes, given, decided = {safe(entry.label): entry.label for entry in entries}, {}, {}
    for entry in entries:
        given.setdefault(cells(entry)[0], []).append(cells(entry)[1])
    for number, record in enumerate(records, 2):
        if not any(cell.strip() for cell in record):
            continue  # spreadsheets leave empty rows
        where = f"{file}, row {number}"
        require(len(record) == len(HEADER), f"{where} has {len(record)} cells, expected are {len(HEADER)}")
        path, old, decision, new = (record[names.index(name)] for name in HEADER)
        require(path in given, f"{where}: {path!r} is not in the data")
        known = " and ".join(map(repr, given[path]))
        alike = survey.spelling(old) in map(survey.spelling, given[path])
        hint = f"; {'leave out' if merge else 'add'} --merge-spellings" if alike else ""
        what = f"{where}: {path!r} is labelled {known} in the data, not {old!r}{hint}"
        require(old in given[path], what)
        allowed = ", ".join(DECISIONS)
        require(decision in DECISIONS, f"{where}: unknown decision {decision!r}, allowed are {allowed}")
        expected = {"keep": old, "exclude": ""}.get(decision, new)
        require(new == expected, f"{where}: {decision} with the label {new!r}, expected is {expected!r}")
        known = decision == "exclude" or new in classes
        require(known, f"{where}: {new!r} is no label of the data; see the spelling")
        require((path, old) not in decided, f"{where}: {path!r} labelled {old!r} has an earlier row, too")
        decided[path, old] = (decision, classes.get(new))
    return decided


def cells(entry: Entry) -> tuple[str, str]:
    """Its path and given label as they are in labels.csv."""
    return safe(entry.name, "./"), safe(entry.label)
