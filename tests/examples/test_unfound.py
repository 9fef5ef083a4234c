"""The package of examples/unfound: hand-made cases of each step, an LLM that answers rubbish, and the way of
its README on a tiny world, from `pip install .` to pairs that θ decided.
"""

import datetime as dt
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from crops import perspectives
from crops.config.all import Config
from crops.errors import ServiceError
from crops.services import world_llm
from crops.stages.learn.train import encoder_of
from crops.tables import artifacts, records
from crops.text import normalise_query
from crops.world import simulate
from tests.crops.services.endpoint import completion, served
from tests.crops.stages import toy_release as toy

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "unfound"
CONFIG = {
    "train": {"base": "small"},
    "knowledge": {"retries": 1, "concurrency": 4},
    "discriminate": {"epochs": 1, "max_pairs": 300, "dual_steps": 0, "max_tokens": 24, "ladder_pairs": 50},
}


@pytest.fixture(scope="module")
def writer():
    sys.path.insert(0, str(PACKAGE))
    try:
        yield importlib.import_module("crops_unfound_writer")
    finally:
        sys.path.remove(str(PACKAGE))


class Plane:
    """Texts as points on the unit circle, by their angle in degrees."""

    def __init__(self, angles):
        self.angles = angles

    def encode(self, texts, *, kind):
        radians = np.radians([self.angles[text] for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_a_query_that_finds_its_document_is_kept_and_one_that_does_not_is_dropped(writer):
    """Documents at 0°, 40° and 90°. From 10° the order is 0, 40, 90; from 60° it is 40, 90, 0."""
    plane = Plane({"a": 0, "b": 40, "c": 90, "near a": 10, "near b": 60})
    pairs = [("near a", 0), ("near a", 1), ("near b", 0), ("near b", 1), ("near b", 2)]
    assert writer.round_trip(plane, ["a", "b", "c"], pairs, first=1) == [True, False, False, True, False]
    assert writer.round_trip(plane, ["a", "b", "c"], pairs, first=2) == [True, True, False, True, True]
    assert all(writer.round_trip(plane, ["a", "b", "c"], pairs, first=9))
    assert writer.round_trip(plane, ["a", "b", "c"], [], first=1) == []


@pytest.mark.parametrize(
    ("answer", "accepted", "rejected"),
    [
        ('{"queries": ["  Sour DOUGH ", "ｂｒｅａｄ"]}', ["sour dough", "bread"], []),
        ('{"queries": ["sour dough", "Sour dough!", "b"]}', ["sour dough", "b"], ["twice in one answer"]),
        ('{"queries": ["a b c d e f g h i j k l m", 7, " "]}', [], ["too long", "no text", "no text"]),
        ('{"queries": ["day 1", "day 1 | bread", "ok"]}', ["ok"], ["copy of the document"] * 2),
        ('{"queries": ["a", "b", "c", "more than was asked"]}', ["a", "b", "c"], []),
        ('{"queries": ["\\ud83d"]}', [], ["half a character"]),
        ('{"queries": []}', [], ["no queries in the answer"]),
        ('{"queries": "a"}', [], ["no queries in the answer"]),
        ('{"videos": []}', [], ["not the JSON that was asked for"]),
        ('["a"]', [], ["not the JSON that was asked for"]),
        ('{"queries": ["', [], ["not the JSON that was asked for"]),
    ],
)
def test_what_is_taken_of_an_answer(writer, answer, accepted, rejected):
    assert writer.parse(answer, text="day 1 | bread", queries=3) == (accepted, rejected)


def small_log(folder):
    """Five documents: 0 was clicked, 1 only in the feed, 2 found by this perspective alone, 3 by nobody, 4
    is the newest. Three queries: two users typed `rare`, `common` and `other` many.
    """
    texts = ["sour dough | bread", "fast cars", "gecko care", "bow tie knot", "northern lights"]
    toy.write(
        folder / "mined",
        DOCUMENTS=[{"doc_id": f"d{n}", "text": text} for n, text in enumerate(texts)],
        QUERIES=[
            {"query": query, "split": "train", "searches": users, "clicks": 1, "users": users}
            for query, users in (("common", 9), ("other", 5), ("rare", 2))
        ],
        CANDIDATES=[
            {"query": query, "video_id": f"d{n}", "perspective": name, "first_ts": 0, "support": support}
            for query, n, name, support in (
                ("common", 0, "click", 3),
                ("common", 1, "click", 2),
                ("other", 0, "click", 1),
                ("rare", 0, "click", 9),
                ("other", 1, "feed", 1),
                ("other", 3, "exposed", 1),
                ("newest", 2, "unfound", 1),
            )
        ],
        VALID_QR=toy.pairs(("other", "d0")),
    )
    artifacts.write_json(folder / "mined" / "augment.json", {"days": {"train": ["2026-01-01", "2026-01-02"]}})
    toy.catalogue(folder / "logs", {f"d{n}": text for n, text in enumerate(texts)})
    rows = artifacts.read(folder / "logs", records.VIDEOS).to_pylist()
    rows[4]["uploaded_at"] = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    rows[2]["uploaded_at"] = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    toy.write(folder / "logs", VIDEOS=rows)
    return folder / "logs", folder / "mined"


def test_asked_for_is_what_nobody_found_the_newest_first(writer, tmp_path, monkeypatch):
    """What this perspective brought before does not count as found: its table is written anew."""
    row = perspectives.Perspective(name="unfound", label=4, table="feed")
    monkeypatch.setitem(perspectives._registered, "unfound", row)
    logs, mined = small_log(tmp_path)
    texts = artifacts.texts(mined)
    assert writer.nobody_found(logs, mined, texts, most=9) == ["d4", "d2", "d3"]
    assert writer.nobody_found(logs, mined, texts, most=1) == ["d4"]


def test_examples_are_clicks_of_queries_that_many_typed_and_no_validation_pair(writer, tmp_path):
    _logs, mined = small_log(tmp_path)
    texts = artifacts.texts(mined)
    assert writer.exemplars(mined, texts, count=5, min_users=5) == [("common", texts["d0"])]
    assert [q for q, _ in writer.exemplars(mined, texts, count=5, min_users=2)] == ["common", "rare"]
    assert writer.exemplars(mined, texts, count=0, min_users=1) == []


def test_a_query_goes_from_the_llm_to_the_table_or_is_counted(writer, tmp_path):
    """Of d4 one query shares its words and one those of another document; d2 is answered badly; d3 is over
    the number of documents. The question holds the document last, and no rare query.
    """
    logs, mined = small_log(tmp_path)
    answers = {"northern lights": ["Northern lights tonight", "gecko care please"], "gecko care": None}

    def reply(_number, body):
        text = body["messages"][-1]["content"].rpartition("### Video\n")[2]
        queries = answers[text]
        return 200, {}, completion("no JSON" if queries is None else json.dumps({"queries": queries}))

    with served(reply) as llm:
        report = writer.run(
            logs, mined, tmp_path / "out", Config(raw=CONFIG), llm=llm.url, documents=2, first=1
        )
        assert not any("rare" in question for question in llm.questions)
        assert all("query: common" in question for question in llm.questions)
    assert report.numbers == {
        **{"unfound": 2, "asked": 2, "tokens": 20, "written": 2, "rejected": 1},
        **{"kept": 1, "documents_kept": 1},
    }
    rows = artifacts.read(tmp_path / "out", writer.UNFOUND).to_pylist()
    midnight = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert rows == [
        {"query": "northern lights tonight", "video_id": "d4", "ts": midnight, "model": "default"}
    ]
    (file,) = (tmp_path / "out" / "unfound").rglob("*.parquet")
    assert file.parent.name == "date=2026-01-02"
    assert artifacts.read_json(tmp_path / "out" / "unfound.json")["exemplars"] == ["common"]


def test_an_llm_that_answers_rubbish_ends_it_and_is_asked_again(writer, tmp_path):
    logs, mined = small_log(tmp_path)
    with served(lambda _number, _body: (200, {}, completion("As a language model ..."))) as llm:
        for count in (3, 6):
            with pytest.raises(
                ServiceError, match="3 of 3 answers were rejected, most of them: not the JSON"
            ):
                writer.run(logs, mined, tmp_path / "out", Config(raw=CONFIG), llm=llm.url)
            assert len(llm.bodies) == count, "a bad answer is not kept"
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The README's commands, with the world's LLM at a port of its own, in processes of their own."""
    folder = tmp_path_factory.mktemp("unfound")
    simulate.write(folder / "logs", scale="tiny", seed=0, videos_per_intent=15)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    place = str(folder / "installed")
    env = {
        **os.environ,
        **{"PIP_TARGET": place, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{place}",
        "CROPS_CONFIG": str(folder / "config.yaml"),
    }

    def run(commands, *, cwd=folder, code=0):
        # `crops` is this tree's, whichever the environment has installed.
        script = f'crops() {{ python -m crops "$@"; }}\n{commands}'
        done = subprocess.run(["bash", "-ec", script], cwd=cwd, env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    package = folder / "package"
    package.mkdir()
    for path in PACKAGE.iterdir():
        if path.is_file():
            (package / path.name).write_bytes(path.read_bytes())
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    install, fill, _ablate = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    run(install, cwd=package)
    (folder / "llm").mkdir()
    with world_llm.endpoint(folder / "logs", "world", folder / "llm") as url:
        assert "http://127.0.0.1:8900/v1" in fill
        run(fill.replace("http://127.0.0.1:8900/v1", url))
    return folder, run


def test_the_readmes_way_fills_the_table_for_what_nobody_found(chain, writer):
    """Every pair that was kept passes the round trip by sorting all scores too, and no other does."""
    folder, _run = chain
    table = artifacts.read(folder / "logs", writer.UNFOUND).to_pandas()
    mined = artifacts.read(folder / "mined", records.CANDIDATES).to_pandas()
    positive = mined[mined["perspective"].isin(("click", "reformulation", "feed"))]
    assert len(table) > 50
    assert not set(table["video_id"]) & set(positive["video_id"])
    assert (table["query"] == table["query"].map(normalise_query)).all()
    texts = artifacts.texts(folder / "mined")
    encoder = encoder_of(Config(raw=CONFIG).section("train"), list(texts.values()))
    documents = encoder.encode(list(texts.values()), kind="document").astype(np.float64)
    scores = encoder.encode(table["query"].tolist(), kind="query").astype(np.float64) @ documents.T
    own = scores[np.arange(len(table)), [list(texts).index(video) for video in table["video_id"]]]
    assert ((scores > own[:, None] + 1e-6).sum(axis=1) < 100).all()
    facts = artifacts.read_json(folder / "written" / "unfound.json")
    assert facts["kept"] == len(table) < facts["written"]
    assert facts["rejected"]["not the JSON that was asked for"] >= 1, "the world's LLM errs"
    queries = artifacts.read(folder / "mined", records.QUERIES).to_pandas()
    many = set(queries[(queries["split"] == "train") & (queries["users"] >= 5)]["query"])
    assert set(facts["exemplars"]) <= many
    assert len(facts["exemplars"]) == 5
    days = artifacts.read_json(folder / "mined" / "augment.json")["days"]["train"]
    assert {path.name for path in (folder / "logs" / "unfound").iterdir()} == {f"date={days[-1]}"}


def test_asked_again_without_the_endpoint_it_writes_the_same(chain):
    """Every answer is in the cache beside --out; the endpoint has gone."""
    folder, run = chain
    before = pq.read_table(folder / "written" / "unfound").to_pylist()
    run("python -m crops_unfound --logs valid --candidates mined --llm http://127.0.0.1:9/v1 --out written")
    assert pq.read_table(folder / "written" / "unfound").to_pylist() == before


def test_its_pairs_are_mined_and_theta_decides(chain, writer):
    folder, run = chain
    output = run("crops validate --logs logs --out valid2; crops augment --logs valid2 --out mined2")
    assert re.search(r"unfound_quarantined +0\n", output), output
    table = artifacts.read(folder / "logs", writer.UNFOUND).to_pandas()
    mined = artifacts.read(folder / "mined2", records.CANDIDATES).to_pandas()
    own = mined[mined["perspective"] == "unfound"]
    pairs = set(table[["query", "video_id"]].itertuples(index=False, name=None))
    assert set(own[["query", "video_id"]].itertuples(index=False, name=None)) == pairs
    assert (own["support"] == 1).all()
    before = artifacts.read(folder / "mined", records.CANDIDATES).to_pandas()
    keys = ["query", "video_id", "perspective", "later_query"]
    rest = mined[mined["perspective"] != "unfound"].sort_values(keys, ignore_index=True)
    assert rest.equals(before.sort_values(keys, ignore_index=True)), "nothing else is changed"
    run("crops discriminate --logs valid2 --candidates mined2 --out scored")
    scored = artifacts.read(folder / "scored", records.SCORED).to_pandas()
    own = scored[scored["perspective"] == "unfound"]
    assert len(own)
    np.testing.assert_array_equal(own["kept"], own["theta"] > 0.6)
    assert set(artifacts.read_json(folder / "scored/theta/theta.json")["shifts"]) == {"reformulation", "feed"}


def test_a_fault_of_the_user_is_one_line(chain):
    _folder, run = chain
    ask = "python -m crops_unfound --logs valid --candidates mined --out other --llm"
    assert re.fullmatch(r"crops: .*9/v1: cannot be reached .*\n", run(f"{ask} http://127.0.0.1:9/v1", code=2))
    assert re.fullmatch(r"crops: .*nowhere.*\n", run(f"{ask} x --candidates nowhere", code=2))


def test_where_it_is_not_installed_there_is_nothing_of_it(writer):
    """The module was imported here, and importing registers nothing."""
    assert "unfound" not in perspectives.names()
    assert "unfound" not in {table.name for table in records.logs()}
