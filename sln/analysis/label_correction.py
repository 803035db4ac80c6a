"""What label correction does to the labels: which ones move, and how many of those are wrong."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from sln.method import corrected_targets
from sln.runs.run import Run
from sln.study.statistics import MethodRuns


def targets_at(run: Run, epoch: int) -> Tensor:
    """(N, C): the corrected targets w y + (1 - w) y_hat of one epoch."""
    correction = run.correction(epoch)
    given = F.one_hot(run.data.train.given, run.data.num_classes).float()
    return corrected_targets(given, correction.predictions, correction.w)


def by_epoch(run: Run) -> pd.DataFrame:
    """What correction did, one row per corrected epoch.

    An example has *moved* if its target's largest entry is not its given label.

    moved : share of all examples
    precision : share of the moved whose given label is wrong
    recall : share of the wrong that have moved
    label_accuracy, given_accuracy : share of targets' largest entries, and of given labels, that are true
    mass_on_true : mean target entry of the true class

    Images of no class (open-set) are left out of the last three.
    """
    split, rows = run.data.train, []
    wrong, inside = split.wrong, split.true >= 0

    def share(of: Tensor) -> float:
        return of.double().mean().item()

    for epoch in run.corrected_epochs:
        targets = targets_at(run, epoch)
        label = targets.argmax(dim=1)
        moved = label != split.given
        row = {
            "epoch": epoch,
            "moved": share(moved),
            "precision": share(wrong[moved]),
            "recall": share(moved[wrong]),
            "label_accuracy": share((label == split.true)[inside]),
            "given_accuracy": share(~wrong[inside]),
            "mass_on_true": share(targets[inside].gather(1, split.true[inside, None])),
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("epoch")


def over_seeds(rules: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """`by_epoch` of several rules of correction: one row per rule (column "reading"), seed and epoch."""
    parts = [
        by_epoch(run).reset_index().assign(reading=name, seed=run.config.seed)
        for name, corrected in rules.items()
        for run in corrected.runs
    ]
    return pd.concat(parts, ignore_index=True)


def weights(corrected: MethodRuns) -> pd.DataFrame:
    """The last correction of each run, one row per training example and seed.

    w : weight of the given label; on_given : share of the target on the given label, more than w if the
        prediction agrees with it; wrong : whether the given label is wrong
    """
    parts = []
    for run in corrected.runs:
        last = run.corrected_epochs[-1]
        split = run.data.train
        on_given = targets_at(run, last).gather(1, split.given[:, None])[:, 0]
        columns = {"w": run.correction(last).w, "on_given": on_given, "wrong": split.wrong}
        part = pd.DataFrame({name: value.numpy() for name, value in columns.items()})
        parts.append(part.assign(seed=run.config.seed))
    return pd.concat(parts, ignore_index=True)


def weights_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means of `weights`, and the share of labels that moved, for right and for wrong labels."""
    named = table.assign(
        label=table["wrong"].map({True: "wrong", False: "right"}), moved=table["on_given"] < 0.5
    )
    return named.groupby("label")[["w", "on_given", "moved"]].mean()


def most_moved(run: Run, epoch: int, count: int) -> pd.DataFrame:
    """The `count` training examples whose target moved furthest from the given label at a corrected epoch.

    Columns: given, true, target (class of the largest entry), distance = 1 - target entry of the given label.
    The index is the example's number; ties keep data-set order.
    """
    split, targets = run.data.train, targets_at(run, epoch)
    columns = {
        "given": split.given,
        "true": split.true,
        "target": targets.argmax(dim=1),
        "distance": 1 - targets.gather(1, split.given[:, None])[:, 0],
    }
    table = pd.DataFrame({name: value.numpy() for name, value in columns.items()})
    return table.sort_values("distance", ascending=False, kind="stable").head(count)
