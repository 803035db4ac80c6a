"""The look that all figures share: a Figure without pyplot, panels, and the colours of methods.

Fonts and lines are in style.mplstyle. A method has the same colour and line style everywhere (the palette
of Okabe and Ito, for the colour-blind). Figures are made without pyplot, so nothing accumulates while a
slider is dragged.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

matplotlib.style.use(Path(__file__).parent / "style.mplstyle")

COLOURS = {"CE": "#D55E00", "CE-MO": "#E69F00", "SLN": "#56B4E9", "SLN-MO": "#0072B2", "SLN-MO-LC": "#009E73"}
COLOURS |= {"gradient noise": "#882255", "logit noise": "#8A8A2B"}  # the paper's variants 1 and 2
STYLES = {"CE": "-", "CE-MO": "--", "SLN": "-", "SLN-MO": "--", "SLN-MO-LC": "-."}
STYLES |= {"gradient noise": "-", "logit noise": "-"}
RIGHT, WRONG = "#009E73", "#CC79A7"  # a right and a wrong given label


class Figure(matplotlib.figure.Figure):
    """A Figure that shows itself in a notebook, without pyplot.

    words : what it shows, for the line below it in an explorer; empty: its titles
    """

    words = ""

    def __init__(self, *args, **kwargs) -> None:  # noqa: ANN002, ANN003
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.canvas.print_png(buffer)  # the same bytes as savefig's, which draws everything twice
        return buffer.getvalue()


def panels(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (6.4, 4.0), **options: object
) -> tuple[Figure, np.ndarray]:
    """A new Figure of `size` inches, and its Axes (rows, columns); `options` go to `Figure.subplots`."""
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def new_axes(size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """One Axes on a new Figure."""
    return panels(size=size)[1][0, 0]


def look(method: str) -> dict[str, object]:
    """A method's colour, line style and label."""
    return {"color": COLOURS.get(method), "ls": STYLES.get(method, "-"), "label": method}


def band(ax: Axes, mean: pd.Series, std: pd.Series, alpha: float = 0.15, **line: object) -> None:
    """A line of `mean` over its index, and a band of ± `std` in its colour."""
    ax.plot(mean.index, mean, **line)
    ax.fill_between(mean.index, mean - std, mean + std, color=line["color"], alpha=alpha, lw=0)


def reach(table: pd.DataFrame, column: str = "mean", ends: tuple[str, str] = ("low", "high")) -> np.ndarray:
    """(2, rows): how far the interval reaches to both sides of `column`, for `errorbar`."""
    return np.abs(table[list(ends)].to_numpy() - table[[column]].to_numpy()).T


def legend_of(ax: Axes, place: str, columns: int) -> None:
    """A legend of what `ax` shows, outside all panels of its figure: "upper" or "lower"."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc=f"outside {place} center", ncols=columns)
