"""The gateway's process while it waits for its first release."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crops.release import manifest
from crops.release.manifest import Manifest
from serving.triton import launch
from tests.serving import releases

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_waits_for_a_triton_that_says_nothing_ends_at_once(tmp_path, number):
    url, log = str(tmp_path / "manifest.json"), tmp_path / "log"
    manifest.write(url, Manifest(generation=1, arms={"control": releases.build(tmp_path, 1)[0]}))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {
            "manifest": url,
            "triton": f"127.0.0.1:{silent.getsockname()[1]}",
            "state": str(tmp_path / "state"),
            "events": str(tmp_path / "events"),
            "port": launch.free_ports(1)[0],
        }
        (tmp_path / "gateway.json").write_text(json.dumps(settings))
        with log.open("wb") as out:
            gateway = subprocess.Popen(
                [sys.executable, "-m", "serving.gateway", str(tmp_path / "gateway.json")],
                stderr=out,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        try:
            while "Waiting for application startup" not in log.read_text():
                assert gateway.poll() is None, log.read_text()
                time.sleep(0.05)
            silent.accept()  # it asks for the model, and would go on doing so for two minutes
            gateway.send_signal(number)
            assert gateway.wait(10) == -number
        finally:
            gateway.kill()
            gateway.wait()
    assert "Traceback" not in log.read_text()
