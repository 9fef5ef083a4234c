"""How often `crops serve` starts a part again, and that it ends meanwhile; its parts are tried in
test_part_dies.py.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from crops.errors import ServiceError
from serving import laptop
from serving.triton import install, launch
from tests.serving import releases as toys
from tests.serving import served

ROOT = Path(__file__).resolve().parents[2]


def starting(*errors):
    """What fails with these, one after the other, and then starts."""
    left = list(errors)

    def start():
        if left:
            raise left.pop(0)
        return "started"

    return start


KILLED, SLOW = laptop._Killed("killed"), ServiceError("model m is not ready 10 s after it was loaded")


def test_a_first_start_fails_on_what_is_loaded_and_not_on_a_kill():
    told = []
    assert laptop._Restarts(2, told.append).until(starting(KILLED, KILLED)) == "started"
    assert told == ["killed; starting it again"] * 2
    with pytest.raises(ServiceError, match="model m is not ready"):
        laptop._Restarts(2, told.append).until(starting(SLOW))


def test_what_has_served_is_started_until_it_serves_or_ends_too_often():
    told = []
    assert laptop._Restarts(2, told.append).until(starting(SLOW, KILLED), again=True) == "started"
    assert len(told) == 2
    with pytest.raises(ServiceError, match="the 3th end within a minute"):
        laptop._Restarts(2, told.append).until(starting(*[SLOW] * 9), again=True)


@pytest.mark.triton
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_asked_to_while_a_triton_that_hangs_is_being_started(tmp_path, number):
    if not install.ready():
        pytest.skip("no Triton server: make triton")
    (port,) = launch.free_ports(1)
    command = served.command(tmp_path, toys.build(tmp_path / "releases"), port=port)
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        end_s, servers = time.monotonic() + 60, []
        while not servers and time.monotonic() < end_s:
            children = psutil.Process(process.pid).children(recursive=True)
            servers = [c for c in children if c.name() == "tritonserver"]
            time.sleep(0.01)
        servers[0].suspend()
        process.send_signal(number)
        assert process.wait(50) == 0
        assert not psutil.wait_procs(servers, timeout=10)[1]
    finally:
        process.kill()
