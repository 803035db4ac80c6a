"""The code of notebook 12, which readers copy: its loop, and its callback in real training by Lightning."""

import ast
from pathlib import Path

import nbformat
import pytest
import torch
from torch.utils.data import DataLoader

from sln.utils.devices import torchvision

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "12_your_own_loop.ipynb"
KINDS = (ast.Import, ast.ImportFrom, ast.Try, ast.FunctionDef, ast.ClassDef)
DATA = {"digits, tumours", "images", "table", "data"}
OFF = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
pytestmark = pytest.mark.filterwarnings("ignore:::lightning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def code():
    """What the notebook defines, at four epochs; nothing is trained."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    nodes = [node for cell in cells for node in ast.parse(cell.source).body]
    wanted = [
        node
        for node in nodes
        if isinstance(node, KINDS)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).strip("()") in DATA)
    ]
    names, threads = {"epochs": 4}, torch.get_num_threads()
    torchvision()  # as the notebook, before Lightning
    exec(compile(ast.Module(wanted, []), NOTEBOOK.name, "exec"), names)
    with torch.random.fork_rng():
        yield names
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lightning(code):
    return pytest.importorskip("lightning.pytorch")


@pytest.fixture
def fit(code, lightning):
    """Train on the table, 342 rows in 11 batches, in their order; returns callback, module and trainer."""

    def run(epochs, checkpoint=None, *, validates=True, kind=None, **options):
        train, held_out, _ = code["parts_of"]("table", 0)
        torch.manual_seed(0)
        module = (kind or code["Classifier"])(code["network_for"]("table"), *train[:2], 1.0, 0)
        callback = code["ValidatedAverage"](0.9)
        trainer = lightning.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=callback, **OFF | options)
        held_out = DataLoader(torch.utils.data.TensorDataset(*held_out[:2]), 1000) if validates else None
        run.last = callback, module, trainer
        trainer.fit(module, DataLoader(range(len(train[0])), 32), held_out, ckpt_path=checkpoint)
        return run.last

    return run


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_the_loop_corrects_labels_and_measures_network_and_average(code):
    rows = list(code["run"]("table", 1.0, 0, corrected=True))
    assert [(row["epoch"], row["weights"]) for row in rows] == [
        (epoch, weights) for epoch in (2, 4) for weights in ("network", "momentum")
    ]
    plain = list(code["run"]("table", 1.0, 0))
    assert rows[:2] == [row | {"corrected": True} for row in plain[:2]]  # correction starts after epoch 3
    assert rows[2] != plain[2] | {"corrected": True}


@pytest.mark.parametrize("name", ["images", "table"])
def test_lightning_gives_the_loops_average_to_the_bit(name, code, lightning):
    assert code["same_in_lightning"](name, 1.0, 0)


def test_resumed_from_a_checkpoint_it_goes_on_bit_for_bit(fit, tmp_path):
    whole, module, _ = fit(4)
    *_, trainer = fit(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again, _ = fit(4, tmp_path / "half.ckpt")
    assert same(resumed.average, whole.average)
    assert same(again.network, module.network)
    assert whole.average.steps == 4 * 11


def test_gradients_that_are_accumulated_make_one_step_of_the_average(fit):
    callback, _, trainer = fit(2, accumulate_grad_batches=3)
    assert callback.average.steps == trainer.global_step == 2 * 4  # 3 + 3 + 3 + 2 batches


def test_validation_measures_the_average_and_the_network_gets_its_weights_back(fit):
    callback, module, trainer = fit(2)
    _, alone, _ = fit(2, validates=False)
    assert same(module.network, alone.network)
    assert not same(module.network, callback.average.module)
    ((inputs, given),) = trainer.val_dataloaders
    expected = (callback.average(inputs).argmax(dim=1) == given).float().mean()
    assert trainer.callback_metrics["validation_accuracy"] == expected


def test_after_an_error_in_validation_the_network_has_its_own_weights(code, fit):
    class Failing(code["Classifier"]):
        def validation_step(self, batch, _):
            if self.trainer.global_step:
                raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fit(2, kind=Failing)
    _, module, _ = fit.last
    _, alone, _ = fit(1, validates=False)
    assert same(module.network, alone.network)
