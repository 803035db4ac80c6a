"""Several processes against one: the same numbers, one line for an error, and no process that waits forever.

This file is also the program that torchrun starts, see `program`.
"""

import faulthandler
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
from clothing1m_miniature import SMALL, Tiny, in_folder, interrupted, numbers
from hypothesis import given
from hypothesis import strategies as st

from sln import runs
from sln.cli import main
from sln.datasets import clothing1m as data_set
from sln.runs import clothing1m, store
from sln.utils import distributed
from sln.utils.devices import torchvision

# 14 images an epoch: batches of 13, that is 7 and 6, and of 1, that is 1 and none
UNEVEN = SMALL.replace(batch_size=13)
# batches of 5, that is 3 and 2, and of 4
PLAIN = SMALL.replace(epochs=3)
COMMAND = ["train", "--dataset", "clothing1m", "--model", "resnet18", "--no-pretrained", "--epochs", "1",
           "--batch-size", "28", "--threads", "1", "--num-per-class"]  # fmt: skip


class Normless(Tiny):
    """Without BatchNorm, whose statistics are those of a process's part."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.bn1 = torch.nn.Identity()


# --- what the processes run ---------------------------------------------------------------------------------


def tools(rank):
    """What the functions of `distributed` return to this process."""
    with distributed.group(), distributed.group():  # the inner one does nothing
        parts = [torch.arange(3), torch.zeros(0)] if rank == 0 else [torch.arange(2) + 3, torch.ones(2)]
        named = {"a": torch.full((2, 2), 5.0 + rank).t(), "b": torch.tensor(rank + 7)}
        return {
            "rank": [distributed.rank(), distributed.world_size(), distributed.is_main()],
            "shares": [list(range(5))[distributed.share(5)], list(range(1))[distributed.share(1)]],
            "gathered": [distributed.gather(part).tolist() for part in parts],
            "empty rows": list(distributed.gather(torch.zeros(0, 4)).shape),
            "total": distributed.total(torch.tensor(1.5 + rank)),
            "broadcast": {name: value.tolist() for name, value in distributed.broadcast(named).items()},
        }


def final_state(config):
    """Train `config`; returns the tensors of this process's state at the end."""
    trainers, start = [], clothing1m.Trainer.__init__

    def kept(trainer, *args, **options):
        trainers.append(trainer)
        start(trainer, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clothing1m.Trainer, "__init__", kept)
        in_folder(os.environ["SLN_RUNS"], config)
    return trainers[0].state.tensors()


def digest(tensors):
    """A checksum of this process's tensors."""
    found = hashlib.sha256()
    for name, value in tensors.items():
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def program():
    """One process of several: leaves its findings in rank<r>.json, then fails."""
    faulthandler.dump_traceback_later(100, exit=True)  # no process of ours stays, whatever happens
    folder, rank = Path(os.environ["SLN_TEST"]), int(os.environ["RANK"])
    data_set.RESIZE, data_set.CROP = 40, 32
    torch.set_num_threads(1)
    meetings = itertools.count()

    # processes that meet in a file: torch's own meeting point listens to the whole network
    def meet(url, timeout):
        yield torch.distributed.FileStore(str(folder / f"meeting-{next(meetings)}"), 2), rank, 2

    torch.distributed.rendezvous = meet
    found = {"tools": tools(rank)}
    torchvision().models.resnet18 = Normless
    final = final_state(UNEVEN)
    if rank == 0:
        store.write_tensors(folder / "final.safetensors", final)
    torchvision().models.resnet18 = Tiny
    found["state"] = digest(final_state(PLAIN))
    interrupted(folder / "stopped", PLAIN, at=4 + 2)
    time.sleep(0.2)
    torch.distributed.destroy_process_group()  # as the end of the process does
    in_folder(folder / "stopped", PLAIN)
    found["command"] = main([*COMMAND, "1"])
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    if rank == 1:  # row 27 is in this process's part of the only batch
        miniature.spoil(folder / "Clothing1M", missing=[27])
    main([*COMMAND, "-1"])
    (folder / "survived").touch()


# --- the tests ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The folder that two processes have left, what each found, and how torchrun ended."""
    folder = tmp_path_factory.mktemp("several")
    miniature.make(folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | {
        "SLN_TEST": str(folder), "SLN_DATA": str(folder), "SLN_RUNS": str(folder / "runs"),
        "SLN_DECODERS": "0", "SLN_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }  # fmt: skip
    # on the loopback interface only
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d",
         "--rdzv-endpoint", str(folder / "rendezvous"), "--rdzv-conf", "store_type=file", "--rdzv-id", "test",
         "--local-addr", "localhost", __file__],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    found = [folder / f"rank{rank}.json" for rank in (0, 1)]
    assert all(file.exists() for file in found), ended.stderr
    return folder, [json.loads(file.read_text()) for file in found], ended


def test_two_processes_train_as_one_does_with_the_same_batches(several, tmp_path, monkeypatch):
    folder = several[0]
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    monkeypatch.setenv("SLN_DECODERS", "0")
    monkeypatch.setattr(data_set, "RESIZE", 40)
    monkeypatch.setattr(data_set, "CROP", 32)
    monkeypatch.setattr(torchvision().models, "resnet18", Normless)
    miniature.make(tmp_path)
    alone = final_state(UNEVEN)
    together = store.read_tensors(folder / "final.safetensors")
    start = clothing1m.build(UNEVEN).state_dict()
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6)
    moved = max((alone[f"network/{name}"] - value).abs().max().item() for name, value in start.items())
    assert moved > 1e-3  # a thousand times what is tolerated
    one, two = store.folder(UNEVEN), folder / "runs" / UNEVEN.run_id
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
    folder, (first, second), _ = several
    assert first["state"] == second["state"]
    straight, stopped = (runs.Run(PLAIN, folder / name / PLAIN.run_id) for name in ("runs", "stopped"))
    assert numbers(stopped) == numbers(straight)
    assert len(numbers(straight)) == 4


def test_a_command_shows_its_result_once(several):
    _, found, ended = several
    assert [findings["command"] for findings in found] == [0, 0]
    lines = ended.stdout.splitlines()
    assert [line.split("/")[-1][:22] for line in lines if line.startswith("run:")] == [
        "clothing1m-own-sln0.2-"
    ]
    assert sum(line.startswith("test_accuracy") for line in lines) == 1


def test_an_error_of_one_process_ends_all_and_is_one_line(several):
    folder, _, ended = several
    assert ended.returncode != 0
    assert not (folder / "survived").exists()
    complaints = [line for line in ended.stderr.splitlines() if "sln: " in line]
    assert len(complaints) == 1
    assert "noisy_train.txt, line 28" in complaints[0]
    assert "Traceback" not in ended.stderr.split("sln: ")[0]
    assert "Connection" not in ended.stderr


def test_the_functions_give_every_process_its_part(several):
    _, found, _ = several
    for rank in (0, 1):
        assert found[rank]["tools"] == {
            "rank": [rank, 2, rank == 0],
            "shares": [[[0, 1, 2], [3, 4]][rank], [[0], []][rank]],
            "gathered": [[0, 1, 2, 3, 4], [1.0, 1.0]],
            "empty rows": [0, 4],
            "total": 4.0,
            "broadcast": {"a": [[5.0, 5.0], [5.0, 5.0]], "b": 7},
        }


@given(n=st.integers(0, 200), processes=st.integers(1, 17))
def test_shares_are_the_whole_in_order_and_differ_by_one_at_most(n, processes):
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "world_size", lambda: processes)
        for rank in range(processes):
            patch.setattr(distributed, "rank", lambda rank=rank: rank)
            parts.append(list(range(n))[distributed.share(n)])
    assert list(itertools.chain(*parts)) == list(range(n))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)  # so process 0, whose BatchNorm counts, has something


def test_a_process_alone_has_it_all():
    with distributed.group():
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert not distributed.launched()
    assert list(range(5))[distributed.share(5)] == [0, 1, 2, 3, 4]
    part = torch.rand(3, 2)
    assert torch.equal(distributed.gather(part), part)
    assert distributed.total(torch.tensor(2.5)) == 2.5
    assert distributed.broadcast("mine") == "mine"


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
    program()
