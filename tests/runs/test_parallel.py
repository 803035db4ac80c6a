"""Several runs at once: the same numbers, in the order asked for, and nothing left running."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import psutil
import pytest

from sln import runs
from sln.config import Config
from sln.runs import parallel, store
from sln.runs.parallel import WorkerDied, each, families, get_all, slots
from sln.utils.errors import InputError

SHORT = [Config(epochs=2, seed=seed) for seed in (3, 1, 2)]
CORRECTED = [config.replace(correction=1) for config in SHORT[:2]]
LONG = [Config(epochs=15, seed=seed) for seed in (4, 5)]
ENDLESS = [Config(epochs=5000, seed=seed) for seed in (0, 1)]


def wait_for(condition, seconds):
    """Whether `condition()` became true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def numbers(run):
    return [(run.folder / name).read_bytes() for name in ("weights.safetensors", "examples.csv")]


def in_workers(number, folder, configs, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_WORKERS", str(number))
        patch.setenv("SLN_RUNS", str(folder))
        return get_all(configs, **options)


def damage(folder, config):
    """Put another run in the place of the run of `config`."""
    (folder / config.run_id).mkdir(parents=True)
    (folder / config.run_id / "config.json").write_text(json.dumps(config.replace(lr=0.5).to_dict()))


# --- where, and in which order


@pytest.mark.parametrize("bad", ["0", "-1", "two", "1.5", "", " 2", "²"])
def test_a_bad_number_of_workers_is_refused_naming_it(bad, monkeypatch, refused):
    monkeypatch.setenv("SLN_WORKERS", bad)
    with refused("SLN_WORKERS", repr(bad)):
        slots()
    with refused("SLN_WORKERS", repr(bad)):
        get_all(SHORT)
    assert not list(runs.runs_folder().glob("*/config.json"))


def test_the_number_of_workers_is_the_one_asked_for_or_one_per_processor(monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", "7")
    assert slots() == ["cpu"] * 7
    monkeypatch.delenv("SLN_WORKERS")
    assert 1 <= len(slots()) <= os.cpu_count()


@pytest.mark.parametrize(
    ("device", "number", "expected"),
    [
        (None, None, ["cuda:0", "cuda:1"]),
        (None, "2", ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),  # few runs are spread over all GPUs
        ("cuda:1", "3", ["cuda:1"] * 3),
        ("cpu", "3", ["cpu"] * 3),
    ],
)
def test_workers_are_spread_over_the_gpus(device, number, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, value in (("SLN_DEVICE", device), ("SLN_WORKERS", number)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert slots() == expected


def test_a_family_is_an_uncorrected_run_and_those_that_fork_from_it():
    other = CORRECTED[0].replace(correction_losses="as-released")
    alone = SHORT[2].replace(correction=1)  # whose uncorrected run is not asked for
    asked = [other, alone, CORRECTED[0], SHORT[1], SHORT[0], SHORT[1]]
    assert families(asked) == [[SHORT[1]], [SHORT[0], other, CORRECTED[0]], [alone]]


# --- runs


def test_runs_come_in_the_order_asked_for_and_are_the_same_from_one_worker_or_two(tmp_path):
    # corrected ones first and one twice: the order of training is another than that of the answer
    asked = [CORRECTED[0], *SHORT, CORRECTED[1], SHORT[0]]
    alone, together = in_workers(1, tmp_path / "1", asked), in_workers(2, tmp_path / "2", asked)
    assert [run.config for run in alone] == [run.config for run in together] == asked
    assert {run.folder.parent for run in together} == {tmp_path / "2"}
    assert [numbers(run) for run in alone] == [numbers(run) for run in together]


@pytest.mark.parametrize("later", [False, True])
def test_corrected_runs_fork_from_those_asked_for_with_them_or_before(later, tmp_path, monkeypatch):
    epochs, train_epoch = [], sys.modules["sln.train"].train_epoch
    record = lambda *args, **options: epochs.append(args[3]) or train_epoch(*args, **options)  # noqa: E731
    monkeypatch.setattr("sln.train.train_epoch", record)
    if later:
        in_workers(1, tmp_path, SHORT[:2], keep_state_at=1)
        in_workers(1, tmp_path, CORRECTED)
        assert epochs == [1, 2, 1, 2, 2, 2]
    else:
        in_workers(1, tmp_path, [*CORRECTED, *SHORT[:2]])
        assert epochs == [1, 2, 2, 1, 2, 2]


def test_asking_again_trains_nothing(tmp_path, monkeypatch):
    first = in_workers(1, tmp_path, SHORT[:1])
    monkeypatch.setattr("sln.runs.in_memory.train_in_turns", None)
    assert in_workers(2, tmp_path, SHORT[:1]) == first


def test_one_failing_run_does_not_keep_the_others_from_training(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    monkeypatch.setenv("SLN_WORKERS", "2")
    damage(tmp_path, SHORT[0])
    asked = [*SHORT, *CORRECTED]
    results = dict(parallel.train(asked))
    assert "another configuration" in str(results.pop(SHORT[0]))
    assert results == dict.fromkeys(asked[1:])  # its corrected run too, from the start
    assert all(runs.find(config) for config in asked[1:])


@pytest.mark.parametrize("number", ["1", "2"])
def test_each_gives_the_result_of_every_item_at_its_position(number, monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", number)
    assert dict(each(math.factorial, [3, 1, 5])) == {0: 6, 1: 1, 2: 120}
    assert list(each(math.factorial, [])) == []


# --- errors and killed workers


class Killer(threading.Thread):
    """Once `ready()`, kills one of the worker processes that are there, each `times` times."""

    def __init__(self, ready, times):
        super().__init__(daemon=True)
        self.ready, self.times = ready, times
        self.killed, self.over = set(), threading.Event()

    def run(self):
        while len(self.killed) < self.times and not self.over.wait(0.02):
            new = [child.pid for child in multiprocessing.active_children() if child.pid not in self.killed]
            if new and self.ready():
                os.kill(new[0], signal.SIGKILL)
                self.killed.add(new[0])

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.join()


def test_runs_of_killed_workers_continue_from_their_checkpoints(tmp_path, monkeypatch):
    alone = in_workers(1, tmp_path / "alone", LONG)
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    monkeypatch.setenv("SLN_WORKERS", "2")
    before = []

    def ready():
        if store.checkpointed(LONG[0]):
            before.append(store.read_history(store.folder(LONG[0])))
        return bool(before) and before[-1]["epoch"].max() > 1

    with Killer(ready, times=1) as killer:
        results = list(parallel.train(LONG, checkpoint_seconds=0))
    assert len(killer.killed) == 1
    assert sorted(results, key=lambda result: result[0].seed) == [(config, None) for config in LONG]
    assert [numbers(runs.find(config)) for config in LONG] == [numbers(run) for run in alone]
    # the seconds too: these epochs were not trained again (the last one may have lacked its checkpoint)
    last = before[-1]["epoch"].max()
    assert last < LONG[0].epochs
    kept = before[-1][before[-1]["epoch"] < last]
    pd.testing.assert_frame_equal(kept, runs.find(LONG[0]).history.head(len(kept)), check_exact=True)


# A shutdown that ends the workers empties loky's list of waiting runs, over which its thread can then trip.
@pytest.mark.filterwarnings(
    "ignore:Exception in thread ExecutorManager:pytest.PytestUnhandledThreadExceptionWarning"
)
@pytest.mark.parametrize("number", [1, 2])
def test_what_training_raises_is_raised_and_finished_runs_are_kept(number, tmp_path):
    finished = in_workers(1, tmp_path, SHORT[:1])[0].folder / "done.json"
    before, bad = finished.stat().st_mtime_ns, SHORT[1]
    damage(tmp_path, bad)
    sleeper = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    sleeper.start()
    try:
        with pytest.raises(InputError, match="another configuration"):
            in_workers(number, tmp_path, SHORT)
        if number == 2:  # no worker is left, and other children of this process are
            assert wait_for(lambda: multiprocessing.active_children() == [sleeper], 10)
    finally:
        sleeper.kill()
        sleeper.join()
    assert finished.stat().st_mtime_ns == before
    assert json.loads((tmp_path / bad.run_id / "config.json").read_text())["lr"] == 0.5
    assert not (tmp_path / bad.run_id / "history.csv").exists()


def test_a_run_whose_workers_are_killed_again_and_again_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    with (
        Killer(lambda: True, times=100) as killer,
        pytest.raises(WorkerDied, match=r"killed.*same command") as broken,
    ):
        in_workers(2, tmp_path, ENDLESS)
    assert len(killer.killed) >= parallel.ATTEMPTS
    assert "\n" not in str(broken.value)
    assert wait_for(lambda: not multiprocessing.active_children(), 10)


# a script without `if __name__ == "__main__":`; a shell may start it with Ctrl-C ignored
PARENT = """
import json, signal, sys
from sln.config import Config
from sln.runs.parallel import get_all

signal.signal(signal.SIGINT, signal.default_int_handler)
get_all([Config.from_dict(settings) for settings in json.loads(sys.argv[1])])
"""


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["killed", "Ctrl-C"]
)
def test_workers_end_with_their_parent(number, tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    environment = os.environ | {"SLN_WORKERS": "2"}
    settings = json.dumps([config.to_dict() for config in ENDLESS])
    command = [sys.executable, "-c", PARENT, settings]
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    children = []
    try:
        assert wait_for(lambda: all((store.folder(c) / "labels.json").exists() for c in ENDLESS), 60)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.send_signal(number)
        parent.wait(20)
        _, alive = psutil.wait_procs(children, 10)
        assert not alive
    finally:
        for process in (parent, *children):
            process.kill() if process is parent or process.is_running() else None
        parent.wait()


@pytest.mark.parametrize("number", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_what_the_work_of_each_raises_is_raised_and_nothing_is_left_running(number, monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", number)
    with pytest.raises(ValueError, match="factorial"):
        list(each(math.factorial, [3, -1, 5]))
    if number == "2":
        assert wait_for(lambda: not multiprocessing.active_children(), 10)


@pytest.mark.slow
def test_a_killed_worker_of_each_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", "2")
    with pytest.raises(WorkerDied, match="killed"):
        list(each(os._exit, [1, 1, 1]))
