"""Pictures of the regression with v∘v (`analysis.quadratic`)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sln.analysis import quadratic
from sln.analysis.quadratic import GAUSSIAN, LABELS, PENALTY, PLAIN, Trained, short
from sln.plots.style import COLOURS, Figure

SHOWN = (PLAIN, GAUSSIAN, LABELS)  # methods whose v∘v is drawn
COLOUR = dict.fromkeys(quadratic.METHODS, COLOURS["gradient noise"])
COLOUR |= {PLAIN: COLOURS["CE"], LABELS: COLOURS["SLN"], PENALTY: "black"}


def shapes_of_noise(runs: Sequence[Trained], table: pd.DataFrame) -> Figure:
    """What noise of one size and two shapes finds (`quadratic.table` of `runs`).

    Above: v∘v of the first run and seed. Below: its population error over the steps, with t intervals of the
    geometric mean over seeds; and after the last step, for every seed and all runs.
    """
    figure = Figure(figsize=(9.6, 7.4))
    above, below = figure.subfigures(2, 1, height_ratios=(2, 3))
    _recovered(above.subplots(1, 3, sharey=True), runs[0])
    left, right = below.subplots(1, 2, width_ratios=(5, 6))
    seeds = table["seed"].nunique()
    first = table[table["inherent"] == runs[0].setting.inherent]
    _over_steps(left, quadratic.over_seeds(first, "error"), band=seeds > 1)
    left.set_title(f"population error, {seeds} seeds, t intervals")
    left.set_xlabel(f"step (inherent noise {runs[0].setting.inherent:g})")
    _at_the_end(right, table)
    return figure


def one_seed(seed: int = 0, sigma: float = 2.0, inherent: float = 0.0, start: float = 1.0) -> Figure:
    """The same for one seed and fewer steps, trained now (`quadratic.one_seed`)."""
    run = quadratic.one_seed(seed, sigma, inherent, start)
    figure = Figure(figsize=(9.6, 5.6), layout="none")  # fixed places: a layout takes half of a redraw
    *above, last = [figure.add_axes((x, y, 0.42, 0.35)) for y in (0.58, 0.09) for x in (0.065, 0.57)]
    _recovered(above, run)
    _over_steps(last, quadratic.table([run]).rename(columns={"error": "mean"}), band=False)
    last.set_title("population error")
    errors = {name: np.sum((run.found(name)[0] - run.setting.truth) ** 2) for name in SHOWN}
    found = ", ".join(f"{short(error)} ({name})" for name, error in errors.items())
    where = f"At σ = {sigma:g} and inherent noise {inherent:g}, from start {start:g} with seed {seed}"
    figure.words = f"{where}, the error after {run.setting.steps:,} steps is {found}."
    return figure


def _recovered(axes: Sequence[Axes], run: Trained) -> None:
    """Stems of v∘v by entry, the first seed's, beside the true w."""
    truth = run.setting.truth
    top = 1.1 * max(run.found(method)[0].max() for method in SHOWN)
    for ax, method in zip(axes, SHOWN, strict=True):
        found, colour = run.found(method)[0], COLOUR[method]
        ax.plot(found, "o", color=colour, ms=3, label="found")
        real = np.flatnonzero(truth)
        ax.plot(real, truth[real], "o", color="black", mfc="none", ms=7, label="true, if not 0")
        stems = np.stack([0 * found, found, np.full_like(found, np.nan)], axis=1)  # one line, with gaps
        places = np.repeat(np.arange(len(found)), 3)
        ax.plot(places, stems.ravel(), color=colour, lw=1.2, solid_capstyle="butt", zorder=1)
        ax.set(
            title=f"{method}: error {short(np.sum((found - truth) ** 2))}", xlabel="entry j", ylim=(-0.1, top)
        )
    axes[0].set_ylabel(r"$v_j^2$, one seed")
    axes[-1].legend(loc="upper right")


def _over_steps(ax: Axes, means: pd.DataFrame, band: bool) -> None:
    for method in (*SHOWN, PENALTY):
        part, colour = means[means["method"] == method], COLOUR[method]
        ax.plot(part["step"], part["mean"], "--" if method == PENALTY else "-", color=colour, label=method)
        if band and method != PENALTY:
            ax.fill_between(part["step"], part["low"], part["high"], color=colour, alpha=0.15, lw=0)
    ax.set(yscale="log", xlabel="step", ylabel=r"$|v\circ v-w|^2$")
    ax.legend(loc="best", fontsize=8)


def _at_the_end(ax: Axes, table: pd.DataFrame) -> None:
    """A dot per seed, and the geometric mean with its interval, by method and inherent noise."""
    ends = quadratic.last(table)
    means = quadratic.over_seeds(ends, "error")
    levels, names = list(means["inherent"].unique()), list(means["method"].unique())
    for number, inherent in enumerate(levels):
        shift = 0.34 * (number - (len(levels) - 1) / 2)
        for row, method in enumerate(names):
            y, colour = len(names) - 1 - row - shift, COLOUR[method]
            here = f"inherent == {inherent} and method == @method"
            errors, mean = ends.query(here)["error"], means.query(here).iloc[0]
            ax.plot(
                errors, np.full(len(errors), y), "o" if number == 0 else "^", color=colour, ms=4, alpha=0.4
            )
            ax.plot([mean["low"], mean["high"]], [y, y], color=colour, lw=3)
            ax.plot(mean["mean"], y, "|", color="black", ms=10)
    for marker, inherent in zip("o^", levels, strict=False):
        words = f"with inherent noise {inherent:g}" if inherent else "without inherent noise"
        ax.plot([], [], marker, color="grey", ms=4, label=words)
    ax.set_yticks(range(len(names)), names[::-1])
    ax.set(xscale="log", xlabel=r"$|v\circ v-w|^2$", title="after the last step: every seed, mean, interval")
    ax.legend(loc="upper center", fontsize=8)
