"""A reformulation: a later search of the same user, within the window, in another wording (crops.text): what
differs by case, width, white space or punctuation alone is the same search.

No similarity is asked for. A search was reformulated if any later search is one, so `a a a b` within the
window are four searches of which three were reformulated: RQR is 3 / 4. Mining and the readout use
`reformulates` on the columns of an engine; the gateway uses `fold`, one search at a time.
"""

from typing import Any, NamedTuple

WINDOW_S = 90  # arXiv 2511.15443
MOST_WAITING = 64  # searches of one user within one window; nobody types so many, and robots may


class Search(NamedTuple):
    """A search that may still be reformulated; `wording` is that of its query, or a hash of that."""

    ts_us: int
    arm: str
    wording: str


def reformulates(ts: Any, wording: Any, first_ts: Any, first_wording: Any, window: Any) -> Any:
    """Whether (ts, wording) reformulates the first one of the same user: numbers or columns, `window` in the
    unit of the times, both of its ends as in 0 < ts - first_ts <= window.
    """
    return (ts > first_ts) & (ts <= first_ts + window) & (wording != first_wording)


def fold(
    waiting: tuple[Search, ...], search: Search, window_s: float
) -> tuple[tuple[Search, ...], tuple[Search, ...]]:
    """One user's next search: (those that may still be reformulated, those that `search` reformulates).

    Each search is given back at most once. Searches come in the order of their times. Of more than
    MOST_WAITING the oldest are forgotten, uncounted.

    >>> a, b = Search(0, "none", "bread"), Search(1_000_000, "none", "rye")
    >>> fold((a,), b, 90.0) == ((b,), (a,))
    True
    """
    window_us = round(window_s * 1e6)
    again = tuple(
        s for s in waiting if reformulates(search.ts_us, search.wording, s.ts_us, s.wording, window_us)
    )
    recent = (s for s in waiting if s not in again and search.ts_us - s.ts_us <= window_us)
    return (*recent, search)[-MOST_WAITING:], again
