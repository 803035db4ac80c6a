"""The sections of the page, and the page itself."""

import ast
from pathlib import Path

import nbformat
import pytest

from sln import explore, reproduce, runs
from sln.explore import page
from sln.study.study import Study
from sln.utils.files import figures_folder

PAGE = Path(__file__).parents[2] / "sln" / "explore" / "app.ipynb"


def test_the_page_shows_what_there_is_and_says_what_is_missing(smoke_study, monkeypatch):
    monkeypatch.delenv("SLN_HEADLESS")
    corrected = explore.corrections(smoke_study)
    texts = {text for text, _ in corrected.sliders["run"].options}
    rules = ("clean rule", "as released")
    kinds = ("symmetric", "asymmetric", "instance-dependent", "open-set")
    assert texts >= {f"{kind}, {rule}" for kind in kinds for rule in rules}
    corrected.sliders["run"].label = "symmetric, clean rule"
    assert corrected.picture.words.value.startswith("Of the 16 images that the clean rule moved")
    for make in (explore.landscapes, explore.results_by_noise):
        assert "make reproduce" in make(smoke_study).value
    quick = explore.results_by_noise(Study("quick"))  # committed
    assert quick.words.startswith("Under symmetric noise")
    assert "open-set" in quick.kept["noise"]
    assert explore.landscapes(Study("quick")).picture.words.value.startswith(
        "Seen from -60°, 22° up, the loss"
    )


def test_the_page_says_where_there_is_no_corrected_run(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    assert "make reproduce" in explore.corrections(Study("smoke")).value
    assert not list(tmp_path.iterdir())  # and trains none


@pytest.mark.slow
def test_the_page_runs_where_nothing_is_trained_and_trains_nothing(tmp_path):
    values = {"PROFILE": "smoke"}
    outcome = reproduce.run_notebook(PAGE, tmp_path, values, "smoke")
    assert outcome.problems == []
    assert not list(runs.runs_folder().glob("*/config.json"))


def test_the_page_is_stripped_and_defines_nothing():
    notebook = nbformat.read(PAGE, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
    kinds = (ast.ClassDef, ast.FunctionDef, ast.For, ast.While)
    assert not [node for cell in code for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]


def test_a_table_of_this_profile_comes_before_the_committed_one():
    folder = figures_folder("quick")
    folder.mkdir(parents=True)
    (folder / "06_results.csv").write_text("noise,method,mean,std\nsym,CE,1.5,0.5\n")
    assert page.saved(Study("quick"), "06_results")["mean"].tolist() == [1.5]
