"""How the benchmarks measure, on the CPU: rows that outlive their script, and turns."""

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("measuring")


def test_a_row_is_in_the_file_at_once_and_a_second_script_adds_to_it(measuring, tmp_path, capsys):
    path = tmp_path / "new" / "rows.csv"
    assert measuring.Table(path).add("step", "bfloat16", [3.0, 1.0, 2.0], "ms") == 2.0
    measuring.Table(path).add("step", "bfloat16", [5.0], "ms", at_once=4)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(r["value"], r["low"], r["high"], r["at_once"]) for r in rows] == [
        ("2", "1", "3", "1"),
        ("5", "5", "5", "4"),
    ]
    measuring.Table(None).add("step", "bfloat16", [7.0], "ms")
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_turns_go_round_until_the_last_generator_has_ended(measuring):
    seen = []

    def turns(name, count):
        for _ in range(count):
            seen.append(name)
            yield

    measuring.in_turns([turns("a", 1), turns("b", 3), turns("c", 2)], [None] * 3)
    assert "".join(seen) == "abcbcb"


def test_actions_are_timed_in_turns(measuring):
    seen = []
    times = measuring.alternating({"A": lambda: seen.append("A"), "B": lambda: seen.append("B")}, 2)
    assert "".join(seen) == "ABAB"
    assert {name: len(values) for name, values in times.items()} == {"A": 2, "B": 2}
    assert measuring.ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize("script", ["speeds.py", "released.py"])
def test_a_script_runs_from_a_bare_checkout_where_sln_is_not_installed(script, tmp_path):
    # -S leaves out what pip installed in place; packages themselves are found by their folder
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    command = [sys.executable, "-S", str(BENCHMARKS / script), "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": packages}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout
