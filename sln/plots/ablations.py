"""Pictures of ablations (`study.ablations`); bars and lines carry t intervals over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import NullFormatter

from sln.config import NOISE_NAMES
from sln.plots.style import COLOURS, Figure, legend_of, look, new_axes, panels, reach

SHOWN = {  # rules of label correction
    "none": ("SLN-MO, no correction", COLOURS["SLN-MO"]),
    "given": ("clean rule", COLOURS["SLN-MO-LC"]),
    "as-released": ("as released", "#777777"),
}
GAIN = ("gain_low", "gain_high")


def over_rates(table: pd.DataFrame) -> Figure:
    """Test accuracy by noise rate; below each rate the sigma chosen there (`noise_rates`)."""
    ax = new_axes((7.2, 4.0))
    for method, part in table.groupby("method", sort=False):
        ax.errorbar(part["rate"], part["mean"], reach(part), marker="o", capsize=3, **look(method))
    early = table[table["method"] == "CE-MO"]
    dotted = look("CE-MO") | {"ls": ":", "label": "CE-MO, stopped early"}
    ax.plot(early["rate"], early["early"], marker="o", mfc="none", **dotted)
    chosen = table[table["method"] == "SLN"]
    ax.set_xticks(
        chosen["rate"],
        [f"{rate:g}\nσ = {s:g}" for rate, s in zip(chosen["rate"], chosen["sigma"], strict=True)],
    )
    ax.set(xlabel="rate of symmetric noise, and the chosen σ", ylabel="test accuracy (%)", ylim=(0, 102))
    ax.legend(loc="lower left")
    return ax.figure


def at_rate(table: pd.DataFrame, rate: float) -> Figure:
    """The methods at one noise rate (`noise_rates`)."""
    part = table[table["rate"] == rate]
    ax = new_axes((7.2, 3.4))
    colours = [COLOURS[method] for method in part["method"]]
    ax.bar(part["method"], part["mean"], yerr=reach(part), color=colours, capsize=3, width=0.6)
    title = f"symmetric noise at rate {rate:g}, σ = {part['sigma'].max():g}"
    ax.set(ylabel="test accuracy (%)", ylim=(0, 105), title=title)
    ax.grid(axis="x", visible=False)
    words = (f"{row.method} {row.mean:.1f}% ({row.low:.1f} to {row.high:.1f})" for row in part.itertuples())
    ax.figure.words = f"{title}: {', '.join(words)}"
    return ax.figure


def image_counts(table: pd.DataFrame) -> Figure:
    """Test accuracy by number of training images (`image_counts`)."""
    ax = new_axes((7.2, 4.0))
    for method, part in table.groupby("method", sort=False):
        ax.plot(part["images"], part["mean"], marker="o", **look(method))
    early = table[table["method"] == "CE-MO"]
    dotted = look("CE-MO") | {"ls": ":", "label": "CE-MO, stopped early"}
    ax.plot(early["images"], early["early"], marker="o", mfc="none", **dotted)
    counts = sorted(set(table["images"]))
    ax.set_xscale("log")
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.minorticks_off()
    runs = table["seeds"].min()
    ax.set(
        xlabel=f"training images, σ = {table['sigma'].max():g}", ylabel=f"test accuracy (%), {runs} run each"
    )
    ax.legend()
    return ax.figure


def kinds_of_noise(table: pd.DataFrame) -> Figure:
    """What SLN adds by kind of noise (`kinds_of_noise`)."""
    figure, axes = panels(1, 2, size=(9.6, 3.0), sharex=True, sharey=True)
    names = {"network": ("SLN", "CE"), "momentum": ("SLN-MO", "CE-MO")}
    for (weights, (method, plain)), ax in zip(names.items(), axes.flat, strict=True):
        part = table[table["weights"] == weights].iloc[::-1]
        labels = [NOISE_NAMES[noise] for noise in part["noise"]]
        ax.axvline(0, color="black", lw=1)
        dots = {"fmt": "o", "color": COLOURS[method], "capsize": 3}
        ax.errorbar(part["gain"], labels, xerr=reach(part, "gain"), **dots)
        ax.set(title=f"{method} minus {plain}", xlabel="gain in test accuracy (points)")
        ax.margins(y=0.2)
    return figure


def against(table: pd.DataFrame, column: str) -> Figure:
    """Momentum models of `noise_for` or `schedules`: accuracy, and wrong labels that are memorised."""
    part = table[table["weights"] == "momentum"].iloc[::-1]
    figure, axes = panels(1, 2, size=(9.6, 0.32 * len(part) + 1.4), sharey=True)
    dots = {"fmt": "o", "color": COLOURS["SLN-MO"], "capsize": 3}
    axes[0, 0].errorbar(part["mean"], part[column], xerr=reach(part), **dots)
    axes[0, 1].plot(part["memorised"], part[column], "o", color=COLOURS["SLN-MO"])
    axes[0, 0].set(xlabel="momentum models: test accuracy (%)")
    axes[0, 1].set(xlabel="wrong labels memorised (%)", xlim=(-3, 103))
    for ax in axes.flat:
        ax.margins(y=0.15)
    return figure


def corrections(table: pd.DataFrame) -> Figure:
    """Clean and released correction by kind of noise (`corrections`).

    Open-set noise has no labels to repair, so it is missing on the right.
    """
    figure, axes = panels(1, 2, size=(9.6, 3.6))
    of_a_class = table[table["noise"] != "openset"]
    for (shown, value), ax in zip(((table, "mean"), (of_a_class, "label_accuracy")), axes.flat, strict=True):
        noises = list(dict.fromkeys(shown["noise"]))
        for number, (losses, (name, colour)) in enumerate(SHOWN.items()):
            part = shown[shown["losses"] == losses].set_index("noise").loc[noises]
            x = np.arange(len(noises)) + 0.2 * (number - 1)
            bars = reach(part) if value == "mean" else None
            ax.errorbar(x, part[value], bars, fmt="o", color=colour, label=name, capsize=3)
        ax.set_xticks(range(len(noises)), [NOISE_NAMES[noise].replace("-", "-\n") for noise in noises])
        ax.margins(x=0.15)
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[0, 1].set_ylabel("training labels that are true (%)")
    legend_of(axes[0, 0], "upper", 3)
    return figure


def class_counts(table: pd.DataFrame) -> Figure:
    """What SLN-MO adds by sigma, and by sigma sqrt(C - 1), one line per C (`class_counts`).

    The scale ends at -10 points: much noise drowns the labels.
    """
    figure, axes = panels(1, 2, size=(9.6, 3.8), sharey=True)
    shades = sns.color_palette("rocket", table["classes"].nunique() + 1)
    for (C, part), colour in zip(table[table["sigma"] > 0].groupby("classes"), shades, strict=False):
        for column, ax in zip(("sigma", "when_sure"), axes.flat, strict=True):
            style = {"color": colour, "marker": "o", "capsize": 3, "label": f"C = {C}"}
            ax.errorbar(part[column], part["gain"], reach(part, "gain", GAIN), **style)
    axes[0, 0].set(xlabel="σ", ylabel="gain of SLN-MO over σ = 0 (points)")
    axes[0, 1].set(xlabel="σ √(C − 1): noise at the logit of a sure class")
    for ax in axes.flat:
        ax.axhline(0, color="black", lw=0.8)
        ax.set(xscale="log", ylim=(-10, max(5, 1.1 * table["gain_high"].max())))
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].legend(loc="best")
    return figure
