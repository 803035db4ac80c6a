"""Sweeps: all runs of a profile, each once, whatever happens to some of them."""

import json
import sys

import pytest

from sln import runs
from sln.cli import main
from sln.runs import store
from sln.study.plan import planned
from sln.study.profiles import PROFILES, Profile
from sln.study.study import Study


@pytest.fixture
def tiny(monkeypatch):
    """A profile of few, short runs, in which sigma is chosen."""
    profile = Profile(
        about="for tests",
        base={"epochs": 2},
        seeds=2,
        noise_modes=("sym",),
        sigma_choices=(0.5, 1.0),
        choice_seeds=1,
        sigma_curve=(0.0,),
        correction=1,
        alphas=(),
        asserts=False,
    )
    monkeypatch.setitem(PROFILES, "tiny", profile)
    monkeypatch.setenv("SLN_WORKERS", "1")  # two train the same: tests/runs/test_parallel.py
    return "tiny"


def started():
    """When each run was begun from the start; nothing that is resumed or found changes that."""
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.runs_folder().glob("*/versions.json")}


# --- what is trained


def test_a_sweep_trains_what_the_study_asks_for_and_asking_again_trains_nothing(tiny, capsys):
    assert main(["sweep", tiny]) == 0
    asked = planned(Study(tiny))  # which chooses, and so needs the candidates
    before = started()
    assert set(before) == {config.run_id for config in asked}
    assert all(runs.find(config) is not None for config in asked)
    assert {config.seed for config in asked} == {0, 1}
    out, err = capsys.readouterr()
    left = len(asked) - 2  # two candidates came before
    assert f"tiny: {len(asked)} runs, {len(asked)} of them trained now" in out
    assert "tiny: candidates: 2/2 runs (" in err
    assert err.splitlines()[-1].startswith(f"tiny: {left}/{left} runs (")
    assert main(["sweep", tiny]) == 0
    assert f"tiny: {len(asked)} runs, 0 of them trained now" in capsys.readouterr().out
    assert started() == before
    assert not list(runs.runs_folder().glob(".sweep*"))


def test_seeds_are_those_asked_for_but_settings_are_chosen_as_in_the_profile(tiny):
    study = Study(tiny, seeds=1)
    assert {config.seed for config in planned(Study(tiny, guesses=True, seeds=3))} == {0, 1, 2}
    assert study.profile.choice_seeds == PROFILES[tiny].choice_seeds
    assert Study("full", seeds=1).profile.comparison_seeds == 1
    assert Study("full", seeds=9).profile.comparison_seeds == PROFILES["full"].comparison_seeds


def test_a_failing_run_is_named_and_the_others_are_trained(tiny, capsys):
    bad = Study(tiny).config("sym", 0.0, 1)
    store.folder(bad).mkdir(parents=True)
    (store.folder(bad) / "config.json").write_text(json.dumps(bad.replace(lr=0.5).to_dict()))
    assert main(["sweep", tiny]) == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("sln: ")]
    assert line.startswith(f"sln: {bad.run_id} failed: ")
    assert "another configuration" in line
    assert "1 failed" in out
    others = [config for config in planned(Study(tiny, guesses=True)) if config != bad]
    assert [runs.find(config) is not None for config in others] == [True] * len(others)
    runs.remove(bad.run_id)
    assert main(["sweep", tiny]) == 0
    assert ", 1 of them trained now" in capsys.readouterr().out


def test_nothing_is_chosen_from_candidates_of_which_one_failed(tiny, capsys):
    bad = Study(tiny).config("sym", 0.5, 0)
    store.folder(bad).mkdir(parents=True)
    (store.folder(bad) / "config.json").write_text(json.dumps(bad.replace(lr=0.5).to_dict()))
    assert main(["sweep", tiny]) == 1
    assert f"sln: {bad.run_id} failed: " in capsys.readouterr().err
    assert set(started()) == {Study(tiny).config("sym", 1.0, 0).run_id}


def test_a_dry_run_trains_nothing(tiny, capsys):
    assert main(["sweep", tiny, "--seeds", "3", "--dry-run"]) == 0
    asked = planned(Study(tiny, guesses=True, seeds=3))
    assert f"{len(asked)} runs, 0 of them trained already" in capsys.readouterr().out
    assert started() == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cifar"], ["unknown profile 'cifar'", "did you mean 'cifar10'?"]),
        (["smoke", "--seeds", "0"], ["seeds is 0", "from 1 up"]),
        (["smoke", "--workers", "0"], ["SLN_WORKERS is '0'", "from 1 up"]),
        (["smoke", "--workers", "many"], ["SLN_WORKERS is 'many'", "from 1 up"]),
        (["smoke", "--ray", "auto"], ["Ray is not installed", ".[ray]"]),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_trained(arguments, words, capsys, monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", "2")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert main(["sweep", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    for word in words:
        assert word in err
    assert started() == {}
