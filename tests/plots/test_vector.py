"""Figures as SVG for a page."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from sln.plots import style, vector
from sln.plots.vector import svg


def example(side=8):
    figure, ((left, middle, right),) = style.panels(1, 3, size=(7.0, 2.5))
    left.plot([0, 1, 2], [0, 0.333, 1], color="#882255", label="a < b")
    left.fill_between([0, 2], [0, 1], alpha=0.15)
    left.scatter([0, 1, 1], [0.2, 0.5, 0.8], color="#0072B2")
    left.legend()
    left.text(0.5, 0.5, "dark words", color="#331111")
    pixels = np.random.default_rng(0).random((side, side))
    middle.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="none")
    right.bar([0, 1], [1, 2], color="black")
    return figure


def test_it_is_one_well_formed_element_without_a_size_of_its_own():
    root = ET.fromstring(svg(example()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["viewBox"] == "0 0 504 180"
    assert not {"width", "height", "id"} & set(root.attrib)
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a < b", "dark words"} <= words


def test_equal_figures_give_the_same_text_and_can_still_be_shown():
    figures = [example(), example()]
    assert svg(figures[0]) == svg(figures[1])
    assert figures[0].dpi == example().dpi
    assert figures[0].patch.get_visible()
    assert figures[0]._repr_png_().startswith(b"\x89PNG")


def test_ids_are_those_that_something_refers_to_and_begin_with_the_prefix():
    text = svg(example(), "panel-")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 0
    assert set(ids) == set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    assert all(name.startswith("panel-") for name in ids)


def test_figures_without_a_prefix_share_no_id():
    other = example()
    other.axes[0].set_title("another")
    ids = [set(re.findall(r' id="([^"]+)"', svg(figure))) for figure in (example(), other)]
    assert not ids[0] & ids[1]


def test_places_are_rounded_and_opacities_are_not():
    text = svg(example())
    assert "opacity: 0.15" in text
    for numbers in re.findall(r' d="([^"]*)"', text):
        assert not re.search(r"\d\.\d{2}", numbers)


def test_black_is_the_page_s_ink_and_the_background_is_the_page():
    text = svg(example())
    assert "#000000" not in text
    assert "#ffffff" not in text
    assert 'fill="currentColor"' in text
    assert "fill: currentColor" not in text or "stroke: currentColor" in text


@pytest.mark.parametrize("colour", ["#882255", "#331111", "#0072b2", "#000080"])
def test_what_a_dark_page_would_swallow_is_lighter_there(colour):
    dark = re.fullmatch(rf"light-dark\({colour}, (#\w+)\)|{colour}", vector._on_both(colour))[1] or colour
    light, paper = (vector._luminance(vector.to_rgb(name)) for name in (dark, vector.DARK))
    assert (light + 0.05) / (paper + 0.05) >= vector.CONTRAST


def test_small_images_keep_every_pixel_and_large_ones_are_small():
    def image(side):
        kind, data = re.search(r'data:image/(\w+);base64,([^"]+)"', svg(example(side))).groups()
        return kind, base64.b64decode(data)

    kind, data = image(8)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert kind == "png"
    wanted = 255 * np.random.default_rng(0).random((8, 8))
    assert np.abs(pixels - wanted).max() < 2
    kind, data = image(200)
    assert kind == "webp"
    assert len(data) < 40_000
