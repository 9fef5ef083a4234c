"""The clocks of the two logs: shifts are found with their size, both ways; sound logs raise no alarm."""

import re

import numpy as np
import pyarrow as pa
import pytest

from crops.config.augment import AugmentConfig
from crops.config.validate import ValidateConfig
from crops.stages.logs import augment, validate
from crops.tables import artifacts, records
from crops.validation import clocks
from crops.world import simulate
from tests.crops.validation import foreign

SEEDS = range(20)


def times(folder, table):
    rows = artifacts.read(folder, table, ["user_id", "ts"])
    return rows["user_id"].to_numpy(), rows["ts"].cast(pa.int64()).to_numpy() / 1e6


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Searches and feed of small simulated worlds."""
    found = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp(f"world{seed}")
        simulate.write(folder, scale="tiny", seed=seed)
        found.append((times(folder, records.SEARCHES), times(folder, records.FEED)))
    return found


def test_no_alarm_on_twenty_sound_worlds(worlds):
    assert [clocks.by_visits(*one) for one in worlds] == [None] * len(worlds)
    assert [clocks.by_hours(searches[1], feed[1]) for searches, feed in worlds] == [None] * len(worlds)


@pytest.mark.parametrize("shift_s", [180, -180, 8 * 3_600, -8.5 * 3_600, 12 * 3_600])
def test_every_shift_is_found_with_its_size(worlds, shift_s):
    for searches, (users, at_s) in worlds:
        lag = clocks.by_visits(searches, (users, at_s + shift_s))
        assert lag is not None
        assert abs(lag.seconds - shift_s) < 75
        assert ("later" if shift_s > 0 else "earlier") in lag.words


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("shift_s", [0, 180, -180, -8.5 * 3_600])
def test_people_who_only_watch_after_or_before_their_search_have_sound_clocks(side, shift_s):
    """A shop: to the home page after a search, half an hour on the average; only a shift is one."""
    chance = np.random.default_rng(0)
    users = np.array([f"u{n}" for n in range(1_000)])[chance.integers(0, 1_000, 8_000)]
    at_s = chance.uniform(0, 14 * 86_400, 8_000)
    views = at_s + side * (20 + chance.exponential(1_500, 8_000)) + shift_s
    lag = clocks.by_visits((users, at_s), (users[::2], views[::2]))
    if shift_s:
        assert abs(lag.seconds - shift_s) < 75
    else:
        assert lag is None


def test_users_that_never_meet_and_few_rows_tell_nothing():
    """Chance alone, whatever the hours; and two users are too few."""
    chance = np.random.default_rng(0)
    users = np.array([f"u{n}" for n in range(500)])
    log = users[chance.integers(0, 500, 20_000)], chance.uniform(0, 30 * 86_400, 20_000)
    other = users[chance.integers(0, 500, 20_000)], chance.uniform(0, 30 * 86_400, 20_000)
    assert clocks.by_visits(log, other) is None
    assert clocks.by_visits((users[:2], np.zeros(2)), (users[:2], np.full(2, 9_000.0))) is None


def test_without_a_common_user_the_hours_of_the_day_tell():
    """People search most at 20 h; the other log's day is the same, five hours on, as a zone would make it."""
    chance = np.random.default_rng(0)
    hours = chance.normal(20, 3, 5_000) % 24 * 3_600 + chance.integers(0, 9, 5_000) * 86_400
    lag = clocks.by_hours(hours, hours + 5 * 3_600)
    assert lag.seconds == 5 * 3_600
    assert clocks.by_hours(hours, hours[::2] + 1_800) is None


def test_validate_says_it_and_counts_rows_that_changed_their_day(tmp_path):
    """The whole way, with the feed 8 h late: rows that change their day are in quarantine and still count."""
    simulate.write(tmp_path / "logs", scale="tiny", seed=1)

    def change(table):
        moved = pa.array(table["ts"].cast(pa.int64()).to_numpy() + 8 * 3_600 * 1_000_000)
        return foreign.put(table, "ts", moved.cast(records.TS))

    foreign.rewrite(tmp_path / "logs", "feed", change)
    report = validate.run(tmp_path / "logs", tmp_path / "valid", ValidateConfig(max_bad_share=1.0))
    assert any(note.startswith("feed against searches: the feed's times look 8.0 h") for note in report.notes)
    told = artifacts.read_json(tmp_path / "valid" / "validation.json")
    assert abs(told["feed_after_searches_s"] - 8 * 3_600) < 75


def test_a_perspective_that_is_there_and_yields_next_to_nothing_is_named(tmp_path):
    """The feed knows people by other ids, all but one in 300 views's."""
    simulate.write(tmp_path / "logs", scale="tiny", seed=1)
    assert augment.run(tmp_path / "logs", tmp_path / "sound", AugmentConfig()).notes == ()

    def change(table):
        users = [u if n % 300 == 0 else f"device-{u}" for n, u in enumerate(table["user_id"].to_pylist())]
        return foreign.put(table, "user_id", pa.array(users))

    foreign.rewrite(tmp_path / "logs", "feed", change)
    (note,) = augment.run(tmp_path / "logs", tmp_path / "mined", AugmentConfig()).notes
    assert re.fullmatch(
        r"feed: next to nothing, \d+ from 2,\d+ searches; do the user ids and .* agree\?", note
    )
