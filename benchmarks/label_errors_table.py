"""Writes the table of sln/relabel/README.md from label_errors.csv; the text around it is kept.

python benchmarks/label_errors_table.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sln.config import NOISE_NAMES
from sln.utils.files import write_text

HERE = Path(__file__).parent
README = HERE.parent / "sln" / "relabel" / "README.md"
METHODS = {
    "here": "here",
    "cleanlab": "cleanlab self_confidence",
    "CE, cross-fitted": "CE cross-fitted",
    "CE, trained on all": "CE",
}
NAMES = NOISE_NAMES | {"human-random1": "one person’s", "human-worst": "the worst of three"}


def lines(results: pd.DataFrame) -> list[str]:
    """Average precision in %, mean ± standard deviation over seeds: one line per kind and rate of noise."""
    kinds = results.groupby(["noise", "rate", "method"])["average_precision"].agg(["mean", "std"]) * 100
    found = [f"| noise | rate | {' | '.join(METHODS)} |", "|---|---" + "|---" * len(METHODS) + "|"]
    for noise, rate in results[["noise", "rate"]].drop_duplicates().itertuples(index=False):
        pairs = [kinds.loc[noise, rate, method] for method in METHODS.values()]
        cells = [f"{pair['mean']:.1f} ± {pair['std']:.1f}" for pair in pairs]
        found.append(f"| {NAMES[noise]} | {rate:g} | {' | '.join(cells)} |")
    return found


def readme(text: str, results: pd.DataFrame) -> str:
    """The page `text` with its table replaced."""
    before, _, after = text.partition("\n| ")
    after = after[after.index("\n\n") :]
    return before + "\n" + "\n".join(lines(results)) + after


if __name__ == "__main__":
    page = readme(README.read_text(encoding="utf-8"), pd.read_csv(HERE / "label_errors.csv"))
    write_text(README, page)
