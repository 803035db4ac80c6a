"""Pictures of training: over epochs, over sigma and over the momentum model's memory."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes

from sln import analysis
from sln.analysis.confidence import pooled_examples
from sln.config import NOISE_NAMES, Config
from sln.plots.confidence import histogram
from sln.plots.labels import caption, class_name, tiles
from sln.plots.style import (
    COLOURS,
    RIGHT,
    WRONG,
    Figure,
    band,
    dots,
    legend_of,
    look,
    new_axes,
    panels,
    seeds_of,
)
from sln.runs.run import Run
from sln.study.statistics import MethodRuns
from sln.train import ALWAYS_WHOLE

# History columns over epochs, and the titles of their panels.
LEARNING = {
    "right_accuracy": "right labels learnt",
    "wrong_memorised": "wrong labels memorised",
    "test_accuracy": "test accuracy",
}
WEIGHTS = {"network": ("network", "-"), "momentum": ("momentum model", "--")}  # names and line styles
SMOOTHED = 5  # epochs
REACHED = "has learnt {} of right labels, memorised {} of wrong ones and reads {} of test images right"
LOOKED_AT = 8  # images with a wrong label that `at_epoch` shows


def curves(
    table: pd.DataFrame,
    columns: Mapping[str, str] = LEARNING,
    ylabel: str = "share of examples",
    heading: str = "",
    stopped: pd.DataFrame | None = None,
) -> Figure:
    """History columns over epochs, one panel per column (column: title); the table is `analysis.curves`'.

    stopped : rows of `analysis.accuracies`, whose early stopping is marked in the panel of test accuracy
    """
    figure, axes = panels(1, len(columns), size=(10.2, 3.5), sharex=True, sharey=True)
    for (column, title), ax in zip(columns.items(), axes.flat, strict=True):
        curve(table, column, ax)
        ax.set_title(title)
        if stopped is not None and column == "test_accuracy":
            for row in stopped[stopped["reading"] == "stopped early"].itertuples():
                point = {"color": COLOURS[row.method], "mec": "black", "ms": 9, "zorder": 5}
                shown = ax.plot(row.epoch, row.mean / 100, "v", **point, label=f"{row.method} stopped early")
                ax.legend(handles=shown, loc="lower right")
    axes[0, 0].set_ylabel(ylabel)
    title = f"mean over {seeds_of(table)}" if table["seeds"].max() > 1 else None
    axes[0, 0].legend(loc="lower right", title=title)
    if heading:
        figure.suptitle(heading, fontsize=10.5)
    return figure


def curve(table: pd.DataFrame, column: str, ax: Axes) -> None:
    """A history column over epochs, mean over seeds (`analysis.curves`); the thick lines are `smoothed`."""
    for method, part in table.groupby("method", sort=False):
        measured = part.set_index("epoch")[f"{column}_mean"].dropna()  # not in every epoch
        ax.plot(measured, color=COLOURS.get(method), lw=0.5, alpha=0.45)
        ax.plot(smoothed(measured), **look(method))
    ax.set(xlabel="epoch", xlim=(1, table["epoch"].max()), ylim=(0, 1.02))


def smoothed(measured: pd.Series) -> pd.Series:
    """Means over SMOOTHED epochs, centred; the first ALWAYS_WHOLE, in which all changes, stay as they are."""
    every = measured.reindex(range(1, int(measured.index.max()) + 1) if len(measured) else [])
    means = every.rolling(SMOOTHED, center=True, min_periods=1).mean()
    return measured.where(measured.index <= ALWAYS_WHOLE, means[measured.index])


def training_curves(grid: Mapping[float, MethodRuns], sigma: float) -> Figure:
    """CE beside SLN and SLN-MO at one trained sigma: `curves` of what is learnt."""
    methods = {"CE": grid[0.0].through("network")}
    if sigma > 0:
        methods |= {"SLN": grid[sigma].through("network"), "SLN-MO": grid[sigma].through("momentum")}
    table = analysis.curves(methods, list(LEARNING))
    figure = curves(table, heading=f"σ = {sigma:g}")
    figure.words = at_the_end(table, sigma)
    return figure


def at_the_end(table: pd.DataFrame, sigma: float) -> str:
    """The last rows of `analysis.curves` in a sentence."""
    last = table[table["epoch"] == table["epoch"].max()]
    means = (
        f"{100 * row.test_accuracy_mean:.1f} ± {100 * row.test_accuracy_std:.1f}% and "
        f"{row.wrong_memorised_mean:.0%} for {row.method}"
        for row in last.itertuples()
    )
    what = "test accuracy and wrong labels memorised"
    return f"At σ = {sigma:g}, {what} end at {', '.join(means)}.".replace(" ± nan", "")  # of one seed


def live_curves(config: Config, rows: Sequence[Mapping[str, float | str]]) -> Figure:
    """`curves` of one run from its history's rows so far; the axis of epochs is the whole run's."""
    method = "SLN" if config.sigma > 0 else "CE"
    names = {"network": method, "momentum": f"{method}-MO"}
    last = [{"weights": weights, "epoch": config.epochs} for weights in names]  # empty, for the axis
    table = pd.DataFrame([*rows, *last], columns=["weights", "epoch", *LEARNING])
    table = table[table["weights"].isin(names)].assign(method=table["weights"].map(names), seeds=1)
    table = table.rename(columns={column: f"{column}_mean" for column in LEARNING})
    figure = curves(table, heading=describe(config))
    measured = table[table["weights"] == "network"].dropna(subset=[f"{column}_mean" for column in LEARNING])
    for row in measured.tail(1).itertuples():
        shares = REACHED.format(*(f"{getattr(row, f'{column}_mean'):.0%}" for column in LEARNING))
        figure.words = f"With {describe(config)}, the network after epoch {row.epoch} {shares}."
    return figure


def describe(config: Config) -> str:
    """One training in words: "σ = 0.5, symmetric noise at rate 0.4, α = 0.99"."""
    noise = NOISE_NAMES.get(config.noise_mode, config.noise_mode)
    noise = "right labels" if config.noise_mode == "none" else f"{noise} noise at rate {config.noise_rate:g}"
    return f"σ = {config.sigma:g}, {noise}, α = {config.alpha:g}"


def accuracies(table: pd.DataFrame) -> Figure:
    """Test accuracy by method and reading, with t intervals over seeds (`analysis.accuracies`)."""
    ax, methods = new_axes((7.6, 3.6)), table["method"].unique()
    for number, (reading, part) in enumerate(table.groupby("reading", sort=False)):
        point = {"fmt": "osv"[number], "mfc": ("black", "grey", "white")[number], "color": "black"}
        dots(ax, part, "mean", np.arange(len(methods)) + 0.22 * (number - 1), **point, label=reading)
    ax.set(yticks=range(len(methods)), yticklabels=methods, xlabel="test accuracy (%)")
    ax.invert_yaxis()
    ax.legend(loc="best", title=f"95% t interval, {seeds_of(table)}")
    return ax.figure


def at_epoch(run: Run, epoch: int) -> Figure:
    """One run, with a mark at `epoch`: learning, memorising, confidence; and its result.

    Above, over epochs: accuracy on right and on wrong given labels and on test images. Below: mean
    probability of right and of wrong given labels over epochs; its histogram, and the network's predictions
    for the first LOOKED_AT images with a wrong label, both after the last epoch, the only one whose single
    examples a run keeps.
    """
    figure = Figure(figsize=(10.2, 6.2), layout="none")  # fixed places: a layout takes half of a redraw
    places = [(x, y, 0.26, 0.34) for y in (0.565, 0.085) for x in (0.07, 0.39, 0.71)]
    *above, confidence, last = map(figure.add_axes, places[:5])
    shares = []
    for (column, title), ax in zip(LEARNING.items(), above, strict=True):
        network, average = _over_epochs(run, column, epoch, ax, COLOURS["SLN-MO"])
        ax.set_title(title)
        shares.append("–" if np.isnan(network) else f"{network:.0%} ({average:.0%})")
    for name, style in WEIGHTS.values():
        above[0].plot([], [], color="black", ls=style, label=name)
    above[0].set_ylabel("share of examples")
    above[0].legend(loc="lower right")
    for kind, colour in (("right", RIGHT), ("wrong", WRONG)):
        _over_epochs(run, f"{kind}_confidence", epoch, confidence, colour, f"{kind} label")
    confidence.set(title="probability of the given label", ylabel="mean probability")
    confidence.legend(loc="upper left")
    for ax in (*above, confidence):
        ax.axvline(epoch, color="black", lw=1, ls=":")
        ax.set(xlabel="epoch", xlim=(0, run.config.epochs), ylim=(0, 1.02))
        ax.locator_params(axis="x", integer=True)
    examples, noisy = pooled_examples([run]), run.data
    histogram(examples["network_p_given"], examples["wrong"], last)
    last.set_title(f"network, after epoch {run.config.epochs}")
    last.legend(loc="upper center")
    rows = examples[examples["wrong"]].head(LOOKED_AT)
    titles, colours = [], []
    for row in rows.itertuples():
        predicted = row.network_prediction  # coloured by it: given label, true one, another
        titles.append(f"{caption(noisy, row.given, row.true)}\nread as {class_name(noisy, predicted)}")
        colours.append({row.given: WRONG, row.true: RIGHT}.get(predicted, "black"))
    if titles:
        images = noisy.train.images[torch.tensor(rows.index.to_numpy())]
        ax = figure.add_axes((0.685, 0.02, 0.3, 0.47))
        tiles(ax, images, titles, colours, noisy.scale, columns=4, line=0.21)
    figure.suptitle(describe(run.config), fontsize=10.5, y=0.99)
    figure.words = (
        f"With {describe(run.config)}, the network (its momentum model) after epoch {epoch} "
        f"{REACHED.format(*shares)}. Histogram and images are those after epoch {run.config.epochs}."
    )
    return figure


def _over_epochs(
    run: Run, column: str, epoch: int, ax: Axes, colour: str, name: str | None = None
) -> list[float]:
    """A history column of both networks over epochs, with a mark at `epoch`: returns their values there."""
    latest = []
    for weights, (_, style) in WEIGHTS.items():
        measured = run.of(weights)[column].dropna()  # not in every epoch
        ax.plot(measured, color=colour, ls=style, label=name if weights == "network" else None)
        latest.append(measured.asof(epoch) if len(measured) else np.nan)  # none: no label is wrong
        ax.plot(epoch, latest[-1], "o", color=colour, ms=7, clip_on=False)
    return latest


def over_sigma(table: pd.DataFrame, chosen: float) -> Figure:
    """Over sigma: test accuracy, memorised labels, noisy validation accuracy (`analysis.over_sigma`)."""
    figure, axes = panels(1, 3, size=(10.2, 3.5), sharex=True)
    shown = (
        ("test_accuracy", "test accuracy", "share of test images"),
        ("wrong_memorised", "wrong labels memorised", "share of wrong labels"),
        ("validation_accuracy", "accuracy on noisy validation labels", "share of validation images"),
    )
    ends = {"network": "", "momentum": "-MO"}
    methods = np.where(table["sigma"] > 0, "SLN", "CE") + table["weights"].map(ends)
    for (column, title, ylabel), ax in zip(shown, axes.flat, strict=True):
        for method in ("CE", "SLN", "CE-MO", "SLN-MO"):
            part = table[methods == method]
            mean, std = part[f"{column}_mean"], part[f"{column}_std"]
            ax.errorbar(part["sigma"], mean, std, marker="o", capsize=3, **look(method))
        ax.axvline(chosen, color="black", lw=1, ls=":", label=f"chosen: σ = {chosen:g}")
        ax.set(xlabel="σ of the stochastic noise (0: CE)", ylabel=ylabel, ylim=(0, 1.02), title=title)
    ceiling, right = table["ceiling"].mean(), axes[0, 2]
    right.axhline(ceiling, color="black", lw=1, ls="--")
    if ceiling > 0:  # NaN without validation images
        place = {"x": 0.98, "y": ceiling + 0.02, "transform": right.get_yaxis_transform()}
        right.text(s="a perfect classifier", ha="right", fontsize=8, **place)
    legend_of(axes[0, 0], "upper", 5)
    figure.legends[0].set_title(f"bars: ± one standard deviation over {seeds_of(table)}")
    return figure


def momentum_models(table: pd.DataFrame, alpha: float | None = None) -> Figure:
    """Test accuracy of several momentum models of the same runs (`analysis.by_alpha`); `alpha` stands out."""
    ax = new_axes((7.6, 4.2))
    places = np.linspace(0, 1, table["alpha"].nunique() + 3)[1:]
    shades = colormaps["viridis"](places)  # the last ones are too light for text
    ends = []
    for colour, (value, part) in zip(shades, table.groupby("alpha"), strict=False):
        name = "the network itself" if value == 0 else f"α = {value:g}: about {1 / (1 - value):.0f} steps"
        by_epoch = part.set_index("epoch")
        ends.append((by_epoch["mean"].iloc[-1], name, colour))
        band(ax, by_epoch["mean"], by_epoch["std"], alpha=0.12, color=colour, label=name)
        if alpha is not None and value != alpha:
            ax.lines[-1].set_alpha(0.25)
            ax.collections[-1].set_alpha(0.04)
    ax.set(xlabel="epoch", ylabel="test accuracy", xlim=(1, table["epoch"].max()), ylim=(0, 1.02))
    title = "The same runs, read through several momentum models"
    ax.set_title(f"{title}\n(band: ± one standard deviation over {seeds_of(table)})")
    place = 2.0
    for end, name, colour in sorted(ends, reverse=True):
        place = min(end, place - 0.055)  # apart enough to be read
        ax.text(1.01, place, name, color=colour, va="center", fontsize=8, transform=ax.get_yaxis_transform())
    if alpha is not None:
        last = table[table["epoch"] == table["epoch"].max()].set_index("alpha")[["mean", "std"]]
        mean, std = 100 * last.loc[alpha]
        plain = "" if alpha == 0 else f"; that of the network itself is {100 * last.loc[0, 'mean']:.1f}%"
        reached = f"test accuracy after the last epoch is {mean:.1f} ± {std:.1f}%"
        ax.figure.words = f"With α = {alpha:g}, {reached}{plain}."
    return ax.figure
