"""Many runs at once on this machine: nothing trained twice, and a killed worker's run goes on in another."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from sln import runs
from sln.config import Config
from sln.runs.heartbeat import Heartbeat
from sln.runs.run import Run
from sln.runs.turns import InTurns
from sln.runs.work import Queue, WorkerDied, settings, train_one, work_through
from sln.utils.devices import device
from sln.utils.errors import InputError
from sln.utils.progress import Progress

Item, Result = TypeVar("Item"), TypeVar("Result")

KILLED = (
    "a training process was killed (out of memory?), the same again goes on where it stopped; or it could "
    'not start: a script that trains must do so below `if __name__ == "__main__":`'
)


# --- worker processes of this machine -----------------------------------------------------------------------


def per_gpu() -> int | None:
    """How many runs train at once on a GPU, or in all where there is none: `SLN_WORKERS`, or None."""
    asked = os.environ.get("SLN_WORKERS")
    if asked is None:
        return None
    if not asked.isdecimal() or int(asked) < 1:
        raise InputError(f"SLN_WORKERS is {asked!r}, expected a whole number from 1 up")
    return int(asked)


def seats() -> list[str]:
    """Where each worker computes, as `SLN_DEVICE` says it.

    One worker a GPU, or `SLN_WORKERS`, on the GPU that `SLN_DEVICE` names, else on all of them in turn. On
    the CPU one for each processor that we may use, or `SLN_WORKERS` in all.
    """
    chosen, asked = device(), per_gpu()
    if chosen.type == "cpu":
        return ["cpu"] * (asked or processors())
    named = ":" in os.environ.get("SLN_DEVICE", "")
    gpus = [str(chosen)] if named else [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    return gpus * (asked or 1)


def workers() -> int:
    """Processes to use: as many as there are `seats`."""
    return len(seats())


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """Worker processes of this machine, one per seat: a pool each, so that one death is one run's.

    Starting a worker costs seconds (it imports torch), so a worker is kept for the next run.
    """

    def __init__(self, seats: list[str], checkpoint_seconds: float = runs.CHECKPOINT_SECONDS) -> None:
        self.seats, self.checkpoint_seconds = seats, checkpoint_seconds
        self._pools: dict[int, ProcessPoolExecutor] = {}  # by seat, once it is taken
        self._running: dict[Future, tuple[int, Config]] = {}

    @property
    def full(self) -> bool:
        """Whether every seat is taken."""
        return len(self._running) == len(self.seats)

    def submit(self, config: Config) -> None:
        """Train a run on the first free seat."""
        taken = {seat for seat, _ in self._running.values()}
        seat = next(seat for seat in range(len(self.seats)) if seat not in taken)
        job = (train_one, config, settings(), self.checkpoint_seconds)
        try:
            future = self._pool(seat).submit(*job)
        except BrokenProcessPool:  # its worker was killed while it had nothing to do
            del self._pools[seat]
            future = self._pool(seat).submit(*job)
        self._running[future] = (seat, config)

    def ended(self, seconds: float) -> list[tuple[Config, Heartbeat | Exception]]:
        """The runs that have ended since, as `work.Crew` says."""
        found: list[tuple[Config, Heartbeat | Exception]] = []
        for future in wait(self._running, seconds, FIRST_COMPLETED).done:
            seat, config = self._running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                self._pools.pop(seat).shutdown(wait=False)
                error = WorkerDied(KILLED)
            found.append((config, error or future.result()))
        return found

    def close(self) -> None:
        """End the workers, at once."""
        _end(list(self._pools.values()))
        self._pools, self._running = {}, {}

    def _pool(self, seat: int) -> ProcessPoolExecutor:
        if seat not in self._pools:
            self._pools[seat] = _executor(1, self.seats[seat])
        return self._pools[seat]


def _executor(count: int, seat: str) -> ProcessPoolExecutor:
    # a forked child inherits torch's threads in an unknown state
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=spawn, initializer=_start_worker, initargs=(seat,))


def _end(pools: list[ProcessPoolExecutor]) -> None:
    """End workers at once."""
    # public ways to end a pool's processes come with Python 3.14; other children are none of our business
    processes = [process for pool in pools for process in (pool._processes or {}).values()]
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _start_worker(seat: str) -> None:
    """Ctrl-C is the parent's business. A worker whose parent was killed goes, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["SLN_DEVICE"] = seat

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- what a notebook asks for -------------------------------------------------------------------------------

# a notebook's workers are kept until it ends
_crew: Processes | None = None


def get_all(configs: Iterable[Config], what: str = "training") -> list[Run]:
    """The runs of `configs`, in their order; those that are missing are trained, several at a time.

    Corrected runs fork from their uncorrected run if that is asked for too. A killed worker's run goes on in
    another worker. Raises what training raises, and RuntimeError for a run whose workers are killed again and
    again; runs that were finished by then are kept, and asking again goes on from there.
    """
    configs = list(configs)
    missing = [config for config in dict.fromkeys(configs) if runs.find(config) is None]
    if missing:
        with Progress(len(missing), what, "runs") as progress:
            _train(missing, progress)
    return [runs.get(config) for config in configs]


def _train(configs: list[Config], progress: Progress) -> None:
    if min(workers(), len(configs)) <= 1:
        for config in sorted(configs, key=lambda config: config.corrects):
            runs.get(config, quiet=config.dataset == "digits")  # seconds; others take hours
            progress.advance(last=config.run_id)
        return
    crew = in_turns() or _shared_crew()
    try:
        for outcome in work_through(Queue(configs), crew):
            if outcome.error is not None:
                raise outcome.error
            progress.advance(last=outcome.config.run_id)
    except BaseException:
        crew.close()
        close()
        raise


def in_turns() -> InTurns | None:
    """What trains several runs at once on the only GPU of `seats`; None where there is none, or several.

    Kernels of several processes on one GPU never overlap, those of one process do.
    """
    where = set(seats())
    return InTurns(len(seats())) if len(where) == 1 and where != {"cpu"} else None


def _shared_crew() -> Processes:
    global _crew
    if _crew is None or _crew.seats != seats():
        close()
        _crew = Processes(seats())
        atexit.register(close)
    return _crew


# --- other work than runs -----------------------------------------------------------------------------------

_hands: ProcessPoolExecutor | None = None


def each(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
    """`work` of every item, several at a time, as they are done: (position, result).

    `work` is a function of a module, and items and results can be pickled. On one device: of several GPUs
    the first. Raises what `work` raises, and then no worker is left.
    """
    if min(workers(), len(items)) <= 1:
        yield from enumerate(map(work, items))
        return
    hands = _shared_hands()
    pending = {hands.submit(work, item): position for position, item in enumerate(items)}
    try:
        for finished in as_completed(pending):
            yield pending[finished], finished.result()
    except BrokenProcessPool:
        close()
        raise WorkerDied(KILLED) from None
    except BaseException:
        close()
        raise


def _shared_hands() -> ProcessPoolExecutor:
    global _hands
    if _hands is None:
        _hands = _executor(workers(), seats()[0])
        atexit.register(close)
    return _hands


def close() -> None:
    """End the workers that `get_all` and `each` keep, at once."""
    global _crew, _hands
    if _crew is not None:
        _crew.close()
        _crew = None
    if _hands is not None:
        _end([_hands])
        _hands = None
