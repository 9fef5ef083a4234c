"""A cluster as its users have it: kubectl, Helm, and namespaces that go when a test ends."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import helm_python
import pytest

from tests.helm import crds

LIMIT_S = 180.0
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
# What a container says of itself to be let into such a namespace.
HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# In every namespace, made by the cluster itself.
OF_EVERY_NAMESPACE = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
# What happened, as opposed to what is there.
PASSING = ("events", "events.events.k8s.io", "endpoints")

T = TypeVar("T")


def place() -> Path:
    """Where CROPS_CLUSTER says that a cluster is: a kubeconfig, or the folder of `make cluster`. Without one
    the module that asks is reported as not run, in one line.

    KUBECONFIG alone is not taken, or `make test` would install things wherever its user is logged in; `make
    cluster-test` passes it on.
    """
    if not (said := os.environ.get("CROPS_CLUSTER")):
        why = (
            "no cluster: make cluster-test, with KUBECONFIG=... or after `make cluster` (half an hour, once)"
        )
        pytest.skip(f"not run: {why}", allow_module_level=True)
    return Path(said).resolve()


def eventually(look: Callable[[], T], meant: Callable[[T], bool], limit_s: float = LIMIT_S) -> T:
    """What `look` gives as soon as it is meant; an AssertionError with what it gave last at the limit."""
    end = time.monotonic() + limit_s
    while not meant(seen := look()):
        assert time.monotonic() < end, f"after {limit_s:.0f} s still {seen!r}"
        time.sleep(0.3)
    return seen


def named(thing: dict[str, Any]) -> tuple[str, str]:
    """(kind, name)."""
    return thing["kind"], thing["metadata"]["name"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a kubeconfig leads."""

    kubeconfig: Path
    program: str

    @classmethod
    def at(cls, kubeconfig: Path, programs: Path | None = None) -> "Cluster":
        """kubectl of the folder `programs`, else the one of PATH."""
        program = shutil.which("kubectl", path=f"{programs}:{os.environ['PATH']}")
        if program is None:
            raise FileNotFoundError("no kubectl on PATH")
        return cls(kubeconfig=kubeconfig, program=program)

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl with these arguments and this standard input, whatever becomes of it."""
        command = [self.program, f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=600)

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Its standard output; an AssertionError with its words where it fails."""
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, (
            f"kubectl {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
        return done.stdout

    def objects(self, kinds: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Of these kinds (joined by commas)."""
        text = self.kubectl(
            "get", kinds, f"--namespace={namespace}", f"--selector={selector}", "--output=json"
        )
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def all_objects(self, namespace: str) -> set[tuple[str, str]]:
        """(kind, name) of all that is there, of every kind that the server knows."""
        told = self.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
        kinds = ",".join(kind for kind in told if kind not in PASSING)
        return {named(thing) for thing in self.objects(kinds, namespace)} - OF_EVERY_NAMESPACE

    def helm(self, namespace: str) -> helm_python.Config:
        """Helm in this namespace; a context manager."""
        return helm_python.Config(
            kubeconfig_path=self.kubeconfig, namespace=namespace, qps=200, burst_limit=400
        )

    @contextlib.contextmanager
    def namespace(self, labels: dict[str, str] = RESTRICTED) -> Iterator[str]:
        """A new one. Its end is told to the cluster, not waited for."""
        name = f"crops-test-{uuid.uuid4().hex[:8]}"
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("create", "-f-", text=json.dumps(made))
        eventually(lambda: self.run("-n", name, "get", "sa", "default").returncode, lambda code: code == 0)
        try:
            yield name
        finally:
            self.run("delete", "namespace", name, "--wait=false")

    @contextlib.contextmanager
    def custom_kinds(self) -> Iterator[None]:
        """Those of the chart that the cluster does not know, open in what their spec may say.

        tests/helm holds the specs to the published models. A cluster that has the real ones keeps them.
        """
        known = self.kubectl("api-resources", "--output=name").split()
        kinds = [_definition(*kind) for kind in (*crds.BY_HAND, *crds.PUBLISHED)]
        lacking = [kind for kind in kinds if kind["metadata"]["name"] not in known]
        names = [f"crd/{kind['metadata']['name']}" for kind in lacking]
        if lacking:
            self.kubectl(
                "create", "-f-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": lacking})
            )
            self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        try:
            yield
        finally:
            if names:
                self.run("delete", "--wait=false", *names)


def _definition(version: str, kind: str) -> dict[str, Any]:
    group, _, number = version.partition("/")
    plural = f"{kind.lower()}s"
    spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": spec}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Groups of Kubernetes' own domain want a word on this.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {"name": number, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }
