"""Profiles and plans: which runs they consist of, what is left to do, and about how long that takes."""

import pytest

from sln import runs
from sln.cli import main
from sln.config import Config
from sln.reproduce.execute import reproduce
from sln.runs import parallel
from sln.study import plan
from sln.study.profiles import PROFILES
from sln.study.recipes import RECIPES
from sln.study.study import Study
from sln.utils.files import read_json, write_json


@pytest.mark.parametrize("profile", ["cifar10", "paper"])
def test_the_papers_profiles_train_its_recipes_over_five_seeds_and_nothing_twice(profile):
    planned = plan.planned(Study(profile, guesses=True))
    assert len(set(planned)) == len(planned)
    recipes = [r for r in RECIPES.values() if profile == "paper" or r.dataset == "cifar10"]
    assert {r.config(seed) for r in recipes for seed in range(5)} < set(planned)
    # beyond the tables, notebook 3 compares rules of correction, and others the variants of noise
    others = set(planned) - {r.config(seed) for r in recipes for seed in range(5)}
    assert {
        (c.correction, c.correction_losses, c.correction_weight, c.noise_on, c.strength) for c in others
    } == {
        (250, "given", "loss", "labels", "fixed"),
        *((250, "as-released", rule, "labels", "fixed") for rule in ("reversed", "none", "mixture")),
        (-1, "given", "loss", "gradient", "matched"),
        (-1, "given", "loss", "logits", "matched"),
    }
    assert {c.noise_mode for c in others} == {"sym"}
    assert len(others) == 30


def test_what_the_notebooks_ask_for_are_the_recipes_own_runs():
    study = Study("cifar10", guesses=True)
    planned = set(plan.planned(study))
    for mode, sigma in (("sym", 1.0), ("asym", 0.5), ("dependent", 0.5), ("openset", 0.5)):
        assert study.choose_sigma(mode) == sigma
        for seed in study.seeds:
            assert study.config(mode, 0.0, seed) in planned
            assert study.config(mode, sigma, seed) in planned
            corrected = study.config(mode, sigma, seed, correction=250, correction_losses="as-released")
            assert corrected in planned


@pytest.mark.parametrize("profile", ["smoke", "quick", "full", "mini"])
def test_every_profile_trains_its_kinds_of_noise(profile):
    study = Study(profile, guesses=True)
    planned = plan.planned(study)
    modes = {config.noise_mode for config in planned}
    assert modes == set(study.profile.noise_modes)
    for mode in modes:
        of = [config for config in planned if config.noise_mode == mode]
        assert {c.seed for c in of if c.sigma == 0} == set(study.seeds)
        assert {c.seed for c in of if c.corrects} == set(study.seeds)
        assert {c.sigma for c in of} >= {0.0, *study.profile.sigma_choices}
    # where a corrected run starts, its uncorrected one keeps its state (`Study.trained`)
    assert {c.correction for c in planned if c.corrects} == {study.profile.correction}
    assert all(c.uncorrected in planned for c in planned if c.corrects)


def test_a_study_of_label_files_has_one_corruption_and_of_drawn_labels_one_a_seed():
    mini, quick = Study("mini"), Study("quick")
    assert [mini.config("sym", seed=seed).noise_seed for seed in (0, 2)] == [0, 0]
    assert [quick.config("sym", seed=seed).noise_seed for seed in (0, 2)] == [0, 2]
    assert [Study("cifar10").config("openset", seed=seed).noise_seed for seed in (0, 2)] == [0, 2]
    assert mini.config("sym").labels == "released"
    assert mini.profile.base["held_out"] > 0  # sigma is chosen on noisy validation labels


def test_a_dry_run_prints_the_plan_and_does_nothing_else(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SLN_WORKERS", "2")
    assert main(["reproduce", "--profile", "smoke", "--dry-run"]) == 0
    text = capsys.readouterr().out
    study = Study("smoke", guesses=True)
    assert f"{len(plan.planned(study))} runs, 0 of them trained already" in text
    assert "with 2 at once on cpu" in text
    assert "digits-asym0.4-sln0.5-lc1 " in text
    assert not list(runs.runs_folder().glob("*/config.json"))


def test_the_plan_counts_what_is_there_and_what_a_fork_saves(monkeypatch):
    monkeypatch.setattr(plan, "trained_seconds", dict)
    monkeypatch.setattr(plan, "seconds_an_epoch", lambda config: 36.0)
    study = Study("smoke", guesses=True)
    first = study.config("sym", 0.0, 0)
    runs.get(first, quiet=True)
    table = plan.plan(study).set_index("run")
    assert table["runs"].sum() == len(plan.planned(study))
    assert table["found"].sum() == 1
    row = table.loc["digits-sym0.4-ce"]
    # two seeds each: as usual, with weights kept, of the linear model, at the second choice's two step sizes
    assert (row["runs"], row["found"], row["to_train"], row["epochs"]) == (10, 1, 9, 27)
    assert row["hours"] == pytest.approx(27 * 0.01)
    corrected = table.loc["digits-asym0.4-sln0.5-lc1"]
    # two seeds, two rules of correction; one of three epochs comes from the fork
    assert corrected["epochs"] == 2 * 2 * 2
    text = plan.describe(table.reset_index(), 1)
    assert f"{table['epochs'].sum()} epochs to train" in text


SMALL = Config(
    dataset="cifar10", model="wrn-10-1", downsample=4, subset=100, test_subset=10, batch_size=8, threads=1
)


def test_an_epochs_time_is_estimated_from_a_few_steps_and_grows_with_the_data():
    assert plan.seconds_an_epoch(Config()) > 0
    twice = SMALL.replace(subset=200, test_subset=20, seed=3)
    assert plan.seconds_an_epoch(twice) == pytest.approx(2 * plan.seconds_an_epoch(SMALL))  # one calibration


def test_an_epochs_time_is_taken_from_finished_runs_of_the_same_data_and_model(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "seconds_an_epoch", lambda config: pytest.fail("a calibration"))
    study = Study("smoke", guesses=True)
    run = runs.get(study.config("sym", 0.0), quiet=True)
    (config,) = [c for c in plan.planned(study) if c == study.config("sym", 0.5, seed=1)]
    monkeypatch.setattr(plan, "planned", lambda study: [config])
    hours = plan.plan(study)["hours"].tolist()
    assert hours == pytest.approx([config.epochs * run.history["seconds"].median() / 3600])


def test_times_of_another_kind_of_device_do_not_count():
    run = runs.get(Config(epochs=1), quiet=True)
    assert len(plan.trained_seconds()) == 1
    versions = read_json(run.folder / "versions.json")
    write_json(run.folder / "versions.json", versions | {"device": "NVIDIA H100"})
    assert plan.trained_seconds() == {}


def test_clothing1m_is_not_estimated_before_a_run_is_trained(monkeypatch):
    config = Config(dataset="clothing1m", model="resnet18")
    monkeypatch.setattr(plan, "planned", lambda study: [config, config.replace(seed=1)])
    text = plan.describe(plan.plan(Study("paper", guesses=True)), 1)
    assert "2 runs of Clothing1M come on top, unknown until one is trained" in text


def test_the_papers_profile_prints_its_plan_then_trains_then_runs_the_notebooks(
    monkeypatch, capsys, tmp_path
):
    happened = []
    monkeypatch.setattr(plan, "seconds_an_epoch", lambda config: 1.0)
    monkeypatch.setattr("sln.reproduce.execute.require_data", lambda study: happened.append("data"))
    trained = lambda configs, what, **_: happened.append((len(configs), what))  # noqa: E731
    monkeypatch.setattr(parallel, "get_all", trained)
    monkeypatch.setattr(
        "sln.reproduce.execute.run_notebook", lambda *_, **__: happened.append("notebook") or stop()
    )
    monkeypatch.setenv("SLN_WORKERS", "1")  # in this process

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce("cifar10", build=tmp_path)
    assert happened == ["data", (90, "cifar10: all runs"), "notebook"]
    assert "90 runs, 0 of them trained already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("profile", "there", "lacks"),
    [
        ("mini", (), "data get cifar10"),
        ("mini", ("cifar10",), "data get sln-labels"),
        ("mini", ("cifar10", "sln-labels"), "data get cifar-n"),
        ("cifar10", ("cifar10", "sln-labels"), "data get cifar100"),
        ("paper", ("cifar10", "sln-labels", "cifar100"), "Clothing1M is incomplete"),
    ],
)
def test_missing_data_is_found_before_anything_trains(profile, there, lacks, monkeypatch, tmp_path, refused):
    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(plan.download, "present", lambda name: name in there)
    monkeypatch.setattr(parallel, "get_all", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr("sln.reproduce.execute.run_notebook", lambda *_, **__: pytest.fail("ran a notebook"))
    monkeypatch.setattr(plan, "seconds_an_epoch", lambda config: 1.0)
    with refused(lacks):
        reproduce(profile, build=tmp_path)


def test_quick_needs_no_data():
    plan.require_data(Study("quick", guesses=True))


def test_runs_at_once_share_the_processors(monkeypatch):
    monkeypatch.setenv("SLN_DEVICE", "cpu")
    monkeypatch.setattr(parallel, "processors", lambda: 4)
    monkeypatch.setenv("SLN_WORKERS", "3")
    assert plan.parallel_runs([Config()]) == 3
    assert plan.parallel_runs([Config(dataset="cifar10", threads=2)]) == 2
    assert plan.parallel_runs([Config(dataset="cifar10", threads=16)]) == 1


def test_the_calibration_leaves_the_runs_own_random_numbers_alone(monkeypatch):
    config = Config(epochs=1)
    before = runs.get(config, quiet=True).history.drop(columns="seconds")
    runs.remove(config.run_id)
    plan.seconds_an_epoch(config)
    assert runs.get(config, quiet=True).history.drop(columns="seconds").equals(before)


def test_profiles_name_the_settings_of_a_config():
    for profile in PROFILES.values():
        Config.from_dict(profile.base)
