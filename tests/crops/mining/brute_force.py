"""The miner written a second time, straight from the method's definitions: plain Python, every pair looked
at.

Nothing here is shared with crops.mining but the normalisation of text (tests/crops/test_text.py). Rows are
dicts of the tables in crops.tables.records; times are datetimes in UTC.
"""

import hashlib
from collections import defaultdict
from datetime import timedelta

from crops.text import document_text, normalise_query, wording

STAGES = ("exposed", "ranked", "filtered")


def _day(ts) -> str:
    return ts.strftime("%Y-%m-%d")


class Log:
    """A log and its settings; each method is one sentence of the definition."""

    def __init__(self, searches, results, feed, videos, cfg):
        self.cfg = cfg
        named = [{**s, "query": normalise_query(s["query"])} for s in searches]
        self.searches = [s for s in named if s["query"]]
        self.by_id = {s["search_id"]: s for s in self.searches}
        self.results = [r for r in results if r["search_id"] in self.by_id]
        self.feed = feed
        texts = {
            v["video_id"]: document_text(v["caption"], v["keywords"], v["cover_text"], v["related_queries"])
            for v in videos
        }
        self.documents = {video: text for video, text in texts.items() if text}
        self.days = sorted({_day(s["ts"]) for s in self.searches})
        self.train = self.days[: -cfg.test_days]
        self.test = self.days[-cfg.test_days :]
        self.valid = self.train[-cfg.valid_days :]

    def is_bot(self, search) -> bool:
        same = [
            s
            for s in self.searches
            if (s["user_id"], _day(s["ts"])) == (search["user_id"], _day(search["ts"]))
        ]
        return len(same) > self.cfg.max_searches_per_user_day

    def watched(self, row) -> bool:
        return (
            row["clicked"]
            or row["liked"]
            or (row["play_s"] is not None and row["play_s"] >= self.cfg.min_play_s)
        )

    def clicks(self):
        """(query, video, event, ts, day)."""
        for r in self.results:
            if r["clicked"] or r["liked"]:
                s = self.by_id[r["search_id"]]
                yield s["query"], r["video_id"], s["search_id"], s["ts"], _day(s["ts"])

    def reformulations(self):
        """(query, video, later query, event, ts of the later search, day of the first)."""
        people = [s for s in self.searches if not self.is_bot(s)]
        for first in people:
            for later in people:
                gap = later["ts"] - first["ts"]
                same_user = first["user_id"] == later["user_id"]
                near = timedelta(0) < gap <= timedelta(seconds=self.cfg.window_s)
                if same_user and near and wording(first["query"]) != wording(later["query"]):
                    for r in self.results:
                        if r["search_id"] == later["search_id"] and self.watched(r):
                            yield (
                                first["query"],
                                r["video_id"],
                                later["query"],
                                later["search_id"],
                                later["ts"],
                                _day(first["ts"]),
                            )

    def feed_events(self):
        """(query, video, user, first view), views and searches of the training days."""
        asked = [s for s in self.searches if not self.is_bot(s) and _day(s["ts"]) < self.test[0]]
        half = timedelta(seconds=self.cfg.feed_half_window_s)
        for query in sorted({s["query"] for s in asked}):
            users = {s["user_id"] for s in asked if s["query"] == query}
            drawn = sorted(users, key=lambda u, q=query: (hashlib.md5(f"{q}\t{u}".encode()).hexdigest(), u))
            for user in drawn[: self.cfg.feed_users_per_query]:
                times = [s["ts"] for s in asked if (s["query"], s["user_id"]) == (query, user)]
                gaps, firsts = {}, {}
                for view in self.feed:
                    if view["user_id"] != user or not self.watched(view) or _day(view["ts"]) >= self.test[0]:
                        continue
                    for gap in (abs(view["ts"] - t) for t in times):
                        if gap <= half:
                            video = view["video_id"]
                            gaps[video] = min(gaps.get(video, gap), gap)
                            firsts[video] = min(firsts.get(video, view["ts"]), view["ts"])
                for video in sorted(gaps, key=lambda v, g=gaps: (g[v], v))[: self.cfg.feed_videos_per_user]:
                    yield query, video, user, firsts[video]

    def stages(self):
        """(query, video, stage, first time, support), the most frequent per query and stage."""
        seen = defaultdict(list)
        for r in self.results:
            s = self.by_id[r["search_id"]]
            if _day(s["ts"]) < self.test[0] and not (r["clicked"] or r["liked"]):
                seen[s["query"], r["stage"], r["video_id"]].append(s["ts"])
        for query in {key[0] for key in seen}:
            for stage in STAGES:
                videos = sorted(
                    (-len(times), v) for (q, st, v), times in seen.items() if (q, st) == (query, stage)
                )
                for _, video in videos[: self.cfg.stage_videos_per_query]:
                    times = seen[query, stage, video]
                    yield query, video, stage, min(times), len(times)

    def candidates(self):
        events, times = defaultdict(set), {}

        def add(key, event, ts):
            events[key].add(event)
            times[key] = min(times.get(key, ts), ts)

        for query, video, event, ts, day in self.clicks():
            if day in self.train:
                add((query, video, "click", None), event, ts)
        for query, video, later_query, event, ts, day in self.reformulations():
            if day in self.train and _day(ts) < self.test[0]:
                add((query, video, "reformulation", later_query), event, ts)
        for query, video, user, ts in self.feed_events() if self.feed is not None else ():
            add((query, video, "feed", None), user, ts)
        rows = [(*key, times[key], len(found)) for key, found in events.items()]
        rows += [
            (query, video, stage, None, ts, support) for query, video, stage, ts, support in self.stages()
        ]
        return _sorted(row for row in rows if row[1] in self.documents)

    def queries(self):
        counts, users = defaultdict(lambda: [0, 0]), defaultdict(set)
        clicked = {event for _, _, event, _, _ in self.clicks()}
        for s in self.searches:
            key = s["query"], "test" if _day(s["ts"]) in self.test else "train"
            counts[key][0] += 1
            counts[key][1] += s["search_id"] in clicked
            users[key].add(s["user_id"])
        return _sorted((*key, *entry, len(users[key])) for key, entry in counts.items())

    def test_ct(self):
        return _sorted(
            {(q, v) for q, v, _, _, day in self.clicks() if day in self.test and v in self.documents}
        )

    def test_qr(self):
        found = self.reformulations()
        return _sorted(
            {(q, v, later) for q, v, later, _, _, day in found if day in self.test and v in self.documents}
        )

    def valid_qr(self):
        found = self.reformulations()
        return _sorted(
            {
                (q, v, later)
                for q, v, later, _, ts, day in found
                if day in self.valid and _day(ts) < self.test[0] and v in self.documents
            }
        )

    def tables(self) -> dict[str, list[tuple]]:
        """Every table that `augment` writes, as tuples in the order of its columns, sorted by its key (null
        last).
        """
        return {
            "candidates": self.candidates(),
            "documents": _sorted(self.documents.items()),
            "queries": self.queries(),
            "test_ct": self.test_ct(),
            "test_qr": self.test_qr(),
            "valid_qr": self.valid_qr(),
        }


def _sorted(rows) -> list[tuple]:
    return sorted(map(tuple, rows), key=lambda row: [(value is None, value) for value in row])
