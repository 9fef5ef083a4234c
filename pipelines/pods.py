"""What Kubernetes itself says of a run's pods, to whoever may read them. Kubeflow Pipelines' API names no pod
that waits, and gives no text for a driver that failed.
"""

from typing import Any

RUN_LABEL = "pipeline/runid"  # of the Workflow and all of its pods; backend/src/common/util/consts.go of KFP
WORKFLOW = ("argoproj.io", "v1alpha1", "workflows")
COMING_UP = ("ContainerCreating", "PodInitializing")
TIMEOUT_S = 5.0


class Pods:
    """The pods of runs in a namespace; none where Kubernetes cannot be asked from here."""

    def __init__(self, namespace: str, *, api: Any = None) -> None:
        """api: a kubernetes.client.ApiClient; None: this pod's cluster, else the kubeconfig's."""
        self.namespace = namespace
        self._api = api or _connected()

    def waiting(self, run: str) -> dict[str, str]:
        """Pod -> why it has not started: no node for it, no image, no Secret, no volume."""
        from kubernetes import client

        pods = self._ask(
            client.CoreV1Api,
            "list_namespaced_pod",
            label_selector=f"{RUN_LABEL}={run}",
            field_selector="status.phase=Pending",
        )
        reasons = {pod.metadata.name: _reason(pod) or self._warning(pod) for pod in pods}
        return {pod: reason for pod, reason in reasons.items() if reason}

    def failures(self, run: str) -> list[str]:
        """What the run's Workflow says of its failed nodes, each text once: among them pods that could not
        be made.
        """
        from kubernetes import client

        workflows = self._ask(
            client.CustomObjectsApi,
            "list_namespaced_custom_object",
            *WORKFLOW[:2],
            namespace=self.namespace,
            plural=WORKFLOW[2],
            label_selector=f"{RUN_LABEL}={run}",
        )
        nodes = [n for w in workflows for n in (w.get("status", {}).get("nodes") or {}).values()]
        failed = (n for n in nodes if n.get("phase") in ("Failed", "Error") and n.get("type") == "Pod")
        return [*dict.fromkeys(f"{n.get('displayName')}: {n['message']}" for n in failed if n.get("message"))]

    def _warning(self, pod: Any) -> str:
        from kubernetes import client

        events = self._ask(
            client.CoreV1Api,
            "list_namespaced_event",
            field_selector=f"involvedObject.name={pod.metadata.name},type=Warning",
        )
        return " ".join(f"{events[-1].reason}: {events[-1].message}".split()) if events else ""

    def _ask(self, service: Any, call: str, *arguments: str, **more: str) -> list[Any]:
        """The items of a list, [] where Kubernetes does not answer or this user may not read them."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        if self._api is None:
            return []
        method = getattr(service(self._api), call)
        try:
            answer = method(*arguments, **{"namespace": self.namespace, **more}, _request_timeout=TIMEOUT_S)
        except ApiException:
            return []
        except (HTTPError, OSError):
            self._api = None  # nobody there: a line of progress is not worth waiting for it again and again
            return []
        return list(answer["items"] if isinstance(answer, dict) else answer.items)


def _reason(pod: Any) -> str:
    """From the pod's own status: a container that waits for more than its start, or no node."""
    status = pod.status
    for container in (*(status.init_container_statuses or ()), *(status.container_statuses or ())):
        waiting = container.state.waiting if container.state else None
        if waiting is not None and waiting.reason not in (None, *COMING_UP):
            return f"{waiting.reason}: {waiting.message or 'no message'}"
    for condition in status.conditions or ():
        if (condition.type, condition.status) == ("PodScheduled", "False"):
            return f"{condition.reason}: {condition.message}"
    return ""


def _connected() -> Any:
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except (config.ConfigException, OSError):
            return None
    configuration = client.Configuration.get_default_copy()
    configuration.retries = 0
    return client.ApiClient(configuration)
