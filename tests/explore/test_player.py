"""Frames that are drawn beforehand, without a browser."""

import base64
import html
import itertools
import json
import math
import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sln import explore
from sln.explore import player
from sln.plots import style
from sln.plots.vector import svg
from sln.utils.errors import InputError

VALUES = {
    "kind": {"one": "a", "two": "b"},
    "sigma": {f"{value:g}": value for value in np.linspace(0, 2, 41).tolist()},
    "epoch": {str(value): value for value in range(1, 8)},
}


def curve(fixed, sigma, epoch=1):
    """A curve; sigma 2 has more panels, sigma 4 cannot be drawn."""
    if sigma == 4:
        raise InputError("no run with sigma <4>")
    figure, axes = style.panels(1, 2 if sigma == 2 else 1, size=(3.0, 1.0 + epoch))
    axes[0, 0].plot(np.arange(9), np.arange(9) * sigma, label=fixed)
    figure.words = f"<{fixed}> & σ = {sigma:g}, “epoch” {epoch}"
    return figure


def made(**controls):
    return explore.play(curve, "fixed", **controls)


def unpacked(element):
    """The values of a player, and its frames: SVG and words by their texts."""
    packed = re.search(r'<script type="text/plain">([^<]*)</script>', element)[1]
    content = json.loads(zlib.decompress(base64.b64decode(packed)))
    pictures = ["".join(content["tokens"][place] for place in frame) for frame in content["frames"]]
    keys = itertools.product(*content["values"])
    return content["values"], dict(zip(keys, zip(pictures, content["words"], strict=True), strict=True))


def test_every_frame_is_exactly_the_figure_that_is_drawn_for_its_values():
    found = made(sigma=(1.0, [0.5, 1.0, 2.0]), epoch=(2, [1, 2]))
    values, frames = unpacked(found.html)
    assert values == [["0.5", "1", "2"], ["1", "2"]]
    for sigma, epoch in itertools.product((0.5, 1.0, 2.0), (1, 2)):
        figure = curve("fixed", sigma, epoch)
        assert frames[f"{sigma:g}", f"{epoch}"] == (svg(figure, "curve-sigma-epoch-"), figure.words)
    assert frames["1", "2"][0] in found.html  # is there before any script runs
    assert html.escape(frames["1", "2"][1]) in found.html


def test_the_same_call_gives_the_same_bytes():
    controls = {"sigma": (1.0, [1.0, 2.0])}
    assert made(**controls).html == made(**controls).html


def test_words_and_names_cannot_bring_markup_into_the_page():
    found = explore.play(curve, "<b>", sigma=(1.0, {'<i>"one"': 1.0, "two": 2.0}))
    picture = re.sub(r"<svg.*?</svg>", "", found.html, flags=re.DOTALL)
    assert not re.search(r"<[bi]>", picture)
    assert 'aria-valuetext="&lt;i&gt;&quot;one&quot;"' in picture


@given(limit=st.integers(1, 700), start=st.tuples(*(st.sampled_from(list(part)) for part in VALUES.values())))
def test_thinning_keeps_the_start_and_the_order_within_the_limit(limit, start):
    kept = player.thinned(VALUES, start, limit)
    assert math.prod(map(len, kept.values())) <= limit
    for argument, text in zip(VALUES, start, strict=True):
        texts = kept[argument]
        assert text in texts
        assert len(texts) <= player.VALUES
        assert texts == [other for other in VALUES[argument] if other in texts]


def test_names_stay_and_few_values_are_left_alone():
    start = ("one", "1", "7")
    assert player.thinned({"kind": VALUES["kind"]}, ("one",), 2) == {"kind": ["one", "two"]}
    kept = player.thinned(VALUES, start, 12)
    assert kept["kind"] == ["one", "two"]
    assert {len(kept["sigma"]), len(kept["epoch"])} == {2, 3}
    assert player.thinned(VALUES, start, 400)["epoch"] == list(VALUES["epoch"])


def test_a_control_of_many_values_keeps_round_ones_and_both_ends():
    kept = player.thinned({"sigma": VALUES["sigma"]}, ("1",), 400)["sigma"]
    assert kept == ["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "1.75", "2"]


@pytest.mark.parametrize(("cap", "value"), [("FRAMES", 3), ("CHARACTERS", 20_000), ("BYTES", 3_000)])
def test_the_caps_leave_values_out_and_a_note_counts_them(cap, value, monkeypatch):
    whole = made(sigma=(1.0, (0.0, 1.0, 0.1)))
    assert whole.frames == 11
    assert "sln-note" not in whole.html
    monkeypatch.setattr(player, cap, value)
    fewer = made(sigma=(1.0, (0.0, 1.0, 0.1)))
    assert 1 <= fewer.frames <= 5
    assert f"σ: {fewer.frames} of 11 values" in fewer.html


def test_time_is_a_cap_too_and_the_first_frame_is_always_there(monkeypatch):
    monkeypatch.setattr(player, "SECONDS", 0.0)
    found = made(sigma=(1.0, (0.0, 1.0, 0.1)))
    assert (found.frames, found.kept) == (1, {"sigma": ["1"]})
    assert 'aria-valuetext="1" disabled' in found.html


def test_what_cannot_be_drawn_is_an_error_at_the_start_and_words_elsewhere():
    with pytest.raises(InputError, match="no run with sigma"):
        made(sigma=(4.0, [1.0, 4.0]))
    _, frames = unpacked(made(sigma=(1.0, [1.0, 4.0])).html)
    assert frames[("4",)] == ("", "no run with sigma <4>")


def test_a_notebook_keeps_the_element_with_what_moves_it_and_the_words():
    found = made(sigma=(1.0, [1.0, 2.0]))
    bundle = found._repr_mimebundle_()
    assert bundle["text/html"] == f"<style>{player.STYLE}</style>{found.html}<script>{player.SCRIPT}</script>"
    assert bundle["text/plain"] == found.words == "<fixed> & σ = 1, “epoch” 1"


def test_nothing_is_loaded_from_elsewhere():
    found = made(sigma=(1.0, [1.0]))._repr_mimebundle_()["text/html"]
    addresses = set(re.findall(r"https?://[^\"' )]+", found))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"\b(src|href)=\"(?!data:|#)|@import|url\((?!#)", found)
