"""What a real API server and real controllers make of every shape of the chart, without a node to run it.

Pods are made and stay Pending: what admission refuses (the restricted profile, quotas) shows, what their
programs do does not.
"""

import contextlib
import copy
import json
import subprocess
from pathlib import Path

import helm_python
import pytest
import yaml

from tests.cluster.access import eventually, named, place
from tests.helm.test_chart import CHART, ROOT, SHAPES, rendered, values_of

place()
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LONGEST = "search-recommendation-production-europe-west-1-blue-x"  # as long as Helm lets a release's name be
PIPELINE = {"trainJob": {"enabled": True}}
ROLLOUT = {"registry": "http://mlflow.example:5000", "rolloutController": {"enabled": True}}


@contextlib.contextmanager
def installed(cluster, namespace, values, name="search", chart=CHART):
    """The live installation's Helm."""
    with cluster.helm(namespace) as helm:
        helm.install(str(chart), name, values)
        yield helm


def is_hook(document: dict) -> bool:
    """Helm makes it when it is asked, here by `helm test`."""
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def workloads(cluster, namespace) -> list[dict]:
    return cluster.objects("deployments,statefulsets", namespace)


def let_in(workload: dict) -> bool:
    """All pods were made, one at least of the newest template: none gets ready, so no more follow."""
    status, spec = workload["status"], workload["spec"]
    seen = status.get("observedGeneration") == workload["metadata"]["generation"]
    return seen and status.get("replicas", 0) >= spec["replicas"] and status.get("updatedReplicas", 0) >= 1


def refusals(cluster, namespace) -> list[str]:
    """Of pods by admission; that an account is so new that it is not known yet is tried again."""
    said = [e["message"] for e in cluster.objects("events", namespace) if e["reason"] == "FailedCreate"]
    return [message for message in said if "looking up service account" not in message]


def pods_are_made(cluster, namespace) -> None:
    """Of all workloads and jobs; an AssertionError where admission refuses one."""

    def look():
        jobs = {named(job): job["status"].get("active", 0) for job in cluster.objects("jobs", namespace)}
        made = {named(each): let_in(each) for each in workloads(cluster, namespace)}
        return made | jobs, refusals(cluster, namespace)

    def meant(seen):
        made, refused = seen
        assert not refused, refused
        return made and all(made.values())

    eventually(look, meant)


def all_pods_are_made(cluster, namespace) -> None:
    """Those of CronJobs too, now."""
    for number, (_, cron) in enumerate(sorted(map(named, cluster.objects("cronjobs", namespace)))):
        cluster.kubectl("-n", namespace, "create", "job", f"now-{number}", f"--from=cronjob/{cron}")
    pods_are_made(cluster, namespace)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_installed_upgraded_rolled_back_and_leaves_nothing_but_its_volume(
    cluster, namespace, shape
):
    values = values_of(shape)
    with installed(cluster, namespace, values) as helm:
        all_pods_are_made(cluster, namespace)
        for hook in filter(is_hook, rendered(values)):
            pod = json.dumps(hook).replace("shop-crops", "search-crops")
            cluster.kubectl("-n", namespace, "create", "--dry-run=server", "-f-", text=pod)
        helm.upgrade(str(CHART), "search", {**values, "commonLabels": {"cost-centre": "42"}})
        helm.rollback("search", version=1)
        pods_are_made(cluster, namespace)
        claims = {named(claim) for claim in cluster.objects("pvc", namespace)}
        helm.uninstall("search")
    eventually(lambda: cluster.all_objects(namespace), lambda left: left == claims)
    made = [d for d in rendered(values) if d["kind"] == "PersistentVolumeClaim"]
    assert len(claims) == len(made), "of the claims only the chart's own, which outlives it"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_applied_server_side_without_a_warning(cluster, namespace, shape):
    """A misspelt field is an error in strict validation; what "restricted" would refuse is a warning."""
    documents = [d for d in rendered(values_of(shape)) if not is_hook(d)]
    asked = ("-n", namespace, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f-")
    done = cluster.run(*asked, text=yaml.safe_dump_all(documents))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert done.stdout.count("serverside-applied") == len(documents)


def test_what_is_wrong_is_seen_by_the_same_checks(cluster, namespace):
    """A misspelt field, a pod that may not be, a quota that is too small."""
    (gateway,) = (d for d in rendered({}) if named(d) == ("StatefulSet", "shop-crops-gateway"))
    asked = ("-n", namespace, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f-")
    misspelt = copy.deepcopy(gateway)
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert "livenesProbe" in cluster.run(*asked, text=json.dumps(misspelt)).stderr
    open_values = {"containerSecurityContext": {"allowPrivilegeEscalation": True}}
    text = yaml.safe_dump_all(rendered(open_values))
    assert 'would violate PodSecurity "restricted' in cluster.run(*asked, text=text).stderr
    with (
        installed(cluster, namespace, open_values),
        pytest.raises(AssertionError, match="violates PodSecurity"),
    ):
        all_pods_are_made(cluster, namespace)
    with cluster.namespace() as small:
        cluster.kubectl("-n", small, "create", "quota", "all", "--hard=requests.cpu=1,limits.memory=100Gi")
        eventually(lambda: cluster.objects("quota", small)[0].get("status"), bool)
        with installed(cluster, small, {}), pytest.raises(AssertionError, match="exceeded quota"):
            all_pods_are_made(cluster, small)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_a_namespace_with_quotas_every_pod_says_what_it_takes(cluster, namespace, shape):
    hard = "requests.cpu=100,requests.memory=400Gi,limits.cpu=200,limits.memory=800Gi"
    cluster.kubectl("-n", namespace, "create", "quota", "all", f"--hard={hard}")
    eventually(lambda: cluster.objects("quota", namespace)[0].get("status"), bool)
    with installed(cluster, namespace, values_of(shape)):
        all_pods_are_made(cluster, namespace)


def first_chart(folder: Path) -> Path:
    """The chart as it was first committed, of this project's history."""
    log = ("log", "--diff-filter=A", "--format=%H", "--", "helm/crops/Chart.yaml")
    told = subprocess.run(["git", *log], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not told:
        pytest.skip("not run: this copy has no history (a shallow clone)")
    archive = subprocess.run(
        ["git", "archive", told[-1], "helm/crops"], cwd=ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "helm/crops"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_chart_becomes_todays_and_goes_back(cluster, namespace, tmp_path, shape):
    first = first_chart(tmp_path)
    path = first / f"ci/{shape}-values.yaml"
    if not path.exists():
        pytest.skip(f"the first chart had no shape {shape}")
    values = yaml.safe_load(path.read_text()) or {}
    with installed(cluster, namespace, values, chart=first) as helm:
        before = {p["metadata"]["name"] for p in cluster.objects("pvc", namespace)}
        helm.upgrade(str(CHART), "search", values_of(shape))
        all_pods_are_made(cluster, namespace)
        assert before <= {p["metadata"]["name"] for p in cluster.objects("pvc", namespace)}
        helm.rollback("search", version=1)
        assert helm.status("search")["status"] == "deployed"


AUTOSCALED = {
    "gateway": {"replicas": 4, "autoscaling": {"enabled": True, "min": 2, "max": 10}},
    "triton": {"replicas": 3, "autoscaling": {"kind": "hpa", "min": 2, "max": 8}},
}


def test_turning_autoscaling_on_takes_no_pod(cluster, namespace):
    fixed = {component: {"replicas": values["replicas"]} for component, values in AUTOSCALED.items()}

    def pods():
        found = cluster.objects("pods", namespace)
        return {p["metadata"]["uid"] for p in found if "deletionTimestamp" not in p["metadata"]}

    def wanted():
        return {
            each["metadata"]["name"].rpartition("-")[2]: each["spec"]["replicas"]
            for each in workloads(cluster, namespace)
        }

    with installed(cluster, namespace, fixed) as helm:
        before = eventually(pods, lambda found: len(found) == 7)
        helm.upgrade(str(CHART), "search", AUTOSCALED)
        assert wanted() == {"gateway": 4, "triton": 3}
        scalers = {s["spec"]["scaleTargetRef"]["name"] for s in cluster.objects("hpa", namespace)}
        assert scalers == {"search-crops-gateway", "search-crops-triton"}
        # The autoscalers have looked by then, and found no metrics: they leave the number alone.
        eventually(
            lambda: [s.get("status", {}).get("conditions") for s in cluster.objects("hpa", namespace)], all
        )
        assert before <= pods(), "no pod went"
        cluster.kubectl("-n", namespace, "scale", "statefulset/search-crops-gateway", "--replicas=7")
        helm.upgrade(str(CHART), "search", {**AUTOSCALED, "commonLabels": {"a": "b"}})
        assert wanted() == {"gateway": 7, "triton": 3}, "what an autoscaler has made is kept"
        # Helm 4 applies on the server's side, where the number is the autoscaler's: the same one or none.
        with pytest.raises(helm_python.HelmError, match=r"\.spec\.replicas"):
            helm.upgrade(str(CHART), "search", fixed)
        cluster.kubectl("-n", namespace, "scale", "statefulset/search-crops-gateway", "--replicas=4")
        helm.upgrade(str(CHART), "search", fixed)
        assert wanted() == {"gateway": 4, "triton": 3}
        assert not cluster.objects("hpa", namespace)


def test_the_accounts_of_the_pods_can_no_more_than_anybody(cluster, namespace):
    """As the server decides, compared with an account that nobody has given anything."""

    def rights(account):
        user = f"--as=system:serviceaccount:{namespace}:{account}"
        return cluster.kubectl("-n", namespace, "auth", "can-i", "--list", user)

    def may(verb, group, resource, name="", subresource=""):
        asked = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{namespace}:crops-pipeline",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"],
                "resourceAttributes": {**asked, "name": name, "subresource": subresource},
            },
        }
        answer = cluster.kubectl("create", "-f-", "--output=json", text=json.dumps(review))
        return json.loads(answer)["status"]["allowed"]

    with installed(cluster, namespace, {**ROLLOUT, **PIPELINE}):
        accounts = {name for _, name in map(named, cluster.objects("serviceaccounts", namespace))} - {
            "default"
        }
        assert accounts == {"crops-pipeline"} | {
            f"search-crops-{component}" for component in ("gateway", "triton", "rollout", "compactor")
        }
        for account in accounts - {"crops-pipeline"}:
            assert rights(account) == rights("default"), account
        assert rights("crops-pipeline") != rights("default")
        for verb in ("create", "get", "list", "watch", "delete"):
            assert may(verb, "trainer.kubeflow.org", "trainjobs")
        assert may("get", "", "pods", subresource="log")
        assert may("create", "argoproj.io", "workflowtaskresults")
        assert may("get", "", "configmaps", "kfp-launcher")
        assert may("get", "", "secrets", "mlpipeline-minio-artifact")
        for refused in (
            ("get", "", "secrets"),
            ("get", "", "secrets", "crops-gateway"),
            ("get", "", "configmaps"),
            ("create", "", "pods"),
            ("delete", "", "pods"),
            ("create", "", "pods", "", "exec"),
        ):
            assert not may(*refused), refused
        all_pods_are_made(cluster, namespace)
        for pod in cluster.objects("pods", namespace):
            assert not [v for v in pod["spec"]["volumes"] if "projected" in v], "a token is in a pod"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_release_may_be_named_as_long_as_helm_allows(cluster, namespace, shape):
    assert len(LONGEST) == 53
    with installed(cluster, namespace, values_of(shape), name=LONGEST):
        all_pods_are_made(cluster, namespace)


def of_each(cluster, namespace) -> dict[str, set[str]]:
    """Service -> the pods that it finds."""
    return {
        name: {
            found["metadata"]["name"]
            for found in cluster.objects("pods", namespace, ",".join(f"{k}={v}" for k, v in asked.items()))
        }
        for (_, name), asked in (
            (named(service), service["spec"]["selector"])
            for service in cluster.objects("services", namespace)
        )
    }


def test_two_installations_share_a_namespace_and_no_pod(cluster, namespace):
    with installed(cluster, namespace, ROLLOUT), installed(cluster, namespace, ROLLOUT, name="other") as helm:
        all_pods_are_made(cluster, namespace)
        finds = of_each(cluster, namespace)
        assert len(finds) == 6
        for service, pods in finds.items():
            assert len(pods) == 2, service
            assert all(pod.startswith(service.partition("-")[0]) for pod in pods), (service, pods)
        helm.uninstall("other")
        eventually(lambda: of_each(cluster, namespace).keys(), lambda names: len(names) == 3)
        pods_are_made(cluster, namespace)
        assert all(len(pods) == 2 for pods in of_each(cluster, namespace).values())


def test_the_same_installation_stands_in_two_namespaces(cluster, namespace):
    with (
        cluster.namespace() as second,
        installed(cluster, namespace, values_of("cluster")),
        installed(cluster, second, values_of("cluster")),
    ):
        for each in (namespace, second):
            all_pods_are_made(cluster, each)


def test_a_second_pipeline_in_a_namespace_takes_the_account_that_is_there(cluster, namespace):
    """The account's name is the pipeline's, so one installation makes it; the other is told with a value."""
    taken = {"trainJob": {"enabled": True, "createServiceAccount": False}}
    with installed(cluster, namespace, PIPELINE):
        with (
            pytest.raises(helm_python.HelmError, match="crops-pipeline"),
            installed(cluster, namespace, PIPELINE, name="other"),
        ):
            pass
        with installed(cluster, namespace, taken, name="third"):
            all_pods_are_made(cluster, namespace)
