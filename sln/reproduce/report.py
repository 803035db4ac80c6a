"""The HTML report: executed notebooks, figures, tables and versions, in files that need no network."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from sln.utils.files import figures_folder, write_text

if TYPE_CHECKING:
    from sln.study.study import Study

WIDGET = "application/vnd.jupyter.widget-view+json"
SLIDER_NOTE = "<p><em>A slider: run <code>make lab</code> and open this notebook to move it.</em></p>"
ROWS_SHOWN = 40


@dataclass
class Result:
    """One notebook: its time, its promised figures, and its problems, if any."""

    name: str
    seconds: float
    artefacts: list[str]
    problems: list[str] = field(default_factory=list)


def write_report(
    build: Path,
    study: Study,
    results: Sequence[Result],
    leftovers: Sequence[str],
    manifest: Mapping[str, Any],
) -> Path:
    """Write `build/report.html` and one page per notebook beside it. Returns the report's path."""
    for result in results:
        executed = build / f"{result.name}.ipynb"
        if executed.exists():
            page = notebook_page(nbformat.read(executed, as_version=4), result.name)
            write_text(build / f"{result.name}.html", page)
    files = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=files, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    report = environment.get_template("report.html.j2").render(
        study=study,
        written=time.strftime("%Y-%m-%d %H:%M"),
        results=results,
        leftovers=leftovers,
        figures={name: _figure(study.name, name) for result in results for name in result.artefacts},
        profile=study.describe().to_html(),
        versions=pd.Series(dict(manifest["versions"])).to_frame("").to_html(),
    )
    write_text(build / "report.html", report)
    return build / "report.html"


def notebook_page(notebook: NotebookNode, title: str) -> str:
    """An executed notebook as one HTML page without scripts; a note replaces each slider."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/html": SLIDER_NOTE}
    notebook.metadata.pop("widgets", None)
    notebook.metadata["title"] = title
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    # the template's scripts load MathJax and others from the network; the page needs none of them
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)


def _figure(profile: str, name: str) -> dict[str, Any] | None:
    """The figure and its table; None if one is missing or empty."""
    png, csv = (figures_folder(profile) / f"{name}{kind}" for kind in (".png", ".csv"))
    if any(not path.exists() or path.stat().st_size == 0 for path in (png, csv)):
        return None
    table = pd.read_csv(csv)
    shown = table.head(ROWS_SHOWN).to_html(index=False, float_format="%.4g", na_rep="")
    return {
        "png": base64.b64encode(png.read_bytes()).decode(),
        "rows": len(table),
        "table": shown,
        "more": max(0, len(table) - ROWS_SHOWN),
    }
