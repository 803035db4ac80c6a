"""The command line: every command, every bad input in one line, and nothing left behind."""

import dataclasses
import errno
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from sln import cli, noise, runs
from sln.cli import main
from sln.config import Config
from sln.datasets import download
from sln.datasets import images as source
from sln.datasets.load import load_data
from sln.runs.parallel import KILLED, WorkerDied

TINY = ["--epochs", "2"]
CONFIG = Config(epochs=2)
TRUE = source.digits().train.true.numpy()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A runs folder with one finished run; commands that only read share it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(folder))
        runs.get(CONFIG, quiet=True)
    return folder


@pytest.fixture
def tell(capsys):
    """`tell("runs", "list")` runs the command, expects it to go well, and returns what it printed."""

    def command(*arguments):
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return command


@pytest.fixture
def fails(capsys, tmp_path):
    """Runs a command that must fail: exit code 2, one line with all `words`, no file changed."""

    def command(*arguments, words):
        def files():
            found = [path for path in tmp_path.rglob("*") if path.is_file() and ".locks" not in path.parts]
            return {path: path.read_bytes() for path in found}

        before = files()
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("sln: ")
        assert err.count("\n") == 1
        assert out == ""
        for word in words:
            assert str(word) in err
        assert files() == before

    return command


def table_of(text):
    """A printed table of two columns, network and momentum, as numbers."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: [float(row[1]), float(row[2])] for row in rows if len(row) == 3 and "network" not in row}


# --- train, evaluate, runs


def test_train_says_where_the_run_is_and_what_came_out(tell):
    said = tell("train", *TINY)
    run = runs.find(CONFIG)
    assert f"run: {run.folder}" in said.splitlines()
    assert table_of(said)["test_accuracy"] == [
        round(run.final(weights)["test_accuracy"], 4) for weights in ("network", "momentum")
    ]


def test_settings_are_accepted_as_the_released_scripts_write_them(tell):
    tell("train", *TINY, "--noise_mode", "asym", "--noise_rate", "0.3", "--extra_alphas", "0.5", "0.9")
    asked = CONFIG.replace(noise_mode="asym", noise_rate=0.3, extra_alphas=[0.5, 0.9])
    assert runs.find(asked).config == asked


# a value other than the default, and the data set that takes it
OTHER = {
    "dataset": ("cifar10", "cifar10"),
    "noise_mode": ("asym", "digits"),
    "labels": ("generated", "cifar10"),
    "model": ("wrn-10-1", "cifar10"),
    "noise_on": ("logits", "digits"),
    "strength": ("matched", "digits"),
    "sigma_schedule": ("rising", "digits"),
    "noise_for": ("wrong", "digits"),
    "classes": (4, "digits"),
    "baseline": ("elr", "digits"),
    "baseline_parameter": (0.25, "digits"),
    "correction_losses": ("as-released", "digits"),
    "correction_weight": ("mixture", "digits"),
    "precision": ("bfloat16", "digits"),
    "extra_alphas": ((0.25,), "digits"),
    "subset": (7, "cifar10"),
    "test_subset": (7, "cifar10"),
    "held_out": (0.25, "cifar10"),
    "downsample": (2, "cifar10"),
    "correction": (50, "digits"),
}
# what else has to be said for a setting to have any effect
NEEDED = {
    "correction_losses": ["--correction", "50"],
    "correction_weight": ["--correction", "50"],
    "soft_correction": ["--correction", "50"],
    "strength": ["--noise-on", "logits"],
    "baseline_parameter": ["--baseline", "gce"],
}


@pytest.mark.parametrize("setting", dataclasses.fields(Config), ids=lambda setting: setting.name)
def test_every_setting_is_an_option_in_both_spellings_and_reaches_the_config(setting, monkeypatch):
    clothing = ("num_per_class", "skip_bad_images", "pretrained", "sync_batchnorm")
    usual = "clothing1m" if setting.name in clothing else "cifar10" if setting.name == "augment" else "digits"
    default = Config(dataset=usual).default(setting.name)
    value, dataset = OTHER.get(setting.name, (None, usual))
    if value is None:
        value = not default if isinstance(default, bool) else default + 1
        value = default / 2 if isinstance(default, float) else value
    asked = []
    monkeypatch.setattr(runs, "get", lambda config: asked.append(config) or sys.exit(0))
    for name in {setting.name, setting.name.replace("_", "-")}:
        words = [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
        if isinstance(value, bool):
            words = [f"--{name}" if value else f"--no-{name}"]
        words += NEEDED.get(setting.name, [])
        with pytest.raises(SystemExit):
            main(["train", "--dataset", dataset, *words])
    assert {getattr(config, setting.name) for config in asked} == {value}


def test_evaluate_measures_the_last_row_of_the_history_again(trained, tell, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(trained))
    run, afresh = runs.find(CONFIG), table_of(tell("evaluate", CONFIG.run_id))
    assert len(afresh) == 11
    for name, values in afresh.items():
        assert values == [round(run.final(weights)[name], 4) for weights in ("network", "momentum")]


def test_runs_are_listed_shown_and_removed(tell):
    assert tell("runs", "list") == f"no runs in {runs.runs_folder()}\n"
    tell("train", *TINY)
    other = tell("train", *TINY, "--seed", "1").splitlines()[-1].removeprefix("run: ")
    listed = tell("runs", "list")
    assert [line.split()[1] for line in listed.splitlines() if CONFIG.run_id in line] == ["done"]
    assert Path(other).name in listed
    shown = tell("runs", "show", CONFIG.run_id)
    assert [line.split() for line in shown.splitlines() if line.startswith("epochs")] == [["epochs", "2"]]
    assert "test_accuracy" in shown
    assert tell("runs", "remove", CONFIG.run_id) == f"removed {CONFIG.run_id}\n"
    assert CONFIG.run_id not in tell("runs", "list")
    assert Path(other).is_dir()


def test_a_damaged_run_is_named_in_one_line_beside_the_list_of_the_others(
    trained, capsys, tmp_path, monkeypatch
):
    shutil.copytree(trained, tmp_path / "both")
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "both"))
    (tmp_path / "both" / "digits-bad").mkdir()
    (tmp_path / "both" / "digits-bad" / "config.json").write_text("{")
    assert main(["runs", "list"]) == 0
    out, err = capsys.readouterr()
    assert CONFIG.run_id in out
    assert "digits-bad" not in out
    assert err.count("\n") == 1
    assert "digits-bad" in err


# --- output


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_the_terminal_cannot_show_is_written_as_an_escape(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    monkeypatch.setattr(cli.runs, "listing", lambda **_: pd.DataFrame({"run": ["σ ± \udcff"]}, dtype=object))
    assert main(["runs", "list"]) == 0
    shown = "\\u03c3 ± \\udcff" if encoding == "cp1252" else "\\u03c3 \\xb1 \\udcff"
    assert shown in written.getvalue().decode(encoding)


def test_a_chosen_way_to_show_such_characters_stays(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="replace"))
    monkeypatch.setattr(cli.runs, "listing", lambda **_: pd.DataFrame({"run": ["σ"]}))
    assert main(["runs", "list"]) == 0
    assert "?" in written.getvalue().decode()


def test_the_process_prints_where_only_ascii_can_be_shown():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "sln", "recipes"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xb1" in done.stdout


# --- noise


def rate_said(text):
    return float(next(line for line in text.splitlines() if "a rate of" in line).split()[-1])


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("failing", [0, 1])
def test_on_a_full_disk_label_file_and_manifest_stay_as_they_were(
    kept, failing, fails, tell, tmp_path, monkeypatch
):
    writes, write = itertools.count(), Path.write_text

    def full(path, text, **options):
        stops = next(writes) == failing
        write(path, text[:9] if stops else text, **options)
        if stops:
            raise OSError(errno.ENOSPC, "No space left on device")

    if kept:
        tell("noise", "--out", tmp_path / "labels.csv", "--noise-seed", "1")
    monkeypatch.setattr(Path, "write_text", full)
    words = ["cannot write", "labels.", "No space left", "free some space"]
    fails("noise", "--out", tmp_path / "labels.csv", words=words)


def test_noise_writes_the_labels_that_a_run_trains_on_and_checks_them(tell, tmp_path):
    written = tell("noise", "--out", tmp_path / "labels.csv", "--noise-rate", "0.3", "--noise-seed", "5")
    table = pd.read_csv(tmp_path / "labels.csv")
    trained_on = load_data(Config(noise_rate=0.3, noise_seed=5)).train
    assert (table["label"].to_numpy() == TRUE).all()
    assert (table["label_noisy"].to_numpy() == trained_on.given.numpy()).all()
    manifest = json.loads((tmp_path / "labels.json").read_text())
    assert manifest["seed"] == 5
    assert manifest["realised_rate"] == (table["label"] != table["label_noisy"]).mean()
    assert rate_said(written) == round(manifest["realised_rate"], 4) == 0.3
    checked = tell("noise", "--check", tmp_path / "labels.csv")
    assert checked == written.partition("\n")[2]  # the same words, except "wrote ..."


def test_open_set_labels_can_be_checked_too(tell, tmp_path):
    tell("noise", "--out", tmp_path / "open.csv", "--noise-mode", "openset")
    assert rate_said(tell("noise", "--check", tmp_path / "open.csv")) == 0.4


def test_bernoulli_and_own_class_change_the_rate_as_their_names_say(tell, tmp_path):
    exact = rate_said(tell("noise", "--out", tmp_path / "exact.csv"))
    coins = rate_said(tell("noise", "--out", tmp_path / "coins.csv", "--bernoulli"))
    own = rate_said(tell("noise", "--out", tmp_path / "own.csv", "--own-class"))
    assert exact == 0.4
    assert 0 < abs(coins - 0.4) < 5 * np.sqrt(0.4 * 0.6 / len(TRUE))
    assert own == 0.36  # 0.4 (1 - 1/10)
    manifests = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("exact", "coins", "own")]
    assert [m["exact"] for m in manifests] == [True, False, True]
    assert [m["own_class"] for m in manifests] == [False, False, True]


def test_noise_follows_any_matrix(tell, tmp_path):
    T = np.eye(10)
    T[3, [3, 8]] = 0.0, 1.0
    np.savetxt(tmp_path / "T.csv", T, delimiter=",")
    tell("noise", "--out", tmp_path / "labels.csv", "--matrix", tmp_path / "T.csv")
    given = pd.read_csv(tmp_path / "labels.csv")["label_noisy"].to_numpy()
    assert (given == np.where(TRUE == 3, 8, TRUE)).all()


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--sigma", "-1"], ["sigma", "-1"]),
        (["train", "--sigma", "nan"], ["sigma", "nan"]),
        (["train", "--noise-rate", "1.5"], ["noise_rate", "1.5", "from 0 to 1"]),
        (["train", "--noise-mode", "symm"], ["'symm'", "did you mean 'sym'?"]),
        (["train", "--noise-mode", "xyz"], ["'xyz'", "asym, dependent, none, openset, sym"]),
        (["train", "--epochs", "0"], ["epochs", "0"]),
        (["train", "--baseline", "eler"], ["'eler'", "did you mean 'elr'?"]),
        (["train", "--baseline", "sce"], ["baseline sce", "sigma 0"]),
        (["train", "--baseline-parameter", "0.5"], ["baseline_parameter", "no baseline"]),
        (["train", "--strength", "matched"], ["strength matched", "noise_on logits or gradient"]),
        (["train", "--classes", "4", "--noise-mode", "asym"], ["asym", "all ten classes"]),
        (["train", "--extra-alphas", "0.5", "1"], ["extra_alphas", "1.0"]),
        (["noise", "--out", "FOLDER/x.csv", "--noise-rate", "nan"], ["noise_rate", "nan"]),
        (["noise", "--out", "FOLDER/x.csv", "--own-class", "--noise-mode", "asym"], ["own-class", "sym"]),
        (["noise", "--out", "FOLDER/x.csv", "--bernoulli", "--noise-mode", "dependent"], ["bernoulli"]),
        (["noise", "--out", "FOLDER/x.csv", "--matrix", "FOLDER/none.csv"], ["none.csv"]),
        (["noise", "--check", "FOLDER/none.csv"], ["none.csv", "missing"]),
        (["evaluate", "digits-nowhere"], ["'digits-nowhere'", "runs list"]),
        (["runs", "show", "digits-nowhere"], ["'digits-nowhere'"]),
        (["runs", "remove", "../project"], ["'../project'"]),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("train", "noise", "runs", "evaluate") else "",
)
def test_bad_values_are_refused_by_name(arguments, words, tmp_path, fails):
    fails(*(argument.replace("FOLDER", str(tmp_path)) for argument in arguments), words=words)


BAD_MATRICES = {
    "a row that sums to 0.9": (np.eye(10) - 0.1 * np.eye(10)[:, [4]] * np.eye(10)[4], ["row 4", "0.9"]),
    "rows given and true mixed up": (np.tile(np.eye(10)[:, [0]], 10), ["row 0", "10"]),
    "a negative entry": (np.eye(10) + np.eye(10)[0][:, None] * (np.eye(10)[1] - np.eye(10)[2]), ["[0, 1]"]),
    "not a number": (np.full((10, 10), np.nan), ["[0, 1]"]),
    "nine classes": (np.eye(9), ["(9, 9)", "10 classes"]),
    "not square": (np.eye(10)[:, :9], ["(10, 9)"]),
    "words": ("one,two\n", ["one"]),
    "rows of two lengths": ("1,0\n1\n", ["(2, 2)"]),
    "empty": ("", ["bad.csv"]),
}


@pytest.mark.parametrize("bad", BAD_MATRICES)
def test_a_bad_matrix_is_refused_saying_where(bad, tmp_path, fails):
    content, words = BAD_MATRICES[bad]
    path = tmp_path / "bad.csv"
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.savetxt(path, content, delimiter=",")
    fails("noise", "--out", tmp_path / "labels.csv", "--matrix", path, words=words)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda table: table[:-1], ["1149 labels", "1150"]),
        (lambda table: table.assign(label=(table["label"] + 1) % 10), ["row 0", "1150 differ"]),
        (lambda table: table.assign(label_noisy=table["label"]), ["SHA-256"]),
        (lambda table: table.replace({"label_noisy": {3: 11}}), ["label_noisy", "11", "0..9"]),
        (lambda table: table.drop(columns="label_noisy"), ["'label_noisy'"]),
    ],
    ids=["wrong length", "labels of another data set", "changed", "no such class", "no such column"],
)
def test_a_label_file_that_is_not_this_data_sets_is_refused(harm, words, tmp_path, fails):
    path = tmp_path / "labels.csv"
    true, C = TRUE, 10
    noise.symmetric(true, C, 0.4, seed=0).save(path)
    harm(pd.read_csv(path)).to_csv(path, index=False)
    fails("noise", "--check", path, words=[path, *words])


def test_a_label_file_is_never_overwritten_by_its_own_manifest(tmp_path, fails):
    fails("noise", "--out", tmp_path / "labels.json", words=["labels.json"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "quikc"], ["'quikc'", "did you mean 'quick'?"]),
        (["--notebook", "01_lable_noise"], ["'01_lable_noise'", "did you mean '01_label_noise'?"]),
        (["-p", "RADUIS=1.0"], ["'RADUIS'", "did you mean 'RADIUS'?"]),
        (["-p", "RADIUS=wide"], ["RADIUS", "'wide'", "float"]),
        (["-p", "RADIUS=True"], ["RADIUS", "True", "float"]),
        (["-p", "PROFILE=3"], ["PROFILE", "--profile"]),
        (["-p", "RADIUS"], ["'RADIUS'", "NAME=VALUE"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("-") else "",
)
def test_reproduce_refuses_before_anything_runs(arguments, words, tmp_path, fails, monkeypatch):
    for folder in ("sln", "notebooks"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    cells = [
        nbformat.v4.new_code_cell(
            'PROFILE: str = "quick"\nRADIUS: float = 0.5', metadata={"tags": ["parameters"]}
        )
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "project" / "notebooks" / "01_label_noise.ipynb")
    monkeypatch.chdir(tmp_path / "project")
    fails("reproduce", *arguments, words=words)


def test_reproduce_without_notebooks_says_where_it_looked(tmp_path, fails, monkeypatch):
    for folder in ("sln", "notebooks"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    fails("reproduce", words=[tmp_path / "project" / "notebooks"])


def test_a_killed_worker_is_one_line_and_1(monkeypatch, capsys):
    def killed(*_, **__):
        raise WorkerDied(KILLED)

    monkeypatch.setattr("sln.relabel.pipeline.relabel", killed)
    assert main(["relabel", "mine"]) == 1
    said = capsys.readouterr().err
    assert said == f"sln: {KILLED}\n"


# --- as a process


# a shell starts background jobs with Ctrl-C ignored, and their children inherit that
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sln.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_is_one_line_and_130(tmp_path):
    command = [sys.executable, "-c", LISTENING, "train", "--epochs", "3000"]
    environment = os.environ | {"SLN_RUNS": str(tmp_path / "runs")}
    with subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("runs/*/versions.json")) and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert err == "sln: interrupted; the same command goes on where it stopped\n"
    assert not list(tmp_path.rglob("done.json"))


def test_the_module_is_a_program_with_help_and_exit_codes(tmp_path):
    command = [sys.executable, "-m", "sln", "noise", "--check", str(tmp_path / "none.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sln: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [[], ["train"], ["evaluate"], ["noise"], ["reproduce"], ["runs"], ["recipes"], ["data"]]
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0
    words = capsys.readouterr().out
    expected = {
        "": ["train train a run", "evaluate measure", "noise write", "reproduce execute", "runs list"],
        "train": [setting.metadata["about"] for setting in dataclasses.fields(Config)],
        "noise": ["bernoulli", "--own-class", "--matrix", "--noise-mode", "--noise_mode"],
        "runs": ["list", "show", "remove"],
        "data": ["list", "get"],
    }
    # help breaks lines at spaces and hyphens
    for word in expected.get("".join(command), ["usage"]):
        assert "".join(word.split()) in "".join(words.split())


def test_without_a_command_the_usage_is_shown_and_the_code_is_2(capsys):
    with pytest.raises(SystemExit) as done:
        main([])
    assert done.value.code == 2
    assert "usage: python -m sln" in capsys.readouterr().err


def test_own_class_does_not_go_with_a_matrix(tmp_path, fails):
    np.savetxt(tmp_path / "T.csv", np.eye(10), delimiter=",")
    fails(
        "noise",
        "--out",
        tmp_path / "l.csv",
        "--matrix",
        tmp_path / "T.csv",
        "--own-class",
        words=["own-class"],
    )


# --- data


def test_data_is_listed_and_got_and_what_is_unknown_refused(tell, fails, monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    listed = tell("data", "list")
    for name in download.NAMES:
        assert any(line.split()[:1] == [name] and "False" in line.split() for line in listed.splitlines())
    assert listed.count("CC BY-NC 4.0") == 1
    fails("data", "get", "cifar1", words=["did you mean 'cifar10'"])
    asked, new = [], []
    monkeypatch.setattr(download, "get", lambda name, mirror: asked.append((name, mirror)) or new)
    assert tell("data", "get", "cifar10") == "cifar10 was complete already\n"
    new += [Path("a"), Path("b")]
    assert tell("data", "get", "cifar-n", "--mirror", "http://x/") == "got a\ngot b\n"
    assert asked == [("cifar10", None), ("cifar-n", "http://x/")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "cifar100", "--noise_mode", "openset"], "unknown noise_mode of cifar100 'openset'"),
        (["--dataset", "cifar10", "--num_class", "100"], "num_class is 100, cifar10 has 10 classes"),
        (["--dataset", "cifar10", "--datapath", "nowhere"], "python -m sln data get cifar10"),
        (["--dataset", "clothing1m", "--datapath", "nowhere"], "Clothing1M is incomplete"),
        (["--device", "tpu"], "device is 'tpu'"),
    ],
)
def test_a_released_style_command_that_cannot_work_is_refused_in_one_line(words, message, fails, monkeypatch):
    for name in ("SLN_DATA", "SLN_DEVICE"):
        monkeypatch.setenv(name, "")  # put back after the test, after the command has set it
    fails("train", *words, words=[message])


def test_the_released_scripts_folder_and_gpu_are_taken(monkeypatch, tmp_path):
    for name in ("SLN_DATA", "SLN_DEVICE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(runs, "get", lambda config: sys.exit(0))
    with pytest.raises(SystemExit):
        main(
            [
                "train",
                "--dataset",
                "cifar10",
                "--num_class",
                "10",
                "--datapath",
                str(tmp_path),
                "--gpu_id",
                "0",
            ]
        )
    assert os.environ["SLN_DATA"] == str(tmp_path)
    assert os.environ["SLN_DEVICE"] == ("cuda:0" if torch.cuda.is_available() else "cpu")


def test_correction_beyond_the_epochs_never_corrects_as_released(monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "get", lambda config: asked.append(config) or sys.exit(0))
    for value in ("-1", "0", "300", "400"):
        with pytest.raises(SystemExit):
            main(["train", "--dataset", "cifar10", "--correction", value])
    assert [config.corrects for config in asked] == [False] * 4
    assert all(config.uncorrected.correction == -1 for config in asked)
