"""The chart, rendered by real Helm for every supported shape: valid, locked down, stable, and strict about
bad values.

CROPS_GOLDEN=write pytest tests/helm    writes golden/ anew after a change that is meant.
"""

import copy
import json
import math
import os
import re
from pathlib import Path

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm_python import Chart

from crops.config.all import Config
from crops.config.deploy import DeployConfig
from serving.gateway.settings import Settings
from serving.triton import follow
from tests.helm.crds import validate as validate_custom

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/crops"
GOLDEN = Path(__file__).parent / "golden"
SHAPES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
KUBERNETES = "1.34"
WORKLOADS = ("Deployment", "StatefulSet", "Rollout", "CronJob", "Pod")


def values_of(shape: str) -> dict:
    return yaml.safe_load((CHART / f"ci/{shape}-values.yaml").read_text()) or {}


def rendered(values: dict) -> list[dict]:
    """All documents in the order of their files."""
    chart = Chart.load(str(CHART))
    try:
        files = chart.render(values, name="shop", namespace="search")
    finally:
        chart.close()
    texts = [files[name] for name in sorted(files) if not name.endswith("NOTES.txt")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    """(name, documents) of each supported shape."""
    return request.param, rendered(values_of(request.param))


def pods(documents: list[dict]) -> list[tuple[str, dict]]:
    found = []
    for document in documents:
        if document["kind"] not in WORKLOADS:
            continue
        spec = document["spec"]
        if document["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]["template"]["spec"]
        elif document["kind"] != "Pod":
            spec = spec["template"]["spec"]
        found.append((f"{document['kind']}/{document['metadata']['name']}", spec))
    return found


def containers(pod: dict) -> list[dict]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def named(documents: list[dict], kind: str, ending: str) -> dict:
    (found,) = [d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, f"shop-crops{ending}")]
    return found


def test_helm_finds_nothing_wrong():
    for name in SHAPES:
        found = helm_python.lint(str(CHART), values_of(name), strict=True)
        assert not [m for m in found["messages"] if m["severity"] > 1], (name, found)


def test_every_object_is_valid_for_kubernetes(shape):
    for document in shape[1]:
        if not validate_custom(document):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_validators_see_what_is_wrong():
    """An API version that is gone, a misspelt field, a custom one: none may pass in silence."""
    gone = {
        "apiVersion": "autoscaling/v2beta2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
        "spec": {},
    }
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(gone, KUBERNETES, strict=True)
    documents = rendered(values_of("cluster"))
    pod = copy.deepcopy(named(documents, "Deployment", "-triton"))
    pod["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    for kind in ("ServiceMonitor", "ScaledObject", "HTTPRoute", "AnalysisTemplate"):
        custom = copy.deepcopy(next(d for d in documents if d["kind"] == kind))
        custom["spec"]["selectr"] = {}
        with pytest.raises(jsonschema.ValidationError):
            validate_custom(custom)


def test_every_pod_passes_the_restricted_profile(shape):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, restricted."""
    assert pods(shape[1])
    for name, pod in pods(shape[1]):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {
            "configMap",
            "emptyDir",
            "persistentVolumeClaim",
            "secret",
            "projected",
            "downwardAPI",
        }, name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert not any("hostPort" in port for port in container.get("ports", [])), name


def test_nothing_listens_on_ipv4_alone(shape):
    """Pods of an IPv6 cluster have no other address."""
    assert "0.0.0.0" not in json.dumps(shape[1])


def test_every_pod_keeps_the_rules_of_the_house(shape):
    for name, pod in pods(shape[1]):
        assert pod["automountServiceAccountToken"] is False, name
        for container in containers(pod):
            assert re.search(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"]), container[
                "image"
            ]
            assert {"requests", "limits"} <= container["resources"].keys(), name
            for kept in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][kept].keys(), name
        if not name.startswith(("CronJob", "Pod")):
            for container in pod["containers"]:
                assert "livenessProbe" in container, name
                assert name.endswith("-rollout") or {"startupProbe", "readinessProbe"} <= container.keys(), (
                    name
                )


def test_no_secret_is_in_the_chart_only_names_of_secrets(shape):
    assert not [d for d in shape[1] if d["kind"] == "Secret"]


def test_what_is_mounted_is_there_and_what_is_there_is_mounted(shape):
    for name, pod in pods(shape[1]):
        declared = {volume["name"] for volume in pod.get("volumes", [])}
        used = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert used == declared, name
    maps = {d["metadata"]["name"] for d in shape[1] if d["kind"] == "ConfigMap"}
    accounts = {d["metadata"]["name"] for d in shape[1] if d["kind"] == "ServiceAccount"}
    for name, pod in pods(shape[1]):
        assert {v["configMap"]["name"] for v in pod.get("volumes", []) if "configMap" in v} <= maps, name
        assert pod["serviceAccountName"] in accounts, name


def test_selectors_find_exactly_their_own_pods(shape):
    """Services, budgets, policies and monitors: each of the labels they ask for is on one component's pods,
    and only there.
    """
    labels = {}
    for document in shape[1]:
        if document["kind"] in ("Deployment", "StatefulSet", "Rollout"):
            found = document["spec"]["template"]["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"].items() <= found.items()
            labels[document["metadata"]["name"]] = found
    for document in shape[1]:
        spec = document.get("spec", {})
        asked = {
            "Service": spec.get("selector"),
            "PodDisruptionBudget": spec.get("selector", {}).get("matchLabels"),
            "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels"),
        }.get(document["kind"])
        if asked is not None:
            matched = [name for name, found in labels.items() if asked.items() <= found.items()]
            assert len(matched) == 1, (document["kind"], document["metadata"]["name"], matched)


def test_the_settings_are_what_the_programs_read(shape):
    documents = shape[1]
    gateway = Settings.parse(json.loads(named(documents, "ConfigMap", "-gateway")["data"]["gateway.json"]))
    triton = follow.Settings.parse(
        json.loads(named(documents, "ConfigMap", "-triton")["data"]["triton.json"])
    )
    assert gateway.manifest == triton.manifest
    services = {
        f"dns:///{d['metadata']['name']}:{d['spec']['ports'][0]['port']}"
        for d in documents
        if d["kind"] == "Service"
    }
    assert gateway.triton in services
    rollouts = [
        d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("-rollout")
    ]
    for held in rollouts:
        config = Config(raw=yaml.safe_load(held["data"]["crops.yaml"]))
        deploy: DeployConfig = config.section("deploy")
        config.section("rollout")
        assert deploy.manifest == gateway.manifest
        assert deploy.triton is None


@pytest.mark.parametrize("name", SHAPES)
def test_the_render_is_what_was_looked_at(name):
    """A golden diff: an unmeant change shows. The generated rules and dashboards have tests of their own."""
    documents = [
        d
        for d in rendered(values_of(name))
        if d["kind"] != "PrometheusRule" and "dashboard" not in d["metadata"]["name"]
    ]
    text = yaml.safe_dump_all(documents, sort_keys=True, width=130)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("CROPS_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", SHAPES)
def test_an_upgrade_keeps_every_selector(name):
    """Kubernetes refuses to change the selector of a Deployment or StatefulSet, and the claim templates of
    the latter.
    """
    before = list(yaml.safe_load_all((GOLDEN / f"selectors-0.1.0-{name}.yaml").read_text()))
    now = {
        (d["kind"], d["metadata"]["name"]): d["spec"]["selector"]
        for d in rendered(values_of(name))
        if d["kind"] in WORKLOADS[:3]
    }
    for kept in before:
        assert now[(kept["kind"], kept["name"])] == kept["selector"]


BAD = [
    ({"gateway": {"replicas": -1}}, "minimum"),
    ({"triton": {"gpu": {"enabled": True}}}, "CPU image"),
    ({"release": {"existing": False}}, "no champion"),
    ({"release": {"existing": False, "uri": "models:/crops/1", "sha256": "a" * 64}}, "pulled from MLflow"),
    ({"release": {"uri": "crops"}}, "pattern"),
    (
        {
            "ingress": {"enabled": True, "host": "a.example"},
            "gatewayApi": {"enabled": True, "host": "a.example", "parent": {"name": "p"}},
        },
        "choose one",
    ),
    ({"ingress": {"enabled": True}}, "minLength"),
    ({"images": {"gateway": {"tag": "latest"}}}, "not"),
    ({"events": {"kind": "kafka"}}, "events.kafka.servers"),
    ({"events": {"kind": "files"}}, "must be one of"),
    ({"argoRollouts": {"enabled": True}}, "needs events.kind kafka"),
    ({"rolloutController": {"enabled": True}}, "needs registry"),
    ({"retrainHook": {"enabled": True}}, "needs retrainHook.url"),
    ({"gateway": {"minAvailable": 2}}, "drained"),
    ({"triton": {"autoscaling": {"min": 9}}}, "min is 9, max is 8"),
    ({"gateway": {"settings": {"manifest": "x"}}}, "additional properties"),
    ({"gateway": {"setings": {}}}, "additional properties"),
    ({"redis": {"url": "redis.example"}}, "pattern"),
    ({"compactor": {"schedule": "hourly"}}, "pattern"),
    ({"gateway": {"resources": {"limits": {"cpu": "2", "memory": "4Gi"}}, "minAvailable": 7}}, "drained"),
    ({"events": {"kafka": {"topic": "search events"}}}, "pattern"),
    # In place of a table null is no default: Helm takes the key away.
    ({"redis": None}, "missing property 'redis'"),
    ({"gateway": {"settings": None}}, "missing property 'settings'"),
    ({"images": {"registry": None}}, "missing property 'registry'"),
    ({"trial": {"kafka": None}}, "missing property 'kafka'"),
]


@pytest.mark.parametrize(
    ("values", "why"), BAD, ids=[why.replace(" ", "-") + str(n) for n, (_, why) in enumerate(BAD)]
)
def test_values_that_cannot_be_meant_are_refused(values, why):
    with pytest.raises(helm_python.HelmError) as refused:
        rendered(values)
    said = str(refused.value)
    assert why in said, said


def test_keda_asks_for_more_replicas_where_requests_wait_too_long():
    """By the algorithm of Kubernetes' autoscaler for a Value: replicas times value by target."""
    values = {"triton": {"replicas": 8, "autoscaling": {"kind": "keda", "min": 2, "max": 16}}}
    scaled = named(rendered(values), "ScaledObject", "-triton")["spec"]
    (trigger,) = scaled["triggers"]

    def desired(replicas: int, waits_us: float) -> int:
        target = float(trigger["metadata"]["threshold"])
        shared = {"Value": replicas, "AverageValue": 1}[trigger["metricType"]]
        wanted = math.ceil(shared * waits_us / target)
        return min(max(wanted, scaled["minReplicaCount"]), scaled["maxReplicaCount"])

    assert desired(8, 6_000) == 10
    assert desired(8, 20_000) == 16
    assert desired(8, 2_500) == 4


def test_the_controller_and_argo_ask_about_their_own_installation():
    documents = rendered(values_of("cluster"))
    for component in ("gateway", "triton"):
        (endpoint,) = named(documents, "ServiceMonitor", f"-{component}")["spec"]["endpoints"]
        assert {"targetLabel": "installation", "replacement": "shop-crops"} in endpoint["relabelings"]
    config = yaml.safe_load(named(documents, "ConfigMap", "-rollout")["data"]["crops.yaml"])
    assert config["rollout"]["matchers"] == 'namespace="search",installation="shop-crops"'
    for template in (d for d in documents if d["kind"] == "AnalysisTemplate"):
        for metric in template["spec"]["metrics"]:
            query = metric["provider"]["prometheus"]["query"]
            assert query.count('namespace="search"') == query.count("rollouts_pod_template_hash") > 0
    own = {**values_of("existing-volume"), "monitoring": {"serviceMonitors": False}}
    config = yaml.safe_load(named(rendered(own), "ConfigMap", "-rollout")["data"]["crops.yaml"])
    assert "matchers" not in config["rollout"], "labels that nobody is known to bring"


def test_the_readout_is_read_as_the_controllers_plan_says():
    ab = {"primary": "lpr", "min_users": 1_000_000}
    controller = {"enabled": True, "config": {"ab": ab}}
    documents = rendered({"registry": "http://mlflow:5000", "rolloutController": controller})
    config = named(documents, "ConfigMap", "-rollout")["data"]["crops.yaml"]
    read = Config(raw=yaml.safe_load(config)).section("experiment")
    assert (read.primary, read.planned_users) == ("lpr", 1_000_000)
    pod = named(documents, "CronJob", "-compactor")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    told = {one["name"]: one["value"] for one in container["env"]}
    assert told == {"CROPS_CONFIG": "/etc/crops/crops.yaml", "CROPS_ROLLOUT": "/shared/rollout"}
    assert {"name": "config", "configMap": {"name": "shop-crops-rollout"}} in pod["volumes"]
    alone = named(rendered({}), "CronJob", "-compactor")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert alone["containers"][0]["env"] == [{"name": "CROPS_ROLLOUT", "value": "/shared/rollout"}]


def test_an_alert_names_its_runbook_where_the_team_keeps_it():
    values = {"monitoring": {"rules": True, "runbookBaseUrl": "https://wiki.example/crops"}}
    urls = [
        rule["annotations"]["runbook_url"]
        for document in rendered(values)
        if document["kind"] == "PrometheusRule"
        for group in document["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(urls) > 20
    assert all(re.fullmatch(r"https://wiki\.example/crops/\w+\.md", url) for url in urls)


def test_every_value_is_in_the_schema_and_says_what_it_is_for():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def strict(node, path="values"):
        if node.get("type") == "object" and "properties" in node:
            assert node.get("additionalProperties") is False, path
            for key, child in node["properties"].items():
                strict(child, f"{path}.{key}")

    strict(schema)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    known = set(schema["properties"]["gateway"]["properties"]["settings"]["properties"])
    assert known < set(Settings.model_fields)


def test_the_version_is_the_projects():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
