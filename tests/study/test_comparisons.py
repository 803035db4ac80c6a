"""Comparisons of methods: same labels, seeds and budget, numbers that are the runs'."""

import pandas as pd
import pytest

from sln.config import BASELINES, Config
from sln.study import comparisons
from sln.study.statistics import Arm
from sln.study.study import VARIANTS, Study


def test_every_method_has_a_grid_with_its_published_setting():
    assert set(comparisons.OTHERS.values()) == set(BASELINES) - {"none"}
    assert set(comparisons.GRIDS) == {"CE", "SLN", *comparisons.OTHERS}
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


METHODS = {*comparisons.GRIDS, "Co-teaching + SLN", "SLN + LC"}


def test_methods_are_compared_on_the_same_images_labels_seeds_and_epochs():
    study = Study("full", guesses=True)
    for mode in study.profile.comparison_modes:
        for tuned in (False, True):
            arms = comparisons.arms(study, mode, tuned=tuned)
            assert set(arms) == METHODS if tuned else METHODS | {comparisons.MATCHED}
            for name, arm in arms.items():
                found = [(c.noise_mode, c.noise_rate, c.noise_seed, c.fold, c.seed) for c in arm.configs]
                assert found == [(mode, 0.4, seed, seed, seed) for seed in range(5)], name
                assert {(c.epochs, c.lr, c.alpha) for c in arm.configs} == {(100, 0.02, 0.99)}
                assert all((c.sigma > 0) == ("SLN" in name) for c in arm.configs)
                assert all(c.corrects == name.endswith("LC") for c in arm.configs)


def test_both_stages_try_every_candidate_for_every_method_on_the_same_seeds():
    study = Study("full", guesses=True)
    for name, grid in comparisons.GRIDS.items():
        first = comparisons.settings_tried(study, "sym", name)
        assert [key[0] for key in first] == list(grid)
        assert {len(arm.configs) for arm in first.values()} == {3}
        second = comparisons.steps_tried(study, "sym", name, grid[-1])
        assert {key[1:] for key in second} == {
            (lr, alpha) for lr in (0.005, 0.02) for alpha in (0.97, 0.99, 0.997)
        }
        assert next(iter(second))[1:] == (0.02, 0.99)  # of equals, and in a plan, the study's own
        for (_, lr, alpha), arm in second.items():
            assert [c.seed for c in arm.configs] == [0, 1, 2, 3, 4]
            assert all(c.lr == lr for c in arm.configs)
            assert arm.weights == ("momentum" if alpha == 0.99 else f"momentum {alpha:g}")


def test_a_plan_counts_the_runs_of_later_choices_but_does_not_train_them_at_a_guess():
    study = Study("smoke", guesses=True)
    comparisons.choose(study, "sym", "GCE")
    assert {c.lr for c in study.candidates} == {0.02}
    assert {c.lr for c in study.dependent} == {0.005, 0.02}
    assert len(dict.fromkeys(study.dependent)) == 2 * study.profile.comparison_seeds


def test_a_choice_is_the_best_on_noisy_validation_labels(smoke_study):
    (setting, *_), (same, lr, alpha) = comparisons.choose(smoke_study, "sym", "GCE")
    assert same == setting

    def score(configs, weights):
        runs = smoke_study.runs_of({0: Arm(configs)})[0].runs
        return sum(run.final(weights)["validation_accuracy"] for run in runs) / len(runs)

    tried = {s: comparisons.configs(smoke_study, "sym", "GCE", s, 2) for s in comparisons.GRIDS["GCE"]}
    scores = {s: score(configs, "momentum") for s, configs in tried.items()}
    assert scores[setting] == pytest.approx(max(scores.values()))
    scores = {
        key: score(arm.configs, arm.weights)
        for key, arm in comparisons.steps_tried(smoke_study, "sym", "GCE", setting).items()
    }
    assert scores[setting, lr, alpha] == pytest.approx(max(scores.values()))


def test_the_table_of_choices_has_every_candidate_and_one_choice_a_stage(smoke_study):
    choices = comparisons.choices(smoke_study)
    tried = sum(len(grid) for grid in comparisons.GRIDS.values()) + 6 * len(comparisons.GRIDS)
    assert len(choices) == tried
    assert (choices.groupby(["noise", "method", "stage"])["chosen"].sum() == 1).all()
    chosen = choices[choices["chosen"]].set_index(["method", "stage"])
    best = choices.groupby(["method", "stage"])["score"].max()
    assert chosen["score"].sort_index().tolist() == pytest.approx(best.sort_index().tolist())
    free = {"CE": {0.0}, "forward correction": {0.0}, "GCE": {1.0}, "label smoothing": {0.9}}
    for (name, stage), row in chosen.iterrows():
        ends = {comparisons.GRIDS[name][0], comparisons.GRIDS[name][-1]} - free.get(name, set())
        assert row["at_edge"] == (stage == 1 and row["setting"] in ends), name
    words = comparisons.describe_choices(choices)
    gridded = sum(len(grid) > 1 for grid in comparisons.GRIDS.values())
    assert words.startswith(f"Of {gridded} settings")
    assert words.count("(") == choices["at_edge"].sum()


def test_the_matched_penalty_has_the_confidence_nearest_to_slns(smoke_study):
    sln = comparisons.arms(smoke_study, "sym")["SLN"]
    matched = comparisons.matched_penalty(smoke_study, "sym", sln).configs[0].baseline_parameter

    def confidence(configs):
        runs = smoke_study.runs_of({0: Arm(configs)})[0].runs
        return sum(run.final("momentum")["test_confidence"] for run in runs) / len(runs)

    wanted = confidence(sln.configs)
    gaps = {
        beta: abs(confidence(comparisons.configs(smoke_study, "sym", "confidence penalty", beta, 2)) - wanted)
        for beta in comparisons.GRIDS["confidence penalty"]
    }
    assert gaps[matched] == pytest.approx(min(gaps.values()))


def test_the_table_has_every_method_with_both_weights_and_its_numbers_are_the_runs(smoke_study):
    table = comparisons.table(smoke_study)
    assert set(table["method"]) == METHODS | {comparisons.MATCHED}
    assert set(table["settings"]) == {"published", "tuned"}
    read = table[table["settings"] == "published"].set_index(["method", "weights"])
    mixup, sln = (
        smoke_study.runs_of({0: Arm(comparisons.configs(smoke_study, "sym", name, setting, 2))})[0].runs
        for name, setting in (("mixup", 32.0), ("SLN", 1.0))
    )
    for weights in ("network", "momentum"):
        accuracies, slns = (
            [100 * run.final(weights)["test_accuracy"] for run in runs] for runs in (mixup, sln)
        )
        row = read.loc["mixup", weights]
        assert row["mean"] == pytest.approx(sum(accuracies) / 2)
        assert row["std"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
        assert row["high"] - row["mean"] == pytest.approx(12.7062047 * row["std"] / 2**0.5)
        assert row["difference"] == pytest.approx((sum(accuracies) - sum(slns)) / 2)
        assert (row["setting"], row["lr"], row["alpha"]) == (32.0, 0.02, 0.99)
    assert read["setting"].isna().groupby("method").all().pipe(lambda s: set(s[s].index)) == {
        "CE",
        "forward correction",
    }
    twice = table[table["gradients"] == 2]["method"]
    assert set(twice) == {"SAM", "Co-teaching", "Co-teaching + SLN"}
    assert set(table[table["beside_sln"] == "itself"]["method"]) == {"SLN"}


def a_table(**differences):
    """`comparisons.table` of SLN and other methods, from their differences and what these say."""
    rows = [("SLN", 0.0, "itself"), *((name, *rest) for name, rest in differences.items())]
    table = pd.DataFrame(rows, columns=["method", "difference", "beside_sln"])
    table[["noise", "settings", "weights", "seeds"]] = ["sym", "tuned", "momentum", 5]
    table[["mean", "low", "high"]] = [93.0, 91.5, 94.5]
    return table


def test_methods_are_described_by_what_the_intervals_tell():
    untold = "cannot be told with 5 seeds"
    table = a_table(GCE=(-4.0, "behind"), mixup=(2.0, "ahead"), ELR=(0.5, untold), SAM=(-9.0, "behind"))
    words = comparisons.describe_methods(table, "tuned")
    assert words == (
        "symmetric, tuned settings: SLN-MO 93.0% [91.5, 94.5]. In points beside it, momentum models: it is "
        "ahead of GCE (-4.0), SAM (-9.0); behind mixup (+2.0); no clear difference, with 5 "
        "seeds, from ELR (+0.5)."
    )
    assert "behind none" in comparisons.describe_methods(a_table(GCE=(-4.0, "behind")), "tuned")


def test_gains_are_with_minus_without(smoke_study):
    gains = comparisons.gains(smoke_study)
    read = comparisons.table(smoke_study).query("weights == 'momentum'")
    mean = read.set_index(["settings", "method"])["mean"]
    for row in gains.itertuples():
        without, with_it = comparisons.GAINS[row.gain]
        assert row.mean == pytest.approx(mean[row.settings, with_it] - mean[row.settings, without])
        assert row.low <= row.mean <= row.high
    assert len(gains) == 6
    words = comparisons.describe_gains(gains)
    assert words.count("SLN on top of Co-teaching") == len(words.splitlines()) == 2


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


def test_what_variants_add_is_paired_over_the_seeds_that_both_have(smoke_study):
    best = smoke_study.variants("sym")
    one = {"best strength": best | {"gradient noise": best["gradient noise"].first_seeds(1)}}
    table = comparisons.variant_gains(one).set_index(["weights", "difference"])
    assert set(table["seeds"]) == {1, 2}
    row = table.loc[("momentum", "SLN minus logit noise")]
    ours, theirs = (best[name].through("momentum").final("test_accuracy") for name in ("SLN", "logit noise"))
    assert row["mean"] == pytest.approx(100 * (ours - theirs).mean())
    alone = table.loc[("network", "gradient noise minus CE")]
    assert alone["verdict"] == "cannot be told with 1 seed"
    assert alone["mean"] == pytest.approx(
        100 * (best["gradient noise"].final("test_accuracy")[0] - best["CE"].final("test_accuracy")[0])
    )
