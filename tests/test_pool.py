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
from sln.errors import InputError
from sln.pool import each, get_all, workers

SHORT = [Config(epochs=2, fork_epoch=1, seed=seed) for seed in (3, 1, 2)]
CORRECTED = [config.replace(correction=1) for config in SHORT[:2]]
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
    monkeypatch.setattr(runs, "train", None)
    assert in_workers(2, tmp_path, SHORT[:1]) == first


def test_a_killed_worker_is_one_clear_error_and_the_next_call_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    finished = [tmp_path / config.run_id / "done.json" for config in SHORT]
    killed, over = [], threading.Event()

    def kill_one():
        wait_for(lambda: over.is_set() or all(path.exists() for path in finished), 100)
        if not over.is_set():
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        with pytest.raises(RuntimeError, match=r"killed.*same") as broken:
            in_workers(2, tmp_path, [*SHORT, *ENDLESS])
    finally:
        over.set()
        killer.join()
    assert killed
    assert "\n" not in str(broken.value)
    assert wait_for(lambda: not multiprocessing.active_children(), 10)  # those that were not killed went too
    assert [runs.find(config) for config in ENDLESS] == [None, None]
    before = [path.stat().st_mtime_ns for path in finished]
    again = in_workers(2, tmp_path, [*SHORT, *CORRECTED])
    assert [run.config for run in again] == [*SHORT, *CORRECTED]
    assert [path.stat().st_mtime_ns for path in finished] == before


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
from sln.pool import get_all

configs = [Config.from_dict(knobs) for knobs in json.loads(sys.argv[1])]

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
    knobs = json.dumps([config.to_dict() for config in ENDLESS])
    command = [sys.executable, "-c", PARENT, knobs]
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
