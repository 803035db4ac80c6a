"""The covariances of the paper's gradient noise: exact, and from draws.

Notation: theta the P parameters, f (B, C) the logits of a mini-batch of B examples, p = softmax(f), and
J_i (C, P) = d f_i / d theta, the Jacobian of the logits of example i. Each of the three variants adds noise
of mean zero to the gradient of the mini-batch's mean loss. Its covariance (P, P), for fresh z, is

    1 "gradient" : noise on the parameter gradient, sigma^2 I
    2 "logits"   : noise on the gradient at the logits, sigma^2 / B^2 sum_i J_i' J_i
    3 "labels"   : noise on the labels (SLN), 1 / B^2 sum_i J_i' Sigma_i J_i

with Sigma_i = sigma^2 (I - 1 p' - p 1' + C p p') of `method.label_noise_covariance`, which makes the third
sigma^2 / B^2 sum_i sum_c (grad log p_ic) (grad log p_ic)'. With B = 1 they are the paper's. Given theta the
noise is linear in z, so it is exactly Gaussian; it does not depend on the targets.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from sln import method
from sln.data import Data
from sln.datasets.load import threads
from sln.runs.run import Run
from sln.utils.rng import torch_generator

VARIANTS = ("gradient", "logits", "labels")  # Config.noise_on: variants 1, 2 and 3 of the paper
# Channels of the two convolutions of `small_network`: 122, 521 and 1,956 parameters for ten classes.
SIZES = ((2, 3), (5, 8), (10, 18))
EDGES = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1)  # bins of confidence

Parameters = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]  # images (B, channels, H, W), targets (B, C)


def as_function(network: nn.Module, images: Tensor) -> tuple[Parameters, Callable[[Parameters], Tensor]]:
    """theta, and f(theta), logits (B, C) of normalised images (B, ...), in the network's mode.

    In training mode f_i, and so J_i, depends on theta through the batch's statistics too. Running ones stay.
    """

    def f(theta: Parameters) -> Tensor:
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        return functional_call(network, theta | buffers, (images,))

    return {name: value.detach() for name, value in network.named_parameters()}, f


def jacobian(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C) and J (B, C, P), whose B C P numbers must fit in memory."""
    theta, f = as_function(network, images)
    return f(theta), torch.cat([part.flatten(start_dim=2) for part in jacrev(f)(theta).values()], dim=2)


def at_logits(network: nn.Module, images: Tensor, noise_on: str, sigma: float) -> tuple[Tensor, Tensor]:
    """J (B, C, P), and Sigma (B, C, C) of each example's noise at the logits, for variants 2 and 3."""
    logits, J = jacobian(network, images)
    if noise_on == "logits":
        return J, sigma**2 * torch.eye(logits.shape[1]).to(logits).expand(len(logits), -1, -1)
    return J, method.label_noise_covariance(F.softmax(logits, dim=1), sigma)


def noise_covariance(network: nn.Module, images: Tensor, noise_on: str, sigma: float) -> Tensor:
    """(P, P): covariance of the noise of one of VARIANTS in the gradient of the mini-batch's mean loss."""
    if noise_on == "gradient":
        return sigma**2 * torch.eye(parameter_count(network)).to(images)
    J, Sigma = at_logits(network, images, noise_on, sigma)
    return J.flatten(end_dim=1).T @ (Sigma @ J).flatten(end_dim=1) / len(images) ** 2


def expected_squared_norm(network: nn.Module, images: Tensor, noise_on: str, sigma: float) -> float:
    """E|noise|^2, the trace of `noise_covariance`, without a (P, P) matrix."""
    if noise_on == "gradient":
        return sigma**2 * parameter_count(network)
    J, Sigma = at_logits(network, images, noise_on, sigma)
    return (Sigma * (J @ J.mT)).sum().item() / len(images) ** 2


def parameter_count(network: nn.Module) -> int:
    """P, the number of parameters."""
    return sum(value.numel() for value in network.parameters())


def drawn_noise(
    network: nn.Module, batch: Batch, noise_on: str, sigma: float, draws: int, generator: Generator
) -> Tensor:
    """(draws, P): the gradient with fresh noise, minus that without, by the functions of `train_epoch`."""
    images, targets = batch
    theta, f = as_function(network, images)

    def loss(theta: Parameters, z: Tensor) -> Tensor:
        logits = f(theta)
        if noise_on == "labels":
            return method.soft_cross_entropy(logits, method.noisy_labels(targets, sigma, z)).mean()
        losses = method.soft_cross_entropy(logits, targets)
        return (losses + method.logit_noise(logits, sigma, z)).mean()

    clean = grad(loss)(theta, torch.zeros_like(targets))
    if noise_on == "gradient":  # drawn entry by entry, so `draws` stacked copies of a gradient are one
        stacked = {name: g.expand(draws, *g.shape).clone() for name, g in clean.items()}
        for copies in stacked.values():
            copies.grad = copies.clone()
        method.add_gradient_noise(stacked.values(), sigma, generator)
        noisy = {name: copies.grad for name, copies in stacked.items()}
    else:
        z = torch.randn(draws, *targets.shape, generator=generator, dtype=targets.dtype)
        noisy = vmap(grad(loss), in_dims=(None, 0), chunk_size=500)(theta, z)
    return torch.cat([(noisy[name] - clean[name]).flatten(start_dim=1) for name in theta], dim=1)


def errors(noise: Tensor, covariance: Tensor) -> dict[str, float]:
    """Distance of drawn noise (draws, n) from mean zero and covariance S (n, n).

    frobenius_error : |S_drawn - S|_F / |S|_F
    expected_error : its root mean square from sampling alone, sqrt((tr(S)^2 + |S|_F^2) / draws) / |S|_F,
        exact for Gaussian noise of known mean
    error_ratio : frobenius_error / expected_error, about 1
    norm_error : (mean of |noise|^2 - tr(S)) / its standard error sqrt(2 / draws) |S|_F
    mean_error : length of the mean noise / its standard error sqrt(tr(S) / draws), about 1
    """
    draws, trace, size = len(noise), covariance.trace(), torch.linalg.norm(covariance)
    error = torch.linalg.norm(noise.T @ noise / draws - covariance) / size
    expected = ((trace**2 + size**2) / draws).sqrt() / size
    found = {"frobenius_error": error, "expected_error": expected, "error_ratio": error / expected}
    found["norm_error"] = (noise.square().sum() / draws - trace) / (size * (2 / draws) ** 0.5)
    found["mean_error"] = noise.mean(dim=0).norm() / (trace / draws).sqrt()
    return {name: value.item() for name, value in found.items()}


def describe_errors(table: pd.DataFrame) -> str:
    """The errors of `verification` or `covariance_check` in words."""
    ratio, norm, mean = table["error_ratio"], table["norm_error"].abs().max(), table["mean_error"].max()
    return (
        f"{len(table)} covariances: the error is {ratio.min():.2f} to {ratio.max():.2f} times what sampling "
        f"alone makes. E|noise|² is off the trace by at most {norm:.1f} standard errors, the mean of the "
        f"noise off zero by at most {mean:.1f}."
    )


def within_sampling_error(table: pd.DataFrame) -> bool:
    """Whether all errors of `verification` or `covariance_check` are below 3 times the expected ones."""
    # norm_error below 4: it is one nearly normal number, so among many rows some reach 3
    small = table["error_ratio"].lt(3) & table["mean_error"].lt(3) & table["norm_error"].abs().lt(4)
    return bool(small.all())


@threads(1)
def verification(
    networks: Sequence[nn.Module], images: Tensor, targets: Tensor, sigma: float, draws: int
) -> pd.DataFrame:
    """Exact against drawn covariance in parameter space: networks x (one example, mini-batch) x variants.

    The one example is that of the most confident prediction, in evaluation mode; the mini-batch is all images
    (B, channels, H, W), targets (B, C), in training mode. Columns: parameters, batch, noise_on, and `errors`.
    """
    rows = []
    for number, network in enumerate(networks):
        with torch.no_grad():
            top = network.eval()(images).softmax(dim=1).amax(dim=1).argmax()
        for training, index in ((False, top.view(1)), (True, torch.arange(len(images)))):
            network.train(training)
            for variant, noise_on in enumerate(VARIANTS):
                generator = torch_generator(0, "bootstrap", number, int(training), variant)
                S = noise_covariance(network, images[index], noise_on, sigma)
                batch = images[index], targets[index]
                found = errors(drawn_noise(network, batch, noise_on, sigma, draws, generator), S)
                rows.append({"parameters": len(S), "batch": len(index), "noise_on": noise_on} | found)
        network.eval()
    return pd.DataFrame(rows)


@threads(1)
def expected_norms(networks: Sequence[nn.Module], images: Tensor, sigma: float) -> pd.DataFrame:
    """E|noise|^2 on one mini-batch in training mode, exactly: one row per network and variant."""
    # matched_sigma: where the variant's noise is as large as SLN's at `sigma`
    rows = []
    for network in networks:
        norms = {name: expected_squared_norm(network.train(), images, name, sigma) for name in VARIANTS}
        for name, norm in norms.items():
            rows.append(
                (parameter_count(network.eval()), name, norm, sigma * (norms["labels"] / norm) ** 0.5)
            )
    return pd.DataFrame(rows, columns=["parameters", "noise_on", "expected_squared_norm", "matched_sigma"])


def small_images(data: Data, count: int) -> Batch:
    """The first training images (count, 1, 8, 8) float64, grey, averaged down; their labels (count, C)."""
    split = data.train[:count]
    grey = data.normalise(split.images.cpu()).double().mean(dim=1, keepdim=True)
    return F.adaptive_avg_pool2d(grey, 8), F.one_hot(split.given, data.num_classes).double()


def small_network(channels: tuple[int, int], num_classes: int, seed: int = 0) -> nn.Module:
    """`models.SmallCNN` with only two convolutions, float64: small enough for a (P, P) matrix."""
    with torch.random.fork_rng(devices=[]):  # torch's initialisers use the global generator
        torch.random.set_rng_state(torch_generator(seed, "initialisation").get_state())
        first, second = (
            (nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
            for inputs, outputs in itertools.pairwise((1, *channels))
        )
        last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)
        return nn.Sequential(*first, nn.MaxPool2d(2), *second, *last).double()


@threads(1)
def fitted(network: nn.Module, images: Tensor, targets: Tensor, steps: int = 100) -> nn.Module:
    """The network after full-batch descent on (images, targets), so that its confidences differ."""
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.3, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        method.soft_cross_entropy(network(images), targets).mean().backward()
        optimizer.step()
    return network.eval()


def fitted_networks(images: Tensor, targets: Tensor) -> list[nn.Module]:
    """`small_network` of each of SIZES, `fitted`."""
    return [fitted(small_network(channels, targets.shape[1]), images, targets) for channels in SIZES]


@threads(1)
def by_confidence(network: nn.Module, images: Tensor, sigma: float) -> pd.DataFrame:
    """E|noise|^2 in the parameter gradient of each image by itself (N rows), in evaluation mode.

    confidence : largest p; logit_variance : of SLN's noise at that class's logit, sigma^2 (1 - 2 p + C p^2)
    labels : SLN, tr(Sigma_i J_i J_i'); logits : variant 2, sigma^2 |J_i|_F^2; ratio : labels / logits
    bound : C |p|^2, the largest eigenvalue of Sigma_i / sigma^2 and the largest possible ratio
    ratio_at_logits : tr(Sigma_i) / (sigma^2 C), the ratio if J_i J_i' were proportional to I
    ratio_of_differences : tr(Sigma_i) / (sigma^2 (C - 1)), the same for I - 1 1' / C: if theta moved all
        differences of logits equally and never their mean
    common : share of |J_i|_F^2 that moves all logits equally, 1' J_i J_i' 1 / (C |J_i|_F^2). Softmax does not
        change there, and SLN has no noise there because Sigma_i 1 = 0; variant 2 has
    logit_size : squared length of the logits around their mean over classes
    """

    def product(image: Tensor) -> Tensor:
        J = jacobian(network, image.unsqueeze(0))[1][0]
        return J @ J.T

    theta, f = as_function(network.eval(), images)
    logits = f(theta).double()
    # Jacobians computed at the same time have at most two million columns together
    JJ = vmap(product, chunk_size=max(1, 2_000_000 // parameter_count(network)))(images).double()
    C, p = logits.shape[1], F.softmax(logits, dim=1)
    top, squared = p.max(dim=1), JJ.diagonal(dim1=1, dim2=2).sum(dim=1)  # |J_i|_F^2
    Sigma = method.label_noise_covariance(p, sigma)
    variances = Sigma.diagonal(dim1=1, dim2=2)
    labels, of_logits = (Sigma * JJ).sum(dim=(1, 2)), sigma**2 * squared
    columns = {"confidence": top.values, "logit_variance": variances.gather(1, top.indices[:, None])[:, 0]}
    columns |= {"labels": labels, "logits": of_logits, "ratio": labels / of_logits}
    columns["bound"] = C * p.square().sum(dim=1)
    columns["ratio_at_logits"] = variances.sum(dim=1) / (sigma**2 * C)
    columns["ratio_of_differences"] = variances.sum(dim=1) / (sigma**2 * (C - 1))
    columns["common"] = JJ.sum(dim=(1, 2)) / (C * squared)
    columns["logit_size"] = logits.var(dim=1, correction=0) * C
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def over_test_images(runs: Mapping[str, Run], count: int = 300) -> dict[str, pd.DataFrame]:
    """`by_confidence` at sigma = 1 for each run's network and its first `count` test images."""
    return {
        name: by_confidence(run.network(), run.data.normalise(run.data.test.images[:count]), sigma=1.0)
        for name, run in runs.items()
    }


def describe_by_confidence(tables: Mapping[str, pd.DataFrame], bins: Mapping[str, pd.DataFrame]) -> str:
    """How E|noise|^2 grows from the least to the most confident bin (`binned`), one line per network."""
    lines = []
    for name, table in tables.items():
        first, last = bins[name].iloc[0], bins[name].iloc[-1]
        rank = table["confidence"].corr(table["ratio"], method="spearman")
        lines.append(
            f"{name}: from confidence {first.confidence:.2f} to {last.confidence:.2f}, E|noise|² grows "
            f"{last.labels / first.labels:.1f} times for SLN, {last.logits / first.logits:.1f} times for "
            f"variant 2. Their ratio goes from {first.ratio:.1f} to {last.ratio:.1f}; it would go to "
            f"{last.ratio_of_differences:.1f} if all differences of logits were equally sensitive. Its rank "
            f"correlation with confidence is {rank:.2f}; {table['common'].mean():.1%} of |J|² moves all "
            "logits equally."
        )
    return "\n".join(lines)


def binned(table: pd.DataFrame, edges: Sequence[float] = EDGES) -> pd.DataFrame:
    """Means of `by_confidence` in bins of confidence with five images or more, and `images`, their number."""
    groups = table.groupby(pd.cut(table["confidence"], edges, include_lowest=True), observed=True)
    means = groups.mean()
    means.insert(0, "images", groups.size())
    return means[means["images"] >= 5].reset_index(drop=True)


def peaked(probability: float, num_classes: int) -> Tensor:
    """(C,) float64: the first class has `probability`, the others share the rest."""
    others = (1 - probability) / (num_classes - 1)
    return torch.tensor([probability] + (num_classes - 1) * [others], dtype=torch.float64)


def noise_at_logit(probability: np.ndarray, sigma: float, num_classes: int) -> np.ndarray:
    """Standard deviation of SLN's noise at the logit of a class of probability (n,): (n,)."""
    rows = torch.stack([peaked(float(p), num_classes) for p in probability])
    return method.label_noise_covariance(rows, sigma)[:, 0, 0].sqrt().numpy()


def drawn_at_logits(p: Tensor, sigma: float, draws: int, generator: Generator) -> Tensor:
    """(draws, C): SLN's noise on the gradient at the logits of prediction p (C,), by autograd."""
    y = torch.eye(1, len(p)).to(p)  # the first class
    z = torch.randn(draws, len(p), dtype=p.dtype, generator=generator)
    logits = p.log().repeat(draws, 1).requires_grad_()
    method.soft_cross_entropy(logits, method.noisy_labels(y, sigma, z)).sum().backward()
    return logits.grad - (p - y)  # minus the gradient without noise


@threads(1)
def covariance_check(sigma: float, num_classes: int, draws: int) -> pd.DataFrame:
    """SLN's noise on the gradient at the logits, by autograd and by formula: one row per prediction.

    p : probability of the labelled class; std_formula, std_drawn : at its logit; and the columns of `errors`
    """
    rows = []
    for row, probability in enumerate((1 / num_classes, 0.5, 0.9, 0.99, 0.999)):
        p = peaked(probability, num_classes)
        noise = drawn_at_logits(p, sigma, draws, torch_generator(0, "bootstrap", row))
        S = method.label_noise_covariance(p, sigma)
        stds = {"std_formula": S[0, 0].sqrt().item(), "std_drawn": noise[:, 0].std().item()}
        rows.append({"p": probability} | stds | errors(noise, S))
    return pd.DataFrame(rows)


def one_step(run: Run, example: int, sigma: float) -> pd.DataFrame:
    """What one step of SLN does with one training image, by the run's last network: one row per class.

    y, z, noisy_label : the given label, one draw, and y + sigma z; p : the prediction, in evaluation mode
    gradient, noisy_gradient : at the logits, by autograd: p - y, and (1 + sigma sum_i z_i) p - y - sigma z
    """
    data = run.data
    y = F.one_hot(data.train.given[example], data.num_classes)[None].float()
    z = torch.randn(y.shape, generator=torch_generator(run.config.seed, "stochastic noise", example))
    noisy = method.noisy_labels(y, sigma, z)
    with torch.no_grad():
        logits = run.network()(data.normalise(data.train.images[[example]]))
    columns = {"y": y, "z": z, "noisy_label": noisy, "p": F.softmax(logits, dim=1)}
    for name, targets in (("gradient", y), ("noisy_gradient", noisy)):
        at_logits = grad(lambda f, t=targets: method.soft_cross_entropy(f, t).sum())
        columns[name] = at_logits(logits)
    table = pd.DataFrame({name: values[0].numpy() for name, values in columns.items()})
    return table.rename_axis("class").reset_index()


def by_classes(
    sigma: float, counts: Sequence[int], probabilities: Sequence[float], draws: int
) -> pd.DataFrame:
    """Standard deviation of SLN's noise at the logit of a class predicted with p, by number of classes.

    limit : sigma sqrt(C - 1), for p -> 1; std_formula : at p; std_drawn : by autograd
    error : (std_drawn - std_formula) / its standard error std_formula / sqrt(2 draws)
    """
    rows = []
    for C, (number, p) in itertools.product(counts, enumerate(probabilities)):
        generator = torch_generator(0, "bootstrap", C, number)
        drawn = drawn_at_logits(peaked(p, C), sigma, draws, generator)[:, 0].std().item()
        formula = noise_at_logit(np.array([p]), sigma, C).item()
        error = (drawn - formula) / (formula / np.sqrt(2 * draws))
        rows.append((C, p, sigma * np.sqrt(C - 1), formula, drawn, error))
    return pd.DataFrame(rows, columns=["classes", "p", "limit", "std_formula", "std_drawn", "error"])
