"""What the numbers of a first look mean: which perspectives they feed, what each would need, whether the log
is enough, the next command, and all of it as lines for the terminal.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from crops import perspectives
from crops.adapters.columns import proposal

# A perspective that brings less than this per search is there in name only; the share of augment's notes.
LEAST_PER_SEARCH = 0.02
# Where this share of the times is exactly midnight, the log knows days and no times.
DAYS_ONLY = 0.9
FEW_VIDEOS = 2_000  # with fewer, a twentieth of the catalogue and more is in the first hundred
SHOWN = 8  # notes and columns on the terminal

Found = Mapping[str, Any]


def rows(look: Found) -> list[dict[str, Any]]:
    """One per perspective: name, can ("yes", "little", "no", "with an LLM"), events that were found, and what
    it would need where it has not enough.
    """
    named = {
        perspectives.CLICK.name: _click,
        perspectives.REFORMULATION.name: _reformulation,
        perspectives.FEED.name: _feed,
        perspectives.KNOWLEDGE.name: _knowledge,
        perspectives.EXPOSED.name: _stage,
        perspectives.RANKED.name: _stage,
        perspectives.FILTERED.name: _stage,
    }
    return [_row(look, p, named.get(p.name, _registered)(look, p)) for p in perspectives.every()]


def _row(look: Found, p: perspectives.Perspective, told: tuple[int | None, str]) -> dict[str, Any]:
    events, needs = told
    if events is None:
        return {"name": p.name, "can": "with an LLM", "events": None, "needs": needs}
    enough = LEAST_PER_SEARCH * look["search"]["searches"] if p.positive else 1
    can = "no" if not events else "little" if events < enough else "yes"
    return {"name": p.name, "can": can, "events": events, "needs": "" if can == "yes" else needs}


def _click(look: Found, _p: perspectives.Perspective) -> tuple[int, str]:
    search = look["search"]
    if "results" in look["missing"]:
        return 0, "the table results: which video was shown and clicked in which search"
    if search["of_unknown_searches"] > search["results"] / 2:
        return look["mined"].get("click", 0), "the same search_id in results as in searches"
    return look["mined"].get("click", 0), "clicked or liked true in results"


def _reformulation(look: Found, _p: perspectives.Perspective) -> tuple[int, str]:
    search, mined = look["search"], look["mined"]
    if search["searches"] and search["at_midnight"] >= DAYS_ONLY * search["searches"]:
        return mined.get("reformulation", 0), "times to the second: those of this log are days"
    if not mined.get("gaps"):
        return (0, "one user_id (or session id) on all searches of a person: here everybody searches once")
    if not mined["gaps_within_window"]:
        return 0, "searches of one user within the window (reformulation.window_s, 90 s): here are none"
    return mined["reformulation"], "searches in other words whose results were clicked, liked or played"


def _feed(look: Found, _p: perspectives.Perspective) -> tuple[int, str]:
    if "feed" in look["missing"]:
        return 0, "the table feed: what the people who search looked at outside of the search, and when"
    if not look["feed"]["users_who_search"]:
        return 0, "the user ids of the searches: no user of the feed searches"
    return look["mined"].get("feed", 0), "views within the half hour around a search: do both clocks agree?"


def _knowledge(_found: Found, _p: perspectives.Perspective) -> tuple[None, str]:
    return None, "an LLM: `--llm URL` (OpenAI-compatible) or `--llm local`"


def _stage(look: Found, p: perspectives.Perspective) -> tuple[int, str]:
    words = {
        perspectives.EXPOSED.name: "shown and not clicked: without it θ learns from random videos alone",
        perspectives.RANKED.name: "results with stage ranked: what the engine ranked and did not show",
        perspectives.FILTERED.name: "results with stage filtered: what the engine dropped before ranking",
    }
    search = look["search"]
    return search[p.name] - (search["clicked"] if p is perspectives.EXPOSED else 0), words[p.name]


def _registered(look: Found, p: perspectives.Perspective) -> tuple[int, str]:
    return look["tables"].get(p.table, {}).get("usable", 0), f"the table {p.table}"


def commands(look: Found) -> list[str]:
    """What to type next."""
    logs = look["logs"]
    if "files" in look:
        return [_import(look)]
    if any(table["faults"] for table in look["tables"].values()) or {"searches", "results", "videos"} & {
        *look["missing"]
    }:
        return [f"crops validate --logs {logs} --out checked"]
    enough, first = look["enough"], f"crops run --logs {logs} --out runs/first"
    days = enough["test_days_for_min_queries"]
    if enough["answer"] == "no" and days and enough["test_days"] < days < look["days"]["count"]:
        return ["crops config > my.yaml", f"{first} --config my.yaml  # with augment.test_days: {days}"]
    return [first]


def _import(look: Found) -> str:
    """Which of the files is the log: the one whose columns are known, of several the largest. Files like it
    are taken together; another one that shares a column with it is what can be found.
    """
    maps = {file["file"]: proposal(file["columns"]) for file in look["files"]}
    log = min(look["files"], key=lambda file: (maps[file["file"]].count("COLUMN"), -file["bytes"]))
    others = [file for file in look["files"] if file["columns"] != log["columns"]]
    several = len(look["files"]) > 1 and not others
    shared = [file for file in others if {*file["columns"]} & {*log["columns"]}]
    source = look["logs"] if several else log["file"]
    if len(shared) != 1:
        return f"crops import table {source} --out logs --map {maps[log['file']]}"
    map_of_both = proposal(log["columns"], videos=shared[0]["columns"])
    return f"crops import table {source} --videos {shared[0]['file']} --out logs --map {map_of_both}"


def lines(look: Found) -> Iterator[str]:
    """The first look on the terminal."""
    if "files" in look:
        yield f"{look['logs']}: none of our tables, but files that `crops import table` can read"
        for file in look["files"][:SHOWN]:
            yield f"  {file['file']}: {', '.join(file['columns'])}"
    else:
        yield from _tables(look)
        yield from _what_is_in_it(look)
        yield "perspectives"
        for row in look["perspectives"]:
            events = "" if row["events"] is None else f"{row['events']:,}"
            needs = f"  needs {row['needs']}" if row["needs"] else ""
            yield f"  {row['name']:<14} {row['can']:<12}{events:>13}{needs}"
        yield from _enough(look)
    yield "next"
    yield from (f"  {command}" for command in look["next"])


def _tables(look: Found) -> Iterator[str]:
    yield f"tables of {look['logs']}"
    for name, table in look["tables"].items():
        unusable = table["rows"] - table["usable"]
        more = f", {unusable:,} of them not usable (`crops validate` says why)" if unusable else ""
        absent = f"; without {', '.join(table['absent_columns'])}" if table["absent_columns"] else ""
        yield f"  {name:<10} {table['rows']:>13,} rows{more}{absent}"
        yield from (f"  {'':<10} cannot be read: {fault}" for fault in table["faults"][:SHOWN])
    yield from (f"  {name:<10} missing" for name in look["missing"])
    yield from (f"  note: {note}" for note in look["notes"][:SHOWN])


def _what_is_in_it(look: Found) -> Iterator[str]:
    search, catalogue, days = look["search"], look["catalogue"], look["days"]
    searches, results, touched = search["searches"], search["results"], search["searches_touched"]
    each = f"{search['exposed'] / searches:.1f} a search" if searches else ""
    counted = {
        "days": (days["count"], f"{days['first']} to {days['last']}" if days["count"] else ""),
        "searches": (searches, f"by {search['users']:,} users, {search['queries']:,} different"),
        "shown": (search["exposed"], each),
        "clicks": (search["clicked"], f"{_percent(search['clicked'], search['exposed'])} of what was shown"),
        "likes": (search["liked"], ""),
        "plays": (search["played"], ""),
        "touched": (touched, f"searches with a click, like or play: {_percent(touched, searches)}"),
        "videos": (catalogue["videos"], f"{catalogue['without_text']:,} without any text"),
    }
    yield "what is in it"
    for name, (number, words) in counted.items():
        yield f"  {name:<10} {number:>13,}  {words}".rstrip()
    for name in ("searches", "videos"):
        if lost := search[f"of_unknown_{name}"]:
            yield f"  note: {_percent(lost, results)} of the results name {name} that are not in the table"
    for name, shares in look["scripts"].items():
        words = ", ".join(f"{script or 'no letters'} {100 * share:.1f} %" for script, share in shares.items())
        yield f"  scripts of {name}: {words or 'unknown'}"


def _enough(look: Found) -> Iterator[str]:
    enough = look["enough"]
    yield f"enough to tell? {enough['answer']}"
    yield (
        f"  held out ({enough['test_days']} day(s)): {enough['queries_reformulated']:,} reformulated queries "
        f"({enough['queries_independent']:,} independent), {enough['queries_clicked']:,} clicked ones"
    )
    if enough["queries_reformulated"] < enough["min_queries"]:
        yield f"  with fewer than {enough['min_queries']} the gate's verdict is unknown"
    if 0 < (videos := look["catalogue"]["videos"]) < FEW_VIDEOS:
        share = _percent(min(100, videos), videos)
        yield f"  recall@100 looks at {share} of {videos:,} videos and tells little: see recall@20"
    if enough["smallest_difference"]:
        points = 100 * enough["smallest_difference"]
        yield f"  smallest difference in recall that would be seen: {points:.1f} points"
    for name, words in (("min_queries", "a verdict"), ("3_points", "a difference of 3 points")):
        days = enough[f"test_days_for_{name}"]
        if days and days > enough["test_days"]:
            yield f"  for {words}: hold out {days:,} days like these (augment.test_days)"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "no share"
