"""A part of `crops serve` dies or hangs: it is found within seconds and back without a person."""

import os
import signal
import subprocess
import time
import uuid

import httpx
import pytest

from crops.services.registry import Registry
from crops.stages.release import deploy

pytestmark = pytest.mark.triton
FOUND_S, BACK_S = 5.0, 30.0


def pids(pattern):
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def ask(address):
    """Status and release of a search that no cache knows, and whether it says that it is ready."""
    body = {"query": f"subject1 {uuid.uuid4().hex}", "user_id": "u", "k": 1}
    try:
        answer = httpx.post(f"{address}/v1/search", json=body, timeout=5)
        ready = httpx.get(f"{address}/readyz", timeout=5).status_code
    except httpx.HTTPError:
        return None, None, None
    return answer.status_code, answer.json().get("release"), ready


def until(address, wanted, seconds):
    end, found = time.monotonic() + seconds, None
    while time.monotonic() < end:
        if wanted(found := ask(address)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{found} after {seconds} s")


def well(found):
    return found[0] == found[2] == 200


@pytest.mark.parametrize(
    ("part", "number"),
    [
        ("stubs", signal.SIGKILL),
        ("stubs", signal.SIGSTOP),
        ("triton", signal.SIGSTOP),
        ("triton", signal.SIGKILL),
        ("gateway", signal.SIGSTOP),
    ],
)
def test_it_is_found_and_comes_back(stack, part, number):
    root, _uri, cfg, _triton = stack
    address = cfg.gateways[0]
    until(address, well, BACK_S)
    time.sleep(1.5)  # a watch has seen the processes
    before = pids(
        {
            "stubs": f"python_backend_stub {root}/state/models/",
            "triton": f"^[^ ]*tritonserver --model-repository={root}/state/models",
            "gateway": f"serving.gateway {root}/state/gateway.json",
        }[part]
    )
    assert before
    for pid in before:
        os.kill(pid, number)
    until(address, lambda found: found[2] != 200, FOUND_S + 5)  # a question to what hangs takes up to 5 s
    until(address, well, BACK_S)


def test_after_a_deploy_a_restarted_triton_serves_what_the_manifest_says(stack):
    root, uri, cfg, _triton = stack
    address, registry = cfg.gateways[0], Registry(uri, "crops")
    deploy.release(registry, "2", "control", cfg)
    try:
        until(address, lambda found: found[:2] == (200, "models:/crops/2"), BACK_S)
        for pid in pids(f"^[^ ]*tritonserver --model-repository={root}/state/models"):
            os.kill(pid, signal.SIGKILL)
        until(address, lambda found: found[0] != 200, FOUND_S)
        until(address, lambda found: found == (200, "models:/crops/2", 200), BACK_S)
    finally:
        deploy.release(registry, "1", "control", cfg)
