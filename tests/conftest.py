"""What several tests of the tree share."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from tests import shared

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("mine", "train", "gateway", "triton")


def pytest_configure(config):
    """The folder of what is made once: the controller's, which its workers inherit, removed at its end."""
    if not hasattr(config, "workerinput"):
        folder = os.environ[shared.FOLDER] = tempfile.mkdtemp(prefix="crops-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


# What one worker has alone, by the beginnings of its tests' ids, in the order in which workers take it up.
PARTS = {
    "images": ("tests/images/", "tests/end_to_end/test_chain.py"),
    "triton": ("tests/serving/", "tests/monitoring/", "tests/load/"),
}
NEEDS = {"images": {"images"}, "triton": {"triton", "stack", "following"}}


def part_of(nodeid):
    """The part that a test belongs to: one of PARTS, Spark's, or its file."""
    if "[spark" in nodeid:
        return "spark"
    return next(
        (name for name, starts in PARTS.items() if nodeid.startswith(starts)), nodeid.partition("::")[0]
    )


@pytest.hookimpl(optionalhook=True)  # who tries a test or two may have no xdist
def pytest_xdist_make_scheduler(config, log):
    """With workers, tests of one part go to one of them, so that what they share is started and made once.

    Marks of xdist's own `loadgroup` do nothing under pytest 9.2, which keeps ids of tests elsewhere.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Parts(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return part_of(nodeid)

    return Parts(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        for name, fixtures in NEEDS.items():
            if fixtures & {*item.fixturenames} and part_of(item.nodeid) != name:
                raise pytest.UsageError(
                    f"{item.nodeid} shares {name}: name its file in PARTS (tests/conftest.py)"
                )
    if hasattr(config, "workerinput"):
        first = [*PARTS, "spark"]
        items.sort(key=lambda item: [*first, part_of(item.nodeid)].index(part_of(item.nodeid)))


@pytest.fixture
def chromium():
    """A real Chromium; a test that asks for it is reported as not run where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def s3():
    """Address of an S3 server: the one that CROPS_TEST_S3 names, or moto's, as a process of its own."""
    if address := os.environ.get("CROPS_TEST_S3"):
        yield address
        return
    if shutil.which("moto_server") is None:
        pytest.skip("not run: CROPS_TEST_S3 is not set, and no moto_server is here (moto[server])")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    server = subprocess.Popen(
        ["moto_server", "-H", "127.0.0.1", "-p", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


@pytest.fixture
def bucket(s3, monkeypatch):
    """s3:// URL of a new bucket, in an environment that has the server's address and credentials."""
    import s3fs

    told = {"ENDPOINT_URL": s3, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "k", "DEFAULT_REGION": "us-east-1"}
    for name, value in told.items():
        if name == "ENDPOINT_URL" or "CROPS_TEST_S3" not in os.environ:
            monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()  # whose clients keep the address that they were made with
    name = f"crops-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """DOCKER_HOST of a real engine: the one that is said, or a dockerd of this session's own."""
    import docker

    if os.environ.get("DOCKER_HOST"):
        yield docker.from_env()
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("no Docker engine: DOCKER_HOST is not set, and dockerd needs root")
    place = tmp_path_factory.mktemp("dockerd")
    address = f"unix://{place}/docker.sock"
    command = [
        "dockerd",
        "--default-ulimit",
        "nofile=20000:20000",
        "-H",
        address,
        "--data-root",
        str(place / "data"),
        "--exec-root",
        str(place / "exec"),
        "-p",
        str(place / "pid"),
    ]
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    os.environ["DOCKER_HOST"] = address
    try:
        yield _answering(docker, daemon, place / "log")
    finally:
        del os.environ["DOCKER_HOST"]
        daemon.terminate()
        daemon.wait(60)
        subprocess.run(["umount", str(place / "exec/netns/default")], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(place / "data", ignore_errors=True)


def _answering(docker, daemon, log):
    end = time.monotonic() + 60
    while time.monotonic() < end and daemon.poll() is None:
        try:
            client = docker.from_env()
            client.ping()
            return client
        except docker.errors.DockerException:
            time.sleep(0.3)
    pytest.fail(f"dockerd does not answer: {log.read_text()[-1000:]}")


@pytest.fixture(scope="session")
def images(engine):
    """Name -> image. Built on the public base where BASE_IMAGE says so, else on the stand-in of Debian's
    packages.
    """
    environment = {
        **os.environ,
        "BASE_IMAGE": os.environ.get("BASE_IMAGE", "standin"),
        "PATH": f"/usr/bin:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "docker/build", *NAMES],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    print(done.stdout)
    version = next(
        line.split('"')[1]
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.startswith("version")
    )
    return {name: engine.images.get(f"crops/{name}:{version}") for name in NAMES}
