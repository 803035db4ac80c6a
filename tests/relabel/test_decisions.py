"""Decisions become corrected.csv, and only they; a row that does not fit is named, and nothing is written."""

import csv

import pytest
from own_images import canned_fit, lay, names, pictures, save, write_csv

from sln.cli import main
from sln.relabel import decisions
from sln.relabel.decisions import DECISIONS, HEADER
from sln.relabel.listing import listed

ROWS = [
    ("left/000.png", "left", "suggestion", "right"),
    ("left/002.png", "left", "keep", "left"),
    ("right/001.png", "right", "other", "left"),
    ("right/003.png", "right", "exclude", ""),
]


@pytest.fixture
def folder(tmp_path):
    """Twelve images of each class, and a text among them."""
    lay(tmp_path / "mine")
    (tmp_path / "mine" / "left" / "notes.txt").write_text("no image")
    return tmp_path / "mine"


@pytest.fixture
def apply(folder, tmp_path):
    """`apply(rows, ...)`: the exit code of the command."""

    def run(rows, *options, source=folder, header=HEADER):
        file = write_csv(tmp_path / "decisions.csv", rows, header)
        words = ["--decisions", str(file), "--out", str(tmp_path / "out"), *options]
        return main(["relabel", str(source), *words])

    return run


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_folder_is_corrected_by_decisions_alone(apply, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sln.relabel.pipeline.relabel", None)  # nothing is trained
    assert apply(ROWS) == 0
    expected = {name: name.split("/")[0] for name in names(listed(folder)) if name.endswith("png")}
    expected |= {"left/000.png": "right", "right/001.png": "left"}
    del expected["right/003.png"]
    header, *rows = read(tmp_path / "out" / "corrected.csv")
    assert header == ["path", "label"]
    assert dict(rows) == expected
    assert len(rows) == 23
    counts = "24 labels: 1 suggestion, 1 keep, 1 other, 1 exclude; 20 without a decision stay as given."
    assert counts in capsys.readouterr().out
    assert apply(ROWS[:1]) == 0  # again, with fewer: what was decided before is not kept
    assert dict(read(tmp_path / "out" / "corrected.csv")[1:])["right/003.png"] == "right"


def test_a_csv_keeps_its_other_cells_and_rows(apply, folder, tmp_path):
    lines = ["Bild;note;Klasse"] + [f"{name};-1.5;{name.split('/')[0]}" for name, *_ in ROWS]
    lines += ["none.png;not there;left", "left/004.png;undecided;left"]
    source = tmp_path / "list.csv"
    source.write_text("\n".join(lines) + "\n")
    options = ["--images", str(folder), "--path-column", "Bild", "--label-column", "Klasse"]
    assert apply(ROWS, *options, source=source) == 0
    lines[1], lines[3] = "left/000.png;-1.5;right", "right/001.png;-1.5;left"
    del lines[4]
    assert (tmp_path / "out" / "corrected.csv").read_text() == "\n".join(lines) + "\n"


def test_one_image_with_two_labels_is_decided_by_label(apply, folder, tmp_path):
    source = write_csv(folder / "list.csv", [("left/000.png", "left"), ("left/000.png", "right")])
    rows = [("left/000.png", "left", "keep", "left"), ("left/000.png", "right", "exclude", "")]
    assert apply(rows, source=source) == 0
    assert read(tmp_path / "out" / "corrected.csv")[1:] == [["left/000.png", "left"]]


def test_cells_that_were_made_safe_are_read_back(apply, tmp_path):
    for number, image in enumerate(pictures(4)[0]):
        save(image, tmp_path / "odd" / ("=a" if number % 2 else "-b") / f"{number}.png")
    rows = [("./=a/1.png", "'=a", "suggestion", "'-b"), ("./-b/0.png", "'-b", "keep", "'-b")]
    assert apply(rows, source=tmp_path / "odd") == 0
    written = dict(read(tmp_path / "out" / "corrected.csv")[1:])
    assert written == {"./=a/1.png": "'-b", "./=a/3.png": "'=a", "./-b/0.png": "'-b", "./-b/2.png": "'-b"}


BAD = {
    "'left/999.png' is not in the data": ("left/999.png", "left", "keep", "left"),
    "is labelled 'left' in the data, not 'Left'; add --merge-spellings": (
        "left/004.png",
        "Left",
        "keep",
        "Left",
    ),
    f"unknown decision 'yes', allowed are {', '.join(DECISIONS)}": ("left/004.png", "left", "yes", "left"),
    "keep with the label 'right', expected is 'left'": ("left/004.png", "left", "keep", "right"),
    "exclude with the label 'left', expected is ''": ("left/004.png", "left", "exclude", "left"),
    "'rihgt' is no label of the data": ("left/004.png", "left", "other", "rihgt"),
    "'' is no label of the data": ("left/004.png", "left", "other", ""),
    "has an earlier row": ROWS[0],
    "has 3 cells, expected are 4": ("left/004.png", "left", "keep"),
    "has more cells than its first line has names": ("left/004.png", "left", "keep", "left", "x"),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_row_is_named_and_nothing_is_written(why, apply, tmp_path, capsys):
    assert apply([*ROWS, BAD[why]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sln: {tmp_path / 'decisions.csv'}, row 6")
    assert why in line
    assert not (tmp_path / "out").exists()


def test_a_file_of_other_columns_or_none_is_named_in_one_line(apply, folder, tmp_path, capsys):
    for header in (("path", "given"), (*HEADER, "more"), ("path", "given", "verdict", "label")):
        assert apply([], header=header) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path / 'decisions.csv'} has" in line
        assert "--" not in line
    assert main(["relabel", str(folder), "--decisions", "none.csv", "--out", str(tmp_path / "out")]) == 2
    assert "none.csv cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_empty_rows_of_spreadsheets_are_passed_over(apply, tmp_path):
    assert apply([ROWS[0], ("", "", "", ""), ROWS[1]]) == 0
    assert dict(read(tmp_path / "out" / "corrected.csv")[1:])["left/000.png"] == "right"


def test_an_image_that_relabel_found_damaged_is_left_out_again(apply, folder, tmp_path, monkeypatch):
    broken = folder / "left" / "004.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    monkeypatch.setattr("sln.relabel.pipeline.fit", canned_fit)
    assert main(["relabel", str(folder), "--out", str(tmp_path / "out")]) == 0
    suggested = [row[0] for row in read(tmp_path / "out" / "corrected.csv")]
    assert apply(ROWS[:1]) == 0
    assert [row[0] for row in read(tmp_path / "out" / "corrected.csv")] == suggested
    assert "left/004.png" not in suggested
    save(pictures(1)[0][0], broken)  # repaired
    assert apply(ROWS[:1]) == 0
    assert len(read(tmp_path / "out" / "corrected.csv")) == len(suggested) + 1


def test_options_of_training_do_not_go_with_decisions(apply, capsys):
    assert apply(ROWS, "--sigma", "0.5") == 2
    assert "so --sigma does not go with it" in capsys.readouterr().err


def test_a_file_that_a_spreadsheet_has_saved_is_read(folder, tmp_path):
    text = "\ufeff" + "".join(";".join(f'"{cell}"' for cell in row) + "\r\n" for row in (HEADER, *ROWS))
    (tmp_path / "decisions.csv").write_bytes(text.encode())
    decided = decisions.read(tmp_path / "decisions.csv", listed(folder).entries)
    assert decided["left/000.png", "left"] == ("suggestion", "right")
    assert decided["right/003.png", "right"] == ("exclude", None)
    assert len(decided) == 4
