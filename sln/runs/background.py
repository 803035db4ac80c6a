"""One run that trains while a page stays usable: in a process of its own, watched and cancelled from here."""

from __future__ import annotations

import multiprocessing
import signal
import time
from multiprocessing.connection import Connection

from sln import runs
from sln.config import Config
from sln.runs import store
from sln.train import Epoch
from sln.utils.errors import InputError, require

CHECKPOINT_SECONDS = 1.0  # what a cancelled run loses at most: its network is small, and so is its checkpoint

_current: Training | None = None


class Training:
    """A run that is being trained; `start` makes one.

    state : "training", then "done", "cancelled" or "failed"; as of the last `look`
    rows : the history's rows so far, those before a resumption included
    problem : what failed, in one line
    """

    def __init__(self, config: Config) -> None:
        self.config, self.state, self.problem = config, "training", ""
        self.rows: list[dict] = []
        self._timed_from: int | None = None  # the first epoch that was trained here, and when it ended
        self._began = self._latest = 0.0
        spawn = multiprocessing.get_context("spawn")  # a forked child inherits torch's threads, and a kernel
        self._messages, sender = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_train, args=(config, sender), daemon=True)
        self._process.start()
        sender.close()  # so that the end of the process is the end of its messages

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return int(self.rows[-1]["epoch"]) if self.rows else 0

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the epochs so far; None before there are any."""
        if self._timed_from is None or self.epoch == self._timed_from:
            return None
        trained = self.epoch - self._timed_from
        return (self._latest - self._began) / trained * (self.config.epochs - self.epoch)

    def look(self) -> str:
        """Take in what the process has reported since the last look; never waits. Returns the state."""
        try:
            while self.state == "training" and self._messages.poll():
                self._take(self._messages.recv())
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            if code and not self.problem:
                self.problem = (
                    f"the training process ended with code {code} (out of memory?); the run is kept up to "
                    "its last checkpoint, start it again to go on"
                )
            self.state = "failed" if self.problem else "done"
        return self.state

    def _take(self, message: list[dict] | str) -> None:
        if isinstance(message, str):
            self.problem = message
            return
        self.rows += message
        self._latest = time.monotonic()
        if self._timed_from is None:
            self._timed_from, self._began = self.epoch, self._latest

    def cancel(self) -> None:
        """End it at once. What it has learnt up to a second ago is kept: started again, it goes on there."""
        if self.look() == "training":
            self._process.terminate()
            self._process.join()
            self.state = "cancelled"


def start(config: Config) -> Training:
    """Train the run of `config` in the background, one at a time in this process.

    Raises InputError while another is being trained, and for data sets whose runs take hours.
    """
    global _current
    require(
        config.dataset == "digits",
        f"a page trains runs on the digits only, not on {config.dataset}; use python -m sln train",
    )
    if _current is not None and _current.look() == "training":
        raise InputError(
            f"{_current.config.run_id} is being trained, one run at a time; wait for it or cancel it"
        )
    _current = Training(config)
    return _current


def _train(config: Config, messages: Connection) -> None:
    """In the process: train, and report the history's new rows; of a failure, its one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupting a kernel is not meant for it
    first = True

    def report(epoch: Epoch) -> None:
        nonlocal first
        messages.send((_rows_before(config, epoch.number) if first else []) + epoch.rows)
        first = False

    try:
        runs.get(config, quiet=True, checkpoint_seconds=CHECKPOINT_SECONDS, on_epoch=report)
    except BrokenPipeError:  # whoever started it is gone
        return
    except InputError as error:
        messages.send(str(error))


def _rows_before(config: Config, epoch: int) -> list[dict]:
    """The history of the epochs that an earlier process has trained; none where this one began."""
    path = store.folder(config)
    if epoch == 1 or not (path / "history.csv").exists():
        return []
    history = store.read_history(path)
    return history[history["epoch"] < epoch].to_dict("records")
