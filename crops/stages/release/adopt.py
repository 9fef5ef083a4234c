"""A refreshed release to the registry: a version of its own, which takes the champion's place by
compare-and-set.
"""

from pathlib import Path

from crops.arms import CHAMPION, TREATMENT
from crops.config.register import RegisterConfig
from crops.errors import ServiceError
from crops.release import layout, manifest
from crops.services.registry import Registry
from crops.stages.base import StageReport
from crops.tables import artifacts


def run(
    refreshed: Path, out: Path, cfg: RegisterConfig, *, uri: str, served: str | None = None
) -> StageReport:
    """Writes release.json as `register` does. A ServiceError if the champion is no longer the one that was
    refreshed.

    served: URL of the release manifest. While a rollout is running there, adoption is refused: the rollout
    compares two releases, and neither may change under it.
    """
    registry, facts = Registry(uri, cfg.name), artifacts.read_json(refreshed / "refresh.json")
    before = registry.version_of(facts["source"])
    if before is None:
        raise ServiceError(f"{uri}: no version of {cfg.name} is the release that was refreshed")
    if facts["how"] == "nothing changed":
        # release.json names the champion all the same: if an earlier run was killed between the registry and
        # the manifest, this one deploys what it registered.
        version, reason = before, "nothing changed: the champion stays"
        numbers: dict[str, float | int] = {"registered": 0}
    else:
        if served is not None and TREATMENT in manifest.read(served).arms:
            raise ServiceError(f"{served}: a rollout is running; refresh after it, or abort it first")
        release = refreshed / "release"
        tags = {"checksums": layout.checksum(release), "refreshed_from": before, "index": facts["how"]}
        version = registry.register(release, tags=tags)
        reason = (
            f"refreshed: {facts['added']} new, {facts['changed']} changed, {facts['removed']} "
            f"gone, index {facts['how']}"
        )
        registry.move(CHAMPION, version, expected=before, reason=reason)
        numbers = {"registered": 1, "version": int(version)}
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "release.json", registry.entry(version, CHAMPION))
    return StageReport(numbers=numbers, notes=(reason,))
