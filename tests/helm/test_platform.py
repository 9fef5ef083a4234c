"""What a platform team sets: it reaches every pod it is meant for, or is refused with a sentence."""

import json
import re
import shutil

import helm_python
import kubernetes_validate
import pytest
import yaml
from helm_python import Chart

from crops.cli.serve import retrain_hook
from tests.helm.crds import validate as validate_custom
from tests.helm.test_chart import CHART, KUBERNETES, WORKLOADS, containers, named, pods, rendered, values_of

HOOK = {"enabled": True, "url": "https://ci.example:8443/run", "existingSecret": {"name": "retrain"}}
RELEASE = {"existing": False, "uri": "models:/crops/2", "sha256": "a" * 64}
OUTSIDE = {
    "release": RELEASE,
    "registry": "https://mlflow.example",
    "storage": {"manifest": "s3://b/manifest.json", "releases": "s3://b/releases"},
    "events": {"kind": "kafka", "kafka": {"servers": "a.example:9092,b.example:9094"}},
    "redis": {"url": "rediss://redis.example:6380/0"},
}
SCALED = {
    "gateway": {"replicas": 4, "autoscaling": {"enabled": True, "min": 3, "max": 10}},
    "triton": {"replicas": 4, "autoscaling": {"kind": "keda", "min": 2, "max": 8}},
}


def refused(values: dict, why: str) -> None:
    with pytest.raises(helm_python.HelmError, match=why):
        rendered(values)


def upgraded(values: dict) -> list[dict]:
    chart = Chart.load(str(CHART))
    try:
        files = chart.render(values, name="shop", namespace="search", is_upgrade=True)
    finally:
        chart.close()
    return [d for name in files if name.endswith(".yaml") for d in yaml.safe_load_all(files[name]) if d]


def test_an_upgrade_that_turns_autoscaling_on_keeps_the_replicas():
    documents = upgraded(SCALED)
    assert named(documents, "StatefulSet", "-gateway")["spec"]["replicas"] == 4
    assert named(documents, "Deployment", "-triton")["spec"]["replicas"] == 4
    first = rendered(SCALED)
    assert "replicas" not in named(first, "StatefulSet", "-gateway")["spec"], (
        "the autoscaler's from the start"
    )


@pytest.mark.parametrize(("live", "kept"), [(7, 7), (2, 3), (1, 3)])
def test_what_the_autoscaler_has_made_live_is_kept(tmp_path, live, kept):
    shutil.copytree(CHART, tmp_path / "crops")
    looked = f'(dict "spec" (dict "replicas" {live}))'
    asked = (
        f'{{{{ include "crops.replicas" (dict "live" {looked} "values" .Values.gateway "upgrade" true) }}}}'
    )
    (tmp_path / "crops/templates/live.yaml").write_text(f"kind: Live\n{asked}\n")
    chart = Chart.load(str(tmp_path / "crops"))
    try:
        files = chart.render(SCALED, name="shop", namespace="search", is_upgrade=True)
    finally:
        chart.close()
    (text,) = [text for name, text in files.items() if name.endswith("live.yaml")]
    assert yaml.safe_load(text)["replicas"] == kept


def test_a_budget_never_blocks_a_drain():
    for component, kind in (("gateway", "-gateway"), ("triton", "-triton")):
        assert named(rendered({}), "PodDisruptionBudget", kind)["spec"]["maxUnavailable"] == 1
        refused({component: {"replicas": 1, "minAvailable": 1}}, "drained")
        percent = rendered({component: {"minAvailable": "50%"}})
        assert named(percent, "PodDisruptionBudget", kind)["spec"]["minAvailable"] == "50%"
    refused({"gateway": {**SCALED["gateway"], "minAvailable": 3}}, "3 of 3 replicas")
    refused({"triton": {**SCALED["triton"], "minAvailable": 2}}, "2 of 2 replicas")


def test_names_fit_what_kubernetes_allows():
    long = rendered({"fullnameOverride": "search-recommendation-production-eu-west-1-crops"})
    limits = {"StatefulSet": 52, "CronJob": 52, "Service": 63}
    named_here = {d["kind"]: d["metadata"]["name"] for d in long}
    for kind, limit in limits.items():
        assert len(named_here[kind]) <= limit
    for values in ({"nameOverride": "search.v2"}, {"fullnameOverride": "2search"}):
        refused(values, "pattern")
    chart = Chart.load(str(CHART))
    with pytest.raises(helm_python.HelmError, match="fullnameOverride"):
        chart.render({}, name="2shop", namespace="search")
    chart.close()


EXTRAS = {
    "podAnnotations": {"team.example/owner": "search"},
    "podLabels": {"tier": "front"},
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "runtimeClassName": "gvisor",
    "nodeSelector": {"pool": "search"},
    "extraEnv": [{"name": "AWS_CA_BUNDLE", "value": "/ca/ca.crt"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
}


def test_what_is_added_to_a_component_is_on_its_pods_and_on_no_other():
    components = {
        "gateway": "gateway",
        "triton": "triton",
        "rolloutController": "rollout",
        "compactor": "compactor",
        "retrainHook": "retrain",
    }
    base = {"registry": "https://mlflow.example", "release": RELEASE}
    for component, ending in components.items():
        values = {**base, "rolloutController": {"enabled": True}, "retrainHook": HOOK}
        values[component] = {**values.get(component, {}), **EXTRAS}
        documents = rendered(values)
        for name, pod in pods(documents):
            own = name.endswith(ending)
            assert (pod.get("priorityClassName") == "high") == own, name
            assert (pod.get("runtimeClassName") == "gvisor") == own, name
            assert (pod.get("nodeSelector") == {"pool": "search"}) == own, name
            assert ("affinity" in pod) == own, name
            assert ({"name": "ca", "configMap": {"name": "ca"}} in pod.get("volumes", [])) == own, name
            for container in containers(pod):
                assert (EXTRAS["extraEnv"][0] in container.get("env", [])) == own, name
                assert (EXTRAS["extraVolumeMounts"][0] in container.get("volumeMounts", [])) == own, name
        for document in documents:
            if document["kind"] in WORKLOADS[:4]:
                spec = document["spec"]
                meta = spec.get("jobTemplate", {}).get("spec", spec)["template"]["metadata"]
                own = document["metadata"]["name"].endswith(ending)
                assert (meta["labels"].get("tier") == "front") == own
                assert ("team.example/owner" in meta.get("annotations", {})) == own


def test_labels_of_all_are_in_no_selector():
    documents = rendered({**values_of("cluster"), "commonLabels": {"cost-centre": "42"}})
    for document in documents:
        if document["kind"] == "AnalysisTemplate":  # generated, without labels
            continue
        assert document["metadata"]["labels"]["cost-centre"] == "42", document["metadata"]["name"]
        asked = {key: value for key, value in document.get("spec", {}).items() if "elector" in key}
        assert "cost-centre" not in str(asked)


def test_a_platform_that_assigns_users_gets_no_user_from_us():
    for _, pod in pods(rendered({"podSecurityContext": {"runAsUser": None, "fsGroup": None}})):
        assert not {"runAsUser", "fsGroup"} & pod["securityContext"].keys()
        assert pod["securityContext"]["runAsNonRoot"] is True


def test_an_account_with_an_identity_is_made_or_taken():
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}
    for create in (True, False):
        documents = rendered(
            {"serviceAccount": {"create": create, "name": "search-irsa", "annotations": role}}
        )
        assert {pod["serviceAccountName"] for _, pod in pods(documents)} == {"search-irsa"}
        made = [d["metadata"] for d in documents if d["kind"] == "ServiceAccount"]
        assert [(m["name"], m["annotations"]) for m in made] == ([("search-irsa", role)] if create else [])
    refused({"serviceAccount": {"create": False}}, "which account")


def test_passwords_come_from_secrets_alone():
    for someone in (":word", "me:word"):
        refused({"redis": {"url": f"rediss://{someone}@redis.example:6380/0"}}, "pattern")
        refused({"registry": f"https://{someone}@mlflow.example"}, "pattern")
    documents = rendered({"redis": {"existingSecret": {"name": "redis"}}, "registrySecret": "mlflow"})
    (gateway,) = named(documents, "StatefulSet", "-gateway")["spec"]["template"]["spec"]["containers"]
    (redis,) = [e for e in gateway["env"] if e["name"] == "CROPS_REDIS"]
    assert redis["valueFrom"]["secretKeyRef"] == {"name": "redis", "key": "redis-url"}
    assert {"secretRef": {"name": "mlflow"}} in gateway["envFrom"]
    refused({"redis": {"url": "redis://a", "existingSecret": {"name": "b"}}}, "choose one")


def test_kafka_is_let_in_by_a_secret_that_gateway_and_compactor_alone_see():
    kafka = {"servers": "a.example:9093", "existingSecret": {"name": "search-kafka", "key": "login"}}
    documents = rendered({**OUTSIDE, "events": {"kind": "kafka", "kafka": kafka}, "storage": {}})
    seen = {}
    for _, pod in pods(documents):
        held = [v for v in pod.get("volumes", []) if v.get("secret", {}).get("secretName") == "search-kafka"]
        for one in (*pod.get("initContainers", ()), *pod["containers"]):
            mounts = [m for m in one.get("volumeMounts", []) if m["name"] == "kafka"]
            assert mounts in ([], [{"name": "kafka", "mountPath": "/etc/kafka", "readOnly": True}])
            assert bool(mounts) <= bool(held)
            seen[one["name"]] = bool(mounts)
    assert {name for name, has in seen.items() if has} == {"gateway", "compact"}
    settings = json.loads(named(documents, "ConfigMap", "-gateway")["data"]["gateway.json"])
    assert settings["kafka_file"] == "/etc/kafka/login"
    (compact,) = [
        one for _, pod in pods(documents) for one in pod.get("initContainers", ()) if one["name"] == "compact"
    ]
    assert "--kafka-file=/etc/kafka/login" in compact["args"]


def test_a_drift_alert_reaches_the_ci_through_the_hook_and_nobody_else_does(tmp_path):
    """The hook's arguments are options of its verb; its port is open to Alertmanager's namespace alone."""
    hook = HOOK
    for gone in ("url", "existingSecret"):
        refused({"retrainHook": {key: hook[key] for key in hook if key != gone}}, "retrainHook.enabled needs")
    for storage, state in ((None, "/shared"), (OUTSIDE, "/var/lib/crops")):
        documents = rendered({**(storage or {}), "retrainHook": hook})
        (container,) = named(documents, "Deployment", "-retrain")["spec"]["template"]["spec"]["containers"]
        args = container["args"]
        assert args[0] == "retrain-hook"
        assert f"--state={state}/retrain.json" in args
        assert {"name": "state", "mountPath": state} in container["volumeMounts"]
        for name in ("ci-token", "hook-token"):
            (tmp_path / name).write_text("x")
        local = [arg.replace("/etc/retrain", str(tmp_path)).replace(state, str(tmp_path)) for arg in args]
        read = retrain_hook.make_context("retrain-hook", local[1:]).params
        assert (read["every_s"], read["host"], read["port"]) == (86_400.0, "::", 8090)
        assert json.loads(read["body"])["ref"] == "main"
        assert named(documents, "Service", "-retrain")["spec"]["ports"][0]["port"] == 8090
        policy = named(documents, "NetworkPolicy", "-retrain")["spec"]
        (door,) = policy["ingress"]
        assert door["ports"] == [{"port": 8090}]
        assert "namespaceSelector" in door["from"][0]
        assert {"port": 8443} in [port for rule in policy["egress"] for port in rule.get("ports", [])]


def test_no_claim_where_an_object_store_and_kafka_hold_all():
    documents = rendered(OUTSIDE)
    assert "PersistentVolumeClaim" not in {d["kind"] for d in documents}
    assert not [
        v for _, pod in pods(documents) for v in pod.get("volumes", []) if "persistentVolumeClaim" in v
    ]
    for more in (
        {"storage": {**OUTSIDE["storage"], "existingClaim": "mine"}},
        {"events": {"kind": "segments"}},
    ):
        kinds = [d["kind"] for d in rendered(OUTSIDE | more)]
        assert "CronJob" in kinds
    made = named(
        rendered({"storage": {"accessModes": ["ReadWriteOnce"]}}), "PersistentVolumeClaim", "-shared"
    )
    assert made["spec"]["accessModes"] == ["ReadWriteOnce"]


def policies(documents: list[dict]) -> dict[str, dict]:
    return {
        d["metadata"]["name"].removeprefix("shop-crops-"): d["spec"]
        for d in documents
        if d["kind"] == "NetworkPolicy"
    }


def ports(policy: dict) -> set[int]:
    """Outside the cluster's DNS and the installation itself."""
    return {p["port"] for rule in policy["egress"] if "to" not in rule for p in rule["ports"]} - {53}


def test_every_component_is_closed_but_for_what_its_values_name():
    open_to = policies(rendered({**OUTSIDE, "rolloutController": {"enabled": True}}))
    assert ports(open_to["gateway"]) == {443, 6380, 9092, 9094}
    assert ports(open_to["triton"]) == {443}
    assert ports(open_to["compactor"]) == {443, 9092, 9094}
    assert ports(open_to["rollout"]) == {443, 9090}
    assert not open_to["rollout"]["ingress"]
    assert "ingress" not in open_to["deny"]
    assert all(policy["policyTypes"] == ["Ingress", "Egress"] for policy in open_to.values())
    assert ports(policies(rendered({}))["gateway"]) == set()
    trial = policies(rendered(values_of("trial")))
    assert {"redis", "kafka", "mlflow"} <= trial.keys()
    assert [p["port"] for rule in trial["mlflow"]["ingress"] for p in rule["ports"]] == [5000]


def test_the_trials_mlflow_answers_to_its_own_name_within_its_memory():
    mlflow = named(rendered(values_of("trial")), "Deployment", "-mlflow")
    (container,) = mlflow["spec"]["template"]["spec"]["containers"]
    assert "--workers=1" in container["args"]
    (hosts,) = [a.split("=")[1].split(",") for a in container["args"] if a.startswith("--allowed-hosts")]
    assert "shop-crops-mlflow:5000" in hosts
    assert container["resources"]["limits"]["memory"] == "2Gi"


def test_an_image_without_a_registry_is_nobodys_elses():
    images = {c["image"] for _, pod in pods(rendered({})) for c in containers(pod)}
    assert all(re.match(r"localhost/crops/\w+:", image) for image in images)
    own = {
        c["image"] for _, p in pods(rendered({"images": {"registry": "r.example/x"}})) for c in containers(p)
    }
    assert all(image.startswith("r.example/x/crops/") for image in own)


def test_several_hosts_a_service_of_another_type_behaviour_and_objects_of_the_team():
    behaviour = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    documents = rendered(
        {
            "gateway": {
                "service": {"type": "LoadBalancer", "annotations": {"lb.example/internal": "true"}},
                "autoscaling": {"enabled": True, "behavior": behaviour},
                "resources": {"limits": {"cpu": None}, "requests": {"cpu": 2}},
            },
            "triton": {"autoscaling": {"kind": "keda", "behavior": behaviour}},
            "ingress": {"enabled": True, "host": "a.example", "extraHosts": ["b.example"], "tlsSecret": "t"},
            "extraObjects": [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-x"}}
            ],
        }
    )
    service = named(documents, "Service", "-gateway")
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["metadata"]["annotations"] == {"lb.example/internal": "true"}
    assert named(documents, "HorizontalPodAutoscaler", "-gateway")["spec"]["behavior"] == behaviour
    scaled = named(documents, "ScaledObject", "-triton")["spec"]["advanced"]
    assert scaled["horizontalPodAutoscalerConfig"]["behavior"] == behaviour
    ingress = named(documents, "Ingress", "-gateway")["spec"]
    assert (
        [rule["host"] for rule in ingress["rules"]]
        == ingress["tls"][0]["hosts"]
        == ["a.example", "b.example"]
    )
    assert [d for d in documents if d["metadata"]["name"] == "shop-x"]
    (gateway,) = named(documents, "StatefulSet", "-gateway")["spec"]["template"]["spec"]["containers"]
    assert "cpu" not in gateway["resources"]["limits"]


def test_a_name_that_yaml_would_read_as_a_number_is_a_name():
    values = {
        "fullnameOverride": "shop-crops",
        "gatewaySecret": {"name": "12"},
        "redis": {"existingSecret": {"name": "34"}},
        "registrySecret": "56",
        "images": {"pullSecrets": ["78"], "registry": "r.example/x/"},
        "serviceAccount": {"name": "90"},
        "gateway": {"priorityClassName": "1e3", "runtimeClassName": "null"},
        "storage": {"storageClass": "true"},
        "trainJob": {"enabled": True, "serviceAccount": "5"},
        "ingress": {"enabled": True, "host": "*.example.com", "tlsSecret": "6"},
    }
    chart = Chart.load(str(CHART))
    try:
        files = chart.render(values, name="123", namespace="42")
    finally:
        chart.close()
    documents = [d for name in files if name.endswith(".yaml") for d in yaml.safe_load_all(files[name]) if d]
    for document in documents:
        if not validate_custom(document):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    (ingress,) = [d["spec"] for d in documents if d["kind"] == "Ingress"]
    assert ingress["tls"] == [{"hosts": ["*.example.com"], "secretName": "6"}]
    images = {one["image"] for _, pod in pods(documents) for one in containers(pod)}
    assert all(image.startswith("r.example/x/crops/") for image in images)


def test_a_label_stands_once_and_none_of_the_charts_own_is_replaced():
    labels = {"team": "search", "release": "all"}
    chart = Chart.load(str(CHART))
    values = {
        "commonLabels": labels,
        "gateway": {"podLabels": {"team": "front"}},
        "monitoring": {"serviceMonitors": True, "labels": {"release": "kps"}},
    }
    try:
        files = chart.render(values, name="shop", namespace="search")
    finally:
        chart.close()
    for text in files.values():
        for block in re.findall(r"labels:\n((?: +\S+: .*\n)+)", text):
            keys = [line.split(":")[0] for line in block.splitlines()]
            assert len(keys) == len(set(keys)), block
    documents = rendered(values)
    pod = named(documents, "StatefulSet", "-gateway")["spec"]["template"]["metadata"]["labels"]
    monitor = named(documents, "ServiceMonitor", "-gateway")["metadata"]["labels"]
    assert (pod["team"], pod["release"]) == ("front", "all")
    assert (monitor["team"], monitor["release"]) == ("search", "kps")
    own = {"app.kubernetes.io/component": "x"}
    for where in ({"commonLabels": own}, {"triton": {"podLabels": own}}):
        refused(where, "the chart's own label")


def test_what_no_container_could_start_with_is_refused():
    refused({"gateway": {"extraEnv": [{"name": "X", "value": 1}]}}, "want string")
    refused({"images": {"registry": "https://r.example"}}, "registry")


@pytest.mark.parametrize(
    ("servers", "url", "expected"),
    [
        ("a.example", "redis://r:6380?x=1", {9092, 6380}),
        ("a:9093 ,b:9094", "rediss://r", {9093, 9094, 6379}),
        ("[fd00::1]:9095", "redis://[fd00::2]/0", {9095, 6379}),
    ],
)
def test_the_port_of_an_address_is_open_however_it_is_written(servers, url, expected):
    documents = rendered({"events": {"kind": "kafka", "kafka": {"servers": servers}}, "redis": {"url": url}})
    assert ports(policies(documents)["gateway"]) == expected
