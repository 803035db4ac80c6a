"""Sweeps: all runs of a profile, each once, whatever happens to some of them; and the table."""

import json
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sln import runs
from sln.cli import main
from sln.config import Config
from sln.runs import heartbeat, store
from sln.runs.heartbeat import Heartbeat
from sln.runs.work import Queue
from sln.study import sweep
from sln.study.plan import planned
from sln.study.profiles import PROFILES, Profile
from sln.study.study import Study
from sln.study.sweep import Standing, standing, summary, table

PLAIN = Config(epochs=4, fork_epoch=2)


@pytest.fixture
def tiny(monkeypatch):
    """A profile of few, short runs, in which sigma is chosen."""
    profile = Profile(
        about="for tests",
        base={"epochs": 2, "fork_epoch": 1},
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
    monkeypatch.setenv("SLN_WORKERS", "2")
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
    told = f"{len(asked) - 2}/{len(asked) - 2}"  # two candidates came before
    assert f"tiny: {len(asked)} runs, {len(asked)} of them trained now" in out
    assert err.startswith("tiny: candidates: ")
    assert err.splitlines()[-1].startswith(f"tiny: {told} runs done")
    assert main(["sweep", tiny]) == 0
    assert f"tiny: {len(asked)} runs, 0 of them trained now" in capsys.readouterr().out
    assert started() == before
    assert not list((runs.runs_folder() / ".heartbeats").iterdir())


def test_seeds_are_those_asked_for_but_settings_are_chosen_as_in_the_profile(tiny):
    study = Study(tiny, seeds=1)
    assert {config.seed for config in planned(Study(tiny, guesses=True, seeds=3))} == {0, 1, 2}
    assert study.profile.choice_seeds == PROFILES[tiny].choice_seeds
    assert Study("quick", seeds=1).profile.comparison_seeds == 1
    assert Study("quick", seeds=9).profile.comparison_seeds == PROFILES["quick"].comparison_seeds


def test_a_failing_run_is_told_and_the_others_are_trained(tiny, capsys):
    bad = Study(tiny).config("sym", 0.0, 1)
    store.folder(bad).mkdir(parents=True)
    (store.folder(bad) / "config.json").write_text(json.dumps(bad.replace(lr=0.5).to_dict()))
    assert main(["sweep", tiny]) == 1
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if line.startswith("sln: ")]
    assert len(told) == 1
    assert told[0].startswith(f"sln: {bad.run_id} failed: ")
    assert "another configuration" in told[0]
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


# --- heartbeats


def heard(config):
    """What a process says of the run of `config` when it is asked for here."""
    pulse = heartbeat.Pulse(config)
    runs.get(config, quiet=True, on_epoch=pulse.beat)
    return pulse.last


def test_a_heartbeat_says_which_epochs_this_process_has_trained():
    corrected = PLAIN.replace(correction=2)
    told = [heard(config) for config in (PLAIN, corrected, PLAIN)]
    assert [(last.first, last.epoch, last.trained) for last in told] == [(1, 4, 4), (3, 4, 2), (None, 0, 0)]
    assert {(last.epochs, last.pid) for last in told} == {(4, os.getpid())}
    assert all(last.seconds > 0 for last in told)


@pytest.mark.parametrize(("seconds", "epoch"), [(0, 4), (1e9, 1)])
def test_a_heartbeat_is_written_at_the_first_epoch_and_then_now_and_then(seconds, epoch, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN", seconds)
    assert heartbeat.read(PLAIN.run_id) is None
    heard(PLAIN)
    assert heartbeat.read(PLAIN.run_id).epoch == epoch
    assert len(runs.listing()) == 1  # it is no run
    heartbeat.path(PLAIN.run_id).write_text('{"epochs": 4, "of": "another version"}')
    assert heartbeat.read(PLAIN.run_id) is None
    heartbeat.forget(PLAIN.run_id)
    heartbeat.forget(PLAIN.run_id)
    assert not heartbeat.path(PLAIN.run_id).exists()


# --- the table


def test_the_time_left_is_that_of_the_epochs_left_at_the_rate_up_to_now(monkeypatch):
    corrected, other = PLAIN.replace(correction=2), PLAIN.replace(seed=1)
    queue = Queue([PLAIN, corrected, other, PLAIN.replace(seed=2)])
    assert standing(queue, 1.0) == Standing(0, 0, {}, queued=3, held_back=1, seconds=1.0, left=None)
    for config in (PLAIN, other):
        assert queue.take() == config
    queue.end(PLAIN, Heartbeat(4, first=3, epoch=4))  # resumed: two epochs were trained
    last = Heartbeat(4, first=1, epoch=1, seconds=8.0, host="here", pid=7)
    monkeypatch.setattr(heartbeat, "read", {other.run_id: last}.get)
    now = standing(queue, 9.0)
    # 3 epochs in 9 seconds; 3 of the running run are left, 4 of the last, and 2 of the corrected one
    assert now == Standing(1, 0, {other.run_id: last}, queued=2, held_back=0, seconds=9.0, left=27.0)
    assert now.total == 4
    queue.end(other, ValueError("bad"))
    assert standing(queue, 9.0).failed == 1
    assert standing(queue, 9.0).left == 6 * 9 / 2


def test_a_table_says_how_far_every_run_is_and_how_long_it_takes():
    running = {
        "digits-a": Heartbeat(100, first=41, epoch=60, seconds=30.0, host="one", pid=11),
        "digits-long-name": Heartbeat(100, host="two", pid=5),
    }
    now = Standing(3, 1, running, queued=2, held_back=4, seconds=3723.0, left=60.4)
    assert table("quick", now, width=100, height=10) == [
        "quick: 3/12 runs done, 2 running, 2 queued, 4 waiting for another's epoch, 1 failed "
        "(1:02:03, about 0:01"[:100],
        "run                   epoch       left  where",
        "digits-a             60/100    0:01:00  one:11",
        "digits-long-name      0/100             two:5",
    ]
    assert summary("quick", now).endswith("(1:02:03, about 0:01:00 left)")


@given(
    running=st.integers(0, 30),
    width=st.integers(10, 120),
    height=st.integers(2, 40),
    left=st.none() | st.floats(0, 1e7),
)
def test_a_table_fits_its_terminal_and_hides_as_little_as_it_must(running, width, height, left):
    runs_ = {f"digits-{n}": Heartbeat(9, first=1, epoch=n % 9, seconds=1.0) for n in range(running)}
    lines = table("full", Standing(0, 0, runs_, 0, 0, 5.0, left), width, height)
    assert len(lines) == min(height, 1 + bool(running) + running)
    assert all(len(line) <= width for line in lines)


def test_a_terminal_gets_a_table_in_place_and_a_log_gets_lines(capsys, monkeypatch):
    queue = Queue([PLAIN])
    log = sweep.Display("quick")
    log.look(queue)
    assert capsys.readouterr().err == ""  # not yet
    monkeypatch.delenv("SLN_HEADLESS")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    screen = sweep.Display("quick")
    screen.look(queue)
    screen.say("a line that stays")
    screen.look(queue)
    first, again = "quick: 0/1 runs done, 0 running, 1 queued (0:00:00)\n", "\x1b[1F\x1b[J"
    assert capsys.readouterr().err == f"{first}{again}a line that stays\n{first}"
