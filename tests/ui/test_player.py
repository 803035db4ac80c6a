"""The player in a browser, from a file: it moves without a kernel, and for everybody."""

import base64
import hashlib
import json
import statistics
import zlib

import numpy as np
import pytest
from looks import ONLY_CHROMIUM, expect_accessible, expect_no_overflow
from playwright.sync_api import expect

from sln import explore, plots
from sln.explore import player
from sln.plots import style

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"


def drawn(sigma, size):
    """A curve, a picture of random pixels and a heading, `size` tenths of an inch higher."""
    figure, ((left, right),) = style.panels(1, 2, size=(7.0, 3.0 + size / 10))
    left.plot(np.arange(200), np.sin(sigma * np.arange(200)), color="#0072B2")
    left.set_title(f"σ = {sigma:g}")
    right.imshow(np.random.default_rng(int(8 * sigma)).random((8, 8)), interpolation="none")
    figure.words = f"The curve turns {200 * sigma / 6.283:.0f} times at <size> {size}"
    return figure


@pytest.fixture(scope="session")
def made():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_HEADLESS", "1")
        return explore.sliders(drawn, sigma=(1.0, [0.25, 0.5, 1.0, 2.0]), size=(2, (0, 4, 2)))


@pytest.fixture(scope="session")
def path(made, tmp_path_factory):
    """A page with a policy that lets nothing load, and only the player's script run."""
    script = player.SCRIPT
    policy = POLICY.format(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode())
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A player</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>:root { color-scheme: light dark; background: light-dark(#fff, #16181c);"
        " color: light-dark(#1b1b1b, #e8e8e8) } a { color: inherit }</style>"
        f"<style>{player.STYLE}</style></head><body><main><h1>A player</h1>"
        f'<p><a href="#drawn.sigma=2">at σ = 2</a></p>{made.html}<p id="below">below</p></main>'
        f"<script>{player.SCRIPT}</script></body></html>"
    )
    path = tmp_path_factory.mktemp("player") / "page.html"
    path.write_text(page, encoding="utf-8")
    return path


def frame_of(made, *place):
    """The SVG and the words that Python has packed for these values."""
    content = json.loads(zlib.decompress(base64.b64decode(made.html.split('text/plain">')[1].split("<")[0])))
    number = 0
    for values, text in zip(content["values"], place, strict=True):
        number = number * len(values) + values.index(text)
    return "".join(content["tokens"][i] for i in content["frames"][number]), content["words"][number]


SAME = """(picture, svg) => {
    const other = document.createElement("div");
    other.innerHTML = svg;
    return picture.querySelector("svg").outerHTML === other.firstElementChild.outerHTML;
}"""


def expect_frame(page, made, *place):
    svg, words = frame_of(made, *place)
    expect(page.locator(".sln-words")).to_have_text(words)
    expect(page.locator(".sln-picture")).to_have_attribute("aria-label", words)
    assert page.locator(".sln-picture").evaluate(SAME, svg)
    for output, text in zip(page.locator("output").all(), place, strict=True):
        expect(output).to_have_text(text)
    texts = [slider.get_attribute("aria-valuetext") for slider in page.locator("input").all()]
    assert texts == list(place)


@pytest.fixture
def page(open_page, path):
    """The page, and what went wrong in it or was asked of a network."""
    page = open_page("about:blank")
    page.problems = []
    page.on("request", lambda request: page.problems.append(request.url))
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(path.as_uri())
    yield page
    asked = [text for text in page.problems if not text.startswith(("file://", "data:", "blob:"))]
    assert asked == []


def test_a_move_shows_the_frame_that_was_drawn_and_its_words(page, made):
    expect_frame(page, made, "1", "2")
    page.get_by_role("slider", name="σ").fill("0")
    expect_frame(page, made, "0.25", "2")
    page.get_by_role("slider", name="size").fill("2")
    expect_frame(page, made, "0.25", "4")


def test_the_keyboard_reaches_and_moves_everything(page, made):
    page.keyboard.press("Tab")  # the link
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect_frame(page, made, "2", "2")
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    expect_frame(page, made, "2", "0")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect_frame(page, made, "1", "2")  # reset
    page.keyboard.press("Tab")
    expect(page.locator(".sln-picture")).to_be_focused()


def test_the_state_is_in_the_address_and_a_link_sets_it(page, made, path):
    page.get_by_role("slider", name="size").press("ArrowLeft")
    page.wait_for_function("location.hash === '#drawn.size=0'")
    page.get_by_role("link").click()
    expect_frame(page, made, "2", "2")  # what the link leaves out is at its start
    page.get_by_role("button", name="Reset").click()
    expect_frame(page, made, "1", "2")
    page.wait_for_function("location.hash === ''")
    page.goto("about:blank")
    page.goto(path.as_uri() + "#other.sigma=1&drawn.size=0&drawn.sigma=0.5")
    expect_frame(page, made, "0.5", "0")
    page.get_by_role("slider", name="σ").press("ArrowLeft")
    page.wait_for_function("location.hash === '#other.sigma=1&drawn.sigma=0.25&drawn.size=0'")
    page.goto("about:blank")
    page.goto(path.as_uri() + "#drawn.sigma=1.7")  # not drawn: the nearest
    expect_frame(page, made, "2", "2")


def test_nothing_else_moves_and_a_move_is_within_a_frame(page, made):
    top = "document.querySelector('#below').getBoundingClientRect().top"
    before = page.evaluate(top)
    times = page.evaluate(
        """async () => {
            const player = document.querySelector("sln-player"), slider = player.sliders[0], times = [];
            await player.unpacked();
            for (let move = 0; move < 40; move++) {
                slider.value = move % 4;
                const start = performance.now();
                await player.show();
                document.querySelector("#below").getBoundingClientRect();  // with its layout
                times.push(performance.now() - start);
            }
            return times;
        }"""
    )
    assert statistics.median(times) <= 16
    page.get_by_role("slider", name="size").fill("0")
    expect_frame(page, made, "2", "0")
    assert page.evaluate(top) == before


@ONLY_CHROMIUM
def test_it_is_readable_without_script(open_page, path, made):
    page = open_page(path.as_uri(), java_script_enabled=False)
    expect(page.locator("svg")).to_be_visible()
    expect(page.locator(".sln-words")).to_have_text(made.words)
    for slider in page.locator("input").all():
        expect(slider).to_be_disabled()
    expect(page.get_by_role("button")).to_have_count(0)


def test_it_moves_where_it_is_put_by_script(page, made):
    """As in a notebook, whose outputs arrive as text."""
    page.evaluate(
        "() => { const player = document.querySelector('sln-player'), text = player.outerHTML;"
        " player.remove(); document.querySelector('main').innerHTML = text; }"
    )
    page.get_by_role("slider", name="σ").press("ArrowRight")
    expect_frame(page, made, "2", "2")


def test_everybody_can_use_it(page):
    expect_accessible(page)
    expect_no_overflow(page, 320, 375, 1200)
    assert all(slider.bounding_box()["height"] >= 44 for slider in page.locator("input, button").all())


def test_words_stay_on_the_picture_in_the_page_s_own_font(page, tmp_path):
    figure = plots.theory.stochastic_noise(1.0, 0.9)
    page.evaluate("svg => { document.querySelector('main').innerHTML = svg }", plots.vector.svg(figure))
    widest = page.evaluate(
        "() => { const all = document.querySelector('svg').getBoundingClientRect();"
        " return Math.max(...[...document.querySelectorAll('text')].map(text =>"
        " text.getBoundingClientRect().right - all.right)) }"
    )
    assert widest <= 1
