"""Every number of the simulated world, each with its reason. None was chosen by looking at a retriever's recall."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How big the world is. `intents` are taken from the lexicon in a shuffled order."""

    searches: int
    users: int
    days: int
    intents: int
    videos_per_intent: int


SCALES = {
    "tiny": Scale(searches=3_000, users=300, days=6, intents=120, videos_per_intent=5),
    "small": Scale(searches=30_000, users=2_500, days=12, intents=500, videos_per_intent=6),
    "medium": Scale(searches=300_000, users=20_000, days=14, intents=945, videos_per_intent=12),
    "large": Scale(searches=5_000_000, users=300_000, days=14, intents=945, videos_per_intent=30),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Behaviour of people, engine and feed."""

    # Zipf exponent of how often an intent is wanted: query logs lie near 1; a little flatter, as intents group queries.
    intent_zipf: float = 0.8
    # Wordings of one intent that anybody ever types, and the Zipf exponent among them: few common ones, a long tail.
    wordings: int = 40
    wording_zipf: float = 0.9
    # Share of videos that carry phrases of searchers as related queries; platforms attach them to a minority.
    related_queries_share: float = 0.25

    # Engine: sizes of the lists, typical of a phone screen (10 shown) and shrunk, as the catalogue is, behind it.
    exposed: int = 10
    ranked: int = 6
    filtered: int = 4
    dense_width: int = 24
    # Noise on the dense path's document vectors: a trained retriever is good, not perfect. Ours.
    dense_noise: float = 0.35
    popularity_weight: float = 0.10
    click_feedback_weight: float = 0.5

    # Looking: probability to look at position p is (1 + p) ** -bias; eye tracking finds a steep fall in the first five.
    position_bias: float = 0.65
    # Click when looked at, by grade 0..3. With the bias above about 60 % of first searches get a click, the share that
    # KuaiSAR reports for its sessions (arXiv 2306.07705).
    click_by_grade: tuple[float, float, float, float] = (0.03, 0.12, 0.50, 0.68)
    # Share of a clicked video that is watched, by grade: a mean of a Beta distribution. Ours; long views are rare on misses.
    watch_by_grade: tuple[float, float, float, float] = (0.12, 0.30, 0.65, 0.80)
    like_share: float = 0.08
    # Watching this share of a video that fits (grade >= 2) ends the need.
    satisfied_share: float = 0.4
    # Without satisfaction people rephrase or leave; with it some search on for something else.
    reformulate: float = 0.60
    unrelated_next: float = 0.12
    max_rounds: int = 4
    # Seconds from one search to the next of the same person: lognormal with the median and the share within 90 s (58 %) of
    # the 355 gaps of the TREC 2013 Session track.
    gap_median_s: float = 72.0
    gap_sigma: float = 1.1

    # Feed: visits near a search session and apart from it, and what a visit holds. The feed knows what people watch and,
    # with a delay and noise, what they looked for; most of it follows long-term interests and popularity. Ours.
    feed_near_session: float = 0.6
    feed_visits_per_day: float = 0.6
    feed_views: int = 6
    feed_need_share: float = 0.14
    feed_subject_share: float = 0.10
    feed_interest_share: float = 0.46
    # Visits near a session start within this many minutes before or after it.
    feed_near_min: float = 28.0
    interests_per_user: int = 4


# Median length and spread of short videos in seconds; KuaiRand's durations have a median near half a minute.
DURATION_MEDIAN_S = 28.0
DURATION_SIGMA = 0.7
FIRST_DAY = "2026-01-05"
