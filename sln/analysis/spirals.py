"""Three spirals in the plane with wrong labels: a network small enough to be trained live.

Plain training (CE) and SLN train side by side, with the same points, labels, initial weights, batches and
functions of `method`; only sigma differs. Each has its momentum model. The settings were chosen by hand, once
for both, so that plain training memorises within a second.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class Networks(nn.Module):
    """Networks of ReLU layers (SIZES), computed together.

    layers : weights (K, inputs, outputs) and biases (K, 1, outputs) of all K networks, layer by layer
    """

    def __init__(self, layers: Sequence[Sequence[Tensor]]) -> None:
        super().__init__()
        weights, biases = zip(*layers, strict=True)
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases[:-1])
        # a tensor of three numbers each: in a longer one they would be rounded in another way
        self.last_biases = nn.ParameterList(biases[-1].split(1))

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """What the networks were made of, as it is now."""
        return list(zip(self.weights, [*self.biases, torch.cat(list(self.last_biases))], strict=True))

    def only(self, places: list[int]) -> "Networks":
        """A copy of some of the networks."""
        return Networks([[part.detach()[places].clone() for part in layer] for layer in self.layers])

    def forward(self, points: Tensor) -> Tensor:
        """Points (K or 1, B, 2) -> logits (K, B, CLASSES)."""
        x = points.expand(len(self.last_biases), -1, -1)
        for weights, biases in self.layers:
            logits = torch.baddbmm(biases, x, weights)
            x = torch.relu(logits)
        return logits


def untrained(seeds: Iterable[int]) -> Networks:
    """A network for each seed, of PyTorch's default distribution of initial weights."""
    each = []
    for seed in seeds:
        generator, parts = torch_generator(seed, "initialisation"), []
        for inputs, outputs in itertools.pairwise(SIZES):
            for rows in (inputs, 1):
                part = torch.empty(1, rows, outputs)
                parts.append(part.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator))
        each.append(parts)
    parts = [torch.cat(same) for same in zip(*each, strict=True)]
    return Networks(list(zip(parts[::2], parts[1::2], strict=True)))


@dataclass(frozen=True)
class Training:
    """What one training of the pair leaves: its data, and copies of the networks and averages by epoch."""

    seed: int
    points: Tensor  # (POINTS, 2)
    labels: Corruption
    kept: dict[int, dict[str, Networks]]  # epoch -> "network" or "momentum" -> CE's and SLN's

    def probabilities(self, epoch: int, points: Tensor) -> dict[str, np.ndarray]:
        """Predicted probabilities (M, CLASSES) of points (M, 2) after one of EPOCHS, by method."""
        with torch.no_grad(), threads(1):  # more wait for each other longer than they compute
            parts = [part[None] for part in points.split(1000)]  # which stay in a processor's cache
            found = {
                name: F.softmax(torch.cat([pair(part) for part in parts], dim=1), dim=2)
                for name, pair in self.kept[epoch].items()
            }
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


TRAINED: dict[tuple[float, float, int], Training] = {}  # by sigma, noise rate and seed


def trained(sigma: float = 1.0, noise_rate: float = 0.4, seed: int = 0) -> Training:
    """The pair after training on spirals of which a share `noise_rate` has a wrong label: CE, and SLN.

    About a second on one core; kept in memory, so that another epoch costs nothing.
    """
    train([(sigma, noise_rate, seed)])
    return TRAINED[sigma, noise_rate, seed]


@threads(1)
def train(settings: Iterable[tuple[float, float, int]]) -> None:
    """Train each (sigma, noise_rate, seed), all at once, with the same bits as one at a time; see `trained`.

    Twenty of them take about three times as long as one.
    """
    missing = [setting for setting in dict.fromkeys(settings) if setting not in TRAINED]
    if not missing:
        return
    # a network for each sigma, noise rate and seed: settings of one rate and seed share plain training
    networks = list(dict.fromkeys((own, *rest) for sigma, *rest in missing for own in (0.0, sigma)))
    seeds = list(dict.fromkeys(seed for *_, seed in networks))
    data = {seed: spirals(POINTS, seed) for seed in seeds}
    labels = {
        (rate, seed): noise.symmetric(data[seed][1], CLASSES, rate, seed=seed) for _, rate, seed in networks
    }
    points = torch.stack([data[seed][0] for *_, seed in networks])  # (K, POINTS, 2)
    given = np.stack([labels[rate, seed].given for _, rate, seed in networks])
    y = F.one_hot(torch.from_numpy(given), CLASSES).float()
    sigmas = torch.tensor([sigma for sigma, *_ in networks]).view(-1, 1, 1)
    together = untrained(seed for *_, seed in networks)
    average = method.MomentumModel(together, ALPHA)
    optimizer = torch.optim.SGD(together.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)
    shuffling = [torch_generator(seed, "shuffling") for seed in seeds]
    drawing = [torch_generator(seed, "stochastic noise") for seed in seeds]
    own, each = [seeds.index(seed) for *_, seed in networks], torch.arange(len(networks))[:, None]
    kept = {setting: {} for setting in missing}
    for epoch in range(1, EPOCHS[-1] + 1):
        order = torch.stack([torch.randperm(POINTS, generator=generator) for generator in shuffling])[own]
        for index in order.split(BATCH, dim=1):  # (K, B)
            z = torch.stack([torch.randn(index.shape[1], CLASSES, generator=one) for one in drawing])[own]
            targets = method.noisy_labels(y[each, index], sigmas, z)  # (K, B, CLASSES)
            logits = together(points[each, index])
            losses = method.soft_cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))
            optimizer.zero_grad()
            (losses.sum() / index.shape[1]).backward()  # a sum of means: the networks share nothing
            optimizer.step()
            average.update_parameters(together)
        for sigma, *rest in missing if epoch in EPOCHS else ():
            pair = [networks.index((one, *rest)) for one in (0.0, sigma)]
            both = {"network": together.only(pair), "momentum": average.module.only(pair)}
            kept[sigma, *rest][epoch] = both
    for sigma, rate, seed in missing:
        epochs = kept[sigma, rate, seed]
        TRAINED[sigma, rate, seed] = Training(seed, data[seed][0], labels[rate, seed], epochs)


def over_seeds(seeds: Sequence[int], sigma: float = 1.0, noise_rate: float = 0.4) -> pd.DataFrame:
    """`Training.scores` after the last epoch: one row per seed and method; two seeds share nothing."""
    train([(sigma, noise_rate, seed) for seed in seeds])
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
