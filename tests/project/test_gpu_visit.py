"""The scripts for a GPU machine, on the CPU: they need nothing of a GPU except its speed."""

import importlib
import io
import os
import re
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import bare_python
import pandas as pd
import pytest
import torch

from sln import fast, runs, train
from sln.analysis import results
from sln.config import Config
from sln.runs import store
from sln.study.recipes import recipe
from sln.study.study import Study
from sln.utils import files

ROOT = Path(__file__).parents[2]
# what comes back from the machine: files, bytes of each, and of all
FILES, FILE, TOTAL = 8, 16 * 2**20, 64 * 2**20


@pytest.fixture
def visit(monkeypatch):
    """The module gpu_visit."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu_visit")


@pytest.fixture
def parcel(visit):
    """The module parcel."""
    return visit.parcel


def tiny(**settings):
    return Config.from_dict({"epochs": 3, "noise_mode": "sym", "sigma": 0.5} | settings)


def interrupted(config, epoch):
    """A run that stopped after an epoch."""
    with pytest.raises(runs.Stopped):
        train.last(runs.in_turns(config, quiet=True, keep_state_at=1, stop=lambda: True))
    assert store.read_history(store.folder(config))["epoch"].max() == epoch


# --- the plan -----------------------------------------------------------------------------------------------


def test_the_most_wanted_families_come_first_and_none_is_forgotten(visit):
    study = Study("cifar10")
    wanted = list(visit.families(study))
    names = [[config.run_id.rsplit("-", 1)[0] for config in family] for family in wanted[:4]]
    assert names == [
        ["cifar10-sym0.4-sln1-seed0", "cifar10-sym0.4-sln1-lc250-seed0"],
        ["cifar10-sym0.4-ce-seed0"],
        ["cifar10-sym0.4-logits1-matched-seed0"],
        ["cifar10-sym0.4-gradient1-matched-seed0"],
    ]
    asked = [config for family in wanted for config in family]
    assert len(asked) == len(set(asked))
    for mode in study.profile.noise_modes:
        for arm in study.arms(mode).values():
            assert set(arm.configs) <= set(asked)
    # a corrected run is in the family of the run that it forks from, behind it
    assert all(config.uncorrected == family[0] for family in wanted for config in family[1:])


def test_the_plan_ends_within_ten_minutes_and_holds_what_can_be_finished(visit):
    there = visit.CALL_2["train"] - visit.LOADING
    wanted = list(visit.families(Study("cifar10")))
    first, rest = visit.groups(wanted, there, 0.5)
    assert max(visit.CALL_1.values()) + max(visit.CALL_2.values()) <= 600
    assert first == [*wanted[0], *wanted[1]]  # SLN, SLN-MO-LC and CE
    assert sorted(map(hash, first + rest)) == sorted(hash(c) for family in wanted for c in family)
    # more slowly: SLN and its correction, as far as time goes
    assert visit.groups(wanted, there, visit.SECONDS_PER_EPOCH)[0] == wanted[0]
    assert visit.groups(wanted, there, 10.0)[0] == wanted[0]
    assert visit.groups([], there, 0.5) == ([], [])


def test_epochs_that_are_trained_already_are_not_planned_again(visit):
    plain, corrected = tiny(), tiny(correction=2)
    assert visit.epochs_left([plain, corrected]) == 3 + 1
    interrupted(plain, 1)
    assert visit.epochs_left([plain, corrected]) == 2 + 1
    runs.get(plain, quiet=True)
    assert visit.epochs_left([plain]) == 0
    assert visit.epochs_left([corrected]) == 1


def test_the_code_and_half_of_the_photographs_fit_one_call(visit, capsys, tmp_path, refused):
    half = tmp_path / "half"
    half.mkdir()
    (half / "batches").write_bytes(b"0" * (50 * 2**20))
    options = {"profile": "cifar10", "work": tmp_path}
    plan = visit.argparse.Namespace(carry=[half], **options)
    visit.plan(plan)
    said = capsys.readouterr().out
    assert "in all 600 s" in said
    assert re.search(r"5\d\.\d of 64 MiB", said)
    (half / "batches").write_bytes(b"0" * (63 * 2**20))
    with refused("half", "too large", "split it"):
        visit.plan(plan)


def test_a_speed_that_failed_a_check_gives_way_to_the_next_slower(visit, monkeypatch, tmp_path):
    monkeypatch.setattr(visit, "chosen", lambda device: "compiled")
    assert visit.sound_speeds(tmp_path) == ["compiled", "bfloat16", "static", "reference"]
    rows = [
        ("static: the plain step", True),
        ("bfloat16: close to graph", True),
        ("bfloat16: a resumed run", True),
    ]
    rows += [
        ("compiled: close to bfloat16", True),
        ("compiled: a resumed run", False),
        ("reference: as on the CPU", False),
    ]
    pd.DataFrame(rows, columns=["check", "passed"]).to_csv(tmp_path / "checks.csv", index=False)
    assert visit.sound_speeds(tmp_path) == ["bfloat16", "static", "reference"]
    monkeypatch.setattr(visit, "chosen", lambda device: "static")
    assert visit.sound_speeds(tmp_path) == ["static", "reference"]
    pd.DataFrame(rows[1:], columns=["check", "passed"]).to_csv(tmp_path / "checks.csv", index=False)
    assert visit.sound_speeds(tmp_path) == ["reference"]  # static was not checked


# --- stages -------------------------------------------------------------------------------------------------


def test_a_late_or_stuck_stage_is_ended_its_output_kept_and_the_next_one_runs(
    visit, tmp_path, capsys, monkeypatch
):
    call = visit.Call(tmp_path, tmp_path, time.monotonic(), {}, {})
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('begun'); time.sleep(60)"
    assert call.run("stubborn", 2, "-c", stubborn) is None
    assert time.monotonic() - call.start < 12
    assert call.run("broken", 20, "-c", "raise SystemExit('no such thing')") == 1
    monkeypatch.setattr(visit, "STUCK", 1)
    rows = "import time; f = open('rows', 'a'); print('row', file=f, flush=True); time.sleep(60)"
    monkeypatch.chdir(tmp_path)
    begun = time.monotonic()
    assert call.run("waits", 60, "-c", rows, grows=tmp_path / "rows") == -1
    assert time.monotonic() - begun < 15
    assert call.run("fine", 60, "-c", "import sln; print(sln.__version__)", MARK="x") == 0
    log = (tmp_path / "log.txt").read_text()
    assert "begun" in log
    assert "no such thing" in log
    manifest = files.read_json(tmp_path / "manifest.json")
    stages = {"stubborn": "late", "broken": "failed with exit code 1", "waits": "stuck", "fine": "done"}
    assert manifest["stages"] == stages
    assert set(manifest["seconds"]) == set(manifest["stages"])
    assert "stubborn: late" in capsys.readouterr().out


def test_training_ends_by_its_time_at_a_whole_epoch_and_goes_on_from_there(visit, monkeypatch, tmp_path):
    study, history = Study("smoke", guesses=True), tmp_path / "history.csv"
    family = next(iter(visit.families(study)))
    monkeypatch.setattr(visit, "families", lambda study: iter([family]))
    visit.train(study, time.monotonic() - 1, 0.1, history)  # too late to begin
    assert not list(files.runs_folder().glob("*/config.json"))
    epochs = []
    monkeypatch.setattr(visit.time, "monotonic", lambda: 0.0 if len(epochs) < 2 else 100.0)
    monkeypatch.setattr(visit.parcel, "write_row", lambda *args, **options: epochs.append(args[1]["epoch"]))
    visit.train(study, 50.0, 0.1, history)
    assert epochs == [1, 1]  # a row per weights
    assert store.read_history(store.folder(family[0]))["epoch"].max() == 1
    monkeypatch.undo()


def test_a_failed_run_of_the_stage_is_an_error_missing_data_is_not(visit, monkeypatch, tmp_path):
    study = Study("smoke", guesses=True)
    for config, error in ((tiny(lr=1e30), "the loss became"), (recipe("cifar10-openset-ce").config(), None)):
        monkeypatch.setenv("SLN_DATA", str(tmp_path / "none"))
        monkeypatch.setattr(visit, "families", lambda study, config=config: iter([[config]]))
        if error:
            with pytest.raises(Exception, match=error):
                visit.train(study, time.monotonic() + 60, 0.1, tmp_path / "history.csv")
        else:
            visit.train(study, time.monotonic() + 60, 0.1, tmp_path / "history.csv")


# --- the parcel ---------------------------------------------------------------------------------------------


def test_a_parcel_is_small_whole_and_found_again_at_home(parcel, tmp_path, monkeypatch):
    run, parent = runs.get(tiny(correction=1)), runs.get(tiny())
    soft = runs.get(tiny(correction=1, soft_correction=True))
    logits = train.predict(run.network("momentum"), run.data.test, run.data)
    size = (run.folder / "weights.safetensors").stat().st_size
    assert parcel.pack(files.runs_folder(), tmp_path / "out") == []
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "home"))
    names = parcel.unpack(tmp_path / "out", tmp_path / "home")
    assert sorted(names) == sorted(one.folder.name for one in (run, parent, soft))
    home = runs.find(run.config)  # checks the checksum of every file
    assert home.history.equals(run.history)
    assert home.examples.equals(run.examples)
    assert not list((tmp_path / "home").rglob("state-*"))
    assert (home.folder / "weights.safetensors").stat().st_size < 0.7 * size
    again = train.predict(home.network("momentum"), home.data.test, home.data)
    assert torch.allclose(again, logits, atol=0.02)
    for here, there in ((run, home), (soft, runs.find(soft.config))):
        assert there.corrected_epochs == here.corrected_epochs == [2, 3]
        for epoch, known in ((epoch, here.correction(epoch)) for epoch in here.corrected_epochs):
            found = there.correction(epoch)
            assert found.w.dtype == found.predictions.dtype == torch.float32
            torch.testing.assert_close(found.w, known.w, atol=1e-3, rtol=0)
            torch.testing.assert_close(found.predictions, known.predictions, atol=1e-3, rtol=0)
    assert parcel.unpack(tmp_path / "out", tmp_path / "home") == []  # a second time changes nothing
    assert runs.find(run.config).history.equals(run.history)


def test_an_unfinished_run_goes_on_from_the_parcel_alone(parcel, tmp_path, monkeypatch):
    config, fork = tiny(), tiny(correction=1)
    whole = {one: (runs.get(one).folder / "weights.safetensors").read_bytes() for one in (config, fork)}
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "there"))
    interrupted(config, 1)
    parcel.pack(files.runs_folder(), tmp_path / "out")
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "later"))
    parcel.unpack(tmp_path / "out", files.runs_folder())
    trained = []
    monkeypatch.setattr(fast.train, "train_epoch", _noting(trained, train.train_epoch))
    for one, epochs in ((config, [2, 3]), (fork, [2, 3])):
        trained.clear()
        assert (runs.get(one, quiet=True).folder / "weights.safetensors").read_bytes() == whole[one]
        assert trained == epochs


def test_weights_on_the_way_travel_with_an_unfinished_and_with_a_finished_run(parcel, tmp_path, monkeypatch):
    config = tiny(keep_weights_every=1)
    wanted = runs.get(config, quiet=True).network(epoch=1).state_dict()
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "there"))
    interrupted(config, 1)
    for folder, exactly in (("later", True), ("home", False)):
        parcel.pack(files.runs_folder(), tmp_path / "out")
        monkeypatch.setenv("SLN_RUNS", str(tmp_path / folder))
        parcel.unpack(tmp_path / "out", files.runs_folder())
        run = runs.get(config, quiet=True)
        assert run.kept_epochs == [1, 2, 3]
        for name, value in run.network(epoch=1).state_dict().items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=0 if exactly else 1e-3)


def test_a_finished_run_keeps_the_state_that_a_fork_is_to_start_from(parcel, tmp_path):
    run = runs.get(tiny(), quiet=True, keep_state_at=1)
    for forks, kept in (([], 0), ([run.folder.name], 1)):
        parcel.pack(files.runs_folder(), tmp_path / "out", forks=forks)
        home = tmp_path / f"home {kept}"
        parcel.unpack(tmp_path / "out", home)
        assert len(list(home.rglob("state-001.safetensors"))) == kept
        assert (home / run.folder.name / "done.json").exists()


def test_what_has_no_room_is_named_and_histories_come_before_states(parcel, tmp_path, monkeypatch):
    first, second = tiny(), tiny(seed=1)
    for config in (first, second):
        interrupted(config, 1)
    folder = files.runs_folder()
    names = [second.run_id, first.run_id]
    assert parcel.pack(folder, tmp_path / "out", names) == []
    sizes = _sizes(tmp_path / "out")
    assert [re.sub(r"\.tar\.gz", "", name) for name in sizes] == [
        *names,
        *(f"{name}.state" for name in names),
    ]
    monkeypatch.setattr(parcel, "TOTAL", sum(sizes.values()) - 1)
    assert parcel.pack(folder, tmp_path / "out", names) == [f"{first.run_id}.state"]
    assert list(_sizes(tmp_path / "out")) == list(sizes)[:3]


def test_a_parcel_in_many_pieces_is_one_and_a_damaged_one_is_refused(parcel, tmp_path, monkeypatch, refused):
    run = runs.get(tiny(), quiet=True)
    monkeypatch.setattr(parcel, "PIECE", 20_000)
    parcel.pack(files.runs_folder(), tmp_path / "out")
    pieces = sorted((tmp_path / "out").glob("parcel.*"))
    assert len(pieces) > 2
    assert parcel.unpack(tmp_path / "out", tmp_path / "home") == [run.folder.name]
    pieces[1].unlink()
    with refused("the parcel in", "damaged", "copy it again"):
        parcel.unpack(tmp_path / "out", tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []
    with refused("holds no parcel.00"):
        parcel.unpack(tmp_path, tmp_path / "other")


def test_a_parcel_of_the_paper_fits_what_comes_back(parcel):
    assert parcel.PIECE < FILE
    assert parcel.PIECES * parcel.PIECE >= parcel.TOTAL + 2**20
    assert parcel.PIECES + 3 <= FILES  # log.txt, manifest.json, history.csv
    assert parcel.TOTAL + 3 * 2**20 < TOTAL


def _sizes(out):
    whole = b"".join(piece.read_bytes() for piece in sorted(out.glob("parcel.*")))
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        return {member.name: member.size for member in archive}


def _noting(list_, function):
    return lambda *args: list_.append(args[3]) or function(*args)


# --- at home ------------------------------------------------------------------------------------------------


def test_cells_that_came_home_stand_beside_the_published_ones(visit, monkeypatch, tmp_path, capsys):
    known = recipe("cifar10-sym-sln")
    folder = files.runs_folder() / known.config().run_id
    files.write_json(folder / "config.json", known.config().to_dict())
    rows = [
        {"epoch": epoch, "weights": weights, "test_accuracy": accuracy if epoch % 5 == 0 else float("nan")}
        | dict.fromkeys(("right_accuracy", "wrong_memorised"), 0.5)
        for epoch in range(1, 301)
        for weights, accuracy in (("network", 0.80), ("momentum", 0.85))
    ]
    store.write_history(folder, rows)
    store.seal(folder)
    monkeypatch.setattr("sln.runs.run.labels_are_pinned", lambda config: True)
    visit.draw(Study("cifar10"), {"gpu": "NVIDIA H100", "started": "2026-12-01T10:00:00Z"})
    figures = files.figures_folder("cifar10")
    names = {"02_curves.csv", "02_curves.png", "06_beside_the_paper.csv", "06_beside_the_paper.png"}
    assert {path.name for path in figures.iterdir()} == names | {"manifest.json"}
    # without its runs, another machine shows the committed cells and says whose they are
    runs.remove(known.config().run_id)
    capsys.readouterr()
    table = results.of_the_recipes().set_index(["recipe", "method"])
    assert table.loc[("cifar10-sym-sln", "SLN"), "ours"] == pytest.approx(80.0)
    assert table.loc[("cifar10-sym-sln", "SLN-MO"), ["ours", "seeds"]].tolist() == pytest.approx([85.0, 1])
    assert table.loc[("cifar10-sym-sln", "SLN-MO"), "difference"] == pytest.approx(85.0 - 84.71)
    assert table.loc[("cifar10-sym-ce", "CE"), "seeds"] == 0
    assert "NVIDIA H100, 2026-12-01" in capsys.readouterr().out


# --- a rehearsal, in an interpreter like the one there ------------------------------------------------------


def there(tmp_path, *arguments, **variables):
    """A call of the script in that interpreter, from a folder that is not the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLN_")}
    environment |= bare_python.environment(tmp_path / "bare") | {"SLN_DEVICE": "cpu"} | variables
    script = ROOT / "benchmarks" / "gpu_visit.py"
    options = {"env": environment, "cwd": tmp_path, "start_new_session": True, "text": True}
    return subprocess.Popen(
        bare_python.command(script, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


def ends(call):
    """What a call printed, once it has ended without an error."""
    said = call.communicate()[0]
    assert call.returncode == 0, said
    return said


def rows(out):
    """The number of rows in the history of a call so far."""
    return len((out / "history.csv").read_text().splitlines()) - 1


def comes_back(out):
    """Assert that what a call left can be brought home."""
    found = [path for path in out.rglob("*") if path.is_file()]
    sizes = [path.stat().st_size for path in found]
    assert len(found) <= FILES
    assert max(sizes) <= FILE
    assert sum(sizes) <= TOTAL
    assert all(path.parent == out and re.fullmatch(r"[\w.-]+", path.name) for path in found)


@pytest.mark.slow
@pytest.mark.timeout(900)  # without bfloat16 a processor is slow; its stages count here, not their times
def test_call_1_checks_and_measures(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    options = ["--call", 1, "--out", out, "--work", work, "--small", "--seconds", 800]
    call = there(tmp_path, *options, SLN_SPEED="bfloat16")
    said = call.communicate()[0]
    log = (out / "log.txt").read_text()
    assert call.returncode == 0, said
    assert "checks: done" in said, log
    assert "speeds: done" in said, log
    comes_back(out)
    checks = pd.read_csv(out / "checks.csv")
    assert checks["passed"].all()
    assert {"bfloat16: close to graph", "bfloat16: 2 runs in turns"} <= set(checks["check"])
    assert len(pd.read_csv(out / "speeds.csv"))
    assert "conv" in (out / "kernels.txt").read_text()
    assert (work / "speeds.csv").read_bytes() == (out / "speeds.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a slow processor needs several visits
def test_call_2_is_killed_goes_on_and_is_continued_from_its_parcel_alone(tmp_path, monkeypatch):
    first, home, work = tmp_path / "first", tmp_path / "home", tmp_path / "work"
    config = Study("quick", guesses=True).arms("sym")["SLN"].configs[0]
    straight = runs.get(config, quiet=True)
    options = ["--call", 2, "--profile", "quick", "--seconds"]
    # killed, its children too, once rows have come
    call = there(tmp_path, *options, 85, "--out", first, "--work", work, SLN_SPEED="reference")
    while call.poll() is None and (not (first / "history.csv").exists() or rows(first) < 5):
        time.sleep(0.1)
    os.killpg(call.pid, signal.SIGKILL)
    said = call.communicate()[0]
    assert rows(first) > 4, said
    # the same machine goes on, and time is up before the first runs have finished
    begun = time.monotonic()
    said = ends(there(tmp_path, *options, 37, "--out", first, "--work", work, SLN_SPEED="reference"))
    assert time.monotonic() - begun < 37
    assert "train at reference, 3 at once: done" in said, (first / "log.txt").read_text()
    comes_back(first)
    history = pd.read_csv(first / "history.csv")
    assert history.loc[history["epoch"] < 91, "test_accuracy"].isna().any()  # thinned
    # other machines have a parcel only, and their plans see what is trained already
    at_home, visits = {"SLN_RUNS": str(home), "SLN_FIGURES": str(home)}, [first]
    monkeypatch.setenv("SLN_RUNS", str(home))
    while (found := runs.find(config)) is None:  # one more visit is enough on most machines
        out, work = tmp_path / f"out{len(visits)}", tmp_path / f"work{len(visits)}"
        continued = [*options, 45, "--out", out, "--work", work, "--continue", visits[-1]]
        assert "continued: digits-sym0.4" in ends(there(tmp_path, *continued, SLN_SPEED="reference"))
        comes_back(out)
        ends(there(tmp_path, "--take-home", out, "--profile", "quick", **at_home))
        visits.append(out)
    # and what comes home is what one machine would have trained in one go
    assert found.final("momentum")["test_accuracy"] == straight.final("momentum")["test_accuracy"]
    weights = store.read_tensors(straight.folder / "weights.safetensors")
    small = store.read_tensors(found.folder / "weights.safetensors")
    assert all(torch.equal(small[n], w.half() if w.is_floating_point() else w) for n, w in weights.items())
    assert (home / "quick" / "02_curves.png").exists()
