"""Sliders over frames that are drawn beforehand: one fragment of HTML that moves without a kernel.

A frame is the SVG of a figure, cut into tokens (a tag and the text behind it). Frames share most of them, so
all distinct tokens are stored once, and each frame as a list of their numbers, deflated: dozens of frames
take the space of a few. A page inflates them and puts a frame together again (`player.js`).
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sln.plots import Figure
from sln.plots.vector import place, svg
from sln.utils.errors import InputError

# What one player may have: frames, characters of all their SVGs (3 million take about 10 seconds to draw),
# seconds of this process (then no finer step begins), bytes in the page, values of a control. Values are left
# out evenly to keep within.
FRAMES, CHARACTERS, SECONDS, BYTES, VALUES = 400, 3_000_000, 20.0, 250_000, 13
STRIDES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # every second value, every fifth, …: round ones stay
TOKEN = re.compile(r"<[^>]*>[^<]*")
FOLDER = Path(__file__).parent
STYLE = (FOLDER / "player.css").read_text(encoding="utf-8")
SCRIPT = (FOLDER / "player.js").read_text(encoding="utf-8")

Values = Mapping[str, Mapping[str, Any]]  # of each argument: its values, by their texts
Key = tuple[str, ...]  # the texts of one frame


class Player:
    """`draw(*fixed, **values)`, drawn for the values of its sliders.

    name : the element's id in a page; `#name.argument=value` in an address sets a slider
    values, start : what each argument can be, and the text of what is shown first
    labels : the sliders' names, if others than the arguments'
    ahead : the values to draw, of some arguments; of the others as many as the limits allow

    Raises InputError if the first frame cannot be drawn; of another one the words are then the error.

    Afterwards `kept` are the texts of what was drawn, `words` those of the first frame, `html` the element,
    without STYLE and SCRIPT, which a page needs once, and `seconds` the time that it took.
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        fixed: Sequence[Any],
        name: str,
        values: Values,
        start: Mapping[str, str],
        labels: Mapping[str, str],
        ahead: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        def frame(key: Key) -> tuple[str, str]:
            chosen = {argument: values[argument][text] for argument, text in zip(values, key, strict=True)}
            try:
                figure = draw(*fixed, **chosen)
            except InputError as error:  # no picture, but the reason
                if key == first:
                    raise
                return "", str(error)
            return svg(figure, f"{name}-"), figure.alt()

        began, self.name, first = time.process_time(), name, tuple(start[argument] for argument in values)
        ahead = {
            argument: [*chosen, values[argument][start[argument]]]
            for argument, chosen in (ahead or {}).items()
        }
        wanted = {
            argument: {text: v for text, v in these.items() if argument not in ahead or v in ahead[argument]}
            for argument, these in values.items()
        }
        self.kept, frames, packed = _drawn(frame, wanted, first, every=set(ahead) == set(values))
        picture, self.words = frames[first]
        self.frames, self.bytes, self.seconds = len(frames), len(packed), time.process_time() - began
        rows = [
            _row(name, argument, labels.get(argument, argument), list(self.kept[argument]), text)
            for argument, text in zip(values, first, strict=True)
        ]
        fewer = [
            f"{labels.get(argument, argument)}: {len(texts)} of {len(values[argument])} values"
            for argument, texts in self.kept.items()
            if len(texts) < len(values[argument])
        ]
        note = (
            f'<p class="sln-note">{html.escape("; ".join(fewer))}. The notebook has all.</p>' if fewer else ""
        )
        _, tallest = max(place(svg) for svg, _ in frames.values() if svg)
        longest = max((words for _, words in frames.values()), key=len)
        self.html = (
            f'<sln-player id="{name}"><figure><fieldset disabled><legend>Move the picture</legend>'
            f'{"".join(rows)}<button type="button">Reset</button></fieldset>'
            f'<div class="sln-picture" role="img" tabindex="0" aria-label="{html.escape(self.words)}">'
            f'<div style="{tallest}">{picture}</div></div>'
            f'<figcaption aria-live="polite" data-longest="{html.escape(longest)}">'
            f'<span class="sln-words">{html.escape(self.words)}</span></figcaption>{note}</figure>'
            f'<script type="text/plain">{packed}</script></sln-player>'
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        page = f"<style>{STYLE}</style>{self.html}<script>{SCRIPT}</script>"
        return {"text/html": page, "text/plain": self.words}


def _drawn(
    frame: Callable[[Key], tuple[str, str]], values: Values, first: Key, every: bool = False
) -> tuple[dict[str, list[str]], dict[Key, tuple[str, str]], str]:
    """The values that are kept, their frames, and these packed: finer as long as the limits allow.

    every : keep all values, up to FRAMES
    """
    began, drawn = time.process_time(), {first: frame(first)}
    most, best = min(FRAMES, CHARACTERS // len(drawn[first][0])), None
    for limit in (FRAMES,) if every else (1, most // 4, most // 2, most):
        kept = thinned(values, first, limit)
        keys = list(itertools.product(*kept.values()))
        if best and time.process_time() - began > SECONDS:
            break
        drawn |= {key: frame(key) for key in keys if key not in drawn}
        frames = {key: drawn[key] for key in keys}
        packed = pack(list(kept.values()), list(frames.values()))
        if best and len(packed) > BYTES:
            break
        best = kept, frames, packed
    return best


def thinned(values: Values, first: Key, limit: int) -> dict[str, list[str]]:
    """The texts of each argument's values so that there are at most `limit` frames; `first` is kept.

    Numbers are thinned by STRIDES, the argument with the most first, and keep both ends; names stay, as long
    as there is another way.
    """
    ways = {argument: _ways(values[argument], text) for argument, text in zip(values, first, strict=True)}
    while math.prod(len(way[0]) for way in ways.values()) > max(1, limit):
        able = [argument for argument in reversed(ways) if len(ways[argument]) > 1]  # the last one if equal
        numbers = [argument for argument in able if _numeric(values[argument])]
        longest = max(numbers or able, key=lambda argument: len(ways[argument][0]))
        ways[longest] = ways[longest][1:]
    return {argument: way[0] for argument, way in ways.items()}


def _numeric(values: Mapping[str, Any]) -> bool:
    return all(isinstance(value, int | float) for value in values.values())


def _ways(values: Mapping[str, Any], start: str) -> list[list[str]]:
    """Ever fewer of an argument's texts, from at most VALUES of them to the first one shown alone."""
    texts = list(values)
    place, last = texts.index(start), len(texts) - 1
    if not _numeric(values):
        return [texts, [start]] if last else [texts]
    ways = [
        [text for i, text in enumerate(texts) if (i - place) % stride == 0 or i in (0, last)]
        for stride in STRIDES
    ]
    far = 0 if place > last / 2 else last
    ways += [[texts[i] for i in sorted({place, far})], [start]]
    few = [way for way in ways if len(way) <= VALUES]
    return [way for way, finer in zip(few, [None, *few], strict=False) if way != finer]


def pack(values: Sequence[Sequence[str]], frames: Sequence[tuple[str, str]]) -> str:
    """Frames (SVG, words) in the order of the product of `values`, as base64 text of deflated JSON."""
    cut = [TOKEN.findall(picture) for picture, _ in frames]
    number = {token: place for place, token in enumerate(dict.fromkeys(itertools.chain(*cut)))}
    content = {
        "values": values,
        "words": [words for _, words in frames],
        "tokens": list(number),
        "frames": [[number[token] for token in tokens] for tokens in cut],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _row(name: str, argument: str, label: str, texts: list[str], text: str) -> str:
    """A label, a slider over the places of `texts`, and what it is at."""
    key, only = f"{name}.{argument}", " disabled" if len(texts) == 1 else ""
    return (  # lm: else JupyterLab takes the arrow keys for itself
        f'<label for="{key}">{html.escape(label)}</label><input type="range" id="{key}" name="{argument}"'
        f' min="0" max="{len(texts) - 1}" step="1" value="{texts.index(text)}" autocomplete="off"'
        f' data-lm-suppress-shortcuts="true" aria-valuetext="{html.escape(text)}"{only}><output for="{key}"'
        f' style="min-width: min({max(map(len, texts))}ch, 18vw)">{html.escape(text)}</output>'
    )
