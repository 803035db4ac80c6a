"""Many runs at once: one process pool, one run a process, nothing trained twice."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from sln import runs
from sln.config import Config
from sln.errors import InputError
from sln.progress import Progress
from sln.runs import Run


def workers() -> int:
    """Processes to use: `SLN_WORKERS`, default one a processor that this process may use."""
    asked = os.environ.get("SLN_WORKERS")
    if asked is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not asked.isdecimal() or int(asked) < 1:
        raise InputError(f"SLN_WORKERS is {asked!r}, expected a whole number from 1 up")
    return int(asked)


def get_all(configs: Iterable[Config], what: str = "training") -> list[Run]:
    """The runs of `configs`, in their order; those that are missing are trained, several at a time.

    Runs with label correction come last, so that they fork from their uncorrected run if that is asked for
    too. Raises what training raises; runs that were finished by then are kept, and asking again goes on from
    there.
    """
    configs = list(configs)
    missing = [config for config in dict.fromkeys(configs) if runs.find(config) is None]
    waves = [[c for c in missing if not c.corrects], [c for c in missing if c.corrects]]
    if missing:
        with Progress(len(missing), what, "runs") as progress:
            for wave in waves:
                _train_wave(wave, progress)
    return [runs.get(config) for config in configs]


def _train_wave(configs: list[Config], progress: Progress) -> None:
    processes = min(workers(), len(configs))
    if processes <= 1:
        for config in configs:
            runs.get(config, quiet=True)
            progress.advance(last=config.run_id)
        return
    # spawn, not fork: a forked child inherits torch's threads in an unknown state
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_die_with_parent) as pool:
        pending = {pool.submit(_train_one, config): config for config in configs}
        try:
            for finished in as_completed(pending):
                finished.result()
                progress.advance(last=pending[finished].run_id)
        except BrokenProcessPool:
            raise RuntimeError(
                "a training process was killed (out of memory?); run the same again, it goes on where it stopped"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()  # a run can be killed at any moment and resumed
            raise


def _train_one(config: Config) -> None:
    runs.get(config, quiet=True)


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: watch the parent, and go when it goes."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
