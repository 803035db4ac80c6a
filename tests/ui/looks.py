"""What every page must be, for everybody: in light and dark, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page
from servers import DOWNLOADS, UI, wait_for

# where Firefox cannot be asked over WebDriver BiDi (no script, print), or would only repeat what took long
ONLY_CHROMIUM = pytest.mark.parametrize("browser", ["chromium"], indirect=True)


def expect_accessible(page: Page, keep: str = "") -> None:
    """Axe finds nothing at 1200 and 375 pixels, in light and (where it can be asked for) dark.

    Screenshots of the whole page are kept as build/ui/`keep`-….png.
    """
    for scheme in ("light", "dark") if is_chromium(page) else ("light",):
        page.emulate_media(color_scheme=scheme)
        for width in (1200, 375):
            page.set_viewport_size({"width": width, "height": 800})
            found = Axe().run(page)
            assert found.violations_count == 0, f"{width}, {scheme}: {found.generate_report()}"
            if keep:
                page.screenshot(path=UI / f"{keep}-{width}-{scheme}.png", full_page=True)


def empty_pictures(page: Page) -> None:
    """Take out what is drawn in pictures: each is one image to a screen reader, but axe reads every line."""
    page.evaluate("() => document.querySelectorAll('svg').forEach(svg => svg.replaceChildren())")


def downloaded(page: Page, button: Locator, path: Path) -> str:
    """Press a button that saves a file, move the file to `path`; returns the name that it had."""
    if is_chromium(page):
        with page.expect_download() as download:
            button.click()
        download.value.save_as(path)
        return download.value.suggested_filename
    there = set(DOWNLOADS.iterdir())  # playwright does not report Firefox's
    button.click()  # Firefox makes an empty file first
    wait_for(lambda: any(file.stat().st_size for file in set(DOWNLOADS.glob("*.csv")) - there), 60)
    (file,) = set(DOWNLOADS.glob("*.csv")) - there
    file.rename(path)
    return file.name


def expect_no_overflow(page: Page, *widths: int) -> None:
    """Nothing is wider than a window of these widths."""
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width


def is_chromium(page: Page) -> bool:
    """Whether the page is Chromium's."""
    return page.context.browser.browser_type.name == "chromium"
