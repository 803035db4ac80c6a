"""Regression with f(x) = <v∘v, x>: noise of one size and two shapes, and what each finds.

    L(v) = 1/(2n) sum_i (<v∘v, x_i> - y_i)^2,    x_i ~ N(0, I_d),    y_i = <w, x_i> + inherent noise

The true w is 1 in `nonzero` of d entries, else 0. With n < d, many v fit all labels. HaoChen, Wei,
Lee and Ma ("Shape matters: understanding the implicit bias of the noise covariance", COLT 2021) prove for
this model that SGD with noise on the labels finds the sparse w from any start, and that Gaussian noise does
not. Here every step is gradient descent on all n examples, each with fresh noise on its label.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sln.study.statistics import interval
from sln.utils.rng import numpy_generator

# Method: (whose weights v set the size of its Gaussian noise, how many times that size).
LABELS, PENALTY = "noise on labels", "no noise, penalty"
PLAIN, GAUSSIAN, STRONG = "no noise", "Gaussian, same size", "Gaussian, 3 × size"
METHODS = {
    PLAIN: (LABELS, 0.0),
    GAUSSIAN: (LABELS, 1.0),
    "Gaussian, own weights": ("Gaussian, own weights", 1.0),
    STRONG: (LABELS, 3.0),
    LABELS: (LABELS, 0.0),
    PENALTY: (LABELS, 0.0),
}
BLOCK = 500  # steps whose noise is drawn at once
RECORDS = 20  # steps that are recorded, besides the first
STEPS_OF_SLIDER = 5_000  # a move must not wait longer


@dataclass(frozen=True)
class Setting:
    """What the runs of all METHODS share.

    sigma : standard deviation of the fresh noise on each label; the labels' own is sqrt(nonzero)
    inherent : standard deviation of the noise that the labels come with
    start : every entry of v at the start
    rate : the learning rate
    """

    sigma: float = 2.0
    inherent: float = 0.0
    start: float = 1.0
    rate: float = 0.04
    steps: int = 10_000
    n: int = 40
    d: int = 100
    nonzero: int = 5

    @property
    def truth(self) -> np.ndarray:
        """(d,): the true w, its entries of 1 spread evenly."""
        gap = self.d // self.nonzero
        return (np.arange(self.d) % gap == gap // 2).astype(float)


@dataclass(frozen=True)
class Trained:
    """The runs of every seed and method.

    X : (seeds, n, d), y : (seeds, n)
    steps : (records,), the recorded steps, from 0 to the last; v : (records, seeds, methods, d)
    """

    setting: Setting
    X: np.ndarray
    y: np.ndarray
    steps: np.ndarray
    v: np.ndarray

    def found(self, method: str) -> np.ndarray:
        """(seeds, d): v∘v of a method after the last step."""
        return self.v[-1, :, list(METHODS).index(method)] ** 2


def data(setting: Setting, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """X (seeds, n, d) and y (seeds, n)."""
    shape = (setting.n, setting.d)
    X = np.stack([numpy_generator(seed, "regression").standard_normal(shape) for seed in seeds])
    noise = [numpy_generator(seed, "inherent noise").standard_normal(setting.n) for seed in seeds]
    return X, X @ setting.truth + setting.inherent * np.stack(noise)


def gradient(v: np.ndarray, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dL/dv = 2/n sum_i (<v∘v, x_i> - y_i) x_i∘v; v (..., m, d), X (..., n, d), y (..., m or 1, n)."""
    return ((v * v) @ X.mT - y) @ X * (2 / X.shape[-2] * v)


def trace(v: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(..., m): tr of the Hessian of L at a v (..., m, d) that fits all labels, 4/n sum_i |x_i∘v|^2.

    squares : (..., d), mean over the examples of x_ij^2
    """
    return 4 * (v * v @ squares[..., None])[..., 0]


def noise_size(v: np.ndarray, squares: np.ndarray, sigma: float, n: int) -> np.ndarray:
    """(..., m): sqrt(E|noise|^2) in the gradient at v, if each of the n labels has noise sigma.

    The noise is 2/n sum_i sigma z_i x_i∘v, so E|noise|^2 = 4 sigma^2/n^2 sum_i |x_i∘v|^2 = sigma^2/n `trace`.
    """
    return sigma * np.sqrt(trace(v, squares) / n)


def train(setting: Setting, seeds: Sequence[int]) -> Trained:
    """Gradient descent by every one of METHODS, all seeds at once; a seed's numbers do not depend on others.

    Methods share the data and the noise z (labels) or the directions k (Gaussian) of their seed. `PENALTY`
    descends on L + rate sigma^2/(4n) tr, where the trace is that of the Hessian and no noise is drawn.
    """
    X, y = data(setting, seeds)
    (S, n, d), names = X.shape, list(METHODS)
    labels, penalty = names.index(LABELS), names.index(PENALTY)
    sources = [names.index(whose) for whose, _ in METHODS.values()]
    factors = np.array([factor for _, factor in METHODS.values()]) / np.sqrt(d)
    squares = (X**2).mean(axis=1)
    pull = 2 * setting.rate * setting.sigma**2 / n * squares
    targets = np.repeat(y[:, None], len(names), axis=1)
    v = np.full((S, len(names), d), setting.start)
    recorded = np.linspace(0, setting.steps, RECORDS + 1).astype(int)
    kept, looked_at = [], set(recorded.tolist())
    for step in range(setting.steps + 1):
        if step in looked_at:
            kept.append(v.copy())
        if step % BLOCK == 0:
            draws = [numpy_generator(seed, "stochastic noise", step // BLOCK) for seed in seeds]
            noise = np.stack([one.standard_normal((BLOCK, n + d)) for one in draws], axis=1)
        drawn = noise[step % BLOCK]
        z, k = drawn[..., :n], drawn[..., n:]
        targets[:, labels] = y + setting.sigma * z
        g = gradient(v, X, targets)
        g += (noise_size(v, squares, setting.sigma, n)[:, sources] * factors)[..., None] * k[:, None]
        g[:, penalty] += pull * v[:, penalty]
        v -= setting.rate * g
    return Trained(setting, X, y, recorded, np.stack(kept))


@functools.lru_cache(maxsize=64)
def one_seed(seed: int, sigma: float, inherent: float, start: float) -> Trained:
    """`train` with one seed, for a slider: the values it had before come back at once."""
    return train(Setting(sigma, inherent, start, steps=STEPS_OF_SLIDER), (seed,))


def table(runs: Sequence[Trained]) -> pd.DataFrame:
    """inherent, method, seed (its place), step, error, loss, sum_v2: a row per recorded step.

    error : E (f(x) - <w, x>)^2 over new x ~ N(0, I), which is |v∘v - w|^2 exactly
    loss : L on the labels that the data came with
    sum_v2 : sum_j v_j^2, the l1 norm of v∘v; 4 times it is the expected trace of the Hessian
    """
    return pd.concat([_rows(run) for run in runs], ignore_index=True)


def _rows(run: Trained) -> pd.DataFrame:
    w = run.v**2
    axes = {"step": run.steps, "seed": range(w.shape[1]), "method": list(METHODS)}
    rows = pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)
    rows.insert(0, "inherent", run.setting.inherent)
    rows["error"] = ((w - run.setting.truth) ** 2).sum(axis=-1).ravel()
    rows["loss"] = ((w @ run.X.mT - run.y[:, None]) ** 2).mean(axis=-1).ravel() / 2
    return rows.assign(sum_v2=w.sum(axis=-1).ravel())


def over_seeds(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """mean, low, high by inherent, method, step: of log10, then raised again, since errors are heavy-tailed.

    So the mean is the geometric one, and the t interval is one of a factor.
    """
    groups = table.groupby(["inherent", "method", "step"], sort=False)[column]
    found = {name: interval(np.log10(values)).row() for name, values in groups}
    rows = pd.DataFrame.from_dict(found, orient="index")
    return (10**rows).rename_axis(["inherent", "method", "step"]).reset_index()


def last(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last step."""
    return table[table["step"] == table["step"].max()]


def ratios(table: pd.DataFrame, column: str = "error", of: str = LABELS) -> pd.DataFrame:
    """How many times as large as that of the method `of` the other methods' last `column` is.

    inherent, method, ratio, low, high : geometric mean of the ratios paired over seeds, and the t interval of
        their log10, raised
    """
    rows = []
    for inherent, part in last(table).groupby("inherent"):
        logs = np.log10(part.pivot_table(index="seed", columns="method", values=column, sort=False))
        for method in logs.columns.drop(of):
            found = interval(logs[method] - logs[of]).row("ratio")
            rows.append({"inherent": inherent, "method": method} | {name: 10**x for name, x in found.items()})
    return pd.DataFrame(rows)


def describe(table: pd.DataFrame) -> str:
    """What the table shows at the last step, in sentences."""
    seeds = table["seed"].nunique()
    words = [
        f"Population error after the last step: geometric mean over {seeds} seeds (smallest to largest)."
    ]
    for inherent, part in last(table).groupby("inherent"):
        errors = part.pivot_table(index="seed", columns="method", values="error", sort=False)
        means, lost = 10 ** np.log10(errors).mean(), part.groupby("method")["loss"].mean()
        each = (
            f"{m} {short(means[m])} ({short(errors[m].min())} to {short(errors[m].max())})" for m in errors
        )
        below = (errors[STRONG] < errors[PLAIN]).sum()
        words.append(
            f"\nInherent noise {inherent:g}. {'; '.join(each)}.\n"
            f"“{STRONG}” ends below “{PLAIN}” in {below} of {seeds} "
            f"seeds. Its mean training loss is {short(lost[STRONG])}, that of “{LABELS}” "
            f"{short(lost[LABELS])}."
        )
    return "\n".join([*words, "", describe_rival(table, GAUSSIAN)])


def describe_rival(table: pd.DataFrame, rival: str) -> str:
    """How many times the error of noise on labels the method `rival` has, a sentence per inherent noise."""
    found = ratios(table).query("method == @rival").drop(columns="method").map(short)
    return "\n".join(
        f"Inherent noise {row.inherent}: “{rival}” has {row.ratio} times the error of “{LABELS}” "
        f"(paired 95% interval {row.low} to {row.high})."
        for row in found.itertuples()
    )


def short(number: float) -> str:
    """A number with two digits, or with all before the point: 0.058, 1.2, 4,283."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"
