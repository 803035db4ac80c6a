"""The contract of the notebooks, and that all of them run."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from sln import runs
from sln.reproduce.execute import reproduce
from sln.study.plan import planned

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
FOLDED = "jp-MarkdownHeadingCollapsed"  # JupyterLab's own name
TO_COPY = "12_your_own_loop"  # shows a training loop for the reader to copy, and what goes into it
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells_of(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def nodes_of(path):
    """Every node of the syntax trees of a notebook's code."""
    return [node for cell in cells_of(path, "code") for node in ast.walk(ast.parse(cell.source))]


def called(node):
    """The name that a Call calls, without its owner: `save` for study.save(...)."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def calls_of(path, *names):
    return [node for node in nodes_of(path) if isinstance(node, ast.Call) and called(node) in names]


def saved(path):
    """The names that a notebook saves figures and tables under; each must be written out in the call."""
    names = []
    for call in calls_of(path, "save"):
        texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        assert len(texts) == 1, ast.unparse(call)
        names += texts
    return names


def test_there_are_notebooks_and_each_is_one_of_the_study():
    assert PATHS
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == PATHS
    assert [path.name[:2] for path in PATHS] == [f"{number:02}" for number in range(1, len(PATHS) + 1)]


@every_notebook
def test_it_is_valid_and_stripped_of_all_traces_of_a_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not {"papermill", "widgets"} & set(notebook.metadata)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", FOLDED}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@every_notebook
def test_it_opens_with_a_title_and_a_question(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert "?" in first.source


@every_notebook
def test_it_ends_as_all_do_with_its_checks_folded(path):
    texts = [cell.source for cell in cells_of(path, "markdown")]
    titles = [text.splitlines()[0] for text in texts if text.startswith("## ")]
    assert titles[-4:] == ["## Take-aways", "## Exercises", "## References", "## Checks"]
    take_aways = next(text for text in texts if text.startswith("## Take-aways"))
    assert len(re.findall("^- ", take_aways, re.M)) == 3
    checks = next(cell for cell in cells_of(path, "markdown") if cell.source.startswith("## Checks"))
    assert checks.metadata[FOLDED] is True


@every_notebook
def test_its_map_leads_to_all_others(path):
    links = re.findall(r"\]\((\d\d_\w+\.ipynb)\)", cells_of(path, "markdown")[0].source)
    assert links == [other.name for other in PATHS if other != path]


@every_notebook
def test_one_cell_holds_the_parameters_as_typed_literals(path):
    tagged = [cell for cell in cells_of(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {}
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign)
        values[statement.target.id] = ast.literal_eval(statement.value)
        assert type(values[statement.target.id]).__name__ == ast.unparse(statement.annotation)
    assert values["PROFILE"] == "quick"


@every_notebook
def test_its_cells_are_short_and_define_and_train_nothing(path):
    assert max(len(cell.source.splitlines()) for cell in cells_of(path, "code")) <= 25
    if path.stem == TO_COPY:
        return
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    assert [ast.unparse(node) for node in nodes_of(path) if isinstance(node, kinds)] == []
    assert calls_of(path, "step", "backward", "zero_grad", "train_epoch") == []
    loops = [node for node in nodes_of(path) if isinstance(node, (ast.For, ast.While))]
    assert [ast.unparse(node) for node in loops if re.match(r"(for|while).*epoch", ast.unparse(node))] == []


@every_notebook
def test_it_ends_with_claims_that_are_checked(path):
    last = ast.parse(cells_of(path, "code")[-1].source)
    claims = [
        node
        for node in ast.walk(last)
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and called(node) == "check")
    ]
    assert claims
    # a claim that is a constant claims nothing
    tests = [node.test if isinstance(node, ast.Assert) else node.args[-1] for node in claims]
    assert not any(isinstance(test, ast.Constant) for test in tests)


@every_notebook
def test_it_promises_exactly_what_it_saves(path):
    artefacts = nbformat.read(path, as_version=4).metadata.sln.artefacts
    assert sorted(saved(path)) == sorted(artefacts)
    assert artefacts
    assert all(name.startswith(path.name[:3]) for name in artefacts)  # so no two notebooks write one file


@every_notebook
def test_each_figure_comes_with_a_sentence_that_says_what_it_shows(path):
    for call in calls_of(path, "save"):
        (shows,) = [ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == "shows"]
        assert re.fullmatch(r"[A-Z][^$\\{}]+[^.]\.", shows), shows  # no LaTeX is left in it
        assert 60 <= len(shows) <= 200, shows
        # a number in it would have to be right for every profile
        assert set(re.findall(r"\d+(?!-)", shows)) <= {"0", "1", "2", "10", "95"}, shows


@every_notebook
def test_it_runs_anywhere(path):
    for cell in cells_of(path, "code"):
        assert not re.search(r"^\s*[%!]", cell.source, flags=re.MULTILINE)  # %matplotlib, !pip ...
    unwanted = ("sys.path", "os.chdir", "pyplot", "plt.", "ipywidgets")
    text = "\n".join(ast.unparse(node) for node in nodes_of(path) if isinstance(node, ast.stmt))
    assert [word for word in unwanted if word in text] == []
    texts = [node.value for node in nodes_of(path) if isinstance(node, ast.Constant)]
    assert [text for text in texts if isinstance(text, str) and re.match(r"/|~|[A-Za-z]:[\\/]", text)] == []


def test_all_open_with_the_same_import():
    firsts = [cells_of(path, "code")[1].source.splitlines()[0] for path in PATHS]
    assert {first.split("  #")[0] for first in firsts} == {"from sln import Study, analysis, explore, plots"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_notebook_runs_headlessly_and_keeps_its_promises(smoke_study, tmp_path, capfd):
    trained = {run.config for run in runs.finished()}
    assert reproduce("smoke", build=tmp_path / "build") == 0
    out, article = capfd.readouterr().out, (tmp_path / "build" / "smoke" / "index.html").read_text()
    for path in PATHS:
        assert re.search(rf"^{path.stem} .* ok$", out, flags=re.MULTILINE)
        assert f'<section id="{path.stem}"' in article
    captions = re.findall(r"<figcaption.*?(?=<button|</figcaption>)", article, flags=re.DOTALL)
    texts = [re.sub(r"<[^>]*>", "", caption).strip() for caption in captions]
    assert len(texts) >= article.count("<figure") > len(PATHS)
    assert [text for text in texts if not re.match(r"[A-Z].*\.$", text, flags=re.DOTALL)] == []
    # the notebooks ask for the planned runs: neither less nor more
    assert {run.config for run in runs.finished()} == trained == set(planned(smoke_study))
