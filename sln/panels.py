"""Figures made from values: what a notebook calls once at a default and then hands, unchanged, to a slider.

Each takes plain values, computes in well under half a second, and returns a new Figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sln import analysis, plots, plots_landscape, recovery
from sln.confidence import pooled_examples
from sln.config import Config
from sln.data import Data
from sln.loading import draw_corruption, load_data
from sln.noise import Corruption
from sln.plots import NOISE_NAMES, RIGHT, WRONG, Figure
from sln.runs import Run
from sln.streams import numpy_generator
from sln.study import Reading


def matrices(corruptions: Mapping[str, Corruption], classes: Sequence[str]) -> Figure:
    """The realised transition matrix of each kind of inherent noise, side by side."""
    figure, axes = plots.panels(1, len(corruptions), size=(3.0 * len(corruptions), 3.4), sharey=True)
    for (kind, corruption), ax in zip(corruptions.items(), axes.flat, strict=True):
        title = f"{NOISE_NAMES[kind]}\n{100 * corruption.realised_rate:.1f}% wrong"
        plots.transition_matrix(corruption.transition_matrix, classes, ax, title)
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
    title = f"{NOISE_NAMES[noise_mode]}, rate {noise_rate:.2f}: {100 * corruption.realised_rate:.1f}% wrong"
    plots.transition_matrix(corruption.transition_matrix, noisy.classes, left.subplots(), title)
    order = numpy_generator(noise_seed, "bootstrap").permutation(len(corruption.given))[:8]
    for index, ax in zip(order, right.subplots(2, 4).flat, strict=True):
        split, wrong = noisy.train, bool(corruption.changed[index])
        title = caption(noisy, int(split.given[index]), int(split.true[index]))
        plots.image(split.images[index], ax, title, WRONG if wrong else RIGHT, noisy.scale)
    right.suptitle("eight training images", fontsize=10)
    return figure


def gallery(noisy: Data, examples: Tensor, titles: Sequence[str] | None = None, heading: str = "") -> Figure:
    """Training images by example number (n,), framed by whether their given label is right."""
    split = noisy.train[examples]
    if titles is None:
        pairs = zip(split.given.tolist(), split.true.tolist(), strict=True)
        titles = [caption(noisy, given, true) for given, true in pairs]
    return plots.gallery(split.images, titles, split.wrong.tolist(), heading=heading, scale=noisy.scale)


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
    readings = {"CE": Reading("CE", grid[0.0], "network")}
    if sigma > 0:
        readings |= {
            "SLN": Reading("SLN", grid[sigma], "network"),
            "SLN-MO": Reading("SLN-MO", grid[sigma], "momentum"),
        }
    return curves(analysis.curves(readings, CURVES), f"σ = {sigma:g}")


CURVES = ("right_accuracy", "wrong_memorised", "test_accuracy")
CURVE_TITLES = ("right labels learnt", "wrong labels memorised", "test accuracy")


def curves(table: pd.DataFrame, heading: str = "") -> Figure:
    """Three panels over epochs: accuracy on right and on wrong given labels and on test images.

    The table is that of `analysis.curves` with the columns CURVES.
    """
    figure, axes = plots.panels(1, 3, size=(10.2, 3.5), sharex=True, sharey=True)
    for column, title, ax in zip(CURVES, CURVE_TITLES, axes.flat, strict=True):
        plots.curve(table, column, ax, "share of examples")
        ax.set_title(title)
        ax.label_outer()
    axes[0, 0].legend(loc="lower right")
    figure.suptitle(heading, fontsize=10.5)
    return figure


def moved_images(run: Run, epoch: int, count: int = 16) -> Figure:
    """The images whose targets correction moved furthest by `epoch`: given label, new target, truth."""
    table, noisy = recovery.most_moved(run, epoch, count), run.data
    titles = [
        f"{name(noisy, row.given)} → {name(noisy, row.target)}\nis {name(noisy, row.true)}"
        for row in table.itertuples()
    ]
    wrong = int((table["given"] != table["true"]).sum())
    heading = f"epoch {epoch}: given → target; {wrong} of {len(table)} given labels are wrong"
    return gallery(noisy, torch.tensor(table.index.to_numpy()), titles, heading)


def confidence(grid: Mapping[float, list[Run]], sigma: float) -> Figure:
    """Probability of right and of wrong given labels, CE beside one trained sigma, all seeds together."""
    figure, axes = plots.panels(1, 3, size=(10.2, 3.4), sharey=True)
    shown = (
        ("CE", grid[0.0], "network"),
        (f"SLN, σ = {sigma:g}", grid[sigma], "network"),
        (f"SLN-MO, σ = {sigma:g}", grid[sigma], "momentum"),
    )
    for (title, runs, reader), ax in zip(shown, axes.flat, strict=True):
        examples = pooled_examples(runs)
        plots.confidence_histogram(
            examples[f"{reader}_p_given"].to_numpy(), examples["wrong"].to_numpy(), ax, title
        )
        ax.label_outer()
    axes[0, 0].legend(loc="upper center")
    return figure


def accuracy_over_sigma(table: pd.DataFrame, chosen: float) -> Figure:
    """Over sigma: test accuracy, memorised labels, noisy validation accuracy (`analysis.over_sigma`)."""
    figure, axes = plots.panels(1, 3, size=(10.2, 3.5), sharex=True)
    plots.over_sigma(table, "test_accuracy", axes[0, 0], "share of test images", chosen)
    plots.over_sigma(table, "wrong_memorised", axes[0, 1], "share of wrong labels", chosen)
    plots.over_sigma(table, "validation_accuracy", axes[0, 2], "share of validation images", chosen)
    for title, ax in zip(
        ("test accuracy", "wrong labels memorised", "accuracy on noisy validation labels"),
        axes.flat,
        strict=True,
    ):
        ax.set_title(title)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def label_recovery(table: pd.DataFrame) -> Figure:
    """What correction does by epoch, a panel a reading of the method (`recovery.over_seeds`)."""
    readings = list(dict.fromkeys(table["reading"]))
    figure, axes = plots.panels(1, len(readings), size=(9.6, 3.9), sharex=True, sharey=True)
    for reading, ax in zip(readings, axes.flat, strict=True):
        plots.recovery(table[table["reading"] == reading], ax, reading)
        ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def correction_weights(table: pd.DataFrame) -> Figure:
    """Histograms of w, and of the target left on the given label, by label (`recovery.weights`)."""
    figure, axes = plots.panels(1, 2, size=(9.6, 3.4), sharey=True)
    names = {
        "w": "w: loss of the momentum model, scaled to [0, 1]",
        "on_given": "target that stays on the given label",
    }
    for (column, name), ax in zip(names.items(), axes.flat, strict=True):
        plots.confidence_histogram(table[column].to_numpy(), table["wrong"].to_numpy(), ax, "")
        ax.set_xlabel(name)
        ax.label_outer()
    axes[0, 0].legend(loc="upper right")
    return figure


def loss_lines(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss along one direction (`landscape.line`) on given labels, true labels and test images; one scale."""
    figure, axes = plots.panels(1, 3, size=(10.2, 3.5), sharex=True, sharey=True)
    for (column, title), ax in zip(plots_landscape.LOSSES.items(), axes.flat, strict=True):
        plots_landscape.line(tables, ax, column, title)
        ax.label_outer()
    axes[0, 0].legend(loc="lower right")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Reliability diagrams of several methods, side by side (`confidence.reliability_tables`)."""
    figure, axes = plots.panels(1, len(tables), size=(2.35 * len(tables), 2.9), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        plots.reliability(table, ax, method)
        ax.set_xticks([0, 0.5, 1])
        ax.label_outer()
    return figure


def dissections(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Dissection by loss of several methods, side by side (`confidence.dissection`)."""
    figure, axes = plots.panels(1, len(tables), size=(3.5 * len(tables), 3.7), sharex=True, sharey=True)
    for (method, table), ax in zip(tables.items(), axes.flat, strict=True):
        plots.dissection(table, ax, method)
        ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def loss_surfaces(surfaces: Mapping[str, pd.DataFrame], labels: str, radius: float | None = None) -> Figure:
    """The same loss surfaces, over one kind of labels or images, as far as `radius`."""
    return plots_landscape.contours(surfaces, labels, radius)
