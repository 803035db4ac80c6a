"""Pictures of ablations (`study.ablations`); bars and lines carry t intervals over seeds."""

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter

from sln.config import NOISE_NAMES
from sln.plots.style import (
    COLOURS,
    Figure,
    bars,
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
from sln.study.ablations import best_by_classes

SHOWN = {  # rules of label correction
    "none": ("SLN-MO, no correction", COLOURS["SLN-MO"]),
    "given": ("clean rule", COLOURS["SLN-MO-LC"]),
    "as-released": ("as released", "#777777"),
}


def over_rates(table: pd.DataFrame) -> Figure:
    """Test accuracy by noise rate; below each rate the sigma chosen there (`noise_rates`)."""
    ax = new_axes((7.2, 4.0))
    for method, part in table.groupby("method", sort=False):
        ax.errorbar(part["rate"], part["mean"], reach(part), marker="o", capsize=3, **look(method))
    early = table[table["method"] == "CE-MO"]
    dotted = look("CE-MO") | {"ls": ":", "label": "CE-MO, stopped early"}
    ax.plot(early["rate"], early["early"], marker="o", mfc="none", **dotted)
    chosen = table[table["method"] == "SLN"].set_index("rate")["sigma"]
    ax.set_xticks(chosen.index, [f"{rate:g}\nσ = {sigma:g}" for rate, sigma in chosen.items()])
    ax.set(xlabel="rate of symmetric noise, and the chosen σ", ylabel="test accuracy (%)", ylim=(0, 102))
    ax.legend(loc="lower left", title=bars_of(table))
    return ax.figure


def at_rate(table: pd.DataFrame, rate: float) -> Figure:
    """The methods at one noise rate (`noise_rates`)."""
    part = table[table["rate"] == rate]
    title = f"symmetric noise at rate {rate:g}, σ = {part['sigma'].max():g}"
    figure = bars(part, (7.2, 3.4), f"{title} ({bars_of(part)})").figure
    words = (
        f"{row.mean:.1f}% ({row.low:.1f} to {row.high:.1f}) for {row.method}" for row in part.itertuples()
    )
    figure.words = f"Under {title}, test accuracy (95% interval) is {', '.join(words)}."
    return figure


def image_counts(table: pd.DataFrame) -> Figure:
    """Test accuracy by number of training images (`image_counts`)."""
    ax = new_axes((7.2, 4.0))
    for method, part in table.groupby("method", sort=False):
        ax.plot(part["images"], part["mean"], marker="o", **look(method))
    for plain in ("CE", "CE-MO"):
        early = table[table["method"] == plain]
        dotted = look(plain) | {"ls": ":", "label": f"{plain}, stopped early"}
        ax.plot(early["images"], early["early"], marker="o", mfc="none", **dotted)
    counts = sorted(set(table["images"]))
    ax.set_xscale("log")
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.minorticks_off()
    ax.set(xlabel=f"training images, σ = {table['sigma'].max():g}")
    ax.set(ylabel="test accuracy (%)")
    ax.legend(title=f"mean over {seeds_of(table)}" if table["seeds"].max() > 1 else seeds_of(table))
    return ax.figure


def kinds_of_noise(table: pd.DataFrame) -> Figure:
    """What SLN adds by kind of noise (`kinds_of_noise`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.0), sharex=True, sharey=True)
    names = {"network": ("SLN", "CE"), "momentum": ("SLN-MO", "CE-MO")}
    gain = f"gain in test accuracy (points)\n{bars_of(table)}"
    for (weights, (method, plain)), ax in zip(names.items(), axes.flat, strict=True):
        part, title = table[table["weights"] == weights], f"{method} minus {plain}"
        noises = part["noise"].map(NOISE_NAMES)
        differences(ax, part, "gain", noises, title, gain, color=COLOURS[method], prefix="gain_")
    return figure


def against(table: pd.DataFrame, column: str) -> Figure:
    """Momentum models of `noise_for` or `schedules`: accuracy, and wrong labels that are memorised."""
    part = table[table["weights"] == "momentum"].iloc[::-1]
    figure, ((left, right),) = panels(1, 2, size=(9.6, 0.32 * len(part) + 1.4), sharey=True)
    dots(left, part, "mean", part[column], label=f"momentum models: mean and 95% interval, {seeds_of(part)}")
    dots(right, part, "memorised", part[column], "memorised_")
    left.set(xlabel="test accuracy (%)", ymargin=0.15)
    right.set(xlabel="wrong labels memorised (%)", xlim=(-3, 103), ymargin=0.15)
    legend_of(left, "upper", 1)
    return figure


def corrections(table: pd.DataFrame) -> Figure:
    """Clean and released correction by kind of noise (`corrections`)."""
    figure, ((left, right),) = panels(1, 2, size=(9.6, 3.6))
    of_a_class = table[table["noise"] != "openset"]  # that noise has no labels to repair
    for column, prefix, shown, ax in (
        ("mean", "", table, left),
        ("label_accuracy", "label_", of_a_class, right),
    ):
        noises = shown["noise"].unique()
        for number, (losses, (name, colour)) in enumerate(SHOWN.items()):
            part = shown[shown["losses"] == losses].set_index("noise").loc[noises]
            x = np.arange(len(noises)) + 0.2 * (number - 1)
            dot = {"fmt": "o", "color": colour, "label": name, "capsize": 3}
            ax.errorbar(x, part[column], reach(part, column, prefix), **dot)
        ax.set_xticks(range(len(noises)), [NOISE_NAMES[noise].replace("-", "-\n") for noise in noises])
        ax.margins(x=0.15)
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel("training labels that are true (%)")
    legend_of(left, "upper", 3, bars_of(table))
    return figure


def class_counts(table: pd.DataFrame) -> Figure:
    """What SLN-MO adds by sigma, and by sigma sqrt(C - 1), one line per C (`class_counts`).

    The scale ends at -10 points: much noise drowns the labels.
    """
    import seaborn as sns  # only here: half a second, before a page's first slider

    figure, axes = panels(1, 2, size=(9.6, 3.8), sharey=True)
    shades = sns.color_palette("rocket", table["classes"].nunique() + 1)
    for column, ax in zip(("sigma", "when_sure"), axes.flat, strict=True):
        for (C, part), colour in zip(table[table["sigma"] > 0].groupby("classes"), shades, strict=False):
            style = {"color": colour, "marker": "o", "capsize": 3, "label": f"C = {C}"}
            ax.errorbar(part[column], part["gain"], reach(part, "gain", "gain_"), **style)
        ax.axhline(0, color="black", lw=0.8)
        ax.set(xscale="log", ylim=(-10, max(5, 1.1 * table["gain_high"].max())))
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set(xlabel="σ", ylabel="gain of SLN-MO over σ = 0 (points)")
    axes[0, 1].set(xlabel="σ √(C − 1): noise at the logit of a sure class")
    legend_of(axes[0, 0], "lower", table["classes"].nunique(), bars_of(table))
    return figure


def best_sigmas(best: pd.DataFrame) -> Figure:
    """The best sigma by number of classes, and times sqrt(C - 1) (`ablations.best_sigmas`).

    Both scales are logarithmic and span the same ratio, so that what is constant looks constant.
    """
    table = best_by_classes(best)
    figure, axes = panels(1, 2, size=(8.2, 3.4))
    x, root = np.arange(len(table)), np.sqrt(table["classes"] - 1)
    middle = np.exp(np.log(table["sigma"] * root).mean())
    names = {"sigma": "best σ", "when_sure": "best σ times √(C − 1)"}
    for (column, ylabel), theory, ax in zip(
        names.items(), (middle / root, 0 * root + middle), axes.flat, strict=True
    ):
        ax.plot(x, theory, color="black", lw=1, ls="--", label="theory: σ √(C − 1) is constant")
        dot = {"fmt": "o", "color": COLOURS["SLN-MO"], "capsize": 3, "label": "SLN-MO, geometric mean"}
        ax.errorbar(x, table[column], reach(table, column, f"{column}_"), **dot)
        ax.set_xticks(x, table["classes"])
        ax.set(xlabel="classes C", ylabel=ylabel, yscale="log", xmargin=0.15)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    ends = np.log([ax.get_ylim() for ax in axes.flat])
    half = np.ptp(ends, axis=1).max() / 2
    for ax, centre in zip(axes.flat, ends.mean(axis=1), strict=True):
        ax.set(ylim=np.exp([centre - half, centre + half]))
        ax.set_yticks([tick for tick in (0.125, 0.25, 0.5, 1, 2, 4, 8) if abs(np.log(tick) - centre) < half])
    legend_of(axes[0, 0], "lower", 2, bars_of(table))
    return figure
