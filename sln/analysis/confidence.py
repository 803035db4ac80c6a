"""Confidence of the networks: histograms, calibration, dissection by loss, finding wrong labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score

from sln.datasets.load import threads
from sln.metrics import reliability
from sln.runs.run import Run
from sln.study.statistics import MethodRuns
from sln.train import predict

BINS = np.linspace(0, 1, 21)


def pooled_examples(runs: list[Run]) -> pd.DataFrame:
    """The per-example records of several runs, with a column `wrong`: whether the given label is wrong."""
    examples = pd.concat([run.examples.assign(seed=run.config.seed) for run in runs], ignore_index=True)
    return examples.assign(wrong=examples["given"] != examples["true"])


def histograms(grid: Mapping[float, MethodRuns]) -> pd.DataFrame:
    """Shares of right and of wrong labels by sigma and bin of the probability of the given label."""
    parts = []
    for sigma, found in grid.items():
        examples = pooled_examples(found.runs)
        for weights in ("network", "momentum"):
            for wrong, part in examples.groupby("wrong"):
                counts, _ = np.histogram(part[f"{weights}_p_given"], BINS)
                columns = {"low": BINS[:-1], "high": BINS[1:], "share": counts / max(1, len(part))}
                label = "wrong" if wrong else "right"
                parts.append(pd.DataFrame({"sigma": sigma, "weights": weights, "label": label} | columns))
    return pd.concat(parts, ignore_index=True)


@threads(1)
def reliability_tables(methods: Mapping[str, MethodRuns]) -> dict[str, pd.DataFrame]:
    """Accuracy against confidence on test images by method, the predictions of all seeds together."""
    tables = {}
    for name, method in methods.items():
        logits = [predict(run.network(method.weights), run.data.test, run.data) for run in method.runs]
        true = torch.cat([run.data.test.true for run in method.runs])
        confidence, prediction = F.softmax(torch.cat(logits), dim=1).max(dim=1)
        tables[name] = reliability(confidence, prediction == true)
    return tables


def dissection(run: Run, weights: str = "network", intervals: int = 50) -> pd.DataFrame:
    """Training examples sorted by loss, in `intervals` equal parts, counted by label and prediction.

    The paper's figure has 50 intervals of 1,000. The loss is against the given label. A prediction is right
    if it is the *true* label.
    """
    examples = pooled_examples([run]).sort_values(f"{weights}_loss", kind="stable")
    correct = examples[f"{weights}_prediction"] == examples["true"]
    kind = examples["wrong"].map({False: "right label", True: "wrong label"})
    kind += correct.map({False: ", wrong prediction", True: ", right prediction"})
    part = np.arange(len(examples)) * min(intervals, len(examples)) // len(examples)
    table = pd.crosstab(part, kind.to_numpy()).rename_axis(index="interval", columns=None)
    names = [f"{a} label, {b} prediction" for a in ("right", "wrong") for b in ("right", "wrong")]
    table = table.reindex(columns=names, fill_value=0)
    table.insert(0, "mean_loss", examples[f"{weights}_loss"].groupby(part).mean())
    return table


def detection(methods: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """How well each method's loss finds wrong labels: AUROC and average precision, mean over seeds."""
    rows = {}
    for name, method in methods.items():
        scores = []
        for run in method.runs:
            examples = pooled_examples([run])
            wrong, loss = examples["wrong"], examples[f"{method.weights}_loss"]
            scores.append((roc_auc_score(wrong, loss), average_precision_score(wrong, loss)))
        rows[name] = np.mean(scores, axis=0)
    columns = ["auroc", "average_precision"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("method")
