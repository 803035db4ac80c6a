"""What is left to train, and in which order; who trains it is a crew.

Worker processes of this machine are one (`pool.Processes`), those of a Ray cluster another
(`ray_cluster.RayCluster`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sln import runs
from sln.config import Config
from sln.runs import heartbeat, store
from sln.runs.heartbeat import Heartbeat, Pulse
from sln.utils.files import data_folder, runs_folder

ATTEMPTS = 3  # at the same piece of a run, before a run whose workers are killed is given up
TICK = 0.5  # seconds between looks at what changes without a run's ending


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
        self._deaths: Counter[tuple[str, int | None]] = Counter()  # by run, and the age of its checkpoint
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
            attempt = (run_id, store.checkpointed(config))
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

        Waits for the first at most `seconds`.
        """

    def close(self) -> None:
        """Stop what still runs, at once: a run can be killed at any moment and resumed."""


def work_through(
    queue: Queue, crew: Crew, look: Callable[[Queue], object] = lambda queue: None
) -> Iterator[Outcome]:
    """Have the crew train the queue's runs; yields how each ends. `look` is called every half second.

    Ends when all have ended, or when none runs and the crew takes no other.
    """
    while queue.waiting or queue.running:
        while not crew.full and (config := queue.take()) is not None:
            crew.submit(config)
        look(queue)
        if not queue.running:  # the crew takes no more
            return
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
