"""An installation with its rollout controller: a Prometheus that scrapes each gateway, the chart's trial
MLflow as registry, and people who like one of two toy releases better.

The people are made up, and so is their taste: what is shown is that the machinery sees it and acts on it.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from crops.config.rollout import GUARDRAILS
from tests.cluster.access import place
from tests.cluster.shop import SMALL, Shop, opened, pod

RULES = Path(__file__).resolve().parents[2] / "monitoring/rules"
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
    """Prometheus's settings, as JSON, which is YAML: every pod behind Services without an address, and the
    project's rules."""

    def job(name: str, service: str, port: int) -> dict:
        names = [f"{service}.{namespace}.svc.cluster.local"]
        asked = {"names": names, "type": "A", "port": port, "refresh_interval": "5s"}
        return {"job_name": name, "dns_sd_configs": [asked]}

    jobs = [job("crops-gateway", "gateways", 8080), job("crops-triton", "search-crops-triton-each", 8002)]
    return json.dumps(
        {
            "global": {"scrape_interval": "2s", "evaluation_interval": "5s"},
            "scrape_configs": jobs,
            "rule_files": ["/etc/prometheus/*.yaml"],
        }
    )


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
    rules = {path.name: path.read_text() for path in RULES.glob("*.yaml")}
    things = [
        made("ConfigMap", "prometheus", namespace, data={"prometheus.yml": scraped(of), **rules}),
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


@contextlib.contextmanager
def running(cluster, images: dict[str, str], folder: Path) -> Iterator[Shop]:
    """Installed, two versions in the trial MLflow, a champion in service, and a Prometheus."""
    people = (str(USERS), json.dumps(TASTE))
    with opened(cluster, images, folder, VALUES, count=2, people=people) as made:
        prometheus(cluster, made.aside, made.namespace, images["mine"])
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
