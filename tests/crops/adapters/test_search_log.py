"""Logs of other shapes through `crops import table`: what the tables hold, by hand, and what a wrong map is
told.
"""

import csv
import datetime
import gzip
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops.adapters.columns import ColumnMap
from crops.config.validate import ValidateConfig
from crops.errors import ConfigError, InputError
from crops.stages.base import StageReport
from crops.stages.logs import import_log, validate
from crops.tables import artifacts, records

SHOP = "query=q,user=uid,time=at,video=sku,position=rank,clicked=click,liked=bought,videos.caption=title"
START = datetime.datetime(2026, 3, 1, 9, tzinfo=datetime.UTC)


def _csv(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def _shop(folder: Path, *, days: int = 3, at: str = "{:.0f}") -> dict[str, Path]:
    """One row per shown product; 20 searches a day of 4 products each, ranks from 1, times in seconds."""
    rows = []
    for n in range(20 * days):
        ts = (START + datetime.timedelta(days=n // 20, minutes=n % 20)).timestamp()
        for place in range(4):
            sku = (n + place) % 10
            rows.append(f"lamp {n % 7},{n % 5},{at.format(ts)},{sku},{place + 1},{int(place == n % 4)},no")
    return {
        "log": _csv(folder / "shown.csv", "q,uid,at,sku,rank,click,bought", *rows),
        "videos": _csv(folder / "products.csv", "sku;title", *(f'{n};"lamp ""no"" {n}"' for n in range(10))),
    }


def _import(files: dict[str, Path], out: Path, *maps: str, values: tuple[str, ...] = ()) -> StageReport:
    more = {name: path for name, path in files.items() if name != "log"}
    return import_log.run_table(files["log"], out, ColumnMap.parse(maps, values), more)


def _rows(folder: Path, table: records.Table) -> list[dict]:
    return artifacts.read(folder, table).to_pylist()


def test_a_shop_with_a_row_per_shown_product_passes_validate(tmp_path):
    """20 searches a day, 4 products each: 60 searches and 240 results, of which none is refused."""
    report = _import(_shop(tmp_path), tmp_path / "logs", SHOP)
    assert {n: report.numbers[n] for n in ("searches", "results", "videos")} == {
        "searches": 60,
        "results": 240,
        "videos": 10,
    }
    checked = validate.run(tmp_path / "logs", tmp_path / "checked", ValidateConfig())
    assert checked.numbers["critical_failures"] == 0
    assert not (tmp_path / "checked" / "quarantine").exists()
    first = next(r for r in _rows(tmp_path / "logs", records.SEARCHES) if r["ts"] == START)
    assert (first["user_id"], first["query"]) == ("0", "lamp 0")
    shown = [r for r in _rows(tmp_path / "logs", records.RESULTS) if r["search_id"] == first["search_id"]]
    shown.sort(key=lambda r: r["position"])
    assert [(r["video_id"], r["position"], r["clicked"], r["liked"]) for r in shown] == [
        ("0", 0, True, False),
        ("1", 1, False, False),
        ("2", 2, False, False),
        ("3", 3, False, False),
    ]
    assert {r["caption"] for r in _rows(tmp_path / "logs", records.VIDEOS)} == {
        f'lamp "no" {n}' for n in range(10)
    }
    assert "searches.ts: column 'at' read as seconds: 2026-03-01 to 2026-03-03" in report.notes


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lambda t: f"{t.timestamp():.0f}", "seconds"),
        (lambda t: f"{t.timestamp():.3f}", "seconds"),
        (lambda t: f"{t.timestamp() * 1e3:.0f}", "milliseconds"),
        (lambda t: f"{t.timestamp() * 1e6:.0f}", "microseconds"),
        (lambda t: f"{t.timestamp() * 1e9:.0f}", "nanoseconds"),
        (lambda t: f"{t:%Y-%m-%d %H:%M:%S}", "ISO 8601 text"),
        (lambda t: f"{t:%Y-%m-%dT%H:%M:%SZ}", "ISO 8601 text"),
        (lambda t: (t + datetime.timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00"), "ISO 8601 text"),
    ],
)
def test_a_time_is_told_by_itself(tmp_path, written, said):
    log = _csv(
        tmp_path / "log.csv", "query,user,time,video,clicked,caption", f"a,1,{written(START)},v,1,text"
    )
    report = _import({"log": log}, tmp_path / "logs")
    assert [r["ts"] for r in _rows(tmp_path / "logs", records.SEARCHES)] == [START]
    assert (tmp_path / "logs/searches/date=2026-03-01").is_dir()
    assert f"searches.ts: column 'time' read as {said}: 2026-03-01 to 2026-03-01" in report.notes


def test_parquet_of_pandas_gives_what_csv_gives(tmp_path):
    """Ids that became floats, NaN for what is unknown, and times in pandas' own type."""
    frame = pd.DataFrame(
        {
            "query": ["a", "a", "b"],
            "user": [1.0, 1.0, 2.0],
            "time": pd.to_datetime(["2026-03-01 09:00"] * 3),
            "video": [10.0, 11.0, None],
            "clicked": [1.0, 0.0, None],
            "play_s": [2.5, float("nan"), None],
            "caption": ["x", "y", None],
        }
    )
    (tmp_path / "pq").mkdir()
    frame.iloc[:2].to_parquet(tmp_path / "pq" / "a.parquet")
    frame.iloc[2:].to_parquet(tmp_path / "pq" / "b.parquet")
    with gzip.open(tmp_path / "log.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([frame.columns, *frame.fillna("").astype(str).to_numpy().tolist()])
    found = []
    for name in ("pq", "log.csv.gz"):
        _import({"log": tmp_path / name}, tmp_path / "logs" / name)
        found.append([_rows(tmp_path / "logs" / name, t) for t in records.REQUIRED])
    assert found[0] == found[1]
    videos, searches, results = found[0]
    assert [v["video_id"] for v in videos] == ["10", "11"]
    assert sorted(s["user_id"] for s in searches) == ["1", "2"]  # the search for b found nothing
    assert [(r["video_id"], r["position"], r["play_s"]) for r in results] == [("10", 0, 2.5), ("11", 1, None)]


def test_json_lines_give_what_csv_gives(tmp_path):
    """Numbers, texts that look like numbers, lists, escapes, a key that only some lines have, gzip."""
    header = ["query", "user", "time", "video", "rank", "clicked", "caption", "tags"]
    rows = [
        ['caf\u00e9 "x", y', "007", "2026-03-01T09:00:00+02:00", "0012", 1, True, "a\nb", ["red", "blue"]],
        ['caf\u00e9 "x", y', "007", "2026-03-01T09:00:00+02:00", "12", 2, False, "c", []],
        ["b", "8", 1772352000000, "0012", 1, None, "a\nb", ["red", "blue"]],
    ]
    with gzip.open(tmp_path / "log.jsonl.gz", "wt", encoding="utf-8") as file:
        for row in rows:
            given = {name: value for name, value in zip(header, row, strict=True) if value is not None}
            file.write(json.dumps(given, ensure_ascii=row[0] == "b") + "\n")
    with (tmp_path / "log.csv").open("w", newline="", encoding="utf-8") as file:
        flat = [["; ".join(v) if isinstance(v, list) else v for v in row] for row in rows]
        csv.writer(file).writerows([header, *flat])
    read = []
    for name in ("log.jsonl.gz", "log.csv"):
        _import({"log": tmp_path / name}, tmp_path / "logs" / name, "position=rank", "keywords=tags")
        read.append([_rows(tmp_path / "logs" / name, t) for t in records.REQUIRED])
    assert read[0] == read[1]
    assert {r["video_id"] for r in read[0][2]} == {"0012", "12"}
    (tmp_path / "broken.jsonl").write_text('{"query": "a"}\n{"query": ')
    with pytest.raises(InputError, match=r"broken\.jsonl: cannot be read: .*Malformed JSON"):
        _import({"log": tmp_path / "broken.jsonl"}, tmp_path / "logs/broken")


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_fields_of_nested_columns_are_named_by_their_path(tmp_path, form):
    """Two deep, in both forms; a search without a hit has no struct; a wrong path is told what is there."""
    hits = [{"id": "07", "seen": {"click": n, "title": "lamp"}, "tags": ["a, b", "c"]} for n in (1, 0)]
    hits = [hits[0], hits[1] | {"id": "8"}, None]
    asked = {"query": ["lamp", "lamp", "x"], "user": ["1"] * 3, "time": [1772352000] * 3, "hit": hits}
    path = tmp_path / f"log.{form}"
    if form == "parquet":
        pq.write_table(pa.table(asked), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in pa.table(asked).to_pylist()))
    told = "clicked=hit.seen.click,videos.caption=hit.seen.title,keywords=hit.tags"
    _import({"log": path}, tmp_path / "logs", told, "video_id=hit.id")
    assert len(_rows(tmp_path / "logs", records.SEARCHES)) == 2
    shown = _rows(tmp_path / "logs", records.RESULTS)
    assert [(r["video_id"], r["clicked"]) for r in shown] == [("07", True), ("8", False)]
    video = _rows(tmp_path / "logs", records.VIDEOS)[0]
    assert (video["caption"], video["keywords"]) == ("lamp", ["a, b", "c"])
    there = "Columns: query, user, time, hit.id, hit.seen.click, hit.seen.title, hit.tags"
    for wrong in ("hit.name", "hit"):
        with pytest.raises(InputError, match=rf"column '{wrong}' \(for video_id\) is missing.* {there}$"):
            _import({"log": path}, tmp_path / "logs/wrong", told, f"video_id={wrong}")


START_S = START.timestamp()


def _three(**columns: object) -> pa.Table:
    """Three shown products of three searches, with these columns instead of or beside the usual ones."""
    usual = {"q": ["lamp", "sofa", "desk"], "uid": ["a", "b", "c"], "at": [START_S, START_S + 1, START_S + 2]}
    usual |= {"sku": ["1", "2", "3"], "click": [1, 0, 0], "title": ["L", "S", "D"]}
    return pa.table(usual | columns)


MAP = "query=q,user=uid,time=at,video=sku,clicked=click,caption=title"


def _from_parquet(folder: Path, rows: pa.Table, *maps: str) -> tuple[StageReport, Path]:
    pq.write_table(rows, folder / "log.parquet")
    return _import({"log": folder / "log.parquet"}, folder / "logs", MAP, *maps), folder / "logs"


@pytest.mark.parametrize(
    ("ids", "expected", "note"),
    [
        (pa.array([7.0, float("nan"), 12.0]), ["12", "7", None], ""),
        (["nan", "None", r"\N"], [None, None, None], ""),
        (["<NA>", "null", "u1"], ["u1", None, None], ""),
        (pa.array([7, 8, 9], pa.decimal128(38, 9)), ["7", "8", "9"], ""),
        (
            ["1.23457E+12", "1e5", "7.50"],
            ["1e5", "7.50", None],
            "1 of 3 values are no whole id (1.23E+12 has",
        ),
        (pa.array([1e18, 7.0, 8.0]), ["7", "8", None], "no whole id"),
        (pa.array([b"u1", "ü2".encode(), b"u3"]), ["u1", "u3", "ü2"], ""),
    ],
    ids=["NaN", "no id as text", "NA", "decimal", "spreadsheet", "float of 19 digits", "bytes"],
)
def test_an_id_that_is_none_or_was_shortened_is_nobodys(tmp_path, ids, expected, note):
    """Else all who have none would be one user, and their searches reformulations of one another."""
    report, logs = _from_parquet(tmp_path, _three(uid=ids))
    users = [row["user_id"] for row in _rows(logs, records.SEARCHES)]
    assert sorted(users, key=lambda user: (user is None, user)) == expected
    assert note in "\n".join(report.notes)


def test_a_duration_is_read_in_its_own_unit(tmp_path):
    played = pa.array([datetime.timedelta(seconds=65), None, datetime.timedelta(hours=1)], pa.duration("ns"))
    _report, logs = _from_parquet(tmp_path, _three(watched=played), "play_s=watched")
    assert {row["play_s"] for row in _rows(logs, records.RESULTS)} == {65.0, None, 3600.0}


@pytest.mark.parametrize(
    ("column", "maps", "message"),
    [
        (
            {"sku": [["1", "2"], ["3"], []]},
            "",
            r"'sku' \(for results.video_id\) is VARCHAR\[\], expected one value",
        ),
        ({"tags": [[{"name": "a"}], [], []]}, "keywords=tags", r"is STRUCT.*\[\], expected a list of texts"),
    ],
)
def test_a_cell_that_holds_many_values_is_not_one(tmp_path, column, maps, message):
    with pytest.raises(InputError, match=message):
        _from_parquet(tmp_path, _three(**column), maps)


def test_a_list_that_was_written_as_text_loses_its_brackets(tmp_path):
    tags = ["['oak', \"men's\"]", '["a","b"]', '{5" tv;x}']
    _report, logs = _from_parquet(tmp_path, _three(tags=tags), "keywords=tags")
    keywords = {row["video_id"]: row["keywords"] for row in _rows(logs, records.VIDEOS)}
    assert keywords == {"1": ["oak", "men's"], "2": ["a", "b"], "3": ['5" tv', "x"]}


def test_json_lines_tell_a_column_late_and_an_array_is_no_line(tmp_path):
    """A purchase may be the first of 20,480 lines, as many as the engine looks at unasked."""
    line = {"q": "lamp", "uid": 1, "at": START_S, "sku": "1", "click": 0, "title": "L"}
    lines = [json.dumps(line | {"at": START_S + n}) for n in range(20_500)] + [
        json.dumps(line | {"liked": True})
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines), encoding="utf-8")
    _import({"log": log}, tmp_path / "logs", MAP)
    assert [r["liked"] for r in _rows(tmp_path / "logs", records.RESULTS) if r["liked"]] == [True]
    for content in ("[" + ",".join(lines[:2]) + "]", ""):
        log.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="holds no JSON object a line; of one array: jq"):
            _import({"log": log}, tmp_path / "other", MAP)


def test_a_name_that_is_no_text_is_said(tmp_path):
    log = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xff.csv"))
    shutil.copy(_shop(tmp_path)["log"], log)
    for src in (log, tmp_path):
        with pytest.raises(InputError, match=r"l\\xff.csv: the name is not UTF-8"):
            _import({"log": src}, tmp_path / "logs", MAP)


def test_the_line_that_excel_writes_above_the_header_is_none(tmp_path):
    log = tmp_path / "log.csv"
    rows = [f"{n};a;{n},5;1772323200;v{n};1;x" for n in range(20)]
    log.write_bytes(
        "\r\n".join(["\ufeffsep=;", "search;query;user;time;video;clicked;caption", *rows]).encode()
    )
    _import({"log": log}, tmp_path / "logs")
    assert {row["user_id"] for row in _rows(tmp_path / "logs", records.SEARCHES)} == {
        f"{n},5" for n in range(20)
    }


def test_rows_that_become_one_are_counted_and_utf_16_is_named(tmp_path):
    lines = ["search,query,user,time,video,clicked,caption", *["s,a,1,1772323200,v,1,x"] * 3]
    notes = _import({"log": _csv(tmp_path / "log.csv", *lines)}, tmp_path / "logs").notes
    assert "results: 1 from 3 rows; those of one search, video and stage are one" in "\n".join(notes)
    (tmp_path / "wide.csv").write_text("\n".join(lines), encoding="utf-16")
    with pytest.raises(InputError, match=r"wide\.csv: is UTF-16: iconv -f utf-16 -t utf-8 FILE$"):
        _import({"log": tmp_path / "wide.csv"}, tmp_path / "wide")


def test_rows_of_one_result_are_one_and_positions_keep_their_holes(tmp_path):
    """A row when it was shown and one when it was clicked; only ranks 3 and 7 are in the log, counted from
    1.
    """
    log = _csv(
        tmp_path / "log.csv",
        "search,query,user,time,video,rank,clicked,ms,caption",
        *("s,a,1,1772323200,v,3,0,,x", "s,a,1,1772323205,v,3,1,1500,x", "s,a,1,1772323200,w,7,0,,y"),
    )
    _import({"log": log}, tmp_path / "logs", "position=rank", "play_s=ms:ms")
    assert [
        (r["video_id"], r["position"], r["clicked"], r["play_s"])
        for r in _rows(tmp_path / "logs", records.RESULTS)
    ] == [("v", 2, True, 1.5), ("w", 6, False, None)]
    assert len(_rows(tmp_path / "logs", records.SEARCHES)) == 1


def test_clicks_alone_and_a_feed_and_results_in_files_of_their_own(tmp_path):
    searches = _csv(tmp_path / "s.tsv", "id\tquery\tuser\ttime", "1\ta\tu\t1772323200", "2\tb\tu\t1772323260")
    results = _csv(tmp_path / "r.csv", "id,video", "1,v", "2,w")
    feed = _csv(tmp_path / "f.csv", "user,video,time,play_s", "u,v,1772323300,4", "u,v,1772323300,5")
    videos = _csv(tmp_path / "v.csv", "video,tags", 'v,"red; blue"', "w,")
    files = {"log": searches, "results": results, "feed": feed, "videos": videos}
    _import(files, tmp_path / "logs", "search=id", "keywords=tags", values=("results.clicked=true",))
    assert [
        (r["search_id"], r["video_id"], r["clicked"]) for r in _rows(tmp_path / "logs", records.RESULTS)
    ] == [("1", "v", True), ("2", "w", True)]
    assert [(r["play_s"], r["clicked"]) for r in _rows(tmp_path / "logs", records.FEED)] == [(5.0, False)]
    assert [v["keywords"] for v in _rows(tmp_path / "logs", records.VIDEOS)] == [["red", "blue"], []]


def test_what_does_not_fit_is_counted_and_goes_to_quarantine(tmp_path):
    files = _shop(tmp_path)
    text = files["log"].read_text().splitlines()
    text[5] = text[5].replace(text[5].split(",")[2], "soon")  # the first row of the second search
    text[9] = ",".join([*text[9].split(",")[:5], "maybe", "no"])
    files["log"].write_text("\n".join(text))
    report = _import(files, tmp_path / "logs", SHOP)
    assert any("1 of 240 values are no time" in n and "(row 5: 'soon')" in n for n in report.notes)
    assert any("1 of 240 values are no true or false" in n and "(row 9: 'maybe')" in n for n in report.notes)
    validate.run(tmp_path / "logs", tmp_path / "checked", ValidateConfig())
    reasons = artifacts.read_json(tmp_path / "checked" / "validation.json")["tables"]
    assert reasons["searches"]["reasons"] == {"ts is null": 1}
    assert reasons["results"]["reasons"] == {"clicked is null": 1, "search is in quarantine": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("qery=q", "--map 'qery=q': no column 'qery' of ours; did you mean 'query'?"),
        ("query", "--map 'query' is no pair, expected OURS=THEIRS"),
        ("clips.caption=title", "no table 'clips', expected one of searches, results, feed, videos"),
        ("feed.user=uid", "no file of feed is given (--feed FILE)"),
        ("time=at:h", "unit 'h' of ts: expected one of s, ms, us, ns, min"),
    ],
)
def test_a_wrong_map_is_told_what_is_wrong(tmp_path, given, message):
    files = _shop(tmp_path)
    with pytest.raises(ConfigError) as error:
        _import(files, tmp_path / "logs", SHOP, given)
    assert message in str(error.value)
    assert not (tmp_path / "logs").exists()


def test_a_file_that_does_not_suit_the_map_is_told_what_was_expected(tmp_path):
    files = _shop(tmp_path)

    def refused(*maps: str, **instead: Path) -> str:
        with pytest.raises(InputError) as error:
            _import({**files, **instead}, tmp_path / "logs", *maps)
        assert not (tmp_path / "logs").exists()
        return str(error.value)

    assert refused(SHOP, "clicked=clik").startswith(
        f"{files['log']}: column 'clik' (for clicked) is missing; did you mean 'click'? Columns: q, uid"
    )
    assert (
        "nothing is mapped to query, user_id, ts: searches need it; --map query=q,user=uid,time=COLUMN"
        in (refused("video=sku"))
    )
    assert "--set clicked=true" in refused("query=q,user=uid,time=at,video=sku,videos.caption=title")
    assert f"{files['log']}:1: searches.ts: column 'q' holds 'lamp 0' and no readable value in 240" in (
        refused(SHOP, "time=q")
    )
    (tmp_path / "empty").mkdir()
    assert "expected CSV" in refused(SHOP, log=tmp_path / "empty")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing")
    assert str(broken) in refused(SHOP, log=broken)


def test_lines_that_do_not_fit_are_left_out_and_named(tmp_path):
    """One with too few fields and one with too many among 60, in the second of two files, whose separators
    and columns differ; the first file has none.
    """
    (tmp_path / "days").mkdir()
    header, row = "query,user,time,video,clicked,caption", "lamp,1,1772323200,{},1,text"
    _csv(tmp_path / "days/a.csv", header, *(row.format(n) for n in range(20)))
    lines = [row.format(n).replace(",", ";") + ";x" for n in range(20, 60)]
    broken = [*lines[:30], "broken;line", *lines[30:], "lamp;no, two;1;1772323200;1;1;text;x"]
    _csv(tmp_path / "days/b.csv", header.replace(",", ";") + ";keywords", *broken)
    report = _import({"log": tmp_path / "days"}, tmp_path / "logs")
    assert "days: 2 of 62 lines left out (line 32 of b.csv: missing columns, 'broken;line')" in report.notes
    results = _rows(tmp_path / "logs", records.RESULTS)
    assert sorted(int(r["video_id"]) for r in results) == list(range(60))
    videos = {v["video_id"]: v["keywords"] for v in _rows(tmp_path / "logs", records.VIDEOS)}
    assert (videos["0"], videos["59"]) == ([], ["x"])


def test_a_file_most_of_whose_lines_do_not_fit_is_refused(tmp_path):
    """Queries with commas that nobody quoted: of 40 lines, 4 are cut into one field too many."""
    header = "query,user,time,video,clicked,caption"
    rows = [f"{'a lamp, red' if n % 10 == 3 else 'lamp'},1,1772323200,{n},1,text" for n in range(40)]
    log = _csv(tmp_path / "log.csv", header, *rows)
    with pytest.raises(InputError, match=r"4 of 40 lines do not have the fields .* line 5 of log.csv"):
        _import({"log": log}, tmp_path / "logs")
    two_ways = tmp_path / "mixed.csv"
    two_ways.write_bytes("\r\n".join([header, *rows[:3]]).encode() + b"\n" + "\r\n".join(rows[4:9]).encode())
    with pytest.raises(InputError, match=r"ended in two ways\? tr -d"):
        _import({"log": two_ways}, tmp_path / "logs")
    (tmp_path / "nothing.csv").touch()
    with pytest.raises(InputError, match=r"an empty file, expected a header and rows"):
        _import({"log": tmp_path / "nothing.csv"}, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("written", "form", "said"),
    [
        ("01.03.2026 16:10:06", "", "day.month.year"),
        ("1.3.2026 16:10:06", "", "day.month.year"),
        ("01/03/2026 16:10:06", ":dmy", "day/month/year"),
        ("03/01/2026 4:10:06 PM", ":mdy", "month/day/year"),
    ],
)
def test_a_date_as_a_spreadsheet_writes_it(tmp_path, written, form, said):
    """The same second each time; yes and no in the words of the country."""
    rows = [f"lampe;1;{written};{n};{word};text" for n, word in enumerate(("ja", "nein", "是", "否"))]
    log = _csv(tmp_path / "log.csv", "query;user;wann;video;clicked;caption", *rows)
    report = _import({"log": log}, tmp_path / "logs", f"time=wann{form}")
    wanted = datetime.datetime(2026, 3, 1, 16, 10, 6, tzinfo=datetime.UTC)
    assert [r["ts"] for r in _rows(tmp_path / "logs", records.SEARCHES)] == [wanted]
    assert f"searches.ts: column 'wann' read as {said} text: 2026-03-01 to 2026-03-01" in report.notes
    clicked = {r["video_id"]: r["clicked"] for r in _rows(tmp_path / "logs", records.RESULTS)}
    assert clicked == {"0": True, "1": False, "2": True, "3": False}


def test_which_of_two_numbers_is_the_day_is_not_guessed(tmp_path):
    log = _csv(tmp_path / "log.csv", "query,user,time,video,clicked,caption", "a,1,03/01/2026 16:10,v,1,x")
    with pytest.raises(InputError, match="COLUMN:mdy or COLUMN:dmy"):
        _import({"log": log}, tmp_path / "logs")


def test_rows_with_a_time_of_their_own_are_noticed(tmp_path):
    rows = [f"a,u,{1772323200 + n},{n},1,x" for n in range(50)]
    log = _csv(tmp_path / "log.csv", "query,user,time,video,clicked,caption", *rows)
    report = _import({"log": log}, tmp_path / "logs")
    assert any("map the id of the search: --map search=COLUMN" in note for note in report.notes)


def test_days_written_as_numbers_and_other_encodings_are_refused(tmp_path):
    """20260301 as seconds is a day in 1970."""
    header = "query,user,time,video,clicked,caption"
    days = _csv(tmp_path / "days.csv", header, "a,u,20260301,v,1,x", "a,u,20260302,v,1,x")
    with pytest.raises(
        InputError, match="read as seconds: 1970-08-23 to 1970-08-23, expected days since 2000"
    ):
        _import({"log": days}, tmp_path / "logs")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(f"{header}\nsüß,u,1772323200,v,1,x\n".encode("latin-1"))
    with pytest.raises(InputError, match="it is not UTF-8: iconv"):
        _import({"log": latin}, tmp_path / "logs")
    empty = _csv(tmp_path / "header.csv", header)
    with pytest.raises(InputError, match=r"no search could be read$"):
        _import({"log": empty}, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
