"""Ablations: every experiment has its control, and sentences state the tables' numbers."""

import numpy as np
import pandas as pd
import pytest

from sln.study import ablations


def test_beyond_the_paper_every_experiment_has_its_plain_control(smoke_study):
    rates = ablations.noise_rates(smoke_study)
    assert set(rates["rate"]) == {0.0, 0.4}
    assert set(rates["method"]) == {"CE", "CE-MO", "SLN", "SLN-MO"}
    where = ablations.noise_for(smoke_study)
    assert [*dict.fromkeys(where["noise_for"])] == [
        "no label (CE)",
        "right labels only",
        "wrong labels only",
        "all labels (SLN)",
    ]
    assert [*dict.fromkeys(ablations.schedules(smoke_study)["schedule"])] == ["constant", "falling"]
    corrections = ablations.corrections(smoke_study)
    assert set(corrections["losses"]) == {"none", "given", "as-released"}
    assert corrections["label_accuracy"].between(0, 100).all()


def test_the_clean_price_is_that_of_training_without_a_wrong_label(smoke_study):
    arms = ablations.clean_price_arms(smoke_study)
    runs = smoke_study.runs_of(arms)
    assert not any(run.data.train.wrong.any() for method in runs.values() for run in method.runs)
    assert runs["SLN"].first.config.sigma == smoke_study.choose_sigma("sym")
    table = ablations.clean_price(smoke_study)
    mean = table.pivot(index="method", columns="quantity", values="mean")
    assert mean.loc["CE", "accuracy"] == pytest.approx(runs["CE"].final("test_accuracy").mean())
    np.testing.assert_allclose(mean.loc["SLN minus CE"], mean.loc["SLN"] - mean.loc["CE"])
    row = table.query("method == 'SLN-MO minus CE-MO' and quantity == 'calibration error'").iloc[0]
    wanted = f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    assert f"SLN-MO minus CE-MO, calibration error {wanted}" in ablations.describe_clean_price(table)


def test_class_counts_compare_the_same_noise_at_the_logits(smoke_study):
    table = ablations.class_counts(smoke_study)
    assert np.allclose(table["sigma"] * np.sqrt(table["classes"] - 1), table["when_sure"])
    assert (table.loc[table["when_sure"] == 0, ["gain", "low", "high"]] == 0).all(axis=None)
    plain = table[table["when_sure"] == 0].set_index("classes")["mean"]
    np.testing.assert_allclose(table["gain"], table["mean"] - table["classes"].map(plain))
    runs = smoke_study.runs_of(ablations.class_arms(smoke_study))
    for (C, _), method in runs.items():
        assert {run.data.num_classes for run in method.runs} == {C}


def test_kinds_of_noise_are_judged_by_paired_differences(smoke_study):
    table = ablations.kinds_of_noise(smoke_study).set_index(["noise", "weights"])
    methods = smoke_study.methods("asym")
    gains = 100 * (methods["SLN"].final("test_accuracy") - methods["CE"].final("test_accuracy"))
    row = table.loc[("asym", "network")]
    assert row["gain"] == pytest.approx(gains.mean())
    assert row["high"] - row["gain"] == pytest.approx(12.7062 * abs(gains[0] - gains[1]) / 2, rel=1e-4)


def test_sentences_state_the_numbers_of_the_tables():
    table = pd.DataFrame(
        {
            "noise_for": ["none", "none", "all", "all"],
            "weights": ["network", "momentum"] * 2,
            "mean": [50.0, 60.0, 80.0, 90.0],
            "std": [1.0] * 4,
            "memorised": [70.0, 65.0, 4.0, 3.0],
        }
    )
    text = ablations.describe_ranking(table, "noise_for")
    assert text.index("all 90.0 ± 1.0% (3%") < text.index("none 60.0 ± 1.0% (65%")
    rates = pd.DataFrame(
        [
            {"rate": 0.4, "method": m, "mean": v, "sigma": 1.0}
            for m, v in {"CE": 50, "CE-MO": 60, "SLN": 80, "SLN-MO": 93}.items()
        ]
    )
    assert "0.4: +33.0 (σ 1)" in ablations.describe_noise_rates(rates)
