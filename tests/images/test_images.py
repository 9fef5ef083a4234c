"""The four images: what is in them and what is not, and that they serve a search with nothing but what a
cluster allows.
"""

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from crops.release import manifest
from crops.release.manifest import Manifest
from serving.triton import launch
from tests.serving import releases as toys

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1_800)]

ROOT = Path(__file__).resolve().parents[2]
# What the "restricted" profile of Kubernetes asks for.
LOCKED_DOWN = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "mode=1777"},
}
LOCKS = {"mine": ["mine"], "train": ["train"], "gateway": ["gateway"], "triton": ["follow", "triton"]}
NAMES = tuple(LOCKS)
LARGEST_MB = {"mine": 1900, "gateway": 900, "triton": 900}
# By the torch that the build got: its wheel for the CPU, or the index's own, which brings CUDA's libraries.
LARGEST_TRAIN_MB = {"cpu": 3500, "cuda": 8000}


def said(engine, image, *command, **more) -> str:
    return engine.containers.run(
        image, list(command), entrypoint="", remove=True, **LOCKED_DOWN, **more
    ).decode()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_locked_down_labelled_and_small(engine, images, name):
    image = images[name]
    config = image.attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"crops-{name}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"] != "unknown"
    size, largest, holds = image.attrs["Size"] / 1e6, LARGEST_MB.get(name), ""
    if name == "train":
        torch = "import torch; print('cuda' if torch.version.cuda else 'cpu', torch.__version__)"
        wheel, version = said(engine, image, "python3", "-c", torch).split()
        largest, holds = LARGEST_TRAIN_MB[wheel], f" with torch {version}"
    print(f"crops/{name}: {size:.0f} MB{holds}, at most {largest} MB")
    assert size < largest, (
        f"something heavy came in: crops/{name} is {size:.0f} MB{holds}, at most {largest} MB"
    )
    tools = (
        "for t in gcc cc make uv git curl; do command -v $t && exit 1; done; [ ! -s "
        "/run/secrets/ca.crt ] && id -u"
    )
    assert said(engine, image, "sh", "-c", tools).strip() == "10001"
    assert "Read-only" in said(engine, image, "sh", "-c", "touch /x 2>&1 || true")


def test_the_mining_image_has_no_torch_and_does_its_verbs(engine, images):
    found = said(
        engine,
        images["mine"],
        "python3",
        "-c",
        "import importlib.util as u; print([bool(u.find_spec(m)) for m in ('torch', 'kfp', 'mlflow')])",
    )
    assert found.strip() == "[False, True, True]"
    for verb in (
        "validate",
        "augment",
        "register",
        "deploy",
        "rollout",
        "compact",
        "experiment",
        "pull",
        "submit",
    ):
        assert "Usage" in said(engine, images["mine"], "crops", verb, "--help")


def test_the_gateway_image_stays_light(engine, images):
    heavy = ["torch", "transformers", "kfp", "mlflow", "duckdb", "pyspark"]
    found = said(
        engine,
        images["gateway"],
        "python3",
        "-c",
        f"import importlib.util as u; print([m for m in {heavy} if u.find_spec(m)])",
    )
    assert found.strip() == "[]"


@pytest.fixture
def network(engine):
    made = engine.networks.create("crops-test")
    yield made
    for container in engine.containers.list(all=True, filters={"network": "crops-test"}):
        container.remove(force=True)
    made.remove()


def test_gateway_and_triton_answer_a_search_in_locked_down_containers(engine, images, network, tmp_path):
    """A read-only root, no capabilities, no user of the host: what they write goes to the places that were
    given to them.
    """
    shared, events = tmp_path / "shared", tmp_path / "events"
    (release,) = toys.build(shared, count=1)
    manifest.write(str(shared / "manifest.json"), Manifest(generation=1, arms={"control": release}))
    events.mkdir(mode=0o777)
    events.chmod(0o777)
    subprocess.run(["chmod", "-R", "a+rX", str(tmp_path)], check=True)
    subprocess.run(["chmod", "a+rx", *map(str, tmp_path.parents[:2])], check=True)
    (tmp_path / "triton.json").write_text(
        json.dumps(
            {
                "manifest": str(shared / "manifest.json"),
                "venv": "/opt/triton",
                "repository": "/var/lib/crops/models",
                "state": "/var/lib/crops",
                "instances": 1,
            }
        )
    )
    (tmp_path / "gateway.json").write_text(
        json.dumps(
            {
                "manifest": str(shared / "manifest.json"),
                "triton": "dns:///triton:8001",
                "host": "0.0.0.0",
                "state": "/var/lib/crops",
                "events": "/var/lib/crops-events",
                "poll_s": 0.2,
            }
        )
    )
    volumes = {str(shared): {"bind": str(shared), "mode": "ro"}}
    writable = {"tmpfs": {"/tmp": "mode=1777", "/var/lib/crops": "uid=10001,gid=10001,exec"}}
    triton = engine.containers.run(
        images["triton"],
        detach=True,
        name="triton",
        network=network.name,
        shm_size="256m",
        **(LOCKED_DOWN | writable),
        volumes=volumes | {str(tmp_path / "triton.json"): {"bind": "/etc/crops/triton.json", "mode": "ro"}},
    )
    (port,) = launch.free_ports(1)
    gateway = engine.containers.run(
        images["gateway"],
        detach=True,
        name="gateway",
        network=network.name,
        ports={"8080/tcp": ("127.0.0.1", port)},
        environment={"CROPS_REPLICA": "gateway-7"},
        **(LOCKED_DOWN | writable),
        volumes=volumes
        | {
            str(tmp_path / "gateway.json"): {"bind": "/etc/crops/gateway.json", "mode": "ro"},
            str(events): {"bind": "/var/lib/crops-events", "mode": "rw"},
        },
    )
    address = f"http://127.0.0.1:{port}"
    ready(address, gateway, triton)
    found = httpx.post(
        f"{address}/v1/search", json={"query": "subject1", "user_id": "u", "k": 3}, timeout=10
    ).json()
    assert [len(found["results"]), found["release"]] == [3, "models:/crops/1"]
    done = httpx.post(
        f"{address}/v1/events",
        json=[
            {
                "search_id": found["search_id"],
                "video_id": found["results"][0]["video_id"],
                "type": "click",
                "ts": "2026-01-01T00:00:00Z",
            }
        ],
        timeout=10,
    )
    assert done.status_code == 202
    assert list(events.glob("gateway-7*")), "the log carries the replica's name"
    for container in (gateway, triton):
        until_healthy(container)
        container.stop(timeout=20)
        assert container.wait()["StatusCode"] == 0, container.logs().decode()[-2000:]


def ready(address, *containers):
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    pytest.fail("\n".join(f"{c.name}: {c.logs().decode()[-2000:]}" for c in containers))


def until_healthy(container):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        container.reload()
        if container.attrs["State"]["Health"]["Status"] == "healthy":
            return
        time.sleep(0.5)
    pytest.fail(f"{container.name}: {container.attrs['State']['Health']}")


@pytest.fixture(scope="module")
def bills(engine, images, tmp_path_factory):
    """What docker/sbom.py writes of the images."""
    out = tmp_path_factory.mktemp("sbom")
    command = [sys.executable, "docker/sbom.py", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.parametrize("name", NAMES)
def test_the_bill_of_materials_names_what_the_lock_names(bills, name):
    """Two ways to the same packages: what the image itself says, and the lock that it was built from."""
    found = json.loads((bills / f"{name}.cdx.json").read_text())
    packages = {c["purl"] for c in found["components"]}
    text = "\n".join((ROOT / f"locks/{lock}.txt").read_text() for lock in LOCKS[name])
    locked = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==([^ \\+;\n]+)", text, re.M)
    assert len(locked) > 20
    assert not [(n, v) for n, v in locked if not any(p.startswith(f"pkg:pypi/{n}@{v}") for p in packages)]
    assert any(p.startswith("pkg:deb/debian/libc6@") for p in packages)


def test_a_licence_that_cannot_be_shipped_ends_it(bills):
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "docker/sbom.py")
    sbom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sbom)
    licences = [
        "AGPL-3.0",
        "GPL-3.0-only",
        "GNU General Public License v3",
        "LGPL-2.1",
        "MIT OR GPL-2.0",
        "MIT",
        "GNU Library or Lesser General Public License (LGPL)",
    ]
    found = sbom.forbidden({"python": [["p", "1", licence] for licence in licences]})
    assert [line.split(": ")[1] for line in found] == licences[:3]
