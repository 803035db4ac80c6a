"""The page of suspect labels, on which a person decides: one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL.Image import Image

from sln.relabel.copies import differing
from sln.relabel.tables import printable, safe

PICTURES = 500  # on the page
SIDE = 224  # pixels of a picture's longer side; smaller images keep their size
TINY = 64  # pixels of the longer side up to which no pixel is lost, and pixels are shown as squares
OTHERS = 9  # classes with a key of their own, besides the given and the suggested one


def arranged(labels: pd.DataFrame, groups: np.ndarray) -> tuple[pd.DataFrame, int]:
    """The rows by rank, those for the page first, and how many these are.

    For the page are the PICTURES most suspect, and, up to as many more, copies that differ in their labels.
    The column `copies` has the number of their group (`groups`, (N,)), and -1 for all other images.
    """
    differ = differing(groups, pd.factorize(labels["given"])[0])
    labels = labels.assign(copies=np.where(differ, groups, -1)).sort_values("rank")
    first = (labels["rank"] <= PICTURES) | (labels["copies"] >= 0)
    return pd.concat([labels[first], labels[~first]]), min(int(first.sum()), 2 * PICTURES)


def page(
    title: str,
    labels: pd.DataFrame,
    pictures: Iterable[Image | None],
    threshold: float,
    sentences: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
    command: str,
) -> str:
    """The page of the most suspect images (suspects.html.j2).

    labels : one row per label (`arranged`)
    pictures : images of the first rows, read one at a time; None if unreadable
    sentences : the first is the verdict, the others say how it was found
    classes, probabilities : (C,) names, and (N, C) for each row of `labels` (`scores.true_class`)
    command : what --decisions is added to

    All text from the user's data is escaped, and the page's security policy lets only its own script run.
    """
    files = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=files, autoescape=True, undefined=jinja2.StrictUndefined)
    script = environment.get_template("suspects.js.j2").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    suspect = labels["suspect"].round(4)  # the decimals of labels.csv
    shown = [None if picture is None else _encoded(picture) for picture in pictures]
    values = {"title": title, "threshold": round(threshold, 2), "sentences": sentences, "command": command}
    other = suspect[labels["judged"] & (labels["suggested"] != labels["given"])]
    for name, of in {"counts": suspect, "replaced": other}.items():
        values[name] = [int((of >= number / 100).sum()) for number in range(101)]
    values["suspects"] = list(zip(labels.itertuples(), shown, strict=False))
    values["differ"] = int((labels["copies"][: len(shown)] >= 0).sum())
    values["data"] = _data(labels[: len(shown)], classes, probabilities)
    values |= {"script": Markup(script), "script_sha256": digest}
    return printable(environment.get_template("suspects.html.j2").render(values))


def _data(labels: pd.DataFrame, classes: Sequence[str], probabilities: np.ndarray) -> dict[str, Any]:
    """What the script reads: names, and cells as they are in a CSV, so that it never has to make one safe.

    Each suspect has its path, places of the given and the suggested label in `classes`, pairs of place and
    probability of the other classes that have a key, its rank, and the number of its `copies` (`arranged`).
    """
    names = dict.fromkeys([*classes, *labels["given"], *labels["suggested"]])  # some may not be judged
    place, suspects = {name: number for number, name in enumerate(names)}, []
    for label, p in zip(labels.itertuples(), probabilities, strict=False):
        own = [place[label.given], place[label.suggested]]
        others = [(c, round(float(p[c]), 4)) for c in np.argsort(-p, kind="stable").tolist() if c not in own]
        suspects.append([safe(printable(label.path), "./"), *own, others[:OTHERS], label.rank, label.copies])
    shown = [printable(name) for name in names]
    data = {"names": shown, "cells": [safe(name) for name in shown], "suspects": suspects}
    return {"digest": hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16], **data}


def _encoded(image: Image) -> tuple[str, bool]:
    """A small copy as a data: address in the smaller of two formats, and whether the image is tiny."""
    small, exact = image.copy(), max(image.size) <= TINY
    small.thumbnail((SIDE, SIDE))
    kinds = {"webp": {"lossless": exact, "quality": 80}, "png" if exact else "jpeg": {"optimize": True}}
    files = {}
    for kind, options in kinds.items():
        buffer = io.BytesIO()
        small.save(buffer, format=kind, **options)
        files[kind] = buffer.getvalue()
    best = min(files, key=lambda kind: len(files[kind]))
    return f"data:image/{best};base64,{base64.b64encode(files[best]).decode()}", exact
