"""Questions that the paper leaves open, each an experiment and the table that it ends in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from sln.study.study import Arm, MethodRuns, Study

# Class counts are compared at this noise rate: at 0.4 two classes would hardly differ from a coin's toss.
CLASS_COUNT_RATE = 0.2
# sigma sqrt(C - 1), the noise at the logit of a class that the network is sure of.
NOISE_WHEN_SURE = (0.0, 1.0, 2.0, 3.0, 6.0)
ALL = "all labels (SLN)"
NOISE_FOR = {"right labels only": "right", "wrong labels only": "wrong"}


# --- experiments: arms by name ------------------------------------------------------------------------------


def rate_arms(study: Study) -> dict[tuple[float, str], Arm]:
    """CE and SLN, and their momentum models, by symmetric noise's rate; sigma is chosen at each rate."""
    found = {}
    for rate in study.profile.noise_rates:
        plain = study.over_seeds("sym", 0.0, noise_rate=rate)
        noisy = study.over_seeds("sym", study.choose_sigma("sym", noise_rate=rate), noise_rate=rate)
        found |= {(rate, "CE"): Arm(plain), (rate, "CE-MO"): Arm(plain, "momentum")}
        found |= {(rate, "SLN"): Arm(noisy), (rate, "SLN-MO"): Arm(noisy, "momentum")}
    return found


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


def class_arms(study: Study) -> dict[tuple[int, float], Arm]:
    """SLN by number of classes C and by sigma sqrt(C - 1)."""
    return {
        (C, sure): Arm(
            study.over_seeds("sym", sure / math.sqrt(C - 1), classes=C, noise_rate=CLASS_COUNT_RATE)
        )
        for C in study.profile.class_counts
        for sure in NOISE_WHEN_SURE
    }


# --- tables -------------------------------------------------------------------------------------------------


def noise_rates(study: Study) -> pd.DataFrame:
    """Test accuracy (%) over the noise rate: rate, method, sigma, mean, std, seeds."""
    rows = []
    for (rate, method), reading in study.read(rate_arms(study), "noise rates").items():
        row = {"rate": rate, "method": method, "sigma": reading.runs[0].config.sigma}
        rows.append(row | _accuracy(reading))
    return pd.DataFrame(rows)


def kinds_of_noise(study: Study) -> pd.DataFrame:
    """What SLN adds for each kind of noise, paired over seeds, in points of test accuracy.

    Columns: noise, weights (the networks, or their momentum models), sigma, gain, error (its standard error),
    verdict : "helps", "hurts", or "unclear" where the gain is within two standard errors of 0
    """
    rows = []
    for mode in study.profile.noise_modes:
        readings = study.readings(mode)
        for weights, (plain, noisy) in {"network": ("CE", "SLN"), "momentum": ("CE-MO", "SLN-MO")}.items():
            gain = 100 * (readings[noisy].final("test_accuracy") - readings[plain].final("test_accuracy"))
            error = gain.std(ddof=1) / math.sqrt(len(gain))
            verdict = "helps" if gain.mean() > 0 else "hurts"
            if abs(gain.mean()) <= 2 * error:
                verdict = "unclear"
            row = {"noise": mode, "weights": weights, "sigma": readings[noisy].runs[0].config.sigma}
            rows.append(row | {"gain": gain.mean(), "error": error, "verdict": verdict})
    return pd.DataFrame(rows)


def noise_for(study: Study) -> pd.DataFrame:
    """Stochastic noise on which labels: noise_for, weights, mean, std, memorised, right_learnt, seeds (%)."""
    return _both_readers(study.read(noise_for_arms(study), "noise on some labels"), "noise_for")


def schedules(study: Study) -> pd.DataFrame:
    """Schedules of sigma: schedule, weights, mean, std, memorised, right_learnt, seeds (%)."""
    return _both_readers(study.read(schedule_arms(study), "schedules of sigma"), "schedule")


def corrections(study: Study) -> pd.DataFrame:
    """Clean and released correction by kind of noise: noise, losses, mean, std, label_accuracy, seeds (%).

    label_accuracy : share of training labels that are true, of the targets' largest entries; images of no
    class (open-set) are left out
    """
    rows = []
    for (mode, losses), reading in study.read(correction_arms(study), "label correction").items():
        of_a_class = [run.examples.query("true >= 0") for run in reading.runs]
        truer = [(examples["target"] == examples["true"]).mean() for examples in of_a_class]
        row = {"noise": mode, "losses": losses} | _accuracy(reading)
        rows.append(row | {"label_accuracy": 100 * float(np.mean(truer))})
    return pd.DataFrame(rows)


def class_counts(study: Study) -> pd.DataFrame:
    """Test accuracy (%) of SLN-MO by classes C and strength: classes, when_sure, sigma, mean, std, seeds.

    when_sure : sigma sqrt(C - 1)
    gain, gain_std : over the same C without stochastic noise, paired over seeds
    """
    rows = []
    readings = study.read(class_arms(study), "class counts")
    for (C, sure), reading in readings.items():
        read, plain = (MethodRuns("", r.runs, "momentum") for r in (reading, readings[C, 0.0]))
        gain = 100 * (read.final("test_accuracy") - plain.final("test_accuracy"))
        row = {"classes": C, "when_sure": sure, "sigma": reading.runs[0].config.sigma}
        rows.append(row | _accuracy(read) | {"gain": gain.mean(), "gain_std": gain.std(ddof=1)})
    return pd.DataFrame(rows)


def _accuracy(reading: MethodRuns) -> dict[str, float]:
    values = 100 * reading.final("test_accuracy")
    return {"mean": values.mean(), "std": values.std(ddof=1), "seeds": len(values)}


def _both_readers(readings: Mapping[str, MethodRuns], what: str) -> pd.DataFrame:
    rows = []
    for name, reading in readings.items():
        for weights in ("network", "momentum"):
            read = MethodRuns(name, reading.runs, weights)
            row = {what: name, "weights": weights} | _accuracy(read)
            row |= {"memorised": 100 * read.final("wrong_memorised").mean()}
            rows.append(row | {"right_learnt": 100 * read.final("right_accuracy").mean()})
    return pd.DataFrame(rows)
