"""The compose file of a laptop: its rules, its configs by their own tools, and our five services of it up and
answering.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml

from crops.release.layout import sha256
from serving.triton import launch
from tests.crops.stages import toy_release as toy

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker/compose.yaml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("crops/")]


def compose(*words: str, **environment: str) -> str:
    """Compose's own command, as a plugin of docker or by its old name."""
    env = {**os.environ, "PATH": f"/usr/bin:{os.environ['PATH']}", **environment}
    base = ["docker-compose"] if shutil.which("docker-compose", path=env["PATH"]) else ["docker", "compose"]
    done = subprocess.run(
        [*base, "-p", "crops-test", "-f", str(COMPOSE), *words], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_pinned_reachable_from_this_machine_alone_and_locked_down(name):
    service = SERVICES[name]
    tag = service["image"].rsplit(":", 1)[-1]
    assert any(c.isdigit() for c in tag), service["image"]
    assert "latest" not in tag
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), port
    if name in OURS and name != "volumes":  # which only changes owners, and has no network
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert not source.startswith(".") or (COMPOSE.parent / source).exists(), source


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("tool", "command", "file"),
    [("promtool", ["check", "config"], "prometheus.yaml"), ("amtool", ["check-config"], "alertmanager.yaml")],
)
def test_prometheus_and_alertmanager_read_their_configs(tmp_path, tool, command, file):
    if shutil.which(tool) is None:
        pytest.skip(f"not run: {tool} is not installed (tests/install_system_parts)")
    shutil.copyfile(COMPOSE.parent / "compose" / file, tmp_path / file)
    shutil.copytree(ROOT / "monitoring/rules", tmp_path / "rules")
    done = subprocess.run([tool, *command, str(tmp_path / file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def up(engine, images, tmp_path):
    """Ports of gateway and MLflow, which keeps its tables in SQLite: public images (Postgres, Redis) cannot
    be counted on.
    """
    gateway, mlflow = launch.free_ports(2)
    env = {
        "GATEWAY_PORT": str(gateway),
        "MLFLOW_PORT": str(mlflow),
        "MLFLOW_BACKEND": "sqlite:////var/lib/crops/mlflow.db",
    }
    try:
        compose("up", "-d", "--no-deps", "volumes", "mlflow", **env)
        yield gateway, mlflow, env
    finally:
        compose("down", "-v", "-t", "10", **env)


def until(ask, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if (found := ask()) is not None:
                return found
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    pytest.fail(what() if callable(what) else what)


@pytest.mark.docker
@pytest.mark.timeout(1_800)
def test_registry_release_triton_and_gateway_come_up_and_answer(up, tmp_path):
    gateway, mlflow, env = up
    alive = lambda url: lambda: True if httpx.get(url, timeout=5).status_code == 200 else None  # noqa: E731
    until(alive(f"http://127.0.0.1:{mlflow}/health"), 90, lambda: compose("logs", "mlflow", **env))
    texts = {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}
    assert toy.champion(tmp_path, texts, uri=f"http://127.0.0.1:{mlflow}")
    env["CROPS_SHA256"] = sha256(tmp_path / "registered/release/checksums.json")
    compose("up", "-d", "--no-deps", "first-release", "triton", "gateway", **env)
    address = f"http://127.0.0.1:{gateway}"
    until(
        alive(f"{address}/readyz"), 120, lambda: compose("logs", "first-release", "triton", "gateway", **env)
    )
    found = httpx.post(
        f"{address}/v1/search", json={"query": "subject1", "user_id": "u", "k": 3}, timeout=10
    ).json()
    assert [len(found["results"]), found["release"]] == [3, "models:/crops/1"]
    event = {
        "search_id": found["search_id"],
        "video_id": found["results"][0]["video_id"],
        "type": "click",
        "ts": "2026-01-01T00:00:00Z",
    }
    assert httpx.post(f"{address}/v1/events", json=[event], timeout=10).status_code == 202
    assert json.loads(httpx.get(f"{address}/v1/release").text)["generation"] == 1
