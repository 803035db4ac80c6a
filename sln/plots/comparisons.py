"""Pictures of comparisons: variants of SGD noise, other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sln.config import NOISE_NAMES
from sln.plots.style import COLOURS, Figure, legend_of, new_axes, panels
from sln.plots.training import curve

WEIGHTS = {"network": "networks", "momentum": "momentum models"}
OTHER = "#777777"  # a method that is not the paper's
# the paper's names of methods, by the weights they are evaluated with
PAPERS = {
    "network": {"CE": "CE", "SLN": "SLN", "SLN + LC": "SLN-MO-LC"},
    "momentum": {"CE": "CE-MO", "SLN": "SLN-MO", "SLN + LC": "SLN-MO-LC"},
}
SETTINGS = {"published": "published setting", "tuned": "setting chosen on noisy validation labels"}


def over_epochs(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Test accuracy over epochs, mean ± standard deviation; one panel per table of `analysis.curves`."""
    figure, axes = panels(1, len(tables), size=(5.1 * len(tables), 3.8), sharex=True, sharey=True)
    for (title, table), ax in zip(tables.items(), axes.flat, strict=True):
        curve(table, "test_accuracy", ax)
        ax.set(ylabel="test accuracy", title=title)
        ax.label_outer()
    axes[0, 0].legend(loc="lower right")
    return figure


def strengths(table: pd.DataFrame) -> Figure:
    """Test and noisy validation accuracy by each variant's strength (`comparisons.strengths`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.8), sharex=True, sharey=True)
    titles = {"test_mean": "test accuracy", "validation_mean": "noisy validation labels"}
    for (column, title), ax in zip(titles.items(), axes.flat, strict=True):
        for variant, part in table.groupby("variant", sort=False):
            error = part["test_std"] if column == "test_mean" else None
            line = {"color": COLOURS[variant], "marker": "o", "capsize": 3, "label": variant}
            ax.errorbar(part["sigma"], part[column], error, **line)
        ax.set(xlabel="σ of the variant", xscale="log", ylim=(0, 102), title=f"momentum models: {title}")
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[0, 0].legend(loc="lower left")
    return figure


def one_strength(table: pd.DataFrame, variant: str) -> Figure:
    """One variant of SGD noise by its strength, the others' best dotted (`comparisons.strengths`)."""
    ax = new_axes((7.2, 4.0))
    best = table.loc[table.groupby("variant", sort=False)["validation_mean"].idxmax()]
    for row in best.itertuples():
        if row.variant != variant:
            ax.axhline(row.test_mean, color=COLOURS[row.variant], ls=":", label=f"{row.variant}, best")
    part = table[table["variant"] == variant]
    line = {"color": COLOURS[variant], "marker": "o", "capsize": 3, "label": variant}
    ax.errorbar(part["sigma"], part["test_mean"], part["test_std"], **line)
    ax.set(xlabel="σ", ylabel="momentum models: test accuracy (%)", xscale="log", ylim=(0, 102))
    ax.set_xticks(part["sigma"], [f"{sigma:g}" for sigma in part["sigma"]])
    ax.minorticks_off()
    ax.legend(loc="lower left")
    row = best[best["variant"] == variant].iloc[0]
    ax.figure.words = f"{variant}: {row.test_mean:.1f} ± {row.test_std:.1f}% at its chosen σ = {row.sigma:g}"
    return ax.figure


def methods(table: pd.DataFrame) -> Figure:
    """Every method's test accuracy; rings: published settings, dots: tuned (`comparisons.table`).

    One column per kind of noise; above the networks, below their momentum models.
    """
    noises = list(dict.fromkeys(table["noise"]))
    names = list(dict.fromkeys(table["method"]))
    size = (3.3 * len(noises) + 2.2, 6.6)
    figure, axes = panels(2, len(noises), size=size, sharex="col", sharey=True)
    for row, (weights, title) in enumerate(WEIGHTS.items()):
        for column, noise in enumerate(noises):
            ax = axes[row, column]
            part = table[(table["weights"] == weights) & (table["noise"] == noise)]
            _method_dots(part, names, PAPERS[weights], ax)
            ax.set_title(f"{NOISE_NAMES[noise]}, {title}")
    for ax in axes[-1]:
        ax.set_xlabel("test accuracy (%)")
    shown = ((SETTINGS["published"], "white"), (SETTINGS["tuned"], "black"))[: table["settings"].nunique()]
    dot = {"ls": "", "marker": "o", "color": "black"}
    handles = [Line2D([], [], mfc=face, label=label, **dot) for label, face in shown]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _method_dots(part: pd.DataFrame, names: Sequence[str], names_of: Mapping[str, str], ax: Axes) -> None:
    both = part["settings"].nunique() > 1
    for settings, group in part.groupby("settings", sort=False):
        tuned = settings == "tuned"
        shift = (0.16 if both else 0) * (-1 if tuned else 1)
        y = [len(names) - names.index(name) + shift for name in group["method"]]
        colours = [COLOURS[names_of[name]] if name in names_of else OTHER for name in group["method"]]
        ax.hlines(y, group["mean"] - group["std"], group["mean"] + group["std"], color=colours, lw=1.4)
        faces = colours if tuned else "white"
        ax.scatter(group["mean"], y, c=faces, edgecolors=colours, s=34, zorder=3)
    ax.set_yticks(range(len(names), 0, -1), names)
    ax.set_ylim(0.4, len(names) + 0.6)


def gains(table: pd.DataFrame) -> Figure:
    """What SLN adds to other methods, in points of test accuracy (`comparisons.gains`)."""
    labels = [f"{NOISE_NAMES[noise]}, {settings}" for noise, settings in table.index]
    figure, axes = panels(1, 1, size=(8.0, 0.5 * len(table) + 1.8))
    ax, y = axes[0, 0], np.arange(len(table), 0, -1)
    for number, (under, colour) in enumerate(
        zip(table.columns, (COLOURS["CE"], OTHER, COLOURS["SLN-MO-LC"]), strict=True)
    ):
        style = {"height": 0.25, "color": colour, "label": f"on top of {under}"}
        ax.barh(y + 0.27 * (1 - number), table[under], **style)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(y, labels)
    ax.set(xlabel="gain in test accuracy by stochastic label noise (points), momentum models")
    ax.grid(axis="y", visible=False)
    legend_of(ax, "upper", 3)
    return figure
