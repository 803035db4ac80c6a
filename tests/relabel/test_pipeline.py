"""`relabel`: the files it writes, that it only reads the user's files, and that formulas are made safe."""

import csv
import dataclasses
import hashlib
import html
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from own_images import canned_fit, lay, pictures, save, write_csv

from sln.cli import main
from sln.relabel import images, page, pipeline
from sln.relabel.crossfit import Fitted, fit
from sln.relabel.pipeline import WORK, relabel

QUICK = {"sigma": 0.5, "folds": 2, "repeats": 1, "epochs": 2}
OPTIONS = [word for name, value in QUICK.items() for word in (f"--{name}", str(value))]
WRITTEN = {"labels.csv", "corrected.csv", "skipped.csv", "suspects.html"}


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def hashes(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


def test_the_options_say_how_a_csv_is_written(canned, folder, tmp_path, capsys):
    (folder / "left").rename(folder / "Käfer")
    lines = ["id;Bild;Klasse"] + [f"{i};Käfer\\{i:03}.PNG;Käfer" for i in range(0, 12, 2)]
    lines += [f"{i};right\\{i:03}.PNG;right" for i in range(1, 12, 2)]
    (tmp_path / "list.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    options = ["--images", str(folder), "--path-column", "Bild", "--label-column", "Klasse"]
    options += ["--encoding", "cp1252", "--threshold", "1", "--out", str(tmp_path / "out")]
    assert main(["relabel", str(tmp_path / "list.csv"), *options]) == 0
    assert (tmp_path / "out" / "corrected.csv").read_text(encoding="utf-8").splitlines() == lines


# --- what is written


def test_labels_csv_is_the_table_by_rank_and_agrees_with_fit(folder, tmp_path):
    judged = relabel(folder, tmp_path / "out", quiet=True, **QUICK)
    header, *rows = read(judged.folder / "labels.csv")
    assert header[:6] == ["path", "given", "suggested", "probability", "suspect", "rank"]
    assert header[6:] == ["judged", "class_agreement", "group"]
    assert [int(row[5]) for row in rows] == list(range(1, 25))
    assert [float(row[4]) for row in rows] == sorted((float(row[4]) for row in rows), reverse=True)
    found = images.read(folder)
    fitted = fit(found.images, found.labels, **QUICK, quiet=True).labels
    table = judged.labels.drop(columns="path")
    assert table.equals(fitted[table.columns])
    by_path = {row[0]: row for row in rows}
    for entry, expected in zip(found.entries, fitted.itertuples(), strict=True):
        path, given, suggested, probability, suspect, rank, *_ = by_path[entry.name]
        assert (given, suggested) == (entry.label, expected.suggested) == (path.split("/")[0], suggested)
        assert int(rank) == expected.rank
        assert float(suspect) == pytest.approx(expected.suspect, abs=5.1e-5)
        assert float(probability) == pytest.approx(expected.probability, abs=5.1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_corrected_csv_has_the_suggestions_for_labels_above_the_threshold(
    threshold, folder, tmp_path, canned
):
    judged = relabel(folder, tmp_path / "out", quiet=True, threshold=threshold, **QUICK)
    header, *rows = read(judged.folder / "corrected.csv")
    assert header == ["path", "label"]
    for (path, label), of in zip(rows, judged.labels.itertuples(), strict=True):
        assert path == of.path
        assert label == (of.suggested if of.suspect >= threshold and of.judged else of.given)
    changed = sum(path.split("/")[0] != label for path, label in rows)
    assert judged.changed == changed
    assert threshold == 0.5 or (changed > 0) == (threshold == 0)


def test_the_copy_of_a_csv_differs_in_the_replaced_labels_only(tmp_path):
    pixels, labels = pictures(40)
    labels = labels.copy()
    labels[:3] = 1 - labels[:3]
    lines = ["\ufeffpath,note,label,x"]
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        save(image, tmp_path / "mine" / f"{number}.png")
        lines.append(f'{number}.png,"a, ""b""",{["left", "right"][label]},-1.5')
    lines += ["none.png,,left,", "7.png,no label", ""]
    source = tmp_path / "mine" / "list.csv"
    source.write_bytes("\n".join(lines).encode())
    out, settings = tmp_path / "out", QUICK | {"epochs": 60}
    suspects = relabel(source, out, quiet=True, **settings).labels.set_index("path")["suspect"]
    assert set(suspects.nlargest(3).index) == {"0.png", "1.png", "2.png"}
    judged = relabel(source, out, threshold=round(suspects.nlargest(3).min(), 4), quiet=True, **settings)
    assert judged.skipped == [("none.png", "it is missing"), ("7.png", "it has no label")]
    assert judged.changed == 3
    for number in range(3):
        given, suggested = ["left", "right"][labels[number]], ["left", "right"][1 - labels[number]]
        lines[1 + number] = lines[1 + number].replace(f"{given},-1.5", f"{suggested},-1.5")
    assert (out / "corrected.csv").read_bytes() == "\n".join(lines).encode()


def test_labels_csv_numbers_the_groups_of_copies_and_of_the_option(tmp_path, canned):
    folder = lay(tmp_path / "mine")
    for name in ("left/x.png", "right/y.png"):  # copies of the first image, one with another label
        (folder / name).write_bytes((folder / "left" / "000.png").read_bytes())
    for options, together in (([], []), (["--groups", r"0(2)\d\.png"], ["020", "021", "022", "023"])):
        assert main(["relabel", str(folder), "--out", str(tmp_path / "out"), *options, *OPTIONS]) == 0
        header, *rows = read(tmp_path / "out" / "labels.csv")
        group = {Path(row[0]).stem: row[header.index("group")] for row in rows}
        shared = [{name for name in group if group[name] == number} for number in ("1", "2")]
        assert shared == [{"000", "x", "y"}, set(together)]
        assert {group[name] for name in group.keys() - shared[0] - shared[1]} == {""}
    page_of = (tmp_path / "out" / "suspects.html").read_text(encoding="utf-8")
    assert "Copies with different labels (3)" in page_of  # those of --groups are no copies


def test_a_corrected_csv_that_a_person_has_made_is_not_replaced(tmp_path, canned, capsys):
    folder, out = lay(tmp_path / "mine"), tmp_path / "out"
    command, file = ["relabel", str(folder), "--out", str(out)], out / "corrected.csv"
    decided = write_csv(
        tmp_path / "decisions.csv",
        [("left/000.png", "left", "exclude", "")],
        ("path", "given", "decision", "label"),
    )
    decide = [*command, "--decisions", str(decided)]
    assert [main(words) for words in (command, command, decide, decide)] == [0, 0, 0, 0]
    before = hashes(out)

    def refuses(words):
        capsys.readouterr()
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert all(part in line for part in (str(file), "would be lost", "rename", "--out"))
        assert hashes(out) == before

    refuses(command)
    assert main([*command, "--check"]) == 0
    file.write_text(file.read_text() + "left/000.png,right\n")  # by hand
    before = hashes(out)
    refuses(command)
    refuses(decide)
    file.rename(out / "mine.csv")
    assert main(command) == 0
    assert file.exists()


def test_skipped_images_are_in_a_file(folder, tmp_path, canned):
    (folder / "left" / "=evil.png").write_text("no image")
    judged = relabel(folder, tmp_path / "out", quiet=True, **QUICK)
    header, row = read(judged.folder / "skipped.csv")
    assert header == ["path", "reason"]
    assert row[0] == "left/=evil.png"
    assert "none of JPEG" in row[1]
    assert len(read(judged.folder / "labels.csv")) == 25


def test_the_users_files_are_only_read(folder, tmp_path, canned):
    before, times = hashes(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    relabel(folder, tmp_path / "out", quiet=True, **QUICK)
    assert hashes(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN | {WORK}


# --- formulas


def test_no_cell_of_the_files_is_a_formula(tmp_path, canned):
    evil, rows = ["=HYPERLINK(1)", "-x", "+1", "a\r=HYPERLINK(2)", "<b>, 'q' Käfer"], []
    for number, image in enumerate(pictures(20)[0]):
        save(image, tmp_path / "mine" / f"{evil[number % 5].replace('/', '')}{number}.png")
        rows.append([f"{evil[number % 5].replace('/', '')}{number}.png", evil[number // 5], "@note", "-0.5"])
    source = write_csv(tmp_path / "mine" / "list.csv", rows, ("path", "label", "=sum", "number"))
    judged = relabel(source, tmp_path / "out", threshold=1.0, quiet=True, **QUICK)
    labels, corrected = (read(judged.folder / name) for name in ("labels.csv", "corrected.csv"))
    assert [len(row) for row in labels] == [9] * 21
    assert {row[0] for row in labels[1:]} == {row[0] for row in corrected[1:]}
    assert any(row[0] == "./=HYPERLINK(1)0.png" for row in labels)
    assert {row[1] for row in labels[1:]} == {"'=HYPERLINK(1)", "'-x", "+1", "a\r=HYPERLINK(2)"}
    assert corrected[0] == ["path", "label", "'=sum", "number"]
    assert all(row[2:] == ["'@note", "-0.5"] for row in corrected[1:])


def test_a_corrected_folder_can_be_read_again(tmp_path, canned):
    folder = lay(tmp_path / "mine")
    for name, new in (("left", "-1"), ("right", "=x")):
        (folder / name).rename(folder / new)
    judged = relabel(folder, tmp_path / "out", quiet=True, threshold=1.0, **QUICK)
    found = images.read(judged.folder / "corrected.csv", root=folder)
    assert found.skipped == []
    names = [folder / entry.name for entry in found.entries]
    assert names == [folder / name for name in judged.labels["path"]]


def test_the_page_has_at_most_500_pictures(tmp_path, canned, monkeypatch):
    assert page.PICTURES == 500
    monkeypatch.setattr(page, "PICTURES", 20)
    folder = lay(tmp_path / "mine", count=24)
    judged = relabel(folder, tmp_path / "out", quiet=True, **QUICK)
    text = (judged.folder / "suspects.html").read_text(encoding="utf-8")
    assert text.count("<li ") == 20
    assert "of 24 labels" in text


def test_classes_that_cannot_be_judged_keep_their_labels_and_are_named(tmp_path, monkeypatch):
    folder, seen = lay(tmp_path / "mine", count=40), []

    def none_predicted(given_images, labels, **settings):
        """Networks that predict `left` throughout, surely."""
        fitted = canned_fit(given_images, labels, **settings)
        p = torch.tensor([[0.9, 0.05, 0.05]]).repeat(len(labels), 1)
        seen.append(labels)
        return dataclasses.replace(fitted, probabilities=p)

    (folder / "rare").mkdir()
    (folder / "right" / "001.png").rename(folder / "rare" / "001.png")
    monkeypatch.setattr(pipeline, "fit", none_predicted)
    judged = relabel(folder, tmp_path / "out", threshold=0.0, quiet=True, **QUICK)
    assert "rare" in seen[0]
    assert judged.changed == 0
    assert not judged.labels["judged"].any()
    assert [label for _, label in read(judged.folder / "corrected.csv")[1:]] == seen[0]
    header, *rows = read(judged.folder / "labels.csv")
    assert {row[header.index("judged")] for row in rows} == {"False"}
    page = (judged.folder / "suspects.html").read_text(encoding="utf-8")
    assert "cannot be judged and keep their labels" in page
    assert "&#39;rare&#39; 0% of 1" in page
    assert "&#39;rare&#39;" in page


def test_a_class_that_loses_most_of_its_labels_is_named(tmp_path, monkeypatch):
    folder = lay(tmp_path / "mine", count=40)
    monkeypatch.setattr(pipeline, "fit", canned_fit)
    assert relabel(folder, tmp_path / "out", threshold=1.0, quiet=True, **QUICK).warnings == []
    usual = Fitted.labels.func
    always_left = property(lambda fitted: usual(fitted).assign(suggested="left", judged=True))
    monkeypatch.setattr(Fitted, "labels", always_left)
    (warning,) = relabel(folder, tmp_path / "out", threshold=0.0, quiet=True, **QUICK).warnings
    assert "'right' (0 of 20 left)" in warning


# --- running it again, and after an interruption


def test_a_second_run_trains_nothing_and_writes_the_same_bytes(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    relabel(folder, out, quiet=True, **QUICK)
    before = hashes(out)
    monkeypatch.setattr("sln.relabel.crossfit.train_fold", None)
    relabel(folder, out, quiet=True, **QUICK)
    assert hashes(out) == before


def test_a_fresh_folder_gets_the_same_bytes(folder, tmp_path):
    written = []
    for name in ("a", "b"):
        relabel(folder, tmp_path / name, quiet=True, **QUICK)
        content = {file: (tmp_path / name / file).read_bytes() for file in WRITTEN}
        here = str(tmp_path / name).encode()  # which the page prints
        written.append({file: text.replace(here, b"OUT") for file, text in content.items()})
    assert written[0] == written[1]


# where the tests run in the background, Ctrl-C is ignored, and every process that they start inherits that
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sln.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_an_interrupted_command_continues_where_it_stopped(folder, tmp_path):
    out, command = tmp_path / "out", ["relabel", str(folder)]
    slow = ["--out", str(tmp_path / "out"), "--sigma", "0.5", "--folds", "6", "--repeats", "1"]
    environment = os.environ | {"SLN_WORKERS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *command, *slow],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    done = f"{WORK}/[!.]*.safetensors"  # a file that is being written begins with a dot
    while not list(out.glob(done)) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "goes on where it stopped" in printed
    kept = hashes(out)
    assert 1 <= len(list(out.rglob("*.safetensors"))) < 6
    assert not WRITTEN & {path.name for path in kept}
    assert main([*command, *slow]) == 0
    assert kept.items() <= hashes(out).items()
    relabel(folder, tmp_path / "fresh", sigma=0.5, folds=6, repeats=1, quiet=True)
    for name in WRITTEN:
        fresh = (tmp_path / "fresh" / name).read_bytes()
        assert (out / name).read_bytes() == fresh.replace(bytes(tmp_path / "fresh"), bytes(out))


# --- where it writes


def test_a_folder_with_other_files_is_not_written_to(folder, tmp_path, refused):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with refused("full", "--out"):
        relabel(folder, tmp_path / "full", quiet=True, **QUICK)
    with refused("thesis.txt", "is a file"):
        relabel(folder, tmp_path / "full" / "thesis.txt", quiet=True, **QUICK)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_by_default_it_writes_to_the_working_directory_and_never_inside_the_data(
    folder, tmp_path, monkeypatch, refused, canned
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert relabel(folder, quiet=True, **QUICK).folder.resolve() == tmp_path / "here" / "mine-relabelled"
    monkeypatch.chdir(folder / "left")
    before = hashes(folder)
    with refused("inside your data", "--out"):
        relabel(folder, quiet=True, **QUICK)
    assert hashes(folder) == before
    with refused("inside your data", "--out"):
        relabel(folder, folder / "results" / "first", quiet=True, **QUICK)
    assert hashes(folder) == before


def test_results_of_other_data_are_not_replaced(tmp_path, monkeypatch, refused, canned):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["v1.0", "v1.1"]):
        lay(tmp_path / name, seed=number)
        assert relabel(Path(name), quiet=True, **QUICK).folder == Path(f"{name}-relabelled")
    lay(tmp_path / "other" / "v1.0")
    before = hashes(tmp_path / "v1.0-relabelled")
    with refused("v1.0-relabelled", "other labels", "--out"):
        relabel(tmp_path / "other" / "v1.0", quiet=True, **QUICK)
    assert hashes(tmp_path / "v1.0-relabelled") == before
    # data and results that were moved together still belong together
    (tmp_path / "moved").mkdir()
    for name in ("v1.0", "v1.0-relabelled"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    monkeypatch.chdir(tmp_path / "moved")
    relabel(Path("v1.0"), quiet=True, **QUICK)


def test_names_that_are_not_utf8_are_written_in_all_files(folder, tmp_path, canned):
    (folder / "left" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    judged = relabel(folder, tmp_path / os.fsdecode(b"out\xe9"), quiet=True, **QUICK)
    assert read(judged.folder / "skipped.csv")[1] == ["left/caf\\udce9.png", "its name cannot be used"]
    assert {path.name for path in judged.folder.iterdir()} == WRITTEN | {WORK}


def test_bad_input_is_refused_before_anything_is_written(folder, tmp_path, refused):
    out = tmp_path / "out"
    for bad, words in (
        ({"threshold": 1.5}, ["threshold is 1.5", "[0, 1]"]),
        ({"weights": "w.pth"}, ["weights", "backbone"]),
        ({"backbone": "resnet18", "model": "cnn"}, ["model", "backbone"]),
        ({"folds": 1}, ["folds is 1"]),
        ({"epochs": 0}, ["epochs is 0"]),
        ({"size": 1}, ["size is 1"]),
    ):
        with refused(*words):
            relabel(folder, out, quiet=True, **QUICK | bad)
        assert not out.exists()


# --- the command


def test_the_command_prints_a_summary_and_the_skipped_images(folder, tmp_path, capsys, canned):
    (folder / "left" / "broken.png").write_bytes(b"\x89PNG")
    assert main(["relabel", str(folder), "--out", str(tmp_path / "out"), *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert "24 labelled images, 2 classes; 1 skipped" in printed
    assert "'left/broken.png'" in printed
    assert "σ = 0.5, 2 networks" in printed
    assert str(tmp_path / "out" / "suspects.html") in printed
    changed = sum(path.split("/")[0] != label for path, label in read(tmp_path / "out" / "corrected.csv")[1:])
    suspect = sum(float(row[4]) >= 0.5 for row in read(tmp_path / "out" / "labels.csv")[1:])
    assert f"{suspect} labels are at least as suspect as 0.5; {changed} of them are replaced" in printed
    assert f"{changed} of 24 labels look wrong. Look at them" in printed


def test_the_page_prints_the_command_that_applies_its_decisions(tmp_path, canned):
    folder, rows = lay(tmp_path / "my data"), []
    for number in range(24):
        label = ("left", "right", "Left", "right")[number % 4]
        rows.append((f"{('left', 'right')[number % 2]}/{number:03}.png", label))
    source = write_csv(tmp_path / "the list.csv", rows, ("Bild", "label"))
    options = ["--images", str(folder), "--path-column", "Bild", "--merge-spellings", "--out"]
    assert main(["relabel", str(source), *options, str(tmp_path / "out"), "--threshold", "0.4"]) == 0
    page = html.unescape((tmp_path / "out" / "suspects.html").read_text(encoding="utf-8"))
    (printed,) = re.findall(r'<code id="next">(.*)</code>', page)
    path, given, *_ = read(tmp_path / "out" / "labels.csv")[1]
    header = ("path", "given", "decision", "label")
    decisions = write_csv(tmp_path / "decisions.csv", [(path, given, "exclude", "")], header)
    words = shlex.split(printed)
    assert words[:3] == ["python", "-m", "sln"]
    assert main([*words[3:-1], str(decisions)]) == 0
    assert len(read(tmp_path / "out" / "corrected.csv")) == 24


def test_every_option_reaches_the_function(monkeypatch, tmp_path):
    asked = {}

    def pretend(source, **given):
        asked.update(given, source=source)
        raise SystemExit(0)

    monkeypatch.setattr("sln.relabel.pipeline.relabel", pretend)
    given = {
        "out": tmp_path / "o", "threshold": 0.7, "sigma": 0.2, "folds": 3, "repeats": 4, "epochs": 5,
        "size": 16, "model": "wrn-10-1", "backbone": "resnet18", "weights": tmp_path / "w", "seed": 6,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit):
        main(["relabel", "list.csv", "--images", str(tmp_path), *words])
    assert {name: asked[name] for name in given} == given
    assert asked["root"] == tmp_path
    asked.clear()
    with pytest.raises(SystemExit):
        main(["relabel", "list.csv", "--sigma", "auto"])
    assert asked.keys() == {"source", "sigma"}
    assert asked["sigma"] is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], ["nowhere", "neither a folder nor a file"]),
        (["mine", "--backbone", "resnet5"], ["unknown backbone", "did you mean 'resnet50'"]),
        (["mine", "--model", "cnnn"], ["unknown model", "did you mean 'cnn'"]),
        (["mine", "--images", "mine"], ["CSV only"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, expected, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["relabel", *words, *OPTIONS]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("sln: ")
    assert err.count("\n") == 1
    assert out == ""
    assert all(word in err for word in expected)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
