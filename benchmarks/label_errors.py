"""How well wrong labels are found: SLN-MO-LC cross-fitted, cleanlab, and the loss of plain CE.

    python benchmarks/label_errors.py --seeds 0 2 3 --cifar 4000 --out benchmarks/label_errors.csv
    python benchmarks/label_errors_table.py  # writes the results of sln/relabel/README.md

The embedded digits, 1,437 of them, with 10, 20 and 40% symmetric, asymmetric (of five classes) and
instance-dependent noise; `--cifar 4000` adds that many images of CIFAR-10 with labels given by people.
Scores, higher for more suspect labels:

    here             `scores.table` of the cross-fitted probabilities
    cleanlab ...     1 - cleanlab's label quality of the *same* probabilities, by each of its methods;
                     "adjusted": its `adjust_pred_probs`, each class's mean confidence subtracted
    cleanlab joint   cleanlab's `find_label_issues` by each of its filters that use pairs of classes (the
                     confident joint): what it flags first, in the order of the default score
    CE cross-fitted  loss of a plain network that was not trained on the label
    CE               loss of a plain network that was trained on all labels

A seed draws the noise (people's labels stay), the folds and the training; the images are the same. The plain
networks are trained for the first seed only, after everything else. What flags labels also has `precision`,
the share of the flagged that are wrong, and `recall`, the share of the wrong that are flagged: "here" at
`relabel`'s threshold, "here 0.15" at that one. `true_after` is the share of labels that are true after those
are replaced, `agreement` the share of given labels that the cross-fitted networks predict.

An interrupted run continues after the rows in --out; delete the file if the code has changed. Needs cleanlab:
`pip install -e ".[benchmark]"`.
"""  # fmt: skip

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from sln.data import Split
from sln.datasets.load import threads
from sln.relabel import crossfit, evaluate
from sln.relabel.crossfit import FoldModel
from sln.relabel.examples import checked
from sln.relabel.pipeline import THRESHOLD
from sln.runs import parallel
from sln.train import State, predict, train_epoch
from sln.utils.files import write_text

MODES, RATES = ("sym", "asym", "dependent"), (0.1, 0.2, 0.4)
CLEANLAB = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
THRESHOLDS = {"here": THRESHOLD, "here 0.15": 0.15}
FOLDS = 5
COLUMNS = ["noise", "rate", "seed", "sigma", "agreement", "method", "average_precision", "auroc"]
COLUMNS += ["precision", "recall", "true_after"]


def settings(seed: int, cifar: int) -> dict[tuple[str, float], Split]:
    """The labelled images by kind of noise and rate."""
    found = {(mode, rate): evaluate.noisy_digits(mode, rate, seed) for mode in MODES for rate in RATES}
    if cifar:
        splits = {mode: evaluate.human_cifar10(mode, cifar, downsample=2) for mode in evaluate.HUMAN}
        found |= {(mode, split.wrong.double().mean().item()): split for mode, split in splits.items()}
    return found


def plain_losses(work: tuple[FoldModel, np.ndarray, np.ndarray, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,) held out from training by plain CE, and the loss (n,) of their given labels.

    The loss is of the network itself, not its average, after the last epoch. If nothing is held out, the loss
    of all training examples is returned.
    """
    fold, images, given, C = work
    config, include_train = fold.config, not fold.held_out.any()
    data = crossfit.training_data(torch.from_numpy(images), torch.from_numpy(given), fold.held_out, C)
    with threads(config.threads):
        state = State(config, data)
        for epoch in range(1, config.epochs + 1):
            train_epoch(state, data, config, epoch, 0.0)
        split = data.train if include_train else data.validation
        losses = F.cross_entropy(predict(state.network, split, data), split.given, reduction="none")
    return np.flatnonzero(fold.held_out | include_train), losses.numpy()


def judged(split: Split, seed: int) -> list[dict]:
    """A row for "here" at each threshold and for every method of cleanlab, from the same probabilities."""
    fitted = crossfit.fit(split.images, split.given, folds=FOLDS, seed=seed, quiet=True)
    p, given, labels = fitted.probabilities.double().numpy(), fitted.given.numpy(), fitted.labels
    suspect, true = labels["suspect"].to_numpy(), split.true.numpy()
    rows = []
    for name, threshold in THRESHOLDS.items():
        flagged = suspect >= threshold
        after = np.where(flagged, labels["suggested"], labels["given"])
        rows.append(row(name, suspect, split, flagged) | {"true_after": (after == true).mean()})
    for name in CLEANLAB:
        for adjusted in (False, True) if name != "confidence_weighted_entropy" else (False,):
            quality = get_label_quality_scores(given, p, method=name, adjust_pred_probs=adjusted)
            rows.append(row(f"cleanlab {name}{' adjusted' * adjusted}", 1 - quality, split))
    default = 1 - get_label_quality_scores(given, p)
    for name in FILTERS:
        flagged = find_label_issues(given, p, filter_by=name, n_jobs=1)
        rows.append(row(f"cleanlab joint {name}", flagged + default, split, flagged))
    return [{"sigma": fitted.sigma, "agreement": fitted.agreement} | found for found in rows]


def plain(split: Split, seed: int) -> list[dict]:
    """A row for the loss of plain networks: cross-fitted, and trained on all labels."""
    examples = checked(split.images, split.given)
    arrays = (examples.images.numpy(), examples.given.numpy(), len(examples.classes))
    fold = crossfit.assign_folds(examples, FOLDS, seed)
    held_out = {"CE cross-fitted": [fold == number for number in range(FOLDS)], "CE": [fold < 0]}
    rows = []
    for name, parts in held_out.items():
        work, score = [], np.empty(len(fold))
        for number, part in enumerate(parts):
            config = crossfit.recipe("cnn", int((~part).sum()), None, number)
            work.append((FoldModel(config.replace(sigma=0.0, correction=-1), part), *arrays))
        for _, (where, losses) in parallel.each(plain_losses, work):
            score[where] = losses
        rows.append(row(name, score, split))
    return rows


def row(method: str, score: np.ndarray, split: Split, flagged: np.ndarray | None = None) -> dict:
    """How well a score (N,) ranks the wrong labels, and which part of them is `flagged` (N,)."""
    found, wrong = {"method": method} | evaluate.detection(score, split.wrong), split.wrong.numpy()
    if flagged is not None:
        precision = wrong[flagged].mean() if flagged.any() else np.nan
        found |= {"precision": precision, "recall": flagged[wrong].mean()}
    return found


def main() -> None:
    """Print every result as it comes, and write them all to --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="CSV", help="also write the results there")
    parser.add_argument("--cifar", type=int, default=0, metavar="N", help="also N images of CIFAR-10N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="default 0")
    options = parser.parse_args()
    table = pd.DataFrame(columns=COLUMNS)
    if options.out and options.out.exists():
        table = pd.read_csv(options.out)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLN_RUNS"] = folder
        for seed, judge, last in [(seed, judged, "cleanlab") for seed in options.seeds] + [
            (options.seeds[0], plain, "CE")
        ]:
            for (noise, rate), split in settings(seed, options.cifar).items():
                key = {"noise": noise, "rate": round(rate, 3), "seed": seed}
                same = (table[list(key)] == pd.Series(key)).all(axis=1)
                if table["method"][same].str.startswith(last).any():
                    continue
                rows = pd.DataFrame([key | found for found in judge(split, seed)], columns=COLUMNS)
                print(rows.to_string(index=False, float_format="%.3f"), flush=True)
                table = pd.concat([table, rows]) if len(table) else rows
                if options.out:
                    write_text(options.out, table.to_csv(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
