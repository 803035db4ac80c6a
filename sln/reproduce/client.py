"""papermill's client and engine, with fixes for notebooks that show sliders."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import traitlets.config
from nbclient.util import run_sync
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

ENGINE = "sln"


class Client(PapermillNotebookClient):
    """papermill's client with a fix: it can hang because it misses the end of a cell that shows a slider.

    nbclient sends a slider's state on the socket on which it also waits for the end of the cell, outside the
    event loop. This can consume the event that would wake the loop (nbclient issue 312).
    """

    async def _async_check_alive(self) -> None:
        """Look at the socket itself, once a second and when a cell ran out of time, to wake the loop."""
        await self.kc.shell_channel.socket.poll(1)
        await super()._async_check_alive()

    async def _async_wait_for_idle(self) -> None:
        """Wait until papermill's last request (kernel_info) is over, or the kernel is silent for a second."""
        over = False
        with contextlib.suppress(queue.Empty):
            while not over:
                message = await self.kc.iopub_channel.get_msg(timeout=1)
                request = message["parent_header"].get("msg_type")
                state = message["content"].get("execution_state")
                over = (request, state) == ("kernel_info_request", "idle")

    def _cleanup_kernel(self) -> None:
        """Shut the kernel down once it is idle.

        Shutting down begins with an interrupt. A kernel that is still busy with the last request then prints
        "KeyboardInterrupt caught in kernel", although nothing is wrong.
        """
        run_sync(self._async_wait_for_idle)()
        super()._cleanup_kernel()


class Engine(NBClientEngine):
    """papermill's engine with `Client`."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        start_timeout: float,
        execution_timeout: float | None,
        **traits: Any,
    ) -> NotebookNode:
        """Execute the cells; `traits` are the client's."""
        traits = {name: value for name, value in traits.items() if name != "input_path"}
        times = {"startup_timeout": start_timeout, "timeout": execution_timeout}
        return Client(nb_man, kernel_name=kernel_name, **times, **traits).execute()


papermill_engines.register(ENGINE, Engine)


@contextlib.contextmanager
def headless() -> Iterator[None]:
    """Environment of the kernels: lines instead of progress bars, absolute folders, this Python's own kernel.

    Without the last, a kernel that a user has registered as python3 would be taken.
    """
    changes = {"SLN_HEADLESS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    # kernels run in the notebooks' folder, where a relative path has another meaning
    folders = {name: os.environ.get(name) for name in ("SLN_RUNS", "SLN_DATA", "SLN_FIGURES")}
    changes |= {name: str(Path(value).resolve()) for name, value in folders.items() if value}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def private_sockets() -> Iterator[traitlets.config.Config]:
    """Jupyter's configuration for talking to a kernel through files of this user instead of TCP ports.

    Another kernel that starts at the same moment can take a port, and other users of the machine can open it.
    Windows has ports only.
    """
    if os.name == "nt":
        yield traitlets.config.Config()
        return
    short = "/tmp" if len(tempfile.gettempdir()) > 60 else None
    with tempfile.TemporaryDirectory(prefix="sln-", dir=short) as folder:
        yield traitlets.config.Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{folder}/kernel"}})
