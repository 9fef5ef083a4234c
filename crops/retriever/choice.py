"""Which of several trainings or checks is taken: another one than the safe one only where validation can tell
them apart.
"""

from dataclasses import dataclass

import numpy as np

from crops import spread

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """taken: its number. told: whether validation tells the best one from the safe one; where it does not,
    the safe one is taken. difference: best minus safe in recall, cross-fitted, with its 95 % interval; None
    where there is no other one, or too little to say.
    """

    taken: int
    told: bool
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def choose(recalls: np.ndarray, *, safe: int, people: np.ndarray, seed: int = 0) -> Choice:
    """The best of C candidates if it is better than `safe` beyond the interval, else `safe`.

    recalls  float [C, S, Q]  recall of each candidate, of S trainings that differ by their seed, per query
    people   int [Q]          queries of one number are of the same people, and stay together

    The best of many is the best by luck as well: so people are split into folds, and the best by the others
    is compared on each fold. The variance is that over people, plus that over seeds where there are several.
    """
    means = recalls.mean(axis=(1, 2))
    best = safe if means[safe] == means.max() else int(means.argmax())
    names, group = np.unique(people, return_inverse=True)
    if best == safe or len(names) < 2:
        return Choice(safe, False)
    fold = np.random.default_rng(seed).permutation(len(names))[group] % min(FOLDS, len(names))
    gaps = np.empty(recalls.shape[1:])  # [S, Q]
    for number in np.unique(fold):
        here = fold == number
        others = recalls[:, :, ~here].mean(axis=(1, 2))
        gaps[:, here] = recalls[int(others.argmax())][:, here] - recalls[safe][:, here]
    mean, half = float(gaps.mean()), spread.half_width(gaps, group)
    if half is None:
        return Choice(safe, False)
    low, high = mean - half, mean + half
    numbers = (round(mean, 4), round(low, 4), round(high, 4))
    return Choice(best, True, *numbers) if low > 0 else Choice(safe, False, *numbers)
