"""CUDA graphs, compiled functions, and logits of images by one captured pass on a GPU."""

import contextlib
import copy
import functools
import gc
import weakref
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from sln.utils.devices import current, prediction_size
from sln.utils.networks import tensors
from sln.utils.speeds import SPEEDS, Speed, chosen, uses_graphs

WARM_UP = 3  # runs of what is captured next: cuDNN chooses its kernels in them, and the code is compiled


class CaptureFailed(RuntimeError):
    """A CUDA graph could not be captured: this process's GPU is of no more use, a slower speed may be."""


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.compile for fixed shapes. Runs of one network share the code."""
    # a variant for each network, batch size and number of classes; past the limit it would run uncompiled
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(function, dynamic=False)


@functools.cache
def _instead_of_default() -> torch.cuda.Stream:
    return torch.cuda.Stream()


def captured(
    parts: list[Callable[[], None]], between: Callable[[], object] = lambda: None
) -> list[Callable[[], None]]:
    """CUDA graphs of `parts`, in one memory pool, after WARM_UP runs and `between()`; or CaptureFailed."""
    gc.collect()  # a run that has ended keeps its graphs' memory until its steps are collected
    # Nothing can be captured on the default stream; else a graph is captured on the stream that replays it.
    # cuBLAS keeps a workspace per stream, with counters that parts of a product wait for: two graphs of one
    # capture stream, replayed at once, never end.
    here = torch.cuda.current_stream()
    aside = _instead_of_default() if here == torch.cuda.default_stream() else here
    with chooses_kernels():
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for part in WARM_UP * parts:
                part()
        here.wait_stream(aside)
        between()
        pool, found = torch.cuda.graph_pool_handle(), [torch.cuda.CUDAGraph() for _ in parts]
        for graph, part in zip(found, parts, strict=True):
            try:
                # other runs may still compute meanwhile: only what this thread does is checked
                with torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local"):
                    part()
            except Exception as error:
                raise CaptureFailed(f"a CUDA graph could not be captured: {error}") from error
    return [graph.replay for graph in found]


def chooses_kernels() -> contextlib.AbstractContextManager[None]:
    """cuDNN tries its kernels, and takes the fastest; its other settings stay as they are."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(True, benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32)


class Passes:
    """Logits of images in evaluation mode, by one captured pass of a batch on a GPU.

    It has a network of its own, with bfloat16 convolutions, that any weights of the same architecture are
    copied into: the trained network's, an average's, those of a point of a loss landscape.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, view: Callable[[Tensor], Tensor], speed: Speed
    ) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        for layer in self.network.modules():
            if speed.bfloat16 and isinstance(layer, nn.Conv2d):
                layer.bfloat16()
        self.view, self.bfloat16 = view, speed.bfloat16
        size = (prediction_size(images.device), *images.shape[1:])
        self.images = torch.zeros(size, dtype=images.dtype, device=images.device)
        view(self.images[:1])  # what it keeps is made here: inside, it would break the compiled code in two
        self.compute = compiled(self._compute) if speed.compiled else self._compute
        with current(images.device):
            (self.part,) = captured([self._pass])

    def __call__(self, weights: Mapping[str, Tensor], batches: Iterable[Tensor]) -> Tensor:
        """(N, C) float32 on the CPU: the logits of batches of images, with `weights` by name."""
        own = {name: mine for name, mine in tensors(self.network).items() if mine.is_floating_point()}
        for kind in {mine.dtype for mine in own.values()}:
            names = [name for name, mine in own.items() if mine.dtype == kind]
            torch._foreach_copy_([own[name] for name in names], [weights[name] for name in names])
        found = []
        for batch in batches:
            self.images[: len(batch)] = batch
            self.part()
            found.append(self.logits[: len(batch)].clone())
        return torch.cat(found).cpu() if found else torch.zeros(0, self.logits.shape[1])

    @torch.no_grad()
    def _pass(self) -> None:
        self.logits = self.compute()

    def _compute(self) -> Tensor:
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.network(self.view(self.images)).float()


_passes: weakref.WeakKeyDictionary[nn.Module, Passes] = weakref.WeakKeyDictionary()


def passes(network: nn.Module, images: Tensor) -> Passes | None:
    """The captured pass of `network` over such normalised images; None if the speed captures nothing."""
    speed = SPEEDS[chosen(images.device)]
    if not uses_graphs(speed, images.device):
        return None
    if network not in _passes:
        _passes[network] = Passes(network, images, lambda batch: batch, speed)
    return _passes[network]
