"""Several runs at once on one device: a thread a run, and on a GPU a stream a run.

One run of the paper's network leaves most of a GPU idle: its kernels are too small to fill it. Threads are
enough, since a captured step is a single call; on a CPU, processes are better (`pool`).
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed

import torch

from sln import runs
from sln.config import Config
from sln.devices import current, device
from sln.errors import require
from sln.progress import Progress
from sln.runs import Run

AT_MOST = 8  # each run takes three of the 32 streams that torch has for a GPU


def get_together(configs: Iterable[Config], at_once: int, what: str = "training") -> list[Run]:
    """The runs of `configs`, in their order; those that are missing are trained, `at_once` at a time.

    The numbers are those of one run alone. Runs with label correction start when all others have ended, so
    that they fork from their uncorrected run if that is asked for too. Raises the first error of training,
    once all others have been trained; asking again goes on from there. InputError for more than AT_MOST.
    """
    require(1 <= at_once <= AT_MOST, f"runs at once are {at_once}, allowed is [1, {AT_MOST}]")
    configs, errors = list(configs), []
    missing = [config for config in dict.fromkeys(configs) if runs.find(config) is None]
    with Progress(len(missing), what, "runs", quiet=not missing) as progress:
        for group in (
            [config for config in missing if not config.corrects],
            [config for config in missing if config.corrects],
        ):
            with ThreadPoolExecutor(at_once) as threads:
                pending = {threads.submit(_train, config): config for config in group}
                try:
                    for finished in as_completed(pending):
                        if (error := finished.exception()) is not None:
                            errors.append(error)
                        progress.advance(last=pending[finished].run_id)
                except BaseException:
                    threads.shutdown(cancel_futures=True)
                    raise
    if errors:
        raise errors[0]
    return [runs.get(config) for config in configs]


def _train(config: Config) -> None:
    where = device()
    stream = torch.cuda.Stream(where) if where.type == "cuda" else None
    with current(where), torch.cuda.stream(stream):  # of no stream: nothing
        runs.get(config, quiet=True)
