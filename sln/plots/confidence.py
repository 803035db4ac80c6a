"""Pictures of confidence: on right and wrong labels, on test images, and by loss."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sln.analysis.confidence import BINS, TEST, Floors, floors, pooled_examples
from sln.plots.style import COLOURS, RIGHT, WRONG, Figure, legend_of, panels, reach
from sln.study.statistics import MethodRuns

# the label's colour, dark where the prediction is wrong; no method has these
DISSECTION_COLOURS = {
    "right label, right prediction": "#D9D9D9", "right label, wrong prediction": "#4D4D4D",
    "wrong label, right prediction": "#EBC4DA", "wrong label, wrong prediction": "#B5477F",
}  # fmt: skip
FEW, TOO_FEW = 30, 5  # images of a bin below which its bar is faded, and left out
MARKERS = "osD^"
FLOOR = {"color": "black", "lw": 1, "ls": "--"}


def histogram(values: np.ndarray, wrong: np.ndarray, ax: Axes) -> None:
    """Histograms of values in [0, 1] (N,), for right and for wrong given labels, as shares of each."""
    for part, name, colour in ((~wrong, "right label", RIGHT), (wrong, "wrong label", WRONG)):
        share = np.full(part.sum(), 1 / max(1, part.sum()))
        ax.hist(values[part], bins=BINS, weights=share, color=colour, alpha=0.6, label=name)
    ax.set(xlabel="probability of the given label", ylabel="share of examples", xlim=(0, 1), ylim=(0, 1))


def histograms(grid: Mapping[float, MethodRuns], sigma: float) -> Figure:
    """Probability of right and of wrong given labels, CE beside one trained sigma, all seeds together.

    Dashed: the mean probabilities that the noise alone demands (`Floors`).
    """
    figure, axes = panels(1, 4, size=(10.2, 3.2), sharey=True)
    shown = {
        "CE": grid[0.0].through("network"),
        "CE-MO": grid[0.0].through("momentum"),
        f"SLN, σ = {sigma:g}": grid[sigma].through("network"),
        f"SLN-MO, σ = {sigma:g}": grid[sigma].through("momentum"),
    }
    demanded = floors(grid[0.0].first.data)
    for (title, method), ax in zip(shown.items(), axes.flat, strict=True):
        examples = pooled_examples(method.runs)
        histogram(examples[f"{method.weights}_p_given"].to_numpy(), examples["wrong"].to_numpy(), ax)
        for p, name, colour in ((demanded.p_right, "right", RIGHT), (demanded.p_wrong, "wrong", WRONG)):
            ax.axvline(p, color=colour, lw=1.5, ls="--", label=f"{name}: the noise alone")
        ax.set_title(title)
        ax.label_outer()
    legend_of(axes[0, 0], "lower", 4)
    means = (f"{t.split(',')[0]} {m.final('wrong_confidence').mean():.2f}" for t, m in shown.items())
    figure.words = f"σ = {sigma:g}: mean probability of wrong labels: {', '.join(means)}"
    return figure


def over_epochs(figure: Figure, demanded: Floors) -> Figure:
    """Dashed lines in the panels of `OVER_EPOCHS`: the mean probabilities that the noise alone demands.

    On test images it is that of a network that is always right.
    """
    lines = (demanded.p_right, demanded.p_wrong, demanded.accuracy)
    for ax, p in zip(figure.axes, lines, strict=True):
        ax.axhline(p, **FLOOR)
        ax.text(0.01, p, f"{p:.2g}", fontsize=8, va="bottom", transform=ax.get_yaxis_transform())
    return figure


def correction_weights(table: pd.DataFrame) -> Figure:
    """Histograms of w, and of the target that stays on the given label (`label_correction.weights`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.4), sharey=True)
    names = {
        "w": ("w: loss of the momentum model, scaled to [0, 1]", "The weight of the given label"),
        "on_given": ("target's entry of the given label", "What stays on the given label"),
    }
    for (column, (name, title)), ax in zip(names.items(), axes.flat, strict=True):
        histogram(table[column].to_numpy(), table["wrong"].to_numpy(), ax)
        ax.set(xlabel=name, title=title, ylim=(0, 1.05))
        ax.label_outer()
    axes[0, 0].legend(loc="upper right")
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
        for bars, alpha in (
            (bins[bins["examples"] >= FEW], 0.8),
            (bins[bins["examples"].between(TOO_FEW, FEW - 1)], 0.25),
        ):
            width = bars["high"] - bars["low"]
            ax.bar(bars["low"], bars["accuracy"], width, align="edge", alpha=alpha, color=COLOURS[method])
        edges = [*bins["low"], bins["high"].iloc[-1]]
        shares = bins["examples"] / bins["examples"].sum()
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
    legend_of(axes[-1, 0], "lower", 3)
    return figure


def intervals(
    table: pd.DataFrame, column: str, ax: Axes, series: str = "method", floor: float | None = None
) -> None:
    """Means and their intervals, a row per method, and of each a marker per value of `series`."""
    methods, kinds = [*table["method"].unique()], [*table[series].unique()]
    several = series != "method"
    for row, error in zip(table.itertuples(), reach(table, column).T, strict=True):
        place = kinds.index(getattr(row, series)) if several else 0
        y = methods.index(row.method) + (0.16 * (place - (len(kinds) - 1) / 2) if several else 0)
        style = {"color": COLOURS[row.method], "marker": MARKERS[place], "capsize": 2, "ls": ""}
        ax.errorbar(getattr(row, column), y, xerr=error[:, None], **style)
    for marker, kind in zip(MARKERS, kinds if several else (), strict=False):
        ax.plot([], [], marker, color="#555555", label=kind)
    if floor is not None:
        ax.axvline(floor, **FLOOR)
    ax.set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))


def memorised_nats(table: pd.DataFrame) -> Figure:
    """Nats below the noise's own loss, by method (`confidence.memorised_nats`)."""
    figure, axes = panels(size=(6.4, 2.6))
    intervals(table, "below", axes[0, 0], floor=0)
    label = f"nats of the loss on given labels below the floor of {table['floor'].mean():.3f}"
    axes[0, 0].set(xlabel=label)
    return figure


def temperatures(table: pd.DataFrame) -> Figure:
    """The calibration error on test images, as trained and after each remedy (`confidence.temperatures`)."""
    figure, axes = panels(size=(7.2, 4.0))
    intervals(table, "error", axes[0, 0], "remedy")
    axes[0, 0].set(xlabel="calibration error, true labels of test images")
    axes[0, 0].set_xlim(left=0)
    legend_of(axes[0, 0], "lower", 2)
    return figure


def clean_price(table: pd.DataFrame) -> Figure:
    """Training on true labels only, with and without SLN: a panel per quantity (`ablations.clean_price`)."""
    table = table[table["method"].isin(COLOURS)]  # without the differences
    quantities = table["quantity"].unique()
    figure, axes = panels(1, len(quantities), size=(3.4 * len(quantities), 2.1), sharey=True)
    for quantity, ax in zip(quantities, axes.flat, strict=True):
        intervals(table[table["quantity"] == quantity], "mean", ax)
        ax.set(xlabel=quantity)
        ax.label_outer()
    return figure


def dissections(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Right or wrong labels and predictions by loss, one panel per method (`confidence.dissection`)."""
    figure, axes = panels(1, len(tables), size=(2.3 * len(tables), 3.2), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        counts = table[list(DISSECTION_COLOURS)]
        shares, width = counts.div(counts.sum(axis=1), axis=0), 100 / len(counts)
        bottom = np.zeros(len(counts))
        for column, colour in DISSECTION_COLOURS.items():
            ax.bar(
                width * table.index, shares[column], width, bottom, align="edge", color=colour, label=column
            )
            bottom += shares[column].to_numpy()
        ax.set(ylabel="share of examples", title=method, xlim=(0, 100), ylim=(0, 1))
        ax.grid(False)
        ax.label_outer()
    axes[0, len(tables) // 2].set_xlabel("training examples (%), lowest to highest loss")
    legend_of(axes[0, 0], "lower", 2)
    return figure
