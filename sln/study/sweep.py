"""All runs of a profile, on this machine or on a Ray cluster.

    python -m sln sweep cifar10 --seeds 5

The runs are those that `reproduce` would ask for. Settings are chosen on the way, so the candidates come
first. After an interruption the same command continues. `python -m sln runs list` in another terminal shows
the epochs of the runs.
"""  # fmt: skip

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Iterable

from tqdm.auto import tqdm

from sln import runs
from sln.config import Config
from sln.runs import parallel
from sln.runs.parallel import WorkerDied
from sln.study.plan import describe, parallel_runs, plan, planned, require_data
from sln.study.study import Study
from sln.utils.errors import InputError
from sln.utils.progress import Progress


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
    if dry_run:
        asked = planned(study)
        print(describe(plan(study), parallel_runs(asked)))
        return 0
    parallel.slots()  # refuses a wrong SLN_WORKERS
    require_data(study)
    start, trained, failed = time.monotonic(), 0, 0
    while True:  # what is chosen decides what comes next, perhaps the candidates of another choice
        study = Study(profile, guesses=True, seeds=seeds)
        asked = planned(study)
        candidates = missing(study.candidates)
        configs = candidates or missing(asked)
        bad = train(configs, f"{profile}: candidates" if candidates else profile, ray, study)
        trained, failed = trained + len(configs) - bad, failed + bad
        if not candidates or bad:
            break
    seconds = datetime.timedelta(seconds=round(time.monotonic() - start))
    print(
        f"{profile}: {len(asked)} runs, {trained} of them trained now in {seconds}"
        + (f", {failed} failed; the same command tries them again" if failed else "")
    )
    return 1 if failed else 0


def missing(configs: Iterable[Config]) -> list[Config]:
    """The runs that are not trained yet, each once, and damaged ones, whose error is shown in their turn."""

    def found(config: Config) -> bool:
        try:
            return runs.find(config) is not None
        except InputError:
            return False

    return [config for config in dict.fromkeys(configs) if not found(config)]


def train(configs: list[Config], what: str, ray: str | None, study: Study) -> int:
    """Train the runs and name those that fail; returns how many do."""
    if not configs:
        return 0
    keep = study.profile.correction
    if ray is None:
        results = parallel.train(configs, keep_state_at=keep)
    else:
        from sln.runs import ray_cluster

        results = ray_cluster.train(ray, configs, keep_state_at=keep)
    failed = 0
    with contextlib.closing(results), Progress(len(configs), what, "runs") as progress:
        for config, error in results:
            if error is not None:
                failed += 1
                line = " ".join(str(error).split())
                kind = "" if isinstance(error, InputError | WorkerDied) else f"{type(error).__name__}: "
                tqdm.write(f"sln: {config.run_id} failed: {kind}{line}", file=sys.stderr)
            progress.advance(last=config.run_id)
    return failed
