"""The world's LLM: an OpenAI-compatible endpoint that knows the lexicon, errs at a known rate and never reads
truth/.
"""

import builtins
import io
import json
import pathlib
import shutil

import pytest
from fastapi.testclient import TestClient

from crops.mining import knowledge
from crops.text import document_text, normalise_query
from crops.world import llm
from tests.crops.world.binomial import within

N = 4_000


@pytest.fixture(scope="module")
def model(tiny_world):
    return llm.Model(tiny_world, bad_share=llm.BAD_SHARE, seed=0)


def _prompt(query: str, number: int = 0) -> str:
    return f"### Role\nYou write videos. {number}\n\n### Query\n{query}\n"


def _ask(client: TestClient, query: str, most: int = 3) -> dict:
    schema = {"type": "object", "properties": {"videos": {"type": "array", "maxItems": most}}}
    body = {
        "model": "anything",
        "temperature": 0.7,
        "messages": [{"role": "user", "content": _prompt(query)}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "videos", "schema": schema}},
    }
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200
    return reply.json()


def test_same_prompt_same_answer_other_prompt_other_answer(model, tiny_world):
    query = tiny_world.queries.texts[5]
    again = llm.Model(tiny_world, bad_share=llm.BAD_SHARE, seed=0)
    assert model.answer(_prompt(query), 3) == again.answer(_prompt(query), 3)
    assert model.answer(_prompt(query), 3) != model.answer(_prompt(query, 1), 3)
    assert model.answer(_prompt(query), 3) != llm.Model(tiny_world, bad_share=llm.BAD_SHARE, seed=1).answer(
        _prompt(query), 3
    )


def test_every_answer_is_the_fields_of_a_video(model, tiny_world):
    for number, query in enumerate(tiny_world.queries.texts[:200]):
        try:
            found = json.loads(model.answer(_prompt(query, number), 3))["videos"]
        except json.JSONDecodeError:
            continue  # the bad share: some answers are cut off
        assert len(found) == 3
        for video in found:
            assert set(video) == {"caption", "tags", "cover", "keywords", "related_queries"}
            assert document_text(
                video["caption"], video["keywords"], video["cover"], video["related_queries"]
            )


def test_bad_answers_are_within_chance_of_the_share(tiny_world):
    """An unambiguous query is right when its video is of its subject. A bad answer is cut off or about
    anything; about anything can hit by accident, so answers are compared with those of a model that never
    errs, draw for draw.
    """
    meant = tiny_world.queries.intent_share(tiny_world.popularity)
    clear = next(text for text, shares in meant.items() if len(shares) == 1)
    subject = tiny_world.videos.intents[next(iter(meant[clear]))].subject
    model, faultless = (llm.Model(tiny_world, bad_share=share, seed=0) for share in (llm.BAD_SHARE, 0.0))
    query, bad, cut = tiny_world.queries.texts[clear], 0, 0
    for number in range(N):
        prompt = _prompt(query, number)
        good = faultless.answer(prompt, 1)
        video = json.loads(good)["videos"][0]
        assert subject in " ".join([video["caption"], *video["keywords"]]) or video["tags"], video
        answer = model.answer(prompt, 1)
        bad += answer != good
        cut += answer == '{"videos": [{"caption": "'
    assert within(bad, N, llm.BAD_SHARE)
    assert within(cut, N, llm.BAD_SHARE / 4)


def test_it_never_reads_truth(tmp_path, paths_log, monkeypatch):
    """Opening anything under truth/ is an error here, and without truth/ the endpoint answers the same."""
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(paths_log.folder / "world.json", bare / "world.json")
    opened: list[str] = []

    def spy(real):
        def call(file, *args, **kwargs):
            opened.append(str(file))
            return real(file, *args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", spy(builtins.open))
        patched.setattr(io, "open", spy(io.open))
        patched.setattr(pathlib.Path, "open", spy(pathlib.Path.open))
        full = _ask(TestClient(llm.app(paths_log.folder)), "easy ramen")
    assert any(name.endswith("world.json") for name in opened), "the spy saw nothing"
    assert not [name for name in opened if "truth" in name or name.endswith(".parquet")]
    assert _ask(TestClient(llm.app(bare)), "easy ramen") == full


def test_the_endpoint_speaks_openai(paths_log, tiny_world):
    client = TestClient(llm.app(paths_log.folder))
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/v1/models").json()["data"][0]["id"] == "world"
    reply = _ask(client, tiny_world.queries.texts[1], most=2)
    assert reply["object"] == "chat.completion"
    choice = reply["choices"][0]
    assert (choice["finish_reason"], choice["message"]["role"]) == ("stop", "assistant")
    assert len(json.loads(choice["message"]["content"])["videos"]) == 2
    assert (
        reply["usage"]["total_tokens"]
        == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
        > 0
    )


def test_a_query_that_nobody_typed_is_answered_by_its_words(model, tiny_world):
    intent = tiny_world.videos.intents[0]
    made_up = f"zzz {intent.subject} {intent.facet}"
    assert made_up not in model.meant
    guessed = model._guess(made_up)
    best = max(guessed, key=guessed.get)
    assert tiny_world.videos.intents[best].subject == intent.subject
    assert model._guess("qqq www") == {i: float(p) for i, p in enumerate(tiny_world.popularity)}


def test_the_mining_sides_prompt_goes_in_and_its_parser_accepts_what_comes_out(model, tiny_world):
    """Two readings of the contract: the method's prompt and parser, and the world's own."""
    accepted = rejected = 0
    for text in range(0, len(tiny_world.queries.texts), 5):
        query = tiny_world.queries.texts[text]
        prompt = knowledge.messages(query, "a bowl of ramen", descriptions=3)[-1]["content"]
        good, bad = knowledge.parse(model.answer(prompt, 3), exemplar=None)
        accepted, rejected = (
            accepted + len(good),
            rejected + len([b for b in bad if b != "twice in one answer"]),
        )
    assert accepted > 400
    assert rejected < 0.1 * accepted


def _shown(world, number):
    videos = world.videos
    return document_text(
        videos.captions[number], videos.keywords[number], videos.covers[number], videos.related[number]
    )


def test_it_writes_the_queries_that_ask_for_a_video(tiny_world):
    """A faultless one means the video's own need by most of them, and some of its wordings nobody has typed:
    it knows the language, not the log.
    """
    model = llm.Model(tiny_world, bad_share=0.0, seed=0)
    right = typed = total = 0
    for number in range(0, len(tiny_world.videos.intent), 5):
        prompt = _prompt(_shown(tiny_world, number))
        queries = json.loads(model.answer(prompt, 3, "queries"))["queries"]
        assert len(queries) == 3
        assert model.answer(prompt, 3, "queries") == json.dumps({"queries": queries})
        need = int(tiny_world.videos.intent[number])
        for query in map(normalise_query, queries):
            total += 1
            typed += query in model.meant
            right += need in (model.meant.get(query) or model._guess(query))
    assert right > 0.8 * total
    assert 0.1 * total < typed < 0.9 * total


def test_bad_queries_are_within_chance_of_the_share(tiny_world):
    """Draw for draw against one that never errs; a wrong need can be typed like the right one by accident."""
    model, faultless = (llm.Model(tiny_world, bad_share=share, seed=0) for share in (llm.BAD_SHARE, 0.0))
    bad = cut = 0
    for number in range(N):
        prompt = _prompt(_shown(tiny_world, 0), number)
        answer = model.answer(prompt, 3, "queries")
        bad += answer != faultless.answer(prompt, 3, "queries")
        cut += answer == '{"queries": ["'
    assert within(bad, N, llm.BAD_SHARE)
    assert within(cut, N, llm.BAD_SHARE / 4)


def test_the_endpoint_tells_the_question_by_its_schema(paths_log):
    client = TestClient(llm.app(paths_log.folder))
    for kind, most in (("queries", 4), ("videos", 2)):
        schema = {"type": "object", "properties": {kind: {"type": "array", "maxItems": most}}}
        reply = client.post(
            "/v1/chat/completions",
            json={
                "messages": [{"role": "user", "content": _prompt("ramen at home | ramen")}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "any", "schema": schema}},
            },
        )
        answer = json.loads(reply.json()["choices"][0]["message"]["content"])
        assert [(name, len(values)) for name, values in answer.items()] == [(kind, most)]


def test_it_affirms_its_own_answers_and_denies_those_to_another_need(tiny_world):
    """Without errors it affirms nearly all of its own; those to a query of another subject nearly never."""
    model = llm.Model(tiny_world, bad_share=0.0, seed=0)
    meant = tiny_world.queries.intent_share(tiny_world.popularity)
    clear = [text for text, shares in meant.items() if len(shares) == 1][:40]
    own, other = 0, 0
    for one, two in zip(clear, clear[20:] + clear[:20], strict=True):
        query, stranger = (tiny_world.queries.texts[n] for n in (one, two))
        accepted, _ = knowledge.parse(model.answer(_prompt(query), 1), exemplar=None)
        for asked in (query, stranger):
            prompt = knowledge.check_messages(asked, accepted[0])[-1]["content"]
            verdict = knowledge.fits(model.answer(prompt, 1, "fits"))
            own += verdict is True and asked == query
            other += verdict is True and asked == stranger
    assert own >= 36
    assert other <= 10
