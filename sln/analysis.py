"""What the runs say: tables behind the figures. Every function takes runs or plain arrays and returns a
DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch.nn.functional as F

from sln import method
from sln.runs import Run
from sln.study import Reading, Study

PUBLISHED = Path(__file__).parent / "published.csv"


def mean_and_std(readings: Mapping[str, Reading], column: str) -> pd.DataFrame:
    """One row a method: mean and sample standard deviation over seeds of a column's last epoch, and the
    number of seeds."""
    finals = {name: reading.final(column) for name, reading in readings.items()}
    return pd.DataFrame(
        [
            {"method": name, "mean": x.mean(), "std": x.std(ddof=1), "seeds": len(x)}
            for name, x in finals.items()
        ]
    ).set_index("method")


def curves(readings: Mapping[str, Reading], columns: Sequence[str]) -> pd.DataFrame:
    """History columns over epochs as mean and standard deviation over seeds: one row a method and epoch."""
    parts = []
    for name, reading in readings.items():
        table = pd.DataFrame({"method": name}, index=reading.curve(columns[0]).index)
        for column in columns:
            values = reading.curve(column)
            table[f"{column}_mean"], table[f"{column}_std"] = values.mean(axis=1), values.std(axis=1)
        parts.append(table.reset_index())
    return pd.concat(parts, ignore_index=True)


def over_sigma(grid: Mapping[float, list[Run]], columns: Sequence[str]) -> pd.DataFrame:
    """Last-epoch history columns against sigma, for the network and the momentum model, mean and standard
    deviation over seeds."""
    rows = []
    for sigma, runs in grid.items():
        for reader in ("network", "momentum"):
            reading = Reading("", runs, reader)
            row: dict[str, object] = {"sigma": sigma, "reader": reader, "seeds": len(runs)}
            for column in columns:
                values = reading.final(column)
                row[f"{column}_mean"], row[f"{column}_std"] = values.mean(), values.std(ddof=1)
            rows.append(row)
    return pd.DataFrame(rows)


def results(study: Study) -> pd.DataFrame:
    """The study's table: one row a kind of noise and method, with the chosen sigma; accuracies in per cent
    of the test set."""
    parts = []
    for noise_mode in study.profile.noise_modes:
        table = mean_and_std(study.readings(noise_mode), "test_accuracy").reset_index()
        table[["mean", "std"]] *= 100
        table.insert(0, "noise", noise_mode)
        table["sigma"] = [
            0.0 if name.startswith("CE") else study.choose_sigma(noise_mode) for name in table["method"]
        ]
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def published() -> pd.DataFrame:
    """Accuracies from the paper (source "paper") and from a re-implementation ("re-sln"), per cent: dataset,
    noise, method, mean, std, runs."""
    return pd.read_csv(PUBLISHED)


def beside_published(ours: pd.DataFrame, dataset: str = "cifar10") -> pd.DataFrame:
    """`results` beside the paper's numbers for `dataset`, method by method: "mean ± std" as text; "not in
    the paper" where it has none."""
    paper = published().query("source == 'paper' and dataset == @dataset").set_index(["noise", "method"])
    rows = []
    for row in ours.itertuples():
        key = (row.noise, row.method)
        theirs = (
            f"{paper.loc[key, 'mean']:.2f} ± {paper.loc[key, 'std']:.2f}"
            if key in paper.index
            else "not in the paper"
        )
        rows.append(
            {
                "noise": row.noise,
                "method": row.method,
                "ours (digits)": f"{row.mean:.1f} ± {row.std:.1f}",
                f"paper ({dataset})": theirs,
            }
        )
    return pd.DataFrame(rows).set_index(["noise", "method"])


def dissection(run: Run, reader: str = "network", intervals: int = 50) -> pd.DataFrame:
    """Training examples sorted by loss, in `intervals` equal parts: how many of each have a right or wrong
    label and prediction.

    The paper's figure has 50 intervals of 1,000. Loss is against the given label; the prediction is right if
    it is the *true* label.
    """
    examples = run.examples.sort_values(f"{reader}_loss", kind="stable")
    wrong = (examples["given"] != examples["true"]).to_numpy()
    correct = (examples[f"{reader}_prediction"] == examples["true"]).to_numpy()
    loss = examples[f"{reader}_loss"].to_numpy()
    rows = []
    for number, index in enumerate(np.array_split(np.arange(len(examples)), min(intervals, len(examples)))):
        rows.append({
            "interval": number, "mean_loss": loss[index].mean(),
            "right label, right prediction": (~wrong & correct)[index].sum(), "right label, wrong prediction": (~wrong & ~correct)[index].sum(),
            "wrong label, right prediction": (wrong & correct)[index].sum(), "wrong label, wrong prediction": (wrong & ~correct)[index].sum(),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("interval")


def label_recovery(run: Run) -> pd.DataFrame:
    """What label correction did, one row a corrected epoch. An example has *moved* when its target's largest
    entry is not its given label.

    moved : share of all examples; precision : share of the moved whose given label is wrong; recall : share
        of the wrong that have moved;
    label_accuracy : share of targets whose largest entry is the true label; given_accuracy : the same of the
        given labels;
    mass_on_true : mean target entry of the true class. Images of no class (open-set) are left out of the
        last three.
    """
    split, rows = run.data.train, []
    wrong, inside = split.wrong, split.true >= 0
    given = F.one_hot(split.given, run.data.num_classes).float()
    for epoch, correction in run.corrections().items():
        targets = method.corrected_targets(given, correction.predictions, correction.w)
        label = targets.argmax(dim=1)
        moved = label != split.given
        on_true = targets[inside].gather(1, split.true[inside, None])
        rows.append({
            "epoch": epoch, "moved": moved.double().mean().item(),
            "precision": wrong[moved].double().mean().item(), "recall": moved[wrong].double().mean().item(),
            "label_accuracy": (label == split.true)[inside].double().mean().item(),
            "given_accuracy": (~wrong)[inside].double().mean().item(), "mass_on_true": on_true.double().mean().item(),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("epoch")


def recovery_over_seeds(runs: Sequence[Run]) -> pd.DataFrame:
    """`label_recovery` of several runs: one row a seed and epoch."""
    return pd.concat([label_recovery(run).assign(seed=run.config.seed) for run in runs]).reset_index()


def most_moved(run: Run, epoch: int, count: int) -> pd.DataFrame:
    """The `count` training examples whose target moved furthest from the given label at a corrected epoch.

    Columns: given, true, target (class of the largest entry), distance = 1 - target entry of the given
    label. Ties keep data-set order.
    """
    split, correction = run.data.train, run.corrections()[epoch]
    targets = method.corrected_targets(
        F.one_hot(split.given, run.data.num_classes).float(), correction.predictions, correction.w
    )
    table = pd.DataFrame({
        "given": split.given, "true": split.true, "target": targets.argmax(dim=1),
        "distance": 1 - targets.gather(1, split.given[:, None])[:, 0],
    })  # fmt: skip
    return table.sort_values("distance", ascending=False, kind="stable").head(count)


def gap(
    readings: Mapping[str, Reading], better: str, worse: str, column: str = "test_accuracy"
) -> tuple[float, float]:
    """Mean over seeds of the paired difference better - worse, and its standard error: seeds share their
    corruption."""
    difference = readings[better].final(column) - readings[worse].final(column)
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
