"""The methods against label noise that SLN is compared with, each from its paper's equations.

Notation: logits f (B, C), p = softmax(f), y (B, C) the targets (one-hot given labels; with stochastic label
noise, y + sigma z), y_k the entry of class k. The one setting that each method varies here is
`Config.baseline_parameter`; `config.BASELINES` has its default, `comparisons.published` the authors' own.

Deviation from every paper: optimizer, schedule and epochs are those of `Config`; only the objective differs.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln import method, models
from sln.config import Config
from sln.data import Data
from sln.noise import realised_transitions
from sln.objective import Batch, Objective, forward, grouped, momentum_buffers, restore_momentum, sgd
from sln.utils.rng import numpy_generator

SCE_ZERO = 1e-4  # what the released code clips labels at, so that A = log 0 is -9.2
# beta by kind of noise: config_cifar10.json and config_cifar10_asym.json of the released code; others 0.7
ELR_DECAY = {"asym": 0.9}
CO_TEACHING_EPOCHS = 10  # T_k, after which the share that is forgotten stays


class LabelSmoothing(Objective):
    """Cross-entropy against smoothed labels (Szegedy et al., CVPR 2016); the setting is epsilon.

    0.1 is that paper's, and the baseline's under label noise in SCE's released loss.py. Lukasik et al. (ICML
    2020) study it under label noise. With SLN the noise is smoothed too: its sigma is (1 - epsilon) times.
    """

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,): l(f, (1 - epsilon) y + epsilon / C)."""
        epsilon, C = self.config.baseline_parameter, logits.shape[1]
        return method.soft_cross_entropy(logits, (1 - epsilon) * batch.targets + epsilon / C)


class GCE(Objective):
    """Generalised cross-entropy (Zhang & Sabuncu, NeurIPS 2018); the setting is q.

    Cross-entropy for q -> 0, and 1 - p_y for q = 1 and one-hot y. q = 0.7 is that paper's in all its
    experiments. The plain loss, not the truncated one with which it also prunes the training set.
    """

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,): sum_k y_k (1 - p_k^q) / q, from log p: no p that underflows makes the gradient infinite."""
        q, log_p = self.config.baseline_parameter, F.log_softmax(logits, dim=1)
        return (batch.targets * -torch.expm1(q * log_p) / q).sum(dim=1)


class SCE(Objective):
    """Symmetric cross-entropy (Wang et al., ICCV 2019): alpha CE + beta RCE, beta = 1; the setting is alpha.

    RCE is -sum_k p_k log y_k with log 0 = A = log SCE_ZERO, that is -A (1 - p_y), as in the released loss.py;
    the paper has A = -4. The released train_models.py has alpha 0.01 for MNIST, 0.1 for CIFAR-10. Of one-hot
    labels only: `Config` refuses stochastic noise, whose logarithm means nothing.
    """

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,): alpha l(f, y) - sum_k p_k log y_k."""
        cross_entropy = method.soft_cross_entropy(logits, batch.given)
        reverse = -(F.softmax(logits, dim=1) * batch.given.clamp_min(SCE_ZERO).log()).sum(dim=1)
        return self.config.baseline_parameter * cross_entropy + reverse


class ELR(Objective):
    """Early-learning regularisation (Liu et al., NeurIPS 2020); the setting is lambda.

    CE + lambda log(1 - <p, t>), where t is a memory of the example's own predictions: before each loss,
    t <- beta t + (1 - beta) p, from t = 0, and no gradient flows through it. As released, and not in the
    paper, p is clamped to [1e-4, 1 - 1e-4] in both places, and in t made to sum to one again: so the
    logarithm is finite, and the gradient of an entry that is clamped is 0. The released configurations of
    CIFAR-10 have lambda 3 and beta 0.7, for asymmetric noise lambda 1 and beta 0.9.
    """

    def __init__(self, config: Config, network: nn.Module, data: Data) -> None:
        super().__init__(config, network, data)
        self.memory = torch.zeros(len(data.train), data.num_classes, device=data.device)  # t
        self.decay = ELR_DECAY.get(config.noise_mode, 0.7)  # beta

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,): cross-entropy and regulariser; moves the memory of these examples."""
        p = F.softmax(logits, dim=1).clamp(1e-4, 1 - 1e-4)
        now = p.detach() / p.detach().sum(dim=1, keepdim=True)
        t = self.decay * self.memory[batch.index] + (1 - self.decay) * now
        self.memory[batch.index] = t
        regulariser = (1 - (p * t).sum(dim=1)).log()
        return super().losses(logits, batch) + self.config.baseline_parameter * regulariser

    def tensors(self) -> dict[str, Tensor]:
        """memory : (N, C), t of every training example."""
        return {"memory": self.memory}

    def restore(self, named: dict[str, Tensor]) -> None:
        """Continue from `tensors()`."""
        self.memory.copy_(named["memory"])


class ForwardCorrection(Objective):
    """Forward correction (Patrini et al., CVPR 2017): -log (T'p)_y, the likelihood of the *given* label.

    T[true, given] is the realised transition matrix of the training labels, an oracle: no other method here
    has it; it takes instance-dependent noise as if it depended on the class alone. It has no setting. Of
    one-hot labels only: `Config` refuses stochastic noise, which no transition matrix describes.
    """

    def __init__(self, config: Config, network: nn.Module, data: Data) -> None:
        super().__init__(config, network, data)
        T = realised_transitions(data.train.true.numpy(), data.train.given.numpy(), data.num_classes)
        self.log_T = torch.from_numpy(T).log().to(data.device)

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,): -log sum_k T[k, y] p_k, from log p: no p that underflows makes it infinite."""
        to_given = self.log_T.T[batch.given.argmax(dim=1)].to(logits.dtype)
        return -torch.logsumexp(F.log_softmax(logits, dim=1) + to_given, dim=1)


class ConfidencePenalty(Objective):
    """Confidence penalty (Pereyra et al., ICLR workshop 2017): CE - beta H(p); the setting is beta.

    H is the entropy in nats. That paper has no label noise, so no setting of it is one for label noise: the
    default 1 stands in.
    """

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,): l(f, y) + beta sum_k p_k log p_k."""
        log_p = F.log_softmax(logits, dim=1)
        entropy = -(log_p.exp() * log_p).sum(dim=1)
        return super().losses(logits, batch) - self.config.baseline_parameter * entropy


def mixed(values: Tensor, partners: Tensor, weight: float) -> Tensor:
    """(B, ...): lambda v_i + (1 - lambda) v_j, where j = partners[i]."""
    return weight * values + (1 - weight) * values[partners]


class Mixup(Objective):
    """mixup (Zhang et al., ICLR 2018): cross-entropy of mixed images and targets; the setting is alpha.

    One lambda ~ Beta(alpha, alpha) a batch, partners by a random permutation of the batch, as released. That
    paper's table of corrupted labels has alpha 8 at 20%, and 32 at 50% and 80%. With SLN the targets are
    mixed with their noise, whose variance is then lambda^2 + (1 - lambda)^2 times.
    """

    def __init__(self, config: Config, network: nn.Module, data: Data) -> None:
        super().__init__(config, network, data)
        self.epoch = 0  # that `draws` are of

    def gradient(self, batch: Batch) -> Tensor:
        """The mixed batch's gradient and loss."""
        if batch.epoch != self.epoch:  # runs resume between epochs: this is all that has to be remembered
            self.epoch = batch.epoch
            self.draws = numpy_generator(self.config.seed, "mixup", batch.epoch)
        weight = self.draws.beta(self.config.baseline_parameter, self.config.baseline_parameter)
        partners = torch.from_numpy(self.draws.permutation(len(batch.index))).to(batch.images.device)
        values = {name: getattr(batch, name) for name in ("images", "given", "targets")}
        both = {name: mixed(value, partners, weight) for name, value in values.items()}
        return super().gradient(dataclasses.replace(batch, **both))


class SAM(Objective):
    """Sharpness-aware minimisation (Foret et al., ICLR 2021): the gradient at w + rho g / |g|.

    g is the gradient of this batch at w, |g| its norm over all parameters; the setting is rho, in that
    paper's experiments with label noise 0.1, and 0.05 at 80%. Images and noise are the same in both passes.
    Weights are put back as they were, and BatchNorm's statistics as the first pass left them.
    """

    def gradient(self, batch: Batch) -> Tensor:
        """The gradient at the perturbed weights; the loss at the weights themselves."""
        loss = super().gradient(batch)
        weights = [w for w in self.network.parameters() if w.grad is not None]
        everything = [t.detach() for t in (*weights, *self.network.buffers())]
        before, gradient = [t.clone() for t in everything], [w.grad for w in weights]
        norm = torch.stack([g.norm() for g in gradient]).norm() + 1e-12  # a gradient of 0 moves nothing
        scale = self.config.baseline_parameter / norm
        for weight, g in zip(everything, gradient, strict=False):
            weight.add_(scale * g)
        super().gradient(batch)
        for now, then in zip(everything, before, strict=True):
            now.copy_(then)
        return loss


def kept_share(tau: float, epoch: int) -> float:
    """R(T) = 1 - tau min(T / T_k, 1), the share of a batch that co-teaching learns from in epoch T >= 1.

    As published. The released code counts T / T_k as 0, 1/9, ... 1 in its first ten epochs.
    """
    return 1 - tau * min(epoch / CO_TEACHING_EPOCHS, 1)


def small_losses(losses: Tensor, share: float) -> Tensor:
    """(R,): the least losses' examples, R = `share` of B, rounded (the released code: down), at least 1."""
    return losses.detach().argsort(stable=True)[: max(1, round(share * len(losses)))]


class CoTeaching(Objective):
    """Co-teaching (Han et al., NeurIPS 2018): two networks, each learns what the other finds easy.

    Each picks the R(T) B examples of the batch with the least cross-entropy against their given labels,
    without stochastic noise; its peer learns from those. The setting is tau, the share forgotten in the end.
    The peer has initial weights and an optimizer of its own and sees the same batches and noise; the run is
    read through the first network. The loss is the mean over those picked: the released code divides that
    mean by their number once more, which only its Adam makes harmless.
    """

    def __init__(self, config: Config, network: nn.Module, data: Data) -> None:
        super().__init__(config, network, data)
        shape = {"in_channels": data.train.images.shape[1], "num_classes": data.num_classes}
        self.peer = models.build(config.model, **shape, seed=config.seed, counters=(1,)).to(data.device)
        self.optimizer = sgd(self.peer, config)

    def gradient(self, batch: Batch) -> Tensor:
        """The gradient of what the peer picked, and its mean loss; the peer makes its step."""
        logits = forward(self.network, batch.images, self.config)
        peers_logits = forward(self.peer, batch.images, self.config)
        share = kept_share(self.config.baseline_parameter, batch.epoch)
        picked = small_losses(method.soft_cross_entropy(logits, batch.given), share)
        picked_by_peer = small_losses(method.soft_cross_entropy(peers_logits, batch.given), share)

        loss = self.losses(logits, batch)[picked_by_peer].mean()
        peers_loss = self.losses(peers_logits, batch)[picked].mean()
        self.network.zero_grad()
        self.peer.zero_grad()
        loss.backward()
        peers_loss.backward()
        self.optimizer.step()
        return loss.detach()

    def tensors(self) -> dict[str, Tensor]:
        """peer/... : the peer's weights and BatchNorm statistics; optimizer/... : its momentum."""
        named = {f"peer/{name}": value for name, value in self.peer.state_dict().items()}
        momentum = momentum_buffers(self.peer, self.optimizer)
        return named | {f"optimizer/{name}": value for name, value in momentum.items()}

    def restore(self, named: dict[str, Tensor]) -> None:
        """Continue from `tensors()`."""
        self.peer.load_state_dict(grouped(named, "peer"))
        restore_momentum(self.peer, self.optimizer, grouped(named, "optimizer"))


METHODS: dict[str, type[Objective]] = {
    "none": Objective,
    "label-smoothing": LabelSmoothing,
    "mixup": Mixup,
    "gce": GCE,
    "sce": SCE,
    "elr": ELR,
    "forward": ForwardCorrection,
    "confidence-penalty": ConfidencePenalty,
    "sam": SAM,
    "co-teaching": CoTeaching,
}


def objective(config: Config, network: nn.Module, data: Data) -> Objective:
    """The objective that `config.baseline` names, for `network`."""
    return METHODS[config.baseline](config, network, data)
