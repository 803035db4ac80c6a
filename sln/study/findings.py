"""What was found, in a sentence each: written from the tables, so that words and numbers cannot part."""

from __future__ import annotations

import pandas as pd

from sln.config import NOISE_NAMES


def variants(final: pd.DataFrame) -> str:
    """From `analysis.mean_and_std` of the variants and the matched variants, in shares of 1."""
    return "; ".join(
        f"{name} {100 * row['mean']:.1f} ± {100 * row['std']:.1f}%" for name, row in final.iterrows()
    )


def comparison(table: pd.DataFrame, settings: str) -> str:
    """The best three methods a kind of noise, and SLN's place, read through the momentum model."""
    lines = []
    for noise, part in table[(table["settings"] == settings) & (table["weights"] == "momentum")].groupby(
        "noise", sort=False
    ):
        ranked = part.sort_values("mean", ascending=False, kind="stable").reset_index(drop=True)
        best = ", ".join(
            f"{row.method} {row.mean:.1f} ± {row.std:.1f}" for row in ranked.head(3).itertuples(name="R")
        )
        place = int(ranked.index[ranked["method"] == "SLN"][0]) + 1
        sln = ranked.loc[place - 1]
        lines.append(
            f"{NOISE_NAMES[noise]}, {settings} settings: best are {best}; SLN is number {place} of "
            f"{len(ranked)} ({sln['mean']:.1f} ± {sln['std']:.1f})."
        )
    return "\n".join(lines)


def gains(table: pd.DataFrame) -> str:
    """From `comparisons.gains`: what SLN adds to Co-teaching and to correction."""
    lines = []
    for (noise, settings), row in table.iterrows():
        told = ", ".join(f"{base} {value:+.1f}" for base, value in row.items())
        lines.append(
            f"SLN on top of another method, {NOISE_NAMES[noise]}, {settings} settings (points): {told}."
        )
    return "\n".join(lines)


def noise_rates(table: pd.DataFrame) -> str:
    """From `ablations.noise_rates`."""
    mean = table.pivot_table(index="rate", columns="method", values="mean")
    sigma = table[table["method"] == "SLN"].set_index("rate")["sigma"]
    told = ", ".join(
        f"{rate:g}: {mean.loc[rate, 'SLN-MO'] - mean.loc[rate, 'CE-MO']:+.1f} (σ {sigma[rate]:g})"
        for rate in mean.index
    )
    return f"SLN-MO less CE-MO by noise rate, in points of test accuracy: {told}."


def kinds_of_noise(table: pd.DataFrame) -> str:
    """From `ablations.kinds_of_noise`."""
    told = [
        f"{NOISE_NAMES[row.noise]} ({row.weights}): {row.verdict}, {row.gain:+.1f} ± {row.error:.1f}"
        for row in table.itertuples()
    ]
    return "SLN against no stochastic noise, in points: " + "; ".join(told) + "."


def by_name(table: pd.DataFrame, what: str) -> str:
    """From `ablations.noise_for` and `ablations.schedules`: momentum models, best first."""
    part = table[table["weights"] == "momentum"].sort_values("mean", ascending=False, kind="stable")
    told = [
        f"{name} {mean:.1f} ± {std:.1f}% ({memorised:.0f}% of the wrong labels memorised)"
        for name, mean, std, memorised in part[[what, "mean", "std", "memorised"]].itertuples(index=False)
    ]
    return "Read through the momentum model, best first: " + "; ".join(told) + "."


def corrections(table: pd.DataFrame) -> str:
    """From `ablations.corrections`."""
    mean = table.pivot_table(index="noise", columns="losses", values="mean", sort=False)
    truth = table.pivot_table(index="noise", columns="losses", values="label_accuracy", sort=False)
    told = []
    for noise in mean.index:
        gain, true = mean.loc[noise] - mean.loc[noise, "none"], truth.loc[noise]
        told.append(
            f"{NOISE_NAMES[noise]}: clean rule {gain['given']:+.1f} points, labels {true['given']:.0f}% "
            f"true; as released {gain['as-released']:+.1f}, {true['as-released']:.0f}%"
        )
    return "Correction against SLN-MO without it: " + "; ".join(told) + "."


def class_counts(table: pd.DataFrame) -> str:
    """From `ablations.class_counts`: where each C gains most."""
    best = table.loc[table.groupby("classes")["gain"].idxmax()]
    told = [
        f"C = {row.classes}: {row.gain:+.1f} points at σ = {row.sigma:.3g}, σ √(C − 1) = {row.when_sure:g}"
        for row in best.itertuples()
    ]
    return "Largest gain of SLN-MO over no stochastic noise: " + "; ".join(told) + "."
