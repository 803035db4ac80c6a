"""`relabel`: what it writes, that it only reads the user's files, and that nothing it shows is live."""

import base64
import csv
import hashlib
import html.parser
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from own_images import lay, pictures, save
from PIL import Image

from sln.cli import main
from sln.relabel import images
from sln.relabel.crossfit import fit
from sln.relabel.pipeline import WORK, relabel

QUICK = {"sigma": 0.5, "folds": 2, "repeats": 1, "epochs": 2}
OPTIONS = [word for name, value in QUICK.items() for word in (f"--{name}", str(value))]
WRITTEN = {"labels.csv", "corrected.csv", "skipped.csv", "suspects.html"}


@pytest.fixture
def folder(tmp_path):
    return lay(tmp_path / "mine")


@pytest.fixture
def judged(folder, tmp_path):
    return relabel(folder, tmp_path / "out", quiet=True, **QUICK)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def hashes(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


class Page(html.parser.HTMLParser):
    """The tags and the text of a page, as a browser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


# --- what is written


def test_labels_csv_is_the_table_by_rank_and_agrees_with_fit(judged, folder):
    header, *rows = read(judged.folder / "labels.csv")
    assert header == ["path", "given", "suggested", "probability", "suspect", "rank"]
    assert [int(row[5]) for row in rows] == list(range(1, 25))
    assert [float(row[4]) for row in rows] == sorted((float(row[4]) for row in rows), reverse=True)
    found = images.read(folder)
    fitted = fit(found.images, found.labels, **QUICK, quiet=True).labels
    table = judged.labels.drop(columns="path")
    assert table.equals(fitted[table.columns])
    by_path = {row[0]: row for row in rows}
    for entry, expected in zip(found.entries, fitted.itertuples(), strict=True):
        path, given, suggested, probability, suspect, rank = by_path[entry.name]
        assert (given, suggested) == (entry.label, expected.suggested) == (path.split("/")[0], suggested)
        assert int(rank) == expected.rank
        assert float(suspect) == pytest.approx(expected.suspect, abs=5.1e-5)
        assert float(probability) == pytest.approx(expected.probability, abs=5.1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_corrected_csv_has_the_suggestions_for_labels_that_are_suspect_enough(threshold, folder, tmp_path):
    judged = relabel(folder, tmp_path / "out", quiet=True, threshold=threshold, **QUICK)
    header, *rows = read(judged.folder / "corrected.csv")
    assert header == ["path", "label"]
    for (path, label), of in zip(rows, judged.labels.itertuples(), strict=True):
        assert path == of.path
        assert label == (of.suggested if of.suspect >= threshold else of.given)
    changed = sum(path.split("/")[0] != label for path, label in rows)
    assert judged.changed == changed
    assert threshold == 0.5 or (changed > 0) == (threshold == 0)


def test_a_csv_keeps_every_character_but_the_labels_that_change(tmp_path):
    pixels, labels = pictures(40)
    labels = labels.copy()
    labels[:3] = 1 - labels[:3]
    ways = ["left", '"right"']  # as its owner wrote them
    lines = ['\ufeff"path",note,label,=sum']
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        save(image, tmp_path / "mine" / f"{number}.png")
        lines.append(f'{number}.png,"=cmd|a ""b""",{ways[label]},x')
    lines += ["none.png,,left,", ""]
    source = tmp_path / "mine" / "list.csv"
    source.write_bytes("\r\n".join(lines).encode())
    out, settings = tmp_path / "out", QUICK | {"epochs": 60}
    suspects = relabel(source, out, quiet=True, **settings).labels.set_index("path")["suspect"]
    assert set(suspects.nlargest(3).index) == {"0.png", "1.png", "2.png"}
    judged = relabel(source, out, threshold=round(suspects.nlargest(3).min(), 4), quiet=True, **settings)
    assert judged.skipped == [("none.png", "it is missing")]
    assert judged.changed == 3
    for number in range(3):
        given, suggested = ways[labels[number]], ways[1 - labels[number]]
        lines[1 + number] = lines[1 + number].replace(f"{given},x", f"{suggested},x")
    assert (out / "corrected.csv").read_bytes() == "\r\n".join(lines).encode()


def test_what_was_skipped_is_in_a_file(folder, tmp_path):
    (folder / "left" / "=evil.png").write_text("no image")
    judged = relabel(folder, tmp_path / "out", quiet=True, **QUICK)
    header, row = read(judged.folder / "skipped.csv")
    assert header == ["path", "reason"]
    assert row[0] == "left/=evil.png"
    assert "none of JPEG" in row[1]
    assert len(read(judged.folder / "labels.csv")) == 25


def test_the_users_files_are_only_read(folder, tmp_path):
    before, times = hashes(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    relabel(folder, tmp_path / "out", quiet=True, **QUICK)
    assert hashes(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN | {WORK}


# --- again, and after a break


def test_the_same_again_trains_nothing_and_writes_the_same(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    relabel(folder, out, quiet=True, **QUICK)
    before = hashes(out)
    monkeypatch.setattr("sln.relabel.crossfit.train_judge", None)
    relabel(folder, out, quiet=True, **QUICK)
    assert hashes(out) == before


def test_a_fresh_folder_gets_the_same_bytes(folder, tmp_path):
    written = []
    for name in ("a", "b"):
        relabel(folder, tmp_path / name, quiet=True, **QUICK)
        written.append({file: (tmp_path / name / file).read_bytes() for file in WRITTEN})
    assert written[0] == written[1]


# where the tests run in the background, Ctrl-C is ignored, and every process that they start inherits that
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sln.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_an_interrupted_command_goes_on_where_it_stopped(folder, tmp_path):
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
    done = f"{WORK}/*.safetensors"
    while not list(out.glob(done)) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "goes on where it stopped" in said
    kept = hashes(out)
    assert 1 <= len(list(out.rglob("*.safetensors"))) < 6
    assert not WRITTEN & {path.name for path in kept}
    assert main([*command, *slow]) == 0
    assert kept.items() <= hashes(out).items()
    relabel(folder, tmp_path / "fresh", sigma=0.5, folds=6, repeats=1, quiet=True)
    for name in WRITTEN:
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


# --- where it may write


def test_a_folder_of_others_is_not_written_to(folder, tmp_path, refused):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with refused("full", "--out"):
        relabel(folder, tmp_path / "full", quiet=True, **QUICK)
    with refused("thesis.txt", "is a file"):
        relabel(folder, tmp_path / "full" / "thesis.txt", quiet=True, **QUICK)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_by_default_it_writes_here_and_never_inside_the_data(folder, tmp_path, monkeypatch, refused):
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


def test_results_of_other_data_are_not_replaced(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["v1.0", "v1.1"]):
        lay(tmp_path / name, seed=number)
        assert relabel(Path(name), quiet=True, **QUICK).folder == Path(f"{name}-relabelled")
    lay(tmp_path / "other" / "v1.0")
    before = hashes(tmp_path / "v1.0-relabelled")
    with refused("v1.0-relabelled", "other labels", "--out"):
        relabel(tmp_path / "other" / "v1.0", quiet=True, **QUICK)
    assert hashes(tmp_path / "v1.0-relabelled") == before
    # but data and results that were moved together still belong together
    (tmp_path / "moved").mkdir()
    for name in ("v1.0", "v1.0-relabelled"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    monkeypatch.chdir(tmp_path / "moved")
    relabel(Path("v1.0"), quiet=True, **QUICK)


def test_names_that_are_no_utf8_are_told_in_all_files(folder, tmp_path):
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


# --- the page

EVIL = [
    '"><img src=x onerror=alert(1)>',
    "<script>alert(2)</script>",
    "=HYPERLINK(1)",
    "&amp; 'q' Käfer",
    "a\r=HYPERLINK(2)",
    "a;=HYPERLINK(3);b",
]


@pytest.fixture
def evil(tmp_path):
    """What `relabel` makes of labels and names that would be live if nothing escaped them."""
    source, rows = tmp_path / "mine", [["path", "label"]]
    for number, image in enumerate(pictures(24)[0]):
        name = f"{EVIL[number % 6].replace('/', '')}{number}.png"
        save(image, source / name)
        rows.append([name, EVIL[number % 2 + 2 * (number // 8)]])
    with (source / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return relabel(source / "list.csv", tmp_path / "out", threshold=1.0, quiet=True, **QUICK)


def test_the_page_shows_what_labels_and_names_say_and_none_of_it_is_live(evil):
    text = (evil.folder / "suspects.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.of("img")) == len(page.of("li")) == 24
    assert all(set(image) == {"alt", "src"} for image in page.of("img"))
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.of("img"))
    assert len(page.of("script")) == 1
    for of in evil.labels.itertuples():
        assert f"given {of.given}".replace("\r", "\n") in page.text  # as HTML reads line ends
        assert of.path.replace("\r", "\n") in page.text
    assert {image["alt"] for image in page.of("img")} == {
        f"{of.path}, labelled {of.given}".replace("\r", "\n") for of in evil.labels.itertuples()
    }


def test_the_page_needs_nothing_from_outside_and_lets_only_its_own_script_run(evil):
    text = (evil.folder / "suspects.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {"link", "iframe", "object", "embed", "base", "a"}.isdisjoint(name for name, _ in page.tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    policy = next(of["content"] for of in page.of("meta") if of.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    script = re.search(r"<script>(.*?)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline'; script" in policy  # styles only
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_the_slider_is_labelled_and_its_counts_are_those_of_labels_csv(judged):
    page = Page((judged.folder / "suspects.html").read_text(encoding="utf-8"))
    slider = next(of for of in page.of("input") if of["type"] == "range")
    assert any(label["for"] == slider["id"] for label in page.of("label"))
    assert (slider["min"], slider["max"], slider["step"], slider["value"]) == ("0", "1", "0.01", "0.50")
    suspects = [float(row[4]) for row in read(judged.folder / "labels.csv")[1:]]
    counts = [int(count) for count in slider["data-counts"].split(",")]
    assert counts == [sum(suspect >= step / 100 for suspect in suspects) for step in range(101)]
    assert [float(li["data-suspect"]) for li in page.of("li")] == suspects
    assert any(of.get("aria-live") == "polite" for of in page.of("p"))


def test_formulas_in_labels_csv_are_not_live_and_the_users_own_cells_stay(evil):
    labels = read(evil.folder / "labels.csv")
    assert [len(row) for row in labels] == [6] * 25
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in labels for cell in row)
    assert any(cell == "'=HYPERLINK(1)" for row in labels for cell in row)
    assert any(cell == "./=HYPERLINK(1)2.png" for row in labels for cell in row)
    # nor where lists are separated by semicolons
    text = (evil.folder / "labels.csv").read_text(encoding="utf-8")
    cells = [cell for row in csv.reader(io.StringIO(text), delimiter=";") for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert any(row[1] == "=HYPERLINK(1)" for row in read(evil.folder / "corrected.csv"))


def test_a_corrected_folder_can_be_read_again(tmp_path):
    folder = lay(tmp_path / "mine")
    for name, new in (("left", "-1"), ("right", "=x")):
        (folder / name).rename(folder / new)
    judged = relabel(folder, tmp_path / "out", quiet=True, threshold=1.0, **QUICK)
    found = images.read(judged.folder / "corrected.csv", root=folder)
    assert found.listing.skipped == []
    names = [folder / entry.name for entry in found.entries]
    assert names == [folder / name for name in judged.labels["path"]]


def test_thumbnails_are_small_and_at_most_two_hundred(tmp_path):
    folder = lay(tmp_path / "mine", count=210)
    Image.fromarray(np.full((900, 1200, 3), 200, np.uint8)).save(folder / "left" / "large.png")
    judged = relabel(folder, tmp_path / "out", quiet=True, **QUICK | {"epochs": 1})
    path = judged.folder / "suspects.html"
    assert len(Page(path.read_text(encoding="utf-8")).of("li")) == 200
    assert path.stat().st_size < 1e6
    assert "of 211 labels" in Page(path.read_text(encoding="utf-8")).text.replace("\n", " ")


# --- the command


def test_the_command_says_what_it_did_and_names_what_it_skipped(folder, tmp_path, capsys):
    (folder / "left" / "broken.png").write_bytes(b"\x89PNG")
    assert main(["relabel", str(folder), "--out", str(tmp_path / "out"), *OPTIONS]) == 0
    said = capsys.readouterr().out
    assert "24 labelled images, 2 classes; 1 skipped" in said
    assert "'left/broken.png'" in said
    assert "σ = 0.5, 2 networks" in said
    assert str(tmp_path / "out" / "suspects.html") in said


def test_every_option_reaches_the_function(monkeypatch, tmp_path):
    asked = {}

    def pretend(source, **given):
        asked.update(given, source=source)
        raise SystemExit(0)

    monkeypatch.setattr("sln.cli.relabel", pretend)
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
