"""Many runs at once: one process pool, one run a process, nothing trained twice."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sln import runs
from sln.config import Config
from sln.devices import device
from sln.errors import InputError
from sln.progress import Progress
from sln.runs import Run

Item, Result = TypeVar("Item"), TypeVar("Result")

# Starting a worker costs seconds (it imports torch), so a notebook's workers are kept until it ends.
_pool: ProcessPoolExecutor | None = None


def workers() -> int:
    """Processes to use: `SLN_WORKERS`, default one on a GPU, else one for each processor that we may use."""
    asked = os.environ.get("SLN_WORKERS")
    if asked is None:
        if device().type != "cpu":
            return 1
        return processors()
    if not asked.isdecimal() or int(asked) < 1:
        raise InputError(f"SLN_WORKERS is {asked!r}, expected a whole number from 1 up")
    return int(asked)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_all(configs: Iterable[Config], what: str = "training") -> list[Run]:
    """The runs of `configs`, in their order; those that are missing are trained, several at a time.

    Runs with label correction come last, so that they fork from their uncorrected run if that is asked for
    too. Raises what training raises; runs that were finished by then are kept, and asking again goes on from
    there.
    """
    configs = list(configs)
    missing = [config for config in dict.fromkeys(configs) if runs.find(config) is None]
    if missing:
        with Progress(len(missing), what, "runs") as progress:
            _train([config for config in missing if not config.corrects], progress)
            _train([config for config in missing if config.corrects], progress)
    return [runs.get(config) for config in configs]


def each(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
    """`work` of every item, several at a time, as they are done: (position, result).

    `work` is a function of a module, and items and results can be pickled. Raises what `work` raises, and
    then no worker is left.
    """
    if min(workers(), len(items)) <= 1:
        yield from enumerate(map(work, items))
        return
    pool = _shared_pool()
    pending = {pool.submit(work, item): position for position, item in enumerate(items)}
    try:
        for finished in as_completed(pending):
            yield pending[finished], finished.result()
    except BrokenProcessPool:
        close()
        raise RuntimeError("a worker was killed (out of memory?); start the same again") from None
    except BaseException:
        close()
        raise


def _train(configs: list[Config], progress: Progress) -> None:
    """Train runs that do not depend on each other."""
    if min(workers(), len(configs)) <= 1:
        for config in configs:
            _train_one(config, None, quiet=config.dataset == "digits")  # seconds; others take hours
            progress.advance(last=config.run_id)
        return
    pool, folder = _shared_pool(), str(runs.runs_folder())
    pending: dict[Future, Config] = {pool.submit(_train_one, config, folder): config for config in configs}
    try:
        for finished in as_completed(pending):
            finished.result()
            progress.advance(last=pending[finished].run_id)
    except BrokenProcessPool:
        close()
        message = "a training process was killed (out of memory?); the same command goes on where it stopped"
        raise RuntimeError(message) from None
    except BaseException:
        close()
        raise


def _train_one(config: Config, folder: str | None, quiet: bool = True) -> None:
    if folder is not None:  # a worker outlives changes of its parent's environment
        os.environ["SLN_RUNS"] = folder
    runs.get(config, quiet=quiet)


def _shared_pool() -> ProcessPoolExecutor:
    global _pool
    if _pool is None:
        spawn = multiprocessing.get_context(
            "spawn"
        )  # a forked child inherits torch's threads in an unknown state
        _pool = ProcessPoolExecutor(workers(), mp_context=spawn, initializer=_start_worker)
        atexit.register(close)
    return _pool


def close() -> None:
    """End the workers, at once: a run can be killed at any moment and resumed."""
    global _pool
    if _pool is not None:
        processes = multiprocessing.active_children()
        _pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        _pool = None


def _start_worker() -> None:
    """Ctrl-C is the parent's business. A worker whose parent was killed goes too, not to wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
