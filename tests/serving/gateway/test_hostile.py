"""What a client or a store may send that is valid and meant ill, before a gateway that serves nothing yet."""

import asyncio
import contextlib

import httpx
import pytest

from crops.errors import ServiceError
from serving import reformulation, shown
from serving.gateway import app as http
from serving.gateway import server
from serving.gateway.service import Service
from serving.gateway.settings import Settings

EVENT = '[{"search_id": "a", "video_id": "v", "type": "play", "play_s": %s, "ts": %s}]'
JSON = {"content-type": "application/json"}
TS = '"2026-01-01T00:00:00Z"'


def service_in(folder) -> Service:
    return Service(
        Settings(manifest=str(folder / "manifest.json"), state=folder, poll_s=0.01),
        secret=b"s" * 32,
        log=None,
        reformulations=reformulation.InProcess(window_s=90),
        shown=shown.InProcess(within_s=90),
    )


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("search", '{"query": "q", "user_id": "u", "k": 1, "\\ud800": 1}', 400),  # half a character
        ("search", '{"query": "q", "\\ud800": 1}', 400),
        ("search", '{"query": "\\ud800", "user_id": "u"}', 400),
        ("search", '{"query": "q", "user_id": "u", "k": true}', 400),
        ("search", '{"query": "q", "user_id": "u", "k": "7"}', 400),
        ("search", '{"query": "q", "user_id": "u", "k": 1e400}', 400),
        ("search", '{"query": "q", "user_id": "u", "k": 7}', 503),
        ("events", EVENT % ("1", "17"), 400),
        ("events", EVENT % ("1", '"1764547200000"'), 400),
        ("events", EVENT % ("1", "1e300"), 400),
        ("events", EVENT % ("true", TS), 400),
        ("events", EVENT % ('"1"', TS), 400),
        ("events", EVENT % ("NaN", TS), 400),
        ("events", EVENT % ("1", TS), 404),
        ("events", EVENT % ("null", TS), 404),
    ],
)
def test_a_body_that_is_not_the_contract_is_refused_in_its_words(tmp_path, path, body, status):
    async def work():
        service = service_in(tmp_path)
        app = http.create(service.settings, None)
        app.state.service = service
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post(f"/v1/{path}", content=body.encode(), headers=JSON)
            assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
        await service.close()

    asyncio.run(work())


def test_whatever_a_look_at_the_manifest_raises_the_next_look_comes(tmp_path, monkeypatch):
    """A task that ends says nothing: a gateway would serve the release of that moment for ever."""
    looks = []

    async def look():
        looks.append(1)
        raise (RuntimeError("of a library"), ServiceError("of ours"))[len(looks) % 2]

    async def work():
        service = service_in(tmp_path)
        monkeypatch.setattr(service.holder, "look", look)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(service.keep_up(), 1.0)
        await service.close()

    asyncio.run(work())
    assert len(looks) > 3


@pytest.mark.parametrize(
    ("text", "variables", "says"),
    [
        ("{", {}, "Settings: not JSON"),
        ('{"port": 0}', {}, "Settings.manifest"),
        ('{"manifest": "m", "nonsense": 1}', {}, "no key 'nonsense'"),
        ('{"manifest": "m"}', {"CROPS_REPLICA": "a b"}, "CROPS_REPLICA"),
        ('{"manifest": "m"}', {"CROPS_REDIS": "me:word@localhost"}, "address of Redis"),
        ('{"manifest": "m"}', {"CROPS_REDIS": f"redis://me:{'word'}@localhost:x"}, "address of Redis"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence_without_a_password(
    tmp_path, monkeypatch, text, variables, says
):
    (tmp_path / "gateway.json").write_text(text)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"gateway: .*{says}") as ended:
        server.main(tmp_path / "gateway.json")
    assert "word" not in str(ended.value)
