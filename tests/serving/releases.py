"""Toy releases as `crops register` makes them, and a real Triton beside them. No test in here."""

import shutil
from pathlib import Path

import pytest

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.release.layout import sha256
from crops.release.manifest import Release
from crops.release.triton import control, repository  # noqa: F401
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
