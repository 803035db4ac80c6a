"""Pictures of confidence: on right and wrong labels, on test images, and by loss."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sln.analysis.confidence import BINS, TEST, Floors, floors, pooled_examples
from sln.plots.style import (
    COLOURS,
    RIGHT,
    WRONG,
    Figure,
    bars_of,
    dots,
    legend_of,
    new_axes,
    panels,
    seeds_of,
    stack_bars,
)
from sln.study.statistics import MethodRuns

# the label's colour, dark where the prediction is wrong; no method has these
DISSECTION_COLOURS = {
    "right label, right prediction": "#D9D9D9", "right label, wrong prediction": "#4D4D4D",
    "wrong label, right prediction": "#EBC4DA", "wrong label, wrong prediction": "#B5477F",
}  # fmt: skip
FEW, TOO_FEW = 30, 5  # images of a bin below which its bar is faded, and left out
FLOOR = {"color": "black", "lw": 1, "ls": "--"}


def histogram(values: pd.Series, wrong: pd.Series, ax: Axes) -> None:
    """Histograms of values in [0, 1] (N,), for right and for wrong given labels, as shares of each."""
    for part, name, colour in ((values[~wrong], "right label", RIGHT), (values[wrong], "wrong label", WRONG)):
        share = np.full(len(part), 1 / max(1, len(part)))
        ax.hist(part, bins=BINS, weights=share, color=colour, alpha=0.6, label=name)
    ax.set(xlabel="probability of the given label", ylabel="share of examples", xlim=(0, 1), ylim=(0, 1))
    ax.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))  # short: panels are neighbours


def histograms(grid: Mapping[float, MethodRuns], sigma: float) -> Figure:
    """Probability of right and of wrong given labels, CE beside one trained sigma, all seeds together.

    Dashed: the mean probabilities that the noise alone demands (`Floors`).
    """
    figure, axes = panels(1, 4, size=(10.2, 3.2), sharey=True)
    demanded, means = floors(grid[0.0].first.data), []
    shown = itertools.product((("CE", 0.0, ""), ("SLN", sigma, f", σ = {sigma:g}")), ("network", "momentum"))
    for ((method, value, at), weights), ax in zip(shown, axes.flat, strict=True):
        name = method if weights == "network" else f"{method}-MO"
        examples = pooled_examples(grid[value].runs)
        histogram(examples[f"{weights}_p_given"], examples["wrong"], ax)
        for p, label, colour in ((demanded.p_right, "right", RIGHT), (demanded.p_wrong, "wrong", WRONG)):
            ax.axvline(p, color=colour, lw=1.5, ls="--", label=f"{label}: the noise alone")
        ax.set_title(name + at)
        ax.label_outer()
        means.append(f"{grid[value].through(weights).final('wrong_confidence').mean():.2f} for {name}")
    count = len(grid[sigma].runs)
    legend_of(axes[0, 0], "lower", 4, f"{count} seeds together" if count > 1 else "1 seed")
    figure.words = f"At σ = {sigma:g} the mean probability of wrong labels is {', '.join(means)}."
    return figure


def over_epochs(figure: Figure, demanded: Floors) -> Figure:
    """Dashed lines in the panels of `OVER_EPOCHS`: the mean probabilities that the noise alone demands."""
    lines = (demanded.p_right, demanded.p_wrong, demanded.accuracy)  # the last of a network always right
    for ax, p in zip(figure.axes, lines, strict=True):
        ax.axhline(p, **FLOOR)
        ax.text(1.01, p, f"{p:.2g}", fontsize=8, va="center", transform=ax.get_yaxis_transform())
    return figure


def correction_weights(table: pd.DataFrame) -> Figure:
    """Histograms of w, and of the target that stays on the given label (`label_correction.weights`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.4), sharey=True)
    for column, xlabel, title, ax in (
        ("w", "w: loss of the momentum model, scaled to [0, 1]", "The weight of the given label", axes[0, 0]),
        ("on_given", "target's entry of the given label", "What stays on the given label", axes[0, 1]),
    ):
        histogram(table[column], table["wrong"], ax)
        ax.set(xlabel=xlabel, title=title, ylim=(0, 1.05))
        ax.label_outer()
    axes[0, 0].legend(loc="upper right", title=f"all labels of {seeds_of(table)}")
    return figure


def reliability(table: pd.DataFrame, calibrated: pd.DataFrame, demanded: Floors) -> Figure:
    """Accuracy against confidence in bins: a row per kind of labels, a panel per method.

    The diagonal is perfect calibration; the dotted line of given labels is the accuracy of a perfect
    classifier on them. Bars of fewer than FEW images are faded, of fewer than TOO_FEW left out; the grey
    steps are the share of the images in each bin.

    table, calibrated : `confidence.reliability_tables` and `confidence.calibration`
    """
    kinds, methods = table["labels"].unique(), table["method"].unique()
    size = (2.05 * len(methods), 2.1 * len(kinds) + 0.6)
    figure, axes = panels(len(kinds), len(methods), size=size, sharex=True, sharey=True)
    errors = calibrated.set_index(["quantity", "method"])
    for (kind, method), ax in zip(itertools.product(kinds, methods), axes.flat, strict=True):
        bins = table[(table["labels"] == kind) & (table["method"] == method)]
        for fewest, most, alpha in ((FEW, np.inf, 0.8), (TOO_FEW, FEW - 1, 0.25)):
            bars = bins[bins["examples"].between(fewest, most)]
            style = {"align": "edge", "alpha": alpha, "color": COLOURS[method]}
            ax.bar(bars["low"], bars["accuracy"], bars["high"] - bars["low"], **style)
        shares, edges = bins["examples"] / bins["examples"].sum(), [*bins["low"], bins["high"].iloc[-1]]
        ax.stairs(shares, edges, color="#555555", lw=1, label="share of images")
        ax.plot([0, 1], [0, 1], label="perfect calibration", **FLOOR)
        if kind != TEST:
            ax.axhline(demanded.accuracy, color="black", lw=1, ls=":", label="a perfect classifier")
        row = errors.loc["error" if kind == TEST else "error_given", method]
        error = f"error {row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        ax.set_title(f"{method}\n{error}" if kind == kinds[0] else error, fontsize=9)
        ax.set(xlabel="confidence", ylabel=f"accuracy\n{kind.replace(', ', chr(10))}")
        ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        ax.label_outer()
    legend_of(
        axes[-1, 0], "lower", 3, f"{seeds_of(calibrated)} together; in brackets: 95% t intervals over seeds"
    )
    return figure


def intervals(ax: Axes, table: pd.DataFrame, column: str, series: str | None = None) -> None:
    """Means and their intervals, a row per method, and of each a marker per value of `series`."""
    methods = list(table["method"].unique())
    kinds = list(table.groupby(series, sort=False)) if series else [(None, table)]
    for place, ((kind, part), marker) in enumerate(zip(kinds, "osD^", strict=False)):
        shift = 0.16 * (place - (len(kinds) - 1) / 2)
        for method, row in part.groupby("method"):
            look = {"fmt": marker, "color": COLOURS[method], "capsize": 2}
            dots(ax, row, column, [methods.index(method) + shift], **look)
        ax.plot([], [], marker, color="#555555", label=kind)
    ax.set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))


def memorised_nats(table: pd.DataFrame) -> Figure:
    """Nats below the noise's own loss, by method (`confidence.memorised_nats`)."""
    ax = new_axes((6.4, 2.6))
    intervals(ax, table, "below")
    ax.axvline(0, **FLOOR)
    ax.set_xlabel(f"memorised: nats by which the loss is below {table['floor'].mean():.3f}\n{bars_of(table)}")
    return ax.figure


def temperatures(table: pd.DataFrame) -> Figure:
    """The calibration error on test images, as trained and after each remedy (`confidence.temperatures`)."""
    ax = new_axes((7.2, 4.0))
    intervals(ax, table, "error", "remedy")
    ax.set(xlabel="calibration error, true labels of test images", xlim=(0, None))
    legend_of(ax, "lower", 2, bars_of(table))
    return ax.figure


def clean_price(table: pd.DataFrame) -> Figure:
    """Training on true labels only, with and without SLN: a panel per quantity (`ablations.clean_price`)."""
    quantities = table[table["method"].isin(COLOURS)].groupby("quantity", sort=False)  # without differences
    figure, axes = panels(1, quantities.ngroups, size=(3.4 * quantities.ngroups, 2.1), sharey=True)
    for (quantity, part), ax in zip(quantities, axes.flat, strict=True):
        intervals(ax, part, "mean")
        ax.set_xlabel(quantity)
        ax.label_outer()
    figure.supxlabel(bars_of(table), fontsize=9)
    return figure


def dissections(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Right or wrong labels and predictions by loss, one panel per method (`confidence.dissection`)."""
    figure, axes = panels(1, len(tables), size=(2.3 * len(tables), 3.2), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        counts = table[list(DISSECTION_COLOURS)]
        shares, width = counts.div(counts.sum(axis=1), axis=0), 100 / len(counts)
        stack_bars(ax, width * table.index, shares, DISSECTION_COLOURS, width=width, align="edge")
        ax.set(title=method, xlim=(0, 100), ylim=(0, 1))
    axes[0, 0].set_ylabel("share of examples")
    axes[0, len(tables) // 2].set_xlabel("training examples (%), lowest to highest loss")
    legend_of(axes[0, 0], "lower", 2)
    return figure
