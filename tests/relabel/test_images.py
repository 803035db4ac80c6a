"""Reading your own folder or CSV: images of any size and mode; unusable ones are named and counted."""

import csv
import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_images import lay, pictures, save
from PIL import Image, ImageOps

from sln.relabel import images
from sln.relabel.cells import Cells, harmless, value


def names(found):
    return [entry.name for entry in found.entries]


def write_csv(path, rows, header=("path", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def folder(tmp_path):
    return lay(tmp_path / "mine", count=12)


# --- folders and CSVs


def test_a_folder_gives_its_pixels_and_classes_in_order(folder):
    found = images.read(folder)
    pixels, labels = pictures(12)
    order = [*range(0, 12, 2), *range(1, 12, 2)]  # by class, then by name
    assert names(found) == [f"{'right' if i % 2 else 'left'}/{i:03}.png" for i in order]
    assert found.labels == ["right" if labels[i] else "left" for i in order]
    assert np.array_equal(found.images.numpy(), pixels[order])
    assert found.listing.skipped == []


def test_a_csv_gives_the_same_in_its_own_order(folder, tmp_path):
    whole = images.read(folder)
    rows = [(entry.name, entry.label) for entry in reversed(whole.entries)]
    found = images.read(write_csv(folder / "list.csv", rows))
    assert [(entry.name, entry.label) for entry in found.entries] == rows
    assert [entry.record for entry in found.entries] == list(range(1, 13))
    assert np.array_equal(found.images.numpy(), whole.images.numpy()[::-1])
    elsewhere = images.read(write_csv(tmp_path / "list.csv", rows), root=folder)
    assert names(elsewhere) == names(found)


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
    assert names(images.read(folder / "list.csv")) == [
        "left/000.png",
        "right/001.png",
        "left/002.png",
        "right/003.png",
    ]


def test_every_kind_of_bad_entry_is_skipped_by_name_with_its_reason(folder, tmp_path):
    save(pictures(1, seed=9)[0][0], tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "broken.png").write_bytes((folder / "left" / "000.png").read_bytes()[:60])
    (folder / "text.png").write_text("no image")
    (folder / "floats.tiff").parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "floats.tiff")
    bad = {
        "../outside.png": "leads out",
        str(tmp_path / "outside.png"): "leads out",
        "link.png": "leads out",
        "broken.png": "image file is truncated",
        "text.png": "none of JPEG, PNG",
        "floats.tiff": "floating-point",
        "none.png": "missing",
        "left": "missing",
        "zero\0byte.png": "cannot be used",
        "long" * 100: "cannot be used",
    }
    good = [(f"{c}/{i:03}.png", c) for i, c in enumerate(["left", "right"] * 3)]
    extra = [("left/006.png", ""), ("left/008.png", "only one"), ("", "left")]
    found = images.read(write_csv(folder / "list.csv", [*good, *((name, "left") for name in bad), *extra]))
    assert names(found) == [name for name, _ in good]
    told = dict(found.listing.skipped)
    assert told.keys() == {*bad, "left/006.png", "left/008.png", f"record {len(good) + len(bad) + 3}"}
    assert all(words in told[name] for name, words in bad.items())
    assert "no path" in told[f"record {len(good) + len(bad) + 3}"]
    assert "no label" in told["left/006.png"]
    assert "'only one'" in told["left/008.png"]
    assert all("\n" not in reason and reason for reason in told.values())


def test_records_that_are_too_short_are_skipped(folder):
    lines = ["path,label", "left/000.png,left", "left/002.png", "right/001.png,right"]
    lines += ["left/004.png,left", "right/003.png,right"]
    (folder / "list.csv").write_text("\n".join(lines))
    found = images.read(folder / "list.csv")
    assert len(found.entries) == 4
    assert [name for name, _ in found.listing.skipped] == ["record 2"]


def test_names_of_any_kind_are_read(tmp_path):
    odd = ["=1+1", "two words", 'a "quote"', "Käfer 虫", "a,b", "<b>bold<b>", "-x", "@y", "new\nline"]
    pixels, _ = pictures(2 * len(odd))
    for number, image in enumerate(pixels):
        save(image, tmp_path / "mine" / odd[number % len(odd)] / f"{odd[-1 - number % len(odd)]}{number}.png")
    found = images.read(tmp_path / "mine")
    assert sorted(set(found.labels)) == sorted(odd)
    assert len(found.entries) == 2 * len(odd)
    rows = [(entry.name, entry.label) for entry in found.entries]
    again = images.read(write_csv(tmp_path / "mine" / "list.csv", rows))
    assert [(entry.name, entry.label) for entry in again.entries] == rows


def test_hidden_files_are_nobodys_business_and_loose_ones_are_named(folder):
    (folder / ".DS_Store").write_text("x")
    (folder / "left" / ".DS_Store").write_text("x")
    (folder / "README.txt").write_text("x")
    found = images.read(folder)
    assert [name for name, _ in found.listing.skipped] == ["README.txt"]
    assert len(found.entries) == 12


def test_links_are_named_where_they_lead_nowhere_or_out(folder, tmp_path, refused):
    (folder / "left" / "nowhere.png").symlink_to("none.png")
    assert images.read(folder).listing.skipped == [("left/nowhere.png", "it is missing")]
    (tmp_path / "store").mkdir()
    (folder / "right").rename(tmp_path / "store" / "right")
    (folder / "right").symlink_to(tmp_path / "store" / "right")
    with refused("'right'", "no images", "right/001.png", "leads out of the folder mine"):
        images.read(folder)


def test_names_that_are_no_utf8_are_skipped(folder):
    name = os.fsdecode(b"caf\xe9.png")
    save(pictures(1, seed=9)[0][0], folder / "left" / name)
    found = images.read(folder)
    assert found.listing.skipped == [(f"left/{name}", "its name cannot be used")]


def test_what_may_not_be_looked_at_is_refused(folder, monkeypatch, refused):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    with refused("mine", "Permission denied"):
        images.read(folder)


def test_identical_images_are_one_group(folder):
    first = (folder / "left" / "000.png").read_bytes()
    (folder / "right" / "copy.png").write_bytes(first)
    found = images.read(folder)
    groups = dict(zip(names(found), found.groups.tolist(), strict=True))
    assert groups["left/000.png"] == groups["right/copy.png"]
    assert len(set(groups.values())) == 12


# --- what is refused


def test_bad_sources_are_refused_in_one_line(folder, tmp_path, refused):
    with refused("nowhere", "neither a folder nor a file"):
        images.read(tmp_path / "nowhere")
    with refused("no sub-folders", "path,label"):
        images.read(folder / "left")
    (folder / "empty").mkdir()
    with refused("'empty'", "no images"):
        images.read(folder)
    (folder / "empty" / "a.png").write_text("no image")
    with refused("'empty'", "could be read", "a.png"):
        images.read(folder)
    one = lay(tmp_path / "one", count=1)
    with refused("0 labels", "two are needed"):
        images.read(one)
    with refused("goes with a CSV only"):
        images.read(one, root=one)
    for size in (7, 2000):
        with refused(f"size is {size}"):
            images.read(lay(tmp_path / "two", count=4), size=size)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"path;label\na;b\n", ["no column 'path'", "'path;label'", "commas"]),
        (b"path,class\na,b\n", ["no column 'label'", "'class'"]),
        (b"path,label,label\na,b,c\n", ["2 columns 'label'"]),
        (b"path,label\n", ["lists no image"]),
        (b"path,label\nnone.png,a\n", ["lists no image", "none.png", "missing"]),
        (b'path,label\n"a.png,b\n', ["line 2", "quote"]),
        (b"path,label\n\xff.png,b\n", ["UTF-8", "byte 11"]),
    ],
)
def test_bad_csvs_are_refused_in_one_line(content, words, tmp_path, refused):
    (tmp_path / "list.csv").write_bytes(content)
    with refused("list.csv", *words):
        images.read(tmp_path / "list.csv")


# --- sizes and modes


def test_images_are_not_blown_up_and_large_ones_become_32(tmp_path):
    assert images.read(lay(tmp_path / "small", side=10)).images.shape[2:] == (10, 10)
    assert images.read(lay(tmp_path / "tiny", side=4)).images.shape[2:] == (8, 8)
    large = lay(tmp_path / "large", side=100)
    assert images.read(large).images.shape[2:] == (32, 32)
    assert images.read(large, size=64).images.shape[2:] == (64, 64)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_every_mode_becomes_the_same_grey_square(mode, tmp_path):
    grey = np.full((20, 30), 255, np.uint8)
    grey[:, :15] = 0
    if mode.startswith("I"):
        image = Image.fromarray(grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    path = tmp_path / f"image.{'tiff' if mode in ('CMYK', 'I') else 'png'}"
    image.save(path)
    found = images.decode(path)
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.repeat(grey[:, :, None], 3, axis=2))


def test_what_is_transparent_is_white_and_cameras_orientation_is_followed(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(images.decode(tmp_path / "clear.png")).min() == 255
    image, exif = Image.new("L", (8, 16)), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert images.decode(tmp_path / "turned.jpg").size == (16, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_followed_as_pillow_does_it(orientation, tmp_path):
    image, exif = Image.fromarray(pictures(1, side=10)[0][0].transpose(1, 2, 0)[:8]), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(np.asarray(images.decode(tmp_path / "turned.png")), expected)


def test_odd_exif_is_no_reason_to_fail(tmp_path):
    tiff = b"II*\0\x08\0\0\0\x02\0"  # two tags: orientation 6, and a resolution that is text
    tiff += b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x1a\x01\x02\0\x03\0\0\x0072\0\0" + b"\0\0\0\0"
    Image.new("L", (8, 16)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0" + tiff)
    with Image.open(tmp_path / "odd.jpg") as stored, pytest.raises(TypeError):
        ImageOps.exif_transpose(stored)
    assert images.decode(tmp_path / "odd.jpg").size == (16, 8)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_images_of_more_than_8_bits_share_one_scale(bits, tmp_path):
    white = 2**bits - 1
    for number, label in enumerate(["dark", "light"] * 2):
        grey = np.full((8, 8), white if label == "light" else white // 4, np.uint16)
        grey[number] = 0
        path = tmp_path / "mine" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(path)
    found = images.read(tmp_path / "mine")
    assert found.white == white
    assert found.images.amax(dim=(1, 2, 3)).tolist() == [63, 63, 255, 255]
    assert np.asarray(found.picture(found.entries[0])).max() == 63


def test_the_square_is_the_whole_image_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    square = images.square(Image.fromarray(stripes).convert("RGB"), 8)
    assert square.shape == (3, 8, 8)
    assert np.abs(square.astype(int) - 127).max() <= 20


# --- CSV cells

cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=6)
tables = st.lists(st.lists(cell, min_size=2, max_size=3), min_size=1, max_size=5)


@settings(max_examples=200)
@given(tables, st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL)]))
def test_cells_are_those_that_python_reads(tmp_path_factory, table, style):
    text = io.StringIO()
    csv.writer(text, lineterminator=style[0], quoting=style[1]).writerows(table)
    path = tmp_path_factory.mktemp("cells") / "a.csv"
    path.write_bytes(text.getvalue().encode())
    cells = Cells(path)
    assert [[value(raw) for raw in record] for record in cells.records] == table
    assert cells.replaced({}) == text.getvalue()
    last = len(table) - 1
    changed = cells.replaced({(last, 1): '"new"', (0, 0): "first"})
    path.write_bytes(changed.encode())
    table[last][1] = "new"
    table[0][0] = "first"
    assert [[value(raw) for raw in record] for record in Cells(path).records] == table


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_formulas_are_made_harmless_and_nothing_else_is_touched(start):
    assert harmless(f"{start}A1") == f"'{start}A1"
    assert harmless(f"{start}A1", "./") == f"./{start}A1"
    assert harmless(f"A1{start}") == f"A1{start}"
    assert harmless("") == ""


def test_signed_numbers_are_no_formulas():
    assert [harmless(text) for text in ("-1", "+2.5", "-1,5")] == ["-1", "+2.5", "-1,5"]
    assert [harmless(text) for text in ("-1+1", "+2.", "--1", "=1")] == ["'-1+1", "'+2.", "'--1", "'=1"]
