"""Sliders and pictures, without a browser."""

import asyncio
import base64
import gc
import io
import re
import weakref

import pytest
from PIL import Image

from sln import explore, plots
from sln.explore import widgets
from sln.explore.player import Player
from sln.plots import style
from sln.utils.errors import InputError


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    """In a notebook that a person watches."""
    monkeypatch.delenv("SLN_HEADLESS")


def titled(fixed, sigma, epoch=1):
    """A figure whose title holds its arguments; sigma 2 cannot be drawn."""
    if sigma == 2:
        raise InputError("no run with sigma 2")
    ax = style.new_axes((2.0, 1.0))
    ax.set_title(f"{fixed}, σ = {sigma:g}\nepoch {epoch}")
    return ax.figure


def size_of(image):
    return re.search(r'aspect-ratio: [^"]*"><svg viewBox="[^"]*"', image.value)[0]


def test_in_the_app_pictures_wait_until_all_cells_have_run(monkeypatch):
    monkeypatch.setenv("VOILA_PREHEAT", "True")
    monkeypatch.setattr(widgets, "SOON", 0.05)
    drawn = []

    def draw(name):
        drawn.append(name)
        return titled(name, 1.0)

    async def cells():
        for name in "abc":
            explore.sliders(draw, name=(name, "abc"))
            await asyncio.sleep(0.03)
            assert drawn == []
        await asyncio.sleep(1)

    asyncio.run(cells())
    assert drawn == ["a", "b", "c"]
    assert widgets.waiting == []


def test_a_slider_redraws_once_with_its_value_and_the_words_follow():
    drawn = []

    def draw(fixed, sigma):
        drawn.append((fixed, sigma))
        return titled(fixed, sigma)

    panel = explore.sliders(draw, "fixed", sigma=(1.0, [0.5, 1.0]))
    before = panel.picture.image.value
    panel.sliders["sigma"].value = 0.5
    assert drawn == [("fixed", 1.0), ("fixed", 0.5)]
    assert panel.picture.words.value == "fixed, σ = 0.5, epoch 1"
    assert panel.picture.image.value != before
    assert 'role="img" aria-label="fixed, σ = 0.5, epoch 1"' in panel.picture.image.value
    assert panel.sliders["sigma"].description == "σ"
    assert panel.sliders["sigma"].continuous_update is False


@pytest.mark.parametrize("control", [(0.0, 0.9, 0.1), [0.1, 0.2], {"a": 0.1}])
def test_a_slider_that_cannot_show_its_start_is_refused(control, refused):
    with refused("starts at 1.0"):
        widgets.slider("sigma", 1.0, control)


@pytest.mark.parametrize(("values", "disabled"), [([1.0], True), ([0.5, 1.0], False)])
def test_a_slider_of_one_value_cannot_be_moved(values, disabled):
    assert widgets.slider("sigma", 1.0, values).disabled is disabled


def test_a_slider_for_no_argument_is_refused_naming_the_nearest(refused):
    with refused("did you mean 'noise_rate'"):
        explore.sliders(plots.labels.label_noise, noise_rat=(0.1, [0.1]))
    with refused("did you mean 'noise_rate'"):
        explore.play(plots.labels.label_noise, noise_rat=(0.1, [0.1]))


def test_a_large_drawing_becomes_pixels_at_twice_the_size(monkeypatch):
    monkeypatch.setattr(style, "LARGEST_SVG", 100)
    image = explore.sliders(titled, "a", sigma=(1.0, [1.0, 3.0])).picture.image.value
    raw = base64.b64decode(re.search(r'<img alt="" src="data:image/png;base64,([^"]+)"', image)[1])
    assert Image.open(io.BytesIO(raw)).size == (400, 200)


def test_the_place_of_a_picture_never_becomes_lower():
    def draw(rows):
        return style.new_axes((4.0, rows)).figure

    panel = explore.sliders(draw, rows=(1, [1, 2, 4]))
    for rows, shape in ((1, 4), (2, 2), (1, 2), (4, 1), (2, 1)):
        panel.sliders["rows"].value = rows
        assert f"aspect-ratio: {shape:.4f}" in panel.picture.image.value


def test_an_error_is_shown_in_words_and_the_picture_that_no_longer_fits_is_hidden():
    panel = explore.sliders(titled, "a", sigma=(1.0, [1.0, 2.0]))
    panel.sliders["sigma"].value = 2.0
    assert ">no run with sigma 2<" in panel.picture.words.value
    assert panel.picture.image.layout.visibility == "hidden"
    panel.sliders["sigma"].value = 1.0
    assert panel.picture.words.value == "a, σ = 1, epoch 1"
    assert panel.picture.image.layout.visibility == "visible"


def test_an_error_of_the_code_is_named_and_cannot_bring_markup_into_the_page():
    panel = explore.sliders(lambda sigma: {}[f"<b>{sigma}</b>"], sigma=(1.0, [1.0]))
    assert "KeyError: &#x27;&lt;b&gt;1.0&lt;/b&gt;" in panel.picture.words.value


def test_in_a_headless_notebook_the_frames_are_drawn_beforehand(monkeypatch):
    monkeypatch.setenv("SLN_HEADLESS", "1")
    found = explore.sliders(titled, "a", sigma=(1.0, [1.0, 3.0]), epoch=(1, (1, 3, 1)))
    assert isinstance(found, Player)
    assert (found.name, found.words) == ("titled", "a, σ = 1, epoch 1")
    assert found.kept == {"sigma": ["1", "3"], "epoch": ["1", "2", "3"]}
    with pytest.raises(InputError, match="no run with sigma 2"):
        explore.sliders(titled, "a", sigma=(2.0, [2.0]))


def test_every_value_of_a_slider_gives_a_picture_of_the_same_size():
    controls = {"sigma": (1.0, (0.05, 2.0, 0.05)), "probability": (0.9, (0.0, 1.0, 0.01))}
    panel = explore.sliders(plots.theory.noise_at_logits, **controls, num_classes=(10, (2, 100, 1)))
    size, words = size_of(panel.picture.image), panel.picture.words.value
    for name, value in (("sigma", 0.05), ("probability", 0.0), ("num_classes", 100)):
        panel.sliders[name].value = value
        assert size_of(panel.picture.image) == size
        assert panel.picture.words.value != words
        words = panel.picture.words.value


def test_play_draws_beforehand_where_a_person_watches_too():
    found = explore.play(titled, "a", sigma=(0.5, [0.1, 0.5, 1.0]))
    assert (found.name, found.frames, found.words) == ("titled-sigma", 3, "a, σ = 0.5, epoch 1")


@pytest.mark.parametrize(
    ("start", "control", "texts"),
    [
        (0.3, (0.0, 0.9, 0.3), ["0", "0.3", "0.6", "0.9"]),
        (2, (1, 4, 2), ["1", "2", "3"]),  # the start is there, whatever the step
        (1.0, [0.25, 1.0], ["0.25", "1"]),
        ("b", {"first": "a", "second": "b"}, ["first", "second"]),
        (1 / 7, [1 / 7, 2 / 3, 1.0, 20000.0], ["0.1429", "0.6667", "1", "20000"]),
        (0.12345, [0.12345, 0.12346], ["0.12345", "0.12346"]),
    ],
)
def test_the_values_of_a_control_have_texts(start, control, texts):
    values = widgets.offered("name", start, control)
    assert list(values) == texts
    assert start in values.values()


def test_what_is_shown_no_longer_is_freed():
    widgets._freeze()
    figure = plots.Figure()
    gone = weakref.ref(figure)
    widgets._freeze()  # of the next panel
    del figure
    gc.collect()
    assert gone() is None
