"""The regulariser that noise on the labels adds: predicted from its covariance, measured on a small network.

Around a minimum theta* of the loss L of B examples with Hessian H, a step of size eta with fresh noise on the
labels, whose gradient noise has covariance S, moves delta = theta - theta* on average like this:

    covariance  Gamma <- (I - eta H) Gamma (I - eta H) + eta^2 S
    mean        m <- (I - eta H) m - eta/2 grad tr(H Gamma), Gamma held fixed

so the expected loss is L(theta*) + tr(H Gamma) / 2. Once Gamma rests, tr(H Gamma) = eta/2 tr S for small eta:
the noise costs eta/4 E|noise|^2. For the squared loss |f - y|^2 / 2, S = sigma^2 / B H, so Gamma becomes eta
sigma^2 / (2 B) I, and the mean drifts down eta sigma^2 / (4 B) tr H (Blanc et al., 2020; Damian et al.,
2021). For softmax S has the confidence in it (`theory`). The rest is Taylor's, to the order sigma^2.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jacfwd, jacrev, vmap

from sln import method
from sln.analysis.theory import peaked
from sln.data import Data
from sln.datasets.load import threads
from sln.utils.rng import torch_generator

HIDDEN = 4  # units of the network's one hidden layer
CONFIDENCES = (0.6, 0.9, 0.97)  # mean largest probabilities of the softmax networks


def logits(theta: Tensor, images: Tensor, num_classes: int) -> Tensor:
    """(B, C): f = W2 tanh(W1 x + b1) + b2 of images (B, D); theta (P,) is W1, b1, W2 and b2 in a row."""
    shapes = (HIDDEN, images.shape[1]), (HIDDEN,), (num_classes, HIDDEN), (num_classes,)
    parts = theta.split([torch.Size(shape).numel() for shape in shapes])
    W1, b1, W2, b2 = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
    return F.linear(torch.tanh(F.linear(images, W1, b1)), W2, b2)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): |f - y|^2 / 2."""
    return (logits - targets).square().sum(dim=1) / 2


class Minimum:
    """A minimum theta (P,) of the mean loss of `batch` images: their targets are what it puts out.

    confidence : its mean largest probability, for softmax; None: squared loss, at the least of CONFIDENCES
    S, H, third : (P, P) at sigma = 1, (P, P) and (P, P, P) second and third derivatives of the loss
    """

    def __init__(self, data: Data, confidence: float | None, batch: int = 8) -> None:
        grey = data.normalise(data.train.images[:batch].cpu()).double().mean(dim=1, keepdim=True)
        self.images, self.C = F.adaptive_avg_pool2d(grey, 4).flatten(1), data.num_classes
        self.eta = 0.1 if confidence is None else 0.4  # below 2 / the largest eigenvalue of H
        labels = F.one_hot(data.train.given[:batch].cpu(), self.C).double()
        self.theta = self._fitted(labels, confidence or min(CONFIDENCES))
        outputs, squared = self.logits(self.theta), confidence is None
        self.loss = squared_error if squared else method.soft_cross_entropy
        self.targets = outputs if squared else outputs.softmax(dim=1)
        self.S = self.covariance(self.theta)
        slope = grad(self.mean_loss)
        self.H = jacrev(slope)(self.theta)
        self.third = jacfwd(jacrev(slope))(self.theta)

    def logits(self, theta: Tensor) -> Tensor:
        """(B, C) at theta."""
        return logits(theta, self.images, self.C)

    def covariance(self, theta: Tensor) -> Tensor:
        """(P, P): of the noise on the mean loss's gradient at theta, for sigma = 1 (`theory`)."""
        J, outputs = jacrev(self.logits)(theta), self.logits(theta)  # (B, C, P), (B, C)
        Sigma = torch.eye(self.C).to(J).expand(len(J), -1, -1)
        if self.loss is not squared_error:
            Sigma = method.label_noise_covariance(outputs.softmax(dim=1), 1.0)
        return torch.einsum("bcp,bcd,bdq->pq", J, Sigma, J) / len(J) ** 2

    def seen(self, theta: Tensor) -> tuple[float, float]:
        """Mean |J_i|^2 and mean largest probability at theta."""
        squares = jacrev(self.logits)(theta).square().sum() / len(self.images)
        return squares.item(), self.logits(theta).softmax(dim=1).amax(dim=1).mean().item()

    def mean_loss(self, theta: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """The mean loss () at theta, with `noise` (B, C) on the targets."""
        return self.loss(self.logits(theta), self.targets + noise).mean()

    def _fitted(self, labels: Tensor, confidence: float) -> Tensor:
        # plain descent on one-hot labels, up to that confidence
        P = HIDDEN * (self.images.shape[1] + 1 + self.C) + self.C
        theta = 0.3 * torch.randn(P, generator=torch_generator(0, "initialisation"), dtype=torch.float64)
        slope = grad(lambda theta: method.soft_cross_entropy(self.logits(theta), labels).mean())
        while self.logits(theta).softmax(dim=1).amax(dim=1).mean() < confidence:
            theta = theta - 0.5 * slope(theta)
        return theta

    def predicted(self, sigma: float, steps: int) -> tuple[Tensor, Tensor]:
        """The extra loss (steps,) and mean m (steps, P) after each step, by the recursion of this module."""
        D, eta, P = torch.eye(len(self.H)).to(self.H) - self.eta * self.H, self.eta, len(self.H)
        Gamma, m, extra, means = torch.zeros_like(self.H), torch.zeros_like(self.theta), [], []
        gradient_of_trace = self.third.reshape(-1, P).T  # times Gamma's P^2 numbers: grad tr(H Gamma)
        for _ in range(steps):
            m = D @ m - eta / 2 * (gradient_of_trace @ Gamma.flatten())
            Gamma = D @ Gamma @ D + eta**2 * sigma**2 * self.S
            extra.append((self.H * Gamma).sum() / 2)
            means.append(m)
        return torch.stack(extra), torch.stack(means)

    def measured(self, sigma: float, steps: int, pairs: int) -> tuple[Tensor, Tensor]:
        """The same of SGD with noise on the labels, for each of `pairs` (pairs, steps), (pairs, steps, P).

        The two of a pair have noise of opposite sign: what is linear in it cancels in their mean.
        """
        generator = torch_generator(0, "stochastic noise")
        slope, loss = vmap(grad(self.mean_loss)), vmap(self.mean_loss)
        theta, extra, means = self.theta.expand(2 * pairs, -1), [], []
        for _ in range(steps):
            z = torch.randn(pairs, *self.targets.shape, generator=generator, dtype=torch.float64)
            theta = theta - self.eta * slope(theta, sigma * torch.cat([z, -z]))
            extra.append((loss(theta) - self.mean_loss(self.theta)).view(2, pairs).mean(dim=0))
            means.append((theta - self.theta).view(2, pairs, -1).mean(dim=0))
        return torch.stack(extra, dim=1), torch.stack(means, dim=1)


@threads(1)
def drift(data: Data, *, sigma: float = 0.02, steps: int = 200, pairs: int = 200) -> pd.DataFrame:
    """Predicted against measured extra loss and drift: one row per network and tenth of the steps.

    Columns: case, step; extra, extra_measured, extra_error (standard error over pairs); drift,
    drift_measured (lengths of the mean move), drift_error; cosine (of both means); rest (eta/4 E|noise|^2,
    what the extra loss rests at for small eta); noise (E|noise|^2 after the measured mean move, divided by
    that at the minimum); jacobian (mean |J_i|^2, likewise); confidence (the change of it).
    """
    rows = []
    for confidence in (None, *CONFIDENCES):
        minimum = Minimum(data, confidence)
        extra, m = minimum.predicted(sigma, steps)
        extra_drawn, m_drawn = minimum.measured(sigma, steps, pairs)
        case = "squared loss" if confidence is None else f"softmax, confidence {confidence:g}"
        rest = (minimum.eta / 4 * sigma**2 * minimum.S.trace()).item()
        for step in range(steps // 10, steps + 1, steps // 10):
            mean, ours = m_drawn[:, step - 1].mean(dim=0), m[step - 1]
            row = {"case": case, "step": step, "extra": extra[step - 1].item()}
            row["extra_measured"] = extra_drawn[:, step - 1].mean().item()
            row["extra_error"] = extra_drawn[:, step - 1].std().item() / pairs**0.5
            row |= {"drift": ours.norm().item(), "drift_measured": mean.norm().item()}
            row["drift_error"] = m_drawn[:, step - 1].std(dim=0).norm().item() / pairs**0.5
            row["cosine"] = torch.cosine_similarity(ours, mean, dim=0).item()
            noise = minimum.covariance(minimum.theta + mean).trace() / minimum.S.trace()
            (squares, after), (first, before) = (
                minimum.seen(m) for m in (minimum.theta + mean, minimum.theta)
            )
            row |= {"rest": rest, "noise": noise.item()}
            rows.append(row | {"jacobian": squares / first, "confidence": after - before})
    return pd.DataFrame(rows)


def describe_drift(table: pd.DataFrame) -> str:
    """One line per network: measured divided by predicted at the last step, and the angle between."""
    last = table[table["step"] == table["step"].max()]
    return "\n".join(
        f"{row.case}: measured extra loss {row.extra_measured / row.extra:.2f} times the predicted one; "
        f"drift {row.drift_measured / row.drift:.2f} times, in its direction up to a cosine of "
        f"{row.cosine:.3f}. There E|noise|² has changed by {100 * (row.noise - 1):+.2f}%, |J|² by "
        f"{100 * (row.jacobian - 1):+.2f}%, the confidence by {100 * row.confidence:+.2f} points."
        for row in last.itertuples()
    )


def noise_over_curvature(num_classes: int = 10, points: int = 180) -> pd.DataFrame:
    """At the logits, along the predicted class's logit against all others, by its probability p from 1/C on.

    Columns: p; curvature u'(diag p - p p')u of softmax's loss; noise u' Sigma u at sigma = 1; ratio. For the
    squared loss all three are 1.
    """
    u = torch.full((num_classes,), -1.0, dtype=torch.float64)
    u[0] = num_classes - 1
    u /= u.norm()
    rows = []
    for probability in np.linspace(1 / num_classes, 0.995, points):
        p = peaked(float(probability), num_classes)
        curvature = (u @ (p.diag() - torch.outer(p, p)) @ u).item()
        noise = (u @ method.label_noise_covariance(p, 1.0) @ u).item()
        rows.append((float(probability), curvature, noise, noise / curvature))
    return pd.DataFrame(rows, columns=["p", "curvature", "noise", "ratio"])
