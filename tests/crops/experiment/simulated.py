"""Users with their own click rate and activity: what makes a test on impressions wrong. Shared by the
statistics' tests.
"""

import numpy as np
import pyarrow as pa

from crops.experiment.moments import Arms, Moments


def users(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(impressions per user, click rate per user): log-normal activity; busier users click less often."""
    impressions = np.ceil(rng.lognormal(2.0, 1.0, n))
    rate = rng.beta(2.0, 8.0 + 0.2 * np.minimum(impressions, 50), n)
    return impressions, rate


def arms(rng: np.random.Generator, n: int = 1000, *, lift: float = 0.0, pre: bool = False) -> Arms:
    """One experiment of `n` users, half in each arm."""
    impressions, rate = users(rng, n)
    treated = rng.random(n) < 0.5
    clicks = rng.binomial(impressions.astype(int), np.minimum(1.0, rate * (1 + lift * treated)))
    before = np.zeros((n, 2))
    if pre:
        before[:, 1] = rng.poisson(impressions)
        before[:, 0] = rng.binomial(before[:, 1].astype(int), rate)
    totals = np.column_stack([clicks, impressions, before]).astype(float)
    return Arms(control=Moments.of(totals[~treated]), treatment=Moments.of(totals[treated]))


def rows(rng: np.random.Generator, n: int = 200, *, lift: float = 0.0) -> pa.Table:
    """The same as one row per impression, with clicked, play_s (some null) and duration_s (some null)."""
    impressions, rate = users(rng, n)
    treated = rng.random(n) < 0.5
    who = np.repeat(np.arange(n), impressions.astype(int))
    clicked = rng.random(len(who)) < np.minimum(1.0, rate[who] * (1 + lift * treated[who]))
    play = np.where(clicked, rng.exponential(20.0, len(who)), np.nan)
    duration = np.where(rng.random(len(who)) < 0.1, np.nan, rng.uniform(5, 60, len(who)))
    return pa.table(
        {
            "user_id": [f"u{i}" for i in who],
            "arm": np.where(treated[who], "treatment", "control"),
            "search_id": [f"s{i}" for i in range(len(who))],
            "video_id": ["v"] * len(who),
            "clicked": clicked,
            "play_s": pa.array(play, from_pandas=True),
            "duration_s": pa.array(duration, from_pandas=True),
            "reformulated": rng.random(len(who)) < 0.3,
        }
    )
