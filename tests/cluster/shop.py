"""An installation of the chart on a node: a volume with toy releases, and people who search meanwhile."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from crops.release import manifest
from crops.release.manifest import Manifest
from tests.cluster.access import HARDENED, Cluster, eventually, place
from tests.helm.test_chart import CHART
from tests.serving import releases as toys

SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
VALUES = {
    "gateway": {"resources": SMALL},
    "triton": {"resources": SMALL},
    "compactor": {"resources": SMALL, "schedule": "7 3 1 1 *"},
    "storage": {"existingClaim": "shared"},
}
SEARCHERS = Path(__file__).with_name("searchers.py")

CLICKED = """
import pyarrow.dataset
rows = pyarrow.dataset.dataset("/shared/tables/results", partitioning="hive")
rows = rows.to_table(columns=["search_id", "clicked"]).to_pylist()
print("\\n".join({row["search_id"] for row in rows if row["clicked"]}))
"""


class Shop:
    """An installation named `search`, a pod that sees its volume, and one from which people search."""

    def __init__(self, cluster: Cluster, namespace: str, aside: str, values: dict) -> None:
        self.cluster, self.namespace, self.aside, self.values = cluster, namespace, aside, values

    def upgrade(self, values: dict) -> None:
        with self.cluster.helm(self.namespace) as helm:
            helm.upgrade(str(CHART), "search", {**self.values, **values}, wait="watcher", timeout=600)

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

    def compact(self, name: str) -> None:
        """What the CronJob does, now, as a job of this name."""
        self.kubectl("create", "job", name, "--from=cronjob/search-crops-compactor")
        self.kubectl("wait", "--for=condition=Complete", "--timeout=600s", f"job/{name}")


def pod(name: str, image: str, command: list[str], **more) -> dict:
    container = {"name": name, "image": image, "command": command, "securityContext": HARDENED, **more}
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
    seeing = pod(
        "volume", image, ["sleep", "infinity"], volumeMounts=[{"name": "shared", "mountPath": "/shared"}]
    )
    seeing["spec"]["volumes"] = [shared]
    seeing["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0}
    cluster.kubectl("-n", namespace, "create", "-f-", text=json.dumps(seeing))
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


@contextlib.contextmanager
def opened(
    cluster: Cluster,
    images: dict[str, str],
    files: Path,
    values: dict,
    *,
    count: int = 1,
    people: tuple[str, ...] = (),
) -> Iterator[Shop]:
    """As docs/install.md says: the Secret, helm install; then people begin to search.

    files: an empty folder; `count` toy releases go there, of which the first is the champion. people: see
    searchers.py.
    """
    release, *_ = toys.build(files / "releases", count=count)
    named = replace(release, files=f"/shared/releases/{Path(release.files).name}")
    manifest.write(str(files / "manifest.json"), Manifest(generation=1, arms={"control": named}))
    mine = images["mine"]
    with cluster.namespace(labels={}) as aside, cluster.namespace(labels={}) as namespace:
        _volume(cluster, namespace, mine, files)
        cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        cluster.kubectl(
            *("-n", namespace, "create", "secret", "generic", "crops-gateway"),
            *(f"--from-literal={key}={'s' * 64}" for key in ("search-secret", "admin-token")),
        )
        made = Shop(cluster, namespace, aside, {**VALUES, **values})
        with cluster.helm(namespace) as helm:
            helm.install(str(CHART), "search", made.values, wait="watcher", timeout=900)
            address = f"http://search-crops-gateway.{namespace}.svc.cluster.local"
            searching = pod("people", mine, ["python3", "-c", SEARCHERS.read_text(), address, *people])
            cluster.kubectl("-n", aside, "create", "-f-", text=json.dumps(searching))
            cluster.kubectl("-n", aside, "wait", "--for=condition=Ready", "--timeout=300s", "pod/people")
            eventually(
                lambda: (
                    cluster.run("-n", aside, "exec", "people", "--", "cat", "/tmp/counts.json").returncode
                ),
                lambda code: code == 0,
            )
            yield made
            helm.uninstall("search")
        cluster.kubectl("-n", namespace, "exec", "volume", "--", "sh", "-c", "rm -rf /shared/*")
    cluster.run("delete", "pv", namespace, "--wait=false")
    if place().is_dir():  # the node is this machine
        shutil.rmtree(f"/var/tmp/{namespace}", ignore_errors=True)


def more_searches(shop, before: dict, number: int) -> dict:
    """The counts once this many more were asked."""
    return eventually(shop.counts, lambda now: now["searches"] >= before["searches"] + number, 600)


def none_lost(shop, *, least: int) -> None:
    """Every click that was acknowledged until now is in the tables after a compaction."""
    told = shop.cluster.kubectl("-n", shop.aside, "exec", "people", "--", "cat", "/tmp/acknowledged.txt")
    shop.compact("last")
    wanted, held = {*told.split()}, {*shop.in_volume("python3", "-c", CLICKED).split()}
    print(f"{len(wanted)} clicks acknowledged, {len(wanted - held)} of them not in the tables")
    assert len(wanted) > least
    assert wanted <= held, sorted(wanted - held)[:5]


def none_failed(before: dict, after: dict, *, again: int = 0) -> None:
    told = {name: after[name] - before[name] for name in before if name != "last"}
    print(told, after["last"] if told["again"] else "")
    assert told["failed"] == 0, after
    assert told["again"] <= again, after
