"""A long play, the numerator of LPR and a relevant pair for θ: 18 s, or the whole video if it is shorter."""

from typing import Any

LONG_PLAY_S = 18.0  # KuaiRand's long view


def is_long(play_s: Any, duration_s: Any, long_play_s: float = LONG_PLAY_S) -> Any:
    """Numbers, NumPy arrays or Ibis columns alike. An unknown duration (NaN, null) shortens nothing; in SQL
    the answer is then null where the play is short.

    >>> is_long(5.0, 5.0), is_long(5.0, 60.0), is_long(18.0, float("nan")), is_long(0.0, 0.0)
    (True, False, True, False)
    """
    return (play_s > 0) & ((play_s >= long_play_s) | (play_s >= duration_s))
