"""A run that trains in the background: the run that any other way gives, watched and cancelled."""

import os
import signal
import time

import pandas as pd
import pytest

from sln import runs
from sln.config import Config
from sln.runs import background, store

ENDLESS = Config(epochs=5000)


def wait(condition, seconds=100.0):
    """Wait for `condition()`; fails where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_is_left_training():
    """What a test started is ended after it."""
    yield
    if background._current is not None:
        background._current.cancel()
    background._current = None


def begun(training):
    """Wait until the history has been written."""
    wait(lambda: training.look() != "training" or training.rows)
    assert training.state == "training"


@pytest.mark.slow
def test_a_run_trained_in_the_background_is_the_run_that_any_other_way_gives(tmp_path, monkeypatch):
    config = Config(epochs=3, sigma=0.65)
    training = background.start(config)
    assert (training.look(), training.epoch, training.seconds_left) == ("training", 0, None)
    wait(lambda: training.look() != "training")
    assert (training.state, training.problem, training.epoch) == ("done", "", 3)
    run = runs.find(config)
    pd.testing.assert_frame_equal(pd.DataFrame(training.rows), run.history, check_exact=True)
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "here"))
    here = runs.get(config, quiet=True)
    for name in ("weights.safetensors", "examples.csv"):
        assert (here.folder / name).read_bytes() == (run.folder / name).read_bytes()


def test_a_cancelled_run_ends_at_once_and_continues_from_its_checkpoint(refused):
    training = background.start(ENDLESS)
    with refused("one run at a time", ENDLESS.run_id):
        background.start(Config(epochs=2))
    wait(lambda: training.look() != "training" or store.checkpointed(ENDLESS))
    begun(training)
    training.cancel()
    assert training.look() == "cancelled"
    assert not training._process.is_alive()
    assert runs.find(ENDLESS) is None
    before = store.read_history(store.folder(ENDLESS))
    again = background.start(ENDLESS)
    assert again.rows == []  # of an earlier process
    begun(again)
    rows = pd.DataFrame(again.rows)
    assert list(rows["epoch"]) == [n for n in range(1, again.epoch + 1) for _ in range(2)]
    # not trained again: the seconds too (the last epoch may have lacked its checkpoint)
    kept = before[before["epoch"] < before["epoch"].max()]
    assert len(rows) > len(kept) > 0
    pd.testing.assert_frame_equal(rows.head(len(kept)), kept, check_exact=True)


def test_only_runs_of_the_digits_are_trained_in_the_background(refused):
    with refused("digits and letters only, not on cifar10"):
        background.start(Config(dataset="cifar10"))


def test_the_time_left_comes_from_the_epochs_between_two_writes_of_the_history(monkeypatch):
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", lambda process: None)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.is_alive", lambda process: True)
    training, begin = background.Training(ENDLESS), time.time()
    file = store.folder(ENDLESS) / "history.csv"
    found = []
    for epoch, seconds in ((500, -9), (600, 10), (1000, 14)):  # the first by an earlier process
        store.write_history(file.parent, [{"epoch": epoch, "weights": "network"}])
        os.utime(file, (begin + seconds, begin + seconds))
        assert training.look() == "training"
        found.append((training.epoch, training.seconds_left))
    assert found == [(0, None), (600, None), (1000, pytest.approx(40.0))]  # 4 s for 400 epochs, 4000 to go


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_is_a_failure_in_one_line():
    training = background.start(ENDLESS)
    os.kill(training._process.pid, signal.SIGKILL)
    wait(lambda: training.look() != "training", 20)
    assert training.state == "failed"
    assert "-9" in training.problem
    assert "continue" in training.problem
    assert "\n" not in training.problem


@pytest.mark.slow
def test_the_line_of_what_training_refuses_is_the_problem():
    config = Config(epochs=3)
    folder = runs.runs_folder() / config.run_id
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"dataset": "digits", "lr": 0.5}')
    training = background.start(config)
    wait(lambda: training.look() != "training")
    assert training.state == "failed"
    assert "another configuration" in training.problem
