"""Folders and CSVs of your own are listed; entries that cannot be used are named and counted."""

import csv
import io
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_images import lay, names, pictures, save, write_csv

from sln.relabel.listing import listed
from sln.relabel.pipeline import corrected_csv


@pytest.fixture
def folder(tmp_path):
    return lay(tmp_path / "mine", count=12)


def test_other_columns_a_byte_order_mark_blank_lines_and_windows_line_ends_are_read(folder):
    lines = [
        "\ufeffnote,label,path",
        '"a, b",left,left/000.png',
        "",
        ',"right",right/001.png',
        ",left,left/002.png",
        ",right,right/003.png",
    ]
    (folder / "list.csv").write_bytes("\r\n".join(lines).encode())
    assert names(listed(folder / "list.csv")) == [
        "left/000.png",
        "right/001.png",
        "left/002.png",
        "right/003.png",
    ]


ROWS = [(f"{label}/{i:03}.png", label) for i, label in enumerate(["left", "right"] * 6)]


@pytest.mark.parametrize("separator", [",", ";", "\t", ", ", "; "])
@pytest.mark.parametrize("start", ["", "\ufeff", "\ufeffsep={}\r\n"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_separators_of_spreadsheets_are_read_and_kept(separator, start, quote, folder):
    start = start.format(separator[0])
    lines = [separator.join(quote + cell + quote for cell in row) for row in [("path", "label"), *ROWS]]
    (folder / "list.csv").write_bytes((start + "\r\n".join(lines)).encode())
    found = listed(folder / "list.csv")
    assert [(entry.name, entry.label) for entry in found.entries] == ROWS
    plain = "".join(separator[0].join(row) + "\n" for row in [("path", "label"), *ROWS])
    assert corrected_csv(found, found.labels) == start + plain


@pytest.mark.parametrize(
    "spelt",
    [
        lambda name: name.replace("/", "\\"),
        lambda name: f" {name} ",
        lambda name: name.replace(".png", ".PNG"),
        lambda name: f"{name.replace('/', chr(92))} ".replace(".png", ".Png"),
    ],
)
def test_paths_as_other_systems_write_them_are_found(spelt, folder):
    rows = [(spelt(name), f" {label} ") for name, label in ROWS]
    found = listed(write_csv(folder / "list.csv", rows, header=("path ", "label ")))
    assert [(entry.name, entry.label) for entry in found.entries] == ROWS
    assert found.table.records[1:] == [list(row) for row in rows]


def test_paths_without_an_ending_are_found_if_that_is_clear(folder):
    rows = [(name.removesuffix(".png"), label) for name, label in ROWS]
    found = listed(write_csv(folder / "list.csv", rows))
    assert [(entry.name, entry.label) for entry in found.entries] == ROWS
    (folder / "left" / "000.jpg").write_bytes(b"x")  # another image or a mask
    found = listed(folder / "list.csv")
    assert found.skipped == [("left/000", "it is missing")]


@pytest.mark.parametrize("start", ["C:\\data\\", "https://example.org/img/", "/data/upload/1/"])
def test_paths_of_another_machine_are_refused_with_a_way_out(start, folder, refused):
    rows = [(start + name, label) for name, label in ROWS]
    with refused("it is missing", "write its paths as they are below a folder here", "--images"):
        listed(write_csv(folder / "list.csv", rows))


def test_absolute_paths_and_those_of_a_neighbour_need_the_folder_of_the_images(folder, tmp_path, refused):
    (tmp_path / "lists").mkdir()
    for start in (folder, "../mine"):
        source = write_csv(tmp_path / "lists" / "list.csv", [(f"{start}/{name}", c) for name, c in ROWS])
        with refused("leads out of the folder lists", "--images"):
            listed(source)
        assert len(listed(source, root=folder).entries) == 12


def test_empty_rows_of_spreadsheets_are_no_entries(folder):
    lines = [",path,label,,", *(f"{number},{name},{label},," for number, (name, label) in enumerate(ROWS))]
    (folder / "list.csv").write_text("\n".join([*lines, ",,,,", " ,,,,", ",left/000.png,,,"]) + "\n")
    found = listed(folder / "list.csv")
    assert len(found.entries) == 12
    assert found.skipped == [("left/000.png", "it has no label")]
    assert corrected_csv(found, found.labels) == (folder / "list.csv").read_text()


def test_columns_in_other_case_are_found_unless_that_is_unclear(folder, refused):
    assert len(listed(write_csv(folder / "list.csv", ROWS, header=("Path", "LABEL"))).entries) == 12
    rows = [(*row, "x") for row in ROWS]
    found = listed(write_csv(folder / "list.csv", rows, header=("Path", "label", "Label")))
    assert found.labels == [label for _, label in ROWS]
    with refused("no column 'label'", "'LABEL'"):
        listed(write_csv(folder / "list.csv", rows, header=("path", "Label", "LABEL")))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_line_ends_of_old_macs_are_read(separator, folder):
    lines = [separator.join(row) for row in [("path", "label"), *ROWS]]
    (folder / "list.csv").write_bytes("\r".join(lines).encode())
    assert [(entry.name, entry.label) for entry in listed(folder / "list.csv").entries] == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_read_if_it_is_marked(encoding, folder):
    mark = "" if encoding == "utf-16" else "\ufeff"
    text = mark + "".join(",".join(row) + "\n" for row in [("path", "label"), *ROWS])
    (folder / "list.csv").write_bytes(text.encode(encoding))
    assert [(entry.name, entry.label) for entry in listed(folder / "list.csv").entries] == ROWS


@pytest.mark.parametrize("name", ["book.xlsx", "list.json", "list.JSONL", "rows.parquet"])
def test_other_files_are_no_csv(name, tmp_path, refused):
    (tmp_path / name).write_bytes(b'[{"path": "a.png"}]')
    with refused(name, "no CSV", "save the list as CSV"):
        listed(tmp_path / name)


@pytest.mark.parametrize(("stored", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_the_other_unicode_form_are_found(stored, written, folder):
    name, other = (unicodedata.normalize(form, "left/é.png") for form in (stored, written))
    (folder / "left" / "000.png").rename(folder / name)
    found = listed(write_csv(folder / "list.csv", [(other, "left")]))
    assert [entry.name for entry in found.entries] == [name]


def test_a_backslash_that_belongs_to_a_name_stays(folder):
    (folder / "left" / "000.png").rename(folder / "left\\000.png")
    found = listed(write_csv(folder / "list.csv", [("left\\000.png", "left"), ROWS[1]]))
    assert names(found) == ["left\\000.png", ROWS[1][0]]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8"])
def test_a_csv_of_another_encoding_is_read_if_that_is_named(encoding, folder, refused):
    (folder / "left").rename(folder / "Hündin")
    rows = [(name.replace("left", "Hündin"), label.replace("left", "Hündin")) for name, label in ROWS]
    file = folder / "list.csv"
    file.write_bytes("".join(",".join(row) + "\n" for row in [("path", "label"), *rows]).encode(encoding))
    found = listed(file, encoding=encoding)
    assert [(entry.name, entry.label) for entry in found.entries] == rows
    with refused("unknown encoding 'latin-x'", "cp1252"):
        listed(file, encoding="latin-x")
    with (
        refused("list.csv is not ASCII text", "--encoding") if encoding != "utf-16" else refused("--encoding")
    ):
        listed(file, encoding="ascii")


def test_columns_of_other_names_are_read_and_kept(folder):
    rows = [("1", label, "path", name) for name, label in ROWS]
    file = write_csv(folder / "list.csv", rows, header=("label", "class", "path", "image_id"))
    found = listed(file, columns=("image_id", "class"))
    assert [(entry.name, entry.label) for entry in found.entries] == ROWS
    changed = corrected_csv(found, ["right", *found.labels[1:]]).splitlines()
    assert changed[:3] == [
        "label,class,path,image_id",
        "1,right,path,left/000.png",
        "1,right,path,right/001.png",
    ]


def test_records_without_a_label_are_skipped(folder):
    lines = ["path,label", "left/000.png,left", "left/002.png", "right/001.png,right"]
    lines += ["left/004.png,left", "right/003.png,right"]
    (folder / "list.csv").write_text("\n".join(lines))
    found = listed(folder / "list.csv")
    assert len(found.entries) == 4
    assert found.skipped == [("left/002.png", "it has no label")]


def test_hidden_files_are_ignored_and_loose_ones_are_named(folder):
    (folder / ".DS_Store").write_text("x")
    (folder / "left" / ".DS_Store").write_text("x")
    (folder / "README.txt").write_text("x")
    found = listed(folder)
    assert [name for name, _ in found.skipped] == ["README.txt"]
    assert len(found.entries) == 12


def test_what_systems_leave_in_folders_is_no_class_and_no_image(folder):
    before = listed(folder)
    for name in ("__MACOSX", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN", "left/@eaDir", "right/__MACOSX"):
        (folder / name / "left").mkdir(parents=True)
        for inner in ("._000.png", "000.png", "left/001.png"):
            (folder / name / inner).write_bytes(b"x")
    for name in ("Thumbs.db", "left/thumbs.db", "left/desktop.ini", "right/Desktop.ini", "right/.DS_Store"):
        (folder / name).write_bytes(b"x")
    assert listed(folder) == before


@pytest.mark.parametrize("name", ["images.zip", "IMAGES.ZIP", "images.tar.gz", "images.tgz", "images.7z"])
def test_an_archive_is_refused(name, tmp_path, refused):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with refused(name, "archive", "unpack"):
        listed(tmp_path / name)


def test_links_that_lead_nowhere_or_out_are_named(folder, tmp_path, refused):
    (folder / "left" / "nowhere.png").symlink_to("none.png")
    assert listed(folder).skipped == [("left/nowhere.png", "it is missing")]
    (tmp_path / "store").mkdir()
    (folder / "right").rename(tmp_path / "store" / "right")
    (folder / "right").symlink_to(tmp_path / "store" / "right")
    with refused("'right'", "no images", "right/001.png", "leads out of the folder mine", "cp -rL"):
        listed(folder)


def test_names_that_are_not_utf8_are_skipped(folder):
    name = os.fsdecode(b"caf\xe9.png")
    save(pictures(1, seed=9)[0][0], folder / "left" / name)
    found = listed(folder)
    assert found.skipped == [(f"left/{name}", "its name cannot be used")]


def test_a_folder_that_may_not_be_read_is_refused(folder, monkeypatch, refused):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    with refused("mine", "Permission denied"):
        listed(folder)


def test_nor_is_a_folder_inside_a_class_passed_over(folder, monkeypatch, refused):
    (folder / "left" / "more").mkdir()
    inside = Path.iterdir

    def denied(self):
        if self.name == "more":
            raise PermissionError(13, "Permission denied")
        return inside(self)

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    with refused("left/more", "Permission denied"):
        listed(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"path|label\na|b\n", ["no column 'path'", "'path|label'", "commas", "--path-column"]),
        (b"path,class\na,b\n", ["no column 'label'", "'class'", "--label-column"]),
        (b"path,label,label\na,b,c\n", ["2 columns 'label'"]),
        (b"path,label\n", ["lists no image"]),
        (b"cat/0.png,cat\ndog/0.png,dog\n", ["the first line must be the columns' names"]),
        (
            b"filename, cat, dog\na.png, 1, 0\nb.png, 0, 1\n",
            ["no column 'label'", "'cat', 'dog'", "one column"],
        ),
        (b"path,label\nnone.png,a\n", ["lists no image", "none.png", "missing", "--images"]),
        (b'path,label\n"a.png,b\n', ["line 2", "quote"]),
        (b"path,label\na.png,b,c\n", ["row 2", "more cells"]),
        (b"path,label\n\xff.png,b\n", ["UTF-8", "byte 11", "--encoding"]),
    ],
)
def test_bad_csvs_are_refused_in_one_line(content, words, tmp_path, refused):
    (tmp_path / "list.csv").write_bytes(content)
    with refused("list.csv", *words):
        listed(tmp_path / "list.csv")


def test_bad_folders_are_refused_in_one_line(folder, tmp_path, refused):
    with refused("nowhere", "neither a folder nor a file"):
        listed(tmp_path / "nowhere")
    with refused("no sub-folders", "path,label"):
        listed(folder / "left")
    with refused("goes with a CSV only"):
        listed(folder, root=folder)
    (folder / "bare").mkdir()
    (folder / "bare" / "gone.png").symlink_to(folder / "nowhere.png")
    with refused("'bare'", "no images", "gone.png"):
        listed(folder)


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=6)
tables = st.lists(st.lists(cell, min_size=2, max_size=3), max_size=5)


@settings(max_examples=200)
@given(tables, st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL)]))
def test_a_csv_has_the_cells_that_were_written(tmp_path_factory, table, style):
    folder = tmp_path_factory.mktemp("cells")
    table = [["path", "label", "more"], ["list.csv", "a"], *table]
    text = io.StringIO()
    csv.writer(text, lineterminator=style[0], quoting=style[1]).writerows(table)
    (folder / "list.csv").write_bytes(text.getvalue().encode())
    assert listed(folder / "list.csv").table.records == table
