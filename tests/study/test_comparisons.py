"""Comparisons of methods: same labels, seeds and budget, numbers that are the runs'."""

import pytest

from sln.config import BASELINES, Config
from sln.study import comparisons
from sln.study.statistics import Arm
from sln.study.study import VARIANTS, Study


def test_every_other_method_is_compared_and_its_grid_has_the_published_setting():
    assert set(comparisons.OTHERS.values()) == set(BASELINES) - {"none"}
    assert set(comparisons.GRIDS) == set(comparisons.OTHERS)
    for name, grid in comparisons.GRIDS.items():
        assert list(grid) == sorted(set(grid))
        for mode in ("sym", "asym", "dependent"):
            assert comparisons.published(name, mode) in grid


def test_published_settings_follow_the_noise():
    def settings(*noise):
        return {name: comparisons.published(name, *noise) for name in ("mixup", "SCE", "ELR", "SAM", "GCE")}

    assert settings("sym") == {"mixup": 32.0, "SCE": 0.01, "ELR": 3.0, "SAM": 0.1, "GCE": 0.7}
    assert settings("asym") == {"mixup": 8.0, "SCE": 0.01, "ELR": 1.0, "SAM": 0.1, "GCE": 0.7}
    assert settings("sym", 0.2)["mixup"] == 8.0
    assert settings("sym", 0.8, "cifar10") == {"mixup": 32.0, "SCE": 0.1, "ELR": 3.0, "SAM": 0.05, "GCE": 0.7}
    assert comparisons.published("Co-teaching", "asym", 0.4) == 0.2
    assert comparisons.published("Co-teaching", "dependent", 0.3) == 0.3


@pytest.mark.parametrize("name", sorted(set(comparisons.OTHERS) - {"Co-teaching"}))
def test_the_default_of_the_command_line_is_the_setting_published_for_symmetric_noise(name):
    default = Config(baseline=comparisons.OTHERS[name], sigma=0.0).baseline_parameter
    assert default == comparisons.published(name, "sym", 0.4)


def test_methods_are_compared_on_the_same_labels_seeds_and_epochs():
    study = Study("full", guesses=True)
    for mode in study.profile.comparison_modes:
        for tuned in (False, True):
            arms = comparisons.arms(study, mode, tuned=tuned)
            assert tuple(arms) == comparisons.NAMES
            for name, arm in arms.items():
                found = {(c.noise_mode, c.noise_rate, c.noise_seed, c.epochs, c.lr) for c in arm.configs}
                assert found == {(mode, 0.4, seed, 100, 0.02) for seed in range(5)}, name
                assert {c.seed for c in arm.configs} == set(range(5))
                assert all((c.sigma > 0) == ("SLN" in name) for c in arm.configs)
                assert all(c.corrects == name.endswith("LC") for c in arm.configs)


def test_every_choice_has_the_same_budget():
    study = Study("full", guesses=True)
    counts = set()
    for name in comparisons.OTHERS:
        study.candidates = []
        comparisons.best_setting(study, "sym", name)
        counts.add(len(study.candidates))
    study.candidates = []
    study.choose_sigma("sym")
    assert counts == {len(study.candidates)} == {8}


def test_a_choice_is_the_best_on_noisy_validation_labels(smoke_study):
    chosen = comparisons.best_setting(smoke_study, "sym", "GCE")
    scores = {}
    for setting in comparisons.GRIDS["GCE"]:
        method = smoke_study.runs_of({0: Arm(comparisons.other(smoke_study, "sym", "GCE", setting, 2))})[0]
        finals = [run.final("momentum")["validation_accuracy"] for run in method.runs]
        scores[setting] = sum(finals) / len(finals)
    assert scores[chosen] == pytest.approx(max(scores.values()))


def test_the_table_has_every_method_with_both_weights_and_its_numbers_are_the_runs(smoke_study):
    table = comparisons.table(smoke_study)
    assert set(table["method"]) == set(comparisons.NAMES)
    assert set(table["settings"]) == {"published", "tuned"}
    row = table[(table["method"] == "mixup") & (table["settings"] == "published")]
    runs = smoke_study.runs_of({0: Arm(comparisons.other(smoke_study, "sym", "mixup", None, 2))})[0].runs
    for weights in ("network", "momentum"):
        accuracies = [100 * run.final(weights)["test_accuracy"] for run in runs]
        found = row[row["weights"] == weights].iloc[0]
        assert found["mean"] == pytest.approx(sum(accuracies) / 2)
        assert found["std"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert row["setting"].tolist() == [1.0, 1.0]
    assert table[table["method"] == "CE"]["setting"].isna().all()


def test_gains_are_with_less_without(smoke_study):
    table = comparisons.table(smoke_study)
    gains = comparisons.gains(table)
    read = table[(table["weights"] == "momentum") & (table["settings"] == "published")]
    mean = read.set_index("method")["mean"]
    assert gains.loc[("sym", "published"), "CE"] == pytest.approx(mean["SLN"] - mean["CE"])
    expected = mean["Co-teaching + SLN"] - mean["Co-teaching"]
    assert gains.loc[("sym", "published"), "Co-teaching"] == pytest.approx(expected)
    assert "Co-teaching" in comparisons.describe_gains(gains)


def test_variants_differ_in_where_the_noise_enters_and_matched_ones_in_nothing_else(smoke_study):
    arms = smoke_study.variant_arms()
    entered = [arm.configs[0].noise_on for arm in arms.values()]
    assert entered == ["labels", "gradient", "logits", "labels"]  # of CE, whose sigma is 0, the default
    assert arms["CE"].configs[0].sigma == 0
    for name, arm in smoke_study.matched().items():
        for config, sln in zip(arm.configs, arms["SLN"].configs, strict=True):
            assert config == sln.replace(noise_on=VARIANTS[name], strength="matched")


def test_without_a_grid_of_strengths_the_variants_are_matched():
    study = Study("cifar10", guesses=True)
    arms = study.variant_arms()
    assert {arms[name].configs[0].strength for name in VARIANTS} == {"matched"}
