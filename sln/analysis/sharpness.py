"""How sharp a minimum is, measured in several ways, because "flat" has several meanings.

Notation: theta (P,) all parameters of a network as one vector, L(theta) the mean cross-entropy over training
images, g = dL/dtheta, H its Hessian (P, P). MEASURES lists the measures.

Only filter_increase compares networks whose weights differ in scale. BatchNorm makes that scale arbitrary:
dividing the weights in front of a BatchNorm by 2 changes no output and multiplies their block of H by 4 (Dinh
et al., ICML 2017). Isotropic noise makes such weights grow, and so lowers all other measures. `squared_norm`
is |theta|^2.

BatchNorm is in training mode: L is the function that SGD descends, except that its statistics are over all
images used, in equal batches of at most STATISTICS_BATCH, not over a mini-batch. In evaluation mode the
running statistics stay fixed while theta moves; two measures in it are a control (CONTROLS).

The loss is a list of functions (P,) -> scalar, one per batch, that sum to it, so memory is that of one batch.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sln.analysis.landscape import STATISTICS_BATCH, EvaluationSet, filter_normalised, first_images
from sln.analysis.theory import as_function
from sln.datasets.load import threads
from sln.runs.run import Run
from sln.study.statistics import Estimate, MethodRuns, interval
from sln.utils.devices import device
from sln.utils.files import read_json, write_json
from sln.utils.progress import Progress
from sln.utils.rng import torch_generator

Parts = Sequence[Callable[[Tensor], Tensor]]
Product = Callable[[Tensor], Tensor]  # v (P,) -> H v (P,)

BATCH = 256  # images in one part, in evaluation mode
KEPT_VALUES = 1_000_000  # Hessian-vector products keep the gradient's graph up to this number of pixel values
SCALE_FREE = "filter_increase"
MEASURES = {  # names in figures
    SCALE_FREE: "mean rise, filter-normalised",  # of L(theta + d) - L(theta), |d| relative to the weights
    "eigenvalue_1": "largest eigenvalue of the Hessian",  # by Lanczos' method on products H v
    "trace": "trace of the Hessian",  # by Hutchinson's estimator
    "l2_increase": "mean rise, random directions",  # of one length
    "sam_increase": "rise of SAM’s step",  # L(theta + rho g/|g|) - L(theta) (Foret et al., ICLR 2021)
    "worst_increase": "worst rise found",  # that projected gradient ascent finds within |d| <= rho
}
CONTROLS = (SCALE_FREE, "eigenvalue_1")  # also measured in evaluation mode


def parameters_of(network: nn.Module) -> Tensor:
    """theta (P,): a copy of all parameters, in the order of `named_parameters`."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def loss_parts(network: nn.Module, images: Tensor, labels: Tensor, *, training: bool = True) -> Parts:
    """The mean cross-entropy of a network over normalised images (N, ...) and labels (N,), as parts.

    training : BatchNorm's statistics are those of a part's images, otherwise the running ones, which stay as
        they are. The parts share the network's mode: use those of one mode before asking for the other's.
    """
    network.train(training)
    named = dict(network.named_parameters())
    sizes = [parameter.numel() for parameter in named.values()]

    def part(theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        pieces = zip(named.items(), theta.split(sizes), strict=True)
        weights = {name: piece.view(parameter.shape) for (name, parameter), piece in pieces}
        _, logits = as_function(network, images)
        return F.cross_entropy(logits(weights), labels, reduction="sum") / count

    count = len(labels)
    number = math.ceil(count / (STATISTICS_BATCH if training else BATCH))
    batches = (x.tensor_split(number) for x in (images, labels.to(images.device)))
    return [functools.partial(part, images=x, labels=y) for x, y in zip(*batches, strict=True)]


@torch.no_grad()
def value(parts: Parts, theta: Tensor) -> float:
    """L(theta)."""
    return sum(part(theta).item() for part in parts)


def gradients(parts: Parts, theta: Tensor, *, create_graph: bool = False) -> Iterator[Tensor]:
    """g (P,) as parts that sum to it; theta must require gradients."""
    return (torch.autograd.grad(part(theta), theta, create_graph=create_graph)[0] for part in parts)


def hessian_product(parts: Parts, theta: Tensor, *, keep: bool = True) -> Product:
    """v -> H v = d(g . v)/dtheta.

    keep : compute g with its graph once, and hold the graphs of all parts: half the time, more memory.
        Otherwise compute it per product, as the library curvlinops does, which the tests compare with.
    """
    theta = theta.detach().requires_grad_()
    graphs = functools.partial(gradients, parts, theta, create_graph=True)
    kept = list(graphs()) if keep else None
    return lambda v: sum(torch.autograd.grad(g, theta, v, retain_graph=keep)[0] for g in kept or graphs())


def largest_eigenvalues(
    product: Product, theta: Tensor, k: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """The k largest (most positive) eigenvalues (k,), falling, and eigenvectors (P, k): Lanczos' method.

    It stops at |H v - lambda v| <= lambda / 1000; the eigenvalues err by about the square of that. It can
    miss one of several close eigenvalues, like all Krylov methods with a single (here random) start.
    """
    size = len(theta)
    start = torch.randn(size, generator=generator, dtype=theta.dtype).numpy()

    def matvec(v: np.ndarray) -> np.ndarray:
        return product(torch.as_tensor(v, dtype=theta.dtype, device=theta.device).ravel()).cpu().numpy()

    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=matvec, dtype=start.dtype)
    basis = min(size, 3 * k + 1)  # Lanczos vectors: enough on the study's trained networks without a restart
    values, vectors = scipy.sparse.linalg.eigsh(operator, k, which="LA", tol=1e-3, ncv=basis, v0=start)
    order = np.argsort(values)[::-1].copy()
    return torch.from_numpy(values[order]), torch.from_numpy(vectors[:, order]).to(theta.device)


def trace(product: Product, values: Tensor, vectors: Tensor, probes: int, generator: Generator) -> float:
    """tr H = sum_i lambda_i + E[q' H q], q = (I - V V') z, z of random signs: Hutchinson's estimator.

    The largest eigenvalues, `values` (k,) with eigenvectors V (P, k), are taken out, so that the variance
    comes from the others only, as in Meyer et al.'s Hutch++ (SOSA 2021).
    """
    found = values.sum().item()
    for _ in range(probes):
        z = (torch.randint(0, 2, (len(vectors),), generator=generator) * 2 - 1).to(vectors)
        q = z - vectors @ (vectors.T @ z)
        found += (q @ product(q)).item() / probes
    return found


def hessian(parts: Parts, theta: Tensor, *, k: int, probes: int, keep: bool) -> dict[str, float]:
    """`eigenvalue_1` to `eigenvalue_k` and `trace` (of that many probes), in the precision of the loss."""
    product = hessian_product(parts, theta, keep=keep)
    values, vectors = largest_eigenvalues(product, theta, k, torch_generator(0, "landscape", 2))
    found = {f"eigenvalue_{i + 1}": value for i, value in enumerate(values.tolist())}
    return found | {"trace": trace(product, values, vectors, probes, torch_generator(0, "landscape", 3))}


def average_increase(parts: Parts, theta: Tensor, rho: float, directions: int, generator: Generator) -> float:
    """Mean of L(theta + d) - L(theta) over `directions` random d, |d| = rho, and their opposites.

    In thousands of dimensions nearly all of a ball lies at its surface, so this is also the mean within rho.
    The opposites take g out: for small rho this is rho^2 tr(H) / (2 P).
    """
    draws = (torch.randn(len(theta), generator=generator, dtype=theta.dtype) for _ in range(directions))
    moves = [rho * z / z.norm() for z in (draw.to(theta.device) for draw in draws)]
    return _mean_increase(parts, theta, moves)


def filter_increase(parts: Parts, network: nn.Module, rho: float, directions: int) -> float:
    """The same along the first of `landscape.directions(network, k)` each; rho is in filters' own norms."""
    generators = (torch_generator(seed, "landscape", 0) for seed in range(directions))
    found = (filter_normalised(network, generator).values() for generator in generators)
    moves = [rho * torch.cat([d.flatten() for d in direction]) for direction in found]
    return _mean_increase(parts, parameters_of(network), moves)


def _mean_increase(parts: Parts, theta: Tensor, moves: Sequence[Tensor]) -> float:
    around = [value(parts, theta + sign * move) for move in moves for sign in (1, -1)]
    return float(np.mean(around)) - value(parts, theta)


def worst_increase(parts: Parts, theta: Tensor, rho: float, steps: int = 0) -> float:
    """The largest L(theta + d) - L(theta) found within |d| <= rho, from SAM's d = rho g/|g| on.

    Each of the `steps` of projected gradient ascent moves by rho/2 along the gradient there, and back to the
    sphere if outside the ball. More steps never find less.
    """
    start, best = value(parts, theta), -np.inf
    d, step = torch.zeros_like(theta), rho
    for _ in range(steps + 1):
        g = sum(gradients(parts, (theta + d).requires_grad_()))
        d = d + step * g / g.norm().clamp_min(torch.finfo(g.dtype).tiny)
        d = d * (rho / d.norm().clamp_min(rho))
        best, step = max(best, value(parts, theta + d) - start), rho / 2
    return best


def measures_of(run: Run, weights: str, *, images: int = 0, **size: float) -> dict[str, float]:
    """`measure` of one network over its run's first training images (0: all), cached beside the run."""
    sizes = [f"{name}{size[name]:g}" for name in sorted(size)]
    name = "-".join([weights, "given-batch-statistics", *sizes]) + f"-images{images}" * bool(images)
    path = run.folder / "sharpness" / f"{name}.json"
    if not path.exists():
        seen = EvaluationSet(first_images(run.data, images))
        write_json(path, measure(run.network(weights).to(device()), seen.train, seen.given, **size))
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
    k: int = 1,
    probes: int = 4,
) -> dict[str, float]:
    """All measures of one network, the loss at the centre, |theta|^2, and the controls.

    images, labels : (N, ...) normalised, (N,)
    rho : the adversary's radius, SAM's default; length : of random moves; radius : of filter-normalised moves
    directions : random ones of each kind; steps : of projected ascent after SAM's; k, probes : of `hessian`
    CONTROLS in evaluation mode have the ending "_evaluation".
    """
    theta, keep = parameters_of(network), images.numel() <= KEPT_VALUES
    parts = loss_parts(network, images, labels)
    found = {"loss": value(parts, theta), "squared_norm": theta.square().sum().item()}
    found |= hessian(parts, theta, k=k, probes=probes, keep=keep)
    generator = torch_generator(0, "landscape", 4)
    found["l2_increase"] = average_increase(parts, theta, length, directions, generator)
    found["filter_increase"] = filter_increase(parts, network, radius, directions)
    found["sam_increase"] = worst_increase(parts, theta, rho)
    found["worst_increase"] = worst_increase(parts, theta, rho, steps)
    parts = loss_parts(network, images, labels, training=False)
    found["eigenvalue_1_evaluation"] = hessian(parts, theta, k=1, probes=0, keep=keep)["eigenvalue_1"]
    found["filter_increase_evaluation"] = filter_increase(parts, network, radius, directions)
    return found


def table(methods: Mapping[str, MethodRuns], seeds: int | None = None, **options: float) -> pd.DataFrame:
    """`measures_of` each network with these `options`, one row per method and seed (the first `seeds`)."""
    networks = [(name, m.weights, run) for name, m in methods.items() for run in m.runs[:seeds]]
    rows = []
    with Progress(len(networks), "sharpness", "networks") as progress:
        for name, weights, run in networks:
            rows.append({"method": name, "seed": run.config.seed} | measures_of(run, weights, **options))
            progress.advance()
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds: one row per measure and method; the last measure is |theta|^2.

    scale_free : whether the measure compares networks whose weights differ in scale
    relative, relative_std : divided by CE's mean; evaluation : the mean in evaluation mode, of CONTROLS
    ratio, low, high : of the row's method to SLN, paired over seeds (`compared`)
    seeds : their number
    compared : "ratio", or "difference" where a value is not positive
    verdict : whether SLN is flatter than the row's method (`Estimate.verdict`); empty for SLN and |theta|^2
    """
    rows, by_seed = [], table.pivot(index="seed", columns="method")
    for measure, method in itertools.product((*MEASURES, "squared_norm"), table["method"].unique()):
        values, scale = by_seed[measure][method], abs(by_seed[measure]["CE"].mean())
        row = {"measure": measure, "method": method, "scale_free": measure == SCALE_FREE}
        row |= {"mean": values.mean(), "std": values.std(), "seeds": values.count()}
        row |= {"relative": row["mean"] / scale, "relative_std": row["std"] / scale}
        if measure in CONTROLS:
            row["evaluation"] = by_seed[f"{measure}_evaluation"][method].mean()
        if method != "SLN":
            found, apart = compared(values, by_seed[measure]["SLN"])
            row |= found.row("ratio") | {"compared": "difference" if found is apart else "ratio"}
            row["verdict"] = apart.verdict() if measure in MEASURES else ""
        rows.append(row)
    return pd.DataFrame(rows).fillna({"verdict": "", "compared": ""})


def means(summary: pd.DataFrame) -> pd.DataFrame:
    """The means of `summary`: a row per method, a column per measure, then CONTROLS in evaluation mode."""
    order = {"index": "method", "columns": "measure"}
    wide = summary.pivot(**order, values="mean")[summary["measure"].unique()].rename(columns=MEASURES)
    control = summary.pivot(**order, values="evaluation")[list(CONTROLS)].rename(columns=MEASURES)
    return wide.join(control.add_suffix(", evaluation mode")).loc[summary["method"].unique()]


def compared(values: pd.Series, ours: pd.Series) -> tuple[Estimate, Estimate]:
    """values / ours over seeds, a geometric mean, and its logarithm, positive if ours is smaller.

    A verdict is read from the latter. If a value is not positive, both are of differences.
    """
    both = pd.concat([values, ours], axis=1).dropna().to_numpy().T
    if both.min() <= 0:
        return (interval(both[0] - both[1]),) * 2
    apart = interval(np.log(both[0] / both[1]))
    with np.errstate(over="ignore"):  # one seed: from 0 to infinity
        mean, low, high = np.exp([apart.mean, apart.low, apart.high]).tolist()
    return Estimate(mean, low, high, apart.std, apart.seeds), apart


def describe(summary: pd.DataFrame) -> str:
    """The verdicts of `summary` in words: the scale-free measure first, then how many of the others agree."""
    lines = []
    for method, part in summary[summary["verdict"] != ""].groupby("method", sort=False):
        lead, others = part[part["scale_free"]].iloc[0], part[~part["scale_free"]]["verdict"]
        counts = ", ".join(f"{verdict} ({n})" for verdict, n in others.value_counts().items())
        lines.append(
            f"SLN flatter than {method}: {lead['verdict']} by the scale-free measure "
            f"(ratio {lead['ratio']:.3g} [{lead['low']:.3g}, {lead['high']:.3g}]); "
            f"by the {len(others)} others: {counts}."
        )
    return "\n".join(lines)
