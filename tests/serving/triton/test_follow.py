"""A Triton that follows the manifest, as its own process, the way its container runs it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from crops.errors import ServiceError
from crops.release import manifest
from crops.release.manifest import Manifest
from crops.release.triton import control
from serving.triton import follow, install, launch
from tests.serving import releases as toys

pytestmark = pytest.mark.triton


@pytest.fixture
def following(tmp_path):
    if not install.ready():
        pytest.skip("no Triton server: make triton")
    http, grpc, metrics, health = launch.free_ports(4)
    url = str(tmp_path / "manifest.json")
    settings = {
        "manifest": url,
        "venv": str(install.VENV),
        "repository": str(tmp_path / "models"),
        "state": str(tmp_path / "state"),
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "health_port": health,
        "instances": 1,
        "poll_s": 0.1,
        "keep_s": 0.5,
    }
    (tmp_path / "triton.json").write_text(json.dumps(settings))
    process = subprocess.Popen([sys.executable, "-m", "serving.triton.follow", str(tmp_path / "triton.json")])
    server = launch.Server(
        process=process,
        ports=launch.Ports(http=http, grpc=grpc, metrics=metrics),
        log=tmp_path / "state/triton/triton.log",
        key="",  # only the process knows it
    )
    yield server, url, f"http://127.0.0.1:{health}"
    process.terminate()
    assert process.wait(20) in (0, 1)


def until(ask, wanted, *, seconds: float = 30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if ask() == wanted:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not {wanted} after {seconds} s")


def test_it_loads_what_the_manifest_names_and_lets_go_of_what_left_it(following, releases):
    server, url, health = following
    until(lambda: httpx.get(f"{health}/healthz").status_code, 200)
    assert httpx.get(f"{health}/readyz").status_code == 503
    until(
        lambda: "names no release" in httpx.get(f"{health}/readyz").json()["problem"], True
    )  # its first look may be to come
    one, two = releases
    manifest.write(url, Manifest(generation=1, arms={"control": one, "treatment": two}))
    until(lambda: httpx.get(f"{health}/readyz").status_code, 200)
    assert all(control.model_ready(server.http, r.model) for r in releases)
    assert toys.encode(server, one.model, ["subject1"]).shape[0] == 1
    manifest.write(url, Manifest(generation=2, arms={"control": one}))
    until(lambda: control.model_ready(server.http, two.model), False)
    assert httpx.get(f"{health}/readyz").json() == {"ready": True, "generation": 2, "problem": None}


def test_it_follows_a_manifest_that_is_put_back_under_the_same_generation(following, releases):
    server, url, _health = following
    for release in releases:
        Path(url).write_text(Manifest(generation=4, arms={"control": release}).to_json())
        until(lambda wanted=release.model: control.model_ready(server.http, wanted), True)


def test_a_release_that_is_not_what_was_registered_leaves_it_with_the_one_before(following, releases):
    server, url, health = following
    one, two = releases
    manifest.write(url, Manifest(generation=1, arms={"control": one}))
    until(lambda: httpx.get(f"{health}/readyz").json()["generation"], 1)
    manifest.write(
        url, Manifest(generation=2, arms={"control": one, "treatment": replace(two, checksum="0" * 64)})
    )
    until(
        lambda: (
            "not the one that the manifest names" in (httpx.get(f"{health}/readyz").json()["problem"] or "")
        ),
        True,
    )
    until(lambda: httpx.get(f"{health}/readyz").status_code, 200)  # one slow answer on a busy machine is none
    assert control.model_ready(server.http, one.model)
    assert not control.model_ready(server.http, two.model)


def test_it_ends_when_its_server_does(following):
    server, _url, health = following
    until(lambda: httpx.get(f"{health}/healthz").status_code, 200)
    (child,) = subprocess.check_output(["pgrep", "-P", str(server.process.pid)], text=True).split()
    os.kill(int(child), signal.SIGKILL)
    assert server.process.wait(20) == 1


def stubs_of(server, model):
    """The processes of the Python backend that hold `model`; `server` is the follower's."""
    (child,) = (
        int(pid)
        for pid in subprocess.check_output(["pgrep", "-P", str(server.process.pid)], text=True).split()
    )
    triton = launch.Server(
        process=subprocess.CompletedProcess([], 0), ports=server.ports, log=server.log, key=""
    )
    triton.process.pid = child
    return [pid for pid, of_model in triton.stubs().items() if of_model == model]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_model_whose_process_dies_or_stops_is_loaded_anew_and_the_others_stay(following, releases, number):
    server, url, health = following
    one, two = releases
    manifest.write(url, Manifest(generation=1, arms={"control": one, "treatment": two}))
    until(lambda: httpx.get(f"{health}/readyz").status_code, 200)
    time.sleep(1.5)  # a watch has seen them
    before = stubs_of(server, one.model)
    assert before
    for pid in before:
        os.kill(pid, number)
    # Five seconds on a quiet machine, in which a watch's own requests wait for nobody.
    until(lambda: httpx.get(f"{health}/readyz").status_code, 503, seconds=20)
    until(lambda: control.encodes(server.http, two.model, timeout_s=5), True, seconds=15)  # stays that part's
    until(lambda: control.encodes(server.http, one.model, timeout_s=5), True)
    until(lambda: httpx.get(f"{health}/readyz").status_code, 200)
    assert not set(before) & set(stubs_of(server, one.model))


def test_a_server_that_hangs_is_ended(following, releases):
    server, url, health = following
    manifest.write(url, Manifest(generation=1, arms={"control": releases[0]}))
    until(lambda: httpx.get(f"{health}/readyz").status_code, 200)
    (child,) = subprocess.check_output(["pgrep", "-P", str(server.process.pid)], text=True).split()
    os.kill(int(child), signal.SIGSTOP)
    assert server.process.wait(20) == 1


def test_it_ends_when_it_is_asked_to_while_a_model_is_loaded(following, releases):
    server, url, health = following
    until(lambda: httpx.get(f"{health}/healthz").status_code, 200)
    (child,) = subprocess.check_output(["pgrep", "-P", str(server.process.pid)], text=True).split()
    manifest.write(url, Manifest(generation=1, arms={"control": releases[0]}))
    until(lambda: bool(stubs_of(server, releases[0].model)), True)
    os.kill(int(child), signal.SIGSTOP)  # a load that nobody answers
    server.process.terminate()
    assert server.process.wait(25) == 0  # within what Kubernetes waits
    assert not Path(f"/proc/{child}").exists()


def test_a_load_whose_process_is_killed_ends_the_server(following, releases):
    """Triton itself would answer that load never, nor end when it is asked to."""
    server, url, health = following
    until(lambda: httpx.get(f"{health}/healthz").status_code, 200)
    manifest.write(url, Manifest(generation=1, arms={"control": releases[0]}))
    end = time.monotonic() + 60
    while server.process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(subprocess.CalledProcessError, ProcessLookupError):  # it has ended meanwhile
            for pid in stubs_of(server, releases[0].model):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    assert server.process.wait(10) == 1


def test_a_model_that_dies_as_soon_as_it_is_loaded_ends_the_server(tmp_path, triton, releases, monkeypatch):
    """In place of a Triton whose model is killed between the answer to its load and the first question."""
    url = str(tmp_path / "manifest.json")
    manifest.write(url, Manifest(generation=1, arms={"control": releases[0]}))
    monkeypatch.setattr(control, "model_ready", lambda *_: False)
    monkeypatch.setattr(control, "READY_S", 0.0)
    killed = []
    server = SimpleNamespace(http=triton.http, key=triton.key, kill=lambda: killed.append(1))
    settings = follow.Settings(manifest=url, repository=triton.log.parents[1] / "models", state=tmp_path)
    follower = follow.Follower(settings, server)
    follower.look()
    assert killed
    assert "is not ready" in follower.problem
    assert "is not ready" in follower.lost


def test_a_server_that_does_not_let_go_of_a_model_is_followed_on_and_asked_again(
    tmp_path, releases, monkeypatch
):
    """One that hangs when a model's time is over: the watch ends it, and no look ends what follows it."""
    asked = []

    def unload(_url, model, **_):
        asked.append(model)
        if len(asked) == 1:
            raise ServiceError("no answer from Triton")

    monkeypatch.setattr(control, "model_ready", lambda *_: True)
    monkeypatch.setattr(control, "unload", unload)
    url = str(tmp_path / "manifest.json")
    settings = follow.Settings(manifest=url, repository=tmp_path / "models", state=tmp_path, keep_s=0)
    follower = follow.Follower(settings, SimpleNamespace(http="http://nobody", key=None))
    for generation, release in enumerate(releases, start=1):
        manifest.write(settings.manifest, Manifest(generation=generation, arms={"control": release}))
        follower.look()
    assert (follower.generation, follower.problem, asked) == (2, "", [releases[0].model])
    follower.look()
    follower.look()
    assert asked == [releases[0].model] * 2, "once more, and then it is gone"


def test_the_process_that_reads_a_models_settings_may_end_when_it_has(tmp_path, releases, monkeypatch):
    """It is seen while the model is loaded and gone when the model is ready: nothing has died."""
    url, (release, _) = str(tmp_path / "manifest.json"), releases
    manifest.write(url, Manifest(generation=1, arms={"control": release}))
    reloaded = []
    monkeypatch.setattr(control, "model_ready", lambda *_: True)
    monkeypatch.setattr(control, "encodes", lambda *_, **__: True)
    monkeypatch.setattr(control, "live", lambda *_, **__: True)
    monkeypatch.setattr(control, "unload", lambda _url, model, **_: reloaded.append(model))
    monkeypatch.setattr(control, "load", lambda *_, **__: None)
    processes = iter([{1: release.model}, {2: release.model}, {3: release.model}, {3: release.model}])
    server = SimpleNamespace(
        http="http://nobody",
        key=None,
        stubs=lambda: next(processes),
        process=SimpleNamespace(poll=lambda: None),
    )
    follower = follow.Follower(follow.Settings(manifest=url, state=tmp_path), server)
    follower.watch()
    follower.look()
    follower.watch()
    assert not reloaded
    follower.watch()
    assert reloaded == [release.model], "one of a model that serves has died"
