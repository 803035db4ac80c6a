"""Flatness on the way and across methods: does noise leave a sharp place, and do flat places predict better?

Sharpness is scale-free here: the mean rise of the loss on given labels along filter-normalised directions
(`sharpness.filter_increase`), with BatchNorm in training mode. |J|^2 is `sensitivity`'s, in the same mode.
"""

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
import torch

from sln.analysis import sensitivity, sharpness
from sln.analysis.landscape import EvaluationSet, first_images
from sln.datasets.load import threads
from sln.runs.run import Run
from sln.study import comparisons, mechanism
from sln.study.statistics import MethodRuns, interval
from sln.study.study import Study
from sln.utils.devices import device
from sln.utils.files import read_json, write_json
from sln.utils.rng import numpy_generator, torch_generator

IMAGES, RADIUS, DIRECTIONS = 500, 0.25, 2  # of the rise: training images, length of a move, moves
BATCH, DRAWS = 64, 4  # of |J|^2: images, draws
OUTCOMES = ("accuracy", "peak", "memorised")  # that flatness might predict
FEW = 60  # per cent of the wrong labels: methods that memorise less are also looked at by themselves


@threads(1)
def measured(run: Run, weights: str = "network", epoch: int | None = None) -> dict[str, float]:
    """rise, squared_jacobian and squared_norm (|theta|^2) after `epoch` (default: the last), cached."""
    path = run.folder / "sharpness" / f"{weights}-sensitivity-epoch{epoch or run.config.epochs:03d}.json"
    if not path.exists():
        network = run.network(weights, epoch).to(device())
        seen = EvaluationSet(first_images(run.data, IMAGES))
        parts = sharpness.loss_parts(network, seen.train, seen.given)
        found = {"rise": sharpness.filter_increase(parts, network, RADIUS, DIRECTIONS)}
        images = seen.train[:BATCH]
        z = torch.randn(DRAWS, len(images), run.data.num_classes, generator=torch_generator(0, "bootstrap"))
        found["squared_jacobian"], _ = sensitivity.squared_jacobian(network, images, z.to(device()))
        found["squared_norm"] = sum(p.detach().square().sum().item() for p in network.parameters())
        write_json(path, found)
    return read_json(path)


# --- noise that starts late ---------------------------------------------------------------------------------


def late(study: Study) -> pd.DataFrame:
    """CE, and noise in the second half only (`mechanism.late_arms`), at the epochs whose weights were kept.

    One row per method, seed and epoch; columns accuracy and memorised (%), those of `measured`, and
    sensitivity, |theta|^2 |J|^2: BatchNorm lets weights grow and J shrink while the function stays the same.
    Until the noise starts all methods are CE's training, so the others' rows begin at that epoch.
    """
    rows = []
    for name, method in study.runs_of(mechanism.late_arms(study), "noise in the second half").items():
        for run in method.runs:
            history = 100 * run.of("network")[["test_accuracy", "wrong_memorised"]]
            shown = [e for e in run.kept_epochs if name == "CE" or e >= run.config.epochs // 2]
            for epoch in shown:
                accuracy, memorised = history.loc[epoch]
                row = {"method": name, "seed": run.config.seed, "epoch": epoch}
                row |= {"accuracy": accuracy, "memorised": memorised}
                row |= measured(run, "network", epoch)
                rows.append(row | {"sensitivity": row["squared_norm"] * row["squared_jacobian"]})
    return pd.DataFrame(rows)


def switch(table: pd.DataFrame) -> int:
    """The last epoch of `late` before the noise starts."""
    return int(table.loc[table["method"] != "CE", "epoch"].min())


def describe_late(table: pd.DataFrame) -> str:
    """One line per method of `late`: memorised labels and sharpness, before the noise and at the end."""
    first, last = switch(table), table["epoch"].max()
    lines = [f"From epoch {first} to epoch {last}, means over {table['seed'].nunique()} seeds:"]
    for name, part in table.groupby("method", sort=False):
        before, after = (part[part["epoch"] == epoch].set_index("seed") for epoch in (first, last))
        change = interval(after["memorised"] - before["memorised"])
        rise, squared = (_change(after[name], before[name]) for name in ("rise", "sensitivity"))
        lines.append(
            f"{'no noise' if name == 'CE' else name}: {before['memorised'].mean():.0f}% of the wrong labels "
            f"memorised, then {after['memorised'].mean():.0f}% ({change} points); sharpness "
            f"{rise}, |θ|²|J|² {squared}."
        )
    order = table[table["epoch"] == last].groupby("method")["rise"].mean().sort_values(ascending=False)
    return "\n".join([*lines, f"At the end, the sharpest first: {', '.join(order.index)}."])


def _change(after: pd.Series, before: pd.Series) -> str:
    found, apart = sharpness.compared(after, before)
    how = "plus" if found is apart else "times"  # a value is not positive: no ratio
    return f"{how} {found.mean:.2g} ({found.low:.2g} to {found.high:.2g})"


# --- methods beside each other ------------------------------------------------------------------------------


def of_methods(study: Study) -> pd.DataFrame:
    """Sharpness and accuracy of every method of the comparison under symmetric noise, at published settings.

    And of SAM at tuned ones, where the profile tunes.

    One row per method, of momentum models, means over seeds: rise; in per cent accuracy and memorised after
    the last epoch, and peak (accuracy where noisy validation labels say to stop); seeds. A method that does
    not fit the given labels is at no minimum of their loss, so its rise can be below 0.
    """
    arms = comparisons.arms(study, "sym")
    if "sym" in study.profile.tuned_modes:
        arms["SAM, tuned"] = comparisons.arms(study, "sym", tuned=True)["SAM"]
    found = study.runs_of(arms, "sym noise, published settings")
    return pd.DataFrame([{"method": name} | _flatness(method) for name, method in found.items()])


def _flatness(method: MethodRuns) -> dict[str, float]:
    return {
        "rise": float(np.mean([measured(run, method.weights)["rise"] for run in method.runs])),
        "accuracy": 100 * method.final("test_accuracy").mean(),
        "peak": 100 * method.early("test_accuracy").mean(),
        "memorised": 100 * method.final("wrong_memorised").mean(),
        "seeds": len(method.runs),
    }


def rank_correlations(table: pd.DataFrame, draws: int = 2000) -> pd.DataFrame:
    """Spearman's rank correlation of sharpness and each of OUTCOMES over the methods of `of_methods`.

    Columns: outcome, correlation, low, high (95% of bootstrap draws of methods), methods (their number).
    """
    generator, rows = numpy_generator(0, "bootstrap"), []
    samples = generator.integers(len(table), size=(draws, len(table)))
    for outcome in OUTCOMES:
        pairs = table[["rise", outcome]].rank().to_numpy()
        drawn = [
            scipy.stats.spearmanr(*pairs[sample].T).statistic for sample in samples if len(set(sample)) > 2
        ]
        row = {"outcome": outcome, "correlation": scipy.stats.spearmanr(*pairs.T).statistic}
        row |= dict(zip(("low", "high"), np.nanquantile(drawn, (0.025, 0.975)), strict=True))
        rows.append(row | {"methods": len(table)})
    return pd.DataFrame(rows)


def describe_methods(table: pd.DataFrame) -> str:
    """The rank correlations, among methods that memorise little too, and where CE, SAM and SLN are."""
    words = {
        row.outcome: f"{row.correlation:+.2f} ({row.low:+.2f} to {row.high:+.2f})"
        for row in rank_correlations(table).itertuples()
    }
    named = table.assign(rank=table["rise"].rank().astype(int)).set_index("method")
    places = [
        f"{name} is number {row['rank']:.0f} of {len(table)} in flatness, memorises "
        f"{row['memorised']:.0f}% of the wrong labels, and has {row['peak']:.1f}% when stopped early, "
        f"{row['accuracy']:.1f}% at the end"
        for name, row in named[named.index.isin(["CE", "SAM", "SAM, tuned", "SLN"])].iterrows()
    ]
    few = table[table["memorised"] < FEW]
    alone = few["rise"].corr(few["accuracy"], method="spearman")
    return (
        f"Rank correlation of sharpness over {len(table)} methods: with test accuracy {words['accuracy']}, "
        f"stopped early {words['peak']}, with memorised labels {words['memorised']}. Among the "
        f"{len(few)} that memorise less than {FEW}%, with test accuracy: {alone:+.2f}. The methods are few "
        f"and related, and a correlation shows no cause.\n{'; '.join(places)}."
    )
