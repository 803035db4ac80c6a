"""One function per picture. Each takes plain values and an Axes (or makes a Figure of panels) and returns it.

The look is in style.mplstyle; a method has the same colour, and line style, everywhere (Okabe and Ito's
palette, which the colour-blind can tell apart). Figures are made without pyplot, so nothing accumulates when
a slider is dragged.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from torch import Tensor

from sln.analysis.confidence import BINS
from sln.config import NOISE_NAMES
from sln.metrics import error_of
from sln.utils.files import figures_folder, write_atomically, write_text

matplotlib.style.use(Path(__file__).parent / "style.mplstyle")

COLOURS = {"CE": "#D55E00", "CE-MO": "#E69F00", "SLN": "#56B4E9", "SLN-MO": "#0072B2", "SLN-MO-LC": "#009E73"}
COLOURS |= {"gradient noise": "#882255", "logit noise": "#8A8A2B"}  # the paper's variants 1 and 2
STYLES = {"CE": "-", "CE-MO": "--", "SLN": "-", "SLN-MO": "--", "SLN-MO-LC": "-."}
STYLES |= {"gradient noise": "-", "logit noise": "-"}
RIGHT, WRONG = "#009E73", "#CC79A7"  # a right and a wrong given label


class Figure(matplotlib.figure.Figure):
    """A Figure that shows itself in a notebook, without pyplot.

    words : what it shows, said below it in an explorer; where there are none, its titles are
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


def save(figure: Figure, table: pd.DataFrame, name: str, profile: str) -> Figure:
    """Write <name>.png, and <name>.csv with the numbers behind it, to figures/<profile>/.

    Returns the figure, for the notebook to show.
    """
    folder = figures_folder(profile)
    index = not isinstance(table.index, pd.RangeIndex)
    write_text(folder / f"{name}.csv", table.to_csv(index=index, lineterminator="\n", float_format="%.6g"))
    write_atomically(
        folder / f"{name}.png", lambda temporary: figure.savefig(temporary, metadata={"Software": "sln"})
    )
    return figure


# --- label noise -------------------------------------------------------------------------------------------


def transition_matrix(T: np.ndarray, classes: Sequence[str], ax: Axes, title: str = "") -> Axes:
    """T (C, C) as a heat map with its numbers in per cent; rows are true labels, columns given ones."""
    percent = 100 * T
    text = np.where(percent >= 0.5, np.char.mod("%.0f", percent), "")
    few = len(T) <= 20  # more numbers than that cannot be read
    classes = classes if few else "auto"
    sns.heatmap(
        percent,
        annot=text if few else None,
        fmt="",
        vmin=0,
        vmax=100,
        cmap="cividis",
        square=True,
        cbar=False,
        ax=ax,
        xticklabels=classes,
        yticklabels=classes,
        annot_kws={"fontsize": 7},
        linewidths=0.3,
        linecolor="white",
    )
    ax.set(xlabel="given label", ylabel="true label", title=title)
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    return ax


def image(pixels: Tensor, ax: Axes, title: str = "", colour: str = "black", scale: float = 16) -> Axes:
    """One image (channels, H, W) uint8, grey if it has one channel, with a title in `colour`."""
    shown = pixels.permute(1, 2, 0).numpy() / scale
    ax.imshow(
        shown[:, :, 0] if shown.shape[2] == 1 else shown,
        cmap="gray_r",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    ax.set_title(title, fontsize=8, color=colour, pad=3)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=1.5)
    return ax


def gallery(
    images: Tensor,
    titles: Sequence[str],
    wrong: Sequence[bool],
    *,
    columns: int = 8,
    heading: str = "",
    scale: float = 16,
) -> Figure:
    """Images with titles, in WRONG's colour where the given label is wrong and in RIGHT's elsewhere."""
    rows = -(-len(images) // columns)
    figure, axes = panels(rows, columns, size=(1.05 * columns, 1.38 * rows + 0.35))
    figure.suptitle(heading, fontsize=10)
    for ax in axes.flat[len(images) :]:
        ax.set_visible(False)
    for pixels, title, is_wrong, ax in zip(images, titles, wrong, axes.flat, strict=False):
        image(pixels, ax, title, WRONG if is_wrong else RIGHT, scale)
    return figure


def rate_meanings(table: pd.DataFrame, ax: Axes) -> Axes:
    """True noise rate against the asked rate for both meanings; columns rate, other_classes, all_classes."""
    ax.plot(table["rate"], table["other_classes"], color="black", label="flip to another class (here)")
    ax.plot(
        table["rate"],
        table["all_classes"],
        color="black",
        ls="--",
        label="redraw over all classes: r (1 − 1/C)",
    )
    ax.set(
        xlabel="asked noise rate r",
        ylabel="share of wrong labels",
        title="Two meanings of “rate r”",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    ax.legend(loc="upper left")
    return ax


def realised_rates(table: pd.DataFrame, ax: Axes, rate: float) -> Axes:
    """Histogram of the rates of Bernoulli flips, and the exact count's (`labels.exact_and_bernoulli`)."""
    ax.hist(
        table["bernoulli"],
        bins=24,
        color="#999999",
        label=f"every example its own coin (std {table['bernoulli'].std():.3f})",
    )
    ax.axvline(
        table["exact"].iloc[0],
        ymax=0.72,
        color="black",
        label=f"exact count (always {table['exact'].iloc[0]:.3f})",
    )
    ax.set(xlabel="realised noise rate", ylabel="draws", title=f"{len(table)} corruptions at rate {rate:g}")
    ax.legend(loc="upper left")
    ax.margins(y=0.35)
    return ax


# --- training ----------------------------------------------------------------------------------------------


def curve(
    table: pd.DataFrame, column: str, ax: Axes, ylabel: str, methods: Sequence[str] | None = None
) -> Axes:
    """A history column over epochs, mean ± standard deviation, a line a method (`analysis.curves`)."""
    for method, part in table.groupby("method", sort=False):
        if methods is not None and method not in methods:
            continue
        part = part.dropna(subset=f"{column}_mean")  # not every epoch measures everything
        mean, std = part[f"{column}_mean"], part[f"{column}_std"]
        ax.plot(part["epoch"], mean, color=COLOURS.get(method), ls=STYLES.get(method, "-"), label=method)
        ax.fill_between(part["epoch"], mean - std, mean + std, color=COLOURS.get(method), alpha=0.15, lw=0)
    ax.set(xlabel="epoch", ylabel=ylabel, xlim=(1, table["epoch"].max()), ylim=(0, 1.02))
    return ax


def over_sigma(table: pd.DataFrame, column: str, ax: Axes, ylabel: str, chosen: float | None = None) -> Axes:
    """Last-epoch values of SLN and SLN-MO against sigma, ± standard deviation (`analysis.over_sigma`)."""
    for weights, method in (("network", "SLN"), ("momentum", "SLN-MO")):
        part = table[table["weights"] == weights]
        ax.errorbar(
            part["sigma"],
            part[f"{column}_mean"],
            part[f"{column}_std"],
            color=COLOURS[method],
            ls=STYLES[method],
            marker="o",
            capsize=3,
            label=method,
        )
    if chosen is not None:
        ax.axvline(chosen, color="black", lw=1, ls=":", label=f"chosen: σ = {chosen:g}")
    ax.set(xlabel="σ of the stochastic noise (0: CE)", ylabel=ylabel, ylim=(0, 1.02))
    return ax


# --- momentum model and correction -------------------------------------------------------------------------


def alphas(table: pd.DataFrame, ax: Axes) -> Axes:
    """Test accuracy over epochs of several momentum models of the same runs (`analysis.by_alpha`)."""
    shades = sns.color_palette("viridis", table["alpha"].nunique())
    for colour, (alpha, part) in zip(shades, table.groupby("alpha"), strict=True):
        name = "the network itself" if alpha == 0 else f"α = {alpha:g}: about {1 / (1 - alpha):.0f} steps"
        ax.plot(part["epoch"], part["mean"], color=colour, label=name)
        ax.fill_between(
            part["epoch"],
            part["mean"] - part["std"],
            part["mean"] + part["std"],
            color=colour,
            alpha=0.12,
            lw=0,
        )
    ax.set(
        xlabel="epoch",
        ylabel="test accuracy",
        xlim=(1, table["epoch"].max()),
        ylim=(0, 1.02),
        title="The same runs, read through several momentum models",
    )
    ax.legend(loc="lower right")
    return ax


def recovery(table: pd.DataFrame, ax: Axes, title: str) -> Axes:
    """Precision and recall of the moved labels, and the labels' accuracy (`label_correction.over_seeds`)."""
    for column, name, colour, style in (
        ("precision", "precision: moved labels that were wrong", "#0072B2", "-"),
        ("recall", "recall: wrong labels that moved", "#CC79A7", "--"),
        ("label_accuracy", "corrected labels that are true", "#009E73", "-."),
        ("given_accuracy", "given labels that are true", "#999999", ":"),
    ):
        by_epoch = table.groupby("epoch")[column]
        mean, std = by_epoch.mean(), by_epoch.std()
        ax.plot(mean.index, mean, color=colour, ls=style, marker="o", ms=3, label=name)
        ax.fill_between(mean.index, mean - std, mean + std, color=colour, alpha=0.15, lw=0)
    ax.set(xlabel="epoch", ylabel="share", ylim=(0, 1.02), title=title)
    return ax


# --- confidence --------------------------------------------------------------------------------------------


def confidence_histogram(p_given: np.ndarray, wrong: np.ndarray, ax: Axes, title: str) -> Axes:
    """Histograms of the predicted probability of the *given* label (N,), for right and for wrong ones."""
    for values, name, colour in (
        (p_given[~wrong], "right label", RIGHT),
        (p_given[wrong], "wrong label", WRONG),
    ):
        ax.hist(
            values,
            bins=BINS,
            weights=np.full(len(values), 1 / max(1, len(values))),
            color=colour,
            alpha=0.6,
            label=name,
        )
    ax.set(
        xlabel="probability of the given label",
        ylabel="share of examples",
        title=title,
        xlim=(0, 1),
        ylim=(0, 1),
    )
    return ax


def reliability(table: pd.DataFrame, ax: Axes, method: str) -> Axes:
    """Accuracy against confidence in bins; the diagonal is perfect calibration (`metrics.reliability`)."""
    filled = table[table["examples"] > 0]
    ax.bar(
        filled["low"],
        filled["accuracy"],
        width=filled["high"] - filled["low"],
        align="edge",
        color=COLOURS[method],
        alpha=0.75,
        edgecolor="white",
    )
    ax.plot([0, 1], [0, 1], color="black", lw=1, ls="--")
    ax.set(
        xlabel="confidence",
        ylabel="test accuracy",
        xlim=(0, 1),
        ylim=(0, 1),
        title=f"{method}\ncalibration error {error_of(table):.2f}",
        aspect="equal",
    )
    return ax


DISSECTION_COLOURS = {
    "right label, right prediction": "#009E73", "right label, wrong prediction": "#E69F00",
    "wrong label, right prediction": "#56B4E9", "wrong label, wrong prediction": "#CC79A7",
}  # fmt: skip


def dissection(table: pd.DataFrame, ax: Axes, title: str) -> Axes:
    """Stacked bars of right or wrong labels and predictions, by loss (`confidence.dissection`)."""
    bottom = np.zeros(len(table))
    for column, colour in DISSECTION_COLOURS.items():
        ax.bar(table.index, table[column], bottom=bottom, width=1.0, color=colour, label=column)
        bottom += table[column].to_numpy()
    ax.set(
        xlabel="parts of the training set by loss",
        ylabel="examples",
        title=title,
        xlim=(-0.5, len(table) - 0.5),
    )
    ax.grid(False)
    return ax


# --- results -----------------------------------------------------------------------------------------------


def results(table: pd.DataFrame, ax: Axes) -> Axes:
    """Test accuracy by kind of noise and method, ± standard deviation over seeds (`results.table`)."""
    noises, methods = list(dict.fromkeys(table["noise"])), list(dict.fromkeys(table["method"]))
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        part = table[table["method"] == method].set_index("noise").loc[noises]
        x = np.arange(len(noises)) + (number - (len(methods) - 1) / 2) * width
        ax.bar(
            x,
            part["mean"],
            width=0.92 * width,
            yerr=part["std"],
            color=COLOURS[method],
            error_kw={"capsize": 2, "lw": 1},
            label=method,
        )
    ax.set_xticks(range(len(noises)), [NOISE_NAMES[noise] for noise in noises])
    ax.set(ylabel="test accuracy (%)", ylim=(0, 105))
    ax.grid(axis="x", visible=False)
    ax.legend(ncols=len(methods), loc="upper center", bbox_to_anchor=(0.5, 1.13))
    return ax


def beside_published(table: pd.DataFrame) -> Figure:
    """The paper's accuracy (ring) and ours (dot, ± standard deviation) of every recipe, a panel a data set.

    The table is that of `results.of_the_recipes`; rows without the paper's number or ours show what there is.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    rows = [table.loc[table["dataset"] == name, "noise"].nunique() for name in datasets]
    figure, axes = panels(1, len(datasets), size=(10.2, 3.6), sharex=True)
    for dataset, count, ax in zip(datasets, rows, axes.flat, strict=True):
        part = table[table["dataset"] == dataset]
        noises = list(dict.fromkeys(part["noise"]))
        for row in part.itertuples():
            y, colour = count - noises.index(row.noise), COLOURS[row.method]
            ax.plot(row.paper, y + 0.12, "o", mfc="none", color=colour, ms=7)
            if row.seeds:
                ax.errorbar(row.ours, y - 0.12, xerr=row.ours_std, fmt="o", color=colour, ms=6, capsize=3)
        if part["paper"].isna().all():
            ax.text(0.5, 0.85, "the paper’s numbers\nare not at hand", ha="center", transform=ax.transAxes)
        if not part["seeds"].any():
            ax.text(0.5, 0.03, "no runs of ours yet", ha="center", transform=ax.transAxes, color="#555555")
        ax.set_yticks(range(count, 0, -1), [NOISE_NAMES.get(noise, noise) for noise in noises])
        ax.set(title=dataset, xlabel="test accuracy (%)", ylim=(0.2, count + 0.7), xlim=(25, 100))
    handles = [
        Line2D([], [], color=COLOURS[name], label=name, lw=3) for name in ("CE", "SLN", "SLN-MO", "SLN-MO-LC")
    ]
    handles += [
        Line2D([], [], color="black", marker="o", mfc="none", ls="", label="paper"),
        Line2D([], [], color="black", marker="o", ls="", label="ours"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def steps(table: pd.DataFrame, profile: str) -> Figure:
    """Each step of the paper's order: our gain with two standard errors, the paper's as a ring.

    One panel a kind of noise (`results.steps_of_the_order`).
    """
    noises = list(dict.fromkeys(table["noise"]))
    figure, axes = panels(1, len(noises), size=(2.6 * len(noises) + 0.8, 3.0), sharex=True, sharey=True)
    for noise, ax in zip(noises, axes.flat, strict=True):
        part = table[table["noise"] == noise].iloc[::-1]
        ax.axvline(0, color="black", lw=1)
        ax.errorbar(
            part["ours"],
            part["step"],
            xerr=2 * part["error"],
            fmt="o",
            color="#0072B2",
            capsize=3,
            label=f"ours ({profile})",
        )
        ax.plot(part["paper"], part["step"], "o", color="black", mfc="none", ms=9, label="paper (CIFAR-10)")
        ax.set(xlabel="gain in test accuracy (points)", title=NOISE_NAMES[noise])
        ax.margins(y=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
