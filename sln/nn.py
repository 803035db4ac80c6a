"""The method as parts for your own training loop: the loss, the momentum model, and label correction."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln import method
from sln.utils.errors import choose, require, require_labels
from sln.utils.networks import tensors
from sln.utils.settings import BELOW_ONE, NOT_NEGATIVE, SHARE, Range


class SLNLoss(nn.CrossEntropyLoss):
    """Cross-entropy at y + sigma z, z ~ N(0, I) afresh in every call: stochastic label noise.

    Called as `torch.nn.CrossEntropyLoss`: logits (B, C) or (B, C, d1, ...) with class indices (B) or (B, d1,
    ...), or with probabilities of the logits' shape. At `sigma` 0 and in `eval()` mode it is that loss. Else
    y is the target after label smoothing, and `weight` w (C,) makes it -sum_i w_i (y_i + sigma z_i) log p_i.
    As torch's, the mean divides by the sum of the labels' w for indices, by their number for probabilities.
    Labels that are `ignore_index` count nothing and get no noise. The gradient's mean over z is torch's.

    sigma : strength of the noise; may be set between steps (to 0 once labels are corrected)
    generator : draws z, on the logits' device, with another seed in every process; default: torch's global
        one. Save its `get_state()` to resume bit for bit.

    z is drawn in float32, and float16 or bfloat16 logits, as under autocast, are made float32 first, also at
    sigma 0. Raises InputError for values that are not allowed and for shapes that do not fit.
    """

    def __init__(
        self,
        sigma: float,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        check("sigma", sigma, NOT_NEGATIVE)
        check("label_smoothing", label_smoothing, SHARE)
        choose("reduction", reduction, ("mean", "sum", "none"))
        super().__init__(weight, None, ignore_index, None, reduction, label_smoothing)
        self.sigma, self.generator = sigma, generator

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """() or, with reduction "none", one loss per label: float32, or float64 for float64 logits."""
        self.require_fit(input, target)
        logits = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        target = target if target.is_floating_point() else target.long()
        if self.sigma == 0 or not self.training:
            return super().forward(logits, target)
        C, y, count = logits.shape[1], target, max(1, logits[:, 0].numel())
        w = (logits.new_ones(C) if self.weight is None else self.weight).view(C, *[1] * (logits.ndim - 2))
        if not target.is_floating_point():
            kept = target != self.ignore_index
            labels = target.where(kept, 0)
            y = F.one_hot(labels, C).movedim(-1, 1).to(logits.dtype)
            count = (w.flatten()[labels] * kept).sum()
            w = w * kept.unsqueeze(1)
        y = (1 - self.label_smoothing) * y + self.label_smoothing / C
        z = torch.randn(logits.shape, generator=self.generator, device=logits.device)
        losses = method.soft_cross_entropy(logits, w * method.noisy_labels(y, self.sigma, z))
        if self.reduction == "mean":  # a factor of exactly 1 unless labels are weighed or ignored
            return losses.mean() * (losses.numel() / count)
        return losses.sum() if self.reduction == "sum" else losses

    def require_fit(self, input: Tensor, target: Tensor) -> None:
        """Raise InputError unless shapes and devices are those that the loss takes."""
        shape, indices = tuple(input.shape), (*input.shape[:1], *input.shape[2:])
        require(len(shape) >= 2, f"logits have shape {shape}, expected (B, C) or (B, C, d1, ...)")
        fits = target.shape == (shape if target.is_floating_point() else indices)
        found = f"target has shape {tuple(target.shape)} and type {target.dtype}"
        require(fits, f"{found}, expected class indices {indices} or probabilities {shape}")
        weights = shape[1] if self.weight is None else self.weight.numel()
        require(weights == shape[1], f"weight has {weights} entries for {shape[1]} classes")
        ignores = self.ignore_index >= 0 and target.is_floating_point()  # torch refuses it, too
        require(not ignores, f"ignore_index {self.ignore_index} needs class indices, not probabilities")
        on = {tensor.device.type for tensor in (self.generator, input) if tensor is not None}
        require(len(on) == 1, f"generator and logits are on {' and '.join(sorted(on))}: use one device")


class MomentumModel(method.MomentumModel):
    """The momentum model: m <- decay m + (1 - decay) theta, over all parameters and buffers.

    Call `update(model)` after every optimizer step, and read `average(inputs)` or `average.module`, a copy of
    the model in evaluation mode. `state_dict` has the names of the plain model below "module.", also where
    `model` comes from torch.compile or DistributedDataParallel, and `steps`, the number of updates: loaded,
    it goes on bit for bit. Keep weights in float32 (autocast does): bfloat16 rounds small updates away.
    Raises InputError for a decay outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        check("decay", decay, BELOW_ONE)
        super().__init__(plain(model), decay)
        self.module.eval()
        self.register_buffer("steps", torch.tensor(0))

    def update(self, model: nn.Module) -> None:
        """One step of the average, towards `model` as it is now."""
        super().update_parameters(model)  # in order, so a wrapper's names make no difference
        self.steps += 1

    update_parameters = update  # as torch's AveragedModel calls it

    def train(self, mode: bool = True) -> MomentumModel:
        """Stay in evaluation mode, also as a part of a module that is trained."""
        return super().train(False)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the averaged model returns."""
        return self.module(*inputs, **named)

    @contextlib.contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[nn.Module]:
        """Inside, `model` has the average's weights and buffers; afterwards, come what may, its own again.

        It keeps its mode: call `model.eval()` to evaluate it.
        """
        theirs, average = tensors(plain(model)), tensors(self.module)
        own = {name: tensor.clone() for name, tensor in theirs.items()}
        try:
            for name, tensor in theirs.items():
                tensor.copy_(average[name])
            yield model
        finally:
            for name, tensor in theirs.items():
                tensor.copy_(own[name])


class LabelCorrection:
    """Label correction: the target of every example becomes w y + (1 - w) y_hat, before every epoch.

    rule : what w is made of, a key of `method.CORRECTION_WEIGHTS`; default: the losses, as released
    soft : y_hat are the probabilities (as for Clothing1M), not the predicted class

    Mind what notebook 3 found. The released w keeps a given label where the loss is *high*, so it moves least
    where a label contradicts the model most. And every rule repairs labels where the model is right and
    destroys right ones where it is wrong; it cannot tell which. Watch the accuracy on held-out labels, noisy
    ones will do, and correct only with a model that is right on most of them.
    """

    def __init__(self, rule: str = "loss", *, soft: bool = False) -> None:
        choose("rule", rule, method.CORRECTION_WEIGHTS)
        self.rule, self.soft = rule, soft

    @torch.no_grad()
    def targets(self, logits: Tensor, labels: Tensor, against: Tensor | None = None) -> Tensor:
        """(N, C) float32: new targets, whose rows sum to one, for a loss without stochastic noise.

        logits : (N, C) of the momentum model for the *whole* training set, in evaluation mode
        labels : (N,) given labels, in the same order
        against : (N, C) targets that the losses are measured against. Default: the given labels, the rule as
            the paper writes it. Your last targets make it what the released code does.

        Raises InputError for logits that are not finite, and labels that are no classes, or not as many.
        """
        require(logits.ndim == 2, f"logits have shape {tuple(logits.shape)}, expected (N, C)")
        N, C = logits.shape
        require_labels(labels.numpy(force=True), C, "labels")
        require(len(labels) == N, f"{len(labels)} labels for {N} rows of logits")
        require(bool(logits.isfinite().all()), "some logits are infinite or NaN; try a smaller step size")
        logits, given = logits.float(), F.one_hot(labels.long(), C).float()
        losses = method.soft_cross_entropy(logits, given if against is None else against)
        predictions = F.softmax(logits, dim=1)
        if not self.soft:
            predictions = F.one_hot(predictions.argmax(dim=1), C).float()
        return method.corrected_targets(given, predictions, method.CORRECTION_WEIGHTS[self.rule](losses))


def plain(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of torch.compile (`_orig_mod`) and DistributedDataParallel (`module`)."""
    parallel = isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel)
    inner = model.module if parallel else getattr(model, "_orig_mod", None)
    return model if inner is None else plain(inner)


def check(name: str, value: float, allowed: Range) -> None:
    """Raise InputError unless `value` is a number that is allowed."""
    require(isinstance(value, numbers.Real), f"{name} is a {type(value).__name__}, allowed are {allowed}")
    allowed.check(name, value)
