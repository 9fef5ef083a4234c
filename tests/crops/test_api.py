"""The door: what `import crops` offers, from which tables, and that it gives what the verbs give."""

import pathlib
import subprocess
import sys
import textwrap

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import crops
from crops import api
from crops.cli.mine import augment
from crops.config.train import TrainConfig
from crops.errors import ConfigError, CropsError, InputError
from crops.evaluation import metrics, rank, sets
from crops.retriever import encoder
from crops.stages.learn import train as stage
from crops.tables import artifacts, records
from crops.world import simulate

MINED = (records.CANDIDATES, records.DOCUMENTS, records.TEST_CT, records.TEST_QR, records.VALID_QR)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "logs"
    simulate.write(folder, scale="tiny", seed=0)
    return folder


@pytest.fixture(scope="module")
def mined(logs):
    return crops.mine(logs)


def _tables(logs):
    return {table.name: artifacts.read(logs, table) for table in records.LOGS}


def _as_pandas(tables):
    """As a notebook would have them: whole numbers with gaps are doubles, times have no zone."""
    frames = {name: table.to_pandas() for name, table in tables.items()}
    for frame in frames.values():
        for column in frame.select_dtypes("datetimetz"):
            frame[column] = frame[column].dt.tz_localize(None)
    assert frames["results"]["position"].dtype == "float64"
    return frames


def _as_duckdb(tables):
    session = duckdb.connect()
    for name, table in tables.items():
        session.register(f"{name}_rows", table)
    return {name: session.sql(f"FROM {name}_rows") for name in tables}


def test_mining_needs_neither_torch_nor_kubeflow_nor_mlflow(logs):
    blocked = """
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "transformers", "kfp", "mlflow", "faiss"):
                    raise ImportError(f"{name} is blocked")
        sys.meta_path.insert(0, Blocked())
        import crops
        assert "crops.api" not in sys.modules and "pyarrow" not in sys.modules
        assert crops.mine
        print(crops.mine(sys.argv[1]).candidates.num_rows)
        try:
            crops.h_infonce
        except ImportError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(blocked), str(logs)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows, refusal = done.stdout.splitlines()
    assert int(rows) > 100
    assert refusal == "torch is blocked"


def test_every_public_name_is_there_and_says_what_it_does():
    assert dir(crops) == sorted(crops.__all__)
    for name in crops.__all__:
        assert getattr(crops, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'mines'"):
        _ = crops.mines


@pytest.mark.parametrize("form", [dict, _as_pandas, _as_duckdb], ids=["arrow", "pandas", "duckdb"])
def test_tables_in_memory_are_mined_as_the_verb_mines_the_folder(logs, mined, form, tmp_path):
    augment.main(["--logs", str(logs), "--out", str(tmp_path / "verb")], standalone_mode=False)
    given = crops.mine(form(_tables(logs)))
    for table in MINED:
        expected = artifacts.read(tmp_path / "verb", table)
        assert given.folder.table(table).equals(expected), table.name
        assert mined.folder.table(table).equals(expected), table.name
    assert given.summary == artifacts.read_json(tmp_path / "verb" / "augment.json")


@pytest.mark.parametrize("lies", ["in memory", "in a folder"])
def test_a_shop_without_feed_and_related_queries_and_with_numbers_as_ids_is_mined(lies, tmp_path):
    day = pd.Timestamp("2026-01-01 10:00")
    searches = pd.DataFrame(
        {
            "search_id": [1, 2, 3, 4],
            "user_id": [7, 7, 8, 8],
            "ts": [day, day + pd.Timedelta("30s"), day + pd.Timedelta("1d"), day + pd.Timedelta("2d")],
            "query": ["sofa", "couch", "sofa", "couch"],
        }
    )
    results = pd.DataFrame({"search_id": [2, 3, 4], "video_id": [5, 5, 5], "stage": "exposed"})
    results = results.assign(position=0, clicked=True, liked=False)
    videos = pd.DataFrame({"video_id": [5], "caption": ["Corner sofa"]})
    tables = {"searches": searches, "results": results, "videos": videos}
    if lies == "in a folder":  # where what is empty is said
        tables["videos"] = videos.assign(cover_text="", keywords=[[]], related_queries=[[]])
        for name, rows in tables.items():
            (tmp_path / name).mkdir()
            rows.to_parquet(tmp_path / name / "part-0.parquet")
    mined = crops.mine(tmp_path if lies == "in a folder" else tables)
    pairs = {(r["query"], r["video_id"], r["perspective"]) for r in mined.candidates.to_pylist()}
    assert pairs == {("couch", "5", "click"), ("sofa", "5", "click"), ("sofa", "5", "reformulation")}
    assert mined.tests["ct"].to_pylist() == [{"query": "couch", "video_id": "5"}]
    assert "feed: no such table" in mined.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("videos"), "table 'videos' is missing"),
        (lambda t: t.update(clicks=t["feed"]), "unknown table 'clicks'"),
        (lambda t: t.update(feed=3), "feed: is a int, expected a table"),
        (
            lambda t: t.update(searches=t["searches"].drop_columns("ts")),
            "searches: column 'ts' .* is missing",
        ),
        (lambda t: t.update(searches=t["searches"].slice(1)), "results: search_id '.*' is not in searches"),
        (
            lambda t: t.update(videos=t["videos"].set_column(0, "video_id", pa.nulls(len(t["videos"])))),
            "videos: .* rows, none of them acceptable.*video_id is null",
        ),
        (lambda t: t.update(searches=t["searches"].slice(0, 0)), "searches: no rows"),
        (
            lambda t: t.update(searches=t["searches"].drop_columns("ts"), results=t["results"].drop("stage")),
            r"(?s)2 faults.*searches: column 'ts'.*results: column 'stage' .*'exposed' where all were shown",
        ),
        (
            lambda t: t.update(
                searches=t["searches"].set_column(2, "ts", pa.array(["monday"] * len(t["searches"])))
            ),
            r"^logs: searches: column 'ts' is string, expected timestamp.*pd.to_datetime",
        ),
        (
            lambda t: t.update(searches=t["searches"].set_column(2, "ts", t["searches"]["ts"].cast("int64"))),
            r"^logs: searches: column 'ts' is int64, expected timestamp.*pd.to_datetime",
        ),
        (
            lambda t: t.update(videos=pd.DataFrame({"video_id": ["a", "b"], "caption": ["a", 1]})),
            "videos: cannot be read as a table: .*column caption",
        ),
        (lambda t: t.update(videos=[("v1", "a")]), "videos: holds a tuple, expected rows as dicts"),
        (lambda t: t.update(searches=[]), "searches: no rows"),
        (lambda t: t.update(searches=t["searches"].slice(0, 9), results=[]), "^logs: searches: holds 1 day"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(logs, change, message):
    tables = _tables(logs)
    change(tables)
    with pytest.raises(InputError, match=message):
        crops.mine(tables)


def test_cells_and_rows_that_are_not_as_they_should_be_are_left_out_and_named(logs):
    """Ids that pandas made floats, a query that is null, a flag nobody knows, a video twice: validation sees
    to them as it does for a folder, and everything else is mined.
    """
    tables = _tables(logs)
    whole = crops.mine(tables).candidates.num_rows
    searches = tables["searches"].to_pandas()
    number = {name: n for n, name in enumerate(searches["search_id"])}
    searches["search_id"] = searches["search_id"].map(number).astype(float)
    searches.loc[3, "query"] = None
    results = tables["results"].to_pandas()
    results["search_id"] = results["search_id"].map(number)
    results["clicked"] = results["clicked"].astype(object).where(results.index != 7, None)
    videos = pa.concat_tables([tables["videos"], tables["videos"].slice(0, 1)])
    mined = crops.mine(tables | {"searches": searches, "results": results, "videos": videos})
    assert 0.9 * whole < mined.candidates.num_rows <= whole
    notes = "\n".join(mined.notes)
    for fault in (
        "searches: query is null: 1 of",
        "results: clicked is null: 1 of",
        "videos: key stands twice: 1 of",
    ):
        assert fault in notes
    twice = crops.mine(tables | {"videos": videos})  # of our types in everything
    assert twice.documents.num_rows == tables["videos"].num_rows
    assert "videos: key stands twice: 1 of" in "\n".join(twice.notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda folder: folder / "none", "none: no such folder"),
        (lambda folder: pathlib.Path(__file__), "test_api.py: is a file: `crops import table`"),
        (lambda folder: pd.DataFrame(), "logs: is a DataFrame, expected a folder, or tables by name"),
    ],
)
def test_what_holds_no_tables_is_named(given, message, tmp_path):
    with pytest.raises(InputError, match=message):
        crops.mine(given(tmp_path))


def test_rows_as_dicts_may_leave_out_what_they_do_not_know(logs):
    """The columns are those of all rows, not of the first one; NaN is no click, an empty list no feed."""
    tables = _tables(logs) | {"feed": []}
    rows = tables["results"].to_pylist()
    assert rows[0]["play_s"] is None
    sparse = [{name: value for name, value in row.items() if value is not None} for row in rows]
    expected = crops.mine(tables | {"results": rows}).candidates
    assert crops.mine(tables | {"results": sparse}).candidates.equals(expected)
    flags = [float(row["clicked"]) for row in rows]
    clicked = pa.array([float("nan"), *flags[1:]])
    given = tables["results"].drop_columns("clicked").append_column("clicked", clicked)
    assert "results: clicked is null: 1 of" in "\n".join(crops.mine(tables | {"results": given}).notes)


def test_a_misspelt_setting_names_the_class():
    with pytest.raises(ConfigError, match="AugmentConfig knows no key 'windows_s'"):
        crops.mine("nowhere", windows_s=60)


def test_a_setting_that_only_the_verb_heeds_is_refused():
    with pytest.raises(ConfigError, match="generative is a setting of the verb"):
        crops.train([], [], generative=True)


TOPICS = {"bread": "flour yeast oven crust dough salt", "bike": "wheel chain pedal brake tyre saddle"}


def _topics():
    """Documents of two topics, and for every word of a topic a query that clicked all its documents."""
    words = [(topic, n, word) for topic, text in TOPICS.items() for n, word in enumerate(text.split())]
    documents = [{"doc_id": f"{topic}{n}", "text": f"{word} {topic}er"} for topic, n, word in words]
    pairs = [
        {"query": f"{topic} {other}", "video_id": f"{topic}{n}", "perspective": "click"}
        for topic, n, _ in words
        for other in TOPICS[topic].split()
    ]
    return documents, pairs


def test_a_loss_of_ones_own_is_a_matrix_or_a_function():
    """H-InfoNCE's own matrix (an anchor stands against all lower labels) gives the curve of its name; with
    one positive label, a function that writes InfoNCE out gives it too.
    """
    documents, pairs = _topics()
    graded = crops.label(pairs)

    def written_out(scores, labels):
        below = scores.masked_fill(labels != 0, float("-inf")).logsumexp(1, keepdim=True)
        return (scores.logaddexp(below) - scores)[labels >= 4].mean()

    losses = ("h_infonce", crops.loss_of(np.tri(6, k=-1, dtype=bool)), written_out)
    settings = {"base": "small", "steps": 3, "batch_queries": 6, "check_every": 1}
    curves = [
        [
            check["loss"]
            for check in crops.train(graded, documents, loss=loss, **settings).history["checks"][1:]
        ]
        for loss in losses
    ]
    assert curves[0] == curves[1]
    assert curves[2] == pytest.approx(curves[0], rel=1e-4)
    with pytest.raises(ValueError, match="empty diagonal"):
        crops.loss_of(np.ones((6, 6), bool))


def test_pairs_of_ones_own_are_graded_trained_on_and_evaluated(tmp_path):
    """Two topics of six words: an encoder that has learnt them finds every document of the topic.

    Without θ the ladder knows nothing, so anchors are the positives (label >= 4).
    """
    documents, pairs = _topics()
    graded = crops.label(pairs)
    assert set(graded.samples["label"].to_pylist()) == {4}
    assert graded.hierarchy["anchor_min_candidates"] == [4]
    trained = crops.train(graded, documents, base="small", steps=20, batch_queries=6, check_every=20)
    assert trained.anchor_min == 4
    assert trained.history["checks"][-1]["loss"] < 3
    assert trained.encode(["bread"]).shape == (1, trained.encoder.width)
    assert graded.only("feed").samples.num_rows == 0

    def by_topic(queries):
        return [[f"{query.split()[0]}{n}" for n in range(6)] for query in queries]

    trained.save(tmp_path / "encoder")
    systems = {"trained": trained, "saved": str(tmp_path / "encoder"), "own": by_topic}
    table = crops.evaluate(systems, documents, pa.Table.from_pylist(pairs), k=6)
    recall = dict(zip(table["system"].to_pylist(), table["recall"].to_pylist(), strict=True))
    assert recall["saved"] == recall["trained"]
    assert recall["own"] == 1.0
    assert recall["trained"] > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": lambda scores, labels: scores.sum() * float("nan")}, "train: step 0: the loss is nan"),
        ({"loss": lambda scores, labels: 1.0}, "train.loss returned a float, expected a scalar"),
        ({"loss": lambda scores, labels: scores.mean(1)}, r"returned a tensor of shape \[\d+\]"),
        ({"loss": lambda scores, labels: scores.detach().sum()}, "expected a scalar that is computed from"),
        ({"loss": 5}, "loss is a int, expected a name"),
        ({"samples": [{"query": "q", "doc_id": "d", "label": 9}]}, "samples: label is 9, expected 1..5"),
        (
            {"samples": [{"query": "q", "doc_id": "bike0", "label": 1}]},
            "train: no query has a sample with a label",
        ),
        ({"documents": [{"doc_id": "d", "text": t} for t in "ab"]}, "documents: doc_id 'd' stands twice"),
        ({"valid": [{"query": "q", "doc_id": "e"}]}, "valid: none of its doc_ids is in documents"),
        ({"valid": [{"query": "q", "id": "e"}]}, "valid: column 'doc_id' .* is missing"),
    ],
)
def test_what_nothing_can_be_learnt_from_is_named(change, message):
    documents, pairs = _topics()
    samples = [{"query": p["query"], "doc_id": p["video_id"], "label": 4} for p in pairs]
    given = {"samples": samples, "documents": documents, "base": "small", "steps": 1, "batch_queries": 4}
    given |= change
    with pytest.raises(CropsError, match=message):
        crops.train(given.pop("samples"), given.pop("documents"), **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": [{"query": "q", "doc_id": "e"}]}, "tests: none of their doc_ids is in documents"),
        ({"tests": [{"query": "q", "id": "d"}]}, "test: column 'doc_id' .* is missing"),
        ({"tests": [{"query": None, "doc_id": "d"}]}, "test: column 'query' has 1 nulls"),
        ({"documents": [{"doc_id": "d", "text": t} for t in "ab"]}, "documents: doc_id 'd' stands twice"),
        ({"systems": ["bm25"]}, "systems is a list, expected systems by name"),
        ({"systems": {"own": lambda queries: None}}, "gave 0 rankings for 1 queries"),
        ({"systems": {"own": lambda queries: [["d"], ["d"]]}}, "gave 2 rankings for 1 queries"),
        ({"systems": {"own": lambda queries: ["d e"]}}, "ranks ' ', which is no doc_id"),
        ({"k": 0}, "k is 0"),
    ],
)
def test_what_cannot_be_measured_is_named(change, message):
    given = {"systems": {"bm25": "bm25"}, "documents": [{"doc_id": "d", "text": "a"}]}
    given |= {"tests": [{"query": "q", "doc_id": "d"}]} | change
    with pytest.raises(CropsError, match=message):
        crops.evaluate(**given)


def test_ids_may_be_numbers_in_every_table_and_a_test_set_may_be_empty():
    documents = pd.DataFrame({"doc_id": [1, 2], "text": ["bread", "bike"]})
    pairs = pd.DataFrame({"query": ["bread"], "doc_id": ["1"]})
    systems = {"own": lambda queries: [[1]] * len(queries), "bm25": "bm25"}
    assert crops.evaluate(systems, documents, pairs)["recall"].to_pylist() == [1.0, 1.0]
    assert crops.evaluate(systems, documents, pairs[:0]).num_rows == 0


def test_a_misspelt_perspective_and_an_impossible_theta_are_named():
    pair = {"query": "bread", "doc_id": "d", "perspective": "click"}
    with pytest.raises(ConfigError, match="perspective 'clicks' is unknown"):
        crops.label([pair]).only("clicks")
    with pytest.raises(InputError, match=r"pairs: theta is 5, expected 0\.\.1"):
        crops.label([{**pair, "theta": 5.0}])
    with pytest.raises(InputError, match=r"pairs: .*no positive pair is kept"):
        crops.label([{**pair, "perspective": "clicks"}])


def test_training_gives_what_the_verb_gives(mined, tmp_path):
    """Two perspectives, one of them dropped in part, and the validation of the log: the same encoder."""
    found = mined.candidates.to_pandas().drop_duplicates(["query", "video_id", "perspective"])
    pairs = found[found["perspective"].isin(["click", "reformulation", "exposed"])].head(600)
    kept = (pairs["perspective"] != "reformulation") | (np.arange(len(pairs)) % 2 == 0)
    graded = crops.label(pairs.assign(kept=kept))
    assert artifacts.read(graded.folder.path, records.DROPPED).num_rows
    settings = {"base": "small", "steps": 4, "batch_queries": 8, "check_every": 2, "hard_negatives": 1}
    door = crops.train(graded, mined, **settings)
    stage.run(graded.folder.path, mined.folder.path, tmp_path / "out", TrainConfig(**settings))
    verb = encoder.load(tmp_path / "out")
    queries = ["sour dough", *mined.queries["query"].to_pylist()[:9]]
    np.testing.assert_allclose(door.encode(queries), verb.encode(queries, kind="query"), atol=1e-6)
    facts = artifacts.read_json(tmp_path / "out/train.json")
    assert [c["loss"] for c in door.history["checks"]] == [c["loss"] for c in facts["checks"]]


def test_a_sample_without_a_text_is_named_and_no_folder_of_ours():
    documents, pairs = _topics()
    rows = [{"query": p["query"], "doc_id": "lost", "label": 4} for p in pairs]
    with pytest.raises(InputError, match=r"^samples: doc_id 'lost' is neither"):
        crops.train(rows, documents, base="small", steps=1)


def test_bm25_has_the_recall_that_the_stage_gives_it(logs, mined):
    rows = mined.documents
    clicked = artifacts.read(mined.folder.path, records.TEST_CT)
    pairs = zip(clicked["query"].to_pylist(), clicked["video_id"].to_pylist(), strict=True)
    relevant = sets.grouped(pairs, {d: n for n, d in enumerate(rows["doc_id"].to_pylist())})
    ranked = rank.bm25(list(relevant), rows["text"].to_pylist(), 100)
    at_100 = metrics.recall_per_query(ranked, list(relevant.values()), 100).tolist()
    table = crops.evaluate({"bm25": "bm25"}, mined, mined.tests)
    row = table.filter(pa.compute.equal(table["set"], "ct")).to_pylist()[0]
    assert row["queries"] == len(at_100)
    assert row["recall"] == pytest.approx(sum(at_100) / len(at_100))
    assert row["low"] < row["recall"] < row["high"]


def test_what_is_written_stays_where_it_was_said(logs, tmp_path):
    mined = crops.mine(logs, out=tmp_path / "mined", examples=0)
    assert pq.read_metadata(next((tmp_path / "mined/documents").glob("*"))).num_rows == len(mined.documents)
    assert api.Mined(logs=mined.logs, folder=mined.folder).documents.equals(mined.documents)
