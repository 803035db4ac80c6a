"""A faster implementation of `train`'s loop: the same random numbers, the same steps, fewer operations.

Kept: the batches, with the mean of the last, smaller one its own; optimizer and BatchNorm settings; crops and
flips per image; fresh noise per example and epoch; the average after every step, of parameters and BatchNorm
statistics; the test passes; the correction's rule. The speeds change, one after another:

reference : nothing, it is the plain loop
static : an epoch's draws and noisy targets are on the device before its first step, in tensors that are
    refilled; BatchNorm's counters are added up once per epoch; a GPU draws the noise on the gradient itself
bfloat16 : convolutions have bfloat16 operands, in training, measuring and correction (weights, average,
    BatchNorm's weights and statistics, last layer and loss are float32); on a GPU a step is one CUDA graph,
    and so is a pass over a batch of images
compiled : the full batch's forward pass and loss, and the pass over images, are compiled
fast : the fastest mode that the device supports: on a GPU compiled (bfloat16 without Triton or a C compiler),
    on a CPU bfloat16 (static without bfloat16 instructions)

The baselines take the plain loop's steps at every speed. Several runs on one GPU take turns (`runs.one_gpu`):
one thread, a stream per run, and all searching for kernels, compiling and capturing before the first epoch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator

import torch
from torch import Tensor, nn

from sln import method, train
from sln.config import Config
from sln.data import Data, Split
from sln.objective import Objective, forward
from sln.train import State
from sln.utils.crops import CropsAndFlips
from sln.utils.graphs import Passes, captured, compiled
from sln.utils.networks import Operands, tensors, uncounted
from sln.utils.speeds import SPEEDS, Speed, chosen, uses_graphs


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
        self._buffers: EpochBuffers | None = None
        self._rate: float | None = None
        self._next: tuple[int, train.Draws] | None = None  # an epoch's draws ahead of time

    def prepare(self, state: State, data: Data) -> None:
        """Search for kernels, compile and capture all that the run's epochs replay, on an idle GPU."""
        if uses_graphs(self.speed, data.device):
            torch.cuda.synchronize()
            self._passes = Passes(state.network, data.test.images, data.normalise, self.speed)
        if type(state.objective) is Objective:
            self._prepare_steps(state, data, state.epoch + 1)

    def _prepare_steps(self, state: State, data: Data, epoch: int) -> None:
        rate = train.learning_rate(self.config, epoch)
        if self._rate == rate:  # a captured step has it inside
            return
        self._rate, self._steps = rate, {}
        self._buffers = self._buffers or EpochBuffers(data, self.config)
        state.network.train()
        train.set_learning_rate(state.optimizer, self.config, epoch)
        N, B = len(data.train), self.config.batch_size
        for size in sorted({min(N, B), N % B} - {0}):
            self._steps[size] = Step(state, data, self.config, self.speed, self._buffers, size)

    def turns(
        self, state: State, data: Data, config: Config, epoch: int, sigma: float
    ) -> Generator[None, None, float]:
        """As `train.Engine.turns`, a step each."""
        if type(state.objective) is not Objective:
            return (yield from super().turns(state, data, config, epoch, sigma))
        self._prepare_steps(state, data, epoch)
        buffers = self._buffers
        assert buffers is not None
        state.network.train()
        train.set_learning_rate(state.optimizer, config, epoch)
        noise = buffers.refill(state, config, self._draws(data, config, epoch), sigma)
        batches = buffers.order.split(config.batch_size)
        for index in batches:
            self._steps[len(index)](index, noise, sigma)
            yield
        count_batches(state, len(batches))
        if uses_graphs(self.speed, data.device):
            if epoch < config.epochs:  # while the GPU is busy
                self._next = epoch + 1, train.draw(data, config, epoch + 1)
            done = torch.cuda.Event()
            done.record()
            while not done.query():
                yield
        return buffers.total.item() / len(data.train)

    def _draws(self, data: Data, config: Config, epoch: int) -> train.Draws:
        ready, self._next = self._next, None
        return ready[1] if ready and ready[0] == epoch else train.draw(data, config, epoch)

    def predict(
        self, network: nn.Module, split: Split, data: Data, draws: CropsAndFlips | None = None
    ) -> Tensor:
        """As `train.predict`; with bfloat16 operands from speed bfloat16 on."""
        if self._passes is not None:
            return self._passes(tensors(network), train.prediction_batches(split, data, draws))
        with torch.autocast(data.device.type, torch.bfloat16, enabled=self.speed.bfloat16):
            return train.predict(network, split, data, draws)


class EpochBuffers:
    """What the steps of an epoch read, in tensors that are refilled and never replaced.

    noisy : (N, C), targets with stochastic label noise; those without where the noise is elsewhere
    at_logits : (N, C), sigma z of variant 2; None for the others
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
        # drawn where it is used: a step's noise is as large as the network
        seed = int(torch.randint(2**62, (), generator=draws.noise))
        return torch.Generator(self.noisy.device).manual_seed(seed)


class Step:
    """One step of training on a batch of `size` examples: captured once on a GPU, then replayed.

    Noise on the gradient comes between two parts, since it is drawn for every step; otherwise there is one.
    """

    def __init__(
        self, state: State, data: Data, config: Config, speed: Speed, buffers: EpochBuffers, size: int
    ) -> None:
        self.state, self.data, self.config, self.buffers, self.size = state, data, config, buffers, size
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
        if uses_graphs(speed, data.device):
            with unchanged(state, buffers):
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
        buffers, index = self.buffers, self.index
        images = train.batch(self.data, index, buffers.crops)
        at_logits = None if buffers.at_logits is None else buffers.at_logits[index]
        self.state.network.zero_grad()
        if self.operands:
            self.operands.refresh()
        loss = self.mean_loss(images, buffers.noisy[index], at_logits)
        loss.backward()
        if self.operands:
            self.operands.hand_back()
        buffers.total += loss.detach() * self.size

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


def add_flat_noise(parameters: Iterable[nn.Parameter], sigma: float, generator: torch.Generator) -> None:
    """`method.add_gradient_noise` in two kernels, with other draws: one piece of noise for all gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sizes = [gradient.numel() for gradient in gradients]
    z = torch.randn(sum(sizes), generator=generator, device=generator.device).split(sizes)
    noise = [part.view_as(gradient) for part, gradient in zip(z, gradients, strict=True)]
    torch._foreach_add_(gradients, noise, alpha=sigma)


def count_batches(state: State, batches: int) -> None:
    """Count what `uncounted` left out."""
    counters = [b for n in state.networks.values() for b in n.buffers() if not b.is_floating_point()]
    if counters:
        torch._foreach_add_(counters, batches)


@contextlib.contextmanager
def unchanged(state: State, buffers: EpochBuffers) -> Iterator[None]:
    """Put back, in place, every number that steps inside change: weights, averages, momentum, the sum."""
    kept = {name: value.clone() for name, value in _changing(state, buffers).items()}
    try:
        yield
    finally:
        for name, value in _changing(state, buffers).items():
            if name in kept:
                value.copy_(kept[name])
            else:
                value.zero_()  # momentum that these steps began: zero is what the first step starts from


def _changing(state: State, buffers: EpochBuffers) -> dict[str, Tensor]:
    tensors = {n: t for n, t in state.tensors().items() if n not in ("targets", "epoch")}
    return tensors | {"total": buffers.total}
