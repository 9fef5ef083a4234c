"""A registered release into service: its encoder to Triton, its files to the gateways, its name into the
manifest.
"""

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from crops.arms import ALIASES, CONTROL
from crops.config.deploy import DeployConfig
from crops.errors import ServiceError
from crops.release import document, index, layout, manifest, milvus
from crops.release.document import Conflict
from crops.release.manifest import Release
from crops.release.triton import control, repository
from crops.services.registry import Registry
from crops.stages.base import StageReport
from crops.tables import artifacts

TRIES = 10
ARM_OF = {alias: arm for arm, alias in ALIASES.items()}


def run(register: Path, out: Path, cfg: DeployConfig, *, registry_uri: str) -> StageReport:
    """Deploys what `register` registered in its folder; writes deploy.json. To have nothing to do is a note,
    not an error.
    """
    registered = artifacts.read_json(register / "release.json")
    reason = registered.get("reason") if cfg.manifest else "no manifest is configured"
    if reason:
        result = {"generation": None, "reason": reason}
        report = StageReport(numbers={"deployed": 0}, notes=(f"not deployed: {reason}",))
    else:
        registry = Registry(registry_uri, registered["name"])
        result = release(registry, registered["version"], ARM_OF[registered["alias"]], cfg)
        report = StageReport(numbers={"deployed": 1, "generation": result["generation"]})
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "deploy.json", result)
    return report


def release(registry: Registry, version: str, arm: str, cfg: DeployConfig) -> dict[str, Any]:
    """Puts one model version into `arm` and returns once every gateway serves it; a ServiceError if one of
    them refuses it.
    """
    folder, files = _placed(registry, version, cfg.releases)
    layout.check(folder, wanted=layout.of_model)  # gateways check the rest
    uri, checksum = registry.release(version), layout.checksum(folder)
    entry = Release(uri=uri, model=repository.model_name(uri, checksum), files=files, checksum=checksum)
    if cfg.triton is not None:
        repository.write(folder, Path(cfg.repository), entry.model, repository.Instances(count=cfg.instances))
        control.load(cfg.triton, entry.model, key=cfg.triton_key(), timeout_s=cfg.timeout_s)
    collection = milvus.name_of(checksum)
    if cfg.milvus is not None:
        _fill(cfg.milvus, folder, collection)
    generation = _put(cfg.served(), arm, entry)
    for gateway in cfg.gateways:
        _wait(gateway, generation, cfg.timeout_s)
    if cfg.milvus is not None:  # last, for readers of the alias alone: gateways go by the manifest
        milvus.swap(cfg.milvus, f"crops_{arm}", collection)
    return _result(entry, arm, generation, cfg)


def _result(entry: Release, arm: str, generation: int, cfg: DeployConfig) -> dict[str, Any]:
    return {
        "uri": entry.uri,
        "arm": arm,
        "model": entry.model,
        "generation": generation,
        "manifest": cfg.manifest,
    }


def bootstrap(registry: Registry, version: str, checksum: str, cfg: DeployConfig) -> dict[str, Any]:
    """If nothing is served yet, the pinned release becomes the champion. Otherwise nothing happens: later
    releases stay.

    checksum: sha256 of the release's checksums.json; a ServiceError if the registry holds another one.
    """
    served = manifest.read(cfg.served())
    if CONTROL in served.arms:
        entry = served.arms[CONTROL]
        return _result(entry, CONTROL, served.generation, cfg) | {"kept": True}
    with tempfile.TemporaryDirectory(prefix="crops-pull-") as scratch:
        actual = layout.checksum(registry.download(version, Path(scratch)))
    if actual != checksum:
        raise ServiceError(
            f"{registry.release(version)} has the checksum {actual}, pinned is {checksum}: not what "
            "was chosen"
        )
    return release(registry, version, CONTROL, cfg)


def _placed(registry: Registry, version: str, releases: str) -> tuple[Path, str]:
    """The release's folder on this machine, and the path or URL under which gateways find it, whole or not at
    all.
    """
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(releases.rstrip("/"))
    local = document.is_local(filesystem)
    near = Path(root) if local else Path(tempfile.gettempdir()) / "crops-releases"
    base = near / f"{registry.name}-{version}"
    folder = registry.place(version, base)
    if local:
        return folder, str(folder.resolve())
    checksum = layout.checksum(folder)
    name, held = base.name, _held(filesystem, f"{root}/{base.name}")
    if held not in (None, checksum):  # another registry's version of that number
        name = layout.apart(base, checksum).name
        held = _held(filesystem, f"{root}/{name}")
    if held is None:
        layout.check(folder)
        # The checksums go last: they say that everything else is there.
        for file in (*layout.files(folder), layout.CHECKSUMS):
            filesystem.put_file(str(folder / file), f"{root}/{name}/{file}")
    return folder, filesystem.unstrip_protocol(f"{root}/{name}")


def _held(filesystem: Any, url: str) -> str | None:
    """The checksum of the release that lies there whole; None: none does."""
    try:
        content: bytes = filesystem.cat_file(f"{url}/{layout.CHECKSUMS}")
    except FileNotFoundError:
        return None
    return hashlib.sha256(content).hexdigest()


def _fill(uri: str, release: Path, collection: str) -> None:
    """The release's vectors from its FAISS file into a collection of their own."""
    built = index.of_release(release)
    starts = range(0, len(built.ids), milvus.ROWS_AT_ONCE)
    vectors = (built.inner.reconstruct_n(s, min(milvus.ROWS_AT_ONCE, len(built.ids) - s)) for s in starts)
    milvus.build(uri, collection, vectors, width=built.width)


def withdraw(arm: str, cfg: DeployConfig) -> int:
    """Takes an arm's release out of the manifest and returns the generation in which it is gone."""
    return _put(cfg.served(), arm, None)


def _put(url: str, arm: str, entry: Release | None) -> int:
    """By compare-and-set: what another writer changed meanwhile is kept."""
    for _ in range(TRIES):
        served = manifest.read(url)
        if served.arms.get(arm) == entry:
            return served.generation
        changed = served.with_arm(arm, entry)
        try:
            manifest.write(url, changed)
            return changed.generation
        except Conflict:
            time.sleep(0.1)
    raise ServiceError(f"{url}: {TRIES} other writers were faster; try again")


def _wait(gateway: str, generation: int, timeout_s: float) -> None:
    deadline, answer = time.monotonic() + timeout_s, "no answer"
    while time.monotonic() < deadline:
        try:
            state = httpx.get(f"{gateway}/v1/release", timeout=5.0).json()
            if state["generation"] >= generation:
                return
            if (state.get("refused_generation") or 0) >= generation:
                raise ServiceError(f"{gateway} refuses generation {generation}: {state['problem']}")
            answer = f"it serves generation {state['generation']}"
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            answer = type(error).__name__
        time.sleep(0.2)
    raise ServiceError(f"{gateway} does not serve generation {generation} after {timeout_s:.0f} s ({answer})")
