"""How sensitive the logits of a trained network are to its weights: |J|^2, in both modes of BatchNorm.

J_i (C, P) is the Jacobian of image i's logits by all P weights (`theory`). In training mode the logits depend
on the weights through the mini-batch's statistics too: that is the J of every step of SGD. In evaluation mode
BatchNorm's running statistics are constants.
"""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import vjp

from sln.analysis.sharpness import compared
from sln.analysis.theory import as_function
from sln.datasets.load import threads
from sln.study.statistics import MethodRuns
from sln.utils.devices import device
from sln.utils.rng import torch_generator

# Columns of `table` and `ratios`, in words.
QUANTITIES = {
    "training": "|J|², mini-batch’s statistics",
    "evaluation": "|J|², running statistics",
    "logit_size": "|f|², around the mean over classes",
    "relative": "|J|² / |f|²",
    "weights": "|θ|²",
}


def squared_jacobian(network: nn.Module, images: Tensor, draws: Tensor) -> tuple[float, float]:
    """Means over normalised images (B, ...) of |J_i|_F^2 and |f_i - mean over classes|^2, in the mode set.

    The first is an estimate without bias, the mean of |sum_i J_i' z_i|^2 over draws z (n, B, C) of N(0, 1).
    """
    theta, f = as_function(network, images)
    logits, pullback = vjp(f, theta)
    squares = [sum(part.square().sum() for part in pullback(z)[0].values()).item() for z in draws]
    size = logits.var(dim=1, correction=0).sum().item() * logits.shape[1]
    return sum(squares) / len(squares) / len(images), size / len(images)


@threads(1)
def table(
    methods: Mapping[str, MethodRuns], seeds: int | None = None, batches: int = 8, draws: int = 8
) -> pd.DataFrame:
    """One row per method and seed (the first `seeds`); columns method, seed, and those of QUANTITIES.

    They are means over the first `batches` mini-batches of training images, of the run's own size. |f|^2 and
    |J|^2 / |f|^2 are of training mode. All networks see the same random numbers, `draws` per batch.
    """
    rows = []
    for name, run in ((name, run) for name, method in methods.items() for run in method.runs[:seeds]):
        network, data = run.network(methods[name].weights).to(device()), run.data.to(device())
        parts = []
        for number, images in enumerate(data.train.images.split(run.config.batch_size)[:batches]):
            generator = torch_generator(0, "bootstrap", number)
            z = torch.randn(draws, len(images), data.num_classes, generator=generator).to(device())
            images = data.normalise(images)
            evaluation, _ = squared_jacobian(network.eval(), images, z)
            training, size = squared_jacobian(network.train(), images, z)
            parts.append({"training": training, "evaluation": evaluation, "logit_size": size})
        row = pd.DataFrame(parts).mean()
        row["relative"] = row["training"] / row["logit_size"]
        row["weights"] = sum(value.square().sum().item() for value in network.parameters())
        rows.append({"method": name, "seed": run.config.seed} | row.to_dict())
    return pd.DataFrame(rows)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """The first method's value over the second's: geometric mean over seeds, and its t interval.

    One row per quantity; columns mean of each method, ratio, low, high, seeds, and the verdict of "larger for
    the first" (`Estimate.verdict`).
    """
    parts, rows = {name: part.set_index("seed") for name, part in table.groupby("method", sort=False)}, {}
    for column, words in QUANTITIES.items():
        found, apart = compared(*(part[column] for part in parts.values()))
        rows[words] = {name: part[column].mean() for name, part in parts.items()}
        rows[words] |= {"ratio": found.mean, "low": found.low, "high": found.high}
        rows[words] |= {"seeds": apart.seeds, "verdict": apart.verdict()}
    return pd.DataFrame(rows).T.rename_axis("quantity")


def describe(ratios: pd.DataFrame) -> str:
    """`ratios` in words."""
    first, second = ratios.columns[:2]
    rows = {key: ratios.loc[words] for key, words in QUANTITIES.items()}
    text = {key: f"{row['ratio']:.3g} [{row['low']:.3g}, {row['high']:.3g}]" for key, row in rows.items()}
    return (
        f"|J|² of {first} is {text['training']} times that of {second} as training feels it, and "
        f"{text['evaluation']} times with running statistics. The logits’ own size |f|² has the ratio "
        f"{text['logit_size']}, so sensitivity relative to it {text['relative']}. |θ|² has the ratio "
        f"{text['weights']}: longer weights in front of a BatchNorm make J smaller by themselves. "
        f"[95% t intervals, seeds: {ratios['seeds'].max()}]"
    )
