"""Pictures of loss landscapes and of sharpness, from the tables of `analysis.landscape` and `sharpness`.

Far from a minimum the loss spans decades, so there colours are logarithmic; ticks are losses, not logarithms.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D

from sln.analysis.landscape import PAPER
from sln.analysis.sharpness import MEASURES
from sln.plots.style import COLOURS, Figure, legend_of, look, new_axes, panels, seeds_of

# The labels that a loss surface can be over: columns of `landscape.surface`.
LOSSES = {
    "given": "training images, given labels",
    "true": "training images, true labels",
    "test": "test images",
}
AZIMUTH, ELEVATION = -60, 22  # degrees: the default point of view
DRAWN = 21  # largest number of lines per side of a surface, so that a slider is quick

Tables = Mapping[str, pd.DataFrame]


def round_losses(low: float, high: float, most: int = 6) -> np.ndarray:
    """Ticks for a logarithmic axis: 1, 2, 5 times powers of ten in the range, or fewer of them."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        ticks = np.sort(np.outer(10.0**decades, mantissas).ravel())
        ticks = ticks[(ticks >= 0.999 * low) & (ticks <= 1.001 * high)]
        if len(ticks) <= most:
            break
    return ticks if len(ticks) >= 2 else np.geomspace(low, high, 3)


def text_of(losses: np.ndarray) -> list[str]:
    """Tick labels with the fewest digits, at least two, that keep the losses apart: 0.05, 1, 20."""
    for digits in (2, 3, 4):
        texts = [f"{loss:.{digits}g}" if loss < 10**digits else f"{loss:.0f}" for loss in losses]
        if len(set(texts)) == len(texts):
            break
    return texts


def loss_ticks(axis: Axis | Colorbar, ticks: np.ndarray | None = None) -> None:
    """Losses at these ticks; by default at those of a logarithmic axis."""
    ticks = round_losses(*axis.get_view_interval()) if ticks is None else ticks
    axis.set_ticks(ticks, labels=text_of(ticks))
    axis.minorticks_off()


def lines(tables: Tables) -> Figure:
    """Loss along one direction on given labels, true labels and test images, by method (`landscape.line`)."""
    looks = {method: look(method) for method in tables}
    axes = _along(tables, "x", looks, (10.2, 3.5), "step along the direction (filter norms)")
    axes[0].legend(loc="lower right")
    return axes[0].figure


def _along(tables: Tables, x: str, looks: Mapping, size: tuple[float, float], xlabel: str) -> np.ndarray:
    """Panels of the LOSSES over the column `x`; `looks` by the key of a table."""
    axes = panels(1, 3, size=size, sharex=True, sharey=True)[1][0]
    for (column, title), ax in zip(LOSSES.items(), axes, strict=True):
        for key, table in tables.items():
            ax.plot(table[x], table[column], **looks[key])
        ax.set(xlabel=xlabel, title=title, yscale="log")
    axes[0].set_ylabel("cross-entropy")
    loss_ticks(axes[0].yaxis)
    return axes


def between(tables: Tables, start: str, end: str) -> Figure:
    """Loss on the straight line between two minima, one panel per kind of labels (`landscape.between`).

    tables : by BatchNorm's statistics, and the references (`landscape.between_methods`); start, end : methods
        at t = 0 and t = 1
    """
    name = f"{start} to {end}"
    looks = {"recomputed": {"color": "black", "label": name}}
    looks["interpolated"] = {"color": "#999999", "ls": "--", "label": f"{name}, statistics interpolated"}
    for method in (start, end):
        looks[method] = look(method) | {"ls": ":", "label": f"{method} to {method} of another seed"}
    axes = _along(tables, "t", looks, (10.2, 3.9), f"t: {start} at 0, {end} at 1")
    for ax in axes:
        for place, method in enumerate((start, end)):
            colour = COLOURS.get(method)
            ax.axvline(place, color=colour, lw=1.2, zorder=0.9)
            ax.text(place, 1.0, f" {method}", color=colour, va="top", transform=ax.get_xaxis_transform())
    legend_of(axes[0], "lower", 4)
    return axes[0].figure


def rises(table: pd.DataFrame) -> Figure:
    """The mean rise of the loss on given labels over the distance (`landscape.rises`).

    One line per method, pair and BatchNorm's statistics: solid if these are kept, dashed if measured again.
    Where the loss falls the logarithmic axis has no line.
    """
    ax = new_axes((6.4, 4.2))
    styles = {"centre": ("-", ", kept"), "recomputed": ("--", ", measured again")}
    for (method, pair, statistics), part in table.groupby(["method", "pair", "statistics"], sort=False):
        style, how = styles[statistics]
        name = method + how if table["statistics"].nunique() > 1 else method
        line = {"color": COLOURS.get(method), "ls": style, "lw": 1.2}
        line |= {"label": name} if pair == table["pair"].min() else {}
        ax.plot(part["r"], part["given"].where(part["given"] > 0), **line)
    ax.set(yscale="log", xlim=(0, None), xlabel="distance from the minimum (filter norms)")
    ax.set_ylabel(f"mean rise of the loss,\n{LOSSES['given']}")
    loss_ticks(ax.yaxis)
    legend_of(ax, "right", 1)
    return ax.figure


def within(tables: Tables, radius: float | None) -> Tables:
    """The rows of computed surfaces with |x|, |y| <= radius; by default all."""
    limit = np.inf if radius is None else radius + 1e-9  # a step may differ from it in the last bits
    return {name: table[table[["x", "y"]].abs().max(axis=1) <= limit] for name, table in tables.items()}


def radii(tables: Tables) -> list[float]:
    """The radii that a slider offers for computed surfaces: their steps, from the second on."""
    steps = sorted({round(abs(x), 12) for table in tables.values() for x in table["x"]} - {0})
    return steps[1:] or steps


def _describe(tables: Tables, labels: str, radius: float | None) -> str:
    """The lowest and highest loss of each surface up to `radius`; a sentence with "the" before it."""
    losses = {name: table[labels] for name, table in tables.items()}
    ranges = (f"{loss.min():.2f} to {loss.max():.2f} for {name}" for name, loss in losses.items())
    far = "" if radius is None else f" up to {radius:.2g} away"
    return f"loss{far} is {', '.join(ranges)} ({LOSSES[labels]})."


def contours(tables: Tables, labels: str = "given", radius: float | None = None) -> Figure:
    """Surfaces from above: the rise above the centre, on one logarithmic scale, with the same level lines.

    labels : one of LOSSES; radius : show only |x|, |y| <= radius, in the colours of that part
    Between the points of the grid the logarithm of the loss is interpolated by cubic splines. Rises below a
    ten-thousandth of the highest, falls too, have the darkest colour.
    """
    tables = within(tables, radius)
    columns = 3 if len(tables) > 4 else 2
    rows = -(-len(tables) // columns)
    size = (8.2, (7.8 / columns + 0.5) * rows + 1.2)
    figure, axes = panels(rows, columns, size=size, shown=len(tables), sharex=True, sharey=True)
    fine = {name: _above_the_centre(table, labels) for name, table in tables.items()}
    high = max(1e-6, *(rise.max() for _, rise in fine.values()))
    low = 1e-4 * high
    levels = 10.0 ** np.arange(np.ceil(np.log10(low)), np.log10(high))
    colours = {"cmap": "cividis", "norm": LogNorm(low, high), "origin": "lower", "interpolation": "bilinear"}
    for (name, (steps, rise)), ax in zip(fine.items(), axes.flat, strict=False):
        shown = rise.clip(1.0001e-4 * high)
        filled = ax.imshow(shown, extent=(steps[0], steps[-1]) * 2, **colours)
        if shown.max() > levels[0]:
            lines = ax.contour(steps, steps, shown, levels, colors="white", linewidths=0.8)
            ax.clabel(lines, fmt="%g", fontsize=8)
        ax.plot(0, 0, "+", color="white", ms=9, mew=2)
        centre = tables[name].loc[tables[name][["x", "y"]].abs().sum(axis=1).idxmin(), labels]
        ax.set(title=f"{name}\n{centre:.2f} at the centre")
        ax.set(xlabel="direction 1", ylabel="direction 2")
        ax.label_outer()
        ax.grid(False)
    place = {"ax": axes, "location": "bottom", "shrink": 0.7, "aspect": 40}
    place |= {"extend": "min", "label": f"rise above the centre, {LOSSES[labels]}"}
    loss_ticks(figure.colorbar(filled, **place), levels)
    figure.words = f"The {_describe(tables, labels, radius)}"
    return figure


def _above_the_centre(table: pd.DataFrame, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (81,), and the rise above the centre (81, 81) there, rows by the second direction."""
    grid = np.log(table.pivot(index="y", columns="x", values=labels))
    degree = min(3, len(grid) - 1)
    spline = scipy.interpolate.RectBivariateSpline(grid.index, grid.columns, grid, kx=degree, ky=degree)
    steps = np.linspace(grid.index.min(), grid.index.max(), 81)
    return steps, np.exp(spline(steps, steps)) - np.exp(spline(0, 0))


def surface_3d(
    tables: Tables,
    labels: str = "given",
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
    radius: float | None = None,
) -> Figure:
    """Loss surfaces in 3-D: the paper's figure of landscapes.

    As there, the z axes are linear and span the same height, each around its own surface, so that steepness
    compares; each panel has its own colour bar. Titles have the lowest and highest loss, and the paper's.

    labels : one of LOSSES; azimuth, elevation : degrees, the point of view
    radius : show only |x|, |y| <= radius; the z axes are then those of this part
    """
    tables = within(tables, radius)
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    # no layout engine handles the size of a 3-D axis
    figure = Figure(figsize=(4.1 * columns, 3.9 * rows + 0.3), layout="none")
    bottom = 0.3 / (3.9 * rows + 0.3)
    figure.subplots_adjust(0.01, bottom + 0.12 / rows, 0.95, 1 - 0.11 / rows, wspace=0.06, hspace=0.28)
    span = max(1e-3, *(np.ptp(table[labels]) for table in tables.values()))
    axes = [figure.add_subplot(rows, columns, place + 1, projection="3d") for place in range(len(tables))]
    for letter, (name, table), ax in zip("abcdefghi", tables.items(), axes, strict=False):
        grid = table.pivot(index="y", columns="x", values=labels)
        low, high = grid.min(axis=None), grid.max(axis=None)
        own = Normalize(low, max(high, low + 1e-6))
        x, y = np.meshgrid(grid.columns, grid.index)
        mesh = {"rcount": DRAWN, "ccount": DRAWN, "linewidth": 0.25, "edgecolor": (1, 1, 1, 0.35)}
        mesh |= {"rasterized": True}  # an image in a page: as lines, thousands of them
        ax.plot_surface(x, y, grid.to_numpy(), cmap="viridis", norm=own, **mesh)
        floor = max(0.0, (low + high - span) / 2)
        _look_at(ax, (floor, floor + span), azimuth, elevation)
        equation, lowest, highest = PAPER.get(name, ("", 0, 0))
        title = f"({letter}) {name}{equation and f' ({equation})'}\n{low:.2f} to {high:.2f}"
        if highest and labels == "given" and max(abs(grid.columns)) <= 0.1001:  # where the losses compare
            title += f"; paper {lowest:g} to {highest:g}"
        ax.set_title(title, y=1.0)
        _own_bar(figure, ax, own)
    figure.text(0.5, 0.006, f"cross-entropy, {LOSSES[labels]}", ha="center", va="bottom", fontsize=10)
    figure.words = f"Seen from {azimuth:g}°, {elevation:g}° up, the {_describe(tables, labels, radius)}"
    return figure


def _look_at(ax: Axes3D, heights: tuple[float, float], azimuth: float, elevation: float) -> None:
    """The same box and view for every panel."""
    ax.set_zlim(*heights)
    ax.set_box_aspect((1, 1, 0.85), zoom=0.97)
    ax.tick_params(labelsize=9, pad=-1)
    ax.set_xlabel("direction 1", fontsize=9, labelpad=-3)
    ax.set_ylabel("direction 2", fontsize=9, labelpad=-3)
    for name, axis in {"x": ax.xaxis, "y": ax.yaxis, "z": ax.zaxis}.items():
        ax.locator_params(axis=name, nbins=5 if name == "z" else 3)
        axis.set_pane_color((0.5, 0.5, 0.5, 0.08))  # 0.96 on white
    ax.view_init(elev=elevation, azim=azimuth)


def _own_bar(figure: Figure, ax: Axes3D, norm: Normalize) -> None:
    """A colour bar below a panel, over the losses of that panel's surface."""
    box = ax.get_position()
    place = figure.add_axes((box.x0 + 0.2 * box.width, box.y0 - 0.022, 0.6 * box.width, 0.014))
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), cax=place, orientation="horizontal")
    ticks = MaxNLocator(3).tick_values(norm.vmin, norm.vmax)
    ticks = ticks[(ticks >= norm.vmin) & (ticks <= norm.vmax)]
    loss_ticks(bar, ticks if len(ticks) > 1 else np.array([norm.vmin, norm.vmax]))
    bar.ax.tick_params(labelsize=9)


def ranges(table: pd.DataFrame) -> Figure:
    """Lowest to highest loss of each panel, ours and the paper's (`landscape.ranges`)."""
    ax, places = new_axes((7.4, 2.8)), -np.arange(len(table))
    for shift, prefix, name, alpha in ((0.17, "", "ours", 1.0), (-0.17, "paper_", "paper’s picture", 0.4)):
        low, high = table[f"{prefix}lowest"], table[f"{prefix}highest"]
        colours = [COLOURS.get(method) for method in table["method"]]
        ax.barh(places + shift, high - low, 0.3, left=low, color=colours, alpha=alpha)
        for place, end in zip(places + shift, high, strict=True):
            ax.text(end, place, f" {name}", va="center", fontsize=9)
    ax.set_yticks(places, "(" + table["panel"] + ") " + table["method"])
    ax.set(xlabel="lowest to highest cross-entropy within ±0.1, training images, given labels")
    ax.set(xlim=(0, None), xmargin=0.15)
    ax.grid(axis="y", visible=False)
    return ax.figure


def sharpness(summary: pd.DataFrame) -> Figure:
    """Every measure relative to CE's mean, ± standard deviation over seeds (`sharpness.summary`).

    The scale-free measure leads; below the line are those that depend on the weights' scale; last |theta|^2.
    """
    measures, methods = summary["measure"].unique(), summary["method"].unique()
    ax, middle = new_axes((8.2, 0.62 * len(measures) + 1.3)), -np.arange(len(measures))
    for method, offset in zip(methods, np.linspace(0.33, -0.33, len(methods)), strict=True):
        part = summary[summary["method"] == method].set_index("measure").loc[measures]
        style = {"color": COLOURS.get(method), "fmt": "o", "capsize": 2, "lw": 1.2, "label": method}
        style |= {"mfc": "white"} if method.endswith("-MO") else {}
        ax.errorbar(part["relative"], middle + offset, xerr=part["relative_std"], **style)
    for place, text in ((0, "scale-free"), (1, "depend on the weights’ scale"), (6, "not a sharpness")):
        ax.axhline(0.5 - place, color="black", lw=0.8, zorder=0.9)
        ax.text(1.01, 0.42 - place, text, transform=ax.get_yaxis_transform(), va="top", fontsize=9)
    ax.set_yticks(middle, [MEASURES.get(name, "squared length of the weights, |θ|²") for name in measures])
    ax.grid(axis="y", visible=False)
    if summary["relative"].min() > 0:
        ax.set_xscale("log", nonpositive="clip")
        ax.set_xlim(left=summary["relative"].min() / 2)
    else:  # around a point that is no minimum, a loss can fall
        ax.set_xscale("symlog", linthresh=0.01)
    ax.set_xlabel("ratio to the mean of CE: further left is flatter")
    ax.axvline(1, color="black", lw=1, zorder=0.9)
    legend_of(ax, "upper", len(methods), f"{seeds_of(summary)}, bars: ± one standard deviation")
    return ax.figure
