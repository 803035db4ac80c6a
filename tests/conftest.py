"""What all tests share: folders of their own, one thread, small data."""

import contextlib
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from joblib.externals.loky import get_reusable_executor

from sln import data
from sln.config import Config
from sln.datasets import images as source
from sln.datasets import load
from sln.study.plan import train_ahead
from sln.study.study import Study
from sln.utils.errors import InputError

# what is tested is the CPU's, bit for bit, also where there is a GPU; tests marked gpu name it themselves
os.environ["SLN_DEVICE"] = "cpu"

# the same examples on every machine and day: a failure is a failure of the code
settings.register_profile("sln", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("sln")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Runs and figures go to folders of the test's own, on one thread, with nothing left in memory."""
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SLN_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("SLN_HEADLESS", "1")
    torch.set_num_threads(1)
    load.cache.clear()


@pytest.fixture(autouse=True, scope="module")
def no_workers_left():
    """What a module's tests keep running is not the next one's."""
    yield
    get_reusable_executor(reuse=True).shutdown(kill_workers=True)


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory):
    """The folder of all runs of the profile `smoke`, trained once for all processes of the session.

    `make test-all` names it, since the tests in a browser use them after that.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("SLN_TEST_RUNS") or base / "smoke")
    with FileLock(base / "smoke.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(folder))
        patch.setenv("SLN_HEADLESS", "1")
        train_ahead(Study("smoke"))
    return folder


@pytest.fixture
def smoke_study(smoke_runs, tmp_path):
    """The study of those runs, in a folder of links to them: new runs are the test's own."""
    (tmp_path / "runs").mkdir()
    for path in smoke_runs.glob("[!.]*"):
        (tmp_path / "runs" / path.name).symlink_to(path)
    return Study("smoke")


@pytest.fixture
def refused():
    """`with refused("rate is 1.2"):` expects an InputError of one line that holds those words."""

    @contextlib.contextmanager
    def expect(*words):
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert len(message.splitlines()) == 1, message
        assert message == message.strip()
        for word in words:
            assert word in message

    return expect


@pytest.fixture
def few_digits():
    """The embedded digits cut to 72 training, 30 validation and 40 test images, all labels true."""
    clean = source.digits()
    parts = [
        data.Split(split.images[:n].clone(), split.given[:n].clone(), split.true[:n].clone())
        for split, n in ((clean.train, 72), (clean.validation, 30), (clean.test, 40))
    ]
    return data.Data(*parts, clean.classes, clean.scale, clean.mean, clean.std)


@pytest.fixture
def few_noisy_digits(few_digits):
    """`few_digits` with 40% symmetric noise."""
    return load.corrupt(few_digits, Config(noise_mode="sym", noise_rate=0.4, noise_seed=3))


def pytest_collection_modifyitems(items):
    """What needs a GPU is skipped, saying so, where torch sees none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a GPU (make test-gpu)"))


def pytest_ignore_collect(collection_path, config):
    """The tests in a browser run when they are asked for: `make test-ui`."""
    if collection_path.name == "ui":
        return not any("ui" in word for word in config.args)
    return None
