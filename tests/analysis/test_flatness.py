"""Flatness on the way and across methods: laws of the measures, tables against runs, sentences."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

from sln import runs
from sln.analysis import flatness
from sln.analysis.landscape import EvaluationSet, directions
from sln.config import Config
from sln.study import comparisons, mechanism
from sln.utils.files import write_json

ALONG = Config(epochs=3, keep_weights_every=1)


def test_a_linear_models_jacobian_stays_as_it_is_on_the_way_and_a_networks_does_not():
    for model, stays in (("frozen", True), ("cnn", False)):
        run = runs.get(ALONG.replace(model=model), quiet=True)
        found = [flatness.measured(run, epoch=epoch) for epoch in run.kept_epochs]
        squares = [row["squared_jacobian"] for row in found]
        assert (max(squares) < 1.0001 * min(squares)) == stays
        assert len({row["rise"] for row in found}) == 3


def test_the_rise_is_the_mean_over_two_directions_and_their_opposites_with_the_batchs_statistics():
    run = runs.get(ALONG, quiet=True)
    seen, network = EvaluationSet(run.data), run.network("momentum", 2).train()
    images, given = seen.train[: flatness.IMAGES], seen.given[: flatness.IMAGES]
    start = {name: value.detach().clone() for name, value in network.named_parameters()}

    def loss(step, direction):
        network.load_state_dict({n: v + step * direction[n] for n, v in start.items()}, strict=False)
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(network(images), given).item()

    moves = [directions(network, seed)[0] for seed in (0, 1)]
    around = [loss(sign * flatness.RADIUS, move) for move in moves for sign in (1, -1)]
    expected = np.mean(around) - loss(0.0, moves[0])
    assert flatness.measured(run, "momentum", 2)["rise"] == pytest.approx(expected, rel=1e-4)


def test_what_was_measured_is_kept_beside_the_run_by_weights_and_epoch():
    run = runs.get(ALONG, quiet=True)
    first = flatness.measured(run, "network", 1)
    assert flatness.measured(run, "network") == flatness.measured(run, "network", 3) != first
    write_json(run.folder / "sharpness" / "network-sensitivity-epoch001.json", {"rise": 7.0})
    assert flatness.measured(run, "network", 1) == {"rise": 7.0}


def test_the_table_of_late_noise_starts_where_the_noise_does(smoke_study):
    table = flatness.late(smoke_study)
    found = smoke_study.runs_of(mechanism.late_arms(smoke_study))
    assert flatness.switch(table) == 1
    epochs = table.groupby("method")["epoch"].unique().map(list).to_dict()
    assert epochs == {name: [1, 2, 3] for name in found}
    run = found["SLN"].runs[1]
    row = table.query("method == 'SLN' and seed == 1 and epoch == 2").iloc[0]
    history = run.of("network").loc[2]
    assert row["memorised"] == pytest.approx(100 * history["wrong_memorised"])
    assert row["accuracy"] == pytest.approx(100 * history["test_accuracy"])
    assert row["rise"] == flatness.measured(run, epoch=2)["rise"]
    before = table[table["epoch"] == 1].pivot(index="seed", columns="method", values="rise")
    assert before.nunique(axis=1).eq(1).all()


def test_the_sentence_on_late_noise_has_paired_changes_with_t_intervals():
    before, after = np.array([50.0, 44.0, 47.0]), np.array([4.0, 5.0, 9.0])
    parts = [
        pd.DataFrame({"seed": range(3), "memorised": values, "rise": values, "sensitivity": 2 * values})
        for values in (before, before, before, after)
    ]
    keys = [("CE", 50), ("CE", 100), ("SLN", 50), ("SLN", 100)]
    table = pd.concat([p.assign(method=m, epoch=e) for (m, e), p in zip(keys, parts, strict=True)])
    plain, ours, order = flatness.describe_late(table).splitlines()[1:]
    assert plain.startswith(
        "no noise: 47% of the wrong labels memorised, then 47% (+0.0 (+0.0 to +0.0) points)"
    )
    assert order == "At the end, the sharpest first: CE, SLN."
    change, ratio = after - before, np.log(after / before)
    low, high = t.interval(0.95, 2, change.mean(), change.std(ddof=1) / 3**0.5)
    assert f"then 6% ({change.mean():+.1f} ({low:+.1f} to {high:+.1f}) points)" in ours
    low, high = np.exp(t.interval(0.95, 2, ratio.mean(), ratio.std(ddof=1) / 3**0.5))
    words = f"{np.exp(ratio.mean()):.2g} ({low:.2g} to {high:.2g})"
    assert f"sharpness times {words}, |θ|²|J|² times {words}." in ours


def test_the_table_of_methods_is_of_the_comparisons_averages(smoke_study):
    table = flatness.of_methods(smoke_study).set_index("method")
    found = smoke_study.runs_of(comparisons.arms(smoke_study, "sym"))
    assert list(table.index) == [*found, "SAM, tuned"]
    sam = found["SAM"]
    rises = [flatness.measured(run, "momentum")["rise"] for run in sam.runs]
    assert table.loc["SAM", "rise"] == pytest.approx(np.mean(rises))
    assert table.loc["SAM", "accuracy"] == pytest.approx(100 * sam.final("test_accuracy").mean())
    assert table.loc["SAM", "peak"] == pytest.approx(100 * sam.early("test_accuracy").mean())


def test_rank_correlations_are_one_where_the_order_is_the_same_and_their_intervals_hold_them():
    rise = np.array([0.1, 0.2, 0.4, 1.0, 3.0, 2.0])
    names = ["SLN", "SAM", "CE", "a", "b", "c"]
    table = pd.DataFrame({"method": names, "rise": rise, "peak": 90.0 - rise, "memorised": rise**2})
    table["accuracy"] = [90.0, 91, 80, 70, 60, 50]
    found = flatness.rank_correlations(table).set_index("outcome")
    assert found.loc["memorised", ["correlation", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    # ranks 1 2 3 4 6 5 and 5 6 4 3 2 1: 1 - 6 sum d^2 / (n (n^2 - 1))
    assert found.loc["accuracy", "correlation"] == pytest.approx(1 - 6 * (16 + 16 + 1 + 1 + 16 + 16) / 210)
    assert found.loc["accuracy", "low"] < found.loc["accuracy", "correlation"] < found.loc["accuracy", "high"]
    text = flatness.describe_methods(table)
    assert "over 6 methods" in text
    assert "SAM is number 2 of 6 in flatness" in text
    assert "stopped early +nan" not in text
    assert "Among the 6 that memorise less than 60%, with test accuracy: -0.89." in text
