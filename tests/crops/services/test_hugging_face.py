"""Pushing to the Hub, by its own library against a stand-in that speaks its HTTP: what arrives is opened by
sentence-transformers and gives the release's vectors, and nothing of the log is among it.
"""

import base64
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from crops.cli import serve
from crops.errors import InputError, ServiceError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.services import hugging_face
from tests.crops.retriever import bases
from tests.serving import releases as toys

NAME = "team/search"


class Hub:
    """Repositories as files by path, as commits left them; `asked` holds what was created and how."""

    def __init__(self):
        self.files, self.asked, self.refusal, self.url = {}, [], None, ""

    def answer(self, method, path, body):
        if self.refusal:
            return self.refusal, {"error": "no"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.asked.append(asked)
            name = f"{asked['organization']}/{asked['name']}"
            self.files.setdefault(name, {})
            return 200, {"url": f"{self.url}/{name}", "name": name}
        name, _, action = path.removeprefix("/api/models/").partition("/")
        rest, _, action = action.partition("/")
        name, files = f"{name}/{rest}", self.files.get(f"{name}/{rest}", {})
        if action.startswith("preupload/"):
            wanted = json.loads(body)["files"]
            return 200, {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]
            }
        if action.startswith("commit/"):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "deletedFile":
                    del files[entry["value"]["path"]]
            return 200, {
                "commitUrl": f"{self.url}/{name}/commit/{'1' * 40}",
                "commitOid": "1" * 40,
                "success": True,
            }
        if action.startswith(("tree/", "revision/")):
            listed = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()]
            return 200, listed if action.startswith("tree/") else {"id": name, "siblings": []}
        return (
            (200, {"errors": [], "warnings": []}) if path == "/api/validate-yaml" else (404, {"error": path})
        )


@pytest.fixture
def hub(monkeypatch):
    """The library pointed at a new one."""
    store = Hub()
    with served(store) as url:
        import huggingface_hub
        from huggingface_hub import constants

        store.url = url
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")  # pragma: allowlist secret
        assert huggingface_hub.HfApi().endpoint == url
        yield store


@contextmanager
def served(store):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = store.answer(self.command, unquote(urlsplit(self.path).path), body)
            sent = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = _do

        def log_message(self, *told):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return toys.build(tmp_path_factory.mktemp("hub"))[0]


def command(release, *more):
    serve.push_to_hub.main(["--release", release.files, "--repository", NAME, *more], standalone_mode=False)


def test_what_arrives_gives_the_vectors_of_the_release(hub, release, tmp_path, capsys):
    command(release)
    command(release)  # the same once more changes nothing
    files = hub.files[NAME]
    wanted = {
        "README.md",
        "config.json",
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    }
    assert wanted < set(files)
    assert hub.asked[0]["visibility"] == "private"
    assert f'SentenceTransformer("{NAME}")' in files["README.md"].decode()
    assert f"{hub.url}/{NAME}/commit/" in capsys.readouterr().out
    for path, content in files.items():
        (tmp_path / layout.HUB / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / layout.HUB / path).write_bytes(content)
    pytest.importorskip("sentence_transformers")
    asked = bases.texts(50)
    assert (
        bases.least_cosine(bases.library(tmp_path, asked), OnnxEncoder(release.files).encode(asked)) >= 0.9999
    )


def test_files_of_an_earlier_push_are_gone(hub, release):
    hub.files[NAME] = {"old.bin": b"", ".gitattributes": b""}
    command(release, "--public")
    assert "old.bin" not in hub.files[NAME]
    assert ".gitattributes" in hub.files[NAME]
    assert hub.asked[0]["visibility"] == "public"


def test_a_dry_run_lists_what_would_go_and_asks_nobody(hub, release, capsys):
    command(release, "--dry-run")
    said = capsys.readouterr().out
    assert not hub.asked
    listed = {
        line.split()[-1]
        for line in said.splitlines()
        if line.startswith("  ") and line.split()[0].replace(",", "").isdigit()
    }
    assert {"README.md", "model.safetensors"} < listed
    assert not [name for name in listed if "documents" in name or "pairs" in name or name.endswith(".onnx")]


def test_what_cannot_be_pushed_is_one_line(hub, release, tmp_path):
    with pytest.raises(InputError, match="OWNER/NAME"):
        hugging_face.uploads(tmp_path, "name")
    copy = tmp_path / "release"
    shutil.copytree(release.files, copy)
    (copy / layout.HUB / "config.json").write_text("{}")
    with pytest.raises(InputError, match="is not what was registered"):
        hugging_face.uploads(copy, NAME)
    shutil.rmtree(copy / layout.HUB)
    with pytest.raises(InputError, match="no such folder in this release"):
        hugging_face.uploads(copy, NAME)
    hub.refusal = 403
    with pytest.raises(ServiceError, match=NAME):
        command(release)


def test_a_tower_of_its_own_is_a_repository_of_its_own(release, tmp_path):
    copy = tmp_path / "release"
    shutil.copytree(release.files, copy)
    shutil.copytree(copy / layout.HUB, copy / layout.HUB_DOCUMENTS)
    layout.seal(copy)
    made = {upload.repository: upload for upload in hugging_face.uploads(copy, NAME)}
    assert set(made) == {NAME, f"{NAME}-documents"}
    assert f'SentenceTransformer("{NAME}-documents")' in made[f"{NAME}-documents"].readme
