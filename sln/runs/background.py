"""One run that trains in a process of its own while a page stays usable: watched and cancelled from here."""

import multiprocessing
import time
from multiprocessing.queues import SimpleQueue

from sln import runs
from sln.config import EMBEDDED, Config
from sln.runs import store
from sln.runs.parallel import start_worker
from sln.utils.errors import InputError, require

CHECKPOINT_SECONDS = 1.0  # what a cancelled run loses at most: its network is small, and so is its checkpoint


class Training:
    """A run that is being trained; `start` makes one.

    state : "training", then "done", "cancelled" or "failed"; as of the last `look`
    rows : the rows of its history.csv, written about once a second; none before the first is written here
    problem : what failed, in one line
    """

    def __init__(self, config: Config) -> None:
        self.config, self.state, self.problem = config, "training", ""
        self.rows: list[dict] = []
        self._written, self._first = time.time(), (0, 0.0)  # of the history; its first epoch and time
        spawn = multiprocessing.get_context("spawn")  # a forked child inherits torch's threads, and a kernel
        self._errors: SimpleQueue[str] = spawn.SimpleQueue()
        self._process = spawn.Process(target=_train, args=(config, self._errors), daemon=True)
        self._process.start()

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return int(self.rows[-1]["epoch"]) if self.rows else 0

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the epochs between two writes of the history; None before there are two."""
        epoch, when = self._first
        if self.epoch == epoch:
            return None
        return (self._written - when) / (self.epoch - epoch) * (self.config.epochs - self.epoch)

    def look(self) -> str:
        """Read what the process has written since the last look; never waits. Returns the state."""
        if self.state != "training":
            return self.state
        ended = not self._process.is_alive()  # asked first: what it has written last is read then
        file = store.folder(self.config) / "history.csv"
        written = file.stat().st_mtime if file.exists() else 0.0
        if written > self._written:
            self.rows, self._written = store.read_history(file.parent).to_dict("records"), written
            self._first = (self.epoch, written) if self._first == (0, 0.0) else self._first
        if ended:
            code = self._process.exitcode
            if not self._errors.empty():
                self.problem = self._errors.get()
            elif code:
                way = "start it again to continue from its last checkpoint"
                self.problem = f"the training process ended with code {code} (out of memory?); {way}"
            self.state = "failed" if self.problem else "done"
        return self.state

    def cancel(self) -> None:
        """End it at once. It can be started again and continues from at most a second before."""
        if self.look() == "training":
            self._process.terminate()
            self._process.join()
            self.state = "cancelled"


_current: Training | None = None


def start(config: Config) -> Training:
    """Train a run in the background; InputError while one is trained, and for data sets that take hours."""
    global _current
    page = "a page trains runs on digits and letters only"
    require(config.dataset in EMBEDDED, f"{page}, not on {config.dataset}; use python -m sln train")
    if _current is not None and _current.look() == "training":
        busy = "is being trained, one run at a time; wait for it or cancel it"
        raise InputError(f"{_current.config.run_id} {busy}")
    _current = Training(config)
    return _current


def _train(config: Config, errors: SimpleQueue[str]) -> None:
    """In the process: train; an InputError's line goes to `errors`."""
    start_worker()
    try:
        runs.get(config, quiet=True, checkpoint_seconds=CHECKPOINT_SECONDS)
    except InputError as error:
        errors.put(str(error))
