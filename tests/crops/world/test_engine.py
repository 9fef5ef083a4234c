"""The incumbent: two sorts of it, the bubble it makes, and how its own clicks feed it."""

import numpy as np
import pytest

from crops.tables import records
from crops.world import simulate
from crops.world.engine import Engine
from crops.world.settings import Settings


def _engine(world: simulate.World, incumbent: str) -> Engine:
    return Engine(
        world.videos,
        world.queries.texts,
        incumbent,
        world.settings,
        np.random.default_rng([world.seed, simulate.ENGINE]),
    )


def test_the_lexical_engine_finds_words_and_nothing_else(tiny_world):
    """By hand, through the texts: whatever the path `lexical` brought shares a word with the query, and what
    the path `popular` fills up does not.
    """
    engine = _engine(tiny_world, "lexical")
    asked = np.arange(0, len(tiny_world.queries.texts), 7)
    videos, masks = engine.search(asked)
    assert set(np.unique(masks)) <= {1, 4}
    documents = tiny_world.videos
    for query, row, mask in zip(asked.tolist(), videos, masks, strict=True):
        words = set(tiny_world.queries.texts[query].split())
        for video, path in zip(row.tolist(), mask.tolist(), strict=True):
            parts = (
                documents.captions[video],
                *documents.keywords[video],
                documents.covers[video],
                *documents.related[video],
            )
            own = set(" ".join(parts).lower().replace(":", " ").split())
            assert bool(words & own) == (path == 1), (words, own, path)


def test_the_dense_path_brings_what_shares_no_word(paths_log, lexical_log):
    paths = paths_log.frame(records.RESULTS)["paths"].map(tuple)
    assert {"lexical", "dense", "popular"} >= {p for row in paths.unique() for p in row}
    assert (paths.map(lambda row: row == ("dense",))).mean() > 0.05
    assert (paths.map(lambda row: row == ("lexical", "dense"))).mean() > 0.05
    assert not lexical_log.frame(records.RESULTS)["paths"].map(lambda row: "dense" in row).any()


def test_incumbents_differ_in_what_they_show(tiny_world):
    asked = np.arange(len(tiny_world.queries.texts))
    one, two = (_engine(tiny_world, name).search(asked)[0][:, :10] for name in ("lexical", "paths"))
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(one.tolist(), two.tolist(), strict=True)])
    assert overlap < 0.8


@pytest.mark.parametrize("incumbent", ["lexical", "paths"])
def test_a_click_lifts_the_video_for_the_query_and_decays(tiny_world, incumbent):
    engine, query = _engine(tiny_world, incumbent), np.array([3])
    before = engine.search(query)[0][0]
    last = before[-1]
    clicks = np.full(20, last)
    engine.learn(np.full(20, 3), clicks)
    after = engine.search(query)[0][0]
    assert list(after).index(last) < len(before) - 1
    assert engine.popularity[last] == 20
    engine.learn(np.array([5]), np.array([0]))
    assert engine.popularity[last] == pytest.approx(20 * Settings().daily_decay)


def test_a_day_without_clicks_changes_nothing(tiny_world):
    engine, asked = _engine(tiny_world, "paths"), np.arange(50)
    before = engine.search(asked)
    engine.learn(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    assert all((a == b).all() for a, b in zip(before, engine.search(asked), strict=True))


def test_words_come_to_mean_what_was_clicked_only_with_a_dense_path(tiny_world):
    for incumbent, moves in (("paths", True), ("lexical", False)):
        engine = _engine(tiny_world, incumbent)
        before = engine.words.copy()
        engine.learn(np.array([3, 3]), np.array([5, 5]))
        assert bool((engine.words != before).any()) is moves


def test_answers_do_not_depend_on_who_else_asks(tiny_world):
    """Distinct queries are searched once and in groups: a query alone gets what it gets among all."""
    engine, asked = _engine(tiny_world, "paths"), np.arange(len(tiny_world.queries.texts))
    together = engine.search(asked)[0]
    for query in (0, 100, 777):
        assert (engine.search(np.array([query]))[0][0] == together[query]).all()
    assert (engine.search(np.array([9, 4, 9]))[0] == together[[9, 4, 9]]).all()


@pytest.mark.parametrize("log", ["paths_log", "lexical_log"])
def test_the_filter_bubble_arises(request, log):
    """Per query, a share of what is relevant was never shown to anybody: a model trained on clicks cannot
    learn it.
    """
    log = request.getfixturevalue(log)
    never, relevant = _never_shown(log)
    assert relevant > 1_000
    assert never / relevant > 0.25


def test_clicks_feed_back_so_that_lists_narrow(tiny_world):
    """Two engines answer the same searches for a week, one learns from its clicks: its lists move towards
    what was clicked, so that more of the next clicks go to videos that the query already had clicked.
    """
    repeats = {learns: _repeated_clicks(tiny_world, learns) for learns in (False, True)}
    assert repeats[True] > repeats[False] + 0.02


def test_a_crowded_intent_changes_what_the_lower_labels_mean(tmp_path, paths_log):
    """With 60 videos per intent and a pool of 20, what is shown but not clicked, ranked or filtered is mostly
    relevant.
    """
    crowded = tmp_path / "crowded"
    simulate.write(crowded, scale="tiny", seed=7, videos_per_intent=60)
    from tests.crops.world.conftest import Log

    few, many = _relevant_by_stage(paths_log), _relevant_by_stage(Log(crowded, {}))
    for stage in records.STAGES:
        assert many[stage] > few[stage] + 0.15, (stage, few, many)


def _graded(log):
    grades = log.frame(records.RELEVANCE)
    searches = log.frame(records.SEARCHES)[["search_id", "query"]]
    rows = log.frame(records.RESULTS).merge(searches, on="search_id")
    rows = rows[rows["query"].isin(set(grades["query"]))]
    return rows.merge(grades, on=["query", "video_id"], how="left").fillna({"grade": 0}), grades


def _never_shown(log) -> tuple[int, int]:
    rows, grades = _graded(log)
    shown = rows[rows["stage"] == "exposed"][["query", "video_id"]].drop_duplicates()
    relevant = grades[grades["grade"] >= records.RELEVANT_GRADE]
    found = relevant.merge(shown, on=["query", "video_id"])
    return len(relevant) - len(found), len(relevant)


def _relevant_by_stage(log) -> dict[str, float]:
    rows, _ = _graded(log)
    rows = rows[~rows["clicked"]]
    return (rows["grade"] >= records.RELEVANT_GRADE).groupby(rows["stage"]).mean().to_dict()


def _repeated_clicks(world: simulate.World, learns: bool) -> float:
    engine, seen, again, clicks = _engine(world, "paths"), set(), 0, 0
    for number in range(7):
        rng = np.random.default_rng([1, number])
        intent = rng.choice(len(world.popularity), 1_500, p=world.popularity)
        text = world.queries.draw(intent, rng)
        found = simulate._react(world, engine, intent, intent, intent, text, rng)
        row, column = np.nonzero(found["clicked"])
        pairs = list(zip(text[row].tolist(), found["videos"][row, column].tolist(), strict=True))
        again, clicks = again + sum(p in seen for p in pairs), clicks + len(pairs)
        seen |= set(pairs)
        if learns:
            engine.learn(text[row], found["videos"][row, column])
    return again / clicks
