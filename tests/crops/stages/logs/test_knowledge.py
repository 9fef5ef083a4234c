"""The knowledge stage against a real HTTP server: nothing is asked twice, not after a kill either; bad
answers are counted.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import uvicorn

from crops.config.knowledge import KnowledgeConfig
from crops.errors import ConfigError, InputError, ServiceError
from crops.mining import knowledge as mining
from crops.stages.base import Shard
from crops.stages.logs import knowledge
from crops.tables import artifacts, records
from crops.text import document_text
from crops.world import llm as world_llm
from crops.world import simulate
from tests.crops.services.endpoint import completion, served, videos
from tests.crops.stages import toy_release as toy

CFG = KnowledgeConfig(concurrency=4, retries=1, min_users=1)
QUERIES = 24


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    return toy.mined(tmp_path_factory.mktemp("knowledge") / "mined")


def good(_number, body):
    query = body["messages"][-1]["content"].rpartition("### Query\n")[2]
    return 200, {}, completion(videos(f"{query} one", f"{query} two"))


def run(mined, out, url, cfg=CFG, **more):
    return knowledge.run(mined, out, cfg, llm=url, **more)


def read(out):
    return artifacts.read(out, records.KNOWLEDGE).to_pylist(), artifacts.read_json(out / "knowledge.json")


def test_every_training_query_is_asked_once_with_its_exemplar(mined, tmp_path):
    with served(good) as endpoint:
        run(mined, tmp_path / "out", endpoint.url)
    rows, about = read(tmp_path / "out")
    assert len(endpoint.bodies) == about["asked"] == QUERIES
    assert (len(rows), about["accepted"], about["zero_shot"]) == (2 * QUERIES, 2 * QUERIES, 12)
    first = next(r for r in rows if r["query"] == "subject3")
    assert first["exemplar_id"] == toy.doc(3, 0)
    assert first["text"] in {
        document_text(f"subject3 {n}", ["k", "t"], "", [f"find subject3 {n}"]) for n in ("one", "two")
    }
    asked = next(q for q in endpoint.questions if q.endswith("### Query\nsubject3"))
    assert toy.TEXTS[3 * toy.PER_TOPIC] in asked
    body = endpoint.bodies[0]
    assert (
        body["response_format"]["json_schema"]["schema"]["properties"]["videos"]["maxItems"]
        == CFG.descriptions
    )


def test_no_exemplar_is_what_checkpoints_are_chosen_by(tmp_path):
    """Every clicked video of subject3 but one is held out, by a twin with the same text under another id."""
    mined = toy.mined(tmp_path / "mined")
    texts = artifacts.texts(mined)
    clicked = sorted(
        r["video_id"]
        for r in artifacts.read(mined, records.CANDIDATES).to_pylist()
        if (r["query"], r["perspective"]) == ("subject3", "click")
    )
    assert len(clicked) > 1
    twins = [{"doc_id": f"twin{d}", "text": texts[d]} for d in clicked[:-1]]
    documents = artifacts.read(mined, records.DOCUMENTS).to_pylist()
    valid = [{"query": "subject3", "video_id": t["doc_id"], "later_query": "x"} for t in twins]
    toy.write(mined, DOCUMENTS=[*documents, *twins], VALID_QR=valid)
    with served(good) as endpoint:
        run(mined, tmp_path / "out", endpoint.url)
    rows, _about = read(tmp_path / "out")
    assert {r["exemplar_id"] for r in rows if r["query"] == "subject3"} == {clicked[-1]}


def test_bad_answers_are_kept_with_their_reasons(mined, tmp_path):
    """A quarter of the answers is rubbish, one video of another is a repetition: the rest is accepted."""

    def reply(number, body):
        if number % 4 == 0:
            return 200, {}, completion("I cannot answer that.")
        return good(number, body)

    with served(reply) as endpoint:
        run(mined, tmp_path / "out", endpoint.url)
    rows, about = read(tmp_path / "out")
    assert about["rejected"] == {"not the JSON that was asked for": QUERIES // 4}
    assert len(rows) == 2 * (QUERIES - QUERIES // 4)
    lines = [json.loads(x) for x in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert len(lines) == QUERIES // 4
    assert {x["answer"] for x in lines} == {"I cannot answer that."}


def strict(number, body):
    """Of its own two descriptions it denies the second, and says nothing readable of subject3's first."""
    if "fits" not in body["response_format"]["json_schema"]["schema"]["properties"]:
        return good(number, body)
    query, text = (body["messages"][-1]["content"].split(f"### {name}\n")[1] for name in ("Query", "Video"))
    if query.startswith("subject3\n") and " one" in text:
        return 200, {}, completion("perhaps")
    return 200, {}, completion(json.dumps({"fits": int(" one" in text)}))


def test_what_the_llm_denies_when_asked_again_is_rejected(mined, tmp_path):
    cfg = CFG.model_copy(update={"check": True, "model": "m", "store": str(tmp_path / "store")})
    with served(strict) as endpoint:
        report = run(mined, tmp_path / "out", endpoint.url, cfg)
        assert len(endpoint.bodies) == 3 * QUERIES
        run(mined, tmp_path / "again", endpoint.url, cfg)
        assert len(endpoint.bodies) == 3 * QUERIES + 1, "only what was unreadable is asked again"
    rows, summary = read(tmp_path / "out")
    assert rows == read(tmp_path / "again")[0]
    assert len(rows) == QUERIES
    assert all(" one" in row["text"] for row in rows)
    assert summary["rejected"] == {knowledge.DOUBTED: QUERIES}
    assert (summary["asked"], summary["checked"]) == (QUERIES, 2 * QUERIES)
    assert report.numbers["tokens"] == summary["tokens"] > 0


def test_a_check_spends_what_is_left_of_the_budget_and_doubts_nothing_beyond(mined, tmp_path):
    with served(strict) as endpoint:
        run(mined, tmp_path / "whole", endpoint.url)
        spent = read(tmp_path / "whole")[1]["tokens"]
        cfg = CFG.model_copy(update={"check": True, "token_budget": spent})
        run(mined, tmp_path / "out", endpoint.url, cfg)
    rows, summary = read(tmp_path / "out")
    assert len(rows) > QUERIES, "what was not asked again is kept"
    assert summary["tokens"] <= 1.5 * spent


def test_rubbish_ends_the_stage_and_is_not_remembered(mined, tmp_path):
    """The restart against a repaired endpoint asks the rejected questions again: a kept bad answer would fail
    it for ever.
    """
    says = f"{QUERIES} of {QUERIES} answers were rejected, most of them: not the JSON"
    with (
        served(lambda _n, _b: (200, {}, completion("no"))) as endpoint,
        pytest.raises(ServiceError, match=says),
    ):
        run(mined, tmp_path / "out", endpoint.url)
    assert not (tmp_path / "out").exists()
    with served(good) as endpoint:
        run(mined, tmp_path / "out", endpoint.url)
    assert len(endpoint.bodies) == QUERIES


def test_a_killed_stage_asks_nothing_twice_and_ends_the_same(mined, tmp_path):
    """SIGKILL after some answers; the restart asks only what was not answered. At most `concurrency` were
    under way.
    """
    with served(good) as endpoint:
        run(mined, tmp_path / "whole", endpoint.url)
    half, code = (
        threading.Event(),
        f"""
import pathlib
from crops.config.knowledge import KnowledgeConfig
from crops.mining import knowledge as mining
from crops.stages.logs import knowledge
from crops.stages.base import Shard
p = pathlib.Path({str(mined)!r})
cfg = KnowledgeConfig.from_json({CFG.model_dump_json()!r})
knowledge.run(p, pathlib.Path({str(tmp_path / "killed")!r}), cfg, llm=input())
""",
    )

    def reply(number, body):
        if number >= 12:
            half.set()
            time.sleep(30)
        return good(number, body)

    with served(reply) as endpoint:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )
        child.stdin.write(endpoint.url + "\n")
        child.stdin.flush()
        assert half.wait(60)
        # Answers that were sent are in the cache once their four successors are asked: let those four settle.
        deadline = time.monotonic() + 20
        while len(endpoint.bodies) < 12 + CFG.concurrency and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (tmp_path / "killed").exists()
    with served(good) as again:
        run(mined, tmp_path / "killed", again.url)
    assert len(again.bodies) == QUERIES - 12
    assert read(tmp_path / "killed") == read(tmp_path / "whole")


def test_the_cache_can_lie_where_a_restart_finds_it(mined, tmp_path):
    with served(good) as endpoint:
        run(mined, tmp_path / "one" / "out", endpoint.url, cache=tmp_path / "answers.sqlite")
        run(mined, tmp_path / "two" / "out", endpoint.url, cache=tmp_path / "answers.sqlite")
    assert len(endpoint.bodies) == QUERIES


@pytest.mark.parametrize("where", ["folder", "object store"])
def test_what_another_run_asked_is_taken_from_the_store(mined, tmp_path, where):
    """Another --out, more queries in more users' words, two shards at once: only what is new is asked, and
    the budget is for that alone. An answer that was of no use is asked again.
    """
    store = str(tmp_path / "answers") if where == "folder" else f"memory://{tmp_path.name}/answers"
    few = CFG.model_copy(update={"store": store, "model": "one", "max_queries": 9})
    rest = few.model_copy(update={"max_queries": 100, "token_budget": 10 * (QUERIES - 8)})

    def reply(number, body):
        return (200, {}, completion("I cannot answer that.")) if number == 0 else good(number, body)

    with served(reply) as endpoint:
        run(mined, tmp_path / "monday", endpoint.url, few)
        assert len(endpoint.bodies) == 9
    with served(good) as endpoint:
        for n in range(2):
            run(mined, tmp_path / f"tuesday{n}", endpoint.url, rest, shard=Shard.parse(f"{n}/2"))
        assert len(endpoint.bodies) == QUERIES - 8
        other = rest.model_copy(update={"model": "two"})
        run(mined, tmp_path / "other", endpoint.url, other.model_copy(update={"max_queries": 3}))
        assert len(endpoint.bodies) == QUERIES - 8 + 3, "another model's answers are others"
    with served(good) as endpoint:
        run(mined, tmp_path / "wednesday", endpoint.url, rest)
        run(mined, tmp_path / "whole", endpoint.url, CFG.model_copy(update={"model": "one"}))
        assert len(endpoint.bodies) == QUERIES, "only the last, which knows no store"
    rows, about = read(tmp_path / "wednesday")
    assert rows == read(tmp_path / "whole")[0]
    assert (about["asked"], about["from_store"], about["tokens"]) == (QUERIES, QUERIES, 0)
    merged = mining.merged([read(tmp_path / f"tuesday{n}")[1] for n in range(2)])
    assert (merged["asked"], merged["from_store"], merged["tokens"]) == (QUERIES, 8, 10 * (QUERIES - 8))


def test_a_store_needs_the_models_name_and_names_a_broken_file(mined, tmp_path):
    with pytest.raises(ConfigError, match=r"store is 'answers', but model 'default' may be another"):
        KnowledgeConfig.parse({"store": "answers"})
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers/0.parquet").write_bytes(b"PAR1")
    cfg = CFG.model_copy(update={"store": str(tmp_path / "answers"), "model": "one"})
    with served(good) as endpoint, pytest.raises(InputError, match=r"answers/0.parquet: not a readable"):
        run(mined, tmp_path / "out", endpoint.url, cfg)


def test_over_budget_is_said(mined, tmp_path):
    with served(good) as endpoint:
        run(
            mined,
            tmp_path / "out",
            endpoint.url,
            CFG.model_copy(update={"token_budget": 50, "concurrency": 1}),
        )
    about = read(tmp_path / "out")[1]
    assert (about["asked"], about["not_asked_over_budget"], about["tokens"]) == (5, QUERIES - 5, 50)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (lambda _n, _b: (500, {}, "oops"), "answers 500"),
        (lambda _n, _b: (403, {}, "no"), "refuses with 403"),
        (lambda _n, _b: (200, {}, "<html>"), "not an OpenAI-compatible"),
        (lambda _n, _b: (200, {}, completion("?")), "rejected"),
        (lambda _n, _b: (200, {"X-Before-S": "1"}, ""), "no answer within 0.2 s"),
        (None, "cannot be reached"),
    ],
    ids=["fails", "refuses", "speaks HTML", "rubbish", "late", "down"],
)
def test_a_bad_endpoint_is_one_line_and_exit_code_2(mined, tmp_path, reply, says):
    from crops.cli import mine, support

    config = tmp_path / "c.yaml"
    limit_s = 0.2 if "0.2 s" in says else 10.0
    config.write_text(f"knowledge: {{retries: 1, concurrency: 2, timeout_s: {limit_s}}}\n")
    with served(reply or good) as endpoint:
        url = endpoint.url if reply else "http://127.0.0.1:9/v1"
        words = [
            "--logs",
            mined,
            "--candidates",
            mined,
            "--out",
            tmp_path / "out",
            "--llm",
            url,
            "--config",
            config,
        ]
        lines = []
        with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
            patch.setattr(support.click, "echo", lambda line, err=False: lines.append(line))
            support.guarded(lambda: mine.knowledge.main(list(map(str, words)), standalone_mode=False))
    assert ended.value.code == 2
    assert len(lines) == 1
    assert says in lines[0]
    assert "\n" not in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_query_of_few_users_is_in_no_prompt(mined, tmp_path):
    """Of the toy's training queries half were typed by two users."""
    with served(good) as endpoint:
        run(mined, tmp_path / "out", endpoint.url, KnowledgeConfig(concurrency=4, retries=1))
    asked = {body["messages"][-1]["content"].rpartition("### Query\n")[2] for body in endpoint.bodies}
    assert asked == {f"subject{t}" for t in range(12)}


def test_without_an_llm_the_table_is_there_and_empty(mined, tmp_path):
    report = knowledge.run(mined, tmp_path / "out", CFG)
    assert read(tmp_path / "out") == ([], {"asked": 0, "accepted": 0})
    assert "no LLM was given" in report.notes[0]


def test_the_worlds_own_endpoint(tmp_path):
    """The simulated world's app behind uvicorn on a free port, asked about queries of that world: 4.2 % of
    its answers are bad, a quarter of those not even JSON.
    """
    world = tmp_path / "world"
    simulate.write(world, scale="tiny", seed=1, incumbent="lexical", videos_per_intent=None)
    names = sorted(simulate.load(world / "world.json").queries.texts)[:60]
    mined = toy.write(
        tmp_path / "mined",
        DOCUMENTS=toy.DOCUMENTS,
        CANDIDATES=toy.candidates(),
        VALID_QR=[],
        QUERIES=[{"query": q, "split": "train", "searches": 1, "clicks": 0, "users": 5} for q in names],
    )
    server = uvicorn.Server(uvicorn.Config(world_llm.app(world), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        run(mined, tmp_path / "out", f"http://127.0.0.1:{port}/v1")
    finally:
        server.should_exit = True
        thread.join()
    rows, about = read(tmp_path / "out")
    assert about["asked"] == len(names)
    assert about["rejected"].get("not the JSON that was asked for", 0) <= 5
    assert len({r["query"] for r in rows}) >= len(names) - 5


@pytest.mark.slow
@pytest.mark.llm
@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="the extra `llm` is not installed")
def test_the_small_real_llm_answers_in_the_schema(tmp_path):
    """Six everyday queries: at least half of the answers pass the checks."""
    asked = {
        "how to bake bread": "easy sourdough bread at home | bread baking | how to bake bread",
        "funny cats": "my cat falls off the sofa | cat funny | cute cats",
        "learn guitar": None,
        "tokyo travel": "48 hours in tokyo | tokyo travel food | things to do in tokyo",
        "fix a flat tyre": None,
        "workout at home": "10 minute abs without equipment | fitness abs | home workout",
    }
    queries = [{"query": q, "split": "train", "searches": 1, "clicks": 0, "users": 5} for q in asked]
    shown = {q: f"v{n}" for n, q in enumerate(asked)}
    clicks = [
        {"query": q, "video_id": shown[q], "perspective": "click", "first_ts": 0, "support": 1}
        for q, text in asked.items()
        if text
    ]
    documents = [{"doc_id": shown[q], "text": text or "something else"} for q, text in asked.items()]
    mined = toy.write(
        tmp_path / "mined", DOCUMENTS=documents, QUERIES=queries, CANDIDATES=clicks, VALID_QR=[]
    )
    run(mined, tmp_path / "out", "local", KnowledgeConfig(max_rejected_share=1.0, timeout_s=300))
    rows, about = read(tmp_path / "out")
    assert about["asked"] == len(asked)
    assert len({r["query"] for r in rows}) >= len(asked) / 2, about


def test_shards_ask_each_query_once_and_together_make_the_whole(mined, tmp_path):
    with served(good) as endpoint:
        run(mined, tmp_path / "whole", endpoint.url)
        asked = len(endpoint.bodies)
        for n in range(3):
            run(
                mined,
                tmp_path / f"part{n}",
                endpoint.url,
                shard=Shard.parse(f"{n}/3"),
                cache=tmp_path / f"{n}.sqlite",
            )
    assert len(endpoint.bodies) == 2 * asked
    whole, about = read(tmp_path / "whole")
    parts = [read(tmp_path / f"part{n}") for n in range(3)]
    assert all(rows for rows, _ in parts), "no shard is empty"
    assert sorted((r["query"], r["doc_id"]) for rows, _ in parts for r in rows) == [
        (r["query"], r["doc_id"]) for r in whole
    ]
    merged = mining.merged([one for _, one in parts])
    assert {k: v for k, v in merged.items() if k != "examples"} == {
        k: v for k, v in about.items() if k != "examples"
    }
    assert len(merged["examples"]) == 5


@pytest.mark.parametrize("text", ["3/3", "1", "-1/2", "a/b", "0/0"])
def test_a_shard_that_is_none_is_one_line(text):
    with pytest.raises(ConfigError, match="expected INDEX/COUNT"):
        Shard.parse(text)
