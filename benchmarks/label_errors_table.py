"""Writes the results of sln/relabel/README.md, between its two comments, from label_errors.csv.

python benchmarks/label_errors_table.py
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from sln.config import NOISE_NAMES
from sln.study.statistics import Estimate, interval
from sln.utils.files import write_text

HERE = Path(__file__).parent
README = HERE.parent / "sln" / "relabel" / "README.md"
START, END = "<!-- written by benchmarks/label_errors_table.py -->\n", "<!-- end of the results -->\n"
CLEANLAB = {
    "default": "cleanlab self_confidence",
    "self-confidence, adjusted": "cleanlab self_confidence adjusted",
    "margin": "cleanlab normalized_margin",
    "margin, adjusted": "cleanlab normalized_margin adjusted",
    "entropy": "cleanlab confidence_weighted_entropy",
    "joint by noise rate": "cleanlab joint prune_by_noise_rate",
    "joint by class": "cleanlab joint prune_by_class",
    "joint by both": "cleanlab joint both",
    "joint by confidence": "cleanlab joint confident_learning",
    "neighbours": "cleanlab neighbours",
    "25 neighbours": "cleanlab neighbours 25",
}
SHOWN = {"here": "here", "network alone": "network alone"}
SHOWN |= {
    f"cleanlab: {name}": CLEANLAB[name]
    for name in ("default", "margin, adjusted", "joint by noise rate", "25 neighbours")
}
SHOWN |= {"CE, cross-fitted": "CE cross-fitted", "CE, trained on all": "CE", "logistic": "logistic"}
NAMES = NOISE_NAMES | {"human-random1": "one person’s", "human-worst": "the worst of three"}
ABLATED = {"pooled": ("here", "sigma 0"), "the network alone": ("network alone", "sigma 0 network alone")}
VERDICTS = {"holds": "ahead of", "does not hold": "behind"}


def name(noise: str) -> str:
    """A kind of noise in words, and if features were judged, of how many photographs."""
    kind, _, count = noise.partition("-features-")
    return NAMES[kind] + (f", {int(count):,} on features," if count else "")


def judged_on(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The results by what was judged."""
    photographs = results["noise"].str.startswith("human")
    features = results["noise"].str.contains("features")
    kinds = {"digits": ~photographs, "photographs’ pixels": photographs & ~features}
    kinds |= {"photographs’ features": features}
    return {kind: results[rows] for kind, rows in kinds.items() if rows.any()}


def by_setting(results: pd.DataFrame, column: str = "average_precision") -> dict[str, pd.DataFrame]:
    """Seeds x methods: a column of the results in %, by noise and rate as "symmetric 0.1", in their order."""
    groups = results.groupby(["noise", "rate"], sort=False)
    return {
        f"{name(noise)} {rate:g}": 100 * group.pivot(index="seed", columns="method", values=column)
        for (noise, rate), group in groups
    }


def best(scores: pd.DataFrame) -> str:
    """The method of cleanlab with the highest mean over the seeds: a key of CLEANLAB, the first of equals."""
    return max(CLEANLAB, key=lambda name: scores[CLEANLAB[name]].mean())


def estimate(scores: pd.DataFrame, method: str) -> Estimate:
    """The mean of a method over the seeds that it was measured with."""
    return interval(scores[method].dropna()) if method in scores else Estimate(*[math.nan] * 4, 0)


def ahead(scores: pd.DataFrame, name: str) -> Estimate:
    """How many points `here` is ahead of a method of cleanlab, paired over the seeds."""
    return interval(scores["here"] - scores[CLEANLAB[name]])


def text(found: Estimate, sign: str = "") -> str:
    """Mean ± half of the interval; without ± for one seed; – for none."""
    if not found.seeds:
        return "–"
    mean = round(found.mean, 1) + 0.0  # no −0.0
    return f"{mean:{sign}.1f}".replace("-", "−") + (
        f" ± {(found.high - found.low) / 2:.1f}" if found.seeds > 1 else ""
    )


def table(settings: dict[str, pd.DataFrame]) -> list[str]:
    """One line per kind and rate of noise."""
    found = [
        f"| noise, rate | {' | '.join(SHOWN)} | here − cleanlab’s best |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for setting, scores in settings.items():
        cells = [text(estimate(scores, method)) for method in SHOWN.values()]
        rival = best(scores)
        found.append(f"| {setting} | {' | '.join(cells)} | {text(ahead(scores, rival), '+')} ({rival}) |")
    return found


def verdicts(settings: dict[str, pd.DataFrame], of: str, choose: Callable[[pd.DataFrame], str]) -> str:
    """Where `here` is ahead of cleanlab, where behind, and where the intervals do not tell.

    of : what it is compared with; choose : the method of cleanlab, a key of CLEANLAB, for a setting's scores
    """
    found: dict[str, list[tuple[str, Estimate]]] = {"holds": [], "does not hold": [], "": []}
    for setting, scores in settings.items():
        difference = ahead(scores, choose(scores))
        verdict = difference.verdict()
        found[verdict if verdict in found else ""].append((setting, difference))
    parts = []
    for verdict, words in VERDICTS.items():
        where = "; ".join(f"{setting} ({text(difference, '+')})" for setting, difference in found[verdict])
        parts.append(f"{words} {of}: {where or 'nowhere'}")
    open_ = ", ".join(setting for setting, _ in found[""]) or "nowhere"
    return "`here` is " + ". `here` is ".join(parts) + f". The intervals do not separate the two: {open_}."


def wins(settings: dict[str, pd.DataFrame]) -> str:
    """In how many settings the mean is above that of cleanlab's best."""
    won = [setting for setting, scores in settings.items() if ahead(scores, best(scores)).mean > 0]
    lost = ", ".join(setting for setting in settings if setting not in won) or "none"
    return (
        f"The mean of `here` is above cleanlab’s best in {len(won)} of {len(settings)} rows; not in: {lost}."
    )


def replaced(results: pd.DataFrame) -> str:
    """What replacing the flagged labels does to photographs, as means over seeds."""
    rows = results[(results["method"] == "here") & results["noise"].str.startswith("human")]
    kinds = rows.groupby("noise", sort=False)[["rate", "agreement", "true_after"]].mean() * 100
    parts = [
        f"{name(noise).rstrip(',')}: {kind.agreement:.0f}% predicted, {100 - kind.rate:.1f}% true before, "
        f"{kind.true_after:.1f}% after"
        for noise, kind in kinds.iterrows()
    ]
    return (
        "A ranking is not a correction. This is what becomes of photographs’ labels if every flagged one is "
        f"replaced, and how many of the given ones are predicted: {'; '.join(parts)}."
    )


def thresholds(results: pd.DataFrame) -> str:
    """Precision and recall at `relabel`'s threshold and at 0.15, as means over kinds of noise and seeds."""
    parts = []
    for data, rows in judged_on(results).items():
        means = 100 * rows.groupby("method")[["precision", "recall"]].mean()
        both = (means.loc[name] for name in ("here", "here 0.15"))
        cells = [f"precision {mean.precision:.0f}, recall {mean.recall:.0f}" for mean in both]
        parts.append(f"on {data} {cells[0]} (at 0.15: {cells[1]})")
    return f"At `relabel`’s threshold of 0.5, in %: {'; '.join(parts)}."


def noise_adds(results: pd.DataFrame) -> str:
    """What stochastic label noise changes, as means over kinds of noise, where σ = 0 was measured too."""
    parts = []
    for data, rows in judged_on(results).items():
        wide = 100 * rows.pivot(index=["noise", "rate", "seed"], columns="method", values="average_precision")
        if "sigma 0" not in wide:
            continue
        wide = wide.dropna(subset=["sigma 0"])
        cells = [
            f"{wide[chosen].mean():.1f} instead of {wide[without].mean():.1f} ({words})"
            for words, (chosen, without) in ABLATED.items()
        ]
        kinds, many = len(wide), "s" * (len(wide) > 1)
        parts.append(f"on {data} {', '.join(cells)}, means of {kinds} setting{many} with one seed")
    if not parts:
        return "What the stochastic noise adds was not measured."
    return (
        f"What the noise adds: with the chosen σ instead of σ = 0, average precision is {'; '.join(parts)}."
    )


def written(results: pd.DataFrame) -> str:
    """The table and the sentences that rest on it."""
    settings = by_setting(results)
    counts = sorted({scores["here"].count() for scores in settings.values()})
    seeds = " to ".join(map(str, sorted({counts[0], counts[-1]}))) + " seed" + "s" * int(counts[-1] > 1)
    heading = (
        f"Average precision in %, mean over {seeds} ± half of the 95% t interval; CE, logistic: one seed."
    )
    sentences = [
        wins(settings),
        verdicts(settings, "cleanlab’s best", best),
        verdicts(settings, "cleanlab’s default", lambda _: "default"),
        replaced(results),
        thresholds(results),
        noise_adds(results),
    ]
    wrapped = [textwrap.fill(sentence, 100, break_on_hyphens=False) for sentence in [heading, *sentences]]
    return "\n\n".join([wrapped[0], "\n".join(table(settings)), *wrapped[1:]])


def readme(page: str, results: pd.DataFrame) -> str:
    """The page with its results replaced."""
    before, _, rest = page.partition(START)
    return before + START + "\n" + written(results) + "\n\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    write_text(README, readme(README.read_text(encoding="utf-8"), pd.read_csv(HERE / "label_errors.csv")))
