"""The script for a GPU machine, on the CPU: it needs nothing of a GPU but its speed."""

import importlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sln import runs, store, train
from sln.config import Config
from sln.study import Study

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_visit")


def tiny(**knobs):
    return Config.from_dict({"epochs": 2, "fork_epoch": 1, "noise_mode": "sym", "sigma": 0.5} | knobs)


def test_the_most_wanted_runs_come_first_and_none_is_forgotten(script):
    study = Study("cifar10")
    groups = list(script.groups(study))
    names = [name for name, _ in groups]
    assert names[:3] == [
        "sym: CE and SLN, seeds 0..0",
        "sym: label correction, seeds 0..0",
        "sym: variants of SGD noise",
    ]
    asked = [config for _, configs in groups for config in configs]
    for mode in study.profile.noise_modes:
        for arm in study.arms(mode).values():
            assert set(arm.configs) <= set(asked)
    # a corrected run comes after the run that it forks from
    place = {config: number for number, config in enumerate(asked)}
    assert all(place[c.uncorrected] < place[c] for c in asked if c.corrects)


def test_a_parcel_is_small_whole_and_found_again_at_home(script, tmp_path, monkeypatch):
    run = runs.get(tiny(correction=1))
    assert list(runs.store.folder(run.config.uncorrected).glob("state-*")) == []
    parent = runs.get(tiny())
    for one in (run, parent):
        script.export(one, tmp_path / "out" / "runs")
    assert not list((tmp_path / "out").rglob("state-*"))
    logits = train.predict(run.network("momentum"), run.data.test, run.data)
    size = (run.folder / "weights.safetensors").stat().st_size
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "home"))
    assert runs.find(run.config) is None
    script.take_home(tmp_path / "out")
    home = runs.find(run.config)  # checks the checksum of every file
    assert home.history.equals(run.history)
    assert home.examples.equals(run.examples)
    assert home.corrected_epochs == run.corrected_epochs
    assert (home.folder / "weights.safetensors").stat().st_size < 0.7 * size
    again = train.predict(home.network("momentum"), home.data.test, home.data)
    assert torch.allclose(again, logits, atol=0.02)
    kinds = {t.dtype for t in store.read_tensors(home.folder / "weights.safetensors").values()}
    assert torch.float32 not in kinds
    script.take_home(tmp_path / "out")  # a second time changes nothing
    assert runs.find(run.config).history.equals(run.history)


def test_a_stage_ends_when_time_is_up_and_goes_on_the_next_time(script, tmp_path):
    marks = tmp_path / "marks"
    slow = [sys.executable, "-c", f"open({str(marks)!r}, 'a').write('x'); import time; time.sleep(60)"]
    first = script.Visit(1, tmp_path / "out", "smoke", 1)
    first.end = time.monotonic() + 12
    begun = time.monotonic()
    assert not first.stage("slow", slow)
    assert time.monotonic() - begun < 20
    assert not first.stage("late", slow)  # too late to begin
    quick = [sys.executable, "-c", f"open({str(marks)!r}, 'a').write('y')"]
    second = script.Visit(1, tmp_path / "out", "smoke", 1)
    assert second.stage("slow", quick)
    assert script.Visit(1, tmp_path / "out", "smoke", 1).stage("slow", quick)  # done, so not done again
    assert marks.read_text() == "xy"


@pytest.mark.slow
def test_a_visit_trains_draws_surfaces_and_packs(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    command = [sys.executable, str(BENCHMARKS / "gpu_visit.py"), "--profile", "smoke", "--only-train"]
    command += ["--out", str(out), "--work", str(work), "--minutes", "4", "--at-once", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train: done" in done.stdout, (out / "train.log").read_text()
    assert "surfaces: done" in done.stdout, (out / "surfaces.log").read_text()
    packed = sorted(path.parent.name for path in (out / "runs").glob("*/done.json"))
    assert packed == sorted(path.parent.name for path in work.glob("*/done.json"))
    surfaces = list((out / "runs").glob("*/surfaces/*.csv"))
    assert len(surfaces) == 4
    assert all(np.loadtxt(path, delimiter=",", skiprows=1).shape == (25, 5) for path in surfaces)
    manifest = store.read_json(out / "manifest.json")
    assert manifest["profile"] == "smoke"
    assert set(manifest["seconds"]) == {"train", "surfaces"}


def test_a_folder_that_is_no_parcel_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match="no finished runs"):
        script.take_home(tmp_path)
