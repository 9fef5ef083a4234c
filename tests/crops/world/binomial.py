"""Bounds that chance keeps: a wrong alarm in one of about a million tests."""

import math


def within(count: int, trials: int, share: float, sigmas: float = 5.0) -> bool:
    """Whether `count` of `trials` is compatible with `share`."""
    assert trials > 0, "nothing was tried, so nothing is shown"
    return abs(count - trials * share) <= sigmas * math.sqrt(max(trials * share * (1 - share), 1.0))
