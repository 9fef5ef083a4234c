"""Alerts start trainings once, also past restarts, refusals and repetition; and a real Alertmanager's call is
understood.
"""

import contextlib
import errno
import json
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from crops.cli.serve import retrain_hook
from crops.errors import ConfigError, ServiceError
from serving.retrain_hook import Hook, server
from serving.triton.launch import free_ports

FIRING = [{"status": "firing", "labels": {"alertname": "QueryCentroidMoves"}}]
ROOT = Path(__file__).resolve().parents[2]


class Ci:
    """Takes calls; answers with `status`."""

    def __init__(self):
        self.status, self.calls = 204, []
        ci = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                ci.calls.append((self.headers["authorization"], json.loads(body)))
                self.send_response(ci.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/dispatches"


@pytest.fixture
def ci():
    made = Ci()
    yield made
    made.server.shutdown()


def hook(ci: Ci, tmp_path: Path, clock=lambda: 1000.0) -> Hook:
    return Hook(
        ci.url,
        headers={"authorization": "Bearer ci"},
        body={"ref": "main"},
        state=tmp_path / "last.json",
        every_s=60,
        clock=clock,
    )


def test_repeated_alerts_start_one_training_also_past_a_restart(ci, tmp_path):
    assert hook(ci, tmp_path).take(FIRING)[0] == 202
    assert hook(ci, tmp_path, lambda: 1059.0).take(FIRING)[0] == 200
    assert ci.calls == [("Bearer ci", {"ref": "main"})]
    assert hook(ci, tmp_path, lambda: 1061.0).take(FIRING)[0] == 202
    assert len(ci.calls) == 2


def test_what_is_resolved_starts_nothing(ci, tmp_path):
    assert (
        hook(ci, tmp_path).take([{"status": "resolved", "labels": {"alertname": "QueryCentroidMoves"}}])[0]
        == 200
    )
    assert not ci.calls


def test_a_ci_that_refuses_is_asked_again(ci, tmp_path):
    ci.status = 500
    made = hook(ci, tmp_path)
    assert made.take(FIRING)[0] == 502
    ci.status = 204
    assert made.take(FIRING)[0] == 202


@pytest.fixture
def listening(ci, tmp_path):
    made = server(hook(ci, tmp_path, time.time), "127.0.0.1", 0, token="secret")
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/"
    made.shutdown()


def test_only_who_has_the_token_and_speaks_alertmanager_starts_anything(ci, listening):
    assert httpx.post(listening, json={"alerts": FIRING}).status_code == 401
    right = {"authorization": "Bearer secret"}
    for body in (b"", b"[]", b"{", b'{"alerts": [1]}', b'{"alerts": 3}'):
        assert httpx.post(listening, content=body, headers=right).status_code == 400
    assert httpx.post(listening, content=b'{"alerts": ' + b"[" * 100_000, headers=right).status_code == 400
    address = (httpx.URL(listening).host, httpx.URL(listening).port)
    for length, status in ((b"x", b"413"), (b"-1", b"413"), (b"9" * 5000, b"413")):
        with socket.create_connection(address, timeout=10) as one:
            one.sendall(b"POST / HTTP/1.0\r\nauthorization: Bearer secret\r\ncontent-length: ")
            one.sendall(length + b"\r\n\r\n")
            assert one.recv(100).split()[1] == status
    assert not ci.calls
    assert httpx.post(listening, json={"alerts": FIRING}, headers=right).status_code == 202


@pytest.mark.parametrize("url", ["http://[::1", "localhost:8080", "http://é\x00/"])
def test_a_call_that_cannot_be_made_is_no_start(ci, tmp_path, url):
    made = hook(ci, tmp_path)
    right, made._url = made._url, url
    assert made.take(FIRING)[0] == 502
    made._url = right
    assert made.take(FIRING)[0] == 202, "the next call is not told that a training runs"


def test_a_token_that_no_header_can_hold_is_no_start(ci, tmp_path):
    made = Hook(
        ci.url, headers={"authorization": "Bearer \u20ac"}, body={}, state=tmp_path / "last.json", every_s=60
    )
    assert made.take(FIRING)[0] == 502
    assert not (tmp_path / "last.json").exists()


@pytest.mark.parametrize(
    "held", ['{"at": 5000.0, "why": "x"}', '{"at": NaN, "why": "x"}', '{"at": 1e999, "why": "x"}', "{"]
)
def test_a_start_of_the_future_holds_nothing_up_and_is_overwritten(ci, tmp_path, held):
    """The clock was put back, or the file is not one of ours; one start then counts as ever."""
    (tmp_path / "last.json").write_text(held)
    assert [hook(ci, tmp_path).take(FIRING)[0] for _ in range(2)] == [202, 200]


def test_a_start_that_cannot_be_written_down_is_not_made(ci, tmp_path):
    status, answer = hook(ci, tmp_path / "gone").take(FIRING)
    assert status == 503
    assert "cannot be written" in answer
    assert not ci.calls


def test_a_state_that_cannot_be_read_is_an_answer(ci, tmp_path):
    """A folder in its place, as a mount of a file that is not there makes it."""
    (tmp_path / "last.json").mkdir()
    status, answer = hook(ci, tmp_path).take(FIRING)
    assert status == 503
    assert "cannot be read" in answer
    assert not ci.calls


def test_a_refused_call_whose_start_stays_written_says_so(ci, tmp_path, monkeypatch):
    """The disk fills between the two."""
    ci.status, made = 503, hook(ci, tmp_path)
    write, written = made._write, []

    def full(value):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(value)
        write(value)

    monkeypatch.setattr(made, "_write", full)
    status, answer = made.take(FIRING)
    assert status == 502
    assert "503" in answer
    assert "No space left on device: remove it, or for 60 s no training is started" in answer


@pytest.mark.prometheus
def test_a_real_alertmanager_with_our_routes_starts_a_training(ci, listening, tmp_path):
    if shutil.which("prometheus-alertmanager") is None:
        pytest.skip("no prometheus-alertmanager on this machine")
    config = yaml.safe_load((ROOT / "monitoring/alertmanager.yaml").read_text())
    (tmp_path / "token").write_text("secret")
    for receiver in config["receivers"]:
        receiver.pop("pagerduty_configs", None)
        if receiver["name"] == "retraining":
            receiver["webhook_configs"][0] |= {
                "url": listening,
                "http_config": {"authorization": {"credentials_file": str(tmp_path / "token")}},
            }
        else:
            receiver.pop("webhook_configs", None)
    config["route"]["group_wait"] = "0s"
    (tmp_path / "am.yaml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [
            "prometheus-alertmanager",
            f"--config.file={tmp_path}/am.yaml",
            f"--storage.path={tmp_path}/am",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        alerts = [
            {"labels": {"alertname": "QueryCentroidMoves", "severity": "ticket", "retrain": "true"}},
            {"labels": {"alertname": "IndexOld", "severity": "ticket"}},
        ]
        end = time.monotonic() + 30
        while time.monotonic() < end and not ci.calls:
            with contextlib.suppress(httpx.TransportError):
                httpx.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=alerts)
            time.sleep(0.5)
        assert len(ci.calls) == 1
    finally:
        process.terminate()
        process.wait(20)


def test_what_it_cannot_start_with_is_a_line(tmp_path):
    (tmp_path / "token").write_bytes(b"x")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    def started(token, port):
        files = [f"--{option}={tmp_path / token}" for option in ("token-file", "hook-token-file")]
        command = ["--url=http://ci", *files, f"--state={tmp_path}/state", f"--port={port}"]
        retrain_hook.main(command, standalone_mode=False)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:\d+: Address already in use"):
            started("token", taken.getsockname()[1])
        with pytest.raises(ConfigError, match="binary: the secret is not UTF-8 text"):
            started("binary", taken.getsockname()[1])


@pytest.mark.parametrize("token", ["", " \n"])
def test_an_empty_token_opens_no_hook(ci, tmp_path, token):
    with pytest.raises(ConfigError, match="token is empty"):
        server(hook(ci, tmp_path), "127.0.0.1", 0, token=token)
