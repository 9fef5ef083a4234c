"""TREC 2013 Session track (sessiontrack2013.xml, NIST) to the tables: bytes in, Arrow tables out.

The file has no users, no feed and only relative times: user_id is `session:<num>` (nobody is known across
sessions); ts is START plus `<num>` hours plus the search's seconds, so 133 sessions lie on six days and the
last can be held out, while no two sessions mix (the reformulation window is 90 s). position is the order in
the list, 0-based: `rank` only names a result for its clicks. play_s is the time between a click's start and
end, summed; null where no end is known (`NA`).
"""

import datetime
import html
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa

from crops.errors import InputError
from crops.tables import records
from crops.text import normalise_query

START = datetime.datetime(2013, 1, 1, tzinfo=datetime.UTC)
# What others clicked for the same topic is weak evidence: relevant, never highly so.
CLICKED_GRADE = records.RELEVANT_GRADE


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The tables (searches and results with a string column `date`) and the weak truth."""

    searches: pa.Table
    results: pa.Table
    videos: pa.Table
    relevance: pa.Table


def clean(text: str | None) -> str:
    r"""Entities decoded a second time (the XML parser did the first), JSON's escapes undone, white space
    collapsed.

    >>> clean('Home\\/current \\"issue\\" &amp;raquo; &lt;b&gt;')
    'Home/current "issue" &raquo; <b>'
    """
    plain = re.sub(r'\\([/"])', r"\1", html.unescape(text or ""))
    return " ".join(
        re.sub(r"\\[rnt]", " ", plain).split()
    )  # \r, \n and \t are left only where white space stood


def convert(raw: bytes, source: str = "sessiontrack2013.xml") -> Converted:
    """Raises InputError, with `source`, where `raw` is not the track's XML or a value in it cannot be
    read.
    """
    try:
        root = ET.fromstring(raw)  # noqa: S314 - a file the user downloaded; expat refuses entity expansion attacks
        if root.tag != "sessiontrack2013":
            raise InputError(source, f"root element is <{root.tag}>, expected <sessiontrack2013>")
        sessions = [_session(session) for session in root.iter("session")]
    except ET.ParseError as error:
        raise InputError(source, f"not XML: {error}") from error
    except (KeyError, ValueError, OverflowError) as error:
        raise InputError(source, f"a session lacks or misstates a value: {error!r}") from error
    searches = [row for s in sessions for row in s["searches"]]
    results = [row for s in sessions for row in s["results"]]
    videos: dict[str, dict] = {}
    for row in (row for s in sessions for row in s["videos"]):
        # The same page comes with several snippets; the longest is the one that is never empty by chance.
        rival = videos.get(row["video_id"], row)
        videos[row["video_id"]] = max(rival, row, key=lambda r: (len(r["cover_text"]), r["cover_text"]))
    return Converted(
        searches=_table(sorted(searches, key=lambda r: (r["ts"], r["search_id"])), records.SEARCHES),
        results=_table(results, records.RESULTS),
        videos=_table([videos[key] for key in sorted(videos)], records.VIDEOS),
        relevance=_table(_weak_truth(sessions), records.RELEVANCE),
    )


def _session(session: ET.Element) -> dict:
    num = int(session.attrib["num"])
    topic = session.find("topic")
    rows: dict = {"searches": [], "results": [], "videos": []}
    last = 0
    for interaction in session.iter("interaction"):
        order = int(interaction.attrib["num"])
        last = max(last, order)
        search = _search(interaction, num, order)
        rows["searches"].append(search)
        _results(interaction, search, rows)
    closing = session.find("currentquery")
    if closing is not None and closing.get("starttime") is not None:
        rows["searches"].append(_search(closing, num, last + 1))
    return rows | {"topic": topic.attrib["num"] if topic is not None else f"session {num}"}


def _search(element: ET.Element, num: int, order: int) -> dict:
    ts = START + datetime.timedelta(hours=num, seconds=float(element.attrib["starttime"]))
    query = clean(element.findtext("query"))
    return {
        "search_id": f"{num}:{order}",
        "user_id": f"session:{num}",
        "ts": ts,
        "query": query,
        "date": f"{ts:%Y-%m-%d}",
    }


def _results(interaction: ET.Element, search: dict, rows: dict) -> None:
    plays: dict[str, list[float | None]] = {}
    for clicked in interaction.iter("click"):
        plays.setdefault((clicked.findtext("rank") or "").strip(), []).append(_seconds(clicked))
    listed: set[str] = set()
    for result in interaction.iter("result"):
        video_id = (result.findtext("clueweb12id") or "").strip()
        if not video_id or video_id in listed:
            continue
        rank = result.attrib["rank"]
        played = [s for s in plays.get(rank, []) if s is not None]
        rows["results"].append(
            {
                "search_id": search["search_id"],
                "video_id": video_id,
                "stage": "exposed",
                "position": len(listed),
                "clicked": rank in plays,
                "liked": False,
                "play_s": sum(played) if played else None,
                "date": search["date"],
            }
        )
        rows["videos"].append(
            {
                "video_id": video_id,
                "caption": clean(result.findtext("title")),
                "keywords": [],
                "cover_text": clean(result.findtext("snippet")),
                "related_queries": [],
            }
        )
        listed.add(video_id)


def _seconds(clicked: ET.Element) -> float | None:
    start, end = clicked.get("starttime", "NA"), clicked.get("endtime", "NA")
    return None if "NA" in (start, end) else max(0.0, float(end) - float(start))


def _weak_truth(sessions: list[dict]) -> list[dict]:
    """Every query of a topic with every document that OTHER sessions of the topic clicked.

    A session's own clicks are left out for its own queries: CT and QR are made of them already.
    """
    by_topic: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for i, s in enumerate(sessions):
        by_topic[s["topic"]] |= {(i, row["video_id"]) for row in s["results"] if row["clicked"]}
    pairs = {
        (normalise_query(search["query"]), video_id)
        for i, s in enumerate(sessions)
        for search in s["searches"]
        for j, video_id in by_topic[s["topic"]]
        if i != j
    }
    return [{"query": q, "video_id": v, "grade": CLICKED_GRADE} for q, v in sorted(pairs) if q]


def _table(rows: list[dict], table: records.Table) -> pa.Table:
    schema = table.schema.append(pa.field("date", pa.string())) if table.partitioned else table.schema
    return pa.Table.from_pylist(rows, schema=schema)
