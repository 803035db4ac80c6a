"""The released network, and its recipe against one written out by hand in float64."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from sln import data, models, train
from sln.analysis.theory import jacobian
from sln.config import Config
from sln.objective import forward
from sln.utils.rng import torch_generator

CLASSES = 4
# 26 images in batches of 6: four whole ones and one of 2, so 20 steps in 4 epochs
SMALL = Config(
    dataset="cifar10",
    model="wrn-10-1",
    noise_mode="none",
    epochs=4,
    batch_size=6,
    lr=0.05,
    weight_decay=0.01,
    sigma=0.5,
    alpha=0.9,
    correction=-1,
    seed=5,
    threads=1,
)


@pytest.fixture
def few_photographs():
    """26 training, 5 validation and 7 test images of noise, 8x8, with 4 classes and some wrong labels."""
    generator = torch.Generator().manual_seed(0)

    def split(n):
        images = torch.randint(256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
        given, true = torch.randint(CLASSES, (2, n), generator=generator)
        return data.Split(images, given, torch.where(torch.arange(n) % 3 > 0, given, true))

    means = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    return data.Data(split(26), split(5), split(7), tuple("abcd"), scale=255.0, **means, padding=2)


# --- the network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "parameters"), [(10, 1_469_642), (100, 1_481_252)])
def test_wrn_28_2_has_the_released_networks_size(classes, parameters):
    network = models.build("wrn-28-2", in_channels=3, num_classes=classes, seed=0)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == 183
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert sorted(norm.momentum for norm in norms) == [0.1] * 24 + [0.9]
    assert network.bn1.momentum == 0.9
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(conv.bias is not None for conv in convolutions)
    strided = {name for name, module in network.named_modules() if getattr(module, "stride", None) == (2, 2)}
    assert strided == {f"layer{layer}.0.{name}" for layer in (2, 3) for name in ("conv2", "shortcut.0")}


def test_its_maps_shrink_twice_and_its_logits_are_one_row_an_image():
    network, shapes = models.build("wrn-28-2", in_channels=3, num_classes=10, seed=0), []
    for layer in (network.layer1, network.layer2, network.layer3):
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [(2, 32, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8)]


def test_a_frozen_hidden_layer_leaves_a_linear_model_whose_jacobian_does_not_depend_on_the_weights():
    network = models.build("frozen", in_channels=1, num_classes=10, seed=0)
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits, J = jacobian(network, images)
    assert [(name, tuple(p.shape)) for name, p in network.named_parameters()] == [
        ("linear.weight", (10, models.HIDDEN)),
        ("linear.bias", (10,)),
    ]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-3)
    again, same = jacobian(network, images)
    torch.testing.assert_close(again, -3 * logits)
    torch.testing.assert_close(same, J)
    features = torch.relu(images.flatten(1) @ network.hidden)
    ratio = features.norm(dim=1) / images.flatten(1).norm(dim=1)
    torch.testing.assert_close(ratio.mean().item(), models.FROZEN_SCALE, rtol=0.05, atol=0)


# --- the recipe, by hand ------------------------------------------------------------------------------------


def slow_batchnorm(x, m, name, training):
    """Batch statistics in training, which also move the running ones: by 0.1, the last one's by 0.9."""
    mean, variance = m[f"{name}.running_mean"], m[f"{name}.running_var"]
    if training:
        n, step = x.numel() / x.shape[1], 0.9 if name == "bn1" else 0.1
        mean = x.sum(dim=(0, 2, 3)) / n
        variance = ((x - mean[:, None, None]) ** 2).sum(dim=(0, 2, 3)) / n
        for kind, batch in (("mean", mean), ("var", variance * n / (n - 1))):
            key = f"{name}.running_{kind}"
            m[key] = (1 - step) * m[key] + step * batch.detach()
    x = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + 1e-5)
    return x * m[f"{name}.weight"][:, None, None] + m[f"{name}.bias"][:, None, None]


def slow_relu(x):
    return x * (x > 0)


def slow_logits(x, m, training):
    """WRN-10-1: one block a layer."""

    def conv(x, name, **options):
        return F.conv2d(x, m[f"{name}.weight"], m[f"{name}.bias"], **options)

    x = conv(x, "conv1", padding=1)
    for layer, stride in ((1, 1), (2, 2), (3, 2)):
        name = f"layer{layer}.0"
        out = conv(slow_relu(slow_batchnorm(x, m, f"{name}.bn1", training)), f"{name}.conv1", padding=1)
        out = slow_relu(slow_batchnorm(out, m, f"{name}.bn2", training))
        out = conv(out, f"{name}.conv2", padding=1, stride=stride)
        x = out + (conv(x, f"{name}.shortcut.0", stride=stride) if layer > 1 else x)
    x = slow_relu(slow_batchnorm(x, m, "bn1", training))
    return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3]) @ m["linear.weight"].T + m["linear.bias"]


def slow_crop(image, top, left, flip, padding):
    """One image, pixel by pixel."""
    C, H, W = image.shape
    padded = torch.zeros(C, H + 2 * padding, W + 2 * padding, dtype=image.dtype)
    padded[:, padding : padding + H, padding : padding + W] = image
    out = padded[:, top : top + H, left : left + W]
    return out.flip(2) if flip else out


def slow_augmented(clean, seed, *counters):
    """All training images, cropped and flipped by the draws of one pass, normalised, in float64."""
    generator, N = torch_generator(seed, "augmentation", *counters), len(clean.train)
    places = 2 * clean.padding + 1
    top = torch.randint(places, (N,), generator=generator).tolist()
    left = torch.randint(places, (N,), generator=generator).tolist()
    flip = torch.randint(2, (N,), generator=generator).tolist()
    images = [
        slow_crop(*each, clean.padding) for each in zip(clean.train.images, top, left, flip, strict=True)
    ]
    return slow_normalised(torch.stack(images), clean)


def slow_normalised(images, clean):
    mean, std = (torch.tensor(x, dtype=torch.float64).view(1, 3, 1, 1) for x in (clean.mean, clean.std))
    return (images.double() / 255 - mean) / std


def slow_correction(epoch, targets, average, clean, config):
    """New targets: w y + (1 - w) y_hat, both readings of the losses."""
    given = torch.eye(CLASSES, dtype=torch.float64)[clean.train.given]
    if config.correction_losses == "as-released":
        images, against = slow_augmented(clean, config.seed, epoch, 1), targets
    else:
        images, against = slow_normalised(clean.train.images, clean), given
    f = slow_logits(images, average, training=False)
    log_p = f - torch.log(torch.exp(f).sum(dim=1, keepdim=True))
    losses = [-float(against[n] @ log_p[n]) for n in range(len(f))]
    corrected = []
    for n, loss in enumerate(losses):
        w = (loss - min(losses)) / (max(losses) - min(losses))
        y_hat = torch.exp(log_p[n])
        if not config.soft_correction:
            y_hat = torch.eye(CLASSES, dtype=torch.float64)[int(f[n].argmax())]
        corrected.append(w * given[n] + (1 - w) * y_hat)
    return torch.stack(corrected)


def slow_training(m, clean, config):
    """The whole run from weights m. Returns what is left at its end."""
    m = {name: value.double() for name, value in m.items() if not name.endswith("tracked")}
    parameters = [name for name in m if "running" not in name]
    average, velocity = dict(m), dict.fromkeys(parameters, 0.0)
    targets = torch.eye(CLASSES, dtype=torch.float64)[clean.train.given]
    for epoch in range(1, config.epochs + 1):
        sigma = config.sigma
        if 0 < config.correction < epoch:
            sigma, targets = 0.0, slow_correction(epoch, targets, average, clean, config)
        order = torch.randperm(26, generator=torch_generator(config.seed, "shuffling", epoch)).tolist()
        z = torch.randn(26, CLASSES, generator=torch_generator(config.seed, "stochastic noise", epoch))
        images = slow_normalised(clean.train.images, clean)
        if config.augment:
            images = slow_augmented(clean, config.seed, epoch)
        for start in range(0, 26, config.batch_size):
            batch = order[start : start + config.batch_size]
            for name in parameters:
                m[name] = m[name].detach().requires_grad_()
            f = slow_logits(images[batch], m, training=True)
            log_p = f - torch.log(torch.exp(f).sum(dim=1, keepdim=True))
            loss = 0.0
            for row, n in enumerate(batch):
                for j in range(CLASSES):
                    loss = loss - (targets[n, j] + sigma * z[n, j].double()) * log_p[row, j]
            gradients = torch.autograd.grad(loss / len(batch), [m[name] for name in parameters])
            lr = config.lr / 10 if 0 < config.lr_drop < epoch else config.lr
            for name, gradient in zip(parameters, gradients, strict=True):
                velocity[name] = config.momentum * velocity[name] + gradient
                velocity[name] = velocity[name] + config.weight_decay * m[name].detach()
                m[name] = m[name].detach() - lr * velocity[name]
            average = {
                name: config.alpha * average[name] + (1 - config.alpha) * value for name, value in m.items()
            }
    return m, average, velocity, targets


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"augment": False, "lr_drop": 2},
        {"correction": 2},
        {"correction": 1, "correction_losses": "as-released"},
        {"correction": 1, "correction_losses": "as-released", "soft_correction": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "recipe",
)
def test_twenty_steps_of_the_recipe_equal_training_written_out_by_hand(
    settings, few_photographs, monkeypatch
):
    config, clean = SMALL.replace(**settings), few_photographs
    monkeypatch.setattr(data.Data, "normalise", lambda self, images: slow_normalised(images, self))
    state = train.State(config, clean)
    start = {name: value.clone() for name, value in state.network.state_dict().items()}
    state.targets = state.targets.double()
    for network in (state.network, state.averages["momentum"]):
        network.double()
    for _ in train.train(state, clean, config):
        pass
    m, average, velocity, targets = slow_training(start, clean, config)
    close = {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(state.targets, targets, **close)
    named = state.tensors()
    for name, expected in m.items():
        torch.testing.assert_close(named[f"network/{name}"], expected, **close)
        torch.testing.assert_close(named[f"momentum/module.{name}"], average[name], **close)
        assert not torch.allclose(expected, start[name].double(), rtol=1e-3, atol=1e-4), name
    for name, expected in velocity.items():
        torch.testing.assert_close(named[f"optimizer/{name}"], expected, **close)


def test_as_released_predictions_are_of_augmented_images_and_of_other_draws_than_training(few_photographs):
    config = SMALL.replace(correction=1, correction_losses="as-released")
    state = train.State(config, few_photographs)
    network = state.averages["momentum"].module
    plain = train.predict(network, few_photographs.train, few_photographs)
    draws = train.crops_and_flips(few_photographs, config, 2, 1)
    of_training = train.crops_and_flips(few_photographs, config, 2)
    augmented = train.predict(network, few_photographs.train, few_photographs, draws)
    assert not torch.allclose(plain, augmented)
    assert not torch.equal(draws.top, of_training.top)
    still = dataclasses.replace(
        draws, top=torch.full_like(draws.top, 2), left=torch.full_like(draws.left, 2), flip=draws.flip & False
    )
    unmoved = train.predict(network, few_photographs.train, few_photographs, still)
    torch.testing.assert_close(unmoved, plain)


def test_a_restored_state_goes_on_bit_for_bit_in_the_same_memory_layout(few_photographs):
    whole = train.State(SMALL, few_photographs)
    for epoch in train.train(whole, few_photographs, SMALL):
        if epoch.number == 2:
            saved = {name: value.clone().contiguous() for name, value in whole.tensors().items()}
    resumed = train.State(SMALL, few_photographs)
    resumed.restore(saved)
    for name, value in resumed.network.named_parameters():
        buffer = resumed.optimizer.state[value]["momentum_buffer"]
        assert buffer.stride() == value.stride(), name
    for _ in train.train(resumed, few_photographs, SMALL):
        pass
    ours, theirs = resumed.tensors(), whole.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_mixed_precision_is_close_and_not_the_same(few_photographs):
    exact, mixed = train.State(SMALL, few_photographs), train.State(SMALL, few_photographs)
    low = SMALL.replace(precision="bfloat16")
    images = few_photographs.normalise(few_photographs.train.images)
    a, b = forward(exact.network, images, SMALL), forward(mixed.network, images, low)
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)
    assert all(p.dtype == torch.float32 for p in mixed.network.parameters())


def test_training_images_are_measured_every_so_many_epochs_and_at_the_last(few_photographs, monkeypatch):
    monkeypatch.setattr(train, "ALWAYS_WHOLE", 0)
    config = SMALL.replace(measure_train_every=3)
    state, measured = train.State(config, few_photographs), {}
    for epoch in train.train(state, few_photographs, config):
        for row in epoch.rows:
            assert 0 <= row["test_accuracy"] <= 1
            measured[epoch.number] = row["train_loss"] == row["train_loss"]  # not NaN
    assert measured == {1: False, 2: False, 3: True, 4: True}
