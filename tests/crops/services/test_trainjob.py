"""A TrainJob against a stand-in of the Kubernetes API (there is no cluster): objects by the published models,
status by hand.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kubeflow_trainer_api import models
from kubernetes import client

from crops.config.kubeflow import TrainJob
from crops.config.train import TrainConfig
from crops.errors import ServiceError
from crops.services import trainjob
from crops.stages.learn import train_job
from crops.tables import artifacts

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/ml/trainjobs"
RUNNING = {
    "jobsStatus": [{"name": "node", "ready": 2, "active": 2, "succeeded": 0, "failed": 0, "suspended": 0}]
}


def ended(kind: str, reason: str, message: str = "") -> dict:
    now = "2026-01-01T00:00:00Z"
    condition = {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
    }
    return {"conditions": [condition], **RUNNING}


class Kubernetes:
    """Holds TrainJobs; each look at one gives the next of `statuses`, the last again and again."""

    def __init__(self, statuses, on_look=lambda _looks: None):
        self.statuses, self.on_look = statuses, on_look
        self.jobs, self.deleted, self.looks, self.made = {}, [], 0, 0
        held = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                code, answer = held.answer(self.command, self.path.split("?")[0], body)
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _do

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def api(self):
        configuration = client.Configuration(host=f"http://127.0.0.1:{self.server.server_port}")
        return client.CustomObjectsApi(client.ApiClient(configuration))

    def answer(self, method, path, body):
        name = path.removeprefix(PATH).strip("/")
        if method == "POST":
            job = json.loads(body)
            read = models.TrainerV1alpha1TrainJob.from_dict(job)
            assert read.to_dict() == job, (
                "a field that the published model does not know is dropped in silence by the real server"
            )
            if job["metadata"]["name"] in self.jobs:
                return 409, {"reason": "AlreadyExists"}
            self.jobs[job["metadata"]["name"]] = job
            self.made += 1
            return 201, job
        if name not in self.jobs:
            return 404, {"reason": "NotFound"}
        if method == "DELETE":
            self.deleted.append(name)
            return 200, self.jobs.pop(name)
        self.on_look(self.looks)
        status = self.statuses[min(self.looks, len(self.statuses) - 1)]
        self.looks += 1
        if status is None:
            return 503, {"reason": "restarting"}
        assert models.TrainerV1alpha1TrainJobStatus.from_dict(status)
        return 200, {**self.jobs[name], "status": status}


def settings(path: Path) -> TrainJob:
    return TrainJob(
        namespace="ml", nodes=2, gpus=4, cpu="8", memory="64G", claim="crops", path=str(path), poll_s=0.01
    )


def job(cfg: TrainJob) -> dict:
    return trainjob.manifest(
        "crops-crops-1", "crops/train:0.1.0", ["train", "--out", "/shared/x"], cfg, user=10001
    )


def test_the_job_is_what_torchrun_needs_on_two_nodes_of_four_gpus(tmp_path):
    made = job(settings(tmp_path))
    trainer = made["spec"]["trainer"]
    assert [trainer["numNodes"], trainer["numProcPerNode"], trainer["command"]] == [2, 4, ["torchrun"]]
    resources = {"cpu": "8", "memory": "64G", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"] == {"limits": resources, "requests": resources}
    (spec,) = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = spec["template"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "crops"}


def test_it_is_watched_until_it_is_complete_also_past_an_api_that_restarts(tmp_path):
    cfg, said = settings(tmp_path), []
    cluster = Kubernetes([{}, RUNNING, None, RUNNING, ended("Complete", "JobsCompleted")])
    trainjob.run(job(cfg), cfg, api=cluster.api, say=said.append)
    assert any("2 active, 2 ready" in line for line in said)
    assert any("503" in line for line in said)
    assert not cluster.deleted, "its logs are kept"


def test_one_that_fails_fails_with_its_reason(tmp_path):
    cfg = settings(tmp_path)
    cluster = Kubernetes([RUNNING, ended("Failed", "JobsFailed", "node-0 ran out of memory")])
    with pytest.raises(ServiceError, match="JobsFailed: node-0 ran out of memory"):
        trainjob.run(job(cfg), cfg, api=cluster.api)


def test_one_that_somebody_removes_is_an_error(tmp_path):
    cfg = settings(tmp_path)
    cluster = Kubernetes([RUNNING], on_look=lambda looks: looks and cluster.jobs.clear())
    with pytest.raises(ServiceError, match="was removed while it ran"):
        trainjob.run(job(cfg), cfg, api=cluster.api)


def test_a_task_that_is_stopped_takes_its_job_with_it(tmp_path):
    """In a process of its own, ended by SIGTERM as a pod is."""
    cluster = Kubernetes([RUNNING])
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parents[3])!r}]
from tests.crops.services import test_trainjob as t
from pathlib import Path
from kubernetes import client
api = client.CustomObjectsApi(client.ApiClient(client.Configuration(host="http://127.0.0.1:{cluster.server.server_port}")))
cfg = t.settings(Path({str(tmp_path)!r}))
t.trainjob.run(t.job(cfg), cfg, api=api)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while not cluster.looks and process.poll() is None:
        pass
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert cluster.deleted == ["crops-crops-1"], errors
    assert process.returncode == 1


def test_the_stage_brings_the_samples_there_and_the_encoder_back(tmp_path):
    """What the pods would write is written by hand, when they would have."""
    for name in ("samples", "documents"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text(name)
    shared = tmp_path / "shared"
    shared.mkdir()
    cfg = settings(shared)

    def trained(looks):
        (folder,) = (shared / "train-jobs").iterdir()
        assert (folder / "samples/x.json").read_text() == "samples"
        if looks == 1:
            (folder / "encoder").mkdir()
            artifacts.write_json(folder / "encoder/train.json", {"best_step": 7})

    cluster = Kubernetes([RUNNING, RUNNING, ended("Complete", "JobsCompleted")], on_look=trained)
    report = train_job.run(
        tmp_path / "samples",
        tmp_path / "documents",
        tmp_path / "out",
        TrainConfig(),
        cfg,
        system="crops_no_knowledge",
        image="crops/train:0.1.0",
        user=10001,
        api=cluster.api,
    )
    assert report.numbers == {"nodes": 2, "best_step": 7}
    assert artifacts.read_json(tmp_path / "out/train.json") == {"best_step": 7}
    assert not list((shared / "train-jobs").iterdir())
    (made,) = cluster.jobs.values()
    assert "--system" in made["spec"]["trainer"]["args"]


def test_a_task_that_is_started_again_waits_for_the_job_that_is_there(tmp_path):
    cfg, said = settings(tmp_path), []
    cluster = Kubernetes([ended("Complete", "JobsCompleted")])
    for _ in range(2):
        trainjob.run(job(cfg), cfg, api=cluster.api, say=said.append)
    assert cluster.made == 1
    assert any("is there already" in line for line in said)
