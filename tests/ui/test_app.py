"""The page of explorers (Voilà): refused without its token, usable by people who do not code."""

import re

import pytest
from explorer import explorers, movable, move, sliders_of, words_of
from playwright.sync_api import expect
from servers import ROOT, UI, fresh, serving, status_of


@pytest.fixture(scope="module")
def app():
    """The page at its own profile, quick, without any trained run."""
    folder = fresh("app")
    options = ["--Voila.ip=127.0.0.1", "--token=only-for-these-tests", "--no-browser", "--port=PORT"]
    with serving(folder, "voila", "sln/explore/app.ipynb", *options, ready="voila/static/voila.js") as server:
        yield server


@pytest.fixture
def page(app, open_page):
    page = open_page(app.url(""))
    expect(explorers(page)).to_have_count(5, timeout=90_000)
    return page


def test_the_makefiles_words_are_those_that_are_tested():
    recipe = (ROOT / "Makefile").read_text()
    assert re.search(
        r"-m voila sln/explore/app.ipynb --Voila.ip=127.0.0.1 --token$", recipe, flags=re.MULTILINE
    )


def test_without_the_token_the_page_is_refused(app, open_page):
    for token in (None, "another"):
        page = open_page(app.url("", token=token))
        expect(page.get_by_text("Password or token")).to_be_visible()
        expect(explorers(page)).to_have_count(0)
    assert status_of(app.url("", token=None)) == 302  # to the page that asks for it
    assert status_of(app.url("api/kernels", token=None)) in (302, 403)


def test_the_sliders_answer_and_no_code_is_shown(page):
    assert page.locator(".jp-CodeMirrorEditor, .cm-editor").count() == 0
    assert "explore.sliders" not in page.content()
    for panel in explorers(page).all():
        if panel.locator("img:visible").count():  # nothing is trained yet
            for row in filter(movable, sliders_of(panel)):
                move(row, panel)


def test_train_this_says_what_it_does_can_be_cancelled_and_finishes(page):
    message, panel = page.locator(".sln-training"), explorers(page).nth(1)
    expect(words_of(panel)).to_contain_text("Nothing is trained yet")
    button, stop = page.get_by_role("button", name="Train this"), page.get_by_role("button", name="Cancel")
    button.click()
    expect(message).to_contain_text(re.compile(r"epoch \d+ of 100, about \d+ s left"), timeout=60_000)
    expect(button).to_be_disabled()
    stop.click()
    expect(message).to_contain_text(re.compile(r"Cancelled after epoch \d+"))
    reached = int(re.search(r"epoch (\d+)", message.inner_text())[1])
    assert reached < 100
    page.screenshot(path=UI / "cancelled.png")
    button.click()
    expect(message).to_contain_text("Done: σ = 1", timeout=120_000)
    expect(words_of(panel)).to_contain_text("σ = 1, symmetric noise at rate 0.4, α = 0.99, epoch 100")
    epoch = panel.locator(".widget-hslider").last
    epoch.locator(".noUi-handle").press("Home")
    expect(words_of(panel)).to_contain_text("α = 0.99, epoch 1:")
    page.screenshot(path=UI / "trained.png", full_page=True)


def test_it_fits_a_narrow_window(app, open_page):
    page = open_page(app.url(""), width=420, height=800)
    expect(explorers(page)).to_have_count(5, timeout=90_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert all(box.bounding_box()["width"] <= 420 for box in page.locator("img:visible").all())
    page.screenshot(path=UI / "narrow.png", full_page=True)
