"""Networks are trained in the test's own process: starting workers takes longer than their training."""

import pytest


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    """No worker processes."""
    monkeypatch.setenv("SLN_WORKERS", "1")
