"""Several runs on one device in one thread: each takes a step in turn, on a GPU on a stream of its own.

One run of the paper's network leaves most of a GPU idle, since its kernels are too small to fill it. One
thread is enough, since a captured step is a single call, and nothing needs a lock: while one run captures,
searches for kernels or measures, no other run launches anything. On a CPU, processes are better (`parallel`).
"""

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from sln import runs
from sln.config import Config
from sln.runs import store
from sln.train import Epoch
from sln.utils.devices import current, device
from sln.utils.graphs import CaptureFailed

Result = tuple[Config, Exception | None]  # a run that has ended; None: it is finished


def train(
    configs: Sequence[Config],
    at_once: int,
    *,
    keep_state_at: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[Config, Epoch], None] = lambda config, epoch: None,
    **options: Any,
) -> Generator[Result, None, None]:
    """Train runs on `SLN_DEVICE`, at most `at_once` in turns; yields each run as it ends, with its error.

    Uncorrected runs come first. A corrected run starts as soon as its uncorrected run, if that is among
    `configs`, has kept the state of the correction epoch. A run is prepared before its first turn, when the
    GPU has finished what others have launched. Options are those of `runs.in_turns`:

    keep_state_at : the epoch whose state the other uncorrected runs keep
    stop : if it returns true, also no other run starts

    Raises CaptureFailed, after which no run of this process can continue; another process can, from their
    checkpoints. Closing the generator leaves the runs at their checkpoints.
    """
    where = device()
    free = [torch.cuda.Stream(where) if where.type == "cuda" else None for _ in range(at_once)]
    waiting = sorted(dict.fromkeys(configs), key=lambda config: config.corrects)
    unfinished = {config.run_id for config in waiting}
    forks = {config: store.folder(config.uncorrected) for config in waiting if config.corrects}
    keep = {path.name: config.correction for config, path in forks.items()}
    running: dict[Config, tuple[Generator, torch.cuda.Stream | None]] = {}

    def ready(config: Config) -> bool:
        parent = forks.get(config)
        waits = parent is not None and parent.name in unfinished
        return not waits or store.state_file(parent, config.correction).exists()

    try:
        while waiting or running:
            while free and not stop() and (config := next(filter(ready, waiting), None)) is not None:
                waiting.remove(config)
                options |= {"quiet": True, "stop": stop, "on_epoch": functools.partial(on_epoch, config)}
                kept = keep.get(config.run_id, keep_state_at)
                running[config] = runs.in_turns(config, keep_state_at=kept, **options), free.pop(0)
            if not running:  # stopped
                return
            for config, (run, stream) in list(running.items()):
                try:
                    with current(where), torch.cuda.stream(stream):  # None changes nothing
                        next(run)
                except StopIteration:
                    error = None
                except CaptureFailed as problem:
                    raise CaptureFailed(f"{config.run_id}: {problem}") from problem
                except Exception as problem:  # noqa: BLE001  it belongs to this run, the others are trained
                    error = problem
                else:
                    continue
                del running[config]
                free.append(stream)
                unfinished.discard(config.run_id)
                yield config, error
    finally:
        for run, _ in running.values():
            run.close()
