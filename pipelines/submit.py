"""A pipeline on a Kubeflow Pipelines server: compile, upload as a version, run, wait, read the verdict."""

import contextlib
import hashlib
import importlib
import json
import re
import signal
import subprocess
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from crops.config.all import PIPELINE, Config
from crops.config.kubeflow import COMPONENTS, KubeflowConfig
from crops.errors import ConfigError, ServiceError
from pipelines.pods import Pods

SUCCEEDED, ENDED_BADLY, SKIPPED = "SUCCEEDED", ("FAILED", "CANCELED"), ("SKIPPED", "CACHED")
# What a file system says of a file's content, the surest first; names differ by fsspec's implementations.
STATES = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
CRON_FIELDS = 5
# A second task of a component has a number, a training the name of its system.
OURS = re.compile(f"({'|'.join(COMPONENTS)}|train-job)(-[0-9]+| [a-z_]+)?")
NOT_KFP = "the answer is not of Kubeflow Pipelines, perhaps a login page: is the token still good?"
PAGES = 5  # of a hundred runs: hourly refreshes, which are of the same experiment, of three weeks
Say = Callable[[str], None]


def compiled(
    path: Path,
    cfg: KubeflowConfig,
    pipeline: str = "training",
    *,
    shards: int = 1,
    last_fit: bool = False,
    caching: bool = True,
) -> None:
    """Writes `pipeline`, a module of this package, with the cluster's settings to `path`.

    Whether tasks may answer from the cache is said here: KFP ignores it beside an uploaded version.
    """
    from kfp import compiler

    from pipelines import cluster

    def tune(tasks: Iterable[Any]) -> None:
        tasks = list(tasks)
        cluster.tune(tasks, cfg)
        for task in tasks if not caching else ():
            task.set_caching_options(False)

    module = importlib.import_module(f"pipelines.{pipeline}")
    if pipeline == "training":
        built = module.build(_fit(cfg), tune, parallel=shards > 1, last_fit=last_fit)
    else:
        built = module.build(tune)
    compiler.Compiler().compile(built, str(path))
    _without_source(path)


def _without_source(path: Path) -> None:
    """Past 1 MB a Workflow is compressed, and KFP's API loses sight of its last tasks."""
    import yaml

    from pipelines import component

    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        if "executor_main" in " ".join(executor.get("container", {}).get("command", ())):
            executor["container"]["command"] = component.COMMAND
    # A list that stands in several places is written out each time: no anchors, which not every reader knows.
    dumper = type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    path.write_text(yaml.dump_all(documents, Dumper=dumper, allow_unicode=True), encoding="utf-8")


def _fit(cfg: KubeflowConfig) -> Callable[..., Any]:
    """The component that trains a system: one task, or a TrainJob that the task waits for."""
    from components import images, train, train_job

    fit: Callable[..., Any] = train.train
    if cfg.train_job is not None:
        image = cfg.images.get("train", images.TRAINING)
        pod = cfg.tasks.get("train", cfg.pod)
        asked = {"cpu": cfg.train_job.cpu or pod.cpu, "memory": cfg.train_job.memory or pod.memory}
        job = cfg.train_job.model_copy(update=asked).model_dump_json()

        def fit(**given: Any) -> Any:
            del given["checkpoints"]  # the job keeps its own beside its samples
            return train_job.train_job(**given, job=job, image=image, user=cfg.run_as_user)

        claim = {"claim": cfg.train_job.claim, "path": cfg.train_job.path}
        if claim not in [{"claim": v.claim, "path": v.path} for v in cfg.volumes]:
            raise ConfigError(
                f"kubeflow.train_job: {cfg.train_job.claim} at {cfg.train_job.path} is not among "
                "kubeflow.volumes"
            )
    return fit


def arguments(
    config: Config,
    *,
    logs: str,
    llm: str,
    registry: str,
    checkpoints: str,
    shards: int,
    results: str | None,
    fingerprint: str,
) -> dict[str, Any]:
    """The run's parameters."""
    if results is not None:
        config = config.with_value("report", "publish", results)
    configs: dict[str, Any] = {f"{name}_config": config.section_json(name) for name in PIPELINE}
    return configs | {
        "logs": logs,
        "fingerprint": fingerprint,
        "llm": llm,
        "registry": registry,
        "checkpoints": checkpoints,
        "shards": [f"{n}/{shards}" for n in range(shards)],
    }


def refuse_path(logs: str) -> None:
    """Raises ConfigError if KFP's importer cannot read `logs`."""
    if "://" not in logs:
        raise ConfigError(f"--logs {logs}: Kubeflow Pipelines reads gs://, s3:// and minio:// only, no path")


def content(logs: str, say: Say = print) -> str:
    """What stands for the content of the logs in cache keys: all files' names, sizes and checksums or times.

    Logs that cannot be listed from here have another one each time, so that nothing old answers for them.
    """
    import fsspec

    uri = logs.replace("minio://", "s3://", 1)
    patience = {"connect_timeout": 5, "retries": {"max_attempts": 1}}
    options = {"config_kwargs": patience} if uri.startswith("s3://") else {}
    try:
        files, root = fsspec.url_to_fs(uri, use_listings_cache=False, **options)
        listed = files.find(root, detail=True)
        if not listed:
            raise FileNotFoundError("no files there")
    except Exception as error:  # whatever a store answers with
        say(f"{logs} cannot be listed here ({_short(error)}): nothing comes from the cache")
        return uuid.uuid4().hex
    digest = hashlib.blake2b(digest_size=16)
    for name, entry in sorted(listed.items()):
        state = next((entry[key] for key in STATES if entry.get(key)), "")
        digest.update(f"{name.removeprefix(root)}\0{entry['size']}\0{state}\n".encode())
    return digest.hexdigest()


def revision() -> str:
    """The commit of the code here, with -dirty where it was changed: a version's name must say what it is."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return ""
    return described.stdout.strip() if described.returncode == 0 else ""


class Server:
    """One KFP server."""

    def __init__(self, host: str, cfg: KubeflowConfig, *, token: str | None = None, say: Say = print) -> None:
        import kfp

        self.host, self.cfg, self.say = host.rstrip("/"), cfg, say
        self.pods = Pods(cfg.namespace or "kubeflow")
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of KFP 1 servers
            self._client = self._call(
                lambda: kfp.Client(host=host, existing_token=token, namespace=self.pods.namespace)
            )

    def upload(self, package: Path, name: str, version: str) -> tuple[str, str]:
        """Ids of the pipeline and of its version named `version`; one of that name that is there already is
        taken as it is.
        """
        pipeline = self._present(
            f"pipeline {name}",
            lambda: self._call(lambda: self._client.get_pipeline_id(name)),
            lambda: (
                self._client.upload_pipeline(
                    str(package), pipeline_name=name, namespace=self.cfg.namespace
                ).pipeline_id
            ),
        )
        return pipeline, self._present(
            f"version {version}",
            lambda: self._version(pipeline, version),
            lambda: (
                self._client.upload_pipeline_version(
                    str(package), pipeline_version_name=version, pipeline_id=pipeline
                ).pipeline_version_id
            ),
        )

    def _present(self, what: str, there: Callable[[], str | None], make: Callable[[], str | None]) -> str:
        """The id of what is there already, else of what is made now; of two submissions at once one makes
        it, and the other one takes that.
        """
        if (present := there()) is not None:
            self.say(f"{what} is there already")
            return present
        try:
            made = self._id(make)
        except ServiceError:
            if (present := there()) is None:
                raise
            self.say(f"{what} was uploaded by another submission meanwhile")
            return present
        self.say(f"{what} uploaded")
        return made

    def start(self, name: str, pipeline: str, version: str, parameters: dict[str, Any]) -> str:
        """Starts a run and returns its id."""
        experiment = self._experiment()
        run = self._id(
            lambda: (
                self._client.run_pipeline(
                    experiment,
                    name,
                    pipeline_id=pipeline,
                    version_id=version,
                    params=parameters,
                    service_account=self.cfg.service_account,
                ).run_id
            )
        )
        self.say(f"run {run}: {self.host}/#/runs/details/{run}")
        return run

    def schedule(self, name: str, cron: str, pipeline: str, version: str, parameters: dict[str, Any]) -> str:
        """A recurring run in place of one of the same name: one at a time, never catching up."""
        experiment = self._experiment()
        listed = self._call(lambda: self._client.list_recurring_runs(experiment_id=experiment, page_size=100))
        old = [r.recurring_run_id for r in listed.recurring_runs or [] if r.display_name == name]
        fields = cron.split()
        # KFP's cron begins with seconds.
        created = self._id(
            lambda: (
                self._client.create_recurring_run(
                    experiment,
                    name,
                    cron_expression=f"0 {cron}" if len(fields) == CRON_FIELDS else cron,
                    max_concurrency=1,
                    no_catchup=True,
                    pipeline_id=pipeline,
                    version_id=version,
                    params=parameters,
                    service_account=self.cfg.service_account,
                ).recurring_run_id
            )
        )
        for run in old:
            self._call(partial(self._client.delete_recurring_run, run))
        self.say(f"recurring run {name}: {cron}" + (f" (in place of {len(old)})" if old else ""))
        return created

    def ended(self, pipeline: str) -> list[Any]:
        """The last runs of `pipeline` that have ended, in the order of their ends: of two at once, the one
        that began first may well end last.
        """
        pipeline_id = self._call(lambda: self._client.get_pipeline_id(pipeline))
        experiment, page = self._experiment(), ""
        runs: list[Any] = []
        for _ in range(PAGES):
            listed = self._call(
                partial(
                    self._client.list_runs,
                    experiment_id=experiment,
                    page_token=page,
                    sort_by="created_at desc",
                    page_size=100,
                )
            )
            runs += listed.runs or []
            page = listed.next_page_token or ""
            if not page:
                break
        # A run that somebody started without an uploaded pipeline refers to none.
        ours = [r for r in runs if (of := r.pipeline_version_reference) and of.pipeline_id == pipeline_id]
        over = [r for r in ours if r.state in (SUCCEEDED, *ENDED_BADLY)]
        return sorted(over, key=lambda r: r.finished_at or r.created_at)

    def wait(self, run: str, stopped: threading.Event) -> None:
        """Returns when the run has succeeded; a ServiceError that names the failed task and its pod.
        `stopped` ends the run. A pod that waits at two looks in succession is named, once for each reason.
        """
        last, silent = "", 0
        waiting: dict[str, str] = {}
        named: set[tuple[str, str]] = set()
        while not stopped.is_set():
            try:
                state = self._client.get_run(run)
                if state.run_id is None:
                    raise ServiceError(NOT_KFP)
                silent = 0
            except (
                Exception
            ) as error:  # whatever a server that restarts answers with; the run goes on without us
                silent += 1
                if silent > 20:
                    raise ServiceError(
                        f"{self.host}: no answer for {silent} looks: {_short(error)}; the run may go on"
                    ) from error
                stopped.wait(self.cfg.poll_s)
                continue
            if (line := _progress(state)) != last:
                self.say(line)
                last = line
            if state.state == SUCCEEDED:
                return
            if state.state in ENDED_BADLY:
                raise ServiceError(f"run {run} {str(state.state).lower()}: {self.reason(state)}")
            before, waiting = waiting, self.pods.waiting(run)
            for pod, reason in (waiting.items() & before.items()) - named:
                self.say(f"pod {pod} waits: {reason}")
                named.add((pod, reason))
            stopped.wait(self.cfg.poll_s)
        self._call(lambda: self._client.terminate_run(run))
        raise ServiceError(f"run {run} was ended, because its submission was stopped")

    def reason(self, run: Any) -> str:
        """Which tasks of a run failed, with what the server says of each or where its pod's log is to be
        read; else what Kubernetes says.
        """
        failed = [t for t in _tasks(run) if t.state == "FAILED"]
        logs = f"kubectl -n {self.pods.namespace} logs {{}} -c main"
        reasons = [
            f"{t.display_name}: {t.error.message}"
            if t.error and t.error.message
            else f"{t.display_name}: {logs.format(t.pod_name)}"
            if t.pod_name
            else str(t.display_name)
            for t in failed
        ] + self.pods.failures(run.run_id)
        return "; ".join(reasons) or (run.error.message if run.error else "no task says why")

    def _version(self, pipeline: str, name: str) -> str | None:
        page = ""
        while True:
            listed = self._call(
                partial(self._client.list_pipeline_versions, pipeline, page_token=page, page_size=100)
            )
            for version in listed.pipeline_versions or []:
                if version.display_name == name:
                    return str(version.pipeline_version_id)
            page = listed.next_page_token or ""
            if not page:
                return None

    def _experiment(self) -> str:
        return self._id(
            lambda: (
                self._client.create_experiment(
                    self.cfg.experiment, namespace=self.cfg.namespace
                ).experiment_id
            )
        )

    def _id(self, ask: Callable[[], str | None]) -> str:
        """The id in an answer; a ServiceError where the answer is a page of something that stands before the
        server, of which the client makes an answer without any value.
        """
        if (answer := self._call(ask)) is None:
            raise ServiceError(f"{self.host}: {NOT_KFP}")
        return str(answer)

    def _call(self, ask: Callable[[], Any]) -> Any:
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return ask()
        except (ApiException, HTTPError, OSError, ValueError) as error:
            raise ServiceError(f"{self.host}: {_short(error)}") from error


def submit(
    host: str,
    config: Config,
    *,
    logs: str,
    llm: str = "",
    registry: str = "",
    checkpoints: str = "",
    shards: int = 1,
    version: str | None = None,
    token: str | None = None,
    cron: str | None = None,
    wait: bool = True,
    say: Say = print,
) -> str | None:
    """Returns promote, reject or unknown; None where nobody waited. cron: a recurring run instead of
    one now.
    """
    cfg: KubeflowConfig = config.section("kubeflow")
    named, now = _named(version), datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    results = (
        None if cfg.results is None else f"{cfg.results.rstrip('/')}/{'latest' if cron else f'{named}-{now}'}"
    )
    if wait and cron is None and results is None:
        raise ConfigError("kubeflow.results is null: say where the run publishes its report, or --no-wait")
    Server(host, cfg, token=token)  # one that is away is said before anything is asked about the logs
    parameters = arguments(
        config,
        logs=logs,
        llm=llm,
        registry=registry,
        checkpoints=checkpoints,
        shards=shards,
        results=results,
        fingerprint=f"{named} {logs} {content(logs, say)}",
    )
    ended = send(
        host,
        cfg,
        "training",
        parameters,
        subject=logs,
        version=named,
        token=token,
        cron=cron,
        wait=wait,
        shards=shards,
        last_fit=config.section("train").last_fit,
        say=say,
    )
    if not ended:
        return None
    assert results is not None
    return verdict(results, say=say)


def look(host: str, config: Config, *, token: str | None = None, say: Say = print) -> str | None:
    """The verdict of a training that has ended, each told once and in the order of their ends; None where
    none has ended since the last look. The first look of all tells the last one alone.

    A file RESULTS/looked/RUN remembers, so that whoever looks keeps nothing. A run that failed is a
    ServiceError, once too; a report that cannot be read now waits for a later look.
    """
    import fsspec

    cfg: KubeflowConfig = config.section("kubeflow")
    if cfg.results is None:
        raise ConfigError("kubeflow.results is null: say where runs publish their reports")
    server = Server(host, cfg, token=token, say=say)
    ended = server.ended(cfg.pipeline)
    try:
        files, folder = fsspec.url_to_fs(f"{cfg.results.rstrip('/')}/looked")
        told = {name.rpartition("/")[2] for name in files.find(folder)}
        new = [run for run in ended if run.run_id not in told]
        if not new:
            return None
        run, marked = (new[0], new[:1]) if told else (new[-1], new)
        published = _published(run)
        if published:
            with (
                contextlib.suppress(FileNotFoundError),
                fsspec.open(f"{published}/report.json", "rb") as file,
            ):
                file.read(1)
        files.makedirs(folder, exist_ok=True)
        for one in marked:
            files.pipe_file(f"{folder}/{one.run_id}", str(one.state).encode())
    except OSError as error:
        raise ServiceError(f"{cfg.results}: {_short(error)}") from error
    say(f"run {run.run_id}: {host.rstrip('/')}/#/runs/details/{run.run_id}")
    if run.state != SUCCEEDED:
        raise ServiceError(f"run {run.run_id} {str(run.state).lower()}: {server.reason(run)}")
    if not published:
        raise ServiceError(f"run {run.run_id}: its report_config names no place to publish a report")
    return verdict(published, say=say)


def _published(run: Any) -> str | None:
    """Where a run publishes its report; None where its parameters name no place."""
    try:
        place = json.loads(run.runtime_config.parameters["report_config"])["publish"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return None if place is None else str(place)


def refresh(config: Config, *, logs: str, registry: str) -> dict[str, Any]:
    """Parameters of a run of `refresh_index`."""
    configs = {f"{name}_config": config.section_json(name) for name in ("index", "register", "deploy")}
    served = config.section("deploy").manifest or ""
    return configs | {"logs": logs, "fingerprint": "", "registry": registry, "served": served}


def rollout(
    config: Config, *, name: str, state: str, prometheus: str, readout: str, registry: str
) -> dict[str, Any]:
    """Parameters of a run of `rollout`."""
    sections = ("rollout", "deploy", "register")
    configs = {f"{section}_config": config.section_json(section) for section in sections}
    return configs | {
        "name": name,
        "state": state,
        "prometheus": prometheus,
        "readout": readout,
        "registry": registry,
    }


def send(
    host: str,
    cfg: KubeflowConfig,
    pipeline: str,
    parameters: dict[str, Any],
    *,
    subject: str,
    version: str | None = None,
    token: str | None = None,
    cron: str | None = None,
    wait: bool = True,
    shards: int = 1,
    last_fit: bool = False,
    say: Say = print,
) -> bool:
    """Compiles and uploads `pipeline`, runs it with `given` or schedules that; True once the run has
    succeeded.

    A schedule's parameters are fixed while its logs change: its version answers nothing from the cache.
    """
    shape = {"shards": shards > 1, "last-fit": last_fit, "every": cron is not None}
    named = "-".join([_named(version), *(name for name, has in shape.items() if has)])
    title = cfg.pipeline if pipeline == "training" else f"crops-{pipeline.replace('_', '-')}"
    with tempfile.TemporaryDirectory(prefix="crops-submit-") as scratch:
        package = Path(scratch) / f"{pipeline}.yaml"
        compiled(package, cfg, pipeline, shards=shards, last_fit=last_fit, caching=cron is None)
        server = Server(host, cfg, token=token, say=say)
        ids = server.upload(package, title, named)
    if cron is not None:
        server.schedule(f"{title} {subject}", cron, *ids, parameters)
        return False
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    run = server.start(f"{title} {named} {now}", *ids, parameters)
    if wait:
        server.wait(run, _stopped())
    return wait


def _named(version: str | None) -> str:
    name = version or revision()
    if not name:
        raise ConfigError("no git here to name the version by; say --version")
    return name


def verdict(results: str, *, say: Say = print) -> str:
    """What the run's report says; a ServiceError where it published none."""
    import fsspec

    try:
        with fsspec.open(f"{results}/report.json", "rb") as file:
            gate = json.load(file)["gate"]
    except (OSError, KeyError, ValueError) as error:
        raise ServiceError(
            f"{results}/report.json: the run succeeded but published no report: {_short(error)}"
        ) from error
    for reason in gate["reasons"]:
        say(f"  {gate['verdict']}: {reason}")
    say(f"report: {results}/report.html")
    return str(gate["verdict"])


def _stopped() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _progress(run: Any) -> str:
    """Without a number of all tasks: the server lists a task once it has begun."""
    tasks = _tasks(run)
    ended = sum(t.state in (SUCCEEDED, *SKIPPED) for t in tasks)
    running = sorted({t.display_name for t in tasks if t.state == "RUNNING"})
    return f"{time.strftime('%H:%M:%S')} {run.state or 'PENDING'}: {ended} tasks done" + (
        f", now {', '.join(running)}" if running else ""
    )


def _tasks(run: Any) -> list[Any]:
    """Our tasks; a server lists beside them drivers, executors, groups and tasks without a name."""
    listed = (run.run_details.task_details if run.run_details else None) or []
    return [t for t in listed if OURS.fullmatch(t.display_name or "")]


def _short(error: Exception) -> str:
    """In one line what an error says; of an HTTP status its body, which says why, and not its headers."""
    text, body = str(error), getattr(error, "body", None)
    if body:
        text = f"{getattr(error, 'status', '')} {getattr(error, 'reason', '')}: {body}"
    return " ".join(text.split())[:300] or type(error).__name__
