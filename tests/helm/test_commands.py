"""What the chart's pods run is run here: their rendered arguments, through the command line, on a folder in
place of the volume.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from crops.cli.main import main
from serving.events import kafka
from serving.events.records import Result, Search
from tests.helm.test_chart import containers, pods, rendered

KAFKA = {"events": {"kind": "kafka", "kafka": {"servers": "kafka.example:9092"}}}
TABLES = {"compactor": {"videos": "/shared/catalogue/videos", "feed": "/shared/lake/feed"}}


def arguments(values: dict, container: str, shared: Path) -> list[str]:
    """Of the container of this name, with the volume at `shared`."""
    (args,) = [
        c["args"] for _, pod in pods(rendered(values)) for c in containers(pod) if c["name"] == container
    ]
    return [argument.replace("/shared", str(shared)) for argument in args]


def drained(servers, topic, group, log, settings):
    """What a topic with one search gives."""
    assert (servers, topic) == ("kafka.example:9092", "crops-events")
    search = Search(
        search_id="s1",
        user_id="u1",
        ts_us=1_760_000_000_000_000,
        query="bread",
        arm=None,
        release="models:/crops/1",
        results=(Result(video_id="v1", position=0, score=0.5),),
    )
    log.submit([search]).result()
    return 1


def test_the_compactor_of_an_empty_volume_drains_kafka(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka, "drain", drained)
    done = CliRunner().invoke(main, arguments(KAFKA, "compact", tmp_path))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "tables/compact.json").read_text())["searches"] == 1


def test_the_compactor_lays_videos_and_feed_beside_what_it_makes(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka, "drain", drained)
    for table in TABLES["compactor"].values():
        (tmp_path / table.removeprefix("/shared/")).mkdir(parents=True)
    done = CliRunner().invoke(main, arguments(KAFKA | TABLES, "compact", tmp_path))
    assert done.exit_code == 0, done.output
    assert {"searches", "results", "videos", "feed"} <= {p.name for p in (tmp_path / "tables").iterdir()}


def test_the_tables_lie_where_the_next_submission_reads_them(tmp_path, monkeypatch, bucket):
    """With videos and feed; what did not change is not copied again, what is gone here goes there."""
    import s3fs

    monkeypatch.setattr(kafka, "drain", drained)
    for name in ("catalogue/videos", "lake/feed/date=2025-10-09"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "part-0.parquet").write_bytes(name.encode())
    values = {**KAFKA, **TABLES, "registry": "http://mlflow:5000", "rolloutController": {"enabled": True}}
    values["compactor"] = {**TABLES["compactor"], "publish": f"{bucket}/logs"}
    asked = arguments(values, "compact", tmp_path)
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    store = s3fs.S3FileSystem()
    held = {name.partition("/logs/")[2] for name in store.find(f"{bucket}/logs")}
    assert {name.partition("/")[0] for name in held} == {"searches", "results", "videos", "feed"}
    here = {str(p.relative_to(tmp_path / "tables")) for p in (tmp_path / "tables").rglob("*.parquet")}
    assert held == {name for name in here if not name.startswith(("orphans", "."))}
    (tmp_path / "lake/feed/date=2025-10-09/part-0.parquet").rename(
        tmp_path / "lake/feed/date=2025-10-09/part-1.parquet"
    )
    monkeypatch.setattr(kafka, "drain", lambda *_a, **_k: 0)
    again = CliRunner().invoke(main, asked)
    assert again.exit_code == 0, again.output
    assert "1 files to" in again.output, again.output
    store.invalidate_cache()
    feed = [name.rpartition("/")[2] for name in store.find(f"{bucket}/logs/feed")]
    assert feed == ["part-1.parquet"]


def test_without_kafka_a_folder_that_is_not_there_is_said(tmp_path):
    done = CliRunner().invoke(main, arguments({}, "compact", tmp_path))
    assert done.exit_code != 0
    assert f"{tmp_path}/events" in str(done.exception)


@pytest.mark.parametrize("place", ["s3://lake/feed", "lake/feed"])
def test_tables_that_the_volume_does_not_hold_are_refused(place):
    with pytest.raises(Exception, match="pattern"):
        rendered({"compactor": {"feed": place}})
