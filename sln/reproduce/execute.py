"""Executes the notebooks with papermill, checks their results, and writes the article.

papermill reports success even if the kernel died or left early, a parameter was misspelt, a slider callback
failed, or a figure is stale. This module checks for each of these.
"""

from __future__ import annotations

import ast
import datetime
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import nbformat.reader
import papermill
import zmq
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from sln.reproduce.article import Result, write_article
from sln.reproduce.client import ENGINE, headless, private_sockets
from sln.reproduce.summary import write_summary
from sln.runs import parallel
from sln.runs.store import versions
from sln.study.plan import describe, parallel_runs, plan, planned, require_data, train_ahead
from sln.study.study import Study
from sln.utils.errors import InputError, choose, require
from sln.utils.files import figures_folder, project_root, write_json, write_text

ARTEFACT_KINDS = (".png", ".csv")


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
    """Execute the study's notebooks headlessly at `profile`, check them, write the article and the summary.

    Parameters
    ----------
    only : names of the notebooks to run; default all
    parameters : more notebook parameters than the profile; each must be one of every notebook that is run
    folder, build : where the notebooks are and where executed ones go (`build/<profile>/`)
    timeout : seconds that one cell may take; default no limit
    dry_run : only print what would be trained, with an estimate of the time

    Returns 0 if all checks pass, 1 if a notebook failed, a promised figure is missing or a claim is untrue.
    Raises InputError for an unknown profile, notebook or parameter, before anything runs.
    """
    guess = Study(profile, guesses=True)  # refuses an unknown profile
    require("PROFILE" not in (parameters or {}), "PROFILE is no parameter of its own; name it with --profile")
    values = {"PROFILE": profile, **(parameters or {})}
    chosen = choose_notebooks(folder, only, values)
    if dry_run:
        print(describe(plan(guess), parallel_runs(planned(guess))))
        return 0
    require_data(guess)
    if guess.profile.recipes:  # days of training
        print(describe(plan(guess), parallel_runs(planned(guess))), file=sys.stderr, flush=True)
    study = Study(profile)
    build = (build or project_root() / "build") / profile
    write_text(build / ".begun", "")  # a folder that cannot be written to is named before hours of training
    if only is None:  # one notebook alone trains what it needs
        train_ahead(study)
    work = functools.partial(run_notebook, build=build, values=values, profile=profile, timeout=timeout)
    # notebooks that train are run one after another
    several = parallel.each if only is None else lambda work, items: enumerate(map(work, items))
    results = {}
    for _, result in several(work, list(chosen.values())):
        results[result.name] = result
        print(f"{result.name} took {result.seconds:.0f} s", file=sys.stderr, flush=True)
        for problem in result.problems:
            print(f"{result.name}: {problem}", file=sys.stderr, flush=True)
    if only is not None:  # the article keeps the sections of notebooks that were executed before
        before = {name: path for name, path in notebooks(folder).items() if (build / path.name).exists()}
        results = {name: Result(name, 0.0, promised(path)) for name, path in before.items()} | results
    shown = [result for _, result in sorted(results.items())]
    return finish(study, shown, build, ran=list(chosen), complete=only is None)


def choose_notebooks(
    folder: Path | None, only: Sequence[str] | None, values: Mapping[str, Any]
) -> dict[str, Path]:
    """The notebooks to run, by name. Raises InputError for an unknown name or parameter."""
    found = notebooks(folder)
    for name in only or ():
        choose("notebook", name, found)
    chosen = {name: path for name, path in found.items() if not only or name in only}
    for path in chosen.values():
        check_parameters(path, values)
    return chosen


def finish(study: Study, results: list[Result], build: Path, *, ran: Sequence[str], complete: bool) -> int:
    """Write manifest, article and summary, print the table, and return the exit code.

    ran : the notebooks that were run now, which the table names; complete : whether these are all; only then
        are there a manifest and a check for old figures
    """
    leftovers = unpromised(study.name, results) if complete else []
    seconds = {result.name: round(result.seconds, 1) for result in results}
    manifest = {"profile": study.name, "seconds": seconds, "versions": versions()}
    figures = figures_folder(study.name)
    if complete:
        write_json(figures / "manifest.json", manifest)
    article = write_article(build, study, results, leftovers, manifest)
    write_summary(figures.parent)
    print_table([result for result in results if result.name in ran], leftovers, article)
    return 1 if leftovers or any(result.problems for result in results) else 0


def check_parameters(path: Path, values: Mapping[str, Any]) -> None:
    """Raise InputError for a parameter that the notebook lacks or of another type; papermill only warns."""
    try:
        known = papermill.inspect_notebook(plain(path))
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


def plain(path: Path) -> str:
    """The path as papermill takes it: braces in it name no parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def run_notebook(
    path: Path, build: Path, values: Mapping[str, Any], profile: str, timeout: float | None = None
) -> Result:
    """Execute one notebook to the folder `build` and collect its problems; its errors are not raised."""
    output = build / path.name
    result = Result(path.stem, 0.0, promised(path))
    build.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)  # an old file must not be taken for a new one
    start, began = time.monotonic(), time.time()
    try:
        with headless(), private_sockets() as sockets:
            papermill.execute_notebook(
                plain(path),
                plain(output),
                parameters=dict(values),
                engine_name=ENGINE,
                kernel_name="python3",
                cwd=str(path.parent),
                progress_bar=False,
                execution_timeout=timeout,
                start_timeout=120,
                stderr_file=sys.stderr,
                config=sockets,
            )
    except papermill.PapermillExecutionError as error:
        result.problems.append(f"cell {error.cell_index} failed: {error.ename}: {error.evalue}")
    except CellTimeoutError:
        result.problems.append(f"a cell took longer than {timeout} s")
    except DeadKernelError:
        result.problems.append("the kernel died (killed, or out of memory)")
    except RuntimeError as error:  # raised by nbclient if a kernel never answers
        result.problems.append(f"the kernel did not start: {error}")
    except (OSError, zmq.ZMQError, papermill.exceptions.PapermillException) as error:  # such as a full disk
        result.problems.append(f"it could not be run: {' '.join(str(error).split())}")
    result.seconds = time.monotonic() - start
    if not output.exists():
        result.problems.append("no executed notebook was written")
    elif not result.problems:
        result.problems += unfinished(nbformat.read(output, as_version=4))
    result.problems += broken_promises(result.artefacts, profile, began)
    return result


def promised(path: Path) -> list[str]:
    """The names of the figures that a notebook promises."""
    return list(nbformat.read(path, as_version=4).metadata.get("sln", {}).get("artefacts", []))


def unfinished(executed: NotebookNode) -> list[str]:
    """Problems in an executed notebook: cells that did not run, failed or ran out of order, widget errors."""
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
        elif path.stat().st_mtime < began - 1:  # file times can be rounded to a second
            problems.append(f"promised {path.name} is stale: it was not written by this run")
    return problems


def unpromised(profile: str, results: list[Result]) -> list[str]:
    """Files in the figures folder that no notebook promises, such as those of a renamed figure."""
    known = {f"{name}{kind}" for result in results for name in result.artefacts for kind in ARTEFACT_KINDS}
    folder = figures_folder(profile)
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return sorted(name for name in found - known - {"manifest.json"} if not name.startswith("."))


def print_table(results: list[Result], leftovers: list[str], article: Path) -> None:
    """Print a table of notebooks: seconds, number of figures, result."""
    width = max(len(result.name) for result in results)
    print(f"\n{'notebook':{width}}  {'time':>7}  {'figures':>7}  result")
    for result in results:
        verdict = f"FAILED: {result.problems[0]}" if result.problems else "ok"
        print(f"{result.name:{width}}  {result.seconds:6.0f}s  {len(result.artefacts):7}  {verdict}")
    total = datetime.timedelta(seconds=round(sum(result.seconds for result in results)))
    print(f"{'total':{width}}  {total!s:>7}")
    for name in leftovers:
        print(f"stale: no notebook promises {name}; remove it")
    print(f"open {article}")


def parse_parameters(texts: list[str]) -> dict[str, Any]:
    """Values of `NAME=VALUE` texts: Python literals, or else text. Raises InputError for another form."""
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
