"""Figures made from values: what a notebook calls once at a default and then hands, unchanged, to a slider.

Each takes plain values, computes in well under half a second, and returns a new Figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from sln import analysis
from sln.analysis import label_correction
from sln.analysis.confidence import pooled_examples
from sln.config import Config
from sln.data import Data
from sln.datasets.load import draw_corruption, load_data
from sln.noise import Corruption
from sln.plots import base, landscape
from sln.plots.base import NOISE_NAMES, RIGHT, WRONG, Figure
from sln.runs.run import Run
from sln.study.study import MethodRuns
from sln.utils.rng import numpy_generator


def matrices(corruptions: Mapping[str, Corruption], classes: Sequence[str]) -> Figure:
    """The realised transition matrix of each kind of inherent noise, side by side."""
    figure, axes = base.panels(1, len(corruptions), size=(3.0 * len(corruptions), 3.4), sharey=True)
    for (kind, corruption), ax in zip(corruptions.items(), axes.flat, strict=True):
        title = f"{NOISE_NAMES[kind]}\n{100 * corruption.realised_rate:.1f}% wrong"
        base.transition_matrix(corruption.transition_matrix, classes, ax, title)
        ax.label_outer()
    return figure


def labelled_images(config: Config, examples: np.ndarray) -> Figure:
    """Training images with their given labels, by example number (n,); wrong ones also say what they are."""
    return gallery(load_data(config), torch.as_tensor(examples))


def label_noise(config: Config, noise_mode: str, noise_rate: float, noise_seed: int = 0) -> Figure:
    """The training labels of `config`'s data set under one kind and rate of inherent noise, drawn here.

    Left T[true, given], right eight images.
    """
    config = config.replace(
        noise_mode=noise_mode, noise_rate=noise_rate, noise_seed=noise_seed, labels="generated"
    )
    corruption, noisy = draw_corruption(config), load_data(config)
    figure = Figure(figsize=(9.6, 4.2))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
    heading = f"{NOISE_NAMES[noise_mode]}, rate {noise_rate:.2f}: {100 * corruption.realised_rate:.1f}% wrong"
    base.transition_matrix(corruption.transition_matrix, noisy.classes, left.subplots(), heading)
    order = numpy_generator(noise_seed, "bootstrap").permutation(len(corruption.given))[:8]
    for index, ax in zip(order, right.subplots(2, 4).flat, strict=True):
        split, wrong = noisy.train, bool(corruption.changed[index])
        title = caption(noisy, int(split.given[index]), int(split.true[index]))
        base.image(split.images[index], ax, title, WRONG if wrong else RIGHT, noisy.scale)
    right.suptitle("eight training images", fontsize=10)
    figure.words = f"{heading} of {len(corruption.given):,} labels; seed {noise_seed}"
    return figure


def gallery(noisy: Data, examples: Tensor, titles: Sequence[str] | None = None, heading: str = "") -> Figure:
    """Training images by example number (n,), framed by whether their given label is right."""
    split = noisy.train[examples]
    if titles is None:
        pairs = zip(split.given.tolist(), split.true.tolist(), strict=True)
        titles = [caption(noisy, given, true) for given, true in pairs]
    return base.gallery(split.images, titles, split.wrong.tolist(), heading=heading, scale=noisy.scale)


def name(noisy: Data, label: int) -> str:
    """A class's name; "none" for an image of no class."""
    return "none" if label < 0 else noisy.classes[label]


def caption(noisy: Data, given: int, true: int) -> str:
    """What stands above an image: "3", or "given 3, is 8", or "given 3, is none"."""
    if given == true:
        return name(noisy, given)
    return f"given {name(noisy, given)}\nis {name(noisy, true)}"


def training_curves(grid: Mapping[float, list[Run]], sigma: float) -> Figure:
    """CE beside SLN and SLN-MO at one trained sigma, over epochs: right, wrong labels, test accuracy."""
    readings = {"CE": MethodRuns("CE", grid[0.0], "network")}
    if sigma > 0:
        readings |= {
            "SLN": MethodRuns("SLN", grid[sigma], "network"),
            "SLN-MO": MethodRuns("SLN-MO", grid[sigma], "momentum"),
        }
    table = analysis.curves(readings, CURVES)
    figure = curves(table, f"σ = {sigma:g}")
    last = table[table["epoch"] == table["epoch"].max()]
    told = (
        f"{row.method} {100 * row.test_accuracy_mean:.1f} ± {100 * row.test_accuracy_std:.1f}%, "
        f"{100 * row.wrong_memorised_mean:.0f}% of wrong labels memorised"
        for row in last.itertuples()
    )
    figure.words = f"σ = {sigma:g}, test accuracy after the last epoch: {'; '.join(told)}"
    return figure


CURVES = ("right_accuracy", "wrong_memorised", "test_accuracy")
CURVE_TITLES = ("right labels learnt", "wrong labels memorised", "test accuracy")


def live_curves(config: Config, rows: Sequence[Mapping[str, float | str]]) -> Figure:
    """`curves` of one run from its history's rows so far; the axis of epochs is already the whole run's."""
    method = "SLN" if config.sigma > 0 else "CE"
    names = {"network": method, "momentum": f"{method}-MO"}
    # an epoch yet to come, of which nothing is known, keeps the axis where it is
    last = [{"weights": weights, "epoch": config.epochs} for weights in names]
    table = pd.DataFrame([*rows, *last])
    table = table[table["weights"].isin(names)].assign(method=table["weights"].map(names))
    for column in CURVES:
        table[f"{column}_mean"] = table.get(column, np.nan)
        table[f"{column}_std"] = 0.0
    return curves(table, named(config))


def named(config: Config) -> str:
    """One training in words: "σ = 0.5, symmetric noise at rate 0.4, α = 0.99"."""
    noise = NOISE_NAMES.get(config.noise_mode, config.noise_mode)
    noise = "right labels" if config.noise_mode == "none" else f"{noise} noise at rate {config.noise_rate:g}"
    return f"σ = {config.sigma:g}, {noise}, α = {config.alpha:g}"


def curves(table: pd.DataFrame, heading: str = "") -> Figure:
    """Three panels over epochs: accuracy on right and on wrong given labels and on test images.

    The table is that of `analysis.curves` with the columns CURVES.
    """
    figure, axes = base.panels(1, 3, size=(10.2, 3.5), sharex=True, sharey=True)
    for column, title, ax in zip(CURVES, CURVE_TITLES, axes.flat, strict=True):
        base.curve(table, column, ax, "share of examples")
        ax.set_title(title)
        ax.label_outer()
    axes[0, 0].legend(loc="lower right")
    figure.suptitle(heading, fontsize=10.5)
    return figure


MARKED = {"network": "-", "momentum": "--"}  # networks, and their line styles, of one run at an epoch
LOOKED_AT = 8  # wrong labels in its gallery


def at_epoch(run: Run, epoch: int) -> Figure:
    """One run, with a mark at `epoch`: learning, memorising, confidence; and what it ended with.

    Above, over epochs: accuracy on right and on wrong given labels and on test images. Below: mean
    probability of right and of wrong given labels over epochs; its histogram, and what the network says of
    the first LOOKED_AT images with a wrong label, both after the last epoch, the only one that a run keeps
    example by example.
    """
    figure = Figure(figsize=(10.2, 6.2), layout="none")  # fixed places: finding them takes half of a redraw
    above, below = (
        [figure.add_axes((x, y, width, 0.34)) for x, width in ((0.07, 0.26), (0.39, 0.26), (0.71, 0.26))]
        for y in (0.565, 0.085)
    )
    for column, title, ax in zip(CURVES, CURVE_TITLES, above, strict=True):
        _over_epochs(run, {column: (base.COLOURS["SLN-MO"], title)}, epoch, ax)
        ax.set_title(title)
    for weights, style in MARKED.items():
        above[0].plot([], [], color="black", ls=style, label=READERS[weights])
    above[0].set_ylabel("share of examples")
    above[0].legend(loc="lower right")
    surely = {"right_confidence": (RIGHT, "right label"), "wrong_confidence": (WRONG, "wrong label")}
    _over_epochs(run, surely, epoch, below[0])
    below[0].set(title="probability of the given label", ylabel="mean probability")
    examples = pooled_examples([run])
    p_given, wrong = examples["network_p_given"].to_numpy(), examples["wrong"].to_numpy()
    base.confidence_histogram(p_given, wrong, below[1], f"network, after epoch {run.config.epochs}")
    below[1].legend(loc="upper center")
    below[2].remove()
    _wrong_images(run, examples, figure, (0.685, 0.055, 0.30, 0.40))
    figure.suptitle(named(run.config), fontsize=10.5, y=0.99)
    figure.words = _at_epoch_in_words(run, epoch)
    return figure


READERS = {"network": "network", "momentum": "momentum model"}


def _over_epochs(run: Run, columns: Mapping[str, tuple[str, str]], epoch: int, ax: Axes) -> None:
    """History columns (column: colour, name) of both networks over epochs, with a mark at `epoch`."""
    for column, (colour, name) in columns.items():
        for weights, style in MARKED.items():
            measured = run.of(weights)[column].dropna()  # not every epoch measures everything
            label = name if weights == "network" and len(columns) > 1 else None
            ax.plot(measured.index, measured, color=colour, ls=style, label=label)
            if epoch >= measured.index[0]:
                ax.plot(epoch, _known(run, weights, column, epoch), "o", color=colour, ms=7, clip_on=False)
    ax.axvline(epoch, color="black", lw=1, ls=":")
    ax.set(xlabel="epoch", xlim=(0, run.config.epochs), ylim=(0, 1.02))
    ax.locator_params(axis="x", integer=True)
    if len(columns) > 1:
        ax.legend(loc="upper left")


def _known(run: Run, weights: str, column: str, epoch: int) -> float:
    """The last measurement of a history column up to an epoch; NaN before the first."""
    measured = run.of(weights)[column].dropna().loc[:epoch]
    return float(measured.iloc[-1]) if len(measured) else np.nan


def _wrong_images(
    run: Run, examples: pd.DataFrame, figure: Figure, place: tuple[float, float, float, float]
) -> None:
    """The first wrong labels' images, and what the network says: the given label, the true one, another."""
    noisy, rows = run.data, examples[examples["wrong"]].head(LOOKED_AT)
    x, y, width, height = place
    for number, row in enumerate(rows.itertuples()):
        column, line = number % 4, number // 4
        ax = figure.add_axes((x + column * width / 4, y + (1 - line) * height / 2, 0.05, 0.105))
        says = row.network_prediction
        colour = {row.given: WRONG, row.true: RIGHT}.get(says, "black")
        title = f"{caption(noisy, row.given, row.true)}\nread as {name(noisy, says)}"
        base.image(noisy.train.images[row.Index], ax, title, colour, noisy.scale)


def _at_epoch_in_words(run: Run, epoch: int) -> str:
    parts = []
    for column, title in zip(CURVES, CURVE_TITLES, strict=True):
        values = [f"{_known(run, weights, column, epoch):.0%}" for weights in MARKED]
        parts.append(f"{title} {values[0]} ({values[1]})".replace("nan%", "not measured yet"))
    return (
        f"{named(run.config)}, epoch {epoch}: {', '.join(parts)} by the network (by its momentum model); "
        f"histogram and images are those after epoch {run.config.epochs}"
    )


def momentum_models(table: pd.DataFrame, alpha: float) -> Figure:
    """Several momentum models of the same runs (`analysis.by_alpha`), one of them brought forward."""
    ax = base.alphas(table, base.new_axes((7.2, 4.2)))
    for shown, line, band in zip(sorted(set(table["alpha"])), ax.lines, ax.collections, strict=True):
        if shown != alpha:
            line.set_alpha(0.25)
            band.set_alpha(0.04)
    last = table[table["epoch"] == table["epoch"].max()].set_index("alpha")[["mean", "std"]]
    mean, std = 100 * last.loc[alpha]
    plain = "" if alpha == 0 else f"; the network itself {100 * last.loc[0, 'mean']:.1f}%"
    ax.figure.words = f"α = {alpha:g}: test accuracy {mean:.1f} ± {std:.1f}% after the last epoch{plain}"
    return ax.figure


def moved_images(run: Run, epoch: int, count: int = 16) -> Figure:
    """The images whose targets correction moved furthest by `epoch`: given label, new target, truth."""
    table, noisy = label_correction.most_moved(run, epoch, count), run.data
    titles = [
        f"{name(noisy, row.given)} → {name(noisy, row.target)}\nis {name(noisy, row.true)}"
        for row in table.itertuples()
    ]
    wrong = int((table["given"] != table["true"]).sum())
    heading = f"epoch {epoch}: given → target; {wrong} of {len(table)} given labels are wrong"
    figure = gallery(noisy, torch.tensor(table.index.to_numpy()), titles, heading)
    rule = {"given": "the clean rule", "as-released": "the released code"}[run.config.correction_losses]
    figure.words = f"the {len(table)} that {rule} moved furthest, {heading}"
    return figure


def confidence(grid: Mapping[float, list[Run]], sigma: float) -> Figure:
    """Probability of right and of wrong given labels, CE beside one trained sigma, all seeds together."""
    figure, axes = base.panels(1, 3, size=(10.2, 3.4), sharey=True)
    shown = (
        ("CE", grid[0.0], "network"),
        (f"SLN, σ = {sigma:g}", grid[sigma], "network"),
        (f"SLN-MO, σ = {sigma:g}", grid[sigma], "momentum"),
    )
    for (title, runs, weights), ax in zip(shown, axes.flat, strict=True):
        examples = pooled_examples(runs)
        base.confidence_histogram(
            examples[f"{weights}_p_given"].to_numpy(), examples["wrong"].to_numpy(), ax, title
        )
        ax.label_outer()
    axes[0, 0].legend(loc="upper center")
    surely = [
        f"{title.split(',')[0]} {MethodRuns('', runs, weights).final('wrong_confidence').mean():.2f}"
        for title, runs, weights in shown
    ]
    figure.words = f"σ = {sigma:g}: mean probability of wrong labels: {', '.join(surely)}"
    return figure


def accuracy_over_sigma(table: pd.DataFrame, chosen: float) -> Figure:
    """Over sigma: test accuracy, memorised labels, noisy validation accuracy (`analysis.over_sigma`)."""
    figure, axes = base.panels(1, 3, size=(10.2, 3.5), sharex=True)
    base.over_sigma(table, "test_accuracy", axes[0, 0], "share of test images", chosen)
    base.over_sigma(table, "wrong_memorised", axes[0, 1], "share of wrong labels", chosen)
    base.over_sigma(table, "validation_accuracy", axes[0, 2], "share of validation images", chosen)
    for title, ax in zip(
        ("test accuracy", "wrong labels memorised", "accuracy on noisy validation labels"),
        axes.flat,
        strict=True,
    ):
        ax.set_title(title)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def label_recovery(table: pd.DataFrame) -> Figure:
    """What correction does by epoch, a panel a reading of the method (`label_correction.over_seeds`)."""
    readings = list(dict.fromkeys(table["reading"]))
    figure, axes = base.panels(1, len(readings), size=(9.6, 3.9), sharex=True, sharey=True)
    for reading, ax in zip(readings, axes.flat, strict=True):
        base.recovery(table[table["reading"] == reading], ax, reading)
        ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def correction_weights(table: pd.DataFrame) -> Figure:
    """Histograms of w, and of the target left on the given label, by label (`label_correction.weights`)."""
    figure, axes = base.panels(1, 2, size=(9.6, 3.4), sharey=True)
    names = {
        "w": "w: loss of the momentum model, scaled to [0, 1]",
        "on_given": "target that stays on the given label",
    }
    for (column, name), ax in zip(names.items(), axes.flat, strict=True):
        base.confidence_histogram(table[column].to_numpy(), table["wrong"].to_numpy(), ax, "")
        ax.set_xlabel(name)
        ax.label_outer()
    axes[0, 0].legend(loc="upper right")
    return figure


def loss_lines(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss along one direction (`landscape.line`) on given labels, true labels and test images; one scale."""
    figure, axes = base.panels(1, 3, size=(10.2, 3.5), sharex=True, sharey=True)
    for (column, title), ax in zip(landscape.LOSSES.items(), axes.flat, strict=True):
        landscape.line(tables, ax, column, title)
    landscape.loss_ticks(axes[0, 0])
    for ax in axes.flat:
        ax.label_outer()
    axes[0, 0].legend(loc="lower right")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Reliability diagrams of several methods, side by side (`confidence.reliability_tables`)."""
    figure, axes = base.panels(1, len(tables), size=(2.35 * len(tables), 2.9), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        base.reliability(table, ax, method)
        ax.set_xticks([0, 0.5, 1])
        ax.label_outer()
    return figure


def dissections(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Dissection by loss of several methods, side by side (`confidence.dissection`)."""
    figure, axes = base.panels(1, len(tables), size=(3.5 * len(tables), 3.7), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        base.dissection(table, ax, method)
        ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def loss_surfaces(surfaces: Mapping[str, pd.DataFrame], labels: str, radius: float | None = None) -> Figure:
    """The same loss surfaces, over one kind of labels or images, as far as `radius`."""
    figure = landscape.contours(surfaces, labels, radius)
    figure.words = _surfaces_in_words(surfaces, labels, radius)
    return figure


def loss_views(
    surfaces: Mapping[str, pd.DataFrame],
    labels: str = "given",
    azimuth: float = landscape.AZIMUTH,
    elevation: float = landscape.ELEVATION,
    radius: float | None = None,
) -> Figure:
    """Loss surfaces in 3-D (`plots_landscape.surface_3d`), seen from `azimuth` and `elevation` (degrees)."""
    figure = landscape.surface_3d(surfaces, labels, azimuth, elevation, radius)
    figure.words = f"from {azimuth:g}°, {elevation:g}° up; {_surfaces_in_words(surfaces, labels, radius)}"
    return figure


def _surfaces_in_words(surfaces: Mapping[str, pd.DataFrame], labels: str, radius: float | None) -> str:
    """The lowest and highest loss of each surface, as far as `radius`."""
    shown = surfaces if radius is None else landscape.within(surfaces, radius)
    ranges = [
        f"{name} {table[labels].min():.2g} to {table[labels].max():.2g}" for name, table in shown.items()
    ]
    far = "" if radius is None else f" up to {radius:g} away"
    return f"loss on {landscape.LOSSES[labels]}{far}: {', '.join(ranges)}"


def results_of(table: pd.DataFrame, paper: pd.DataFrame, noise: str) -> Figure:
    """One kind of noise: our test accuracy (bars), and the paper's where it has one (rings), in per cent.

    The tables are those of `results.table` and `results.of_the_paper`.
    """
    part = table[table["noise"] == noise]
    ax = base.new_axes((7.2, 3.8))
    colours = [base.COLOURS[method] for method in part["method"]]
    ax.bar(part["method"], part["mean"], yerr=part["std"], color=colours, capsize=3, width=0.6)
    told = []
    for row in part.itertuples():
        published = paper["mean"].get((noise, row.method))
        told.append(f"{row.method} {row.mean:.1f} ± {row.std:.1f}")
        if published is not None:
            ax.plot(row.method, published, "o", mfc="white", color="black", ms=8)
            told[-1] += f" (paper {published:.2f})"
    ax.set(ylabel="test accuracy (%)", ylim=(0, 105), title=f"{NOISE_NAMES[noise]} noise; rings: the paper")
    ax.grid(axis="x", visible=False)
    ax.figure.words = f"{NOISE_NAMES[noise]}: {', '.join(told)}"
    return ax.figure
