"""papermill's client with fixes: no slider makes it hang, and kernels get the right folders."""

import os
import time
from pathlib import Path

import jupyter_client.session
import zmq
from small_notebooks import SLIDER, write

from sln.reproduce.client import headless
from sln.reproduce.execute import run_notebook


def test_a_slider_cannot_make_the_runner_miss_the_end_of_its_cell(tmp_path, monkeypatch):
    """nbclient's issue 312, provoked: the slider's state is sent while the cell's reply comes in."""
    send = jupyter_client.session.Session.send

    def slow_send(session, stream, message, *rest, **options):
        sent = send(session, stream, message, *rest, **options)
        if isinstance(message, dict) and message["msg_type"] == "comm_msg":
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                zmq.Socket.shadow(stream.underlying).get(zmq.EVENTS)  # swallows what would wake the loop
        return sent

    monkeypatch.setattr(jupyter_client.session.Session, "send", slow_send)
    path = write(tmp_path, "01_slider", SLIDER.replace("START", "5"))
    result = run_notebook(path, tmp_path / "build", {"PROFILE": "smoke"}, "smoke", timeout=20)
    assert result.problems == []
    assert result.seconds < 15


def test_the_kernel_gets_absolute_folders(monkeypatch):
    monkeypatch.setenv("SLN_RUNS", "somewhere")
    with headless():
        assert os.environ["SLN_RUNS"] == str(Path("somewhere").resolve())
    assert os.environ["SLN_RUNS"] == "somewhere"
