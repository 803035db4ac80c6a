"""Runs on a Ray cluster: every family is a task, on whichever machine has room for it.

Ray starts workers, finds them room, and repeats the task of a worker that died: the run continues from its
checkpoint. Machines must see the same runs and data under the same paths, and have this package installed.

The lock that keeps a run from being trained twice is the file system's (flock). On NFS the server frees it
when it no longer hears of the machine that holds it (by default after 90 seconds), and a lost machine's run
waits that long in its new place.
"""

import os
import socket
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from sln.config import Config
from sln.runs import parallel
from sln.runs.one_gpu import Result
from sln.runs.parallel import WorkerDied
from sln.utils.errors import InputError, require
from sln.utils.files import runs_folder, write_text


def train(address: str, configs: Sequence[Config], **options: Any) -> Generator[Result, None, None]:
    """`parallel.train` on the Ray cluster at `address`: yields each run as it ends, with its error or None.

    A run takes as many processors as it has threads and, where the cluster has GPUs, one GPU, or the share of
    one that `SLN_WORKERS` runs at once leave it. `SLN_DEVICE=cpu` leaves GPUs alone. Closing the generator
    stops what still runs. Raises InputError where Ray is not installed or does not answer.
    """
    ray = _connected(address)
    mark = runs_folder().absolute() / f".sweep-{socket.gethostname()}-{os.getpid()}"
    settings, running, on_cpu = parallel.environment(), {}, os.environ.get("SLN_DEVICE") == "cpu"
    settings |= {"SLN_DEVICE": "cpu"} if on_cpu else {}
    gpus = 0 if on_cpu else ray.cluster_resources().get("GPU", 0)
    try:
        # a run with more threads than any machine has processors would wait
        here = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        threads = max((config.threads for config in configs), default=1)
        require(
            threads <= here,
            f"runs have {threads} threads, but no machine of the cluster has more than {here:g} processors; "
            f"join one with `ray start --num-cpus {threads}` or more",
        )
        write_text(mark, "a sweep on a Ray cluster\n")
        task = ray.remote(
            num_gpus=1 / (parallel.per_gpu() or 1) if gpus else 0,
            max_retries=parallel.ATTEMPTS,
            max_calls=1 if gpus else 0,  # a worker that had a GPU does not keep it
        )(train_there)
        for family in parallel.families(configs):
            first = task.options(num_cpus=family[0].threads, name=family[0].run_id)
            running[first.remote(str(mark), settings, family, options)] = family
        while running:
            (done, *_), _ = ray.wait(list(running))
            family = running.pop(done)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayTaskError as error:
                yield from ((config, error.cause) for config in family)
            except ray.exceptions.RayError as error:  # the workers died, alone or with their machines
                died = WorkerDied(f"its worker on the cluster died: {type(error).__name__}")
                yield from ((config, died) for config in family)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.shutdown()
        mark.unlink(missing_ok=True)


def train_there(mark: str, settings: dict[str, str], *work: Any) -> list[Result]:
    """In a worker of the cluster: `parallel.train_family`, where the file `mark` of the sweep is visible."""
    way = "set SLN_RUNS to a folder that all machines share"
    require(Path(mark).exists(), f"{socket.gethostname()} does not see {mark}; {way}")
    return parallel.train_family(settings, *work)


def _connected(address: str) -> Any:
    """The module ray, connected to the cluster at `address`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        way = '`pip install -e ".[ray]"` adds it, or sweep without --ray'
        raise InputError(f"Ray is not installed; {way}") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        way = "start one with `ray start --head`, and join it elsewhere with `ray start --address`"
        found = f"no Ray cluster at {address!r} that this machine is part of ({why})"
        raise InputError(f"{found}; {way}") from None
    return ray
