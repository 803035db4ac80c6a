"""Pictures of loss landscapes and of sharpness, from the tables of `analysis.landscape` and `sharpness`.

The loss spans decades, so heights and colours are logarithmic; ticks are losses, not logarithms.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from mpl_toolkits.mplot3d import Axes3D

from sln.analysis.sharpness import MEASURES
from sln.plots.style import COLOURS, Figure, legend_of, look, panels

# The labels that a loss surface can be over: columns of `landscape.surface`.
LOSSES = {
    "given": "training images, given labels",
    "true": "training images, true labels",
    "test": "test images",
}
AZIMUTH, ELEVATION = -60, 22  # degrees: the default point of view
DRAWN = 21  # largest number of lines per side of a surface, so that a slider is quick


def lines(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss along one direction on given labels, true labels and test images, by method (`landscape.line`)."""
    figure, axes = panels(1, 3, size=(10.2, 3.5), sharex=True, sharey=True)
    for (column, title), ax in zip(LOSSES.items(), axes.flat, strict=True):
        for method, table in tables.items():
            ax.plot(table["x"], table[column], **look(method))
        ax.set(xlabel="step along the direction (filter norms)", ylabel="cross-entropy")
        ax.set(title=title, yscale="log")
    loss_ticks(axes[0, 0])
    for ax in axes.flat:
        ax.label_outer()
    axes[0, 0].legend(loc="lower right")
    return figure


def within(tables: Mapping[str, pd.DataFrame], radius: float) -> dict[str, pd.DataFrame]:
    """The rows of computed surfaces with |x|, |y| <= radius."""
    limit = radius + 1e-9  # a grid's step may differ from the radius in the last bits
    return {
        name: table[(table["x"].abs() <= limit) & (table["y"].abs() <= limit)]
        for name, table in tables.items()
    }


def common_range(tables: Mapping[str, pd.DataFrame], column: str) -> tuple[float, float]:
    """The smallest and largest loss of all surfaces, made unequal for a scale between them."""
    low = min(table[column].min() for table in tables.values())
    high = max(table[column].max() for table in tables.values())
    return low, max(high, 1.001 * low)


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


def loss_ticks(ax: Axes) -> None:
    """Losses at the ticks of a logarithmic axis."""
    ticks = round_losses(*ax.get_ylim())
    ax.set_yticks(ticks, labels=text_of(ticks))
    ax.minorticks_off()


def radii(tables: Mapping[str, pd.DataFrame]) -> list[float]:
    """The radii that a slider offers for computed surfaces: their steps, from the second on."""
    steps = sorted({round(abs(x), 12) for table in tables.values() for x in table["x"]} - {0})
    return steps[1:] or steps


def contours(
    tables: Mapping[str, pd.DataFrame],
    labels: str = "given",
    radius: float | None = None,
    columns: int | None = None,
) -> Figure:
    """Loss surfaces on one logarithmic colour scale; each has its own six level lines.

    The colours compare the surfaces, the lines show the shape of one that is flat (`landscape.surface`).
    labels : one of LOSSES
    radius : show only |x|, |y| <= radius; the colours are then those of that part
    columns : panels per row, by default all
    """
    words = _describe(tables, labels, radius)
    tables = tables if radius is None else within(tables, radius)
    columns = columns or len(tables)
    rows = -(-len(tables) // columns)
    size = (3.1 * columns + 0.9, 3.3 * rows + 0.3)
    figure, axes = panels(rows, columns, size=size, sharex=True, sharey=True)
    low, high = common_range(tables, labels)
    for ax in axes.flat[len(tables) :]:
        ax.set_visible(False)
    for (name, table), ax in zip(tables.items(), axes.flat, strict=False):
        grid = table.pivot(index="y", columns="x", values=labels)
        levels, colours = np.geomspace(low, high, 32), {"norm": LogNorm(low, high), "cmap": "cividis"}
        filled = ax.contourf(grid.columns, grid.index, grid, levels=levels, **colours)
        own = np.geomspace(grid.min(axis=None), grid.max(axis=None), 8)[1:-1]
        if own[-1] > own[0]:
            white = {"colors": "white", "linewidths": 0.8}
            ax.clabel(
                ax.contour(grid.columns, grid.index, grid, own, **white), own[2:], fmt="%.2g", fontsize=7
            )
        ax.plot(0, 0, "+", color="white", ms=9, mew=2)
        at_centre = f"\n{grid.loc[0, 0]:.2f} at the centre" if 0 in grid.index else ""
        ax.set(title=f"{name}{at_centre}", aspect="equal")
        ax.set(xlabel="direction 1", ylabel="direction 2 (filter norms)")
        ax.label_outer()
        ax.grid(False)
    _bar_ticks(figure.colorbar(filled, ax=axes, label=f"cross-entropy, {LOSSES[labels]}"), low, high)
    figure.words = words
    return figure


def _describe(tables: Mapping[str, pd.DataFrame], labels: str, radius: float | None) -> str:
    """The lowest and highest loss of each surface up to `radius`."""
    shown = tables if radius is None else within(tables, radius)
    ranges = [
        f"{name} {table[labels].min():.2g} to {table[labels].max():.2g}" for name, table in shown.items()
    ]
    far = "" if radius is None else f" up to {radius:g} away"
    return f"loss on {LOSSES[labels]}{far}: {', '.join(ranges)}"


def _bar_ticks(bar: Colorbar, low: float, high: float, most: int = 6) -> None:
    """Losses at the ticks of a colour bar."""
    ticks = round_losses(low, high, most)
    bar.set_ticks(ticks, labels=text_of(ticks))
    bar.minorticks_off()


def surface_3d(
    tables: Mapping[str, pd.DataFrame],
    labels: str = "given",
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
    radius: float | None = None,
) -> Figure:
    """Loss surfaces in 3-D side by side: one logarithmic z axis for all, and a colour bar for each.

    The paper's figure of landscapes. As there, each panel has its own colours, which show its shape; heights
    compare the panels.

    labels : one of LOSSES
    azimuth, elevation : degrees, the point of view
    radius : show only |x|, |y| <= radius; the z axis is then that of this part
    """
    words = f"from {azimuth:g}°, {elevation:g}° up; {_describe(tables, labels, radius)}"
    tables = tables if radius is None else within(tables, radius)
    # no layout engine handles the size of a 3-D axis
    figure = Figure(figsize=(3.0 * len(tables) + 0.2, 3.7), layout="none")
    axes = figure.subplots(1, len(tables), squeeze=False, subplot_kw={"projection": "3d"})
    edge = 0.12 / len(tables)
    figure.subplots_adjust(left=edge / 2, right=1 - edge, bottom=0.2, top=0.95, wspace=0.06)
    low, high = common_range(tables, labels)
    for (name, table), ax in zip(tables.items(), axes.flat, strict=True):
        grid = table.pivot(index="y", columns="x", values=labels)
        own = LogNorm(*common_range({name: table}, labels))
        x, y = np.meshgrid(grid.columns, grid.index)
        colours = {"cmap": "viridis", "vmin": np.log10(own.vmin), "vmax": np.log10(own.vmax)}
        mesh = {"rcount": DRAWN, "ccount": DRAWN, "linewidth": 0.25, "edgecolor": (1, 1, 1, 0.35)}
        ax.plot_surface(x, y, np.log10(grid.to_numpy()), **colours, **mesh)
        _look_at(ax, (low, high), azimuth, elevation)
        ax.set_title(name, y=0.98)
        _own_bar(figure, ax, own)
    text = f"cross-entropy, {LOSSES[labels]} (logarithmic)"
    figure.text(0.5, 0.01, text, ha="center", va="bottom", fontsize=9)
    figure.words = words
    return figure


def _look_at(ax: Axes3D, heights: tuple[float, float], azimuth: float, elevation: float) -> None:
    """The same box, ticks and view for every panel."""
    ticks = round_losses(*heights)
    ax.set_zlim(*np.log10(heights))
    ax.set_zticks(np.log10(ticks), labels=text_of(ticks))
    ax.set_box_aspect((1, 1, 0.85), zoom=0.95)
    ax.tick_params(labelsize=7.5, pad=-1)
    ax.locator_params(axis="x", nbins=3)
    ax.locator_params(axis="y", nbins=3)
    ax.set_xlabel("direction 1", fontsize=8, labelpad=-4)
    ax.set_ylabel("direction 2", fontsize=8, labelpad=-4)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((0.96, 0.96, 0.96, 1))
    ax.view_init(elev=elevation, azim=azimuth)


def _own_bar(figure: Figure, ax: Axes3D, norm: LogNorm) -> None:
    """A colour bar below a panel, over the losses of that panel's surface."""
    box = ax.get_position()
    place = figure.add_axes((box.x0 + 0.2 * box.width, 0.135, 0.6 * box.width, 0.026))
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), cax=place, orientation="horizontal")
    _bar_ticks(bar, norm.vmin, norm.vmax, most=5)
    bar.ax.tick_params(labelsize=7.5)


def between(tables: Mapping[str, pd.DataFrame], start: str, end: str) -> Figure:
    """Loss on the straight line between two minima, one panel per kind of labels (`landscape.between`).

    tables : by BatchNorm's statistics (`landscape.between_methods`); start, end : methods at t = 0 and t = 1
    """
    figure, axes = panels(1, 3, size=(10.2, 3.5), sharex=True, sharey=True)
    styles = {"recomputed": ("black", "-"), "interpolated": ("#999999", "--")}
    for (column, title), ax in zip(LOSSES.items(), axes.flat, strict=True):
        for statistics, table in tables.items():
            colour, style = styles[statistics]
            label = f"BatchNorm statistics {statistics}"
            ax.plot(table["t"], table[column], color=colour, ls=style, label=label)
        for place, method in ((0, start), (1, end)):
            colour, where = COLOURS.get(method), ax.get_xaxis_transform()
            ax.axvline(place, color=colour, lw=1.2, zorder=0.9)
            ax.text(place, 1.0, f" {method}", color=colour, va="top", transform=where)
        ax.set(xlabel=f"t: {start} at 0, {end} at 1", ylabel="cross-entropy", title=title, yscale="log")
    loss_ticks(axes[0, 0])
    for ax in axes.flat:
        ax.label_outer()
    legend_of(axes[0, 0], "lower", 2)
    return figure


def sharpness(summary: pd.DataFrame, than: str = "CE") -> Figure:
    """Every measure relative to one method's mean, ± standard deviation over seeds (`sharpness.summary`)."""
    measures = list(dict.fromkeys(summary["measure"]))
    methods = list(dict.fromkeys(summary["method"]))
    figure, axes = panels(size=(8.2, 0.75 * len(measures) + 1.1))
    ax, middle = axes[0, 0], -np.arange(len(measures))
    offsets = np.linspace(0.3, -0.3, len(methods))
    for method, offset in zip(methods, offsets, strict=True):
        part = summary[summary["method"] == method].set_index("measure").loc[measures]
        style = {"color": COLOURS.get(method), "fmt": "o", "capsize": 3, "label": method}
        ax.errorbar(part["relative"], middle + offset, xerr=part["relative_std"], **style)
    verdicts = summary.groupby("measure", sort=False)["verdict"].first()
    ax.set_yticks(middle, [f"{MEASURES[name]}\nSLN flatter: {verdicts[name]}" for name in measures])
    ax.grid(axis="y", visible=False)
    if summary["relative"].min() > 0:
        ax.set_xscale("log", nonpositive="clip")
        ax.set_xlim(left=summary["relative"].min() / 2)
    else:  # around a point that is no minimum, a loss can fall
        ax.set_xscale("symlog", linthresh=0.01)
    ax.set_xlabel(f"relative to the mean of {than}: further left is flatter")
    ax.axvline(1, color="black", lw=1, zorder=0.9)
    legend_of(ax, "upper", len(methods))
    return figure
