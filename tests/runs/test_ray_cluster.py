"""Runs on a Ray cluster of two machines, both this one: a worker and a machine are lost, and no run is."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import ray

from sln import runs
from sln.cli import main
from sln.config import Config
from sln.runs import parallel, ray_cluster, store
from sln.runs.parallel import WorkerDied
from sln.utils.errors import InputError

PLAIN = [Config(epochs=40, seed=seed) for seed in range(5)]
CORRECTED = [config.replace(correction=15) for config in PLAIN[:3]]
EIGHT = [*PLAIN, *CORRECTED]

# If Ray expects other machines, it finds the address of this one and listens on every interface.
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "200",  # beside other work
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
}

DRIVER = """
import json, sys
from sln.config import Config
from sln.runs import ray_cluster

configs = [Config.from_dict(settings) for settings in json.loads(sys.argv[2])]
for config, error in ray_cluster.train(sys.argv[1], configs, checkpoint_seconds=0.5):
    print(json.dumps([config.run_id, str(error or "")]), flush=True)
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
    """The value of `condition()` once it is true, or at the end of that time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def worker_of(raylet, config):
    """The process below `raylet` that trains `config`, if it has a checkpoint and is not near its end."""
    if not store.checkpointed(config):
        return None
    if not 3 <= store.read_history(store.folder(config))["epoch"].max() <= config.epochs - 15:
        return None
    for process in psutil.Process(raylet).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if config.run_id in " ".join(process.cmdline()):  # Ray's name of the task
                return process
    return None


def lost(raylet, configs):
    """A run in the middle and its worker below `raylet`, and the history of the run so far; or None."""
    for config in configs:
        worker = worker_of(raylet, config)
        if worker is not None:
            return config, worker, store.read_history(store.folder(config))
    return None


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
            for one in process.net_connections(kind="inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.add((one.laddr.ip, process.name()))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_on_two_machines_loses_a_worker_and_a_machine_but_no_run(cluster, tmp_path, monkeypatch):
    started, said, folder = cluster
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "ray"))
    settings = json.dumps([config.to_dict() for config in EIGHT])
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, said["address"], settings]
    driver = subprocess.Popen(command, env=os.environ | ENVIRONMENT, text=True, stdout=subprocess.PIPE)
    first, second = said["raylets"]
    try:
        # kill a worker on the first machine in the middle of a run
        victim, worker, before = wait_for(lambda: lost(first, PLAIN), 200)
        worker.kill()
        addresses = listening([*of(folder), *of(said["address"])])
        # and then take the second machine away, on which another run is trained
        others = [config for config in PLAIN if config != victim]
        moved, _, before_moving = wait_for(lambda: lost(second, others), 200)
        started.stdin.write("\n")
        started.stdin.flush()
        out, _ = driver.communicate(timeout=400)
    finally:
        driver.kill()
        driver.stdout.close()
        driver.wait()
    lines = [line for line in out.splitlines() if line.startswith("[")]  # Ray prints between them
    assert sorted(map(json.loads, lines)) == sorted([config.run_id, ""] for config in EIGHT)
    assert not list(runs.runs_folder().glob(".sweep*"))
    # a lost worker's run continues from its checkpoint: the seconds of these epochs are the same
    for config, rows in ((victim, before), (moved, before_moving)):
        kept = rows[rows["epoch"] < rows["epoch"].max()]  # the last one may lack its checkpoint
        pd.testing.assert_frame_equal(kept, runs.find(config).history.head(len(kept)), check_exact=True)
    # and a corrected one at the fork
    for config in CORRECTED:
        rows = [runs.find(one).history.query("epoch <= 15") for one in (config, config.uncorrected)]
        pd.testing.assert_frame_equal(*rows, check_exact=True)
    # the same as without Ray, bit for bit
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "here"))
    parallel.get_all(EIGHT)
    for config in EIGHT:
        assert numbers(tmp_path / "ray", config) == numbers(tmp_path / "here", config)
    # nothing of Ray's is to be reached from outside
    assert addresses
    assert {address for address, _ in addresses} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses


class FakeRay:
    """The part of Ray that `ray_cluster` uses, for a cluster of one machine: tasks run when asked for.

    options : what the tasks ask for
    """

    exceptions = ray.exceptions

    def __init__(self, lost, **resources):
        self.lost, self.resources, self.options, self.connected = lost, resources, [], True

    def nodes(self):
        return [{"Alive": True, "Resources": self.resources}, {"Alive": False, "Resources": {"CPU": 99}}]

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.options.append(options)

        def made(function):
            def task(**more):
                self.options.append(more)
                return SimpleNamespace(remote=functools.partial(functools.partial, function))

            return SimpleNamespace(options=task)

        return made

    def wait(self, references):
        return references[:1], references[1:]

    def get(self, reference):
        if any(config in self.lost for config in reference.args[2]):
            raise ray.exceptions.WorkerCrashedError
        try:
            return reference()
        except InputError as error:
            raise ray.exceptions.RayTaskError("train_there", "traceback", error) from None

    def cancel(self, reference, force):
        pass

    def shutdown(self):
        self.connected = False


@pytest.fixture
def fake(monkeypatch):
    """`fake(CPU=2, GPU=1)` puts that cluster in the place of any; workers of the runs `lost` die."""

    def cluster(lost=(), **resources):
        found = FakeRay(lost, **resources)
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
    found, given = fake(**resources), []
    monkeypatch.setattr(parallel, "train_family", lambda *args: given.append(args) or [])
    assert list(ray_cluster.train("auto", EIGHT)) == []
    # a GPU is given back
    assert found.options[0] == {"num_gpus": share, "max_calls": calls, "max_retries": 3}
    assert found.options[1:] == [{"num_cpus": 1, "name": config.run_id} for config in PLAIN]
    assert [family for _, family, _ in given] == parallel.families(EIGHT)
    assert {settings.get("SLN_DEVICE") for settings, _, _ in given} == {device}


def test_every_run_ends_with_its_error_and_nothing_is_left(fake, monkeypatch):
    monkeypatch.setenv("SLN_SPEED", "auto")  # which the task, here in this process, sets
    good, bad, dead = (Config(epochs=1, seed=seed) for seed in range(3))
    for name in ("SLN_RUNS", "SLN_DATA"):
        monkeypatch.setenv(name, os.environ.get(name, "data"))
    folder = store.folder(bad)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(bad.replace(lr=0.5).to_dict()))
    found = fake(lost=[dead], CPU=2.0)
    errors = dict(ray_cluster.train("auto", [good, bad, dead]))
    assert errors[good] is None
    assert "another configuration" in str(errors[bad])
    assert isinstance(errors[dead], WorkerDied)
    assert "WorkerCrashedError" in str(errors[dead])
    assert not found.connected
    assert not list(runs.runs_folder().glob(".sweep*"))


def test_a_cluster_without_room_for_a_run_is_refused(fake, refused):
    found = fake(CPU=3.0)
    with refused("4 threads", "3 processors", "--num-cpus 4"):
        list(ray_cluster.train("auto", [*EIGHT, PLAIN[0].replace(threads=4)]))
    assert not found.connected
    assert not list(runs.runs_folder().rglob("*"))


def test_a_machine_that_does_not_share_the_runs_folder_is_named(fake, monkeypatch):
    fake(CPU=2.0)
    monkeypatch.setattr(ray_cluster, "write_text", lambda *_: None)
    errors = dict(ray_cluster.train("auto", PLAIN[:1]))
    assert isinstance(errors[PLAIN[0]], InputError)
    for words in (socket.gethostname(), ".sweep-", "SLN_RUNS", "share"):
        assert words in str(errors[PLAIN[0]])


def test_a_cluster_that_is_not_there_is_one_clear_line(capsys, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    assert main(["sweep", "smoke", "--ray", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no Ray cluster at 'nowhere'" in err
    assert "ray start --head" in err
