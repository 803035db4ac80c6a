"""What a person does with an explorer, and what must follow."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

SLOW = 30.0  # seconds: an answer that takes longer is none, also on a machine that is busy


def explorers(page: Page) -> Locator:
    """All panels of sliders and a picture."""
    return page.locator(".sln-explorer")


def words_of(panel: Locator) -> Locator:
    """The caption below the picture (of several that lie in one place, the one that is seen)."""
    return panel.locator(".sln-words:visible").first


def sliders_of(panel: Locator) -> list[Locator]:
    """All its sliders."""
    rows = panel.locator(".widget-hslider")
    expect(rows.first).to_be_visible()
    return rows.all()


def movable(row: Locator) -> bool:
    """Whether a slider can be moved now: one that offers a single value cannot."""
    return not row.locator("[disabled]").count()


# milliseconds from a key to the first frame in which the panel's words are others than `said`
TIME_THE_ANSWER = """(panel, said) => {
    window.answered = null;
    const words = () => [...panel.querySelectorAll('.sln-words')].find(e => e.checkVisibility())?.innerText;
    panel.addEventListener('keydown', () => {
        const start = performance.now();
        const look = () => {
            if (words() === said) requestAnimationFrame(look);
            else window.answered = performance.now() - start;
        };
        look();
    }, {capture: true, once: true});
}"""


def move(row: Locator, panel: Locator) -> float:
    """Move a slider by the keyboard: its value and the panel's words follow. Returns the seconds it took."""
    handle, value, words = row.locator(".noUi-handle"), row.locator(".widget-readout"), words_of(panel)
    before, said = value.inner_text(), words.inner_text()
    at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    handle.focus()
    panel.evaluate(TIME_THE_ANSWER, said)
    handle.press("ArrowLeft" if at_the_end else "ArrowRight")
    expect(value).not_to_have_text(before)
    expect(words).not_to_have_text(said, timeout=1000 * SLOW)
    row.page.wait_for_function("window.answered !== null", timeout=1000 * SLOW)
    return row.page.evaluate("window.answered") / 1000


def best_move(row: Locator, panel: Locator, enough: float) -> float:
    """`move`, up to three times if it takes more than `enough` seconds: other programs run too."""
    times = [move(row, panel)]
    while min(times) >= enough and len(times) < 3:
        times.append(move(row, panel))
    return min(times)


def drag(page: Page, row: Locator, share: float) -> None:
    """Drag a slider's handle with the mouse to `share` of its width."""
    row.scroll_into_view_if_needed()
    handle, bar = row.locator(".noUi-handle").bounding_box(), row.locator(".noUi-base").bounding_box()
    y = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(bar["x"] + share * bar["width"], y, steps=12)
    page.mouse.up()


COUNT_PICTURES = """panel => {
    window.pictures = 0;
    const place = panel.querySelector('.sln-picture .widget-html-content');
    new MutationObserver(() => window.pictures++).observe(place, {childList: true});
}"""


def place_of(locator: Locator) -> tuple[float, float, float, float]:
    """Where something is on the page, scrolling aside, and how large."""
    return tuple(
        locator.evaluate(
            "e => { const r = e.getBoundingClientRect(), p = e.offsetParent.getBoundingClientRect();"
            " return [r.x - p.x, r.y - p.y, r.width, r.height].map(Math.round) }"
        )
    )
