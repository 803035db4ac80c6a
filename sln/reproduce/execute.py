"""Executes the notebooks with papermill, checks that they did what they promised, and writes the report.

papermill alone is not enough to trust: a notebook whose kernel was killed or left early, whose parameter was
misspelt, whose slider's callback failed or whose figure is last week's still ends well. Each of these is
looked for here.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import os
import queue
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import nbformat.reader
import papermill
import traitlets.config
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbclient.util import run_sync
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from sln.reproduce.report import write_report
from sln.runs.store import versions
from sln.study.plan import describe, parallel_runs, plan, planned, require_data, train_ahead
from sln.study.study import Study
from sln.utils.errors import InputError, choose, require
from sln.utils.files import figures_folder, project_root, write_json

ARTEFACT_KINDS = (".png", ".csv")


@dataclass
class Outcome:
    """One notebook: how long it took, what it promised, and what is wrong with it, if anything."""

    name: str
    seconds: float
    artefacts: list[str]
    problems: list[str] = field(default_factory=list)


def notebooks(folder: Path | None = None) -> dict[str, Path]:
    """The study's notebooks by name, in order: `notebooks/NN_name.ipynb`."""
    found = sorted((folder or project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    require(
        bool(found),
        f"no notebooks in {folder or project_root() / 'notebooks'}; run this in a checkout of the project",
    )
    return {path.stem: path for path in found}


def reproduce(
    profile: str,
    *,
    only: list[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    build: Path | None = None,
    timeout: float | None = None,
    dry_run: bool = False,
) -> int:
    """Execute the notebooks of the study headlessly at `profile`, check them, and write the report.

    Parameters
    ----------
    only : names of the notebooks to run; default all
    parameters : more notebook parameters than the profile; each must be one of every notebook that is run
    folder, build : where the notebooks are and where executed ones go (`build/<profile>/`)
    timeout : seconds that one cell may take; default no limit
    dry_run : only print what would be trained, with an estimate of the time

    Returns 0 if everything holds, 1 if a notebook failed, a promise was not kept or a claim is untrue.
    Raises InputError for an unknown profile, notebook or parameter, before anything runs.
    """
    plans = Study(profile, guesses=True)  # refuses an unknown one
    every = notebooks(folder)
    for name in only or ():
        choose("notebook", name, every)
    chosen = {name: path for name, path in every.items() if not only or name in only}
    values = {"PROFILE": profile, **(parameters or {})}
    for path in chosen.values():
        check_parameters(path, values)
    if dry_run:
        print(describe(plan(plans), parallel_runs(planned(plans))))
        return 0
    require_data(plans)
    if plans.profile.recipes:  # days of training: first say so
        print(describe(plan(plans), parallel_runs(planned(plans))), file=sys.stderr, flush=True)
    study = Study(profile)
    if only is None:  # one notebook alone trains what it needs
        train_ahead(study)
    build = (build or project_root() / "build") / profile
    outcomes = []
    for name, path in chosen.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        outcomes.append(run_notebook(path, build / f"{name}.ipynb", values, profile, timeout))
        print_outcome(outcomes[-1])
    leftovers = [] if only else unpromised(profile, outcomes)
    manifest = {
        "profile": profile,
        "seconds": {o.name: round(o.seconds, 1) for o in outcomes},
        "versions": versions(),
    }
    if not only:
        write_json(figures_folder(profile) / "manifest.json", manifest)
    report = write_report(build, study, outcomes, leftovers, manifest)
    failed = [outcome for outcome in outcomes if outcome.problems]
    print_summary(outcomes, leftovers, report)
    return 1 if failed or leftovers else 0


def check_parameters(path: Path, values: Mapping[str, Any]) -> None:
    """Raise InputError for a parameter unknown to the notebook or of another type; papermill only warns."""
    try:
        known = papermill.inspect_notebook(str(path))
        defaults = {name: ast.literal_eval(parameter["default"]) for name, parameter in known.items()}
    except (ValueError, SyntaxError, nbformat.reader.NotJSONError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no notebook with literal parameters: {reason}") from None
    for name, value in values.items():
        choose(f"parameter of {path.stem}", name, defaults)
        default = defaults[name]
        require(
            type(value) is type(default) or (isinstance(default, float) and type(value) is int),
            f"parameter {name} of {path.stem} is {value!r} ({type(value).__name__}), "
            f"expected {type(default).__name__} like {default!r}",
        )


class Client(PapermillNotebookClient):
    """papermill's client, which else misses now and then that a cell with a slider has ended, and hangs.

    nbclient sends a slider's state on the very socket on which it waits for the cell's end, behind the back
    of the event loop, and that can swallow the event that would wake it (nbclient's issue 312).
    """

    async def _async_check_alive(self) -> None:
        """Once a second, and when a cell ran out of time: look at the socket itself, and wake who waits."""
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
        """Shut the kernel down, when it is idle.

        Shutting down begins with an interrupt. The last request is answered a moment before it is over, and a
        kernel that is interrupted in that moment prints "KeyboardInterrupt caught in kernel", though nothing
        is wrong.
        """
        run_sync(self._async_wait_for_idle)()
        super()._cleanup_kernel()


class Engine(NBClientEngine):
    """papermill's engine with that client."""

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


papermill_engines.register("sln", Engine)


def run_notebook(
    path: Path, output: Path, values: Mapping[str, Any], profile: str, timeout: float | None = None
) -> Outcome:
    """Execute one notebook and look for all that can have gone wrong; nothing it did is raised."""
    source = nbformat.read(path, as_version=4)
    outcome = Outcome(path.stem, 0.0, list(source.metadata.get("sln", {}).get("artefacts", [])))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)  # an old result must not pass for a new one
    start, began = time.monotonic(), time.time()
    try:
        with headless(), private_sockets() as sockets:
            papermill.execute_notebook(
                str(path),
                str(output),
                parameters=dict(values),
                engine_name="sln",
                kernel_name="python3",
                cwd=str(path.parent),
                progress_bar=False,
                execution_timeout=timeout,
                start_timeout=120,
                stderr_file=sys.stderr,
                config=sockets,
            )
    except papermill.PapermillExecutionError as error:
        outcome.problems.append(f"cell {error.cell_index} failed: {error.ename}: {error.evalue}")
    except CellTimeoutError:
        outcome.problems.append(f"a cell took longer than {timeout} s")
    except DeadKernelError:
        outcome.problems.append("the kernel died (killed, or out of memory)")
    except RuntimeError as error:  # nbclient's word for a kernel that never answered
        outcome.problems.append(f"the kernel did not start: {error}")
    outcome.seconds = time.monotonic() - start
    if not output.exists():
        outcome.problems.append("no executed notebook was written")
    elif not outcome.problems:
        outcome.problems += unfinished(nbformat.read(output, as_version=4))
    outcome.problems += broken_promises(outcome.artefacts, profile, began)
    return outcome


def unfinished(executed: NotebookNode) -> list[str]:
    """What an executed notebook says against itself: cells pending, failed or out of order, widget errors."""
    problems = []
    code = [
        (number, cell)
        for number, cell in enumerate(executed.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]
    for expected, (number, cell) in enumerate(code, start=1):
        status = cell.metadata.get("papermill", {}).get("status")
        if status != "completed" or cell.execution_count != expected:
            problems.append(
                f"cell {number} did not run (the kernel left early?): "
                f"status {status}, execution count {cell.execution_count}"
            )
            break
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {number} failed: {output.ename}: {output.evalue}")
    states = (
        executed.metadata.get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    for widget in states.values():
        for output in widget.get("state", {}).get("outputs", ()):
            if output.get("output_type") == "error":
                problems.append(f"a slider's callback failed: {output['ename']}: {output['evalue']}")
    return problems


def broken_promises(artefacts: list[str], profile: str, began: float) -> list[str]:
    """Promised figures and tables that are missing, empty, or older than `began` (seconds since 1970)."""
    problems = []
    for path in (figures_folder(profile) / f"{name}{kind}" for name in artefacts for kind in ARTEFACT_KINDS):
        if not path.exists() or path.stat().st_size == 0:
            problems.append(f"promised {path.name} is missing")
        # file systems keep times to a second or better
        elif path.stat().st_mtime < began - 1:
            problems.append(f"promised {path.name} is stale: it was not written by this run")
    return problems


def unpromised(profile: str, outcomes: list[Outcome]) -> list[str]:
    """Files among the figures that no notebook promises: left over from a name that changed."""
    promised = {
        f"{name}{kind}" for outcome in outcomes for name in outcome.artefacts for kind in ARTEFACT_KINDS
    }
    folder = figures_folder(profile)
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return sorted(name for name in found - promised - {"manifest.json"} if not name.startswith("."))


@contextlib.contextmanager
def headless() -> Iterator[None]:
    """The kernel prints lines instead of bars, and is this environment's own.

    Otherwise a kernel that a user has registered as python3 would be taken.
    """
    changes = {"SLN_HEADLESS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    # the kernel works in the notebooks' folder: a relative path would mean another place there
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
    """Jupyter's configuration for talking to the kernel through files of this user instead of TCP ports.

    Ports can be taken by another kernel that starts at the same moment, and are open to other users of the
    machine. Windows has ports only.
    """
    if os.name == "nt":
        yield traitlets.config.Config()
        return
    with tempfile.TemporaryDirectory(prefix="sln-") as folder:  # a short path: socket names have a limit
        yield traitlets.config.Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{folder}/kernel"}})


def print_outcome(outcome: Outcome) -> None:
    """One line when a notebook went well, one per problem when it did not."""
    for problem in outcome.problems:
        print(f"{outcome.name}: {problem}", file=sys.stderr, flush=True)


def print_summary(outcomes: list[Outcome], leftovers: list[str], report: Path) -> None:
    """The closing table: notebook, seconds, artefacts, verdict."""
    width = max(len(outcome.name) for outcome in outcomes)
    print(f"\n{'notebook':{width}}  {'time':>7}  {'figures':>7}  result")
    for outcome in outcomes:
        result = "ok" if not outcome.problems else f"FAILED: {outcome.problems[0]}"
        print(f"{outcome.name:{width}}  {outcome.seconds:6.0f}s  {len(outcome.artefacts):7}  {result}")
    total = datetime.timedelta(seconds=round(sum(outcome.seconds for outcome in outcomes)))
    print(f"{'total':{width}}  {total!s:>7}")
    for name in leftovers:
        print(f"stale: no notebook promises {name}; remove it")
    print(f"report: {report}")


def parse_parameters(texts: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as values: Python literals, else text. Raises InputError for another form."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"parameter {text!r} is not of the form NAME=VALUE")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    return values
