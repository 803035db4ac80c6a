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
from sln.devices import device
from sln.progress import Progress
from sln.runs import Run


def get_together(configs: Iterable[Config], at_once: int, what: str = "training") -> list[Run]:
    """The runs of `configs`, in their order; those that are missing are trained, `at_once` at a time.

    The numbers are those of one run alone. Runs with label correction start when all others have ended, so
    that they fork from their uncorrected run if that is asked for too. Raises what training raises, once the
    runs that are being trained have ended; asking again goes on from there.
    """
    configs = list(configs)
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
                        finished.result()
                        progress.advance(last=pending[finished].run_id)
                except BaseException:
                    threads.shutdown(cancel_futures=True)
                    raise
    return [runs.get(config) for config in configs]


def _train(config: Config) -> None:
    where = device()
    if where.type == "cpu":
        runs.get(config, quiet=True)
        return
    with torch.cuda.device(where), torch.cuda.stream(torch.cuda.Stream(where)):
        runs.get(config, quiet=True)
