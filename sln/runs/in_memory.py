"""Training on images that fit into memory: digits, letters and CIFAR."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from sln import fast
from sln.config import Config
from sln.datasets.load import load_data
from sln.runs import store
from sln.train import Epoch, State, train_in_turns
from sln.utils import speeds
from sln.utils.progress import Progress


class Trainer:
    """What a run needs: the loop of `train`, computed by `fast`. A `fresh` training is no different here.

    state : what a checkpoint holds
    given : (N,) int64, the given labels that the run depends on
    facts : what versions.json holds beside the libraries and the device
    """

    def __init__(self, config: Config, device: torch.device, *, quiet: bool, fresh: bool) -> None:
        self.config, self.quiet = config, quiet
        self.data = load_data(config).to(device)
        self.state = State(config, self.data)
        self.engine = fast.engine(config, device)
        self.given = torch.cat([self.data.train.given, self.data.validation.given])
        self.facts = {"speed": speeds.chosen(device)}

    def epochs(self) -> Iterator[Epoch | None]:
        """Train from `state.epoch` to the end: an Epoch after each, and None between turns."""
        name, epochs = self.config.run_id, self.config.epochs
        with Progress(epochs, name, "epochs", done=self.state.epoch, quiet=self.quiet) as progress:
            for epoch in train_in_turns(self.state, self.data, self.config, self.engine):
                yield epoch
                if epoch is not None:
                    first, last = epoch.rows[0], epoch.rows[-1]
                    progress.advance(loss=first["objective"], accuracy=last["test_accuracy"])

    def weights(self) -> dict[str, Tensor]:
        """The weights to keep, "network/conv1.weight", ...: those of the last epoch."""
        return store.named_weights(self.state.networks)

    def examples(self) -> pd.DataFrame:
        """One row per training example, in data-set order.

        index, given, true (-1: of no class)
        network_..., momentum_... : prediction, confidence (its probability), p_given (probability of the
            given label), loss (cross-entropy against the given label)
        target, target_on_given : class of the largest target entry, target entry of the given label
        """
        split, targets = self.data.train, self.state.targets.cpu()
        columns = {"index": np.arange(len(split)), "given": split.given, "true": split.true}
        for weights in ("network", "momentum"):
            logits = self.engine.predict(self.state.networks[weights], split, self.data)
            confidence, prediction = F.softmax(logits, dim=1).max(dim=1)
            loss = F.cross_entropy(logits, split.given, reduction="none")
            columns |= {f"{weights}_prediction": prediction, f"{weights}_confidence": confidence}
            columns |= {f"{weights}_p_given": (-loss).exp(), f"{weights}_loss": loss}
        of_given = targets.gather(1, split.given[:, None])[:, 0]
        columns |= {"target": targets.argmax(dim=1), "target_on_given": of_given}
        return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
