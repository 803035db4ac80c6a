"""What a folder or CSV holds, on one screen: `relabel` prints it before anything is trained."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from sln.relabel import copies
from sln.relabel.listing import EMPTY, MISSING, MISSING_LABEL, Entry, LabelledImages
from sln.relabel.tables import printable
from sln.utils.errors import require

WIDTH, JOINT = 79, "\u00a0"  # lines are not broken at a joint
SHOWN = 5  # of everything that can be long
NUMBER = re.compile(r"[+]?(-?)0*(\d+)([.]0+|,00?)?")  # 1,000 may be a thousand, and 1.10 is not 1.1
LETTER, SIGN, BLANKS = r"(?<=[^\W\d_])", r"(?<=[^\W_])", r"[\s_-]+"
INSIDE = re.compile(rf"{LETTER}{BLANKS}(?=[^\W_])|{SIGN}{BLANKS}(?=[^\W\d_])")  # but not between two digits
ROBOFLOW = r"(.*)\.rf\."  # before what Roboflow adds to the names of augmented copies


def spelling(label: str) -> str:
    """What all spellings of a label share: without case, blanks, and Unicode forms; 3 for 3.0."""
    text = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", text.casefold()).strip()
    number = NUMBER.fullmatch(text)
    return number[1] + number[2] if number else INSIDE.sub("", text)


def spellings(labels: Iterable[str]) -> list[list[tuple[str, int]]]:
    """Labels that look like spellings of one class, with counts: by frequency, then the shortest first."""
    alike = defaultdict(list)
    for label, count in Counter(labels).items():
        alike[spelling(label)].append((label, count))
    return [sorted(group, key=lambda s: (-s[1], len(s[0]))) for group in alike.values() if len(group) > 1]


def checked(found: LabelledImages, merge: bool = False) -> LabelledImages:
    """The same; spellings of a class are noted or, if `merge`, become the most frequent one.

    Raises InputError for cells of a CSV that hold several labels.
    """
    counts = Counter(found.labels)
    for mark in "|;," if found.table else "":
        parts = {label: [part.strip() for part in label.split(mark)] for label in counts if mark in label}
        known = {label for label, of in parts.items() if all(part in counts for part in of)}
        if mark != "," and sum(counts[label] for label in parts) > 1:  # a comma is in many names of classes
            known = set(parts)
        rows, first = sum(counts[label] for label in known), next(iter(sorted(known)), "")
        what = f"{rows} cells of the column of labels seem to hold several labels, such as {first!r}"
        require(not known, f"{what}; give each image one label, or write a class's name without {mark!r}")
    for group in spellings(found.labels):
        names, best = _listing(group), group[0][0]
        if merge:
            found.notes.append(("spellings", f"{names}: all are {best!r} now"))
            other = {label for label, _ in group[1:]}
            found.entries = [e._replace(label=best) if e.label in other else e for e in found.entries]
        else:
            found.notes.append(("spellings", f"{names}: one class? --merge-spellings makes them {best!r}"))
    return found


def together(found: LabelledImages, entries: Sequence[Entry], groups: str) -> np.ndarray:
    """(N,): numbers of the groups of `entries`, by copies and by a column of the CSV or a pattern."""
    cells = found.table and found.table.column(groups)
    if cells is None:
        mine = copies.by_hand([entry.name for entry in entries], groups)
    else:
        named = [cells[entry.record] for entry in entries]
        mine = copies.numbered([None if name.casefold() in MISSING else name for name in named])
    found.notes.append(("groups", f"{mine.max() + 1} by --groups {groups}; a group stays in one fold"))
    return copies.united(found.copies.groups, mine)


def screen(found: LabelledImages, name: str, folds: int) -> str:
    """What was found, a few lines of at most 79 characters."""
    counts = Counter(found.labels).most_common()
    lines = [("classes", _listing(counts) if len(counts) <= 3 * SHOWN else _ends(counts))]
    splits = Counter(entry.split for entry in found.entries if entry.split)
    if splits:
        where = "classes are the folders inside; labels.csv has a column split"
        lines.append(("splits", f"{_listing(splits.items(), str)}: {where}"))
    lines += [("skipped", line) for line in _reasons(found)]
    lines += [*_copies(found), *found.notes]
    empty = [name for name, reason in found.skipped if reason == EMPTY]
    if empty:
        lines.append(("warning", f"empty folders, which become no class: {', '.join(map(repr, empty))}"))
    few = [pair for pair in counts[::-1] if pair[1] < 2 * folds]
    if few:
        what = f"fewer than {2 * folds} images (2 x folds), hard to judge: {_listing(few)}"
        lines.append(("warning", f"{what}; the result says which keep their labels"))
    title = f"{name}: {len(found.entries)} images, {len(counts)} classes"
    width, text = max(len(heading) for heading, _ in lines) + 4, [title]
    for place, (heading, line) in enumerate(lines):
        repeated = place and lines[place - 1][0] == heading
        start = f"  {'' if repeated else heading}".ljust(width)
        text += textwrap.wrap(line, WIDTH, initial_indent=start, subsequent_indent=" " * width)
    return printable("\n".join(text).replace(JOINT, " "))


def _copies(found: LabelledImages) -> list[tuple[str, str]]:
    exact, near, lines = found.copies.exact, found.copies.near, []
    groups, labels = found.copies.groups, np.unique(found.labels, return_inverse=True)[1]
    if exact + near:
        several = int((np.bincount(groups) > 1).sum())
        what = f"{exact} identical and {near} near copies, in {several} group{'s' * (several > 1)}"
        lines.append(("copies", f"{what}; a group stays in one fold"))
    if found.copies.likeness != copies.LIKENESS[0]:
        what = (
            "images look so alike that near copies are hard to tell; if there are any, name them (--groups)"
        )
        lines.append(("warning", what))
    differ = copies.differing(groups, labels)
    twice = Counter(entry.name for entry in found.entries)
    repeated = {name for name, count in twice.items() if count > 1}
    differ &= [entry.name not in repeated for entry in found.entries]
    if differ.any():
        one, many = differ.argmax(), len(np.unique(groups[differ]))
        other = ((groups == groups[one]) & (labels != labels[one])).argmax()
        names = f"{found.entries[one].name!r} and {found.entries[other].name!r}"
        what = f"{many} groups of copies differ in their labels, such as" if many > 1 else "different labels:"
        lines.append(("warning", f"{what} {names}" + (" are copies" if many == 1 else "")))
    if repeated:
        pairs = Counter(name for name, _ in {(e.name, e.label) for e in found.entries if e.name in repeated})
        conflicts = sorted(name for name, count in pairs.items() if count > 1)
        named = f"; with different labels: {_example(conflicts)}" if conflicts else ""
        lines.append(("warning", f"listed more than once: {_example(sorted(repeated))}{named}"))
    names = [entry.name for entry in found.entries]
    if all(heading != "groups" for heading, _ in found.notes) and any(".rf." in name for name in names):
        lines.append(
            ("hint", f"names are Roboflow's; --groups '{ROBOFLOW}' keeps copies of one image together")
        )
    return lines


def _listing(counts: Iterable[tuple[str, int]], form: type = repr) -> str:
    return ", ".join(f"{form(name)}{JOINT}{count}" for name, count in counts)


def _example(names: Sequence[str]) -> str:
    return repr(names[0]) if len(names) == 1 else f"{len(names)}, such as {names[0]!r}"


def _ends(counts: Sequence[tuple[str, int]]) -> str:
    return f"largest {_listing(counts[:SHOWN])}; smallest {_listing(counts[: -SHOWN - 1 : -1])}"


def _reasons(found: LabelledImages) -> list[str]:
    missing = f"{found.missing.total()} with a word for a missing label, {_listing(found.missing.items())}"
    first_line = [f"{missing}; --keep-missing-words keeps them"] if found.missing else []
    names = defaultdict(list)
    for name, reason in found.skipped:
        if not reason.endswith((MISSING_LABEL, EMPTY)):
            names[reason].append(name)
    counts = sorted(names, key=lambda reason: -len(names[reason]))
    lines = [f"{_example(names[reason])}: {reason}" for reason in counts[:SHOWN]]
    rest = sum(len(names[reason]) for reason in counts[SHOWN:])
    return [*first_line, *lines, *([f"{rest} for other reasons (skipped.csv)"] if rest else [])]
