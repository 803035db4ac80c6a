"""All runs of a profile, on this machine or on a Ray cluster, with a table of what happens.

    python -m sln sweep cifar10 --seeds 5

The runs are those that `reproduce` would ask for. Settings are chosen on the way, so the candidates come
first. Whatever ends it, the same command goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sln import runs
from sln.config import Config
from sln.runs import heartbeat, pool
from sln.runs.heartbeat import Heartbeat
from sln.runs.work import Crew, Outcome, Queue, WorkerDied, work_through
from sln.study.experiments import planned
from sln.study.plan import at_once, in_words, plan, require_data
from sln.study.study import Study
from sln.utils.errors import InputError
from sln.utils.progress import SECONDS_BETWEEN_LINES, watched


def sweep(profile: str, *, seeds: int | None = None, ray: str | None = None, dry_run: bool = False) -> int:
    """Train what is missing of a profile's runs.

    Parameters
    ----------
    seeds : runs of every configuration, instead of the profile's own number
    ray : address of a Ray cluster to train on, `auto` for the one that this machine is part of; default here
    dry_run : only print what would be trained, with an estimate of the time on this machine

    Returns 0 if all are finished, 1 if one failed; the others are trained all the same, except those that
    depend on a choice among candidates of which one failed. Raises InputError for an unknown profile, for
    data that are missing, and for a cluster that does not answer, before anything is trained.
    """
    study = Study(profile, guesses=True, seeds=seeds)
    asked = planned(study)
    if dry_run:
        print(in_words(plan(study), at_once(asked)))
        return 0
    require_data(study)
    start, outcomes = time.monotonic(), []
    with contextlib.closing(crew(asked, ray)) as workers:
        while True:  # what is chosen decides what comes next, perhaps the candidates of another choice
            study = Study(profile, guesses=True, seeds=seeds)
            asked = planned(study)
            candidates = missing(study.candidates)
            what = f"{profile}: candidates" if candidates else profile
            outcomes += train(candidates or missing(asked), workers, what)
            if not candidates or failures(outcomes):
                break
    print(in_one_line(profile, len(asked), outcomes, time.monotonic() - start))
    return 1 if failures(outcomes) else 0


def crew(configs: Iterable[Config], ray: str | None) -> Crew:
    """What trains on this machine (processes, or one GPU in turns), or the Ray cluster at that address."""
    if ray is None:
        return pool.in_turns() or pool.Processes(pool.seats())
    from sln.runs.ray_cluster import RayCluster

    return RayCluster(ray, configs)


def missing(configs: Iterable[Config]) -> list[Config]:
    """Those that are not trained yet, each once; a damaged one too, whose error comes in its turn."""

    def found(config: Config) -> bool:
        try:
            return runs.find(config) is not None
        except InputError:
            return False

    return [config for config in dict.fromkeys(configs) if not found(config)]


def train(configs: list[Config], crew: Crew, what: str) -> list[Outcome]:
    """Have the crew train the runs, and show how it goes; one that fails does not keep the others."""
    if not configs:
        return []
    queue, display = Queue(configs), Display(what)
    try:
        for outcome in work_through(queue, crew, display.look):
            if outcome.error is not None:
                display.say(f"sln: {outcome.config.run_id} failed: {in_words_of(outcome.error)}")
    finally:
        for run_id in queue.running:  # interrupted
            heartbeat.forget(run_id)
    return queue.outcomes


def failures(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that have ended with an error."""
    return [outcome for outcome in outcomes if outcome.error is not None]


def in_words_of(error: Exception) -> str:
    """An error in one line; one that is not the user's with its type."""
    words = " ".join(str(error).split())
    return words if isinstance(error, InputError | WorkerDied) else f"{type(error).__name__}: {words}"


def in_one_line(profile: str, total: int, outcomes: list[Outcome], seconds: float) -> str:
    """What a sweep did: how many runs there were, were trained now and failed, and how long it took."""
    failed = len(failures(outcomes))
    trained = sum(outcome.last.trained > 0 for outcome in outcomes if outcome.last is not None)
    told = f"{profile}: {total} runs, {trained} of them trained now in {duration(seconds)}"
    return told + (f", {failed} failed; the same command tries them again" if failed else "")


# --- the table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """How a sweep stands.

    running : the last heartbeat of every run that trains now, by run
    queued, held_back : runs that could start now, and that wait for their uncorrected run's epoch
    seconds, left : since the start, and about until the end; None while nothing is known of it
    """

    done: int
    failed: int
    running: dict[str, Heartbeat]
    queued: int
    held_back: int
    seconds: float
    left: float | None

    @property
    def total(self) -> int:
        """All runs."""
        return self.done + self.failed + len(self.running) + self.queued + self.held_back


def standing(queue: Queue, seconds: float) -> Standing:
    """How the queue stands, `seconds` after its start.

    The time left is that of the epochs left, at so many a second as were trained up to now, by all workers.
    """
    heard = {run_id: heartbeat.read(run_id) for run_id in queue.running}
    running = {run_id: last for run_id, last in heard.items() if last is not None}
    held_back = sum(queue.held_back(run_id) for run_id in queue.waiting)
    failed = len(failures(queue.outcomes))
    ended = [outcome.last for outcome in queue.outcomes if outcome.last is not None]
    trained = sum(last.trained for last in [*ended, *running.values()])
    begun = {run_id: last.epochs - last.epoch for run_id, last in running.items() if last.trained}
    left = sum(begun.get(run_id, queue.epochs[run_id]) for run_id in [*queue.waiting, *queue.running])
    return Standing(
        done=len(queue.outcomes) - failed,
        failed=failed,
        running=running,
        queued=len(queue.waiting) - held_back + len(queue.running) - len(running),
        held_back=held_back,
        seconds=seconds,
        left=left * seconds / trained if trained else None,
    )


def summary(what: str, now: Standing) -> str:
    """One line: how many runs are done, run, and wait, and the time left."""
    parts = [f"{now.done}/{now.total} runs done", f"{len(now.running)} running", f"{now.queued} queued"]
    if now.held_back:
        parts.append(f"{now.held_back} waiting for another's epoch")
    if now.failed:
        parts.append(f"{now.failed} failed")
    left = "" if now.left is None else f", about {duration(now.left)} left"
    return f"{what}: {', '.join(parts)} ({duration(now.seconds)}{left})"


def table(what: str, now: Standing, width: int, height: int) -> list[str]:
    """The summary, and below it a line for each running run, cut to a terminal's size in characters."""
    lines = [summary(what, now)]
    names = max([len("run"), *map(len, now.running)])
    if now.running:
        lines.append(f"{'run':{names}}  {'epoch':>9}  {'left':>9}  where")
    for run_id, last in now.running.items():
        left = (last.epochs - last.epoch) * last.seconds / last.trained if last.trained else None
        epoch = f"{last.epoch}/{last.epochs}"
        time_left = "" if left is None else duration(left)
        lines.append(f"{run_id:{names}}  {epoch:>9}  {time_left:>9}  {last.host}:{last.pid}")
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], f"... and {hidden} more"]
    return [line[:width] for line in lines]


def duration(seconds: float) -> str:
    """`1:02:03`, or `2 days, 1:02:03`."""
    return str(datetime.timedelta(seconds=round(seconds)))


class Display:
    """Shows how a queue stands: a table redrawn in place on a terminal, else a line now and then."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._start = self._last_line = time.monotonic()
        self._in_place = watched() and sys.stderr.isatty()
        self._drawn = 0  # lines of the table that stands on the terminal

    def look(self, queue: Queue) -> None:
        """Show how the queue stands now."""
        now = time.monotonic()
        if self._in_place:
            size = shutil.get_terminal_size()
            lines = table(self.what, standing(queue, now - self._start), size.columns - 1, size.lines - 1)
            self._draw(lines)
        elif now - self._last_line > SECONDS_BETWEEN_LINES or not (queue.waiting or queue.running):
            self._last_line = now
            print(summary(self.what, standing(queue, now - self._start)), file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Print a line that stays, above the table."""
        self._draw([])
        print(line, file=sys.stderr, flush=True)

    def _draw(self, lines: list[str]) -> None:
        # ANSI: up to the table's first line, and clear from there
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        sys.stderr.write(up + "".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)
