"""Pictures of the results, beside the published ones."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D

from sln.config import NOISE_NAMES
from sln.plots.style import COLOURS, Figure, legend_of, new_axes, panels, reach


def table(accuracies: pd.DataFrame) -> Figure:
    """Test accuracy by kind of noise and method (`results.table`), one panel per kind of noise.

    Dots: after the last epoch, with t intervals. Rings: at the epoch chosen on noisy validation labels.
    """
    noises = list(dict.fromkeys(accuracies["noise"]))
    figure, axes = panels(1, len(noises), size=(2.5 * len(noises) + 1, 2.9), sharey=True)
    for noise, ax in zip(noises, axes.flat, strict=True):
        part = accuracies[accuracies["noise"] == noise].iloc[::-1]
        for y, (_, row) in enumerate(part.iterrows()):
            colour, place = COLOURS[row["method"]], ([row["mean"]], [y])
            ends = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            ax.errorbar(*place, xerr=ends, fmt="o", color=colour, capsize=3)
            ax.plot(row["early"], y, "o", mfc="none", color=colour, ms=9)
        ax.set_yticks(range(len(part)), part["method"])
        ax.set(title=NOISE_NAMES[noise], xlabel="test accuracy (%)")
        ax.margins(y=0.15)
    kinds = {"last epoch, 95% interval": "black", "stopped early, on noisy labels": "none"}
    handles = [
        Line2D([], [], color="black", marker="o", ls="", mfc=fill, label=name) for name, fill in kinds.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def one_noise(table: pd.DataFrame, paper: pd.DataFrame, noise: str) -> Figure:
    """One kind of noise: our test accuracy (bars), and the paper's if it has one (rings), in per cent.

    The tables are those of `results.table` and `results.of_the_paper`.
    """
    part = table[table["noise"] == noise]
    ax = new_axes((7.2, 3.8))
    colours = [COLOURS[method] for method in part["method"]]
    ax.bar(part["method"], part["mean"], yerr=reach(part), color=colours, capsize=3, width=0.6)
    words = []
    for row in part.itertuples():
        published = paper["mean"].get((noise, row.method))
        words.append(f"{row.method} {row.mean:.1f} ({row.low:.1f} to {row.high:.1f})")
        if published is not None:
            ax.plot(row.method, published, "o", mfc="white", color="black", ms=8)
            words[-1] += f" (paper {published:.2f})"
    ax.set(ylabel="test accuracy (%)", ylim=(0, 105), title=f"{NOISE_NAMES[noise]} noise; rings: the paper")
    ax.grid(axis="x", visible=False)
    ax.figure.words = f"{NOISE_NAMES[noise]}: {', '.join(words)}"
    return ax.figure


def beside_published(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Accuracy per recipe: the paper's (ring), re-sln's (diamond) and ours (dot), one panel per data set.

    The tables are `results.of_the_recipes` and `results.published`. Data sets without any number are left
    out.
    """
    numbers = table[table["paper"].notna() | (table["seeds"] > 0)]
    others = published[published["source"] == "re-sln"].set_index(["dataset", "noise", "method"])["mean"]
    datasets = list(dict.fromkeys(numbers["dataset"]))
    figure, axes = panels(1, len(datasets), size=(4.4 * len(datasets) + 1, 3.6), sharex=True)
    for dataset, ax in zip(datasets, axes.flat, strict=True):
        part = numbers[numbers["dataset"] == dataset]
        noises = list(dict.fromkeys(part["noise"]))
        count = len(noises)
        for row in part.itertuples():
            y, colour = count - noises.index(row.noise), COLOURS[row.method]
            ax.plot(row.paper, y + 0.2, "o", mfc="none", color=colour, ms=7)
            ax.plot(others.get((dataset, row.noise, row.method)), y, "D", mfc="none", color=colour, ms=5)
            if row.seeds:
                ax.errorbar(row.ours, y - 0.2, xerr=row.ours_std, fmt="o", color=colour, ms=6, capsize=3)
        ax.set_yticks(range(count, 0, -1), [NOISE_NAMES.get(noise, noise) for noise in noises])
        ax.set(title=dataset, xlabel="test accuracy (%)", ylim=(0.4, count + 0.6), xlim=(25, 100))
    names = ("CE", "SLN", "SLN-MO", "SLN-MO-LC")
    handles = [Line2D([], [], color=COLOURS[name], label=name, lw=3) for name in names]
    marks = {"paper": ("o", "none"), "re-sln": ("D", "none")} | (
        {"ours": ("o", "black")} if numbers["seeds"].any() else {}
    )
    handles += [
        Line2D([], [], color="black", marker=marker, mfc=fill, ls="", label=name)
        for name, (marker, fill) in marks.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def steps(table: pd.DataFrame, profile: str) -> Figure:
    """Each step of the paper's order: our gain with its t interval, the paper's as a ring.

    One panel per step, each on its own scale (`results.steps_of_the_order`).
    """
    names = list(dict.fromkeys(table["step"]))
    figure, axes = panels(1, len(names), size=(9.6, 2.8), sharey=True)
    for step, ax in zip(names, axes.flat, strict=True):
        part = table[table["step"] == step].iloc[::-1]
        noises = [NOISE_NAMES[noise] for noise in part["noise"]]
        ax.axvline(0, color="black", lw=1)
        ours = {"fmt": "o", "color": COLOURS["SLN-MO"], "capsize": 3, "label": f"ours ({profile})"}
        ax.errorbar(part["ours"], noises, xerr=reach(part, "ours"), **ours)
        ax.plot(part["paper"], noises, "o", color="black", mfc="none", ms=9, label="paper (CIFAR-10)")
        ax.set(xlabel="gain in test accuracy (points)", title=step)
        ax.margins(y=0.2)
    legend_of(axes[0, 0], "upper", 2)
    return figure


def rivals(table: pd.DataFrame) -> Figure:
    """SLN-MO minus its rivals with t intervals, one panel per kind of noise (`results.early_stopping`)."""
    noises = list(dict.fromkeys(table["noise"]))
    figure, axes = panels(1, len(noises), size=(2.4 * len(noises) + 1.6, 2.4), sharey=True)
    for noise, ax in zip(noises, axes.flat, strict=True):
        part = table[table["noise"] == noise].iloc[::-1]
        ax.axvline(0, color="black", lw=1)
        dots = {"fmt": "o", "color": COLOURS["SLN-MO"], "capsize": 3}
        ax.errorbar(part["gain"], part["rival"], xerr=reach(part, "gain"), **dots)
        ax.set(title=NOISE_NAMES[noise], xlabel="SLN-MO minus … (points)")
        ax.margins(y=0.2)
    return figure
