"""Pictures of ablations (`study.ablations`); bars and lines carry t intervals over seeds."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import NullFormatter

from sln.config import NOISE_NAMES
from sln.plots.style import (
    COLOURS,
    Figure,
    bars,
    differences,
    dots,
    legend_of,
    look,
    new_axes,
    panels,
    reach,
    seeds_of,
)

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
    ax.legend(loc="lower left")
    return ax.figure


def at_rate(table: pd.DataFrame, rate: float) -> Figure:
    """The methods at one noise rate (`noise_rates`)."""
    part = table[table["rate"] == rate]
    title = f"symmetric noise at rate {rate:g}, σ = {part['sigma'].max():g}"
    figure = bars(part, (7.2, 3.4), title).figure
    words = (f"{row.method} {row.mean:.1f}% ({row.low:.1f} to {row.high:.1f})" for row in part.itertuples())
    figure.words = f"{title}: {', '.join(words)}"
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
    ax.set(ylabel=f"test accuracy (%), {seeds_of(table)}")
    ax.legend()
    return ax.figure


def kinds_of_noise(table: pd.DataFrame) -> Figure:
    """What SLN adds by kind of noise (`kinds_of_noise`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.0), sharex=True, sharey=True)
    names = {"network": ("SLN", "CE"), "momentum": ("SLN-MO", "CE-MO")}
    for (weights, (method, plain)), ax in zip(names.items(), axes.flat, strict=True):
        part, title = table[table["weights"] == weights], f"{method} minus {plain}"
        noises, gain = part["noise"].map(NOISE_NAMES), "gain in test accuracy (points)"
        differences(ax, part, "gain", noises, title, gain, color=COLOURS[method])
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
    for column, shown, ax in (("mean", table, left), ("label_accuracy", of_a_class, right)):
        noises = shown["noise"].unique()
        for number, (losses, (name, colour)) in enumerate(SHOWN.items()):
            part = shown[shown["losses"] == losses].set_index("noise").loc[noises]
            x = np.arange(len(noises)) + 0.2 * (number - 1)
            interval = reach(part) if column == "mean" else None
            ax.errorbar(x, part[column], interval, fmt="o", color=colour, label=name, capsize=3)
        ax.set_xticks(range(len(noises)), [NOISE_NAMES[noise].replace("-", "-\n") for noise in noises])
        ax.margins(x=0.15)
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel("training labels that are true (%)")
    legend_of(left, "upper", 3)
    return figure


def class_counts(table: pd.DataFrame) -> Figure:
    """What SLN-MO adds by sigma, and by sigma sqrt(C - 1), one line per C (`class_counts`).

    The scale ends at -10 points: much noise drowns the labels.
    """
    figure, axes = panels(1, 2, size=(9.6, 3.8), sharey=True)
    shades = sns.color_palette("rocket", table["classes"].nunique() + 1)
    for column, ax in zip(("sigma", "when_sure"), axes.flat, strict=True):
        for (C, part), colour in zip(table[table["sigma"] > 0].groupby("classes"), shades, strict=False):
            style = {"color": colour, "marker": "o", "capsize": 3, "label": f"C = {C}"}
            ax.errorbar(part[column], part["gain"], reach(part, "gain", "gain_"), **style)
        ax.axhline(0, color="black", lw=0.8)
        ax.set(xscale="log", ylim=(-10, max(5, 1.1 * table["gain_high"].max())))
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set(xlabel="σ", ylabel="gain of SLN-MO over σ = 0 (points)")
    axes[0, 1].set(xlabel="σ √(C − 1): noise at the logit of a sure class")
    axes[0, 0].legend(loc="best")
    return figure
