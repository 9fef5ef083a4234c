"""The recommendation feed: it knows people and what they watch, not words, and reacts with noise to recent
needs.
"""

from dataclasses import dataclass

import numpy as np

from crops.world.catalogue import Catalogue
from crops.world.settings import Settings

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Views:
    """Feed views of one day, all arrays [F]."""

    user: np.ndarray
    video: np.ndarray
    ts_us: np.ndarray
    clicked: np.ndarray
    liked: np.ndarray
    play_s: np.ndarray


class Shelves:
    """Videos by intent, subject and topic, as padded tables, so that a random one of each can be drawn at
    once.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.by_intent = _shelf(catalogue.intent, len(catalogue.intents))
        self.by_subject = _shelf(
            catalogue.subject_of_intent[catalogue.intent], int(catalogue.subject_of_intent.max()) + 1
        )
        self.by_topic = _shelf(
            catalogue.topic_of_intent[catalogue.intent], int(catalogue.topic_of_intent.max()) + 1
        )

    @staticmethod
    def draw(shelf: tuple[np.ndarray, np.ndarray], which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random video of each group [F]; an empty group gives video 0's neighbour by wrap-around, never an
        error.
        """
        start, order = shelf
        size = np.maximum(1, start[which + 1] - start[which])
        return order[
            np.minimum(start[which] + (rng.random(len(which)) * size).astype(np.int64), len(order) - 1)
        ]


def _shelf(group: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(group, kind="stable")
    return np.searchsorted(group[order], np.arange(groups + 1)), order


def day(
    catalogue: Catalogue,
    shelves: Shelves,
    interests: np.ndarray,
    sessions: tuple[np.ndarray, np.ndarray, np.ndarray],
    popularity: np.ndarray,
    day_us: int,
    settings: Settings,
    rng: np.random.Generator,
) -> Views:
    """One day of the feed, at most one view of a video per user and microsecond, ordered by time.

    interests   int [U, I]  topics a user likes
    sessions    user, intent and start (microseconds) of the day's search sessions, each [S]
    popularity  float [V]   what the platform's people click
    """
    user, need, visit_us = _visits(len(interests), sessions, day_us, settings, rng)
    count = 1 + rng.poisson(settings.feed_views - 1, len(user))
    index = np.repeat(np.arange(len(user)), count)
    ts_us = visit_us[index] + (rng.random(len(index)) * 240 * SECOND_US).astype(np.int64)
    ts_us = np.clip(ts_us, day_us, day_us + 86_400 * SECOND_US - 1)
    liked_topics = interests[user[index]]
    video = _choose(catalogue, shelves, liked_topics, need[index], popularity, settings, rng)
    fit = _fit(catalogue, video, need[index], liked_topics)
    clicked = rng.random(len(index)) < np.asarray(settings.feed_open_by_fit)[fit]
    mean = np.asarray(settings.watch_by_grade)[fit] * np.where(clicked, 1.0, 0.3)
    play_s = np.round(rng.beta(4 * mean, 4 * (1 - mean)) * catalogue.duration_s[video], 1)
    liked = clicked & (fit > 0) & (rng.random(len(index)) < settings.like_share)
    order = np.lexsort((video, user[index], ts_us))
    keys = np.stack([ts_us, user[index], video])[:, order]
    kept = order[np.concatenate([[True], (keys[:, 1:] != keys[:, :-1]).any(axis=0)])] if len(order) else order
    return Views(user[index][kept], video[kept], ts_us[kept], clicked[kept], liked[kept], play_s[kept])


def _visits(
    people: int,
    sessions: tuple[np.ndarray, np.ndarray, np.ndarray],
    day_us: int,
    settings: Settings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, need (-1: the feed knows of none) and start of every visit."""
    user, intent, start_us = sessions
    near = np.flatnonzero(rng.random(len(user)) < settings.feed_near_session)
    offset_us = (rng.uniform(-1, 1, len(near)) * settings.feed_near_min * 60 * SECOND_US).astype(np.int64)
    others = rng.poisson(settings.feed_visits_per_day * people)
    other_us = day_us + (rng.random(others) * 86_400 * SECOND_US).astype(np.int64)
    return (
        np.concatenate([user[near], rng.integers(0, people, others)]),
        np.concatenate([np.where(offset_us > 0, intent[near], -1), np.full(others, -1)]),
        np.concatenate([start_us[near] + offset_us, other_us]),
    )


def _fit(catalogue: Catalogue, video: np.ndarray, need: np.ndarray, topics: np.ndarray) -> np.ndarray:
    grade = catalogue.grades(np.maximum(need, 0), video[:, None])[:, 0]
    liked = (catalogue.topic_of_intent[catalogue.intent[video]][:, None] == topics).any(axis=1)
    return np.maximum(np.where((need >= 0) & (grade >= 2), grade, 0), liked.astype(np.int8))


def _choose(
    catalogue: Catalogue,
    shelves: Shelves,
    interests: np.ndarray,
    need: np.ndarray,
    popularity: np.ndarray,
    settings: Settings,
    rng: np.random.Generator,
) -> np.ndarray:
    size = len(need)
    edges = np.cumsum([settings.feed_need_share, settings.feed_subject_share, settings.feed_interest_share])
    # Without a need its share goes to interests and popular videos in their proportion.
    draw = np.where(need >= 0, rng.random(size), edges[1] + (1 - edges[1]) * rng.random(size))
    known = np.maximum(need, 0)
    by_need = Shelves.draw(shelves.by_intent, known, rng)
    by_subject = Shelves.draw(shelves.by_subject, catalogue.subject_of_intent[known], rng)
    topic = interests[np.arange(size), rng.integers(0, interests.shape[1], size)]
    by_topic = Shelves.draw(shelves.by_topic, topic, rng)
    clicked = np.cumsum(popularity + 1.0)
    popular = np.searchsorted(clicked, rng.random(size) * clicked[-1], side="right")
    return np.select(
        [draw < edges[0], draw < edges[1], draw < edges[2]], [by_need, by_subject, by_topic], popular
    )
