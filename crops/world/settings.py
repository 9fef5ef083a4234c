"""Every number of the simulated world, each with its reason. None was chosen by looking at a retriever's
recall.
"""

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

    # Zipf exponent of how often an intent is wanted: query logs lie near 1; a little flatter, as intents
    # group queries.
    intent_zipf: float = 0.8
    # Wordings of one intent that anybody ever types, and the Zipf exponent among them: few common ones, a
    # long tail.
    wordings: int = 40
    wording_zipf: float = 0.9
    # Share of videos that carry phrases of searchers as related queries; platforms attach them to a minority.
    related_queries_share: float = 0.25
    # How an intent is put into words, and how often. Searchers rather use their own words than the videos';
    # about one query in six is too short to tell what is meant (short queries dominate mobile search).
    forms: tuple[tuple[str, float], ...] = (
        ("own full", 0.34),
        ("own subject", 0.24),
        ("own subject, video facet", 0.12),
        ("video words", 0.14),
        ("head facet", 0.10),
        ("head", 0.06),
    )
    # A word that says nothing of the topic ("best", "please") in a quarter of the wordings, and slips of the
    # finger in a few.
    modifier_share: float = 0.25
    slip_share: float = 0.03
    # A meaning of an ambiguous query counts as relevant from this share of those who type it. Below, as for
    # `bass`, nobody could say what is relevant, and a query without any such meaning has no grades.
    meaning_share: float = 0.15

    # Video texts: most captions name subject and facet, some say little, and keywords and cover text are
    # often missing.
    caption_vague_share: float = 0.12
    keyword_subject_share: float = 0.8
    keyword_facet_share: float = 0.5
    keyword_head_share: float = 0.4
    cover_share: float = 0.4

    # Activity of people falls as (rank + offset) ** -exponent: few heavy users, a long tail. Ours.
    activity_exponent: float = 0.7
    activity_offset: float = 20.0
    # Searches per session with the settings as they are, measured; the scale counts searches, a day draws
    # sessions.
    searches_per_session: float = 1.84
    # Two humps of a day, noon and evening: (share, hour, spread in hours).
    humps: tuple[tuple[float, float, float], ...] = ((0.4, 12.5, 2.5), (0.6, 20.5, 2.0))

    # Engine: sizes of the lists, typical of a phone screen (10 shown) and shrunk, as the catalogue is, behind
    # it.
    exposed: int = 10
    ranked: int = 6
    filtered: int = 4
    dense_width: int = 24
    # Noise on the dense path's document vectors: a trained retriever is good, not perfect. Ours.
    dense_noise: float = 0.35
    popularity_weight: float = 0.10
    click_feedback_weight: float = 0.5
    # Yesterday's clicks count this much today, for popularity and click memory alike: a memory of about ten
    # days.
    daily_decay: float = 0.9
    # How far one click moves a query's words towards the clicked video: how an engine learns from its own
    # clicks.
    word_learning: float = 0.05

    # Looking: probability to look at position p is (1 + p) ** -bias; eye tracking finds a steep fall in the
    # first five.
    position_bias: float = 0.65
    # Click when looked at, by grade 0..3. With the bias above about 60 % of search sessions hold a click, the
    # share that KuaiSAR reports (arXiv 2306.07705).
    click_by_grade: tuple[float, float, float, float] = (0.01, 0.05, 0.28, 0.40)
    # Share of a clicked video that is watched, by grade: a mean of a Beta distribution. Ours; long views are
    # rare on misses.
    watch_by_grade: tuple[float, float, float, float] = (0.12, 0.30, 0.65, 0.80)
    like_share: float = 0.08
    # Watching this share of a video that fits (grade >= 2) ends the need.
    satisfied_share: float = 0.4
    # Without satisfaction people rephrase or leave; with it some search on for something else.
    reformulate: float = 0.60
    unrelated_next: float = 0.12
    # An open need is given up for another one by a few.
    abandon: float = 0.05
    max_rounds: int = 4
    # Seconds from one search to the next of the same person: lognormal with the median and the share within
    # 90 s (58 %) of the 355 gaps of the TREC 2013 Session track.
    gap_median_s: float = 72.0
    gap_sigma: float = 1.1

    # Feed: visits near a search session and apart from it, and what a visit holds. The feed knows what people
    # watch and, once they have searched, with noise, what they looked for; most of it follows long-term
    # interests and what others click. Ours.
    feed_near_session: float = 0.6
    feed_visits_per_day: float = 0.6
    feed_views: int = 6
    feed_need_share: float = 0.14
    feed_subject_share: float = 0.10
    feed_interest_share: float = 0.46
    # Visits near a session start within this many minutes before or after it; only the later ones can know
    # the need.
    feed_near_min: float = 28.0
    # The feed plays by itself: people swipe away what does not fit. Shares opened, by fit 0..3: 2 and 3 are
    # the grades to a recent need, 1 is a topic the person likes.
    feed_open_by_fit: tuple[float, float, float, float] = (0.25, 0.55, 0.80, 0.90)
    interests_per_user: int = 4


# Median length and spread of short videos in seconds; KuaiRand's durations have a median near half a minute.
DURATION_MEDIAN_S = 28.0
DURATION_SIGMA = 0.7
FIRST_DAY = "2026-01-05"
