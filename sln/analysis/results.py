"""The study's results beside the published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sln import runs
from sln.config import NOISE_NAMES
from sln.study.recipes import RECIPES, recipe_of
from sln.study.statistics import accuracies, interval, paired
from sln.study.study import Study
from sln.utils.errors import require
from sln.utils.files import figures_folder, project_root, read_json, read_table

PUBLISHED = Path(__file__).parent / "published.csv"
# The paper's order: each method is better than the one before.
STEPS = (("CE", "SLN"), ("SLN", "SLN-MO"), ("SLN-MO", "SLN-MO-LC"))


def table(study: Study, noise_modes: Sequence[str] | None = None, **settings: object) -> pd.DataFrame:
    """One row per kind of noise and method: sigma, and test accuracy over seeds (`accuracies`).

    noise_modes : by default the profile's; settings : those of `Config` that differ, such as `dataset`
    """
    rows = []
    for noise_mode in noise_modes or study.profile.noise_modes:
        sigma = study.choose_sigma(noise_mode, **settings)
        for name, method in study.methods(noise_mode, **settings).items():
            row = {"noise": noise_mode, "method": name, "sigma": 0.0 if name.startswith("CE") else sigma}
            rows.append(row | accuracies(method))
    return pd.DataFrame(rows)


def letters(study: Study) -> pd.DataFrame:
    """`table` for the drawn letters: does it hold elsewhere?"""
    return table(study, study.profile.letters_modes, dataset="letters")


def early_stopping(
    study: Study, noise_modes: Sequence[str] | None = None, **settings: object
) -> pd.DataFrame:
    """How much further SLN-MO's last epoch is than its rivals, in points, paired over seeds; as `table`.

    Columns: noise, rival (method and epoch), gain, low, high, verdict on "SLN-MO is ahead".
    """
    rows = []
    for noise_mode in noise_modes or study.profile.noise_modes:
        methods = study.methods(noise_mode, **settings)
        ours = 100 * methods["SLN-MO"].final("test_accuracy")
        for name in ("CE", "CE-MO"):
            for read, epoch in {"final": "last epoch", "early": "early-stopped"}.items():
                gain = interval(ours - 100 * getattr(methods[name], read)("test_accuracy"))
                row = {"noise": noise_mode, "rival": f"{name}, {epoch}"} | gain.row("gain")
                rows.append(row | {"verdict": gain.verdict()})
    return pd.DataFrame(rows)


def early_stopping_on_letters(study: Study) -> pd.DataFrame:
    """`early_stopping` for the drawn letters."""
    return early_stopping(study, study.profile.letters_modes, dataset="letters")


def describe_early_stopping(table: pd.DataFrame) -> str:
    """One line per kind of noise: the verdicts of `early_stopping`."""
    return "\n".join(
        f"{NOISE_NAMES[noise]}: SLN-MO minus "
        + "; ".join(
            f"{row.rival}: {row.gain:+.1f} ({row.low:+.1f} to {row.high:+.1f}), ahead: {row.verdict}"
            for row in part.itertuples()
        )
        + "."
        for noise, part in table.groupby("noise", sort=False)
    )


def own_or_full(
    study: Study, name: str, make: Callable[[Study], pd.DataFrame], *, own: object, committed: str = "full"
) -> pd.DataFrame:
    """`make(study)` if the profile trains its runs (`own` is true), else `name`.csv of profile `committed`.

    Prints which. Raises InputError if that table is missing.
    """
    if own:
        print(f"numbers of this profile, {study.name}")
        return make(study)
    path = figures_folder(committed) / f"{name}.csv"
    if not path.exists():  # SLN_FIGURES leads elsewhere
        path = project_root() / "figures" / committed / f"{name}.csv"
    train = f"`make reproduce PROFILE={committed}`"
    require(path.exists(), f"{path} is missing; {train} makes it")
    print(f"numbers of the profile {committed}, as committed ({name}.csv): {train} trains them")
    return read_table(path)


def published() -> pd.DataFrame:
    """Published accuracies in per cent, by source: the paper ("paper") or a re-implementation ("re-sln").

    Columns: dataset, noise, method, source, mean, std, runs.
    """
    return pd.read_csv(PUBLISHED)


def of_the_paper(dataset: str = "cifar10") -> pd.DataFrame:
    """The paper's own numbers for one data set, indexed by noise and method."""
    return published().query("source == 'paper' and dataset == @dataset").set_index(["noise", "method"])


def beside_published(ours: pd.DataFrame, label: str, dataset: str = "cifar10") -> pd.DataFrame:
    """`table` with its intervals beside the paper's "mean ± std" for `dataset`, or "not in the paper"."""
    paper, rows = of_the_paper(dataset), {}
    for row in ours.itertuples():
        key, theirs = (row.noise, row.method), "not in the paper"
        if key in paper.index:
            theirs = f"{paper.loc[key, 'mean']:.2f} ± {paper.loc[key, 'std']:.2f}"
        ours = f"{row.mean:.1f} ({row.low:.1f} to {row.high:.1f})"
        rows[key] = {f"ours ({label})": ours, f"paper ({dataset})": theirs}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["noise", "method"])


def of_the_recipes() -> pd.DataFrame:
    """Every recipe's finished runs beside the paper: one row per method, in per cent of test accuracy.

    A recipe without runs here has the numbers committed in figures/cifar10, if there are any.
    Columns: recipe, command, dataset, noise, method, paper, paper_std (NaN if the paper's number is not in
    `published`), ours, ours_std, seeds (0: no runs yet), difference = ours - paper.
    """
    trained: dict[str, dict[int, runs.Run]] = {name: {} for name in RECIPES}  # one run per seed
    for run in runs.finished():
        recipe = recipe_of(run.config)
        if recipe is not None:
            trained[recipe.name].setdefault(run.config.seed, run)
    rows, committed = [], _committed_cells()
    for recipe in RECIPES.values():
        paper = of_the_paper(recipe.dataset)
        for weights, method in recipe.reads.items():
            finals = [100 * run.final(weights)["test_accuracy"] for run in trained[recipe.name].values()]
            row = {"recipe": recipe.name, "command": recipe.command, "dataset": recipe.dataset}
            row |= {"noise": recipe.noise, "method": method, "paper": np.nan, "paper_std": np.nan}
            if (recipe.noise, method) in paper.index:
                row["paper"], row["paper_std"] = paper.loc[(recipe.noise, method), ["mean", "std"]]
            row["ours"] = np.mean(finals) if finals else np.nan
            row["ours_std"] = np.std(finals, ddof=1) if len(finals) > 1 else np.nan
            row["seeds"] = len(finals)
            if not finals and (recipe.name, method) in committed.index:
                row |= committed.loc[(recipe.name, method), ["ours", "ours_std", "seeds"]].to_dict()
            rows.append(row | {"difference": row["ours"] - row["paper"]})
    return pd.DataFrame(rows).astype({"seeds": int})


def _committed_cells() -> pd.DataFrame:
    """The rows with numbers of figures/cifar10, by recipe and method; prints where they were trained."""
    folder = figures_folder("cifar10")
    if not (folder / "06_beside_the_paper.csv").exists():
        return pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["recipe", "method"]))
    table = read_table(folder / "06_beside_the_paper.csv").query("seeds > 0")
    for visit in read_json(folder / "manifest.json").get("visits", []):
        print(f"cells of CIFAR-10 as committed: trained on {visit['gpu']}, {visit['started'][:10]}")
    return table.set_index(["recipe", "method"])


def describe_recipes(table: pd.DataFrame) -> str:
    """Each recipe of `of_the_recipes` that has runs, ours beside the paper's; or that none has."""
    lines = [
        f"{row.recipe}, {row.method}: ours {row.ours:.2f}% ({row.seeds} runs), the paper’s {row.paper:.2f}%."
        for row in table[table["seeds"] > 0].itertuples()
    ]
    train = "`make reproduce PROFILE=cifar10` trains them"
    return "\n".join(lines) or f"No recipe has a finished run, so all numbers are published ones; {train}."


def recipe_table() -> pd.DataFrame:
    """`of_the_recipes` in words: recipe, command, method, paper, ours (or "no runs"), difference."""
    table = of_the_recipes()

    def words(mean: float, std: float, missing: str) -> str:
        if np.isnan(mean):
            return missing
        return f"{mean:.2f}" + ("" if np.isnan(std) else f" ± {std:.2f}")

    shown = table[["recipe", "command", "method"]].copy()
    shown["paper"] = [words(*pair, "not at hand") for pair in table[["paper", "paper_std"]].to_numpy()]
    shown["ours"] = [words(*pair, "no runs") for pair in table[["ours", "ours_std"]].to_numpy()]
    shown["seeds"] = table["seeds"]
    shown["difference"] = ["-" if np.isnan(points) else f"{points:+.2f}" for points in table["difference"]]
    return shown


def steps_of_the_order(
    study: Study, noise_modes: Sequence[str] | None = None, **settings: object
) -> pd.DataFrame:
    """Each step of the paper's order, ours beside the paper's, in points of test accuracy.

    ours, low, high : mean over seeds of the paired difference, and its t interval; paper : difference of its
    means on CIFAR-10 (NaN: not in the paper); verdict : whether the paper's sign, or a gain, is there
    (`Estimate.verdict`)
    noise_modes, settings : as for `table`
    """
    paper, rows = of_the_paper()["mean"], []
    for noise_mode in noise_modes or study.profile.noise_modes:
        methods = study.methods(noise_mode, **settings)
        for worse, better in STEPS:
            gain = paired(methods[better], methods[worse])
            theirs = paper.get((noise_mode, better), np.nan) - paper.get((noise_mode, worse), np.nan)
            row = {"noise": noise_mode, "step": f"{worse} → {better}"} | gain.row("ours")
            verdict = gain.verdict(1.0 if np.isnan(theirs) else theirs)
            rows.append(row | {"paper": theirs, "verdict": verdict})
    return pd.DataFrame(rows)


def steps_on_letters(study: Study) -> pd.DataFrame:
    """`steps_of_the_order` for the drawn letters."""
    return steps_of_the_order(study, study.profile.letters_modes, dataset="letters")


def describe_steps(steps: pd.DataFrame) -> str:
    """One line per kind of noise: the verdicts of `steps_of_the_order`."""
    lines = []
    for noise_mode, part in steps.groupby("noise", sort=False):
        verdicts = [
            f"{row.step} {row.verdict} ({row.ours:+.1f}, {row.low:+.1f} to {row.high:+.1f})"
            for row in part.itertuples()
        ]
        lines.append(f"{NOISE_NAMES[noise_mode]}: {'; '.join(verdicts)}.")
    return "\n".join(lines)
