"""The picture of memorising: three spirals with wrong labels, and what three networks make of them."""

import functools

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sln.analysis import spirals
from sln.plots.style import Figure

SHOWN = {"CE": "plain training (CE)", "SLN": "noise on the labels (SLN)", "SLN-MO": "its average (SLN-MO)"}
ARMS = ("#0072B2", "#D55E00", "#009E73")  # a colour for each class
SEED = 9  # of ten, the one that is nearest to the mean accuracies of all methods
GRID, REACH, PALE = 100, 1.75, 0.6  # points a side; half a side; how much colour a certain prediction has


def memorising(
    sigma: float = 1.0, noise_rate: float = 0.4, epoch: int = spirals.EPOCHS[-1], seed: int = SEED
) -> Figure:
    """CE, SLN and SLN-MO on the spirals after an epoch in `spirals.EPOCHS` (`spirals.trained`).

    The colour is the predicted class, the stronger the more certain. Dots are training points with the right
    label, rings are those with a wrong one, in the colour of the label that they were given.
    """
    training = spirals.trained(sigma, noise_rate, seed)
    maps, scores = training.probabilities(epoch, plane()), training.scores(epoch)
    figure = Figure(figsize=(8.4, 3.5), layout="none")  # fixed places: a layout takes half of a redraw
    for number, (name, title) in enumerate(SHOWN.items()):
        ax = figure.add_axes((0.004 + number * 0.3335, 0.089, 0.325, 0.78))
        ax.imshow(shades(maps[name]), origin="lower", extent=(-REACH, REACH) * 2, interpolation="bilinear")
        _points(training, ax)
        ax.set_title(f"{title}\n{words(*scores.loc[name])}", fontsize=10)
        ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
        ax.set_axis_off()
    look = {"color": "dimgrey", "marker": "o", "ls": ""}
    marks = [Line2D([], [], ms=5, label="right label", **look)]
    marks.append(Line2D([], [], ms=5.5, mfc="white", mew=1.6, label="wrong label", **look))
    marks.append(Patch(color="#9cc6e0", label="prediction: the stronger, the more certain"))
    figure.legend(handles=marks, loc="lower center", ncols=3, borderaxespad=0.1)
    shown = "; ".join(f"{name} is {words(*scores.loc[name])}" for name in SHOWN).replace(", ", " with ")
    figure.words = f"At σ = {sigma:g} and noise rate {noise_rate:g}, after epoch {epoch}, {shown}."
    return figure


def words(accuracy: float, memorised: float) -> str:
    """The two numbers of a panel."""
    learnt = f"{accuracy:.0f}% accurate"
    return learnt if np.isnan(memorised) else f"{learnt}, {memorised:.0f}% memorised"


@functools.cache
def plane() -> torch.Tensor:
    """(GRID^2, 2): the points of the maps, row by row, the lowest first."""
    x = torch.linspace(-REACH, REACH, GRID)
    return torch.cartesian_prod(x, x).flip(1)


def shades(probabilities: np.ndarray) -> np.ndarray:
    """(GRID, GRID, 3): the likeliest class's colour; white where all are equal, strong where it is sure."""
    colours, top = np.array([to_rgb(colour) for colour in ARMS]), probabilities.max(axis=1, keepdims=True)
    strength = PALE * (top - 1 / spirals.CLASSES) / (1 - 1 / spirals.CLASSES)
    return (1 - strength * (1 - colours[probabilities.argmax(axis=1)])).reshape(GRID, GRID, 3)


def _points(training: spirals.Training, ax: Axes) -> None:
    points, given, wrong = training.points.numpy(), training.labels.given, training.labels.changed
    for label, colour in enumerate(ARMS):
        right, ringed = points[(given == label) & ~wrong], points[(given == label) & wrong]
        ax.scatter(*right.T, s=13, color=colour, edgecolor="white", linewidth=0.3)
        ax.scatter(*ringed.T, s=20, color="white", edgecolor=colour, linewidth=1.4)
