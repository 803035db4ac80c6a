"""The page of suspect labels: it needs no network, and nothing from the user's data is live in it."""

import base64
import hashlib
import html.parser
import re

import numpy as np
import pandas as pd
import pytest
from own_images import pictures
from PIL import Image

from sln.relabel.pipeline import page

EVIL = ['"><img src=x onerror=alert(1)>', "<script>alert(2)</script>", "&amp; 'q' Käfer", "a\r=HYPERLINK(2)"]


class Page(html.parser.HTMLParser):
    """The tags and the text of a page, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text.replace("\r", "\n"))

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
    return pd.DataFrame(frame | {"probability": 0.5, "suspect": suspect, "rank": range(1, 25)})


@pytest.fixture(scope="module")
def text(labels):
    images = [Image.fromarray(image.transpose(1, 2, 0)) for image in pictures(24)[0]]
    return page("<i>mine", labels, images, 0.5, ["Made by <b>hand</b>."])


def test_the_page_shows_labels_and_names_and_none_of_them_is_live(text, labels):
    read = Page(text)
    assert len(read.of("img")) == len(read.of("li")) == 24
    assert all(set(image) == {"alt", "src"} for image in read.of("img"))
    assert all(image["src"].startswith("data:image/png;base64,") for image in read.of("img"))
    assert len(read.of("script")) == 1
    assert {"b", "i"}.isdisjoint(name for name, _ in read.tags)
    for of, image in zip(labels.itertuples(), read.of("img"), strict=True):
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
    assert policy.startswith("default-src 'none'")
    script = re.search(r"<script>(.*?)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_the_slider_is_labelled_and_its_counts_are_those_of_the_labels(text, labels):
    read = Page(text)
    slider = next(of for of in read.of("input") if of["type"] == "range")
    assert any(label["for"] == slider["id"] for label in read.of("label"))
    assert (slider["min"], slider["max"], slider["step"], slider["value"]) == ("0", "1", "0.01", "0.50")
    suspects = labels["suspect"].round(4)
    counts = [int(count) for count in slider["data-counts"].split(",")]
    assert counts == [int((suspects >= step / 100).sum()) for step in range(101)]
    assert [float(li["data-suspect"]) for li in read.of("li")] == suspects.tolist()
    assert f"{counts[50]} of 24 labels are that suspect" in " ".join(read.text.split())
    assert any(of.get("aria-live") == "polite" for of in read.of("p"))


def test_thumbnails_are_small_and_missing_images_are_named(labels):
    large = Image.fromarray(np.random.default_rng(0).integers(255, size=(900, 1200, 3), dtype=np.uint8))
    text = page("mine", labels, [large, None], 0.5, [])
    assert len(text) < 1e5
    assert len(Page(text).of("img")) == 1
    assert Page(text).text.count("(cannot be read)") == 1
    assert "the 2 most suspect" in Page(text).text
