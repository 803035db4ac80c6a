"""Pictures of comparisons: variants of SGD noise, other methods."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sln.config import NOISE_NAMES
from sln.plots.style import (
    COLOURS,
    Figure,
    bars_of,
    differences,
    dots,
    legend_of,
    look,
    new_axes,
    panels,
    reach,
    seeds_of,
)
from sln.plots.training import curve

OTHER = "#777777"  # a method that is not the paper's
PAPERS = {"CE": "CE-MO", "SLN": "SLN-MO", "SLN + LC": "SLN-MO-LC"}  # the paper's names, for their colours


def over_epochs(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Test accuracy over epochs, mean over seeds; one panel per table of `analysis.curves`."""
    figure, axes = panels(1, len(tables), size=(5.1 * len(tables), 3.8), sharex=True, sharey=True)
    for (title, table), ax in zip(tables.items(), axes.flat, strict=True):
        curve(table, "test_accuracy", ax)
        ax.set_title(title)
        names = [f"{method}, {seeds_of(part)}" for method, part in table.groupby("method", sort=False)]
        ax.legend(ax.get_legend_handles_labels()[0], names, loc="lower right", title="mean over seeds")
    axes[0, 0].set_ylabel("test accuracy")
    return figure


def variant_gains(table: pd.DataFrame) -> Figure:
    """What the variants of SGD noise add, with t intervals (`comparisons.variant_gains`)."""
    count = table["strength"].nunique()
    figure, axes = panels(1, count, size=(4.9 * count, 3.0), sharex=True, sharey=True)
    shown = {"network": ("SLN", "networks", 0.12), "momentum": ("SLN-MO", "momentum models", -0.12)}
    for (strength, group), ax in zip(table.groupby("strength", sort=False), axes.flat, strict=True):
        for weights, (method, label, shift) in shown.items():
            part = group[group["weights"] == weights].iloc[::-1]
            dots(ax, part, "mean", np.arange(len(part)) + shift, color=COLOURS[method], label=label)
            ax.set_yticks(range(len(part)), part["difference"])
        for y, seeds in enumerate(part["seeds"]):
            at = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
            ax.text(1.01, y, f"{seeds} seeds", **at)
        ax.axvline(0, color="black", lw=1)
        ax.set(title=strength, xlabel="test accuracy (points)")
    legend_of(axes[0, 0], "upper", 2, "bars: 95% t intervals over seeds")
    return figure


def strengths(table: pd.DataFrame) -> Figure:
    """Test and noisy validation accuracy by each variant's strength (`comparisons.strengths`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.8), sharex=True, sharey=True)
    titles = {"test_mean": "test accuracy", "validation_mean": "noisy validation labels"}
    for (column, title), ax in zip(titles.items(), axes.flat, strict=True):
        for variant, part in table.groupby("variant", sort=False):
            error = part[column.replace("mean", "std")]
            ax.errorbar(part["sigma"], part[column], error, marker="o", capsize=3, **look(variant))
        ax.set(xlabel="σ of the variant", xscale="log", ylim=(0, 102), title=f"momentum models: {title}")
    axes[0, 0].set_ylabel("accuracy (%)")
    legend_of(axes[0, 0], "upper", 3, f"{seeds_of(table)}, bars: ± one standard deviation")
    return figure


def one_strength(table: pd.DataFrame, variant: str) -> Figure:
    """One variant of SGD noise by its strength, the others' best dotted (`comparisons.strengths`)."""
    ax = new_axes((7.2, 4.0))
    best = table.loc[table.groupby("variant", sort=False)["validation_mean"].idxmax()].set_index("variant")
    for other, mean in best["test_mean"].drop(variant).items():
        ax.axhline(mean, color=COLOURS[other], ls=":", label=f"{other}, best")
    part = table[table["variant"] == variant]
    ax.errorbar(part["sigma"], part["test_mean"], part["test_std"], marker="o", capsize=3, **look(variant))
    ax.set(xlabel="σ", ylabel="momentum models: test accuracy (%)", xscale="log", ylim=(0, 102))
    ax.set_xticks(part["sigma"], part["sigma"].map("{:g}".format))
    ax.minorticks_off()
    ax.legend(loc="lower left", title=f"{seeds_of(part)}, bars: ± one standard deviation")
    row = best.loc[variant]
    others = ", ".join(f"{mean:.1f}% ({other})" for other, mean in best["test_mean"].drop(variant).items())
    ax.figure.words = (
        f"With {variant} at its best σ = {row.sigma:g}, test accuracy is {row.test_mean:.1f} ± "
        f"{row.test_std:.1f}%; with the others at theirs, it is {others}."
    )
    return ax.figure


def methods(table: pd.DataFrame) -> Figure:
    """Every method's test accuracy with its interval, momentum models, best first (`comparisons.table`).

    One column per kind of noise, one row per kind of settings; the line is SLN's mean.
    """
    part = table[table["weights"] == "momentum"].sort_values("mean")
    noises, settings = table["noise"].unique(), table["settings"].unique()
    size = (max(5.8, 4.6 * len(noises)), (0.27 * part["method"].nunique() + 0.9) * len(settings) + 0.3)
    figure, axes = panels(len(settings), len(noises), size=size)
    for (row, column), ax in np.ndenumerate(axes):
        shown = part[(part["noise"] == noises[column]) & (part["settings"] == settings[row])]
        if shown.empty:  # not every kind of noise has tuned settings
            ax.set_visible(False)
            continue
        colours, y = [COLOURS.get(PAPERS.get(name), OTHER) for name in shown["method"]], range(len(shown))
        ax.errorbar(shown["mean"], y, xerr=reach(shown), fmt="none", ecolor=colours, elinewidth=1.4)
        ax.scatter(shown["mean"], y, c=colours, s=34, zorder=3)
        ax.axvline(shown.set_index("method")["mean"]["SLN"], color=COLOURS["SLN-MO"], lw=1, ls=":")
        ax.set_yticks(y, [PAPERS.get(name, name) for name in shown["method"]])
        ax.set_title(f"{NOISE_NAMES[noises[column]]} noise,\n{settings[row]} settings")
        ax.set_xlim(max(0, part.loc[part["noise"] == noises[column], "low"].min() - 3), 103)
        ax.set_xlabel("test accuracy (%)")
    figure.supxlabel(f"momentum models, {bars_of(part)}; dotted: SLN-MO’s mean", fontsize=9)
    return figure


def choices(table: pd.DataFrame) -> Figure:
    """Noisy validation accuracy by each method's setting; dots: chosen (`comparisons.choices`)."""
    part = table[(table["stage"] == 1) & (table.groupby("method")["setting"].transform("nunique") > 1)]
    count = part["method"].nunique()
    figure, axes = panels(3, -(-count // 3), size=(9.6, 7.4), shown=count, sharey=True)
    for (method, of_it), ax in zip(part.groupby("method", sort=False), axes.flat, strict=False):
        for noise, line in of_it.groupby("noise", sort=False):
            line = line.assign(name=line["setting"].map("{:g}".format))  # evenly spaced, as categories
            (drawn, *_) = ax.errorbar(line["name"], line["score"], line["error"], label=NOISE_NAMES[noise])
            chosen = line[line["chosen"]].head(1)
            ax.plot(chosen["name"], chosen["score"], "o", color=drawn.get_color())
        ax.set_title(method)
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy on noisy\nvalidation labels (%)")
    scored = f"{seeds_of(part)}, bars: ± one standard error; dots: chosen"
    legend_of(axes[0, 0], "upper", 3, scored)
    return figure


def gains(table: pd.DataFrame) -> Figure:
    """Paired gains with their intervals, in points of test accuracy (`comparisons.gains`)."""
    count = table["gain"].nunique()
    figure, axes = panels(1, count, size=(3.1 * count + 2, 0.4 * len(table) / count + 1.4), sharey=True)
    for (name, part), ax in zip(table.groupby("gain", sort=False), axes.flat, strict=True):
        rows = part["noise"].map(NOISE_NAMES) + ", " + part["settings"]
        differences(ax, part, "mean", rows, name, "gain in test accuracy (points)")
    figure.supxlabel(bars_of(table), fontsize=9)
    return figure
