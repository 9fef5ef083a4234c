"""Triton's control APIs on the real server: each call is refused without the key, over HTTP and gRPC."""

import base64
import json
import subprocess
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from crops.errors import ServiceError
from crops.release.triton import control

pytestmark = pytest.mark.triton

# Of the KServe v2 extensions; {} stands for the model.
CALLS = [
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/{}/load"),
    ("POST", "/v2/repository/models/{}/unload"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("GET", "/v2/systemsharedmemory/region/x/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/cudasharedmemory/region/x/register"),
    ("POST", "/v2/cudasharedmemory/unregister"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("GET", "/v2/models/{}/trace/setting"),
    ("POST", "/v2/models/{}/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
]
REMOTE = [
    lambda client, model: client.get_model_repository_index(),
    lambda client, model: client.load_model(model),
    lambda client, model: client.unload_model(model),
    lambda client, model: client.get_system_shared_memory_status(),
    lambda client, model: client.register_system_shared_memory("x", "/x", 8),
    lambda client, model: client.unregister_system_shared_memory(),
    lambda client, model: client.get_cuda_shared_memory_status(),
    lambda client, model: client.register_cuda_shared_memory("x", base64.b64encode(b"x"), 0, 8),
    lambda client, model: client.unregister_cuda_shared_memory(),
    lambda client, model: client.get_trace_settings(model),
    lambda client, model: client.update_trace_settings(model, {"trace_level": ["OFF"]}),
    lambda client, model: client.get_log_settings(),
    lambda client, model: client.update_log_settings({"log_verbose_level": 1}),
]


@pytest.mark.parametrize("headers", [{}, {control.HEADER: ""}, {control.HEADER: "0" * 64}])
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_over_http_each_is_refused_without_the_key(triton, releases, method, path, headers):
    url = triton.http + path.format(releases[0].model)
    content = b"{}" if method == "POST" else None
    answer = httpx.request(method, url, headers={"content-type": "text/plain", **headers}, content=content)
    assert answer.status_code == 403, answer.text
    assert control.model_ready(triton.http, releases[0].model)


@pytest.mark.parametrize("call", REMOTE)
def test_over_grpc_each_is_refused_without_the_key(triton, releases, call):
    with (
        grpc.InferenceServerClient(triton.grpc) as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        call(client, releases[0].model)
    assert control.model_ready(triton.http, releases[0].model)


def test_a_model_in_the_request_runs_nothing(triton, tmp_path):
    """A load may bring its own files: without the key it would be anybody's code."""
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w')\nclass TritonPythonModel:\n    def execute(self, requests): return []\n"
    config = {
        "backend": "python",
        "input": [{"name": "a", "data_type": "TYPE_FP32", "dims": [1]}],
        "output": [{"name": "b", "data_type": "TYPE_FP32", "dims": [1]}],
    }
    body = {
        "parameters": {
            "config": json.dumps(config),
            "file:1/model.py": base64.b64encode(code.encode()).decode(),
        }
    }
    load = f"{triton.http}/v2/repository/models/foreign/load"
    foreign = {"origin": "https://elsewhere.example", "content-type": "text/plain"}
    assert httpx.post(load, json=body, headers=foreign).status_code == 403
    assert not mark.exists()
    with_key = httpx.post(load, json=body, headers={control.HEADER: triton.key}, timeout=60)
    assert with_key.status_code == 200, "the attack is one: only the key stops it"
    assert mark.exists()
    control.unload(triton.http, "foreign", key=triton.key)


def test_with_the_key_they_work_and_a_search_needs_none(triton, releases):
    model = releases[0].model
    assert control.models(triton.http, key=triton.key)[model] == "READY"
    assert control.encodes(triton.http, model, timeout_s=30)
    assert control.encoded(triton.http, model, timeout_s=5) > 0
    with pytest.raises(ServiceError, match="403"):
        control.models(triton.http, key="0" * 64)


def test_the_key_stands_in_no_process_list(triton):
    listed = subprocess.check_output(["ps", "-ewwo", "args"], text=True)
    assert "--http-restricted-api=model-repository" in listed
    assert triton.key not in listed
    assert triton.key.encode() not in Path(f"/proc/{triton.process.pid}/environ").read_bytes()
    assert triton.key not in repr(triton)
