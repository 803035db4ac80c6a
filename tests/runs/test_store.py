"""Files of a run: weights, histories."""

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sln.runs import store


def test_the_bytes_of_a_weights_file_depend_on_names_and_values_only(tmp_path):
    a, b = torch.arange(6.0).view(2, 3), torch.zeros(2)
    store.write_tensors(tmp_path / "1", {"a": a, "b": b})
    store.write_tensors(tmp_path / "2", {"b": b, "a": a.t().clone().t()})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert torch.equal(store.read_tensors(tmp_path / "1")["a"], a)


def test_a_missing_weights_file_is_named(tmp_path, refused):
    with refused(str(tmp_path / "nowhere.safetensors")):
        store.read_tensors(tmp_path / "nowhere.safetensors")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_a_history_reads_back_to_the_last_bit(values):
    with tempfile.TemporaryDirectory() as folder:
        store.write_history(Path(folder), [{"epoch": i, "loss": value} for i, value in enumerate(values)])
        assert list(store.read_history(Path(folder))["loss"]) == values
