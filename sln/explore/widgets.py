"""Sliders for the notebooks, which pass their values to the function that made the figure above.

The picture and its words are widgets with a value, not captured output: nothing flickers, and a reloaded page
or a saved notebook shows them again.
"""

from __future__ import annotations

import html
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ipywidgets

from sln.plots import Figure
from sln.utils.errors import InputError, choose, require

# The values of a control: a range (low, high, step), a list of values, or name -> value.
Control = tuple[float, float, float] | Sequence[Any] | Mapping[str, Any]
HEIGHT, MAX_FRAMES = "420px", 12
EXPLORER, WORDS = "sln-explorer", "sln-words"  # CSS classes, by which the tests in a browser find them
SYMBOLS = {"sigma": "σ", "alpha": "α", "probability": "probability p", "num_classes": "classes C"}
SYMBOLS |= {"noise_mode": "kind of noise"}


def sliders(
    draw: Callable[..., Figure], *fixed: Any, height: str = HEIGHT, **controls: tuple[Any, Control]
) -> Panel:
    """A panel of sliders above the picture that `draw(*fixed, **values)` returns.

    controls : argument name = (start value, control); the start value must be one of the control's
    height : of the picture's place, fixed, so that nothing below moves during a redraw
    """
    _check_arguments(draw, controls)
    panel = Panel({name: slider(name, *control) for name, control in controls.items()}, height)

    def redraw() -> None:
        values = {name: control.value for name, control in panel.sliders.items()}
        panel.picture.show(lambda: draw(*fixed, **values))

    for control in panel.sliders.values():
        control.observe(lambda _: redraw(), "value")
    redraw()
    return panel


class Panel(ipywidgets.VBox):
    """Sliders by name, above the `picture` that follows them."""

    def __init__(self, sliders: Mapping[str, ipywidgets.Widget], height: str) -> None:
        self.sliders, self.picture = sliders, Picture(height)
        super().__init__([*sliders.values(), self.picture])
        self.add_class(EXPLORER)


class Picture(ipywidgets.VBox):
    """A place for a figure, and below it for its words.

    If drawing fails, the words are the error and the last picture is hidden; in a notebook that `reproduce`
    executes (`SLN_HEADLESS`), the error is raised.
    """

    def __init__(self, height: str = HEIGHT) -> None:
        place = {"align_self": "flex-start", "max_width": "100%"}  # its own size, or smaller in a narrow page
        self.image = ipywidgets.Image(format="png", layout={"visibility": "hidden"} | place)
        self.words = ipywidgets.HTML().add_class(WORDS)
        super().__init__([self.image, self.words], layout={"min_height": height})

    def show(self, draw: Callable[[], Figure]) -> None:
        """Show the figure of `draw()`; the picture is replaced, with no empty page between."""
        try:
            figure = draw()
            self.image.value = figure._repr_png_()
        except Exception as error:
            if headless():
                raise
            words = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.image.layout.visibility = "hidden"  # it shows other values
            self.words.value = f'<span style="color: #b00020">{html.escape(words)}</span>'
        else:
            self.image.layout.visibility = "visible"
            titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
            words = figure.words or " · ".join(title.replace("\n", ", ") for title in titles if title)
            self.words.value = html.escape(words)


def play(draw: Callable[..., Figure], *fixed: Any, **control: tuple[Any, Control]) -> ipywidgets.Widget:
    """A slider over pictures that are all drawn beforehand, so that it moves without a kernel.

    control : one argument name = (start value, values), at most MAX_FRAMES values
    """
    _check_arguments(draw, control)
    ((name, (start, values)),) = control.items()
    few = not isinstance(values, tuple) and len(values) <= MAX_FRAMES
    require(few, f"play over {name} takes a list of at most {MAX_FRAMES} values; explore.sliders takes more")
    chosen = slider(name, start, values)
    pictures = [Picture() for _ in chosen.options]
    for (_, value), picture in zip(chosen.options, pictures, strict=True):
        picture.show(lambda value=value: draw(*fixed, **{name: value}))
    stack = ipywidgets.Stack(pictures, selected_index=chosen.index)
    ipywidgets.jslink((chosen, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([chosen, stack]).add_class(EXPLORER)


def headless() -> bool:
    """Whether `reproduce` executes this notebook, without a person who watches."""
    return bool(os.environ.get("SLN_HEADLESS"))


def slider(name: str, start: Any, control: Control) -> ipywidgets.Widget:
    """One labelled slider that reports when it is released. Raises InputError for a start it cannot show."""
    look = {"description": SYMBOLS.get(name, name.replace("_", " ")), "continuous_update": False}
    look |= {"style": {"description_width": "110px"}, "layout": {"width": "min(560px, 98%)"}}
    if isinstance(control, tuple):
        low, high, step = control
        require(low <= start <= high, f"slider {name} starts at {start}, outside its range {low}..{high}")
        whole = all(isinstance(value, int) for value in (start, *control))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(value=start, min=low, max=high, step=step, **look)
    named = control if isinstance(control, Mapping) else {f"{value}": value for value in control}
    allowed = start in list(named.values())
    require(allowed, f"slider {name} starts at {start!r}, allowed are {', '.join(named)}")
    only = len(named) == 1  # such a slider cannot be moved, and looks like it
    return ipywidgets.SelectionSlider(value=start, options=list(named.items()), disabled=only, **look)


def _check_arguments(draw: Callable[..., Any], names: Iterable[str]) -> None:
    for name in names:
        choose(f"argument of {draw.__name__}", name, inspect.signature(draw).parameters)
