"""Each step of the fast path against the one before; the plain loop is the oracle of all."""

import contextlib
import shutil

import pandas as pd
import pytest
import torch
from graph_emulator import emulated, tensors
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from sln import fast, method, models, objective, runs, train
from sln.analysis import landscape
from sln.config import Config
from sln.data import Data, Split
from sln.utils import graphs, networks, speeds
from sln.utils.graphs import Passes
from sln.utils.rng import torch_generator
from sln.utils.speeds import SPEEDS, Speed

DIGITS = {"epochs": 3, "batch_size": 32, "noise_mode": "sym", "sigma": 0.5}
PHOTOGRAPHS = {
    "dataset": "cifar10", "noise_mode": "sym", "model": "wrn-10-1", "epochs": 2, "batch_size": 16, "lr": 0.05,
    "alpha": 0.9, "sigma": 1.0, "threads": 1,
}  # fmt: skip
STATIC, GRAPH = Speed(static=True), Speed(static=True, graph=True)
UNCAPTURED = {"float32": STATIC, "bfloat16": Speed(static=True, bfloat16=True)}
CAPTURED = {"float32": GRAPH, "bfloat16": SPEEDS["bfloat16"]}
# torch's own modules, which it imports in order to compile
compiles = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler"
)
gpu = pytest.mark.gpu


def noise_images(size, side=16):
    return torch.randint(
        256, (size, 3, side, side), generator=torch_generator(7, "bootstrap"), dtype=torch.uint8
    )


def photographs(device="cpu", n=40, side=16):
    """`n` training images of noise, a smaller last batch among them, with 10 test and 8 validation images."""
    generator = torch_generator(8, "bootstrap")
    images = noise_images(n + 18, side).split((n, 8, 10))
    labels = [[torch.randint(10, (len(part),), generator=generator) for _ in range(2)] for part in images]
    parts = [Split(part, *both) for part, both in zip(images, labels, strict=True)]
    names = tuple(map(str, range(10)))
    return Data(*parts, names, 255.0, (0.5,) * 3, (0.25,) * 3, padding=4).to(torch.device(device))


def trained(config, data, speed=None, start=None):
    """State and history after all epochs of `config` at a speed; None is the plain loop.

    start : tensors of a state to go on from
    """
    state = train.State(config, data)
    if start is not None:
        state.restore(start)
    engine = fast.Engine(config, speed) if speed else None
    return state, [row for epoch in train.train(state, data, config, engine) for row in epoch.rows]


def after_an_epoch(config, data, speed=None):
    """Copies of the tensors of a state after the first epoch."""
    state = train.State(config, data)
    next(iter(train.train(state, data, config, fast.Engine(config, speed) if speed else None)))
    return {name: value.clone() for name, value in state.tensors().items()}


def same(one, two):
    """Whether two states agree in every number."""
    a, b = one.tensors(), two.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def expect_same_rows(one, two):
    tables = [pd.DataFrame(rows).drop(columns="seconds") for rows in (one, two)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def furthest(one, two):
    """Largest difference of weights and average, relative to how far the second state went from its start."""
    a, b = ({name: value.cpu() for name, value in state.tensors().items()} for state in (one, two))
    start = train.State(two.objective.config, photographs()).tensors()
    names = [n for n in a if n.startswith(("network/", "momentum/")) and a[n].is_floating_point()]
    moved = max((b[n] - start[n]).abs().max().item() for n in names)
    return max((a[n] - b[n]).abs().max().item() for n in names) / moved


@pytest.fixture
def small_passes(monkeypatch):
    """Passes take 16 images at once, so that 40 of them are two full batches and a smaller one."""
    for module in ("sln.train", "sln.utils.graphs", "sln.analysis.landscape"):
        monkeypatch.setattr(f"{module}.prediction_size", lambda device: 16)


@pytest.fixture
def eager_code(monkeypatch):
    """torch.compile finds the graphs, and leaves their operations as they are."""
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, dynamic: compile_(function, backend="eager", dynamic=dynamic)
    )
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


# --- static against the plain loop --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sigma": 0.0},
        {"noise_on": "logits"},
        {"noise_on": "gradient", "sigma": 0.05},
        {"noise_on": "gradient", "strength": "matched"},
        {"noise_for": "wrong", "sigma_schedule": "falling"},
        {"correction": 1},
        {"correction": 1, "soft_correction": True, "extra_alphas": [0.5]},
        {"baseline": "elr", "sigma": 0.0},
        {"lr_drop": 2},
    ],
    ids=str,
)
def test_the_static_step_is_the_plain_one_bit_for_bit(few_noisy_digits, settings):
    config = Config.from_dict(DIGITS | settings)
    plain, rows = trained(config, few_noisy_digits)
    static, also = trained(config, few_noisy_digits, STATIC)
    assert same(plain, static)
    expect_same_rows(rows, also)


def test_so_it_is_with_augmented_photographs_and_a_smaller_last_batch():
    config, data = Config.from_dict(PHOTOGRAPHS), photographs()
    assert config.augment
    assert len(data.train) % config.batch_size
    assert same(trained(config, data)[0], trained(config, data, STATIC)[0])


def test_a_run_resumed_at_another_speed_goes_on_with_the_same_numbers(few_noisy_digits):
    config = Config.from_dict(DIGITS)
    whole, _ = trained(config, few_noisy_digits)
    resumed, _ = trained(config, few_noisy_digits, start=after_an_epoch(config, few_noisy_digits, STATIC))
    assert same(whole, resumed)


def test_batchnorm_counts_its_batches_once_an_epoch_and_ends_where_the_plain_loop_does():
    config, data = Config.from_dict(PHOTOGRAPHS | {"extra_alphas": [0.5]}), photographs()
    ends = []
    for speed in (None, STATIC, UNCAPTURED["bfloat16"]):
        state, _ = trained(config, data, speed)
        ends.append({n: t.item() for n, t in state.tensors().items() if n.endswith("num_batches_tracked")})
    assert len(ends[0]) == 3 * sum(isinstance(m, torch.nn.BatchNorm2d) for m in state.network.modules())
    assert set(ends[0].values()) == {2 * 3}  # epochs, batches
    assert ends[1] == ends[2] == ends[0]


def test_uncounted_gives_the_counters_back_after_an_error_too():
    network = models.build("cnn", in_channels=1, num_classes=10, seed=0)
    counter = network.bn1.num_batches_tracked
    with networks.uncounted(network):
        network(torch.zeros(2, 1, 8, 8))
    with pytest.raises(RuntimeError, match="size"), networks.uncounted(network):
        network(torch.zeros(2, 1, 0, 0))
    assert network.bn1.num_batches_tracked is counter
    assert counter == 0
    network(torch.zeros(2, 1, 8, 8))
    assert counter == 1


def test_flat_noise_gives_each_gradient_its_own_piece_of_one_draw():
    sizes, sigma = [(4, 3), (5,), (2, 2, 3)], 0.3
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (*sizes, (7,))]
    before = [torch.full(size, float(n)) for n, size in enumerate(sizes)]
    for parameter, gradient in zip(parameters, before, strict=False):
        parameter.grad = gradient.clone()
    fast.add_flat_noise(parameters, sigma, torch.Generator().manual_seed(3))
    z = torch.randn(12 + 5 + 12, generator=torch.Generator().manual_seed(3))
    added = [(p.grad - g).flatten() for p, g in zip(parameters, before, strict=False)]
    torch.testing.assert_close(torch.cat(added), sigma * z)
    assert parameters[-1].grad is None
    assert all(torch.equal(parameter, torch.zeros_like(parameter)) for parameter in parameters)


def test_flat_noise_is_normal_with_deviation_sigma():
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (40_000, 60_000)]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    fast.add_flat_noise(parameters, 0.5, torch.Generator().manual_seed(0))
    first, second = (parameter.grad for parameter in parameters)
    for part in (first, second):
        assert part.mean().abs() < 4 * 0.5 / len(part) ** 0.5
        assert part.std() == pytest.approx(0.5, rel=4 / (2 * len(part)) ** 0.5)
        assert (part.abs() < 0.5).float().mean() == pytest.approx(0.6827, abs=0.01)
    assert abs(torch.corrcoef(torch.stack([first, second[: len(first)]]))[0, 1]) < 4 / len(first) ** 0.5


# --- what a capture leaves behind ---------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True], ids=["before the first step", "later"])
def test_steps_inside_unchanged_leave_no_trace(few_noisy_digits, begun):
    config = Config.from_dict(DIGITS)
    state, seen = train.State(config, few_noisy_digits), fast.EpochBuffers(few_noisy_digits, config)
    if begun:
        train.train_epoch(state, few_noisy_digits, config, 1, 0.5)
    before = {name: value.clone() for name, value in state.tensors().items()}
    step = fast.Step(state, few_noisy_digits, config, STATIC, seen, 32)
    seen.refill(state, config, train.draw(few_noisy_digits, config, 2), 0.5)
    places = {name: value.data_ptr() for name, value in state.tensors().items() if name != "epoch"}
    with fast.unchanged(state, seen):
        step(torch.arange(32), torch.Generator(), 0.5)
        assert not torch.equal(state.tensors()["network/linear.weight"], before["network/linear.weight"])
    after = state.tensors()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(not after[name].any() for name in after.keys() - before.keys())  # zero momentum
    assert {name: after[name].data_ptr() for name in places} == places  # in place: a graph would see it
    assert seen.total == 0
    # and a step from there is a first step
    twin = train.State(config, few_noisy_digits)
    twin.restore(before)
    for one in (state, twin):
        again = fast.Step(one, few_noisy_digits, config, STATIC, seen, 32)
        again(torch.arange(32), torch.Generator(), 0.5)
    assert same(state, twin)


# --- bfloat16 and compiled on a CPU -------------------------------------------------------------------------


def test_bfloat16_operands_leave_master_weights_and_average_in_float32():
    config, data = Config.from_dict(PHOTOGRAPHS), photographs()
    plain, _ = trained(config, data)
    half, _ = trained(config, data, SPEEDS["bfloat16"])
    assert {t.dtype for t in half.tensors().values() if t.is_floating_point()} == {torch.float32}
    assert not same(plain, half)
    # six steps of chaotic training: rounding of 2^-8 relative is a few per cent of the way by then
    assert 0 < furthest(half, plain) < 0.2
    average = half.averages["momentum"].module.state_dict()
    start = train.State(config, data).network.state_dict()
    moved = [not torch.equal(average[name], start[name]) for name in start if "conv" in name]
    assert all(moved)


@pytest.mark.parametrize(
    "settings",
    [{}, {"noise_on": "logits"}, {"noise_on": "gradient", "sigma": 0.05}, {"model": "cnn"}],
    ids=str,
)
def test_copied_operands_give_the_numbers_of_autocast_bit_for_bit(settings):
    config, data = Config.from_dict(PHOTOGRAPHS | settings), photographs()
    copied, rows = trained(config, data, UNCAPTURED["bfloat16"])
    cast, also = trained(config.replace(precision="bfloat16"), data)
    assert same(copied, cast)
    assert [row["objective"] for row in rows] == [row["objective"] for row in also]


def test_bfloat16_logits_are_float32_numbers_without_ties():
    data = photographs(n=512)
    network = train.State(Config.from_dict(PHOTOGRAPHS), data).network
    network.linear.bias.data += 8  # as far from zero as a trained network's
    engine = fast.Engine(Config.from_dict(PHOTOGRAPHS), UNCAPTURED["bfloat16"])
    logits = engine.predict(network, data.train, data)
    assert logits.dtype == torch.float32
    first, second = logits.topk(2).values.T
    assert not (first == second).any()
    assert (first.bfloat16() == second.bfloat16()).sum() > 10
    plain = train.predict(network, data.train, data)
    assert not torch.equal(logits, plain)
    assert torch.allclose(logits, plain, atol=0.02 * plain.abs().max().item())


@compiler
@pytest.mark.slow
@compiles
@pytest.mark.parametrize("noise_on", ["labels", "logits"])
def test_the_compiled_step_is_the_static_one_to_rounding(noise_on):
    config, data = Config.from_dict(PHOTOGRAPHS | {"noise_on": noise_on, "epochs": 1}), photographs()
    static, rows = trained(config, data, STATIC)
    compiled, also = trained(config, data, Speed(static=True, compiled=True))
    assert furthest(compiled, static) < 0.01  # float32 sums in another order
    assert also[0]["objective"] == pytest.approx(rows[0]["objective"], rel=1e-4)


# --- a capture on the CPU: the emulator first ---------------------------------------------------------------


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: torch.randn(3),
        lambda x: x.normal_(),
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0, 2.0, 3.0]),
        lambda x: torch.equal(x, x),
    ],
    ids=["a draw", "a draw in place", "a value", "places", "a mask", "a copy from the CPU", "a comparison"],
)
def test_a_capture_refuses(monkeypatch, refused):
    x = torch.ones(3)
    with emulated(monkeypatch) as here, pytest.raises(graphs.CaptureFailed, match="inside a capture"):
        graphs.captured([lambda: here.capturing and refused(x)])


def test_a_replay_computes_again_in_place_what_the_capture_only_recorded(monkeypatch):
    x, counter, found = torch.tensor([1.0, 2.0]), torch.zeros(()), []

    def part():
        counter.add_(1)
        found[:] = [x[1:] * 10]

    with emulated(monkeypatch) as here:
        (replay,) = graphs.captured([part])
        assert counter == graphs.WARM_UP
        assert found[0].isnan().all()
        for value in (2.0, 3.0):
            x[1] = value
            replay()
            assert found[0] == 10 * value
    assert counter == graphs.WARM_UP + 2
    assert [event.what for event in here.events].count("replay") == 2


def test_a_stream_captures_its_own_graphs_and_another_those_of_the_default_stream(monkeypatch):
    with emulated(monkeypatch) as here:
        own = torch.cuda.Stream()
        with torch.cuda.stream(own):
            graphs.captured([lambda: None])
        for _ in range(2):
            graphs.captured([lambda: None])
        instead = here.made[-1]
        streams = [event.stream for event in here.events if event.what == "capture"]
        assert streams == [own, instead, instead]
        assert here.made == [own, instead]
        # the default stream and the other one wait for each other
        waits = [event.about for event in here.events if event.what == "wait"][2:4]
        assert waits == [(instead.name, "default"), ("default", instead.name)]


# --- captured steps and passes ------------------------------------------------------------------------------


@pytest.mark.parametrize("operands", CAPTURED)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sigma": 0.0},
        {"noise_on": "logits"},
        {"noise_on": "gradient", "sigma": 0.05},
        {"noise_on": "logits", "strength": "matched"},
        {"correction": 1, "soft_correction": True},
        {"correction": 1, "correction_losses": "as-released", "extra_alphas": [0.5]},
        {"lr_drop": 1},
    ],
    ids=str,
)
def test_captured_steps_and_passes_give_the_same_bits(monkeypatch, small_passes, settings, operands):
    config, data = Config.from_dict(PHOTOGRAPHS | settings), photographs()
    plain, rows = trained(config, data, UNCAPTURED[operands])
    with emulated(monkeypatch) as here:
        captured, also = trained(config, data, CAPTURED[operands])
    assert same(plain, captured)
    expect_same_rows(rows, also)
    # the network's work is in replays alone
    prepared = max(n for n, event in enumerate(here.events) if event.what == "captured")
    eager = {str(event.about) for event in here.events[prepared:] if event.what == "launch"}
    if "strength" not in settings:
        assert not {name for name in eager if "convolution" in name or "batch_norm" in name}


def test_an_epoch_replays_one_graph_per_batch(monkeypatch, small_passes):
    config, data = Config.from_dict(PHOTOGRAPHS | {"epochs": 1, "extra_alphas": [0.5]}), photographs()
    with emulated(monkeypatch) as here:
        trained(config, data, SPEEDS["bfloat16"])
    replayed = [event.about for event in here.events if event.what == "replay"]
    # steps of 16, 16 and 8; three networks of 10 test, 8 validation and 40 training images, 16 at once
    passes, full, smaller = replayed[-1], replayed[0], replayed[2]
    assert replayed == [full, full, smaller] + 3 * (1 + 1 + 3) * [passes]
    assert len({passes, full, smaller}) == 3


@pytest.mark.parametrize("name", ["bfloat16", "compiled"])
@compiles
def test_a_run_resumed_at_a_speed_with_graphs_equals_the_uninterrupted_one(
    monkeypatch, small_passes, eager_code, name
):
    config, data = Config.from_dict(PHOTOGRAPHS), photographs()
    with emulated(monkeypatch):
        whole, rows = trained(config, data, SPEEDS[name])
        resumed, also = trained(config, data, SPEEDS[name], after_an_epoch(config, data, SPEEDS[name]))
    assert same(whole, resumed)
    expect_same_rows(rows[2:], also)


@compiles
def test_runs_share_the_compiled_code(monkeypatch, small_passes, eager_code):
    config, kept = Config.from_dict(PHOTOGRAPHS | {"epochs": 1}), []
    with emulated(monkeypatch):
        for seed in range(4):
            kept.append(trained(config.replace(seed=seed), photographs(n=24), SPEEDS["compiled"]))
    # the full batch's step and the pass; the smaller last batch is not compiled
    assert eager_code["stats"]["unique_graphs"] == 2
    assert not eager_code["graph_break"]
    assert not eager_code["recompiles"]


@pytest.mark.parametrize("operands", CAPTURED)
def test_a_pass_takes_any_weights_and_any_number_of_images(monkeypatch, small_passes, operands):
    config, data = Config.from_dict(PHOTOGRAPHS | {"epochs": 1}), photographs()
    first = train.State(config, data).network
    other = trained(config.replace(seed=1), data)[0].averages["momentum"].module.eval()
    half = torch.autocast("cpu", torch.bfloat16, enabled=operands == "bfloat16")
    with emulated(monkeypatch):
        logits_of = Passes(first, data.test.images, data.normalise, CAPTURED[operands])
        for weights in (networks.tensors(other), networks.tensors(first)):
            for count in (0, 3, 16, 40):
                images = data.train.images[:count]
                with torch.no_grad(), half:
                    wanted = functional_call(first.eval(), weights, (data.normalise(images),))
                found = logits_of(weights, images.split(16) if count else [])
                assert found.dtype == torch.float32
                assert torch.equal(found, wanted)
                assert found.shape == (count, 10)


def test_a_landscape_is_seen_through_a_captured_pass(monkeypatch, small_passes):
    monkeypatch.setenv("SLN_SPEED", "bfloat16")
    data = photographs()
    network = trained(Config.from_dict(PHOTOGRAPHS), data)[0].network.eval()
    images = data.normalise(data.train.images)
    x, y = landscape.directions(network, 0)
    with emulated(monkeypatch) as here, torch.no_grad():
        for moves in ([], [(0.3, x)], [(-1.0, x), (0.5, y)]):
            weights = landscape.moved(network, moves)
            found = landscape._logits(network, weights, images)
            with torch.autocast("cpu", torch.bfloat16):
                wanted = functional_call(network, weights, (images,))
            assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())
            full = functional_call(network, weights, (images,))
            assert torch.allclose(found, full, atol=0.05 * full.abs().max().item())
    happened = [event.what for event in here.events]
    assert (happened.count("capture"), happened.count("replay")) == (1, 3 * 3)  # captured once, three batches


@pytest.mark.parametrize("begun", [False, True], ids=["before the first step", "later"])
def test_a_capture_that_fails_is_told_and_leaves_the_state_as_it_was(monkeypatch, small_passes, begun):
    config, data = Config.from_dict(PHOTOGRAPHS), photographs()
    state, update = train.State(config, data), fast.Step._update
    if begun:
        train.train_epoch(state, data, config, 1, 1.0)
    before = {name: value.clone() for name, value in state.tensors().items()}
    with emulated(monkeypatch) as here:

        def waiting(step):
            update(step)
            assert here.capturing is None or step.buffers.total.item()

        monkeypatch.setattr(fast.Step, "_update", waiting)
        with pytest.raises(graphs.CaptureFailed, match="_local_scalar_dense inside a capture"):
            fast.Engine(config, SPEEDS["bfloat16"]).prepare(state, data)
    after = state.tensors()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(not after[name].any() for name in after.keys() - before.keys())  # zero momentum
    assert here.current.name == "default"


def test_the_next_epochs_draws_are_made_while_the_gpu_is_busy(monkeypatch, small_passes):
    config, data = Config.from_dict(PHOTOGRAPHS | {"epochs": 3}), photographs()
    draw = train.draw
    with emulated(monkeypatch) as here:
        monkeypatch.setattr(train, "draw", lambda *args: here.note("draw", args[-1]) or draw(*args))
        turns = train.train_in_turns(
            train.State(config, data), data, config, fast.Engine(config, SPEEDS["bfloat16"])
        )
        assert sum(epoch is None for epoch in turns) == 1 + 3 * (3 + 1)  # prepared; three steps, one look
    noted = [event.about or event.what for event in here.events if event.what in ("draw", "event", "query")]
    # the event is asked for twice an epoch, after the draws of the next, which come after its last step
    assert noted == [1, 2, "event", "query", "query", 3, *noted[2:5], *noted[2:5]]
    happened = [event.what for event in here.events]
    drawn = [n for n, what in enumerate(happened) if what == "draw"][1:]
    assert all("replay" not in happened[n : happened.index("event", n)] for n in drawn)


# --- what a GPU would refuse, or pay for --------------------------------------------------------------------


class OnMeta(TorchDispatchMode):
    """Expects every operation to have all its tensors on the meta device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **kwargs or {})
        devices = {tensor.device.type for tensor in tensors((args, kwargs, result))}
        assert devices <= {"meta"}, f"{operation} has tensors on {devices}"
        return result


@pytest.fixture
def meta(monkeypatch):
    """The device without numbers, for what it does not know: autocast, fused SGD, a number of a tensor."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: 1.0)

    def unfused(network, config):
        return torch.optim.SGD(
            network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, foreach=False
        )

    monkeypatch.setattr(train, "sgd", unfused)
    return torch.device("meta")


@pytest.mark.parametrize("noise_on", ["labels", "logits", "gradient"])
def test_no_tensor_of_a_step_is_left_on_the_cpu(meta, noise_on):
    config, data = (
        Config.from_dict(PHOTOGRAPHS | {"noise_on": noise_on, "extra_alphas": [0.5]}),
        photographs(meta),
    )
    assert data.normalise(data.test.images).device == meta  # makes the mean and the deviation
    state, seen = train.State(config, data), fast.EpochBuffers(data, config)
    step = fast.Step(state, data, config, STATIC, seen, 16)
    seen.noisy.copy_(method.noisy_labels(state.targets, 1.0, train.draw(data, config, 1).z.to(meta)))
    with OnMeta():
        step(torch.zeros(16, dtype=torch.int64, device=meta), torch.Generator(), 0.0)
    with OnMeta(), torch.no_grad():
        found = state.averages["momentum"].module.eval()(train.batch(data, step.index, seen.crops))
        list(train.prediction_batches(data.train, data, seen.crops))
    assert found.device == meta


def test_no_tensor_of_a_matched_strength_or_a_landscape_is_left_on_the_cpu(meta):
    data = photographs(meta)
    network = train.State(Config.from_dict(PHOTOGRAPHS), data).network
    images = data.normalise(data.train.images)
    x, y = landscape.directions(network)
    assert {part.device for part in (*x.values(), *y.values())} == {meta}
    with OnMeta():
        for noise_on in ("labels", "logits"):
            objective.expected_squared_norm(network, images, noise_on, torch.zeros(2, 40, 10, device=meta))
        with torch.no_grad():
            functional_call(network.eval(), landscape.moved(network, [(0.1, x), (0.2, y)]), (images,))


@pytest.mark.parametrize(("operands", "most"), [("float32", 225), ("bfloat16", 230)])
def test_a_step_of_the_papers_network_is_few_operations(monkeypatch, operands, most):
    config = Config.from_dict(PHOTOGRAPHS | {"model": "wrn-28-2", "batch_size": 4})
    data = photographs(n=4)
    state, seen = train.State(config, data), fast.EpochBuffers(data, config)
    state.network.train()
    config = config.replace(precision=operands)
    step = fast.Step(state, data, config, UNCAPTURED[operands], seen, 4)
    with emulated(monkeypatch) as here:
        for _ in range(2):  # the first makes SGD's momentum
            here.events.clear()
            step(torch.arange(4), torch.Generator(), 1.0)
        launched = [e.about for e in here.events if not e.about.is_view and "empty" not in e.about.name()]
    assert 28 + 28 + 25 + 25 < len(launched) <= most  # convolutions and BatchNorms, both ways


def test_a_pass_of_the_papers_network_is_few_operations(monkeypatch, small_passes):
    data = photographs(n=4)
    network = models.build("wrn-28-2", in_channels=3, num_classes=10, seed=0)
    with emulated(monkeypatch) as here:
        Passes(network, data.test.images, data.normalise, SPEEDS["bfloat16"])
    recorded = [event.about for event in here.events if event.what == "recorded"]
    assert 28 + 25 < len([o for o in recorded if not o.is_view and "empty" not in o.name()]) <= 100


# --- tests that are left out --------------------------------------------------------------------------------


def test_thinned_tests_change_no_other_number(few_noisy_digits):
    config = Config.from_dict(DIGITS | {"epochs": 15, "measure_train_every": 4})
    often, all_rows = trained(config, few_noisy_digits)
    seldom, rows = trained(config.replace(measure_test_every=3), few_noisy_digits)
    assert same(often, seldom)
    all_rows, rows = (pd.DataFrame(found).drop(columns="seconds") for found in (all_rows, rows))
    assert list(rows.columns) == list(all_rows.columns)
    assert list(rows["epoch"]) == [epoch for epoch in range(1, 16) for _ in range(2)]
    thinned = rows["epoch"].isin([1, 2, 4, 5])  # the last ten always have tests
    of_tests = [name for name in rows if name.startswith(("test_", "validation_"))]
    assert len(of_tests) > 1
    assert all_rows[of_tests].notna().all(axis=None)
    assert rows.loc[thinned, of_tests].isna().all(axis=None)
    all_rows.loc[thinned, of_tests] = float("nan")
    pd.testing.assert_frame_equal(rows, all_rows, check_exact=True)


def test_a_run_goes_on_from_an_epoch_without_tests_and_the_list_shows_the_last_tested(monkeypatch, tmp_path):
    config = Config.from_dict(DIGITS | {"batch_size": 256, "epochs": 14, "measure_test_every": 3})
    whole = runs.get(config, quiet=True).history.drop(columns="seconds")
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "interrupted"))

    def interrupt(epoch):
        if epoch.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.get(config, quiet=True, checkpoint_seconds=0, on_epoch=interrupt)
    (listed,) = runs.listing().to_dict("records")
    tested = whole[whole["epoch"] == 3].set_index("weights")["test_accuracy"]
    assert listed["state"] == "epoch 4"
    assert (listed["network"], listed["momentum"]) == (tested["network"], tested["momentum"])
    resumed = runs.get(config, quiet=True).history.drop(columns="seconds")
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


# --- on a GPU -----------------------------------------------------------------------------------------------


@pytest.fixture
def same_kernels():
    """cuDNN's deterministic kernels in whole float32, so that what differs is the order of few sums."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


@gpu
@pytest.mark.parametrize(
    "settings",
    [{}, {"noise_on": "logits"}, {"noise_on": "gradient", "sigma": 0.01}, {"correction": 1}],
    ids=str,
)
def test_a_replayed_step_is_the_static_one(same_kernels, settings):
    config, data = Config.from_dict(PHOTOGRAPHS | settings), photographs("cuda", side=32)
    static, rows = trained(config, data, STATIC)
    replayed, also = trained(config, data, GRAPH)
    assert furthest(replayed, static) < 1e-2  # the search may choose other kernels than the static steps have
    assert also[0]["objective"] == pytest.approx(rows[0]["objective"], rel=1e-4)


@gpu
def test_the_gpu_trains_what_the_cpu_trains(same_kernels):
    config = Config.from_dict(PHOTOGRAPHS | {"epochs": 1})
    here, rows = trained(config, photographs(side=32))
    there, also = trained(config, photographs("cuda", side=32), GRAPH)
    assert furthest(there, here) < 1e-2
    assert also[0]["objective"] == pytest.approx(rows[0]["objective"], rel=1e-3)


@gpu
@compiles
@pytest.mark.parametrize("name", ["bfloat16", "compiled"])
def test_bfloat16_speeds_stay_close_to_s1_for_the_papers_network_at_its_batch_size(same_kernels, name):
    config = Config.from_dict(PHOTOGRAPHS | {"model": "wrn-28-2", "batch_size": 128, "epochs": 2})
    data = photographs("cuda", n=3 * 128 + 80, side=32)  # eight steps, the smaller batch twice among them
    exact, rows = trained(config, data, SPEEDS["static"])
    rounded, also = trained(config, data, SPEEDS[name])
    assert 0 < furthest(rounded, exact) < 0.2
    assert also[0]["objective"] == pytest.approx(rows[0]["objective"], rel=0.02)


@gpu
@compiles
@pytest.mark.parametrize("name", ["bfloat16", "compiled"])
def test_a_run_resumed_on_a_gpu_goes_on_where_it_was(same_kernels, name):
    config, data = Config.from_dict(PHOTOGRAPHS), photographs("cuda", side=32)
    whole, rows = trained(config, data, SPEEDS[name])
    resumed, also = trained(config, data, SPEEDS[name], after_an_epoch(config, data, SPEEDS[name]))
    assert furthest(resumed, whole) < 0.05  # other kernels round elsewhere, in three of six steps
    assert also[0]["objective"] == pytest.approx(rows[2]["objective"], rel=1e-2)


@gpu
@pytest.mark.parametrize("name", ["static", "bfloat16"])
def test_a_landscapes_point_on_a_gpu_is_that_of_the_cpu(same_kernels, monkeypatch, name):
    monkeypatch.setenv("SLN_SPEED", name)
    data = photographs(side=32)
    network = trained(Config.from_dict(PHOTOGRAPHS), data)[0].network.eval()
    images = data.normalise(data.train.images)
    with torch.no_grad():
        here = network(images)
        there = network.to("cuda")
        found = landscape._logits(there, landscape.moved(there, []), images.to("cuda"))
    assert torch.allclose(found, here, atol=(0.05 if name == "bfloat16" else 1e-3) * here.abs().max().item())


# --- choosing -----------------------------------------------------------------------------------------------


def test_the_speed_is_asked_for_by_name(monkeypatch, refused):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(speeds, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(speeds, "compiles", lambda device: True)
    assert (speeds.chosen(cpu), speeds.chosen(cuda)) == ("reference", "compiled")
    for name in SPEEDS:
        monkeypatch.setenv("SLN_SPEED", name)
        assert (speeds.chosen(cpu), speeds.chosen(cuda)) == (name, name)
    monkeypatch.setenv("SLN_SPEED", "fast")
    for bfloat16, compiles, expected in (
        (True, True, ("bfloat16", "compiled")),
        (True, False, ("bfloat16", "bfloat16")),
        (False, True, ("static", "static")),
    ):
        monkeypatch.setattr(speeds, "has_bfloat16", lambda device, able=bfloat16: able)
        monkeypatch.setattr(speeds, "compiles", lambda device, able=compiles: able)
        assert (speeds.chosen(cpu), speeds.chosen(cuda)) == expected
    monkeypatch.setenv("SLN_SPEED", "fats")
    with refused("speed", "fats", "fast"):
        speeds.chosen(cpu)


def test_a_run_records_its_speed_and_is_found_again_at_another(monkeypatch):
    config = Config.from_dict(DIGITS)
    monkeypatch.setenv("SLN_SPEED", "static")
    run = runs.get(config)
    recorded = (run.folder / "versions.json").read_text()
    assert '"speed": "static"' in recorded
    assert '"device": "cpu"' in recorded
    weights = (run.folder / "weights.safetensors").read_bytes()
    monkeypatch.setenv("SLN_SPEED", "reference")
    assert runs.get(config).folder == run.folder
    runs.remove(config.run_id)
    assert (runs.get(config).folder / "weights.safetensors").read_bytes() == weights
