"""Made-up releases in the formats of the public data sets, small, and with every trap that is known of
them.
"""

import csv
import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

UTC = datetime.UTC
# 2023-05-22 21:58:52 in Beijing is 13:58:52 UTC.
STAMP_MS = 1_684_763_932_919


def kuaisar(folder: Path, *, source_column: str = "search_source") -> Path:
    """Two users. Session 1 of user 1 is used twice, its rows lie apart, item 100 stands twice with other
    clicks.
    """
    folder.mkdir(parents=True)
    head = [
        "user_id",
        "search_session_id",
        "search_session_time",
        "search_session_timestamp",
        "keyword",
        source_column,
    ]
    long = "[" + ", ".join(["7"] * 700_000) + "]"  # 2.1 MB in one quoted field
    evening, later = "2023-05-22 21:58:52", "2023-05-23 07:30:00"
    rows = [
        [1, 1, evening, STAMP_MS, "[20, 34, 3]", "USER_INPUT", 100, 0, "VIDEO"],
        [2, 9, "2023-05-22 22:00:00", "1.684764e+12", "[20]", "USER_INPUT", 100, 1, "VIDEO"],
        [1, 1, evening, STAMP_MS, "[20, 34, 3]", "USER_INPUT", 101, 0, "USER"],
        [1, 1, evening, STAMP_MS, "[20, 34, 3]", "USER_INPUT", 102, 1, "IMAGE_ATLAS"],
        [1, 1, later, "1684798200000.0", "[5]", "HOT", 103, 0, "VIDEO"],
        [1, 1, evening, STAMP_MS, "[20, 34, 3]", "USER_INPUT", 100, 1, "VIDEO"],
        [1, 2, later, 1_684_798_200_000, "[]", "HOT", 103, 0, "VIDEO"],
        ["x", 2, later, 1_684_798_200_000, "[8]", "HOT", 103, 0, "VIDEO"],
    ]
    _csv(folder / "src_inter.csv", [*head, "item_id", "click_cnt", "item_type"], rows)
    _csv(
        folder / "rec_inter.csv",
        [
            "user_id",
            "item_id",
            "playing_time",
            "duration_ms",
            "time",
            "timestamp",
            "click",
            "forward",
            "like",
            "follow",
            "search",
            "search_item_related",
        ],
        [
            [1, 100, 60792.0, 45400.0, "2023-05-22 15:53:20", "1.684742e+12", 1, 0, 0, 0, 0, 0],
            [1, 100, 10.0, 45400.0, "2023-05-22 15:53:20", "1.684742e+12", 0, 0, 1, 0, 0, 0],
            [1, 104, "", 0.0, "2023-05-22 15:53:20", "1.684742e+12", 0, 0, 0, 0, 1, 1],
            [2, 105, 500.0, 9000.0, "2023-05-23 01:00:00", 1_684_774_800_000.0, 0, 0, 0, 0, 0, 0],
        ],
    )
    names = [
        f"{level}_level_category_{kind}"
        for level in ("first", "second", "third", "fourth")
        for kind in ("id", "name", "name_en")
    ]
    kinds = [9, "搞笑", "Funny", 136, "搞笑段子", "Funny joke", 0, "空", "empty", 0, "空", "empty"]
    _csv(
        folder / "item_features.csv",
        ["item_id", "caption", "author_id", "item_type", "upload_time", "upload_type", *names],
        [
            [100, "[20, 3, 77]", 10, "NORMAL", "2023-04-22", "LongImport", *kinds],
            [102, long, 0, "NORMAL", "1970-01-01", "LongImport", *kinds],
            [103, "[5]", 11, "NORMAL", "2023-04-22 08:00:00", "LongImport", *kinds],
            [104, "[]", 12, "AD", "2023-04-22", "LongImport", *kinds],
            [200, "[1]", 12, "NORMAL", "2023-04-22", "LongImport", *kinds],
        ],
    )
    return folder


def _csv(path: Path, head: list[str], rows: list[list]) -> None:
    with path.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([head, *rows])


def qilin(
    folder: Path, *, time: str = "search_timestamp", milliseconds: bool = False, nested: str = "structs"
) -> Path:
    """A search per part with the same search_idx, positions from 1 with a hole, an unknown page_time twice
    over.
    """
    unit = 1000 if milliseconds else 1
    first, second = 1_725_000_000 * unit, 1_725_100_000 * unit
    feed_time = "request_timestamp" if time == "search_timestamp" else time

    def items(rows: list[tuple], stamp: int, name: str) -> list[dict]:
        keys = ("note_idx", "position", "click", "like", "collect", "page_time")
        return [
            {**dict(zip(keys, row, strict=True)), "comment": 0, "share": 0, name: stamp + n * unit}
            for n, row in enumerate(rows)
        ]

    nan = float("nan")
    train = items([(3, 4, 0, 0, 0, -1.0), (1, 1, 1, 0, 1, 12.5), (2, 2, 1, 1, 0, nan)], first, time)
    test = items([(1, 1, 1, 0, 0, 3.0)], second, time)
    request = items([(2, 1, 1, 0, 0, 7.0), (0, 2, 0, 0, 0, nan)], first, feed_time)
    search = {"query": "  酸面包 ", "query_from_type": 1, "search_idx": 5, "session_idx": 1, "user_idx": 8}
    empty = {**search, "search_idx": 6, "search_result_details_with_idx": []}
    lists = [[4, 11.5]]
    _qilin(
        folder / "search_train",
        [
            {**search, "search_result_details_with_idx": train, "dpr_results": lists},
            {**empty, "dpr_results": lists},
        ],
        nested,
    )
    _qilin(
        folder / "search_test",
        [{**search, "search_result_details_with_idx": test, "bm25_results": lists}],
        nested,
    )
    about = {
        "request_idx": 5,
        "session_idx": 1,
        "user_idx": 8,
        "query": "酸面包",
        "rec_result_details_with_idx": request,
    }
    _qilin(folder / "recommendation_train", [about], nested)
    titles = ["猫", "面包 第一天", None, "狗"]
    _qilin(
        folder / "notes",
        [
            {"note_idx": n, "note_title": t, "note_content": f"正文 {n}", "video_duration": 9.0}
            for n, t in enumerate(titles)
        ],
        nested,
    )
    return folder


def _qilin(folder: Path, rows: list[dict], nested: str) -> None:
    folder.mkdir(parents=True)
    if nested == "lists":  # some writers of Parquet turn a list of structs into a struct of lists
        rows = [{k: _turned(v) if k.endswith("with_idx") else v for k, v in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")


def _turned(items: list[dict]) -> dict[str, list]:
    names = (
        "note_idx",
        "position",
        "click",
        "like",
        "collect",
        "page_time",
        "search_timestamp",
        "request_timestamp",
    )
    return {n: [item[n] for item in items] for n in names if not items or n in items[0]}


FLAGS = ("realshow", "rerank_pos", "rerank_neg", "rank_pos", "rank_neg", "coarse_neg", "prerank_neg")


def recflow(folder: Path, days: tuple[str, ...] = ("2024-01-13", "2024-01-14")) -> Path:
    """A request per day: two shown (rerank order against id order), one of each lower stage, one row without
    a stage.
    """
    (folder / "all_stage").mkdir(parents=True)
    for number, day in enumerate(days):
        stamp_ms = int(datetime.datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC).timestamp() * 1000)
        rows = [
            _row(
                number,
                stamp_ms,
                1,
                ("realshow", "rerank_pos", "rank_pos"),
                rerank_index=2,
                playing_time=9_000,
                effective_view=1,
            ),
            _row(
                number,
                stamp_ms,
                2,
                ("realshow", "rerank_pos", "rank_pos"),
                rerank_index=1,
                playing_time=500,
                like=1,
            ),
            _row(number, stamp_ms, 3, ("rerank_neg", "rank_pos"), rerank_index=11),
            _row(number, stamp_ms, 4, ("rank_neg",), rank_index=30),
            _row(number, stamp_ms, 5, ("coarse_neg",)),
            _row(number, stamp_ms, 6, ("prerank_neg",)),
            _row(number, stamp_ms, 7, ()),
            _row(number, stamp_ms, 3, ("rank_neg",), rank_index=12),
        ]
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), folder / "all_stage" / f"{day}.feather")
    return folder


def _row(request: int, stamp_ms: int, video: int, stages: tuple[str, ...], **values: int) -> dict[str, int]:
    row = {
        "request_id": 50 + request,
        "request_timestamp": stamp_ms,
        "user_id": 9,
        "device_id": 1,
        "video_id": video,
        "author_id": video % 2,
        "category_level_one": 4,
        "category_level_two": 40 + video,
        "upload_type": 1,
        "upload_timestamp": 1_700_000_000_000,
        "duration": 20_000,
        "rank_index": 0,
        "rerank_index": 0,
        "playing_time": 0,
        "effective_view": 0,
        "long_view": 0,
        "like": 0,
    }
    return {**row, **{flag: int(flag in stages) for flag in FLAGS}, **values}
