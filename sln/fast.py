"""A faster implementation of `train`'s loop: the same random numbers, the same steps, fewer operations.

Kept: the batches, the last and smaller one with a mean of its own; optimizer and BatchNorm settings;
independent crops and flips of uint8 images; fresh noise for every example and visit; the average after every
step, of parameters and BatchNorm statistics; the test passes; the correction's rule. Changed, step by step
(`SPEEDS`):

reference : the plain loop itself
s1 : each epoch's draws and noisy targets lie on the device before its first step, in tensors that stay where
    they are; BatchNorm's counters are added up once per epoch; on a GPU the noise on the gradient, which is
    as large as the network, is drawn there, in one piece
s2 : convolutions have bfloat16 operands, in training, measuring and correction (weights, average, BatchNorm's
    weights and statistics, last layer and loss are float32); on a GPU a training step is one CUDA graph, and
    so is a pass over a batch of images
s3 : the full batch's forward pass and loss, and the pass over images, compiled inside those graphs
fast : the best of these on the device: s3 on a GPU (s2 where nothing compiles for it), s2 on a CPU with
    bfloat16 instructions, else s1

Other methods' objectives (`baselines`) take the plain loop's steps at every speed. Several runs on one GPU
take turns (`runs.turns`): one thread, a stream for each run, and everything that searches for kernels,
compiles or captures done before a run's first epoch.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import importlib.util
import os
import shutil
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sln import method, train
from sln.config import Config
from sln.data import CropsAndFlips, Data, Split
from sln.objective import Objective, forward
from sln.train import State
from sln.utils.errors import choose

WARM_UP = 3  # runs of what is captured next: cuDNN chooses its kernels in them, and the code is compiled


class CaptureFailed(RuntimeError):
    """A CUDA graph could not be captured: this process's GPU is of no more use, a slower speed may be."""


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


def graphs(speed: Speed, device: torch.device) -> bool:
    """Whether steps and passes are CUDA graphs."""
    return speed.graph and device.type == "cuda"


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
        self._passes: Passes | None = None
        self._seen: Seen | None = None
        self._rate: float | None = None
        self._next: tuple[int, train.Draws] | None = None  # an epoch's draws ahead of time

    def prepare(self, state: State, data: Data) -> None:
        """Search for kernels, compile and capture all that the run's epochs replay, on an idle GPU."""
        if graphs(self.speed, data.device):
            torch.cuda.synchronize()
            self._passes = Passes(state.network, data.test.images, data.normalise, self.speed)
        if type(state.objective) is Objective:
            self._prepare_steps(state, data, state.epoch + 1)

    def _prepare_steps(self, state: State, data: Data, epoch: int) -> None:
        rate = train.learning_rate(self.config, epoch)
        if self._rate == rate:  # a captured step has it inside
            return
        self._rate, self._steps = rate, {}
        self._seen = self._seen or Seen(data, self.config)
        state.network.train()
        train.set_learning_rate(state.optimizer, self.config, epoch)
        N, B = len(data.train), self.config.batch_size
        for size in sorted({min(N, B), N % B} - {0}):
            self._steps[size] = Step(state, data, self.config, self.speed, self._seen, size)

    def turns(
        self, state: State, data: Data, config: Config, epoch: int, sigma: float
    ) -> Generator[None, None, float]:
        """As `train.Engine.turns`, a step each."""
        if type(state.objective) is not Objective:
            return (yield from super().turns(state, data, config, epoch, sigma))
        self._prepare_steps(state, data, epoch)
        seen = self._seen
        assert seen is not None
        state.network.train()
        train.set_learning_rate(state.optimizer, config, epoch)
        noise = seen.refill(state, config, self._draws(data, config, epoch), sigma)
        batches = seen.order.split(config.batch_size)
        for index in batches:
            self._steps[len(index)](index, noise, sigma)
            yield
        count_batches(state, len(batches))
        if graphs(self.speed, data.device):
            if epoch < config.epochs:  # while the GPU is busy
                self._next = epoch + 1, train.draw(data, config, epoch + 1)
            done = torch.cuda.Event()
            done.record()
            while not done.query():
                yield
        return seen.total.item() / len(data.train)

    def _draws(self, data: Data, config: Config, epoch: int) -> train.Draws:
        ready, self._next = self._next, None
        return ready[1] if ready and ready[0] == epoch else train.draw(data, config, epoch)

    def predict(
        self, network: nn.Module, split: Split, data: Data, draws: CropsAndFlips | None = None
    ) -> Tensor:
        """As `train.predict`; with bfloat16 operands from s2 on."""
        if self._passes is not None:
            return self._passes(tensors(network), train.prediction_batches(split, data, draws))
        with torch.autocast(data.device.type, torch.bfloat16, enabled=self.speed.bfloat16):
            return train.predict(network, split, data, draws)


# --- a step of training -------------------------------------------------------------------------------------


class Seen:
    """What the steps of an epoch read, in tensors that are refilled and never replaced.

    order : (N,), in which the examples are seen
    noisy : (N, C), targets with stochastic label noise; those without where the noise is elsewhere
    at_logits : (N, C), sigma z of variant 2; None for the others
    crops : crops and flips; None without augmentation
    total : () float64, sum of the objective over the epoch's examples so far
    """

    def __init__(self, data: Data, config: Config) -> None:
        N, device = len(data.train), data.device
        self.order = torch.zeros(N, dtype=torch.int64, device=device)
        self.noisy = torch.zeros(N, data.num_classes, device=device)
        self.at_logits = torch.zeros_like(self.noisy) if config.noise_on == "logits" else None
        self.crops = None
        if config.augment:
            place = torch.zeros(N, dtype=torch.int64, device=device)
            self.crops = CropsAndFlips(place, place.clone(), torch.zeros(N, dtype=torch.bool, device=device))
        self.total = torch.zeros((), dtype=torch.float64, device=device)

    def refill(self, state: State, config: Config, draws: train.Draws, sigma: float) -> torch.Generator:
        """Take over an epoch's draws. Returns what noise on the gradient is drawn from, on the device."""
        draws = draws.to(self.noisy.device)
        self.order.copy_(draws.order)
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

    Noise on the gradient comes between two halves, since it is drawn for every step; all else is one whole.
    """

    def __init__(self, state: State, data: Data, config: Config, speed: Speed, seen: Seen, size: int) -> None:
        self.state, self.data, self.config, self.seen, self.size = state, data, config, seen, size
        self.index = torch.zeros(size, dtype=torch.int64, device=data.device)
        self.operands = Operands(state.network) if speed.bfloat16 else None
        self.network = self.operands.network if self.operands else state.network
        self.parameters = list(state.network.parameters())
        self.mean_loss: Callable[..., Tensor] = self._mean_loss
        if speed.compiled and size == config.batch_size:  # the last batch is one of hundreds
            self.mean_loss = compiled(self._mean_loss)
        self.between = config.noise_on == "gradient"
        parts = [self._gradient, self._update] if self.between else [self._whole]
        self.parts: list[Callable[[], None]] = [functools.partial(self._uncounted, part) for part in parts]
        self.gradients: list[Tensor | None] = []  # where this captured step leaves them; else empty
        if graphs(speed, data.device):
            with unchanged(state, seen):
                self.parts = captured(self.parts, between=state.network.zero_grad)
                self.gradients = [parameter.grad for parameter in self.parameters]

    def __call__(self, index: Tensor, noise: torch.Generator, sigma: float) -> None:
        """Train on the examples `index` (size,)."""
        self.index.copy_(index)
        first, *rest = self.parts
        first()
        if self.between and sigma > 0:
            for parameter, gradient in zip(self.parameters, self.gradients, strict=False):
                parameter.grad = gradient
            add = method.add_gradient_noise if noise.device.type == "cpu" else add_flat_noise
            add(self.parameters, sigma, noise)
        for part in rest:
            part()

    def _mean_loss(self, images: Tensor, noisy: Tensor, at_logits: Tensor | None) -> Tensor:
        # `Objective.gradient`, without the memory of who is who that other methods need
        logits = forward(self.network, images, self.config)
        losses = method.soft_cross_entropy(logits, noisy)
        if at_logits is not None:
            losses = losses + method.logit_noise(logits, 1.0, at_logits)
        return losses.mean()

    def _gradient(self) -> None:
        seen, index = self.seen, self.index
        images = train.batch(self.data, index, seen.crops)
        at_logits = None if seen.at_logits is None else seen.at_logits[index]
        self.state.network.zero_grad()
        if self.operands:
            self.operands.refresh()
        loss = self.mean_loss(images, seen.noisy[index], at_logits)
        loss.backward()
        if self.operands:
            self.operands.hand_back()
        seen.total += loss.detach() * self.size

    def _update(self) -> None:
        self.state.optimizer.step()
        for average in self.state.averages.values():
            average.update_parameters(self.state.network)

    def _whole(self) -> None:
        self._gradient()
        self._update()

    def _uncounted(self, part: Callable[[], None]) -> None:
        with uncounted(*self.state.networks.values()):
            part()


class Operands:
    """The network with bfloat16 copies of its convolutions' weights; all other tensors are the network's own.

    The numbers are those of autocast, which casts each weight and each gradient in a kernel of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network)
        self.weights: list[nn.Parameter] = []
        self.copies: list[nn.Parameter] = []
        for ours, theirs in zip(self.network.modules(), network.modules(), strict=True):
            if isinstance(ours, nn.Conv2d):
                self.copies += ours.bfloat16().parameters(recurse=False)
                self.weights += theirs.parameters(recurse=False)
            else:
                ours._parameters, ours._buffers = theirs._parameters, theirs._buffers
        self.gradients = [torch.empty_like(weight, requires_grad=False) for weight in self.weights]

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights as they are now, and forget the last step's gradients."""
        if self.weights:
            torch._foreach_copy_(self.copies, self.weights)
        for copied in self.copies:
            copied.grad = None

    @torch.no_grad()
    def hand_back(self) -> None:
        """Give the copies' gradients to the network's own weights."""
        if self.weights:
            torch._foreach_copy_(self.gradients, [copied.grad for copied in self.copies])
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient


def add_flat_noise(parameters: Iterable[nn.Parameter], sigma: float, generator: torch.Generator) -> None:
    """`method.add_gradient_noise` in two kernels, with other draws: one piece of noise for all gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sizes = [gradient.numel() for gradient in gradients]
    z = torch.randn(sum(sizes), generator=generator, device=generator.device).split(sizes)
    noise = [part.view_as(gradient) for part, gradient in zip(z, gradients, strict=True)]
    torch._foreach_add_(gradients, noise, alpha=sigma)


@contextlib.contextmanager
def uncounted(*networks: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm does not count its batches, which takes two kernels per layer and nobody reads."""
    layers = [
        layer for network in networks for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)
    ]
    counters = [layer.num_batches_tracked for layer in layers]
    for layer in layers:
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, counter in zip(layers, counters, strict=True):
            layer.num_batches_tracked = counter


def count_batches(state: State, batches: int) -> None:
    """Count what `uncounted` left out."""
    counters = [b for n in state.networks.values() for b in n.buffers() if not b.is_floating_point()]
    if counters:
        torch._foreach_add_(counters, batches)


@contextlib.contextmanager
def unchanged(state: State, seen: Seen) -> Iterator[None]:
    """Put back, in place, every number that steps inside change: weights, averages, momentum, the sum."""
    kept = {name: value.clone() for name, value in _changing(state, seen).items()}
    try:
        yield
    finally:
        for name, value in _changing(state, seen).items():
            if name in kept:
                value.copy_(kept[name])
            else:
                value.zero_()  # momentum that these steps began: zero is what the first step starts from


def _changing(state: State, seen: Seen) -> dict[str, Tensor]:
    tensors = {n: t for n, t in state.tensors().items() if n not in ("targets", "epoch")}
    return tensors | {"total": seen.total}


# --- a pass over images -------------------------------------------------------------------------------------


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
        size = (train.prediction_size(images.device), *images.shape[1:])
        self.images = torch.zeros(size, dtype=images.dtype, device=images.device)
        self.logits = torch.zeros(0)
        view(self.images[:1])  # what it keeps is made here: inside, it would break the compiled code in two
        self.compute: Callable[[], Tensor] = compiled(self._compute) if speed.compiled else self._compute
        (self.part,) = captured([self._pass])

    def __call__(self, weights: Mapping[str, Tensor], batches: Iterable[Tensor]) -> Tensor:
        """(N, C) float32 on the CPU: the logits of batches of images, with `weights` by name."""
        self._take(weights)
        found = []
        for batch in batches:
            self.images[: len(batch)] = batch
            self.part()
            found.append(self.logits[: len(batch)].clone())
        return torch.cat(found).cpu() if found else torch.zeros(0, self.logits.shape[1])

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        pairs = [
            (mine, weights[name]) for name, mine in tensors(self.network).items() if mine.is_floating_point()
        ]
        for kind in {mine.dtype for mine, _ in pairs}:
            some = [pair for pair in pairs if pair[0].dtype == kind]
            torch._foreach_copy_([mine for mine, _ in some], [theirs for _, theirs in some])

    @torch.no_grad()
    def _pass(self) -> None:
        self.logits = self.compute()

    def _compute(self) -> Tensor:
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.network(self.view(self.images)).float()


_passes: weakref.WeakKeyDictionary[nn.Module, Passes] = weakref.WeakKeyDictionary()


def passes(network: nn.Module, images: Tensor) -> Passes | None:
    """The captured pass of `network` over normalised images like these; None where nothing is captured."""
    speed = SPEEDS[chosen(images.device)]
    if not graphs(speed, images.device):
        return None
    if network not in _passes:
        _passes[network] = Passes(network, images, lambda batch: batch, speed)
    return _passes[network]


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


# --- CUDA graphs --------------------------------------------------------------------------------------------


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
    here, default = torch.cuda.current_stream(), torch.cuda.default_stream()
    return _instead_of_default() if here == default else here


@functools.cache
def _instead_of_default() -> torch.cuda.Stream:
    return torch.cuda.Stream()


def captured(
    parts: list[Callable[[], None]], between: Callable[[], object] = lambda: None
) -> list[Callable[[], None]]:
    """CUDA graphs of `parts`, in one memory pool; each is run WARM_UP times first.

    between : called between those runs and the captures
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
        found, pool = [], torch.cuda.graph_pool_handle()
        for part in parts:
            graph = torch.cuda.CUDAGraph()
            try:
                # other runs may still compute meanwhile: only what this thread does is checked
                with torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local"):
                    part()
            except Exception as error:
                raise CaptureFailed(f"a CUDA graph could not be captured: {error}") from error
            found.append(graph)
    return [graph.replay for graph in found]


def chooses_kernels() -> contextlib.AbstractContextManager[None]:
    """cuDNN tries its kernels, and takes the fastest; its other settings stay as they are."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(True, benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32)
