"""Many runs at once: the same numbers, in the order asked for, and nothing left running."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sln import runs
from sln.config import Config
from sln.runs import heartbeat, pool, store
from sln.runs.heartbeat import Heartbeat
from sln.runs.pool import Processes, each, get_all, seats, workers
from sln.runs.work import Queue, WorkerDied, work_through
from sln.utils.errors import InputError

SHORT = [Config(epochs=2, fork_epoch=1, seed=seed) for seed in (3, 1, 2)]
CORRECTED = [config.replace(correction=1) for config in SHORT[:2]]
LONG = Config(epochs=60, fork_epoch=1, seed=4)
ENDLESS = [Config(epochs=5000, seed=seed) for seed in (0, 1)]


def wait_for(condition, seconds):
    """Whether `condition()` became true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def numbers(run):
    return [(run.folder / name).read_bytes() for name in ("weights.safetensors", "examples.csv")]


def in_workers(number, folder, configs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_WORKERS", str(number))
        patch.setenv("SLN_RUNS", str(folder))
        return get_all(configs)


@pytest.mark.parametrize("bad", ["0", "-1", "two", "1.5", "", " 2", "²"])
def test_a_bad_number_of_workers_is_refused_naming_it(bad, monkeypatch, refused):
    monkeypatch.setenv("SLN_WORKERS", bad)
    with refused("SLN_WORKERS", repr(bad)):
        workers()
    with refused("SLN_WORKERS", repr(bad)):
        get_all(SHORT)
    assert not list(runs.runs_folder().glob("*/config.json"))


def test_the_number_of_workers_is_the_one_asked_for_or_one_a_processor(monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", "7")
    assert workers() == 7
    monkeypatch.delenv("SLN_WORKERS")
    assert 1 <= workers() <= os.cpu_count()


@pytest.mark.parametrize(
    ("device", "number", "expected"),
    [
        (None, None, ["cuda:0", "cuda:1"]),
        (None, "2", ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),  # few runs are spread over all GPUs
        ("cuda:1", "3", ["cuda:1"] * 3),
        ("cpu", "3", ["cpu"] * 3),
    ],
)
def test_workers_share_the_gpus_out(device, number, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, value in (("SLN_DEVICE", device), ("SLN_WORKERS", number)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert seats() == expected


# --- the queue


def taken(queue):
    """Everything that can be taken now."""
    return list(iter(queue.take, None))


def test_a_corrected_run_is_held_back_until_its_uncorrected_run_has_kept_its_state():
    plain, corrected = SHORT[0], CORRECTED[0]
    queue = Queue([corrected, plain, plain])
    assert taken(queue) == [plain]
    state = store.state_file(store.folder(plain), corrected.correction)
    state.parent.mkdir(parents=True)
    state.touch()
    assert taken(queue) == [corrected]  # while the other goes on
    assert set(queue.running.values()) == {plain, corrected}


@pytest.mark.parametrize("result", [Heartbeat(2), InputError("no such labels")])
def test_a_corrected_run_is_not_held_back_any_longer_when_its_uncorrected_run_has_ended(result):
    queue = Queue([*CORRECTED, *SHORT[:2]])
    assert taken(queue) == SHORT[:2]
    queue.end(SHORT[1], result)
    assert taken(queue) == [CORRECTED[1]]


def test_a_corrected_run_is_not_held_back_for_a_state_that_nobody_will_keep():
    elsewhere = SHORT[1].replace(epochs=3, fork_epoch=2)
    corrected = elsewhere.replace(correction=1)
    queue = Queue([CORRECTED[0], elsewhere, corrected])  # of the first, only the corrected run is asked for
    assert taken(queue) == [elsewhere, CORRECTED[0], corrected]
    assert queue.epochs == {elsewhere.run_id: 3, CORRECTED[0].run_id: 2, corrected.run_id: 3}


def test_what_a_corrected_run_takes_over_is_not_left_to_train():
    queue = Queue([CORRECTED[0], SHORT[0]])
    assert queue.epochs == {SHORT[0].run_id: 2, CORRECTED[0].run_id: 1}


def die_after(queue, checkpoint):
    """Let the taken run's worker die after it wrote its checkpoint number so many; returns the outcome."""
    config = queue.take()
    if checkpoint:
        path = store.folder(config) / store.CHECKPOINT
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, ns=(0, checkpoint))
    return queue.end(config, WorkerDied("killed"))


def test_a_run_is_given_up_after_three_deaths_without_a_checkpoint_in_between():
    queue = Queue(ENDLESS[:1])
    assert [die_after(queue, checkpoint) for checkpoint in (0, 0, 1, 1, 2, 3)] == [None] * 6
    outcomes = [die_after(queue, checkpoint) for checkpoint in (4, 0, 0)]
    assert outcomes[:2] == [None, None]
    assert isinstance(outcomes[2].error, WorkerDied)
    assert not queue.waiting
    assert not queue.running


# --- workers


def test_runs_come_in_the_order_asked_for_and_are_the_same_from_one_worker_or_two(tmp_path):
    # corrected ones first and one twice: the order of training is another than that of the answer
    asked = [CORRECTED[0], *SHORT, CORRECTED[1], SHORT[0]]
    alone, together = in_workers(1, tmp_path / "1", asked), in_workers(2, tmp_path / "2", asked)
    assert [run.config for run in alone] == [run.config for run in together] == asked
    assert {run.folder.parent for run in together} == {tmp_path / "2"}
    assert [numbers(run) for run in alone] == [numbers(run) for run in together]


def test_corrected_runs_fork_from_those_asked_for_with_them(monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", "1")
    epochs, train_epoch = [], sys.modules["sln.train"].train_epoch
    record = lambda *args, **options: epochs.append(args[3]) or train_epoch(*args, **options)  # noqa: E731
    monkeypatch.setattr("sln.train.train_epoch", record)
    get_all([*CORRECTED, *SHORT[:2]])
    assert epochs == [1, 2, 1, 2, 2, 2]


def test_asking_again_trains_nothing(tmp_path, monkeypatch):
    first = in_workers(1, tmp_path, SHORT[:1])
    monkeypatch.setattr("sln.runs.in_memory.train_in_turns", None)
    assert in_workers(2, tmp_path, SHORT[:1]) == first


class Killer(threading.Thread):
    """Kills whatever trains the run of `config` once it has trained an epoch, at most `times` times."""

    def __init__(self, config, times, ready=lambda: True):
        super().__init__(daemon=True)
        self.run_id, self.times, self.ready = config.run_id, times, ready
        self.pids, self.over = [], threading.Event()

    def run(self):
        while len(self.pids) < self.times and not self.over.wait(0.05):
            last = heartbeat.read(self.run_id)
            if last is not None and last.trained and last.pid not in self.pids and self.ready():
                os.kill(last.pid, signal.SIGKILL)
                self.pids.append(last.pid)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.join()


def test_a_killed_workers_run_is_trained_all_the_same(tmp_path, monkeypatch):
    alone = in_workers(1, tmp_path / "1", [LONG, SHORT[0]])
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "2"))
    with Killer(LONG, 1) as killer:
        again = in_workers(2, tmp_path / "2", [LONG, SHORT[0]])
    assert len(killer.pids) == 1
    assert [numbers(run) for run in again] == [numbers(run) for run in alone]


def test_a_killed_workers_run_goes_on_at_its_checkpoint_and_the_others_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    crew = Processes(["cpu", "cpu"], checkpoint_seconds=0)
    other = LONG.replace(seed=5)
    try:
        with Killer(LONG, 1, ready=(store.folder(LONG) / "checkpoint.safetensors").exists) as killer:
            outcomes = {o.config: o for o in work_through(Queue([LONG, other]), crew)}
    finally:
        crew.close()
    assert killer.pids
    assert outcomes[LONG].last.pid not in killer.pids
    assert outcomes[LONG].last.first > 1
    assert outcomes[LONG].last.epoch == LONG.epochs
    assert (outcomes[other].last.first, outcomes[other].last.epoch) == (1, LONG.epochs)
    assert not list((tmp_path / ".heartbeats").iterdir())


def test_a_run_whose_workers_are_killed_again_and_again_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    with (
        Killer(ENDLESS[0], times=100) as killer,
        pytest.raises(RuntimeError, match=r"killed.*same") as broken,
    ):
        in_workers(2, tmp_path, [SHORT[0], ENDLESS[0]])
    assert len(set(killer.pids)) == 3
    assert "\n" not in str(broken.value)
    assert wait_for(lambda: not multiprocessing.active_children(), 10)  # those that were not killed went too
    finished = tmp_path / SHORT[0].run_id / "done.json"
    before = finished.stat().st_mtime_ns
    in_workers(1, tmp_path, SHORT[:1])
    assert finished.stat().st_mtime_ns == before


@pytest.mark.parametrize("number", [1, 2])
def test_what_training_raises_is_raised_and_finished_runs_are_kept(number, tmp_path):
    first, bad = SHORT[:2]
    (tmp_path / bad.run_id).mkdir()
    (tmp_path / bad.run_id / "config.json").write_text(json.dumps(bad.replace(lr=0.5).to_dict()))
    for configs in ([first, bad], [bad, SHORT[2]]):
        with pytest.raises(InputError, match="another configuration"):
            in_workers(number, tmp_path, configs)
    in_workers(1, tmp_path, [first])
    assert json.loads((tmp_path / bad.run_id / "config.json").read_text())["lr"] == 0.5
    assert not (tmp_path / bad.run_id / "history.csv").exists()


PARENT = """
import json, multiprocessing, os, sys, threading, time
from pathlib import Path
from sln.config import Config
from sln.runs.pool import get_all

configs = [Config.from_dict(settings) for settings in json.loads(sys.argv[1])]

def tell():
    folders = [Path(os.environ["SLN_RUNS"], config.run_id, "config.json") for config in configs]
    while not all(folder.exists() for folder in folders):
        time.sleep(0.05)
    print(json.dumps([child.pid for child in multiprocessing.active_children()]), flush=True)

threading.Thread(target=tell, daemon=True).start()
get_all(configs)
"""


def running(pid):
    """Whether a process is there and no zombie (nobody may be left to collect an orphan)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_die_with_their_killed_parent(tmp_path):
    environment = os.environ | {"SLN_RUNS": str(tmp_path), "SLN_WORKERS": "2"}
    settings = json.dumps([config.to_dict() for config in ENDLESS])
    command = [sys.executable, "-c", PARENT, settings]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as parent:
        pids = json.loads(parent.stdout.readline())
        try:
            assert len(pids) == 2
            assert all(running(pid) for pid in pids)
            parent.kill()
            assert wait_for(lambda: not any(running(pid) for pid in pids), 10)
        finally:
            parent.kill()
            for pid in filter(running, pids):
                os.kill(pid, signal.SIGKILL)


def test_other_children_of_ours_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    sleeper = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    sleeper.start()
    try:
        in_workers(2, tmp_path, SHORT)
        pool.close()
        assert multiprocessing.active_children() == [sleeper]
    finally:
        sleeper.kill()
        sleeper.join()


# --- any work


@pytest.mark.parametrize("number", ["1", "2"])
def test_each_gives_every_items_result_at_its_position(number, monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", number)
    assert dict(each(math.factorial, [3, 1, 5])) == {0: 6, 1: 1, 2: 120}
    assert list(each(math.factorial, [])) == []


@pytest.mark.parametrize("number", ["1", "2"])
def test_what_the_work_of_each_raises_is_raised_and_nothing_is_left_running(number, monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", number)
    with pytest.raises(ValueError, match="factorial"):
        list(each(math.factorial, [3, -1, 5]))
    pool_left = multiprocessing.active_children() if number == "2" else []
    assert pool_left == []
