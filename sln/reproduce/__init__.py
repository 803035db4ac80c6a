"""Executes the notebooks headlessly and writes the article."""

from sln.reproduce.execute import reproduce, run_notebook

__all__ = ["reproduce", "run_notebook"]
