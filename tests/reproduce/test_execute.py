"""Every failure that papermill does not report is found."""

import errno
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from small_notebooks import PIXEL, SAVE, SLIDER, write

from sln.reproduce import execute as runner
from sln.reproduce.article import Result
from sln.reproduce.execute import (
    broken_promises,
    check_parameters,
    parse_parameters,
    reproduce,
    run_notebook,
    unpromised,
)
from sln.utils.errors import InputError
from sln.utils.files import figures_folder


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """The small notebooks need no runs."""
    monkeypatch.setattr(runner, "train_ahead", lambda study: None)


# --- a study without problems


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Two good notebooks, reproduced once at `smoke`, where the user has a broken kernel of the same name."""
    folder = tmp_path_factory.mktemp("good")
    kernel = folder / "user" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": ["false", "{connection_file}"], "display_name": "mine", "language": "python"})
    )
    python = str(folder / "python")
    ask = f"import sys; Path({python!r}).write_text(sys.executable)\nassert (RADIUS, COUNT) == (1, 4)"
    write(
        folder / "notebooks",
        "01_first",
        SAVE,
        'save("01_a")',
        SLIDER.replace("START", "5"),
        artefacts=["01_a"],
    )
    write(
        folder / "notebooks", "02_second", SAVE, ask, 'save("02_a"); save("02_b")', artefacts=["02_a", "02_b"]
    )
    write(folder / "notebooks", "not_of_the_study", "assert False")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "user"))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
        patch.setenv("SLN_FIGURES", str(folder / "figures"))
        patch.setenv("SLN_WORKERS", "1")
        patch.delenv("SLN_HEADLESS", raising=False)
        patch.setattr(runner, "train_ahead", lambda study: None)
        code = reproduce(
            "smoke", folder=folder / "notebooks", build=folder / "build", parameters={"RADIUS": 1, "COUNT": 4}
        )
        assert "SLN_HEADLESS" not in os.environ
    return folder, code


def test_good_notebooks_give_0_an_article_a_manifest_and_a_summary(good):
    folder, code = good
    assert code == 0
    pages = {path.name for path in (folder / "build" / "smoke").glob("*.html")}
    assert pages == {"index.html", "report.html"}
    assert 'id="02_second"' in (folder / "build" / "smoke" / "index.html").read_text()
    manifest = json.loads((folder / "figures" / "smoke" / "manifest.json").read_text())
    assert list(manifest["seconds"]) == ["01_first", "02_second"]
    page = (folder / "figures" / "README.md").read_text()
    assert "`make reproduce` writes this page" in page
    assert "| `smoke` |" not in page  # its numbers mean nothing


def test_notebooks_run_together_and_are_reported_in_their_order(tmp_path, monkeypatch, capsys):
    """The first waits for the second, which waits for the first to begin."""
    monkeypatch.setenv("SLN_WORKERS", "2")
    begin, wait = "Path({0!r}).touch()", "import time\nwhile not Path({0!r}).exists(): time.sleep(0.05)"
    one, two, over = (str(tmp_path / name) for name in ("one", "two", "over"))
    first = [begin.format(one), wait.format(over), 'save("01_a")']
    second = [begin.format(two), wait.format(one), 'save("02_a")', begin.format(over)]
    write(tmp_path / "notebooks", "01_first", SAVE, *first, artefacts=["01_a"])
    write(tmp_path / "notebooks", "02_second", SAVE, *second, artefacts=["02_a"])
    assert reproduce("smoke", folder=tmp_path / "notebooks", build=tmp_path / "build", timeout=60) == 0
    manifest = json.loads((figures_folder("smoke") / "manifest.json").read_text())
    assert list(manifest["seconds"]) == ["01_first", "02_second"]
    fine = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith(" ok")]
    assert fine == ["01_first", "02_second"]


def test_this_pythons_own_kernel_runs_the_notebooks(good):
    folder, _ = good
    assert os.path.samefile((folder / "python").read_text(), sys.executable)


def test_the_notebooks_themselves_do_not_change(good):
    folder, _ = good
    for path in (folder / "notebooks").glob("*.ipynb"):
        assert all(not cell.outputs and not cell.execution_count for cell in nbformat.read(path, 4).cells)


def test_a_file_that_no_notebook_promises_is_a_failure(good, monkeypatch, capsys):
    folder, _ = good
    figures = folder / "figures" / "smoke"
    results = [Result("01_first", 1.0, ["01_a", "02_a", "02_b"])]
    monkeypatch.setenv("SLN_FIGURES", str(folder / "figures"))
    assert unpromised("smoke", results) == []
    (figures / "01_renamed.png").write_bytes(PIXEL)
    assert unpromised("smoke", results) == ["01_renamed.png"]
    # the command reports it, although the notebooks had no problems
    monkeypatch.setattr(runner, "run_notebook", lambda path, **options: Result(path.stem, 1.0, ["01_a"]))
    assert reproduce("smoke", folder=folder / "notebooks", build=folder / "again") == 1
    assert "01_renamed.png" in capsys.readouterr().out
    assert "01_renamed.png" in (folder / "again" / "smoke" / "index.html").read_text()
    monkeypatch.undo()
    monkeypatch.setenv("SLN_FIGURES", str(folder / "figures"))
    capsys.readouterr()
    assert reproduce("smoke", folder=folder / "notebooks", build=folder / "build", only=["01_first"]) == 0
    # one notebook again: the table names it alone, the article keeps the others
    assert "02_second" not in capsys.readouterr().out
    article = (folder / "build" / "smoke" / "index.html").read_text()
    assert article.index('<section id="01_first"') < article.index('<section id="02_second"')
    (figures / "01_renamed.png").unlink()


# --- refused before anything runs


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"RADUIS": 1.0}, ["'RADUIS'", "did you mean 'RADIUS'?"]),
        ({"RADIUS": "wide"}, ["RADIUS", "'wide'", "float"]),
        ({"RADIUS": True}, ["RADIUS", "True", "float"]),
        ({"COUNT": 1.0}, ["COUNT", "1.0", "int"]),
        ({"COUNT": "3"}, ["COUNT", "'3'", "int"]),
        ({"HARD": "true"}, ["HARD", "'true'", "bool"]),
        ({"HARD": 1}, ["HARD", "1", "bool"]),
    ],
    ids=str,
)
def test_unknown_and_mistyped_parameters_are_refused_before_anything_runs(
    parameters, words, tmp_path, refused, monkeypatch
):
    monkeypatch.setattr(runner, "run_notebook", None)
    for name in ("01_first", "02_second"):
        write(tmp_path / "notebooks", name)
    with refused(*words):
        reproduce("smoke", folder=tmp_path / "notebooks", build=tmp_path / "build", parameters=parameters)
    assert not (tmp_path / "build").exists()
    assert not figures_folder("smoke").exists()


def test_the_profile_is_no_parameter(tmp_path, refused):
    write(tmp_path, "01_first")
    with refused("--profile"):
        reproduce("smoke", folder=tmp_path, build=tmp_path / "build", parameters={"PROFILE": "full"})


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_trained(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(runner, "train_ahead", None)
    write(tmp_path, "01_first")
    (tmp_path / "build").touch()
    with refused("cannot write", "build"):
        reproduce("smoke", folder=tmp_path, build=tmp_path / "build")


def test_what_keeps_a_notebook_from_running_is_its_problem_alone(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner.papermill, "execute_notebook", full)
    result = run_notebook(write(tmp_path, "01_first"), tmp_path / "build", {"PROFILE": "smoke"}, "smoke")
    assert "No space left on device" in result.problems[0]


def test_braces_in_a_path_and_a_long_folder_for_temporary_files_do_no_harm(tmp_path, monkeypatch):
    folder = tmp_path / "{x} and {0}" / ("long" * 20)
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    path = write(folder, "01_first", "assert COUNT == 3")
    check_parameters(path, {"PROFILE": "smoke"})
    assert run_notebook(path, folder / "build", {"PROFILE": "smoke"}, "smoke").problems == []


def test_a_parameter_must_be_one_of_every_notebook(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(runner, "run_notebook", None)
    write(tmp_path, "01_first")
    write(tmp_path, "02_second", parameters='PROFILE: str = "quick"')
    with refused("02_second", "'RADIUS'"):
        reproduce("smoke", folder=tmp_path, build=tmp_path / "build", parameters={"RADIUS": 1.0})


def test_a_notebook_without_a_profile_parameter_is_refused(tmp_path, refused):
    write(tmp_path, "01_first", parameters="RADIUS: float = 0.5")
    with refused("01_first", "'PROFILE'"):
        reproduce("smoke", folder=tmp_path, build=tmp_path / "build")


def test_unknown_profiles_and_notebooks_are_refused(tmp_path, refused):
    write(tmp_path, "01_first")
    with refused("'smke'", "did you mean 'smoke'?"):
        reproduce("smke", folder=tmp_path, build=tmp_path / "build")
    with refused("'01_frist'", "did you mean '01_first'?"):
        reproduce("smoke", folder=tmp_path, build=tmp_path / "build", only=["01_frist"])


def test_parameters_on_the_command_line_are_python_values_or_else_text():
    texts = ["A=1", "B=0.5", "C=True", "D=quick", "E='1'", "F=a=b", "G="]
    assert parse_parameters(texts) == {
        "A": 1,
        "B": 0.5,
        "C": True,
        "D": "quick",
        "E": "1",
        "F": "a=b",
        "G": "",
    }
    for bad in ("A", "=1", "1A=2", "A B=1"):
        with pytest.raises(InputError, match="NAME=VALUE"):
            parse_parameters([bad])


# --- what can go wrong


TRAPS = {
    "an assertion that does not hold": (["assert COUNT == 4, 'the claim'"], "AssertionError: the claim"),
    "an error that its tag forgives": ([("1 / 0", "raises-exception"), "1"], "ZeroDivisionError"),
    "a cell that hangs": (["import time; time.sleep(100)"], "longer than 2 s"),
    "a kernel that is killed": (
        ["import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "1"],
        "kernel died",
    ),
    "a cell that leaves": (["import sys; sys.exit(0)", "assert False"], "SystemExit|did not run"),
    "a last process that ends": (["import os; os._exit(0)"], "kernel died|did not run"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_notebook_that_does_not_run_to_its_end_fails(trap, tmp_path):
    cells, problem = TRAPS[trap]
    path = write(tmp_path, "01_trap", SAVE + '\nsave("01_a")', *cells, artefacts=["01_a"])
    result = run_notebook(path, tmp_path / "build", {"PROFILE": "smoke"}, "smoke", timeout=2)
    assert len(result.problems) == 1
    assert re.search(problem, result.problems[0])


def test_missing_and_stale_figures_and_errors_in_slider_callbacks_are_all_found(tmp_path, capsys):
    names = ["kept", "missing", "stale", "empty", "without_table"]
    cells = [
        SAVE + '\nsave("kept"); save("empty", png=b"")\nsave("without_table")',
        'Path(os.environ["SLN_FIGURES"], PROFILE, "without_table.csv").unlink()',
        SLIDER.replace("START", "0"),  # 10 // 0 inside the callback, when it is shown
        SLIDER.replace("START", "5") + "\nslider.value = 0",  # and when it is moved
    ]
    write(tmp_path / "notebooks", "01_trap", *cells, artefacts=names)
    write(tmp_path / "notebooks", "02_other")
    folder = figures_folder("smoke")
    folder.mkdir(parents=True)
    for kind in (".png", ".csv"):
        (folder / f"stale{kind}").write_bytes(PIXEL if kind == ".png" else b"epoch\n1\n")
        os.utime(folder / f"stale{kind}", (time.time() - 3600,) * 2)
    assert reproduce("smoke", folder=tmp_path / "notebooks", build=tmp_path / "build", only=["01_trap"]) == 1
    out, err = capsys.readouterr()
    problems = [line.removeprefix("01_trap: ") for line in err.splitlines() if line.startswith("01_trap: ")]
    failed = "a slider's callback failed: ZeroDivisionError: integer division or modulo by zero"
    assert problems[:2] == [failed, failed]
    assert sorted(problems[2:]) == [
        "promised empty.png is missing",
        "promised missing.csv is missing",
        "promised missing.png is missing",
        "promised stale.csv is stale: it was not written by this run",
        "promised stale.png is stale: it was not written by this run",
        "promised without_table.csv is missing",
    ]
    assert "FAILED" in out
    article = (tmp_path / "build" / "smoke" / "index.html").read_text()
    assert "ZeroDivisionError" in article
    assert "promised missing.png is missing" in article


def test_an_empty_table_is_a_failure_and_not_a_crash(tmp_path, monkeypatch):
    write(tmp_path / "notebooks", "01_trap", artefacts=["empty"])
    folder = figures_folder("smoke")
    folder.mkdir(parents=True)
    (folder / "empty.png").write_bytes(PIXEL)
    (folder / "empty.csv").write_bytes(b"")

    def ran(path, profile, **options):
        return Result(path.stem, 1.0, ["empty"], broken_promises(["empty"], profile, time.time()))

    monkeypatch.setattr(runner, "run_notebook", ran)
    assert reproduce("smoke", folder=tmp_path / "notebooks", build=tmp_path / "build") == 1


def test_an_old_executed_notebook_is_not_taken_for_a_new_one(tmp_path, monkeypatch):
    path, output = write(tmp_path, "01_first"), tmp_path / "build" / "01_first.ipynb"
    output.parent.mkdir()
    output.write_text(Path(path).read_text())
    monkeypatch.setattr(runner.papermill, "execute_notebook", lambda *args, **options: None)
    result = run_notebook(path, output.parent, {"PROFILE": "smoke"}, "smoke")
    assert result.problems == ["no executed notebook was written"]


def test_a_file_that_is_no_notebook_is_refused_in_one_line(tmp_path):
    path = tmp_path / "01_broken.ipynb"
    path.write_text("{ half a notebook")
    with pytest.raises(InputError, match="is no notebook") as caught:
        check_parameters(path, {})
    assert "\n" not in str(caught.value)


def test_a_parameter_that_is_computed_is_refused_in_one_line(tmp_path):
    path = write(tmp_path, "01_computed")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = 'PROFILE: str = "quick"\nTWICE: int = 2 * len(PROFILE)'
    nbformat.write(notebook, path)
    with pytest.raises(InputError, match="literal parameters"):
        check_parameters(path, {"PROFILE": "smoke"})
