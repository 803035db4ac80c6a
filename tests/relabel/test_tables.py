"""CSV files: formulas are made safe, everything else stays as it is."""

import pytest

from sln.relabel import tables
from sln.relabel.tables import as_csv, safe


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_formulas_are_made_safe_and_nothing_else_changes(start):
    assert safe(f"{start}A1") == f"'{start}A1"
    assert safe(f"{start}A1", "./") == f"./{start}A1"
    assert safe(f"A1{start}") == f"A1{start}"
    assert safe("") == ""


def test_numbers_are_no_formulas():
    for number in ("-1", "-1.5", "+2.5", "-1,5", "-1e-05", "+2."):
        assert safe(number) == number
    for formula in ("-1+1", "--1", "=1", "-1-2", "\t1"):
        assert safe(formula) == f"'{formula}"


@pytest.mark.parametrize("row", ["a.png,cat, tabby", 'a.png, "cat, tabby"'])
def test_a_row_with_more_cells_than_the_header_is_refused(row, tmp_path, refused):
    (tmp_path / "list.csv").write_text(f"path,label\nb.png,dog,,\n{row}\n")
    with refused("list.csv, row 3 has more cells", "double quotes"):
        tables.read(tmp_path / "list.csv")


def test_lone_carriage_returns_stay_inside_their_cells(tmp_path):
    records = [["path", "label"], ["a\rb", "c"], ["d,e", 'f"g']]
    (tmp_path / "a.csv").write_bytes(as_csv(records).encode())
    assert tables.read(tmp_path / "a.csv").records == records
