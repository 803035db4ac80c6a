"""Fixtures of a small Clothing1M, for test files with `pytest_plugins = ["clothing1m_fixtures"]`."""

import shutil

import clothing1m_miniature as miniature
import pytest

from sln.datasets import clothing1m
from sln.utils.devices import torchvision


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A miniature that no test changes."""
    return miniature.make(tmp_path_factory.mktemp("clothing"))


@pytest.fixture
def here(whole, monkeypatch):
    """The whole miniature as the data folder's, decoded in this process."""
    monkeypatch.setenv("SLN_DATA", str(whole.parent))
    monkeypatch.setenv("SLN_DECODERS", "0")
    return whole


@pytest.fixture
def own(here, tmp_path, monkeypatch):
    """A copy that the test may spoil."""
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    return shutil.copytree(here, tmp_path / "Clothing1M")


@pytest.fixture
def small(here, monkeypatch):
    """Crops of 32 pixels instead of 224, for tests that train."""
    monkeypatch.setattr(clothing1m, "RESIZE", 40)
    monkeypatch.setattr(clothing1m, "CROP", 32)


@pytest.fixture
def tiny(small, monkeypatch):
    """`small`, with a tiny network in the place of ResNet-18."""
    monkeypatch.setattr(torchvision().models, "resnet18", miniature.Tiny)
