"""The parts for other training loops: against the study's own training, and against torch's loss."""

import copy
import itertools
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sln import method, train
from sln.config import CORRECTION_WEIGHTS, Config
from sln.nn import LabelCorrection, MomentumModel, SLNLoss

# 72 examples in batches of 21, the last one of 9: no powers of two, whose means are exact
SMALL = Config(
    epochs=4, batch_size=21, lr=0.05, weight_decay=0.01, sigma=0.5, alpha=0.9, correction=2, seed=5
)
NOISELESS = 1e-30  # takes the way of the noise, and y + sigma z is y, up to rounding


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def labels_of(*shape, classes=5, seed=0):
    return torch.randint(classes, shape, generator=generator(seed))


def assert_identical(a, b):
    assert set(a) == set(b)
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


# --- the study's own training -------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", ["given", "as-released"])
@pytest.mark.parametrize("rule", CORRECTION_WEIGHTS)
def test_a_plain_loop_of_these_parts_is_the_studys_training_bit_for_bit(
    losses, rule, few_noisy_digits, monkeypatch
):
    """Two epochs with noise and two with corrected targets; only z is dealt out as a loop draws it."""
    digits = few_noisy_digits
    config = SMALL.replace(correction_losses=losses, correction_weight=rule)
    own_draw, stream = train.draw, generator(7)

    def draw(data, config, epoch):
        drawn = own_draw(data, config, epoch)
        if epoch <= config.correction:
            for index in drawn.order.split(config.batch_size):
                drawn.z[index] = torch.randn(len(index), 10, generator=stream)
        return drawn

    monkeypatch.setattr(train, "draw", draw)
    state = train.State(config, digits)
    network = copy.deepcopy(state.network)
    epochs = train.train(state, digits, config, measured=False)

    criterion, correction = SLNLoss(config.sigma, generator=generator(7)), LabelCorrection(rule)
    average = MomentumModel(network, decay=config.alpha)
    settings = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    optimizer = torch.optim.SGD(network.parameters(), **settings, fused=True)
    images, labels = digits.normalise(digits.train.images), digits.train.given
    targets = labels
    for epoch in range(1, config.epochs + 1):
        if epoch > config.correction:
            criterion.sigma = 0.0
            against = targets if losses == "as-released" and epoch > config.correction + 1 else None
            with torch.no_grad():
                targets = correction.targets(average(images), labels, against)
        network.train()
        for index in own_draw(digits, config, epoch).order.split(config.batch_size):
            loss = criterion(network(images[index]), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(network)
        next(epochs)
        assert_identical(network.state_dict(), state.network.state_dict())
        assert_identical(average.module.state_dict(), state.averages["momentum"].module.state_dict())
    assert torch.equal(targets, state.targets)
    assert (targets != F.one_hot(labels, 10)).any()
    assert average.steps == 16


def test_the_loop_of_the_readme_runs_and_moves_targets(few_noisy_digits):
    readme = (Path(train.__file__).parent / "relabel" / "README.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    labels = few_noisy_digits.train.given
    names = {
        "images": few_noisy_digits.normalise(few_noisy_digits.train.images),
        "labels": labels,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
    }
    with torch.random.fork_rng():
        exec(compile("import torch\n" + loop, "README.md", "exec"), names)
    assert names["average"].steps == 200
    assert names["targets"].shape == (72, 10)
    torch.testing.assert_close(names["targets"].sum(dim=1), torch.ones(72))
    assert (names["targets"] != F.one_hot(labels, 10)).any()


# --- the loss -----------------------------------------------------------------------------------------------

SHAPES = [(12, 5), (6, 5, 3), (4, 5, 2, 3)]
WEIGHT = torch.tensor([0.5, 2, 0, 1, 3])
SETTINGS = [
    {"reduction": reduction, "label_smoothing": smoothing, "weight": weight, "ignore_index": ignored}
    for reduction, smoothing, weight, ignored in itertools.product(
        ("mean", "sum", "none"), (0.0, 0.3), (None, WEIGHT), (-100, 2)
    )
]


def settings_of(kind):
    """Those that torch takes: nothing can be ignored among probabilities."""
    return [settings for settings in SETTINGS if kind == "indices" or settings["ignore_index"] < 0]


def targets_of(kind, shape):
    if kind == "indices":
        return labels_of(shape[0], *shape[2:])
    return F.softmax(2 * draws(*shape, seed=3), dim=1)


def loss_and_gradient(criterion, logits, target):
    logits = logits.clone().requires_grad_()
    loss = criterion(logits, target)
    loss.sum().backward()
    return loss.detach(), logits.grad


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_noise_it_is_torchs_loss_bit_for_bit(kind, shape):
    logits, target = 3 * draws(*shape), targets_of(kind, shape)
    before = torch.get_rng_state()
    for settings in settings_of(kind):
        if kind == "indices":
            target.view(-1)[0] = settings["ignore_index"]
        expected = loss_and_gradient(nn.CrossEntropyLoss(**settings), logits, target)
        for criterion in (SLNLoss(0.0, **settings), SLNLoss(1.0, **settings).eval()):
            for found, value in zip(loss_and_gradient(criterion, logits, target), expected, strict=True):
                assert torch.equal(found, value)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_smoothing_and_what_is_ignored_are_torchs_also_on_the_way_of_the_noise(kind, shape):
    logits, target = 3 * draws(*shape).double(), targets_of(kind, shape)
    target = target.double() if kind == "probabilities" else target
    for settings in settings_of(kind):
        if kind == "indices":
            target.view(-1)[0] = settings["ignore_index"]
        oracle, criterion = nn.CrossEntropyLoss(**settings), SLNLoss(NOISELESS, **settings)
        expected = loss_and_gradient(oracle.double(), logits, target)
        for found, value in zip(loss_and_gradient(criterion.double(), logits, target), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_noise_is_sigma_z_on_every_smoothed_label_and_none_on_ignored_ones(weight):
    logits, target = draws(6, 5, 3), labels_of(6, 3)
    settings = {"label_smoothing": 0.3, "weight": weight, "ignore_index": 2, "reduction": "none"}
    found = SLNLoss(0.7, generator=generator(4), **settings)(logits, target)
    z, log_p = draws(6, 5, 3, seed=4), F.log_softmax(logits, dim=1)
    w = torch.ones(5) if weight is None else weight
    for n, d in itertools.product(range(6), range(3)):
        y = 0.7 * F.one_hot(target[n, d], 5) + 0.3 / 5
        expected = -(w * (y + 0.7 * z[n, :, d])) @ log_p[n, :, d] if target[n, d] != 2 else torch.tensor(0.0)
        torch.testing.assert_close(found[n, d], expected)


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_the_reductions_are_of_the_same_losses(kind):
    logits, target = draws(12, 5), targets_of(kind, (12, 5))
    for w in (None, WEIGHT):
        each, total, mean = (
            SLNLoss(0.7, weight=w, reduction=reduction, generator=generator(4))(logits, target)
            for reduction in ("none", "sum", "mean")
        )
        assert each.shape == (12,)
        torch.testing.assert_close(total, each.sum())
        by = WEIGHT[target].sum() if w is not None and kind == "indices" else 12
        torch.testing.assert_close(mean, total / by)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.3, "weight": WEIGHT}])
def test_the_mean_of_the_gradient_over_draws_is_torchs(settings):
    logits, target, repeats = 2 * draws(4, 5), labels_of(4), 4000
    criterion = SLNLoss(1.0, generator=generator(), **settings)
    gradients = torch.stack([loss_and_gradient(criterion, logits, target)[1] for _ in range(repeats)])
    _, expected = loss_and_gradient(nn.CrossEntropyLoss(**settings), logits, target)
    error = gradients.std(dim=0) / repeats**0.5
    assert (error > 1e-3).all()  # there is noise, and it is averaged
    scores = (gradients.mean(dim=0) - expected) / error
    assert scores.abs().max() < 4
    assert 0.5 < scores.std() < 1.5


def test_every_call_draws_afresh_from_the_generator_or_else_from_torchs():
    logits, target = draws(12, 5), labels_of(12)
    criterion, again = (SLNLoss(1.0, generator=generator(4)) for _ in range(2))
    first, second = criterion(logits, target), criterion(logits, target)
    assert first != second
    assert [again(logits, target), again(logits, target)] == [first, second]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        assert SLNLoss(1.0)(logits, target) == first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_half_precision_is_computed_in_float32(dtype, kind):
    logits, target = (3 * draws(12, 5)).to(dtype), targets_of(kind, (12, 5))
    for sigma in (0.0, 0.7):
        found, gradient = loss_and_gradient(SLNLoss(sigma, generator=generator()), logits, target)
        expected = loss_and_gradient(SLNLoss(sigma, generator=generator()), logits.float(), target)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected[0])
        assert torch.equal(gradient, expected[1].to(dtype))


def test_under_autocast_only_the_network_is_in_bfloat16():
    network, inputs, target = nn.Linear(7, 5), draws(12, 7), labels_of(12)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(inputs)
        inside = SLNLoss(0.7, generator=generator())(logits, target)
    assert logits.dtype == torch.bfloat16
    assert torch.equal(inside, SLNLoss(0.7, generator=generator())(logits.float(), target))


def test_float64_logits_give_a_float64_loss_from_the_same_draws():
    logits, target = draws(12, 5), labels_of(12)
    single = SLNLoss(0.7, generator=generator())(logits, target)
    double = SLNLoss(0.7, generator=generator())(logits.double(), target)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


@pytest.mark.parametrize("target", [labels_of(0), draws(0, 5)])
def test_the_mean_over_no_examples_is_nan_as_torchs(target):
    for criterion in (nn.CrossEntropyLoss(), SLNLoss(0.0), SLNLoss(1.0)):
        assert criterion(draws(0, 5), target).isnan()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_may_be_any_whole_numbers(dtype):
    logits, target = draws(12, 5), labels_of(12)
    for sigma in (0.0, 0.7):
        found, expected = (
            SLNLoss(sigma, generator=generator())(logits, given) for given in (target.to(dtype), target)
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sigma": -1}, "sigma is -1, allowed are finite numbers from 0 up"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"sigma": "1"}, "sigma is a str"),
        ({"sigma": torch.ones(5)}, "sigma is a Tensor"),  # CrossEntropyLoss takes the weight first
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"reduction": "meen"}, "did you mean 'mean'?"),
    ],
)
def test_bad_settings_are_one_line(settings, words, refused):
    with refused(words):
        SLNLoss(**({"sigma": 1.0} | settings))


@pytest.mark.parametrize("mode", [True, False])
def test_what_does_not_fit_is_one_line_in_both_modes(mode, refused):
    criterion = SLNLoss(1.0).train(mode)
    with refused("logits have shape (5,)"):
        criterion(draws(5), torch.tensor(1))
    with refused("target has shape (11,)", "expected class indices (12,) or probabilities (12, 5)"):
        criterion(draws(12, 5), labels_of(11))
    with refused("target has shape (12,) and type torch.float32"):
        criterion(draws(12, 5), labels_of(12).float())
    with refused("target has shape (12, 5) and type torch.int64"):
        criterion(draws(12, 5), F.one_hot(labels_of(12), 5))
    with refused("weight has 1 entries for 5 classes"):
        SLNLoss(1.0, weight=torch.ones(1)).train(mode)(draws(12, 5), labels_of(12))
    with refused("ignore_index 2 needs class indices"):
        SLNLoss(1.0, ignore_index=2).train(mode)(draws(12, 5), F.softmax(draws(12, 5), dim=1))
    with refused("generator and logits are on cpu and meta"):
        criterion = SLNLoss(1.0, generator=generator()).train(mode)
        criterion(draws(12, 5).to("meta"), labels_of(12).to("meta"))


# --- the momentum model -------------------------------------------------------------------------------------


def a_network(seed=0):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return stepped(network, seed)


@torch.no_grad()
def stepped(network, seed):
    """Other parameters, and other statistics by a pass in training mode."""
    for parameter in network.parameters():
        parameter.copy_(draws(*parameter.shape, seed=seed))
    network.train()(draws(16, 3, seed=seed))
    return network


def test_the_average_is_the_equations_over_parameters_and_buffers():
    network = a_network()
    expected = {name: value.double() for name, value in network.state_dict().items()}
    average = MomentumModel(network, decay=0.9)
    oracle = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    oracle.update_parameters(network)  # its first update copies
    for seed in range(1, 6):
        average.update(stepped(network, seed))
        oracle.update_parameters(network)
        for name, value in network.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value
    assert average.steps == 5
    found = average.module.state_dict()
    assert found.pop("1.num_batches_tracked") == network[1].num_batches_tracked
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name])
        torch.testing.assert_close(value, oracle.module.state_dict()[name])
    assert not average.module.training
    assert torch.equal(average(draws(5, 3)), average.module(draws(5, 3)))


@pytest.fixture(scope="module")
def one_process():
    """A process group of one, which DistributedDataParallel needs."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = [compiled, DistributedDataParallel, nn.DataParallel]
WRAPPERS += [lambda m: DistributedDataParallel(compiled(m)), lambda m: compiled(DistributedDataParallel(m))]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_model_gives_the_same_average_under_the_plain_models_names(wrap, one_process):
    average, wrapped = MomentumModel(a_network(), 0.9), MomentumModel(wrap(a_network()), 0.9)
    average.update(a_network(1))
    wrapped.update(wrap(a_network(1)))
    assert_identical(wrapped.state_dict(), average.state_dict())
    assert set(wrapped.module.state_dict()) == set(a_network().state_dict())
    model = wrap(a_network(1))
    with wrapped.applied_to(model):
        inside = [value.clone() for value in model.state_dict().values()]
    for value, expected in zip(inside, average.module.state_dict().values(), strict=True):
        assert torch.equal(value, expected)


def test_loaded_it_goes_on_bit_for_bit(tmp_path):
    whole, first = (MomentumModel(a_network(), 0.9) for _ in range(2))
    for seed in range(1, 7):
        whole.update(a_network(seed))
    for seed in range(1, 4):
        first.update(a_network(seed))
    torch.save(first.state_dict(), tmp_path / "average.pt")
    second = MomentumModel(a_network(99), 0.9)
    second.load_state_dict(torch.load(tmp_path / "average.pt"))
    assert second.steps == 3
    for seed in range(4, 7):
        second.update_parameters(a_network(seed))
    assert_identical(second.state_dict(), whole.state_dict())
    assert second.steps == 6


def test_it_stays_in_evaluation_mode_inside_a_module_that_is_trained():
    holder = nn.ModuleDict({"average": MomentumModel(a_network(), 0.9)}).train()
    assert not any(module.training for module in holder["average"].modules())


def test_the_whole_object_can_be_pickled():
    average = MomentumModel(a_network(), 0.9)
    copied = pickle.loads(pickle.dumps(average))  # noqa: S301  made one line above
    for one in (average, copied):
        one.update(a_network(1))
    assert_identical(copied.state_dict(), average.state_dict())


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_has_the_averages_numbers_inside_and_its_own_afterwards(fails):
    model = a_network()
    average = MomentumModel(model, 0.9)
    average.update(stepped(model, 1))
    own = copy.deepcopy(model.state_dict())
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    kept = copy.deepcopy(average.state_dict())
    try:
        with average.applied_to(model) as inside:
            assert inside is model
            assert torch.equal(model.eval()(draws(5, 3)), average(draws(5, 3)))
            assert not torch.equal(model[0].weight, own["0.weight"])
            model.train()(draws(16, 3))  # statistics move inside, and are put back too
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert_identical(model.state_dict(), own)
    assert_identical(average.state_dict(), kept)
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == places


def test_another_model_is_refused_and_keeps_its_numbers():
    average, other = MomentumModel(a_network(), 0.9), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    own = copy.deepcopy(other.state_dict())
    with pytest.raises((KeyError, RuntimeError)), average.applied_to(other):
        pass
    assert_identical(other.state_dict(), own)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan"), None])
def test_a_decay_outside_the_range_is_one_line(decay, refused):
    with refused("decay is"):
        MomentumModel(a_network(), decay)


# --- label correction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", CORRECTION_WEIGHTS)
@pytest.mark.parametrize("soft", [False, True])
def test_targets_are_w_y_plus_the_rest_of_the_prediction(rule, soft):
    logits, labels = 2 * draws(60, 5), labels_of(60)
    targets = LabelCorrection(rule, soft=soft).targets(logits, labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    w = method.CORRECTION_WEIGHTS[rule](losses)[:, None]
    predictions = F.softmax(logits, dim=1)
    predictions = (
        predictions if soft else (predictions == predictions.max(dim=1, keepdim=True).values).float()
    )
    torch.testing.assert_close(targets, w * F.one_hot(labels, 5) + (1 - w) * predictions)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(60))


def test_by_default_the_highest_loss_keeps_its_label_and_the_lowest_takes_the_prediction():
    logits, labels = torch.tensor([[0.0, 4.0], [1.0, 0.0], [0.0, 0.1]]), torch.tensor([0, 0, 0])
    targets = LabelCorrection().targets(logits, labels)
    assert targets[0].tolist() == [1, 0]
    assert targets[1].tolist() == [1, 0]
    assert targets[2].min() > 0  # between, so it moves in part


def test_losses_against_given_targets_decide_w():
    logits, labels = 2 * draws(60, 5), labels_of(60)
    against = LabelCorrection().targets(logits, labels)
    w = method.correction_weight(method.soft_cross_entropy(logits, against))[:, None]
    hard = F.one_hot(logits.argmax(dim=1), 5)
    found = LabelCorrection().targets(logits, labels, against)
    torch.testing.assert_close(found, w * F.one_hot(labels, 5) + (1 - w) * hard)


def test_what_label_correction_cannot_use_is_one_line(refused):
    with refused("unknown rule 'los': did you mean 'loss'?"):
        LabelCorrection("los")
    with refused("logits have shape (5,)"):
        LabelCorrection().targets(draws(5), labels_of(5))
    with refused("11 labels for 12 rows of logits"):
        LabelCorrection().targets(draws(12, 5), labels_of(11))
    with refused("label 5 at row 3 is outside the classes 0..4"):
        LabelCorrection().targets(draws(4, 5), torch.tensor([0, 1, 2, 5]))
    for bad in (float("nan"), float("inf")):
        logits = draws(4, 5)
        logits[2, 1] = bad
        with refused("some logits are infinite or NaN"):
            LabelCorrection().targets(logits, labels_of(4))
