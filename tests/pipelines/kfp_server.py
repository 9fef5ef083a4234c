"""A stand-in for a Kubeflow Pipelines server: its HTTP API by kfp-server-api's own models, its runs by a
script. No real one can be had without a cluster, so what it shows is that we speak the API, not that a
cluster runs the pipeline.

Compared with kfp-server-api 2.17.3, the client that is generated from KFP's own API description: every call
that it answers is one of that client's operations, its answer is of the class that the operation returns, and
a JSON body is of the operation's model (`undeclared`, which tests/pipelines/test_kfp_server.py holds to be
empty). A run's tasks are listed as a server 2.17.0 was seen to: once they have begun, with drivers,
executors, groups and tasks without a name among them, and without a text of what failed.
"""

import email
import inspect
import itertools
import json
import re
import threading
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlparse

import kfp_server_api as api
import yaml

API = "/apis/v2beta1/"
JSON = api.ApiClient().sanitize_for_serialization


def operations():
    """(method, pattern of the path, class of the answer, of the body or None) of the generated client."""
    found = []
    for service in (getattr(api, name) for name in dir(api) if name.endswith("ServiceApi")):
        for name, call in inspect.getmembers(service, inspect.isfunction):
            if not name.endswith("_with_http_info"):
                continue
            source = inspect.getsource(call)
            path, method = re.search(r"'(/apis/\S+)', '(\w+)'", source).groups()
            answer = re.search(r"response_type='(\w+)'", source).group(1)
            body = re.search(r":type \w+: (V2beta1\w+)", source)
            pattern = re.compile(re.sub(r"\{\w+\}", "[^/:]+", path))
            found.append((method, pattern, answer, body and body.group(1)))
    return found


def undeclared(answered):
    """What of the calls is not of the generated client: no operation, another class, an unknown field."""
    known, wrong, client = operations(), [], api.ApiClient()
    for method, path, body, status, answer in answered:
        if status != 200:
            continue
        fits = [o for o in known if o[0] == method and o[1].fullmatch(path)]
        if not any(type(answer).__name__ == o[2] or (o[2] == "object" and answer == {}) for o in fits):
            wrong.append(f"{method} {path} answers {type(answer).__name__}, not {[o[2] for o in fits]}")
        for model in {o[3] for o in fits if o[3] and body}:
            read = client.deserialize(SimpleNamespace(data=body.decode()), model)
            lost = {key for key, value in json.loads(body).items() if value is not None} - JSON(read).keys()
            wrong += [f"{method} {path}: {model} has no {key}" for key in sorted(lost)]
    return wrong


class KfpServer:
    """`outcome`: SUCCEEDED or FAILED, the state in which runs end; `publish(parameters)` is called just
    before.
    """

    def __init__(
        self, outcome: str = "SUCCEEDED", publish=lambda _parameters: None, *, token: str | None = None
    ) -> None:
        self.outcome, self.publish, self.token = outcome, publish, token
        self.pipelines, self.versions, self.packages, self.experiments, self.runs, self.recurring = (
            {},
            {},
            {},
            {},
            {},
            {},
        )
        self.terminated, self.looks = [], itertools.count()
        self.answered = []  # (method, path, body, status, answer)
        self.silent, self.asked = range(0), itertools.count()  # looks at runs that get no answer
        self.login = False  # whether something before the server answers all with its page
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            def _do(self):
                parsed = urlparse(self.path)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                query = {k: v[0] for k, v in parse_qs(parsed.query).items()}
                with server.lock:
                    if server.login:
                        code, answer = 200, {}
                    elif server.restarting(self.command, parsed.path):
                        code, answer = 503, {"error": "restarting"}
                    elif server.token and self.headers.get("authorization") != f"Bearer {server.token}":
                        code, answer = 401, {"error": "no token"}
                    else:
                        code, answer = server.answer(
                            self.command,
                            parsed.path.removeprefix(API),
                            query,
                            body,
                            self.headers.get("content-type", ""),
                        )
                server.answered.append((self.command, parsed.path, body, code, answer))
                data = json.dumps(JSON(answer)).encode()
                if server.login:
                    data = b"<html>sign in</html>"
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _do

            def log_message(self, *_):
                pass

        return Handler

    def restarting(self, method, path):
        """Whether this is a look at a run that comes while the server restarts."""
        return method == "GET" and "/runs/" in path and next(self.asked) in self.silent

    def answer(self, method, path, query, body, kind):
        """(status, model) of one call."""
        first, *rest = path.split("/")
        if first == "healthz":
            return 200, api.V2beta1GetHealthzResponse(multi_user=False)
        if path == "pipelines/upload":
            made = api.V2beta1Pipeline(pipeline_id=str(uuid.uuid4()), display_name=query["name"])
            self.pipelines[made.pipeline_id] = made
            return 200, made
        if path == "pipelines/upload_version":
            if any(
                (v.display_name, v.pipeline_id) == (query["name"], query["pipelineid"])
                for v in self.versions.values()
            ):
                return 409, {"error": "already exists"}
            made = api.V2beta1PipelineVersion(
                pipeline_id=query["pipelineid"],
                pipeline_version_id=str(uuid.uuid4()),
                display_name=query["name"],
            )
            self.versions[made.pipeline_version_id] = made
            self.packages[made.pipeline_version_id] = list(yaml.safe_load_all(_uploaded(body, kind)))
            return 200, made
        if first == "pipelines":
            if rest and rest[-1] == "versions":
                held = [v for v in self.versions.values() if v.pipeline_id == rest[0]]
                return 200, api.V2beta1ListPipelineVersionsResponse(
                    pipeline_versions=held, total_size=len(held)
                )
            named = _wanted(query)
            held = [p for p in self.pipelines.values() if named in (None, p.display_name)]
            return 200, api.V2beta1ListPipelinesResponse(pipelines=held, total_size=len(held))
        return getattr(self, f"_{first.split(':')[0]}")(method, rest, query, json.loads(body) if body else {})

    def _experiments(self, method, rest, query, given):
        if method == "POST":
            made = api.V2beta1Experiment(experiment_id=str(uuid.uuid4()), display_name=given["display_name"])
            self.experiments[made.experiment_id] = made
            return 200, made
        named = _wanted(query)
        held = [e for e in self.experiments.values() if named in (None, e.display_name)]
        return 200, api.V2beta1ListExperimentsResponse(experiments=held, total_size=len(held))

    def _runs(self, method, rest, query, given):
        if method == "POST" and not rest:
            parameters = given["runtime_config"]["parameters"]
            self._check(given["pipeline_version_reference"]["pipeline_version_id"], parameters)
            made = api.V2beta1Run(
                run_id=str(uuid.uuid4()),
                display_name=given["display_name"],
                experiment_id=given["experiment_id"],
                created_at=datetime.now(UTC),
                state="PENDING",
                pipeline_version_reference=api.V2beta1PipelineVersionReference(
                    **given["pipeline_version_reference"]
                ),
                service_account=given.get("service_account"),
                runtime_config=api.V2beta1RuntimeConfig(parameters=parameters),
            )
            self.runs[made.run_id] = made
            return 200, made
        if not rest:
            assert query["sort_by"] == "created_at desc"
            held = sorted(self.runs.values(), key=lambda r: r.created_at, reverse=True)
            return 200, api.V2beta1ListRunsResponse(runs=held, total_size=len(held))
        run_id, _, verb = rest[0].partition(":")
        run = self.runs[run_id]
        if verb == "terminate":
            self.terminated.append(run_id)
            run.state = "CANCELED"
            return 200, {}
        self._advance(run)
        return 200, run

    def _recurringruns(self, method, rest, query, given):
        if method == "POST":
            self._check(
                given["pipeline_version_reference"]["pipeline_version_id"],
                given["runtime_config"]["parameters"],
            )
            made = api.V2beta1RecurringRun(
                recurring_run_id=str(uuid.uuid4()),
                display_name=given["display_name"],
                no_catchup=given["no_catchup"],
                max_concurrency=given["max_concurrency"],
                experiment_id=given["experiment_id"],
                trigger=api.V2beta1Trigger(
                    cron_schedule=api.V2beta1CronSchedule(cron=given["trigger"]["cron_schedule"]["cron"])
                ),
            )
            self.recurring[made.recurring_run_id] = made
            return 200, made
        if method == "DELETE":
            del self.recurring[rest[0]]
            return 200, {}
        return 200, api.V2beta1ListRecurringRunsResponse(recurring_runs=list(self.recurring.values()))

    def _check(self, version, parameters):
        """As the real server: an unknown parameter, or a missing one without a default, is refused."""
        known = self.packages[version][0]["root"]["inputDefinitions"]["parameters"]
        needed = {name for name, about in known.items() if "defaultValue" not in about}
        assert set(parameters) <= set(known), set(parameters) - set(known)
        assert needed <= set(parameters), needed - set(parameters)

    def _advance(self, run):
        if run.state in ("SUCCEEDED", "FAILED", "CANCELED"):
            return
        look = next(self.looks)
        tasks = ["validate", "augment", "train-3", "gate"]
        done = look // 2
        states = ["SUCCEEDED" if n < done else "RUNNING" for n in range(min(done + 1, len(tasks)))]
        run.state = "RUNNING"
        if done >= len(tasks) or (self.outcome == "FAILED" and done == 3):
            run.state = self.outcome
            if self.outcome == "FAILED":
                states[2] = "FAILED"
            else:
                self.publish(run.runtime_config.parameters)
        beside = [
            "root",
            "root-driver",
            "exit-handler-1",
            "crops-training-b9brr",
            "executor",
            "executor(0)",
            None,
        ]
        run.run_details = api.V2beta1RunDetails(
            task_details=[
                api.V2beta1PipelineTaskDetail(
                    task_id=str(n),
                    display_name=name,
                    state=state,
                    pod_name=f"crops-training-b9brr-system-container-impl-{n}",
                )
                for n, (name, state) in enumerate(
                    [*((name, "RUNNING") for name in beside), *zip(tasks, states, strict=False)]
                )
            ]
        )


def _wanted(query):
    """The name that a list is filtered by."""
    if "filter" not in query:
        return None
    predicate = json.loads(query["filter"])["predicates"][0]
    assert predicate["key"] in ("display_name", "name")
    return predicate.get("string_value") or predicate.get("stringValue")


def _uploaded(body, kind):
    """The file in a multipart body."""
    message = email.message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body)
    return next(
        part.get_payload(decode=True)
        for part in message.walk()
        if part.get_param("name", header="content-disposition")
    )
