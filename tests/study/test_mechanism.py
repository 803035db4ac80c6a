"""Late noise and the linear model: the arms differ in what they should, and tables are of paired runs."""

import numpy as np
import pandas as pd
import pytest
import torch

from sln.study import mechanism
from sln.study.study import Study


def test_late_noise_is_that_of_the_study_in_the_second_half_with_the_weights_kept():
    study = Study("quick", guesses=True)
    variants, arms = study.variant_arms("sym"), mechanism.late_arms(study)
    assert list(arms) == list(variants) == ["CE", "gradient noise", "logit noise", "SLN"]
    for name, arm in arms.items():
        assert len(arm.configs) == study.curve_seeds < len(variants[name].configs)
        for ours, usual in zip(arm.configs, variants[name].configs, strict=False):
            late = {"sigma_schedule": "second-half"} if name != "CE" else {}
            assert ours == usual.replace(keep_weights_every=10, **late)


def test_until_the_noise_starts_all_arms_are_one_training(smoke_study):
    found = smoke_study.runs_of(mechanism.late_arms(smoke_study))
    for name in ("gradient noise", "logit noise", "SLN"):
        for ours, plain in zip(found[name].runs, found["CE"].runs, strict=True):
            for epoch, same in ((1, True), (2, False)):
                weights = [run.network(epoch=epoch).state_dict()["conv1.weight"] for run in (ours, plain)]
                assert torch.equal(*weights) == same


def test_the_penalty_of_each_model_is_the_one_nearest_to_the_confidence_of_slns_average(smoke_study):
    arms = mechanism.less_sure_arms(smoke_study)
    assert {(c.model, len(arm.configs)) for arm in arms.values() for c in arm.configs} == {
        ("cnn", 2),
        ("frozen", 2),
    }
    for model in mechanism.MODELS:
        sure = smoke_study.runs_of(
            {
                beta: mechanism.Arm(
                    smoke_study.over_seeds(
                        "sym", 0.0, model=model, baseline="confidence-penalty", baseline_parameter=beta
                    ),
                    "momentum",
                )
                for beta in mechanism.STRENGTHS
            }
            | {"SLN": mechanism.Arm(arms[model, "SLN"].configs, "momentum")}
        )
        apart = {key: method.final("test_confidence").mean() for key, method in sure.items()}
        wanted = min(mechanism.STRENGTHS, key=lambda b: abs(apart[b] - apart["SLN"]))
        assert {c.baseline_parameter for c in arms[model, mechanism.PENALTY].configs} == {wanted}


def test_differences_are_paired_over_seeds_and_the_sentence_states_them(smoke_study):
    table = mechanism.less_sure(smoke_study)
    runs = smoke_study.runs_of(mechanism.less_sure_arms(smoke_study))
    for model in mechanism.MODELS:
        rows = table[table["model"] == model].set_index(["method", "quantity"])
        ours, plain = (runs[model, name].through("momentum") for name in ("SLN", mechanism.PENALTY))
        for column, quantity in mechanism.QUANTITIES.items():
            apart = 100 * (ours.final(column) - plain.final(column))
            row = rows.loc[("SLN-MO minus penalty-MO", quantity)]
            assert row["mean"] == pytest.approx(apart.mean())
            assert row["high"] - row["mean"] == pytest.approx(
                12.7062 * abs(apart[0] - apart[1]) / 2, rel=1e-4
            )
            assert row["seeds"] == 2
            sln = rows.loc[("SLN-MO", quantity)]
            assert sln["mean"] == pytest.approx(100 * ours.final(column).mean())
            assert sln["strength"] == ours.first.config.sigma
    assert len(mechanism.describe_less_sure(table).splitlines()) == 2


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(1.0, 3.0, "holds"), (-3.0, -1.0, "does not hold"), (-1.0, 1.0, "cannot be")]
)
def test_the_verdict_is_that_of_the_interval_over_the_penalty(low, high, verdict):
    names = ("SLN-MO", "penalty-MO", "CE-MO", "SLN minus CE", "SLN-MO minus CE-MO", "SLN-MO minus penalty-MO")
    table = pd.DataFrame(
        [
            {"model": "cnn", "method": name, "quantity": quantity, "mean": 50.0, "low": 40.0, "high": 60.0}
            for name in names
            for quantity in mechanism.QUANTITIES.values()
        ]
    ).assign(seeds=5)
    over = (table["method"] == names[-1]) & (table["quantity"] == "accuracy")
    table.loc[over, ["mean", "low", "high"]] = [np.mean([low, high]), low, high]
    text = mechanism.describe_less_sure(table)
    points = f"{np.mean([low, high]):+.1f} ({low:+.1f} to {high:+.1f})"
    assert f"SLN minus penalty: {points}, so SLN ahead of the penalty: {verdict}" in text
    assert "plain 50% right, 50% sure, 50% of the wrong labels memorised; penalty 50% right" in text
