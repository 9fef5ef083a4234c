"""If the registry has no champion, what `first` chose is registered and becomes it."""

from pathlib import Path

from crops.arms import CHAMPION
from crops.config.register import RegisterConfig
from crops.stages.base import StageReport
from crops.stages.release import register
from crops.tables import artifacts


def run(
    exported: Path,
    indexed: Path,
    documents: Path,
    samples: Path,
    out: Path,
    cfg: RegisterConfig,
    *,
    registry: str | None = None,
    champion: Path | None = None,
    metrics: Path | None = None,
) -> StageReport:
    """Writes release.json: of the new champion, or {"uri": null, "reason"} if there was one already."""
    if champion is None:
        return register.run(
            exported,
            indexed,
            documents,
            samples,
            out,
            cfg,
            registry=registry,
            alias=CHAMPION,
            metrics=metrics,
            first=True,
        )
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "release.json", {"uri": None, "reason": "the registry has a champion"})
    return StageReport(numbers={"registered": 0})
