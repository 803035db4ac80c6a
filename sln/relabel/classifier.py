"""The method as a classifier of scikit-learn, for pipelines, searches and cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from sln.relabel.crossfit import fit
from sln.utils.errors import require


class SLNClassifier(ClassifierMixin, BaseEstimator):
    """Networks trained by SLN-MO-LC on noisy labels: features (N, D) get a linear head, images a CNN.

    `fit` cross-fits (`crossfit.fit`, which explains the parameters); `predict_proba` is the mean over its
    networks. X is a dense array or data frame, y has at least two classes, each on two different rows.

    Attributes: classes_, n_features_in_, label_issues_ (the table `Fitted.labels`), and fitted_, the Fitted.
    """

    def __init__(
        self,
        sigma: float | None = None,
        *,
        folds: int = 5,
        repeats: int = 1,
        epochs: int | None = None,
        model: str = "cnn",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.sigma = sigma
        self.folds = folds
        self.repeats = repeats
        self.epochs = epochs
        self.model = model
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> SLNClassifier:
        """Train on X, features (N, D) or images (N, channels, H, W), and noisy labels y (N,)."""
        X, y = validate_data(self, X, y, allow_nd=True, dtype="numeric")
        check_classification_targets(y)
        self.classes_, given = np.unique(y, return_inverse=True)
        require(
            len(self.classes_) > 1, f"y has one class, {self.classes_[0]}; there is nothing to tell apart"
        )
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31)
        settings = {name: value for name, value in self.get_params().items() if name != "random_state"}
        self.fitted_ = fit(X, given, groups=groups, seed=int(seed), quiet=True, **settings)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(M, C): probabilities in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, dtype="numeric", reset=False)
        p = self.fitted_.predict(X).double().numpy()
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """(M,): the most probable classes."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    @property
    def label_issues_(self) -> pd.DataFrame:
        """One row per training example: given, suggested, suspect and more (`Fitted.labels`)."""
        check_is_fitted(self)
        table = self.fitted_.labels
        names = {column: self.classes_[table[column].to_numpy(int)] for column in ("given", "suggested")}
        return table.assign(**names)
