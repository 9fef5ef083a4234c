"""Each check has two forms, SQL and an expectation: on every row both must say the same."""

import datetime as dt

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crops.config.validate import ValidateConfig
from crops.validation import rules
from tests.crops.validation import small_log


def test_every_check_has_a_planted_fault_and_every_fault_a_check():
    asked = {
        (name, check.reason)
        for name, table in small_log.TABLES.items()
        for check in rules.checks(table, ValidateConfig())
    }
    assert asked == small_log.FAULTS.keys()


@pytest.mark.parametrize("batch_rows", [150, 1_000])
def test_great_expectations_calls_unexpected_what_duckdb_finds_bad(judged, batch_rows):
    """One planted fault a check. Counted each on its own, over batches of any size; the reasons sum up to the
    quarantine.
    """
    for name, checks, found, tallies in judged(small_log.faulty(), batch_rows=batch_rows):
        for check, tally in zip(checks, tallies, strict=True):
            assert tally.unexpected == found.failed[check.reason] >= 1, (name, check.reason)
        assert set(found.reasons) == {check.reason for check in checks}, name
        assert found.accepted + found.quarantined == found.read
        assert found.quarantined <= sum(found.failed.values())


def test_a_sound_log_has_nothing_unexpected(judged):
    for name, _, found, tallies in judged(small_log.rows()):
        assert found.reasons == {}, name
        assert not any(t.unexpected for t in tallies)
        assert max(t.looked_at for t in tallies) == found.read


def test_of_a_sample_every_bad_row_is_seen_and_the_same_ones_each_time(judged, tmp_path):
    cfg = ValidateConfig(rows_per_day_looked_at=5)
    log = small_log.faulty()
    first = [(t, f) for *_, f, t in judged(log, cfg, folder=tmp_path / "a")]
    again = [(t, f) for *_, f, t in judged(log, cfg, folder=tmp_path / "b")]
    counts = [
        [[(t.looked_at, t.unexpected) for t in tallies] for tallies, _ in found] for found in (first, again)
    ]
    assert counts[0] == counts[1]
    for tallies, found in first:
        assert [t.unexpected for t in tallies] == [*found.failed.values()]
    looked_at = max(t.looked_at for t in first[2][0])
    assert first[2][1].quarantined <= looked_at < first[2][1].read


IDS = st.sampled_from([None, "", "s00000", "s00001", "s00002", "other"])
FLAGS = st.sampled_from([None, True, False])
PLAYS = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, -0.0, 86_400.0, 86_401.0]))
TIMES = st.one_of(
    st.none(), st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2261, 1, 1), timezones=st.just(dt.UTC))
)
RESULT = st.fixed_dictionaries(
    {
        "search_id": IDS,
        "video_id": st.sampled_from([None, "v000", "v001", "bad", "late", "nowhere"]),
        "stage": st.sampled_from([None, "exposed", "ranked", "filtered", "shown", ""]),
        "position": st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
        "clicked": FLAGS,
        "liked": FLAGS,
        "play_s": PLAYS,
        "paths": st.none(),
        "date": st.sampled_from(["2026-01-05", "2026-01-06"]),
    }
)
SEARCH = st.fixed_dictionaries(
    {
        "search_id": IDS,
        "user_id": IDS,
        "ts": TIMES,
        "query": st.one_of(st.none(), st.text(max_size=6), st.just("\x1c\u2003\u3000")),
        "arm": st.sampled_from([None, "control", "treatment", "Control"]),
        "date": st.just("2026-01-05"),
    }
)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(results=st.lists(RESULT, min_size=1, max_size=40), searches=st.lists(SEARCH, max_size=20))
def test_the_two_agree_on_any_rows(judged, tmp_path_factory, results, searches):
    log = small_log.faulty()
    log["results"], log["searches"] = results, log["searches"] + searches
    for name, checks, found, tallies in judged(log, folder=tmp_path_factory.mktemp("log") / "logs"):
        seen = {c.reason: t.unexpected for c, t in zip(checks, tallies, strict=True)}
        assert seen == found.failed, name
        assert found.accepted + found.quarantined == found.read
