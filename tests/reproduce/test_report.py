"""The report needs no network, and nothing in it is live."""

import base64
import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sln.plots import style
from sln.reproduce import report
from sln.reproduce.report import Result
from sln.study.study import Study
from sln.utils.files import figures_folder

HOSTILE = "<img src='http://example.org/x.png' onerror=alert(1)> & <b>bold</b>"


class Page(HTMLParser):
    """What a browser would fetch for a page, where its links go, and the text that it shows."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.fetched, self.links, self.tags, self.text, self.style = [], [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.style = tag == "style"
        for name, value in attributes:
            if tag == "a":
                self.links += [value] if name == "href" else []
            elif name in ("src", "href", "srcset", "data", "poster", "background", "action"):
                self.fetched.append(value)
            elif name == "style":
                self.handle_css(value)

    def handle_endtag(self, tag):
        self.style = False

    def handle_data(self, text):
        if self.style:
            self.handle_css(text)
        else:
            self.text += text

    def handle_css(self, text):
        without_comments = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        self.fetched += re.findall(r"url\(\s*['\"]?([^)]*)", without_comments)
        self.fetched += re.findall(r"@import[^;]*", without_comments)


def figure(name, rows=3, label="<b>row</b>"):
    ax = style.new_axes((2, 2))
    ax.plot([0, 1])
    Study("smoke").save(ax.figure, pd.DataFrame({"label": [label] * rows, "x": range(rows)}), name)
    return figures_folder("smoke") / f"{name}.png"


def executed(png):
    """A notebook with every kind of output that the study has, and some that it should not have."""
    image = {"image/png": base64.b64encode(png).decode(), "text/plain": "<Figure>"}
    slider = {"application/vnd.jupyter.widget-view+json": {"model_id": "abc"}, "text/plain": "VBox(...)"}
    script = {"text/html": '<script src="https://example.org/x.js"></script><p>kept</p>'}
    outputs = [
        new_output("display_data", data=image),
        new_output("display_data", data=slider),
        new_output("display_data", data=script),
        new_output("stream", text=HOSTILE),
        new_output("error", ename="ValueError", evalue=HOSTILE, traceback=[HOSTILE]),
    ]
    picture = "![a picture](attachment:p.png) and $\\sigma$ z"
    attachments = {"p.png": {"image/png": image["image/png"]}}
    cells = [
        new_markdown_cell("# Does it?\n\n" + picture, attachments=attachments),
        new_code_cell(f"print({HOSTILE!r})", outputs=outputs, execution_count=1),
    ]
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {"abc": {"state": {}}}}}
    return new_notebook(cells=cells, metadata={"widgets": widgets})


@pytest.fixture
def pages(tmp_path):
    """The report of a study of two notebooks, one good, one that failed before it left anything."""
    build = tmp_path / "build"
    build.mkdir()
    png = figure("01_a").read_bytes()
    figure("01_long", rows=60)
    nbformat.write(executed(png), build / "01_good.ipynb")
    results = [
        Result("01_good", 1.0, ["01_a", "01_long"]),
        Result("02_bad", 2.0, ["02_gone"], [f"cell 3 failed: ValueError: {HOSTILE}"]),
    ]
    manifest = {"versions": {"torch": "2.6", "processor": HOSTILE}}
    path = report.write_report(build, Study("smoke"), results, [f"{HOSTILE}.png"], manifest)
    assert path == build / "report.html"
    return build


@pytest.mark.parametrize("name", ["report.html", "01_good.html"])
def test_a_browser_fetches_nothing_for_a_page(name, pages):
    page = Page((pages / name).read_text())
    assert page.fetched
    assert [reference for reference in page.fetched if not reference.startswith("data:")] == []
    assert not {"script", "iframe", "object", "embed", "link"} & set(page.tags)


@pytest.mark.parametrize("name", ["report.html", "01_good.html"])
def test_text_from_outside_is_shown_as_text_and_not_as_markup(name, pages):
    text = (pages / name).read_text()
    assert HOSTILE in Page(text).text
    assert HOSTILE not in text
    if name == "report.html":
        assert "&lt;b&gt;row&lt;/b&gt;" in text
        assert "<b>row" not in text


def test_images_are_embedded_unchanged(pages):
    png = (figures_folder("smoke") / "01_a.png").read_bytes()
    embedded = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    assert embedded in Page((pages / "report.html").read_text()).fetched
    good = [reference.replace("\n", "") for reference in Page((pages / "01_good.html").read_text()).fetched]
    assert good.count(embedded) == 2  # the output and the attachment


def test_a_note_replaces_a_slider_and_the_rest_is_kept(pages):
    text = (pages / "01_good.html").read_text()
    assert text.count(report.SLIDER_NOTE) == 1
    assert "VBox(...)" not in text
    assert "widget-state" not in text
    assert "<p>kept</p>" in text
    assert "Does it?" in Page(text).text


def test_a_folded_answer_stays_inside_its_fold():
    cell = new_markdown_cell("<details><summary>Answer</summary>\n\n*folded*\n\n</details>")
    page = report.notebook_page(new_notebook(cells=[cell]), "title")
    assert page.index("<summary>Answer") < page.index("<em>folded") < page.index("</details>")


def test_links_between_the_pages_lead_somewhere(pages):
    text = (pages / "report.html").read_text()
    targets = {link for link in Page(text).links if "01_good" in link}
    assert targets == {"#01_good", "01_good.html"}
    assert 'id="01_good"' in text
    assert (pages / "01_good.html").exists()


def test_the_report_names_problems_and_missing_figures(pages):
    text = Page((pages / "report.html").read_text()).text
    assert "cell 3 failed: ValueError" in text
    assert "02_gone is missing." in text
    assert "20 more rows in 01_long.csv." in text
    assert Study("smoke").profile.about in text
    assert "torch" in text
    assert "2.6" in text
