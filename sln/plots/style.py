"""The look that all figures share: a Figure without pyplot, panels, and the colours of methods.

Fonts and lines are in style.mplstyle. A method has the same colour and line style everywhere (the palette of
Okabe and Ito, for the colour-blind). Without pyplot nothing accumulates while a slider is dragged.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from sln.plots.vector import svg
from sln.study.statistics import LEVEL
from sln.utils.progress import headless

# on matplotlib's own defaults, whatever the user's matplotlibrc says
matplotlib.style.use(["default", Path(__file__).parent / "style.mplstyle"])

COLOURS = {"CE": "#D55E00", "CE-MO": "#E69F00", "SLN": "#56B4E9", "SLN-MO": "#0072B2", "SLN-MO-LC": "#009E73"}
COLOURS |= {"gradient noise": "#882255", "logit noise": "#8A8A2B"}  # the paper's variants 1 and 2
STYLES = dict.fromkeys(COLOURS, "-") | {"CE-MO": "--", "SLN-MO": "--", "SLN-MO-LC": "-."}
LARGEST_SVG = 150_000  # characters: what is more is shown as PNG
RIGHT, WRONG = "#009E73", "#CC79A7"  # a right and a wrong given label


class Figure(matplotlib.figure.Figure):
    """A Figure that shows itself in a notebook, without pyplot."""

    words = ""  # the finding in a sentence: with sliders, the line below the picture (`alt`)

    def __init__(self, *, layout: object = None, **options: object) -> None:
        # savefig would replace "none" by the style's layout
        places = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
        super().__init__(layout=places if layout == "none" else layout, **options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.canvas.print_png(buffer)  # the same bytes as savefig's, which draws everything twice
        return buffer.getvalue()

    def caption(self) -> str:
        """What it shows, in sentences: its label, which `Study.save` gives it, and its `words`."""
        return f"{self.get_label()} {self.words}".strip()

    def alt(self) -> str:
        """For readers who cannot see it: its caption, or else its titles, axes and legends."""
        if self.caption():
            return self.caption()
        titles = [self.get_suptitle(), *(ax.get_title() for ax in self.axes)]
        axes = [f"{ax.get_ylabel()} over {ax.get_xlabel()}" for ax in self.axes if ax.get_ylabel()]
        named = [name for ax in self.axes for name in ax.get_legend_handles_labels()[1]]
        parts = (" · ".join(_once(titles)), "; ".join(_once(axes)), ", ".join(_once(named)))
        return re.sub(
            r"[$\\{}]|,(?=,)", "", ": ".join(part for part in parts if part)
        )  # TeX is not to be read

    def _repr_mimebundle_(self, **_: object) -> tuple[dict, dict]:
        """A PNG with its alternative text; where `reproduce` runs, an SVG too, for its article."""
        bundle = {"image/png": self._repr_png_(), "text/plain": self.alt()}
        if headless() and len(drawing := svg(self)) <= LARGEST_SVG:
            bundle["image/svg+xml"] = drawing
        return bundle, {"image/png": {"alt": self.alt(), "caption": self.caption()}}


def _once(texts: Iterable[str]) -> list[str]:
    """Each text that is not empty, once and on one line."""
    return list(dict.fromkeys(text.strip().replace("\n", ", ") for text in texts if text.strip()))


def panels(
    rows: int, columns: int, *, size: tuple[float, float], shown: int = 0, **options: object
) -> tuple[Figure, np.ndarray]:
    """A new Figure of `size` inches, and its Axes (rows, columns); `options` go to `Figure.subplots`.

    shown : number of visible Axes, from the first; 0 is all
    """
    figure = Figure(figsize=size)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat[shown or axes.size :]:
        ax.set_visible(False)
    return figure, axes


def new_axes(size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """One Axes on a new Figure."""
    return panels(1, 1, size=size)[1][0, 0]


def look(method: str) -> dict[str, object]:
    """A method's colour, line style and label."""
    return {"color": COLOURS.get(method), "ls": STYLES.get(method, "-"), "label": method}


def band(ax: Axes, mean: pd.Series, std: pd.Series, alpha: float = 0.15, **line: object) -> None:
    """A line of `mean` over its index, and a band of ± `std` in its colour."""
    ax.plot(mean.index, mean, **line)
    ax.fill_between(mean.index, mean - std, mean + std, color=line["color"], alpha=alpha, lw=0)


def seeds_of(table: pd.DataFrame) -> str:
    """ "1 seed" or "5 seeds": the column of that name, or the different values of the column "seed"."""
    count = int(table["seeds"].max()) if "seeds" in table else table["seed"].nunique()
    return f"{count} seed{'s' * (count != 1)}"


def bars_of(table: pd.DataFrame) -> str:
    """ "5 seeds, bars: 95% t intervals", for a legend; of one seed there are no bars."""
    several = table["seeds"].max() > 1
    return seeds_of(table) + f", bars: {LEVEL:.0%} t intervals" * bool(several)


def reach(table: pd.DataFrame, column: str = "mean", prefix: str = "") -> np.ndarray:
    """(2, rows): how far the interval reaches to both sides of `column`, for `errorbar`."""
    return np.abs(table[[f"{prefix}low", f"{prefix}high"]].to_numpy() - table[[column]].to_numpy()).T


def dots(
    ax: Axes, table: pd.DataFrame, column: str, y: Sequence | pd.Series, prefix: str = "", **options: object
) -> None:
    """A dot per row at `column` and `y`, and its interval (`reach`); `options` go to `errorbar`."""
    options = {"fmt": "o", "color": COLOURS["SLN-MO"], "capsize": 3} | options
    ax.errorbar(table[column], y, xerr=reach(table, column, prefix), **options)


def differences(
    ax: Axes, table: pd.DataFrame, column: str, rows: pd.Series, title: str, xlabel: str, **options: object
) -> None:
    """`dots` of paired differences beside a line at 0, the first row on top."""
    ax.axvline(0, color="black", lw=1)
    dots(ax, table.iloc[::-1], column, rows.iloc[::-1], **options)
    ax.set(title=title, xlabel=xlabel)
    ax.margins(y=0.2)


def bars(table: pd.DataFrame, size: tuple[float, float], title: str) -> Axes:
    """Test accuracy in per cent, a bar per method with its interval."""
    ax = new_axes(size)
    colours = [COLOURS[method] for method in table["method"]]
    ax.bar(table["method"], table["mean"], yerr=reach(table), color=colours, capsize=3, width=0.6)
    ax.set(ylabel="test accuracy (%)", ylim=(0, 105), title=title)
    ax.grid(axis="x", visible=False)
    return ax


def stack_bars(
    ax: Axes, x: pd.Series, shares: pd.DataFrame, colours: Mapping[str, str], **options: object
) -> None:
    """The columns of `shares` on top of each other, each in its colour; `options` go to `bar`."""
    bottoms = shares.cumsum(axis=1).shift(axis=1, fill_value=0)
    for column, colour in colours.items():
        ax.bar(x, shares[column], bottom=bottoms[column], color=colour, label=column, **options)
    ax.grid(False)


def legend_of(ax: Axes, place: str, columns: int, title: str | None = None) -> None:
    """A legend of what `ax` shows, outside all panels of its figure: "upper", "lower" or "right"."""
    where = {"loc": f"outside {place} center", "ncols": columns}
    ax.figure.legend(*ax.get_legend_handles_labels(), title=title, **where)
