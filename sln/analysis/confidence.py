"""Confidence: what noise demands of it, histograms, calibration and its remedies, dissection by loss."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
import torch
import torch.nn.functional as F
from torch import Tensor

from sln.analysis.tables import curves
from sln.config import NOISE_NAMES
from sln.data import Data
from sln.datasets.load import load_data, threads
from sln.metrics import calibration_error, measure_test, reliability
from sln.runs.run import Run
from sln.study.statistics import MethodRuns, interval
from sln.study.study import Study
from sln.train import predict

BINS = np.linspace(0, 1, 21)
# History columns, and the titles of their panels.
OVER_EPOCHS = {
    "right_confidence": "right given labels",
    "wrong_confidence": "wrong given labels",
    "test_confidence": "test images: largest probability",
}
TEST, VALIDATION = "true labels, test images", "given labels, validation images"
TEMPERATURES = (0.02, 50.0)  # the smallest and the largest that are tried


class Floors:
    """What a classifier does that knows every image's true class, and of its given label only T.

    Its probabilities are T[true]: no training without memory of single labels gets below its loss. If the
    noise depends on the image, an image says more about its label than its class does, and a network may
    pass these floors without memorising.

    T : (C, C), P(given | true); one more row, (C + 1, C), for images of no class (open-set noise)
    shares : (C,) or (C + 1,), P(true)
    accuracy : the share of given labels that the true class predicts, sum_i P(i) T_ii
    best_accuracy : that the likeliest given label predicts; more, where T's diagonal is not the largest
    p_right, p_wrong : mean T[true, given] of a right and of a wrong given label; NaN if there are none
    entropy : the loss on given labels in nats, H(given | true) = -sum_ij P(i) T_ij ln T_ij
    """

    def __init__(self, T: np.ndarray, shares: np.ndarray) -> None:
        joint, right = shares[:, None] * T, np.eye(*T.shape)  # joint: P(true, given)
        self.T = T
        self.accuracy = float(np.trace(joint))
        self.best_accuracy = float(joint.max(axis=1).sum())
        with np.errstate(invalid="ignore"):
            self.p_right, self.p_wrong = (
                float((T * part).sum() / part.sum()) for part in (joint * right, joint * (1 - right))
            )
        self.entropy = float((shares[:, None] * scipy.special.entr(T)).sum())


def floors(data: Data) -> Floors:
    """The floors of the training labels, from their realised T."""
    C, split = data.num_classes, data.train
    counts = np.zeros((C + 1, C))  # the last row: images of no class, whose true label is -1
    np.add.at(counts, (split.true.numpy(), split.given.numpy()), 1)
    counts = counts if counts[-1].any() else counts[:-1]
    of_class = counts.sum(axis=1)
    return Floors(counts / np.maximum(1, of_class)[:, None], of_class / of_class.sum())


def floors_by_noise(study: Study) -> pd.DataFrame:
    """The floors of seed 0's labels, one row per kind of noise."""
    found = {mode: vars(floors(load_data(study.config(mode)))) for mode in study.profile.noise_modes}
    return pd.DataFrame.from_dict(found, orient="index").drop(columns="T").rename_axis("noise")


def describe_floors(table: pd.DataFrame) -> str:
    """What a classifier that knows every true class, and T, scores on given labels (`floors_by_noise`)."""
    return "\n".join(
        f"{NOISE_NAMES[row.Index]}: {row.accuracy:.1%} of the given labels are right. From the true class at "
        f"most {row.best_accuracy:.1%} of them can be guessed, at a loss of {row.entropy:.2f} nats."
        for row in table.itertuples()
    )


def memorised_nats(methods: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """Nats by which the loss on given labels is below the floor (`Floors`): per label, memorised.

    It is at least that much: a network that errs about true classes has memorised more.
    Columns: method, loss, floor (means over seeds), below, low, high (95% t interval), seeds,
    verdict (on "it memorises").
    """
    rows = []
    for name, method in methods.items():
        loss = method.final("train_loss")
        floor = np.array([floors(run.data).entropy for run in method.runs])
        row = {"method": name, "loss": loss.mean(), "floor": floor.mean()}
        below = interval(floor - loss)
        rows.append(row | below.row("below") | {"seeds": below.seeds, "verdict": below.verdict()})
    return pd.DataFrame(rows)


def describe_memorised_nats(table: pd.DataFrame) -> str:
    """Which methods of `memorised_nats` are below the floor, where the interval allows to tell."""
    texts = (
        "{} below the floor, so at least that much is memorised",
        "{} above the floor: nothing needs to be memorised",
        "no clear difference from the floor",
    )
    parts = [
        f"{row.method} {row.loss:.2f}, {_verdict(row.below, row.low, row.high, *texts)}"
        for row in table.itertuples()
    ]
    floor = table["floor"].mean()
    return f"Nats of loss on given labels, where the noise alone makes {floor:.3f}: {'; '.join(parts)}."


def _verdict(mean: float, low: float, high: float, above: str, below: str, neither: str) -> str:
    """A text for each side of 0 on which the interval [low, high] may be; {} is its size."""
    if low <= 0 <= high:
        return neither
    small, large = sorted((abs(low), abs(high)))
    return (above if low > 0 else below).format(f"{abs(mean):.2f} [{small:.2f}, {large:.2f}]")


def _estimate(values: object, name: str = "mean") -> dict[str, float]:
    """Mean over seeds (column `name`), 95% t interval, number of seeds."""
    found = interval(values)
    return {name: found.mean, "low": found.low, "high": found.high, "seeds": found.seeds}


def pooled_examples(runs: list[Run]) -> pd.DataFrame:
    """The per-example records of several runs, with a column `wrong`: whether the given label is wrong."""
    examples = pd.concat([run.examples.assign(seed=run.config.seed) for run in runs], ignore_index=True)
    return examples.assign(wrong=examples["given"] != examples["true"])


def histograms(grid: Mapping[float, MethodRuns]) -> pd.DataFrame:
    """Shares of right and of wrong labels by sigma and bin of the probability of the given label."""
    parts = []
    for (sigma, found), weights in itertools.product(grid.items(), ("network", "momentum")):
        for wrong, part in pooled_examples(found.runs).groupby("wrong"):
            counts, _ = np.histogram(part[f"{weights}_p_given"], BINS)
            columns = {"sigma": sigma, "weights": weights, "label": "wrong" if wrong else "right"}
            columns |= {"low": BINS[:-1], "high": BINS[1:], "share": counts / len(part)}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def over_epochs(methods: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """`curves` of OVER_EPOCHS; a corrected method starts where correction does, before it is another's."""
    table = curves(methods, list(OVER_EPOCHS))
    starts = {name: method.first.config.correction for name, method in methods.items()}
    return table[table["epoch"] >= table["method"].map(starts)].reset_index(drop=True)


@dataclass(frozen=True)
class Outputs:
    """One run's logits (N, C), and the labels (N,) that they are compared with."""

    test: Tensor
    true: Tensor
    validation: Tensor  # there may be none
    given: Tensor
    T: Tensor  # (C, C), realised, of the training labels


@threads(1)
def outputs(methods: Mapping[str, MethodRuns]) -> dict[str, list[Outputs]]:
    """Every method's `Outputs` by seed."""
    return {name: [_outputs(run, method.weights) for run in method.runs] for name, method in methods.items()}


def _outputs(run: Run, weights: str) -> Outputs:
    network, data = run.network(weights), run.data
    test, validation = (predict(network, split, data) for split in (data.test, data.validation))
    T = torch.from_numpy(floors(data).T[: data.num_classes])
    return Outputs(test, data.test.true, validation, data.validation.given, T)


def reliability_tables(outputs: Mapping[str, list[Outputs]]) -> pd.DataFrame:
    """Accuracy against confidence in bins, all seeds' images together.

    Columns: labels (TEST; VALIDATION if there are any), method, and those of `metrics.reliability`.
    """
    parts, kinds = [], {TEST: ("test", "true"), VALIDATION: ("validation", "given")}
    for (name, runs), (labels, columns) in itertools.product(outputs.items(), kinds.items()):
        logits, wanted = (torch.cat([getattr(run, column) for run in runs]) for column in columns)
        if len(wanted):
            confidence, prediction = F.softmax(logits, dim=1).max(dim=1)
            part = reliability(confidence, prediction == wanted)
            parts.append(pd.DataFrame({"labels": labels, "method": name}, index=part.index).join(part))
    return pd.concat(parts, ignore_index=True)


def calibration(outputs: Mapping[str, list[Outputs]]) -> pd.DataFrame:
    """Calibration on test images, and how much of its error the noise of the training labels explains.

    A network that is calibrated to the given labels has the confidence E T[true, prediction]: the accuracy
    that its predictions have on labels with that noise. So accuracy - confidence = from_noise + added, where
    from_noise = accuracy - accuracy_given; `added` is its own: above 0, less sure than the noise demands.

    Columns: method, quantity, mean, low, high (95% t interval over seeds), seeds. Quantities: accuracy,
    accuracy_given, confidence, from_noise, added; error, the calibration error of TEST, and error_given, of
    VALIDATION. Each is computed per seed; few images per bin raise the errors by some hundredths.
    """
    rows = []
    for name, runs in outputs.items():
        found = pd.DataFrame([_calibration(run) for run in runs])
        found["from_noise"] = found["accuracy"] - found["accuracy_given"]
        found["added"] = found["accuracy_given"] - found["confidence"]
        rows += [{"method": name, "quantity": column} | _estimate(found[column]) for column in found]
    return pd.DataFrame(rows)


def _calibration(run: Outputs) -> dict[str, float]:
    test, prediction = measure_test(run.test, run.true), F.softmax(run.test, dim=1).argmax(dim=1)
    found = {"accuracy": test["test_accuracy"], "accuracy_given": run.T[run.true, prediction].mean().item()}
    found |= {"confidence": test["test_confidence"], "error": test["test_calibration_error"]}
    return found | {"error_given": measure_test(run.validation, run.given)["test_calibration_error"]}


def describe_calibration(table: pd.DataFrame) -> str:
    """How sure each method of `calibration` is, and how sure the noise would make it."""
    texts = "{} of under-confidence is its own", "it is surer by {}", "no clear difference"
    parts = []
    for method, part in table.groupby("method", sort=False):
        rows = part.set_index("quantity")
        mean, added = rows["mean"], rows.loc["added", ["mean", "low", "high"]]
        parts.append(
            f"{method} is right on {mean['accuracy']:.1%} of the test images and {mean['confidence']:.0%} "
            f"sure (calibration error {mean['error']:.2f}); calibrated to the given labels it would be "
            f"{mean['accuracy_given']:.0%} sure: {_verdict(*added, *texts)}"
        )
    return "; ".join(parts) + "."


def temperature(logits: Tensor, labels: Tensor, T: Tensor | None = None) -> float:
    """The t that minimises the mean of -ln p[label], p = softmax(logits / t) (Guo et al., ICML 2017).

    With T (C, C), p = softmax(logits / t) T, as in forward correction (Patrini et al., CVPR 2017): then
    softmax(logits / t) estimates the true label, although `labels` are given ones.
    logits (N, C), labels (N,); the search is within TEMPERATURES.
    """

    def loss(log_t: float) -> float:
        p = F.softmax(logits.double() / math.exp(log_t), dim=1)
        p = p if T is None else p @ T
        return F.nll_loss(p.clamp_min(1e-300).log(), labels).item()

    return math.exp(scipy.optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x)


def without_noise(p: Tensor, T: Tensor) -> Tensor:
    """Probabilities of true labels (N, C) from those of given ones, p T^-1, negative ones set to 0."""
    found = (p @ torch.linalg.pinv(T)).clamp_min(0)
    return found / found.sum(dim=1, keepdim=True)


def temperatures(outputs: Mapping[str, list[Outputs]]) -> pd.DataFrame:
    """The calibration error against true test labels before and after each remedy.

    Temperatures are fitted on *given* validation labels, without T, which misses the truth, or through T.
    Columns: method, remedy, temperature (mean over seeds), error (mean), low, high (95% t interval), seeds.
    """
    rows = []
    for name, runs in outputs.items():
        found = [_remedies(run) for run in runs]
        for remedy in found[0]:
            t, errors = np.transpose([run[remedy] for run in found])
            row = {"method": name, "remedy": remedy, "temperature": t.mean()}
            rows.append(row | _estimate(errors, "error"))
    return pd.DataFrame(rows)


def describe_temperatures(table: pd.DataFrame) -> str:
    """Whose calibration error of `temperatures` each temperature lowers, and whose confidence."""
    errors, fitted = (
        table.pivot(index="method", columns="remedy", values=value).loc[table["method"].unique()]
        for value in ("error", "temperature")
    )
    lines = []
    for remedy in errors.columns.intersection(["temperature, given labels", "temperature, through T"]):
        change = errors[remedy] - errors["as trained"]
        groups = {"it lowers the error of": change < 0, "it raises that of": change > 0}
        groups["it lowers the confidence of"] = fitted[remedy] > 1
        words = "; ".join(f"{text} {', '.join(errors.index[of]) or 'none'}" for text, of in groups.items())
        lines.append(f"{remedy[0].upper()}{remedy[1:]}, by means over seeds: {words}.")
    return "\n".join(lines) or "No image is held out here, so no temperature can be fitted."


def _remedies(run: Outputs) -> dict[str, tuple[float, float]]:
    """Temperature and calibration error on test images by remedy."""
    fits = {"as trained": 1.0}
    if len(run.given):
        fits["temperature, given labels"] = temperature(run.validation, run.given)
        fits["temperature, through T"] = temperature(run.validation, run.given, run.T)
    logits = run.test.double()
    tried = {name: (t, F.softmax(logits / t, dim=1)) for name, t in fits.items()}
    tried["T inverted"] = 1.0, without_noise(F.softmax(logits, dim=1), run.T)
    tops = {name: (t, *p.max(dim=1)) for name, (t, p) in tried.items()}
    return {name: (t, calibration_error(p, top == run.true)) for name, (t, p, top) in tops.items()}


def dissection(method: MethodRuns, intervals: int = 50) -> pd.DataFrame:
    """Training examples sorted by loss, in `intervals` equal parts, counted by label and prediction.

    The paper's figure has 50 intervals of 1,000, of one run; here each seed is sorted by itself, and all are
    counted together. The loss is against the given label. A prediction is right if it is the *true* label.
    """
    examples = pooled_examples(method.runs)
    loss = examples[f"{method.weights}_loss"]
    rank = loss.groupby(examples["seed"]).rank(method="first").astype(int) - 1
    size = examples.groupby("seed")["wrong"].transform("size")
    part = rank * size.clip(upper=intervals) // size
    correct = examples[f"{method.weights}_prediction"] == examples["true"]
    words = {False: "right", True: "wrong"}
    kind = examples["wrong"].map(words) + " label, " + (~correct).map(words) + " prediction"
    table = pd.crosstab(part.to_numpy(), kind.to_numpy()).rename_axis(index="interval", columns=None)
    names = [f"{a} label, {b} prediction" for a in ("right", "wrong") for b in ("right", "wrong")]
    table = table.reindex(columns=names, fill_value=0)
    table.insert(0, "mean_loss", loss.groupby(part.to_numpy()).mean())
    return table


def detection(methods: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """How well each method's loss finds wrong labels: AUROC and average precision, mean over seeds."""
    from sklearn.metrics import average_precision_score, roc_auc_score  # slow to load

    measures, rows = {"auroc": roc_auc_score, "average_precision": average_precision_score}, {}
    for name, method in methods.items():
        tables = [pooled_examples([run]) for run in method.runs]
        pairs = [(table["wrong"], table[f"{method.weights}_loss"]) for table in tables]
        rows[name] = {key: np.mean([score(*pair) for pair in pairs]) for key, score in measures.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
