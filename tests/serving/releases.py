"""Toy releases as `crops register` makes them, and a real Triton beside them. No test in here."""

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.release.layout import sha256
from crops.release.manifest import Release
from crops.release.triton import control, repository
from crops.stages.release import export, index, register
from serving.triton import install, launch
from tests import shared
from tests.crops.stages import toy_release as toy

INSTANCES = repository.Instances(count=1)


def build(root: Path, count: int = 2) -> list[Release]:
    """`count` releases of the toy catalogue by encoders of other seeds, as the registry would hand them
    out.
    """
    shutil.copytree(
        shared.made(f"releases-{count}", lambda folder: _make(folder, count)), root, dirs_exist_ok=True
    )
    return [named(root / f"release-{seed}", seed + 1) for seed in range(count)]


def _make(root: Path, count: int) -> None:
    mined = toy.mined(root / "mined")
    pairs = [
        {"query": f"subject{t}", "doc_id": toy.doc(t, n), "perspective": p}
        for t in range(toy.TOPICS)
        for n, p in enumerate(("click", "feed"))
    ]
    toy.write(root / "samples", ORIGINS=pairs)
    for seed in range(count):
        _one(root, mined, seed)


def _one(root: Path, mined: Path, seed: int) -> None:
    made = {name: root / f"{name}-{seed}" for name in ("trained", "onnx", "index")}
    toy.trained(made["trained"], seed=seed)
    export.run(made["trained"], made["onnx"], ExportConfig())
    index.run(made["onnx"], mined, made["index"], IndexConfig())
    folder = root / f"release-{seed}"
    folder.mkdir()
    register.assemble(
        folder, (made["onnx"], made["index"], mined, root / "samples"), RegisterConfig(probes=8)
    )


def named(folder: Path, version: int) -> Release:
    """The manifest's entry for a release folder."""
    checksum, uri = sha256(folder / "checksums.json"), f"models:/crops/{version}"
    return Release(uri=uri, model=repository.model_name(uri, checksum), files=str(folder), checksum=checksum)


def triton(root: Path) -> launch.Server:
    """A running, empty Triton on `root`/models; the test is reported as not run where `make triton` has not
    been.
    """
    if not install.ready():
        pytest.skip("no Triton server: make triton")
    names = ("http", "grpc", "metrics")
    ports = launch.Ports(**dict(zip(names, launch.free_ports(3), strict=True)))
    server = launch.start(install.VENV, root / "models", root / "state", ports)
    server.wait_live()
    return server


def encode(server: launch.Server, model: str, texts: Sequence[str | bytes]) -> np.ndarray:
    """float32 [N, H] of one request."""
    rows = np.array([t if isinstance(t, bytes) else t.encode() for t in texts], dtype=object).reshape(-1, 1)
    given = grpc.InferInput("text", list(rows.shape), "BYTES")
    given.set_data_from_numpy(rows)
    with grpc.InferenceServerClient(server.grpc) as client:
        return client.infer(model, [given]).as_numpy("vector")


def encode_all(server: launch.Server, model: str, texts: Sequence[str]) -> np.ndarray:
    """float32 [N, H] of any number of texts, in requests of the size that a model takes."""
    most = INSTANCES.max_batch
    return np.concatenate([encode(server, model, texts[n : n + most]) for n in range(0, len(texts), most)])


def encode_export(server: launch.Server, folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The same by what `crops export` wrote to `folder`, loaded for this alone."""
    model = f"{repository.PREFIX}-{uuid.uuid4().hex}"
    repository.write(folder, server.log.parent.parent / "models", model, INSTANCES)
    control.load(server.http, model, key=server.key)
    try:
        return encode_all(server, model, texts)
    finally:
        control.unload(server.http, model, key=server.key)
