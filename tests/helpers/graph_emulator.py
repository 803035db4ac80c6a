"""CUDA graphs, streams and events on the CPU: what a GPU would capture, replay and launch, on which stream.

A capture runs its operations to record them with their tensors, undoes what they wrote, and leaves NaN in
what they made. A replay computes them again into the same tensors. Refused inside a capture, as by CUDA:
random draws, values and shapes that the CPU would have to wait for, copies from the CPU.
"""

import contextlib
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sln import fast
from sln.utils import graphs

REFUSED = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Event(NamedTuple):
    """what : launch, recorded, capture, captured, replay, wait, query, synchronize, or a test's own word"""

    what: str
    stream: "Stream"  # the current one
    about: object = None


@dataclass(eq=False)
class Stream:
    gpu: "EmulatedGPU" = field(repr=False)
    name: str

    def wait_stream(self, other):
        self.gpu.note("wait", (self.name, other.name))


class EmulatedGPU(TorchDispatchMode):
    """The current stream, and all that has happened.

    events : in their order; launches are operations outside of captures and replays
    made : streams that were asked for, the default one not among them
    """

    def __init__(self):
        super().__init__()
        self.events, self.made, self.capturing, self.silent = [], [], None, False
        self.default = self.current = Stream(self, "default")

    @classmethod
    def ignore_compile_internals(cls):
        return True  # torch.compile goes on inside this mode

    def note(self, what, about=None):
        self.events.append(Event(what, self.current, about))

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if self.capturing is not None:
            self.note("recorded", operation)
            return self.capturing.record(operation, args, kwargs or {})
        if not self.silent:
            self.note("launch", operation)
        return operation(*args, **kwargs or {})

    def new_stream(self, device=None):
        self.made.append(Stream(self, f"stream {len(self.made)}"))
        return self.made[-1]

    @contextlib.contextmanager
    def on(self, stream):
        """torch.cuda.stream; None is the current one."""
        before, self.current = self.current, stream or self.current
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def capture(self, graph, pool, stream, capture_error_mode):
        """torch.cuda.graph."""
        assert self.capturing is None, "a capture inside a capture"
        with self.on(stream):
            self.note("capture", graph)
            self.capturing = graph
            try:
                yield
            finally:
                self.capturing = None
                with self.unseen():
                    graph.undo()
                self.note("captured", graph)

    @contextlib.contextmanager
    def unseen(self):
        """Inside, operations are the emulator's own, or noted by one event."""
        self.silent = True
        try:
            yield
        finally:
            self.silent = False


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self, gpu):
        self.gpu, self.operations, self.before = gpu, [], {}

    def record(self, operation, args, kwargs):
        leaves = tensors((args, kwargs))
        masks = operation._overloadname == "Tensor" and any(t.dtype == torch.bool for t in leaves[1:])
        gathers = operation.overloadpacket is torch.ops.aten.index and not masks
        if (REFUSED & set(operation.tags) and not gathers) or "lift_fresh" in operation.name():
            raise RuntimeError(f"{operation.name()} inside a capture")
        for tensor in written(operation, args, kwargs):
            self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        result = operation(*args, **kwargs)
        given = {tensor.untyped_storage()._cdata for tensor in leaves}
        made = [tensor.untyped_storage()._cdata not in given for tensor in tensors(result)]
        if "empty" not in operation.name():  # what is in it comes later
            self.operations.append((operation, args, kwargs, result, made))
        return result

    def undo(self):
        with torch.no_grad():
            for tensor, before in reversed(self.before.values()):
                tensor.copy_(before)
            for *_, result, made in self.operations:
                for tensor, new in zip(tensors(result), made, strict=True):
                    if new and tensor.is_floating_point():
                        tensor.fill_(torch.nan)

    def replay(self):
        self.gpu.note("replay", self)
        with self.gpu.unseen(), torch.no_grad():
            for operation, args, kwargs, result, made in self.operations:
                again = operation(*args, **kwargs)
                for tensor, value, new in zip(tensors(result), tensors(again), made, strict=True):
                    if new:
                        assert tensor.stride() == value.stride()
                        tensor.copy_(value)


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def written(operation, args, kwargs):
    """The tensors among the arguments that the operation writes to."""
    named = dict(zip([a.name for a in operation._schema.arguments], args, strict=False)) | kwargs
    marked = {a.name for a in operation._schema.arguments if a.alias_info and a.alias_info.is_write}
    if operation.overloadpacket is torch.ops.aten.native_batch_norm:  # its schema does not show it
        marked = {"running_mean", "running_var"}
    return tensors([named.get(name) for name in marked])


class Done:
    """torch.cuda.Event: has not come to pass the first time that it is asked."""

    def __init__(self, gpu):
        self.gpu, self.asked = gpu, 0

    def record(self):
        self.gpu.note("event")

    def query(self):
        self.gpu.note("query")
        self.asked += 1
        return self.asked > 1


@contextlib.contextmanager
def emulated(monkeypatch):
    """Inside, every speed with graphs captures and replays, on the CPU; yields the EmulatedGPU."""
    gpu = EmulatedGPU()
    instead = {
        "current_stream": lambda: gpu.current,
        "default_stream": lambda: gpu.default,
        "synchronize": lambda: gpu.note("synchronize"),
        "graph_pool_handle": object,
        "Stream": gpu.new_stream,
        "stream": gpu.on,
        "graph": gpu.capture,
        "CUDAGraph": lambda: Graph(gpu),
        "Event": lambda: Done(gpu),
    }
    with monkeypatch.context() as patch:
        for name, fake in instead.items():
            patch.setattr(torch.cuda, name, fake)
        for module in (fast, graphs):
            patch.setattr(module, "uses_graphs", lambda speed, device: speed.graph)
        patch.setattr(graphs.gc, "collect", lambda *generation: 0)  # slow, with many events to look at
        graphs._instead_of_default.cache_clear()
        try:
            with gpu:
                yield gpu
        finally:
            graphs._instead_of_default.cache_clear()
