"""`crops submit` against a stand-in of the KFP server, and what the settings of a cluster become in the
compiled pipeline.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import kfp_server_api as api
import pytest
import yaml

from crops.config import all as configs
from crops.config.all import Config
from crops.errors import ConfigError, ServiceError
from crops.retriever.systems import SYSTEMS
from pipelines import submit
from tests.pipelines.kfp_server import KfpServer

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = {
    "service_account": "crops-pipeline",
    "images": {
        "mine": "registry.example/crops/mine:0.1.0",
        "train": "registry.example/crops/train@sha256:" + "a" * 64,
    },
    "pull_secrets": ["registry"],
    "pod": {"cpu": "2", "memory": "8G", "retries": 2, "timeout_s": 3600},
    "tasks": {
        "train": {
            "gpus": 1,
            "memory": "64G",
            "node_selector": {"gpu": "a100"},
            "timeout_s": 86400,
            "retries": 1,
            "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
        }
    },
    "secrets": [{"name": "mlflow", "keys": {"password": "MLFLOW_TRACKING_PASSWORD"}}],
    "volumes": [{"claim": "crops", "path": "/shared"}],
    "poll_s": 0.05,
}


@pytest.fixture(autouse=True)
def _no_bucket(monkeypatch):
    """s3:// answers nobody here, at once: its logs cannot be listed."""
    nobody = {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "nobody", "SECRET_ACCESS_KEY": "nothing"}
    for name, value in nobody.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def config(tmp_path: Path, **more: object) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        yaml.safe_dump({"kubeflow": {**CLUSTER, "results": f"file://{tmp_path}/results", **more}})
    )
    return path


def report(verdict: str):
    """What the last task of a run publishes, under the place that the run was told."""

    def publish(parameters):
        folder = Path(json.loads(parameters["report_config"])["publish"].removeprefix("file://"))
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(
            json.dumps({"gate": {"verdict": verdict, "reasons": ["recall rose by 2 points"]}})
        )

    return publish


def crops(server: KfpServer, path: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "crops",
        "submit",
        "--host",
        server.url,
        "--logs",
        "s3://logs/search",
        "--registry",
        "http://mlflow",
        "--config",
        str(path),
        "--version",
        "abc123",
        *more,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def here(server: KfpServer, path: Path, **more) -> tuple[str | None, list[str]]:
    """The same inside this process: the verdict and what was said."""
    said: list[str] = []
    given = {
        "logs": "s3://logs/search",
        "registry": "http://mlflow",
        "version": "abc123",
        "say": said.append,
        **more,
    }
    return submit.submit(server.url, configs.load(path), **given), said


@pytest.mark.parametrize(("verdict", "code"), [("promote", 0), ("reject", 3)])
def test_it_uploads_runs_waits_and_ends_with_the_verdict(tmp_path, verdict, code):
    server = KfpServer(publish=report(verdict), token="secret")
    (tmp_path / "token").write_text("secret\n")
    process = crops(server, config(tmp_path), "--token-file", str(tmp_path / "token"))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code, out
    assert f"{verdict}: recall rose by 2 points" in out
    assert re.search("1 tasks done, now augment\n", out), "progress is shown, of our tasks alone"
    (run,) = server.runs.values()
    assert run.service_account == "crops-pipeline"
    assert [v.display_name for v in server.versions.values()] == ["abc123"]


def test_a_version_that_is_there_is_run_again_not_uploaded_again(tmp_path):
    server = KfpServer(publish=report("promote"))
    for _ in range(2):
        assert here(server, config(tmp_path), wait=False)[0] is None
    assert len(server.versions) == 1
    assert len(server.runs) == 2


def test_a_run_that_fails_names_the_task_and_why(tmp_path):
    """A server says no more than the pod's name; its log is named."""
    expected = r"failed: train-3: kubectl -n kubeflow logs crops-training-\S+-9 -c main$"
    with pytest.raises(ServiceError, match=expected):
        here(KfpServer("FAILED"), config(tmp_path))


def test_progress_knows_every_task_of_the_compiled_pipelines_by_name():
    """As they name themselves: "train crops", "export-2"; and none of what a server lists beside them."""
    names = set()
    for path in Path(submit.__file__).parent.glob("*.yaml"):
        (document, *_) = yaml.safe_load_all(path.read_text())
        for component in document["components"].values():
            for task in component.get("dag", {}).get("tasks", {}).values():
                component_of = document["components"][task["componentRef"]["name"]]
                executor = document["deploymentSpec"]["executors"].get(component_of.get("executorLabel"), {})
                names |= {task["taskInfo"]["name"]} if "container" in executor else set()
    assert {"train crops", "validate", "export-2"} <= names
    assert not [name for name in names if not submit.OURS.fullmatch(name)]
    beside = ("root", "root-driver", "exit-handler-1", "executor", "executor(0)", "crops-training-b9brr")
    assert not [name for name in beside if submit.OURS.fullmatch(name)]


def test_a_run_without_a_report_is_an_error_not_a_verdict(tmp_path):
    with pytest.raises(ServiceError, match="published no report"):
        here(KfpServer(), config(tmp_path))


def test_a_server_that_restarts_meanwhile_is_waited_for(tmp_path):
    server = KfpServer(publish=report("unknown"))
    server.silent = range(2, 5)
    assert here(server, config(tmp_path))[0] == "unknown"
    assert next(server.asked) > 5


def test_a_login_page_is_no_answer(tmp_path):
    """What a proxy before the server says with status 200 once a token is no longer good. The generated
    client makes a run without any value of it, which would be waited for without an end.
    """
    server = KfpServer()
    told = submit.Server(server.url, configs.load(config(tmp_path)).section("kubeflow"))
    server.login = True
    with pytest.raises(ServiceError, match=r"21 looks: .*login page"):
        told.wait("a-run", threading.Event())
    with pytest.raises(ServiceError, match="login page"):
        told.start("name", "pipeline", "version", {})


class Overtaken(KfpServer):
    """Another submission uploads the same, each time between the look and the upload."""

    def answer(self, method, path, query, body, kind):
        if not path.startswith("pipelines/upload"):
            return super().answer(method, path, query, body, kind)
        super().answer(method, path, query, body, kind)
        return 409, {"error": "already exists"}


def test_of_two_submissions_at_once_the_second_takes_what_the_first_uploaded(tmp_path):
    server = Overtaken(publish=report("promote"))
    verdict, said = here(server, config(tmp_path))
    assert verdict == "promote"
    assert len(server.pipelines) == len(server.versions) == 1
    assert sum("by another submission meanwhile" in line for line in said) == 2


def test_a_refusal_is_told_by_what_the_server_says_of_it(tmp_path):
    """Not by its headers, which are longer than a line and hold cookies."""
    server = KfpServer(token="secret")
    told = submit.Server(server.url, configs.load(config(tmp_path)).section("kubeflow"), token="secret")
    server.token = "another"
    with pytest.raises(ServiceError, match=r'401 Unauthorized: {"error": "no token"}$'):
        told.start("name", "pipeline", "version", {})


def ended(server: KfpServer, name: str, tmp_path: Path, state: str, began: int, over: int | None) -> None:
    """A run of the training pipeline with a report that says promote; `began`, `over`: hours."""
    at = lambda hour: hour if hour is None else datetime(2026, 1, 1, hour, tzinfo=UTC)  # noqa: E731
    server.pipelines["training"] = api.V2beta1Pipeline(pipeline_id="training", display_name="crops-training")
    results = f"file://{tmp_path}/results/{name}"
    parameters = {"report_config": json.dumps({"publish": results})}
    server.runs[name] = api.V2beta1Run(
        run_id=name,
        state=state,
        created_at=at(began),
        finished_at=at(over),
        pipeline_version_reference=api.V2beta1PipelineVersionReference(pipeline_id="training"),
        runtime_config=api.V2beta1RuntimeConfig(parameters=parameters),
    )
    if state == "SUCCEEDED":
        report("promote")(parameters)


def test_each_training_is_told_once_in_the_order_of_their_ends(tmp_path):
    """One that began later and failed at once takes nothing from the one that went on; what ended before the
    first look is over and done with; a run of somebody's notebook in the experiment is none of ours.
    """
    server, cfg = KfpServer(), configs.load(config(tmp_path))

    def look() -> str | None:
        try:
            return submit.look(server.url, cfg, say=lambda _line: None)
        except ServiceError as error:
            return str(error)

    assert look() is None
    ended(server, "ancient", tmp_path, "SUCCEEDED", 0, 1)
    ended(server, "long", tmp_path, "RUNNING", 2, None)
    ended(server, "short", tmp_path, "FAILED", 3, 4)
    server.runs["notebook"] = api.V2beta1Run(
        run_id="notebook", state="SUCCEEDED", created_at=datetime.now(UTC)
    )
    assert "run short failed" in str(look())
    assert look() is None
    ended(server, "long", tmp_path, "SUCCEEDED", 2, 5)
    ended(server, "next", tmp_path, "FAILED", 5, 6)
    assert look() == "promote", "long, which ended first"
    assert "run next failed" in str(look())
    assert look() is None
    ended(server, "strange", tmp_path, "SUCCEEDED", 7, 8)
    server.runs["strange"].runtime_config = None
    assert "names no place" in str(look())
    assert look() is None


def test_a_submission_that_is_stopped_ends_its_run(tmp_path):
    server = KfpServer(publish=report("promote"))
    process = crops(server, config(tmp_path, poll_s=30.0))
    end = time.monotonic() + 60
    while not (server.runs and next(iter(server.runs.values())).run_details) and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 2, out
    assert server.terminated == list(server.runs)


def test_a_recurring_run_replaces_the_one_before_and_never_catches_up(tmp_path):
    server = KfpServer()
    for cron in ("0 3 * * 1", "0 4 * * 1"):
        here(server, config(tmp_path), cron=cron)
    (held,) = server.recurring.values()
    assert [held.trigger.cron_schedule.cron, held.no_catchup, held.max_concurrency] == [
        "0 0 4 * * 1",
        True,
        1,
    ]
    assert not server.runs


def test_nobody_there_is_one_line(tmp_path):
    server = KfpServer()
    server.server.shutdown()
    server.server.server_close()
    process = crops(server, config(tmp_path))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(out.strip().splitlines()) == 1, out


def submitted(server: KfpServer, path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    common = [
        "--host",
        server.url,
        "--registry",
        "http://mlflow",
        "--config",
        str(path),
        "--version",
        "abc123",
    ]
    command = [sys.executable, "-m", "crops", "submit", *common, *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_other_pipelines_go_the_same_way_under_their_own_names(tmp_path):
    server, path = KfpServer(), config(tmp_path)
    hourly = submitted(
        server, path, "--pipeline", "refresh_index", "--logs", "s3://catalogue", "--every", "0 * * * *"
    )
    assert hourly.returncode == 0, hourly.stderr
    rolled = submitted(
        server,
        path,
        "--pipeline",
        "rollout",
        "--name",
        "autumn",
        "--state",
        "/shared/rollout",
        "--prometheus",
        "http://prometheus:9090",
    )
    assert rolled.returncode == 0, rolled.stderr
    assert [p.display_name for p in server.pipelines.values()] == ["crops-refresh-index", "crops-rollout"]
    assert [r.display_name for r in server.recurring.values()] == ["crops-refresh-index s3://catalogue"]
    (run,) = server.runs.values()
    assert run.runtime_config.parameters["state"] == "/shared/rollout"


def test_a_pipeline_says_which_option_it_misses(tmp_path):
    done = submitted(KfpServer(), config(tmp_path), "--pipeline", "rollout", "--name", "autumn")
    assert done.returncode == 2
    assert "--pipeline rollout needs --state and --prometheus" in done.stderr


def keys(server: KfpServer) -> list[str]:
    """The root of each run's cache keys."""
    return [run.runtime_config.parameters["fingerprint"] for run in server.runs.values()]


def test_the_same_logs_share_a_cache_key_and_changed_ones_never_do(tmp_path):
    server, path, day = KfpServer(), config(tmp_path), tmp_path / "logs/searches/date=2026-03-01"
    day.mkdir(parents=True)
    given = {"logs": f"file://{tmp_path}/logs", "wait": False}
    (day / "part.parquet").write_bytes(b"one")
    for _ in range(2):
        here(server, path, **given)
    (day / "part.parquet").write_bytes(b"two")  # of the same size
    os.utime(day / "part.parquet", ns=(1, 1))
    here(server, path, **given)
    (day / "more.parquet").write_bytes(b"three")
    here(server, path, **given)
    (day / "more.parquet").rename(day / "last.parquet")
    here(server, path, **given)
    first, same, *changed = keys(server)
    assert first == same
    assert len({first, *changed}) == 4


def test_logs_that_cannot_be_listed_take_nothing_from_the_cache_and_that_is_said(tmp_path):
    server, path = KfpServer(), config(tmp_path)
    said = [here(server, path, wait=False)[1] for _ in range(2)]
    assert len(set(keys(server))) == 2
    assert all(any("s3://logs/search cannot be listed here" in line for line in lines) for lines in said)


@pytest.mark.parametrize("more", [(), ("--pipeline", "refresh_index")])
def test_logs_on_a_path_are_refused_in_one_line(tmp_path, more):
    done = submitted(KfpServer(), config(tmp_path), "--logs", "/shared/logs", *more)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "crops: --logs /shared/logs: Kubeflow Pipelines reads gs://, s3:// and minio:// only, no path"
    ]


def uncached(pipeline: dict, dag: dict | None = None) -> set[str]:
    """Names of the tasks with a pod of their own that KFP may not answer from its cache."""
    names: set[str] = set()
    for task in (dag or pipeline["root"])["dag"]["tasks"].values():
        name = task["componentRef"]["name"]
        component = pipeline["components"][name]
        if "dag" in component:
            names |= uncached(pipeline, component)
        elif not task["cachingOptions"].get("enableCache"):
            names.add(name.removeprefix("comp-"))
    return names


FRESH = {"champion", "baseline", "register", "deploy", "report", "finish"}


def test_what_reads_the_registry_is_never_cached_and_a_schedule_caches_nothing(tmp_path):
    server, path = KfpServer(), config(tmp_path)
    fits = tmp_path / "fits.yaml"
    fits.write_text(path.read_text() + "train: {last_fit: true}\n")
    here(server, path, wait=False)
    here(server, fits, wait=False, shards=2)
    here(server, path, cron="0 3 * * 1")
    names = [version.display_name for version in server.versions.values()]
    assert names == ["abc123", "abc123-shards-last-fit", "abc123-every"]
    once, parts, scheduled = (package[0] for package in server.packages.values())
    assert uncached(once) == uncached(parts) == FRESH
    fitted = ["comp-refit" in package["components"] for package in (once, parts, scheduled)]
    assert fitted == [False, True, False], (
        "a last fit, and the inputs that its pod copies, where it is asked for"
    )
    everything = {
        name.removeprefix("comp-") for name, about in scheduled["components"].items() if "dag" not in about
    }
    assert uncached(scheduled) == everything
    loops = [json.dumps(package).count("parameterIterator") for package in (once, parts, scheduled)]
    assert loops == [0, 1, 0], "a loop only where there is more than one shard: KFP ignores retries in it"
    tasks = once["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert tasks["knowledge"]["retryPolicy"]["maxRetryCount"] == CLUSTER["pod"]["retries"]
    trained = {task["taskInfo"]["name"]: task for name, task in tasks.items() if name.startswith("train")}
    assert set(trained) == {f"train {system}" for system in SYSTEMS}
    assert {task["retryPolicy"]["maxRetryCount"] for task in trained.values()} == {1}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The pipeline and its platform settings, as compiled for CLUSTER."""
    path = tmp_path_factory.mktemp("compiled") / "training.yaml"
    submit.compiled(path, Config(raw={"kubeflow": CLUSTER}).section("kubeflow"))
    pipeline, platform = yaml.safe_load_all(path.read_text())
    return pipeline["deploymentSpec"]["executors"], platform["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]


def test_every_task_has_the_clusters_user_secrets_and_volumes(package):
    executors, platform = package
    pods = {name for name, about in executors.items() if "container" in about}
    assert set(platform) == pods
    for name, about in platform.items():
        assert about["securityContext"] == {
            "runAsUser": "10001",
            "runAsGroup": "10001",
            "runAsNonRoot": True,
        }, name
        assert about["secretAsEnv"][0]["secretName"] == "mlflow"
        assert about["pvcMount"][0]["mountPath"] == "/shared"
        assert about["imagePullSecret"][0]["secretName"] == "registry"
    assert {about["container"]["image"] for name, about in executors.items() if name in pods} == set(
        CLUSTER["images"].values()
    )


def test_training_gets_its_gpu_and_nothing_else_does(package):
    executors, platform = package
    for name, about in executors.items():
        resources = about.get("container", {}).get("resources", {})
        trains = name.startswith("exec-train")
        assert ("accelerator" in resources) == trains, name
        if trains:
            assert platform[name]["nodeSelector"]["labels"] == {"gpu": "a100"}
            assert platform[name]["tolerations"] == [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            ]
            assert platform[name]["activeDeadlineSeconds"] == "86400"
        elif "container" in about:
            assert resources["resourceCpuLimit"] == "2"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"tasks": {"trian": {}}}, "no component 'trian'"),
        ({"images": {"mine": "registry.example/crops/mine:latest"}}, "no fixed tag"),
        ({"run_as_user": 0}, "greater than or equal to 1"),
        ({"nodes": 3}, "knows no key 'nodes'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values, why):
    with pytest.raises(ConfigError, match=why):
        Config(raw={"kubeflow": values}).section("kubeflow")


def test_a_train_job_needs_the_volume_that_its_samples_pass_through(tmp_path):
    job = {"namespace": "crops", "claim": "crops", "path": "/shared"}
    cfg = Config(raw={"kubeflow": {"train_job": job}}).section("kubeflow")
    with pytest.raises(ConfigError, match="not among kubeflow"):
        submit.compiled(tmp_path / "p.yaml", cfg)
    cfg = Config(raw={"kubeflow": {**CLUSTER, "train_job": job, "tasks": {}}}).section("kubeflow")
    submit.compiled(tmp_path / "p.yaml", cfg)
    executors = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))["deploymentSpec"]["executors"]
    assert "exec-train-job" in executors
    assert "exec-train" not in executors
    document = (tmp_path / "p.yaml").read_text()
    assert '"cpu":"2","memory":"8G"' in document, "a pod of the TrainJob asks for what the task would have"
