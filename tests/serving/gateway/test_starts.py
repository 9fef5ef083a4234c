"""The gateway's process until it serves: while it waits for its first release, and by settings that lead
nowhere.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"videos": "nowhere"}, "gateway: nowhere: holds no Parquet file, expected the table videos"),
        ({"videos": "other"}, "gateway: other/x.parquet: expected video_id and duration_s: "),
        ({"alternatives": {"base": "other"}}, "gateway: alternatives: base is other, expected the folder of"),
    ],
)
def test_a_setting_that_leads_nowhere_ends_it_with_a_line(tmp_path, setting, says):
    (tmp_path / "other").mkdir()
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other/x.parquet")
    settings = {"manifest": "none.json", "port": launch.free_ports(1)[0], **setting}
    (tmp_path / "gateway.json").write_text(json.dumps(settings))
    ended = subprocess.run(
        [sys.executable, "-m", "serving.gateway", "gateway.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert (ended.returncode, line.startswith(says)) == (1, True), ended.stderr
