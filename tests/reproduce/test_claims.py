"""The table of claims shows rows of the notebooks' tables, and what was not run is named."""

import pandas as pd
import pytest

from sln.reproduce import claims
from sln.reproduce.summary import Numbers
from sln.utils.files import project_root

STEP = {"noise": "sym", "step": "CE → SLN", "ours": 32.14, "low": 29.0, "high": 35.2, "paper": 26.84}


@pytest.fixture
def numbers(tmp_path):
    """Tables of `full` with one step, of digits and of letters; `mini` has a table of an older version."""
    for name, table, columns in (
        ("full", "06_steps_of_the_order", {"verdict": "holds"}),
        ("full", "06_letters_steps", {"ours": -1.0, "verdict": "cannot be told with 5 seeds"}),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        pd.DataFrame([STEP | columns]).to_csv(tmp_path / name / f"{table}.csv", index=False)
    (tmp_path / "mini").mkdir()
    old = {"noise": "sym", "step": "CE → SLN", "ours": 9.0, "error": 1.0}
    pd.DataFrame([old]).to_csv(tmp_path / "mini" / "06_steps_of_the_order.csv", index=False)
    return {name: Numbers(tmp_path / name) for name in ("full", "mini")}


def test_a_claim_has_its_number_interval_and_verdict_for_each_data_set(numbers):
    first = claims.rows(numbers)[0]
    assert first == {
        "claim": "symmetric noise: CE → SLN",
        "paper": "+26.8",
        "digits": "+32.1 points (+29.0 to +35.2), holds",
        "letters": "-1.0 points (+29.0 to +35.2), cannot be told with 5 seeds",
        "photographs": "not run",
        "notebook": "6",
    }


def test_without_full_the_numbers_are_those_of_quick(numbers):
    first = claims.rows({"quick": numbers["full"]})[0]
    assert first == claims.rows({"full": numbers["full"]})[0]
    assert first["paper"] == "+26.8"


def test_a_table_that_a_profile_only_shows_is_not_its_own(numbers):
    table = "06_steps_of_the_order.csv"
    (numbers["mini"].folder / table).write_bytes((numbers["full"].folder / table).read_bytes())
    first = claims.rows(numbers)[0]
    assert first["digits"].endswith(", holds")
    assert first["photographs"] == "not run"


def test_a_gain_contradicts_a_claim_of_none(numbers):
    where = {"noise": "sym", "step": "CE → SLN"}
    claim = claims.Claim("no gain", "no gain", 5, "06_steps_of_the_order", where, value="ours", none=True)
    assert claims.cell(claim, numbers["full"], claim.table).endswith(", does not hold")


def test_what_was_not_run_is_named(numbers):
    others = claims.rows(numbers)[1:]
    assert {row[name] for row in others for name in ("digits", "letters", "photographs")} == {"not run"}
    assert claims.rows({})[0]["digits"] == "not run"


def test_every_claim_chooses_one_row_of_the_committed_tables():
    full, mini = (Numbers(project_root() / "figures" / name) for name in ("full", "mini"))
    for claim in claims.claims({}):
        human = str(claim.where.get("noise")).startswith("human")  # of photographs only
        assert len((mini if human else full).rows(claim.table, **claim.where)) == 1, claim.text
        if claim.letters:
            assert len(full.rows(claim.letters, **claim.where)) == 1, claim.text
