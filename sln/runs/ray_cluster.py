"""A Ray cluster as the crew of a sweep: every run a task, on whichever machine has room for it.

Ray starts workers, finds them room and notices their death; which run comes when, and what becomes of one
whose worker died, is `work`'s business as on one machine. Machines must see the same runs and data under the
same paths, and have this package installed.

The lock that keeps a run from being trained twice is the file system's (flock): on NFS the server frees it
when it no longer hears of the machine that holds it (by default after 90 seconds), and a lost machine's run
waits so long in its new place.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sln import runs
from sln.config import Config
from sln.runs import pool, work
from sln.runs.heartbeat import Heartbeat
from sln.runs.work import WorkerDied
from sln.utils.errors import InputError, require
from sln.utils.files import runs_folder, write_text


def train_there(config: Config, settings: dict[str, str], seconds: float, mark: str) -> Heartbeat:
    """In a worker of the cluster: `work.train_one`, where the sweep's own folder is to be seen.

    mark : a file beside the runs that the sweep has written
    """
    require(
        Path(mark).exists(),
        f"{socket.gethostname()} does not see {mark}; set SLN_RUNS to a folder that all machines share",
    )
    return work.train_one(config, settings, seconds)


class RayCluster:
    """The workers of a Ray cluster. Raises InputError where Ray is not installed or does not answer.

    A run takes as many processors as it has threads and, where the cluster has GPUs, one, or the share of one
    that `SLN_WORKERS` runs at once leave it. `SLN_DEVICE=cpu` leaves GPUs alone.
    """

    full = False  # what has no room yet waits in the cluster, which may grow

    def __init__(
        self,
        address: str,
        configs: Iterable[Config] = (),
        checkpoint_seconds: float = runs.CHECKPOINT_SECONDS,
    ) -> None:
        self._ray = _connected(address)
        self._running: dict[Any, Config] = {}
        try:
            _check_processors(self._ray.nodes(), configs)
        except InputError:
            self._ray.shutdown()
            raise
        self.checkpoint_seconds = checkpoint_seconds
        self._mark = runs_folder().absolute() / ".heartbeats" / f"sweep-{socket.gethostname()}-{os.getpid()}"
        write_text(self._mark, "a sweep on a Ray cluster\n")
        self._settings = work.settings()
        on_cpu = os.environ.get("SLN_DEVICE") == "cpu"
        if on_cpu:
            self._settings["SLN_DEVICE"] = "cpu"
        gpus = 0 if on_cpu else self._ray.cluster_resources().get("GPU", 0)
        options = {
            "num_gpus": 1 / (pool.per_gpu() or 1) if gpus else 0,
            "max_retries": 0,  # a dead worker's run is queued again by `work`, as on one machine
            "max_calls": 1 if gpus else 0,  # a worker that had a GPU does not keep it
        }
        self._task = self._ray.remote(**options)(train_there)

    def submit(self, config: Config) -> None:
        """Leave a run to the cluster."""
        task = self._task.options(num_cpus=config.threads, name=config.run_id)
        reference = task.remote(config, self._settings, self.checkpoint_seconds, str(self._mark))
        self._running[reference] = config

    def ended(self, seconds: float) -> list[tuple[Config, Heartbeat | Exception]]:
        """The runs that have ended since, as `work.Crew` says."""
        done, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [(self._running.pop(reference), self._result(reference)) for reference in done]

    def close(self) -> None:
        """Stop what still runs and leave the cluster as it was."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running = {}
        self._ray.shutdown()
        self._mark.unlink(missing_ok=True)

    def _result(self, reference: Any) -> Heartbeat | Exception:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            return error.cause
        except self._ray.exceptions.RayError as error:  # the worker died, alone or with its machine
            return WorkerDied(f"its worker on the cluster died: {type(error).__name__}")


def _check_processors(nodes: Iterable[dict[str, Any]], configs: Iterable[Config]) -> None:
    """Raise InputError where no machine has as many processors as a run has threads: it would wait."""
    here = max((node["Resources"].get("CPU", 0) for node in nodes if node["Alive"]), default=0)
    threads = max((config.threads for config in configs), default=1)
    require(
        threads <= here,
        f"runs have {threads} threads, but no machine of the cluster has more than {here:g} processors; "
        f"join one with `ray start --num-cpus {threads}` or more",
    )


def _connected(address: str) -> Any:
    """The module ray, connected to the cluster at `address`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            'Ray is not installed; `pip install -e ".[ray]"` adds it, or sweep without --ray'
        ) from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"no Ray cluster at {address!r} that this machine is part of ({why[:200]}); start one with "
            "`ray start --head`, and join it elsewhere with `ray start --address`"
        ) from None
    return ray
