"""Release files from anywhere: what a checksum does not vouch for never lies where a release does."""

import json
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from crops.errors import ServiceError
from crops.release import manifest
from crops.release.fetch import BadRelease, fetch, forget
from crops.release.layout import sha256
from crops.release.manifest import Release


@pytest.fixture
def remote(tmp_path):
    """A release in an object store; returns it and its folder there."""
    source = tmp_path / "source"
    (source / "documents").mkdir(parents=True)
    for name in ("query_encoder.onnx", "documents/part-0.parquet"):
        (source / name).write_bytes(name.encode())
    listed = {name: sha256(source / name) for name in ("query_encoder.onnx", "documents/part-0.parquet")}
    (source / "checksums.json").write_text(json.dumps(listed))
    store = fsspec.filesystem("memory")
    store.put(f"{source}/", "/release/", recursive=True)
    yield (
        Release(
            uri="models:/crops/1",
            model="m",
            files="memory://release",
            checksum=sha256(source / "checksums.json"),
        ),
        store,
    )
    store.rm("/release", recursive=True)


def test_files_come_whole_and_once(remote, tmp_path):
    release, store = remote
    folder = fetch(release, tmp_path / "state")
    assert folder == tmp_path / "state" / release.checksum
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "checksums.json",
        "documents/part-0.parquet",
        "query_encoder.onnx",
    ]
    store.rm("/release/query_encoder.onnx")
    assert fetch(release, tmp_path / "state") == folder, "what is here is not asked for again"
    store.pipe("/release/query_encoder.onnx", b"x")


def test_only_what_is_wanted_comes(remote, tmp_path):
    folder = fetch(remote[0], tmp_path / "state", wanted=lambda name: name.startswith("query_encoder"))
    assert not (folder / "documents").exists()


@pytest.mark.parametrize("name", ["query_encoder.onnx", "checksums.json"])
def test_what_was_changed_underway_is_refused_and_not_kept(remote, tmp_path, name):
    release, store = remote
    store.pipe(f"/release/{name}", b'{"query_encoder.onnx": ""}')
    with pytest.raises(BadRelease) as refused:
        fetch(release, tmp_path / "state")
    assert refused.value.reason == "checksum"
    assert not (tmp_path / "state" / release.checksum / name).exists()


def test_a_listed_name_outside_the_release_is_refused(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "secret").write_text("x")
    (source / "checksums.json").write_text(json.dumps({"../secret": sha256(tmp_path / "secret")}))
    release = Release(uri="u", model="m", files=str(source), checksum=sha256(source / "checksums.json"))
    with pytest.raises(BadRelease, match="secret"):
        fetch(release, tmp_path / "state")


@pytest.mark.parametrize("name", ["documents/evil.parquet", "query_encoder.onnx.data"])
def test_a_file_that_the_release_does_not_list_is_refused_by_its_name(remote, tmp_path, name):
    """Beside the files it would be read: a folder is read whole, an ONNX model names its weights itself."""
    release, store = remote
    source = replace(release, files=str(tmp_path / "source"))
    assert fetch(source, tmp_path / "state") == tmp_path / "source"
    (tmp_path / "source" / name).write_text("x")
    with pytest.raises(BadRelease, match=f"{name} is not listed") as refused:
        fetch(source, tmp_path / "state")
    assert refused.value.reason == "checksum"
    store.pipe(f"/release/{name}", b"x")
    folder = fetch(release, tmp_path / "state")
    assert not (folder / name).exists(), "what is not listed is not copied"
    (folder / name).write_text("x")
    with pytest.raises(BadRelease, match=f"{name} is not listed"):
        fetch(release, tmp_path / "state")


def test_a_place_that_is_not_there_is_said(tmp_path):
    release = Release(uri="u", model="m", files="memory://nowhere", checksum="0")
    with pytest.raises(BadRelease) as refused:
        fetch(release, tmp_path)
    assert refused.value.reason == "files"


def test_what_no_manifest_names_is_removed(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    forget(tmp_path, {"new"})
    assert [p.name for p in Path(tmp_path).iterdir()] == ["new"]


@pytest.mark.parametrize("name", ["query_encoder.onnx", "checksums.json", "documents/part-0.parquet"])
def test_a_copy_that_was_damaged_since_is_fetched_anew(remote, tmp_path, name):
    """A disk that lost power holds an empty file under the right name."""
    release, _ = remote
    damaged = fetch(release, tmp_path / "state") / name
    before = damaged.read_bytes()
    damaged.write_bytes(b"")
    assert (fetch(release, tmp_path / "state") / name).read_bytes() == before


class Away(Exception):
    """As botocore's errors: no OSError."""


def test_a_store_that_does_not_answer_is_said_whatever_it_raises(remote, tmp_path, monkeypatch):
    def away(*_args, **_more):
        raise Away("no route to the bucket")

    monkeypatch.setattr(type(remote[1]), "get_file", away)
    with pytest.raises(BadRelease, match="no route to the bucket") as refused:
        fetch(remote[0], tmp_path / "state")
    assert refused.value.reason == "files"
    monkeypatch.setattr(type(remote[1]), "cat_file", away)
    monkeypatch.setattr(type(remote[1]), "pipe_file", away)
    for call in (manifest.read, lambda url: manifest.write(url, manifest.Manifest(generation=1))):
        with pytest.raises(ServiceError, match="no route to the bucket"):
            call("memory://place/manifest.json")
