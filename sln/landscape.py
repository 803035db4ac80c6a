"""Loss surfaces around a minimum, along filter-normalised random directions (Li et al., NeurIPS 2018).

The picture is only comparable between networks because of the normalisation, and only if all are drawn along
the same random directions: `directions(network, seed)` draws the same numbers for every network of one
architecture.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sln.data import Data
from sln.devices import device
from sln.files import read_table, write_text
from sln.progress import Progress
from sln.runs import Run
from sln.streams import torch_generator
from sln.study import Reading

Direction = dict[str, Tensor]


def filter_normalised(network: nn.Module, generator: torch.Generator) -> Direction:
    """A random direction: each filter d_ij of N(0, 1) numbers becomes d_ij |theta_ij| / |d_ij|.

    A filter is one output channel of a convolution, or one row of a linear layer. Biases and BatchNorm
    parameters are left alone (zero), as in the authors' own setting for these pictures.
    """
    direction = {}
    for name, weight in network.named_parameters():
        if weight.ndim <= 1:
            direction[name] = torch.zeros_like(weight)
            continue
        d = torch.randn(weight.shape, generator=generator)
        other_axes = tuple(range(1, weight.ndim))
        norm = functools.partial(torch.linalg.vector_norm, dim=other_axes, keepdim=True)
        direction[name] = d.to(weight.device) * norm(weight.detach()) / norm(d).to(weight.device)
    return direction


def directions(network: nn.Module, seed: int = 0) -> tuple[Direction, Direction]:
    """The two directions of a surface, from `seed`'s own streams."""
    x, y = (filter_normalised(network, torch_generator(seed, "landscape", axis)) for axis in (0, 1))
    return x, y


@torch.no_grad()
def losses_at(network: nn.Module, data: Data, moves: list[tuple[float, Direction]]) -> dict[str, float]:
    """Mean cross-entropy at theta + sum of step * direction, BatchNorm statistics as they are at the centre.

    One pass over the training images gives the loss on "given" and on "true" labels (images of no class are
    left out of the latter); one over the test images gives "test".
    """
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    for step, direction in moves:
        weights = {name: weight + step * direction[name] for name, weight in weights.items()}
    network.eval()
    logits = {}
    for part, split in (("train", data.train), ("test", data.test)):
        batches = split.images.split(256)
        logits[part] = torch.cat(
            [functional_call(network, weights, (data.normalise(images),)) for images in batches]
        ).cpu()
    inside = data.train.true >= 0
    return {
        "given": F.cross_entropy(logits["train"], data.train.given).item(),
        "true": F.cross_entropy(logits["train"][inside], data.train.true[inside]).item(),
        "test": F.cross_entropy(logits["test"], data.test.true).item(),
    }


def first_images(data: Data, count: int) -> Data:
    """`data` with only the first `count` training and test images, to look at a landscape in less time."""
    if count == 0:
        return data
    return dataclasses.replace(data, train=data.train[:count], test=data.test[:count])


def line(network: nn.Module, data: Data, *, radius: float, points: int, seed: int = 0) -> pd.DataFrame:
    """The loss along the first direction: one row a step in [-radius, radius]; x, given, true, test."""
    network, data = network.to(device()), data.to(device())
    x, _ = directions(network, seed)
    steps = np.linspace(-radius, radius, points)
    return pd.DataFrame([{"x": step} | losses_at(network, data, [(float(step), x)]) for step in steps])


def surface(
    network: nn.Module, data: Data, *, radius: float, points: int, seed: int = 0, quiet: bool = False
) -> pd.DataFrame:
    """The loss over a square of points x points steps: one row a point; x, y, given, true, test.

    radius : the steps span [-radius, radius], in units of the filters' own norms; with an odd number of
        points the centre is the network itself.
    """
    network, data = network.to(device()), data.to(device())
    x, y = directions(network, seed)
    grid = list(_grid(radius, points))
    rows = []
    with Progress(len(grid), "loss surface", "points", quiet=quiet) as progress:
        for a, b in grid:
            rows.append({"x": a, "y": b} | losses_at(network, data, [(a, x), (b, y)]))
            progress.advance()
    return pd.DataFrame(rows)


def surface_of(
    run: Run, reader: str, *, radius: float, points: int, seed: int = 0, images: int = 0
) -> pd.DataFrame:
    """`surface` of a run over its first `images` images (0: all), kept beside it: computed once."""
    name = f"{reader}-radius{radius:g}-points{points}-seed{seed}" + (f"-images{images}" if images else "")
    path = run.folder / "surfaces" / f"{name}.csv"
    if not path.exists():
        seen = first_images(run.data, images)
        table = surface(run.network(reader), seen, radius=radius, points=points, seed=seed)
        write_text(path, table.to_csv(index=False, lineterminator="\n"))
    return read_table(path)


def _grid(radius: float, points: int) -> Iterator[tuple[float, float]]:
    steps = [float(step) for step in np.linspace(-radius, radius, points)]
    return ((a, b) for b in steps for a in steps)


def centre(run: Run, reader: str) -> dict[str, float]:
    """`losses_at` the minimum itself, over all images."""
    return losses_at(run.network(reader).to(device()), run.data.to(device()), [])


def rises(
    readings: Mapping[str, Reading], *, radius: float, directions: int, images: int = 0
) -> pd.DataFrame:
    """How steeply the loss on the given labels rises from each minimum: one row a method and seed.

    centre : loss at the minimum; rise : mean loss at distance `radius` along `directions` random
        filter-normalised directions, both ways, less the centre's. The k-th direction is drawn from the same
        numbers for every network.
    images : over the first so many images; 0 is all
    """
    rows = []
    for name, reading in readings.items():
        for run in reading.runs:
            data = first_images(run.data, images).to(device())
            network = run.network(reading.reader).to(device())
            centre = losses_at(network, data, [])["given"]
            around = []
            for number in range(directions):
                direction = filter_normalised(network, torch_generator(number, "landscape", 0))
                around += [
                    losses_at(network, data, [(step, direction)])["given"] for step in (radius, -radius)
                ]
            rise = float(np.mean(around)) - centre
            rows.append({"method": name, "seed": run.config.seed, "centre": centre, "rise": rise})
    return pd.DataFrame(rows)
