"""A Kubeflow Trainer v2 TrainJob from here: made, watched until it ends, removed when whoever waits for it is
stopped.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from crops.config.kubeflow import TrainJob
from crops.errors import ServiceError

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
CONFLICT, GONE = 409, 404
Say = Callable[[str], None]


def manifest(name: str, image: str, command: list[str], cfg: TrainJob, *, user: int) -> dict[str, Any]:
    """The TrainJob as JSON. torchrun takes nodes, processes and rendezvous from what the runtime sets
    (PET_*).
    """
    named = {"cpu": cfg.cpu, "memory": cfg.memory, "nvidia.com/gpu": str(cfg.gpus or "")}
    resources = {name: amount for name, amount in named.items() if amount}
    patch = {
        "securityContext": {"runAsUser": user, "runAsGroup": user, "runAsNonRoot": True, "fsGroup": user},
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": cfg.claim}}],
        "containers": [{"name": "node", "volumeMounts": [{"name": "shared", "mountPath": cfg.path}]}],
    }
    jobs = {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": patch}}}}]}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "crops"}},
        "spec": {
            "runtimeRef": {"name": cfg.runtime, "apiGroup": GROUP, "kind": "ClusterTrainingRuntime"},
            "activeDeadlineSeconds": cfg.timeout_s,
            "trainer": {
                "image": image,
                "command": ["torchrun"],
                "args": ["-m", "crops", *command],
                "numNodes": cfg.nodes,
                "numProcPerNode": max(1, cfg.gpus),
                "resourcesPerNode": {"limits": resources, "requests": resources},
            },
            "runtimePatches": [
                {"manager": "crops.io/training", "trainingRuntimeSpec": {"template": {"spec": jobs}}}
            ],
        },
    }


def run(job: dict[str, Any], cfg: TrainJob, *, api: Any = None, say: Say = print) -> None:
    """Makes `job`, or goes on waiting for one of its name, and returns when it is complete; a ServiceError
    when it fails.

    Complete or failed it stays, for its logs; SIGTERM and Ctrl-C remove it: an aborted task leaves no GPU
    taken.
    """
    from kubernetes.client.exceptions import ApiException

    api = api or _connected()
    name, address = job["metadata"]["name"], (GROUP, VERSION, cfg.namespace, PLURAL)
    with _stopped_by_signal() as stopped:
        try:
            api.create_namespaced_custom_object(*address, job)
            say(f"TrainJob {cfg.namespace}/{name} made: {cfg.nodes} x {max(1, cfg.gpus)} processes")
        except ApiException as error:
            if error.status != CONFLICT:
                raise ServiceError(
                    f"TrainJob {name} cannot be made: {error.status} {error.reason}: {error.body}"
                ) from error
            say(f"TrainJob {cfg.namespace}/{name} is there already; waiting for it")
        last = ""
        while not stopped.is_set():
            try:
                status = api.get_namespaced_custom_object(*address, name)
            except ApiException as error:
                if error.status == GONE:
                    raise ServiceError(f"TrainJob {cfg.namespace}/{name} was removed while it ran") from error
                say(f"no answer from Kubernetes: {error.status} {error.reason}")  # it runs on, whoever looks
                stopped.wait(cfg.poll_s)
                continue
            if (line := _line(status)) != last:
                say(line)
                last = line
            if _ended(status, name):
                return
            stopped.wait(cfg.poll_s)
        with contextlib.suppress(ApiException):
            api.delete_namespaced_custom_object(*address, name)
        raise ServiceError(f"TrainJob {cfg.namespace}/{name} was removed, because its task was stopped")


def _ended(job: dict[str, Any], name: str) -> bool:
    for condition in job.get("status", {}).get("conditions", []):
        if condition.get("status") != "True":
            continue
        if condition["type"] == "Failed":
            raise ServiceError(
                f"TrainJob {name} failed: {condition.get('reason')}: {condition.get('message')}"
            )
        if condition["type"] == "Complete":
            return True
    return False


def _line(job: dict[str, Any]) -> str:
    status = job.get("status", {})
    states = [c["type"] for c in status.get("conditions", []) if c.get("status") == "True"]
    pods = [
        f"{j['name']}: {j['active']} active, {j['ready']} ready, {j['succeeded']} succeeded, "
        f"{j['failed']} failed"
        for j in status.get("jobsStatus", [])
    ]
    return f"{time.strftime('%H:%M:%S')} {'/'.join(states) or 'waiting'}; {'; '.join(pods) or 'no pods yet'}"


def _connected() -> Any:
    """The API of the cluster that this process runs in, else of the kubeconfig."""
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    return client.CustomObjectsApi()


@contextlib.contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; in any thread but the main one nothing is listened to."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {
        number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
