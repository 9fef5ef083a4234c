"""KuaiSAR, Qilin and RecFlow through the stage: what the tables hold, by hand, and what a wrong folder is
told.
"""

import csv
import datetime
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from crops.errors import ConfigError, CropsError, InputError
from crops.stages.base import StageReport
from crops.stages.logs import import_log
from crops.tables import artifacts, folders, records
from tests.crops.adapters import releases

MAKERS = {"kuaisar": releases.kuaisar, "qilin": releases.qilin, "recflow": releases.recflow}


def _import(tmp_path: Path, dataset: str, **options) -> tuple[Path, StageReport]:
    src = MAKERS[dataset](tmp_path / "src" / dataset, **options)
    return tmp_path / "out", import_log.run(src, tmp_path / "out", dataset=dataset)


def _rows(folder: Path, table: records.Table) -> list[dict]:
    return artifacts.read(folder, table).to_pylist()


def _utc(*parts: int) -> datetime.datetime:
    return datetime.datetime(*parts, tzinfo=datetime.UTC)


@pytest.mark.parametrize("dataset", MAKERS)
def test_tables_keep_their_promises(tmp_path, dataset):
    """Schema, non-null columns, keys, references, order and partition, with nothing else left in the
    folder.
    """
    out, report = _import(tmp_path, dataset)
    present = [t for t in records.LOGS if artifacts.exists(out, t)]
    assert {p.name for p in out.iterdir()} == {folders.MARK, *(t.name for t in present)}
    known = {
        name: set(artifacts.read(out, t)[key].to_pylist())
        for name, t, key in (("search", records.SEARCHES, "search_id"), ("video", records.VIDEOS, "video_id"))
    }
    for table in present:
        rows = artifacts.read(out, table)
        assert report.numbers[table.name] == rows.num_rows > 0
        assert rows.group_by([*table.key]).aggregate([]).num_rows == rows.num_rows
        for field in table.schema:
            assert field.nullable or rows[field.name].null_count == 0, (table.name, field.name)
            assert not pa.types.is_floating(field.type) or not pc.any(pc.is_nan(rows[field.name])).as_py()
        for file in (out / table.name).rglob("*.parquet"):
            if "ts" in table.schema.names:
                ts = pq.read_table(file, partitioning=None)["ts"].to_pylist()
                assert ts == sorted(ts)
                assert {f"date={t:%Y-%m-%d}" for t in ts} == {file.parent.name}
    results = artifacts.read(out, records.RESULTS)
    assert set(results["search_id"].to_pylist()) <= known["search"]
    assert set(results["video_id"].to_pylist()) <= known["video"]
    exposed = pc.equal(results["stage"], "exposed")
    assert pc.equal(pc.is_valid(results["position"]), exposed).to_pylist() == [True] * results.num_rows
    assert not pc.any(pc.and_(results["clicked"], pc.invert(exposed))).as_py()


@pytest.mark.parametrize("dataset", MAKERS)
def test_twice_the_same_bytes(tmp_path, dataset):
    src = MAKERS[dataset](tmp_path / "src")
    found = []
    for name in ("a", "b"):
        import_log.run(src, tmp_path / name, dataset=dataset)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        found.append([(p.relative_to(tmp_path / name), p.read_bytes()) for p in files])
    assert found[0] == found[1]


def test_kuaisar_searches_are_told_apart_and_put_together_again(tmp_path):
    """Session 1 of user 1 is two searches, at 13:58:52.919 and 23:30 UTC; the rows of the first lie apart.
    User 2's stamp 1.684764e+12 is 14:00:00, as the readable Beijing time says. What has no words or an
    unreadable user is out.
    """
    out, report = _import(tmp_path, "kuaisar")
    assert [(r["user_id"], r["ts"], r["query"]) for r in _rows(out, records.SEARCHES)] == [
        ("1", _utc(2023, 5, 22, 13, 58, 52, 919_000), "w20 w34 w3"),
        ("2", _utc(2023, 5, 22, 14, 0, 0), "w20"),
        ("1", _utc(2023, 5, 22, 23, 30, 0), "w5"),
    ]
    assert report.numbers["search_rows_unreadable"] == report.numbers["search_rows_without_words"] == 1


def test_kuaisar_results_keep_place_and_any_click(tmp_path):
    """Shown: 100, a user's page, 102, 100 again (this time clicked). 100 is first and clicked, 102 third."""
    out, report = _import(tmp_path, "kuaisar")
    first = _rows(out, records.SEARCHES)[0]["search_id"]
    rows = [
        (r["video_id"], r["position"], r["clicked"])
        for r in _rows(out, records.RESULTS)
        if r["search_id"] == first
    ]
    assert rows == [("100", 0, True), ("102", 2, True)]
    assert report.numbers["results_that_are_no_videos"] == 1
    assert all(r["play_s"] is None and not r["liked"] for r in _rows(out, records.RESULTS))


def test_kuaisar_feed(tmp_path):
    """1.684742e+12 ms is 07:53:20 UTC = 15:53:20 in Beijing. Two rows of one view are one: clicked and
    liked.
    """
    out, _ = _import(tmp_path, "kuaisar")
    first, second, third = _rows(out, records.FEED)
    assert (first["video_id"], first["ts"], first["clicked"], first["liked"]) == (
        "100",
        _utc(2023, 5, 22, 7, 53, 20),
        True,
        True,
    )
    assert first["play_s"] == pytest.approx(60.792)
    assert (second["video_id"], second["play_s"]) == ("104", None)
    assert third["ts"] == _utc(2023, 5, 22, 17, 0, 0)


def test_kuaisar_a_rounded_stamp_gives_way_to_the_readable_time(tmp_path):
    """1.684742e+12 can stand for any time within 8 minutes; `time` knows the second. 15:57:01 Beijing is
    07:57:01 UTC.
    """
    src = releases.kuaisar(tmp_path / "src")
    path = src / "rec_inter.csv"
    path.write_text(
        path.read_text(encoding="utf-8").replace("2023-05-22 15:53:20", "2023-05-22 15:57:01"),
        encoding="utf-8",
    )
    import_log.run(src, tmp_path / "out", dataset="kuaisar")
    assert _rows(tmp_path / "out", records.FEED)[0]["ts"] == _utc(2023, 5, 22, 7, 57, 1)


def test_kuaisar_videos(tmp_path):
    """A field of 2 MB is read whole; 0 and 1970 are padding; what only the logs know is there without texts;
    the duration is the feed's; "no category" is no keyword.
    """
    out, report = _import(tmp_path, "kuaisar")
    videos = {r["video_id"]: r for r in _rows(out, records.VIDEOS)}
    assert set(videos) == {"100", "102", "103", "104", "105", "200"}
    assert videos["100"]["caption"] == "w20 w3 w77"
    assert videos["100"]["keywords"] == ["搞笑", "搞笑段子"]
    assert videos["100"]["duration_s"] == pytest.approx(45.4)
    assert len(videos["102"]["caption"].split()) == 700_000
    assert (videos["102"]["author_id"], videos["102"]["uploaded_at"]) == (None, None)
    assert videos["103"]["uploaded_at"] == _utc(2023, 4, 22)
    assert (videos["105"]["caption"], report.numbers["videos_without_features"]) == ("", 1)
    assert videos["104"]["duration_s"] is None


def test_kuaisar_source_column_has_two_names_and_the_folder_may_be_inside(tmp_path):
    """KuaiSAR.zip unzips to KuaiSAR_final/ with search_session_source: the same tables."""
    plain, _ = _import(tmp_path, "kuaisar")
    releases.kuaisar(tmp_path / "zip" / "KuaiSAR_final", source_column="search_session_source")
    import_log.run(tmp_path / "zip", tmp_path / "other", dataset="kuaisar")
    for table in records.LOGS:
        assert _rows(tmp_path / "other", table) == _rows(plain, table)


def test_kuaisar_against_plain_python(tmp_path):
    """Random sessions with shared ids, mixed rows and repeated items; the tables against dictionaries."""
    chance, src = random.Random(5), releases.kuaisar(tmp_path / "src")
    rows = []
    for _ in range(3_000):
        user, session, minute = chance.randrange(4), chance.randrange(5), chance.randrange(3)
        stamp = releases.STAMP_MS + minute * 60_000
        readable = (
            f"{_utc(1970, 1, 1) + datetime.timedelta(milliseconds=stamp + 8 * 3_600_000):%Y-%m-%d %H:%M:%S}"
        )
        item, kind = chance.randrange(8), "VIDEO"
        rows.append(
            [
                user,
                session,
                readable,
                stamp,
                f"[{user}, {minute}]",
                "HOT",
                item,
                int(chance.random() < 0.1),
                kind,
            ]
        )
    with (src / "src_inter.csv").open("r+", newline="") as file:
        head = next(csv.reader(file))
        file.seek(0)
        file.truncate()
        csv.writer(file).writerows([head, *rows])
    import_log.run(src, tmp_path / "out", dataset="kuaisar")
    expected: dict[tuple[str, str], bool] = {}
    for user, session, _t, stamp, _k, _s, item, clicked, _i in rows:
        key = (f"{user}:{session}:{stamp}", str(item))
        expected[key] = expected.get(key, False) or bool(clicked)
    places: dict[str, int] = {}
    order = {
        key: places[key[0]] for key in expected if places.update({key[0]: places.get(key[0], -1) + 1}) is None
    }
    found = {
        (r["search_id"], r["video_id"]): (r["clicked"], r["position"])
        for r in _rows(tmp_path / "out", records.RESULTS)
    }
    assert found == {key: (clicked, order[key]) for key, clicked in expected.items()}


@pytest.mark.parametrize(
    "options", [{}, {"milliseconds": True}, {"time": "timestamp"}, {"nested": "lists"}], ids=str
)
def test_qilin_is_read_in_every_known_form(tmp_path, options):
    """Items at places 4, 1, 2 (from 1, with a hole) are positions 2, 0, 1. -1 and NaN are no play time. The
    test part uses search_idx 5 again. A search without items has no time and is left out. A collected note
    counts as liked.
    """
    out, report = _import(tmp_path, "qilin", **options)
    assert [(r["search_id"], r["user_id"], r["ts"], r["query"]) for r in _rows(out, records.SEARCHES)] == [
        ("train:5", "8", _utc(2024, 8, 30, 6, 40), "酸面包"),
        ("test:5", "8", _utc(2024, 8, 31, 10, 26, 40), "酸面包"),
    ]
    columns = ("search_id", "video_id", "position", "clicked", "liked", "play_s")
    assert [tuple(r[c] for c in columns) for r in _rows(out, records.RESULTS)] == [
        ("train:5", "1", 0, True, True, 12.5),
        ("train:5", "2", 1, True, True, None),
        ("train:5", "3", 2, False, False, None),
        ("test:5", "1", 0, True, False, 3.0),
    ]
    assert {r["stage"] for r in _rows(out, records.RESULTS)} == {"exposed"}, "bm25 and dpr lists are no stage"
    assert [(r["video_id"], r["ts"], r["clicked"], r["play_s"]) for r in _rows(out, records.FEED)] == [
        ("2", _utc(2024, 8, 30, 6, 40), True, 7.0),
        ("0", _utc(2024, 8, 30, 6, 40, 1), False, None),
    ]
    videos = [(r["video_id"], r["caption"], r["cover_text"]) for r in _rows(out, records.VIDEOS)]
    assert videos == [
        ("0", "猫", "正文 0"),
        ("1", "面包 第一天", "正文 1"),
        ("2", "", "正文 2"),
        ("3", "狗", "正文 3"),
    ]
    assert report.numbers["searches_without_results"] == 1


def test_recflow_stages(tmp_path):
    """Rerank places 2 and 1 make video 2 first. Video 3 lost in rank and in rerank: ranked once. 5 and 6 were
    filtered. effective_view is the click; what nobody saw has neither click nor play.
    """
    out, report = _import(tmp_path, "recflow")
    columns = ("video_id", "stage", "position", "clicked", "liked", "play_s")
    assert [tuple(r[c] for c in columns) for r in _rows(out, records.RESULTS) if r["search_id"] == "50"] == [
        ("2", "exposed", 0, False, True, 0.5),
        ("1", "exposed", 1, True, False, 9.0),
        ("3", "ranked", None, False, False, None),
        ("4", "ranked", None, False, False, None),
        ("5", "filtered", None, False, False, None),
        ("6", "filtered", None, False, False, None),
    ]
    assert report.numbers["rows_without_a_stage"] == 2, "one a day"
    assert not artifacts.exists(out, records.FEED)
    assert any("feed" in note for note in report.notes)
    assert any("no queries" in note for note in report.notes)


def test_recflow_days_become_files_and_videos_are_merged(tmp_path):
    out, _ = _import(tmp_path, "recflow")
    assert [p.parent.name for p in sorted((out / "searches").rglob("*.parquet"))] == [
        "date=2024-01-13",
        "date=2024-01-14",
    ]
    assert [(r["query"], r["user_id"]) for r in _rows(out, records.SEARCHES)] == [("user9", "9")] * 2
    videos = {r["video_id"]: r for r in _rows(out, records.VIDEOS)}
    assert set(videos) == set("1234567")
    assert videos["3"]["caption"] == "video3"
    assert videos["3"]["keywords"] == ["first4", "second43", "author1"]
    assert videos["3"]["duration_s"] == 20.0


def _drop_column(path: Path, column: str) -> None:
    if path.suffix == ".csv":
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()[:1]))
        path.write_text(",".join(c for c in lines[0] if c != column) + "\n", encoding="utf-8")
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(pyarrow.feather.read_table(path).drop_columns([column]), path)
    else:
        pq.write_table(pq.read_table(path).drop_columns([column]), path)


@pytest.mark.parametrize(
    ("dataset", "file", "column", "advice"),
    [
        ("kuaisar", "src_inter.csv", "click_cnt", "zenodo"),
        ("kuaisar", "rec_inter.csv", "timestamp", "zenodo"),
        ("kuaisar", "item_features.csv", "caption", "zenodo"),
        (
            "qilin",
            "search_train/train-00000-of-00001.parquet",
            "search_result_details_with_idx",
            "huggingface",
        ),
        ("qilin", "notes/train-00000-of-00001.parquet", "note_title", "huggingface"),
        ("recflow", "all_stage/2024-01-13.feather", "prerank_neg", "all_stage"),
    ],
)
def test_a_missing_column_or_file_says_what_to_do(tmp_path, dataset, file, column, advice):
    src = MAKERS[dataset](tmp_path / "src")
    _drop_column(src / file, column)
    with pytest.raises(InputError, match=f"column '{column}' is missing.*{advice}") as error:
        import_log.run(src, tmp_path / "out", dataset=dataset)
    assert str(error.value).startswith(str(src / file))
    if file.endswith(".csv") or file.startswith("notes"):  # of several days or parts the others would do
        (src / file).unlink()
        with pytest.raises(InputError, match=advice):
            import_log.run(src, tmp_path / "out", dataset=dataset)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dataset", MAKERS)
def test_another_release_a_file_or_an_empty_folder(tmp_path, dataset):
    other = next(name for name in MAKERS if name != dataset)
    MAKERS[other](tmp_path / "other")
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.zip").write_bytes(b"PK")
    for src in ("other", "empty", "set.zip"):
        with pytest.raises(InputError) as error:
            import_log.run(tmp_path / src, tmp_path / "out", dataset=dataset)
        assert len(str(error.value).splitlines()) == 1
        assert str(tmp_path / src) in str(error.value)


def test_two_releases_in_one_folder_must_be_told_apart(tmp_path):
    releases.kuaisar(tmp_path / "both" / "KuaiSAR_final")
    releases.kuaisar(tmp_path / "both" / "KuaiSAR_v2")
    with pytest.raises(InputError, match="name one of them"):
        import_log.run(tmp_path / "both", tmp_path / "out", dataset="kuaisar")


def test_a_damaged_file_is_one_line(tmp_path):
    src = releases.qilin(tmp_path / "src")
    file = src / "search_train" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        import_log.run(src, tmp_path / "out", dataset="qilin")
    day = releases.recflow(tmp_path / "r") / "all_stage" / "2024-01-13.feather"
    day.write_bytes(b"FEA1" + b"\0" * 50)
    with pytest.raises(InputError, match="not a Feather file of version 2"):
        import_log.run(tmp_path / "r", tmp_path / "out", dataset="recflow")


def test_a_time_that_is_missing_in_qilin_names_the_three_that_are_known(tmp_path):
    src = releases.qilin(tmp_path / "src", time="seen_at")
    with pytest.raises(InputError, match="search_timestamp or request_timestamp or timestamp"):
        import_log.run(src, tmp_path / "out", dataset="qilin")


def test_an_unknown_data_set_and_a_folder_for_trec(tmp_path):
    with pytest.raises(ConfigError, match="trec-session, kuaisar, qilin, recflow"):
        import_log.run(tmp_path, tmp_path / "out", dataset="kuairand")
    with pytest.raises(CropsError, match=r"sessiontrack2013\.xml"):
        import_log.run(tmp_path, tmp_path / "out", dataset="trec-session")
