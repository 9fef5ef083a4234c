"""Whether the two logs' clocks agree.

People search and watch in the same visits: the time from where a user begins to search to where they begin
to watch the feed crowds, as often before as after, around nought. Where people watch only after they have
searched (or only before), the crowd begins (ends) at nought with an edge. Around another value, one log is in
another time zone or its clock is off. Where the logs share too few visits, only the hours of the day can be
compared.
"""

from dataclasses import dataclass

import numpy as np

from crops.tables.records import Table
from crops.validation.engine import Engine

# Users that are looked at, about: enough to tell a minute, and little whatever the log's size.
USERS, SLICES, ROWS = 4_000, 1 << 20, 100_000
# Events of a user closer than this are of one visit, seconds.
GAP_S = 900.0
# Lags that are looked for (every time zone), and how far apart the two ends of a visit may be, seconds.
REACH_S, VISIT_S = 14 * 3_600.0, 3_600.0
# The middle is where the counts before and after mirror each other best: bins, width of smoothing, reach, s.
BIN_S, SMOOTH_BINS, NEAR_S = 30.0, 5, 1_200.0
# A lag is told from this size and certainty on; 20 simulated logs stay below 61 s. Fewer visits tell nothing.
LEAST_S, ERRORS, LEAST_PAIRS = 90.0, 3.0, 200
# An edge: so many times as many pairs on its one side as on the other within EDGE_S, and so much steeper than
# the other end of the crowd.
EDGE, EDGE_S, STEEPER = 3.0, 120.0, 2.0
# How much a crowd must stand out from the lags beside it: daily rhythms alone make slopes, not crowds.
CROWD = 1.5
# Hours of the day: alike when one is turned, and not as they are.
ALIKE, UNLIKE = 0.9, 0.5

Times = tuple[np.ndarray, np.ndarray]  # user [N], seconds [N]


@dataclass(frozen=True, slots=True)
class Lag:
    """How much later the feed's clock is than the searches', seconds; its standard error, where there is one;
    what it was seen by.
    """

    seconds: float
    error_s: float | None
    how: str

    @property
    def words(self) -> str:
        """For the user: the size, and what may be behind it."""
        size, way = abs(self.seconds), "later" if self.seconds > 0 else "earlier"
        hours = f"{size / 3_600:.1f} h" if size >= 3_600 else f"{size / 60:.1f} min"
        error = f" ± {2 * self.error_s / 60:.1f} min" if self.error_s is not None else ""
        return (
            f"the feed's times look {hours}{error} {way} than the searches' ({self.how}): is one log in "
            "another time zone, or its clock wrong? Views are then paired with the wrong searches"
        )


def remember(engine: Engine, table: Table, rows: str = "judged") -> None:
    """Keeps users and times of a sample of users of `rows`, the same ones of searches and feed."""
    if table.name not in ("searches", "feed"):
        return
    complete = "user_id IS NOT NULL AND ts IS NOT NULL"
    if table.name == "searches":
        engine.keep("clock_users", f"SELECT count(DISTINCT user_id) AS n FROM {rows} WHERE {complete}")
    share = f"(SELECT {SLICES * USERS} / greatest(n, 1) FROM clock_users)"
    engine.keep(
        f"clock_{table.name}",
        f"SELECT user_id, epoch(ts) AS at_s FROM {rows} WHERE {complete} AND reason IS DISTINCT FROM "
        f"'key stands twice' AND {engine.hashed(['user_id'], SLICES)} < {share}",
    )


def compared(engine: Engine) -> Lag | None:
    """The lag of the feed against the searches, or None where there is none or it cannot be told."""
    times = {name: _times(engine, f"clock_{name}") for name in ("searches", "feed")}
    if not all(len(at) for _, at in times.values()):
        return None
    lag = by_visits(times["searches"], times["feed"])
    return lag if lag is not None else by_hours(times["searches"][1], times["feed"][1])


def by_visits(searches: Times, feed: Times) -> Lag | None:
    """From users who have both; None where too few of their visits are near one another, or the middle (the
    edge of a crowd with one) is near nought.
    """
    codes = np.unique(np.concatenate([searches[0], feed[0]]), return_inverse=True)[1]
    cut = len(searches[0])
    lags, users = _pairs(_begins(codes[:cut], searches[1]), _begins(codes[cut:], feed[1]))
    crowd = _crowd(lags)
    if crowd is None:
        return None
    edged = _edge(lags, crowd) is not None
    middle = _nought(lags, crowd, edged=edged)
    # The standard error: the middle with each tenth of the users left out (jackknife by groups).
    without = np.array([_nought(lags[users % 10 != g], crowd, edged=edged) for g in range(10)])
    error_s = max(BIN_S / 2, float(np.sqrt(0.9 * ((without - without.mean()) ** 2).sum())))
    significant = abs(middle) >= max(LEAST_S, ERRORS * error_s)
    return Lag(middle, error_s, "by when the same users search and watch") if significant else None


def by_hours(searches: np.ndarray, feed: np.ndarray) -> Lag | None:
    """From the hours of the day alone; None unless the days are alike when one is turned, and only then."""
    days = [np.bincount((at // 3_600 % 24).astype(int), minlength=24) for at in (searches, feed)]
    if min(day.sum() for day in days) < LEAST_PAIRS or not all(day.std() for day in days):
        return None
    alike = [float(np.corrcoef(np.roll(days[0], hours), days[1])[0, 1]) for hours in range(24)]
    best = int(np.argmax(alike))
    if best == 0 or alike[best] < ALIKE or alike[0] > UNLIKE:
        return None
    return Lag((best if best <= 12 else best - 24) * 3_600.0, None, "by the hours of the day")


def _begins(users: np.ndarray, at_s: np.ndarray) -> Times:
    """The first event of each visit."""
    order = np.lexsort((at_s, users))
    users, at_s = users[order], at_s[order]
    new = np.r_[True, (users[1:] != users[:-1]) | (np.diff(at_s) > GAP_S)]
    return users[new], at_s[new]


def _pairs(searches: Times, feed: Times) -> Times:
    """Users and lags of every two visits of a user at most REACH_S (and a bit) apart."""
    reach = REACH_S + 3 * VISIT_S
    first = min(searches[1].min(), feed[1].min())
    # Users one behind the other on one line, too far apart to meet: one sorted search finds all pairs.
    span = 4 * reach + max(searches[1].max(), feed[1].max()) - first
    line, other = (users * span + (at_s - first) for users, at_s in (searches, feed))
    low, high = np.searchsorted(other, line - reach), np.searchsorted(other, line + reach)
    count = high - low
    left = np.repeat(np.arange(len(line)), count)
    right = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - low, count)
    return other[right] - line[left], searches[0][left]


def _crowd(lags: np.ndarray) -> float | None:
    """The lag around which most pairs lie, roughly; None where they do not stand out from the lags beside."""
    near = lambda at: int((np.abs(lags - at) <= VISIT_S / 2).sum())  # noqa: E731
    grid = np.arange(-REACH_S, REACH_S + 1, VISIT_S / 6)
    ordered = np.sort(lags)
    counts = np.searchsorted(ordered, grid + VISIT_S / 2) - np.searchsorted(ordered, grid - VISIT_S / 2)
    at = float(grid[np.argmax(counts)])
    for _ in range(5):
        at += float((lags[np.abs(lags - at) <= VISIT_S] - at).mean())
    beside = max(near(at - 2 * VISIT_S), near(at + 2 * VISIT_S))
    return at if near(at) >= max(LEAST_PAIRS, CROWD * beside) else None


def _nought(lags: np.ndarray, crowd: float, *, edged: bool) -> float:
    """The lag of a search and a view at one moment: the crowd's edge, or the middle of one without."""
    edge = _edge(lags, crowd) if edged else None
    return _middle(lags, crowd) if edge is None else edge


def _middle(lags: np.ndarray, crowd: float) -> float:
    """Where the smoothed counts mirror each other best, within NEAR_S of `crowd`."""
    reach = 2 * VISIT_S
    counts = np.histogram(lags - crowd, np.arange(-reach, reach + BIN_S, BIN_S))[0].astype(float)
    kernel = np.exp(-0.5 * (np.arange(-3 * SMOOTH_BINS, 3 * SMOOTH_BINS + 1) / SMOOTH_BINS) ** 2)
    smooth = np.convolve(counts, kernel / kernel.sum(), "same")
    mirrored = np.convolve(smooth - np.median(smooth), smooth - np.median(smooth))
    zero, near = len(counts) - 1, int(NEAR_S / BIN_S)
    best = int(np.argmax(mirrored[zero - near : zero + near + 1])) - near
    return crowd + best * BIN_S / 2


def _edge(lags: np.ndarray, crowd: float) -> float | None:
    """Where the crowd begins or ends all at once on one side only; None where it does not."""
    reach, side = 2 * VISIT_S, int(EDGE_S / BIN_S)
    bins = np.arange(-reach, reach + BIN_S, BIN_S)
    sums = np.convolve(np.histogram(lags - crowd, bins)[0], np.ones(side, dtype=int), "valid")
    before, after = sums[:-side], sums[side:]  # the two sides of bins[side], bins[side + 1], …
    rise = np.where(np.maximum(before, after) >= EDGE * (np.minimum(before, after) + 1), after - before, 0)
    ends = np.array([rise.max(initial=0), -rise.min(initial=0)])
    if ends.max() < LEAST_PAIRS / 10 or ends.max() < STEEPER * ends.min():
        return None
    return crowd + float(bins[side + np.argmax(np.abs(rise))])


def _times(engine: Engine, name: str) -> Times:
    users, at_s = [], []
    for batch in engine.stream(f"SELECT user_id, at_s FROM {name}", ROWS):
        users.append(batch.column("user_id").to_numpy(zero_copy_only=False))
        at_s.append(batch.column("at_s").to_numpy(zero_copy_only=False).astype(float))
    return (np.concatenate(users), np.concatenate(at_s)) if users else (np.empty(0, object), np.empty(0))
