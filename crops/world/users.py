"""People: they look from the top, click what fits, watch, like, and then rest, rephrase or leave.

The model is apart from the engine: it needs a need (an intent) and the grades of whatever list it is shown,
so that the same people can be put in front of any engine, recorded or live.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from crops.world.settings import Settings


@dataclass(frozen=True, slots=True)
class Reaction:
    """What N people did with lists of K results. Arrays are [N, K] but `satisfied`, which is [N]."""

    looked: ndarray
    clicked: ndarray
    liked: ndarray
    play_s: ndarray
    satisfied: ndarray


def react(grades: ndarray, durations_s: ndarray, settings: Settings, rng: Generator) -> Reaction:
    """Reactions to lists shown in this order.

    grades       int [N, K]    relevance 0..3 of each result to the person's need
    durations_s  float [N, K]  length of each video; play_s is NaN where nothing was played
    """
    position = np.arange(grades.shape[1])
    looked = rng.random(grades.shape) < (1.0 + position) ** -settings.position_bias
    clicked = looked & (rng.random(grades.shape) < np.asarray(settings.click_by_grade)[grades])
    mean = np.asarray(settings.watch_by_grade)[grades]
    share = rng.beta(4 * mean, 4 * (1 - mean))
    play_s = np.where(clicked, np.round(share * durations_s, 1), np.nan)
    fits = clicked & (grades >= 2) & (share >= settings.satisfied_share)
    liked = clicked & (grades >= 2) & (rng.random(grades.shape) < settings.like_share)
    return Reaction(looked=looked, clicked=clicked, liked=liked, play_s=play_s, satisfied=fits.any(axis=1))


# What a person does after a search.
LEAVE, REPHRASE, NEW_NEED = 0, 1, 2


def decide(satisfied: ndarray, settings: Settings, rng: Generator) -> ndarray:
    """The next step of each person [N]: LEAVE, REPHRASE (the need is open) or NEW_NEED (an unrelated
    search).
    """
    draw = rng.random(len(satisfied))
    unsatisfied = np.where(
        draw < settings.reformulate,
        REPHRASE,
        np.where(draw < settings.reformulate + settings.abandon, NEW_NEED, LEAVE),
    )
    return np.where(satisfied, np.where(draw < settings.unrelated_next, NEW_NEED, LEAVE), unsatisfied)


def gaps_s(count: int, settings: Settings, rng: Generator) -> ndarray:
    """Seconds until the next search [count]: lognormal, at least two."""
    return np.maximum(2.0, rng.lognormal(np.log(settings.gap_median_s), settings.gap_sigma, count))
