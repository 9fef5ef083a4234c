"""The first results of a ranking in the order of θ, whose cross-encoder reads query and text together. The
ranking's own cosine stands for θ's dual encoder, which no release holds.
"""

from collections.abc import Sequence

import numpy as np

from crops import progress
from crops.discriminator import score
from crops.discriminator.joined import Discriminator


def weights(judge: Discriminator, temperature: float) -> tuple[float, float]:
    """Of the cross-encoder's logit and of the ranking's cosine, in their sum; `temperature`: the one that the
    ranking's encoder was trained with.
    """
    cross, dual = judge.calibration.weights
    return cross, dual / temperature


def by_theta(
    judge: Discriminator,
    queries: Sequence[str],
    texts: Sequence[str],
    ranked: np.ndarray,
    cosines: np.ndarray,
    depth: int,
    *,
    temperature: float,
) -> np.ndarray:
    """int [Q, K]: the first `depth` of each row of `ranked` by θ, equal ones as they were, the rest as it is.
    ranked int [Q, K]: rows of `texts`, best first; -1 is padding. cosines [Q, K]: of each.
    """
    first = ranked[:, :depth]
    real = first >= 0
    asked = [queries[query] for query in np.nonzero(real)[0].tolist()]
    read = [texts[row] for row in first[real].tolist()]
    cross, dual = weights(judge, temperature)
    scores = np.full(first.shape, -np.inf)
    with progress.bar(total=len(asked), desc="re-ranking", unit="pair") as bar:
        logits = score.logits(judge.cross, asked, read, progress=bar.update)
    scores[real] = cross * logits + dual * cosines[:, :depth][real]
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.concatenate([np.take_along_axis(first, order, axis=1), ranked[:, depth:]], axis=1)
