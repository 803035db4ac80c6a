"""The HTML report: executed notebooks, figures, tables and versions, in files that open without a network."""

from __future__ import annotations

import base64
import html
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from sln.utils.files import figures_folder, write_text

if TYPE_CHECKING:
    from sln.reproduce.execute import Outcome
    from sln.study.study import Study

WIDGET = "application/vnd.jupyter.widget-view+json"
SLIDER_NOTE = "<p><em>A slider lives here: <code>make lab</code> and open this notebook to move it.</em></p>"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
img { max-width: 100%; height: auto }
figure { margin: 2rem 0 }
figcaption { color: #555 }
.bad { color: #b00020; font-weight: 600 }
details { margin: .5rem 0 }
summary { cursor: pointer }
"""


def write_report(
    build: Path,
    study: Study,
    outcomes: Sequence[Outcome],
    leftovers: Sequence[str],
    manifest: Mapping[str, Any],
) -> Path:
    """Write `build/report.html` and one page a notebook beside it. Returns the report's path."""
    for outcome in outcomes:
        executed = build / f"{outcome.name}.ipynb"
        if executed.exists():
            write_text(
                build / f"{outcome.name}.html",
                notebook_page(nbformat.read(executed, as_version=4), outcome.name),
            )
    parts = [
        f"<h1>Noise against noise: the <code>{html.escape(study.name)}</code> profile</h1>",
        f"<p>{html.escape(study.profile.about)}. Written {time.strftime('%Y-%m-%d %H:%M')}.</p>",
        _verdicts(outcomes, leftovers),
    ]
    for outcome in outcomes:
        parts.append(f'<h2 id="{outcome.name}"><a href="{outcome.name}.html">{outcome.name}</a></h2>')
        parts += [_figure(study.name, name) for name in outcome.artefacts]
    parts += [
        "<h2>Profile</h2>",
        study.describe().to_html(),
        "<h2>Versions</h2>",
        pd.Series(dict(manifest["versions"])).to_frame("").to_html(),
    ]
    head = f'<meta charset="utf-8"><title>sln: {study.name}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    path = build / "report.html"
    write_text(path, f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n')
    return path


def notebook_page(notebook: NotebookNode, title: str) -> str:
    """An executed notebook as one HTML page without scripts; sliders are replaced by a note."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/html": SLIDER_NOTE}
    notebook.metadata.pop("widgets", None)
    notebook.metadata["title"] = title
    page, _ = HTMLExporter(template_name="lab", embed_images=True).from_notebook_node(notebook)
    # the template's scripts load MathJax and the like from the network; the page needs none of them
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)


def _verdicts(outcomes: Sequence[Outcome], leftovers: Sequence[str]) -> str:
    rows = []
    for outcome in outcomes:
        verdict = "ok"
        if outcome.problems:
            verdict = f'<span class="bad">{html.escape("; ".join(outcome.problems))}</span>'
        link = f'<a href="#{outcome.name}">{outcome.name}</a>'
        rows.append(f"<tr><td>{link}</td><td>{outcome.seconds:.0f} s</td><td>{verdict}</td></tr>")
    stale = "".join(f'<p class="bad">No notebook promises {html.escape(name)}.</p>' for name in leftovers)
    header = "<tr><th>notebook</th><th>time</th><th>result</th></tr>"
    return f"<table>{header}{''.join(rows)}</table>{stale}"


def _figure(profile: str, name: str) -> str:
    png, csv = (figures_folder(profile) / f"{name}{kind}" for kind in (".png", ".csv"))
    if any(not path.exists() or path.stat().st_size == 0 for path in (png, csv)):
        return f'<p class="bad">{html.escape(name)} is missing.</p>'
    data = base64.b64encode(png.read_bytes()).decode()
    table = pd.read_csv(csv)
    shown = table.head(40).to_html(index=False, float_format="%.4g", na_rep="")
    more = f"<p>{len(table) - 40} more rows in {name}.csv.</p>" if len(table) > 40 else ""
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption>'
        f"<details><summary>numbers ({len(table)} rows)</summary>{shown}{more}</details></figure>"
    )
