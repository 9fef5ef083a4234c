"""A first look: it counts what augment then finds, says what is missing, and refuses nothing that validate
would put into quarantine.
"""

import json
import shlex
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from crops.cli.data import look as verb
from crops.cli.main import main
from crops.config.augment import AugmentConfig
from crops.errors import InputError
from crops.report import first_look
from crops.stages.logs import augment, look
from crops.tables import artifacts, records
from crops.world import simulate
from tests import shared
from tests.crops.validation import foreign, small_log

MIN_QUERIES = 30


def _look(logs, cfg=None):
    found = look.run(logs, cfg or AugmentConfig(), min_queries=MIN_QUERIES)
    json.dumps(found, allow_nan=False)
    assert list(first_look.lines(found))[-1].startswith("  crops ")
    return found


def _can(found):
    return {row["name"]: row["can"] for row in found["perspectives"]}


@pytest.fixture(scope="module")
def world():
    return (
        shared.made("look-world", lambda folder: simulate.write(folder / "logs", scale="tiny", seed=3))
        / "logs"
    )


def test_held_out_queries_are_those_that_augment_holds_out(world, tmp_path):
    """Two ways: the look's numbers, and the rows of the test sets that mining wrote."""
    cfg = AugmentConfig(test_days=2)
    augment.run(world, tmp_path / "mined", cfg)
    asked = {
        t: set(artifacts.read(tmp_path / "mined", t)["query"].to_pylist())
        for t in (records.TEST_QR, records.TEST_CT)
    }
    found = _look(world, cfg)
    enough = found["enough"]
    assert enough["queries_reformulated"] == len(asked[records.TEST_QR]) > 0
    assert enough["queries_clicked"] == len(asked[records.TEST_CT]) > 0
    assert 0 < enough["queries_independent"] <= enough["queries_reformulated"]
    assert found["days"]["count"] == len(list((world / "searches").iterdir()))
    assert _can(found) == {
        "click": "yes",
        "reformulation": "yes",
        "feed": "yes",
        "knowledge": "with an LLM",
        "exposed": "yes",
        "ranked": "yes",
        "filtered": "yes",
    }
    assert found["next"] == [f"crops run --logs {world} --out runs/first"]


def test_nothing_that_goes_to_quarantine_stops_it(tmp_path):
    """One row for every reason that validate knows; all other rows are counted."""
    logs = small_log.write(tmp_path / "logs", small_log.faulty())
    found = _look(logs)
    assert found["tables"]["searches"]["rows"] == 90 + sum(t == "searches" for t, _ in small_log.FAULTS)
    unusable = {name: t["rows"] - t["usable"] for name, t in found["tables"].items()}
    # null id, user, time, query; empty user; empty query (s00029 as well); 1970; a key that stands twice.
    assert unusable == {"searches": 9, "results": 4, "feed": 7, "videos": 1}
    assert _can(found)["feed"] == "yes"


@pytest.mark.parametrize("kind", foreign.SAME)
def test_what_other_programs_write_looks_the_same(kind, tmp_path):
    log = small_log.rows()
    wanted = _look(small_log.write(tmp_path / "plain", log))
    logs = small_log.write(tmp_path / "logs", log)
    for name, change in foreign.SAME[kind].items():
        foreign.rewrite(logs, name, change)
    found = _look(logs)
    for part in ("search", "catalogue", "scripts", "days", "mined", "perspectives", "enough"):
        assert found[part] == wanted[part], part


def test_what_cannot_be_read_is_said_and_the_rest_is_looked_at(tmp_path):
    logs = small_log.write(tmp_path / "logs", small_log.rows())
    foreign.rewrite(logs, "results", lambda t: foreign.put(t, "clicked", pa.array(["yes"] * t.num_rows)))
    next((logs / "feed").rglob("*.parquet")).write_bytes(b"PAR1 no footer")
    nothing = pa.array([[None]], pa.list_(pa.string())).take
    foreign.rewrite(logs, "videos", lambda t: foreign.put(t, "keywords", nothing([0] * t.num_rows)))
    found = _look(logs)
    assert "column 'clicked' is string, expected bool" in found["tables"]["results"]["faults"][0]
    assert "not a readable Parquet file" in found["tables"]["feed"]["faults"][0]
    assert found["search"]["searches"] == 90
    assert "" not in found["scripts"]["videos"]
    assert found["next"] == [f"crops validate --logs {logs} --out checked"]


@pytest.mark.parametrize("missing", ["searches", "results", "feed", "videos"])
def test_a_missing_table_is_said_with_what_it_would_bring(missing, tmp_path):
    logs = small_log.write(tmp_path / "logs", small_log.rows())
    shutil.rmtree(logs / missing)
    found = _look(logs)
    assert found["missing"] == [missing]
    if missing == "feed":
        assert _can(found)["feed"] == "no"
        assert any(
            r["needs"].startswith("the table feed") for r in found["perspectives"] if r["name"] == "feed"
        )
        assert found["next"][0].startswith("crops run")
    else:
        assert found["next"] == [f"crops validate --logs {logs} --out checked"]


def test_a_log_of_days_and_of_single_searches_is_told_why_nothing_is_reworded(tmp_path):
    log = small_log.rows()

    def needs(changed, name):
        shutil.rmtree(tmp_path / "logs", ignore_errors=True)
        found = _look(small_log.write(tmp_path / "logs", {**log, "searches": changed}))
        return next(r["needs"] for r in found["perspectives"] if r["name"] == name)

    midnight = [{**r, "ts": r["ts"].replace(hour=0, second=0)} for r in log["searches"]]
    assert "times to the second" in needs(midnight, "reformulation")
    alone = [{**r, "user_id": r["search_id"]} for r in log["searches"]]
    assert "everybody searches once" in needs(alone, "reformulation")
    assert "no user of the feed searches" in needs(alone, "feed")


def test_the_answer_follows_the_held_out_queries(tmp_path):
    """5 different queries a day are too few for any verdict; one that is met on one day alone holds out
    nothing.
    """
    found = _look(small_log.write(tmp_path / "logs", small_log.rows()))
    assert found["enough"]["queries_reformulated"] <= 5
    assert found["enough"]["answer"] == "no"
    single = _look(small_log.write(tmp_path / "single", small_log.rows(days=1)))
    assert single["enough"]["answer"] == "no"
    assert single["enough"]["smallest_difference"] is None


def test_files_of_another_shape_lead_to_import(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a_products.csv").write_text("sku,title\n1,lamp\n")
    shown = tmp_path / "shop" / "shown.csv"
    shown.write_text("search_term,customer_id,event_time,sku,click\nlamp,7,1772323200,1,1\n")
    products = tmp_path / "shop" / "a_products.csv"
    columns = "query=search_term,user=customer_id,time=event_time,video=sku,clicked=click"
    assert _look(tmp_path / "shop")["next"] == [
        f"crops import table {shown} --videos {products} --out logs --map {columns},caption=title"
    ]
    assert _look(shown)["next"] == [f"crops import table {shown} --out logs --map {columns}"]
    shown.rename(tmp_path / "shop" / "day-1.csv")
    products.write_text((tmp_path / "shop" / "day-1.csv").read_text())
    assert _look(tmp_path / "shop")["next"] == [
        f"crops import table {tmp_path / 'shop'} --out logs --map {columns}"
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no table of ours and no CSV, JSON lines or Parquet file"):
        _look(tmp_path / "empty")


def test_the_proposed_import_runs_as_it_stands(tmp_path, monkeypatch):
    (tmp_path / "products.csv").write_text("sku,title,category\n1,lamp,light;desk\n")
    shown = "search_term,customer_id,event_time,sku,click\nlamp,7,1772323200,1,1\n"
    (tmp_path / "shown.csv").write_text(shown)
    monkeypatch.chdir(tmp_path)
    crops, *words = shlex.split(_look(tmp_path)["next"][0])
    assert crops == "crops"
    CliRunner().invoke(main, words, catch_exceptions=False)
    videos = pq.read_table("logs/videos").to_pylist()
    assert [(v["caption"], v["keywords"]) for v in videos] == [("lamp", ["light", "desk"])]


def test_of_files_with_unknown_columns_the_largest_is_the_log(tmp_path):
    (tmp_path / "artikel.csv").write_text("artikelnr;bezeichnung\n1;Lampe\n")
    log = tmp_path / "suchlog.csv"
    log.write_text("kunde;wann;begriff;artikelnr\n" + "7;01.03.2026;lampe;1\n" * 9)
    assert _look(tmp_path)["next"][0].startswith(
        f"crops import table {log} --videos {tmp_path / 'artikel.csv'} --out logs --map query=COLUMN"
    )


def test_the_verb_prints_lines_or_one_json_object(tmp_path):
    logs = small_log.write(tmp_path / "logs", small_log.rows())
    text = CliRunner().invoke(verb, [str(logs)], catch_exceptions=False)
    assert "held out (1 day(s))" in text.output
    assert "scripts of queries: latin 100.0 %" in text.output
    found = json.loads(CliRunner().invoke(verb, [str(logs), "--json"], catch_exceptions=False).output)
    assert found["tables"]["searches"]["rows"] == 90


def test_each_share_of_a_script_is_of_the_searches(tmp_path):
    log = small_log.rows()
    log["searches"] = [{**r, "query": "红烧肉" if n % 3 else "stew"} for n, r in enumerate(log["searches"])]
    found = _look(small_log.write(tmp_path / "logs", log))
    assert found["scripts"]["queries"] == {"han": 0.667, "latin": 0.333}


def test_a_damaged_page_is_named_and_the_rest_is_looked_at(tmp_path):
    """The footer is whole, a page is not."""
    logs = small_log.write(tmp_path / "logs", small_log.rows())
    path = next((logs / "videos").rglob("*.parquet"))
    start = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    raw = bytearray(path.read_bytes())
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(raw)
    found = _look(logs)
    assert str(path) in found["tables"]["videos"]["faults"][0]
    assert found["search"]["searches"] == 90
