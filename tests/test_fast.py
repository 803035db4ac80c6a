"""Each step of the fast path against the one before; the plain loop is the oracle of all."""

import shutil

import pandas as pd
import pytest
import torch

from sln import fast, runs, together, train
from sln.config import Config
from sln.data import Data, Split
from sln.fast import SPEEDS, Speed
from sln.streams import torch_generator

DIGITS = {"epochs": 3, "fork_epoch": 1, "batch_size": 32, "noise_mode": "sym", "sigma": 0.5}
PHOTOGRAPHS = {
    "dataset": "cifar10", "noise_mode": "sym", "model": "wrn-10-1", "epochs": 2, "batch_size": 16, "lr": 0.05,
    "alpha": 0.9, "sigma": 1.0, "threads": 1,
}  # fmt: skip
STATIC, GRAPH = Speed(static=True), Speed(static=True, graph=True)
# torch's own modules, which it imports in order to compile
compiles = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler"
)
gpu = pytest.mark.gpu


def photographs(device="cpu", n=40):
    """`n` training images of noise, a smaller last batch among them, with 10 test and 8 validation images."""
    generator = torch_generator(7, "bootstrap")
    parts = []
    for size in (n, 8, 10):
        images = torch.randint(256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
        given, true = (torch.randint(10, (size,), generator=generator) for _ in range(2))
        parts.append(Split(images, given, true))
    names = tuple(map(str, range(10)))
    return Data(*parts, names, 255.0, (0.5,) * 3, (0.25,) * 3, padding=4).to(torch.device(device))


def trained(config, data, speed=None):
    """State and history after all epochs of `config` at a speed; None is the plain loop."""
    state = train.State(config, data)
    engine = fast.Engine(config, speed) if speed else None
    return state, [row for epoch in train.train(state, data, config, engine) for row in epoch.rows]


def same(one, two):
    """Whether two states agree in every number."""
    a, b = one.tensors(), two.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def furthest(one, two):
    """Largest difference of weights and average, relative to how far the second state went from its start."""
    start = train.State(two.objective.config, photographs(two.targets.device)).tensors()
    a, b = one.tensors(), two.tensors()
    names = [n for n in a if n.startswith(("network/", "momentum/")) and a[n].is_floating_point()]
    moved = max((b[n] - start[n]).abs().max().item() for n in names)
    return max((a[n] - b[n]).abs().max().item() for n in names) / moved


# --- s1 against the plain loop ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"sigma": 0.0},
        {"noise_on": "logits"},
        {"noise_on": "gradient", "sigma": 0.05},
        {"noise_on": "gradient", "strength": "matched"},
        {"noise_for": "wrong", "sigma_schedule": "falling"},
        {"correction": 1},
        {"correction": 1, "soft_correction": True, "extra_alphas": [0.5]},
        {"robust": "elr", "sigma": 0.0},
        {"lr_drop": 2},
    ],
    ids=str,
)
def test_the_static_step_is_the_plain_one_bit_for_bit(few_noisy_digits, knobs):
    config = Config.from_dict(DIGITS | knobs)
    plain, rows = trained(config, few_noisy_digits)
    static, also = trained(config, few_noisy_digits, STATIC)
    assert same(plain, static)
    tables = [pd.DataFrame(table).drop(columns="seconds") for table in (rows, also)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_so_it_is_with_augmented_photographs_and_a_smaller_last_batch():
    config, data = Config.from_dict(PHOTOGRAPHS), photographs()
    assert config.augment
    assert len(data.train) % config.batch_size
    assert same(trained(config, data)[0], trained(config, data, STATIC)[0])


def test_a_run_resumed_at_another_speed_goes_on_with_the_same_numbers(few_noisy_digits):
    config = Config.from_dict(DIGITS)
    whole, _ = trained(config, few_noisy_digits)
    state = train.State(config, few_noisy_digits)
    next(iter(train.train(state, few_noisy_digits, config, fast.Engine(config, STATIC))))
    resumed = train.State(config, few_noisy_digits)
    resumed.restore({name: value.clone() for name, value in state.tensors().items()})
    for _ in train.train(resumed, few_noisy_digits, config):
        pass
    assert same(whole, resumed)


# --- what a capture leaves behind ---------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True], ids=["before the first step", "later"])
def test_steps_inside_unchanged_leave_no_trace(few_noisy_digits, begun):
    config = Config.from_dict(DIGITS)
    state, seen = train.State(config, few_noisy_digits), fast.Seen(few_noisy_digits, config)
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


# --- s2 and s3 on a CPU -------------------------------------------------------------------------------------


def test_bfloat16_operands_leave_master_weights_and_average_in_float32():
    config, data = Config.from_dict(PHOTOGRAPHS), photographs()
    plain, _ = trained(config, data)
    half, _ = trained(config, data, SPEEDS["s2"])
    assert {t.dtype for t in half.tensors().values() if t.is_floating_point()} == {torch.float32}
    assert not same(plain, half)
    # six steps of chaotic training: rounding of 2^-8 relative is a few per cent of the way by then
    assert 0 < furthest(half, plain) < 0.2
    average = half.averages["momentum"].module.state_dict()
    start = train.State(config, data).network.state_dict()
    moved = [not torch.equal(average[name], start[name]) for name in start if "conv" in name]
    assert all(moved)


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


# --- on a GPU -----------------------------------------------------------------------------------------------


@gpu
@pytest.mark.parametrize(
    "knobs", [{}, {"noise_on": "logits"}, {"noise_on": "gradient", "sigma": 0.01}, {"correction": 1}], ids=str
)
def test_a_replayed_step_is_the_static_one(knobs):
    config, data = Config.from_dict(PHOTOGRAPHS | knobs), photographs("cuda")
    static, rows = trained(config, data, STATIC)
    replayed, also = trained(config, data, GRAPH)
    assert furthest(replayed, static) < 1e-3  # cuDNN may choose other kernels, and sums in another order
    assert also[0]["objective"] == pytest.approx(rows[0]["objective"], rel=1e-4)


@gpu
def test_the_gpu_trains_what_the_cpu_trains():
    config = Config.from_dict(PHOTOGRAPHS | {"epochs": 1})
    here, _ = trained(config, photographs())
    with torch.backends.cudnn.flags(allow_tf32=False):
        there, _ = trained(config, photographs("cuda"), GRAPH)
    moved = {name: value.cpu() for name, value in there.tensors().items()}
    for name, value in here.tensors().items():
        assert torch.allclose(moved[name].float(), value.float(), rtol=1e-3, atol=1e-4), name


@gpu
@compiles
@pytest.mark.parametrize(("before", "after"), [("s1", "s2"), ("s2", "s3")])
def test_each_speed_is_close_to_the_one_before(before, after):
    config, data = Config.from_dict(PHOTOGRAPHS), photographs("cuda")
    one, two = trained(config, data, SPEEDS[before])[0], trained(config, data, SPEEDS[after])[0]
    assert furthest(two, one) < 0.2


@gpu
@compiles
def test_runs_together_on_a_gpu_are_those_trained_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_DEVICE", "cuda")
    configs = [Config.from_dict(DIGITS | {"seed": seed}) for seed in range(4)]
    alone = [run.history.drop(columns="seconds") for run in map(runs.get, configs)]
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "together"))
    for run, known in zip(together.get_together(configs, 4), alone, strict=True):
        assert run.final()["objective"] == pytest.approx(known["objective"].iloc[-2], rel=1e-2)


# --- choosing -----------------------------------------------------------------------------------------------


def test_the_speed_is_asked_for_by_name(monkeypatch, refused):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(fast, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(fast, "compiles", lambda device: True)
    assert (fast.chosen(cpu), fast.chosen(cuda)) == ("reference", "s3")
    for name in SPEEDS:
        monkeypatch.setenv("SLN_SPEED", name)
        assert (fast.chosen(cpu), fast.chosen(cuda)) == (name, name)
    monkeypatch.setenv("SLN_SPEED", "fast")
    for bfloat16, compiles, speeds in (
        (True, True, ("s2", "s3")),
        (True, False, ("s2", "s2")),
        (False, True, ("s1", "s1")),
    ):
        monkeypatch.setattr(fast, "has_bfloat16", lambda device, able=bfloat16: able)
        monkeypatch.setattr(fast, "compiles", lambda device, able=compiles: able)
        assert (fast.chosen(cpu), fast.chosen(cuda)) == speeds
    monkeypatch.setenv("SLN_SPEED", "fats")
    with refused("speed", "fats", "fast"):
        fast.chosen(cpu)


def test_a_run_records_its_speed_and_is_found_again_at_another(monkeypatch):
    config = Config.from_dict(DIGITS)
    monkeypatch.setenv("SLN_SPEED", "s1")
    run = runs.get(config)
    recorded = (run.folder / "versions.json").read_text()
    assert '"speed": "s1"' in recorded
    assert '"device": "cpu"' in recorded
    weights = (run.folder / "weights.safetensors").read_bytes()
    monkeypatch.setenv("SLN_SPEED", "reference")
    assert runs.get(config).folder == run.folder
    runs.remove(config.run_id)
    assert (runs.get(config).folder / "weights.safetensors").read_bytes() == weights


# --- several at once ----------------------------------------------------------------------------------------


def test_runs_together_are_those_trained_alone(monkeypatch, tmp_path):
    plain = [Config.from_dict(DIGITS | {"seed": seed}) for seed in range(3)]
    configs = [plain[0].replace(correction=1), *plain, plain[0]]
    alone = [(run.folder / "weights.safetensors").read_bytes() for run in map(runs.get, configs)]
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "together"))
    found = together.get_together(configs, 3)
    assert [run.config for run in found] == configs
    assert [(run.folder / "weights.safetensors").read_bytes() for run in found] == alone


def test_what_one_of_them_raises_is_raised_and_the_others_are_kept(monkeypatch):
    configs = [
        Config.from_dict(DIGITS | {"seed": seed, "lr": 1e30 if seed == 0 else 0.02}) for seed in range(3)
    ]
    with pytest.raises(Exception, match="the loss became"):
        together.get_together(configs, 1)  # the first is over before the others begin
    assert [runs.find(config) is not None for config in configs] == [False, True, True]


def test_more_at_once_than_there_are_streams_for_are_refused(refused):
    with refused("runs at once are 9", "[1, 8]"):
        together.get_together([], 9)
