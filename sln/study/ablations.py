"""Questions that the paper leaves open: for each an experiment, its table, and a sentence from the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sln.config import NOISE_NAMES
from sln.study.statistics import Arm, MethodRuns, accuracies, interval, paired, span
from sln.study.study import Study

# Class counts are compared at this noise rate: at 0.4 two classes would hardly differ from chance.
CLASS_COUNT_RATE = 0.2
CLASS_COUNT_SIGMAS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
# History columns, as `clean_price` names them.
CLEAN_PRICE = {
    "test_accuracy": "accuracy",
    "test_confidence": "confidence",
    "test_calibration_error": "calibration error",
}
ALL = "all labels (SLN)"
WEIGHTS = {
    "w (the paper’s: a high loss keeps the label)": "loss",
    "1 − w (a low loss keeps the label)": "reversed",
    "w = 0 (the prediction alone)": "none",
    "posterior of low losses (DivideMix)": "mixture",
}
NOISE_FOR = {"right labels only": "right", "wrong labels only": "wrong"}


# --- experiments: arms by name ------------------------------------------------------------------------------


def rate_arms(study: Study) -> dict[tuple[float, str], Arm]:
    """CE and SLN, and their momentum models, by rate of symmetric noise; sigma is chosen at each rate."""
    found = {}
    for rate in study.profile.noise_rates:
        plain = study.over_seeds("sym", 0.0, noise_rate=rate)
        noisy = study.over_seeds("sym", study.choose_sigma("sym", noise_rate=rate), noise_rate=rate)
        found |= {(rate, "CE"): Arm(plain), (rate, "CE-MO"): Arm(plain, "momentum")}
        found |= {(rate, "SLN"): Arm(noisy), (rate, "SLN-MO"): Arm(noisy, "momentum")}
    return found


def clean_price_arms(study: Study) -> dict[str, Arm]:
    """CE and SLN, and their momentum models, on true labels only, at the sigma that noisy ones ask for."""
    clean = {"seeds": study.curve_seeds, "noise_rate": 0.0, "labels": "generated"}
    plain = study.over_seeds("sym", 0.0, **clean)
    noisy = study.over_seeds("sym", study.choose_sigma("sym"), **clean)
    return {
        "CE": Arm(plain),
        "CE-MO": Arm(plain, "momentum"),
        "SLN": Arm(noisy),
        "SLN-MO": Arm(noisy, "momentum"),
    }


def noise_for_arms(study: Study) -> dict[str, Arm]:
    """Stochastic noise on no label, on the right or the wrong ones only (knowing which), and on all."""
    sigma = study.choose_sigma("sym")
    found = {"no label (CE)": Arm(study.over_seeds("sym", 0.0))}
    found |= {name: Arm(study.over_seeds("sym", sigma, noise_for=kind)) for name, kind in NOISE_FOR.items()}
    return found | {ALL: Arm(study.over_seeds("sym", sigma))}


def schedule_arms(study: Study) -> dict[str, Arm]:
    """The chosen sigma, constant and by the profile's schedules."""
    sigma = study.choose_sigma("sym")
    schedules = ("constant", *study.profile.schedules)
    return {name: Arm(study.over_seeds("sym", sigma, sigma_schedule=name)) for name in schedules}


def correction_arms(study: Study) -> dict[tuple[str, str], Arm]:
    """SLN-MO, and its correction by the clean and by the released rule, by kind of noise."""
    found = {}
    for mode in study.profile.noise_modes:
        found[mode, "none"] = Arm(study.over_seeds(mode, study.choose_sigma(mode)), "momentum")
        for losses in ("given", "as-released"):
            found[mode, losses] = Arm(study.correcting(mode, correction_losses=losses), "momentum")
    return found


def weight_arms(study: Study) -> dict[str, Arm]:
    """SLN-MO-LC of the chosen sigma by rule of the given label's weight, over the seeds of curves."""
    seeds = study.curve_seeds
    return {
        name: Arm(study.correcting("sym", correction_weight=rule, seeds=seeds), "momentum")
        for name, rule in WEIGHTS.items()
    }


def class_arms(study: Study) -> dict[tuple[int, float], Arm]:
    """SLN-MO on drawn letters by number of classes C and sigma."""
    settings = {"dataset": "letters", "noise_rate": CLASS_COUNT_RATE}
    return {
        (C, sigma): Arm(study.over_seeds("sym", sigma, classes=C, **settings), "momentum")
        for C in study.profile.class_counts
        for sigma in CLASS_COUNT_SIGMAS
    }


def image_arms(study: Study) -> dict[tuple[int, str], Arm]:
    """CE and SLN, and their momentum models, by number of training images, at the study's own sigma."""
    share = 1 - study.config().held_out
    sigma, found = study.choose_sigma("sym"), {}
    for images in study.profile.image_counts:
        settings = {"seeds": study.profile.image_seeds, "subset": round(images / share)}
        plain, noisy = (study.over_seeds("sym", s, **settings) for s in (0.0, sigma))
        found |= {(images, "CE"): Arm(plain), (images, "CE-MO"): Arm(plain, "momentum")}
        found |= {(images, "SLN"): Arm(noisy), (images, "SLN-MO"): Arm(noisy, "momentum")}
    return found


# --- tables, each followed by the sentence that is written from it ------------------------------------------


def noise_rates(study: Study) -> pd.DataFrame:
    """Test accuracy (%) by noise rate: rate, method, sigma, those of `accuracies`.

    gain : SLN-MO minus CE-MO, paired over seeds, with its t interval gain_low to gain_high; over_early : the
    same minus CE-MO stopped early. Both in SLN-MO's rows.
    """
    found = study.runs_of(rate_arms(study), "noise rates")
    rows = []
    for (rate, method), runs in found.items():
        row = {"rate": rate, "method": method, "sigma": runs.first.config.sigma} | accuracies(runs)
        if method == "SLN-MO":
            plain, ours = found[rate, "CE-MO"], runs.final("test_accuracy")
            row |= interval(100 * (ours - plain.final("test_accuracy"))).row("gain", "gain_")
            row |= interval(100 * (ours - plain.early("test_accuracy"))).row("over_early", "over_early_")
        rows.append(row)
    return pd.DataFrame(rows)


def describe_noise_rates(table: pd.DataFrame) -> str:
    """At which rates of `noise_rates` SLN's average is ahead of that of plain training."""
    ours = table[table["method"] == "SLN-MO"]
    rates = ours["rate"].map("{:g}".format)
    return (
        f"By noise rate, SLN-MO beside CE-MO: {_sides(ours, 'gain', rates)}. "
        f"Beside CE-MO stopped early on noisy labels: {_sides(ours, 'over_early', rates)}."
    )


def image_counts(study: Study) -> pd.DataFrame:
    """Test accuracy (%) by number of training images: images, method, sigma, and those of `accuracies`.

    memorised : share of the wrong labels that the method reproduces after the last epoch
    over_early, over_early_low, over_early_high : SLN-MO minus CE-MO stopped early, paired over seeds, in its
        rows
    """
    found = study.runs_of(image_arms(study), "numbers of images")
    rows = []
    for (images, method), runs in found.items():
        row = {"images": images, "method": method, "sigma": runs.first.config.sigma}
        row |= {"memorised": 100 * runs.final("wrong_memorised").mean()} | accuracies(runs)
        if method == "SLN-MO":
            rival = found[images, "CE-MO"].early("test_accuracy")
            row |= interval(100 * (runs.final("test_accuracy") - rival)).row("over_early", "over_early_")
        rows.append(row)
    return pd.DataFrame(rows)


def describe_image_counts(table: pd.DataFrame) -> str:
    """What becomes of SLN-MO's lead over CE-MO stopped early with more images of `image_counts`."""
    ours = table[table["method"] == "SLN-MO"].sort_values("images")
    lead, images = ours["over_early"], ours["images"].map("{:,}".format)
    course = "falls at every step" if lead.is_monotonic_decreasing else "does not fall at every step"
    told = f"By number of images: {_sides(ours, 'over_early', images)}."
    if ours["seeds"].max() == 1:
        told = "With one run each, all of this may be chance."
    return (
        f"SLN-MO after the last epoch minus CE-MO stopped early on noisy labels {course}, from "
        f"{lead.iloc[0]:+.1f} points with {images.iloc[0]} images to {lead.iloc[-1]:+.1f} with "
        f"{images.iloc[-1]}. {told}"
    )


def clean_price(study: Study) -> pd.DataFrame:
    """What SLN costs where no label is wrong, on test images.

    Columns: method, quantity (CLEAN_PRICE), mean, low, high (95% t interval over seeds), seeds, sigma. The
    methods "SLN minus CE" and "SLN-MO minus CE-MO" are differences, paired over seeds.
    """
    found = study.runs_of(clean_price_arms(study), "true labels only")
    sigma, rows = found["SLN"].first.config.sigma, []
    for column, quantity in CLEAN_PRICE.items():
        values = {name: method.final(column) for name, method in found.items()}
        values["SLN minus CE"] = values["SLN"] - values["CE"]
        values["SLN-MO minus CE-MO"] = values["SLN-MO"] - values["CE-MO"]
        for name, of_seeds in values.items():
            row = {"method": name, "quantity": quantity} | interval(of_seeds).row()
            rows.append(row | {"seeds": len(of_seeds), "sigma": sigma})
    return pd.DataFrame(rows)


def describe_clean_price(table: pd.DataFrame) -> str:
    """The differences of `clean_price`."""
    parts = [
        f"{row.method}, {row.quantity} {row.mean:+.3f} {span(row.low, row.high, '+.3f')}"
        for row in table[table["method"].str.contains("minus")].itertuples()
    ]
    return f"Where no label is wrong, at σ = {table['sigma'].iloc[0]:g}: {'; '.join(parts)}."


def kinds_of_noise(study: Study) -> pd.DataFrame:
    """What SLN adds for each kind of noise, paired over seeds, in points of test accuracy.

    Columns: noise, weights ("network" or "momentum"), sigma, gain, gain_low, gain_high (its t interval),
    seeds, verdict on "SLN helps" (`Estimate.verdict`).
    """
    rows = []
    for mode in study.profile.noise_modes:
        methods = study.methods(mode)
        for weights, (plain, noisy) in {"network": ("CE", "SLN"), "momentum": ("CE-MO", "SLN-MO")}.items():
            gain = paired(methods[noisy], methods[plain])
            row = {"noise": mode, "weights": weights, "sigma": methods[noisy].first.config.sigma}
            rows.append(row | gain.row("gain", "gain_") | {"seeds": gain.seeds, "verdict": gain.verdict()})
    return pd.DataFrame(rows)


def describe_kinds_of_noise(table: pd.DataFrame) -> str:
    """Under which kinds of noise of `kinds_of_noise` SLN is ahead of training without it."""
    lines = []
    for weights, names in {"network": "SLN beside CE", "momentum": "SLN-MO beside CE-MO"}.items():
        part = table[table["weights"] == weights]
        lines.append(f"{names}: {_sides(part, 'gain', part['noise'].map(NOISE_NAMES))}.")
    return "\n".join(lines)


def noise_for(study: Study) -> pd.DataFrame:
    """Stochastic noise on which labels: noise_for, weights, and the columns of `_by_weights` (%)."""
    return _by_weights(study.runs_of(noise_for_arms(study), "noise on some labels"), "noise_for", ALL)


def schedules(study: Study) -> pd.DataFrame:
    """Schedules of sigma: schedule, weights, and the columns of `_by_weights` (%)."""
    found = study.runs_of(schedule_arms(study), "schedules of sigma")
    return _by_weights(found, "schedule", "constant")


def describe_against(table: pd.DataFrame, column: str, reference: str) -> str:
    """The momentum models of `noise_for` or `schedules` against `reference`; `column` names them."""
    part = table[table["weights"] == "momentum"].set_index(column)
    others = "; ".join(
        f"{row.Index} {_points(row, 'gain')} ({row.memorised:.0f}% memorised)"
        for row in part.drop(index=reference).itertuples()
    )
    at, gains = part.loc[reference], part.drop(index=reference)
    return (
        f"Momentum models against {reference} ({at['mean']:.1f}%, {at['memorised']:.0f}% of the wrong labels "
        f"memorised), in points: {others}.\nSo, beside {reference}, over {at['seeds']:.0f} seeds: "
        f"{_sides(gains, 'gain', gains.index.to_series())}."
    )


def corrections(study: Study) -> pd.DataFrame:
    """Clean and released correction by kind of noise: noise, losses, and those of `accuracies` (%).

    gain, gain_low, gain_high : over no correction, paired over seeds; over_clean, ... : over the clean rule
    label_accuracy, label_low, label_high : share of training labels that are true after correction (the
        targets' largest entries); images of no class (open-set) are left out
    """
    rows, found = [], study.runs_of(correction_arms(study), "label correction")
    for (mode, losses), runs in found.items():
        of_a_class = [run.examples.query("true >= 0") for run in runs.runs]
        truer = [100 * (examples["target"] == examples["true"]).mean() for examples in of_a_class]
        row = {"noise": mode, "losses": losses} | accuracies(runs)
        row |= paired(runs, found[mode, "none"]).row("gain", "gain_")
        row |= paired(runs, found[mode, "given"]).row("over_clean", "over_clean_")
        rows.append(row | interval(truer).row("label_accuracy", "label_"))
    return pd.DataFrame(rows)


def describe_corrections(table: pd.DataFrame) -> str:
    """Under which kinds of noise each rule of `corrections` is ahead, and how many labels it leaves true."""
    lines = []
    for losses, column, names in (
        ("given", "gain", "The clean rule beside no correction"),
        ("as-released", "gain", "The released rule beside no correction"),
        ("as-released", "over_clean", "The released rule beside the clean one"),
    ):
        part = table[table["losses"] == losses]
        lines.append(f"{names}: {_sides(part, column, part['noise'].map(NOISE_NAMES))}.")
    true = table.query("noise != 'openset'").pivot(index="noise", columns="losses", values="label_accuracy")
    true = true.reindex(table["noise"].unique()).dropna()
    shares = "; ".join(
        f"{NOISE_NAMES[row.Index]} {row.none:.0f}, {row.given:.0f}, {row.released:.0f}%"
        for row in true.rename(columns={"as-released": "released"}).itertuples()
    )
    true_labels = f"True labels without correction, by the clean rule, as released: {shares}."
    return "\n".join([*lines, true_labels])


def class_counts(study: Study) -> pd.DataFrame:
    """Test accuracy (%) of SLN-MO on letters by classes C and sigma: classes, sigma, when_sure, `accuracies`.

    when_sure : sigma sqrt(C - 1), the noise at the logit of a class that the network is sure of
    gain, gain_low, gain_high : over the same C without stochastic noise, paired over seeds
    """
    rows, found = [], study.runs_of(class_arms(study), "class counts")
    for (C, sigma), runs in found.items():
        row = {"classes": C, "sigma": sigma, "when_sure": sigma * math.sqrt(C - 1)} | accuracies(runs)
        rows.append(row | paired(runs, found[C, 0.0]).row("gain", "gain_"))
    return pd.DataFrame(rows)


def best_sigmas(study: Study) -> pd.DataFrame:
    """The sigma above 0 of the best test accuracy by classes and seed; of equals the smallest.

    It answers a question about the curve; no setting of the study is chosen so.
    """
    found = study.runs_of(class_arms(study), "class counts")
    rows = []
    for C in study.profile.class_counts:
        accuracy = np.stack([found[C, sigma].final("test_accuracy") for sigma in CLASS_COUNT_SIGMAS[1:]])
        for seed, best in enumerate(accuracy.argmax(axis=0)):
            rows.append({"classes": C, "seed": seed, "sigma": CLASS_COUNT_SIGMAS[1:][best]})
    return pd.DataFrame(rows)


def best_by_classes(best: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over the seeds of `best_sigmas`, of sigma and of when_sure = sigma sqrt(C - 1).

    Columns: classes, seeds, and of both the mean and its t interval (sigma, sigma_low, sigma_high, ...).
    """
    rows = []
    for C, part in best.groupby("classes"):
        row = {"classes": C, "seeds": len(part)}
        for name, factor in {"sigma": 1.0, "when_sure": math.sqrt(C - 1)}.items():
            row |= interval(np.log(factor * part["sigma"])).row(name, f"{name}_")
        rows.append(row)
    table = pd.DataFrame(rows).set_index(["classes", "seeds"])
    return np.exp(table).reset_index()


def describe_class_counts(best: pd.DataFrame) -> str:
    """Whether the sigmas of `best_sigmas` fall as 1 / sqrt(C - 1): the slope in logarithms, over seeds.

    The slope is -1 if sigma sqrt(C - 1) decides, and 0 if sigma does.
    """
    log = best.assign(x=np.log(best["classes"] - 1) / 2, y=np.log(best["sigma"]))
    slope = interval([np.polyfit(part["x"], part["y"], 1)[0] for _, part in log.groupby("seed")])
    falls, constant = (slope.low <= value <= slope.high for value in (-1, 0))
    verdict = {
        (True, False): "the best σ falls with the number of classes, and the theory’s −1 is in the interval",
        (False, True): "the best σ does not depend on the number of classes",
        (True, True): f"which of the two holds cannot be told with {slope.seeds} seeds",
        (False, False): "the best σ falls with the number of classes, but not as the theory predicts"
        if slope.high < 0
        else "the best σ does not fall with the number of classes",
    }[falls, constant]
    edge = best[best["sigma"] == CLASS_COUNT_SIGMAS[-1]]
    further = f" Of {len(best)} best σ, {len(edge)} are the largest that was tried." * bool(len(edge))
    return (
        f"The slope of the best σ against √(C − 1), in logarithms, is {slope.mean:+.2f} ({slope.low:+.2f} to "
        f"{slope.high:+.2f}), where σ √(C − 1) = constant would be −1 and σ = constant 0: {verdict}.{further}"
    )


def _points(row: Any, name: str) -> str:
    """A difference of a table's row and its interval, which a single run has not, in points."""
    mean, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    return f"{mean:+.1f} {span(low, high)}"


def _sides(rows: pd.DataFrame, name: str, of: pd.Series) -> str:
    """On which side of 0 the intervals of the difference `name` are, in points; `of` names the rows."""
    sides = {"ahead": rows[f"{name}_low"] > 0, "behind": rows[f"{name}_high"] < 0}
    sides["no clear difference"] = ~(sides["ahead"] | sides["behind"])
    parts = []
    for words, side in sides.items():
        if side.any():
            means = rows.loc[side, name]
            low, high = f"{means.min():+.1f}", f"{means.max():+.1f}"
            points = f"{low} points" if low == high else f"{low} to {high} points"
            parts.append(f"{words} with {', '.join(of[side])} ({points})")
    return "; ".join(parts)


def _by_weights(found: Mapping[str, MethodRuns], column: str, reference: str) -> pd.DataFrame:
    """One row per method, whose name is in `column`, and weights.

    Further columns: those of `accuracies`; memorised, right_learnt (%); gain, gain_low, gain_high over the
    same weights of `reference`, paired over seeds.
    """
    rows = []
    for name, method in found.items():
        for weights in ("network", "momentum"):
            runs = method.through(weights)
            row = {column: name, "weights": weights} | accuracies(runs)
            row |= interval(100 * runs.final("wrong_memorised")).row("memorised", "memorised_")
            row |= {"right_learnt": 100 * runs.final("right_accuracy").mean()}
            gain = paired(runs, found[reference].through(weights))
            rows.append(row | gain.row("gain", "gain_"))
    return pd.DataFrame(rows)
