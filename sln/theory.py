"""The algebra of the paper's gradient noise, against draws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from sln.method import label_noise_covariance, noisy_labels, soft_cross_entropy
from sln.streams import torch_generator


def peaked(probability: float, num_classes: int) -> torch.Tensor:
    """(C,) float64: the first class has `probability`, the others share the rest."""
    p = torch.full((num_classes,), (1 - probability) / (num_classes - 1), dtype=torch.float64)
    p[0] = probability
    return p


def noise_at_logit(probability: np.ndarray, sigma: float, num_classes: int) -> np.ndarray:
    """Standard deviation of SLN's noise on the gradient at the logit of a class of this probability.

    Probabilities (n,) -> (n,): the square root of sigma^2 (1 - 2 p + C p^2).
    """
    rows = torch.stack([peaked(float(p), num_classes) for p in probability])
    return label_noise_covariance(rows, sigma)[:, 0, 0].sqrt().numpy()


def covariance_check(sigma: float, num_classes: int, draws: int, seed: int = 0) -> pd.DataFrame:
    """The noise that SLN adds to the gradient at the logits: automatic differentiation and formula.

    One row a prediction, from even to nearly certain. p : probability of the labelled class; std_formula,
    std_drawn : at that class's logit; frobenius_error : |C_drawn - C|_F / |C|_F; expected_error : what
        sampling alone makes of it, sqrt((tr(C)^2 + |C|_F^2) / draws) / |C|_F for Gaussian noise; mean_error
        : length of the mean noise, in units of
    its own standard error sqrt(tr(C) / draws), so about 1 if the mean is zero.
    """
    rows = []
    for row, probability in enumerate((1 / num_classes, 0.5, 0.9, 0.99, 0.999)):
        p = peaked(probability, num_classes)
        y = torch.eye(num_classes, dtype=torch.float64)[:1]
        z = torch.randn(
            draws, num_classes, dtype=torch.float64, generator=torch_generator(seed, "bootstrap", row)
        )
        logits = p.log().repeat(draws, 1).requires_grad_()
        soft_cross_entropy(logits, noisy_labels(y, sigma, z)).sum().backward()
        noise = logits.grad - (p - y)  # what is left after the gradient without noise
        C, drawn = label_noise_covariance(p, sigma), noise.T.cov()
        size, trace = torch.linalg.norm(C), C.trace()
        rows.append(
            {
                "p": probability,
                "std_formula": C[0, 0].sqrt().item(),
                "std_drawn": drawn[0, 0].sqrt().item(),
                "frobenius_error": (torch.linalg.norm(drawn - C) / size).item(),
                "expected_error": (((trace**2 + size**2) / draws).sqrt() / size).item(),
                "mean_error": (noise.mean(dim=0).norm() / (trace / draws).sqrt()).item(),
            }
        )
    return pd.DataFrame(rows)
