"""The browser, and a page of its own for each test; of the folders see `servers`."""

import contextlib
import shutil

import pytest
from playwright.sync_api import Page, sync_playwright
from servers import UI


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=options, timeout=120_000
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, request):
    """`open_page(url)`, 1280 x 800 or another size; a screenshot is kept at the end, after a failure too."""
    contexts = []

    def open_at(url: str, width: int = 1280, height: int = 800) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.goto(url)
        return page

    yield open_at
    for number, context in enumerate(contexts):
        for page in context.pages:
            with contextlib.suppress(Exception):  # a page that has crashed must not hide why
                page.screenshot(path=UI / f"{request.node.name}-{number}.png")
        context.close()
