"""α of each query, predicted from what the log knows of it.

A gate that keeps what is worth more than it costs cuts every query at one chance of being wanted. α is that
chance read off θ for all queries at once; where θ reads some kind of query too high or too low, the same
chance stands at another θ. What people did with mined pairs that they were also shown says how likely a θ is
to be wanted, and whether that depends on the query.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from crops import perspectives
from crops.discriminator.calibrate import EDGE
from crops.text import words

READ = ("query", "doc_id", "perspective", "support", "theta")
LEAST = 50  # shown pairs that were clicked, and as many that were not: below, α stays; ours
FOLDS = 5  # of queries: none is judged by a line that its own pairs drew; ours
NARROW, WIDE = 0.5, 1.5  # of α, between which a query's own lies; ours


def of_queries(rows: pd.DataFrame, alpha: float) -> tuple[pd.Series, tuple[str, ...]]:
    """α by (query, perspective), of the gated perspectives where it departs from `alpha`, and a note on each
    of them. in: READ of all queries, at once: their features are compared.
    """
    alphas, notes = [pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []]))], []
    features = _features(rows)
    for name in perspectives.names(gated=True):
        part = rows[rows["perspective"] == name].join(features, on="query")
        theta, queries = part["theta"].to_numpy(float), part["query"].to_numpy(object)
        of_query = part[features.columns].to_numpy(float)
        fitted, why = predicted(theta, _wanted(rows, part), queries, of_query, alpha)
        if fitted is not None:
            alphas.append(part.assign(alpha=fitted).groupby(["query", "perspective"])["alpha"].first())
        notes.append(f"{name}: α by query: {why}")
    return pd.concat(alphas), tuple(notes)


def predicted(
    theta: np.ndarray, wanted: np.ndarray, queries: np.ndarray, features: np.ndarray, alpha: float
) -> tuple[np.ndarray | None, str]:
    """α [N] of each pair's query, None where `alpha` is as good for all; and why.

    theta [N] in 0..1; wanted [N] 1, 0, or NaN where nobody was shown the pair; queries [N]; features [N, F]
    of the queries
    """
    told = ~np.isnan(wanted)
    if min((wanted[told] == 1).sum(), (wanted[told] == 0).sum()) < LEAST:
        return None, f"{told.sum():,} pairs were shown as well, too few to predict from: {alpha:g}"
    x = logit(np.clip(theta, EDGE, 1 - EDGE))[:, None]
    scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    whole = np.concatenate([x, scaled], axis=1)
    alphas, losses = np.full(len(theta), alpha), np.zeros(2)
    for here in _folds(queries):
        learnt, judged = told & ~here, told & here
        lines = [_line(rows[learnt], wanted[learnt]) for rows in (x, whole)]
        chances = [rows[judged] @ w + b for rows, (w, b) in zip((x, whole), lines, strict=True)]
        losses += [np.logaddexp(0, -z * (2 * wanted[judged] - 1)).sum() for z in chances]
        (alone, offset), (w, b) = lines
        if alone[0] <= 0 or w[0] <= 0:
            return None, f"θ does not tell the {told.sum():,} shown pairs apart: {alpha:g}"
        at_alpha = alone[0] * logit(np.clip(alpha, EDGE, 1 - EDGE)) + offset
        alphas[here] = expit((at_alpha - b - scaled[here] @ w[1:]) / w[0])
    if losses[1] >= losses[0]:
        return None, f"the queries of {told.sum():,} shown pairs tell nothing beside θ: {alpha:g}"
    alphas = np.clip(alphas, NARROW * alpha, WIDE * alpha)
    low, middle, high = np.quantile(alphas, (0.1, 0.5, 0.9))
    return alphas, f"{low:.2f}, {middle:.2f}, {high:.2f} (tenth, median, ninetieth in a hundred)"


def _folds(queries: np.ndarray) -> Iterator[np.ndarray]:
    """bool [N] per fold, the whole of a query in one."""
    number = np.unique(queries, return_inverse=True)[1] % FOLDS
    return (number == fold for fold in range(FOLDS))


def _line(rows: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights [F] and offset of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1_000).fit(rows, wanted)
    return model.coef_[0], float(model.intercept_[0])


def _wanted(rows: pd.DataFrame, part: pd.DataFrame) -> np.ndarray:
    """[N] of `part`: 1 where the pair was clicked, 0 where it was shown and was not, else NaN."""
    pairs = pd.MultiIndex.from_frame(part[["query", "doc_id"]])

    def among(name: str) -> np.ndarray:
        other = rows.loc[rows["perspective"] == name, ["query", "doc_id"]]
        return pairs.isin(pd.MultiIndex.from_frame(other))

    clicked, shown = among(perspectives.CLICK.name), among(perspectives.EXPOSED.name)
    return np.where(clicked, 1.0, np.where(shown, 0.0, np.nan))


def _features(rows: pd.DataFrame) -> pd.DataFrame:
    """Per query: log clicks, log videos clicked and passed over, words, log mined pairs, and mean and spread
    of their θ.
    """

    def of(name: str) -> pd.core.groupby.SeriesGroupBy:
        return rows[rows["perspective"] == name].groupby("query")["support"]

    gated = rows[rows["perspective"].isin(perspectives.names(gated=True))].groupby("query")["theta"]
    table = pd.DataFrame(index=pd.Index(rows["query"].unique(), name="query"))
    clicks, passed = of(perspectives.CLICK.name), of(perspectives.EXPOSED.name)
    for place, count in enumerate([clicks.sum(), clicks.size(), passed.size(), gated.size()]):
        table[f"count_{place}"] = np.log1p(count.reindex(table.index).fillna(0))
    table["words"] = [len(words(query)) for query in table.index]
    table["mean"], table["spread"] = gated.mean(), gated.std()
    return table.fillna(0.0)
