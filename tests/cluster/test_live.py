"""The chart on a node: real gateways and Tritons from our images, under people who search meanwhile.

One installation for the whole module, in the order of a day: as docs/install.md says, upgraded, hurt,
drained; then what was acknowledged is looked for in the tables.
"""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from crops.release import manifest
from crops.release.manifest import Manifest
from tests.cluster.access import eventually, place
from tests.helm.test_chart import CHART
from tests.serving import releases as toys

place()
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
VALUES = {
    "gateway": {"resources": SMALL},
    "triton": {"resources": SMALL},
    "compactor": {"resources": SMALL, "schedule": "7 3 1 1 *"},
    "storage": {"existingClaim": "shared"},
}
FEWEST = 2_000
SEARCHERS = Path(__file__).with_name("searchers.py")


class Shop:
    """An installation named `search`, a pod that sees its volume, and one from which people search."""

    def __init__(self, cluster, namespace: str, aside: str) -> None:
        self.cluster, self.namespace, self.aside = cluster, namespace, aside

    def upgrade(self, values: dict) -> None:
        with self.cluster.helm(self.namespace) as helm:
            helm.upgrade(str(CHART), "search", {**VALUES, **values}, wait="watcher", timeout=600)

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments)

    def pods(self, component: str) -> list[dict]:
        found = self.cluster.objects("pods", self.namespace, f"app.kubernetes.io/component={component}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, component: str) -> int:
        told = [pod["status"].get("containerStatuses", []) for pod in self.pods(component)]
        return sum(all(one["ready"] for one in statuses) for statuses in told if statuses)

    def whole(self) -> None:
        """Two of each are ready."""
        eventually(lambda: (self.ready("gateway"), self.ready("triton")), lambda both: both == (2, 2), 600)

    def counts(self) -> dict:
        return json.loads(
            self.cluster.kubectl("-n", self.aside, "exec", "people", "--", "cat", "/tmp/counts.json")
        )

    def in_volume(self, *command: str) -> str:
        return self.kubectl("exec", "volume", "--", *command)


def _pod(name: str, image: str, command: list[str], **more) -> dict:
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": name, "image": image, "command": command, "securityContext": context, **more}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _volume(cluster, namespace: str, image: str, files: Path) -> None:
    """The claim `shared` with these files on it, and the pod `volume` that sees it as /shared."""
    path = {"path": f"/var/tmp/{namespace}", "type": "DirectoryOrCreate"}
    size = {"storage": "1Gi"}
    claim = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    things = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": namespace},
            "spec": {**claim, "capacity": size, "hostPath": path, "persistentVolumeReclaimPolicy": "Retain"},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "shared", "namespace": namespace},
            "spec": {**claim, "volumeName": namespace, "resources": {"requests": size}},
        },
    ]
    cluster.kubectl("create", "-f-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": things}))
    shared = {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}
    # As root, and only this one: the directory of the node is root's.
    pod = _pod(
        "volume", image, ["sleep", "infinity"], volumeMounts=[{"name": "shared", "mountPath": "/shared"}]
    )
    pod["spec"]["volumes"] = [shared]
    pod["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0}
    cluster.kubectl("-n", namespace, "create", "-f-", text=json.dumps(pod))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=300s", "pod/volume")
    with subprocess.Popen(["tar", "-c", "-C", str(files), "."], stdout=subprocess.PIPE) as packed:
        command = [cluster.program, f"--kubeconfig={cluster.kubeconfig}", "-n", namespace]
        unpack = [
            "exec",
            "-i",
            "volume",
            "--",
            "sh",
            "-c",
            "tar -x -C /shared --no-same-owner && chmod -R a+rwX /shared",
        ]
        subprocess.run([*command, *unpack], stdin=packed.stdout, check=True)


@pytest.fixture(scope="module")
def shop(live, images_on_node, tmp_path_factory):
    """As docs/install.md says: the Secret, helm install; then people begin to search."""
    files = tmp_path_factory.mktemp("volume")
    (release,) = toys.build(files / "releases", count=1)
    named = replace(release, files=f"/shared/releases/{Path(release.files).name}")
    manifest.write(str(files / "manifest.json"), Manifest(generation=1, arms={"control": named}))
    mine = images_on_node["mine"]
    with live.namespace(labels={}) as aside, live.namespace(labels={}) as namespace:
        _volume(live, namespace, mine, files)
        live.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        live.kubectl(
            *("-n", namespace, "create", "secret", "generic", "crops-gateway"),
            *(f"--from-literal={key}={'s' * 64}" for key in ("search-secret", "admin-token")),
        )
        with live.helm(namespace) as helm:
            helm.install(str(CHART), "search", VALUES, wait="watcher", timeout=900)
            address = f"http://search-crops-gateway.{namespace}.svc.cluster.local"
            people = _pod("people", mine, ["python3", "-c", SEARCHERS.read_text(), address])
            live.kubectl("-n", aside, "create", "-f-", text=json.dumps(people))
            live.kubectl("-n", aside, "wait", "--for=condition=Ready", "--timeout=300s", "pod/people")
            made = Shop(live, namespace, aside)
            eventually(
                lambda: live.run("-n", aside, "exec", "people", "--", "cat", "/tmp/counts.json").returncode,
                lambda code: code == 0,
            )
            yield made
            helm.uninstall("search")
        live.kubectl("-n", namespace, "exec", "volume", "--", "sh", "-c", "rm -rf /shared/*")
    live.run("delete", "pv", namespace, "--wait=false")
    if place().is_dir():  # the node is this machine
        shutil.rmtree(f"/var/tmp/{namespace}", ignore_errors=True)


def more_searches(shop, before: dict, number: int) -> dict:
    """The counts once this many more were asked."""
    return eventually(shop.counts, lambda now: now["searches"] >= before["searches"] + number, 600)


def none_failed(before: dict, after: dict, *, again: int = 0) -> None:
    told = {name: after[name] - before[name] for name in before if name != "last"}
    print(told, after["last"] if told["again"] else "")
    assert told["failed"] == 0, after
    assert told["again"] <= again, after


def test_what_the_install_page_says_ends_in_an_answered_search(shop):
    with shop.cluster.helm(shop.namespace) as helm:
        told = helm.test("search", timeout=300, logs=True)
    assert "models:/crops/1" in told["logs"], told
    before = shop.counts()
    none_failed(before, more_searches(shop, before, 50))


def test_an_upgrade_of_gateways_and_tritons_fails_no_search_of_people_who_keep_their_connections(shop):
    before, old = shop.counts(), {p["metadata"]["uid"] for c in ("gateway", "triton") for p in shop.pods(c)}
    new = {c: {"resources": SMALL, "podAnnotations": {"turn": "2"}} for c in ("gateway", "triton")}
    shop.upgrade(new)
    shop.whole()
    after = more_searches(shop, before, FEWEST // 2)
    assert not old & {p["metadata"]["uid"] for c in ("gateway", "triton") for p in shop.pods(c)}, (
        "all are new"
    )
    none_failed(before, after)


def test_a_rollback_fails_none_either(shop):
    before = shop.counts()
    with shop.cluster.helm(shop.namespace) as helm:
        helm.rollback("search", wait="watcher", timeout=600)
    shop.whole()
    none_failed(before, more_searches(shop, before, 300))


def test_a_gateway_killed_without_a_word_costs_a_second_try_at_most(shop):
    before, old = shop.counts(), {pod["metadata"]["uid"] for pod in shop.pods("gateway")}
    shop.kubectl("delete", "pod", "search-crops-gateway-0", "--force", "--grace-period=0")
    shop.whole()
    assert len(old & {pod["metadata"]["uid"] for pod in shop.pods("gateway")}) == 1
    none_failed(before, more_searches(shop, before, 300), again=8)


def test_a_killed_triton_server_fails_no_search(shop):
    before = shop.counts()
    name = shop.pods("triton")[0]["metadata"]["name"]
    kill = (
        "import os, pathlib\n"
        "for p in pathlib.Path('/proc').glob('[0-9]*/comm'):\n"
        "    if p.read_text().startswith('tritonserver'): os.kill(int(p.parent.name), 9)"
    )
    shop.kubectl("exec", name, "--", "python3", "-c", kill)
    eventually(
        lambda: sum(
            one["restartCount"] for p in shop.pods("triton") for one in p["status"]["containerStatuses"]
        ),
        lambda restarts: restarts >= 1,
    )
    shop.whole()
    none_failed(before, more_searches(shop, before, 300))


def test_a_drain_waits_for_the_budget_and_fails_no_search(shop):
    """Of the only node: what is evicted waits for it, so the second of each must stay."""
    before = shop.counts()
    (node,) = json.loads(shop.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    name = node["metadata"]["name"]
    asked = ("--pod-selector=app.kubernetes.io/instance=search", "--delete-emptydir-data", "--timeout=60s")
    try:
        done = shop.cluster.run("drain", name, *asked, "--ignore-daemonsets")
        assert done.returncode != 0
        assert "disruption budget" in done.stdout + done.stderr
        assert min(shop.ready("gateway"), shop.ready("triton")) == 1
    finally:
        shop.cluster.kubectl("uncordon", name)
    shop.whole()
    after = more_searches(shop, before, 300)
    none_failed(before, after)
    assert after["searches"] >= FEWEST


def test_what_was_acknowledged_is_in_the_tables(shop):
    acknowledged = shop.cluster.kubectl(
        "-n", shop.aside, "exec", "people", "--", "cat", "/tmp/acknowledged.txt"
    )
    wanted = {*acknowledged.split()}
    shop.kubectl("create", "job", "compact", "--from=cronjob/search-crops-compactor")
    shop.kubectl("wait", "--for=condition=Complete", "--timeout=600s", "job/compact")
    read = (
        "import pyarrow.dataset as d; t = d.dataset('/shared/tables/results', partitioning='hive').to_table("
        "columns=['search_id', 'clicked']); print('\\n'.join({i for i, c in zip(t['search_id'].to_pylist(), "
        "t['clicked'].to_pylist()) if c}))"
    )
    found = {*shop.in_volume("python3", "-c", read).split()}
    print(f"{len(wanted)} clicks acknowledged, {len(wanted - found)} of them not in the tables")
    assert len(wanted) > 1_000
    assert wanted <= found, sorted(wanted - found)[:5]
