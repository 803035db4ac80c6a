"""The article in a browser, from a file: small, quick, accessible, and without any request.

It is the article of `make reproduce`, if there is one; else three notebooks are executed at smoke.
"""

import statistics

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from looks import (
    ONLY_CHROMIUM,
    downloaded,
    empty_pictures,
    expect_accessible,
    expect_no_overflow,
    is_chromium,
)
from playwright.sync_api import expect

pytestmark = pytest.mark.timeout(300, func_only=True)  # where nothing is built, three notebooks run

MOVES = """async (player) => {
    await player.unpacked();
    const times = [];
    for (const slider of player.sliders) {
        for (let value = 0; value <= slider.max; value += 1) {
            let best = Infinity;
            for (let time = 0; best > 16 && time < 12; time += 1) {  // the best: other programs run too
                slider.value = slider.defaultValue;
                await player.show();
                slider.value = value;
                const before = performance.now();
                await player.show();
                best = Math.min(best, performance.now() - before);
            }
            times.push(best);
        }
        slider.value = slider.defaultValue;
        await player.show();
    }
    return times;
}"""


ENABLED = """() => new Promise((done) => {  // milliseconds since the page was asked for
    const look = () => document.querySelector("sln-player input:enabled")
        ? done(performance.now()) : setTimeout(look, 5);
    look();
})"""


@pytest.fixture(scope="session")
def article(built):
    return built / "index.html"


@pytest.fixture
def page(article, open_page):
    return open_page(article.as_uri())


def test_it_is_small(article):
    assert article.stat().st_size < 4e6


def test_nothing_is_asked_for_and_nothing_is_refused(article, browser):
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(article.as_uri())
    for section in page.locator("main h2").all():
        section.scroll_into_view_if_needed()
    page.evaluate("() => Promise.all([...document.querySelectorAll('sln-player')].map(one => one.show()))")
    page.close()
    assert [url for url in asked if not url.startswith(("data:", "blob:", article.as_uri()))] == []
    assert said == []


@ONLY_CHROMIUM
def test_the_first_panel_moves_within_a_second_of_opening(article, browser):
    times = [np.inf]
    while min(times) >= 1000 and len(times) < 9:  # the best: other programs run too
        page = browser.new_page()
        page.goto(article.as_uri(), wait_until="commit")
        times.append(page.evaluate(ENABLED))
        page.close()
    assert min(times) < 1000, times


def test_every_slider_moves_within_a_frame(page):
    for player in page.locator("sln-player").all():
        name, times = player.get_attribute("id"), player.evaluate(MOVES)
        words = player.evaluate("async (player) => (await player.unpacked()).words")
        assert not [text for text in words if "nan" in text], name
        print(f"{name}: median {statistics.median(times):.1f} ms, most {max(times):.1f} ms")
        assert statistics.median(times) < 16, name
        assert max(times) < 50, name


def test_an_accessibility_check_finds_nothing_and_nothing_is_wider_than_a_phone(page):
    expect(page.locator("sln-player input").first).to_be_enabled()
    expect_no_overflow(page, 320, 375)
    if is_chromium(page):
        found = Axe().run(page)  # once: it takes long with all 40,000 lines of the pictures
        assert found.violations_count == 0, found.generate_report()
    empty_pictures(page)
    expect_accessible(page)


def test_every_id_is_there_once(page):
    names = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(names) == len({*names}) > 100


@ONLY_CHROMIUM
def test_it_can_be_read_and_printed_without_a_script(article, browser):
    page = browser.new_page(java_script_enabled=False)
    page.goto(article.as_uri())
    for media in ("screen", "print"):
        page.emulate_media(media=media)
        for player in page.locator("sln-player").all():
            expect(player.locator("svg")).to_be_visible()
            expect(player.locator(".sln-words")).to_be_visible()
    assert page.locator("input:enabled").count() == 0
    page.close()


def test_tab_and_arrow_keys_reach_and_move_everything(page):
    player = page.locator("sln-player").first
    words, slider = player.locator(".sln-words"), player.locator("input").first
    expect(slider).to_be_enabled()
    before = words.inner_text()
    player.locator("xpath=preceding::a[1]").focus()
    page.keyboard.press("Tab")
    expect(slider).to_be_focused()
    page.keyboard.press("Home")
    expect(words).not_to_have_text(before)
    reachable = "input, button, summary, a[href], [tabindex='0']"
    assert page.evaluate(f"[...document.querySelectorAll({reachable!r})].every(e => e.tabIndex === 0)")


def test_a_link_in_the_prose_sets_a_slider(page):
    link = page.locator('main a[href^="#memorising.sigma="]').first
    value = link.get_attribute("href").partition("=")[2]
    link.click()
    expect(page.locator("sln-player#memorising output").first).to_have_text(value)


def test_the_numbers_of_a_figure_can_be_saved(page, tmp_path):
    button = page.locator("button[data-csv]").first
    assert downloaded(page, button, tmp_path / "numbers.csv") == button.get_attribute("data-file")
    assert "," in (tmp_path / "numbers.csv").read_text().partition("\n")[0]


def test_formulas_have_a_font_that_stretches(page):
    formula = page.locator("math[display=block]").first
    assert page.evaluate("document.fonts.check('16px \"Study Math\"')")
    assert formula.bounding_box()["height"] > 0


def test_the_old_name_still_opens(article, open_page):
    page = open_page(article.with_name("report.html").as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text("Noise against noise")
