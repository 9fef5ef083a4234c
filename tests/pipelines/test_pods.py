"""What a run's pods wait for, from a stand-in of the Kubernetes API that answers with the client's models."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest
from kubernetes import client

from pipelines.pods import RUN_LABEL, Pods

TEXT = client.ApiClient().sanitize_for_serialization


def pod(name, *, waiting=None, unscheduled=""):
    state = client.V1ContainerState(waiting=client.V1ContainerStateWaiting(reason=waiting, message="no key"))
    container = client.V1ContainerStatus(
        name="main", image="x", image_id="", ready=False, restart_count=0, state=state
    )
    condition = client.V1PodCondition(
        type="PodScheduled", status="False", reason="Unschedulable", message=unscheduled
    )
    status = client.V1PodStatus(
        phase="Pending",
        container_statuses=[container] if waiting else None,
        conditions=[condition] if unscheduled else None,
    )
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name), status=status)


@pytest.fixture
def kubernetes():
    """Lists by the last part of their path, and what was asked; a list that is not there is 403."""

    class Handler(BaseHTTPRequestHandler):
        lists, asked = {}, []

        def do_GET(self):
            parsed = urlparse(self.path)
            name = parsed.path.rsplit("/", 1)[-1]
            self.asked.append((parsed.path, {k: v[0] for k, v in parse_qs(parsed.query).items()}))
            code = 200 if name in self.lists else 403
            data = json.dumps({"items": TEXT(self.lists.get(name, []))}).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    Handler.api = client.ApiClient(client.Configuration(host=host))
    yield Handler
    server.shutdown()


def test_a_pod_that_cannot_start_is_named_with_its_reason(kubernetes):
    kubernetes.lists["pods"] = [
        pod("a", waiting="CreateContainerConfigError"),
        pod("b", unscheduled="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        pod("c", waiting="ContainerCreating"),
    ]
    assert Pods("ml", api=kubernetes.api).waiting("run-1") == {
        "a": "CreateContainerConfigError: no key",
        "b": "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    path, query = kubernetes.asked[0]
    assert path == "/api/v1/namespaces/ml/pods"
    assert query == {"labelSelector": f"{RUN_LABEL}=run-1", "fieldSelector": "status.phase=Pending"}


def test_a_volume_that_cannot_be_mounted_is_in_the_pods_events(kubernetes):
    event = client.CoreV1Event(
        metadata=client.V1ObjectMeta(name="e"),
        involved_object=client.V1ObjectReference(name="c"),
        reason="FailedMount",
        message="secret  mlflow\nnot found",
    )
    kubernetes.lists |= {"pods": [pod("c", waiting="ContainerCreating")], "events": [event]}
    assert Pods("ml", api=kubernetes.api).waiting("run-1") == {"c": "FailedMount: secret mlflow not found"}


def test_a_pod_that_could_not_be_made_is_in_the_workflow(kubernetes):
    """Without its ServiceAccount a run fails at once, and KFP's API has no text of it."""
    message = 'serviceaccount "crops-pipeline" not found'
    nodes = {
        "1": {"type": "DAG", "phase": "Failed", "displayName": "root", "message": "child failed"},
        "2": {"type": "Pod", "phase": "Error", "displayName": "root-driver", "message": message},
        "3": {"type": "Pod", "phase": "Succeeded", "displayName": "x", "message": ""},
    }
    kubernetes.lists["workflows"] = [{"status": {"nodes": nodes}}]
    assert Pods("ml", api=kubernetes.api).failures("run-1") == [f"root-driver: {message}"]


def test_where_it_may_not_be_asked_nothing_is_said(kubernetes):
    assert Pods("ml", api=kubernetes.api).waiting("run-1") == {}
    assert (
        Pods("ml", api=client.ApiClient(client.Configuration(host="http://127.0.0.1:9"))).failures("x") == []
    )
