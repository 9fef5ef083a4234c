"""The stand-in against the client that KFP generates from its API description."""

import kfp_server_api as api
import pytest

from crops.config.all import Config
from pipelines import submit
from tests.pipelines.kfp_server import KfpServer, operations, undeclared

SETTINGS = {"kubeflow": {"poll_s": 0.01, "results": None}}


@pytest.fixture
def server():
    return KfpServer()


def test_all_that_it_answers_is_of_the_generated_client(server):
    """A run that is waited for, one that is looked for, a recurring one twice."""
    config = Config(raw=SETTINGS)
    given = submit.refresh(config, logs="s3://nobody/logs", registry="http://mlflow:5000")
    words = {"subject": "logs", "version": "v1", "token": None, "say": lambda _line: None}
    kubeflow = config.section("kubeflow")
    submit.send(server.url, kubeflow, "refresh_index", given, cron=None, wait=True, **words)
    for cron in ("0 3 * * 1", "0 4 * * 1"):
        submit.send(server.url, kubeflow, "refresh_index", given, cron=cron, wait=False, **words)
    (recurring,) = server.recurring.values()
    assert recurring.trigger.cron_schedule.cron == "0 0 4 * * 1", "with seconds, as KFP's cron begins"
    assert undeclared(server.answered) == []
    paths = {path.removeprefix("/apis/v2beta1/").partition("/")[0] for _, path, *_ in server.answered}
    assert {"pipelines", "experiments", "runs", "recurringruns"} <= paths


def test_the_comparison_sees_another_class_and_an_unknown_field(server):
    path, run = "/apis/v2beta1/runs", api.V2beta1Run()
    assert undeclared([("POST", path, b'{"display_name": "x"}', 200, run)]) == []
    assert undeclared([("POST", path, b'{"nickname": "x"}', 200, run)]) == [
        f"POST {path}: V2beta1Run has no nickname"
    ]
    assert "not ['V2beta1Run']" in undeclared([("POST", path, b"", 200, api.V2beta1Pipeline())])[0]
    assert len(operations()) > 30
