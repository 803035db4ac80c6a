"""Judged labels in other tools' formats; labels.csv and corrected.csv are plain CSV files already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pandas as pd

from sln.relabel.tables import as_csv, printable
from sln.utils import VERSION
from sln.utils.files import json_text

FORMATS = ("cleanlab", "label-studio")
TAG, CHOICE = "image", "choice"  # names in Label Studio's configuration


def texts(formats: Sequence[str], labels: pd.DataFrame, replaced: pd.Series, root: Path) -> dict[str, str]:
    """The files of the formats: name -> text.

    labels : labels.csv as a table; replaced : (N,) bool, whether corrected.csv has another label; root : the
        folder that the paths start from
    """
    files = {}
    if "cleanlab" in formats:
        files["cleanlab.csv"] = as_csv(label_issues(labels, replaced))
    if "label-studio" in formats:
        tasks = [_task(row, root.resolve()) for row in labels.itertuples()]
        files["label-studio.json"] = printable(json_text(tasks))
        files["label-studio.xml"] = printable(configuration(sorted({*labels["given"]})))
    return files


def label_issues(labels: pd.DataFrame, replaced: pd.Series) -> list[list]:
    """The columns of `cleanlab.Datalab.get_issues("label")` and the path, in the data's order."""
    table = pd.DataFrame({"path": labels["path"], "is_label_issue": replaced})
    table = table.assign(label_quality=1 - labels["suspect"], given_label=labels["given"])
    table["predicted_label"] = labels["suggested"]
    return [list(table.columns), *table.itertuples(index=False)]


def configuration(classes: Sequence[str]) -> str:
    """Label Studio's labelling configuration that the tasks' predictions belong to."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
    image = f'<Image name="{TAG}" value="$image"/>\n  <Text name="was" value="given label: $given"/>'
    return (
        f'<View>\n  {image}\n  <Choices name="{CHOICE}" toName="{TAG}">\n{choices}\n  </Choices>\n</View>\n'
    )


def there(folder: Path) -> list[str]:
    """The formats of the files in a folder."""
    return [name for name in FORMATS if any(folder.glob(f"{name}.*"))]


def _task(row: tuple, root: Path) -> dict:
    """One task in Label Studio's JSON format; without a prediction if its class cannot be judged.

    It serves local files below LOCAL_FILES_DOCUMENT_ROOT, here the folder that holds `root`.
    """
    place = (root / row.path).resolve().relative_to(root.parent).as_posix()  # the path may be absolute
    data = {"image": f"/data/local-files/?d={quote(place, errors='surrogateescape')}"}
    data |= {"path": row.path, "given": row.given, "suspect": round(row.suspect, 4)}
    value = {"from_name": CHOICE, "to_name": TAG, "type": "choices", "value": {"choices": [row.suggested]}}
    prediction = {"model_version": f"sln {VERSION}", "score": round(row.probability, 4), "result": [value]}
    return {"data": data, "predictions": [prediction] if row.judged else []}
