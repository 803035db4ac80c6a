"""The article: all executed notebooks as one HTML page that loads nothing and needs no script to be read.

Formulas become MathML when the page is written. Figures are SVG, and their sliders move without a kernel.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import io
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import math_core
import nbformat
import pandas as pd
import pygments
from fontTools import subset
from fontTools.ttLib import TTFont
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from sln.explore import player
from sln.plots import vector
from sln.reproduce import live
from sln.study.study import Study
from sln.utils.errors import InputError
from sln.utils.files import figures_folder, write_text

MOVED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Noise against noise</title>
<meta http-equiv="refresh" content="0; url=index.html">
<a href="index.html">The report is index.html now.</a></html>
"""
POLICY = "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; worker-src blob:; "
# What opens the article: the sliders of a function, and a figure. Their sections have a link instead.
SPIRALS, LANDSCAPE = "memorising", "figure.04_landscape_of_the_paper"
HERE = Path(__file__).parent
PARAMETERS = {"parameters", "injected-parameters"}  # tags of cells that papermill reads and writes
DEFINES = re.compile(r"^(class|def|from sln\.nn) ", re.MULTILINE)  # code that is there to be copied
NOTEBOOK = re.compile(r"(\d\d_\w+)\.ipynb$")
MAP = re.compile(r"^\*Map:\*.*$", re.MULTILINE)  # of the notebooks: the page has a table of contents
SECTION = re.compile(r"\b(?:(?<=[Tt]his )|(?<=other )|(?<=all ))notebook|\bnotebook(?=s? \d)", re.IGNORECASE)
MATH = re.compile(r"<math\b.*?</math>", re.DOTALL)
# A figure with sliders brings the script and the style of all such figures, which the page has once.
LIVE = re.compile(r'<script\b(?! type="text/plain").*?</script>|<style\b.*?</style>', re.DOTALL)
PLAIN = re.compile(r'<span class="(?!k|ow|s|c1|m)[^"]*">([^<]*)</span>')  # code that has no colour
ITALIC = {**{chr(code): 0x1D44E + code - 97 for code in range(97, 123)}, "h": 0x210E}
ITALIC |= {chr(code): 0x1D434 + code - 65 for code in range(65, 91)}
ITALIC |= {chr(code): 0x1D6FC + code - 0x3B1 for code in range(0x3B1, 0x3CA)}
ITALIC |= {"∂": 0x1D715, "ϵ": 0x1D716}  # a browser shows a letter alone in <mi> as this character


@dataclass
class Result:
    """One notebook: its time, its promised figures, and its problems, if any."""

    name: str
    seconds: float
    artefacts: list[str]
    problems: list[str] = field(default_factory=list)


class Prose(IPythonRenderer):
    """Markdown of one notebook as HTML, formulas as MathML. Raises InputError for LaTeX that is not known."""

    def __init__(self, name: str, attachments: Mapping[str, Any]) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, attachments=dict(attachments))
        self.name, self.latex = name, math_core.LatexToMathML(annotation=True, fancy_error=False)

    def inline_math(self, body: str) -> str:
        """`$...$`."""
        return self._mathml(body, displaystyle=False)

    def block_math(self, body: str) -> str:
        """`$$...$$`."""
        return self._mathml(body, displaystyle=True)

    def latex_environment(self, name: str, body: str) -> str:
        """`\\begin{align}...\\end{align}` on lines of their own."""
        return self._mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", displaystyle=True)

    def heading(self, text: str, level: int, **_: Any) -> str:
        """One level lower than in the notebook, whose own title is that of a section."""
        place = "" if level == 1 else f' id="{self.name}.{slug(text)}"'
        return f"<h{level + 1}{place}>{text}</h{level + 1}>\n"

    def table(self, text: str) -> str:
        """A table may be wider than a phone."""
        return scrolling(f"<table>\n{text}</table>\n")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link to another notebook leads to its section."""
        other = NOTEBOOK.search(url)
        return super().link(text, f"#{other[1]}" if other else url, title)

    def _mathml(self, latex: str, *, displaystyle: bool) -> str:
        try:
            found = self.latex.convert_with_local_state(latex, displaystyle=displaystyle)
            # a long one scrolls, by keyboard too; Firefox scrolls no <math>
            return f'<span class="formula" tabindex="0">{found}</span>' if displaystyle else found
        except math_core.LatexError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.name}: ${latex}$ is no LaTeX that the page can show: {reason}") from None


def scrolling(table: str) -> str:
    """A table that scrolls by itself, by keyboard too."""
    table = table.replace("<th></th>", "<td></td>")
    return f'<div class="table" tabindex="0" role="group" aria-label="table">{table}</div>'


def here(text: str) -> str:
    """The words of a notebook, in which notebooks are the page's sections."""
    return SECTION.sub(lambda found: "Section" if found[0][0] == "N" else "section", text)


def slug(heading: str) -> str:
    """The text of a heading as part of an address."""
    return re.sub(r"[^\w]+", "-", re.sub(r"<[^>]+>", "", heading)).strip("-").lower()


def section(notebook: NotebookNode, name: str, numbers: Mapping[str, str]) -> str:
    """One executed notebook as HTML.

    numbers : packed CSV by name of a figure
    """
    parts, folded = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            folds = "jp-MarkdownHeadingCollapsed" in cell.metadata
            prose = Prose(name, cell.get("attachments", {}))
            text = MarkdownWithMath(prose).render(here(MAP.sub("", cell.source)))
            if folds:  # all that follows, to the end
                parts.append(f'<details class="checks"><summary>Checks</summary>{text}')
            else:
                parts.append(text)
            folded = folded or folds
        elif cell.cell_type == "code" and not PARAMETERS & {*cell.metadata.get("tags", ())}:
            parts += code_cell(cell, name, numbers)
    return "".join(parts) + "</details>" * folded


def code_cell(cell: NotebookNode, name: str, numbers: Mapping[str, str]) -> list[str]:
    """A code cell: its code, folded, and what came out."""
    code = pygments.highlight(cell.source, PythonLexer(), HtmlFormatter(cssclass="source"))
    code = PLAIN.sub(r"\1", code).replace("<pre>", '<pre tabindex="0">')  # it may be wider than the page
    shows = " open" if DEFINES.search(cell.source) else ""
    parts = [f'<details class="code"{shows}><summary>Code</summary>{code}</details>']
    saved = next((figure for figure in numbers if f'"{figure}"' in cell.source), None)
    joined, _ = CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)  # a kernel may print in pieces
    for output in joined.outputs:
        if output.output_type == "stream":
            parts += [f'<pre class="said">{html.escape(here(output.text))}</pre>'] * (output.name == "stdout")
        elif output.output_type == "error":
            parts.append(f'<p class="bad">{html.escape(f"{output.ename}: {output.evalue}")}</p>')
        else:
            parts.append(shown(output, saved, numbers))
    return parts


def shown(output: NotebookNode, name: str | None, numbers: Mapping[str, str]) -> str:
    """An output with its caption; a figure that was saved under `name` has its numbers below it."""
    data = output.data
    if "image/png" not in data:
        if "text/html" in data:
            text = LIVE.sub("", data["text/html"])
            return text if "<sln-player" in text else scrolling(text)
        return f'<pre class="said">{html.escape(data["text/plain"])}</pre>'
    said = output.metadata.get("image/png", {})
    words, caption = (html.escape(said.get(kind) or "") for kind in ("alt", "caption"))
    words = words or name or "figure"
    if "image/svg+xml" in data:
        picture = f'<div style="{vector.place(data["image/svg+xml"])[1]}">{data["image/svg+xml"]}</div>'
    else:
        picture = f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    picture = f'<div class="sln-picture" role="img" tabindex="0" aria-label="{words}">{picture}</div>'
    if name is None:
        return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
    what = f'data-file="{name}.csv" data-csv="{numbers[name]}"'
    save = f'<button type="button" {what} hidden>Numbers (CSV)</button>'
    return f'<figure id="figure.{name}">{picture}<figcaption>{caption} {save}</figcaption></figure>'


def classed(page: str) -> str:
    """The page with classes and short ids in its figures, where styles and ids repeat thousands of times."""
    names: dict[str, str] = {}
    prefixes: dict[str, str] = {}

    def name(found: re.Match) -> str:
        return f'class="{names.setdefault(found[1], f"s{len(names)}")}"'

    def prefix(found: re.Match) -> str:
        return prefixes.setdefault(found[0], f"f{len(prefixes)}-")

    figures = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
    page = figures.sub(lambda svg: re.sub(r'style="([^"]*)"', name, svg[0]), page)
    page = re.sub(r"\bf[0-9a-f]{8}-(?=\d)", prefix, page)  # of the ids of figures (`plots.vector`)
    classes = "".join(f".{short} {{{style}}}\n" for style, short in names.items())
    return page.replace("</style>", f"{classes}</style>", 1)


def packed(text: str) -> str:
    """Text for the page's script, which unpacks it with DecompressionStream."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def math_font(page: str) -> str:
    """STIX Two Math, of it the characters of the page's formulas, as WOFF in base64.

    Without a mathematical font Chromium stretches no parenthesis, and not every system has one.
    """
    formulas = " ".join(MATH.findall(page))
    letters = {"√"} | set(html.unescape(re.sub(r"<annotation.*?</annotation>|<[^>]+>", "", formulas)))
    codes = {*map(ord, letters), *(ITALIC[letter] for letter in letters & ITALIC.keys())}
    font = TTFont(
        Path(importlib.util.find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf",
        recalcTimestamp=False,
    )
    chosen = subset.Subsetter(subset.Options(layout_features=["*"], notdef_outline=True))
    chosen.populate(unicodes=codes)
    chosen.subset(font)
    font.flavor, buffer = "woff", io.BytesIO()
    font.save(buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def digest(text: str) -> str:
    """The name of an inline script in the page's policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def write_article(
    build: Path,
    study: Study,
    results: Sequence[Result],
    leftovers: Sequence[str],
    manifest: Mapping[str, Any],
) -> Path:
    """Write `build/index.html`, and `build/report.html`, which leads there. Returns the article's path."""
    problems = [f"{result.name}: {problem}" for result in results for problem in result.problems]
    problems += [f"No notebook promises {name}; remove it." for name in leftovers]
    executed = [result for result in results if (build / f"{result.name}.ipynb").exists()]
    sections = [part(build, study.name, result) for result in executed]
    # the first one stands behind the first figure, which can move before the rest of the page is read
    scripts = [player.SCRIPT, live.SCRIPT, (HERE / "article.js").read_text(encoding="utf-8")]
    styles = [(HERE / "article.css").read_text(encoding="utf-8"), player.STYLE, live.STYLE]
    spirals, landscape = moved(sections, SPIRALS, "sln-player"), moved(sections, LANDSCAPE, "figure")
    files = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(
        loader=files, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("article.html.j2").render(
        study=study,
        written=time.strftime("%Y-%m-%d %H:%M"),
        results=results,
        problems=problems,
        sections=sections,
        spirals=spirals,
        landscape=landscape,
        train=live.fragment(),
        policy=f"{POLICY}script-src {' '.join(map(digest, scripts))}",
        font=math_font("".join(section["html"] for section in sections)),
        styles=styles,
        scripts=scripts,
        profile=scrolling(study.describe().to_html(border=0)),
        versions=scrolling(pd.Series(dict(manifest["versions"])).to_frame("").to_html(border=0)),
    )
    write_text(build / "index.html", classed(page))
    write_text(build / "report.html", MOVED)
    return build / "index.html"


def moved(sections: Sequence[dict[str, str]], name: str, tag: str) -> str:
    """The element of that id, which its section loses; "" if there is none."""
    for place in sections:
        found = re.search(rf'<{tag} id="{name}">.*?</{tag}>', place["html"], flags=re.DOTALL)
        if found:
            link = f'<p class="said">This picture is <a href="#{name}">at the top of the page</a>.</p>'
            place["html"] = place["html"].replace(found[0], link)
            return found[0]
    return ""


def part(build: Path, profile: str, result: Result) -> dict[str, str]:
    """The section of one notebook: its name, title and HTML."""
    notebook = nbformat.read(build / f"{result.name}.ipynb", as_version=4)
    text = section(notebook, result.name, numbers(profile, result.artefacts))
    title = re.search(r"<h2[^>]*>(.*?)</h2>", text)
    return {"name": result.name, "title": title[1] if title else result.name, "html": text}


def numbers(profile: str, artefacts: Sequence[str]) -> dict[str, str]:
    """The packed CSV of every figure that there is."""
    files = {name: figures_folder(profile) / f"{name}.csv" for name in artefacts}
    return {name: packed(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
