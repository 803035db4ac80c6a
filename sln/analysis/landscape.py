"""Loss landscapes: lines and surfaces around a minimum, and the straight line between two minima.

Directions are random and filter-normalised (Li et al., NeurIPS 2018). Networks are comparable because of the
normalisation, and only along the same random directions: `directions(network, seed)` draws the same numbers
for every network of one architecture.

BatchNorm's statistics belong to the weights at which they were measured. `statistics` selects those used at
the moved weights:

centre (around a minimum) : the network's own running averages, as in Li et al.'s pictures
interpolated (between two minima) : the straight line between the two networks' running averages
recomputed (both) : mean and variance of every BatchNorm's input over the training images, measured at the
    moved weights by `torch.optim.swa_utils.update_bn`: one pass in training mode, a plain average over equal
    batches of at most STATISTICS_BATCH images. Exact up to that number of images; with more, the average of
    the batches' statistics leaves out the variance between their means.
"""

import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import update_bn

from sln.data import Data
from sln.datasets.load import threads
from sln.runs.run import Run
from sln.study.statistics import MethodRuns
from sln.utils.devices import device, prediction_size
from sln.utils.errors import choose
from sln.utils.files import read_table, write_text
from sln.utils.graphs import passes
from sln.utils.networks import tensors
from sln.utils.progress import Progress
from sln.utils.rng import torch_generator

AROUND = ("centre", "recomputed")  # BatchNorm's statistics around a minimum
BETWEEN = ("recomputed", "interpolated")  # and between two
STATISTICS_BATCH = 2500
CPU_BATCH = 256  # measured: activations that stay in a core's cache

Tensors = dict[str, Tensor]  # by name: a direction; parameters, and buffers if not the network's own
Moves = Iterable[tuple[float, Tensors]]  # steps along directions
Losses = dict[str, float]


def filter_normalised(network: nn.Module, generator: torch.Generator) -> Tensors:
    """A random direction: each filter d_ij of N(0, 1) numbers becomes d_ij |theta_ij| / |d_ij|.

    A filter is one output channel of a convolution, or one row of a linear layer. Biases and BatchNorm
    parameters do not move (zero), as in the authors' own setting for these pictures.
    """
    direction = {}
    for name, weight in network.named_parameters():
        direction[name] = torch.zeros_like(weight)
        if weight.ndim > 1:
            d = torch.randn(weight.shape, generator=generator)
            norm = functools.partial(torch.linalg.vector_norm, dim=tuple(range(1, weight.ndim)), keepdim=True)
            direction[name] = d.to(weight.device) * norm(weight.detach()) / norm(d).to(weight.device)
    return direction


def directions(network: nn.Module, seed: int = 0) -> tuple[Tensors, Tensors]:
    """The two directions of a surface, from `seed`'s own streams."""
    return tuple(filter_normalised(network, torch_generator(seed, "landscape", axis)) for axis in (0, 1))


def first_images(data: Data, count: int) -> Data:
    """`data` with only the first `count` training and test images (0: all), for a landscape in less time."""
    return dataclasses.replace(data, train=data.train[: count or None], test=data.test[: count or None])


class EvaluationSet:
    """The images that a loss is over, normalised once, on the device, and their labels (N,)."""

    def __init__(self, data: Data) -> None:
        data = data.to(device())
        self.train, self.test = (data.normalise(split.images) for split in (data.train, data.test))
        self.given, self.true = data.train.given, data.train.true  # -1 where the image is of no class
        self.test_true = data.test.true


@threads(1)
@torch.no_grad()
def losses(network: nn.Module, images: EvaluationSet, weights: Tensors, recompute: bool) -> Losses:
    """Mean cross-entropy on "given", "true" (without images of no class) and "test" labels.

    weights : in the place of the network's own; recompute : whether BatchNorm's statistics are measured there
    """
    if recompute:
        weights = weights | batchnorm_statistics(network, weights, images.train)
    network.eval()
    train, test = (_logits(network, weights, part) for part in (images.train, images.test))
    inside = images.true >= 0
    return {
        "given": F.cross_entropy(train, images.given).item(),
        "true": F.cross_entropy(train[inside], images.true[inside]).item(),
        "test": F.cross_entropy(test, images.test_true).item(),
    }


def _logits(network: nn.Module, weights: Tensors, images: Tensor) -> Tensor:
    """(N, C) float32, on the CPU; on a GPU by `graphs.passes`, if the speed has them, with bfloat16 operands.

    Far from the minimum, where nothing normalises the activations, float16 would overflow; bfloat16 does not.
    """
    captured = passes(network, images)
    if captured is not None:
        return captured(tensors(network) | weights, images.split(prediction_size(images.device)))
    batches = images.split(CPU_BATCH)
    return torch.cat([functional_call(network, weights, (batch,)) for batch in batches]).cpu()


def batchnorm_statistics(network: nn.Module, weights: Tensors, images: Tensor) -> Tensors:
    """Every BatchNorm's running mean and variance over `images` (N, ...) at `weights`; see "recomputed"."""
    moved = copy.deepcopy(network)
    moved.load_state_dict(weights, strict=False)
    update_bn(images.tensor_split(math.ceil(len(images) / STATISTICS_BATCH)), moved)
    return dict(moved.named_buffers())


def moved(network: nn.Module, moves: Moves) -> Tensors:
    """theta + sum of step * direction."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    for step, direction in moves:
        weights = {name: weight + step * direction[name] for name, weight in weights.items()}
    return weights


def losses_at(network: nn.Module, images: EvaluationSet, moves: Moves, statistics: str = "centre") -> Losses:
    """`losses` at theta + sum of step * direction; `statistics` is one of AROUND."""
    choose("BatchNorm statistics", statistics, AROUND)
    return losses(network, images, moved(network, moves), statistics == "recomputed")


def centre(run: Run, weights: str) -> Losses:
    """`losses_at` the minimum itself, over all images."""
    return losses_at(run.network(weights).to(device()), EvaluationSet(run.data), [])


def line(network: nn.Module, data: Data, *, radius: float, points: int, seed: int = 0) -> pd.DataFrame:
    """The loss along the first direction: one row per step in [-radius, radius]; x, given, true, test."""
    network, images = network.to(device()), EvaluationSet(data)
    (x, _), steps = directions(network, seed), np.linspace(-radius, radius, points).tolist()
    return pd.DataFrame([{"x": a} | losses_at(network, images, [(a, x)]) for a in steps])


def lines(
    methods: Mapping[str, MethodRuns], *, radius: float, points: int, images: int = 0
) -> dict[str, pd.DataFrame]:
    """`line` of each method's first run, over its first `images` images (0: all)."""
    size = {"radius": radius, "points": points}
    return {
        name: line(m.first.network(m.weights), first_images(m.first.data, images), **size)
        for name, m in methods.items()
    }


def describe_lines(tables: Mapping[str, pd.DataFrame]) -> str:
    """The loss of `lines` at the minimum, on all three kinds of labels, and its rise to the ends."""
    texts = []
    for name, table in tables.items():
        table = table.set_index("x")
        centre = table.loc[table.index[table.index.to_series().abs().argmin()]]
        ends = table["given"].iloc[[0, -1]].mean() - centre["given"]
        texts.append(
            f"{name}: {centre['given']:.2f} on given labels, {centre['true']:.2f} on true ones, "
            f"{centre['test']:.2f} on test images; on given labels it rises by {ends:.2f} to the ends"
        )
    return "Loss at the minimum. " + ". ".join(texts) + "."


def surface(
    network: nn.Module, data: Data, *, radius: float, points: int, seed: int = 0, quiet: bool = False
) -> pd.DataFrame:
    """The loss over a square of points x points steps: one row per point; x, y, given, true, test.

    Steps span [-radius, radius], in units of the filters' own norms; the centre of an odd number of points is
    the network itself. seed : of the pair of directions
    """
    network, images, rows = network.to(device()), EvaluationSet(data), []
    (x, y), steps = directions(network, seed), np.linspace(-radius, radius, points).tolist()
    with Progress(points**2, "loss surface", "points", quiet=quiet) as progress:
        for b, a in itertools.product(steps, steps):
            rows.append({"x": a, "y": b} | losses_at(network, images, [(a, x), (b, y)]))
            progress.advance()
    return pd.DataFrame(rows)


def surface_of(run: Run, weights: str, *, radius: float, points: int, images: int = 0) -> pd.DataFrame:
    """`surface` of a run over its first `images` images (0: all), cached beside the run."""
    name = f"{weights}-radius{radius:g}-points{points}-seed0" + f"-images{images}" * bool(images)
    size = {"radius": radius, "points": points}
    return cached(run, name, lambda: surface(run.network(weights), first_images(run.data, images), **size))


def surfaces(methods: Mapping[str, MethodRuns], **size: float) -> dict[str, pd.DataFrame]:
    """`surface_of` each method's first run."""
    return {name: surface_of(m.first, m.weights, **size) for name, m in methods.items()}


def centre_errors(methods: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """How far the losses at the `centre` of each first run are from those that training recorded.

    Columns: method, given, test.
    """
    rows = []
    for name, method in methods.items():
        found, recorded = centre(method.first, method.weights), method.first.final(method.weights)
        row = {"method": name, "given": abs(found["given"] - recorded["train_loss"])}
        rows.append(row | {"test": abs(found["test"] - recorded["test_loss"])})
    return pd.DataFrame(rows)


def cached(run: Run, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table `name` beside a run, computed if it is not there yet."""
    path = run.folder / "surfaces" / f"{name}.csv"
    if not path.exists():
        write_text(path, compute().to_csv(index=False, lineterminator="\n"))
    return read_table(path)


# Panels of the paper's Figure 2 in its order: the noise's equation, lowest and highest loss within ±0.1. Read
# from the authors' picture (results/landscape.PNG in chenpf1025/SLN), to about one unit of the last digit.
PAPER = {
    "CE": ("", 0.3, 1.8),
    "gradient noise": ("Eq. 1", 1.7, 2.5),
    "logit noise": ("Eq. 2", 1.38, 1.51),
    "SLN": ("Eq. 3", 1.62, 1.65),
}


def ranges(surfaces: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Lowest and highest loss on given labels of surfaces of radius 0.1, ours and the paper's, by panel."""
    rows = [
        (letter, method, equation, surfaces[method]["given"].min(), surfaces[method]["given"].max(), *theirs)
        for letter, (method, (equation, *theirs)) in zip("abcd", PAPER.items(), strict=True)
    ]
    columns = ["panel", "method", "equation", "lowest", "highest", "paper_lowest", "paper_highest"]
    return pd.DataFrame(rows, columns=columns)


def describe_ranges(table: pd.DataFrame) -> str:
    """`ranges` in words: each panel, and whether the panels' steepness has the paper's order."""
    table = table.set_index("method")
    rise, theirs = table["highest"] - table["lowest"], table["paper_highest"] - table["paper_lowest"]
    panels = ", ".join(
        f"{name} {row.lowest:.2f} to {row.highest:.2f} (paper {row.paper_lowest:g} to {row.paper_highest:g})"
        for name, row in table.iterrows()
    )
    ours, paper = (", ".join(x.sort_values(ascending=False).index) for x in (rise, theirs))
    order = "the paper’s order" if ours == paper else f"in the paper {paper}"
    ratios = [part["gradient noise"] / part["SLN"] for part in (rise, theirs)]
    return (
        f"Lowest and highest loss within ±0.1: {panels}.\nSteepest first: {ours}; {order}.\nNoise on the "
        f"gradient rises {ratios[0]:.0f} times as much as SLN (paper: {ratios[1]:.0f} times)."
    )


def rise(
    network: nn.Module, data: Data, *, radius: float, points: int, seed: int = 0, statistics: str = "centre"
) -> pd.DataFrame:
    """L(theta + r d) - L(theta) on given, true and test labels: mean over a pair of directions, both ways.

    One row per distance r = radius / points, ..., radius. `statistics` is one of AROUND.
    """
    network, images = network.to(device()), EvaluationSet(data)
    at = lambda *moves: pd.Series(losses_at(network, images, moves, statistics))  # noqa: E731
    centre, pair, rows = at(), directions(network, seed), []
    for r in np.linspace(0, radius, points + 1)[1:]:
        around = [at((sign * r, direction)) for direction in pair for sign in (1, -1)]
        rows.append({"r": r} | (sum(around) / len(around) - centre).to_dict())
    return pd.DataFrame(rows)


def rises(
    methods: Mapping[str, MethodRuns],
    *,
    pairs: int = 1,
    statistics: tuple[str, ...] = ("centre",),
    images: int = 0,
    **size: float,
) -> pd.DataFrame:
    """`rise` of these radius and points by method (first run), pair (from 1) and statistics; cached."""
    parts = []
    for (name, method), pair, how in itertools.product(methods.items(), range(pairs), statistics):
        run, key = method.first, "-".join(f"{part}{value:g}" for part, value in size.items())
        where = run.network(method.weights), first_images(run.data, images)
        compute = functools.partial(rise, *where, seed=pair, statistics=how, **size)
        part = cached(run, f"rise-{method.weights}-{key}-seed{pair}-images{images}-{how}", compute)
        parts.append(pd.DataFrame({"method": name, "pair": pair + 1, "statistics": how} | dict(part)))
    return pd.concat(parts, ignore_index=True)


def between(
    first: nn.Module, second: nn.Module, data: Data, *, quarter: int = 5, statistics: str = "recomputed"
) -> pd.DataFrame:
    """The loss at (1 - t) theta_1 + t theta_2 for t in [-1/4, 5/4]: one row per step; t, given, true, test.

    quarter : steps per quarter of the way, so that t = 0 and t = 1 are met exactly; 6 quarter + 1 rows
    statistics : BatchNorm's, one of BETWEEN. Interpolated ones give the networks' own losses at t = 0 and 1,
        and NaN outside [0, 1] where a variance is negative. Recomputed ones are the default because a mean of
        two networks' statistics belongs to neither and adds to the barrier (Jordan et al., ICLR 2023).
    """
    choose("BatchNorm statistics", statistics, BETWEEN)
    first, second, images = first.to(device()), second.to(device()), EvaluationSet(data)
    start, end, rows = first.state_dict(), second.state_dict(), []
    start = {name: value for name, value in start.items() if value.is_floating_point()}
    for t in (np.arange(-quarter, 5 * quarter + 1) / (4 * quarter)).tolist():
        weights = {name: (1 - t) * value + t * end[name] for name, value in start.items()}
        rows.append({"t": t} | losses(first, images, weights, statistics == "recomputed"))
    return pd.DataFrame(rows)


def between_methods(
    methods: Mapping[str, MethodRuns], start: str, end: str, *, quarter: int = 5, images: int = 0
) -> dict[str, pd.DataFrame]:
    """`between` the first runs of two methods, by name in BETWEEN, and two references, by names of methods.

    These go from a method's first run to its second, of another seed, if there is one, with recomputed
    statistics, over the first run's images and labels, which are not the second's: only `barriers` compare.
    """
    tables, one, two = {}, methods[start], methods[end]
    asked = [(how, one, one.first, two, two.first, how) for how in BETWEEN]
    for name, method in ((start, one), (end, two)):
        asked += [(name, method, method.first, method, other, "recomputed") for other in method.runs[1:2]]
    for key, one, run, two, other, statistics in asked:
        name = f"{one.weights}-to-{other.folder.name}-{two.weights}-quarter{quarter}-{statistics}"
        name += f"-images{images}" * bool(images)
        where = run.network(one.weights), other.network(two.weights), first_images(run.data, images)
        compute = functools.partial(between, *where, quarter=quarter, statistics=statistics)
        tables[key] = cached(run, name, compute)
    return tables


def barriers(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How far each line of `between_methods` with recomputed statistics rises above that between its ends."""
    found = {name: table.set_index("t").loc[0:1] for name, table in tables.items() if name != "interpolated"}
    for name, table in found.items():
        ends = np.outer(1 - table.index, table.loc[0.0]) + np.outer(table.index, table.loc[1.0])
        found[name] = (table - ends).max()
    return pd.DataFrame(found).T
