"""Ablations: every experiment has its control, and sentences state the tables' numbers."""

import numpy as np
import pandas as pd
import pytest

from sln.study import ablations
from sln.study.statistics import Arm
from sln.study.study import Study


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
    wanted = f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
    assert f"SLN-MO minus CE-MO, calibration error {wanted}" in ablations.describe_clean_price(table)


def test_class_counts_are_compared_on_letters_with_no_noise_as_the_reference(smoke_study):
    table = ablations.class_counts(smoke_study)
    assert np.allclose(table["sigma"] * np.sqrt(table["classes"] - 1), table["when_sure"])
    none = table["sigma"] == 0
    assert (table.loc[none, ["gain", "gain_low", "gain_high"]] == 0).all(axis=None)
    plain = table[none].set_index("classes")["mean"]
    np.testing.assert_allclose(table["gain"], table["mean"] - table["classes"].map(plain))
    runs = smoke_study.runs_of(ablations.class_arms(smoke_study))
    for (C, _), method in runs.items():
        assert {(run.config.dataset, run.data.num_classes) for run in method.runs} == {("letters", C)}
    best = ablations.best_sigmas(smoke_study)
    for row in best.itertuples():
        accuracy = {
            sigma: m.final("test_accuracy")[row.seed] for (C, sigma), m in runs.items() if row.classes == C
        }
        del accuracy[0.0]
        assert accuracy[row.sigma] == max(accuracy.values())


@pytest.mark.parametrize(
    ("exponent", "words"),
    [(-1, "−1 is in the interval"), (0, "does not depend"), (-0.4, "but not as"), (0.7, "does not fall")],
)
def test_the_slope_over_class_counts_decides_between_two_hypotheses(exponent, words):
    rows = [
        {"classes": C, "seed": seed, "sigma": (1 + 0.01 * seed) * (C - 1) ** (exponent / 2)}
        for C in (2, 5, 10, 26)
        for seed in range(5)
    ]
    text = ablations.describe_class_counts(pd.DataFrame(rows))
    assert f"in logarithms, is {exponent:+.2f}" in text.replace("is -0.00", "is +0.00")
    assert words in text


def test_kinds_of_noise_are_judged_by_paired_differences(smoke_study):
    table = ablations.kinds_of_noise(smoke_study).set_index(["noise", "weights"])
    methods = smoke_study.methods("asym")
    gains = 100 * (methods["SLN"].final("test_accuracy") - methods["CE"].final("test_accuracy"))
    row = table.loc[("asym", "network")]
    assert row["gain"] == pytest.approx(gains.mean())
    assert row["gain_high"] - row["gain"] == pytest.approx(12.7062 * abs(gains[0] - gains[1]) / 2, rel=1e-4)


def test_differences_to_a_reference_are_paired_within_the_same_weights(smoke_study):
    found = smoke_study.runs_of(ablations.noise_for_arms(smoke_study))
    table = ablations.noise_for(smoke_study).set_index(["noise_for", "weights"])
    for (name, weights), row in table.iterrows():
        one, all_ = (found[n].through(weights).final("test_accuracy") for n in (name, ablations.ALL))
        assert row["gain"] == pytest.approx(100 * (one - all_).mean())


def test_the_number_of_images_counts_those_that_are_trained_on():
    study = Study("mini", guesses=True)
    arms = ablations.image_arms(study)
    for (images, method), arm in arms.items():
        assert len(arm.configs) == study.profile.image_seeds
        for config in arm.configs:
            assert images == config.subset - round(config.held_out * config.subset)
            assert (config.sigma > 0) == method.startswith("SLN")
            assert config.replace(subset=5000) in study.over_seeds("sym", config.sigma)


def test_the_table_of_image_counts_is_written_from_its_runs(smoke_study, monkeypatch):
    runs = smoke_study.methods("sym")
    arms = {(4000, name): Arm([run.config for run in m.runs], m.weights) for name, m in runs.items()}
    arms.pop((4000, "SLN-MO-LC"))
    monkeypatch.setattr(ablations, "image_arms", lambda study: arms)
    table = ablations.image_counts(smoke_study).set_index("method")
    gains = 100 * (runs["SLN-MO"].final("test_accuracy") - runs["CE-MO"].early("test_accuracy"))
    assert table.loc["SLN-MO", "over_early"] == pytest.approx(gains.mean())
    assert table.loc["CE", "memorised"] == pytest.approx(100 * runs["CE"].final("wrong_memorised").mean())


def test_sentences_state_the_numbers_of_the_tables():
    gains = {"gain": [0.0, -30.0, -1, 2], "gain_low": [0.0, -33.0, -3, 1], "gain_high": [0.0, -27.0, 1, 3]}
    shares = {"mean": [90.0, 60.0, 89.0, 92.0], "memorised": [3.0, 65.0, 4.0, 2.0], "seeds": 5}
    table = pd.DataFrame(
        {"noise_for": ["all", "none", "some", "more"], "weights": "momentum"} | shares | gains
    )
    text = ablations.describe_against(table, "noise_for", "all")
    assert "against all (90.0%, 3% of the wrong labels memorised)" in text
    assert "none -30.0 (-33.0 to -27.0) (65% memorised)" in text
    assert text.endswith(
        "So, beside all, over 5 seeds: ahead with more (+2.0 points); behind with none (-30.0 points); "
        "no clear difference with some (-1.0 points)."
    )


def leads(name, means, half, **columns):
    """A table with a row per mean of the difference `name`, and an interval of ± `half`."""
    means = np.array(means)
    ends = {name: means, f"{name}_low": means - half, f"{name}_high": means + half}
    return pd.DataFrame({"method": "SLN-MO"} | columns | ends)


def test_a_conclusion_names_a_side_only_where_the_interval_excludes_zero():
    rates = leads("gain", [0.5, 16.0, 45.0, -3.0], 1.0, rate=[0.0, 0.2, 0.6, 0.9])
    rates = rates.join(leads("over_early", [2.0] * 4, 3.0).drop(columns="method"))
    text = ablations.describe_noise_rates(rates)
    assert "ahead with 0.2, 0.6 (+16.0 to +45.0 points); behind with 0.9 (-3.0 points); " in text
    assert "no clear difference with 0 (+0.5 points). Beside CE-MO stopped early" in text
    assert text.endswith("labels: no clear difference with 0, 0.2, 0.6, 0.9 (+2.0 points).")


def test_single_runs_conclude_nothing_about_the_number_of_images():
    table = leads("over_early", [8.9, 1.6, -2.0], np.inf, images=[2000, 4000, 10_000], seeds=1)
    text = ablations.describe_image_counts(table)
    assert "falls at every step, from +8.9 points with 2,000 images to -2.0 with 10,000." in text
    assert text.endswith("all of this may be chance.")
    table = leads("over_early", [8.9, 9.6], 1.0, images=[2000, 4000], seeds=3)
    text = ablations.describe_image_counts(table)
    assert "does not fall at every step" in text
    assert "ahead with 2,000, 4,000 (+8.9 to +9.6 points)" in text


def test_both_rules_of_correction_are_compared_seed_by_seed(smoke_study):
    table = ablations.corrections(smoke_study).set_index(["noise", "losses"])
    runs = smoke_study.runs_of(ablations.correction_arms(smoke_study))
    one, other = (runs["asym", rule].final("test_accuracy") for rule in ("as-released", "given"))
    assert table.loc[("asym", "as-released"), "over_clean"] == pytest.approx(100 * (one - other).mean())
    assert (table["label_low"] <= table["label_accuracy"]).all()
    assert (table["label_accuracy"] <= table["label_high"]).all()


def test_best_sigmas_are_averaged_over_seeds_as_geometric_means():
    best = pd.DataFrame({"classes": [2, 2, 5, 5], "seed": [0, 1, 0, 1], "sigma": [2.0, 8.0, 1.0, 1.0]})
    two, five = ablations.best_by_classes(best).to_dict("records")
    assert two["sigma"] == two["when_sure"] == pytest.approx(4)
    assert two["sigma_low"] * two["sigma_high"] == pytest.approx(16)
    assert (five["sigma_low"], five["sigma_high"], five["when_sure"]) == (1, 1, 2)
