"""How well wrong labels are found: SLN-MO-LC cross-fitted, cleanlab, and the loss of plain CE.

    python benchmarks/label_errors.py --seeds 0 1 2 --cifar 4000 --features 600 5000 20000 --cache FOLDER \
        --out benchmarks/label_errors.csv
    python benchmarks/label_errors_table.py  # writes the results of sln/relabel/README.md

The embedded digits, 1,437 of them, with 10, 20 and 40% symmetric, asymmetric (of five classes) and
instance-dependent noise; `--cifar 4000` adds that many images of CIFAR-10 at 16 x 16 pixels with labels given
by people; `--features 5000` adds 5,000 at 32 x 32 as features of EfficientNet-Lite0, trained on ImageNet.
Scores, higher for more suspect labels:

    here             `scores.table` of the pooled probabilities, as `relabel` ranks
    network alone    `scores.table` of the cross-fitted networks' probabilities
    cleanlab ...     1 - cleanlab's label quality of the *same* probabilities, by each of its methods;
                     "adjusted": its `adjust_pred_probs`, each class's mean confidence subtracted
    cleanlab joint   cleanlab's `find_label_issues` by each of its filters that use pairs of classes (the
                     confident joint): what it flags first, in the order of the default score
    cleanlab neighbours   `Datalab` with features instead of probabilities, its defaults; 25: self-confidence
                     of the votes of the 25 nearest by cosine, of other folds
    logistic         self-confidence of cross-fitted logistic regression of the features, the usual recipe
    sigma 0          as "here" and "network alone", without stochastic noise
    CE cross-fitted  loss of a plain network that was not trained on the label
    CE               loss of a plain network that was trained on all labels

A seed draws the noise (people's labels stay), the folds and the training; the images are the same. Logistic
regression, sigma 0 and the plain networks are for the first seed only, after everything else. What flags
labels also has `precision`, the share of the flagged that are wrong, and `recall`, the share of the wrong
that are flagged: "here" at `relabel`'s threshold, "here 0.15" at that one. `true_after` is the share of
labels that are true after those are replaced, `agreement` the share of given labels that are predicted.

An interrupted run continues after the rows in --out and with the networks and features in --cache; delete
the files if the code has changed. Needs `pip install -e ".[benchmark]"`.
"""  # fmt: skip

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from cleanlab import Datalab
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sln.data import Split
from sln.datasets.load import threads
from sln.relabel import crossfit, evaluate, opinions, scores
from sln.relabel import features as features_of
from sln.relabel.crossfit import FoldModel
from sln.relabel.examples import checked
from sln.relabel.images import BATCH
from sln.relabel.pipeline import THRESHOLD
from sln.runs import parallel
from sln.train import State, predict, train_epoch
from sln.utils.files import write_atomically, write_text

MODES, RATES = ("sym", "asym", "dependent"), (0.1, 0.2, 0.4)
CLEANLAB = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
THRESHOLDS = {"here": THRESHOLD, "here 0.15": 0.15}
FOLDS = 5
FEATURES = "-features"  # added to the kind of noise
CHUNK = 1000  # photographs in a file
COLUMNS = ["noise", "rate", "seed", "sigma", "agreement", "method", "average_precision", "auroc"]
COLUMNS += ["precision", "recall", "true_after"]


def settings(seed: int, options: argparse.Namespace) -> dict[tuple[str, float], Split]:
    """The labelled images, or features, by kind of noise and rate."""
    found = {(mode, rate): evaluate.noisy_digits(mode, rate, seed) for mode in MODES for rate in RATES}
    if options.cifar:
        for mode in evaluate.HUMAN:
            split = evaluate.human_cifar10(mode, options.cifar, downsample=2)
            found[mode, split.wrong.double().mean().item()] = split
    for count in options.features:
        for mode in evaluate.HUMAN:
            split = evaluate.human_cifar10(mode, count)
            x = features(split.images, options.cache)
            rate = split.wrong.double().mean().item()
            found[f"{mode}{FEATURES}-{count}", rate] = Split(x, split.given, split.true)
    return found


@torch.no_grad()
def features(images: Tensor, cache: Path) -> Tensor:
    """(N, 1280) float32: those of efficientnet-lite0 that `relabel` takes, of photographs (N, 3, 32, 32).

    The photographs are enlarged, and what was computed is kept in `cache`, CHUNK by CHUNK.
    """
    parts, network = [], features_of.encoder(features_of.LITE)
    for number, chunk in enumerate(images.split(CHUNK)):
        file = cache / f"{network.key}-{number:03}-{len(chunk)}.npy"
        if not file.exists():
            large = F.interpolate(chunk.float(), network.side, mode="bicubic").round().clamp(0, 255)
            found = torch.cat([network.encode(part) for part in large.to(torch.uint8).split(BATCH)])
            write_atomically(file, partial(np.save, arr=found.numpy()))
        parts.append(torch.from_numpy(np.load(file)))
    return torch.cat(parts)


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


def judged(split: Split, seed: int, cache: Path) -> list[dict]:
    """A row for "here" at each threshold, its parts, and every method of cleanlab."""
    fitted = crossfit.fit(split.images, split.given, folds=FOLDS, seed=seed, cache=cache, quiet=True)
    examples = checked(split.images, split.given)
    p = crossfit.by_networks(examples, fitted.states).double().numpy()
    given, labels, true = fitted.given.numpy(), fitted.labels, split.true.numpy()
    suspect, rows = labels["suspect"].to_numpy(), []
    for name, threshold in THRESHOLDS.items():
        flagged = suspect >= threshold
        after = np.where(flagged, labels["suggested"], labels["given"])
        rows.append(row(name, suspect, split, flagged) | {"true_after": (after == true).mean()})
    rows.append(row("network alone", scores.table(p, given)["suspect"], split))
    for name in CLEANLAB:
        for adjusted in (False, True) if name != "confidence_weighted_entropy" else (False,):
            quality = get_label_quality_scores(given, p, method=name, adjust_pred_probs=adjusted)
            rows.append(row(f"cleanlab {name}{' adjusted' * adjusted}", 1 - quality, split))
    default = 1 - get_label_quality_scores(given, p)
    for name in FILTERS:
        flagged = find_label_issues(given, p, filter_by=name, n_jobs=1)
        rows.append(row(f"cleanlab joint {name}", flagged + default, split, flagged))
    rows += by_neighbours(split, crossfit.assign_folds(examples, FOLDS, seed))
    return [{"sigma": fitted.sigma, "agreement": fitted.agreement} | found for found in rows]


def by_neighbours(split: Split, fold: np.ndarray) -> list[dict]:
    """A row for each of cleanlab's ways with neighbours, by what `opinions.neighbours` compares, too."""
    x, given = opinions.compared(checked(split.images, split.given).images).numpy(), split.given.numpy()
    lab = Datalab({"label": given}, label_name="label", verbosity=0)
    lab.find_issues(features=x, issue_types={"label": {}})
    rows = [row("cleanlab neighbours", 1 - lab.get_issues("label")["label_score"].to_numpy(), split)]
    voting = KNeighborsClassifier(25, metric="cosine")
    quality = get_label_quality_scores(given, held_out_probabilities(voting, x, given, fold))
    return [*rows, row("cleanlab neighbours 25", 1 - quality, split)]


def held_out_probabilities(
    classifier: ClassifierMixin, x: np.ndarray, given: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """(N, C): probabilities of scikit-learn's classifier for every fold, fitted to the others."""
    p = np.zeros((len(x), given.max() + 1))
    for number in range(FOLDS):
        part = fold == number
        fitted = classifier.fit(x[~part], given[~part])
        p[np.ix_(part, fitted.classes_)] = fitted.predict_proba(x[part])
    return p


def without_noise(split: Split, seed: int, cache: Path) -> list[dict]:
    """Rows for what is judged without stochastic label noise."""
    settings = {"folds": FOLDS, "seed": seed, "cache": cache, "quiet": True}
    fitted = crossfit.fit(split.images, split.given, sigma=0.0, **settings)
    alone = crossfit.by_networks(checked(split.images, split.given), fitted.states).numpy()
    rows = [row("sigma 0", fitted.labels["suspect"], split)]
    return [*rows, row("sigma 0 network alone", scores.table(alone, split.given.numpy())["suspect"], split)]


def usual(split: Split, seed: int, cache: Path) -> list[dict]:
    """Rows for plain networks, and for features of logistic regression instead."""
    if split.images.ndim > 2:
        return plain(split, seed)
    x, given = split.images.numpy(), split.given.numpy()
    fold = crossfit.assign_folds(checked(split.images, split.given), FOLDS, seed)
    recipe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    p = held_out_probabilities(recipe, x, given, fold)
    return [row("logistic", 1 - p[np.arange(len(x)), given], split)]


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
    parser.add_argument("--features", type=int, nargs="+", default=[], metavar="N", help="and N as features")
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER", help="for what takes long")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="default 0")
    options = parser.parse_args()
    table = pd.DataFrame(columns=COLUMNS)
    if options.out and options.out.exists():
        table = pd.read_csv(options.out)
    options.cache.mkdir(parents=True, exist_ok=True)
    os.environ["SLN_RUNS"] = str(options.cache / "runs")
    work = [(seed, judged, ["here"]) for seed in options.seeds]
    work += [(options.seeds[0], without_noise, ["sigma 0"]), (options.seeds[0], usual, ["CE", "logistic"])]
    for seed, judge, known_by in work:
        for (noise, rate), split in settings(seed, options).items():
            key = {"noise": noise, "rate": round(rate, 3), "seed": seed}
            same = (table[list(key)] == pd.Series(key)).all(axis=1)
            if table["method"][same].isin(known_by).any():
                continue
            rows = pd.DataFrame([key | found for found in judge(split, seed, options.cache)], columns=COLUMNS)
            print(rows.to_string(index=False, float_format="%.3f"), flush=True)
            table = pd.concat([table, rows]) if len(table) else rows
            if options.out:
                write_text(options.out, table.to_csv(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
