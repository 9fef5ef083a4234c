"""A registered release into service: its encoder to Triton, its files to the gateways, its name into the
manifest.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from crops.arms import ALIASES, CONTROL
from crops.config.deploy import DeployConfig
from crops.errors import ServiceError
from crops.release import index, manifest, milvus
from crops.release.manifest import Conflict, Release
from crops.release.triton import control, repository
from crops.services import registry
from crops.stages.base import StageReport
from crops.tables import artifacts

TRIES = 10
ARM_OF = {alias: arm for arm, alias in ALIASES.items()}


def run(register: Path, out: Path, cfg: DeployConfig, *, registry_uri: str) -> StageReport:
    """Deploys what `register` (that stage's out) registered; writes deploy.json. Nothing to do is said, and
    no error.
    """
    made = artifacts.read_json(register / "release.json")
    why = (
        "no manifest is configured"
        if cfg.manifest is None
        else made.get("reason", "")
        if made["uri"] is None
        else ""
    )
    if why:
        with artifacts.replacing(out) as folder:
            artifacts.write_json(folder / "deploy.json", {"generation": None, "reason": why})
        return StageReport(numbers={"deployed": 0}, notes=(f"not deployed: {why}",))
    about = release(made["name"], made["version"], ARM_OF[made["alias"]], cfg, registry_uri=registry_uri)
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "deploy.json", about)
    return StageReport(numbers={"deployed": 1, "generation": about["generation"]})


def release(name: str, version: str, arm: str, cfg: DeployConfig, *, registry_uri: str) -> dict[str, Any]:
    """Puts one model version into `arm` and returns once every gateway serves it; a ServiceError where one
    refuses it.
    """
    assert cfg.manifest is not None
    folder, files = _placed(name, version, cfg.releases, registry_uri)
    uri = f"models:/{name}/{version}"
    checksum = index.sha256(folder / registry.CHECKSUMS)
    found = Release(uri=uri, model=repository.model_name(uri, checksum), files=files, checksum=checksum)
    if cfg.triton is not None:
        repository.write(folder, Path(cfg.repository), found.model, repository.Instances(count=cfg.instances))
        control.load(cfg.triton, found.model, timeout_s=cfg.timeout_s)
    if cfg.milvus is not None:
        _fill(cfg.milvus, folder, checksum)
    generation = _put(cfg.manifest, arm, found)
    for gateway in cfg.gateways:
        _wait(gateway, generation, cfg.timeout_s)
    if cfg.milvus is not None:  # last, for readers of the alias alone: gateways go by the manifest
        milvus.swap(cfg.milvus, f"crops_{arm}", milvus.name_of(checksum))
    return {"uri": uri, "arm": arm, "model": found.model, "generation": generation, "manifest": cfg.manifest}


def bootstrap(
    name: str, version: str, checksum: str, cfg: DeployConfig, *, registry_uri: str
) -> dict[str, Any]:
    """Where nothing is served yet, the pinned release is, as the champion. Otherwise nothing happens: later
    releases stay.

    checksum: sha256 of the release's checksums.json; a ServiceError where the registry holds another.
    """
    assert cfg.manifest is not None
    held = manifest.read(cfg.manifest)
    if CONTROL not in held.arms:
        with tempfile.TemporaryDirectory(prefix="crops-pull-") as place:
            found = index.sha256(
                registry.download(registry_uri, version, Path(place), name=name) / registry.CHECKSUMS
            )
        if found != checksum:
            raise ServiceError(
                f"models:/{name}/{version} has the checksum {found}, pinned is {checksum}: not what "
                "was chosen"
            )
        return release(name, version, CONTROL, cfg, registry_uri=registry_uri)
    serving = held.arms[CONTROL]
    return {
        "uri": serving.uri,
        "arm": CONTROL,
        "model": serving.model,
        "generation": held.generation,
        "manifest": cfg.manifest,
        "kept": True,
    }


def _placed(name: str, version: str, releases: str, registry_uri: str) -> tuple[Path, str]:
    """The release's folder on this machine, and the path or URL under which gateways find it. Whole or not
    there.
    """
    import fsspec

    filesystem, where = fsspec.core.url_to_fs(f"{releases.rstrip('/')}/{name}-{version}")
    local = "file" in ([filesystem.protocol] if isinstance(filesystem.protocol, str) else filesystem.protocol)
    folder = Path(where) if local else Path(tempfile.gettempdir()) / "crops-releases" / f"{name}-{version}"
    if not (folder / registry.CHECKSUMS).is_file():
        with artifacts.replacing(folder) as partial:
            registry.download(registry_uri, version, partial, name=name)
    if local:
        return folder, str(folder.resolve())
    if not filesystem.exists(f"{where}/{registry.CHECKSUMS}"):
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != registry.CHECKSUMS):
            filesystem.put_file(str(file), f"{where}/{file.relative_to(folder)}")
        filesystem.put_file(
            str(folder / registry.CHECKSUMS), f"{where}/{registry.CHECKSUMS}"
        )  # last: it says that all are there
    return folder, filesystem.unstrip_protocol(where)


def _fill(uri: str, folder: Path, checksum: str) -> None:
    """The release's vectors from its FAISS file into a collection of their own."""
    about, width = (
        artifacts.read_json(folder / "index.json"),
        int(artifacts.read_json(folder / "encoder.json")["width"]),
    )
    ids = tuple(pq.read_table(folder / "doc_ids.parquet")["doc_id"].to_pylist())
    inner = index.load(folder / "index.faiss", ids, checksum=about["sha256"], width=width).inner
    starts = range(0, len(ids), milvus.ROWS_AT_ONCE)
    vectors = (inner.reconstruct_n(start, min(milvus.ROWS_AT_ONCE, len(ids) - start)) for start in starts)
    milvus.build(uri, milvus.name_of(checksum), vectors, width=width)


def withdraw(arm: str, cfg: DeployConfig) -> int:
    """Takes an arm's release out of the manifest and returns the generation in which it is gone."""
    assert cfg.manifest is not None
    return _put(cfg.manifest, arm, None)


def _put(url: str, arm: str, found: Release | None) -> int:
    """By compare-and-set: what another writer changed meanwhile is kept."""
    for _ in range(TRIES):
        held = manifest.read(url)
        if held.arms.get(arm) == found:
            return held.generation
        changed = held.with_arm(arm, found)
        try:
            manifest.write(url, changed)
            return changed.generation
        except Conflict:
            time.sleep(0.1)
    raise ServiceError(f"{url}: {TRIES} other writers were faster; try again")


def _wait(gateway: str, generation: int, timeout_s: float) -> None:
    deadline, said = time.monotonic() + timeout_s, "no answer"
    while time.monotonic() < deadline:
        try:
            state = httpx.get(f"{gateway}/v1/release", timeout=5.0).json()
            if state["generation"] >= generation:
                return
            if (state.get("refused_generation") or 0) >= generation:
                raise ServiceError(f"{gateway} refuses generation {generation}: {state['problem']}")
            said = f"it serves generation {state['generation']}"
        except (httpx.HTTPError, ValueError, KeyError) as error:
            said = type(error).__name__
        time.sleep(0.2)
    raise ServiceError(f"{gateway} does not serve generation {generation} after {timeout_s:.0f} s ({said})")
