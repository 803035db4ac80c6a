"""Sliders for the notebooks, which pass their values to the function that made the figure above.

The picture (SVG) and its words are widgets with a value, not captured output: nothing flickers, and a
reloaded page or a saved notebook shows them again.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import html
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from IPython.display import HTML, display

from sln.explore.player import Player
from sln.plots import Figure, style
from sln.plots.vector import svg
from sln.utils.errors import InputError, choose, require
from sln.utils.progress import headless

# The values of a control: a range (low, high, step), a list of values, or name -> value.
Control = tuple[float, float, float] | Sequence[Any] | Mapping[str, Any]
HEIGHT = "420px"
SOON = 1.0  # seconds after the last cell
waiting: list[Callable[[], None]] = []  # what is drawn soon
EXPLORER, PICTURE, WORDS = "sln-explorer", "sln-picture", "sln-words"  # CSS classes (panel.css, panel.js)
FOLDER = Path(__file__).parent
# the look of panels and the names of their handles, which ipywidgets leaves out
PAGE = f"<style>{(FOLDER / 'panel.css').read_text(encoding='utf-8')}</style>"
PAGE += f"<script>{(FOLDER / 'panel.js').read_text(encoding='utf-8')}</script>"
SYMBOLS = {"sigma": "σ", "alpha": "α", "probability": "probability p", "num_classes": "classes C"}
SYMBOLS |= {"noise_mode": "kind of noise", "noise": "kind of noise"}


def sliders(
    draw: Callable[..., Figure],
    *fixed: Any,
    height: str = HEIGHT,
    ahead: Mapping[str, Sequence[Any]] | None = None,
    **controls: tuple[Any, Control],
) -> Panel | Player:
    """A panel of sliders above the picture that `draw(*fixed, **values)` returns.

    controls : argument name = (start value, control); the start value must be one of the control's
    height : of the picture's place, fixed, so that nothing below moves during a redraw

    ahead : arguments and the values that a Player draws of them

    In a notebook that `reproduce` executes it is a Player, which moves without a kernel. If `ahead` has all
    arguments, it draws these values and the start; else as many as its limits allow.
    """
    if headless():
        return _player(draw.__name__, draw, fixed, controls, ahead)
    _check_arguments(draw, controls)
    panel = Panel({name: slider(name, *control) for name, control in controls.items()}, height)

    def redraw() -> None:
        values = {name: control.value for name, control in panel.sliders.items()}
        panel.picture.show(lambda: draw(*fixed, **values))

    for control in panel.sliders.values():
        control.observe(lambda _: redraw(), "value")
    soon(redraw)
    return panel


def soon(draw: Callable[[], None]) -> None:
    """Draw now; in the app, once its cells have run, so that its page has all sliders before the pictures."""
    if "VOILA_PREHEAT" not in os.environ:
        draw()
        return
    waiting.append(draw)
    asyncio.get_running_loop().call_later(SOON, _draw_first, len(waiting))


def _draw_first(count: int) -> None:
    """The first of those that wait, then the others, unless there are more than `count`: cells still run."""
    if waiting and len(waiting) <= count:
        draw = waiting.pop(0)
        asyncio.get_running_loop().call_soon(_draw_first, len(waiting))
        draw()


def play(draw: Callable[..., Figure], *fixed: Any, **controls: tuple[Any, Control]) -> Player:
    """Sliders over pictures that are all drawn beforehand, so that they move without a kernel.

    controls : as those of `sliders`; of many values some are left out (`player.thinned`)
    """
    return _player("-".join([draw.__name__, *controls]), draw, fixed, controls)


def _player(
    name: str,
    draw: Callable[..., Figure],
    fixed: Sequence[Any],
    controls: Mapping[str, tuple[Any, Control]],
    ahead: Mapping[str, Sequence[Any]] | None = None,
) -> Player:
    _check_arguments(draw, controls)
    values = {argument: offered(argument, *control) for argument, control in controls.items()}
    start = {argument: _text_of(values[argument], first) for argument, (first, _) in controls.items()}
    labels = {argument: _label(argument) for argument in controls}
    if headless():  # many frames
        _freeze()
    return Player(draw, fixed, name.replace("_", "-"), values, start, labels, ahead)


@functools.cache  # once: what is made later can still be freed
def _freeze() -> None:
    """Libraries are not looked through again for garbage, a tenth of the time of drawing."""
    gc.collect()
    gc.freeze()


class Shown(ipywidgets.VBox):
    """Widgets below each other; whatever page shows them gets PAGE too."""

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str] | None:
        if not headless():
            display(HTML(PAGE))
            soon(_freeze)
        return super()._repr_mimebundle_(**options)


class Panel(Shown):
    """Sliders by name, and the `picture` that follows them, beside them or below."""

    def __init__(self, sliders: Mapping[str, ipywidgets.Widget], height: str) -> None:
        self.sliders, self.picture = sliders, Picture(height)
        super().__init__([ipywidgets.VBox(list(sliders.values())), self.picture])
        self.add_class(EXPLORER)


class Picture(ipywidgets.VBox):
    """A place for a figure, and below it for its words. The place is `height` high until there is a figure.

    If drawing fails, the words are the error and the last picture is hidden; in a notebook that `reproduce`
    executes (`SLN_HEADLESS`), the error is raised.
    """

    def __init__(self, height: str = HEIGHT) -> None:
        self.image, self._shape = ipywidgets.HTML(layout={"visibility": "hidden"}).add_class(PICTURE), 0.0
        self.words = ipywidgets.HTML().add_class(WORDS)
        super().__init__([self.image, self.words], layout={"min_height": height})

    def show(self, draw: Callable[[], Figure]) -> None:
        """Show the figure of `draw()`; the picture is replaced, with no empty page between."""
        try:
            figure = draw()
            image = self._image(figure)
        except Exception as error:
            if headless():
                raise
            words = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.image.layout.visibility = "hidden"  # it shows other values
            self.words.value = f'<span class="sln-error">{html.escape(words)}</span>'
        else:
            self.image.value, self.image.layout.visibility = image, "visible"
            self.words.value, self.layout.min_height = html.escape(figure.alt()), "0"
        if gc.get_freeze_count():  # the figure's garbage, now that the page has it: later, a move would wait
            gc.collect()

    def _image(self, figure: Figure) -> str:
        """Inline SVG, or pixels if that is too large; the place never becomes lower: nothing moves."""
        width, height = figure.get_size_inches()
        self._shape, drawing = max(self._shape, height / width), svg(figure)
        if len(drawing) > style.LARGEST_SVG:
            figure.dpi *= 2
            pixels = base64.b64encode(figure._repr_png_()).decode()
            drawing = f'<img alt="" src="data:image/png;base64,{pixels}">'
        place = f"max-width: {100 * width:.0f}px; aspect-ratio: {1 / self._shape:.4f}"
        return f'<div role="img" aria-label="{html.escape(figure.alt())}" style="{place}">{drawing}</div>'


def offered(name: str, start: Any, control: Control) -> dict[str, Any]:
    """The values of a control by their texts. Raises InputError for a start that is none of them."""
    if isinstance(control, tuple):
        low, high, step = control
        require(low <= start <= high, f"slider {name} starts at {start}, outside its range {low}..{high}")
        steps = (round(low + number * step, 9) for number in range(int((high - low) / step + 1e-6) + 1))
        return _by_text(sorted({*steps, start}))
    named = control if isinstance(control, Mapping) else _by_text(control)
    require(
        any(value is start or value == start for value in named.values()),
        f"slider {name} starts at {start!r}, allowed are {', '.join(named)}",
    )
    return dict(named)


def _by_text(values: Sequence[Any]) -> dict[str, Any]:
    """Values by their texts: floats with as few digits, from four on, as keep them apart."""
    for digits in range(4, 10):
        form = functools.partial(np.format_float_positional, precision=digits, fractional=False, trim="-")
        named = {form(value) if isinstance(value, float) else f"{value}": value for value in values}
        if len(named) == len({*map(str, values)}):
            break
    return named


def _text_of(values: Mapping[str, Any], value: Any) -> str:
    return next(text for text, other in values.items() if other is value or other == value)


def _label(name: str) -> str:
    return SYMBOLS.get(name, name.replace("_", " "))


def slider(name: str, start: Any, control: Control) -> ipywidgets.Widget:
    """One labelled slider that reports when it is released. Raises InputError for a start it cannot show."""
    look = {"description": _label(name), "continuous_update": False}
    look |= {"style": {"description_width": "110px"}, "layout": {"width": "auto", "max_width": "560px"}}
    values = offered(name, start, control)
    if isinstance(control, tuple):
        low, high, step = control
        whole = all(isinstance(value, int) for value in (start, *control))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(value=start, min=low, max=high, step=step, **look)
    only = len(values) == 1  # such a slider cannot be moved, and looks like it
    return ipywidgets.SelectionSlider(value=start, options=list(values.items()), disabled=only, **look)


def _check_arguments(draw: Callable[..., Any], names: Iterable[str]) -> None:
    for name in names:
        choose(f"argument of {draw.__name__}", name, inspect.signature(draw).parameters)
