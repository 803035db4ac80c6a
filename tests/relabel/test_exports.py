"""Other tools' formats hold what labels.csv has, with nothing live in them."""

import csv
import io
import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse
from xml.etree import ElementTree

import pandas as pd
from own_images import canned_fit, lay

from sln.cli import main
from sln.relabel import exports, pipeline

LABELS = pd.DataFrame(
    {
        "path": ["=a b/ä&?.png", "b.png", "c.png"],
        "given": ['<"cat">', "=dog", "=dog"],
        "suggested": ["=dog", "=dog", '<"cat">'],
        "probability": [0.91239, 0.6, 0.5],
        "suspect": [0.8, 0.25, 0.7],
        "judged": [True, True, False],
    }
)
FILES = exports.texts(exports.FORMATS, LABELS, pd.Series([True, False, False]), Path("/tmp/my photos"))


def test_label_studio_gets_a_task_per_image_with_a_prediction_if_it_is_judged():
    tasks = json.loads(FILES["label-studio.json"])
    assert [parse_qs(urlparse(task["data"]["image"]).query)["d"] for task in tasks] == [
        [f"my photos/{path}"] for path in LABELS["path"]
    ]
    assert [task["data"]["given"] for task in tasks] == LABELS["given"].tolist()
    assert tasks[2]["predictions"] == []
    (prediction,) = tasks[0]["predictions"]
    assert prediction["score"] == 0.9124
    assert prediction["model_version"].startswith("sln ")
    choices = {"choices": ["=dog"]}
    assert prediction["result"] == [
        {"from_name": "choice", "to_name": "image", "type": "choices", "value": choices}
    ]


def test_absolute_paths_are_below_the_folder_too(tmp_path):
    labels = LABELS.assign(path=[str(tmp_path / "photos" / "a b.png"), "./b.png", "c/../c.png"])
    found = exports.texts(["label-studio"], labels, pd.Series([False] * 3), tmp_path / "photos")
    images = [task["data"]["image"] for task in json.loads(found["label-studio.json"])]
    assert images == [f"/data/local-files/?d=photos/{name}" for name in ("a%20b.png", "b.png", "c.png")]


def test_the_configuration_has_the_tags_and_choices_of_the_predictions():
    view = ElementTree.fromstring(FILES["label-studio.xml"])
    (result,) = json.loads(FILES["label-studio.json"])[0]["predictions"][0]["result"]
    choices, image = view.find("Choices"), view.find("Image")
    assert (choices.get("name"), choices.get("toName")) == (result["from_name"], result["to_name"])
    assert (image.get("name"), image.get("value")) == (result["to_name"], "$image")
    assert {choice.get("value") for choice in choices} == {*LABELS["given"]}


def test_cleanlab_gets_its_columns_in_the_datas_order_and_no_formula():
    rows = list(csv.DictReader(io.StringIO(FILES["cleanlab.csv"])))
    assert list(rows[0]) == ["path", "is_label_issue", "label_quality", "given_label", "predicted_label"]
    assert [row["is_label_issue"] for row in rows] == ["True", "False", "False"]
    assert [float(row["label_quality"]) for row in rows] == [0.2, 0.75, 0.3]
    assert [row["path"] for row in rows] == ["./=a b/ä&?.png", "b.png", "c.png"]
    assert [row["given_label"] for row in rows] == ['<"cat">', "'=dog", "'=dog"]


def test_the_option_writes_them_and_an_unknown_format_is_refused(tmp_path, monkeypatch, capsys):
    folder, out = lay(tmp_path / "mine"), tmp_path / "out"
    monkeypatch.setattr(pipeline, "fit", canned_fit)
    command = ["relabel", str(folder), "--out", str(out), "--export"]
    assert main([*command, "cleanlab", "--export", "label-studio"]) == 0
    first = json.loads((out / "label-studio.json").read_text())[0]["data"]
    assert first["image"] == "/data/local-files/?d=mine/left/000.png"
    assert len((out / "cleanlab.csv").read_text().splitlines()) == 25
    (folder / "left" / "000.png").unlink()
    assert main(command[:-1]) == 0  # the files that are there are not left as they were
    assert len((out / "cleanlab.csv").read_text().splitlines()) == 24
    assert len(json.loads((out / "label-studio.json").read_text())) == 23
    assert main([*command, "cleanlabs"]) == 2
    assert "did you mean 'cleanlab'" in capsys.readouterr().err
