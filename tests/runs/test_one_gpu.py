"""Runs that take turns on one device equal runs that are trained alone; no stream disturbs another."""

import contextlib
from collections import defaultdict

import pandas as pd
import pytest
import torch
from graph_emulator import emulated
from safetensors.torch import load_file

from sln import fast, runs, train
from sln.config import Config
from sln.datasets.load import load_data
from sln.runs import one_gpu, parallel, store
from sln.utils import graphs, speeds
from sln.utils.errors import InputError

DIGITS = {"epochs": 3, "batch_size": 256, "noise_mode": "sym", "sigma": 0.5}
gpu = pytest.mark.gpu


def digits(**settings):
    return Config.from_dict(DIGITS | settings)


@contextlib.contextmanager
def emulated_gpu(monkeypatch, speed="bfloat16"):
    """Inside, there is one emulated GPU, `cuda:0`, whose memory is the CPU's."""
    monkeypatch.setenv("SLN_SPEED", speed)
    with emulated(monkeypatch) as here, monkeypatch.context() as patch:
        patch.setenv("SLN_DEVICE", "auto")
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        for module in (one_gpu, parallel):
            patch.setattr(module, "device", lambda: torch.device("cuda", 0))
        patch.setattr(one_gpu, "current", lambda device: contextlib.nullcontext())
        patch.setattr("sln.runs.run.distributed.device", lambda: torch.device("cpu"))
        yield here


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), "emulated"])
def place(request, monkeypatch):
    """A context manager: inside, runs take turns step by step on the CPU, or on the emulated GPU."""
    if request.param == "emulated":
        return lambda: emulated_gpu(monkeypatch)
    monkeypatch.setenv("SLN_SPEED", "bfloat16")  # of which a CPU has the bfloat16 operands
    return contextlib.nullcontext


def left_behind(config):
    """What must agree of a finished run: its files' bytes, and its history except the seconds."""
    folder = runs.find(config).folder
    names = ["weights.safetensors", "examples.csv", *(f"corrections/{n:03d}.npz" for n in range(100))]
    found = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    return found | {"history": runs.find(config).history.drop(columns="seconds").to_csv()}


def alone(configs, monkeypatch, tmp_path):
    """`left_behind` by each of the runs, trained alone in a folder of its own, without a graph."""
    found = {}
    for config in configs:
        with monkeypatch.context() as patch:
            patch.setenv("SLN_RUNS", str(tmp_path / "alone" / config.run_id))
            runs.get(config, quiet=True)
            found[config] = left_behind(config)
    return found


def in_turns(configs, at_once, **options):
    """Train the runs in turns; what each raised, or None, by configuration."""
    return dict(one_gpu.train(configs, at_once, **options))


# --- the runs -----------------------------------------------------------------------------------------------


def test_runs_in_turns_are_those_trained_alone(place, monkeypatch, tmp_path):
    configs = [
        digits(seed=0),
        digits(seed=1, epochs=1),
        digits(seed=2, noise_on="gradient", sigma=0.05),
        digits(seed=0, epochs=4, lr_drop=2, noise_on="logits"),
        digits(seed=3, baseline="elr", sigma=0.0, epochs=2),
    ]
    seen = []
    with place():
        ended = in_turns(configs, 3, on_epoch=lambda config, epoch: seen.append((config, epoch.number)))
    assert ended == dict.fromkeys(configs)
    known = alone(configs, monkeypatch, tmp_path)
    assert {config: left_behind(config) for config in configs} == known
    # every epoch comes once and in order, and the runs were not trained one after another
    for config in configs:
        assert [number for of, number in seen if of == config] == list(range(1, config.epochs + 1))
    assert seen != sorted(seen, key=lambda one: configs.index(one[0]))


def test_a_corrected_run_forks_before_its_parents_end(place, monkeypatch, tmp_path):
    parent = digits(epochs=5)
    child = parent.replace(correction=2)
    seen = []
    with place():
        found = in_turns(
            [child, parent], 2, on_epoch=lambda config, epoch: seen.append((config, epoch.number))
        )
        assert found == {parent: None, child: None}
    assert [number for config, number in seen if config == child] == [3, 4, 5]
    assert seen.index((parent, 2)) < seen.index((child, 3)) < seen.index((parent, 5))
    known = alone([parent, child], monkeypatch, tmp_path)
    assert {config: left_behind(config) for config in known} == known


def test_what_one_run_raises_is_its_own(place, monkeypatch, tmp_path):
    configs = [digits(seed=seed, lr=1e30 if seed == 1 else 0.02) for seed in range(4)]
    with place():
        ended = in_turns(configs, 3)
    error = ended.pop(configs[1])
    assert isinstance(error, InputError)
    assert "the loss became" in str(error)
    good = [config for config in configs if config != configs[1]]
    assert ended == dict.fromkeys(good)
    assert runs.find(configs[1]) is None
    known = alone(good, monkeypatch, tmp_path)
    assert {config: left_behind(config) for config in good} == known


def test_runs_that_are_stopped_are_saved_and_go_on_another_time(place, monkeypatch, tmp_path):
    configs = [digits(seed=0), digits(seed=1, epochs=1), digits(seed=2, epochs=4), digits(seed=3)]
    first, second = [], []
    with place():
        ended = in_turns(
            configs,
            3,
            checkpoint_seconds=1e9,
            stop=lambda: bool(first),
            on_epoch=lambda config, epoch: first.append(epoch.number),
        )
        # one epoch each; a run whose last epoch it was is finished, and no other run begins
        assert first == [1, 1, 1]
        assert [type(ended[config]) for config in configs[:3]] == [runs.Stopped, type(None), runs.Stopped]
        assert "stopped after epoch 1" in str(ended[configs[0]])
        assert set(ended) == set(configs[:3])
        assert [store.checkpointed(config) is not None for config in configs[:3]] == [True, False, True]
        assert list(runs.listing()["state"].sort_values()) == ["done", "epoch 1", "epoch 1"]
        record = lambda config, epoch: second.append((config, epoch.number))  # noqa: E731
        assert in_turns(configs, 3, on_epoch=record) == dict.fromkeys(configs)
    trained = [[number for of, number in second if of == config] for config in configs]
    assert trained == [[2, 3], [], [2, 3, 4], [1, 2, 3]]
    known = alone(configs, monkeypatch, tmp_path)
    assert {config: left_behind(config) for config in configs} == known


def test_a_generator_that_is_closed_leaves_runs_that_can_continue(place, monkeypatch, tmp_path):
    configs = [digits(seed=0, epochs=1), digits(seed=1), digits(seed=2)]
    with place():
        results = one_gpu.train(configs, 3, checkpoint_seconds=0)
        assert next(results) == (configs[0], None)
        results.close()
        assert [runs.find(config) is None for config in configs] == [False, True, True]
        assert in_turns(configs, 2) == dict.fromkeys(configs)  # its locks are free
    known = alone(configs, monkeypatch, tmp_path)
    assert {config: left_behind(config) for config in configs} == known


def test_a_capture_that_fails_names_its_run_and_ends_them_all(monkeypatch):
    configs = [digits(seed=seed) for seed in range(3)]
    update, failing = fast.Step._update, configs[1].run_id
    with emulated_gpu(monkeypatch) as here:

        def waiting(step):
            update(step)
            if here.capturing is not None and step.config.seed == 1:
                step.buffers.total.item()

        monkeypatch.setattr(fast.Step, "_update", waiting)
        with pytest.raises(graphs.CaptureFailed, match=f"^{failing}: a CUDA graph could not be captured"):
            in_turns(configs, 3)
        assert here.current.name == "default"
        monkeypatch.setattr(fast.Step, "_update", update)
        assert in_turns(configs, 3) == dict.fromkeys(configs)  # nobody holds a lock


# --- streams ------------------------------------------------------------------------------------------------


def noted(monkeypatch, here):
    """Have the events show whose turn it is, and when a capture with its warm-up begins and ends."""
    captured, whole = fast.captured, runs.in_turns

    def noting(*args, **kwargs):
        here.note("prepares")
        try:
            return captured(*args, **kwargs)
        finally:
            here.note("prepared")

    def turn_by_turn(config, **options):
        turns = whole(config, **options)
        while True:
            here.note("turn", config)
            try:
                next(turns)
            except StopIteration as end:
                return end.value
            yield

    for module in ("sln.fast", "sln.utils.graphs"):
        monkeypatch.setattr(f"{module}.captured", noting)
    monkeypatch.setattr(runs, "in_turns", turn_by_turn)


@pytest.fixture(scope="module")
def ten_runs(tmp_path_factory):
    """The events of ten runs of unequal length on 4 streams; (EmulatedGPU, configurations)."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("SLN_RUNS", str(tmp_path_factory.mktemp("runs")))
    configs = [digits(seed=seed, epochs=1 + seed % 4, batch_size=700) for seed in range(9)]
    configs.append(configs[3].replace(correction=1))
    with monkeypatch.context() as patch, emulated_gpu(patch) as here:
        for module in ("sln.train", "sln.utils.graphs"):
            patch.setattr(f"{module}.prediction_size", lambda device: 400)
        noted(patch, here)
        assert in_turns(configs, 4) == dict.fromkeys(configs)
    monkeypatch.undo()
    return here, configs


def test_there_is_one_stream_per_run_at_once(ten_runs):
    here, _ = ten_runs
    assert len(here.made) == 4


def test_every_graph_is_captured_on_the_stream_that_replays_it(ten_runs):
    here, configs = ten_runs
    captured = {event.about: event.stream for event in here.events if event.what == "captured"}
    assert len(captured) == 3 * len(configs)  # the pass, the step, the step of the smaller last batch
    replays = [event for event in here.events if event.what == "replay"]
    assert {event.about for event in replays} == set(captured)
    assert all(event.stream is captured[event.about] for event in replays)


def test_warm_up_and_capture_are_before_a_runs_first_replay(ten_runs):
    here, _ = ten_runs
    preparing = False
    for event in here.events:
        if event.what in ("prepares", "prepared"):
            preparing = event.what == "prepares"
        elif event.what in ("recorded", "capture", "captured"):
            assert preparing, event
        elif event.what in ("replay", "turn"):
            assert not preparing, event


def test_nothing_else_happens_while_a_capture_is_open(ten_runs):
    here, _ = ten_runs
    opened = None
    for event in here.events:
        if opened is not None:
            assert event.what in ("recorded", "captured")
            assert event.stream is opened
        if event.what in ("capture", "captured"):
            opened = event.stream if event.what == "capture" else None


def test_every_run_is_on_one_stream_that_no_other_run_has_meanwhile(ten_runs):
    here, configs = ten_runs
    turn, home, streams, replays, times = None, {}, defaultdict(set), defaultdict(int), defaultdict(list)
    for time, event in enumerate(here.events):
        if event.what == "turn":
            turn = event.about
            times[turn].append(time)
            streams[turn].add(event.stream)
        elif event.what == "captured":
            home[event.about] = turn
        elif event.what == "replay":
            assert home[event.about] == turn  # of its own graphs
            streams[turn].add(event.stream)
            replays[turn] += 1
        elif event.what == "launch" and event.stream.name == "default":
            assert turn is None  # no work of a run outside of its stream
    assert set(times) == set(replays) == set(configs)
    assert {len(found) for found in streams.values()} == {1}
    on = {config: next(iter(found)) for config, found in streams.items()}
    assert len(set(on.values())) == 4
    for one in configs:
        for two in configs:
            if one != two and on[one] is on[two]:
                assert times[one][-1] < times[two][0] or times[two][-1] < times[one][0]


def test_the_networks_compute_in_replays_alone(ten_runs):
    here, _ = ten_runs
    preparing, outside = False, set()
    for event in here.events:
        if event.what in ("prepares", "prepared"):
            preparing = event.what == "prepares"
        elif event.what == "launch" and not preparing:
            outside.add(str(event.about))
    assert outside
    assert not {name for name in outside if "convolution" in name or "batch_norm" in name}


def test_the_gpu_has_finished_before_a_run_is_prepared(ten_runs):
    here, configs = ten_runs
    order = [e.what for e in here.events if e.what in ("synchronize", "prepares", "replay")]
    assert order.count("synchronize") == len(configs)
    for n, what in enumerate(order):
        if what == "prepares":  # the pass, then a step of either size
            assert "synchronize" in order[max(0, n - 3) : n]
            assert order[n - 1] != "replay"


# --- who uses it --------------------------------------------------------------------------------------------


def test_runs_take_turns_on_one_gpu_alone(monkeypatch):
    ways = []
    monkeypatch.setattr(one_gpu, "train", lambda configs, at_once, **_: ways.append(("turns", at_once)) or ())
    monkeypatch.setattr(parallel, "_in_processes", lambda _, where, __: ways.append(where) or ())
    monkeypatch.setenv("SLN_WORKERS", "3")
    configs = [digits(seed=seed) for seed in range(2)]
    list(parallel.train(configs))
    # a context of its own: `monkeypatch` would restore one_gpu's value at the end of the test
    with emulated_gpu(monkeypatch), monkeypatch.context() as patch:
        list(parallel.train(configs))
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        list(parallel.train(configs))  # in a process per slot
    assert ways == [["cpu"] * 3, ("turns", 3), ["cuda:0", "cuda:1"] * 3]


def test_get_all_on_one_gpu_takes_turns(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_WORKERS", "3")
    configs = [digits(seed=1).replace(correction=1), *(digits(seed=seed) for seed in range(3))]
    with emulated_gpu(monkeypatch) as here:
        assert [run.config for run in parallel.get_all(configs)] == configs
        assert len(here.made) == 3
    known = alone(configs[1:], monkeypatch, tmp_path)
    assert {config: left_behind(config) for config in configs[1:]} == known


def test_get_all_raises_what_a_run_on_the_gpu_raises_and_keeps_what_was_finished(monkeypatch):
    monkeypatch.setenv("SLN_WORKERS", "2")
    configs = [digits(epochs=1), digits(lr=1e30, epochs=4, seed=1), digits(epochs=4, seed=2)]
    with emulated_gpu(monkeypatch):
        monkeypatch.setattr(train, "ALWAYS_TESTED", 1)
        with pytest.raises(InputError, match="the loss became"):
            parallel.get_all(configs)
        assert [run.config for run in parallel.get_all([configs[0], configs[2]])] == [configs[0], configs[2]]


# --- on a GPU -----------------------------------------------------------------------------------------------


@gpu
def test_runs_in_turns_on_a_gpu_end_where_those_trained_alone_do(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_DEVICE", "cuda")
    monkeypatch.setenv("SLN_SPEED", "bfloat16")
    monkeypatch.setitem(speeds.SPEEDS, "bfloat16", speeds.Speed(static=True, graph=True))  # whole float32
    configs = [digits(seed=seed) for seed in range(4)]
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        ends = [load_file(runs.get(config).folder / "weights.safetensors") for config in configs]
        monkeypatch.setenv("SLN_RUNS", str(tmp_path / "in turns"))
        assert in_turns(configs, 3) == dict.fromkeys(configs)
    for config, known in zip(configs, ends, strict=True):
        found = load_file(runs.find(config).folder / "weights.safetensors")
        start = train.State(config, load_data(config)).networks
        for weights, network in start.items():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    way = (known[f"{weights}/{name}"] - value).abs().max()
                    off = (found[f"{weights}/{name}"] - known[f"{weights}/{name}"]).abs().max()
                    assert off <= 0.05 * way, (config.seed, weights, name)


@gpu
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_runs_in_turns_on_a_gpu_at_its_own_speed_learn_what_those_alone_do(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_DEVICE", "cuda")
    configs = [digits(seed=seed, batch_size=32) for seed in range(4)]
    known = [runs.get(config).final() for config in configs]
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "in turns"))
    assert in_turns(configs, 4) == dict.fromkeys(configs)
    found = [runs.find(config).final() for config in configs]
    pd.testing.assert_series_equal(
        *(pd.Series([row["objective"] for row in rows]) for rows in (found, known)), rtol=0.02
    )
