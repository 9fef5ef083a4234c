"""What the submission says of pods that wait, asked of a real API server and its scheduler."""

import json

import pytest
from kubernetes import config

from pipelines.pods import RUN_LABEL, Pods
from tests.cluster.access import HARDENED, eventually, place

place()  # without a cluster this module is not run
pytestmark = pytest.mark.cluster


def test_a_pod_for_which_there_is_no_node_is_named_with_the_schedulers_words(live):
    """Of another run nothing is said, nor of a Workflow where the cluster knows no such kind."""
    api = config.new_client_from_config(config_file=str(live.kubeconfig))
    with live.namespace() as namespace:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "train", "namespace": namespace, "labels": {RUN_LABEL: "run-1"}},
            "spec": {
                "nodeSelector": {"crops.example/no-such": "node"},
                "containers": [{"name": "main", "image": "crops/train", "securityContext": HARDENED}],
            },
        }
        live.kubectl("create", "-f-", text=json.dumps(pod))
        pods = Pods(namespace, api=api)
        waiting = eventually(lambda: pods.waiting("run-1"), bool)
        assert waiting.keys() == {"train"}
        assert waiting["train"].startswith(("Unschedulable: ", "FailedScheduling: ")), waiting
        assert "available" in waiting["train"]
        assert pods.waiting("run-2") == {}
        assert pods.failures("run-1") == []
