"""The training loop against one written out by hand in float64, and the laws it keeps."""

import itertools
import math

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from sln import data, method, models, train
from sln.config import CORRECTION_WEIGHTS, Config
from sln.datasets import load
from sln.utils.rng import numpy_generator, torch_generator

# 72 examples in batches of 16: four whole ones and one of 8, so 20 steps in 4 epochs
SMALL = Config(
    epochs=4, batch_size=16, lr=0.05, weight_decay=0.01, sigma=0.5, alpha=0.9, noise_seed=3, seed=5,
    measure_train_every=1,
)  # fmt: skip
PARAMETERS = ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias",
              "conv3.weight", "bn3.weight", "bn3.bias", "linear.weight", "linear.bias")  # fmt: skip


# --- the slow oracle ----------------------------------------------------------------------------------------


def normalised(split, clean):
    return (split.images.double() / 16 - clean.mean[0]) / clean.std[0]


def slow_batchnorm(x, m, name, training):
    """Batch statistics in training, which also move the running ones by a tenth; running ones otherwise."""
    mean, variance = m[f"{name}.running_mean"], m[f"{name}.running_var"]
    if training:
        n = x.numel() / x.shape[1]
        mean = x.sum(dim=(0, 2, 3)) / n
        variance = ((x - mean[:, None, None]) ** 2).sum(dim=(0, 2, 3)) / n
        for kind, batch in (("mean", mean), ("var", variance * n / (n - 1))):
            m[f"{name}.running_{kind}"] = 0.9 * m[f"{name}.running_{kind}"] + 0.1 * batch.detach()
    x = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + 1e-5)
    return x * m[f"{name}.weight"][:, None, None] + m[f"{name}.bias"][:, None, None]


def slow_logits(x, m, training):
    for layer in (1, 2, 3):
        x = F.conv2d(x, m[f"conv{layer}.weight"], padding=1)
        x = slow_batchnorm(x, m, f"bn{layer}", training)
        x = x * (x > 0)
        if layer == 2:
            x = x.reshape(*x.shape[:2], 4, 2, 4, 2).amax(dim=(3, 5))
    return x.sum(dim=(2, 3)) / 16 @ m["linear.weight"].T + m["linear.bias"]


def slow_log_p(f):
    """log softmax of one row of logits."""
    return f - torch.log(torch.exp(f - f.max()).sum()) - f.max()


def slow_correction(images, given, targets, average, config):
    """New targets, one example at a time: w y + (1 - w) y_hat."""
    with torch.no_grad():
        log_ps = [slow_log_p(f).tolist() for f in slow_logits(images, average, training=False)]
    one_hot = [[float(j == y) for j in range(10)] for y in given.tolist()]
    against = targets.tolist() if config.correction_losses == "as-released" else one_hot
    losses = [
        -sum(t * x for t, x in zip(ts, xs, strict=True)) for ts, xs in zip(against, log_ps, strict=True)
    ]
    corrected = []
    for y, xs, loss in zip(one_hot, log_ps, losses, strict=True):
        w = (loss - min(losses)) / (max(losses) - min(losses))
        hard = [float(j == xs.index(max(xs))) for j in range(10)]
        predicted = [math.exp(x) for x in xs] if config.soft_correction else hard
        corrected.append([w * a + (1 - w) * b for a, b in zip(y, predicted, strict=True)])
    return torch.tensor(corrected, dtype=torch.float64)


def slow_training(m, clean, config):
    """The whole run from weights m, in float64 and by hand. Returns what is left at its end."""
    images, given, N = normalised(clean.train, clean), clean.train.given, len(clean.train)
    m = {name: value.double() for name, value in m.items() if not name.endswith("tracked")}
    average, velocity = dict(m), dict.fromkeys(PARAMETERS, 0.0)
    targets = torch.tensor([[float(j == y) for j in range(10)] for y in given], dtype=torch.float64)
    objectives = []
    for epoch in range(1, config.epochs + 1):
        sigma = config.sigma
        if 0 < config.correction < epoch:
            sigma, targets = 0.0, slow_correction(images, given, targets, average, config)
        order = torch.randperm(N, generator=torch_generator(config.seed, "shuffling", epoch)).tolist()
        noise = torch_generator(config.seed, "stochastic noise", epoch)
        z, total = torch.randn(N, 10, generator=noise).double(), 0.0
        for start in range(0, N, config.batch_size):
            batch = order[start : start + config.batch_size]
            for name in PARAMETERS:
                m[name] = m[name].detach().requires_grad_()
            loss = 0.0
            for n, f in zip(batch, slow_logits(images[batch], m, training=True), strict=True):
                y = targets[n] + sigma * z[n] if config.noise_on == "labels" else targets[n]
                loss = loss - y @ slow_log_p(f)
                if config.noise_on == "logits":
                    loss = loss + sigma * (z[n] @ f)
            total += loss.item()
            gradients = torch.autograd.grad(loss / len(batch), [m[name] for name in PARAMETERS])
            for name, gradient in zip(PARAMETERS, gradients, strict=True):
                if config.noise_on == "gradient" and sigma > 0:
                    gradient = gradient + sigma * torch.randn(gradient.shape, generator=noise).double()
                step = gradient + config.weight_decay * m[name].detach()
                velocity[name] = config.momentum * velocity[name] + step
                m[name] = m[name].detach() - config.lr * velocity[name]
            average = {
                name: config.alpha * average[name] + (1 - config.alpha) * value for name, value in m.items()
            }
        objectives.append(total / N)
    return m, average, velocity, targets, objectives


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"noise_on": "logits"},
        {"noise_on": "gradient", "sigma": 0.125},
        {"correction": 2},
        {"correction": 1, "soft_correction": True, "correction_losses": "as-released"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "labels",
)
def test_twenty_steps_equal_training_written_out_by_hand(settings, few_noisy_digits, monkeypatch):
    config, clean = SMALL.replace(**settings), few_noisy_digits
    monkeypatch.setattr(
        data.Data, "normalise", lambda self, images: (images.double() / 16 - self.mean[0]) / self.std[0]
    )
    state = train.State(config, clean)
    start = {name: value.clone() for name, value in state.network.state_dict().items()}
    state.targets = state.targets.double()
    for network in (state.network, state.averages["momentum"]):
        network.double()
    objectives = [epoch.rows[0]["objective"] for epoch in train.train(state, clean, config)]
    m, average, velocity, targets, expected_objectives = slow_training(start, clean, config)
    close = {"rtol": 1e-8, "atol": 1e-10}
    assert objectives == pytest.approx(expected_objectives, rel=1e-9)
    torch.testing.assert_close(state.targets, targets, **close)
    named = state.tensors()
    for name, expected in m.items():
        torch.testing.assert_close(named[f"network/{name}"], expected, **close)
        torch.testing.assert_close(named[f"momentum/module.{name}"], average[name], **close)
        assert not torch.allclose(expected, start[name].double(), rtol=1e-3, atol=1e-4)
    for name, expected in velocity.items():
        torch.testing.assert_close(named[f"optimizer/{name}"], expected, **close)


# --- how runs are compared ----------------------------------------------------------------------------------


def trained(config, clean, state=None):
    """The state at the end, and every epoch but its time."""
    state = state or train.State(config, clean)
    epochs = list(train.train(state, clean, config))
    for epoch in epochs:
        for row in epoch.rows:
            row.pop("seconds")
    return state, epochs


def assert_identical(a, b):
    a, b = a.tensors(), b.tensors()
    assert set(a) == set(b)
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def weights(state):
    return torch.cat([parameter.detach().flatten() for parameter in state.network.parameters()])


# --- batches ------------------------------------------------------------------------------------------------


def test_every_example_is_seen_once_an_epoch_and_the_smaller_last_batch_too(few_digits):
    state = train.State(SMALL, few_digits)
    which = {
        few_digits.normalise(image[None]).numpy().tobytes(): n
        for n, image in enumerate(few_digits.train.images)
    }
    assert len(which) == 72
    seen = []

    def note(network, inputs):
        if network.training:
            seen.append([which[image.numpy().tobytes()] for image in inputs[0][:, None]])

    state.network.register_forward_pre_hook(note)
    orders = []
    for _ in train.train(state, few_digits, SMALL.replace(epochs=2)):
        assert [len(batch) for batch in seen] == [16, 16, 16, 16, 8]
        orders.append(list(itertools.chain.from_iterable(seen)))
        seen.clear()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(72))
    assert orders[0] != orders[1]
    assert orders[0] != list(range(72))


def test_every_epoch_draws_its_order_and_its_noise_from_two_streams_of_the_seed(
    few_noisy_digits, monkeypatch
):
    asked = []

    def note(seed, stream, *counters):
        asked.append((seed, stream, *counters))
        return torch_generator(seed, stream, *counters)

    monkeypatch.setattr(train, "torch_generator", note)
    trained(SMALL.replace(epochs=2), few_noisy_digits)
    streams = [(5, stream, epoch) for epoch in (1, 2) for stream in ("shuffling", "stochastic noise")]
    assert asked == streams


# --- stochastic noise ---------------------------------------------------------------------------------------


def test_the_three_kinds_of_noise_differ_and_without_noise_are_the_same(few_noisy_digits):
    kinds = ("labels", "logits", "gradient")
    one_epoch = SMALL.replace(epochs=1)
    noisy = [trained(one_epoch.replace(noise_on=kind), few_noisy_digits)[0] for kind in kinds]
    plain = [trained(one_epoch.replace(noise_on=kind, sigma=0.0), few_noisy_digits)[0] for kind in kinds]
    for a, b in itertools.combinations([*noisy, plain[0]], 2):
        assert (weights(a) - weights(b)).abs().max() > 1e-3
    assert_identical(plain[0], plain[1])
    assert_identical(plain[0], plain[2])


@pytest.mark.parametrize("noise_on", ["labels", "logits", "gradient"])
def test_after_the_correction_epoch_there_is_no_stochastic_noise(noise_on, few_noisy_digits):
    config = SMALL.replace(correction=2, noise_on=noise_on)
    state = train.State(config, few_noisy_digits)
    epochs = train.train(state, few_noisy_digits, config)
    next(epochs), next(epochs)
    without = train.State(config, few_noisy_digits)
    without.restore({name: value.clone() for name, value in state.tensors().items()})
    list(epochs)
    trained(config.replace(sigma=0.0), few_noisy_digits, without)
    assert_identical(state, without)


# --- label correction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", ["given", "as-released"])
@pytest.mark.parametrize("soft", [False, True])
def test_correction_by_hand_from_the_momentum_model_as_it_stood(losses, soft, few_noisy_digits):
    config = SMALL.replace(correction=1, correction_losses=losses, soft_correction=soft)
    clean, readings = few_noisy_digits, {}
    state = train.State(config, clean)
    epochs = train.train(state, clean, config)
    assert next(epochs).correction is None
    images = normalised(clean.train, clean)
    for _ in range(3):
        average = {
            name: value.double() for name, value in state.averages["momentum"].module.state_dict().items()
        }
        readings = {
            reading: slow_correction(
                images, clean.train.given, state.targets, average, config.replace(correction_losses=reading)
            )
            for reading in ("given", "as-released")
        }
        correction = next(epochs).correction
        torch.testing.assert_close(state.targets.double(), readings[losses], rtol=1e-4, atol=1e-5)
        one_hot = F.one_hot(clean.train.given, 10)
        w = correction.w[:, None]
        torch.testing.assert_close(w * one_hot + (1 - w) * correction.predictions, state.targets)
        assert correction.w.min() == 0
        assert correction.w.max() == 1
        torch.testing.assert_close(correction.predictions.sum(dim=1), torch.ones(72))
        assert bool((correction.predictions.max(dim=1).values == 1).all()) is not soft
    # from the second corrected epoch on the readings are different, so that this test can tell them apart
    assert (readings["given"] - readings["as-released"]).abs().max() > 0.01


def test_the_weight_of_the_given_label_is_that_of_the_rule(few_noisy_digits):
    found = {}
    for rule in CORRECTION_WEIGHTS:
        state, epochs = trained(
            SMALL.replace(epochs=2, correction=1, correction_weight=rule), few_noisy_digits
        )
        found[rule] = epochs[-1].correction  # all from the same momentum model, that of epoch 1
        w, y = found[rule].w[:, None], F.one_hot(few_noisy_digits.train.given, 10)
        torch.testing.assert_close(w * y + (1 - w) * found[rule].predictions, state.targets)
        assert torch.equal(found[rule].predictions, found["loss"].predictions)
    torch.testing.assert_close(found["reversed"].w, 1 - found["loss"].w)
    assert found["none"].w.tolist() == [0.0] * 72
    torch.testing.assert_close(found["mixture"].w, method.mixture_weight(found["loss"].w))


@pytest.mark.parametrize("correction", [-1, 0, 2, 3])
def test_correction_outside_the_epochs_is_never(correction, few_noisy_digits):
    config = SMALL.replace(epochs=2, correction=correction)
    state, epochs = trained(config, few_noisy_digits)
    assert [epoch.correction for epoch in epochs] == [None, None]
    assert torch.equal(state.targets, F.one_hot(few_noisy_digits.train.given, 10).float())
    assert_identical(state, trained(config.replace(correction=-1), few_noisy_digits)[0])


def test_correction_starts_at_the_first_epoch_after_the_correction_epoch(few_noisy_digits):
    _, epochs = trained(SMALL.replace(correction=2), few_noisy_digits)
    assert [epoch.correction is not None for epoch in epochs] == [False, False, True, True]
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]


# --- a state is whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 3])
def test_a_state_written_and_restored_goes_on_bit_for_bit(stop, few_noisy_digits):
    config = SMALL.replace(correction=2, correction_losses="as-released", extra_alphas=[0.5])
    whole, expected = trained(config, few_noisy_digits)
    first = train.State(config, few_noisy_digits)
    for _ in itertools.islice(train.train(first, few_noisy_digits, config), stop):
        pass
    file = safetensors.torch.save({name: value.contiguous() for name, value in first.tensors().items()})
    second = train.State(config.replace(seed=99), few_noisy_digits)
    second.restore(safetensors.torch.load(file))
    second, rest = trained(config, few_noisy_digits, second)
    assert_identical(whole, second)
    assert [epoch.rows for epoch in rest] == [epoch.rows for epoch in expected[stop:]]


def test_a_state_of_other_readers_or_another_network_is_not_restored(few_digits):
    named = train.State(SMALL, few_digits).tensors()
    with pytest.raises(RuntimeError, match="Missing key"):
        train.State(SMALL.replace(extra_alphas=[0.5]), few_digits).restore(named)
    with pytest.raises(RuntimeError, match=r"linear\.bias"):
        train.State(SMALL, few_digits).restore(named | {"network/linear.bias": torch.zeros(9)})


def test_extra_momentum_models_change_nothing_and_average_at_their_own_rate(few_noisy_digits):
    alone, _ = trained(SMALL, few_noisy_digits)
    more, _ = trained(SMALL.replace(extra_alphas=[0.0, 0.9]), few_noisy_digits)
    named = more.tensors()
    for name, value in alone.tensors().items():
        assert torch.equal(value, named[name])
    for name, value in more.network.state_dict().items():
        torch.testing.assert_close(named[f"momentum 0/module.{name}"], value)
        assert torch.equal(named[f"momentum 0.9/module.{name}"], named[f"momentum/module.{name}"])


# --- random numbers -----------------------------------------------------------------------------------------


def test_the_global_generators_are_neither_used_nor_changed(few_noisy_digits):
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, _ = trained(SMALL.replace(epochs=2, correction=1), few_noisy_digits)
    load.averaged_softmax(few_noisy_digits, SMALL, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002
    torch.rand(3)
    again, _ = trained(SMALL.replace(epochs=2, correction=1), few_noisy_digits)
    assert_identical(first, again)


def test_the_seed_decides_the_initial_weights(few_digits):
    first, again, other = (train.State(SMALL.replace(seed=seed), few_digits) for seed in (1, 1, 2))
    assert_identical(first, again)
    for name in ("conv1.weight", "conv2.weight", "conv3.weight", "linear.weight", "linear.bias"):
        values, others = first.network.state_dict()[name], other.network.state_dict()[name]
        assert (values != others).all()


def test_the_small_network_has_the_stated_size_and_pytorchs_initialisation():
    networks = [models.build("cnn", in_channels=1, num_classes=10, seed=seed) for seed in range(20)]
    assert sum(parameter.numel() for parameter in networks[0].parameters()) == 7514
    for name, fan_in in (("conv1", 9), ("conv2", 144), ("conv3", 144), ("linear", 32)):
        weights = torch.cat(
            [network.get_parameter(f"{name}.weight").detach().flatten() for network in networks]
        )
        bound = 1 / math.sqrt(fan_in)
        assert 0.99 * bound < weights.abs().max() <= bound
        assert weights.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


# --- reading a network --------------------------------------------------------------------------------------


def test_every_row_of_the_history_is_of_the_reader_that_it_names(few_noisy_digits):
    config, clean = SMALL.replace(extra_alphas=[0.5]), few_noisy_digits
    state, hits_on_true = train.State(config, clean), []
    for epoch in train.train(state, clean, config):
        assert [row["weights"] for row in epoch.rows] == ["network", "momentum", "momentum 0.5"]
        for row in epoch.rows:
            assert row["epoch"] == epoch.number == state.epoch
            weights = state.networks[row["weights"]].eval()
            with torch.no_grad():
                on_train, on_validation, on_test = (
                    weights(clean.normalise(split.images))
                    for split in (clean.train, clean.validation, clean.test)
                )
            loss = F.cross_entropy(on_train, clean.train.given).item()
            assert row["train_loss"] == pytest.approx(loss, rel=1e-5)
            loss = F.cross_entropy(on_test, clean.test.true).item()
            assert row["test_loss"] == pytest.approx(loss, rel=1e-5)
            hits = on_validation.argmax(1) == clean.validation.given
            assert row["validation_accuracy"] == pytest.approx(hits.double().mean().item())
            hits_on_true.append((on_validation.argmax(1) == clean.validation.true).sum() - hits.sum())
    assert any(hits_on_true)  # else validation on true labels would have passed too


def test_the_training_set_is_measured_first_every_few_epochs_and_after_the_last(
    few_noisy_digits, monkeypatch
):
    monkeypatch.setattr(train, "ALWAYS_WHOLE", 1)
    _, always = trained(SMALL, few_noisy_digits)
    _, seldom = trained(SMALL.replace(measure_train_every=3), few_noisy_digits)
    for a, b in zip(always, seldom, strict=True):
        for whole, row in zip(a.rows, b.rows, strict=True):
            unmeasured = {name for name, value in row.items() if value != value}
            assert bool(unmeasured) is (b.number == 2)
            assert "validation_accuracy" not in unmeasured
            assert {name: row[name] for name in row.keys() - unmeasured} == {
                name: whole[name] for name in whole.keys() - unmeasured
            }
            assert "train_loss" in unmeasured or not unmeasured


def test_predictions_are_in_data_set_order_for_any_batch_size_and_leave_the_network_alone(
    few_digits, monkeypatch
):
    state, _ = trained(SMALL.replace(epochs=1), few_digits)
    state.network.train()
    before = {name: value.clone() for name, value in state.tensors().items()}
    whole = train.predict(state.network, few_digits.train, few_digits)
    monkeypatch.setattr(train, "prediction_size", lambda device: 7)
    torch.testing.assert_close(train.predict(state.network, few_digits.train, few_digits), whole)
    m = {name: value.double() for name, value in state.network.state_dict().items()}
    slow = slow_logits(normalised(few_digits.train, few_digits), m, training=False)
    torch.testing.assert_close(whole.double(), slow, rtol=1e-4, atol=1e-5)
    for name, value in state.tensors().items():
        assert torch.equal(value, before[name])


# --- scores of instance-dependent noise ---------------------------------------------------------------------


def test_averaged_softmax_is_a_distribution_for_every_training_and_validation_image(few_digits):
    scores = load.averaged_softmax(few_digits, SMALL, 3)
    assert scores.shape == (72 + 30, 10)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert scores.sum(axis=1) == pytest.approx(np.ones(102), abs=1e-6)


def test_averaged_softmax_is_the_mean_over_epochs_of_a_network_trained_on_both_splits(few_digits):
    parts = [torch.cat([getattr(few_digits.train, name), getattr(few_digits.validation, name)])
             for name in ("images", "given", "true")]  # fmt: skip
    both = data.Split(*parts)
    together = data.Data(both, few_digits.validation, few_digits.test, few_digits.classes, 16.0,
                         few_digits.mean, few_digits.std)  # fmt: skip
    seed = int(numpy_generator(SMALL.noise_seed, "instance-dependent noise", 1).integers(2**32))
    plain = SMALL.replace(sigma=0.0, epochs=3, seed=seed)
    state, mean = train.State(plain, together), 0
    for _ in train.train(state, together, plain):
        mean = mean + F.softmax(train.predict(state.network, both, together), dim=1) / 3
    assert load.averaged_softmax(few_digits, SMALL, 3, network=1) == pytest.approx(mean.numpy(), abs=1e-6)


def test_averaged_softmax_knows_only_the_noise_seed(few_digits):
    scores = load.averaged_softmax(few_digits, SMALL, 2)
    other = SMALL.replace(seed=1, sigma=1.0, correction=1, extra_alphas=[0.5], epochs=9, noise_mode="asym")
    assert (load.averaged_softmax(few_digits, other, 2) == scores).all()
    assert (load.averaged_softmax(few_digits, SMALL.replace(noise_seed=4), 2) != scores).any()
    assert (load.averaged_softmax(few_digits, SMALL, 2, network=1) != scores).any()
