"""Comparisons and what goes beyond the paper: same labels, seeds and budget, numbers that are the runs'."""

import numpy as np
import pandas as pd
import pytest

from sln import plots
from sln.analysis import results
from sln.config import BASELINES
from sln.plots.style import Figure
from sln.study import ablations, comparisons, findings
from sln.study.profiles import PROFILES
from sln.study.study import VARIANTS, Arm, Study


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study's runs at smoke size, trained once for this module."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("comparisons")
        patch.setenv("SLN_RUNS", str(folder))
        patch.setenv("SLN_HEADLESS", "1")
        study = Study("smoke")
        comparisons.table(study)
        comparisons.strengths(study)
        study.variants()
        for make in (ablations.noise_rates, ablations.noise_for, ablations.schedules, ablations.class_counts):
            make(study)
        ablations.corrections(study)
    return folder


@pytest.fixture
def study(trained, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(trained))
    return Study("smoke")


def test_every_other_method_is_compared_and_its_grid_is_four_settings_with_the_published_one():
    assert set(comparisons.OTHERS.values()) == set(BASELINES) - {"none"}
    assert set(comparisons.GRIDS) == set(comparisons.OTHERS)
    for name, grid in comparisons.GRIDS.items():
        published, _ = BASELINES[comparisons.OTHERS[name]]
        assert len(grid) == len(PROFILES["quick"].sigma_choices) == 4
        assert (0.4 if published is None else published) in grid
        assert len(set(grid)) == 4


def test_methods_are_compared_on_the_same_labels_seeds_and_epochs():
    study = Study("full", guesses=True)
    for mode in study.profile.comparison_modes:
        for tuned in (False, True):
            arms = comparisons.arms(study, mode, tuned=tuned)
            assert tuple(arms) == comparisons.NAMES
            for name, arm in arms.items():
                told = {(c.noise_mode, c.noise_rate, c.noise_seed, c.epochs, c.lr) for c in arm.configs}
                assert told == {(mode, 0.4, seed, 100, 0.02) for seed in range(5)}, name
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


def test_a_choice_is_the_best_on_noisy_validation_labels(study):
    chosen = comparisons.best_setting(study, "sym", "GCE")
    scores = {}
    for setting in comparisons.GRIDS["GCE"]:
        reading = study.read({0: Arm(comparisons.other(study, "sym", "GCE", setting, 2))})[0]
        finals = [run.final("momentum")["validation_accuracy"] for run in reading.runs]
        scores[setting] = sum(finals) / len(finals)
    assert scores[chosen] == pytest.approx(max(scores.values()))


def test_the_table_has_every_method_twice_read_and_its_numbers_are_the_runs(study):
    table = comparisons.table(study)
    assert set(table["method"]) == set(comparisons.NAMES)
    assert set(table["settings"]) == {"published", "tuned"}
    row = table[(table["method"] == "mixup") & (table["settings"] == "published")]
    runs = study.read({0: Arm(comparisons.other(study, "sym", "mixup", None, 2))})[0].runs
    for weights in ("network", "momentum"):
        accuracies = [100 * run.final(weights)["test_accuracy"] for run in runs]
        found = row[row["weights"] == weights].iloc[0]
        assert found["mean"] == pytest.approx(sum(accuracies) / 2)
        assert found["std"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert row["setting"].tolist() == [1.0, 1.0]
    assert table[table["method"] == "CE"]["setting"].isna().all()


def test_gains_are_with_less_without(study):
    table = comparisons.table(study)
    gains = comparisons.gains(table)
    read = table[(table["weights"] == "momentum") & (table["settings"] == "published")]
    mean = read.set_index("method")["mean"]
    assert gains.loc[("sym", "published"), "CE"] == pytest.approx(mean["SLN"] - mean["CE"])
    expected = mean["Co-teaching + SLN"] - mean["Co-teaching"]
    assert gains.loc[("sym", "published"), "Co-teaching"] == pytest.approx(expected)
    assert "Co-teaching" in findings.gains(gains)


def test_variants_differ_in_where_the_noise_enters_and_matched_ones_in_nothing_else(study):
    arms = study.variant_arms()
    entered = [arm.configs[0].noise_on for arm in arms.values()]
    assert entered == ["labels", "gradient", "logits", "labels"]  # of CE, whose sigma is 0, the default
    assert arms["CE"].configs[0].sigma == 0
    for name, arm in study.matched().items():
        for config, sln in zip(arm.configs, arms["SLN"].configs, strict=True):
            assert config == sln.replace(noise_on=VARIANTS[name], strength="matched")


def test_without_a_grid_of_strengths_the_variants_are_matched():
    study = Study("cifar10", guesses=True)
    arms = study.variant_arms()
    assert {arms[name].configs[0].strength for name in VARIANTS} == {"matched"}


def test_beyond_the_paper_every_experiment_has_its_plain_control(study):
    rates = ablations.noise_rates(study)
    assert set(rates["rate"]) == {0.0, 0.4}
    assert set(rates["method"]) == {"CE", "CE-MO", "SLN", "SLN-MO"}
    where = ablations.noise_for(study)
    assert [*dict.fromkeys(where["noise_for"])] == [
        "no label (CE)",
        "right labels only",
        "wrong labels only",
        "all labels (SLN)",
    ]
    assert [*dict.fromkeys(ablations.schedules(study)["schedule"])] == ["constant", "falling"]
    corrections = ablations.corrections(study)
    assert set(corrections["losses"]) == {"none", "given", "as-released"}
    assert corrections["label_accuracy"].between(0, 100).all()


def test_class_counts_compare_the_same_noise_at_the_logits(study):
    table = ablations.class_counts(study)
    assert np.allclose(table["sigma"] * np.sqrt(table["classes"] - 1), table["when_sure"])
    assert (table.loc[table["when_sure"] == 0, ["gain", "gain_std"]] == 0).all(axis=None)
    plain = table[table["when_sure"] == 0].set_index("classes")["mean"]
    np.testing.assert_allclose(table["gain"], table["mean"] - table["classes"].map(plain))
    runs = study.read(ablations.class_arms(study))
    for (C, _), reading in runs.items():
        assert {run.data.num_classes for run in reading.runs} == {C}


def test_kinds_of_noise_are_judged_by_paired_differences(study):
    table = ablations.kinds_of_noise(study).set_index(["noise", "weights"])
    readings = study.readings("asym")
    gains = 100 * (readings["SLN"].final("test_accuracy") - readings["CE"].final("test_accuracy"))
    row = table.loc[("asym", "network")]
    assert row["gain"] == pytest.approx(gains.mean())
    assert row["error"] == pytest.approx(abs(gains[0] - gains[1]) / 2)
    wanted = "unclear" if abs(row["gain"]) <= 2 * row["error"] else "helps" if row["gain"] > 0 else "hurts"
    assert row["verdict"] == wanted


def test_a_profile_without_own_runs_shows_fulls_committed_table_and_says_so(
    study, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("SLN_FIGURES", str(tmp_path))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "08_schedules.csv").write_text("schedule,mean\nconstant,93.5\n")
    asked = []
    table = results.own_or_full(study, "08_schedules", asked.append, own=())
    assert table["mean"].tolist() == [93.5]
    assert asked == []
    assert "full" in capsys.readouterr().out
    made = results.own_or_full(study, "08_schedules", lambda of: pd.DataFrame({"of": [of.name]}), own=True)
    assert made["of"].tolist() == ["smoke"]


def test_a_table_that_full_does_not_have_is_said_in_one_line(study, refused):
    with refused("08_nothing.csv is missing", "PROFILE=full"):
        results.own_or_full(study, "08_nothing", ablations.schedules, own=False)


def test_every_picture_shows_its_table(study):
    table, rates = comparisons.table(study), ablations.noise_rates(study)
    strengths = comparisons.strengths(study)
    figures = [
        plots.comparisons.methods(table),
        plots.comparisons.gains(comparisons.gains(table)),
        plots.comparisons.strengths(strengths),
        plots.comparisons.one_variant(strengths, "SLN"),
        plots.comparisons.over_rates(rates),
        plots.comparisons.at_rate(rates, 0.4),
        plots.comparisons.kinds_of_noise(ablations.kinds_of_noise(study)),
        plots.comparisons.bars(ablations.noise_for(study), "noise_for"),
        plots.comparisons.corrections(ablations.corrections(study)),
        plots.comparisons.class_counts(ablations.class_counts(study)),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        assert len(figure._repr_png_()) > 5000
    # every method's mean is a dot at its place
    means = {round(x, 6) for c in figures[0].axes[0].collections for x, _ in c.get_offsets().tolist()}
    read = table[(table["weights"] == "network") & (table["noise"] == "sym")]
    assert {round(mean, 6) for mean in read["mean"]} <= means


def test_findings_name_what_the_tables_say():
    table = pd.DataFrame(
        {
            "noise_for": ["none", "none", "all", "all"],
            "weights": ["network", "momentum"] * 2,
            "mean": [50.0, 60.0, 80.0, 90.0],
            "std": [1.0] * 4,
            "memorised": [70.0, 65.0, 4.0, 3.0],
        }
    )
    told = findings.by_name(table, "noise_for")
    assert told.index("all 90.0 ± 1.0% (3%") < told.index("none 60.0 ± 1.0% (65%")
    rates = pd.DataFrame(
        [
            {"rate": 0.4, "method": m, "mean": v, "sigma": 1.0}
            for m, v in {"CE": 50, "CE-MO": 60, "SLN": 80, "SLN-MO": 93}.items()
        ]
    )
    assert "0.4: +33.0 (σ 1)" in findings.noise_rates(rates)
