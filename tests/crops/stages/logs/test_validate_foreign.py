"""Logs that others wrote: read where that loses nothing, told all at once where it is not possible, a value
that does not fit in quarantine. Each on DuckDB and, where it is installed, on Spark.
"""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops.config.validate import ValidateConfig
from crops.errors import InputError
from crops.stages.logs import validate
from crops.tables import artifacts, fingerprint, records
from tests.crops.mining import engines
from tests.crops.validation import foreign, small_log


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.spark)])
def checked(request, tmp_path):
    """Validates a log: accepted tables, reasons, notes. Accepted and quarantined are what was read."""
    if request.param == "spark":
        engines.need_spark()

    def run(logs, out="out"):
        report = validate.run(logs, tmp_path / out, ValidateConfig(), engine=request.param)
        tables = artifacts.read_json(tmp_path / out / "validation.json")["tables"]
        assert all(t["accepted"] + t["quarantined"] == t["read"] for t in tables.values())
        accepted = {
            t.name: artifacts.read(tmp_path / out, t)
            for t in records.LOGS
            if artifacts.exists(tmp_path / out, t)
        }
        return accepted, {name: t["reasons"] for name, t in tables.items()}, report.notes

    return run


def equal(one, other):
    assert one.keys() == other.keys()
    for name, table in one.items():
        assert table.equals(other[name]), name


def test_what_other_programs_write_is_the_same_log(checked, tmp_path):
    """All kinds at once would hide one another, each alone costs an engine's start: a table's kinds go to its
    files in turn, so that every file of a table is of another kind.
    """
    log = small_log.rows(days=8, searches=8)
    wanted, *_ = checked(small_log.write(tmp_path / "plain", log), "wanted")
    logs = small_log.write(tmp_path / "foreign", log)
    used = set()
    for name in ("searches", "results", "feed"):
        kinds = [kind for kind, changes in foreign.SAME.items() if name in changes]
        for n, kind in enumerate(kinds):
            foreign.rewrite(logs, name, foreign.SAME[kind][name], only=n)
            used.add(kind)
    equal(checked(logs)[0], wanted)
    assert len(used) >= 10


@pytest.mark.parametrize("kind", [kind for kind, changes in foreign.SAME.items() if "videos" in changes])
def test_what_other_programs_write_of_videos_is_the_same(tmp_path, kind):
    log = small_log.rows(days=2, searches=4)
    found = []
    for name in ("plain", "foreign"):
        logs = small_log.write(tmp_path / name, log)
        if name == "foreign":
            foreign.rewrite(logs, "videos", foreign.SAME[kind]["videos"])
        validate.run(logs, tmp_path / f"{name}-out", ValidateConfig())
        found.append(artifacts.read(tmp_path / f"{name}-out", records.VIDEOS))
    assert found[0].equals(found[1])


@pytest.mark.parametrize("dtype", [pa.int64(), pa.uint32(), pa.float64(), pa.decimal128(38, 9)], ids=str)
def test_ids_that_are_numbers_become_their_digits(tmp_path, dtype):
    """In two tables of different types too: int64 here, text there."""
    log = small_log.rows(days=2, searches=4)
    for row in (*log["results"], *log["feed"], *log["videos"]):
        row["video_id"] = "v" + str(int(row["video_id"][1:]))
    logs = small_log.write(tmp_path / "logs", log)
    foreign.rewrite(logs, "videos", foreign.ids(dtype, "video_id"))
    strip = lambda t: foreign.put(t, "video_id", pa.array([v[1:] for v in t["video_id"].to_pylist()]))  # noqa: E731
    foreign.rewrite(logs, "feed", strip)
    foreign.rewrite(logs, "results", foreign.ids(pa.int64(), "video_id"))
    report = validate.run(logs, tmp_path / "out", ValidateConfig())
    assert report.numbers["critical_failures"] == report.numbers["results_quarantined"] == 0
    assert set(artifacts.read(tmp_path / "out", records.VIDEOS)["video_id"].to_pylist()) == {
        *map(str, range(20))
    }


def test_times_as_old_spark_writes_them_are_utc(checked, tmp_path):
    log = small_log.rows(days=2, searches=4)
    wanted, *_ = checked(small_log.write(tmp_path / "plain", log), "wanted")
    logs = small_log.write(tmp_path / "logs", log)
    for name in ("searches", "feed"):
        foreign.rewrite(logs, name, lambda t: t, use_deprecated_int96_timestamps=True)
    equal(checked(logs)[0], wanted)


def one_of(name: str, column: str, value, dtype: pa.DataType):
    """The fourth row of a table's first file gets a value that its column's type does not hold."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].cast(dtype).to_pylist()
        return foreign.put(table, column, pa.array([*values[:4], value, *values[5:]], dtype))

    return name, change


NS = 1_767_571_200_000_000_000
UNFIT = {
    "results: play_s does not fit float": one_of("results", "play_s", 1e300, pa.float64()),
    "results: position does not fit int32": one_of("results", "position", 5_000_000_000, pa.int64()),
    "feed: clicked does not fit bool": (
        "feed",
        lambda t: foreign.put(t, "clicked", pa.array([1, 1, 1, 1, 7, *[1] * (t.num_rows - 5)], pa.int32())),
    ),
    "videos: duration_s does not fit float": one_of("videos", "duration_s", -1e39, pa.float64()),
    "searches: ts is not between 2000 and 2100": (
        "searches",
        lambda t: foreign.put(
            t,
            "ts",
            pa.array(
                [NS if n == 4 else int(v.timestamp() * 1000) for n, v in enumerate(t["ts"].to_pylist())],
                pa.int64(),
            ).cast(pa.timestamp("ms", "UTC")),
        ),
    ),
}


def test_a_value_that_does_not_fit_goes_to_quarantine_with_its_row(checked, tmp_path):
    """One of each kind, in one run. A search in quarantine takes its four results along."""
    log = small_log.rows(days=3, searches=8)
    log["videos"] += [{**log["videos"][0], "video_id": "x", "duration_s": 1.0}]
    log["videos"].insert(4, log["videos"].pop())
    logs = small_log.write(tmp_path / "logs", log)
    # Results in their second and third file, so that they stay clear of the search that goes.
    for n, (name, change) in enumerate(UNFIT.values()):
        foreign.rewrite(logs, name, change, only={0: 1, 1: 2}.get(n, 0))
    _, reasons, notes = checked(logs)
    found = {f"{name}: {reason}": n for name, of in reasons.items() for reason, n in of.items()}
    assert found == {**dict.fromkeys(UNFIT, 1), "results: search is in quarantine": 4}
    assert any("position does not fit int32: 1 of 96 rows" in note for note in notes)
    for reason in UNFIT:
        name, why = reason.split(": ")
        rows = pq.read_table(tmp_path / "out" / "quarantine" / name, partitioning=None).to_pylist()
        (row,) = [row for row in rows if row["reason"] == why]
        assert (logs / row["file"]).exists()
        assert row["row_number"] == 4


def test_a_part_of_a_position_does_not_fit_and_no_number_is_none(checked, tmp_path):
    log = small_log.rows(days=2, searches=4)
    logs = small_log.write(tmp_path / "logs", log)

    def change(table):
        values = [float("nan") if v is None else float(v) for v in table["position"].to_pylist()]
        return foreign.put(table, "position", pa.array([values[0], 1.5, *values[2:]], pa.float64()))

    foreign.rewrite(logs, "results", change, only=0)
    assert checked(logs)[1]["results"] == {"position does not fit int32": 1}


def test_all_faults_of_all_tables_come_at_once(tmp_path):
    logs = small_log.write(tmp_path / "logs", small_log.rows(days=3))
    to_text = lambda t, name: foreign.put(t, name, pa.array(list(map(str, t[name].to_pylist()))))  # noqa: E731
    foreign.rewrite(logs, "searches", lambda t: to_text(t.drop(["query"]), "ts"))
    foreign.rewrite(logs, "videos", lambda t: to_text(to_text(t, "keywords"), "duration_s"))
    for path in (logs / "results").rglob("*.parquet"):
        path.unlink()
    (logs / "results" / "results.csv").write_text("search_id,video_id\n")
    file = next((logs / "feed").rglob("*.parquet"))
    file.write_bytes(b"PAR1")
    with pytest.raises(InputError) as error:
        validate.run(logs, tmp_path / "out", ValidateConfig())
    said = str(error.value)
    for expected in (
        "logs: 6 faults",
        "column 'query' (string) is missing; columns: search_id, user_id, ts",
        "column 'ts' is string, expected timestamp[us, tz=UTC]: a time (pandas: pd.to_datetime(",
        "(and 2 more files)",
        "column 'keywords' is string, expected list<string>: a list of texts in each row",
        "column 'duration_s' is string, expected float",
        "no Parquet file of the table 'results' found here: only Parquet files inside of results/ are read",
        "and here is results/results.csv",
        f"{file}: not a readable Parquet file",
    ):
        assert expected in said
    assert not (tmp_path / "out").exists()


def test_a_column_that_may_be_null_may_be_absent_and_is_named(tmp_path):
    logs = small_log.write(tmp_path / "logs", small_log.rows(days=2))
    foreign.rewrite(logs, "videos", lambda t: t.drop(["author_id", "duration_s"]))
    report = validate.run(logs, tmp_path / "out", ValidateConfig())
    assert "videos: no column 'duration_s' in 1 file(s): taken as unknown" in report.notes
    assert report.numbers["videos_accepted"] == 20


def test_files_that_look_like_data_and_were_not_read_are_named(tmp_path):
    """Parquet by another name is read; what is not read is named, above all a day of another format."""
    logs = small_log.write(tmp_path / "logs", small_log.rows(days=4))
    days = sorted((logs / "feed").iterdir())
    for day, name in zip(days, ("part.PARQUET", "part.parq", "part.csv", None), strict=True):
        if name:
            (day / "part-0.parquet").rename(day / name)
    (logs / "searches.jsonl").write_text("{}")
    (logs / "feed" / "_SUCCESS").touch()
    report = validate.run(logs, tmp_path / "out", ValidateConfig())
    assert report.numbers["feed_accepted"] == 90
    assert f"not read, no Parquet files by their names: feed/{days[2].name}/part.csv" in report.notes
    assert any("not read, files beside the folders" in n and "searches.jsonl" in n for n in report.notes)


def test_a_feed_without_a_row_is_a_missing_perspective(checked, tmp_path):
    logs = small_log.write(tmp_path / "logs", small_log.rows(days=2))
    foreign.rewrite(logs, "feed", lambda t: t.slice(0, 0))
    accepted, _, notes = checked(logs)
    assert "feed" not in accepted
    assert "feed: no acceptable row; there is no feed perspective" in notes


def test_only_folders_of_the_table_are_days(checked, tmp_path):
    """A log below somebody's date= folder; days whose hyphens a writer has escaped."""
    logs = small_log.write(tmp_path / "date=2020-02-02" / "logs", small_log.rows(days=2))
    for day in (logs / "feed").iterdir():
        day.rename(day.with_name(day.name.replace("-", "%2D")))
    log = small_log.rows(days=1)["feed"][0]
    wrong = logs / "feed" / "date=2026%2D03%2D03"
    wrong.mkdir()
    pq.write_table(small_log.table("feed", [{**log, "user_id": "new"}]).drop(["date"]), wrong / "a.parquet")
    assert {k: v for k, v in checked(logs)[1].items() if v} == {
        "feed": {"ts is of another day than its partition": 1}
    }


def test_links_are_read_and_are_part_of_the_fingerprint(tmp_path):
    """A table and days of another behind links: a change there is another log, a link to nowhere is named."""
    logs = small_log.write(tmp_path / "logs", small_log.rows(days=3))
    (logs / "searches").rename(tmp_path / "elsewhere")
    (logs / "searches").symlink_to(tmp_path / "elsewhere")
    for day in sorted((logs / "feed").iterdir())[:2]:
        day.rename(tmp_path / day.name)
        day.symlink_to(tmp_path / day.name)
    report = validate.run(logs, tmp_path / "out", ValidateConfig())
    assert (report.numbers["searches_accepted"], report.numbers["feed_accepted"]) == (90, 90)
    before = fingerprint.of(logs)
    foreign.rewrite(tmp_path, "elsewhere", lambda t: t.slice(0, 5), only=0)
    assert fingerprint.of(logs) != before
    (logs / "feed" / "date=2026-01-09").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"date=2026-01-09: is a link to .*gone, which is not there"):
        validate.run(logs, tmp_path / "again", ValidateConfig())
    (logs / "feed" / "date=2026-01-09").unlink()
    (logs / "feed" / "round").symlink_to(logs / "feed")
    with pytest.raises(InputError, match="round: is a link to a folder that it lies in"):
        fingerprint.of(logs)
