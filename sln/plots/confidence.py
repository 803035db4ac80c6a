"""Pictures of confidence: on right and wrong labels, on test images, and by loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sln.analysis.confidence import BINS, pooled_examples
from sln.metrics import error_of
from sln.plots.style import COLOURS, RIGHT, WRONG, Figure, legend_of, panels
from sln.study.statistics import MethodRuns

DISSECTION_COLOURS = {
    "right label, right prediction": "#009E73", "right label, wrong prediction": "#E69F00",
    "wrong label, right prediction": "#56B4E9", "wrong label, wrong prediction": "#CC79A7",
}  # fmt: skip


def histogram(values: np.ndarray, wrong: np.ndarray, ax: Axes) -> None:
    """Histograms of values in [0, 1] (N,), for right and for wrong given labels, as shares of each."""
    for part, name, colour in ((~wrong, "right label", RIGHT), (wrong, "wrong label", WRONG)):
        share = np.full(part.sum(), 1 / max(1, part.sum()))
        ax.hist(values[part], bins=BINS, weights=share, color=colour, alpha=0.6, label=name)
    ax.set(xlabel="probability of the given label", ylabel="share of examples", xlim=(0, 1), ylim=(0, 1))


def histograms(grid: Mapping[float, MethodRuns], sigma: float) -> Figure:
    """Probability of right and of wrong given labels, CE beside one trained sigma, all seeds together."""
    figure, axes = panels(1, 3, size=(10.2, 3.4), sharey=True)
    shown = {
        "CE": grid[0.0].through("network"),
        f"SLN, σ = {sigma:g}": grid[sigma].through("network"),
        f"SLN-MO, σ = {sigma:g}": grid[sigma].through("momentum"),
    }
    for (title, method), ax in zip(shown.items(), axes.flat, strict=True):
        examples = pooled_examples(method.runs)
        histogram(examples[f"{method.weights}_p_given"].to_numpy(), examples["wrong"].to_numpy(), ax)
        ax.set_title(title)
        ax.label_outer()
    axes[0, 0].legend(loc="upper center")
    means = (f"{t.split(',')[0]} {m.final('wrong_confidence').mean():.2f}" for t, m in shown.items())
    figure.words = f"σ = {sigma:g}: mean probability of wrong labels: {', '.join(means)}"
    return figure


def correction_weights(table: pd.DataFrame) -> Figure:
    """Histograms of w, and of the target that stays on the given label (`label_correction.weights`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.4), sharey=True)
    names = {
        "w": "w: loss of the momentum model, scaled to [0, 1]",
        "on_given": "target that stays on the given label",
    }
    for (column, name), ax in zip(names.items(), axes.flat, strict=True):
        histogram(table[column].to_numpy(), table["wrong"].to_numpy(), ax)
        ax.set_xlabel(name)
        ax.label_outer()
    axes[0, 0].legend(loc="upper right")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against confidence in bins, one panel per method (`confidence.reliability_tables`).

    The diagonal is perfect calibration.
    """
    figure, axes = panels(1, len(tables), size=(2.35 * len(tables), 2.9), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        filled = table[table["examples"] > 0]
        bars = {"width": filled["high"] - filled["low"], "align": "edge", "alpha": 0.75, "edgecolor": "white"}
        ax.bar(filled["low"], filled["accuracy"], color=COLOURS[method], **bars)
        ax.plot([0, 1], [0, 1], color="black", lw=1, ls="--")
        title = f"{method}\ncalibration error {error_of(table):.2f}"
        ax.set(xlabel="confidence", ylabel="test accuracy", title=title)
        ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], aspect="equal")
        ax.label_outer()
    return figure


def dissections(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Right or wrong labels and predictions by loss, one panel per method (`confidence.dissection`)."""
    figure, axes = panels(1, len(tables), size=(3.5 * len(tables), 3.7), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        bottom = np.zeros(len(table))
        for column, colour in DISSECTION_COLOURS.items():
            ax.bar(table.index, table[column], bottom=bottom, width=1.0, color=colour, label=column)
            bottom += table[column].to_numpy()
        ax.set(xlabel="parts of the training set by loss", ylabel="examples", title=method)
        ax.set_xlim(-0.5, len(table) - 0.5)
        ax.grid(False)
        ax.label_outer()
    legend_of(axes[0, 0], "lower", 2)
    return figure
