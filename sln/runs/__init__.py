"""Trained runs on disk, and who trains several: `run = runs.get(config)` finds, resumes, forks or trains."""

from sln.runs.run import Run, Stopped, by_name, find, finished, get, in_turns, listing, remove
from sln.utils.files import runs_folder

__all__ = ["Run", "Stopped", "by_name", "find", "finished", "get", "in_turns", "listing", "remove",
           "runs_folder"]  # fmt: skip
