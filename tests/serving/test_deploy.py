"""From the registry into service: a running laptop stack takes a challenger, refuses a bad one, and one without it goes back."""

import json
import threading
import time
from pathlib import Path

import httpx
import pytest
import releases as toys

from crops import manifest
from crops.config.deploy import DeployConfig
from crops.errors import ServiceError
from crops.io import artifacts, registry
from crops.stages import deploy
from serving import laptop
from serving.triton import install, launch

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """What `crops serve` starts, on the first of two registered releases, in a thread of this process."""
    if not install.ready():
        pytest.skip("no Triton server: make triton")
    root = tmp_path_factory.mktemp("stack")
    uri = registry.uri_of(root / "registry")
    for release in toys.build(root / "made"):
        registry.register(uri, Path(release.files), tags={"checksums": release.checksum})
    first = registry.download(uri, "1", root / "first")
    (port,) = launch.free_ports(1)
    stop, said, failed = threading.Event(), [], []

    def work():
        try:
            laptop.serve(
                {"control": laptop.release_of(first, "models:/crops/1")}, root / "state", host="127.0.0.1", port=port,
                events=root / "events", settings={"poll_s": 0.1}, say=said.append, stop=stop.is_set, handle_signals=False,
            )  # fmt: skip
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not any("ready" in line for line in said) and not failed:
        time.sleep(0.1)
    assert not failed
    triton = json.loads((root / "state/gateway.json").read_text())["triton"]
    cfg = DeployConfig(
        manifest=str(root / "state/manifest.json"), repository=str(root / "state/models"), releases=str(root / "releases"),
        triton=next(line.split()[-1] for line in said if line.startswith("Triton: ")), gateways=(f"http://127.0.0.1:{port}",),
        timeout_s=30,
    )  # fmt: skip
    yield root, uri, cfg, triton
    stop.set()
    thread.join(30)
    assert said[-1] == "stopped"


def test_the_challenger_goes_into_treatment_and_is_withdrawn(stack, tmp_path):
    _root, uri, cfg, _ = stack
    register = tmp_path / "register"
    register.mkdir()
    artifacts.write_json(
        register / "release.json", {"uri": "models:/crops/2", "name": "crops", "version": "2", "alias": "challenger"}
    )
    report = deploy.run(register, tmp_path / "out", cfg, registry_uri=uri)
    assert report.numbers["deployed"] == 1
    served = httpx.get(f"{cfg.gateways[0]}/v1/release").json()
    assert {arm: held["release"] for arm, held in served["arms"].items()} == {
        "control": "models:/crops/1",
        "treatment": "models:/crops/2",
    }
    found = httpx.post(f"{cfg.gateways[0]}/v1/compare", json={"query": "subject1", "k": 3}).json()["arms"]
    assert set(found) == {"control", "treatment"}
    again = deploy.run(register, tmp_path / "again", cfg, registry_uri=uri)
    assert again.numbers["generation"] == report.numbers["generation"], "what is there already is no new generation"
    gone = deploy.withdraw("treatment", cfg)
    deploy._wait(cfg.gateways[0], gone, 30)
    assert set(httpx.get(f"{cfg.gateways[0]}/v1/release").json()["arms"]) == {"control"}


def test_a_release_that_a_gateway_refuses_is_an_error_and_nobody_gets_it(stack):
    root, uri, cfg, _ = stack
    deploy.release("crops", "2", "treatment", cfg, registry_uri=uri)
    deploy._wait(cfg.gateways[0], deploy.withdraw("treatment", cfg), 30)
    index = root / "releases/crops-2/index.faiss"
    whole = index.read_bytes()
    index.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ServiceError, match=r"refuses generation .*index.faiss is not what was registered"):
            deploy.release("crops", "2", "treatment", cfg, registry_uri=uri)
        assert set(httpx.get(f"{cfg.gateways[0]}/v1/release").json()["arms"]) == {"control"}
    finally:
        index.write_bytes(whole)
        deploy._wait(cfg.gateways[0], deploy.withdraw("treatment", cfg), 30)


def test_two_that_deploy_at_once_both_get_in(tmp_path):
    """Each changes another arm: whoever is second reads again and keeps what the first wrote."""
    url = str(tmp_path / "manifest.json")
    one, two = (manifest.Release(uri=f"models:/crops/{n}", model="m", files="f", checksum=str(n)) for n in (1, 2))
    deploy._put(url, "control", one)
    threads = [threading.Thread(target=deploy._put, args=(url, arm, r)) for arm, r in (("control", two), ("treatment", one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(manifest.read(url).arms) == {"control": two, "treatment": one}
    assert manifest.read(url).generation == 3


@pytest.mark.parametrize(("made", "cfg", "why"), [
    ({"uri": None, "reason": "the gate says reject"}, DeployConfig(manifest="m"), "the gate says reject"),
    ({"uri": "models:/crops/1", "name": "crops", "version": "1"}, DeployConfig(), "no manifest is configured"),
])  # fmt: skip
def test_nothing_to_deploy_is_said(tmp_path, made, cfg, why):
    (tmp_path / "register").mkdir()
    artifacts.write_json(tmp_path / "register/release.json", made)
    report = deploy.run(tmp_path / "register", tmp_path / "out", cfg, registry_uri="")
    assert report.notes == (f"not deployed: {why}",)
