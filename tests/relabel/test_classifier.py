"""The classifier keeps scikit-learn's rules."""

import pickle

import numpy as np
import pytest
from own_images import pictures
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from sln.relabel import SLNClassifier, fit

QUICK = {"sigma": 0.1, "folds": 2, "epochs": 8}
IMAGES, LABELS = pictures(30)
FEATURES, NAMES = IMAGES.reshape(30, -1)[:, :64].astype(float), np.array(["left", "right"])[LABELS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_passes_scikit_learns_checks():
    for result in check_estimator(SLNClassifier(**QUICK), on_skip=None):
        assert result["status"] in ("passed", "skipped")


def test_it_is_fit_with_its_predictions_averaged_over_networks():
    classifier = SLNClassifier(**QUICK, random_state=3).fit(IMAGES, NAMES)
    fitted = fit(IMAGES, LABELS, seed=3, quiet=True, **QUICK)
    p = classifier.predict_proba(IMAGES)
    np.testing.assert_allclose(p, fitted.predict(IMAGES).numpy(), atol=1e-6)
    assert classifier.classes_.tolist() == ["left", "right"]
    assert classifier.predict(IMAGES).tolist() == classifier.classes_[p.argmax(axis=1)].tolist()
    issues = classifier.label_issues_
    assert issues["given"].tolist() == NAMES.tolist()
    assert issues["suspect"].equals(fitted.labels["suspect"])
    assert set(issues["suggested"]) <= {"left", "right"}


def test_it_works_in_pipelines_and_searches_and_can_be_cloned_and_pickled():
    pipeline = make_pipeline(StandardScaler(), SLNClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"slnclassifier__sigma": [0.0, 0.1]}, cv=2, error_score="raise")
    assert search.fit(FEATURES, NAMES).score(FEATURES, NAMES) > 0.9
    best = search.best_estimator_
    same = pickle.loads(pickle.dumps(best))  # noqa: S301
    assert np.array_equal(same.predict_proba(FEATURES), best.predict_proba(FEATURES))
    again = clone(best).fit(FEATURES, NAMES)
    assert np.array_equal(again.predict_proba(FEATURES), best.predict_proba(FEATURES))


def test_a_random_state_decides_the_seeds():
    def p(state):
        return SLNClassifier(**QUICK, random_state=state).fit(FEATURES, LABELS).predict_proba(FEATURES)

    first, same, other = (p(np.random.RandomState(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_bad_settings_and_labels_are_refused_in_one_line(refused):
    with refused("folds is 1"):
        SLNClassifier(folds=1).fit(FEATURES, LABELS)
    with refused("one class, 0"):
        SLNClassifier().fit(FEATURES, LABELS * 0)
