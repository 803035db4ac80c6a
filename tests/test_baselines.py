"""The other methods against label noise, beside loops over examples written from their papers' equations."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sln import baselines, data, models, runs, train
from sln.config import BASELINES, Config
from sln.objective import Batch
from sln.runs import store
from sln.utils.rng import numpy_generator, torch_generator

# 72 examples in batches of 16: four whole ones and one of 8
SMALL = Config(epochs=3, batch_size=16, lr=0.05, weight_decay=0.01, sigma=0.0, noise_seed=3, seed=5)
METHODS = tuple(name for name in BASELINES if name != "none")
WITH_SLN = tuple(name for name in METHODS if name not in ("sce", "forward"))


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(labels):
    return F.one_hot(labels, 10).double()


def a_batch(images, given, *, noise=0.0, index=None, epoch=1):
    index = torch.arange(len(given)) if index is None else index
    return Batch(images, given, given + noise, None, index, epoch)


# --- the papers' equations, one example at a time -----------------------------------------------------------


def slow_softmax(f):
    total = sum(math.exp(x - max(f)) for x in f)
    return [math.exp(x - max(f)) / total for x in f]


def slow_cross_entropy(f, y):
    """-sum_k y_k log p_k and its gradient (sum_k y_k) p - y."""
    p = slow_softmax(f)
    loss = -sum(target * math.log(x) for target, x in zip(y, p, strict=True))
    return loss, [sum(y) * x - target for target, x in zip(y, p, strict=True)]


def slow_label_smoothing(f, y, epsilon):
    return slow_cross_entropy(f, [(1 - epsilon) * target + epsilon / len(y) for target in y])


def slow_gce(f, y, q):
    """dp_j / df_k = p_j ([j = k] - p_k), so d(1 - p_j^q) / q / df_k = p_j^q (p_k - [j = k])."""
    p, classes = slow_softmax(f), range(len(f))
    loss = sum(y[k] * (1 - p[k] ** q) / q for k in classes)
    return loss, [sum(y[j] * p[j] ** q * (p[k] - (j == k)) for j in classes) for k in classes]


def slow_sce(f, y, alpha):
    p, classes = slow_softmax(f), range(len(f))
    cross_entropy, gradient = slow_cross_entropy(f, y)
    log_y = [math.log(target) if target > 0 else -9.210340371976182 for target in y]  # log 1e-4
    reverse = -sum(x * a for x, a in zip(p, log_y, strict=True))
    slope = [-sum(log_y[j] * p[j] * ((j == k) - p[k]) for j in classes) for k in classes]
    return alpha * cross_entropy + reverse, [alpha * g + s for g, s in zip(gradient, slope, strict=True)]


def slow_forward(f, y, T):
    """-log sum_k T[k][given] p_k."""
    p, classes, given = slow_softmax(f), range(len(f)), y.index(1.0)
    q = sum(T[k][given] * p[k] for k in classes)
    slope = [-sum(T[j][given] * p[j] * ((j == k) - p[k]) for j in classes) / q for k in classes]
    return -math.log(q), slope


def slow_confidence_penalty(f, y, beta):
    """dH / df_k = -p_k (log p_k + H)."""
    p = slow_softmax(f)
    cross_entropy, gradient = slow_cross_entropy(f, y)
    entropy = -sum(x * math.log(x) for x in p)
    slope = [g + beta * x * (math.log(x) + entropy) for g, x in zip(gradient, p, strict=True)]
    return cross_entropy - beta * entropy, slope


def slow_clamped(p):
    return [min(max(x, 1e-4), 1 - 1e-4) for x in p]


def slow_memory(f, t):
    """beta t + (1 - beta) p, of p clamped and made to sum to one."""
    p = slow_clamped(slow_softmax(f))
    return [0.7 * old + 0.3 * x / sum(p) for old, x in zip(t, p, strict=True)]


def slow_elr(f, y, strength, t):
    """t is the memory after it was moved; a clamped p_j has no gradient."""
    p, classes = slow_softmax(f), range(len(f))
    cross_entropy, gradient = slow_cross_entropy(f, y)
    clamped = slow_clamped(p)
    left = 1 - sum(a * b for a, b in zip(clamped, t, strict=True))
    free = [float(a == b) for a, b in zip(p, clamped, strict=True)]
    slope = [-sum(free[j] * t[j] * p[j] * ((j == k) - p[k]) for j in classes) / left for k in classes]
    loss = cross_entropy + strength * math.log(left)
    return loss, [g + strength * s for g, s in zip(gradient, slope, strict=True)]


SLOW = {"label-smoothing": slow_label_smoothing, "gce": slow_gce, "sce": slow_sce, "forward": slow_forward}
SLOW["confidence-penalty"] = slow_confidence_penalty


def losses_and_gradient(objective, logits, batch):
    logits = logits.clone().requires_grad_()
    losses = objective.losses(logits, batch)
    losses.sum().backward()
    return losses.detach(), logits.grad


def an_objective(name, clean, setting=None, **settings):
    config = SMALL.replace(baseline=name, **settings)
    config = config if setting is None else config.replace(baseline_parameter=setting)
    objective = baselines.objective(config, nn.Linear(3, 10), clean)
    if name == "elr":
        objective.memory = objective.memory.double()
    return objective


# --- losses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize(
    ("name", "setting", "noise"),
    [
        *(("label-smoothing", epsilon, noise) for epsilon in (0.1, 0.6) for noise in (0.0, 0.8)),
        *(("gce", q, noise) for q in (0.2, 0.7) for noise in (0.0, 0.8)),
        *(("sce", alpha, 0.0) for alpha in (0.1, 6.0)),
        *(("confidence-penalty", beta, noise) for beta in (0.3, 4.0) for noise in (0.0, 0.8)),
    ],
)
def test_losses_and_their_gradients_equal_a_loop_over_examples(name, setting, noise, scale, few_digits):
    logits, given = scale * draws(20, 10), one_hot(torch.arange(20) % 10)
    batch = a_batch(None, given, noise=noise * draws(20, 10, seed=1))
    losses, gradient = losses_and_gradient(an_objective(name, few_digits, setting), logits, batch)
    for n in range(20):
        loss, slope = SLOW[name](logits[n].tolist(), batch.targets[n].tolist(), setting)
        assert losses[n].item() == pytest.approx(loss, rel=1e-10)
        assert gradient[n].tolist() == pytest.approx(slope, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.8])
@pytest.mark.parametrize("scale", [1.0, 8.0], ids=["free", "partly clamped"])
def test_elr_and_its_memory_equal_a_loop_over_examples_through_three_visits(scale, noise, few_digits):
    objective = an_objective("elr", few_digits, 3.0)
    index, given = torch.tensor([5, 0, 71, 8]), one_hot(torch.tensor([1, 2, 3, 4]))
    memory = {n: [0.0] * 10 for n in index.tolist()}
    for visit in range(3):
        logits = scale * draws(4, 10, seed=visit)
        batch = a_batch(None, given, noise=noise * draws(4, 10, seed=9 + visit), index=index)
        losses, gradient = losses_and_gradient(objective, logits, batch)
        for i, n in enumerate(index.tolist()):
            f = logits[i].tolist()
            memory[n] = slow_memory(f, memory[n])
            loss, slope = slow_elr(f, batch.targets[i].tolist(), 3.0, memory[n])
            assert losses[i].item() == pytest.approx(loss, rel=1e-10)
            assert gradient[i].tolist() == pytest.approx(slope, rel=1e-9, abs=1e-12)
            assert objective.memory[n].tolist() == pytest.approx(memory[n], rel=1e-12)
    unseen = [n for n in range(72) if n not in memory]
    assert (objective.memory[unseen] == 0).all()


def test_the_limits_of_the_losses(few_digits):
    logits, labels = 2 * draws(20, 10), torch.arange(20) % 10
    batch = a_batch(None, one_hot(labels))
    p_y = F.softmax(logits, dim=1)[torch.arange(20), labels]

    def losses(name, setting):
        return an_objective(name, few_digits, setting).losses(logits, batch)

    torch.testing.assert_close(losses("label-smoothing", 0.0), -p_y.log())
    torch.testing.assert_close(losses("gce", 1e-9), -p_y.log())
    torch.testing.assert_close(losses("gce", 1.0), 1 - p_y)
    torch.testing.assert_close(losses("elr", 0.0), -p_y.log())
    torch.testing.assert_close(losses("sce", 0.0), 4 * math.log(10) * (1 - p_y))
    torch.testing.assert_close(losses("confidence-penalty", 0.0), -p_y.log())
    torch.testing.assert_close(losses("forward", None), -p_y.log())  # all labels are right: T = I
    torch.testing.assert_close(losses("label-smoothing", 1.0), -F.log_softmax(logits, dim=1).mean(dim=1))


@pytest.mark.parametrize("name", ["gce", "sce", "elr", "forward", "confidence-penalty"])
def test_a_certain_prediction_right_or_wrong_gives_finite_numbers(name, few_digits):
    logits = torch.zeros(2, 10)
    logits[:, 0] = 1000.0
    batch = a_batch(None, F.one_hot(torch.tensor([0, 1]), 10).float())
    objective = an_objective(name, few_digits)
    if name == "elr":
        objective.memory = objective.memory.float()
    for _ in range(3):
        losses, gradient = losses_and_gradient(objective, logits, batch)
        assert losses.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("mode", "beta"), [("sym", 0.7), ("asym", 0.9), ("dependent", 0.7)])
def test_elr_remembers_for_longer_under_asymmetric_noise(mode, beta, few_digits):
    objective = an_objective("elr", few_digits, noise_mode=mode)
    objective.losses(draws(1, 10), a_batch(None, one_hot(torch.tensor([3]))))
    assert objective.memory[0].sum().item() == pytest.approx(1 - beta)


def pairs_of_labels(pairs):
    """A stand-in for data whose training images have these true and given labels, ten classes."""
    true, given = map(torch.tensor, zip(*pairs, strict=True))
    split = data.Split(torch.zeros(len(true), 1, 8, 8, dtype=torch.uint8), given, true)
    return data.Data(split, split[:0], split[:0], tuple("0123456789"), 16.0, (0.0,), (1.0,))


def test_forward_correction_is_least_at_the_posterior_of_the_true_label():
    """An image with p(true | x) of T's classes has p(given | x) = T' p(true | x), and forward fits that."""
    noisy = pairs_of_labels([(0, 0)] * 3 + [(0, 1)] + [(1, 1)] * 3 + [(1, 2)] * 2 + [(2, 2)] + [(-1, 0)])
    T = torch.eye(10).double()
    T[0, :2], T[1, 1:3] = torch.tensor([0.75, 0.25]), torch.tensor([0.6, 0.4])
    posterior = torch.tensor([0.5, 0.2, 0.3] + [0.0] * 7).double()
    given = posterior @ T
    config = SMALL.replace(baseline="forward")
    objective = baselines.objective(config, nn.Linear(3, 10), noisy)
    logits = torch.zeros(10).double().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def risk():
        optimizer.zero_grad()
        losses = objective.losses(logits.expand(10, 10), a_batch(None, one_hot(torch.arange(10))))
        expected = given[:3] @ losses[:3]
        expected.backward()
        return expected

    optimizer.step(risk)
    torch.testing.assert_close(F.softmax(logits.detach(), dim=0), posterior, rtol=0, atol=1e-4)


# --- mixup --------------------------------------------------------------------------------------------------


def test_mixed_is_a_weighted_mean_with_the_partner():
    values, partners = torch.tensor([[1.0], [10.0], [100.0]]), torch.tensor([1, 2, 0])
    assert baselines.mixed(values, partners, 0.75).tolist() == [[3.25], [32.5], [75.25]]
    assert torch.equal(baselines.mixed(values, partners, 1.0), values)


def test_mixup_draws_one_beta_and_one_permutation_a_batch_from_its_stream(few_digits):
    seen = []

    class Noting(baselines.Mixup):
        def losses(self, logits, batch):
            seen.append(batch)
            return super().losses(logits, batch)

    config = SMALL.replace(baseline="mixup", baseline_parameter=0.4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    objective = Noting(config, network, few_digits)
    for epoch, sizes in ((1, (6, 6, 4)), (2, (6,)), (1, (6,))):
        rng = numpy_generator(5, "mixup", epoch)
        for size in sizes:
            images, given = draws(size, 1, 8, 8), one_hot(torch.arange(size))
            batch = a_batch(images, given, noise=draws(size, 10, seed=1), epoch=epoch)
            objective.gradient(batch)
            weight, partners = rng.beta(0.4, 0.4), rng.permutation(size)
            for name in ("images", "given", "targets"):
                for i, j in enumerate(partners):
                    value = getattr(batch, name)
                    expected = weight * value[i] + (1 - weight) * value[j]
                    torch.testing.assert_close(getattr(seen[-1], name)[i], expected)


# --- SAM ----------------------------------------------------------------------------------------------------


class Weights(nn.Module):
    """A network whose output is its weights, for any input."""

    def __init__(self, w):
        super().__init__()
        self.a, self.b = nn.Parameter(w[:2].clone()), nn.Parameter(w[2:].clone())

    def forward(self, images):
        return torch.cat([self.a, self.b]).expand(len(images), -1)


@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
def test_sam_on_a_quadratic_is_the_gradient_at_the_end_of_a_step_of_length_rho(rho, few_digits):
    curvature, w = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([1.0, -2.0, 0.5]).double()

    class Quadratic(baselines.SAM):
        def losses(self, logits, batch):
            return 0.5 * (curvature * logits**2).sum(dim=1)

    network = Weights(w)
    objective = Quadratic(SMALL.replace(baseline="sam", baseline_parameter=rho), network, few_digits)
    loss = objective.gradient(a_batch(torch.zeros(4, 1).double(), torch.zeros(4, 3).double()))
    g = curvature * w
    expected = curvature * (w + rho * g / g.square().sum().sqrt())
    torch.testing.assert_close(torch.cat([network.a.grad, network.b.grad]), expected)
    assert loss.item() == pytest.approx(0.5 * (1 + 16 + 9 / 4))
    assert torch.equal(torch.cat([network.a, network.b]), w)


def test_sam_where_the_gradient_is_zero_moves_nothing(few_digits):
    class Flat(baselines.SAM):
        def losses(self, logits, batch):
            return 0 * logits.sum(dim=1)

    network = Weights(torch.ones(3))
    objective = Flat(SMALL.replace(baseline="sam"), network, few_digits)
    objective.gradient(a_batch(torch.zeros(4, 1), torch.zeros(4, 3)))
    assert network.a.grad.tolist() == [0.0, 0.0]


def test_sam_leaves_weights_as_they_were_and_statistics_as_one_plain_pass_does(few_digits):
    config = SMALL.replace(baseline="sam", baseline_parameter=0.5)
    network = train.State(config, few_digits).network
    plain, before = copy.deepcopy(network), copy.deepcopy(network.state_dict())
    images, given = few_digits.normalise(few_digits.train.images), F.one_hot(few_digits.train.given, 10)
    for net, name in ((network, "sam"), (plain, "none")):
        baselines.METHODS[name](config, net.train(), few_digits).gradient(a_batch(images, given.float()))
    moved = 0
    for name, value in network.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
        moved += not torch.equal(value, before[name])
    assert moved == 9  # mean, variance and counter of three BatchNorms
    for (name, mine), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert (mine.grad - theirs.grad).abs().max() > 1e-4, name


# --- co-teaching --------------------------------------------------------------------------------------------


def test_the_share_that_is_kept_falls_to_1_minus_tau_within_ten_epochs():
    shares = [baselines.kept_share(0.4, epoch) for epoch in range(1, 13)]
    by_hand = [0.96, 0.92, 0.88, 0.84, 0.80, 0.76, 0.72, 0.68, 0.64, 0.60, 0.60, 0.60]
    assert shares == pytest.approx(by_hand)
    assert baselines.kept_share(0.0, 7) == 1.0


@pytest.mark.parametrize(
    ("losses", "share", "expected"),
    [
        ([3.0, 1.0, 2.0, 0.5, 9.0], 0.6, [3, 1, 2]),
        ([3.0, 1.0, 2.0, 0.5, 9.0], 1.0, [3, 1, 2, 0, 4]),
        ([3.0, 1.0, 2.0], 0.0, [1]),
        ([1.0, 1.0, 1.0, 1.0], 0.5, [0, 1]),
        ([4.0, 3.0, 2.0, 1.0], 0.65, [3, 2, 1]),  # 2.6 examples
        ([4.0, 3.0, 2.0, 1.0, 0.0], 1 - 0.4, [4, 3, 2]),
    ],
)
def test_the_small_losses_are_picked(losses, share, expected):
    assert baselines.small_losses(torch.tensor(losses), share).tolist() == expected


def linear(name="", *, in_channels=1, num_classes=10, seed=0, counters=()):
    """A linear network in float64, whose gradient can be written down; stands in for `models.build`."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes)).double()
    generator = torch_generator(seed, "initialisation", *counters)
    for parameter in network.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator).double()
    return network


def test_each_network_learns_from_what_its_peer_picked(few_digits, monkeypatch):
    monkeypatch.setattr(models, "build", linear)
    config = SMALL.replace(baseline="co-teaching", baseline_parameter=0.75, lr=0.1, weight_decay=0.0)
    network, epoch = linear(seed=5), 10
    objective = baselines.objective(config, network, few_digits)
    assert not torch.equal(network[1].weight, objective.peer[1].weight)
    images = few_digits.train.images.double()[:16] / 16
    # noise so large that the losses with it are in another order: it must not decide what is picked
    batch = a_batch(images, one_hot(few_digits.train.given[:16]), noise=3 * draws(16, 10), epoch=epoch)
    picks, gradients = [], []
    for net in (network, objective.peer):
        losses = F.cross_entropy(net(images), few_digits.train.given[:16], reduction="none")
        picks.append(sorted(sorted(range(16), key=losses.tolist().__getitem__)[:4]))
    assert picks[0] != picks[1]
    for net, pick in ((network, picks[1]), (objective.peer, picks[0])):
        loss = -(batch.targets * F.log_softmax(net(images), dim=1))[pick].sum() / 4
        gradients.append((loss.item(), torch.autograd.grad(loss, net[1].weight)[0]))
    before = objective.peer[1].weight.detach().clone()
    loss = objective.gradient(batch)
    assert loss.item() == pytest.approx(gradients[0][0])
    torch.testing.assert_close(network[1].weight.grad, gradients[0][1])
    torch.testing.assert_close(objective.peer[1].weight.detach(), before - 0.1 * gradients[1][1])


def test_the_peer_starts_elsewhere_and_the_network_where_it_always_does(few_digits):
    def weights(network):
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    states = {
        seed: train.State(SMALL.replace(baseline="co-teaching", seed=seed), few_digits) for seed in (0, 1)
    }
    plain = train.State(SMALL.replace(seed=0), few_digits).network
    assert torch.equal(weights(states[0].network), weights(plain))
    networks = [network for state in states.values() for network in (state.network, state.objective.peer)]
    for a, b in itertools.combinations(networks, 2):
        assert (a.conv1.weight != b.conv1.weight).all()


# --- whole epochs, against training written out by hand -----------------------------------------------------


def slow_transitions(split):
    labels = list(zip(split.true.tolist(), split.given.tolist(), strict=True))
    totals = [sum(true == k for true, _ in labels) for k in range(10)]
    return [[labels.count((k, j)) / totals[k] for j in range(10)] for k in range(10)]


def slow_epochs(config, clean, sigma):
    """Three epochs of a linear network by the papers' equations, without autograd, one example at a time."""
    name, setting = config.baseline, config.baseline_parameter
    if name == "forward":
        setting = slow_transitions(clean.train)
    x = torch.cat([normalised(clean, clean.train.images).flatten(1), torch.ones(72, 1).double()], dim=1)
    y = [[float(k == label) for k in range(10)] for label in clean.train.given.tolist()]
    W, velocity = {}, {}
    for who, counters in (("network", ()), ("peer", (1,))):
        layer = linear(seed=config.seed, counters=counters)[1]
        W[who] = torch.cat([layer.weight.detach(), layer.bias.detach()[:, None]], dim=1)
        velocity[who] = torch.zeros_like(W[who])
    memory, objectives = [[0.0] * 10 for _ in range(72)], []

    def loss_and_gradient(weights, xs, targets, ns):
        """Mean loss and gradient at `weights` over examples of inputs `xs`, `targets` and numbers `ns`."""
        total, gradient = 0.0, torch.zeros_like(weights)
        for vector, target, n in zip(xs, targets, ns, strict=True):
            f = (weights @ vector).tolist()
            if name == "elr":
                memory[n] = slow_memory(f, memory[n])
                loss, slope = slow_elr(f, target, setting, memory[n])
            else:
                slow = SLOW.get(name)
                loss, slope = slow(f, target, setting) if slow else slow_cross_entropy(f, target)
            total += loss / len(ns)
            gradient += torch.outer(torch.tensor(slope, dtype=torch.float64), vector) / len(ns)
        return total, gradient

    def easiest(weights, batch, kept):
        losses = {n: slow_cross_entropy((weights @ x[n]).tolist(), y[n])[0] for n in batch}
        return sorted(batch, key=losses.get)[:kept]

    for epoch in range(1, config.epochs + 1):
        order = torch.randperm(72, generator=torch_generator(config.seed, "shuffling", epoch)).tolist()
        z = torch.randn(72, 10, generator=torch_generator(config.seed, "stochastic noise", epoch)).double()
        rng, total = numpy_generator(config.seed, "mixup", epoch), 0.0
        for start in range(0, 72, config.batch_size):
            batch = order[start : start + config.batch_size]
            noisy = {n: (torch.tensor(y[n]).double() + sigma * z[n]).tolist() for n in batch}
            picked = {"network": batch}
            if name == "co-teaching":
                kept = round((1 - setting * min(epoch / 10, 1)) * len(batch))
                picked = {
                    "network": easiest(W["peer"], batch, kept),
                    "peer": easiest(W["network"], batch, kept),
                }
            losses, gradients = {}, {}
            for who, ns in picked.items():
                xs, targets = [x[n] for n in ns], [noisy[n] for n in ns]
                if name == "mixup":
                    weight, partners = rng.beta(setting, setting), rng.permutation(len(ns))
                    xs = [weight * xs[i] + (1 - weight) * xs[j] for i, j in enumerate(partners)]
                    targets = [
                        [weight * a + (1 - weight) * b for a, b in zip(targets[i], targets[j], strict=True)]
                        for i, j in enumerate(partners)
                    ]
                losses[who], gradients[who] = loss_and_gradient(W[who], xs, targets, ns)
                if name == "sam":
                    g = gradients[who]
                    length = math.sqrt(sum(float(entry) ** 2 for entry in g.flatten()))
                    _, gradients[who] = loss_and_gradient(W[who] + setting * g / length, xs, targets, ns)
            for who, gradient in gradients.items():
                velocity[who] = 0.9 * velocity[who] + gradient + config.weight_decay * W[who]
                W[who] = W[who] - config.lr * velocity[who]
            total += losses["network"] * len(batch)
        objectives.append(total / 72)
    return W["network"], objectives


def normalised(clean, images):
    return (images.double() / 16 - clean.mean[0]) / clean.std[0]


@pytest.fixture
def in_float64(monkeypatch):
    """States with linear networks, everything in float64."""
    monkeypatch.setattr(models, "build", linear)
    monkeypatch.setattr(data.Data, "normalise", normalised)
    monkeypatch.setattr(train, "one_hot", lambda clean: one_hot(clean.train.given))


def a_state(config, clean):
    state = train.State(config, clean)
    if config.baseline == "elr":
        state.objective.memory = state.objective.memory.double()
    return state


@pytest.mark.parametrize(("name", "sigma"), [(n, 0.0) for n in METHODS] + [(n, 0.5) for n in WITH_SLN])
def test_three_epochs_equal_training_written_out_by_hand(name, sigma, few_noisy_digits, in_float64):
    config = SMALL.replace(baseline=name, sigma=sigma)
    state = a_state(config, few_noisy_digits)
    objectives = [
        train.train_epoch(state, few_noisy_digits, config, epoch, sigma)
        for epoch in range(1, config.epochs + 1)
    ]
    W, expected = slow_epochs(config, few_noisy_digits, sigma)
    assert objectives == pytest.approx(expected, rel=1e-9)
    layer = state.network[1]
    torch.testing.assert_close(torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach(), W)


NOTHING = {"label-smoothing": 0.0, "elr": 0.0, "sam": 0.0, "co-teaching": 0.0, "gce": 1e-9}
NOTHING["confidence-penalty"] = 0.0


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("name", [*NOTHING, "mixup"])
def test_the_setting_that_asks_for_nothing_is_plain_training(
    name, sigma, few_noisy_digits, in_float64, monkeypatch
):
    def weights(config):
        state = a_state(config, few_noisy_digits)
        for epoch in (1, 2):
            train.train_epoch(state, few_noisy_digits, config, epoch, sigma)
        return state.network[1].weight.detach()

    class Certain:
        """lambda is 1."""

        def beta(self, a, b):
            return 1.0

        def permutation(self, n):
            return np.random.default_rng(0).permutation(n)

    monkeypatch.setattr(baselines, "numpy_generator", lambda *counters: Certain())
    config = SMALL.replace(baseline=name, sigma=sigma)
    if name in NOTHING:
        config = config.replace(baseline_parameter=NOTHING[name])
    plain = weights(SMALL.replace(sigma=sigma))
    torch.testing.assert_close(weights(config), plain, rtol=1e-6, atol=1e-8)
    published = weights(SMALL.replace(baseline="sam", sigma=sigma))
    assert (published - plain).abs().max() > 1e-5  # so that this test can tell


# --- training -----------------------------------------------------------------------------------------------


def after(config, clean, epochs):
    """The state after some epochs, and what they minimised."""
    state = train.State(config, clean)
    objectives = [train.train_epoch(state, clean, config, e, config.sigma) for e in range(1, epochs + 1)]
    return state, objectives


@pytest.mark.parametrize(("name", "sigma"), [(n, 0.0) for n in METHODS] + [(n, 0.25) for n in WITH_SLN])
def test_every_method_learns_alone_and_with_stochastic_noise(name, sigma, few_digits):
    config = SMALL.replace(baseline=name, sigma=sigma)
    images, given = few_digits.normalise(few_digits.train.images), few_digits.train.given
    losses = [
        F.cross_entropy(after(config, few_digits, epochs)[0].network.train()(images), given).item()
        for epochs in (0, 2)
    ]
    assert losses[1] < losses[0] - 0.05


def photographs():
    """24 random images of 3 x 8 x 8 with random labels: a stand-in for CIFAR."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(24) % 10
    split = data.Split(images, labels, labels)
    numbers = ((0.5,) * 3, (0.3,) * 3)
    return data.Data(split, split[:0], split, tuple("0123456789"), 255.0, *numbers, padding=1)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_method_trains_a_wide_resnet_on_augmented_photographs_in_both_precisions(name, precision):
    config = Config(
        dataset="cifar10", model="wrn-10-1", batch_size=12, correction=-1, sigma=0.0, precision=precision,
        baseline=name, epochs=2, lr=0.01,
    )  # fmt: skip
    state, objectives = after(config, photographs(), 2)
    assert all(map(math.isfinite, objectives))
    tensors = state.tensors()
    assert all(value.isfinite().all() for value in tensors.values())
    assert {value.dtype for value in tensors.values()} == {torch.float32, torch.int64}
    start = train.State(config, photographs()).network
    for a, b in zip(state.network.parameters(), start.parameters(), strict=True):
        assert a.stride() == b.stride()
    assert (state.network.linear.weight != start.linear.weight).any()


# --- checkpoints --------------------------------------------------------------------------------------------


def test_the_state_holds_what_a_method_remembers(few_digits):
    def remembered(name, epochs):
        named = after(SMALL.replace(baseline=name), few_digits, epochs)[0].tensors()
        return {key.removeprefix("objective/"): value for key, value in named.items() if "objective/" in key}

    for name in set(METHODS) - {"elr", "co-teaching"}:
        assert remembered(name, 1) == {}
    memory = remembered("elr", 1)["memory"]
    torch.testing.assert_close(memory.sum(dim=1), torch.full((72,), 0.3))
    network = train.State(SMALL, few_digits).network
    peer = {f"peer/{name}" for name in network.state_dict()}
    assert remembered("co-teaching", 0).keys() == peer
    momentum = {f"optimizer/{name}" for name, _ in network.named_parameters()}
    assert remembered("co-teaching", 1).keys() == peer | momentum


def test_a_state_of_another_method_is_not_restored(few_digits):
    plain = after(SMALL, few_digits, 1)[0].tensors()
    for name in ("elr", "co-teaching"):
        with pytest.raises((KeyError, RuntimeError)):
            train.State(SMALL.replace(baseline=name), few_digits).restore(plain)


@pytest.mark.parametrize("name", ["mixup", "elr", "sam", "co-teaching"])
def test_a_run_resumed_in_its_middle_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    config = Config(baseline=name, sigma=0.5, epochs=4, batch_size=128, measure_train_every=4)
    whole_train = train.train_in_turns

    def stopping(*args):
        for epoch in whole_train(*args):
            if epoch and epoch.number > 2:
                raise KeyboardInterrupt
            yield epoch

    found = []
    for folder, stops in (("whole", False), ("stopped", True)):
        monkeypatch.setenv("SLN_RUNS", str(tmp_path / folder))
        if stops:
            monkeypatch.setattr("sln.runs.in_memory.train_in_turns", stopping)
            with pytest.raises(KeyboardInterrupt):
                runs.get(config, quiet=True, checkpoint_seconds=0)
            saved = store.read_tensors(store.folder(config) / "checkpoint.safetensors")
            assert int(saved["epoch"]) == 2
            monkeypatch.setattr("sln.runs.in_memory.train_in_turns", whole_train)
        run = runs.get(config, quiet=True)
        history = (run.folder / "history.csv").read_text()
        timeless = run.history.drop(columns="seconds").to_csv()
        assert len(history.splitlines()) == 1 + 2 * config.epochs
        found.append([(run.folder / name).read_bytes() for name in ("weights.safetensors", "examples.csv")])
        found[-1].append(timeless)
    assert found[0] == found[1]
