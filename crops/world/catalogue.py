"""The videos: which intent each answers, what its texts say, and how relevant any video is to any intent."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from crops.world.lexicon import ENGLISH, Intent, Lexicon, Tongue, pick, words
from crops.world.settings import DURATION_MEDIAN_S, DURATION_SIGMA, FIRST_DAY, Scale, Settings

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Videos in id order. Arrays are [V]; `intent` indexes `intents`; `subject` and `topic` are ids for
    grading.
    """

    intents: tuple[Intent, ...]
    intent: ndarray
    subject_of_intent: ndarray
    topic_of_intent: ndarray
    duration_s: ndarray
    quality: ndarray
    captions: list[str]
    keywords: list[list[str]]
    covers: list[str]
    related: list[list[str]]
    uploaded_us: ndarray

    @property
    def ids(self) -> list[str]:
        """v000000, v000001, ..."""
        return [f"v{i:06d}" for i in range(len(self.intent))]

    def grades(self, intents: ndarray, videos: ndarray) -> ndarray:
        """Relevance 0..3 of videos [N, K] to intents [N]: 3 same intent and well made, 2 same intent, 1 same
        subject, else 0.
        """
        theirs = self.intent[videos]
        same_subject = self.subject_of_intent[theirs] == self.subject_of_intent[intents][:, None]
        same_intent = theirs == intents[:, None]
        return np.where(
            same_intent, np.where(self.quality[videos] > 0.6, 3, 2), np.where(same_subject, 1, 0)
        ).astype(np.int8)

    def columns(self) -> dict[str, Any]:
        """Those of the table `videos`."""
        authors = [f"a{(i * 7919) % max(1, len(self.intent) // 8):05d}" for i in range(len(self.intent))]
        return {
            "video_id": self.ids,
            "caption": self.captions,
            "keywords": self.keywords,
            "cover_text": self.covers,
            "related_queries": self.related,
            "author_id": authors,
            "duration_s": self.duration_s.astype(np.float32),
            "uploaded_at": self.uploaded_us,
        }


def choose_intents(lexicon: Lexicon, count: int, rng: Generator) -> tuple[Intent, ...]:
    """`count` intents; whole subjects at a time, so that a chosen subject has all of its facets."""
    subjects: dict[tuple[int, str], list[Intent]] = {}
    for intent in lexicon.intents:
        subjects.setdefault((intent.topic, intent.subject), []).append(intent)
    groups = list(subjects.values())
    order = rng.permutation(len(groups))
    return tuple(intent for g in order for intent in groups[g])[:count]


def make(
    intents: tuple[Intent, ...], scale: Scale, settings: Settings, rng: Generator, tongue: Tongue = ENGLISH
) -> Catalogue:
    """Videos per intent are Poisson around the scale's mean, at least one; texts use the words of videos, not
    of searchers.
    """
    counts = np.maximum(1, rng.poisson(scale.videos_per_intent, len(intents)))
    intent = np.repeat(np.arange(len(intents)), counts)
    subjects = {key: i for i, key in enumerate(dict.fromkeys((x.topic, x.subject) for x in intents))}
    texts = [video_texts(intents[i], settings, rng, tongue) for i in intent]
    first_us = int(np.datetime64(FIRST_DAY, "us").astype(np.int64))
    return Catalogue(
        intents=intents,
        intent=intent,
        subject_of_intent=np.array([subjects[(x.topic, x.subject)] for x in intents]),
        topic_of_intent=np.array([x.topic for x in intents]),
        duration_s=np.clip(
            rng.lognormal(np.log(DURATION_MEDIAN_S), DURATION_SIGMA, len(intent)), 5, 300
        ).round(1),
        quality=rng.random(len(intent)),
        captions=[t[0] for t in texts],
        keywords=[t[1] for t in texts],
        covers=[t[2] for t in texts],
        related=[t[3] for t in texts],
        uploaded_us=first_us - rng.integers(1, 200 * DAY_US, len(intent)),
    )


def video_texts(
    intent: Intent, settings: Settings, rng: Generator, tongue: Tongue = ENGLISH
) -> tuple[str, list[str], str, list[str]]:
    """Caption, keywords, cover text and related queries of one video."""
    gap, covers = tongue.space, words(tongue.covers)
    opener = pick(("", "", *words(tongue.openers)), rng)
    closer = pick(("", "", "", *words(tongue.closers)), rng)
    body = (
        f"{intent.subject}{gap}{intent.facet}"
        if rng.random() < 0.75
        else f"{intent.facet}:{gap}{intent.subject}"
    )
    if (
        rng.random() < settings.caption_vague_share
    ):  # a caption that says little, as many do; the keywords may still tell
        body = intent.head[0]
    keywords = [intent.subject] if rng.random() < settings.keyword_subject_share else []
    if rng.random() < settings.keyword_facet_share:
        keywords.append(intent.facet)
    if rng.random() < settings.keyword_head_share:
        keywords.append(pick(intent.head, rng))
    cover = ""
    if rng.random() < settings.cover_share:
        cover = f"{intent.subject}{gap}{pick(covers, rng)}" if rng.random() < 0.5 else pick(covers, rng)
    related = []
    if rng.random() < settings.related_queries_share:
        related = [f"{pick(intent.subject_types, rng)}{gap}{pick(intent.facet_types, rng)}"]
    return gap.join(filter(None, (opener, body, closer))), keywords, cover, related
