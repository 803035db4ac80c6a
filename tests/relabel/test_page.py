"""The page of suspect labels: it needs no network, and nothing from the user's data is live in it."""

import base64
import hashlib
import html.parser
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from own_images import pictures
from PIL import Image

from sln.relabel.page import OTHERS, PICTURES, SIDE, arranged, page

EVIL = ['"><img src=x onerror=alert(1)>', "<script>alert(2)</script>", "&amp; 'q' Käfer", "a\r=HYPERLINK(2)"]


class Page(html.parser.HTMLParser):
    """The tags and the text of a page, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text.replace("\r", "\n"))
        self.data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def labels():
    """Paths and labels that would be live if nothing escaped them, most suspect first."""
    suspect = np.sort(np.random.default_rng(0).random(24))[::-1]
    names = [EVIL[number % 4] for number in range(24)]
    frame = {"path": [f"{name}{n}.png" for n, name in enumerate(names)], "given": names, "suggested": "<b>x"}
    return pd.DataFrame(
        frame | {"probability": 0.5, "suspect": suspect, "rank": range(1, 25), "judged": True, "copies": -1}
    )


COMMAND = "python -m sln relabel 'my data' --merge-spellings"
CLASSES = sorted(["<b>x", *EVIL, *(f"class {number}" for number in range(12))])
PROBABILITIES = np.random.default_rng(1).dirichlet(np.ones(len(CLASSES)), 24)


@pytest.fixture(scope="module")
def text(labels):
    images = [Image.fromarray(image.transpose(1, 2, 0)) for image in pictures(24)[0]]
    return page(
        "<i>mine",
        labels,
        images,
        0.5,
        ["3 look wrong.", "Made by <b>hand</b>."],
        CLASSES,
        PROBABILITIES,
        COMMAND,
    )


def test_the_page_shows_labels_and_names_and_none_of_them_is_live(text, labels):
    read = Page(text)
    focus, *images = read.of("img")
    assert focus == {"id": "image", "alt": ""}
    assert len(images) == len(read.of("li")) == 24
    assert all(set(image) == {"alt", "class", "decoding", "src"} for image in images)
    assert all(re.match("data:image/(png|webp);base64,", image["src"]) for image in images)
    assert read.of("script") == [{"type": "application/json", "id": "data"}, {}]
    assert {"b", "i"}.isdisjoint(name for name, _ in read.tags)
    for of, image in zip(labels.itertuples(), images, strict=True):
        assert f"given {of.given}".replace("\r", "\n") in read.text
        assert of.path.replace("\r", "\n") in read.text
        assert image["alt"] == f"{of.path}, labelled {of.given}".replace("\r", "\n")
    assert "Suspect labels: <i>mine" in read.text
    assert "Made by <b>hand</b>." in read.text


def test_the_page_needs_no_network_and_only_its_own_script_may_run(text):
    read = Page(text)
    assert {"link", "iframe", "object", "embed", "base", "a"}.isdisjoint(name for name, _ in read.tags)
    assert not any(key.startswith("on") for _, attributes in read.tags for key in attributes)
    policy = next(of["content"] for of in read.of("meta") if of.get("http-equiv"))
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert allowed.keys() == {
        *("default-src", "img-src", "style-src", "form-action", "base-uri"),
        "script-src",
    }
    assert allowed["default-src"] == allowed["form-action"] == allowed["base-uri"] == "'none'"
    assert allowed["img-src"] == "data:"
    script = re.search(r"<script>(.*?)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_the_slider_is_labelled_and_its_counts_are_those_of_the_labels(text, labels):
    read = Page(text)
    slider = next(of for of in read.of("input") if of["type"] == "range")
    assert any(label.get("for") == slider["id"] for label in read.of("label"))
    assert (slider["min"], slider["max"], slider["step"], slider["value"]) == ("0", "1", "0.01", "0.50")
    suspects = labels["suspect"].round(4)
    counts = [int(count) for count in slider["data-counts"].split(",")]
    assert counts == [int((suspects >= step / 100).sum()) for step in range(101)]
    assert [float(li["data-suspect"]) for li in read.of("li")] == suspects.tolist()
    assert f"{counts[50]} of 24 labels are at least that suspect" in " ".join(read.text.split())
    assert any(of.get("role") == "status" for of in read.of("p"))


def test_the_verdict_and_the_next_command_are_shown(text):
    read = Page(text)
    assert read.text.index("3 look wrong.") < read.text.index("How they were found")
    assert f"{COMMAND} --decisions decisions.csv" in read.text


def test_labels_without_another_suggestion_are_unsure_and_not_counted_as_replaced(labels):
    rows = labels.assign(
        suggested=[*labels["given"][:3], *labels["suggested"][3:]], judged=[True] * 23 + [False]
    )
    read = Page(page("mine", rows, [None] * 24, 0.5, [], CLASSES, PROBABILITIES, COMMAND))
    slider = next(of for of in read.of("input") if of["type"] == "range")
    assert slider["data-counts"].startswith("24,")
    assert slider["data-replaced"].startswith("20,")
    assert read.text.count("unsure (") == 3


def test_the_script_gets_cells_as_they_are_in_a_csv_and_other_classes_by_probability(text, labels):
    data = Page(text).data
    assert data["names"] == CLASSES
    assert data["cells"][CLASSES.index("a\r=HYPERLINK(2)")] == "a\r=HYPERLINK(2)"
    for number, (path, given, suggested, others, *_) in enumerate(data["suspects"]):
        assert path == labels["path"][number]
        assert (CLASSES[given], CLASSES[suggested]) == (labels["given"][number], "<b>x")
        p = PROBABILITIES[number]
        expected = sorted({*range(len(CLASSES))} - {given, suggested}, key=lambda c: -p[c])[:OTHERS]
        assert [place for place, _ in others] == expected
        assert [value for _, value in others] == pytest.approx(p[expected], abs=5.1e-5)


def test_formulas_are_safe_before_the_script_saves_them(labels):
    row = labels[:1].assign(path="-x.png", given="=1+1", suggested="@b")
    image = Image.fromarray(pictures(1)[0][0].transpose(1, 2, 0))
    data = Page(page("mine", row, [image], 0.5, [], ["=1+1", "@b"], np.ones((1, 2)), COMMAND)).data
    assert data["cells"] == ["'=1+1", "'@b"]
    assert data["suspects"][0][0] == "./-x.png"


def test_a_label_that_was_not_judged_can_still_be_kept(labels):
    row = labels[:1].assign(given="rare", suggested="rare")
    data = Page(page("mine", row, [None], 0.5, [], ["a", "b"], np.array([[0.2, 0.8]]), COMMAND)).data
    assert data["names"] == ["a", "b", "rare"]
    assert data["suspects"][0][1:] == [2, 2, [[1, 0.8], [0, 0.2]], 1, -1]


def test_copies_with_different_labels_are_on_the_page_and_counted():
    N, copied = 1000, [(0, 900), (901, 902, 903)]
    frame = pd.DataFrame(
        {"path": map(str, range(N)), "given": ["a", "b"] * (N // 2), "rank": range(1, N + 1)}
    )
    frame = frame.assign(suspect=1 - frame["rank"] / N, suggested="a", probability=0.5, judged=True)
    frame.loc[0, "given"], groups = "b", np.arange(N)
    for rows in copied:
        groups[list(rows)] = rows[0]
    shuffled = np.random.default_rng(0).permutation(N)
    rows, count = arranged(frame.iloc[shuffled], groups[shuffled])
    assert count == PICTURES + 4
    assert rows["rank"].tolist() == [*range(1, 501), 901, 902, 903, 904, *range(501, 901), *range(905, N + 1)]
    assert rows["copies"][rows["copies"] >= 0].to_dict() == {0: 0, 900: 0, 901: 901, 902: 901, 903: 901}
    text = page("mine", rows, [None] * count, 0.5, [], ["a", "b"], np.full((N, 2), 0.5), COMMAND)
    read = Page(text)
    assert [row[4:] for row in read.data["suspects"]][499:502] == [[500, -1], [901, 0], [902, 901]]
    assert "Copies with different labels (5)" in read.text
    assert "504 most suspect and copies with different labels" in " ".join(read.text.split())
    assert arranged(frame, np.arange(N) // 2)[1] == 2 * PICTURES  # at most


def decoded(source):
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_tiny_images_keep_every_pixel(text):
    for image, pixels in zip(Page(text).of("img")[1:], pictures(24)[0], strict=True):
        assert image["class"] == "tiny"
        assert np.array_equal(np.asarray(decoded(image["src"]).convert("RGB")), pixels.transpose(1, 2, 0))


def test_photographs_are_small_and_missing_images_are_named(labels):
    large = Image.fromarray(np.random.default_rng(0).integers(255, size=(900, 1200, 3), dtype=np.uint8))
    rows = labels.assign(given=CLASSES[0])
    text = page("mine", rows, iter([large, None]), 0.5, [], CLASSES, PROBABILITIES, COMMAND)
    assert len(text) < 1e5
    (image,) = Page(text).of("img")[1:]
    assert "class" not in image
    assert max(decoded(image["src"]).size) == SIDE
    assert Page(text).text.count("(cannot be read)") == 1
    assert "the 2 most suspect" in Page(text).text
