"""Three spirals in the plane with wrong labels: a network small enough to be trained live.

Plain training (CE) and SLN train side by side, with the same points, labels, initial weights, batches and
functions of `method`; only sigma differs. Each has its momentum model. The settings were chosen by hand, once
for both, so that plain training memorises within a second.
"""

import copy
import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sln import method, noise
from sln.datasets.load import threads
from sln.noise import Corruption
from sln.study.statistics import Estimate, interval
from sln.utils.rng import numpy_generator, torch_generator

CLASSES, POINTS, FRESH = 3, 300, 3000  # FRESH points, of which no label is wrong, give the true accuracy
INNER, OUTER = 0.3, 1.5  # radii at which an arm begins and ends
TURN, SPREAD = 2.4, 0.25  # the angle by which it turns, and the standard deviation around it, in radians
SIZES = (2, 64, 64, 64, CLASSES)  # of the network's layers
LEARNING_RATE, MOMENTUM, BATCH, ALPHA = 0.05, 0.9, 60, 0.99
EPOCHS = (2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500)  # kept; the last one ends training
METHODS = {"CE": ("network", 0), "CE-MO": ("momentum", 0), "SLN": ("network", 1), "SLN-MO": ("momentum", 1)}


def spirals(count: int, seed: int, split: int = 0) -> tuple[Tensor, np.ndarray]:
    """Points (count, 2) float32 in three arms around the origin, radius INNER to OUTER; their arms (count,).

    split : 0 the training points, 1 fresh ones
    """
    generator, true = numpy_generator(seed, "spirals", split), np.arange(count) % CLASSES
    radius = generator.uniform(INNER, OUTER, count)
    angle = (
        2 * np.pi * true / CLASSES
        + TURN * (radius - INNER) / (OUTER - INNER)
        + SPREAD * generator.standard_normal(count)
    )
    points = radius * np.stack([np.cos(angle), np.sin(angle)])
    return torch.from_numpy(points.T).float(), true


class Pair(nn.Module):
    """Two networks of ReLU layers (SIZES) with equal initial weights, computed together: one for each sigma.

    PyTorch's default distribution of initial weights, drawn from `generator`.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(SIZES):
            bound = inputs**-0.5
            for parts, rows in ((self.weights, inputs), (self.biases, 1)):
                one = torch.empty(1, rows, outputs).uniform_(-bound, bound, generator=generator)
                parts.append(nn.Parameter(one.repeat(2, 1, 1)))

    def forward(self, points: Tensor) -> Tensor:
        """Points (B, 2) -> logits (2, B, CLASSES) of both networks."""
        x = points.expand(2, -1, -1)
        for weights, biases in zip(self.weights, self.biases, strict=True):
            logits = torch.baddbmm(biases, x, weights)
            x = torch.relu(logits)
        return logits


@dataclass(frozen=True)
class Training:
    """What one training of the pair leaves: its data, and copies of the networks and averages by epoch."""

    seed: int
    points: Tensor  # (POINTS, 2)
    labels: Corruption
    kept: dict[int, dict[str, Pair]]  # epoch -> "network" or "momentum" -> CE's and SLN's

    def probabilities(self, epoch: int, points: Tensor) -> dict[str, np.ndarray]:
        """Predicted probabilities (M, CLASSES) of points (M, 2) after one of EPOCHS, by method."""
        with torch.no_grad():
            found = {weights: F.softmax(pair(points), dim=2) for weights, pair in self.kept[epoch].items()}
        return {name: found[weights][place].numpy() for name, (weights, place) in METHODS.items()}

    def scores(self, epoch: int = EPOCHS[-1]) -> pd.DataFrame:
        """One row per method, in per cent: `true_accuracy`, on fresh points, and `memorised`.

        memorised : share of the wrong labels that the network predicts (NaN if no label is wrong)
        """
        fresh, true = spirals(FRESH, self.seed, split=1)
        wrong, given = self.labels.changed, self.labels.given
        trained, unseen = self.probabilities(epoch, self.points), self.probabilities(epoch, fresh)
        rows = {}
        for name in METHODS:
            reproduced = (trained[name].argmax(axis=1) == given)[wrong]
            memorised = 100 * reproduced.mean() if wrong.any() else np.nan
            rows[name] = (100 * (unseen[name].argmax(axis=1) == true).mean(), memorised)
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["true_accuracy", "memorised"])
        return table.rename_axis("method")


@functools.lru_cache(maxsize=64)
@threads(1)
def trained(sigma: float = 1.0, noise_rate: float = 0.4, seed: int = 0) -> Training:
    """The pair after training on spirals of which a share `noise_rate` has a wrong label: CE, and SLN.

    About a second on one core; kept in memory, so that another epoch costs nothing.
    """
    points, true = spirals(POINTS, seed)
    labels = noise.symmetric(true, CLASSES, noise_rate, seed=seed)
    y = F.one_hot(torch.from_numpy(labels.given), CLASSES).float()
    sigmas = torch.tensor([0.0, sigma]).view(2, 1, 1)
    pair = Pair(torch_generator(seed, "initialisation"))
    average = method.MomentumModel(pair, ALPHA)
    optimizer = torch.optim.SGD(pair.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)
    shuffling, drawing = torch_generator(seed, "shuffling"), torch_generator(seed, "stochastic noise")
    kept = {}
    for epoch in range(1, EPOCHS[-1] + 1):
        for index in torch.randperm(POINTS, generator=shuffling).split(BATCH):
            z = torch.randn(len(index), CLASSES, generator=drawing)
            targets = method.noisy_labels(y[index], sigmas, z)  # (2, B, CLASSES)
            losses = method.soft_cross_entropy(pair(points[index]).flatten(0, 1), targets.flatten(0, 1))
            optimizer.zero_grad()
            (losses.sum() / len(index)).backward()  # the sum of two means: the networks share nothing
            optimizer.step()
            average.update_parameters(pair)
        if epoch in EPOCHS:
            kept[epoch] = {"network": copy.deepcopy(pair), "momentum": copy.deepcopy(average.module)}
    return Training(seed, points, labels, kept)


def over_seeds(seeds: Iterable[int], sigma: float = 1.0, noise_rate: float = 0.4) -> pd.DataFrame:
    """`Training.scores` after the last epoch: one row per seed and method. A seed draws everything anew."""
    tables = [trained(sigma, noise_rate, seed).scores().assign(seed=seed) for seed in seeds]
    return pd.concat(tables).reset_index()[["seed", "method", "true_accuracy", "memorised"]]


def by_method(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """(seeds, methods): a column of `over_seeds`."""
    return table.pivot(index="seed", columns="method", values=column)


def gain(table: pd.DataFrame, better: str, worse: str) -> Estimate:
    """How much more true accuracy one method of `over_seeds` has than another, in points, paired."""
    accuracy = by_method(table, "true_accuracy")
    return interval((accuracy[better] - accuracy[worse]).to_numpy())


def describe(table: pd.DataFrame) -> str:
    """`over_seeds` in words: means over seeds, and SLN minus CE with its interval."""
    accuracy, memorised = by_method(table, "true_accuracy"), by_method(table, "memorised")
    lines = [
        f"{name}: {accuracy[name].mean():.0f}% true accuracy, "
        f"{memorised[name].mean():.0f}% of the wrong labels memorised"
        for name in METHODS
    ]
    for better, worse in (("SLN", "CE"), ("SLN-MO", "CE-MO")):
        found = gain(table, better, worse)
        lines.append(f"{better} minus {worse}, true accuracy: {found} points over {found.seeds} seeds")
    return "\n".join(lines)
