"""The browsers, and a page of its own for each test; of the folders see `servers`."""

import contextlib
import os
import shutil
from urllib.parse import quote

import pytest
from filelock import FileLock
from playwright.sync_api import Error, Page, sync_playwright
from servers import DOWNLOADS, ROOT, UI, fresh, python, with_runs

# Firefox (153 is one) refuses a command by which playwright sets up each page: light or dark. It stays light.
SHIM = """const parse = JSON.parse;
JSON.parse = (...text) => {
    const answer = parse(...text), refused = answer?.error === "unknown command";
    if (!refused || !answer.message?.includes("setMediaFeaturesOverride")) return answer;
    return {type: "success", id: answer.id, result: {}};
};"""


def pytest_collection_modifyitems(items):
    """Of two processes one begins with the notebooks, which take longest."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(scope="session")
def playwright():
    """What drives them."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NODE_OPTIONS", "--import=data:text/javascript," + quote(SHIM))
            driver = stack.enter_context(sync_playwright())
        yield driver


@pytest.fixture(scope="session")
def chromium(playwright):
    """The system's Chromium."""
    options = ["--no-sandbox", "--disable-dev-shm-usage"]
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=options, timeout=120_000
    )
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def firefox(playwright):
    """The system's Firefox, by WebDriver BiDi."""
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("no Firefox here")
    try:
        browser = playwright.firefox.launch(
            channel="moz-firefox", executable_path=path, timeout=120_000, downloads_path=fresh(DOWNLOADS.name)
        )
    except Error as error:
        pytest.skip(f"playwright cannot drive this Firefox: {error.message.splitlines()[0]}")
    yield browser
    browser.close()


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def browser(request):
    """Chromium, then Firefox, where there is one: for pages that need no server."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """What `make reproduce` has written, if it has; else that of three notebooks at `smoke`."""
    if (ROOT / "build" / "quick" / "index.html").exists():
        return ROOT / "build" / "quick"
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    names = ["02_sln_training", "04_loss_landscape", "07_theory"]
    script = "import sys; from pathlib import Path; from sln.reproduce import reproduce; "
    script += f"sys.exit(reproduce('smoke', only={names}, build=Path({str(base)!r})))"
    with FileLock(base / "built.lock"):
        if not (base / "smoke" / "index.html").exists():
            python(with_runs(fresh("article")), "-c", script)
    return base / "smoke"


@pytest.fixture
def open_page(browser, request):
    """`open_page(url)`, 1280 x 800 or another size; a screenshot is kept at the end, after a failure too."""
    contexts = []

    def open_at(url: str, width: int = 1280, height: int = 800, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
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
