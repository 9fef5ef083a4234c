"""The first results of a ranking in the order of θ, which reads query and text together."""

from collections.abc import Sequence

import numpy as np

from crops import progress
from crops.discriminator.joined import Discriminator


def by_theta(
    judge: Discriminator, queries: Sequence[str], texts: Sequence[str], ranked: np.ndarray, depth: int
) -> np.ndarray:
    """int [Q, K]: the first `depth` of each row of `ranked` by θ of the texts, equal ones as they were, and
    the rest behind them as it is. ranked int [Q, K]: rows of `texts`, best first; -1 is padding.
    """
    first = ranked[:, :depth]
    real = first >= 0
    asked = [queries[query] for query in np.nonzero(real)[0].tolist()]
    read = [texts[row] for row in first[real].tolist()]
    theta = np.full(first.shape, -np.inf)
    with progress.bar(total=len(asked), desc="re-ranking", unit="pair") as bar:
        theta[real] = judge.theta(asked, read, progress=bar.update)
    order = np.argsort(-theta, axis=1, kind="stable")
    return np.concatenate([np.take_along_axis(first, order, axis=1), ranked[:, depth:]], axis=1)
