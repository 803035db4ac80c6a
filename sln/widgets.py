"""Sliders for the notebooks; the only file that imports ipywidgets.

An explorer never trains and never computes for longer than a blink: it hands a slider's value to the very
function that made the figure above it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
from IPython.display import display

from sln.errors import InputError, choose, require

# What a control may be: a range (low, high, step), or the values themselves, or name -> value.
Control = tuple[float, float, float] | Sequence[Any] | Mapping[str, Any]
HEIGHT = "420px"
SYMBOLS = {"sigma": "σ", "alpha": "α", "probability": "probability p", "num_classes": "classes C"}


def explore(
    draw: Callable[..., Any], *fixed: Any, height: str = HEIGHT, **controls: tuple[Any, Control]
) -> ipywidgets.Widget:
    """A panel of sliders above the picture that `draw(*fixed, **values)` returns.

    controls : argument name = (start value, control). The start value must be one that the control allows.
    height : of the picture's place, fixed, so that nothing below moves while it is redrawn
    An exception in `draw` shows in the panel; `reproduce` looks for it there and fails.
    """
    for name in controls:
        choose(f"argument of {draw.__name__}", name, inspect.signature(draw).parameters)
    sliders = {name: slider(name, start, control) for name, (start, control) in controls.items()}

    def redraw(**values: Any) -> None:
        display(draw(*fixed, **values))

    picture = ipywidgets.interactive_output(redraw, sliders)
    picture.layout = ipywidgets.Layout(min_height=height)
    return ipywidgets.VBox([*sliders.values(), picture])


def slider(name: str, start: Any, control: Control) -> ipywidgets.Widget:
    """One labelled slider that reports once, when it is let go.

    Raises InputError for a start value that it cannot show.
    """
    look = {
        "description": SYMBOLS.get(name, name.replace("_", " ")),
        "continuous_update": False,
        "style": {"description_width": "130px"},
        "layout": ipywidgets.Layout(width="min(560px, 95%)"),
    }
    if isinstance(control, tuple):
        low, high, step = control
        require(low <= start <= high, f"slider {name} starts at {start}, outside its range {low}..{high}")
        whole = all(isinstance(value, int) for value in (start, *control))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(value=start, min=low, max=high, step=step, **look)
    options = (
        list(control.items()) if isinstance(control, Mapping) else [(f"{value}", value) for value in control]
    )
    if start not in [value for _, value in options]:
        raise InputError(
            f"slider {name} starts at {start!r}, allowed are {', '.join(text for text, _ in options)}"
        )
    return ipywidgets.SelectionSlider(value=start, options=options, **look)
