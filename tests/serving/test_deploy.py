"""From the registry into service: a running laptop stack takes a challenger, refuses a bad one, and one
without it goes back.
"""

import threading

import httpx
import pytest

from crops.config.deploy import DeployConfig
from crops.errors import ServiceError
from crops.release import manifest
from crops.services.registry import Registry
from crops.stages.release import deploy
from crops.tables import artifacts

pytestmark = pytest.mark.triton


def test_the_challenger_goes_into_treatment_and_is_withdrawn(stack, tmp_path):
    _root, uri, cfg, _ = stack
    register = tmp_path / "register"
    register.mkdir()
    artifacts.write_json(
        register / "release.json",
        {"uri": "models:/crops/2", "name": "crops", "version": "2", "alias": "challenger"},
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
    assert again.numbers["generation"] == report.numbers["generation"], (
        "what is there already is no new generation"
    )
    gone = deploy.withdraw("treatment", cfg)
    deploy._wait(cfg.gateways[0], gone, 30)
    assert set(httpx.get(f"{cfg.gateways[0]}/v1/release").json()["arms"]) == {"control"}


def test_a_release_that_a_gateway_refuses_is_an_error_and_nobody_gets_it(stack):
    root, uri, cfg, _ = stack
    deploy.release(Registry(uri, "crops"), "2", "treatment", cfg)
    deploy._wait(cfg.gateways[0], deploy.withdraw("treatment", cfg), 30)
    index = root / "releases/crops-2/index.faiss"
    whole = index.read_bytes()
    index.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(
            ServiceError, match=r"refuses generation .*index.faiss is not what was registered"
        ):
            deploy.release(Registry(uri, "crops"), "2", "treatment", cfg)
        assert set(httpx.get(f"{cfg.gateways[0]}/v1/release").json()["arms"]) == {"control"}
    finally:
        index.write_bytes(whole)
        deploy._wait(cfg.gateways[0], deploy.withdraw("treatment", cfg), 30)


def test_two_that_deploy_at_once_both_get_in(tmp_path):
    """Each changes another arm: whoever is second reads again and keeps what the first wrote."""
    url = str(tmp_path / "manifest.json")
    one, two = (
        manifest.Release(uri=f"models:/crops/{n}", model="m", files="f", checksum=f"{n:064x}") for n in (1, 2)
    )
    deploy._put(url, "control", one)
    threads = [
        threading.Thread(target=deploy._put, args=(url, arm, r))
        for arm, r in (("control", two), ("treatment", one))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(manifest.read(url).arms) == {"control": two, "treatment": one}
    assert manifest.read(url).generation == 3


@pytest.mark.parametrize(
    ("made", "cfg", "why"),
    [
        ({"uri": None, "reason": "the gate says reject"}, DeployConfig(manifest="m"), "the gate says reject"),
        (
            {"uri": "models:/crops/1", "name": "crops", "version": "1"},
            DeployConfig(),
            "no manifest is configured",
        ),
    ],
)
def test_nothing_to_deploy_is_said(tmp_path, made, cfg, why):
    (tmp_path / "register").mkdir()
    artifacts.write_json(tmp_path / "register/release.json", made)
    report = deploy.run(tmp_path / "register", tmp_path / "out", cfg, registry_uri="")
    assert report.notes == (f"not deployed: {why}",)
