"""A refreshed release to the registry: a version of its own, which takes the champion's place by
compare-and-set.
"""

from pathlib import Path

from crops.arms import CHAMPION, TREATMENT
from crops.config.register import RegisterConfig
from crops.errors import ServiceError
from crops.release import index, manifest
from crops.services import registry
from crops.stages.base import StageReport
from crops.tables import artifacts


def run(
    refreshed: Path, out: Path, cfg: RegisterConfig, *, uri: str, served: str | None = None
) -> StageReport:
    """Writes release.json as `register` does. A ServiceError where the champion is no longer the one that was
    refreshed.

    served: URL of the release manifest. While a rollout is running there it is refused: the rollout compares
    two releases, and neither may change under it.
    """
    about = artifacts.read_json(refreshed / "refresh.json")
    before = registry.version_of(uri, about["source"], name=cfg.name)
    if before is None:
        raise ServiceError(f"{uri}: no version of {cfg.name} is the release that was refreshed")
    if about["how"] == "nothing changed":
        # Named all the same: a run that was killed after the registry and before the manifest is made good by
        # the next one.
        _write(out, cfg.name, before, uri)
        return StageReport(numbers={"registered": 0}, notes=("nothing changed: the champion stays",))
    if served is not None and TREATMENT in manifest.read(served).arms:
        raise ServiceError(f"{served}: a rollout is running; refresh after it, or abort it first")
    release = refreshed / "release"
    tags = {
        "checksums": index.sha256(release / registry.CHECKSUMS),
        "refreshed_from": before,
        "index": about["how"],
    }
    version = registry.register(uri, release, name=cfg.name, tags=tags)
    reason = (
        f"refreshed: {about['added']} new, {about['changed']} changed, {about['removed']} "
        f"gone, index {about['how']}"
    )
    registry.move(uri, CHAMPION, version, expected=before, reason=reason, name=cfg.name)
    _write(out, cfg.name, version, uri)
    return StageReport(numbers={"registered": 1, "version": int(version)}, notes=(reason,))


def _write(out: Path, name: str, version: str, uri: str) -> None:
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "release.json", registry.about(uri, version, CHAMPION, name=name))
