"""Sliders for the notebooks.

A panel of sliders never trains and never computes for long: it passes a slider's value to the function that
made the figure above it. Its picture and its words are widgets with a value, not captured output: nothing
flickers, and a reloaded page or a saved notebook shows them again.
"""

from __future__ import annotations

import functools
import html
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from sln.plots import Figure
from sln.utils.errors import InputError, choose, require

# The values of a control: a range (low, high, step), a list of values, or name -> value.
Control = tuple[float, float, float] | Sequence[Any] | Mapping[str, Any]
HEIGHT = "420px"
MAX_FRAMES = 12
EXPLORER, WORDS = "sln-explorer", "sln-words"  # CSS classes, by which the tests in a browser find them
SYMBOLS = {
    "sigma": "σ",
    "alpha": "α",
    "probability": "probability p",
    "num_classes": "classes C",
    "noise_mode": "kind of noise",
}


def sliders(
    draw: Callable[..., Figure], *fixed: Any, height: str = HEIGHT, **controls: tuple[Any, Control]
) -> Sliders:
    """A panel of sliders above the picture that `draw(*fixed, **values)` returns.

    controls : argument name = (start value, control); the start value must be one of the control's
    height : of the picture's place, fixed, so that nothing below moves during a redraw
    """
    return Sliders(draw, fixed, controls, height)


class Sliders(ipywidgets.VBox):
    """The panel of `sliders`: its controls by name, and the `picture` that follows them."""

    def __init__(
        self,
        draw: Callable[..., Figure],
        fixed: Sequence[Any],
        controls: Mapping[str, tuple[Any, Control]],
        height: str,
    ) -> None:
        _check_arguments(draw, controls)
        self.sliders = {name: slider(name, start, control) for name, (start, control) in controls.items()}
        self.picture = Picture(height)
        self._draw = functools.partial(draw, *fixed)
        super().__init__([*self.sliders.values(), self.picture])
        self.add_class(EXPLORER)
        for control in self.sliders.values():
            control.observe(lambda _: self.redraw(), "value")
        self.redraw()

    def redraw(self) -> None:
        """Draw for the sliders' present values."""
        values = {name: control.value for name, control in self.sliders.items()}
        self.picture.show(functools.partial(self._draw, **values))


class Picture(ipywidgets.VBox):
    """A place for a figure, and below it for its words.

    If drawing fails, the words are the error and the last picture is hidden; in a notebook that `reproduce`
    executes (`SLN_HEADLESS`), the error is raised.
    """

    def __init__(self, height: str = HEIGHT) -> None:
        place = {"align_self": "flex-start", "max_width": "100%"}  # its own size, or smaller in a narrow page
        self.image = ipywidgets.Image(format="png", layout={"visibility": "hidden"} | place)
        self.words = ipywidgets.HTML().add_class(WORDS)
        super().__init__([self.image, self.words], layout=ipywidgets.Layout(min_height=height))

    def show(self, draw: Callable[[], Figure]) -> None:
        """Show the figure of `draw()`; the picture is replaced, with no empty page between."""
        try:
            figure = draw()
            self.image.value = figure._repr_png_()
        except Exception as error:
            if headless():
                raise
            self.fail(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
            return
        self.image.layout.visibility = "visible"
        self.show_words(describe(figure))

    def show_words(self, words: str) -> None:
        """Words below the picture."""
        self.words.value = html.escape(words)

    def fail(self, words: str) -> None:
        """An error in the place of the words; the picture is hidden because it shows other values."""
        self.image.layout.visibility = "hidden"
        self.words.value = f'<span style="color: #b00020">{html.escape(words)}</span>'


def describe(figure: Figure) -> str:
    """A figure in words: its own, or its titles."""
    heading = figure.get_suptitle() or ""
    titles = [heading, *(ax.get_title() for ax in figure.axes)]
    return figure.words or " · ".join(title.replace("\n", ", ") for title in titles if title)


def play(draw: Callable[..., Figure], *fixed: Any, **control: tuple[Any, Control]) -> ipywidgets.Widget:
    """A slider over pictures that are all drawn beforehand, so that it needs no kernel.

    control : one argument name = (start value, values), at most MAX_FRAMES values

    It also moves in an executed notebook that is opened again (and trusted).
    """
    _check_arguments(draw, control)
    ((name, (start, values)),) = control.items()
    require(
        not isinstance(values, tuple) and len(values) <= MAX_FRAMES,
        f"play over {name} takes a list of at most {MAX_FRAMES} values; explore.sliders takes more",
    )
    chosen = slider(name, start, values)
    pictures = [Picture() for _ in values]
    for (_, value), picture in zip(options_of(values), pictures, strict=True):
        picture.show(functools.partial(draw, *fixed, **{name: value}))
    stack = ipywidgets.Stack(pictures, selected_index=chosen.index)
    ipywidgets.jslink((chosen, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([chosen, stack]).add_class(EXPLORER)


def headless() -> bool:
    """Whether `reproduce` executes this notebook, without a person who watches."""
    return bool(os.environ.get("SLN_HEADLESS"))


def slider(name: str, start: Any, control: Control) -> ipywidgets.Widget:
    """One labelled slider that reports once, when it is released.

    Raises InputError for a start value that it cannot show.
    """
    look = {
        "description": SYMBOLS.get(name, name.replace("_", " ")),
        "continuous_update": False,
        "style": {"description_width": "110px"},
        "layout": ipywidgets.Layout(width="min(560px, 98%)"),
    }
    if isinstance(control, tuple):
        low, high, step = control
        require(low <= start <= high, f"slider {name} starts at {start}, outside its range {low}..{high}")
        whole = all(isinstance(value, int) for value in (start, *control))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(value=start, min=low, max=high, step=step, **look)
    options = options_of(control)
    texts = ", ".join(text for text, _ in options)
    require(
        start in [value for _, value in options], f"slider {name} starts at {start!r}, allowed are {texts}"
    )
    # a slider of one value cannot be moved, and looks like it
    return ipywidgets.SelectionSlider(value=start, options=options, disabled=len(options) == 1, **look)


def options_of(control: Sequence[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The pairs (text, value) of a slider over values, or over name -> value."""
    return list(control.items()) if isinstance(control, Mapping) else [(f"{v}", v) for v in control]


def _check_arguments(draw: Callable[..., Any], names: Mapping[str, Any]) -> None:
    for name in names:
        choose(f"argument of {draw.__name__}", name, inspect.signature(draw).parameters)
