"""What the gateway takes from its environment: what replicas must not share, and addresses with passwords."""

import json

import pytest
from fastapi import FastAPI

from serving.gateway import server as program


@pytest.mark.parametrize("url", [None, "rediss://:secret@redis:6380/0"])
def test_redis_and_the_replicas_name_come_from_the_environment(tmp_path, monkeypatch, url):
    settings = []
    monkeypatch.setattr(program.http, "create", lambda given, *_, **__: settings.append(given) or FastAPI())
    monkeypatch.setattr(program._Draining, "run", lambda *_: None)
    monkeypatch.setenv("CROPS_REPLICA", "g-1")
    if url:
        monkeypatch.setenv("CROPS_REDIS", url)
    path = tmp_path / "gateway.json"
    path.write_text(
        json.dumps({"manifest": "m.json", "triton": "localhost:8001", "redis": "redis://redis:6379/0"})
    )
    program.main(path)
    (given,) = settings
    assert (given.replica, given.redis) == ("g-1", url or "redis://redis:6379/0")


@pytest.mark.parametrize("name", ["secret_file", "admin_token_file"])
def test_an_empty_secret_ends_it_at_its_start(tmp_path, name):
    (tmp_path / "empty").write_text("\n")
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps({"manifest": "m.json", name: str(tmp_path / "empty")}))
    with pytest.raises(SystemExit, match="empty: the secret is empty"):
        program.main(path)


@pytest.mark.parametrize("variable", [program.TOKEN_VARIABLE, program.SECRET_VARIABLE])
def test_an_empty_variable_is_no_secret(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "")
    (tmp_path / "gateway.json").write_text(json.dumps({"manifest": "m.json"}))
    with pytest.raises(SystemExit, match=f"{variable}: the secret is empty"):
        program.main(tmp_path / "gateway.json")
