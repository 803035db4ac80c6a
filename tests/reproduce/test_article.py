"""The article loads nothing and shows text from outside as text; formulas, figures and numbers are whole."""

import base64
import hashlib
import html
import io
import re
import zlib
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from fontTools.ttLib import TTFont
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sln.plots import style
from sln.reproduce import article
from sln.reproduce.article import Result, math_font, section
from sln.study.study import Study
from sln.utils.errors import InputError
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
    numbers = pd.DataFrame({"label": [label] * rows, "x": range(rows)})
    Study("smoke").save(ax.figure, numbers, name, shows="It is a line.")
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
        new_code_cell(f'study.save(figure, table, "01_a"); {HOSTILE!r}', outputs=outputs, execution_count=1),
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
    path = article.write_article(build, Study("smoke"), results, [f"{HOSTILE}.png"], manifest)
    assert path == build / "index.html"
    return build


@pytest.fixture
def text(pages):
    return (pages / "index.html").read_text()


def markdown(source, **attachments):
    cell = new_markdown_cell(source, **attachments)
    return section(new_notebook(cells=[cell]), "01_name", {})


def test_a_browser_fetches_nothing_for_the_page(text):
    page = Page(text)
    assert page.fetched
    assert [reference for reference in page.fetched if not reference.startswith("data:")] == []
    assert not {"iframe", "object", "embed", "link"} & set(page.tags)


def test_the_policy_names_the_pages_own_scripts_and_no_other(text):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"sha256-([^']+)", html.unescape(policy)) == hashes
    assert "default-src 'none'" in html.unescape(policy)
    assert "example.org/x.js" not in text


def test_text_from_outside_is_shown_as_text_and_not_as_markup(text):
    assert HOSTILE in Page(text).text
    assert HOSTILE not in text


def test_images_are_embedded_unchanged(text):
    png = (figures_folder("smoke") / "01_a.png").read_bytes()
    embedded = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    images = [reference.replace("\n", "") for reference in Page(text).fetched]
    assert images.count(embedded) == 2  # the output and the attachment


def test_the_numbers_of_a_figure_are_its_csv(text):
    name, numbers = re.search(r'data-file="([^"]+)" data-csv="([^"]+)"', text).groups()
    assert name == "01_a.csv"
    assert zlib.decompress(base64.b64decode(numbers)) == (figures_folder("smoke") / name).read_bytes()


def test_what_a_notebook_shows_is_kept(text):
    assert "<p>kept</p>" in text
    assert "Does it?" in Page(text).text
    assert "widget-state" not in text


def test_the_old_name_leads_to_the_article(pages):
    assert Page((pages / "report.html").read_text()).links == ["index.html"]


def shown(*outputs):
    return section(new_notebook(cells=[new_code_cell("1", outputs=[*outputs])]), "01_name", {})


def test_what_a_kernel_prints_in_pieces_is_one_output():
    page = shown(new_output("stream", text="told"), new_output("stream", text="\n"))
    assert page.count('<pre class="said">') == 1


def test_a_figure_scrolls_before_its_words_become_small():
    data = {"image/png": "", "image/svg+xml": '<svg viewBox="0 0 500 200"></svg>'}
    assert 'min-width: 560px"><svg' in shown(new_output("display_data", data=data))


def test_a_folded_answer_stays_inside_its_fold():
    page = markdown("<details><summary>Answer</summary>\n\n*folded*\n\n</details>")
    assert page.index("<summary>Answer") < page.index("<em>folded") < page.index("</details>")


def test_folded_checks_end_with_the_notebook():
    fold = new_markdown_cell("## Checks", metadata={"jp-MarkdownHeadingCollapsed": True})
    page = section(new_notebook(cells=[fold, new_code_cell("1")]), "01_name", {})
    assert page.startswith("<details")
    assert page.endswith("</details></details>")


def test_a_link_to_a_notebook_leads_to_its_section():
    assert 'href="#02_other"' in markdown("[there](02_other.ipynb)")
    assert "<h2>Title</h2>" in markdown("# Title")  # the page's section around it has the name
    assert 'id="01_name.a-b"' in markdown("## A *b*")
    assert 'href="https://a.org/02_x.html"' in markdown("[out](https://a.org/02_x.html)")


def test_notebooks_are_sections_of_the_page():
    said = article.here("Notebook 7 follows; see notebooks 6 and 9. This notebook, in all notebooks")
    assert said == "Section 7 follows; see sections 6 and 9. This section, in all sections"
    assert (
        article.here("Open the notebook and move it; 2 notebooks")
        == "Open the notebook and move it; 2 notebooks"
    )


def test_the_map_of_the_notebooks_is_left_to_the_contents():
    assert "Map" not in markdown("# Title\n\n*Map:* **1** · [2](02_b.ipynb)")


@pytest.mark.parametrize(
    "source", ["$\\sigma^2$", "$$\\sigma^2$$", "\\begin{align}\n\\sigma^2\n\\end{align}"]
)
def test_formulas_become_mathml(source):
    page = markdown(source)
    assert "<msup><mi>σ</mi><mn>2</mn></msup>" in page
    assert "$" not in re.sub(r"<annotation.*?</annotation>", "", page)


def test_unknown_latex_fails_by_name():
    with pytest.raises(InputError, match=r"01_name: \$\\foo\$ .*nknown command"):
        markdown("$\\foo$")


def test_the_font_has_every_character_of_the_formulas_and_can_stretch():
    page = markdown("$$\\left(\\frac{x}{\\partial h}\\right) \\mathcal{N} \\mathbb{E} \\sum_i \\hat\\theta$$")
    font = TTFont(io.BytesIO(base64.b64decode(math_font(page))))
    letters = re.sub(r"<annotation.*?</annotation>|<[^>]+>", "", page).strip()
    assert {
        ord(letter) for letter in letters if letter > " " and letter != "\ufe00"
    } <= font.getBestCmap().keys()
    assert {0x1D465, 0x210E, 0x1D715, 0x1D703} <= font.getBestCmap().keys()  # italic x, h, ∂, θ
    assert "MATH" in font


def test_the_article_names_problems(text):
    said = Page(text).text
    assert "02_bad: cell 3 failed: ValueError" in said
    assert f"No notebook promises {HOSTILE}.png" in said
    assert Study("smoke").profile.about in said
    assert "torch" in said
    assert "2.6" in said
