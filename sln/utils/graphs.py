"""CUDA graphs and compiled functions."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # runs of what is captured next: cuDNN chooses its kernels in them, and the code is compiled


class CaptureFailed(RuntimeError):
    """A CUDA graph could not be captured: this process's GPU is of no more use, a slower speed may be."""


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.compile for fixed shapes. Runs of one network share the code."""
    # a variant for each network, batch size and number of classes; past the limit it would run uncompiled
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(function, dynamic=False)


def capture_stream() -> torch.cuda.Stream:
    """The current stream, or another in the place of the default one, on which nothing can be captured.

    A graph is captured on the stream that replays it. cuBLAS keeps a workspace per stream, with counters that
    parts of a product wait for: two graphs of one capture stream, replayed at once, never end.
    """
    here = torch.cuda.current_stream()
    return _instead_of_default() if here == torch.cuda.default_stream() else here


@functools.cache
def _instead_of_default() -> torch.cuda.Stream:
    return torch.cuda.Stream()


def captured(
    parts: list[Callable[[], None]], between: Callable[[], object] = lambda: None
) -> list[Callable[[], None]]:
    """CUDA graphs of `parts`, in one memory pool; all are run WARM_UP times first, then `between` is called.

    Raises CaptureFailed.
    """
    gc.collect()  # a run that has ended keeps its graphs' memory until its steps are collected
    here, aside = torch.cuda.current_stream(), capture_stream()
    with chooses_kernels():
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                for part in parts:
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
