"""Networks are trained in the test's own process: starting workers takes longer than their training."""

import pytest
from own_images import canned_fit, lay

from sln.relabel import pipeline


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    """No worker processes."""
    monkeypatch.setenv("SLN_WORKERS", "1")


@pytest.fixture
def folder(tmp_path):
    """A folder of images of two classes."""
    return lay(tmp_path / "mine")


@pytest.fixture
def canned(monkeypatch):
    """No training."""
    monkeypatch.setattr(pipeline, "fit", canned_fit)
