"""Many runs at once: one run a worker, nothing trained twice, and a killed worker's run goes on in another.

Who trains is a crew: worker processes of this machine (`Processes`), or those of a Ray cluster (`sweep_ray`).
What is left to train, and in which order, is the same queue for both.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from sln import heartbeat, runs, store
from sln.config import Config
from sln.devices import device
from sln.errors import InputError
from sln.files import data_folder, runs_folder
from sln.heartbeat import Heartbeat, Pulse
from sln.progress import Progress
from sln.runs import Run

Item, Result = TypeVar("Item"), TypeVar("Result")

ATTEMPTS = 3  # at the same piece of a run, before a run whose workers are killed is given up
KILLED = "a training process was killed (out of memory?); the same command goes on where it stopped"
TICK = 0.5  # seconds between looks at what changes without a run's ending


# --- what is left to train ----------------------------------------------------------------------------------


class WorkerDied(RuntimeError):
    """The worker of a run was killed, or lost with its machine."""


@dataclass(frozen=True)
class Outcome:
    """How a run has ended.

    last : what its last worker did; None where it did not come to an end
    error : why the run is not finished; None where it is
    """

    config: Config
    last: Heartbeat | None
    error: Exception | None


class Queue:
    """Runs to train: those that wait, those that a crew has, and how the others have ended.

    Uncorrected runs come first. A corrected run waits until its uncorrected run, if that is still to come to
    the correction epoch in this queue, has kept its state there, and forks from it; it does not wait for its
    end.
    """

    def __init__(self, configs: Iterable[Config]) -> None:
        configs = sorted(dict.fromkeys(configs), key=lambda config: config.corrects)
        self.waiting = {config.run_id: config for config in configs}
        self.running: dict[str, Config] = {}
        self.outcomes: list[Outcome] = []
        self.epochs = {config.run_id: config.epochs for config in configs}  # to train, of every run
        self._parents: dict[str, str] = {}
        self._deaths: Counter[tuple[str, int | None]] = Counter()
        for config in filter(lambda config: config.corrects, configs):
            parent = self.waiting.get(config.uncorrected.run_id)
            if parent is not None and parent.fork_epoch == config.correction:
                self._parents[config.run_id] = parent.run_id
                self.epochs[config.run_id] -= config.correction

    def take(self) -> Config | None:
        """The next run that need not wait, which is the taker's from now on; None if there is none."""
        run_id = next((run_id for run_id in self.waiting if not self.held_back(run_id)), None)
        if run_id is None:
            return None
        self.running[run_id] = self.waiting.pop(run_id)
        heartbeat.forget(run_id)  # of an earlier attempt
        return self.running[run_id]

    def held_back(self, run_id: str) -> bool:
        """Whether a waiting run's uncorrected run has not come to its epoch yet."""
        parent = self._parents.get(run_id)
        if parent not in self.waiting and parent not in self.running:  # ended, or not one of these
            return False
        return not store.state_file(runs_folder() / parent, self.waiting[run_id].correction).exists()

    def end(self, config: Config, result: Heartbeat | Exception) -> Outcome | None:
        """Note how a run that was taken ended; None if it is to be tried again, since its worker died.

        It is given up when its workers died `ATTEMPTS` times without a checkpoint in between.
        """
        run_id = config.run_id
        del self.running[run_id]
        if isinstance(result, WorkerDied):
            last = heartbeat.read(run_id)
            attempt = (run_id, last.first if last else None)
            self._deaths[attempt] += 1
            if self._deaths[attempt] < ATTEMPTS:
                self.waiting = {run_id: config} | self.waiting
                return None
        heartbeat.forget(run_id)
        failed = isinstance(result, Exception)
        self.outcomes.append(Outcome(config, None if failed else result, result if failed else None))
        return self.outcomes[-1]


class Crew(Protocol):
    """Who trains runs."""

    @property
    def full(self) -> bool:
        """Whether it would be of no use to give it one more run now."""

    def submit(self, config: Config) -> None:
        """Give it a run to train."""

    def ended(self, seconds: float) -> list[tuple[Config, Heartbeat | Exception]]:
        """The runs that have ended since, each with its last heartbeat, or what it raised, or WorkerDied.

        Waits for the first at most so many seconds.
        """

    def close(self) -> None:
        """Stop what still runs, at once: a run can be killed at any moment and resumed."""


def work_through(
    queue: Queue, crew: Crew, look: Callable[[Queue], object] = lambda queue: None
) -> Iterator[Outcome]:
    """Have the crew train the queue's runs; yields how each ends. `look` is called every half second."""
    while queue.waiting or queue.running:
        while not crew.full and (config := queue.take()) is not None:
            crew.submit(config)
        look(queue)
        for config, result in crew.ended(TICK):
            outcome = queue.end(config, result)
            if outcome is not None:
                yield outcome
    look(queue)


def train_one(config: Config, settings: dict[str, str], checkpoint_seconds: float) -> Heartbeat:
    """In a worker: find or train a run; returns what this worker did for it."""
    os.environ.update(settings)  # a worker outlives changes of its parent's environment
    pulse = Pulse(config)
    runs.get(config, quiet=True, checkpoint_seconds=checkpoint_seconds, on_epoch=pulse.beat)
    return pulse.last


def settings() -> dict[str, str]:
    """What workers are told of this process's environment: where runs and data are, and how to train."""
    told = {"SLN_RUNS": str(runs_folder().absolute()), "SLN_DATA": str(data_folder().absolute())}
    return told | {"SLN_SPEED": os.environ.get("SLN_SPEED", "auto")}


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
    """Worker processes of this machine, one a seat: a pool of its own each, so that one's death is its own.

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
        """The runs that have ended since, as `Crew` says."""
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
    processes = multiprocessing.active_children() if pools else []
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _start_worker(seat: str) -> None:
    """Ctrl-C is the parent's business. A worker whose parent was killed goes too, not to wait for ever."""
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
    try:
        for outcome in work_through(Queue(configs), _shared_crew()):
            if outcome.error is not None:
                raise outcome.error
            progress.advance(last=outcome.config.run_id)
    except BaseException:
        close()
        raise


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
        raise RuntimeError("a worker was killed (out of memory?); start the same again") from None
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
