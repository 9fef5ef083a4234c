"""The recommendation feed: it knows people and what they watch, not words, and reacts with noise to recent needs."""

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
    liked: np.ndarray
    play_s: np.ndarray


class Shelves:
    """Videos by intent, subject and topic, as padded tables, so that a random one of each can be drawn at once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.by_intent = _shelf(catalogue.intent, len(catalogue.intents))
        self.by_subject = _shelf(catalogue.subject_of_intent[catalogue.intent], int(catalogue.subject_of_intent.max()) + 1)
        self.by_topic = _shelf(catalogue.topic_of_intent[catalogue.intent], int(catalogue.topic_of_intent.max()) + 1)

    @staticmethod
    def draw(shelf: tuple[np.ndarray, np.ndarray], which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random video of each group [F]; an empty group gives video 0's neighbour by wrap-around, never an error."""
        start, order = shelf
        size = np.maximum(1, start[which + 1] - start[which])
        return order[np.minimum(start[which] + (rng.random(len(which)) * size).astype(np.int64), len(order) - 1)]


def _shelf(group: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(group, kind="stable")
    return np.searchsorted(group[order], np.arange(groups + 1)), order


def day(
    catalogue: Catalogue, shelves: Shelves, interests: np.ndarray, sessions: tuple[np.ndarray, np.ndarray, np.ndarray],
    day_us: int, settings: Settings, rng: np.random.Generator,
) -> Views:  # fmt: skip
    """One day of the feed.

    interests  int [U, I]  topics a user likes
    sessions   user, intent and start (microseconds) of the day's search sessions, each [S]
    """
    user, intent, start_us = sessions
    near = np.flatnonzero(rng.random(len(user)) < settings.feed_near_session)
    offset_us = (rng.uniform(-1, 1, len(near)) * settings.feed_near_min * 60 * SECOND_US).astype(np.int64)
    others = rng.poisson(settings.feed_visits_per_day * len(interests))
    other_user = rng.integers(0, len(interests), others)
    other_us = day_us + (rng.random(others) * 86_400 * SECOND_US).astype(np.int64)
    visit_user = np.concatenate([user[near], other_user])
    visit_us = np.concatenate([start_us[near] + offset_us, other_us])
    visit_need = np.concatenate([intent[near], np.full(others, -1)])
    count = 1 + rng.poisson(settings.feed_views - 1, len(visit_user))
    index = np.repeat(np.arange(len(visit_user)), count)
    ts_us = visit_us[index] + (rng.random(len(index)) * 240 * SECOND_US).astype(np.int64)
    last_us = day_us + 86_400 * SECOND_US - 1
    video = _choose(catalogue, shelves, interests[visit_user[index]], visit_need[index], settings, rng)
    play_s = np.round(rng.beta(2, 2, len(index)) * catalogue.duration_s[video], 1)
    liked = rng.random(len(index)) < settings.like_share
    return Views(visit_user[index], video, np.clip(ts_us, day_us, last_us), liked, play_s)


def _choose(
    catalogue: Catalogue, shelves: Shelves, interests: np.ndarray, need: np.ndarray, settings: Settings, rng: np.random.Generator
) -> np.ndarray:
    size = len(need)
    draw = np.where(need >= 0, rng.random(size), 0.3 + 0.7 * rng.random(size))
    known = np.maximum(need, 0)
    by_need = Shelves.draw(shelves.by_intent, known, rng)
    by_subject = Shelves.draw(shelves.by_subject, catalogue.subject_of_intent[known], rng)
    topic = interests[np.arange(size), rng.integers(0, interests.shape[1], size)]
    by_topic = Shelves.draw(shelves.by_topic, topic, rng)
    # Popular ones: the cube puts most of the weight on few videos.
    popular = (rng.random(size) ** 3 * len(catalogue.intent)).astype(np.int64)
    edges = np.cumsum([settings.feed_need_share, settings.feed_subject_share, settings.feed_interest_share])
    return np.select([draw < edges[0], draw < edges[1], draw < edges[2]], [by_need, by_subject, by_topic], popular)
