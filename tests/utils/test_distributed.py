"""Several processes against one: the same numbers, the same errors, and nobody waits for ever.

This file is also the program that torchrun starts, see `program`.
"""

import faulthandler
import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import clothing1m_miniature as miniature
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_clothing1m import SMALL, Tiny, numbers

from sln.cli import main
from sln.datasets import clothing1m
from sln.runs import clothing1m_train, store
from sln.utils import distributed
from sln.utils.errors import InputError
from sln.utils.vision import torchvision

# 14 images an epoch: batches of 13, that is 7 and 6, and of 1, that is 1 and none
UNEVEN = SMALL.replace(batch_size=13)
# batches of 5, that is 3 and 2, and of 4
PLAIN = SMALL.replace(epochs=3)


# --- what the processes run ---------------------------------------------------------------------------------


class Stop(BaseException):
    """Ctrl-C."""


def in_folder(name, config, **options):
    """Train below the folder `name` of the test's; returns the run's folder."""
    os.environ["SLN_RUNS"] = str(Path(os.environ["SLN_TEST"]) / name)
    clothing1m_train.train_run(config, quiet=True, **options)
    return store.folder(config)


def said_by(function):
    """The one-line message of the InputError that `function` raises, and whether all processes raise it."""
    try:
        function()
    except InputError as error:
        return [str(error), isinstance(error, distributed.SharedError)]
    return None


def tools(rank):
    """What the functions of `distributed` return to this process."""

    def only(guilty):
        if rank == guilty:
            raise InputError(f"{rank} is wrong")
        return f"{rank} is right"

    with distributed.group(), distributed.group():  # the inner one does nothing
        box = [torch.arange(3), torch.zeros(0)] if rank == 0 else [torch.arange(2) + 3, torch.ones(2)]
        module = torch.nn.BatchNorm1d(2)
        module.running_mean += rank + 1
        module.running_var += rank
        distributed.broadcast_buffers(module)
        named = {"a": torch.full((2, 2), 5.0 + rank).t(), "b": torch.tensor(rank + 7)}
        with distributed.lock("a run"):
            held = distributed.on_main(lambda: rank)
        return {
            "rank": [distributed.rank(), distributed.world_size(), distributed.is_main()],
            "gathered": [distributed.gather(part).tolist() for part in box],
            "empty rows": list(distributed.gather(torch.zeros(0, 4)).shape),
            "objects": distributed.gather_objects({"rank": rank}),
            "total": distributed.total(torch.tensor(1.5 + rank)),
            "broadcast": {name: value.tolist() for name, value in distributed.broadcast(named).items()},
            "buffers": [module.running_mean.tolist(), module.running_var.tolist()],
            "on main": held,
            "wrong on main": said_by(lambda: distributed.on_main(lambda: only(0))),
            "together": distributed.together(lambda: only(5)),
            "one is wrong": said_by(lambda: distributed.together(lambda: only(1))),
            "all are wrong": said_by(lambda: distributed.agree(f"{rank} is wrong")),
            "still in step": distributed.gather_objects(rank),
        }


def final_state(name, config, **options):
    """Train `config`; returns the tensors of this process's state at the end."""
    states = []

    class Kept(clothing1m_train.State):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            states.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clothing1m_train, "State", Kept)
        in_folder(name, config, **options)
    return states[0].tensors()


def digests(tensors):
    """A checksum of every process's tensors."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(name.encode() + value.numpy().tobytes())
    return distributed.gather_objects(digest.hexdigest())


def interrupted(name, config, at):
    """Train until `at` batches were counted, then stop in all processes, as Ctrl-C does."""
    counted, advance = 0, clothing1m_train.Progress.advance

    def count(self, **facts):
        nonlocal counted
        counted += 1
        if counted == at:
            raise Stop
        advance(self, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clothing1m_train.Progress, "advance", count)
        try:
            in_folder(name, config)
        except Stop:
            return counted
    return None


def everything(rank):
    """All that one start of the processes shows, by name."""
    found = {"tools": tools(rank)}
    final = final_state("several", UNEVEN, frozen_batchnorm=True)
    if rank == 0:
        store.write_tensors(Path(os.environ["SLN_TEST"]) / "final.safetensors", final)
    torchvision().models.resnet18 = Tiny
    with distributed.group():
        found["same everywhere"] = digests(final_state("straight", PLAIN))
    found["interrupted"] = interrupted("stopped", PLAIN, at=5 + 2)
    in_folder("stopped", PLAIN)
    command = ["train", "--dataset", "clothing1m", "--model", "resnet18", "--no-pretrained", "--epochs", "1",
               "--batch-size", "28", "--threads", "1"]  # fmt: skip
    found["command"] = main([*command, "--num-per-class", "1"])
    data = clothing1m.read()
    with distributed.group():
        good = clothing1m.without_bad_images(data, Path(os.environ["SLN_TEST"]) / "scan", quiet=True)
    with distributed.group():
        distributed.on_main(lambda: miniature.spoil(data.root, missing=[27]))
    everyone = PLAIN.replace(num_per_class=-1, batch_size=28)
    # row 27 is in one process's part of the only batch
    found["bad image"] = said_by(lambda: in_folder("bad", everyone))
    found["refused command"] = main([*command, "--num-per-class", "-1"])
    with distributed.group():
        found["scan"] = [good.bad, clothing1m.scan(data, quiet=True)]
    return found


def program(what):
    """One process of several: leaves its findings in rank<r>.json."""
    faulthandler.dump_traceback_later(100, exit=True)  # no process of ours stays, whatever happens
    folder, rank = Path(os.environ["SLN_TEST"]), int(os.environ["RANK"])
    clothing1m.RESIZE, clothing1m.CROP = 40, 32
    torch.set_num_threads(1)
    start, meetings = torch.distributed.init_process_group, iter(range(100))

    # processes that meet in a file: torch's own meeting point listens to the whole network
    def meet(backend, timeout):
        meeting = torch.distributed.FileStore(str(folder / f"meeting-{next(meetings)}"), 2)
        start(backend, timeout=timeout, store=meeting, rank=rank, world_size=2)

    torch.distributed.init_process_group = meet
    if what == "everything":
        (folder / f"rank{rank}.json").write_text(json.dumps(everything(rank)))
    if what == "alone in trouble":

        def fail(*args):
            raise RuntimeError("the disk is on fire")

        store.write_history = fail
        torchvision().models.resnet18 = Tiny
        in_folder("failing", PLAIN)


# --- the tests ----------------------------------------------------------------------------------------------


def torchrun(folder, what):
    """Two processes of `program(what)`, by torchrun, on the loopback interface only."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | {
        "SLN_TEST": str(folder), "SLN_DATA": str(folder), "SLN_DECODERS": "0", "SLN_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d",
         "--rdzv-endpoint", str(folder / "rendezvous"), "--rdzv-conf", "store_type=file", "--rdzv-id", "test",
         "--local-addr", "localhost", __file__, what],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The folder that two processes have left, and what each found."""
    folder = tmp_path_factory.mktemp("several")
    miniature.make(folder)
    ended = torchrun(folder, "everything")
    assert ended.returncode == 0, ended.stderr
    (folder / "stdout").write_text(ended.stdout)
    (folder / "stderr").write_text(ended.stderr)
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_train_as_one_does_with_the_same_batches(several, tmp_path, monkeypatch):
    folder, _ = several
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    monkeypatch.setenv("SLN_DECODERS", "0")
    monkeypatch.setattr(clothing1m, "RESIZE", 40)
    monkeypatch.setattr(clothing1m, "CROP", 32)
    miniature.make(tmp_path)
    monkeypatch.setenv("SLN_TEST", str(tmp_path))
    monkeypatch.setenv("SLN_RUNS", "")  # `in_folder` sets it
    alone = final_state("one", UNEVEN, frozen_batchnorm=True)
    together = store.read_tensors(folder / "final.safetensors")
    start = clothing1m_train.build(UNEVEN).state_dict()
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6)
    moved = max((alone[f"network/{name}"] - value).abs().max().item() for name, value in start.items())
    assert moved > 1e-3  # a thousand times what is tolerated
    one, two = store.folder(UNEVEN), folder / "several" / UNEVEN.run_id
    with (
        np.load(one / "corrections" / "002.npz") as expected,
        np.load(two / "corrections" / "002.npz") as found,
    ):
        assert found["index"].tolist() == expected["index"].tolist()
        assert found["w"] == pytest.approx(expected["w"], abs=1e-4)
        assert found["predictions"] == pytest.approx(expected["predictions"], abs=1e-4)
        assert np.ptp(expected["w"]) == 1
    for column in ("objective", "test_loss", "test_accuracy", "validation_accuracy"):
        histories = [store.read_history(path)[column].tolist() for path in (one, two)]
        assert histories[1] == pytest.approx(histories[0], rel=1e-4)
    processes = [json.loads((path / "versions.json").read_text())["processes"] for path in (one, two)]
    assert processes == ["1", "2"]


def test_all_processes_end_with_the_same_state_and_a_resumed_run_too(several):
    folder, found = several
    for rank in (0, 1):
        digests = found[rank]["same everywhere"]
        assert len(digests) == 2
        assert len(set(digests)) == 1
        assert found[rank]["interrupted"] == 7
    straight, stopped = (numbers(folder / name / PLAIN.run_id) for name in ("straight", "stopped"))
    assert stopped == straight
    assert len(straight) == 4


def test_a_bad_image_of_one_process_is_an_error_of_all(several):
    _, (first, second) = several
    assert first["bad image"] == second["bad image"]
    message, shared = first["bad image"]
    assert shared
    assert "noisy_train.txt, line 28" in message
    assert first["scan"] == second["scan"] == [[], [[27, "it is missing"]]]


def test_the_command_line_says_everything_once(several):
    folder, found = several
    assert [findings["command"] for findings in found] == [0, 0]
    assert [findings["refused command"] for findings in found] == [2, 2]
    told = (folder / "stdout").read_text().splitlines()
    assert [line.split("/")[-1][:22] for line in told if line.startswith("run:")] == [
        "clothing1m-own-sln0.2-"
    ]
    assert sum(line.startswith("test_accuracy") for line in told) == 1
    complaints = [line for line in (folder / "stderr").read_text().splitlines() if "sln: " in line]
    assert len(complaints) == 1
    assert "noisy_train.txt, line 28" in complaints[0]


def test_processes_tell_each_other_what_they_should(several):
    _, found = several
    for rank in (0, 1):
        assert found[rank]["tools"] == {
            "rank": [rank, 2, rank == 0],
            "gathered": [[0, 1, 2, 3, 4], [1.0, 1.0]],
            "empty rows": [0, 4],
            "objects": [{"rank": 0}, {"rank": 1}],
            "total": 4.0,
            "broadcast": {"a": [[5.0, 5.0], [5.0, 5.0]], "b": 7},
            "buffers": [[1.0, 1.0], [1.0, 1.0]],
            "on main": 0,
            "wrong on main": ["0 is wrong", True],
            "together": f"{rank} is right",
            "one is wrong": ["1 is wrong", True],
            "all are wrong": ["0 is wrong", True],
            "still in step": [0, 1],
        }


def test_nobody_waits_for_a_process_that_failed(tmp_path):
    miniature.make(tmp_path)
    start = time.monotonic()
    ended = torchrun(tmp_path, "alone in trouble")
    assert time.monotonic() - start < 60
    assert ended.returncode != 0
    assert "the disk is on fire" in ended.stderr


@given(n=st.integers(0, 200), processes=st.integers(1, 17))
def test_shares_are_the_whole_in_order_and_differ_by_one_at_most(n, processes):
    parts = [list(range(n))[distributed.share(n, processes, number)] for number in range(processes)]
    assert list(itertools.chain(*parts)) == list(range(n))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)  # so process 0, whose BatchNorm counts, has something


def test_a_process_alone_has_it_all(refused):
    with distributed.group():
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert not distributed.launched()
    assert list(range(5))[distributed.share(5)] == [0, 1, 2, 3, 4]
    part, wrong = torch.rand(3, 2), functools.partial(distributed.agree, "all is wrong")
    assert torch.equal(distributed.gather(part), part)
    assert distributed.total(torch.tensor(2.5)) == 2.5
    assert distributed.gather_objects("me") == ["me"]
    assert distributed.on_main(lambda: 3) == distributed.together(lambda: 3) == 3
    distributed.agree(None)
    for function in (wrong, lambda: distributed.on_main(wrong), lambda: distributed.together(wrong)):
        with refused("all is wrong"):
            function()


def test_each_process_has_its_own_gpu(monkeypatch, refused):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
                        "MASTER_ADDR": "localhost", "SLN_DEVICE": "cuda"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert not distributed.is_main()
    assert distributed.device() == torch.device("cuda", 1)
    assert chosen == [1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with refused("2 processes on this machine", "1 GPUs", "--nproc_per_node 1"):
        distributed.device()
    monkeypatch.setenv("SLN_DEVICE", "cpu")
    assert distributed.device() == torch.device("cpu")


if __name__ == "__main__":
    program(sys.argv[1])
