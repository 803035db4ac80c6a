"""Sliders for the notebooks, and the page of `make app`."""
