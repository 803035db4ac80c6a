"""The plain loop of `train`, sooner: the same draws, the same steps, fewer and cheaper operations.

What may not change: the batches, the last and smaller one with a mean of its own; optimizer and BatchNorm
settings; independent crops and flips of uint8 images; fresh noise for every example and visit; the average
after every step, of parameters and BatchNorm statistics; both test passes; the correction's rule. What does,
step by step (`SPEEDS`):

reference : the plain loop itself
s1 : each epoch's draws and noisy targets lie on the device before its first step, in tensors that stay where
    they are; noise on the gradient, which is as large as the network, is drawn on the device
s2 : bfloat16 operands in the network (master weights, average, BatchNorm and loss stay float32), and on a GPU
    the whole step as one CUDA graph, half precision in test passes
s3 : forward pass and loss compiled, inside that graph
fast : what is the best of these on the device: s3 on a GPU (s2 where nothing compiles for it), s2 on a CPU
    with bfloat16 instructions, else s1

Other methods' objectives (`robust`) are not captured: at any speed they take the plain loop's steps.
Several runs at once on one GPU, a stream each, are `together.get_together`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sln import method, train
from sln.augmentation import CropsAndFlips
from sln.config import Config
from sln.data import Data, Split
from sln.errors import choose
from sln.objective import Objective, forward
from sln.train import State

WARM_UP = 3  # steps before a capture: they let cuDNN choose its kernels, and compile

# One capture or compilation at a time, however many runs share the device.
_preparing = threading.Lock()


@dataclass(frozen=True)
class Speed:
    """Which of the steps above are taken.

    static : s1
    bfloat16, graph : s2 (a graph is for GPUs, and left out on a CPU)
    compiled : s3
    """

    static: bool = False
    bfloat16: bool = False
    graph: bool = False
    compiled: bool = False


SPEEDS = {
    "reference": Speed(),
    "s1": Speed(static=True),
    "s2": Speed(static=True, bfloat16=True, graph=True),
    "s3": Speed(static=True, bfloat16=True, graph=True, compiled=True),
}
NAMES = ("auto", *SPEEDS, "fast")


def chosen(device: torch.device) -> str:
    """The speed that `SLN_SPEED` asks for, one of SPEEDS; default `auto`: fast on a GPU, else reference.

    Raises InputError for a name that is none of NAMES.
    """
    asked = os.environ.get("SLN_SPEED") or "auto"
    choose("speed", asked, NAMES)
    if asked == "auto":
        asked = "fast" if device.type == "cuda" else "reference"
    if asked != "fast":
        return asked
    if not has_bfloat16(device):
        return "s1"
    return "s3" if device.type == "cuda" and compiles(device) else "s2"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers itself; where it does not, they are slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compiles(gpu: torch.device) -> bool:
    """Whether torch.compile can work for this GPU: it needs Triton, and Triton a C compiler."""
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    return (
        importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(gpu) >= (7, 0)
        and any(name and shutil.which(name) for name in compilers)
    )


def engine(config: Config, device: torch.device) -> train.Engine:
    """What trains a run of `config` on `device` at the speed that was asked for."""
    speed = SPEEDS[chosen(device)]
    return Engine(config, speed) if speed.static else train.Engine()


class Engine(train.Engine):
    """`train.Engine` by the steps of `speed`, for one run."""

    def __init__(self, config: Config, speed: Speed) -> None:
        self.speed = speed
        # the objective's own precision is the run's, unless the speed asks for less
        self.config = config.replace(precision="bfloat16") if speed.bfloat16 else config
        self._steps: dict[int, Step] = {}  # by batch size
        self._seen: Seen | None = None
        self._rate: float | None = None

    def train_epoch(self, state: State, data: Data, config: Config, epoch: int, sigma: float) -> float:
        """As `train.train_epoch`."""
        if type(state.objective) is not Objective:
            return train.train_epoch(state, data, config, epoch, sigma)
        state.network.train()
        train.set_learning_rate(state.optimizer, config, epoch)
        self._seen = self._seen or Seen(data, config)
        if self._rate != train.learning_rate(config, epoch):  # a captured step has it inside
            self._rate, self._steps = train.learning_rate(config, epoch), {}
        draws = train.draw(data, config, epoch)
        noise = self._seen.refill(state, config, draws, sigma)
        for index in draws.order.split(config.batch_size):
            step = self._steps.get(len(index))
            if step is None:
                with _preparing, chooses_kernels():
                    step = Step(state, data, self.config, self.speed, self._seen, len(index))
                self._steps[len(index)] = step
            step(index, noise, sigma)
        return self._seen.total.item() / len(data.train)

    def predict(self, network: nn.Module, split: Split, data: Data) -> Tensor:
        """As `train.predict`; on a GPU from s2 on with half-precision operands."""
        if data.device.type != "cuda":
            return train.predict(network, split, data)
        with torch.autocast("cuda", torch.float16, enabled=self.speed.bfloat16):
            return train.predict(network, split, data).float()


class Seen:
    """What the steps of an epoch read, in tensors that are refilled and never replaced.

    noisy : (N, C), targets with stochastic label noise; those without where the noise is elsewhere
    at_logits : (N, C), sigma z of variant 2; None for the others
    crops : crops and flips; None without augmentation
    total : () float64, sum of the objective over the epoch's examples so far
    """

    def __init__(self, data: Data, config: Config) -> None:
        N, device = len(data.train), data.device
        self.noisy = torch.empty(N, data.num_classes, device=device)
        self.at_logits = torch.empty_like(self.noisy) if config.noise_on == "logits" else None
        self.crops = None
        if config.augment:
            place = torch.empty(N, dtype=torch.int64, device=device)
            self.crops = CropsAndFlips(place, place.clone(), torch.empty(N, dtype=torch.bool, device=device))
        self.total = torch.zeros((), dtype=torch.float64, device=device)

    def refill(self, state: State, config: Config, draws: train.Draws, sigma: float) -> torch.Generator:
        """Take over an epoch's draws. Returns what noise on the gradient is drawn from, on the device."""
        on_labels = config.noise_on == "labels"
        self.noisy.copy_(method.noisy_labels(state.targets, sigma, draws.z) if on_labels else state.targets)
        if self.at_logits is not None:
            self.at_logits.copy_(sigma * draws.z)
        if self.crops is not None and draws.crops is not None:
            for mine, new in zip(vars(self.crops).values(), vars(draws.crops).values(), strict=True):
                mine.copy_(new)
        self.total.zero_()
        if self.noisy.device.type == "cpu":
            return draws.noise
        # drawn where it is used: a step's noise is as large as the network, too much to be sent
        seed = int(torch.randint(2**62, (), generator=draws.noise))
        return torch.Generator(self.noisy.device).manual_seed(seed)


class Step:
    """One step of training on a batch of `size` examples: captured once on a GPU, then replayed.

    Noise on the gradient comes between two halves, since it is drawn anew; all else is one whole.
    """

    def __init__(self, state: State, data: Data, config: Config, speed: Speed, seen: Seen, size: int) -> None:
        self.state, self.data, self.config, self.seen, self.size = state, data, config, seen, size
        self.index = torch.zeros(size, dtype=torch.int64, device=data.device)
        self.mean_loss: Callable[..., Tensor] = self._mean_loss
        if speed.compiled:
            # every batch size and network is one more variant of the code; past the limit it runs uncompiled
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
            self.mean_loss = torch.compile(self._mean_loss, dynamic=False)
        self.between = config.noise_on == "gradient"
        parts = [self._gradient, self._update] if self.between else [self._whole]
        self.parts: list[Callable[[], None]] = parts
        self.gradients: list[Tensor] = []  # where this captured step leaves them; else empty
        if speed.graph and data.device.type == "cuda":
            self.parts = self._capture(parts)

    def __call__(self, index: Tensor, noise: torch.Generator, sigma: float) -> None:
        """Train on the examples `index` (size,)."""
        self.index.copy_(index)
        first, *rest = self.parts
        first()
        if self.between and sigma > 0:
            for parameter, gradient in zip(self.state.network.parameters(), self.gradients, strict=False):
                parameter.grad = gradient
            method.add_gradient_noise(self.state.network.parameters(), sigma, noise)
        for part in rest:
            part()

    def _mean_loss(self, images: Tensor, noisy: Tensor, at_logits: Tensor | None) -> Tensor:
        # `Objective.gradient`, without the memory of who is who that other methods need
        logits = forward(self.state.network, images, self.config)
        losses = method.soft_cross_entropy(logits, noisy)
        if at_logits is not None:
            losses = losses + method.logit_noise(logits, 1.0, at_logits)
        return losses.mean()

    def _gradient(self) -> None:
        seen, index = self.seen, self.index
        images = train.batch(self.data, index, seen.crops)
        at_logits = None if seen.at_logits is None else seen.at_logits[index]
        loss = self.mean_loss(images, seen.noisy[index], at_logits)
        self.state.network.zero_grad()
        loss.backward()
        seen.total += loss.detach() * self.size

    def _update(self) -> None:
        self.state.optimizer.step()
        for average in self.state.averages.values():
            average.update_parameters(self.state.network)

    def _whole(self) -> None:
        self._gradient()
        self._update()

    def _capture(self, parts: list[Callable[[], None]]) -> list[Callable[[], None]]:
        """CUDA graphs of `parts`, in a memory pool and on a stream of their own.

        The steps before a capture really train; what they change is put back.
        """
        gc.collect()  # a run that has ended keeps its graphs' memory until its steps are collected
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        with unchanged(self.state, self.seen):
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    for part in parts:
                        part()
            here.wait_stream(aside)
            self.state.network.zero_grad()  # so that the capture makes gradients in its own pool
            graphs, pool = [], torch.cuda.graph_pool_handle()
            for part in parts:
                graph = torch.cuda.CUDAGraph()
                # other runs may use the device meanwhile: only what this thread does is checked
                with torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local"):
                    part()
                graphs.append(graph)
            self.gradients = [parameter.grad for parameter in self.state.network.parameters()]
        return [graph.replay for graph in graphs]


def chooses_kernels() -> contextlib.AbstractContextManager[None]:
    """cuDNN tries its kernels, and takes the fastest; its other settings stay as they are."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(True, benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32)


@contextlib.contextmanager
def unchanged(state: State, seen: Seen) -> Iterator[None]:
    """Put back, in place, every number that steps inside change: weights, averages, momentum, the sum."""
    kept = {name: value.clone() for name, value in _changing(state, seen).items()}
    yield
    for name, value in _changing(state, seen).items():
        if name in kept:
            value.copy_(kept[name])
        else:
            value.zero_()  # momentum that these steps began: zero is what the first step starts from


def _changing(state: State, seen: Seen) -> dict[str, Tensor]:
    tensors = {n: t for n, t in state.tensors().items() if n not in ("targets", "epoch")}
    return tensors | {"total": seen.total}
