"""Pictures of the results, beside the published ones."""

import pandas as pd
from matplotlib.lines import Line2D

from sln.config import NOISE_NAMES
from sln.plots.style import COLOURS, Figure, bars, differences, dots, legend_of, panels, seeds_of


def table(accuracies: pd.DataFrame) -> Figure:
    """Test accuracy by kind of noise and method (`results.table`), one panel per kind of noise.

    Dots: after the last epoch, with t intervals. Rings: at the epoch chosen on noisy validation labels.
    """
    count = accuracies["noise"].nunique()
    figure, axes = panels(1, count, size=(2.5 * count + 1, 2.9), sharey=True)
    for (noise, part), ax in zip(accuracies.groupby("noise", sort=False), axes.flat, strict=True):
        for y, method in enumerate(part["method"].iloc[::-1]):
            row, colour = part[part["method"] == method], COLOURS[method]
            dots(ax, row, "mean", [y], color=colour)
            ax.plot(row["early"], [y], "o", mfc="none", color=colour, ms=9)
        ax.set_yticks(range(len(part)), part["method"].iloc[::-1])
        ax.set(title=NOISE_NAMES[noise], xlabel="test accuracy (%)", ymargin=0.15)
    last = f"last epoch, 95% t interval over {seeds_of(accuracies)}"
    marks = {last: ("o", "black"), "stopped early, on noisy labels": ("o", "none")}
    figure.legend(handles=_handles(marks), loc="outside upper center", ncols=2)
    return figure


def _handles(marks: dict[str, tuple[str, str]]) -> list[Line2D]:
    """Entries of a legend: name, and marker and its filling."""
    line = {"color": "black", "ls": ""}
    return [Line2D([], [], marker=mark, mfc=fill, label=name, **line) for name, (mark, fill) in marks.items()]


def one_noise(table: pd.DataFrame, paper: pd.DataFrame, noise: str) -> Figure:
    """Our accuracy under one kind of noise (`results.table`), and the paper's (`results.of_the_paper`)."""
    part = table[table["noise"] == noise]
    legend = f"bars: 95% t interval, {seeds_of(part)}; rings: the paper"
    ax = bars(part, (7.2, 3.8), f"{NOISE_NAMES[noise]} noise ({legend})")
    words = []
    for row in part.itertuples():
        published = paper["mean"].get((noise, row.method))
        words.append(f"{row.mean:.1f} ± {(row.high - row.low) / 2:.1f} for {row.method}")
        if published is not None:
            ax.plot(row.method, published, "o", mfc="white", color="black", ms=8)
            words[-1] += f" (paper {published:.2f})"
    ax.figure.words = (
        f"Under {NOISE_NAMES[noise]} noise, test accuracy (%, 95% interval) is {', '.join(words)}."
    )
    return ax.figure


def beside_published(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Accuracy per recipe: the paper's (ring), re-sln's (diamond) and ours (dot), one panel per data set.

    The tables are `results.of_the_recipes` and `.published`; data sets without any number are left out.
    """
    numbers = table[table["paper"].notna() | (table["seeds"] > 0)]
    others = published[published["source"] == "re-sln"].set_index(["dataset", "noise", "method"])["mean"]
    count = numbers["dataset"].nunique()
    figure, axes = panels(1, count, size=(4.4 * count + 1, 3.6), sharex=True)
    for (dataset, part), ax in zip(numbers.groupby("dataset", sort=False), axes.flat, strict=True):
        noises = list(part["noise"].unique()[::-1])
        for row in part.itertuples():
            y, colour = 1 + noises.index(row.noise), COLOURS[row.method]
            ax.plot(row.paper, y + 0.2, "o", mfc="none", color=colour, ms=7)
            other = others.get((dataset, row.noise, row.method), float("nan"))
            ax.plot(other, y, "D", mfc="none", color=colour, ms=5)
            if row.seeds:
                ax.errorbar(row.ours, y - 0.2, xerr=row.ours_std, fmt="o", color=colour, ms=6, capsize=3)
        ax.set_yticks(range(1, len(noises) + 1), [NOISE_NAMES.get(noise, noise) for noise in noises])
        ax.set(title=dataset, xlabel="test accuracy (%)", ylim=(0.4, len(noises) + 0.6), xlim=(25, 100))
    names, marks = ("CE", "SLN", "SLN-MO", "SLN-MO-LC"), {"paper": ("o", "none"), "re-sln": ("D", "none")}
    marks |= {"ours": ("o", "black")} if numbers["seeds"].any() else {}
    handles = [Line2D([], [], color=COLOURS[name], label=name, lw=3) for name in names] + _handles(marks)
    title = None if numbers["seeds"].any() else "published numbers: no run of ours is finished"
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), title=title)
    return figure


def steps(table: pd.DataFrame, ours: str, seeds: str) -> Figure:
    """Each step of the paper's order: our gain, and the paper's (`results.steps_of_the_order`).

    ours : a name for our data; seeds : `seeds_of` the runs
    """
    figure, axes = panels(1, table["step"].nunique(), size=(9.6, 2.8), sharey=True)
    label = f"ours ({ours}), 95% t interval over {seeds}"
    shown = {"xlabel": "gain in test accuracy (points)", "label": label}
    for (step, part), ax in zip(table.groupby("step", sort=False), axes.flat, strict=True):
        noises = part["noise"].map(NOISE_NAMES)
        differences(ax, part, "ours", noises, step, **shown)
        ax.plot(part["paper"], noises, "o", color="black", mfc="none", ms=9, label="paper (CIFAR-10)")
    legend_of(axes[0, 0], "upper", 2)
    return figure


def rivals(table: pd.DataFrame, seeds: str) -> Figure:
    """SLN-MO minus its rivals with t intervals, one panel per kind of noise (`results.early_stopping`).

    seeds : `seeds_of` the runs
    """
    count = table["noise"].nunique()
    figure, axes = panels(1, count, size=(2.4 * count + 1.6, 2.4), sharey=True)
    for (noise, part), ax in zip(table.groupby("noise", sort=False), axes.flat, strict=True):
        differences(ax, part, "gain", part["rival"], NOISE_NAMES[noise], "SLN-MO minus … (points)")
    figure.suptitle(f"mean of the paired difference, 95% t interval over {seeds}", fontsize=10)
    return figure
