"""A run that trains in the background: what it reports, and how it ends."""

import os
import signal
import time

import pandas as pd
import pytest

from sln import runs
from sln.config import Config
from sln.runs import background

ENDLESS = Config(epochs=5000, fork_epoch=1)


def wait(condition, seconds=100.0):
    """Wait for `condition()`; fails where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_is_left_training():
    """Whatever a test started is ended after it."""
    yield
    if background._current is not None:
        background._current.cancel()
    background._current = None


def begun(training, epochs=1):
    """Wait until so many epochs are trained."""
    wait(lambda: training.look() != "training" or training.epoch >= epochs)
    assert training.state == "training"


def test_a_run_trained_in_the_background_is_the_run_that_any_other_way_gives(tmp_path, monkeypatch):
    config = Config(epochs=3, fork_epoch=1, sigma=0.65)
    training = background.start(config)
    wait(lambda: training.look() != "training")
    assert (training.state, training.problem, training.epoch) == ("done", "", 3)
    run = runs.find(config)
    pd.testing.assert_frame_equal(pd.DataFrame(training.rows), run.history, check_exact=True)
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "here"))
    here = runs.get(config, quiet=True)
    for name in ("weights.safetensors", "examples.csv"):
        assert (here.folder / name).read_bytes() == (run.folder / name).read_bytes()


def test_a_cancelled_run_ends_at_once_and_goes_on_from_its_checkpoint():
    training = background.start(ENDLESS)
    begun(training)
    checkpoint = runs.runs_folder() / ENDLESS.run_id / "checkpoint.safetensors"
    wait(lambda: training.look() and checkpoint.exists())
    training.cancel()
    assert training.look() == "cancelled"
    assert not training._process.is_alive()
    assert runs.find(ENDLESS) is None
    before = training.epoch
    again = background.start(ENDLESS)
    begun(again)
    assert 2 <= again._timed_from <= before + 1  # the first after its checkpoint
    epochs = [row["epoch"] for row in again.rows if row["weights"] == "network"]
    assert epochs == list(range(1, again.epoch + 1))  # those before the break too, each once
    kept = [row for row in training.rows if row["epoch"] < again._timed_from]
    same = [row for row in again.rows if row["epoch"] < again._timed_from]
    assert [row["test_loss"] for row in same] == [row["test_loss"] for row in kept]


def test_one_run_at_a_time_and_only_what_takes_seconds(refused):
    training = background.start(ENDLESS)
    with refused("one run at a time", ENDLESS.run_id):
        background.start(Config(epochs=2, fork_epoch=1))
    training.cancel()
    with refused("digits only, not on cifar10"):
        background.start(Config(dataset="cifar10"))


def test_time_left_comes_from_the_epochs_that_were_trained_here():
    training = background.start(ENDLESS)
    assert training.seconds_left is None
    begun(training)
    training.cancel()
    assert training._timed_from == 1  # whose own time nobody has measured
    training.rows, training._timed_from = [{"epoch": 1000}], 600
    training._began, training._latest = 10.0, 14.0
    assert training.seconds_left == pytest.approx(40.0)  # 4 s for 400 epochs, 4000 to go


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_is_a_failure_in_one_line():
    training = background.start(ENDLESS)
    begun(training)
    os.kill(training._process.pid, signal.SIGKILL)
    wait(lambda: training.look() != "training", 20)
    assert training.state == "failed"
    assert "-9" in training.problem
    assert "go on" in training.problem
    assert "\n" not in training.problem


def test_what_training_refuses_is_said():
    config = Config(epochs=3, fork_epoch=1)
    folder = runs.runs_folder() / config.run_id
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"dataset": "digits", "lr": 0.5}')
    training = background.start(config)
    wait(lambda: training.look() != "training")
    assert training.state == "failed"
    assert "another configuration" in training.problem
