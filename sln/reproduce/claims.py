"""The paper's claims, each with its number here: a row of a table that the notebooks wrote."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from sln.config import NOISE_NAMES

if TYPE_CHECKING:
    from sln.reproduce.summary import Numbers

# A column of the page, whether it reads `mini`'s tables, and the claim's field that names the table.
DATA = {"digits": (False, "table"), "letters": (False, "letters"), "photographs": (True, "table")}
MISSING, NOT_RUN = "not in it", "not run"
NOISES = ("sym", "asym", "dependent", "openset", "human-random1", "human-worst")
STRENGTHS = {"best": "best strength", "matched": "strength matched to SLN"}
VARIANT_GAINS = {
    "gradient noise minus CE": "no gain",
    "logit noise minus CE": "gain",
    "SLN minus gradient noise": "gain",
    "SLN minus logit noise": "gain",
}
STEPS = ("CE → SLN", "SLN → SLN-MO", "SLN-MO → SLN-MO-LC")


@dataclass(frozen=True)
class Claim:
    """One claim.

    text, paper : in words, and the paper's number (CIFAR-10)
    notebook : where it is checked
    table, where : the CSV, and the values that choose its row
    value, form, unit : the row's column, and how it is shown; its interval is in the columns `low` and `high`
    letters : the CSV of the drawn letters, if there is one
    none : the claim is that there is no gain, and the table's verdict is on the opposite
    told : whether the verdict is shown
    """

    text: str
    paper: str
    notebook: int
    table: str
    where: Mapping[str, object] = field(default_factory=dict)
    value: str = "mean"
    form: str = "+.1f"
    unit: str = " points"
    letters: str = ""
    none: bool = False
    told: bool = True


def claims(steps: Mapping[tuple[str, str], float]) -> Iterator[Claim]:
    """All claims; `steps` are the paper's differences by noise and step."""
    for noise, step in itertools.product(NOISES, STEPS):
        yield Claim(
            f"{NOISE_NAMES[noise]} noise: {step}",
            f"{steps[noise, step]:+.1f}" if (noise, step) in steps else MISSING,
            6,
            "06_steps_of_the_order",
            {"noise": noise, "step": step},
            value="ours",
            letters="" if noise.startswith("human") else "06_letters_steps",
        )
    for strength, weights in (("best", "network"), ("best", "momentum"), ("matched", "momentum")):
        where = {"strength": STRENGTHS[strength], "weights": weights}
        read = "networks" if weights == "network" else "averages"
        for difference, paper in VARIANT_GAINS.items():
            text = f"figure 1: {difference}, {read}, {STRENGTHS[strength]}"
            row = where | {"difference": difference}
            yield Claim(text, paper, 9, "09_variant_gains", row, none=paper == "no gain")
    flat = {"measure": "filter_increase"}
    for method, paper in {"CE": "sharper", "gradient noise": "sharper", "logit noise": "both flat"}.items():
        shown = {"value": "ratio", "form": ".3g", "unit": " times", "told": paper == "sharper"}
        text = f"figure 2: {method} sharper than SLN (scale-free)"
        yield Claim(text, paper, 4, "04_sharpness", flat | {"method": method}, **shown)
    for method, paper in {"CE": "memorises", "SLN": "does not", "SLN-MO": "does not"}.items():
        shown = {"value": "below", "form": "+.2f", "unit": " nats", "none": paper == "does not"}
        where = "not below" if shown["none"] else "below"
        text = f"figures 3, 4: {method}’s loss on given labels {where} the noise’s entropy"
        yield Claim(text, paper, 5, "05_memorised_nats", {"method": method}, **shown)
    gained = {"noise": "sym", "settings": "published"}
    for gain in ("SLN on top of Co-teaching", "label correction on top of SLN"):
        yield Claim(f"published settings: {gain}", "gain", 9, "09_gains", gained | {"gain": gain})
    rivals = ("CE, early-stopped", "CE-MO, early-stopped")
    for noise, rival in itertools.product(NOISES, rivals):
        where = {"noise": noise, "rival": rival}
        text = f"{NOISE_NAMES[noise]} noise: SLN-MO ahead of {rival}"
        letters = "" if noise.startswith("human") else "06_letters_early_stopping"
        yield Claim(text, MISSING, 6, "06_early_stopping", where, value="gain", letters=letters)


def cell(claim: Claim, numbers: Numbers, table: str) -> str:
    """The row's value, interval and verdict, as "+32.1 points (+29.0 to +35.2), holds"; or NOT_RUN."""
    rows = numbers.rows(table, **claim.where)
    if rows.empty or not {claim.value, "low", "high"} <= set(rows):
        return NOT_RUN
    row = rows.iloc[0]
    value, low, high = (format(row[name], claim.form) for name in (claim.value, "low", "high"))
    verdict = row.get("verdict", "") if claim.told else ""
    if claim.none:
        verdict = {"holds": "does not hold", "does not hold": "holds"}.get(verdict, verdict)
    return f"{value}{claim.unit} ({low} to {high})" + (f", {verdict}" if verdict else "")


def rows(numbers: Mapping[str, Numbers]) -> list[dict[str, str]]:
    """One row per claim of the page: claim, paper, a cell per data set of DATA, notebook."""
    digits = "full" if "full" in numbers else "quick"
    steps = numbers[digits].rows("06_steps_of_the_order") if digits in numbers else pd.DataFrame()
    paper = {} if steps.empty else steps.set_index(["noise", "step"])["paper"].to_dict()
    found = []
    for claim in claims(paper):
        row = {"claim": claim.text, "paper": claim.paper}
        for name, (photographs, source) in DATA.items():
            profile, table = "mini" if photographs else digits, getattr(claim, source)
            own = table and profile in numbers
            if own and photographs and digits in numbers:
                own = numbers[profile].shows_own(table, numbers[digits])
            row[name] = cell(claim, numbers[profile], table) if own else NOT_RUN
        found.append(row | {"notebook": str(claim.notebook)})
    return found
