"""Pictures of the results, beside the published ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from sln.config import NOISE_NAMES
from sln.plots.style import COLOURS, Figure, legend_of, new_axes, panels, reach


def table(accuracies: pd.DataFrame) -> Figure:
    """Test accuracy by kind of noise and method, ± standard deviation over seeds (`results.table`)."""
    ax = new_axes((9.6, 4.2))
    noises, methods = (list(dict.fromkeys(accuracies[column])) for column in ("noise", "method"))
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        part = accuracies[accuracies["method"] == method].set_index("noise").loc[noises]
        x = np.arange(len(noises)) + (number - (len(methods) - 1) / 2) * width
        bars = {"yerr": part["std"], "error_kw": {"capsize": 2, "lw": 1}}
        ax.bar(x, part["mean"], width=0.92 * width, color=COLOURS[method], label=method, **bars)
    ax.set_xticks(range(len(noises)), [NOISE_NAMES[noise] for noise in noises])
    ax.set(ylabel="test accuracy (%)", ylim=(0, 105))
    ax.grid(axis="x", visible=False)
    ax.legend(ncols=len(methods), loc="upper center", bbox_to_anchor=(0.5, 1.13))
    return ax.figure


def one_noise(table: pd.DataFrame, paper: pd.DataFrame, noise: str) -> Figure:
    """One kind of noise: our test accuracy (bars), and the paper's if it has one (rings), in per cent.

    The tables are those of `results.table` and `results.of_the_paper`.
    """
    part = table[table["noise"] == noise]
    ax = new_axes((7.2, 3.8))
    colours = [COLOURS[method] for method in part["method"]]
    ax.bar(part["method"], part["mean"], yerr=part["std"], color=colours, capsize=3, width=0.6)
    words = []
    for row in part.itertuples():
        published = paper["mean"].get((noise, row.method))
        words.append(f"{row.method} {row.mean:.1f} ± {row.std:.1f}")
        if published is not None:
            ax.plot(row.method, published, "o", mfc="white", color="black", ms=8)
            words[-1] += f" (paper {published:.2f})"
    ax.set(ylabel="test accuracy (%)", ylim=(0, 105), title=f"{NOISE_NAMES[noise]} noise; rings: the paper")
    ax.grid(axis="x", visible=False)
    ax.figure.words = f"{NOISE_NAMES[noise]}: {', '.join(words)}"
    return ax.figure


def beside_published(table: pd.DataFrame) -> Figure:
    """The paper's accuracy (ring) and ours (dot, ± standard deviation) per recipe, one panel per data set.

    The table is that of `results.of_the_recipes`; rows may lack the paper's number or ours.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    figure, axes = panels(1, len(datasets), size=(10.2, 3.6), sharex=True)
    for dataset, ax in zip(datasets, axes.flat, strict=True):
        part = table[table["dataset"] == dataset]
        noises = list(dict.fromkeys(part["noise"]))
        count = len(noises)
        for row in part.itertuples():
            y, colour = count - noises.index(row.noise), COLOURS[row.method]
            ax.plot(row.paper, y + 0.12, "o", mfc="none", color=colour, ms=7)
            if row.seeds:
                ax.errorbar(row.ours, y - 0.12, xerr=row.ours_std, fmt="o", color=colour, ms=6, capsize=3)
        if part["paper"].isna().all():
            ax.text(0.5, 0.85, "the paper’s numbers\nare not at hand", ha="center", transform=ax.transAxes)
        if not part["seeds"].any():
            ax.text(0.5, 0.03, "no runs of ours yet", ha="center", transform=ax.transAxes, color="#555555")
        ax.set_yticks(range(count, 0, -1), [NOISE_NAMES.get(noise, noise) for noise in noises])
        ax.set(title=dataset, xlabel="test accuracy (%)", ylim=(0.2, count + 0.7), xlim=(25, 100))
    names = ("CE", "SLN", "SLN-MO", "SLN-MO-LC")
    handles = [Line2D([], [], color=COLOURS[name], label=name, lw=3) for name in names]
    handles.append(Line2D([], [], color="black", marker="o", mfc="none", ls="", label="paper"))
    handles.append(Line2D([], [], color="black", marker="o", ls="", label="ours"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def steps(table: pd.DataFrame, profile: str) -> Figure:
    """Each step of the paper's order: our gain with two standard errors, the paper's as a ring.

    One panel per kind of noise (`results.steps_of_the_order`).
    """
    noises = list(dict.fromkeys(table["noise"]))
    figure, axes = panels(1, len(noises), size=(2.6 * len(noises) + 0.8, 3.0), sharex=True, sharey=True)
    for noise, ax in zip(noises, axes.flat, strict=True):
        part = table[table["noise"] == noise].iloc[::-1]
        ax.axvline(0, color="black", lw=1)
        ours = {"fmt": "o", "color": COLOURS["SLN-MO"], "capsize": 3, "label": f"ours ({profile})"}
        ax.errorbar(part["ours"], part["step"], xerr=reach(part, "ours"), **ours)
        ax.plot(part["paper"], part["step"], "o", color="black", mfc="none", ms=9, label="paper (CIFAR-10)")
        ax.set(xlabel="gain in test accuracy (points)", title=NOISE_NAMES[noise])
        ax.margins(y=0.3)
    legend_of(axes[0, 0], "upper", 2)
    return figure
