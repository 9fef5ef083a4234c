"""Shared by all tests of serving: two toy releases and one Triton per session, because each takes seconds."""

import json
import threading
import time
from pathlib import Path

import pytest

from crops.config.deploy import DeployConfig
from crops.services.registry import Registry
from serving import laptop
from serving.triton import install, launch
from tests import shared
from tests.serving import releases as toys


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Two releases of the toy catalogue whose encoders differ."""
    return toys.build(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="session")
def triton(tmp_path_factory, releases):
    """A Triton that has both releases' encoders loaded."""
    server = toys.triton(tmp_path_factory.mktemp("triton"))
    try:
        root = server.log.parent.parent
        for release in releases:
            toys.repository.write(Path(release.files), root / "models", release.model, toys.INSTANCES)
            toys.control.load(server.http, release.model, key=server.key)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """What `crops serve` starts, on the first of two registered releases, in a thread of this process."""
    if not install.ready():
        pytest.skip("no Triton server: make triton")
    root = tmp_path_factory.mktemp("stack")
    uri = shared.new_registry(root / "registry")
    for release in toys.build(root / "made"):
        Registry(uri, "crops").register(Path(release.files), tags={"checksums": release.checksum})
    first = Registry(uri, "crops").download("1", root / "first")
    (port,) = launch.free_ports(1)
    stop, said, failed = threading.Event(), [], []

    def work():
        try:
            laptop.serve(
                {"control": laptop.release_of(first, "models:/crops/1")},
                root / "state",
                host="127.0.0.1",
                port=port,
                events=root / "events",
                settings={"poll_s": 0.1},
                say=said.append,
                stop=stop.is_set,
                handle_signals=False,
                restarts_a_minute=100,  # tests kill it again and again
            )
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not any("ready" in line for line in said) and not failed:
        time.sleep(0.1)
    assert not failed
    triton = json.loads((root / "state/gateway.json").read_text())["triton"]
    cfg = DeployConfig(
        manifest=str(root / "state/manifest.json"),
        repository=str(root / "state/models"),
        releases=str(root / "releases"),
        triton=next(line.split()[-1] for line in said if line.startswith("Triton: ")),
        triton_key_file=root / "state/triton.key",
        gateways=(f"http://127.0.0.1:{port}",),
        timeout_s=30,
    )
    yield root, uri, cfg, triton
    stop.set()
    thread.join(30)
    assert not failed
    assert said[-1] == "stopped"
