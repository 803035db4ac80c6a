"""Results beside the paper's, and tables taken from the profile full."""

import numpy as np
import pandas as pd
import pytest

from sln.analysis import results
from sln.study import ablations
from sln.study.study import METHODS, Study


def test_recipes_with_runs_are_named_and_a_lack_of_runs_too():
    columns = ["recipe", "method", "ours", "paper", "seeds"]
    table = pd.DataFrame([("a", "CE", 80.0, 81.5, 2), ("b", "SLN", np.nan, 80.0, 0)], columns=columns)
    assert results.describe_recipes(table) == "a, CE: ours 80.00% (2 runs), the paper’s 81.50%."
    assert results.describe_recipes(table[1:]).startswith("No recipe has a finished run")


@pytest.fixture
def study():
    return Study("smoke")


def test_results_are_beside_the_papers_and_every_step_has_a_verdict(study, monkeypatch):
    monkeypatch.setattr(Study, "methods", lambda self, mode, **settings: {m: FakeRuns(m) for m in METHODS})
    monkeypatch.setattr(Study, "choose_sigma", lambda self, mode, **settings: 0.5)
    table = results.table(study)
    assert table.groupby("noise")["mean"].apply(list)["sym"] == pytest.approx([50, 50, 60, 70, 65])
    beside = results.beside_published(table, "digits")
    assert beside.loc[("sym", "SLN"), "paper (cifar10)"] == "80.00 ± 0.61"
    assert beside.loc[("sym", "CE-MO"), "paper (cifar10)"] == "not in the paper"
    steps = results.steps_of_the_order(study).set_index(["noise", "step"])
    assert steps["verdict"]["sym", "CE → SLN"] == "holds"
    assert steps["verdict"]["sym", "SLN-MO → SLN-MO-LC"] == "does not hold"
    assert steps["verdict"]["openset", "SLN-MO → SLN-MO-LC"] == "holds"
    assert steps["paper"]["sym", "CE → SLN"] == pytest.approx(80.00 - 53.16)
    assert "CE → SLN holds (+10.0, +10.0 to +10.0)" in results.describe_steps(steps.reset_index())


class FakeRuns:
    """A method whose accuracy over two seeds is known."""

    def __init__(self, name):
        self.mean = {"CE": 0.5, "CE-MO": 0.5, "SLN": 0.6, "SLN-MO": 0.7, "SLN-MO-LC": 0.65}[name]

        self.runs = [None, None]

    def final(self, column):
        return np.array([self.mean - 0.01, self.mean + 0.01])

    last10 = early = final


def test_a_profile_without_own_runs_shows_the_committed_table_of_full(study, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SLN_FIGURES", str(tmp_path))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "08_schedules.csv").write_text("schedule,mean\nconstant,93.5\n")
    asked = []
    table = results.own_or_full(study, "08_schedules", asked.append, own=())
    assert table["mean"].tolist() == [93.5]
    assert asked == []
    assert "full" in capsys.readouterr().out
    made = results.own_or_full(study, "08_schedules", lambda of: pd.DataFrame({"of": [of.name]}), own=True)
    assert made["of"].tolist() == ["smoke"]


def test_a_table_missing_in_full_is_refused(study, refused):
    with refused("08_nothing.csv is missing", "PROFILE=full"):
        results.own_or_full(study, "08_nothing", ablations.schedules, own=False)
