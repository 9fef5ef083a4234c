"""The recommendation feed: it knows people and what they watch, not words, and reacts with noise to recent
needs.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from crops.world.catalogue import Catalogue
from crops.world.settings import Settings

SECOND_US = 1_000_000
# Where each group starts, and the videos group after group.
Shelf = tuple[ndarray, ndarray]


@dataclass(frozen=True, slots=True)
class Views:
    """Feed views of one day, all arrays [F]."""

    user: ndarray
    video: ndarray
    ts_us: ndarray
    clicked: ndarray
    liked: ndarray
    play_s: ndarray


class Shelves:
    """Videos by intent, subject and topic, as padded tables, so that a random one of each can be drawn at
    once.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        intent = catalogue.intent
        self.by_intent = _shelf(intent)
        self.by_subject = _shelf(catalogue.subject_of_intent[intent])
        self.by_topic = _shelf(catalogue.topic_of_intent[intent])

    @staticmethod
    def draw(shelf: Shelf, which: ndarray, rng: Generator) -> ndarray:
        """A random video of each group [F]; an empty group gives video 0's neighbour by wrap-around, never an
        error.
        """
        start, order = shelf
        size = np.maximum(1, start[which + 1] - start[which])
        return order[
            np.minimum(start[which] + (rng.random(len(which)) * size).astype(np.int64), len(order) - 1)
        ]


def _shelf(group: ndarray) -> Shelf:
    order = np.argsort(group, kind="stable")
    return np.searchsorted(group[order], np.arange(group.max() + 2)), order


def day(
    catalogue: Catalogue,
    shelves: Shelves,
    interests: ndarray,
    sessions: tuple[ndarray, ...],
    popularity: ndarray,
    day_us: int,
    settings: Settings,
    rng: Generator,
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
    grade = catalogue.grades(np.maximum(need[index], 0), video[:, None])[:, 0]
    likes_topic = (catalogue.topic_of_intent[catalogue.intent[video]][:, None] == liked_topics).any(axis=1)
    fit = np.maximum(np.where((need[index] >= 0) & (grade >= 2), grade, 0), likes_topic.astype(np.int8))
    clicked = rng.random(len(index)) < np.asarray(settings.feed_open_by_fit)[fit]
    mean = np.asarray(settings.watch_by_grade)[fit] * np.where(clicked, 1.0, 0.3)
    play_s = np.round(rng.beta(4 * mean, 4 * (1 - mean)) * catalogue.duration_s[video], 1)
    liked = clicked & (fit > 0) & (rng.random(len(index)) < settings.like_share)
    order = np.lexsort((video, user[index], ts_us))
    keys = np.stack([ts_us, user[index], video])[:, order]
    first = (
        order[np.concatenate([[True], (keys[:, 1:] != keys[:, :-1]).any(axis=0)])] if len(order) else order
    )
    return Views(*(column[first] for column in (user[index], video, ts_us, clicked, liked, play_s)))


def _visits(
    people: int, sessions: tuple[ndarray, ...], day_us: int, settings: Settings, rng: Generator
) -> tuple[ndarray, ...]:
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


def _choose(
    catalogue: Catalogue,
    shelves: Shelves,
    interests: ndarray,
    need: ndarray,
    popularity: ndarray,
    settings: Settings,
    rng: Generator,
) -> ndarray:
    size = len(need)
    edges = np.cumsum([settings.feed_need_share, settings.feed_subject_share, settings.feed_interest_share])
    # Without a need its share goes to interests and popular videos in their proportion.
    draw = np.where(need >= 0, rng.random(size), edges[1] + (1 - edges[1]) * rng.random(size))
    intent = np.maximum(need, 0)
    by_need = Shelves.draw(shelves.by_intent, intent, rng)
    by_subject = Shelves.draw(shelves.by_subject, catalogue.subject_of_intent[intent], rng)
    topic = interests[np.arange(size), rng.integers(0, interests.shape[1], size)]
    by_topic = Shelves.draw(shelves.by_topic, topic, rng)
    clicked = np.cumsum(popularity + 1.0)
    popular = np.searchsorted(clicked, rng.random(size) * clicked[-1], side="right")
    return np.select(
        [draw < edges[0], draw < edges[1], draw < edges[2]], [by_need, by_subject, by_topic], popular
    )
