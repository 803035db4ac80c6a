"""Several runs on one device in one thread: each takes a step in turn, on a GPU on a stream of its own.

One run of the paper's network leaves most of a GPU idle, since its kernels are too small to fill it. One
thread is enough, since a captured step is a single call, and nothing needs a lock: while one run captures,
searches for kernels or measures, no other launches anything. On a CPU, processes are better (`pool`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import torch

from sln import runs
from sln.config import Config
from sln.runs.heartbeat import Heartbeat, Pulse
from sln.runs.run import CHECKPOINT_SECONDS, Run
from sln.train import Epoch
from sln.utils.devices import current, device
from sln.utils.graphs import CaptureFailed


class InTurns:
    """The crew (`work.Crew`) that trains at most `at_once` runs in turns, on `SLN_DEVICE`.

    stop : asked after every epoch of every run; if true, the run is saved and ends with `runs.Stopped`
    on_epoch : called after every epoch of every run
    A run is prepared before its first turn, when the GPU has finished what others have launched.
    """

    def __init__(
        self,
        at_once: int,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        stop: Callable[[], bool] = lambda: False,
        on_epoch: Callable[[Config, Epoch], None] = lambda config, epoch: None,
    ) -> None:
        self.at_once, self.checkpoint_seconds = at_once, checkpoint_seconds
        self.stop, self.on_epoch, self.device = stop, on_epoch, device()
        on_gpu = self.device.type == "cuda"
        self._streams = [torch.cuda.Stream(self.device) if on_gpu else None for _ in range(at_once)]
        self._running: dict[Config, tuple[Generator[None, None, Run], torch.cuda.Stream | None, Pulse]] = {}

    @property
    def full(self) -> bool:
        """Whether as many runs train as may at once, or no other is to begin."""
        return len(self._running) == self.at_once or self.stop()

    def submit(self, config: Config) -> None:
        """Take a run, on the first free stream."""
        taken = [stream for _, stream, _ in self._running.values()]
        free = next(stream for stream in self._streams if stream is None or stream not in taken)
        pulse = Pulse(config)

        def ended(epoch: Epoch) -> None:
            pulse.beat(epoch)
            self.on_epoch(config, epoch)

        options = {"quiet": True, "checkpoint_seconds": self.checkpoint_seconds, "stop": self.stop}
        self._running[config] = (runs.in_turns(config, on_epoch=ended, **options), free, pulse)

    def ended(self, seconds: float) -> list[tuple[Config, Heartbeat | Exception]]:
        """Give every run its turns for so long, or until one has ended; the runs that have.

        Raises CaptureFailed, after which no run of this process can go on: another process goes on from
        their checkpoints.
        """
        until, found = time.monotonic() + seconds, []
        while self._running and not found and time.monotonic() < until:
            for config, (turns, stream, pulse) in list(self._running.items()):
                result: Heartbeat | Exception
                try:
                    with current(self.device), torch.cuda.stream(stream):  # of no stream: nothing
                        next(turns)
                    continue
                except StopIteration:
                    result = pulse.last
                except CaptureFailed as error:
                    raise CaptureFailed(f"{config.run_id}: {error}") from error
                except Exception as error:  # noqa: BLE001  it is this run's, and told with it
                    result = error
                del self._running[config]
                found.append((config, result))
        return found

    def close(self) -> None:
        """Leave the runs where they are; each goes on from its checkpoint another time."""
        for turns, _, _ in self._running.values():
            turns.close()
        self._running = {}
