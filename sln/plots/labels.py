"""Pictures of labels: given, corrected and suspect ones."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from sln.analysis import label_correction
from sln.config import NOISE_NAMES, Config
from sln.data import Data
from sln.datasets.load import draw_corruption, load_data
from sln.noise import Corruption
from sln.plots.style import (
    COLOURS,
    RIGHT,
    WRONG,
    Figure,
    band,
    dots,
    legend_of,
    new_axes,
    panels,
    seeds_of,
    stack_bars,
)
from sln.runs.run import Run
from sln.utils.rng import numpy_generator

LIGHT = 74.2  # per cent, from which on a cell's colour is light


def tiles(
    ax: Axes,
    images: Tensor,
    titles: Sequence[str],
    colours: Sequence[str],
    scale: float,
    columns: int = 8,
    line: float = 0.17,
) -> None:
    """Images (n, channels, H, W), grey if channels is 1, in rows, with titles and frames in `colours`.

    All are in one Axes: one for each takes four times as long. A title's line is `line` of an image high.
    """
    above = line * (1 + max(title.count("\n") for title in titles))
    for number, (pixels, title, colour) in enumerate(zip(images, titles, colours, strict=True)):
        x, y = number % columns * 1.2, number // columns * (1.1 + above)
        shown = pixels.permute(1, 2, 0).numpy() / scale
        place = {"extent": (x, x + 1, y + 1, y), "interpolation": "none"}
        ax.imshow(shown, cmap="gray_r", vmin=0, vmax=1, **place)
        ax.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=colour, linewidth=1.5))
        ax.text(x + 0.5, y - 0.05, title, color=colour, fontsize=8, ha="center", va="bottom")
    ax.set(xlim=(-0.1, 1.2 * columns - 0.1), ylim=(y + 1.02, -0.1 - above))
    ax.set_axis_off()


def gallery(images: Tensor, titles: list[str], wrong: list[bool], scale: float, heading: str) -> Figure:
    """Images, eight per row, in WRONG's colour if the given label is wrong and in RIGHT's otherwise."""
    ax = new_axes((8.4, 1.3 * -(-len(images) // 8) + 0.3))
    tiles(ax, images, titles, [WRONG if is_wrong else RIGHT for is_wrong in wrong], scale)
    ax.set_title(heading, fontsize=10)
    return ax.figure


def class_name(noisy: Data, label: int) -> str:
    """A class's name; "none" for an image of no class."""
    return "none" if label < 0 else noisy.classes[label]


def caption(noisy: Data, given: int, true: int) -> str:
    """The title of an image: "3", or "given 3, is 8", or "given 3, is none"."""
    name = class_name(noisy, given)
    return name if given == true else f"given {name}\nis {class_name(noisy, true)}"


def labelled_images(config: Config, examples: np.ndarray) -> Figure:
    """Training images by example number (n,), with given labels, and with true ones if they differ."""
    noisy = load_data(config)
    split = noisy.train[torch.tensor(examples)]
    titles = [caption(noisy, int(given), int(true)) for _, given, true in zip(*split.tensors, strict=True)]
    return gallery(split.images, titles, split.wrong.tolist(), noisy.scale, "")


def moved_images(run: Run, epoch: int, count: int = 16) -> Figure:
    """The images whose targets correction moved furthest by `epoch`: given label, new target, true label."""
    table, noisy = label_correction.most_moved(run, epoch, count), run.data
    split = noisy.train[torch.tensor(table.index.to_numpy())]
    names = table[["given", "target", "true"]].map(lambda label: class_name(noisy, label))
    titles = [f"{given} → {target}\nis {true}" for given, target, true in names.to_numpy()]
    heading = f"epoch {epoch}: given → target; {split.wrong.sum()} of {len(table)} given labels are wrong"
    figure = gallery(split.images, titles, split.wrong.tolist(), noisy.scale, heading)
    rule = {"given": "the clean rule", "as-released": "the released code"}[run.config.correction_losses]
    which = f"Of the {len(table)} images that {rule} moved furthest by epoch {epoch}"
    figure.words = f"{which}, {split.wrong.sum()} had a wrong given label (pink)."
    return figure


def suspects(
    images: Tensor, labels: pd.DataFrame, true: np.ndarray, first: int = 1, count: int = 16
) -> Figure:
    """`count` labels (`scores.table`) from rank `first` on: given → suggested, framed by `true` (N,)."""
    shown = labels.sort_values("rank").iloc[first - 1 : first - 1 + count]
    wrong = shown["given"] != true[shown.index]
    titles = [f"{row.given} → {row.suggested}" for row in shown.itertuples()]
    ends = " to ".join(f"{suspect:.2f}" for suspect in shown["suspect"].iloc[[0, -1]])
    ranks = f"ranks {first} to {first + len(shown) - 1}"
    heading = f"given → suggested, {ranks}, suspect {ends}; {wrong.sum()} are wrong"
    figure = gallery(images[shown.index.tolist()], titles, wrong, 255, heading)
    figure.words = f"Of the labels of {ranks}, with suspect from {ends}, {wrong.sum()} were wrong."
    return figure


def transition_matrices(corruptions: Mapping[str, Corruption], classes: Sequence[str]) -> Figure:
    """The realised transition matrix of each kind of inherent noise, side by side."""
    size = (2.7 * len(corruptions), 3.5)
    figure, axes = panels(1, len(corruptions), size=size, sharey=True)
    figure.set_layout_engine("compressed")  # the panels are square
    for (kind, corruption), ax in zip(corruptions.items(), axes.flat, strict=True):
        title = f"{NOISE_NAMES[kind]}\n{100 * corruption.realised_rate:.1f}% wrong"
        _transition_matrix(corruption.transition_matrix, classes, ax)
        ax.set(xlabel="given label", ylabel="true label", title=title)
        ax.label_outer()
    return figure


def _transition_matrix(T: np.ndarray, classes: Sequence[str], ax: Axes) -> None:
    """T (C, C) as a heat map with its numbers in per cent; rows are true labels, columns given ones."""
    percent = 100 * T
    every = -(-len(T) // 20)  # more numbers and names are too small to read
    ax.pcolormesh(percent, vmin=0, vmax=100, cmap="cividis", linewidths=0.3, edgecolors="white")
    ax.set(xlim=(0, len(T)), ylim=(len(T), 0), aspect="equal")
    places = np.arange(len(T))[::every] + 0.5
    ax.set_xticks(places, classes[::every], rotation=90 * (max(map(len, classes)) > 3))
    ax.set_yticks(places, classes[::every], va="center")
    for (row, column), share in np.ndenumerate(percent if every == 1 else np.empty((0, 0))):
        if share >= 0.5:
            ink = ".15" if share > LIGHT else "w"
            ax.text(column + 0.5, row + 0.5, f"{share:.0f}", color=ink, fontsize=8, ha="center", va="center")
    ax.spines[:].set_visible(False)
    ax.grid(False)


def label_noise(config: Config, noise_mode: str, noise_rate: float, noise_seed: int = 0) -> Figure:
    """The labels of `config`'s data set under inherent noise that is drawn here: T, and eight images."""
    noise = {"noise_mode": noise_mode, "noise_rate": noise_rate, "noise_seed": noise_seed}
    config = config.replace(**noise, labels="generated")
    corruption, noisy = draw_corruption(config), load_data(config)
    heading = f"{NOISE_NAMES[noise_mode]}, rate {noise_rate:.2f}: {100 * corruption.realised_rate:.1f}% wrong"
    figure = Figure(figsize=(9.6, 4.2), layout="none")  # fixed places: a layout takes half of a redraw
    room = 0.009 * max(map(len, noisy.classes))  # for their names
    left = figure.add_axes((0.03 + room, 0.1 + 2 * room, 0.42 - room, 0.82 - 2 * room))
    _transition_matrix(corruption.transition_matrix, noisy.classes, left)
    left.set(xlabel="given label", ylabel="true label", title=heading)
    order = numpy_generator(noise_seed, "bootstrap").permutation(len(corruption.given))[:8]
    images, given, true = noisy.train[torch.tensor(order)].tensors
    titles = [caption(noisy, *labels) for labels in zip(given.tolist(), true.tolist(), strict=True)]
    colours = [WRONG if changed else RIGHT for changed in corruption.changed[order]]
    ax = figure.add_axes((0.5, 0.05, 0.48, 0.85))
    tiles(ax, images, titles, colours, noisy.scale, columns=4)
    ax.set_title("eight training images")
    kind = f"{NOISE_NAMES[noise_mode].capitalize()} noise at rate {noise_rate:.2f} with seed {noise_seed}"
    wrong = f"{100 * corruption.realised_rate:.1f}% of {len(corruption.given):,} labels"
    figure.words = f"{kind} makes {wrong} wrong; rows of the matrix are true labels, columns given ones."
    return figure


def meaning_of_rate(draws: pd.DataFrame, meanings: pd.DataFrame, rate: float, examples: int) -> Figure:
    """What a noise rate means: exact or by chance (left), other classes or all classes (right).

    The tables are `analysis.exact_and_bernoulli` of `examples` labels, and `analysis.rate_meanings`.
    """
    figure, ((left, right),) = panels(1, 2, size=(9.6, 3.8))
    exact, coins = draws["exact"].iloc[0], draws["bernoulli"]
    counts = np.rint(coins * examples).astype(int)
    step = -(-(np.ptp(counts) + 1) // 24)  # bins of whole counts: others make a comb
    edges = (np.arange(counts.min(), counts.max() + step + 1, step) - 0.5) / examples
    left.hist(counts / examples, edges, color="#999999", label=f"a coin per example (std {coins.std():.3f})")
    left.axvline(exact, ymax=0.72, color="black", label=f"exact count (always {exact:.3f})")
    left.set(xlabel="realised noise rate", ylabel="draws", title=f"{len(draws)} corruptions at rate {rate:g}")
    left.margins(y=0.35)
    meanings, redrawn = meanings.set_index("rate"), "redraw over all classes: r (1 − 1/C)"
    right.plot(meanings["other_classes"], color="black", label="flip to another class (here)")
    right.plot(meanings["all_classes"], color="black", ls="--", label=redrawn)
    right.set(xlabel="nominal noise rate r", ylabel="share of wrong labels", xlim=(0, 1), ylim=(0, 1))
    right.set_title("Two meanings of “rate r”")
    for ax in (left, right):
        ax.legend(loc="upper left")
    return figure


def correction(table: pd.DataFrame) -> Figure:
    """Precision and recall of moved labels, truth of all, by rule (`label_correction.over_seeds`)."""
    figure, axes = panels(1, table["reading"].nunique(), size=(9.6, 3.9), sharex=True, sharey=True)
    for (rule, part), ax in zip(table.groupby("reading", sort=False), axes.flat, strict=True):
        for column, name, colour, style in (
            ("precision", "precision: moved labels that were wrong", COLOURS["SLN-MO"], "-"),
            ("recall", "recall: wrong labels that moved", WRONG, "--"),
            ("label_accuracy", "corrected labels that are true", RIGHT, "-."),
            ("given_accuracy", "given labels that are true", "#999999", ":"),
        ):
            seeds = part.groupby("epoch")[column]
            band(ax, seeds.mean(), seeds.std(), color=colour, ls=style, marker="o", ms=3, label=name)
        ax.set(xlabel="epoch", ylim=(0, 1.02), title=rule)
    axes[0, 0].set_ylabel("share")
    legend_of(axes[0, 0], "lower", 2)
    figure.legends[0].set_title(f"band: ± one standard deviation over {seeds_of(table)}")
    return figure


def weights_ablation(table: pd.DataFrame) -> Figure:
    """Rules of w: test accuracy, its paired difference from the first rule, true labels, with t intervals."""
    figure, axes = panels(1, 3, size=(10.2, 2.7), sharey=True)
    titles = ("test accuracy (%)", "difference (points)", "true labels afterwards (%)")
    for column, title, ax in zip(("accuracy", "gain", "labels"), titles, axes.flat, strict=True):
        dots(ax, table, column, range(len(table)), f"{column}_", color=COLOURS["SLN-MO-LC"])
        ax.set(yticks=range(len(table)), yticklabels=table["rule"], title=title, ymargin=0.2)
    axes[0, 0].invert_yaxis()
    axes[0, 1].axvline(0, color="black", lw=1)
    figure.supxlabel(f"mean and 95% t interval over {seeds_of(table)}", fontsize=9)
    return figure


def worked_example(run: Run, table: pd.DataFrame) -> Figure:
    """One image's target in every corrected epoch, a panel per rule (`label_correction.worked_example`)."""
    first, noisy, rules = table.iloc[0], run.data, table.groupby("rule", sort=False)
    figure, axes = panels(1, 1 + len(rules), size=(9.6, 3.2), width_ratios=[0.55] + [1] * len(rules))
    image, title = noisy.train.images[[first.example]], caption(noisy, first.given, first.true)
    tiles(axes[0, 0], image, [title], [WRONG], noisy.scale, columns=1)
    given, true = (class_name(noisy, label) for label in (first.given, first.true))
    colours = {f"given label, {given}": WRONG, f"true label, {true}": RIGHT, "other classes": "#cccccc"}
    for (rule, part), ax in zip(rules, axes[0, 1:], strict=True):
        shares = part[["on_given", "on_true"]].assign(other=1 - part["on_given"] - part["on_true"])
        stack_bars(ax, part["epoch"], shares.set_axis(list(colours), axis=1), colours)
        ax.plot(part["epoch"], part["w"], "o-", color="black", ms=3, lw=1, label="w")
        ax.set(xlabel="epoch", ylim=(0, 1.02), title=rule)
    axes[0, 1].set_ylabel("entry of the target")
    legend_of(axes[0, 1], "lower", 4)
    return figure


def suspect_threshold(table: pd.DataFrame) -> Figure:
    """Precision, recall and the labels' truth over the threshold (`evaluate.over_threshold`)."""
    ax = new_axes((7.2, 4.2))
    for column, name, colour, style in (
        ("precision", "precision: flagged labels that are wrong", COLOURS["SLN-MO"], "-"),
        ("recall", "recall: wrong labels that are flagged", WRONG, "--"),
        ("true_after", "labels that are true once the flagged are replaced", RIGHT, "-."),
    ):
        ax.plot(table["threshold"], table[column], color=colour, ls=style, marker="o", ms=3, label=name)
    ax.axvline(0.5, ymin=0.3, color="black", lw=1, ls=":", label="the default, 0.5")
    ax.set(xlabel="threshold on how suspect a label is", ylabel="share", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="lower left")
    return ax.figure
