"""The page of suspicious labels that `python -m sln relabel` writes, opened from disk."""

import pytest
from playwright.sync_api import expect
from servers import fresh, python

# a folder of digits in the form of class/number.png, one label in five wrong
FOLDER = """
import sys
from pathlib import Path
from PIL import Image
from sln.datasets.images import digits as digits_of
digits = digits_of().train
for number in range(200):
    label = int(digits.true[number]) if number % 5 else (int(digits.true[number]) + 1) % 10
    path = Path(sys.argv[1], str(label), f"{number:03}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((digits.images[number][0] * 15).numpy()).save(path)
"""


@pytest.fixture(scope="module")
def written():
    """The page of a small folder of digits."""
    folder = fresh("relabel")
    python(folder, "-c", FOLDER, str(folder / "digits"))
    python(folder, "-m", "sln", "relabel", str(folder / "digits"), "--out", str(folder / "relabel"))
    (page,) = (folder / "relabel").rglob("*.html")
    return page


def test_the_threshold_says_what_it_shows_and_shows_it(written, open_page):
    page = open_page(written.as_uri())
    suspects, slider = page.locator("li[data-suspect]"), page.locator("input#threshold")
    values = [float(figure.get_attribute("data-suspect")) for figure in suspects.all()]
    assert values
    for press in ("End", "Home"):
        slider.press(press)
        threshold = float(slider.input_value())
        shown = sum(value >= threshold for value in values)
        expect(page.locator("li[data-suspect]:visible")).to_have_count(shown)
        expect(page.locator("#shown")).to_have_text(str(shown))
