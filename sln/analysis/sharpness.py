"""How sharp a minimum is, measured in several ways, because "flat" has several meanings.

Notation: theta (P,) all parameters of a network as one vector, L(theta) the mean cross-entropy over training
images in evaluation mode (BatchNorm's statistics fixed), g = dL/dtheta, H its Hessian (P, P).

eigenvalue_1 ... : the largest eigenvalues of H, by Lanczos' method on products H v
trace : of H, by Hutchinson's estimator
l2_increase : mean of L(theta + d) - L(theta) over random d of one length
filter_increase : the same along filter-normalised directions (`landscape`), whose step is relative
sam_increase : L(theta + rho g/|g|) - L(theta), the ascent step of Foret et al., ICLR 2021 (SAM)
worst_increase : the largest L(theta + d) - L(theta) that projected gradient ascent finds within |d| <= rho

All except filter_increase depend on the weights' scale, which BatchNorm makes arbitrary: dividing the weights
in front of a BatchNorm by 2 changes no output and multiplies their block of H by 4 (Dinh et al., ICML 2017).
So the verdict "flatter" is given measure by measure.

The loss is a list of functions (P,) -> scalar, one per batch, that sum to it, so memory is that of one batch.
Hessian-vector products may keep the graphs: half the time, more memory. The tests compare the eigenvalues
with those of the library curvlinops, which builds the gradient's graph again for every product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.func import functional_call

from sln.analysis.landscape import EvaluationSet, filter_normalised, first_images
from sln.datasets.load import threads
from sln.runs.run import Run
from sln.study.statistics import MethodRuns
from sln.utils.devices import device
from sln.utils.errors import choose
from sln.utils.files import read_json, write_json
from sln.utils.progress import Progress
from sln.utils.rng import torch_generator

Parts = Sequence[Callable[[Tensor], Tensor]]
Product = Callable[[Tensor], Tensor]  # v (P,) -> H v (P,)

BATCH = 256  # images in one part
# Hessian-vector products keep the gradient's graph up to this number of pixel values
KEPT_VALUES = 1_000_000

# The measures' names in figures.
MEASURES = {
    "eigenvalue_1": "largest eigenvalue of the Hessian",
    "trace": "trace of the Hessian",
    "l2_increase": "mean rise, random directions",
    "filter_increase": "mean rise, filter-normalised",
    "sam_increase": "rise of SAM’s step",
    "worst_increase": "worst rise found",
}


# --- the loss as a function of one vector -------------------------------------------------------------------


def parameters_of(network: nn.Module) -> Tensor:
    """theta (P,): a copy of all parameters, in the order of `named_parameters`."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def loss_parts(network: nn.Module, images: Tensor, labels: Tensor) -> Parts:
    """The mean cross-entropy of a network over normalised images (N, ...) and labels (N,), as parts."""
    network.eval()
    names = [name for name, _ in network.named_parameters()]
    shapes = [parameter.shape for parameter in network.parameters()]
    sizes = [shape.numel() for shape in shapes]

    def part(theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        pieces = (v.view(shape) for v, shape in zip(theta.split(sizes), shapes, strict=True))
        logits = functional_call(network, dict(zip(names, pieces, strict=True)), (images,))
        return F.cross_entropy(logits, labels, reduction="sum") / count

    count = len(labels)
    batches = zip(images.split(BATCH), labels.to(images.device).split(BATCH), strict=True)
    return [functools.partial(part, images=x, labels=y) for x, y in batches]


@torch.no_grad()
def value(parts: Parts, theta: Tensor) -> float:
    """L(theta)."""
    return sum(part(theta).item() for part in parts)


def gradient(parts: Parts, theta: Tensor) -> Tensor:
    """g (P,)."""
    theta = theta.detach().requires_grad_()
    return sum(torch.autograd.grad(part(theta), theta)[0] for part in parts)


# --- the Hessian --------------------------------------------------------------------------------------------


def hessian_product(parts: Parts, theta: Tensor, *, keep: bool = True) -> Product:
    """v -> H v = d(g . v)/dtheta.

    keep : compute g with its graph once, and hold the graphs of all parts; otherwise compute it per product
    """
    theta = theta.detach().requires_grad_()
    graph = lambda part: torch.autograd.grad(part(theta), theta, create_graph=True)[0]  # noqa: E731
    graphs = [graph(part) for part in parts] if keep else None

    def product(v: Tensor) -> Tensor:
        gradients = graphs if graphs is not None else map(graph, parts)
        return sum(torch.autograd.grad(g, theta, v, retain_graph=keep)[0] for g in gradients)

    return product


def largest_eigenvalues(
    product: Product, theta: Tensor, k: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The k largest (most positive) eigenvalues (k,), falling, and eigenvectors (P, k): Lanczos' method.

    It stops at |H v - lambda v| <= lambda / 1000; the eigenvalues err by about the square of that. It can
    miss one of several close eigenvalues, like all Krylov methods with a single start.
    generator : draws the starting vector
    """
    size = len(theta)
    start = torch.randn(size, generator=generator, dtype=theta.dtype)

    def matvec(v: np.ndarray) -> np.ndarray:
        return product(torch.as_tensor(v, dtype=theta.dtype, device=theta.device).ravel()).cpu().numpy()

    operator = LinearOperator((size, size), matvec=matvec, dtype=start.numpy().dtype)
    basis = min(size, 3 * k + 1)  # Lanczos vectors: enough on the study's trained networks without a restart
    values, vectors = eigsh(operator, k, which="LA", tol=1e-3, ncv=basis, v0=start.numpy())
    order = np.argsort(values)[::-1].copy()
    return torch.from_numpy(values[order]), torch.from_numpy(vectors[:, order]).to(theta.device)


def trace(
    product: Product, values: Tensor, vectors: Tensor, probes: int, generator: torch.Generator
) -> float:
    """tr H = sum_i lambda_i + E[q' H q], q = (I - V V') z, z of random signs: Hutchinson's estimator.

    The largest eigenvalues, `values` (k,) with eigenvectors V (P, k), are taken out, so that the variance
    comes from the others only, as in Meyer et al.'s Hutch++ (SOSA 2021).
    """
    found = values.sum().item()
    for _ in range(probes):
        signs = torch.randint(0, 2, (len(vectors),), generator=generator) * 2 - 1
        z = signs.to(vectors)
        q = z - vectors @ (vectors.T @ z)
        found += (q @ product(q)).item() / probes
    return found


def hessian(
    parts: Parts, theta: Tensor, *, k: int, probes: int, keep: bool, seed: int = 0
) -> dict[str, float]:
    """`eigenvalue_1` to `eigenvalue_k` and `trace` of the Hessian, in the precision of the loss.

    probes : of Hutchinson's estimator
    keep : of `hessian_product`
    seed : of the random vectors
    """
    product = hessian_product(parts, theta, keep=keep)
    values, vectors = largest_eigenvalues(product, theta, k, torch_generator(seed, "landscape", 2))
    found = {f"eigenvalue_{i + 1}": value for i, value in enumerate(values.tolist())}
    return found | {"trace": trace(product, values, vectors, probes, torch_generator(seed, "landscape", 3))}


# --- how the loss rises nearby ------------------------------------------------------------------------------


def average_increase(
    parts: Parts, theta: Tensor, rho: float, directions: int, generator: torch.Generator
) -> float:
    """Mean of L(theta + d) - L(theta) over `directions` random d, |d| = rho, and their opposites.

    In thousands of dimensions nearly all of a ball lies at its surface, so this is also the mean within rho.
    The opposites take g out: for small rho this is rho^2 tr(H) / (2 P).
    """
    moves = []
    for _ in range(directions):
        z = torch.randn(len(theta), generator=generator, dtype=theta.dtype).to(theta.device)
        moves.append(rho * z / z.norm())
    return mean_increase(parts, theta, moves)


def filter_increase(parts: Parts, network: nn.Module, rho: float, directions: int, seed: int = 0) -> float:
    """The same along filter-normalised directions: a step of rho is rho of every filter's own norm.

    The k-th direction is the first of the k-th pair of `landscape.directions`, drawn from the same numbers
    for every network.
    """
    moves = []
    for number in range(seed, seed + directions):
        direction = filter_normalised(network, torch_generator(number, "landscape", 0))
        moves.append(rho * torch.cat([d.flatten() for d in direction.values()]))
    return mean_increase(parts, parameters_of(network), moves)


def mean_increase(parts: Parts, theta: Tensor, moves: Sequence[Tensor]) -> float:
    """Mean of L(theta + d) - L(theta) over the moves d and -d."""
    around = [value(parts, theta + sign * move) for move in moves for sign in (1, -1)]
    return float(np.mean(around)) - value(parts, theta)


def worst_increase(parts: Parts, theta: Tensor, rho: float, steps: int = 0) -> float:
    """The largest L(theta + d) - L(theta) found within |d| <= rho.

    It starts from SAM's d = rho g/|g|. Each of the `steps` of projected gradient ascent moves by rho/2 along
    the gradient there, and back to the sphere if outside the ball. The result is the largest of all, so more
    steps never find less.
    """
    start, best = value(parts, theta), -np.inf
    d, step = torch.zeros_like(theta), rho
    for _ in range(steps + 1):
        g = gradient(parts, theta + d)
        d = d + step * g / g.norm().clamp_min(torch.finfo(g.dtype).tiny)
        d = d * (rho / d.norm().clamp_min(rho))
        best, step = max(best, value(parts, theta + d) - start), rho / 2
    return best


# --- tables -------------------------------------------------------------------------------------------------


def measures_of(
    run: Run, weights: str, *, labels: str = "given", images: int = 0, **size: float
) -> dict[str, float]:
    """All measures of one network over its run's first training images (0: all), cached beside the run.

    labels : "given" or "true"; the latter without images of no class
    size : the arguments of `measure` from `rho` on
    """
    choose("labels", labels, ("given", "true"))
    sizes = "-".join(f"{name}{size[name]:g}" for name in sorted(size))
    name = "-".join(filter(None, (weights, labels, sizes, f"images{images}" if images else "")))
    path = run.folder / "sharpness" / f"{name}.json"
    if not path.exists():
        all_images = EvaluationSet.of(first_images(run.data, images))
        target = all_images.true if labels == "true" else all_images.given
        known = target >= 0
        network = run.network(weights).to(device())
        pixels = all_images.train[known.to(all_images.train.device)]
        write_json(path, measure(network, pixels, target[known], **size))
    return read_json(path)


@threads(1)
def measure(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    rho: float = 0.05,
    length: float = 1.0,
    radius: float = 0.25,
    directions: int = 4,
    steps: int = 5,
    k: int = 5,
    probes: int = 6,
) -> dict[str, float]:
    """All measures of one network, and the loss at the centre.

    images, labels : (N, ...) normalised, (N,)
    rho : the adversary's radius, SAM's default; length : of random moves; radius : of filter-normalised moves
    directions : random ones of each kind; steps : of projected ascent after SAM's
    k, probes : of `hessian`
    """
    theta, parts = parameters_of(network), loss_parts(network, images, labels)
    generator, keep = torch_generator(0, "landscape", 4), images.numel() <= KEPT_VALUES
    return {
        "loss": value(parts, theta),
        **hessian(parts, theta, k=k, probes=probes, keep=keep),
        "l2_increase": average_increase(parts, theta, length, directions, generator),
        "filter_increase": filter_increase(parts, network, radius, directions),
        "sam_increase": worst_increase(parts, theta, rho),
        "worst_increase": worst_increase(parts, theta, rho, steps),
    }


def table(methods: Mapping[str, MethodRuns], seeds: int | None = None, **options: Any) -> pd.DataFrame:
    """`measures_of` each network with these `options`, one row per method and seed (the first `seeds`)."""
    networks = [(name, m.weights, run) for name, m in methods.items() for run in m.runs[:seeds]]
    rows = []
    with Progress(len(networks), "sharpness", "networks") as progress:
        for name, weights, run in networks:
            rows.append({"method": name, "seed": run.config.seed} | measures_of(run, weights, **options))
            progress.advance()
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, flatter: str = "SLN", than: str = "CE") -> pd.DataFrame:
    """Mean and standard deviation over seeds: one row per measure and method, and a verdict per measure.

    relative, relative_std : divided by the mean of the method `than`
    verdict : of the claim that the method `flatter` is flatter than `than` by this measure. "holds" or "does
        not hold" if their means differ by more than both standard deviations together (the bars mean ± std
        do not overlap), else "unclear".
    """
    parts = []
    for measure in MEASURES:
        by_method = table.groupby("method", sort=False)[measure]
        part = pd.DataFrame({"mean": by_method.mean(), "std": by_method.std()})
        scale = abs(part["mean"][than])
        part["relative"], part["relative_std"] = part["mean"] / scale, part["std"] / scale
        parts.append(part.reset_index().assign(measure=measure, verdict=verdict(part, flatter, than)))
    together = pd.concat(parts, ignore_index=True)
    return together[["measure", "method", "mean", "std", "relative", "relative_std", "verdict"]]


def verdict(part: pd.DataFrame, flatter: str, than: str) -> str:
    """See `summary`; `part` has mean and std by method. One seed has no spread, so it is unclear."""
    difference = part["mean"][than] - part["mean"][flatter]
    spread = part["std"][than] + part["std"][flatter]
    if difference > spread:
        return "holds"
    return "does not hold" if -difference > spread else "unclear"
