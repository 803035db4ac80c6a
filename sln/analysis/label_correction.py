"""What label correction does to the labels: which ones move, and how many of those are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from sln.method import corrected_targets
from sln.runs.run import Run
from sln.study.statistics import MethodRuns, interval, span
from sln.utils.files import project_root, read_table


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


def on_photographs() -> pd.DataFrame:
    """`over_seeds` of the photographs, where the momentum model is often wrong: mini's committed table."""
    return read_table(project_root() / "figures" / "mini" / "03_label_correction.csv")


def describe(table: pd.DataFrame, where: str) -> str:
    """What each rule of `over_seeds` has done to the labels by the last epoch, and whether they are truer."""
    lines = []
    for rule, part in table[table["epoch"] == table["epoch"].max()].groupby("reading", sort=False):
        mean = part.mean(numeric_only=True).map("{:.0%}".format)
        truer = interval(100 * (part["label_accuracy"] - part["given_accuracy"]))
        lines.append(
            f"{where}, {rule}: {mean.moved} of all labels move, of which {mean.precision} were wrong; "
            f"{mean.recall} of the wrong ones move. True labels: {mean.given_accuracy} before, "
            f"{mean.label_accuracy} after, {truer} points. "
            f"Correction makes labels truer: {truer.verdict()}."
        )
    return "\n".join(lines)


def by_weight(rules: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """Rules of w side by side, the paper's first: test accuracy and true labels (%), with t intervals.

    gain : test accuracy minus the first rule's, in points, paired over seeds
    labels : training labels that are true after the last correction
    """
    first, rows = next(iter(rules.values())), []
    for name, method in rules.items():
        accuracy = 100 * method.final("test_accuracy")
        values = {
            "accuracy": accuracy,
            "gain": accuracy - 100 * first.final("test_accuracy"),
            "labels": [100 * by_epoch(run)["label_accuracy"].iloc[-1] for run in method.runs],
        }
        row: dict[str, object] = {"rule": name, "seeds": len(method.runs)}
        for column, of in values.items():
            row |= interval(of).row(column, f"{column}_")
        rows.append(row)
    return pd.DataFrame(rows)


def describe_by_weight(table: pd.DataFrame) -> str:
    """Which rules of `by_weight` differ from the first, the paper's, and what they do to the labels."""
    first, lines = table.iloc[0], []

    def labels(row: Any) -> str:
        return f"{row.labels:.0f}% of labels true {span(row.labels_low, row.labels_high, '.0f')}"

    lines.append(f"{first.rule}: test accuracy {first.accuracy:.1f}%, {labels(first)}.")
    for row in table.iloc[1:].itertuples():
        told = row.gain_low > 0 or row.gain_high < 0
        verdict = ("better" if row.gain > 0 else "worse") if told else "no clear difference"
        lines.append(
            f"{row.rule}: {row.gain:+.1f} points {span(row.gain_low, row.gain_high)}, {verdict}; "
            f"{labels(row)}."
        )
    return "\n".join(lines)


def telling_example(rules: Mapping[str, MethodRuns]) -> int:
    """The first training image with a wrong label, of seed 0, that ends in different labels by the rules."""
    runs = [method.first for method in rules.values()]
    wrong = runs[0].data.train.wrong
    labels = [targets_at(run, run.corrected_epochs[-1]).argmax(dim=1) for run in runs]
    differ = wrong & (labels[0] != labels[1])
    return int((differ if differ.any() else wrong).nonzero()[0])


def worked_example(rules: Mapping[str, MethodRuns], example: int) -> pd.DataFrame:
    """One training image of seed 0 through all corrected epochs: one row per rule and epoch.

    Columns: rule, epoch, example, given, true, predicted, w, on_given and on_true (entries of its target).
    """
    rows = []
    for name, method in rules.items():
        run = method.first
        given, true = int(run.data.train.given[example]), int(run.data.train.true[example])
        for epoch in run.corrected_epochs:
            correction, target = run.correction(epoch), targets_at(run, epoch)[example]
            row = {"rule": name, "epoch": epoch, "example": example, "given": given, "true": true}
            row |= {
                "predicted": int(correction.predictions[example].argmax()),
                "w": correction.w[example].item(),
            }
            rows.append(row | {"on_given": target[given].item(), "on_true": target[true].item()})
    return pd.DataFrame(rows)


def describe_worked_example(table: pd.DataFrame) -> str:
    """The target of `worked_example` at the first and the last corrected epoch, one line per rule."""
    lines = []
    for rule, part in table.groupby("rule", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        lines.append(
            f"{rule}: w is {first.w:.2f} at epoch {first.epoch} and {last.w:.2f} at epoch {last.epoch}; the "
            f"target’s entry of the given label goes from {first.on_given:.2f} to {last.on_given:.2f}, that "
            f"of the true one from {first.on_true:.2f} to {last.on_true:.2f}."
        )
    return "\n".join(lines)


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


def describe_weights(summary: pd.DataFrame) -> str:
    """`weights_summary` in words."""
    return "\n".join(
        f"{row.Index} labels: w is {row.w:.2f} on average, {row.on_given:.2f} of the target is on the given "
        f"label, {row.moved:.0%} have moved."
        for row in summary.itertuples()
    )


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
