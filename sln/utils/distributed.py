"""Several processes that train one run together, started by torchrun; without it, one process that is alone.

    torchrun --nproc_per_node 4 -m sln train --dataset clothing1m

Every function here also works in a process that is alone, and does nothing but its plain work there.
Process 0 is the main one: it alone writes files, holds locks, and shows progress.
"""  # fmt: skip

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sln.utils import devices, files
from sln.utils.errors import InputError, require

T = TypeVar("T")

# How long processes wait for each other, say for process 0 while another program trains the same run. That a
# process died is noticed at once, by its closed connections.
TIMEOUT = datetime.timedelta(hours=2)
LEAVING = 0.2  # seconds
CPU = torch.device("cpu")


def launched() -> bool:
    """Whether torchrun, or who else sets the same variables, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def is_main() -> bool:
    """Whether this is process 0, or alone; known before `group` and after it, too."""
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
    """The process group that torchrun prepared; nothing where it did not, and inside another `group`.

    Tensors on GPUs go by NCCL; those on the CPU, and all that processes tell each other, by gloo. An
    InputError that all processes have in common (`together`, `on_main`) is process 0's to print; one that
    this process has alone is printed here.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if devices.device().type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    me = rank()
    try:
        yield
    except BaseException as error:
        if isinstance(error, InputError) and not isinstance(error, SharedError) and me != 0:
            print(f"sln: process {me}: {error}", file=sys.stderr, flush=True)
        if backend == "gloo":  # NCCL's end waits for the others, who may wait for this process
            _leave()
        raise
    agree(None)  # nobody leaves before all are done
    _leave()


def _leave() -> None:
    # Gloo's threads need Python's lock to drop the tensors of the last operation, and the group's end waits
    # for these threads while it holds the lock: without time to be done, both would wait without end
    time.sleep(LEAVING)
    dist.destroy_process_group()


def device() -> torch.device:
    """Where this process computes: `devices.device()`, but under torchrun each process has its own GPU.

    Raises InputError when there are fewer GPUs than processes on this machine.
    """
    chosen = devices.device()
    if chosen.type != "cuda" or not launched():
        return chosen
    mine, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    require(
        mine < gpus,
        f"{processes_here()} processes on this machine, but torch sees {gpus} GPUs; "
        f"use --nproc_per_node {gpus}, or SLN_DEVICE=cpu",
    )
    torch.cuda.set_device(mine)
    return torch.device("cuda", mine)


# --- what one has to say to the others ----------------------------------------------------------------------


class SharedError(InputError):
    """An InputError that every process of the group raises at the same place."""


def agree(problem: str | None) -> None:
    """Raise InputError in every process when one has a problem: that of the first that has one.

    Every process calls this at the same place, `problem` is None where all is well. It costs one integer.
    """
    if world_size() == 1:
        require(problem is None, str(problem))
        return
    count = torch.tensor(int(problem is not None))
    dist.all_reduce(count)
    if count > 0:
        raise SharedError(next(told for told in gather_objects(problem) if told is not None))


def together(function: Callable[[], T]) -> T:
    """`function()` of this process, called by every one; an InputError of one is raised by all."""
    result, error = None, None
    try:
        result = function()
    except InputError as raised:
        error = raised
    if world_size() == 1 and error is not None:
        raise error
    agree(None if error is None else str(error))
    return result  # type: ignore[return-value]


def on_main(function: Callable[[], T]) -> T:
    """`function()` of process 0, called there only: its result, or its InputError, in every process."""
    if world_size() == 1:
        return function()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = function()
        except InputError as error:
            box[1] = str(error)
    dist.broadcast_object_list(box, src=0, device=CPU)
    if box[1] is not None:
        raise SharedError(box[1])
    return box[0]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """`files.lock(name)`, held by process 0 for all."""
    with contextlib.ExitStack() as held:
        on_main(lambda: held.enter_context(files.lock(name)))
        yield


def gather_objects(value: Any) -> list:
    """Every process's `value`, by rank."""
    found = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(found, value)
    return found


# --- tensors ------------------------------------------------------------------------------------------------


def share(n: int, of: int | None = None, number: int | None = None) -> slice:
    """This process's contiguous part of n things; the first n mod W of the W processes have one more.

    The parts of all processes, in order of their rank, are the whole. `of` and `number` are W and the rank of
    another process.
    """
    of, number = world_size() if of is None else of, rank() if number is None else number
    size, more = divmod(n, of)
    start = number * size + min(number, more)
    return slice(start, start + size + (number < more))


def gather(part: Tensor) -> Tensor:
    """(sum of n_r, ...): all processes' parts (n_r, ...) in order of rank; on the CPU, in every process."""
    part = part.detach().cpu().contiguous()
    if world_size() == 1:
        return part
    sizes = [torch.tensor(0) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor(len(part)))
    # gloo gathers tensors of one shape only
    padded = part.new_zeros(max(int(n) for n in sizes), *part.shape[1:])
    padded[: len(part)] = part
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return torch.cat([whole[: int(n)] for whole, n in zip(found, sizes, strict=True)])


def total(value: Tensor) -> float:
    """The sum of every process's scalar `value`."""
    value = value.detach().double().cpu()
    if world_size() > 1:
        dist.all_reduce(value)
    return value.item()


def broadcast(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Process 0's named tensors, on the CPU, in every process; what the others pass is not looked at."""
    if world_size() == 1:
        return named
    shapes = on_main(lambda: {name: (tuple(value.shape), value.dtype) for name, value in named.items()})
    received = {}
    for name, (shape, dtype) in shapes.items():
        # copies: one process's buffers may share memory, and must not be written to here
        value = named[name].detach().cpu().clone() if rank() == 0 else torch.empty(shape, dtype=dtype)
        value = value.contiguous()
        dist.broadcast(value, src=0)
        received[name] = value
    return received


@torch.no_grad()
def broadcast_buffers(network: nn.Module) -> None:
    """Give every process process 0's floating-point buffers: BatchNorm's running mean and variance."""
    if world_size() == 1:
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
    dist.broadcast(flat, src=0)
    for buffer, values in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))
