"""A sweep on a Ray cluster of two machines, both this one: workers and a machine are lost, and no run is."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import ray

from sln import runs
from sln.cli import main
from sln.config import Config
from sln.runs import heartbeat, ray_cluster, store
from sln.runs.pool import Processes
from sln.runs.ray_cluster import RayCluster, train_there
from sln.runs.work import Queue, WorkerDied, work_through
from sln.utils.errors import InputError

PLAIN = [Config(epochs=40, fork_epoch=15, seed=seed) for seed in range(5)]
CORRECTED = [config.replace(correction=15) for config in PLAIN[:3]]
EIGHT = [*PLAIN, *CORRECTED]

# Where Ray may reckon with other machines it finds this one's own address and listens on every interface.
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "200",  # beside other work
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
}

DRIVER = """
import dataclasses, json, sys
from sln.config import Config
from sln.runs.ray_cluster import RayCluster
from sln.runs.work import Queue, work_through

configs = [Config.from_dict(settings) for settings in json.loads(sys.argv[2])]
cluster = RayCluster(sys.argv[1], configs, checkpoint_seconds=0.5)
try:
    for outcome in work_through(Queue(configs), cluster):
        last = outcome.last and dataclasses.asdict(outcome.last)
        print(json.dumps([outcome.config.run_id, last, str(outcome.error or "")]), flush=True)
finally:
    cluster.close()
"""


def of(folder):
    """All processes that name the folder on their command line, and all of their descendants."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                for one in [process, *process.children(recursive=True)]:
                    found[one.pid] = one
    return list(found.values())


@pytest.fixture
def cluster(tmp_path):
    """Starts `ray_cluster.py` and yields it, with what it said; nothing of it is left afterwards."""
    # the path of a socket is at most 107 characters long, and the test's own folder's is longer
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        environment = os.environ | ENVIRONMENT | {"RAY_TMPDIR": folder}
        command = [sys.executable, str(Path(__file__).parents[1] / "helpers" / "ray_cluster.py")]
        with open(tmp_path / "cluster.log", "w") as log:
            started = subprocess.Popen(
                command,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            line = started.stdout.readline()
            assert line, (tmp_path / "cluster.log").read_text()
            yield started, json.loads(line), folder
            started.stdin.close()
            started.wait(60)
        finally:
            started.kill()
            started.wait()
            started.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                started.stdin.close()
            left = of(folder)
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, 10)


def wait_for(condition, seconds):
    """Whether `condition()` became true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def in_the_middle(config):
    """The last heartbeat of a run that has a checkpoint and is not near its end, else None."""
    last = heartbeat.read(config.run_id)
    saved = (store.folder(config) / "checkpoint.safetensors").exists()
    return last if last and saved and 3 <= last.epoch <= config.epochs - 10 else None


def numbers(folder, config):
    """Everything of a run that must not depend on who trained it."""
    path = folder / config.run_id
    history = pd.read_csv(path / "history.csv", dtype=str).drop(columns="seconds").to_csv()
    return [(path / name).read_bytes() for name in ("weights.safetensors", "examples.csv")] + [history]


def listening(processes):
    """(address, name) of every socket on which one of the processes listens."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            for socket in process.net_connections(kind="inet"):
                if socket.status == psutil.CONN_LISTEN:
                    found.add((socket.laddr.ip, process.name()))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_on_two_machines_loses_a_worker_and_a_machine_but_no_run(cluster, tmp_path, monkeypatch):
    started, said, folder = cluster
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "ray"))
    settings = json.dumps([config.to_dict() for config in EIGHT])
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, said["address"], settings]
    driver = subprocess.Popen(command, env=os.environ | ENVIRONMENT, text=True, stdout=subprocess.PIPE)
    try:
        # kill a worker in the middle of a run
        assert wait_for(lambda: any(map(in_the_middle, PLAIN)), 200)
        victim, last = next((config, last) for config in PLAIN if (last := in_the_middle(config)))
        os.kill(last.pid, signal.SIGKILL)
        addresses = listening([*of(folder), *of(said["address"])])
        # and then take the machine away on which the second raylet's worker is
        workers = lambda: {one.pid for one in psutil.Process(said["raylets"][1]).children(recursive=True)}  # noqa: E731
        there = lambda: [c for c in PLAIN if (told := in_the_middle(c)) and told.pid in workers()]  # noqa: E731
        assert wait_for(there, 200)
        moved = there()[0]
        started.stdin.write("\n")
        started.stdin.flush()
        out, _ = driver.communicate(timeout=400)
    finally:
        driver.kill()
        driver.stdout.close()
        driver.wait()
    lines = [line for line in out.splitlines() if line.startswith("[")]  # Ray has its say between them
    outcomes = {run_id: (last, error) for run_id, last, error in map(json.loads, lines)}
    assert {run_id: error for run_id, (_, error) in outcomes.items()} == {c.run_id: "" for c in EIGHT}
    assert len(lines) == len(EIGHT)
    # none is trained twice: a lost worker's run goes on at its checkpoint, a corrected one at the fork
    first = {run_id: last["first"] for run_id, (last, _) in outcomes.items()}
    assert first[victim.run_id] > 1
    assert first[moved.run_id] > 1
    expected = {c.run_id: 1 + 15 * c.corrects for c in EIGHT if c not in (victim, moved)}
    assert {run_id: first[run_id] for run_id in expected} == expected
    assert {last["epoch"] for last, _ in outcomes.values()} == {40}
    assert not list((runs.runs_folder() / ".heartbeats").iterdir())
    # the same as without Ray, bit for bit
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "pool"))
    processes = Processes(["cpu", "cpu"])
    try:
        assert [outcome.error for outcome in work_through(Queue(EIGHT), processes)] == [None] * 8
    finally:
        processes.close()
    for config in EIGHT:
        assert numbers(tmp_path / "ray", config) == numbers(tmp_path / "pool", config)
    # nothing of Ray's is to be reached from outside
    assert addresses
    assert {address for address, _ in addresses} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses


class FakeRay:
    """What `sweep_ray` uses of Ray, as a cluster of one machine says it; keeps what tasks ask for."""

    exceptions = ray.exceptions

    def __init__(self, **resources):
        self.resources, self.options, self.calls, self.connected = resources, {}, [], True

    def nodes(self):
        return [{"Alive": True, "Resources": self.resources}, {"Alive": False, "Resources": {"CPU": 99}}]

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.options |= options
        return lambda function: self

    def get(self, error):
        raise error

    def shutdown(self):
        self.connected = False


@pytest.fixture
def fake(monkeypatch):
    """`fake(CPU=2, GPU=1)` puts that cluster in the place of any."""

    def cluster(**resources):
        found = FakeRay(**resources)
        monkeypatch.setattr(ray_cluster, "_connected", lambda address: found)
        return found

    return cluster


@pytest.mark.parametrize(
    ("resources", "workers", "device", "share", "calls"),
    [
        ({"CPU": 2.0}, "3", None, 0, 0),
        ({"CPU": 2.0, "GPU": 1.0}, None, None, 1, 1),
        ({"CPU": 2.0, "GPU": 1.0}, "4", None, 0.25, 1),
        ({"CPU": 2.0, "GPU": 1.0}, "4", "cpu", 0, 0),
    ],
)
def test_runs_share_gpus_where_there_are_some(resources, workers, device, share, calls, fake, monkeypatch):
    for name, value in (("SLN_WORKERS", workers), ("SLN_DEVICE", device)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    found = fake(**resources)
    crew = RayCluster("auto", EIGHT)
    # a GPU is given back, and lost runs are queued by `pool` alone
    assert found.options == {"num_gpus": share, "max_calls": calls, "max_retries": 0}
    assert crew._settings.get("SLN_DEVICE") == device
    assert crew._mark.exists()
    crew.close()
    assert not crew._mark.exists()
    assert not found.connected


def test_a_cluster_without_room_for_a_run_is_refused(fake, refused):
    found = fake(CPU=3.0)
    with refused("4 threads", "3 processors", "--num-cpus 4"):
        RayCluster("auto", [*EIGHT, PLAIN[0].replace(threads=4)])
    assert not found.connected
    assert not list(runs.runs_folder().rglob("*"))


def test_what_a_task_raises_is_told_apart_from_its_workers_death(fake):
    fake(CPU=2.0)
    crew = RayCluster("auto", EIGHT)
    bad = InputError("no such labels")
    raised = ray.exceptions.RayTaskError("train_there", "traceback", bad)
    assert crew._result(raised) is bad
    died = crew._result(ray.exceptions.WorkerCrashedError())
    assert isinstance(died, WorkerDied)
    assert "WorkerCrashedError" in str(died)


def test_a_machine_that_does_not_share_the_runs_folder_says_so(tmp_path, refused):
    with refused(str(tmp_path / "mark"), "SLN_RUNS", "share"):
        train_there(PLAIN[0], {}, 1.0, str(tmp_path / "mark"))


def test_a_cluster_that_is_not_there_is_one_clear_line(capsys, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    assert main(["sweep", "smoke", "--ray", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no Ray cluster at 'nowhere'" in err
    assert "ray start --head" in err
