"""What a run that trains somewhere says of itself: how far it is, where, and for how long.

One small file a run, `runs/.heartbeats/<run_id>.json`, beside the runs and no part of any: whoever sees the
folder, on this machine or on another one that shares it, can look on.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sln.config import Config
from sln.train import Epoch
from sln.utils.errors import InputError
from sln.utils.files import read_json, runs_folder, write_json

SECONDS_BETWEEN = 1.0


@dataclass(frozen=True)
class Heartbeat:
    """How far one process has come with a run.

    first : the first epoch that this process trains itself; None until one has ended
    epoch, epochs : the last epoch that has ended, and how many there will be
    seconds : since this process took the run
    host, pid : where it is
    """

    epochs: int
    first: int | None = None
    epoch: int = 0
    seconds: float = 0.0
    host: str = ""
    pid: int = 0

    @property
    def trained(self) -> int:
        """Epochs that this process has trained."""
        return 0 if self.first is None else self.epoch - self.first + 1


class Pulse:
    """The heartbeat of the run that this process trains: written at the first epoch, then once a second."""

    def __init__(self, config: Config) -> None:
        self._run_id, self._epochs = config.run_id, config.epochs
        self._first: int | None = None
        self._epoch = 0
        self._start = self._written = time.monotonic()
        write_json(path(self._run_id), asdict(self.last))

    @property
    def last(self) -> Heartbeat:
        """How far it is now."""
        seconds = time.monotonic() - self._start
        return Heartbeat(self._epochs, self._first, self._epoch, seconds, socket.gethostname(), os.getpid())

    def beat(self, epoch: Epoch) -> None:
        """Count an epoch that has ended."""
        fresh, self._epoch = self._first is None, epoch.number
        if fresh:
            self._first = epoch.number
        if fresh or time.monotonic() - self._written > SECONDS_BETWEEN:
            write_json(path(self._run_id), asdict(self.last))
            self._written = time.monotonic()


def path(run_id: str) -> Path:
    """Where the heartbeat of a run is."""
    return runs_folder() / ".heartbeats" / f"{run_id}.json"


def read(run_id: str) -> Heartbeat | None:
    """What the run last said; None where it has not said anything yet, or what it said is of no use."""
    try:
        return Heartbeat(**read_json(path(run_id)))
    except (InputError, TypeError):  # not there yet, or another version's: only the table would miss it
        return None


def forget(run_id: str) -> None:
    """Remove what the run last said."""
    path(run_id).unlink(missing_ok=True)
