"""Runs on disk: found, resumed, forked, refused when damaged."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sln import runs
from sln.config import Config
from sln.method import corrected_targets
from sln.runs import in_memory, store
from sln.train import measure
from sln.utils import files

PLAIN = Config(epochs=4)
CORRECTED = PLAIN.replace(correction=2)
# long enough to be killed in the middle
LONG = Config(epochs=10)
# as released: only then do the targets of one epoch depend on those of the epoch before
LONG_CORRECTED = LONG.replace(
    correction=4, extra_alphas=[0.5], soft_correction=True, correction_losses="as-released"
)


def in_folder(folder, config, **options):
    """The run of `config`, trained or found under `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(folder))
        return runs.get(config, quiet=True, **options)


def contents(folder):
    """Every file below `folder`, byte for byte; locks aside."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


def numbers(run):
    """Everything of a run that must not depend on how it came about."""
    exact = {name: (run.folder / name).read_bytes() for name in ("weights.safetensors", "examples.csv")}
    history = pd.read_csv(run.folder / "history.csv", dtype=str).drop(columns="seconds").to_csv()
    corrections = {name: content for name, content in contents(run.folder).items() if name.suffix == ".npz"}
    return exact | {"history": history, "corrections": corrections}


def counted(monkeypatch):
    """A list that grows by one for every training that starts."""
    trainings, train = [], in_memory.train_in_turns
    monkeypatch.setattr(in_memory, "train_in_turns", lambda *args: trainings.append(1) or train(*args))
    return trainings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with PLAIN and, forked from it, CORRECTED; tests that change files copy it."""
    folder = tmp_path_factory.mktemp("trained")
    in_folder(folder, PLAIN, keep_state_at=2)
    in_folder(folder, CORRECTED)
    return folder


@pytest.fixture
def finished(trained, tmp_path, monkeypatch):
    """The folder of a finished PLAIN, to be damaged; CORRECTED is not there."""
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "copy"))
    return Path(shutil.copytree(trained / PLAIN.run_id, store.folder(PLAIN)))


def stop_after(monkeypatch, epoch):
    """Make training raise after `epoch` epochs, once."""
    train = in_memory.train_in_turns

    def stopping(*args):
        for done in train(*args):
            if done and done.number > epoch:
                monkeypatch.setattr(in_memory, "train_in_turns", train)
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(in_memory, "train_in_turns", stopping)


@pytest.fixture
def unfinished(trained, tmp_path, monkeypatch):
    """The folder of PLAIN, interrupted after epoch 3, with the checkpoint of that epoch."""
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "stopped"))
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        runs.get(PLAIN, quiet=True, checkpoint_seconds=0, keep_state_at=2)
    return store.folder(PLAIN)


# --- found again


def test_a_finished_run_is_found_and_nothing_of_it_is_written_again(finished, monkeypatch):
    trainings = counted(monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert runs.get(PLAIN).folder == finished
    assert runs.get(PLAIN, keep_state_at=3).folder == finished
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert not trainings
    runs.get(PLAIN.replace(epochs=1), quiet=True)
    assert len(trainings) == 1


def test_a_run_that_was_never_asked_for_is_not_found():
    assert runs.find(PLAIN) is None


def test_a_finished_run_keeps_no_checkpoint_and_no_temporary_file(trained):
    assert not list(trained.rglob("*checkpoint*"))
    assert not [path for run in trained.glob("digits-*") for path in run.rglob(".*")]


def test_done_json_covers_every_other_file(finished):
    known = json.loads((finished / "done.json").read_text())["sha256"]
    assert set(known) == {path.as_posix() for path in contents(finished)} - {"done.json"}
    assert "state-002.safetensors" in known


def test_the_tables_have_a_row_per_epoch_and_network_and_a_row_per_example(trained):
    run = in_folder(trained, CORRECTED)
    assert list(run.of("network").index) == list(run.of("momentum").index) == [1, 2, 3, 4]
    assert run.final("momentum").equals(run.of("momentum").loc[4])
    assert list(run.of("momentum")["sigma"]) == [1.0, 1.0, 0.0, 0.0]
    assert list(run.examples["index"]) == list(range(len(run.data.train)))
    assert (run.examples["given"].to_numpy() == run.data.train.given.numpy()).all()


def test_the_saved_weights_give_the_last_row_of_the_history_again(trained):
    run = in_folder(trained, CORRECTED)
    for weights in ("network", "momentum"):
        afresh = measure(run.network(weights), run.data)
        assert afresh == {name: run.final(weights)[name] for name in afresh}


def test_corrections_are_kept_for_every_corrected_epoch_and_rebuild_the_final_target(trained):
    run = in_folder(trained, CORRECTED)
    assert run.corrected_epochs == [3, 4]
    last = run.correction(4)
    given = torch.eye(10)[run.data.train.given]
    target = corrected_targets(given, last.predictions, last.w)
    on_given = (target * given).sum(dim=1).numpy()
    np.testing.assert_allclose(run.examples["target_on_given"], on_given, atol=1e-6)


# --- the same numbers, however it came about


def test_a_forked_run_equals_one_trained_from_scratch(trained, tmp_path):
    scratch = in_folder(tmp_path / "scratch", CORRECTED)
    assert [path.name for path in (tmp_path / "scratch").glob("digits-*")] == [CORRECTED.run_id]
    assert numbers(in_folder(trained, CORRECTED)) == numbers(scratch)


def test_forking_trains_only_the_epochs_after_the_correction_epoch(finished, monkeypatch):
    epochs, train_epoch = [], sys.modules["sln.train"].train_epoch
    record = lambda *args, **options: epochs.append(args[3]) or train_epoch(*args, **options)  # noqa: E731
    monkeypatch.setattr("sln.train.train_epoch", record)
    before = contents(finished)
    runs.get(CORRECTED, quiet=True)
    assert epochs == [3, 4]
    assert contents(finished) == before


def test_a_run_without_its_parents_state_is_trained_from_the_start(finished, trained):
    (finished / "state-002.safetensors").unlink()
    run = runs.get(CORRECTED, quiet=True)
    assert numbers(run) == numbers(in_folder(trained, CORRECTED))


def test_a_resumed_run_equals_an_uninterrupted_one(unfinished, trained, monkeypatch):
    assert (unfinished / "checkpoint.safetensors").exists()
    run = runs.get(PLAIN, quiet=True)
    assert numbers(run) == numbers(in_folder(trained, PLAIN))
    assert (unfinished / "state-002.safetensors").read_bytes() == (
        trained / PLAIN.run_id / "state-002.safetensors"
    ).read_bytes()
    assert not (unfinished / "checkpoint.safetensors").exists()


KEPT = PLAIN.replace(keep_weights_every=1)


@pytest.mark.parametrize("seconds", [0, 1e9], ids=["from a checkpoint", "from the start"])
def test_weights_on_the_way_are_those_of_shorter_runs_also_in_a_resumed_run(
    seconds, trained, tmp_path, monkeypatch, refused
):
    whole = in_folder(tmp_path / "whole", KEPT)
    assert whole.kept_epochs == [1, 2, 3, 4]
    assert numbers(whole) == numbers(in_folder(trained, PLAIN))
    for epoch in whole.kept_epochs:
        shorter = in_folder(tmp_path / "shorter", PLAIN.replace(epochs=epoch))
        for weights in ("network", "momentum"):
            found, last = (run.network(weights, epoch).state_dict() for run in (whole, shorter))
            assert all(torch.equal(found[name], last[name]) for name in last)
    with refused("weights-005.safetensors is missing"):
        whole.network(epoch=5)
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        runs.get(KEPT, quiet=True, checkpoint_seconds=seconds)
    resumed = runs.get(KEPT, quiet=True)
    files = sorted(path.name for path in whole.folder.glob("weights*"))
    assert len(files) == 4
    assert files == sorted(path.name for path in resumed.folder.glob("weights*"))
    assert all((whole.folder / n).read_bytes() == (resumed.folder / n).read_bytes() for n in files)
    assert set(files) < set(json.loads((resumed.folder / "done.json").read_text())["sha256"])


def test_a_corrected_run_keeps_the_weights_after_its_correction_epoch_forked_or_not(tmp_path):
    config = KEPT.replace(correction=2)
    scratch = in_folder(tmp_path / "scratch", config)
    in_folder(tmp_path / "forked", config.uncorrected, keep_state_at=2)
    forked = in_folder(tmp_path / "forked", config)
    assert scratch.kept_epochs == forked.kept_epochs == [3, 4]
    ours, theirs = (run.network("momentum", 3).state_dict() for run in (scratch, forked))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


CHILD = """
import json, os, sys
from sln import runs
from sln.runs import in_memory
from sln.config import Config
train = in_memory.train_in_turns
in_memory.train_in_turns = lambda *args: print("trains", flush=True) or train(*args)
print("ready", flush=True)
for line in sys.stdin:
    os.environ["SLN_RUNS"], config = json.loads(line)
    runs.get(Config.from_dict(config), quiet=True, checkpoint_seconds=0)
    print("finished", flush=True)
"""


@pytest.fixture(scope="module")
def children():
    """Two processes that train what `ask` writes to them: the imports cost seconds, so tests share them."""
    pipes = {"text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    both = [subprocess.Popen([sys.executable, "-c", CHILD], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n", "ready\n"]
    yield both
    for process in both:
        process.kill()
        process.communicate()


def ask(process, folder, config):
    process.stdin.write(json.dumps([str(folder), config.to_dict()]) + "\n")
    process.stdin.flush()


def answer(process):
    """The lines of the process up to `finished`, or up to its end."""
    lines = [process.stdout.readline()]
    while lines[-1] not in ("finished\n", ""):
        lines.append(process.stdout.readline())
    return lines


def kill_at(process, checkpoint, epoch):
    """SIGKILL as soon as the checkpoint holds `epoch` finished epochs or more; returns how many it holds."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if checkpoint.exists() and int(store.read_tensors(checkpoint)["epoch"]) >= epoch:
            break
        time.sleep(0.002)
    process.kill()
    process.wait()
    return int(store.read_tensors(checkpoint)["epoch"])


def test_two_processes_that_ask_for_the_same_run_train_it_once(children, tmp_path):
    for process in children:
        ask(process, tmp_path, PLAIN)
    assert sorted(answer(process) for process in children) == [["finished\n"], ["trains\n", "finished\n"]]


def test_runs_killed_in_the_middle_end_as_if_they_had_never_stopped(children, tmp_path):
    """The second is killed while it corrects. This test comes after all others that need the children."""
    cases = ((LONG, 4, tmp_path / "plain"), (LONG_CORRECTED, 6, tmp_path / "corrected"))
    for process, (config, epoch, folder) in zip(children, cases, strict=True):
        ask(process, folder, config)
        stopped_at = kill_at(process, folder / config.run_id / "checkpoint.safetensors", epoch)
        assert epoch <= stopped_at < config.epochs
        assert not (folder / config.run_id / "done.json").exists()
    for config, _, folder in cases:
        resumed = in_folder(folder, config)
        assert numbers(resumed) == numbers(in_folder(tmp_path / "uninterrupted", config))
        assert not (resumed.folder / "checkpoint.safetensors").exists()


def test_a_run_that_was_stopped_while_it_was_sealed_is_not_lost(unfinished, trained, monkeypatch):
    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "seal", stop)
        with pytest.raises(KeyboardInterrupt):
            runs.get(PLAIN, quiet=True, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr("sln.train.train_epoch", None)  # not trained again
        run = runs.get(PLAIN, quiet=True)
    assert numbers(run) == numbers(in_folder(trained, PLAIN))
    assert "checkpoint.safetensors" not in (unfinished / "done.json").read_text()
    assert not (unfinished / "checkpoint.safetensors").exists()


# --- damaged runs: refused in one line, and nothing destroyed


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Bomb:
    """Unpickling it creates a file: what a malicious weights file could do, and worse."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def plant_pickle(path, marker):
    torch.save({"network/conv1.weight": torch.zeros(3), "bomb": Bomb(marker)}, path)


DAMAGES = {
    "weights cut short": ("weights.safetensors", truncate),
    "weights that are a pickle": ("weights.safetensors", lambda path: plant_pickle(path, path / "never")),
    "weights missing": ("weights.safetensors", Path.unlink),
    "history cut short": ("history.csv", truncate),
    "examples missing": ("examples.csv", Path.unlink),
    "fork state cut short": ("state-002.safetensors", truncate),
    "config.json missing": ("config.json", Path.unlink),
    "config.json cut short": ("config.json", truncate),
    "done.json cut short": ("done.json", truncate),
    "done.json empty": ("done.json", lambda path: path.write_text("")),
    "done.json no object": ("done.json", lambda path: path.write_text("[]")),
    "done.json without checksums": ("done.json", lambda path: path.write_text("{}")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_finished_run_is_refused_by_name_and_left_as_it_is(damage, finished, refused):
    name, harm = DAMAGES[damage]
    harm(finished / name)
    before = contents(finished)
    for ask in (lambda: runs.find(PLAIN), lambda: runs.get(PLAIN), lambda: runs.by_name(PLAIN.run_id)):
        with refused(PLAIN.run_id):
            ask()
    assert contents(finished) == before


def test_a_finished_run_is_read_once_per_process_and_again_after_a_change(finished, monkeypatch, refused):
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or read_bytes(path))
    for _ in range(3):
        runs.find(PLAIN)
    assert len(read) == len(set(read)) >= 6
    content = read_bytes(finished / "weights.safetensors")
    (finished / "weights.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with refused("weights.safetensors", "checksum"):
        runs.find(PLAIN)


def test_a_directory_of_another_configuration_is_refused_naming_the_setting_and_both_values(
    finished, refused
):
    other = PLAIN.replace(epochs=3)
    finished.rename(store.folder(other))
    before = contents(runs.runs_folder())
    with refused("epochs is 4 there, 3 was asked for", other.run_id):
        runs.get(other)
    with refused("another configuration", PLAIN.run_id):
        runs.by_name(other.run_id)
    assert contents(runs.runs_folder()) == before


def test_weights_are_never_unpickled_even_when_the_checksum_agrees(finished, tmp_path, refused):
    marker = tmp_path / "marker"
    plant_pickle(finished / "weights.safetensors", marker)
    with open(finished / "weights.safetensors", "rb") as file:  # the bomb works
        torch.load(file, weights_only=False)
    assert marker.exists()
    marker.unlink()
    done = json.loads((finished / "done.json").read_text())
    content = (finished / "weights.safetensors").read_bytes()
    done["sha256"]["weights.safetensors"] = hashlib.sha256(content).hexdigest()
    (finished / "done.json").write_text(json.dumps(done))
    with refused("not a whole safetensors file", str(finished / "weights.safetensors")):
        runs.get(PLAIN).network()
    assert not marker.exists()


def drop_last_rows(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))


UNFINISHED_DAMAGES = {
    "checkpoint cut short": ("checkpoint.safetensors", truncate),
    "checkpoint that is a pickle": (
        "checkpoint.safetensors",
        lambda path: plant_pickle(path, path / "never"),
    ),
    "checkpoint of another network": (
        "checkpoint.safetensors",
        lambda path: store.write_tensors(
            path, {"network/conv1.weight": torch.zeros(3), "epoch": torch.tensor(3)}
        ),
    ),
    "checkpoint of other shapes": (
        "checkpoint.safetensors",
        lambda path: store.write_tensors(
            path, {n: t[..., :1] if t.ndim > 1 else t for n, t in store.read_tensors(path).items()}
        ),
    ),
    "config.json of another configuration": (
        "config.json",
        lambda path: path.write_text(json.dumps(PLAIN.replace(lr=0.5).to_dict())),
    ),
    "history missing": ("history.csv", Path.unlink),
    "history empty": ("history.csv", lambda path: path.write_text("")),
    "history without its last rows": ("history.csv", drop_last_rows),
}


@pytest.mark.parametrize("damage", UNFINISHED_DAMAGES)
def test_a_damaged_unfinished_run_is_refused_by_name_and_left_as_it_is(damage, unfinished, refused):
    name, harm = UNFINISHED_DAMAGES[damage]
    harm(unfinished / name)
    before = contents(unfinished)
    with refused(PLAIN.run_id):
        runs.get(PLAIN, quiet=True)
    assert contents(unfinished) == before


@pytest.mark.parametrize("damage", ["state cut short", "history missing", "history without its last rows"])
def test_a_fork_from_a_damaged_parent_is_refused_naming_the_parent(damage, finished, refused):
    name, harm = {
        "state cut short": ("state-002.safetensors", truncate),
        "history missing": ("history.csv", Path.unlink),
        "history without its last rows": (
            "history.csv",
            lambda path: [drop_last_rows(path) for _ in range(3)],
        ),
    }[damage]
    harm(finished / name)
    before = contents(finished)
    with refused(PLAIN.run_id):
        runs.get(CORRECTED, quiet=True)
    assert contents(finished) == before


# --- a disk that cannot be written


def no_space(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_stops_training_in_one_line_and_loses_nothing(unfinished, trained, monkeypatch, refused):
    before = contents(unfinished)
    for target, name in (
        (Path, "write_bytes"),
        (Path, "write_text"),
        (files.os, "replace"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, no_space)
            with refused("No space left on device", str(unfinished)):
                runs.get(PLAIN, quiet=True)
        after = contents(unfinished)
        assert after.keys() - before.keys() <= {Path("examples.csv")}  # whole files of the end, at most
        assert (unfinished / "checkpoint.safetensors").read_bytes() == before[Path("checkpoint.safetensors")]
    assert numbers(runs.get(PLAIN, quiet=True)) == numbers(in_folder(trained, PLAIN))


def test_a_runs_folder_that_cannot_be_written_is_one_line_with_what_to_set(tmp_path, monkeypatch, refused):
    (tmp_path / "a file").write_text("kept")
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "a file" / "runs"))
    with refused("SLN_RUNS", str(tmp_path / "a file" / "runs")):
        runs.get(PLAIN, quiet=True)
    assert (tmp_path / "a file").read_text() == "kept"


# --- listing, showing, removing


def test_the_listing_shows_finished_and_unfinished_runs_and_nothing_else(unfinished, trained):
    assert list(runs.listing()["state"]) == ["epoch 3"]
    shutil.copytree(trained / CORRECTED.run_id, store.folder(CORRECTED))
    (runs.runs_folder() / "no run").mkdir()
    (runs.runs_folder() / ".removed-something").mkdir()
    (runs.runs_folder() / ".removed-something" / "config.json").write_text("{}")
    table = runs.listing().set_index("run")
    assert dict(table["state"]) == {PLAIN.run_id: "epoch 3", CORRECTED.run_id: "done"}
    assert dict(table["epochs"]) == {PLAIN.run_id: 4, CORRECTED.run_id: 4}
    run = runs.get(CORRECTED)
    assert table["momentum"][CORRECTED.run_id] == run.final("momentum")["test_accuracy"]
    assert table["network"][CORRECTED.run_id] == run.final("network")["test_accuracy"]


def test_a_run_that_has_just_begun_is_listed_as_unfinished(unfinished):
    for name in ("history.csv", "checkpoint.safetensors", "state-002.safetensors"):
        (unfinished / name).unlink()
    assert list(runs.listing()["state"]) == ["unfinished"]


@pytest.mark.parametrize("name", ["config.json", "history.csv"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe", b"a,b\n1,2,3\n", b"epoch,weights,test_accuracy\nx,network,y\n", None],
)
def test_the_listing_names_a_damaged_run_and_shows_the_others(name, content, finished, trained):
    shutil.copytree(trained / CORRECTED.run_id, store.folder(CORRECTED))
    (finished / name).unlink()
    (finished / name).mkdir() if content is None else (finished / name).write_bytes(content)
    damaged = []
    table = runs.listing(on_damaged=damaged.append)
    assert list(table["run"]) == [CORRECTED.run_id]
    (said,) = map(str, damaged)
    assert said.startswith(f"{finished / name} is damaged: ")
    assert f"runs remove {PLAIN.run_id}`" in said
    assert "\n" not in said
    runs.remove(PLAIN.run_id)
    assert len(runs.listing(on_damaged=damaged.append)) == len(damaged) == 1


def test_a_run_that_is_being_trained_is_listed_though_its_temporary_files_vanish(unfinished, monkeypatch):
    (unfinished / ".history-x.csv").symlink_to("gone")
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: path.is_symlink() or is_file(path))
    damaged = []
    assert list(runs.listing(on_damaged=damaged.append)["state"]) == ["epoch 3"]
    assert damaged == []


def test_a_run_that_may_not_be_read_is_named(finished, monkeypatch):
    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    damaged = []
    monkeypatch.setattr(Path, "exists", denied)
    assert len(runs.listing(on_damaged=damaged.append)) == 0
    assert [str(error).startswith(f"{finished} is damaged: ") for error in damaged] == [True]


def test_a_run_is_found_by_its_name_and_an_unfinished_one_refused(unfinished, trained, refused):
    shutil.copytree(trained / CORRECTED.run_id, store.folder(CORRECTED))
    assert runs.by_name(CORRECTED.run_id).config == CORRECTED
    with refused("unfinished", PLAIN.run_id):
        runs.by_name(PLAIN.run_id)


@pytest.mark.parametrize("name", ["../precious", "precious", "..", ".", "", "/precious", "a/../../precious"])
@pytest.mark.parametrize("ask", [runs.by_name, runs.remove])
def test_only_names_of_runs_are_accepted_and_nothing_outside_the_folder_is_touched(
    name, ask, finished, refused
):
    outside = finished.parent.parent
    (outside / "precious").mkdir()
    for folder in (outside, outside / "precious"):
        (folder / "config.json").write_text((finished / "config.json").read_text())
    before = contents(outside)
    with refused(repr(name)):
        ask(name)
    assert contents(outside) == before


def test_removing_takes_the_named_run_and_only_that(finished, trained):
    shutil.copytree(trained / CORRECTED.run_id, store.folder(CORRECTED))
    before = contents(finished)
    runs.remove(CORRECTED.run_id)
    assert contents(finished) == before
    assert [path.name for path in runs.runs_folder().iterdir() if path.name != ".locks"] == [PLAIN.run_id]
    assert runs.find(CORRECTED) is None


def test_a_damaged_run_can_be_removed_and_trained_again(finished, trained):
    truncate(finished / "weights.safetensors")
    runs.remove(PLAIN.run_id)
    assert numbers(runs.get(PLAIN, quiet=True)) == numbers(in_folder(trained, PLAIN))


def test_a_removal_that_was_interrupted_does_not_prevent_the_next(finished, trained, monkeypatch):
    unlink = os.unlink

    def interrupted(name, **options):
        if str(name).endswith("history.csv"):
            raise KeyboardInterrupt
        unlink(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.remove(PLAIN.run_id)
    assert runs.find(PLAIN) is None
    shutil.copytree(trained / PLAIN.run_id, store.folder(PLAIN))
    runs.remove(PLAIN.run_id)
    assert runs.find(PLAIN) is None


def test_corrections_of_two_kinds_read_back_as_rows_that_sum_to_one(trained, tmp_path):
    soft = in_folder(tmp_path / "soft", CORRECTED.replace(epochs=3, soft_correction=True))
    for run in (in_folder(trained, CORRECTED), soft):
        for correction in map(run.correction, run.corrected_epochs):
            assert correction.predictions.shape == (len(run.data.train), 10)
            torch.testing.assert_close(correction.predictions.sum(dim=1), torch.ones(len(run.data.train)))
    assert (soft.correction(3).predictions.amax(dim=1) < 1).any()
