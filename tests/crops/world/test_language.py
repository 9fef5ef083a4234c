"""Words: enough topics and intents, words that several topics share, and searchers who say it in other
words.
"""

from collections import Counter, defaultdict

import numpy as np

from crops.evaluation import rank, recall_at_k
from crops.tables import artifacts, records
from crops.text import document_text, normalise_query, script
from crops.world import language, lexicon, simulate
from crops.world.chinese import CHINESE
from crops.world.settings import SCALES, Settings


def test_at_least_60_topics_and_500_intents():
    words = lexicon.load()
    assert len(words.topics) >= 60
    assert len(set(words.topics)) == len(words.topics)
    assert len(words.intents) >= 500
    assert len({(x.topic, x.subject, x.facet) for x in words.intents}) == len(words.intents)
    assert SCALES["small"].intents >= 500
    assert max(s.intents for s in SCALES.values()) <= len(words.intents)


def test_head_words_stand_in_several_topics():
    topics = defaultdict(set)
    for intent in lexicon.load().intents:
        for word in intent.head:
            topics[word].add(intent.topic)
    shared = {word for word, where in topics.items() if len(where) > 1}
    assert len(shared) >= 20, sorted(shared)
    assert {"bow", "ring", "light"} <= shared


def test_every_intent_has_words_for_both_sides():
    for intent in lexicon.load().intents:
        assert all((intent.head, intent.subject, intent.subject_types, intent.facet, intent.facet_types)), (
            intent
        )
        assert intent.subject not in intent.subject_types, "searchers would only repeat the video's word"


def test_queries_are_normalised_distinct_and_never_the_avoided_one(tiny_world):
    queries = tiny_world.queries
    assert len(set(queries.texts)) == len(queries.texts)
    assert all(normalise_query(text) == text for text in queries.texts)
    rng = np.random.default_rng(0)
    intents = rng.integers(0, len(tiny_world.popularity), 5_000)
    first = queries.draw(intents, rng)
    again = queries.draw(intents, rng, avoid=first)
    assert (again != first).all()
    assert (queries.text_of[intents] == first[:, None]).any(axis=1).all()


def test_wordings_follow_their_weights(tiny_world):
    """Wordings of one intent are drawn in proportion to their weight; those with the same text add up."""
    queries, n = tiny_world.queries, 40_000
    drawn = Counter(queries.draw(np.zeros(n, dtype=np.int64), np.random.default_rng(1)).tolist())
    weight = Counter()
    for text, share in zip(queries.text_of[0].tolist(), queries.weight[0].tolist(), strict=True):
        weight[text] += share
    for text, share in weight.items():
        assert abs(drawn[text] - n * share) <= 5 * (n * share * (1 - share)) ** 0.5 + 1


def test_what_a_query_means_adds_up_to_one_and_some_mean_several_things(tiny_world):
    meant = tiny_world.queries.intent_share(tiny_world.popularity)
    assert set(meant) == set(range(len(tiny_world.queries.texts)))
    assert all(abs(sum(shares.values()) - 1) < 1e-9 for shares in meant.values())
    assert sum(len(shares) > 1 for shares in meant.values()) > 20


def test_searchers_mostly_use_other_words_than_the_videos(small_log):
    """A gap of words is what makes retrieval hard: the share of a query's words that its relevant videos
    hold.
    """
    world = simulate.make("small", seed=7)
    text = {
        f"v{i:06d}": f"{c} {' '.join(k)}"
        for i, (c, k) in enumerate(zip(world.videos.captions, world.videos.keywords, strict=True))
    }
    grades = small_log.frame(records.RELEVANCE)
    best = grades[grades["grade"] >= 2].groupby("query")["video_id"].first()
    overlap = [len(set(q.split()) & set(text[v].split())) / len(q.split()) for q, v in best.items()]
    assert 0.1 < np.mean(overlap) < 0.6
    assert np.mean(np.array(overlap) == 0) > 0.2


def test_same_rng_same_wordings():
    intents = lexicon.load().intents[:30]
    one, two = (language.make(intents, Settings(), np.random.default_rng(5)) for _ in range(2))
    assert one.texts == two.texts
    assert (one.text_of == two.text_of).all()


def test_the_chinese_world_is_as_rich_and_has_no_spaces():
    """Words for both sides, head characters of several topics, and no intent that two topics share."""
    words = lexicon.load(CHINESE)
    assert len(words.topics) >= 20
    assert len(words.intents) >= SCALES["tiny"].intents * 3
    assert len({(x.subject, x.facet) for x in words.intents}) == len(words.intents)
    assert all(x.subject not in x.subject_types for x in words.intents)
    topics = defaultdict(set)
    for intent in words.intents:
        for word in intent.head:
            topics[word].add(intent.topic)
    assert sum(len(where) > 1 for where in topics.values()) >= 5
    world = simulate.make("tiny", seed=0, language="zh")
    assert not any(" " in text for text in (*world.queries.texts, *world.videos.captions))
    assert script(world.queries.texts) == script(world.videos.captions) == "han"


def test_in_the_chinese_world_bm25_answers_most_queries(tmp_path):
    """Synonyms stay out of its reach, as they do in English."""
    simulate.write(tmp_path, scale="tiny", seed=0, language="zh")
    assert simulate.load(tmp_path / "world.json").language == "zh"
    rows = artifacts.read(tmp_path, records.VIDEOS).to_pylist()
    names = ("caption", "keywords", "cover_text", "related_queries")
    texts = [document_text(*(row[name] for name in names)) for row in rows]
    row_of = {row["video_id"]: n for n, row in enumerate(rows)}
    relevant = defaultdict(set)
    for grade in artifacts.read(tmp_path / "truth", records.RELEVANCE).to_pylist():
        if grade["grade"] >= 2:
            relevant[grade["query"]].add(row_of[grade["video_id"]])
    ranked = rank.bm25(list(relevant), texts, 100)
    assert (ranked[:, 0] >= 0).mean() > 0.95
    assert 0.5 < recall_at_k(ranked, list(relevant.values()), 100) < 0.95
