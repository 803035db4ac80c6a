"""One HTML page of the most suspect images, with a slider for the threshold (suspects.html.j2).

It is one file that needs no network. All text from the user's data is escaped, and the page's security policy
lets only its own script run.
"""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import jinja2
import pandas as pd
from PIL.Image import Image

THUMBNAIL = 112  # pixels of the longer side


def page(
    title: str, labels: pd.DataFrame, pictures: list[Image | None], threshold: float, sentences: list[str]
) -> str:
    """The page as text.

    labels : one row per label, most suspect first: path, given, suggested, probability, suspect, rank
    pictures : images of the first rows; None for one that can no longer be read
    threshold : where the slider starts
    sentences : how the labels were judged
    """
    files = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=files, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"sha256": _sha256, "thumbnail": _thumbnail}
    suspect = labels["suspect"].round(4)  # the decimals of labels.csv
    return environment.get_template("suspects.html.j2").render(
        title=title,
        suspects=list(zip(labels.itertuples(), pictures, strict=False)),
        counts=[int((suspect >= number / 100).sum()) for number in range(101)],
        threshold=round(threshold, 2),
        sentences=sentences,
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _thumbnail(image: Image) -> str:
    """A PNG in base64, no side longer than THUMBNAIL; smaller images keep their size."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
