"""Trained runs on disk, and who trains several of them.

    run = runs.get(config)      found, resumed, forked or trained
"""  # fmt: skip

from sln.runs.run import (
    CHECKPOINT_SECONDS,
    Run,
    Stopped,
    by_name,
    find,
    finished,
    get,
    in_turns,
    listing,
    remove,
)
from sln.utils.files import runs_folder

__all__ = [
    "CHECKPOINT_SECONDS",
    "Run",
    "Stopped",
    "by_name",
    "find",
    "finished",
    "get",
    "in_turns",
    "listing",
    "remove",
    "runs_folder",
]
