"""Canary, A/B and verdict by the chart's own controller on a node: a Prometheus that scrapes each gateway,
the chart's trial MLflow as registry, people who like one release better, and the commands that
docs/operations.md and the runbooks give.

The people are made up, and so is their taste: what is shown is that the machinery sees it and acts on it.
"""

import json

import pytest

from crops.config.rollout import GUARDRAILS
from tests.cluster.access import eventually, place
from tests.cluster.shop import SMALL, more_searches, none_failed, none_lost, opened, pod

place()
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

USERS = 400
REGISTRY = "http://search-crops-mlflow:5000"
BETTER, OLD = "models:/crops/2", "models:/crops/1"
TASTE = {BETTER: 0.9, "": 0.4}
PORT = 9090
# Of a program that is on the node already where the node is this machine; else of its own image.
PROMETHEUS = "/usr/bin/prometheus" if place().is_dir() else "prom/prometheus:v2.42.0"


def guardrails():
    """As they are by default, for a minute of some thirty searches a second on a busy machine."""
    rails = [rail.model_dump(exclude_none=True) for rail in GUARDRAILS]
    for rail in rails:
        rail["min_events"] /= 5
        rail["limit"] = 10.0 if rail["name"] == "p99" else rail["limit"]
    return rails


PLAN = {
    "steps": [
        {"coverage": 0.4, "dwell_s": 20, "min_users": 80},
        {"coverage": 0.8, "dwell_s": 20, "min_users": 200},
    ],
    "ab": {"coverage": 1.0, "min_s": 30, "max_s": 900, "min_users": 200},
    "guardrails": guardrails(),
    "look_back_s": 300,
    "poll_s": 3,
}
VALUES = {
    "trial": {"mlflow": {"enabled": True}},
    "rolloutController": {
        "enabled": True,
        "prometheus": "http://prometheus:9090",
        "config": PLAN,
        "resources": {"requests": SMALL["requests"], "limits": {"cpu": "2", "memory": "1Gi"}},
    },
}
SERVED = """
import json
from crops.release import manifest
print(json.dumps({arm: held.uri for arm, held in manifest.read("/shared/manifest.json").arms.items()}))
"""

REGISTER = """
import sys
from pathlib import Path
from crops.release.layout import sha256
from crops.services.registry import Registry
registry = Registry(sys.argv[1], "crops")
for number, alias in ((0, "champion"), (1, "challenger")):
    folder = Path(f"/shared/releases/release-{number}")
    version = registry.register(folder, tags={"checksums": sha256(folder / "checksums.json")})
    registry.move(alias, version, expected=None, reason="test")
"""
CHALLENGE = """
import sys
from crops.services.registry import Registry
registry = Registry(sys.argv[1], "crops")
registry.move("challenger", sys.argv[2], expected=registry.holder("challenger"), reason="test")
"""
CHAMPION = """
import sys
from crops.services.registry import Registry
print(Registry(sys.argv[1], "crops").holder("champion"))
"""


def scraped(namespace: str) -> str:
    """Prometheus's settings, as JSON, which is YAML: every gateway behind a Service without an address."""
    found = {"names": [f"gateways.{namespace}.svc.cluster.local"], "type": "A", "port": 8080}
    job = {"job_name": "crops-gateway", "dns_sd_configs": [found | {"refresh_interval": "5s"}]}
    return json.dumps({"global": {"scrape_interval": "2s"}, "scrape_configs": [job]})


def prometheus(cluster, namespace: str, of: str, image: str) -> None:
    """One in `namespace` that finds the pods of the namespace `of`."""
    program, mounts = "/bin/prometheus", [{"name": "config", "mountPath": "/etc/prometheus"}]
    volumes = [{"name": "config", "configMap": {"name": "prometheus"}}]
    if PROMETHEUS.startswith("/"):
        program = PROMETHEUS
        mounts.append({"name": "program", "mountPath": program, "readOnly": True})
        volumes.append({"name": "program", "hostPath": {"path": program, "type": "File"}})
    else:
        image = PROMETHEUS
    options = ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/data"]
    asking = pod("prometheus", image, [program, *options], volumeMounts=mounts)
    asking["metadata"]["labels"] = {"app": "prometheus"}
    asking["spec"]["volumes"] = volumes
    probe = {"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1}
    asking["spec"]["containers"][0]["readinessProbe"] = probe

    def made(kind, name, at, **more):
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": at}, **more}

    gateways = {"app.kubernetes.io/component": "gateway"}
    things = [
        made("ConfigMap", "prometheus", namespace, data={"prometheus.yml": scraped(of)}),
        made(
            "Service",
            "prometheus",
            namespace,
            spec={"selector": {"app": "prometheus"}, "ports": [{"port": PORT}]},
        ),
        made(
            "Service",
            "gateways",
            of,
            spec={"selector": gateways, "clusterIP": "None", "ports": [{"port": 8080}]},
        ),
    ]
    cluster.kubectl("create", "-f-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": things}))
    cluster.kubectl("-n", namespace, "create", "-f-", text=json.dumps(asking))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=120s", "pod/prometheus")


@pytest.fixture(scope="module")
def shop(live, images_on_node, tmp_path_factory):
    """Installed, two versions in the trial MLflow, a champion in service, and a Prometheus."""
    folder, people = tmp_path_factory.mktemp("volume"), (str(USERS), json.dumps(TASTE))
    with opened(live, images_on_node, folder, VALUES, count=2, people=people) as made:
        prometheus(live, made.aside, made.namespace, images_on_node["mine"])
        address = f"http://prometheus.{made.aside}.svc:{PORT}"
        made.values["rolloutController"] = {**VALUES["rolloutController"], "prometheus": address}
        made.upgrade({})
        in_pod(made, "python3", "-c", REGISTER, REGISTRY)
        yield made


def in_pod(shop, *command: str) -> str:
    """As an on-call person runs it: in the controller's pod."""
    return shop.kubectl("exec", "deploy/search-crops-rollout", "--", *command)


def state(shop) -> dict:
    return json.loads(shop.in_volume("cat", "/shared/rollout/rollout.json"))


def trail(shop) -> list[dict]:
    lines = shop.in_volume("cat", "/shared/rollout/audit.jsonl").splitlines()
    return [json.loads(line) for line in lines]


def manifest(shop) -> dict:
    return json.loads(shop.in_volume("python3", "-c", SERVED))


def test_a_canary_widens_by_what_gateways_know_and_outlives_its_controller(shop):
    """No readout is there: nothing was compacted yet."""
    before = shop.counts()
    told = in_pod(shop, "crops", "rollout", "start", "--name", "autumn")
    assert f"{BETTER} against {OLD}" in told
    eventually(lambda: state(shop), lambda now: now["step"] == 1 or now["phase"] != "canary", 300)
    shop.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=rollout", "--wait=false")
    at = eventually(lambda: state(shop), lambda now: now["phase"] != "canary", 300)
    assert at["phase"] == "ab", trail(shop)
    assert [line["verdict"] for line in trail(shop)] == ["wait", "advance", "advance"]
    assert shop.cluster.run("-n", shop.namespace, "exec", "volume", "--", "ls", "/shared/readout").returncode
    assert manifest(shop) == {"control": OLD, "treatment": BETTER}
    shop.kubectl("rollout", "status", "deploy/search-crops-rollout", "--timeout=300s")
    assert "autumn: ab" in in_pod(shop, "crops", "rollout", "status")
    none_failed(before, shop.counts())


def test_the_a_b_is_decided_by_the_compactors_readout_and_the_better_one_is_promoted(shop):
    before = shop.counts()
    more_searches(shop, before, 800)
    shop.compact("readout-1")
    at = eventually(lambda: state(shop), lambda now: now["phase"] != "ab", 300)
    assert at["phase"] == "promoted", trail(shop)[-1]
    assert trail(shop)[-1]["reason"].startswith("readout: better")
    eventually(lambda: manifest(shop), lambda arms: arms == {"control": BETTER})
    assert in_pod(shop, "python3", "-c", CHAMPION, REGISTRY).strip() == "2"
    none_failed(before, more_searches(shop, shop.counts(), 50))


def test_the_readout_of_the_first_trial_does_not_decide_the_second_whose_challenger_is_worse(shop):
    before = shop.counts()
    in_pod(shop, "python3", "-c", CHALLENGE, REGISTRY, "1")
    in_pod(shop, "crops", "rollout", "start", "--name", "winter")
    assert "better" in shop.in_volume("cat", "/shared/readout/readout.json")
    at = eventually(lambda: state(shop), lambda now: now["phase"] not in {"canary", "ab"}, 600)
    assert (at["experiment"], at["phase"]) == ("winter", "rolled back"), trail(shop)[-1]
    assert trail(shop)[-1]["reason"].startswith("ctr: ")
    eventually(lambda: manifest(shop), lambda arms: arms == {"control": BETTER})
    none_failed(before, shop.counts())


def test_a_person_ends_a_trial_by_the_runbooks_line(shop):
    before = shop.counts()
    in_pod(shop, "crops", "rollout", "start", "--name", "spring")
    told = in_pod(shop, "crops", "rollout", "abort", "--reason", "latency")
    assert "spring: aborted" in told
    assert manifest(shop) == {"control": BETTER}
    assert trail(shop)[-1]["reason"] == "aborted by hand: latency"
    in_pod(shop, "crops", "deploy", "--arm", "control", "--release", OLD)  # back to an older champion
    assert manifest(shop) == {"control": OLD}
    none_failed(before, more_searches(shop, shop.counts(), 100))


def test_what_was_acknowledged_over_all_that_is_in_the_tables(shop):
    none_lost(shop, least=500)
