"""What is found in a folder or CSV is on one screen before anything is trained; nothing is silently wrong."""

import csv
import unicodedata

import pytest
from own_images import canned_fit, lay, pictures, save, write_csv

from sln.cli import main
from sln.relabel import images, pipeline, survey
from sln.relabel.pipeline import relabel

ROWS = [(f"{label}/{number:03}.png", label) for number, label in enumerate(["left", "right"] * 12)]


def labelled(folder, labels):
    """A CSV of the folder's images with other labels; returns its path."""
    return write_csv(
        folder / "list.csv", [(name, label) for (name, _), label in zip(ROWS, labels, strict=True)]
    )


def screen_of(source, capsys, *options):
    """What the command prints with --check, in one line of single blanks."""
    assert main(["relabel", str(source), "--check", *options]) == 0
    printed = capsys.readouterr().out
    assert all(len(line) < 80 for line in printed.splitlines())
    return " ".join(printed.split())


def cells(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_check_stops_after_the_screen_and_writes_nothing(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "fit", None)
    (folder / "left" / "broken.png").write_bytes(b"\x89PNG")
    (folder / "notes.txt").write_text("x")
    printed = screen_of(folder, capsys)
    assert printed.startswith("mine: 24 images, 2 classes classes 'left' 12, 'right' 12")
    assert "'left/broken.png': it is none of JPEG" in printed
    assert "'notes.txt': it is in no class's sub-folder" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_check_looks_at_no_output_folder(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert "24 images" in screen_of(folder, capsys)


def test_check_needs_no_weights_of_a_backbone(folder, capsys):
    assert "24 images" in screen_of(folder, capsys, "--backbone", "resnet18")


def test_the_screen_comes_before_the_training(folder, tmp_path, capsys, monkeypatch):
    def fit(*arguments, **keywords):
        assert "24 images, 2 classes" in capsys.readouterr().out
        return canned_fit(*arguments, **keywords)

    monkeypatch.setattr(pipeline, "fit", fit)
    relabel(folder, tmp_path / "out")
    relabel(folder, tmp_path / "out", check=True, quiet=True)
    assert "24 images, 2 classes" in capsys.readouterr().out


def test_many_classes_are_named_by_their_ends_and_small_ones_are_warned_of(tmp_path, capsys):
    for number, pixels in enumerate(pictures(130)[0]):
        save(pixels, tmp_path / "mine" / f"c{min(number // 6, 19):02}" / f"{number:03}.png")
    printed = screen_of(tmp_path / "mine", capsys, "--folds", "3")
    assert "130 images, 20 classes classes largest 'c19' 16, 'c00' 6" in printed
    assert "smallest 'c18' 6" in printed
    assert "fewer than" not in printed
    assert "warning fewer than 10 images (2 x folds)" in screen_of(tmp_path / "mine", capsys)


# --- splits


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Training", "val"), ("train",), ("a_train", "Test1")]
)
def test_splits_are_no_classes_and_are_a_column(names, tmp_path, capsys, canned):
    for number, name in enumerate(names):
        lay(tmp_path / "mine" / name, seed=number)
    (tmp_path / "mine" / "README.dataset.txt").write_text("x")
    (tmp_path / "mine" / names[0] / "data.yaml").write_text("x")
    printed = screen_of(tmp_path / "mine", capsys)
    count = 12 * len(names)
    assert f"{24 * len(names)} images, 2 classes classes 'left' {count}, 'right' {count}" in printed
    assert all(f"{name} 24" in printed for name in names)
    assert "the folders inside; labels.csv has a column split" in printed
    judged = relabel(tmp_path / "mine", tmp_path / "out", quiet=True)
    assert {name for name, _ in judged.skipped} == {"README.dataset.txt", f"{names[0]}/data.yaml"}
    for file in ("labels.csv", "corrected.csv"):
        header, *rows = cells(judged.folder / file)
        assert header[-1] == "split"
        assert len(rows) == 24 * len(names)
        assert all(row[-1] == row[0].split("/")[0] and row[1] in {"left", "right"} for row in rows)
    again = images.read(judged.folder / "corrected.csv", root=tmp_path / "mine")
    assert len(again.entries) == len(rows)


def test_a_folder_without_splits_has_no_such_column(folder, tmp_path, canned):
    judged = relabel(folder, tmp_path / "out", quiet=True)
    assert "split" not in cells(judged.folder / "labels.csv")[0] + cells(judged.folder / "corrected.csv")[0]


def test_a_class_that_is_missing_in_one_split_is_a_class(tmp_path):
    lay(tmp_path / "mine" / "train")
    lay(tmp_path / "mine" / "test", count=1, seed=1)
    (tmp_path / "mine" / "test" / "right").mkdir()
    assert len(images.read(tmp_path / "mine").entries) == 25


def test_unlabelled_test_images_are_skipped(tmp_path):
    lay(tmp_path / "mine" / "train")
    for number, pixels in enumerate(pictures(3, seed=9)[0]):
        save(pixels, tmp_path / "mine" / "test" / f"{number}.png")
    found = images.read(tmp_path / "mine")
    assert set(found.labels) == {"left", "right"}
    assert found.skipped == [(f"test/{n}.png", "it is in no class's sub-folder") for n in range(3)]


def test_a_class_called_test_stays_a_class(folder):
    (folder / "left").rename(folder / "test")
    assert set(images.read(folder).labels) == {"test", "right"}
    (folder / "test").rename(folder / "inner")
    (folder / "test").mkdir()
    (folder / "inner").rename(folder / "test" / "inner")
    assert set(images.read(folder).labels) == {"test", "right"}


def test_unclear_splits_are_refused(tmp_path, refused):
    for name in ("train", "val", "notes"):
        lay(tmp_path / "mixed" / name)
    with refused("splits", "train, val", "notes", "one split"):
        images.read(tmp_path / "mixed")
    for name in ("train", "test"):
        lay(tmp_path / "deep" / name / "images")
        save(pictures(1)[0][0], tmp_path / "bare" / name / "0.png")
    with refused("bare", "test, train", "without a sub-folder per class", "path,label"):
        images.read(tmp_path / "bare")
    lay(tmp_path / "outer" / "inner")
    with refused("one sub-folder, 'inner'"):
        images.read(tmp_path / "outer")


# --- words for missing labels

WORDS = ["nan", "NaN", "None", "NULL", "N/A", "NA", "?", "-"]


def test_words_for_missing_labels_are_counted_and_skipped(folder, capsys, canned):
    source = labelled(folder, [*WORDS, *(label for _, label in ROWS[8:])])
    printed = screen_of(source, capsys)
    assert "16 images, 2 classes" in printed
    assert "8 with a word for a missing label" in printed
    assert all(f"'{word}' 1" in printed for word in WORDS)
    assert "--keep-missing-words" in printed
    judged = relabel(source, folder.parent / "out", threshold=0, quiet=True)
    assert not {*WORDS} & {*judged.labels["suggested"], *judged.labels["given"]}
    assert [row[1] for row in cells(judged.folder / "corrected.csv")[1:9]] == [
        "'-" if word == "-" else word for word in WORDS
    ]
    assert {reason for _, reason in judged.skipped} >= {"its label is 'nan', a word for a missing one"}


def test_they_are_labels_if_asked_for_and_unknown_is_one(folder, capsys):
    source = labelled(folder, ["unknown" if i % 4 == 0 else "none" if i % 2 else "a" for i in range(24)])
    assert "'unknown' 6, 'a' 6" in screen_of(source, capsys)
    assert "'none' 12, 'unknown' 6, 'a' 6" in screen_of(source, capsys, "--keep-missing-words")
    (folder / "left").rename(folder / "None")
    assert set(images.read(folder, keep_missing_words=True).labels) == {"None", "right"}


def test_a_folder_of_that_name_is_skipped_too(tmp_path):
    lay(tmp_path / "mine")
    save(pictures(1, seed=5)[0][0], tmp_path / "mine" / "nan" / "0.png")
    found = images.read(tmp_path / "mine")
    assert set(found.labels) == {"left", "right"}
    assert found.missing == {"nan": 1}


def test_a_class_of_that_name_is_named_if_too_little_is_left(tmp_path, refused):
    (lay(tmp_path / "mine") / "left").rename(tmp_path / "mine" / "none")
    with refused("two are needed", "labelled 'none' are skipped", "--keep-missing-words"):
        images.read(tmp_path / "mine")
    assert set(images.read(tmp_path / "mine", keep_missing_words=True).labels) == {"none", "right"}


# --- spellings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "CAT"), ("hot dog", "hot  dog"), ("hot dog", "hot_dog"), ("hot dog", "HotDog"), ("3", "3.0"),
        ("3", "3,00"), ("03", "+3"), ("-1", "-1.0"),
        ("class 1", "class1"), ("é", unicodedata.normalize("NFD", "é")), ("ﬁsh", "fish"), ("２", "2"),
        ("a\u00a0b", "a b"), ("straße", "STRASSE"), ("cat\u200b", "cat"),
    ],
)  # fmt: skip
def test_spellings_of_one_class_are_alike(one, other):
    assert survey.spelling(one) == survey.spelling(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", "A-"), ("-1", "1"), ("1-2", "12"), ("1.2", "12"), ("1234567", "1234568"), ("3", "30"),
        ("a", "b"), ("1,000", "1"), ("1.10", "1.1"), (f"{10**30}", f"{10**30 + 1}"),
    ],
)  # fmt: skip
def test_labels_that_differ_are_not_alike(one, other):
    assert survey.spelling(one) != survey.spelling(other)


def test_spellings_are_named_and_merged_only_on_request(folder, capsys, canned):
    spelt = ["cat", "dog", "cat", "Dog", "CAT ", "dog"] * 4
    source = labelled(folder, spelt)
    printed = screen_of(source, capsys)
    assert "24 images, 4 classes" in printed
    assert "spellings 'cat' 8, 'CAT' 4: one class? --merge-spellings makes them 'cat'" in printed
    assert "'dog' 8, 'Dog' 4: one class?" in printed
    printed = screen_of(source, capsys, "--merge-spellings")
    assert "24 images, 2 classes classes 'cat' 12, 'dog' 12" in printed
    assert "'dog' 8, 'Dog' 4: all are 'dog' now" in printed
    kept = relabel(source, folder.parent / "kept", threshold=1, quiet=True)
    assert [row[1] for row in cells(kept.folder / "corrected.csv")[1:]] == spelt
    merged = relabel(source, folder.parent / "merged", threshold=1, merge_spellings=True, quiet=True)
    assert [row[1] for row in cells(merged.folder / "corrected.csv")[1:]] == ["cat", "dog"] * 12
    assert merged.changed == 0
    assert set(merged.labels["given"]) == {"cat", "dog"}


def test_decisions_on_merged_spellings_are_applied_with_the_same_options(folder, capsys):
    source, out = labelled(folder, ["cat", "dog", "cat", "Dog", "nan", "dog"] * 4), folder.parent / "out"
    row = (f"{ROWS[3][0]}", "dog", "other", "cat")
    decisions = write_csv(folder.parent / "d.csv", [row], ("path", "given", "decision", "label"))
    command = ["relabel", str(source), "--out", str(out), "--decisions", str(decisions)]
    assert main([*command, "--merge-spellings"]) == 0
    labels = [row[1] for row in cells(out / "corrected.csv")[1:]]
    assert labels == [
        "cat",
        "dog",
        "cat",
        "cat",
        "nan",
        "dog",
        *["cat", "dog", "cat", "dog", "nan", "dog"] * 3,
    ]
    assert main(command) == 2
    assert "is labelled 'Dog' in the data, not 'dog'" in capsys.readouterr().err


# --- several labels in a cell


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["a|pet", "b"] * 2 + ["a", "b"] * 10, "'a|pet'"),
        (["a;b", "b"] + ["a", "b"] * 11, "'a;b'"),
        (["a, b", "b"] + ["a", "b"] * 11, "'a, b'"),
    ],
)
def test_cells_of_several_labels_are_refused(labels, named, folder, refused):
    with refused(named, "several labels", "one label"):
        images.read(labelled(folder, labels))


def test_a_comma_or_a_single_bar_in_a_name_is_no_second_label(folder):
    labels = ["tench, Tinca tinca", "maillot, tank suit"] * 11 + ["maillot", "x|y"]
    found = images.read(labelled(folder, labels))
    assert found.labels == labels


# --- copies and groups


def test_a_path_with_two_labels_is_named(folder, capsys):
    source = write_csv(folder / "list.csv", [*ROWS, (ROWS[0][0], "right"), ROWS[1]])
    printed = screen_of(source, capsys)
    assert "2 identical and 0 near copies, in 2 groups" in printed
    assert (
        "listed more than once: 2, such as 'left/000.png'; with different labels: 'left/000.png'" in printed
    )


def test_near_copies_are_counted_and_other_labels_of_copies_are_named(folder, capsys):
    for number, pixels in enumerate(pictures(24)[0][:4]):
        save((pixels * 0.9).astype("uint8"), folder / "right" / f"copy{number}.png")
    printed = screen_of(folder, capsys)
    assert "0 identical and 4 near copies, in 4 groups; a group stays in one fold" in printed
    assert (
        "2 groups of copies differ in their labels, such as 'left/000.png' and 'right/copy0.png'" in printed
    )
    for number in (1, 2, 3):
        (folder / "right" / f"copy{number}.png").unlink()
    printed = screen_of(folder, capsys)
    assert "different labels: 'left/000.png' and 'right/copy0.png' are copies" in printed


def test_an_empty_folder_is_no_class_and_is_named(folder, tmp_path, capsys):
    (folder / "empty").mkdir()
    assert "2 classes" in (printed := screen_of(folder, capsys))
    assert "empty folders, which become no class: 'empty'" in printed
    skipped = relabel(folder, tmp_path / "out", quiet=True).skipped
    assert skipped == [("empty", "it is an empty folder")]


def test_groups_of_a_column_and_of_a_pattern_are_united_with_copies(folder, capsys):
    copy = folder / "left" / "copy.png"
    copy.write_bytes((folder / "left" / "002.png").read_bytes())
    rows = [(name, label, f"film {number // 4}") for number, (name, label) in enumerate(ROWS)]
    source = write_csv(folder / "list.csv", [*rows, ("left/copy.png", "left", "")], ("path", "label", "film"))
    groups = images.read(source, groups="film").groups
    assert [len({*groups[start : start + 4]}) for start in range(0, 24, 4)] == [1] * 6
    assert len({*groups}) == 6
    assert groups[24] == groups[2]
    assert "7 by --groups film; a group stays in one fold" in screen_of(source, capsys, "--groups", "film")
    assert len({*images.read(folder, groups=r"/(\d\d)").groups}) == 3  # 00x, 01x, 02x; the copy is with 002
    missing = [(name, label, "nan") for name, label in ROWS]
    source = write_csv(folder / "list.csv", missing, ("path", "label", "film"))
    assert len({*images.read(source, groups="film").groups}) == 24  # each is alone


def test_names_of_roboflow_get_a_hint(tmp_path, capsys):
    for number, pixels in enumerate(pictures(24)[0]):
        save(pixels, tmp_path / "mine" / "ab"[number % 2] / f"{number // 4}_png.rf.{number}.png")
    assert r"--groups '(.*)\.rf\.'" in screen_of(tmp_path / "mine", capsys)
    printed = screen_of(tmp_path / "mine", capsys, "--groups", r"(.*)\.rf\.")
    assert "12 by" in printed
    assert "hint" not in printed


def test_bad_groups_are_one_line(folder, tmp_path, capsys):
    assert main(["relabel", str(folder), "--groups", "film", "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("sln: ")) == ("", 1)
    assert "'film'" in err
    assert not (tmp_path / "out").exists()
