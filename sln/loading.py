"""The data of one configuration: a data set with the inherent noise that its knobs ask for."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sln import data
from sln.config import Config
from sln.data import Data
from sln.files import lock, runs_folder, write_atomically
from sln.noise import Corruption
from sln.train import averaged_softmax

# Epochs over which the scores of instance-dependent noise are averaged, on the embedded digits.
AVERAGED_EPOCHS = 20


def load_data(config: Config) -> Data:
    """The data of `config`, inherent noise included; kept in memory for the next run on the same labels."""
    return _load(config.dataset, config.noise_mode, config.noise_rate, config.noise_seed, runs_folder())


def draw_corruption(config: Config, *, exact: bool = True, own_class: bool = False) -> Corruption:
    """The training labels of `config` as a Corruption, to look at or to save.

    With the defaults of `exact` and `own_class` they are the labels that its runs train on.
    """
    clean = data.digits()
    true, scores = clean.train.true.numpy(), None
    if config.noise_mode == "dependent":
        scores = _scores(clean, config, runs_folder())[: len(true)]
    return data.draw(config, true, clean.num_classes, "train", scores, exact=exact, own_class=own_class)


@functools.lru_cache(maxsize=32)
def _load(dataset: str, noise_mode: str, noise_rate: float, noise_seed: int, runs: Path) -> Data:
    # only these knobs decide the data: a run's others must not change the scores of instance-dependent noise
    config = Config(dataset=dataset, noise_mode=noise_mode, noise_rate=noise_rate, noise_seed=noise_seed)
    clean = data.digits()
    return data.corrupt(clean, config, _scores(clean, config, runs) if noise_mode == "dependent" else None)


def _scores(clean: Data, config: Config, runs: Path) -> np.ndarray:
    """Averaged softmax outputs for instance-dependent noise, computed once and kept beside the runs."""
    name = f"averaged-softmax-{config.dataset}-seed{config.noise_seed}"
    path = runs / f"{name}.npy"
    with lock(name):
        if not path.exists():
            base = Config(dataset=config.dataset, noise_seed=config.noise_seed)
            with threads(base.threads):
                scores = averaged_softmax(clean, base, AVERAGED_EPOCHS)
            buffer = io.BytesIO()
            np.save(buffer, scores)
            write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))
        return np.load(path, allow_pickle=False)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Use `number` CPU threads inside, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
