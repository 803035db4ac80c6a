"""Several runs at once on this machine (`get_all`), and any other work (`each`).

A family, an uncorrected run and the corrected runs that fork from it, is one job of one worker process: the
uncorrected run first, which keeps its state at the correction epoch. On a single GPU this process trains all
runs instead (`one_gpu`), since kernels of several processes on one GPU never overlap. A worker that is killed
ends the other workers too; all their runs continue from their checkpoints.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from joblib.externals.loky import get_reusable_executor

from sln import runs
from sln.config import EMBEDDED, Config
from sln.runs import one_gpu, store
from sln.runs.one_gpu import Result
from sln.runs.run import Run
from sln.utils.devices import device
from sln.utils.errors import require
from sln.utils.files import data_folder, figures_folder, runs_folder
from sln.utils.progress import Progress

ATTEMPTS = 3  # of a family without a new checkpoint, before it is given up
KILLED = (
    "a training process was killed (out of memory?); start the same command again to continue from the last "
    "checkpoints, with fewer workers (SLN_WORKERS) if memory is short"
)


class WorkerDied(RuntimeError):
    """The worker of a run was killed, or lost with its machine."""


def per_gpu() -> int | None:
    """`SLN_WORKERS`: how many runs train at once on each GPU, or in all on the CPU; None by default."""
    asked = os.environ.get("SLN_WORKERS")
    allowed = asked is None or (asked.isdecimal() and int(asked) > 0)
    require(allowed, f"SLN_WORKERS is {asked!r}, expected a whole number from 1 up")
    return None if asked is None else int(asked)


def slots() -> list[str]:
    """The device of each run that trains at once, as a value of `SLN_DEVICE`.

    On GPUs one run, or `SLN_WORKERS`, on the GPU that `SLN_DEVICE` names, by default on each of them. On the
    CPU one run per processor that this process may use, or `SLN_WORKERS` in all.
    """
    chosen, asked = device(), per_gpu()
    if chosen.type == "cpu":
        return ["cpu"] * (asked or processors())
    named = ":" in os.environ.get("SLN_DEVICE", "")
    gpus = [str(chosen)] if named else [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    return gpus * (asked or 1)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_all(configs: Iterable[Config], what: str = "training", **options: Any) -> list[Run]:
    """The runs of `configs`, in their order; missing ones are trained, several at a time, by `train`.

    Raises what training raises, and WorkerDied for a run whose workers are killed again and again. Runs that
    are finished by then are kept, and the same call continues from there.
    """
    configs = list(configs)
    missing = [config for config in dict.fromkeys(configs) if runs.find(config) is None]
    if missing:
        results = train(missing, **options)
        with Progress(len(missing), what, "runs") as progress, contextlib.closing(results):
            for config, error in results:
                if error is not None:
                    raise error
                progress.advance(last=config.run_id)
    return [runs.get(config) for config in configs]


def train(configs: Sequence[Config], **options: Any) -> Generator[Result, None, None]:
    """Train runs, several at a time; yields each run as it ends, with its error or None.

    The options are `keep_state_at` and `checkpoint_seconds` of `runs.in_turns`. Closing the generator ends
    the workers at once.
    """
    where, waiting = slots(), families(configs)
    on_one_gpu = len(set(where)) == 1 and where[0] != "cpu"
    if on_one_gpu and min(len(where), len(configs)) > 1:
        yield from one_gpu.train(configs, len(where), **options)
    elif not on_one_gpu and min(len(where), len(waiting)) > 1:
        yield from _in_processes(waiting, where, options)
    else:
        for family in waiting:
            # digits and letters take seconds; others take hours and show their epochs
            yield from _train_in_order(family, quiet=family[0].dataset in EMBEDDED, **options)


def families(configs: Iterable[Config]) -> list[list[Config]]:
    """Each uncorrected run with the corrected runs that fork from it, the uncorrected run first."""
    found: dict[str, list[Config]] = {}
    for config in sorted(dict.fromkeys(configs), key=lambda config: config.corrects):
        found.setdefault(config.uncorrected.run_id, []).append(config)
    return list(found.values())


def _train_in_order(family: list[Config], **options: Any) -> Iterator[Result]:
    """Train the runs of a family one after another; yields each run with its error or None."""
    options |= next(({"keep_state_at": config.correction} for config in family if config.corrects), {})
    for config in family:
        error = None
        try:
            runs.get(config, **options)
        except Exception as problem:  # noqa: BLE001  it belongs to this run, the others are trained
            error = problem
        yield config, error


def train_family(settings: dict[str, str], family: list[Config], options: dict[str, Any]) -> list[Result]:
    """In a worker: train a family with these environment variables; its runs with their errors."""
    os.environ.update(settings)
    return list(_train_in_order(family, quiet=True, **options))


def environment() -> dict[str, str]:
    """The environment variables that a worker takes over: all folders, and how to train."""
    folders = {"SLN_RUNS": str(runs_folder().absolute()), "SLN_DATA": str(data_folder().absolute())}
    folders |= {"SLN_FIGURES": str(figures_folder("").absolute())}
    return folders | {"SLN_SPEED": os.environ.get("SLN_SPEED", "auto")}


# --- worker processes ---------------------------------------------------------------------------------------


def _in_processes(waiting: list[list[Config]], where: list[str], options: dict[str, Any]) -> Iterator[Result]:
    count, free = min(len(where), len(waiting)), list(where)
    running: dict[Future, tuple[list[Config], str]] = {}
    deaths: Counter[tuple] = Counter()
    with _workers(count) as submit:
        while waiting or running:
            while waiting and free:
                family, slot = waiting.pop(0), free.pop(0)
                settings = environment() | {"SLN_DEVICE": slot}
                running[submit(train_family, settings, family, options)] = family, slot
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                family, slot = running.pop(future)
                free.append(slot)
                problem = future.exception()
                if isinstance(problem, BrokenProcessPool):
                    attempt = (family[0].run_id, *map(store.checkpointed, family))
                    deaths[attempt] += 1
                    if deaths[attempt] < ATTEMPTS:
                        waiting.insert(0, family)
                        continue
                    problem = WorkerDied(KILLED)
                yield from future.result() if problem is None else [(config, problem) for config in family]


def each(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """`work`, a module's function, of every item, several at a time; yields (position, result) as they end.

    Items and results are pickled. Of several GPUs the first is used. Raises what `work` raises, and
    WorkerDied; no worker is left then.
    """
    count, settings = min(len(slots()), len(items)), environment() | {"SLN_DEVICE": slots()[0]}
    if count <= 1:
        yield from enumerate(map(work, items))
        return
    with _workers(count) as submit:
        pending = {submit(_call, settings, work, item): n for n, item in enumerate(items)}
        for done in as_completed(pending):
            yield pending[done], done.result()


def _call(settings: dict[str, str], work: Callable[[Any], Any], item: Any) -> Any:
    os.environ.update(settings)
    return work(item)


@contextlib.contextmanager
def _workers(count: int) -> Iterator[Callable[..., Future]]:
    """What submits work to `count` processes, those of the last call or new ones; none is left on errors."""
    try:
        yield lambda *call: get_reusable_executor(count, timeout=None, initializer=start_worker).submit(*call)
    except BaseException as error:
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)
        if isinstance(error, BrokenProcessPool):
            raise WorkerDied(KILLED) from None
        raise


def start_worker() -> None:
    """In a worker: leave Ctrl-C to the parent process, and end soon after a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        while parent is not None and parent.pid == os.getppid():
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
