"""Executes the notebooks headlessly and writes the report."""

from sln.reproduce.execute import reproduce, run_notebook

__all__ = ["reproduce", "run_notebook"]
