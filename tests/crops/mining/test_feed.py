"""P2 by hand: whose views count, how near, and which of too many."""

import hashlib

import pyarrow as pa

from crops.mining import feed
from crops.tables import records
from tests.crops.mining.small_logs import arrow, at, search, view


def events(house, searches, views, *, max_users=10, max_videos=10, windows=None):
    asked = house.put(arrow(records.SEARCHES, searches), "asked")
    watched = feed.feed_views(house.put(arrow(records.FEED, views), "feed"), min_play_s=5.0)
    users = feed.users_of_query(asked, max_users=max_users)
    found = feed.around_searches(
        asked, users, watched, half_window_s=1800, max_videos=max_videos, windows=windows
    )
    return sorted((row["query"], row["event_id"], row["video_id"], row["ts"]) for row in house.fetch(found))


def test_half_an_hour_before_and_after_both_included(house):
    """Search at 10,000 s: views 1800 s before and after are in, 1 us further out on either side is not."""
    offsets = {"v1": -1800, "v2": 1800, "v3": -1800.000001, "v4": 1800.000001}
    found = events(
        house,
        [search("s", "u", at(10_000), "bread")],
        [view("u", v, at(10_000 + s)) for v, s in offsets.items()],
    )
    assert found == [("bread", "u", "v1", at(8_200)), ("bread", "u", "v2", at(11_800))]


def test_each_query_has_its_own_half_window(house):
    """a: 10 s, b: none of its own, so the longest. 10 s are within 10 s, 10.000001 s are not."""
    asked = [search("a", "u", at(9_000), "a"), search("b", "u", at(9_000), "b")]
    views = [view("u", "v1", at(9_010)), view("u", "v2", at(8_989.999999)), view("u", "v3", at(10_800))]
    own = house.put(pa.table({"query": ["a"], "window_s": pa.array([10], pa.int64())}), "own")
    found = [(query, video) for query, _user, video, _ts in events(house, asked, views, windows=own)]
    assert found == [("a", "v1"), ("b", "v1"), ("b", "v2"), ("b", "v3")]


def test_only_what_the_user_interacted_with(house):
    """Clicked, liked, or played 5 s; not a swipe of 4.9 s, not an unknown play, not another user's."""
    views = [
        view("u", "v1", at(9_000), clicked=False, play_s=5.0),
        view("u", "v2", at(9_000), clicked=False, play_s=4.9),
        view("u", "v3", at(9_000), clicked=False),
        view("u", "v4", at(9_000), clicked=False, liked=True),
        view("w", "v5", at(9_000)),
    ]
    assert [e[2] for e in events(house, [search("s", "u", at(9_000), "bread")], views)] == ["v1", "v4"]


def test_one_event_per_user_query_and_video(house):
    """Two searches and two views of v1 near both: one event, at the first view; rolls has its own."""
    searches = [
        search("a", "u", at(9_000), "bread"),
        search("b", "u", at(9_050), "bread"),
        search("c", "u", at(9_100), "rolls"),
    ]
    found = events(house, searches, [view("u", "v1", at(9_020)), view("u", "v1", at(8_990))])
    assert found == [("bread", "u", "v1", at(8_990)), ("rolls", "u", "v1", at(8_990))]


def test_cap_keeps_the_videos_closest_in_time(house):
    """Gaps 30, 20, 20 and 10 s with room for two: the 10 s one, and of the tie the smaller id."""
    gaps = {"v1": -30, "v3": 20, "v2": -20, "v4": 10}
    views = [view("u", v, at(9_000 + s)) for v, s in gaps.items()]
    found = events(house, [search("s", "u", at(9_000), "bread")], views, max_videos=2)
    assert [e[2] for e in found] == ["v2", "v4"]


def test_users_are_drawn_by_a_hash_whatever_the_order_and_activity(house):
    """Ten users of a query with room for three: the three smallest MD5 of query, tab, user; u0 searches fifty
    times.
    """
    users = [f"u{i}" for i in range(10)]
    rows = [search(f"s{i}", u, at(i), "bread") for i, u in enumerate([*users, *["u0"] * 50])]
    drawn = sorted(users, key=lambda u: hashlib.md5(f"bread\t{u}".encode()).hexdigest())[:3]
    for order in (rows, rows[::-1]):
        asked = house.put(
            arrow(records.SEARCHES, [*order, search("x", "u9", at(0), "rolls")]),
            f"asked_{order[0]['search_id']}",
        )
        found = house.fetch(feed.users_of_query(asked, max_users=3))
        assert sorted(r["user_id"] for r in found if r["query"] == "bread") == sorted(drawn)
        assert [r["user_id"] for r in found if r["query"] == "rolls"] == ["u9"]
