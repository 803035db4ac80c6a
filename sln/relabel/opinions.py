"""Opinions on the true class of every example, besides its network's, and one out of all of them.

All are of a fold's training examples, as the network is: an example, its group and its copies have no vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sln.metrics import accuracy

# Chosen on the digits at seeds 10 and 11 and on CIFAR-10N's images from number 30,000 on (see README.md).
SHRUNK_BY = 4  # examples per feature at which s = 1/2
CONFIDENCE = 0.5  # factor on the discriminant's logits, which are too sure, as classes are not normal
NEIGHBOURS, TEMPERATURE = 50, 0.2  # at most a twentieth of the examples vote, by exp(cosine / TEMPERATURE)
LANDMARKS, RIDGE, SHARPNESS = 2000, 2, 8  # of the regression; its probabilities are softmax(SHARPNESS f)
SIDE = 16  # pixels; larger images are averaged down before they are compared
FLOOR = 1e-4  # added to every probability, so that no opinion is a veto
# Powers of network, discriminant, neighbours, regression. On pixels the first two rest on the same features.
POWERS = {"features": (1 / 4, 1 / 4, 1 / 4, 1 / 2), "pixels": (1 / 4, 1 / 4, 1, 1)}
WORTH = 0.9  # an opinion is left out if it predicts a smaller share of what the network does
BLOCK = 2**25  # entries of similarities at a time, 128 MiB


def discriminant(x: Tensor, labels: Tensor, new: Tensor, C: int) -> Tensor:
    """(M, C): probabilities of `new` (M, D) by linear discriminant analysis of x (N, D), labels (N,).

    Bayes' rule with normal classes of one covariance S, shrunk to (1 - s) S + s tr(S)/D I: the more, the
    fewer examples there are per feature. It averages over whole classes, so single wrong labels move it
    little.
    """
    (N, D), centre = x.shape, x.mean(dim=0)
    x, new = x - centre, new - centre
    y = F.one_hot(labels, C).to(x)
    counts = y.sum(dim=0)
    means = y.T @ x / counts.clamp(min=1).unsqueeze(1)
    within = x - means[labels]
    S = (within.T @ within / len(x)).double()
    spread = S.diagonal().mean().clamp(min=torch.finfo(x.dtype).tiny)
    s = D / (D + N / SHRUNK_BY)
    S = (1 - s) * S + s * spread * torch.eye(len(S), dtype=S.dtype)
    W = torch.linalg.solve(S, means.T.double()).to(x)
    logits = new @ W - (means.T * W).sum(dim=0) / 2 + (counts / len(x)).log()
    return F.softmax(CONFIDENCE * logits, dim=1)


def neighbours(x: Tensor, labels: Tensor, new: Tensor, C: int) -> Tensor:
    """(M, C): votes for `new` (M, D) of the nearest of x (N, D), labels (N,), by cosine of centred values."""
    (x, new), y = directions(x, new), F.one_hot(labels, C).to(x)
    k = min(NEIGHBOURS, -(-len(x) // 20))
    votes = []
    for part in new.split(max(1, BLOCK // len(x))):
        cosine, nearest = (part @ x.T).topk(k, dim=1)
        votes.append((F.softmax(cosine / TEMPERATURE, dim=1).unsqueeze(2) * y[nearest]).sum(dim=1))
    return torch.cat(votes)


def regression(x: Tensor, labels: Tensor, new: Tensor, C: int) -> Tensor:
    """(M, C): probabilities of `new` (M, D) by kernel ridge regression of labels (N,) on x (N, D).

    The kernel is exp(-|a - b|^2) of centred values of length 1. Of the examples, LANDMARKS span the solution
    f (Rasmussen and Williams, "Gaussian processes for machine learning", equation 8.14). It is as smooth as
    the neighbours' votes are local.
    """
    x, new = directions(x, new)
    y = F.one_hot(labels, C).to(x)
    shares, count = y.mean(dim=0), min(LANDMARKS, len(x))
    landmarks, rows = x[torch.arange(count) * len(x) // count], max(1, BLOCK // count)
    A, b = RIDGE * similarity(landmarks, landmarks).double(), 0
    for part, target in zip(x.split(rows), (y - shares).split(rows), strict=True):
        K = similarity(part, landmarks)
        A, b = A + K.T @ K, b + K.T @ target
    A.diagonal().add_(1e-5 * A.diagonal().mean())  # for rounding errors
    weights = torch.linalg.solve(A, b.double()).to(x)
    f = torch.cat([similarity(part, landmarks) @ weights for part in new.split(rows)]) + shares
    return F.softmax((SHARPNESS * f).masked_fill(shares == 0, -torch.inf), dim=1)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """(N, M): exp(-|a - b|^2) of vectors of length 1."""
    return (2 * a @ b.T - 2).exp()


def directions(x: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Both centred by x and divided by their lengths."""
    centre = x.mean(dim=0)
    return F.normalize(x - centre), F.normalize(new - centre)


def compared(images: Tensor) -> Tensor:
    """(N, D) float32, what neighbours are found by: features, or pixels of images of at most SIDE x SIDE."""
    sides = [min(side, SIDE) for side in images.shape[2:]]
    parts = [F.adaptive_avg_pool2d(part.float(), sides).flatten(1) for part in images.split(1000)]
    return torch.cat(parts)


def pooled(opinions: Sequence[Tensor], given: Tensor, powers: Sequence[float]) -> Tensor:
    """(N, C): the product of powers of probabilities (N, C), the network's first, normalised.

    Of the others only those count that predict at least WORTH times as many of the given labels (N,). If one
    is left out, the rest have equal powers of sum one.
    """
    shares = [accuracy(p, given) for p in opinions]
    kept = [p for p, share in zip(opinions, shares, strict=True) if share >= WORTH * shares[0]]
    weights = powers if len(kept) == len(opinions) else [1 / len(kept)] * len(kept)
    return F.softmax(sum(w * (p + FLOOR).log() for p, w in zip(kept, weights, strict=True)), dim=1)
