"""Servers, a browser, and folders of their own: everything under build/ui/, where screenshots are kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
UI = ROOT / "build" / "ui"
DOWNLOADS = UI / f"downloads-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
TOKEN = "only-for-these-tests"
expect.set_options(timeout=60_000)  # for a machine that does other things too

# user settings: every cell is drawn, nothing asks or looks for news
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}',
    "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}


@dataclass(frozen=True)
class Server:
    """A Jupyter or Voilà server on loopback."""

    port: int
    folder: Path

    def url(self, path: str, token: str | None = TOKEN) -> str:
        """The address of `path`, with the token or without."""
        return f"http://127.0.0.1:{self.port}/{path}" + (f"?token={token}" if token else "")


def environment(folder: Path) -> dict[str, str]:
    """Runs, figures and Jupyter's files in `folder`; this checkout's package; nobody's own configuration."""
    places = {"SLN_RUNS": "runs", "SLN_FIGURES": "figures", "JUPYTERLAB_SETTINGS_DIR": "settings"}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces", "JUPYTER_CONFIG_DIR": "config"}
    places |= {"JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_DATA_DIR": "share", "IPYTHONDIR": "ipython"}
    own = {name: str(folder / place) for name, place in places.items()}
    kept = {name: value for name, value in os.environ.items() if name != "SLN_HEADLESS"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    template = {"JUPYTER_PATH": str(ROOT / "sln" / "explore")}  # as `make app` sets it
    return kept | own | template | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": path}


@contextlib.contextmanager
def serving(folder: Path, *command: str, ready: str):
    """A server of `python -m *command`, in which PORT is the port, for as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in command)]
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(folder), stdout=log, stderr=log, start_new_session=True
    )
    try:
        server = Server(port, folder)
        wait_for(lambda: status_of(server.url(ready)) == 200 or process.poll() is not None, 90)
        assert process.poll() is None, (folder / "server.log").read_text()
        yield server
    finally:
        # its kernels are in sessions of their own; a server that is asked to end takes them with it
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: to be sent to a page that asks for the token is to be refused."""

    def redirect_request(self, *_: object) -> None:
        """None, so that the answer's own status is seen."""


def status_of(url: str) -> int:
    """The HTTP status of an address; 0 where nobody answers."""
    try:
        with urllib.request.build_opener(Stay).open(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_for(condition, seconds: float) -> None:
    """Wait until `condition()`; fails where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def fresh(name: str) -> Path:
    """An empty folder under build/ui/ with Jupyter's settings in it; screenshots beside it are kept."""
    folder = UI / name
    shutil.rmtree(folder, ignore_errors=True)
    for plugin, setting in SETTINGS.items():
        path = folder / "settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(setting)
    return folder


def python(folder: Path, *words: str) -> str:
    """Run this Python with `folder`'s environment; returns what it printed."""
    answer = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment(folder), capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def copied(path: Path, folder: Path, profile: str) -> Path:
    """A copy of a notebook at another profile, in `folder`."""
    text = path.read_text(encoding="utf-8")
    changed = text.replace('PROFILE: str = \\"quick\\"', f'PROFILE: str = \\"{profile}\\"')
    assert changed != text or profile == "quick"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).write_text(changed, encoding="utf-8")
    return folder / path.name


def with_runs(folder: Path) -> Path:
    """`folder`, with a copy of all runs of `smoke`; these are kept in build/ui/trained/, as runs are."""
    (UI / "trained").mkdir(parents=True, exist_ok=True)
    with FileLock(UI / "trained.lock"):  # one process trains them
        python(UI / "trained", "-c", "from sln.study import Study, plan; plan.train_ahead(Study('smoke'))")
    shutil.copytree(UI / "trained" / "runs", folder / "runs")
    return folder
