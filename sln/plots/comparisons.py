"""Pictures of comparisons: variants of SGD noise, other methods."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sln.config import NOISE_NAMES
from sln.plots.style import COLOURS, Figure, legend_of, new_axes, panels, reach
from sln.plots.training import curve

OTHER = "#777777"  # a method that is not the paper's
# the paper's names of methods, for their colours
PAPERS = {"CE": "CE-MO", "SLN": "SLN-MO", "SLN + LC": "SLN-MO-LC"}

WEIGHTS = {"network": "networks", "momentum": "momentum models"}


def over_epochs(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Test accuracy over epochs, mean ± standard deviation; one panel per table of `analysis.curves`."""
    figure, axes = panels(1, len(tables), size=(5.1 * len(tables), 3.8), sharex=True, sharey=True)
    for (title, table), ax in zip(tables.items(), axes.flat, strict=True):
        curve(table, "test_accuracy", ax)
        ax.set(ylabel="test accuracy", title=title)
        ax.label_outer()
    axes[0, 0].legend(loc="lower right")
    return figure


def variant_gains(table: pd.DataFrame) -> Figure:
    """What the variants of SGD noise add, with t intervals (`comparisons.variant_gains`)."""
    strengths = list(dict.fromkeys(table["strength"]))
    figure, axes = panels(1, len(strengths), size=(4.9 * len(strengths), 3.0), sharex=True, sharey=True)
    shown = {"network": ("SLN", 0.12), "momentum": ("SLN-MO", -0.12)}
    for strength, ax in zip(strengths, axes.flat, strict=True):
        for weights, (method, shift) in shown.items():
            part = table[(table["strength"] == strength) & (table["weights"] == weights)].iloc[::-1]
            y, dots = np.arange(len(part)) + shift, {"fmt": "o", "color": COLOURS[method], "capsize": 3}
            ax.errorbar(part["mean"], y, xerr=reach(part), label=WEIGHTS[weights], **dots)
            ax.set_yticks(range(len(part)), part["difference"])
        ax.axvline(0, color="black", lw=1)
        ax.set(title=strength, xlabel="test accuracy (points)")
    legend_of(axes[0, 0], "upper", 2)
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
    """Every method's test accuracy with its interval, momentum models, best first (`comparisons.table`).

    One column per kind of noise, one row per kind of settings; the line is SLN's mean.
    """
    part = table[table["weights"] == "momentum"]
    noises, settings = part["noise"].unique(), part["settings"].unique()
    size = (4.6 * len(noises), (0.27 * part["method"].nunique() + 0.9) * len(settings) + 0.3)
    figure, axes = panels(len(settings), len(noises), size=size, sharex="col")
    for (row, column), ax in np.ndenumerate(axes):
        where = (part["noise"] == noises[column]) & (part["settings"] == settings[row])
        ax.set_visible(where.any())  # not every kind of noise has tuned settings
        if where.any():
            _sorted_dots(part[where].sort_values("mean"), ax)
        ax.set_title(f"{NOISE_NAMES[noises[column]]}, {settings[row]}")
    for ax in axes[-1]:
        ax.set_xlabel("test accuracy (%)")
    return figure


def _sorted_dots(part: pd.DataFrame, ax: Axes) -> None:
    names, y = list(part["method"]), np.arange(len(part))
    colours = [COLOURS.get(PAPERS.get(name, ""), OTHER) for name in names]
    ax.errorbar(part["mean"], y, xerr=reach(part), fmt="none", ecolor=colours, elinewidth=1.4)
    ax.scatter(part["mean"], y, c=colours, s=34, zorder=3)
    ax.axvline(part.loc[part["method"] == "SLN", "mean"].iloc[0], color=COLOURS["SLN-MO"], lw=1, ls=":")
    ax.set_yticks(y, names)


def choices(table: pd.DataFrame) -> Figure:
    """Noisy validation accuracy by each method's setting; dots: chosen (`comparisons.choices`)."""
    part = table[(table["stage"] == 1) & (table.groupby("method")["setting"].transform("nunique") > 1)]
    methods = list(part["method"].unique())
    figure, axes = panels(3, -(-len(methods) // 3), size=(9.6, 7.4), sharey=True)
    for method, ax in itertools.zip_longest(methods, axes.flat):
        if method is None:
            ax.set_visible(False)
            continue
        of_it = part[part["method"] == method]
        for noise, line in of_it.groupby("noise", sort=False):
            names = [f"{setting:g}" for setting in line["setting"]]  # evenly spaced, as categories
            (drawn, *_) = ax.errorbar(names, line["score"], line["error"], label=NOISE_NAMES[noise])
            chosen = line[line["chosen"]].iloc[0]
            ax.plot([f"{chosen['setting']:g}"], [chosen["score"]], "o", color=drawn.get_color())
        ax.set_title(method)
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy on noisy\nvalidation labels (%)")
    legend_of(axes[0, 0], "upper", 3)
    return figure


def gains(table: pd.DataFrame) -> Figure:
    """Paired gains with their intervals, in points of test accuracy (`comparisons.gains`)."""
    names = list(table["gain"].unique())
    figure, axes = panels(
        1, len(names), size=(3.1 * len(names) + 2, 0.4 * len(table) / len(names) + 1.4), sharey=True
    )
    for name, ax in zip(names, axes.flat, strict=True):
        part = table[table["gain"] == name].iloc[::-1]
        labels = [f"{NOISE_NAMES[row.noise]}, {row.settings}" for row in part.itertuples()]
        ax.axvline(0, color="black", lw=1)
        ax.errorbar(part["mean"], labels, xerr=reach(part), fmt="o", color=COLOURS["SLN-MO"], capsize=3)
        ax.set(title=name, xlabel="gain in test accuracy (points)")
        ax.margins(y=0.2)
    return figure
