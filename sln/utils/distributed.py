"""Several processes train one run together, started by torchrun. Without torchrun a process is alone.

    torchrun --nproc_per_node 4 -m sln train --dataset clothing1m

In a process that is alone, every function here does its plain work. Process 0 is the main one: it alone reads
and writes the run's folder and shows progress. An error of one process ends all of them.
"""  # fmt: skip

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sln.utils import devices
from sln.utils.errors import InputError, require

T = TypeVar("T")

# How long processes wait for each other, for example for process 0 while another program trains the same run.
# The end of a process is noticed at once, by its closed connections.
TIMEOUT = datetime.timedelta(hours=2)


def launched() -> bool:
    """Whether torchrun, or a program that sets the same variables, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def is_main() -> bool:
    """Whether this is process 0, or alone; also before and after `group`."""
    return not launched() or os.environ["RANK"] == "0"


def rank() -> int:
    """This process's number in the group; 0 outside one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Processes in the group; 1 outside one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def processes_here() -> int:
    """Processes of the group on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1


@contextlib.contextmanager
def group() -> Iterator[None]:
    """The process group that torchrun prepared; nothing without torchrun, and inside another `group`.

    Tensors on GPUs go by NCCL, everything else by gloo. The first process that fails reports its error: an
    InputError in one line, with exit code 2. The others fail because it is gone, and exit without a word.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    store, number, processes = next(dist.rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if devices.device().type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=processes, timeout=TIMEOUT)
    try:
        yield
    except BaseException as error:
        first, bad_input = store.add("sln failures", 1) == 1, isinstance(error, InputError)
        if first and bad_input:
            print(f"sln: {error}", file=sys.stderr, flush=True)
        if bad_input or not first:
            raise SystemExit(2) from None
        raise
    broadcast(None)  # process 0 is done
    # Gloo's threads need Python's lock to drop the tensors of the last operation, and the end of the group
    # waits for these threads while it holds the lock
    time.sleep(0.2)
    dist.destroy_process_group()


def device() -> torch.device:
    """`devices.device()`; under torchrun each process has its own GPU, InputError if there are too few."""
    chosen = devices.device()
    if chosen.type != "cuda" or not launched():
        return chosen
    mine, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    counts = f"{processes_here()} processes on this machine, but torch sees {gpus} GPUs"
    require(mine < gpus, f"{counts}; use --nproc_per_node {gpus}, or SLN_DEVICE=cpu")
    torch.cuda.set_device(mine)
    return torch.device("cuda", mine)


def share(n: int) -> slice:
    """This process's part of n things, in order of rank; the first n mod W of W processes have one more."""
    size, more = divmod(n, world_size())
    start = rank() * size + min(rank(), more)
    return slice(start, start + size + (rank() < more))


def broadcast(value: T) -> T:
    """Process 0's `value` in every process. Values are pickled; tensors must be on the CPU."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gather(part: Tensor) -> Tensor:
    """(sum of n_r, ...): the parts (n_r, ...) of all processes in order of rank; on the CPU, everywhere."""
    parts = [part.detach().cpu()] * world_size()
    if world_size() > 1:
        dist.all_gather_object(parts, parts[0])
    return torch.cat(parts)


def total(value: Tensor) -> float:
    """The sum of the scalar `value` over all processes."""
    value = value.detach().double().cpu()
    if world_size() > 1:
        dist.all_reduce(value)
    return value.item()
