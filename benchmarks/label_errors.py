"""How well wrong labels are found: SLN-MO-LC cross-fitted, cleanlab, and the loss of plain CE.

    python benchmarks/label_errors.py --seeds 0 2 3 --cifar 4000 --out benchmarks/label_errors.csv
    python benchmarks/label_errors_table.py  # writes the table of sln/relabel/README.md

The embedded digits, 1,437 of them, with 10, 20 and 40% symmetric, asymmetric (of five classes) and
instance-dependent noise; `--cifar 4000` adds that many images of CIFAR-10 with labels given by people.
Scores, higher for more suspect labels:

    here             `scores.table` of the cross-fitted probabilities
    cleanlab ...     1 - cleanlab's label quality of the *same* probabilities, by each of its methods
    CE cross-fitted  loss of a plain network that was not trained on the label
    CE               loss of a plain network that was trained on all labels

Also: the share of given labels that the cross-fitted networks predict (`agreement`), and the share of labels
that are true after those above `relabel`'s threshold are replaced (`true_after`).

Needs cleanlab: `pip install -e ".[benchmark]"`.
"""  # fmt: skip

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
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
FOLDS = 5


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


def scores(split: Split, seed: int) -> tuple[dict[str, np.ndarray], crossfit.Fitted, float]:
    """Every method's score (N,), the result of `fit`, and the seconds that it took."""
    start = time.perf_counter()
    fitted = crossfit.fit(split.images, split.given, folds=FOLDS, seed=seed, quiet=True)
    found = {"here": fitted.labels["suspect"].to_numpy()}
    took = time.perf_counter() - start
    p, given = fitted.probabilities.double().numpy(), fitted.given.numpy()
    for name in CLEANLAB:
        quality = get_label_quality_scores(given, p, method=name, adjust_pred_probs=False)
        found[f"cleanlab {name}"] = 1 - quality
    examples = checked(split.images, split.given)
    arrays = (examples.images.numpy(), given, len(examples.classes))
    fold = crossfit.assign_folds(examples, FOLDS, seed)
    held_out = {"CE cross-fitted": [fold == number for number in range(FOLDS)], "CE": [fold < 0]}
    for name, parts in held_out.items():
        work = []
        for number, part in enumerate(parts):
            config = crossfit.recipe("cnn", int((~part).sum()), None, number).replace(
                sigma=0.0, correction=-1
            )
            work.append((FoldModel(config, part), *arrays))
        found[name] = np.empty(len(given))
        for _, (rows, losses) in parallel.each(plain_losses, work):
            found[name][rows] = losses
    return found, fitted, took


def true_after(fitted: crossfit.Fitted, split: Split) -> float:
    """Share of labels that are true after `relabel` replaced those more likely wrong than right."""
    labels = fitted.labels
    after = labels["given"].where(labels["suspect"] < THRESHOLD, labels["suggested"])
    return float((after.to_numpy() == split.true.numpy()).mean())


def main() -> None:
    """Print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="CSV", help="also write the table there")
    parser.add_argument("--cifar", type=int, default=0, metavar="N", help="also N images of CIFAR-10N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="default 0")
    options = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLN_RUNS"] = folder
        for seed in options.seeds:
            for (noise, rate), split in settings(seed, options.cifar).items():
                found, fitted, took = scores(split, seed)
                shared = {"noise": noise, "rate": round(rate, 3), "seed": seed, "sigma": fitted.sigma}
                shared |= {"agreement": fitted.agreement, "true_after": true_after(fitted, split)}
                for name, score in found.items():
                    measured = evaluate.detection(score, split.wrong)
                    table.append(shared | {"method": name} | measured | {"seconds": took})
                rows = pd.DataFrame(table[-len(found) :])
                print(rows.to_string(index=False, float_format="%.3f"), flush=True)
    if options.out:
        write_text(options.out, pd.DataFrame(table).to_csv(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
